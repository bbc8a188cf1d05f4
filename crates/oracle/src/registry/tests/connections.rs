//! NVEs that are connected to VNs without a tenant system in them.

use super::*;

fn nve(id: XtrId) -> Caller {
    Caller::Nve { xtr_id: id, name: NveName::new("whoever").unwrap(), start: None }
}

#[test]
fn h1_a_connection_counts_as_a_grant_where_vns_are_told() {
    let r = memory();
    let (one, other) = (enrol(&r, 1), enrol(&r, 2));
    let vni = block(r.create_vn(new_vn("red", None, &["10.0.0.0/24"]))).unwrap().0.vni;
    let sees = |id| {
        let tx = r.snapshot().unwrap();
        let holds = r.holds_in(&*tx, id, vni).unwrap();
        assert_eq!(r.vnis_of(&*tx, id).unwrap().contains(&vni), holds);
        holds
    };
    assert!(!sees(one));
    let (spec, first) = block(r.connect(n("red"), nve(one))).unwrap();
    assert_eq!((spec.vni, sees(one), sees(other)), (vni, true, false));
    assert_eq!(block(r.connect(n("red"), nve(one))).unwrap().1, first, "once more is no news");
    // It is no grant.
    assert!(r.held(&*r.snapshot().unwrap(), one).unwrap().is_empty());
    block(r.grant(wish("red", "web", one, &[]))).unwrap();
    block(r.disconnect(n("red"), nve(one))).unwrap();
    assert!(sees(one), "by its grant");
    let caller = nve(one);
    block(r.release(n("red"), "web".parse().unwrap(), caller.clone(), |_| Presence::Gone)).unwrap();
    assert!(!sees(one));
    let before = r.store().snapshot().unwrap().revision();
    block(r.disconnect(n("red"), caller)).unwrap();
    assert_eq!(r.store().snapshot().unwrap().revision(), before, "nothing to end is no error");
}

#[test]
fn h1_only_to_vns_of_its_scope_that_exist() {
    let r = memory();
    for vn in ["red", "blue"] {
        block(r.create_vn(new_vn(vn, None, &["10.0.0.0/24"]))).unwrap();
    }
    let scope = NewToken { vns: Some(vec![n("blue")]), ..NewToken::default() };
    block(r.create_token(scope, "narrow", 0)).unwrap();
    let id = block(r.join(enrolment("narrow", 1), 1, sign(1))).unwrap().xtr_id;
    let refused = |vn: &str, caller| block(r.connect(n(vn), caller)).unwrap_err();
    assert!(matches!(refused("red", nve(id)), RegistryError::OutOfScope { .. }));
    assert!(matches!(refused("green", nve(id)), RegistryError::NoVn(_)));
    assert!(matches!(refused("blue", Caller::Operator), RegistryError::Forbidden(_)));
    assert!(matches!(refused("blue", nve(XtrId([9; 16]))), RegistryError::Revoked(_)));
    assert!(r.vnis_of(&*r.snapshot().unwrap(), id).unwrap().is_empty());
    block(r.connect(n("blue"), nve(id))).unwrap();
}

#[test]
fn h5_it_goes_with_the_vn_and_with_the_nve() {
    let r = memory();
    let (one, other) = (enrol(&r, 1), enrol(&r, 2));
    for vn in ["red", "blue"] {
        block(r.create_vn(new_vn(vn, None, &["10.0.0.0/24"]))).unwrap();
        for id in [one, other] {
            block(r.connect(n(vn), nve(id))).unwrap();
        }
    }
    let left = || {
        let mut left = Vec::new();
        for prefix in ["connection/", "held/"] {
            let tx = r.snapshot().unwrap();
            let mut keys = 0;
            tx.scan(prefix.as_bytes(), &mut |_, _| {
                keys += 1;
                true
            })
            .unwrap();
            left.push(keys);
        }
        left
    };
    assert_eq!(left(), [4, 4]);
    block(r.delete_vn(n("red"))).unwrap();
    assert_eq!(left(), [2, 2]);
    let name = r.snapshot().unwrap();
    let name = nves::find(&*name, one).unwrap().unwrap().name;
    block(r.remove_nve(name, false)).unwrap();
    assert_eq!(left(), [1, 1]);
}
