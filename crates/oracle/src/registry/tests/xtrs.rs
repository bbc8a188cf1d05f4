//! Plain xTRs: their scope, and the nonces that stay used.

use super::*;

#[test]
fn a_vn_that_is_deleted_leaves_the_scope_of_xtrs() {
    let r = memory();
    let (red, _) = block(r.create_vn(new_vn("red", Some(7), &["10.0.0.0/24"]))).unwrap();
    block(r.create_xtr(new_xtr("old", 1, "correct horse", "192.0.2.1"), XtrId([9; 16]))).unwrap();
    let (_, revision) = block(r.delete_vn(n("red"))).unwrap();
    let scope = || crate::registry::xtrs::find(&*r.snapshot().unwrap(), XtrId([1; 16])).unwrap().unwrap().vns;
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
