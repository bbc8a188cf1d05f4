//! A data centre of network namespaces on one machine.
//!
//! One YAML file names hosts, the underlay, Oracles, NVEs, virtual networks and tenant systems.
//! [`Lab::up`] makes each of them a network namespace, wires the hosts to one bridge (so that a
//! capture there sees the whole underlay), starts the real `weft` binary in them as a user would,
//! and attaches the tenant systems. [`down`] takes everything away again, also what an earlier run
//! left when it crashed.
//!
//! ```text
//!   <lab>.red-a        <lab>.h1            <lab>.fabric           <lab>.h2        <lab>.red-b
//!   eth0 -- veth --- red-a  eth0 -- veth --- h1 [br0] h2 --- veth -- eth0  red-b --- veth -- eth0
//!   (tenant)         weft nve                  |                  weft nve         (tenant)
//!                                            oracle --- veth -- eth0 in <lab>.oracle: weft oracle
//! ```
//!
//! A tenant system may be a virtual machine ([`vm`]): QEMU in its host's namespace, which
//! [`Lab::migrate`] moves to another one while the machine runs.
//!
//! The lab links no core of Weft: it knows the binary only by its command line ([`commands`]).

pub mod capture;
pub mod cli;
pub mod clock;
pub mod commands;
mod down;
pub mod echo;
mod entries;
mod error;
mod http;
mod interrupt;
mod lab;
mod links;
pub mod lossy;
mod netns;
pub mod numbers;
pub mod ping;
pub mod probe;
mod process;
pub mod raw;
mod record;
mod remotes;
mod spec;
pub mod tap;
mod tenant;
mod underlay;
pub mod vm;

pub use cli::LabCommand;
pub use down::{Cleanup, down, sweep};
pub use error::{CleanupError, LabError};
pub use lab::{Lab, Migration, MigrationLimits, Options, Progress, TapRelay};
pub use links::{AddressFlags, BridgePort, Links, VethEnd, Vxlan};
pub use netns::{NETNS_DIR, NetNs};
pub use process::{ProcessId, Signal};
pub use record::{LabSummary, Record, RunRoot, TenantState, list};
pub use spec::{
    DeviceKind, HostSpec, LabName, LabSpec, NodeName, OracleSpec, RlocFamily, TenantSpec, UnderlaySpec,
    VnSpec, Wiring,
};
