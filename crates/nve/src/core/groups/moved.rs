//! Groups that go along when a tenant system moves (requirement V7): it does not say anew what it wants because it has
//! moved.

use super::super::Core;
use std::collections::BTreeSet;
use weft_datapath::IfIndex;
use weft_model::{Vni, Wanted};

impl Core {
    /// The groups that are wanted at a VAP.
    pub(in super::super) fn groups_at(&self, vni: Vni, vap: IfIndex) -> BTreeSet<Wanted> {
        let groups = self.groups.by_vap.get(&vap).into_iter().flatten().map(|group| Wanted::Group(*group));
        let open = self.groups.open.get(&vni).is_some_and(|open| open.contains(&vap));
        groups.chain(open.then_some(Wanted::All)).collect()
    }

    /// Groups that who is at a VAP now wanted elsewhere: until it has had time to say otherwise, as it is asked.
    pub(in super::super) fn join_moved(&mut self, vni: Vni, vap: IfIndex, groups: &BTreeSet<Wanted>) {
        if self.groups.asked.get(&vap).is_none_or(|(of, _)| *of != vni) {
            return;
        }
        for wanted in groups {
            match wanted {
                Wanted::Group(group) => self.join(self.now, vni, *group, vap),
                Wanted::All => self.open_vap(self.now, vni, vap),
            }
        }
    }
}
