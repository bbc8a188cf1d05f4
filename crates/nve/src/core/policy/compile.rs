//! Rules as entries, and the changes from what the tables hold to what they are to hold.

use super::selector::{Class, Selector, Selectors};
use super::{Compiled, VnPolicy};
use crate::core::{Core, Output};
use ::core::{cmp::Reverse, net::IpAddr};
use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};
use weft_datapath::{Allow, ClassId, IfIndex, Op, PolicyId, Ports, Prefix, RuleKey, Toward};
use weft_model::{GroupName, Rule, Vni, policy};

/// Entries of one policy.
type Entries = BTreeMap<RuleKey, Allow>;

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

/// What is to change, in the steps of the module's text.
#[derive(Default)]
struct Steps {
    set_rules: Vec<(RuleKey, Allow)>,
    set_classes: Vec<(Prefix, ClassId)>,
    drop_classes: Vec<Prefix>,
    drop_rules: Vec<RuleKey>,
    /// Selectors that an address has lost.
    lost: BTreeSet<Selector>,
}

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
    fn entries<'a>(
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

    fn prefixes_of(&self, vni: Vni) -> impl Iterator<Item = (Prefix, ClassId)> + '_ {
        let lowest = Prefix::from(IpAddr::from([0, 0, 0, 0]));
        // Whatever the length, nothing comes before it.
        let lowest = Prefix::new(lowest.addr(), 0).unwrap_or(lowest);
        let of = self.tables.classes.range((vni, lowest)..).take_while(move |((of, _), _)| *of == vni);
        of.map(|((_, prefix), class)| (*prefix, *class))
    }

    /// What the tables hold of the policies of a VN.
    fn rules_of(&self, vni: Vni) -> impl Iterator<Item = (&RuleKey, &Allow)> {
        let sets = self.policies.vns.get(&vni).map(|vn| vn.compiled.keys()).into_iter().flatten();
        sets.filter_map(move |set| self.policy_id(vni, set)).flat_map(|policy| {
            let (toward, class) = (Toward::Out.min(Toward::In), ClassId::ANYBODY);
            let first = RuleKey { policy, toward, class, protocol: None, ports: Ports::ALL };
            self.tables.rules.range(first..).take_while(move |(key, _)| key.policy == policy)
        })
    }

    /// What is to change so that the tables hold this of a VN.
    fn steps(
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
    fn carry_out(&mut self, vni: Vni, steps: Steps) {
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

    /// What is known of who has these addresses changed: as many entries change as there are addresses, and rules only for
    /// classes that nobody was of before, or nobody is of any more.
    pub(super) fn reclass(&mut self, vni: Vni, ips: &BTreeSet<IpAddr>) {
        let Some(vn) = self.policies.vns.get(&vni).filter(|vn| !vn.compiled.is_empty()) else { return };
        let defaults = self.vns.get(&vni).map(|vn| vn.default_groups.clone()).unwrap_or_default();
        let mut wanted: Vec<(Prefix, Option<Class>, Class)> = Vec::new();
        for ip in ips {
            let (prefix, groups) = (Prefix::from(*ip), vn.groups_at(*ip, &defaults));
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

/// The address of a prefix that has one only.
fn alone(prefix: Prefix) -> Option<IpAddr> {
    (Prefix::from(prefix.addr()) == prefix).then(|| prefix.addr())
}

fn fitting_sets(vn: &VnPolicy) -> Vec<BTreeSet<GroupName>> {
    let fit = vn.compiled.iter().filter(|(_, compiled)| fits(compiled));
    fit.map(|(set, _)| set.clone()).collect()
}

fn fits(compiled: &Compiled) -> bool {
    compiled.too_many.is_none()
}

fn unused(vn: &VnPolicy) -> Vec<ClassId> {
    vn.classes.iter().filter(|(_, (_, count))| *count == 0).map(|(id, _)| *id).collect()
}
