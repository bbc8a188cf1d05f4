//! Weft's data plane: eBPF programs at every VAP and uplink, their loader and typed maps, and a
//! software model of the same decisions.
//!
//! [`Kernel`] is the real thing, [`Model`] the reference: a property test drives both with the same
//! tables and frames. Both are a [`Datapath`]. The tables are the agent's wish and the kernel's
//! state alike: `wanted.diff(&kernel.observed()?)` is what a restarted agent has to apply.
mod datapath;
pub mod echo;
mod error;
mod event;
mod kernel;
mod model;
mod reason;
mod tables;

pub use datapath::Datapath;
pub use error::DatapathError;
pub use event::{Punt, PuntReason};
pub use kernel::{Attachment, Did, DryRun, Kernel, Limits, OpenOptions, Punts};
pub use model::{Action, Ingress, Model, Verdict, decide};
pub use reason::{Counter, Direction, Idle, Reason};
pub use tables::{Config, IfIndex, Location, Neighbour, Op, Path, Peer, Tables, Vap, VapKind};
