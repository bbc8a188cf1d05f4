//! Requirement N9: more groups than may be kept go to more than asked for them, never to fewer, and are narrowed again
//! when there is room.

use super::super::{Limits, Session};
use super::groups::told;
use super::groups::*;
use super::oracle::Heard;
use super::world::*;
use ::core::time::Duration;
use weft_datapath::{Op, Receivers};
use weft_lisp::tcp::{GroupEvent, MembershipEvent};
use weft_model::Wanted;

/// Whom a group without an entry goes to: VAPs here and members elsewhere.
fn rest(w: &World) -> (Vec<u32>, Vec<String>) {
    receivers(w, "all")
}

fn none() -> (Vec<u32>, Vec<String>) {
    (vec![], vec![])
}

/// The changes of the data plane's groups, in order.
fn ops(seen: &[Seen]) -> Vec<String> {
    let f = |s: &Seen| match s {
        Seen::Op(Op::SetGroup(_, wanted, Receivers { vaps, members })) => {
            Some(format!("{wanted}: {}+{}", vaps.len(), members.len()))
        }
        Seen::Op(Op::RemoveGroup(_, wanted)) => Some(format!("-{wanted}")),
        _ => None,
    };
    seen.iter().filter_map(f).collect()
}

fn of_limits(f: Family, change: impl FnOnce(&mut Limits)) -> (World, u32) {
    started_with(f, |config| change(&mut config.limits))
}

fn refreshes(seen: &[Seen]) -> Vec<u32> {
    let f = |s: &Seen| match s {
        Seen::Heard(0, Heard::Membership(id, _, MembershipEvent::RefreshRequest)) => Some(*id),
        _ => None,
    };
    seen.iter().filter_map(f).collect()
}

#[test]
fn n9_a_vap_that_wants_more_than_is_kept_gets_all() {
    for (f, (one, two)) in BOTH.into_iter().zip([("239.1.2.3", "239.1.2.4"), ("ff15::1", "ff15::2")]) {
        let (mut w, _) = of_limits(f, |limits| limits.groups_per_vap = 1);
        pass(&mut w, Duration::from_secs(2));
        assert_eq!(told(&joins(&mut w, 1, one)), to_first(&[&format!("+{one}")]));
        let seen = joins(&mut w, 1, two);
        assert_eq!(told(&seen), to_first(&["+all"]));
        assert_eq!(rest(&w), (vec![1], vec![]), "and nobody else");
        assert_eq!(w.core.counters().groups_refused, 1);
        // In the entries of others' groups too.
        assert_eq!(told(&joins(&mut w, 2, "239.7.7.7")), to_first(&["+239.7.7.7"]));
        assert_eq!(receivers(&w, "239.7.7.7").0, [1, 2]);
        assert_eq!(receivers(&w, one).0, [1]);
        // It goes on wanting it.
        for _ in 0..3 {
            pass(&mut w, Duration::from_secs(200));
            for group in [one, two] {
                joins(&mut w, 1, group);
            }
            joins(&mut w, 2, "239.7.7.7");
        }
        assert_eq!(rest(&w).0, [1]);
        // There is room again: it is asked what else it wants.
        leaves(&mut w, 1, one);
        let seen = pass(&mut w, Duration::from_millis(2_200));
        assert_eq!(told(&seen), to_first(&[&format!("-{one}")]));
        assert_eq!(queries(&seen).iter().filter(|q| **q == (1, None)).count(), 2, "IPv4 and IPv6");
        assert_eq!(rest(&w).0, [1], "not before it has answered");
        assert_eq!(told(&joins(&mut w, 1, two)), to_first(&[&format!("+{two}")]));
        let seen = pass(&mut w, Duration::from_secs(4));
        assert_eq!((told(&seen), rest(&w)), (to_first(&["-all"]), none()));
        assert_eq!((receivers(&w, "239.7.7.7").0, receivers(&w, two).0), (vec![2], vec![1]));
    }
}

