//! Who wants which multicast groups (requirement N9; RFC 4541, RFC 8378). Where a VN's frames are replicated this NVE
//! is the querier of its VAPs: it asks, reads what comes back, tells the Oracles for which groups it has receivers,
//! hears for which others have, and gives the data plane the receivers of each group. Groups of one link are none of
//! this: everybody has them. What is more than may be kept goes to more than asked for it, never to fewer.

mod elsewhere;
mod entries;
mod moved;
mod open;
mod query;
mod report;

use super::tsi::State;
use super::{Core, Output, Timer};
use ::core::time::Duration;
pub(super) use elsewhere::Elsewhere;
use entries::Entries;
use query::Query;
use report::Said;
use std::collections::{BTreeMap, BTreeSet};
use weft_datapath::{IfIndex, Punt, Receivers};
use weft_lisp::tcp::{Body, Group as Frame, GroupEvent};
use weft_model::{Bum, GroupIp, Time, Vni, Wanted};

#[cfg(test)]
pub(super) use report::tests as reports;

/// Questions that go unanswered before a group is gone from a VAP (RFC 3376 section 8.9), and when a VAP is new.
const ROBUSTNESS: u32 = 2;

/// A group that somebody at a VAP wants. It ends with its timer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Joined {
    /// Somebody left it: how often it is asked still who else wants it.
    leaving: Option<u32>,
    /// When that was asked last: joins and leaves in turn are no reason to ask more often.
    asked: Option<Time>,
}

/// What is known of the groups that are wanted here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Groups {
    joined: BTreeMap<Vni, BTreeMap<GroupIp, BTreeMap<IfIndex, Joined>>>,
    by_vap: BTreeMap<IfIndex, BTreeSet<GroupIp>>,
    /// VAPs that want more than is kept, so all.
    open: BTreeMap<Vni, BTreeSet<IfIndex>>,
    entries: Entries,
    /// VAPs that are asked, with their VN and how often more before the next one has time.
    asked: BTreeMap<IfIndex, (Vni, u32)>,
}

impl Groups {
    fn of(&self, vni: Vni) -> impl Iterator<Item = (GroupIp, &BTreeMap<IfIndex, Joined>)> + '_ {
        self.joined.get(&vni).into_iter().flatten().map(|(group, vaps)| (*group, vaps))
    }

    fn find(&mut self, vni: Vni, group: GroupIp, vap: IfIndex) -> Option<&mut Joined> {
        self.joined.get_mut(&vni)?.get_mut(&group)?.get_mut(&vap)
    }

    /// Whether nobody here wanted the group before; none when there is no room.
    fn insert(
        &mut self,
        vni: Vni,
        group: GroupIp,
        vap: IfIndex,
        (per_vap, per_vn): (usize, usize),
    ) -> Option<bool> {
        let groups = self.joined.get(&vni);
        let (known, count) = groups.map_or((false, 0), |all| (all.contains_key(&group), all.len()));
        if self.by_vap.get(&vap).map_or(0, BTreeSet::len) >= per_vap || (!known && count >= per_vn) {
            return None;
        }
        self.by_vap.entry(vap).or_default().insert(group);
        self.joined.entry(vni).or_default().entry(group).or_default().insert(vap, Joined::default());
        Some(!known)
    }

    /// Whether nobody here wants the group any more.
    fn remove(&mut self, vni: Vni, group: GroupIp, vap: IfIndex) -> bool {
        if let Some(groups) = self.by_vap.get_mut(&vap) {
            groups.remove(&group);
            if groups.is_empty() {
                self.by_vap.remove(&vap);
            }
        }
        let Some(groups) = self.joined.get_mut(&vni) else { return false };
        let Some(vaps) = groups.get_mut(&group) else { return false };
        let last = vaps.remove(&vap).is_some() && vaps.is_empty();
        if vaps.is_empty() {
            groups.remove(&group);
        }
        if groups.is_empty() {
            self.joined.remove(&vni);
        }
        last
    }
}

impl Core {
    /// Whether multicast of a VN goes to those only that want it.
    pub(super) fn narrows(&self, vni: Vni) -> bool {
        self.is_active(vni) && self.vns.get(&vni).is_some_and(|vn| vn.bum == Bum::Replicate)
    }

