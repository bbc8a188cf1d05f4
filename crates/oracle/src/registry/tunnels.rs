//! The tunnel policies of tenant systems.

use super::{Caller, Registry, RegistryError, grants, keys, vns, write};
use crate::store::Revision;
use weft_api::{GrantView, TunnelChange};
use weft_model::{TsiName, VnName};

impl Registry {
    /// Changes the tunnel policy of a tenant system, wherever it is.
    ///
    /// # Errors
    /// [`RegistryError::NoVn`] or [`RegistryError::NoTsi`].
    pub async fn change_tunnel(
        &self,
        vn: VnName,
        tsi: TsiName,
        change: TunnelChange,
    ) -> Result<(GrantView, Revision), RegistryError> {
        self.run(move |tx| {
            let vn = vns::find(tx, &vn)?;
            let mut view = grants::held_by(tx, &vn, &tsi, &Caller::Operator)?;
            let new = change.of(&view.grant.tunnel);
            new.over(&vn.tunnel).check()?;
            // The same again is no news to anybody.
            if new != view.grant.tunnel {
                view.grant.tunnel = new;
                write(tx, keys::grant(vn.vni, &tsi), &view)?;
            }
            Ok(view)
        })
        .await
    }
}
