//! What is dropped, and that it is counted as what it is.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

mod common;

use common::{How, Lab, frames::*, rloc, ts_mac, vni, wait_for};
use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};
use weft_datapath::{Datapath as _, Direction, Location, Op, Path, Peer, Reason, VapKind};
use weft_model::Epoch;

const A: Mac = [2, 0, 0, 0, 0, 1];
const B: Mac = [2, 0, 0, 0, 0, 2];
const OTHER: Mac = [2, 0, 0, 0, 0, 9];

fn lab(path: Path) -> Lab {
    let how = How { kind: VapKind::Veth, path, v6: false };
    let mut lab = Lab::new();
    lab.attach(0, 1, how);
    lab.attach(1, 2, how);
    for ts in &lab.tss {
        ts.ns.ip("addr flush dev eth0");
    }
    lab
}

#[test]
fn spoofed_and_rogue_frames() {
    let a4: Ipv4Addr = "10.0.0.1".parse().unwrap();
    let b4: Ipv4Addr = "10.0.0.2".parse().unwrap();
    let c4: Ipv4Addr = "10.0.0.3".parse().unwrap();
    let a6: Ipv6Addr = "fd00::1".parse().unwrap();
    let b6: Ipv6Addr = "fd00::2".parse().unwrap();
    let c6: Ipv6Addr = "fd00::3".parse().unwrap();
    let all: Ipv6Addr = "ff02::1".parse().unwrap();
    let (group, node) = solicited_node(b6);
    let data = udp(1, 2, b"x");
    let ra = [&[134, 0, 0, 0, 64, 0, 0, 0][..], &[0; 8]].concat();
    let dhcp = |src, dst| udp(src, dst, &[0; 20]);
    let v4 = |dst, src, packet: &[u8]| eth(dst, src, 0x0800, packet);
    let v6 = |dst, src, packet: &[u8]| eth(dst, src, 0x86dd, packet);
    let cases = [
        (Reason::SpoofedMac, v4(B, OTHER, &ipv4(a4, b4, 17, 0, 0, &data))),
        (Reason::SpoofedIp, v4(B, A, &ipv4(c4, b4, 17, 0, 0, &data))),
        (Reason::SpoofedIp, v6(B, A, &ipv6(c6, b6, 17, 64, 0, &data))),
        (Reason::SpoofedArp, arp(BROADCAST, A, 1, OTHER, a4, b4)),
        (Reason::SpoofedArp, arp(BROADCAST, A, 1, A, c4, b4)),
        (Reason::SpoofedArp, arp(B, A, 2, A, c4, b4)),
        (Reason::SpoofedNd, v6(B, A, &nd(135, a6, b6, b6, &lla(1, OTHER)))),
        (Reason::SpoofedNd, v6(B, A, &nd(136, a6, b6, c6, &lla(2, A)))),
        (Reason::SpoofedNd, v6(B, A, &nd(136, a6, b6, a6, &lla(2, OTHER)))),
        (Reason::Announcement, arp(BROADCAST, A, 1, A, a4, a4)),
        (Reason::Announcement, arp(BROADCAST, A, 2, A, a4, a4)),
        (Reason::Announcement, v6([0x33, 0x33, 0, 0, 0, 1], A, &nd(136, a6, all, a6, &lla(2, A)))),
        (Reason::OwnAddress, arp(BROADCAST, A, 1, A, Ipv4Addr::UNSPECIFIED, a4)),
        (Reason::RogueRouter, v6([0x33, 0x33, 0, 0, 0, 1], A, &icmpv6(a6, all, &ra))),
        (Reason::RogueDhcp, v4(B, A, &ipv4(a4, b4, 17, 0, 0, &dhcp(67, 68)))),
        (Reason::RogueDhcp, v6(B, A, &ipv6(a6, b6, 17, 64, 0, &dhcp(547, 546)))),
        (
            Reason::BumOff,
            v4(BROADCAST, A, &ipv4(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, 17, 0, 0, &dhcp(68, 67))),
        ),
        (
            Reason::BumOff,
            v6(
                [0x33, 0x33, 0, 0, 0, 2],
                A,
                &icmpv6(a6, "ff02::2".parse().unwrap(), &[133, 0, 0, 0, 0, 0, 0, 0]),
            ),
        ),
        (
            Reason::HiddenL4,
            v6(group, A, &ipv6(a6, node, 44, 255, 0, &[58, 0, 0, 1, 0, 0, 0, 1, 135, 0, 0, 0, 0, 0, 0, 0])),
        ),
        // To a client, whatever port it comes from.
        (Reason::RogueDhcp, v4(B, A, &ipv4(a4, b4, 17, 0, 0, &dhcp(1067, 68)))),
        (Reason::RogueDhcp, v6(B, A, &ipv6(a6, b6, 17, 64, 0, &dhcp(1547, 546)))),
        // A first fragment whose options header is longer than the fragment: what it hides is in the next
        // one, and what looks like the rest of it here is padding.
        (
            Reason::HiddenL4,
            v6(
                B,
                A,
                &[
                    &ipv6(a6, b6, 44, 64, 0, &[60, 0, 0, 1, 0, 0, 0, 1, 58, 1, 1, 4, 0, 0, 0, 0])[..],
                    &[0; 8],
                    &[128, 0, 0, 0, 0, 0, 0, 0],
                ]
                .concat(),
            ),
        ),
        (Reason::Malformed, v4(B, A, &ipv4(a4, b4, 17, 0, 0, &data)[..24])),
        (Reason::Malformed, v6(B, A, &ipv6(a6, b6, 59, 64, 0, &[0; 8])[..44])),
        (Reason::VlanTagged, eth(B, A, 0x8100, &[0, 5, 8, 0, 0, 0])),
        (Reason::VlanTagged, eth(B, A, 0x9100, &[0, 5, 8, 0, 0, 0])),
        (Reason::HiddenL4, eth(B, A, 36, &[&[0xaa, 0xaa, 3, 0, 0, 0, 8, 6][..], &[0; 28]].concat())),
        (Reason::ToSelf, v4(A, A, &ipv4(a4, b4, 17, 0, 0, &data))),
        (Reason::Malformed, v4(B, A, &[0x44; 30])),
    ];
    for path in [Path::Direct, Path::Device] {
        let mut lab = lab(path);
        let wire = Wire::new(&lab.tss[0].ns, "eth0");
        for (reason, frame) in &cases {
            let before = lab.nves[0].count(*reason);
            wire.send(frame);
            wait_for(reason.as_str(), || (lab.nves[0].count(*reason) == before + 1).then_some(()));
        }
        assert_eq!(lab.nves[0].count(Reason::Encapsulated), 0, "{}", lab.dump());
        let counters = lab.nves[0].counters();
        let own = counters.iter().filter(|c| c.reason.is_drop());
        for c in own {
            assert_eq!((c.vni, c.path, c.direction), (Some(vni(7001)), path, Direction::Out), "{c:?}");
        }
        // Unicast ARP and ND of the owner cross the overlay (RFC 1122 section 2.3.2.1, RFC 4861 section 7.3).
        wire.send(&arp(B, A, 1, A, a4, b4));
        wire.send(&v6(B, A, &nd(135, a6, b6, b6, &lla(1, A))));
        let there = Wire::new(&lab.tss[1].ns, "eth0");
        wire.send(&arp(B, A, 2, A, a4, b4));
        assert_eq!(
            there.receive("a unicast ARP reply", |f| f[12..14] == [8, 6] && f[21] == 2),
            arp(B, A, 2, A, a4, b4)
        );
        assert_eq!(lab.nves[0].count(Reason::Encapsulated), 3, "{}", lab.dump());
        wait_for("delivery", || (lab.nves[1].count(Reason::Delivered) == 3).then_some(()));
    }
}

