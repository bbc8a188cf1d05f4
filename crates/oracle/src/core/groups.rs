//! Who receives which multicast groups of a VN, as its NVEs say (requirement N9; RFC 8378 section 5 for the idea), and
//! who is told: those that are subscribed to the VN's members, behind the RLOCs of each in their snapshot, then change
//! by change. What an NVE said lives as its registrations do: it outlives a lost session, until the next one has
//! named all there is or the host is found dead.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use weft_lisp::EncodeOptions;
use weft_lisp::tcp::{Body, Group, GroupEvent};
use weft_model::{GroupIp, Time, Vni, Wanted, XtrId};

use super::members::site_id;
use super::output::SessionId;
use super::subscribe::Stage;
use super::{Shard, Timer};

/// What somebody at an NVE receives in a VN: never nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Has {
    groups: BTreeSet<GroupIp>,
    /// All, it says: more groups than it may name.
    all: bool,
    /// It has named more than is kept.
    lost: bool,
}

/// Who receives what, by VN.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Receivers {
    has: BTreeMap<(Vni, XtrId), Has>,
    /// In which VNs an NVE has some.
    by_nve: BTreeMap<XtrId, BTreeSet<Vni>>,
}

impl Receivers {
    fn contains(&self, vni: Vni, nve: XtrId, group: GroupIp) -> bool {
        self.has.get(&(vni, nve)).is_some_and(|has| has.groups.contains(&group))
    }

    /// All groups that one NVE has named in a VN.
    pub(crate) fn of(&self, vni: Vni, nve: XtrId) -> impl Iterator<Item = GroupIp> + '_ {
        self.has.get(&(vni, nve)).into_iter().flat_map(|has| &has.groups).copied()
    }

    fn count(&self, vni: Vni, nve: XtrId) -> usize {
        self.has.get(&(vni, nve)).map_or(0, |has| has.groups.len())
    }

    /// Whether there is more than the groups that are named.
    fn has_more(&self, vni: Vni, nve: XtrId) -> bool {
        self.has.get(&(vni, nve)).is_some_and(|has| has.all || has.lost)
    }

    fn has_lost(&self, vni: Vni, nve: XtrId) -> bool {
        self.has.get(&(vni, nve)).is_some_and(|has| has.lost)
    }

    /// Changes what an NVE receives in a VN; gives what the change says of it.
    fn change<T>(&mut self, vni: Vni, nve: XtrId, change: impl FnOnce(&mut Has) -> T) -> T {
        let has = self.has.entry((vni, nve)).or_default();
        let said = change(has);
        if *has == Has::default() {
            self.has.remove(&(vni, nve));
            let vnis = self.by_nve.entry(nve).or_default();
            vnis.remove(&vni);
            if vnis.is_empty() {
                self.by_nve.remove(&nve);
            }
        } else {
            self.by_nve.entry(nve).or_default().insert(vni);
        }
        said
    }

    /// The first NVE with receivers in a VN behind `last`, or the first of all.
    pub(crate) fn behind(&self, vni: Vni, last: Option<XtrId>) -> Option<XtrId> {
        let first = last.map_or(Bound::Included((vni, XtrId([0; 16]))), |nve| Bound::Excluded((vni, nve)));
        let ((v, nve), _) = self.has.range((first, Bound::Unbounded)).next()?;
        (*v == vni).then_some(*nve)
    }

    /// The VNs in which an NVE has receivers.
    fn vnis_of(&self, nve: XtrId) -> Vec<Vni> {
        self.by_nve.get(&nve).into_iter().flatten().copied().collect()
    }

    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Vni, XtrId, usize)> + '_ {
        self.has.iter().map(|((vni, nve), has)| (*vni, *nve, has.groups.len()))
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        assert_eq!(self.has.is_empty(), self.by_nve.is_empty());
        self.has.is_empty()
    }
}

/// So often more an NVE is asked for what it named and was not kept.
const LOST_TRIES: u8 = 3;
/// No such question follows another at once, whatever the configuration says.
const LEAST_WAIT: Duration = Duration::from_millis(100);

/// What an NVE has named of a VN since its session began.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Named {
    /// So far: there is more to come.
    Some(Naming),
    /// All there is.
    All,
}

