//! What policies let through and refuse, with real frames: both ends of a connection, both paths, both families.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

mod common;

use common::{How, Lab, frames::*, ts_ips, vni, wait_for};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};
use weft_datapath::{
    Allow, ClassId, Connection, ConnectionState, Datapath as _, Direction, Op, Path, Policy, PolicyId, Ports,
    Prefix, PuntReason, Reason, RuleKey, Toward, Vap, VapKind,
};
use weft_model::{Bum, Learning};

const MACS: [Mac; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
const VETH: How = How { kind: VapKind::Veth, path: Path::Direct, v6: false };

/// The class of tenant system 1's addresses.
const FIRST: ClassId = ClassId(7);

fn policy(id: u32, generation: u32) -> Option<Policy> {
    Some(Policy { id: PolicyId::new(id).unwrap(), generation, log_refused: false })
}

fn key(policy: u32, toward: Toward, protocol: u8, ports: Ports) -> RuleKey {
    let policy = PolicyId::new(policy).unwrap();
    RuleKey { policy, toward, class: ClassId::ANYBODY, protocol: Some(protocol), ports }
}

fn allow(policy: u32, toward: Toward, protocol: u8, port: u16, rule: u32) -> Op {
    Op::SetRule(key(policy, toward, protocol, Ports::one(port)), Allow { rule, log: false })
}

/// Tenant system 1 at NVE 0 and 2 at NVE 1; their own stacks are silent.
struct Pair {
    lab: Lab,
    wires: [Wire; 2],
    how: How,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Arrived,
    /// Refused where it was sent.
    Out,
    /// Refused where it was to arrive.
    In,
}

impl Pair {
    fn new(how: How) -> Self {
        let mut lab = Lab::new();
        lab.attach(0, 1, how);
        lab.attach(1, 2, how);
        for ts in &lab.tss {
            ts.silence();
        }
        let wires = [0, 1].map(|i| Wire::new(&lab.tss[i].ns, "eth0"));
        Self { lab, wires, how }
    }

    fn vap(&self, i: usize, policy: Option<Policy>) -> Op {
        let n = self.lab.tss[i].n;
        Op::SetVap(self.lab.tss[i].device, Vap { policy, ..Lab::vap(n, self.how) })
    }

    fn set(&mut self, i: usize, policy: Option<Policy>, ops: &[Op]) {
        let vap = self.vap(i, policy);
        self.lab.nves[i].apply(ops);
        self.lab.nves[i].apply(&[vap]);
    }

    fn counts(&mut self) -> Vec<u64> {
        let mut of = |nve: usize, reason, direction| {
            let counters = self.lab.nves[nve].counters().into_iter();
            let of = counters.filter(|c| c.reason == reason && c.direction == direction);
            of.map(|c| c.packets).sum::<u64>()
        };
        let delivered = of(0, Reason::Delivered, Direction::In) + of(1, Reason::Delivered, Direction::In);
        let denied = |of: &mut dyn FnMut(usize, Reason, Direction) -> u64, direction| {
            of(0, Reason::Denied, direction) + of(1, Reason::Denied, direction)
        };
        vec![delivered, denied(&mut of, Direction::Out), denied(&mut of, Direction::In)]
    }

    /// Sends a frame from tenant system `i` + 1; what became of it, by what is counted.
    fn send(&mut self, i: usize, frame: &[u8]) -> End {
        let before = self.counts();
        self.wires[i].send(frame);
        let after = wait_for("an end of the frame", || Some(self.counts()).filter(|after| *after != before));
        let grown: Vec<u64> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
        match grown[..] {
            [1, 0, 0] => End::Arrived,
            [0, 1, 0] => End::Out,
            [0, 0, 1] => End::In,
            _ => panic!("{grown:?}\n{}", self.lab.dump()),
        }
    }

    /// Waits now and then for the `sent` frames and those `before` them: a device holds 1,000 back at most.
    fn keep_up(&mut self, sent: u16, reason: Reason, before: u64) {
        if sent.is_multiple_of(250) {
            let all = u64::from(sent) + before;
            wait_for("all of them", || (self.lab.nves[0].count(reason) == all).then_some(()));
        }
    }

    fn connections(&mut self, nve: usize) -> Vec<Connection> {
        self.lab.nves[nve].with(|k| k.connections(vni(7001), None).unwrap())
    }

    fn state(&mut self, nve: usize) -> Option<(Toward, ConnectionState)> {
        match self.connections(nve)[..] {
            [] => None,
            [c] => Some((c.opened, c.state)),
            ref more => panic!("{more:?}"),
        }
    }
}

fn ip(i: usize, v6: bool) -> IpAddr {
    ts_ips(u8::try_from(i + 1).unwrap())[usize::from(v6)].get()
}

/// From tenant system `i` + 1 to the other one.
fn packet(i: usize, v6: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
    between(i, ip(i, v6), ip(1 - i, v6), protocol, payload)
}

fn between(i: usize, from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            eth(MACS[1 - i], MACS[i], 0x0800, &ipv4(from, to, protocol, 0, 0, payload))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            eth(MACS[1 - i], MACS[i], 0x86dd, &ipv6(from, to, protocol, 64, 0, payload))
        }
        _ => panic!("{from} and {to}"),
    }
}

