//! Tunnel policy: what a tenant system's VAP is to have of its own and of its VN's.

use super::Core;
use weft_datapath::{IfIndex, Op, Tunnel};
use weft_model::{Grant, Vni};

impl Core {
    /// What the tunnel policy of a tenant system comes to. While its VN Context is not known, its own says all.
    pub(super) fn tunnel_of(&self, grant: &Grant) -> Tunnel {
        let vn = self.vns.get(&grant.tsi.vni).map(|vn| vn.tunnel).unwrap_or_default();
        grant.tunnel.over(&vn).into()
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
}
