//! Requirement N9: multicast groups of a VN that replicates, from the reports of tenant systems to the data plane here
//! and at other NVEs.

use super::super::groups::reports::{report, single};
use super::super::{Fact, Granted, Session};
use super::oracle::{self, Heard};
use super::world::*;
use ::core::time::Duration;
use weft_datapath::{IfIndex, PuntReason};
use weft_lisp::tcp::{Body, Group, GroupEvent, Membership, MembershipEvent};
use weft_model::{Bum, VnSpec};

/// A group of each family.
pub(super) const GROUPS: [&str; 2] = ["239.1.2.3", "ff15::1"];

pub(super) fn replicating() -> VnSpec {
    VnSpec { bum: Bum::Replicate, ..spec() }
}

pub(super) fn fact(w: &mut World, vn: VnSpec) -> Vec<Seen> {
    w.core.handle_fact(Fact::Vn(vn));
    w.seen()
}

/// What the NVE said of groups, and to which Oracle.
pub(super) fn told(seen: &[Seen]) -> Vec<(usize, String)> {
    let f = |s: &Seen| match s {
        Seen::Heard(oracle, Heard::Group(vn, event)) => {
            assert_eq!(*vn, vni());
            let text = match event {
                GroupEvent::Begin => "begin".to_owned(),
                GroupEvent::End => "end".to_owned(),
                GroupEvent::Add { site_id: 0, group } => format!("+{group}"),
                GroupEvent::Remove { site_id: 0, group } => format!("-{group}"),
                GroupEvent::AddAll { site_id: 0 } => "+all".to_owned(),
                GroupEvent::RemoveAll { site_id: 0 } => "-all".to_owned(),
                other => panic!("{other:?}"),
            };
            Some((*oracle, text))
        }
        _ => None,
    };
    seen.iter().filter_map(f).collect()
}

pub(super) fn to_first(texts: &[&str]) -> Vec<(usize, String)> {
    texts.iter().map(|text| (0, (*text).to_owned())).collect()
}

/// IGMP and MLD queries, each to which VAP and about which group: none is all.
pub(super) fn queries(seen: &[Seen]) -> Vec<(u32, Option<String>)> {
    let f = |s: &Seen| match s {
        Seen::Inject(vap, f) if f[12..14] == [8, 0] && f[23] == 2 && f[38] == 0x11 => {
            let group = std::net::Ipv4Addr::from(*f[42..].first_chunk::<4>().unwrap());
            Some((vap.0, (!group.is_unspecified()).then(|| group.to_string())))
        }
        Seen::Inject(vap, f) if f[12..14] == [0x86, 0xdd] && f[62] == 130 => {
            let group = std::net::Ipv6Addr::from(*f[70..].first_chunk::<16>().unwrap());
            Some((vap.0, (!group.is_unspecified()).then(|| group.to_string())))
        }
        _ => None,
    };
    seen.iter().filter_map(f).collect()
}

pub(super) fn pass(w: &mut World, span: Duration) -> Vec<Seen> {
    w.passes(span).into_iter().map(|(_, seen)| seen).collect()
}

pub(super) fn says(w: &mut World, n: u32, frame: Vec<u8>) -> Vec<Seen> {
    w.punt(n, PuntReason::Report, frame)
}

pub(super) fn joins(w: &mut World, n: u32, group: &str) -> Vec<Seen> {
    says(w, n, report(&[(4, group, 0)]))
}

pub(super) fn leaves(w: &mut World, n: u32, group: &str) -> Vec<Seen> {
    says(w, n, report(&[(3, group, 0)]))
}

/// VAPs here and members elsewhere that have a group.
pub(super) fn receivers(w: &World, group: &str) -> (Vec<u32>, Vec<String>) {
    let found = w.tables.groups.get(&(vni(), group.parse().unwrap())).cloned().unwrap_or_default();
    (found.vaps.iter().map(|vap| vap.0).collect(), found.members.iter().map(ToString::to_string).collect())
}

pub(super) fn member_says(w: &mut World, at: usize, event: MembershipEvent) -> Vec<Seen> {
    w.hears(at, &oracle::frame(&Body::Membership(Membership { eid_afi: 0, iid: VNI, event }), 1))
}

pub(super) fn group_says(w: &mut World, at: usize, event: GroupEvent) -> Vec<Seen> {
    w.hears(at, &oracle::frame(&Body::Group(Group { vni: VNI, event }), 1))
}

pub(super) fn adds(w: &mut World, at: usize, site_id: u64, group: &str) {
    group_says(w, at, GroupEvent::Add { site_id, group: group.parse().unwrap() });
}

