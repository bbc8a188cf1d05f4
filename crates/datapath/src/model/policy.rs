//! Access policy: what VAPs with one may send and receive.

use super::bytes::mac;
use super::connections::{Ends, Packet};
use super::packet::{ACK, FIN, Kind, RST, Read, SYN, TCP, quoted, read};
use super::{Learned, Lesson};
use crate::{
    Allow, ClassId, Connection, ConnectionState as State, Neighbour, Policy, Ports, PuntReason, Reason,
    RuleKey, Tables, Toward, Vap,
};
use core::{net::IpAddr, time::Duration};
use weft_model::{Learning, MacAddr, TenantIp, Vni};

/// What a policy makes of a frame.
#[derive(Default)]
pub(super) struct Checked {
    pub(super) refused: Option<Reason>,
    /// What let it through.
    pub(super) rule: Option<u32>,
    pub(super) lessons: Vec<Lesson>,
    pub(super) logged: Option<PuntReason>,
    /// It is about a connection, and of none itself.
    related: bool,
}

fn class(tables: &Tables, vni: Vni, ip: IpAddr) -> ClassId {
    let of_vn = tables.classes.iter().filter(|((of, prefix), _)| *of == vni && prefix.contains(ip));
    of_vn.max_by_key(|((_, prefix), _)| prefix.bits()).map_or(ClassId::ANYBODY, |(_, class)| *class)
}

/// The rule that lets the first packet of a connection through: rules of the class come before those of everybody, of
/// the protocol before those of every one, of fewer ports before those of more.
fn rule(tables: &Tables, policy: Policy, toward: Toward, ends: &Ends, number: u16) -> Option<Allow> {
    let class = class(tables, ends.vni, ends.remote);
    let of_class = (class != ClassId::ANYBODY).then_some(class);
    for class in of_class.into_iter().chain([ClassId::ANYBODY]) {
        for protocol in [Some(ends.protocol), None] {
            let longest = (0..=16).rev().filter_map(|bits| Ports::new(number, bits).ok()).find_map(|ports| {
                tables.rules.get(&RuleKey { policy: policy.id, toward, class, protocol, ports })
            });
            if longest.is_some() {
                return longest.copied();
            }
        }
    }
    None
}

/// The number by which rules know the first packet of a connection.
fn opened_to(connection: &Connection) -> u16 {
    match connection.opened {
        Toward::Out => connection.remote_port,
        Toward::In => connection.local_port,
    }
}

/// Whether a packet begins a connection anew where there is one.
fn begins(connection: &Connection, packet: &Read, toward: Toward) -> bool {
    let forth = connection.opened == toward;
    match packet.ports.kind {
        Kind::Question => !forth,
        Kind::Answer => forth,
        _ if packet.ends.protocol == TCP && packet.ports.flags & (SYN | ACK) == SYN => {
            matches!(connection.state, State::Closing | State::Reset)
                || !forth && connection.state != State::Opening
        }
        _ => false,
    }
}

fn next_state(connection: &Connection, packet: &Read, toward: Toward) -> State {
    let (state, forth) = (connection.state, connection.opened == toward);
    let flags = packet.ports.flags;
    if packet.ends.protocol != TCP {
        return if forth { state } else { State::Established };
    }
    if flags & RST != 0 {
        return if matches!(state, State::Established | State::Reset) {
            State::Reset
        } else {
            State::Closing
        };
    }
    let state = match (state, forth, flags & SYN != 0) {
        (State::Reset, ..) => State::Established,
        (State::Opening, false, true) => State::Answered,
        (State::Opening, false, false) | (State::Answered, true, false) => State::Established,
        _ => state,
    };
    let end = if toward == Toward::Out { State::EndedHere } else { State::EndedThere };
    match state {
        State::Opening | State::Answered => state,
        _ if flags & FIN == 0 => state,
        State::Established => end,
        state if state == end => end,
        _ => State::Closing,
    }
}

/// The rule of the connection that an ICMP error is about, if the policy lets it through.
fn related(tables: &Tables, learned: &Learned, policy: Policy, ends: &Ends) -> Option<u32> {
    let (connection, under) = learned.connections.find(ends)?;
    if under == Some((policy.id, policy.generation)) {
        return Some(connection.rule);
    }
    rule(tables, policy, connection.opened, ends, opened_to(&connection)).map(|allow| allow.rule)
}

