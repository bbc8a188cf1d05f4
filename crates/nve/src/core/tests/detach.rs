//! Detaching, and devices that go and come back: requirements H5 and H8.

use super::super::{ApiCall, Held, Notice, Refused, Session, TsiState};
use super::oracle::Rec;
use super::world::*;
use ::core::time::Duration;
use weft_datapath::IfIndex;
use weft_model::Time;

fn detach(w: &mut World, tsi: &str, force: bool) -> (super::super::CallId, Vec<Seen>) {
    let call = w.call();
    w.core.handle_detach(call, red(), name(tsi), force);
    (call, w.seen())
}

#[test]
fn h5_released_first_then_withdrawn_and_forgotten() {
    for f in BOTH {
        let mut w = World::started(f, &["web"]);
        w.knows(50, 3, 1);
        w.asks(1, ip(f, 60), false);
        let (call, seen) = detach(&mut w, "web", false);
        assert_eq!(
            seen,
            [Seen::Call(ApiCall::Release { call, vn: red(), name: name("web"), held: Held::Granted })]
        );
        assert_eq!(w.tables.vaps.len(), 1, "traffic goes on until the grant is given back");

        w.core.handle_released(call, Ok(()));
        let seen = w.seen();
        assert_eq!(withdrawn(&seen), 1);
        let saved = position(&seen, |s| matches!(s, Seen::Persist(a) if a.is_empty()));
        let done = position(&seen, |s| *s == Seen::Detached(call, Ok(())));
        assert!(saved < done);
        // The last of its VN takes along all that was known of the VN.
        assert!(w.tables.vaps.is_empty() && w.tables.fdb.is_empty() && w.tables.neighbours.is_empty());
        assert_eq!((w.core.pending(), w.core.cache().count(), w.core.vns().count()), (0, 0, 0));
        let left: Vec<_> = w.core.timers.by_key.keys().collect();
        assert_eq!(left, [&super::super::Timer::Digest(0)]);
    }
}

#[test]
fn h5_a_late_notification_of_a_vn_that_was_left_changes_nothing() {
    let mut w = World::started(V4, &["web"]);
    w.knows(50, 3, 1);
    detach(&mut w, "web", true);
    w.core.handle_fact(super::super::Fact::Vn(spec()));
    w.seen();
    assert_eq!(w.notify(Rec::At(mac(50), rloc(V4, 4), 2)), []);
    assert_eq!(w.notify(Rec::Owner(ip(V4, 50), mac(50), 2)), []);
}

#[test]
fn h5_refused_detach_changes_nothing() {
    let mut w = World::started(V4, &["web"]);
    let before = w.tables.clone();
    let (call, _) = detach(&mut w, "web", false);
    assert!(matches!(detach(&mut w, "web", false).1[..], [Seen::Detached(_, Err(Refused::Busy { .. }))]));
    w.core.handle_released(call, Err(unanswered()));
    assert_eq!(w.seen(), [Seen::Detached(call, Err(unanswered()))]);
    assert_eq!(w.tables, before);
    let (call, _) = detach(&mut w, "web", false);
    w.core.handle_released(call, Err(oracle_says("not_found")));
    assert!(w.seen().contains(&Seen::Detached(call, Ok(()))), "what was asked for is so already");
}

#[test]
fn h5_not_attached() {
    let mut w = World::started(V4, &["web"]);
    for force in [false, true] {
        let (call, seen) = detach(&mut w, "db", force);
        let refused = Refused::NotAttached { vn: red(), name: name("db") };
        assert_eq!(seen, [Seen::Detached(call, Err(refused))]);
    }
}

