//! What everything comes to when nothing goes wrong any more, and what must hold then.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use weft_datapath::{Location, Tables};
use weft_model::{Grant, Origin, TsiId};
use weft_oracle::core::MappingView;
use weft_sim::{deliver, eids, frames, vap_of};

use crate::act::Action;
use crate::model::Bounds;
use crate::names::{NVES, db, mac, nve_of, rloc, spy, web};
use crate::state::{Granted, State};

/// Longer than digests are compared in, and what they find is set right in.
const LONG: Duration = Duration::from_secs(75);
/// More steps than that takes.
const STEPS: usize = 10_000;

impl State {
    /// Everything is whole, and goes on in some order until nothing is left to do.
    ///
    /// # Errors
    /// When that does not end.
    pub fn settle(&mut self) -> Result<(), String> {
        self.left = Bounds { ticks: STEPS, ..Bounds::NONE };
        if self.oracle.is_none() {
            self.step(Action::StartOracle);
        }
        for nve in 0..NVES {
            if self.hosts[nve].core.is_none() {
                self.step(Action::StartAgent(nve));
            }
        }
        let until = self.now + LONG;
        for _ in 0..STEPS {
            match self.next_of_all() {
                Some(action) => self.step(action),
                None if self.now >= until => return Ok(()),
                None => self.step(Action::Tick),
            }
        }
        Err(format!("not quiet after {STEPS} steps"))
    }

    /// The first of what is under way.
    fn next_of_all(&self) -> Option<Action> {
        if let Some((tsi, nve, epoch)) = self.orders.first() {
            return Some(Action::Commit(tsi.clone(), *nve, *epoch));
        }
        for (nve, host) in self.hosts.iter().enumerate() {
            if !host.to_oracle.is_empty() {
                return Some(Action::OracleReads(nve));
            }
            if !host.to_nve.is_empty() {
                return Some(Action::NveReads(nve));
            }
            if host.session.is_none() {
                return Some(Action::Connect(nve));
            }
            if !host.watch.is_empty() {
                return Some(Action::Watch(nve));
            }
            if !host.late.is_empty() {
                return Some(Action::ServeLate(nve));
            }
            if let Some(call) = host.calls.keys().next() {
                return Some(Action::Serve(nve, *call));
            }
            if let Some(call) = host.answers.keys().next() {
                return Some(Action::Answer(nve, *call));
            }
        }
        self.net.keys().next().cloned().map(Action::Datagram)
    }

    /// The NVEs whose kernel has a tenant system in service.
    pub(crate) fn in_service(&self, grant: &Grant) -> BTreeSet<usize> {
        let sites = self.hosts.iter().enumerate();
        sites.filter(|(_, host)| vap_of(host.kernel.get(), grant).is_some()).map(|(nve, _)| nve).collect()
    }

    /// What is wrong when everything is settled.
    ///
    /// # Errors
    /// The first thing found.
    pub fn true_at_rest(&self) -> Result<(), String> {
        let store = self.grants.get();
        for tsi in [web(), db(), spy()] {
            self.one_place(store, &tsi)?;
        }
        let Some(oracle) = &self.oracle else { return Err("no Oracle".to_owned()) };
        let mappings: Vec<MappingView> = oracle.get().mappings(self.now, None).collect();
        for mapping in &mappings {
            let tsi = TsiId { vni: mapping.vni, name: mapping.tsi.clone() };
            let Some(grant) = store.get(&tsi) else { return Err(format!("{} is nobody's", mapping.eid)) };
            if mapping.owner != grant.owner || mapping.epoch != grant.epoch {
                return Err(format!(
                    "the Oracle has {} at {}, granted {grant:?}",
                    mapping.eid, mapping.owner
                ));
            }
            let serves = self.in_service(grant).contains(&nve_of(grant.owner));
            let registered = mapping.origin == Origin::Registration && !mapping.stale;
            // What moves stays registered until it is where it moves to.
            if registered != serves && !(registered && grant.next.is_some()) {
                return Err(format!("{} is registered: {registered}, in service: {serves}", mapping.eid));
            }
        }
        let granted: usize = store.all().map(|grant| eids(grant).count()).sum();
        if mappings.len() != granted {
            return Err(format!("the Oracle has {} of {granted} mappings", mappings.len()));
        }
        (0..NVES).try_for_each(|nve| self.cached(store, nve))
    }

