//! The NVE's sans-IO core: tenant systems and VAPs, map cache, resolver, registrar.
//!
//! Nothing here has a socket, a clock, a thread or a task. Whoever drives it hands in time and
//! input through the `handle_*` verbs, then takes what is to be done with [`Core::poll_output`] until there is
//! nothing, and calls [`Core::handle_timeout`] when [`Core::poll_timeout`] says so. State is plain
//! ordered data, so that the simulator and a model checker drive the same code as the agent.
//!
//! ```text
//! punts, sessions, datagrams, local calls, facts --> Core --> data plane changes, frames to inject,
//!                                     time ------>        --> datagrams, session frames, /v1 calls
//! ```

mod adopt;
mod announce;
mod answer;
mod anycast;
mod arriving;
mod attach;
mod away;
mod cache;
mod claim;
mod config;
mod connect;
mod context;
mod event;
mod flows;
mod gateway;
mod groups;
mod held;
mod idle;
mod learn;
mod lease;
mod leaving;
mod members;
mod messages;
mod orphan;
mod policy;
mod proxy;
mod push;
mod release;
mod resolver;
mod resume;
mod session;
mod silent;
mod solicit;
mod states;
mod subscribe;
#[cfg(test)]
mod tests;
mod timers;
mod told;
mod trace;
mod translate;
mod tsi;
mod tunnel;
mod update;
mod views;
mod vns;
mod went;

pub use config::{Config, Limits, OracleAddr, Timing};
pub use context::{
    Claim, Context, Delta, Fetch, Handed, Live, Moved, NotHanded, NotTaken, RequestId, Taken, Taking,
    TransferId,
};
pub use event::{
    ApiCall, Attach, Attached, Attachment, CallId, Device, Fact, Granted, Held, Notice, Output, Refused,
    Session, Ticket, Unreleased,
};
pub use flows::{Ends, Flows, ends, newest};
pub use policy::{PolicyFact, SavedPolicies};
pub use told::{Cause, Event, Happened};
pub use update::Update;
pub use views::{CacheEntry, Counters, TsiState, TsiView};
pub use went::Went;

use ::core::net::IpAddr;
use ::core::time::Duration;
use anycast::StandIns;
use attach::Call;
use cache::MapCache;
use groups::Groups;
use members::Membership;
use policy::Policies;
use push::Pushed;
use release::Releases;
use resolver::Resolver;
use session::OracleState;
use std::collections::{BTreeMap, BTreeSet, VecDeque, btree_map::Entry};
use timers::Timers;
use tsi::Tsi;
use weft_datapath::{IfIndex, Op, Peer, Tables};
use weft_model::{
    Eid, GroupIp, MacAddr, NveName, Rloc, TenantIp, Time, TsiId, TsiName, VnName, VnSpec, Vni, XtrId,
};

/// No timer sets itself again at the very moment it fires, whatever the configuration says.
const LEAST_WAIT: Duration = Duration::from_millis(100);

/// A deadline.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Timer {
    /// Ask again, or give up.
    Retry(Vni, Eid),
    /// An address left unanswered may be asked for again.
    Hold(Vni, Eid),
    /// Ask before the entry ends.
    Refresh(Vni, Eid),
    /// A negative entry ends.
    Absent(Vni, Eid),
    /// A tenant system whose device went away is released.
    Grace(TsiId),
    /// A lease that was not renewed ends.
    Lease(TsiId),
    /// An attach is answered though no Oracle acknowledged.
    Acknowledge(TsiId),
    /// An Oracle could not take a registration: once more.
    Register(TsiId),
    /// A grant that could not be given back: once more.
    Release(VnName, TsiName),
    /// What is registered is compared with what an Oracle has.
    Digest(usize),
    /// Subscribe to what a VN needs: it was refused.
    Subscribe(Vni),
    /// Subscribe to the mappings of a VN once more: an Oracle has something else.
    Resync(Vni),
    /// Members named by a snapshot so far go to the data plane.
    Members(Vni),
    /// A VAP is asked which groups it wants.
    Query(IfIndex),
    /// A VAP has not said for long that it wants a group, or somebody there left it.
    Group(Vni, GroupIp, IfIndex),
    /// A VAP has not wanted for long what could not be kept.
    Open(Vni, IfIndex),
    /// An Oracle is asked again for the receivers of a VN's groups: not all could be kept.
    Hear(Vni),
    /// Frames for an address have waited long enough.
    Held(Vni, Eid),
    /// An RLOC and an address may be solicited about again.
    Solicited(solicit::Solicited),
    /// What comes for who was here is not redirected any more.
    Away(Vni, MacAddr),
    /// What the NVE that it moved here from sends on is fenced like anybody's.
    Previous(TsiId),
    /// Access policy goes to the disk.
    SavePolicies,
    /// A context that could not be had is asked for again.
    Fetch(TsiId),
    /// An Activate has waited long enough for what comes along.
    Await(TsiId),
    /// A frame of an interface that moves here may Activate it again.
    Silent(TsiId),
    /// The next address that is in use where an interface comes from is asked for.
    Prefetch(TsiId),
    /// What was taken out of service a moment ago is not handed to anybody any more.
    Left(TsiId),
    /// It is announced once more.
    Announce(TsiId),
}

