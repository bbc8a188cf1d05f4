//! VN_Connect and VN_Disconnect: requirements H1, H5 and N6.

use super::super::{ApiCall, CallId, Fact, Refused, Session};
use super::world::*;
use std::collections::BTreeMap;
use weft_model::VnSpec;

fn connect(w: &mut World) -> (CallId, Vec<Seen>) {
    let call = w.call();
    w.core.handle_connect(call, red());
    (call, w.seen())
}

fn refused(code: &str) -> Refused {
    Refused::Oracle { code: code.to_owned(), message: "no".to_owned() }
}

fn connected() -> World {
    let mut w = World::started(V4, &[]);
    let (call, seen) = connect(&mut w);
    assert_eq!(seen, [Seen::Call(ApiCall::Connect { call: Some(call), vn: red() })]);
    w.core.handle_connected(w.now, Some(call), &red(), Ok(spec()));
    assert!(w.seen().contains(&Seen::Connected(call, Ok(vni()))));
    w
}

#[test]
fn h1_a_vn_is_known_without_a_tenant_system() {
    let mut w = connected();
    assert_eq!(w.core.vn_name(vni()), Some(&red()));
    assert_eq!(w.core.vn_connections(), &BTreeMap::from([(vni(), red())]));
    // Once more it is so already.
    let (call, seen) = connect(&mut w);
    assert_eq!(seen, [Seen::Connected(call, Ok(vni()))]);
    // The last tenant system that leaves takes nothing of it along.
    w.attached("a", 1);
    w.core.handle_detach(CallId(99), red(), name("a"), true);
    w.seen();
    assert_eq!(w.core.vn_name(vni()), Some(&red()));
}

#[test]
fn h1_what_the_oracle_refuses_changes_nothing() {
    let mut w = World::started(V6, &[]);
    w.core.handle_connections(Ok(BTreeMap::new()));
    let before = w.core.clone();
    let (call, _) = connect(&mut w);
    w.core.handle_connected(w.now, Some(call), &red(), Err(refused("out_of_scope")));
    assert_eq!(w.seen(), [Seen::Connected(call, Err(refused("out_of_scope")))]);
    assert_eq!(w.core, before);
}

#[test]
fn h5_disconnected_once_nothing_of_it_is_here() {
    let mut w = connected();
    w.attached("a", 1);
    let disconnect = |w: &mut World| {
        let call = w.call();
        w.core.handle_disconnect(call, red());
        (call, w.seen())
    };
    let (call, seen) = disconnect(&mut w);
    let in_use = Refused::VnInUse { vn: red(), tsis: vec![name("a")] };
    assert_eq!(seen, [Seen::Disconnected(call, Err(in_use.clone()))]);
    assert_eq!(in_use.to_string(), "VN 'red' has interfaces here: a; detach them first");
    w.core.handle_detach(CallId(99), red(), name("a"), true);
    w.seen();
    let (call, seen) = disconnect(&mut w);
    assert_eq!(seen, [Seen::Call(ApiCall::Disconnect { call, vn: red() })]);
    w.core.handle_disconnected(call, Err(refused("not_found")));
    assert!(w.seen().contains(&Seen::Disconnected(call, Ok(()))), "gone is what was asked for");
    assert_eq!((w.core.vn_name(vni()), w.core.vn_connections().len()), (None, 0));
    let (call, seen) = disconnect(&mut w);
    assert_eq!(seen, [Seen::Disconnected(call, Err(Refused::NotConnected { vn: red() }))]);
}

#[test]
fn h6_what_is_deleted_is_told() {
    let mut w = connected();
    w.core.handle_fact(Fact::VnGone(vni()));
    assert!(w.seen().contains(&Seen::VnDisconnected(red())));
    assert_eq!((w.core.vn_name(vni()), w.core.vn_connections().len()), (None, 0));
    // Also what was deleted while nobody listened; not because an Oracle does not answer, and only once.
    for (answer, ends) in [
        (Err(refused("not_found")), true),
        (Err(refused("revoked")), true),
        (Err(refused("store_failed")), false),
        (Err(refused("internal")), false),
        (Ok(VnSpec { vni: weft_model::Vni::new(8).unwrap(), ..spec() }), true),
        (Err(Refused::Unanswered { message: "nobody".to_owned() }), false),
        (Ok(spec()), false),
    ] {
        let old = connected();
        let mut w = World::new(V4);
        w.core.restore(w.now, Vec::new(), &[]);
        w.core.reconnect(old.core.vn_connections().clone());
        w.core.adopt(w.now, vec![spec()], &Default::default());
        w.seen();
        assert_eq!(w.core.vn_name(vni()), Some(&red()));
        let seen = w.session(0, Session::Up);
        assert!(seen.contains(&Seen::Call(ApiCall::Connections)), "{seen:?}");
        w.core.handle_connections(Ok(BTreeMap::new()));
        assert_eq!(w.seen(), [Seen::Call(ApiCall::Connect { call: None, vn: red() })]);
        w.core.handle_connected(w.now, None, &red(), answer);
        assert_eq!(w.seen().contains(&Seen::VnDisconnected(red())), ends);
        assert_eq!(w.core.vn_connections().is_empty(), ends);
    }
}

