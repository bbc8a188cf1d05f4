//! The data centre: Oracles, NVEs, their tenants, and what happens to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use weft_datapath::{IfIndex, Tables};
use weft_model::{
    BootId, Bum, Eid, Epoch, Grant, Learning, Name, Reply, Rloc, Successor, TenantIp, Time, TsiId, VnSpec,
    Vni, XtrId,
};
use weft_nve::core as nve;
use weft_nve::core::{ApiCall, Attachment, CallId, Core, Device, Granted, OracleAddr, Refused, TsiState};
use weft_oracle::core::{Event, Fact, Shard};

use crate::calls::Asked;
use crate::names::{PORT, nve_fact, oracle_addr, rlocs, vn_spec, xtr_id};
use crate::net::{ALIVE, Host, Link, Net};
use crate::session::Session;
use crate::store::Store;

/// How large the data centre is and how its network behaves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Plan {
    /// Everything that is random comes from this.
    pub seed: u64,
    /// NVEs.
    pub nves: usize,
    /// Tenant systems at each.
    pub tsis: usize,
    /// VNs they are spread over.
    pub vns: u32,
    /// Oracles.
    pub oracles: usize,
    /// The network.
    pub link: Link,
    /// How NVEs learn in every VN.
    pub learning: Learning,
    /// Who answers a Map-Request there.
    pub reply: Reply,
    /// What becomes of broadcast and multicast there.
    pub bum: Bum,
    /// Octets of snapshots that an Oracle sends in a millisecond.
    pub push_octets: usize,
    /// How long it takes an Oracle to write down who has become an owner,
    pub succeed_delay: Duration,
    /// and how often of a thousand that fails and is tried again later.
    pub succeed_fails: u16,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            seed: 1,
            nves: 10,
            tsis: 4,
            vns: 2,
            oracles: 2,
            link: Link::default(),
            learning: Learning::Oracle,
            reply: Reply::Proxy,
            bum: Bum::Drop,
            push_octets: weft_oracle::core::Limits::default().push_octets,
            succeed_delay: Duration::from_micros(500),
            succeed_fails: 0,
        }
    }
}

/// What was seen in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stats {
    /// Events of the simulation.
    pub steps: u64,
    /// Datagrams handed to the network.
    pub datagrams: u64,
    /// Negative Map-Replies sent.
    pub negatives: u64,
    /// ARP replies and advertisements given to tenants.
    pub answers: u64,
    /// Map-Replies that NVEs sent each other.
    pub forwarded: u64,
    /// Attaches and detaches that ended well.
    pub calls: u64,
}

pub(crate) struct OracleSite {
    pub(crate) shard: Option<Shard>,
    pub(crate) boot: u64,
    pub(crate) addr: SocketAddr,
    pub(crate) wake: Option<Time>,
    pub(crate) events: Vec<(Time, Event)>,
}

pub(crate) struct NveSite {
    pub(crate) core: Core,
    pub(crate) xtr: XtrId,
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Ipv6Addr,
    /// The agent runs.
    pub(crate) agent: bool,
    /// The host, and with it the data path, lives.
    pub(crate) host: bool,
    pub(crate) wake: Option<Time>,
    pub(crate) sessions: Vec<Option<u64>>,
    /// Which start of the agent this is.
    pub(crate) boot: u64,
    /// What the agent has on its disk.
    pub(crate) disk: (Vec<Attachment>, Vec<VnSpec>),
    /// The devices of tenant systems.
    pub(crate) devices: BTreeMap<String, Device>,
    /// What the kernel holds.
    pub(crate) tables: Tables,
    /// Its grants have changed, and it is not told yet.
    pub(crate) news: bool,
    /// When it hears of its grants last.
    pub(crate) watched: Time,
}

