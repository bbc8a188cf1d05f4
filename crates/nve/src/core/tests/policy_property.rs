//! Access policy against the text of its rules: any sequence of changes, packet by packet, at the end of each change and
//! at every moment within it.

use super::super::policy::PolicyFact;
use super::super::{Attach, Fact, Session};
use super::policy::{meaning, member, rules};
use super::world::*;
use ::core::net::IpAddr;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use weft_datapath::{ClassId, Tables, Toward};
use weft_model::{Grant, GroupName, Rule, policy};

const GROUPS: [&str; 3] = ["g0", "g1", "g2"];
/// The first two are here, too.
const MEMBERS: [&str; 5] = ["a", "b", "c", "d", "e"];
const RULES: [&str; 18] = [
    "in any",
    "out any ipv6",
    "in tcp/80",
    "in tcp/79-82 from group:g0 log",
    "in tcp from 10.0.0.0/30",
    "out tcp from_or_to 10.0.0.0/29",
    "in any from group:g1 ipv4",
    "in udp/1-65535 from fd00::/126",
    "out any from_or_to group:g2",
    "out udp from_or_to 10.0.0.2",
    "in 47 from group:g1",
    "in icmp/8 from 0.0.0.0/0",
    "in icmpv6",
    "out icmp from_or_to group:g0",
    "in any from fd00::4/127",
    "in tcp/80 from 10.0.0.4/31",
    "in tcp/80 from group:g1 log",
    "out any ipv4",
];

fn rule(at: usize) -> Rule {
    RULES[at].replace("from_or_to", "to").parse().unwrap()
}

#[derive(Clone, Debug)]
enum Step {
    Group(usize, BTreeSet<usize>),
    Member(usize, Option<BTreeSet<usize>>),
    Here(usize, BTreeSet<usize>),
    /// The Oracle tells of everything once more.
    Whole,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let set = |most| prop::collection::btree_set(0..GROUPS.len(), 0..=most);
    prop_oneof![
        4 => (0..GROUPS.len(), prop::collection::btree_set(0..RULES.len(), 0..6)).prop_map(|(g, r)| Step::Group(g, r)),
        4 => (0..MEMBERS.len(), prop::option::weighted(0.8, set(2))).prop_map(|(m, g)| Step::Member(m, g)),
        2 => (0..2_usize, set(2)).prop_map(|(t, g)| Step::Here(t, g)),
        1 => Just(Step::Whole),
        1 => Just(Step::Restart),
    ]
}

/// What an Oracle knows.
#[derive(Clone, Default)]
struct Truth {
    groups: BTreeMap<usize, BTreeSet<usize>>,
    members: BTreeMap<usize, BTreeSet<usize>>,
    here: [BTreeSet<usize>; 2],
}

fn names(set: &BTreeSet<usize>) -> BTreeSet<GroupName> {
    set.iter().map(|g| name(GROUPS[*g])).collect()
}

fn nth(n: usize) -> u32 {
    u32::try_from(n).unwrap() + 1
}

impl Truth {
    fn group(&self, g: usize) -> PolicyFact {
        let texts: Vec<String> =
            self.groups.get(&g).into_iter().flatten().map(|at| rule(*at).to_string()).collect();
        PolicyFact::Group(
            vni(),
            name(GROUPS[g]),
            rules(&texts.iter().map(String::as_str).collect::<Vec<_>>()),
        )
    }

    fn member(&self, m: usize) -> PolicyFact {
        match self.members.get(&m) {
            Some(of) => {
                let of = names(of);
                member(MEMBERS[m], nth(m), &of.iter().map(GroupName::as_str).collect::<Vec<_>>())
            }
            None => PolicyFact::MemberGone(id(MEMBERS[m])),
        }
    }

    fn whole(&self) -> Vec<PolicyFact> {
        let all = (0..GROUPS.len()).map(|g| self.group(g));
        let members = self.members.keys().map(|m| self.member(*m));
        [PolicyFact::Vn(vni())].into_iter().chain(all).chain(members).collect()
    }

    fn grants(&self) -> Vec<Grant> {
        let of = |n: usize| Grant { groups: names(&self.here[n]), ..grant(MEMBERS[n], nth(n)) };
        vec![of(0), of(1)]
    }

    /// Whether the first packet of a connection is allowed, by the text of the rules.
    fn allows(&self, here: usize, packet: &Packet) -> bool {
        let set = &self.here[here];
        let is_in = |group: &GroupName| {
            let owner =
                (0..MEMBERS.len()).find(|m| [V4, V6].iter().any(|f| ip(*f, nth(*m)).get() == packet.remote));
            owner.and_then(|m| self.members.get(&m)).is_some_and(|of| names(of).contains(group))
        };
        let rules = set.iter().flat_map(|g| self.groups.get(g).into_iter().flatten());
        set.is_empty()
            || rules.map(|at| rule(*at)).any(|rule| {
                let toward = match packet.toward {
                    Toward::In => policy::Toward::In,
                    Toward::Out => policy::Toward::Out,
                };
                rule.allows(toward, packet.protocol, packet.number, packet.remote, is_in)
            })
    }
}

#[derive(Clone, Debug)]
struct Packet {
    toward: Toward,
    remote: IpAddr,
    protocol: u8,
    number: u16,
}

