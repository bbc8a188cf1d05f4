//! What policies let through and refuse, with real frames: both ends of a connection, both paths, both families.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

mod common;

use common::{
    How, Lab,
    frames::*,
    pair::{
        End, MACS, Pair, VETH, allow, datagram_of, echo, error_about, ip, key, let_names_through, policy,
    },
    vni, wait_for,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use weft_datapath::{
    Allow, ClassId, ConnectionState, Datapath as _, Direction, Op, Path, Policy, Ports, Prefix, PuntReason,
    Reason, RuleKey, Toward, Vap, VapKind,
};
use weft_model::{Bum, Learning};

fn what_rules_allow(how: How) {
    let mut pair = Pair::new(how);
    let_names_through(&mut pair);
    for v6 in [false, true] {
        assert_eq!(pair.send(0, &datagram_of(0, v6, 1000, 54)), End::Out);
        assert_eq!(pair.send(1, &datagram_of(1, v6, 53, 1000)), End::Out, "nobody has asked");
        let question = datagram_of(0, v6, 1000, 53);
        assert_eq!(pair.send(0, &question), End::Arrived);
        pair.wires[1].receive("the question", |f| f == question);
        assert_eq!(pair.state(1), Some((Toward::In, ConnectionState::Opening)));
        let answer = datagram_of(1, v6, 53, 1000);
        assert_eq!(pair.send(1, &answer), End::Arrived);
        pair.wires[0].receive("the answer", |f| f == answer);
        assert_eq!(pair.send(0, &question), End::Arrived);
        assert_eq!(pair.state(0), Some((Toward::Out, ConnectionState::Established)));
        assert_eq!(pair.state(1), Some((Toward::In, ConnectionState::Established)));
        // Of the same connection seen from elsewhere nobody knows.
        assert_eq!(pair.send(1, &datagram_of(1, v6, 53, 1001)), End::Out);
        assert_eq!(pair.send(1, &datagram_of(1, v6, 52, 1000)), End::Out);
        // An error about it belongs to it, one about another does not; nor does an echo.
        assert_eq!(pair.send(1, &error_about(1, v6, &question)), End::Arrived);
        assert_eq!(pair.send(1, &error_about(1, v6, &datagram_of(0, v6, 1000, 54))), End::Out);
        assert_eq!(pair.send(0, &echo(0, v6, if v6 { 128 } else { 8 }, 1)), End::Out);
        // What is sent freely is refused where it arrives.
        pair.set(0, None, &[]);
        assert_eq!(pair.send(0, &datagram_of(0, v6, 1000, 54)), End::In);
        let strange = eth(MACS[1], MACS[0], 0x88cc, &[0; 46]);
        assert_eq!(pair.send(0, &strange), End::In);
        pair.set(0, policy(1, 1), &[]);
        assert_eq!(pair.send(0, &strange), End::Out);
        pair.forget(v6);
        assert_eq!((pair.state(0), pair.state(1)), (None, None));
        assert_eq!(pair.send(1, &answer), End::Out, "it is forgotten");
    }
    // Two questions, an answer and an error of each family, and no frame that was refused.
    let octets = |v6| {
        let one = |f: Vec<u8>| u64::try_from(f.len()).unwrap();
        3 * one(datagram_of(0, v6, 1000, 53)) + one(error_about(1, v6, &datagram_of(0, v6, 1000, 53)))
    };
    let hits = |pair: &mut Pair, nve: usize| pair.lab.nves[nve].with(|k| k.rule_counters().unwrap());
    assert_eq!(hits(&mut pair, 0), [(10, 8, octets(false) + octets(true))]);
    assert_eq!(hits(&mut pair, 1), [(20, 8, octets(false) + octets(true))]);
    pair.lab.nves[0].with(|k| k.clear_rule(10).unwrap());
    assert_eq!(hits(&mut pair, 0), []);
    let counters = pair.lab.nves[0].counters();
    let denied: Vec<_> = counters.iter().filter(|c| c.reason == Reason::Denied).collect();
    assert!(denied.iter().all(|c| c.vni == Some(vni(7001)) && c.direction == Direction::Out), "{denied:?}");
}

#[test]
fn what_rules_allow_direct() {
    what_rules_allow(VETH);
}

#[test]
fn what_rules_allow_direct_v6() {
    what_rules_allow(How { v6: true, ..VETH });
}

#[test]
fn what_rules_allow_device() {
    what_rules_allow(How { path: Path::Device, ..VETH });
}

#[test]
fn what_rules_allow_tap() {
    what_rules_allow(How { kind: VapKind::Tap, ..VETH });
}

/// What has checks of its own is exempt as far as these reach: what asks for a neighbour is, and what is for all that
/// listen; that in the frame of one of them is a packet like any other.
#[test]
fn exempt_is_what_is_for_all() {
    for how in [VETH, How { path: Path::Device, v6: true, ..VETH }] {
        let mut pair = Pair::new(how);
        pair.set(0, policy(1, 1), &[]);
        let (IpAddr::V4(four), IpAddr::V6(six), IpAddr::V6(other)) = (ip(0, false), ip(0, true), ip(1, true))
        else {
            panic!("families");
        };
        let routers = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
        let to_one = |proto, packet: &[u8]| eth(MACS[1], MACS[0], proto, packet);
        let asks = nd(135, six, other, other, &lla(1, MACS[0]));
        assert_eq!(pair.send(0, &to_one(0x86dd, &asks)), End::Arrived);
        for dst in [other, routers] {
            let solicitation = icmpv6(six, dst, &[133, 0, 0, 0, 0, 0, 0, 0]);
            let packet = ipv6(six, dst, 58, 255, 0, &solicitation);
            assert_eq!(pair.send(0, &to_one(0x86dd, &packet)), End::Out, "RS to {dst}");
        }
        let mut report = vec![131, 0, 0, 0, 0, 0, 0, 0];
        report.extend(routers.octets());
        let packet = ipv6(six, routers, 58, 1, 0, &icmpv6(six, routers, &report));
        assert_eq!(pair.send(0, &to_one(0x86dd, &packet)), End::Out, "MLD");
        let group = Ipv4Addr::new(239, 1, 2, 3);
        let packet = ipv4(four, group, 2, 0, 0, &[0x16, 0, 0, 0, 239, 1, 2, 3]);
        assert_eq!(pair.send(0, &to_one(0x0800, &packet)), End::Out, "IGMP");
        // An IPv4 address in IPv6's dress is not the tenant system's own.
        let packet = ipv6(four.to_ipv6_mapped(), other, 17, 64, 0, &udp(5, 5, b"in disguise"));
        pair.wires[0].send(&to_one(0x86dd, &packet));
        wait_for("it", || (pair.lab.nves[0].count(Reason::SpoofedIp) == 1).then_some(()));
    }
}

/// From one VAP here to another: the one's `out`, the other's `in`.
#[test]
fn both_ends_here_decide() {
    let mut lab = Lab::new();
    lab.attach(0, 1, VETH);
    lab.attach(0, 2, VETH);
    for ts in &lab.tss {
        ts.silence();
    }
    let wires = [0, 1].map(|i| Wire::new(&lab.tss[i].ns, "eth0"));
    let set = |lab: &mut Lab, i: usize, policy| {
        let device = lab.tss[i].device;
        let vap = Vap { policy, ..Lab::vap(lab.tss[i].n, VETH) };
        lab.nves[0].apply(&[Op::SetVap(device, vap)]);
    };
    set(&mut lab, 0, policy(1, 1));
    set(&mut lab, 1, policy(2, 1));
    lab.nves[0].apply(&[allow(1, Toward::Out, 17, 53, 1), allow(2, Toward::In, 17, 54, 2)]);
    let send = |lab: &mut Lab, i: usize, frame: &[u8]| {
        let count = |lab: &mut Lab| {
            let of = |reason, direction| {
                move |c: &&weft_datapath::Counter| (c.reason, c.direction) == (reason, direction)
            };
            let all = lab.nves[0].counters();
            [
                (Reason::Local, Direction::Out),
                (Reason::Denied, Direction::Out),
                (Reason::Denied, Direction::In),
            ]
            .map(|(r, d)| all.iter().filter(of(r, d)).map(|c| c.packets).sum::<u64>())
        };
        let before = count(lab);
        wires[i].send(frame);
        let after = wait_for("an end", || Some(count(lab)).filter(|after| *after != before));
        let grown: Vec<u64> = after.iter().zip(before).map(|(a, b)| a - b).collect();
        match grown[..] {
            [1, 0, 0] => End::Arrived,
            [0, 1, 0] => End::Out,
            [0, 0, 1] => End::In,
            _ => panic!("{grown:?}"),
        }
    };
    for v6 in [false, true] {
        assert_eq!(send(&mut lab, 0, &datagram_of(0, v6, 9, 54)), End::Out);
        assert_eq!(send(&mut lab, 0, &datagram_of(0, v6, 9, 53)), End::In);
    }
    lab.nves[0].apply(&[allow(2, Toward::In, 17, 53, 2)]);
    for v6 in [false, true] {
        assert_eq!(send(&mut lab, 0, &datagram_of(0, v6, 9, 53)), End::Arrived);
        assert_eq!(send(&mut lab, 1, &datagram_of(1, v6, 53, 9)), End::Arrived);
    }
    let all = lab.nves[0].with(|k| k.connections(vni(7001), None).unwrap());
    assert_eq!(all.len(), 4, "one of each end: {all:?}");
    assert!(all.iter().all(|c| c.state == ConnectionState::Established), "{all:?}");
}

#[test]
fn ten_thousand_rules() {
    let mut pair = Pair::new(VETH);
    let ops: Vec<Op> = (1..=10_000_u16).map(|port| allow(1, Toward::Out, 17, port, port.into())).collect();
    pair.set(0, policy(1, 1), &ops);
    for v6 in [false, true] {
        assert_eq!(pair.send(0, &datagram_of(0, v6, 9, 10_000)), End::Arrived);
        assert_eq!(pair.send(0, &datagram_of(0, v6, 9, 1)), End::Arrived);
        assert_eq!(pair.send(0, &datagram_of(0, v6, 9, 10_001)), End::Out);
        assert_eq!(pair.send(0, &datagram_of(0, v6, 9, 0)), End::Out);
    }
    let hits = pair.lab.nves[0].with(|k| k.rule_counters().unwrap());
    assert_eq!(
        hits.iter().map(|(rule, packets, _)| (*rule, *packets)).collect::<Vec<_>>(),
        [(1, 2), (10_000, 2)]
    );
    // The next process finds all of it.
    let before = pair.lab.nves[0].with(|k| k.observed().unwrap());
    assert_eq!(before.rules.len(), 10_000);
    let sizes = weft_datapath::table_sizes(&pair.lab.nves[0].options.pin_dir).unwrap();
    let entries = |name| sizes.iter().find(|size| size.name == name).unwrap().entries;
    assert_eq!((entries("rules"), entries("classes"), entries("conns")), (Some(10_000), Some(0), Some(4)));
    (pair.lab.nves[0].kernel, pair.lab.nves[0].punts) = (None, None);
    pair.lab.nves[0].open();
    assert_eq!(pair.lab.nves[0].with(|k| k.observed().unwrap()), before);
    let too_far = allow(1, Toward::Out, 17, 1, weft_datapath::RULE_COUNTERS);
    let error = pair.lab.nves[0].with(|k| k.apply(&too_far)).unwrap_err();
    assert_eq!(error.to_string(), "there is no counter 16384 for a rule; number rules from 0 to 16383");
}

#[test]
fn the_agent_is_told() {
    let mut pair = Pair::new(VETH);
    let told = Allow { rule: 6, log: true };
    let loud = policy(1, 1).map(|policy| Policy { log_refused: true, ..policy });
    pair.set(0, loud, &[Op::SetRule(key(1, Toward::Out, 17, Ports::one(53)), told)]);
    pair.set(1, policy(2, 1).map(|policy| Policy { log_refused: true, ..policy }), &[]);
    let here = pair.lab.tss[0].device;
    let (question, other) = (datagram_of(0, false, 1000, 53), datagram_of(0, true, 1000, 54));
    assert_eq!(pair.send(0, &question), End::In);
    assert_eq!(pair.send(0, &question), End::In);
    assert_eq!(pair.send(0, &other), End::Out);
    let told = |pair: &mut Pair, nve: usize| pair.lab.nves[nve].punts.as_mut().unwrap().drain(1_000);
    let [first, second] = &told(&mut pair, 0)[..] else { panic!() };
    assert_eq!((first.reason, first.vap, first.vni), (PuntReason::Allowed(6, Toward::Out), here, vni(7001)));
    assert_eq!(first.frame, question);
    assert_eq!((second.reason, &second.frame), (PuntReason::Refused(Toward::Out), &other));
    let there = told(&mut pair, 1);
    assert_eq!(there.len(), 2, "{there:?}");
    assert!(there.iter().all(|p| p.reason == PuntReason::Refused(Toward::In) && p.frame == question));
    // No more than there is time to read.
    for port in 1..=1_000 {
        pair.wires[0].send(&datagram_of(0, false, 1_000 + port, 54));
        pair.keep_up(port, Reason::Denied, 1);
    }
    let records = told(&mut pair, 0).len();
    assert!((50..900).contains(&records), "{records}");
}

/// A datagram to a group, in two fragments.
fn group_fragments(v6: bool, port: u16) -> [Vec<u8>; 2] {
    [0_u16, 32].map(|offset| {
        let more = u16::from(offset == 0);
        let payload = if offset == 0 { udp(9, port, &[7; 24]) } else { vec![7; 32] };
        match (ip(0, v6), v6) {
            (IpAddr::V4(from), _) => {
                let to = Ipv4Addr::new(224, 0, 0, 251);
                let packet = ipv4(from, to, 17, 0, (offset / 8) | (more << 13), &payload);
                eth([1, 0, 0x5e, 0, 0, 251], MACS[0], 0x0800, &packet)
            }
            (IpAddr::V6(from), _) => {
                let header = [&[17, 0][..], &(offset | more).to_be_bytes(), &[0, 0, 0, 1]].concat();
                let packet = ipv6(from, "ff02::fb".parse().unwrap(), 44, 1, 0, &[header, payload].concat());
                eth([0x33, 0x33, 0, 0, 0, 0xfb], MACS[0], 0x86dd, &packet)
            }
        }
    })
}

/// Frames for a group: the sender's rules are of the group's address, the receivers' are looked at for each copy.
#[test]
fn groups_are_checked_at_both_ends() {
    let mut lab = Lab::new();
    for (nve, n) in [(0, 1), (0, 2), (1, 3)] {
        lab.attach(nve, n, VETH);
    }
    for ts in &lab.tss {
        ts.silence();
    }
    lab.set_vn(Learning::Oracle, Bum::Replicate, false);
    let wires: Vec<Wire> = lab.tss.iter().map(|ts| Wire::new(&ts.ns, "eth0")).collect();
    let group = |v6, port| {
        let data = udp(9, port, b"as much as a frame has to have");
        match (ip(0, v6), v6) {
            (IpAddr::V4(from), _) => {
                let to = Ipv4Addr::new(224, 0, 0, 251);
                eth([1, 0, 0x5e, 0, 0, 251], MACS[0], 0x0800, &ipv4(from, to, 17, 0, 0, &data))
            }
            (IpAddr::V6(from), _) => {
                let to: Ipv6Addr = "ff02::fb".parse().unwrap();
                eth([0x33, 0x33, 0, 0, 0, 0xfb], MACS[0], 0x86dd, &ipv6(from, to, 17, 1, 0, &data))
            }
        }
    };
    let set = |lab: &mut Lab, i: usize, nve: usize, policy| {
        let vap = Vap { policy, ..Lab::vap(lab.tss[i].n, VETH) };
        let op = Op::SetVap(lab.tss[i].device, vap);
        lab.nves[nve].apply(&[op]);
    };
    let mdns = ClassId(3);
    for (addr, len) in [("224.0.0.0", 24), ("ff02::", 16)] {
        let prefix = Prefix::new(addr.parse().unwrap(), len).unwrap();
        lab.nves[0].apply(&[Op::SetClass(vni(7001), prefix, mdns)]);
    }
    let to_group = RuleKey { class: mdns, ..key(1, Toward::Out, 17, Ports::ALL) };
    lab.nves[0]
        .apply(&[Op::SetRule(to_group, Allow { rule: 1, log: false }), allow(2, Toward::In, 17, 5353, 2)]);
    lab.nves[1].apply(&[allow(2, Toward::In, 17, 5353, 2)]);
    set(&mut lab, 0, 0, policy(1, 1));
    set(&mut lab, 1, 0, policy(2, 1));
    set(&mut lab, 2, 1, policy(2, 1));
    for v6 in [false, true] {
        wires[0].send(&group(v6, 5353));
        wires[1].receive("a copy here", |f| f == group(v6, 5353));
        wires[2].receive("a copy there", |f| f == group(v6, 5353));
        // The sender may, the receivers do not want it.
        let before = [0, 1].map(|nve: usize| lab.nves[nve].count(Reason::Denied));
        wires[0].send(&group(v6, 5354));
        wait_for("refusals", || {
            let now = [0, 1].map(|nve: usize| lab.nves[nve].count(Reason::Denied));
            (now == before.map(|count| count + 1)).then_some(())
        });
    }
    assert_eq!(lab.nves[0].count(Reason::Replicated), 4, "{}", lab.dump());
    // What is in fragments goes to those that its first one went to.
    for v6 in [false, true] {
        for (port, arrives) in [(5353, true), (5354, false)] {
            let before = lab.nves[1].count(Reason::Denied);
            let parts = group_fragments(v6, port);
            parts.iter().for_each(|part| wires[0].send(part));
            if arrives {
                for part in &parts {
                    wires[1].receive("a fragment here", |f| f == *part);
                    wires[2].receive("a fragment there", |f| f == *part);
                }
            } else {
                wait_for("refusals", || (lab.nves[1].count(Reason::Denied) == before + 2).then_some(()));
            }
        }
    }
    assert_eq!(lab.nves[0].count(Reason::Replicated), 12, "{}", lab.dump());
    let out = |lab: &mut Lab| {
        let all = lab.nves[0].counters().into_iter();
        all.filter(|c| (c.reason, c.direction) == (Reason::Denied, Direction::Out))
            .map(|c| c.packets)
            .sum::<u64>()
    };
    assert_eq!(out(&mut lab), 0);
    lab.nves[0].apply(&[Op::RemoveRule(to_group)]);
    set(&mut lab, 0, 0, policy(1, 2));
    wires[0].send(&group(false, 5353));
    wait_for("a refusal", || (out(&mut lab) == 1).then_some(()));
    assert_eq!(lab.nves[0].count(Reason::Replicated), 12, "{}", lab.dump());
}

/// Real stacks: ARP and ND are nobody's business, streams go through with segmentation offload.
#[test]
fn stacks_talk() {
    for how in [VETH, How { path: Path::Device, v6: true, ..VETH }, How { kind: VapKind::Tap, ..VETH }] {
        let mut lab = Lab::new();
        lab.attach(0, 1, how);
        lab.attach(1, 2, how);
        let pings = [(1, 8), (58, 128)].map(|(proto, kind)| (proto, Ports::one(kind << 8)));
        let rules = |policy, toward| {
            let streams = Op::SetRule(key(policy, toward, 6, Ports::ALL), Allow { rule: 1, log: false });
            let pings =
                pings.map(|(p, n)| Op::SetRule(key(policy, toward, p, n), Allow { rule: 2, log: false }));
            [&pings[..], &[streams]].concat()
        };
        lab.nves[0].apply(&rules(1, Toward::Out));
        lab.nves[1].apply(&rules(2, Toward::In));
        for (i, policy) in [(0, policy(1, 1)), (1, policy(2, 1))] {
            let vap = Vap { policy, ..Lab::vap(lab.tss[i].n, how) };
            let op = Op::SetVap(lab.tss[i].device, vap);
            lab.nves[i].apply(&[op]);
        }
        for v6 in [false, true] {
            assert!(lab.tss[0].ping(lab.tss[1].ip(v6)), "{}", lab.dump());
            assert!(!lab.tss[1].ns.exec(&format!("ping -c 1 -W 1 {}", lab.tss[0].ip(v6))).status.success());
            common::tcp(&lab.tss[0].ns, &lab.tss[1].ns, lab.tss[1].ip(v6), 3_000_000);
        }
        let hits = lab.nves[0].with(|k| k.rule_counters().unwrap());
        assert_eq!(hits.iter().map(|hit| hit.0).collect::<Vec<_>>(), [1, 2]);
        assert!(hits[0].1 > 2_000, "packets, not frames of many: {hits:?}");
    }
}
