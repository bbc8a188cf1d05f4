//! VNs whose table is pushed: frames to the MAC address of all NVEs are routed by their IP destination.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

mod common;

use common::{How, Lab, Ns, frames::*, rloc, tcp, ts_ips, ts_mac, vni, wait_for};
use std::net::IpAddr;
use weft_datapath::{
    Datapath as _, DatapathError, IfIndex, Location, Neighbour, Op, Path, Punt, PuntReason, Reason, VapKind,
};
use weft_model::{Bum, Epoch, Learning, MacAddr};

const A: Mac = [2, 0, 0, 0, 0, 1];
const B: Mac = [2, 0, 0, 0, 0, 2];
const C: Mac = [2, 0, 0, 0, 0, 3];

fn anycast() -> Mac {
    MacAddr::anycast(vni(7001)).octets()
}

/// Tenant systems 1 and 2 at NVE 0, 3 at NVE 1.
fn lab(how: How, bum: Bum) -> Lab {
    let mut lab = Lab::new();
    for (nve, n) in [(0, 1), (0, 2), (1, 3)] {
        lab.attach(nve, n, how);
    }
    lab.set_vn(Learning::Distribute, bum, how.v6);
    lab
}

fn ip(n: u8, v6: bool) -> IpAddr {
    ts_ips(n)[usize::from(v6)].get()
}

/// From A, for tenant system `to`, with these octets in it.
fn data(dst: Mac, to: u8, v6: bool, payload: &[u8]) -> Vec<u8> {
    [&dst[..], &packet(17, to, v6, &udp(5, 5, payload))[6..]].concat()
}

/// From A to the MAC address of all NVEs, for tenant system `to`.
fn packet(proto: u8, to: u8, v6: bool, segment: &[u8]) -> Vec<u8> {
    match (ip(1, v6), ip(to, v6)) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            eth(anycast(), A, 0x0800, &ipv4(from, to, proto, 0, 0, segment))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            eth(anycast(), A, 0x86dd, &ipv6(from, to, proto, 64, 0, segment))
        }
        _ => panic!("two families"),
    }
}

fn punt(lab: &mut Lab) -> Punt {
    let punts = lab.nves[0].punts.as_mut().unwrap();
    // What the stacks there say of groups is not what is waited for.
    wait_for("a punt", || punts.drain(1).pop().filter(|punt| punt.reason != PuntReason::Report))
}

#[test]
fn by_ip_destination() {
    for (path, v6) in
        [(Path::Direct, false), (Path::Direct, true), (Path::Device, false), (Path::Device, true)]
    {
        let mut lab = lab(How { kind: VapKind::Veth, path, v6 }, Bum::Drop);
        // Whole stacks, segmentation offload among it.
        for inner6 in [false, true] {
            let to = MacAddr::anycast(vni(7001));
            for (n, other) in [(1, 3), (1, 2), (3, 1)] {
                let ns = &lab.tss[n - 1].ns;
                ns.ip(&format!("neigh replace {} lladdr {to} dev eth0 nud permanent", ip(other, inner6)));
            }
            for other in [1, 2] {
                assert!(lab.tss[0].ping(ip(other + 1, inner6)), "{}", lab.dump());
                tcp(&lab.tss[0].ns, &lab.tss[usize::from(other)].ns, ip(other + 1, inner6), 5_000_000);
            }
        }
        for ts in &lab.tss {
            ts.silence();
        }
        let ends: Vec<Wire> = lab.tss.iter().map(|ts| Wire::new(&ts.ns, "eth0")).collect();
        for inner6 in [false, true] {
            for (to, mac) in [(2, B), (3, C)] {
                ends[0].send(&data(anycast(), to, inner6, b"routed"));
                let got = ends[usize::from(to) - 1].receive("it", |f| f.windows(6).any(|w| w == b"routed"));
                assert_eq!(got, data(mac, to, inner6, b"routed"), "only the destination MAC is another");
            }
        }
        let used = lab.nves[0].with(|k| k.last_used(vni(7001), MacAddr(C)).unwrap());
        assert!(used.is_some(), "the owner's location is in use");
        // Whoever is nobody's; a frame that has no IP destination; a group.
        for (reason, frame) in [
            (Reason::Nobody, data(anycast(), 9, false, b"nobody")),
            (Reason::Nobody, data(anycast(), 9, true, b"nobody")),
            (Reason::UnknownMac, eth(anycast(), A, 0x1234, &[0; 50])),
            (Reason::UnknownMac, {
                let packet = ipv4(
                    "10.0.0.1".parse().unwrap(),
                    "224.0.0.5".parse().unwrap(),
                    17,
                    0,
                    0,
                    &udp(1, 2, b"x"),
                );
                eth(anycast(), A, 0x0800, &packet)
            }),
            (Reason::ToSelf, data(anycast(), 1, false, b"myself")),
        ] {
            let nobody = ts_ips(9).map(|ip| Op::SetNeighbour(vni(7001), ip, Neighbour::Nobody));
            lab.nves[0].apply(&nobody);
            let before = lab.nves[0].count(reason);
            ends[0].send(&frame);
            wait_for(reason.as_str(), || (lab.nves[0].count(reason) == before + 1).then_some(()));
        }
        // Whose entry holds that MAC address asks there again, and is told the owner's.
        let (IpAddr::V4(a), IpAddr::V4(c)) = (ip(1, false), ip(3, false)) else { panic!("IPv4") };
        ends[0].send(&arp(anycast(), A, 1, A, a, c));
        let answer = ends[0].receive("the answer", |f| f[12..14] == [8, 6]);
        assert_eq!(answer[22..28], C);
        let (IpAddr::V6(a), IpAddr::V6(c)) = (ip(1, true), ip(3, true)) else { panic!("IPv6") };
        ends[0].send(&eth(anycast(), A, 0x86dd, &nd(135, a, c, c, &lla(1, A))));
        let answer = ends[0].receive("the answer", |f| f[12..14] == [0x86, 0xdd] && f[54] == 136);
        assert_eq!(answer[80..86], C);
        assert_eq!(lab.nves[0].count(Reason::Punted), 0, "{}", lab.dump());

        // In other modes it is a MAC address like others.
        lab.set_vn(Learning::Oracle, Bum::Drop, v6);
        ends[0].send(&data(anycast(), 3, false, b"unknown"));
        let punt = punt(&mut lab);
        assert_eq!((punt.reason, punt.dst.octets()), (PuntReason::UnknownMacHeld, anycast()));
    }
}

