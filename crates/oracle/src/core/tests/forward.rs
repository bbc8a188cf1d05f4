//! N5: questions passed on to the NVE that answers them.

use super::super::wire::to_lisp;
use super::*;
use weft_model::Reply;

/// TSI 7 at NVE 1 and TSI 8 at NVE 2, both registered, in a VN where NVEs answer.
fn bench() -> Bench {
    let mut bench = Bench::new(3);
    bench.fact(Fact::Vn(VnSpec { reply: Reply::Forward, ..spec(1) }));
    for (n, session) in [(1, 10), (2, 20)] {
        bench.grant(1, n + 6, n);
        bench.up(session, n);
        bench.register(session, n, 1, n + 6, ACTIVE);
    }
    bench.sent();
    bench
}

/// Where questions go, and what stands in them.
fn forwarded(bench: &mut Bench) -> Vec<(SocketAddr, Option<IpAddr>, Vec<u8>)> {
    let mut all = Vec::new();
    let mut octets = Vec::new();
    while let Some(transmit) = bench.shard.poll_transmit(&mut octets) {
        if let Transmit::Udp { dst, src } = transmit {
            all.push((dst, src, octets.clone()));
        }
    }
    all
}

fn answered(bench: &mut Bench) -> usize {
    bench.sent().iter().filter(|sent| matches!(sent, Sent::Reply { .. })).count()
}

#[test]
fn n5_the_question_goes_on_unchanged_to_the_holder() {
    for (eid, here, there) in [
        (ip4(8), oracle_ip(), rloc(2)),
        (ip6(8), oracle_ip(), rloc(2)),
        (mac(8), "2001:db8::250".parse().unwrap(), rloc6(2)),
    ] {
        let mut bench = bench();
        let from = if here.is_ipv4() { rloc(1) } else { rloc6(1) };
        let asked = request(1, 1, eid, Some(ip4(7)), 5);
        bench.shard.handle_datagram(bench.now, SocketAddr::new(from.get(), 4342), here, &asked);
        let sent = forwarded(&mut bench);
        assert_eq!(sent, [(SocketAddr::new(there.get(), 4342), Some(here), asked)], "{eid:?}");
        assert_eq!(bench.shard.counters().requests_forwarded, 1);
        // Who asked is told of what changes, as if the Oracle had answered (N8).
        bench.withdraw(20, 2, 1, 8);
        assert!(bench.told().iter().any(|(session, about, ttl, _)| (*session, *about, *ttl) == (10, eid, 0)));
    }
}

#[test]
fn n5_an_nve_beside_an_oracle_is_reached_at_its_own_port() {
    let mut bench = bench();
    bench.signal(20, Signal::LispPort { port: 5000 });
    bench.ask(1, 1, ip4(8), ip4(7));
    assert_eq!(forwarded(&mut bench)[0].0, "192.0.2.2:5000".parse().unwrap());
    // Each session says it anew.
    bench.up(21, 2);
    bench.pass(Duration::from_secs(2));
    bench.ask(1, 1, ip4(8), ip4(7));
    assert_eq!(forwarded(&mut bench).last().unwrap().0, "192.0.2.2:4342".parse().unwrap());
}

/// V6: who sends frames astray and has its Oracle on its own host is told so, too.
#[test]
fn v6_a_solicitation_reaches_the_nve_beside_an_oracle() {
    for here in [rloc(2).get(), rloc6(2).get()] {
        let mut bench = bench();
        let from = SocketAddr::new(if here.is_ipv4() { rloc(1) } else { rloc6(1) }.get(), 4342);
        let eid = to_lisp(vni(1), mac(8));
        let record = [lisp::EidRecord { notify: false, mask_len: eid.mask_len(), eid: eid.address() }];
        let itr = [lisp::Address::from(rloc(1).get())];
        let smr = |smr| {
            let mut octets = Vec::new();
            let request = lisp::MapRequest {
                smr,
                nonce: 5,
                source_eid: eid.address(),
                itr_rlocs: (&itr).into(),
                records: (&record).into(),
                ..lisp::MapRequest::default()
            };
            request.encode(&mut octets, lisp::EncodeOptions::default()).unwrap();
            octets
        };
        let give = |bench: &mut Bench, from, octets: &[u8]| {
            bench.shard.handle_datagram(bench.now, from, here, octets);
            forwarded(bench)
        };
        assert_eq!(give(&mut bench, from, &smr(true)), [], "at our own port there is nobody else");
        bench.signal(20, Signal::LispPort { port: 5000 });
        bench.sent();
        let on = (SocketAddr::new(here, 5000), Some(here), smr(true));
        assert_eq!(give(&mut bench, from, &smr(true)), [on]);
        assert_eq!(give(&mut bench, from, &smr(false)), [], "a question of the data plane");
        let stranger = SocketAddr::new("192.0.2.99".parse().unwrap(), 4342);
        assert_eq!(give(&mut bench, stranger, &smr(true)), []);
        let counters = bench.shard.counters();
        assert_eq!(
            (counters.requests_forwarded, counters.requests_from_strangers, counters.unsupported),
            (1, 1, 2)
        );
    }
}

