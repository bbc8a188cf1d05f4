//! Where frames end up, by what the kernels hold.

use std::collections::BTreeSet;
use std::net::IpAddr;

use weft_datapath::{Action, Ingress, Learned, Location, Tables, decide};
use weft_model::{Grant, MacAddr, TenantIp, TsiId};
use weft_sim::{Delivered, deliver, frames, vap_of};

use crate::names::{NVES, db, rloc, spy, web};
use crate::state::State;

impl State {
    fn kernels(&self) -> Vec<(&Tables, IpAddr)> {
        (0..NVES).map(|nve| (self.hosts[nve].kernel.get(), rloc(self.family, nve).get())).collect()
    }

    /// Who gets what a tenant system sends to another.
    pub(crate) fn reached(&self, from: &TsiId, to: &Grant) -> BTreeSet<Delivered> {
        let all = self.kernels();
        let Some(from) = self.grants.get().get(from) else { return BTreeSet::new() };
        let mut got = BTreeSet::new();
        for nve in self.in_service(from) {
            let Some(vap) = vap_of(all[nve].0, from) else { continue };
            let frames = to.ips.iter().filter_map(|ip| frames::packet(from, to.mac.get(), *ip));
            got.extend(frames.filter_map(|frame| deliver(&all, nve, vap, &frame)));
        }
        got
    }

    /// What tenant systems send reaches who has the address in their VN, and nobody else, by what the kernels hold now;
    /// and so does what has been under way between the NVEs for any time.
    ///
    /// # Errors
    /// The first frame that does not.
    pub fn true_to_addresses(&self) -> Result<(), String> {
        let [one, other] = &self.hosts;
        let key = (&one.kernel, &other.kernel, &self.grants);
        Result::clone(&self.known.delivered.get(&key, || self.delivers()))
    }

    fn delivers(&self) -> Result<(), String> {
        for host in &self.hosts {
            leads_home(host.kernel.get())?;
        }
        let (store, all) = (self.grants.get(), self.kernels());
        let to: BTreeSet<(MacAddr, TenantIp)> =
            store.all().flat_map(|to| to.ips.iter().map(|ip| (to.mac.get(), *ip))).collect();
        for from in [web(), db(), spy()] {
            let Some(grant) = store.get(&from) else { continue };
            for (mac, ip) in &to {
                let Some(frame) = frames::packet(grant, *mac, *ip) else { continue };
                let sent = self.in_service(grant).into_iter().filter_map(|nve| {
                    vap_of(all[nve].0, grant).and_then(|vap| deliver(&all, nve, vap, &frame))
                });
                // Whenever, and by whatever table, one NVE has sent it to the other.
                let late = (0..NVES).filter_map(|nve| {
                    let (tables, from) = (all[nve].0, all[1 - nve].1);
                    arrives(tables, nve, Ingress::Overlay { vni: grant.tsi.vni.get(), from }, &frame)
                });
                if let Some(got) = sent.chain(late).find(|got| (got.vni, got.mac) != (from.vni, *mac)) {
                    return Err(format!("a frame of {from} for {mac} was delivered to {got:?}"));
                }
            }
        }
        Ok(())
    }
}

fn arrives(tables: &Tables, nve: usize, ingress: Ingress, frame: &[u8]) -> Option<Delivered> {
    match decide(tables, &Learned::default(), ingress, frame).action {
        Action::Deliver(to) => {
            tables.vaps.get(&to).map(|vap| Delivered { nve, vni: vap.vni, mac: vap.mac.get() })
        }
        _ => None,
    }
}

/// What leads to a device here leads to who is there.
fn leads_home(tables: &Tables) -> Result<(), String> {
    for ((vni, mac), location) in &tables.fdb {
        let Location::Local(index) = location else { continue };
        let vap = tables.vaps.get(index);
        if let Some(vap) = vap.filter(|vap| (vap.vni, vap.mac.get()) != (*vni, *mac)) {
            return Err(format!("{mac} of {vni} leads to {} of {}", vap.mac.get(), vap.vni));
        }
    }
    Ok(())
}
