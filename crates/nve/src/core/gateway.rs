//! The gateway of a VN (`miss: gateway`): the NVE that carries frames whose destination is being asked for. An
//! operator names it; where it is follows the list of NVEs.

use super::Core;
use std::collections::BTreeSet;
use weft_model::{Learning, Miss, NveName, Rloc, VnSpec, Vni, XtrId};

/// What a VN's choice comes to at this NVE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OnMiss {
    pub(super) miss: Miss,
    pub(super) gateway: Option<Rloc>,
    pub(super) carries: bool,
}

/// The gateway that a VN is to use. Where frames for unknown destinations go to everybody, or NVEs stand for their
/// tenant systems, nothing is asked for that could be carried meanwhile.
pub(super) fn named(spec: &VnSpec) -> Option<&NveName> {
    let asks = matches!(spec.learning, Learning::Oracle | Learning::Distribute);
    spec.gateway.as_ref().filter(|_| asks && spec.miss == Miss::Gateway)
}

impl Core {
    /// What becomes of frames whose destination is not known. A gateway holds what its own tenant systems send; so
    /// does everybody while there is no way to it, or while it is known to be no member: it would drop them.
    pub(super) fn on_miss(&self, spec: &VnSpec) -> OnMiss {
        let Some(name) = named(spec) else {
            let miss = if spec.miss == Miss::Gateway { Miss::Queue } else { spec.miss };
            return OnMiss { miss, ..OnMiss::default() };
        };
        let xtr = self.names.get(name);
        if xtr == Some(&self.config.xtr_id) {
            return OnMiss { carries: true, ..OnMiss::default() };
        }
        let members = self.memberships.get(&spec.vni);
        let rlocs = xtr.and_then(|xtr| self.nves.get(xtr));
        let rlocs = rlocs.filter(|rlocs| !members.is_some_and(|members| members.lacks(rlocs)));
        match rlocs.and_then(|rlocs| self.reachable(rlocs)) {
            Some(rloc) => OnMiss { miss: Miss::Gateway, gateway: Some(rloc), carries: false },
            None => OnMiss::default(),
        }
    }

    /// Of an NVE's RLOCs the first of a family that this one has too: IPv4 before IPv6.
    pub(super) fn reachable(&self, rlocs: &BTreeSet<Rloc>) -> Option<Rloc> {
        let own = |v4: bool| self.config.rlocs.iter().any(|rloc| rloc.get().is_ipv4() == v4);
        rlocs.iter().copied().find(|rloc| own(rloc.get().is_ipv4()))
    }

    /// Whether this NVE carries for a VN.
    pub(super) fn carries(&self, vni: Vni) -> bool {
        self.vns.get(&vni).is_some_and(|spec| self.on_miss(spec).carries)
    }

    /// An NVE is called so, for as long as there is one: a name is given once.
    pub(super) fn name_nve(&mut self, xtr: XtrId, name: NveName) {
        if self.names.insert(name, xtr) != Some(xtr) {
            self.review_gateways();
        }
    }

    /// An NVE is no more.
    pub(super) fn forget_name(&mut self, xtr: XtrId) {
        self.names.retain(|_, known| *known != xtr);
        self.review_gateways();
    }

    /// NVEs or where they are may be others.
    pub(super) fn review_gateways(&mut self) {
        let named = self.vns.values().filter(|spec| spec.gateway.is_some());
        for vni in named.map(|spec| spec.vni).collect::<Vec<_>>() {
            self.set_vn(vni);
        }
    }
}
