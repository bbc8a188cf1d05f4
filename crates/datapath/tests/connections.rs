//! Connections that policies have let through, with real frames: followed, cut, picked up, taken along, forgotten.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

mod common;

use common::{
    How, Lab,
    frames::*,
    pair::{
        ACK, End, FIN, FIRST, MACS, Pair, RST, SYN, VETH, allow, between, datagram_of, echo, error_about, ip,
        key, let_names_through, packet, policy, segment,
    },
    vni, wait_for,
};
use std::{collections::BTreeSet, net::IpAddr};
use weft_datapath::{
    Allow, Connection, ConnectionState, Datapath as _, Neighbour, Op, OpenOptions, Path, Ports, Reason,
    RuleKey, Toward,
};
use weft_model::{MacAddr, TenantIp};

fn fragment_of(i: usize, v6: bool, id: u8, offset: u16, more: bool) -> Vec<u8> {
    let payload = if offset == 0 { udp(1000, 53, &[7; 24]) } else { vec![7; 32] };
    match (ip(i, v6), ip(1 - i, v6)) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut packet = ipv4(from, to, 17, 0, (offset / 8) | if more { 0x2000 } else { 0 }, &payload);
            packet[5] = id;
            packet[10..12].fill(0);
            let check = sum(&[&packet[..20]]).to_be_bytes();
            packet[10..12].copy_from_slice(&check);
            eth(MACS[1 - i], MACS[i], 0x0800, &packet)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let word = (offset | u16::from(more)).to_be_bytes();
            let header = [&[17, 0][..], &word, &[0, 0, 0, id]].concat();
            eth(MACS[1 - i], MACS[i], 0x86dd, &ipv6(from, to, 44, 64, 0, &[header, payload].concat()))
        }
        _ => panic!(),
    }
}

#[test]
fn fragments_follow_the_first() {
    for how in [VETH, How { path: Path::Device, ..VETH }] {
        let mut pair = Pair::new(how);
        let_names_through(&mut pair);
        for v6 in [false, true] {
            assert_eq!(pair.send(0, &fragment_of(0, v6, 1, 32, false)), End::Out, "before the first one");
            assert_eq!(pair.send(0, &fragment_of(0, v6, 1, 0, true)), End::Arrived);
            assert_eq!(pair.send(0, &fragment_of(0, v6, 1, 32, true)), End::Arrived);
            assert_eq!(pair.send(0, &fragment_of(0, v6, 1, 64, false)), End::Arrived);
            assert_eq!(pair.send(0, &fragment_of(0, v6, 2, 32, false)), End::Out, "of another packet");
            assert_eq!(pair.send(1, &fragment_of(1, v6, 1, 32, false)), End::Out, "of another way");
            // Under way when the policy changes: the rest of it passes, and of the next one nothing, though it is called the same.
            pair.set(0, policy(3, 2), &[]);
            assert_eq!(pair.send(0, &fragment_of(0, v6, 1, 64, false)), End::Arrived);
            assert_eq!(pair.send(0, &fragment_of(0, v6, 1, 0, true)), End::Out);
            assert_eq!(pair.send(0, &fragment_of(0, v6, 1, 64, false)), End::Out);
            pair.set(0, policy(1, 1), &[]);
        }
    }
}

#[test]
fn another_policy_cuts_and_keeps() {
    let mut pair = Pair::new(VETH);
    let_names_through(&mut pair);
    let web = key(1, Toward::Out, 6, Ports::one(80));
    for v6 in [false, true] {
        let handshake = [(0, SYN), (1, SYN | ACK), (0, ACK)];
        let mut generation = 1;
        for (from_here, allowed) in [(true, true), (true, false), (false, true), (false, false)] {
            for (i, flags) in handshake {
                let (src, dst) = if i == 0 { (1000, 80) } else { (80, 1000) };
                assert_eq!(pair.send(i, &segment(i, v6, src, dst, flags)), End::Arrived);
            }
            let established = |opened| Some((opened, ConnectionState::Established));
            assert_eq!(pair.state(0), established(Toward::Out));
            assert_eq!(pair.state(1), established(Toward::In));
            generation += 1;
            let rule = if allowed { allow(1, Toward::Out, 6, 80, 12) } else { Op::RemoveRule(web) };
            pair.set(0, policy(1, generation), &[rule]);
            let next = if from_here { segment(0, v6, 1000, 80, ACK) } else { segment(1, v6, 80, 1000, ACK) };
            let end = pair.send(usize::from(!from_here), &next);
            match (allowed, from_here) {
                (true, _) => assert_eq!(end, End::Arrived),
                (false, true) => assert_eq!(end, End::Out),
                (false, false) => assert_eq!(end, End::In),
            }
            assert_eq!(pair.state(0), if allowed { established(Toward::Out) } else { None });
            if !allowed {
                assert_eq!(pair.send(0, &segment(0, v6, 1000, 80, ACK)), End::Out, "it is cut");
            }
            pair.set(0, policy(1, generation), &[allow(1, Toward::Out, 6, 80, 11)]);
        }
        pair.forget(v6);
    }
}

