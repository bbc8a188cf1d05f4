//! Associate, Activate and Deactivate one by one: requirements H2, H3, H5, V3 to V5.

use super::super::{ApiCall, Attached, Held, Notice, Refused, Session, TsiState};
use super::oracle::{self, Heard, Rec};
use super::world::*;
use ::core::time::Duration;
use std::collections::BTreeSet;
use weft_datapath::{Location, Op};
use weft_lisp::tcp::RejectReason;
use weft_model::{Epoch, Grant, Successor, Time};

/// web moves here from another NVE.
fn coming() -> Grant {
    let here = grant("web", 1);
    let next = Some(Successor { nve: ME, epoch: here.epoch.next() });
    Grant { owner: OTHER, next, ..here }
}

fn associated(w: &mut World, granted: Grant) -> Vec<Seen> {
    let mut wanted = attach("web", 1);
    wanted.state = TsiState::Associated;
    let call = w.attach(wanted);
    for asked in w.seen() {
        let Seen::Call(ApiCall::Grant { activate, .. }) = asked else { continue };
        assert!(!activate, "nobody is told that it is here");
    }
    w.granted(call, granted)
}

fn attached(seen: &[Seen]) -> Option<&Result<Attached, Refused>> {
    seen.iter().find_map(|s| if let Seen::Attached(_, result) = s { Some(result) } else { None })
}

fn open(w: &World) -> bool {
    w.tables.vaps.get(&device(1).index).is_some_and(|vap| vap.activated)
}

fn wanted(w: &World) -> Vec<bool> {
    w.core.attachments().iter().map(|a| a.activated).collect()
}

#[test]
fn h2_what_is_associated_is_held_and_nothing_passes() {
    for f in BOTH {
        let mut w = World::started(f, &[]);
        let seen = associated(&mut w, coming());
        let done = attached(&seen).unwrap().as_ref().unwrap();
        assert_eq!((done.state, done.epoch.get(), done.already), (TsiState::Associated, 6, false));
        assert!(seen.contains(&Seen::Notice(Notice::Associated(id("web")))));
        assert_eq!(registered(&seen), [], "its owner is another");
        assert!(!open(&w) && w.tables.vaps.len() == 1, "a closed VAP keeps it from the host");
        assert!(w.tables.fdb.is_empty() && w.tables.neighbours.is_empty());
        assert_eq!(wanted(&w), [false], "and after a restart as well");
        // Once more, it is so already.
        let mut wanted = attach("web", 1);
        wanted.state = TsiState::Associated;
        w.attach(wanted);
        assert!(matches!(&w.seen()[..], [Seen::Attached(_, Ok(a))] if a.already));
    }
}

#[test]
fn v4_activate_registers_at_the_epoch_of_who_is_next() {
    for f in BOTH {
        let mut w = World::started(f, &[]);
        associated(&mut w, coming());
        let call = w.activate("web");
        let seen = w.seen();
        assert!(open(&w));
        assert_eq!(w.tables.fdb.get(&(vni(), mac(1))), Some(&Location::Local(device(1).index)));
        let (id_, version) = seen
            .iter()
            .find_map(|s| match s {
                Seen::Heard(0, Heard::Registered { id, version, .. }) => Some((*id, *version)),
                _ => None,
            })
            .unwrap();
        assert_eq!((version, attached(&seen)), (6, None), "not acknowledged yet");
        let seen = w.ack(0, id_, mac(1));
        assert!(
            matches!(&seen[..], [.., Seen::Attached(c, Ok(a))] if *c == call && a.state == TsiState::Activated)
        );
        assert_eq!(wanted(&w), [true]);
        // Idempotent.
        w.activate("web");
        let again = w.seen();
        assert!(matches!(&again[..], [Seen::Attached(_, Ok(a))] if a.already));
        // The store says the same a little later: nothing changes.
        let after = Grant { owner: ME, epoch: coming().next.unwrap().epoch, next: None, ..coming() };
        let seen = w.grants(11, vec![after]);
        assert!(
            !seen.iter().any(|s| matches!(s, Seen::Op(Op::SetVap(_, vap)) if !vap.activated)),
            "{seen:?}"
        );
        assert!(open(&w));
    }
}

