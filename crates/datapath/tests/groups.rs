//! Multicast where a VN replicates: to those that asked for the group, and what they ask goes to the agent.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

mod common;

use common::{How, Lab, frames::*, options, rloc, ts_mac, vni, wait_for};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};
use weft_datapath::{Datapath as _, Op, Path, PuntReason, Reason, Receivers, VapKind};
use weft_model::{Bum, GroupIp, Learning, Wanted};

const A: Mac = [2, 0, 0, 0, 0, 1];
const MAC4: Mac = [1, 0, 0x5e, 1, 2, 3];
const MAC6: Mac = [0x33, 0x33, 0, 0, 1, 2];
const GROUP4: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0, 0x102);

fn a4() -> Ipv4Addr {
    "10.0.0.1".parse().unwrap()
}

fn a6() -> Ipv6Addr {
    "fd00::1".parse().unwrap()
}

/// A datagram for the group of each family, with this in it.
fn frames(word: &str) -> [Vec<u8>; 2] {
    let data = udp(5, 5, format!("{word} and enough for a frame").as_bytes());
    [
        eth(MAC4, A, 0x0800, &ipv4(a4(), GROUP4, 17, 0, 0, &data)),
        eth(MAC6, A, 0x86dd, &ipv6(a6(), GROUP6, 17, 1, 0, &data)),
    ]
}

/// One that everybody gets, to end a wait with.
fn marker(word: &str) -> Vec<u8> {
    let data = udp(5, 5, format!("{word} for everybody").as_bytes());
    eth([1, 0, 0x5e, 0, 0, 251], A, 0x0800, &ipv4(a4(), "224.0.0.251".parse().unwrap(), 17, 0, 0, &data))
}

fn holds(frame: &[u8], word: &str) -> bool {
    frame.windows(word.len()).any(|w| w == word.as_bytes())
}

fn groups() -> [Wanted; 2] {
    [IpAddr::from(GROUP4), GROUP6.into()].map(|ip| GroupIp::new(ip).unwrap().into())
}

/// Tenant systems 1 and 2 at NVE 0, 3 at NVE 1, 4 at NVE 2; their own stacks are silent.
fn lab(how: How) -> Lab {
    let mut lab = Lab::of(3, &options);
    for (nve, n) in [(0, 1), (0, 2), (1, 3), (2, 4)] {
        lab.attach(nve, n, how);
    }
    for ts in &lab.tss {
        ts.silence();
    }
    lab.set_vn(Learning::Oracle, Bum::Replicate, how.v6);
    lab
}

/// Who of the tenant systems 2 to 4 gets both frames, sent by 1 before a marker.
fn who_gets(lab: &mut Lab, ends: &[Wire], word: &str) -> BTreeSet<u8> {
    for frame in frames(word) {
        ends[0].send(&frame);
    }
    let end = format!("end of {word}");
    ends[0].send(&marker(&end));
    let mut got = BTreeSet::new();
    for (n, wire) in (2..).zip(&ends[1..]) {
        let seen = wire.until("the marker", |f| holds(f, &end));
        match seen.iter().filter(|f| holds(f, &format!("{word} and"))).count() {
            0 => {}
            2 => assert!(got.insert(n)),
            count => panic!("tenant system {n} got {count}\n{}", lab.dump()),
        }
    }
    got
}

