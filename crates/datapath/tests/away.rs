//! Tenant systems that have moved on: what still comes for them is redirected, once a hop, and its sender told.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

mod common;

use common::{
    How, Lab,
    frames::*,
    options,
    pair::{allow, policy},
    rloc, ts_ips, ts_mac, vni, wait_for,
};
use std::{net::IpAddr, num::NonZeroU32, time::Duration};
use weft_datapath::{
    Away, Datapath as _, Location, Op, Path, Peer, PuntReason, Reason, Toward, Vap, VapKind, Vn,
};
use weft_model::{Epoch, Learning};

const A: Mac = [2, 0, 0, 0, 0, 1];

/// From tenant system 1 to `to`.
fn data(to: u8, v6: bool, word: &[u8]) -> Vec<u8> {
    let ip = |n| ts_ips(n)[usize::from(v6)].get();
    let dst = ts_mac(to).octets();
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

/// Tenant system 1 at NVE 0, 2 at NVE 1 and 3 at NVE 2, silent, all known everywhere. NVE n has the number n + 1.
fn lab(how: How) -> (Lab, Vec<Wire>) {
    let mut lab = Lab::of(3, &options);
    for (nve, n) in [(0, 1), (1, 2), (2, 3)] {
        lab.attach(nve, n, how);
    }
    for nve in &mut lab.nves {
        let numbered = |n: usize, v6| {
            let node = u32::try_from(n).unwrap() + 1;
            Op::SetPeer(rloc(n, v6).get(), Peer { nve: true, oracle: false, node, other: None })
        };
        let all: Vec<Op> = (0..3).flat_map(|n| [numbered(n, false), numbered(n, true)]).collect();
        nve.apply(&all);
    }
    for ts in &lab.tss {
        ts.silence();
    }
    let wires = lab.tss.iter().map(|ts| Wire::new(&ts.ns, "eth0")).collect();
    (lab, wires)
}

fn away(n: u8, to: usize, v6: bool) -> Op {
    let to = Away { rloc: rloc(to, v6), epoch: Epoch::new(2).unwrap() };
    Op::SetAway(vni(7001), ts_mac(n).get(), to)
}

fn remote(n: u8, at: usize, v6: bool) -> Op {
    let at = Location::Remote { rloc: rloc(at, v6), epoch: Epoch::FIRST, other: 0 };
    Op::SetLocation(vni(7001), ts_mac(n).get(), at)
}

fn count_to(lab: &mut Lab, nve: usize, reason: Reason, n: u64) {
    wait_for(reason.as_str(), || (lab.nves[nve].count(reason) >= n).then_some(()));
    assert_eq!(lab.nves[nve].count(reason), n, "NVE {nve}, {reason}\n{}", lab.dump());
}

const HOWS: [(VapKind, Path, bool); 4] = [
    (VapKind::Veth, Path::Direct, false),
    (VapKind::Veth, Path::Direct, true),
    (VapKind::Veth, Path::Device, false),
    (VapKind::Tap, Path::Device, true),
];

/// V6, M4: tenant system 3 was at NVE 1 and is at NVE 2; NVE 0 has not heard of it yet.
#[test]
fn redirected_to_where_it_went() {
    let modes = [Learning::Oracle, Learning::Distribute, Learning::Flood, Learning::Flood];
    for ((kind, path, v6), learning) in HOWS.into_iter().zip(modes) {
        let how = How { kind, path, v6 };
        let (mut lab, wires) = lab(how);
        for nve in 0..3 {
            lab.nves[nve].apply(&[Op::SetVn(vni(7001), Vn { learning, ..Vn::default() })]);
        }
        lab.nves[0].apply(&[remote(3, 1, v6)]);
        // Whether it has learned yet where that is or not.
        let nothing = Op::RemoveLocation(vni(7001), ts_mac(3).get());
        lab.nves[1].apply(&[away(3, 2, v6)]);
        if path == Path::Direct {
            lab.nves[1].apply(&[nothing]);
        }
        if learning == Learning::Flood {
            // Frames find their way by what was learned in such a VN: as if it had been at NVE 1.
            let socket = lab.nves[1].ns.run(|| std::net::UdpSocket::bind((rloc(1, v6).get(), 0)).unwrap());
            let from3 = eth(A, ts_mac(3).octets(), 0x88cc, &[b'i'; 60]);
            socket.send_to(&vxlan(8, 7001, &from3), (rloc(0, v6).get(), 4789)).unwrap();
            wires[0].receive("a first frame", |f| f[12..14] == [0x88, 0xcc]);
        }
        for inner6 in [false, true] {
            wires[0].send(&data(3, inner6, b"on its way"));
            let got = wires[2].receive("it", |f| f.ends_with(b"on its way"));
            assert_eq!(got, data(3, inner6, b"on its way"));
        }
        count_to(&mut lab, 1, Reason::Redirected, 2);
        assert_eq!(lab.nves[1].count(Reason::NoSuchTs), 0, "{}", lab.dump());
        let told = lab.nves[1].punts.as_mut().unwrap().drain(10);
        // Who learns from frames asks nobody.
        assert_eq!(!told.is_empty(), learning != Learning::Flood, "{told:?}");
        assert!(told.iter().all(|p| p.reason == PuntReason::NoSuchTs && p.from == Some(rloc(0, v6))));
        // What comes by the NVE that it was at, which is not fenced, is judged by its policy as all that comes.
        let device = lab.tss[2].device;
        let own = Lab::vap(3, how);
        let judged = Vap { policy: policy(1, 1), previous: NonZeroU32::new(2), ..own };
        lab.nves[2].apply(&[Op::SetVap(device, judged)]);
        for inner6 in [false, true] {
            wires[0].send(&data(3, inner6, b"forbidden"));
        }
        count_to(&mut lab, 2, Reason::Denied, 2);
        lab.nves[2].apply(&[allow(1, Toward::In, 17, 5, 1)]);
        for inner6 in [false, true] {
            wires[0].send(&data(3, inner6, b"allowed"));
            wires[2].receive("it", |f| f.ends_with(b"allowed"));
        }
        count_to(&mut lab, 1, Reason::Redirected, 6);
    }
}

/// A tenant system of the NVE it was at reaches it too, before that NVE has learned anything.
#[test]
fn reached_from_where_it_was() {
    for (kind, path, v6) in HOWS {
        let (mut lab, wires) = lab(How { kind, path, v6 });
        lab.nves[0].apply(&[Op::RemoveLocation(vni(7001), ts_mac(3).get()), away(3, 2, v6)]);
        for inner6 in [false, true] {
            wires[0].send(&data(3, inner6, b"from here"));
            wires[2].receive("it", |f| f.ends_with(b"from here"));
        }
        count_to(&mut lab, 0, Reason::Encapsulated, 2);
        // What the tables say goes before: it came back.
        lab.nves[0].apply(&[remote(3, 1, v6)]);
        wires[0].send(&data(3, false, b"elsewhere"));
        count_to(&mut lab, 1, Reason::NoSuchTs, 1);
    }
}

/// However wrong entries are: straight back never, round three NVEs until the outer TTL is used up.
#[test]
fn no_loop() {
    for (kind, path, v6) in HOWS {
        let (mut lab, wires) = lab(How { kind, path, v6 });
        let nowhere = Op::RemoveLocation(vni(7001), ts_mac(9).get());
        lab.nves[0].apply(&[remote(9, 1, v6)]);
        lab.nves[1].apply(&[nowhere.clone(), away(9, 0, v6)]);
        wires[0].send(&data(9, false, b"back"));
        count_to(&mut lab, 1, Reason::RedirectLoop, 1);
        assert_eq!(lab.nves[1].count(Reason::Redirected), 0, "{}", lab.dump());
        // 1 sends it on to 2, 2 to 0, 0 to 1, and so on. From one of those three's tenant systems it would be
        // fenced when it comes back to where that is.
        lab.nves[0].apply(&[nowhere.clone(), away(9, 1, v6)]);
        lab.nves[1].apply(&[away(9, 2, v6)]);
        lab.nves[2].apply(&[nowhere, away(9, 0, v6)]);
        let mut frame = data(9, true, b"round");
        frame[6..12].copy_from_slice(&ts_mac(8).octets());
        let socket = lab.nves[0].ns.run(|| std::net::UdpSocket::bind((rloc(0, v6).get(), 0)).unwrap());
        socket.send_to(&vxlan(8, 7001, &frame), (rloc(1, v6).get(), 4789)).unwrap();
        let ended = wait_for("the end", || {
            (0..3).find(|nve| lab.nves[*nve].count(Reason::RedirectLoop) == u64::from(*nve == 1) + 1)
        });
        let hops: u64 = (0..3).map(|nve| lab.nves[nve].count(Reason::Redirected)).sum();
        assert_eq!((hops, ended), (63, 1), "{}", lab.dump());
    }
}

/// What the NVE that it moved from sends on is another's, and is not fenced; what any other NVE sends is.
#[test]
fn not_fenced_where_it_moved_to() {
    for (kind, path, v6) in [(VapKind::Veth, Path::Direct, false), (VapKind::Tap, Path::Device, true)] {
        let how = How { kind, path, v6 };
        let (mut lab, wires) = lab(how);
        lab.nves[2].with(|k| k.vouch(Duration::from_secs(100)).unwrap());
        let send = |lab: &mut Lab, from: usize, word: &[u8]| {
            let socket =
                lab.nves[from].ns.run(|| std::net::UdpSocket::bind((rloc(from, v6).get(), 0)).unwrap());
            socket.send_to(&vxlan(8, 7001, &data(3, false, word)), (rloc(2, v6).get(), 4789)).unwrap();
        };
        let vap = weft_datapath::Vap { previous: NonZeroU32::new(2), ..Lab::vap(3, how) };
        let device = lab.tss[2].device;
        lab.nves[2].apply(&[Op::SetVap(device, vap)]);
        assert_eq!(lab.nves[2].with(|k| k.observed().unwrap()).vaps[&device].previous, NonZeroU32::new(2));
        // Tenant system 1 is at NVE 0 for all that NVE 2 knows.
        for _ in 0..3 {
            send(&mut lab, 1, b"sent on");
            wires[2].receive("it", |f| f.ends_with(b"sent on"));
        }
        assert_eq!(lab.nves[2].count(Reason::SrcMoved), 0, "{}", lab.dump());
        lab.nves[2].apply(&[Op::SetVap(device, Lab::vap(3, how))]);
        send(&mut lab, 1, b"contested");
        wires[2].receive("it", |f| f.ends_with(b"contested"));
        count_to(&mut lab, 2, Reason::SrcMoved, 1);
        wait_for("the fence", || {
            lab.nves[2].with(|k| k.vouch(Duration::from_secs(100)).unwrap());
            send(&mut lab, 1, b"stale");
            (lab.nves[2].count(Reason::Fenced) > 0).then_some(())
        });
    }
}

/// In a VN that learns from frames: where a redirected frame's sender is it does not say.
#[test]
fn what_is_redirected_teaches_nothing() {
    let how = How { kind: VapKind::Veth, path: Path::Direct, v6: false };
    let (mut lab, wires) = lab(how);
    lab.nves[2].apply(&[
        Op::SetVn(vni(7001), Vn { learning: Learning::Flood, ..Vn::default() }),
        Op::RemoveLocation(vni(7001), ts_mac(1).get()),
    ]);
    let device = lab.tss[2].device;
    let learned = |lab: &mut Lab| {
        let all = lab.nves[2].with(|k| k.learned().unwrap());
        all.into_iter().find(|seen| seen.mac == ts_mac(1).get()).map(|seen| seen.rloc)
    };
    let socket = lab.nves[1].ns.run(|| std::net::UdpSocket::bind((rloc(1, false).get(), 0)).unwrap());
    for (previous, at) in [(NonZeroU32::new(2), None), (None, Some(rloc(1, false)))] {
        lab.nves[2].apply(&[Op::SetVap(device, weft_datapath::Vap { previous, ..Lab::vap(3, how) })]);
        socket.send_to(&vxlan(8, 7001, &data(3, false, b"sent on")), (rloc(2, false).get(), 4789)).unwrap();
        wires[2].receive("it", |f| f.ends_with(b"sent on"));
        assert_eq!(learned(&mut lab), at);
    }
}

/// A restarted agent finds them.
#[test]
fn observed_and_adopted() {
    let (mut lab, _) = lab(How { kind: VapKind::Veth, path: Path::Direct, v6: false });
    lab.nves[1].apply(&[away(9, 2, false), away(8, 2, true)]);
    let there = |lab: &mut Lab| lab.nves[1].with(|k| k.observed().unwrap()).away;
    let before = there(&mut lab);
    assert_eq!(before.len(), 2);
    lab.nves[1].punts = None;
    lab.nves[1].kernel = None;
    lab.nves[1].open();
    assert_eq!(there(&mut lab), before);
    lab.nves[1].apply(&[Op::RemoveAway(vni(7001), ts_mac(9).get())]);
    assert_eq!(there(&mut lab).len(), 1);
}
