//! From sets of groups to entries: what there is to be, what of it fits, and by which numbers.

use super::change::Steps;
use super::selector::{Class, Selector};
use super::{Compiled, VnPolicy};
use crate::core::{Core, Output};
use ::core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};
use weft_datapath::{Allow, ClassId, PolicyId, Ports, Prefix, RuleKey, Toward};
use weft_model::{GroupName, Rule, Vni, policy};

/// Entries of one policy.
pub(super) type Entries = BTreeMap<RuleKey, Allow>;

/// Adds a rule's entries for one class. Of two rules with the same entry the first counts, and either may have it logged.
fn add(entries: &mut Entries, policy: PolicyId, class: ClassId, rule: &Rule, number: u32) {
    let toward = match rule.toward() {
        policy::Toward::In => Toward::In,
        policy::Toward::Out => Toward::Out,
    };
    let protocol = rule.protocol().number();
    let ports = rule.numbers().map_or_else(|| vec![Ports::ALL], |(first, last)| Ports::of_range(first, last));
    for ports in ports {
        match entries.entry(RuleKey { policy, toward, class, protocol, ports }) {
            Entry::Occupied(mut old) => old.get_mut().log |= rule.log(),
            Entry::Vacant(new) => drop(new.insert(Allow { rule: number, log: rule.log() })),
        }
    }
}

/// What a VN's policy is to be, and how it becomes so.
type Fitting = (VnPolicy, BTreeMap<ClassId, (Class, usize)>, Steps);

impl Core {
    /// The rules of a set of groups with the numbers of their counters, from 0.
    fn numbered(&self, vni: Vni, set: &BTreeSet<GroupName>) -> Vec<(&Rule, u32)> {
        let Some(vn) = self.policies.vns.get(&vni) else { return Vec::new() };
        let mut rules = Vec::new();
        for name in set {
            for rule in vn.rules_of(name) {
                // As it was taken: without a remark.
                let key = (vni, name.clone(), rule.bare());
                if let Some(number) = self.policies.rules.get(&key) {
                    rules.push((rule, number - 1));
                }
            }
        }
        rules
    }

    /// The entries that a set of groups has for these classes, and for anybody where that is asked for.
    pub(super) fn entries<'a>(
        &self,
        vni: Vni,
        set: &BTreeSet<GroupName>,
        classes: impl Iterator<Item = (ClassId, &'a Class)> + Clone,
        anybody: bool,
    ) -> Entries {
        let mut entries = Entries::new();
        let Some(policy) = self.policy_id(vni, set) else { return entries };
        // Where a selector is looked for is known at once: there may be as many classes as rules.
        let mut of: BTreeMap<&Selector, Vec<ClassId>> = BTreeMap::new();
        for (id, class) in classes {
            class.iter().for_each(|selector| of.entry(selector).or_default().push(id));
        }
        for (rule, number) in self.numbered(vni, set) {
            match Selector::of(rule) {
                None if anybody => add(&mut entries, policy, ClassId::ANYBODY, rule, number),
                None => {}
                Some(selector) => {
                    for class in of.get(&selector).into_iter().flatten() {
                        add(&mut entries, policy, *class, rule, number);
                    }
                }
            }
        }
        entries
    }

    pub(super) fn policy_id(&self, vni: Vni, set: &BTreeSet<GroupName>) -> Option<PolicyId> {
        self.policies.policies.get(&(vni, set.clone())).and_then(PolicyId::new)
    }

