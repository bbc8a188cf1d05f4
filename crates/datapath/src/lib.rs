//! Weft's data plane: eBPF programs at every VAP and uplink, their loader and typed maps, and a
//! software model of the same decisions.
mod event;
mod tables;

pub use event::{Punt, PuntReason};
pub use tables::{Config, IfIndex, Location, Neighbour, Op, Path, Peer, Tables, Vap, VapKind};