#[test]
fn tcp_is_followed_and_picked_up() {
    let mut pair = Pair::new(VETH);
    let_names_through(&mut pair);
    for v6 in [false, true] {
        let here = |flags| segment(0, v6, 2000, 80, flags);
        let there = |flags| segment(1, v6, 80, 2000, flags);
        // In the middle of a stream, by whoever may begin one.
        assert_eq!(pair.send(1, &there(ACK)), End::Out);
        assert_eq!(pair.send(0, &here(ACK)), End::Arrived);
        assert_eq!(pair.state(0), Some((Toward::Out, ConnectionState::Opening)));
        assert_eq!(pair.send(1, &there(ACK)), End::Arrived);
        assert_eq!(pair.state(0), Some((Toward::Out, ConnectionState::Established)));
        // Nobody opens one the other way round.
        assert_eq!(pair.send(1, &there(SYN)), End::Out);
        assert_eq!(pair.send(1, &there(FIN | ACK)), End::Arrived);
        assert_eq!(pair.state(0), Some((Toward::Out, ConnectionState::EndedThere)));
        assert_eq!(pair.state(1), Some((Toward::In, ConnectionState::EndedHere)));
        assert_eq!(pair.send(0, &here(ACK)), End::Arrived);
        assert_eq!(pair.send(0, &here(FIN | ACK)), End::Arrived);
        assert_eq!(pair.state(0), Some((Toward::Out, ConnectionState::Closing)));
        assert_eq!(pair.send(1, &there(ACK)), End::Arrived);
        // The same ports once more.
        assert_eq!(pair.send(0, &here(SYN)), End::Arrived);
        assert_eq!(pair.state(0), Some((Toward::Out, ConnectionState::Opening)));
        assert_eq!(pair.send(1, &there(SYN | ACK)), End::Arrived);
        assert_eq!(pair.state(0), Some((Toward::Out, ConnectionState::Answered)));
        assert_eq!(pair.send(1, &there(RST)), End::Arrived);
        assert_eq!(pair.state(0), Some((Toward::Out, ConnectionState::Closing)));
        // Too short for its flags.
        let short = packet(0, v6, 6, &[7, 208, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1]);
        assert_eq!(pair.send(0, &short), End::Out);
        pair.forget(v6);
    }
}

