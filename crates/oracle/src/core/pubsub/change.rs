//! What is published: changes, and what there was already when a prefix was subscribed to.

use std::collections::BTreeSet;

use weft_lisp as lisp;
use weft_lisp::wire::TTL_REMOVE;
use weft_lisp::{Action, Record, RecordBuf};
use weft_model::{Eid, Epoch, MacAddr, Time, Vni, XtrId};

use super::super::database::Locator;
use super::super::publish::{Basis, Told};
use super::super::subscribe::Stage;
use super::super::wire::{Locators, record, to_lisp};
use super::super::{Shard, Timer};
use super::store::{Change, Phase, Slot};
use super::{Key, NotSubscribed};

/// EIDs of a VN that one Map-Notify's part of a snapshot looks at: those of others in between cost time, too.
const LOOKS: usize = 1_024;
/// Octets of a Map-Notify before its MAC and records.
const HEADER: usize = 16;
/// Changes about one EID that one Map-Notify tells: of MACs that it had in turn there may be many.
const AT_ONCE: usize = 16;
/// The longest MAC.
const MAC: usize = 32;
/// Changes noted for what is only asked for: there may be many such, and the xTR asks again.
const ASKED: usize = 1_024;
/// Records of one message (RFC 9301 section 5.7: an octet says how many).
const RECORDS: usize = 255;

/// What a subscriber is told of an EID, if there is something.
type Shown<'a> = (MacAddr, XtrId, Epoch, &'a [Locator]);

fn shown(told: &Told) -> Option<Shown<'_>> {
    match told {
        Told::At { basis: Basis::Registered | Basis::Granted, mac, nve, epoch, locators } => {
            Some((*mac, *nve, *epoch, locators))
        }
        Told::At { .. } | Told::Nothing => None,
    }
}

impl Shard {
    /// What is told of an EID has changed: whoever is subscribed to it has it noted.
    pub(crate) fn note_change(&mut self, vni: Vni, eid: Eid, before: &Told, after: &Told) {
        if self.subscriptions.is_empty() {
            return;
        }
        let (was, is) = (shown(before), shown(after));
        if was == is {
            return;
        }
        // Who knows an address was told where its MAC is as well.
        let old_mac = match eid {
            Eid::Ip(_) => was.map(|was| was.0).filter(|mac| is.map(|is| is.0) != Some(*mac)),
            Eid::Mac(_) => None,
        };
        for slot in self.subscriptions.told_of(to_lisp(vni, eid)) {
            self.note(slot, eid, old_mac, is.is_some());
        }
    }

    fn note(&mut self, slot: Slot, eid: Eid, old_mac: Option<MacAddr>, there: bool) {
        // One change of an address may take two.
        let limit = self.config.limits.changes_per_subscription.max(2);
        let limit = if slot.asked { limit.min(ASKED) } else { limit };
        let Some(subscription) = self.subscriptions.get_mut(slot).filter(|one| one.listens()) else { return };
        if let Some(at) = subscription.expires.take_if(|_| there) {
            self.timers.remove(&(at, Timer::Temporary(slot)));
        }
        // The snapshot says what there is, but not what there is no more: it may have been told before, by a
        // subscription that this one has renewed.
        if there && old_mac.is_none() && subscription.snapshot.is_ahead(&eid) {
            return;
        }
        if !subscription.pending.insert((eid, None)) {
            self.counters.pubsub_coalesced += 1;
        }
        if old_mac.is_some() {
            subscription.pending.insert((eid, old_mac));
        }
        if subscription.pending.len() > limit {
            let changes = self.note_less(slot);
            if changes > limit {
                // Nothing may be lost in silence.
                self.end_subscription(slot, NotSubscribed::Overrun { changes });
                return;
            }
        }
        self.queue(slot.key);
    }

