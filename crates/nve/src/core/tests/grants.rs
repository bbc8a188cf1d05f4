//! What the store grants, and a tenant system that moves: decision 1, requirements V5 and V10.

use super::super::{Device, Fact, Notice, Refused, TsiState, Update};
use super::oracle::Rec;
use super::world::*;
use ::core::time::Duration;
use std::collections::BTreeSet;
use weft_datapath::{IfIndex, Location, Neighbour, Op};
use weft_model::{Epoch, Grant, NveName, Successor, Ttl, TunnelPolicy, VnSpec};

fn lost(seen: &[Seen], tsi: &str) -> bool {
    seen.iter().any(|seen| matches!(seen, Seen::Notice(Notice::LostGrant(lost, _)) if *lost == id(tsi)))
}

#[test]
fn d1_list_without_it_takes_it_out_of_service() {
    let mut w = World::started(V4, &["a", "b"]);
    let seen = w.grants(11, vec![grant("b", 2)]);
    assert!(lost(&seen, "a") && withdrawn(&seen) == 1);
    assert_eq!(releases(&seen), [], "what is not ours is not ours to give back");
    let open: Vec<_> = w.tables.vaps.iter().map(|(device, vap)| (device.0, vap.activated)).collect();
    assert_eq!(open, [(1, false), (2, true)], "closed: the tenant does not get to the host itself");
    assert!(!seen.iter().any(|s| matches!(s, Seen::Op(Op::RemoveVap(_)))), "at no moment");
    assert!(w.core.attachments().iter().all(|a| a.grant.tsi != id("a")), "nor restored");
    assert_eq!(w.grants(12, vec![grant("b", 2)]), [], "once");
}

#[test]
fn d1_list_naming_another_owner_too() {
    let mut w = World::started(V4, &["a"]);
    let mut moved = grant("a", 1);
    moved.owner = OTHER;
    assert!(lost(&w.grants(11, vec![moved]), "a"));
}

#[test]
fn d1_list_older_than_the_grant_says_nothing() {
    let mut w = World::started(V4, &["a"]);
    assert_eq!(w.grants(9, vec![]), []);
    assert!(lost(&w.grants(10, vec![]), "a"));
}

#[test]
fn d1_lost_while_attaching_fails_the_attach() {
    let mut w = World::started(V4, &[]);
    let call = w.attach(attach("a", 1));
    w.granted(call, grant("a", 1));
    let seen = w.grants(11, vec![]);
    assert!(seen.contains(&Seen::Attached(call, Err(Refused::Registration { tsi: id("a") }))));
    assert_eq!((releases(&seen), w.core.tsis().count()), (vec![], 0));
}

#[test]
fn d1_granted_again_is_in_service_again_but_not_for_being_next() {
    let mut w = World::started(V4, &["a"]);
    w.grants(11, vec![]);
    let mut back = grant("a", 1);
    back.owner = OTHER;
    back.next = Some(Successor { nve: ME, epoch: Epoch::new(7).unwrap() });
    let mut next = w.clone();
    assert_eq!(registered(&next.grants(12, vec![back.clone()])), []);
    back = grant("a", 1);
    back.epoch = Epoch::new(7).unwrap();
    // Whoever had it let go of it: it is for the hypervisor to Activate it.
    assert_eq!(registered(&next.grants(13, vec![back.clone()])), []);
    assert_eq!(next.core.tsis().next().unwrap().state, TsiState::Associated);
    next.activate("a");
    assert_eq!(registered(&next.seen()).len(), 1);
    let seen = w.grants(13, vec![back]);
    assert_eq!(registered(&seen).len(), 1);
    assert_eq!(w.core.tsis().next().unwrap().state, TsiState::Activated);
}

#[test]
fn d1_lost_does_not_come_back_with_its_device_and_is_not_released() {
    let mut w = World::started(V4, &["a", "b"]);
    w.grants(11, vec![grant("b", 2)]);
    w.core.handle_device_gone(w.now, IfIndex(1));
    w.seen();
    assert!(!w.tables.vaps.contains_key(&IfIndex(1)));
    w.core.handle_device(&device(1));
    w.seen();
    assert!(!w.tables.vaps[&IfIndex(1)].activated, "never Activated on two NVEs");
    w.core.handle_device_gone(w.now, IfIndex(1));
    w.seen();
    let seen: Vec<_> = w.passes(Duration::from_secs(61)).into_iter().map(|(_, s)| s).collect();
    assert!(seen.contains(&Seen::Notice(Notice::Released(id("a")))));
    assert_eq!((releases(&seen), w.core.tsis().count()), (vec![], 1));
}

