//! N10: losing a session is not losing a host.

use super::*;

/// `nves` NVEs with one TSI each, all registered; the last one asked for TSI 1. Hosts answer while they live.
fn bench(nves: u8) -> Bench {
    let mut bench = Bench::new(nves);
    bench.answering = (1..=nves).collect();
    for n in 1..=nves {
        bench.grant(1, n, n);
        bench.up(u64::from(n), n);
        bench.register(u64::from(n), n, 1, n, ACTIVE);
    }
    bench.answer(nves, 1, mac(1));
    bench.sent();
    bench.events();
    bench
}

fn echoes(bench: &mut Bench) -> Vec<(String, u64)> {
    let sent = bench.sent().into_iter();
    sent.filter_map(|s| match s {
        Sent::Echo { rloc, nonce } => Some((rloc, nonce)),
        _ => None,
    })
    .collect()
}

#[test]
fn n10_a_dead_host_is_withdrawn_after_the_grace_and_unanswered_echoes() {
    let mut bench = bench(4);
    bench.down(1);
    assert_eq!(bench.events(), [Event::Stale { nve: nve(1), tsis: 1 }]);
    assert!(bench.mapping(1, mac(1)).unwrap().stale);
    bench.pass(Duration::ZERO);
    let first = echoes(&mut bench);
    assert_eq!(first.iter().map(|e| e.0.as_str()).collect::<Vec<_>>(), ["192.0.2.1", "2001:db8::1"]);
    bench.pass(Duration::from_millis(2_999));
    assert_eq!(echoes(&mut bench).len(), 148, "each 40 ms");
    assert_eq!(bench.answer(4, 1, mac(1)).unwrap()[0].3, at(1), "stale and still answered");
    assert_eq!(bench.events(), []);
    bench.pass(Duration::from_millis(1));
    let after = Duration::from_secs(3);
    assert_eq!(bench.events(), [Event::Withdrawn { nve: nve(1), tsis: 1, after }]);
    assert_eq!(bench.told(), [(4, mac(1), 0, vec![])]);
    assert!(bench.mapping(1, mac(1)).unwrap().withdrawn);
    // Never Negative: it is granted.
    assert_eq!(bench.answer(3, 1, mac(1)).unwrap()[0].2, Action::NoAction);
    // It comes back and registers.
    bench.up(100, 1);
    bench.register(100, 1, 1, 1, ACTIVE);
    assert_eq!(bench.told(), [(4, mac(1), 15, at(1))]);
}

#[test]
fn n10_a_dead_agent_keeps_its_mappings_for_180_s() {
    let mut bench = bench(4);
    bench.down(1);
    for _ in 0..700 {
        bench.pass(Duration::from_millis(250));
        for (rloc, nonce) in echoes(&mut bench).into_iter().take(1) {
            bench.shard.handle_echo_reply(bench.now, rloc.parse().unwrap(), nonce);
        }
        assert!(!bench.events().iter().any(|e| matches!(e, Event::Withdrawn { .. })));
    }
    bench.pass(Duration::from_secs(5));
    let events = bench.events();
    assert!(matches!(events[..], [Event::Withdrawn { .. }]), "{events:?}");
}

#[test]
fn n10_a_session_that_is_back_in_time_changes_nothing() {
    let mut bench = bench(4);
    bench.down(1);
    bench.pass(Duration::from_millis(2_900));
    bench.up(100, 1);
    bench.sent();
    bench.pass(Duration::from_secs(20));
    assert!(!bench.events().iter().any(|e| matches!(e, Event::Withdrawn { .. })));
    assert_eq!(bench.told(), []);
    // The old session's end arrives late.
    bench.down(1);
    assert_eq!(bench.events(), []);
}

#[test]
fn n10_a_wrong_echo_answer_is_none() {
    let mut bench = bench(4);
    bench.down(1);
    bench.pass(Duration::from_secs(3));
    let (_, nonce) = echoes(&mut bench).remove(0);
    bench.shard.handle_echo_reply(bench.now, rloc(1), nonce ^ 1);
    bench.shard.handle_echo_reply(bench.now, rloc(2), nonce);
    bench.pass(Duration::from_millis(1_500));
    assert!(bench.events().iter().any(|e| matches!(e, Event::Withdrawn { .. })));
}