/// All that rules can tell apart.
fn packets() -> Vec<Packet> {
    let remotes = (1..=9).flat_map(|n| [ip(V4, n).get(), ip(V6, n).get()]);
    let kinds = [(6, 80), (6, 82), (6, 9), (17, 0), (17, 53), (1, 0x0800), (1, 0), (58, 0x8000), (47, 0)];
    let mut all = Vec::new();
    for remote in remotes {
        for (protocol, number) in kinds {
            all.extend([Toward::In, Toward::Out].map(|toward| Packet { toward, remote, protocol, number }));
        }
    }
    all
}

/// Whether the first packet of a connection is allowed, by the tables.
fn passes(tables: &Tables, here: usize, packet: &Packet) -> bool {
    let Some(vap) = tables.vaps.get(&device(nth(here)).index).filter(|vap| vap.activated) else {
        return false;
    };
    let Some(policy) = vap.policy else { return true };
    let classes = tables.classes.iter().filter(|((_, prefix), _)| prefix.contains(packet.remote));
    let class = classes.max_by_key(|((_, prefix), _)| prefix.bits()).map(|(_, class)| *class);
    tables.rules.keys().any(|key| {
        key.policy == policy.id
            && key.toward == packet.toward
            && (key.class == ClassId::ANYBODY || Some(key.class) == class)
            && key.protocol.is_none_or(|protocol| protocol == packet.protocol)
            && key.ports.contains(packet.number)
    })
}

/// One NVE with both tenant systems attached.
fn nve(truth: &Truth) -> World {
    let mut w = World::new(V4);
    w.session(0, Session::Up);
    w.core.handle_fact(Fact::Vn(spec()));
    w.core.handle_fact(Fact::Policy { listed: true, facts: truth.whole() });
    w.seen();
    for grant in truth.grants() {
        let n = if grant.tsi == id("a") { 1 } else { 2 };
        let call = w.attach(Attach { groups: grant.groups.clone(), ..attach(grant.tsi.name.as_str(), n) });
        w.seen();
        w.granted(call, grant);
    }
    w
}

/// A change is never worse in between than before or after.
fn check_within(before: &Tables, seen: &[Seen], after: &Tables) {
    let all = packets();
    let ends: Vec<(bool, bool)> = all
        .iter()
        .flat_map(|p| [0, 1].map(|here| (passes(before, here, p), passes(after, here, p))))
        .collect();
    let mut now = before.clone();
    for op in seen {
        let Seen::Op(op) = op else { continue };
        now.apply(op);
        let mut ends = ends.iter();
        for packet in &all {
            for here in [0, 1] {
                let (was, is) = ends.next().unwrap();
                if was == is {
                    assert_eq!(passes(&now, here, packet), *was, "{packet:?} at {here} after {op:?}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn v9_tables_allow_what_the_rules_say(steps in prop::collection::vec(step(), 1..24)) {
        let mut truth = Truth::default();
        let mut w = nve(&truth);
        for (at, step) in steps.into_iter().enumerate() {
            let before = w.tables.clone();
            let policy = |w: &mut World, facts| {
                w.core.handle_fact(Fact::Policy { listed: false, facts });
                w.seen()
            };
            let seen = match step.clone() {
                Step::Group(g, of) => {
                    // Two of them allow the same.
                    let of = if of.contains(&2) { of.into_iter().filter(|at| *at != 15).collect() } else { of };
                    truth.groups.insert(g, of);
                    policy(&mut w, vec![truth.group(g)])
                }
                Step::Member(m, of) => {
                    match of.filter(|of| !of.is_empty()) {
                        Some(of) => drop(truth.members.insert(m, of)),
                        None => drop(truth.members.remove(&m)),
                    }
                    policy(&mut w, vec![truth.member(m)])
                }
                Step::Here(n, of) => {
                    truth.here[n] = of;
                    w.grants(100 + at as u64, truth.grants())
                }
                Step::Whole => {
                    let seen = policy(&mut w, truth.whole());
                    prop_assert_eq!(&w.tables, &before, "nothing is news");
                    seen
                }
                Step::Restart => {
                    let mut again = World::new(V4);
                    let saved = w.saved_policies.clone().unwrap_or_default();
                    let text = serde_json::to_string(&saved).unwrap();
                    again.core.remember(vec![spec()], serde_json::from_str(&text).unwrap(), &before);
                    again.core.restore(again.now, w.core.attachments(), &[device(1), device(2)]);
                    again.core.adopt(again.now, vec![spec()], &before);
                    again.session(0, Session::Up);
                    again.core.handle_fact(Fact::Policy { listed: true, facts: truth.whole() });
                    again.seen();
                    w = again;
                    prop_assert_eq!(&w.tables.rules, &before.rules);
                    prop_assert_eq!(&w.tables.classes, &before.classes);
                    Vec::new()
                }
            };
            for packet in packets() {
                for here in [0, 1] {
                    let (is, should) = (passes(&w.tables, here, &packet), truth.allows(here, &packet));
                    prop_assert_eq!(is, should, "{:?} at {} after {:?}", packet, here, step);
                }
            }
            check_within(&before, &seen, &w.tables);
            prop_assert_eq!(meaning(&w.tables), meaning(&nve(&truth).tables));
            if w.saved_policies.is_some() {
                w.core.policies_changed();
                w.seen();
            }
        }
        // And nothing is left of it.
        truth.here = Default::default();
        w.grants(1000, truth.grants());
        prop_assert!(w.tables.rules.is_empty() && w.tables.classes.is_empty());
    }
}
