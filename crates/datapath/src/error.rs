//! Why the data plane could not do what it was told: one line each, with what to do.

use crate::IfIndex;
use std::{io, path::PathBuf};
use weft_model::Rloc;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// tcx needs Linux 6.6.
    #[error("Linux {found} is too old: the data plane needs 6.6 or newer; upgrade this host's kernel")]
    OldKernel {
        /// What runs.
        found: String,
    },
    /// Not root.
    #[error("not permitted to {doing}; run as root (CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN)")]
    NotPermitted {
        /// What was refused.
        doing: String,
    },
    /// No kernel type information.
    #[error(
        "the kernel has no BTF (/sys/kernel/btf/vmlinux); use a kernel built with CONFIG_DEBUG_INFO_BTF=y"
    )]
    NoBtf,
    /// No place for pins.
    #[error("cannot mount a BPF file system at {path}: {source}; mount it: mount -t bpf bpf {path}", path = path.display())]
    NoBpffs {
        /// Where it was tried.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Pins are named by the kernel's rules.
    #[error("{path} cannot be a pin directory: it must be absolute, and names on a BPF file system have no dots", path = .0.display())]
    PinName(PathBuf),
    /// Two agents, one directory.
    #[error("{path} is in use by another process; stop it or choose another pin directory", path = .0.display())]
    InUse(PathBuf),
    /// Maps of another layout.
    #[error(
        "{path} holds maps of layout version {found}, this is version {ours}; `weft nve uninstall` removes them, and starting again makes new ones", path = path.display()
    )]
    OtherAbi {
        /// The pin directory.
        path: PathBuf,
        /// What it holds.
        found: String,
        /// What this program speaks.
        ours: u32,
    },
    /// Maps of another size.
    #[error(
        "pinned map {map} has {what} {found}, wanted {wanted}; keep the old limits, or `weft nve uninstall` first"
    )]
    OtherMap {
        /// The map.
        map: &'static str,
        /// Which of its properties.
        what: &'static str,
        /// As pinned.
        found: u32,
        /// As wanted.
        wanted: u32,
    },
    /// Pins of devices in another network namespace, still attached.
    #[error("{path} belongs to the network namespace {netns}; choose another pin directory", path = path.display())]
    OtherNamespace {
        /// The pin directory.
        path: PathBuf,
        /// Inode of that namespace.
        netns: u64,
    },
    /// The name of our VXLAN device is taken by something else.
    #[error("device {name} exists and is {found}; remove it, or give the VXLAN device another name")]
    OtherDevice {
        /// The name.
        name: String,
        /// What it is.
        found: String,
    },
    /// Somebody else receives VXLAN here.
    #[error("another device of this host already listens on UDP port {port}; remove it")]
    PortTaken {
        /// The port.
        port: u16,
    },
    /// The device is not there (any more).
    #[error("device {index} does not exist", index = .0.0)]
    NoDevice(IfIndex),
    /// More than one address to tunnel from.
    #[error("{0} and {1} are RLOCs of one family; name one of each")]
    TwoRlocs(Rloc, Rloc),
    /// A table is full.
    #[error("map {map} is full ({limit} entries); raise its limit and restart after uninstalling")]
    Full {
        /// The map.
        map: &'static str,
        /// Its size.
        limit: u32,
    },
    /// A rule is to be counted where there is no counter.
    #[error("there is no counter {0} for a rule; number rules from 0 to {last}", last = crate::RULE_COUNTERS - 1)]
    NoRuleCounter(u32),
    /// A frame too short or too long to be one.
    #[error("a frame of {0} octets cannot be sent; an Ethernet frame has 14 to 65,535")]
    FrameLength(usize),
    /// The verifier or the loader refused the programs.
    #[error("cannot load the eBPF programs: {0}")]
    Load(String),
    /// Everything else the kernel refuses.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was tried.
        doing: String,
        /// What the kernel said.
        source: io::Error,
    },
}
