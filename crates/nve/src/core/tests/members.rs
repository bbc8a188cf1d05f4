//! Requirement N9: the members of a VN as an Oracle tells them, and what the data plane is told of the VN.

use super::super::{Fact, Granted, Session};
use super::groups::pass;
use super::oracle::{self, Heard};
use super::world::*;
use ::core::net::IpAddr;
use ::core::time::Duration;
use std::collections::BTreeSet;
use weft_datapath::{Op, Tables, Vn};
use weft_lisp::tcp::{Body, Membership, MembershipEvent, Signal, SubscribeError};
use weft_model::{Bum, Learning, Rloc, VnSpec};

fn flooding() -> VnSpec {
    VnSpec { learning: Learning::Flood, ..spec() }
}

fn fact(w: &mut World, vn: VnSpec) -> Vec<Seen> {
    w.core.handle_fact(Fact::Vn(vn));
    w.seen()
}

fn says(w: &mut World, at: usize, event: MembershipEvent) -> Vec<Seen> {
    let frame = Body::Membership(Membership { eid_afi: 0, iid: VNI, event });
    w.hears(at, &oracle::frame(&frame, 1))
}

/// What the NVE said of membership: Oracle, frame ID, event.
fn heard(seen: &[Seen]) -> Vec<(usize, u32, MembershipEvent)> {
    let f = |s: &Seen| match s {
        Seen::Heard(oracle, Heard::Membership(id, vn, event)) => {
            assert_eq!(*vn, vni());
            Some((*oracle, *id, *event))
        }
        _ => None,
    };
    seen.iter().filter_map(f).collect()
}

#[track_caller]
fn subscribed(seen: &[Seen], at: usize) -> u32 {
    match heard(seen)[..] {
        [(oracle, id, MembershipEvent::Subscribe)] if oracle == at => id,
        _ => panic!("{seen:?}"),
    }
}

fn add(w: &mut World, at: usize, site_id: u64, rloc: Rloc) -> Vec<Seen> {
    says(w, at, MembershipEvent::Add { site_id, rloc: rloc.get() })
}

fn members(w: &World) -> Vec<String> {
    w.tables.vns[&vni()].members.iter().map(ToString::to_string).collect()
}

/// In a VN that floods, with a snapshot of NVEs 2 and 3.
fn flooded(f: Family) -> (World, u32) {
    let mut w = World::started(f, &["a"]);
    let request_id = subscribed(&fact(&mut w, flooding()), 0);
    says(&mut w, 0, MembershipEvent::SubscribeAck { subscribe_id: request_id });
    says(&mut w, 0, MembershipEvent::RefreshBegin { request_id });
    for n in [2, 3] {
        add(&mut w, 0, n.into(), rloc(V4, n));
        add(&mut w, 0, n.into(), rloc(V6, n));
    }
    assert_eq!(members(&w), [""; 0], "together");
    says(&mut w, 0, MembershipEvent::RefreshEnd { request_id });
    (w, request_id)
}

#[test]
fn n9_one_rloc_each_of_a_family_of_its_own() {
    for (f, expected) in [(V4, ["192.0.2.2", "192.0.2.3"]), (V6, ["2001:db8::2", "2001:db8::3"])] {
        let (mut w, _) = flooded(f);
        assert_eq!(members(&w), expected);
        let vn = Vn { learning: Learning::Flood, ..Vn::default() };
        assert_eq!(Vn { members: BTreeSet::new(), ..w.tables.vns[&vni()].clone() }, vn);
        // The one that was chosen goes: another of the same member is there, if any this NVE can send to.
        add(&mut w, 0, 2, rloc(f, 9));
        says(&mut w, 0, MembershipEvent::Remove { site_id: 2, rloc: rloc(f, 2).get() });
        assert_eq!(members(&w).len(), 2);
        says(&mut w, 0, MembershipEvent::Remove { site_id: 2, rloc: rloc(f, 9).get() });
        assert_eq!(members(&w), expected[1..]);
    }
    let both = |config: &mut super::super::Config| assert!(config.rlocs.insert(rloc(V6, 1)));
    let mut w = World::with(V4, both);
    w.session(0, Session::Up);
    w.attach_all(&["a"]);
    subscribed(&fact(&mut w, flooding()), 0);
    add(&mut w, 0, 2, rloc(V6, 2));
    assert_eq!(members(&w), ["2001:db8::2"]);
    add(&mut w, 0, 2, rloc(V4, 2));
    assert_eq!(members(&w), ["192.0.2.2"], "IPv4 before IPv6");
    add(&mut w, 0, 1, rloc(V4, 1));
    assert_eq!(members(&w).len(), 1, "never itself");
}

