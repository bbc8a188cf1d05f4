//! Access policy: what of it reaches the tables, when, and in which order.

use super::super::policy::PolicyFact;
use super::super::{Fact, Session};
use super::world::*;
use std::collections::{BTreeMap, BTreeSet};
use weft_datapath::{Op, Policy, Tables};
use weft_model::{GroupName, Rule, SecurityGroup, VnSpec};

pub fn rules(texts: &[&str]) -> SecurityGroup {
    let rules: Vec<Rule> = texts.iter().map(|text| text.parse().unwrap()).collect();
    rules.try_into().unwrap()
}

pub fn groups(names: &[&str]) -> BTreeSet<GroupName> {
    names.iter().map(|text| name(text)).collect()
}

pub fn group(text: &str, texts: &[&str]) -> PolicyFact {
    PolicyFact::Group(vni(), name(text), rules(texts))
}

pub fn member(text: &str, n: u32, names: &[&str]) -> PolicyFact {
    PolicyFact::Member(id(text), BTreeSet::from([ip(V4, n), ip(V6, n)]), groups(names))
}

impl World {
    fn policy(&mut self, facts: Vec<PolicyFact>) -> Vec<Seen> {
        self.core.handle_fact(Fact::Policy { listed: false, facts });
        self.seen()
    }

    /// Asks for an interface in these groups and has it granted.
    fn attach_in(&mut self, text: &str, n: u32, names: &[&str]) -> Vec<Seen> {
        let call = self.attach(super::super::Attach { groups: groups(names), ..attach(text, n) });
        self.seen();
        let mut seen = self.granted(call, weft_model::Grant { groups: groups(names), ..grant(text, n) });
        for (oracle, heard) in registered(&seen) {
            seen.extend(self.ack(oracle, heard, mac(n)));
        }
        seen
    }

    fn vap_policy(&self, n: u32) -> Option<Policy> {
        let vap = &self.tables.vaps[&device(n).index];
        assert!(vap.activated, "{vap:?}");
        vap.policy
    }

    /// What rules there are, without their numbers.
    fn rule_count(&self) -> (usize, usize) {
        (self.tables.rules.len(), self.tables.classes.len())
    }
}

fn ops(seen: &[Seen]) -> Vec<Op> {
    seen.iter()
        .filter_map(|seen| match seen {
            Seen::Op(op) => Some(op.clone()),
            _ => None,
        })
        .collect()
}

/// A word for each change, in order.
fn kinds(seen: &[Seen]) -> Vec<&'static str> {
    let word = |op: &Op| match op {
        Op::SetRule(..) => "+rule",
        Op::RemoveRule(..) => "-rule",
        Op::SetClass(..) => "+class",
        Op::RemoveClass(..) => "-class",
        Op::SetVap(..) => "vap",
        other => panic!("{other:?}"),
    };
    ops(seen).iter().map(word).collect()
}

fn started() -> World {
    let mut w = World::new(V4);
    w.session(0, Session::Up);
    w.core.handle_fact(Fact::Vn(spec()));
    w.seen();
    w
}

#[test]
fn v9_nothing_is_activated_before_its_groups_are_known() {
    let mut w = started();
    let seen = w.attach_in("a", 1, &["web"]);
    assert!(!seen.iter().any(|s| matches!(s, Seen::Attached(..))), "{seen:?}");
    assert!(!w.tables.vaps[&device(1).index].activated);
    assert!(w.tables.fdb.is_empty() && w.tables.neighbours.is_empty());
    let closed = w.core.tsis().next().unwrap().closed.unwrap();
    assert!(closed.contains("'web' is not known yet"), "{closed}");
    // Another group's rules do not help.
    w.policy(vec![PolicyFact::Vn(vni()), group("db", &["in any"])]);
    assert!(!w.tables.vaps[&device(1).index].activated);
    let seen = w.policy(vec![group("web", &["in tcp/80", "out any"])]);
    let at = |wanted: &str| kinds_at(&seen, wanted);
    assert!(at("+rule") < at("vap"), "rules first: {seen:?}");
    assert!(w.vap_policy(1).is_some());
    assert_eq!(w.rule_count(), (2, 0));
    assert_eq!(w.core.tsis().next().unwrap().closed, None);
    // Who is in no group is under no policy.
    w.attached("b", 2);
    assert_eq!(w.vap_policy(2), None);
}

