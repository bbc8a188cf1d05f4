//! The resolver: asks the Oracle what the tables do not hold, once per address however many ask
//! here, and answers them when it is known.

use super::cache;
use super::messages::{self, Said};
use super::proxy::{self, Query};
use super::tsi::State;
use super::{Core, Output, Timer, decrement};
use ::core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, BTreeSet};
use weft_datapath::{IfIndex, Location, Neighbour, Punt, PuntReason};
use weft_lisp::{MapRequest, MapVersion, MessageType};
use weft_model::{Eid, MacAddr, Origin, Reply, Time, TsMac, Vni};

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
    pub(super) source: Option<Eid>,
    /// Who gets an ARP reply or advertisement.
    pub(super) waiters: Vec<Query>,
}

/// Questions under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resolver {
    pub(super) pending: BTreeMap<(Vni, Eid), Pending>,
    pub(super) nonces: BTreeMap<u64, (Vni, Eid)>,
    /// Those of them that another NVE solicits.
    pub(super) invoked: BTreeSet<(Vni, Eid)>,
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

    /// Answers to a question count from now on with this nonce only; whether it is under way.
    fn renew(&mut self, key: (Vni, Eid), nonce: u64) -> bool {
        let Some(pending) = self.pending.get_mut(&key) else { return false };
        let old = std::mem::replace(&mut pending.nonce, nonce);
        self.nonces.remove(&old);
        self.nonces.insert(nonce, key);
        true
    }

    fn remove(&mut self, key: &(Vni, Eid)) -> Option<Pending> {
        let pending = self.pending.remove(key)?;
        self.invoked.remove(key);
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
        if matches!(punt.reason, PuntReason::NoSuchTs | PuntReason::Carried) {
            return self.not_here(now, punt);
        }
        // The VAP may be gone by now, or its interface out of service.
        let Some(id) = self.vaps.get(&punt.vap).filter(|id| id.vni == punt.vni).cloned() else { return };
        if punt.reason == PuntReason::FirstFrame {
            return self.first_frame(now, &id, punt);
        }
        if self.tsis.get(&id).is_none_or(|t| t.state != State::Activated) {
            return;
        }
        match punt.reason {
            PuntReason::UnknownMac => self.unknown_mac(now, punt),
            PuntReason::UnknownMacHeld => self.unlocated(now, punt),
            PuntReason::Route | PuntReason::RouteSeen => self.unrouted(now, punt),
            PuntReason::NoSuchTs | PuntReason::Carried => {}
            // These are for the log, and this was looked at.
            PuntReason::Allowed(..) | PuntReason::Refused(_) | PuntReason::FirstFrame => {}
            PuntReason::Report => self.report(now, punt),
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
        if !self.tables.fdb.contains_key(&(punt.vni, punt.dst)) {
            self.ask_mac(now, punt);
        }
    }

    /// Asks for the MAC that a frame goes to; whether anybody asks now.
    pub(super) fn ask_mac(&mut self, now: Time, punt: &Punt) -> bool {
        let source = proxy::source_mac(&punt.frame).map(Eid::Mac);
        TsMac::new(punt.dst).is_ok()
            && self.ask(now, punt.vni, Eid::Mac(punt.dst), Some(punt.vap), source, None)
    }

    pub(super) fn question(&mut self, now: Time, query: Query) {
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
        // Where addresses are translated the members are asked; only who tries one out has no address yet that they
        // could answer to.
        if query.asker_ip.is_some() && self.translates(vni) {
            return;
        }
        if self.stands_in(&query) {
            self.stand_in(now, query, source);
            return;
        }
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

    pub(super) fn is_located(&self, vni: Vni, mac: MacAddr) -> bool {
        self.tables.fdb.get(&(vni, mac)).is_some_and(|at| *at != Location::Nowhere)
    }

    /// Asks for `eid` unless somebody does already; says whether anybody does now. Not for what would have no
    /// place in the tables, when nobody waits for the answer itself.
    pub(super) fn ask(
        &mut self,
        now: Time,
        vni: Vni,
        eid: Eid,
        asker: Option<IfIndex>,
        source: Option<Eid>,
        waiter: Option<Query>,
    ) -> bool {
        if waiter.is_none() && !self.takes_in(vni, eid) {
            return false;
        }
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

    /// What is on its way as the answer to a question may be what has just been taken back: that does not count any
    /// more, and whoever waits waits for what is true now.
    pub(super) fn ask_anew(&mut self, now: Time, vni: Vni, eid: Eid) {
        let nonce = self.draw();
        if self.resolver.renew((vni, eid), nonce) {
            self.transmit(now, (vni, eid));
        }
    }

    /// Sends the Map-Request of `key` and sets the clock for the next try.
    fn transmit(&mut self, now: Time, key: (Vni, Eid)) {
        let Some(pending) = self.resolver.pending.get_mut(&key) else { return };
        let tries = pending.tries;
        pending.tries += 1;
        let (source, nonce) = (pending.source, pending.nonce);
        let along = source.and_then(|source| self.goes_along(key.0, source));
        let invoked = self.resolver.invoked.contains(&key);
        let question = messages::Question { vni: key.0, wanted: key.1, source, along, nonce, invoked };
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

    /// The record that goes along with a question, where another NVE is to answer: that one need not find out
    /// who its tenant system is about to talk to. It believes nothing of it, but asks.
    fn goes_along(&self, vni: Vni, source: Eid) -> Option<(MacAddr, MapVersion)> {
        self.vns.get(&vni).filter(|vn| vn.reply == Reply::Forward)?;
        let id = match source {
            Eid::Mac(mac) => self.local_macs.get(&(vni, mac)),
            Eid::Ip(ip) => self.local_ips.get(&(vni, ip)),
        };
        let grant = &self.tsis.get(id?).filter(|tsi| tsi.state == State::Activated)?.grant;
        Some((grant.mac.get(), messages::version_of(grant, self.config.xtr_id)))
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

    /// It is not asked for again for a while.
    pub(super) fn hold_off(&mut self, now: Time, vni: Vni, eid: Eid) {
        self.resolver.held.insert((vni, eid));
        self.timers.set(Timer::Hold(vni, eid), now + self.config.timing.hold);
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
        self.hold_off(now, vni, eid);
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
        let oracle = self.config.oracles.iter().position(|o| o.resolver.ip().to_canonical() == from);
        let peer = self.tables.peers.get(&from).filter(|peer| peer.nve).map(|peer| peer.node);
        let kind = MessageType::of(octets);
        // Another NVE answers for its own tenant systems, or solicits a question, and has nothing else to say here.
        let from_nve = matches!(kind, Ok(MessageType::MapReply | MessageType::MapRequest));
        if oracle.is_none() && (peer.is_none() || !from_nve) {
            self.counters.foreign_datagrams += 1;
            return;
        }
        match kind {
            Ok(MessageType::MapReply) => match messages::map_reply(octets, &self.config.rlocs) {
                Ok((nonce, said)) if oracle.is_some() || said.iter().all(|s| self.is_own(peer, s)) => {
                    self.reply(now, nonce, said, oracle);
                }
                Ok(_) => self.counters.foreign_datagrams += 1,
                Err(_) => self.counters.malformed_datagrams += 1,
            },
            Ok(MessageType::Ecm) => self.forwarded(now, octets),
            Ok(MessageType::MapRequest) => match MapRequest::decode(octets) {
                Ok(request) => self.solicited(now, from, &request),
                Err(_) => self.counters.malformed_datagrams += 1,
            },
            Ok(_) => self.counters.unexpected_datagrams += 1,
            Err(_) => self.counters.malformed_datagrams += 1,
        }
    }

    /// Whether an NVE may say this: of locations its own only.
    fn is_own(&self, node: Option<u32>, said: &Said) -> bool {
        let Said::Located { rloc, .. } = said else { return true };
        self.tables.peers.get(&rloc.get()).is_some_and(|peer| peer.nve && Some(peer.node) == node)
    }

    /// Another NVE's is to be about what was asked, and the location that goes with that, and nothing else.
    fn reply(&mut self, now: Time, nonce: u64, mut said: Vec<Said>, by: Option<usize>) {
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
        if by.is_none() {
            let owner = said.iter().find_map(|s| match *s {
                Said::Bound { mac, .. } if about(s) == key => Some((key.0, Eid::Mac(mac))),
                _ => None,
            });
            said.retain(|s| {
                about(s) == key || (Some(about(s)) == owner && matches!(s, Said::Located { .. }))
            });
        }
        if !said.iter().any(|s| about(s) == key) {
            self.counters.beside_the_question += 1;
            return;
        }
        self.counters.map_replies += 1;
        let Some(mut pending) = self.resolver.remove(&key) else { return };
        self.timers.cancel(&Timer::Retry(key.0, key.1));
        self.defend(now, key.0, key.1, &said, &mut pending);
        // The location before the binding, both before the answer: the first packet finds its way.
        said.sort_by_key(|s| !matches!(s, Said::Located { .. }));
        for said in said {
            if about(&said).0 == key.0 {
                self.learn(now, said, (Origin::Reply, by), pending.asker);
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
}
