//! Plain RFC 9301 xTRs.

use super::*;
use weft_lisp::{Algorithm, AuthData, MacLength, auth};
use weft_model::SiteId;

const KEY: &[u8] = b"a pre-shared secret";

fn fact(n: u8, saved_nonce: u64) -> Fact {
    Fact::Xtr(XtrFact {
        xtr_id: nve(n),
        site_id: SiteId(9),
        rlocs: vec![rloc(n), rloc6(n)],
        key_id: 1,
        algorithm: Algorithm::HmacSha256,
        key: KEY.to_vec(),
        pubsub_key: None,
        vnis: BTreeSet::from([vni(1)]),
        saved_nonce,
        subscription_nonces: BTreeMap::new(),
    })
}

/// xTR 5 holds TSI 7; NVE 1 has TSI 1 and a session.
fn bench() -> Bench {
    let mut bench = Bench::new(1);
    bench.fact(fact(5, 0));
    bench.grant(1, 7, 5);
    bench.grant(1, 1, 1);
    bench.up(10, 1);
    bench
}

struct Register {
    nonce: u64,
    key: &'static [u8],
    length: MacLength,
    xtr: bool,
    ttl: u32,
    use_ttl: bool,
    proxy: bool,
    eids: Vec<Eid>,
}

impl Default for Register {
    fn default() -> Self {
        Self {
            nonce: 1,
            key: KEY,
            length: MacLength::Truncated,
            xtr: true,
            ttl: 1440,
            use_ttl: false,
            proxy: true,
            eids: vec![mac(7), ip4(7)],
        }
    }
}

fn encode(register: &Register) -> Vec<u8> {
    let own = [lisp::Locator::new(rloc(5).get(), 1)];
    let records: Vec<_> = register.eids.iter().map(|eid| wire_record(1, *eid, register.ttl, &own)).collect();
    let message = MapRegister {
        proxy_reply: register.proxy,
        want_notify: true,
        use_ttl: register.use_ttl,
        nonce: register.nonce,
        auth: Algorithm::HmacSha256.placeholder(1, register.length),
        records: (&records).into(),
        xtr: register.xtr.then_some(lisp::Xtr { xtr_id: nve(5).0, site_id: 9 }),
        ..MapRegister::default()
    };
    let mut octets = Vec::new();
    message.encode(&mut octets, EncodeOptions::default()).unwrap();
    auth::sign(&mut octets, register.key, auth::Coverage::WholePayload).unwrap();
    octets
}

fn send(bench: &mut Bench, octets: &[u8]) {
    let src = SocketAddr::new(rloc(5).get(), 4342);
    bench.shard.handle_datagram(bench.now, src, oracle_ip(), octets);
}

#[test]
fn n1_register_is_applied_saved_and_only_then_acknowledged() {
    let mut bench = bench();
    send(&mut bench, &encode(&Register::default()));
    assert_eq!(bench.mapping(1, ip4(7)).unwrap().origin, weft_model::Origin::Registration);
    assert_eq!(bench.events(), [Event::SaveNonce { xtr: nve(5), nonce: 1 }]);
    assert_eq!(bench.sent(), [], "the nonce is not saved yet");
    bench.shard.handle_nonce_saved(bench.now, nve(5), 1);
    let [Sent::MapNotify { to, nonce: 1, octets }] = &bench.sent()[..] else { panic!() };
    assert_eq!(*to, "192.0.2.5:4342".parse().unwrap());
    auth::verify(octets, KEY, lisp::Policy::strict()).unwrap();
    // The fact with the nonce says the same.
    send(
        &mut bench,
        &encode(&Register { nonce: 2, xtr: false, length: MacLength::Full, ..Register::default() }),
    );
    assert_eq!(bench.events(), [Event::SaveNonce { xtr: nve(5), nonce: 2 }]);
    bench.fact(fact(5, 2));
    let [Sent::MapNotify { nonce: 2, octets, .. }] = &bench.sent()[..] else { panic!() };
    auth::verify(octets, KEY, lisp::Policy::strict()).unwrap();
    assert_eq!(lisp::MapNotify::decode(octets).unwrap().auth.mac.len(), 32);
}

