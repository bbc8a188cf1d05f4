//! Who has an address, or is in a group, comes and goes: what of the tables that changes, and no more.

use super::VnPolicy;
use super::change::Steps;
use super::compile::fitting_sets;
use super::selector::{Class, Selector};
use crate::core::Core;
use ::core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};
use weft_datapath::{ClassId, Ports, Prefix, RuleKey, Toward};
use weft_model::{GroupName, Vni};

impl Core {
    /// What is known of who has these addresses changed: as many entries change as there are addresses, and rules only for
    /// classes that nobody was of before, or nobody is of any more.
    pub(super) fn reclass(&mut self, vni: Vni, ips: &BTreeSet<IpAddr>) {
        let Some(vn) = self.policies.vns.get(&vni).filter(|vn| !vn.compiled.is_empty()) else { return };
        let mut wanted: Vec<(Prefix, Option<Class>, Class)> = Vec::new();
        for ip in ips {
            let (prefix, groups) = (Prefix::from(*ip), vn.groups_at(*ip));
            let class = vn.selectors.class_of(prefix, groups);
            let own = vn.selectors.names(*ip) || class.iter().any(|s| matches!(s, Selector::Group(..)));
            wanted.push((prefix, own.then(|| class.clone()), class));
        }
        let more = wanted
            .iter()
            .filter(|(prefix, own, _)| own.is_some() && !self.tables.classes.contains_key(&(vni, *prefix)));
        if self.tables.classes.len() + more.count() > self.config.limits.policy_classes.max(1) {
            self.review_policy(vni);
            return;
        }
        let mut steps = Steps::default();
        let mut fresh: BTreeMap<ClassId, Class> = BTreeMap::new();
        for (prefix, own, class) in wanted {
            let old = self.tables.classes.get(&(vni, prefix)).copied();
            let new = match own {
                Some(class) => match self.policies.classes.take(&(vni, class.clone())) {
                    Some((number, _)) => {
                        let id = ClassId(number);
                        let known =
                            self.policies.vns.get(&vni).is_some_and(|vn| vn.classes.contains_key(&id));
                        if !known {
                            fresh.insert(id, class);
                        }
                        Some(id)
                    }
                    None => return,
                },
                None => None,
            };
            if old == new {
                continue;
            }
            match new {
                Some(id) => steps.set_classes.push((prefix, id)),
                None => steps.drop_classes.push(prefix),
            }
            let Some(vn) = self.policies.vns.get_mut(&vni) else { return };
            if let Some(id) = new {
                let own = || (fresh.get(&id).cloned().unwrap_or_default(), 0);
                vn.classes.entry(id).or_insert_with(own).1 += 1;
            }
            if let Some((was, count)) = old.and_then(|id| vn.classes.get_mut(&id)) {
                *count -= 1;
                steps.lost.extend(was.difference(&class).cloned());
            }
        }
        let sets: Vec<BTreeSet<GroupName>> =
            self.policies.vns.get(&vni).map(fitting_sets).unwrap_or_default();
        for set in sets.iter().filter(|_| !fresh.is_empty()) {
            let of = fresh.iter().map(|(id, class)| (*id, class));
            steps.set_rules.extend(self.entries(vni, set, of, false));
        }
        let fits = self.tables.rules.len() + steps.set_rules.len() <= self.config.limits.policy_rules.max(1);
        let gone: Vec<ClassId> = self.policies.vns.get(&vni).map(unused).unwrap_or_default();
        for class in gone {
            steps.drop_rules.extend(self.rules_for(vni, &sets, class));
            if let Some((class, _)) = self.policies.vns.get_mut(&vni).and_then(|vn| vn.classes.remove(&class))
            {
                self.policies.classes.free(&(vni, class));
            }
        }
        if !fits {
            // The next look at the whole says who does not fit.
            self.review_policy(vni);
            return;
        }
        self.carry_out(vni, steps);
    }

    /// The entries of these sets of groups for a class.
    fn rules_for(&self, vni: Vni, sets: &[BTreeSet<GroupName>], class: ClassId) -> Vec<RuleKey> {
        let mut keys = Vec::new();
        for policy in sets.iter().filter_map(|set| self.policy_id(vni, set)) {
            for toward in [Toward::Out, Toward::In] {
                let first = RuleKey { policy, toward, class, protocol: None, ports: Ports::ALL };
                let of = self.tables.rules.range(first..).map(|(key, _)| *key);
                keys.extend(
                    of.take_while(|key| (key.policy, key.toward, key.class) == (policy, toward, class)),
                );
            }
        }
        keys
    }
}

fn unused(vn: &VnPolicy) -> Vec<ClassId> {
    vn.classes.iter().filter(|(_, (_, count))| *count == 0).map(|(id, _)| *id).collect()
}
