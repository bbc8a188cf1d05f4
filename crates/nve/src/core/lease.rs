//! Leases (requirement H8): an interface that a hypervisor has said it will renew goes when it does not.

use super::{Cause, Core, Notice, Timer};
use ::core::time::Duration;
use weft_model::{Time, TsiId};

impl Core {
    /// Begins or renews the lease of an interface; zero ends it, and without one it stays as it is.
    pub(super) fn lease(&mut self, now: Time, id: &TsiId, lease: Option<Duration>) {
        let Some(tsi) = self.tsis.get_mut(id) else { return };
        if let Some(lease) = lease {
            let lease = Some(lease).filter(|lease| !lease.is_zero());
            if tsi.lease != lease {
                tsi.lease = lease;
                self.unsaved = true;
                self.because(id, Cause::Hypervisor);
            }
        }
        self.run_lease(now, id);
    }

    /// Has the lease run from now on, if there is one: after a restart too, for nobody could renew it meanwhile.
    pub(super) fn run_lease(&mut self, now: Time, id: &TsiId) {
        let timer = Timer::Lease(id.clone());
        match self.tsis.get(id).and_then(|tsi| tsi.lease) {
            Some(lease) => self.timers.set(timer, now + lease),
            None => self.timers.cancel(&timer),
        }
    }

    /// Nobody has renewed a lease: the interface is Deactivated and De-Associated, and its device stays closed.
    pub(super) fn end_lease(&mut self, now: Time, id: &TsiId) {
        let Some(tsi) = self.tsis.get(id) else { return };
        if self.is_busy(&tsi.vn, &id.name) {
            // A call about it is under way: somebody lives, or its end leaves nothing.
            let again = tsi.lease.unwrap_or_default().max(super::LEAST_WAIT);
            self.timers.set(Timer::Lease(id.clone()), now + again);
            return;
        }
        let held = self.held(tsi);
        self.part_with(id);
        let Some(tsi) = self.forget_tsi(id) else { return };
        if tsi.present {
            // Without a VAP what is behind it would reach the host.
            self.orphan(&tsi);
        }
        self.end_connections(id, tsi.grant.ips.clone());
        self.because(id, Cause::LeaseExpired);
        self.notice(Notice::LeaseExpired(id.clone()));
        if !tsi.is_lost() {
            self.release(tsi.vn, id.name.clone(), held);
        }
    }
}
