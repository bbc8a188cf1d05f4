//! Operations one by one, and any sequence of them against a model, across crashes.

mod groups;
mod moves;
mod tunnels;

use super::*;
use crate::pki::{NVE_TTL_S, PkiError, Signed};
use crate::store::{MemoryStore, RedbStore};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};
use weft_api::{NewToken, NewVn, NewXtr, VnChange};
use weft_model::{Epoch, Learning, Miss, NveName, Subnets, TenantIp, TsiName, VnName, XtrId};

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn memory() -> Registry {
    Registry::new(Arc::new(MemoryStore::new(64)))
}

fn n(name: &str) -> VnName {
    VnName::new(name).unwrap()
}

fn new_vn(name: &str, vni: Option<u32>, subnets: &[&str]) -> NewVn {
    let nets = subnets.iter().map(|s| s.parse().unwrap()).collect();
    NewVn {
        name: n(name),
        vni: vni.map(|v| v.try_into().unwrap()),
        subnets: Subnets::new(nets).unwrap(),
        learning: Default::default(),
        reply: Default::default(),
        bum: Default::default(),
        storm: Default::default(),
        miss: Default::default(),
        gateway: None,
    }
}

fn enrol(r: &Registry, id: u8) -> XtrId {
    let secret = format!("secret{id}");
    block(r.create_token(NewToken::default(), &secret, 0)).unwrap();
    let wish = enrolment(&secret, id);
    block(r.join(wish, 1, sign(1))).unwrap().xtr_id
}

/// A certificate that says whose it is and when it was made.
fn sign(now: u64) -> impl Fn(XtrId) -> Result<Signed, PkiError> + Send + 'static {
    move |id| Ok(Signed { certificate: format!("{id} at {now}"), expires_at: now + NVE_TTL_S })
}

fn enrolment(secret: &str, id: u8) -> Enrolment {
    Enrolment {
        secret: secret.into(),
        csr: format!("csr{id}"),
        name: NveName::new(format!("nve{id}")).unwrap(),
        rlocs: BTreeSet::from([format!("192.0.2.{id}").parse().unwrap()]),
        xtr_id: XtrId([id; 16]),
    }
}

fn wish(vn: &str, tsi: &str, owner: XtrId, ips: &[&str]) -> Wish {
    Wish {
        vn: n(vn),
        tsi: n(tsi),
        mac: None,
        ips: ips.iter().map(|i| i.parse().unwrap()).collect(),
        groups: BTreeSet::new(),
        owner,
        start: None,
    }
}

fn nve(id: u8) -> Caller {
    Caller::Nve { xtr_id: XtrId([id; 16]), name: NveName::new(format!("nve{id}")).unwrap(), start: None }
}

fn texts(ips: &BTreeSet<TenantIp>) -> Vec<String> {
    ips.iter().map(ToString::to_string).collect()
}

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