#[test]
fn n9_who_needs_no_members_does_not_subscribe() {
    let mut w = World::new(V4);
    w.session(0, Session::Up);
    let call = w.attach(attach("a", 1));
    w.seen();
    let seen = w.granted(call, grant("a", 1));
    assert!(seen.contains(&Seen::Op(Op::SetVn(vni(), Vn::default()))), "{seen:?}");
    let frame = registered(&seen)[0].1;
    assert_eq!(heard(&w.ack(0, frame, mac(1))), []);
    // Replication alone needs them too.
    let id = subscribed(&fact(&mut w, VnSpec { bum: Bum::Replicate, ..spec() }), 0);
    add(&mut w, 0, 2, rloc(V4, 2));
    assert_eq!(members(&w), ["192.0.2.2"]);
    let seen = fact(&mut w, spec());
    assert!(matches!(heard(&seen)[..], [(0, _, MembershipEvent::Unsubscribe)]), "{seen:?}");
    assert_eq!(w.tables.vns[&vni()], Vn::default());
    // What was under way then is not taken in.
    add(&mut w, 0, 3, rloc(V4, 3));
    says(&mut w, 0, MembershipEvent::RefreshEnd { request_id: id });
    assert_eq!(members(&w), [""; 0]);
}

#[test]
fn n9_subscribes_when_its_part_in_the_vn_is_acknowledged() {
    let mut w = World::new(V4);
    fact(&mut w, flooding());
    w.session(1, Session::Up);
    let call = w.attach(attach("a", 1));
    w.seen();
    let granted = super::super::Granted { grant: grant("a", 1), vn: flooding(), revision: 1, created: true };
    w.core.handle_granted(w.now, call, Ok(granted));
    let seen = w.seen();
    assert_eq!(heard(&seen), [], "an Oracle that does not know of the grant yet would refuse");
    let frame = registered(&seen)[0].1;
    subscribed(&w.ack(1, frame, mac(1)), 1);
    // Another one there changes nothing; the last one to leave ends it.
    let again = w.attach(attach("b", 2));
    w.seen();
    let granted = super::super::Granted { grant: grant("b", 2), vn: flooding(), revision: 2, created: true };
    w.core.handle_granted(w.now, again, Ok(granted));
    let frame = registered(&w.seen())[0].1;
    assert_eq!(heard(&w.ack(1, frame, mac(2))), []);
    for (n, tsi) in [(1, "a"), (2, "b")] {
        let call = w.call();
        w.core.handle_detach(call, red(), name(tsi), false);
        let (release, _) = releases(&w.seen())[0];
        w.core.handle_released(release, Ok(()));
        let seen = w.seen();
        assert_eq!(heard(&seen).len(), n - 1, "{seen:?}");
        assert_eq!(w.tables.vns.contains_key(&vni()), n == 1);
        assert_eq!(seen.contains(&Seen::Op(Op::RemoveVn(vni()))), n == 2);
    }
}

#[test]
fn n9_a_lost_session_loses_nobody_and_the_next_snapshot_says_who_is_left() {
    let (mut w, _) = flooded(V4);
    let lost = w.session(0, Session::Down);
    assert_eq!(heard(&lost), []);
    assert_eq!(members(&w).len(), 2, "fail-static");
    let frame = registered(&w.session(0, Session::Up))[0].1;
    let request_id = subscribed(&w.ack(0, frame, mac(1)), 0);
    says(&mut w, 0, MembershipEvent::RefreshBegin { request_id });
    add(&mut w, 0, 3, rloc(V4, 3));
    add(&mut w, 0, 4, rloc(V4, 4));
    assert_eq!(members(&w).len(), 2);
    // A snapshot that is long in coming does not keep those it named waiting.
    w.passes(Duration::from_millis(200));
    assert_eq!(members(&w), ["192.0.2.2", "192.0.2.3", "192.0.2.4"]);
    let old = request_id.wrapping_sub(1);
    says(&mut w, 0, MembershipEvent::RefreshEnd { request_id: old });
    assert_eq!(members(&w).len(), 3, "the end of another snapshot");
    says(&mut w, 0, MembershipEvent::RefreshEnd { request_id });
    assert_eq!(members(&w), ["192.0.2.3", "192.0.2.4"]);
}

#[test]
fn n9_the_other_oracle_takes_over() {
    let (mut w, _) = flooded(V4);
    let frame = registered(&w.session(1, Session::Up))[0].1;
    assert_eq!(heard(&w.ack(1, frame, mac(1))), [], "one is enough");
    subscribed(&w.session(0, Session::Down), 1);
    add(&mut w, 1, 5, rloc(V4, 5));
    assert_eq!(members(&w).len(), 3);
}

