//! What hypervisors and operators ask for: attach and detach, and a move in its steps (RFC 8394; requirements V1 to
//! V10), which may be called off or broken off at each of them.

use std::collections::BTreeSet;
use std::time::Duration;

use weft_datapath::{IfIndex, VapKind};
use weft_model::{Eid, Grant, TsiId};
use weft_nve::core::{Attach, CallId, Core, Device, Refused, TsiState};
use weft_oracle::core::Ending;

use crate::names::{nve_fact, vn_name};
use crate::run::WATCH;
use crate::world::{Ev, World};

/// A local call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    nve: usize,
    /// It has to end well.
    must: bool,
}

/// The addresses of a grant.
pub fn eids(grant: &Grant) -> impl Iterator<Item = Eid> + '_ {
    grant.ips.iter().map(|ip| Eid::Ip(*ip)).chain([Eid::Mac(grant.mac.get())])
}

impl World {
    /// Makes a local call at an NVE whose agent lives.
    fn make(
        &mut self,
        nve: usize,
        must: bool,
        call: impl FnOnce(&mut Core, CallId, weft_model::Time),
    ) -> CallId {
        self.next_call += 1;
        let id = CallId(self.next_call);
        self.calls.insert(id, Asked { nve, must });
        if self.lives(nve) {
            self.with_core(nve, |core, now| call(core, id, now));
        } else {
            self.lose_call(id);
        }
        id
    }

    pub(crate) fn call_attach(
        &mut self,
        nve: usize,
        tsi: &TsiId,
        like: Option<&Grant>,
        state: TsiState,
        must: bool,
    ) -> CallId {
        let index = u32::try_from(self.next_call).unwrap_or(u32::MAX).saturating_add(101);
        let device = Device { name: format!("tap{index}"), index: IfIndex(index), kind: VapKind::Tap };
        if let Some(site) = self.nves.get_mut(nve) {
            site.devices.insert(device.name.clone(), device.clone());
        }
        let attach = Attach {
            vn: vn_name(tsi.vni.get()),
            name: tsi.name.clone(),
            device,
            mac: like.map(|grant| grant.mac),
            ips: like.map(|grant| grant.ips.clone()).unwrap_or_default(),
            groups: Default::default(),
            state,
            lease: None,
            explicit: false,
        };
        self.make(nve, must, |core, call, now| core.handle_attach(now, call, attach))
    }

    pub(crate) fn call_detach(&mut self, nve: usize, tsi: &TsiId, must: bool) -> CallId {
        let (vn, name) = (vn_name(tsi.vni.get()), tsi.name.clone());
        self.make(nve, must, |core, call, _| core.handle_detach(call, vn, name, false))
    }

    /// What a call was answered with; nothing yet.
    #[must_use]
    pub fn answer(&self, call: CallId) -> Option<&Result<(), Refused>> {
        self.answers.get(&call)
    }

    pub(crate) fn answered(&mut self, nve: usize, call: CallId, answer: Result<(), Refused>) {
        let asked = self.calls.remove(&call);
        match (&answer, asked) {
            (Ok(()), _) => self.stats.calls += 1,
            (Err(refused), Some(Asked { must: true, .. })) => {
                self.violations.push(format!("NVE {nve}: {refused}"));
            }
            _ => {}
        }
        if asked.is_some_and(|asked| !asked.must) {
            self.answers.insert(call, answer);
        }
    }

    /// Nobody answers it any more.
    fn lose_call(&mut self, call: CallId) {
        self.calls.remove(&call);
        let message = "the agent is gone".to_owned();
        self.answers.insert(call, Err(Refused::Unanswered { message }));
    }

    /// Calls of an agent that is gone.
    pub(crate) fn forget_calls(&mut self, nve: usize) {
        let lost: Vec<CallId> =
            self.calls.iter().filter(|(_, asked)| asked.nve == nve).map(|(call, _)| *call).collect();
        lost.into_iter().for_each(|call| self.lose_call(call));
    }

    // ===== a move =====

    /// An operator names where a tenant system moves to.
    ///
    /// # Errors
    /// What the store says.
    pub fn set_next(&mut self, tsi: &TsiId, to: usize) -> Result<Grant, Refused> {
        let (answer, commit) = self.store.name_next(tsi, nve_fact(to).name);
        self.commit(commit);
        answer
    }