#[test]
fn n10_more_than_a_third_at_once_is_our_own_fault() {
    let mut bench = bench(6);
    for n in 1..=3 {
        bench.down(n);
        bench.pass(Duration::from_millis(100));
    }
    bench.events();
    bench.pass(Duration::from_secs(600));
    assert_eq!(bench.events(), [Event::ManyNvesLost { lost: 3, of: 6 }]);
    assert!(bench.shard.alarmed());
    assert_eq!(bench.told(), []);
    assert_eq!(bench.answer(6, 1, mac(1)).unwrap()[0].3, at(1));
    // Two come back: what the third missed meanwhile proves nothing, it has its grace time again.
    bench.up(102, 2);
    bench.up(103, 3);
    assert_eq!(bench.events(), [Event::NvesBack]);
    bench.sent();
    bench.pass(Duration::from_millis(2_900));
    assert_eq!(bench.events(), []);
    let asked = echoes(&mut bench).iter().filter(|(rloc, _)| rloc == "192.0.2.1").count();
    assert!((72..=74).contains(&asked), "each 40 ms, and by one timer: {asked}");
    // It is dead after all.
    bench.pass(Duration::from_secs(3));
    assert!(matches!(bench.events()[..], [Event::Withdrawn { nve: gone, .. }] if gone == nve(1)));
}

#[test]
fn n10_the_last_to_come_back_after_a_cut_is_not_withdrawn() {
    let mut bench = bench(3);
    for n in 1..=3 {
        bench.down(n);
    }
    bench.pass(Duration::from_secs(20));
    assert!(bench.shard.alarmed());
    bench.up(101, 1);
    bench.up(102, 2);
    bench.pass(Duration::from_secs(2));
    bench.up(103, 3);
    let withdrawn = bench.events().iter().filter(|e| matches!(e, Event::Withdrawn { .. })).count();
    assert_eq!(withdrawn, 0);
}

#[test]
fn n10_a_third_exactly_is_not_more_than_a_third() {
    let mut bench = bench(6);
    bench.down(1);
    bench.down(2);
    bench.pass(Duration::from_secs(5));
    let withdrawn = bench.events().iter().filter(|e| matches!(e, Event::Withdrawn { .. })).count();
    assert_eq!(withdrawn, 2);
}

#[test]
fn n10_a_loss_noticed_nve_by_nve_is_one_loss() {
    let mut bench = bench(9);
    for n in 1..=6 {
        bench.down(n);
        bench.pass(Duration::from_secs(6));
    }
    bench.pass(Duration::from_secs(30));
    let withdrawn = bench.events().iter().filter(|e| matches!(e, Event::Withdrawn { .. })).count();
    assert_eq!(withdrawn, 3, "the fourth within a minute raised the alarm");
}

#[test]
fn n10_who_has_nothing_registered_here_holds_no_withdrawal_back() {
    // Hosts 1 to 3 have nothing here, and live.
    let mut all = bench(6);
    for n in 1..=3 {
        all.withdraw(u64::from(n), n, 1, n);
    }
    let mut dead = all.shard.clone();
    for n in 1..=4 {
        all.down(n);
    }
    for _ in 0..40 {
        all.pass(Duration::from_millis(150));
        for (rloc, nonce) in echoes(&mut all) {
            if rloc != "192.0.2.4" && rloc != "2001:db8::4" {
                all.shard.handle_echo_reply(all.now, rloc.parse().unwrap(), nonce);
            }
        }
    }
    let withdrawn = |bench: &mut Bench| {
        let gone = bench.events().into_iter().filter_map(|event| match event {
            Event::Withdrawn { nve, .. } => Some(nve),
            _ => None,
        });
        gone.collect::<Vec<_>>()
    };
    assert_eq!(withdrawn(&mut all), [nve(4)]);
    // They die: that counts for the time within which losses are one, and not for ever.
    std::mem::swap(&mut all.shard, &mut dead);
    all.answering = (1..=6).collect();
    for n in 1..=3 {
        all.down(n);
    }
    all.pass(Duration::from_secs(10));
    all.down(4);
    all.pass(Duration::from_secs(10));
    assert_eq!((withdrawn(&mut all), all.shard.alarmed()), (vec![], true));
    all.pass(Duration::from_secs(60));
    assert_eq!((withdrawn(&mut all), all.shard.alarmed()), (vec![nve(4)], false));
    assert!(all.shard.poll_timeout().is_some());
}