    /// Compiles everything in a VN anew and changes what is not as it is to be: other groups, other rules.
    pub(in crate::core) fn review_policy(&mut self, vni: Vni) {
        let wanted = self.sets_in_use(vni);
        if wanted.is_empty() && !self.policies.vns.contains_key(&vni) {
            self.settle_waiting(vni);
            return;
        }
        self.policies.unsaved = true;
        let old: BTreeSet<_> =
            self.policies.vns.get(&vni).map(fitting_sets).unwrap_or_default().into_iter().collect();
        if !old.is_subset(&wanted) && !old.is_empty() && !wanted.is_empty() {
            // What VAPs go from has to know the classes that go with what they go to.
            let both: BTreeSet<_> = old.union(&wanted).cloned().collect();
            if let Some(fitting) = self.fitting(vni, &both).filter(|f| f.0.compiled.values().all(fits)) {
                self.take_on(vni, fitting);
            }
        }
        let Some(fitting) = self.fitting(vni, &wanted) else { return };
        self.take_on(vni, fitting);
        for set in old.difference(&wanted) {
            self.policies.policies.free(&(vni, set.clone()));
        }
        self.free_numbers(vni);
        if let Some(vn) = self.policies.vns.get_mut(&vni) {
            let VnPolicy { kept, compiled, groups, members, .. } = vn;
            kept.retain(|name, _| compiled.keys().any(|set| set.contains(name)));
            if groups.is_empty() && members.is_empty() && compiled.is_empty() {
                self.policies.vns.remove(&vni);
            }
        }
        self.settle_waiting(vni);
    }

    /// Makes what was compiled what applies.
    fn take_on(&mut self, vni: Vni, (new, classes, steps): Fitting) {
        if let Some(vn) = self.policies.vns.get_mut(&vni) {
            vn.selectors = new.selectors;
            vn.classes = classes;
            vn.compiled = new.compiled;
        }
        self.carry_out(vni, steps);
    }

    /// Compiles sets of groups; those that do not fit, the latest first, are left out and marked.
    fn fitting(&mut self, vni: Vni, wanted: &BTreeSet<BTreeSet<GroupName>>) -> Option<Fitting> {
        self.policies.vns.entry(vni).or_default();
        let mut too_many: BTreeMap<BTreeSet<GroupName>, usize> = BTreeMap::new();
        loop {
            let fit: Vec<BTreeSet<GroupName>> =
                wanted.iter().filter(|set| !too_many.contains_key(*set)).cloned().collect();
            let unnumbered = fit.iter().find_map(|set| Some((set.clone(), self.number(vni, set)?)));
            if let Some((set, rules)) = unnumbered {
                too_many.insert(set, rules);
                continue;
            }
            let mut new = VnPolicy::default();
            let vn = self.policies.vns.get(&vni)?;
            for set in &fit {
                let rules = set.iter().flat_map(|name| vn.rules_of(name));
                rules.filter_map(Selector::of).for_each(|selector| new.selectors.add(&selector));
            }
            let defaults = self.vns.get(&vni).map(|vn| vn.default_groups.clone()).unwrap_or_default();
            let mut prefixes: BTreeMap<Prefix, Class> = BTreeMap::new();
            for prefix in new.selectors.prefixes() {
                let groups = alone(prefix).map(|ip| vn.groups_at(ip, &defaults).clone()).unwrap_or_default();
                prefixes.insert(prefix, new.selectors.class_of(prefix, &groups));
            }
            for ip in vn.addresses.keys() {
                let class = new.selectors.class_of(Prefix::from(*ip), vn.groups_at(*ip, &defaults));
                if class.iter().any(|selector| matches!(selector, Selector::Group(..))) {
                    prefixes.insert(Prefix::from(*ip), class);
                }
            }
            let others = self.tables.classes.len() - self.prefixes_of(vni).count();
            if others + prefixes.len() > self.config.limits.policy_classes.max(1)
                && let Some(last) = self.latest(vni, &fit)
            {
                too_many.insert(last, others + prefixes.len());
                continue;
            }
            let mut classes: BTreeMap<ClassId, (Class, usize)> = BTreeMap::new();
            let mut at: BTreeMap<Prefix, ClassId> = BTreeMap::new();
            for (prefix, class) in prefixes {
                let (number, _) = self.policies.classes.take(&(vni, class.clone()))?;
                classes.entry(ClassId(number)).or_insert((class, 0)).1 += 1;
                at.insert(prefix, ClassId(number));
            }
            let mut rules = Entries::new();
            for set in &fit {
                self.policies.policies.take(&(vni, set.clone()))?;
                let of = classes.iter().map(|(id, (class, _))| (*id, class));
                rules.extend(self.entries(vni, set, of, true));
            }
            let others = self.tables.rules.len() - self.rules_of(vni).count();
            if others + rules.len() > self.config.limits.policy_rules.max(1)
                && let Some(last) = self.latest(vni, &fit)
            {
                too_many.insert(last, others + rules.len());
                continue;
            }
            for set in wanted {
                let old =
                    self.policies.vns.get(&vni).and_then(|vn| vn.compiled.get(set)).map(|c| c.generation);
                let generation = old.unwrap_or_else(|| self.next_generation());
                let too_many = too_many.get(set).copied();
                new.compiled.insert(set.clone(), Compiled { generation, too_many });
            }
            let steps = self.steps(vni, &new.selectors, &classes, &at, &rules);
            return Some((new, classes, steps));
        }
    }