fn kinds_at(seen: &[Seen], wanted: &str) -> usize {
    let of = |op: &Op| match op {
        Op::SetRule(..) => "+rule",
        Op::SetVap(..) => "vap",
        _ => "",
    };
    ops(seen).iter().position(|op| of(op) == wanted).unwrap()
}

#[test]
fn an_attach_whose_groups_never_come_fails_and_leaves_nothing() {
    let mut w = started();
    w.attach_in("a", 1, &["web"]);
    let seen: Vec<Seen> =
        w.passes(::core::time::Duration::from_secs(6)).into_iter().map(|(_, seen)| seen).collect();
    let refused = seen.iter().find_map(|s| match s {
        Seen::Attached(_, Err(refused)) => Some(refused.to_string()),
        _ => None,
    });
    assert!(refused.is_some_and(|text| text.contains("'web' is not known yet")), "{seen:?}");
    assert!(w.core.tsis().next().is_none());
}

#[test]
fn one_member_costs_one_change_of_each_address() {
    let mut w = started();
    w.policy(vec![
        PolicyFact::Vn(vni()),
        group("web", &["in tcp/80 from group:web", "in udp from 10.0.0.0/28"]),
    ]);
    w.attach_in("a", 1, &["web"]);
    // The prefix has a class; a and b are within it, c is not.
    assert_eq!(w.rule_count(), (1, 1));
    let seen = w.policy(vec![member("b", 2, &["web"])]);
    assert_eq!(kinds(&seen), ["+rule", "+rule", "+rule", "+class", "+class"], "classes nobody was of before");
    let seen = w.policy(vec![member("c", 3, &["web"])]);
    assert_eq!(kinds(&seen), ["+class", "+class"]);
    let seen = w.policy(vec![member("d", 40, &["web"])]);
    assert_eq!(kinds(&seen), ["+rule", "+class", "+class"][1..], "of the class that IPv6 members are of");
    // One that goes may have connections open.
    let before = w.vap_policy(1).unwrap();
    let seen = w.policy(vec![PolicyFact::MemberGone(id("c"))]);
    assert_eq!(kinds(&seen), ["-class", "-class", "vap"]);
    let after = w.vap_policy(1).unwrap();
    assert!(after.id == before.id && after.generation != before.generation);
    // Who is in no group that a rule names is nothing to anybody.
    assert_eq!(kinds(&w.policy(vec![member("e", 5, &["db"])])), [""; 0]);
}

#[test]
fn a_rule_that_goes_has_connections_looked_at_again_at_the_very_end() {
    let mut w = started();
    w.policy(vec![PolicyFact::Vn(vni()), group("web", &["in tcp/80", "in tcp/81 from 10.0.0.0/8"])]);
    w.attach_in("a", 1, &["web"]);
    let before = w.vap_policy(1).unwrap();
    let seen = w.policy(vec![group("web", &["in tcp/80", "in tcp/82 from fd00::/8"])]);
    assert_eq!(kinds(&seen), ["+rule", "+class", "-class", "-rule", "vap"]);
    assert_ne!(w.vap_policy(1).unwrap().generation, before.generation);
    // What only adds cuts nothing.
    let before = w.vap_policy(1);
    let seen = w.policy(vec![group("web", &["in tcp/80", "in tcp/82 from fd00::/8", "in tcp/83"])]);
    assert_eq!((kinds(&seen), w.vap_policy(1)), (vec!["+rule"], before));
}

