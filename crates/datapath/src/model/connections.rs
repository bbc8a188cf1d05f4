//! Connections that policies have let through, and packets of which fragments are to come.

use crate::{Connection, ConnectionState, PolicyId};
use core::{net::IpAddr, time::Duration};
use std::collections::{BTreeMap, BTreeSet};
use weft_model::{TenantIp, Time, Vni};

const TCP: u8 = 6;

/// How long fragments of a packet may take.
const FRAGMENT_KEPT: Duration = Duration::from_secs(30);

/// After which silence a connection is as none.
const fn kept(protocol: u8, state: ConnectionState) -> Duration {
    Duration::from_secs(match (protocol, state) {
        (TCP, ConnectionState::Opening | ConnectionState::Answered) => 60,
        (TCP, ConnectionState::Closing) => 30,
        (TCP, ConnectionState::Reset) => 300,
        (TCP, _) => 86_400,
        (17, ConnectionState::Opening) => 60,
        (17, _) => 180,
        (1 | 58, _) => 30,
        _ => 120,
    })
}

/// By which policy something was let through; none: by none of here.
pub(super) type Under = Option<(PolicyId, u32)>;

/// What a connection is found by: both ends as seen from its VAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ends {
    pub(super) vni: Vni,
    pub(super) local: IpAddr,
    pub(super) remote: IpAddr,
    pub(super) protocol: u8,
    pub(super) local_port: u16,
    pub(super) remote_port: u16,
}

impl Ends {
    pub(super) const fn of(c: &Connection) -> Self {
        Self {
            vni: c.vni,
            local: c.local,
            remote: c.remote,
            protocol: c.protocol,
            local_port: c.local_port,
            remote_port: c.remote_port,
        }
    }
}

/// What the fragments of one packet have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Packet {
    /// The virtual network.
    pub vni: Vni,
    /// From where.
    pub src: IpAddr,
    /// Where to.
    pub dst: IpAddr,
    /// Its identification.
    pub id: u32,
    /// IP protocol; of IPv6 0.
    pub protocol: u8,
    /// Seen from the tenant system.
    pub toward: crate::Toward,
    /// Of a copy, which others get, too: whose policy it is about.
    pub policy: Option<PolicyId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Held {
    connection: Connection,
    under: Under,
    seen: Time,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Connections {
    held: BTreeMap<Ends, Held>,
    packets: BTreeMap<Packet, (u32, Time)>,
}

impl Connections {
    pub(super) fn note(&mut self, now: Time, connection: Connection, under: Under) {
        self.held.insert(Ends::of(&connection), Held { connection, under, seen: now });
    }

    pub(super) fn end(&mut self, ends: &Ends) {
        self.held.remove(ends);
    }

    /// A packet whose first fragment this rule, or none, has let through.
    pub(super) fn note_packet(&mut self, now: Time, packet: Packet, rule: Option<u32>) {
        match rule {
            Some(rule) => self.packets.insert(packet, (rule, now)),
            None => self.packets.remove(&packet),
        };
    }

    pub(super) fn forget(&mut self, now: Time) {
        self.held.retain(|ends, held| now.since(held.seen) < kept(ends.protocol, held.connection.state));
        self.packets.retain(|_, (_, seen)| now.since(*seen) < FRAGMENT_KEPT);
    }

    pub(super) fn of(&self, now: Time, vni: Vni, ips: Option<&BTreeSet<TenantIp>>) -> Vec<Connection> {
        let wanted = |ip| ips.is_none_or(|ips| TenantIp::new(ip).is_ok_and(|ip| ips.contains(&ip)));
        let held = self.held.values().filter(|held| held.connection.vni == vni);
        let mut all: Vec<Connection> = held
            .filter(|held| wanted(held.connection.local))
            .map(|held| Connection { idle: now.since(held.seen), ..held.connection })
            .collect();
        all.sort();
        all
    }

    /// What is known already stays.
    pub(super) fn take_over(&mut self, now: Time, connections: &[Connection]) {
        for c in connections {
            let seen = Time(now.0.saturating_sub(u64::try_from(c.idle.as_micros()).unwrap_or(u64::MAX)));
            let connection = Connection { idle: Duration::ZERO, ..*c };
            self.held.entry(Ends::of(c)).or_insert(Held { connection, under: None, seen });
        }
    }

    pub(super) fn remove(&mut self, vni: Vni, ips: &BTreeSet<TenantIp>) {
        let of = |ip| TenantIp::new(ip).is_ok_and(|ip| ips.contains(&ip));
        self.held.retain(|ends, _| ends.vni != vni || !of(ends.local));
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// A connection, and by which policy it was let through.
    pub(super) fn find(&self, ends: &Ends) -> Option<(Connection, Under)> {
        self.held.get(ends).map(|held| (held.connection, held.under))
    }

    /// The rule by which a packet's first fragment was let through.
    pub(super) fn packet(&self, packet: &Packet) -> Option<u32> {
        self.packets.get(packet).map(|(rule, _)| *rule)
    }
}
