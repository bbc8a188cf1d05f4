//! The agent's one clock.
#![allow(clippy::disallowed_methods)] // This module is what the ban points to.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use weft_model::Time;

/// Time since the agent's start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that begins now.
    pub(super) fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// Now.
    pub(super) fn now(self) -> Time {
        Time::default() + self.origin.elapsed()
    }

    /// When the runtime's timer has to go off for `at`.
    pub(super) fn instant(self, at: Time) -> tokio::time::Instant {
        let span = at.since(Time::default()).min(Duration::from_secs(86_400 * 365));
        tokio::time::Instant::from_std(self.origin + span)
    }
}

/// Microseconds since 1970: numbers that begin with it are higher than those of earlier runs.
pub(super) fn micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.ok().and_then(|since| u64::try_from(since.as_micros()).ok()).unwrap_or_default()
}

/// Seconds since 1970: certificates are dated by the calendar.
pub(super) fn date() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Milliseconds since 1970.
pub(super) fn date_ms() -> u64 {
    let ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis());
    u64::try_from(ms).unwrap_or(u64::MAX)
}