#[test]
fn grants() {
    let r = memory();
    let (x, y) = (enrol(&r, 1), enrol(&r, 2));
    block(r.create_vn(new_vn("red", None, &["10.0.0.0/29", "fd00::/64"]))).unwrap();
    let (first, _) = block(r.grant(wish("red", "web1", x, &[]))).unwrap();
    let g = &first.view.grant;
    assert_eq!(texts(&g.ips), ["10.0.0.1", "fd00::1"]);
    assert_eq!((g.mac.octets()[0], g.epoch, g.owner, first.created), (2, Epoch::FIRST, x, true));

    // Again: the same grant. With what it has not, or by another: refused, naming the holder.
    let (again, _) = block(r.grant(wish("red", "web1", x, &["10.0.0.1"]))).unwrap();
    assert_eq!((&again.view, again.created), (&first.view, false));
    assert!(matches!(
        block(r.grant(wish("red", "web1", x, &["10.0.0.2"]))),
        Err(RegistryError::IpMismatch { .. })
    ));
    let elsewhere = block(r.grant(wish("red", "web1", y, &[]))).unwrap_err();
    assert!(elsewhere.to_string().contains("granted to NVE 'nve1' (epoch 1)"), "{elsewhere}");
    let taken = block(r.grant(wish("red", "web2", y, &["10.0.0.1"]))).unwrap_err();
    assert_eq!(
        taken.to_string(),
        "address 10.0.0.1 in VN 'red' belongs to 'web1' on NVE 'nve1'; choose another or none"
    );
    let mut same_mac = wish("red", "web2", y, &[]);
    same_mac.mac = Some(g.mac);
    assert!(
        matches!(block(r.grant(same_mac)), Err(RegistryError::MacTaken { holder, .. }) if holder == n("web1"))
    );

    // Named of one family: the other is assigned. Outside, network, broadcast: refused.
    let (second, _) = block(r.grant(wish("red", "web2", y, &["10.0.0.6"]))).unwrap();
    assert_eq!(texts(&second.view.grant.ips), ["10.0.0.6", "fd00::2"]);
    for bad in ["10.0.0.0", "10.0.0.7", "10.0.1.1", "fd00::", "fd01::1"] {
        let refused = block(r.grant(wish("red", "web3", y, &[bad])));
        assert!(matches!(refused, Err(RegistryError::OutsideSubnets { .. })), "{bad}");
    }

    // Full, and the failed attempt took nothing.
    for tsi in ["a", "b", "c", "d"] {
        block(r.grant(wish("red", tsi, x, &[]))).unwrap();
    }
    let full = block(r.grant(wish("red", "e", x, &[]))).unwrap_err();
    assert!(matches!(full, RegistryError::SubnetFull { .. }));
    let (v6, _) = block(r.release(n("red"), n("d"), nve(1), false)).unwrap();
    let Released::Freed(v6) = v6 else { panic!("{v6:?}") };
    assert_eq!(texts(&v6.grant.ips), ["10.0.0.5", "fd00::6"]);
    let (e, _) = block(r.grant(wish("red", "e", x, &[]))).unwrap();
    assert_eq!(texts(&e.view.grant.ips), ["10.0.0.5", "fd00::7"]);
    assert_eq!(e.view.grant.epoch.get(), 2, "the floor rose with the release");

    // Release: by the owner, or by an operator on purpose.
    assert!(matches!(
        block(r.release(n("red"), n("e"), nve(2), false)),
        Err(RegistryError::GrantedElsewhere { .. })
    ));
    assert!(matches!(
        block(r.release(n("red"), n("e"), Caller::Operator, false)),
        Err(RegistryError::Forbidden(_))
    ));
    block(r.release(n("red"), n("e"), Caller::Operator, true)).unwrap();
    assert!(matches!(block(r.release(n("red"), n("e"), nve(1), false)), Err(RegistryError::NoTsi { .. })));

    // The same name gets the same MAC again.
    let mac = e.view.grant.mac;
    assert_eq!(block(r.grant(wish("red", "e", y, &[]))).unwrap().0.view.grant.mac, mac);
}

#[test]
fn more_addresses() {
    let r = memory();
    let x = enrol(&r, 1);
    block(r.create_vn(new_vn("red", None, &["fd00::/64"]))).unwrap();
    block(r.grant(wish("red", "web1", x, &[]))).unwrap();
    block(r.grant(wish("red", "web2", x, &[]))).unwrap();
    let take = |tsi: &str, ip: &str, who| block(r.take_address(n("red"), n(tsi), ip.parse().unwrap(), who));
    let (got, revision) = take("web1", "fe80::1", nve(1)).unwrap();
    assert_eq!(texts(&got.view.grant.ips), ["fd00::1", "fe80::1"]);
    assert_eq!(take("web1", "fe80::1", nve(1)).unwrap().1, revision, "again changes nothing");
    assert!(
        matches!(take("web2", "fe80::1", nve(1)), Err(RegistryError::AddressTaken { holder, .. }) if holder == n("web1"))
    );
    take("web1", "fe80::2", nve(1)).unwrap();
    assert!(matches!(take("web1", "fe80::3", nve(1)), Err(RegistryError::TooManyAddresses { max: 2, .. })));
    assert!(matches!(take("web1", "fd01::1", nve(1)), Err(RegistryError::OutsideSubnets { .. })));
    assert!(matches!(take("web1", "fd00::9", nve(2)), Err(RegistryError::GrantedElsewhere { .. })));
    assert!(matches!(take("web9", "fd00::9", nve(1)), Err(RegistryError::NoTsi { .. })));
    // Taken by name, so never handed out.
    take("web1", "fd00::3", nve(1)).unwrap();
    let (third, _) = block(r.grant(wish("red", "web3", x, &[]))).unwrap();
    assert_eq!(texts(&third.view.grant.ips), ["fd00::4"]);
    // A link-local address alone does not stand for the family.
    let (fourth, _) = block(r.grant(wish("red", "web4", x, &["fe80::4"]))).unwrap();
    assert_eq!(texts(&fourth.view.grant.ips), ["fd00::5", "fe80::4"]);
}

