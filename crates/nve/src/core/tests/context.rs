//! What goes along when a tenant system moves: requirements V2 to V5, V7, V9.

use super::super::{
    Attached, Claim, Context, Delta, Fetch, Handed, Live, Moved, NotHanded, NotTaken, Refused, RequestId,
    Session, Taking, TransferId, TsiState, ends,
};
use super::groups::{GROUPS, fact, replicating, told};
use super::oracle::Rec;
use super::world::*;
use ::core::time::Duration;
use std::collections::BTreeSet;
use weft_datapath::{Connection, ConnectionState, Levels, PuntReason, Toward};
use weft_model::{Eid, Epoch, Grant, Learning, Successor, TenantIp, VnSpec, Wanted, XtrId};

/// web moves here from another NVE.
fn coming() -> Grant {
    let here = grant("web", 1);
    let next = Some(Successor { nve: ME, epoch: here.epoch.next() });
    Grant { owner: OTHER, next, ..here }
}

pub(super) fn flow(f: Family, local: u32, remote: u32, port: u16, idle: u64) -> Connection {
    Connection {
        vni: vni(),
        local: ip(f, local).get(),
        remote: ip(f, remote).get(),
        protocol: 6,
        local_port: 80,
        remote_port: port,
        opened: Toward::In,
        state: ConnectionState::Established,
        rule: 0,
        idle: Duration::from_secs(idle),
    }
}

fn groups() -> BTreeSet<Wanted> {
    GROUPS.iter().map(|group| group.parse().unwrap()).collect()
}

/// As the NVE before has it at epoch 5: talking to 2 and 3.
fn context(f: Family) -> Context {
    let live = Live {
        connections: vec![flow(f, 1, 2, 1, 0), flow(f, 1, 3, 2, 9)],
        groups: groups(),
        addresses: vec![Eid::Ip(ip(f, 2)), Eid::Ip(ip(f, 3)), Eid::Mac(mac(4))],
        levels: Levels { send: Some(100), receive: Some(7) },
    };
    let epoch = coming().epoch;
    Context { revision: 10, grant: coming(), epoch, vn: spec(), activated: true, live }
}

fn world(f: Family) -> World {
    let mut w = World::started(f, &[]);
    w.peers = true;
    w
}

/// Asks for web with this state; what is asked of the other NVE.
fn attached_as(w: &mut World, state: TsiState) -> (TransferId, Vec<Seen>) {
    let mut wanted = attach("web", 1);
    wanted.state = state;
    let call = w.attach(wanted);
    w.seen();
    let seen = w.granted(call, coming());
    (fetched(&seen).unwrap(), seen)
}

fn associated(w: &mut World) -> TransferId {
    let (transfer, seen) = attached_as(w, TsiState::Associated);
    assert_eq!(done(&seen), None, "it waits for what comes");
    transfer
}

fn fetched(seen: &[Seen]) -> Option<TransferId> {
    seen.iter().find_map(|s| match s {
        Seen::Fetch(Fetch { transfer, vn, name: of, from }) => {
            assert_eq!((vn, of, *from), (&red(), &name("web"), OTHER));
            Some(*transfer)
        }
        _ => None,
    })
}

fn done(seen: &[Seen]) -> Option<&Result<Attached, Refused>> {
    seen.iter().find_map(|s| if let Seen::Attached(_, result) = s { Some(result) } else { None })
}

fn moved(seen: &[Seen]) -> Vec<&Moved> {
    seen.iter().filter_map(|s| if let Seen::Connections(moved) = s { Some(moved) } else { None }).collect()
}

fn open(w: &World) -> bool {
    w.tables.vaps.get(&device(1).index).is_some_and(|vap| vap.activated)
}

/// The context comes, is taken, and what was said because of that.
fn comes(w: &mut World, transfer: TransferId, context: Context) -> Vec<Seen> {
    w.core.handle_context(w.now, transfer, context).unwrap();
    w.seen()
}

fn answers(w: &mut World, seen: &[Seen]) {
    for question in asked(seen) {
        let n = (2..9).find(|n| [Eid::Ip(ip(w.family, *n)), Eid::Mac(mac(*n))].contains(&question.eid));
        let (n, f) = (n.unwrap(), w.family);
        w.reply(&question, &[Rec::Owner(ip(f, n), mac(n), 1), Rec::At(mac(n), rloc(f, 3), 1)]);
    }
}

