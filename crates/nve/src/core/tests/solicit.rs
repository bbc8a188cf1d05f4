//! Requirement V6: NVEs tell each other that a tenant system is not where frames for it go, and ask the Oracle
//! when they are told (RFC 9301 section 6.1).

use super::super::Fact;
use super::oracle::{self, Rec};
use super::world::*;
use ::core::net::{IpAddr, SocketAddr};
use ::core::time::Duration;
use weft_lisp::{EncodeOptions, MapRequest};
use weft_model::{Eid, MacAddr, Rloc, XtrId};

/// A frame to a MAC.
fn frame(to: MacAddr) -> Vec<u8> {
    let mut frame = [to.octets(), mac(9).octets()].concat();
    frame.extend([0x08, 0x00, 0x45]);
    frame
}

/// NVE `n` is enrolled.
fn nve(w: &mut World, n: u8) {
    w.core.handle_fact(Fact::Nve(XtrId([n; 16]), [rloc(w.family, n)].into()));
    w.seen();
}

/// The solicitations in `seen`: to whom, about what, and as sent.
fn solicits(seen: &[Seen]) -> Vec<(SocketAddr, Eid, Vec<u8>)> {
    let read = |s: &Seen| {
        let Seen::Answer(to, octets) = s else { return None };
        let smr = MapRequest::decode(octets).unwrap();
        assert!(smr.smr && !smr.probe && smr.xtr.is_none());
        assert_eq!(smr.records.len(), 1);
        let record = smr.records.first().unwrap();
        let (vn, eid) = oracle::eid_of(record.eid, record.mask_len);
        assert_eq!((vn, smr.source_eid), (vni(), record.eid));
        let rlocs: Vec<IpAddr> = smr.itr_rlocs.iter().filter_map(|a| a.as_ip()).collect();
        assert!(rlocs.iter().all(|ip| ip.is_ipv4() == to.is_ipv4()) && rlocs.len() == 1);
        let mut again = Vec::new();
        smr.encode(&mut again, EncodeOptions::default()).unwrap();
        assert_eq!(&again, octets);
        Some((*to, eid, octets.clone()))
    };
    seen.iter().filter_map(read).collect()
}

fn port(rloc: Rloc) -> SocketAddr {
    SocketAddr::new(rloc.get(), 4342)
}

#[test]
fn v6_who_sends_for_the_absent_is_told_once_in_three_seconds() {
    for f in BOTH {
        let mut w = World::started(f, &["a"]);
        nve(&mut w, 2);
        nve(&mut w, 3);
        let told = |seen: &[Seen]| solicits(seen).iter().map(|(to, eid, _)| (*to, *eid)).collect::<Vec<_>>();
        let gone = Eid::Mac(mac(20));
        assert_eq!(told(&w.astray(2, frame(mac(20)))), [(port(rloc(f, 2)), gone)]);
        for _ in 0..20 {
            w.passes(Duration::from_millis(100));
            assert_eq!(told(&w.astray(2, frame(mac(20)))), []);
        }
        assert_eq!(told(&w.astray(3, frame(mac(20)))), [(port(rloc(f, 3)), gone)], "another NVE");
        assert_eq!(
            told(&w.astray(2, frame(mac(21)))),
            [(port(rloc(f, 2)), Eid::Mac(mac(21)))],
            "another address"
        );
        w.passes(Duration::from_secs(1));
        assert_eq!(told(&w.astray(2, frame(mac(20)))), [(port(rloc(f, 2)), gone)], "3 s later");
        assert_eq!((w.core.counters().smrs_sent, w.core.counters().smrs_limited), (4, 20));
        // Not for who is here, for groups, nor to strangers.
        assert_eq!(w.astray(2, frame(mac(1))), []);
        assert_eq!(w.astray(2, frame(MacAddr::BROADCAST)), []);
        assert_eq!(w.astray(2, frame(MacAddr::anycast(vni()))), []);
        assert_eq!(w.astray(7, frame(mac(20))), []);
        w.passes(Duration::from_secs(3));
        assert!(w.core.solicits.all().is_empty());
    }
}

#[test]
fn v6_what_is_remembered_is_bounded() {
    let mut w = World::with(V4, |config| config.limits.solicits = 2);
    nve(&mut w, 2);
    let sent = (20..30).map(|n| solicits(&w.astray(2, frame(mac(n)))).len()).sum::<usize>();
    assert_eq!((sent, w.core.solicits.all().len()), (2, 2));
    w.passes(Duration::from_secs(3));
    assert_eq!(solicits(&w.astray(2, frame(mac(29)))).len(), 1);
}

/// From an enrolled NVE: the Oracle is asked, once in 3 s, whatever the other one says beside.
#[test]
fn v6_who_is_told_asks_the_oracle_once_in_three_seconds() {
    for f in BOTH {
        // As another NVE sends it.
        let mut there = World::started(f, &["x"]);
        there.core.handle_fact(Fact::Nve(XtrId([9; 16]), [rloc(f, 9)].into()));
        there.seen();
        let (_, _, smr) = solicits(&there.astray(9, frame(mac(50)))).remove(0);
        let mut w = World::started(f, &["a"]);
        nve(&mut w, 3);
        w.knows(50, 3, 6);
        let from = rloc(f, 3).get();
        let hears = |w: &mut World, from: IpAddr| {
            w.core.handle_datagram(w.now, from, &smr);
            w.seen()
        };
        assert_eq!(hears(&mut w, rloc(f, 8).get()), [], "a stranger");
        assert_eq!(w.core.counters().foreign_datagrams, 1);
        let question = one_asked(&hears(&mut w, from));
        assert_eq!((question.to, question.eid), (resolver(f, 0), Eid::Mac(mac(50))));
        assert!(question.invoked, "RFC 9301 section 5.2");
        let again = w.passes(Duration::from_millis(200));
        let again: Vec<_> = again.into_iter().map(|(_, seen)| seen).collect();
        assert!(one_asked(&again).invoked, "when it is repeated, too");
        // Until there is an answer it stays as it was.
        let before = w.tables.clone();
        for _ in 0..20 {
            assert_eq!(hears(&mut w, from), []);
        }
        assert_eq!(w.tables, before);
        w.reply(&question, &[Rec::At(mac(50), rloc(f, 4), 7)]);
        assert_eq!(hears(&mut w, from), [], "asked a moment ago");
        w.passes(Duration::from_secs(3));
        assert_eq!(one_asked(&hears(&mut w, from)).eid, Eid::Mac(mac(50)));
        // Of what nobody here uses nothing is asked.
        assert!(!one_asked(&w.sends(1, mac(51))).invoked, "nobody solicited that one");
        let mut other = World::started(f, &["a"]);
        nve(&mut other, 3);
        assert_eq!(hears(&mut other, from), []);
        assert!(other.core.solicits.all().is_empty());
    }
}

/// A question of another NVE's that solicits nothing is none of this one's business.
#[test]
fn v6_other_map_requests_of_nves_are_refused() {
    let mut w = World::started(V4, &["a"]);
    nve(&mut w, 3);
    w.knows(50, 3, 6);
    let mut there = World::started(V4, &["x"]);
    nve(&mut there, 9);
    let (_, _, mut octets) = solicits(&there.astray(9, frame(mac(50)))).remove(0);
    // The S bit.
    octets[0] &= !1;
    assert!(!MapRequest::decode(&octets).unwrap().smr);
    w.core.handle_datagram(w.now, rloc(V4, 3).get(), &octets);
    assert_eq!(w.seen(), []);
    assert_eq!(w.core.counters().unexpected_datagrams, 1);
}
