//! N1, N2: what counts as a registration.

use super::*;

fn refusal(bench: &mut Bench) -> Option<&'static str> {
    bench.events().into_iter().find_map(|event| match event {
        Event::Refused { reason, .. } => Some(reason.name()),
        _ => None,
    })
}

#[test]
fn n1_owner_registers_and_is_acknowledged() {
    let mut bench = Bench::new(2);
    bench.grant(1, 7, 1);
    bench.up(10, 1);
    let id = bench.register(10, 1, 1, 7, ACTIVE);
    assert_eq!(bench.sent(), [Sent::Ack { session: 10, id }]);
    for eid in [mac(7), ip4(7), ip6(7)] {
        let mapping = bench.mapping(1, eid).unwrap();
        assert_eq!((mapping.owner, mapping.origin), (nve(1), weft_model::Origin::Registration));
        assert_eq!((mapping.stale, mapping.age), (false, Some(Duration::ZERO)));
    }
    assert_eq!(bench.shard.members(Some(vni(1)))[0].tsis, 1);
}

#[test]
fn n1_what_does_not_count_is_refused_with_its_reason() {
    let mut bench = Bench::new(3);
    bench.grant(1, 7, 1);
    bench.grant(1, 8, 2);
    bench.up(10, 1);
    let other_rloc = [lisp::Locator::new(rloc(2).get(), 1)];
    let own = [lisp::Locator::new(rloc(1).get(), 1)];
    let wrong_mac = [lisp::Locator::mac([2, 0, 0, 0, 0, 9])];
    let right_mac = [lisp::Locator::mac([2, 0, 0, 0, 0, 7])];
    let ttl = 0xffff_ffff;
    let prefix = Record { mask_len: 24, ..wire_record(1, ip4(7), ttl, &right_mac) };
    let nine: Vec<_> = (1..=9).map(|_| own[0]).collect();
    let cases: Vec<(&str, Vec<Record<'_>>, RejectReason)> = vec![
        ("held-by", vec![wire_record(1, mac(8), ttl, &own)], RejectReason::NotASitePrefix),
        ("not-granted", vec![wire_record(1, mac(9), ttl, &own)], RejectReason::NotASitePrefix),
        ("vn-out-of-scope", vec![wire_record(2, mac(7), ttl, &own)], RejectReason::NotASitePrefix),
        ("unknown-vn", vec![wire_record(3, mac(7), ttl, &own)], RejectReason::NotASitePrefix),
        ("foreign-rloc", vec![wire_record(1, mac(7), ttl, &other_rloc)], RejectReason::LocatorSetNotAllowed),
        ("foreign-rloc", vec![wire_record(1, mac(7), ttl, &right_mac)], RejectReason::LocatorSetNotAllowed),
        (
            "wrong-mac",
            vec![wire_record(1, mac(7), ttl, &own), wire_record(1, ip4(7), ttl, &wrong_mac)],
            RejectReason::LocatorSetNotAllowed,
        ),
        ("no-rloc", vec![wire_record(1, ip4(7), ttl, &right_mac)], RejectReason::LocatorSetNotAllowed),
        ("locators", vec![wire_record(1, mac(7), ttl, &[])], RejectReason::LocatorSetNotAllowed),
        ("locators", vec![wire_record(1, mac(7), ttl, &nine)], RejectReason::LocatorSetNotAllowed),
        ("bad-eid", vec![prefix], RejectReason::Undefined),
        ("records", vec![], RejectReason::Undefined),
        ("records", vec![wire_record(1, mac(7), ttl, &own); 65], RejectReason::Undefined),
    ];
    let before = bench.shard.clone();
    for (name, records, reason) in cases {
        let id = bench.register_records(10, 1, &records);
        assert_eq!(refusal(&mut bench), Some(name));
        assert_eq!(bench.sent(), [Sent::Reject { session: 10, id, reason }], "{name}");
    }
    // Another xTR-ID on this session.
    let id = bench.register_records(10, 2, &[wire_record(1, mac(7), ttl, &own)]);
    assert_eq!(refusal(&mut bench), Some("wrong-xtr-id"));
    let reason = RejectReason::AuthenticationFailure;
    assert_eq!(bench.sent(), [Sent::Reject { session: 10, id, reason }]);
    assert_eq!(bench.shard, before, "a refused registration changes nothing");
    assert_eq!(bench.shard.counters().refused.iter().sum::<u64>(), 14);
}

