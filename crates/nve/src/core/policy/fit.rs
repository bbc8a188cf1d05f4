//! What fits. Where a VN's sets of groups need more than there is room for, those that are in force as they were keep
//! what they have; of the others each is let in if there is room beside those before it. So a set that grows, or is
//! new, is the one that stays out.

use super::Overflow;
use super::compile::{Entries, entries, fits};
use super::selector::{Class, Selector, Selectors};
use crate::core::Core;
use ::core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};
use weft_datapath::{ClassId, PolicyId, Prefix, RULE_COUNTERS};
use weft_model::{GroupName, Rule, Vni};

type Set = BTreeSet<GroupName>;

/// What an address is to be told apart by.
type Prefixes = BTreeMap<Prefix, Class>;

impl Core {
    /// The rules of sets of groups as they are counted: each group's once, without remarks.
    pub(super) fn own_rules(&self, vni: Vni, sets: &[Set]) -> impl Iterator<Item = (GroupName, Rule)> {
        let names: BTreeSet<&GroupName> = sets.iter().flatten().collect();
        let vn = self.policies.vns.get(&vni);
        names.into_iter().flat_map(move |name| {
            let rules = vn.map(|vn| vn.rules_of(name)).unwrap_or_default();
            rules.iter().map(move |rule| (name.clone(), rule.bare()))
        })
    }

    /// What rules of these sets tell addresses apart by, and what there are to tell apart.
    pub(super) fn prefixes_for(&self, vni: Vni, sets: &[Set]) -> (Selectors, Prefixes) {
        let (mut selectors, mut prefixes) = (Selectors::default(), Prefixes::new());
        let Some(vn) = self.policies.vns.get(&vni) else { return (selectors, prefixes) };
        for name in sets.iter().flatten().collect::<BTreeSet<_>>() {
            vn.rules_of(name).iter().filter_map(Selector::of).for_each(|selector| selectors.add(&selector));
        }
        for prefix in selectors.prefixes() {
            let groups = alone(prefix).map(|ip| vn.groups_at(ip).clone()).unwrap_or_default();
            prefixes.insert(prefix, selectors.class_of(prefix, &groups));
        }
        for ip in vn.addresses.keys() {
            let class = selectors.class_of(Prefix::from(*ip), vn.groups_at(*ip));
            if class.iter().any(|selector| matches!(selector, Selector::Group(..))) {
                prefixes.insert(Prefix::from(*ip), class);
            }
        }
        (selectors, prefixes)
    }

    /// What these sets of a VN would need too many of, with what there is of other VNs.
    pub(super) fn overflow(&self, vni: Vni, sets: &[Set]) -> Option<Overflow> {
        let over = |needed, room| (needed > room).then_some(Overflow { needed, room });
        let counters = usize::try_from(RULE_COUNTERS).unwrap_or(usize::MAX);
        let others = self.policies.rules.iter().filter(|((of, ..), _)| *of != vni).count();
        let own: BTreeSet<_> = self.own_rules(vni, sets).collect();
        let limits = &self.config.limits;
        let (_, prefixes) = self.prefixes_for(vni, sets);
        let other_classes = self.tables.classes.len() - self.prefixes_of(vni).count();
        over(others + own.len(), counters)
            .or_else(|| over(other_classes + prefixes.len(), limits.policy_classes.max(1)))
            .or_else(|| {
                let others = self.tables.rules.len() - self.rules_of(vni).count();
                let classes = classes(prefixes);
                let needed: usize = sets.iter().map(|set| self.needed(vni, set, &classes)).sum();
                over(others + needed, limits.policy_rules.max(1))
            })
    }

    /// How many entries a set has where there are these classes.
    fn needed(&self, vni: Vni, set: &Set, classes: &BTreeMap<ClassId, Class>) -> usize {
        let Some((vn, any)) = self.policies.vns.get(&vni).zip(PolicyId::new(1)) else { return 0 };
        let rules = set.iter().flat_map(|name| vn.rules_of(name)).map(|rule| (rule, 0));
        let all: Entries = entries(any, rules, classes.iter().map(|(id, class)| (*id, class)), true);
        all.len()
    }

    /// Of sets that do not fit together those that do, and why each of the others does not.
    pub(super) fn choose(&self, vni: Vni, wanted: Vec<Set>) -> (Vec<Set>, BTreeMap<Set, Overflow>) {
        let mut rest = self.by_claim(vni, wanted);
        let (mut fit, mut out) = (Vec::new(), BTreeMap::new());
        while !rest.is_empty() {
            // As many as there is room for; more never need less.
            let (mut least, mut most) = (0, rest.len());
            while least < most {
                let half = (least + most).div_ceil(2);
                let with = [&fit[..], &rest[..half]].concat();
                if self.overflow(vni, &with).is_none() { least = half } else { most = half - 1 }
            }
            fit.extend(rest.drain(..least));
            if !rest.is_empty() {
                let one = rest.remove(0);
                match self.overflow(vni, &[&fit[..], std::slice::from_ref(&one)].concat()) {
                    Some(overflow) => drop(out.insert(one, overflow)),
                    None => fit.push(one),
                }
            }
        }
        (fit, out)
    }

    /// Sets in the order in which they are let in: those in force, first the ones that need no more than they have, then
    /// those whose members have become more, then those of groups that allow more than they did; at last new ones. Of
    /// the same kind the older ones are first.
    fn by_claim(&self, vni: Vni, mut sets: Vec<Set>) -> Vec<Set> {
        let Some(vn) = self.policies.vns.get(&vni) else { return sets };
        let in_force = |set: &Set| vn.compiled.get(set).is_some_and(fits);
        let grown = |set: &Set| set.iter().any(|name| vn.grown.contains(name));
        let settled: Vec<Set> = sets.iter().filter(|set| in_force(set) && !grown(set)).cloned().collect();
        let classes = classes(self.prefixes_for(vni, &settled).1);
        let mut rank = BTreeMap::new();
        for set in &sets {
            let kind = match (in_force(set), grown(set)) {
                (true, false) => u8::from(self.needed(vni, set, &classes) > self.has(vni, set)),
                (true, true) => 2,
                (false, _) => 3,
            };
            let number = self.policy_id(vni, set).map_or(u32::MAX, PolicyId::get);
            rank.insert(set.clone(), (kind, number));
        }
        sets.sort_by_key(|set| rank.get(set).copied());
        sets
    }

    /// How many entries a set has.
    fn has(&self, vni: Vni, set: &Set) -> usize {
        let of = |id: PolicyId| self.rules_under(id).count();
        self.policy_id(vni, set).map_or(0, of)
    }
}

/// Classes by a number each.
fn classes(prefixes: Prefixes) -> BTreeMap<ClassId, Class> {
    let distinct: BTreeSet<Class> = prefixes.into_values().collect();
    (1..).map(ClassId).zip(distinct).collect()
}

/// The address of a prefix that has one only.
fn alone(prefix: Prefix) -> Option<IpAddr> {
    (Prefix::from(prefix.addr()) == prefix).then(|| prefix.addr())
}
