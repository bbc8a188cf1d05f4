//! Moves that end otherwise than where they go to (requirements V5, V10): nobody is told that he holds what is taken from
//! him.

use super::*;

fn moving() -> Grant {
    Grant { next: Some(successor()), ..grant(1, 7, 1) }
}

fn successor() -> Successor {
    Successor { nve: nve(2), epoch: Epoch::new(2).unwrap() }
}

/// TSI 7 is registered by NVE 1 and moves to NVE 2.
fn bench(patience: Duration) -> Bench {
    let timing = Timing { patience, ..Timing::default() };
    let mut bench = Bench::with(2, ShardConfig { timing, ..ShardConfig::default() });
    bench.grant(1, 7, 1);
    bench.up(10, 1);
    bench.up(20, 2);
    bench.register(10, 1, 1, 7, ACTIVE);
    bench.fact(Fact::Grant(moving()));
    bench.sent();
    bench.events();
    bench
}

fn answers(bench: &mut Bench) -> Vec<bool> {
    let answer = |sent: &Sent| match sent {
        Sent::Ack { session: 20, .. } => Some(true),
        Sent::Reject { session: 20, .. } => Some(false),
        _ => None,
    };
    bench.sent().iter().filter_map(answer).collect()
}

#[test]
fn v5_who_is_next_holds_it_or_the_move_is_called_off_and_never_both() {
    // It came first.
    let mut b = bench(Duration::ZERO);
    b.register(20, 2, 1, 7, ACTIVE);
    assert_eq!(answers(&mut b), [true]);
    assert_eq!(b.shard.handle_ending(&tsi(1, 7)), Ending::Moved(successor()));
    // It comes while the store decides.
    let mut b = bench(Duration::ZERO);
    assert_eq!(b.shard.handle_ending(&tsi(1, 7)), Ending::Kept(successor()));
    b.register(20, 2, 1, 7, ACTIVE);
    assert_eq!(answers(&mut b), [false]);
    assert!(!b.events().iter().any(|event| matches!(event, Event::SuccessorActive { .. })));
    assert_eq!(b.mapping(1, mac(7)).unwrap().owner, nve(1));
    // Its owner may go on registering, and who is next may let go.
    b.register(10, 1, 1, 7, ACTIVE);
    assert!(b.sent().iter().any(|sent| matches!(sent, Sent::Ack { session: 10, .. })));
    // What is called off is; and of another move nothing is held back.
    let third = Epoch::new(3).unwrap();
    b.fact(Fact::Grant(Grant { epoch: third, ..grant(1, 7, 1) }));
    assert_eq!(b.shard.handle_ending(&tsi(1, 7)), Ending::Still);
    let next = Some(Successor { nve: nve(2), epoch: third.next() });
    b.fact(Fact::Grant(Grant { epoch: third, next, ..grant(1, 7, 1) }));
    b.sent();
    b.register(20, 2, 1, 7, ACTIVE);
    assert_eq!(answers(&mut b), [true]);
    assert_eq!(b.shard.handle_ending(&tsi(1, 9)), Ending::Still);
}

#[test]
fn v5_a_move_that_could_not_be_called_off_goes_on() {
    let mut b = bench(Duration::from_secs(1));
    // Two ask at once, and both are refused by the store.
    for _ in 0..2 {
        assert_eq!(b.shard.handle_ending(&tsi(1, 7)), Ending::Kept(successor()));
    }
    b.register(20, 2, 1, 7, ACTIVE);
    b.shard.handle_not_ended(b.now, &tsi(1, 7), successor());
    assert!(answers(&mut b).is_empty(), "another one is still asked for");
    // Another address changes nothing about that.
    let mut more = moving();
    more.ips.insert("10.0.0.70".parse().unwrap());
    b.fact(Fact::Grant(more));
    assert!(answers(&mut b).is_empty());
    b.shard.handle_not_ended(b.now, &tsi(1, 7), successor());
    assert_eq!(answers(&mut b), [true]);
    assert!(b.events().iter().any(|event| matches!(event, Event::SuccessorActive { .. })));
}

/// An Oracle has told who is next that it holds it, and died before the store knew.
#[test]
fn v5_a_move_is_not_called_off_before_who_is_next_has_said_what_it_has() {
    let begun = || {
        let mut b = Bench::of(Shard::new(ShardConfig::default(), Time::default()));
        b.fact(Fact::Vn(spec(1)));
        for n in 1..=2 {
            b.enroll(n);
        }
        b.fact(Fact::Grant(moving()));
        b.fact(Fact::FactsLoaded);
        b.up(10, 1);
        b.up(20, 2);
        b
    };
    let mut b = begun();
    assert_eq!(b.shard.handle_ending(&tsi(1, 7)), Ending::Unheard(successor()));
    // It was so.
    b.register(20, 2, 1, 7, ACTIVE);
    assert_eq!(b.shard.handle_ending(&tsi(1, 7)), Ending::Moved(successor()));
    // It was not.
    let mut b = begun();
    b.signal(20, Signal::EndOfRegistration { count: 0, digest: 0 });
    assert_eq!(b.shard.handle_ending(&tsi(1, 7)), Ending::Kept(successor()));
    // It does not come back.
    let mut b = begun();
    b.pass(Timing::default().settle);
    assert_eq!(b.shard.handle_ending(&tsi(1, 7)), Ending::Kept(successor()));
}