fn those_that_asked(how: How) {
    let mut lab = lab(how);
    let ends: Vec<Wire> = lab.tss.iter().map(|ts| Wire::new(&ts.ns, "eth0")).collect();
    let here = lab.tss[1].device;
    let (there, far) = (rloc(1, how.v6), rloc(2, how.v6));
    let set = |lab: &mut Lab, nve: usize, vaps: &[_], members: &[_]| {
        for group in groups() {
            let receivers = Receivers {
                vaps: vaps.iter().copied().collect(),
                members: members.iter().copied().collect(),
            };
            lab.nves[nve].apply(&[Op::SetGroup(vni(7001), group, receivers)]);
        }
    };
    assert_eq!(who_gets(&mut lab, &ends, "nobody"), BTreeSet::new());
    assert_eq!(lab.nves[0].count(Reason::NoReceiver), 2, "{}", lab.dump());
    // Who sends is no receiver of its own.
    let own = lab.tss[0].device;
    set(&mut lab, 0, &[own], &[]);
    assert_eq!(who_gets(&mut lab, &ends, "alone"), BTreeSet::new());
    assert_eq!(lab.nves[0].count(Reason::NoReceiver), 4, "{}", lab.dump());
    set(&mut lab, 0, &[own, here], &[]);
    assert_eq!(who_gets(&mut lab, &ends, "here"), [2].into());
    assert_eq!(lab.nves[1].count(Reason::NoReceiver), 0, "{}", lab.dump());
    // There it is looked at again who asked.
    set(&mut lab, 0, &[], &[there]);
    assert_eq!(who_gets(&mut lab, &ends, "unasked"), BTreeSet::new());
    assert_eq!(lab.nves[1].count(Reason::NoReceiver), 2, "{}", lab.dump());
    let device = lab.tss[2].device;
    set(&mut lab, 1, &[device], &[far]);
    assert_eq!(who_gets(&mut lab, &ends, "there"), [3].into(), "never passed on");
    let device = lab.tss[3].device;
    set(&mut lab, 2, &[device], &[]);
    set(&mut lab, 0, &[here], &[there, far]);
    assert_eq!(who_gets(&mut lab, &ends, "everybody"), [2, 3, 4].into());
    // What is pinned is found again by the next process.
    let before = lab.nves[0].with(|kernel| kernel.observed().unwrap()).groups;
    assert_eq!(before.len(), 2);
    lab.nves[0].kernel = None;
    lab.nves[0].punts = None;
    lab.nves[0].open();
    assert_eq!(lab.nves[0].with(|kernel| kernel.observed().unwrap()).groups, before);
    assert_eq!(who_gets(&mut lab, &ends, "reopened"), [2, 3, 4].into());
    for group in groups() {
        lab.nves[0].apply(&[Op::RemoveGroup(vni(7001), group)]);
    }
    assert_eq!(who_gets(&mut lab, &ends, "gone"), BTreeSet::new());
    // Where frames are flooded anyway nobody has to ask.
    lab.set_vn(Learning::Flood, Bum::Drop, how.v6);
    assert_eq!(who_gets(&mut lab, &ends, "flooded"), [2, 3, 4].into());
}

#[test]
fn those_that_asked_veth() {
    for (path, v6) in [(Path::Direct, false), (Path::Device, true)] {
        those_that_asked(How { kind: VapKind::Veth, path, v6 });
    }
}

#[test]
fn those_that_asked_tap() {
    those_that_asked(How { kind: VapKind::Tap, path: Path::Direct, v6: false });
}

/// A group without an entry of its own goes to who wants all, one with an entry to whom that names.
fn those_that_want_all(how: How) {
    let mut lab = lab(how);
    let ends: Vec<Wire> = lab.tss.iter().map(|ts| Wire::new(&ts.ns, "eth0")).collect();
    let (own, here, far) = (lab.tss[0].device, lab.tss[1].device, lab.tss[3].device);
    let of = |vaps: &[_], members: &[_]| Receivers {
        vaps: vaps.iter().copied().collect(),
        members: members.iter().copied().collect(),
    };
    let set = |lab: &mut Lab, nve: usize, to: Receivers| {
        lab.nves[nve].apply(&[Op::SetGroup(vni(7001), Wanted::All, to)]);
    };
    set(&mut lab, 0, of(&[own], &[]));
    assert_eq!(who_gets(&mut lab, &ends, "alone"), BTreeSet::new());
    assert_eq!(lab.nves[0].count(Reason::NoReceiver), 2, "{}", lab.dump());
    set(&mut lab, 0, of(&[here], &[rloc(1, how.v6), rloc(2, how.v6)]));
    set(&mut lab, 2, of(&[far], &[]));
    assert_eq!(who_gets(&mut lab, &ends, "all"), [2, 4].into(), "of NVE 1 nobody");
    assert_eq!(lab.nves[1].count(Reason::NoReceiver), 2, "{}", lab.dump());
    for group in groups() {
        lab.nves[0].apply(&[Op::SetGroup(vni(7001), group, of(&[], &[rloc(2, how.v6)]))]);
    }
    assert_eq!(who_gets(&mut lab, &ends, "named"), [4].into());
    // What is pinned is found again by the next process.
    let before = lab.nves[0].with(|kernel| kernel.observed().unwrap()).groups;
    assert_eq!(before.len(), 3);
    lab.nves[0].kernel = None;
    lab.nves[0].punts = None;
    lab.nves[0].open();
    assert_eq!(lab.nves[0].with(|kernel| kernel.observed().unwrap()).groups, before);
    for group in groups() {
        lab.nves[0].apply(&[Op::RemoveGroup(vni(7001), group)]);
    }
    assert_eq!(who_gets(&mut lab, &ends, "all again"), [2, 4].into());
    lab.nves[0].apply(&[Op::RemoveGroup(vni(7001), Wanted::All)]);
    assert_eq!(who_gets(&mut lab, &ends, "none"), BTreeSet::new());
}

