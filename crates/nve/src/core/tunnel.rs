//! Tunnel policy: what a tenant system's VAP is to have of its own and of its VN's.

use super::Core;
use super::messages::{self, Registering};
use weft_datapath::{IfIndex, Op, Tunnel};
use weft_model::{Grant, TunnelPolicy, Vni};

impl Core {
    /// The tunnel policy of a tenant system, its VN's included. While its VN Context is not known, its own says all.
    pub(super) fn tunnel_policy(&self, grant: &Grant) -> TunnelPolicy {
        let vn = self.vns.get(&grant.tsi.vni).map(|vn| vn.tunnel).unwrap_or_default();
        grant.tunnel.over(&vn)
    }

    /// What that comes to at its VAP.
    pub(super) fn tunnel_of(&self, grant: &Grant) -> Tunnel {
        self.tunnel_policy(grant).into()
    }

    /// VAPs of a VN get the tunnel policies that they are to have, if they have others.
    pub(super) fn review_tunnels(&mut self, vni: Vni) {
        let all = self.members.get(&vni).into_iter().flatten().filter_map(|id| self.tsis.get(id));
        let wanted = all.map(|tsi| (tsi.device.index, self.tunnel_of(&tsi.grant)));
        let of = |(device, tunnel): (IfIndex, Tunnel)| {
            let vap = self.tables.vaps.get(&device).filter(|vap| vap.vni == vni && vap.tunnel != tunnel)?;
            Some(Op::SetVap(device, weft_datapath::Vap { tunnel, ..vap.clone() }))
        };
        for op in wanted.filter_map(of).collect::<Vec<_>>() {
            self.apply(op);
        }
    }

    /// What is registered of a VN says the priorities and weights of this NVE's RLOCs anew, if its VN had others.
    pub(super) fn review_locators(&mut self, vni: Vni, old: Option<TunnelPolicy>) {
        let rlocs = &self.config.rlocs;
        let of = |policy: &TunnelPolicy| messages::locators(rlocs, policy);
        if self.vns.get(&vni).map(|vn| of(&vn.tunnel)) == Some(of(&old.unwrap_or_default())) {
            return;
        }
        for id in self.registered_ids(vni) {
            self.register(&id, Registering::Activated);
        }
    }
}
