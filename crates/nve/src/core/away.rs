//! Tenant systems that have moved on: what still comes for them here is redirected to where they went, for a while
//! (requirements V6, M4; RFC 8014 section 4.3). Whereto is the grant's word or an Oracle's, never another NVE's.

use super::{Core, Timer, node_number};
use ::core::num::NonZeroU32;
use weft_datapath::{Away, Op, Tables};
use weft_model::{Epoch, MacAddr, Rloc, Successor, TsiId, Vni};

impl Core {
    /// What comes for `id`, which was in service here, goes on to the NVE that it moves to, if it moves.
    pub(super) fn redirect(&mut self, id: &TsiId) {
        let Some(tsi) = self.tsis.get(id) else { return };
        let mac = tsi.grant.mac.get();
        let elsewhere = |next: &Successor| next.nve != self.config.xtr_id;
        if let Some(Successor { nve, epoch }) = tsi.grant.next.filter(elsewhere)
            && let Some(rloc) = self.nves.get(&nve).and_then(|rlocs| self.reachable(rlocs))
        {
            self.redirect_to(id.vni, mac, rloc, epoch);
        }
    }

    /// What comes for an address that was here goes on to `rloc`.
    pub(super) fn redirect_to(&mut self, vni: Vni, mac: MacAddr, rloc: Rloc, epoch: Epoch) {
        let key = (vni, mac);
        if self.config.rlocs.contains(&rloc) || self.local_macs.contains_key(&key) {
            return;
        }
        if !self.tables.away.contains_key(&key) {
            self.make_room_away();
        }
        let away = Away { rloc, epoch };
        if self.tables.away.get(&key) != Some(&away) {
            self.apply(Op::SetAway(vni, mac, away));
        }
        self.timers.set(Timer::Away(vni, mac), self.now + self.config.timing.away);
    }

    /// Of too many the one that was set first goes.
    fn make_room_away(&mut self) {
        if self.tables.away.len() < self.config.limits.away.max(1) {
            return;
        }
        let first = self.timers.by_time.iter().find_map(|(_, timer)| match timer {
            Timer::Away(vni, mac) => Some((*vni, *mac)),
            _ => None,
        });
        if let Some((vni, mac)) = first {
            self.end_redirect(vni, mac);
        }
    }

    /// It is here, or nobody sends for it here any more.
    pub(super) fn end_redirect(&mut self, vni: Vni, mac: MacAddr) {
        self.timers.cancel(&Timer::Away(vni, mac));
        if self.tables.away.contains_key(&(vni, mac)) {
            self.apply(Op::RemoveAway(vni, mac));
        }
    }

    /// An address is no NVE's any more.
    pub(super) fn end_redirects_to(&mut self, gone: Rloc) {
        let to: Vec<_> =
            self.tables.away.iter().filter(|(_, away)| away.rloc == gone).map(|(k, _)| *k).collect();
        for (vni, mac) in to {
            self.end_redirect(vni, mac);
        }
    }

    /// Another NVE than this one has `id`, or had it until this one was next: what it sends on for it is not fenced.
    pub(super) fn came_from(&mut self, id: &TsiId) {
        let me = self.config.xtr_id;
        let Some(tsi) = self.tsis.get_mut(id).filter(|tsi| tsi.grant.owner != me) else { return };
        tsi.previous = NonZeroU32::new(node_number(tsi.grant.owner));
        self.timers.set(Timer::Previous(id.clone()), self.now + self.config.timing.away);
    }

    /// Nothing is sent on from there any more.
    pub(super) fn end_previous(&mut self, id: &TsiId) {
        let Some(tsi) = self.tsis.get_mut(id) else { return };
        tsi.previous = None;
        let (device, present) = (tsi.device.index, tsi.present);
        if let Some(mut vap) =
            self.tables.vaps.get(&device).filter(|vap| present && vap.previous.is_some()).cloned()
        {
            vap.previous = None;
            self.apply(Op::SetVap(device, vap));
        }
    }

    /// Goes on with what an earlier run left in the data plane. Call after the tenant systems are restored.
    pub(super) fn adopt_redirects(&mut self, observed: &Tables) {
        for ((vni, mac), away) in &observed.away {
            self.redirect_to(*vni, *mac, away.rloc, away.epoch);
        }
        for (device, vap) in observed.vaps.iter().filter(|(_, vap)| vap.previous.is_some()) {
            let id = self.vaps.get(device).cloned();
            let Some(id) = id.filter(|id| self.tables.vaps.get(device).is_some_and(|own| own.vni == id.vni))
            else {
                continue;
            };
            if let Some(tsi) = self.tsis.get_mut(&id) {
                tsi.previous = vap.previous;
            }
            self.timers.set(Timer::Previous(id), self.now + self.config.timing.away);
            if let Some(mut own) = self.tables.vaps.get(device).cloned() {
                own.previous = vap.previous;
                self.apply(Op::SetVap(*device, own));
            }
        }
    }
}
