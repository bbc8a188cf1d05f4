//! The network: how long a message takes, whether it arrives, and how often.

use std::collections::BTreeSet;
use std::time::Duration;

/// A seeded generator (splitmix64).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rng(u64);

impl Rng {
    /// The generator of `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 for 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw().checked_rem(bound).unwrap_or(0)
    }

    /// True `per_mille` times in a thousand.
    pub fn chance(&mut self, per_mille: u16) -> bool {
        self.below(1000) < u64::from(per_mille)
    }
}

/// How the network treats messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    /// The shortest delay.
    pub delay: Duration,
    /// Up to this much more, drawn for each message: so datagrams overtake each other.
    pub jitter: Duration,
    /// Lost, of a thousand. What is lost on a session is sent again after a while, and not for ever: then the
    /// session is lost.
    pub loss: u16,
    /// Delivered twice, of a thousand datagrams.
    pub duplicate: u16,
}

impl Default for Link {
    fn default() -> Self {
        Self { delay: Duration::from_micros(100), jitter: Duration::from_micros(400), loss: 0, duplicate: 0 }
    }
}

/// A place in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// An NVE.
    Nve(usize),
    /// An Oracle.
    Oracle(usize),
}

/// The network between all hosts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Net {
    /// How messages are treated now.
    pub link: Link,
    rng: Rng,
    /// Pairs that do not reach each other, the lower one first.
    cut: BTreeSet<(Host, Host)>,
}

/// A session's segment that is lost is sent again after this, then after twice as long.
const RETRANSMIT: Duration = Duration::from_millis(200);
/// What does not arrive for so long ends its session, at both ends, as daemons have the kernel do; a host that is
/// cut off or dead is noticed after this.
pub(crate) const ALIVE: Duration = Duration::from_secs(3);

impl Net {
    /// A network.
    #[must_use]
    pub const fn new(seed: u64, link: Link) -> Self {
        Self { link, rng: Rng::new(seed), cut: BTreeSet::new() }
    }

    /// Cuts or heals the way between two hosts.
    pub fn set_cut(&mut self, a: Host, b: Host, cut: bool) {
        let pair = (a.min(b), a.max(b));
        if cut {
            self.cut.insert(pair);
        } else {
            self.cut.remove(&pair);
        }
    }

    /// Whether two hosts reach each other.
    #[must_use]
    pub fn reaches(&self, a: Host, b: Host) -> bool {
        !self.cut.contains(&(a.min(b), a.max(b)))
    }

    fn delay(&mut self) -> Duration {
        let jitter = u64::try_from(self.link.jitter.as_micros()).unwrap_or(u64::MAX);
        self.link.delay + Duration::from_micros(self.rng.below(jitter.saturating_add(1)))
    }

    /// After which delays a datagram arrives: none, one or two.
    pub fn datagram(&mut self, from: Host, to: Host) -> [Option<Duration>; 2] {
        if !self.reaches(from, to) || self.rng.chance(self.link.loss) {
            return [None, None];
        }
        let twice = self.rng.chance(self.link.duplicate);
        [Some(self.delay()), twice.then(|| self.delay())]
    }

    /// After which delay a session's segment arrives at last; none when that is too late for the session.
    pub fn segment(&mut self) -> Option<Duration> {
        let mut delay = self.delay();
        let mut wait = RETRANSMIT;
        while self.rng.chance(self.link.loss) {
            delay += wait;
            wait *= 2;
            if delay > ALIVE {
                return None;
            }
        }
        Some(delay)
    }

    /// The generator, for whoever else needs chance.
    pub const fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_in_time_or_ends_its_session() {
        for (loss, ended) in [(0, 0..=0), (300, 1..=999), (1_000, 1_000..=1_000)] {
            let mut net = Net::new(1, Link { loss, ..Link::default() });
            let segments: Vec<_> = (0..1_000).map(|_| net.segment()).collect();
            assert!(segments.iter().flatten().all(|delay| *delay <= ALIVE), "{loss} of a thousand");
            let late = segments.iter().filter(|delay| delay.is_none()).count();
            assert!(ended.contains(&late), "{loss} of a thousand: {late} too late");
        }
    }
}