#[test]
fn n5_what_nobody_else_can_answer_is_the_oracles() {
    let mut bench = bench();
    // Nobody's, and the asker's own.
    assert!(bench.answer(1, 1, ip4(50)).is_some_and(|all| all[0].2 == Action::Drop));
    assert!(bench.answer(1, 1, ip4(7)).is_some());
    // Its NVE's agent is away; its data path is not.
    bench.down(20);
    assert_eq!(bench.answer(1, 1, ip4(8)).map(|all| all[1].3.clone()), Some(at(2)));
    assert_eq!(bench.shard.counters().requests_forwarded, 0);
}

/// An NVE that has not registered it may not know its grant yet, and would say that nobody has the address.
#[test]
fn n5_what_is_granted_and_not_registered_is_the_oracles() {
    for eid in [ip4, ip6] {
        let mut bench = bench();
        bench.grant(1, 9, 2);
        assert_eq!(bench.answer(1, 1, eid(9)).map(|all| all[1].3.clone()), Some(at(2)));
        assert_eq!(bench.shard.counters().requests_forwarded, 0);
        bench.register(20, 2, 1, 9, ACTIVE);
        bench.pass(Duration::from_secs(2));
        bench.ask(1, 1, eid(9), ip4(7));
        assert_eq!(bench.shard.counters().requests_forwarded, 1);
    }
}

#[test]
fn n5_only_associated_is_asked_all_the_same() {
    let mut bench = bench();
    bench.register(20, 2, 1, 8, ASSOCIATED);
    bench.sent();
    bench.ask(1, 1, mac(8), ip4(7));
    assert_eq!(forwarded(&mut bench).len(), 1, "its NVE says that it is not Activated");
}

#[test]
fn n3_the_a_bit_wants_the_holders_own_answer() {
    let mut bench = bench();
    bench.fact(Fact::Vn(spec(1)));
    assert_eq!((bench.ask(1, 1, ip4(8), ip4(7)), answered(&mut bench)), (1, 1));
    bench.pass(Duration::from_secs(2));
    let asked = request(1, 1, ip4(8), Some(ip4(7)), 9);
    let asked = with_records(&asked, true, &[(1, ip4(8))]);
    bench.shard.handle_datagram(bench.now, SocketAddr::new(rloc(1).get(), 4342), oracle_ip(), &asked);
    assert_eq!(forwarded(&mut bench), [("192.0.2.2:4342".parse().unwrap(), Some(oracle_ip()), asked)]);
}

#[test]
fn n5_questions_in_one_message_go_each_to_their_own() {
    let mut bench = bench();
    bench.grant(1, 9, 3);
    bench.up(30, 3);
    bench.register(30, 3, 1, 9, ACTIVE);
    bench.sent();
    let asked = request(1, 1, ip4(8), Some(ip4(7)), 5);
    let asked = with_records(&asked, false, &[(1, ip4(8)), (1, ip4(9)), (1, ip4(50))]);
    bench.shard.handle_datagram(bench.now, SocketAddr::new(rloc(1).get(), 4342), oracle_ip(), &asked);
    let sent = forwarded(&mut bench);
    let one = |eid| with_records(&asked, false, &[(1, eid)]);
    assert_eq!((sent[0].0.ip(), &sent[0].2), (rloc(2).get(), &one(ip4(8))));
    assert_eq!((sent[1].0.ip(), &sent[1].2), (rloc(3).get(), &one(ip4(9))));
    assert!(matches!(Message::decode(&sent[2].2), Ok(Message::MapReply(_))), "the last is nobody's");
}

/// The same question with other records and A bit.
fn with_records(octets: &[u8], authoritative: bool, wanted: &[(u32, Eid)]) -> Vec<u8> {
    let ecm = Ecm::decode(octets).unwrap();
    let request = MapRequest::decode(ecm.message).unwrap();
    let eids: Vec<_> = wanted.iter().map(|(vn, eid)| wire::to_lisp(vni(*vn), *eid)).collect();
    let record = |eid: &lisp::Eid| EidRecord { notify: false, mask_len: eid.mask_len(), eid: eid.address() };
    let records: Vec<_> = eids.iter().map(record).collect();
    let mut out = Vec::new();
    let request = MapRequest { authoritative, records: (&records).into(), ..request };
    Ecm::encode_with(&mut out, false, ecm.header, |out| request.encode(out, EncodeOptions::default()))
        .unwrap();
    out
}
