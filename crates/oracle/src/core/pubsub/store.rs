//! What is kept of subscriptions, and which of them an EID belongs to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use weft_lisp as lisp;
use weft_model::{Eid, MacAddr, Time, XtrId};

use super::super::subscribe::Stage;
use super::Key;

/// What is to be told of an EID again; of an IP address also what there is of a MAC that it had, since whoever was
/// told the one was told the other. Ordered, so that all about an EID stands together.
pub(crate) type Change = (Eid, Option<MacAddr>);

/// The place of a subscription. What is asked for stands beside what was acknowledged, until it is itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Slot {
    pub(crate) key: Key,
    /// It waits for the Ack that puts it in the place of what stands.
    pub(crate) asked: bool,
}

impl Slot {
    /// What has been acknowledged.
    pub(crate) const fn standing(key: Key) -> Self {
        Self { key, asked: false }
    }

    /// What a Map-Request, which anybody may have sent, asks for.
    pub(crate) const fn asked(key: Key) -> Self {
        Self { key, asked: true }
    }
}

/// How far a subscription is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// Asked for: its confirmation is not acknowledged yet.
    Confirming,
    /// Changes are published.
    Active,
    /// Asked for: the end of what stands, confirmed but not acknowledged yet.
    Leaving,
    /// The xTR wants no word of this part of a less specific prefix that it is subscribed to.
    Muted,
}

/// One xTR's subscription to one prefix.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Subscription {
    pub(crate) phase: Phase,
    /// Where Map-Notifies go, each one's copies in turn; never empty.
    pub(crate) itr_rlocs: Vec<IpAddr>,
    /// Which of our addresses was asked.
    pub(crate) asked_at: IpAddr,
    /// That of the latest Map-Notify.
    pub(crate) nonce: u64,
    pub(crate) unacked: Option<Unacked>,
    /// What has changed since the latest Map-Notify was written.
    pub(crate) pending: BTreeSet<Change>,
    /// How far the existing records of a prefix have been told.
    pub(crate) snapshot: Stage<Eid>,
    /// When it ends because its address is nobody's.
    pub(crate) expires: Option<Time>,
    /// It stands in the queue of those with something to publish.
    pub(crate) queued: bool,
}

/// A Map-Notify that waits for its Ack.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Unacked {
    /// Every copy is the same.
    pub(crate) octets: Box<[u8]>,
    /// What it is about, to be told again if it is given up for another.
    pub(crate) changes: Vec<Change>,
    pub(crate) sent: u32,
    /// When it is sent again, or given up.
    pub(crate) due: Time,
}

impl Subscription {
    /// Whether changes are to be noted for it.
    pub(crate) const fn listens(&self) -> bool {
        matches!(self.phase, Phase::Confirming | Phase::Active)
    }
}

/// All subscriptions of plain xTRs in a shard.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Subscriptions {
    all: BTreeMap<Slot, Subscription>,
    by_eid: BTreeSet<(lisp::Eid, XtrId, bool)>,
    /// How many there are of each Instance ID, address and mask length: what has to be looked for.
    lengths: BTreeMap<(u32, u8, u8), usize>,
    /// How many prefixes of each xTR.
    counts: BTreeMap<XtrId, usize>,
    /// How many of all.
    len: usize,
    /// Those with something to publish, each once.
    pub(crate) ready: VecDeque<Key>,
    /// Map-Notifies that may be sent before the next interval begins.
    pub(crate) budget: usize,
    /// The timer of that is set.
    pub(crate) armed: bool,
}

impl Subscriptions {
    pub(crate) fn new(budget: usize) -> Self {
        Self {
            all: BTreeMap::new(),
            by_eid: BTreeSet::new(),
            lengths: BTreeMap::new(),
            counts: BTreeMap::new(),
            len: 0,
            ready: VecDeque::new(),
            budget,
            armed: false,
        }
    }

