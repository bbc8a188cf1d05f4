//! Attaching: requirements H1 to H3, H8 and A1.

use super::super::{Attach, Granted, Held, Notice, Refused, Session, TsiState, Unreleased};
use super::oracle::{self, Heard};
use super::world::*;
use ::core::time::Duration;
use std::collections::BTreeSet;
use weft_datapath::{IfIndex, Op};
use weft_lisp::tcp::RejectReason;
use weft_model::{Epoch, TsMac, TsiName, digest::Digest};

fn attached(seen: &[Seen]) -> Option<&Result<super::super::Attached, Refused>> {
    seen.iter().find_map(|s| if let Seen::Attached(_, result) = s { Some(result) } else { None })
}

#[test]
fn h3_a1_answered_only_after_applied_and_acknowledged_in_this_order() {
    for f in BOTH {
        let mut w = World::new(f);
        w.session(0, Session::Up);
        w.verdict = None;
        let call = w.attach(attach("web", 1));
        let asked = w.seen();
        let wanted = super::super::ApiCall::Grant {
            call,
            vn: red(),
            name: name("web"),
            mac: None,
            ips: BTreeSet::new(),
            groups: BTreeSet::new(),
            activate: true,
        };
        assert_eq!(asked, [Seen::Call(wanted)]);

        let seen = w.granted(call, grant("web", 1));
        let saved = position(&seen, |s| matches!(s, Seen::Persist(a) if a.len() == 1));
        let at = position(&seen, |s| matches!(s, Seen::Op(Op::SetLocation(..))));
        let ips = position(&seen, |s| matches!(s, Seen::Op(Op::SetNeighbour(..))));
        let vap = position(&seen, |s| matches!(s, Seen::Op(Op::SetVap(..))));
        let out = position(&seen, |s| matches!(s, Seen::Heard(..)));
        assert!(saved < at && at < ips && ips < vap && vap < out, "{seen:?}");
        let Seen::Heard(0, Heard::Registered { id, ttl, version, eids, rlocs, .. }) = &seen[out] else {
            panic!("{seen:?}")
        };
        assert_eq!((*ttl, *version), (u32::MAX, 5));
        let expected: Vec<_> = [mac(1).into(), ip(V4, 1).into(), ip(V6, 1).into()].to_vec();
        assert_eq!((eids, rlocs), (&expected, &vec![(rloc(f, 1).get(), 1)]));

        assert_eq!(attached(&w.ack(0, *id, mac(1))), None, "not applied yet");
        let ticket = w.tickets.pop().unwrap();
        w.core.handle_applied(ticket, Ok(()));
        let seen = w.seen();
        let done = attached(&seen).unwrap().as_ref().unwrap();
        assert_eq!((&done.grant, done.mtu, done.already), (&grant("web", 1), 1450, false));
        assert!(seen.contains(&Seen::Notice(Notice::Activated(id_of("web"), grant("web", 1).epoch))));
        assert!(w.passes(Duration::from_secs(20)).iter().all(|(_, s)| !matches!(s, Seen::Attached(..))));
    }
}

fn id_of(text: &str) -> weft_model::TsiId {
    id(text)
}

#[test]
fn h3_applied_first_waits_for_the_acknowledgement_or_five_seconds() {
    let mut w = World::started(V4, &[]);
    let call = w.attach(attach("web", 1));
    let mut seen = w.granted(call, grant("web", 1));
    seen.extend(w.seen());
    assert_eq!(attached(&seen), None);
    let begun = w.now;
    let late = w.passes(Duration::from_secs(6));
    let (at, done) = late.iter().find(|(_, s)| matches!(s, Seen::Attached(..))).unwrap();
    assert_eq!(at.since(begun), Duration::from_secs(5));
    assert!(matches!(done, Seen::Attached(c, Ok(_)) if *c == call));
}

#[test]
fn h3_data_plane_later_than_the_acknowledgement_timer() {
    let mut w = World::started(V4, &[]);
    w.verdict = None;
    let call = w.attach(attach("web", 1));
    w.granted(call, grant("web", 1));
    assert!(w.passes(Duration::from_secs(60)).iter().all(|(_, s)| !matches!(s, Seen::Attached(..))));
    let ticket = w.tickets.pop().unwrap();
    w.core.handle_applied(ticket, Ok(()));
    assert!(attached(&w.seen()).unwrap().is_ok(), "nothing is missing any more");
}

