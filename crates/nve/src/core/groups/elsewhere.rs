//! The groups that members of a VN have receivers of, as an Oracle says. A member of whom there is more to keep than
//! there is room for counts as one that wants all, until the Oracle has said once more what there is.

use super::super::members::Membership;
use super::super::{Core, Timer};
use std::collections::{BTreeMap, BTreeSet};
use weft_lisp::tcp::{Body, Group as Frame, GroupEvent, Membership as MemberFrame, MembershipEvent};
use weft_model::{GroupIp, Rloc, Time, Vni, Wanted};

/// What was said of receivers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Told {
    /// The Site-IDs that receive a group.
    pairs: BTreeSet<(GroupIp, u64)>,
    /// Those that receive all.
    all: BTreeSet<u64>,
    /// Those of whom something was not kept,
    lost: BTreeSet<u64>,
    /// and whether there were too many of these to be kept.
    lost_more: bool,
}

impl Told {
    /// Keeps what somebody receives; whether there was room.
    fn add(&mut self, site: u64, wanted: Wanted, (groups, members): (usize, usize)) -> bool {
        let kept = match wanted {
            Wanted::Group(group) => insert(&mut self.pairs, (group, site), groups),
            Wanted::All => insert(&mut self.all, site, members),
        };
        if !kept && !insert(&mut self.lost, site, members) {
            self.lost_more = true;
        }
        kept
    }

    fn remove(&mut self, site: u64, wanted: Wanted) {
        match wanted {
            Wanted::Group(group) => self.pairs.remove(&(group, site)),
            Wanted::All => self.all.remove(&site),
        };
    }

    fn lacks(&self) -> bool {
        self.lost_more || !self.lost.is_empty()
    }
}

fn insert<T: Ord>(set: &mut BTreeSet<T>, item: T, limit: usize) -> bool {
    let kept = set.len() < limit || set.contains(&item);
    if kept {
        set.insert(item);
    }
    kept
}

/// What is known of a VN's receivers at other NVEs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Elsewhere {
    /// What an Oracle said last stays until another one has said what there is.
    told: Told,
    /// What the snapshot of members that is under way has said.
    named: Told,
    /// Found in the kernel at the start: they count until the first snapshot is complete.
    adopted: BTreeMap<Wanted, BTreeSet<Rloc>>,
}

impl Elsewhere {
    pub(super) fn adopt(&mut self, wanted: Wanted, members: BTreeSet<Rloc>) {
        if !members.is_empty() {
            self.adopted.insert(wanted, members);
        }
    }

    /// A snapshot begins.
    pub fn begin(&mut self) {
        self.named = Told::default();
    }

    /// It has named all there is.
    pub fn end(&mut self) {
        self.told = std::mem::take(&mut self.named);
        self.adopted.clear();
    }

    /// Whether something that an Oracle said was not kept.
    pub fn lacks(&self) -> bool {
        self.told.lacks()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = GroupIp> + '_ {
        let told = self.told.pairs.iter().map(|(group, _)| *group);
        told.chain(self.adopted.keys().filter_map(|wanted| wanted.group()))
    }

    /// Keeps what somebody receives; whether there was room.
    fn add(&mut self, site: u64, wanted: Wanted, snapshot: bool, (groups, members): (usize, usize)) -> bool {
        if !snapshot {
            return self.told.add(site, wanted, (groups, members));
        }
        // What an earlier one named takes no room of this one's.
        self.told.add(site, wanted, (groups.saturating_mul(2), members.saturating_mul(2)));
        self.named.add(site, wanted, (groups, members))
    }

    fn adopted(&self, wanted: Wanted) -> impl Iterator<Item = Rloc> + '_ {
        self.adopted.get(&wanted).into_iter().flatten().copied()
    }

    #[cfg(test)]
    pub(super) fn check(&self, limits: &super::super::Limits) {
        for (told, times) in [(&self.told, 2), (&self.named, 1)] {
            assert!(told.pairs.len() <= limits.member_groups.max(1) * times);
            assert!(told.all.len().max(told.lost.len()) <= limits.members.max(1) * times);
        }
    }
}