#[test]
fn n9_a_vap_that_leaves_what_was_not_kept_is_narrowed_soon() {
    let (mut w, _) = of_limits(V4, |limits| limits.groups_per_vap = 1);
    pass(&mut w, Duration::from_secs(2));
    for group in GROUPS {
        joins(&mut w, 1, group);
    }
    leaves(&mut w, 1, GROUPS[1]);
    assert_eq!(rest(&w).0, [1], "others at the VAP may want it, or more");
    let seen = pass(&mut w, Duration::from_secs(2));
    assert_eq!(queries(&seen).len(), 4);
    // Somebody does.
    joins(&mut w, 1, GROUPS[1]);
    pass(&mut w, Duration::from_secs(10));
    assert_eq!(rest(&w).0, [1]);
    leaves(&mut w, 1, GROUPS[1]);
    assert_eq!(told(&pass(&mut w, Duration::from_secs(5))), to_first(&["-all"]));
    assert_eq!((rest(&w), receivers(&w, GROUPS[0]).0), (none(), vec![1]));
    // Left and wanted in turn it is asked about once a while.
    let mut asked = 0;
    for _ in 0..50 {
        joins(&mut w, 1, GROUPS[1]);
        asked += queries(&leaves(&mut w, 1, GROUPS[1])).len();
        asked += queries(&pass(&mut w, Duration::from_millis(10))).len();
    }
    assert!(asked <= 4, "{asked}");
}

#[test]
fn n9_who_says_nothing_more_of_what_was_not_kept_is_narrowed() {
    let (mut w, _) = of_limits(V4, |limits| limits.groups_per_vap = 1);
    for group in GROUPS {
        joins(&mut w, 1, group);
    }
    for _ in 0..2 {
        pass(&mut w, Duration::from_secs(129));
        joins(&mut w, 1, GROUPS[0]);
        assert_eq!(rest(&w).0, [1]);
    }
    assert_eq!(told(&pass(&mut w, Duration::from_secs(3))), to_first(&["-all"]));
    assert_eq!((rest(&w), receivers(&w, GROUPS[0]).0), (none(), vec![1]));
    // So is one that is gone, and the Oracle is told on a new session while it is not.
    joins(&mut w, 1, GROUPS[1]);
    w.session(0, Session::Down);
    let seen = w.session(0, Session::Up);
    assert_eq!(told(&seen), to_first(&["begin", "+all", "+239.1.2.3", "end"]));
    let says = |s: &Seen| matches!(s, Seen::Heard(0, Heard::NamesGroups));
    assert!(
        position(&seen, says) < position(&seen, |s| matches!(s, Seen::Heard(0, Heard::Registered { .. })))
    );
    w.core.handle_device_gone(w.now, weft_datapath::IfIndex(1));
    w.seen();
    assert!(w.tables.groups.is_empty());
}

#[test]
fn n9_more_groups_than_an_nve_may_name_are_all() {
    let (mut w, _) = of_limits(V4, |limits| limits.groups_per_vn = 1);
    pass(&mut w, Duration::from_secs(2));
    joins(&mut w, 1, GROUPS[0]);
    assert_eq!(told(&joins(&mut w, 2, GROUPS[1])), to_first(&["+all"]));
    assert_eq!((rest(&w).0, receivers(&w, GROUPS[0]).0), (vec![2], vec![1, 2]));
    assert_eq!(told(&joins(&mut w, 2, GROUPS[0])), [], "what others want takes no room");
    // Another VAP's leave makes room.
    leaves(&mut w, 1, GROUPS[0]);
    leaves(&mut w, 2, GROUPS[0]);
    let seen = pass(&mut w, Duration::from_secs(3));
    assert_eq!(told(&seen), to_first(&["-239.1.2.3"]));
    assert!(queries(&seen).contains(&(2, None)));
    joins(&mut w, 2, GROUPS[1]);
    assert_eq!(told(&pass(&mut w, Duration::from_secs(4))), to_first(&["-all"]));
    assert_eq!((rest(&w), receivers(&w, GROUPS[1]).0), (none(), vec![2]));
}

