//! What everything comes to when nothing goes wrong any more, and what must hold then.

use std::collections::BTreeSet;
use std::time::Duration;

use weft_datapath::{Location, Neighbour};
use weft_model::{Grant, Origin, TsiId};
use weft_oracle::core::MappingView;
use weft_sim::{eids, vap_of};

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
        self.left = Bounds { ticks: STEPS, turns: true, ..Bounds::NONE };
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
        (0..NVES).try_for_each(|nve| {
            self.cached(store, nve)?;
            self.leads(store, nve)
        })
    }

    /// db looks for web, and what it sends then arrives where that is in service, if it is.
    ///
    /// # Errors
    /// When it does not.
    pub fn finds(&mut self) -> Result<(), String> {
        if self.may_ask() {
            self.ask();
        }
        for _ in 0..STEPS {
            let Some(action) = self.next_of_all() else { break };
            self.step(action);
        }
        let Some(grant) = self.grants.get().get(&web()).cloned() else { return Ok(()) };
        let there: BTreeSet<usize> = self.reached(&db(), &grant).into_iter().map(|got| got.nve).collect();
        let serves = self.in_service(&grant);
        if there != serves {
            return Err(format!("what db sends to web arrives at {there:?}, in service at {serves:?}"));
        }
        Ok(())
    }

    /// What a kernel holds of others leads to their owners.
    fn leads(&self, store: &Granted, nve: usize) -> Result<(), String> {
        let Some(host) = self.hosts.get(nve) else { return Ok(()) };
        let of = |vni, mac| store.all().find(move |grant| (grant.tsi.vni, grant.mac.get()) == (vni, mac));
        let at = |nve| rloc(self.family, nve_of(nve));
        let tables = host.kernel.get();
        for ((vni, mac), location) in &tables.fdb {
            if let Location::Remote { rloc, .. } = location
                && of(*vni, *mac).is_none_or(|grant| at(grant.owner) != *rloc)
            {
                return Err(format!("{mac} of {vni} leads from NVE {nve} to {rloc}: {:?}", of(*vni, *mac)));
            }
        }
        // Where it goes to, too: what comes before it is there waits for it there.
        for ((vni, mac), away) in &tables.away {
            let to = |grant: &Grant| [Some(grant.owner), grant.next.map(|next| next.nve)];
            let known = |grant| to(grant).into_iter().flatten().any(|nve| at(nve) == away.rloc);
            if of(*vni, *mac).is_some_and(|grant| !known(grant)) {
                return Err(format!("{mac} of {vni} is redirected from NVE {nve} to {}", away.rloc));
            }
        }
        for ((vni, ip), neighbour) in &tables.neighbours {
            let holds = |grant: &&Grant| grant.tsi.vni == *vni && grant.ips.contains(ip);
            if let Neighbour::At(mac) = neighbour
                && store.all().find(holds).is_none_or(|grant| grant.mac.get() != *mac)
            {
                return Err(format!("{ip} of {vni} is answered with {mac} at NVE {nve}"));
            }
        }
        Ok(())
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
}
