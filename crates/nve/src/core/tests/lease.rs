//! What a hypervisor does not renew goes: requirement H8.

use super::super::{Attach, Held, TsiState, Update};
use super::world::*;
use ::core::time::Duration;
use std::collections::BTreeSet;
use weft_model::{Grant, Successor};

const LEASE: Duration = Duration::from_secs(30);

fn leased(f: Family) -> World {
    let mut w = World::started(f, &[]);
    let call = w.attach(Attach { lease: Some(LEASE), ..attach("web", 1) });
    w.seen();
    for (oracle, sent) in registered(&w.granted(call, grant("web", 1))) {
        w.ack(oracle, sent, mac(1));
    }
    w.told();
    w
}

fn update(w: &mut World, lease: Option<Duration>) {
    let call = w.call();
    let (add, remove) = (BTreeSet::new(), BTreeSet::new());
    let update = Update { vn: red(), name: name("web"), device: None, add, remove, lease };
    w.core.handle_update(w.now, call, update);
    w.seen();
}

fn passes(w: &mut World, span: Duration) -> Vec<Seen> {
    w.passes(span).into_iter().map(|(_, seen)| seen).collect()
}

#[test]
fn h8_what_is_not_renewed_is_out_of_service_and_given_back() {
    for f in BOTH {
        let mut w = leased(f);
        assert_eq!(releases(&passes(&mut w, LEASE - Duration::from_millis(1))), []);
        let seen = passes(&mut w, Duration::from_millis(1));
        assert_eq!(releases(&seen).len(), 1);
        assert_eq!(withdrawn(&seen), 1);
        assert_eq!(w.told(), ["web deactivated: lease_expired", "web de-associated: lease_expired"]);
        assert_eq!((w.core.tsis().count(), w.core.attachments().len()), (0, 0));
        assert_eq!(
            w.tables.vaps.get(&device(1).index).map(|vap| vap.activated),
            Some(false),
            "not the host's"
        );
        assert!(w.tables.fdb.is_empty() && w.tables.neighbours.is_empty());
        // It may come back.
        let (call, _) = releases(&seen).remove(0);
        w.core.handle_released(call, Ok(()));
        w.attached("web", 1);
        assert!(w.tables.vaps[&device(1).index].activated);
    }
}

#[test]
fn h8_each_call_renews_and_none_of_them_is_news() {
    let mut w = leased(V4);
    let almost = LEASE - Duration::from_secs(1);
    for call in 0..4 {
        assert_eq!(releases(&passes(&mut w, almost)), []);
        match call {
            0 => update(&mut w, None),
            1 => {
                w.attach(attach("web", 1));
            }
            2 => {
                w.activate("web");
            }
            _ => update(&mut w, Some(LEASE)),
        }
        w.seen();
        assert_eq!(w.told(), [""; 0]);
    }
    // Another one from now on, and none any more.
    update(&mut w, Some(2 * LEASE));
    assert_eq!(w.told(), ["web updated: hypervisor"]);
    assert_eq!(releases(&passes(&mut w, 2 * LEASE - Duration::from_secs(1))), []);
    update(&mut w, Some(Duration::ZERO));
    assert_eq!(releases(&passes(&mut w, 100 * LEASE)), []);
    assert_eq!(w.told(), ["web updated: hypervisor"]);
}

#[test]
fn h8_a_call_under_way_holds_a_lease_up() {
    let mut w = leased(V6);
    let call = w.call();
    w.core.handle_detach(call, red(), name("web"), false);
    let (release, _) = releases(&w.seen()).remove(0);
    assert_eq!(releases(&passes(&mut w, LEASE)), [], "one is asked for already");
    assert_eq!(w.core.tsis().count(), 1);
    w.core.handle_released(release, Err(unanswered()));
    w.seen();
    assert_eq!(releases(&passes(&mut w, LEASE)).len(), 1);
}

#[test]
fn h8_after_a_restart_it_runs_anew() {
    for f in BOTH {
        let mut before = leased(f);
        passes(&mut before, LEASE - Duration::from_secs(1));
        let saved = before.core.attachments();
        assert_eq!(saved[0].lease_s, Some(30));
        let mut w = World::new(f);
        w.core.restore(w.now, saved, &[device(1)]);
        w.seen();
        assert_eq!(releases(&passes(&mut w, LEASE - Duration::from_secs(1))), []);
        assert_eq!(releases(&passes(&mut w, Duration::from_secs(1))).len(), 1);
    }
}

/// What is prepared where it moves to and forgotten there does not keep it.
#[test]
fn h8_a_move_that_is_not_renewed_is_called_off() {
    let mut w = World::started(V4, &[]);
    let here = grant("web", 1);
    let next = Some(Successor { nve: ME, epoch: here.epoch.next() });
    let call = w.attach(Attach { state: TsiState::Associated, lease: Some(LEASE), ..attach("web", 1) });
    w.seen();
    w.granted(call, Grant { owner: OTHER, next, ..here });
    let seen = passes(&mut w, LEASE);
    let held = seen.iter().find_map(|s| match s {
        Seen::Call(super::super::ApiCall::Release { held, .. }) => Some(*held),
        _ => None,
    });
    assert_eq!(held, Some(Held::Granted), "who is merely next calls it off by that");
    assert_eq!(w.told(), ["web associated: hypervisor", "web de-associated: lease_expired"]);
}
