//! From sets of groups to entries: what there is to be, what of it fits, and by which numbers.

use super::change::Steps;
use super::selector::{Class, Selector};
use super::{Compiled, VnPolicy};
use crate::core::{Core, Output};
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

/// The entries that rules with these numbers have in a policy.
pub(super) fn entries<'a, 'r>(
    policy: PolicyId,
    rules: impl Iterator<Item = (&'r Rule, u32)>,
    classes: impl Iterator<Item = (ClassId, &'a Class)>,
    anybody: bool,
) -> Entries {
    let mut entries = Entries::new();
    // Where a selector is looked for is known at once: there may be as many classes as rules.
    let mut of: BTreeMap<&Selector, Vec<ClassId>> = BTreeMap::new();
    for (id, class) in classes {
        class.iter().for_each(|selector| of.entry(selector).or_default().push(id));
    }
    for (rule, number) in rules {
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
        classes: impl Iterator<Item = (ClassId, &'a Class)>,
        anybody: bool,
    ) -> Entries {
        match self.policy_id(vni, set) {
            Some(policy) => entries(policy, self.numbered(vni, set).into_iter(), classes, anybody),
            None => Entries::new(),
        }
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
            let VnPolicy { kept, compiled, groups, members, grown, defaults, .. } = vn;
            grown.clear();
            kept.retain(|name, _| compiled.keys().any(|set| set.contains(name)));
            if groups.is_empty() && members.is_empty() && compiled.is_empty() && defaults.is_empty() {
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

    /// Compiles sets of groups; those that do not fit are left out and marked.
    fn fitting(&mut self, vni: Vni, wanted: &BTreeSet<BTreeSet<GroupName>>) -> Option<Fitting> {
        self.policies.vns.entry(vni).or_default();
        let mut sets: Vec<BTreeSet<GroupName>> = wanted.iter().cloned().collect();
        let mut too_many = BTreeMap::new();
        if self.overflow(vni, &sets).is_some() {
            (sets, too_many) = self.choose(vni, sets);
        }
        self.number(vni, &sets);
        let (selectors, prefixes) = self.prefixes_for(vni, &sets);
        let mut classes: BTreeMap<ClassId, (Class, usize)> = BTreeMap::new();
        let mut at: BTreeMap<Prefix, ClassId> = BTreeMap::new();
        for (prefix, class) in prefixes {
            let (number, _) = self.policies.classes.take(&(vni, class.clone()))?;
            classes.entry(ClassId(number)).or_insert((class, 0)).1 += 1;
            at.insert(prefix, ClassId(number));
        }
        let mut rules = Entries::new();
        for set in &sets {
            self.policies.policies.take(&(vni, set.clone()))?;
            let of = classes.iter().map(|(id, (class, _))| (*id, class));
            rules.extend(self.entries(vni, set, of, true));
        }
        let mut new = VnPolicy { selectors, ..VnPolicy::default() };
        for set in wanted {
            let old = self.policies.vns.get(&vni).and_then(|vn| vn.compiled.get(set)).map(|c| c.generation);
            let generation = old.unwrap_or_else(|| self.next_generation());
            let too_many = too_many.get(set).copied();
            new.compiled.insert(set.clone(), Compiled { generation, too_many });
        }
        let steps = self.steps(vni, &new.selectors, &classes, &at, &rules);
        Some((new, classes, steps))
    }

    /// Gives the rules of sets of groups numbers. Where there are not enough, those that no set needs any more go first.
    fn number(&mut self, vni: Vni, sets: &[BTreeSet<GroupName>]) {
        let keys: BTreeSet<_> = self.own_rules(vni, sets).map(|(name, rule)| (vni, name, rule)).collect();
        let new = keys.iter().filter(|key| self.policies.rules.get(key).is_none()).count();
        if new > self.policies.rules.left() {
            let gone = self.policies.rules.iter().map(|(key, _)| key);
            let gone: Vec<_> = gone.filter(|key| key.0 == vni && !keys.contains(key)).cloned().collect();
            gone.iter().for_each(|key| self.policies.rules.free(key));
        }
        for key in keys {
            // What another rule counted by this number is not this one's.
            if let Some((number, true)) = self.policies.rules.take(&key) {
                self.outputs.push_back(Output::ClearRule(number - 1));
            }
        }
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

pub(super) fn fitting_sets(vn: &VnPolicy) -> Vec<BTreeSet<GroupName>> {
    let fit = vn.compiled.iter().filter(|(_, compiled)| fits(compiled));
    fit.map(|(set, _)| set.clone()).collect()
}

pub(super) fn fits(compiled: &Compiled) -> bool {
    compiled.too_many.is_none()
}