    /// Leaves what is there to the snapshot of a prefix, which begins anew: what remains noted is what is there no
    /// more, and MACs that an address had. Gives how much that is.
    fn note_less(&mut self, slot: Slot) -> usize {
        let Some(subscription) = self.subscriptions.get(slot) else { return 0 };
        let pending = &subscription.pending;
        let (_, prefix) = slot.key;
        // An address has no snapshot.
        let has_snapshot = prefix.mask_len() < prefix.addr().bits();
        let Some(vni) = Vni::new(prefix.iid()).ok().filter(|_| has_snapshot) else { return pending.len() };
        let moved =
            |eid: &Eid| pending.range((*eid, Some(MacAddr([0; 6])))..).next().is_some_and(|(o, _)| o == eid);
        let stays =
            |(eid, mac): &&Change| mac.is_some() || moved(eid) || shown(&self.told(vni, *eid)).is_none();
        let pending: BTreeSet<Change> = pending.iter().filter(stays).copied().collect();
        let changes = pending.len();
        if let Some(subscription) = self.subscriptions.get_mut(slot) {
            subscription.pending = pending;
            if subscription.snapshot != Stage::Begin {
                subscription.snapshot = Stage::Behind(None);
            }
        }
        self.counters.pubsub_restarted += 1;
        changes
    }

    /// Puts a subscription in the queue when it has something to publish and may.
    pub(super) fn queue(&mut self, key: Key) {
        let Some(subscription) = self.subscriptions.get_mut(Slot::standing(key)) else { return };
        let something = !subscription.pending.is_empty() || subscription.snapshot != Stage::Idle;
        let free = subscription.phase == Phase::Active && subscription.unacked.is_none();
        if something && free && !std::mem::replace(&mut subscription.queued, true) {
            self.subscriptions.ready.push_back(key);
        }
    }

    /// Sends what waits, as far as the pace allows.
    pub(crate) fn publish_queued(&mut self, now: Time) {
        while self.subscriptions.budget > 0
            && let Some(key) = self.subscriptions.ready.pop_front()
        {
            self.subscriptions.budget -= 1;
            if let Some(subscription) = self.subscriptions.get_mut(Slot::standing(key)) {
                subscription.queued = false;
            }
            self.publish_next(now, key);
        }
        let used = self.subscriptions.budget < self.config.limits.notifies_per_turn.max(1);
        if used && !std::mem::replace(&mut self.subscriptions.armed, true) {
            // However short it is: a timer does not come again at the time it came.
            let wait = self.config.timing.push_interval.max(std::time::Duration::from_micros(1));
            self.arm(now + wait, Timer::Publish);
        }
    }

    /// The next interval begins.
    pub(crate) fn next_publications(&mut self, now: Time) {
        self.subscriptions.budget = self.config.limits.notifies_per_turn.max(1);
        self.subscriptions.armed = false;
        self.publish_queued(now);
    }

    /// Sends the next Map-Notify of a subscription.
    fn publish_next(&mut self, now: Time, key: Key) {
        let slot = Slot::standing(key);
        let Some(subscription) = self.subscriptions.get(slot) else { return };
        if subscription.phase != Phase::Active || subscription.unacked.is_some() {
            return;
        }
        // A nonce that is asked with belongs to the Map-Notify that says so.
        let taken = self.subscriptions.get(Slot::asked(key)).map(|asked| asked.nonce);
        let next = subscription.nonce.checked_add(1);
        let next =
            if next.is_some() && next == taken { next.and_then(|next| next.checked_add(1)) } else { next };
        let Some(nonce) = next else {
            return self.end_subscription(slot, NotSubscribed::NoncesUsedUp);
        };
        let (records, changes) = self.gather(key);
        if records.is_empty() {
            // It has yet to look further, or there was nothing.
            return self.queue(key);
        }
        let Some(subscription) = self.subscriptions.get_mut(slot) else { return };
        subscription.nonce = nonce;
        let records: Vec<Record<'_>> = records.iter().map(RecordBuf::get).collect();
        self.send_first(now, slot, &records, changes);
    }

