//! What happens in a simulated data centre: events in the order of their time.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use weft_datapath::{Action, IfIndex, Ingress, Learned, Neighbour, Punt, decide};
use weft_lisp::{MapReply, MessageType};
use weft_model::{BootId, Grant, Rloc, TenantIp, Time, TsiId};
use weft_nve::core as nve;
use weft_nve::core::{ApiCall, Core, Output, Refused};
use weft_oracle::core::{Event, Fact, Limits, Shard, ShardConfig, Transmit};

use crate::calls::eids;
use crate::check::misdelivers;
use crate::frames;
use crate::names::{PORT, flat, nve_of, xtr_id};
use crate::net::{ALIVE, Host};
use crate::store::Commit;
use crate::world::{Ev, World};

/// From the store to an Oracle or an NVE.
pub(crate) const WATCH: Duration = Duration::from_millis(1);
/// A tenant that gets no answer asks again after this.
const TENANT_RETRY: Duration = Duration::from_secs(1);
/// A watch that is broken is taken up again after this, as agents do.
const WATCH_AGAIN: Duration = Duration::from_millis(500);
/// A call that reaches no Oracle for so long is given up.
const CALL: Duration = Duration::from_secs(10);
/// The first wait before a new owner is written down again, and the longest.
const SUCCEED: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

impl World {
    pub(crate) fn at(&mut self, delay: Duration, event: Ev) {
        self.sequence += 1;
        self.queue.insert((self.now + delay, self.sequence), event);
    }

    pub(crate) fn jitter(&mut self, millis: u64) -> Duration {
        Duration::from_micros(self.net.rng().below(millis * 1_000))
    }

    pub(crate) fn happen(&mut self, event: Ev) {
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
            Ev::Lost { session, silent } => self.lost(session, silent),
            Ev::EndAtNve { session } => self.end_at_nve(session),
            Ev::EndAtOracle { session, silent } => self.end_at_oracle(session, silent),
            Ev::Fact { oracle, boot, fact } => {
                self.with_shard(oracle, boot, |shard, now, _| shard.handle_fact(now, fact));
            }
            Ev::NotEnded { oracle, boot, tsi, next } => {
                self.with_shard(oracle, boot, |shard, now, _| shard.handle_not_ended(now, &tsi, next));
            }
            Ev::Watch { nve } => self.watch(nve),
            Ev::Grants { nve, boot, revision, grants } if self.runs_since(nve, boot) => {
                self.with_core(nve, |core, _| core.handle_fact(nve::Fact::Grants(revision, grants)));
                self.persist(nve);
            }
            Ev::Vn { nve, spec } => {
                self.with_core(nve, |core, _| core.handle_fact(nve::Fact::Vn(spec)));
                self.persist(nve);
            }
            Ev::Call { nve, boot, call, since, again } => {
                // Who would try again is no more.
                if !again || self.runs_since(nve, boot) {
                    self.call(nve, boot, call, since);
                }
            }
            Ev::Granted { nve, boot, call, answer } if self.runs_since(nve, boot) => {
                self.with_core(nve, |core, now| core.handle_granted(now, call, *answer));
            }
            Ev::Released { nve, boot, call, answer } if self.runs_since(nve, boot) => {
                self.with_core(nve, |core, _| core.handle_released(call, answer));
            }
            // Of an agent that is no more.
            Ev::Grants { .. } | Ev::Granted { .. } | Ev::Released { .. } => {}
            Ev::Succeed { oracle, boot, tsi, nve, epoch, wait } => {
                // What an Oracle had not written down dies with it.
                if self.oracles.get(oracle).is_none_or(|site| site.boot != boot) {
                } else if self.net.rng().chance(self.plan.succeed_fails) {
                    let again = (wait * 2).min(SUCCEED.1);
                    self.at(wait, Ev::Succeed { oracle, boot, tsi, nve, epoch, wait: again });
                } else {
                    let commit = self.store.succeed(&tsi, nve, epoch);
                    self.commit(commit);
                }
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
            // It may have died and been started more than once since.
            Ev::Restart(oracle) if self.oracles.get(oracle).is_some_and(|site| site.shard.is_none()) => {
                self.boot(oracle);
            }
            Ev::Restart(_) => {}
            Ev::Again(event) => self.api(*event),
        }
    }

