//! VNs whose mappings an Oracle pushes (requirements M3, Ld): all of them, then every change. They live with the
//! subscription and by no TTL, and outlive it when the session is lost: what a new one does not name is removed
//! when it says that it has named all there is.

use super::cache::Entry;
use super::messages::{self, Said};
use super::{Core, Timer};
use std::collections::BTreeMap;
use weft_lisp::tcp::{Body, Signal};
use weft_lisp::{EncodeOptions, Record};
use weft_model::{Eid, Learning, Origin, Time, Vni, digest, digest::Digest};

/// What was pushed of a VN. It is what both ends compute the digest of, whatever this NVE makes of it: its own
/// tenant systems are in it, and what the cache has no room for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pushed {
    /// The Oracle that pushes.
    oracle: Option<usize>,
    /// ID of the frame that asked it to.
    request: u32,
    /// When that was.
    asked: Option<Time>,
    /// It is to be asked again: it has something else.
    again: bool,
    /// Raised with every subscription and every snapshot; what is named bears it.
    round: u64,
    /// A snapshot is under way: what it does not name is gone at its end.
    snapshot: bool,
    /// All that the Oracle has is here.
    complete: bool,
    /// There was no room for a record.
    full: bool,
    /// The digest of each record, and the round it was last named in.
    records: BTreeMap<Eid, (u64, u64)>,
    digest: Digest,
}

impl Pushed {
    fn set(&mut self, eid: Eid, sum: u64, limit: usize) {
        if self.records.len() >= limit && !self.records.contains_key(&eid) {
            self.full = true;
            return;
        }
        self.remove(eid);
        self.records.insert(eid, (sum, self.round));
        self.digest.add(Digest { count: 1, sum });
    }

    fn remove(&mut self, eid: Eid) {
        if let Some((sum, _)) = self.records.remove(&eid) {
            self.digest.remove(Digest { count: 1, sum });
        }
    }

    /// Forgets what the present snapshot did not name.
    fn keep_named(&mut self) -> Vec<Eid> {
        let round = self.round;
        let unnamed = self.records.iter().filter(|(_, (_, named))| *named != round);
        let gone: Vec<Eid> = unnamed.map(|(eid, _)| *eid).collect();
        gone.iter().for_each(|eid| self.remove(*eid));
        gone
    }

    #[cfg(test)]
    pub(super) fn resyncs(&self) -> bool {
        self.again && self.oracle.is_some()
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        let mut digest = Digest::default();
        self.records.values().for_each(|(sum, _)| digest.add(Digest { count: 1, sum: *sum }));
        assert_eq!(self.digest, digest);
        assert!(self.oracle.is_some() || !(self.snapshot || self.complete));
    }
}

/// The digest of a record, as the Oracle computes it.
fn record_digest(record: &Record<'_>) -> u64 {
    let mut octets = Vec::with_capacity(64);
    // What was decoded has an encoding.
    record.encode(&mut octets, EncodeOptions::default()).map_or(0, |()| digest::record(&octets))
}

impl Core {
    /// Whether all mappings of a VN are to be pushed.
    pub(super) fn wants_mappings(&self, vni: Vni) -> bool {
        self.is_active(vni) && self.vns.get(&vni).is_some_and(|vn| vn.learning == Learning::Distribute)
    }

    /// Subscribes to the mappings of a VN, or does so no more.
    pub(super) fn review_mappings(&mut self, vni: Vni) {
        if !self.wants_mappings(vni) {
            self.timers.cancel(&Timer::Resync(vni));
            if let Some(old) = self.pushed.remove(&vni) {
                if let Some(oracle) = old.oracle {
                    self.send(oracle, &Body::Signal(Signal::UnsubscribeMappings { vni: vni.get() }));
                }
                self.end_push(vni);
            }
            return;
        }
        let pushed = self.pushed.entry(vni).or_default();
        let (current, again, Digest { count, sum }) = (pushed.oracle, pushed.again, pushed.digest);
        // A gap is asked for in its own time, whatever else of the VN is looked at before.
        if current.is_some() && (!again || self.timers.is_set(&Timer::Resync(vni))) {
            return;
        }
        self.timers.cancel(&Timer::Resync(vni));
        let Some(oracle) = self.provider(vni) else { return };
        let oracle = current.unwrap_or(oracle);
        let signal = Signal::SubscribeMappings { vni: vni.get(), count, digest: sum };
        let Some(request) = self.send(oracle, &Body::Signal(signal)) else { return };
        let now = self.now;
        if let Some(pushed) = self.pushed.get_mut(&vni) {
            pushed.oracle = Some(oracle);
            pushed.request = request;
            pushed.asked = Some(now);
            pushed.round += 1;
            (pushed.again, pushed.snapshot, pushed.complete) = (false, false, false);
        }
    }

    /// What was pushed of a VN is told of no more. While somebody there is in service it is kept as if it had
    /// been asked for, which it now is, one after another.
    fn end_push(&mut self, vni: Vni) {
        let now = self.now;
        let (active, expires) = (self.is_active(vni), now + self.config.timing.ttl);
        let mut at = now;
        for eid in self.cache.eids_of(vni) {
            if !self.is_pushed(vni, eid) {
                continue;
            }
            if active {
                self.cache.make_ordinary(vni, eid, expires);
                at = at + self.config.timing.refresh_gap;
                self.timers.set(Timer::Refresh(vni, eid), at.max(now + super::LEAST_WAIT));
            } else {
                self.forget_remote(vni, eid);
            }
        }
    }

