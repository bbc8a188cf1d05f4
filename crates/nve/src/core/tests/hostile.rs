//! What nobody asked for is counted and changes nothing.

use super::super::{Core, Session};
use super::oracle::{self, Rec};
use super::world::*;
use proptest::prelude::*;
use weft_lisp::tcp::{Body, Frame, RejectReason};

/// What must not change: all but counters and time.
fn state(core: &Core) -> Core {
    let mut state = core.clone();
    state.counters = Default::default();
    state.now = Default::default();
    state
}

fn asking(f: Family) -> (World, oracle::Asked) {
    let mut w = World::started(f, &["a"]);
    w.knows(50, 3, 6);
    let request = one_asked(&w.asks(1, ip(f, 60), false));
    (w, request)
}

fn answer(f: Family, nonce: u64) -> Vec<u8> {
    oracle::reply(nonce, &[Rec::Owner(ip(f, 60), mac(60), 4), Rec::At(mac(60), rloc(f, 4), 4)])
}

#[test]
fn datagrams_from_elsewhere_and_wrong_nonces() {
    for f in BOTH {
        let (mut w, request) = asking(f);
        let before = state(&w.core);
        w.core.handle_datagram(w.now, rloc(f, 66).get(), &answer(f, request.nonce));
        for nonce in [0, request.nonce ^ 1, u64::MAX] {
            w.core.handle_datagram(w.now, request.to.ip(), &answer(f, nonce));
        }
        // The right nonce, about something else.
        let beside = oracle::reply(request.nonce, &[Rec::At(mac(61), rloc(f, 4), 4)]);
        w.core.handle_datagram(w.now, request.to.ip(), &beside);
        w.core.handle_datagram(w.now, request.to.ip(), &oracle::reply(request.nonce, &[]));
        assert_eq!(w.seen(), []);
        assert_eq!(state(&w.core), before);
        let c = w.core.counters();
        assert_eq!((c.foreign_datagrams, c.unknown_nonces, c.beside_the_question), (1, 3, 2));
        // An Oracle seen through a v6 socket is the same Oracle.
        let mapped = match request.to.ip() {
            std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped().into(),
            v6 => v6,
        };
        w.core.handle_datagram(w.now, mapped, &answer(f, request.nonce));
        assert_eq!(injects(&w.seen()), [(1, mac(60))]);
    }
}

#[test]
fn prefixes_are_malformed() {
    for f in BOTH {
        let (mut w, request) = asking(f);
        let before = state(&w.core);
        let whole = answer(f, request.nonce);
        for len in 0..whole.len() {
            w.core.handle_datagram(w.now, request.to.ip(), &whole[..len]);
            let data = &oracle::notification(Rec::Owner(ip(f, 50), mac(51), 7))[8..];
            let data = &data[..len.min(data.len() - 5)];
            w.core.handle_session(w.now, 0, Session::Frame(Frame { frame_type: 21, id: 1, data }));
        }
        assert_eq!(w.seen(), []);
        assert_eq!(state(&w.core), before);
        let c = w.core.counters();
        assert_eq!((c.malformed_datagrams, c.malformed_frames), (whole.len() as u64, whole.len() as u64));
    }
}

#[test]
fn messages_of_other_kinds() {
    let (mut w, request) = asking(V4);
    let before = state(&w.core);
    let register = [0x30, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0];
    let question =
        [0x10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 192, 0, 2, 1, 0, 32, 0, 1, 10, 0, 0, 2];
    for octets in [&register[..], &question[..]] {
        w.core.handle_datagram(w.now, request.to.ip(), octets);
    }
    assert_eq!(w.core.counters().unexpected_datagrams, 2);
    for frame_type in [16, 17, 22, 31, 0xff02, 0xffff] {
        let data: &[u8] = match frame_type {
            16 => &[2, 0, 0, 0, 0, 17, 0, 12, 0, 0, 0, 1],
            17 => &register,
            22 => &[0, 1, 0, 0, 0, 7],
            0xff02 => &[0; 12],
            _ => &[],
        };
        w.core.handle_session(w.now, 0, Session::Frame(Frame { frame_type, id: 1, data }));
    }
    assert_eq!(w.core.counters().unexpected_frames, 6);
    // Answers to registrations that were never made.
    w.hears(0, &oracle::ack(1, mac(77)));
    w.hears(0, &oracle::reject(1, mac(77), RejectReason::NotASitePrefix));
    w.hears(0, &oracle::reject(9_999, mac(1), RejectReason::NotASitePrefix));
    assert_eq!(w.seen(), []);
    assert_eq!(state(&w.core), before);
}

#[test]
fn punts_of_vaps_that_are_none() {
    let (mut w, _) = asking(V4);
    let before = state(&w.core);
    assert_eq!(w.sends(99, mac(70)), []);
    let frame = question(1, ip(V4, 70), false);
    let dst = weft_model::MacAddr::BROADCAST;
    let other = weft_model::Vni::new(8).unwrap();
    let reason = weft_datapath::PuntReason::ArpMiss;
    w.core.handle_punt(
        w.now,
        &weft_datapath::Punt { vap: weft_datapath::IfIndex(1), vni: other, reason, dst, from: None, frame },
    );
    assert_eq!(w.seen(), []);
    assert_eq!(state(&w.core), before);
}

proptest! {
    #[test]
    fn mutated_messages_never_panic(
        v6 in any::<bool>(),
        kind in 0_u8..4,
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let f = if v6 { V6 } else { V4 };
        let (mut w, request) = asking(f);
        let mut octets = match kind {
            0 => answer(f, request.nonce),
            1 => oracle::notification(Rec::Owner(ip(f, 50), mac(51), 7)),
            2 => oracle::notification(Rec::At(mac(50), rloc(f, 4), 7)),
            _ => oracle::frame(&Body::Signal(weft_lisp::tcp::Signal::VnDigest { vni: VNI, count: 3, digest: 4 }), 1),
        };
        for (at, value) in flips {
            let at = at.index(octets.len());
            octets[at] ^= value;
        }
        if kind == 0 {
            w.core.handle_datagram(w.now, request.to.ip(), &octets);
        } else {
            let end = 8 + cut.index(octets.len() - 8 + 1);
            let frame_type = u16::from_be_bytes([octets[0], octets[1]]);
            w.core.handle_session(w.now, 0, Session::Frame(Frame { frame_type, id: 1, data: &octets[8..end] }));
        }
        let mut digests = 0;
        // A digest that was mutated leads to registrations; all are checked by the harness.
        for seen in w.seen() {
            digests += usize::from(matches!(seen, Seen::Heard(..)));
        }
        prop_assert!(digests <= 3);
    }
}
