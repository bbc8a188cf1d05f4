//! VNs that translate (RFC 7586): a tenant system sees another's NVE, and NVEs learn of each other only.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

mod common;

use common::{How, Lab, frames::*, options, rloc, tcp, ts_ips, ts_mac, vni, wait_for};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};
use weft_datapath::{Datapath as _, Location, Neighbour, Op, OpenOptions, Path, Reason, VapKind};
use weft_model::{Bum, Epoch, Learning, MacAddr};

const A: Mac = [2, 0, 0, 0, 0, 1];
const B: Mac = [2, 0, 0, 0, 0, 2];
const C: Mac = [2, 0, 0, 0, 0, 3];

fn node(n: u32) -> Mac {
    MacAddr::of_node(n).octets()
}

/// Tenant systems 1 and 2 at NVE 0, 3 at NVE 1, 4 at NVE 2, each known where it is only.
fn lab(how: How, bum: Bum, silent: bool, options: &dyn Fn() -> OpenOptions) -> Lab {
    let mut lab = Lab::of(3, options);
    for (nve, n) in [(0, 1), (0, 2), (1, 3), (2, 4)] {
        lab.attach_quietly(nve, n, how);
    }
    for ts in lab.tss.iter().filter(|_| silent) {
        ts.silence();
    }
    lab.set_vn(Learning::Translate, bum, how.v6);
    lab
}

fn v4(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, n)
}

fn v6(n: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n.into())
}

fn works(how: How) {
    let mut lab = lab(how, Bum::Drop, false, &options);
    for inner6 in [false, true] {
        for (from, to) in [(0, 2), (2, 3), (3, 1), (0, 1), (1, 2)] {
            let ok = lab.tss[from].ping(lab.tss[to].ip(inner6));
            assert!(ok, "ping {from} to {to}, IPv6 {inner6}\n{}", lab.dump());
        }
        tcp(&lab.tss[0].ns, &lab.tss[2].ns, lab.tss[2].ip(inner6), 5_000_000);
        // Another NVE's tenant system is that NVE, one that is here is itself.
        for (to, mac) in [(2, MacAddr::of_node(1)), (1, ts_mac(2).get())] {
            let ip = lab.tss[to].ip(inner6);
            let entry = lab.tss[0].ns.exec(&format!("ip neigh show {ip}"));
            let entry = String::from_utf8_lossy(&entry.stdout).into_owned();
            assert!(entry.contains(&mac.to_string()), "{entry}");
        }
    }
    let text = lab.dump();
    for (n, nve) in lab.nves.iter_mut().enumerate() {
        let learned = nve.with(|k| k.learned().unwrap());
        assert_eq!(learned.len(), 2, "other NVEs only: {learned:?}");
        for seen in learned {
            assert!(
                (0..3).any(|other| other != n && seen.mac.octets() == node(u32::try_from(other).unwrap()))
            );
        }
        for c in nve.counters() {
            let expected = [
                Reason::Encapsulated,
                Reason::Delivered,
                Reason::Local,
                Reason::Replicated,
                Reason::Answered,
                Reason::NoSuchTs, // a question for somebody elsewhere
                Reason::BumOff,
            ];
            assert!(expected.contains(&c.reason), "{text}");
        }
    }
}

#[test]
fn works_direct_v4() {
    works(How { kind: VapKind::Veth, path: Path::Direct, v6: false });
}

#[test]
fn works_direct_v6() {
    works(How { kind: VapKind::Veth, path: Path::Direct, v6: true });
}

#[test]
fn works_device() {
    works(How { kind: VapKind::Veth, path: Path::Device, v6: false });
}

#[test]
fn works_tap() {
    works(How { kind: VapKind::Tap, path: Path::Direct, v6: true });
}

fn solicitation(dst: Mac, sa: Mac, lla_: Mac, from: u8, to: u8) -> Vec<u8> {
    let (group, address) = solicited_node(v6(to));
    let (dst, address) = if dst == BROADCAST { (group, address) } else { (dst, v6(to)) };
    eth(dst, sa, 0x86dd, &nd(135, v6(from), address, v6(to), &lla(1, lla_)))
}

