//! What becomes of frames whose destination is being asked for, by the VN's choice (`miss`), and of questions that
//! are asked over and over.

use super::super::{Fact, Session};
use super::oracle::{self, Heard, Rec};
use super::world::*;
use ::core::time::Duration;
use std::collections::BTreeSet;
use weft_datapath::{IfIndex, Location, Neighbour, Punt, PuntReason, Vn};
use weft_lisp::tcp::{Body, Membership, MembershipEvent};
use weft_model::{Eid, Learning, MacAddr, Miss, Storm, VnSpec, XtrId};

fn with_vn(f: Family, vn: VnSpec) -> World {
    let mut w = World::started(f, &["a"]);
    w.core.handle_fact(Fact::Vn(vn));
    w.seen();
    w
}

/// TSI 1's frame to a MAC.
fn frame(to: MacAddr, len: usize) -> Vec<u8> {
    let mut frame = [to.octets(), mac(1).octets()].concat();
    frame.extend([0x88, 0xb5]);
    frame.resize(len, 7);
    frame
}

#[test]
fn lc_frames_to_a_mac_wait_for_it_at_most_so_many_of_them() {
    for f in BOTH {
        let mut w = with_vn(f, spec());
        let frame = frame(mac(20), 900);
        let asked = one_asked(&w.punt(1, PuntReason::UnknownMacHeld, frame.clone()));
        assert_eq!(asked.eid, Eid::Mac(mac(20)));
        for _ in 0..33 {
            assert_eq!(w.punt(1, PuntReason::UnknownMacHeld, frame.clone()), []);
        }
        let seen = w.reply(&asked, &[Rec::At(mac(20), rloc(f, 2), 5)]);
        let way = position(&seen, |s| matches!(s, Seen::Op(_)));
        assert_eq!(seen[way + 1..], vec![Seen::Resend(IfIndex(1), frame.clone()); 32]);
        let counters = w.core.counters();
        assert_eq!((counters.held_sent, counters.held_dropped), (32, 2));
        let known = w.punt(1, PuntReason::UnknownMacHeld, frame.clone());
        assert_eq!(known, [Seen::Resend(IfIndex(1), frame)], "on its way up meanwhile");
    }
}

#[test]
fn frames_that_wait_are_so_many_in_all() {
    let mut w = with_vn(V4, spec());
    w.core.config.limits.held_in_all = 3;
    for to in [20, 21, 20, 21, 22] {
        w.punt(1, PuntReason::UnknownMacHeld, frame(mac(to), 60));
    }
    assert_eq!(w.core.counters().held_dropped, 2);
    w.passes(Duration::from_secs(1));
    assert_eq!(w.core.counters().held_dropped, 5);
}

#[test]
fn lc_frames_for_nobody_or_too_long_for_a_punt_are_lost() {
    let mut w = with_vn(V4, spec());
    let asked = one_asked(&w.punt(1, PuntReason::UnknownMacHeld, frame(mac(20), 60)));
    w.reply(&asked, &[Rec::No(Eid::Mac(mac(20)), 1)]);
    assert_eq!(w.core.counters().held_dropped, 1);
    w.punt(1, PuntReason::UnknownMacHeld, frame(mac(21), 60));
    w.passes(Duration::from_secs(1));
    assert_eq!(w.core.counters().held_dropped, 2, "no longer than a second");
    let asked = one_asked(&w.punt(1, PuntReason::UnknownMacHeld, frame(mac(22), Punt::WHOLE)));
    let seen = w.reply(&asked, &[Rec::At(mac(22), rloc(V4, 2), 5)]);
    assert!(!seen.iter().any(|s| matches!(s, Seen::Resend(..))), "its end may be missing");
    assert_eq!(w.core.counters().held_dropped, 3);
}