#[test]
fn n1_two_tsis_in_one_message_are_refused_on_a_session() {
    let mut bench = Bench::new(1);
    bench.grant(1, 7, 1);
    bench.grant(1, 8, 1);
    bench.up(10, 1);
    let own = [lisp::Locator::new(rloc(1).get(), 1)];
    bench.register_records(10, 1, &[wire_record(1, mac(7), 9, &own), wire_record(1, mac(8), 9, &own)]);
    assert_eq!(refusal(&mut bench), Some("mixed-tsis"));
}

#[test]
fn n1_nothing_is_registered_before_the_facts_are_loaded() {
    let mut bench = Bench::new(0);
    bench.shard = Shard::new(ShardConfig::default(), bench.now);
    bench.fact(Fact::Vn(spec(1)));
    bench.enroll(1);
    bench.grant(1, 7, 1);
    bench.up(10, 1);
    bench.register(10, 1, 1, 7, ACTIVE);
    assert_eq!(refusal(&mut bench), Some("not-ready"));
    assert!(!bench.shard.ready());
    bench.fact(Fact::FactsLoaded);
    assert!(bench.shard.ready());
}

#[test]
fn n1_a_locator_no_longer_enrolled_ends_the_registration() {
    let mut bench = Bench::new(2);
    bench.grant(1, 7, 1);
    bench.grant(1, 8, 2);
    bench.up(10, 1);
    bench.register(10, 1, 1, 7, ACTIVE);
    bench.up(20, 2);
    assert!(bench.answer(2, 1, mac(7)).is_some());
    let name = Name::new("host1").unwrap();
    bench.fact(Fact::Nve(NveFact { xtr_id: nve(1), name, rlocs: vec![rloc(77)] }));
    let told = bench.told();
    assert_eq!(told.len(), 1, "{told:?}");
    let stored: Vec<_> = Locator::stored(&[rloc(77)]).collect();
    assert_eq!(bench.mapping(1, mac(7)).unwrap().locators, stored);
}

#[test]
fn h2_associated_displaces_nobody() {
    let mut bench = Bench::new(3);
    let mut moving = grant(1, 7, 1);
    bench.fact(Fact::Grant(moving.clone()));
    bench.grant(1, 8, 3);
    bench.up(10, 1);
    bench.up(20, 2);
    bench.register(10, 1, 1, 7, ACTIVE);
    moving.next = successor(2, 2);
    bench.fact(Fact::Grant(moving));
    let id = bench.register(20, 2, 1, 7, ASSOCIATED);
    assert!(bench.sent().contains(&Sent::Ack { session: 20, id }));
    assert_eq!(bench.mapping(1, mac(7)).unwrap().owner, nve(1));
    assert_eq!(bench.events(), []);
}

#[test]
fn v4_activation_by_next_is_published_and_reported() {
    let mut bench = Bench::new(3);
    let mut moving = grant(1, 7, 1);
    bench.fact(Fact::Grant(moving.clone()));
    bench.grant(1, 8, 3);
    bench.up(10, 1);
    bench.up(20, 2);
    bench.up(30, 3);
    bench.register(10, 1, 1, 7, ACTIVE);
    assert!(bench.answer(3, 1, ip4(7)).is_some());
    moving.next = successor(2, 2);
    bench.fact(Fact::Grant(moving.clone()));
    bench.events();
    bench.register(20, 2, 1, 7, ACTIVE);
    let epoch = Epoch::new(2).unwrap();
    assert_eq!(bench.events(), [Event::SuccessorActive { tsi: tsi(1, 7), nve: nve(2), epoch }]);
    // The asker and the previous owner hear it, each EID once.
    let told = bench.told();
    let heard = |session| told.iter().filter(|t| t.0 == session).map(|t| t.1).collect::<Vec<_>>();
    assert_eq!(heard(30), [mac(7), ip4(7)]);
    assert_eq!(heard(10), [mac(7), ip4(7), ip6(7)]);
    assert!(told.iter().all(|t| t.2 == 15 && (t.3 == at(2) || t.3 == at_mac(7))), "{told:?}");

    // The old owner is refused, also after a restart of its session, and after the store knows.
    bench.register(10, 1, 1, 7, ACTIVE);
    assert_eq!(refusal(&mut bench), Some("superseded"));
    moving.owner = nve(2);
    moving.epoch = epoch;
    moving.next = None;
    bench.fact(Fact::Grant(moving));
    bench.up(11, 1);
    bench.register(11, 1, 1, 7, ACTIVE);
    assert_eq!(refusal(&mut bench), Some("vn-out-of-scope"));
    assert_eq!(bench.mapping(1, mac(7)).unwrap().epoch, epoch);
    // Nothing of that was a change for the asker.
    assert_eq!(bench.told(), []);
}

