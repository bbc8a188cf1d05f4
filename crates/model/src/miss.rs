//! What becomes of frames whose destination is asked for, and how many may go to everybody.

use core::fmt;
use serde::{Deserialize, Serialize};

/// What becomes of a tenant system's frame whose destination no table holds, while the Oracle is asked where that
/// is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Miss {
    /// It waits, a second at most and few of them, and is sent on when the answer is there.
    #[default]
    Queue,
    /// The VN's gateway, an NVE, carries it.
    Gateway,
    /// Dropped and counted.
    Drop,
}

/// How many frames a second one VAP may send to everybody, where they are replicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Numbers", into = "Numbers")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Storm))]
pub struct Storm {
    /// Frames a second, at least 1.
    rate: u32,
    /// How many at once, at least 1.
    burst: u32,
}

/// A storm limit that lets nothing pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a storm {what} of 0 lets no frame pass; name at least 1, or have them dropped by `bum: drop`")]
pub struct StormError {
    /// Which number.
    what: &'static str,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Numbers {
    rate: u32,
    burst: u32,
}

impl Storm {
    /// Checks the numbers: `rate` frames a second, `burst` at once.
    ///
    /// # Errors
    /// [`StormError`] when one is 0.
    pub const fn new(rate: u32, burst: u32) -> Result<Self, StormError> {
        match (rate, burst) {
            (0, _) => Err(StormError { what: "rate" }),
            (_, 0) => Err(StormError { what: "burst" }),
            _ => Ok(Self { rate, burst }),
        }
    }

    /// Frames a second.
    #[must_use]
    pub const fn rate(self) -> u32 {
        self.rate
    }

    /// How many at once.
    #[must_use]
    pub const fn burst(self) -> u32 {
        self.burst
    }
}

impl Default for Storm {
    fn default() -> Self {
        Self { rate: 1_000, burst: 200 }
    }
}

impl TryFrom<Numbers> for Storm {
    type Error = StormError;
    fn try_from(Numbers { rate, burst }: Numbers) -> Result<Self, StormError> {
        Self::new(rate, burst)
    }
}

impl From<Storm> for Numbers {
    fn from(Storm { rate, burst }: Storm) -> Self {
        Self { rate, burst }
    }
}

impl fmt::Display for Storm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s, {} at once", self.rate, self.burst)
    }
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Queue => "queue",
            Self::Gateway => "gateway",
            Self::Drop => "drop",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_at_all_is_said_otherwise() {
        for (text, what) in [(r#"{"rate":0,"burst":1}"#, "rate"), (r#"{"rate":1,"burst":0}"#, "burst")] {
            let error = serde_json::from_str::<Storm>(text).unwrap_err().to_string();
            assert!(
                error.contains(&format!("a storm {what} of 0")) && error.contains("`bum: drop`"),
                "{error}"
            );
        }
        let storm: Storm = serde_json::from_str(r#"{"rate":7,"burst":9}"#).unwrap();
        assert_eq!((storm.rate(), storm.burst()), (7, 9));
        assert_eq!(serde_json::to_string(&storm).unwrap(), r#"{"rate":7,"burst":9}"#);
        assert!(serde_json::from_str::<Storm>(r#"{"rate":7}"#).is_err());
    }
}