#[test]
fn v10_an_activate_that_is_refused_leaves_it_associated() {
    let mut w = World::started(V4, &[]);
    associated(&mut w, coming());
    w.activate("web");
    let seen = w.seen();
    let sent = seen.iter().find_map(|s| match s {
        Seen::Heard(0, Heard::Registered { id, .. }) => Some(*id),
        _ => None,
    });
    let seen = w.hears(0, &oracle::reject(sent.unwrap(), mac(1), RejectReason::NotASitePrefix));
    assert!(matches!(attached(&seen), Some(Err(Refused::Registration { .. }))), "{seen:?}");
    assert!(!open(&w) && w.tables.fdb.is_empty());
    assert_eq!(wanted(&w), [false]);
    assert!(!seen.iter().any(|s| matches!(s, Seen::Call(_))), "no grant is given back");
    assert_eq!(w.core.tsis().count(), 1);
}

#[test]
fn h5_deactivate_takes_it_out_of_service_and_keeps_what_is_its_own() {
    for f in BOTH {
        let mut w = World::started(f, &["web"]);
        w.deactivate("web");
        let seen = w.seen();
        assert!(seen.iter().any(|s| matches!(s, Seen::Deactivated(_, Ok(())))));
        assert!(!open(&w) && w.tables.vaps.len() == 1 && w.tables.fdb.is_empty());
        assert!(seen.iter().any(|s| matches!(s, Seen::Heard(0, Heard::Registered { ttl: 0, .. }))));
        assert_eq!(wanted(&w), [false]);
        // A new session does not put it back in service, nor does the list of grants.
        w.session(0, Session::Down);
        w.session(0, Session::Up);
        assert_eq!(registered(&w.grants(11, vec![grant("web", 1)])), []);
        assert!(!open(&w));
        // Its device goes and comes back: still not.
        w.core.handle_device_gone(w.now, device(1).index);
        w.core.handle_device(&device(1));
        w.seen();
        assert!(!open(&w) && w.tables.vaps.len() == 1);
        w.activate("web");
        w.seen();
        assert!(open(&w));
    }
}

/// Until it is Activated where it goes to, whoever sends to it goes on sending here.
#[test]
fn v3_of_what_moves_the_oracle_is_not_told_that_it_is_nowhere() {
    let mut w = World::started(V4, &["web"]);
    let moving = Grant {
        next: Some(Successor { nve: OTHER, epoch: grant("web", 1).epoch.next() }),
        ..grant("web", 1)
    };
    w.grants(11, vec![moving]);
    assert!(open(&w), "to be on the move takes nothing out of service");
    w.deactivate("web");
    let seen = w.seen();
    assert!(!open(&w) && w.tables.fdb.is_empty());
    assert!(!seen.iter().any(|s| matches!(s, Seen::Heard(..))), "{seen:?}");
    // However long it takes: digests say that it is here, and a new session registers it.
    let digest = |seen: &[(Time, Seen)]| -> BTreeSet<u32> {
        let counts = seen.iter().filter_map(|(_, s)| match s {
            Seen::Heard(0, Heard::Digest(_, digest)) => Some(digest.count),
            _ => None,
        });
        counts.collect()
    };
    let long = w.passes(Duration::from_secs(100));
    assert_eq!(digest(&long), BTreeSet::from([3]));
    assert_eq!(withdrawn(&long.into_iter().map(|(_, s)| s).collect::<Vec<_>>()), 0);
    w.session(0, Session::Down);
    assert_eq!(registered(&w.session(0, Session::Up)).len(), 1);
    // It is Activated there: the grant names this NVE no more.
    w.grants(12, vec![]);
    assert!(!open(&w));
    assert!(w.core.attachments().is_empty());
    let long: Vec<Seen> = w.passes(Duration::from_secs(40)).into_iter().map(|(_, s)| s).collect();
    assert_eq!(registered(&long), []);
}

#[test]
fn v3_when_the_move_is_called_off_the_oracle_is_told_that_it_is_out_of_service() {
    let mut w = World::started(V6, &["web"]);
    let next = Some(Successor { nve: OTHER, epoch: grant("web", 1).epoch.next() });
    w.grants(11, vec![Grant { next, ..grant("web", 1) }]);
    w.deactivate("web");
    w.seen();
    let stays = Grant { epoch: Epoch::new(7).unwrap(), ..grant("web", 1) };
    assert_eq!(withdrawn(&w.grants(12, vec![stays])), 1);
    assert!(!open(&w));
    w.activate("web");
    w.seen();
    assert!(open(&w));
}

