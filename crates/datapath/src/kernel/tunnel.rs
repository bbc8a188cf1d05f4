//! Tunnel policy as the programs know it.

use super::abi::MeterValue;
use crate::Meter;
use core::num::NonZeroU64;
use weft_model::{Burst, Codepoint, Dscp};

/// The inner packet's.
const COPY: u8 = 64;

pub(super) const fn dscp_code(dscp: Dscp) -> u8 {
    match dscp {
        Dscp::Fixed(codepoint) => codepoint.get(),
        Dscp::Copy => COPY,
    }
}

pub(super) fn dscp_of(code: u8) -> Option<Dscp> {
    if code == COPY { Some(Dscp::Copy) } else { Codepoint::new(code).map(Dscp::Fixed) }
}

/// Nanoseconds that an octet takes at one bit a second.
const OCTET: u64 = 8_000_000_000;
/// Of what time an octet takes so many bits count, those of a frame's length being 24 at most.
const EXACT: u32 = 40;

/// How long an octet takes at a rate, ns, shifted left by so many bits. Rounded up: no more than the rate passes.
fn octet_time(rate: NonZeroU64) -> (u64, u32) {
    let shifted = |shift: u32| (u128::from(OCTET) << shift).div_ceil(u128::from(rate.get()));
    let shift = (0..64).rev().find(|shift| shifted(*shift) < 1 << EXACT).unwrap_or(0);
    (u64::try_from(shifted(shift)).unwrap_or(u64::MAX), shift)
}

impl MeterValue {
    /// With the state of the `old` one if it is the same bucket; another one is full.
    pub(super) fn new(meter: Option<Meter>, old: Option<&Self>) -> Self {
        let Some(Meter { rate, burst }) = meter else { return Self::default() };
        let (octet, shift) = octet_time(rate);
        let window = u64::from(burst.get()) * OCTET / rate;
        let new = Self { rate: rate.get(), tat: 0, burst: burst.get(), shift, octet, window };
        let same = old.filter(|old| (old.rate, old.burst) == (new.rate, new.burst));
        Self { tat: same.map_or(0, |old| old.tat), ..new }
    }

    /// What is left in it, octets, at this CLOCK_MONOTONIC time, ns.
    pub(super) fn level(&self, now: u64) -> Option<u32> {
        self.meaning().map(|meter| meter.level(self.tat.saturating_sub(now)))
    }

    /// It holds no more than if it had held so much at that time.
    pub(super) fn lower(&mut self, level: Option<u32>, then: u64) {
        if let Some((meter, level)) = self.meaning().zip(level) {
            self.tat = self.tat.max(then.saturating_add(meter.full_after(level)));
        }
    }

    pub(super) fn meaning(&self) -> Option<Meter> {
        Some(Meter { rate: NonZeroU64::new(self.rate)?, burst: Burst::new(self.burst).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_model::Rate;

    /// As the programs have it, against the division that they spare themselves: never less, and to a nanosecond and a
    /// part in 2^38 the same.
    #[test]
    fn what_an_octet_takes_is_exact_enough() {
        let rates =
            [1, 3, 7, 999, Rate::LEAST, 64_000, 999_999_937, 8_000_000_000, Rate::MOST - 1, Rate::MOST];
        for rate in rates.map(|rate| NonZeroU64::new(rate).unwrap()) {
            let meter = Some(Meter { rate, burst: Burst::MAX });
            let value = MeterValue::new(meter, None);
            assert_eq!(value.meaning(), meter);
            let exact = |octets: u64| octets.checked_mul(OCTET).unwrap() / rate;
            assert_eq!(value.window, exact(Burst::MAX.get().into()));
            for octets in [1_u64, 60, 1_514, 65_535, 600_000, (1 << 24) - 1] {
                let (cost, exact) = (octets.checked_mul(value.octet).unwrap() >> value.shift, exact(octets));
                assert!(
                    (exact..=exact + 1 + (exact >> 38)).contains(&cost),
                    "{rate} {octets}: {cost} {exact}"
                );
            }
        }
    }
}
