//! Who receives which multicast groups of a VN, as its NVEs say (requirement N9; RFC 8378 section 5 for the idea), and
//! who is told: those that are subscribed to the VN's members, behind the RLOCs of each in their snapshot, then change
//! by change. What an NVE said lives as its registrations do: it outlives a lost session, until the next one has
//! named all there is or the host is found dead.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use weft_lisp::EncodeOptions;
use weft_lisp::tcp::{Body, Group, GroupEvent};
use weft_model::{GroupIp, Time, Vni, XtrId};

use super::Shard;
use super::members::site_id;
use super::subscribe::Stage;

/// The groups that somebody at an NVE receives, by VN: never none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Receivers {
    groups: BTreeMap<(Vni, XtrId), BTreeSet<GroupIp>>,
    /// In which VNs an NVE has some.
    by_nve: BTreeMap<XtrId, BTreeSet<Vni>>,
}

impl Receivers {
    fn contains(&self, vni: Vni, nve: XtrId, group: GroupIp) -> bool {
        self.groups.get(&(vni, nve)).is_some_and(|groups| groups.contains(&group))
    }

    /// All groups of one NVE in a VN.
    pub(crate) fn of(&self, vni: Vni, nve: XtrId) -> impl Iterator<Item = GroupIp> + '_ {
        self.groups.get(&(vni, nve)).into_iter().flatten().copied()
    }

    fn count(&self, vni: Vni, nve: XtrId) -> usize {
        self.groups.get(&(vni, nve)).map_or(0, BTreeSet::len)
    }

    /// Whether it is news.
    fn add(&mut self, vni: Vni, nve: XtrId, group: GroupIp) -> bool {
        self.by_nve.entry(nve).or_default().insert(vni);
        self.groups.entry((vni, nve)).or_default().insert(group)
    }

    fn remove(&mut self, vni: Vni, nve: XtrId, group: GroupIp) -> bool {
        let Some(groups) = self.groups.get_mut(&(vni, nve)) else { return false };
        let removed = groups.remove(&group);
        if groups.is_empty() {
            self.groups.remove(&(vni, nve));
            let vnis = self.by_nve.entry(nve).or_default();
            vnis.remove(&vni);
            if vnis.is_empty() {
                self.by_nve.remove(&nve);
            }
        }
        removed
    }

    /// The first NVE with receivers in a VN behind `last`, or the first of all.
    pub(crate) fn behind(&self, vni: Vni, last: Option<XtrId>) -> Option<XtrId> {
        let first = last.map_or(Bound::Included((vni, XtrId([0; 16]))), |nve| Bound::Excluded((vni, nve)));
        let ((v, nve), _) = self.groups.range((first, Bound::Unbounded)).next()?;
        (*v == vni).then_some(*nve)
    }

    /// The VNs in which an NVE has receivers.
    fn vnis_of(&self, nve: XtrId) -> Vec<Vni> {
        self.by_nve.get(&nve).into_iter().flatten().copied().collect()
    }

    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Vni, XtrId, usize)> + '_ {
        self.groups.iter().map(|((vni, nve), groups)| (*vni, *nve, groups.len()))
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

/// What an NVE has named of a VN since its session began.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Named {
    /// So far: there is more to come.
    Some(BTreeSet<GroupIp>),
    /// All there is.
    All,
}

impl Shard {
    /// A group frame of an NVE.
    pub(crate) fn group(&mut self, now: Time, nve: XtrId, frame: Group) {
        let vni = Vni::new(frame.vni).ok().filter(|vni| self.owns(*vni));
        // It has no part in the VN, so nobody there sends it anything.
        let Some(vni) = vni.filter(|vni| self.may_subscribe(nve, *vni).is_ok()) else {
            self.counters.groups_refused += 1;
            return;
        };
        let Some(session) = self.nodes.get_mut(nve).and_then(|node| node.session.as_mut()) else { return };
        match frame.event {
            GroupEvent::Begin => {
                session.groups.insert(vni, Named::Some(BTreeSet::new()));
            }
            GroupEvent::End => {
                let Some(Named::Some(named)) = session.groups.insert(vni, Named::All) else { return };
                self.forget_groups(now, vni, nve, &named);
            }
            GroupEvent::Add { group, .. } => {
                let group = GroupIp::new(group).ok();
                let Some(group) = group.filter(|group| self.has_room(vni, nve, *group)) else {
                    self.counters.groups_refused += 1;
                    return;
                };
                self.add_group(now, vni, nve, group);
            }
            GroupEvent::AddAll { .. } | GroupEvent::RemoveAll { .. } => self.counters.unsupported += 1,
            GroupEvent::Remove { group, .. } => {
                let Ok(group) = GroupIp::new(group) else { return };
                if let Some(Named::Some(named)) = session.groups.get_mut(&vni) {
                    named.remove(&group);
                }
                if self.receivers.remove(vni, nve, group) {
                    self.tell_group(now, vni, nve, group);
                }
            }
        }
    }

    /// What an NVE has named so far, while it names all it has of a VN.
    fn naming(&mut self, vni: Vni, nve: XtrId) -> Option<&mut BTreeSet<GroupIp>> {
        match self.nodes.get_mut(nve)?.session.as_mut()?.groups.get_mut(&vni)? {
            Named::Some(named) => Some(named),
            Named::All => None,
        }
    }

