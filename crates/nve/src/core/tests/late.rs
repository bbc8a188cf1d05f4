//! Two Oracles, of which one is heard later than the other: requirement M4.

use super::super::Session;
use super::oracle::{self, Rec};
use super::world::*;
use weft_datapath::{Location, Neighbour};
use weft_model::Eid;

/// Whether both halves of what was answered are in the tables.
fn known(w: &World, f: Family) -> [bool; 2] {
    let at = w.tables.fdb.get(&(vni(), mac(50)));
    [
        matches!(at, Some(Location::Remote { .. })),
        w.tables.neighbours.get(&(vni(), ip(f, 50))) == Some(&Neighbour::At(mac(50))),
    ]
}

fn answers(w: &mut World, f: Family, seen: &[Seen]) {
    let asked = one_asked(seen);
    let at = Rec::At(mac(50), rloc(f, 3), 3);
    let whose = Rec::Owner(ip(f, 50), mac(50), 3);
    let recs = if matches!(asked.eid, Eid::Mac(_)) { vec![at] } else { vec![whose, at] };
    w.reply(&asked, &recs);
}

#[test]
fn m4_a_late_withdrawal_of_one_oracle_takes_nothing_of_anothers_answer() {
    for f in BOTH {
        let mut w = World::started(f, &["a"]);
        w.session(1, Session::Up);
        let seen = w.asks(1, ip(f, 50), false);
        answers(&mut w, f, &seen);
        for eid in [Eid::Mac(mac(50)), Eid::Ip(ip(f, 50))] {
            let seen = w.hears(1, &oracle::notification(Rec::Gone(eid)));
            assert_eq!(known(&w, f), [true; 2], "{eid:?}: it was said of what was before");
            // Who knows is asked, and may say otherwise.
            assert_eq!(one_asked(&seen).eid, eid);
            answers(&mut w, f, &seen);
        }
        // By its own word it goes.
        w.notify(Rec::Gone(mac(50).into()));
        assert_eq!(known(&w, f), [false, true]);
    }
}

#[test]
fn m4_a_withdrawal_counts_when_who_answered_is_not_heard() {
    for f in BOTH {
        let mut w = World::started(f, &["a"]);
        w.session(1, Session::Up);
        let seen = w.asks(1, ip(f, 50), false);
        answers(&mut w, f, &seen);
        w.session(0, Session::Down);
        for eid in [Eid::Mac(mac(50)), Eid::Ip(ip(f, 50))] {
            w.hears(1, &oracle::notification(Rec::Gone(eid)));
        }
        assert_eq!(known(&w, f), [false; 2]);
    }
}
