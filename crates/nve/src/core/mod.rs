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
mod cache;
mod config;
mod event;
mod messages;
mod proxy;
mod resolver;
mod session;
mod timers;
mod tsi;
mod views;

pub use config::{Config, Limits, OracleAddr, Timing};
pub use event::{
    ApiCall, Attach, Attached, Attachment, CallId, Device, Fact, Granted, Notice, Output, Refused, Session,
    Ticket,
};
pub use views::{CacheEntry, Counters, TsiState, TsiView};

use ::core::net::IpAddr;
use cache::MapCache;
use resolver::Resolver;
use session::OracleState;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use timers::Timers;
use tsi::{Call, Tsi};
use weft_datapath::{IfIndex, Op, Peer, Tables};
use weft_model::{Eid, MacAddr, Rloc, TenantIp, Time, TsiId, VnSpec, Vni, XtrId};

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
    /// An attach is answered though no Oracle acknowledged.
    Acknowledge(TsiId),
}

/// The core of one NVE.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Core {
    config: Config,
    /// State of the nonce generator.
    random: u64,
    vns: BTreeMap<Vni, VnSpec>,
    nves: BTreeMap<XtrId, BTreeSet<Rloc>>,
    /// Peers found in the kernel at the start, until the list of NVEs is known.
    adopted_peers: BTreeSet<IpAddr>,
    oracles: Vec<OracleState>,
    tsis: BTreeMap<TsiId, Tsi>,
    /// TSIs by VAP.
    vaps: BTreeMap<IfIndex, TsiId>,
    /// TSIs by address: what is here is never asked for.
    local_macs: BTreeMap<(Vni, MacAddr), TsiId>,
    local_ips: BTreeMap<(Vni, TenantIp), TsiId>,
    calls: BTreeMap<CallId, Call>,
    next_ticket: u64,
    tickets: BTreeMap<Ticket, TsiId>,
    cache: MapCache,
    resolver: Resolver,
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
            random: config.seed,
            vns: BTreeMap::new(),
            nves: BTreeMap::new(),
            adopted_peers: BTreeSet::new(),
            oracles: config.oracles.iter().map(|_| OracleState::default()).collect(),
            tsis: BTreeMap::new(),
            vaps: BTreeMap::new(),
            local_macs: BTreeMap::new(),
            local_ips: BTreeMap::new(),
            calls: BTreeMap::new(),
            next_ticket: 0,
            tickets: BTreeMap::new(),
            cache: MapCache::default(),
            resolver: Resolver::default(),
            timers: Timers::default(),
            tables: Tables::default(),
            outputs: VecDeque::new(),
            counters: Counters::default(),
            config,
        };
        let shared =
            weft_datapath::Config { rlocs: core.config.rlocs.clone(), uplinks: core.config.uplinks.clone() };
        core.apply(Op::Config(shared));
        let resolvers: Vec<IpAddr> = core.config.oracles.iter().map(|o| o.resolver.ip()).collect();
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
        self.outputs.pop_front()
    }

    /// When [`Core::handle_timeout`] wants to be called next, if nothing else happens.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.timers.next()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Retry(vni, eid) => self.retry(now, vni, eid),
                Timer::Hold(vni, eid) => self.resolver.end_hold(vni, eid),
                Timer::Refresh(vni, eid) => self.refresh(now, vni, eid),
                Timer::Absent(vni, eid) => self.end_absent(vni, eid),
                Timer::Grace(tsi) => self.release_gone(&tsi),
                Timer::Acknowledge(tsi) => self.finish_attach(&tsi, true),
            }
        }
    }

    /// Takes in what an Oracle's watch says.
    pub fn handle_fact(&mut self, fact: Fact) {
        match fact {
            Fact::Vn(vn) => {
                self.vns.insert(vn.vni, vn);
            }
            Fact::VnGone(vni) => {
                self.vns.remove(&vni);
            }
            Fact::Nve(xtr, rlocs) => self.set_nve(xtr, rlocs),
            Fact::NveGone(xtr) => self.set_nve(xtr, BTreeSet::new()),
            Fact::NvesListed(listed) => {
                let gone: Vec<XtrId> = self.nves.keys().filter(|x| !listed.contains(x)).copied().collect();
                for xtr in gone {
                    self.set_nve(xtr, BTreeSet::new());
                }
                self.drop_adopted_peers();
            }
            Fact::Grants(revision, grants) => self.reconcile_grants(revision, grants),
        }
    }

    fn set_nve(&mut self, xtr: XtrId, rlocs: BTreeSet<Rloc>) {
        if xtr == self.config.xtr_id {
            return;
        }
        let old =
            if rlocs.is_empty() { self.nves.remove(&xtr) } else { self.nves.insert(xtr, rlocs.clone()) };
        for gone in old.unwrap_or_default().difference(&rlocs) {
            // Another NVE may have been given the address in between.
            if !self.nves.values().any(|others| others.contains(gone)) {
                self.set_peer(gone.get(), |peer| peer.nve = false);
            }
        }
        for rloc in rlocs {
            self.set_peer(rloc.get(), |peer| peer.nve = true);
        }
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
