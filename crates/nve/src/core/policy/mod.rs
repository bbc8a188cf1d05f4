//! Access policy (requirements V9, H3): from security groups and who is in them to what the data plane allows.
//!
//! What an Oracle's watch says of a VN is mirrored here, whole VNs or change by change. Of the groups that tenant systems
//! here are in it is compiled, for each distinct set of groups to one [`PolicyId`](weft_datapath::PolicyId): who is
//! remote belongs to a class by the prefixes and groups that rules of the VN name, and rules are for a class or anybody.
//! So a rule costs an entry for each class that its peer is in (times the prefixes its ports are), whoever many the
//! members are, and a member costs an entry for each of its addresses.
//!
//! # Order of changes
//!
//! Each change of the tables is one system call, and packets are looked at in between. Rules only allow, so that
//! what is allowed while both the old and the new ones are there is what either allows. A change is made in this order:
//!
//! 1. rules that are new, those of new classes among them: nobody is of those classes yet;
//! 2. classes of prefixes, set or replaced: an address goes from its old class, whose rules are all there still, to its
//!    new one, whose rules are there already; longer prefixes first, so that it does not come by a third;
//! 3. VAPs whose policy is another one: it goes from one complete set of rules to another;
//! 4. classes of prefixes that have none any more: their addresses fall to that of a shorter prefix, set in step 2; shorter ones first;
//! 5. rules that nobody needs any more;
//! 6. VAPs of policies that something was taken from get a new generation: their open connections are looked at again,
//!    when everything is as it is to be. Before, they could have been found to be allowed by what goes in step 5.
//!
//! So what is allowed before and after is never refused in between, nor is anything allowed that is refused before and after.
//! Where VAPs go to another policy in step 3, the classes of both apply first, and what only the former one needs goes in a second round.
//! What only adds needs no step 6. An address that leaves a group is one that something was taken from.
//!
//! A tenant system whose groups are not known is not Activated, nor one whose rules do not fit; one that carries traffic
//! goes on with the groups it had until those it is to have are known.

mod change;
#[cfg(test)]
mod check;
mod compile;
mod fit;
mod govern;
mod members;
mod numbers;
mod saved;
mod selector;

pub use govern::Closed;
pub use saved::SavedPolicies;

use super::{Core, Timer};
use ::core::{net::IpAddr, time::Duration};
use numbers::Numbers;
use selector::{Class, Selectors};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use weft_datapath::{ClassId, RULE_COUNTERS};
use weft_model::{GroupName, Rule, SecurityGroup, TenantIp, TsiId, TsiName, Vni};

/// What changed of members only reaches the disk within this.
const SAVE: Duration = Duration::from_secs(1);

/// What an Oracle says of access policy, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyFact {
    /// All there is of a VN follows.
    Vn(Vni),
    /// The groups of a VN's tenant systems that name none, as of everything else that is said with it.
    Defaults(Vni, BTreeSet<GroupName>),
    /// Nothing applies in a VN any more.
    VnGone(Vni),
    /// A group has these rules.
    Group(Vni, GroupName, SecurityGroup),
    /// There is no such group any more.
    GroupGone(Vni, GroupName),
    /// A tenant system, wherever it is, has these addresses and names these groups; none: its VN's default ones.
    Member(TsiId, BTreeSet<TenantIp>, BTreeSet<GroupName>),
    /// It is in no group any more.
    MemberGone(TsiId),
}

/// A tenant system of a VN, wherever it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    ips: BTreeSet<TenantIp>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    groups: BTreeSet<GroupName>,
}

/// What there would be too many of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Overflow {
    needed: usize,
    room: usize,
}

/// A set of groups, compiled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Compiled {
    generation: u32,
    /// Where it does not fit: it has no entries.
    too_many: Option<Overflow>,
}

/// Access policy of one VN.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct VnPolicy {
    /// As an Oracle says.
    groups: BTreeMap<GroupName, SecurityGroup>,
    /// The groups of those that name none.
    defaults: BTreeSet<GroupName>,
    /// Groups that are gone, and that somebody here is in until it is heard that he is not.
    kept: BTreeMap<GroupName, SecurityGroup>,
    /// Groups that allow what they did not when sets of groups were compiled last.
    grown: BTreeSet<GroupName>,
    members: BTreeMap<TsiName, Member>,
    /// Who has an address.
    addresses: BTreeMap<IpAddr, TsiName>,
    /// The sets of groups that tenant systems here are in.
    compiled: BTreeMap<BTreeSet<GroupName>, Compiled>,
    selectors: Selectors,
    /// The classes that addresses are of, with how many prefixes have each.
    classes: BTreeMap<ClassId, (Class, usize)>,
}

/// Access policy of every VN.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policies {
    vns: BTreeMap<Vni, VnPolicy>,
    policies: Numbers<(Vni, BTreeSet<GroupName>)>,
    classes: Numbers<(Vni, Class)>,
    /// Of rules, for their counters. The data plane's counts from 0, these from 1.
    rules: Numbers<(Vni, GroupName, Rule)>,
    /// The one given last.
    generation: u32,
    unsaved: bool,
    /// Entries have gone: what did not fit may fit now.
    room_made: bool,
}

