//! Who has a part in a VN: the NVEs with an active registration in it (requirements N9, M2), and who is told.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use weft_lisp::EncodeOptions;
use weft_lisp::tcp::{Body, Membership, MembershipEvent};
use weft_model::{Rloc, Time, Vni, XtrId};

use super::subscribe::Stage;
use super::{Shard, Timer};

/// NVEs by VN, with how many active registrations each has there: never 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Members {
    counts: BTreeMap<(Vni, XtrId), u32>,
    /// Those that became members, or are none any more, since it was last asked.
    turned: BTreeSet<(Vni, XtrId)>,
}

impl Members {
    pub(crate) fn add(&mut self, vni: Vni, nve: XtrId) {
        let count = self.counts.entry((vni, nve)).or_default();
        *count += 1;
        if *count == 1 {
            self.turn((vni, nve));
        }
    }

    pub(crate) fn remove(&mut self, vni: Vni, nve: XtrId) {
        let Entry::Occupied(mut count) = self.counts.entry((vni, nve)) else { return };
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
            self.turn((vni, nve));
        }
    }

    /// Twice is never.
    fn turn(&mut self, key: (Vni, XtrId)) {
        if !self.turned.remove(&key) {
            self.turned.insert(key);
        }
    }

    pub(crate) fn contains(&self, vni: Vni, nve: XtrId) -> bool {
        self.counts.contains_key(&(vni, nve))
    }

    /// All members with their active registrations, of one VN or of all.
    pub(crate) fn iter(&self, vni: Option<Vni>) -> impl Iterator<Item = (Vni, XtrId, u32)> + '_ {
        let first = vni.map_or(Bound::Unbounded, |vni| Bound::Included((vni, XtrId([0; 16]))));
        self.counts
            .range((first, Bound::Unbounded))
            .take_while(move |((v, _), _)| vni.is_none_or(|vni| vni == *v))
            .map(|((vni, nve), count)| (*vni, *nve, *count))
    }

    /// The first member of a VN behind `last`, or the first of all.
    pub(crate) fn behind(&self, vni: Vni, last: Option<XtrId>) -> Option<XtrId> {
        let first = last.map_or(Bound::Included((vni, XtrId([0; 16]))), |nve| Bound::Excluded((vni, nve)));
        let ((v, nve), _) = self.counts.range((first, Bound::Unbounded)).next()?;
        (*v == vni).then_some(*nve)
    }

    #[cfg(test)]
    pub(crate) fn is_told(&self) -> bool {
        self.turned.is_empty()
    }
}

/// The 64 bits that stand for an NVE as Site-ID of a member, so that its RLOCs are seen to be one member's.
/// xTR-IDs are random, and so is any half of them.
pub(crate) fn site_id(nve: XtrId) -> u64 {
    let whole = u128::from_be_bytes(nve.0);
    // Both halves count for those that are not random.
    u64::try_from((whole >> 64) ^ (whole & u128::from(u64::MAX))).unwrap_or_default()
}

impl Shard {
    /// Tells subscribers who became a member, and who is none any more.
    pub(crate) fn publish_members(&mut self, now: Time) {
        while let Some((vni, nve)) = self.db.members.turned.pop_first() {
            let rlocs = self.nodes.get(nve).map(|node| node.rlocs.clone()).unwrap_or_default();
            self.tell_members(now, vni, nve, &rlocs);
            self.turned(now, vni, nve);
        }
    }

    /// A node is about to have other RLOCs: where it is a member, the difference is told.
    pub(crate) fn members_at(&mut self, now: Time, nve: XtrId, changed: &[Rloc]) {
        let mut vnis: Vec<Vni> = self.db.registered_by(nve).map(|(vni, _)| vni).collect();
        vnis.dedup();
        for vni in vnis {
            if self.db.members.contains(vni, nve) {
                self.tell_members(now, vni, nve, changed);
            }
        }
    }

    /// Notes for each subscriber of a VN that it is to be told of these RLOCs of `nve`: what is true of them
    /// when it is.
    fn tell_members(&mut self, now: Time, vni: Vni, nve: XtrId, rlocs: &[Rloc]) {
        let subscribers: Vec<XtrId> = self.subscribers.members_of(vni).filter(|to| *to != nve).collect();
        for to in subscribers {
            let Some(session) = self.nodes.get_mut(to).and_then(|node| node.session.as_mut()) else {
                continue;
            };
            let Some(feed) = session.feeds.members.get(&vni) else { continue };
            if feed.stage.is_ahead(&nve) {
                continue;
            }
            session.feeds.member_changes.extend(rlocs.iter().map(|rloc| (vni, nve, *rloc)));
            self.limit_changes(now, to, vni);
            self.wake(to);
        }
    }

