//! VAPs without an interface: found in the kernel by a restarted agent whose state file does not name them.
//! One was attached in the last moment before a crash, and answered: the first list of grants tells whose
//! it is, and until then it stays in service. Others are closed ones that nobody detached.

use super::tsi::Tsi;
use super::{Cause, Core, Device, Notice};
use std::collections::BTreeMap;
use weft_datapath::{IfIndex, Location, Neighbour, Op, Tables, Vap};
use weft_model::{Grant, TsiId};

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Orphan {
    pub(super) device: Device,
    pub(super) vap: Vap,
    pub(super) claim: Claim,
}

/// Who an orphan belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Claim {
    /// No list of grants was seen yet.
    Unknown,
    /// To this grant, of this revision; its VN's name is not known yet.
    Granted(u64, Box<Grant>),
    /// To nobody: closed until its device is gone or attached.
    Nobody,
}

impl Core {
    /// Keeps the VAPs that the data plane was observed to hold and that no restored interface is at, with
    /// what it holds of their addresses. Call after [`Core::adopt`].
    pub fn keep_orphans(&mut self, devices: &[Device], observed: &Tables) {
        for (index, vap) in &observed.vaps {
            let Some(device) = devices.iter().find(|device| device.index == *index) else { continue };
            if self.vaps.contains_key(index) {
                continue;
            }
            let claim = if vap.activated { Claim::Unknown } else { Claim::Nobody };
            // Nobody moves here by it.
            let vap = Vap { waits: false, ..vap.clone() };
            self.orphans.insert(*index, Orphan { device: device.clone(), vap: vap.clone(), claim });
            self.apply(Op::SetVap(*index, vap.clone()));
            if !vap.activated {
                continue;
            }
            let (location, key) = (Location::Local(*index), (vap.vni, vap.mac.get()));
            if observed.fdb.get(&key) == Some(&location) && !self.tables.fdb.contains_key(&key) {
                self.apply(Op::SetLocation(key.0, key.1, location));
            }
            let at = Neighbour::At(key.1);
            for ip in &vap.ips {
                let key = (vap.vni, *ip);
                if observed.neighbours.get(&key) == Some(&at) && !self.tables.neighbours.contains_key(&key) {
                    self.apply(Op::SetNeighbour(vap.vni, *ip, at));
                }
            }
        }
    }

    /// A list of grants: the first tells whose an orphan is.
    pub(super) fn claim_orphans(&mut self, revision: u64, grants: &BTreeMap<TsiId, Grant>) {
        let open = self.orphans.iter().filter(|(_, orphan)| orphan.claim != Claim::Nobody);
        let open: Vec<(IfIndex, Vap)> = open.map(|(index, orphan)| (*index, orphan.vap.clone())).collect();
        for (index, vap) in open {
            let me = self.config.xtr_id;
            let its = |grant: &&Grant| {
                (grant.tsi.vni, grant.mac) == (vap.vni, vap.mac)
                    && grant.owner == me
                    && !self.tsis.contains_key(&grant.tsi)
            };
            match grants.values().find(its).cloned() {
                Some(grant) => {
                    if let Some(orphan) = self.orphans.get_mut(&index) {
                        orphan.claim = Claim::Granted(revision, Box::new(grant));
                    }
                    self.adopt_orphan(index);
                }
                None => self.close_orphan(index),
            }
        }
    }

    /// A VN's name is known, or a call has ended: the orphans that may have waited for that.
    pub(super) fn adopt_orphans(&mut self) {
        let waiting: Vec<IfIndex> = self.orphans.keys().copied().collect();
        for index in waiting {
            self.adopt_orphan(index);
        }
    }

    /// Makes the interface that an orphan is the VAP of, once all is known of it.
    fn adopt_orphan(&mut self, index: IfIndex) {
        let Some(Orphan { device, claim: Claim::Granted(revision, grant), .. }) = self.orphans.get(&index)
        else {
            return;
        };
        let id = grant.tsi.clone();
        let Some(vn) = self.vns.get(&id.vni).map(|vn| vn.name.clone()) else { return };
        let name = (vn.clone(), id.name.clone());
        // Whoever was attached, or let go, by that name or at that device since knows better.
        if self.tsis.contains_key(&id)
            || self.by_name.contains_key(&name)
            || self.by_device.contains_key(&device.name)
            || self.releases.by_name.contains_key(&name)
        {
            self.close_orphan(index);
            return;
        }
        if self.is_busy(&name.0, &name.1) {
            // A call about it is under way; when it ends this is looked at again.
            return;
        }
        let (tsi, epoch) = (Tsi::new(vn, Grant::clone(grant), *revision, device.clone(), true), grant.epoch);
        self.insert_tsi(tsi);
        self.because(&id, Cause::Hypervisor);
        self.activate(&id, None);
        self.notice(Notice::Activated(id, epoch));
    }

    /// An interface that has a part in nothing any more leaves its VAP behind, closed.
    pub(super) fn orphan(&mut self, tsi: &Tsi) {
        let Some(vap) = self.tables.vaps.get(&tsi.device.index).cloned() else { return };
        self.orphans
            .insert(tsi.device.index, Orphan { device: tsi.device.clone(), vap, claim: Claim::Nobody });
        self.close_orphan(tsi.device.index);
    }

    fn close_orphan(&mut self, index: IfIndex) {
        self.forget_addresses(index);
        let Some(orphan) = self.orphans.get_mut(&index) else { return };
        orphan.claim = Claim::Nobody;
        let vap = &mut orphan.vap;
        if std::mem::take(&mut vap.activated) | std::mem::take(&mut vap.waits) {
            let op = Op::SetVap(index, orphan.vap.clone());
            self.apply(op);
        }
    }

    /// The device is an interface's from now on, with its VAP, or is gone. Addresses that are the
    /// interface's too stay in the tables.
    pub(super) fn end_orphan(&mut self, index: IfIndex) {
        self.forget_addresses(index);
        self.orphans.remove(&index);
    }

    /// Takes what the tables hold of an orphan's addresses out, unless it is somebody's.
    fn forget_addresses(&mut self, index: IfIndex) {
        let Some(Orphan { vap, .. }) = self.orphans.get(&index).filter(|orphan| orphan.vap.activated) else {
            return;
        };
        let (vni, mac, ips) = (vap.vni, vap.mac.get(), vap.ips.clone());
        let at = self.tables.fdb.get(&(vni, mac)) == Some(&Location::Local(index));
        if at && !self.local_macs.contains_key(&(vni, mac)) {
            self.apply(Op::RemoveLocation(vni, mac));
        }
        for ip in ips {
            let key = (vni, ip);
            let at = self.tables.neighbours.get(&key) == Some(&Neighbour::At(mac));
            if at && !self.local_ips.contains_key(&key) && !self.cache.ips.contains_key(&key) {
                self.apply(Op::RemoveNeighbour(vni, ip));
            }
        }
    }
}
