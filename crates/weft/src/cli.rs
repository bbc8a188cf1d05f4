//! What a user may type.

mod group;
mod number;
mod trace;
mod tsi;
mod tunnel;
mod vn;
mod xtr;

use crate::{error::CommandError, output::Format};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
pub(crate) use group::{GroupCommand, GroupNames, GroupWhich};
use number::number;
use std::{
    ffi::OsString,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    path::PathBuf,
};
pub(crate) use trace::TraceArgs;
pub(crate) use tsi::{Change, Place, TsiCommand, Which, WhichVn};
pub(crate) use tunnel::{TunnelArgs, TunnelSettings};
pub(crate) use vn::{GatewayName, VnChange, VnCommand};
use weft_api::local::RequestId;
use weft_model::{GroupName, IpNet, NveName, Rloc, TenantIp, VnName};
pub(crate) use xtr::{XtrAdd, XtrCommand};

/// Where the Oracle keeps its data unless told otherwise; its operator context is in it.
pub(crate) const ORACLE_DATA: &str = "/var/lib/weft/oracle";
/// Where an NVE keeps its data unless told otherwise.
pub(crate) const NVE_DATA: &str = "/var/lib/weft/nve";

/// Where an NVE pins its data plane unless told otherwise.
const PIN_DIR: &str = "/sys/fs/bpf/weft/nve";
/// What its VXLAN device is called unless told otherwise.
const VXLAN_DEVICE: &str = "weft0";

/// Overlay networking for virtual machines and containers, in which nothing is flooded.
#[derive(Debug, Parser)]
#[command(
    name = "weft",
    version,
    max_term_width = 100,
    after_help = "Examples:
  weft oracle --data-dir /var/lib/weft/oracle      run the Oracle
  weft oracle token                                print the line to run on each host
  weft nve --join TOKEN                            run this host's NVE
  weft vn create red --subnet 10.0.0.0/24 --subnet fd00::/64
  weft tsi attach --vn red --name web1 --device tap0
  weft get mappings"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the Oracle, or make its join tokens and backups.
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "Examples:
  weft oracle --data-dir /var/lib/weft/oracle --listen 192.0.2.1
  weft oracle token --uses 3
  weft oracle backup /var/backups/weft.backup"
    )]
    Oracle(OracleArgs),
    /// Run this host's NVE, take it off this host, or remove an NVE from the fabric.
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "Examples:
  weft nve --join weft1.eyJ...                     the first start: join, then run
  weft nve                                         every later start
  weft nve remove h3                               at an operator's: revoke h3 at once
  weft nve uninstall                               on a host without a running agent: remove its data plane"
    )]
    Nve(NveArgs),
    /// Create, delete and list virtual networks.
    #[command(subcommand)]
    Vn(VnCommand),
    /// Attach, detach and list tenant system interfaces of this host.
    #[command(subcommand)]
    Tsi(TsiCommand),
    /// Say what tenant systems may do: security groups and their rules.
    #[command(subcommand)]
    Group(GroupCommand),
    /// Make plain LISP xTRs known, and forget them.
    #[command(subcommand)]
    Xtr(XtrCommand),
    /// Show what there is, as a table, JSON or YAML.
    #[command(after_help = "Examples:
  weft get tsis
  weft get mappings --vn red -o json
  weft get mappings --nve h1                       what the NVE h1 knows, and how it came to know it
  weft get mappings --socket /run/weft/nve.sock    the same of this host's NVE, also without an Oracle
  weft get drops --watch                           what this host's data plane drops")]
    Get(GetArgs),
    /// Send a packet as if a tenant system of this host had, and show each step that is taken with it.
    ///
    /// It is a real one, told apart on its way by reserved bits of its VXLAN header. The NVE that it goes to reports
    /// what it does with it, and ends it just before its destination unless it is to be delivered.
    #[command(after_help = "Examples:
  weft trace --vn red --from web1 --to 10.0.0.2
  weft trace --vn red --from web1 --to fd00::2 tcp/80 -o json
  weft trace --vn red --from web1 --to 10.0.0.2 udp/53 --deliver
  weft trace --vn red --from web1 --to 10.0.0.2 --size 1600        too large: why, and for whom
  weft trace --vn red --from web1 --to 10.0.0.2 --source-ip 10.0.0.9")]
    Trace(TraceArgs),
    /// A data centre of network namespaces on this machine.
    #[command(subcommand)]
    Lab(weft_lab::LabCommand),
    /// Show the versions of this program and of the Oracle.
    #[command(after_help = "Example: weft version -o json")]
    Version {
        #[command(flatten)]
        access: Access,
        #[command(flatten)]
        output: Output,
    },
    /// Print completions for a shell.
    #[command(after_help = "Example: weft completions bash > /etc/bash_completion.d/weft")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// How to reach the Oracle.