/// What the policy of a VAP makes of a frame without a tunnel header that goes `toward` it or from it.
pub(super) fn check(tables: &Tables, learned: &Learned, vap: &Vap, toward: Toward, frame: &[u8]) -> Checked {
    let Some(policy) = vap.policy else { return Checked::default() };
    let packet = match read(vap.vni, frame, toward) {
        Ok(packet) => packet,
        Err(true) => return Checked::default(),
        Err(false) => return refused(policy, toward),
    };
    if toward == Toward::Out && goes_astray(tables, vap, packet.ends.remote, frame) {
        return Checked { refused: Some(Reason::WrongMac), ..refused(policy, toward) };
    }
    let mut checked = decide(tables, learned, policy, toward, &packet, frame);
    if let Some(part) = packet.packet(toward).filter(|_| !packet.is_later() && !checked.related) {
        checked.lessons.push(Lesson::Fragment { packet: part, rule: checked.rule });
    }
    if checked.refused.is_some() {
        return Checked { lessons: checked.lessons, ..refused(policy, toward) };
    }
    checked
}

/// Whether a frame from a VAP is for the address of one tenant system and goes to the MAC address of another.
fn goes_astray(tables: &Tables, vap: &Vap, remote: IpAddr, frame: &[u8]) -> bool {
    let learning = tables.vns.get(&vap.vni).map(|vn| vn.learning);
    let Some(to) = mac(frame, 0).filter(|to| !to.is_group()) else { return false };
    if learning == Some(Learning::Translate)
        || learning == Some(Learning::Distribute) && to == MacAddr::anycast(vap.vni)
    {
        return false;
    }
    let owner = TenantIp::new(remote).ok().and_then(|ip| tables.neighbours.get(&(vap.vni, ip)));
    matches!(owner, Some(Neighbour::At(owner)) if *owner != to)
}

fn refused(policy: Policy, toward: Toward) -> Checked {
    let logged = policy.log_refused.then_some(PuntReason::Refused(toward));
    Checked { refused: Some(Reason::Denied), logged, ..Checked::default() }
}

fn decide(
    tables: &Tables,
    learned: &Learned,
    policy: Policy,
    toward: Toward,
    packet: &Read,
    frame: &[u8],
) -> Checked {
    let under = (policy.id, policy.generation);
    let by = |rule: Option<u32>| Checked {
        refused: rule.is_none().then_some(Reason::Denied),
        rule,
        ..Checked::default()
    };
    if packet.is_later() {
        return by(packet.packet(toward).and_then(|part| learned.connections.packet(&part)));
    }
    if let Kind::Error(at) = packet.ports.kind {
        let ends = quoted(packet, frame, at, toward);
        let found = ends.and_then(|ends| related(tables, learned, policy, &ends));
        if found.is_some() {
            return Checked { related: true, ..by(found) };
        }
    }
    let let_through = |connection, rule| Checked {
        rule: Some(rule),
        lessons: vec![Lesson::Let { connection, policy: policy.id, generation: policy.generation }],
        ..Checked::default()
    };
    // What is for any other address can belong to no tenant system's connection.
    let tenants = TenantIp::new(packet.ends.local).is_ok();
    let tracked = tenants && matches!(packet.ports.kind, Kind::Plain | Kind::Question | Kind::Answer);
    let known = learned.connections.find(&packet.ends).filter(|_| tracked);
    if let Some((connection, was)) = known.filter(|(connection, _)| !begins(connection, packet, toward)) {
        let state = next_state(&connection, packet, toward);
        if was == Some(under) {
            return let_through(Connection { state, ..connection }, connection.rule);
        }
        let found = rule(tables, policy, connection.opened, &packet.ends, opened_to(&connection));
        return match found {
            Some(Allow { rule, .. }) => let_through(Connection { state, rule, ..connection }, rule),
            None => Checked { lessons: vec![Lesson::Ended(connection)], ..by(None) },
        };
    }
    let Some(allow) = rule(tables, policy, toward, &packet.ends, packet.ports.number) else {
        return by(None);
    };
    let logged = allow.log.then_some(PuntReason::Allowed(allow.rule, toward));
    if !tracked || packet.ports.kind == Kind::Answer {
        return Checked { logged, ..by(Some(allow.rule)) };
    }
    let Ends { vni, local, remote, protocol, local_port, remote_port } = packet.ends;
    let closing = protocol == TCP && packet.ports.flags & (FIN | RST) != 0;
    let connection = Connection {
        vni,
        local,
        remote,
        protocol,
        local_port,
        remote_port,
        opened: toward,
        state: if closing { State::Closing } else { State::Opening },
        rule: allow.rule,
        idle: Duration::ZERO,
    };
    Checked { logged, ..let_through(connection, allow.rule) }
}

