//! Asking the Oracle: requirements N3, N4 and Lc.

use super::super::{OracleAddr, Session};
use super::oracle::Rec;
use super::world::*;
use ::core::time::Duration;
use weft_datapath::{IfIndex, Location, Neighbour, Op, PuntReason};
use weft_model::{Eid, Time};

#[test]
fn lc_request_says_what_is_asked_by_whom_and_where_the_answer_goes() {
    for f in BOTH {
        let mut w = World::started(f, &["a"]);
        let asked = one_asked(&w.asks(1, ip(f, 50), false));
        assert_eq!((asked.to, asked.inner_to), (resolver(f, 0), resolver(f, 0)));
        assert_eq!(
            asked.inner_from.to_string(),
            std::net::SocketAddr::new(rloc(f, 1).get(), 4342).to_string()
        );
        assert_eq!(asked.itr_rlocs, [rloc(f, 1).get()]);
        assert_eq!((asked.vni, asked.eid), (vni(), Eid::Ip(ip(f, 50))));
        assert_eq!(asked.source, Some((vni(), Eid::Ip(ip(f, 1)))), "requirement M2");
    }
}

#[test]
fn lc_family_of_the_underlay_decides_who_is_asked_and_what_from() {
    let mut w = World::with(V4, |c| {
        c.rlocs.insert(rloc(V6, 1));
        c.oracles = vec![OracleAddr { resolver: resolver(V6, 0) }, OracleAddr { resolver: resolver(V4, 1) }];
    });
    w.session(1, Session::Up);
    w.attached("a", 1);
    let asked = one_asked(&w.asks(1, ip(V4, 50), false));
    assert_eq!((asked.to, asked.inner_from.ip()), (resolver(V4, 1), rloc(V4, 1).get()));
    assert_eq!(asked.itr_rlocs, [rloc(V4, 1).get(), rloc(V6, 1).get()], "the family it went by first");
    w.session(0, Session::Up);
    let asked = one_asked(&w.asks(1, ip(V4, 51), false));
    assert_eq!((asked.to, asked.inner_from.ip()), (resolver(V6, 0), rloc(V6, 1).get()));

    // No RLOC of the family: that Oracle cannot be asked.
    let mut w = World::with(V4, |c| c.oracles.truncate(1));
    let mut config = config(V4);
    config.oracles = vec![OracleAddr { resolver: resolver(V6, 0) }];
    let mut alone = World::of(V4, config);
    let call = alone.attach(attach("a", 1));
    alone.granted(call, grant("a", 1));
    assert_eq!(asked_count(&alone.asks(1, ip(V4, 50), false)), 0);
    assert_eq!(alone.passes(Duration::from_secs(20)).len(), 0);
    assert_eq!(w.seen(), []);
}

fn asked_count(seen: &[Seen]) -> usize {
    asked(seen).len()
}

#[test]
fn lc_mapping_is_installed_before_the_answer_whatever_the_order_of_records() {
    for f in BOTH {
        for swapped in [false, true] {
            let mut w = World::started(f, &["a"]);
            let asked = one_asked(&w.asks(1, ip(f, 50), false));
            let mut recs = [Rec::Owner(ip(f, 50), mac(50), 4), Rec::At(mac(50), rloc(f, 3), 4)];
            if swapped {
                recs.reverse();
            }
            let seen = w.reply(&asked, &recs);
            let [
                Seen::Op(Op::SetLocation(v1, m, Location::Remote { rloc: r, epoch, .. })),
                Seen::Op(n),
                Seen::Inject(vap, frame),
            ] = &seen[..]
            else {
                panic!("{seen:?}")
            };
            assert_eq!((*v1, *m, *r, epoch.get()), (vni(), mac(50), rloc(f, 3), 4));
            assert_eq!(*n, Op::SetNeighbour(vni(), ip(f, 50), Neighbour::At(mac(50))));
            assert_eq!((*vap, told(frame)), (IfIndex(1), (mac(50), mac(1))));
            assert_eq!(w.core.pending(), 0);
        }
    }
}

