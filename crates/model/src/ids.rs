//! Identifiers of overlay nodes, and the counter that orders their claims.

use core::{fmt, num::NonZeroU32, str::FromStr};
use serde::{Deserialize, Serialize};

/// The 128-bit xTR-ID of an NVE (RFC 9301 section 5.6), given at join and kept for life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, example = "000102030405060708090a0b0c0d0e0f"))]
pub struct XtrId(pub [u8; 16]);

/// The 64-bit Site-ID (RFC 9301 section 5.6). Weft's own NVEs use 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SiteId(pub u64);

/// Drawn at random at each start of a daemon: tells a restart from a reconnect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BootId(pub u64);

/// How often the right to hold a TSI has changed hands: 1 at the first grant, one more at each move.
///
/// Of two claims the one with the higher epoch wins. 32 bits at one move per second last 136 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = u32))]
pub struct Epoch(NonZeroU32);

/// Why a text is not an identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not 32 hexadecimal digits.
    #[error("'{0}' is no xTR-ID; it has 32 hexadecimal digits")]
    XtrId(String),
}

impl Epoch {
    /// The first epoch.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// The epoch `value`, or none for 0.
    #[must_use]
    pub fn new(value: u32) -> Option<Self> {
        NonZeroU32::new(value).map(Self)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// The one after this; stays at the maximum, which no deployment reaches.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The 12-bit Map-Version receivers order UDP answers by (RFC 9302 section 6): 1 to 4095,
    /// never 0, which means "no version".
    #[must_use]
    pub fn map_version(self) -> u16 {
        // In range: the remainder is below 4095.
        u16::try_from((self.get() - 1) % 4095).unwrap_or(0) + 1
    }

    /// The first epoch from this one on that has this Map-Version; none for 0, which is of no epoch.
    #[must_use]
    pub fn at_version(self, version: u16) -> Option<Self> {
        let ahead = (u32::from(version.checked_sub(1)?) % 4095 + 4095 - (self.get() - 1) % 4095) % 4095;
        Some(Self(self.0.saturating_add(ahead)))
    }
}

impl FromStr for XtrId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError::XtrId(text.to_owned());
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        u128::from_str_radix(text, 16).map(|n| Self(n.to_be_bytes())).map_err(|_| bad())
    }
}

impl TryFrom<String> for XtrId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<XtrId> for String {
    fn from(id: XtrId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for XtrId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for XtrId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn map_version_wraps_past_zero() {
        assert_eq!(Epoch::FIRST.map_version(), 1);
        assert_eq!(Epoch::new(4095).unwrap().map_version(), 4095);
        assert_eq!(Epoch::new(4096).unwrap().map_version(), 1);
        assert_eq!(Epoch::new(u32::MAX).unwrap().next().get(), u32::MAX);
    }

    #[test]
    fn the_next_epoch_of_a_version_is_not_before_it() {
        for (from, version, wanted) in [
            (1, 1, 1),
            (5_000, 905, 5_000),
            (5_000, 906, 5_001),
            (5_000, 904, 9_094),
            (4_095, 1, 4_096),
            (u32::MAX, 1, u32::MAX),
        ] {
            let found = Epoch::new(from).unwrap().at_version(version).unwrap();
            assert_eq!(found.get(), wanted, "{version} from {from} on");
        }
        assert_eq!(Epoch::FIRST.at_version(0), None);
    }

    #[test]
    fn xtr_id_text() {
        let id: XtrId = "000102030405060708090a0b0c0d0e0f".parse().unwrap();
        assert_eq!(id.0[15], 15);
        assert_eq!(id.to_string(), "000102030405060708090a0b0c0d0e0f");
        for bad in ["", "00", "+00102030405060708090a0b0c0d0e0f", "000102030405060708090a0b0c0d0e0g"] {
            assert_eq!(bad.parse::<XtrId>(), Err(IdError::XtrId(bad.into())));
        }
    }
}