/// As NVE `by` does of what it holds at `version`.
fn claims(bench: &mut Bench, session: u64, by: u8, version: u16) {
    let here = [lisp::Locator::new(rloc(by).get(), 1)];
    let map_version = lisp::MapVersion::new(version).unwrap();
    let record = Record { map_version, ..wire_record(1, mac(7), 0xffff_ffff, &here) };
    bench.register_records(session, by, &[record]);
}

/// The one that was away while it moved learns it by what it says itself, whatever its grants say.
#[test]
fn v10_who_claims_what_another_holds_is_told_who() {
    for withdrawn in [false, true] {
        let mut bench = Bench::new(3);
        let next = successor(2, 2);
        bench.fact(Fact::Grant(Grant { next, ..grant(1, 7, 1) }));
        bench.grant(1, 8, 1);
        bench.grant(1, 9, 3);
        bench.up(20, 2);
        bench.up(30, 3);
        bench.register(20, 2, 1, 7, ACTIVE);
        if withdrawn {
            bench.withdraw(20, 2, 1, 7);
        }
        bench.up(10, 1);
        bench.sent();
        claims(&mut bench, 10, 1, 1);
        assert_eq!(refusal(&mut bench), Some("superseded"));
        let located = |sent: &Sent| match sent {
            Sent::Notify { session: 10, eid, version, rlocs, .. } if *eid == mac(7) && !rlocs.is_empty() => {
                Some((*version, rlocs.clone()))
            }
            _ => None,
        };
        let sent = bench.sent();
        assert!(matches!(sent[0], Sent::Reject { session: 10, .. }));
        assert_eq!(sent.iter().filter_map(located).collect::<Vec<_>>(), [(2, at(2))], "{sent:?}");
        // The store says so, too. Who says of no epoch that he holds it is told nothing.
        bench.fact(Fact::Grant(Grant { epoch: Epoch::new(2).unwrap(), ..grant(1, 7, 2) }));
        bench.sent();
        claims(&mut bench, 30, 3, 1);
        assert_eq!(refusal(&mut bench), Some("held-by"));
        assert!(bench.told().iter().any(|(session, eid, ..)| (*session, *eid) == (30, mac(7))));
        claims(&mut bench, 10, 1, 0);
        assert_eq!((refusal(&mut bench), bench.told()), (Some("held-by"), vec![]));
    }
}

/// It was sent when it was its own and came late: meanwhile it has moved away and is to come back.
#[test]
fn v4_what_was_said_of_an_earlier_epoch_is_no_activation() {
    for late in [1, 7] {
        let mut bench = Bench::new(2);
        bench.grant(1, 7, 1);
        bench.up(10, 1);
        bench.up(20, 2);
        claims(&mut bench, 10, 1, 1);
        let there = Grant { epoch: Epoch::new(2).unwrap(), ..grant(1, 7, 2) };
        // Also where the change before that one was not seen.
        bench.fact(Fact::Grant(Grant { next: successor(1, 3), ..there }));
        assert_eq!(bench.mapping(1, mac(7)).unwrap().owner, nve(2));
        claims(&mut bench, 20, 2, 2);
        bench.events();
        claims(&mut bench, 10, 1, late);
        assert_eq!(refusal(&mut bench), Some("held-by"));
        assert_eq!(bench.mapping(1, mac(7)).unwrap().owner, nve(2));
        claims(&mut bench, 10, 1, 3);
        let epoch = Epoch::new(3).unwrap();
        assert_eq!(bench.events(), [Event::SuccessorActive { tsi: tsi(1, 7), nve: nve(1), epoch }]);
    }
}

