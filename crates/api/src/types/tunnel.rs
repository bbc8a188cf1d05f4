//! Tunnel policy.

use super::vn::given;
use serde::{Deserialize, Serialize};
use weft_model::{Burst, Dscp, Rate, SourcePorts, Ttl, TunnelPolicy};

/// What is to change of a tunnel policy; what is absent stays, `null` leaves it open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TunnelChange {
    /// The outer TTL or hop limit, 1 to 255.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    #[schema(value_type = Option<Ttl>)]
    pub ttl: Option<Option<Ttl>>,
    /// The outer DSCP: 0 to 63, or `copy` for the inner packet's.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    #[schema(value_type = Option<String>, example = "46")]
    pub dscp: Option<Option<Dscp>>,
    /// The outer UDP source ports.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    #[schema(value_type = Option<String>, example = "49152-65535")]
    pub ports: Option<Option<SourcePorts>>,
    /// Bits a second that a tenant system may send, or `unlimited`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    #[schema(value_type = Option<Rate>)]
    pub send_rate: Option<Option<Rate>>,
    /// Octets of that at once.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    #[schema(value_type = Option<Burst>)]
    pub send_burst: Option<Option<Burst>>,
    /// Bits a second that a tenant system may be sent, or `unlimited`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    #[schema(value_type = Option<Rate>)]
    pub receive_rate: Option<Option<Rate>>,
    /// Octets of that at once.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    #[schema(value_type = Option<Burst>)]
    pub receive_burst: Option<Option<Burst>>,
    /// Priority of its NVE's IPv4 RLOC, lower is better; 255: not to be sent to.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    #[schema(value_type = Option<u8>)]
    pub ipv4_priority: Option<Option<u8>>,
    /// The same of its NVE's IPv6 RLOC.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    #[schema(value_type = Option<u8>)]
    pub ipv6_priority: Option<Option<u8>>,
    /// Weight of its NVE's IPv4 RLOC among those of the lowest priority: its part of all flows.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    #[schema(value_type = Option<u8>)]
    pub ipv4_weight: Option<Option<u8>>,
    /// The same of its NVE's IPv6 RLOC.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    #[schema(value_type = Option<u8>)]
    pub ipv6_weight: Option<Option<u8>>,
}

impl TunnelChange {
    /// What `old` becomes.
    #[must_use]
    pub fn of(&self, old: &TunnelPolicy) -> TunnelPolicy {
        TunnelPolicy {
            ttl: self.ttl.unwrap_or(old.ttl),
            dscp: self.dscp.unwrap_or(old.dscp),
            ports: self.ports.unwrap_or(old.ports),
            send_rate: self.send_rate.unwrap_or(old.send_rate),
            send_burst: self.send_burst.unwrap_or(old.send_burst),
            receive_rate: self.receive_rate.unwrap_or(old.receive_rate),
            receive_burst: self.receive_burst.unwrap_or(old.receive_burst),
            ipv4_priority: self.ipv4_priority.unwrap_or(old.ipv4_priority),
            ipv6_priority: self.ipv6_priority.unwrap_or(old.ipv6_priority),
            ipv4_weight: self.ipv4_weight.unwrap_or(old.ipv4_weight),
            ipv6_weight: self.ipv6_weight.unwrap_or(old.ipv6_weight),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_stays_and_null_leaves_it_open() {
        let old: TunnelPolicy =
            serde_json::from_str(r#"{"ttl":9,"dscp":"copy","send_rate":"5mbit"}"#).unwrap();
        let text = r#"{"ttl":null,"dscp":"46","receive_rate":"unlimited"}"#;
        let change: TunnelChange = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&change).unwrap(), text);
        let new = r#"{"dscp":"46","send_rate":"5mbit","receive_rate":"unlimited"}"#;
        assert_eq!(serde_json::to_string(&change.of(&old)).unwrap(), new);
        assert_eq!(TunnelChange::default().of(&old), old);
        assert!(serde_json::from_str::<TunnelChange>(r#"{"ttls":9}"#).is_err());
    }
}
