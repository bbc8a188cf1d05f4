//! Logs that strangers can cause are written at most once a second each.

use super::clock::Clock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Lets one call through per second.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    /// Microseconds: nothing before.
    next: AtomicU64,
    held_back: AtomicU64,
}

impl LogLimit {
    /// Whether to log now; if so, how many were held back since the last one.
    pub(crate) fn pass(&self, clock: Clock) -> Option<u64> {
        let now = clock.now().0;
        let next = self.next.load(Ordering::Relaxed);
        let mine = now >= next
            && self
                .next
                .compare_exchange(next, now.saturating_add(1_000_000), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if mine {
            Some(self.held_back.swap(0, Ordering::Relaxed))
        } else {
            self.held_back.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}