/// A frame whose destination is not known yet is handed up whole, and sent on once it is.
#[test]
fn held_and_sent_on() {
    for (kind, path, v6) in [
        (VapKind::Veth, Path::Direct, false),
        (VapKind::Veth, Path::Device, true),
        (VapKind::Tap, Path::Direct, true),
    ] {
        let how = How { kind, path, v6 };
        let mut lab = lab(how, Bum::Replicate);
        for ts in &lab.tss {
            ts.silence();
        }
        let ends: Vec<Wire> = lab.tss.iter().map(|ts| Wire::new(&ts.ns, "eth0")).collect();
        let device = lab.tss[0].device;
        let resend = |lab: &mut Lab, frame: &[u8]| lab.nves[0].with(|k| k.resend(device, frame).unwrap());
        for inner6 in [false, true] {
            let largest = vec![b'z'; usize::from(how.mtu()) - if inner6 { 48 } else { 28 }];
            for (to, mac) in [(2, B), (3, C)] {
                let key = ts_ips(to)[usize::from(inner6)];
                let frame = data(anycast(), to, inner6, &largest);
                lab.nves[0].apply(&[Op::RemoveNeighbour(vni(7001), key)]);
                ends[0].send(&frame);
                let held = punt(&mut lab);
                assert_eq!((held.vap, held.vni, held.reason), (device, vni(7001), PuntReason::Route));
                assert!(held.frame == frame, "all of it, {} of {}", held.frame.len(), frame.len());
                assert_eq!(resend(&mut lab, &held.frame), Reason::Punted, "still unknown");
                punt(&mut lab);
                // Known by IP address, but not where that is.
                let at = if to == 2 {
                    Location::Local(lab.tss[1].device)
                } else {
                    Location::Remote { rloc: rloc(1, v6), epoch: Epoch::FIRST, other: 0 }
                };
                lab.nves[0].apply(&[
                    Op::SetNeighbour(vni(7001), key, Neighbour::At(MacAddr(mac))),
                    Op::RemoveLocation(vni(7001), MacAddr(mac)),
                ]);
                assert_eq!(resend(&mut lab, &held.frame), Reason::Punted, "{}", lab.dump());
                assert_eq!(punt(&mut lab).dst.octets(), anycast());
                lab.nves[0].apply(&[Op::SetLocation(vni(7001), MacAddr(mac), at)]);
                let expected = if to == 2 { Reason::Local } else { Reason::Encapsulated };
                assert_eq!(resend(&mut lab, &held.frame), expected);
                let got = ends[usize::from(to) - 1].receive("it", |f| f.len() == frame.len());
                assert!(got == data(mac, to, inner6, &largest), "only the destination MAC is another");
            }
        }
        // Every check is made again, and a frame for all goes to all.
        assert_eq!(resend(&mut lab, &eth(C, B, 0x1234, &[0; 60])), Reason::SpoofedMac);
        let all = eth(BROADCAST, A, 0x1234, b"for all, and long enough to be a frame");
        assert_eq!(resend(&mut lab, &all), Reason::Replicated);
        for end in &ends[1..] {
            end.receive("a copy", |f| f == all);
        }
        let error = lab.nves[0].with(|k| k.resend(IfIndex(0x7fff_ffff), &all).unwrap_err());
        assert!(matches!(error, DatapathError::NoDevice(_)), "{error}");
        let error = lab.nves[0].with(|k| k.resend(device, &all[..10]).unwrap_err());
        assert!(matches!(error, DatapathError::FrameLength(10)), "{error}");
    }
}