#[test]
fn n1_nonces_a_copy_is_acknowledged_again_and_anything_older_dropped() {
    let mut bench = bench();
    let first = encode(&Register { nonce: 5, ..Register::default() });
    send(&mut bench, &first);
    bench.shard.handle_nonce_saved(bench.now, nve(5), 5);
    assert_eq!(bench.sent().len(), 1);
    let before = bench.shard.clone();
    send(&mut bench, &first);
    assert_eq!(bench.sent().len(), 1, "its Map-Notify may have been lost");
    assert_eq!(bench.shard, before, "and nothing is applied twice");
    // The same nonce with other content, or a lower one, is dropped.
    send(&mut bench, &encode(&Register { nonce: 5, eids: vec![mac(7)], ..Register::default() }));
    send(&mut bench, &encode(&Register { nonce: 4, ..Register::default() }));
    assert_eq!((bench.sent().len(), bench.shard.counters().register_replayed), (0, 2));
    // After a restart of the Oracle the saved nonce still counts.
    bench.shard = Bench::new(1).shard;
    bench.fact(fact(5, 5));
    bench.grant(1, 7, 5);
    send(&mut bench, &encode(&Register { nonce: 5, ..Register::default() }));
    assert_eq!(bench.shard.counters().register_replayed, 1);
    send(&mut bench, &encode(&Register { nonce: 6, ..Register::default() }));
    assert_eq!(bench.shard.counters().registrations, 1);
}

#[test]
fn n1_wrong_key_no_authentication_and_strangers_are_dropped() {
    let mut bench = bench();
    send(&mut bench, &encode(&Register { key: b"another", ..Register::default() }));
    let mut octets = Vec::new();
    let own = [lisp::Locator::new(rloc(5).get(), 1)];
    let records = [wire_record(1, mac(7), 9, &own)];
    let bare = MapRegister {
        records: (&records).into(),
        nonce: 9,
        auth: AuthData::default(),
        ..MapRegister::default()
    };
    bare.encode(&mut octets, EncodeOptions::default()).unwrap();
    send(&mut bench, &octets);
    let src = "198.51.100.1:4342".parse().unwrap();
    let stranger = encode(&Register { xtr: false, ..Register::default() });
    bench.shard.handle_datagram(bench.now, src, oracle_ip(), &stranger);
    assert_eq!(bench.shard.counters().register_bad_auth, 3);
    assert_eq!(bench.mapping(1, mac(7)).unwrap().origin, weft_model::Origin::Grant);
}

#[test]
fn n1_registrations_expire_after_180_s_or_their_ttl() {
    let mut bench = bench();
    bench.answer(1, 1, mac(7));
    send(&mut bench, &encode(&Register::default()));
    bench.pass(Duration::from_secs(100));
    send(&mut bench, &encode(&Register { nonce: 2, ..Register::default() }));
    bench.pass(Duration::from_secs(179));
    assert_eq!(bench.shard.counters().expired, 0);
    bench.sent();
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.shard.counters().expired, 1);
    assert_eq!(bench.told(), [(10, mac(7), 0, vec![])]);
    send(&mut bench, &encode(&Register { nonce: 3, ttl: 1, use_ttl: true, ..Register::default() }));
    bench.pass(Duration::from_secs(60));
    assert_eq!(bench.shard.counters().expired, 2);
}

#[test]
fn n1_a_registration_has_one_timer_however_often_it_is_refreshed() {
    let mut bench = bench();
    let timers = bench.shard.timers.len();
    let longest = bench.shard.config.timing.registration_longest;
    // Shorter and longer lives in turn, and withdrawals in between.
    for (nonce, ttl) in (1..=100).zip([1, 0, u32::MAX - 1].into_iter().cycle()) {
        send(&mut bench, &encode(&Register { nonce, ttl, use_ttl: true, ..Register::default() }));
    }
    assert_eq!(bench.shard.timers.len(), timers + 1);
    // The longest life there is, and its end.
    send(
        &mut bench,
        &encode(&Register { nonce: 101, ttl: u32::MAX - 1, use_ttl: true, ..Register::default() }),
    );
    bench.pass(longest - Duration::from_secs(1));
    assert_eq!(bench.shard.counters().expired, 0);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.shard.counters().expired, 1);
    assert!(bench.shard.expiries.is_empty());
}

