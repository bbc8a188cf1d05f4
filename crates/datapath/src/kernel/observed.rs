//! What the kernel holds, read from it.

use super::{
    Kernel,
    abi::{LocationValue, NeighbourValue, ScopedIp, VnMac},
    pins::Role,
};
use crate::{DatapathError, IfIndex, Location, Neighbour, Tables};
use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};
use weft_model::{MacAddr, Rloc, TenantIp, Vni};

/// What an entry of `fdb` says, if it says anything.
pub(super) fn location(key: VnMac, value: LocationValue) -> Option<((Vni, MacAddr), Location)> {
    Some(((Vni::new(key.vni).ok()?, MacAddr(key.mac)), value.meaning()?))
}

/// What an entry of `neighbours` says.
pub(super) fn neighbour(key: ScopedIp, value: NeighbourValue) -> Option<((Vni, TenantIp), Neighbour)> {
    Some(((Vni::new(key.scope).ok()?, TenantIp::new(key.ip.into()).ok()?), value.into()))
}

impl Kernel {
    pub(super) fn observe_all(&self) -> Result<Tables, DatapathError> {
        let mut tables = self.observe_few()?;
        let locations = self.maps.fdb.walker()?;
        locations.walk(|key, value| tables.fdb.extend(location(key, value)))?;
        let neighbours = self.maps.neighbours.walker()?;
        neighbours.walk(|key, value| tables.neighbours.extend(neighbour(key, value)))?;
        Ok(tables)
    }

    /// What there is little of: all but where tenant systems are and what is answered for them.
    pub(super) fn observe_few(&self) -> Result<Tables, DatapathError> {
        let mut tables = Tables::default();
        let mut attached = BTreeSet::new();
        for link in self.pins.list()?.into_iter().filter(|link| link.alive.is_some()) {
            match link.role {
                Role::Uplink => {
                    tables.config.uplinks.insert(link.device);
                }
                Role::Vap => {
                    attached.insert(link.device);
                }
                Role::Overlay => {}
            }
        }
        let config = self.maps.config()?;
        let [_, _, node @ ..] = config.node_mac;
        tables.config.node = u32::from_be_bytes(node);
        for (family, rloc) in [(1, config.rloc4), (2, config.rloc6)] {
            if config.families & family != 0 {
                tables.config.rlocs.extend(Rloc::new(rloc.into()).ok());
            }
        }
        let mut ips = BTreeMap::<IfIndex, BTreeSet<TenantIp>>::new();
        for (key, _) in self.maps.vap_ips.all()? {
            ips.entry(IfIndex(key.scope)).or_default().extend(TenantIp::new(key.ip.into()).ok());
        }
        for (index, value) in self.maps.vaps.all()? {
            let device = IfIndex(index);
            let vap = value.meaning(ips.remove(&device).unwrap_or_default());
            tables.vaps.extend(vap.filter(|_| attached.contains(&device)).map(|vap| (device, vap)));
        }
        for (key, value) in self.maps.away.all()? {
            let known = Vni::new(key.vni).ok().zip(value.meaning());
            tables.away.extend(known.map(|(vni, to)| ((vni, MacAddr(key.mac)), to)));
        }
        let peers = self.maps.peers.all()?.into_iter();
        tables.peers.extend(peers.map(|(ip, value)| (IpAddr::from(ip), value.into())));
        tables.vns = self.observed_vns()?;
        tables.groups = self.observed_groups(&tables)?;
        self.observe_policies(&mut tables)?;
        Ok(tables)
    }
}