#[test]
fn n9_refused_is_tried_again_after_a_while() {
    let mut w = World::started(V4, &["a"]);
    let id = subscribed(&fact(&mut w, flooding()), 0);
    let error = SubscribeError::NotAuthorized;
    let seen = says(&mut w, 0, MembershipEvent::SubscribeNack { subscribe_id: id, error });
    assert_eq!(heard(&seen), []);
    assert_eq!(heard(&fact(&mut w, VnSpec { bum: Bum::Replicate, ..flooding() })), []);
    let later: Vec<Seen> = w.passes(Duration::from_secs(6)).into_iter().map(|(_, seen)| seen).collect();
    subscribed(&later, 0);
}

/// A push that ends by a change of the VN's mode ends by a refusal: what the new mode needs does not wait for that.
#[test]
fn l_another_mode_asks_at_once() {
    let mut w = World::started(V4, &["a"]);
    let seen = fact(&mut w, VnSpec { learning: Learning::Distribute, ..spec() });
    let asked = seen.iter().find_map(|s| match s {
        Seen::Heard(0, Heard::Mappings(id, Signal::SubscribeMappings { .. })) => Some(*id),
        _ => None,
    });
    let refused = Signal::MappingsRefused { vni: VNI, error: SubscribeError::NotEnabled };
    let seen = w.hears(0, &oracle::frame(&Body::Signal(refused), asked.unwrap()));
    assert_eq!(heard(&seen), []);
    assert!(w.core.provider(vni()).is_none(), "it is waited out");
    subscribed(&fact(&mut w, flooding()), 0);
}

#[test]
fn n9_members_kept_are_bounded() {
    let mut w = World::with(V4, |config| config.limits.members = 2);
    w.session(0, Session::Up);
    w.attach_all(&["a"]);
    fact(&mut w, flooding());
    for n in 2..9 {
        add(&mut w, 0, n.into(), rloc(V4, n));
    }
    assert_eq!(members(&w).len(), 2);
    assert_eq!(w.core.counters().members_full, 5);
    let bad: IpAddr = "224.0.0.1".parse().unwrap();
    says(&mut w, 0, MembershipEvent::Remove { site_id: 2, rloc: rloc(V4, 2).get() });
    says(&mut w, 0, MembershipEvent::Add { site_id: 2, rloc: bad });
    assert_eq!(members(&w).len(), 1);
}

#[test]
fn a_restarted_agent_keeps_the_members_it_finds() {
    let (old, _) = flooded(V4);
    let observed: Tables = old.tables.clone();
    let mut w = World::new(V4);
    w.core.remember(vec![spec()], Default::default(), &Default::default());
    w.core.restore(w.now, old.core.attachments(), &[device(1)]);
    w.core.adopt(w.now, vec![flooding()], &observed);
    w.seen();
    assert_eq!(w.tables.vns, observed.vns);
    let frame = registered(&w.session(0, Session::Up))[0].1;
    let request_id = subscribed(&w.ack(0, frame, mac(1)), 0);
    says(&mut w, 0, MembershipEvent::RefreshBegin { request_id });
    add(&mut w, 0, 3, rloc(V4, 3));
    says(&mut w, 0, MembershipEvent::RefreshEnd { request_id });
    assert_eq!(members(&w), ["192.0.2.3"]);
}

/// The announcements that go out behind `vap`: what each says, to whom.
fn announced(seen: &[Seen], vap: u32) -> Vec<(IpAddr, weft_model::MacAddr)> {
    let said = |s: &Seen| match s {
        Seen::Resend(at, frame) if at.0 == vap => {
            let ip: IpAddr = match frame[12..14] {
                [0x08, 0x06] => {
                    assert_eq!((&frame[20..22], &frame[28..32]), (&[0, 1][..], &frame[38..42]), "gratuitous");
                    <[u8; 4]>::try_from(&frame[28..32]).unwrap().into()
                }
                _ => {
                    assert_eq!((frame[54], frame[58] & 0x60), (136, 0x20), "unsolicited, and overrides");
                    <[u8; 16]>::try_from(&frame[62..78]).unwrap().into()
                }
            };
            assert_eq!(told(frame).0, mac(vap));
            Some((ip, told(frame).1))
        }
        _ => None,
    };
    seen.iter().filter_map(said).collect()
}

