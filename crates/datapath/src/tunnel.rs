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

impl Meter {
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
}
