//! Who asked for what: the conversation table, and whom to tell of changes.
//!
//! An ask is found by (VN, destination EID, asker) and stands in three lists, each ordered from the
//! longest silent to the latest: those of its TTL class, of its VN and of its asker. So expiry and the
//! bounds cost a step at a list's head, and asking again moves links and allocates nothing.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use weft_model::{Eid, Time, Vni, XtrId};

use super::config::{Limits, RecordTtl};
use super::limits::TokenBucket;

/// What an answer may be under way before its TTL starts at the asker.
const MARGIN: Duration = Duration::from_secs(5);

/// What was asked for and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct AskKey {
    pub(crate) vni: Vni,
    pub(crate) eid: Eid,
    pub(crate) asker: XtrId,
}

/// Which TTL the last answer had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Class {
    Positive,
    NegativeInside,
    NegativeOutside,
}

impl Class {
    pub(crate) const fn negative(self) -> bool {
        !matches!(self, Self::Positive)
    }

    /// Record TTL in minutes.
    pub(crate) const fn minutes(self, ttl: &RecordTtl) -> u32 {
        match self {
            Self::Positive => ttl.positive,
            Self::NegativeInside => ttl.negative_inside,
            Self::NegativeOutside => ttl.negative_outside,
        }
    }

    /// How long an ask must be remembered: a little longer than the answer lives, which has yet to arrive.
    fn least(self, ttl: &RecordTtl) -> Duration {
        Duration::from_secs(60 * u64::from(self.minutes(ttl))) + MARGIN
    }

    /// How long it is: a sixteenth longer, so that asking again moves it in its lists now and then only.
    fn span(self, ttl: &RecordTtl) -> Duration {
        self.least(ttl) * 17 / 16
    }
}

/// The place of an ask in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AskAt(u32);

/// A remembered ask.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ask {
    pub(crate) class: Class,
    /// What the asker knows is that there is nothing.
    pub(crate) negative: bool,
    /// Which of two answers to a question it took.
    pub(crate) doubt: Doubt,
    /// Map-Replies that may be sent; full again once the answer has changed, so that nothing delays it.
    pub(crate) replies: TokenBucket,
    expires: Time,
    /// Where the ask for the MAC that came with an IP address's answer was last.
    pub(crate) r1: AskAt,
    /// For whom, with the time of the last request. Empty when the EID was not asked for itself but came
    /// with the answer to another.
    pub(crate) sources: Vec<(Eid, Time)>,
}

/// Whether it is known what an asker has made of an answer: of those to one question, asked twice or delivered
/// twice, it takes the first that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Doubt {
    /// It is.
    None,
    /// The question with this nonce was answered by a Negative.
    Denied(u64),
    /// It was answered by a Negative and by a mapping.
    Either,
}