#[test]
fn lc_binding_alone_waits_for_the_location() {
    for f in BOTH {
        let mut w = World::started(f, &["a", "b"]);
        let first = one_asked(&w.asks(1, ip(f, 50), false));
        w.asks(2, ip(f, 50), true);
        let seen = w.reply(&first, &[Rec::Owner(ip(f, 50), mac(50), 4)]);
        assert_eq!(injects(&seen), [], "the first packet would not find its way");
        let second = one_asked(&seen);
        assert_eq!(second.eid, Eid::Mac(mac(50)));
        let seen = w.reply(&second, &[Rec::At(mac(50), rloc(f, 3), 4)]);
        assert_eq!(injects(&seen), [(1, mac(50)), (2, mac(50))]);

        // A location that leads here, where it is not in service, ends the matter.
        let mut w = World::started(f, &["a"]);
        let first = one_asked(&w.asks(1, ip(f, 50), false));
        let second = one_asked(&w.reply(&first, &[Rec::Owner(ip(f, 50), mac(50), 4)]));
        assert_eq!(w.reply(&second, &[Rec::At(mac(50), rloc(f, 1), 4)]), []);
        assert_eq!(w.core.pending(), 0);
    }
}

#[test]
fn lc_whole_teid_in_one_record() {
    for f in BOTH {
        let mut w = World::started(f, &["a"]);
        let asked = one_asked(&w.asks(1, ip(f, 50), false));
        let seen = w.reply(&asked, &[Rec::Whole(ip(f, 50), mac(50), rloc(f, 3), 4)]);
        assert_eq!(injects(&seen), [(1, mac(50))]);
        assert!(w.tables.fdb.contains_key(&(vni(), mac(50))));
    }
}

#[test]
fn n3_many_askers_one_request_each_answered_once() {
    for f in BOTH {
        let mut w = World::started(f, &["a", "b", "c"]);
        let request = one_asked(&w.asks(1, ip(f, 50), false));
        for n in [1, 2, 3, 2, 1] {
            assert_eq!(w.asks(n, ip(f, 50), false), []);
        }
        assert_eq!(w.asks(3, ip(f, 50), true), [], "a probe is another question");
        assert_eq!(w.core.counters().coalesced, 6);
        let seen = w.reply(&request, &[Rec::Owner(ip(f, 50), mac(50), 4), Rec::At(mac(50), rloc(f, 3), 4)]);
        assert_eq!(injects(&seen), [(1, mac(50)), (2, mac(50)), (3, mac(50)), (3, mac(50))]);
        assert_eq!(injects(&w.asks(2, ip(f, 50), false)), [(2, mac(50))], "from the table");
    }
}

#[test]
fn n3_retries_back_off_then_hold() {
    for f in BOTH {
        let mut w = World::started(f, &["a"]);
        let begun = w.now;
        let first = one_asked(&w.asks(1, ip(f, 50), false));
        let later = w.passes(Duration::from_millis(8_399));
        let at: Vec<_> = later.iter().map(|(at, _)| at.since(begun).as_millis()).collect();
        assert_eq!(at, [200, 600, 1_400, 2_400, 3_400, 4_400, 5_400, 6_400, 7_400]);
        for (_, seen) in &later {
            let Seen::Asked(again) = seen else { panic!("{seen:?}") };
            assert_eq!(*again, first, "an answer to any try answers all");
        }
        assert_eq!((w.core.pending(), w.core.counters().unanswered), (1, 0));
        w.passes(Duration::from_millis(1));
        assert_eq!((w.core.pending(), w.core.counters().unanswered), (0, 1));
        assert_eq!(w.asks(1, ip(f, 50), false), [], "held for a second");
        w.passes(Duration::from_millis(999));
        assert_eq!(w.asks(1, ip(f, 50), false), []);
        w.passes(Duration::from_millis(1));
        let again = one_asked(&w.asks(1, ip(f, 50), false));
        assert_ne!(again.nonce, first.nonce);
    }
}