#[test]
fn h5_force_lets_go_and_goes_on_giving_back() {
    let mut w = World::started(V4, &["web"]);
    let (call, seen) = detach(&mut w, "web", true);
    assert!(seen.contains(&Seen::Detached(call, Ok(()))));
    assert!(w.tables.vaps.is_empty());
    let mut release = releases(&seen)[0].0;
    // Not while it is being given back: the one must not take away what the other is given.
    w.attach(attach("web", 1));
    assert!(matches!(w.seen()[..], [Seen::Attached(_, Err(Refused::Busy { .. }))]));
    let mut waits = Vec::new();
    for _ in 0..8 {
        w.core.handle_released(release, Err(unanswered()));
        assert_eq!(w.seen(), []);
        let begun = w.now;
        let due = w.core.timers.by_time.iter().find(|(_, t)| matches!(t, super::super::Timer::Release(..)));
        let due: Time = due.unwrap().0;
        let seen: Vec<_> = w.passes(due.since(begun)).into_iter().map(|(_, s)| s).collect();
        waits.push(due.since(begun).as_millis());
        release = releases(&seen)[0].0;
    }
    assert_eq!(waits, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
    w.core.handle_released(release, Ok(()));
    assert_eq!(w.seen(), []);
    w.attached("web", 1);
}

#[test]
fn h5_attached_again_before_it_could_be_given_back() {
    let mut w = World::started(V4, &["web"]);
    let (_, seen) = detach(&mut w, "web", true);
    w.core.handle_released(releases(&seen)[0].0, Err(oracle_says("store_failed")));
    w.attached("web", 1);
    let later = w.passes(Duration::from_secs(100));
    assert!(later.iter().all(|(_, s)| !matches!(s, Seen::Call(_))), "it is wanted after all");
}

#[test]
fn h5_force_overtakes_a_detach_that_hangs() {
    let mut w = World::started(V4, &["web"]);
    let (slow, _) = detach(&mut w, "web", false);
    let (call, seen) = detach(&mut w, "web", true);
    assert!(seen.contains(&Seen::Detached(call, Ok(()))));
    assert_eq!(releases(&seen), [], "one is under way");
    w.core.handle_released(slow, Err(unanswered()));
    let seen = w.seen();
    assert!(seen.contains(&Seen::Detached(slow, Err(unanswered()))));
    assert_eq!(releases(&seen).len(), 1, "and goes on");
}

#[test]
fn h8_device_gone_deactivates_at_once_and_comes_back() {
    for f in BOTH {
        let mut w = World::started(f, &["web", "db"]);
        w.core.handle_device_gone(w.now, IfIndex(1));
        let seen = w.seen();
        assert_eq!(withdrawn(&seen), 1);
        assert!(seen.contains(&Seen::Notice(Notice::DeviceGone(id("web"), "tap1".to_owned()))));
        assert!(!w.tables.vaps.contains_key(&IfIndex(1)));
        let web = w.core.tsis().find(|t| t.grant.tsi == id("web")).unwrap();
        assert_eq!((web.state, web.device.as_str()), (TsiState::Associated, ""));

        w.passes(Duration::from_secs(59));
        let mut back = device(1);
        back.index = IfIndex(41);
        w.core.handle_device(&back);
        let seen = w.seen();
        assert_eq!(registered(&seen).len(), 1);
        assert!(w.tables.vaps.contains_key(&IfIndex(41)));
        let later = w.passes(Duration::from_secs(100));
        assert!(later.iter().all(|(_, s)| !matches!(s, Seen::Notice(Notice::Released(_)))));
    }
}

#[test]
fn h8_device_gone_for_good_is_released_after_the_grace_time() {
    let mut w = World::started(V4, &["web", "db"]);
    w.core.handle_device_gone(w.now, IfIndex(1));
    w.seen();
    let gone = w.now;
    let later = w.passes(Duration::from_secs(100));
    let (at, _) = later.iter().find(|(_, s)| *s == Seen::Notice(Notice::Released(id("web")))).unwrap();
    assert_eq!(at.since(gone), Duration::from_secs(60));
    let seen: Vec<_> = later.into_iter().map(|(_, s)| s).collect();
    assert_eq!(releases(&seen).len(), 1);
    assert_eq!(w.core.tsis().count(), 1);
}

#[test]
fn h8_reattached_at_another_device_within_the_grace_time() {
    let mut w = World::started(V4, &["web", "db"]);
    w.core.handle_device_gone(w.now, IfIndex(1));
    w.seen();
    w.passes(Duration::from_secs(59));
    let call = w.attach(attach("web", 9));
    w.seen();
    // The grace time ends while the Oracle is asked: its grant must not be released.
    assert!(w.passes(Duration::from_secs(30)).iter().all(|(_, s)| !matches!(s, Seen::Call(_))));
    let seen = w.granted(call, grant("web", 1));
    assert_eq!(registered(&seen).len(), 1);
    assert!(w.passes(Duration::from_secs(100)).iter().all(|(_, s)| !matches!(s, Seen::Call(_))));
    assert!(w.tables.vaps.contains_key(&IfIndex(9)));
}

#[test]
fn h8_device_replaced_by_another_of_its_name() {
    let mut w = World::started(V4, &["web"]);
    let mut new = device(1);
    new.index = IfIndex(41);
    w.core.handle_device(&new);
    w.seen();
    assert_eq!(w.tables.vaps.keys().collect::<Vec<_>>(), [&IfIndex(41)]);
    w.core.handle_device_gone(w.now, IfIndex(1));
    assert_eq!(w.seen(), [], "the old one");
    w.session(0, Session::Down);
}