#[test]
fn n1_records_of_a_plain_xtr_add_up_and_are_withdrawn_one_by_one() {
    let mut bench = bench();
    send(&mut bench, &encode(&Register { eids: vec![ip4(7)], ..Register::default() }));
    send(&mut bench, &encode(&Register { nonce: 2, eids: vec![ip6(7)], ..Register::default() }));
    let records = bench.answer(1, 1, ip6(7)).unwrap();
    assert_eq!(records[1], (mac(7), 15, Action::NoAction, vec!["192.0.2.5/1".to_owned()]));
    send(&mut bench, &encode(&Register { nonce: 3, eids: vec![ip6(7)], ttl: 0, ..Register::default() }));
    assert_eq!(bench.told(), [(10, ip6(7), 0, vec![])]);
    send(&mut bench, &encode(&Register { nonce: 4, eids: vec![ip4(7)], ttl: 0, ..Register::default() }));
    assert_eq!(bench.shard.counters().withdrawals, 1);
}

/// The shards of two, and a VN of each.
fn two_shards() -> ([Bench; 2], [u32; 2]) {
    let vns = [0, 1].map(|index| (1..).find(|vn| shard_of(*vn, 2) == index).unwrap());
    let shards = [0, 1].map(|index| {
        let timing = Timing { patience: Duration::ZERO, ..Timing::default() };
        let mut bench = Bench::with(1, ShardConfig { index, shards: 2, timing, ..ShardConfig::default() });
        for (vn, n) in vns.into_iter().zip([7, 8]) {
            bench.fact(Fact::Vn(spec(vn)));
            bench.grant(vn, n, 5);
        }
        bench.fact(fact(5, 0));
        bench.events();
        bench
    });
    (shards, vns)
}

