//! What comes for who has moved on is redirected: requirements V6, M4.

use super::super::{Fact, TsiState};
use super::oracle::Rec;
use super::world::*;
use ::core::num::NonZeroU32;
use ::core::time::Duration;
use std::collections::BTreeSet;
use weft_datapath::Away;
use weft_model::{Epoch, Grant, Successor, XtrId};

fn moving() -> Grant {
    let here = grant("web", 1);
    let next = Some(Successor { nve: OTHER, epoch: here.epoch.next() });
    Grant { next, ..here }
}

fn away(w: &World) -> Option<Away> {
    w.tables.away.get(&(vni(), mac(1))).copied()
}

fn to(f: Family, n: u8, epoch: u32) -> Option<Away> {
    Some(Away { rloc: rloc(f, n), epoch: Epoch::new(epoch).unwrap() })
}

/// An NVE's RLOCs are known.
fn named(w: &mut World, f: Family, xtr: XtrId, n: u8) {
    w.core.handle_fact(Fact::Nve(xtr, BTreeSet::from([rloc(f, n)])));
    w.seen();
}

#[test]
fn v6_from_deactivate_on_to_who_is_next() {
    for f in BOTH {
        let mut w = World::started(f, &["web"]);
        named(&mut w, f, OTHER, 2);
        w.grants(11, vec![moving()]);
        assert_eq!(away(&w), None, "it is still here");
        w.deactivate("web");
        w.seen();
        assert_eq!(away(&w), to(f, 2, 6));
        // Called off, and back in service: nothing goes away from here.
        w.grants(12, vec![Grant { epoch: Epoch::new(7).unwrap(), ..grant("web", 1) }]);
        assert_eq!(away(&w), None);
        w.activate("web");
        w.seen();
        assert_eq!(away(&w), None);
    }
}

#[test]
fn v6_another_is_next_meanwhile() {
    let mut w = World::started(V4, &["web"]);
    named(&mut w, V4, OTHER, 2);
    named(&mut w, V4, XtrId([9; 16]), 3);
    w.grants(11, vec![moving()]);
    w.deactivate("web");
    let next = Some(Successor { nve: XtrId([9; 16]), epoch: Epoch::new(7).unwrap() });
    w.grants(12, vec![Grant { next, ..grant("web", 1) }]);
    assert_eq!(away(&w), to(V4, 3, 7));
}

/// It was Activated there before it was stopped here: by the Oracle's word on the session, or by the list of grants.
#[test]
fn v6_from_the_loss_on() {
    for f in BOTH {
        let mut w = World::started(f, &["web"]);
        named(&mut w, f, OTHER, 2);
        w.notify(Rec::At(mac(1), rloc(f, 2), 6));
        assert_eq!(away(&w), to(f, 2, 6), "whoever that is: an operator may have taken it over");
        let mut w = World::started(f, &["web"]);
        named(&mut w, f, OTHER, 2);
        w.grants(11, vec![moving()]);
        w.grants(12, vec![]);
        assert_eq!(away(&w), to(f, 2, 6));
        // Detached, it is still redirected; and for an hour, no longer.
        assert!(w.core.attachments().is_empty());
        w.passes(Duration::from_secs(3_599));
        assert_eq!(away(&w), to(f, 2, 6));
        w.passes(Duration::from_secs(2));
        assert_eq!(away(&w), None);
    }
}

/// A Map-Version is 12 bits of it: after 4,095 moves it is another number.
#[test]
fn v6_an_entry_has_the_epoch_that_it_points_to() {
    let mut w = World::started(V4, &["web"]);
    named(&mut w, V4, OTHER, 2);
    w.grants(11, vec![Grant { epoch: Epoch::new(8_189).unwrap(), ..grant("web", 1) }]);
    w.notify(Rec::At(mac(1), rloc(V4, 2), 4_095));
    assert_eq!(away(&w), to(V4, 2, 8_190));
    let mut w = World::started(V4, &["web"]);
    named(&mut w, V4, OTHER, 2);
    w.grants(11, vec![Grant { epoch: Epoch::new(8_189).unwrap(), ..grant("web", 1) }]);
    w.notify(Rec::At(mac(1), rloc(V4, 2), 3));
    assert_eq!(away(&w), to(V4, 2, 8_193), "and past its end");
}