/// What one naming has said so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Naming {
    groups: BTreeSet<GroupIp>,
    all: bool,
    lost: bool,
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
                session.groups.insert(vni, Named::Some(Naming::default()));
            }
            GroupEvent::End => {
                let Some(Named::Some(named)) = session.groups.insert(vni, Named::All) else { return };
                self.keep_groups(now, vni, nve, &named.groups);
                self.set_more(now, vni, nve, |has| (has.all, has.lost) = (named.all, named.lost));
            }
            GroupEvent::Add { group, .. } => {
                let Ok(group) = GroupIp::new(group) else {
                    self.counters.groups_refused += 1;
                    return;
                };
                if self.has_room(vni, nve, group) {
                    return self.add_group(now, vni, nve, group);
                }
                self.counters.groups_refused += 1;
                if let Some(named) = self.naming(vni, nve) {
                    named.lost = true;
                }
                self.set_more(now, vni, nve, |has| has.lost = true);
            }
            GroupEvent::Remove { group, .. } => {
                let Ok(group) = GroupIp::new(group) else { return };
                if let Some(named) = self.naming(vni, nve) {
                    named.groups.remove(&group);
                }
                self.remove_group(now, vni, nve, group);
                self.ask_for_lost(now, vni, nve);
            }
            GroupEvent::AddAll { .. } | GroupEvent::RemoveAll { .. } => {
                let all = matches!(frame.event, GroupEvent::AddAll { .. });
                if let Some(named) = self.naming(vni, nve) {
                    named.all = all;
                }
                self.set_more(now, vni, nve, |has| has.all = all);
            }
        }
    }

    /// Whether a member is to get every group: it has more than it has named, or it has not named all, in this
    /// session or in any, as who does not know how to does.
    pub(crate) fn wants_all(&self, vni: Vni, nve: XtrId) -> bool {
        self.db.members.contains(vni, nve) && self.has_more(vni, nve)
    }

    /// The same of who may be a member.
    fn has_more(&self, vni: Vni, nve: XtrId) -> bool {
        !self.nodes.get(nve).is_some_and(|node| node.narrowed) || self.receivers.has_more(vni, nve)
    }

    /// An NVE became a member of a VN, or is none any more.
    pub(crate) fn turned(&mut self, now: Time, vni: Vni, nve: XtrId) {
        if self.has_more(vni, nve) {
            self.tell_group(now, vni, nve, Wanted::All);
        }
    }

    /// Changes whether an NVE receives more than is named.
    fn set_more(&mut self, now: Time, vni: Vni, nve: XtrId, change: impl FnOnce(&mut Has)) {
        let before = self.receivers.has_more(vni, nve);
        self.receivers.change(vni, nve, change);
        if self.receivers.has_more(vni, nve) != before {
            self.tell_group(now, vni, nve, Wanted::All);
        }
    }

    /// It is known of an NVE what it receives, or not any more.
    fn set_narrowed(&mut self, now: Time, nve: XtrId, narrowed: bool) {
        let Some(node) = self.nodes.get_mut(nve) else { return };
        if std::mem::replace(&mut node.narrowed, narrowed) == narrowed {
            return;
        }
        let vnis: BTreeSet<Vni> = self.db.registered_by(nve).map(|(vni, _)| vni).collect();
        for vni in vnis {
            self.tell_group(now, vni, nve, Wanted::All);
        }
    }

    /// There is room for what an NVE named and was not kept: it is asked for it, with all else of the VN. Some times more
    /// if that was just asked for anyway, or it does not answer.
    fn ask_for_lost(&mut self, now: Time, vni: Vni, nve: XtrId) {
        if !self.lacks(vni, nve) {
            return;
        }
        self.ask_refresh(now, nve, Some(vni));
        let again = now + self.config.timing.refresh_interval.max(LEAST_WAIT);
        let Some(session) = self.nodes.get_mut(nve).and_then(|node| node.session.as_mut()) else { return };
        if session.lost.insert(vni, LOST_TRIES).is_none() {
            let id = session.id;
            self.arm(again, Timer::Lost(nve, id, vni));
        }
    }

    /// Whether there is room for what an NVE named and was not kept.
    fn lacks(&mut self, vni: Vni, nve: XtrId) -> bool {
        let limit = self.config.limits.groups_per_member.max(1);
        // Some, so that not each group that goes is a reason to ask.
        let room = self.receivers.count(vni, nve) <= limit / 2;
        room && self.receivers.has_lost(vni, nve) && self.naming(vni, nve).is_none()
    }

    /// An NVE was asked for what was not kept, and has had time to answer.
    pub(crate) fn review_lost_groups(&mut self, now: Time, nve: XtrId, id: SessionId, vni: Vni) {
        let session = self.nodes.get(nve).and_then(|node| node.session.as_ref()).filter(|s| s.id == id);
        let Some(left) = session.and_then(|session| session.lost.get(&vni)).copied() else { return };
        let again = left > 0 && self.lacks(vni, nve);
        if again {
            self.ask_refresh(now, nve, Some(vni));
            self.arm(now + self.config.timing.refresh_interval.max(LEAST_WAIT), Timer::Lost(nve, id, vni));
        }
        if let Some(session) = self.nodes.get_mut(nve).and_then(|node| node.session.as_mut()) {
            match again {
                true => session.lost.insert(vni, left - 1),
                // The next group that goes is a reason again.
                false => session.lost.remove(&vni),
            };
        }
    }

    /// What an NVE has named so far, while it names all it has of a VN.
    fn naming(&mut self, vni: Vni, nve: XtrId) -> Option<&mut Naming> {
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
            Some(named) => named.groups.len() < limit || named.groups.contains(&group),
            None => self.receivers.count(vni, nve) < limit || self.receivers.contains(vni, nve, group),
        }
    }

    fn add_group(&mut self, now: Time, vni: Vni, nve: XtrId, group: GroupIp) {
        let limit = self.config.limits.groups_per_member.max(1);
        let full = self.receivers.count(vni, nve) >= limit.saturating_mul(2);
        if let Some(named) = self.naming(vni, nve) {
            named.groups.insert(group);
            if full {
                // Left over from naming that never came to its end, more than once.
                let named = named.groups.clone();
                self.keep_groups(now, vni, nve, &named);
            }
        }
        if self.receivers.change(vni, nve, |has| has.groups.insert(group)) {
            self.tell_group(now, vni, nve, group.into());
        }
    }

    fn remove_group(&mut self, now: Time, vni: Vni, nve: XtrId, group: GroupIp) {
        if self.receivers.change(vni, nve, |has| has.groups.remove(&group)) {
            self.tell_group(now, vni, nve, group.into());
        }
    }

    /// An NVE receives no groups by name in a VN but those in `kept`.
    fn keep_groups(&mut self, now: Time, vni: Vni, nve: XtrId, kept: &BTreeSet<GroupIp>) {
        let gone: Vec<GroupIp> = self.receivers.of(vni, nve).filter(|group| !kept.contains(group)).collect();
        for group in gone {
            self.remove_group(now, vni, nve, group);
        }
    }

    /// An NVE has no receivers in a VN.
    pub(crate) fn forget_groups(&mut self, now: Time, vni: Vni, nve: XtrId) {
        self.keep_groups(now, vni, nve, &BTreeSet::new());
        self.set_more(now, vni, nve, |has| *has = Has::default());
    }

    /// An NVE is gone.
    pub(crate) fn forget_all_groups(&mut self, now: Time, nve: XtrId) {
        for vni in self.receivers.vnis_of(nve) {
            self.forget_groups(now, vni, nve);
        }
        self.set_narrowed(now, nve, false);
    }

    /// An NVE has named all it has: it has no receivers in VNs that it did not speak of. If it never speaks of any,
    /// nothing is known.
    pub(crate) fn end_of_groups(&mut self, now: Time, nve: XtrId) {
        let session = self.nodes.get(nve).and_then(|node| node.session.as_ref());
        let names = session.is_some_and(|session| session.names_groups);
        for vni in self.receivers.vnis_of(nve) {
            let session = self.nodes.get(nve).and_then(|node| node.session.as_ref());
            if session.is_some_and(|session| !session.groups.contains_key(&vni)) {
                self.forget_groups(now, vni, nve);
            }
        }
        self.set_narrowed(now, nve, names);
    }

    /// Notes for each subscriber of a VN that it is to be told of what `nve` receives: what is true of it when it is.
    fn tell_group(&mut self, now: Time, vni: Vni, nve: XtrId, wanted: Wanted) {
        let subscribers: Vec<XtrId> = self.subscribers.members_of(vni).filter(|to| *to != nve).collect();
        for to in subscribers {
            let session = self.nodes.get_mut(to).and_then(|node| node.session.as_mut());
            let Some(session) = session.filter(|session| session.understands(wanted)) else { continue };
            let Some(feed) = session.feeds.members.get(&vni) else { continue };
            if feed.stage.is_ahead(&nve) {
                continue;
            }
            session.feeds.group_changes.insert((vni, nve, wanted));
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
        let Some((vni, nve, wanted)) = change else { return false };
        let there = match wanted {
            Wanted::All => self.wants_all(vni, nve),
            Wanted::Group(group) => self.receivers.contains(vni, nve, group),
        };
        self.write_group(vni, nve, wanted, there, out);
        true
    }

    /// Appends what one member of a snapshot receives.
    pub(crate) fn write_groups(&mut self, to: XtrId, vni: Vni, nve: XtrId, out: &mut Vec<u8>) {
        let all = self.wants_all(vni, nve).then_some(Wanted::All);
        let wanted: Vec<Wanted> =
            all.into_iter().chain(self.receivers.of(vni, nve).map(Wanted::Group)).collect();
        for wanted in wanted {
            let session = self.nodes.get(to).and_then(|node| node.session.as_ref());
            if session.is_some_and(|session| session.understands(wanted)) {
                self.write_group(vni, nve, wanted, true, out);
            }
        }
    }

    fn write_group(&mut self, vni: Vni, nve: XtrId, wanted: Wanted, there: bool, out: &mut Vec<u8>) {
        let site_id = site_id(nve);
        let event = match (wanted.group().map(GroupIp::get), there) {
            (Some(group), true) => GroupEvent::Add { site_id, group },
            (Some(group), false) => GroupEvent::Remove { site_id, group },
            (None, true) => GroupEvent::AddAll { site_id },
            (None, false) => GroupEvent::RemoveAll { site_id },
        };
        let id = self.next_frame_id();
        // A group always has an encoding.
        let _ = Body::Group(Group { vni: vni.get(), event }).encode(id, out, EncodeOptions::default());
    }
}