#[test]
fn another_set_of_groups_is_one_step_for_the_vap() {
    let mut w = started();
    w.policy(vec![PolicyFact::Vn(vni()), group("web", &["in tcp/80"]), group("db", &["in tcp/5432"])]);
    w.attach_in("a", 1, &["web"]);
    let before = w.vap_policy(1).unwrap();
    w.seen();
    let moved = weft_model::Grant { groups: groups(&["db"]), ..grant("a", 1) };
    let seen: Vec<Seen> = w.grants(20, vec![moved.clone()]);
    assert_eq!(kinds(&seen), ["+rule", "vap", "-rule"]);
    let after = w.vap_policy(1).unwrap();
    assert!(after.id != before.id && after.generation != before.generation);
    // Groups that are not known yet take nothing away, and nothing is open meanwhile.
    let seen = w.grants(21, vec![weft_model::Grant { groups: groups(&["new"]), ..moved.clone() }]);
    assert_eq!(kinds(&seen), [""; 0]);
    let seen = w.policy(vec![group("new", &["in tcp/1"])]);
    assert_eq!(kinds(&seen), ["+rule", "vap", "-rule"]);
    // None at all, and back.
    let seen = w.grants(22, vec![weft_model::Grant { groups: BTreeSet::new(), ..moved }]);
    assert_eq!((kinds(&seen), w.vap_policy(1)), (vec!["vap", "-rule"], None));
    let defaults = VnSpec { default_groups: groups(&["web"]), log_refused: true, ..spec() };
    w.core.handle_fact(Fact::Vn(defaults));
    // Until what is known of groups and members is of the same moment nothing changes.
    assert_eq!((kinds(&w.seen()), w.vap_policy(1)), (vec![""; 0], None));
    let seen = w.policy(vec![PolicyFact::Defaults(vni(), groups(&["web"]))]);
    assert_eq!(kinds(&seen), ["+rule", "vap"]);
    assert!(w.vap_policy(1).unwrap().log_refused);
}

#[test]
fn rules_that_do_not_fit_keep_out_the_one_that_needs_them_and_nobody_else() {
    let mut w = World::with(V4, |config| config.limits.policy_rules = 3);
    w.session(0, Session::Up);
    w.core.handle_fact(Fact::Vn(spec()));
    w.policy(vec![
        PolicyFact::Vn(vni()),
        group("web", &["in tcp/80", "in tcp/81"]),
        group("big", &["in tcp/1", "in tcp/3"]),
    ]);
    w.attach_in("a", 1, &["web"]);
    let seen = w.attach_in("b", 2, &["big"]);
    let refused = seen.iter().find_map(|s| match s {
        Seen::Attached(_, Err(refused)) => Some(refused.to_string()),
        _ => None,
    });
    let refused = refused.unwrap_or_else(|| panic!("{seen:?}"));
    assert!(refused.contains("need 4 entries and there is room for 3"), "{refused}");
    assert!(w.vap_policy(1).is_some() && w.tables.rules.len() == 2);
    // A group that grows too large closes those that are in it, and is served again when it shrinks.
    w.attach_in("c", 3, &["web"]);
    w.policy(vec![group("web", &["in tcp/80", "in tcp/81", "in tcp/82", "in tcp/84"])]);
    assert!([1, 3].iter().all(|n| !w.tables.vaps[&device(*n).index].activated));
    assert!(w.tables.rules.is_empty() && w.core.tsis().all(|tsi| tsi.closed.is_some()));
    w.policy(vec![group("web", &["in tcp/80"])]);
    assert!([1, 3].iter().all(|n| w.vap_policy(*n).is_some()));
}

/// A VN's default groups, and who has become a member by them, take effect at once, in whichever order they are heard; nobody
/// who comes in between is in service under the groups that were.
#[test]
fn default_groups_come_with_their_members() {
    for vn_first in [true, false] {
        let mut w = started();
        let rules = group("web", &["in tcp/80 from group:web"]);
        w.policy(vec![PolicyFact::Vn(vni()), rules.clone(), group("db", &["in any"])]);
        w.attached("a", 1);
        assert_eq!(w.vap_policy(1), None);
        let spec = VnSpec { default_groups: groups(&["web"]), ..spec() };
        let told = || {
            let defaults = PolicyFact::Defaults(vni(), groups(&["web"]));
            vec![PolicyFact::Vn(vni()), defaults, rules.clone(), member("a", 1, &[]), member("b", 2, &[])]
        };
        if vn_first {
            w.core.handle_fact(Fact::Vn(spec.clone()));
        } else {
            w.policy(told());
        }
        w.seen();
        assert_eq!((w.vap_policy(1), w.rule_count()), (None, (0, 0)), "as before");
        if !vn_first {
            w.attach_in("c", 3, &[]);
            assert!(!w.tables.vaps[&device(3).index].activated);
        }
        if vn_first {
            w.policy(told());
        } else {
            w.core.handle_fact(Fact::Vn(spec));
        }
        w.seen();
        assert!(w.vap_policy(1).is_some() && (vn_first || w.vap_policy(1) == w.vap_policy(3)));
        // One rule for each class of members: IPv4 and IPv6 are one.
        assert_eq!(w.rule_count(), (1, 4));
    }
}

