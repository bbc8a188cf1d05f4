//! Tenants' questions that limits held back are logged by the period, not one by one.

use std::time::Duration;
use weft_model::Time;

/// Between two lines of the log.
const PERIOD: Duration = Duration::from_secs(30);

/// How many were held back since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// By the limit of a VAP, in the data plane.
    pub(super) at_vaps: u64,
    /// Because too many were under way.
    pub(super) under_way: u64,
}

/// What was said, and when something may be said again.
#[derive(Debug, Default)]
pub(super) struct HeldBack {
    said: Held,
    again: Time,
}

impl HeldBack {
    /// How many more than when this last gave something, if there are any and a period has passed.
    pub(super) fn news(&mut self, now: Time, held: Held) -> Option<Held> {
        if now < self.again || held == self.said {
            return None;
        }
        self.again = now + PERIOD;
        let said = std::mem::replace(&mut self.said, held);
        Some(Held {
            at_vaps: held.at_vaps.saturating_sub(said.at_vaps),
            under_way: held.under_way.saturating_sub(said.under_way),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_period_says_all_of_it() {
        let mut back = HeldBack::default();
        let at = |s| Time::default() + Duration::from_secs(s);
        let held = |at_vaps, under_way| Held { at_vaps, under_way };
        assert_eq!(back.news(at(1), held(0, 0)), None);
        assert_eq!(back.news(at(2), held(5, 0)), Some(held(5, 0)));
        assert_eq!(back.news(at(3), held(9_000, 3)), None);
        assert_eq!(back.news(at(32), held(9_005, 3)), Some(held(9_000, 3)));
        assert_eq!(back.news(at(90), held(9_005, 3)), None);
    }
}
