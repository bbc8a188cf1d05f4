//! N8: more changes at once than are noted, and what remains of subscriptions that end.

use super::pubsub::*;
use super::*;

const OTHERS: std::ops::RangeInclusive<u8> = 2..=40;

fn few() -> Bench {
    with(Limits { changes_per_subscription: 30, ..Limits::default() })
}

fn whole(bench: &mut Bench) {
    subscribed(bench, all([0; 6]), 1);
    let snapshot = one(bench);
    ack(bench, &snapshot);
}

/// Acknowledges what comes until nothing does; gives what was said last of each EID: its TTL.
fn heard(bench: &mut Bench) -> BTreeMap<String, u32> {
    let mut heard = BTreeMap::new();
    for _ in 0..200 {
        let (notifies, _) = got(bench);
        for notify in notifies {
            ack(bench, &notify);
            heard.extend(notify.records.into_iter().map(|(eid, ttl, ..)| (eid, ttl)));
        }
        bench.pass(Duration::from_millis(1));
    }
    heard
}

#[test]
fn n8_many_changes_at_once_begin_the_snapshot_anew() {
    let mut bench = few();
    whole(&mut bench);
    bench.withdraw(10, 1, 1, 1);
    for n in OTHERS {
        bench.grant(1, n, 1);
    }
    // What goes while they wait is told though the snapshot does not come to it.
    bench.fact(Fact::GrantGone(tsi(1, 3)));
    assert_eq!(refusals(&mut bench), []);
    let told = heard(&mut bench);
    let mut wanted: BTreeMap<String, u32> = OTHERS.map(|n| (host(mac(n)).to_string(), 15)).collect();
    wanted.extend([1, 3].map(|n| (host(mac(n)).to_string(), 0)));
    assert_eq!(told, wanted);
    assert_eq!(bench.shard.counters().pubsub_restarted, 1);
}

#[test]
fn n8_more_withdrawals_than_are_kept_end_a_subscription() {
    let mut bench = few();
    for n in OTHERS {
        bench.grant(1, n, 1);
    }
    subscribed(&mut bench, all([0; 6]), 1);
    heard(&mut bench);
    for n in OTHERS {
        bench.fact(Fact::GrantGone(tsi(1, n)));
    }
    assert_eq!(refusals(&mut bench), [NotSubscribed::Overrun { changes: 31 }]);
}

#[test]
fn n7_nothing_is_muted_of_a_subscription_that_has_ended() {
    let mut bench = bench();
    whole(&mut bench);
    let mut leave = Ask::new(host(mac(1)), 7);
    leave.itr_rlocs.clear();
    leave.send(&mut bench);
    let over = one(&mut bench);
    ack(&mut bench, &over);
    assert_eq!(bench.shard.subscriptions.len(), 2);
    // A change is not acknowledged.
    bench.grant(1, 2, 1);
    bench.pass(Duration::from_secs(200));
    assert!(bench.shard.subscriptions.is_empty());
}

#[test]
fn n7_a_shard_keeps_the_nonces_of_its_own_vns() {
    let eids = (1..=8).map(|vni| lisp::Eid::host(vni, [2, 0, 0, 0, 0, 1]));
    let saved: Vec<(lisp::Eid, u64)> = eids.map(|eid| (eid, 5)).collect();
    let mut kept = 0;
    for index in 0..2 {
        let mut bench = Bench::with(1, ShardConfig { index, shards: 2, ..ShardConfig::default() });
        bench.fact(Fact::Xtr(xtr_fact(&saved)));
        for (eid, _) in &saved {
            let node = bench.shard.nodes.get(nve(5)).unwrap();
            let floor = node.plain.as_ref().unwrap().floors.get(*eid);
            assert_eq!(floor.is_some(), shard_of(eid.iid(), 2) == index);
            kept += usize::from(floor.is_some());
        }
    }
    assert_eq!(kept, saved.len());
}
