//! `weft vn`.

use super::{Access, GroupNames, Output, TunnelArgs, number::number, subnet, words};
use clap::{Args, Subcommand};
use weft_model::{Bum, IpNet, Learning, Miss, NveName, Reply, VnName, Vni};

#[derive(Debug, Subcommand)]
pub(crate) enum VnCommand {
    /// Create a virtual network.
    #[command(
        after_help = "Example: weft vn create red --subnet 10.0.0.0/24 --subnet fd00::/64 --learning oracle"
    )]
    Create {
        /// Its name.
        name: VnName,
        /// A subnet of it, IPv4 or IPv6; may be repeated.
        #[arg(long, value_parser = subnet)]
        subnet: Vec<IpNet>,
        /// Its VNID, 1 to 16777215 [default: the next free one].
        #[arg(long)]
        vni: Option<Vni>,
        /// How its NVEs learn where a MAC address is: flood, translate, oracle or distribute.
        #[arg(long, value_parser = words::<Learning>, default_value = "oracle")]
        learning: Learning,
        /// Who answers Map-Requests: proxy (the Oracle) or forward (the destination's NVE).
        #[arg(long, value_parser = words::<Reply>, default_value = "proxy")]
        reply: Reply,
        /// What becomes of broadcast and multicast other than ARP, ND and DHCP: drop or replicate.
        #[arg(long, value_parser = words::<Bum>, default_value = "drop")]
        bum: Bum,
        /// What becomes of a frame while its destination is asked for: queue (it waits up to 1 s), gateway (the NVE
        /// named by --gateway carries it) or drop.
        #[arg(long, value_parser = words::<Miss>, default_value = "queue")]
        miss: Miss,
        /// The NVE that carries such frames; a tenant system of the VN is to be there.
        #[arg(long)]
        gateway: Option<NveName>,
        /// Replicated frames a second that one VAP may send [default: 1000].
        #[arg(long, value_parser = number::<u32>(0..=u32::MAX.into()))]
        storm_rate: Option<u32>,
        /// How many of them at once [default: 200].
        #[arg(long, value_parser = number::<u32>(0..=u32::MAX.into()))]
        storm_burst: Option<u32>,
        #[command(flatten)]
        access: Access,
        #[command(flatten)]
        output: Output,
    },
    /// Change how a virtual network behaves; tenant systems in it keep their connections.
    #[command(after_help = "Examples:
  weft vn set red --learning distribute     push the whole table to every host that is in it
  weft vn set red --learning oracle --reply forward
  weft vn set red --bum replicate           broadcast and multicast reach everybody in it
  weft vn set red --default-groups web,ssh --log-refused true
  weft vn set red --tunnel-dscp copy --tunnel-send-rate 100mbit")]
    Set {
        /// Its name.
        name: VnName,
        #[command(flatten)]
        change: VnChange,
        #[command(flatten)]
        access: Access,
        #[command(flatten)]
        output: Output,
    },
    /// Delete a virtual network without tenant systems.
    #[command(after_help = "Example: weft vn delete red")]
    Delete {
        /// Its name.
        name: VnName,
        #[command(flatten)]
        access: Access,
        #[command(flatten)]
        output: Output,
    },
    /// List the virtual networks.
    #[command(after_help = "Example: weft vn list -o json")]
    List {
        #[command(flatten)]
        access: Access,
        #[command(flatten)]
        output: Output,
    },
}

/// What is to change; at least one thing. Each names the group: one with arguments of another struct has none itself.
#[derive(Debug, Args)]
#[group(id = "change", required = true, multiple = true)]
pub(crate) struct VnChange {
    /// How its NVEs learn where a MAC address is: flood, translate, oracle or distribute.
    #[arg(long, group = "change", value_parser = words::<Learning>)]
    pub(crate) learning: Option<Learning>,
    /// Who answers Map-Requests: proxy (the Oracle) or forward (the destination's NVE).
    #[arg(long, group = "change", value_parser = words::<Reply>)]
    pub(crate) reply: Option<Reply>,
    /// What becomes of broadcast and multicast other than ARP, ND and DHCP: drop or replicate.
    #[arg(long, group = "change", value_parser = words::<Bum>)]
    pub(crate) bum: Option<Bum>,
    /// What becomes of a frame while its destination is asked for: queue (it waits up to 1 s), gateway (the NVE
    /// named by --gateway carries it) or drop.
    #[arg(long, group = "change", value_parser = words::<Miss>)]
    pub(crate) miss: Option<Miss>,
    /// The NVE that carries such frames; a tenant system of the VN is to be there. none: nobody any more.
    #[arg(long, group = "change")]
    pub(crate) gateway: Option<GatewayName>,
    /// Replicated frames a second that one VAP may send.
    #[arg(long, group = "change", value_parser = number::<u32>(0..=u32::MAX.into()))]
    pub(crate) storm_rate: Option<u32>,
    /// How many of them at once.
    #[arg(long, group = "change", value_parser = number::<u32>(0..=u32::MAX.into()))]
    pub(crate) storm_burst: Option<u32>,
    /// The security groups of tenant systems that name none, with commas between. none: they may do everything.
    #[arg(long, group = "change")]
    pub(crate) default_groups: Option<GroupNames>,
    /// Whether NVEs log what access policy refuses: true or false.
    #[arg(long, group = "change")]
    pub(crate) log_refused: Option<bool>,
    #[command(flatten)]
    pub(crate) tunnel: TunnelArgs,
}

/// The NVE that is to be a VN's gateway, or nobody: `none`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GatewayName(pub(crate) Option<NveName>);

impl std::str::FromStr for GatewayName {
    type Err = <NveName as std::str::FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "none" { Ok(Self(None)) } else { text.parse().map(Some).map(Self) }
    }
}