fn spanning(nonce: u64, records: &[Record<'_>]) -> Vec<u8> {
    let message = MapRegister {
        want_notify: true,
        nonce,
        auth: Algorithm::HmacSha256.placeholder(1, MacLength::Truncated),
        records: records.into(),
        ..MapRegister::default()
    };
    let mut octets = Vec::new();
    message.encode(&mut octets, EncodeOptions::default()).unwrap();
    auth::sign(&mut octets, KEY, auth::Coverage::WholePayload).unwrap();
    octets
}

#[test]
fn n1_a_register_about_vns_of_two_shards_is_whole_and_acknowledged_once() {
    let (mut shards, vns) = two_shards();
    let own = [lisp::Locator::new(rloc(5).get(), 1)];
    let record = |shard: usize, n| wire_record(vns[shard], mac(n), 3, &own);
    let octets = spanning(1, &[record(1, 8), record(0, 7)]);
    let Owner::Several(owners) = owner(&octets, 2) else { panic!() };
    assert_eq!(owners, BTreeSet::from([0, 1]));
    let src = SocketAddr::new(rloc(5).get(), 4342);
    for bench in &mut shards {
        assert!(bench.shard.would_register(src, &octets));
        send(bench, &octets);
        bench.shard.handle_nonce_saved(bench.now, nve(5), 1);
    }
    assert_eq!(shards[0].mapping(vns[0], mac(7)).unwrap().origin, weft_model::Origin::Registration);
    assert_eq!(shards[1].mapping(vns[1], mac(8)).unwrap().origin, weft_model::Origin::Registration);
    assert_eq!((shards[0].events(), shards[0].sent()), (vec![], vec![]));
    assert_eq!(shards[1].events(), [Event::SaveNonce { xtr: nve(5), nonce: 1 }], "the first record's");
    assert!(matches!(shards[1].sent()[..], [Sent::MapNotify { nonce: 1, .. }]));
    // An older one counts in neither, a copy is the same again, and one wrong part is found where it is.
    for bench in &mut shards {
        assert!(bench.shard.would_register(src, &octets));
        assert!(!bench.shard.would_register(src, &spanning(1, &[record(1, 8)])));
    }
    let bad = spanning(2, &[record(1, 8), record(0, 9)]);
    assert_eq!(shards.each_ref().map(|bench| bench.shard.would_register(src, &bad)), [false, true]);
    send(&mut shards[0], &bad);
    assert!(matches!(shards[0].events()[..], [Event::Refused { .. }]));
}

#[test]
fn n4_a_request_about_vns_of_two_shards_is_answered_by_each_in_part() {
    let (mut shards, vns) = two_shards();
    let wanted = [(vns[0], mac(7)), (vns[1], mac(8))].map(|(vn, eid)| wire::to_lisp(vni(vn), eid));
    let records = wanted.map(|eid| EidRecord { notify: false, mask_len: eid.mask_len(), eid: eid.address() });
    let itr = [lisp::Address::from(rloc(5).get())];
    let request = MapRequest {
        nonce: 1,
        itr_rlocs: (&itr).into(),
        records: (&records).into(),
        ..MapRequest::default()
    };
    let header = EcmHeader::Ip {
        source: "192.0.2.5:4342".parse().unwrap(),
        destination: SocketAddr::new(oracle_ip(), 4342),
    };
    let mut octets = Vec::new();
    Ecm::encode_with(&mut octets, false, header, |out| request.encode(out, EncodeOptions::default()))
        .unwrap();
    assert_eq!(owner(&octets, 2), Owner::Several(BTreeSet::from([0, 1])));
    let answered = shards.each_mut().map(|bench| {
        send(bench, &octets);
        let counters = bench.shard.counters();
        assert_eq!((counters.requests, counters.requests_foreign_vn), (1, 0));
        match &bench.sent()[..] {
            [Sent::Reply { records, .. }] => records[0].0,
            other => panic!("{other:?}"),
        }
    });
    assert_eq!(answered, [mac(7), mac(8)]);
}

#[test]
fn n8_an_xtr_that_asked_gets_an_smr_every_3_s_until_it_asks_again() {
    let mut bench = bench();
    bench.register(10, 1, 1, 1, ACTIVE);
    assert!(bench.answer(5, 1, ip4(1)).is_some());
    let smrs = |bench: &mut Bench| {
        let sent = bench.sent().into_iter();
        sent.filter_map(|s| match s {
            Sent::Smr { to, changed } => Some((to, changed)),
            _ => None,
        })
        .collect::<Vec<_>>()
    };
    bench.withdraw(10, 1, 1, 1);
    bench.pass(Duration::ZERO);
    let to = "192.0.2.5:4342".parse().unwrap();
    assert_eq!(smrs(&mut bench), [(to, mac(1)), (to, ip4(1))]);
    // Another change within 3 s causes no second one before they have passed.
    bench.register(10, 1, 1, 1, ACTIVE);
    bench.pass(Duration::from_millis(2_999));
    assert_eq!(smrs(&mut bench), []);
    bench.pass(Duration::from_millis(1));
    assert_eq!(smrs(&mut bench).len(), 2);
    assert!(bench.answer(5, 1, ip4(1)).is_some());
    bench.pass(Duration::from_secs(60));
    assert_eq!(smrs(&mut bench), []);
    assert!(bench.shard.smrs.is_empty());
}

#[test]
fn n5_without_the_p_bit_an_xtr_answers_for_itself() {
    let mut bench = bench();
    send(&mut bench, &encode(&Register { proxy: false, ..Register::default() }));
    bench.sent();
    bench.ask(1, 1, ip4(7), ip4(1));
    let mut octets = Vec::new();
    let transmit = bench.shard.poll_transmit(&mut octets);
    let dst = SocketAddr::new(rloc(5).get(), 4342);
    assert_eq!(transmit, Some(Transmit::Udp { dst, src: Some(oracle_ip()) }));
    assert!(matches!(Message::decode(&octets), Ok(Message::Ecm(_))), "RFC 9301 section 8.3");
}
