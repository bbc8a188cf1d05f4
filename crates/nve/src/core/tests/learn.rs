//! What answers and notifications change, and when it ends: requirements N4, N8, N11 and M4.

use super::super::Session;
use super::oracle::Rec;
use super::world::*;
use ::core::time::Duration;
use weft_datapath::{Location, Neighbour, Op};
use weft_model::{Eid, Epoch, Origin};

fn at(f: Family, n: u8, version: u16) -> Location {
    Location::Remote { rloc: rloc(f, n), epoch: Epoch::new(version.into()).unwrap(), other: 0 }
}

#[test]
fn n11_negative_is_nobody_until_its_ttl_ends() {
    for f in BOTH {
        let mut w = World::started(f, &["a"]);
        let asked = one_asked(&w.asks(1, ip(f, 50), false));
        let seen = w.reply(&asked, &[Rec::No(ip(f, 50).into(), 1)]);
        assert_eq!(seen, [Seen::Op(Op::SetNeighbour(vni(), ip(f, 50), Neighbour::Nobody))]);
        assert_eq!(w.asks(1, ip(f, 50), false), [], "silence");
        assert_eq!(w.passes(Duration::from_secs(59)).len(), 1, "the digest at 30 s");
        let seen: Vec<_> = w.passes(Duration::from_secs(1)).into_iter().map(|(_, s)| s).collect();
        assert!(seen.contains(&Seen::Op(Op::RemoveNeighbour(vni(), ip(f, 50)))));
        one_asked(&w.asks(1, ip(f, 50), false));
    }
}

#[test]
fn d4_negative_is_cleared_the_moment_the_ts_appears() {
    for f in BOTH {
        for order in [[0, 1], [1, 0]] {
            let mut w = World::started(f, &["a"]);
            let asked = one_asked(&w.asks(1, ip(f, 50), false));
            w.reply(&asked, &[Rec::No(ip(f, 50).into(), 1)]);
            let recs = [Rec::At(mac(50), rloc(f, 3), 1), Rec::Owner(ip(f, 50), mac(50), 1)];
            for index in order {
                w.notify(recs[index]);
            }
            assert_eq!(w.tables.neighbours[&(vni(), ip(f, 50))], Neighbour::At(mac(50)));
            assert_eq!(w.tables.fdb[&(vni(), mac(50))], at(f, 3, 1));
            assert!(w.core.cache().all(|e| e.origin == Origin::Notify));
            assert_eq!(w.core.pending(), 0);
            assert_eq!(injects(&w.asks(1, ip(f, 50), false)), [(1, mac(50))]);
            // The negative's end does not take it away.
            w.passes(Duration::from_secs(120));
            assert_eq!(w.tables.neighbours[&(vni(), ip(f, 50))], Neighbour::At(mac(50)));
        }
    }
}

#[test]
fn d4_notification_answers_who_waits() {
    for f in BOTH {
        for order in [[0, 1], [1, 0]] {
            let mut w = World::started(f, &["a"]);
            let request = one_asked(&w.asks(1, ip(f, 50), false));
            let recs = [Rec::At(mac(50), rloc(f, 3), 1), Rec::Owner(ip(f, 50), mac(50), 1)];
            let mut seen = w.notify(recs[order[0]]);
            seen.extend(w.notify(recs[order[1]]));
            assert_eq!(injects(&seen), [(1, mac(50))]);
            let location = position(&seen, |s| matches!(s, Seen::Op(Op::SetLocation(..))));
            let answer = position(&seen, |s| matches!(s, Seen::Inject(..)));
            assert!(location < answer);
            assert_eq!(w.reply(&request, &recs), [], "nobody waits for the reply");
        }
    }
}