fn reply(dst: Mac, sa: Mac, sha: Mac, tha: Mac, from: u8, to: u8) -> Vec<u8> {
    let mut f = arp(dst, sa, 2, sha, v4(from), v4(to));
    f[32..38].copy_from_slice(&tha);
    f
}

/// Questions, answers and data, octet for octet.
#[test]
fn frame_by_frame() {
    for (kind, path, under6) in [
        (VapKind::Veth, Path::Direct, false),
        (VapKind::Veth, Path::Device, true),
        (VapKind::Tap, Path::Direct, true),
    ] {
        let mut lab = lab(How { kind, path, v6: under6 }, Bum::Replicate, true, &options);
        let ends: Vec<Wire> = lab.tss.iter().map(|ts| Wire::new(&ts.ns, "eth0")).collect();
        // ARP: the sender is its NVE to whoever is asked; nobody else is.
        ends[0].send(&arp(BROADCAST, A, 1, A, v4(1), v4(3)));
        let question = ends[2].receive("the question", |f| f[12..14] == [8, 6]);
        assert_eq!(question, arp(BROADCAST, node(0), 1, node(0), v4(1), v4(3)));
        wait_for("nobody there", || (lab.nves[2].count(Reason::NoSuchTs) == 1).then_some(()));
        ends[2].send(&reply(node(0), C, C, node(0), 3, 1));
        let answer = ends[0].receive("the answer", |f| f[12..14] == [8, 6]);
        assert_eq!(answer, reply(A, node(1), node(1), A, 3, 1));
        // Who asks next is answered here.
        let copies = lab.nves[0].count(Reason::Replicated);
        ends[1].send(&arp(BROADCAST, B, 1, B, v4(2), v4(3)));
        let answer = ends[1].receive("the answer", |f| f[12..14] == [8, 6]);
        assert_eq!(answer[..42], reply(B, node(1), node(1), B, 3, 2)[..]);
        // So is, there, a question for who asked.
        ends[2].send(&arp(BROADCAST, C, 1, C, v4(3), v4(1)));
        let answer = ends[2].receive("the answer", |f| f[12..14] == [8, 6]);
        assert_eq!(answer[..42], reply(C, node(0), node(0), C, 1, 3)[..]);

        // ND likewise, with checksums.
        ends[0].send(&solicitation(BROADCAST, A, A, 1, 3));
        let question = ends[2].receive("the question", |f| f[12..14] == [0x86, 0xdd]);
        assert_eq!(question, solicitation(BROADCAST, node(0), node(0), 1, 3));
        let na = |dst, sa, mac, to| eth(dst, sa, 0x86dd, &nd(136, v6(3), v6(to), v6(3), &lla(2, mac)));
        ends[2].send(&na(node(0), C, C, 1));
        let answer = ends[0].receive("the answer", |f| f[12..14] == [0x86, 0xdd]);
        assert_eq!(answer, na(A, node(1), node(1), 1));
        ends[1].send(&solicitation(BROADCAST, B, B, 2, 3));
        let answer = ends[1].receive("the answer", |f| f[12..14] == [0x86, 0xdd]);
        let mut expected = nd(136, v6(3), v6(2), v6(3), &lla(2, node(1)));
        expected[44] = 0xc0; // R and S, not O: it is not the owner's
        let message = [&expected[40..42], &[0, 0], &expected[44..]].concat();
        assert_eq!(answer, eth(B, node(1), 0x86dd, &icmpv6(v6(3), v6(2), &message)));
        assert_eq!(lab.nves[0].count(Reason::Replicated), copies + 1, "{}", lab.dump());
        // A unicast solicitation crosses as unicast.
        ends[0].send(&solicitation(node(1), A, A, 1, 3));
        let question = ends[2].receive("the question", |f| f[12..14] == [0x86, 0xdd]);
        assert_eq!(question, solicitation(C, node(0), node(0), 1, 3));

        // Data, both families, and between those here nothing is another.
        for (from, to) in [(A, C), (C, A)] {
            let (here, there) = if from == A { (0, 1) } else { (1, 0) };
            let packets = [
                (0x0800, ipv4(v4(from[5]), v4(to[5]), 17, 0, 0, &udp(5, 5, b"data"))),
                (0x86dd, ipv6(v6(from[5]), v6(to[5]), 17, 64, 0, &udp(5, 5, b"data"))),
            ];
            for (proto, packet) in packets {
                ends[usize::from(from[5]) - 1].send(&eth(node(there), from, proto, &packet));
                let got = ends[usize::from(to[5]) - 1].receive("it", |f| f.windows(4).any(|w| w == b"data"));
                assert_eq!(got, eth(to, node(here), proto, &packet));
            }
        }
        let local = eth(B, A, 0x0800, &ipv4(v4(1), v4(2), 17, 0, 0, &udp(5, 5, b"local")));
        ends[0].send(&local);
        ends[1].receive("the neighbour's", |f| f == local);
        // A frame for all is the sender's own here and its NVE's there.
        let all = |sa| eth(BROADCAST, sa, 0x1234, b"for all, and long enough to be a frame");
        ends[0].send(&all(A));
        ends[1].receive("a copy", |f| f == all(A));
        ends[2].receive("a copy", |f| f == all(node(0)));
        // Neither IP nor ARP has an owner.
        ends[0].send(&eth(node(1), A, 0x1234, &[0; 50]));
        wait_for("refusal", || (lab.nves[0].count(Reason::Untranslatable) == 1).then_some(()));
        let socket = lab.nves[1].ns.run(|| std::net::UdpSocket::bind((rloc(1, under6).get(), 0)).unwrap());
        let frame = vxlan(8, 7001, &eth(node(0), node(1), 0x1234, &[0; 50]));
        socket.send_to(&frame, (rloc(0, under6).get(), 4789)).unwrap();
        wait_for("refusal", || (lab.nves[0].count(Reason::Untranslatable) == 2).then_some(()));
        // An answer to nobody is for nobody; and of who is here nobody else announces anything.
        let refused = [
            (Reason::InnerGroup, arp(BROADCAST, node(1), 2, node(1), v4(3), v4(3))),
            (Reason::Fenced, arp(BROADCAST, node(1), 1, node(1), v4(1), v4(1))),
            (Reason::Fenced, advertisement(node(1), 1)),
        ];
        for (reason, frame) in refused {
            let before = lab.nves[0].count(reason);
            socket.send_to(&vxlan(8, 7001, &frame), (rloc(0, under6).get(), 4789)).unwrap();
            wait_for("refusal", || (lab.nves[0].count(reason) == before + 1).then_some(()));
        }
    }
}

