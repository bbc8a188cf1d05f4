//! `weft tsi`.

use super::{Access, GroupNames, Kind, Output, Request, Socket, TunnelSettings, number::number, tenant_ip};
use clap::{Args, Subcommand};
use weft_api::local::MAX_LEASE_S;
use weft_model::{NveName, TenantIp, TsMac, TsiName, VnName};

#[derive(Debug, Subcommand)]
pub(crate) enum TsiCommand {
    /// Attach a device of this host to a virtual network, and set it up: associate and activate in one.
    #[command(after_help = "Examples:
  weft tsi attach --vn red --name web1 --device tap0       addresses assigned and printed
  weft tsi attach --vn red --name web2 --device veth7 --ip 10.0.0.7 --ip fd00::7
  weft tsi attach --vn red --name web3 --device veth8 --mac 02:00:00:00:00:08
  weft tsi attach --vn red --name web4 --device veth9 --groups web,ssh")]
    Attach(Place),
    /// Prepare an interface without letting anything through: RFC 8394's Associate, where a tenant moves to. It is in
    /// service once it is activated, or by the tenant's own first frame.
    #[command(after_help = "Example, a move from h1 to h2:
  weft tsi move --vn red --name web1 --to h2               by an operator
  weft tsi associate --vn red --name web1 --device tap3    on h2
  weft tsi deactivate --vn red --name web1                 on h1, once the tenant is stopped there
  weft tsi activate --vn red --name web1                   on h2
  weft tsi de-associate --vn red --name web1               on h1")]
    Associate {
        #[command(flatten)]
        place: Place,
        /// Only `weft tsi activate` puts it in service: frames of the tenant's are dropped until then.
        #[arg(long)]
        explicit: bool,
    },
    /// Put an associated interface in service.
    #[command(after_help = "Example: weft tsi activate --vn red --name web1")]
    Activate {
        #[command(flatten)]
        which: Which,
        /// Detach it after so many seconds, unless it is renewed before [default: the lease that it has, renewed].
        #[arg(long, value_parser = number::<u64>(1..=MAX_LEASE_S))]
        lease: Option<u64>,
    },
    /// Take an interface out of service; its addresses and its device stay its own.
    #[command(after_help = "Example: weft tsi deactivate --vn red --name web1")]
    Deactivate(Which),
    /// Change what an interface has, and not its state: its addresses, the device that it is at, its lease.
    #[command(after_help = "Examples:
  weft tsi update --vn red --name web1 --add-ip 10.0.0.8 --remove-ip fd00::7
  weft tsi update --vn red --name web1 --device tap4       nothing passes at the device before
  weft tsi update --vn red --name web1 --renew             its lease begins anew")]
    Update(Change),
    /// As an operator, say where an interface moves to: there it may be associated and activated.
    #[command(after_help = "Examples:
  weft tsi move --vn red --name web1 --to h2
  weft tsi move --vn red --name web1 --cancel              it stays where it is
  weft tsi move --vn red --name web1 --to h2 --take-over   its host is gone: h2 holds it at once; then attach it there")]
    Move {
        /// The virtual network.
        #[arg(long)]
        vn: VnName,
        /// The interface.
        #[arg(long)]
        name: TsiName,
        /// The NVE it moves to.
        #[arg(long, required_unless_present = "cancel", conflicts_with = "cancel")]
        to: Option<NveName>,
        /// That NVE holds it from now on: for a host that is gone. There it is attached next.
        #[arg(long, conflicts_with = "cancel")]
        take_over: bool,
        /// With --take-over: also while the host that holds it is connected, which takes it out of service there.
        #[arg(long, requires = "take_over")]
        force: bool,
        /// It does not move.
        #[arg(long)]
        cancel: bool,
        #[command(flatten)]
        access: Access,
        #[command(flatten)]
        output: Output,
    },
    /// Detach an interface: its addresses are free again, unless it moves elsewhere, and its device is set down.
    #[command(
        visible_alias = "de-associate",
        after_help = "Examples:
  weft tsi detach --vn red --name web1
  weft tsi detach --vn red --name web1 --force       also while no Oracle answers"
    )]
    Detach {
        /// The virtual network.
        #[arg(long)]
        vn: VnName,
        /// The interface.
        #[arg(long)]
        name: TsiName,
        /// Let go at once, also while no Oracle answers; the grant is released when one does.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        request: Request,
        #[command(flatten)]
        socket: Socket,
        #[command(flatten)]
        output: Output,
    },
    /// As an operator, free what was granted to an interface whose host is gone.
    #[command(after_help = "Examples:
  weft tsi release --vn red --name web1
  weft tsi release --vn red --name web1 --force    also while its host is connected, which takes it out of service")]
    Release {
        /// The virtual network.
        #[arg(long)]
        vn: VnName,
        /// The interface.
        #[arg(long)]
        name: TsiName,
        /// Also while its host is connected: it is taken out of service there.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        access: Access,
        #[command(flatten)]
        output: Output,
    },
    /// As an operator, say which security groups an interface is in, wherever it is.
    #[command(after_help = "Examples:
  weft tsi set-groups --vn red --name web1 --groups web,ssh
  weft tsi set-groups --vn red --name web1 --groups none     those that its VN has by default")]
    SetGroups {
        /// The virtual network.
        #[arg(long)]
        vn: VnName,
        /// The interface.
        #[arg(long)]
        name: TsiName,
        /// All its security groups, with commas between, or none for its VN's default ones.
        #[arg(long)]
        groups: GroupNames,
        #[command(flatten)]
        access: Access,
        #[command(flatten)]
        output: Output,
    },
    /// Follow what becomes of interfaces of this host: one line each, for as long as the NVE runs.
    #[command(after_help = "Examples:
  weft tsi events                                          from now on
  weft tsi events -o json --after 1700000000000042         from behind that number: where an earlier one ended
  weft tsi events --count 1                                the next one")]
    Events {
        /// Begin behind the event of this number; what is not kept any more is said to be missed.
        #[arg(long, value_parser = number::<u64>(0..=u64::MAX))]
        after: Option<u64>,
        /// End after so many; bookmarks do not count.
        #[arg(long, value_parser = number::<u64>(1..=u64::MAX))]
        count: Option<u64>,
        #[command(flatten)]
        socket: Socket,
        #[command(flatten)]
        output: Output,
    },
    /// As an operator, change the tunnel policy of an interface, wherever it is; what it leaves open is as its VN's.
    #[command(after_help = "Examples:
  weft tsi set --vn red --name web1 --tunnel-send-rate 10mbit --tunnel-dscp 46
  weft tsi set --vn red --name web1 --tunnel-send-rate unlimited   whatever its VN says
  weft tsi set --vn red --name web1 --tunnel-send-rate none        as its VN says")]
    Set {
        /// The virtual network.
        #[arg(long)]
        vn: VnName,
        /// The interface.
        #[arg(long)]
        name: TsiName,
        #[command(flatten)]
        settings: TunnelSettings,
        #[command(flatten)]
        access: Access,
        #[command(flatten)]
        output: Output,
    },
    /// Connect this host to a virtual network before any tenant of it is here: RFC 8394's VN_Connect. Without it the first
    /// interface does.
    #[command(after_help = "Example: weft tsi vn-connect --vn red       its VNID is printed")]
    VnConnect(WhichVn),
    /// End that, once no interface of it is attached here.
    #[command(after_help = "Example: weft tsi vn-disconnect --vn red")]
    VnDisconnect(WhichVn),
    /// List the virtual networks that this host was connected to.
    #[command(after_help = "Example: weft tsi vn-list -o json")]
    VnList {
        #[command(flatten)]
        socket: Socket,
        #[command(flatten)]
        output: Output,
    },
    /// List what is attached to this host.
    #[command(after_help = "Example: weft tsi list -o yaml")]
    List {
        #[command(flatten)]
        socket: Socket,
        #[command(flatten)]
        output: Output,
    },
}