    pub(crate) fn boot(&mut self, oracle: usize) {
        let (seed, now) = (self.net.rng().draw(), self.now);
        let Some(site) = self.oracles.get_mut(oracle) else { return };
        let boot_id = BootId(site.boot + 1);
        let limits = Limits { push_octets: self.plan.push_octets, ..Limits::default() };
        let mut shard = Shard::new(ShardConfig { boot_id, seed, limits, ..ShardConfig::default() }, now);
        for spec in self.store.vns() {
            shard.handle_fact(now, Fact::Vn(spec.clone()));
        }
        for nve in self.store.nves() {
            shard.handle_fact(now, Fact::Nve(nve.clone()));
        }
        for grant in self.store.grants() {
            shard.handle_fact(now, Fact::Grant(grant.clone()));
        }
        shard.handle_fact(now, Fact::FactsLoaded);
        site.shard = Some(shard);
        self.drain_oracle(oracle);
    }

    pub(crate) fn with_shard(
        &mut self,
        oracle: usize,
        boot: u64,
        act: impl FnOnce(&mut Shard, Time, IpAddr),
    ) {
        let now = self.now;
        let Some(site) = self.oracles.get_mut(oracle).filter(|site| site.boot == boot) else { return };
        let to = site.addr.ip();
        if let Some(shard) = &mut site.shard {
            act(shard, now, to);
            self.drain_oracle(oracle);
        }
    }

