//! Grants, and who has them.

use super::*;

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
    let (v6, _) = block(r.release(n("red"), n("d"), nve(1), |_| Presence::Gone)).unwrap();
    let Released::Freed(v6) = v6 else { panic!("{v6:?}") };
    assert_eq!(texts(&v6.grant.ips), ["10.0.0.5", "fd00::6"]);
    let (e, _) = block(r.grant(wish("red", "e", x, &[]))).unwrap();
    assert_eq!(texts(&e.view.grant.ips), ["10.0.0.5", "fd00::7"]);
    assert_eq!(e.view.grant.epoch.get(), 2, "the floor rose with the release");

    // Release: by the owner, or by an operator on purpose.
    assert!(matches!(
        block(r.release(n("red"), n("e"), nve(2), |_| Presence::Gone)),
        Err(RegistryError::GrantedElsewhere { .. })
    ));
    assert!(matches!(
        block(r.release(n("red"), n("e"), Caller::Operator, |_| Presence::Connected)),
        Err(RegistryError::HolderConnected { .. })
    ));
    block(r.release(n("red"), n("e"), Caller::Operator, |_| Presence::Gone)).unwrap();
    assert!(matches!(
        block(r.release(n("red"), n("e"), nve(1), |_| Presence::Gone)),
        Err(RegistryError::NoTsi { .. })
    ));

    // The same name gets the same MAC again.
    let mac = e.view.grant.mac;
    assert_eq!(block(r.grant(wish("red", "e", y, &[]))).unwrap().0.view.grant.mac, mac);
}