#[derive(Clone, Debug, Args)]
pub(crate) struct Access {
    /// Credentials for the Oracle; it writes an operator's at its first start.
    #[arg(long, env = "WEFT_CONTEXT", default_value_os_t = PathBuf::from(ORACLE_DATA).join("operator.json"))]
    pub(crate) context: PathBuf,
}

/// How to reach this host's NVE.
#[derive(Clone, Debug, Args)]
pub(crate) struct Socket {
    /// The NVE's local API.
    #[arg(long, env = "WEFT_SOCKET", default_value = weft_api::NVE_SOCKET)]
    pub(crate) socket: PathBuf,
}

/// Under which id something is asked for.
#[derive(Clone, Debug, Args)]
pub(crate) struct Request {
    /// Once this has been done under this id it is answered as it was, and not done again.
    #[arg(long)]
    pub(crate) request_id: Option<RequestId>,
}

/// How to show answers.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Output {
    /// How to show the answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

#[derive(Debug, Args)]
pub(crate) struct OracleArgs {
    #[command(subcommand)]
    pub(crate) command: Option<OracleCommand>,
    #[command(flatten)]
    pub(crate) run: OracleRun,
}

#[derive(Debug, Args)]
pub(crate) struct OracleRun {
    /// Where everything durable is kept.
    #[arg(long, default_value = ORACLE_DATA)]
    pub(crate) data_dir: PathBuf,
    /// An address to listen on, of this host; may be repeated [default: all].
    #[arg(long)]
    pub(crate) listen: Vec<IpAddr>,
    /// Port of sessions (TCP).
    #[arg(long, default_value_t = weft_api::SESSION_PORT, value_parser = number::port)]
    pub(crate) session_port: u16,
    /// Port of LISP (UDP).
    #[arg(long, default_value_t = weft_api::LISP_PORT, value_parser = number::port)]
    pub(crate) lisp_port: u16,
    /// Port of the /v1 API (HTTPS).
    #[arg(long, default_value_t = weft_api::API_PORT, value_parser = number::port)]
    pub(crate) api_port: u16,
    /// Metrics and health (plain HTTP); keep it on loopback.
    #[arg(long, default_value = "127.0.0.1:4344")]
    pub(crate) http_listen: SocketAddr,
    /// This Oracle's name.
    #[arg(long, default_value = "oracle")]
    pub(crate) name: NveName,
    /// Threads of the mapping database [default: half the processors, at most 4].
    #[arg(long, value_parser = number::count)]
    pub(crate) shards: Option<NonZeroUsize>,
    /// A host name or address to tell NVEs instead of those listened on; may be repeated.
    #[arg(long)]
    pub(crate) advertise: Vec<String>,
    /// Append TLS secrets to this file, to decode captures. Never in production.
    #[arg(long, hide = true)]
    pub(crate) tls_key_log: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) log: Log,
}

