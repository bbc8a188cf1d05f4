//! Requirement N9: who receives which multicast groups of a VN, and who is told.

use weft_lisp::tcp::{GroupEvent, MembershipEvent};
use weft_model::GroupIp;

use super::*;
use crate::core::members::site_id;

pub(super) const GROUPS: [&str; 2] = ["239.1.2.3", "ff15::1"];

/// What is said of members and groups to session `to`, in order, without IPv6 RLOCs.
pub(super) fn said(bench: &mut Bench, to: u64) -> Vec<String> {
    let sent = bench.sent().into_iter();
    sent.filter_map(|sent| match sent {
        Sent::Membership { session, vni: 1, event } if session == to => Some(match event {
            MembershipEvent::SubscribeAck { .. } => "ack".to_owned(),
            MembershipEvent::SubscribeNack { error, .. } => format!("nack {error:?}"),
            MembershipEvent::RefreshBegin { .. } => "begin".to_owned(),
            MembershipEvent::RefreshEnd { .. } => "end".to_owned(),
            MembershipEvent::Add { rloc, .. } => format!("+{rloc}"),
            MembershipEvent::Remove { rloc, .. } => format!("-{rloc}"),
            other => panic!("{other:?}"),
        }),
        Sent::Group { session, vni: 1, event } if session == to => Some(match event {
            GroupEvent::Add { site_id, group } => format!("{site_id} +{group}"),
            GroupEvent::Remove { site_id, group } => format!("{site_id} -{group}"),
            GroupEvent::AddAll { site_id } => format!("{site_id} +all"),
            GroupEvent::RemoveAll { site_id } => format!("{site_id} -all"),
            other => panic!("{other:?}"),
        }),
        _ => None,
    })
    .filter(|text| !text.contains("2001:"))
    .collect()
}

pub(super) fn add(bench: &mut Bench, session: u64, group: &str) {
    bench.group(session, 1, GroupEvent::Add { site_id: 0, group: group.parse().unwrap() });
}

pub(super) fn remove(bench: &mut Bench, session: u64, group: &str) {
    bench.group(session, 1, GroupEvent::Remove { site_id: 0, group: group.parse().unwrap() });
}

pub(super) fn held(bench: &Bench, n: u8) -> Vec<String> {
    bench.shard.receivers.of(vni(1), nve(n)).map(|group| group.to_string()).collect()
}

pub(super) fn bench_of(limits: Limits) -> Bench {
    let timing = Timing { patience: Duration::ZERO, ..Timing::default() };
    let mut bench = Bench::with(4, ShardConfig { limits, timing, ..ShardConfig::default() });
    for n in 1..=3 {
        bench.grant(1, n, n);
        bench.up(n.into(), n);
        bench.register(n.into(), n, 1, n, ACTIVE);
    }
    bench.sent();
    bench
}

/// NVEs 1 to 3, each with a session of its number and TSI of its number in VN 1, registered.
fn bench() -> Bench {
    bench_of(Limits::default())
}

#[test]
fn n9_groups_come_with_their_member_and_change_by_change() {
    for group in GROUPS {
        let mut bench = bench();
        add(&mut bench, 2, group);
        add(&mut bench, 1, group);
        bench.membership(1, 1, MembershipEvent::Subscribe);
        let all: Vec<String> = said(&mut bench, 1);
        assert_eq!(all.len(), 6, "{all:?}");
        assert_eq!(all[..3], ["ack", "begin", "+192.0.2.2"].map(str::to_owned));
        assert!(all[3].ends_with(&format!(" +{group}")) && all[5] == "end", "{all:?}");
        add(&mut bench, 3, group);
        let change = said(&mut bench, 1);
        assert!(matches!(&change[..], [one] if one.ends_with(&format!(" +{group}"))), "{change:?}");
        add(&mut bench, 3, group);
        remove(&mut bench, 1, group);
        assert_eq!(said(&mut bench, 1), [""; 0], "no news, and its own");
        remove(&mut bench, 2, group);
        let change = said(&mut bench, 1);
        assert!(matches!(&change[..], [one] if one.ends_with(&format!(" -{group}"))), "{change:?}");
        bench.membership(1, 1, MembershipEvent::Unsubscribe);
        remove(&mut bench, 3, group);
        assert_eq!(said(&mut bench, 1), [""; 0]);
        assert!(bench.shard.receivers.is_empty());
    }
}

#[test]
fn n9_only_who_is_in_scope_has_receivers() {
    let mut bench = bench();
    bench.up(4, 4);
    add(&mut bench, 4, GROUPS[0]);
    bench.group(1, 3, GroupEvent::Add { site_id: 0, group: GROUPS[0].parse().unwrap() });
    for none in ["224.0.0.5", "ff02::1", "10.0.0.1"] {
        add(&mut bench, 1, none);
    }
    assert_eq!(bench.shard.counters().groups_refused, 5);
    assert!(bench.shard.receivers.is_empty());
    add(&mut bench, 1, GROUPS[0]);
    bench.fact(Fact::GrantGone(tsi(1, 1)));
    assert!(bench.shard.receivers.is_empty());
    add(&mut bench, 2, GROUPS[0]);
    bench.fact(Fact::VnGone(vni(1)));
    assert!(bench.shard.receivers.is_empty());
}

