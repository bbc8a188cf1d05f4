//! From the store's changes to the mapping database's facts.

use super::{Kind, NveRecord, XtrRecord, decode};
use crate::{
    core::{Fact, NveFact, XtrFact},
    store::{Change, StoreError},
};
use std::collections::BTreeMap;
use weft_api::{GrantView, KeyAlgorithm};
use weft_lisp::Algorithm;
use weft_model::VnSpec;

/// The fact that a change means, if it is one for the mapping database.
///
/// # Errors
/// [`StoreError::Damaged`].
pub fn fact(change: &Change) -> Result<Option<Fact>, StoreError> {
    let Some(kind) = Kind::of(&change.key) else { return Ok(None) };
    let key = &change.key;
    let fact = match (&change.after, &change.before) {
        (Some(now), _) => match kind {
            Kind::Vn => Fact::Vn(decode::<VnSpec>(key, now)?),
            Kind::Grant => Fact::Grant(decode::<GrantView>(key, now)?.grant),
            Kind::Nve => {
                let NveRecord { name, xtr_id, rlocs, .. } = decode(key, now)?;
                Fact::Nve(NveFact { xtr_id, name, rlocs: rlocs.into_iter().collect() })
            }
            // What NVEs are told of depends on these; no answer does.
            Kind::Group | Kind::Connection => return Ok(None),
            Kind::Xtr => {
                let record: XtrRecord = decode(key, now)?;
                let XtrRecord { xtr_id, site_id, rlocs, key_id, algorithm, .. } = record;
                Fact::Xtr(XtrFact {
                    xtr_id,
                    site_id,
                    rlocs: rlocs.into_iter().collect(),
                    key_id,
                    algorithm: match algorithm {
                        KeyAlgorithm::HmacSha1 => Algorithm::HmacSha1,
                        KeyAlgorithm::HmacSha256 => Algorithm::HmacSha256,
                        KeyAlgorithm::HmacSha256Hkdf => Algorithm::HmacSha256Hkdf,
                    },
                    key: record.key.into_bytes(),
                    pubsub_key: record.pubsub_key.map(String::into_bytes),
                    vnis: record.vns.into_keys().collect(),
                    saved_nonce: record.nonce_floor,
                    // Read with what was saved last, at the start.
                    subscription_nonces: BTreeMap::new(),
                })
            }
        },
        (None, Some(was)) => match kind {
            Kind::Vn => Fact::VnGone(decode::<VnSpec>(key, was)?.vni),
            Kind::Grant => Fact::GrantGone(decode::<GrantView>(key, was)?.grant.tsi),
            Kind::Nve => Fact::NveGone(decode::<NveRecord>(key, was)?.xtr_id),
            Kind::Xtr => Fact::NveGone(decode::<XtrRecord>(key, was)?.xtr_id),
            Kind::Group | Kind::Connection => return Ok(None),
        },
        (None, None) => return Ok(None),
    };
    Ok(Some(fact))
}
