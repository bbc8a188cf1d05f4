//! Plain RFC 9301 xTRs.

use super::{Registry, RegistryError, XtrRecord, keys, nves, read, write};
use crate::store::{Revision, StoreError, Transaction};
use std::collections::BTreeMap;
use weft_api::NewXtr;
use weft_model::{Name, XtrId};

/// Shortest secret, characters.
const KEY_MIN: usize = 8;

pub(super) fn find(tx: &dyn Transaction, id: XtrId) -> Result<Option<XtrRecord>, StoreError> {
    read(tx, &keys::xtr(id))
}

/// The highest nonce of a plain xTR that was acknowledged, 0 at first.
pub(crate) fn saved_nonce(tx: &dyn Transaction, id: XtrId) -> Result<u64, StoreError> {
    Ok(read(tx, &keys::nonce(id))?.unwrap_or(0))
}

impl Registry {
    /// Makes a plain xTR known, under the identity `drawn` unless it has one of its own.
    ///
    /// # Errors
    /// Who has the name, identity or RLOC, or what is malformed: see [`RegistryError`].
    pub async fn create_xtr(
        &self,
        new: NewXtr,
        drawn: XtrId,
    ) -> Result<(XtrRecord, Revision), RegistryError> {
        self.run(move |tx| create(tx, &new, drawn)).await
    }

    /// Forgets a plain xTR. With `release` its grants go too; otherwise their number is told.
    ///
    /// # Errors
    /// [`RegistryError::NoXtr`].
    pub async fn remove_xtr(
        &self,
        name: Name,
        release: bool,
    ) -> Result<((XtrRecord, usize), Revision), RegistryError> {
        let pools = self.pools.clone();
        self.run(move |tx| {
            let none = || RegistryError::NoXtr(name.clone());
            let id: XtrId = read(tx, &keys::nve_name(&name))?.ok_or_else(none)?;
            let record = find(tx, id)?.ok_or_else(none)?;
            let count = nves::let_go(tx, &pools, id, release)?;
            tx.delete(keys::xtr(id));
            tx.delete(keys::nonce(id));
            tx.delete(keys::nve_name(&name));
            for rloc in &record.rlocs {
                tx.delete(keys::rloc(rloc.get()));
            }
            Ok((record, count))
        })
        .await
    }

    /// Writes down the nonce of a plain xTR's message that is about to be acknowledged.
    ///
    /// # Errors
    /// [`RegistryError::Store`].
    pub async fn save_nonce(&self, id: XtrId, nonce: u64) -> Result<(), RegistryError> {
        self.run(move |tx| {
            if nonce > saved_nonce(tx, id)? && find(tx, id)?.is_some() {
                write(tx, keys::nonce(id), &nonce)?;
            }
            Ok(())
        })
        .await
        .map(|_| ())
    }
}

fn create(tx: &mut dyn Transaction, new: &NewXtr, drawn: XtrId) -> Result<XtrRecord, RegistryError> {
    let NewXtr { name, rlocs, xtr_id, site_id, key_id, algorithm, key, vns } = new.clone();
    if key.len() < KEY_MIN {
        let message = format!("the secret of '{name}' has {} characters; use at least {KEY_MIN}", key.len());
        return Err(RegistryError::Bad(message));
    }
    let xtr_id = xtr_id.unwrap_or(drawn);
    if nves::find(tx, xtr_id)?.is_some() || find(tx, xtr_id)?.is_some() {
        return Err(RegistryError::XtrIdTaken(xtr_id));
    }
    nves::reserve(tx, &name, xtr_id, &rlocs)?;
    let mut scope = BTreeMap::new();
    for vn in &vns {
        let spec = super::vns::find(tx, vn)?;
        scope.insert(spec.vni, spec.name);
    }
    let record = XtrRecord { name, xtr_id, site_id, rlocs, key_id, algorithm, key, vns: scope };
    write(tx, keys::xtr(xtr_id), &record)?;
    Ok(record)
}
