//! What of the outer headers can be set.

use core::{fmt, str::FromStr};
use serde::{Deserialize, Serialize};

/// The outer TTL (IPv4) or hop limit (IPv6), at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = u8, minimum = 1))]
pub struct Ttl(u8);

/// A TTL by which nothing arrives.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TtlError {
    /// It is 0.
    #[error("a TTL of 0 lets no frame leave; name 1 to 255")]
    Zero,
    /// It is no number of an octet.
    #[error("'{0}' is no TTL; name 1 to 255")]
    NoNumber(String),
}

/// The outer Differentiated Services codepoint (RFC 2474). The ECN field beside it follows RFC 6040 in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Dscp {
    /// This one, 0 to 63.
    Fixed(Codepoint),
    /// The inner packet's (RFC 2983 section 3, the uniform model); 0 of what is no IP.
    Copy,
}

/// A codepoint, 0 to 63.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Codepoint(u8);

/// A text that names no codepoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no DSCP; write 0 to 63, or copy for the inner packet's")]
pub struct DscpError(pub String);

/// The outer UDP source ports, both ends included, over which flows are spread (RFC 7348 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SourcePorts {
    first: u16,
    last: u16,
}

/// A text that names no range of ports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no range of source ports; write the lowest and the highest of 1 to 65535, such as 49152-65535"
)]
pub struct PortsError(pub String);

impl Ttl {
    /// As this many hops.
    ///
    /// # Errors
    /// [`TtlError::Zero`].
    pub const fn new(hops: u8) -> Result<Self, TtlError> {
        if hops == 0 { Err(TtlError::Zero) } else { Ok(Self(hops)) }
    }

    /// Hops.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl Default for Ttl {
    fn default() -> Self {
        Self(64)
    }
}

impl Codepoint {
    /// The codepoint of this number, if it is one.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if number < 64 { Some(Self(number)) } else { None }
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl Default for Dscp {
    fn default() -> Self {
        Self::Fixed(Codepoint(0))
    }
}

impl SourcePorts {
    /// From `first` to `last`, if that is a range of ports.
    #[must_use]
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first == 0 || first > last { None } else { Some(Self { first, last }) }
    }

    /// The lowest.
    #[must_use]
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The highest.
    #[must_use]
    pub const fn last(self) -> u16 {
        self.last
    }
}

/// The dynamic ports, as RFC 7348 section 5 recommends.
impl Default for SourcePorts {
    fn default() -> Self {
        Self { first: 49_152, last: 65_535 }
    }
}

impl TryFrom<u8> for Ttl {
    type Error = TtlError;
    fn try_from(hops: u8) -> Result<Self, TtlError> {
        Self::new(hops)
    }
}

impl From<Ttl> for u8 {
    fn from(ttl: Ttl) -> Self {
        ttl.0
    }
}

impl FromStr for Ttl {
    type Err = TtlError;
    fn from_str(text: &str) -> Result<Self, TtlError> {
        Self::new(text.parse().map_err(|_| TtlError::NoNumber(text.to_owned()))?)
    }
}

impl FromStr for Dscp {
    type Err = DscpError;
    fn from_str(text: &str) -> Result<Self, DscpError> {
        if text == "copy" {
            return Ok(Self::Copy);
        }
        let codepoint = text.parse().ok().and_then(Codepoint::new);
        codepoint.map(Self::Fixed).ok_or_else(|| DscpError(text.to_owned()))
    }
}

impl FromStr for SourcePorts {
    type Err = PortsError;
    fn from_str(text: &str) -> Result<Self, PortsError> {
        let ends = text.split_once('-').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        ends.and_then(|(first, last)| Self::new(first, last)).ok_or_else(|| PortsError(text.to_owned()))
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for Dscp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(codepoint) => fmt::Display::fmt(&codepoint.0, f),
            Self::Copy => f.pad("copy"),
        }
    }
}

impl fmt::Display for SourcePorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

macro_rules! by_text {
    ($($type:ty, $error:ty;)*) => {
        $(
            impl TryFrom<String> for $type {
                type Error = $error;
                fn try_from(text: String) -> Result<Self, $error> {
                    text.parse()
                }
            }

            impl From<$type> for String {
                fn from(value: $type) -> Self {
                    value.to_string()
                }
            }
        )*
    };
}

by_text! {
    Dscp, DscpError;
    SourcePorts, PortsError;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_what_they_say() {
        for text in ["0", "46", "63", "copy"] {
            assert_eq!(text.parse::<Dscp>().unwrap().to_string(), text);
        }
        for text in ["1-1", "49152-65535", "7-9"] {
            assert_eq!(text.parse::<SourcePorts>().unwrap().to_string(), text);
        }
        for text in ["1", "255"] {
            assert_eq!(text.parse::<Ttl>().unwrap().to_string(), text);
        }
        assert_eq!("256".parse::<Ttl>().unwrap_err().to_string(), "'256' is no TTL; name 1 to 255");
        assert_eq!(Dscp::default().to_string(), "0");
        assert_eq!(SourcePorts::default().to_string(), "49152-65535");
    }
}
