//! `reply: forward`: answering what an Oracle passes on, and being answered by another NVE (N5).

use super::super::{Fact, Output, Session};
use super::oracle::{self, Rec};
use super::world::*;
use ::core::net::{IpAddr, SocketAddr};
use std::collections::BTreeSet;
use weft_datapath::{IfIndex, Punt, PuntReason};
use weft_lisp::{
    Action, Address, Ecm, EcmHeader, Eid as WireEid, EidRecord, EncodeOptions, MapReply, MapRequest,
};
use weft_model::{Eid, Reply, Rloc, VnSpec, XtrId};

/// What NVE 2 asks, as an Oracle passes it on.
fn question(f: Family, wanted: &[Eid], itr: &[Rloc], port: u16) -> Vec<u8> {
    let wire = |eid: &Eid| match eid {
        Eid::Mac(mac) => WireEid::host(VNI, mac.octets()),
        Eid::Ip(ip) => WireEid::host(VNI, ip.get()),
    };
    let eids: Vec<_> = wanted.iter().map(wire).collect();
    let record = |eid: &WireEid| EidRecord { notify: false, mask_len: eid.mask_len(), eid: eid.address() };
    let records: Vec<_> = eids.iter().map(record).collect();
    let itr: Vec<_> = itr.iter().map(|rloc| Address::from(rloc.get())).collect();
    let request = MapRequest {
        nonce: 99,
        itr_rlocs: (&itr).into(),
        records: (&records).into(),
        ..MapRequest::default()
    };
    let header =
        EcmHeader::Ip { source: SocketAddr::new(rloc(f, 2).get(), port), destination: resolver(f, 0) };
    let mut out = Vec::new();
    Ecm::encode_with(&mut out, false, header, |out| request.encode(out, EncodeOptions::default())).unwrap();
    out
}

fn passed_on(w: &mut World, octets: &[u8]) -> Vec<Seen> {
    (2..=3).for_each(|n| both(w, n));
    w.core.handle_datagram(w.now, resolver(w.family, 0).ip(), octets);
    w.seen()
}

/// EID, TTL, version, locators of a record.
type Said = (Eid, u32, u16, Vec<String>);

/// The records of the only answer, and whereto.
fn answer(seen: &[Seen]) -> (SocketAddr, Vec<Said>) {
    let [Seen::Answer(to, octets)] = seen else { panic!("{seen:?}") };
    let reply = MapReply::decode(octets).unwrap();
    assert_eq!(reply.nonce, 99);
    let records = reply.records.iter().map(|r| {
        assert!(r.authoritative, "A bit");
        assert_eq!(r.action, if r.locators.is_empty() { Action::Drop } else { Action::NoAction });
        let locators = r.locators.iter().map(|l| match l.rloc.as_mac() {
            Some(mac) => weft_model::MacAddr(mac).to_string(),
            None => l.rloc.as_ip().unwrap().to_string(),
        });
        (oracle::eid_of(r.eid, r.mask_len).1, r.ttl, r.map_version.get(), locators.collect())
    });
    (*to, records.collect())
}

#[test]
fn n5_the_holder_answers_whoever_asked() {
    for f in BOTH {
        let mut w = World::started(f, &["a"]);
        let here = (Eid::Mac(mac(1)), 15, 5, vec![rloc(f, 1).to_string()]);
        for family in BOTH {
            let eid = Eid::Ip(ip(family, 1));
            let seen = passed_on(&mut w, &question(f, &[eid], &[rloc(f, 2)], 5555));
            let bound = (eid, 15, 5, vec![mac(1).to_string()]);
            let to = SocketAddr::new(rloc(f, 2).get(), 5555);
            assert_eq!(answer(&seen), (to, vec![bound, here.clone()]), "the inner source port");
        }
        let seen = passed_on(&mut w, &question(f, &[Eid::Mac(mac(1))], &[rloc(f, 2)], 4342));
        assert_eq!(answer(&seen).1, [here]);
        assert_eq!(w.core.counters().requests_answered, 3);
    }
}

