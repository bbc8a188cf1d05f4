//! Why a registration does not count.

use weft_lisp::tcp::RejectReason;
use weft_model::{Eid, Epoch, TsMac, Vni, XtrId};

/// Why a registration is refused: for the counter, the event and the operator. What its sender is told is
/// [`Refusal::reject_reason`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Refusal {
    /// The store has not been read yet.
    #[error("facts are still being loaded; register again in a moment")]
    NotReady,
    /// An EID that has no VN, is a prefix, or is no address a tenant system can have.
    #[error("'{0}' is no host EID in a VN; register single addresses in an Instance ID LCAF")]
    BadEid(String),
    /// No such VN.
    #[error("VNID {0} is not known; create the VN first")]
    UnknownVn(Vni),
    /// The sender has no grant in the VN.
    #[error("{nve} has no grant in VNID {vni}; attach the tenant system through /v1/grants first")]
    VnOutOfScope {
        /// The VN.
        vni: Vni,
        /// Who registered.
        nve: XtrId,
    },
    /// Nobody has a grant for the EID.
    #[error("{eid} in VNID {vni} is not granted to anybody; ask for the address through /v1/grants first")]
    NotGranted {
        /// The VN.
        vni: Vni,
        /// The EID.
        eid: Eid,
    },
    /// Another NVE has the grant.
    #[error("{eid} in VNID {vni} is granted to {owner} (epoch {epoch}), not to {nve}; deactivate it")]
    HeldBy {
        /// The VN.
        vni: Vni,
        /// The EID.
        eid: Eid,
        /// Who holds it.
        owner: XtrId,
        /// At which epoch.
        epoch: Epoch,
        /// Who registered.
        nve: XtrId,
    },
    /// The successor is active already.
    #[error("{eid} in VNID {vni} has moved from {nve} to {owner} (epoch {epoch}); deactivate it")]
    Superseded {
        /// The VN.
        vni: Vni,
        /// The EID.
        eid: Eid,
        /// Who holds it now.
        owner: XtrId,
        /// At which epoch.
        epoch: Epoch,
        /// Who registered.
        nve: XtrId,
    },
    /// A locator that is not enrolled for the sender.
    #[error("locator {rloc} of {eid} is not enrolled for {nve}; register one of its own RLOCs")]
    ForeignRloc {
        /// The EID.
        eid: Eid,
        /// The locator.
        rloc: String,
        /// Who registered.
        nve: XtrId,
    },
    /// An IP-to-MAC record with a MAC that the grant does not name.
    #[error("{eid} is granted with MAC {granted}, not {mac}; register the granted MAC")]
    WrongMac {
        /// The EID.
        eid: Eid,
        /// The MAC in the grant.
        granted: TsMac,
        /// The locator registered.
        mac: String,
    },
    /// No locator, or too many.
    #[error("{eid} is registered with {count} locators; register 1 to {max}")]
    Locators {
        /// The EID.
        eid: Eid,
        /// How many.
        count: usize,
        /// The most that are taken.
        max: usize,
    },
    /// IP addresses without the record that says where their MAC is.
    #[error("{eid} is registered without a record that names an RLOC; register the MAC's record with it")]
    NoRloc {
        /// The first EID.
        eid: Eid,
    },
    /// Records of several TSIs in one Map-Register on a session.
    #[error("{eid} belongs to another tenant system than the records before it; send one Map-Register each")]
    MixedTsis {
        /// The first EID of another TSI.
        eid: Eid,
    },
    /// No record at all, or too many.
    #[error("a Map-Register with {count} records; send 1 to {max}")]
    Records {
        /// How many.
        count: usize,
        /// The most that are taken.
        max: usize,
    },
    /// An xTR-ID that is not the session's.
    #[error("the Map-Register names {named} on the session of {nve}; register under your own xTR-ID")]
    WrongXtrId {
        /// The xTR-ID in the message.
        named: XtrId,
        /// The session's.
        nve: XtrId,
    },
}

impl Refusal {
    /// Names of the reasons, for metrics, in the order of the variants.
    pub const NAMES: [&'static str; 14] = [
        "not-ready",
        "bad-eid",
        "unknown-vn",
        "vn-out-of-scope",
        "not-granted",
        "held-by",
        "superseded",
        "foreign-rloc",
        "wrong-mac",
        "locators",
        "no-rloc",
        "mixed-tsis",
        "records",
        "wrong-xtr-id",
    ];

    /// Whether a grant that is on its way here may make it right.
    pub(crate) const fn lacks_grant(&self) -> bool {
        matches!(
            self,
            Self::UnknownVn(_) | Self::VnOutOfScope { .. } | Self::NotGranted { .. } | Self::HeldBy { .. }
        )
    }

    /// The address that another NVE holds.
    pub(crate) const fn held_elsewhere(&self) -> Option<(Vni, Eid)> {
        match self {
            Self::HeldBy { vni, eid, .. } | Self::Superseded { vni, eid, .. } => Some((*vni, *eid)),
            _ => None,
        }
    }

    /// The index of this reason's name in [`Refusal::NAMES`].
    #[must_use]
    pub const fn index(&self) -> usize {
        match self {
            Self::NotReady => 0,
            Self::BadEid(_) => 1,
            Self::UnknownVn(_) => 2,
            Self::VnOutOfScope { .. } => 3,
            Self::NotGranted { .. } => 4,
            Self::HeldBy { .. } => 5,
            Self::Superseded { .. } => 6,
            Self::ForeignRloc { .. } => 7,
            Self::WrongMac { .. } => 8,
            Self::Locators { .. } => 9,
            Self::NoRloc { .. } => 10,
            Self::MixedTsis { .. } => 11,
            Self::Records { .. } => 12,
            Self::WrongXtrId { .. } => 13,
        }
    }

    /// The name of this reason, for metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        Self::NAMES.get(self.index()).copied().unwrap_or_default()
    }

    /// What the sender is told.
    #[must_use]
    pub const fn reject_reason(&self) -> RejectReason {
        match self {
            Self::UnknownVn(_)
            | Self::VnOutOfScope { .. }
            | Self::NotGranted { .. }
            | Self::HeldBy { .. }
            | Self::Superseded { .. } => RejectReason::NotASitePrefix,
            Self::WrongXtrId { .. } => RejectReason::AuthenticationFailure,
            Self::ForeignRloc { .. }
            | Self::WrongMac { .. }
            | Self::Locators { .. }
            | Self::NoRloc { .. } => RejectReason::LocatorSetNotAllowed,
            Self::NotReady | Self::BadEid(_) | Self::MixedTsis { .. } | Self::Records { .. } => {
                RejectReason::Undefined
            }
        }
    }
}