/// Whoever takes a tenant system over takes its connections along; they count if its policy there allows them.
#[test]
fn connections_are_taken_along() {
    let mut pair = Pair::new(VETH);
    let_names_through(&mut pair);
    for v6 in [false, true] {
        let (question, answer) = (datagram_of(0, v6, 1000, 53), datagram_of(1, v6, 53, 1000));
        let (ask, reply) = if v6 { (128, 129) } else { (8, 0) };
        let number = u16::from(ask) << 8;
        pair.lab.nves[0].apply(&[allow(1, Toward::Out, if v6 { 58 } else { 1 }, number, 13)]);
        pair.lab.nves[1].apply(&[allow(2, Toward::In, if v6 { 58 } else { 1 }, number, 23)]);
        assert_eq!(pair.send(0, &question), End::Arrived);
        assert_eq!(pair.send(0, &echo(0, v6, ask, 9)), End::Arrived);
        let all = pair.connections(0);
        assert_eq!(all.len(), 2, "{all:?}");
        let of = BTreeSet::from([TenantIp::new(ip(0, v6)).unwrap()]);
        let some = pair.lab.nves[0].with(|k| k.connections(vni(7001), Some(&of)).unwrap());
        assert_eq!(some.len(), 2);
        pair.lab.nves[0].with(|k| k.remove_connections(vni(7001), &of).unwrap());
        assert_eq!(pair.send(1, &answer), End::In);
        assert_eq!(pair.send(1, &echo(1, v6, reply, 9)), End::In);
        pair.lab.nves[0].with(|k| k.set_connections(&all).unwrap());
        assert_eq!(pair.connections(0).len(), 2);
        assert_eq!(pair.send(1, &answer), End::Arrived);
        assert_eq!(pair.send(1, &echo(1, v6, reply, 9)), End::Arrived);
        assert_eq!(pair.send(1, &echo(1, v6, reply, 8)), End::Out);
        // What is here already stays.
        let now = pair.connections(0);
        pair.lab.nves[0].with(|k| k.set_connections(&all).unwrap());
        let states = |all: &[Connection]| all.iter().map(|c| c.state).collect::<Vec<_>>();
        assert_eq!(states(&pair.connections(0)), states(&now));
        // But what has changed where it came from: one goes on from there, one has ended there.
        let (kept, gone) = (Connection { state: ConnectionState::Closing, ..all[0] }, all[1]);
        pair.lab.nves[0].with(|k| k.change_connections(&[kept], &[gone]).unwrap());
        assert_eq!(states(&pair.connections(0)), [ConnectionState::Closing]);
        pair.lab.nves[0].with(|k| k.change_connections(&[all[0], gone], &[]).unwrap());
        assert_eq!(states(&pair.connections(0)), states(&all));
        pair.lab.nves[0].with(|k| k.remove_connections(vni(7001), &of).unwrap());
        // Nor does a policy that allows no such thing let them in.
        pair.lab.nves[0].with(|k| k.set_connections(&all).unwrap());
        pair.set(0, policy(9, 1), &[]);
        assert_eq!(pair.send(1, &answer), End::In);
        pair.set(0, policy(1, 1), &[]);
        let tracked = pair.lab.nves[0].with(|k| k.tracked().unwrap());
        assert_eq!((tracked.evicted, tracked.capacity), (0, 1024), "{tracked:?}");
        pair.lab.nves[0].with(|k| k.remove_connections(vni(7001), &of).unwrap());
    }
}

/// After a silence that is long enough for its protocol and state.
#[test]
fn what_has_ended_is_as_none() {
    let mut pair = Pair::new(VETH);
    pair.set(
        0,
        policy(1, 1),
        &[Op::SetRule(key(1, Toward::In, 250, Ports::ALL), Allow { rule: 1, log: false })],
    );
    let [here, there] = [0, 1].map(|i| ip(i, false));
    let of = BTreeSet::from([TenantIp::new(here).unwrap()]);
    let states = [
        ConnectionState::Opening,
        ConnectionState::Established,
        ConnectionState::Closing,
        ConnectionState::Reset,
    ];
    for (protocol, state, kept) in [
        (6, 0, 60),
        (6, 2, 30),
        (6, 3, 300),
        (17, 0, 60),
        (17, 1, 180),
        (47, 0, 120),
        (47, 1, 120),
        (1, 0, 30),
    ] {
        let number = if protocol == 1 { 8 << 8 } else { 80 };
        let (local_port, remote_port) = if protocol == 47 { (0, 0) } else { (9, number) };
        for (idle, end) in [(kept - 20, End::Arrived), (kept + 1, End::In)] {
            let connection = Connection {
                vni: vni(7001),
                local: here,
                remote: there,
                protocol,
                local_port,
                remote_port,
                opened: Toward::Out,
                state: states[state],
                rule: 1,
                idle: std::time::Duration::from_secs(idle),
            };
            pair.lab.nves[0].with(|k| k.set_connections(&[connection]).unwrap());
            assert_eq!(pair.connections(0).len(), usize::from(end == End::Arrived));
            // Under another policy it would be looked up again: this one has let it through.
            pair.lab.nves[0].apply(&[allow(
                1,
                Toward::Out,
                protocol,
                if protocol == 47 { 0 } else { number },
                1,
            )]);
            let frame = match protocol {
                6 => segment(1, false, 80, 9, ACK),
                17 => datagram_of(1, false, 80, 9),
                1 => echo(1, false, 0, 9),
                other => packet(1, false, other, &[0; 26]),
            };
            assert_eq!(pair.send(1, &frame), end, "{connection:?}");
            pair.lab.nves[0].with(|k| k.remove_connections(vni(7001), &of).unwrap());
        }
    }
}

