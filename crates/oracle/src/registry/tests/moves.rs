//! Who is next, and who has become the owner.

use super::*;
use weft_model::{Grant, Successor};

fn name(id: u8) -> NveName {
    NveName::new(format!("nve{id}")).unwrap()
}

/// Three NVEs, and web1 in VN red on the first.
fn moving() -> (Registry, Grant) {
    let r = memory();
    for id in 1..=3 {
        enrol(&r, id);
    }
    block(r.create_vn(new_vn("red", None, &["10.0.0.0/24"]))).unwrap();
    let (granted, _) = block(r.grant(wish("red", "web1", XtrId([1; 16]), &[]))).unwrap();
    (r, granted.view.grant)
}

fn to(r: &Registry, id: u8, caller: Caller) -> Result<Grant, RegistryError> {
    block(r.name_next(n("red"), n("web1"), name(id), caller)).map(|(view, _)| view.grant)
}

fn now(r: &Registry) -> (String, Grant) {
    let tx = r.snapshot().unwrap();
    let view = read::<weft_api::GrantView>(&*tx, &keys::grant(4097.try_into().unwrap(), &n("web1")));
    let view = view.unwrap().unwrap();
    (view.nve.to_string(), view.grant)
}

fn next(id: u8, epoch: u32) -> Option<Successor> {
    Some(Successor { nve: XtrId([id; 16]), epoch: Epoch::new(epoch).unwrap() })
}

fn held(r: &Registry, id: u8) -> usize {
    r.held(&*r.snapshot().unwrap(), XtrId([id; 16])).unwrap().len()
}

#[test]
fn v5_who_is_next_becomes_the_owner_once_it_has_activated() {
    let (r, before) = moving();
    let (id, second) = (before.tsi.clone(), Epoch::FIRST.next());
    block(r.succeed(id.clone(), XtrId([2; 16]), second)).unwrap();
    assert_eq!(now(&r).1, before, "nobody had named it");
    assert_eq!(to(&r, 2, nve(1)).unwrap().next, next(2, 2));
    assert_eq!((held(&r, 1), held(&r, 2)), (1, 1), "both see it");
    assert_eq!(to(&r, 2, Caller::Operator).unwrap().next, next(2, 2), "once more is nothing new");
    let (found, _) = block(r.grant(wish("red", "web1", XtrId([2; 16]), &[]))).unwrap();
    assert!(!found.created);
    block(r.succeed(id.clone(), XtrId([2; 16]), second.next())).unwrap();
    assert_eq!(now(&r).0, "nve1", "not with another epoch");
    block(r.succeed(id, XtrId([2; 16]), second)).unwrap();
    let (owner, grant) = now(&r);
    assert_eq!(
        (owner.as_str(), grant.owner, grant.epoch, grant.next),
        ("nve2", XtrId([2; 16]), second, None)
    );
    assert_eq!((held(&r, 1), held(&r, 2)), (0, 1));
    block(r.release(n("red"), n("web1"), nve(2), |_| Presence::Gone)).unwrap();
    assert_eq!(block(r.grant(wish("red", "web1", XtrId([1; 16]), &[]))).unwrap().0.view.grant.epoch.get(), 3);
}

#[test]
fn v10_nobody_takes_what_is_anothers_by_itself() {
    let (r, before) = moving();
    for (id, caller) in [(2, nve(2)), (3, nve(2)), (1, nve(2))] {
        let refused = to(&r, id, caller).unwrap_err();
        assert!(matches!(refused, RegistryError::GrantedElsewhere { owner, .. } if owner == name(1)));
    }
    assert_eq!(
        to(&r, 1, nve(1)).unwrap_err().to_string(),
        "'web1' in VN 'red' is on NVE 'nve1' already; name another to move it to"
    );
    assert!(matches!(to(&r, 9, nve(1)), Err(RegistryError::NoNve(_))));
    let none = block(r.name_next(n("red"), n("web9"), name(2), Caller::Operator));
    assert!(matches!(none, Err(RegistryError::NoTsi { .. })));
    assert_eq!(now(&r).1, before);
    // Nor does who is next name another, or a third call it off.
    to(&r, 2, nve(1)).unwrap();
    assert!(matches!(to(&r, 3, nve(2)), Err(RegistryError::GrantedElsewhere { .. })));
    let third = block(r.call_off(n("red"), n("web1"), nve(3)));
    assert!(matches!(third, Err(RegistryError::GrantedElsewhere { .. })));
    assert_eq!(now(&r).1.next, next(2, 2));
}