#[test]
fn n8_a_move_is_followed_and_an_outdated_answer_is_not() {
    for f in BOTH {
        let mut w = World::started(f, &["a"]);
        w.knows(50, 3, 6);
        let seen = w.notify(Rec::At(mac(50), rloc(f, 4), 7));
        assert_eq!(seen, [Seen::Op(Op::SetLocation(vni(), mac(50), at(f, 4, 7)))]);
        // An answer that was under way meanwhile.
        for old in [6, 5, 7_u16.wrapping_sub(2_000) & 0xfff] {
            let other = one_asked(&w.asks(1, ip(f, 60), false));
            w.reply(&other, &[Rec::No(ip(f, 60).into(), 1), Rec::At(mac(50), rloc(f, 3), old)]);
            assert_eq!(w.tables.fdb[&(vni(), mac(50))], at(f, 4, 7), "{old}");
            w.passes(Duration::from_secs(61));
        }
        // Round the circle: 4095 is followed by 1.
        w.notify(Rec::At(mac(50), rloc(f, 5), 2_000));
        w.notify(Rec::At(mac(50), rloc(f, 6), 4_000));
        w.notify(Rec::At(mac(50), rloc(f, 7), 4_095));
        w.notify(Rec::At(mac(50), rloc(f, 8), 1));
        assert_eq!(w.tables.fdb[&(vni(), mac(50))], at(f, 8, 1));
        w.notify(Rec::At(mac(50), rloc(f, 7), 4_095));
        assert_eq!(w.tables.fdb[&(vni(), mac(50))], at(f, 8, 1));
        // The same version from elsewhere: its NVE got another RLOC.
        w.notify(Rec::At(mac(50), rloc(f, 9), 1));
        assert_eq!(w.tables.fdb[&(vni(), mac(50))], at(f, 9, 1));
    }
}

#[test]
fn n8_versions_order_only_while_the_record_lives() {
    let mut w = World::started(V4, &["a"]);
    w.knows(50, 3, 6);
    w.session(0, Session::Down);
    w.passes(Duration::from_secs(15 * 60 + 1));
    assert_eq!(w.tables.fdb[&(vni(), mac(50))], at(V4, 3, 6), "fail-static");
    w.session(0, Session::Up);
    w.notify(Rec::At(mac(50), rloc(V4, 4), 5));
    assert_eq!(w.tables.fdb[&(vni(), mac(50))], at(V4, 4, 5), "whatever was missed meanwhile");
}

#[test]
fn n2_withdrawal_is_followed_at_once() {
    for f in BOTH {
        let mut w = World::started(f, &["a"]);
        w.knows(50, 3, 6);
        let seen = w.notify(Rec::Gone(mac(50).into()));
        assert_eq!(seen, [Seen::Op(Op::RemoveLocation(vni(), mac(50)))]);
        let seen = w.notify(Rec::Gone(ip(f, 50).into()));
        assert_eq!(seen, [Seen::Op(Op::RemoveNeighbour(vni(), ip(f, 50)))]);
        assert_eq!(w.notify(Rec::Gone(ip(f, 50).into())), []);
        assert_eq!(w.notify(Rec::Gone(ip(f, 1).into())), [], "what is here stays");
        one_asked(&w.asks(1, ip(f, 50), false));
    }
}

#[test]
fn m4_another_mac_heals_the_caches_of_local_tss_only() {
    for f in BOTH {
        let mut w = World::started(f, &["a", "b"]);
        w.knows(50, 3, 6);
        w.notify(Rec::At(mac(51), rloc(f, 4), 7));
        let seen = w.notify(Rec::Owner(ip(f, 50), mac(51), 7));
        assert_eq!(seen[0], Seen::Op(Op::SetNeighbour(vni(), ip(f, 50), Neighbour::At(mac(51)))));
        assert_eq!(injects(&seen), [(1, mac(51)), (2, mac(51))]);
        assert_eq!(seen.len(), 3, "and nothing else: {seen:?}");
        for s in &seen[1..] {
            let Seen::Inject(_, frame) = s else { panic!("{s:?}") };
            if f == V6 {
                // RFC 4861 section 7.2.6: unsolicited, to all nodes, override.
                assert_eq!((frame[58], &frame[0..6]), (0xa0, &[0x33, 0x33, 0, 0, 0, 1][..]));
            }
        }
        assert_eq!(w.notify(Rec::Owner(ip(f, 50), mac(51), 8)), [], "the same again");
    }
}