#[test]
fn what_went_elsewhere_is_asked_for_and_not_held() {
    for f in BOTH {
        let mut w = with_vn(f, VnSpec { miss: Miss::Drop, ..spec() });
        assert_eq!(w.tables.vns[&vni()].miss, Miss::Drop);
        let asked = one_asked(&w.punt(1, PuntReason::UnknownMac, frame(mac(20), 60)));
        let seen = w.reply(&asked, &[Rec::At(mac(20), rloc(f, 2), 5)]);
        assert!(!seen.iter().any(|s| matches!(s, Seen::Resend(..))), "{seen:?}");
        let routed = super::anycast::routed_frame(f, 1, ip(f, 30));
        let asked = one_asked(&w.punt(1, PuntReason::RouteSeen, routed.clone()));
        assert_eq!(asked.eid, Eid::Ip(ip(f, 30)));
        let at = [Rec::Owner(ip(f, 30), mac(30), 5), Rec::At(mac(30), rloc(f, 2), 5)];
        let mut seen = w.reply(&asked, &at);
        seen.extend(w.punt(1, PuntReason::RouteSeen, routed));
        assert!(!seen.iter().any(|s| matches!(s, Seen::Resend(..))), "{seen:?}");
        assert_eq!(w.core.counters().held_dropped, 0);
    }
}

fn nve(w: &mut World, n: u8, name: &str, rlocs: &[weft_model::Rloc]) {
    w.core.handle_fact(Fact::Nve(XtrId([n; 16]), rlocs.iter().copied().collect()));
    w.core.handle_fact(Fact::NveName(XtrId([n; 16]), name.parse().unwrap()));
    w.seen();
}

fn on_miss(w: &World) -> (Miss, Option<String>, bool) {
    let Vn { miss, gateway, carries, .. } = &w.tables.vns[&vni()];
    (*miss, gateway.map(|rloc| rloc.to_string()), *carries)
}

#[test]
fn the_gateway_is_found_by_its_name_wherever_it_is() {
    for f in BOTH {
        let gateway = |name: &str| VnSpec {
            miss: Miss::Gateway,
            gateway: Some(name.parse().unwrap()),
            storm: Storm::new(5, 6).unwrap(),
            ..spec()
        };
        let mut w = with_vn(f, gateway("host2"));
        assert_eq!(on_miss(&w), (Miss::Queue, None, false), "held while nobody is called so");
        assert_eq!(w.tables.vns[&vni()].storm, Storm::new(5, 6).unwrap());
        nve(&mut w, 2, "host2", &[rloc(V4, 2), rloc(V6, 2)]);
        assert_eq!(on_miss(&w), (Miss::Gateway, Some(rloc(f, 2).to_string()), false));
        nve(&mut w, 2, "host2", &[rloc(V4, 9), rloc(V6, 9)]);
        assert_eq!(on_miss(&w), (Miss::Gateway, Some(rloc(f, 9).to_string()), false), "it has moved");
        nve(&mut w, 3, "host3", &[rloc(if f == V4 { V6 } else { V4 }, 3)]);
        w.core.handle_fact(Fact::Vn(gateway("host3")));
        w.seen();
        assert_eq!(on_miss(&w), (Miss::Queue, None, false), "of a family this NVE has nothing of");
        w.core.handle_fact(Fact::Vn(gateway("host2")));
        w.core.handle_fact(Fact::NvesListed(BTreeSet::from([XtrId([3; 16])])));
        w.seen();
        assert_eq!(on_miss(&w), (Miss::Queue, None, false), "it is no more");
        w.core.handle_fact(Fact::NveName(ME, "host1".parse().unwrap()));
        w.core.handle_fact(Fact::Vn(gateway("host1")));
        w.seen();
        assert_eq!(on_miss(&w), (Miss::Queue, None, true), "its own are held");
        let other = VnSpec { miss: Miss::Drop, ..gateway("host1") };
        w.core.handle_fact(Fact::Vn(other));
        w.seen();
        assert_eq!(on_miss(&w), (Miss::Drop, None, false));
    }
    // Both families: IPv4 before IPv6.
    let both = |config: &mut super::super::Config| assert!(config.rlocs.insert(rloc(V6, 1)));
    let mut w = World::with(V4, both);
    w.session(0, super::super::Session::Up);
    w.attach_all(&["a"]);
    nve(&mut w, 2, "host2", &[rloc(V6, 2), rloc(V4, 2)]);
    let gateway = Some("host2".parse().unwrap());
    w.core.handle_fact(Fact::Vn(VnSpec { miss: Miss::Gateway, gateway, ..spec() }));
    w.seen();
    assert_eq!(on_miss(&w).1, Some(rloc(V4, 2).to_string()));
}

