//! Tenant systems that are on their way, as who is next sees them.

use super::{Registry, RegistryError, keys, read, vns};
use weft_api::GrantView;
use weft_model::{Grant, NveName, TsiName, VnName, XtrId};

impl Registry {
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
        let tx = self.snapshot()?;
        let vni = vns::find(&*tx, vn)?.vni;
        let view: GrantView = read(&*tx, &keys::grant(vni, tsi))?
            .ok_or_else(|| RegistryError::NoTsi { vn: vn.clone(), tsi: tsi.clone() })?;
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