pub(super) fn subscribed(seen: &[Seen]) -> u32 {
    let id = |s: &Seen| match s {
        Seen::Heard(0, Heard::Membership(id, _, MembershipEvent::Subscribe)) => Some(*id),
        _ => None,
    };
    seen.iter().find_map(id).unwrap_or_else(|| panic!("{seen:?}"))
}

/// In a VN that replicates, tenant systems a and b at devices 1 and 2, members 2 and 3.
pub(super) fn started(f: Family) -> (World, u32) {
    started_with(f, |_| {})
}

pub(super) fn started_with(f: Family, change: impl FnOnce(&mut super::super::Config)) -> (World, u32) {
    let mut w = World::with(f, change);
    w.session(0, Session::Up);
    w.attach_all(&["a", "b"]);
    let seen = fact(&mut w, replicating());
    assert_eq!(told(&seen), to_first(&["begin", "end"]));
    let request_id = subscribed(&seen);
    member_says(&mut w, 0, MembershipEvent::RefreshBegin { request_id });
    for n in [2, 3] {
        member_says(&mut w, 0, MembershipEvent::Add { site_id: n.into(), rloc: rloc(f, n).get() });
    }
    member_says(&mut w, 0, MembershipEvent::RefreshEnd { request_id });
    (w, request_id)
}

#[test]
fn n9_who_joins_receives_and_the_oracle_is_told_once() {
    for (f, group) in BOTH.into_iter().zip(GROUPS) {
        let (mut w, _) = started(f);
        assert_eq!(told(&joins(&mut w, 1, group)), to_first(&[&format!("+{group}")]));
        assert_eq!(receivers(&w, group), (vec![1], vec![]));
        assert_eq!(joins(&mut w, 1, group), [], "that is known");
        assert_eq!(told(&says(&mut w, 2, single(group, false))), [], "the Oracle knows");
        assert_eq!(receivers(&w, group), (vec![1, 2], vec![]));
        // Groups of one link are everybody's without asking.
        let of_link = if f == V4 { "224.0.0.251" } else { "ff02::fb" };
        assert_eq!(joins(&mut w, 1, of_link), []);
        assert_eq!(w.core.counters().group_reports, 4);
        says(&mut w, 1, vec![0; 40]);
        assert_eq!(w.core.counters().malformed_punts, 1);
    }
}

#[test]
fn n9_vaps_are_asked_when_new_and_now_and_then() {
    let (mut w, _) = started(V4);
    let general = |vap| vec![(vap, None); 2];
    let new: Vec<_> = [general(1), general(2)].concat();
    assert_eq!(queries(&pass(&mut w, Duration::from_millis(200))), new);
    assert_eq!(queries(&pass(&mut w, Duration::from_secs(1))), new);
    assert_eq!(queries(&pass(&mut w, Duration::from_secs(120))), []);
    assert_eq!(queries(&pass(&mut w, Duration::from_secs(5))), new);
    let call = w.attach(attach("c", 3));
    w.seen();
    let granted = Granted { grant: grant("c", 3), vn: replicating(), revision: 9, created: true };
    w.core.handle_granted(w.now, call, Ok(granted));
    assert_eq!(queries(&pass(&mut w, Duration::from_secs(2))), [general(3), general(3)].concat());
    // Where nothing is narrowed nobody is asked.
    fact(&mut w, spec());
    assert_eq!(queries(&pass(&mut w, Duration::from_secs(500))), []);
}

#[test]
fn n9_who_says_nothing_more_is_forgotten() {
    for group in GROUPS {
        let (mut w, _) = started(V4);
        joins(&mut w, 1, group);
        pass(&mut w, Duration::from_secs(200));
        says(&mut w, 1, report(&[(2, group, 0)]));
        let seen = pass(&mut w, Duration::from_secs(259));
        assert_eq!((told(&seen), receivers(&w, group).0), (vec![], vec![1]));
        let seen = pass(&mut w, Duration::from_secs(2));
        assert_eq!(told(&seen), to_first(&[&format!("-{group}")]));
        assert!(w.tables.groups.is_empty());
    }
}