/// The lists between were not read: it has moved away, and is to come back.
#[test]
fn v5_what_has_moved_away_and_is_to_come_back_is_out_of_service_until_it_does() {
    for f in BOTH {
        let mut w = World::started(f, &["web"]);
        let seen = w.grants(11, vec![coming_back()]);
        assert!(!open(&w) && w.tables.fdb.is_empty());
        assert_eq!((registered(&seen), wanted(&w)), (vec![], vec![false]));
        w.activate("web");
        let seen = w.seen();
        assert!(open(&w));
        assert!(seen.iter().any(|s| matches!(s, Seen::Heard(0, Heard::Registered { version: 7, .. }))));
    }
}

/// web has moved to another NVE and is to move back.
fn coming_back() -> Grant {
    let there = grant("web", 1).epoch.next();
    Grant {
        owner: OTHER,
        epoch: there,
        next: Some(Successor { nve: ME, epoch: there.next() }),
        ..grant("web", 1)
    }
}

/// The agent dies before an Oracle has said that it came: it is its owner's still.
#[test]
fn v4_a_restart_in_the_middle_of_an_activate_takes_nothing_from_its_owner() {
    for f in BOTH {
        let mut w = World::started(f, &[]);
        associated(&mut w, coming());
        w.activate("web");
        w.seen();
        assert!(open(&w));
        let mut after = World::new(f);
        after.core.remember(vec![spec()], Default::default(), &Default::default());
        after.core.restore(after.now, w.core.attachments(), &[device(1)]);
        after.seen();
        assert!(!open(&after) && after.tables.vaps.len() == 1);
        let call = after.call();
        after.core.handle_detach(call, red(), name("web"), false);
        assert_eq!(given_back(&after.seen()), [Held::Granted]);
    }
    // Once it has, it is here after a restart as well.
    let mut after = World::new(V4);
    after.core.remember(vec![spec()], Default::default(), &Default::default());
    after.core.restore(after.now, came().core.attachments(), &[device(1)]);
    after.seen();
    assert!(open(&after));
}

/// web, which moves here, is Activated and an Oracle has said so.
fn came() -> World {
    let mut w = World::started(V4, &[]);
    associated(&mut w, coming());
    w.activate("web");
    let seen = w.seen();
    let sent = seen.iter().find_map(|s| match s {
        Seen::Heard(0, Heard::Registered { id, .. }) => Some(*id),
        _ => None,
    });
    assert!(matches!(attached(&w.ack(0, sent.unwrap(), mac(1))), Some(Ok(_))));
    w
}

/// The agent dies when it has answered, and before what it has answered is on the disk.
fn reborn(disk: Vec<super::super::Attachment>, kernel: &weft_datapath::Tables) -> World {
    let mut after = World::new(V4);
    after.core.remember(vec![spec()], Default::default(), kernel);
    after.core.restore(after.now, disk, &[device(1)]);
    after.core.adopt(after.now, vec![spec()], kernel);
    after.core.keep_orphans(&[device(1)], kernel);
    after.seen();
    after
}

#[test]
fn v4_what_was_activated_at_the_last_moment_goes_on_by_an_oracles_word() {
    let mine = Grant { epoch: Epoch::new(6).unwrap(), ..grant("web", 1) };
    let mut w = World::started(V4, &[]);
    associated(&mut w, coming());
    let disk = w.core.attachments();
    let kernel = came().tables.clone();
    let mut after = reborn(disk.clone(), &kernel);
    assert!(!open(&after), "it may be another's: what was answered nobody here knows");
    after.session(0, Session::Up);
    after.grants(11, vec![coming()]);
    assert!(!open(&after), "so says the store still");
    after.grants(12, vec![mine.clone()]);
    assert!(open(&after) && wanted(&after) == [true]);
    // It never came, or is stopped meanwhile, or somebody else's.
    for change in ["closed", "stopped", "lost"] {
        let kernel = if change == "closed" { w.tables.clone() } else { kernel.clone() };
        let mut after = reborn(disk.clone(), &kernel);
        after.session(0, Session::Up);
        match change {
            "stopped" => after.deactivate("web"),
            "lost" => drop(after.grants(11, vec![])),
            _ => {}
        }
        after.seen();
        after.grants(12, vec![mine.clone()]);
        assert!(!open(&after), "{change}");
    }
}

/// It was this NVE's before: no Oracle has to say so.
#[test]
fn v4_what_its_owner_activated_at_the_last_moment_goes_on_at_once() {
    let mut w = World::started(V4, &["web"]);
    w.deactivate("web");
    w.seen();
    let disk = w.core.attachments();
    w.activate("web");
    w.seen();
    let after = reborn(disk, &w.tables);
    assert!(open(&after) && wanted(&after) == [true]);
}