#[test]
fn v2_what_comes_is_installed_behind_a_closed_vap() {
    for f in BOTH {
        let mut w = world(f);
        w.core.config.limits.moved_at_once = 2;
        let transfer = associated(&mut w);
        let seen = comes(&mut w, transfer, context(f));
        let all = moved(&seen);
        assert_eq!(all.len(), 1);
        assert!(all[0].how == Taking::Afresh && all[0].of == coming().ips && all[0].vni == vni());
        assert_eq!(all[0].connections, context(f).live.connections);
        // A few addresses at once, then one at a time; and each is known before anything passes.
        let mut questions = asked(&seen).len();
        assert_eq!(questions, 2);
        answers(&mut w, &seen);
        for (_, s) in w.passes(Duration::from_millis(20)) {
            questions += asked(std::slice::from_ref(&s)).len();
            answers(&mut w, &[s]);
        }
        assert_eq!((questions, open(&w)), (3, false));
        assert!(
            w.tables.neighbours.contains_key(&(vni(), ip(f, 3)))
                && w.tables.fdb.contains_key(&(vni(), mac(4)))
        );
        // So that the first frames need no question.
        w.activate("web");
        let seen = w.seen();
        assert!(open(&w) && asked(&seen).is_empty());
        let seen = w.asks(1, ip(f, 2), false);
        assert!(asked(&seen).is_empty() && injects(&seen) == [(1, mac(2))], "{seen:?}");
        assert_eq!((w.core.counters().contexts_taken, w.core.counters().asked_ahead), (1, 3));
    }
}

#[test]
fn v7_groups_go_along_and_are_asked_about() {
    let mut w = world(V4);
    let (transfer, _) = attached_as(&mut w, TsiState::Associated);
    fact(&mut w, replicating());
    let seen = comes(&mut w, transfer, context(V4));
    assert_eq!(told(&seen), [], "not in service yet");
    w.activate("web");
    let seen = w.seen();
    let heard = w.ack(0, registered(&seen)[0].1, mac(1));
    let said: Vec<String> = told(&heard).into_iter().map(|(_, text)| text).collect();
    assert_eq!(said, ["begin", "+239.1.2.3", "+ff15::1", "end"]);
    assert_eq!(w.tables.groups.len(), 2, "{:?}", w.tables.groups);
    // Nobody there says that it wants them still.
    w.passes(Duration::from_secs(261));
    assert!(w.tables.groups.is_empty(), "{:?}", w.tables.groups);
}

#[test]
fn v3_the_delta_of_one_that_stops_is_waited_for_a_moment() {
    for f in BOTH {
        let mut w = world(f);
        let transfer = associated(&mut w);
        comes(&mut w, transfer, context(f));
        w.core.handle_stopping(w.now, transfer);
        w.activate("web");
        assert!(
            w.seen().iter().all(|s| !matches!(s, Seen::Attached(..))) && !open(&w),
            "what has changed is under way"
        );
        w.passes(Duration::from_secs(1) / 20);
        assert!(!open(&w));
        // 2 has gone on and 3 is gone.
        let (next, gone) = (flow(f, 1, 2, 1, 0), ends(&flow(f, 1, 3, 2, 0)));
        let live = Live { connections: vec![next], ..Live::default() };
        w.core.handle_delta(w.now, transfer, Delta { live, ended: vec![gone] }).unwrap();
        let seen = w.seen();
        // Only what has changed keeps it.
        let at = position(&seen, |s| matches!(s, Seen::Connections(m) if m.how == Taking::Changed));
        let opened =
            position(&seen, |s| matches!(s, Seen::Op(weft_datapath::Op::SetVap(_, vap)) if vap.activated));
        let again = position(&seen, |s| matches!(s, Seen::Connections(m) if m.how == Taking::Missing));
        assert!(at < opened && opened < again, "connections before traffic");
        let [changed, all] = moved(&seen)[..] else { panic!("{seen:?}") };
        assert_eq!((&changed.connections[..], &changed.ended[..]), (&[next][..], &[flow(f, 1, 3, 2, 9)][..]));
        assert_eq!((&all.connections[..], &all.ended[..]), (&[next][..], &[][..]));
        assert!(open(&w));
        // It is gone from there, and nothing is left of all that.
        w.core.handle_context_end(w.now, transfer, true);
        assert_eq!(fetched(&w.seen()), None);
        w.passes(Duration::from_secs(60));
        assert_eq!(w.core.counters().contexts_failed, 0);
    }
}