fn datagram_of(i: usize, v6: bool, src: u16, dst: u16) -> Vec<u8> {
    packet(i, v6, 17, &udp(src, dst, b"as much as a frame has to have"))
}

fn segment(i: usize, v6: bool, src: u16, dst: u16, flags: u8) -> Vec<u8> {
    let ports = [src.to_be_bytes(), dst.to_be_bytes()].concat();
    packet(i, v6, 6, &[&ports[..], &[0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 9, 9, 0, 0, 0, 0]].concat())
}

const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
const FIN: u8 = 1;

/// An ICMP error about a packet that was received.
fn error_about(i: usize, v6: bool, frame: &[u8]) -> Vec<u8> {
    let quote = &frame[14..(14 + if v6 { 48 } else { 28 })];
    let message = [&[if v6 { 1 } else { 3 }, 3, 0, 0, 0, 0, 0, 0][..], quote].concat();
    packet(i, v6, if v6 { 58 } else { 1 }, &message)
}

fn echo(i: usize, v6: bool, kind: u8, id: u8) -> Vec<u8> {
    packet(i, v6, if v6 { 58 } else { 1 }, &[&[kind, 0, 0, 0, 0, id, 0, 1][..], &[0; 24]].concat())
}

/// Of everybody: the way out of 1 to port 53, and of everything else that 2 may get from 1 alone.
fn let_names_through(pair: &mut Pair) {
    pair.set(0, policy(1, 1), &[allow(1, Toward::Out, 17, 53, 10), allow(1, Toward::Out, 6, 80, 11)]);
    let from_first = RuleKey { class: FIRST, ..key(2, Toward::In, 17, Ports::one(53)) };
    let classes = [false, true].map(|v6| Op::SetClass(vni(7001), Prefix::from(ip(0, v6)), FIRST));
    let rules = [Op::SetRule(from_first, Allow { rule: 20, log: false }), allow(2, Toward::In, 6, 80, 21)];
    pair.set(1, policy(2, 1), &[&classes[..], &rules].concat());
}

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
        let all = BTreeSet::from([0, 1].map(|i| weft_model::TenantIp::new(ip(i, v6)).unwrap()));
        for nve in &mut pair.lab.nves {
            nve.with(|k| k.remove_connections(vni(7001), &all).unwrap());
        }
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
            pair.set(0, policy(1, 2), &[]);
            assert_eq!(
                pair.send(0, &fragment_of(0, v6, 1, 64, false)),
                End::Out,
                "let through by another one"
            );
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
        let of = BTreeSet::from([0, 1].map(|i| weft_model::TenantIp::new(ip(i, v6)).unwrap()));
        for nve in &mut pair.lab.nves {
            nve.with(|k| k.remove_connections(vni(7001), &of).unwrap());
        }
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
        let of = BTreeSet::from([0, 1].map(|i| weft_model::TenantIp::new(ip(i, v6)).unwrap()));
        for nve in &mut pair.lab.nves {
            nve.with(|k| k.remove_connections(vni(7001), &of).unwrap());
        }
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
        let of = BTreeSet::from([weft_model::TenantIp::new(ip(0, v6)).unwrap()]);
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
    let of = BTreeSet::from([weft_model::TenantIp::new(here).unwrap()]);
    let states = [ConnectionState::Opening, ConnectionState::Established, ConnectionState::Closing];
    for (protocol, state, kept) in
        [(6, 0, 60), (6, 2, 30), (17, 0, 60), (17, 1, 180), (47, 0, 120), (47, 1, 120), (1, 0, 30)]
    {
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
    assert_eq!(tracked.entries + tracked.evicted, 3_000, "{tracked:?}");
    assert_eq!(pair.lab.nves[0].with(|k| k.rule_counters().unwrap())[0].1, 3_000);
    let of = BTreeSet::from([false, true].map(|v6| weft_model::TenantIp::new(ip(0, v6)).unwrap()));
    pair.lab.nves[0].with(|k| k.remove_connections(vni(7001), &of).unwrap());
    let after = pair.lab.nves[0].with(|k| k.tracked().unwrap());
    assert_eq!((after.entries, after.evicted), (0, tracked.evicted));
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
    assert_eq!(lab.nves[0].count(Reason::Replicated), 4, "{}", lab.dump());
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