#[test]
fn h3_without_a_session_applied_is_enough() {
    let mut w = World::new(V6);
    let call = w.attach(attach("web", 1));
    let seen = w.granted(call, grant("web", 1));
    assert!(attached(&seen).unwrap().is_ok());
    assert_eq!(registered(&seen), []);
}

#[test]
fn a1_named_addresses_are_asked_for() {
    let mut w = World::new(V4);
    let mut wanted = attach("web", 1);
    wanted.mac = Some(TsMac::new(mac(9)).unwrap());
    wanted.ips = BTreeSet::from([ip(V4, 9)]);
    w.attach(wanted.clone());
    let seen = w.seen();
    let Seen::Call(super::super::ApiCall::Grant { mac, ips, .. }) = &seen[0] else { panic!("{seen:?}") };
    assert_eq!((mac, ips), (&wanted.mac, &wanted.ips));
}

#[test]
fn h8_repeated_attach_gives_the_same_and_asks_nobody() {
    let mut w = World::started(V4, &["web"]);
    let mut again = attach("web", 1);
    again.ips = BTreeSet::from([ip(V4, 1)]);
    w.attach(again);
    let seen = w.seen();
    assert_eq!(seen.len(), 1);
    assert!(attached(&seen).unwrap().as_ref().unwrap().already);

    // With other addresses or at another device it is not the same.
    let mut other = attach("web", 1);
    other.ips = BTreeSet::from([ip(V4, 2)]);
    w.attach(other);
    assert!(matches!(attached(&w.seen()), Some(Err(Refused::AttachedOtherwise { .. }))));
    w.attach(attach("web", 2));
    assert!(matches!(attached(&w.seen()), Some(Err(Refused::AlreadyAttached { .. }))));
}

#[test]
fn h1_refused_by_the_oracle_in_its_words() {
    let mut w = World::started(V4, &[]);
    let call = w.attach(attach("web", 1));
    w.seen();
    w.core.handle_granted(w.now, call, Err(oracle_says("granted_elsewhere")));
    let seen = w.seen();
    assert_eq!(seen, [Seen::Attached(call, Err(oracle_says("granted_elsewhere")))]);
    assert_eq!(w.core.tsis().count(), 0);
    w.attached("web", 1);
}

#[test]
fn h1_busy_and_device_taken() {
    let mut w = World::started(V4, &["web"]);
    w.attach(attach("db", 2));
    w.seen();
    w.attach(attach("db", 2));
    assert!(matches!(attached(&w.seen()), Some(Err(Refused::Busy { .. }))), "the same name");
    w.attach(attach("cache", 2));
    assert!(matches!(attached(&w.seen()), Some(Err(Refused::Busy { .. }))), "the same device");
    w.attach(attach("cache", 1));
    let taken = w.seen();
    assert!(matches!(attached(&taken), Some(Err(Refused::DeviceTaken { tsi, .. })) if *tsi == id("web")));

    // Also while the device is away: when it comes back it is its VAP again.
    w.core.handle_device_gone(w.now, IfIndex(1));
    w.seen();
    let mut other = attach("cache", 1);
    other.device.index = IfIndex(31);
    w.attach(other);
    assert!(matches!(attached(&w.seen()), Some(Err(Refused::DeviceTaken { .. }))));
}

#[test]
fn h3_data_plane_refuses_then_nothing_remains_and_the_grant_is_released() {
    for f in BOTH {
        let mut w = World::new(f);
        w.session(0, Session::Up);
        w.verdict = Some(Err("no such device".to_owned()));
        let empty = w.tables.clone();
        let call = w.attach(attach("web", 1));
        let seen = w.granted(call, grant("web", 1));
        let failed = Refused::Datapath { reason: "no such device".to_owned() };
        assert!(seen.contains(&Seen::Attached(call, Err(failed))));
        assert_eq!(withdrawn(&seen), 1);
        assert_eq!(releases(&seen).len(), 1);
        assert_eq!((w.tables.clone(), w.core.tsis().count(), w.core.vns().count()), (empty, 0, 0));
        assert!(
            matches!(seen.iter().rfind(|s| matches!(s, Seen::Persist(_))), Some(Seen::Persist(a)) if a.is_empty())
        );
    }
}

#[test]
fn h3_failed_releases_what_it_made_and_nothing_else() {
    for (created, released) in [(true, 1), (false, 0)] {
        let mut w = World::started(V4, &[]);
        w.verdict = Some(Err("no such device".to_owned()));
        let call = w.attach(attach("web", 1));
        w.seen();
        let answer = Granted { grant: grant("web", 1), vn: spec(), revision: 10, created };
        w.core.handle_granted(w.now, call, Ok(answer));
        let seen = w.seen();
        assert!(matches!(attached(&seen), Some(Err(Refused::Datapath { .. }))));
        assert_eq!((releases(&seen).len(), w.core.tsis().count()), (released, 0));
    }
}

