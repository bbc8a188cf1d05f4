//! N3, N4, N11: questions and answers.

use super::*;

fn bench() -> Bench {
    let mut bench = Bench::new(3);
    bench.grant(1, 7, 1);
    bench.grant(1, 8, 2);
    bench.up(10, 1);
    bench.up(20, 2);
    bench.register(10, 1, 1, 7, ACTIVE);
    bench.sent();
    bench
}

#[test]
fn n4_ip_gives_mac_and_rloc_mac_gives_rloc() {
    let mut bench = bench();
    let r1 = (mac(7), 15, Action::NoAction, at(1));
    for ip in [ip4(7), ip6(7)] {
        let r2 = (ip, 15, Action::NoAction, at_mac(7));
        assert_eq!(bench.answer(2, 1, ip), Some(vec![r2, r1.clone()]));
    }
    assert_eq!(bench.answer(2, 1, mac(7)), Some(vec![r1]));
}

#[test]
fn n4_the_answer_goes_to_the_itr_rloc_and_the_inner_port() {
    let mut bench = bench();
    bench.ask(2, 1, mac(7), mac(8));
    let Sent::Reply { to, .. } = bench.sent().remove(0) else { panic!() };
    assert_eq!(to, "192.0.2.2:5555".parse().unwrap());
    // Over IPv6: to the ITR-RLOC of that family, from the address asked.
    let octets = request(2, 1, ip6(7), None, 77);
    let here: IpAddr = "2001:db8::250".parse().unwrap();
    bench.shard.handle_datagram(bench.now, SocketAddr::new(rloc6(2).get(), 4342), here, &octets);
    let mut out = Vec::new();
    let dst = "[2001:db8::2]:5555".parse().unwrap();
    assert_eq!(bench.shard.poll_transmit(&mut out), Some(Transmit::Udp { dst, src: Some(here) }));
}

#[test]
fn n4_a_granted_address_is_answered_from_the_grant_until_it_is_registered() {
    let mut bench = bench();
    let r2 = (ip4(8), 15, Action::NoAction, at_mac(8));
    let r1 = (mac(8), 15, Action::NoAction, at(2));
    assert_eq!(bench.answer(1, 1, ip4(8)), Some(vec![r2, r1]));
    assert_eq!(bench.mapping(1, ip4(8)).unwrap().origin, weft_model::Origin::Grant);
    // Its NVE is no longer enrolled: no answer would be true.
    bench.fact(Fact::NveGone(nve(2)));
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.answer(1, 1, ip4(8)), None);
    assert_eq!(bench.shard.counters().unanswered, 1);
}

#[test]
fn n4_nothing_is_answered_before_the_facts_are_loaded() {
    let mut bench = Bench::new(0);
    bench.shard = Shard::new(ShardConfig::default(), bench.now);
    bench.fact(Fact::Vn(spec(1)));
    bench.enroll(1);
    bench.grant(1, 7, 1);
    assert_eq!(bench.answer(1, 1, ip4(50)), None);
    bench.fact(Fact::FactsLoaded);
    assert!(bench.answer(1, 1, ip4(50)).is_some());
}

#[test]
fn n11_negative_is_exact_and_drops_and_lives_a_minute_inside_the_subnets() {
    let mut bench = bench();
    let outside: Eid = Eid::Ip("10.9.0.1".parse().unwrap());
    let outside6: Eid = Eid::Ip("fe80::1".parse().unwrap());
    for (eid, ttl) in [(ip4(50), 1), (ip6(50), 1), (mac(50), 1), (outside, 15), (outside6, 15)] {
        assert_eq!(bench.answer(1, 1, eid), Some(vec![(eid, ttl, Action::Drop, vec![])]));
    }
    assert_eq!(bench.shard.counters().replies_negative, 5);
}

