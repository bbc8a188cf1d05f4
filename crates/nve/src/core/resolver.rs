//! The resolver: asks the Oracle what the tables do not hold, once per address however many ask
//! here, and learns from answers and notifications.

use super::cache::{self, AbsentKey, Bound, Located, not_older, ttl_end};
use super::messages::{self, Said};
use super::proxy::{self, Query};
use super::tsi::State;
use super::{ApiCall, Core, Granted, Notice, Output, Refused, Timer, decrement};
use ::core::net::{IpAddr, SocketAddr};
use ::core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use weft_datapath::{IfIndex, Location, Neighbour, Op, Punt, PuntReason};
use weft_lisp::{MapRequest, MessageType};
use weft_model::{Eid, Epoch, MacAddr, Origin, Rloc, TenantIp, Time, TsMac, TsiId, Vni};

/// Records looked at in one reply: an answer to one question has two.
const RECORDS: usize = 8;

/// The first EID in order: MACs come before IP addresses.
const LOWEST: Eid = Eid::Mac(MacAddr([0; 6]));

/// A question under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pending {
    pub(super) nonce: u64,
    tries: u32,
    /// The VAP it is asked for; none for a refresh.
    pub(super) asker: Option<IfIndex>,
    /// The asking tenant system, as Source-EID.
    source: Option<Eid>,
    /// Who gets an ARP reply or advertisement.
    pub(super) waiters: Vec<Query>,
}

/// Questions under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resolver {
    pub(super) pending: BTreeMap<(Vni, Eid), Pending>,
    pub(super) nonces: BTreeMap<u64, (Vni, Eid)>,
    /// Left unanswered a moment ago.
    pub(super) held: BTreeSet<(Vni, Eid)>,
    pub(super) per_vn: BTreeMap<Vni, usize>,
    pub(super) per_vap: BTreeMap<IfIndex, usize>,
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

impl Core {
    /// A frame the data plane could not decide about.
    pub fn handle_punt(&mut self, now: Time, punt: &Punt) {
        self.now = now;
        self.counters.punts += 1;
        // The VAP may be gone by now, or its interface out of service.
        let Some(id) = self.vaps.get(&punt.vap).filter(|id| id.vni == punt.vni).cloned() else { return };
        if !self.tsis.get(&id).is_some_and(|t| t.state == State::Activated) {
            return;
        }
        match punt.reason {
            PuntReason::UnknownMac => self.unknown_mac(now, punt),
            PuntReason::ArpMiss | PuntReason::NdMiss | PuntReason::LinkLocalClaim => match Query::parse(punt)
            {
                Ok(query) if punt.reason == PuntReason::LinkLocalClaim => self.claim(now, &id, query),
                Ok(query) => self.question(now, query),
                Err(_) => self.counters.malformed_punts += 1,
            },
        }
    }

    fn unknown_mac(&mut self, now: Time, punt: &Punt) {
        // The table may have been filled while the frame was on its way up.
        let known = self.tables.fdb.contains_key(&(punt.vni, punt.dst));
        if !known && TsMac::new(punt.dst).is_ok() {
            let source = proxy::source_mac(&punt.frame).map(Eid::Mac);
            self.ask(now, punt.vni, Eid::Mac(punt.dst), Some(punt.vap), source, None);
        }
    }

    fn question(&mut self, now: Time, query: Query) {
        let (vni, ip) = (query.vni, query.target);
        // Without its VN Context, which comes with the first attach and is kept, nothing is out of scope.
        if self.vns.get(&vni).is_some_and(|vn| !cache::in_scope(vn, ip)) {
            self.counters.off_subnet += 1;
            return;
        }
        // An announcement asks nothing (RFC 5227 section 3).
        if query.asker_ip == Some(ip) {
            return;
        }
        if self.tables.neighbours.contains_key(&(vni, ip)) {
            // As above; its own address nobody is told.
            if self.local_ips.get(&(vni, ip)) != self.vaps.get(&query.vap) {
                self.answer(&query);
            }
            return;
        }
        let source = query.asker_ip.map(Eid::Ip).or(Some(Eid::Mac(query.asker_mac)));
        self.ask(now, vni, Eid::Ip(ip), Some(query.vap), source, Some(query));
    }

