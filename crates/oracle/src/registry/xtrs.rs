//! Plain RFC 9301 xTRs.

use super::{
    Registry, RegistryError, XtrRecord, decode, keys, nves, read, records::NonceFloor, subscriptions, write,
};
use crate::store::{Revision, StoreError, Transaction};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use weft_api::NewXtr;
use weft_model::{Name, Rloc, Vni, XtrId};

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
            keep_floor(tx, &record)?;
            tx.delete(keys::xtr(id));
            tx.delete(keys::nonce(id));
            subscriptions::forget(tx, id)?;
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
    let NewXtr { name, rlocs, xtr_id, site_id, key_id, algorithm, key, pubsub_key, vns } = new.clone();
    for secret in [Some(&key), pubsub_key.as_ref()].into_iter().flatten() {
        let length = secret.len();
        if length < KEY_MIN {
            let message = format!("a secret of '{name}' has {length} characters; use at least {KEY_MIN}");
            return Err(RegistryError::Bad(message));
        }
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
    let nonce_floor = floor(tx, &key, xtr_id, &rlocs)?;
    if nonce_floor > 0 {
        write(tx, keys::nonce(xtr_id), &nonce_floor)?;
    }
    let record = XtrRecord {
        name,
        xtr_id,
        site_id,
        rlocs,
        key_id,
        algorithm,
        key,
        pubsub_key,
        vns: scope,
        nonce_floor,
    };
    write(tx, keys::xtr(xtr_id), &record)?;
    Ok(record)
}

fn hash(key: &str) -> String {
    hex::encode(Sha256::digest(key))
}

/// Notes which nonces an xTR that goes away has used: without that, messages of it that somebody kept would
/// count again for whoever is given its key later.
fn keep_floor(tx: &mut dyn Transaction, record: &XtrRecord) -> Result<(), StoreError> {
    let nonce = saved_nonce(tx, record.xtr_id)?.max(record.nonce_floor);
    if nonce == 0 {
        return Ok(());
    }
    let key = keys::nonce_floor(&hash(&record.key), record.xtr_id);
    // It may have been removed before, at other addresses.
    let mut left = read(tx, &key)?.unwrap_or(NonceFloor { nonce, rlocs: BTreeSet::new() });
    left.nonce = left.nonce.max(nonce);
    left.rlocs.extend(&record.rlocs);
    write(tx, key, &left)
}

/// The highest nonce that was used with `key` by an xTR whose messages `id` at `rlocs` would be believed to
/// have sent: they are told by their xTR-ID, or without one by their source.
fn floor(tx: &dyn Transaction, key: &str, id: XtrId, rlocs: &BTreeSet<Rloc>) -> Result<u64, StoreError> {
    let hash = hash(key);
    let (own, mut floor, mut damaged) = (keys::nonce_floor(&hash, id), 0, None);
    tx.scan(&keys::nonce_floors(&hash), &mut |key, value| {
        match decode::<NonceFloor>(key, value) {
            Ok(left) if key == own || !left.rlocs.is_disjoint(rlocs) => floor = left.nonce.max(floor),
            Ok(_) => {}
            Err(e) => damaged = Some(e),
        }
        damaged.is_none()
    })?;
    damaged.map_or(Ok(floor), Err)
}

/// Takes a VN that goes away from the scope of every xTR: its VNID may be another's later.
pub(super) fn forget_vn(tx: &mut dyn Transaction, vni: Vni) -> Result<(), StoreError> {
    let (mut found, mut damaged) = (Vec::new(), None);
    tx.scan(super::Kind::Xtr.prefix(), &mut |key, value| {
        match decode::<XtrRecord>(key, value) {
            Ok(record) if record.vns.contains_key(&vni) => found.push(record),
            Ok(_) => {}
            Err(e) => damaged = Some(e),
        }
        damaged.is_none()
    })?;
    if let Some(e) = damaged {
        return Err(e);
    }
    for mut record in found {
        record.vns.remove(&vni);
        write(tx, keys::xtr(record.xtr_id), &record)?;
    }
    Ok(())
}