#[test]
fn a_gateway_asks_for_what_it_is_to_carry() {
    for f in BOTH {
        for learning in [Learning::Oracle, Learning::Distribute] {
            let gateway = Some("host1".parse().unwrap());
            let mut w = with_vn(f, VnSpec { learning, miss: Miss::Gateway, gateway, ..spec() });
            w.core.handle_fact(Fact::NveName(ME, "host1".parse().unwrap()));
            nve(&mut w, 2, "host2", &[rloc(f, 2)]);
            let asked = one_asked(&w.astray(2, frame(mac(20), 60)));
            assert_eq!((asked.eid, asked.source), (Eid::Mac(mac(20)), None));
            assert_eq!(w.astray(2, frame(mac(20), 60)), [], "once");
            w.reply(&asked, &[Rec::At(mac(20), rloc(f, 3), 5)]);
            let is_at = |at: &Location| matches!(at, Location::Remote { rloc: r, .. } if *r == rloc(f, 3));
            assert!(is_at(&w.tables.fdb[&(vni(), mac(20))]));
            let routed = super::anycast::routed_frame(f, 9, ip(f, 30));
            let asked = one_asked(&w.astray(2, routed));
            assert_eq!(asked.eid, Eid::Ip(ip(f, 30)));
            // Without anybody of the VN it asks for nobody.
            w.core.handle_device_gone(w.now, IfIndex(1));
            w.seen();
            assert_eq!(w.astray(2, frame(mac(21), 60)), []);
            assert_eq!(w.core.counters().smrs_sent, 0);
        }
    }
}

/// This NVE is the gateway of a VN of both.
fn as_gateway(f: Family, learning: Learning) -> World {
    let gateway = Some("host1".parse().unwrap());
    let mut w = with_vn(f, VnSpec { learning, miss: Miss::Gateway, gateway, ..spec() });
    w.core.handle_fact(Fact::NveName(ME, "host1".parse().unwrap()));
    nve(&mut w, 2, "host2", &[rloc(f, 2)]);
    nve(&mut w, 3, "host3", &[rloc(f, 3)]);
    w
}

fn carries(seen: &[Seen]) -> Vec<(weft_model::Rloc, Vec<u8>)> {
    let carry = |s: &Seen| if let Seen::Carry(from, f) = s { Some((*from, f.clone())) } else { None };
    seen.iter().filter_map(carry).collect()
}

#[test]
fn what_a_gateway_does_not_know_either_waits_there() {
    for f in BOTH {
        for learning in [Learning::Oracle, Learning::Distribute] {
            let mut w = as_gateway(f, learning);
            w.core.config.limits.held_frames = 8;
            let (direct, routed) = (frame(mac(20), 60), super::anycast::routed_frame(f, 9, ip(f, 20)));
            for (held, eid) in [(direct, Eid::Mac(mac(20))), (routed, Eid::Ip(ip(f, 20)))] {
                let sent = w.core.counters().held_sent;
                let asked = one_asked(&w.carried(2, held.clone()));
                assert_eq!(asked.eid, eid);
                for _ in 0..4 {
                    assert_eq!(w.carried(2, held.clone()), []);
                    assert_eq!(w.carried(3, held.clone()), []);
                }
                let at = Rec::At(mac(20), rloc(f, 4), 5);
                let records = [Rec::Owner(ip(f, 20), mac(20), 5), at];
                let seen = w.reply(&asked, if eid == Eid::Mac(mac(20)) { &records[1..] } else { &records });
                let way = position(&seen, |s| matches!(s, Seen::Op(_)));
                let first = position(&seen, |s| matches!(s, Seen::Carry(..)));
                let from = [2, 2, 3, 2, 3, 2, 3, 2].map(|n| (rloc(f, n), held.clone()));
                assert_eq!(carries(&seen), from, "eight, in order, each with where it is from");
                assert!(way < first);
                assert_eq!(w.core.counters().held_sent - sent, 8);
                let seen = w.carried(3, held.clone());
                assert_eq!(seen, [Seen::Carry(rloc(f, 3), held)], "on its way up meanwhile");
                w.notify(Rec::Gone(Eid::Mac(mac(20))));
            }
            assert_eq!(w.core.counters().held_dropped, 2);
            // What came from a gateway is asked about and does not wait.
            let asked = one_asked(&w.astray(2, frame(mac(21), 60)));
            assert_eq!(carries(&w.reply(&asked, &[Rec::At(mac(21), rloc(f, 3), 5)])), []);
            // Nobody's, and too late.
            let asked = one_asked(&w.carried(2, frame(mac(22), 60)));
            assert_eq!(carries(&w.reply(&asked, &[Rec::No(Eid::Mac(mac(22)), 1)])), []);
            // Nor is it asked for again at once, however many come for it.
            assert_eq!(w.carried(3, frame(mac(22), 60)), []);
            let hold = w.core.config.timing.hold;
            w.passes(hold);
            one_asked(&w.carried(3, frame(mac(22), 60)));
            w.notify(Rec::Gone(Eid::Mac(mac(22))));
            let asked = one_asked(&w.carried(2, frame(mac(23), 60)));
            w.passes(Duration::from_secs(1));
            assert_eq!(carries(&w.reply(&asked, &[Rec::At(mac(23), rloc(f, 3), 5)])), []);
            assert_eq!(w.core.counters().held_dropped, 5);
            assert_eq!(w.core.counters().smrs_sent, 0);
        }
    }
}

