//! Requirements M3, N7 and Ld: all mappings of a VN, as an Oracle pushes them.

use super::super::{Fact, Session};
use super::oracle::{self, Heard, Rec};
use super::world::*;
use ::core::time::Duration;
use weft_datapath::{Location, Neighbour};
use weft_lisp::tcp::{Body, MembershipEvent, Signal, SubscribeError};
use weft_model::{Bum, Eid, Learning, Origin, Time, VnSpec, digest::Digest};

fn distributing() -> VnSpec {
    VnSpec { learning: Learning::Distribute, ..spec() }
}

fn fact(w: &mut World, vn: VnSpec) -> Vec<Seen> {
    w.core.handle_fact(Fact::Vn(vn));
    w.seen()
}

fn heard(seen: &[Seen]) -> Vec<(usize, u32, Signal)> {
    let f = |s: &Seen| match s {
        Seen::Heard(oracle, Heard::Mappings(id, signal)) => Some((*oracle, *id, *signal)),
        _ => None,
    };
    seen.iter().filter_map(f).collect()
}

/// The one subscription in `seen`: its frame's ID and what it says is held.
#[track_caller]
fn subscribed(seen: &[Seen], at: usize) -> (u32, Digest) {
    match heard(seen)[..] {
        [(oracle, id, Signal::SubscribeMappings { vni: VNI, count, digest: sum })] if oracle == at => {
            (id, Digest { count, sum })
        }
        _ => panic!("{seen:?}"),
    }
}

fn begin(w: &mut World, at: usize, id: u32) {
    w.hears(at, &oracle::frame(&Body::Signal(Signal::MappingsBegin { vni: VNI }), id));
}

fn marker(w: &mut World, at: usize, id: u32, Digest { count, sum }: Digest) -> Vec<Seen> {
    let signal = Signal::MappingsMarker { vni: VNI, count, digest: sum };
    w.hears(at, &oracle::frame(&Body::Signal(signal), id))
}

/// The records of tenant system `n` at node `at`.
fn records(w: &World, n: u32, at: u8) -> [Rec; 3] {
    let at = Rec::At(mac(n), rloc(w.family, at), 5);
    [at, Rec::Owner(ip(V4, n), mac(n), 5), Rec::Owner(ip(V6, n), mac(n), 5)]
}

fn push(w: &mut World, at: usize, recs: &[Rec]) -> Vec<Seen> {
    let all: Vec<u8> = recs.iter().flat_map(|rec| oracle::pushed(*rec)).collect();
    w.hears(at, &all)
}

fn way(w: &World, n: u32) -> Option<String> {
    let Some(Neighbour::At(found)) = w.tables.neighbours.get(&(vni(), ip(w.family, n))) else { return None };
    match w.tables.fdb.get(&(vni(), *found)) {
        Some(Location::Remote { rloc, .. }) => Some(rloc.to_string()),
        _ => None,
    }
}

fn at(w: &World, n: u8) -> Option<String> {
    Some(rloc(w.family, n).to_string())
}

/// With a complete table: TSI 1 here, 20 and 21 at node 2, 30 at node 3. Also the ID of the subscription.
fn complete(f: Family) -> (World, u32, Vec<Rec>) {
    let mut w = World::started(f, &["a"]);
    let (id, held) = subscribed(&fact(&mut w, distributing()), 0);
    assert_eq!(held, Digest::default());
    let all = [(1, 1), (20, 2), (21, 2), (30, 3)].map(|(n, node)| records(&w, n, node)).concat();
    begin(&mut w, 0, id);
    push(&mut w, 0, &all);
    assert_eq!(heard(&marker(&mut w, 0, id, oracle::digest(&all))), []);
    (w, id, all)
}

#[test]
fn m3_a_snapshot_fills_the_tables_and_nothing_is_asked() {
    for f in BOTH {
        let (mut w, _, all) = complete(f);
        for (n, node) in [(20, 2), (21, 2), (30, 3)] {
            assert_eq!(way(&w, n), at(&w, node));
        }
        assert!(w.core.cache().all(|e| (e.origin, e.expires) == (Origin::Push, Time::NEVER)));
        assert_eq!(w.core.cache().count(), 9, "its own are its own");
        assert_eq!(w.core.pushed_digest(vni()), oracle::digest(&all), "but the digest is over all");
        let seen = w.passes(Duration::from_secs(3600));
        assert!(seen.iter().all(|(_, s)| matches!(s, Seen::Heard(0, Heard::Digest(..)))), "{seen:?}");
        assert_eq!(way(&w, 20), at(&w, 2));
        assert!(injects(&w.asks(1, ip(f, 20), false)).contains(&(1, mac(20))), "a hit");
    }
}

