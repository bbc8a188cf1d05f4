//! What a rule is about: an IP protocol, and ports or ICMP types of it.

use core::{fmt, str::FromStr};
use serde::{Deserialize, Serialize};

/// An IP protocol by its number, or any. Those with a name are written by it.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, example = "tcp"))]
pub struct Protocol(Option<u8>);

/// A text that names no protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no protocol; write tcp, udp, icmp, icmpv6, any or a number up to 255")]
pub struct ProtocolError(pub String);

/// Ports of TCP or UDP, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PortRange {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

/// A type of ICMP or ICMPv6 message, with one of its codes or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IcmpType {
    /// The type.
    pub r#type: u8,
    /// The code; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
}

const NAMES: [(&str, Protocol); 5] = [
    ("any", Protocol::ANY),
    ("tcp", Protocol::TCP),
    ("udp", Protocol::UDP),
    ("icmp", Protocol::ICMP),
    ("icmpv6", Protocol::ICMPV6),
];

impl Protocol {
    /// Whatever the protocol is.
    pub const ANY: Self = Self(None);
    /// TCP.
    pub const TCP: Self = Self(Some(6));
    /// UDP.
    pub const UDP: Self = Self(Some(17));
    /// ICMP, of IPv4.
    pub const ICMP: Self = Self(Some(1));
    /// ICMPv6.
    pub const ICMPV6: Self = Self(Some(58));

    /// The protocol of this number.
    #[must_use]
    pub const fn of(number: u8) -> Self {
        Self(Some(number))
    }

    /// The number; none for any.
    #[must_use]
    pub const fn number(self) -> Option<u8> {
        self.0
    }

    /// Whether it has ports.
    #[must_use]
    pub fn has_ports(self) -> bool {
        self == Self::TCP || self == Self::UDP
    }

    /// Whether it has types and codes.
    #[must_use]
    pub fn has_types(self) -> bool {
        self == Self::ICMP || self == Self::ICMPV6
    }
}

impl FromStr for Protocol {
    type Err = ProtocolError;
    fn from_str(text: &str) -> Result<Self, ProtocolError> {
        let named = NAMES.into_iter().find(|(name, _)| *name == text).map(|(_, protocol)| protocol);
        let number = || text.parse().ok().filter(|_| !text.starts_with('+')).map(Self::of);
        named.or_else(number).ok_or_else(|| ProtocolError(text.to_owned()))
    }
}

impl TryFrom<String> for Protocol {
    type Error = ProtocolError;
    fn try_from(text: String) -> Result<Self, ProtocolError> {
        text.parse()
    }
}

impl From<Protocol> for String {
    fn from(protocol: Protocol) -> Self {
        protocol.to_string()
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (NAMES.into_iter().find(|(_, protocol)| protocol == self), self.0) {
            (Some((name, _)), _) => f.pad(name),
            (None, number) => fmt::Display::fmt(&number.unwrap_or_default(), f),
        }
    }
}

impl fmt::Debug for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { first, last } if first == last => write!(f, "{first}"),
            Self { first, last } => write!(f, "{first}-{last}"),
        }
    }
}

impl fmt::Display for IcmpType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "{}.{code}", self.r#type),
            None => write!(f, "{}", self.r#type),
        }
    }
}