/// Of several sets of groups in force the one that grows is the one that goes, whichever is the oldest; and a new one
/// takes nothing from anybody.
#[test]
fn the_set_that_grows_too_large_goes_and_what_others_have_stays() {
    for grows in 0..3 {
        let mut w = World::with(V4, |config| config.limits.policy_rules = 6);
        w.session(0, Session::Up);
        w.core.handle_fact(Fact::Vn(spec()));
        let names = ["web", "db", "ops"];
        let small = |n: usize| group(names[n], &[&format!("in tcp/{}", 10 * n + 1), "out any"][..]);
        w.policy([vec![PolicyFact::Vn(vni())], (0..3).map(small).collect()].concat());
        for (at, n) in [("a", 1), ("b", 2), ("c", 3)] {
            w.attach_in(at, n, &[names[usize::try_from(n).unwrap() - 1]]);
        }
        let before: Vec<_> = (1..=3).map(|n| w.vap_policy(n)).collect();
        let seen = w.policy(vec![group(names[grows], &["in tcp/80", "in tcp/82", "in tcp/84"])]);
        for (n, before) in (1..=3).zip(&before) {
            if n == nth(grows) {
                assert!(!w.tables.vaps[&device(n).index].activated);
            } else {
                assert_eq!(w.vap_policy(n), *before);
            }
        }
        let mut changes = kinds(&ops(&seen).into_iter().filter(is_policy).map(Seen::Op).collect::<Vec<_>>());
        changes.retain(|kind| *kind != "vap");
        assert_eq!(changes, ["-rule", "-rule"], "its own alone");
        let why = w.core.tsis().find_map(|tsi| tsi.closed).unwrap();
        let names_it = format!("'{}' this host would need 7 entries and there is room for 6", names[grows]);
        assert!(why.contains(&names_it), "{why}");
        // One that is new and does not fit is not let in; one that fits is.
        w.policy(vec![group("big", &["in tcp/1", "in tcp/3", "in tcp/5"]), group("one", &["in tcp/7"])]);
        w.attach_in("d", 4, &["big"]);
        w.attach_in("e", 5, &["one"]);
        assert!(!w.tables.vaps.contains_key(&device(4).index) && w.vap_policy(5).is_some());
        for (n, before) in (1..=3).zip(&before).filter(|(n, _)| *n != nth(grows)) {
            assert_eq!(w.vap_policy(n), *before);
        }
        // The room there is goes to the one that has shrunk.
        w.policy(vec![group(names[grows], &["in tcp/80"])]);
        assert!((1..=3).all(|n| w.vap_policy(n).is_some()));
    }
}

fn nth(n: usize) -> u32 {
    u32::try_from(n).unwrap() + 1
}

fn is_policy(op: &Op) -> bool {
    matches!(
        op,
        Op::SetRule(..) | Op::RemoveRule(..) | Op::SetClass(..) | Op::RemoveClass(..) | Op::SetVap(..)
    )
}

