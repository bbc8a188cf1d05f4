//! What both daemons need: logs and the signals that end them.

use crate::cli::Log;
use std::io::{self, IsTerminal};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Logs to standard error: text for people, JSON for programs, filtered by `WEFT_LOG`.
pub(super) fn log(log: &Log) {
    let filter = EnvFilter::try_from_env("WEFT_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    if log.log_json {
        logs.json().init();
    } else {
        logs.with_ansi(io::stderr().is_terminal()).with_target(false).init();
    }
}

/// Ends on SIGINT or SIGTERM.
pub(super) async fn stopped() {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        // Without handlers the default action ends the process.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
