//! Tunnel policy: what a VN's and a tenant system's own come to at its VAP, and when.

use super::super::{Fact, Session};
use super::oracle::{Heard, Rec};
use super::world::*;
use std::collections::BTreeSet;
use weft_datapath::{Location, Op, Tunnel};
use weft_model::{Grant, TunnelPolicy, VnSpec};

fn policy(text: &str) -> TunnelPolicy {
    serde_json::from_str(text).unwrap()
}

/// The VAPs that are written, by their numbers.
fn written(seen: &[Seen]) -> Vec<u32> {
    let of = |seen: &Seen| if let Seen::Op(Op::SetVap(at, _)) = seen { Some(at.0) } else { None };
    seen.iter().filter_map(of).collect()
}

impl World {
    fn vn(&mut self, text: &str) -> Vec<u32> {
        self.core.handle_fact(Fact::Vn(VnSpec { tunnel: policy(text), ..spec() }));
        written(&self.seen())
    }

    fn own(&mut self, revision: u64, text: &str) -> Vec<u32> {
        let own = Grant { tunnel: policy(text), ..grant("a", 1) };
        written(&self.grants(revision, vec![own, grant("b", 2)]))
    }

    /// Each VAP's.
    fn tunnels(&self) -> Vec<Tunnel> {
        self.tables.vaps.values().map(|vap| vap.tunnel).collect()
    }
}

