//! Subscriptions on the sessions: what of a VN, and at which Oracle.

use super::{Core, Timer};
use weft_model::{Time, Vni};

impl Core {
    /// Something changed that decides how a VN is treated here and what is asked for of it: who is in service,
    /// its context, the sessions.
    pub(super) fn review_vn(&mut self, vni: Vni) {
        if !self.is_active(vni) {
            for oracle in &mut self.oracles {
                oracle.scopes.remove(&vni);
            }
            self.timers.cancel(&Timer::Subscribe(vni));
        }
        self.review_members(vni);
        self.review_mappings(vni);
        self.review_groups(vni);
        self.set_vn(vni);
    }

    /// The Oracle to subscribe at: the first with a session that has acknowledged something of the VN, so that
    /// it knows that this NVE has a part in it. None while a refusal is waited out.
    pub(super) fn provider(&self, vni: Vni) -> Option<usize> {
        if self.timers.is_set(&Timer::Subscribe(vni)) {
            return None;
        }
        self.oracles.iter().position(|oracle| oracle.up && oracle.scopes.contains(&vni))
    }

    /// A subscription was refused: once more, but not at once.
    pub(super) fn subscribe_later(&mut self, now: Time, vni: Vni) {
        let wait = self.config.timing.acknowledge.max(super::LEAST_WAIT);
        self.timers.set(Timer::Subscribe(vni), now + wait);
    }

    /// An Oracle knows that this NVE has a part in the VN.
    pub(super) fn enter_scope(&mut self, oracle: usize, vni: Vni) {
        let active = self.is_active(vni);
        let Some(state) = self.oracles.get_mut(oracle).filter(|_| active) else { return };
        if state.scopes.insert(vni) {
            self.review_vn(vni);
        }
    }

    /// A session is over: what was subscribed there is subscribed at another Oracle, or here again later. What
    /// is known stays.
    pub(super) fn leave_oracle(&mut self, oracle: usize) {
        if let Some(state) = self.oracles.get_mut(oracle) {
            state.scopes.clear();
            state.groups.clear();
        }
        let mut left = Vec::new();
        for (vni, members) in &mut self.memberships {
            if members.oracle == Some(oracle) {
                members.oracle = None;
                members.named = None;
                left.push(*vni);
            }
        }
        left.extend(self.unsubscribed(oracle));
        for vni in left {
            self.timers.cancel(&Timer::Members(vni));
            self.review_vn(vni);
        }
    }
}