    /// An operator calls a move off, at an Oracle that runs: its shard is asked first, which may know that the move has come
    /// to its end, and takes no Activate until the store has decided.
    ///
    /// # Errors
    /// What the store says; or that no Oracle runs, or the one that is asked has not heard yet of who is next.
    pub fn call_off(&mut self, tsi: &TsiId) -> Result<Grant, Refused> {
        let running: Vec<usize> = (0..self.oracles.len()).filter(|o| self.boot_of(*o).is_some()).collect();
        let at = self.net.rng().below(u64::try_from(running.len()).unwrap_or(u64::MAX));
        let asked = running.get(usize::try_from(at).unwrap_or(0)).copied();
        let Some((oracle, boot)) = asked.and_then(|oracle| Some((oracle, self.boot_of(oracle)?))) else {
            return Err(Refused::Unanswered { message: "no Oracle runs".to_owned() });
        };
        let mut ending = Ending::Still;
        self.with_shard(oracle, boot, |shard, _, _| ending = shard.handle_ending(tsi));
        if let Ending::Unheard(next) = ending {
            return Err(Refused::Unanswered { message: format!("nothing is heard yet of {}", next.nve) });
        }
        // The store takes a while, and anything may come in between.
        let while_it_decides = self.jitter(3);
        self.run(while_it_decides);
        if let Ending::Moved(next) = ending {
            let commit = self.store.succeed(tsi, next.nve, next.epoch);
            self.commit(commit);
        }
        let (answer, commit) = self.store.call_off(tsi);
        self.commit(commit);
        if let Ending::Kept(next) = ending {
            // Behind what the store has changed.
            self.at(WATCH, Ev::NotEnded { oracle, boot, tsi: tsi.clone(), next });
        }
        answer
    }

    /// Which start of an Oracle runs.
    fn boot_of(&self, oracle: usize) -> Option<u64> {
        self.oracles.get(oracle).filter(|site| site.shard.is_some()).map(|site| site.boot)
    }

    /// A hypervisor prepares what moves to its host.
    pub fn associate(&mut self, nve: usize, tsi: &TsiId) -> CallId {
        self.call_attach(nve, tsi, None, TsiState::Associated, false)
    }

    /// It puts what it has prepared in service: the tenant system runs there.
    pub fn activate(&mut self, nve: usize, tsi: &TsiId) -> CallId {
        let (vn, name) = (vn_name(tsi.vni.get()), tsi.name.clone());
        self.make(nve, false, |core, call, now| core.handle_activate(now, call, (vn, name), None))
    }

    /// It takes something out of service.
    pub fn deactivate(&mut self, nve: usize, tsi: &TsiId) -> CallId {
        let (vn, name) = (vn_name(tsi.vni.get()), tsi.name.clone());
        self.make(nve, false, |core, call, _| core.handle_deactivate(call, vn, name))
    }

    /// It lets go of something, if it has it.
    pub fn let_go(&mut self, nve: usize, tsi: &TsiId) -> CallId {
        self.call_detach(nve, tsi, false)
    }

    /// Says where a tenant system is to be in service when all is quiet.
    pub fn runs_at(&mut self, tsi: &TsiId, nve: Option<usize>) {
        self.runs.insert(tsi.clone(), nve);
    }

    // ===== agents that come back =====

    /// An agent starts again: with what it had on its disk, and what its kernel holds.
    pub fn restart_agent(&mut self, nve: usize) {
        let addrs: Vec<_> = self.oracles.iter().map(|site| site.addr).collect();
        let Some(site) = self.nves.get_mut(nve).filter(|site| !site.agent && site.host) else { return };
        let old: Vec<u64> = site.sessions.iter_mut().filter_map(Option::take).collect();
        for session in old {
            self.end_unheard(session);
        }
        let mut core = self.nve_core(nve, &addrs);
        let now = self.now;
        let Some(site) = self.nves.get_mut(nve) else { return };
        let (attachments, vns) = site.disk.clone();
        let devices: Vec<Device> = site.devices.values().cloned().collect();
        core.remember(vns.clone(), Default::default(), &site.tables);
        core.restore(now, attachments, &devices);
        core.adopt(now, vns, &site.tables);
        core.keep_orphans(&devices, &site.tables);
        // Its outputs so far are this.
        while core.poll_output().is_some() {}
        site.tables = core.tables().clone();
        site.core = core;
        (site.agent, site.wake) = (true, None);
        self.drain_nve(nve);
        for oracle in 0..self.oracles.len() {
            let jitter = self.jitter(1_000);
            self.at(jitter, Ev::Connect { nve, oracle });
        }
        self.at(Duration::from_millis(1), Ev::Watch { nve });
    }

    pub(crate) fn persist(&mut self, nve: usize) {
        if let Some(site) = self.nves.get_mut(nve).filter(|site| site.agent) {
            site.disk = (site.core.attachments(), site.core.vns().cloned().collect());
        }
    }

    /// A device goes away: the hypervisor has stopped what was at it.
    pub fn unplug(&mut self, nve: usize, tsi: &TsiId) {
        let Some(site) = self.nves.get_mut(nve) else { return };
        let device = site.core.device_of(&vn_name(tsi.vni.get()), &tsi.name).cloned();
        let Some(device) = device else { return };
        site.devices.remove(&device.name);
        self.with_core(nve, |core, now| core.handle_device_gone(now, device.index));
    }

    /// The NVEs whose data path has a tenant system in service.
    #[must_use]
    pub fn in_service(&self, tsi: &TsiId) -> BTreeSet<usize> {
        let Some(grant) = self.store.grant(tsi) else { return BTreeSet::new() };
        let there = |tables: &weft_datapath::Tables| {
            tables.vaps.values().any(|vap| vap.activated && vap.vni == tsi.vni && vap.mac == grant.mac)
        };
        let sites = self.nves.iter().enumerate().filter(|(_, site)| site.host && there(&site.tables));
        sites.map(|(nve, _)| nve).collect()
    }
}