/// Nothing puts it in service then but its hypervisor.
#[test]
fn h3_failed_leaves_what_was_only_associated_so() {
    for f in BOTH {
        let mut w = World::started(f, &["a"]);
        w.deactivate("a");
        w.seen();
        w.core.handle_device_gone(w.now, device(1).index);
        w.seen();
        let before = w.core.attachments();
        w.verdict = Some(Err("no such device".to_owned()));
        let call = w.attach(Attach { explicit: true, ..attach("a", 9) });
        w.seen();
        let answer = Granted { grant: grant("a", 1), vn: spec(), revision: 10, created: false };
        w.core.handle_granted(w.now, call, Ok(answer));
        assert!(matches!(attached(&w.seen()), Some(Err(Refused::Datapath { .. }))));
        w.verdict = Some(Ok(()));
        assert_eq!(w.core.attachments(), before);
        w.core.handle_device(&device(1));
        assert_eq!(registered(&w.seen()), [], "it is Associated");
        assert_eq!(w.core.attachments(), before);
    }
}

#[test]
fn h3_failed_leaves_what_waited_out_its_grace_time() {
    let mut w = World::started(V4, &["web"]);
    w.core.handle_device_gone(w.now, IfIndex(1));
    w.seen();
    w.verdict = Some(Err("no such device".to_owned()));
    let call = w.attach(attach("web", 9));
    w.seen();
    let answer = Granted { grant: grant("web", 1), vn: spec(), revision: 10, created: false };
    w.core.handle_granted(w.now, call, Ok(answer));
    let seen = w.seen();
    assert!(matches!(attached(&seen), Some(Err(Refused::Datapath { .. }))));
    assert_eq!(releases(&seen), []);
    assert_eq!(w.core.vns().count(), 1);
    w.verdict = Some(Ok(()));
    w.core.handle_device(&device(1));
    w.seen();
    assert_eq!(w.core.tsis().map(|t| t.state).collect::<Vec<_>>(), [TsiState::Activated], "it comes back");
}

/// Also by an agent that was started again meanwhile.
#[test]
fn h3_what_is_let_go_without_an_oracle_is_given_back_in_the_end() {
    let mut w = World::started(V6, &["a", "b"]);
    for name in ["a", "b"] {
        let call = w.call();
        w.core.handle_detach(call, red(), TsiName::new(name).unwrap(), true);
        let [(release, _)] = releases(&w.seen())[..] else { panic!("{name}") };
        w.core.handle_released(release, Err(unanswered()));
    }
    let call = w.attach(attach("b", 2));
    w.seen();
    let answer = Granted { grant: grant("b", 2), vn: spec(), revision: 10, created: false };
    w.core.handle_granted(w.now, call, Ok(answer));
    w.seen();
    let unreleased = w.core.unreleased();
    assert_eq!(unreleased, [Unreleased { vn: red(), tsi: TsiName::new("a").unwrap(), held: Held::Granted }]);
    let (attachments, mut again) = (w.core.attachments(), World::new(V6));
    again.core.restore(again.now, attachments, &[device(2)]);
    again.core.give_back(again.now, unreleased.clone());
    again.seen();
    assert_eq!(again.core.unreleased(), unreleased);
    let later: Vec<_> = again.passes(Duration::from_secs(1)).into_iter().map(|(_, s)| s).collect();
    let [(release, _)] = releases(&later)[..] else { panic!("{later:?}") };
    again.core.handle_released(release, Ok(()));
    assert_eq!(again.core.unreleased(), []);
}

#[test]
fn h1_unanswered_gives_back_what_may_have_been_granted() {
    let mut w = World::started(V4, &[]);
    w.grants(10, vec![]);
    let call = w.attach(attach("web", 1));
    w.seen();
    w.core.handle_granted(w.now, call, Err(unanswered()));
    assert_eq!(w.seen(), [Seen::Attached(call, Err(unanswered()))]);
    let later: Vec<_> = w.passes(Duration::from_secs(1)).into_iter().map(|(_, s)| s).collect();
    let [(release, _)] = releases(&later)[..] else { panic!("{later:?}") };
    w.core.handle_released(release, Err(unanswered()));
    let later: Vec<_> = w.passes(Duration::from_secs(1)).into_iter().map(|(_, s)| s).collect();
    let [(release, _)] = releases(&later)[..] else { panic!("{later:?}") };
    w.core.handle_released(release, Err(oracle_says("not_found")));
    assert!(w.passes(Duration::from_secs(60)).iter().all(|(_, s)| !matches!(s, Seen::Call(_))));
}

