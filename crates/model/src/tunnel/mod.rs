//! Tunnel policy: how a tenant system's frames cross the underlay, and how many of them may.
//!
//! A VN has one, and each of its tenant systems: what that one leaves open is as the VN's says, and what both leave
//! open is as usual.

mod outer;
mod rate;

pub use outer::{Codepoint, Dscp, DscpError, PortsError, SourcePorts, Ttl, TtlError};
pub use rate::{Burst, BurstError, Rate, RateError};

use serde::{Deserialize, Serialize};

/// The priority of an RLOC that is not to be sent to.
const UNUSABLE: u8 = 255;
/// The weight of an RLOC of which nothing is set.
const USUAL_WEIGHT: u8 = 100;

/// What is set of a tunnel policy; the rest is left open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TunnelPolicy {
    /// The outer TTL or hop limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Ttl>,
    /// The outer DSCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "46"))]
    pub dscp: Option<Dscp>,
    /// The outer UDP source ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "49152-65535"))]
    pub ports: Option<SourcePorts>,
    /// How much a tenant system may send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_rate: Option<Rate>,
    /// How much of that at once; what 200 ms of the rate are when left open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_burst: Option<Burst>,
    /// How much a tenant system may be sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receive_rate: Option<Rate>,
    /// How much of that at once; what 200 ms of the rate are when left open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receive_burst: Option<Burst>,
    /// Priority of its NVE's IPv4 RLOC (RFC 9301 section 5.4): others send to the lowest of a family that they have;
    /// 255: not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4_priority: Option<u8>,
    /// The same of its NVE's IPv6 RLOC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6_priority: Option<u8>,
    /// Weight of its NVE's IPv4 RLOC (RFC 9301 section 5.4): of RLOCs with the lowest priority each gets this part of all
    /// flows; 0 beside others: none, 0 of all: equal parts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4_weight: Option<u8>,
    /// The same of its NVE's IPv6 RLOC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6_weight: Option<u8>,
}

/// A policy by which nobody may send anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("with priority 255 for both families no RLOC is left to send to; give one a lower priority")]
pub struct NoFamilyLeft;

impl TunnelPolicy {
    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// This one, and where it leaves something open the `other`: a tenant system's over its VN's.
    #[must_use]
    pub fn over(&self, other: &Self) -> Self {
        Self {
            ttl: self.ttl.or(other.ttl),
            dscp: self.dscp.or(other.dscp),
            ports: self.ports.or(other.ports),
            send_rate: self.send_rate.or(other.send_rate),
            send_burst: self.send_burst.or(other.send_burst),
            receive_rate: self.receive_rate.or(other.receive_rate),
            receive_burst: self.receive_burst.or(other.receive_burst),
            ipv4_priority: self.ipv4_priority.or(other.ipv4_priority),
            ipv6_priority: self.ipv6_priority.or(other.ipv6_priority),
            ipv4_weight: self.ipv4_weight.or(other.ipv4_weight),
            ipv6_weight: self.ipv6_weight.or(other.ipv6_weight),
        }
    }

    /// The priority of an RLOC of a family, 1 when nothing is set.
    #[must_use]
    pub fn priority(&self, v4: bool) -> u8 {
        if v4 { self.ipv4_priority } else { self.ipv6_priority }.unwrap_or(1)
    }

    /// The weight of an RLOC of a family. When nothing is set, that of an IPv6 RLOC `beside` an IPv4 one is 0: flows go by
    /// IPv4.
    #[must_use]
    pub fn weight(&self, v4: bool, beside: bool) -> u8 {
        let usual = if v4 || !beside { USUAL_WEIGHT } else { 0 };
        if v4 { self.ipv4_weight } else { self.ipv6_weight }.unwrap_or(usual)
    }

    /// Whether it leaves an RLOC to send to.
    ///
    /// # Errors
    /// [`NoFamilyLeft`].
    pub fn check(&self) -> Result<(), NoFamilyLeft> {
        if [true, false].map(|v4| self.priority(v4)) == [UNUSABLE; 2] { Err(NoFamilyLeft) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_leaves_open_is_the_others() {
        let policy = |text: &str| serde_json::from_str::<TunnelPolicy>(text).unwrap();
        let vn = policy(r#"{"ttl":9,"dscp":"46","send_rate":"10mbit","receive_burst":7}"#);
        let tsi = policy(r#"{"ttl":3,"send_rate":"unlimited","ports":"50000-50999"}"#);
        let both = policy(
            r#"{"ttl":3,"dscp":"46","ports":"50000-50999","send_rate":"unlimited","receive_burst":7}"#,
        );
        assert_eq!(tsi.over(&vn), both);
        assert_eq!(policy("{}").over(&vn), vn);
        assert_eq!(vn.over(&policy("{}")), vn);
        assert!(policy("{}").is_empty() && !vn.is_empty());
        assert_eq!(serde_json::to_string(&policy("{}")).unwrap(), "{}");
        assert_eq!(policy(&serde_json::to_string(&both).unwrap()), both);
    }

    #[test]
    fn an_ipv6_rloc_has_a_part_where_one_is_set_or_it_is_alone() {
        let weights = |text: &str, beside| {
            let policy = serde_json::from_str::<TunnelPolicy>(text).unwrap();
            [true, false].map(|v4| policy.weight(v4, beside))
        };
        assert_eq!((weights("{}", true), weights("{}", false)), ([100, 0], [100, 100]));
        assert_eq!(weights(r#"{"ipv6_weight":255}"#, true), [100, 255]);
        assert_eq!(weights(r#"{"ipv4_weight":0,"ipv6_weight":7}"#, true), [0, 7]);
    }

    #[test]
    fn nothing_out_of_range_becomes_a_policy() {
        for (text, says) in [
            (r#"{"ttl":0}"#, "a TTL of 0"),
            (r#"{"dscp":"64"}"#, "'64' is no DSCP"),
            (r#"{"dscp":"copied"}"#, "'copied' is no DSCP"),
            (r#"{"ports":"200-100"}"#, "'200-100' is no range"),
            (r#"{"ports":"0-100"}"#, "'0-100' is no range"),
            (r#"{"ports":"1-65536"}"#, "'1-65536' is no range"),
            (r#"{"send_rate":"0"}"#, "'0' is no rate"),
            (r#"{"send_rate":"999"}"#, "'999' is no rate"),
            (r#"{"receive_rate":"2tbit"}"#, "'2tbit' is no rate"),
            (r#"{"receive_rate":"-1mbit"}"#, "'-1mbit' is no rate"),
            (r#"{"send_burst":0}"#, "a burst of 0"),
            (r#"{"receive_burst":1073741825}"#, "a burst of 1073741825"),
            (r#"{"ipv4_weight":256}"#, "256"),
            (r#"{"ipv6_weight":-1}"#, "-1"),
        ] {
            let error = serde_json::from_str::<TunnelPolicy>(text).unwrap_err().to_string();
            assert!(error.contains(says) && !error.contains('\n'), "{text}: {error}");
        }
    }
}
