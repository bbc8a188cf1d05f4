//! NVEs, and the tokens by which they become known.

use super::{
    NveRecord, Registry, RegistryError, TokenRecord, connections, decode, grants, keys, moves, pool::Pools,
    read, vns, write, xtrs,
};
use crate::store::{Revision, StoreError, Transaction};
use sha2::{Digest, Sha256};
use std::{collections::BTreeSet, sync::Mutex};
use weft_api::{GrantView, NewToken};
use weft_model::{NveName, Rloc, VnName, Vni, XtrId};

/// Longest token lifetime: a year.
const MAX_TTL_S: u64 = 31_536_000;
/// Most joins with one token.
const MAX_USES: u32 = 100_000;

pub(super) fn find(tx: &dyn Transaction, id: XtrId) -> Result<Option<NveRecord>, StoreError> {
    read(tx, &keys::nve(id))
}

pub(super) fn hash(secret: &str) -> String {
    hex::encode(Sha256::digest(secret))
}

impl Registry {
    /// Stores a token under the hash of `secret` and forgets those that have expired. Gives its id.
    ///
    /// # Errors
    /// [`RegistryError::TokenLimits`] or [`RegistryError::NoVn`].
    pub async fn create_token(
        &self,
        new: NewToken,
        secret: &str,
        now: u64,
    ) -> Result<(TokenRecord, String), RegistryError> {
        let NewToken { uses, ttl_s, vns, rlocs, name } = new;
        if uses == 0 || uses > MAX_USES || ttl_s == 0 || ttl_s > MAX_TTL_S {
            return Err(RegistryError::TokenLimits { uses, ttl_s });
        }
        let vns: Option<BTreeSet<VnName>> = vns.map(|v| v.into_iter().collect());
        let record = TokenRecord { uses_left: uses, expires_at: now.saturating_add(ttl_s), vns, rlocs, name };
        let hash = hash(secret);
        let id = id(&hash);
        let made = self
            .run(move |tx| {
                for vn in record.vns.iter().flatten() {
                    vns::find(tx, vn)?;
                }
                for old in expired(tx, now)? {
                    forget(tx, &old)?;
                }
                write(tx, keys::token(&hash), &record)?;
                Ok(record.clone())
            })
            .await?;
        Ok((made.0, id))
    }

    /// The tokens by id, expired ones included until the next one is made.
    ///
    /// # Errors
    /// [`RegistryError::Store`].
    pub fn tokens(&self) -> Result<Vec<(String, TokenRecord)>, RegistryError> {
        let tx = self.snapshot()?;
        tokens(&*tx)
            .map(|all| all.into_iter().map(|(hash, record)| (id(&hash), record)).collect())
            .map_err(Into::into)
    }

    /// Whether `secret` could be used now: cheap, and asked before anything is computed for a stranger.
    ///
    /// # Errors
    /// [`RegistryError::TokenUnknown`] or [`RegistryError::TokenExpired`].
    pub fn know_token(&self, secret: &str, now: u64) -> Result<(), RegistryError> {
        let record: TokenRecord =
            read(&*self.snapshot()?, &keys::token(&hash(secret)))?.ok_or(RegistryError::TokenUnknown)?;
        fresh(&record, now)
    }

    /// Removes an NVE, whose certificate counts no more from then on. With `release` its grants go
    /// too, and VNs whose gateway it is have none any more; otherwise its grants stay, and their number is told.
    ///
    /// # Errors
    /// [`RegistryError::NoNve`], and [`RegistryError::IsGateway`] without `release`.
    pub async fn remove_nve(
        &self,
        name: NveName,
        release: bool,
    ) -> Result<((NveRecord, usize), Revision), RegistryError> {
        let pools = self.pools.clone();
        self.run(move |tx| {
            let none = || RegistryError::NoNve(name.clone());
            let id: XtrId = read(tx, &keys::nve_name(&name))?.ok_or_else(none)?;
            let record = find(tx, id)?.ok_or_else(none)?;
            vns::let_gateway_go(tx, &name, release)?;
            let count = let_go(tx, &pools, id, release)?;
            connections::forget_nve(tx, id)?;
            tx.delete(keys::nve(id));
            tx.delete(keys::nve_name(&name));
            tx.delete(keys::start(id));
            for rloc in &record.rlocs {
                tx.delete(keys::rloc(rloc.get()));
            }
            Ok((record, count))
        })
        .await
    }
}

impl Registry {
    /// Every grant that names the NVE.
    pub(crate) fn held(&self, tx: &dyn Transaction, nve: XtrId) -> Result<Vec<GrantView>, StoreError> {
        held(tx, nve)
    }

    /// The VNs in which a grant names the NVE, or that it is connected to.
    pub(crate) fn vnis_of(&self, tx: &dyn Transaction, nve: XtrId) -> Result<Vec<Vni>, StoreError> {
        vnis_of(tx, nve)
    }

    /// Whether a grant in the VN names the NVE, or it is connected to it.
    pub(crate) fn holds_in(&self, tx: &dyn Transaction, nve: XtrId, vni: Vni) -> Result<bool, StoreError> {
        let mut any = false;
        tx.scan(&keys::held_in(nve, vni), &mut |_, _| {
            any = true;
            false
        })?;
        Ok(any)
    }
}

