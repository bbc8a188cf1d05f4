//! What a tenant system or an Oracle can make the NVE remember is bounded.

use super::super::{Limits, Refused, Session};
use super::oracle::Rec;
use super::world::*;
use ::core::time::Duration;
use weft_datapath::{Neighbour, PuntReason};
use weft_model::{Eid, TenantIp};

/// Asks without a look at all invariants, which are linear in what is remembered.
fn ask(w: &mut World, n: u32, target: TenantIp) -> Vec<Seen> {
    let reason = if target.get().is_ipv4() { PuntReason::ArpMiss } else { PuntReason::NdMiss };
    let frame = question(n, target, false);
    let dst = weft_model::MacAddr(frame[0..6].try_into().unwrap());
    let punt =
        weft_datapath::Punt { vap: weft_datapath::IfIndex(n), vni: vni(), reason, dst, from: None, frame };
    w.core.handle_punt(w.now, &punt);
    take(w)
}

fn take(w: &mut World) -> Vec<Seen> {
    let mut seen = Vec::new();
    while let Some(output) = w.core.poll_output() {
        match output {
            super::super::Output::Apply(op, _) => w.tables.apply(&op),
            super::super::Output::Datagram { to, octets } => {
                seen.push(Seen::Asked(super::oracle::asked(to, &octets)));
            }
            super::super::Output::Inject(vap, frame) => seen.push(Seen::Inject(vap, frame)),
            _ => {}
        }
    }
    seen
}

const SWEEP: u32 = 100_000;

#[test]
fn sweep_without_an_answer_is_bounded_and_others_still_resolve() {
    for f in BOTH {
        let mut w = World::started(f, &["a", "b"]);
        let mut requests = 0;
        for n in 0..SWEEP {
            requests += asked(&ask(&mut w, 1, ip(f, 1_000 + n))).len();
            if n % 50_000 == 25_000 {
                // Another tenant system asks meanwhile.
                let request = asked(&ask(&mut w, 2, ip(f, 500 + n % 7)));
                assert_eq!(request.len(), 1);
                let recs = [Rec::Owner(ip(f, 500 + n % 7), mac(50), 4), Rec::At(mac(50), rloc(f, 3), 4)];
                let answer = super::oracle::reply(request[0].nonce, &recs);
                w.core.handle_datagram(w.now, request[0].to.ip(), &answer);
                assert_eq!(injects(&take(&mut w)), [(2, mac(50))]);
            }
        }
        assert_eq!(requests, 1_024);
        assert_eq!(w.core.pending(), 1_024);
        w.seen();
        let timers = w.core.timers.by_key.len();
        assert!(timers < 1_100, "{timers}");
        // It ends by itself.
        while w.core.pending() > 0 {
            w.now = w.core.poll_timeout().unwrap();
            w.core.handle_timeout(w.now);
            take(&mut w);
        }
        w.passes(Duration::from_secs(2));
        assert_eq!((w.core.resolver.held.len(), w.core.resolver.per_vap.len()), (0, 0));
    }
}

#[test]
fn sweep_of_what_does_not_exist_is_bounded_and_others_still_resolve() {
    for f in BOTH {
        let mut w = World::with(f, |c| c.limits.cache = 2_000);
        w.session(0, Session::Up);
        w.attach_all(&["a", "b", "c"]);
        // Ten times what is remembered, and encoding the answers takes its time.
        let sweep = 20_000;
        for n in 0..sweep {
            let sweeper = if n < sweep / 2 { 1 } else { 3 };
            for request in asked(&ask(&mut w, sweeper, ip(f, 1_000 + n))) {
                let answer = super::oracle::reply(request.nonce, &[Rec::No(request.eid, 15)]);
                w.core.handle_datagram(w.now, request.to.ip(), &answer);
            }
            take(&mut w);
            assert!(w.core.cache.len() <= 2_000);
            assert!(w.core.timers.by_key.len() < 2_100 && w.core.pending() == 0);
        }
        w.seen();
        assert!(w.core.cache.absent.values().all(|mine| mine.len() <= 1_024));
        // What exists takes the place of what does not.
        for n in 500..900 {
            let request = one_asked(&ask(&mut w, 2, ip(f, n)));
            let recs = [Rec::Owner(ip(f, n), mac(n), 4), Rec::At(mac(n), rloc(f, 3), 4)];
            w.core.handle_datagram(w.now, request.to.ip(), &super::oracle::reply(request.nonce, &recs));
            assert_eq!(injects(&take(&mut w)), [(2, mac(n))]);
        }
        w.seen();
        assert_eq!(w.core.counters().cache_full, 0);
    }
}

#[test]
fn unknown_macs_are_bounded_too() {
    let mut w = World::started(V4, &["a", "b"]);
    for n in 0..5_000 {
        let mut frame = [mac(10_000 + n).octets(), mac(1).octets()].concat();
        frame.extend([0x08, 0x00]);
        let punt = weft_datapath::Punt {
            vap: weft_datapath::IfIndex(1),
            vni: vni(),
            reason: PuntReason::UnknownMac,
            dst: mac(10_000 + n),
            from: None,
            frame,
        };
        w.core.handle_punt(w.now, &punt);
        take(&mut w);
    }
    assert_eq!(w.core.pending(), 1_024);
    w.seen();
    assert_eq!(w.core.counters().requests_suppressed, 5_000 - 1_024);
}