/// Frames put on the underlay by hand: as the NVE, as a stranger, well-formed and not.
#[test]
fn what_the_underlay_brings() {
    let inner = |dst, src| {
        let packet =
            ipv4("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap(), 17, 0, 0, &udp(1, 2, b"hello"));
        eth(dst, src, 0x0800, &packet)
    };
    let good = inner(B, A);
    let cases = [
        (Reason::BadVxlan, vxlan(0, 7001, &good)),
        (Reason::BadVxlan, vxlan(8, 0, &good)),
        (Reason::UnknownVni, vxlan(8, 7002, &good)),
        (Reason::InnerGroup, vxlan(8, 7001, &inner(BROADCAST, A))),
        (Reason::VlanTagged, vxlan(8, 7001, &eth(B, A, 0x8100, &[0, 1, 8, 0, 0]))),
        (Reason::Fenced, vxlan(8, 7001, &inner(B, B))),
        (Reason::NoSuchTs, vxlan(8, 7001, &inner(OTHER, A))),
        (Reason::SrcMoved, vxlan(8, 7001, &good)),
    ];
    for family in [false, true] {
        for path in [Path::Direct, Path::Device] {
            let mut lab = lab(path);
            let (a, b) = (rloc(0, family).get(), rloc(1, family).get());
            let elsewhere = Location::Remote { rloc: rloc(7, family), epoch: Epoch::FIRST, other: 0 };
            lab.nves[1].apply(&[Op::SetLocation(vni(7001), ts_mac(1).get(), elsewhere)]);
            let socket = lab.nves[0].ns.run(|| std::net::UdpSocket::bind((a, 0)).unwrap());
            let there = Wire::new(&lab.tss[1].ns, "eth0");
            for (reason, payload) in &cases {
                let before = lab.nves[1].count(*reason);
                socket.send_to(payload, (b, 4789)).unwrap();
                wait_for(reason.as_str(), || (lab.nves[1].count(*reason) == before + 1).then_some(()));
            }
            assert_eq!(there.receive("the one good frame", |f| f[12..14] == [8, 0]), good);
            assert_eq!(lab.nves[1].count(Reason::Delivered), 1, "{}", lab.dump());

            // Not Activated is not there.
            let mut vap = Lab::vap(2, How { kind: VapKind::Veth, path, v6: false });
            vap.activated = false;
            let device = lab.tss[1].device;
            lab.nves[1].apply(&[Op::SetVap(device, vap)]);
            socket.send_to(&vxlan(8, 7001, &good), (b, 4789)).unwrap();
            wait_for("not activated", || (lab.nves[1].count(Reason::NotActivated) == 1).then_some(()));

            // A node that is no NVE, or nobody.
            for op in
                [Op::SetPeer(a, Peer { nve: false, oracle: true, node: 0, other: None }), Op::RemovePeer(a)]
            {
                let before = lab.nves[1].count(Reason::ForeignRloc);
                lab.nves[1].apply(&[op]);
                socket.send_to(&vxlan(8, 7001, &good), (b, 4789)).unwrap();
                wait_for("foreign", || (lab.nves[1].count(Reason::ForeignRloc) == before + 1).then_some(()));
            }
            let dump = lab.dump();
            let unknown = lab.nves[1].counters().into_iter().find(|c| c.reason == Reason::UnknownVni);
            assert_eq!(unknown.map(|c| c.vni), Some(None), "{dump}");
        }
    }
}

/// A tenant's MAC address in frames of an NVE that an Oracle's word does not name: let through for a
/// moment, then fenced, but only for as long as somebody vouches for that word.
#[test]
#[allow(clippy::disallowed_methods, reason = "for how long nothing is fenced that nobody vouches for")]
fn frames_of_a_former_holder_are_fenced() {
    let packet =
        ipv4("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap(), 17, 0, 0, &udp(1, 2, b"hello"));
    let frame = vxlan(8, 7001, &eth(B, A, 0x0800, &packet));
    for (family, path) in [(false, Path::Direct), (true, Path::Direct), (false, Path::Device)] {
        let mut lab = lab(path);
        let (a, b) = (rloc(0, family).get(), rloc(1, family).get());
        let socket = lab.nves[0].ns.run(|| std::net::UdpSocket::bind((a, 0)).unwrap());
        let mut sent = 0;
        // Sends one frame; what it was counted as.
        let mut send = |lab: &mut Lab| {
            socket.send_to(&frame, (b, 4789)).unwrap();
            sent += 1;
            wait_for("the frame", || {
                let counts = [Reason::Delivered, Reason::Fenced].map(|r| lab.nves[1].count(r));
                (counts.iter().sum::<u64>() == sent).then_some(counts)
            })
        };

        // Another RLOC of the same NVE is the same NVE.
        let other = rloc(8, family);
        let at = |rloc| Location::Remote { rloc, epoch: Epoch::FIRST, other: 0 };
        let same = Op::SetPeer(other.get(), Peer { nve: true, oracle: false, node: 0, other: None });
        lab.nves[1].apply(&[same, Op::SetLocation(vni(7001), ts_mac(1).get(), at(other))]);
        lab.nves[1].with(|k| k.vouch(Duration::from_secs(3_600)).unwrap());
        assert_eq!(send(&mut lab), [1, 0]);
        assert_eq!(lab.nves[1].count(Reason::SrcMoved), 0, "{}", lab.dump());

        let elsewhere = Op::SetLocation(vni(7001), ts_mac(1).get(), at(rloc(7, family)));
        lab.nves[1].apply(std::slice::from_ref(&elsewhere));
        assert_eq!(send(&mut lab), [2, 0], "frames under way arrive");
        // What was said before that, or too soon after it, says nothing of whose the word is that is late.
        let begun = std::time::Instant::now();
        wait_for("longer than the moment", || (begun.elapsed().as_millis() > 2_500).then_some(()));
        assert_eq!(send(&mut lab), [3, 0], "nobody has vouched since");
        let fenced = wait_for("the fence", || {
            lab.nves[1].with(|k| k.vouch(Duration::from_secs(3_600)).unwrap());
            Some(send(&mut lab)).filter(|counts| counts[1] > 0)
        });
        assert_eq!(lab.nves[1].count(Reason::SrcMoved), fenced[0] - 1, "{}", lab.dump());
        assert_eq!(send(&mut lab), [fenced[0], 2]);

        // Nobody vouches: the tables may be what is wrong.
        lab.nves[1].with(|k| k.vouch(Duration::ZERO).unwrap());
        assert_eq!(send(&mut lab), [fenced[0] + 1, 2]);
        lab.nves[1].with(|k| k.vouch(Duration::from_secs(3_600)).unwrap());
        assert_eq!(send(&mut lab), [fenced[0] + 1, 3]);
        // A new word opens it for a moment again.
        lab.nves[1].apply(&[elsewhere]);
        assert_eq!(send(&mut lab), [fenced[0] + 2, 3]);
    }
}

/// The VXLAN device makes the same decisions about what the uplink's program leaves to the kernel: here
/// for the IP options in the outer header.
#[test]
fn the_device_path_refuses_alike() {
    let mut lab = lab(Path::Device);
    let (a, b) = (rloc(0, false).get(), rloc(1, false).get());
    lab.nves[1].apply(&[Op::RemovePeer(a)]);
    let socket = lab.nves[0].ns.run(|| std::net::UdpSocket::bind((a, 0)).unwrap());
    with_options(&socket);
    let frame = eth(B, A, 0x0800, &[0x45; 40]);
    socket.send_to(&vxlan(8, 7001, &frame), (b, 4789)).unwrap();
    wait_for("foreign", || (lab.nves[1].count(Reason::ForeignRloc) == 1).then_some(()));
    lab.nves[1].apply(&[Op::SetPeer(a, Peer { nve: true, oracle: false, node: 0, other: None })]);
    for (reason, payload) in [
        (Reason::UnknownVni, vxlan(8, 7002, &frame)),
        (Reason::InnerGroup, vxlan(8, 7001, &eth(BROADCAST, A, 0x0800, &[0x45; 40]))),
        (Reason::Fenced, vxlan(8, 7001, &eth(B, B, 0x0800, &[0x45; 40]))),
        (Reason::NoSuchTs, vxlan(8, 7001, &eth(OTHER, A, 0x0800, &[0x45; 40]))),
        (Reason::VlanTagged, vxlan(8, 7001, &eth(B, A, 0x8100, &[&[0, 5, 8, 0][..], &[0x45; 40]].concat()))),
        (Reason::Delivered, vxlan(8, 7001, &frame)),
    ] {
        socket.send_to(&payload, (b, 4789)).unwrap();
        wait_for(reason.as_str(), || (lab.nves[1].count(reason) == 1).then_some(()));
    }
    let counters = lab.nves[1].counters();
    assert!(
        counters.iter().all(|c| c.path == Path::Device || c.direction == Direction::Out),
        "{}",
        lab.dump()
    );
}

/// IP options that say nothing.
fn with_options(socket: &std::net::UdpSocket) {
    use std::os::fd::AsRawFd as _;
    let options = [1_u8; 4];
    // SAFETY: a live descriptor and four live octets.
    let set = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_OPTIONS, options.as_ptr().cast(), 4)
    };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

/// A device that is no uplink may be a tenant's: what it brings for the VXLAN port is nobody's, whatever
/// source address it has.
#[test]
fn vxlan_over_another_device_is_refused() {
    for family in [false, true] {
        let mut lab = lab(Path::Direct);
        let b = rloc(1, family).get();
        // As if from a peer: this host's own address is one for once.
        lab.nves[1].apply(&[Op::SetPeer(b, Peer { nve: true, oracle: false, node: 0, other: None })]);
        let frame = vxlan(8, 7001, &eth(B, A, 0x0800, &[0x45; 40]));
        let socket = lab.nves[1].ns.run(|| std::net::UdpSocket::bind((b, 0)).unwrap());
        socket.send_to(&frame, (b, 4789)).unwrap();
        wait_for("a refusal", || (lab.nves[1].count(Reason::OtherLink) == 1).then_some(()));
        assert_eq!(lab.nves[1].count(Reason::Delivered), 0, "{}", lab.dump());
    }
}

#[test]
fn use_of_a_location_is_noted() {
    let mut lab = lab(Path::Direct);
    let mac = ts_mac(2).get();
    assert_eq!(lab.nves[0].with(|k| k.last_used(vni(7001), mac).unwrap()), None);
    let wire = Wire::new(&lab.tss[0].ns, "eth0");
    wire.send(&arp(B, A, 2, A, "10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()));
    let idle = wait_for("use", || lab.nves[0].with(|k| k.last_used(vni(7001), mac).unwrap()));
    assert!(idle < Duration::from_secs(30));
    // Setting it again does not make it new.
    let at = Location::Remote { rloc: rloc(1, true), epoch: Epoch::FIRST.next(), other: 0 };
    lab.nves[0].apply(&[Op::SetLocation(vni(7001), mac, at)]);
    assert!(lab.nves[0].with(|k| k.last_used(vni(7001), mac).unwrap()).is_some());
    assert_eq!(lab.nves[0].with(|k| k.last_used(vni(7001), ts_mac(200).get()).unwrap()), None);
}