#[test]
fn n10_an_echo_that_was_not_sent_is_not_missed() {
    let limits = Limits { echoes: 1, ..Limits::default() };
    let mut bench = Bench::with(9, ShardConfig { limits, ..ShardConfig::default() });
    for n in [1, 2] {
        bench.grant(1, n, n);
        bench.up(u64::from(n), n);
        bench.register(u64::from(n), n, 1, n, ACTIVE);
    }
    for n in 3..=9 {
        bench.up(u64::from(n), n);
    }
    bench.down(1);
    bench.down(2);
    // Nobody takes the echo of the one, so that there is no room for the other's.
    bench.pass(Duration::from_secs(20));
    let withdrawn = |event: &Event| matches!(event, Event::Withdrawn { .. });
    assert_eq!(bench.events().iter().filter(|event| withdrawn(event)).count(), 0);
    assert_eq!(echoes(&mut bench).len(), 2);
    assert_eq!(
        bench.shard.counters().echoes,
        2 * 9 + 2,
        "at the beginning of each session, and of one that is lost"
    );
}

#[test]
fn n10_agents_that_answer_the_echo_prove_that_the_fault_is_not_ours() {
    let mut bench = bench(6);
    for n in 1..=4 {
        bench.down(n);
    }
    for _ in 0..40 {
        bench.pass(Duration::from_millis(250));
        for (rloc, nonce) in echoes(&mut bench) {
            if rloc != "192.0.2.1" && rloc != "2001:db8::1" {
                bench.shard.handle_echo_reply(bench.now, rloc.parse().unwrap(), nonce);
            }
        }
    }
    let withdrawn: Vec<_> =
        bench.events().into_iter().filter(|e| matches!(e, Event::Withdrawn { .. })).collect();
    assert!(matches!(withdrawn[..], [Event::Withdrawn { nve: gone, .. }] if gone == nve(1)));
}

/// An Oracle that is cut off loses its sessions one after the other, seconds apart.
#[test]
fn n10_the_first_session_that_a_cut_ends_is_not_a_host_that_died() {
    for nves in [2, 3, 12] {
        let mut bench = bench(nves);
        bench.answering.clear();
        for n in 1..=nves {
            bench.down(u64::from(n));
            bench.pass(Duration::from_secs(4));
            let events = bench.events();
            assert!(
                !events.iter().any(|e| matches!(e, Event::Withdrawn { .. })),
                "{n} of {nves}: {events:?}"
            );
            assert!(bench.shard.alarmed());
        }
        // The cut ends: a host that answers and a session say so; nothing that was missed counts.
        bench.answering = (1..=nves).collect();
        for n in 2..=nves {
            bench.up(100 + u64::from(n), n);
        }
        bench.pass(Duration::from_secs(20));
        assert!(!bench.shard.alarmed());
        assert!(!bench.events().iter().any(|e| matches!(e, Event::Withdrawn { .. })));
    }
}

#[test]
fn n10_a_cut_that_ends_before_sessions_do_withdraws_who_died_meanwhile() {
    let mut bench = bench(12);
    bench.down(1);
    bench.answering.clear();
    bench.pass(Duration::from_secs(10));
    assert_eq!(bench.events()[1..], [Event::ManyNvesLost { lost: 12, of: 12 }]);
    bench.answering = (2..=12).collect();
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.events(), [Event::NvesBack]);
    bench.pass(Duration::from_secs(3));
    assert!(matches!(bench.events()[..], [Event::Withdrawn { nve: gone, .. }] if gone == nve(1)));
}

/// Sessions get through, echoes do not.
#[test]
fn n10_where_no_echo_was_ever_answered_its_want_is_no_witness() {
    let mut bench = Bench::new(4);
    for n in 1..=4 {
        bench.grant(1, n, n);
        bench.up(u64::from(n), n);
        bench.register(u64::from(n), n, 1, n, ACTIVE);
    }
    bench.down(1);
    bench.events();
    bench.pass(Duration::from_secs(4));
    assert!(matches!(bench.events()[..], [Event::Withdrawn { nve: gone, .. }] if gone == nve(1)));
}

