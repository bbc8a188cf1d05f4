//! The one place that reads the clock and waits: every wait in the lab is for a condition, with a
//! ceiling.
#![allow(clippy::disallowed_methods, reason = "this is the lab's one clock module")]

use std::time::{Duration, Instant};

/// The longest anything in a lab may take to happen.
pub const CEILING: Duration = Duration::from_secs(30);

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(5);

/// The monotonic clock.
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// Calls `condition` every 5 ms until it gives a value or `ceiling` has passed.
///
/// # Errors
/// Whatever `condition` fails with, at once.
pub fn until<T, E>(
    ceiling: Duration,
    mut condition: impl FnMut() -> Result<Option<T>, E>,
) -> Result<Option<T>, E> {
    let end = now() + ceiling;
    loop {
        if let Some(value) = condition()? {
            return Ok(Some(value));
        }
        if now() >= end {
            return Ok(None);
        }
        std::thread::sleep(STEP);
    }
}

/// Like [`until`] for a plain yes or no: whether `condition` came true.
pub fn until_true(ceiling: Duration, mut condition: impl FnMut() -> bool) -> bool {
    until(ceiling, || Ok::<_, std::convert::Infallible>(condition().then_some(())))
        .unwrap_or_default()
        .is_some()
}

/// Sleeps until `deadline`: for senders that keep a pace, never to wait for something.
pub fn pace_until(deadline: Instant) {
    let left = deadline.saturating_duration_since(now());
    if !left.is_zero() {
        std::thread::sleep(left);
    }
}
