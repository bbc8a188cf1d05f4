//! The agent: sockets, clocks, tasks and files around the [core](crate::core).
//!
//! ```text
//!                    local API (unix socket)      Oracle /v1 (watches, grants)
//!                              \                     /
//! punts (ring buffer) ---->  driver: one task, owns core and data plane  <----> sessions (TLS)
//! link events (netlink) ---/           |                \---- LISP datagrams (UDP, per RLOC)
//!                              pinned eBPF maps and programs
//! ```
//!
//! Everything runs on one single-threaded runtime, so a punted question passes through no lock and wakes
//! no second thread; what blocks (attaching a program, writing a file) runs beside it.

mod calls;
mod clock;
#[cfg(test)]
#[path = "../../tests/common/mod.rs"]
mod common;
mod devices;
mod driver;
mod error;
mod events;
mod extract;
mod handover;
mod held_back;
mod host;
mod identity;
mod inputs;
mod lisp;
mod local;
mod look;
mod metrics;
mod options;
mod outputs;
mod plane;
mod policy_log;
mod programs;
mod requests;
mod saver;
mod session;
mod shown;
mod start;
mod state;
#[cfg(test)]
mod tests;
mod trace;
mod tsi_calls;
mod uninstall;
mod uplinks;
mod views;
mod vn_calls;
mod watch;

pub use error::NveError;
pub use options::NveOptions;
pub use uninstall::{UninstallOptions, Uninstalled, uninstall};

use std::future::Future;

/// Runs an NVE until `shutdown` ends.
///
/// Tenant systems keep their connectivity after it returns: programs and tables stay in the
/// kernel, and the next run adopts them.
///
/// # Errors
/// [`NveError`] when it cannot start, in one line that says what to do.
pub async fn run(options: NveOptions, shutdown: impl Future<Output = ()>) -> Result<(), NveError> {
    start::run(options, shutdown).await
}