/// What one client ends another one is not told to be there.
#[test]
fn h5_one_at_a_time_of_a_vn() {
    let mut w = connected();
    let (end, again) = (w.call(), w.call());
    w.core.handle_disconnect(end, red());
    w.seen();
    w.core.handle_connect(again, red());
    assert_eq!(w.seen(), [Seen::Connected(again, Err(Refused::VnBusy { vn: red() }))]);
    // The watch may say so before the answer is there: that is no news to anybody.
    w.core.handle_fact(Fact::VnGone(vni()));
    assert!(!w.seen().contains(&Seen::VnDisconnected(red())));
    w.core.handle_disconnected(end, Ok(()));
    assert_eq!(w.seen(), [Seen::Disconnected(end, Ok(()))]);
}

/// With each session it is asked once which connections there are, whatever there is here.
#[test]
fn h5_what_only_the_oracle_knows_is_ended() {
    let mut w = World::started(V6, &[]);
    w.core.handle_connections(Ok(BTreeMap::new()));
    w.session(0, Session::Down);
    let asks = |seen: &[Seen]| seen.iter().filter(|s| **s == Seen::Call(ApiCall::Connections)).count();
    assert_eq!(asks(&w.session(0, Session::Up)), 1);
    w.session(0, Session::Down);
    assert_eq!(asks(&w.session(0, Session::Up)), 0, "it is under way");
    // What comes of that is of the session before, whatever it says.
    for answer in [Err(Refused::Unanswered { message: "nobody".to_owned() }), Ok([(vni(), red())].into())] {
        w.core.handle_connections(answer);
        assert_eq!(w.seen(), [Seen::Call(ApiCall::Connections)]);
        w.session(0, Session::Down);
        w.session(0, Session::Up);
    }
    w.core.handle_connections(Ok(BTreeMap::new()));
    w.seen();
    w.core.handle_connections(Ok([(vni(), red())].into()));
    let seen = w.seen();
    let [Seen::Call(ApiCall::Disconnect { call: end, vn })] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!(*vn, red());
    // Who asks for it at this moment is not answered by what that does.
    let call = w.call();
    w.core.handle_connect(call, red());
    assert_eq!(w.seen(), [Seen::Connected(call, Err(Refused::VnBusy { vn: red() }))]);
    w.core.handle_disconnected(*end, Ok(()));
    w.seen();
    // Who asks for it now has it; what is under way is not touched.
    let (call, _) = connect(&mut w);
    w.core.handle_connections(Ok([(vni(), red())].into()));
    assert_eq!(w.seen(), []);
    w.core.handle_connected(w.now, Some(call), &red(), Ok(spec()));
    w.seen();
    w.core.handle_connections(Ok([(vni(), red())].into()));
    assert_eq!(w.seen(), []);
    // An NVE that is removed has none any more.
    w.core.handle_connections(Err(refused("revoked")));
    assert_eq!(w.seen(), [Seen::Call(ApiCall::Connect { call: None, vn: red() })]);
    w.core.handle_connections(Err(Refused::Unanswered { message: "nobody".to_owned() }));
    assert_eq!(w.seen(), []);
    // A list that was read before something changed here says nothing of it.
    w.session(0, Session::Down);
    assert_eq!(asks(&w.session(0, Session::Up)), 1);
    let end = w.call();
    w.core.handle_disconnect(end, red());
    w.core.handle_disconnected(end, Ok(()));
    w.seen();
    w.core.handle_connections(Ok([(vni(), red())].into()));
    assert_eq!(w.seen(), [Seen::Call(ApiCall::Connections)]);
}

#[test]
fn h1_what_a_list_does_not_name_is_asked_about() {
    let mut w = connected();
    w.core.handle_fact(Fact::VnsListed([vni()].into()));
    assert_eq!(w.seen(), []);
    w.core.handle_fact(Fact::VnsListed(Default::default()));
    assert_eq!(w.seen(), [Seen::Call(ApiCall::Connect { call: None, vn: red() })]);
    // Until that is answered it has been ended here: the Oracle is not left with it.
    let call = w.call();
    w.core.handle_disconnect(call, red());
    w.core.handle_disconnected(call, Ok(()));
    w.seen();
    w.core.handle_connected(w.now, None, &red(), Ok(spec()));
    assert!(matches!(&w.seen()[..], [Seen::Call(ApiCall::Disconnect { .. })]));
    assert!(w.core.vn_connections().is_empty());
}
