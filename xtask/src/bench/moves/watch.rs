//! What tenants on other hosts see of one move: echo requests, each known by its number and its time.

use super::guest::{ADDRESSES, Flip, TENANTS};
use anyhow::{Context as _, Result, ensure};
use std::time::{Duration, Instant};
use weft_lab::{
    Lab,
    echo::{Echo, Echoes},
};

/// Echo requests a second, of each tenant to each address.
pub(in crate::bench) const RATE: u32 = 1_000;
/// How many are answered before, and after, the move.
const AROUND: u64 = 100;

/// Streams that run.
pub(super) struct Watch(Vec<Echoes>);

/// What was seen of one move.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Seen {
    /// Of each stream, from the sending of the last request that was answered before to that of the first after, ms: with
    /// none lost in between no more than the pace.
    pub(super) gaps: Vec<f64>,
    /// The hypervisor's own part, ms.
    pub(super) pause: f64,
    /// Deactivate and Activate, ms.
    pub(super) calls: Option<[f64; 2]>,
    /// Requests that were never answered.
    pub(super) lost: usize,
    /// Of these, sent after everything was done.
    pub(super) lost_after: usize,
    /// Answers beyond the first to a request.
    pub(super) duplicated: usize,
}

impl Watch {
    pub(super) fn start(lab: &Lab) -> Result<Self> {
        let mut streams = Vec::new();
        for tenant in TENANTS {
            for address in ADDRESSES {
                streams.push(Echoes::start(&lab.node(tenant)?, address, RATE)?);
            }
        }
        let watch = Self(streams);
        let numbers: Vec<u64> = watch.0.iter().map(Echoes::next).collect();
        watch.answered(&numbers).context("before the move")?;
        Ok(watch)
    }

    /// Waits until [`AROUND`] requests after each of `numbers` are answered.
    fn answered(&self, numbers: &[u64]) -> Result<()> {
        for (stream, number) in self.0.iter().zip(numbers) {
            let first = stream.first_answered(*number, AROUND)?;
            ensure!(first >= *number, "an answer to no request");
        }
        Ok(())
    }

    /// What was seen, when it is over.
    pub(super) fn after(self, flip: &Flip) -> Result<Seen> {
        let numbers: Vec<u64> = self.0.iter().map(Echoes::next).collect();
        self.answered(&numbers).context("after the move")?;
        let calls = flip.calls.map(|calls| calls.map(milliseconds));
        let mut seen = Seen { pause: milliseconds(flip.pause), calls, ..Seen::default() };
        for stream in self.0 {
            seen.add(&stream.all(), flip);
        }
        Ok(seen)
    }
}

impl Seen {
    fn add(&mut self, all: &[Echo], flip: &Flip) {
        // What is still under way is not lost.
        let Some(last) = all.iter().rposition(|echo| echo.answered.is_some()) else { return };
        let gap = gap(all, flip.begun);
        self.gaps.push(milliseconds(gap));
        let lost = || all[..last].iter().filter(|echo| echo.answered.is_none());
        self.lost += lost().count();
        self.lost_after += lost().filter(|echo| echo.sent > flip.done).count();
        self.duplicated += all.iter().map(|echo| (echo.times as usize).saturating_sub(1)).sum::<usize>();
    }
}

/// The longest time after `since` from the sending of a request that was answered to that of the next one.
pub(in crate::bench) fn gap(all: &[Echo], since: Instant) -> Duration {
    let answered: Vec<(usize, &Echo)> =
        all.iter().enumerate().filter(|(_, echo)| echo.answered.is_some()).collect();
    // Where no request is lost in between, the second one was sent late, if it was.
    let gap = |[(n, before), (m, after)]: [(usize, &Echo); 2]| match after.sent - before.sent {
        late if m == n + 1 => late.min(Duration::from_secs(1) / RATE),
        gap => gap,
    };
    let after = answered.array_windows().filter(|[_, (_, after)]| after.sent > since);
    after.map(|pair| gap(*pair)).max().unwrap_or_default()
}

pub(in crate::bench) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_lab::clock;

    #[test]
    fn a_gap_is_from_the_last_answered_to_the_next() {
        let begin = clock::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let echo = |ms, times| Echo { sent: at(ms), answered: (times > 0).then(|| at(ms + 1)), times };
        let all = [
            echo(0, 1),
            // Lost before, by something else.
            echo(9, 1),
            echo(10, 1),
            echo(11, 0),
            echo(12, 0),
            echo(13, 2),
            echo(14, 0),
            echo(15, 1),
            // Sent late.
            echo(22, 1),
            echo(23, 0),
        ];
        let flip = Flip { begun: at(10), pause: Duration::from_millis(1), calls: None, done: at(12) };
        let mut seen = Seen::default();
        seen.add(&all, &flip);
        let wanted = Seen { gaps: vec![3.0], pause: 0.0, calls: None, lost: 3, lost_after: 1, duplicated: 1 };
        assert_eq!(seen, wanted);
    }
}
