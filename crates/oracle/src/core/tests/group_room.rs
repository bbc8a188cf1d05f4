//! Requirement N9: who wants more multicast groups than are named, or names none, is said to want all.

use weft_lisp::tcp::{GroupEvent, MembershipEvent};

use super::groups::{GROUPS, add, bench_of, held, remove, said};
use super::*;
use crate::core::members::site_id;

fn all(n: u8, sign: char) -> String {
    format!("{} {sign}all", site_id(nve(n)))
}

fn end(bench: &mut Bench, session: u64) {
    bench.signal(session, Signal::EndOfRegistration { count: 0, digest: 0 });
}

/// NVEs 1 to 3 as of [`bench_of`], all of which name their groups and have registered all; 1 is subscribed.
fn naming(limits: Limits) -> Bench {
    let mut bench = bench_of(limits);
    for n in 1..=3 {
        bench.signal(n, Signal::NamesGroups);
        end(&mut bench, n);
    }
    bench.membership(1, 1, MembershipEvent::Subscribe);
    assert_eq!(said(&mut bench, 1), ["ack", "begin", "+192.0.2.2", "+192.0.2.3", "end"]);
    bench
}

#[test]
fn n9_who_names_more_than_is_kept_wants_all_until_it_is_kept() {
    for (kept, lost) in [(GROUPS[0], GROUPS[1]), (GROUPS[1], GROUPS[0])] {
        let mut bench = naming(Limits { groups_per_member: 1, ..Limits::default() });
        add(&mut bench, 2, kept);
        said(&mut bench, 1);
        add(&mut bench, 2, lost);
        assert_eq!((said(&mut bench, 1), bench.shard.counters().groups_refused), (vec![all(2, '+')], 1));
        add(&mut bench, 2, lost);
        assert_eq!(said(&mut bench, 1), [""; 0], "that is known");
        // In a snapshot too.
        bench.membership(1, 1, MembershipEvent::RefreshRequest);
        let snapshot = said(&mut bench, 1);
        assert!(snapshot.contains(&all(2, '+')) && !snapshot.contains(&all(3, '+')), "{snapshot:?}");
        // There is room: it is asked which ones they were, with all else of the VN.
        remove(&mut bench, 2, kept);
        let sent = bench.sent();
        assert!(sent.contains(&Sent::Refresh { session: 2 }), "{sent:?}");
        bench.group(2, 1, GroupEvent::Begin);
        add(&mut bench, 2, lost);
        assert_eq!(said(&mut bench, 1), [format!("{} +{lost}", site_id(nve(2)))], "not before the end");
        bench.group(2, 1, GroupEvent::End);
        assert_eq!((said(&mut bench, 1), held(&bench, 2)), (vec![all(2, '-')], vec![lost.to_owned()]));
        // Naming that names too many is no end of it.
        bench.group(2, 1, GroupEvent::Begin);
        for group in GROUPS {
            add(&mut bench, 2, group);
        }
        bench.group(2, 1, GroupEvent::End);
        assert!(said(&mut bench, 1).contains(&all(2, '+')));
    }
}

/// The question falls into the time in which none is asked, or the answer does not come.
#[test]
fn n9_what_found_no_room_is_asked_for_more_than_once_and_not_for_ever() {
    let asked = |bench: &mut Bench, span| {
        bench.sent();
        bench.pass(Duration::from_secs(span));
        bench.sent().into_iter().filter(|sent| *sent == Sent::Refresh { session: 2 }).count()
    };
    let mut bench = naming(Limits { groups_per_member: 1, ..Limits::default() });
    add(&mut bench, 2, GROUPS[0]);
    add(&mut bench, 2, GROUPS[1]);
    // Something else was asked for just before.
    bench.signal(2, Signal::VnDigest { vni: 1, count: 9, digest: 9 });
    assert!(bench.sent().contains(&Sent::Refresh { session: 2 }));
    remove(&mut bench, 2, GROUPS[0]);
    assert!(!bench.sent().contains(&Sent::Refresh { session: 2 }), "one is under way");
    assert_eq!(asked(&mut bench, 11), 1);
    assert_eq!(asked(&mut bench, 300), 2, "and no more often, whoever does not answer");
    // Each reason is one to ask so often, however many come together.
    for _ in 0..50 {
        remove(&mut bench, 2, GROUPS[0]);
    }
    assert_eq!(asked(&mut bench, 300), 3);
    // Once it has answered it is not asked any more.
    remove(&mut bench, 2, GROUPS[0]);
    bench.group(2, 1, GroupEvent::Begin);
    add(&mut bench, 2, GROUPS[1]);
    bench.group(2, 1, GroupEvent::End);
    assert_eq!((asked(&mut bench, 300), held(&bench, 2)), (0, vec![GROUPS[1].to_owned()]));
}

