//! N7: a Map-Request is not authenticated, so what anybody can send takes nothing from who is subscribed.

use super::pubsub::*;
use super::*;

fn leave(eid: lisp::Eid, nonce: u64) -> Ask {
    let mut ask = Ask::new(eid, nonce);
    ask.itr_rlocs.clear();
    ask
}

/// TSI 1 comes and goes, once a call; what is told of it is acknowledged.
fn told_and_acked(bench: &mut Bench, there: bool, nonce: u64) {
    if there {
        bench.register(10, 1, 1, 1, ACTIVE);
    } else {
        bench.withdraw(10, 1, 1, 1);
    }
    let notify = one(bench);
    let record = if there { mac_record(1, 1) } else { gone(mac(1)) };
    assert_eq!((notify.nonce, &notify.records), (nonce, &vec![record]));
    ack(bench, &notify);
}

#[test]
fn n7_a_forged_map_request_does_not_end_a_subscription() {
    for forged in [leave(host(mac(1)), 500), Ask::new(host(mac(1)), 500)] {
        let mut bench = bench();
        subscribed(&mut bench, host(mac(1)), 1);
        forged.send(&mut bench);
        assert_eq!(one(&mut bench).nonce, 500);
        told_and_acked(&mut bench, false, 2);
        told_and_acked(&mut bench, true, 3);
        // Nobody acknowledges it: no word of an end is sent, which would be taken for that of what stands.
        bench.pass(Duration::from_secs(200));
        let (copies, _) = got(&mut bench);
        assert!(copies.iter().all(|copy| copy.nonce == 500 && copy.records[0].2 != Action::DropAuthFailure));
        told_and_acked(&mut bench, false, 4);
        assert_eq!((bench.shard.subscriptions.len(), bench.shard.counters().pubsub_ended), (1, 0));
    }
}

#[test]
fn n7_a_forged_map_request_for_a_part_does_not_silence_the_whole() {
    for forged in [leave(host(mac(1)), 500), Ask::new(host(mac(1)), 500)] {
        let mut bench = bench();
        subscribed(&mut bench, all([0; 6]), 1);
        let snapshot = one(&mut bench);
        ack(&mut bench, &snapshot);
        forged.send(&mut bench);
        assert_eq!(one(&mut bench).nonce, 500);
        told_and_acked(&mut bench, false, 3);
        bench.pass(Duration::from_secs(200));
        got(&mut bench);
        told_and_acked(&mut bench, true, 4);
    }
}

#[test]
fn n7_what_is_published_meanwhile_is_told_by_the_new_subscription_as_well() {
    let mut bench = bench();
    subscribed(&mut bench, all([0; 6]), 1);
    let snapshot = one(&mut bench);
    ack(&mut bench, &snapshot);
    // The nonce that comes next, as section 5 has it: it is not used for anything else.
    Ask::new(all([0; 6]), 3).send(&mut bench);
    let confirmation = one(&mut bench);
    told_and_acked(&mut bench, false, 4);
    ack(&mut bench, &confirmation);
    let change = one(&mut bench);
    assert_eq!((change.nonce, &change.records), (5, &vec![gone(mac(1))]));
    assert_eq!(bench.shard.subscriptions.len(), 1);
}

#[test]
fn n7_the_last_nonces_cannot_be_asked_with() {
    let (mut bench, most) = (bench(), u64::MAX - (1 << 32));
    Ask::new(all([0; 6]), most + 1).send(&mut bench);
    assert_eq!(denied(&mut bench), (most + 1, 1, Action::DropPolicyDenied));
    assert_eq!(refusals(&mut bench), [NotSubscribed::NonceTooHigh { nonce: most + 1, most }]);
    subscribed(&mut bench, all([0; 6]), most);
}