#[test]
fn those_that_want_all_veth() {
    for (path, v6) in [(Path::Direct, false), (Path::Device, true)] {
        those_that_want_all(How { kind: VapKind::Veth, path, v6 });
    }
}

/// More members than an entry names: all there are.
#[test]
fn too_many_are_all() {
    let how = How { kind: VapKind::Veth, path: Path::Direct, v6: false };
    let mut lab = lab(how);
    let ends: Vec<Wire> = lab.tss.iter().map(|ts| Wire::new(&ts.ns, "eth0")).collect();
    for nve in 1..3 {
        let vaps = BTreeSet::from([lab.tss[nve + 1].device]);
        for group in groups() {
            let receivers = Receivers { vaps: vaps.clone(), ..Receivers::default() };
            lab.nves[nve].apply(&[Op::SetGroup(vni(7001), group, receivers)]);
        }
    }
    let many =
        (1..=200_u8).map(|n| IpAddr::from([198, 51, 100, n])).map(|ip| ip.try_into().unwrap()).collect();
    let receivers = Receivers { members: many, ..Receivers::default() };
    for group in groups() {
        lab.nves[0].apply(&[Op::SetGroup(vni(7001), group, receivers.clone())]);
    }
    assert_eq!(who_gets(&mut lab, &ends, "all of them"), [3, 4].into());
    let observed = lab.nves[0].with(|kernel| kernel.observed().unwrap());
    let all = [rloc(1, false), rloc(2, false)].into();
    assert!(observed.groups.values().all(|receivers| receivers.members == all), "{:?}", observed.groups);
}

/// Reports go up whole and nowhere else, queries nowhere.
#[test]
fn what_is_said_of_groups_is_for_the_agent() {
    let how = How { kind: VapKind::Veth, path: Path::Direct, v6: false };
    let mut lab = lab(how);
    let ends: Vec<Wire> = lab.tss.iter().map(|ts| Wire::new(&ts.ns, "eth0")).collect();
    let igmp = |kind: u8, to: Ipv4Addr, len: usize| {
        let message = [&[kind, 0, 0, 0][..], &vec![7; len]].concat();
        eth(MAC4, A, 0x0800, &ipv4(a4(), to, 2, 0xc0, 0, &message))
    };
    let mld = |kind: u8, len: usize| {
        let message =
            icmpv6(a6(), "ff02::16".parse().unwrap(), &[&[kind, 0, 0, 0][..], &vec![7; len]].concat());
        // Behind a router alert (RFC 2711), as MLD is.
        let alert = [&[58, 0, 5, 2, 0, 0, 1, 0][..], &message[40..]].concat();
        eth(MAC6, A, 0x86dd, &ipv6(a6(), "ff02::16".parse().unwrap(), 0, 1, 0, &alert))
    };
    let all4 = "224.0.0.22".parse().unwrap();
    let reports = [
        igmp(0x12, GROUP4, 4),
        igmp(0x16, GROUP4, 4),
        igmp(0x17, "224.0.0.2".parse().unwrap(), 4),
        igmp(0x22, all4, 1_200),
        mld(131, 20),
        mld(132, 20),
        mld(143, 1_200),
    ];
    for frame in &reports {
        ends[0].send(frame);
    }
    let mut got = Vec::new();
    wait_for("reports", || {
        let punts = lab.nves[0].punts.as_mut().unwrap().drain(64);
        // Not what the stacks there had to say before they were silent.
        got.extend(punts.into_iter().filter(|punt| reports.contains(&punt.frame)));
        (got.len() == reports.len()).then_some(())
    });
    for (punt, frame) in got.iter().zip(&reports) {
        assert_eq!((punt.reason, &punt.frame), (PuntReason::Report, frame));
    }
    for query in [igmp(0x11, "224.0.0.1".parse().unwrap(), 8), mld(130, 24)] {
        let before = lab.nves[0].count(Reason::RogueRouter);
        ends[0].send(&query);
        wait_for("refused", || (lab.nves[0].count(Reason::RogueRouter) == before + 1).then_some(()));
    }
    // Where nothing is narrowed they are frames like others.
    lab.set_vn(Learning::Flood, Bum::Drop, false);
    let before = lab.nves[0].count(Reason::Replicated);
    ends[0].send(&reports[0]);
    wait_for("carried", || (lab.nves[0].count(Reason::Replicated) == before + 1).then_some(()));
    assert_eq!(ts_mac(1).octets(), A);
}
