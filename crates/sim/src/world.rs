//! The data centre: Oracles, NVEs, their tenants, and what happens to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use weft_datapath::{IfIndex, VapKind};
use weft_lisp::tcp::FrameDecoder;
use weft_lisp::{MapReply, MessageType};
use weft_model::{
    BootId, Eid, Grant, Learning, MacAddr, Name, NveName, Origin, Reply, Rloc, Subnets, TenantIp, Time,
    TsiId, VnName, VnSpec, Vni, XtrId,
};
use weft_nve::core as nve;
use weft_nve::core::{ApiCall, Attach, CallId, Core, Device, Granted, OracleAddr, Output, Refused};
use weft_oracle::core::{Event, Fact, NveFact, SessionEvent, SessionId, Shard, ShardConfig, Transmit};

use crate::frames;
use crate::net::{Host, Link, Net};
use crate::store::{Change, Store};

/// UDP port of the LISP control plane.
const PORT: u16 = 4342;
/// From the store to an Oracle or an NVE.
const WATCH: Duration = Duration::from_millis(1);
/// A host that is cut off or dead is noticed on its session after this.
const KEEPALIVE: Duration = Duration::from_secs(3);
/// A tenant that gets no answer asks again after this.
const TENANT_RETRY: Duration = Duration::from_secs(1);

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
}

impl Default for Plan {
    fn default() -> Self {
        Self { seed: 1, nves: 10, tsis: 4, vns: 2, oracles: 2, link: Link::default() }
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
    /// Attaches and detaches that ended well.
    pub calls: u64,
}

struct OracleSite {
    shard: Option<Shard>,
    boot: u64,
    addr: SocketAddr,
    wake: Option<Time>,
    events: Vec<(Time, Event)>,
}

struct NveSite {
    core: Core,
    xtr: XtrId,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
    /// The agent runs.
    agent: bool,
    /// The host, and with it the data path, lives.
    host: bool,
    wake: Option<Time>,
    sessions: Vec<Option<u64>>,
}

struct Session {
    nve: usize,
    oracle: usize,
    /// When the last segment in each direction arrives: the next one does not overtake it.
    to_oracle: Time,
    to_nve: Time,
}

enum Ev {
    ToOracle { oracle: usize, boot: u64, from: SocketAddr, octets: Vec<u8> },
    ToNve { nve: usize, from: IpAddr, octets: Vec<u8> },
    SegmentToOracle { session: u64, octets: Vec<u8> },
    SegmentToNve { session: u64, octets: Vec<u8> },
    Connect { nve: usize, oracle: usize },
    Lost { session: u64 },
    Fact { oracle: usize, boot: u64, fact: Fact },
    Grants { nve: usize },
    Call { nve: usize, call: ApiCall },
    Granted { nve: usize, call: CallId, answer: Result<Granted, Refused> },
    Released { nve: usize, call: CallId },
    Echo { oracle: usize, boot: u64, rloc: Rloc, nonce: u64 },
    Tenant { nve: usize, tsi: TsiId, target: TenantIp, tries: u32 },
    WakeOracle(usize),
    WakeNve(usize),
    Restart(usize),
}

/// A simulated data centre.
pub struct World {
    plan: Plan,
    now: Time,
    queue: BTreeMap<(Time, u64), Ev>,
    sequence: u64,
    net: Net,
    store: Store,
    oracles: Vec<OracleSite>,
    nves: Vec<NveSite>,
    sessions: BTreeMap<u64, Session>,
    next_session: u64,
    next_call: u64,
    by_ip: BTreeMap<IpAddr, usize>,
    /// Since when an address is granted.
    granted: BTreeMap<(Vni, Eid), Time>,
    /// What tenants want to reach, from where.
    wanted: BTreeSet<(usize, TsiId, TenantIp)>,
    violations: Vec<String>,
    stats: Stats,
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
            by_ip: BTreeMap::new(),
            granted: BTreeMap::new(),
            wanted: BTreeSet::new(),
            violations: Vec::new(),
            stats: Stats::default(),
            plan,
        };
        for n in 1..=world.plan.vns.max(1) {
            if let Some(spec) = vn_spec(n) {
                world.store.create(spec);
            }
        }
        for n in 0..world.plan.nves {
            let (v4, v6) = rlocs(n);
            world.by_ip.insert(v4.into(), n);
            world.by_ip.insert(v6.into(), n);
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
        let xtr = xtr_id(n);
        let config = nve::Config {
            xtr_id: xtr,
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
        while core.poll_output().is_some() {}
        let sessions = vec![None; addrs.len()];
        NveSite { core, xtr, v4, v6, agent: true, host: true, wake: None, sessions }
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
        self.next_call += 1;
        let call = CallId(self.next_call);
        let index = u32::try_from(self.next_call).unwrap_or(u32::MAX).saturating_add(100);
        let device = Device { name: format!("tap{index}"), index: IfIndex(index), kind: VapKind::Tap };
        let attach = Attach {
            vn: vn_name(tsi.vni.get()),
            name: tsi.name.clone(),
            device,
            mac: like.map(|grant| grant.mac),
            ips: like.map(|grant| grant.ips.clone()).unwrap_or_default(),
        };
        if let Some(site) = self.nves.get_mut(nve).filter(|site| site.agent) {
            site.core.handle_attach(call, attach);
            self.drain_nve(nve);
        }
    }

    /// A hypervisor detaches a tenant system.
    pub fn detach(&mut self, nve: usize, tsi: &TsiId) {
        self.next_call += 1;
        let call = CallId(self.next_call);
        if let Some(site) = self.nves.get_mut(nve).filter(|site| site.agent) {
            site.core.handle_detach(call, vn_name(tsi.vni.get()), tsi.name.clone(), false);
            self.drain_nve(nve);
        }
    }

    /// An operator gives a dead host's tenant system to another NVE, whose hypervisor then attaches it.
    pub fn take_over(&mut self, tsi: &TsiId, nve: usize) {
        if let Some(change) = self.store.take_over(tsi, xtr_id(nve)) {
            self.commit(change, true);
            self.attach(nve, tsi, None);
        }
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

    fn pick<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        let at = self.net.rng().below(u64::try_from(all.len()).unwrap_or(u64::MAX));
        all.get(usize::try_from(at).unwrap_or(0))
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
            self.at(Duration::from_millis(1), Ev::Lost { session });
        }
    }

