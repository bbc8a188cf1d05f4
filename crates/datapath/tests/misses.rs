//! Frames whose destination no table holds: held, dropped, or carried by the VN's gateway, once; and the word that
//! an NVE gives of frames for who is not there.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

mod common;

use common::{How, Lab, frames::*, options, rloc, ts_ips, ts_mac, vni, wait_for};
use std::net::IpAddr;
use weft_datapath::{
    Datapath as _, IfIndex, Location, Neighbour, Op, Path, Punt, PuntReason, Reason, Vap, VapKind, Vn,
};
use weft_model::{Epoch, Learning, MacAddr, Miss};

const A: Mac = [2, 0, 0, 0, 0, 1];
const C: Mac = [2, 0, 0, 0, 0, 3];

/// From tenant system 1 to `dst`, for tenant system `to`.
fn data(dst: Mac, to: u8, v6: bool, word: &[u8]) -> Vec<u8> {
    let ip = |n| ts_ips(n)[usize::from(v6)].get();
    match (ip(1), ip(to)) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            eth(dst, A, 0x0800, &ipv4(from, to, 17, 0, 0, &udp(5, 5, word)))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            eth(dst, A, 0x86dd, &ipv6(from, to, 17, 64, 0, &udp(5, 5, word)))
        }
        _ => panic!("two families"),
    }
}

/// The MAC address that a frame for a tenant system that is not known goes to.
fn towards(learning: Learning, to: u8) -> Mac {
    match learning {
        Learning::Distribute => MacAddr::anycast(vni(7001)).octets(),
        _ => ts_mac(to).octets(),
    }
}

/// Tenant system 1 at NVE 0, 2 at NVE 1, 3 at NVE 2, silent, all known everywhere.
fn lab(how: How) -> (Lab, Vec<Wire>) {
    let mut lab = Lab::of(3, &options);
    for (nve, n) in [(0, 1), (1, 2), (2, 3)] {
        lab.attach(nve, n, how);
    }
    for ts in &lab.tss {
        ts.silence();
    }
    let wires = lab.tss.iter().map(|ts| Wire::new(&ts.ns, "eth0")).collect();
    (lab, wires)
}

fn set(lab: &mut Lab, nve: usize, vn: Vn) {
    lab.nves[nve].apply(&[Op::SetVn(vni(7001), vn)]);
}

/// NVE `nve` no longer knows tenant system `n`.
fn forget(lab: &mut Lab, nve: usize, n: u8) {
    lab.nves[nve].apply(&[Op::RemoveLocation(vni(7001), ts_mac(n).get())]);
    lab.nves[nve].apply(&ts_ips(n).map(|ip| Op::RemoveNeighbour(vni(7001), ip)));
}

fn punts(lab: &mut Lab, nve: usize) -> Vec<Punt> {
    lab.nves[nve].punts.as_mut().unwrap().drain(100)
}

fn count_to(lab: &mut Lab, nve: usize, reason: Reason, n: u64) {
    wait_for(reason.as_str(), || (lab.nves[nve].count(reason) >= n).then_some(()));
    assert_eq!(lab.nves[nve].count(reason), n, "NVE {nve}, {reason}\n{}", lab.dump());
}

const MODES: [Learning; 2] = [Learning::Oracle, Learning::Distribute];

#[test]
fn dropped_and_counted() {
    for (learning, path) in MODES.into_iter().zip([Path::Direct, Path::Device]) {
        let (mut lab, wires) = lab(How { kind: VapKind::Veth, path, v6: false });
        set(&mut lab, 0, Vn { learning, miss: Miss::Drop, ..Vn::default() });
        forget(&mut lab, 0, 3);
        for v6 in [false, true] {
            for _ in 0..20 {
                wires[0].send(&data(towards(learning, 3), 3, v6, b"lost"));
            }
        }
        count_to(&mut lab, 0, Reason::UnknownMac, 40);
        let told = punts(&mut lab, 0);
        let reason =
            if learning == Learning::Oracle { PuntReason::UnknownMac } else { PuntReason::RouteSeen };
        assert!((1..20).contains(&told.len()), "{} punts of 40 frames", told.len());
        assert!(told.iter().all(|p| p.reason == reason && p.from.is_none()), "{told:?}");
        assert_eq!(lab.nves[0].count(Reason::Punted), told.len() as u64);
        assert_eq!(lab.nves[0].count(Reason::Encapsulated), 0);
    }
}