#[test]
fn v5_a_move_that_is_called_off_or_redirected_leaves_no_epoch_to_two() {
    let (r, _) = moving();
    to(&r, 2, nve(1)).unwrap();
    assert_eq!(to(&r, 3, nve(1)).unwrap().next, next(3, 3), "2 was promised to another");
    assert_eq!((held(&r, 2), held(&r, 3)), (0, 1));
    for caller in [nve(3), nve(1), Caller::Operator] {
        block(r.call_off(n("red"), n("web1"), caller)).unwrap();
        assert_eq!((now(&r).1.epoch.get(), now(&r).1.next), (4, None), "above the one that was promised");
    }
    assert_eq!(to(&r, 2, nve(1)).unwrap().next, next(2, 5));
}

#[test]
fn v5_an_owner_that_lets_go_in_the_middle_lets_go_to_who_is_next() {
    let (r, before) = moving();
    to(&r, 2, nve(1)).unwrap();
    block(r.release(n("red"), n("web1"), nve(1), |_| Presence::Gone)).unwrap();
    let (owner, grant) = now(&r);
    assert_eq!((owner.as_str(), grant.epoch.get(), grant.next), ("nve2", 2, None));
    assert_eq!((grant.mac, grant.ips), (before.mac, before.ips));
    // Who was to be next does not come: the move is off. Not by a call that is meant for what is one's own.
    to(&r, 3, nve(2)).unwrap();
    let refused = block(r.release_owned(n("red"), n("web1"), nve(3)));
    assert!(matches!(refused, Err(RegistryError::GrantedElsewhere { .. })));
    assert!(now(&r).1.next.is_some());
    block(r.release(n("red"), n("web1"), nve(3), |_| Presence::Gone)).unwrap();
    assert_eq!((now(&r).0.as_str(), now(&r).1.next), ("nve2", None));
    // By force nothing is left of it.
    to(&r, 1, nve(2)).unwrap();
    block(r.release(n("red"), n("web1"), Caller::Operator, |_| Presence::Gone)).unwrap();
    assert_eq!([1, 2, 3].map(|id| held(&r, id)), [0; 3]);
}

/// An Oracle has acknowledged it already, and the store does not say so yet.
#[test]
fn h5_what_is_activated_where_it_moved_to_is_freed_and_not_given_back() {
    let (r, before) = moving();
    let give = |id: u8, epoch: u32| {
        let epoch = Epoch::new(epoch).unwrap();
        block(r.release_activated(n("red"), n("web1"), nve(id), epoch)).map(|(released, _)| released)
    };
    let next = to(&r, 2, nve(1)).unwrap().next.unwrap();
    assert!(matches!(give(3, 2), Err(RegistryError::GrantedElsewhere { .. })));
    let Ok(Released::Freed(view)) = give(2, next.epoch.get()) else { panic!("it is held there") };
    assert_eq!((view.nve.as_str(), view.grant.owner), ("nve2", XtrId([2; 16])));
    assert_eq!([1, 2].map(|id| held(&r, id)), [0; 2]);
    block(r.succeed(before.tsi.clone(), next.nve, next.epoch)).unwrap();
    let (again, _) = block(r.grant(wish("red", "web1", XtrId([1; 16]), &[]))).unwrap();
    assert_eq!((again.created, again.view.grant.epoch.get()), (true, 3), "word of it comes too late");
    // What it had Activated was called off, and now it is merely next; and an owner's goes to who is.
    assert_eq!(to(&r, 2, nve(1)).unwrap().next.unwrap().epoch.get(), 4);
    assert!(matches!(give(2, 2), Ok(Released::CalledOff(_))));
    to(&r, 2, nve(1)).unwrap();
    assert!(matches!(give(1, 5), Ok(Released::HandedOver(view)) if view.nve.as_str() == "nve2"));
    assert!(matches!(give(2, 6), Ok(Released::Freed(_))));
}

#[test]
fn v5_an_nve_that_is_removed_holds_up_no_move() {
    let (r, _) = moving();
    to(&r, 2, nve(1)).unwrap();
    block(r.remove_nve(name(2), true)).unwrap();
    assert_eq!((now(&r).0.as_str(), now(&r).1.next), ("nve1", None));
    to(&r, 3, nve(1)).unwrap();
    block(r.remove_nve(name(1), true)).unwrap();
    assert_eq!((now(&r).0.as_str(), now(&r).1.next), ("nve3", None));
    assert_eq!(held(&r, 3), 1);
}

