//! Requirements N9 and M2: who has a part in a VN, and who is told.

use std::collections::BTreeSet;
use std::net::IpAddr;

use weft_lisp::tcp::{MembershipEvent, SubscribeError};

use super::*;
use crate::core::members::site_id;

/// What is said of members, in order, without the Site-IDs.
fn said(bench: &mut Bench, to: u64) -> Vec<String> {
    let sent = bench.sent().into_iter();
    sent.filter_map(|sent| match sent {
        Sent::Membership { session, vni: 1, event } if session == to => Some(match event {
            MembershipEvent::SubscribeAck { subscribe_id: 7 } => "ack".to_owned(),
            MembershipEvent::SubscribeNack { subscribe_id: 7, error } => format!("nack {error:?}"),
            MembershipEvent::RefreshBegin { request_id: 7 } => "begin".to_owned(),
            MembershipEvent::RefreshEnd { request_id: 7 } => "end".to_owned(),
            MembershipEvent::Add { rloc, .. } => format!("+{rloc}"),
            MembershipEvent::Remove { rloc, .. } => format!("-{rloc}"),
            other => panic!("{other:?}"),
        }),
        _ => None,
    })
    .collect()
}

/// NVEs 1 to 3, each with a session of its number and TSI of its number in VN 1, registered.
fn bench() -> Bench {
    let mut bench = Bench::new(4);
    for n in 1..=3 {
        bench.grant(1, n, n);
        bench.up(n.into(), n);
        bench.register(n.into(), n, 1, n, ACTIVE);
    }
    bench.sent();
    bench
}

fn members(bench: &Bench) -> Vec<(u8, usize)> {
    bench.shard.members(Some(vni(1))).into_iter().map(|m| (m.nve.0[0], m.tsis)).collect()
}

#[test]
fn n9_snapshot_then_changes_and_never_oneself() {
    let mut bench = bench();
    bench.membership(1, 1, MembershipEvent::Subscribe);
    assert_eq!(
        said(&mut bench, 1),
        ["ack", "begin", "+192.0.2.2", "+2001:db8::2", "+192.0.2.3", "+2001:db8::3", "end"]
    );
    bench.grant(1, 5, 4);
    bench.up(4, 4);
    bench.register(4, 4, 1, 5, ASSOCIATED);
    assert_eq!(said(&mut bench, 1), [""; 0], "Associated is no part in the VN");
    bench.register(4, 4, 1, 5, ACTIVE);
    assert_eq!(said(&mut bench, 1), ["+192.0.2.4", "+2001:db8::4"]);
    // A second one changes nothing, nor does the end of one of two.
    bench.grant(1, 6, 4);
    bench.register(4, 4, 1, 6, ACTIVE);
    assert_eq!(members(&bench), [(1, 1), (2, 1), (3, 1), (4, 2)]);
    bench.withdraw(4, 4, 1, 6);
    assert_eq!(said(&mut bench, 1), [""; 0]);
    bench.withdraw(4, 4, 1, 5);
    assert_eq!(said(&mut bench, 1), ["-192.0.2.4", "-2001:db8::4"]);
    bench.withdraw(1, 1, 1, 1);
    assert_eq!(said(&mut bench, 1), [""; 0], "of itself nobody is told");
    bench.membership(1, 1, MembershipEvent::Unsubscribe);
    bench.withdraw(2, 2, 1, 2);
    assert_eq!(said(&mut bench, 1), [""; 0]);
    assert!(bench.shard.subscribers.is_empty());
}

#[test]
fn n9_several_rlocs_are_one_member() {
    let mut bench = bench();
    bench.membership(1, 1, MembershipEvent::Subscribe);
    let mut sites = BTreeSet::new();
    for sent in bench.sent() {
        if let Sent::Membership { event: MembershipEvent::Add { site_id, rloc }, .. } = sent {
            sites.insert((site_id, rloc));
        }
    }
    let at = |n: u8| {
        let rlocs: [IpAddr; 2] = [rloc(n).get(), rloc6(n).get()];
        rlocs.map(|rloc| (site_id(nve(n)), rloc))
    };
    assert_eq!(sites, at(2).into_iter().chain(at(3)).collect());
    // It has another address now.
    let name = Name::new("host2").unwrap();
    bench.fact(Fact::Nve(NveFact { xtr_id: nve(2), name, rlocs: vec![rloc(9), rloc6(2)] }));
    let said = said(&mut bench, 1);
    assert!(said.starts_with(&["-192.0.2.2".to_owned()]), "{said:?}");
}

