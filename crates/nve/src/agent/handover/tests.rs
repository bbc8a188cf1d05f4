//! NVEs that ask each other, with real TLS, and what is refused.

mod fabric;
mod lines;
mod refused;
mod stream;
mod traced;

use super::Handovers;
pub(super) use fabric::Fabric;
use std::sync::Arc;
use tokio::sync::watch;
use weft_model::XtrId;

/// Handovers of a driver that nobody asks.
pub(in crate::agent) fn none() -> Handovers {
    let credentials = Arc::new(Fabric::new().nve(XtrId([1; 16])));
    Handovers::new(watch::channel(credentials).1, 4346, 16)
}