#[test]
fn n9_who_leaves_is_asked_twice_who_else_is_there() {
    for group in GROUPS {
        let (mut w, _) = started(V4);
        pass(&mut w, Duration::from_secs(2));
        for n in [1, 2] {
            joins(&mut w, n, group);
        }
        let asked = vec![(1, Some(group.to_owned()))];
        assert_eq!(queries(&says(&mut w, 1, single(group, true))), asked);
        assert_eq!(queries(&leaves(&mut w, 1, group)), [], "it is being asked");
        assert_eq!(queries(&pass(&mut w, Duration::from_millis(1_500))), asked);
        assert_eq!(receivers(&w, group).0, [1, 2]);
        let seen = pass(&mut w, Duration::from_millis(1_000));
        assert_eq!((queries(&seen), told(&seen), receivers(&w, group).0), (vec![], vec![], vec![2]));
        // Somebody else is there.
        leaves(&mut w, 2, group);
        joins(&mut w, 2, group);
        pass(&mut w, Duration::from_secs(10));
        assert_eq!(receivers(&w, group).0, [2]);
        // Some sources of several are left: who wants others answers.
        assert_eq!(queries(&says(&mut w, 2, report(&[(6, group, 1)]))), [(2, Some(group.to_owned()))]);
        says(&mut w, 2, report(&[(1, group, 1)]));
        pass(&mut w, Duration::from_secs(10));
        assert_eq!(receivers(&w, group).0, [2]);
        leaves(&mut w, 2, group);
        assert_eq!(told(&pass(&mut w, Duration::from_secs(3))), to_first(&[&format!("-{group}")]));
    }
}

#[test]
fn n9_joins_and_leaves_in_turn_are_asked_about_once_a_while() {
    for group in GROUPS {
        let (mut w, _) = started(V4);
        pass(&mut w, Duration::from_secs(2));
        let asked = vec![(1, Some(group.to_owned()))];
        // One report that says both, many times.
        let both: Vec<_> = (0..97).flat_map(|_| [(4, group, 0), (3, group, 0)]).collect();
        let seen = says(&mut w, 1, report(&both));
        assert_eq!((told(&seen), queries(&seen)), (to_first(&[&format!("+{group}")]), vec![]));
        // One after the other.
        assert_eq!(queries(&leaves(&mut w, 1, group)), asked);
        for _ in 0..50 {
            assert_eq!(joins(&mut w, 1, group), []);
            assert_eq!(leaves(&mut w, 1, group), [], "it was just asked");
        }
        assert_eq!(queries(&pass(&mut w, Duration::from_millis(1_500))), asked);
        // A leave that had to wait is a leave.
        let seen = pass(&mut w, Duration::from_secs(2));
        assert_eq!((queries(&seen), told(&seen)), (asked, to_first(&[&format!("-{group}")])));
    }
}

#[test]
fn n9_what_comes_and_goes_beside_a_vap_does_not_make_it_new() {
    let (mut w, _) = started(V4);
    pass(&mut w, Duration::from_secs(2));
    for _ in 0..3 {
        w.core.handle_device_gone(w.now, IfIndex(2));
        w.seen();
        w.core.review_groups(vni());
        assert_eq!(queries(&pass(&mut w, Duration::from_secs(110))), []);
        let asked = queries(&pass(&mut w, Duration::from_secs(15)));
        assert_eq!(asked, [(1, None), (1, None)]);
    }
}

#[test]
fn n9_with_the_vap_goes_what_it_wanted() {
    let (mut w, _) = started(V4);
    for group in GROUPS {
        joins(&mut w, 1, group);
        joins(&mut w, 2, group);
    }
    w.core.handle_device_gone(w.now, IfIndex(1));
    assert_eq!(told(&w.seen()), []);
    assert_eq!(receivers(&w, GROUPS[0]).0, [2]);
    fact(&mut w, spec());
    assert!(w.tables.groups.is_empty());
    // Asked anew when it is so again.
    assert_eq!(told(&fact(&mut w, replicating())), to_first(&["begin", "end"]));
    joins(&mut w, 2, GROUPS[0]);
    w.core.handle_device_gone(w.now, IfIndex(2));
    w.seen();
    assert!(w.tables.groups.is_empty());
}