#[test]
fn a_restarted_agent_finds_what_it_left_and_looks_at_connections_again() {
    let mut w = started();
    w.policy(vec![
        PolicyFact::Vn(vni()),
        group("web", &["in tcp/80 from group:web", "in udp/53 from 10.0.0.0/28"]),
        member("b", 2, &["web"]),
    ]);
    w.attach_in("a", 1, &["web"]);
    let saved = w.saved_policies.clone().unwrap();
    let text = serde_json::to_string(&saved).unwrap();
    let (attachments, observed) = (w.core.attachments(), w.tables.clone());
    let mut again = World::new(V4);
    again.core.remember(vec![spec()], serde_json::from_str(&text).unwrap(), &observed);
    again.core.restore(again.now, attachments, &[device(1)]);
    again.core.adopt(again.now, vec![spec()], &observed);
    again.seen();
    assert_eq!((&again.tables.rules, &again.tables.classes), (&observed.rules, &observed.classes));
    let (was, is) = (w.vap_policy(1).unwrap(), again.vap_policy(1).unwrap());
    assert!(is.id == was.id && is.generation > was.generation);
    // Without an Oracle it goes on like that; with one it follows.
    let seen = again.policy(vec![member("c", 3, &["web"])]);
    assert!(kinds(&seen).iter().all(|kind| *kind == "+class" || *kind == "+rule"), "{seen:?}");
    again.core.look_again_at_all();
    assert_eq!(kinds(&again.seen()), ["vap"]);
    // Nothing is left of a VN in which nobody is any more.
    again.core.handle_detach(super::super::CallId(99), red(), name("a"), true);
    let seen = again.seen();
    let ips = BTreeSet::from([ip(V4, 1), ip(V6, 1)]);
    assert!(seen.contains(&Seen::ForgetConnections(ips)), "whoever has its address next is not it: {seen:?}");
    assert!(again.tables.rules.is_empty() && again.tables.classes.is_empty());
}

#[test]
fn room_that_others_made_is_used_at_once() {
    let mut w = World::with(V4, |config| config.limits.policy_rules = 3);
    w.session(0, Session::Up);
    w.core.handle_fact(Fact::Vn(spec()));
    w.policy(vec![PolicyFact::Vn(vni()), group("web", &["in tcp/80", "in tcp/82"])]);
    w.attach_in("a", 1, &["web"]);
    // Another VN, whose policy has no room any more once it grows.
    let other = weft_model::Vni::new(8).unwrap();
    let blue = VnSpec { name: name("blue"), vni: other, ..spec() };
    let in_blue = |texts: &[&str]| PolicyFact::Group(other, name("db"), rules(texts));
    w.core.handle_fact(Fact::Vn(blue.clone()));
    w.policy(vec![PolicyFact::Vn(other), in_blue(&["in tcp/1"])]);
    let call = w.attach(super::super::Attach { vn: name("blue"), groups: groups(&["db"]), ..attach("b", 2) });
    w.seen();
    let tsi = weft_model::TsiId { vni: other, name: name("b") };
    let answer = super::super::Granted {
        grant: weft_model::Grant { tsi, groups: groups(&["db"]), ..grant("b", 2) },
        vn: blue,
        revision: 10,
        created: true,
    };
    w.core.handle_granted(w.now, call, Ok(answer));
    w.seen();
    // No Oracle acknowledges it, which an owner does not wait for.
    w.passes(::core::time::Duration::from_secs(6));
    assert!(w.vap_policy(2).is_some());
    w.policy(vec![in_blue(&["in tcp/1", "in tcp/3"])]);
    assert!(!w.tables.vaps[&device(2).index].activated && w.vap_policy(1).is_some());
    w.policy(vec![group("web", &["in tcp/80"])]);
    assert!(w.vap_policy(2).is_some());
}

/// Everything but numbers: each rule and class by what it means.
pub fn meaning(tables: &Tables) -> (BTreeSet<String>, BTreeMap<String, BTreeSet<String>>) {
    let mut of: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    let mut anybody = BTreeSet::new();
    for (key, allow) in &tables.rules {
        let text = format!("{:?} {:?} {:?} {}", key.toward, key.protocol, key.ports, allow.log);
        if key.class.0 == 0 {
            anybody.insert(text);
        } else {
            of.entry(key.class.0).or_default().insert(text);
        }
    }
    let classes = tables.classes.iter();
    let classes = classes
        .map(|((_, prefix), class)| (prefix.to_string(), of.get(&class.0).cloned().unwrap_or_default()));
    (anybody, classes.collect())
}
