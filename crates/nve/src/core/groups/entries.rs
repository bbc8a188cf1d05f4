//! What the data plane holds of a VN's groups: an entry for each that somebody asked for, and one more for all that
//! have none, which names those that want every group. A group that finds no room for its entry goes to everybody
//! (RFC 4541 section 2.1.2), until there is room.

use super::super::tsi::State;
use super::super::{Core, Limits};
use std::collections::{BTreeMap, BTreeSet};
use weft_datapath::{Op, Receivers};
use weft_model::{GroupIp, Rloc, Vni, Wanted};

/// How many entries of single groups there are, and which there are not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Entries {
    per_vn: BTreeMap<Vni, usize>,
    total: usize,
    /// Groups that somebody asked for and that found no room.
    spilled: BTreeMap<Vni, BTreeSet<GroupIp>>,
}

impl Entries {
    fn has_room(&self, vni: Vni, limits: &Limits) -> bool {
        self.total < limits.group_entries.max(1)
            && self.per_vn.get(&vni).copied().unwrap_or(0) < limits.group_entries_per_vn.max(1)
    }

    fn add(&mut self, vni: Vni) {
        self.total += 1;
        *self.per_vn.entry(vni).or_default() += 1;
    }

    fn remove(&mut self, vni: Vni) {
        self.total = self.total.saturating_sub(1);
        super::super::decrement(&mut self.per_vn, vni);
    }

    fn spills(&self, vni: Vni) -> bool {
        self.spilled.contains_key(&vni)
    }

    /// Whether it is news that a group finds no room.
    fn spill(&mut self, vni: Vni, group: GroupIp) -> bool {
        self.spilled.entry(vni).or_default().insert(group)
    }

    /// Whether it was the last of its VN.
    fn unspill(&mut self, vni: Vni, group: GroupIp) -> bool {
        let Some(groups) = self.spilled.get_mut(&vni) else { return false };
        groups.remove(&group);
        let last = groups.is_empty();
        if last {
            self.spilled.remove(&vni);
        }
        last
    }

    /// One that there is room for now, of this VN if there is one.
    fn next(&self, vni: Vni, limits: &Limits) -> Option<(Vni, GroupIp)> {
        let its = self.spilled.get_key_value(&vni).into_iter().chain(&self.spilled);
        let (vni, groups) = its.into_iter().find(|(vni, _)| self.has_room(**vni, limits))?;
        groups.first().map(|group| (*vni, *group))
    }
}

fn is_none(receivers: &Receivers) -> bool {
    receivers.vaps.is_empty() && receivers.members.is_empty()
}

impl Core {
    /// Has the data plane send a group's frames to who wants them.
    pub(in super::super) fn set_group(&mut self, vni: Vni, group: GroupIp) {
        let key = (vni, Wanted::Group(group));
        let (wanted, held) = (self.receivers(key), self.tables.groups.get(&key));
        let entries = &mut self.groups.entries;
        if is_none(&wanted) {
            if held.is_some() {
                self.apply(Op::RemoveGroup(vni, key.1));
                self.groups.entries.remove(vni);
                self.refill(vni);
            } else {
                self.unspill(vni, group);
            }
        } else if held.is_some() || entries.has_room(vni, &self.config.limits) {
            if held.is_none() {
                entries.add(vni);
            }
            if held != Some(&wanted) {
                self.apply(Op::SetGroup(vni, key.1, wanted));
            }
            self.unspill(vni, group);
        } else {
            let first = !entries.spills(vni);
            if entries.spill(vni, group) {
                self.counters.groups_to_all += 1;
            }
            if first {
                self.set_rest(vni);
            }
        }
    }

    /// Has it send all groups of a VN to who wants them. Nobody is without his group in between: who gets what has no
    /// entry is widened first and narrowed last.
    pub(in super::super) fn set_groups(&mut self, vni: Vni) {
        let rest = (vni, Wanted::All);
        let (mut wider, held) = (self.receivers(rest), self.tables.groups.get(&rest));
        if let Some(held) = held {
            wider.vaps.extend(&held.vaps);
            wider.members.extend(&held.members);
        }
        if !is_none(&wider) && held != Some(&wider) {
            self.apply(Op::SetGroup(vni, Wanted::All, wider));
        }
        let mut all: BTreeSet<GroupIp> = self.groups.of(vni).map(|(group, _)| group).collect();
        let of_vn = (vni, Wanted::All)..;
        let held = self.tables.groups.range(of_vn).take_while(|((of, _), _)| *of == vni);
        all.extend(held.filter_map(|((_, wanted), _)| wanted.group()));
        all.extend(self.memberships.get(&vni).into_iter().flat_map(|membership| membership.groups.all()));
        for group in all {
            self.set_group(vni, group);
        }
        self.set_rest(vni);
    }