/// A change reaches those it is about by one operation each, and nobody else; tenant systems stay in service.
#[test]
fn a_vns_and_its_own() {
    for f in BOTH {
        let mut w = World::started(f, &["a", "b"]);
        assert_eq!(w.tunnels(), [Tunnel::default(); 2]);
        let of = |text: &str| Tunnel::from(policy(text));
        let vn = r#"{"ttl":9,"send_rate":"8mbit"}"#;
        assert_eq!(w.vn(vn), [1, 2]);
        assert_eq!(w.tunnels(), [of(vn); 2]);
        assert_eq!(w.own(20, r#"{"ttl":3,"dscp":"copy"}"#), [1]);
        let both = of(r#"{"ttl":3,"dscp":"copy","send_rate":"8mbit"}"#);
        assert_eq!(w.tunnels(), [both, of(vn)]);
        // What it says itself is not changed by its VN's, and the same again is no change.
        assert_eq!(w.vn(r#"{"ttl":7,"send_rate":"8mbit"}"#), [2]);
        assert_eq!(w.vn(r#"{"ttl":7,"send_rate":"8mbit"}"#), [0_u32; 0]);
        assert_eq!(w.own(21, r#"{"send_rate":"unlimited"}"#), [1]);
        assert_eq!(w.tunnels(), [of(r#"{"ttl":7}"#), of(r#"{"ttl":7,"send_rate":"8mbit"}"#)]);
        assert_eq!((w.own(22, "{}"), w.vn("{}")), (vec![1], vec![1, 2]));
        assert_eq!(w.tunnels(), [Tunnel::default(); 2]);
        assert!(w.tables.vaps.values().all(|vap| vap.activated));
    }
}

/// V9: it is there before anything passes: with the grant, and with what was saved.
#[test]
fn nothing_passes_before_it() {
    let own = Grant { tunnel: policy(r#"{"receive_rate":"1mbit"}"#), ..grant("a", 1) };
    let vn = VnSpec { tunnel: policy(r#"{"dscp":"46"}"#), ..spec() };
    let both = Tunnel::from(policy(r#"{"receive_rate":"1mbit","dscp":"46"}"#));
    let mut w = World::started(V4, &[]);
    w.core.handle_fact(Fact::Vn(vn.clone()));
    let call = w.attach(attach("a", 1));
    w.seen();
    let granted = super::super::Granted { grant: own, vn: vn.clone(), revision: 10, created: true };
    w.core.handle_granted(w.now, call, Ok(granted));
    let seen = w.seen();
    for one in &seen {
        if let Seen::Op(Op::SetVap(_, vap)) = one {
            assert!(vap.tunnel == both || !vap.activated, "{seen:?}");
        }
    }
    assert_eq!(w.tunnels(), [both]);
    let kept = w.core.attachments();
    let mut after = World::new(V4);
    after.core.remember(vec![vn.clone()], Default::default(), &Default::default());
    after.core.restore(after.now, kept, &[device(1)]);
    after.core.adopt(after.now, vec![vn], &w.tables);
    after.seen();
    assert_eq!(after.tunnels(), [both]);
    assert_eq!(after.tables.diff(&w.tables).iter().filter(|op| matches!(op, Op::SetVap(..))).count(), 0);
}

/// RFC 9301 section 5.4: what it registers says which of its RLOCs others are to send to, and a change is registered.
#[test]
fn rlocs_are_registered_with_their_priorities() {
    let both = BTreeSet::from([rloc(V4, 1), rloc(V6, 1)]);
    let mut w = World::with(V4, |config| config.rlocs = both);
    w.session(0, Session::Up);
    w.attach_all(&["a"]);
    let priorities = |seen: &[Seen]| -> Vec<Vec<u8>> {
        let of = |seen: &Seen| match seen {
            Seen::Heard(0, Heard::Registered { rlocs, .. }) => Some(rlocs.iter().map(|(_, p)| *p).collect()),
            _ => None,
        };
        seen.iter().filter_map(of).collect()
    };
    let vn = |w: &mut World, text: &str| {
        w.core.handle_fact(Fact::Vn(VnSpec { tunnel: policy(text), ..spec() }));
        priorities(&w.seen())
    };
    let own = |w: &mut World, revision, text: &str| {
        priorities(&w.grants(revision, vec![Grant { tunnel: policy(text), ..grant("a", 1) }]))
    };
    assert_eq!(vn(&mut w, r#"{"ipv4_priority":7}"#), [[7, 1]]);
    assert_eq!(vn(&mut w, r#"{"ipv4_priority":7,"ttl":3}"#), [[0; 0]; 0]);
    assert_eq!(own(&mut w, 20, r#"{"ipv6_priority":255}"#), [[7, 255]]);
    // That would leave nothing.
    assert_eq!(own(&mut w, 21, r#"{"ipv4_priority":255,"ipv6_priority":255}"#), [[1, 1]]);
    assert_eq!(own(&mut w, 22, "{}"), [[7, 1]]);
    assert_eq!(vn(&mut w, "{}"), [[1, 1]]);
    // Of what is not in service none is to be used.
    w.deactivate("a");
    assert_eq!(priorities(&w.seen()), [[255, 255]]);
}

/// The lowest priority of a family that this NVE has: another is of no use to it, however low.
#[test]
fn rlocs_are_chosen_by_family_and_priority() {
    let at = |n, four, six| Rec::Behind(mac(n), [(rloc(V4, 9), four), (rloc(V6, 9), six)], 1);
    for (own, four, six, chosen) in [
        (vec![V4], 9, 1, V4),
        (vec![V6], 1, 9, V6),
        (vec![V4, V6], 2, 1, V6),
        (vec![V4, V6], 1, 1, V4),
        (vec![V4, V6], 255, 200, V6),
        (vec![V6], 1, 255, V4),
    ] {
        let rlocs = own.iter().map(|f| rloc(*f, 1)).collect();
        let mut w = World::with(own[0], |config| config.rlocs = rlocs);
        w.session(0, Session::Up);
        w.attach_all(&["a"]);
        let asked = one_asked(&w.sends(1, mac(7)));
        w.reply(&asked, &[at(7, four, six)]);
        let Some(Location::Remote { rloc: found, .. }) = w.tables.fdb.get(&(vni(), mac(7))) else {
            panic!("{:?}", w.tables.fdb)
        };
        assert_eq!(*found, rloc(chosen, 9), "{own:?} {four} {six}");
    }
}
