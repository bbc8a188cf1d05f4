//! The resolver: asks the Oracle what the tables do not hold, once per address however many ask
//! here, and learns from answers and notifications.

use super::cache::{self, AbsentKey, Bound, Located, not_older, ttl_end};
use super::messages::{self, Said};
use super::proxy::{self, Query};
use super::{ApiCall, Core, Granted, Notice, Output, Refused, Timer};
use ::core::net::{IpAddr, SocketAddr};
use ::core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use weft_datapath::{IfIndex, Location, Neighbour, Op, Punt, PuntReason};
use weft_lisp::{MapRequest, MessageType};
use weft_model::{Eid, Epoch, MacAddr, Origin, TenantIp, Time, TsiId, Vni};

/// Records looked at in one reply: an answer to one question has two.
const RECORDS: usize = 8;

/// A question under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Pending {
    nonce: u64,
    tries: u32,
    /// The VAP it is asked for; none for a refresh.
    asker: Option<IfIndex>,
    /// The asking tenant system, as Source-EID.
    source: Option<Eid>,
    /// Who gets an ARP reply or advertisement.
    waiters: Vec<Query>,
}

/// Questions under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resolver {
    pending: BTreeMap<(Vni, Eid), Pending>,
    nonces: BTreeMap<u64, (Vni, Eid)>,
    /// Left unanswered a moment ago.
    held: BTreeSet<(Vni, Eid)>,
    per_vn: BTreeMap<Vni, usize>,
    per_vap: BTreeMap<IfIndex, usize>,
}

impl Resolver {
    pub(super) fn end_hold(&mut self, vni: Vni, eid: Eid) {
        self.held.remove(&(vni, eid));
    }

    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    fn insert(&mut self, key: (Vni, Eid), pending: Pending) {
        self.nonces.insert(pending.nonce, key);
        *self.per_vn.entry(key.0).or_default() += 1;
        if let Some(vap) = pending.asker {
            *self.per_vap.entry(vap).or_default() += 1;
        }
        self.pending.insert(key, pending);
    }

    fn remove(&mut self, key: &(Vni, Eid)) -> Option<Pending> {
        let pending = self.pending.remove(key)?;
        self.nonces.remove(&pending.nonce);
        decrement(&mut self.per_vn, key.0);
        if let Some(vap) = pending.asker {
            decrement(&mut self.per_vap, vap);
        }
        Some(pending)
    }
}