#[test]
fn what_does_not_fit_makes_room() {
    let mut pair = Pair::new(VETH);
    pair.set(
        0,
        policy(1, 1),
        &[Op::SetRule(key(1, Toward::Out, 17, Ports::ALL), Allow { rule: 5, log: false })],
    );
    for port in 1..=3_000 {
        pair.wires[0].send(&datagram_of(0, port % 2 == 0, 1_000 + port, 9));
        pair.keep_up(port, Reason::Encapsulated, 0);
    }
    let tracked = pair.lab.nves[0].with(|k| k.tracked().unwrap());
    assert!(tracked.entries <= 1_024 && tracked.entries > 256, "{tracked:?}");
    let ports: BTreeSet<u16> = pair.connections(0).iter().map(|c| c.local_port).collect();
    assert!((3_901..=4_000).all(|port| ports.contains(&port)), "the latest: {ports:?}");
    assert!((1_001..=1_100).all(|port| !ports.contains(&port)), "the oldest: {ports:?}");
    assert_eq!(tracked.entries + tracked.evicted, 3_000, "{tracked:?}");
    assert_eq!(pair.lab.nves[0].with(|k| k.rule_counters().unwrap())[0].1, 3_000);
    let of = BTreeSet::from([false, true].map(|v6| TenantIp::new(ip(0, v6)).unwrap()));
    pair.lab.nves[0].with(|k| k.remove_connections(vni(7001), &of).unwrap());
    let after = pair.lab.nves[0].with(|k| k.tracked().unwrap());
    assert_eq!((after.entries, after.evicted), (0, tracked.evicted));
}

/// Whoever says that an idle connection is reset may be nobody: it goes on if its ends do (RFC 5961).
fn a_reset_that_nobody_takes_ends_nothing(pair: &mut Pair) {
    let_names_through(pair);
    for v6 in [false, true] {
        let here = |flags| segment(0, v6, 3000, 80, flags);
        let there = |flags| segment(1, v6, 80, 3000, flags);
        for (i, flags) in [(0, SYN), (1, SYN | ACK), (0, ACK)] {
            pair.send(i, &if i == 0 { here(flags) } else { there(flags) });
        }
        for nve in [0, 1] {
            let opened = if nve == 0 { Toward::Out } else { Toward::In };
            assert_eq!(pair.state(nve), Some((opened, ConnectionState::Established)));
        }
        for (first, next) in
            [(there(RST), here(ACK)), (here(RST | ACK), there(ACK)), (there(RST), there(ACK))]
        {
            let from = |frame: &[u8]| usize::from(frame[11] == MACS[1][5]);
            assert_eq!(pair.send(from(&first), &first), End::Arrived);
            assert_eq!(pair.state(0), Some((Toward::Out, ConnectionState::Reset)));
            assert_eq!(pair.send(from(&next), &next), End::Arrived);
            assert_eq!(pair.state(0), Some((Toward::Out, ConnectionState::Established)));
            assert_eq!(pair.state(1), Some((Toward::In, ConnectionState::Established)));
        }
        // The same ports once more, of which nobody may begin the other way round.
        assert_eq!(pair.send(1, &there(RST)), End::Arrived);
        assert_eq!(pair.send(1, &there(SYN)), End::Out);
        assert_eq!(pair.send(0, &here(SYN)), End::Arrived);
        assert_eq!(pair.state(0), Some((Toward::Out, ConnectionState::Opening)));
        pair.forget(v6);
    }
}

