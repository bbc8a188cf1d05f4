//! How much may pass in what time.

use core::{fmt, num::NonZeroU64, str::FromStr};
use serde::{Deserialize, Serialize};

/// Bits a second of the tenant's own Ethernet frames, or no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, example = "100mbit"))]
pub struct Rate(Option<NonZeroU64>);

/// A text that names no rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no rate; write bits a second from 1kbit to 1000gbit, such as 100mbit, or unlimited")]
pub struct RateError(pub String);

/// Octets that may pass at once, at least 1. A larger frame waits for as many, and uses up what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = u32, minimum = 1, maximum = 1_073_741_824))]
pub struct Burst(u32);

/// A burst that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a burst of {0} cannot be; name 1 to {max} octets", max = Burst::MAX.0)]
pub struct BurstError(pub String);

const UNITS: [(&str, u64); 4] = [("gbit", 1_000_000_000), ("mbit", 1_000_000), ("kbit", 1_000), ("bit", 1)];

impl Rate {
    /// No limit.
    pub const UNLIMITED: Self = Self(None);
    /// The lowest limit, bits a second,
    pub const LEAST: u64 = 1_000;
    /// and the highest.
    pub const MOST: u64 = 1_000_000_000_000;

    /// A limit of so many bits a second, if it can be.
    #[must_use]
    pub fn new(bits: u64) -> Option<Self> {
        let bits = NonZeroU64::new(bits).filter(|bits| (Self::LEAST..=Self::MOST).contains(&bits.get()));
        bits.map(|bits| Self(Some(bits)))
    }

    /// Bits a second; none: no limit.
    #[must_use]
    pub const fn bits(self) -> Option<NonZeroU64> {
        self.0
    }
}

impl Burst {
    /// The largest.
    pub const MAX: Self = Self(1 << 30);

    /// So many octets.
    ///
    /// # Errors
    /// [`BurstError`] for 0 and for more than [`Burst::MAX`].
    pub fn new(octets: u32) -> Result<Self, BurstError> {
        if (1..=Self::MAX.0).contains(&octets) {
            Ok(Self(octets))
        } else {
            Err(BurstError(octets.to_string()))
        }
    }

    /// What passes at `bits` a second in 200 ms, the time after which TCP takes what is missing for lost: with much
    /// less a policer lets a fraction of the rate through.
    #[must_use]
    pub fn of_rate(bits: NonZeroU64) -> Self {
        let octets = (bits.get() / 40).max(1);
        u32::try_from(octets).ok().filter(|octets| *octets <= Self::MAX.0).map_or(Self::MAX, Self)
    }

    /// Octets.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl FromStr for Rate {
    type Err = RateError;
    fn from_str(text: &str) -> Result<Self, RateError> {
        if text == "unlimited" {
            return Ok(Self::UNLIMITED);
        }
        let (number, unit) = UNITS
            .iter()
            .find_map(|(word, unit)| Some((text.strip_suffix(word)?, *unit)))
            .unwrap_or((text, 1));
        let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        let bits = number.parse::<u64>().ok().filter(|_| digits).and_then(|number| number.checked_mul(unit));
        bits.and_then(Self::new).ok_or_else(|| RateError(text.to_owned()))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(bits) = self.0 else { return f.pad("unlimited") };
        let (word, unit) = UNITS.iter().find(|(_, unit)| bits.get() % unit == 0).unwrap_or(&("bit", 1));
        f.pad(&format!("{}{word}", bits.get() / unit))
    }
}

impl TryFrom<String> for Rate {
    type Error = RateError;
    fn try_from(text: String) -> Result<Self, RateError> {
        text.parse()
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> Self {
        rate.to_string()
    }
}

impl FromStr for Burst {
    type Err = BurstError;
    fn from_str(text: &str) -> Result<Self, BurstError> {
        Self::new(text.parse().map_err(|_| BurstError(text.to_owned()))?)
    }
}

impl fmt::Display for Burst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl TryFrom<u32> for Burst {
    type Error = BurstError;
    fn try_from(octets: u32) -> Result<Self, BurstError> {
        Self::new(octets)
    }
}

impl From<Burst> for u32 {
    fn from(burst: Burst) -> Self {
        burst.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_written_shortly() {
        for (text, bits, short) in [
            ("1kbit", 1_000, "1kbit"),
            ("100mbit", 100_000_000, "100mbit"),
            ("1500kbit", 1_500_000, "1500kbit"),
            ("2000mbit", 2_000_000_000, "2gbit"),
            ("1001", 1_001, "1001bit"),
            ("1000gbit", Rate::MOST, "1000gbit"),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!((rate.bits().unwrap().get(), rate.to_string().as_str()), (bits, short));
            assert_eq!(short.parse(), Ok(rate));
        }
        assert_eq!("unlimited".parse(), Ok(Rate::UNLIMITED));
        for bad in ["", "bit", "0", "999", "1001gbit", "+5mbit", "1.5mbit", "99999999999999999999gbit"] {
            assert_eq!(bad.parse::<Rate>(), Err(RateError(bad.to_owned())));
        }
    }

    #[test]
    fn usual_bursts() {
        let of = |bits| Burst::of_rate(NonZeroU64::new(bits).unwrap()).get();
        assert_eq!((of(100_000_000), of(1_000), of(1)), (2_500_000, 25, 1));
        assert_eq!(of(Rate::MOST), Burst::MAX.get());
    }
}