/// The VNs in which a grant names the NVE, or that it is connected to.
pub(super) fn vnis_of(tx: &dyn Transaction, nve: XtrId) -> Result<Vec<Vni>, StoreError> {
    let prefix = keys::held(nve);
    let mut vnis = Vec::new();
    tx.scan(&prefix, &mut |key, _| {
        let hex = key.get(prefix.len()..prefix.len() + 6).and_then(|hex| core::str::from_utf8(hex).ok());
        vnis.extend(hex.and_then(|hex| u32::from_str_radix(hex, 16).ok()).and_then(|vni| Vni::new(vni).ok()));
        true
    })?;
    vnis.dedup();
    Ok(vnis)
}

/// Every grant that names `id`.
pub(super) fn held(tx: &dyn Transaction, id: XtrId) -> Result<Vec<GrantView>, StoreError> {
    let prefix = keys::held(id);
    let mut found = Vec::new();
    tx.scan(&prefix, &mut |key, _| {
        let mut grant = b"grant/".to_vec();
        grant.extend_from_slice(key.get(prefix.len()..).unwrap_or_default());
        found.push(grant);
        true
    })?;
    found.iter().filter_map(|key| read(tx, key).transpose()).collect()
}

/// Ends what an NVE or xTR that goes away holds: its grants with `release`; moves to it in any case.
/// The number of its grants.
pub(super) fn let_go(
    tx: &mut dyn Transaction,
    pools: &Mutex<Pools>,
    id: XtrId,
    release: bool,
) -> Result<usize, RegistryError> {
    let held = held(tx, id)?;
    let count = held.iter().filter(|view| view.grant.owner == id).count();
    for mut view in held {
        if view.grant.owner != id {
            // It will not come: the move is off.
            moves::end_move(tx, &mut view)?;
        } else if release && !moves::hand_over(tx, &mut view)? {
            let vn = vns::find(tx, &view.vn)?;
            grants::remove(tx, pools, &vn, &view)?;
        }
    }
    Ok(count)
}

/// Takes a name and RLOCs for an NVE or xTR.
pub(super) fn reserve(
    tx: &mut dyn Transaction,
    name: &NveName,
    id: XtrId,
    rlocs: &BTreeSet<Rloc>,
) -> Result<(), RegistryError> {
    if rlocs.is_empty() {
        return Err(RegistryError::NoRloc);
    }
    if tx.get(&keys::nve_name(name))?.is_some() {
        return Err(RegistryError::NveTaken(name.clone()));
    }
    take_rlocs(tx, name, rlocs)?;
    write(tx, keys::nve_name(name), &id)?;
    Ok(())
}

/// Takes RLOCs for `name`; those it has already are no obstacle.
pub(super) fn take_rlocs(
    tx: &mut dyn Transaction,
    name: &NveName,
    rlocs: &BTreeSet<Rloc>,
) -> Result<(), RegistryError> {
    if rlocs.is_empty() {
        return Err(RegistryError::NoRloc);
    }
    for rloc in rlocs {
        if let Some(holder) = read(tx, &keys::rloc(rloc.get()))?.filter(|holder| holder != name) {
            return Err(RegistryError::RlocTaken { rloc: *rloc, holder });
        }
    }
    for rloc in rlocs {
        write(tx, keys::rloc(rloc.get()), name)?;
    }
    Ok(())
}

/// The name of an NVE or xTR, and the VNs it is limited to.
type Holder = (NveName, Option<BTreeSet<VnName>>);

/// Who may hold tenant systems under this identity.
pub(super) fn holder(tx: &dyn Transaction, id: XtrId) -> Result<Option<Holder>, StoreError> {
    if let Some(nve) = find(tx, id)? {
        return Ok(Some((nve.name, nve.vns)));
    }
    Ok(xtrs::find(tx, id)?.map(|xtr| (xtr.name, None)))
}

/// What lists call a token: a beginning of its hash, which gives nothing away.
fn id(hash: &str) -> String {
    hash.chars().take(12).collect()
}

pub(super) fn fresh(token: &TokenRecord, now: u64) -> Result<(), RegistryError> {
    match now.checked_sub(token.expires_at) {
        Some(ago) => Err(RegistryError::TokenExpired(ago)),
        None => Ok(()),
    }
}

fn tokens(tx: &dyn Transaction) -> Result<Vec<(String, TokenRecord)>, StoreError> {
    let mut found = Vec::new();
    let mut damaged = None;
    tx.scan(keys::TOKENS, &mut |key, value| {
        let hash = key.get(keys::TOKENS.len()..).unwrap_or_default();
        match decode(key, value) {
            Ok(record) => found.push((String::from_utf8_lossy(hash).into_owned(), record)),
            Err(e) => damaged = Some(e),
        }
        damaged.is_none()
    })?;
    damaged.map_or(Ok(found), Err)
}

/// Tokens expired for a day: until then a late joiner is told so.
fn expired(tx: &dyn Transaction, now: u64) -> Result<Vec<String>, StoreError> {
    let old = |record: &TokenRecord| record.expires_at.saturating_add(86_400) < now;
    Ok(tokens(tx)?.into_iter().filter(|(_, record)| old(record)).map(|(hash, _)| hash).collect())
}

fn forget(tx: &mut dyn Transaction, hash: &str) -> Result<(), StoreError> {
    let mut joins = Vec::new();
    tx.scan(&keys::joins(hash), &mut |key, _| {
        joins.push(key.to_vec());
        true
    })?;
    joins.into_iter().for_each(|key| tx.delete(key));
    tx.delete(keys::token(hash));
    Ok(())
}
