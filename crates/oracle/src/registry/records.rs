//! The values of the store: JSON, so that a backup can be read and a field can be added.

use crate::store::StoreError;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeSet;
use weft_model::{NveName, Rloc, VnName, XtrId};

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