#[test]
fn n4_refreshed_before_it_ends_and_kept_without_an_answer() {
    for f in BOTH {
        let mut w = World::started(f, &["a"]);
        w.knows(50, 3, 6);
        let begun = w.now;
        let later = w.passes(Duration::from_secs(12 * 60));
        let requests: Vec<_> = later.iter().filter(|(_, s)| matches!(s, Seen::Asked(_))).collect();
        let eids: Vec<_> =
            requests.iter().map(|(_, s)| if let Seen::Asked(a) = s { a.eid } else { panic!() }).collect();
        assert_eq!(eids, [Eid::Mac(mac(50)), Eid::Ip(ip(f, 50))]);
        assert!(requests.iter().all(|(at, _)| at.since(begun) == Duration::from_secs(12 * 60)));
        // Answered: another four fifths. The other is tried again before long, since the Oracle
        // forgets who asked.
        let Seen::Asked(request) = &requests[1].1 else { panic!() };
        w.reply(request, &[Rec::Owner(ip(f, 50), mac(50), 6)]);
        let later = w.passes(Duration::from_secs(200));
        let again: Vec<_> =
            later
                .iter()
                .filter_map(|(at, s)| {
                    if let Seen::Asked(a) = s { Some((at.since(begun).as_secs(), a.eid)) } else { None }
                })
                .filter(|(at, _)| *at > 12 * 60 + 10)
                .collect();
        assert_eq!(again[0], (12 * 60 + 8 + 180, Eid::Mac(mac(50))));
        assert_eq!(w.tables.fdb[&(vni(), mac(50))], at(f, 3, 6));
    }
}

#[test]
fn n4_refresh_that_found_no_place_is_soon_tried_again() {
    let mut w = World::with(V4, |c| c.limits.pending_per_vn = 1);
    w.session(0, Session::Up);
    w.attached("a", 1);
    w.knows(50, 3, 6);
    let later = w.passes(Duration::from_secs(12 * 60 + 20));
    let eids: std::collections::BTreeSet<_> =
        later.iter().filter_map(|(_, s)| if let Seen::Asked(a) = s { Some(a.eid) } else { None }).collect();
    assert_eq!(eids.len(), 2, "both, one after the other");
}

#[test]
fn d4_after_a_lost_session_everything_known_is_asked_for_paced() {
    for f in BOTH {
        let mut w = World::started(f, &["a"]);
        w.knows(50, 3, 6);
        w.knows(51, 3, 6);
        let none = one_asked(&w.asks(1, ip(f, 60), false));
        w.reply(&none, &[Rec::No(ip(f, 60).into(), 15)]);
        w.session(0, Session::Down);
        let before = w.tables.clone();
        w.passes(Duration::from_secs(10));
        assert_eq!(w.tables, before, "fail-static");
        let seen = w.session(0, Session::Up);
        assert!(seen.contains(&Seen::Op(Op::RemoveNeighbour(vni(), ip(f, 60)))), "may have appeared");
        let begun = w.now;
        let later = w.passes(Duration::from_millis(10));
        let at: Vec<_> = later.iter().map(|(at, _)| at.since(begun).as_millis()).collect();
        assert_eq!(at, [1, 2, 3, 4], "{later:?}");
        assert!(later.iter().all(|(_, s)| matches!(s, Seen::Asked(_))));
    }
}

#[test]
fn d4_sessions_that_come_and_go_do_not_put_it_off() {
    let mut w = World::with(V4, |c| c.timing.refresh_gap = Duration::from_secs(1));
    w.session(0, Session::Up);
    w.attached("a", 1);
    for n in 50..55 {
        w.knows(n, 3, 6);
    }
    let mut asked = std::collections::BTreeSet::new();
    for _ in 0..4 {
        w.session(0, Session::Down);
        w.session(0, Session::Up);
        for (_, s) in w.passes(Duration::from_secs(3)) {
            if let Seen::Asked(a) = s {
                asked.insert(a.eid);
            }
        }
    }
    assert_eq!(asked.len(), 10, "all, in spite of a session every 3 s");
}