/// One tenant system that opens connections to nobody takes no room of others, nor of those that it opens to somebody.
#[test]
fn who_floods_takes_no_room_of_others() {
    let few = || OpenOptions { unanswered: 64, ..common::options() };
    let mut pair = Pair::of(VETH, Lab::of(2, &few));
    let_names_through(&mut pair);
    pair.set(
        0,
        policy(1, 1),
        &[Op::SetRule(key(1, Toward::Out, 17, Ports::ALL), Allow { rule: 5, log: false })],
    );
    for port in 301..=500 {
        let v6 = port % 2 == 0;
        assert_eq!(pair.send(0, &datagram_of(0, v6, port, 53)), End::Arrived);
        assert_eq!(pair.send(1, &datagram_of(1, v6, 53, port)), End::Arrived);
    }
    let tracked = |pair: &mut Pair| pair.lab.nves[0].with(|k| k.tracked().unwrap());
    let before = tracked(&mut pair);
    assert_eq!((before.entries, before.evicted, before.unfollowed), (200, 0, 0));
    let sent = pair.lab.nves[0].count(Reason::Encapsulated);
    for port in 1..=2_000 {
        pair.wires[0].send(&datagram_of(0, port % 2 == 0, 1_000 + port, 9));
        pair.keep_up(port, Reason::Encapsulated, sent);
    }
    // None is refused for that: what answers would be.
    let after = tracked(&mut pair);
    assert_eq!((after.entries + after.unfollowed, after.evicted), (2_200, 0), "{after:?}");
    assert!((264..400).contains(&after.entries), "{after:?}");
    for port in 301..=500 {
        assert_eq!(pair.send(1, &datagram_of(1, port % 2 == 0, 53, port)), End::Arrived);
    }
    // It is told apart from the others: another one opens what it likes.
    let tracked = pair.lab.nves[1].with(|k| k.tracked().unwrap());
    assert_eq!((tracked.entries, tracked.unfollowed), (200, 0), "of what was refused nothing is known");
}

/// What others open to it and it answers nothing to takes nothing of what it opens itself.
#[test]
fn who_is_flooded_opens_what_it_likes() {
    let few = || OpenOptions { unanswered: 64, ..common::options() };
    let mut pair = Pair::of(VETH, Lab::of(2, &few));
    let everything = Op::SetRule(key(2, Toward::In, 17, Ports::ALL), Allow { rule: 6, log: false });
    pair.set(1, policy(2, 1), &[everything, allow(2, Toward::Out, 17, 53, 7)]);
    for port in 1..=300 {
        let v6 = port % 2 == 0;
        assert_eq!(pair.send(0, &datagram_of(0, v6, 1_000 + port, 9)), End::Arrived);
    }
    let tracked = pair.lab.nves[1].with(|k| k.tracked().unwrap());
    assert!(tracked.unfollowed > 100, "{tracked:?}");
    // What it is answered no rule of its own lets in: those that do are for nobody.
    let from_nobody = RuleKey { class: FIRST, ..key(2, Toward::In, 17, Ports::ALL) };
    let rules = [Op::RemoveRule(key(2, Toward::In, 17, Ports::ALL))];
    let rules = [&rules[..], &[Op::SetRule(from_nobody, Allow { rule: 6, log: false })]].concat();
    pair.set(1, policy(2, 2), &rules);
    for port in 1..=30 {
        let v6 = port % 2 == 0;
        assert_eq!(pair.send(1, &datagram_of(1, v6, 2_000 + port, 53)), End::Arrived);
        assert_eq!(pair.send(0, &datagram_of(0, v6, 53, 2_000 + port)), End::Arrived);
    }
}

