//! Requirement Lb, and ambiguity 9, in the core: an address that is tried out is defended, and nothing is learned.

use super::super::Fact;
use super::oracle::Rec;
use super::world::*;
use std::collections::BTreeSet;
use weft_datapath::{IfIndex, Location, Neighbour, PuntReason};
use weft_model::{Eid, Learning, MacAddr, VnSpec};

/// Of [`OTHER`].
const NODE: MacAddr = MacAddr::of_node(0x0202_0202);

/// In a VN that translates: tenant systems a and b here, another NVE at the third RLOC.
fn translating(f: Family) -> World {
    let mut w = World::started(f, &["a", "b"]);
    w.core.handle_fact(Fact::Nve(OTHER, BTreeSet::from([rloc(f, 3)])));
    w.core.handle_fact(Fact::Vn(VnSpec { learning: Learning::Translate, ..spec() }));
    w.seen();
    w
}

/// As an Oracle says it of tenant system 50.
fn records(f: Family, at: u8) -> [Rec; 2] {
    [Rec::Owner(ip(f, 50), mac(50), 4), Rec::At(mac(50), rloc(f, at), 4)]
}

/// Nothing but what is attached here.
#[track_caller]
fn untouched(w: &World) {
    assert!(w.tables.fdb.values().all(|at| matches!(at, Location::Local(_))), "{:?}", w.tables.fdb);
    assert_eq!(w.tables.neighbours.len(), 4, "{:?}", w.tables.neighbours);
    assert_eq!(w.core.cache().count(), 0);
}

#[test]
fn lb_probe_is_answered_with_the_owners_nve_and_nothing_is_kept() {
    for f in BOTH {
        let mut w = translating(f);
        for _ in 0..2 {
            let asked = one_asked(&w.asks(1, ip(f, 50), true));
            assert_eq!(w.asks(2, ip(f, 50), true), []);
            let seen = w.reply(&asked, &records(f, 3));
            let [Seen::Inject(IfIndex(1), one), Seen::Inject(IfIndex(2), _)] = &seen[..] else {
                panic!("{seen:?}")
            };
            let to = if f == V4 { mac(1) } else { MacAddr([0x33, 0x33, 0, 0, 0, 1]) };
            assert_eq!(told(one), (NODE, to));
            assert_eq!(w.core.pending(), 0);
            untouched(&w);
        }
        // One record at a time, and all in one.
        let asked = one_asked(&w.asks(1, ip(f, 50), true));
        let next = one_asked(&w.reply(&asked, &records(f, 3)[..1]));
        assert_eq!(next.eid, Eid::Mac(mac(50)));
        assert_eq!(injects(&w.reply(&next, &records(f, 3)[1..])), [(1, NODE)]);
        let asked = one_asked(&w.asks(1, ip(f, 50), true));
        let whole = Rec::Whole(ip(f, 50), mac(50), rloc(f, 3), 4);
        assert_eq!(injects(&w.reply(&asked, &[whole])), [(1, NODE)]);
        untouched(&w);
        // One here as anywhere.
        assert_eq!(injects(&w.asks(1, ip(f, 2), true)), [(1, mac(2))]);
    }
}

#[test]
fn lb_address_of_nobody_is_not_defended_until_somebody_has_it() {
    for f in BOTH {
        let mut w = translating(f);
        let asked = one_asked(&w.asks(1, ip(f, 50), true));
        let seen = w.reply(&asked, &[Rec::No(ip(f, 50).into(), 1)]);
        assert_eq!(injects(&seen), []);
        assert_eq!(w.tables.neighbours[&(vni(), ip(f, 50))], Neighbour::Nobody);
        for rec in records(f, 3) {
            assert_eq!(injects(&w.notify(rec)), []);
        }
        untouched(&w);
        let asked = one_asked(&w.asks(1, ip(f, 50), true));
        assert_eq!(injects(&w.reply(&asked, &records(f, 3))), [(1, NODE)]);
    }
}

#[test]
fn lb_a_location_of_no_other_nve_answers_nobody() {
    for f in BOTH {
        // No NVE is there, this one is.
        for at in [9, 1] {
            let mut w = translating(f);
            let asked = one_asked(&w.asks(1, ip(f, 50), true));
            assert_eq!(w.reply(&asked, &records(f, at)), []);
            assert_eq!(w.core.pending(), 0);
            untouched(&w);
        }
    }
}

#[test]
fn lb_link_local_that_somebody_has() {
    let mut w = translating(V6);
    w.punt(1, PuntReason::LinkLocalClaim, question(1, link_local(1), true));
    w.core.handle_taken(w.now, &id("a"), link_local(1), Err(oracle_says("address_taken")));
    let asked = one_asked(&w.seen());
    let recs = [Rec::Owner(link_local(1), mac(50), 1), Rec::At(mac(50), rloc(V6, 3), 1)];
    assert_eq!(injects(&w.reply(&asked, &recs)), [(1, NODE)]);
    untouched(&w);
}

#[test]
fn lb_what_would_not_be_kept_is_not_asked_for() {
    for f in BOTH {
        let mut w = translating(f);
        assert_eq!(w.asks(1, ip(f, 50), false), [], "asked of the members");
        assert_eq!(w.sends(1, mac(50)), []);
        for rec in records(f, 3) {
            assert_eq!(w.notify(rec), [], "told of, because its tenant system asked for one here");
        }
        untouched(&w);
        // Of its own it says that another NVE has it.
        w.notify(Rec::At(mac(2), rloc(f, 3), 6));
        assert!(!w.tables.fdb.contains_key(&(vni(), mac(2))));
        assert_eq!(w.core.cache().count(), 0);
    }
}

#[test]
fn lb_known_before_the_vn_translated_is_followed_until_its_end() {
    for f in BOTH {
        let mut w = World::started(f, &["a"]);
        w.knows(50, 3, 4);
        w.core.handle_fact(Fact::Vn(VnSpec { learning: Learning::Translate, ..spec() }));
        w.seen();
        w.notify(Rec::At(mac(50), rloc(f, 4), 5));
        let at = w.tables.fdb[&(vni(), mac(50))];
        assert!(matches!(at, Location::Remote { rloc: now, .. } if now == rloc(f, 4)), "{at:?}");
        w.notify(Rec::Gone(mac(50).into()));
        w.notify(Rec::At(mac(50), rloc(f, 4), 6));
        assert!(!w.tables.fdb.contains_key(&(vni(), mac(50))));
    }
}