#[test]
fn n5_negative_for_what_is_not_activated_here() {
    let mut w = World::started(V4, &["a"]);
    let no = |eid| (eid, 1, 0, vec![]);
    for eid in [Eid::Ip(ip(V4, 9)), Eid::Ip(ip(V6, 9)), Eid::Mac(mac(9))] {
        assert_eq!(answer(&passed_on(&mut w, &question(V4, &[eid], &[rloc(V4, 2)], 4342))).1, [no(eid)]);
    }
    // It was here a moment ago.
    w.attached("b", 2);
    let call = w.call();
    w.core.handle_detach(call, red(), name("b"), false);
    w.core.handle_released(call, Ok(()));
    w.seen();
    let eid = Eid::Ip(ip(V4, 2));
    assert_eq!(answer(&passed_on(&mut w, &question(V4, &[eid], &[rloc(V4, 2)], 4342))).1, [no(eid)]);
}

#[test]
fn n5_the_answer_goes_to_an_itr_rloc_that_can_be_reached() {
    let mut w = World::started(V6, &["a"]);
    let eid = Eid::Ip(ip(V4, 1));
    let both = [rloc(V4, 2), rloc(V6, 2), rloc(V6, 3)];
    assert_eq!(answer(&passed_on(&mut w, &question(V6, &[eid], &both, 4342))).0.ip(), rloc(V6, 2).get());
    assert_eq!(passed_on(&mut w, &question(V6, &[eid], &[rloc(V4, 2)], 4342)), []);
    assert_eq!(passed_on(&mut w, &question(V6, &[eid], &both, 0)), []);
    assert_eq!(w.core.counters().unexpected_datagrams, 2);
}

#[test]
fn n5_only_an_oracle_passes_questions_on_and_only_so_many() {
    let mut w = World::with(V4, |c| (c.limits.answers_per_second, c.limits.answer_burst) = (1, 2));
    w.attached("a", 1);
    nve(&mut w, 2);
    let asked = question(V4, &[Eid::Ip(ip(V4, 1))], &[rloc(V4, 2)], 4342);
    w.core.handle_datagram(w.now, rloc(V4, 2).get(), &asked);
    assert_eq!((w.seen(), w.core.counters().foreign_datagrams), (vec![], 1));
    for limited in [0, 0, 1, 2] {
        passed_on(&mut w, &asked);
        assert_eq!(w.core.counters().answers_limited, limited);
    }
    w.now = w.now + ::core::time::Duration::from_secs(1);
    assert_eq!(passed_on(&mut w, &asked).len(), 1);
    for cut in 0..asked.len() {
        assert_eq!(passed_on(&mut w, &asked[..cut]), [], "{cut}");
    }
}

/// NVE `n` is in the list, with an RLOC of each family.
fn both(w: &mut World, n: u8) {
    w.core.handle_fact(Fact::Nve(XtrId([n; 16]), BTreeSet::from([rloc(V4, n), rloc(V6, n)])));
    w.seen();
}

/// NVE `n` is in the list.
fn nve(w: &mut World, n: u8) {
    w.core.handle_fact(Fact::Nve(XtrId([n; 16]), BTreeSet::from([rloc(w.family, n)])));
    w.seen();
}

fn says(w: &mut World, from: IpAddr, nonce: u64, recs: &[Rec]) -> Vec<Seen> {
    w.core.handle_datagram(w.now, from, &oracle::reply(nonce, recs));
    w.seen()
}

#[test]
fn n5_an_nve_answers_for_its_own_and_the_map_cache_comes_first() {
    for f in BOTH {
        let mut w = World::started(f, &["a"]);
        (2..=3).for_each(|n| nve(&mut w, n));
        let nonce = one_asked(&w.asks(1, ip(f, 50), false)).nonce;
        let recs = [Rec::Owner(ip(f, 50), mac(50), 4), Rec::At(mac(50), rloc(f, 2), 4)];
        // A stranger, another NVE that speaks of NVE 2's, and somebody who does not know the nonce.
        assert_eq!(says(&mut w, rloc(f, 9).get(), nonce, &recs), []);
        assert_eq!(says(&mut w, rloc(f, 3).get(), nonce, &recs), []);
        assert_eq!(w.core.counters().foreign_datagrams, 2);
        assert_eq!(says(&mut w, rloc(f, 2).get(), nonce + 1, &recs), []);
        // What it says beside the question is not listened to.
        let more =
            [&recs[..], &[Rec::Owner(ip(f, 51), mac(50), 4), Rec::At(mac(51), rloc(f, 2), 4)]].concat();
        let seen = says(&mut w, rloc(f, 2).get(), nonce, &more);
        assert!(matches!(&seen[..], [Seen::Op(_), Seen::Op(_), Seen::Inject(..)]), "{seen:?}");
        assert_eq!(injects(&seen), [(1, mac(50))]);
        assert!(!w.tables.neighbours.contains_key(&(vni(), ip(f, 51))));
    }
}

