//! What was put in service in the last moment before the agent ended, when the disk did not say so yet: the data plane
//! does. It goes on as soon as it is known to be this NVE's: at once if it was before, else by an Oracle's word.

use super::Core;
use super::tsi::{State, Tsi};
use weft_datapath::Tables;
use weft_model::TsiId;

impl Core {
    /// Finds them in what the data plane was observed to hold. Call after the tenant systems are restored.
    pub(super) fn resume(&mut self, observed: &Tables) {
        let open = |tsi: &Tsi| {
            let vap = observed.vaps.get(&tsi.device.index).filter(|vap| vap.activated);
            vap.is_some_and(|vap| (vap.vni, vap.mac) == (tsi.grant.tsi.vni, tsi.grant.mac))
        };
        let closed = self.tsis.values().filter(|tsi| tsi.present && tsi.wanted == State::Associated);
        let found: Vec<TsiId> = closed.filter(|tsi| open(tsi)).map(|tsi| tsi.grant.tsi.clone()).collect();
        for id in found {
            if let Some(tsi) = self.tsis.get_mut(&id) {
                tsi.resumes = true;
            }
            if self.resumes_as_owner(&id) {
                self.put_in_place(&id, None);
            }
        }
    }

    /// Whether it is one of them and this NVE's: then it is wanted in service again.
    pub(super) fn resumes_as_owner(&mut self, id: &TsiId) -> bool {
        let me = self.config.xtr_id;
        let Some(tsi) = self.tsis.get_mut(id).filter(|tsi| tsi.resumes && tsi.grant.owner == me) else {
            return false;
        };
        tsi.resumes = false;
        tsi.wanted = State::Activated;
        tsi.came = Some(tsi.grant.epoch);
        self.unsaved = true;
        true
    }
}
