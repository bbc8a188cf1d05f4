//! Plain RFC 9301 xTRs: no Weft inside, known by configuration.

use core::fmt;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use weft_model::{Name, Rloc, SiteId, VnName, XtrId};

/// How a plain xTR's messages are authenticated (RFC 9301 section 12.5).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum KeyAlgorithm {
    /// HMAC-SHA-1-96, for old equipment only.
    HmacSha1,
    /// HMAC-SHA-256-128.
    #[default]
    HmacSha256,
    /// HMAC-SHA-256-128 with a key per message, derived by HKDF-SHA256.
    HmacSha256Hkdf,
}

/// A request to know a plain xTR.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewXtr {
    /// Its name; shared with NVEs, so that grants can name either.
    pub name: Name,
    /// Its addresses, at least one: where its messages come from, and the only locators it may register.
    #[schema(value_type = Vec<String>)]
    pub rlocs: BTreeSet<Rloc>,
    /// The xTR-ID it sends, if it sends one; drawn when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xtr_id: Option<XtrId>,
    /// The Site-ID it sends with it.
    #[serde(default)]
    pub site_id: SiteId,
    /// Key ID of the secret.
    #[serde(default)]
    pub key_id: u8,
    /// The algorithm it must use.
    #[serde(default)]
    pub algorithm: KeyAlgorithm,
    /// The pre-shared secret, at least 8 characters.
    pub key: String,
    /// The secret of publications to it (RFC 9437 section 7.1), at least 8 characters; `key` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pubsub_key: Option<String>,
    /// VNs in which it may ask although no grant names it there.
    #[serde(default)]
    pub vns: BTreeSet<VnName>,
}

/// A plain xTR, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct XtrView {
    /// Its name.
    pub name: Name,
    /// Its identity in grants.
    pub xtr_id: XtrId,
    /// Its addresses.
    #[schema(value_type = Vec<String>)]
    pub rlocs: BTreeSet<Rloc>,
    /// Its Site-ID.
    pub site_id: SiteId,
    /// Key ID of its secret.
    pub key_id: u8,
    /// Its algorithm.
    pub algorithm: KeyAlgorithm,
    /// VNs in which it may ask although no grant names it there.
    pub vns: BTreeSet<VnName>,
    /// EID-Prefixes that it is subscribed to at this Oracle (RFC 9437).
    #[serde(default)]
    pub subscriptions: usize,
}

impl fmt::Debug for NewXtr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key stays out of logs.
        f.debug_struct("NewXtr").field("name", &self.name).field("rlocs", &self.rlocs).finish_non_exhaustive()
    }
}