#[test]
fn n3_answer_to_a_late_try_and_then_again() {
    let mut w = World::started(V4, &["a"]);
    let request = one_asked(&w.asks(1, ip(V4, 50), false));
    w.passes(Duration::from_secs(5));
    let recs = [Rec::Owner(ip(V4, 50), mac(50), 4), Rec::At(mac(50), rloc(V4, 3), 4)];
    assert_eq!(injects(&w.reply(&request, &recs)).len(), 1);
    assert_eq!(w.reply(&request, &recs), [], "the answer to the other tries");
    let retries = w.passes(Duration::from_secs(60));
    assert!(retries.iter().all(|(_, s)| !matches!(s, Seen::Asked(_))));
}

#[test]
fn n8_an_answer_that_a_withdrawal_has_overtaken_does_not_count() {
    for f in BOTH {
        for eid in [Eid::Ip(ip(f, 50)), Eid::Mac(mac(50))] {
            let mut w = World::started(f, &["a"]);
            let asks = |w: &mut World| match eid {
                Eid::Ip(ip) => w.asks(1, ip, false),
                Eid::Mac(mac) => w.sends(1, mac),
            };
            let first = one_asked(&asks(&mut w));
            let again = one_asked(&w.notify(Rec::Gone(eid)));
            assert_eq!(again.eid, eid, "it is asked for anew at once");
            let late = [Rec::Owner(ip(f, 50), mac(50), 4), Rec::At(mac(50), rloc(f, 3), 4)];
            assert_eq!(w.reply(&first, &late), []);
            assert_eq!((w.core.pending(), w.core.counters().unknown_nonces), (1, 1));
            w.reply(&again, &[Rec::No(eid, 1)]);
            assert_eq!((w.core.pending(), w.core.counters().negatives), (0, 1));
            assert_eq!(asks(&mut w), []);
            // Nobody asks: there is nothing to ask anew.
            assert_eq!(asked(&w.notify(Rec::Gone(Eid::Ip(ip(f, 51))))), []);
        }
    }
}

#[test]
fn n3_fails_over_to_the_second_oracle() {
    for f in BOTH {
        let mut w = World::started(f, &["a"]);
        let tried = |w: &mut World| {
            let first = asked(&w.asks(1, ip(f, 50), false));
            let rest: Vec<_> = w.passes(Duration::from_secs(3)).into_iter().map(|(_, s)| s).collect();
            w.passes(Duration::from_secs(20));
            first.iter().chain(&asked(&rest)).map(|a| a.to).collect::<Vec<_>>()
        };
        let (one, two) = (resolver(f, 0), resolver(f, 1));
        assert_eq!(tried(&mut w), [one; 5], "the one with a session");
        w.session(1, Session::Up);
        assert_eq!(tried(&mut w), [one, two, one, two, one]);
        w.session(0, Session::Down);
        assert_eq!(tried(&mut w), [two; 5]);
        w.session(1, Session::Down);
        assert_eq!(tried(&mut w), [one, two, one, two, one], "any");
    }
}

#[test]
fn lc_unknown_mac_is_asked_for() {
    for f in BOTH {
        let mut w = World::started(f, &["a", "b"]);
        let asked = one_asked(&w.sends(1, mac(50)));
        assert_eq!((asked.eid, asked.source), (Eid::Mac(mac(50)), Some((vni(), Eid::Mac(mac(1))))));
        let seen = w.reply(&asked, &[Rec::At(mac(50), rloc(f, 3), 4)]);
        assert!(matches!(seen[..], [Seen::Op(Op::SetLocation(..))]));
        assert_eq!(w.sends(1, mac(50)), [], "known by now");
        assert_eq!(w.sends(1, mac(2)), [], "local");
        assert_eq!(w.sends(1, weft_model::MacAddr::BROADCAST), []);
        assert_eq!(w.sends(1, weft_model::MacAddr([0; 6])), []);
        let none = one_asked(&w.sends(1, mac(51)));
        w.reply(&none, &[Rec::No(mac(51).into(), 1)]);
        assert_eq!(w.tables.fdb[&(vni(), mac(51))], Location::Nowhere);
        w.passes(Duration::from_secs(60));
        assert!(!w.tables.fdb.contains_key(&(vni(), mac(51))));
    }
}

