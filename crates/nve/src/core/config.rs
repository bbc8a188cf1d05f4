//! What the core is told at its start.

use ::core::{net::SocketAddr, time::Duration};
use std::collections::BTreeSet;
use weft_datapath::{IfIndex, Path};
use weft_model::{BootId, Rloc, XtrId};

/// One Oracle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OracleAddr {
    /// Where its Map-Resolver listens: UDP.
    pub resolver: SocketAddr,
}

/// Who this NVE is and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// Its xTR-ID.
    pub xtr_id: XtrId,
    /// This start of it.
    pub boot: BootId,
    /// Its underlay addresses.
    pub rlocs: BTreeSet<Rloc>,
    /// The devices that lead to other RLOCs.
    pub uplinks: BTreeSet<IfIndex>,
    /// Its Oracles, the preferred one first.
    pub oracles: Vec<OracleAddr>,
    /// UDP port LISP messages are sent from and answered to.
    pub lisp_port: u16,
    /// Largest IP packet of a tenant: the underlay's MTU less 50 (IPv4) or 70 (IPv6).
    pub tenant_mtu: u16,
    /// How veth tenants' frames leave.
    pub veth_path: Path,
    /// How TAP tenants' frames leave.
    pub tap_path: Path,
    /// Seed of nonces and jitter.
    pub seed: u64,
    /// Bounds.
    pub limits: Limits,
    /// Clocks.
    pub timing: Timing,
}

/// Bounds of what the outside can make the NVE remember; each may be as low as 1.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Map cache entries, both kinds, negative ones included.
    pub cache: usize,
    /// Negative entries on behalf of one VAP.
    pub absent_per_vap: usize,
    /// Requests under way in one VN.
    pub pending_per_vn: usize,
    /// Requests under way on behalf of one VAP.
    pub pending_per_vap: usize,
    /// Askers waiting for one address.
    pub waiters: usize,
    /// Attach and detach calls under way.
    pub calls: usize,
    /// Link-local addresses one tenant system may claim.
    pub link_locals: usize,
    /// Destinations for which frames wait,
    pub held_destinations: usize,
    /// of them those of one VAP,
    pub held_per_vap: usize,
    /// how many for each,
    pub held_frames: usize,
    /// and for all together.
    pub held_in_all: usize,
    /// Answers to forwarded Map-Requests, per second,
    pub answers_per_second: u32,
    /// and how many may come together.
    pub answer_burst: u32,
    /// RLOCs of members kept of one VN.
    pub members: usize,
    /// Multicast groups wanted at one VAP,
    pub groups_per_vap: usize,
    /// and in one VN: no more than an Oracle takes of one NVE. A VAP that wants one more is given all.
    pub groups_per_vn: usize,
    /// Groups kept that members of one VN want, one by one. A member that wants one more is given all.
    pub member_groups: usize,
    /// Groups of one VN with an entry in the data plane,
    pub group_entries_per_vn: usize,
    /// and of all VNs: the data plane's room, less an entry of each VN. A group without one is given to all.
    pub group_entries: usize,
    /// Addresses one VAP may have been answered with a VN's anycast MAC for.
    pub stand_ins_per_vap: usize,
    /// Solicitations remembered, both ways.
    pub solicits: usize,
    /// Tenant systems that moved on and whose frames are redirected: no more than the data plane has room for.
    pub away: usize,
    /// Entries of access policy: the data plane's room for rules,
    pub policy_rules: usize,
    /// and for prefixes and addresses that they tell apart.
    pub policy_classes: usize,
    /// Connections taken along with one tenant system,
    pub moved_connections: usize,
    /// addresses asked for ahead because they are in use where it comes from,
    pub moved_addresses: usize,
    /// and of these together, before the others come one by one.
    pub moved_at_once: usize,
    /// Tenant systems being handed over to other NVEs.
    pub handovers: usize,
}

/// Intervals.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    /// First retry of a Map-Request; each later one waits twice as long.
    pub retry: Duration,
    /// The longest wait between retries.
    pub retry_max: Duration,
    /// Tries before an address is left unanswered.
    pub tries: u32,
    /// No new request for an address left unanswered, for so long.
    pub hold: Duration,
    /// Life of an entry whose record leaves it to the receiver.
    pub ttl: Duration,
    /// Between the refreshes of two entries when all are refreshed after a lost session.
    pub refresh_gap: Duration,
    /// An entry that no frame used for so long is forgotten when it is due to be asked for again.
    pub idle: Duration,
    /// How long a frame waits for its destination to be known.
    pub held: Duration,
    /// Between two solicitations from or to one RLOC about one address.
    pub solicit: Duration,
    /// How long what comes for who has moved on is redirected. Who cannot hear of the move sends here until then.
    pub away: Duration,
    /// From a device's disappearance to the release of its tenant system.
    pub grace: Duration,
    /// How long an attach waits for an Oracle to acknowledge its registration.
    pub acknowledge: Duration,
    /// Between two comparisons of what is registered with what an Oracle has.
    pub digest: Duration,
    /// Between two questions to a VAP which multicast groups it wants (RFC 3376 section 8.2).
    pub query: Duration,
    /// How long a group is wanted after somebody last said so (RFC 3376 section 8.4).
    pub membership: Duration,
    /// Between the questions who else wants a group that somebody left (RFC 3376 section 8.8).
    pub last_member: Duration,
    /// How long an Activate waits for what comes along from the NVE that its tenant system moves from.
    pub context: Duration,
    /// From an announcement of who has come into service to the second one (RFC 5227 section 1.1, ANNOUNCE_INTERVAL).
    pub announce_again: Duration,
    /// How long after it was taken out of service here a tenant system is still handed over.
    pub left: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cache: 1_000_000,
            absent_per_vap: 1_024,
            pending_per_vn: 16_384,
            pending_per_vap: 1_024,
            waiters: 64,
            calls: 1_024,
            link_locals: 2,
            held_destinations: 256,
            held_per_vap: 32,
            held_frames: 32,
            held_in_all: 2_048,
            answers_per_second: 20_000,
            answer_burst: 2_000,
            members: 1 << 16,
            groups_per_vap: 64,
            groups_per_vn: 256,
            member_groups: 1 << 14,
            group_entries_per_vn: 1_024,
            group_entries: 4_096,
            stand_ins_per_vap: 1_024,
            solicits: 4_096,
            away: 16_384,
            policy_rules: 262_144,
            policy_classes: 262_144,
            moved_connections: 4_096,
            moved_addresses: 1_024,
            moved_at_once: 16,
            handovers: 1_024,
        }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            retry: Duration::from_millis(200),
            retry_max: Duration::from_secs(1),
            tries: 10,
            hold: Duration::from_secs(1),
            ttl: Duration::from_secs(15 * 60),
            refresh_gap: Duration::from_millis(1),
            idle: Duration::from_secs(10 * 60),
            held: Duration::from_secs(1),
            solicit: Duration::from_secs(3),
            away: Duration::from_secs(60 * 60),
            grace: Duration::from_secs(60),
            acknowledge: Duration::from_secs(5),
            digest: Duration::from_secs(30),
            query: Duration::from_secs(125),
            membership: Duration::from_secs(260),
            last_member: Duration::from_secs(1),
            context: Duration::from_millis(100),
            announce_again: Duration::from_secs(2),
            left: Duration::from_secs(10),
        }
    }
}