    /// Takes what fits one Map-Notify: changes first, then the snapshot. At least one EID, however long.
    fn gather(&mut self, key: Key) -> (Vec<RecordBuf>, Vec<Change>) {
        let (mut records, mut changes) = (Vec::new(), Vec::new());
        let Ok(vni) = Vni::new(key.1.iid()) else { return (records, changes) };
        let mut room = self.config.limits.notify_octets.saturating_sub(HEADER + MAC);
        let (mut told, mut looks) = (BTreeSet::new(), LOOKS);
        while let Some(subscription) = self.subscriptions.get(Slot::standing(key)) {
            let change = subscription.pending.first().map(|(eid, _)| *eid);
            let (eid, about, all) = match (change, subscription.snapshot) {
                (Some(eid), _) => {
                    let about = subscription.pending.iter().take_while(|(other, _)| *other == eid);
                    let about: Vec<Change> = about.take(AT_ONCE).copied().collect();
                    let mut all = self.published_records(vni, eid, true);
                    let macs = about.iter().filter_map(|(_, mac)| *mac);
                    all.extend(macs.flat_map(|mac| self.published_records(vni, Eid::Mac(mac), true)));
                    (eid, about, all)
                }
                (None, Stage::Behind(last)) if looks > 0 => {
                    looks -= 1;
                    let Some(eid) = self.db.behind(vni, last) else {
                        self.set_snapshot(key, Stage::Idle);
                        break;
                    };
                    let mine = self.subscriptions.best(key.0, to_lisp(vni, eid));
                    let mine = mine.is_some_and(|(best, _)| best == key);
                    let all = if mine { self.published_records(vni, eid, false) } else { Vec::new() };
                    (eid, Vec::new(), all)
                }
                _ => break,
            };
            let new: Vec<(Eid, RecordBuf)> = all.into_iter().filter(|(eid, _)| !told.contains(eid)).collect();
            let octets: usize = new.iter().map(|(_, record)| record.octets().len()).sum();
            let fits = octets <= room && records.len() + new.len() <= RECORDS;
            if !fits && !records.is_empty() {
                break;
            }
            room = room.saturating_sub(octets);
            match change {
                Some(_) => {
                    if let Some(subscription) = self.subscriptions.get_mut(Slot::standing(key)) {
                        for one in &about {
                            subscription.pending.remove(one);
                        }
                    }
                    changes.extend(about);
                }
                None => {
                    self.set_snapshot(key, Stage::Behind(Some(eid)));
                    if !new.is_empty() {
                        changes.push((eid, None));
                    }
                }
            }
            // A MAC that the address had and has again stands in both.
            for (eid, record) in new {
                if told.insert(eid) {
                    records.push(record);
                }
            }
        }
        (records, changes)
    }

    fn set_snapshot(&mut self, key: Key, stage: Stage<Eid>) {
        if let Some(subscription) = self.subscriptions.get_mut(Slot::standing(key)) {
            subscription.snapshot = stage;
        }
    }

    /// The records of an EID as they are now: of an IP address its MAC's, too. With `gone`, that there is
    /// nothing is said as well.
    fn published_records(&self, vni: Vni, eid: Eid, gone: bool) -> Vec<(Eid, RecordBuf)> {
        let ttl = self.config.ttl.positive;
        let told = self.told(vni, eid);
        let records = match shown(&told) {
            Some((mac, _, epoch, locators)) => {
                let (r1, r2) = (Locators::collect(locators.iter().copied()), Locators::mac(mac));
                let r1 = (Eid::Mac(mac), RecordBuf::new(&record(vni, Eid::Mac(mac), ttl, Some(epoch), &r1)));
                let r2 = || (eid, RecordBuf::new(&record(vni, eid, ttl, Some(epoch), &r2)));
                if matches!(eid, Eid::Ip(_)) { vec![r2(), r1] } else { vec![r1] }
            }
            None if gone => {
                let none = Locators::collect(std::iter::empty());
                vec![(eid, RecordBuf::new(&record(vni, eid, TTL_REMOVE, None, &none)))]
            }
            None => Vec::new(),
        };
        // Such records always have an encoding.
        records.into_iter().filter_map(|(eid, record)| record.ok().map(|record| (eid, record))).collect()
    }

    /// Confirms a subscription: of an address with what there is, of a prefix with nothing but itself, and
    /// that what is not known of it is to be asked for.
    pub(super) fn confirm(&mut self, now: Time, key: Key, host: Option<Eid>) {
        let (_, prefix) = key;
        let all = match (host, Vni::new(prefix.iid())) {
            (Some(eid), Ok(vni)) => self.published_records(vni, eid, false),
            _ => Vec::new(),
        };
        let (ttl, action) = match host {
            Some(_) => (self.config.ttl.negative_inside, Action::Drop),
            None => (self.config.ttl.positive, Action::SendMapRequest),
        };
        let bare = [empty(prefix, ttl, action)];
        let records: Vec<Record<'_>> = all.iter().map(|(_, record)| record.get()).collect();
        let records = if records.is_empty() { bare.as_slice() } else { records.as_slice() };
        self.send_first(now, Slot::asked(key), records, Vec::new());
    }
}

/// A record without locators.
pub(super) fn empty(eid: lisp::Eid, ttl: u32, action: Action) -> Record<'static> {
    Record { ttl, mask_len: eid.mask_len(), action, eid: eid.address(), ..Record::default() }
}