/// A bucket here is no fuller than it was where the tenant system comes from, by the latest word, and what has come in since.
#[test]
fn v3_what_was_left_of_its_rates_goes_along() {
    fn lowered(seen: &[Seen]) -> Vec<(Levels, Duration)> {
        let of =
            |s: &Seen| if let Seen::Lower(at, levels, ago) = s { Some((*at, *levels, *ago)) } else { None };
        let all: Vec<_> = seen.iter().filter_map(of).collect();
        all.into_iter()
            .map(|(at, levels, ago)| (at == device(1).index).then_some((levels, ago)).unwrap())
            .collect()
    }
    let at_first = context(V4).live.levels;
    let at_last = Levels { send: Some(30), receive: Some(u32::MAX) };
    for how in ["stops", "says nothing more", "stops later"] {
        let mut w = world(V4);
        let transfer = associated(&mut w);
        let seen = comes(&mut w, transfer, context(V4));
        assert_eq!(lowered(&seen), [], "it is closed");
        w.passes(Duration::from_millis(40));
        let live = Live { levels: at_last, ..Live::default() };
        let stops = |w: &mut World, levels| {
            let delta = Delta { live: Live { levels, ..live.clone() }, ended: vec![] };
            w.core.handle_delta(w.now, transfer, delta).unwrap();
            w.seen()
        };
        match how {
            "stops" => drop(stops(&mut w, at_last)),
            // One of an older agent, say.
            "says nothing more" => drop(stops(&mut w, Levels::default())),
            _ => {}
        }
        w.passes(Duration::from_millis(2));
        w.activate("web");
        let seen = w.seen();
        let expected = match how {
            "stops" => (at_last, Duration::from_millis(2)),
            _ => (at_first, Duration::from_millis(42)),
        };
        assert_eq!(lowered(&seen), [expected], "{how}");
        let opened =
            position(&seen, |s| matches!(s, Seen::Op(weft_datapath::Op::SetVap(_, vap)) if vap.activated));
        assert!(position(&seen, |s| matches!(s, Seen::Lower(..))) > opened, "there is a VAP by then");
        if how == "stops later" {
            assert_eq!(lowered(&stops(&mut w, at_last)), [(at_last, Duration::ZERO)]);
        }
        w.core.handle_context_end(w.now, transfer, true);
        assert_eq!(lowered(&w.seen()), [], "once");
    }
}

#[test]
fn v3_the_wait_is_short_and_a_broken_stream_ends_it() {
    for how in ["late", "broken", "in service there"] {
        let mut w = world(V4);
        let transfer = associated(&mut w);
        comes(&mut w, transfer, context(V4));
        if how != "in service there" {
            w.core.handle_stopping(w.now, transfer);
        }
        w.activate("web");
        w.seen();
        assert_eq!(open(&w), how == "in service there", "{how}");
        match how {
            "late" => {
                w.passes(Duration::from_millis(99));
                assert!(!open(&w));
                w.passes(Duration::from_millis(1));
            }
            "broken" => {
                w.core.handle_context_end(w.now, transfer, false);
                w.seen();
            }
            _ => {}
        }
        assert!(open(&w), "{how}");
        // What it had at the end comes after all: what is tracked here stays.
        if how != "broken" {
            let live = Live { connections: vec![flow(V4, 1, 2, 1, 0)], ..Live::default() };
            w.core.handle_delta(w.now, transfer, Delta { live, ended: vec![] }).unwrap();
            assert_eq!(moved(&w.seen())[0].how, Taking::Missing);
        }
    }
}