#[test]
fn n9_groups_outlive_a_session_until_the_next_has_named_all() {
    let mut bench = bench();
    bench.membership(1, 1, MembershipEvent::Subscribe);
    for group in GROUPS {
        add(&mut bench, 2, group);
    }
    said(&mut bench, 1);
    bench.down(2);
    assert_eq!(said(&mut bench, 1), [""; 0]);
    bench.up(5, 2);
    bench.group(5, 1, GroupEvent::Begin);
    add(&mut bench, 5, GROUPS[1]);
    add(&mut bench, 5, "239.9.9.9");
    remove(&mut bench, 5, "239.9.9.9");
    assert_eq!(
        said(&mut bench, 1),
        [format!("{} -239.9.9.9", site_id(nve(2)))],
        "nothing else is different yet"
    );
    bench.group(5, 1, GroupEvent::End);
    let change = said(&mut bench, 1);
    assert!(matches!(&change[..], [one] if one.ends_with(" -239.1.2.3")), "{change:?}");
    assert_eq!(held(&bench, 2), ["ff15::1"]);
    bench.group(5, 1, GroupEvent::End);
    assert_eq!(held(&bench, 2), ["ff15::1"], "once is enough");
    // One that does not speak of the VN has none there, but not before it has said all.
    bench.down(5);
    bench.up(6, 2);
    bench.register(6, 2, 1, 2, ACTIVE);
    assert_eq!(held(&bench, 2), ["ff15::1"]);
    bench.signal(6, Signal::EndOfRegistration { count: 0, digest: 0 });
    assert_eq!(held(&bench, 2), [""; 0]);
}

#[test]
fn n10_the_groups_of_a_dead_host_go_with_it() {
    for removed in [false, true] {
        let mut bench = bench();
        bench.membership(1, 1, MembershipEvent::Subscribe);
        add(&mut bench, 2, GROUPS[0]);
        said(&mut bench, 1);
        bench.answering = (1..=9).collect();
        bench.down(2);
        bench.pass(Duration::from_secs(2));
        assert_eq!(held(&bench, 2).len(), 1);
        if removed {
            bench.fact(Fact::NveGone(nve(2)));
        } else {
            bench.pass(Duration::from_secs(3));
        }
        let change = said(&mut bench, 1);
        assert!(change.contains(&"-192.0.2.2".to_owned()), "{change:?}");
        assert!(change.iter().any(|one| one.ends_with(" -239.1.2.3")), "{change:?}");
        assert!(bench.shard.receivers.is_empty());
    }
}

#[test]
fn n9_a_peer_that_has_not_said_hello_is_told_of_rlocs_only() {
    let mut bench = bench();
    add(&mut bench, 2, GROUPS[0]);
    let up = SessionEvent::Up { session: SessionId(9), xtr_id: nve(1) };
    bench.shard.handle_session(bench.now, up);
    bench.membership(9, 1, MembershipEvent::Subscribe);
    assert_eq!(said(&mut bench, 9), ["ack", "begin", "+192.0.2.2", "+192.0.2.3", "end"]);
    add(&mut bench, 3, GROUPS[0]);
    assert_eq!(said(&mut bench, 9), [""; 0]);
}

#[test]
fn n9_groups_kept_and_changes_kept_are_bounded() {
    let limits = Limits { groups_per_member: 2, changes_per_session: 1, ..Limits::default() };
    let mut bench = bench_of(limits);
    bench.membership(1, 1, MembershipEvent::Subscribe);
    said(&mut bench, 1);
    let group = |n: u8| format!("239.0.0.{n}");
    bench.shard.handle_session(bench.now, SessionEvent::Congested { session: SessionId(1) });
    for n in 1..=5 {
        add(&mut bench, 2, &group(n));
    }
    assert_eq!((held(&bench, 2).len(), bench.shard.counters().groups_refused), (2, 3));
    assert_eq!(bench.shard.counters().snapshots_restarted, 1);
    bench.shard.handle_session(bench.now, SessionEvent::Writable { session: SessionId(1) });
    let all = said(&mut bench, 1);
    assert_eq!((all.len(), all[0].as_str(), all[5].as_str()), (6, "begin", "end"), "{all:?}");
    remove(&mut bench, 2, &group(1));
    add(&mut bench, 2, &group(5));
    assert_eq!(held(&bench, 2), [group(2), group(5)]);
    assert!(held(&bench, 2).iter().all(|text| text.parse::<GroupIp>().is_ok()));
}

#[test]
fn n9_groups_of_an_earlier_session_take_no_room() {
    let mut bench = bench_of(Limits { groups_per_member: 2, ..Limits::default() });
    let group = |n: u8| format!("239.0.0.{n}");
    for n in [1, 2] {
        add(&mut bench, 2, &group(n));
    }
    let mut refused = bench.shard.counters().groups_refused;
    // Naming that is cut short again and again keeps no more than twice the limit.
    for session in 10..20 {
        bench.up(session, 2);
        bench.group(session, 1, GroupEvent::Begin);
        let n = u8::try_from(session).unwrap();
        for n in [2 * n, 2 * n + 1, 200] {
            add(&mut bench, session, &group(n));
        }
        refused += 1;
        assert_eq!(bench.shard.counters().groups_refused, refused, "the third of this session");
        let held = held(&bench, 2);
        assert!(
            held.len() <= 4 && held.contains(&group(2 * n)) && held.contains(&group(2 * n + 1)),
            "{held:?}"
        );
    }
    bench.group(19, 1, GroupEvent::End);
    assert_eq!(held(&bench, 2), [group(38), group(39)]);
}