/// Unsolicited, to all nodes.
fn advertisement(mac: Mac, from: u8) -> Vec<u8> {
    let all = "ff02::1".parse().unwrap();
    eth([0x33, 0x33, 0, 0, 0, 1], mac, 0x86dd, &nd(136, v6(from), all, v6(from), &lla(2, mac)))
}

/// Requirement V7: what a tenant system, or its NVE for it, says of its own address comes to all others, here as it is and
/// elsewhere by its NVE's MAC address, and is believed there in place of what was heard before.
#[test]
fn announcements() {
    let mut lab = lab(How { kind: VapKind::Veth, path: Path::Direct, v6: false }, Bum::Drop, true, &options);
    let ends: Vec<Wire> = lab.tss.iter().map(|ts| Wire::new(&ts.ns, "eth0")).collect();
    let said = |mac| [arp(BROADCAST, mac, 1, mac, v4(3), v4(3)), advertisement(mac, 3)];
    // At NVE 1; then it is at NVE 2.
    for frame in said(C) {
        ends[2].send(&frame);
    }
    let told = |end: &Wire, frame: &Vec<u8>| drop(end.receive("an announcement", |f| f == frame));
    said(node(1)).iter().for_each(|frame| [0, 1, 3].iter().for_each(|n| told(&ends[*n], frame)));
    let device = lab.tss[3].device;
    let mac = ts_mac(3).get();
    let gone = ts_ips(3).map(|ip| Op::RemoveNeighbour(vni(7001), ip));
    lab.nves[1].apply(&gone);
    lab.nves[1].apply(&[Op::RemoveLocation(vni(7001), mac), Op::RemoveVap(lab.tss[2].device)]);
    let how = How { kind: VapKind::Veth, path: Path::Direct, v6: false };
    lab.nves[2].apply(&[Op::SetVap(device, Lab::vap(3, how))]);
    lab.nves[2].apply(&[Op::SetLocation(vni(7001), mac, Location::Local(device))]);
    lab.nves[2].apply(&ts_ips(3).map(|ip| Op::SetNeighbour(vni(7001), ip, Neighbour::At(mac))));
    for frame in said(C) {
        lab.nves[2].with(|k| k.resend(device, &frame).unwrap());
    }
    said(node(2)).iter().for_each(|frame| [0, 1].iter().for_each(|n| told(&ends[*n], frame)));
    // Who asks now is answered with the new one.
    ends[0].send(&arp(BROADCAST, A, 1, A, v4(1), v4(3)));
    let answer = ends[0].receive("the answer", |f| f[12..14] == [8, 6] && f[21] == 2);
    assert_eq!(answer[22..28], node(2));
    ends[0].send(&solicitation(BROADCAST, A, A, 1, 3));
    let answer = ends[0].receive("the answer", |f| f[12..14] == [0x86, 0xdd] && f[54] == 136 && f[..6] == A);
    assert_eq!(answer[80..86], node(2));
}