    /// It starts again after a while.
    pub fn restart_oracle(&mut self, oracle: usize, after: Duration) {
        self.at(after, Ev::Restart(oracle));
    }

    /// An NVE's agent dies; its data path goes on.
    pub fn kill_agent(&mut self, nve: usize) {
        self.kill(nve, false, Duration::from_millis(1));
    }

    /// A host dies.
    pub fn kill_host(&mut self, nve: usize) {
        self.kill(nve, true, KEEPALIVE);
    }

    fn kill(&mut self, nve: usize, host: bool, noticed: Duration) {
        let Some(site) = self.nves.get_mut(nve) else { return };
        site.agent = false;
        site.host &= !host;
        for session in site.sessions.clone().into_iter().flatten() {
            self.at(noticed, Ev::Lost { session });
        }
    }

    /// Cuts an NVE and an Oracle off from each other, or heals that.
    pub fn cut(&mut self, nve: usize, oracle: usize, cut: bool) {
        self.net.set_cut(Host::Nve(nve), Host::Oracle(oracle), cut);
        let session = self.nves.get(nve).and_then(|site| site.sessions.get(oracle).copied().flatten());
        if let (true, Some(session)) = (cut, session) {
            self.at(KEEPALIVE, Ev::Lost { session });
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

    // ===== what must hold =====

    /// What is wrong now, were all messages to have arrived: a living tenant system that an Oracle does
    /// not have registered, or at another owner than the store; an address that a tenant wants and its NVE
    /// knows no or a wrong way to; and every lie told so far.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = self.violations.clone();
        let mut owners: BTreeMap<(Vni, Eid), (usize, MacAddr)> = BTreeMap::new();
        for grant in self.store.grants() {
            let owner = nve_of(grant.owner);
            owners.insert((grant.tsi.vni, Eid::Mac(grant.mac.get())), (owner, grant.mac.get()));
            for ip in &grant.ips {
                owners.insert((grant.tsi.vni, Eid::Ip(*ip)), (owner, grant.mac.get()));
            }
        }
        self.check_oracles(&owners, &mut problems);
        for (n, site) in self.nves.iter().enumerate().filter(|(_, site)| site.agent) {
            for entry in site.core.cache() {
                let owner = owners.get(&(entry.vni, entry.eid));
                let living = owner.filter(|(owner, _)| self.lives(*owner));
                let rloc = owner.and_then(|(owner, _)| Rloc::new(rlocs(*owner).0.into()).ok());
                match (entry.mac, living) {
                    (None, Some(_)) => problems.push(format!("NVE {n} holds a Negative for {}", entry.eid)),
                    (Some(_), _) if entry.rloc.is_some() && entry.rloc != rloc => {
                        problems.push(format!(
                            "NVE {n} holds {:?} for {}, true is {rloc:?}",
                            entry.rloc, entry.eid
                        ));
                    }
                    _ => {}
                }
            }
        }
        for (nve, from, ip) in &self.wanted {
            let asks = self.lives(*nve) && self.store.grant(from).is_some_and(|g| g.owner == xtr_id(*nve));
            let owner = owners.get(&(from.vni, Eid::Ip(*ip))).filter(|(owner, _)| self.lives(*owner));
            if let (Some((owner, _)), true) = (owner, asks)
                && self.way(*nve, from.vni, *ip) != Rloc::new(rlocs(*owner).0.into()).ok()
            {
                problems.push(format!("NVE {nve} has no way to {ip} in {}", from.vni));
            }
        }
        problems
    }

    fn lives(&self, nve: usize) -> bool {
        self.nves.get(nve).is_some_and(|site| site.agent)
    }

    fn check_oracles(&self, owners: &BTreeMap<(Vni, Eid), (usize, MacAddr)>, problems: &mut Vec<String>) {
        for (o, site) in self.oracles.iter().enumerate() {
            let Some(shard) = &site.shard else { continue };
            let mut found = 0;
            for mapping in shard.mappings(self.now, None) {
                let Some((owner, _)) = owners.get(&(mapping.vni, mapping.eid)) else {
                    problems.push(format!("Oracle {o} has {} that nobody is granted", mapping.eid));
                    continue;
                };
                found += 1;
                let connected = self.nves.get(*owner).is_some_and(|n| n.agent && n.sessions[o].is_some());
                let registered = mapping.origin == Origin::Registration && !mapping.stale;
                if mapping.owner != xtr_id(*owner) {
                    problems.push(format!("Oracle {o} has {} at {}", mapping.eid, mapping.owner));
                } else if connected && !registered {
                    problems.push(format!("Oracle {o} has {} not registered", mapping.eid));
                }
            }
            if found != owners.len() {
                problems.push(format!("Oracle {o} has {found} of {} mappings", owners.len()));
            }
        }
    }

    // ===== what happens =====

    fn at(&mut self, delay: Duration, event: Ev) {
        self.sequence += 1;
        self.queue.insert((self.now + delay, self.sequence), event);
    }

    fn jitter(&mut self, millis: u64) -> Duration {
        Duration::from_micros(self.net.rng().below(millis * 1_000))
    }

    fn happen(&mut self, event: Ev) {
        match event {
            Ev::ToOracle { oracle, boot, from, octets } => {
                self.with_shard(oracle, boot, |shard, now, to| shard.handle_datagram(now, from, to, &octets));
            }
            Ev::ToNve { nve, from, octets } => {
                self.with_core(nve, |core, now| core.handle_datagram(now, from, &octets));
            }
            Ev::SegmentToOracle { session, octets } => self.segment_to_oracle(session, &octets),
            Ev::SegmentToNve { session, octets } => self.segment_to_nve(session, &octets),
            Ev::Connect { nve, oracle } => self.connect(nve, oracle),
            Ev::Lost { session } => self.lost(session),
            Ev::Fact { oracle, boot, fact } => {
                self.with_shard(oracle, boot, |shard, now, _| shard.handle_fact(now, fact));
            }
            Ev::Grants { nve } => {
                let (revision, grants) = self.store.grants_of(xtr_id(nve));
                self.with_core(nve, |core, _| core.handle_fact(nve::Fact::Grants(revision, grants)));
            }
            Ev::Call { nve, call } => self.call(nve, call),
            Ev::Granted { nve, call, answer } => {
                self.with_core(nve, |core, now| core.handle_granted(now, call, answer));
            }
            Ev::Released { nve, call } => {
                self.with_core(nve, |core, _| core.handle_released(call, Ok(())));
            }
            Ev::Echo { oracle, boot, rloc, nonce } => {
                self.with_shard(oracle, boot, |shard, now, _| shard.handle_echo_reply(now, rloc, nonce));
            }
            Ev::Tenant { nve, tsi, target, tries } => self.tenant(nve, tsi, target, tries),
            Ev::WakeOracle(oracle) => {
                let Some(site) = self.oracles.get_mut(oracle) else { return };
                site.wake = None;
                let boot = site.boot;
                self.with_shard(oracle, boot, |shard, now, _| shard.handle_timeout(now));
            }
            Ev::WakeNve(nve) => {
                if let Some(site) = self.nves.get_mut(nve) {
                    site.wake = None;
                }
                self.with_core(nve, Core::handle_timeout);
            }
            Ev::Restart(oracle) => self.boot(oracle),
        }
    }

    fn boot(&mut self, oracle: usize) {
        let (seed, now) = (self.net.rng().draw(), self.now);
        let Some(site) = self.oracles.get_mut(oracle) else { return };
        let boot_id = BootId(site.boot + 1);
        let mut shard = Shard::new(ShardConfig { boot_id, seed, ..ShardConfig::default() }, now);
        for spec in self.store.vns() {
            shard.handle_fact(now, Fact::Vn(spec.clone()));
        }
        for n in 0..self.plan.nves {
            shard.handle_fact(now, Fact::Nve(nve_fact(n)));
        }
        for grant in self.store.grants() {
            shard.handle_fact(now, Fact::Grant(grant.clone()));
        }
        shard.handle_fact(now, Fact::FactsLoaded);
        site.shard = Some(shard);
        self.drain_oracle(oracle);
    }

    fn with_shard(&mut self, oracle: usize, boot: u64, act: impl FnOnce(&mut Shard, Time, IpAddr)) {
        let now = self.now;
        let Some(site) = self.oracles.get_mut(oracle).filter(|site| site.boot == boot) else { return };
        let to = site.addr.ip();
        if let Some(shard) = &mut site.shard {
            act(shard, now, to);
            self.drain_oracle(oracle);
        }
    }

    fn with_core(&mut self, nve: usize, act: impl FnOnce(&mut Core, Time)) {
        let now = self.now;
        if let Some(site) = self.nves.get_mut(nve).filter(|site| site.agent) {
            act(&mut site.core, now);
            self.drain_nve(nve);
        }
    }

    fn connect(&mut self, nve: usize, oracle: usize) {
        let Some(site) = self.nves.get(nve).filter(|site| site.agent) else { return };
        let up = self.oracles.get(oracle).is_some_and(|o| o.shard.as_ref().is_some_and(Shard::ready));
        if site.sessions.get(oracle).copied().flatten().is_some() {
            return;
        }
        if !up || !self.net.reaches(Host::Nve(nve), Host::Oracle(oracle)) {
            let again = Duration::from_millis(500) + self.jitter(500);
            return self.at(again, Ev::Connect { nve, oracle });
        }
        self.next_session += 1;
        let (id, xtr_id) = (self.next_session, site.xtr);
        let session = Session { nve, oracle, to_oracle: self.now, to_nve: self.now };
        self.sessions.insert(id, session);
        if let Some(slot) = self.nves.get_mut(nve).and_then(|site| site.sessions.get_mut(oracle)) {
            *slot = Some(id);
        }
        let boot = self.oracles.get(oracle).map_or(0, |o| o.boot);
        let event = SessionEvent::Up { session: SessionId(id), xtr_id };
        self.with_shard(oracle, boot, |shard, now, _| shard.handle_session(now, event));
        // As the agent does: the grants are read before anything is registered.
        let (revision, grants) = self.store.grants_of(xtr_id);
        self.with_core(nve, |core, now| {
            core.handle_fact(nve::Fact::Grants(revision, grants));
            core.handle_session(now, oracle, nve::Session::Up);
        });
    }

    fn lost(&mut self, id: u64) {
        let Some(Session { nve, oracle, .. }) = self.sessions.remove(&id) else { return };
        if let Some(slot) = self.nves.get_mut(nve).and_then(|site| site.sessions.get_mut(oracle)) {
            *slot = None;
        }
        let boot = self.oracles.get(oracle).map_or(0, |o| o.boot);
        let event = SessionEvent::Down { session: SessionId(id) };
        self.with_shard(oracle, boot, |shard, now, _| shard.handle_session(now, event));
        self.with_core(nve, |core, now| core.handle_session(now, oracle, nve::Session::Down));
        let again = Duration::from_millis(100) + self.jitter(900);
        self.at(again, Ev::Connect { nve, oracle });
    }

    fn segment_to_oracle(&mut self, id: u64, octets: &[u8]) {
        let Some(Session { oracle, .. }) = self.sessions.get(&id) else { return };
        let oracle = *oracle;
        let boot = self.oracles.get(oracle).map_or(0, |o| o.boot);
        let mut decoder = FrameDecoder::default();
        decoder.push(octets);
        while let Ok(Some(frame)) = decoder.next_frame() {
            let event = SessionEvent::Frame { session: SessionId(id), frame };
            self.with_shard(oracle, boot, |shard, now, _| shard.handle_session(now, event));
        }
    }

    fn segment_to_nve(&mut self, id: u64, octets: &[u8]) {
        let Some(Session { nve, oracle, .. }) = self.sessions.get(&id) else { return };
        let (nve, oracle) = (*nve, *oracle);
        let mut decoder = FrameDecoder::default();
        decoder.push(octets);
        while let Ok(Some(frame)) = decoder.next_frame() {
            self.with_core(nve, |core, now| core.handle_session(now, oracle, nve::Session::Frame(frame)));
        }
    }

    fn tenant(&mut self, nve: usize, tsi: TsiId, target: TenantIp, tries: u32) {
        if tries == 0 || !self.lives(nve) || self.way(nve, tsi.vni, target).is_some() {
            return;
        }
        let Some(grant) = self.store.grant(&tsi).cloned() else { return };
        let vap = self.nves.get(nve).and_then(|site| {
            let vaps = &site.core.tables().vaps;
            vaps.iter().find(|(_, vap)| vap.vni == tsi.vni && vap.mac == grant.mac).map(|(index, _)| *index)
        });
        if let Some(punt) = vap.and_then(|vap| frames::question(&grant, vap, target)) {
            self.with_core(nve, |core, now| core.handle_punt(now, &punt));
        }
        self.at(TENANT_RETRY, Ev::Tenant { nve, tsi, target, tries: tries - 1 });
    }

    /// A call of /v1 reaches the store, if any Oracle can be reached.
    fn call(&mut self, nve: usize, call: ApiCall) {
        let reachable = (0..self.oracles.len()).any(|o| {
            self.net.reaches(Host::Nve(nve), Host::Oracle(o))
                && self.oracles.get(o).is_some_and(|o| o.shard.is_some())
        });
        if !reachable {
            return self.at(Duration::from_secs(1), Ev::Call { nve, call });
        }
        let back = self.net.segment();
        match call {
            ApiCall::Grant { call, vn, name, mac, ips } => {
                let answer = self.store.attach(&vn, &name, xtr_id(nve), mac, &ips);
                let answer = answer.map(|(granted, change)| {
                    if let Some(change) = change {
                        self.commit(change, false);
                    }
                    granted
                });
                self.at(back, Ev::Granted { nve, call, answer });
            }
            ApiCall::Release { call, tsi, .. } => {
                if self.store.grant(&tsi).is_some_and(|grant| grant.owner == xtr_id(nve))
                    && let Some(change) = self.store.release(&tsi)
                {
                    self.commit(change, false);
                }
                if let Some(call) = call {
                    self.at(back, Ev::Released { nve, call });
                }
            }
            // Tenants here claim no link-locals.
            ApiCall::Take { .. } => {}
        }
    }

    /// Every Oracle learns of a change; with `tell`, the NVEs concerned do so too.
    fn commit(&mut self, change: Change, tell: bool) {
        let tsi = match &change {
            Change::Grant(grant) => grant.tsi.clone(),
            Change::Gone(tsi) => tsi.clone(),
        };
        let now = self.now;
        if let Change::Grant(grant) = &change {
            let eids = grant.ips.iter().map(|ip| Eid::Ip(*ip)).chain([Eid::Mac(grant.mac.get())]);
            for eid in eids {
                self.granted.entry((tsi.vni, eid)).or_insert(now);
            }
        } else {
            let held: BTreeSet<(Vni, Eid)> = self
                .store
                .grants()
                .filter(|_| self.granted.len() < 10_000)
                .flat_map(|g| {
                    let eids = g.ips.iter().map(|ip| Eid::Ip(*ip)).chain([Eid::Mac(g.mac.get())]);
                    eids.map(|eid| (g.tsi.vni, eid))
                })
                .collect();
            self.granted.retain(|key, _| held.contains(key));
        }
        for oracle in 0..self.oracles.len() {
            let boot = self.oracles.get(oracle).map_or(0, |o| o.boot);
            let fact = match &change {
                Change::Grant(grant) => Fact::Grant(grant.clone()),
                Change::Gone(tsi) => Fact::GrantGone(tsi.clone()),
            };
            self.at(WATCH, Ev::Fact { oracle, boot, fact });
        }
        if tell {
            for nve in 0..self.nves.len() {
                self.at(WATCH, Ev::Grants { nve });
            }
        }
    }

    fn drain_nve(&mut self, nve: usize) {
        loop {
            let Some(site) = self.nves.get_mut(nve) else { return };
            let Some(output) = site.core.poll_output() else { break };
            let (v4, v6) = (site.v4, site.v6);
            match output {
                Output::Apply(_, Some(ticket)) => site.core.handle_applied(ticket, Ok(())),
                Output::Datagram { to, octets } => {
                    let from = if to.is_ipv4() { IpAddr::V4(v4) } else { IpAddr::V6(v6) };
                    self.to_oracle(nve, SocketAddr::new(from, PORT), to, octets);
                }
                Output::Frame { oracle, octets } => {
                    let id = site.sessions.get(oracle).copied().flatten();
                    self.segment(id, true, octets);
                }
                Output::Call(call) => {
                    let delay = self.net.segment();
                    self.at(delay, Ev::Call { nve, call });
                }
                Output::Inject(..) => self.stats.answers += 1,
                Output::Attached(_, Ok(_)) | Output::Detached(_, Ok(())) => self.stats.calls += 1,
                Output::Attached(_, Err(refused)) | Output::Detached(_, Err(refused)) => {
                    self.violations.push(format!("NVE {nve}: {refused}"));
                }
                _ => {}
            }
        }
        let now = self.now;
        let Some(site) = self.nves.get_mut(nve) else { return };
        if let Some(at) = site.core.poll_timeout().filter(|at| site.wake.is_none_or(|wake| *at < wake)) {
            let at = at.max(Time(now.0 + 1));
            site.wake = Some(at);
            self.at(at.since(now), Ev::WakeNve(nve));
        }
    }

    fn to_oracle(&mut self, nve: usize, from: SocketAddr, to: SocketAddr, octets: Vec<u8>) {
        self.stats.datagrams += 1;
        let Some(oracle) = self.oracles.iter().position(|site| site.addr == to) else { return };
        let boot = self.oracles.get(oracle).map_or(0, |o| o.boot);
        for delay in self.net.datagram(Host::Nve(nve), Host::Oracle(oracle)).into_iter().flatten() {
            self.at(delay, Ev::ToOracle { oracle, boot, from, octets: octets.clone() });
        }
    }

    fn segment(&mut self, id: Option<u64>, up: bool, octets: Vec<u8>) {
        let delay = self.net.segment();
        let Some((id, session)) = id.and_then(|id| self.sessions.get_mut(&id).map(|s| (id, s))) else {
            return;
        };
        if !self.net.reaches(Host::Nve(session.nve), Host::Oracle(session.oracle)) {
            return;
        }
        let last = if up { &mut session.to_oracle } else { &mut session.to_nve };
        *last = (self.now + delay).max(*last);
        let delay = last.since(self.now);
        let event = if up {
            Ev::SegmentToOracle { session: id, octets }
        } else {
            Ev::SegmentToNve { session: id, octets }
        };
        self.at(delay, event);
    }

    fn drain_oracle(&mut self, oracle: usize) {
        let now = self.now;
        loop {
            let Some(site) = self.oracles.get_mut(oracle) else { return };
            let Some(event) = site.shard.as_mut().and_then(Shard::poll_event) else { break };
            match &event {
                Event::SuccessorActive { tsi, nve, epoch } => {
                    let change = self.store.succeed(tsi, *nve, *epoch);
                    if let Some(change) = change {
                        self.commit(change, true);
                    }
                }
                Event::Overrun { session, .. } => self.at(Duration::ZERO, Ev::Lost { session: session.0 }),
                _ => {}
            }
            if let Some(site) = self.oracles.get_mut(oracle) {
                site.events.push((now, event));
            }
        }
        let mut octets = Vec::new();
        loop {
            let Some(site) = self.oracles.get_mut(oracle) else { return };
            let (boot, addr) = (site.boot, site.addr);
            let Some(transmit) = site.shard.as_mut().and_then(|shard| shard.poll_transmit(&mut octets))
            else {
                break;
            };
            match transmit {
                Transmit::Session { id } => self.segment(Some(id.0), false, octets.clone()),
                Transmit::Udp { dst, src } => self.to_nve(oracle, dst, src.unwrap_or(addr.ip()), &octets),
                Transmit::Echo { rloc, nonce } => self.echo(oracle, boot, rloc, nonce),
            }
        }
        let Some(site) = self.oracles.get_mut(oracle) else { return };
        let next = site.shard.as_ref().and_then(Shard::poll_timeout);
        if let Some(at) = next.filter(|at| site.wake.is_none_or(|wake| *at < wake)) {
            let at = at.max(Time(now.0 + 1));
            site.wake = Some(at);
            self.at(at.since(now), Ev::WakeOracle(oracle));
        }
    }

    fn to_nve(&mut self, oracle: usize, dst: SocketAddr, from: IpAddr, octets: &[u8]) {
        self.stats.datagrams += 1;
        self.check_truth(oracle, octets);
        let Some(nve) = self.by_ip.get(&dst.ip()).copied() else {
            self.violations.push(format!("Oracle {oracle} answers to {dst}, which is nobody's"));
            return;
        };
        for delay in self.net.datagram(Host::Oracle(oracle), Host::Nve(nve)).into_iter().flatten() {
            self.at(delay, Ev::ToNve { nve, from, octets: octets.to_vec() });
        }
    }

    /// A Negative for an address that has been granted longer than the news of it takes is a lie.
    fn check_truth(&mut self, oracle: usize, octets: &[u8]) {
        if !matches!(MessageType::of(octets), Ok(MessageType::MapReply)) {
            return;
        }
        let Ok(reply) = MapReply::decode(octets) else {
            self.violations.push(format!("Oracle {oracle} sent no Map-Reply: {octets:?}"));
            return;
        };
        for record in reply.records.iter().filter(|record| record.locators.is_empty()) {
            self.stats.negatives += 1;
            let eid = weft_lisp::Eid::from_wire(record.eid, record.mask_len).ok();
            let Some((vni, eid)) = eid.and_then(flat) else { continue };
            let since = self.granted.get(&(vni, eid)).copied();
            if since.is_some_and(|since| self.now.since(since) > 2 * WATCH) {
                self.violations.push(format!("Oracle {oracle} said Negative for {eid} in {vni}, granted"));
            }
        }
    }

    fn echo(&mut self, oracle: usize, boot: u64, rloc: Rloc, nonce: u64) {
        let Some(nve) = self.by_ip.get(&rloc.get()).copied() else { return };
        let there = self.net.datagram(Host::Oracle(oracle), Host::Nve(nve))[0];
        let back = self.net.datagram(Host::Nve(nve), Host::Oracle(oracle))[0];
        if let (Some(there), Some(back), true) = (there, back, self.nves.get(nve).is_some_and(|n| n.host)) {
            self.at(there + back, Ev::Echo { oracle, boot, rloc, nonce });
        }
    }
}

fn flat(eid: weft_lisp::Eid) -> Option<(Vni, Eid)> {
    let vni = Vni::new(eid.iid()).ok()?;
    Some(match eid.addr() {
        weft_lisp::EidAddr::Mac(mac) => (vni, Eid::Mac(MacAddr(mac))),
        weft_lisp::EidAddr::Ipv4(ip) => (vni, Eid::Ip(TenantIp::new(ip.into()).ok()?)),
        weft_lisp::EidAddr::Ipv6(ip) => (vni, Eid::Ip(TenantIp::new(ip.into()).ok()?)),
    })
}

fn name(text: String) -> VnName {
    // Letters, digits and a dash.
    Name::new(text).unwrap_or_else(|_| unreachable!())
}

fn vn_name(n: u32) -> VnName {
    name(format!("vn{n}"))
}

fn vn_spec(n: u32) -> Option<VnSpec> {
    let nets = ["10.0.0.0/8", "fd00::/64"].iter().filter_map(|net| net.parse().ok()).collect();
    let (vni, subnets) = (Vni::new(n).ok()?, Subnets::new(nets).ok()?);
    Some(VnSpec { name: vn_name(n), vni, subnets, learning: Learning::Oracle, reply: Reply::Proxy })
}

fn xtr_id(n: usize) -> XtrId {
    XtrId((u128::try_from(n).unwrap_or(0) + 1).to_be_bytes())
}

fn nve_of(id: XtrId) -> usize {
    usize::try_from(u128::from_be_bytes(id.0)).unwrap_or(0).saturating_sub(1)
}

fn rlocs(n: usize) -> (Ipv4Addr, Ipv6Addr) {
    let n = u32::try_from(n).unwrap_or(0) + 1;
    let v4 = Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 16, 0, 0)) + n);
    (v4, Ipv6Addr::from(u128::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0)) + u128::from(n)))
}

fn nve_fact(n: usize) -> NveFact {
    let (v4, v6) = rlocs(n);
    let name: NveName = name(format!("host{n}"));
    let rlocs = [IpAddr::V4(v4), IpAddr::V6(v6)].into_iter().flat_map(Rloc::new).collect();
    NveFact { xtr_id: xtr_id(n), name, rlocs }
}

/// Oracles are asked over IPv4 and IPv6 in turn.
fn oracle_addr(o: usize) -> SocketAddr {
    let o16 = u16::try_from(o).unwrap_or(0);
    let ip = if o % 2 == 0 {
        IpAddr::V4(Ipv4Addr::from(u32::from(Ipv4Addr::new(192, 0, 2, 1)) + u32::from(o16)))
    } else {
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, o16 + 1))
    };
    SocketAddr::new(ip, PORT)
}