pub(crate) enum Ev {
    ToOracle {
        oracle: usize,
        boot: u64,
        from: SocketAddr,
        octets: Vec<u8>,
    },
    ToNve {
        nve: usize,
        from: IpAddr,
        octets: Vec<u8>,
    },
    SegmentToOracle {
        session: u64,
        octets: Vec<u8>,
    },
    SegmentToNve {
        session: u64,
        octets: Vec<u8>,
    },
    Connect {
        nve: usize,
        oracle: usize,
    },
    Lost {
        session: u64,
        silent: Duration,
    },
    EndAtNve {
        session: u64,
    },
    EndAtOracle {
        session: u64,
        silent: Duration,
    },
    Fact {
        oracle: usize,
        boot: u64,
        fact: Fact,
    },
    /// The store has decided about a move that was to be called off.
    NotEnded {
        oracle: usize,
        boot: u64,
        tsi: TsiId,
        next: Successor,
    },
    /// The watch of an NVE's grants goes on.
    Watch {
        nve: usize,
    },
    Grants {
        nve: usize,
        boot: u64,
        revision: u64,
        grants: Vec<Grant>,
    },
    Vn {
        nve: usize,
        spec: VnSpec,
    },
    Call {
        nve: usize,
        boot: u64,
        call: ApiCall,
        since: Time,
        again: bool,
    },
    Granted {
        nve: usize,
        boot: u64,
        call: CallId,
        answer: Box<Result<Granted, Refused>>,
    },
    Released {
        nve: usize,
        boot: u64,
        call: CallId,
        answer: Result<(), Refused>,
    },
    Succeed {
        oracle: usize,
        boot: u64,
        tsi: TsiId,
        nve: XtrId,
        epoch: Epoch,
        wait: Duration,
    },
    Echo {
        oracle: usize,
        boot: u64,
        rloc: Rloc,
        nonce: u64,
    },
    Tenant {
        nve: usize,
        tsi: TsiId,
        target: TenantIp,
        tries: u32,
    },
    WakeOracle(usize),
    WakeNve(usize),
    Restart(usize),
    Again(Box<Ev>),
}

/// A simulated data centre.
pub struct World {
    pub(crate) plan: Plan,
    pub(crate) now: Time,
    pub(crate) queue: BTreeMap<(Time, u64), Ev>,
    pub(crate) sequence: u64,
    pub(crate) net: Net,
    pub(crate) store: Store,
    pub(crate) oracles: Vec<OracleSite>,
    pub(crate) nves: Vec<NveSite>,
    pub(crate) sessions: BTreeMap<u64, Session>,
    pub(crate) next_session: u64,
    pub(crate) next_call: u64,
    /// Local calls that are not answered yet.
    pub(crate) calls: BTreeMap<CallId, Asked>,
    /// What others were answered.
    pub(crate) answers: BTreeMap<CallId, Result<(), Refused>>,
    /// Where hypervisors run what moves, if anywhere.
    pub(crate) runs: BTreeMap<TsiId, Option<usize>>,
    pub(crate) by_ip: BTreeMap<IpAddr, usize>,
    /// Since when an address is granted.
    pub(crate) granted: BTreeMap<(Vni, Eid), Time>,
    /// What tenants want to reach, from where.
    pub(crate) wanted: BTreeSet<(usize, TsiId, TenantIp)>,
    pub(crate) violations: Vec<String>,
    pub(crate) stats: Stats,
}

