//! Requirement Ld: a miss is answered with the VN's anycast MAC, and healed.

use super::super::{Fact, Session};
use super::oracle::{self, Rec};
use super::world::*;
use ::core::net::IpAddr;
use ::core::time::Duration;
use weft_datapath::{IfIndex, Neighbour, PuntReason};
use weft_lisp::tcp::{Body, Signal};
use weft_model::{Eid, Learning, MacAddr, TenantIp, VnSpec};

fn anycast() -> MacAddr {
    MacAddr::anycast(vni())
}

/// TSIs 1 and 2 in a VN whose mappings are pushed; there are none yet.
fn world(f: Family) -> World {
    let mut w = World::started(f, &["a", "b"]);
    w.core.handle_fact(Fact::Vn(VnSpec { learning: Learning::Distribute, ..spec() }));
    w.seen();
    w
}

fn frames(seen: &[Seen]) -> Vec<(u32, Vec<u8>)> {
    let f = |s: &Seen| if let Seen::Inject(vap, frame) = s { Some((vap.0, frame.clone())) } else { None };
    seen.iter().filter_map(f).collect()
}

/// Octet of an advertisement with its flags: R, S, O.
fn flags(frame: &[u8]) -> u8 {
    frame[58] & 0xe0
}

#[test]
fn ld_a_miss_is_answered_at_once_asked_and_healed_by_the_reply() {
    for f in BOTH {
        let mut w = world(f);
        let seen = w.asks(1, ip(f, 20), false);
        assert_eq!(injects(&seen), [(1, anycast())]);
        if f == V6 {
            assert_eq!(flags(&frames(&seen)[0].1), 0x40, "S alone: it overrides nothing and is no router's");
        }
        let asked = one_asked(&seen);
        assert_eq!(asked.eid, Eid::Ip(ip(f, 20)));
        // Somebody else asks meanwhile: one question, and each his answer.
        let other = w.asks(2, ip(f, 20), false);
        assert_eq!((injects(&other), super::world::asked(&other).len()), (vec![(2, anycast())], 0));
        let at = Rec::At(mac(20), rloc(f, 2), 5);
        let seen = w.reply(&asked, &[Rec::Owner(ip(f, 20), mac(20), 5), at]);
        assert_eq!(injects(&seen), [(1, mac(20)), (2, mac(20))]);
        for (vap, frame) in frames(&seen) {
            match f {
                V4 => assert_eq!(told(&frame), (mac(20), mac(vap)), "to who was told otherwise"),
                V6 => assert_eq!(flags(&frame), 0xa0, "R and O, unsolicited"),
            }
        }
        let way = position(&seen, |s| matches!(s, Seen::Op(weft_datapath::Op::SetNeighbour(..))));
        assert!(way < position(&seen, |s| matches!(s, Seen::Inject(..))), "the way there first");
        assert_eq!(w.core.counters().healed, 2);
        let again = w.reply(&asked, &[Rec::Owner(ip(f, 20), mac(20), 5), at]);
        assert_eq!(injects(&again), [], "once");
    }
}

#[test]
fn ld_what_is_pushed_heals_too_however_late() {
    for f in BOTH {
        let mut w = world(f);
        let asked = one_asked(&w.asks(1, ip(f, 20), false));
        // There is nothing: no more is said, whoever asks, until there is.
        assert_eq!(injects(&w.reply(&asked, &[Rec::No(Eid::Ip(ip(f, 20)), 1)])), []);
        assert_eq!(w.tables.neighbours[&(vni(), ip(f, 20))], Neighbour::Nobody);
        let seen = w.asks(2, ip(f, 20), false);
        assert_eq!((injects(&seen), super::world::asked(&seen).len()), (vec![], 0));
        w.hears(0, &oracle::pushed(Rec::At(mac(20), rloc(f, 2), 5)));
        let seen = w.hears(0, &oracle::pushed(Rec::Owner(ip(f, 20), mac(20), 5)));
        assert_eq!(injects(&seen), [(1, mac(20))]);
    }
}

