//! What the data plane learns from frames.

use super::connections::{Connections, Ends, Packet};
use super::meter::Meters;
use crate::{
    Connection, Heard, IfIndex, Levels, Location, Meter, Neighbour, Op, PolicyId, Seen, Toward, Tunnel,
};
use core::time::Duration;
use std::collections::BTreeMap;
use weft_model::{Epoch, MacAddr, Rloc, TenantIp, Time, Vni};

/// How long what was learned counts.
const AGEING: Duration = Duration::from_secs(300);

/// How long an IP address is believed to be behind an NVE that was heard.
const HEARD: Duration = Duration::from_secs(60);

/// One thing that a frame taught.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lesson {
    /// Frames from this MAC address come from this NVE.
    Mac {
        /// The virtual network.
        vni: Vni,
        /// The frame's source.
        mac: MacAddr,
        /// The outer source.
        rloc: Rloc,
    },
    /// This IP address is behind the NVE with this MAC address.
    Ip {
        /// The virtual network.
        vni: Vni,
        /// The address.
        ip: TenantIp,
        /// The NVE's MAC address.
        mac: MacAddr,
    },
    /// A policy of this generation has let a packet of this connection through.
    Let {
        /// As it is now; [`Connection::idle`] says nothing.
        connection: Connection,
        /// The policy.
        policy: PolicyId,
        /// Its generation.
        generation: u32,
    },
    /// This connection is let through no more.
    Ended(Connection),
    /// The first fragment of a packet was let through, or not.
    Fragment {
        /// Of which packet.
        packet: Packet,
        /// By which rule; by none.
        rule: Option<u32>,
    },
    /// A frame has passed a limit of a VAP.
    Passed {
        /// The VAP.
        at: IfIndex,
        /// Which way.
        toward: Toward,
        /// The limit.
        meter: Meter,
        /// The frame's.
        octets: u64,
    },
}

/// Everything learned that counts still.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Learned {
    macs: BTreeMap<(Vni, MacAddr), (Rloc, Time)>,
    ips: BTreeMap<(Vni, TenantIp), (MacAddr, Time)>,
    pub(super) connections: Connections,
    pub(super) meters: Meters,
}

impl Learned {
    /// Takes in what a frame taught at `now`; the latest word counts.
    pub fn note(&mut self, now: Time, lessons: &[Lesson]) {
        for lesson in lessons {
            match *lesson {
                Lesson::Mac { vni, mac, rloc } => {
                    self.macs.insert((vni, mac), (rloc, now));
                }
                Lesson::Ip { vni, ip, mac } => {
                    self.ips.insert((vni, ip), (mac, now));
                }
                Lesson::Let { connection, policy, generation } => {
                    self.connections.note(now, connection, Some((policy, generation)));
                }
                Lesson::Ended(connection) => self.connections.end(&Ends::of(&connection)),
                Lesson::Fragment { packet, rule } => self.connections.note_packet(now, packet, rule),
                Lesson::Passed { at, toward, meter, octets } => self.meters.note(at, toward, meter, octets),
            }
        }
    }

    /// Drops what is too old at `now`.
    pub fn forget(&mut self, now: Time) {
        self.macs.retain(|_, (_, seen)| now.since(*seen) < AGEING);
        self.ips.retain(|_, (_, seen)| now.since(*seen) < HEARD);
        self.connections.forget(now);
        self.meters.tell(now);
    }

    /// What a change of the tables makes void: where a tenant system was that is here now.
    pub fn apply(&mut self, op: &Op) {
        if let Op::SetLocation(vni, mac, Location::Local(_)) = op {
            self.macs.remove(&(*vni, *mac));
        }
        self.meters.apply(op);
    }

    /// The connections of a VN, idle since `now`, in order.
    #[must_use]
    pub fn connections(&self, now: Time, vni: Vni) -> Vec<Connection> {
        self.connections.of(now, vni, None)
    }

    /// What is left in the buckets of a VAP with this tunnel policy.
    #[must_use]
    pub fn levels(&self, vap: IfIndex, tunnel: &Tunnel) -> Levels {
        self.meters.levels(vap, tunnel)
    }

    /// As [`crate::Datapath::lower`].
    pub fn lower(&mut self, vap: IfIndex, tunnel: &Tunnel, levels: Levels, ago: Duration) {
        self.meters.lower(vap, tunnel, levels, ago);
    }

    /// Forgets all connections, and what fragments were let through.
    pub fn forget_connections(&mut self) {
        self.connections = Connections::default();
    }

    pub(super) fn location(&self, vni: Vni, mac: MacAddr) -> Option<Location> {
        let (rloc, _) = self.macs.get(&(vni, mac))?;
        Some(Location::Remote { rloc: *rloc, epoch: Epoch::FIRST, other: 0 })
    }

    pub(super) fn neighbour(&self, vni: Vni, ip: TenantIp) -> Option<Neighbour> {
        self.ips.get(&(vni, ip)).map(|(mac, _)| Neighbour::At(*mac))
    }

    pub(super) fn seen(&self, now: Time) -> Vec<Seen> {
        let seen = |((vni, mac), (rloc, at)): (&(Vni, MacAddr), &(Rloc, Time))| Seen {
            vni: *vni,
            mac: *mac,
            rloc: *rloc,
            idle: now.since(*at),
        };
        self.macs.iter().map(seen).collect()
    }

    pub(super) fn heard(&self, now: Time) -> Vec<Heard> {
        let heard = |((vni, ip), (mac, at)): (&(Vni, TenantIp), &(MacAddr, Time))| Heard {
            vni: *vni,
            ip: *ip,
            mac: *mac,
            idle: now.since(*at),
        };
        self.ips.iter().map(heard).collect()
    }
}