impl Membership {
    /// The members that receive a group by its name, each by the RLOC that it is a member by.
    pub(super) fn receivers(&self, group: GroupIp, own: &BTreeSet<Rloc>) -> BTreeSet<Rloc> {
        let sites = self.groups.told.pairs.range((group, 0)..=(group, u64::MAX)).map(|(_, site)| *site);
        let told = sites.filter_map(|site| self.rloc_of(site, own));
        told.chain(self.groups.adopted(Wanted::Group(group))).collect()
    }

    /// Those that receive all.
    pub(super) fn open(&self, own: &BTreeSet<Rloc>) -> BTreeSet<Rloc> {
        let told = &self.groups.told;
        if told.lost_more {
            return self.chosen(own);
        }
        let open = told.all.iter().chain(&told.lost).filter_map(|site| self.rloc_of(*site, own));
        open.chain(self.groups.adopted(Wanted::All)).collect()
    }
}

impl Core {
    /// What an Oracle says of the receivers of a VN's groups.
    pub(in super::super) fn group(&mut self, now: Time, oracle: usize, frame: Frame) {
        let limits = (self.config.limits.member_groups.max(1), self.config.limits.members.max(1));
        let vni = Vni::new(frame.vni).ok();
        let known = vni.and_then(|vni| Some((vni, self.memberships.get_mut(&vni)?)));
        let named = |group| GroupIp::new(group).ok().map(Wanted::Group);
        let (site_id, wanted, there) = match frame.event {
            GroupEvent::Add { site_id, group } => (site_id, named(group), true),
            GroupEvent::Remove { site_id, group } => (site_id, named(group), false),
            GroupEvent::AddAll { site_id } => (site_id, Some(Wanted::All), true),
            GroupEvent::RemoveAll { site_id } => (site_id, Some(Wanted::All), false),
            // Ours to say.
            GroupEvent::Begin | GroupEvent::End => (0, None, false),
        };
        let known = known.filter(|(_, members)| members.oracle == Some(oracle));
        let (Some((vni, members)), Some(wanted)) = (known, wanted) else {
            self.counters.unexpected_frames += 1;
            return;
        };
        let (snapshot, groups) = (members.named.is_some(), &mut members.groups);
        let lacked = groups.lacks();
        let mut open = wanted == Wanted::All;
        if there {
            if !groups.add(site_id, wanted, snapshot, limits) {
                open = true;
                self.counters.groups_refused += 1;
            }
        } else {
            groups.told.remove(site_id, wanted);
            groups.named.remove(site_id, wanted);
        }
        if groups.lacks() && !lacked {
            self.hear_later(now, vni);
        }
        match wanted {
            Wanted::Group(group) if !open => self.set_group(vni, group),
            // Who wants all stands in each entry.
            _ => self.members_changed(now, vni),
        }
    }

    /// Not all that an Oracle said was kept: it is asked again, but not at once.
    pub(in super::super) fn hear_later(&mut self, now: Time, vni: Vni) {
        let wait = self.config.timing.digest.max(super::super::LEAST_WAIT);
        self.timers.set(Timer::Hear(vni), now + wait);
    }

    /// Asks an Oracle once more who receives what, if some of it was not kept and there is room now.
    pub(in super::super) fn hear_again(&mut self, now: Time, vni: Vni) {
        let (groups, most) = (self.config.limits.member_groups.max(1), self.config.limits.members.max(1));
        let Some(members) = self.memberships.get(&vni).filter(|members| members.groups.lacks()) else {
            return;
        };
        let oracle = members.oracle.filter(|_| members.named.is_none());
        let told = &members.groups.told;
        if told.pairs.len() < groups
            && told.all.len() < most
            && let Some(oracle) = oracle
        {
            let event = MembershipEvent::RefreshRequest;
            let frame = MemberFrame { eid_afi: 0, iid: vni.get(), event };
            if let Some(request) = self.send(oracle, &Body::Membership(frame))
                && let Some(members) = self.memberships.get_mut(&vni)
            {
                members.request = request;
            }
        }
        self.hear_later(now, vni);
    }
}