#[test]
fn n10_the_alarm_ends_with_nves_that_are_removed() {
    let mut bench = bench(5);
    for n in 1..=3 {
        bench.down(n);
    }
    bench.pass(Duration::from_secs(4));
    assert!(bench.shard.alarmed());
    for n in 1..=3 {
        bench.fact(Fact::NveGone(nve(n)));
    }
    assert!(!bench.shard.alarmed());
}

#[test]
fn n10_the_alarm_ends_with_the_only_session_that_a_short_cut_ended() {
    let mut bench = bench(12);
    bench.answering.clear();
    bench.down(1);
    bench.pass(Duration::from_secs(4));
    assert!(bench.shard.alarmed());
    bench.up(101, 1);
    assert!(!bench.shard.alarmed());
}

#[test]
fn n10_few_are_asked_however_many_there_are_and_each_in_turn() {
    for witnesses in [0, 1, 8] {
        let limits = Limits { witnesses, ..Limits::default() };
        let mut bench = Bench::with(30, ShardConfig { limits, ..ShardConfig::default() });
        bench.answering = (1..=30).collect();
        for n in 1..=30 {
            bench.grant(1, n, n);
            bench.up(u64::from(n), n);
            bench.register(u64::from(n), n, 1, n, ACTIVE);
        }
        bench.sent();
        bench.answering.clear();
        let mut all = BTreeSet::new();
        for lost in 1..=15 {
            bench.down(lost);
            bench.pass(Duration::ZERO);
            let asked: BTreeSet<_> = echoes(&mut bench).into_iter().map(|(rloc, _)| rloc).collect();
            assert_eq!(asked.len(), 2 * (1 + witnesses.max(1)), "{asked:?}");
            all.extend(asked);
            bench.up(100 + lost, u8::try_from(lost).unwrap());
            bench.sent();
            bench.pass(Duration::from_secs(1));
        }
        assert!(witnesses < 8 || all.len() == 60, "{all:?}");
    }
}

/// One in three answers is enough of each witness.
#[test]
fn n10_witnesses_whose_answers_are_lost_now_and_then_count() {
    let mut bench = bench(9);
    bench.answering.clear();
    bench.down(1);
    let mut turn = 0;
    for _ in 0..14 {
        bench.pass(Duration::from_millis(250));
        for (rloc, nonce) in echoes(&mut bench).into_iter().filter(|(rloc, _)| !rloc.ends_with('1')) {
            turn += 1;
            if turn % 3 == 0 {
                bench.shard.handle_echo_reply(bench.now, rloc.parse().unwrap(), nonce);
            }
        }
    }
    assert!(matches!(bench.events()[1..], [Event::Withdrawn { .. }]));
}

/// TCP had waited for so long when it gave up: that counts.
#[test]
fn n10_a_host_that_was_silent_before_its_session_ended_is_gone_sooner() {
    let mut bench = bench(4);
    bench.pass(Duration::from_secs(10));
    let silent = Duration::from_secs(3);
    bench.answering.remove(&1);
    bench.shard.handle_session(bench.now, SessionEvent::Down { session: SessionId(1), silent });
    bench.events();
    bench.pass(Duration::from_millis(799));
    assert_eq!(bench.events(), [], "twenty echoes are waited for all the same");
    bench.pass(Duration::from_millis(1));
    assert!(matches!(bench.events()[..], [Event::Withdrawn { .. }]));
}

/// Nineteen of twenty lost, and a way of half a second: it lives.
#[test]
fn n10_a_host_behind_a_lossy_or_a_long_way_is_kept() {
    let mut bench = bench(4);
    bench.answering.remove(&1);
    bench.down(1);
    bench.events();
    let (mut turn, mut under_way) = (0, Vec::new());
    for _ in 0..500 {
        bench.pass(Duration::from_millis(20));
        let mut asked: Vec<_> = echoes(&mut bench);
        asked.retain(|(rloc, _)| rloc == "192.0.2.1");
        for (_, nonce) in asked {
            turn += 1;
            if turn % 20 == 0 {
                under_way.push((bench.now + Duration::from_millis(500), nonce));
            }
        }
        while let Some((_, nonce)) = under_way.pop_if(|(at, _)| *at <= bench.now) {
            bench.shard.handle_echo_reply(bench.now, rloc(1), nonce);
        }
        let events = bench.events();
        assert_eq!(events, [], "after {turn} echoes");
    }
    assert!(turn > 100, "{turn}");
}
