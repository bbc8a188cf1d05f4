//! VNs that NVEs are connected to without a tenant system in them (RFC 8394 section 3.1; requirement H1).
//!
//! An NVE may have a grant made in any VN of its scope, so that to be told of one by being connected adds nothing to what
//! it may learn. Where it is told of VNs a connection counts as a grant does: by a key among those of its grants.

use super::{Caller, Registry, RegistryError, decode, keys, nves, read, starts, vns, write};
use crate::store::{Revision, StoreError, Transaction};
use weft_api::VnConnection;
use weft_model::{VnName, VnSpec, Vni, XtrId};

impl Registry {
    /// The VNs that an NVE is connected to.
    pub(crate) fn connections_of(
        &self,
        tx: &dyn Transaction,
        nve: XtrId,
    ) -> Result<Vec<VnConnection>, StoreError> {
        let all = nves::vnis_of(tx, nve)?.into_iter();
        all.filter_map(|vni| read(tx, &keys::connection(vni, nve)).transpose()).collect()
    }

    /// Connects an NVE to a VN of its scope; once more is no change.
    ///
    /// # Errors
    /// [`RegistryError::NoVn`], [`RegistryError::OutOfScope`], [`RegistryError::Revoked`],
    /// [`RegistryError::Outlived`] and, for who is no NVE, [`RegistryError::Forbidden`].
    pub async fn connect(&self, vn: VnName, caller: Caller) -> Result<(VnSpec, Revision), RegistryError> {
        self.run(move |tx| {
            let (id, start) = nve(&caller)?;
            starts::check(tx, id, start)?;
            let vn = vns::find(tx, &vn)?;
            let record = nves::find(tx, id)?.ok_or(RegistryError::Revoked(id))?;
            if record.vns.is_some_and(|scope| !scope.contains(&vn.name)) {
                return Err(RegistryError::OutOfScope { nve: record.name, vn: vn.name });
            }
            let key = keys::connection(vn.vni, id);
            if read::<VnConnection>(tx, &key)?.is_none() {
                let (name, vni) = (vn.name.clone(), vn.vni);
                write(tx, key, &VnConnection { vn: name, vni, nve: record.name, xtr_id: id })?;
                tx.put(keys::held_connection(id, vn.vni), Vec::new());
            }
            Ok(vn)
        })
        .await
    }

    /// Ends that; of who is not connected nothing is changed.
    ///
    /// # Errors
    /// [`RegistryError::NoVn`], [`RegistryError::Outlived`] and, for who is no NVE, [`RegistryError::Forbidden`].
    pub async fn disconnect(&self, vn: VnName, caller: Caller) -> Result<(VnSpec, Revision), RegistryError> {
        self.run(move |tx| {
            let (id, start) = nve(&caller)?;
            starts::check(tx, id, start)?;
            let vn = vns::find(tx, &vn)?;
            forget(tx, vn.vni, id);
            Ok(vn)
        })
        .await
    }
}

fn nve(caller: &Caller) -> Result<(XtrId, Option<u64>), RegistryError> {
    match caller {
        Caller::Nve { xtr_id, start, .. } => Ok((*xtr_id, *start)),
        Caller::Operator => Err(RegistryError::Forbidden("an NVE connects itself to a VN".to_owned())),
    }
}

fn forget(tx: &mut dyn Transaction, vni: Vni, nve: XtrId) {
    tx.delete(keys::connection(vni, nve));
    tx.delete(keys::held_connection(nve, vni));
}

/// A VN is deleted, and with it all connections to it.
pub(super) fn forget_vn(tx: &mut dyn Transaction, vni: Vni) -> Result<(), StoreError> {
    let (mut nves, mut damaged) = (Vec::new(), None);
    tx.scan(&keys::connections(vni), &mut |key, value| {
        match decode::<VnConnection>(key, value) {
            Ok(connection) => nves.push(connection.xtr_id),
            Err(e) => damaged = Some(e),
        }
        damaged.is_none()
    })?;
    nves.into_iter().for_each(|nve| forget(tx, vni, nve));
    damaged.map_or(Ok(()), Err)
}

/// An NVE is removed, and with it all its connections.
pub(super) fn forget_nve(tx: &mut dyn Transaction, nve: XtrId) -> Result<(), StoreError> {
    for vni in nves::vnis_of(tx, nve)? {
        forget(tx, vni, nve);
    }
    Ok(())
}