/// Given back, it is nowhere: nothing is sent on. Nor is what was Associated only.
#[test]
fn v6_not_when_it_goes_nowhere() {
    let mut w = World::started(V4, &["web"]);
    named(&mut w, V4, OTHER, 2);
    w.deactivate("web");
    w.seen();
    assert_eq!(away(&w), None);
    w.grants(11, vec![moving()]);
    assert_eq!(away(&w), None, "it carried nothing");
    w.grants(12, vec![]);
    assert_eq!(away(&w), None);
}

#[test]
fn v6_nothing_goes_to_who_is_no_nve_any_more() {
    let mut w = World::started(V4, &["web"]);
    named(&mut w, V4, OTHER, 2);
    w.grants(11, vec![moving()]);
    w.deactivate("web");
    w.seen();
    w.core.handle_fact(Fact::NveGone(OTHER));
    w.seen();
    assert_eq!(away(&w), None);
}

#[test]
fn v6_the_oldest_makes_room() {
    let mut w = World::with(V4, |c| c.limits.away = 1);
    w.session(0, super::super::Session::Up);
    w.attach_all(&["web", "db"]);
    named(&mut w, V4, OTHER, 2);
    w.notify(Rec::At(mac(1), rloc(V4, 2), 6));
    w.notify(Rec::At(mac(2), rloc(V4, 2), 6));
    assert_eq!(w.tables.away.keys().copied().collect::<Vec<_>>(), [(vni(), mac(2))]);
}

/// What the NVE that it came from sends on is not fenced, for as long as that may last; a restart forgets nothing.
#[test]
fn v6_who_sends_on_is_known() {
    let mut w = World::started(V4, &[]);
    let mut wanted = attach("web", 1);
    wanted.state = TsiState::Associated;
    let call = w.attach(wanted);
    w.seen();
    let coming = Grant {
        owner: OTHER,
        next: Some(Successor { nve: ME, epoch: Epoch::new(6).unwrap() }),
        ..grant("web", 1)
    };
    w.granted(call, coming);
    let node = NonZeroU32::new(u32::from_be_bytes([OTHER.0[0], OTHER.0[1], OTHER.0[2], OTHER.0[3]]));
    let previous = |w: &World| w.tables.vaps[&device(1).index].previous;
    assert_eq!(previous(&w), None);
    w.activate("web");
    w.seen();
    assert_eq!(previous(&w), node);
    // The store says that it is this NVE's.
    let mine = Grant { epoch: Epoch::new(6).unwrap(), ..grant("web", 1) };
    w.grants(11, vec![mine]);
    assert_eq!(previous(&w), node);
    let mut after = World::new(V4);
    after.core.remember(vec![spec()], Default::default(), &w.tables);
    after.core.restore(after.now, w.core.attachments(), &[device(1)]);
    after.core.adopt(after.now, vec![spec()], &w.tables);
    after.seen();
    assert_eq!(previous(&after), node);
    for w in [&mut w, &mut after] {
        w.passes(Duration::from_secs(3_601));
        assert_eq!(previous(w), None);
        assert!(w.tables.vaps[&device(1).index].activated);
    }
}

#[test]
fn v6_a_restart_goes_on_redirecting() {
    let mut w = World::started(V6, &["web"]);
    named(&mut w, V6, OTHER, 2);
    w.grants(11, vec![moving()]);
    w.deactivate("web");
    w.seen();
    let mut after = World::new(V6);
    after.core.remember(vec![spec()], Default::default(), &w.tables);
    after.core.restore(after.now, w.core.attachments(), &[device(1)]);
    after.core.adopt(after.now, vec![spec()], &w.tables);
    after.seen();
    assert_eq!(away(&after), to(V6, 2, 6));
}

/// Let go here before word of its Activation has come: it is redirected all the same.
#[test]
fn v6_let_go_early_it_is_redirected_still() {
    let mut w = World::started(V4, &["web"]);
    named(&mut w, V4, OTHER, 2);
    w.grants(11, vec![moving()]);
    w.deactivate("web");
    let call = w.call();
    w.core.handle_detach(call, red(), name("web"), true);
    w.seen();
    assert_eq!(away(&w), to(V4, 2, 6));
    // It was the last one of its VN here: the Oracle says no more of that VN.
    w.core.handle_fact(Fact::VnGone(vni()));
    w.seen();
    assert_eq!(away(&w), to(V4, 2, 6));
}
