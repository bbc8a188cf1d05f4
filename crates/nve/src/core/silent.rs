//! Silent moves (requirement V11): a tenant system that moves here is put in service by its own first frame, a gratuitous
//! ARP or a RARP among them, as by an Activate, unless its hypervisor has said that it Activates it itself.
//!
//! Only where it is Associated, moves here by its grant, has the MAC that the frame comes from, and has stopped where it
//! was, or cannot be heard of there. Where else such a frame comes in it is dropped as any other.

use super::tsi::{State, Tsi};
use super::{CallId, Core, Notice, Timer, proxy};
use ::core::time::Duration;
use weft_datapath::Punt;
use weft_model::{Time, TsiId, TsiName, VnName};

/// Between two tries. The data plane tells of no more frames than that either.
const AGAIN: Duration = Duration::from_secs(1);

impl Core {
    /// Whether a frame of its own may put an interface in service.
    pub(super) fn may_come(&self, tsi: &Tsi) -> bool {
        let next = tsi.grant.next.is_some_and(|next| next.nve == self.config.xtr_id);
        let prepared = tsi.wanted == State::Associated && tsi.present && !tsi.is_lost();
        prepared && !tsi.explicit && next && self.is_anothers(tsi)
    }

    /// A frame has come from the MAC of an interface that waits for one.
    pub(super) fn first_frame(&mut self, now: Time, id: &TsiId, punt: &Punt) {
        let timer = Timer::Silent(id.clone());
        let Some(tsi) = self.tsis.get(id).filter(|tsi| self.may_come(tsi)) else { return };
        // Fail-static is for owners, and whatever call is under way decides. What runs where it was is not taken from
        // there by whatever is at a device here.
        if !self.has_stopped_there(id)
            || proxy::source_mac(&punt.frame) != Some(tsi.grant.mac.get())
            || !self.oracles.iter().any(|oracle| oracle.up)
            || self.is_busy(&tsi.vn, &id.name)
            || self.timers.is_set(&timer)
        {
            return;
        }
        self.timers.set(timer, now + AGAIN);
        self.counters.silent_moves += 1;
        self.notice(Notice::Woken(id.clone()));
        self.begin_activate(now, id, None);
    }

    /// A call to Activate what a frame of its own is putting in service waits for that; whether it does.
    pub(super) fn join_silent(
        &mut self,
        now: Time,
        call: CallId,
        (vn, name): (&VnName, &TsiName),
        lease: Option<Duration>,
    ) -> bool {
        let silent = |tsi: &Tsi| tsi.waiting.as_ref().is_some_and(|waiting| waiting.call.is_none());
        let found = self.find(vn, name).filter(|tsi| silent(tsi)).map(|tsi| tsi.grant.tsi.clone());
        let Some(id) = found else { return false };
        if let Some(waiting) = self.tsis.get_mut(&id).and_then(|tsi| tsi.waiting.as_mut()) {
            waiting.call = Some(call);
        }
        self.lease(now, &id, lease);
        true
    }

    /// Its hypervisor says anew whether a frame of its own may put it in service.
    pub(super) fn set_explicit(&mut self, id: &TsiId, explicit: bool) {
        let Some(tsi) = self.tsis.get_mut(id).filter(|tsi| tsi.explicit != explicit) else { return };
        tsi.explicit = explicit;
        self.unsaved = true;
        if tsi.state == State::Associated {
            self.close(id, None);
        }
    }
}
