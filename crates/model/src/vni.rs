//! The 24-bit VXLAN Network Identifier, RFC 7348 section 5.

use core::{fmt, num::NonZeroU32, str::FromStr};
use serde::{Deserialize, Serialize};

/// A VXLAN Network Identifier: 24 bits (RFC 7348 section 5), never 0.
///
/// It is also the LISP Instance-ID of the VN (RFC 8060 section 4.1, low 24 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = u32))]
pub struct Vni(NonZeroU32);

/// Why a number is not a VNI.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VniError {
    /// 0 names no VN.
    #[error("VNID 0 is reserved; choose 1 to 16777215")]
    Zero,
    /// More than 24 bits.
    #[error("VNID {0} does not fit 24 bits; choose 1 to 16777215")]
    TooLarge(u64),
    /// Not a number at all.
    #[error("'{0}' is no VNID; choose a number from 1 to 16777215")]
    NotANumber(String),
}

impl Vni {
    /// The largest VNI.
    pub const MAX: u32 = 0x00FF_FFFF;

    /// Checks `value`.
    ///
    /// # Errors
    /// [`VniError::Zero`] or [`VniError::TooLarge`].
    pub fn new(value: u32) -> Result<Self, VniError> {
        let nonzero = NonZeroU32::new(value).ok_or(VniError::Zero)?;
        if value > Self::MAX {
            return Err(VniError::TooLarge(value.into()));
        }
        Ok(Self(nonzero))
    }

    /// The number, 1 to [`Vni::MAX`].
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl TryFrom<u32> for Vni {
    type Error = VniError;
    fn try_from(value: u32) -> Result<Self, VniError> {
        Self::new(value)
    }
}

impl From<Vni> for u32 {
    fn from(vni: Vni) -> Self {
        vni.get()
    }
}

impl FromStr for Vni {
    type Err = VniError;
    fn from_str(text: &str) -> Result<Self, VniError> {
        let wide: u64 = text.parse().map_err(|_| VniError::NotANumber(text.to_owned()))?;
        u32::try_from(wide).map_err(|_| VniError::TooLarge(wide)).and_then(Self::new)
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.get(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries() {
        assert_eq!(Vni::new(0), Err(VniError::Zero));
        assert_eq!(Vni::new(1).unwrap().get(), 1);
        assert_eq!(Vni::new(Vni::MAX).unwrap().get(), Vni::MAX);
        assert_eq!(Vni::new(Vni::MAX + 1), Err(VniError::TooLarge(0x0100_0000)));
        assert_eq!("99999999999".parse::<Vni>(), Err(VniError::TooLarge(99_999_999_999)));
        assert_eq!("-1".parse::<Vni>(), Err(VniError::NotANumber("-1".into())));
    }

    #[test]
    fn serde_refuses_what_new_refuses() {
        assert!(serde_json::from_str::<Vni>("0").is_err());
        assert!(serde_json::from_str::<Vni>("16777216").is_err());
        assert_eq!(serde_json::from_str::<Vni>("7001").unwrap().get(), 7001);
    }
}