/// What was left to the device to be summed up is, or the receiver would drop it.
#[test]
fn ld_held_without_a_checksum_and_sent_on_with_one() {
    let how = How { kind: VapKind::Tap, path: Path::Direct, v6: false };
    let mut lab = Lab::new();
    let name = "ts1";
    let mut guest = common::tap::Guest::new(&lab.nves[0].ns, name, true);
    lab.nves[0].ns.ip("link set ts1 up");
    let ts = common::Ts { n: 1, device: lab.nves[0].ns.index(name), ns: Ns::new("guest"), relay: None };
    lab.tell(0, &ts, how);
    let device = ts.device;
    lab.tss.push(ts);
    lab.attach(1, 3, How { kind: VapKind::Veth, ..how });
    lab.set_vn(Learning::Distribute, Bum::Drop, false);
    lab.tss[1].silence();
    let end = Wire::new(&lab.tss[1].ns, "eth0");
    for (v6, proto, field) in [(false, 6, 16), (false, 17, 6), (true, 6, 16), (true, 17, 6), (true, 58, 2)] {
        let key = ts_ips(3)[usize::from(v6)];
        let mut segment = vec![b'u'; 333];
        segment[12] = 0x50;
        segment[4..6].copy_from_slice(&333_u16.to_be_bytes());
        let rest = [&333_u32.to_be_bytes()[..], &[0, 0, 0, proto]].concat();
        let pseudo = !match (ip(1, v6), ip(3, v6)) {
            (IpAddr::V4(a), IpAddr::V4(c)) => sum(&[&a.octets(), &c.octets(), &rest]),
            (IpAddr::V6(a), IpAddr::V6(c)) => sum(&[&a.octets(), &c.octets(), &rest]),
            _ => panic!("two families"),
        };
        segment[field..field + 2].copy_from_slice(&pseudo.to_be_bytes());
        // An echo request: other messages of ICMPv6 may be somebody's business.
        if proto == 58 {
            segment[..2].copy_from_slice(&[128, 0]);
        }
        let frame = packet(proto, 3, v6, &segment);
        lab.nves[0].apply(&[Op::RemoveNeighbour(vni(7001), key)]);
        let l4 = u16::try_from(frame.len() - segment.len()).unwrap();
        guest.send_unsummed(&frame, l4, u16::try_from(field).unwrap());
        let held = punt(&mut lab);
        assert_eq!(held.frame, frame, "as it left the tenant system");
        lab.nves[0].apply(&[Op::SetNeighbour(vni(7001), key, Neighbour::At(MacAddr(C)))]);
        assert_eq!(lab.nves[0].with(|k| k.resend(device, &held.frame).unwrap()), Reason::Encapsulated);
        let got = end.receive("it", |f| f.len() == frame.len());
        let got = &got[usize::from(l4)..];
        let whole = fold(u32::from(pseudo) + u32::from(!sum(&[got])));
        assert_eq!(whole, 0xffff, "IPv6: {v6}, protocol {proto}");
    }
}

fn fold(total: u32) -> u32 {
    (total & 0xffff) + (total >> 16)
}

/// One destination nobody knows does not take the VAP's whole share.
#[test]
fn one_destination_is_limited() {
    let mut lab = lab(How { kind: VapKind::Veth, path: Path::Direct, v6: false }, Bum::Drop);
    for ts in &lab.tss {
        ts.silence();
    }
    let wire = Wire::new(&lab.tss[0].ns, "eth0");
    for _ in 0..150 {
        wire.send(&data(anycast(), 99, false, b"unknown"));
    }
    let [punted, limited] = wait_for("all", || {
        let counts = [Reason::Punted, Reason::PuntLimited].map(|r| lab.nves[0].count(r));
        (counts.iter().sum::<u64>() == 150).then_some(counts)
    });
    assert!((8..100).contains(&punted) && limited >= 50, "{}", lab.dump());
    wire.send(&data(anycast(), 98, false, b"another"));
    wait_for("another", || (lab.nves[0].count(Reason::Punted) == punted + 1).then_some(()));
    let seen = wait_for("the records", || {
        let records = lab.nves[0].punts.as_mut().unwrap().drain(200);
        (!records.is_empty()).then_some(records)
    });
    assert_eq!(seen.len() as u64, punted + 1);
    assert!(seen.iter().all(|p| p.reason == PuntReason::Route && p.dst.octets() == anycast()));
    assert!(ts_mac(1).octets() == A);
}