#[test]
fn h1_unanswered_and_asked_again_keeps_the_grant() {
    let mut w = World::started(V4, &[]);
    w.grants(10, vec![]);
    let call = w.attach(attach("web", 1));
    w.seen();
    w.core.handle_granted(w.now, call, Err(unanswered()));
    w.seen();
    w.attached("web", 1);
    assert!(w.passes(Duration::from_secs(60)).iter().all(|(_, s)| !matches!(s, Seen::Call(_))));
}

#[test]
fn h1_unanswered_leaves_a_grant_that_was_there_before() {
    // An operator granted it to this NVE.
    let mut w = World::started(V4, &["db"]);
    w.grants(11, vec![grant("db", 1), grant("web", 2)]);
    let call = w.attach(attach("web", 2));
    w.seen();
    w.core.handle_granted(w.now, call, Err(unanswered()));
    w.seen();
    assert!(w.passes(Duration::from_secs(60)).iter().all(|(_, s)| !matches!(s, Seen::Call(_))));
}

/// Lost, asked for again, granted by a list, and only then is the call said to be unanswered.
#[test]
fn h1_unanswered_leaves_a_grant_that_a_list_has_brought_back() {
    for (f, list_first) in [(V4, true), (V6, true), (V4, false), (V6, false)] {
        let mut w = World::started(f, &["web"]);
        w.grants(11, vec![]);
        let again = weft_model::Grant { epoch: Epoch::new(9).unwrap(), ..grant("web", 1) };
        let call = w.attach(attach("web", 1));
        w.seen();
        if list_first {
            w.grants(12, vec![again.clone()]);
        }
        w.core.handle_granted(w.now, call, Err(unanswered()));
        w.seen();
        w.grants(13, vec![again]);
        let seen: Vec<Seen> = w.passes(Duration::from_secs(100)).into_iter().map(|(_, seen)| seen).collect();
        assert_eq!(releases(&seen), [], "it is in service");
        assert!(w.tables.vaps[&device(1).index].activated);
        // And let go for good there is one release, not two.
        let call = w.call();
        w.core.handle_detach(call, red(), name("web"), true);
        assert_eq!(releases(&w.seen()).len(), 1);
    }
}

#[test]
fn h1_unanswered_before_any_list_of_grants_gives_nothing_back() {
    // Whether it was granted before nobody here knows: an operator may have.
    let mut w = World::new(V4);
    let call = w.attach(attach("web", 1));
    w.seen();
    w.core.handle_granted(w.now, call, Err(unanswered()));
    w.seen();
    assert!(
        w.passes(Duration::from_secs(60)).iter().all(|(_, s)| releases(std::slice::from_ref(s)).is_empty())
    );
}

#[test]
fn h3_device_gone_while_attaching() {
    let mut w = World::started(V4, &[]);
    w.verdict = None;
    let call = w.attach(attach("web", 1));
    w.granted(call, grant("web", 1));
    w.core.handle_device_gone(w.now, IfIndex(1));
    let seen = w.seen();
    assert!(matches!(attached(&seen), Some(Err(Refused::Datapath { .. }))));
    assert_eq!(releases(&seen).len(), 1);
    let ticket = w.tickets.pop().unwrap();
    w.core.handle_applied(ticket, Ok(()));
    assert_eq!(w.seen(), []);
}

#[test]
fn n1_refused_registration_takes_the_attach_back() {
    let mut w = World::started(V4, &[]);
    let call = w.attach(attach("web", 1));
    let seen = w.granted(call, grant("web", 1));
    let (_, frame) = registered(&seen)[0];
    let seen = w.hears(0, &oracle::reject(frame, mac(1), RejectReason::NotASitePrefix));
    assert!(seen.contains(&Seen::Attached(call, Err(Refused::Registration { tsi: id("web") }))));
    assert_eq!(releases(&seen).len(), 1);
    assert_eq!(w.core.tsis().count(), 0);
}

