//! What became of one packet, step by step, as both NVEs on its way saw it: `POST /v1/traces` of the local API.

use crate::local::CacheEntry;
use core::{fmt, str::FromStr};
use serde::{Deserialize, Serialize};
use weft_model::{GroupName, MacAddr, NveName, Rloc, TenantIp, TsiName, VnName};

/// What the packet is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Probe {
    /// An ICMP or ICMPv6 echo request.
    #[default]
    Icmp,
    /// A TCP SYN to this port.
    Tcp(u16),
    /// A UDP datagram to this port.
    Udp(u16),
}

/// A text is no [`Probe`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no packet to trace; write icmp, tcp/PORT or udp/PORT, like tcp/80")]
pub struct NoProbe(String);

impl FromStr for Probe {
    type Err = NoProbe;

    fn from_str(text: &str) -> Result<Self, NoProbe> {
        let port = |digits: &str| digits.parse().ok().filter(|port| *port != 0 && !digits.starts_with('+'));
        let probe = match text.split_once('/') {
            None => (text == "icmp").then_some(Self::Icmp),
            Some(("tcp", digits)) => port(digits).map(Self::Tcp),
            Some(("udp", digits)) => port(digits).map(Self::Udp),
            Some(_) => None,
        };
        probe.ok_or_else(|| NoProbe(text.chars().take(32).flat_map(char::escape_default).collect()))
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Icmp => f.pad("icmp"),
            Self::Tcp(port) => write!(f, "tcp/{port}"),
            Self::Udp(port) => write!(f, "udp/{port}"),
        }
    }
}

impl TryFrom<String> for Probe {
    type Error = NoProbe;

    fn try_from(text: String) -> Result<Self, NoProbe> {
        text.parse()
    }
}

impl From<Probe> for String {
    fn from(probe: Probe) -> Self {
        probe.to_string()
    }
}

/// Trace a packet of a tenant system that is attached here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceRequest {
    /// The virtual network.
    pub vn: VnName,
    /// The tenant system that is to seem to send it.
    pub from: TsiName,
    /// The address that it is for.
    pub to: TenantIp,
    /// What it is.
    #[serde(default)]
    pub probe: Probe,
    /// Whether who it is for gets it; otherwise it ends just before that.
    #[serde(default)]
    pub deliver: bool,
    /// Octets of the IP packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u16>,
    /// Another source MAC address than the tenant system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_mac: Option<MacAddr>,
    /// Another source address than the tenant system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ip: Option<TenantIp>,
    /// The MAC address that it is sent to, instead of the one that `to` is known to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_mac: Option<MacAddr>,
}

/// One step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceStep {
    /// Where: the NVE's name.
    pub nve: Option<NveName>,
    /// What was done: `frame`, `address`, `vap`, `spoof-check`, `connection`, `policy`, `mapping`, `announce`, `tunnel`,
    /// `arrival`, `fence`, `delivery`, `drop`, ...
    pub step: String,
    /// What came of it, for people.
    pub text: String,
    /// The VAP's device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The security group of the rule that let it through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupName>,
    /// That rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The entry that the NVE went by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapping: Option<CacheEntry>,
    /// The other NVE's underlay address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rloc: Option<Rloc>,
    /// What became of it, as `weft get drops` names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TraceResult {
    /// Handed to who it is for.
    Delivered,
    /// It came to the VAP that it is for, and ended there.
    Arrived,
    /// Dropped, for the reason that is named.
    Dropped,
    /// It went no further for the trace's sake, or nobody has seen what became of it.
    Unknown,
}

impl fmt::Display for TraceResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Delivered => "delivered",
            Self::Arrived => "arrived",
            Self::Dropped => "dropped",
            Self::Unknown => "unknown",
        })
    }
}

/// A trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceView {
    /// How it ended.
    pub result: TraceResult,
    /// Why it was dropped, as `weft get drops` names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nve: Option<NveName>,
    /// Each step, in order.
    pub steps: Vec<TraceStep>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn probes_are_read_as_they_are_written() {
        for (text, probe) in
            [("icmp", Probe::Icmp), ("tcp/80", Probe::Tcp(80)), ("udp/65535", Probe::Udp(65535))]
        {
            assert_eq!(text.parse::<Probe>().unwrap(), probe);
            assert_eq!(probe.to_string(), text);
        }
        for bad in
            ["", "tcp", "tcp/", "tcp/0", "tcp/65536", "tcp/+80", "sctp/1", "icmp/8", "TCP/80", "tcp/80/1"]
        {
            let error = bad.parse::<Probe>().unwrap_err().to_string();
            assert!(error.contains(bad) && error.contains("tcp/80"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_probe_or_refused_in_one_line(text: String) {
            match text.parse::<Probe>() {
                Ok(probe) => prop_assert_eq!(probe.to_string().parse::<Probe>(), Ok(probe)),
                Err(error) => prop_assert!(!error.to_string().contains('\n')),
            }
        }
    }
}