#[test]
fn addresses_are_changed_as_one_or_not_at_all() {
    let r = memory();
    let x = enrol(&r, 1);
    block(r.create_vn(new_vn("red", None, &["10.0.0.0/29", "fd00::/64"]))).unwrap();
    let (first, _) = block(r.grant(wish("red", "web1", x, &[]))).unwrap();
    block(r.grant(wish("red", "web2", x, &["10.0.0.5", "fd00::5"]))).unwrap();
    assert_eq!(texts(&first.view.grant.ips), ["10.0.0.1", "fd00::1"]);
    let ips = |all: &[&str]| all.iter().map(|ip| ip.parse().unwrap()).collect::<BTreeSet<TenantIp>>();
    let change = |add: &[&str], remove: &[&str], who| {
        let change = weft_api::ChangeAddresses { add: ips(add), remove: ips(remove) };
        block(r.change_addresses(n("red"), n("web1"), change, who))
    };
    let now = || {
        let (granted, revision) = block(r.grant(wish("red", "web1", x, &[]))).unwrap();
        (texts(&granted.view.grant.ips), revision)
    };
    let before = now();
    assert!(matches!(
        change(&["10.0.0.6", "fd00::5"], &["10.0.0.1"], nve(1)),
        Err(RegistryError::AddressTaken { .. })
    ));
    assert!(matches!(
        change(&["10.0.0.6", "10.1.0.1"], &[], nve(1)),
        Err(RegistryError::OutsideSubnets { .. })
    ));
    let three = ["fe80::1", "fe80::2", "fe80::3"];
    assert!(matches!(change(&three, &["10.0.0.1"], nve(1)), Err(RegistryError::TooManyAddresses { .. })));
    assert!(matches!(change(&["10.0.0.6"], &[], nve(2)), Err(RegistryError::GrantedElsewhere { .. })));
    // What is so already changes nothing.
    change(&["10.0.0.1"], &["fd00::9"], nve(1)).unwrap();
    assert_eq!(now(), before);
    change(&["10.0.0.6", "fd00::6"], &["10.0.0.1", "fd00::1", "fd00::9"], nve(1)).unwrap();
    assert_eq!(now().0, ["10.0.0.6", "fd00::6"]);
    // What was given back is free, and what was taken is not.
    let (third, _) = block(r.grant(wish("red", "web3", x, &["10.0.0.1", "fd00::1"]))).unwrap();
    assert_eq!(texts(&third.view.grant.ips), ["10.0.0.1", "fd00::1"]);
    assert!(matches!(
        block(r.grant(wish("red", "web4", x, &["fd00::6"]))),
        Err(RegistryError::AddressTaken { .. })
    ));
    // An operator may; and a tenant system may have none at all.
    change(&[], &["10.0.0.6", "fd00::6"], Caller::Operator).unwrap();
    assert_eq!(
        block(r.take_address(n("red"), n("web1"), "10.0.0.6".parse().unwrap(), nve(1)))
            .unwrap()
            .0
            .view
            .grant
            .ips
            .len(),
        1
    );
}

