//! Whom a rule is about.

use super::GroupName;
use crate::NameError;
use core::{fmt, net::IpAddr, str::FromStr};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The other end: where what comes in is from, where what goes out is to. Written `anybody`, as a prefix or an address,
/// or as `group:NAME`.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Peer {
    /// Whoever it is.
    #[default]
    Anybody,
    /// Who has an address of this prefix; no host bits are set.
    Prefix(IpNet),
    /// The tenant systems of this group, in the same VN.
    Group(GroupName),
}

/// A version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// Why a text names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// None of the forms.
    #[error("'{0}' is nobody a rule can be about; write anybody, a prefix like 10.0.0.0/8, or group:NAME")]
    Unknown(String),
    /// Host bits are set.
    #[error("{0} has host bits set; did you mean {net}?", net = .0.trunc())]
    HostBits(IpNet),
    /// IPv4 addresses in the dress of IPv6 ones.
    #[error("{0} is of IPv4-mapped addresses; write the IPv4 prefix")]
    Mapped(IpNet),
    /// Not the name of a group.
    #[error("after 'group:': {0}")]
    Name(#[from] NameError),
}

impl Peer {
    /// Who has an address of `net`.
    ///
    /// # Errors
    /// [`PeerError::HostBits`] or [`PeerError::Mapped`].
    pub fn prefix(net: IpNet) -> Result<Self, PeerError> {
        match net {
            _ if net.addr() != net.network() => Err(PeerError::HostBits(net)),
            IpNet::V6(v6) if v6.prefix_len() >= 96 && v6.addr().to_ipv4_mapped().is_some() => {
                Err(PeerError::Mapped(net))
            }
            _ => Ok(Self::Prefix(net)),
        }
    }

    /// The version of IP, if this says which.
    #[must_use]
    pub const fn family(&self) -> Option<Family> {
        match self {
            Self::Prefix(IpNet::V4(_)) => Some(Family::Ipv4),
            Self::Prefix(IpNet::V6(_)) => Some(Family::Ipv6),
            Self::Anybody | Self::Group(_) => None,
        }
    }
}

impl Family {
    /// That of an address.
    #[must_use]
    pub const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }
}

impl FromStr for Peer {
    type Err = PeerError;
    fn from_str(text: &str) -> Result<Self, PeerError> {
        if text == "anybody" {
            return Ok(Self::Anybody);
        }
        if let Some(name) = text.strip_prefix("group:") {
            return Ok(Self::Group(name.parse()?));
        }
        let address = || text.parse::<IpAddr>().map(IpNet::from);
        text.parse()
            .or_else(|_| address())
            .map_err(|_| PeerError::Unknown(text.to_owned()))
            .and_then(Self::prefix)
    }
}

impl TryFrom<String> for Peer {
    type Error = PeerError;
    fn try_from(text: String) -> Result<Self, PeerError> {
        text.parse()
    }
}

impl From<Peer> for String {
    fn from(peer: Peer) -> Self {
        peer.to_string()
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anybody => f.write_str("anybody"),
            Self::Prefix(net) => fmt::Display::fmt(net, f),
            Self::Group(name) => write!(f, "group:{name}"),
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        })
    }
}
