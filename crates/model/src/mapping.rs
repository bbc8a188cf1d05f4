//! What a mapping is keyed by, and where an entry came from.

use crate::{MacAddr, TenantIp};
use core::fmt;
use serde::{Deserialize, Serialize};

/// An endpoint identifier inside a VN: the IP or the MAC of TEID = <VNID, IP, MAC>.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Eid {
    /// `<VNID, *, MAC>`.
    Mac(MacAddr),
    /// `<VNID, IP, *>`.
    Ip(TenantIp),
}

/// Where an NVE or Oracle learned an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Origin {
    /// Attached here.
    Local,
    /// From a Map-Reply.
    Reply,
    /// From a Map-Notify.
    Notify,
    /// Pushed with all mappings of its VN: it lives with the subscription, not by a TTL.
    Push,
    /// From frames that came from there, in VNs that learn so.
    Data,
    /// Registered by an NVE (at the Oracle).
    Registration,
    /// Read from a grant whose NVE has not registered again yet (at the Oracle).
    Grant,
}

impl From<TenantIp> for Eid {
    fn from(ip: TenantIp) -> Self {
        Self::Ip(ip)
    }
}

impl From<MacAddr> for Eid {
    fn from(mac: MacAddr) -> Self {
        Self::Mac(mac)
    }
}

impl fmt::Display for Eid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mac(mac) => fmt::Display::fmt(mac, f),
            Self::Ip(ip) => fmt::Display::fmt(ip, f),
        }
    }
}

impl fmt::Debug for Eid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
