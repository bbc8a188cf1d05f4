//! What is changed of an interface while its state stays: requirement H4.

use super::super::{ApiCall, Attached, CallId, Granted, Refused, Update};
use super::oracle::Heard;
use super::world::*;
use std::collections::BTreeSet;
use weft_datapath::{Location, Neighbour};
use weft_model::{Grant, Successor, TenantIp};

fn nothing() -> Update {
    let (add, remove) = (BTreeSet::new(), BTreeSet::new());
    Update { vn: red(), name: name("web"), device: None, add, remove, lease: None }
}

fn update(w: &mut World, update: Update) -> (CallId, Vec<Seen>) {
    let call = w.call();
    w.core.handle_update(w.now, call, update);
    (call, w.seen())
}

fn addresses(w: &mut World, call: CallId, answer: Result<Granted, Refused>) -> Vec<Seen> {
    w.core.handle_addresses(w.now, call, answer);
    w.seen()
}

fn answered(seen: &[Seen]) -> &Result<Attached, Refused> {
    let answer =
        seen.iter().find_map(|s| if let Seen::Attached(_, answer) = s { Some(answer) } else { None });
    answer.unwrap_or_else(|| panic!("not answered: {seen:?}"))
}

fn granted(grant: Grant) -> Result<Granted, Refused> {
    Ok(Granted { grant, vn: spec(), revision: 11, created: false })
}

fn set(ips: &[TenantIp]) -> BTreeSet<TenantIp> {
    ips.iter().copied().collect()
}

#[test]
fn h4_addresses_are_the_store_s_to_give_and_then_in_the_tables() {
    for f in BOTH {
        let mut w = World::started(f, &["web"]);
        w.told();
        let (old, new) = (ip(f, 1), ip(f, 8));
        // One that it has, and one that it has not, are no reason to ask for.
        let wanted = Update { add: set(&[new, ip(V4, 1)]), remove: set(&[old, ip(f, 9)]), ..nothing() };
        let wanted = Update { add: wanted.add.difference(&wanted.remove).copied().collect(), ..wanted };
        let (call, seen) = update(&mut w, wanted);
        let asked =
            ApiCall::Addresses { call, vn: red(), name: name("web"), add: set(&[new]), remove: set(&[old]) };
        assert_eq!(seen, [Seen::Call(asked)]);
        assert!(w.tables.neighbours.contains_key(&(vni(), old)), "nothing is changed before it may be");
        // Nothing else is done to it meanwhile.
        w.deactivate("web");
        assert!(matches!(&w.seen()[..], [Seen::Deactivated(_, Err(Refused::Busy { .. }))]));

        let mut after = grant("web", 1);
        after.ips.remove(&old);
        after.ips.insert(new);
        let seen = addresses(&mut w, call, granted(after.clone()));
        assert_eq!(answered(&seen).as_ref().unwrap().grant, after);
        assert_eq!(w.tables.neighbours.get(&(vni(), new)), Some(&Neighbour::At(mac(1))));
        assert_eq!(w.tables.neighbours.get(&(vni(), old)), None);
        assert_eq!(w.tables.vaps[&device(1).index].ips, after.ips, "what it may send from");
        assert_eq!(registered(&seen).len(), 1, "and the Oracle is told");
        assert_eq!(withdrawn(&seen), 0);
        assert!(seen.contains(&Seen::ForgetConnections(set(&[old]))));
        assert_eq!(w.told(), ["web updated: hypervisor"]);
        assert_eq!(w.core.attachments()[0].grant, after);
        // The list that says the same is no news, and the same once more asks for nothing.
        w.grants(11, vec![after]);
        assert_eq!(w.told(), [""; 0]);
        let (_, seen) = update(&mut w, Update { add: set(&[new]), remove: set(&[old]), ..nothing() });
        assert!(matches!(&seen[..], [Seen::Attached(_, Ok(a))] if a.already), "{seen:?}");
    }
}