/// The core of one NVE.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Core {
    config: Config,
    /// When something last happened; for deadlines set by what comes without a time.
    now: Time,
    /// State of the nonce generator.
    random: u64,
    vns: BTreeMap<Vni, VnSpec>,
    nves: BTreeMap<XtrId, BTreeSet<Rloc>>,
    /// Their names, this NVE's among them.
    names: BTreeMap<NveName, XtrId>,
    /// How many NVEs have an RLOC: while an address changes hands it may be two.
    rlocs: BTreeMap<Rloc, usize>,
    /// Peers found in the kernel at the start, until the list of NVEs is known.
    adopted_peers: BTreeSet<IpAddr>,
    oracles: Vec<OracleState>,
    tsis: BTreeMap<TsiId, Tsi>,
    by_name: BTreeMap<(VnName, TsiName), TsiId>,
    /// By device, also while it is gone.
    by_device: BTreeMap<String, TsiId>,
    /// By device, those that are there.
    vaps: BTreeMap<IfIndex, TsiId>,
    /// VAPs without an interface, by device.
    orphans: BTreeMap<IfIndex, orphan::Orphan>,
    /// Deactivated here, on their way elsewhere, and registered until they are there.
    stopped: BTreeSet<TsiId>,
    /// Activated, and to be announced into their VN.
    announcing: BTreeMap<TsiId, announce::Times>,
    /// By VN, those that have a part in it: all that are not lost.
    members: BTreeMap<Vni, BTreeSet<TsiId>>,
    /// Those Activated by address: what is here is never asked for.
    local_macs: BTreeMap<(Vni, MacAddr), TsiId>,
    local_ips: BTreeMap<(Vni, TenantIp), TsiId>,
    /// The VNs that hypervisors have connected this NVE to.
    connected: BTreeMap<Vni, VnName>,
    /// Whether an Oracle has been asked which those are.
    comparing: connect::Comparing,
    /// Calls under way to begin that, or to end it.
    connecting: BTreeMap<CallId, VnName>,
    calls: BTreeMap<CallId, Call>,
    releases: Releases,
    arrivals: arriving::Arrivals,
    leaving: leaving::Leaving,
    /// The latest of the store that was heard of.
    revision: u64,
    /// The latest list of grants.
    listed: Option<release::Listed>,
    /// Whether what is attached changed since it was last handed to the disk.
    unsaved: bool,
    /// What hypervisors were told.
    told: told::Told,
    next_ticket: u64,
    tickets: BTreeMap<Ticket, TsiId>,
    cache: MapCache,
    /// The other NVEs of the VNs whose frames are replicated.
    memberships: BTreeMap<Vni, Membership>,
    /// The multicast groups that are wanted here.
    groups: Groups,
    /// Who may do what.
    policies: Policies,
    /// VNs in which somebody may be in other security groups now.
    policies_stale: BTreeSet<Vni>,
    /// What Oracles have pushed of the VNs whose mappings are.
    pushed: BTreeMap<Vni, Pushed>,
    /// Who was answered with a VN's anycast MAC.
    stand_ins: StandIns,
    resolver: Resolver,
    held: held::Held,
    solicits: solicit::Solicits,
    /// The answers given so far are within their rate until then.
    answered_until: Time,
    timers: Timers<Timer>,
    /// What the data plane is meant to hold; every change of it goes out as an [`Op`].
    tables: Tables,
    outputs: VecDeque<Output>,
    counters: Counters,
}