    /// The set of groups that was compiled last: the others go on.
    fn latest(&self, vni: Vni, sets: &[BTreeSet<GroupName>]) -> Option<BTreeSet<GroupName>> {
        let generation = |set: &&BTreeSet<GroupName>| {
            let compiled = self.policies.vns.get(&vni).and_then(|vn| vn.compiled.get(*set));
            // One that had no place before does not take it from one that has.
            compiled
                .filter(|c| c.too_many.is_none())
                .map_or(u32::MAX, |_| self.policies.policies.get(&(vni, (*set).clone())).unwrap_or(u32::MAX))
        };
        sets.iter().max_by_key(generation).cloned()
    }

    /// Gives the rules of a set of groups numbers; how many rules it has when there are not enough.
    fn number(&mut self, vni: Vni, set: &BTreeSet<GroupName>) -> Option<usize> {
        let vn = self.policies.vns.get(&vni)?;
        let rules = set.iter().flat_map(|name| vn.rules_of(name).iter().map(move |rule| (name, rule)));
        let keys: Vec<_> = rules.map(|(name, rule)| (vni, name.clone(), rule.bare())).collect();
        for key in &keys {
            match self.policies.rules.take(key) {
                None => return Some(keys.len()),
                // What another rule counted by this number is not this one's.
                Some((number, true)) => self.outputs.push_back(Output::ClearRule(number - 1)),
                Some((_, false)) => {}
            }
        }
        None
    }

    /// Frees numbers of rules and classes of a VN that nothing has any more.
    fn free_numbers(&mut self, vni: Vni) {
        let Some(vn) = self.policies.vns.get(&vni) else { return };
        let mut used: BTreeSet<(GroupName, Rule)> = BTreeSet::new();
        for (set, _) in vn.compiled.iter().filter(|(_, compiled)| compiled.too_many.is_none()) {
            for name in set {
                used.extend(vn.rules_of(name).iter().map(|rule| (name.clone(), rule.bare())));
            }
        }
        let unused = |(of, name, rule): &&(Vni, GroupName, Rule)| {
            *of == vni && !used.contains(&(name.clone(), rule.clone()))
        };
        let rules: Vec<_> = self.policies.rules.iter().map(|(key, _)| key).filter(unused).cloned().collect();
        let unused = |(key, number): &(&(Vni, Class), u32)| {
            key.0 == vni && !vn.classes.contains_key(&ClassId(*number))
        };
        let classes: Vec<_> =
            self.policies.classes.iter().filter(unused).map(|(key, _)| key.clone()).collect();
        rules.iter().for_each(|key| self.policies.rules.free(key));
        classes.iter().for_each(|key| self.policies.classes.free(key));
    }
}

/// The address of a prefix that has one only.
fn alone(prefix: Prefix) -> Option<IpAddr> {
    (Prefix::from(prefix.addr()) == prefix).then(|| prefix.addr())
}

pub(super) fn fitting_sets(vn: &VnPolicy) -> Vec<BTreeSet<GroupName>> {
    let fit = vn.compiled.iter().filter(|(_, compiled)| fits(compiled));
    fit.map(|(set, _)| set.clone()).collect()
}

fn fits(compiled: &Compiled) -> bool {
    compiled.too_many.is_none()
}