#[test]
fn a_join_asked_again_is_answered_with_what_holds_then() {
    let r = memory();
    let rlocs = |all: &[&str]| all.iter().map(|r| r.parse().unwrap()).collect::<BTreeSet<weft_model::Rloc>>();
    let allowed = Some(rlocs(&["192.0.2.1", "192.0.2.2", "2001:db8::1"]));
    let long = NewToken { ttl_s: 30 * 86_400, rlocs: allowed, ..NewToken::default() };
    block(r.create_token(long, "s", 0)).unwrap();
    enrol(&r, 2);
    let mut wish = enrolment("s", 1);
    let first = block(r.join(wish.clone(), 1, sign(1))).unwrap();
    assert_eq!(first.rlocs, wish.rlocs);

    // Its host got other addresses before it asked again.
    wish.rlocs = rlocs(&["2001:db8::1"]);
    let second = block(r.join(wish.clone(), 2, sign(2))).unwrap();
    assert_eq!(second, Joined { rlocs: wish.rlocs.clone(), ..first.clone() });
    let nve = || nves::find(&*r.snapshot().unwrap(), first.xtr_id).unwrap().unwrap();
    assert_eq!(nve().rlocs, wish.rlocs);
    for (bad, rloc) in [("192.0.2.2", "taken"), ("192.0.2.3", "not allowed")] {
        wish.rlocs = rlocs(&[bad]);
        let error = block(r.join(wish.clone(), 3, sign(3))).unwrap_err();
        let right = match rloc {
            "taken" => matches!(error, RegistryError::RlocTaken { .. }),
            _ => matches!(error, RegistryError::TokenRloc(_)),
        };
        assert!(right, "{error}");
    }
    wish.rlocs.clear();
    assert_eq!(block(r.join(wish.clone(), 3, sign(3))), Err(RegistryError::NoRloc));
    assert_eq!(nve().rlocs, second.rlocs, "nothing was changed");
    // The address it left is free.
    block(r.create_token(NewToken::default(), "t", 0)).unwrap();
    let third = Enrolment { rlocs: rlocs(&["192.0.2.1"]), ..enrolment("t", 3) };
    block(r.join(third, 3, sign(3))).unwrap();

    // A certificate in the second half of its life is made anew, once.
    wish.rlocs = second.rlocs;
    let late = 2 + NVE_TTL_S / 2;
    let fresh = block(r.join(wish.clone(), late, sign(late))).unwrap();
    assert_eq!((fresh.xtr_id, &*fresh.certificate), (first.xtr_id, &*format!("{} at {late}", first.xtr_id)));
    assert_eq!(block(r.join(wish, late + 1, sign(late + 1))).unwrap(), fresh);
}

fn new_xtr(name: &str, id: u8, key: &str, rloc: &str) -> NewXtr {
    NewXtr {
        name: n(name),
        rlocs: BTreeSet::from([rloc.parse().unwrap()]),
        xtr_id: Some(XtrId([id; 16])),
        site_id: Default::default(),
        key_id: 1,
        algorithm: weft_api::KeyAlgorithm::HmacSha256,
        key: key.into(),
        pubsub_key: None,
        vns: BTreeSet::from([n("red")]),
    }
}

#[test]
fn a_vn_that_is_deleted_leaves_the_scope_of_xtrs() {
    let r = memory();
    let (red, _) = block(r.create_vn(new_vn("red", Some(7), &["10.0.0.0/24"]))).unwrap();
    block(r.create_xtr(new_xtr("old", 1, "correct horse", "192.0.2.1"), XtrId([9; 16]))).unwrap();
    let (_, revision) = block(r.delete_vn(n("red"))).unwrap();
    let scope = || xtrs::find(&*r.snapshot().unwrap(), XtrId([1; 16])).unwrap().unwrap().vns;
    assert!(scope().is_empty());
    // The mapping database hears of it with the deletion.
    let (changes, _) = r.store().history().after(revision - 1, 9).unwrap();
    let facts: Vec<_> = changes.iter().filter_map(|change| fact(change).unwrap()).collect();
    let narrowed = |f: &crate::core::Fact| matches!(f, crate::core::Fact::Xtr(xtr) if xtr.vnis.is_empty());
    assert!(facts.contains(&crate::core::Fact::VnGone(red.vni)) && facts.iter().any(narrowed), "{facts:?}");
    block(r.create_vn(new_vn("red", Some(7), &["10.0.0.0/24"]))).unwrap();
    assert!(scope().is_empty(), "another VN, whoever has its name and number");
}