impl Core {
    /// A core that knows nothing yet but its configuration.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let mut core = Self {
            now: Time::default(),
            random: config.seed,
            vns: BTreeMap::new(),
            nves: BTreeMap::new(),
            names: BTreeMap::new(),
            rlocs: BTreeMap::new(),
            adopted_peers: BTreeSet::new(),
            oracles: config.oracles.iter().map(|_| OracleState::default()).collect(),
            tsis: BTreeMap::new(),
            by_name: BTreeMap::new(),
            by_device: BTreeMap::new(),
            vaps: BTreeMap::new(),
            orphans: BTreeMap::new(),
            stopped: BTreeSet::new(),
            announcing: BTreeMap::new(),
            members: BTreeMap::new(),
            local_macs: BTreeMap::new(),
            local_ips: BTreeMap::new(),
            connected: BTreeMap::new(),
            comparing: connect::Comparing::default(),
            connecting: BTreeMap::new(),
            calls: BTreeMap::new(),
            releases: Releases::default(),
            arrivals: arriving::Arrivals::default(),
            leaving: leaving::Leaving::default(),
            revision: 0,
            listed: None,
            unsaved: false,
            told: told::Told::default(),
            next_ticket: 0,
            tickets: BTreeMap::new(),
            cache: MapCache::default(),
            memberships: BTreeMap::new(),
            groups: Groups::default(),
            policies: Policies::default(),
            policies_stale: BTreeSet::new(),
            pushed: BTreeMap::new(),
            stand_ins: StandIns::default(),
            resolver: Resolver::default(),
            held: held::Held::default(),
            solicits: solicit::Solicits::default(),
            answered_until: Time::default(),
            timers: Timers::default(),
            tables: Tables::default(),
            outputs: VecDeque::new(),
            counters: Counters::default(),
            config,
        };
        core.configure();
        let resolvers: Vec<IpAddr> =
            core.config.oracles.iter().map(|o| o.resolver.ip().to_canonical()).collect();
        for ip in resolvers {
            core.set_peer(ip, |peer| peer.oracle = true);
        }
        core
    }

    /// Everything the data plane is meant to hold now.
    #[must_use]
    pub const fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The next thing to do. Call until there is none after every `handle_*`.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.outputs.is_empty() {
            self.tidy_policies();
            self.tell();
            self.save();
            self.save_policies();
        }
        self.outputs.pop_front()
    }

    /// When [`Core::handle_timeout`] wants to be called next, if nothing else happens.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.timers.next()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Time) {
        self.now = now;
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Retry(vni, eid) => self.retry(now, vni, eid),
                Timer::Hold(vni, eid) => self.resolver.end_hold(vni, eid),
                Timer::Refresh(vni, eid) => self.refresh_if_used(now, vni, eid),
                Timer::Absent(vni, eid) => self.end_absent(vni, eid),
                Timer::Grace(tsi) => self.end_grace(now, &tsi),
                Timer::Lease(tsi) => self.end_lease(now, &tsi),
                Timer::Acknowledge(tsi) => self.unacknowledged(&tsi),
                Timer::Register(tsi) => self.register_again(&tsi),
                Timer::Release(vn, tsi) => self.retry_release(now, vn, tsi),
                Timer::Digest(oracle) => self.send_digests(now, oracle),
                Timer::Subscribe(vni) => self.review_vn(vni),
                Timer::Resync(vni) => self.review_mappings(vni),
                Timer::Members(vni) => self.set_vn(vni),
                Timer::Query(vap) => self.query(now, vap),
                Timer::Group(vni, group, vap) => self.review_receiver(now, vni, group, vap),
                Timer::Open(vni, vap) => self.close_vap(vni, vap),
                Timer::Hear(vni) => self.hear_again(now, vni),
                Timer::Held(vni, eid) => self.drop_held(vni, eid),
                Timer::Solicited(key) => self.solicits.end(&key),
                Timer::Away(vni, mac) => self.end_redirect(vni, mac),
                Timer::Previous(tsi) => self.end_previous(&tsi),
                Timer::SavePolicies => self.policies_changed(),
                Timer::Fetch(tsi) => self.fetch_again(&tsi),
                Timer::Await(tsi) => self.go_on(&tsi),
                Timer::Prefetch(tsi) => self.prefetch(now, &tsi),
                // What comes next may.
                Timer::Silent(_) => {}
                Timer::Left(tsi) => self.end_left(now, &tsi),
                Timer::Announce(tsi) => self.announce_again(&tsi),
            }
        }
    }

    /// Takes in what an Oracle's watch says.
    pub fn handle_fact(&mut self, fact: Fact) {
        match fact {
            Fact::Vn(vn) => self.know_vn(vn),
            Fact::VnGone(vni) => {
                self.vns.remove(&vni);
                self.touch_all_in(vni);
                self.end_connection(vni);
                self.forget_vn(vni);
                self.review_vn(vni);
            }
            Fact::VnsListed(listed) => self.confirm_connections(|vni| !listed.contains(&vni)),
            Fact::Nve(xtr, rlocs) => self.set_nve(xtr, rlocs),
            Fact::NveName(xtr, name) => self.name_nve(xtr, name),
            Fact::NveGone(xtr) => {
                self.set_nve(xtr, BTreeSet::new());
                self.forget_name(xtr);
            }
            Fact::NvesListed(listed) => {
                let gone: Vec<XtrId> = self.nves.keys().filter(|x| !listed.contains(x)).copied().collect();
                for xtr in gone {
                    self.set_nve(xtr, BTreeSet::new());
                    self.forget_name(xtr);
                }
                self.drop_adopted_peers();
            }
            Fact::GrantWent { revision, grant, holder } => self.grant_went(revision, grant, holder),
            Fact::Grants(revision, grants) => self.reconcile_grants(revision, grants),
            Fact::Policy { listed, facts } => self.policy_facts(listed, facts),
        }
    }

    fn set_nve(&mut self, xtr: XtrId, rlocs: BTreeSet<Rloc>) {
        if xtr == self.config.xtr_id {
            return;
        }
        let old =
            if rlocs.is_empty() { self.nves.remove(&xtr) } else { self.nves.insert(xtr, rlocs.clone()) };
        let old = old.unwrap_or_default();
        for new in rlocs.difference(&old) {
            *self.rlocs.entry(*new).or_default() += 1;
        }
        for rloc in &rlocs {
            let other = rlocs.iter().find(|other| other.get().is_ipv4() != rloc.get().is_ipv4()).copied();
            let node = node_number(xtr);
            self.set_peer(rloc.get(), |peer| *peer = Peer { nve: true, oracle: peer.oracle, node, other });
        }
        for gone in old.difference(&rlocs) {
            // Another NVE may have been given the address in between.
            if decrement(&mut self.rlocs, *gone) == 0 {
                self.set_peer(gone.get(), |peer| *peer = Peer { oracle: peer.oracle, ..Peer::default() });
                self.end_redirects_to(*gone);
            }
        }
        if old != rlocs {
            self.review_gateways();
        }
    }

    /// The devices that lead to RLOCs.
    #[must_use]
    pub fn uplinks(&self) -> &BTreeSet<IfIndex> {
        &self.config.uplinks
    }

    /// Other devices lead to RLOCs now.
    pub fn handle_uplinks(&mut self, uplinks: BTreeSet<IfIndex>) {
        if self.config.uplinks != uplinks {
            self.config.uplinks = uplinks;
            self.configure();
        }
    }

    fn configure(&mut self) {
        let Config { rlocs, uplinks, xtr_id, .. } = &self.config;
        let (rlocs, uplinks, node) = (rlocs.clone(), uplinks.clone(), node_number(*xtr_id));
        self.apply(Op::Config(weft_datapath::Config { rlocs, uplinks, node }));
    }

    fn set_peer(&mut self, ip: IpAddr, change: impl FnOnce(&mut Peer)) {
        let old = self.tables.peers.get(&ip).copied();
        let mut peer = old.unwrap_or_default();
        change(&mut peer);
        if peer == Peer::default() {
            if old.is_some() {
                self.apply(Op::RemovePeer(ip));
            }
        } else if old != Some(peer) {
            self.apply(Op::SetPeer(ip, peer));
        }
    }

    /// Changes the intended tables and has the data plane follow.
    fn apply(&mut self, op: Op) {
        self.tables.apply(&op);
        self.outputs.push_back(Output::Apply(op, None));
    }

    fn notice(&mut self, notice: Notice) {
        self.outputs.push_back(Output::Notice(notice));
    }

    /// The next number of a generator that is good enough for nonces on a path where an off-path attacker
    /// would have to guess 64 bits: splitmix64 over a seed drawn from the operating system.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// An xTR-ID is random, so any part of it tells NVEs apart.
fn node_number(xtr: XtrId) -> u32 {
    let [a, b, c, d, ..] = xtr.0;
    u32::from_be_bytes([a, b, c, d])
}

/// Counts one less; gives what is left. A key without a count is not kept.
fn decrement<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) -> usize {
    match counts.entry(key) {
        Entry::Occupied(mut count) if *count.get() > 1 => {
            *count.get_mut() -= 1;
            *count.get()
        }
        Entry::Occupied(count) => {
            count.remove();
            0
        }
        Entry::Vacant(_) => 0,
    }
}