#[test]
fn l_never_asked_off_subnet_announcements_own_and_local_addresses() {
    for f in BOTH {
        let mut w = World::started(f, &["a", "b"]);
        let off = if f == V4 { "192.0.2.77" } else { "fd01::1" };
        assert_eq!(w.asks(1, off.parse().unwrap(), false), []);
        assert_eq!(w.core.counters().off_subnet, 1);
        assert_eq!(w.asks(1, ip(f, 1), false), [], "an announcement");
        assert_eq!(w.asks(1, ip(f, 1), true), [], "its own address");
        assert_eq!(injects(&w.asks(1, ip(f, 2), false)), [(1, mac(2))], "a neighbour at this NVE");
        assert_eq!(injects(&w.asks(1, ip(f, 2), true)), [(1, mac(2))], "defended against a probe");
        assert_eq!(w.core.counters().map_requests, 0);
    }
}

#[test]
fn l_probes_and_dad_of_unused_addresses_are_not_answered() {
    for f in BOTH {
        let mut w = World::started(f, &["a"]);
        let asked = one_asked(&w.asks(1, ip(f, 50), true));
        assert_eq!(asked.source, Some((vni(), Eid::Mac(mac(1)))), "it has no address yet");
        let seen = w.reply(&asked, &[Rec::No(ip(f, 50).into(), 1)]);
        assert_eq!(injects(&seen), []);
        // Somebody else's is defended, to all nodes where the asker has no address.
        let asked = one_asked(&w.asks(1, ip(f, 51), true));
        let seen = w.reply(&asked, &[Rec::Owner(ip(f, 51), mac(51), 4), Rec::At(mac(51), rloc(f, 3), 4)]);
        let frame = seen.iter().find_map(|s| if let Seen::Inject(_, frame) = s { Some(frame) } else { None });
        let to = if f == V4 { mac(1) } else { weft_model::MacAddr([0x33, 0x33, 0, 0, 0, 1]) };
        assert_eq!(told(frame.unwrap()), (mac(51), to));
    }
}

#[test]
fn lc_who_waits_at_a_device_that_went_away_is_not_answered() {
    let mut w = World::started(V4, &["a", "b"]);
    let request = one_asked(&w.asks(1, ip(V4, 50), false));
    w.asks(2, ip(V4, 50), false);
    w.core.handle_device_gone(w.now, IfIndex(1));
    w.seen();
    let seen = w.reply(&request, &[Rec::Owner(ip(V4, 50), mac(50), 4), Rec::At(mac(50), rloc(V4, 3), 4)]);
    assert_eq!(injects(&seen), [(2, mac(50))]);
    assert_eq!(w.asks(1, ip(V4, 60), false), [], "nor does it ask");
    assert_eq!(w.core.counters().malformed_punts, 0);
}

#[test]
fn lc_malformed_questions_are_counted() {
    let mut w = World::started(V4, &["a"]);
    for reason in [PuntReason::ArpMiss, PuntReason::NdMiss, PuntReason::LinkLocalClaim] {
        assert_eq!(w.punt(1, reason, vec![0; 20]), []);
    }
    assert_eq!(w.core.counters().malformed_punts, 3);
    assert_eq!(w.core.poll_timeout().map(|at| at > Time::default()), Some(true));
}