fn given_back(seen: &[Seen]) -> Vec<Held> {
    let calls = seen.iter().filter_map(|s| match s {
        Seen::Call(ApiCall::Release { held, .. }) => Some(*held),
        _ => None,
    });
    calls.collect()
}

/// The store may say that it is this NVE's a little later than the Oracle did.
#[test]
fn h5_what_came_here_is_given_back_as_what_is_held_here() {
    let here = Held::Activated(coming().next.unwrap().epoch);
    for force in [false, true] {
        let mut w = came();
        let call = w.call();
        w.core.handle_detach(call, red(), name("web"), force);
        assert_eq!(given_back(&w.seen()), [here]);
    }
    // Its device goes for good.
    let mut w = came();
    w.core.handle_device_gone(w.now, device(1).index);
    w.seen();
    let later: Vec<Seen> = w.passes(Duration::from_secs(61)).into_iter().map(|(_, s)| s).collect();
    assert_eq!(given_back(&later), [here]);
    // It is Deactivated before.
    let mut w = came();
    w.deactivate("web");
    let call = w.call();
    w.core.handle_detach(call, red(), name("web"), false);
    assert_eq!(given_back(&w.seen()), [here]);
    // What did not come calls the move off.
    let mut w = World::started(V4, &[]);
    associated(&mut w, coming());
    let call = w.call();
    w.core.handle_detach(call, red(), name("web"), false);
    assert_eq!(given_back(&w.seen()), [Held::Granted]);
}

/// What was written before it was lost may be read after it.
#[test]
fn v5_a_list_from_before_the_loss_puts_nothing_back_in_service() {
    let mut w = World::started(V4, &["web"]);
    let next = Some(Successor { nve: OTHER, epoch: grant("web", 1).epoch.next() });
    w.notify(Rec::At(mac(1), rloc(V4, 2), 6));
    assert!(!open(&w), "the Oracle says that it is elsewhere");
    for grant in [grant("web", 1), Grant { next, ..grant("web", 1) }] {
        w.grants(11, vec![grant]);
        assert!(!open(&w));
    }
    // It comes back by a later word only.
    w.grants(12, vec![Grant { epoch: Epoch::new(7).unwrap(), ..grant("web", 1) }]);
    assert!(open(&w));
}

#[test]
fn h8_what_is_not_attached_or_busy_is_neither_activated_nor_deactivated() {
    let mut w = World::started(V4, &[]);
    for _ in 0..2 {
        w.activate("web");
        w.deactivate("web");
        let seen = w.seen();
        assert!(matches!(attached(&seen), Some(Err(Refused::NotAttached { .. }))));
        assert!(seen.iter().any(|s| matches!(s, Seen::Deactivated(_, Err(Refused::NotAttached { .. })))));
    }
    w.attach(attach("web", 1));
    w.seen();
    w.activate("web");
    w.deactivate("web");
    let seen = w.seen();
    assert!(matches!(attached(&seen), Some(Err(Refused::Busy { .. }))));
    assert!(seen.iter().any(|s| matches!(s, Seen::Deactivated(_, Err(Refused::Busy { .. })))));
}

#[test]
fn v4_a_restart_between_associate_and_activate_forgets_neither() {
    let mut w = World::started(V6, &[]);
    associated(&mut w, coming());
    let kept = w.core.attachments();
    let mut after = World::new(V6);
    after.core.remember(vec![spec()], Default::default(), &Default::default());
    after.core.restore(after.now, kept, &[device(1)]);
    after.seen();
    assert!(!open(&after) && after.tables.vaps.len() == 1);
    assert!(matches!(after.core.tsis().next(), Some(t) if t.state == TsiState::Associated));
    // Fail-static is for owners: it is another's until an Oracle says otherwise.
    after.activate("web");
    assert!(matches!(attached(&after.seen()), Some(Err(Refused::Unanswered { .. }))));
    assert!(!open(&after));
    after.session(0, Session::Up);
    after.activate("web");
    let late = after.passes(Duration::from_secs(6));
    let answer = late.iter().find_map(|(_, seen)| match seen {
        Seen::Attached(_, answer) => Some(answer),
        _ => None,
    });
    assert!(matches!(answer, Some(Err(Refused::Unanswered { .. }))), "not acknowledged in time");
    assert!(!open(&after) && after.tables.vaps.len() == 1);
}