#[test]
fn v7_where_a_vn_floods_who_comes_into_service_is_announced_twice() {
    for f in BOTH {
        let (mut w, _) = flooded(f);
        let call = w.attach(attach("b", 2));
        w.seen();
        let granted = Granted { grant: grant("b", 2), vn: flooding(), revision: 10, created: true };
        w.core.handle_granted(w.now, call, Ok(granted));
        let seen = w.seen();
        let all = weft_model::MacAddr([0x33, 0x33, 0, 0, 0, 1]);
        let each = [(ip(V4, 2).get(), weft_model::MacAddr::BROADCAST), (ip(V6, 2).get(), all)];
        assert_eq!(announced(&seen, 2), [], "not before an Oracle's word");
        let heard =
            registered(&seen).into_iter().map(|(oracle, sent)| announced(&w.ack(oracle, sent, mac(2)), 2));
        assert_eq!(heard.flatten().collect::<Vec<_>>(), each);
        assert_eq!(announced(&pass(&mut w, Duration::from_millis(1_999)), 2), []);
        assert_eq!(
            announced(&pass(&mut w, Duration::from_millis(1)), 2),
            each,
            "once more (RFC 5227 section 2.3)"
        );
        assert_eq!(announced(&pass(&mut w, Duration::from_secs(9)), 2), []);
        // Another grant, a device that is back, a new session are no Activate.
        let mut more = grant("b", 2);
        more.ips.insert(ip(f, 77));
        assert_eq!(announced(&w.grants(11, vec![grant("a", 1), more]), 2), []);
        w.core.handle_device_gone(w.now, device(2).index);
        w.core.handle_device(&device(2));
        assert_eq!(announced(&w.seen(), 2), []);
        w.deactivate("b");
        w.seen();
        w.activate("b");
        let seen = w.seen();
        let heard =
            registered(&seen).into_iter().map(|(oracle, sent)| announced(&w.ack(oracle, sent, mac(2)), 2));
        assert_eq!(heard.flatten().count(), 3, "it is one, and has one address more");
        pass(&mut w, Duration::from_secs(1));
        w.deactivate("b");
        assert_eq!(announced(&pass(&mut w, Duration::from_secs(9)), 2), [], "it is not there any more");
    }
}

#[test]
fn v7_not_before_it_is_known_who_else_is_in_the_vn() {
    for learning in [Learning::Flood, Learning::Translate, Learning::Oracle] {
        let mut w = World::started(V6, &["a"]);
        w.deactivate("a");
        w.seen();
        fact(&mut w, VnSpec { learning, ..flooding() });
        w.activate("a");
        let seen = w.seen();
        assert_eq!(announced(&seen, 1), []);
        let (_, sent) = registered(&seen)[0];
        let seen = w.ack(0, sent, mac(1));
        if learning == Learning::Oracle {
            assert_eq!(announced(&seen, 1), []);
            continue;
        }
        let request_id = subscribed(&seen, 0);
        says(&mut w, 0, MembershipEvent::RefreshBegin { request_id });
        assert_eq!(announced(&add(&mut w, 0, 2, rloc(V6, 2)), 1), []);
        let seen = says(&mut w, 0, MembershipEvent::RefreshEnd { request_id });
        assert_eq!(announced(&seen, 1).len(), 2);
        let first = position(&seen, |s| matches!(s, Seen::Op(Op::SetVn(..))));
        assert!(first < position(&seen, |s| matches!(s, Seen::Resend(..))), "to whom is known");
    }
}

#[test]
fn v7_one_without_an_address_is_announced_by_its_mac() {
    let (mut w, _) = flooded(V4);
    let call = w.attach(attach("b", 2));
    w.seen();
    let grant = weft_model::Grant { ips: BTreeSet::new(), ..grant("b", 2) };
    w.core.handle_granted(w.now, call, Ok(Granted { grant, vn: flooding(), revision: 10, created: true }));
    let seen = w.seen();
    let heard: Vec<Seen> =
        registered(&seen).into_iter().flat_map(|(oracle, sent)| w.ack(oracle, sent, mac(2))).collect();
    let said: Vec<_> = heard
        .into_iter()
        .filter_map(|s| if let Seen::Resend(vap, frame) = s { Some((vap.0, frame)) } else { None })
        .collect();
    let [(2, frame)] = &said[..] else { panic!("{said:?}") };
    assert_eq!((&frame[..6], &frame[6..12], frame.len()), (&[0xff; 6][..], &mac(2).octets()[..], 60));
    assert_eq!(frame[12..22], [0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
    assert_eq!((&frame[22..28], &frame[32..38]), (&mac(2).octets()[..], &mac(2).octets()[..]));
}