#[test]
fn n3_only_known_askers_with_their_own_rlocs_in_their_own_vns() {
    let mut bench = bench();
    let stranger: SocketAddr = "192.0.2.99:4342".parse().unwrap();
    bench.shard.handle_datagram(bench.now, stranger, oracle_ip(), &request(2, 1, mac(7), None, 1));
    assert_eq!((bench.sent(), bench.shard.counters().requests_from_strangers), (vec![], 1));
    let src = SocketAddr::new(rloc(2).get(), 4342);
    for itr in [vec![rloc(3)], vec![rloc(2), rloc(3)]] {
        let itr: Vec<_> = itr.into_iter().map(|r| lisp::Address::from(r.get())).collect();
        bench.shard.handle_datagram(bench.now, src, oracle_ip(), &request_from(&itr, 1, mac(7), None, 1));
    }
    assert_eq!((bench.sent(), bench.shard.counters().requests_foreign_itr_rloc), (vec![], 2));
    // NVE 3 has no grant in VN 1, NVE 2 none in VN 2, and VN 9 is nobody's.
    assert_eq!(bench.answer(3, 1, mac(7)), None);
    assert_eq!(bench.answer(2, 2, mac(7)), None);
    assert_eq!(bench.answer(2, 9, mac(7)), None);
    assert_eq!(bench.shard.counters().requests_foreign_vn, 3);
    assert_eq!(bench.shard.sizes().1, 0);
}

#[test]
fn n3_a_successor_may_ask_before_it_is_active() {
    let mut bench = bench();
    let mut moving = grant(1, 8, 2);
    moving.next = successor(3, 2);
    bench.fact(Fact::Grant(moving));
    assert!(bench.answer(3, 1, mac(7)).is_some());
}

#[test]
fn n4_replies_per_requester_and_eid_are_limited_and_a_change_is_not_delayed() {
    let mut bench = bench();
    let mut answered = || (0..10).filter(|_| bench.answer(2, 1, ip4(50)).is_some()).count();
    assert_eq!(answered(), 3);
    bench.pass(Duration::from_secs(1));
    assert!(bench.answer(2, 1, ip4(50)).is_some());
    assert!(bench.answer(2, 1, ip4(50)).is_none());
    assert!(bench.answer(2, 1, ip4(51)).is_some(), "another EID has a limit of its own");
    bench.grant(1, 50, 1);
    assert_eq!(bench.answer(2, 1, ip4(50)).unwrap()[0].3, at_mac(50));
}

#[test]
fn n3_requests_per_requester_are_limited() {
    let limits = Limits { requests_per_second: 1, request_burst: 1, ..Limits::default() };
    let mut bench = Bench::with(2, ShardConfig { limits, ..ShardConfig::default() });
    bench.grant(1, 7, 1);
    bench.grant(1, 8, 2);
    assert!(bench.answer(1, 1, mac(8)).is_some());
    assert!(bench.answer(1, 1, mac(7)).is_none());
    assert!(bench.answer(2, 1, mac(7)).is_some());
    bench.pass(Duration::from_secs(1));
    assert!(bench.answer(1, 1, mac(7)).is_some());
    assert_eq!(bench.shard.counters().requests_rate_limited, 1);
}

#[test]
fn m2_conversations_name_who_asked_for_whom() {
    let mut bench = bench();
    bench.ask(2, 1, ip4(7), ip4(8));
    bench.ask(2, 1, ip4(7), ip6(8));
    bench.ask(2, 1, ip4(50), ip4(8));
    let all: Vec<_> = bench.shard.conversations(None).collect();
    let pairs: Vec<_> = all.iter().map(|c| (c.source, c.destination, c.nve, c.negative)).collect();
    assert_eq!(
        pairs,
        [(ip4(8), ip4(7), nve(2), false), (ip6(8), ip4(7), nve(2), false), (ip4(8), ip4(50), nve(2), true)]
    );
    // They end with the answer's TTL.
    bench.pass(Duration::from_secs(71));
    assert_eq!(bench.shard.conversations(None).count(), 2);
    bench.pass(Duration::from_secs(16 * 60));
    assert_eq!((bench.shard.conversations(None).count(), bench.shard.sizes().1), (0, 0));
}

#[test]
fn n4_a_full_transmit_queue_drops_and_counts() {
    let limits = Limits { udp_queue_octets: 1, ..Limits::default() };
    let mut bench = Bench::with(2, ShardConfig { limits, ..ShardConfig::default() });
    bench.grant(1, 7, 1);
    bench.ask(1, 1, mac(50), mac(7));
    bench.ask(1, 1, mac(51), mac(7));
    assert_eq!(bench.sent().len(), 1);
    assert_eq!(bench.shard.counters().udp_dropped, 1);
}