/// An address that is tried out is answered for only if somebody is known to have it: the members could not answer to
/// who has none yet, so the agent asks.
#[test]
fn probes() {
    let mut lab = lab(How { kind: VapKind::Veth, path: Path::Direct, v6: false }, Bum::Drop, true, &options);
    let ends: Vec<Wire> = lab.tss.iter().map(|ts| Wire::new(&ts.ns, "eth0")).collect();
    let probe = arp(BROADCAST, A, 1, A, Ipv4Addr::UNSPECIFIED, v4(3));
    let dad = |n| {
        let (group, address) = solicited_node(v6(n));
        eth(group, A, 0x86dd, &nd(135, Ipv6Addr::UNSPECIFIED, address, v6(n), &[]))
    };
    for (n, frame) in (1..).zip([probe.clone(), dad(3)]) {
        ends[0].send(&frame);
        wait_for("the agent's", || (lab.nves[0].count(Reason::Punted) == n).then_some(()));
    }
    assert_eq!(lab.nves[0].count(Reason::Replicated), 0, "{}", lab.dump());
    // Once somebody who asks has heard who has it (RFC 5227 section 2.1.1).
    ends[0].send(&arp(BROADCAST, A, 1, A, v4(1), v4(3)));
    ends[2].receive("the question", |f| f[12..14] == [8, 6]);
    ends[2].send(&reply(node(0), C, C, node(0), 3, 1));
    ends[0].receive("the answer", |f| f[12..14] == [8, 6]);
    ends[0].send(&probe);
    let got = ends[0].receive("the answer", |f| f[12..14] == [8, 6] && f[38..42] == [0; 4]);
    assert_eq!((&got[22..28], &got[28..32]), (&node(1)[..], &v4(3).octets()[..]));
    // One that an Oracle said somebody has, and one that nobody has.
    let told = Op::SetNeighbour(vni(7001), ts_ips(4)[1], Neighbour::At(MacAddr::of_node(2)));
    lab.nves[0].apply(&[told]);
    ends[0].send(&dad(4));
    let got = ends[0].receive("the answer", |f| f[12..14] == [0x86, 0xdd]);
    assert_eq!((&got[..6], &got[80..86]), (&[0x33, 0x33, 0, 0, 0, 1][..], &node(2)[..]));
    let (copies, answers) = (lab.nves[0].count(Reason::Replicated), lab.nves[0].count(Reason::Answered));
    ends[0].send(&dad(9));
    wait_for("the agent's", || (lab.nves[0].count(Reason::Punted) == 3).then_some(()));
    assert_eq!(lab.nves[0].count(Reason::Replicated), copies, "{}", lab.dump());
    assert_eq!(lab.nves[0].count(Reason::Answered), answers, "{}", lab.dump());
}

