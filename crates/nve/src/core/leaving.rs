//! Tenant systems that move from here: what only this NVE knows of them is handed to the one that they move to
//! (requirements V2, V3), if an Oracle says that they do. That it does is looked at before the core hears of it.

use super::context::{Claim, Context, Handed, Live, NotHanded, RequestId};
use super::tsi::{State, Tsi};
use super::{Core, Output, Timer, cache::Entry};
use std::collections::{BTreeMap, BTreeSet};
use weft_datapath::Levels;
use weft_model::{Eid, Epoch, MacAddr, Origin, TenantIp, Time, TsiId, Vni};

/// Who has asked for what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Leaving {
    by_tsi: BTreeMap<TsiId, RequestId>,
    by_request: BTreeMap<RequestId, TsiId>,
    /// What those wanted and knew that were taken out of service: until they are elsewhere, and a moment longer.
    left: BTreeMap<TsiId, Live>,
}

impl Core {
    /// Another NVE asks for a tenant system's context, with an Oracle's word. Its connections and the levels of its buckets are the
    /// data plane's: they are still to be put in. From now on it is told by [`Output::Hand`] when it stops here.
    ///
    /// # Errors
    /// [`NotHanded`].
    pub fn handle_context_asked(
        &mut self,
        now: Time,
        request: RequestId,
        claim: &Claim,
    ) -> Result<Context, NotHanded> {
        self.now = now;
        let context = self.context_for(claim);
        match &context {
            Ok(_) => {
                self.counters.contexts_handed += 1;
                if let Some(before) = self.leaving.by_tsi.insert(claim.tsi.clone(), request) {
                    // It asks anew, or another is next.
                    self.leaving.by_request.remove(&before);
                    self.outputs.push_back(Output::Hand(before, Handed::End));
                }
                self.leaving.by_request.insert(request, claim.tsi.clone());
            }
            Err(_) => self.counters.contexts_refused += 1,
        }
        context
    }

    fn context_for(&self, claim: &Claim) -> Result<Context, NotHanded> {
        let not_here = || NotHanded::NotHere(claim.tsi.clone());
        let tsi = self.tsis.get(&claim.tsi).ok_or_else(not_here)?;
        let vn = self.vns.get(&claim.tsi.vni).ok_or_else(not_here)?;
        let live = match self.leaving.left.get(&claim.tsi) {
            _ if tsi.state == State::Activated => self.live(&claim.tsi, tsi),
            Some(left) => left.clone(),
            None => return Err(not_here()),
        };
        let epoch = self.held_at(tsi);
        if epoch >= claim.epoch {
            return Err(NotHanded::Outdated { tsi: claim.tsi.clone(), ours: epoch, theirs: claim.epoch });
        }
        if let Some(next) = tsi.grant.next.filter(|next| next.epoch == claim.epoch && next.nve != claim.to) {
            let (tsi, to) = (claim.tsi.clone(), claim.to);
            return Err(NotHanded::NotNext { tsi, to, next: next.nve, epoch: next.epoch });
        }
        let limit = self.config.limits.handovers.max(1);
        if self.leaving.by_tsi.len() >= limit && !self.leaving.by_tsi.contains_key(&claim.tsi) {
            return Err(NotHanded::Busy { limit });
        }
        Ok(Context {
            revision: self.revision,
            grant: tsi.grant.clone(),
            epoch,
            vn: vn.clone(),
            activated: tsi.state == State::Activated,
            live,
        })
    }

    /// The epoch at which it is, or was, in service here.
    fn held_at(&self, tsi: &Tsi) -> Epoch {
        tsi.lost.as_ref().map_or_else(|| self.epoch_of(tsi), |lost| lost.with)
    }

    /// Who has asked does not listen any more.
    pub fn handle_context_left(&mut self, request: RequestId) {
        if let Some(tsi) = self.leaving.by_request.remove(&request) {
            self.leaving.by_tsi.remove(&tsi);
        }
    }

    fn live(&self, id: &TsiId, tsi: &Tsi) -> Live {
        Live {
            connections: Vec::new(),
            groups: self.groups_at(id.vni, tsi.device.index),
            addresses: self.in_use(id.vni),
            // The data plane's, as the connections are.
            levels: Levels::default(),
        }
    }