/// What was let through for a tenant system is not for whoever has its address next, however soon that is.
#[test]
fn connections_end_with_their_tenant_system() {
    let mut pair = Pair::new(VETH);
    let_names_through(&mut pair);
    let device = pair.lab.tss[0].device;
    for v6 in [false, true] {
        let (question, answer) = (datagram_of(0, v6, 1000, 53), datagram_of(1, v6, 53, 1000));
        let open = |pair: &mut Pair| {
            assert_eq!(pair.send(0, &question), End::Arrived);
            assert_eq!(pair.send(1, &answer), End::Arrived);
        };
        let of = BTreeSet::from([TenantIp::new(ip(0, v6)).unwrap()]);
        open(&mut pair);
        let all = pair.connections(0);
        // Its time here ends, and begins anew.
        let reader = pair.lab.nves[0].with(|k| k.connection_reader(vni(7001), Some(&of)).unwrap());
        pair.lab.nves[0].with(|k| k.end_connections(vni(7001), &of).unwrap());
        assert_eq!(pair.connections(0), []);
        assert_eq!(reader.read().unwrap().len(), 1, "as it was when that was made");
        assert_eq!(pair.send(1, &answer), End::In);
        assert_eq!(pair.send(1, &error_about(1, v6, &question)), End::In, "nor what belongs to it");
        // What is left of it keeps out nothing that comes along.
        pair.lab.nves[0].with(|k| k.set_connections(&all).unwrap());
        assert_eq!(pair.connections(0).len(), 1);
        assert_eq!(pair.send(1, &answer), End::Arrived);
        // Its device goes, and is back: what is its own may be read meanwhile.
        open(&mut pair);
        let vap = pair.vap(0, policy(1, 1));
        pair.lab.nves[0].apply(&[Op::RemoveVap(device)]);
        let reader = pair.lab.nves[0].with(|k| k.connection_reader(vni(7001), Some(&of)).unwrap());
        assert_eq!(reader.read().unwrap().len(), 1);
        pair.lab.nves[0].apply(std::slice::from_ref(&vap));
        assert_eq!(pair.connections(0).len(), 1);
        assert_eq!(pair.send(1, &answer), End::Arrived);
        // Another one at the same device with the same addresses; an agent that ends in between changes nothing.
        for ends in [v6, false] {
            open(&mut pair);
            pair.lab.nves[0].apply(&[Op::RemoveVap(device)]);
            if ends {
                (pair.lab.nves[0].kernel, pair.lab.nves[0].punts) = (None, None);
                pair.lab.nves[0].open();
            } else {
                pair.lab.nves[0].with(|k| k.end_connections(vni(7001), &of).unwrap());
            }
            pair.lab.nves[0].apply(std::slice::from_ref(&vap));
            assert_eq!(pair.connections(0), []);
            assert_eq!(pair.send(1, &answer), End::In);
            open(&mut pair);
            // One that it brings along before its VAP is there counts.
            pair.lab.nves[0].apply(&[Op::RemoveVap(device)]);
            pair.lab.nves[0].with(|k| k.set_connections(&all).unwrap());
            pair.lab.nves[0].apply(std::slice::from_ref(&vap));
            assert_eq!(pair.connections(0).len(), 1);
            assert_eq!(pair.send(1, &answer), End::Arrived);
        }
        // The same VAP goes on where only the agent is another.
        if !v6 {
            (pair.lab.nves[0].kernel, pair.lab.nves[0].punts) = (None, None);
            pair.lab.nves[0].open();
        }
        assert_eq!(pair.send(1, &answer), End::Arrived);
        pair.forget(v6);
    }
}

/// Rules look at the address a packet is for; its way is that of its MAC address. Where it is known here whose the address
/// is, it goes to that one or nowhere.
fn a_packet_for_one_does_not_go_to_another(pair: &mut Pair) {
    let_names_through(pair);
    pair.set(1, None, &[]);
    for v6 in [false, true] {
        let third = TenantIp::new(common::ts_ips(3)[usize::from(v6)].get()).unwrap();
        let to_third = |port| between(0, ip(0, v6), third.get(), 17, &udp(1000, port, &[7; 26]));
        // It goes by the MAC address of the second one. Nobody here knows whose the address is.
        assert_eq!(pair.send(0, &to_third(53)), End::Arrived);
        let others = Neighbour::At(MacAddr([2, 0, 0, 0, 0, 3]));
        pair.lab.nves[0].apply(&[Op::SetNeighbour(vni(7001), third, others)]);
        assert_eq!(pair.send(0, &to_third(53)), End::Out, "nor does what is open go on");
        pair.lab.nves[0].apply(&[Op::SetNeighbour(vni(7001), third, Neighbour::Nobody)]);
        assert_eq!(pair.send(0, &to_third(53)), End::Arrived);
        let second = TenantIp::new(ip(1, v6)).unwrap();
        let its = Neighbour::At(MacAddr(MACS[1]));
        pair.lab.nves[0].apply(&[Op::SetNeighbour(vni(7001), third, its)]);
        pair.lab.nves[0].apply(&[Op::SetNeighbour(vni(7001), second, its)]);
        for _ in 0..2 {
            assert_eq!(pair.send(0, &to_third(53)), End::Arrived);
            assert_eq!(pair.send(0, &datagram_of(0, v6, 1000, 53)), End::Arrived);
        }
        // Of an open connection, whose packets went to the right one before, too.
        let mut astray = datagram_of(0, v6, 1000, 53);
        astray[5] = 3;
        let wrong = pair.lab.nves[0].count(Reason::WrongMac);
        assert_eq!(pair.send(0, &astray), End::Out);
        assert_eq!(pair.lab.nves[0].count(Reason::WrongMac), wrong + 1);
        assert_eq!(pair.send(0, &datagram_of(0, v6, 1000, 53)), End::Arrived);
        // Whose the address is is asked again when policy has changed.
        pair.lab.nves[0].apply(&[Op::SetNeighbour(vni(7001), second, others)]);
        pair.set(0, policy(1, 2), &[]);
        assert_eq!(pair.send(0, &datagram_of(0, v6, 1000, 53)), End::Out);
        assert_eq!(pair.lab.nves[0].count(Reason::WrongMac), wrong + 2);
        pair.lab.nves[0].apply(&[Op::SetNeighbour(vni(7001), second, its)]);
        pair.set(0, policy(1, 1), &[]);
        pair.forget(v6);
    }
}

