//! What holds after every input.

use super::super::attach::Call;
use super::super::cache::{AbsentKey, Entry};
use super::super::orphan::{Claim, Orphan};
use super::super::tsi::State;
use super::super::{Core, Timer};
use std::collections::{BTreeMap, BTreeSet};
use weft_datapath::{Location, Neighbour};
use weft_model::{Eid, Rloc};

/// Panics if something does not.
pub fn hold(core: &Core) {
    interfaces(core);
    tables(core);
    negatives(core);
    questions(core);
    timers(core);
    vns(core);
    core.check_groups();
    core.check_arrivals();
    core.check_leaving();
    core.check_told();
    let mut counts: BTreeMap<Rloc, usize> = BTreeMap::new();
    core.nves.values().flatten().for_each(|rloc| *counts.entry(*rloc).or_default() += 1);
    assert_eq!(core.rlocs, counts);
    for rloc in counts.keys() {
        assert!(core.tables.peers[&rloc.get()].nve);
    }
}

fn interfaces(core: &Core) {
    let tsis = || core.tsis.iter();
    assert_eq!(core.by_name.len(), core.tsis.len());
    assert!(core.by_device.iter().all(|(name, id)| core.tsis[id].device.name == *name));
    assert_eq!(core.vaps.len(), tsis().filter(|(_, t)| t.present).count());
    assert_eq!(
        core.members.values().map(BTreeSet::len).sum::<usize>(),
        tsis().filter(|(_, t)| !t.is_lost()).count()
    );
    assert!(core.members.values().all(|members| !members.is_empty()));
    for id in &core.stopped {
        let tsi = &core.tsis[id];
        assert!(tsi.state == State::Associated && !tsi.is_lost());
        assert!(
            tsi.grant.next.is_some_and(|next| next.nve != core.config.xtr_id),
            "stopped and goes nowhere"
        );
    }
    for id in core.announcing.keys() {
        assert_eq!(core.tsis[id].state, State::Activated);
    }
    let mut macs = BTreeMap::new();
    let mut ips = BTreeMap::new();
    let mut vaps = BTreeSet::new();
    for (id, tsi) in tsis() {
        assert_eq!(*id, tsi.grant.tsi);
        assert_eq!(core.by_name[&(tsi.vn.clone(), id.name.clone())], *id);
        // One that is gone may have lost its name to another.
        let named = &core.by_device[&tsi.device.name];
        assert!(named == id || core.tsis[named].device.name == tsi.device.name);
        assert!(tsi.is_lost() || core.members[&id.vni].contains(id));
        if tsi.present {
            assert_eq!(core.vaps[&tsi.device.index], *id);
            let vap = &core.tables.vaps[&tsi.device.index];
            assert_eq!((vap.vni, vap.activated), (id.vni, tsi.state == State::Activated), "open or closed");
            assert!(tsi.is_lost() || (vap.mac, &vap.ips) == (tsi.grant.mac, &tsi.grant.ips));
            vaps.insert(tsi.device.index);
        }
        if let Some(waiting) = &tsi.waiting {
            assert!(!tsi.is_lost());
            assert_eq!(core.tickets.contains_key(&waiting.ticket), !waiting.applied);
        }
        if tsi.present && !tsi.is_lost() {
            let kept_out = (tsi.closed.is_some() || core.is_held(id)) && tsi.wanted == State::Activated;
            let is = if kept_out { State::Associated } else { tsi.wanted };
            assert_eq!(tsi.state, is, "{id}");
        }
        if tsi.state == State::Activated {
            assert!(tsi.present && !tsi.is_lost(), "in service without a device or a grant");
            macs.insert((id.vni, tsi.grant.mac.get()), id.clone());
            ips.extend(tsi.grant.ips.iter().map(|ip| ((id.vni, *ip), id.clone())));
            let vap = &core.tables.vaps[&tsi.device.index];
            assert_eq!((vap.mac, &vap.ips), (tsi.grant.mac, &tsi.grant.ips));
            let at = core.tables.fdb[&(id.vni, tsi.grant.mac.get())];
            assert_eq!(at, Location::Local(tsi.device.index));
            for ip in &tsi.grant.ips {
                assert_eq!(core.tables.neighbours[&(id.vni, *ip)], Neighbour::At(tsi.grant.mac.get()));
            }
        }
    }
    assert_eq!(core.local_macs, macs);
    assert_eq!(core.local_ips, ips);
    for (index, orphan) in &core.orphans {
        assert!(vaps.insert(*index), "an interface's and nobody's");
        let vap = &core.tables.vaps[index];
        assert_eq!((&orphan.vap, orphan.claim == Claim::Nobody), (vap, !vap.activated));
    }
    assert_eq!(core.tables.vaps.keys().copied().collect::<BTreeSet<_>>(), vaps);
    let waiting = |t: &&super::super::Tsi| t.waiting.as_ref().is_some_and(|w| !w.applied);
    assert_eq!(core.tickets.len(), core.tsis.values().filter(waiting).count());
    let devices: Vec<_> = core
        .calls
        .values()
        .filter_map(|c| if let Call::Attach { attach, .. } = c { Some(attach.device.index) } else { None })
        .collect();
    assert_eq!(devices.iter().collect::<BTreeSet<_>>().len(), devices.len(), "one call for a device");
}