#[test]
fn n9_members_that_receive_are_sent_to() {
    for f in BOTH {
        let (mut w, request_id) = started(f);
        for group in GROUPS {
            adds(&mut w, 0, 2, group);
            assert_eq!(receivers(&w, group), (vec![], vec![rloc(f, 2).to_string()]));
            joins(&mut w, 1, group);
            adds(&mut w, 0, 3, group);
            assert_eq!(receivers(&w, group).1.len(), 2);
            group_says(&mut w, 0, GroupEvent::Remove { site_id: 2, group: group.parse().unwrap() });
            assert_eq!(receivers(&w, group), (vec![1], vec![rloc(f, 3).to_string()]));
        }
        // Whose RLOC is not known is not sent to; when it is, it is.
        adds(&mut w, 0, 7, GROUPS[0]);
        assert_eq!(receivers(&w, GROUPS[0]).1.len(), 1);
        member_says(&mut w, 0, MembershipEvent::Add { site_id: 7, rloc: rloc(f, 7).get() });
        assert_eq!(receivers(&w, GROUPS[0]).1.len(), 2);
        member_says(&mut w, 0, MembershipEvent::Remove { site_id: 3, rloc: rloc(f, 3).get() });
        assert_eq!(receivers(&w, GROUPS[0]).1, [rloc(f, 7).to_string()]);
        // A snapshot names who is left.
        member_says(&mut w, 0, MembershipEvent::RefreshBegin { request_id });
        member_says(&mut w, 0, MembershipEvent::Add { site_id: 2, rloc: rloc(f, 2).get() });
        adds(&mut w, 0, 2, GROUPS[1]);
        assert_eq!(receivers(&w, GROUPS[0]).1, [rloc(f, 7).to_string()], "not before its end");
        member_says(&mut w, 0, MembershipEvent::RefreshEnd { request_id });
        assert_eq!(receivers(&w, GROUPS[0]), (vec![1], vec![]));
        assert_eq!(receivers(&w, GROUPS[1]), (vec![1], vec![rloc(f, 2).to_string()]));
        // Another Oracle's word counts for nothing, nor do groups that are none.
        let unexpected = w.core.counters().unexpected_frames;
        adds(&mut w, 1, 2, GROUPS[0]);
        adds(&mut w, 0, 2, "224.0.0.5");
        adds(&mut w, 0, 2, "10.0.0.5");
        group_says(&mut w, 0, GroupEvent::Begin);
        assert_eq!(w.core.counters().unexpected_frames, unexpected + 4);
        assert_eq!(receivers(&w, GROUPS[0]), (vec![1], vec![]));
    }
}

#[test]
fn n9_a_new_session_is_told_all_before_the_end_of_registration() {
    let (mut w, _) = started(V4);
    joins(&mut w, 1, GROUPS[0]);
    adds(&mut w, 0, 2, GROUPS[0]);
    w.session(0, Session::Down);
    assert_eq!(told(&joins(&mut w, 1, GROUPS[1])), []);
    assert_eq!(receivers(&w, GROUPS[0]).1.len(), 1, "fail-static");
    let all = ["begin", "+239.1.2.3", "+ff15::1", "end"];
    let seen = w.session(0, Session::Up);
    assert_eq!(told(&seen), to_first(&all));
    let end = |s: &Seen| matches!(s, Seen::Heard(0, Heard::Group(_, GroupEvent::End)));
    assert!(position(&seen, end) < position(&seen, |s| matches!(s, Seen::Heard(0, Heard::End(_)))));
    // Once more when it knows for sure of the part in the VN.
    let frame = registered(&seen)[0].1;
    assert_eq!(told(&w.ack(0, frame, mac(1))), to_first(&all));
    // The other one is told as well, and of every change.
    let frame = registered(&w.session(1, Session::Up))[0].1;
    assert_eq!(told(&w.ack(1, frame, mac(1))).len(), 4);
    leaves(&mut w, 1, GROUPS[1]);
    let seen = pass(&mut w, Duration::from_secs(3));
    assert_eq!(told(&seen), [(0, "-ff15::1".to_owned()), (1, "-ff15::1".to_owned())]);
}

#[test]
fn a_restarted_agent_keeps_the_receivers_it_finds() {
    let (mut old, _) = started(V4);
    for group in GROUPS {
        joins(&mut old, 1, group);
        adds(&mut old, 0, 2, group);
    }
    let mut w = World::new(V4);
    w.core.remember(vec![spec()], Default::default(), &Default::default());
    w.core.restore(w.now, old.core.attachments(), &[device(1), device(2)]);
    w.core.adopt(w.now, vec![replicating()], &old.tables);
    w.seen();
    assert_eq!(w.tables.groups, old.tables.groups);
    let seen = w.session(0, Session::Up);
    assert_eq!(told(&seen), to_first(&["begin", "+239.1.2.3", "+ff15::1", "end"]));
    let frame = registered(&seen)[0].1;
    let request_id = subscribed(&w.ack(0, frame, mac(1)));
    member_says(&mut w, 0, MembershipEvent::RefreshBegin { request_id });
    member_says(&mut w, 0, MembershipEvent::Add { site_id: 2, rloc: rloc(V4, 2).get() });
    adds(&mut w, 0, 2, GROUPS[1]);
    member_says(&mut w, 0, MembershipEvent::RefreshEnd { request_id });
    assert_eq!(receivers(&w, GROUPS[0]), (vec![1], vec![]));
    assert_eq!(receivers(&w, GROUPS[1]), (vec![1], vec!["192.0.2.2".to_owned()]));
    // Asked who is still there; nobody answers.
    let seen = pass(&mut w, Duration::from_secs(270));
    assert!(queries(&seen).len() >= 8, "{:?}", queries(&seen));
    assert_eq!(receivers(&w, GROUPS[1]), (vec![], vec!["192.0.2.2".to_owned()]));
}