#[test]
fn v2_associate_is_answered_when_the_context_is_there_or_after_a_moment() {
    for f in BOTH {
        for how in ["comes", "refused", "late"] {
            let mut w = world(f);
            let transfer = associated(&mut w);
            let seen = match how {
                "comes" => comes(&mut w, transfer, context(f)),
                "refused" => {
                    w.core.handle_context_end(w.now, transfer, false);
                    w.seen()
                }
                _ => {
                    assert_eq!(w.passes(Duration::from_millis(99)), []);
                    w.passes(Duration::from_millis(1)).into_iter().map(|(_, s)| s).collect()
                }
            };
            let answer = done(&seen).unwrap().as_ref().unwrap();
            assert_eq!((answer.state, open(&w)), (TsiState::Associated, false), "{how}");
        }
    }
}

#[test]
fn v4_activate_from_init_has_the_context_first_or_does_without() {
    for how in ["comes", "refused", "late"] {
        let mut w = world(V6);
        let (transfer, seen) = attached_as(&mut w, TsiState::Activated);
        assert!(done(&seen).is_none() && !open(&w) && w.tables.vaps.len() == 1, "closed until then");
        let seen = match how {
            "comes" => comes(&mut w, transfer, context(V6)),
            "refused" => {
                w.core.handle_context_end(w.now, transfer, false);
                w.seen()
            }
            _ => w.passes(Duration::from_millis(100)).into_iter().map(|(_, s)| s).collect(),
        };
        assert!(open(&w), "{how}");
        let id = registered(&seen)[0].1;
        let seen = w.ack(0, id, mac(1));
        assert!(matches!(done(&seen), Some(Ok(a)) if a.state == TsiState::Activated), "{how}: {seen:?}");
    }
}