#[test]
fn d1_lost_can_be_detached_and_its_device_used_by_another() {
    let mut w = World::started(V4, &["a", "b"]);
    w.grants(11, vec![]);
    let call = w.call();
    w.core.handle_detach(call, red(), name("a"), false);
    let seen = w.seen();
    assert!(seen.contains(&Seen::Detached(call, Ok(()))) && releases(&seen).is_empty());
    assert!(seen.contains(&Seen::Op(Op::RemoveVap(IfIndex(1)))));
    let mut other = attach("c", 2);
    other.device = device(2);
    let call = w.attach(other);
    let seen = w.granted(call, grant("c", 3));
    assert!(!seen.iter().any(|s| matches!(s, Seen::Op(Op::RemoveVap(_)))), "its VAP passes to c");
    let vap = &w.tables.vaps[&IfIndex(2)];
    assert_eq!((vap.mac, vap.activated), (grant("c", 3).mac, true));
    assert_eq!(w.core.tsis().map(|t| t.grant.tsi).collect::<Vec<_>>(), [id("c")]);
    w.attach(attach("b", 4));
    assert!(matches!(w.seen()[..], [Seen::Call(_)]), "and be attached again");
}

/// What Activate, Deactivate and Update say of one whose grant went elsewhere, and what is shown of it.
fn refusals(w: &mut World) -> BTreeSet<String> {
    let shown = w.core.tsis().find(|tsi| tsi.grant.tsi == id("a")).unwrap();
    assert_eq!(shown.state, TsiState::Associated);
    let closed = shown.closed.expect("it is said why nothing passes");
    w.activate("a");
    w.deactivate("a");
    let update = Update {
        vn: red(),
        name: name("a"),
        device: None,
        add: BTreeSet::from([link_local(7)]),
        remove: BTreeSet::new(),
        lease: None,
    };
    let call = w.call();
    w.core.handle_update(w.now, call, update);
    let seen = w.seen();
    let refused = seen.iter().map(|seen| match seen {
        Seen::Attached(_, Err(refused)) | Seen::Deactivated(_, Err(refused)) => refused.to_string(),
        other => panic!("{other:?}"),
    });
    let refused: BTreeSet<String> = refused.collect();
    assert!(seen.len() == 3 && refused.iter().all(|text| text.contains(&closed)), "{refused:?}, {closed}");
    refused
}

#[test]
fn v10_who_asks_for_what_is_lost_is_told_where_it_went() {
    let holder = || NveName::new("h2").unwrap();
    let said = |went: &dyn Fn(&mut World)| {
        let mut w = World::started(V4, &["a", "b"]);
        went(&mut w);
        let mut refused = refusals(&mut w).into_iter();
        (refused.next().unwrap(), refused.next(), w)
    };
    let mut elsewhere = grant("a", 1);
    (elsewhere.owner, elsewhere.epoch) = (OTHER, Epoch::new(6).unwrap());
    let taken = Fact::GrantWent { revision: 11, grant: elsewhere.clone(), holder: holder() };
    let (text, more, _) = said(&|w| {
        w.core.handle_fact(taken.clone());
        assert!(lost(&w.seen(), "a"));
        assert_eq!(w.grants(11, vec![grant("b", 2)]), [], "the list says the same");
    });
    let wanted = "red/a is out of service here: granted to NVE 'h2' (epoch 6); use it there, or move it back by `weft tsi move`";
    assert_eq!((text.as_str(), more), (wanted, None));
    // A list says no more than that it is not here, until the change is heard of.
    let (text, _, mut w) = said(&|w| drop(w.grants(11, vec![grant("b", 2)])));
    assert!(text.contains("not granted to this NVE any more; `weft get tsis` shows who has it"), "{text}");
    w.core.handle_fact(taken.clone());
    assert_eq!((w.seen(), refusals(&mut w).pop_first().as_deref()), (vec![], Some(wanted)));
    // Nobody's: it is told as it was.
    let (text, _, mut w) = said(&|w| {
        w.core.handle_fact(Fact::GrantWent { revision: 11, grant: grant("a", 1), holder: holder() });
        w.seen();
    });
    assert!(text.contains("released: nobody holds it; attach it anew, or detach it here"), "{text}");
    // What is from before is not heard, and one that is granted again is not lost.
    let mut back = grant("a", 1);
    back.epoch = Epoch::new(7).unwrap();
    w.grants(13, vec![back, grant("b", 2)]);
    w.core.handle_fact(taken);
    assert_eq!(w.seen(), []);
    assert_eq!(w.core.tsis().find(|tsi| tsi.grant.tsi == id("a")).unwrap().closed, None);
}