#[test]
fn held_where_the_vn_asks() {
    for (kind, path, v6) in [(VapKind::Veth, Path::Direct, false), (VapKind::Tap, Path::Device, true)] {
        let (mut lab, wires) = lab(How { kind, path, v6 });
        set(&mut lab, 0, Vn::default());
        let (device, mac) = (lab.tss[0].device, ts_mac(3).get());
        for (n, frame) in [
            data(C, 3, false, &[b'w'; 1_300]),
            data(C, 3, true, &[b'w'; 1_300]),
            eth(C, A, 0x88cc, &[b'w'; 1_000]),
        ]
        .iter()
        .enumerate()
        {
            lab.nves[0].apply(&[Op::RemoveLocation(vni(7001), mac)]);
            wires[0].send(frame);
            let held = wait_for("a punt", || punts(&mut lab, 0).pop());
            assert_eq!((held.vap, held.reason, held.dst.octets()), (device, PuntReason::UnknownMacHeld, C));
            assert!(held.frame == *frame, "all of it");
            let at = Location::Remote { rloc: rloc(2, v6), epoch: Epoch::FIRST, other: 0 };
            lab.nves[0].apply(&[Op::SetLocation(vni(7001), mac, at)]);
            let sent = lab.nves[0].with(|k| k.resend(device, &held.frame).unwrap());
            assert_eq!(sent, Reason::Encapsulated, "{n}");
            assert!(wires[2].receive("it", |f| f.len() == frame.len()) == *frame);
        }
    }
}

/// To a tenant system elsewhere and to one of the gateway's own, in one copy, and not fenced although it comes
/// from another NVE than its sender's.
#[test]
fn carried_by_the_gateway_once() {
    for (learning, path, v6) in [
        (Learning::Oracle, Path::Direct, false),
        (Learning::Oracle, Path::Device, true),
        (Learning::Distribute, Path::Direct, true),
        (Learning::Distribute, Path::Device, false),
    ] {
        let (mut lab, wires) = lab(How { kind: VapKind::Veth, path, v6 });
        let gateway = Some(rloc(1, v6));
        set(&mut lab, 0, Vn { learning, miss: Miss::Gateway, gateway, ..Vn::default() });
        set(&mut lab, 1, Vn { learning, carries: true, ..Vn::default() });
        set(&mut lab, 2, Vn { learning, miss: Miss::Gateway, gateway, ..Vn::default() });
        for n in [2, 3] {
            forget(&mut lab, 0, n);
        }
        let mut sent = 0;
        for inner6 in [false, true] {
            for to in [2_u8, 3] {
                let word = format!("for {to}");
                wires[0].send(&data(towards(learning, to), to, inner6, word.as_bytes()));
                let holds = |f: &[u8]| f.windows(word.len()).any(|w| w == word.as_bytes());
                let got = wires[usize::from(to) - 1].receive("it", holds);
                assert_eq!(got, data(ts_mac(to).octets(), to, inner6, word.as_bytes()));
                sent += 1;
            }
        }
        count_to(&mut lab, 0, Reason::ByGateway, sent);
        count_to(&mut lab, 0, Reason::Encapsulated, sent);
        count_to(&mut lab, 1, Reason::ByGateway, sent / 2);
        count_to(&mut lab, 1, Reason::Delivered, sent / 2);
        count_to(&mut lab, 2, Reason::Delivered, sent / 2);
        assert_eq!(lab.nves[2].count(Reason::SrcMoved), 0, "{}", lab.dump());
        assert!(!punts(&mut lab, 0).is_empty(), "it is asked for all the same");
        // What is larger than the VN allows is told as ever.
        lab.tss[0].ns.ip("link set eth0 mtu 1500");
        wires[0].send(&data(towards(learning, 3), 3, false, &[0; 1_460]));
        wires[0].receive("fragmentation needed", |f| f[12..14] == [8, 0] && f[23] == 1 && f[34] == 3);
    }
}