/// Cache and tables agree, entry by entry; nothing else is in the tables but what is local.
fn tables(core: &Core) {
    for ((vni, mac), at) in &core.tables.fdb {
        match core.cache.macs.get(&(*vni, *mac)) {
            Some(Entry::Known(known)) => {
                assert!(matches!(at, Location::Remote { rloc, .. } if *rloc == known.rloc));
                assert!(!core.config.rlocs.contains(&known.rloc));
            }
            Some(Entry::Absent(_)) => assert_eq!(*at, Location::Nowhere),
            None if core.local_macs.contains_key(&(*vni, *mac)) => {}
            None => {
                let orphan = core.orphans.iter().find(|(_, o)| (o.vap.vni, o.vap.mac.get()) == (*vni, *mac));
                assert_eq!(orphan.map(|(index, _)| Location::Local(*index)), Some(*at), "{mac} is nobody's");
            }
        }
    }
    for (key, at) in &core.tables.neighbours {
        match core.cache.ips.get(key) {
            Some(Entry::Known(known)) => assert_eq!(*at, Neighbour::At(known.mac)),
            Some(Entry::Absent(_)) => assert_eq!(*at, Neighbour::Nobody),
            None if core.local_ips.contains_key(key) => {}
            None => {
                let its = |o: &&Orphan| o.vap.activated && o.vap.vni == key.0 && o.vap.ips.contains(&key.1);
                let orphan = core.orphans.values().find(its);
                let mac = orphan.map(|o| Neighbour::At(o.vap.mac.get()));
                assert_eq!(mac, Some(*at), "{:?} is nobody's", key.1);
            }
        }
    }
    for key in core.cache.macs.keys() {
        assert!(core.tables.fdb.contains_key(key) && !core.local_macs.contains_key(key));
        assert!(core.members.contains_key(&key.0), "of a VN that was left");
    }
    for key in core.cache.ips.keys() {
        assert!(core.tables.neighbours.contains_key(key) && !core.local_ips.contains_key(key));
        assert!(core.members.contains_key(&key.0), "of a VN that was left");
    }
    assert!(core.cache.len() <= core.config.limits.cache.max(1));
}