#[derive(Debug, Args)]
pub(crate) struct Log {
    /// Log as JSON, one object a line.
    #[arg(long)]
    pub(crate) log_json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OracleCommand {
    /// Print a join token, for `weft nve --join TOKEN` on a host.
    #[command(after_help = "Examples:
  weft oracle token                                  one host, within an hour
  weft oracle token --uses 3 --ttl 600               three hosts, within ten minutes
  weft oracle token --name h1 --rloc 192.0.2.1       only h1, only from there")]
    Token {
        #[command(flatten)]
        access: Access,
        /// How many NVEs may join with it.
        #[arg(long, default_value_t = 1, value_parser = number::<u32>(1..=100_000))]
        uses: u32,
        /// How long it is good for, seconds.
        #[arg(long, default_value_t = 3600, value_parser = number::<u64>(1..=31_536_000))]
        ttl: u64,
        /// Only for NVEs that will serve these VNs; may be repeated.
        #[arg(long)]
        vn: Vec<VnName>,
        /// Only for an NVE with these underlay addresses; may be repeated.
        #[arg(long)]
        rloc: Vec<Rloc>,
        /// Only for an NVE of this name.
        #[arg(long)]
        name: Option<NveName>,
        #[command(flatten)]
        output: Output,
    },
    /// Write a consistent copy of the store to a file, while the Oracle runs.
    #[command(after_help = "Example: weft oracle backup /var/backups/weft.backup")]
    Backup {
        /// The file; must not exist.
        file: PathBuf,
        #[command(flatten)]
        access: Access,
    },
    /// Make a data directory from a backup; the Oracle must not run.
    #[command(
        after_help = "Example: weft oracle restore /var/backups/weft.backup --data-dir /var/lib/weft/oracle"
    )]
    Restore {
        /// The backup.
        file: PathBuf,
        /// The directory to make; must not hold a store.
        #[arg(long, default_value = ORACLE_DATA)]
        data_dir: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct NveArgs {
    #[command(subcommand)]
    pub(crate) command: Option<NveCommand>,
    #[command(flatten)]
    pub(crate) run: NveRun,
}

/// How frames cross the underlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tunnel {
    /// eBPF writes and strips the VXLAN header.
    Direct,
    /// The kernel's VXLAN device does.
    Device,
}

#[derive(Debug, Args)]
pub(crate) struct NveRun {
    /// The join token, needed at the first start; others on this host can read command lines.
    #[arg(long, env = "WEFT_JOIN", hide_env_values = true)]
    pub(crate) join: Option<String>,
    /// The name to join under [default: the host's].
    #[arg(long)]
    pub(crate) name: Option<NveName>,
    /// Where identity and attachments are kept.
    #[arg(long, default_value = NVE_DATA)]
    pub(crate) data_dir: PathBuf,
    /// The local API.
    #[arg(long, env = "WEFT_SOCKET", default_value = weft_api::NVE_SOCKET)]
    pub(crate) socket: PathBuf,
    /// An underlay address; may be repeated [default: the source address towards the Oracle].
    #[arg(long)]
    pub(crate) rloc: Vec<Rloc>,
    /// A device that leads to other NVEs; may be repeated [default: those with an underlay address].
    #[arg(long)]
    pub(crate) uplink: Vec<String>,
    /// TCP port at which NVEs ask each other about tenant systems that move, and tell each other of traces; the same on
    /// every host.
    #[arg(long, default_value_t = weft_api::PEER_PORT, value_parser = number::port)]
    pub(crate) peer_port: u16,
    /// Metrics and health (plain HTTP); keep it on loopback.
    #[arg(long, default_value = "127.0.0.1:4345")]
    pub(crate) http_listen: SocketAddr,
    /// Where eBPF maps and programs are pinned; no dots in it.
    #[arg(long, default_value = PIN_DIR)]
    pub(crate) pin_dir: PathBuf,
    /// Name of the VXLAN device.
    #[arg(long, default_value = VXLAN_DEVICE)]
    pub(crate) vxlan_device: String,
    /// How frames of veth tenants leave.
    #[arg(long, value_enum, default_value = "direct")]
    pub(crate) veth_tunnel: Tunnel,
    /// How frames of TAP tenants leave.
    #[arg(long, value_enum, default_value = "direct")]
    pub(crate) tap_tunnel: Tunnel,
    /// Largest IP packet of tenants [default: the underlay's MTU less 50 (IPv4) or 70 (IPv6)].
    #[arg(long, value_parser = number::<u16>(1_280..=65_535))]
    pub(crate) tenant_mtu: Option<u16>,
    /// Append TLS secrets to this file, to decode captures. Never in production.
    #[arg(long, hide = true)]
    pub(crate) tls_key_log: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) log: Log,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NveCommand {
    /// Remove an NVE from the fabric: its certificate is refused at once.
    #[command(after_help = "Examples:
  weft nve remove h3              its grants stay; `weft tsi release` frees one
  weft nve remove h3 --force      and everything granted to it is free again")]
    Remove {
        /// Its name.
        name: NveName,
        /// Release the grants it still holds, and have VNs whose gateway it is do without.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        access: Access,
        #[command(flatten)]
        output: Output,
    },
    /// Remove programs, maps and the VXLAN device from this host; its agent must not run.
    ///
    /// Tenants' devices are set down, so that nobody behind them reaches the host. Stopping the agent alone
    /// leaves everything forwarding.
    #[command(after_help = "Examples:
  weft nve uninstall                  identity and attachments stay: `weft nve` goes on from there
  weft nve uninstall --purge          nothing stays; joining again needs a new token")]
    Uninstall {
        /// Remove identity and attachments too.
        #[arg(long)]
        purge: bool,
        #[command(flatten)]
        installed: Installed,
        #[command(flatten)]
        output: Output,
    },
}

