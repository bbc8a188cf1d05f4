//! The groups that members of a VN have receivers of, as an Oracle says.

use super::super::Core;
use super::super::members::Membership;
use std::collections::{BTreeMap, BTreeSet};
use weft_lisp::tcp::{Group as Frame, GroupEvent};
use weft_model::{GroupIp, Rloc, Vni};

/// What is known of a VN's receivers at other NVEs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Elsewhere {
    /// The Site-IDs that receive a group. What an Oracle said last stays until another one has said what there is.
    told: BTreeSet<(GroupIp, u64)>,
    /// Those named by the snapshot of members that is under way.
    named: BTreeSet<(GroupIp, u64)>,
    /// Found in the kernel at the start: they count until the first snapshot is complete.
    adopted: BTreeMap<GroupIp, BTreeSet<Rloc>>,
}

impl Elsewhere {
    pub(super) fn adopt(&mut self, group: GroupIp, members: BTreeSet<Rloc>) {
        if !members.is_empty() {
            self.adopted.insert(group, members);
        }
    }

    /// A snapshot begins.
    pub fn begin(&mut self) {
        self.named.clear();
    }

    /// It has named all there is.
    pub fn end(&mut self) {
        self.told = std::mem::take(&mut self.named);
        self.adopted.clear();
    }

    pub(super) fn all(&self) -> impl Iterator<Item = GroupIp> + '_ {
        self.told.iter().map(|(group, _)| *group).chain(self.adopted.keys().copied())
    }

    fn sites_of(&self, group: GroupIp) -> impl Iterator<Item = u64> + '_ {
        self.told.range((group, 0)..=(group, u64::MAX)).map(|(_, site)| *site)
    }
}

impl Membership {
    /// The members that receive a group, each by the RLOC that it is a member by.
    pub(super) fn receivers(&self, group: GroupIp, own: &BTreeSet<Rloc>) -> BTreeSet<Rloc> {
        let told = self.groups.sites_of(group).filter_map(|site| self.rloc_of(site, own));
        told.chain(self.groups.adopted.get(&group).into_iter().flatten().copied()).collect()
    }
}

impl Core {
    /// What an Oracle says of the receivers of a VN's groups.
    pub(in super::super) fn group(&mut self, oracle: usize, frame: Frame) {
        let limit = self.config.limits.member_groups.max(1);
        let vni = Vni::new(frame.vni).ok();
        let known = vni.and_then(|vni| Some((vni, self.memberships.get_mut(&vni)?)));
        let (site_id, group, there) = match frame.event {
            GroupEvent::Add { site_id, group } => (site_id, GroupIp::new(group), true),
            GroupEvent::Remove { site_id, group } => (site_id, GroupIp::new(group), false),
            // Ours to say.
            GroupEvent::Begin | GroupEvent::End => {
                self.counters.unexpected_frames += 1;
                return;
            }
        };
        let known = known.filter(|(_, members)| members.oracle == Some(oracle));
        let (Some((vni, members)), Ok(group)) = (known, group) else {
            self.counters.unexpected_frames += 1;
            return;
        };
        let (snapshot, groups, key) = (members.named.is_some(), &mut members.groups, (group, site_id));
        if !there {
            groups.told.remove(&key);
            groups.named.remove(&key);
        } else if groups.told.len() >= limit && !groups.told.contains(&key) {
            self.counters.groups_refused += 1;
            return;
        } else {
            groups.told.insert(key);
            if snapshot {
                groups.named.insert(key);
            }
        }
        self.set_group(vni, group);
    }
}