#[test]
fn ld_never_for_probes_announcements_and_what_no_host_has() {
    for f in BOTH {
        let mut w = world(f);
        assert_eq!(injects(&w.asks(1, ip(f, 20), true)), [], "a probe");
        assert_eq!(injects(&w.asks(1, ip(f, 1), false)), [], "an announcement");
        assert_eq!(injects(&w.asks(1, ip(f, 2), false)), [(1, mac(2))], "one that is here");
    }
    let mut w = world(V4);
    for target in ["192.0.2.77", "10.0.0.0", "10.255.255.255", "169.254.0.7"] {
        assert_eq!(injects(&w.asks(1, target.parse().unwrap(), false)), [], "{target}");
    }
    let mut w = world(V6);
    for target in ["2001:db8::77", "fd00::", "fe80::7"] {
        assert_eq!(injects(&w.asks(1, target.parse().unwrap(), false)), [], "{target}");
    }
}

#[test]
fn ld_silent_where_no_question_goes_out() {
    let mut w = World::with(V4, |config| config.limits.pending_per_vap = 1);
    w.session(0, Session::Up);
    w.attach_all(&["a"]);
    w.core.handle_fact(Fact::Vn(VnSpec { learning: Learning::Distribute, ..spec() }));
    w.seen();
    assert_eq!(injects(&w.asks(1, ip(V4, 20), false)).len(), 1);
    assert_eq!(injects(&w.asks(1, ip(V4, 21), false)), [], "too much under way");
    let seen = w.asks(1, ip(V4, 20), false);
    assert_eq!((injects(&seen).len(), asked(&seen).len()), (1, 0));
}

#[test]
fn ld_who_is_remembered_is_bounded_and_leaves_nothing() {
    let mut w = World::with(V4, |config| config.limits.stand_ins_per_vap = 2);
    w.session(0, Session::Up);
    w.attach_all(&["a", "b"]);
    w.core.handle_fact(Fact::Vn(VnSpec { learning: Learning::Distribute, ..spec() }));
    w.seen();
    for n in 20..30 {
        w.asks(1, ip(V4, n), false);
        w.asks(2, ip(V4, n), false);
    }
    w.hears(0, &oracle::pushed(Rec::At(mac(29), rloc(V4, 2), 5)));
    let seen = w.hears(0, &oracle::pushed(Rec::Owner(ip(V4, 29), mac(29), 5)));
    assert_eq!(injects(&seen), [(1, mac(29)), (2, mac(29))]);
    // The device is gone: nobody is told.
    w.core.handle_device_gone(w.now, IfIndex(1));
    w.hears(0, &oracle::pushed(Rec::At(mac(28), rloc(V4, 2), 5)));
    let seen = w.hears(0, &oracle::pushed(Rec::Owner(ip(V4, 28), mac(28), 5)));
    assert_eq!(injects(&seen), [(2, mac(28))]);
}

#[test]
fn ld_healed_by_who_is_attached_here() {
    let mut w = world(V4);
    w.asks(1, ip(V4, 3), false);
    let call = w.attach(attach("c", 3));
    w.seen();
    let vn = VnSpec { learning: Learning::Distribute, ..spec() };
    let granted = super::super::Granted { grant: grant("c", 3), vn, revision: 11, created: true };
    w.core.handle_granted(w.now, call, Ok(granted));
    assert_eq!(injects(&w.seen()), [(1, mac(3))]);
}

#[test]
fn ld_a_frame_to_be_routed_asks() {
    for f in BOTH {
        let mut w = world(f);
        let punts = w.core.counters().punts;
        let (seen, frame) = routed(&mut w, 1, ip(f, 20));
        assert_eq!(w.core.counters().punts, punts + 1, "a frame is one punt");
        let asked = one_asked(&seen);
        assert_eq!((asked.eid, asked.source), (Eid::Ip(ip(f, 20)), Some((vni(), Eid::Ip(ip(f, 1))))));
        assert_eq!(injects(&seen), []);
        w.reply(&asked, &[Rec::Owner(ip(f, 20), mac(20), 5), Rec::At(mac(20), rloc(f, 2), 5)]);
        assert_eq!(routed(&mut w, 1, ip(f, 20)).0, [Seen::Resend(IfIndex(1), frame)], "known");
        assert_eq!(routed(&mut w, 9, ip(f, 21)).0, [], "nobody's VAP");
        let outside = if f == V4 { "192.0.2.1" } else { "2001:db8::1" };
        assert_eq!(routed(&mut w, 1, outside.parse().unwrap()).0, [], "of no subnet");
    }
}

