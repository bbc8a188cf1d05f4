//! VAPs in the kernel that the state file does not name: decision 7 after a crash.

use super::super::{ApiCall, Device, Fact, Notice, TsiState};
use super::world::*;
use weft_datapath::{IfIndex, Location, Op, Tables};

/// A crash after a, b and then late were attached; the disk knows of a and b only.
fn crashed(f: Family) -> (World, Tables) {
    let first = World::started(f, &["a", "b", "late"]);
    let mut saved = first.core.attachments();
    saved.retain(|attachment| attachment.grant.tsi != id("late"));
    let mut w = World::new(f);
    let devices: Vec<Device> = (1..=3).map(device).collect();
    w.core.remember(vec![spec()], Default::default(), &Default::default());
    w.core.restore(w.now, saved, &devices);
    w.core.adopt(w.now, vec![spec()], &first.tables);
    w.core.keep_orphans(&devices, &first.tables);
    w.seen();
    let first = first.tables;
    assert_eq!((&w.tables.vaps, &w.tables.fdb), (&first.vaps, &first.fdb), "traffic goes on");
    assert_eq!(w.tables.neighbours, first.neighbours);
    (w, first)
}

fn all() -> Vec<weft_model::Grant> {
    (1..).zip(["a", "b", "late"]).map(|(n, tsi)| grant(tsi, n)).collect()
}

#[test]
fn d7_attached_at_the_last_moment_is_adopted_by_its_grant() {
    for f in BOTH {
        let (mut w, before) = crashed(f);
        let seen = w.grants(11, all());
        assert!(seen.contains(&Seen::Notice(Notice::Activated(id("late"), grant("late", 3).epoch))));
        assert!(seen.iter().any(|s| matches!(s, Seen::Persist(a) if a.len() == 3)), "{seen:?}");
        assert!(!seen.iter().any(|s| matches!(s, Seen::Op(_))), "nothing changes in the kernel");
        assert_eq!(w.tables.vaps, before.vaps);
        let late = w.core.tsis().find(|t| t.grant.tsi == id("late")).unwrap();
        assert_eq!((late.state, late.device.as_str(), late.vn), (TsiState::Activated, "tap3", red()));
        // Whoever asked, and was not answered, is told that it is so.
        w.attach(attach("late", 3));
        assert!(matches!(&w.seen()[..], [Seen::Attached(_, Ok(attached))] if attached.already));
    }
}

#[test]
fn d7_the_name_of_its_vn_may_come_later() {
    for f in BOTH {
        let first = World::started(f, &["late"]);
        let mut w = World::new(f);
        w.core.keep_orphans(&[device(1)], &first.tables);
        w.seen();
        assert_eq!(w.grants(11, vec![grant("late", 1)]), []);
        w.core.handle_fact(Fact::Vn(spec()));
        w.seen();
        assert_eq!(w.core.tsis().next().map(|t| t.state), Some(TsiState::Activated));
        assert_eq!(w.tables.vaps, first.tables.vaps);
    }
}

#[test]
fn d7_without_a_grant_it_is_closed_until_its_device_is_used_or_gone() {
    for f in BOTH {
        let (mut w, _) = crashed(f);
        let mut others = all();
        let mut elsewhere = others.pop().unwrap();
        elsewhere.owner = OTHER;
        others.push(elsewhere);
        w.grants(11, others);
        assert!(!w.tables.vaps[&IfIndex(3)].activated);
        assert!(!w.tables.fdb.contains_key(&(vni(), mac(3))));
        assert!(!w.tables.neighbours.contains_key(&(vni(), ip(f, 3))));
        assert_eq!(w.grants(12, all()), [], "the first list decides");

        // Closed it stays over another restart.
        let mut again = World::new(f);
        again.core.keep_orphans(&[device(3)], &w.tables);
        again.seen();
        assert!(!again.tables.vaps[&IfIndex(3)].activated);
        again.core.handle_device_gone(again.now, IfIndex(3));
        again.seen();
        assert!(again.tables.vaps.is_empty());

        let call = w.attach(attach("new", 3));
        let seen = w.granted(call, grant("new", 9));
        assert!(!seen.iter().any(|s| matches!(s, Seen::Op(Op::RemoveVap(_)))));
        assert!(w.tables.vaps[&IfIndex(3)].activated);
        assert_eq!(w.tables.fdb[&(vni(), mac(9))], Location::Local(IfIndex(3)));
    }
}

#[test]
fn d7_who_is_let_go_meanwhile_is_not_adopted() {
    let (mut w, _) = crashed(V4);
    let call = w.attach(attach("late", 7));
    w.granted(call, grant("late", 3));
    let call = w.call();
    w.core.handle_detach(call, red(), name("late"), true);
    let seen = w.seen();
    assert!(seen.iter().any(|s| matches!(s, Seen::Call(ApiCall::Release { .. }))));
    w.grants(11, all());
    assert_eq!(w.core.tsis().count(), 2);
    assert!(!w.tables.vaps[&IfIndex(3)].activated);
}

#[test]
fn d7_what_the_device_of_a_lost_one_was_stays_closed() {
    let mut w = World::started(V4, &["a", "b"]);
    w.grants(11, vec![grant("b", 2)]);
    let call = w.attach(attach("a", 5));
    let mut back = grant("a", 1);
    back.epoch = weft_model::Epoch::new(8).unwrap();
    w.granted(call, back);
    let open: Vec<_> = w.tables.vaps.iter().map(|(device, vap)| (device.0, vap.activated)).collect();
    assert_eq!(open, [(1, false), (2, true), (5, true)]);
}
