//! Silent moves: requirement V11.

use super::super::{Attach, Cause, Context, Happened, Live, Notice, Refused, Session, TsiState};
use super::oracle::{self, Heard};
use super::world::*;
use ::core::time::Duration;
use weft_datapath::PuntReason;
use weft_lisp::tcp::RejectReason;
use weft_model::{Grant, MacAddr, Successor, XtrId};

/// web moves from another NVE to `next`.
fn moving(next: XtrId) -> Grant {
    let here = grant("web", 1);
    let next = Some(Successor { nve: next, epoch: here.epoch.next() });
    Grant { owner: OTHER, next, ..here }
}

fn associate(w: &mut World, granted: Grant, explicit: bool) {
    let call = w.attach(Attach { state: TsiState::Associated, explicit, ..attach("web", 1) });
    w.seen();
    w.granted(call, granted);
}

/// Frames as a tenant system says that it is there: gratuitous ARP, RARP and anything at all.
fn frames(from: MacAddr) -> Vec<Vec<u8>> {
    let frame = |kind: [u8; 2]| [&MacAddr::BROADCAST.octets()[..], &from.octets(), &kind, &[0; 46]].concat();
    [[8, 6], [0x80, 0x35], [8, 0], [0x86, 0xdd]].into_iter().map(frame).collect()
}

fn speaks(w: &mut World, from: MacAddr) -> Vec<Seen> {
    w.punt(1, PuntReason::FirstFrame, frames(from).remove(0))
}

fn sent(seen: &[Seen]) -> Option<u32> {
    seen.iter().find_map(|s| match s {
        Seen::Heard(0, Heard::Registered { id, .. }) => Some(*id),
        _ => None,
    })
}

fn state(w: &World) -> (bool, bool) {
    w.tables.vaps.get(&device(1).index).map(|vap| (vap.activated, vap.waits)).unwrap()
}

#[test]
fn v11_the_first_frame_where_it_is_next_activates() {
    for f in BOTH {
        for frame in frames(mac(1)) {
            let mut w = World::started(f, &[]);
            associate(&mut w, moving(ME), false);
            assert_eq!(state(&w), (false, true));
            let seen = w.punt(1, PuntReason::FirstFrame, frame);
            assert!(seen.contains(&Seen::Notice(Notice::Woken(id("web")))), "{seen:?}");
            assert_eq!(state(&w), (true, false));
            w.events.clear();
            let seen = w.ack(0, sent(&seen).unwrap(), mac(1));
            assert!(seen.iter().all(|s| !matches!(s, Seen::Attached(..))), "nobody has called: {seen:?}");
            let told: Vec<_> = w.events.iter().map(|e| (e.happened.clone(), e.cause.clone())).collect();
            assert_eq!(told, [(Happened::Activated, Cause::Silent)]);
            assert_eq!(w.core.counters().silent_moves, 1);
            assert!(w.core.attachments().iter().all(|a| a.activated));
        }
    }
}

/// Where its hypervisor has plugged it in here already it may be heard here too.
#[test]
fn v11_what_runs_where_it_was_is_not_taken_from_there() {
    let mut w = World::started(V4, &[]);
    w.peers = true;
    let call = w.attach(Attach { state: TsiState::Associated, ..attach("web", 1) });
    w.seen();
    let seen = w.granted(call, moving(ME));
    let asked = |s: &Seen| if let Seen::Fetch(fetch) = s { Some(fetch.transfer) } else { None };
    let transfer = seen.iter().find_map(asked).unwrap();
    assert_eq!(speaks(&mut w, mac(1)), [], "whether it has stopped there is still asked");
    let grant = Grant { owner: OTHER, next: None, ..grant("web", 1) };
    let (epoch, vn) = (grant.epoch, spec());
    let context = Context { revision: 10, grant, epoch, vn, activated: true, live: Live::default() };
    w.core.handle_context(w.now, transfer, context).unwrap();
    w.seen();
    assert_eq!((state(&w), speaks(&mut w, mac(1))), ((false, true), vec![]));
    w.core.handle_stopping(w.now, transfer);
    let seen = speaks(&mut w, mac(1));
    assert!(seen.contains(&Seen::Notice(Notice::Woken(id("web")))), "{seen:?}");
}

