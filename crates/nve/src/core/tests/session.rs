//! The session: requirements N1, N2, decisions 1 and 3.

use super::super::{Notice, Session};
use super::oracle::{self, Heard, Rec};
use super::world::*;
use ::core::time::Duration;
use weft_lisp::tcp::{Body, EidPrefix, RefreshScope, Signal};
use weft_lisp::{Address, Inner};
use weft_model::{Vni, digest::Digest};

fn heard(seen: &[Seen]) -> Vec<Heard> {
    seen.iter().filter_map(|s| if let Seen::Heard(_, h) = s { Some(h.clone()) } else { None }).collect()
}

/// Digest of the registrations in `heard`.
fn sum(heard: &[Heard]) -> Digest {
    heard.iter().fold(Digest::default(), |mut sum, h| {
        if let Heard::Registered { digest, .. } = h {
            sum.add(*digest);
        }
        sum
    })
}

pub fn signal(signal: Signal) -> Vec<u8> {
    oracle::frame(&Body::Signal(signal), 1)
}

pub(super) fn refresh(vni: Option<u32>) -> Vec<u8> {
    let scope = vni.map_or(RefreshScope::All, |iid| {
        let eid = Address::InstanceId { iid, mask_len: 32, inner: Inner::NoAddress };
        RefreshScope::Instance(EidPrefix { mask_len: 0, eid })
    });
    oracle::frame(&Body::RegistrationRefresh { scope, rejected_only: false }, 1)
}

#[test]
fn d2_hello_first_end_of_registration_last() {
    for f in BOTH {
        let mut w = World::started(f, &["a", "b"]);
        let heard = heard(&w.session(1, Session::Up));
        assert_eq!(heard[..2], [Heard::Hello(1, 77), Heard::NamesGroups]);
        assert_eq!(
            heard[2..4].iter().filter(|h| matches!(h, Heard::Registered { ttl: u32::MAX, .. })).count(),
            2
        );
        assert_eq!(heard[4..], [Heard::End(sum(&heard))]);
        assert_eq!(sum(&heard).count, 6, "records, not tenant systems");
    }
}

#[test]
fn d2_nothing_to_register_is_said_too() {
    let mut w = World::new(V4);
    let heard = heard(&w.session(0, Session::Up));
    assert_eq!(heard, [Heard::Hello(1, 77), Heard::NamesGroups, Heard::End(Digest::default())]);
}

#[test]
fn d3_refresh_of_everything_or_of_a_vn() {
    let mut w = World::started(V4, &["a", "b"]);
    let all = heard(&w.hears(0, &refresh(None)));
    assert_eq!((all.len(), all[2].clone()), (3, Heard::End(sum(&all))));
    let vn = heard(&w.hears(0, &refresh(Some(VNI))));
    assert_eq!((vn.len(), vn[2].clone()), (3, Heard::Digest(vni(), sum(&vn))));
    let other = heard(&w.hears(0, &refresh(Some(8))));
    assert_eq!(other, [Heard::Digest(Vni::new(8).unwrap(), Digest::default())], "nothing of that VN is here");
}

#[test]
fn d3_digest_that_differs_has_the_vn_registered_again() {
    let mut w = World::started(V6, &["a", "b"]);
    let all = heard(&w.hears(0, &refresh(Some(VNI))));
    let Digest { count, sum: digest } = sum(&all);
    assert_eq!(w.hears(0, &signal(Signal::VnDigest { vni: VNI, count, digest })), []);
    for (count, digest) in [(count, digest ^ 1), (count - 3, digest), (0, 0)] {
        let seen = heard(&w.hears(0, &signal(Signal::VnDigest { vni: VNI, count, digest })));
        assert_eq!(seen.len(), 3);
        assert_eq!(seen[2], Heard::Digest(vni(), sum(&all)));
    }
    assert_eq!(w.core.counters().digest_mismatches, 3);
    // What an Oracle has of a VN that is not here any more.
    let seen = heard(&w.hears(0, &signal(Signal::VnDigest { vni: 8, count: 1, digest: 5 })));
    assert_eq!(seen, [Heard::Digest(Vni::new(8).unwrap(), Digest::default())]);
    assert_eq!(w.hears(0, &signal(Signal::VnDigest { vni: 0, count: 1, digest: 5 })), []);
    assert_eq!(w.core.counters().unexpected_frames, 1);
}

