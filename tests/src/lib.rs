//! The harness of the end-to-end tests: a lab per test that shows its state when the test fails
//! and is taken down whatever happens.
//!
//! The tests need root and the tools of [`TOOLS`]; without them they fail, they never pass silently.
#![allow(clippy::print_stderr, reason = "what a failed test shows goes to standard error")]

mod guard;
mod guest;
mod peer;
mod traffic;
mod wire;

pub use guard::TestLab;
pub use guest::{GUEST_IPS, Guest, HOSTS, guest_states, guest_tsi};
pub use peer::{Peer, script};
pub use traffic::transfer;
pub use weft_lab::ping::{Ping, ping, ping_from};
pub use wire::{cut, part};

use anyhow::Context as _;
use std::path::PathBuf;

/// Programs that tests run inside namespaces, by the names they are called with.
pub const TOOLS: [&str; 3] = ["ping", "arping", "iperf3"];

/// The `weft` binary under test, from `WEFT_BIN`, which `cargo xtask test` sets.
///
/// # Errors
/// When it is not set or names no file.
pub fn weft_bin() -> anyhow::Result<PathBuf> {
    let Some(path) = std::env::var_os("WEFT_BIN").map(PathBuf::from) else {
        anyhow::bail!("WEFT_BIN is not set: run 'cargo xtask test', or build weft and set it to its path");
    };
    anyhow::ensure!(path.is_file(), "WEFT_BIN={} is no file: build weft first", path.display());
    Ok(path)
}

/// The three-host data centre of the examples.
pub const THREE_HOSTS: &str = include_str!("../../examples/three-hosts.yaml");

/// The address that a row of `weft get mappings -o json` is about, an IP or a MAC address.
#[must_use]
pub fn eid(row: &serde_json::Value) -> Option<&str> {
    let eid = &row["eid"];
    eid.as_str().or_else(|| eid["ip"].as_str()).or_else(|| eid["mac"].as_str())
}

/// How many frames the NVE of a host counted under a reason.
///
/// # Errors
/// When it cannot be asked.
pub fn frames(lab: &TestLab, host: &str, reason: &str) -> anyhow::Result<u64> {
    let rows: serde_json::Value = serde_json::from_str(&lab.weft_at(host, ["get", "drops", "-o", "json"])?)?;
    let rows = rows.as_array().with_context(|| format!("{rows} is no list"))?;
    Ok(rows.iter().filter(|row| row["reason"] == reason).filter_map(|row| row["packets"].as_u64()).sum())
}