#[test]
fn ld_unanswered_is_asked_again_by_the_next_question() {
    let mut w = world(V4);
    w.asks(1, ip(V4, 20), false);
    w.passes(Duration::from_secs(20));
    let seen = w.asks(1, ip(V4, 20), false);
    assert_eq!((injects(&seen).len(), asked(&seen).len()), (1, 1));
    let signal = Body::Signal(Signal::MappingsBegin { vni: VNI });
    w.hears(0, &oracle::frame(&signal, 1));
}

/// TSI `n`'s frame to the anycast MAC for `to`, as the data plane hands it up.
fn routed(w: &mut World, n: u32, to: TenantIp) -> (Vec<Seen>, Vec<u8>) {
    let frame = routed_frame(w.family, n, to);
    (w.punt(n, PuntReason::Route, frame.clone()), frame)
}

pub fn routed_frame(f: Family, n: u32, to: TenantIp) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2(mac(n).octets(), MacAddr::anycast(vni()).octets());
    let mut frame = Vec::new();
    match (ip(f, n).get(), to.get()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            builder
                .ipv4(from.octets(), to.octets(), 64)
                .udp(1, 2)
                .write_to_vec(&mut frame, b"hello")
                .unwrap();
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            builder
                .ipv6(from.octets(), to.octets(), 64)
                .udp(1, 2)
                .write_to_vec(&mut frame, b"hello")
                .unwrap();
        }
        _ => unreachable!(),
    }
    frame
}

#[test]
fn ld_frames_wait_for_their_destination_in_order_at_most_so_many_of_them() {
    for f in BOTH {
        let mut w = world(f);
        let (seen, frame) = routed(&mut w, 1, ip(f, 20));
        let asked = one_asked(&seen);
        for _ in 0..33 {
            assert_eq!(routed(&mut w, 1, ip(f, 20)).0, []);
        }
        assert_eq!(w.core.counters().held_dropped, 2);
        let recs = [Rec::Owner(ip(f, 20), mac(20), 5), Rec::At(mac(20), rloc(f, 2), 5)];
        let seen = w.reply(&asked, &recs);
        let sent = position(&seen, |s| matches!(s, Seen::Resend(..)));
        assert!(
            seen[..sent].iter().filter(|s| matches!(s, Seen::Op(_))).count() == 2,
            "the tables come first"
        );
        assert_eq!(seen[sent..], vec![Seen::Resend(IfIndex(1), frame.clone()); 32]);
        // The next one was on its way up while that happened.
        assert_eq!(routed(&mut w, 1, ip(f, 20)).0, [Seen::Resend(IfIndex(1), frame)]);
    }
}

#[test]
fn ld_frames_for_nobody_and_for_a_silent_oracle_are_dropped() {
    let mut w = world(V4);
    let asked = one_asked(&routed(&mut w, 1, ip(V4, 20)).0);
    w.reply(&asked, &[Rec::No(Eid::Ip(ip(V4, 20)), 1)]);
    assert_eq!(w.core.counters().held_dropped, 1);
    routed(&mut w, 1, ip(V4, 21));
    w.passes(::core::time::Duration::from_secs(1));
    assert_eq!(w.core.counters().held_dropped, 2);
    let asked = one_asked(&routed(&mut w, 1, ip(V4, 22)).0);
    let recs = [Rec::Owner(ip(V4, 22), mac(22), 5), Rec::At(mac(22), rloc(V4, 2), 5)];
    assert!(w.reply(&asked, &recs).iter().any(|s| matches!(s, Seen::Resend(..))));
    assert_eq!(w.core.counters().held_sent, 1);
}

/// Nothing circles between the tables and the agent: where the owner is, is asked.
#[test]
fn ld_frames_wait_for_an_owner_whose_place_is_not_known() {
    for f in BOTH {
        let mut w = world(f);
        let asked = one_asked(&routed(&mut w, 1, ip(f, 20)).0);
        w.reply(&asked, &[Rec::Owner(ip(f, 20), mac(20), 5), Rec::At(mac(20), rloc(f, 2), 5)]);
        w.notify(Rec::Gone(Eid::Mac(mac(20))));
        assert!(w.tables.neighbours.contains_key(&(vni(), ip(f, 20))));
        let (seen, frame) = routed(&mut w, 1, ip(f, 20));
        let asked = one_asked(&seen);
        assert_eq!(asked.eid, Eid::Mac(mac(20)));
        let seen = w.reply(&asked, &[Rec::At(mac(20), rloc(f, 3), 6)]);
        assert!(seen.contains(&Seen::Resend(IfIndex(1), frame)), "{seen:?}");
    }
}
