//! N8: who asked is who is told.

use super::*;

fn bench() -> Bench {
    let mut bench = Bench::new(3);
    bench.grant(1, 1, 1);
    bench.grant(1, 2, 2);
    bench.grant(1, 3, 3);
    for n in [1, 2, 3] {
        bench.up(10 * u64::from(n), n);
        bench.register(10 * u64::from(n), n, 1, n, ACTIVE);
    }
    bench.sent();
    bench
}

#[test]
fn n8_asked_before_it_exists_then_attached_tells_the_asker() {
    let mut bench = bench();
    for (by, eid) in [(2, ip4(7)), (3, mac(7)), (3, ip6(7))] {
        assert_eq!(bench.answer(by, 1, eid).unwrap()[0].2, Action::Drop);
    }
    // The grant alone is no news: the TSI is not there yet.
    bench.grant(1, 7, 1);
    assert_eq!(bench.told(), []);
    bench.register(10, 1, 1, 7, ACTIVE);
    let told = bench.told();
    let to = |session| told.iter().filter(|t| t.0 == session).map(|t| (t.1, t.3.clone())).collect::<Vec<_>>();
    assert_eq!(to(20), [(mac(7), at(1)), (ip4(7), at_mac(7))], "R1 comes with R2, before it");
    assert_eq!(to(30), [(mac(7), at(1)), (ip6(7), at_mac(7))]);
    // Registering the same again is no news either.
    bench.register(10, 1, 1, 7, ACTIVE);
    assert_eq!(bench.told(), []);
}

#[test]
fn n8_who_was_answered_both_ways_is_told() {
    let ask = |bench: &mut Bench, eid, nonce| {
        let src = SocketAddr::new(rloc(2).get(), 4342);
        bench.shard.handle_datagram(bench.now, src, oracle_ip(), &request(2, 1, eid, Some(ip4(99)), nonce));
        match &bench.sent()[..] {
            [Sent::Reply { nonce: to, records, .. }] if *to == nonce => records[0].2,
            other => panic!("{other:?}"),
        }
    };
    for eid in [mac(7), ip4(7), ip6(7)] {
        for again in [500, 501] {
            let mut bench = bench();
            assert_eq!(ask(&mut bench, eid, 500), Action::Drop);
            bench.grant(1, 7, 1);
            assert_eq!(ask(&mut bench, eid, again), Action::NoAction);
            bench.register(10, 1, 1, 7, ACTIVE);
            let r1 = (20, mac(7), 15, at(1));
            let mut all = if eid == mac(7) { vec![r1] } else { vec![r1, (20, eid, 15, at_mac(7))] };
            let told = bench.told();
            match again {
                500 => assert_eq!(told, all, "the same question: it may have taken the Negative"),
                _ => assert_eq!(told, [], "another one: it knows"),
            }
            // Once; and it is told of what follows.
            bench.register(10, 1, 1, 7, ACTIVE);
            assert_eq!(bench.told(), []);
            bench.withdraw(10, 1, 1, 7);
            all.iter_mut().for_each(|told| (told.2, told.3) = (0, vec![]));
            let told = bench.told();
            assert!(all.iter().all(|gone| told.contains(gone)), "{told:?}");
        }
    }
}

#[test]
fn n8_a_grant_whose_nve_activates_it_is_told_at_once_and_only_once() {
    let mut bench = bench();
    assert_eq!(bench.answer(2, 1, ip4(7)).unwrap()[0].2, Action::Drop);
    bench.grant(1, 7, 1);
    // Nobody but the holder can say so.
    bench.shard.handle_activating(bench.now, nve(3), &tsi(1, 7));
    assert_eq!(bench.told(), []);
    for _ in 0..2 {
        bench.shard.handle_activating(bench.now, nve(1), &tsi(1, 7));
    }
    assert_eq!(bench.told(), [(20, mac(7), 15, at(1)), (20, ip4(7), 15, at_mac(7))]);
    // The registration says the same; its end is an end.
    bench.register(10, 1, 1, 7, ACTIVE);
    assert_eq!(bench.told(), []);
    bench.shard.handle_activating(bench.now, nve(1), &tsi(1, 7));
    bench.withdraw(10, 1, 1, 7);
    assert_eq!(bench.told(), [(20, mac(7), 0, vec![]), (20, ip4(7), 0, vec![])]);
}

#[test]
fn n8_an_activation_that_comes_to_nothing_is_taken_back() {
    let mut bench = bench();
    bench.answer(2, 1, ip4(7));
    bench.grant(1, 7, 1);
    bench.shard.handle_activating(bench.now, nve(1), &tsi(1, 7));
    assert_eq!(bench.told().len(), 2);
    bench.fact(Fact::GrantGone(tsi(1, 7)));
    assert_eq!(bench.told(), [(20, mac(7), 0, vec![]), (20, ip4(7), 0, vec![])]);
}