/// An NVE speaks for itself: by the MAC address of another it would have itself sent what is for that one's tenant systems.
#[test]
fn another_nves_mac() {
    for (path, under6) in [(Path::Direct, false), (Path::Direct, true), (Path::Device, false)] {
        let how = How { kind: VapKind::Veth, path, v6: under6 };
        let mut lab = lab(how, Bum::Replicate, true, &options);
        let ends: Vec<Wire> = lab.tss.iter().map(|ts| Wire::new(&ts.ns, "eth0")).collect();
        let socket = lab.nves[2].ns.run(|| std::net::UdpSocket::bind((rloc(2, under6).get(), 0)).unwrap());
        let data = |sa, from: u8| {
            let v4 = ipv4(v4(from), v4(1), 17, 0, 0, &udp(5, 5, &[from; 9]));
            let v6 = ipv6(v6(from), v6(1), 17, 64, 0, &udp(5, 5, &[from; 9]));
            [eth(node(0), sa, 0x0800, &v4), eth(node(0), sa, 0x86dd, &v6)]
        };
        let [forged4, forged6] = data(node(1), 3);
        let forged = [
            arp(BROADCAST, node(1), 1, node(1), v4(3), v4(1)),
            solicitation(BROADCAST, node(1), node(1), 3, 1),
            reply(node(0), node(1), node(1), node(0), 3, 1),
            eth(BROADCAST, node(1), 0x1234, &[3; 50]),
            forged4,
            forged6,
        ];
        for (n, frame) in (1..).zip(forged) {
            socket.send_to(&vxlan(8, 7001, &frame), (rloc(0, under6).get(), 4789)).unwrap();
            wait_for("refusal", || (lab.nves[0].count(Reason::SpoofedMac) == n).then_some(()));
        }
        lab.nves[0].with(|k| {
            assert_eq!(k.learned().unwrap(), []);
            assert_eq!(k.heard().unwrap(), []);
        });
        // Its own.
        for frame in data(node(2), 4) {
            socket.send_to(&vxlan(8, 7001, &frame), (rloc(0, under6).get(), 4789)).unwrap();
            let got = ends[0].receive("its own", |f| f[..6] == A);
            assert_eq!((&got[6..12], &got[12..]), (&node(2)[..], &frame[12..]), "{}", lab.dump());
        }
        let learned = lab.nves[0].with(|k| k.learned().unwrap());
        assert!(
            learned.iter().all(|seen| seen.mac == MacAddr::of_node(2)) && learned.len() == 1,
            "{learned:?}"
        );
    }
}

/// What was heard is asked for again after a while; what an Oracle says needs no question.
#[test]
fn ages_and_is_told() {
    let short = || OpenOptions { ageing: Duration::from_secs(1), ..options() };
    let mut lab = lab(How { kind: VapKind::Veth, path: Path::Direct, v6: true }, Bum::Drop, true, &short);
    let ends: Vec<Wire> = lab.tss.iter().map(|ts| Wire::new(&ts.ns, "eth0")).collect();
    let question = arp(BROADCAST, A, 1, A, v4(1), v4(3));
    ends[0].send(&question);
    ends[2].receive("the question", |f| f[12..14] == [8, 6]);
    ends[2].send(&reply(node(0), C, C, node(0), 3, 1));
    ends[0].receive("the answer", |f| f[12..14] == [8, 6]);
    // Old answers may come first; in the end it is asked again.
    wait_for("another question", || {
        ends[0].send(&question);
        (lab.nves[0].count(Reason::Replicated) >= 2).then_some(())
    });
    let copies = lab.nves[0].count(Reason::Replicated);
    let at = Location::Remote { rloc: rloc(1, true), epoch: Epoch::FIRST, other: 0 };
    let mac = MacAddr::of_node(1);
    let told = ts_ips(3).map(|ip| Op::SetNeighbour(vni(7001), ip, Neighbour::At(mac)));
    lab.nves[0].apply(&told);
    lab.nves[0].apply(&[Op::SetLocation(vni(7001), mac, at)]);
    ends[1].send(&arp(BROADCAST, B, 1, B, v4(2), v4(3)));
    let answer = ends[1].receive("the answer", |f| f[12..14] == [8, 6] && f[21] == 2);
    assert_eq!(answer[22..28], node(1));
    let (IpAddr::V4(from), IpAddr::V4(to)) = (ts_ips(2)[0].get(), ts_ips(3)[0].get()) else { panic!("IPv4") };
    ends[1].send(&eth(node(1), B, 0x0800, &ipv4(from, to, 17, 0, 0, &udp(5, 5, b"told"))));
    ends[2].receive("it", |f| f.windows(4).any(|w| w == b"told"));
    assert_eq!(lab.nves[0].count(Reason::Replicated), copies, "{}", lab.dump());
}