/// An answer waits until the program runs; what the watches say meanwhile they say once.
#[test]
fn v5_an_answer_that_waited_undoes_nothing_that_is_newer() {
    let answered = |between: &dyn Fn(&mut World)| {
        let mut w = World::started(V4, &["b"]);
        let call = w.attach(attach("a", 2));
        between(&mut w);
        let seen = w.granted_at(10, call, grant("a", 2));
        (w, seen)
    };
    let limited = || {
        let tunnel = TunnelPolicy { ttl: Some(Ttl::new(9).unwrap()), ..TunnelPolicy::default() };
        VnSpec { tunnel, ..spec() }
    };
    let (w, _) = answered(&|w| w.core.handle_fact(Fact::Vn(limited())));
    assert_eq!(w.core.vns().next().unwrap().tunnel, limited().tunnel, "the watch has the last word");
    // Also of one that is attached anew, and is all that the VN is known for.
    let mut w = World::started(V4, &["a"]);
    w.core.handle_device_gone(w.now, IfIndex(1));
    w.seen();
    let call = w.attach(attach("a", 2));
    w.core.handle_fact(Fact::Vn(limited()));
    w.granted_at(10, call, grant("a", 1));
    assert_eq!(w.core.vns().next().unwrap().tunnel, limited().tunnel);
    // The grant has another epoch and other groups by now.
    let mut newer = grant("a", 2);
    (newer.epoch, newer.ips) = (Epoch::new(8).unwrap(), BTreeSet::from([ip(V4, 9)]));
    let (w, _) = answered(&|w| drop(w.grants(11, vec![grant("b", 1), newer.clone()])));
    assert_eq!(w.core.tsis().find(|tsi| tsi.grant.tsi == id("a")).unwrap().grant, newer);
    // It is nobody's any more.
    let (w, seen) = answered(&|w| drop(w.grants(11, vec![grant("b", 1)])));
    assert!(
        seen.iter().any(|s| matches!(s, Seen::Attached(_, Err(Refused::Registration { .. })))),
        "{seen:?}"
    );
    assert_eq!(w.core.tsis().count(), 1);
    // A list from before the grant says nothing about it.
    let (w, _) = answered(&|w| drop(w.grants(10, vec![grant("b", 1)])));
    assert_eq!(w.core.tsis().count(), 2);
}

/// An interface is at a device, not at a name: a stranger that takes the name gets nothing of it.
#[test]
fn h1_a_device_that_is_renamed_stays_its_interfaces() {
    let mut w = World::started(V4, &["a", "b"]);
    let named = |name: &str, index| Device { name: name.to_owned(), index: IfIndex(index), ..device(1) };
    let at = |w: &World, tsi: &str| {
        let found = w.core.tsis().find(|t| t.grant.tsi == id(tsi)).unwrap();
        (found.device, found.state)
    };
    w.core.handle_device(&named("other", 1));
    let renamed = Notice::DeviceRenamed(id("a"), "tap1".to_owned(), "other".to_owned());
    assert!(w.seen().contains(&Seen::Notice(renamed)));
    w.core.handle_device(&named("tap1", 7));
    assert_eq!(w.seen(), [], "a device of that name is nobody's");
    assert_eq!(at(&w, "a"), ("other".to_owned(), TsiState::Activated));
    assert!(w.tables.vaps[&IfIndex(1)].activated && !w.tables.vaps.contains_key(&IfIndex(7)));
    assert!(w.core.attachments().iter().any(|a| a.grant.tsi == id("a") && a.device == "other"));
    // Two that change names.
    for (name, index) in [("tmp", 1), ("other", 2), ("tap2", 1)] {
        w.core.handle_device(&named(name, index));
    }
    w.seen();
    assert_eq!((at(&w, "a").0, at(&w, "b").0), ("tap2".to_owned(), "other".to_owned()));
    // One that is gone waits for its name, unless another interface's device has that by now.
    w.core.handle_device_gone(w.now, IfIndex(2));
    w.core.handle_device(&named("other", 1));
    w.core.handle_device(&named("tap2", 8));
    assert_eq!((at(&w, "a").0, at(&w, "b").0), ("other".to_owned(), String::new()));
    assert_eq!(at(&w, "a").1, TsiState::Activated);
}