fn negatives(core: &Core) {
    let macs = core.cache.macs.iter().filter_map(|((v, m), e)| Some((AbsentKey::Mac(*v, *m), e.absent()?)));
    let ips = core.cache.ips.iter().filter_map(|((v, i), e)| Some((AbsentKey::Ip(*v, *i), e.absent()?)));
    let mut by_asker: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    let mut by_end = BTreeSet::new();
    for (key, absent) in macs.chain(ips) {
        by_asker.entry(absent.asker).or_default().insert((absent.expires, key));
        by_end.insert((absent.expires, key));
        let timer = Timer::Absent(key.vni(), key.eid());
        assert_eq!(core.timers.by_key.get(&timer), Some(&absent.expires));
    }
    assert_eq!(core.cache.absent, by_asker);
    assert_eq!(core.cache.by_end, by_end);
    assert!(by_asker.values().all(|mine| mine.len() <= core.config.limits.absent_per_vap.max(1)));
}

fn questions(core: &Core) {
    let (r, limits) = (&core.resolver, &core.config.limits);
    let mut per_vn = BTreeMap::new();
    let mut per_vap = BTreeMap::new();
    for (key, pending) in &r.pending {
        *per_vn.entry(key.0).or_insert(0) += 1;
        if let Some(vap) = pending.asker {
            *per_vap.entry(vap).or_insert(0) += 1;
        }
        assert_eq!(r.nonces.get(&pending.nonce), Some(key));
        assert!(core.timers.by_key.contains_key(&Timer::Retry(key.0, key.1)), "asked and forgotten");
        assert!(pending.waiters.len() <= limits.waiters.max(1));
        assert!(pending.waiters.iter().all(|w| core.tables.vaps.contains_key(&w.vap)), "waits at no VAP");
        assert!(core.members.contains_key(&key.0), "asked in a VN that was left");
        let local = match key.1 {
            Eid::Mac(mac) => core.local_macs.contains_key(&(key.0, mac)),
            Eid::Ip(ip) => core.local_ips.contains_key(&(key.0, ip)),
        };
        assert!(!local, "{:?} is here and asked for", key.1);
    }
    assert_eq!(r.nonces.len(), r.pending.len());
    assert!(per_vn.values().all(|n| *n <= limits.pending_per_vn.max(1)));
    assert!(per_vap.values().all(|n| *n <= limits.pending_per_vap.max(1)));
    assert_eq!((&r.per_vn, &r.per_vap), (&per_vn, &per_vap));
}

/// The data plane knows how to treat each VN that somebody is in service in.
fn vns(core: &Core) {
    let active = core.vns.values().filter(|vn| core.is_active(vn.vni));
    let held: Vec<_> = core.tables.vns.iter().map(|(vni, vn)| (*vni, vn.learning, vn.bum)).collect();
    assert_eq!(held, active.map(|vn| (vn.vni, vn.learning, vn.bum)).collect::<Vec<_>>());
    for (vni, members) in &core.memberships {
        assert!(core.wants_members(*vni));
        assert!(members.oracle.is_none_or(|oracle| core.oracles[oracle].scopes.contains(vni)));
        assert!(members.rlocs.len() <= core.config.limits.members.max(1));
    }
    for (vni, pushed) in &core.pushed {
        assert!(core.wants_mappings(*vni));
        pushed.check();
    }
    for vni in core.vns.keys().filter(|vni| core.is_active(**vni) && !core.pushed.contains_key(vni)) {
        assert!(core.cache.eids_of(*vni).into_iter().all(|eid| !core.is_pushed(*vni, eid)));
    }
    core.check_policies();
    core.stand_ins.check(core.config.limits.stand_ins_per_vap.max(1));
    for (oracle, vni) in core.oracles.iter().flat_map(|o| o.scopes.iter().map(move |vni| (o, vni))) {
        assert!(oracle.up && core.is_active(*vni));
    }
}