impl Default for Policies {
    fn default() -> Self {
        Self {
            vns: BTreeMap::new(),
            policies: Numbers::up_to(u32::MAX),
            classes: Numbers::up_to(u32::MAX),
            rules: Numbers::up_to(RULE_COUNTERS),
            generation: 0,
            unsaved: false,
            room_made: false,
        }
    }
}

impl VnPolicy {
    /// Takes in what is said of a member; its addresses that this may be news of.
    fn set_member(&mut self, name: &TsiName, member: Option<Member>) -> BTreeSet<IpAddr> {
        let old = match &member {
            Some(new) => self.members.insert(name.clone(), new.clone()),
            None => self.members.remove(name),
        };
        if old == member {
            return BTreeSet::new();
        }
        let mut touched = BTreeSet::new();
        for ip in old.iter().flat_map(|old| &old.ips) {
            touched.insert(ip.get());
            if self.addresses.get(&ip.get()) == Some(name) {
                self.addresses.remove(&ip.get());
            }
        }
        for ip in member.iter().flat_map(|new| &new.ips) {
            touched.insert(ip.get());
            self.addresses.insert(ip.get(), name.clone());
        }
        touched
    }

    /// The rules of a group, of one that is gone too.
    fn rules_of(&self, name: &GroupName) -> &[Rule] {
        self.groups.get(name).or_else(|| self.kept.get(name)).map_or(&[], SecurityGroup::rules)
    }

    /// The groups of whoever has an address.
    fn groups_at(&self, ip: IpAddr) -> &BTreeSet<GroupName> {
        static NONE: BTreeSet<GroupName> = BTreeSet::new();
        let member = self.addresses.get(&ip).and_then(|name| self.members.get(name));
        member.map_or(&NONE, |member| if member.groups.is_empty() { &self.defaults } else { &member.groups })
    }
}

impl Core {
    /// What an Oracle says of access policy: of one moment, and with `listed` all there is.
    pub(super) fn policy_facts(&mut self, listed: bool, facts: Vec<PolicyFact>) {
        let mut anew = BTreeSet::new();
        let mut touched: BTreeMap<Vni, BTreeSet<IpAddr>> = BTreeMap::new();
        if listed {
            let named = |vni: &Vni| facts.iter().any(|fact| matches!(fact, PolicyFact::Vn(v) if v == vni));
            let gone: Vec<Vni> = self.policies.vns.keys().filter(|vni| !named(vni)).copied().collect();
            for vni in gone {
                self.forget_policy(vni);
                anew.insert(vni);
            }
        }
        for fact in facts {
            match fact {
                PolicyFact::Vn(vni) => {
                    self.forget_policy(vni);
                    anew.insert(vni);
                }
                PolicyFact::Defaults(vni, defaults) => {
                    self.policies.vns.entry(vni).or_default().defaults = defaults;
                    anew.insert(vni);
                }
                PolicyFact::VnGone(vni) => {
                    self.forget_policy(vni);
                    anew.insert(vni);
                }
                PolicyFact::Group(vni, name, group) => {
                    let vn = self.policies.vns.entry(vni).or_default();
                    let had: BTreeSet<Rule> = vn.rules_of(&name).iter().map(Rule::bare).collect();
                    if group.rules().iter().any(|rule| !had.contains(&rule.bare())) {
                        vn.grown.insert(name.clone());
                    }
                    vn.kept.remove(&name);
                    vn.groups.insert(name, group);
                    anew.insert(vni);
                }
                PolicyFact::GroupGone(vni, name) => {
                    let vn = self.policies.vns.entry(vni).or_default();
                    vn.kept.extend(vn.groups.remove_entry(&name));
                    anew.insert(vni);
                }
                PolicyFact::Member(tsi, ips, groups) => {
                    let vn = self.policies.vns.entry(tsi.vni).or_default();
                    let ips = vn.set_member(&tsi.name, Some(Member { ips, groups }));
                    touched.entry(tsi.vni).or_default().extend(ips);
                }
                PolicyFact::MemberGone(tsi) => {
                    let vn = self.policies.vns.entry(tsi.vni).or_default();
                    let ips = vn.set_member(&tsi.name, None);
                    touched.entry(tsi.vni).or_default().extend(ips);
                }
            }
        }
        for vni in &anew {
            touched.remove(vni);
            self.review_policy(*vni);
        }
        for (vni, ips) in touched {
            self.reclass(vni, &ips);
        }
        if anew.is_empty() {
            self.timers.advance(Timer::SavePolicies, self.now + SAVE);
        } else {
            self.policies.unsaved = true;
        }
    }

    /// What changed is to be saved now.
    pub fn policies_changed(&mut self) {
        self.policies.unsaved = true;
    }

    /// Forgets what an Oracle said of a VN, but not what it was compiled to.
    fn forget_policy(&mut self, vni: Vni) {
        if let Some(vn) = self.policies.vns.get_mut(&vni) {
            let groups = std::mem::take(&mut vn.groups);
            vn.kept.extend(groups);
            vn.defaults.clear();
            vn.members.clear();
            vn.addresses.clear();
        }
    }

    /// A generation that no connection was checked at yet.
    fn next_generation(&mut self) -> u32 {
        self.policies.generation = self.policies.generation.wrapping_add(1);
        self.policies.generation
    }
}