#[test]
fn h4_a_refusal_changes_nothing() {
    let mut w = World::started(V6, &["web", "db"]);
    let before = (w.tables.clone(), w.core.attachments());
    // By the store, device included.
    let wanted = Update { device: Some(device(7)), add: set(&[ip(V6, 2)]), ..nothing() };
    let (call, _) = update(&mut w, wanted.clone());
    let seen = addresses(&mut w, call, Err(oracle_says("address_taken")));
    assert!(matches!(answered(&seen), Err(Refused::Oracle { .. })));
    let both = Update { add: set(&[ip(V4, 8)]), remove: set(&[ip(V4, 8)]), ..nothing() };
    let taken = Update { device: Some(device(2)), ..nothing() };
    let nobody = Update { name: name("nobody"), ..nothing() };
    for (wanted, why) in [
        (both, "10.0.0.8 is to be added and removed; leave one of the two away"),
        (taken, "tap2 is already the VAP of"),
        (nobody, "red/nobody is not attached to this NVE"),
    ] {
        let (_, seen) = update(&mut w, wanted);
        let Err(refused) = answered(&seen) else { panic!("{seen:?}") };
        assert!(refused.to_string().starts_with(why) && seen.len() == 1, "{refused}");
    }
    assert_eq!((w.tables.clone(), w.core.attachments()), before);
    // One that is lost meanwhile is not changed either.
    let (call, _) = update(&mut w, wanted);
    w.grants(12, vec![grant("db", 2)]);
    let seen = addresses(&mut w, call, granted(grant("web", 1)));
    assert!(matches!(answered(&seen), Err(Refused::Lost { .. })), "{seen:?}");
}

#[test]
fn h4_at_another_device_it_goes_on_and_no_oracle_need_know() {
    for (f, associated) in [(V4, false), (V6, false), (V4, true)] {
        let mut w = World::started(f, &["web"]);
        if associated {
            w.deactivate("web");
            w.seen();
        }
        w.told();
        let (_, seen) = update(&mut w, Update { device: Some(device(5)), ..nothing() });
        assert_eq!(answered(&seen).as_ref().unwrap().device, "tap5");
        assert_eq!(withdrawn(&seen), 0, "nobody learns that it is nowhere: {seen:?}");
        let open = |n: u32| w.tables.vaps.get(&device(n).index).map(|vap| vap.activated);
        assert_eq!((open(1), open(5)), (Some(false), Some(!associated)));
        let at = (!associated).then_some(Location::Local(device(5).index));
        assert_eq!(w.tables.fdb.get(&(vni(), mac(1))).copied(), at);
        assert_eq!(w.core.attachments()[0].device, "tap5");
        assert_eq!(w.told(), ["web updated: hypervisor"]);
        // The one before is nobody's: it may go, and be another's.
        w.core.handle_device_gone(w.now, device(1).index);
        w.seen();
        assert_eq!(w.told(), [""; 0]);
        w.attached("db", 1);
    }
}

#[test]
fn h4_a_device_in_place_of_one_that_is_gone_ends_its_grace_time() {
    let mut w = World::started(V4, &["web"]);
    w.core.handle_device_gone(w.now, device(1).index);
    w.seen();
    update(&mut w, Update { device: Some(device(3)), ..nothing() });
    w.passes(std::time::Duration::from_secs(100));
    assert!(w.tables.vaps[&device(3).index].activated);
}

#[test]
fn h4_what_moves_here_is_not_this_nve_s_to_change() {
    let mut w = World::started(V4, &[]);
    let here = grant("web", 1);
    let next = Some(Successor { nve: ME, epoch: here.epoch.next() });
    let call =
        w.attach(super::super::Attach { state: super::super::TsiState::Associated, ..attach("web", 1) });
    w.seen();
    w.granted(call, Grant { owner: OTHER, next, ..here });
    // The store names who holds it.
    let (call, seen) = update(&mut w, Update { add: set(&[ip(V4, 8)]), ..nothing() });
    assert!(matches!(&seen[..], [Seen::Call(ApiCall::Addresses { .. })]));
    let seen = addresses(&mut w, call, Err(oracle_says("granted_elsewhere")));
    assert!(matches!(answered(&seen), Err(Refused::Oracle { code, .. }) if code == "granted_elsewhere"));
    // Its device is.
    let (_, seen) = update(&mut w, Update { device: Some(device(4)), ..nothing() });
    assert!(
        answered(&seen).is_ok()
            && !seen.iter().any(|s| matches!(s, Seen::Heard(_, Heard::Registered { .. })))
    );
}