    /// How many prefixes are kept, each xTR's on its own; what stands and what is asked for in its place are one.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many are kept of an xTR.
    pub(crate) fn count(&self, xtr: XtrId) -> usize {
        self.counts.get(&xtr).copied().unwrap_or(0)
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&Subscription> {
        self.all.get(&slot)
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut Subscription> {
        self.all.get_mut(&slot)
    }

    /// Whether there is one of a prefix, asked for or standing.
    pub(crate) fn has(&self, key: Key) -> bool {
        self.all.contains_key(&Slot::standing(key)) || self.all.contains_key(&Slot::asked(key))
    }

    /// To how many prefixes an xTR is subscribed, or asks to be.
    pub(crate) fn listening(&self, xtr: XtrId) -> usize {
        let listening = self.of(xtr).filter(|(_, one)| one.listens());
        listening.map(|(slot, _)| slot.key).collect::<BTreeSet<Key>>().len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Slot, &Subscription)> + '_ {
        self.all.iter().map(|(slot, subscription)| (*slot, subscription))
    }

    /// Those of one xTR.
    pub(crate) fn of(&self, xtr: XtrId) -> impl Iterator<Item = (Slot, &Subscription)> + '_ {
        self.all
            .range(Slot::standing((xtr, lisp::Eid::FIRST))..)
            .take_while(move |(slot, _)| slot.key.0 == xtr)
            .map(|(slot, one)| (*slot, one))
    }

    pub(crate) fn insert(&mut self, slot: Slot, subscription: Subscription) {
        let known = self.has(slot.key);
        if self.all.insert(slot, subscription).is_none() {
            let (xtr, eid) = slot.key;
            self.by_eid.insert((eid, xtr, slot.asked));
            *self.lengths.entry(length(eid)).or_default() += 1;
            if !known {
                *self.counts.entry(xtr).or_default() += 1;
                self.len += 1;
            }
        }
    }

    pub(crate) fn remove(&mut self, slot: Slot) -> Option<Subscription> {
        let removed = self.all.remove(&slot)?;
        let (xtr, eid) = slot.key;
        self.by_eid.remove(&(eid, xtr, slot.asked));
        drop_one(&mut self.lengths, length(eid));
        if !self.has(slot.key) {
            drop_one(&mut self.counts, xtr);
            self.len -= 1;
        }
        if removed.queued {
            self.ready.retain(|other| *other != slot.key);
        }
        Some(removed)
    }

    /// The subscriptions that `eid` belongs to: of each xTR the most specific one that stands, and those asked for
    /// in its place or for a part of it. Nobody is silenced by what has not been acknowledged.
    pub(crate) fn told_of(&self, eid: lisp::Eid) -> Vec<Slot> {
        let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
        for prefix in self.prefixes(eid) {
            let at = self.by_eid.range((prefix, XtrId([0; 16]), false)..=(prefix, XtrId([0xff; 16]), true));
            let here = at.filter(|(_, xtr, _)| !seen.contains(xtr));
            let here: Vec<Slot> =
                here.map(|(_, xtr, asked)| Slot { key: (*xtr, prefix), asked: *asked }).collect();
            seen.extend(here.iter().filter(|slot| !slot.asked).map(|slot| slot.key.0));
            found.extend(here);
        }
        found
    }

    /// The most specific standing subscription of an xTR that `eid` belongs to, `eid` itself included.
    pub(crate) fn best(&self, xtr: XtrId, eid: lisp::Eid) -> Option<(Key, &Subscription)> {
        let at = |prefix| self.get(Slot::standing((xtr, prefix))).map(|one| ((xtr, prefix), one));
        self.prefixes(eid).find_map(at)
    }

    /// The less specific subscription of an xTR that `eid` lies in and that is published.
    pub(crate) fn above(&self, xtr: XtrId, eid: lisp::Eid) -> Option<Key> {
        let mut shorter = self.prefixes(eid).filter(|prefix| *prefix != eid).map(|prefix| (xtr, prefix));
        shorter.find(|key| self.get(Slot::standing(*key)).is_some_and(Subscription::listens))
    }

    /// The prefixes that `eid` lies in and somebody may be subscribed to, the most specific first.
    fn prefixes(&self, eid: lisp::Eid) -> impl Iterator<Item = lisp::Eid> + '_ {
        let (iid, bits, len) = length(eid);
        let lengths = self.lengths.range((iid, bits, 0)..=(iid, bits, len)).rev();
        lengths.filter_map(move |((.., len), _)| lisp::Eid::prefix(iid, eid.addr(), *len).ok())
    }
}

fn length(eid: lisp::Eid) -> (u32, u8, u8) {
    (eid.iid(), eid.addr().bits(), eid.mask_len())
}

fn drop_one<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}
