//! What the data plane itself sends, octet for octet, as a tenant system or an Oracle sees it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

mod common;

use common::{How, Lab, Ns, frames::*, rloc, ts_mac, vni, wait_for};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use weft_datapath::{Datapath as _, Neighbour, Op, Path, Peer, PuntReason, Reason, VapKind, echo};

const A: Mac = [2, 0, 0, 0, 0, 1];
const B: Mac = [2, 0, 0, 0, 0, 2];

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// Tenant system 1 at NVE 0, silenced, with a wire to it; 2 at NVE 1.
fn lab(kind: VapKind) -> (Lab, Wire) {
    let how = How { kind, path: Path::Direct, v6: false };
    let mut lab = Lab::new();
    lab.attach(0, 1, how);
    lab.attach(1, 2, how);
    // The test speaks for it.
    lab.tss[0].ns.ip("addr flush dev eth0");
    let wire = Wire::new(&lab.tss[0].ns, "eth0");
    (lab, wire)
}

fn arp_and_nd(kind: VapKind) {
    let (_lab, wire) = lab(kind);
    let ethertype = |kind: [u8; 2]| move |f: &[u8]| f[12..14] == kind;

    wire.send(&arp(BROADCAST, A, 1, A, v4("10.0.0.1"), v4("10.0.0.2")));
    let expected = hex("020000000001 020000000002 0806 0001 0800 06 04 0002
         020000000002 0a000002 020000000001 0a000001");
    assert_eq!(wire.receive("an ARP reply", ethertype([8, 6])), expected);

    // An address probe (RFC 5227) for a used address.
    wire.send(&arp(BROADCAST, A, 1, A, v4("0.0.0.0"), v4("10.0.0.2")));
    let expected = hex("020000000001 020000000002 0806 0001 0800 06 04 0002
         020000000002 0a000002 020000000001 00000000");
    assert_eq!(wire.receive("an answer to the probe", ethertype([8, 6])), expected);

    let (group, to) = solicited_node(v6("fd00::2"));
    let nonce = [&[14, 1][..], &[9; 6]].concat();
    let advertisement = hex("020000000001 020000000002 86dd 60000000 0020 3a ff
         fd000000000000000000000000000002 fd000000000000000000000000000001
         88 00 0f00 e0000000 fd000000000000000000000000000002 02 01 020000000002");
    for options in [vec![], lla(1, A), nonce.clone(), [lla(1, A), nonce.clone()].concat()] {
        let ns = nd(135, v6("fd00::1"), to, v6("fd00::2"), &options);
        wire.send(&eth(group, A, 0x86dd, &ns));
        let got = wire.receive("an advertisement", |f| f[12..14] == [0x86, 0xdd] && f[54] == 136);
        check_icmpv6(&got);
        let mut expected = advertisement.clone();
        expected[56..58].copy_from_slice(&got[56..58]); // verified above
        assert_eq!(got, expected, "{} octets of options", options.len());
    }

    for options in [vec![], nonce] {
        let ns = nd(135, Ipv6Addr::UNSPECIFIED, to, v6("fd00::2"), &options);
        wire.send(&eth(group, A, 0x86dd, &ns));
        let got = wire.receive("a defence", |f| f[12..14] == [0x86, 0xdd] && f[54] == 136);
        check_icmpv6(&got);
        let mut expected = hex("333300000001 020000000002 86dd 60000000 0020 3a ff
             fd000000000000000000000000000002 ff020000000000000000000000000001
             88 00 0000 a0000000 fd000000000000000000000000000002 02 01 020000000002");
        expected[56..58].copy_from_slice(&got[56..58]);
        assert_eq!(got, expected);
    }
}

/// The checksum of an ICMPv6 message right behind its IPv6 header.
fn check_icmpv6(frame: &[u8]) {
    let len = u32::try_from(frame.len() - 54).unwrap().to_be_bytes();
    assert_eq!(sum(&[&frame[22..54], &len, &[0, 0, 0, 58], &frame[54..]]), 0);
}

#[test]
fn arp_and_nd_on_veth() {
    arp_and_nd(VapKind::Veth);
}

#[test]
fn arp_and_nd_on_tap() {
    arp_and_nd(VapKind::Tap);
}

#[test]
fn too_big_is_told() {
    let (mut lab, wire) = lab(VapKind::Veth);
    lab.tss[0].ns.ip("link set eth0 mtu 1500");
    for frag in [0x4000, 0] {
        let packet = ipv4(
            v4("10.0.0.1"),
            v4("10.0.0.2"),
            17,
            0,
            frag,
            &udp(1, 2, &(0..1_460).map(|i| (i % 251) as u8).collect::<Vec<_>>()),
        );
        wire.send(&eth(B, A, 0x0800, &packet));
        let got = wire.receive("fragmentation needed", |f| f[12..14] == [8, 0] && f[23] == 1);
        assert_eq!(got.len(), 14 + 576);
        assert_eq!(got[..14], hex("020000000001 020000000002 0800"));
        assert_eq!(got[14..24], hex("45c0 0240 0000 0000 40 01"));
        assert_eq!(got[26..34], hex("0a000002 0a000001"));
        assert_eq!(sum(&[&got[14..34]]), 0);
        assert_eq!(got[34..36], [3, 4]);
        assert_eq!(got[38..42], [0, 0, 1450_u16.to_be_bytes()[0], 1450_u16.to_be_bytes()[1]]);
        assert_eq!(got[42..], packet[..548]);
        assert_eq!(sum(&[&got[34..]]), 0);
    }
    let packet = ipv6(v6("fd00::1"), v6("fd00::2"), 17, 64, 0, &udp(1, 2, &[7; 1_450]));
    wire.send(&eth(B, A, 0x86dd, &packet));
    let got = wire.receive("packet too big", |f| f[12..14] == [0x86, 0xdd] && f[54] == 2);
    assert_eq!(got.len(), 54 + 8 + 512);
    assert_eq!(got[..14], hex("020000000001 020000000002 86dd"));
    assert_eq!(got[14..22], hex("60000000 0208 3a 40"));
    assert_eq!(got[22..54], [v6("fd00::2").octets(), v6("fd00::1").octets()].concat());
    assert_eq!(got[54..56], [2, 0]);
    assert_eq!(got[58..62], 1450_u32.to_be_bytes());
    assert_eq!(got[62..], packet[..512]);
    check_icmpv6(&got);
    // An ICMP error is told nothing.
    let error = ipv4(v4("10.0.0.1"), v4("10.0.0.2"), 1, 0, 0, &[3; 1_470]);
    wire.send(&eth(B, A, 0x0800, &error));
    wait_for("four counted", || (lab.nves[0].count(Reason::TooBig) == 4).then_some(()));
    assert_eq!(lab.nves[0].count(Reason::Encapsulated), 0, "{}", lab.dump());
}

/// The checksum over an error is right although the one in the packet it quotes was left to the host,
/// which makes that one when the error goes out, or leaves it to the guest.
#[test]
fn too_big_is_told_to_guests_that_leave_checksums_to_the_host() {
    let how = How { kind: VapKind::Tap, path: Path::Direct, v6: false };
    for offload in [false, true] {
        let mut lab = Lab::new();
        lab.attach(1, 2, how);
        let mut guest = common::tap::Guest::new(&lab.nves[0].ns, "ts1", offload);
        lab.nves[0].ns.ip("link set ts1 up");
        let ts = common::Ts { n: 1, device: lab.nves[0].ns.index("ts1"), ns: Ns::new("guest"), relay: None };
        lab.tell(0, &ts, how);
        for proto in [6_u8, 17] {
            let field: u16 = if proto == 6 { 16 } else { 6 };
            let mut segment: Vec<u8> = (0..1_460_u32).map(|i| (i * 7 % 251) as u8).collect();
            segment[12] = 0x50;
            segment[4..6].copy_from_slice(&1_460_u16.to_be_bytes());
            let (a4, b4, a6, b6) = (v4("10.0.0.1"), v4("10.0.0.2"), v6("fd00::1"), v6("fd00::2"));
            for family in [4, 6] {
                let rest = [&1_460_u32.to_be_bytes()[..], &[0, 0, 0, proto]].concat();
                let pseudo = if family == 4 {
                    !sum(&[&a4.octets(), &b4.octets(), &rest])
                } else {
                    !sum(&[&a6.octets(), &b6.octets(), &rest])
                };
                let at = usize::from(field);
                segment[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
                let frame = if family == 4 {
                    eth(B, A, 0x0800, &ipv4(a4, b4, proto, 0, 0x4000, &segment))
                } else {
                    eth(B, A, 0x86dd, &ipv6(a6, b6, proto, 64, 0, &segment))
                };
                let l4 = frame.len() - segment.len();
                guest.send_unsummed(&frame, u16::try_from(l4).unwrap(), field);
                let got = guest.receive("an error", |f| {
                    if family == 4 { f[12..14] == [8, 0] && f[23] == 1 } else { f[12] == 0x86 && f[54] == 2 }
                });
                if family == 4 {
                    assert_eq!(sum(&[&got[34..]]), 0, "protocol {proto}, offload {offload}");
                } else {
                    check_icmpv6(&got);
                }
            }
        }
        assert_eq!(lab.nves[0].count(Reason::TooBig), 4, "{}", lab.dump());
    }
}

/// A TCP stream whose ends think that the MTU is 1500 gets through, by what it is told.
#[test]
fn path_mtu_is_discovered() {
    for path in [Path::Direct, Path::Device] {
        let how = How { kind: VapKind::Veth, path, v6: true };
        let mut lab = Lab::new();
        lab.attach(0, 1, how);
        lab.attach(1, 2, how);
        for ts in &lab.tss {
            ts.ns.ip("link set eth0 mtu 1500");
        }
        for family in [false, true] {
            common::tcp(&lab.tss[0].ns, &lab.tss[1].ns, lab.tss[1].ip(family), 5_000_000);
        }
        assert!(lab.nves[0].count(Reason::TooBig) > 0, "{}", lab.dump());
    }
}

#[test]
fn echo_is_answered_without_the_agent() {
    use std::{net::UdpSocket, time::Duration};
    for family in [false, true] {
        let mut lab = Lab::new();
        let (a, b) = (rloc(0, family).get(), rloc(1, family).get());
        let peer = |oracle| Op::SetPeer(a, Peer { nve: true, oracle, node: 0, other: None });
        lab.nves[1].apply(&[peer(true)]);
        let socket = lab.nves[0].ns.run(|| UdpSocket::bind((a, 0)).unwrap());
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut buffer = [0; 100];
        for nonce in [1, u64::MAX, 0x5745_4654] {
            socket.send_to(&echo::request(nonce), (b, echo::PORT)).unwrap();
            let (n, from) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!(echo::parse_reply(&buffer[..n]), Some(nonce));
            assert_eq!((from.ip(), from.port()), (b, echo::PORT));
        }
        assert_eq!(lab.nves[1].count(Reason::Echoed), 3);

        // With no checksum (IPv4 permits that) none comes back; with one, a right one: the socket
        // above would not have seen it otherwise. Seen on the wire besides:
        let wire = Wire::new(&lab.nves[0].ns, "up0");
        let to = link_address(&lab.nves[1].ns, "up0");
        let own = link_address(&lab.nves[0].ns, "up0");
        let frame = datagram(to, own, a, b, 0, &udp(40_000, echo::PORT, &echo::request(9)));
        wire.send(&frame);
        let off = if family { 54 } else { 34 };
        let reply = wire.receive("an echo reply", |f| f.get(off..off + 4) == Some(&[0x12, 0xb5, 0x9c, 0x40]));
        let mut expected = datagram(own, to, b, a, 0, &udp(echo::PORT, 40_000, &echo::request(9)));
        *expected.last_mut().unwrap() = echo::REPLY;
        assert_eq!(reply, expected);

        // Not for everybody.
        lab.nves[1].apply(&[peer(false)]);
        socket.send_to(&echo::request(7), (b, echo::PORT)).unwrap();
        wait_for("a refusal", || (lab.nves[1].count(Reason::BadVxlan) == 1).then_some(()));
        lab.nves[1].apply(&[Op::RemovePeer(a)]);
        socket.send_to(&echo::request(7), (b, echo::PORT)).unwrap();
        wait_for("a refusal", || (lab.nves[1].count(Reason::ForeignRloc) == 1).then_some(()));
    }
}

fn link_address(ns: &common::Ns, device: &str) -> Mac {
    let out = String::from_utf8(ns.exec(&format!("cat /sys/class/net/{device}/address")).stdout).unwrap();
    let octets: Vec<u8> = out.trim().split(':').map(|o| u8::from_str_radix(o, 16).unwrap()).collect();
    octets.try_into().unwrap()
}

/// The miss is punted, the agent installs what it learned and injects the answer.
#[test]
fn a_miss_is_punted_and_answered_by_injection() {
    let (mut lab, wire) = lab(VapKind::Veth);
    let mut punts = lab.nves[0].punts.take().unwrap();
    let device = lab.tss[0].device;
    wire.send(&arp(BROADCAST, A, 1, A, v4("10.0.0.1"), v4("10.0.0.77")));
    assert!(punts.wait(30_000).unwrap());
    let batch = punts.drain(10);
    assert_eq!(batch.len(), 1);
    assert_eq!((batch[0].vap, batch[0].vni, batch[0].reason), (device, vni(7001), PuntReason::ArpMiss));
    assert_eq!(batch[0].frame, arp(BROADCAST, A, 1, A, v4("10.0.0.1"), v4("10.0.0.77")));
    let answer = arp(A, ts_mac(77).octets(), 2, ts_mac(77).octets(), v4("10.0.0.77"), v4("10.0.0.1"));
    lab.nves[0].with(|kernel| kernel.inject(device, &answer).unwrap());
    assert_eq!(wire.receive("the injected answer", |f| f[12..14] == [8, 6]), answer);

    // Known to be nobody: silence, counted.
    let ip = weft_model::TenantIp::new(IpAddr::V4(v4("10.0.0.77"))).unwrap();
    lab.nves[0].apply(&[Op::SetNeighbour(vni(7001), ip, Neighbour::Nobody)]);
    wire.send(&arp(BROADCAST, A, 1, A, v4("10.0.0.1"), v4("10.0.0.77")));
    wait_for("silence", || (lab.nves[0].count(Reason::Nobody) == 1).then_some(()));
    assert_eq!(punts.drain(10), []);
}

/// 100 per second and 200 at once; the rest is dropped before it costs the agent anything.
#[test]
fn punts_are_limited() {
    let (mut lab, wire) = lab(VapKind::Veth);
    let mut punts = lab.nves[0].punts.take().unwrap();
    for n in 0..1_000_u16 {
        let [high, low] = n.to_be_bytes();
        wire.send(&arp(BROADCAST, A, 1, A, v4("10.0.0.1"), Ipv4Addr::new(10, 1, high, low)));
    }
    let nve = &mut lab.nves[0];
    wait_for("all", || (nve.count(Reason::Punted) + nve.count(Reason::PuntLimited) == 1_000).then_some(()));
    let punted = nve.count(Reason::Punted);
    assert!((200..=600).contains(&punted), "{punted}");
    assert_eq!(punts.drain(usize::MAX).len() as u64, punted);

    // Frames to an unknown MAC wait there, no more of them than are held.
    let mut lab = self::lab(VapKind::Veth);
    let data = eth(
        ts_mac(99).octets(),
        A,
        0x0800,
        &ipv4(v4("10.0.0.1"), v4("10.0.0.99"), 17, 0, 0, &udp(1, 2, &[])),
    );
    for _ in 0..50 {
        lab.1.send(&data);
    }
    let nve = &mut lab.0.nves[0];
    wait_for("all", || (nve.count(Reason::Punted) + nve.count(Reason::PuntLimited) == 50).then_some(()));
    assert!((8..40).contains(&nve.count(Reason::Punted)), "{}", nve.dump());
}