#[test]
fn m3_changes_are_followed_in_their_order() {
    let (mut w, id, _) = complete(V4);
    // Whatever its version: the session keeps order.
    push(&mut w, 0, &[Rec::At(mac(20), rloc(V4, 3), 4)]);
    assert_eq!(way(&w, 20), at(&w, 3));
    push(&mut w, 0, &[Rec::Gone(mac(21).into()), Rec::Gone(ip(V4, 21).into()), Rec::Gone(ip(V6, 21).into())]);
    assert_eq!(way(&w, 21), None);
    let new = records(&w, 22, 2);
    push(&mut w, 0, &new);
    assert_eq!(way(&w, 22), at(&w, 2));
    let mut all = [(1, 1), (20, 2), (22, 2), (30, 3)].map(|(n, node)| records(&w, n, node)).concat();
    all[3] = Rec::At(mac(20), rloc(V4, 3), 4);
    assert_eq!(heard(&marker(&mut w, 0, id, oracle::digest(&all))), []);
    assert_eq!(w.core.counters().digest_mismatches, 0);
}

#[test]
fn m3_only_the_marker_of_a_snapshot_removes() {
    let (mut w, id, all) = complete(V4);
    w.session(0, Session::Down);
    assert_eq!(way(&w, 20), at(&w, 2), "fail-static");
    let frame = registered(&w.session(0, Session::Up))[0].1;
    let (again, held) = subscribed(&w.ack(0, frame, mac(1)), 0);
    assert_eq!(held, oracle::digest(&all));
    begin(&mut w, 0, id);
    marker(&mut w, 0, id, Digest::default());
    assert_eq!(way(&w, 20), at(&w, 2), "of another subscription");
    begin(&mut w, 0, again);
    let left = [records(&w, 1, 1), records(&w, 20, 3)].concat();
    push(&mut w, 0, &left);
    assert_eq!((way(&w, 20), way(&w, 21)), (at(&w, 3), at(&w, 2)));
    assert_eq!(heard(&marker(&mut w, 0, again, oracle::digest(&left))), []);
    assert_eq!((way(&w, 20), way(&w, 21), way(&w, 30)), (at(&w, 3), None, None));
}

#[test]
fn m3_an_unchanged_table_is_confirmed_by_one_frame() {
    let (mut w, _, all) = complete(V6);
    w.session(0, Session::Down);
    let frame = registered(&w.session(1, Session::Up))[0].1;
    let (id, held) = subscribed(&w.ack(1, frame, mac(1)), 1);
    assert_eq!(held, oracle::digest(&all));
    assert_eq!(heard(&marker(&mut w, 1, id, held)), []);
    assert_eq!(way(&w, 20), at(&w, 2));
    assert_eq!(w.core.cache().count(), 9);
}

#[test]
fn a_gap_is_noticed_and_asked_for_again_but_not_at_once() {
    let (mut w, id, _) = complete(V4);
    assert_eq!(heard(&marker(&mut w, 0, id, Digest { count: 1, sum: 2 })), []);
    assert_eq!(way(&w, 20), at(&w, 2), "nothing is removed by that");
    let seen: Vec<Seen> = w.passes(Duration::from_secs(31)).into_iter().map(|(_, s)| s).collect();
    let (again, _) = subscribed(&seen, 0);
    begin(&mut w, 0, again);
    let moved = records(&w, 20, 3);
    push(&mut w, 0, &moved);
    marker(&mut w, 0, again, oracle::digest(&moved));
    assert_eq!((way(&w, 20), way(&w, 21)), (at(&w, 3), None));
    // When the last time is long enough ago it is asked for at once.
    w.passes(Duration::from_secs(31));
    subscribed(&marker(&mut w, 0, again, Digest { count: 1, sum: 2 }), 0);
}

#[test]
fn n9_members_do_not_wait_for_a_gap_to_be_asked_for() {
    for f in BOTH {
        let (mut w, id, _) = complete(f);
        assert_eq!(heard(&marker(&mut w, 0, id, Digest { count: 1, sum: 2 })), []);
        let seen = fact(&mut w, VnSpec { bum: Bum::Replicate, ..distributing() });
        assert_eq!(heard(&seen), [], "not before its time");
        let member =
            |s: &Seen| matches!(s, Seen::Heard(0, Heard::Membership(_, _, MembershipEvent::Subscribe)));
        assert_eq!(seen.iter().filter(|s| member(s)).count(), 1, "{seen:?}");
        let seen: Vec<Seen> = w.passes(Duration::from_secs(31)).into_iter().map(|(_, s)| s).collect();
        subscribed(&seen, 0);
        assert!(!seen.iter().any(member), "once");
    }
}

#[test]
fn what_is_pushed_is_the_last_word() {
    let (mut w, _, _) = complete(V4);
    w.session(1, Session::Up);
    // Another Oracle, or a late answer, knows it otherwise.
    w.hears(1, &oracle::notification(Rec::Gone(mac(20).into())));
    w.hears(1, &oracle::notification(Rec::At(mac(20), rloc(V4, 9), 9)));
    assert_eq!(way(&w, 20), at(&w, 2));
    // Without a subscription what is newer counts, until all is pushed anew.
    w.session(0, Session::Down);
    w.hears(1, &oracle::notification(Rec::At(mac(20), rloc(V4, 8), 4)));
    assert_eq!(way(&w, 20), at(&w, 2));
    w.hears(1, &oracle::notification(Rec::At(mac(20), rloc(V4, 9), 6)));
    assert_eq!(way(&w, 20), at(&w, 9));
}