#[test]
fn nonces_of_an_xtr_that_was_removed_stay_used() {
    let r = memory();
    block(r.create_vn(new_vn("red", None, &["10.0.0.0/24"]))).unwrap();
    let create = |new: NewXtr| block(r.create_xtr(new, XtrId([9; 16]))).unwrap().0.nonce_floor;
    let first = || new_xtr("old", 1, "correct horse", "192.0.2.1");
    assert_eq!(create(first()), 0);
    block(r.save_nonce(XtrId([1; 16]), 41)).unwrap();
    let remove = || block(r.remove_xtr(n("old"), true)).unwrap();
    remove();
    // The same again; one whose messages those of the first would pass for; strangers.
    assert_eq!(create(first()), 41);
    assert_eq!(saved_nonce(&*r.snapshot().unwrap(), XtrId([1; 16])).unwrap(), 41);
    remove();
    for (id, key, rloc, floor) in [
        (2, "correct horse", "192.0.2.2", 0),
        (1, "battery staple", "192.0.2.1", 0),
        (1, "correct horse", "192.0.2.2", 41),
        (2, "correct horse", "192.0.2.1", 41),
        (3, "correct horse", "192.0.2.2", 41),
    ] {
        assert_eq!(create(new_xtr("old", id, key, rloc)), floor, "{id} {key} {rloc}");
        remove();
    }
    let (changes, _) = r.store().history().after(0, 1_000).unwrap();
    let saved = changes.iter().filter_map(|change| match fact(change).unwrap() {
        Some(crate::core::Fact::Xtr(xtr)) => Some(xtr.saved_nonce),
        _ => None,
    });
    assert_eq!(saved.collect::<Vec<_>>(), [0, 41, 0, 0, 41, 41, 41], "the mapping database knows it at once");
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

#[test]
fn joining() {
    let r = memory();
    let scope = NewToken {
        vns: Some(vec![n("red")]),
        rlocs: Some(BTreeSet::from(["192.0.2.1".parse().unwrap()])),
        name: Some(NveName::new("nve1").unwrap()),
        ..NewToken::default()
    };
    assert!(matches!(block(r.create_token(scope.clone(), "s", 100)), Err(RegistryError::NoVn(_))));
    block(r.create_vn(new_vn("red", None, &["10.0.0.0/24"]))).unwrap();
    block(r.create_vn(new_vn("blue", None, &["10.0.0.0/24"]))).unwrap();
    block(r.create_token(scope, "s", 100)).unwrap();
    for limits in [NewToken { uses: 0, ..Default::default() }, NewToken { ttl_s: 0, ..Default::default() }] {
        assert!(matches!(block(r.create_token(limits, "t", 1)), Err(RegistryError::TokenLimits { .. })));
    }
    assert!(matches!(r.know_token("x", 100), Err(RegistryError::TokenUnknown)));
    assert!(matches!(r.know_token("s", 3700), Err(RegistryError::TokenExpired(0))));
    r.know_token("s", 3699).unwrap();

    let good = enrolment("s", 1);
    let join = |e: &Enrolment| block(r.join(e.clone(), 101, sign(101)));
    let with = |f: fn(&mut Enrolment)| {
        let mut e = enrolment("s", 1);
        f(&mut e);
        join(&e).unwrap_err()
    };
    assert_eq!(with(|e| e.secret = "x".into()), RegistryError::TokenUnknown);
    assert!(matches!(with(|e| e.name = NveName::new("nve2").unwrap()), RegistryError::TokenName { .. }));
    assert!(matches!(
        with(|e| e.rlocs = BTreeSet::from(["192.0.2.9".parse().unwrap()])),
        RegistryError::TokenRloc(_)
    ));
    assert_eq!(with(|e| e.rlocs = BTreeSet::new()), RegistryError::NoRloc);
    let joined = join(&good).unwrap();
    // The answer was lost and the NVE asks again: another identity was drawn, the first one counts.
    let mut again = good.clone();
    again.xtr_id = XtrId([9; 16]);
    assert_eq!(join(&again).unwrap(), joined);
    let mut other = good.clone();
    other.csr = "another".into();
    assert_eq!(join(&other).unwrap_err(), RegistryError::TokenUsed);

    // Its scope holds.
    block(r.grant(wish("red", "web1", joined.xtr_id, &[]))).unwrap();
    assert!(matches!(
        block(r.grant(wish("blue", "web1", joined.xtr_id, &[]))),
        Err(RegistryError::OutOfScope { .. })
    ));

    // Names and RLOCs are unique, until their NVE is removed.
    block(r.create_token(NewToken { uses: 9, ..NewToken::default() }, "u", 100)).unwrap();
    let mut e = enrolment("u", 2);
    e.name = good.name.clone();
    assert_eq!(join(&e).unwrap_err(), RegistryError::NveTaken(good.name.clone()));
    let mut e = enrolment("u", 2);
    e.rlocs = good.rlocs.clone();
    assert!(matches!(join(&e), Err(RegistryError::RlocTaken { holder, .. }) if holder == good.name));
    let ((_, left), _) = block(r.remove_nve(good.name.clone(), false)).unwrap();
    assert_eq!(left, 1);
    join(&e).unwrap();
    assert!(matches!(block(r.remove_nve(good.name, false)), Err(RegistryError::NoNve(_))));
    assert_eq!(
        block(r.grant(wish("red", "web2", joined.xtr_id, &[]))).unwrap_err(),
        RegistryError::Revoked(joined.xtr_id)
    );
    // What it held can be released by force; with `release` it goes along.
    block(r.release(n("red"), n("web1"), Caller::Operator, true)).unwrap();
    let x = e.xtr_id;
    block(r.grant(wish("red", "web1", x, &[]))).unwrap();
    block(r.remove_nve(e.name, true)).unwrap();
    block(r.delete_vn(n("red"))).unwrap();
    // Expired tokens are forgotten when the next is made.
    assert_eq!(r.tokens().unwrap().len(), 2);
    block(r.create_token(NewToken::default(), "v", 1_000_000)).unwrap();
    assert_eq!(r.tokens().unwrap().len(), 1);
}

/// What the registry should be, without its indices.
#[derive(Default)]
struct Model {
    /// (VN, TSI) to owner, addresses, epoch.
    grants: BTreeMap<(String, String), (XtrId, BTreeSet<TenantIp>, Epoch)>,
    /// Those that move, and where to.
    next: BTreeMap<(String, String), (XtrId, Epoch)>,
    floors: BTreeMap<String, Epoch>,
}

type Key = (String, String);

impl Model {
    fn highest(&self, key: &Key) -> Epoch {
        self.next.get(key).map_or(self.grants[key].2, |(_, epoch)| *epoch)
    }

    fn remove(&mut self, key: &Key) -> bool {
        if !self.grants.contains_key(key) {
            return false;
        }
        let highest = self.highest(key);
        let floor = self.floors.entry(key.0.clone()).or_insert(Epoch::FIRST);
        *floor = (*floor).max(highest.next());
        self.next.remove(key);
        self.grants.remove(key).is_some()
    }

    fn succeed(&mut self, key: &Key) -> bool {
        let Some((nve, epoch)) = self.next.remove(key) else { return false };
        let grant = self.grants.get_mut(key).unwrap();
        (grant.0, grant.2) = (nve, epoch);
        true
    }

    fn call_off(&mut self, key: &Key) {
        if let Some((_, epoch)) = self.next.remove(key) {
            self.grants.get_mut(key).unwrap().2 = epoch.next();
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Grant { vn: u8, tsi: u8, nve: u8, named: Option<u8> },
    Release { vn: u8, tsi: u8 },
    GiveBack { vn: u8, tsi: u8, nve: u8 },
    Next { vn: u8, tsi: u8, nve: u8 },
    CallOff { vn: u8, tsi: u8 },
    Succeed { vn: u8, tsi: u8 },
    RemoveNve { nve: u8 },
    Crash,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0u8..2, 0u8..12, 1u8..4, prop::option::weighted(0.3, 0u8..16))
            .prop_map(|(vn, tsi, nve, named)| Op::Grant { vn, tsi, nve, named }),
        5 => (0u8..2, 0u8..12).prop_map(|(vn, tsi)| Op::Release { vn, tsi }),
        4 => (0u8..2, 0u8..12, 1u8..4).prop_map(|(vn, tsi, nve)| Op::GiveBack { vn, tsi, nve }),
        6 => (0u8..2, 0u8..12, 1u8..4).prop_map(|(vn, tsi, nve)| Op::Next { vn, tsi, nve }),
        2 => (0u8..2, 0u8..12).prop_map(|(vn, tsi)| Op::CallOff { vn, tsi }),
        3 => (0u8..2, 0u8..12).prop_map(|(vn, tsi)| Op::Succeed { vn, tsi }),
        1 => (1u8..4).prop_map(|nve| Op::RemoveNve { nve }),
        2 => Just(Op::Crash),
    ]
}

/// The files as a power cut would leave them: copied while they are open.
fn crash_copy(from: &Path, to: &Path) {
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

fn check(r: &Registry, model: &Model) {
    let tx = r.snapshot().unwrap();
    let (mut seen, mut next) = (BTreeMap::new(), BTreeMap::new());
    let mut ips = BTreeMap::new();
    tx.scan(b"grant/", &mut |k, v| {
        let view: weft_api::GrantView = decode(k, v).unwrap();
        for ip in &view.grant.ips {
            let other = ips.insert((view.grant.tsi.vni, *ip), view.grant.tsi.name.clone());
            assert_eq!(other, None, "{ip} is held twice");
            assert_eq!(
                read::<TsiName>(&*tx, &keys::ip(view.grant.tsi.vni, ip.get())).unwrap().as_ref(),
                Some(&view.grant.tsi.name)
            );
        }
        let g = view.grant;
        let key = (view.vn.to_string(), g.tsi.name.to_string());
        if let Some(successor) = g.next {
            assert!(successor.epoch > g.epoch && successor.nve != g.owner);
            next.insert(key.clone(), (successor.nve, successor.epoch));
        }
        seen.insert(key, (g.owner, g.ips, g.epoch));
        true
    })
    .unwrap();
    assert_eq!(seen, model.grants);
    assert_eq!(next, model.next);
    let held = seen.len() + next.len();
    for (prefix, expected) in [(&b"ip/"[..], ips.len()), (b"mac/", seen.len()), (b"held/", held)] {
        let mut count = 0;
        tx.scan(prefix, &mut |_, _| {
            count += 1;
            true
        })
        .unwrap();
        assert_eq!(count, expected, "index {}", String::from_utf8_lossy(prefix));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]
    /// No address is ever held twice, no epoch falls, no index is left over, whatever happens.
    #[test]
    fn any_history(ops in prop::collection::vec(op(), 1..60)) {
        let mut dir = tempfile::tempdir().unwrap();
        let mut r = Registry::new(Arc::new(RedbStore::open(dir.path(), 64).unwrap()));
        let mut model = Model::default();
        let vns = ["red", "blue"];
        let nets = [Subnets::new(vec!["10.0.0.0/29".parse().unwrap(), "fd00::/64".parse().unwrap()]).unwrap(),
            Subnets::new(vec!["10.0.0.0/28".parse().unwrap()]).unwrap()];
        for (vn, subnets) in vns.iter().zip(&nets) {
            let mut new = new_vn(vn, None, &[]);
            new.subnets = subnets.clone();
            block(r.create_vn(new)).unwrap();
        }
        let mut enrolled: BTreeMap<u8, XtrId> = (1..4).map(|id| (id, enrol(&r, id))).collect();
        for op in ops {
            match op {
                Op::Grant { vn, tsi, nve, named } => {
                    let (vn_name, tsi) = (vns[usize::from(vn)], format!("t{tsi}"));
                    let key = (vn_name.to_owned(), tsi.clone());
                    let named = named.map(|h| format!("10.0.0.{h}"));
                    let named: Vec<&str> = named.iter().map(String::as_str).collect();
                    let owner = enrolled[&nve];
                    let result = block(r.grant(wish(vn_name, &tsi, owner, &named)));
                    let used: BTreeSet<TenantIp> = model.grants.iter()
                        .filter(|((v, _), _)| v == vn_name).flat_map(|(_, (_, ips, _))| ips.clone()).collect();
                    match (result, model.grants.get(&key)) {
                        (Ok((g, _)), Some((holder, ips, epoch))) => {
                            let next = model.next.get(&key).is_some_and(|(next, _)| *next == owner);
                            prop_assert!(!g.created && (*holder == owner || next));
                            prop_assert_eq!((&g.view.grant.ips, g.view.grant.epoch), (ips, *epoch));
                        }
                        (Ok((g, _)), None) => {
                            let grant = g.view.grant;
                            prop_assert!(used.is_disjoint(&grant.ips));
                            for ip in &grant.ips {
                                prop_assert!(nets[usize::from(vn)].host_subnet(ip.get()).is_some());
                            }
                            prop_assert_eq!(grant.epoch, *model.floors.get(vn_name).unwrap_or(&Epoch::FIRST));
                            prop_assert_eq!(grant.ips.len(), if vn == 0 { 2 } else { 1 });
                            model.grants.insert(key, (owner, grant.ips, grant.epoch));
                        }
                        (Err(RegistryError::GrantedElsewhere { .. }), held) =>
                            prop_assert!(held.is_some_and(|(holder, ..)| *holder != owner)),
                        (Err(RegistryError::IpMismatch { asked, .. }), held) =>
                            prop_assert!(held.is_some_and(|(_, ips, _)| !ips.contains(&asked))),
                        (Err(RegistryError::AddressTaken { ip, .. }), _) => prop_assert!(used.contains(&ip)),
                        (Err(RegistryError::OutsideSubnets { ip, .. }), _) =>
                            prop_assert!(nets[usize::from(vn)].host_subnet(ip).is_none()),
                        (Err(RegistryError::SubnetFull { .. }), _) => {
                            let v4 = used.iter().filter(|ip| ip.get().is_ipv4()).count();
                            prop_assert_eq!(v4, if vn == 0 { 6 } else { 14 });
                        }
                        (Err(e), _) => prop_assert!(false, "{e}"),
                    }
                }
                Op::Release { vn, tsi } => {
                    let (vn, tsi) = (vns[usize::from(vn)], format!("t{tsi}"));
                    let result = block(r.release(n(vn), n(&tsi), Caller::Operator, true));
                    prop_assert_eq!(result.is_ok(), model.remove(&(vn.to_owned(), tsi)));
                }
                Op::GiveBack { vn, tsi, nve: id } => {
                    let (vn, tsi) = (vns[usize::from(vn)], format!("t{tsi}"));
                    let (key, who) = ((vn.to_owned(), tsi.clone()), enrolled[&id]);
                    let name = NveName::new(format!("nve{id}")).unwrap();
                    let caller = Caller::Nve { xtr_id: who, name, start: None };
                    let result = block(r.release(n(vn), n(&tsi), caller, false));
                    let owner = model.grants.get(&key).map(|(owner, ..)| *owner);
                    let next = model.next.get(&key).map(|(next, _)| *next);
                    prop_assert_eq!(result.is_ok(), owner == Some(who) || next == Some(who));
                    if next == Some(who) {
                        model.call_off(&key);
                    } else if owner == Some(who) && !model.succeed(&key) {
                        model.remove(&key);
                    }
                }
                Op::Next { vn, tsi, nve } => {
                    let (vn, tsi) = (vns[usize::from(vn)], format!("t{tsi}"));
                    let key = (vn.to_owned(), tsi.clone());
                    let (to, name) = (enrolled[&nve], NveName::new(format!("nve{nve}")).unwrap());
                    let result = block(r.name_next(n(vn), n(&tsi), name, Caller::Operator));
                    let fits = model.grants.get(&key).is_some_and(|(owner, ..)| *owner != to);
                    prop_assert_eq!(result.is_ok(), fits, "{:?}", result);
                    if fits && model.next.get(&key).is_none_or(|(next, _)| *next != to) {
                        let epoch = model.highest(&key).next();
                        model.next.insert(key, (to, epoch));
                    }
                }
                Op::CallOff { vn, tsi } => {
                    let (vn, tsi) = (vns[usize::from(vn)], format!("t{tsi}"));
                    let key = (vn.to_owned(), tsi.clone());
                    let result = block(r.call_off(n(vn), n(&tsi), Caller::Operator));
                    prop_assert_eq!(result.is_ok(), model.grants.contains_key(&key));
                    model.call_off(&key);
                }
                Op::Succeed { vn, tsi } => {
                    let (vn, tsi) = (vns[usize::from(vn)], format!("t{tsi}"));
                    let key = (vn.to_owned(), tsi.clone());
                    let vni = super::vns::find(&*r.snapshot().unwrap(), &n(vn)).unwrap().vni;
                    let (nve, epoch) = model.next.get(&key).copied().unwrap_or((XtrId([9; 16]), Epoch::FIRST));
                    block(r.succeed(weft_model::TsiId { vni, name: n(&tsi) }, nve, epoch)).unwrap();
                    model.succeed(&key);
                }
                Op::RemoveNve { nve } => {
                    let name = r.snapshot().unwrap();
                    let name = nves::find(&*name, enrolled[&nve]).unwrap().unwrap().name;
                    block(r.remove_nve(name, true)).unwrap();
                    let gone = enrolled[&nve];
                    for key in model.grants.keys().cloned().collect::<Vec<_>>() {
                        if model.next.get(&key).is_some_and(|(next, _)| *next == gone) {
                            model.call_off(&key);
                        } else if model.grants[&key].0 == gone && !model.succeed(&key) {
                            model.remove(&key);
                        }
                    }
                    let secret = format!("again{}", model.floors.len());
                    block(r.create_token(NewToken { uses: 99, ..NewToken::default() }, &secret, 0)).unwrap();
                    let mut e = enrolment(&secret, nve);
                    e.csr = format!("{}", r.snapshot().unwrap().revision());
                    e.xtr_id.0[15] = e.xtr_id.0[15].wrapping_add(16);
                    e.xtr_id.0[14] = u8::try_from(r.snapshot().unwrap().revision() % 251).unwrap();
                    enrolled.insert(nve, block(r.join(e, 1, sign(1))).unwrap().xtr_id);
                }
                Op::Crash => {
                    let next = tempfile::tempdir().unwrap();
                    crash_copy(dir.path(), next.path());
                    r = Registry::new(Arc::new(RedbStore::open(next.path(), 64).unwrap()));
                    dir = next;
                }
            }
            check(&r, &model);
        }
    }
}
