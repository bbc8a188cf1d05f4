//! Weft's Network Virtualization Edge: a sans-IO [`core`] and the [`agent`] that drives it.
#![forbid(unsafe_code)]

pub mod agent;
pub mod core;

pub use agent::{NveError, NveOptions, UninstallOptions, Uninstalled, run, uninstall};