/// Every timer refers to something, and what needs one has one.
fn timers(core: &Core) {
    let known = |vni, eid: Eid| match eid {
        Eid::Mac(mac) => core.cache.macs.get(&(vni, mac)).is_some_and(|e| e.known().is_some()),
        Eid::Ip(ip) => core.cache.ips.get(&(vni, ip)).is_some_and(|e| e.known().is_some()),
    };
    assert_eq!(core.timers.by_time.len(), core.timers.by_key.len());
    let mut refreshes = 0;
    let mut absents = 0;
    for timer in core.timers.by_key.keys() {
        match timer {
            Timer::Retry(vni, eid) => assert!(core.resolver.pending.contains_key(&(*vni, *eid))),
            Timer::Hold(vni, eid) => assert!(core.resolver.held.contains(&(*vni, *eid))),
            Timer::Refresh(vni, eid) => {
                refreshes += 1;
                assert!(known(*vni, *eid), "{timer:?}");
            }
            Timer::Absent(..) => absents += 1,
            Timer::Grace(id) => assert!(!core.tsis[id].present),
            Timer::Lease(id) => assert!(core.tsis[id].lease.is_some()),
            Timer::Acknowledge(id) => assert!(core.tsis[id].waiting.is_some()),
            Timer::Register(id) => assert!(core.tsis.contains_key(id)),
            Timer::Release(vn, name) => {
                assert!(core.releases.by_name[&(vn.clone(), name.clone())].call.is_none());
            }
            Timer::Digest(oracle) => assert!(core.oracles[*oracle].up),
            Timer::Subscribe(vni) => assert!(core.is_active(*vni)),
            Timer::Resync(vni) => assert!(core.pushed[vni].resyncs()),
            Timer::Members(vni) => assert!(core.memberships[vni].named.is_some()),
            // With the groups.
            Timer::Query(..) | Timer::Group(..) | Timer::Open(..) => {}
            Timer::Hear(vni) => assert!(core.memberships.contains_key(vni)),
            Timer::Held(vni, eid) => assert!(core.held.has(*vni, *eid)),
            Timer::Solicited(key) => assert!(core.solicits.all().contains(key)),
            Timer::Away(vni, mac) => assert!(core.tables.away.contains_key(&(*vni, *mac))),
            Timer::Previous(tsi) => assert!(core.tsis[tsi].previous.is_some()),
            Timer::Silent(tsi) => assert!(core.tsis.contains_key(tsi)),
            Timer::Announce(tsi) => assert_eq!(core.tsis[tsi].state, State::Activated),
            Timer::SavePolicies => {}
            // As above.
            Timer::Fetch(..) | Timer::Await(..) | Timer::Prefetch(..) | Timer::Left(..) => {}
        }
    }
    let ends = |expires| expires != weft_model::Time::NEVER;
    let macs = core.cache.macs.values().filter(|e| e.known().is_some_and(|k| ends(k.expires))).count();
    let ips = core.cache.ips.values().filter(|e| e.known().is_some_and(|k| ends(k.expires))).count();
    for (vni, mac) in core.tables.away.keys() {
        assert!(core.timers.is_set(&Timer::Away(*vni, *mac)), "a redirect ends");
        assert!(!core.local_macs.contains_key(&(*vni, *mac)), "nobody here is away");
    }
    assert!(core.tables.away.len() <= core.config.limits.away.max(1));
    assert_eq!(refreshes, macs + ips, "every entry that ends is refreshed");
    assert_eq!(absents, core.cache.by_end.len());
    for key in &core.resolver.held {
        assert!(core.timers.by_key.contains_key(&Timer::Hold(key.0, key.1)), "held for ever");
    }
    for (id, tsi) in &core.tsis {
        assert_eq!(core.timers.by_key.contains_key(&Timer::Grace(id.clone())), !tsi.present);
        assert_eq!(core.timers.is_set(&Timer::Lease(id.clone())), tsi.lease.is_some());
    }
    for ((vn, name), release) in &core.releases.by_name {
        let timer = Timer::Release(vn.clone(), name.clone());
        assert_ne!(core.timers.by_key.contains_key(&timer), release.call.is_some());
    }
    assert!(core.releases.by_call.len() <= core.releases.by_name.len());
}