    /// Whether an entry was pushed, so that it has no end of its own.
    pub(super) fn is_pushed(&self, vni: Vni, eid: Eid) -> bool {
        let origin = match eid {
            Eid::Mac(mac) => self.cache.macs.get(&(vni, mac)).and_then(Entry::known).map(|k| k.origin),
            Eid::Ip(ip) => self.cache.ips.get(&(vni, ip)).and_then(Entry::known).map(|k| k.origin),
        };
        origin == Some(Origin::Push)
    }

    /// Whether what is pushed of an address is the last word on it: then nobody else's is heard. Else what
    /// is learned takes its place, and is looked at again when all is pushed anew.
    pub(super) fn may_replace_pushed(&mut self, vni: Vni, eid: Eid) -> bool {
        if !self.is_pushed(vni, eid) {
            return true;
        }
        let Some(pushed) = self.pushed.get_mut(&vni) else { return true };
        let current = |(_, round): &(u64, u64)| pushed.complete || *round == pushed.round;
        if pushed.oracle.is_some() && pushed.records.get(&eid).is_some_and(current) {
            return false;
        }
        pushed.remove(eid);
        true
    }

    /// An Oracle says on the session what has become of a mapping.
    pub(super) fn notified(&mut self, now: Time, oracle: usize, record: &Record<'_>) {
        let said = messages::said(record, &self.config.rlocs);
        if said.is_empty() {
            self.counters.unexpected_frames += 1;
        } else {
            self.counters.notifications += 1;
        }
        // Where the tenant system is comes with whose it is, in one record of ours that is never pushed.
        let alone = said.len() == 1;
        for said in said {
            let origin = if alone { self.note_pushed(oracle, said, record) } else { Origin::Notify };
            self.learn(now, said, (origin, Some(oracle)), None);
        }
    }

    /// Keeps what is pushed for the digest; whether it is.
    fn note_pushed(&mut self, oracle: usize, said: Said, record: &Record<'_>) -> Origin {
        let (vni, eid) = said.about();
        let limit = self.config.limits.cache.max(1);
        let Some(pushed) = self.pushed.get_mut(&vni).filter(|pushed| pushed.oracle == Some(oracle)) else {
            return Origin::Notify;
        };
        match record.ttl {
            messages::TTL_WITHDRAW => pushed.remove(eid),
            messages::TTL_SESSION => pushed.set(eid, record_digest(record), limit),
            // Told before the subscription was heard of.
            _ => return Origin::Notify,
        }
        self.counters.pushed += 1;
        Origin::Push
    }

    /// What an Oracle says of a subscription.
    pub(super) fn mappings(&mut self, now: Time, oracle: usize, id: u32, signal: Signal) {
        let (Signal::MappingsRefused { vni, .. }
        | Signal::MappingsBegin { vni }
        | Signal::MappingsMarker { vni, .. }) = signal
        else {
            return;
        };
        let known = Vni::new(vni).ok().and_then(|vni| Some((vni, self.pushed.get_mut(&vni)?)));
        let mine = |(_, pushed): &(Vni, &mut Pushed)| pushed.oracle == Some(oracle) && pushed.request == id;
        let Some((vni, pushed)) = known.filter(mine) else {
            // About a subscription that is over.
            self.counters.unexpected_frames += 1;
            return;
        };
        match signal {
            Signal::MappingsBegin { .. } => {
                pushed.round += 1;
                (pushed.snapshot, pushed.complete, pushed.full) = (true, false, false);
            }
            Signal::MappingsMarker { count, digest, .. } => {
                self.marked(now, vni, Digest { count, sum: digest });
            }
            _ => {
                pushed.oracle = None;
                (pushed.again, pushed.snapshot, pushed.complete) = (false, false, false);
                self.timers.cancel(&Timer::Resync(vni));
                self.subscribe_later(now, vni);
            }
        }
    }

    /// An Oracle says what it has pushed: behind a snapshot, or so that a gap is noticed.
    fn marked(&mut self, now: Time, vni: Vni, theirs: Digest) {
        let interval = self.config.timing.digest.max(super::LEAST_WAIT);
        let Some(pushed) = self.pushed.get_mut(&vni) else { return };
        let first = std::mem::take(&mut pushed.snapshot);
        let mut gone = if first { pushed.keep_named() } else { Vec::new() };
        let equal = pushed.digest == theirs;
        if first || (equal && !pushed.complete) {
            // Learned otherwise, and not among all that there is.
            let known = self.cache.eids_of(vni).into_iter();
            gone.extend(known.filter(|eid| !pushed.records.contains_key(eid)));
        }
        pushed.complete = equal;
        // With no room for all of it another snapshot would end like this one.
        let again = !equal && !pushed.full;
        let at = pushed.asked.map_or(now, |asked| asked + interval);
        pushed.again |= again;
        for eid in gone {
            if self.is_known(vni, eid) {
                self.forget_remote(vni, eid);
            }
        }
        if !equal {
            self.counters.digest_mismatches += 1;
        }
        if again {
            if at > now {
                self.timers.set(Timer::Resync(vni), at);
            } else {
                self.review_mappings(vni);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn pushed_digest(&self, vni: Vni) -> Digest {
        self.pushed.get(&vni).map_or_else(Digest::default, |pushed| pushed.digest)
    }

    /// A session is over; the VNs that it was the source of.
    pub(super) fn unsubscribed(&mut self, oracle: usize) -> Vec<Vni> {
        let mut left = Vec::new();
        for (vni, pushed) in self.pushed.iter_mut().filter(|(_, pushed)| pushed.oracle == Some(oracle)) {
            pushed.oracle = None;
            (pushed.again, pushed.snapshot, pushed.complete) = (false, false, false);
            self.timers.cancel(&Timer::Resync(*vni));
            left.push(*vni);
        }
        left
    }
}