#[test]
fn v4_a_cancelled_move_gives_the_tsi_back() {
    let mut bench = Bench::new(2);
    let mut moving = grant(1, 7, 1);
    moving.next = successor(2, 2);
    bench.fact(Fact::Grant(moving.clone()));
    bench.up(10, 1);
    bench.up(20, 2);
    bench.register(20, 2, 1, 7, ACTIVE);
    assert_eq!(bench.mapping(1, mac(7)).unwrap().owner, nve(2));
    moving.next = None;
    bench.fact(Fact::Grant(moving));
    assert_eq!(bench.mapping(1, mac(7)).unwrap().owner, nve(1));
    bench.sent();
    bench.register(10, 1, 1, 7, ACTIVE);
    assert_eq!(refusal(&mut bench), None);
}

#[test]
fn n2_withdrawal_of_one_address_and_of_all() {
    let mut bench = Bench::new(2);
    bench.grant(1, 7, 1);
    bench.grant(1, 8, 2);
    bench.up(10, 1);
    bench.up(20, 2);
    bench.register(10, 1, 1, 7, ACTIVE);
    bench.answer(2, 1, ip4(7));
    bench.answer(2, 1, ip6(7));
    let right_mac = [lisp::Locator::mac([2, 0, 0, 0, 0, 7])];
    let id = bench.register_records(10, 1, &[wire_record(1, ip4(7), 0, &right_mac)]);
    assert_eq!(
        bench.sent(),
        [
            Sent::Notify { session: 20, eid: ip4(7), vni: 1, ttl: 0, rlocs: vec![], version: 0 },
            Sent::Ack { session: 10, id },
        ]
    );
    bench.withdraw(10, 1, 1, 7);
    let told = bench.told();
    assert_eq!(told, [(20, mac(7), 0, vec![]), (20, ip6(7), 0, vec![])]);
    // Withdrawing again, and something released meanwhile, is acknowledged and changes nothing.
    bench.fact(Fact::GrantGone(tsi(1, 7)));
    let id = bench.withdraw(10, 1, 1, 7);
    assert_eq!(bench.sent(), [Sent::Ack { session: 10, id }]);
}

#[test]
fn n1_end_of_registration_removes_what_was_not_named() {
    let mut bench = Bench::new(2);
    for n in [7, 8] {
        bench.grant(1, n, 1);
    }
    bench.grant(1, 9, 2);
    bench.up(10, 1);
    bench.up(20, 2);
    bench.register(10, 1, 1, 7, ACTIVE);
    bench.register(10, 1, 1, 8, ACTIVE);
    bench.answer(2, 1, mac(7));
    bench.answer(2, 1, mac(8));
    bench.down(10);
    bench.up(11, 1);
    bench.register(11, 1, 1, 8, ACTIVE);
    assert!(bench.mapping(1, mac(7)).unwrap().stale);
    bench.events();
    // A wrong count removes nothing and asks again, not at once a second time.
    bench.sent();
    bench.signal(11, Signal::EndOfRegistration { count: 6, digest: 1 });
    assert_eq!(bench.sent(), [Sent::Refresh { session: 11 }]);
    bench.signal(11, Signal::EndOfRegistration { count: 6, digest: 1 });
    assert_eq!(bench.sent(), []);
    bench.register(11, 1, 1, 8, ACTIVE);
    let digest = bench.shard.vn_digest(nve(1), vni(1));
    let eight = {
        let ix = bench.shard.db.by_name(&tsi(1, 8)).unwrap();
        bench.shard.db.get(ix).unwrap().registration(nve(1)).unwrap().digest()
    };
    assert_eq!((digest.count, eight.count), (6, 3));
    bench.signal(11, Signal::EndOfRegistration { count: 3, digest: eight.sum });
    assert_eq!(bench.events(), [Event::EndOfRegistration { nve: nve(1), registered: 1, removed: 1 }]);
    assert_eq!(bench.told(), [(20, mac(7), 0, vec![])]);
    assert!(!bench.mapping(1, mac(8)).unwrap().stale);
}

