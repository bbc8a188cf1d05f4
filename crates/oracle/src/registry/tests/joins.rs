//! NVEs that join.

use super::*;

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
    block(r.release(n("red"), n("web1"), Caller::Operator, |_| Presence::Gone)).unwrap();
    let x = e.xtr_id;
    block(r.grant(wish("red", "web1", x, &[]))).unwrap();
    block(r.remove_nve(e.name, true)).unwrap();
    block(r.delete_vn(n("red"))).unwrap();
    // Expired tokens are forgotten when the next is made.
    assert_eq!(r.tokens().unwrap().len(), 2);
    block(r.create_token(NewToken::default(), "v", 1_000_000)).unwrap();
    assert_eq!(r.tokens().unwrap().len(), 1);
}