/// An interface and the device it is to be at.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The virtual network.
    #[arg(long)]
    pub(crate) vn: VnName,
    /// The interface's name in it.
    #[arg(long)]
    pub(crate) name: TsiName,
    /// The device on this host: a TAP, or a veth whose peer is in the tenant's network namespace.
    #[arg(long)]
    pub(crate) device: String,
    /// What the device is [default: asked of the kernel].
    #[arg(long, value_enum)]
    pub(crate) kind: Option<Kind>,
    /// The tenant's MAC address [default: what it has; of a new one assigned].
    #[arg(long)]
    pub(crate) mac: Option<TsMac>,
    /// An IP address of the tenant; may be repeated [default: what it has; of a new one one of each family assigned].
    #[arg(long, value_parser = tenant_ip)]
    pub(crate) ip: Vec<TenantIp>,
    /// Its security groups, with commas between [default: what it has; of a new one the VN's].
    #[arg(long)]
    pub(crate) groups: Option<GroupNames>,
    /// Detach it after so many seconds, unless it is renewed before: by this again, or an update [default: never].
    #[arg(long, value_parser = number::<u64>(1..=MAX_LEASE_S))]
    pub(crate) lease: Option<u64>,
    #[command(flatten)]
    pub(crate) request: Request,
    #[command(flatten)]
    pub(crate) socket: Socket,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// What is to be changed of an interface, all of it or nothing.
#[derive(Debug, Args)]
#[group(id = "change", required = true, multiple = true, args = ["device", "add_ip", "remove_ip", "lease", "renew"])]
pub(crate) struct Change {
    #[command(flatten)]
    pub(crate) which: Which,
    /// The device that it is at from now on.
    #[arg(long)]
    pub(crate) device: Option<String>,
    /// An IP address that it has as well; may be repeated.
    #[arg(long, value_parser = tenant_ip)]
    pub(crate) add_ip: Vec<TenantIp>,
    /// An IP address that it has no more; may be repeated.
    #[arg(long, value_parser = tenant_ip)]
    pub(crate) remove_ip: Vec<TenantIp>,
    /// Detach it after so many seconds, unless it is renewed before; 0: never.
    #[arg(long, value_parser = number::<u64>(0..=MAX_LEASE_S))]
    pub(crate) lease: Option<u64>,
    /// Renew the lease that it has.
    #[arg(long)]
    pub(crate) renew: bool,
}

/// A virtual network.
#[derive(Debug, Args)]
pub(crate) struct WhichVn {
    /// The virtual network.
    #[arg(long)]
    pub(crate) vn: VnName,
    #[command(flatten)]
    pub(crate) request: Request,
    #[command(flatten)]
    pub(crate) socket: Socket,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// An interface that is attached to this host.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// The virtual network.
    #[arg(long)]
    pub(crate) vn: VnName,
    /// The interface.
    #[arg(long)]
    pub(crate) name: TsiName,
    #[command(flatten)]
    pub(crate) request: Request,
    #[command(flatten)]
    pub(crate) socket: Socket,
    #[command(flatten)]
    pub(crate) output: Output,
}