#[test]
fn n1_a_vn_asked_for_again_before_the_end_of_registration_loses_nothing() {
    for shards in [1, 2] {
        let vn = (1..=2).find(|vn| shard_of(*vn, shards) == 0).expect("neither VN is the first shard's");
        let mut bench = Bench::with(2, ShardConfig { shards, ..ShardConfig::default() });
        for n in 7..=9 {
            bench.grant(vn, n, 1);
        }
        bench.up(10, 1);
        bench.register(10, 1, vn, 9, ACTIVE);
        bench.down(10);
        bench.up(11, 1);
        bench.register(11, 1, vn, 7, ACTIVE);
        // It has said less than there is: the VN is asked for again.
        bench.signal(11, Signal::VnDigest { vni: vn, count: 0, digest: 0 });
        assert!(bench.sent().contains(&Sent::Refresh { session: 11 }));
        bench.register(11, 1, vn, 8, ACTIVE);
        bench.events();
        let digest = |bench: &Bench, n| {
            let ix = bench.shard.db.by_name(&tsi(vn, n)).unwrap();
            bench.shard.db.get(ix).unwrap().registration(nve(1)).unwrap().digest()
        };
        let mut all = digest(&bench, 7);
        all.add(digest(&bench, 8));
        bench.signal(11, Signal::EndOfRegistration { count: all.count, digest: all.sum });
        // The one that this session has not named goes, and nothing else.
        assert_eq!(bench.events(), [Event::EndOfRegistration { nve: nve(1), registered: 2, removed: 1 }]);
        assert_eq!(bench.shard.vn_digest(nve(1), super::vni(vn)), all);
        assert!(!bench.sent().contains(&Sent::Refresh { session: 11 }));
    }
}

#[test]
fn n1_an_older_session_that_is_reported_late_takes_nobodys_place() {
    let mut bench = Bench::new(2);
    bench.grant(1, 7, 1);
    bench.up(11, 1);
    bench.register(11, 1, 1, 7, ACTIVE);
    bench.sent();
    let event = SessionEvent::Up { session: SessionId(10), xtr_id: nve(1) };
    bench.shard.handle_session(bench.now, event);
    assert_eq!(bench.sent(), []);
    bench.down(10);
    assert_eq!(bench.events(), []);
    assert!(!bench.mapping(1, mac(7)).unwrap().stale, "the newer one is up");
    let id = bench.withdraw(11, 1, 1, 7);
    assert_eq!(bench.sent(), [Sent::Ack { session: 11, id }]);
    // Nor when the newer one has ended meanwhile.
    bench.down(11);
    bench.shard.handle_session(bench.now, event);
    assert_eq!(bench.sent(), []);
}

#[test]
fn n1_digests_find_a_difference() {
    let mut bench = Bench::new(2);
    bench.grant(1, 7, 1);
    bench.grant(2, 8, 1);
    bench.up(10, 1);
    bench.register(10, 1, 1, 7, ACTIVE);
    bench.register(10, 1, 2, 8, ACTIVE);
    bench.sent();
    bench.pass(Duration::from_secs(30));
    let digests: Vec<_> = bench
        .sent()
        .into_iter()
        .filter_map(|sent| match sent {
            Sent::Digest { vni, count, digest, .. } => Some((vni, count, digest)),
            _ => None,
        })
        .collect();
    assert_eq!(digests.iter().map(|d| (d.0, d.1)).collect::<Vec<_>>(), [(1, 3), (2, 3)]);
    // The NVE agrees: nothing. It does not: one refresh, and no second one for a while.
    let (vni, count, digest) = digests[0];
    bench.signal(10, Signal::VnDigest { vni, count, digest });
    assert_eq!(bench.sent(), []);
    bench.signal(10, Signal::VnDigest { vni, count: 0, digest: 0 });
    bench.signal(10, Signal::VnDigest { vni, count: 0, digest: 0 });
    assert_eq!(bench.sent(), [Sent::Refresh { session: 10 }]);
    // It has nothing in that VN, and that is what is left.
    assert_eq!(bench.shard.vn_digest(nve(1), super::vni(1)).count, 0);
    assert_eq!(bench.shard.vn_digest(nve(1), super::vni(2)).count, 3);
}