    /// The same for those groups that have no entry.
    pub(super) fn set_rest(&mut self, vni: Vni) {
        let key = (vni, Wanted::All);
        let (wanted, held) = (self.receivers(key), self.tables.groups.get(&key));
        if is_none(&wanted) {
            if held.is_some() {
                self.apply(Op::RemoveGroup(vni, Wanted::All));
            }
        } else if held != Some(&wanted) {
            self.apply(Op::SetGroup(vni, Wanted::All, wanted));
        }
    }

    /// A group is not, or no longer, one without room.
    fn unspill(&mut self, vni: Vni, group: GroupIp) {
        if self.groups.entries.unspill(vni, group) {
            self.set_rest(vni);
        }
    }

    /// There is room: for those that found none.
    fn refill(&mut self, vni: Vni) {
        // Each of them gets an entry or turns out to be wanted no more.
        while let Some((vni, group)) = self.groups.entries.next(vni, &self.config.limits) {
            self.set_group(vni, group);
        }
    }

    /// Who is to stand in an entry: for a group who asked for it, none if nobody did by its name, and who wants all.
    fn receivers(&self, (vni, wanted): (Vni, Wanted)) -> Receivers {
        if !self.narrows(vni) {
            return Receivers::default();
        }
        let own = &self.config.rlocs;
        let membership = self.memberships.get(&vni);
        let mut receivers = Receivers::default();
        match wanted {
            Wanted::Group(group) => {
                let vaps = self.groups.joined.get(&vni).and_then(|groups| groups.get(&group));
                receivers.vaps.extend(vaps.into_iter().flat_map(|vaps| vaps.keys()));
                receivers.members.extend(membership.into_iter().flat_map(|m| m.receivers(group, own)));
                if is_none(&receivers) {
                    return receivers;
                }
            }
            Wanted::All if self.groups.entries.spills(vni) => return self.everybody(vni),
            Wanted::All => {}
        }
        receivers.vaps.extend(self.groups.open.get(&vni).into_iter().flatten());
        receivers.members.extend(membership.into_iter().flat_map(|m| m.open(own)));
        receivers
    }

    fn everybody(&self, vni: Vni) -> Receivers {
        let here = self.members.get(&vni).into_iter().flatten().filter_map(|id| self.tsis.get(id));
        let vaps = here.filter(|tsi| tsi.state == State::Activated).map(|tsi| tsi.device.index);
        let members = self.memberships.get(&vni).map(|membership| membership.chosen(&self.config.rlocs));
        Receivers { vaps: vaps.collect(), members: members.unwrap_or_default() }
    }

    /// The groups that are wanted somewhere, and those that have no entry: VN, which, VAPs here, members elsewhere.
    pub fn groups(&self) -> impl Iterator<Item = (Vni, Wanted, usize, &BTreeSet<Rloc>)> + '_ {
        self.tables.groups.iter().map(|((vni, wanted), to)| (*vni, *wanted, to.vaps.len(), &to.members))
    }

    #[cfg(test)]
    pub(super) fn check_entries(&self) {
        use super::super::Timer;
        let entries = &self.groups.entries;
        let mut per_vn: BTreeMap<Vni, usize> = BTreeMap::new();
        for (vni, wanted) in self.tables.groups.keys() {
            assert!(self.narrows(*vni));
            if wanted.group().is_some() {
                *per_vn.entry(*vni).or_default() += 1;
            }
        }
        let limits = &self.config.limits;
        assert!(per_vn.values().all(|n| *n <= limits.group_entries_per_vn.max(1)));
        assert_eq!((entries.total, &entries.per_vn), (per_vn.values().sum(), &per_vn));
        assert!(entries.total <= limits.group_entries.max(1));
        for (vni, groups) in &entries.spilled {
            let held = |group: &GroupIp| self.tables.groups.contains_key(&(*vni, Wanted::Group(*group)));
            assert!(!groups.is_empty() && !groups.iter().any(held));
            assert!(!entries.has_room(*vni, limits), "room in {vni}");
        }
        for vni in self.vns.keys().filter(|vni| self.narrows(**vni)) {
            // What a snapshot says follows a little later.
            if self.timers.is_set(&Timer::Members(*vni)) {
                continue;
            }
            let held = |wanted| self.tables.groups.get(&(*vni, wanted)).cloned().unwrap_or_default();
            assert_eq!(held(Wanted::All), self.receivers((*vni, Wanted::All)));
            let known = self.memberships.get(vni).into_iter().flat_map(|m| m.groups.all());
            for group in self.groups.of(*vni).map(|(group, _)| group).chain(known) {
                let wanted = self.receivers((*vni, Wanted::Group(group)));
                let spilled = entries.spilled.get(vni).is_some_and(|groups| groups.contains(&group));
                assert!(spilled || held(Wanted::Group(group)) == wanted, "{group}");
            }
        }
    }
}
