//! What a trace asks the core: who is where, and to find out.

use super::tsi::{State, Tsi};
use super::{CacheEntry, Core, cache};
use std::collections::BTreeSet;
use weft_datapath::IfIndex;
use weft_model::{Eid, NveName, Rloc, TenantIp, Time, Vni, XtrId};

impl Core {
    /// Asks for an address as if the tenant system at this VAP had, whatever that one's state; whether somebody asks now. An
    /// answer goes to the tables, and to nobody.
    pub fn look_up(&mut self, now: Time, device: IfIndex, eid: Eid) -> bool {
        self.now = now;
        let Some(id) = self.vaps.get(&device).cloned() else { return false };
        let source = self.tsis.get(&id).map(|tsi| Eid::Mac(tsi.grant.mac.get()));
        self.ask(now, id.vni, eid, Some(device), source, None)
    }

    /// Whether an address is that of a tenant system that is attached here and does not carry traffic.
    #[must_use]
    pub fn is_out_of_service(&self, vni: Vni, ip: TenantIp) -> bool {
        let has = |tsi: &Tsi| tsi.grant.ips.contains(&ip) && !tsi.is_lost() && tsi.state == State::Associated;
        self.members.get(&vni).into_iter().flatten().any(|id| self.tsis.get(id).is_some_and(has))
    }

    /// Whether an address is of the VN's subnets, or of one link.
    #[must_use]
    pub fn in_scope(&self, vni: Vni, ip: TenantIp) -> bool {
        self.vns.get(&vni).is_none_or(|vn| cache::in_scope(vn, ip))
    }

    /// The other NVE that has this underlay address, its name, and all of its addresses.
    #[must_use]
    pub fn nve_at(&self, rloc: Rloc) -> Option<(XtrId, &NveName, &BTreeSet<Rloc>)> {
        let (xtr, rlocs) = self.nves.iter().find(|(_, rlocs)| rlocs.contains(&rloc))?;
        let (name, _) = self.names.iter().find(|(_, named)| *named == xtr)?;
        Some((*xtr, name, rlocs))
    }

    /// Whether another NVE has this underlay address.
    #[must_use]
    pub fn is_rloc_of(&self, nve: XtrId, rloc: Rloc) -> bool {
        self.nves.get(&nve).is_some_and(|rlocs| rlocs.contains(&rloc))
    }

    /// What is known of an address elsewhere.
    #[must_use]
    pub fn cached(&self, vni: Vni, eid: Eid) -> Option<CacheEntry> {
        match eid {
            Eid::Mac(mac) => self.cache.macs.get(&(vni, mac)).map(|entry| super::views::at(vni, mac, entry)),
            Eid::Ip(ip) => self.cache.ips.get(&(vni, ip)).map(|entry| self.bound(vni, ip, entry)),
        }
    }
}