#[test]
fn n9_a_group_without_room_for_an_entry_goes_to_everybody() {
    for per_vn in [true, false] {
        let (mut w, _) = of_limits(V6, |limits| match per_vn {
            true => limits.group_entries_per_vn = 1,
            false => limits.group_entries = 1,
        });
        joins(&mut w, 1, GROUPS[0]);
        let seen = joins(&mut w, 1, GROUPS[1]);
        assert_eq!(told(&seen), to_first(&["+ff15::1"]), "others can tell it apart");
        assert_eq!(ops(&seen), ["all: 2+2"], "its own entry is left out");
        adds(&mut w, 0, 2, "239.5.5.5");
        assert_eq!((w.tables.groups.len(), w.core.counters().groups_to_all), (2, 2));
        member_says(&mut w, 0, MembershipEvent::Add { site_id: 4, rloc: rloc(V6, 4).get() });
        assert_eq!((rest(&w).1.len(), receivers(&w, GROUPS[0])), (3, (vec![1], vec![])));
        // There is room for one, then for the other: put before the rest is narrowed.
        leaves(&mut w, 1, GROUPS[0]);
        let seen = pass(&mut w, Duration::from_secs(3));
        assert_eq!(ops(&seen), ["-239.1.2.3", "239.5.5.5: 0+1"]);
        leaves(&mut w, 1, GROUPS[1]);
        let seen = pass(&mut w, Duration::from_secs(3));
        assert_eq!(ops(&seen), ["-all"]);
        joins(&mut w, 2, GROUPS[1]);
        let group = "239.5.5.5".parse().unwrap();
        group_says(&mut w, 0, GroupEvent::Remove { site_id: 2, group });
        assert_eq!((rest(&w), receivers(&w, GROUPS[1]).0), (none(), vec![2]));
        assert_eq!(w.tables.groups.len(), 1);
    }
}

#[test]
fn n9_a_member_of_whom_not_all_was_kept_gets_all() {
    for f in BOTH {
        let (mut w, request_id) = of_limits(f, |limits| limits.member_groups = 1);
        let at = |n| vec![rloc(f, n).to_string()];
        adds(&mut w, 0, 2, GROUPS[0]);
        adds(&mut w, 0, 3, GROUPS[1]);
        assert_eq!(w.core.counters().groups_refused, 1);
        assert_eq!((rest(&w), receivers(&w, GROUPS[0]).1.len()), ((vec![], at(3)), 2));
        // Asked again when there is room, and only then.
        assert_eq!(refreshes(&pass(&mut w, Duration::from_secs(100))), [0; 0]);
        group_says(&mut w, 0, GroupEvent::Remove { site_id: 2, group: GROUPS[0].parse().unwrap() });
        assert_eq!(rest(&w).1, at(3), "which ones is not known");
        let asked = refreshes(&pass(&mut w, Duration::from_secs(31)));
        let [asked] = asked[..] else { panic!("{asked:?}") };
        assert_ne!(asked, request_id);
        member_says(&mut w, 0, MembershipEvent::RefreshBegin { request_id: asked });
        for n in [2, 3] {
            let rloc = rloc(f, n).get();
            member_says(&mut w, 0, MembershipEvent::Add { site_id: n.into(), rloc });
        }
        adds(&mut w, 0, 3, GROUPS[1]);
        assert_eq!(rest(&w).1, at(3), "not before its end");
        member_says(&mut w, 0, MembershipEvent::RefreshEnd { request_id: asked });
        assert_eq!((rest(&w), receivers(&w, GROUPS[1]).1), (none(), at(3)));
        assert_eq!(refreshes(&pass(&mut w, Duration::from_secs(100))), [0; 0]);
    }
}