    /// Whether one more group of an NVE may be kept. While it names all it has, what it said in an earlier session
    /// takes no room.
    fn has_room(&mut self, vni: Vni, nve: XtrId, group: GroupIp) -> bool {
        let limit = self.config.limits.groups_per_member.max(1);
        match self.naming(vni, nve) {
            Some(named) => named.len() < limit || named.contains(&group),
            None => self.receivers.count(vni, nve) < limit || self.receivers.contains(vni, nve, group),
        }
    }

    fn add_group(&mut self, now: Time, vni: Vni, nve: XtrId, group: GroupIp) {
        let limit = self.config.limits.groups_per_member.max(1);
        let full = self.receivers.count(vni, nve) >= limit.saturating_mul(2);
        if let Some(named) = self.naming(vni, nve) {
            named.insert(group);
            if full {
                // Left over from naming that never came to its end, more than once.
                let named = named.clone();
                self.forget_groups(now, vni, nve, &named);
            }
        }
        if self.receivers.add(vni, nve, group) {
            self.tell_group(now, vni, nve, group);
        }
    }

    /// An NVE has no receivers in a VN but of those groups in `kept`.
    pub(crate) fn forget_groups(&mut self, now: Time, vni: Vni, nve: XtrId, kept: &BTreeSet<GroupIp>) {
        let gone: Vec<GroupIp> = self.receivers.of(vni, nve).filter(|group| !kept.contains(group)).collect();
        for group in gone {
            self.receivers.remove(vni, nve, group);
            self.tell_group(now, vni, nve, group);
        }
    }

    /// An NVE is gone.
    pub(crate) fn forget_all_groups(&mut self, now: Time, nve: XtrId) {
        for vni in self.receivers.vnis_of(nve) {
            self.forget_groups(now, vni, nve, &BTreeSet::new());
        }
    }

    /// An NVE has named all it has: it has no receivers in VNs that it did not speak of.
    pub(crate) fn end_of_groups(&mut self, now: Time, nve: XtrId) {
        for vni in self.receivers.vnis_of(nve) {
            let session = self.nodes.get(nve).and_then(|node| node.session.as_ref());
            if session.is_some_and(|session| !session.groups.contains_key(&vni)) {
                self.forget_groups(now, vni, nve, &BTreeSet::new());
            }
        }
    }

    /// Notes for each subscriber of a VN that it is to be told of this group of `nve`: what is true of it when it is.
    fn tell_group(&mut self, now: Time, vni: Vni, nve: XtrId, group: GroupIp) {
        let subscribers: Vec<XtrId> = self.subscribers.members_of(vni).filter(|to| *to != nve).collect();
        for to in subscribers {
            let session = self.nodes.get_mut(to).and_then(|node| node.session.as_mut());
            let Some(session) = session.filter(|session| session.hello) else { continue };
            let Some(feed) = session.feeds.members.get(&vni) else { continue };
            if feed.stage.is_ahead(&nve) {
                continue;
            }
            session.feeds.group_changes.insert((vni, nve, group));
            self.limit_changes(now, to, vni);
            self.wake(to);
        }
    }

    /// All members anew is less than all that has changed of them, when that is too much.
    pub(crate) fn limit_changes(&mut self, now: Time, to: XtrId, vni: Vni) {
        let limit = self.config.limits.changes_per_session.max(1);
        let Some(session) = self.nodes.get_mut(to).and_then(|node| node.session.as_mut()) else { return };
        let feeds = &mut session.feeds;
        if feeds.member_changes.len() + feeds.group_changes.len() <= limit {
            return;
        }
        feeds.forget_changes(vni);
        if let Some(feed) = feeds.members.get_mut(&vni) {
            feed.stage = Stage::Begin;
        }
        self.counters.snapshots_restarted += 1;
        self.push_ready(now, to);
    }

    /// Appends the next change of a VN's groups; false when there is none.
    pub(crate) fn write_group_change(&mut self, to: XtrId, out: &mut Vec<u8>) -> bool {
        let session = self.nodes.get_mut(to).and_then(|node| node.session.as_mut());
        let change = session.and_then(|session| session.feeds.group_changes.pop_first());
        let Some((vni, nve, group)) = change else { return false };
        let there = self.receivers.contains(vni, nve, group);
        self.write_group(vni, nve, group, there, out);
        true
    }

    /// Appends the groups of one member of a snapshot.
    pub(crate) fn write_groups(&mut self, vni: Vni, nve: XtrId, out: &mut Vec<u8>) {
        let groups: Vec<GroupIp> = self.receivers.of(vni, nve).collect();
        for group in groups {
            self.write_group(vni, nve, group, true, out);
        }
    }

    fn write_group(&mut self, vni: Vni, nve: XtrId, group: GroupIp, there: bool, out: &mut Vec<u8>) {
        let (site_id, group) = (site_id(nve), group.get());
        let event = match there {
            true => GroupEvent::Add { site_id, group },
            false => GroupEvent::Remove { site_id, group },
        };
        let id = self.next_frame_id();
        // A group always has an encoding.
        let _ = Body::Group(Group { vni: vni.get(), event }).encode(id, out, EncodeOptions::default());
    }
}
