//! Entries that no frame uses are forgotten rather than asked for again.

use super::super::Session;
use super::world::*;
use ::core::time::Duration;
use weft_model::Eid;

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn what_is_used_is_asked_for_again_and_what_is_not_is_forgotten() {
    for f in BOTH {
        let mut w = World::started(f, &["a"]);
        for n in [50, 51, 52] {
            w.knows(n, 3, 4);
        }
        w.idle.insert(mac(50), Some(9 * MINUTE));
        w.idle.insert(mac(51), Some(10 * MINUTE));
        w.idle.insert(mac(52), None);
        // Four fifths of a quarter of an hour.
        let said: Vec<_> = w.passes(12 * MINUTE).into_iter().map(|(_, seen)| seen).collect();
        let again: Vec<_> = asked(&said).into_iter().map(|asked| asked.eid).collect();
        assert_eq!(again, [Eid::Mac(mac(50)), Eid::Ip(ip(f, 50))]);
        assert_eq!(w.tables.fdb.keys().filter(|(_, m)| *m != mac(1)).count(), 1);
        assert!(!w.tables.neighbours.contains_key(&(vni(), ip(f, 51))));
        assert_eq!(w.core.counters().idle_evicted, 4);
        // Used again, it is asked for as anything unknown.
        assert_eq!(asked(&w.sends(1, mac(51))).len(), 1);
    }
}

#[test]
fn nothing_is_forgotten_while_no_oracle_is_there() {
    let mut w = World::started(V4, &["a"]);
    w.knows(50, 3, 4);
    w.idle.insert(mac(50), None);
    w.session(0, Session::Down);
    w.passes(40 * MINUTE);
    assert!(w.tables.neighbours.contains_key(&(vni(), ip(V4, 50))));
    assert_eq!(w.core.counters().idle_evicted, 0);
    // The first time it comes back it is looked at.
    w.session(0, Session::Up);
    w.passes(MINUTE);
    assert!(!w.tables.neighbours.contains_key(&(vni(), ip(V4, 50))));
}

#[test]
fn what_was_learned_a_moment_ago_has_had_no_time_to_be_used() {
    let mut w = World::started(V4, &["a"]);
    w.passes(30 * MINUTE);
    w.knows(50, 3, 4);
    w.idle.insert(mac(50), None);
    w.session(0, Session::Down);
    w.session(0, Session::Up);
    let said: Vec<_> = w.passes(MINUTE).into_iter().map(|(_, seen)| seen).collect();
    assert!(!asked(&said).is_empty());
    assert_eq!(w.core.counters().idle_evicted, 0);
}
