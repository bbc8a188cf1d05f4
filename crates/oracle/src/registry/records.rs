//! The values of the store: JSON, so that a backup can be read and a field can be added.

use crate::store::StoreError;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};
use weft_api::KeyAlgorithm;
use weft_model::{Name, NveName, Rloc, SiteId, VnName, Vni, XtrId};

/// An enrolled NVE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NveRecord {
    /// Its name.
    pub name: NveName,
    /// Its xTR-ID.
    pub xtr_id: XtrId,
    /// Its underlay addresses.
    pub rlocs: BTreeSet<Rloc>,
    /// The VNs it may hold tenant systems in; any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vns: Option<BTreeSet<VnName>>,
}

/// A plain xTR.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct XtrRecord {
    /// Its name.
    pub name: Name,
    /// Its identity in grants.
    pub xtr_id: XtrId,
    /// The Site-ID it sends.
    pub site_id: SiteId,
    /// Its addresses.
    pub rlocs: BTreeSet<Rloc>,
    /// Key ID of `key`.
    pub key_id: u8,
    /// The algorithm it must use.
    pub algorithm: KeyAlgorithm,
    /// The pre-shared secret.
    pub key: String,
    /// The secret of publications to it; `key` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pubsub_key: Option<String>,
    /// VNs in which it may ask although no grant names it there.
    pub vns: BTreeMap<Vni, VnName>,
    /// Nonces up to here were used with this key before the xTR was last removed.
    #[serde(default)]
    pub nonce_floor: u64,
}

impl fmt::Debug for XtrRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key stays out of logs.
        f.debug_struct("XtrRecord").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A join token; its key is the SHA-256 of its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Joins left.
    pub uses_left: u32,
    /// Seconds since 1970.
    pub expires_at: u64,
    /// The VNs it is limited to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vns: Option<BTreeSet<VnName>>,
    /// The RLOCs it is limited to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rlocs: Option<BTreeSet<Rloc>>,
    /// The name it is limited to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<NveName>,
}

/// What a join was answered with, for the same question asked again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct JoinRecord {
    pub(super) xtr_id: XtrId,
    pub(super) certificate: String,
    /// Until when the certificate counts, seconds since 1970; 0 when an older version did not say.
    #[serde(default)]
    pub(super) expires_at: u64,
}

/// What a plain xTR that was removed leaves behind, so that its old messages stay old.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NonceFloor {
    /// The highest nonce that was acknowledged.
    pub(super) nonce: u64,
    /// Where its messages came from.
    pub(super) rlocs: BTreeSet<Rloc>,
}

/// Decodes the value of `key`.
///
/// # Errors
/// [`StoreError::Damaged`].
pub(crate) fn decode<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(value).map_err(|e| StoreError::Damaged {
        key: String::from_utf8_lossy(key).into_owned(),
        reason: e.to_string(),
    })
}