/// An Oracle answers by datagram before it has heard of the session, and says what has changed since on the one before.
#[test]
fn d4_what_was_learned_before_the_oracle_heard_of_the_session_is_asked_for_again() {
    use weft_lisp::tcp::Signal;
    let hello = super::session::signal(Signal::Hello { version: 1, boot_id: 1 });
    for f in BOTH {
        let mut w = World::started(f, &["a"]);
        w.hears(0, &hello);
        w.knows(49, 3, 6);
        w.passes(Duration::from_secs(2));
        w.session(0, Session::Down);
        w.session(0, Session::Up);
        w.passes(Duration::from_secs(2));
        w.knows(50, 3, 6);
        w.hears(0, &hello);
        let asked = |w: &mut World| -> std::collections::BTreeSet<Eid> {
            let seen = w.passes(Duration::from_secs(2)).into_iter();
            seen.filter_map(|(_, s)| if let Seen::Asked(a) = s { Some(a.eid) } else { None }).collect()
        };
        assert!(asked(&mut w).contains(&Eid::Mac(mac(50))), "{f:?}");
        // Once: another one says nothing new.
        w.knows(51, 3, 6);
        w.hears(0, &hello);
        assert!(!asked(&mut w).contains(&Eid::Mac(mac(51))), "{f:?}");
    }
}

#[test]
fn n8_solicited_only_what_is_known() {
    use weft_lisp::{EidRecord, EncodeOptions, List, MapRequest};
    for f in BOTH {
        let mut w = World::started(f, &["a"]);
        w.knows(50, 3, 6);
        for (n, wanted) in [(50, 1), (51, 0)] {
            let eid = match ip(f, n).get() {
                std::net::IpAddr::V4(ip) => weft_lisp::Eid::host(VNI, ip),
                std::net::IpAddr::V6(ip) => weft_lisp::Eid::host(VNI, ip),
            };
            let itr = [weft_lisp::Address::NoAddress];
            let records = [EidRecord { notify: false, mask_len: eid.mask_len(), eid: eid.address() }];
            let smr = MapRequest {
                smr: true,
                nonce: 5,
                source_eid: eid.address(),
                itr_rlocs: List::new(&itr),
                records: List::new(&records),
                ..MapRequest::default()
            };
            let mut octets = Vec::new();
            smr.encode(&mut octets, EncodeOptions::default()).unwrap();
            w.core.handle_datagram(w.now, resolver(f, 0).ip(), &octets);
            assert_eq!(asked(&w.seen()).len(), wanted);
        }
        assert_eq!(w.core.counters().smrs, 2);
    }
}

#[test]
fn d7_restart_keeps_what_the_kernel_holds() {
    for f in BOTH {
        let mut first = World::started(f, &["a"]);
        first.knows(50, 3, 6);
        let none = one_asked(&first.asks(1, ip(f, 60), false));
        first.reply(&none, &[Rec::No(ip(f, 60).into(), 15)]);
        let mut w = World::new(f);
        w.core.remember(vec![spec()], Default::default(), &Default::default());
        w.core.restore(w.now, first.core.attachments(), &[device(1)]);
        w.core.adopt(w.now, vec![spec()], &first.tables);
        w.seen();
        let away = w.tables.diff(&first.tables);
        assert_eq!(away, [Op::RemoveNeighbour(vni(), ip(f, 60))], "all but what was absent stays");
        w.session(0, Session::Up);
        let later: Vec<_> = w.passes(Duration::from_millis(5)).into_iter().map(|(_, s)| s).collect();
        assert_eq!(asked(&later).len(), 2);
        // An older location than the adopted one does not count, a newer one does.
        w.notify(Rec::At(mac(50), rloc(f, 4), 5));
        assert_eq!(w.tables.fdb[&(vni(), mac(50))], at(f, 3, 6));
        w.notify(Rec::At(mac(50), rloc(f, 4), 7));
        assert_eq!(w.tables.fdb[&(vni(), mac(50))], at(f, 4, 7));
    }
}