#[test]
fn v11_anywhere_else_it_changes_nothing() {
    // Its own already, another is next, its hypervisor says when, a foreign MAC, no Oracle.
    let owned = Grant { next: None, ..grant("web", 1) };
    let leaves = Grant { next: moving(OTHER).next, ..grant("web", 1) };
    for (granted, explicit) in [(owned, false), (leaves, false), (moving(ME), true)] {
        let mut w = World::started(V4, &[]);
        associate(&mut w, granted, explicit);
        assert_eq!(state(&w), (false, false));
        assert_eq!(speaks(&mut w, mac(1)), []);
        assert_eq!(state(&w), (false, false));
    }
    let mut w = World::started(V6, &[]);
    associate(&mut w, moving(ME), false);
    assert_eq!(speaks(&mut w, mac(2)), []);
    w.session(0, Session::Down);
    assert_eq!(speaks(&mut w, mac(1)), []);
    assert_eq!(state(&w), (false, true));
    // What is called off does not come; nor does who is in service come again.
    w.session(0, Session::Up);
    w.grants(11, vec![]);
    assert_eq!(state(&w), (false, false));
    assert_eq!(speaks(&mut w, mac(1)), []);
    let mut w = World::started(V4, &["web"]);
    assert_eq!(speaks(&mut w, mac(1)), []);
}

#[test]
fn v11_one_that_is_refused_tries_again_a_second_later() {
    let mut w = World::started(V4, &[]);
    associate(&mut w, moving(ME), false);
    let seen = speaks(&mut w, mac(1));
    let refused = oracle::reject(sent(&seen).unwrap(), mac(1), RejectReason::NotASitePrefix);
    w.hears(0, &refused);
    assert_eq!(state(&w), (false, true), "Associated, and waiting, as before");
    assert_eq!(speaks(&mut w, mac(1)), [], "too soon");
    w.passes(Duration::from_secs(1));
    let seen = speaks(&mut w, mac(1));
    w.ack(0, sent(&seen).unwrap(), mac(1));
    assert_eq!((state(&w), w.core.counters().silent_moves), ((true, false), 2));
}

#[test]
fn v11_an_activate_in_the_middle_waits_for_it() {
    for refuse in [false, true] {
        let mut w = World::started(V6, &[]);
        associate(&mut w, moving(ME), false);
        let frame = sent(&speaks(&mut w, mac(1))).unwrap();
        let call = w.activate("web");
        assert_eq!(w.seen(), []);
        let word = match refuse {
            true => oracle::reject(frame, mac(1), RejectReason::NotASitePrefix),
            false => oracle::ack(frame, mac(1)),
        };
        let seen = w.hears(0, &word);
        let done = seen.iter().find_map(|s| match s {
            Seen::Attached(c, result) if *c == call => Some(result.clone()),
            _ => None,
        });
        match refuse {
            true => assert!(matches!(done, Some(Err(Refused::Registration { .. }))), "{seen:?}"),
            false => assert!(matches!(done, Some(Ok(_))), "{seen:?}"),
        }
        assert_eq!(state(&w), (!refuse, refuse));
    }
}

/// It is said anew with another Associate, and outlives the agent.
#[test]
fn v11_whether_it_may_is_its_hypervisors_to_say() {
    let mut w = World::started(V4, &[]);
    associate(&mut w, moving(ME), true);
    let mut after = World::new(V4);
    after.core.restore(after.now, w.core.attachments(), &[device(1)]);
    after.seen();
    assert_eq!(state(&after), (false, false));
    w.attach(Attach { state: TsiState::Associated, ..attach("web", 1) });
    w.seen();
    assert_eq!(state(&w), (false, true));
    let mut after = World::new(V4);
    after.core.restore(after.now, w.core.attachments(), &[device(1)]);
    after.seen();
    assert_eq!(state(&after), (false, true));
    // Who lets go of it leaves nothing that waits.
    w.core.handle_detach(super::super::CallId(99), red(), name("web"), true);
    w.seen();
    assert!(w.tables.vaps.values().all(|vap| !vap.waits));
}