#[test]
fn n8_an_activation_without_a_registration_is_taken_back_after_a_time() {
    let mut bench = bench();
    bench.answer(2, 1, ip4(7));
    bench.grant(1, 7, 1);
    bench.shard.handle_activating(bench.now, nve(1), &tsi(1, 7));
    assert_eq!(bench.told().len(), 2);
    bench.pass(Duration::from_secs(3));
    // The grant's answer was lost and is asked for again: that is said anew.
    bench.shard.handle_activating(bench.now, nve(1), &tsi(1, 7));
    // Its NVE is gone before it registers; what it says without a session does not count.
    bench.down(10);
    bench.pass(Duration::from_millis(4_998));
    bench.shard.handle_activating(bench.now, nve(1), &tsi(1, 7));
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.told(), []);
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.told(), [(20, mac(7), 0, vec![]), (20, ip4(7), 0, vec![])]);
    assert!(bench.mapping(1, mac(7)).unwrap().withdrawn);
    // Who asks is answered from the grant, and hears when it comes after all.
    assert_eq!(bench.answer(2, 1, ip4(7)).unwrap()[0].2, Action::NoAction);
    bench.up(11, 1);
    bench.register(11, 1, 1, 7, ACTIVE);
    assert_eq!(bench.told(), []);
    bench.pass(Duration::from_secs(30));
    assert!(bench.shard.counters().activations_without_registration == 1);
    assert!(!bench.mapping(1, mac(7)).unwrap().withdrawn);
}

#[test]
fn n8_an_asker_of_the_ip_hears_when_the_mac_moves() {
    let mut bench = bench();
    bench.answer(2, 1, ip4(1));
    let mut taken = grant(1, 1, 3);
    taken.epoch = Epoch::new(2).unwrap();
    bench.fact(Fact::Grant(taken));
    let told = bench.told();
    let asker: Vec<_> = told.iter().filter(|t| t.0 == 20).map(|t| (t.1, t.3.clone())).collect();
    assert_eq!(asker, [(mac(1), at(3)), (ip4(1), at_mac(1))]);
    let previous: Vec<_> = told.iter().filter(|t| t.0 == 10).map(|t| t.1).collect();
    assert_eq!(previous, [mac(1), ip4(1), ip6(1)], "the previous owner hears of all of it");
    assert_eq!(told.iter().filter(|t| t.0 == 30).count(), 0);
}

#[test]
fn n8_an_address_that_goes_to_another_mac_is_told() {
    let mut bench = bench();
    bench.answer(3, 1, ip4(1));
    let mut without = grant(1, 1, 1);
    without.ips.remove(&tenant_ip(ip4(1)));
    bench.fact(Fact::Grant(without));
    assert_eq!(bench.told(), [(30, ip4(1), 0, vec![])]);
    let mut with = grant(1, 2, 2);
    with.ips.insert(tenant_ip(ip4(1)));
    bench.fact(Fact::Grant(with));
    bench.register_eids(20, 2, 1, 2, ACTIVE, &[ip4(1), ip4(2), ip6(2)], u32::MAX);
    assert_eq!(bench.told(), [(30, mac(2), 15, at(2)), (30, ip4(1), 15, at_mac(2))]);
}

#[test]
fn n8_an_address_taken_over_in_one_fact_reaches_the_new_mac() {
    let mut bench = bench();
    bench.answer(3, 1, ip4(1));
    // The new holder's fact comes before the old holder's.
    let mut with = grant(1, 2, 2);
    with.ips.insert(tenant_ip(ip4(1)));
    bench.fact(Fact::Grant(with));
    let mut without = grant(1, 1, 1);
    without.ips.remove(&tenant_ip(ip4(1)));
    bench.fact(Fact::Grant(without));
    bench.register_eids(20, 2, 1, 2, ACTIVE, &[ip4(1), ip4(2), ip6(2)], u32::MAX);
    assert_eq!(bench.told().last().unwrap(), &(30, ip4(1), 15, at_mac(2)));
    assert_eq!(bench.mapping(1, ip4(1)).unwrap().tsi, tsi(1, 2).name);
}

#[test]
fn n8_release_tells_ttl_0_and_a_new_holder_clears_it() {
    let mut bench = bench();
    bench.answer(2, 1, ip4(1));
    bench.fact(Fact::GrantGone(tsi(1, 1)));
    assert_eq!(bench.told(), [(20, mac(1), 0, vec![]), (20, ip4(1), 0, vec![])]);
    assert_eq!(bench.answer(2, 1, ip4(1)).unwrap()[0].2, Action::Drop);
    bench.grant(1, 1, 3);
    bench.register(30, 3, 1, 1, ACTIVE);
    assert_eq!(bench.told(), [(20, mac(1), 15, at(3)), (20, ip4(1), 15, at_mac(1))]);
}

#[test]
fn n8_deactivation_is_told_and_not_taken_for_an_end() {
    let mut bench = bench();
    bench.answer(2, 1, ip4(1));
    bench.register(10, 1, 1, 1, ASSOCIATED);
    let unusable = vec!["192.0.2.1/255".to_owned(), "2001:db8::1/255".to_owned()];
    assert_eq!(bench.told(), [(20, mac(1), 15, unusable), (20, ip4(1), 0, vec![])]);
    bench.register(10, 1, 1, 1, ACTIVE);
    assert_eq!(bench.told(), [(20, mac(1), 15, at(1)), (20, ip4(1), 15, at_mac(1))]);
}