fn decrement<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) {
    if let std::collections::btree_map::Entry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

impl Core {
    /// A frame the data plane could not decide about.
    pub fn handle_punt(&mut self, now: Time, punt: &Punt) {
        self.counters.punts += 1;
        // The VAP may be gone by now.
        let Some(id) = self.vaps.get(&punt.vap).filter(|id| id.vni == punt.vni).cloned() else { return };
        match punt.reason {
            PuntReason::UnknownMac => {
                let source = proxy::source_mac(&punt.frame).map(Eid::Mac);
                if !punt.dst.is_group() {
                    self.ask(now, punt.vni, Eid::Mac(punt.dst), Some(punt.vap), source, None);
                }
            }
            PuntReason::ArpMiss | PuntReason::NdMiss | PuntReason::LinkLocalClaim => match Query::parse(punt)
            {
                Ok(query) if punt.reason == PuntReason::LinkLocalClaim => self.claim(now, &id, query),
                Ok(query) => self.question(now, query),
                Err(_) => self.counters.malformed_punts += 1,
            },
        }
    }

    fn question(&mut self, now: Time, query: Query) {
        let (vni, ip) = (query.vni, query.target);
        if !self.vns.get(&vni).is_some_and(|vn| cache::in_scope(vn, ip)) {
            self.counters.off_subnet += 1;
            return;
        }
        // The table may have been filled while the frame was on its way up.
        let local = self.local_ips.get(&(vni, ip)).and_then(|id| self.tsis.get(id));
        if let Some(owner) = local {
            if owner.device.index != query.vap && owner.state == super::tsi::State::Activated {
                let frame = query.answer(owner.grant.mac.get());
                self.outputs.push_back(Output::Inject(query.vap, frame));
            }
            return;
        }
        match self.cache.ips.get(&(vni, ip)) {
            Some(entry) => {
                if let Some(bound) = entry.known() {
                    self.outputs.push_back(Output::Inject(query.vap, query.answer(bound.mac)));
                }
            }
            None => {
                let source = query.asker_ip.map(Eid::Ip).or(Some(Eid::Mac(query.asker_mac)));
                self.ask(now, vni, Eid::Ip(ip), Some(query.vap), source, Some(query));
            }
        }
    }

    /// Asks for `eid` unless somebody does already.
    fn ask(
        &mut self,
        now: Time,
        vni: Vni,
        eid: Eid,
        asker: Option<IfIndex>,
        source: Option<Eid>,
        waiter: Option<Query>,
    ) {
        let key = (vni, eid);
        let limits = &self.config.limits;
        if let Some(pending) = self.resolver.pending.get_mut(&key) {
            self.counters.coalesced += 1;
            if let Some(waiter) = waiter
                && pending.waiters.len() < limits.waiters.max(1)
                && !pending.waiters.contains(&waiter)
            {
                pending.waiters.push(waiter);
            }
            return;
        }
        let vap_load = asker.and_then(|vap| self.resolver.per_vap.get(&vap)).copied().unwrap_or(0);
        let vn_load = self.resolver.per_vn.get(&vni).copied().unwrap_or(0);
        let full = vap_load >= limits.pending_per_vap.max(1) || vn_load >= limits.pending_per_vn.max(1);
        if full || self.resolver.held.contains(&key) {
            self.counters.requests_suppressed += 1;
            return;
        }
        let nonce = self.draw();
        let waiters = waiter.into_iter().collect();
        self.resolver.insert(key, Pending { nonce, tries: 0, asker, source, waiters });
        self.transmit(now, key);
    }

    /// Sends the Map-Request of `key` and sets the clock for the next try.
    fn transmit(&mut self, now: Time, key: (Vni, Eid)) {
        let Some(pending) = self.resolver.pending.get_mut(&key) else { return };
        let tries = pending.tries;
        pending.tries += 1;
        let question =
            messages::Question { vni: key.0, wanted: key.1, source: pending.source, nonce: pending.nonce };
        if let Some(path) = self.resolver_for(tries) {
            let mut octets = Vec::with_capacity(192);
            let rlocs = &self.config.rlocs;
            match messages::map_request(&question, rlocs, path, &mut octets) {
                Ok(()) => {
                    self.counters.map_requests += 1;
                    self.outputs.push_back(Output::Datagram { to: path.1, octets });
                }
                Err(_) => self.counters.not_encoded += 1,
            }
        }
        let timing = &self.config.timing;
        let wait = timing.retry.saturating_mul(1 << tries.min(16)).min(timing.retry_max);
        self.timers.set(Timer::Retry(key.0, key.1), now + wait);
    }

    /// The Oracle for the `tries`-th try: those with a session in turn, the preferred one first; all
    /// in turn when there is no session. Only those of a family this NVE has an RLOC of.
    fn resolver_for(&self, tries: u32) -> Option<(SocketAddr, SocketAddr)> {
        let path = |to: SocketAddr| {
            let from = self.config.rlocs.iter().map(|r| r.get()).find(|ip| ip.is_ipv4() == to.is_ipv4())?;
            Some((SocketAddr::new(from, self.config.lisp_port), to))
        };
        let all = || {
            self.config.oracles.iter().zip(&self.oracles).filter_map(|(a, s)| Some((path(a.resolver)?, s.up)))
        };
        let tries = usize::try_from(tries).unwrap_or(usize::MAX);
        let up = all().filter(|(_, up)| *up).count();
        let of = if up > 0 { up } else { all().count() };
        all().filter(|(_, is_up)| up == 0 || *is_up).nth(tries.checked_rem(of)?).map(|(path, _)| path)
    }

    pub(super) fn retry(&mut self, now: Time, vni: Vni, eid: Eid) {
        let key = (vni, eid);
        let Some(pending) = self.resolver.pending.get(&key) else { return };
        if pending.tries < self.config.timing.tries.max(1) {
            self.transmit(now, key);
            return;
        }
        self.counters.unanswered += 1;
        self.resolver.remove(&key);
        self.resolver.held.insert(key);
        self.timers.set(Timer::Hold(vni, eid), now + self.config.timing.hold);
    }

    /// A LISP datagram that came in on one of this NVE's RLOCs.
    pub fn handle_datagram(&mut self, now: Time, from: IpAddr, octets: &[u8]) {
        // Canonical: a v4 Oracle may be seen through a v6 socket.
        let from = from.to_canonical();
        if !self.config.oracles.iter().any(|o| o.resolver.ip() == from) {
            self.counters.foreign_datagrams += 1;
            return;
        }
        match MessageType::of(octets) {
            Ok(MessageType::MapReply) => match messages::map_reply(octets) {
                Ok((nonce, said)) => self.reply(now, nonce, said),
                Err(_) => self.counters.malformed_datagrams += 1,
            },
            Ok(MessageType::MapRequest) => {
                match MapRequest::decode(octets).map(|r| messages::solicited(&r)) {
                    Ok(Some((vni, eid))) => {
                        self.counters.smrs += 1;
                        self.refresh(now, vni, eid);
                    }
                    Ok(None) => self.counters.unexpected_datagrams += 1,
                    Err(_) => self.counters.malformed_datagrams += 1,
                }
            }
            Ok(_) => self.counters.unexpected_datagrams += 1,
            Err(_) => self.counters.malformed_datagrams += 1,
        }
    }

    fn reply(&mut self, now: Time, nonce: u64, mut said: Vec<Said>) {
        let Some(key) = self.resolver.nonces.get(&nonce).copied() else {
            self.counters.unknown_nonces += 1;
            return;
        };
        said.truncate(RECORDS);
        let about = |s: &Said| match *s {
            Said::Located { vni, mac, .. } => (vni, Eid::Mac(mac)),
            Said::Bound { vni, ip, .. } => (vni, Eid::Ip(ip)),
            Said::Absent { vni, eid, .. } | Said::Withdrawn { vni, eid } => (vni, eid),
        };
        if !said.iter().any(|s| about(s) == key) {
            self.counters.beside_the_question += 1;
            return;
        }
        self.counters.map_replies += 1;
        let Some(pending) = self.resolver.remove(&key) else { return };
        self.timers.cancel(&Timer::Retry(key.0, key.1));
        // The location before the binding, both before the answer: the first packet finds its way.
        said.sort_by_key(|s| !matches!(s, Said::Located { .. }));
        for said in said {
            if about(&said).0 == key.0 {
                self.learn(now, said, Origin::Reply, pending.asker);
            }
        }
        self.answer_waiters(key, pending.waiters);
    }

    fn answer_waiters(&mut self, (vni, eid): (Vni, Eid), waiters: Vec<Query>) {
        let Eid::Ip(ip) = eid else { return };
        let mac = match self.tables.neighbours.get(&(vni, ip)) {
            Some(Neighbour::At(mac)) => *mac,
            _ => return,
        };
        for waiter in waiters {
            self.counters.answers += 1;
            self.outputs.push_back(Output::Inject(waiter.vap, waiter.answer(mac)));
        }
    }

    /// Takes in one record of a reply or notification.
    pub(super) fn learn(&mut self, now: Time, said: Said, origin: Origin, asker: Option<IfIndex>) {
        match said {
            Said::Located { vni, mac, rloc, version, ttl } => {
                if let Some(id) = self.local_macs.get(&(vni, mac)).cloned() {
                    self.claimed_elsewhere(&id, rloc, version, origin);
                    return;
                }
                let old = self.cache.macs.get(&(vni, mac)).and_then(cache::Entry::known);
                let outdated = old.is_some_and(|old| !not_older(version, old.version));
                if outdated || self.config.rlocs.contains(&rloc) || !self.vns.contains_key(&vni) {
                    self.counters.outdated += 1;
                    return;
                }
                let new = !self.cache.macs.contains_key(&(vni, mac));
                if new && self.cache.len() >= self.config.limits.cache.max(1) {
                    self.counters.cache_full += 1;
                    return;
                }
                let expires = ttl_end(now, ttl, self.config.timing.ttl);
                self.cache.set_located(vni, mac, Located { rloc, version, origin, learned: now, expires });
                let epoch = Epoch::new(version.into()).unwrap_or(Epoch::FIRST);
                let op = Op::SetLocation(vni, mac, Location::Remote { rloc, epoch });
                self.change(op);
                self.known(now, vni, Eid::Mac(mac), expires);
            }
            Said::Bound { vni, ip, mac, version, ttl } => {
                if self.local_ips.contains_key(&(vni, ip)) || !self.vns.contains_key(&vni) {
                    return;
                }
                let old = self.cache.ips.get(&(vni, ip)).and_then(cache::Entry::known);
                if old.is_some_and(|old| !not_older(version, old.version)) {
                    self.counters.outdated += 1;
                    return;
                }
                let new = !self.cache.ips.contains_key(&(vni, ip));
                if new && self.cache.len() >= self.config.limits.cache.max(1) {
                    self.counters.cache_full += 1;
                    return;
                }
                let expires = ttl_end(now, ttl, self.config.timing.ttl);
                let before =
                    self.cache.set_bound(vni, ip, Bound { mac, version, origin, learned: now, expires });
                self.change(Op::SetNeighbour(vni, ip, Neighbour::At(mac)));
                if before.is_some_and(|before| before != mac) {
                    self.heal(vni, ip, mac);
                }
                let located = self.tables.fdb.get(&(vni, mac)).is_some_and(|l| *l != Location::Nowhere);
                self.known(now, vni, Eid::Ip(ip), expires);
                if !located && origin == Origin::Notify {
                    self.ask(now, vni, Eid::Mac(mac), None, None, None);
                }
            }
            Said::Absent { vni, eid, ttl } => self.absent(now, vni, eid, ttl, asker),
            Said::Withdrawn { vni, eid } => self.forget_remote(vni, eid),
        }
    }

    /// A tenant system attached here is said to be at `rloc`.
    fn claimed_elsewhere(&mut self, id: &TsiId, rloc: weft_model::Rloc, version: u16, origin: Origin) {
        let mine =
            self.tsis.get(id).and_then(|t| t.grant.epoch_of(self.config.xtr_id).ok()).map(Epoch::map_version);
        let newer = mine.is_none_or(|mine| version != mine && not_older(version, mine));
        // Only the Oracle's own word on the session takes a tenant system away, never a UDP answer.
        if origin == Origin::Notify && newer && !self.config.rlocs.contains(&rloc) {
            self.lose_grant(id);
        }
    }

    /// Bookkeeping of an entry that is known now: its refresh, and whoever waits for it.
    fn known(&mut self, now: Time, vni: Vni, eid: Eid, expires: Time) {
        self.timers.cancel(&Timer::Absent(vni, eid));
        // At four fifths of its life: room for lost packets before its end.
        let life = expires.since(now);
        self.timers.set(Timer::Refresh(vni, eid), now + life * 4 / 5);
        if let Some(pending) = self.resolver.remove(&(vni, eid)) {
            self.timers.cancel(&Timer::Retry(vni, eid));
            self.answer_waiters((vni, eid), pending.waiters);
        }
    }

    fn absent(&mut self, now: Time, vni: Vni, eid: Eid, ttl: u32, asker: Option<IfIndex>) {
        let local = match eid {
            Eid::Mac(mac) => self.local_macs.contains_key(&(vni, mac)),
            Eid::Ip(ip) => self.local_ips.contains_key(&(vni, ip)),
        };
        if local {
            return;
        }
        self.counters.negatives += 1;
        self.forget_remote(vni, eid);
        let Some(asker) = asker.filter(|vap| self.vaps.contains_key(vap)) else { return };
        if self.cache.len() >= self.config.limits.cache.max(1) {
            self.counters.cache_full += 1;
            return;
        }
        let (key, op) = match eid {
            Eid::Ip(ip) => (AbsentKey::Ip(vni, ip), Op::SetNeighbour(vni, ip, Neighbour::Nobody)),
            Eid::Mac(mac) => (AbsentKey::Mac(vni, mac), Op::SetLocation(vni, mac, Location::Nowhere)),
        };
        let expires = ttl_end(now, ttl, Duration::from_secs(60));
        for evicted in self.cache.set_absent(key, asker, expires, self.config.limits.absent_per_vap) {
            let (vni, eid) = match evicted {
                AbsentKey::Ip(vni, ip) => (vni, Eid::Ip(ip)),
                AbsentKey::Mac(vni, mac) => (vni, Eid::Mac(mac)),
            };
            self.timers.cancel(&Timer::Absent(vni, eid));
            self.unset(vni, eid);
        }
        self.change(op);
        self.timers.set(Timer::Absent(vni, eid), expires);
    }

    pub(super) fn end_absent(&mut self, vni: Vni, eid: Eid) {
        let gone = match eid {
            Eid::Ip(ip) => self.cache.ips.get(&(vni, ip)).is_some_and(|e| e.absent().is_some()),
            Eid::Mac(mac) => self.cache.macs.get(&(vni, mac)).is_some_and(|e| e.absent().is_some()),
        };
        if gone {
            self.forget_remote(vni, eid);
        }
    }

    /// Asks again for an entry that is still wanted. It stays as it is until there is an answer, so
    /// an NVE that has lost every Oracle keeps forwarding all it knows.
    pub(super) fn refresh(&mut self, now: Time, vni: Vni, eid: Eid) {
        let known = match eid {
            Eid::Ip(ip) => self.cache.ips.get(&(vni, ip)).is_some_and(|e| e.known().is_some()),
            Eid::Mac(mac) => self.cache.macs.get(&(vni, mac)).is_some_and(|e| e.known().is_some()),
        };
        if known {
            self.ask(now, vni, eid, None, None, None);
            self.timers.set(Timer::Refresh(vni, eid), now + self.config.timing.ttl);
        }
    }

    /// After a session was down notifications may have been missed: everything known is asked for
    /// anew, paced.
    pub(super) fn refresh_all(&mut self, now: Time) {
        let macs =
            self.cache.macs.iter().filter(|(_, e)| e.known().is_some()).map(|((v, m), _)| (*v, Eid::Mac(*m)));
        let ips =
            self.cache.ips.iter().filter(|(_, e)| e.known().is_some()).map(|((v, i), _)| (*v, Eid::Ip(*i)));
        let all: Vec<_> = macs.chain(ips).collect();
        let mut at = now;
        for (vni, eid) in all {
            at = at + self.config.timing.refresh_gap;
            self.timers.set(Timer::Refresh(vni, eid), at);
        }
        // Negative entries are dropped: an appearance may have been missed, and asking is cheap.
        let absent = |(key, gone): (AbsentKey, bool)| gone.then_some(key);
        let macs = self.cache.macs.iter().map(|((v, m), e)| (AbsentKey::Mac(*v, *m), e.absent().is_some()));
        let ips = self.cache.ips.iter().map(|((v, i), e)| (AbsentKey::Ip(*v, *i), e.absent().is_some()));
        let all: Vec<_> = macs.chain(ips).filter_map(absent).collect();
        for key in all {
            match key {
                AbsentKey::Ip(vni, ip) => self.forget_remote(vni, ip.into()),
                AbsentKey::Mac(vni, mac) => self.forget_remote(vni, mac.into()),
            }
        }
    }

    /// Tells the VN's tenant systems here that `ip` has another MAC now: each is answered as if it had
    /// asked. Nothing of it enters the overlay.
    fn heal(&mut self, vni: Vni, ip: TenantIp, mac: MacAddr) {
        let here = self.tables.vaps.iter().filter(|(_, vap)| vap.vni == vni && vap.activated);
        let queries: Vec<Query> = here
            .filter_map(|(index, vap)| {
                let asker_ip = vap.ips.iter().find(|i| i.get().is_ipv4() == ip.get().is_ipv4()).copied()?;
                Some(Query {
                    vap: *index,
                    vni,
                    target: ip,
                    asker_mac: vap.mac.get(),
                    asker_ip: Some(asker_ip),
                })
            })
            .collect();
        for query in queries {
            self.outputs.push_back(Output::Inject(query.vap, query.answer(mac)));
        }
    }

    /// Applies `op` unless the tables hold it already.
    fn change(&mut self, op: Op) {
        let held = match &op {
            Op::SetLocation(vni, mac, location) => self.tables.fdb.get(&(*vni, *mac)) == Some(location),
            Op::SetNeighbour(vni, ip, neighbour) => {
                self.tables.neighbours.get(&(*vni, *ip)) == Some(neighbour)
            }
            _ => false,
        };
        if !held {
            self.apply(op);
        }
    }

    fn unset(&mut self, vni: Vni, eid: Eid) {
        match eid {
            Eid::Mac(mac) if self.tables.fdb.contains_key(&(vni, mac)) => {
                self.apply(Op::RemoveLocation(vni, mac));
            }
            Eid::Ip(ip) if self.tables.neighbours.contains_key(&(vni, ip)) => {
                self.apply(Op::RemoveNeighbour(vni, ip));
            }
            _ => {}
        }
    }

    /// Forgets what is known of an address that is not attached here.
    pub(super) fn forget_remote(&mut self, vni: Vni, eid: Eid) {
        let cached = match eid {
            Eid::Mac(mac) => {
                self.cache.forget(AbsentKey::Mac(vni, mac));
                self.cache.macs.remove(&(vni, mac));
                !matches!(self.tables.fdb.get(&(vni, mac)), Some(Location::Local(_)))
            }
            Eid::Ip(ip) => {
                self.cache.forget(AbsentKey::Ip(vni, ip));
                self.cache.ips.remove(&(vni, ip));
                !self.local_ips.get(&(vni, ip)).and_then(|id| self.tsis.get(id)).is_some_and(|t| {
                    t.state == super::tsi::State::Activated
                        && self.tables.neighbours.get(&(vni, ip)) == Some(&Neighbour::At(t.grant.mac.get()))
                })
            }
        };
        self.timers.cancel(&Timer::Refresh(vni, eid));
        self.timers.cancel(&Timer::Absent(vni, eid));
        if cached {
            self.unset(vni, eid);
        }
    }

    /// Nobody at `vap` waits any more.
    pub(super) fn forget_asker(&mut self, vap: IfIndex) {
        for pending in self.resolver.pending.values_mut() {
            pending.waiters.retain(|w| w.vap != vap);
        }
    }

    /// Forgets everything remote of a VN.
    pub(super) fn forget_vn(&mut self, vni: Vni) {
        let macs = self.cache.macs.keys().filter(|(v, _)| *v == vni).map(|(_, m)| Eid::Mac(*m));
        let ips = self.cache.ips.keys().filter(|(v, _)| *v == vni).map(|(_, i)| Eid::Ip(*i));
        let eids: Vec<Eid> = macs.chain(ips).collect();
        for eid in eids {
            self.forget_remote(vni, eid);
        }
        let asked: Vec<_> = self.resolver.pending.keys().filter(|(v, _)| *v == vni).copied().collect();
        for key in asked {
            self.resolver.remove(&key);
            self.timers.cancel(&Timer::Retry(key.0, key.1));
        }
    }

    /// A tenant system tries out a link-local address (DAD): it is taken at the Oracle like any other, so
    /// that of two with the same address the second fails its DAD.
    fn claim(&mut self, now: Time, id: &TsiId, query: Query) {
        let limit = self.config.limits.link_locals;
        let Some(tsi) = self.tsis.get_mut(id) else { return };
        if !query.target.is_link_local() {
            self.question(now, query);
            return;
        }
        let held = tsi.grant.ips.iter().filter(|ip| ip.is_link_local()).count() + tsi.claims.len();
        if tsi.claims.contains_key(&query.target) || tsi.grant.ips.contains(&query.target) {
            return;
        }
        if held >= limit.max(1) {
            self.counters.claims_refused += 1;
            return;
        }
        let (vn, ip) = (tsi.vn.clone(), query.target);
        tsi.claims.insert(ip, query);
        self.outputs.push_back(Output::Call(ApiCall::Take { vn, tsi: id.clone(), ip }));
    }

    /// An Oracle's answer to [`ApiCall::Take`].
    pub fn handle_taken(&mut self, now: Time, id: &TsiId, ip: TenantIp, answer: Result<Granted, Refused>) {
        let Some(query) = self.tsis.get_mut(id).and_then(|t| t.claims.remove(&ip)) else { return };
        match answer {
            Ok(Granted { grant, revision, .. }) => self.update_grant(id, grant, revision),
            Err(refused) => {
                self.counters.claims_refused += 1;
                self.notice(Notice::ClaimRefused(id.clone(), ip, refused.to_string()));
                // Its owner defends it through us.
                self.question(now, query);
            }
        }
    }
}
