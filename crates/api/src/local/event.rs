//! What an NVE tells a hypervisor that follows it (RFC 8394 section 4, Req-6 and Req-9).

use super::Tsi;
use core::fmt;
use serde::{Deserialize, Serialize};
use weft_model::{NveName, TenantIp, TsiName, VnName, XtrId};

/// What became of an interface. New ones may appear: treat [`Happened::Unknown`] as [`Happened::Updated`].
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Happened {
    /// Nothing: all up to this number has been told. A stream begins with one where nothing else is to be told, and
    /// one comes after 10 s without anything else.
    Bookmark,
    /// What came behind the number asked for, up to this one, is not kept any more: list again.
    Missed,
    /// It is held here, and nothing passes.
    Associated,
    /// It is in service.
    Activated,
    /// It is out of service.
    Deactivated,
    /// It is not held here any more.
    DeAssociated,
    /// Its grant, its device or why policy keeps it out of service is another.
    Updated,
    /// The NVE is no longer connected to the VN, which is deleted or not its own any more (RFC 8394's VN_Disconnect).
    VnDisconnected,
    /// It uses `address`, which somebody else has.
    Conflict,
    /// One that this version does not know.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for Happened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bookmark => "bookmark",
            Self::Missed => "missed",
            Self::Associated => "associated",
            Self::Activated => "activated",
            Self::Deactivated => "deactivated",
            Self::DeAssociated => "de-associated",
            Self::Updated => "updated",
            Self::VnDisconnected => "vn-disconnected",
            Self::Conflict => "conflict",
            Self::Unknown => "unknown",
        })
    }
}

/// One line of `GET /v1/events`. Who lists after the first line, and takes in all lines from there, knows what is
/// attached; who asks `after` the last number it has seen goes on where it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Event {
    /// Its number: higher than any before it, also of earlier runs of the NVE.
    pub number: u64,
    /// What happened.
    pub event: Happened,
    /// The VN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vn: Option<VnName>,
    /// The interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tsi: Option<TsiName>,
    /// Why: `hypervisor`, `silent` (its own first frame), `lease_expired`, `grant`, `moved`, `grant_lost`, `vn_deleted`, `device_gone`, `device_back`, `device_renamed`,
    /// `device_stayed_away`, `policy_missing`, `policy_applied` or `refused`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The NVE that it moved to, by its xTR-ID
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_to: Option<XtrId>,
    /// and by its name, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_to_name: Option<NveName>,
    /// The address in conflict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<TenantIp>,
    /// In words, where there is more to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The interface as it is after that; none when it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<Tsi>,
}

impl Event {
    /// A line that is about no interface.
    #[must_use]
    pub fn plain(number: u64, event: Happened) -> Self {
        Self {
            number,
            event,
            vn: None,
            tsi: None,
            cause: None,
            moved_to: None,
            moved_to_name: None,
            address: None,
            detail: None,
            now: None,
        }
    }
}
