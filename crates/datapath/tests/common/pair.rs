//! Two tenant systems with policies at two NVEs, what one sends the other, and what becomes of it.

use super::{How, Lab, frames::*, ts_ips, vni, wait_for};
use std::net::IpAddr;
use weft_datapath::{
    Allow, ClassId, Connection, ConnectionState, Datapath as _, Direction, Op, Path, Policy, PolicyId, Ports,
    Prefix, Reason, RuleKey, Toward, Vap, VapKind,
};
use weft_model::TenantIp;

pub const MACS: [Mac; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
pub const VETH: How = How { kind: VapKind::Veth, path: Path::Direct, v6: false };

/// The class of tenant system 1's addresses.
pub const FIRST: ClassId = ClassId(7);

pub fn policy(id: u32, generation: u32) -> Option<Policy> {
    Some(Policy { id: PolicyId::new(id).unwrap(), generation, log_refused: false })
}

pub fn key(policy: u32, toward: Toward, protocol: u8, ports: Ports) -> RuleKey {
    let policy = PolicyId::new(policy).unwrap();
    RuleKey { policy, toward, class: ClassId::ANYBODY, protocol: Some(protocol), ports }
}

pub fn allow(policy: u32, toward: Toward, protocol: u8, port: u16, rule: u32) -> Op {
    Op::SetRule(key(policy, toward, protocol, Ports::one(port)), Allow { rule, log: false })
}

/// Tenant system 1 at NVE 0 and 2 at NVE 1; their own stacks are silent.
pub struct Pair {
    pub lab: Lab,
    pub wires: [Wire; 2],
    pub how: How,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Arrived,
    /// Refused where it was sent.
    Out,
    /// Refused where it was to arrive.
    In,
}

impl Pair {
    pub fn new(how: How) -> Self {
        Self::of(how, Lab::new())
    }

    /// In a lab without tenant systems.
    pub fn of(how: How, mut lab: Lab) -> Self {
        lab.attach(0, 1, how);
        lab.attach(1, 2, how);
        for ts in &lab.tss {
            ts.silence();
        }
        let wires = [0, 1].map(|i| Wire::new(&lab.tss[i].ns, "eth0"));
        Self { lab, wires, how }
    }

    pub fn vap(&self, i: usize, policy: Option<Policy>) -> Op {
        let n = self.lab.tss[i].n;
        Op::SetVap(self.lab.tss[i].device, Vap { policy, ..Lab::vap(n, self.how) })
    }

    pub fn set(&mut self, i: usize, policy: Option<Policy>, ops: &[Op]) {
        let vap = self.vap(i, policy);
        self.lab.nves[i].apply(ops);
        self.lab.nves[i].apply(&[vap]);
    }

    pub fn counts(&mut self) -> Vec<u64> {
        let mut of = |nve: usize, reason, direction| {
            let counters = self.lab.nves[nve].counters().into_iter();
            let of = counters.filter(|c| c.reason == reason && c.direction == direction);
            of.map(|c| c.packets).sum::<u64>()
        };
        let delivered = of(0, Reason::Delivered, Direction::In) + of(1, Reason::Delivered, Direction::In);
        let denied = |of: &mut dyn FnMut(usize, Reason, Direction) -> u64, direction| {
            let each = [Reason::Denied, Reason::WrongMac];
            each.map(|reason| of(0, reason, direction) + of(1, reason, direction)).iter().sum::<u64>()
        };
        vec![delivered, denied(&mut of, Direction::Out), denied(&mut of, Direction::In)]
    }

    /// Sends a frame from tenant system `i` + 1; what became of it, by what is counted.
    pub fn send(&mut self, i: usize, frame: &[u8]) -> End {
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
    pub fn keep_up(&mut self, sent: u16, reason: Reason, before: u64) {
        if sent.is_multiple_of(250) {
            let all = u64::from(sent) + before;
            wait_for("all of them", || (self.lab.nves[0].count(reason) == all).then_some(()));
        }
    }

    /// Both NVEs forget all connections of one family.
    pub fn forget(&mut self, v6: bool) {
        let of = [0, 1].map(|i| TenantIp::new(ip(i, v6)).unwrap()).into();
        for nve in &mut self.lab.nves {
            nve.with(|k| k.remove_connections(vni(7001), &of).unwrap());
        }
    }

    pub fn connections(&mut self, nve: usize) -> Vec<Connection> {
        self.lab.nves[nve].with(|k| k.connections(vni(7001), None).unwrap())
    }

    pub fn state(&mut self, nve: usize) -> Option<(Toward, ConnectionState)> {
        match self.connections(nve)[..] {
            [] => None,
            [c] => Some((c.opened, c.state)),
            ref more => panic!("{more:?}"),
        }
    }
}

pub fn ip(i: usize, v6: bool) -> IpAddr {
    ts_ips(u8::try_from(i + 1).unwrap())[usize::from(v6)].get()
}

/// From tenant system `i` + 1 to the other one.
pub fn packet(i: usize, v6: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
    between(i, ip(i, v6), ip(1 - i, v6), protocol, payload)
}

pub fn between(i: usize, from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
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

pub fn datagram_of(i: usize, v6: bool, src: u16, dst: u16) -> Vec<u8> {
    packet(i, v6, 17, &udp(src, dst, b"as much as a frame has to have"))
}

pub fn segment(i: usize, v6: bool, src: u16, dst: u16, flags: u8) -> Vec<u8> {
    let ports = [src.to_be_bytes(), dst.to_be_bytes()].concat();
    packet(i, v6, 6, &[&ports[..], &[0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 9, 9, 0, 0, 0, 0]].concat())
}

pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;
pub const FIN: u8 = 1;

/// An ICMP error about a packet that was received.
pub fn error_about(i: usize, v6: bool, frame: &[u8]) -> Vec<u8> {
    let quote = &frame[14..(14 + if v6 { 48 } else { 28 })];
    let message = [&[if v6 { 1 } else { 3 }, 3, 0, 0, 0, 0, 0, 0][..], quote].concat();
    packet(i, v6, if v6 { 58 } else { 1 }, &message)
}

pub fn echo(i: usize, v6: bool, kind: u8, id: u8) -> Vec<u8> {
    packet(i, v6, if v6 { 58 } else { 1 }, &[&[kind, 0, 0, 0, 0, id, 0, 1][..], &[0; 24]].concat())
}

/// Of everybody: the way out of 1 to port 53, and of everything else that 2 may get from 1 alone.
pub fn let_names_through(pair: &mut Pair) {
    pair.set(0, policy(1, 1), &[allow(1, Toward::Out, 17, 53, 10), allow(1, Toward::Out, 6, 80, 11)]);
    let from_first = RuleKey { class: FIRST, ..key(2, Toward::In, 17, Ports::one(53)) };
    let classes = [false, true].map(|v6| Op::SetClass(vni(7001), Prefix::from(ip(0, v6)), FIRST));
    let rules = [Op::SetRule(from_first, Allow { rule: 20, log: false }), allow(2, Toward::In, 6, 80, 21)];
    pair.set(1, policy(2, 1), &[&classes[..], &rules].concat());
}
