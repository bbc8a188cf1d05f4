//! Access policy as it outlives the agent: with it, and the numbers that the data plane knows things by, a restarted agent
//! goes on without an Oracle, and finds in the kernel what it left there.

use super::selector::{Class, Selector};
use super::{Member, VnPolicy};
use crate::core::{Core, Output};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use weft_datapath::Tables;
use weft_model::{GroupName, Rule, SecurityGroup, TsiName, VnSpec, Vni};

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedPolicies {
    generation: u32,
    vns: Vec<SavedVn>,
}

/// What is kept of a VN that has tenant systems in groups here.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedVn {
    vni: Vni,
    groups: BTreeMap<GroupName, SecurityGroup>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    defaults: BTreeSet<GroupName>,
    members: BTreeMap<TsiName, Member>,
    /// Numbers of policies, classes and rules.
    policies: Vec<(BTreeSet<GroupName>, u32)>,
    classes: Vec<(Vec<String>, u32)>,
    rules: Vec<(GroupName, Rule, u32)>,
}

impl Core {
    /// Takes over what an earlier run saved of access policy and VN Contexts, and goes on counting where it, or what the
    /// data plane was observed to hold, ended. Call before [`Core::restore`].
    pub fn remember(&mut self, vns: Vec<VnSpec>, saved: SavedPolicies, observed: &Tables) {
        self.vns.extend(vns.into_iter().map(|vn| (vn.vni, vn)));
        let policies = &mut self.policies;
        for SavedVn { vni, groups, defaults, members, policies: sets, classes, rules } in saved.vns {
            let mut vn = VnPolicy { groups, defaults, ..VnPolicy::default() };
            for (name, member) in members {
                vn.set_member(&name, Some(member));
            }
            policies.vns.insert(vni, vn);
            for (set, number) in sets {
                policies.policies.restore((vni, set), number);
            }
            for (texts, number) in classes {
                let class: Option<Class> = texts.iter().map(|text| text.parse::<Selector>().ok()).collect();
                if let Some(class) = class {
                    policies.classes.restore((vni, class), number);
                }
            }
            for (group, rule, number) in rules {
                policies.rules.restore((vni, group, rule), number);
            }
        }
        let seen = observed.vaps.values().filter_map(|vap| vap.policy);
        policies.generation = seen.map(|policy| policy.generation).fold(saved.generation, u32::max);
        // What the kernel holds and nobody remembers is not to be taken for something new.
        let last = observed.rules.keys().map(|key| key.policy.get()).max();
        policies.policies.begin_after(last.unwrap_or(0));
        let last = observed.classes.values().map(|class| class.0).max();
        policies.classes.begin_after(last.unwrap_or(0));
        let last = observed.rules.values().map(|allow| allow.rule.saturating_add(1)).max();
        policies.rules.begin_after(last.unwrap_or(0));
    }

    /// Hands access policy to the disk, if it changed since it last was.
    pub(in crate::core) fn save_policies(&mut self) {
        if !std::mem::take(&mut self.policies.unsaved) {
            return;
        }
        let policies = &self.policies;
        let used = policies.vns.iter().filter(|(_, vn)| !vn.compiled.is_empty());
        let vns = used.map(|(vni, vn)| SavedVn {
            vni: *vni,
            groups: vn.groups.clone(),
            defaults: vn.defaults.clone(),
            members: vn.members.clone(),
            policies: numbers(&policies.policies, *vni).collect(),
            classes: numbers(&policies.classes, *vni)
                .map(|(class, number)| (class.iter().map(ToString::to_string).collect(), number))
                .collect(),
            rules: policies
                .rules
                .iter()
                .filter(|((of, ..), _)| of == vni)
                .map(|((_, group, rule), number)| (group.clone(), rule.clone(), number))
                .collect(),
        });
        let saved = SavedPolicies { generation: policies.generation, vns: vns.collect() };
        self.outputs.push_back(Output::PersistPolicies(saved));
    }
}

/// The numbers of a VN's things.
fn numbers<K: Ord + Clone>(all: &super::Numbers<(Vni, K)>, vni: Vni) -> impl Iterator<Item = (K, u32)> + '_ {
    all.iter().filter(move |((of, _), _)| *of == vni).map(|((_, key), number)| (key.clone(), number))
}