    /// Answers a question if the tables hold its answer and the way there.
    fn answer(&mut self, query: &Query) -> bool {
        let Some(Neighbour::At(mac)) = self.tables.neighbours.get(&(query.vni, query.target)).copied() else {
            return false;
        };
        if !self.is_located(query.vni, mac) {
            return false;
        }
        self.counters.answers += 1;
        self.outputs.push_back(Output::Inject(query.vap, query.answer(mac)));
        true
    }

    fn is_located(&self, vni: Vni, mac: MacAddr) -> bool {
        self.tables.fdb.get(&(vni, mac)).is_some_and(|at| *at != Location::Nowhere)
    }

    /// Asks for `eid` unless somebody does already; says whether anybody does now.
    fn ask(
        &mut self,
        now: Time,
        vni: Vni,
        eid: Eid,
        asker: Option<IfIndex>,
        source: Option<Eid>,
        waiter: Option<Query>,
    ) -> bool {
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
            return true;
        }
        let vap_load = asker.and_then(|vap| self.resolver.per_vap.get(&vap)).copied().unwrap_or(0);
        let vn_load = self.resolver.per_vn.get(&vni).copied().unwrap_or(0);
        let full = vap_load >= limits.pending_per_vap.max(1) || vn_load >= limits.pending_per_vn.max(1);
        if full || self.resolver.held.contains(&key) {
            self.counters.requests_suppressed += 1;
            return false;
        }
        let nonce = self.draw();
        let waiters = waiter.into_iter().collect();
        self.resolver.insert(key, Pending { nonce, tries: 0, asker, source, waiters });
        self.transmit(now, key);
        true
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
        if self.is_known(vni, eid) && self.oracles.iter().any(|o| o.up) {
            // The Oracle forgets who asked when the answer's TTL ends: no whole life until the next try.
            self.refresh_in(now, vni, eid, self.config.timing.ttl / 5);
        }
    }

    /// A LISP datagram that came in on one of this NVE's RLOCs.
    pub fn handle_datagram(&mut self, now: Time, from: IpAddr, octets: &[u8]) {
        self.now = now;
        // Canonical: a v4 Oracle may be seen through a v6 socket.
        let from = from.to_canonical();
        if !self.config.oracles.iter().any(|o| o.resolver.ip().to_canonical() == from) {
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
                    Ok(eids) if !eids.is_empty() => {
                        self.counters.smrs += 1;
                        // Nothing is asked about what nobody here uses (RFC 9301 section 6.1).
                        for (vni, eid) in eids {
                            self.refresh(now, vni, eid);
                        }
                    }
                    Ok(_) => self.counters.unexpected_datagrams += 1,
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
        self.answer_waiters(now, key.1, pending);
    }

    /// Answers who waits for a question that is settled. Who is to be told a MAC that nobody knows the way
    /// to goes on waiting, for that, once.
    fn answer_waiters(&mut self, now: Time, asked: Eid, pending: Pending) {
        for waiter in pending.waiters {
            if self.answer(&waiter) {
                continue;
            }
            if matches!(asked, Eid::Ip(_))
                && let Some(Neighbour::At(mac)) =
                    self.tables.neighbours.get(&(waiter.vni, waiter.target)).copied()
                && !self.tables.fdb.contains_key(&(waiter.vni, mac))
            {
                let source = pending.source;
                self.ask(now, waiter.vni, Eid::Mac(mac), Some(waiter.vap), source, Some(waiter));
            }
        }
    }

    /// `eid` is in the tables now: whoever waits for it is answered, nobody asks for it any more.
    pub(super) fn settle(&mut self, vni: Vni, eid: Eid) {
        if let Some(pending) = self.resolver.remove(&(vni, eid)) {
            self.timers.cancel(&Timer::Retry(vni, eid));
            self.answer_waiters(self.now, eid, pending);
        }
    }

    /// Takes in one record of a reply or notification.
    pub(super) fn learn(&mut self, now: Time, said: Said, origin: Origin, asker: Option<IfIndex>) {
        match said {
            Said::Located { vni, mac, rloc, version, ttl } => {
                if let Some(id) = self.local_macs.get(&(vni, mac)).cloned()
                    && !self.gives_way(&id, rloc, version, origin)
                {
                    return;
                }
                let old = self.cache.macs.get(&(vni, mac)).and_then(cache::Entry::known);
                if old.is_some_and(|old| now < old.expires && !not_older(version, old.version)) {
                    self.counters.outdated += 1;
                    return;
                }
                if self.config.rlocs.contains(&rloc) {
                    // Granted to this NVE but not in service here: it is nowhere.
                    self.counters.outdated += 1;
                    self.forget_remote(vni, Eid::Mac(mac));
                    return;
                }
                if !self.has_room(vni, Eid::Mac(mac)) {
                    return;
                }
                let expires = ttl_end(now, ttl, self.config.timing.ttl);
                self.cache.set_located(vni, mac, Located { rloc, version, origin, learned: now, expires });
                let epoch = Epoch::new(version.into()).unwrap_or(Epoch::FIRST);
                self.change(Op::SetLocation(vni, mac, Location::Remote { rloc, epoch }));
                self.known(now, vni, Eid::Mac(mac), expires);
            }
            Said::Bound { vni, ip, mac, version, ttl } => {
                if self.local_ips.contains_key(&(vni, ip)) {
                    return;
                }
                let old = self.cache.ips.get(&(vni, ip)).and_then(cache::Entry::known);
                if old.is_some_and(|old| now < old.expires && !not_older(version, old.version)) {
                    self.counters.outdated += 1;
                    return;
                }
                if !self.has_room(vni, Eid::Ip(ip)) {
                    return;
                }
                let expires = ttl_end(now, ttl, self.config.timing.ttl);
                let before =
                    self.cache.set_bound(vni, ip, Bound { mac, version, origin, learned: now, expires });
                self.change(Op::SetNeighbour(vni, ip, Neighbour::At(mac)));
                if before.is_some_and(|before| before != mac) {
                    self.heal(vni, ip, mac);
                }
                self.known(now, vni, Eid::Ip(ip), expires);
                if origin == Origin::Notify && !self.tables.fdb.contains_key(&(vni, mac)) {
                    self.ask(now, vni, Eid::Mac(mac), None, None, None);
                }
            }
            Said::Absent { vni, eid, ttl } => self.absent(now, vni, eid, ttl, asker),
            Said::Withdrawn { vni, eid } => self.forget_remote(vni, eid),
        }
    }

    /// Whether there is a place for what is known of `eid`. An address that does not exist gives up
    /// its place to one that does.
    fn has_room(&mut self, vni: Vni, eid: Eid) -> bool {
        // What a VN nobody here is in any more looks like is none of our business.
        if !self.members.contains_key(&vni) {
            return false;
        }
        let known = match eid {
            Eid::Mac(mac) => self.cache.macs.contains_key(&(vni, mac)),
            Eid::Ip(ip) => self.cache.ips.contains_key(&(vni, ip)),
        };
        known || self.make_room(None)
    }

    fn make_room(&mut self, asker: Option<IfIndex>) -> bool {
        if self.cache.len() < self.config.limits.cache.max(1) {
            return true;
        }
        let Some(evicted) = self.cache.to_evict(asker) else {
            self.counters.cache_full += 1;
            return false;
        };
        self.counters.absent_evicted += 1;
        self.forget_remote(evicted.vni(), evicted.eid());
        true
    }

    /// A tenant system attached here is said to be at `rloc`. Whether that is so: then it is no longer
    /// in service here.
    fn gives_way(&mut self, id: &TsiId, rloc: Rloc, version: u16, origin: Origin) -> bool {
        let mine =
            self.tsis.get(id).and_then(|t| t.grant.epoch_of(self.config.xtr_id).ok()).map(Epoch::map_version);
        let newer = mine.is_none_or(|mine| version != mine && not_older(version, mine));
        // Only the Oracle's own word on the session takes a tenant system away, never a UDP answer, and
        // never one that has no version.
        if origin != Origin::Notify || version == 0 || !newer || self.config.rlocs.contains(&rloc) {
            return false;
        }
        self.lose_grant(id);
        !self.is_local_tsi(id)
    }

    fn is_local_tsi(&self, id: &TsiId) -> bool {
        self.tsis.get(id).is_some_and(|t| t.state == State::Activated)
    }

    /// Bookkeeping of an entry that is known now: its refresh, and whoever waits for it.
    fn known(&mut self, now: Time, vni: Vni, eid: Eid, expires: Time) {
        self.timers.cancel(&Timer::Absent(vni, eid));
        // At four fifths of its life: room for lost packets before its end.
        self.refresh_in(now, vni, eid, expires.since(now) * 4 / 5);
        self.settle(vni, eid);
    }

    fn refresh_in(&mut self, now: Time, vni: Vni, eid: Eid, wait: Duration) {
        self.timers.set(Timer::Refresh(vni, eid), now + wait.max(super::LEAST_WAIT));
    }

    fn absent(&mut self, now: Time, vni: Vni, eid: Eid, ttl: u32, asker: Option<IfIndex>) {
        if self.is_local(vni, eid) {
            return;
        }
        self.counters.negatives += 1;
        self.forget_remote(vni, eid);
        let Some(asker) = asker.filter(|vap| self.vaps.contains_key(vap)) else { return };
        // Its own sweep costs the asker its own older entries, and nobody else's.
        if !self.members.contains_key(&vni) || !self.make_room(Some(asker)) {
            return;
        }
        let (key, op) = match eid {
            Eid::Ip(ip) => (AbsentKey::Ip(vni, ip), Op::SetNeighbour(vni, ip, Neighbour::Nobody)),
            Eid::Mac(mac) => (AbsentKey::Mac(vni, mac), Op::SetLocation(vni, mac, Location::Nowhere)),
        };
        let expires = ttl_end(now, ttl, Duration::from_secs(60));
        for evicted in self.cache.set_absent(key, asker, expires, self.config.limits.absent_per_vap) {
            self.counters.absent_evicted += 1;
            self.timers.cancel(&Timer::Absent(evicted.vni(), evicted.eid()));
            self.unset(evicted.vni(), evicted.eid());
        }
        self.change(op);
        self.timers.set(Timer::Absent(vni, eid), expires);
    }

    pub(super) fn end_absent(&mut self, vni: Vni, eid: Eid) {
        if !self.is_known(vni, eid) {
            self.forget_remote(vni, eid);
        }
    }

    fn is_known(&self, vni: Vni, eid: Eid) -> bool {
        match eid {
            Eid::Ip(ip) => self.cache.ips.get(&(vni, ip)).is_some_and(|e| e.known().is_some()),
            Eid::Mac(mac) => self.cache.macs.get(&(vni, mac)).is_some_and(|e| e.known().is_some()),
        }
    }

    /// Asks again for an entry that is still wanted. It stays as it is until there is an answer, so
    /// an NVE that has lost every Oracle keeps forwarding all it knows.
    pub(super) fn refresh(&mut self, now: Time, vni: Vni, eid: Eid) {
        if !self.is_known(vni, eid) {
            return;
        }
        let asked = self.ask(now, vni, eid, None, None, None);
        // Too much under way: soon again. Else the answer sets the next time, or the end of the tries.
        let timing = &self.config.timing;
        let wait = if asked { timing.ttl } else { timing.retry_max.max(timing.hold) };
        self.refresh_in(now, vni, eid, wait);
    }

    /// After a session was down notifications may have been missed: everything known is asked for
    /// anew, paced. What is due sooner stays so, however often sessions come and go.
    pub(super) fn refresh_all(&mut self, now: Time) {
        let macs = self.cache.macs.iter().map(|((v, m), e)| (*v, Eid::Mac(*m), e.known().is_some()));
        let ips = self.cache.ips.iter().map(|((v, i), e)| (*v, Eid::Ip(*i), e.known().is_some()));
        let all: Vec<_> = macs.chain(ips).collect();
        let mut at = now;
        for (vni, eid, known) in all {
            if !known {
                // An appearance may have been missed, and asking is cheap.
                self.forget_remote(vni, eid);
                continue;
            }
            at = at + self.config.timing.refresh_gap;
            self.timers.advance(Timer::Refresh(vni, eid), at);
        }
    }

    /// Tells the VN's tenant systems here that `ip` has another MAC now, without being asked: IPv6 by
    /// an unsolicited advertisement (RFC 4861 section 7.2.6), IPv4 by a reply. Nothing of it enters the
    /// overlay.
    fn heal(&mut self, vni: Vni, ip: TenantIp, mac: MacAddr) {
        let v4 = ip.get().is_ipv4();
        let here = self.members.get(&vni).into_iter().flatten().filter_map(|id| self.tsis.get(id));
        let queries: Vec<Query> = here
            .filter(|tsi| tsi.state == State::Activated)
            .filter_map(|tsi| {
                let own = tsi.grant.ips.iter().find(|i| i.get().is_ipv4() == v4).copied()?;
                Some(Query {
                    vap: tsi.device.index,
                    vni,
                    target: ip,
                    asker_mac: tsi.grant.mac.get(),
                    asker_ip: v4.then_some(own),
                })
            })
            .collect();
        for query in queries {
            self.outputs.push_back(Output::Inject(query.vap, query.answer(mac)));
        }
    }

    /// Applies `op` unless the tables hold it already.
    pub(super) fn change(&mut self, op: Op) {
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

    pub(super) fn unset(&mut self, vni: Vni, eid: Eid) {
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
        self.forget_cached(vni, eid);
        if !self.is_local(vni, eid) {
            self.unset(vni, eid);
        }
    }

    /// The same, but what stands in the tables is about to be replaced.
    pub(super) fn forget_cached(&mut self, vni: Vni, eid: Eid) {
        match eid {
            Eid::Mac(mac) => {
                self.cache.forget(AbsentKey::Mac(vni, mac));
                self.cache.macs.remove(&(vni, mac));
            }
            Eid::Ip(ip) => {
                self.cache.forget(AbsentKey::Ip(vni, ip));
                self.cache.ips.remove(&(vni, ip));
            }
        }
        self.timers.cancel(&Timer::Refresh(vni, eid));
        self.timers.cancel(&Timer::Absent(vni, eid));
    }

    /// Nobody at `vap` waits any more.
    pub(super) fn forget_asker(&mut self, vni: Vni, vap: IfIndex) {
        let here = self.resolver.pending.range_mut((vni, LOWEST)..).take_while(|((v, _), _)| *v == vni);
        for (_, pending) in here {
            pending.waiters.retain(|w| w.vap != vap);
        }
    }

    /// Forgets everything remote of a VN.
    pub(super) fn forget_vn(&mut self, vni: Vni) {
        for eid in self.cache.eids_of(vni) {
            self.forget_remote(vni, eid);
        }
        let here = self.resolver.pending.range((vni, LOWEST)..).take_while(|((v, _), _)| *v == vni);
        let asked: Vec<_> = here.map(|(key, _)| *key).collect();
        for key in asked {
            self.resolver.remove(&key);
            self.timers.cancel(&Timer::Retry(key.0, key.1));
        }
        let here = self.resolver.held.range((vni, LOWEST)..).take_while(|(v, _)| *v == vni);
        let held: Vec<_> = here.copied().collect();
        for key in held {
            self.resolver.held.remove(&key);
            self.timers.cancel(&Timer::Hold(key.0, key.1));
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
        if self.tables.neighbours.get(&(id.vni, query.target)).is_some_and(|n| *n != Neighbour::Nobody) {
            // Somebody has it: defended as any address is.
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
        self.now = now;
        let Some(tsi) = self.tsis.get_mut(id) else { return };
        let Some(query) = tsi.claims.remove(&ip) else { return };
        match answer {
            // Of two answers the later one knows both addresses, whichever comes in first.
            Ok(Granted { revision, .. }) if revision < tsi.revision => {}
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