    /// It is in service at one NVE at most, its owner, and there if its hypervisor was told so.
    fn one_place(&self, store: &Granted, tsi: &TsiId) -> Result<(), String> {
        let Some(grant) = store.get(tsi) else {
            let open = self.hosts.iter().any(|host| {
                let mut vaps = host.kernel.get().vaps.values();
                vaps.any(|vap| vap.activated && vap.vni == tsi.vni && vap.mac == mac())
            });
            let told = *tsi == web() && self.script.runs.is_some();
            return if open || told { Err(format!("{tsi} has no grant and serves")) } else { Ok(()) };
        };
        if *tsi == web() && self.script.gone {
            return Err(format!("{tsi} has ended and is granted {grant:?}"));
        }
        let there = self.in_service(grant);
        let may = BTreeSet::from([nve_of(grant.owner)]);
        let must = if *tsi == web() { self.script.runs } else { Some(usize::from(*tsi == spy())) };
        if !there.is_subset(&may) || must.is_some_and(|nve| !there.contains(&nve)) {
            let runs = self.script.runs;
            return Err(format!("{tsi} is in service at {there:?}, runs at {runs:?}, granted {grant:?}"));
        }
        Ok(())
    }

    /// What an NVE knows of others is so.
    fn cached(&self, store: &Granted, nve: usize) -> Result<(), String> {
        let Some(core) = self.hosts.get(nve).and_then(|host| host.core.as_ref()) else { return Ok(()) };
        for entry in core.get().cache() {
            let holds =
                |grant: &&Grant| grant.tsi.vni == entry.vni && eids(grant).any(|eid| eid == entry.eid);
            let grant = store.all().find(holds);
            let serves = grant.is_some_and(|grant| !self.in_service(grant).is_empty());
            let at = grant.map(|grant| rloc(self.family, nve_of(grant.owner)));
            let wrong = match (entry.mac, entry.rloc) {
                // A Negative.
                (None, _) => serves,
                (Some(_), located) => at.is_none() || (located.is_some() && located != at),
            };
            if wrong {
                return Err(format!("NVE {nve} holds {entry:?}, granted {grant:?}"));
            }
        }
        Ok(())
    }

    /// What tenant systems send reaches who has the address in their VN, and nobody else, by what the kernels hold now.
    ///
    /// # Errors
    /// The first frame that does not.
    pub fn true_to_addresses(&self) -> Result<(), String> {
        for host in &self.hosts {
            leads_home(host.kernel.get())?;
        }
        let store = self.grants.get();
        let all: Vec<(&Tables, IpAddr)> =
            (0..NVES).map(|nve| (self.hosts[nve].kernel.get(), rloc(self.family, nve).get())).collect();
        for from in [web(), db(), spy()] {
            let Some(grant) = store.get(&from) else { continue };
            let others = store.all().flat_map(|to| to.ips.iter().map(|ip| (to.mac.get(), *ip)));
            let others: BTreeSet<_> = others.collect();
            for nve in self.in_service(grant) {
                let Some(vap) = vap_of(all[nve].0, grant) else { continue };
                for (mac, ip) in &others {
                    let frame = frames::packet(grant, *mac, *ip);
                    let got = frame.and_then(|frame| deliver(&all, nve, vap, &frame));
                    if let Some(got) = got.filter(|got| (got.vni, got.mac) != (from.vni, *mac)) {
                        return Err(format!("a frame of {from} for {mac} was delivered to {got:?}"));
                    }
                }
            }
        }
        Ok(())
    }
}

/// What leads to a device here leads to who is there.
fn leads_home(tables: &Tables) -> Result<(), String> {
    for ((vni, mac), location) in &tables.fdb {
        let Location::Local(index) = location else { continue };
        let vap = tables.vaps.get(index);
        if let Some(vap) = vap.filter(|vap| (vap.vni, vap.mac.get()) != (*vni, *mac)) {
            return Err(format!("{mac} of {vni} leads to {} of {}", vap.mac.get(), vap.vni));
        }
    }
    Ok(())
}
