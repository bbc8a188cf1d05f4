//! Names and roles at hand: what every request asks for, kept in memory, fed by each commit.

use super::{Kind, NveRecord, XtrRecord, decode};
use crate::store::{Change, StoreError, Transaction};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{PoisonError, RwLock},
};
use weft_model::{NveName, Rloc, VnName, VnSpec, Vni, XtrId};

#[derive(Default)]
struct Names {
    nves: BTreeMap<XtrId, NveRecord>,
    xtrs: BTreeMap<XtrId, XtrRecord>,
    vns: BTreeMap<Vni, VnSpec>,
}

/// The NVEs and VNs that exist.
#[derive(Default)]
pub struct Directory {
    names: RwLock<Names>,
}

impl Directory {
    /// Reads the store.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn load(tx: &dyn Transaction) -> Result<Self, StoreError> {
        let mut names = Names::default();
        let mut damaged = None;
        tx.scan(Kind::Nve.prefix(), &mut |key, value| {
            match decode::<NveRecord>(key, value) {
                Ok(nve) => drop(names.nves.insert(nve.xtr_id, nve)),
                Err(e) => damaged = Some(e),
            }
            damaged.is_none()
        })?;
        tx.scan(Kind::Xtr.prefix(), &mut |key, value| {
            match decode::<XtrRecord>(key, value) {
                Ok(xtr) => drop(names.xtrs.insert(xtr.xtr_id, xtr)),
                Err(e) => damaged = Some(e),
            }
            damaged.is_none()
        })?;
        tx.scan(Kind::Vn.prefix(), &mut |key, value| {
            match decode::<VnSpec>(key, value) {
                Ok(vn) => drop(names.vns.insert(vn.vni, vn)),
                Err(e) => damaged = Some(e),
            }
            damaged.is_none()
        })?;
        damaged.map_or(Ok(Self { names: RwLock::new(names) }), Err)
    }

    /// Takes in one change.
    ///
    /// # Errors
    /// [`StoreError::Damaged`].
    pub fn apply(&self, change: &Change) -> Result<(), StoreError> {
        let key = &change.key;
        let Some(kind @ (Kind::Nve | Kind::Vn | Kind::Xtr)) = Kind::of(key) else { return Ok(()) };
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        match (kind, &change.before, &change.after) {
            (Kind::Nve, _, Some(now)) => {
                let nve: NveRecord = decode(key, now)?;
                names.nves.insert(nve.xtr_id, nve);
            }
            (Kind::Nve, Some(was), None) => {
                names.nves.remove(&decode::<NveRecord>(key, was)?.xtr_id);
            }
            (Kind::Xtr, _, Some(now)) => {
                let xtr: XtrRecord = decode(key, now)?;
                names.xtrs.insert(xtr.xtr_id, xtr);
            }
            (Kind::Xtr, Some(was), None) => {
                names.xtrs.remove(&decode::<XtrRecord>(key, was)?.xtr_id);
            }
            (_, _, Some(now)) => {
                let vn: VnSpec = decode(key, now)?;
                names.vns.insert(vn.vni, vn);
            }
            (_, Some(was), None) => {
                names.vns.remove(&decode::<VnSpec>(key, was)?.vni);
            }
            (_, None, None) => {}
        }
        Ok(())
    }

    /// The NVE, if it is enrolled.
    #[must_use]
    pub fn nve(&self, id: XtrId) -> Option<NveRecord> {
        self.names.read().unwrap_or_else(PoisonError::into_inner).nves.get(&id).cloned()
    }

    /// The NVE or plain xTR of that name.
    #[must_use]
    pub fn holder_named(&self, name: &NveName) -> Option<XtrId> {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let nve = names.nves.values().find(|nve| nve.name == *name).map(|nve| nve.xtr_id);
        nve.or_else(|| names.xtrs.values().find(|xtr| xtr.name == *name).map(|xtr| xtr.xtr_id))
    }

    /// Name and addresses of an NVE or plain xTR.
    #[must_use]
    pub fn holder(&self, id: XtrId) -> Option<(NveName, BTreeSet<Rloc>)> {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let nve = names.nves.get(&id).map(|nve| (nve.name.clone(), nve.rlocs.clone()));
        nve.or_else(|| names.xtrs.get(&id).map(|xtr| (xtr.name.clone(), xtr.rlocs.clone())))
    }

    /// The plain xTRs.
    #[must_use]
    pub fn xtrs(&self) -> Vec<XtrRecord> {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        names.xtrs.values().cloned().collect()
    }

    /// The VN's name.
    #[must_use]
    pub fn vn(&self, vni: Vni) -> Option<VnName> {
        self.names.read().unwrap_or_else(PoisonError::into_inner).vns.get(&vni).map(|vn| vn.name.clone())
    }

    /// The VNID of a VN.
    #[must_use]
    pub fn vni(&self, name: &VnName) -> Option<Vni> {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        names.vns.values().find(|vn| vn.name == *name).map(|vn| vn.vni)
    }

    /// How many NVEs and VNs there are.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        (names.nves.len(), names.vns.len())
    }
}
