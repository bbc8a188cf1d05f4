//! Tunnel policy on the command line.

use super::number::Octet;
use clap::Args;
use std::str::FromStr;
use weft_api::TunnelChange;
use weft_model::{Burst, Dscp, Rate, SourcePorts, Ttl};

/// What is to change of a tunnel policy.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub(crate) struct TunnelArgs {
    /// The outer TTL or hop limit, 1 to 255; none: as usual.
    #[arg(long, group = "change")]
    tunnel_ttl: Option<OrNone<Ttl>>,
    /// The outer DSCP, 0 to 63, or copy for the inner packet's; none: as usual.
    #[arg(long, group = "change")]
    tunnel_dscp: Option<OrNone<Dscp>>,
    /// The outer UDP source ports over which flows are spread, such as 50000-50999; none: as usual.
    #[arg(long, group = "change")]
    tunnel_ports: Option<OrNone<SourcePorts>>,
    /// How much a tenant system may send, such as 100mbit, or unlimited; none: as usual.
    #[arg(long, group = "change")]
    tunnel_send_rate: Option<OrNone<Rate>>,
    /// How many octets of that at once; none: as many as 200 ms of the rate are.
    #[arg(long, group = "change")]
    tunnel_send_burst: Option<OrNone<Burst>>,
    /// How much a tenant system may be sent, such as 100mbit, or unlimited; none: as usual.
    #[arg(long, group = "change")]
    tunnel_receive_rate: Option<OrNone<Rate>>,
    /// How many octets of that at once; none: as many as 200 ms of the rate are.
    #[arg(long, group = "change")]
    tunnel_receive_burst: Option<OrNone<Burst>>,
    /// Priority of its hosts' IPv4 RLOCs, 0 to 255: others send to the lowest of a family that they have, and not at
    /// all to 255; none: as usual, 1.
    #[arg(long, group = "change")]
    tunnel_ipv4_priority: Option<OrNone<Octet>>,
    /// The same of their IPv6 RLOCs.
    #[arg(long, group = "change")]
    tunnel_ipv6_priority: Option<OrNone<Octet>>,
    /// Weight of its hosts' IPv4 RLOCs, 0 to 255: of RLOCs with the lowest priority each gets this part of all flows; none: as
    /// usual, 100.
    #[arg(long, group = "change")]
    tunnel_ipv4_weight: Option<OrNone<Octet>>,
    /// The same of their IPv6 RLOCs; none: as usual, 0 beside an IPv4 RLOC.
    #[arg(long, group = "change")]
    tunnel_ipv6_weight: Option<OrNone<Octet>>,
}

/// Something, or that it is left open: `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OrNone<T>(Option<T>);

impl<T: FromStr> FromStr for OrNone<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        if text == "none" { Ok(Self(None)) } else { text.parse().map(Some).map(Self) }
    }
}

impl From<TunnelArgs> for TunnelChange {
    fn from(tunnel: TunnelArgs) -> Self {
        Self {
            ttl: tunnel.tunnel_ttl.map(|OrNone(it)| it),
            dscp: tunnel.tunnel_dscp.map(|OrNone(it)| it),
            ports: tunnel.tunnel_ports.map(|OrNone(it)| it),
            send_rate: tunnel.tunnel_send_rate.map(|OrNone(it)| it),
            send_burst: tunnel.tunnel_send_burst.map(|OrNone(it)| it),
            receive_rate: tunnel.tunnel_receive_rate.map(|OrNone(it)| it),
            receive_burst: tunnel.tunnel_receive_burst.map(|OrNone(it)| it),
            ipv4_priority: tunnel.tunnel_ipv4_priority.map(|OrNone(it)| it.map(|Octet(it)| it)),
            ipv6_priority: tunnel.tunnel_ipv6_priority.map(|OrNone(it)| it.map(|Octet(it)| it)),
            ipv4_weight: tunnel.tunnel_ipv4_weight.map(|OrNone(it)| it.map(|Octet(it)| it)),
            ipv6_weight: tunnel.tunnel_ipv6_weight.map(|OrNone(it)| it.map(|Octet(it)| it)),
        }
    }
}

/// The same, of which something has to be there.
#[derive(Clone, Debug, Args)]
#[group(id = "change", required = true, multiple = true)]
pub(crate) struct TunnelSettings {
    #[command(flatten)]
    pub(crate) tunnel: TunnelArgs,
}
