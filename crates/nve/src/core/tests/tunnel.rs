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
    let at = |n, four, six| Rec::Behind(mac(n), [(rloc(V4, 9), four, 100), (rloc(V6, 9), six, 0)], 1);
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

/// A change of weights is registered, too. Beside an IPv4 RLOC an IPv6 one has no part unless one is set.
#[test]
fn rlocs_are_registered_with_their_weights() {
    let weights = |seen: &[Seen]| -> Vec<Vec<u8>> {
        let of = |seen: &Seen| match seen {
            Seen::Heard(0, Heard::Registered { weights, .. }) => Some(weights.clone()),
            _ => None,
        };
        seen.iter().filter_map(of).collect()
    };
    let world = |families: &[Family]| {
        let rlocs = families.iter().map(|f| rloc(*f, 1)).collect();
        let mut w = World::with(families[0], |config| config.rlocs = rlocs);
        w.session(0, Session::Up);
        let call = w.attach(attach("a", 1));
        w.seen();
        let seen = w.granted(call, grant("a", 1));
        (w, weights(&seen))
    };
    assert_eq!(world(&[V4]).1, [[100]]);
    assert_eq!(world(&[V6]).1, [[100]]);
    let (mut w, first) = world(&[V4, V6]);
    assert_eq!(first, [[100, 0]]);
    let vn = |w: &mut World, text: &str| {
        w.core.handle_fact(Fact::Vn(VnSpec { tunnel: policy(text), ..spec() }));
        weights(&w.seen())
    };
    assert_eq!(vn(&mut w, r#"{"ipv6_weight":100}"#), [[100, 100]]);
    assert_eq!(vn(&mut w, r#"{"ipv6_weight":100,"ttl":3}"#), [[0; 0]; 0]);
    let own = Grant { tunnel: policy(r#"{"ipv4_weight":7}"#), ..grant("a", 1) };
    assert_eq!(weights(&w.grants(20, vec![own])), [[7, 100]]);
}

/// RFC 9301 section 5.4: of RLOCs with the lowest priority each gets its part, none for a weight of 0, and equal ones where
/// all have 0; whether an NVE asked or was told.
#[test]
fn flows_are_shared_as_weights_say() {
    let both = [V4, V6];
    const ALL: u64 = 1 << 32;
    for (own, four, six, chosen, other) in [
        (&both[..], (1, 100), (1, 100), V4, ALL / 2),
        (&both, (1, 0), (1, 0), V4, ALL / 2),
        (&both, (1, 30), (1, 10), V4, ALL / 4),
        (&both, (1, 1), (1, 255), V4, ALL / 256 * 255),
        (&both, (1, 100), (1, 0), V4, 0),
        (&both, (1, 0), (1, 1), V6, 0),
        // Weights are about those of the lowest priority, and of a family that there is here.
        (&both, (2, 100), (1, 100), V6, 0),
        (&both, (1, 0), (2, 100), V4, 0),
        (&both, (255, 100), (255, 100), V4, ALL),
        (&both[..1], (1, 0), (1, 100), V4, 0),
        (&both[1..], (1, 100), (1, 0), V6, 0),
    ] {
        let rlocs = own.iter().map(|f| rloc(*f, 1)).collect();
        let mut w = World::with(own[0], |config| config.rlocs = rlocs);
        w.session(0, Session::Up);
        w.attach_all(&["a"]);
        let asked = one_asked(&w.sends(1, mac(7)));
        let at = [(rloc(V4, 9), four.0, four.1), (rloc(V6, 9), six.0, six.1)];
        w.reply(&asked, &[Rec::Behind(mac(7), at, 1)]);
        let found = w.tables.fdb.get(&(vni(), mac(7))).copied();
        if other == ALL {
            assert!(!matches!(found, Some(Location::Remote { .. })), "{found:?}");
            continue;
        }
        let Some(Location::Remote { rloc: at, other: found, .. }) = found else { panic!("{found:?}") };
        assert_eq!((at, u64::from(found)), (rloc(chosen, 9), other), "{own:?} {four:?} {six:?}");
    }
}

/// The data plane knows of each RLOC of an NVE the one beside it.
#[test]
fn rlocs_of_an_nve_are_known_to_be_one_nves() {
    let mut w = World::started(V4, &[]);
    let beside = |w: &World, f| w.tables.peers.get(&rloc(f, 7).get()).map(|peer| (peer.nve, peer.other));
    let nve = |w: &mut World, families: &[Family]| {
        w.core.handle_fact(Fact::Nve(
            weft_model::XtrId([7; 16]),
            families.iter().map(|f| rloc(*f, 7)).collect(),
        ));
        w.seen();
    };
    nve(&mut w, &[V4]);
    assert_eq!((beside(&w, V4), beside(&w, V6)), (Some((true, None)), None));
    nve(&mut w, &[V4, V6]);
    assert_eq!(beside(&w, V4), Some((true, Some(rloc(V6, 7)))));
    assert_eq!(beside(&w, V6), Some((true, Some(rloc(V4, 7)))));
    nve(&mut w, &[V6]);
    assert_eq!((beside(&w, V4), beside(&w, V6)), (None, Some((true, None))));
}