/// V10: on purpose, by an operator.
#[test]
fn v10_taken_over_whoever_had_it_or_was_next() {
    let (r, _) = moving();
    let take = |id, caller| {
        block(r.take_over(n("red"), n("web1"), name(id), caller, |_| Presence::Gone))
            .map(|(view, _)| view.grant)
    };
    for id in [1, 2, 3] {
        assert!(matches!(take(2, nve(id)), Err(RegistryError::Forbidden(_))));
    }
    assert!(matches!(take(1, Caller::Operator), Err(RegistryError::MovesNowhere { .. })));
    assert!(matches!(take(9, Caller::Operator), Err(RegistryError::NoNve(_))));
    assert_eq!(now(&r).1.owner, XtrId([1; 16]), "nothing has changed");
    // Whoever may have it in service must be gone: its owner, or who was to be next; who gets it may be there.
    to(&r, 3, nve(1)).unwrap();
    for there in [1, 3] {
        let take = |presence| {
            let is_there = move |nve| if nve == XtrId([there; 16]) { presence } else { Presence::Gone };
            block(r.take_over(n("red"), n("web1"), name(2), Caller::Operator, is_there)).unwrap_err()
        };
        let refused = take(Presence::Connected);
        assert!(matches!(refused, RegistryError::HolderConnected { nve, .. } if nve == name(there)));
        assert!(matches!(take(Presence::Unheard), RegistryError::HolderUnheard { .. }));
    }
    let taken = take(2, Caller::Operator).unwrap();
    // Epoch 2 was the other's, who may have it Activated already.
    assert_eq!((taken.owner, taken.epoch.get(), taken.next), (XtrId([2; 16]), 3, None));
    assert_eq!([1, 2, 3].map(|id| held(&r, id)), [0, 1, 0]);
    assert!(
        matches!(block(r.grant(wish("red", "web1", XtrId([1; 16]), &[]))), Err(RegistryError::GrantedElsewhere { owner, .. }) if owner == name(2))
    );
    // And by who was next: at an epoch that no claim of before names.
    to(&r, 1, nve(2)).unwrap();
    let taken = take(1, Caller::Operator).unwrap();
    assert_eq!((taken.owner, taken.epoch.get(), taken.next), (XtrId([1; 16]), 5, None));
    assert_eq!([1, 2, 3].map(|id| held(&r, id)), [1, 0, 0]);
}

/// What it asks for may be on its way when it dies, and come when the next one has been granted the same.
#[test]
fn h8_what_an_agent_asked_for_that_is_gone_frees_nothing_of_the_next_ones() {
    let (r, before) = moving();
    let by = |start| Caller::Nve { xtr_id: XtrId([1; 16]), name: name(1), start };
    let asks = |start| {
        block(r.grant(Wish { start, ..wish("red", "web1", XtrId([1; 16]), &[]) })).map(|(granted, _)| granted)
    };
    assert!(!asks(Some(7)).unwrap().created);
    assert!(!asks(Some(8)).unwrap().created, "the agent was started again");
    for late in [
        block(r.release(n("red"), n("web1"), by(Some(7)), |_| Presence::Gone)).map(drop),
        block(r.release_owned(n("red"), n("web1"), by(Some(7)))).map(drop),
        block(r.release_activated(n("red"), n("web1"), by(Some(7)), Epoch::FIRST)).map(drop),
        asks(Some(7)).map(drop),
    ] {
        let refused = late.unwrap_err();
        assert!(matches!(refused, RegistryError::Outlived { start: 7, latest: 8, .. }), "{refused}");
        assert!(!refused.to_string().contains('\n'));
    }
    assert_eq!(now(&r).1, before, "nothing has changed");
    // Another NVE's starts are its own, and an agent that does not say is taken at its word.
    block(r.grant(Wish { start: Some(1), ..wish("red", "web2", XtrId([2; 16]), &[]) })).unwrap();
    block(r.release(n("red"), n("web1"), by(None), |_| Presence::Gone)).unwrap();
    assert!(asks(Some(8)).unwrap().created);
    block(r.release(n("red"), n("web1"), by(Some(8)), |_| Presence::Gone)).unwrap();
}