/// An ICMP error goes to the other end of the connection that it is about: it is no way to anybody else.
fn errors_go_to_the_other_end_alone(pair: &mut Pair) {
    let_names_through(pair);
    pair.set(1, None, &[]);
    for v6 in [false, true] {
        assert_eq!(pair.send(0, &datagram_of(0, v6, 1000, 53)), End::Arrived);
        let answer = datagram_of(1, v6, 53, 1000);
        let (kind, protocol, header) = if v6 { ([1, 4], 58, 40) } else { ([3, 3], 1, 20) };
        let message = [&kind[..], &[0; 6], &answer[14..14 + header + 8]].concat();
        assert_eq!(pair.send(0, &packet(0, v6, protocol, &message)), End::Arrived);
        let third = common::ts_ips(3)[usize::from(v6)].get();
        assert_eq!(pair.send(0, &between(0, ip(0, v6), third, protocol, &message)), End::Out);
        pair.forget(v6);
    }
}

/// A frame that had to wait is sent on by the agent: its rule has counted it.
fn what_had_to_wait_is_counted_once(pair: &mut Pair) {
    let_names_through(pair);
    let device = pair.lab.tss[0].device;
    for v6 in [false, true] {
        let question = datagram_of(0, v6, 1000, 53);
        assert_eq!(pair.send(0, &question), End::Arrived);
        let before = [0, 1].map(|nve: usize| pair.lab.nves[nve].with(|k| k.rule_counters().unwrap())[0].1);
        let sent = pair.lab.nves[0].with(|k| k.resend(device, &question).unwrap());
        assert_eq!(sent, Reason::Encapsulated);
        wait_for("the frame", || {
            let there = pair.lab.nves[1].with(|k| k.rule_counters().unwrap())[0].1;
            (there == before[1] + 1).then_some(())
        });
        assert_eq!(pair.lab.nves[0].with(|k| k.rule_counters().unwrap())[0].1, before[0]);
        pair.forget(v6);
    }
}

/// ICMPv6 errors quote packets as they were, extension headers and all.
fn errors_about_packets_with_extension_headers_belong_to_them(pair: &mut Pair) {
    let_names_through(pair);
    let options = [17, 0, 1, 4, 0, 0, 0, 0];
    let quoting = |port| {
        let data = udp(1000, port, &[7; 26]);
        let sent = packet(0, true, 60, &[&options[..], &data].concat());
        let message = [&[1, 4, 0, 0, 0, 0, 0, 0], &sent[14..14 + 40 + 8 + 8]].concat();
        (sent, packet(1, true, 58, &message))
    };
    let (sent, error) = quoting(53);
    assert_eq!(pair.send(1, &error), End::Out, "before there is one");
    assert_eq!(pair.send(0, &sent), End::Arrived);
    assert_eq!(pair.send(1, &error), End::Arrived);
    assert_eq!(pair.send(1, &quoting(54).1), End::Out);
}

#[test]
fn one_after_the_other() {
    let mut pair = Pair::new(VETH);
    a_reset_that_nobody_takes_ends_nothing(&mut pair);
    what_had_to_wait_is_counted_once(&mut pair);
    errors_about_packets_with_extension_headers_belong_to_them(&mut pair);
    a_packet_for_one_does_not_go_to_another(&mut pair);
    errors_go_to_the_other_end_alone(&mut pair);
}