#[test]
fn n9_what_an_earlier_snapshot_named_takes_no_room() {
    let (mut w, request_id) = of_limits(V4, |limits| limits.member_groups = 1);
    adds(&mut w, 0, 2, GROUPS[0]);
    member_says(&mut w, 0, MembershipEvent::RefreshBegin { request_id });
    for n in [2, 3] {
        member_says(&mut w, 0, MembershipEvent::Add { site_id: n.into(), rloc: rloc(V4, n).get() });
    }
    adds(&mut w, 0, 3, GROUPS[1]);
    assert_eq!(receivers(&w, GROUPS[0]).1.len(), 1, "until its end");
    assert_eq!(receivers(&w, GROUPS[1]).1.len(), 1);
    assert_eq!((rest(&w), w.core.counters().groups_refused), (none(), 0));
    member_says(&mut w, 0, MembershipEvent::RefreshEnd { request_id });
    assert_eq!((receivers(&w, GROUPS[0]), receivers(&w, GROUPS[1]).1.len()), (none(), 1));
    // What one names too much is lost, and known to be.
    member_says(&mut w, 0, MembershipEvent::RefreshBegin { request_id });
    for n in [2, 3] {
        member_says(&mut w, 0, MembershipEvent::Add { site_id: n.into(), rloc: rloc(V4, n).get() });
        adds(&mut w, 0, n.into(), GROUPS[0]);
    }
    member_says(&mut w, 0, MembershipEvent::RefreshEnd { request_id });
    assert_eq!((rest(&w).1, receivers(&w, GROUPS[0]).1.len()), (vec!["192.0.2.3".to_owned()], 2));
}

#[test]
fn n9_a_member_that_wants_all_gets_all_alone() {
    for f in BOTH {
        let (mut w, _) = started(f);
        joins(&mut w, 1, GROUPS[0]);
        group_says(&mut w, 0, GroupEvent::AddAll { site_id: 2 });
        let at = vec![rloc(f, 2).to_string()];
        assert_eq!((rest(&w), receivers(&w, GROUPS[0])), ((vec![], at.clone()), (vec![1], at.clone())));
        adds(&mut w, 0, 3, GROUPS[1]);
        assert_eq!(receivers(&w, GROUPS[1]).1.len(), 2);
        group_says(&mut w, 0, GroupEvent::RemoveAll { site_id: 2 });
        assert_eq!(rest(&w), none());
        assert_eq!(receivers(&w, GROUPS[1]).1, [rloc(f, 3).to_string()]);
        assert_eq!(receivers(&w, GROUPS[0]), (vec![1], vec![]));
    }
}

#[test]
fn n9_more_members_that_want_all_than_are_kept_are_everybody() {
    let (mut w, _) = of_limits(V4, |limits| {
        limits.members = 2;
        limits.member_groups = 1;
    });
    // Whose RLOCs are not known yet, and some that have none.
    for site_id in [11, 12, 13, 14, 3] {
        group_says(&mut w, 0, GroupEvent::AddAll { site_id });
    }
    assert_eq!(rest(&w).1, ["192.0.2.2", "192.0.2.3"]);
}