#[test]
fn v2_what_cannot_be_had_is_asked_for_again_with_patience() {
    let mut w = world(V4);
    let first = associated(&mut w);
    w.core.handle_context_end(w.now, first, false);
    assert_eq!(fetched(&w.seen()), None);
    let mut waits = Vec::new();
    let mut last = w.now;
    for _ in 0..7 {
        let (at, transfer) = w
            .passes(Duration::from_secs(31))
            .into_iter()
            .find_map(|(at, s)| Some((at, fetched(&[s])?)))
            .unwrap();
        waits.push(at.since(last).as_secs());
        last = w.now;
        w.core.handle_context_end(w.now, transfer, false);
        w.seen();
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
    // Not a word of an earlier try counts.
    let refused = w.core.handle_context(w.now, first, context(V4));
    assert_eq!(refused, Err(NotTaken::Unasked(first)));
    w.activate("web");
    let seen = w.seen();
    assert!(open(&w), "nothing is waited for");
    w.ack(0, registered(&seen)[0].1, mac(1));
    assert!(
        w.passes(Duration::from_secs(60)).iter().all(|(_, s)| fetched(std::slice::from_ref(s)).is_none())
    );
}

#[test]
fn v2_what_nobody_asked_for_or_is_not_the_owners_changes_nothing() {
    let mut w = world(V4);
    let transfer = associated(&mut w);
    let before = w.core.clone();
    let good = context(V4);
    let epoch = |n| Epoch::new(n).unwrap();
    let another = Grant { tsi: id("db"), ..coming() };
    let blue = VnSpec { vni: 8.try_into().unwrap(), ..spec() };
    let bad = [
        (TransferId(99), good.clone(), "nobody here waits"),
        (transfer, Context { grant: another, ..good.clone() }, "7/db came"),
        (transfer, Context { vn: blue, ..good.clone() }, "was asked for"),
        (transfer, Context { epoch: epoch(4), ..good.clone() }, "is of epoch 4"),
        (transfer, Context { epoch: epoch(6), ..good.clone() }, "is of epoch 6"),
    ];
    for (transfer, context, why) in bad {
        let refused = w.core.handle_context(w.now, transfer, context).unwrap_err().to_string();
        assert!(refused.contains(why) && !refused.contains('\n'), "{refused}");
        assert_eq!(w.core, before, "{why}");
    }
    assert!(w.core.handle_delta(w.now, transfer, Delta::default()).is_err(), "before the context");
    assert_eq!(w.core, before);
    comes(&mut w, transfer, good.clone());
    assert_eq!(w.core.handle_context(w.now, transfer, good), Err(NotTaken::Twice(id("web"))));
}

#[test]
fn v2_connections_of_others_and_more_than_are_kept_stay_behind() {
    let mut w = World::with(V4, |c| {
        (c.limits.moved_connections, c.limits.moved_addresses) = (2, 1);
    });
    w.session(0, Session::Up);
    w.peers = true;
    let transfer = associated(&mut w);
    let mut context = context(V4);
    let outside: TenantIp = "172.16.0.1".parse().unwrap();
    context.live.connections = (1..9).map(|n| flow(V4, if n == 1 { 5 } else { 1 }, 2, n, 0)).collect();
    context.live.addresses = vec![Eid::Ip(outside), Eid::Ip(ip(V4, 2))];
    let seen = comes(&mut w, transfer, context);
    let ports: Vec<u16> = moved(&seen)[0].connections.iter().map(|c| c.remote_port).collect();
    assert_eq!(ports, [2, 3], "not that of 10.0.0.5");
    assert!(asked(&seen).is_empty(), "an address of no subnet");
}

#[test]
fn v9_a_vn_context_of_another_nve_counts_while_no_oracle_is_heard_and_only_if_it_is_not_older() {
    for (heard, revision, taken) in [(true, 99, false), (false, 9, false), (false, 10, true)] {
        let mut w = world(V4);
        let transfer = associated(&mut w);
        if !heard {
            w.session(0, Session::Down);
        }
        let vn = VnSpec { learning: Learning::Flood, ..spec() };
        comes(&mut w, transfer, Context { revision, vn, ..context(V4) });
        let now = w.core.vns().next().unwrap().learning;
        assert_eq!(now == Learning::Flood, taken, "{heard} {revision}");
    }
}

#[test]
fn v5_a_move_that_is_called_off_takes_back_what_came() {
    let mut w = world(V4);
    let transfer = associated(&mut w);
    comes(&mut w, transfer, context(V4));
    let seen = w.grants(20, vec![]);
    assert!(seen.contains(&Seen::EndFetch(transfer)));
    assert!(seen.contains(&Seen::ForgetConnections(coming().ips)), "{seen:?}");
    assert!(w.core.handle_delta(w.now, transfer, Delta::default()).is_err());
    // It moves here again, at a later epoch: that is another transfer.
    let epoch = Epoch::new(8).unwrap();
    let again = Grant { epoch: Epoch::new(7).unwrap(), next: Some(Successor { nve: ME, epoch }), ..coming() };
    let seen = w.grants(21, vec![again]);
    assert_ne!(fetched(&seen), Some(transfer));
    assert!(fetched(&seen).is_some());
}

#[test]
fn h5_an_activate_that_waits_when_its_device_goes_is_answered() {
    let mut w = world(V4);
    let (transfer, _) = attached_as(&mut w, TsiState::Activated);
    w.core.handle_device_gone(w.now, device(1).index);
    let seen = w.seen();
    assert!(matches!(done(&seen), Some(Err(Refused::Datapath { .. }))), "{seen:?}");
    assert!(seen.contains(&Seen::EndFetch(transfer)));
    w.passes(Duration::from_secs(1));
    assert!(!open(&w));
}

#[test]
fn h5_what_was_associated_before_stays_so() {
    let mut w = world(V4);
    let transfer = associated(&mut w);
    comes(&mut w, transfer, context(V4));
    w.core.handle_stopping(w.now, transfer);
    w.activate("web");
    w.core.handle_device_gone(w.now, device(1).index);
    assert!(matches!(done(&w.seen()), Some(Err(Refused::Datapath { .. }))));
    w.core.handle_device(&device(1));
    w.passes(Duration::from_secs(1));
    assert!(!open(&w) && w.core.tsis().count() == 1, "nobody waits for it any more");
}

#[test]
fn v2_after_a_restart_what_is_associated_asks_again() {
    let mut w = world(V4);
    associated(&mut w);
    let kept = w.core.attachments();
    let mut again = World::new(V4);
    again.peers = true;
    again.core.restore(again.now, kept, &[device(1)]);
    assert_eq!(fetched(&again.seen()), None, "who is next is not known yet");
    assert!(fetched(&again.grants(12, vec![coming()])).is_some());
}

// ===== The NVE that it moves from =====

fn leaving() -> Grant {
    let here = grant("web", 1);
    let next = Some(Successor { nve: OTHER, epoch: here.epoch.next() });
    Grant { next, ..here }
}

fn claim() -> Claim {
    Claim { tsi: id("web"), to: OTHER, epoch: leaving().next.unwrap().epoch }
}

/// web is here, wants two groups, and talks to 2 and by MAC to 4.
fn old(f: Family) -> World {
    let mut w = World::new(f);
    w.session(0, Session::Up);
    w.attached("web", 1);
    w.peers = true;
    fact(&mut w, replicating());
    for group in GROUPS {
        let report = super::super::groups::reports::single(group, false);
        w.punt(1, PuntReason::Report, report);
    }
    w.knows(2, 2, 1);
    w.now = w.now + Duration::from_secs(1);
    let question = one_asked(&w.sends(1, mac(4)));
    w.reply(&question, &[Rec::At(mac(4), rloc(f, 3), 1)]);
    w.grants(11, vec![leaving()]);
    w
}

fn wants(f: Family) -> Live {
    let addresses = vec![Eid::Mac(mac(4)), Eid::Ip(ip(f, 2))];
    Live { groups: groups(), addresses, ..Live::default() }
}

#[test]
fn v2_what_is_handed_over_is_what_is_here() {
    for f in BOTH {
        let mut w = old(f);
        let context = w.core.handle_context_asked(w.now, RequestId(1), &claim()).unwrap();
        assert_eq!((context.revision, context.epoch.get(), context.activated), (11, 5, true));
        assert_eq!((&context.grant, &context.vn), (&leaving(), &replicating()));
        assert_eq!(context.live, wants(f));
        assert_eq!(w.seen(), []);
        // At Deactivate, after the VAP is closed: nothing more changes.
        w.deactivate("web");
        let seen = w.seen();
        let delta = position(&seen, |s| *s == Seen::Hand(RequestId(1), Handed::Delta(wants(f))));
        let closed =
            position(&seen, |s| matches!(s, Seen::Op(weft_datapath::Op::SetVap(_, vap)) if !vap.activated));
        assert!(closed < delta, "{seen:?}");
        // It is Activated there: the end, and only then its connections are forgotten here.
        let seen = w.grants(12, vec![]);
        let end = position(&seen, |s| *s == Seen::Hand(RequestId(1), Handed::End));
        assert!(end < position(&seen, |s| *s == Seen::ForgetConnections(leaving().ips)));
        assert_eq!((w.core.counters().contexts_handed, w.core.counters().contexts_refused), (1, 0));
    }
}

/// A migration that is given up: it goes on here, and may stop again.
#[test]
fn v3_who_has_asked_hears_that_it_goes_on_here() {
    let mut w = old(V4);
    w.core.handle_context_asked(w.now, RequestId(1), &claim()).unwrap();
    w.deactivate("web");
    assert!(w.seen().contains(&Seen::Hand(RequestId(1), Handed::Delta(wants(V4)))));
    w.activate("web");
    let hands: Vec<Seen> = w.seen().into_iter().filter(|s| matches!(s, Seen::Hand(..))).collect();
    assert_eq!(hands, [Seen::Hand(RequestId(1), Handed::Resumed)]);
}

/// Where it goes to, it is not taken for stopped any more: no frame puts it in service, and an Activate waits for how it
/// ends when it stops again.
#[test]
fn v11_what_goes_on_where_it_was_is_not_taken_from_there() {
    let mut w = world(V4);
    let transfer = associated(&mut w);
    comes(&mut w, transfer, context(V4));
    let delta = || Delta { live: context(V4).live, ended: vec![] };
    w.core.handle_stopping(w.now, transfer);
    w.core.handle_delta(w.now, transfer, delta()).unwrap();
    assert!(w.core.has_stopped_there(&id("web")));
    w.core.handle_resumed(w.now, transfer);
    assert!(!w.core.has_stopped_there(&id("web")));
    w.core.handle_stopping(w.now, transfer);
    w.seen();
    w.activate("web");
    assert!(w.seen().iter().all(|s| !matches!(s, Seen::Attached(..))) && !open(&w), "it stops");
    w.core.handle_delta(w.now, transfer, delta()).unwrap();
    w.seen();
    assert!(open(&w));
}

#[test]
fn v10_one_that_has_not_stopped_here_is_handed_over_at_its_loss() {
    let mut w = old(V4);
    w.core.handle_context_asked(w.now, RequestId(1), &claim()).unwrap();
    let seen = w.notify(Rec::At(mac(1), rloc(V4, 2), 6));
    let delta = position(&seen, |s| *s == Seen::Hand(RequestId(1), Handed::Delta(wants(V4))));
    let end = position(&seen, |s| *s == Seen::Hand(RequestId(1), Handed::End));
    assert!(delta < end && end < position(&seen, |s| matches!(s, Seen::ForgetConnections(..))));
}

#[test]
fn v2_a_moment_after_it_has_stopped_it_is_still_handed_over() {
    let mut w = old(V4);
    w.deactivate("web");
    w.passes(Duration::from_secs(300));
    let context = w.core.handle_context_asked(w.now, RequestId(1), &claim()).unwrap();
    assert_eq!(
        (context.activated, context.live.groups),
        (false, groups()),
        "on its way, however long that takes"
    );
    w.grants(12, vec![]);
    assert!(w.core.handle_context_asked(w.now, RequestId(2), &claim()).is_ok());
    w.passes(Duration::from_secs(11));
    let gone = w.core.handle_context_asked(w.now, RequestId(3), &claim());
    assert_eq!(gone, Err(NotHanded::NotHere(id("web"))));
}

#[test]
fn v2_who_is_not_next_or_asks_for_what_is_not_here_gets_nothing() {
    let mut w = old(V4);
    let before = w.core.tables().clone();
    let epoch = |n| Epoch::new(n).unwrap();
    let third = XtrId([9; 16]);
    let bad = [
        (Claim { tsi: id("db"), ..claim() }, "not in service at this NVE"),
        (Claim { epoch: epoch(5), ..claim() }, "here at epoch 5"),
        (Claim { epoch: epoch(4), ..claim() }, "here at epoch 5"),
        (Claim { to: third, ..claim() }, "moves to NVE"),
    ];
    for (n, (claim, why)) in (1..).zip(bad) {
        let refused = w.core.handle_context_asked(w.now, RequestId(n), &claim).unwrap_err().to_string();
        assert!(refused.contains(why) && !refused.contains('\n'), "{refused}");
        assert_eq!((w.seen(), w.core.tables()), (vec![], &before));
    }
    assert_eq!(w.core.counters().contexts_refused, 4);
    // Its list of grants is behind: the Oracle's word counts.
    assert!(
        w.core
            .handle_context_asked(w.now, RequestId(9), &Claim { to: third, epoch: epoch(7), ..claim() })
            .is_ok()
    );
    // The one before hears no more.
    w.core.handle_context_asked(w.now, RequestId(10), &claim()).unwrap();
    assert_eq!(w.seen(), [Seen::Hand(RequestId(9), Handed::End)]);
    w.core.handle_context_left(RequestId(10));
    w.deactivate("web");
    assert!(!w.seen().iter().any(|s| matches!(s, Seen::Hand(..))));
}

#[test]
fn v2_only_so_many_are_handed_over_at_once() {
    let mut w = World::with(V4, |c| c.limits.handovers = 1);
    w.session(0, Session::Up);
    w.attach_all(&["web", "db"]);
    w.peers = true;
    let to = |text: &str| Claim { tsi: id(text), ..claim() };
    w.core.handle_context_asked(w.now, RequestId(1), &to("web")).unwrap();
    let busy = w.core.handle_context_asked(w.now, RequestId(2), &to("db"));
    assert_eq!(busy, Err(NotHanded::Busy { limit: 1 }));
    w.core.handle_context_asked(w.now, RequestId(3), &to("web")).unwrap();
    w.core.handle_context_left(RequestId(3));
    w.core.handle_context_asked(w.now, RequestId(4), &to("db")).unwrap();
    w.seen();
}

#[test]
fn h5_who_is_detached_is_handed_over_and_forgotten() {
    let mut w = old(V4);
    w.core.handle_context_asked(w.now, RequestId(1), &claim()).unwrap();
    let call = w.call();
    w.core.handle_detach(call, red(), name("web"), false);
    w.seen();
    w.core.handle_released(call, Ok(()));
    let seen = w.seen();
    let delta = position(&seen, |s| matches!(s, Seen::Hand(_, Handed::Delta(_))));
    let end = position(&seen, |s| *s == Seen::Hand(RequestId(1), Handed::End));
    assert!(delta < end, "{seen:?}");
}