/// Who hands over frames for everybody leaves room for those of others.
#[test]
fn frames_of_one_nve_wait_at_a_gateway_for_so_many_destinations() {
    let mut w = as_gateway(V4, Learning::Oracle);
    for n in 0..40 {
        w.carried(2, frame(mac(100 + n), 60));
    }
    let held = |w: &World| (0..40).filter(|n| w.core.held.has(vni(), Eid::Mac(mac(100 + n)))).count();
    assert_eq!((held(&w), w.core.counters().held_dropped), (32, 8));
    w.carried(3, frame(mac(200), 60));
    w.punt(1, PuntReason::UnknownMacHeld, frame(mac(201), 60));
    for n in [200, 201] {
        assert!(w.core.held.has(vni(), Eid::Mac(mac(n))), "another's");
    }
}

/// N11: whoever asks ten thousand times for who is not there has the Oracle asked once a minute, and is
/// answered at once when that one is.
#[test]
fn n11_an_unknown_address_asked_for_ten_thousand_times() {
    for f in BOTH {
        let mut w = with_vn(f, spec());
        let target = ip(f, 20);
        let mut questions = Vec::new();
        for _ in 0..10_000 {
            let seen = w.asks(1, target, false);
            assert_eq!(injects(&seen), []);
            for question in asked(&seen) {
                w.reply(&question, &[Rec::No(Eid::Ip(target), 1)]);
                questions.push(w.now);
            }
            let later = w.passes(Duration::from_millis(12));
            assert!(later.iter().all(|(_, s)| !matches!(s, Seen::Asked(_))));
        }
        assert_eq!(questions.len(), 2, "in two minutes: {questions:?}");
        w.notify(Rec::At(mac(20), rloc(f, 2), 5));
        w.notify(Rec::Owner(target, mac(20), 5));
        assert_eq!(injects(&w.asks(1, target, false)), [(1, mac(20))]);
        assert_eq!(w.tables.neighbours[&(vni(), target)], Neighbour::At(mac(20)));
        assert!(w.core.cache.by_end.is_empty(), "nothing is left of it");
    }
}

/// The same of an Oracle that says nothing: tries, then a wait, and no more than that.
#[test]
fn n11_ten_thousand_times_of_an_oracle_that_is_silent() {
    for f in BOTH {
        let mut w = with_vn(f, spec());
        let mut questions = 0;
        for _ in 0..10_000 {
            questions += asked(&w.asks(1, ip(f, 20), false)).len();
            questions += w
                .passes(Duration::from_millis(12))
                .iter()
                .filter(|(_, s)| matches!(s, Seen::Asked(_)))
                .count();
        }
        // Ten tries take 8.4 s and are followed by one second's wait.
        assert!((110..=135).contains(&questions), "{questions} in 120 s");
        let counters = w.core.counters();
        assert_eq!(counters.map_requests, u64::try_from(questions).unwrap());
        let begun = counters.unanswered + u64::try_from(w.core.pending()).unwrap();
        assert_eq!(begun + counters.coalesced + counters.requests_suppressed, 10_000, "{counters:?}");
    }
}