#[test]
fn a_restarted_agent_takes_over_who_gets_all() {
    let (mut old, _) = of_limits(V4, |limits| limits.groups_per_vap = 1);
    for group in GROUPS {
        joins(&mut old, 1, group);
    }
    joins(&mut old, 2, "239.7.7.7");
    group_says(&mut old, 0, GroupEvent::AddAll { site_id: 2 });
    assert_eq!(receivers(&old, "239.7.7.7").0, [1, 2]);
    let mut w = World::with(V4, |config| config.limits.groups_per_vap = 1);
    w.core.remember(vec![spec()], Default::default(), &Default::default());
    w.core.restore(w.now, old.core.attachments(), &[device(1), device(2)]);
    w.core.adopt(w.now, vec![replicating()], &old.tables);
    w.seen();
    // Who gets all stands in every entry, so what it asked for by name is not to be told from that.
    for wanted in [Wanted::All, "239.7.7.7".parse().unwrap()] {
        let key = (vni(), wanted);
        assert_eq!(w.tables.groups[&key], old.tables.groups[&key]);
    }
    let seen = w.session(0, Session::Up);
    assert_eq!(told(&seen), to_first(&["begin", "+all", "+239.7.7.7", "end"]));
    let frame = registered(&seen)[0].1;
    let request_id = subscribed(&w.ack(0, frame, mac(1)));
    assert_eq!(told(&joins(&mut w, 1, GROUPS[0])), to_first(&["+239.1.2.3"]), "there is room for it");
    member_says(&mut w, 0, MembershipEvent::RefreshBegin { request_id });
    member_says(&mut w, 0, MembershipEvent::Add { site_id: 2, rloc: rloc(V4, 2).get() });
    assert_eq!(rest(&w).1, ["192.0.2.2"]);
    member_says(&mut w, 0, MembershipEvent::RefreshEnd { request_id });
    assert_eq!(rest(&w), (vec![1], vec![]));
    // Nothing more is wanted than that: known as soon as both have had time to answer.
    let seen = pass(&mut w, Duration::from_millis(3_900));
    assert_eq!((told(&seen), queries(&seen).len()), (vec![], 2 * 2 * 2));
    joins(&mut w, 2, "239.7.7.7");
    assert_eq!(told(&pass(&mut w, Duration::from_millis(200))), to_first(&["-all"]));
    assert_eq!((rest(&w), receivers(&w, GROUPS[0]).0), (none(), vec![1]));
    assert_eq!(receivers(&w, "239.7.7.7"), (vec![2], vec![]));
}

/// Where a group had no entry everybody was sent it: none of them asked for all.
#[test]
fn a_restarted_agent_knows_soon_who_got_all_for_want_of_room() {
    let (mut old, _) = of_limits(V4, |limits| limits.group_entries_per_vn = 1);
    joins(&mut old, 1, GROUPS[0]);
    joins(&mut old, 2, GROUPS[1]);
    assert_eq!(rest(&old).0, [1, 2]);
    let mut w = World::with(V4, |config| {
        config.limits.group_entries_per_vn = 1;
        config.limits.groups_per_vap = 1;
    });
    w.core.remember(vec![replicating()], Default::default(), &old.tables);
    w.core.restore(w.now, old.core.attachments(), &[device(1), device(2)]);
    w.core.adopt(w.now, vec![replicating()], &old.tables);
    w.seen();
    assert!(told(&w.session(0, Session::Up)).contains(&(0, "+all".to_owned())), "they may have");
    pass(&mut w, Duration::from_secs(2));
    joins(&mut w, 1, GROUPS[0]);
    joins(&mut w, 2, GROUPS[1]);
    pass(&mut w, Duration::from_millis(1_900));
    assert_eq!(rest(&w).0, [1, 2], "not before they have had time to answer");
    let seen = w.session(0, Session::Down);
    assert_eq!(told(&seen), []);
    pass(&mut w, Duration::from_millis(200));
    let seen = told(&w.session(0, Session::Up));
    assert!(!seen.contains(&(0, "+all".to_owned())), "{seen:?}");
    assert_eq!(rest(&w).0, [1, 2], "one group still finds no room");
    // One that wants more than is kept of it goes on getting all.
    joins(&mut w, 1, GROUPS[1]);
    pass(&mut w, Duration::from_secs(10));
    w.session(0, Session::Down);
    assert!(told(&w.session(0, Session::Up)).contains(&(0, "+all".to_owned())));
}

/// An Oracle that has room again asks for a VN anew.
#[test]
fn n9_a_vn_that_is_asked_for_again_is_told_with_its_groups() {
    let (mut w, _) = started(V4);
    joins(&mut w, 1, GROUPS[0]);
    let seen = w.hears(0, &super::session::refresh(Some(VNI)));
    assert_eq!(told(&seen), to_first(&["begin", "+239.1.2.3", "end"]));
    assert_eq!(registered(&seen).len(), 2);
}
