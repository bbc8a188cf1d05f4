//! Link-local addresses: claimed by DAD, taken at the Oracle, defended for their owner (requirement 6).

use super::super::{ApiCall, Granted, Notice};
use super::oracle::Rec;
use super::world::*;
use weft_datapath::{IfIndex, Neighbour, PuntReason};
use weft_model::{Grant, TenantIp};

fn claim(w: &mut World, n: u32, ip: TenantIp) -> Vec<Seen> {
    w.punt(n, PuntReason::LinkLocalClaim, question(n, ip, true))
}

fn taken(w: &mut World, tsi: &str, ip: TenantIp, grant: Grant, revision: u64) -> Vec<Seen> {
    w.core.handle_taken(w.now, &id(tsi), ip, Ok(Granted { grant, vn: spec(), revision, created: false }));
    w.seen()
}

#[test]
fn nd_claim_accepted_is_its_own_from_then_on() {
    for f in BOTH {
        let mut w = World::started(f, &["a"]);
        let seen = claim(&mut w, 1, link_local(1));
        assert_eq!(seen, [Seen::Call(ApiCall::Take { vn: red(), tsi: id("a"), ip: link_local(1) })]);
        assert_eq!(claim(&mut w, 1, link_local(1)), [], "asked once");
        let mut more = grant("a", 1);
        more.ips.insert(link_local(1));
        let seen = taken(&mut w, "a", link_local(1), more.clone(), 11);
        assert_eq!(injects(&seen), []);
        assert_eq!(registered(&seen).len(), 1);
        assert_eq!(w.tables.vaps[&IfIndex(1)].ips, more.ips);
        assert_eq!(w.tables.neighbours[&(vni(), link_local(1))], Neighbour::At(mac(1)));
        assert_eq!(claim(&mut w, 1, link_local(1)), [], "its own");
    }
}

#[test]
fn nd_second_dad_fails_by_the_owners_defence() {
    for f in BOTH {
        // The owner is elsewhere.
        let mut w = World::started(f, &["a"]);
        claim(&mut w, 1, link_local(1));
        w.core.handle_taken(w.now, &id("a"), link_local(1), Err(oracle_says("address_taken")));
        let seen = w.seen();
        assert!(matches!(seen[0], Seen::Notice(Notice::ClaimRefused(..))));
        let asked = one_asked(&seen);
        let seen = w.reply(&asked, &[Rec::Owner(link_local(1), mac(50), 1), Rec::At(mac(50), rloc(f, 3), 1)]);
        assert_eq!(injects(&seen), [(1, mac(50))]);
        let Some(Seen::Inject(_, frame)) = seen.last() else { panic!("{seen:?}") };
        assert_eq!((&frame[0..6], frame[58]), (&[0x33, 0x33, 0, 0, 0, 1][..], 0xa0), "to all nodes");

        // The owner is here: nobody needs to be asked.
        let mut w = World::started(f, &["a", "b"]);
        claim(&mut w, 1, link_local(1));
        let mut more = grant("a", 1);
        more.ips.insert(link_local(1));
        taken(&mut w, "a", link_local(1), more, 11);
        assert_eq!(injects(&claim(&mut w, 2, link_local(1))), [(2, mac(1))]);
    }
}

#[test]
fn nd_negative_does_not_keep_one_from_claiming() {
    let mut w = World::started(V6, &["a"]);
    let asked = one_asked(&w.asks(1, link_local(1), false));
    w.reply(&asked, &[Rec::No(link_local(1).into(), 1)]);
    assert!(matches!(claim(&mut w, 1, link_local(1))[..], [Seen::Call(_)]));
    let mut more = grant("a", 1);
    more.ips.insert(link_local(1));
    taken(&mut w, "a", link_local(1), more, 11);
    assert_eq!(w.tables.neighbours[&(vni(), link_local(1))], Neighbour::At(mac(1)));
}

#[test]
fn nd_two_for_each_and_no_more() {
    let mut w = World::started(V6, &["a"]);
    claim(&mut w, 1, link_local(1));
    claim(&mut w, 1, link_local(2));
    // Not taken, but asked for: who else has it is to defend it.
    let asked = one_asked(&claim(&mut w, 1, link_local(3)));
    assert_eq!(w.core.counters().claims_refused, 1);
    let seen = w.reply(&asked, &[Rec::No(link_local(3).into(), 1)]);
    assert_eq!(injects(&seen), []);
    // The answers come in the wrong order; the later one knows both.
    let mut one = grant("a", 1);
    one.ips.insert(link_local(1));
    let mut both = one.clone();
    both.ips.insert(link_local(2));
    taken(&mut w, "a", link_local(2), both.clone(), 12);
    taken(&mut w, "a", link_local(1), one, 11);
    assert_eq!(w.tables.vaps[&IfIndex(1)].ips, both.ips);
    assert_eq!(claim(&mut w, 1, link_local(3)), []);
}

#[test]
fn nd_answer_for_one_that_is_gone() {
    let mut w = World::started(V6, &["a", "b"]);
    claim(&mut w, 1, link_local(1));
    w.grants(11, vec![grant("b", 2)]);
    let mut more = grant("a", 1);
    more.ips.insert(link_local(1));
    assert_eq!(taken(&mut w, "a", link_local(1), more.clone(), 12), []);
    assert_eq!(taken(&mut w, "zzz", link_local(1), more, 12), []);
}

#[test]
fn nd_a_claim_of_another_address_is_a_question() {
    let mut w = World::started(V6, &["a"]);
    one_asked(&claim(&mut w, 1, ip(V6, 50)));
}

#[test]
fn nd_refused_when_its_device_is_gone_or_another() {
    for f in BOTH {
        let mut w = World::started(f, &["a", "b"]);
        claim(&mut w, 1, link_local(1));
        claim(&mut w, 2, link_local(2));
        w.core.handle_device_gone(w.now, IfIndex(1));
        let mut other = device(2);
        other.index = IfIndex(42);
        w.core.handle_device(&other);
        w.seen();
        for (tsi, n) in [("a", 1), ("b", 2)] {
            w.core.handle_taken(w.now, &id(tsi), link_local(n), Err(oracle_says("address_taken")));
            assert_eq!(asked(&w.seen()), [], "nobody is there to be told");
        }
    }
}