impl World {
    /// Oracles and NVEs are up and connect; nothing is attached.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let mut world = Self {
            net: Net::new(plan.seed, plan.link),
            now: Time::from_secs(1),
            queue: BTreeMap::new(),
            sequence: 0,
            store: Store::default(),
            oracles: Vec::new(),
            nves: Vec::new(),
            sessions: BTreeMap::new(),
            next_session: 0,
            next_call: 0,
            calls: BTreeMap::new(),
            answers: BTreeMap::new(),
            runs: BTreeMap::new(),
            by_ip: BTreeMap::new(),
            granted: BTreeMap::new(),
            wanted: BTreeSet::new(),
            violations: Vec::new(),
            stats: Stats::default(),
            plan,
        };
        for n in 1..=world.plan.vns.max(1) {
            if let Some(spec) = vn_spec(n, world.plan.learning, world.plan.reply, world.plan.bum) {
                world.store.create(spec);
            }
        }
        for n in 0..world.plan.nves {
            let (v4, v6) = rlocs(n);
            world.by_ip.insert(v4.into(), n);
            world.by_ip.insert(v6.into(), n);
            world.store.enrol(nve_fact(n));
        }
        let addrs: Vec<SocketAddr> = (0..world.plan.oracles).map(oracle_addr).collect();
        for n in 0..world.plan.nves {
            let site = world.nve_site(n, &addrs);
            world.nves.push(site);
        }
        for addr in addrs {
            let site = OracleSite { shard: None, boot: 0, addr, wake: None, events: Vec::new() };
            world.oracles.push(site);
        }
        for oracle in 0..world.plan.oracles {
            world.boot(oracle);
        }
        for nve in 0..world.plan.nves {
            for oracle in 0..world.plan.oracles {
                let jitter = world.jitter(1_000);
                world.at(jitter, Ev::Connect { nve, oracle });
            }
        }
        world
    }

    fn nve_site(&mut self, n: usize, addrs: &[SocketAddr]) -> NveSite {
        let (v4, v6) = rlocs(n);
        let core = self.nve_core(n, addrs);
        NveSite {
            tables: core.tables().clone(),
            core,
            xtr: xtr_id(n),
            v4,
            v6,
            agent: true,
            host: true,
            wake: None,
            sessions: vec![None; addrs.len()],
            boot: 0,
            disk: (Vec::new(), Vec::new()),
            devices: BTreeMap::new(),
            news: false,
            watched: Time::default(),
        }
    }

    /// An agent's core that knows the other NVEs.
    pub(crate) fn nve_core(&mut self, n: usize, addrs: &[SocketAddr]) -> Core {
        let (v4, v6) = rlocs(n);
        let config = nve::Config {
            xtr_id: xtr_id(n),
            boot: BootId(self.net.rng().draw()),
            rlocs: [IpAddr::V4(v4), IpAddr::V6(v6)].into_iter().flat_map(Rloc::new).collect(),
            uplinks: BTreeSet::from([IfIndex(1)]),
            oracles: addrs.iter().map(|resolver| OracleAddr { resolver: *resolver }).collect(),
            lisp_port: PORT,
            tenant_mtu: 1450,
            veth_path: weft_datapath::Path::Direct,
            tap_path: weft_datapath::Path::Device,
            seed: self.net.rng().draw(),
            limits: nve::Limits::default(),
            timing: nve::Timing::default(),
        };
        let mut core = Core::new(config);
        // As the agent's watch of NVEs says before anything else happens.
        for other in 0..self.plan.nves {
            let (v4, v6) = rlocs(other);
            let rlocs = [IpAddr::V4(v4), IpAddr::V6(v6)].into_iter().flat_map(Rloc::new).collect();
            core.handle_fact(nve::Fact::Nve(xtr_id(other), rlocs));
        }
        while core.poll_output().is_some() {}
        core
    }

    // ===== the script's verbs =====

    /// The time.
    #[must_use]
    pub const fn now(&self) -> Time {
        self.now
    }

    /// The store.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// What was seen so far.
    #[must_use]
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The network, to change how it behaves.
    pub const fn net(&mut self) -> &mut Net {
        &mut self.net
    }

    /// An Oracle's core, while that runs.
    #[must_use]
    pub fn oracle(&self, oracle: usize) -> Option<&Shard> {
        self.oracles.get(oracle)?.shard.as_ref()
    }

    /// The identity of an NVE.
    #[must_use]
    pub fn xtr(&self, nve: usize) -> XtrId {
        xtr_id(nve)
    }

    /// What an Oracle reported since the last call.
    pub fn take_events(&mut self, oracle: usize) -> Vec<(Time, Event)> {
        self.oracles.get_mut(oracle).map(|site| std::mem::take(&mut site.events)).unwrap_or_default()
    }

    /// The `m`-th tenant system that `nve` is meant to have.
    #[must_use]
    pub fn tsi(&self, nve: usize, m: usize) -> TsiId {
        let vn = u32::try_from(m).unwrap_or(0) % self.plan.vns.max(1) + 1;
        let (vni, name) = (Vni::new(vn), Name::new(format!("t{nve}-{m}")));
        match (vni, name) {
            (Ok(vni), Ok(name)) => TsiId { vni, name },
            // 1 to 2^24 and letters, digits and a dash.
            _ => unreachable!(),
        }
    }

    /// Attaches every tenant system where it is meant to be.
    pub fn attach_all(&mut self) {
        for nve in 0..self.plan.nves {
            for m in 0..self.plan.tsis {
                let tsi = self.tsi(nve, m);
                self.attach(nve, &tsi, None);
            }
        }
    }

    /// A hypervisor attaches a tenant system; with the addresses of `like`, if given.
    pub fn attach(&mut self, nve: usize, tsi: &TsiId, like: Option<&Grant>) {
        self.call_attach(nve, tsi, like, TsiState::Activated, true);
    }

    /// A hypervisor detaches a tenant system.
    pub fn detach(&mut self, nve: usize, tsi: &TsiId) {
        self.call_detach(nve, tsi, true);
    }

    /// An operator gives a dead host's tenant system to another NVE, whose hypervisor then attaches it.
    pub fn take_over(&mut self, tsi: &TsiId, nve: usize) {
        let (_, commit) = self.store.name_next(tsi, nve_fact(nve).name);
        self.commit(commit);
        self.attach(nve, tsi, None);
    }

    /// A tenant system at `nve` looks for an address, up to `tries` times, a second apart.
    pub fn ask(&mut self, nve: usize, from: &TsiId, target: TenantIp, tries: u32) {
        self.wanted.insert((nve, from.clone(), target));
        self.at(Duration::ZERO, Ev::Tenant { nve, tsi: from.clone(), target, tries });
    }

    /// At each NVE tenant systems look for `count` others of their VN, drawn at random, within a second.
    pub fn ask_all(&mut self, count: usize) {
        let mut by_vn: BTreeMap<Vni, Vec<Vec<TenantIp>>> = BTreeMap::new();
        for grant in self.store.grants() {
            by_vn.entry(grant.tsi.vni).or_default().push(grant.ips.iter().copied().collect());
        }
        for nve in 0..self.plan.nves {
            let (_, own) = self.store.grants_of(xtr_id(nve));
            if own.is_empty() || !self.nves.get(nve).is_some_and(|site| site.agent) {
                continue;
            }
            for _ in 0..count {
                let Some(from) = self.pick(&own).map(|grant| grant.tsi.clone()) else { continue };
                let Some(ips) = by_vn.get(&from.vni).and_then(|all| self.pick(all).cloned()) else {
                    continue;
                };
                let Some(target) = self.pick(&ips).copied() else { continue };
                self.wanted.insert((nve, from.clone(), target));
                let jitter = self.jitter(1_000);
                self.at(jitter, Ev::Tenant { nve, tsi: from, target, tries: 60 });
            }
        }
    }

    /// Whoever looked for an address looks for it again within a second: a tenant system that was moved has
    /// forgotten what it was told, and so has its NVE.
    pub fn ask_again(&mut self) {
        for (nve, tsi, target) in self.wanted.clone() {
            let jitter = self.jitter(1_000);
            self.at(jitter, Ev::Tenant { nve, tsi, target, tries: 60 });
        }
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        let at = self.net.rng().below(u64::try_from(all.len()).unwrap_or(u64::MAX));
        all.get(usize::try_from(at).unwrap_or(0))
    }

    /// An operator changes how NVEs learn in a VN.
    pub fn set_learning(&mut self, vni: Vni, learning: Learning) {
        let Some(spec) = self.store.vns().find(|spec| spec.vni == vni) else { return };
        let spec = VnSpec { learning, ..spec.clone() };
        // Who hears of it when, differs: below.
        self.store.set_learning(spec.name.clone(), learning);
        for oracle in 0..self.oracles.len() {
            let boot = self.oracles.get(oracle).map_or(0, |o| o.boot);
            let delay = self.jitter(5);
            self.at(delay, Ev::Fact { oracle, boot, fact: Fact::Vn(spec.clone()) });
        }
        for nve in 0..self.nves.len() {
            if self.holds_in(nve, vni) {
                let delay = self.jitter(5);
                self.at(delay, Ev::Vn { nve, spec: spec.clone() });
            }
        }
    }

    /// Whether an NVE owns a tenant system in a VN.
    pub(crate) fn holds_in(&self, nve: usize, vni: Vni) -> bool {
        self.store.grants_of(xtr_id(nve)).1.iter().any(|grant| grant.tsi.vni == vni)
    }

    /// An NVE's session is lost, for no reason that lasts.
    pub fn lose_session(&mut self, nve: usize, oracle: usize) {
        let session = self.nves.get(nve).and_then(|site| site.sessions.get(oracle).copied().flatten());
        if let Some(session) = session {
            self.at(Duration::ZERO, Ev::Lost { session, silent: Duration::ZERO });
        }
    }

    /// How many addresses an NVE was pushed.
    #[must_use]
    pub fn pushed(&self, nve: usize) -> u64 {
        self.nves.get(nve).map_or(0, |site| site.core.counters().pushed)
    }

    /// An Oracle's process dies with all it had in memory.
    pub fn crash_oracle(&mut self, oracle: usize) {
        if let Some(site) = self.oracles.get_mut(oracle) {
            site.shard = None;
            site.boot += 1;
            site.wake = None;
        }
        let lost: Vec<u64> =
            self.sessions.iter().filter(|(_, s)| s.oracle == oracle).map(|(id, _)| *id).collect();
        for session in lost {
            self.at(Duration::from_millis(1), Ev::Lost { session, silent: Duration::ZERO });
        }
    }

    /// It starts again after a while.
    pub fn restart_oracle(&mut self, oracle: usize, after: Duration) {
        self.at(after, Ev::Restart(oracle));
    }

    /// An NVE's agent dies; its data path goes on.
    pub fn kill_agent(&mut self, nve: usize) {
        self.kill(nve, false);
    }

    /// A host dies.
    pub fn kill_host(&mut self, nve: usize) {
        self.kill(nve, true);
    }

    fn kill(&mut self, nve: usize, host: bool) {
        let (noticed, silent) =
            if host { (ALIVE, ALIVE) } else { (Duration::from_millis(1), Duration::ZERO) };
        let Some(site) = self.nves.get_mut(nve) else { return };
        site.agent = false;
        site.host &= !host;
        site.boot += 1;
        self.forget_calls(nve);
        let Some(site) = self.nves.get_mut(nve) else { return };
        for session in site.sessions.clone().into_iter().flatten() {
            self.at(noticed, Ev::Lost { session, silent });
        }
    }

    /// Cuts an NVE and an Oracle off from each other, or heals that.
    pub fn cut(&mut self, nve: usize, oracle: usize, cut: bool) {
        self.net.set_cut(Host::Nve(nve), Host::Oracle(oracle), cut);
        let session = self.nves.get(nve).and_then(|site| site.sessions.get(oracle).copied().flatten());
        if let (true, Some(session)) = (cut, session) {
            self.at(ALIVE, Ev::Lost { session, silent: ALIVE });
        }
    }

    /// Where `nve` sends what is for an address; none when it knows no way.
    #[must_use]
    pub fn way(&self, nve: usize, vni: Vni, ip: TenantIp) -> Option<Rloc> {
        let site = self.nves.get(nve)?;
        let tables = site.core.tables();
        let mac = match tables.neighbours.get(&(vni, ip))? {
            weft_datapath::Neighbour::At(mac) => *mac,
            _ => return None,
        };
        match tables.fdb.get(&(vni, mac))? {
            weft_datapath::Location::Remote { rloc, .. } => Some(*rloc),
            weft_datapath::Location::Local(_) => Rloc::new(site.v4.into()).ok(),
            _ => None,
        }
    }

    /// Lets `span` pass.
    pub fn run(&mut self, span: Duration) {
        let until = self.now + span;
        while let Some(((at, _), _)) = self.queue.first_key_value().filter(|((at, _), _)| *at <= until) {
            self.now = (*at).max(self.now);
            if let Some((_, event)) = self.queue.pop_first() {
                self.stats.steps += 1;
                self.happen(event);
            }
        }
        self.now = until;
    }

    /// Runs until nothing is wrong any more, looking every half second, at most for `ceiling`. Returns how
    /// long it took.
    pub fn settle(&mut self, ceiling: Duration) -> Option<Duration> {
        let start = self.now;
        loop {
            if self.problems().is_empty() {
                return Some(self.now.since(start));
            }
            if self.now.since(start) >= ceiling {
                return None;
            }
            self.run(Duration::from_millis(500));
        }
    }
}