#[test]
fn to_and_from_a_vn_that_is_asked_about() {
    for f in BOTH {
        let mut w = World::started(f, &["a"]);
        w.knows(20, 2, 5);
        w.knows(40, 4, 5);
        let (id, _) = subscribed(&fact(&mut w, distributing()), 0);
        begin(&mut w, 0, id);
        let all = [records(&w, 1, 1), records(&w, 20, 2), records(&w, 21, 2)].concat();
        push(&mut w, 0, &all);
        assert_eq!(way(&w, 40), at(&w, 4));
        marker(&mut w, 0, id, oracle::digest(&all));
        assert_eq!((way(&w, 20), way(&w, 21), way(&w, 40)), (at(&w, 2), at(&w, 2), None));
        assert!(w.core.cache().all(|e| e.origin == Origin::Push));
        let seen = fact(&mut w, spec());
        assert!(matches!(heard(&seen)[..], [(0, _, Signal::UnsubscribeMappings { vni: VNI })]), "{seen:?}");
        assert_eq!((way(&w, 20), way(&w, 21)), (at(&w, 2), at(&w, 2)), "established mappings are kept");
        assert!(w.core.cache().all(|e| e.origin == Origin::Notify && e.expires != Time::NEVER));
        // They are asked for one after another, so that the Oracle knows who holds them.
        let seen: Vec<Seen> = w.passes(Duration::from_millis(150)).into_iter().map(|(_, s)| s).collect();
        let mut eids: Vec<Eid> = asked(&seen).into_iter().map(|a| a.eid).collect();
        eids.sort();
        eids.dedup();
        assert_eq!(eids.len(), 6);
    }
}

#[test]
fn what_a_vn_was_last_is_kept_for_the_next_start() {
    let mut w = World::started(V4, &["a"]);
    let saved = |seen: &[Seen]| seen.iter().filter(|s| matches!(s, Seen::Persist(_))).count();
    assert_eq!(saved(&fact(&mut w, spec())), 0, "no news");
    assert_eq!(saved(&fact(&mut w, distributing())), 1);
}

#[test]
fn who_has_nobody_in_service_holds_nothing() {
    let (mut w, _, _) = complete(V4);
    w.core.handle_device_gone(w.now, device(1).index);
    let seen = w.seen();
    assert!(matches!(heard(&seen)[..], [(0, _, Signal::UnsubscribeMappings { .. })]), "{seen:?}");
    assert_eq!(w.core.cache().count(), 0);
    assert!(w.tables.fdb.is_empty() && w.tables.neighbours.is_empty());
}

#[test]
fn a_refusal_is_waited_out() {
    let mut w = World::started(V4, &["a"]);
    let (id, _) = subscribed(&fact(&mut w, distributing()), 0);
    let refused = Signal::MappingsRefused { vni: VNI, error: SubscribeError::NotEnabled };
    assert_eq!(heard(&w.hears(0, &oracle::frame(&Body::Signal(refused), id))), []);
    let later: Vec<Seen> = w.passes(Duration::from_secs(6)).into_iter().map(|(_, s)| s).collect();
    subscribed(&later, 0);
}

#[test]
fn more_than_there_is_room_for() {
    let mut w = World::with(V4, |config| config.limits.cache = 2);
    w.session(0, Session::Up);
    w.attach_all(&["a"]);
    let (id, _) = subscribed(&fact(&mut w, distributing()), 0);
    begin(&mut w, 0, id);
    let all = [records(&w, 20, 2), records(&w, 21, 2)].concat();
    push(&mut w, 0, &all);
    assert_eq!(w.core.cache().count(), 2);
    assert_eq!(heard(&marker(&mut w, 0, id, oracle::digest(&all))), []);
    let later = w.passes(Duration::from_secs(100));
    assert!(
        later.iter().all(|(_, s)| !matches!(s, Seen::Heard(_, Heard::Mappings(..)))),
        "not over and over"
    );
}

#[test]
fn a_restarted_agent_keeps_what_it_finds_until_all_is_pushed() {
    let (old, _, all) = complete(V4);
    let mut w = World::new(V4);
    w.core.remember(vec![spec()], Default::default(), &Default::default());
    w.core.restore(w.now, old.core.attachments(), &[device(1)]);
    w.core.adopt(w.now, vec![distributing()], &old.tables);
    w.seen();
    let later = w.passes(Duration::from_secs(3600));
    assert_eq!(later, [], "no refresh");
    assert_eq!(way(&w, 20), at(&w, 2));
    let frame = registered(&w.session(0, Session::Up))[0].1;
    let (id, held) = subscribed(&w.ack(0, frame, mac(1)), 0);
    assert_eq!(held, Digest::default(), "it cannot know the digest");
    begin(&mut w, 0, id);
    push(&mut w, 0, &all[..6]);
    marker(&mut w, 0, id, oracle::digest(&all[..6]));
    assert_eq!((way(&w, 20), way(&w, 21)), (at(&w, 2), None));
}