#[test]
fn n8_a_long_queue_holds_each_eid_once_and_what_is_true_last() {
    let mut bench = bench();
    bench.answer(2, 1, mac(1));
    bench.shard.handle_session(bench.now, SessionEvent::Congested { session: SessionId(20) });
    let mut moving = grant(1, 1, 1);
    for epoch in 2..40_u32 {
        moving.owner = if epoch % 2 == 0 { nve(3) } else { nve(1) };
        moving.epoch = Epoch::new(epoch).unwrap();
        bench.fact(Fact::Grant(moving.clone()));
    }
    assert_eq!(bench.told().iter().filter(|t| t.0 == 20).count(), 0);
    bench.shard.handle_session(bench.now, SessionEvent::Writable { session: SessionId(20) });
    assert_eq!(bench.told(), [(20, mac(1), 15, at(1))]);
    assert!(bench.shard.counters().notifications_coalesced >= 37);
}

#[test]
fn n8_an_asker_without_a_session_is_told_when_it_is_back() {
    let mut bench = bench();
    bench.answer(2, 1, mac(1));
    bench.down(20);
    bench.withdraw(10, 1, 1, 1);
    assert_eq!(bench.told(), []);
    let event = SessionEvent::Up { session: SessionId(21), xtr_id: nve(2) };
    bench.shard.handle_session(bench.now, event);
    assert_eq!(bench.told(), [(21, mac(1), 0, vec![])]);
}

#[test]
fn n8_an_evicted_asker_is_told_to_ask_again() {
    let limits = Limits { asks_per_nve: 2, ..Limits::default() };
    let mut bench = Bench::with(2, ShardConfig { limits, ..ShardConfig::default() });
    for n in [1, 2, 3] {
        bench.grant(1, n, 1);
    }
    bench.grant(1, 4, 2);
    bench.up(20, 2);
    bench.answer(2, 1, mac(1));
    bench.answer(2, 1, mac(2));
    bench.ask(2, 1, mac(3), mac(4));
    assert_eq!(bench.told(), [(20, mac(1), 0, vec![])]);
    assert_eq!(bench.shard.sizes().1, 2);
}

#[test]
fn n8_a_removed_nve_is_withdrawn_and_hears_nothing_more() {
    let mut bench = bench();
    bench.answer(2, 1, mac(1));
    bench.answer(1, 1, mac(2));
    bench.fact(Fact::NveGone(nve(1)));
    assert_eq!(bench.told(), [(20, mac(1), 0, vec![])]);
    bench.withdraw(20, 2, 1, 2);
    assert_eq!(bench.told(), []);
    // Its session does not count any more.
    bench.register(10, 1, 1, 1, ACTIVE);
    assert_eq!(bench.sent(), []);
}

#[test]
fn n8_vns_with_the_same_addresses_do_not_hear_of_each_other() {
    let mut bench = bench();
    bench.grant(2, 1, 2);
    bench.grant(2, 9, 3);
    bench.answer(3, 1, ip4(1));
    bench.answer(3, 2, ip4(1));
    bench.register(20, 2, 2, 1, ACTIVE);
    // In VN 2 the registration says what the grant said; in VN 1 nothing happened.
    assert_eq!(bench.told(), []);
    bench.withdraw(20, 2, 2, 1);
    let sent = bench.sent();
    let vnis = sent.iter().filter_map(|s| match s {
        Sent::Notify { vni, .. } => Some(*vni),
        _ => None,
    });
    assert_eq!(vnis.collect::<Vec<_>>(), [2, 2]);
}

#[test]
fn m5_the_destination_hears_of_the_asker_once() {
    let mut bench = bench();
    bench.ask(2, 1, ip4(1), ip4(2));
    let told = bench.told();
    let heard: Vec<_> = told.iter().map(|t| (t.0, t.1, t.3.clone())).collect();
    assert_eq!(
        heard,
        [(10, mac(2), at(2)), (10, ip4(2), at_mac(2))],
        "the destination's NVE and nobody else"
    );
    bench.ask(2, 1, ip4(1), ip4(2));
    bench.ask(2, 1, ip6(1), ip6(2));
    assert_eq!(bench.told().iter().map(|t| t.1).collect::<Vec<_>>(), [ip6(2)], "each record once");
    // From then on it is told like somebody who asked.
    bench.withdraw(20, 2, 1, 2);
    let gone: Vec<_> = bench.told().iter().filter(|t| t.0 == 10).map(|t| (t.1, t.2)).collect();
    assert_eq!(gone, [(mac(2), 0), (ip4(2), 0), (ip6(2), 0)]);
}

#[test]
fn m5_nobody_is_introduced_by_somebody_else() {
    let mut bench = bench();
    // NVE 2 asks in the name of a tenant system of NVE 3, and for one of its own.
    bench.ask(2, 1, ip4(1), ip4(3));
    bench.ask(2, 1, ip4(2), ip4(2));
    // An address that does not exist has no NVE.
    bench.ask(2, 1, ip4(9), ip4(2));
    assert_eq!(bench.told(), []);
}