    /// Appends the next change of a VN's members; false when there is none.
    pub(crate) fn write_member_change(&mut self, to: XtrId, out: &mut Vec<u8>) -> bool {
        let Some(session) = self.nodes.get_mut(to).and_then(|node| node.session.as_mut()) else {
            return false;
        };
        let Some((vni, nve, rloc)) = session.feeds.member_changes.pop_first() else {
            return self.write_group_change(to, out);
        };
        if let Some(feed) = session.feeds.members.get(&vni) {
            let afi = feed.afi;
            let there = self.nodes.get(nve).is_some_and(|node| node.rlocs.contains(&rloc));
            let (site_id, rloc) = (site_id(nve), rloc.get());
            let event = if there && self.db.members.contains(vni, nve) {
                MembershipEvent::Add { site_id, rloc }
            } else {
                MembershipEvent::Remove { site_id, rloc }
            };
            let id = self.next_frame_id();
            write(afi, vni, event, id, out);
        }
        true
    }

    /// Appends the next piece of the snapshot of a VN's members; false when nothing of it is due.
    pub(crate) fn write_members(&mut self, to: XtrId, vni: Vni, out: &mut Vec<u8>) -> bool {
        let settled = self.awaited.is_empty();
        let session = self.nodes.get(to).and_then(|node| node.session.as_ref());
        let Some(feed) = session.and_then(|session| session.feeds.members.get(&vni)).cloned() else {
            return false;
        };
        let (mut said, mut of) = (Vec::new(), None);
        let stage = match feed.stage {
            Stage::Idle => return false,
            // Who is missing may be about to register: until then nobody is to be forgotten.
            Stage::End if !settled => return false,
            Stage::Begin => {
                said.push(MembershipEvent::RefreshBegin { request_id: feed.request });
                Stage::Behind(None)
            }
            Stage::End => {
                said.push(MembershipEvent::RefreshEnd { request_id: feed.request });
                Stage::Idle
            }
            Stage::Behind(last) => match self.next_member(vni, last) {
                None => Stage::End,
                Some(nve) => {
                    of = Some(nve).filter(|nve| *nve != to);
                    // Nobody is a member in its own eyes.
                    let member = nve != to && self.db.members.contains(vni, nve);
                    let node = self.nodes.get(nve).filter(|_| member);
                    let rlocs = node.map(|node| node.rlocs.as_slice()).unwrap_or_default();
                    let site_id = site_id(nve);
                    said.extend(rlocs.iter().map(|r| MembershipEvent::Add { site_id, rloc: r.get() }));
                    Stage::Behind(Some(nve))
                }
            },
        };
        for event in said {
            let id = self.next_frame_id();
            write(feed.afi, vni, event, id, out);
        }
        if let Some(nve) = of {
            self.write_groups(to, vni, nve, out);
        }
        let session = self.nodes.get_mut(to).and_then(|node| node.session.as_mut());
        if let Some(feed) = session.and_then(|session| session.feeds.members.get_mut(&vni)) {
            feed.stage = stage;
        }
        true
    }

    /// The first NVE behind `last` of whom there is something to say in a snapshot.
    fn next_member(&self, vni: Vni, last: Option<XtrId>) -> Option<XtrId> {
        let next = [self.db.members.behind(vni, last), self.receivers.behind(vni, last)];
        next.into_iter().flatten().min()
    }

    /// All facts are loaded: those that hold a grant are about to register what they have.
    pub(crate) fn await_registrations(&mut self, now: Time) {
        let known = |nve: &XtrId| self.nodes.get(*nve).is_some_and(|node| node.plain.is_none());
        self.awaited = self.db.holders().filter(known).collect();
        if !self.awaited.is_empty() {
            self.arm(now + self.config.timing.settle, Timer::Settled);
        }
    }

    /// An NVE has registered all it has, or is gone.
    pub(crate) fn end_wait(&mut self, now: Time, nve: XtrId) {
        if self.awaited.remove(&nve) && self.awaited.is_empty() {
            self.settled(now);
        }
    }

    /// Whoever has registered nothing by now has nothing: members are complete.
    pub(crate) fn settled(&mut self, now: Time) {
        self.awaited.clear();
        for to in self.subscribers.to_members() {
            self.push_ready(now, to);
        }
    }
}

fn write(eid_afi: u16, vni: Vni, event: MembershipEvent, id: u32, out: &mut Vec<u8>) {
    // An RLOC always has an encoding.
    let _ = Body::Membership(Membership { eid_afi, iid: vni.get(), event }).encode(
        id,
        out,
        EncodeOptions::default(),
    );
}