/// What the policy of a VAP makes of its copy of a frame for many: by its rules alone, no connection is remembered.
pub(super) fn check_copy(tables: &Tables, learned: &Learned, vap: &Vap, frame: &[u8]) -> Checked {
    let Some(policy) = vap.policy else { return Checked::default() };
    let packet = match read(vap.vni, frame, Toward::In) {
        Ok(packet) => packet,
        Err(true) => return Checked::default(),
        Err(false) => return refused(policy, Toward::In),
    };
    let part = packet.packet(Toward::In).map(|part| Packet { policy: Some(policy.id), ..part });
    let mut checked = refused(policy, Toward::In);
    let found = if packet.is_later() {
        part.and_then(|part| learned.connections.packet(&part))
    } else {
        rule(tables, policy, Toward::In, &packet.ends, packet.ports.number).map(|allow| allow.rule)
    };
    if found.is_some() {
        checked = Checked { rule: found, ..Checked::default() };
    }
    let first = part.filter(|_| !packet.is_later());
    checked.lessons.extend(first.map(|packet| Lesson::Fragment { packet, rule: found }));
    checked
}

#[cfg(test)]
mod tests {
    use crate::{
        Allow, ClassId, Datapath as _, IfIndex, Ingress, Location, Model, Op, Path, Policy, PolicyId, Ports,
        Reason, RuleKey, Toward, Vap, VapKind,
    };
    use weft_model::{MacAddr, Time, TsMac, Vni};

    /// A segment or datagram from tenant system `from` to the other one of 1 and 2.
    fn frame(from: u8, protocol: u8, (src, dst): (u16, u16), flags: u8) -> Vec<u8> {
        let mut f =
            [&[2, 0, 0, 0, 0, 3 - from][..], &[2, 0, 0, 0, 0, from], &[8, 0, 0x45, 0, 0, 40]].concat();
        f.extend([0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, from, 10, 0, 0, 3 - from]);
        f.extend([src.to_be_bytes(), dst.to_be_bytes()].concat());
        f.extend([0; 9]);
        f.extend([flags, 0, 0, 0, 0, 0, 0]);
        f
    }

    #[test]
    fn a_connection_that_has_ended_is_as_none() {
        let vni = Vni::new(7001).unwrap();
        let ts = |n| TsMac::new(MacAddr([2, 0, 0, 0, 0, n])).unwrap();
        let mut model = Model::new();
        let id = PolicyId::new(1).unwrap();
        for n in 1..3 {
            let policy = (n == 1).then_some(Policy { id, generation: 1, log_refused: false });
            let vap = Vap {
                vni,
                mac: ts(n),
                ips: [format!("10.0.0.{n}").parse().unwrap()].into(),
                kind: VapKind::Veth,
                path: Path::Direct,
                mtu: 1450,
                activated: true,
                waits: false,
                previous: None,
                policy,
                tunnel: Default::default(),
            };
            let at = IfIndex(n.into());
            model.apply(&Op::SetVap(at, vap)).unwrap();
            model.apply(&Op::SetLocation(vni, ts(n).get(), Location::Local(at))).unwrap();
        }
        let out = |protocol| RuleKey {
            policy: id,
            toward: Toward::Out,
            class: ClassId::ANYBODY,
            protocol: Some(protocol),
            ports: Ports::ALL,
        };
        for protocol in [6, 17, 47] {
            model.apply(&Op::SetRule(out(protocol), Allow { rule: 1, log: false })).unwrap();
        }
        let mut now = 0;
        let mut send = |after: u64, from: u8, protocol: u8, flags: u8| {
            now += after;
            let ports = if from == 1 { (9, 80) } else { (80, 9) };
            let verdict = model.receive(
                Time::from_secs(now),
                Ingress::Vap(IfIndex(from.into())),
                &frame(from, protocol, ports, flags),
            );
            verdict.reason == Some(Reason::Local)
        };
        assert!(!send(0, 2, 17, 0));
        assert!(send(0, 1, 17, 0) && send(59, 2, 17, 0) && send(179, 2, 17, 0) && !send(180, 2, 17, 0));
        assert!(send(0, 1, 17, 0) && !send(60, 2, 17, 0));
        assert!(send(0, 1, 47, 0) && send(119, 2, 47, 0) && !send(120, 2, 47, 0));
        assert!(send(0, 1, 6, 2) && !send(60, 2, 6, 0x12));
        assert!(send(0, 1, 6, 2) && send(0, 2, 6, 0x12) && !send(60, 2, 6, 0x12));
        assert!(send(0, 1, 6, 2) && send(0, 2, 6, 0x12) && send(0, 1, 6, 0x10) && send(86_399, 2, 6, 0x10));
        assert!(
            send(0, 2, 6, 0x11) && send(86_399, 1, 6, 0x11) && send(29, 2, 6, 0x10) && !send(30, 2, 6, 0x10)
        );
    }
}
