//! `weft trace`.

use super::{Output, Socket, number::number, tenant_ip};
use clap::Args;
use weft_api::Probe;
use weft_model::{MacAddr, TenantIp, TsiName, VnName};

#[derive(Debug, Args)]
pub(crate) struct TraceArgs {
    /// The virtual network.
    #[arg(long)]
    pub(crate) vn: VnName,
    /// The tenant system, attached to this host, that is to seem to send the packet.
    #[arg(long)]
    pub(crate) from: TsiName,
    /// The address that it is for.
    #[arg(long, value_parser = tenant_ip)]
    pub(crate) to: TenantIp,
    /// What it is: icmp (an echo request), tcp/PORT (a SYN), udp/PORT.
    #[arg(default_value = "icmp")]
    pub(crate) probe: Probe,
    /// Hand it over to who it is for. Without, it ends just before that.
    #[arg(long)]
    pub(crate) deliver: bool,
    /// Octets of the IP packet, 3,000 at most [default: as few as it takes].
    #[arg(long, value_parser = number::<u16>(1..=3_000))]
    pub(crate) size: Option<u16>,
    /// Send from another MAC address, to see it refused.
    #[arg(long)]
    pub(crate) source_mac: Option<MacAddr>,
    /// Send from another address: one of several that it has, or somebody else's, to see it refused.
    #[arg(long, value_parser = tenant_ip)]
    pub(crate) source_ip: Option<TenantIp>,
    /// Send to this MAC address, whoever has the IP address.
    #[arg(long)]
    pub(crate) to_mac: Option<MacAddr>,
    #[command(flatten)]
    pub(crate) socket: Socket,
    #[command(flatten)]
    pub(crate) output: Output,
}
