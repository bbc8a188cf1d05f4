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

/// How far a subscription is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// Its confirmation is not acknowledged yet.
    Confirming,
    /// Changes are published.
    Active,
    /// Its end is confirmed, and that is not acknowledged yet.
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
    all: BTreeMap<Key, Subscription>,
    by_eid: BTreeSet<(lisp::Eid, XtrId)>,
    /// How many there are of each Instance ID, address and mask length: what has to be looked for.
    lengths: BTreeMap<(u32, u8, u8), usize>,
    counts: BTreeMap<XtrId, usize>,
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
            ready: VecDeque::new(),
            budget,
            armed: false,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many are kept of an xTR.
    pub(crate) fn count(&self, xtr: XtrId) -> usize {
        self.counts.get(&xtr).copied().unwrap_or(0)
    }

    pub(crate) fn get(&self, key: Key) -> Option<&Subscription> {
        self.all.get(&key)
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Subscription> {
        self.all.get_mut(&key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &Subscription)> + '_ {
        self.all.iter().map(|(key, subscription)| (*key, subscription))
    }

    /// Those of one xTR.
    pub(crate) fn of(&self, xtr: XtrId) -> impl Iterator<Item = (Key, &Subscription)> + '_ {
        self.all
            .range((xtr, lisp::Eid::FIRST)..)
            .take_while(move |((id, _), _)| *id == xtr)
            .map(|(key, one)| (*key, one))
    }

    pub(crate) fn insert(&mut self, key: Key, subscription: Subscription) {
        if self.all.insert(key, subscription).is_none() {
            let (xtr, eid) = key;
            self.by_eid.insert((eid, xtr));
            *self.lengths.entry(length(eid)).or_default() += 1;
            *self.counts.entry(xtr).or_default() += 1;
        }
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<Subscription> {
        let removed = self.all.remove(&key)?;
        let (xtr, eid) = key;
        self.by_eid.remove(&(eid, xtr));
        drop_one(&mut self.lengths, length(eid));
        drop_one(&mut self.counts, xtr);
        if removed.queued {
            self.ready.retain(|other| *other != key);
        }
        Some(removed)
    }

    /// The subscriptions that `eid` belongs to: of each xTR its most specific one.
    pub(crate) fn told_of(&self, eid: lisp::Eid) -> Vec<Key> {
        let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
        for prefix in self.prefixes(eid) {
            let at = self.by_eid.range((prefix, XtrId([0; 16]))..=(prefix, XtrId([0xff; 16])));
            found.extend(at.filter(|(_, xtr)| seen.insert(*xtr)).map(|(_, xtr)| (*xtr, prefix)));
        }
        found
    }

    /// The most specific subscription of an xTR that `eid` belongs to, `eid` itself included.
    pub(crate) fn best(&self, xtr: XtrId, eid: lisp::Eid) -> Option<(Key, &Subscription)> {
        self.prefixes(eid).find_map(|prefix| self.all.get(&(xtr, prefix)).map(|one| ((xtr, prefix), one)))
    }

    /// The less specific subscription of an xTR that `eid` lies in and that is published.
    pub(crate) fn above(&self, xtr: XtrId, eid: lisp::Eid) -> Option<Key> {
        let mut shorter = self.prefixes(eid).filter(|prefix| *prefix != eid).map(|prefix| (xtr, prefix));
        shorter.find(|key| self.all.get(key).is_some_and(Subscription::listens))
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
