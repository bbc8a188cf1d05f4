//! Tunnel policies: of a VN and of a tenant system, and that they stay with it.

use super::*;
use weft_api::TunnelChange;
use weft_model::TunnelPolicy;

fn change(text: &str) -> TunnelChange {
    serde_json::from_str(text).unwrap()
}

fn policy(text: &str) -> TunnelPolicy {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_policy_is_changed_in_parts_and_moves_along() {
    let r = memory();
    let (owner, other) = (enrol(&r, 1), enrol(&r, 2));
    block(r.create_vn(new_vn("red", None, &["10.0.0.0/24"]))).unwrap();
    let vn = |text| {
        let tunnel = Some(change(text));
        block(r.change_vn(n("red"), VnChange { tunnel, ..VnChange::default() })).unwrap()
    };
    let (spec, first) = vn(r#"{"ttl":9,"dscp":"copy"}"#);
    assert_eq!(spec.tunnel, policy(r#"{"ttl":9,"dscp":"copy"}"#));
    assert_eq!(vn(r#"{"ttl":9}"#).1, first, "the same again is no news");
    assert_eq!(
        vn(r#"{"ttl":null,"send_rate":"1mbit"}"#).0.tunnel,
        policy(r#"{"dscp":"copy","send_rate":"1mbit"}"#)
    );
    let other_change = VnChange { bum: Some(weft_model::Bum::Replicate), ..VnChange::default() };
    assert!(!block(r.change_vn(n("red"), other_change)).unwrap().0.tunnel.is_empty());

    block(r.grant(wish("red", "web", owner, &[]))).unwrap();
    let tsi = |text| block(r.change_tunnel(n("red"), n("web"), change(text))).unwrap();
    let (view, first) = tsi(r#"{"send_rate":"unlimited","ports":"50000-50999"}"#);
    let own = policy(r#"{"send_rate":"unlimited","ports":"50000-50999"}"#);
    assert_eq!((view.grant.tunnel, tsi("{}").1), (own, first));
    // Not even in two steps: its VN's and its own together.
    vn(r#"{"ipv4_priority":255}"#);
    let error = block(r.change_tunnel(n("red"), n("web"), change(r#"{"ipv6_priority":255}"#))).unwrap_err();
    assert!(error.to_string().contains("no RLOC is left to send to"), "{error}");
    let none = VnChange { tunnel: Some(change(r#"{"ipv6_priority":255}"#)), ..VnChange::default() };
    assert_eq!(block(r.change_vn(n("red"), none)).unwrap_err(), error);
    // Nor the other way round.
    vn(r#"{"ipv4_priority":null}"#);
    tsi(r#"{"ipv6_priority":255}"#);
    let none = VnChange { tunnel: Some(change(r#"{"ipv4_priority":255}"#)), ..VnChange::default() };
    let error = block(r.change_vn(n("red"), none)).unwrap_err().to_string();
    assert!(error.contains("no RLOC is left to send to 'web' in VN 'red'"), "{error}");
    tsi(r#"{"ipv6_priority":null}"#);
    let error = block(r.change_tunnel(n("red"), n("db"), change("{}"))).unwrap_err().to_string();
    assert!(error.contains("no tenant system 'db'"), "{error}");
    // Attached once more, moved, and taken over, it is the same.
    assert_eq!(block(r.grant(wish("red", "web", owner, &[]))).unwrap().0.view.grant.tunnel, own);
    block(r.name_next(n("red"), n("web"), n("nve2"), Caller::Operator)).unwrap();
    let taken =
        block(r.take_over(n("red"), n("web"), n("nve2"), Caller::Operator, |_| Presence::Gone)).unwrap().0;
    assert_eq!((taken.grant.owner, taken.grant.tunnel), (other, own));
}

/// What stores of earlier versions hold has none.
#[test]
fn what_was_written_before_there_were_any_is_read() {
    let spec: weft_model::VnSpec = serde_json::from_str(r#"{"name":"red","vni":7}"#).unwrap();
    assert!(spec.tunnel.is_empty() && !serde_json::to_string(&spec).unwrap().contains("tunnel"));
    let r = memory();
    let owner = enrol(&r, 1);
    block(r.create_vn(new_vn("red", None, &["10.0.0.0/24"]))).unwrap();
    let grant = block(r.grant(wish("red", "web", owner, &[]))).unwrap().0.view.grant;
    let text = serde_json::to_string(&grant).unwrap();
    assert!(!text.contains("tunnel"), "{text}");
    assert_eq!(serde_json::from_str::<weft_model::Grant>(&text).unwrap(), grant);
}
