//! The map cache and the tables behind it: what answers and notifications change, when entries are
//! refreshed, and when they end.

use super::cache::{self, AbsentKey, Bound, Located, not_older, ttl_end};
use super::messages::Said;
use super::proxy::Query;
use super::tsi::State;
use super::{Core, Output, Timer};
use ::core::time::Duration;
use weft_datapath::{IfIndex, Location, Neighbour, Op};
use weft_model::{Eid, Epoch, MacAddr, Origin, Rloc, TenantIp, Time, TsiId, Vni};

impl Core {
    /// Takes in one record of a reply or notification: by the Oracle of that index, or by the NVE that it is about.
    pub(super) fn learn(
        &mut self,
        now: Time,
        said: Said,
        (origin, by): (Origin, Option<usize>),
        asker: Option<IfIndex>,
    ) {
        let (vni, eid) = said.about();
        if origin != Origin::Push && !self.may_replace_pushed(vni, eid) {
            self.counters.outdated += 1;
            return;
        }
        match said {
            Said::Located { vni, mac, rloc, other, version, ttl } => {
                let here = self.local_macs.get(&(vni, mac)).or_else(|| self.stopped_with(vni, Eid::Mac(mac)));
                if let Some(id) = here.cloned()
                    && !self.gives_way(&id, rloc, version, origin)
                {
                    return;
                }
                if !self.takes_in(vni, Eid::Mac(mac)) {
                    self.forget_remote(vni, Eid::Mac(mac));
                    return;
                }
                let old = self.cache.macs.get(&(vni, mac)).and_then(cache::Entry::known);
                // What is pushed comes in order.
                let outdated = |old: Located| now < old.expires && !not_older(version, old.version);
                if origin != Origin::Push && old.is_some_and(outdated) {
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
                let expires = self.end_of(now, ttl, origin);
                self.cache.set_located(
                    vni,
                    mac,
                    Located { rloc, version, origin, by, learned: now, expires },
                );
                let epoch = Epoch::new(version.into()).unwrap_or(Epoch::FIRST);
                self.change(Op::SetLocation(vni, mac, Location::Remote { rloc, epoch, other }));
                self.known(now, vni, Eid::Mac(mac), expires);
            }
            Said::Bound { vni, ip, mac, version, ttl } => {
                if self.local_ips.contains_key(&(vni, ip)) {
                    return;
                }
                if !self.takes_in(vni, Eid::Ip(ip)) {
                    self.forget_remote(vni, Eid::Ip(ip));
                    return;
                }
                let old = self.cache.ips.get(&(vni, ip)).and_then(cache::Entry::known);
                let outdated = |old: Bound| now < old.expires && !not_older(version, old.version);
                if origin != Origin::Push && old.is_some_and(outdated) {
                    self.counters.outdated += 1;
                    return;
                }
                if !self.has_room(vni, Eid::Ip(ip)) {
                    return;
                }
                let expires = self.end_of(now, ttl, origin);
                let before =
                    self.cache.set_bound(vni, ip, Bound { mac, version, origin, by, learned: now, expires });
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
            Said::Withdrawn { vni, eid } => {
                // What another Oracle says that was heard later than it was said: its own answer tells.
                let late = self.is_anothers_word(vni, eid, by);
                if !late {
                    self.forget_remote(vni, eid);
                }
                self.ask_anew(now, vni, eid);
                if late {
                    self.refresh(now, vni, eid);
                }
            }
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

    /// Whether what is known of an address is by the word of another Oracle than `by`, and one that is heard.
    fn is_anothers_word(&self, vni: Vni, eid: Eid, by: Option<usize>) -> bool {
        let said = match eid {
            Eid::Mac(mac) => {
                self.cache.macs.get(&(vni, mac)).and_then(cache::Entry::known).and_then(|e| e.by)
            }
            Eid::Ip(ip) => self.cache.ips.get(&(vni, ip)).and_then(cache::Entry::known).and_then(|e| e.by),
        };
        by.is_some() && said != by && said.and_then(|said| self.oracles.get(said)).is_some_and(|o| o.up)
    }

    /// A tenant system attached here is said to be at `rloc`. Whether that is so: then it is no longer
    /// in service here.
    fn gives_way(&mut self, id: &TsiId, rloc: Rloc, version: u16, origin: Origin) -> bool {
        let Some(tsi) = self.tsis.get(id) else { return false };
        let mine = tsi.grant.epoch_of(self.config.xtr_id).ok();
        let newer =
            mine.map(Epoch::map_version).is_none_or(|mine| version != mine && not_older(version, mine));
        // Only the Oracle's own word on the session takes a tenant system away, never a UDP answer, and
        // never one that has no version.
        if !matches!(origin, Origin::Notify | Origin::Push)
            || version == 0
            || !newer
            || self.config.rlocs.contains(&rloc)
        {
            return false;
        }
        let was_here = self.is_local_tsi(id) || self.stopped.contains(id);
        let (mac, known) = (tsi.grant.mac.get(), mine.unwrap_or(tsi.grant.epoch));
        let to = self.nves.iter().find(|(_, rlocs)| rlocs.contains(&rloc)).map(|(nve, _)| *nve);
        // The version is the epoch's last 12 bits, and that is later than the one known here.
        let epoch = known.at_version(version);
        self.lose_grant(id, to.map_or_else(|| self.went(id), |to| self.went_to(to, epoch)));
        if let Some(epoch) = epoch.filter(|_| was_here) {
            self.redirect_to(id.vni, mac, rloc, epoch);
        }
        !self.is_local_tsi(id)
    }

    fn is_local_tsi(&self, id: &TsiId) -> bool {
        self.tsis.get(id).is_some_and(|t| t.state == State::Activated)
    }

    /// When an entry ends: never what is pushed.
    fn end_of(&self, now: Time, ttl: u32, origin: Origin) -> Time {
        if origin == Origin::Push { Time::NEVER } else { ttl_end(now, ttl, self.config.timing.ttl) }
    }

    /// Bookkeeping of an entry that is known now: its refresh, and whoever waits for it.
    fn known(&mut self, now: Time, vni: Vni, eid: Eid, expires: Time) {
        self.timers.cancel(&Timer::Absent(vni, eid));
        // At four fifths of its life: room for lost packets before its end.
        self.refresh_in(now, vni, eid, expires.since(now) * 4 / 5);
        self.settle(vni, eid);
        self.heal_stand_ins(now, vni, eid);
        self.release_held(vni, eid);
    }

    /// Sets when an entry is asked for again: what is pushed never is.
    pub(super) fn refresh_in(&mut self, now: Time, vni: Vni, eid: Eid, wait: Duration) {
        if self.is_pushed(vni, eid) {
            self.timers.cancel(&Timer::Refresh(vni, eid));
            return;
        }
        self.timers.set(Timer::Refresh(vni, eid), now + wait.max(super::LEAST_WAIT));
    }

    fn absent(&mut self, now: Time, vni: Vni, eid: Eid, ttl: u32, asker: Option<IfIndex>) {
        if self.is_local(vni, eid) {
            return;
        }
        self.counters.negatives += 1;
        self.drop_held(vni, eid);
        self.forget_remote(vni, eid);
        let Some(asker) = asker.filter(|vap| self.vaps.contains_key(vap)) else {
            // On nobody's account, as of what a gateway carries: no entry, and no question again so soon.
            if self.members.contains_key(&vni) {
                self.hold_off(now, vni, eid);
            }
            return;
        };
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

    pub(super) fn is_known(&self, vni: Vni, eid: Eid) -> bool {
        match eid {
            Eid::Ip(ip) => self.cache.ips.get(&(vni, ip)).is_some_and(|e| e.known().is_some()),
            Eid::Mac(mac) => self.cache.macs.get(&(vni, mac)).is_some_and(|e| e.known().is_some()),
        }
    }

    /// Asks again for an entry that is still wanted. It stays as it is until there is an answer, so
    /// an NVE that has lost every Oracle keeps forwarding all it knows.
    pub(super) fn refresh(&mut self, now: Time, vni: Vni, eid: Eid) {
        if !self.is_known(vni, eid) || self.is_pushed(vni, eid) {
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
        self.refresh_since(now, Time::default());
    }

    /// The same of what was learned from `since` on, and of what is not there.
    pub(super) fn refresh_since(&mut self, now: Time, since: Time) {
        let macs = self.cache.macs.iter();
        let macs = macs.map(|((v, m), e)| (*v, Eid::Mac(*m), e.known().map(|known| known.learned)));
        let ips = self.cache.ips.iter();
        let ips = ips.map(|((v, i), e)| (*v, Eid::Ip(*i), e.known().map(|known| known.learned)));
        let all: Vec<_> = macs.chain(ips).collect();
        let mut at = now;
        for (vni, eid, learned) in all {
            let Some(learned) = learned else {
                // An appearance may have been missed, and asking is cheap.
                self.forget_remote(vni, eid);
                continue;
            };
            if learned < since {
                continue;
            }
            if self.is_pushed(vni, eid) {
                // Subscribing again says what became of it.
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
}