/// Connections end with whoever had them, and not with the next one that has the addresses.
#[test]
fn v9_what_was_lost_ends_nothing_of_who_has_its_address_now() {
    let mut w = World::started(V4, &["a", "b"]);
    w.grants(11, vec![grant("b", 2)]);
    let mut next = grant("b", 2);
    next.ips.extend(grant("a", 1).ips);
    let seen = w.grants(12, vec![next]);
    assert!(!seen.iter().any(|s| matches!(s, Seen::ForgetConnections(_))), "{seen:?}");
    let call = w.call();
    w.core.handle_detach(call, red(), name("a"), false);
    let seen = w.seen();
    assert!(seen.contains(&Seen::Detached(call, Ok(()))));
    assert!(!seen.iter().any(|s| matches!(s, Seen::ForgetConnections(_))), "{seen:?}");
}

#[test]
fn d1_more_and_fewer_addresses() {
    for f in BOTH {
        let mut w = World::started(f, &["a", "b"]);
        let mut other = grant("a", 1);
        other.ips.insert(link_local(9));
        other.ips.remove(&ip(f, 1));
        let seen = w.grants(11, vec![other.clone(), grant("b", 2)]);
        assert_eq!(registered(&seen).len(), 1);
        assert_eq!(w.tables.vaps[&IfIndex(1)].ips, other.ips);
        assert!(!w.tables.neighbours.contains_key(&(vni(), ip(f, 1))));
        let at = w.tables.neighbours[&(vni(), link_local(9))];
        assert_eq!(at, Neighbour::At(mac(1)));
        assert_eq!(w.grants(12, vec![other, grant("b", 2)]), []);
    }
}

#[test]
fn v5_told_by_notification_then_known_at_its_new_place() {
    for f in BOTH {
        let mut w = World::started(f, &["a", "b"]);
        let seen = w.notify(Rec::At(mac(1), rloc(f, 3), 6));
        assert!(lost(&seen, "a"));
        let at = w.tables.fdb[&(vni(), mac(1))];
        assert!(
            matches!(at, Location::Remote { rloc: r, .. } if r == rloc(f, 3)),
            "those left behind reach it"
        );
        w.notify(Rec::Owner(ip(f, 1), mac(1), 6));
        assert_eq!(w.tables.neighbours[&(vni(), ip(f, 1))], Neighbour::At(mac(1)));
        // Local again when it moves back.
        let mut back = grant("a", 1);
        back.epoch = Epoch::new(7).unwrap();
        w.grants(20, vec![back, grant("b", 2)]);
        assert_eq!(w.tables.fdb[&(vni(), mac(1))], Location::Local(IfIndex(1)));
    }
}

#[test]
fn v5_only_a_newer_version_on_the_session_counts() {
    let mut w = World::started(V4, &["a", "b"]);
    for version in [0, 3, 5] {
        assert_eq!(w.notify(Rec::At(mac(1), rloc(V4, 3), version)), []);
    }
    assert_eq!(w.notify(Rec::At(mac(1), rloc(V4, 1), 6)), [], "our own");
    // A UDP answer never takes a tenant system away.
    let asked = one_asked(&w.asks(2, ip(V4, 50), false));
    let seen = w.reply(&asked, &[Rec::Owner(ip(V4, 50), mac(50), 1), Rec::At(mac(1), rloc(V4, 3), 6)]);
    assert!(!lost(&seen, "a"));
    assert_eq!(w.core.tsis().filter(|t| t.state == TsiState::Activated).count(), 2);
}