    /// Something changed that decides which VAPs of a VN are asked, and which Oracles are told what they say.
    pub(super) fn review_groups(&mut self, vni: Vni) {
        let narrows = self.narrows(vni);
        let members = self.members.get(&vni).filter(|_| narrows).into_iter().flatten();
        let active = members.filter_map(|id| self.tsis.get(id)).filter(|tsi| tsi.state == State::Activated);
        let wanted: BTreeSet<IfIndex> = active.map(|tsi| tsi.device.index).collect();
        let asked = self.groups.asked.iter().filter(|(_, (of, _))| *of == vni);
        let ended: Vec<IfIndex> = asked.map(|(vap, _)| *vap).filter(|vap| !wanted.contains(vap)).collect();
        for vap in ended {
            self.groups.asked.remove(&vap);
            self.timers.cancel(&Timer::Query(vap));
            self.close_vap(vni, vap);
            for group in self.groups.by_vap.get(&vap).cloned().unwrap_or_default() {
                self.end_receiver(vni, group, vap);
            }
        }
        for vap in wanted {
            if self.groups.asked.get(&vap).is_some_and(|(of, _)| *of == vni) {
                // What comes and goes beside it does not make it new.
                continue;
            }
            self.groups.asked.insert(vap, (vni, ROBUSTNESS));
            // Not before its program is there to hear the answers.
            self.timers.set(Timer::Query(vap), self.now + super::LEAST_WAIT);
        }
        for oracle in 0..self.oracles.len() {
            let Some(state) = self.oracles.get_mut(oracle) else { continue };
            let told = narrows && state.up && state.scopes.contains(&vni);
            if !told {
                state.groups.remove(&vni);
            } else if state.groups.insert(vni) {
                self.tell_groups(oracle, vni);
            }
        }
    }

    /// Time to ask a VAP which groups it wants: soon again when it is new, now and then after that.
    pub(super) fn query(&mut self, now: Time, vap: IfIndex) {
        let Some((vni, left)) = self.groups.asked.get_mut(&vap) else { return };
        let (vni, times) = (*vni, *left);
        *left = left.saturating_sub(1);
        let timing = &self.config.timing;
        let wait = if times > 1 { timing.last_member } else { timing.query };
        // Who is new is to be known soon; else answers may take their time.
        let within = if times > 0 { timing.last_member } else { timing.query.min(Duration::from_secs(10)) };
        self.timers.set(Timer::Query(vap), now + wait.max(super::LEAST_WAIT));
        let query = Query { vni, within, interval: timing.query };
        for frame in query.general() {
            self.outputs.push_back(Output::Inject(vap, frame));
        }
    }

    /// A tenant system says which groups it wants.
    pub(super) fn report(&mut self, now: Time, punt: &Punt) {
        if self.groups.asked.get(&punt.vap).is_none_or(|(vni, _)| *vni != punt.vni) {
            // Sent before the VN changed.
            return;
        }
        let Ok(said) = report::parse(&punt.frame) else {
            self.counters.malformed_punts += 1;
            return;
        };
        self.counters.group_reports += 1;
        for said in said {
            match said {
                Said::Wanted(group) => self.join(now, punt.vni, group, punt.vap),
                Said::Left(group) => self.left(now, punt.vni, group, punt.vap),
            }
        }
    }

    fn join(&mut self, now: Time, vni: Vni, group: GroupIp, vap: IfIndex) {
        let limits = &self.config.limits;
        let limits = (limits.groups_per_vap.max(1), limits.groups_per_vn.max(1));
        let expires = now + self.config.timing.membership.max(super::LEAST_WAIT);
        if let Some(joined) = self.groups.find(vni, group, vap) {
            joined.leaving = None;
            self.timers.set(Timer::Group(vni, group, vap), expires);
            return;
        }
        let Some(first) = self.groups.insert(vni, group, vap, limits) else {
            self.counters.groups_refused += 1;
            self.open_vap(now, vni, vap);
            return;
        };
        self.timers.set(Timer::Group(vni, group, vap), expires);
        if first {
            self.tell_group(vni, GroupEvent::Add { site_id: 0, group: group.get() });
        }
        self.set_group(vni, group);
    }

    /// Somebody left a group: who else at the VAP wants it is asked.
    fn left(&mut self, now: Time, vni: Vni, group: GroupIp, vap: IfIndex) {
        let Some(joined) = self.groups.find(vni, group, vap) else {
            self.left_unkept(now, vni, vap);
            return;
        };
        if joined.leaving.is_some() {
            return;
        }
        joined.leaving = Some(ROBUSTNESS);
        let within = self.config.timing.last_member.max(super::LEAST_WAIT);
        match joined.asked.map(|asked| asked + within).filter(|next| *next > now) {
            Some(next) => self.timers.set(Timer::Group(vni, group, vap), next),
            None => self.review_receiver(now, vni, group, vap),
        }
    }