/// Whatever tables say, a frame is carried once, and never to where it came from.
#[test]
fn nothing_goes_round() {
    for (path, v6) in [(Path::Direct, false), (Path::Device, true)] {
        let (mut lab, wires) = lab(How { kind: VapKind::Veth, path, v6 });
        let at = |n| {
            let remote = Location::Remote { rloc: rloc(n, v6), epoch: Epoch::FIRST, other: 0 };
            Op::SetLocation(vni(7001), MacAddr([2, 0, 0, 0, 0, 9]), remote)
        };
        let nine = [2, 0, 0, 0, 0, 9];
        for nve in 0..3 {
            let gateway = (nve == 0).then(|| rloc(1, v6));
            set(&mut lab, nve, Vn { miss: Miss::Gateway, gateway, carries: true, ..Vn::default() });
        }
        // Back to where it came from.
        lab.nves[1].apply(&[at(0)]);
        wires[0].send(&data(nine, 9, false, b"back"));
        count_to(&mut lab, 1, Reason::NoSuchTs, 1);
        // In a circle of NVEs each of which takes itself for the gateway.
        lab.nves[1].apply(&[at(2)]);
        lab.nves[2].apply(&[at(0)]);
        wires[0].send(&data(nine, 9, false, b"round"));
        count_to(&mut lab, 1, Reason::ByGateway, 1);
        count_to(&mut lab, 2, Reason::NoSuchTs, 1);
        assert_eq!(lab.nves[2].count(Reason::ByGateway), 0);
        for reason in [Reason::NoSuchTs, Reason::Delivered, Reason::Fenced] {
            assert_eq!(lab.nves[0].count(reason), 0, "{}", lab.dump());
        }
        // What a gateway has sent waits nowhere.
        let ten = MacAddr([2, 0, 0, 0, 0, 10]);
        let there = Location::Remote { rloc: rloc(2, v6), epoch: Epoch::FIRST, other: 0 };
        lab.nves[1].apply(&[Op::SetLocation(vni(7001), ten, there)]);
        punts(&mut lab, 2);
        wires[0].send(&data(ten.octets(), 10, false, b"unknown there"));
        let told = wait_for("word of it", || punts(&mut lab, 2).pop());
        assert_eq!(
            (told.reason, told.dst.octets(), told.from),
            (PuntReason::NoSuchTs, ten.octets(), Some(rloc(1, v6)))
        );
    }
}

/// What a gateway does not know either waits there, whole, and is carried on to where the tables say then: to one
/// of its own, to another NVE, never back and never to a gateway.
#[test]
fn held_by_the_gateway() {
    for learning in MODES {
        for (kind, path, v6) in [(VapKind::Veth, Path::Direct, false), (VapKind::Tap, Path::Device, true)] {
            let (mut lab, wires) = lab(How { kind, path, v6 });
            for nve in 0..3 {
                let gateway = (nve == 0).then(|| rloc(1, v6));
                let vn = Vn { learning, miss: Miss::Gateway, gateway, carries: nve > 0, ..Vn::default() };
                set(&mut lab, nve, vn);
                forget(&mut lab, nve, 3);
            }
            forget(&mut lab, 0, 2);
            let from = rloc(0, v6);
            let known = |lab: &mut Lab, n: u8, at: Location| {
                lab.nves[1].apply(&[Op::SetLocation(vni(7001), ts_mac(n).get(), at)]);
                let at = Neighbour::At(ts_mac(n).get());
                lab.nves[1].apply(&ts_ips(n).map(|ip| Op::SetNeighbour(vni(7001), ip, at)));
            };
            for (n, inner6) in [(3, false), (4, true)] {
                let frame = data(towards(learning, n), n, inner6, &[b'w'; 1_200]);
                for _ in 0..50 {
                    wires[0].send(&frame);
                }
                let held = wait_for("a punt", || punts(&mut lab, 1).pop());
                assert_eq!((held.vap, held.reason), (IfIndex(0), PuntReason::Carried));
                assert_eq!(held.from, Some(from));
                assert!(held.frame == frame, "all of it");
                wait_for("all", || {
                    let limited = lab.nves[1].count(Reason::PuntLimited);
                    let of = 50 * (1 + u64::from(inner6));
                    (limited + lab.nves[1].count(Reason::Punted) == of).then_some(())
                });
                let handed = lab.nves[1].count(Reason::Punted);
                assert!((32..=40).contains(&(handed / (1 + u64::from(inner6)))), "{handed} of them");
                punts(&mut lab, 1);
                let carry =
                    |lab: &mut Lab| lab.nves[1].with(|k| k.carry(vni(7001), from, &held.frame)).unwrap();
                assert_eq!(carry(&mut lab), Reason::NoSuchTs, "still unknown");
                assert_eq!(punts(&mut lab, 1), [], "and not held again");
                let back = Location::Remote { rloc: from, epoch: Epoch::FIRST, other: 0 };
                known(&mut lab, n, back);
                assert_eq!(carry(&mut lab), Reason::NoSuchTs, "never back");
                let there = Location::Remote { rloc: rloc(2, v6), epoch: Epoch::FIRST, other: 0 };
                known(&mut lab, n, there);
                assert_eq!(carry(&mut lab), Reason::ByGateway);
                // It came from a gateway: NVE 2, one itself by its own tables, does not hold it.
                wait_for("it", || {
                    (lab.nves[2].count(Reason::NoSuchTs) == 1 + u64::from(inner6)).then_some(())
                });
                assert!(punts(&mut lab, 2).iter().all(|punt| punt.reason == PuntReason::NoSuchTs));
            }
            // By now it is here.
            let (device, own) = (lab.tss[1].device, data(towards(learning, 2), 2, false, b"here"));
            known(&mut lab, 2, Location::Local(device));
            let sent = lab.nves[1].with(|k| k.carry(vni(7001), from, &own)).unwrap();
            assert_eq!(sent, Reason::Delivered);
            let to = ts_mac(2).octets();
            let got = wires[1].receive("it", |f| f.len() == own.len() && f[..6] == to);
            assert!(got[6..] == own[6..]);
        }
    }
}