#[test]
fn n5_a_late_no_of_the_old_holder_undoes_nothing() {
    let mut w = World::started(V4, &["a"]);
    nve(&mut w, 2);
    let nonce = one_asked(&w.asks(1, ip(V4, 50), false)).nonce;
    w.notify(Rec::At(mac(50), rloc(V4, 3), 5));
    let seen = w.notify(Rec::Owner(ip(V4, 50), mac(50), 5));
    assert_eq!(injects(&seen), [(1, mac(50))]);
    assert_eq!(says(&mut w, rloc(V4, 2).get(), nonce, &[Rec::No(Eid::Ip(ip(V4, 50)), 1)]), []);
    assert_eq!(w.core.counters().unknown_nonces, 1);
}

fn forwarding(w: &mut World) {
    w.core.handle_fact(Fact::Vn(VnSpec { reply: Reply::Forward, ..spec() }));
    w.seen();
}

#[test]
fn m5_where_nves_answer_the_askers_own_mapping_goes_along() {
    for f in BOTH {
        let mut w = World::started(f, &["a"]);
        assert_eq!(one_asked(&w.asks(1, ip(f, 50), false)).along, None, "an Oracle knows it");
        forwarding(&mut w);
        assert_eq!(one_asked(&w.asks(1, ip(f, 51), false)).along, Some(Eid::Mac(mac(1))));
        assert_eq!(one_asked(&w.sends(1, mac(52))).along, Some(Eid::Mac(mac(1))));
    }
}

#[test]
fn m5_what_goes_along_is_not_believed_but_asked_for() {
    for f in BOTH {
        // What NVE 2 sends for its tenant system 9, which wants to talk to 1.
        let mut there = World::with(f, |c| c.rlocs = BTreeSet::from([rloc(f, 2)]));
        there.session(0, Session::Up);
        there.attached("z", 9);
        forwarding(&mut there);
        let frame = super::world::question(9, ip(f, 1), false);
        let reason = if f == V4 { PuntReason::ArpMiss } else { PuntReason::NdMiss };
        let dst = weft_model::MacAddr(frame[..6].try_into().unwrap());
        there
            .core
            .handle_punt(there.now, &Punt { vap: IfIndex(9), vni: vni(), reason, dst, from: None, frame });
        let octets = loop {
            match there.core.poll_output().unwrap() {
                Output::Datagram { octets, .. } => break octets,
                _ => continue,
            }
        };

        let mut w = World::started(f, &["a"]);
        let seen = passed_on(&mut w, &octets);
        assert!(matches!(seen[0], Seen::Answer(..)), "{seen:?}");
        assert_eq!(one_asked(&seen).eid, Eid::Ip(ip(f, 9)));
        assert!(!w.tables.fdb.contains_key(&(vni(), mac(9))), "not before it is verified");
        assert_eq!(asked(&passed_on(&mut w, &octets)), [], "once");
        // About somebody who is not here nobody is introduced.
        let mut w = World::started(f, &[]);
        w.attached("b", 2);
        assert_eq!(asked(&passed_on(&mut w, &octets)), []);
    }
}

#[test]
fn n5_strangers_are_sent_nothing() {
    for f in BOTH {
        let mut w = World::started(f, &["a"]);
        let asked = question(f, &[Eid::Ip(ip(f, 1))], &[rloc(f, 9)], 53);
        assert_eq!(passed_on(&mut w, &asked), []);
        assert_eq!(w.core.counters().unexpected_datagrams, 1);
    }
}