#[test]
fn n1_a_frame_that_makes_no_sense_is_answered_and_survived() {
    let mut bench = Bench::new(1);
    bench.up(10, 1);
    bench.frame(10, Frame { frame_type: 17, id: 5, data: &[1, 2, 3] });
    bench.frame(10, Frame { frame_type: 4711, id: 6, data: &[] });
    bench.frame(99, Frame { frame_type: 17, id: 5, data: &[1, 2, 3] });
    assert_eq!(bench.sent(), [Sent::Complaint { session: 10 }, Sent::Complaint { session: 10 }]);
    assert_eq!(bench.shard.counters().frames_without_session, 1);
}

fn patient() -> Bench {
    let mut bench = Bench::with(2, ShardConfig::default());
    bench.up(10, 1);
    bench.up(20, 2);
    bench
}

#[test]
fn n1_a_registration_that_is_faster_than_its_grant_waits_for_it() {
    let mut bench = patient();
    let id = bench.register(10, 1, 1, 7, ACTIVE);
    assert_eq!(bench.sent(), []);
    bench.pass(Duration::from_millis(900));
    bench.grant(1, 7, 1);
    assert_eq!(bench.sent(), [Sent::Ack { session: 10, id }]);
    assert_eq!(bench.mapping(1, mac(7)).unwrap().origin, weft_model::Origin::Registration);
    // A take-over whose fact is late, too.
    let id = bench.register(20, 2, 1, 7, ACTIVE);
    assert_eq!(bench.sent(), []);
    let mut taken = grant(1, 7, 2);
    taken.epoch = Epoch::new(2).unwrap();
    bench.fact(Fact::Grant(taken));
    assert!(bench.sent().contains(&Sent::Ack { session: 20, id }));
    assert_eq!(bench.mapping(1, mac(7)).unwrap().owner, nve(2));
    assert_eq!((refusal(&mut bench), bench.shard.counters().parked), (None, 2));
}

#[test]
fn n1_a_registration_whose_grant_never_comes_is_refused_after_a_second() {
    let mut bench = patient();
    let id = bench.register(10, 1, 1, 7, ACTIVE);
    bench.pass(Duration::from_millis(999));
    assert_eq!((bench.sent(), refusal(&mut bench)), (vec![], None));
    bench.grant(1, 7, 2);
    assert_eq!(bench.sent(), [], "another one's grant is not its own");
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.sent(), [Sent::Reject { session: 10, id, reason: RejectReason::NotASitePrefix }]);
    assert_eq!(refusal(&mut bench), Some("vn-out-of-scope"));
}

#[test]
fn n2_a_withdrawal_ends_a_registration_that_waits() {
    let mut bench = patient();
    bench.register(10, 1, 1, 7, ACTIVE);
    let id = bench.withdraw(10, 1, 1, 7);
    let sent = bench.sent();
    assert!(
        matches!(sent[..], [Sent::Reject { .. }, Sent::Ack { id: acked, .. }] if acked == id),
        "{sent:?}"
    );
    bench.grant(1, 7, 1);
    assert_eq!(bench.mapping(1, mac(7)).unwrap().origin, weft_model::Origin::Grant);
}

#[test]
fn n1_only_so_many_registrations_wait() {
    let limits = Limits { parked_per_nve: 1, ..Limits::default() };
    let mut bench = Bench::with(1, ShardConfig { limits, ..ShardConfig::default() });
    bench.up(10, 1);
    bench.register(10, 1, 1, 7, ACTIVE);
    let id = bench.register(10, 1, 1, 8, ACTIVE);
    assert_eq!(bench.sent(), [Sent::Reject { session: 10, id, reason: RejectReason::NotASitePrefix }]);
}
