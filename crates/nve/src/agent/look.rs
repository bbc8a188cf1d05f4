//! Looking for an Oracle's answer before going to sleep.
//!
//! An answer comes within some 100 us, and waking a sleeping process costs about as much again on a
//! machine with little to do. So after a question the driver looks for the answer for a moment, as a
//! network driver's busy polling does. A look that was in vain is not repeated for a while: an Oracle
//! that is slow or away costs no processor.

use std::{num::NonZeroUsize, thread, time::Duration};
use weft_model::Time;

/// How long one look lasts.
const LOOK: Duration = Duration::from_micros(200);
/// The pause after a look in vain: at most a fiftieth of one processor is spent on them.
const PAUSE: Duration = Duration::from_millis(10);

/// Whether to look, and until when.
#[derive(Debug)]
pub(super) struct Look {
    /// With one processor whoever is to answer could not run meanwhile.
    useful: bool,
    not_before: Time,
}

impl Look {
    pub(super) fn new() -> Self {
        let useful = thread::available_parallelism().is_ok_and(|cpus| cpus > NonZeroUsize::MIN);
        Self { useful, not_before: Time::default() }
    }

    /// Calls `answer` until it gives something or the look is over.
    pub(super) fn for_answer<T>(
        &mut self,
        now: impl Fn() -> Time,
        mut answer: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        let mut at = now();
        if !self.useful || at < self.not_before {
            return None;
        }
        let until = at + LOOK;
        while at < until {
            if let Some(found) = answer() {
                return Some(found);
            }
            // Whoever waits for this processor has it first.
            thread::yield_now();
            at = now();
        }
        self.not_before = at + PAUSE;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_look_in_vain_is_followed_by_a_pause() {
        let clock = Cell::new(Duration::from_secs(1));
        let now = || {
            clock.set(clock.get() + Duration::from_micros(10));
            Time::default() + clock.get()
        };
        let mut look = Look { useful: true, not_before: Time::default() };
        assert_eq!(look.for_answer(now, || Some(1)), Some(1));
        let mut asked = 0;
        assert_eq!(
            look.for_answer(now, || {
                asked += 1;
                None::<()>
            }),
            None
        );
        assert!((15..=20).contains(&asked), "{asked}");
        assert_eq!(look.for_answer(now, || Some(2)), None, "not again at once");
        clock.set(clock.get() + PAUSE);
        assert_eq!(look.for_answer(now, || Some(3)), Some(3));
    }
}
