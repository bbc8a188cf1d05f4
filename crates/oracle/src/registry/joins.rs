//! Joining: a token is spent, an NVE becomes known.

use super::{NveRecord, Registry, RegistryError, TokenRecord, keys, nves, read, records::JoinRecord, write};
use crate::{
    pki::{NVE_TTL_S, PkiError, Signed},
    store::Transaction,
};
use std::collections::BTreeSet;
use weft_model::{NveName, Rloc, XtrId};

/// A join that was made or found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The NVE's identity.
    pub xtr_id: XtrId,
    /// Its certificate, PEM.
    pub certificate: String,
    /// Its underlay addresses as they are recorded.
    pub rlocs: BTreeSet<Rloc>,
}

/// A wish to be enrolled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolment {
    /// The token's secret.
    pub secret: String,
    /// SHA-256 of the certificate signing request, hexadecimal.
    pub csr: String,
    /// The NVE.
    pub name: NveName,
    /// Its underlay addresses.
    pub rlocs: BTreeSet<Rloc>,
    /// The identity drawn for it.
    pub xtr_id: XtrId,
}

impl Registry {
    /// Spends a token and records the NVE, or finds what the same request was answered before. `sign`
    /// makes the certificate of an identity.
    ///
    /// A request that is repeated was not answered as far as its NVE knows: its RLOCs count, and a
    /// certificate that has less than half of its life left is made anew.
    ///
    /// # Errors
    /// What is wrong with the token, or who has the name or RLOC: see [`RegistryError`].
    pub async fn join(
        &self,
        wish: Enrolment,
        now: u64,
        sign: impl Fn(XtrId) -> Result<Signed, PkiError> + Send + 'static,
    ) -> Result<Joined, RegistryError> {
        self.run(move |tx| join(tx, &wish, now, &sign)).await.map(|(joined, _)| joined)
    }
}

fn join(
    tx: &mut dyn Transaction,
    wish: &Enrolment,
    now: u64,
    sign: &dyn Fn(XtrId) -> Result<Signed, PkiError>,
) -> Result<Joined, RegistryError> {
    let hash = nves::hash(&wish.secret);
    let mut token: TokenRecord = read(tx, &keys::token(&hash))?.ok_or(RegistryError::TokenUnknown)?;
    nves::fresh(&token, now)?;
    let sign = |id| sign(id).map_err(|e| RegistryError::Certificate(e.to_string()));
    let key = keys::join(&hash, &wish.csr);
    let earlier: Option<JoinRecord> = read(tx, &key)?;
    if let Some(earlier) = earlier
        && let Some(nve) = nves::find(tx, earlier.xtr_id)?.filter(|nve| nve.name == wish.name)
    {
        allowed(&token, wish)?;
        change_rlocs(tx, nve, &wish.rlocs)?;
        let JoinRecord { xtr_id, mut certificate, expires_at } = earlier;
        if expires_at < now.saturating_add(NVE_TTL_S / 2) {
            let signed = sign(xtr_id)?;
            certificate = signed.certificate;
            let expires_at = signed.expires_at;
            write(tx, key, &JoinRecord { xtr_id, certificate: certificate.clone(), expires_at })?;
        }
        return Ok(Joined { xtr_id, certificate, rlocs: wish.rlocs.clone() });
    }
    token.uses_left = token.uses_left.checked_sub(1).ok_or(RegistryError::TokenUsed)?;
    allowed(&token, wish)?;
    let Enrolment { name, rlocs, xtr_id, .. } = wish.clone();
    nves::reserve(tx, &name, xtr_id, &rlocs)?;
    let Signed { certificate, expires_at } = sign(xtr_id)?;
    let vns = token.vns.clone();
    write(tx, keys::nve(xtr_id), &NveRecord { name, xtr_id, rlocs: rlocs.clone(), vns })?;
    write(tx, keys::token(&hash), &token)?;
    write(tx, key, &JoinRecord { xtr_id, certificate: certificate.clone(), expires_at })?;
    Ok(Joined { xtr_id, certificate, rlocs })
}

/// Whether the token is good for the name and the RLOCs.
fn allowed(token: &TokenRecord, wish: &Enrolment) -> Result<(), RegistryError> {
    if let Some(allowed) = token.name.as_ref().filter(|name| **name != wish.name) {
        return Err(RegistryError::TokenName { allowed: allowed.clone(), asked: wish.name.clone() });
    }
    match token.rlocs.as_ref().and_then(|allowed| wish.rlocs.difference(allowed).next()) {
        Some(other) => Err(RegistryError::TokenRloc(*other)),
        None => Ok(()),
    }
}

/// Records other RLOCs for an NVE.
fn change_rlocs(
    tx: &mut dyn Transaction,
    mut nve: NveRecord,
    rlocs: &BTreeSet<Rloc>,
) -> Result<(), RegistryError> {
    if nve.rlocs == *rlocs {
        return Ok(());
    }
    nves::take_rlocs(tx, &nve.name, rlocs)?;
    for gone in nve.rlocs.difference(rlocs) {
        tx.delete(keys::rloc(gone.get()));
    }
    nve.rlocs.clone_from(rlocs);
    write(tx, keys::nve(nve.xtr_id), &nve)?;
    Ok(())
}