#[test]
fn n9_only_who_is_in_scope_is_told() {
    let mut bench = bench();
    bench.up(4, 4);
    bench.membership(4, 1, MembershipEvent::Subscribe);
    assert_eq!(said(&mut bench, 4), ["nack NotAuthorized"]);
    bench.membership(1, 3, MembershipEvent::Subscribe);
    let nack = MembershipEvent::SubscribeNack { subscribe_id: 7, error: SubscribeError::InstanceNotFound };
    assert_eq!(bench.sent(), [Sent::Membership { session: 1, vni: 3, event: nack }]);
    bench.membership(1, 1, MembershipEvent::RefreshRequest);
    assert_eq!(said(&mut bench, 1), ["nack Undefined"], "subscribe first");
    bench.membership(1, 1, MembershipEvent::Subscribe);
    assert_eq!(said(&mut bench, 1).len(), 7);
    bench.membership(1, 1, MembershipEvent::RefreshRequest);
    assert_eq!(said(&mut bench, 1).len(), 6);
    // The grant goes, and with it the right to be told: not in silence.
    bench.fact(Fact::GrantGone(tsi(1, 1)));
    assert_eq!(said(&mut bench, 1), ["nack NotAuthorized"]);
    bench.withdraw(2, 2, 1, 2);
    assert_eq!(said(&mut bench, 1), [""; 0]);
}

#[test]
fn n9_nothing_remains_of_who_has_gone() {
    let mut bench = bench();
    for n in 1..=3 {
        bench.membership(n, 1, MembershipEvent::Subscribe);
    }
    bench.sent();
    // The session is lost: it hears no more, but is a member until it is withdrawn.
    bench.down(2);
    bench.fact(Fact::NveGone(nve(3)));
    assert_eq!(said(&mut bench, 1), ["-192.0.2.3", "-2001:db8::3"]);
    assert_eq!(members(&bench), [(1, 1), (2, 1)]);
    bench.fact(Fact::NveGone(nve(2)));
    assert_eq!(said(&mut bench, 1), ["-192.0.2.2", "-2001:db8::2"]);
    bench.down(1);
    bench.fact(Fact::NveGone(nve(1)));
    assert!(bench.shard.subscribers.is_empty() && members(&bench).is_empty());
    assert!(bench.shard.db.members.is_told());
}

#[test]
fn n9_a_congested_session_hears_the_last_word() {
    let mut bench = bench();
    bench.membership(1, 1, MembershipEvent::Subscribe);
    said(&mut bench, 1);
    bench.shard.handle_session(bench.now, SessionEvent::Congested { session: SessionId(1) });
    for _ in 0..3 {
        bench.withdraw(2, 2, 1, 2);
        bench.register(2, 2, 1, 2, ACTIVE);
    }
    bench.withdraw(3, 3, 1, 3);
    assert_eq!(said(&mut bench, 1), [""; 0]);
    bench.shard.handle_session(bench.now, SessionEvent::Writable { session: SessionId(1) });
    assert_eq!(said(&mut bench, 1), ["+192.0.2.2", "+2001:db8::2", "-192.0.2.3", "-2001:db8::3"]);
}

#[test]
fn n9_more_changes_than_are_kept_are_a_new_snapshot() {
    let limits =
        Limits { changes_per_session: 1, session_batch_octets: 1, push_octets: 1, ..Limits::default() };
    let mut bench = Bench::with(4, ShardConfig { limits, ..ShardConfig::default() });
    for n in 1..=3 {
        bench.grant(1, n, n);
        bench.up(n.into(), n);
        bench.register(n.into(), n, 1, n, ACTIVE);
    }
    bench.membership(1, 1, MembershipEvent::Subscribe);
    let mut all = Vec::new();
    for _ in 0..20 {
        all.extend(said(&mut bench, 1));
        bench.pass(Duration::from_millis(1));
    }
    assert_eq!(all, ["ack", "begin", "+192.0.2.2", "+2001:db8::2", "+192.0.2.3", "+2001:db8::3", "end"]);
    bench.withdraw(2, 2, 1, 2);
    assert_eq!(bench.shard.counters().snapshots_restarted, 1);
    let mut all = Vec::new();
    for _ in 0..20 {
        all.extend(said(&mut bench, 1));
        bench.pass(Duration::from_millis(1));
    }
    assert_eq!(all, ["begin", "+192.0.2.3", "+2001:db8::3", "end"]);
}

#[test]
fn d2_after_a_restart_the_list_is_complete_only_when_all_have_registered() {
    let mut bench = Bench::of(Shard::new(ShardConfig::default(), Time::default()));
    bench.fact(Fact::Vn(spec(1)));
    for n in 1..=3 {
        bench.enroll(n);
        bench.grant(1, n, n);
    }
    bench.fact(Fact::FactsLoaded);
    let end = Signal::EndOfRegistration { count: 0, digest: 0 };
    for n in 1..=2 {
        bench.up(n.into(), n);
        bench.register(n.into(), n, 1, n, ACTIVE);
        bench.signal(n.into(), end);
    }
    bench.membership(1, 1, MembershipEvent::Subscribe);
    assert_eq!(said(&mut bench, 1), ["ack", "begin", "+192.0.2.2", "+2001:db8::2"]);
    let mut silent = bench.shard.clone();
    bench.up(3, 3);
    bench.register(3, 3, 1, 3, ACTIVE);
    assert_eq!(said(&mut bench, 1), ["+192.0.2.3", "+2001:db8::3"]);
    bench.signal(3, end);
    assert_eq!(said(&mut bench, 1), ["end"]);
    // Or when the third stays silent for long enough.
    std::mem::swap(&mut bench.shard, &mut silent);
    bench.pass(Duration::from_secs(31));
    assert_eq!(said(&mut bench, 1), ["end"]);
}
