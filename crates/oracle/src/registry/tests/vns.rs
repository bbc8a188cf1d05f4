//! VNs: their names, numbers and subnets, and who is their gateway.

use super::*;

#[test]
fn vns() {
    let r = memory();
    let (red, _) = block(r.create_vn(new_vn("red", Some(7), &["10.0.0.0/24"]))).unwrap();
    assert_eq!(red.vni.get(), 7);
    let taken = block(r.create_vn(new_vn("red", Some(8), &[]))).unwrap_err();
    assert_eq!(taken.to_string(), "a VN 'red' exists already (VNID 7); choose another name");
    assert!(
        matches!(block(r.create_vn(new_vn("blue", Some(7), &[]))), Err(RegistryError::VniTaken { holder, .. }) if holder == n("red"))
    );
    let (a, _) = block(r.create_vn(new_vn("a", None, &[]))).unwrap();
    let (b, _) = block(r.create_vn(new_vn("b", None, &[]))).unwrap();
    assert_eq!((a.vni.get(), b.vni.get()), (4097, 4098));
    block(r.delete_vn(n("b"))).unwrap();
    assert_eq!(block(r.create_vn(new_vn("c", None, &[]))).unwrap().0.vni.get(), 4099, "a VNID rests");
    for net in ["fe80::/64", "169.254.0.0/16"] {
        let refused = block(r.create_vn(new_vn("ll", None, &[net])));
        assert!(matches!(refused, Err(RegistryError::LinkLocalSubnet(n)) if n.to_string() == net));
    }
    let mut both = new_vn("f", None, &[]);
    (both.learning, both.reply) = (weft_model::Learning::Distribute, weft_model::Reply::Forward);
    assert!(matches!(block(r.create_vn(both)), Err(RegistryError::PushForward)));
    assert!(matches!(block(r.delete_vn(n("none"))), Err(RegistryError::NoVn(_))));

    let x = enrol(&r, 1);
    for tsi in ["web1", "web2", "web3", "web4"] {
        block(r.grant(wish("red", tsi, x, &[]))).unwrap();
    }
    let in_use = block(r.delete_vn(n("red"))).unwrap_err();
    assert_eq!(
        in_use.to_string(),
        "VN 'red' has 4 tenant systems in it (web1, web2, web3, ...); detach them first"
    );
}

/// A VN's gateway is an NVE that may have a part in it, when it is named; what became of it since stops nothing else.
#[test]
fn a_gateway_is_an_nve_of_the_vns_scope() {
    let r = memory();
    block(r.create_vn(new_vn("red", None, &[]))).unwrap();
    block(r.create_vn(new_vn("blue", None, &[]))).unwrap();
    enrol(&r, 1);
    let scope = NewToken { vns: Some(vec![n("blue")]), ..NewToken::default() };
    block(r.create_token(scope, "narrow", 0)).unwrap();
    block(r.join(enrolment("narrow", 2), 1, sign(1))).unwrap();
    block(r.create_xtr(new_xtr("old", 3, "correct horse", "192.0.2.3"), XtrId([3; 16]))).unwrap();
    let set = |vn: &str, miss, gateway: Option<&str>| {
        let gateway = gateway.map(|name| Some(name.parse().unwrap()));
        block(r.change_vn(n(vn), VnChange { miss, gateway, ..VnChange::default() })).map(|(vn, _)| vn)
    };
    let carried = Some(Miss::Gateway);
    assert_eq!(set("red", carried, None), Err(RegistryError::NoGateway(n("red"))));
    assert_eq!(set("red", carried, Some("nobody")), Err(RegistryError::NoNve(n("nobody"))));
    assert_eq!(set("red", carried, Some("old")), Err(RegistryError::NoNve(n("old"))), "a plain xTR");
    assert!(matches!(set("red", carried, Some("nve2")), Err(RegistryError::OutOfScope { .. })));
    assert_eq!(set("blue", carried, Some("nve2")).unwrap().gateway, Some(n("nve2")));
    assert_eq!(set("red", carried, Some("nve1")).unwrap().miss, Miss::Gateway);
    let mut new = new_vn("green", None, &[]);
    new.miss = Miss::Gateway;
    assert_eq!(block(r.create_vn(new.clone())).map(|_| ()), Err(RegistryError::NoGateway(n("green"))));
    new.gateway = Some(n("nve1"));
    block(r.create_vn(new)).unwrap();
    // Where nothing waits for an answer: whichever of the two is changed.
    let learn = |learning| VnChange { learning: Some(learning), ..VnChange::default() };
    for learning in [Learning::Flood, Learning::Translate] {
        let refused = Err(RegistryError::NothingToCarry(n("red")));
        assert_eq!(block(r.change_vn(n("red"), learn(learning))).map(|_| ()), refused);
        let mut both = new_vn("both", None, &[]);
        (both.learning, both.miss, both.gateway) = (learning, Miss::Gateway, Some(n("nve1")));
        let refused = Err(RegistryError::NothingToCarry(n("both")));
        assert_eq!(block(r.create_vn(both)).map(|_| ()), refused);
    }
    block(r.change_vn(n("red"), learn(Learning::Distribute))).unwrap();
    // None any more, once it is not needed.
    let none = |miss| VnChange { miss, gateway: Some(None), ..VnChange::default() };
    let refused = Err(RegistryError::NoGateway(n("blue")));
    assert_eq!(block(r.change_vn(n("blue"), none(None))).map(|_| ()), refused);
    assert_eq!(block(r.change_vn(n("blue"), none(Some(Miss::Drop)))).unwrap().0.gateway, None);
    // A gateway is not removed by accident.
    let refused = block(r.remove_nve(n("nve1"), false)).unwrap_err();
    assert_eq!(refused, RegistryError::IsGateway { nve: n("nve1"), vns: vec![n("green"), n("red")] });
    assert!(refused.to_string().contains("'green', 'red'"), "{refused}");
    block(r.remove_nve(n("nve1"), true)).unwrap();
    let now = set("red", None, None).unwrap();
    assert_eq!((now.gateway, now.miss), (None, Miss::Queue));
    assert_eq!(set("red", carried, Some("nve1")), Err(RegistryError::NoNve(n("nve1"))));
}