/// What an NVE leaves on its host.
#[derive(Debug, Args)]
pub(crate) struct Installed {
    /// Where identity and attachments are kept.
    #[arg(long, default_value = NVE_DATA)]
    pub(crate) data_dir: PathBuf,
    /// The local API: an agent that serves it is running.
    #[arg(long, env = "WEFT_SOCKET", default_value = weft_api::NVE_SOCKET)]
    pub(crate) socket: PathBuf,
    /// Where eBPF maps and programs are pinned.
    #[arg(long, default_value = PIN_DIR)]
    pub(crate) pin_dir: PathBuf,
    /// Name of the VXLAN device.
    #[arg(long, default_value = VXLAN_DEVICE)]
    pub(crate) vxlan_device: String,
}

/// A word that serde knows the variants of: `flood`, `proxy`.
fn words<T: serde::de::DeserializeOwned>(word: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::String(word.to_owned())).map_err(|e| e.to_string())
}

/// What a tenant system's device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// The host's end of a veth pair.
    Veth,
    /// A TAP.
    Tap,
}

/// Why a command line is not understood, in one line: the parser's own text has several.
pub(crate) fn misuse(error: &clap::Error) -> CommandError {
    let text = error.render().to_string();
    let lines = text.lines().map(str::trim).filter(|line| {
        !(line.is_empty() || line.starts_with("Usage:") || line.starts_with("For more information"))
    });
    let text = lines.collect::<Vec<_>>().join("; ").replace(":; ", ": ");
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    // Without a command the parser's text is the whole help.
    let text = match error.kind() {
        clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => "a command is missing",
        _ => text,
    };
    CommandError::Misuse(format!("{text}; --help shows what may be written"))
}

fn subnet(text: &str) -> Result<IpNet, String> {
    text.parse().map_err(|_| format!("'{text}' is no subnet; write one like 10.0.0.0/24 or fd00::/64"))
}

fn tenant_ip(text: &str) -> Result<TenantIp, String> {
    let ip: IpAddr = text.parse().map_err(|_| format!("'{text}' is no IP address"))?;
    TenantIp::new(ip).map_err(|e| e.to_string())
}