/// V6: the agent hears of a frame for who is not here, from whom, and not of each.
#[test]
fn v6_word_of_frames_for_who_is_gone() {
    for (learning, path, v6) in
        [(Learning::Oracle, Path::Direct, false), (Learning::Distribute, Path::Device, true)]
    {
        let (mut lab, wires) = lab(How { kind: VapKind::Veth, path, v6 });
        for nve in 0..2 {
            set(&mut lab, nve, Vn { learning, ..Vn::default() });
        }
        let at = |n| Location::Remote { rloc: rloc(n, v6), epoch: Epoch::FIRST, other: 0 };
        lab.nves[0].apply(&[Op::SetLocation(vni(7001), MacAddr(C), at(1))]);
        for _ in 0..50 {
            wires[0].send(&data(C, 3, false, b"gone"));
        }
        count_to(&mut lab, 1, Reason::NoSuchTs, 50);
        let told = punts(&mut lab, 1);
        assert!((1..10).contains(&told.len()), "{} of 50", told.len());
        for punt in told {
            assert_eq!((punt.vap, punt.vni, punt.reason), (IfIndex(0), vni(7001), PuntReason::NoSuchTs));
            assert_eq!((punt.dst.octets(), punt.from), (C, Some(rloc(0, v6))));
            assert_eq!(punt.frame, data(C, 3, false, b"gone"));
        }
        // Also when nobody of the VN is left here.
        let device = lab.tss[1].device;
        lab.nves[1].apply(&[Op::RemoveVap(device), Op::RemoveVn(vni(7001))]);
        let other = [2, 0, 0, 0, 0, 8];
        lab.nves[0].apply(&[Op::SetLocation(vni(7001), MacAddr(other), at(1))]);
        wires[0].send(&data(other, 8, true, b"gone"));
        let told = wait_for("word of it", || punts(&mut lab, 1).pop());
        assert_eq!((told.dst.octets(), told.from), (other, Some(rloc(0, v6))));
        count_to(&mut lab, 1, Reason::UnknownVni, 1);
        // Not where frames for anybody come to everybody.
        lab.nves[1].apply(&[Op::SetVap(device, Lab::vap(2, How { kind: VapKind::Veth, path, v6 }))]);
        set(&mut lab, 1, Vn { learning: Learning::Flood, ..Vn::default() });
        lab.nves[0].apply(&[Op::SetLocation(vni(7001), MacAddr([2, 0, 0, 0, 0, 7]), at(1))]);
        lab.nves[0].apply(&ts_ips(7).map(|ip| Op::SetNeighbour(vni(7001), ip, Neighbour::Nobody)));
        wires[0].send(&data([2, 0, 0, 0, 0, 7], 7, false, b"flooded"));
        wait_for("it", || {
            let counts = lab.nves[1].counters();
            counts.iter().any(|c| c.reason == Reason::NoSuchTs && c.packets >= 1).then_some(())
        });
        assert_eq!(punts(&mut lab, 1), []);
    }
}