    /// The addresses elsewhere that are known in a VN because somebody here talks to them, the latest learned first.
    ///
    /// All tenant systems here share what is known: which of them uses what, no table says.
    fn in_use(&self, vni: Vni) -> Vec<Eid> {
        let pushed = |origin| origin == Origin::Push;
        let here = self.cache.macs.range((vni, MacAddr([0; 6]))..=(vni, MacAddr::BROADCAST));
        let mut macs: BTreeMap<MacAddr, Time> = here
            .filter_map(|((_, mac), entry)| Some((*mac, entry.known()?)))
            .filter(|(_, located)| !pushed(located.origin))
            .map(|(mac, located)| (mac, located.learned))
            .collect();
        let mut all = Vec::new();
        for eid in self.cache.eids_of(vni) {
            let Eid::Ip(ip) = eid else { continue };
            let Some(bound) = self.cache.ips.get(&(vni, ip)).and_then(Entry::known) else { continue };
            if !pushed(bound.origin) {
                // With its answer comes where it is.
                macs.remove(&bound.mac);
                all.push((bound.learned, eid));
            }
        }
        all.extend(macs.into_iter().map(|(mac, learned)| (learned, Eid::Mac(mac))));
        all.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        all.truncate(self.config.limits.moved_addresses.max(1));
        all.into_iter().map(|(_, eid)| eid).collect()
    }

    /// It is about to be taken out of service: what is forgotten by that may still be asked for. Whether it moves may be
    /// said, or heard of here, a moment later.
    pub(super) fn keep_left(&mut self, id: &TsiId) {
        let Some(tsi) = self.tsis.get(id).filter(|tsi| tsi.state == State::Activated) else { return };
        let live = self.live(id, tsi);
        self.leaving.left.insert(id.clone(), live);
        self.timers.set(Timer::Left(id.clone()), self.now + self.config.timing.left);
    }

    /// It is in service again, or nobody will ask any more.
    pub(super) fn forget_left(&mut self, id: &TsiId) {
        self.timers.cancel(&Timer::Left(id.clone()));
        self.leaving.left.remove(id);
    }

    /// A moment has passed since it was taken out of service. What is held here still may be asked for until it is elsewhere.
    pub(super) fn end_left(&mut self, now: Time, id: &TsiId) {
        if self.tsis.get(id).is_some_and(|tsi| !tsi.is_lost()) {
            let wait = self.config.timing.left.max(super::LEAST_WAIT);
            self.timers.set(Timer::Left(id.clone()), now + wait);
        } else {
            self.leaving.left.remove(id);
        }
    }

    /// It has stopped here: who has asked is told how it was at the end.
    pub(super) fn hand_delta(&mut self, id: &TsiId) {
        let Some(request) = self.leaving.by_tsi.get(id).copied() else { return };
        if let Some(left) = self.leaving.left.get(id).cloned() {
            self.outputs.push_back(Output::Hand(request, Handed::Delta(left)));
        }
    }

    /// It goes on here: who has asked and was told that it had stopped takes it for one that runs.
    pub(super) fn hand_resumed(&mut self, id: &TsiId) {
        let asked = self.leaving.by_tsi.get(id).filter(|_| self.leaving.left.contains_key(id));
        if let Some(request) = asked.copied() {
            self.outputs.push_back(Output::Hand(request, Handed::Resumed));
        }
    }

    /// It is gone from here, and so is what was kept of it.
    pub(super) fn hand_last(&mut self, id: &TsiId, was_here: bool) {
        if was_here {
            self.hand_delta(id);
        }
        if let Some(request) = self.leaving.by_tsi.remove(id) {
            self.leaving.by_request.remove(&request);
            self.outputs.push_back(Output::Hand(request, Handed::End));
        }
    }

    /// It is another's now: so are its connections.
    pub(super) fn leave_connections(&mut self, id: &TsiId) {
        if let Some(tsi) = self.tsis.get(id) {
            let ips = tsi.grant.ips.clone();
            self.end_connections(id, ips);
        }
    }

    /// What was let through for an interface at these addresses is for nobody else, unless they are another's here by now:
    /// then they have ended before, and its own go on.
    pub(super) fn end_connections(&mut self, id: &TsiId, mut ips: BTreeSet<TenantIp>) {
        ips.retain(|ip| self.local_ips.get(&(id.vni, *ip)).is_none_or(|other| other == id));
        if !ips.is_empty() {
            self.outputs.push_back(Output::ForgetConnections(id.vni, ips));
        }
    }

    #[cfg(test)]
    pub(super) fn check_leaving(&self) {
        let Leaving { by_tsi, by_request, left } = &self.leaving;
        assert!(by_tsi.len() <= self.config.limits.handovers.max(1) && by_tsi.len() == by_request.len());
        for (tsi, request) in by_tsi {
            assert!(by_request.get(request) == Some(tsi) && self.tsis.contains_key(tsi));
        }
        for tsi in left.keys() {
            assert!(self.timers.is_set(&Timer::Left(tsi.clone())) && self.tsis.contains_key(tsi));
            assert_eq!(self.tsis[tsi].state, State::Associated);
        }
        for timer in self.timers.by_key.keys() {
            if let Timer::Left(id) = timer {
                assert!(left.contains_key(id), "{timer:?}");
            }
        }
    }
}