const NIL: u32 = u32::MAX;
const CLASS: usize = 0;
const VN: usize = 1;
const NODE: usize = 2;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Slot {
    key: AskKey,
    ask: Ask,
    /// Not in [`Asks::free`].
    used: bool,
    links: [Link; 3],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Link {
    prev: u32,
    next: u32,
}

impl Default for Link {
    fn default() -> Self {
        Self { prev: NIL, next: NIL }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct List {
    head: u32,
    tail: u32,
    len: usize,
}

impl Default for List {
    fn default() -> Self {
        Self { head: NIL, tail: NIL, len: 0 }
    }
}

impl List {
    fn push(&mut self, slots: &mut [Slot], ring: usize, at: u32) {
        if let Some(slot) = slots.get_mut(at as usize) {
            slot.links[ring] = Link { prev: self.tail, next: NIL };
        }
        match slots.get_mut(self.tail as usize) {
            Some(last) => last.links[ring].next = at,
            None => self.head = at,
        }
        self.tail = at;
        self.len += 1;
    }

    fn unlink(&mut self, slots: &mut [Slot], ring: usize, at: u32) {
        let Some(slot) = slots.get_mut(at as usize) else { return };
        let Link { prev, next } = std::mem::take(&mut slot.links[ring]);
        match slots.get_mut(prev as usize) {
            Some(before) => before.links[ring].next = next,
            None => self.head = next,
        }
        match slots.get_mut(next as usize) {
            Some(behind) => behind.links[ring].prev = prev,
            None => self.tail = prev,
        }
        self.len -= 1;
    }

    fn make_last(&mut self, slots: &mut [Slot], ring: usize, at: u32) {
        if self.tail != at {
            self.unlink(slots, ring, at);
            self.push(slots, ring, at);
        }
    }
}

/// The asks of a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Asks {
    index: BTreeMap<AskKey, u32>,
    slots: Vec<Slot>,
    /// Slots not in use.
    free: Vec<u32>,
    classes: [List; 3],
    by_vn: BTreeMap<Vni, List>,
    by_asker: BTreeMap<XtrId, List>,
}

impl Asks {
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    pub(crate) fn get_mut(&mut self, key: AskKey) -> Option<&mut Ask> {
        let at = *self.index.get(&key)?;
        self.slots.get_mut(at as usize).map(|slot| &mut slot.ask)
    }

    /// The source that asked last, if any is known.
    pub(crate) fn source_of(&self, key: AskKey) -> Option<Eid> {
        let slot = self.slots.get(*self.index.get(&key)? as usize)?;
        slot.ask.sources.iter().max_by_key(|(_, seen)| *seen).map(|(eid, _)| *eid)
    }

    /// Who asked for `eid`.
    pub(crate) fn askers(&self, vni: Vni, eid: Eid) -> impl Iterator<Item = XtrId> + '_ {
        self.index.range(all_askers(vni, eid)).map(|(key, _)| key.asker)
    }

    /// All asks, in order; of one VN when given.
    pub(crate) fn iter(&self, vni: Option<Vni>) -> impl Iterator<Item = (&AskKey, &Ask)> + '_ {
        let from = vni.map(|vni| *all_askers(vni, Eid::Mac(weft_model::MacAddr([0; 6]))).start());
        let from = from.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Included);
        self.index
            .range((from, std::ops::Bound::Unbounded))
            .take_while(move |(key, _)| vni.is_none_or(|vni| key.vni == vni))
            .filter_map(|(key, at)| self.slots.get(*at as usize).map(|slot| (key, &slot.ask)))
    }

    /// Where the ask of `key` is kept: good until the next ask is remembered or forgotten.
    pub(crate) fn find(&self, key: AskKey) -> Option<AskAt> {
        self.index.get(&key).copied().map(AskAt)
    }

    /// As [`Asks::find`], trying `hint` first, where it once was.
    pub(crate) fn find_near(&self, key: AskKey, hint: AskAt) -> Option<AskAt> {
        match self.slots.get(hint.0 as usize) {
            Some(slot) if slot.used && slot.key == key => Some(hint),
            _ => self.find(key),
        }
    }

    /// The ask that [`Asks::find`] found.
    pub(crate) fn at(&mut self, at: AskAt) -> Option<&mut Ask> {
        self.slots.get_mut(at.0 as usize).map(|slot| &mut slot.ask)
    }

    #[cfg(test)]
    fn remember(
        &mut self,
        now: Time,
        key: AskKey,
        class: Class,
        bounds: (&Limits, &RecordTtl),
        evicted: impl FnMut(AskKey),
    ) -> AskAt {
        match self.find(key) {
            Some(at) => {
                self.renew(now, at, class, bounds.1);
                at
            }
            None => self.remember_new(now, key, class, bounds, evicted),
        }
    }

    /// Remembers that the asker holds an answer of `class` from now on.
    pub(crate) fn renew(&mut self, now: Time, at: AskAt, class: Class, ttl: &RecordTtl) {
        let Some(slot) = self.slots.get_mut(at.0 as usize) else { return };
        slot.ask.negative = class.negative();
        if slot.ask.class != class || slot.ask.expires < now + class.least(ttl) {
            let (key, old) = (slot.key, std::mem::replace(&mut slot.ask.class, class));
            slot.ask.expires = now + class.span(ttl);
            self.make_latest(at.0, key, old, class);
        }
    }

    /// As [`Asks::renew`], for an ask that is known not to be there. What had to be forgotten to make room
    /// is given to `evicted`.
    pub(crate) fn remember_new(
        &mut self,
        now: Time,
        key: AskKey,
        class: Class,
        (limits, ttl): (&Limits, &RecordTtl),
        mut evicted: impl FnMut(AskKey),
    ) -> AskAt {
        while let Some(oldest) = self.over(key, limits) {
            match self.remove_at(oldest) {
                Some((key, _)) => evicted(key),
                None => break,
            }
        }
        let ask = Ask {
            class,
            negative: class.negative(),
            doubt: Doubt::None,
            replies: TokenBucket::full(now, limits.reply_burst),
            expires: now + class.span(ttl),
            r1: AskAt(NIL),
            sources: Vec::new(),
        };
        AskAt(self.insert(key, ask))
    }

    /// The ask to be forgotten before one more by this asker in this VN.
    fn over(&self, key: AskKey, limits: &Limits) -> Option<u32> {
        let full = |list: Option<&List>, limit: usize| list.filter(|l| l.len >= limit.max(1)).map(|l| l.head);
        full(self.by_asker.get(&key.asker), limits.asks_per_nve)
            .or_else(|| full(self.by_vn.get(&key.vni), limits.asks_per_vn))
    }

    fn make_latest(&mut self, at: u32, key: AskKey, old: Class, class: Class) {
        if old == class {
            self.classes[class as usize].make_last(&mut self.slots, CLASS, at);
        } else {
            self.classes[old as usize].unlink(&mut self.slots, CLASS, at);
            self.classes[class as usize].push(&mut self.slots, CLASS, at);
        }
        if let Some(list) = self.by_vn.get_mut(&key.vni) {
            list.make_last(&mut self.slots, VN, at);
        }
        if let Some(list) = self.by_asker.get_mut(&key.asker) {
            list.make_last(&mut self.slots, NODE, at);
        }
    }

    fn insert(&mut self, key: AskKey, ask: Ask) -> u32 {
        let class = ask.class;
        let slot = Slot { key, ask, used: true, links: [Link::default(); 3] };
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = slot;
                at
            }
            None => {
                self.slots.push(slot);
                // The limits keep the number of slots far below 2^32.
                u32::try_from(self.slots.len() - 1).unwrap_or(NIL)
            }
        };
        self.index.insert(key, at);
        self.classes[class as usize].push(&mut self.slots, CLASS, at);
        self.by_vn.entry(key.vni).or_default().push(&mut self.slots, VN, at);
        self.by_asker.entry(key.asker).or_default().push(&mut self.slots, NODE, at);
        at
    }

    #[cfg(test)]
    fn remove(&mut self, key: AskKey) -> Option<Ask> {
        let at = *self.index.get(&key)?;
        self.remove_at(at).map(|(_, ask)| ask)
    }

    fn remove_at(&mut self, at: u32) -> Option<(AskKey, Ask)> {
        let slot = self.slots.get_mut(at as usize)?;
        let (key, ask) = (slot.key, slot.ask.clone());
        slot.ask.sources = Vec::new();
        slot.used = false;
        self.index.remove(&key)?;
        self.classes[ask.class as usize].unlink(&mut self.slots, CLASS, at);
        if let Some(list) = self.by_vn.get_mut(&key.vni) {
            list.unlink(&mut self.slots, VN, at);
            if list.len == 0 {
                self.by_vn.remove(&key.vni);
            }
        }
        if let Some(list) = self.by_asker.get_mut(&key.asker) {
            list.unlink(&mut self.slots, NODE, at);
            if list.len == 0 {
                self.by_asker.remove(&key.asker);
            }
        }
        self.free.push(at);
        Some((key, ask))
    }

    /// Forgets every ask in a VN.
    pub(crate) fn remove_vn(&mut self, vni: Vni) {
        while let Some(at) = self.by_vn.get(&vni).map(|list| list.head) {
            if self.remove_at(at).is_none() {
                break;
            }
        }
    }

    /// Forgets every ask of a node.
    pub(crate) fn remove_asker(&mut self, asker: XtrId) {
        while let Some(at) = self.by_asker.get(&asker).map(|list| list.head) {
            if self.remove_at(at).is_none() {
                break;
            }
        }
    }

    /// Forgets the asks whose answer's TTL has ended. Returns how many.
    pub(crate) fn expire(&mut self, now: Time) -> u64 {
        let mut count = 0;
        for class in 0..self.classes.len() {
            while let Some(slot) = self.slots.get(self.classes[class].head as usize) {
                let at = self.classes[class].head;
                if slot.ask.expires > now || self.remove_at(at).is_none() {
                    break;
                }
                count += 1;
            }
        }
        count
    }

    /// When [`Asks::expire`] has something to do; rounded up to a whole second, so that many expire at once.
    pub(crate) fn next_expiry(&self) -> Option<Time> {
        const SECOND: u64 = 1_000_000;
        let heads = self.classes.iter().filter_map(|list| self.slots.get(list.head as usize));
        let next = heads.map(|slot| slot.ask.expires.0).min()?;
        Some(Time(next.div_ceil(SECOND).saturating_mul(SECOND)))
    }
}