#[test]
fn v5_one_that_moved_away_is_asked_for_like_any_other() {
    for f in BOTH {
        let mut w = World::started(f, &["a", "b"]);
        w.grants(11, vec![grant("b", 2)]);
        let asked = one_asked(&w.asks(2, ip(f, 1), false));
        let seen = w.reply(&asked, &[Rec::Owner(ip(f, 1), mac(1), 6), Rec::At(mac(1), rloc(f, 3), 6)]);
        assert_eq!(injects(&seen), [(2, mac(1))]);
    }
}

#[test]
fn v5_asked_for_and_then_attached_here() {
    for f in BOTH {
        let mut w = World::started(f, &["a"]);
        let asked = one_asked(&w.asks(1, ip(f, 2), false));
        w.sends(1, mac(2));
        let call = w.attach(attach("b", 2));
        let seen = w.granted(call, grant("b", 2));
        assert_eq!(injects(&seen), [(1, mac(2))], "who waits is told at once");
        assert_eq!(w.core.pending(), 0);
        assert_eq!(w.reply(&asked, &[Rec::No(ip(f, 2).into(), 1)]), [], "the late answer is nobody's");
        assert_eq!(w.core.counters().unknown_nonces, 1);
    }
}

#[test]
fn d1_recreated_vn_of_the_same_name() {
    let mut w = World::started(V4, &["a"]);
    w.grants(11, vec![]);
    let mut new = grant("a", 1);
    new.tsi.vni = weft_model::Vni::new(8).unwrap();
    let mut vn = spec();
    vn.vni = new.tsi.vni;
    let call = w.attach(attach("a", 1));
    let answer = super::super::Granted { grant: new.clone(), vn, revision: 20, created: true };
    w.core.handle_granted(w.now, call, Ok(answer));
    w.seen();
    let ids: BTreeSet<_> = w.core.tsis().map(|t| t.grant.tsi).collect();
    assert_eq!(ids, BTreeSet::from([new.tsi]));
}

#[test]
fn d1_an_address_is_with_who_was_granted_it_last() {
    for f in BOTH {
        let mut w = World::started(f, &["a"]);
        // The list that takes 10.0.0.1 from a comes later than the grant that gives it to b.
        let call = w.attach(attach("b", 2));
        let mut new = grant("b", 2);
        new.ips = BTreeSet::from([ip(f, 1)]);
        w.granted(call, new);
        assert!(!w.tables.vaps[&IfIndex(1)].ips.contains(&ip(f, 1)), "a may no longer send from it");
        assert_eq!(w.tables.neighbours[&(vni(), ip(f, 1))], Neighbour::At(mac(2)));
        // A MAC likewise.
        let call = w.attach(attach("c", 3));
        let mut new = grant("c", 3);
        new.mac = grant("a", 1).mac;
        assert!(lost(&w.granted(call, new), "a"));
        assert_eq!(w.tables.fdb[&(vni(), mac(1))], Location::Local(IfIndex(3)));
    }
}

#[test]
fn d1_without_a_grant_in_it_nothing_of_a_vn_is_kept_or_asked() {
    for f in BOTH {
        let mut w = World::started(f, &["a"]);
        w.knows(50, 3, 6);
        w.asks(1, ip(f, 60), false);
        w.grants(11, vec![]);
        assert_eq!((w.core.pending(), w.core.cache().count()), (0, 0));
        assert!(w.tables.fdb.is_empty() && w.tables.neighbours.is_empty());
        let later = w.passes(Duration::from_secs(3_600));
        assert!(later.iter().all(|(_, s)| !matches!(s, Seen::Asked(_))), "it would not be answered");
        assert_eq!(w.core.vns().count(), 1);
        // Granted again it takes part again.
        let again = Grant { epoch: Epoch::new(7).unwrap(), ..grant("a", 1) };
        assert_eq!(registered(&w.grants(12, vec![again])).len(), 1);
        w.knows(50, 3, 6);
    }
}