/// Who scans a VN leaves room for the frames of others.
#[test]
fn frames_of_one_vap_wait_for_so_many_destinations() {
    let mut w = World::started(V4, &["a", "b"]);
    w.core.handle_fact(Fact::Vn(spec()));
    for n in 0..40 {
        w.punt(1, PuntReason::UnknownMacHeld, frame(mac(100 + n), 60));
    }
    let held = |w: &World| (0..40).filter(|n| w.core.held.has(vni(), Eid::Mac(mac(100 + n)))).count();
    assert_eq!((held(&w), w.core.counters().held_dropped), (32, 8));
    w.punt(2, PuntReason::UnknownMacHeld, frame(mac(200), 60));
    assert!(w.core.held.has(vni(), Eid::Mac(mac(200))), "another VAP's");
    w.passes(Duration::from_secs(1));
    w.punt(1, PuntReason::UnknownMacHeld, frame(mac(201), 60));
    assert!(w.core.held.has(vni(), Eid::Mac(mac(201))), "there is room again");
}

/// Where nothing is asked for, nobody carries: whatever was stored of such a VN.
#[test]
fn no_gateway_where_frames_go_to_everybody_or_are_translated() {
    for learning in [Learning::Flood, Learning::Translate] {
        for name in ["host1", "host2"] {
            let gateway = Some(name.parse().unwrap());
            let mut w = with_vn(V4, VnSpec { learning, miss: Miss::Gateway, gateway, ..spec() });
            w.core.handle_fact(Fact::NveName(ME, "host1".parse().unwrap()));
            nve(&mut w, 2, "host2", &[rloc(V4, 2)]);
            assert_eq!(on_miss(&w), (Miss::Queue, None, false), "{learning:?} {name}");
        }
    }
}

/// A gateway without a tenant system of the VN in service would drop what it is sent.
#[test]
fn a_gateway_that_is_no_member_carries_nothing() {
    for f in BOTH {
        for learning in [Learning::Oracle, Learning::Distribute] {
            let gateway = Some("host2".parse().unwrap());
            let mut w = with_vn(f, spec());
            nve(&mut w, 2, "host2", &[rloc(V4, 2), rloc(V6, 2)]);
            w.core.handle_fact(Fact::Vn(VnSpec { learning, miss: Miss::Gateway, gateway, ..spec() }));
            let seen = w.seen();
            let subscribe = |s: &Seen| match s {
                Seen::Heard(_, Heard::Membership(id, _, MembershipEvent::Subscribe)) => Some(*id),
                _ => None,
            };
            let request_id = seen.iter().find_map(subscribe).unwrap();
            let says = |w: &mut World, event| {
                let frame = Body::Membership(Membership { eid_afi: 0, iid: VNI, event });
                w.hears(0, &oracle::frame(&frame, 1))
            };
            let carried = (Miss::Gateway, Some(rloc(f, 2).to_string()), false);
            assert_eq!(on_miss(&w), carried, "nobody has said otherwise");
            says(&mut w, MembershipEvent::RefreshBegin { request_id });
            says(&mut w, MembershipEvent::Add { site_id: 3, rloc: rloc(f, 3).get() });
            says(&mut w, MembershipEvent::RefreshEnd { request_id });
            assert_eq!(on_miss(&w), (Miss::Queue, None, false), "it is none");
            says(&mut w, MembershipEvent::Add { site_id: 2, rloc: rloc(f, 2).get() });
            assert_eq!(on_miss(&w), carried);
            assert_eq!(w.tables.vns[&vni()].members, BTreeSet::new(), "nothing is replicated");
            w.session(0, Session::Down);
            assert_eq!(on_miss(&w), carried, "what was said stays");
            w.session(0, Session::Up);
            says(&mut w, MembershipEvent::Remove { site_id: 2, rloc: rloc(f, 2).get() });
        }
    }
}
