//! Rate limits: token buckets whose clock is an argument.

use weft_model::Time;

const MICRO: u64 = 1_000_000;

/// A token bucket: `burst` at once, `rate` per second in the long run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TokenBucket {
    /// Millionths of a token.
    level: u64,
    filled: Time,
}

impl TokenBucket {
    /// A full bucket.
    pub(crate) fn full(now: Time, burst: u32) -> Self {
        Self { level: u64::from(burst.max(1)) * MICRO, filled: now }
    }

    /// Takes one token, if there is one.
    pub(crate) fn take(&mut self, now: Time, rate: u32, burst: u32) -> bool {
        let passed = now.0.saturating_sub(self.filled.0);
        self.filled = self.filled.max(now);
        let gained = passed.saturating_mul(u64::from(rate.max(1)));
        self.level = self.level.saturating_add(gained).min(u64::from(burst.max(1)) * MICRO);
        match self.level.checked_sub(MICRO) {
            Some(left) => {
                self.level = left;
                true
            }
            None => false,
        }
    }
}

/// A deterministic generator (splitmix64) for nonces: unpredictable to who does not know the seed, which
/// is all that RFC 9301's nonces ask for, and the same in every run with the same seed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Nonces(u64);

impl Nonces {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }
}

/// The finalizer of splitmix64: every bit of the result depends on every bit of `x`.
pub(crate) const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_gives_burst_then_rate() {
        let start = Time::from_secs(5);
        let mut bucket = TokenBucket::full(start, 3);
        let taken = (0..10).filter(|_| bucket.take(start, 10, 3)).count();
        assert_eq!(taken, 3);
        assert!(!bucket.take(Time(start.0 + 99_999), 10, 3));
        assert!(bucket.take(Time(start.0 + 100_000), 10, 3));
        assert!(!bucket.take(Time(start.0 + 100_000), 10, 3));
        // A clock that steps back neither gives nor takes.
        assert!(!bucket.take(Time::default(), 10, 3));
        assert_eq!((0..10).filter(|_| bucket.take(Time::from_secs(100), 10, 3)).count(), 3);
    }

    #[test]
    fn limit_of_one_works() {
        let mut bucket = TokenBucket::full(Time::default(), 1);
        assert!(bucket.take(Time::default(), 1, 1));
        assert!(!bucket.take(Time(999_999), 1, 1));
        assert!(bucket.take(Time(1_000_000), 1, 1));
    }
}