impl Ask {
    /// Notes that the question with this nonce is answered by a Negative, or by a mapping.
    pub(crate) fn note_answer(&mut self, nonce: u64, negative: bool) {
        self.doubt = match self.doubt {
            _ if negative => Doubt::Denied(nonce),
            Doubt::Denied(before) if before == nonce => Doubt::Either,
            // Who asks with another nonce takes answers to that only.
            Doubt::Denied(_) => Doubt::None,
            doubt => doubt,
        };
    }

    /// Notes for whom it was asked; beyond `limit` the longest silent source makes room.
    pub(crate) fn note_source(&mut self, now: Time, source: Eid, limit: usize) {
        if let Some((_, seen)) = self.sources.iter_mut().find(|(eid, _)| *eid == source) {
            *seen = now;
        } else if self.sources.len() < limit.max(1) {
            self.sources.push((source, now));
        } else if let Some(oldest) = self.sources.iter_mut().min_by_key(|(_, seen)| *seen) {
            *oldest = (source, now);
        }
    }
}

fn all_askers(vni: Vni, eid: Eid) -> RangeInclusive<AskKey> {
    let key = |asker| AskKey { vni, eid, asker };
    key(XtrId([0; 16]))..=key(XtrId([0xff; 16]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(vni: u32, eid: u8, asker: u8) -> AskKey {
        AskKey {
            vni: Vni::new(vni).unwrap(),
            eid: Eid::Mac(weft_model::MacAddr([2, 0, 0, 0, 0, eid])),
            asker: XtrId([asker; 16]),
        }
    }

    fn limits(vn: usize, nve: usize) -> Limits {
        Limits { asks_per_vn: vn, asks_per_nve: nve, ..Limits::default() }
    }

    #[test]
    fn m2_the_longest_silent_asker_makes_room() {
        let (limits, ttl) = (limits(3, 2), RecordTtl::default());
        let mut asks = Asks::default();
        let mut evicted = Vec::new();
        let mut ask = |asks: &mut Asks, at: u64, key: AskKey| {
            asks.remember(Time::from_secs(100 * at), key, Class::Positive, (&limits, &ttl), |k| {
                evicted.push(k);
            });
        };
        ask(&mut asks, 1, key(1, 1, 1));
        ask(&mut asks, 2, key(1, 2, 1));
        ask(&mut asks, 3, key(1, 1, 1));
        ask(&mut asks, 4, key(1, 3, 1)); // Asker 1 is full: EID 2 has been silent longest.
        ask(&mut asks, 5, key(1, 3, 2));
        ask(&mut asks, 6, key(1, 3, 3)); // The VN is full: EID 1 of asker 1 has been.
        assert_eq!(evicted, [key(1, 2, 1), key(1, 1, 1)]);
        assert_eq!(asks.len(), 3);
    }

    #[test]
    fn m2_asks_live_as_long_as_their_answer() {
        let (limits, ttl) = (Limits::default(), RecordTtl::default());
        let mut asks = Asks::default();
        asks.remember(Time(0), key(1, 1, 1), Class::NegativeInside, (&limits, &ttl), |_| ());
        asks.remember(Time(0), key(1, 2, 1), Class::Positive, (&limits, &ttl), |_| ());
        // A sixteenth longer than TTL and margin: 65 s and 905 s.
        assert_eq!(asks.next_expiry(), Some(Time::from_secs(70)));
        assert_eq!(asks.expire(Time::from_secs(69)), 0);
        assert_eq!(asks.expire(Time::from_secs(70)), 1);
        // Asked again it is remembered as long again, if need be.
        let at = asks.find(key(1, 2, 1)).unwrap();
        asks.renew(Time::from_secs(40), at, Class::Positive, &ttl);
        assert_eq!(asks.next_expiry(), Some(Time::from_secs(962)));
        asks.renew(Time::from_secs(100), at, Class::Positive, &ttl);
        assert_eq!(asks.next_expiry(), Some(Time::from_secs(1_062)));
        assert_eq!(asks.expire(Time::from_secs(1_062)), 1);
        assert_eq!((asks.len(), asks.next_expiry()), (0, None));
    }

    proptest! {
        /// The three lists and the index always agree, whatever happens.
        #[test]
        fn m2_lists_agree(steps in prop::collection::vec((0_u8..5, 1_u32..4, 0_u8..6, 0_u8..4), 0..200)) {
            let (limits, ttl) = (limits(5, 4), RecordTtl::default());
            let mut asks = Asks::default();
            for (now, (what, vni, eid, asker)) in steps.into_iter().enumerate() {
                let now = Time::from_secs(now as u64 * 7);
                let key = key(vni, eid, asker);
                match what {
                    0 => { asks.remember(now, key, Class::Positive, (&limits, &ttl), |_| ()); }
                    1 => { asks.remember(now, key, Class::NegativeInside, (&limits, &ttl), |_| ()); }
                    2 => { asks.remove(key); }
                    3 => { asks.expire(now); }
                    _ if eid == 0 => asks.remove_vn(key.vni),
                    _ if eid == 1 => asks.remove_asker(key.asker),
                    _ => {}
                }
                let count = |lists: &mut dyn Iterator<Item = &List>| lists.map(|l| l.len).sum::<usize>();
                prop_assert_eq!(count(&mut asks.classes.iter()), asks.len());
                prop_assert_eq!(count(&mut asks.by_vn.values()), asks.len());
                prop_assert_eq!(count(&mut asks.by_asker.values()), asks.len());
                prop_assert_eq!(asks.slots.len() - asks.free.len(), asks.len());
                prop_assert!(asks.by_vn.values().all(|l| l.len <= 5 && l.len > 0));
                prop_assert!(asks.by_asker.values().all(|l| l.len <= 4 && l.len > 0));
                for list in &asks.classes {
                    let (mut at, mut before, mut len) = (list.head, Time::default(), 0);
                    while let Some(slot) = asks.slots.get(at as usize) {
                        prop_assert!(slot.ask.expires >= before);
                        (before, at, len) = (slot.ask.expires, slot.links[CLASS].next, len + 1);
                    }
                    prop_assert_eq!(len, list.len);
                }
            }
        }
    }
}