/// What `weft get` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kinds {
    /// Virtual networks.
    Vns,
    /// Network Virtualization Edges.
    Nves,
    /// Plain LISP xTRs, and how much each is subscribed to.
    Xtrs,
    /// Tenant system interfaces, on all hosts; with --socket on this one.
    Tsis,
    /// Where every address is; with --socket what this host's NVE knows.
    Mappings,
    /// Who asked for whom.
    Conversations,
    /// Who claims what another holds: both are named.
    Duplicates,
    /// Security groups and their rules.
    Groups,
    /// Rules of security groups, and what each let through, on all hosts; with --nve or --socket on one.
    Rules,
    /// Multicast groups that tenants asked for, here and on other hosts.
    Multicast,
    /// What this host's data plane dropped or passed, by reason.
    Drops,
    /// How much the data plane's tables on this host hold, and the kernel memory they take.
    Tables,
    /// Counters of the Oracle; with --socket or --nve of an NVE.
    Counters,
}

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// What to show.
    #[arg(value_enum)]
    pub(crate) what: Kinds,
    /// Only of this virtual network.
    #[arg(long)]
    pub(crate) vn: Option<VnName>,
    /// Only of this security group: groups, rules, or tenant systems to which it applies.
    #[arg(long)]
    pub(crate) group: Option<GroupName>,
    /// Show it again whenever it changed.
    #[arg(long)]
    pub(crate) watch: bool,
    /// Ask the NVE at this socket, not the Oracle.
    #[arg(long)]
    pub(crate) socket: Option<PathBuf>,
    /// What this NVE knows, asked through the Oracle.
    #[arg(long, conflicts_with = "socket")]
    pub(crate) nve: Option<NveName>,
    #[command(flatten)]
    pub(crate) access: Access,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// The command line as a user may write it: a negative number is a value, if none that fits, and no option.
fn definition(command: clap::Command) -> clap::Command {
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    let command = command.mut_args(|arg| match arg.get_action().takes_values() && !arg.is_positional() {
        true => arg.allow_negative_numbers(true),
        false => arg,
    });
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, definition))
}

impl Cli {
    /// What the command line of this process says.
    ///
    /// # Errors
    /// The parser's; also what `--help` shows.
    pub(crate) fn read(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut matches = definition(Self::command()).try_get_matches_from(words)?;
        Self::from_arg_matches_mut(&mut matches)
    }