#[test]
fn a_full_cache_of_what_exists_takes_no_more_and_says_so() {
    let mut w = World::with(V4, |c| c.limits.cache = 4);
    w.session(0, Session::Up);
    w.attached("a", 1);
    w.knows(50, 3, 1);
    w.knows(51, 3, 1);
    for rec in [Rec::At(mac(52), rloc(V4, 3), 1), Rec::Owner(ip(V4, 52), mac(50), 1)] {
        assert_eq!(w.notify(rec), []);
    }
    assert_eq!((w.core.cache().count(), w.core.counters().cache_full), (4, 2));
    w.notify(Rec::At(mac(50), rloc(V4, 4), 2));
    assert_eq!(w.core.counters().cache_full, 2, "a change needs no room");
}

#[test]
fn limits_of_one_everywhere() {
    for f in BOTH {
        let limits = Limits {
            cache: 1,
            absent_per_vap: 1,
            pending_per_vn: 1,
            pending_per_vap: 1,
            waiters: 1,
            calls: 1,
            link_locals: 1,
            held_destinations: 1,
            held_per_vap: 1,
            held_frames: 1,
            held_in_all: 1,
            answers_per_second: 1,
            answer_burst: 1,
            members: 1,
            stand_ins_per_vap: 1,
            groups_per_vap: 1,
            groups_per_vn: 1,
            member_groups: 1,
            group_entries_per_vn: 1,
            group_entries: 1,
            away: 1,
            moved_connections: 1,
            moved_addresses: 1,
            moved_at_once: 1,
            handovers: 1,
            solicits: 1,
            policy_rules: 1,
            policy_classes: 1,
        };
        let mut w = World::with(f, |c| c.limits = limits);
        w.session(0, Session::Up);
        w.attach_all(&["a", "b"]);
        w.attach(attach("c", 3));
        w.attach(attach("d", 4));
        assert!(matches!(&w.seen()[..], [_, Seen::Attached(_, Err(Refused::TooManyCalls { limit: 1 }))]));
        let request = one_asked(&w.asks(1, ip(f, 50), false));
        assert_eq!(w.asks(2, ip(f, 50), false), [], "one waits");
        assert_eq!(w.asks(2, ip(f, 51), false), [], "one is asked");
        w.reply(&request, &[Rec::No(ip(f, 50).into(), 1)]);
        let request = one_asked(&w.asks(2, ip(f, 51), false));
        w.reply(&request, &[Rec::No(ip(f, 51).into(), 1)]);
        assert_eq!(w.core.cache().count(), 1);
        // What exists takes that place, as far as it goes.
        let request = one_asked(&w.sends(1, mac(60)));
        w.reply(&request, &[Rec::At(mac(60), rloc(f, 3), 1)]);
        assert_eq!(w.core.cache().map(|e| e.eid).collect::<Vec<_>>(), [Eid::Mac(mac(60))]);
        w.passes(Duration::from_secs(3_600));
        w.core.handle_fact(super::super::Fact::VnGone(vni()));
        w.seen();
        assert_eq!(w.core.cache().count(), 0);
    }
    // And of none, which counts as one.
    let mut w = World::with(V4, |c| {
        c.limits = Limits {
            cache: 0,
            absent_per_vap: 0,
            pending_per_vn: 0,
            pending_per_vap: 0,
            waiters: 0,
            calls: 0,
            link_locals: 0,
            held_destinations: 1,
            held_per_vap: 1,
            held_frames: 1,
            held_in_all: 1,
            answers_per_second: 1,
            answer_burst: 1,
            members: 1,
            stand_ins_per_vap: 1,
            groups_per_vap: 1,
            groups_per_vn: 1,
            member_groups: 1,
            group_entries_per_vn: 1,
            group_entries: 1,
            away: 0,
            moved_connections: 0,
            moved_addresses: 0,
            moved_at_once: 0,
            handovers: 0,
            solicits: 1,
            policy_rules: 1,
            policy_classes: 1,
        };
        c.timing.ttl = Duration::ZERO;
        (c.timing.context, c.timing.left) = (Duration::ZERO, Duration::ZERO);
        c.timing.digest = Duration::ZERO;
        c.timing.hold = Duration::ZERO;
        c.timing.retry = Duration::ZERO;
        c.timing.tries = 0;
        c.timing.grace = Duration::ZERO;
    });
    w.session(0, Session::Up);
    w.attached("a", 1);
    let request = one_asked(&w.asks(1, ip(V4, 50), false));
    w.reply(&request, &[Rec::No(ip(V4, 50).into(), 1)]);
    assert_eq!(w.tables.neighbours[&(vni(), ip(V4, 50))], Neighbour::Nobody);
    let request = one_asked(&w.sends(1, mac(60)));
    w.reply(&request, &[Rec::At(mac(60), rloc(V4, 3), 1)]);
    w.core.handle_device_gone(w.now, weft_datapath::IfIndex(1));
    w.passes(Duration::from_secs(10));
}
