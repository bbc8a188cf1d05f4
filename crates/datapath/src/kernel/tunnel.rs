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

impl MeterValue {
    /// With the state of the `old` one if it is the same bucket; another one is full.
    pub(super) fn new(meter: Option<Meter>, old: Option<&Self>) -> Self {
        let Some(Meter { rate, burst }) = meter else { return Self::default() };
        let new = Self { rate: rate.get(), tat: 0, burst: burst.get(), pad: 0 };
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