/// Frames astray in one VN leave room for word of those in another.
#[test]
fn v6_word_of_one_vn_does_not_silence_another() {
    let (mut lab, _) = lab(How { kind: VapKind::Veth, path: Path::Direct, v6: false });
    set(&mut lab, 1, Vn::default());
    let (there, here) = (rloc(0, false).get(), rloc(1, false).get());
    let socket = lab.nves[0].ns.run(|| std::net::UdpSocket::bind((there, 0)).unwrap());
    let send = |vn: u32, n: u16| {
        let [high, low] = n.to_be_bytes();
        let frame = data([2, 0, 0, 9, high, low], 9, false, b"gone");
        socket.send_to(&vxlan(8, vn, &frame), (here, 4789)).unwrap();
    };
    for n in 0..400 {
        send(7001, n);
    }
    for n in 0..20 {
        send(7002, n);
    }
    wait_for("all", || (lab.nves[1].count(Reason::UnknownVni) == 20).then_some(()));
    let told = lab.nves[1].punts.as_mut().unwrap().drain(1_000);
    let of = |vn| told.iter().filter(|p| p.vni == vni(vn)).count();
    assert_eq!(of(7002), 20, "beside {} of the other", of(7001));
    assert!((100..400).contains(&of(7001)), "{}", of(7001));
}

/// Who is called a gateway in a VN whose frames go to everybody would make copies of what has come to all.
#[test]
fn nothing_is_carried_where_frames_go_to_everybody() {
    for (learning, path) in [(Learning::Flood, Path::Direct), (Learning::Translate, Path::Device)] {
        let (mut lab, _) = lab(How { kind: VapKind::Veth, path, v6: false });
        set(&mut lab, 1, Vn { learning, carries: true, ..Vn::default() });
        let (there, here) = (rloc(0, false).get(), rloc(1, false).get());
        let socket = lab.nves[0].ns.run(|| std::net::UdpSocket::bind((there, 0)).unwrap());
        socket.send_to(&vxlan(8, 7001, &data(C, 3, false, b"once")), (here, 4789)).unwrap();
        count_to(&mut lab, 1, Reason::NoSuchTs, 1);
        assert_eq!(lab.nves[1].count(Reason::ByGateway), 0, "{}", lab.dump());
    }
}

/// Requirement V11: a VAP that is not Activated tells of a frame of its own where it waits for one, once a second, and
/// lets none pass.
#[test]
fn a_closed_vap_tells_of_its_first_frame() {
    for (kind, path, v6) in [(VapKind::Veth, Path::Direct, false), (VapKind::Tap, Path::Device, true)] {
        let how = How { kind, path, v6 };
        let mut lab = Lab::of(1, &options);
        lab.attach_quietly(0, 1, how);
        lab.tss[0].silence();
        let wires = [Wire::new(&lab.tss[0].ns, "eth0")];
        let device = lab.tss[0].device;
        let closed = |waits| Op::SetVap(device, Vap { activated: false, waits, ..Lab::vap(1, how) });
        let rarp = eth(MacAddr::BROADCAST.octets(), A, 0x8035, &[0; 46]);
        let own = [rarp, data(ts_mac(2).octets(), 2, v6, b"first")];
        let tagged = eth(MacAddr::BROADCAST.octets(), A, 0x8100, &[0; 46]);
        let foreign = eth(MacAddr::BROADCAST.octets(), C, 0x8035, &[0; 46]);
        // Not where nobody is expected, nor of what is nobody's here.
        lab.nves[0].apply(&[closed(false)]);
        own.iter().for_each(|frame| wires[0].send(frame));
        count_to(&mut lab, 0, Reason::NotActivated, 2);
        lab.nves[0].apply(&[closed(true)]);
        [tagged, foreign].iter().for_each(|frame| wires[0].send(frame));
        count_to(&mut lab, 0, Reason::NotActivated, 4);
        assert_eq!((punts(&mut lab, 0), lab.nves[0].count(Reason::Punted)), (vec![], 0));
        for _ in 0..10 {
            own.iter().for_each(|frame| wires[0].send(frame));
        }
        wait_for("20 frames", || {
            let seen = lab.nves[0].count(Reason::NotActivated) + lab.nves[0].count(Reason::Punted);
            (seen == 4 + 20).then_some(())
        });
        let told = punts(&mut lab, 0);
        assert!((1..10).contains(&told.len()), "{} punts of 20 frames", told.len());
        let first = &told[0];
        assert_eq!((first.reason, first.vap, first.vni), (PuntReason::FirstFrame, device, vni(7001)));
        assert_eq!(first.frame, own[0]);
        assert_eq!(lab.nves[0].count(Reason::Encapsulated), 0, "{}", lab.dump());
    }
}
