//! The only place that reads clocks.

use std::time::{Instant, SystemTime, UNIX_EPOCH};
use weft_model::Time;

/// Time since the daemon's start, for the cores; and the date, for certificates and tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    #[allow(clippy::disallowed_methods, reason = "the daemon's one clock")]
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// What the cores see.
    pub(crate) fn now(self) -> Time {
        Time::from_micros(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}

/// Seconds since 1970.
#[allow(clippy::disallowed_methods, reason = "certificates and tokens expire at a date")]
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
