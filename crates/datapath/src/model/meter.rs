//! How much may go to and from a VAP.

use super::Lesson;
use crate::{IfIndex, Levels, Meter, Op, Toward, Tunnel, Vap};
use core::time::Duration;
use std::collections::BTreeMap;
use weft_model::Time;

/// Nanoseconds that an octet takes at one bit a second.
const OCTET: u64 = 8_000_000_000;

/// The buckets of every VAP that has some, by which way frames go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Meters {
    now: Time,
    /// When the bucket is full again, and which bucket that is.
    full_at: BTreeMap<(IfIndex, Toward), (Meter, Time)>,
}

fn of(vap: &Vap, toward: Toward) -> Option<Meter> {
    match toward {
        Toward::Out => vap.tunnel.send,
        Toward::In => vap.tunnel.receive,
    }
}

fn lasts(meter: Meter, octets: u64) -> Duration {
    Duration::from_nanos(octets.saturating_mul(OCTET) / meter.rate)
}

impl Meters {
    /// It is `now`.
    pub(super) fn tell(&mut self, now: Time) {
        self.now = now;
    }

    fn full_at(&self, at: IfIndex, toward: Toward) -> Time {
        self.full_at.get(&(at, toward)).map_or(self.now, |(_, full)| (*full).max(self.now))
    }

    /// What it takes to let a frame pass, if anything; none inside: it may not.
    pub(super) fn take(
        &self,
        at: IfIndex,
        vap: &Vap,
        toward: Toward,
        octets: usize,
    ) -> Option<Option<Lesson>> {
        let Some(meter) = of(vap, toward) else { return Some(None) };
        let octets = u64::try_from(octets).unwrap_or(u64::MAX);
        let window = lasts(meter, meter.burst.get().into());
        let slack = window.saturating_sub(lasts(meter, octets));
        let passes = self.full_at(at, toward).since(self.now) <= slack;
        passes.then_some(Some(Lesson::Passed { at, toward, meter, octets }))
    }

    /// A frame has passed.
    pub(super) fn note(&mut self, at: IfIndex, toward: Toward, meter: Meter, octets: u64) {
        let full = self.full_at(at, toward) + lasts(meter, octets);
        self.full_at.insert((at, toward), (meter, full));
    }

    /// What is left in the buckets of a VAP.
    pub(super) fn levels(&self, at: IfIndex, tunnel: &Tunnel) -> Levels {
        let of = |meter: Option<Meter>, toward| {
            let missing = self.full_at(at, toward).since(self.now);
            meter.map(|meter| meter.level(u64::try_from(missing.as_nanos()).unwrap_or(u64::MAX)))
        };
        Levels { send: of(tunnel.send, Toward::Out), receive: of(tunnel.receive, Toward::In) }
    }

    /// They hold no more than so much, so long ago.
    pub(super) fn lower(&mut self, at: IfIndex, tunnel: &Tunnel, levels: Levels, ago: Duration) {
        let both = [(tunnel.send, levels.send, Toward::Out), (tunnel.receive, levels.receive, Toward::In)];
        for (meter, level, toward) in both {
            let Some((meter, level)) = meter.zip(level) else { continue };
            let missing = Duration::from_nanos(meter.full_after(level)).saturating_sub(ago);
            let full = self.full_at(at, toward).max(self.now + missing);
            self.full_at.insert((at, toward), (meter, full));
        }
    }

    /// A bucket that has changed is full.
    pub(super) fn apply(&mut self, op: &Op) {
        match op {
            Op::SetVap(device, vap) => {
                self.full_at
                    .retain(|(at, toward), (meter, _)| at != device || of(vap, *toward) == Some(*meter));
            }
            Op::RemoveVap(device) => self.full_at.retain(|(at, _), _| at != device),
            _ => {}
        }
    }
}