#[test]
fn d3_digest_every_30_s_while_there_is_a_session() {
    let mut w = World::started(V4, &["a", "b"]);
    let all = heard(&w.hears(0, &refresh(Some(VNI))));
    let begun = w.now;
    let later = w.passes(Duration::from_secs(90));
    let at: Vec<_> = later.iter().map(|(at, _)| at.since(begun).as_secs()).collect();
    assert_eq!(at, [30, 60, 90]);
    assert!(later.iter().all(|(_, s)| *s == Seen::Heard(0, Heard::Digest(vni(), sum(&all)))));
    // It follows what is registered.
    w.grants(11, vec![grant("b", 2)]);
    let later = w.passes(Duration::from_secs(30));
    let [(_, Seen::Heard(0, Heard::Digest(_, digest)))] = &later[..] else { panic!("{later:?}") };
    assert_eq!(digest.count, 3);
    w.session(0, Session::Down);
    assert_eq!(w.passes(Duration::from_secs(100)), []);
}

#[test]
fn n1_registered_again_when_the_epoch_changes() {
    let mut w = World::started(V4, &["a"]);
    let mut newer = grant("a", 1);
    newer.epoch = weft_model::Epoch::new(4_096).unwrap();
    let seen = heard(&w.grants(11, vec![newer]));
    let [Heard::Registered { version, .. }] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!(*version, 1, "4096 is 1 on the circle");
}

#[test]
fn hello_versions() {
    let mut w = World::started(V4, &["a"]);
    for (version, boot_id) in [(1, 1), (1, 2), (0, 2), (2, 3)] {
        assert_eq!(w.hears(0, &signal(Signal::Hello { version, boot_id })), [], "one off is fine");
    }
    let seen = w.hears(0, &signal(Signal::Hello { version: 3, boot_id: 3 }));
    assert_eq!(seen, [Seen::Notice(Notice::Version { oracle: 0, theirs: 3, ours: 1 })]);
}

#[test]
fn frames_of_a_session_that_is_over() {
    let mut w = World::started(V4, &["a"]);
    w.session(0, Session::Down);
    assert_eq!(w.notify(Rec::At(mac(50), rloc(V4, 3), 1)), []);
    assert_eq!(w.core.counters().unexpected_frames, 1);
    assert_eq!(w.session(7, Session::Up), [], "no such Oracle");
}

#[test]
fn n1_all_oracles_are_told_of_changes() {
    let mut w = World::started(V4, &["a"]);
    w.session(1, Session::Up);
    let seen = w.grants(11, vec![]);
    assert_eq!(withdrawn(&seen), 2);
}

#[test]
fn peers_follow_the_list_of_nves() {
    use super::super::Fact;
    use std::collections::BTreeSet;
    use weft_model::XtrId;
    for f in BOTH {
        let mut w = World::new(f);
        let peer = |w: &World, n| w.tables.peers.get(&rloc(f, n).get()).is_some_and(|p| p.nve);
        let nve =
            |n: u8, rlocs: &[u8]| Fact::Nve(XtrId([n; 16]), rlocs.iter().map(|n| rloc(f, *n)).collect());
        for fact in [nve(2, &[12, 22]), nve(3, &[13]), nve(1, &[11])] {
            w.core.handle_fact(fact);
        }
        w.seen();
        assert!(peer(&w, 12) && peer(&w, 22) && peer(&w, 13) && !peer(&w, 11), "not itself");
        // An address changes hands: the new holder is heard of before the old one.
        w.core.handle_fact(nve(3, &[12]));
        w.core.handle_fact(nve(2, &[22]));
        w.seen();
        assert!(peer(&w, 12) && peer(&w, 22) && !peer(&w, 13));
        w.core.handle_fact(Fact::NvesListed(BTreeSet::from([XtrId([3; 16])])));
        w.seen();
        assert!(peer(&w, 12) && !peer(&w, 22));
        w.core.handle_fact(Fact::NveGone(XtrId([3; 16])));
        w.seen();
        assert_eq!(w.tables.peers.values().filter(|p| p.nve).count(), 0);
        assert_eq!(w.tables.peers.values().filter(|p| p.oracle).count(), 2);
    }
}
