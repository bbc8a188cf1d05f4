//! Addresses that a tenant system gets besides its first ones.

use super::*;

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