    /// A receiver has not said for long that it still is one, or left.
    pub(super) fn review_receiver(&mut self, now: Time, vni: Vni, group: GroupIp, vap: IfIndex) {
        let timing = &self.config.timing;
        let (within, interval) = (timing.last_member.max(super::LEAST_WAIT), timing.query);
        match self.groups.find(vni, group, vap) {
            Some(Joined { leaving: Some(left), asked }) if *left > 0 => {
                *left -= 1;
                *asked = Some(now);
                self.timers.set(Timer::Group(vni, group, vap), now + within);
                let frame = Query { vni, within, interval }.specific(group);
                self.outputs.push_back(Output::Inject(vap, frame));
            }
            _ => {
                self.end_receiver(vni, group, vap);
                self.review_open(now, vni);
            }
        }
    }

    fn end_receiver(&mut self, vni: Vni, group: GroupIp, vap: IfIndex) {
        self.timers.cancel(&Timer::Group(vni, group, vap));
        if self.groups.remove(vni, group, vap) {
            self.tell_group(vni, GroupEvent::Remove { site_id: 0, group: group.get() });
        }
        self.set_group(vni, group);
    }

    /// Takes over who the data plane was observed to hold as receivers: VAPs until they have had time to say
    /// otherwise, members until an Oracle has said who is. Those of all groups first: who gets all stands in every
    /// entry, whatever he asked for, and will say. He may get all only because some group had no entry, so that he is
    /// asked as one for whom there is room again.
    pub(super) fn adopt_group(&mut self, now: Time, vni: Vni, wanted: Wanted, receivers: &Receivers) {
        if !self.narrows(vni) {
            return;
        }
        for vap in &receivers.vaps {
            let id = self.vaps.get(vap).filter(|id| id.vni == vni);
            if id.and_then(|id| self.tsis.get(id)).is_some_and(|tsi| tsi.state == State::Activated) {
                let open = self.groups.open.get(&vni).is_some_and(|open| open.contains(vap));
                match wanted {
                    Wanted::Group(group) if !open => self.join(now, vni, group, *vap),
                    Wanted::Group(_) => {}
                    Wanted::All => {
                        self.open_vap(now, vni, *vap);
                        self.ask_open(now, vni, *vap);
                    }
                }
            }
        }
        if let Some(membership) = self.memberships.get_mut(&vni) {
            membership.groups.adopt(wanted, receivers.members.clone());
        }
        match wanted {
            Wanted::Group(group) => self.set_group(vni, group),
            Wanted::All => self.set_rest(vni),
        }
    }

    /// Tells the Oracles that know of this NVE's part in the VN.
    fn tell_group(&mut self, vni: Vni, event: GroupEvent) {
        for oracle in 0..self.oracles.len() {
            if self.oracles.get(oracle).is_some_and(|state| state.up && state.groups.contains(&vni)) {
                self.send(oracle, &Body::Group(Frame { vni: vni.get(), event }));
            }
        }
    }

    /// Tells an Oracle all groups of a VN that are wanted here.
    pub(super) fn tell_groups(&mut self, oracle: usize, vni: Vni) {
        let groups: Vec<GroupIp> = self.groups.of(vni).map(|(group, _)| group).collect();
        let named = groups.iter().map(|group| GroupEvent::Add { site_id: 0, group: group.get() });
        let all = self.groups.open.contains_key(&vni).then_some(GroupEvent::AddAll { site_id: 0 });
        for event in [GroupEvent::Begin].into_iter().chain(all).chain(named).chain([GroupEvent::End]) {
            self.send(oracle, &Body::Group(Frame { vni: vni.get(), event }));
        }
    }

    #[cfg(test)]
    pub(super) fn check_groups(&self) {
        for (vap, groups) in &self.groups.by_vap {
            let (vni, _) = self.groups.asked[vap];
            for group in groups {
                assert!(self.groups.joined[&vni][group].contains_key(vap));
                assert!(self.timers.is_set(&Timer::Group(vni, *group, *vap)));
            }
            assert!(self.timers.is_set(&Timer::Query(*vap)));
            assert!(!groups.is_empty() && groups.len() <= self.config.limits.groups_per_vap.max(1));
        }
        for (vni, groups) in &self.groups.joined {
            assert!(!groups.is_empty() && groups.len() <= self.config.limits.groups_per_vn.max(1));
            for (group, vaps) in groups {
                assert!(!vaps.is_empty() && vaps.keys().all(|vap| self.groups.by_vap[vap].contains(group)));
                assert!(self.narrows(*vni));
            }
        }
        for (vni, open) in &self.groups.open {
            assert!(!open.is_empty() && self.narrows(*vni));
            for vap in open {
                assert_eq!(self.groups.asked[vap].0, *vni);
                assert!(self.timers.is_set(&Timer::Open(*vni, *vap)));
            }
        }
        for members in self.memberships.values() {
            members.groups.check(&self.config.limits);
        }
        self.check_entries();
    }
}
