//! Tenant systems as who has them, or is next on their way, sees them.

use super::{Caller, Registry, RegistryError, grants, keys, read, vns};
use weft_api::GrantView;
use weft_model::{Grant, NveName, TsiName, VnName, XtrId};

impl Registry {
    /// The grant of a tenant system that `nve` owns. Reads the store, too.
    ///
    /// # Errors
    /// [`RegistryError::NoVn`], [`RegistryError::NoTsi`], [`RegistryError::GrantedElsewhere`].
    pub fn held_by(&self, vn: &VnName, tsi: &TsiName, nve: XtrId) -> Result<Grant, RegistryError> {
        let view = self.granted(vn, tsi)?;
        if view.grant.owner != nve {
            let (vn, tsi, epoch) = (vn.clone(), tsi.clone(), view.grant.epoch);
            return Err(RegistryError::GrantedElsewhere { vn, tsi, owner: view.nve, epoch });
        }
        Ok(view.grant)
    }

    fn granted(&self, vn: &VnName, tsi: &TsiName) -> Result<GrantView, RegistryError> {
        let tx = self.snapshot()?;
        let vni = vns::find(&*tx, vn)?.vni;
        let view = read(&*tx, &keys::grant(vni, tsi))?;
        view.ok_or_else(|| RegistryError::NoTsi { vn: vn.clone(), tsi: tsi.clone() })
    }

    /// Whether `caller` may call a move off, or say where else it goes. Reads the store: for a thread that may wait.
    ///
    /// # Errors
    /// [`RegistryError::NoVn`], [`RegistryError::NoTsi`] or [`RegistryError::GrantedElsewhere`].
    pub fn may_end_move(&self, vn: &VnName, tsi: &TsiName, caller: &Caller) -> Result<(), RegistryError> {
        let tx = self.snapshot()?;
        let vn = vns::find(&*tx, vn)?;
        grants::named_by(&*tx, &vn, tsi, caller).map(drop)
    }

    /// The grant of a tenant system that moves to `nve`, which has this name. Reads the store: for a thread that may wait.
    ///
    /// # Errors
    /// [`RegistryError::NoVn`], [`RegistryError::NoTsi`], [`RegistryError::NotNext`].
    pub fn moving_to(
        &self,
        vn: &VnName,
        tsi: &TsiName,
        nve: XtrId,
        name: &NveName,
    ) -> Result<Grant, RegistryError> {
        let view = self.granted(vn, tsi)?;
        match view.grant.next {
            Some(next) if next.nve == nve && view.grant.owner != nve => Ok(view.grant),
            _ => Err(RegistryError::NotNext {
                vn: vn.clone(),
                tsi: tsi.clone(),
                nve: name.clone(),
                owner: view.nve,
            }),
        }
    }
}
