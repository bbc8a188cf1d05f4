//! Where a tenant system's frame ends up, by what the kernels hold.

use std::collections::BTreeSet;
use std::net::IpAddr;

use weft_datapath::{Action, IfIndex, Ingress, Learned, Tables, decide};
use weft_model::{Grant, MacAddr, TsiId, Vni};

use crate::frames;
use crate::world::World;

/// Who got a frame: which NVE delivered it, and to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Delivered {
    /// The NVE.
    pub nve: usize,
    /// The VN of the VAP it was handed to.
    pub vni: Vni,
    /// The MAC address of who is there.
    pub mac: MacAddr,
}

/// The device of a tenant system that is in service in these tables.
#[must_use]
pub fn vap_of(tables: &Tables, grant: &Grant) -> Option<IfIndex> {
    let its = |vap: &weft_datapath::Vap| vap.activated && vap.vni == grant.tsi.vni && vap.mac == grant.mac;
    tables.vaps.iter().find(|(_, vap)| its(vap)).map(|(index, _)| *index)
}

/// Hands a frame of the device `from` to the data path with the tables of the NVE of that index.
#[must_use]
pub fn deliver(all: &[(&Tables, IpAddr)], nve: usize, from: IfIndex, frame: &[u8]) -> Option<Delivered> {
    let (tables, own) = all.get(nve)?;
    let vni = tables.vaps.get(&from)?.vni;
    let sent = decide(tables, &Learned::default(), Ingress::Vap(from), frame);
    match sent.action {
        Action::Deliver(to) => at(tables, nve, to),
        Action::Tunnel { rloc, .. } => {
            let peer = all.iter().position(|(_, ip)| *ip == rloc.get())?;
            let (tables, _) = all.get(peer)?;
            // The device path's, which strips the outer headers before a program sees it.
            let inner = sent.frames.first()?;
            let ingress = Ingress::Overlay { vni: vni.get(), from: *own };
            match decide(tables, &Learned::default(), ingress, inner).action {
                Action::Deliver(to) => at(tables, peer, to),
                _ => None,
            }
        }
        _ => None,
    }
}

fn at(tables: &Tables, nve: usize, to: IfIndex) -> Option<Delivered> {
    tables.vaps.get(&to).map(|vap| Delivered { nve, vni: vap.vni, mac: vap.mac.get() })
}

impl World {
    /// Who gets a frame that a tenant system sends another one, at each NVE that has the first in service. What is
    /// handed to anybody else is a violation.
    pub fn sends(&mut self, from: &TsiId, to: &TsiId) -> BTreeSet<Delivered> {
        let mut got = BTreeSet::new();
        let grants = [from, to].map(|tsi| self.store.grant(tsi).cloned());
        let [Some(from), Some(to)] = grants else { return got };
        let all: Vec<(&Tables, IpAddr)> =
            self.nves.iter().map(|site| (&site.tables, IpAddr::V4(site.v4))).collect();
        for (nve, site) in self.nves.iter().enumerate().filter(|(_, site)| site.host) {
            let Some(vap) = vap_of(&site.tables, &from) else { continue };
            let frames = to.ips.iter().filter_map(|ip| frames::packet(&from, to.mac.get(), *ip));
            got.extend(frames.filter_map(|frame| deliver(&all, nve, vap, &frame)));
        }
        let wrong = got.iter().find(|got| (got.vni, got.mac) != (from.tsi.vni, to.mac.get()));
        if let Some(wrong) = wrong {
            self.violations
                .push(format!("a frame of {} for {} was delivered to {wrong:?}", from.tsi, to.tsi));
        }
        got
    }
}
