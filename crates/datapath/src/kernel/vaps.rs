//! VAPs and how many of them a VN has.

use super::{
    Kernel,
    abi::{Ip, ScopedIp, VapValue, VnValue},
    pins::Role,
};
use crate::{DatapathError, IfIndex, Vap};
use std::collections::BTreeSet;
use weft_model::{TenantIp, Vni};

impl Kernel {
    /// The quick half of [`Op::SetVap`]: from now on frames are delivered to the VAP, and those from it taken
    /// where its program runs, so attach that first: what it answers would be lost.
    ///
    /// # Errors
    /// [`DatapathError::Full`], or what the kernel says.
    pub fn set_vap(&mut self, device: IfIndex, vap: &Vap) -> Result<(), DatapathError> {
        let is_new = !self.vaps.contains_key(&device);
        let written = self.write_vap(device, vap);
        if written.is_err() && is_new {
            self.remove_vap(device)?;
        }
        written
    }

    fn write_vap(&mut self, device: IfIndex, vap: &Vap) -> Result<(), DatapathError> {
        let old = self.maps.vaps.get(&device.0)?;
        let key = |ip: TenantIp| ScopedIp { scope: device.0, ip: Ip::from(ip.get()) };
        let slot = self.slot(vap.vni)?;
        // Noted before it is written, so that what a failure leaves behind is known.
        let (old_vni, had) = self.vaps.entry(device).or_insert((vap.vni, BTreeSet::new()));
        let (old_vni, before) = (*old_vni, had.clone());
        had.extend(&vap.ips);
        for ip in vap.ips.difference(&before) {
            self.maps.vap_ips.set(&key(*ip), &1)?;
        }
        let mode = self.lists.mode(vap.vni);
        let since = self.stay(vap, old.as_ref(), (old_vni, &before));
        let open_interval = self.open_interval;
        let value = VapValue::new(vap, slot, mode, self.bucket, old.as_ref());
        self.maps.vaps.set(&device.0, &VapValue { ifindex: device.0, open_interval, since, ..value })?;
        for ip in before.difference(&vap.ips) {
            self.maps.vap_ips.remove(&key(*ip))?;
        }
        self.vaps.insert(device, (vap.vni, vap.ips.clone()));
        if old_vni != vap.vni {
            self.lists.vaps.remove(&mut self.maps.vn_vaps, old_vni, device.0)?;
        }
        self.lists.vaps.insert(&mut self.maps.vn_vaps, vap.vni, device.0)?;
        for vni in BTreeSet::from([old_vni, vap.vni]) {
            self.count_vn(vni)?;
        }
        Ok(())
    }

    /// Where this VN's frequent counts are; a free place, zeroed, if it has none.
    fn slot(&mut self, vni: Vni) -> Result<u32, DatapathError> {
        if let Some(slot) = self.slots.get(&vni) {
            return Ok(*slot);
        }
        let taken: BTreeSet<u32> = self.slots.values().copied().collect();
        let limit = self.limits.vaps;
        let slot =
            (0..limit).find(|s| !taken.contains(s)).ok_or(DatapathError::Full { map: "vns", limit })?;
        self.maps.reset_hot(slot)?;
        self.maps.vns.set(&vni.get(), &VnValue { vaps: 0, slot })?;
        self.slots.insert(vni, slot);
        Ok(slot)
    }

    /// Writes how many VAPs a VN has here; none, and the VN is unknown and its counters are gone.
    pub(super) fn count_vn(&mut self, vni: Vni) -> Result<(), DatapathError> {
        let vaps = self.vaps.values().filter(|(v, _)| *v == vni).count();
        match u32::try_from(vaps).unwrap_or(u32::MAX) {
            0 => {
                self.maps.vns.remove(&vni.get())?;
                self.slots.remove(&vni);
                self.maps.forget_counts(vni.get())
            }
            vaps => {
                let slot = self.slot(vni)?;
                self.maps.vns.set(&vni.get(), &VnValue { vaps, slot })
            }
        }
    }

    pub(super) fn remove_vap(&mut self, device: IfIndex) -> Result<(), DatapathError> {
        self.leave_stay(device)?;
        self.maps.vaps.remove(&device.0)?;
        if let Some((vni, ips)) = self.vaps.get(&device).cloned() {
            for ip in ips {
                self.maps.vap_ips.remove(&ScopedIp { scope: device.0, ip: ip.get().into() })?;
            }
            self.lists.vaps.remove(&mut self.maps.vn_vaps, vni, device.0)?;
            self.vaps.remove(&device);
            self.count_vn(vni)?;
        }
        self.pins.unlink(Role::Vap, device)
    }
}
