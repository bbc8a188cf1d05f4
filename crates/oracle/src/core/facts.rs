//! Durable facts: what the store says, replayed at the start and then as each is committed.

use std::collections::{BTreeMap, BTreeSet};

use weft_lisp::Algorithm;
use weft_model::{Grant, NveName, Rloc, SiteId, TsiId, VnSpec, Vni, XtrId};

/// One durable fact. A shard ignores facts about VNs that are not its own, so all shards may be given all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Fact {
    /// A VN exists, or has changed.
    Vn(VnSpec),
    /// A VN is deleted.
    VnGone(Vni),
    /// A TSI is granted, or its grant has changed.
    Grant(Grant),
    /// A TSI is released.
    GrantGone(TsiId),
    /// An NVE is enrolled, or its RLOCs have changed.
    Nve(NveFact),
    /// An NVE is removed: whatever it registered no longer counts.
    NveGone(XtrId),
    /// A plain RFC 9301 xTR is configured, or the nonce saved for it has risen.
    Xtr(XtrFact),
    /// All facts of the store have been named: questions may be answered now.
    FactsLoaded,
}

/// An enrolled NVE.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NveFact {
    /// Its xTR-ID.
    pub xtr_id: XtrId,
    /// Its name.
    pub name: NveName,
    /// Its RLOCs, the preferred one first. An answer from a grant names them all.
    pub rlocs: Vec<Rloc>,
}

/// A plain RFC 9301 xTR, known by configuration. Removed by [`Fact::NveGone`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct XtrFact {
    /// The identity that grants name. Also the xTR-ID it sends, if it sends one.
    pub xtr_id: XtrId,
    /// The Site-ID it sends with its xTR-ID.
    pub site_id: SiteId,
    /// Its RLOCs: where its messages come from, and the only locators it may register.
    pub rlocs: Vec<Rloc>,
    /// Key ID of `key`.
    pub key_id: u8,
    /// The algorithm it must use. [`Algorithm::None`] refuses every Map-Register.
    pub algorithm: Algorithm,
    /// The pre-shared secret.
    pub key: Vec<u8>,
    /// The secret of publications (RFC 9437 section 7.1); `key` when absent.
    pub pubsub_key: Option<Vec<u8>>,
    /// VNs in which it may ask although no grant names it there.
    pub vnis: BTreeSet<Vni>,
    /// The last nonce saved: only a higher one is accepted.
    pub saved_nonce: u64,
    /// By the EID-Prefix, the last nonce of a subscription that was saved: only a higher one is accepted.
    pub subscription_nonces: BTreeMap<weft_lisp::Eid, u64>,
}

impl std::fmt::Debug for XtrFact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> core::fmt::Result {
        // The key stays out of logs and of dumps of failed assertions.
        f.debug_struct("XtrFact")
            .field("xtr_id", &self.xtr_id)
            .field("site_id", &self.site_id)
            .field("rlocs", &self.rlocs)
            .field("key_id", &self.key_id)
            .field("algorithm", &self.algorithm)
            .field("vnis", &self.vnis)
            .field("saved_nonce", &self.saved_nonce)
            .field("subscription_nonces", &self.subscription_nonces)
            .finish_non_exhaustive()
    }
}
