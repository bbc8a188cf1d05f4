//! From what the tables hold to what they are to hold, in the order that the module's text explains.

use super::compile::Entries;
use super::selector::{Class, Selector, Selectors};
use crate::core::Core;
use ::core::{cmp::Reverse, net::IpAddr};
use std::collections::{BTreeMap, BTreeSet};
use weft_datapath::{Allow, ClassId, IfIndex, Op, PolicyId, Ports, Prefix, RuleKey, Toward};
use weft_model::{GroupName, Vni};

/// What is to change, in the steps of the module's text.
#[derive(Default)]
pub(super) struct Steps {
    pub(super) set_rules: Vec<(RuleKey, Allow)>,
    pub(super) set_classes: Vec<(Prefix, ClassId)>,
    pub(super) drop_classes: Vec<Prefix>,
    pub(super) drop_rules: Vec<RuleKey>,
    /// Selectors that an address has lost.
    pub(super) lost: BTreeSet<Selector>,
}

impl Core {
    pub(super) fn prefixes_of(&self, vni: Vni) -> impl Iterator<Item = (Prefix, ClassId)> + '_ {
        let lowest = Prefix::from(IpAddr::from([0, 0, 0, 0]));
        // Whatever the length, nothing comes before it.
        let lowest = Prefix::new(lowest.addr(), 0).unwrap_or(lowest);
        let of = self.tables.classes.range((vni, lowest)..).take_while(move |((of, _), _)| *of == vni);
        of.map(|((_, prefix), class)| (*prefix, *class))
    }

    /// What the tables hold of the policies of a VN.
    pub(super) fn rules_of(&self, vni: Vni) -> impl Iterator<Item = (&RuleKey, &Allow)> {
        let sets = self.policies.vns.get(&vni).map(|vn| vn.compiled.keys()).into_iter().flatten();
        sets.filter_map(move |set| self.policy_id(vni, set)).flat_map(|policy| self.rules_under(policy))
    }

    /// What the tables hold of one policy.
    pub(super) fn rules_under(&self, policy: PolicyId) -> impl Iterator<Item = (&RuleKey, &Allow)> {
        let (toward, class) = (Toward::Out.min(Toward::In), ClassId::ANYBODY);
        let first = RuleKey { policy, toward, class, protocol: None, ports: Ports::ALL };
        self.tables.rules.range(first..).take_while(move |(key, _)| key.policy == policy)
    }

    /// What is to change so that the tables hold this of a VN.
    pub(super) fn steps(
        &self,
        vni: Vni,
        selectors: &Selectors,
        classes: &BTreeMap<ClassId, (Class, usize)>,
        at: &BTreeMap<Prefix, ClassId>,
        rules: &Entries,
    ) -> Steps {
        let mut steps = Steps::default();
        for (key, allow) in rules {
            if self.tables.rules.get(key) != Some(allow) {
                steps.set_rules.push((*key, *allow));
            }
        }
        steps
            .drop_rules
            .extend(self.rules_of(vni).map(|(key, _)| *key).filter(|key| !rules.contains_key(key)));
        let was = self.policies.vns.get(&vni).map(|vn| &vn.classes);
        let class_was = |id: ClassId| was.and_then(|was| was.get(&id)).map(|(class, _)| class);
        for (prefix, old) in self.prefixes_of(vni) {
            let lost = |new: &Class| -> Vec<Selector> {
                class_was(old).map(|old| old.difference(new).cloned().collect()).unwrap_or_default()
            };
            match at.get(&prefix) {
                Some(new) if *new == old => {}
                Some(new) => {
                    steps.set_classes.push((prefix, *new));
                    steps.lost.extend(classes.get(new).map(|(class, _)| lost(class)).unwrap_or_default());
                }
                None => {
                    steps.drop_classes.push(prefix);
                    steps.lost.extend(lost(&selectors.class_of(prefix, &BTreeSet::new())));
                }
            }
        }
        let new = at.iter().filter(|(prefix, _)| !self.tables.classes.contains_key(&(vni, **prefix)));
        steps.set_classes.extend(new.map(|(prefix, class)| (*prefix, *class)));
        steps
    }

    /// Makes the changes in their order.
    pub(super) fn carry_out(&mut self, vni: Vni, steps: Steps) {
        let Steps { set_rules, mut set_classes, mut drop_classes, drop_rules, lost } = steps;
        // Longer prefixes come first and go last: an address goes from the class it had to the one it gets, by no third.
        set_classes.sort_by_key(|(prefix, _)| Reverse(prefix.bits()));
        drop_classes.sort_by_key(|prefix| prefix.bits());
        self.policies.room_made |= !drop_rules.is_empty() || !drop_classes.is_empty();
        // Before the old rules are gone: what of them is to be looked at again?
        let replaced = set_rules.iter().map(|(key, _)| key).filter(|key| self.tables.rules.contains_key(key));
        let mut again: BTreeSet<PolicyId> = replaced.chain(&drop_rules).map(|key| key.policy).collect();
        for (key, allow) in set_rules {
            self.apply(Op::SetRule(key, allow));
        }
        for (prefix, class) in set_classes {
            self.apply(Op::SetClass(vni, prefix, class));
        }
        self.close_what_does_not_fit(vni);
        self.repolicy(vni);
        for prefix in drop_classes {
            self.apply(Op::RemoveClass(vni, prefix));
        }
        for key in drop_rules {
            self.apply(Op::RemoveRule(key));
        }
        if !lost.is_empty() {
            again.extend(self.naming(vni, &lost));
        }
        self.look_again(vni, &again);
    }

    /// The policies of a VN with a rule about one of these.
    fn naming(&self, vni: Vni, selectors: &BTreeSet<Selector>) -> Vec<PolicyId> {
        let Some(vn) = self.policies.vns.get(&vni) else { return Vec::new() };
        let names = |set: &&BTreeSet<GroupName>| {
            let mut rules = set.iter().flat_map(|name| vn.rules_of(name));
            rules.any(|rule| Selector::of(rule).is_some_and(|s| selectors.contains(&s)))
        };
        vn.compiled.keys().filter(names).filter_map(|set| self.policy_id(vni, set)).collect()
    }

    /// Policies get a new generation: what is open under them is looked at again.
    fn look_again(&mut self, vni: Vni, policies: &BTreeSet<PolicyId>) {
        if policies.is_empty() {
            return;
        }
        let generation = self.next_generation();
        let ids = &self.policies.policies;
        let Some(vn) = self.policies.vns.get_mut(&vni) else { return };
        for (set, compiled) in &mut vn.compiled {
            let id = ids.get(&(vni, set.clone())).and_then(PolicyId::new);
            if id.is_some_and(|id| policies.contains(&id)) {
                compiled.generation = generation;
            }
        }
        self.repolicy(vni);
    }

    /// All connections under policies are looked at again: the tables were brought from one state to another in one go.
    pub fn look_again_at_all(&mut self) {
        let vnis: Vec<Vni> = self.policies.vns.keys().copied().collect();
        for vni in vnis {
            let sets = self.policies.vns.get(&vni).map(|vn| vn.compiled.keys()).into_iter().flatten();
            let all = sets.filter_map(|set| self.policy_id(vni, set)).collect();
            self.look_again(vni, &all);
        }
    }

    /// VAPs of a VN get the policies that they are to have, if they have others.
    fn repolicy(&mut self, vni: Vni) {
        let vaps = self.tables.vaps.iter().filter(|(_, vap)| vap.vni == vni && vap.activated);
        let vaps: Vec<IfIndex> = vaps.map(|(device, _)| *device).collect();
        for device in vaps {
            let Some(policy) = self.policy_at(device) else { continue };
            if let Some(mut vap) = self.tables.vaps.get(&device).filter(|vap| vap.policy != policy).cloned() {
                vap.policy = policy;
                self.apply(Op::SetVap(device, vap));
            }
        }
    }
}
