//! How a VAP's frames cross the underlay, and how many may go to and from it.

use core::num::NonZeroU64;
use weft_model::{Burst, Dscp, Rate, SourcePorts, Ttl, TunnelPolicy};

/// What a VAP's tunnel policy comes to. By default what is usual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tunnel {
    /// The outer TTL or hop limit of what it sends; what it sends to its VN's gateway has the usual one, by which
    /// that one sees that nobody has carried it yet.
    pub ttl: Ttl,
    /// The outer DSCP of what it sends.
    pub dscp: Dscp,
    /// The outer source ports of what it sends by [`crate::Path::Direct`].
    pub ports: SourcePorts,
    /// How much it may send.
    pub send: Option<Meter>,
    /// How much it may be sent.
    pub receive: Option<Meter>,
}

/// A token bucket for the octets of Ethernet frames without tunnel headers; each packet that a segmentation-offload
/// frame becomes counts with headers of its own. What finds too little in it is dropped
/// ([`crate::Reason::RateLimited`]); a frame larger than the burst waits until the bucket is full, and owes the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Meter {
    /// Bits a second.
    pub rate: NonZeroU64,
    /// Octets that may pass at once.
    pub burst: Burst,
}

/// What is left in a VAP's token buckets, octets; none where it has none. It goes along when its tenant system moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Levels {
    /// Of what it may send,
    pub send: Option<u32>,
    /// and of what it may be sent.
    pub receive: Option<u32>,
}

impl Levels {
    /// Whether nothing is said of either.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.send.is_none() && self.receive.is_none()
    }
}

/// Nanoseconds that an octet takes at one bit a second.
const OCTET: u128 = 8_000_000_000;

impl Meter {
    /// What is left when the bucket is full after so long, ns. A frame larger than the burst may have left less than nothing.
    pub(crate) fn level(self, full_after: u64) -> u32 {
        let missing = (u128::from(full_after) * u128::from(self.rate.get())).div_ceil(OCTET);
        self.burst.get().saturating_sub(u32::try_from(missing).unwrap_or(u32::MAX))
    }

    /// After how long the bucket is full when so much is left in it, ns. It never holds more than the burst.
    pub(crate) fn full_after(self, level: u32) -> u64 {
        let missing = u128::from(self.burst.get().saturating_sub(level));
        u64::try_from(missing * OCTET / u128::from(self.rate.get())).unwrap_or(u64::MAX)
    }
    /// What a rate and a burst come to, of which either may be left open.
    fn of(rate: Option<Rate>, burst: Option<Burst>) -> Option<Self> {
        let rate = rate?.bits()?;
        Some(Self { rate, burst: burst.unwrap_or_else(|| Burst::of_rate(rate)) })
    }
}

impl From<TunnelPolicy> for Tunnel {
    fn from(policy: TunnelPolicy) -> Self {
        Self {
            ttl: policy.ttl.unwrap_or_default(),
            dscp: policy.dscp.unwrap_or_default(),
            ports: policy.ports.unwrap_or_default(),
            send: Meter::of(policy.send_rate, policy.send_burst),
            receive: Meter::of(policy.receive_rate, policy.receive_burst),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_open_is_usual() {
        assert_eq!(Tunnel::from(TunnelPolicy::default()), Tunnel::default());
        let policy = TunnelPolicy {
            send_rate: Rate::new(8_000_000),
            receive_rate: Some(Rate::UNLIMITED),
            receive_burst: Burst::new(9).ok(),
            ..TunnelPolicy::default()
        };
        let tunnel = Tunnel::from(policy);
        let send = tunnel.send.unwrap();
        assert_eq!((send.rate.get(), send.burst.get(), tunnel.receive), (8_000_000, 200_000, None));
        let send_burst = Burst::new(9).ok();
        assert_eq!(Tunnel::from(TunnelPolicy { send_burst, ..policy }).send.map(|m| m.burst), send_burst);
    }

    /// A level read from a bucket and written to another one like it is the same; to any other, never more than that holds.
    #[test]
    fn a_level_is_what_is_left() {
        let meter =
            |rate, burst| Meter { rate: NonZeroU64::new(rate).unwrap(), burst: Burst::new(burst).unwrap() };
        for rate in [1, 1_000, 8_000_000, 999_999_937, Rate::MOST] {
            for burst in [1, 1_000, 200_000, Burst::MAX.get()] {
                let bucket = meter(rate, burst);
                for level in [0, 1, burst / 3, burst - 1, burst] {
                    // To the nanosecond, in which at the highest rate 125 octets pass.
                    let off = u64::from(bucket.level(bucket.full_after(level)) - level);
                    assert!(off <= rate / 8_000_000_000, "{bucket:?} {off}");
                }
                assert_eq!(bucket.full_after(u32::MAX), 0, "no more than the burst");
                assert_eq!(bucket.level(9_000_000_000_000_000_000), 0, "what is owed is not said");
            }
        }
        // 100 kB of a second's rate are there again after 100 ms.
        let bucket = meter(8_000_000, 200_000);
        assert_eq!(bucket.level(bucket.full_after(50_000) - 100_000_000), 150_000);
    }
}