    /// How errors are shown.
    pub(crate) fn format(&self) -> Format {
        let output = match &self.command {
            Command::Version { output, .. }
            | Command::Vn(
                VnCommand::Create { output, .. }
                | VnCommand::Set { output, .. }
                | VnCommand::Delete { output, .. }
                | VnCommand::List { output, .. },
            )
            | Command::Tsi(
                TsiCommand::Attach(Place { output, .. })
                | TsiCommand::Associate { place: Place { output, .. }, .. }
                | TsiCommand::Update(Change { which: Which { output, .. }, .. })
                | TsiCommand::Activate { which: Which { output, .. }, .. }
                | TsiCommand::Deactivate(Which { output, .. })
                | TsiCommand::Move { output, .. }
                | TsiCommand::Detach { output, .. }
                | TsiCommand::VnConnect(WhichVn { output, .. })
                | TsiCommand::VnDisconnect(WhichVn { output, .. })
                | TsiCommand::VnList { output, .. }
                | TsiCommand::Release { output, .. }
                | TsiCommand::SetGroups { output, .. }
                | TsiCommand::Events { output, .. }
                | TsiCommand::Set { output, .. }
                | TsiCommand::List { output, .. },
            )
            | Command::Group(
                GroupCommand::Set { output, .. }
                | GroupCommand::AddRule { output, .. }
                | GroupCommand::RemoveRule { output, .. }
                | GroupCommand::Delete { output, .. },
            )
            | Command::Xtr(XtrCommand::Add(XtrAdd { output, .. }) | XtrCommand::Remove { output, .. })
            | Command::Nve(NveArgs {
                command: Some(NveCommand::Remove { output, .. } | NveCommand::Uninstall { output, .. }),
                ..
            })
            | Command::Oracle(OracleArgs { command: Some(OracleCommand::Token { output, .. }), .. }) => {
                output
            }
            Command::Get(get) => &get.output,
            Command::Trace(trace) => &trace.output,
            _ => return Format::Table,
        };
        output.output
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    /// A number that cannot be is refused with those that can.
    #[test]
    fn numbers_are_refused_with_their_range() {
        let attach = "tsi attach --vn red --name web --device d --lease";
        for (line, wanted) in [
            ("trace --vn red --from a --to 10.0.0.2 --size -1", "from 1 to 3000"),
            ("trace --vn red --from a --to 10.0.0.2 --size abc", "from 1 to 3000"),
            (&format!("{attach} -5"), "from 1 to 604800"),
            (&format!("{attach} 99999999999999999999"), "from 1 to 604800"),
            ("tsi update --vn red --name web --lease 604801", "from 0 to 604800"),
            ("vn set red --tunnel-ttl -1", "name 1 to 255"),
            ("vn set red --tunnel-ttl 256", "name 1 to 255"),
            ("vn set red --tunnel-dscp -1", "0 to 63"),
            ("vn set red --tunnel-ipv4-weight 256", "from 0 to 255"),
            ("tsi set --vn red --name web --tunnel-ipv6-priority -1", "from 0 to 255"),
            ("vn set red --tunnel-send-burst -1", "1 to 1073741824 octets"),
            ("vn create red --vni -1", "1 to 16777215"),
            ("vn create red --storm-rate -1", "from 0 to 4294967295"),
            ("oracle token --uses 0", "from 1 to 100000"),
            ("oracle --shards 0", "from 1 on"),
            ("oracle --api-port 65536", "from 1 to 65535"),
            ("nve --tenant-mtu 100", "from 1280 to 65535"),
            ("tsi events --after -1", "from 0 on"),
            ("xtr add r --rloc 192.0.2.5 --key-file f --key-id 256", "from 0 to 255"),
        ] {
            let words = format!("weft {line}");
            let error = Cli::read(words.split(' ').map(Into::into)).expect_err(line);
            let text = misuse(&error).to_string();
            assert!(text.contains(wanted) && !text.contains('\n'), "{line}: {text}");
        }
        // A negative number is no option, and an option no value.
        let missing = "weft tsi attach --vn red --name --device d";
        let error = Cli::read(missing.split(' ').map(Into::into)).unwrap_err();
        assert!(misuse(&error).to_string().contains("a value is required for '--name"), "{error}");
    }

    /// Errors of a command that shows JSON are JSON, too.
    #[test]
    fn every_command_with_an_output_says_which() {
        let lines = [
            "vn create red",
            "vn set red --bum drop",
            "vn delete red",
            "vn list",
            "tsi attach --vn red --name web --device d",
            "tsi associate --vn red --name web --device d",
            "tsi update --vn red --name web --device d",
            "tsi activate --vn red --name web",
            "tsi deactivate --vn red --name web",
            "tsi move --vn red --name web --to h2",
            "tsi detach --vn red --name web",
            "tsi release --vn red --name web",
            "tsi events",
            "tsi list",
            "tsi vn-connect --vn red",
            "tsi vn-disconnect --vn red",
            "tsi vn-list",
            "tsi set-groups --vn red --name web --groups a,b",
            "tsi set --vn red --name web --tunnel-ttl 9",
            "vn set red --tunnel-dscp copy",
            "group set web --vn red",
            "group add-rule web --vn red --rule in_any",
            "group remove-rule web --vn red --rule in_any",
            "group delete web --vn red",
            "xtr add r --rloc 192.0.2.5 --key-file f",
            "xtr remove r",
            "nve remove h1",
            "nve uninstall",
            "oracle token",
            "get vns",
            "trace --vn red --from web --to 10.0.0.2",
            "version",
        ];
        fn with_output<'a>(command: &'a clap::Command, all: &mut Vec<&'a clap::Command>) {
            all.extend(Some(command).filter(|c| c.get_arguments().any(|arg| arg.get_id() == "output")));
            command.get_subcommands().for_each(|command| with_output(command, all));
        }
        for line in lines {
            let words = line.split(' ').map(|word| if word == "in_any" { "in any" } else { word });
            let words = ["weft"].into_iter().chain(words).chain(["-o", "json"]);
            let cli = Cli::try_parse_from(words).unwrap_or_else(|e| panic!("{line}: {e}"));
            assert!(matches!(cli.format(), Format::Json), "{line}");
        }
        let weft = Cli::command();
        let mut all = Vec::new();
        weft.get_subcommands().filter(|c| c.get_name() != "lab").for_each(|c| with_output(c, &mut all));
        // One command stands in it twice.
        assert_eq!(all.len(), lines.len() - 1, "a command is not in the list");
    }
}