    pub(crate) fn with_core(&mut self, nve: usize, act: impl FnOnce(&mut Core, Time)) {
        let now = self.now;
        if let Some(site) = self.nves.get_mut(nve).filter(|site| site.agent) {
            act(&mut site.core, now);
            self.drain_nve(nve);
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
        if let Some(punt) = vap.and_then(|vap| self.missed(nve, vap, &grant, target)) {
            self.with_core(nve, |core, now| core.handle_punt(now, &punt));
        }
        self.at(TENANT_RETRY, Ev::Tenant { nve, tsi, target, tries: tries - 1 });
    }

    /// What its NVE's agent is told of when a tenant that knows an address sends to it.
    fn missed(&self, nve: usize, vap: IfIndex, grant: &Grant, target: TenantIp) -> Option<Punt> {
        let (tables, vni) = (&self.nves.get(nve)?.tables, grant.tsi.vni);
        let Neighbour::At(dst) = *tables.neighbours.get(&(vni, target))? else { return None };
        let frame = frames::packet(grant, dst, target)?;
        let verdict = decide(tables, &Learned::default(), Ingress::Vap(vap), &frame);
        let reason = match verdict.action {
            Action::Punt(reason) => reason,
            _ => verdict.also?,
        };
        Some(Punt { vap, vni, reason, dst, from: None, frame })
    }

    /// A message of /v1, or the answer to one, goes out. If it is not there in time, so it does on another connection.
    fn api(&mut self, event: Ev) {
        match self.net.segment() {
            Some(delay) => self.at(delay, event),
            None => self.at(ALIVE, Ev::Again(Box::new(event))),
        }
    }

    /// An Oracle that answers an NVE on /v1, if there is one.
    fn reachable(&self, nve: usize) -> bool {
        (0..self.oracles.len()).any(|o| {
            self.net.reaches(Host::Nve(nve), Host::Oracle(o))
                && self.oracles.get(o).is_some_and(|o| o.shard.is_some())
        })
    }

    /// A call of /v1 reaches the store, if any Oracle can be reached.
    fn call(&mut self, nve: usize, boot: u64, call: ApiCall, since: Time) {
        let lost = !self.reachable(nve);
        if lost && self.now.since(since) < CALL {
            return self.at(Duration::from_secs(1), Ev::Call { nve, boot, call, since, again: true });
        }
        let unanswered = || Refused::Unanswered { message: "no Oracle answers".to_owned() };
        match call {
            ApiCall::Grant { call, vn, name, mac, ips, .. } => {
                if lost {
                    let answer = Box::new(Err(unanswered()));
                    return self.at(Duration::ZERO, Ev::Granted { nve, boot, call, answer });
                }
                let (answer, commit) = self.store.attach(vn, name, (xtr_id(nve), boot), mac, ips);
                self.commit(commit);
                let answer = Box::new(answer);
                self.api(Ev::Granted { nve, boot, call, answer });
            }
            ApiCall::Release { call, vn, name, held } => {
                if lost {
                    let answer = Err(unanswered());
                    return self.at(Duration::ZERO, Ev::Released { nve, boot, call, answer });
                }
                let (answer, commit) = self.store.release(vn, name, (xtr_id(nve), boot), held);
                self.commit(commit);
                self.api(Ev::Released { nve, boot, call, answer });
            }
            // Tenants here claim no link-locals, nor does anybody change their addresses.
            ApiCall::Take { .. }
            | ApiCall::Addresses { .. }
            | ApiCall::Connections
            | ApiCall::Connect { .. }
            | ApiCall::Disconnect { .. } => {}
        }
    }

    /// Every Oracle learns of a change, and so do the NVEs that it names.
    pub(crate) fn commit(&mut self, commit: Commit) {
        let now = self.now;
        for fact in &commit.facts {
            match fact {
                Fact::Grant(grant) => {
                    let vni = grant.tsi.vni;
                    for eid in eids(grant) {
                        self.granted.entry((vni, eid)).or_insert(now);
                    }
                }
                Fact::GrantGone(_) if self.granted.len() < 10_000 => {
                    let held = self.store.grants().flat_map(|g| eids(g).map(|eid| (g.tsi.vni, eid)));
                    let held: std::collections::BTreeSet<_> = held.collect();
                    self.granted.retain(|key, _| held.contains(key));
                }
                Fact::GrantGone(_) => self.granted.clear(),
                _ => {}
            }
        }
        for oracle in 0..self.oracles.len() {
            let boot = self.oracles.get(oracle).map_or(0, |o| o.boot);
            for fact in &commit.facts {
                self.at(WATCH, Ev::Fact { oracle, boot, fact: fact.clone() });
            }
        }
        for nve in commit.named.iter().map(|nve| nve_of(*nve)) {
            self.tell_grants(nve);
        }
    }

    /// An NVE's watch has something to say.
    pub(crate) fn tell_grants(&mut self, nve: usize) {
        if let Some(site) = self.nves.get_mut(nve).filter(|site| !site.news) {
            site.news = true;
            self.at(WATCH, Ev::Watch { nve });
        }
    }

    fn watch(&mut self, nve: usize) {
        if !self.reachable(nve) {
            return self.at(WATCH_AGAIN, Ev::Watch { nve });
        }
        let (revision, grants) = self.store.grants_of(xtr_id(nve));
        let delay = self.net.segment().unwrap_or(ALIVE);
        let now = self.now;
        let Some(site) = self.nves.get_mut(nve) else { return };
        site.news = false;
        // What is said on it comes in order.
        site.watched = (now + delay).max(site.watched);
        let (at, boot) = (site.watched, site.boot);
        self.at(at.since(now), Ev::Grants { nve, boot, revision, grants });
    }

    fn runs_since(&self, nve: usize, boot: u64) -> bool {
        self.nves.get(nve).is_some_and(|site| site.agent && site.boot == boot)
    }

    pub(crate) fn drain_nve(&mut self, nve: usize) {
        loop {
            let Some(site) = self.nves.get_mut(nve) else { return };
            let Some(output) = site.core.poll_output() else { break };
            let (v4, v6) = (site.v4, site.v6);
            match output {
                Output::Apply(op, ticket) => {
                    site.tables.apply(&op);
                    if let Some(wrong) = misdelivers(&site.tables, &op) {
                        self.violations.push(format!("NVE {nve}: {wrong}"));
                    }
                    if let Some(ticket) = ticket {
                        site.core.handle_applied(ticket, Ok(()));
                    }
                }
                Output::Datagram { to, octets } => {
                    let from = if to.is_ipv4() { IpAddr::V4(v4) } else { IpAddr::V6(v6) };
                    self.send_to_oracle(nve, SocketAddr::new(from, PORT), to, octets);
                }
                Output::Frame { oracle, octets } => {
                    let id = site.sessions.get(oracle).copied().flatten();
                    self.segment(id, true, octets);
                }
                Output::Call(call) => {
                    let (boot, since) = (site.boot, self.now);
                    self.api(Ev::Call { nve, boot, call, since, again: false });
                }
                Output::Answer { to, octets } => {
                    let from = if to.is_ipv4() { IpAddr::V4(v4) } else { IpAddr::V6(v6) };
                    self.send_to_asker(nve, from, to, &octets);
                }
                Output::Inject(..) => self.stats.answers += 1,
                // All that was learned is in use.
                Output::LastUse { vni, eid, .. } => {
                    site.core.handle_last_use(self.now, vni, eid, Some(Duration::ZERO));
                }
                Output::Persist(attachments) => {
                    site.disk = (attachments, site.core.vns().cloned().collect());
                }
                Output::Attached(call, answer) => self.answered(nve, call, answer.map(drop)),
                Output::Detached(call, answer) | Output::Deactivated(call, answer) => {
                    self.answered(nve, call, answer);
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

    fn send_to_oracle(&mut self, nve: usize, from: SocketAddr, to: SocketAddr, octets: Vec<u8>) {
        self.stats.datagrams += 1;
        let Some(oracle) = self.oracles.iter().position(|site| site.addr == to) else { return };
        let boot = self.oracles.get(oracle).map_or(0, |o| o.boot);
        for delay in self.net.datagram(Host::Nve(nve), Host::Oracle(oracle)).into_iter().flatten() {
            self.at(delay, Ev::ToOracle { oracle, boot, from, octets: octets.clone() });
        }
    }

    /// The answer of an NVE that an Oracle has passed a question on to.
    fn send_to_asker(&mut self, nve: usize, from: IpAddr, to: SocketAddr, octets: &[u8]) {
        self.stats.datagrams += 1;
        self.stats.forwarded += 1;
        let Some(asker) = self.by_ip.get(&to.ip()).copied().filter(|_| to.port() == PORT) else {
            self.violations.push(format!("NVE {nve} answers to {to}, which is nobody's"));
            return;
        };
        for delay in self.net.datagram(Host::Nve(nve), Host::Nve(asker)).into_iter().flatten() {
            self.at(delay, Ev::ToNve { nve: asker, from, octets: octets.to_vec() });
        }
    }

    fn drain_oracle(&mut self, oracle: usize) {
        let now = self.now;
        loop {
            let Some(site) = self.oracles.get_mut(oracle) else { return };
            let Some(event) = site.shard.as_mut().and_then(Shard::poll_event) else { break };
            match &event {
                Event::SuccessorActive { tsi, nve, epoch } => {
                    let (boot, delay) = (site.boot, self.plan.succeed_delay);
                    let (tsi, nve, epoch, wait) = (tsi.clone(), *nve, *epoch, SUCCEED.0);
                    self.at(delay, Ev::Succeed { oracle, boot, tsi, nve, epoch, wait });
                }
                Event::Overrun { session, .. } => {
                    let (session, silent) = (session.0, Duration::ZERO);
                    self.at(Duration::ZERO, Ev::Lost { session, silent });
                }
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
                Transmit::Udp { dst, src } => {
                    self.send_to_nve(oracle, dst, src.unwrap_or(addr.ip()), &octets);
                }
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

    fn send_to_nve(&mut self, oracle: usize, dst: SocketAddr, from: IpAddr, octets: &[u8]) {
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