#[test]
fn n9_who_says_that_it_wants_all_does_until_it_says_otherwise() {
    let mut bench = naming(Limits::default());
    let site_id = 0;
    bench.group(2, 1, GroupEvent::AddAll { site_id });
    assert_eq!(said(&mut bench, 1), [all(2, '+')]);
    bench.group(2, 1, GroupEvent::RemoveAll { site_id });
    assert_eq!(said(&mut bench, 1), [all(2, '-')]);
    assert!(bench.shard.receivers.is_empty());
    bench.group(2, 1, GroupEvent::AddAll { site_id });
    said(&mut bench, 1);
    // A new session says what there is.
    bench.down(2);
    bench.up(9, 2);
    bench.signal(9, Signal::NamesGroups);
    bench.register(9, 2, 1, 2, ACTIVE);
    bench.group(9, 1, GroupEvent::Begin);
    bench.group(9, 1, GroupEvent::AddAll { site_id });
    bench.group(9, 1, GroupEvent::End);
    end(&mut bench, 9);
    assert_eq!(said(&mut bench, 1), [""; 0]);
    bench.group(9, 1, GroupEvent::Begin);
    bench.group(9, 1, GroupEvent::End);
    assert_eq!(said(&mut bench, 1), [all(2, '-')]);
    // Whoever has no part in the VN says nothing of it, and what it said is gone with its part.
    bench.group(9, 3, GroupEvent::AddAll { site_id });
    assert_eq!(bench.shard.counters().groups_refused, 1);
    bench.group(9, 1, GroupEvent::AddAll { site_id });
    bench.fact(Fact::GrantGone(tsi(1, 2)));
    assert!(bench.shard.receivers.is_empty());
}

#[test]
fn n9_who_names_no_groups_wants_all() {
    let mut bench = bench_of(Limits::default());
    // 3 is an older one; so is 2, to begin with.
    for n in [1, 3] {
        end(&mut bench, n);
    }
    bench.signal(1, Signal::NamesGroups);
    end(&mut bench, 1);
    end(&mut bench, 2);
    bench.membership(1, 1, MembershipEvent::Subscribe);
    let snapshot = said(&mut bench, 1);
    assert!([2, 3].iter().all(|n| snapshot.contains(&all(*n, '+'))), "{snapshot:?}");
    // An older one would not understand.
    bench.membership(3, 1, MembershipEvent::Subscribe);
    assert_eq!(said(&mut bench, 3).len(), 5, "ack, begin, two members, end");
    // It is made newer: known when it has registered all there is.
    bench.down(2);
    bench.up(9, 2);
    bench.signal(9, Signal::NamesGroups);
    bench.register(9, 2, 1, 2, ACTIVE);
    bench.group(9, 1, GroupEvent::Begin);
    add(&mut bench, 9, GROUPS[0]);
    bench.group(9, 1, GroupEvent::End);
    assert_eq!(said(&mut bench, 1), [format!("{} +{}", site_id(nve(2)), GROUPS[0])]);
    end(&mut bench, 9);
    assert_eq!(said(&mut bench, 1), [all(2, '-')]);
    // It stays so while it has no session, and in the next until that has said all it has.
    bench.down(9);
    bench.up(10, 2);
    bench.register(10, 2, 1, 2, ACTIVE);
    assert_eq!(said(&mut bench, 1), [""; 0]);
    // An older version again.
    end(&mut bench, 10);
    let change = said(&mut bench, 1);
    assert_eq!(change, [all(2, '+'), format!("{} -{}", site_id(nve(2)), GROUPS[0])]);
}

#[test]
fn n9_a_new_member_wants_all_until_it_has_registered_all() {
    let mut bench = naming(Limits::default());
    for n in [4, 5] {
        bench.enroll(n);
        bench.grant(1, n, n);
        bench.up(n.into(), n);
        bench.signal(n.into(), Signal::NamesGroups);
    }
    bench.register(4, 4, 1, 4, ACTIVE);
    assert_eq!(said(&mut bench, 1), ["+192.0.2.4".to_owned(), all(4, '+')]);
    end(&mut bench, 4);
    assert_eq!(said(&mut bench, 1), [all(4, '-')]);
    // One that has named what it has is known to have nothing in a VN that it enters.
    end(&mut bench, 5);
    bench.register(5, 5, 1, 5, ACTIVE);
    assert_eq!(said(&mut bench, 1), ["+192.0.2.5"]);
    bench.withdraw(5, 5, 1, 5);
    assert_eq!(said(&mut bench, 1), ["-192.0.2.5"]);
}

#[test]
fn n10_a_dead_host_wants_nothing() {
    let mut bench = naming(Limits::default());
    bench.group(2, 1, GroupEvent::AddAll { site_id: 0 });
    said(&mut bench, 1);
    bench.answering = (1..=9).collect();
    bench.down(2);
    bench.pass(Duration::from_secs(2));
    assert_eq!(said(&mut bench, 1), [""; 0]);
    bench.pass(Duration::from_secs(3));
    let change = said(&mut bench, 1);
    assert!(change.contains(&all(2, '-')) && change.contains(&"-192.0.2.2".to_owned()), "{change:?}");
    assert!(bench.shard.receivers.is_empty());
    // What it wants when it is back is not known.
    bench.up(9, 2);
    bench.signal(9, Signal::NamesGroups);
    bench.register(9, 2, 1, 2, ACTIVE);
    assert!(said(&mut bench, 1).contains(&all(2, '+')));
    end(&mut bench, 9);
    assert_eq!(said(&mut bench, 1), [all(2, '-')]);
}