#[test]
fn n1_one_oracle_that_knows_the_grant_is_enough() {
    let mut w = World::started(V4, &[]);
    w.session(1, Session::Up);
    let call = w.attach(attach("web", 1));
    let seen = w.granted(call, grant("web", 1));
    let frames = registered(&seen);
    assert_eq!(frames.iter().map(|(oracle, _)| *oracle).collect::<Vec<_>>(), [0, 1], "registers at all");
    let seen = w.hears(1, &oracle::reject(frames[1].1, mac(1), RejectReason::NotASitePrefix));
    assert_eq!(attached(&seen), None, "the second may not have heard of the grant yet");
    assert!(attached(&w.ack(0, frames[0].1, mac(1))).unwrap().is_ok());
}

#[test]
fn n1_an_oracle_that_is_not_ready_is_asked_again() {
    let mut w = World::started(V4, &[]);
    let call = w.attach(attach("web", 1));
    let seen = w.granted(call, grant("web", 1));
    let (_, frame) = registered(&seen)[0];
    assert_eq!(attached(&w.hears(0, &oracle::reject(frame, mac(1), RejectReason::Undefined))), None);
    let later: Vec<_> = w.passes(Duration::from_secs(6)).into_iter().map(|(_, s)| s).collect();
    assert_eq!(registered(&later).len(), 1, "{later:?}");
    assert!(later.iter().any(|s| matches!(s, Seen::Attached(c, Ok(_)) if *c == call)));
}

#[test]
fn n1_acknowledgements_of_earlier_registrations_do_not_count() {
    let mut w = World::started(V4, &["web"]);
    let seen = w.grants(11, vec![grant("web", 1)]);
    assert_eq!(seen, []);
    let call = w.call();
    w.core.handle_detach(call, red(), name("web"), true);
    let seen = w.seen();
    let (release, _) = releases(&seen)[0];
    w.core.handle_released(release, Ok(()));
    let call = w.attach(attach("web", 1));
    let seen = w.granted(call, grant("web", 1));
    let (_, frame) = registered(&seen)[0];
    for old in 1..frame {
        assert_eq!(attached(&w.ack(0, old, mac(1))), None);
        assert_eq!(attached(&w.hears(0, &oracle::reject(old, mac(1), RejectReason::NotASitePrefix))), None);
    }
    assert!(attached(&w.ack(0, frame, mac(1))).unwrap().is_ok());
}

#[test]
fn decision_7_restored_without_an_oracle_then_registered_with_the_session() {
    for f in BOTH {
        let mut first = World::new(f);
        first.attach_without_session(&["a", "b", "c"]);
        let saved = first.core.attachments();

        let mut w = World::new(f);
        // c's device is gone, and one entry is there twice.
        let mut found = saved.clone();
        found.push(saved[0].clone());
        w.core.remember(vec![spec()], Default::default(), &Default::default());
        w.core.restore(w.now, found, &[device(1), device(2), device(8)]);
        w.core.adopt(w.now, vec![spec()], &first.tables);
        let seen = w.seen();
        assert_eq!(registered(&seen), []);
        assert_eq!(w.tables.vaps.keys().collect::<Vec<_>>(), [&IfIndex(1), &IfIndex(2)]);
        assert_eq!(w.tables.vaps[&IfIndex(1)], first.tables.vaps[&IfIndex(1)]);
        let states: Vec<_> = w.core.tsis().map(|t| t.state).collect();
        assert_eq!(states, [TsiState::Activated, TsiState::Activated, TsiState::Associated]);

        let seen = w.session(0, Session::Up);
        let heard: Vec<_> =
            seen.iter().filter_map(|s| if let Seen::Heard(0, h) = s { Some(h) } else { None }).collect();
        assert_eq!(heard[..2], [&Heard::Hello(1, 77), &Heard::NamesGroups]);
        let mut all = Digest::default();
        for registration in &heard[2..4] {
            let Heard::Registered { ttl, digest, .. } = registration else { panic!("{registration:?}") };
            assert_eq!((*ttl, digest.count), (u32::MAX, 3));
            all.add(*digest);
        }
        assert_eq!(heard[4..], [&Heard::End(all)], "six records, and their digest");

        // c's device does not come back.
        let later = w.passes(Duration::from_secs(61));
        assert!(later.iter().any(|(_, s)| *s == Seen::Notice(Notice::Released(id("c")))));
    }
}

impl World {
    fn attach_without_session(&mut self, tsis: &[&str]) {
        for (n, tsi) in (1..).zip(tsis) {
            let call = self.attach(attach(tsi, n));
            self.seen();
            assert!(attached(&self.granted(call, grant(tsi, n))).unwrap().is_ok());
        }
    }
}
