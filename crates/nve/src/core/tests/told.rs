//! What a hypervisor is told without having asked: requirement H6. That it is all there is to know, in order, holds in
//! every test: see [`World::seen`].

use super::super::{Fact, Granted, Happened, TsiState, Update};
use super::oracle::Rec;
use super::world::*;
use ::core::time::Duration;
use std::collections::BTreeSet;
use weft_datapath::PuntReason;
use weft_model::{Epoch, Grant, Successor};

#[test]
fn h6_each_change_is_told_once_with_its_reason() {
    for f in BOTH {
        let mut w = World::started(f, &["web"]);
        assert_eq!(w.told(), ["web associated: hypervisor", "web activated: hypervisor"]);
        // The same once more is no news.
        w.attach(attach("web", 1));
        w.seen();
        w.grants(11, vec![grant("web", 1)]);
        assert_eq!(w.told(), [""; 0]);
        w.deactivate("web");
        w.seen();
        assert_eq!(w.told(), ["web deactivated: hypervisor"]);
        w.activate("web");
        for (oracle, sent) in registered(&w.seen()) {
            w.ack(oracle, sent, mac(1));
        }
        assert_eq!(w.told(), ["web activated: hypervisor"]);
        let mut more = grant("web", 1);
        more.ips.insert(ip(f, 77));
        w.grants(12, vec![more]);
        assert!(w.events[0].now.as_ref().unwrap().grant.ips.contains(&ip(f, 77)));
        assert_eq!(w.told(), ["web updated: grant"]);
        w.core.handle_device_gone(w.now, device(1).index);
        w.seen();
        assert_eq!(w.told(), ["web deactivated: device_gone"]);
        w.core.handle_device(&device(1));
        w.seen();
        assert_eq!(w.told(), ["web activated: device_back"]);
        w.core.handle_device_gone(w.now, device(1).index);
        w.seen();
        w.passes(Duration::from_secs(61));
        assert_eq!(w.told(), ["web deactivated: device_gone", "web de-associated: device_stayed_away"]);
        assert!(w.known.is_empty());
    }
}

#[test]
fn h6_where_it_went_is_told_as_far_as_it_is_known() {
    for f in BOTH {
        let held = grant("web", 1);
        let next = Some(Successor { nve: OTHER, epoch: held.epoch.next() });
        // The grant said where.
        let mut w = World::started(f, &["web"]);
        w.told();
        w.grants(11, vec![Grant { next, ..held.clone() }]);
        assert_eq!(w.told(), ["web updated: grant"]);
        w.grants(12, vec![]);
        assert_eq!(w.told(), ["web deactivated: moved", "web de-associated: moved"]);
        // An Oracle's word on the session did.
        let mut w = World::started(f, &["web"]);
        w.told();
        w.core.handle_fact(Fact::Nve(OTHER, BTreeSet::from([rloc(f, 2)])));
        w.notify(Rec::At(mac(1), rloc(f, 2), 6));
        assert_eq!(w.told(), ["web deactivated: moved", "web de-associated: moved"]);
        // It is nobody's, or who knows whose.
        let mut w = World::started(f, &["web"]);
        w.told();
        w.grants(11, vec![]);
        assert_eq!(w.told(), ["web deactivated: grant_lost", "web de-associated: grant_lost"]);
        // It is granted again.
        w.grants(12, vec![Grant { epoch: Epoch::new(9).unwrap(), ..held }]);
        assert_eq!(w.told(), ["web associated: grant", "web activated: grant"]);
    }
}

/// The list of grants may tell of it before the answer does.
#[test]
fn h6_what_the_hypervisor_has_asked_for_is_its_own_doing() {
    for f in BOTH {
        let mut w = World::started(f, &["web"]);
        w.told();
        let mut more = grant("web", 1);
        more.ips.insert(ip(f, 77));
        let call = w.call();
        let (add, remove) = (BTreeSet::from([ip(f, 77)]), BTreeSet::new());
        let update = Update { vn: red(), name: name("web"), device: None, add, remove, lease: None };
        w.core.handle_update(w.now, call, update);
        w.seen();
        w.grants(11, vec![more.clone()]);
        assert_eq!(w.told(), ["web updated: hypervisor"]);
        let answer = Granted { grant: more, vn: spec(), revision: 11, created: false };
        w.core.handle_addresses(w.now, call, Ok(answer));
        w.seen();
        let call = w.call();
        w.core.handle_detach(call, red(), name("web"), false);
        let (release, _) = releases(&w.seen()).remove(0);
        w.grants(12, vec![]);
        w.core.handle_released(release, Ok(()));
        w.seen();
        assert_eq!(w.told(), ["web deactivated: hypervisor", "web de-associated: hypervisor"]);
    }
}

#[test]
fn h6_a_vn_that_is_deleted_is_the_reason() {
    let mut w = World::started(V4, &["web"]);
    w.told();
    w.core.handle_fact(Fact::VnGone(vni()));
    w.seen();
    w.grants(11, vec![]);
    assert_eq!(w.told(), ["web deactivated: vn_deleted", "web de-associated: vn_deleted"]);
}

#[test]
fn h6_what_fails_was_never_told() {
    let mut w = World::started(V6, &[]);
    w.verdict = Some(Err("no".to_owned()));
    let call = w.attach(attach("web", 1));
    w.seen();
    w.granted(call, grant("web", 1));
    assert_eq!(w.told(), [""; 0]);
    // What was Associated before an Activate that fails still is.
    w.verdict = Some(Ok(()));
    let call = w.attach(super::super::Attach { state: TsiState::Associated, ..attach("db", 2) });
    w.seen();
    w.granted(call, grant("db", 2));
    assert_eq!(w.told(), ["db associated: hypervisor"]);
    w.verdict = Some(Err("no".to_owned()));
    w.activate("db");
    w.seen();
    assert_eq!(w.told(), [""; 0]);
}

#[test]
fn h6_an_address_in_conflict_is_told() {
    let mut w = World::started(V6, &["web"]);
    w.told();
    w.punt(1, PuntReason::LinkLocalClaim, question(1, link_local(9), true));
    w.core.handle_taken(w.now, &id("web"), link_local(9), Err(oracle_says("address_taken")));
    w.seen();
    assert!(matches!(&w.events[..], [e] if matches!(&e.happened, Happened::Conflict(ip, why)
        if *ip == link_local(9) && why.contains("address_taken"))));
}
