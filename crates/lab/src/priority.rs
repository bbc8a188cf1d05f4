//! Threads that go before all others: what they measure is then not when they got a processor.

use nix::{errno::Errno, libc};
use std::io;

/// The calling thread runs before all that are of no such priority (`SCHED_FIFO`, sched(7)). For threads that sleep nearly
/// all the time.
///
/// # Errors
/// Without `CAP_SYS_NICE`.
pub(crate) fn before_others() -> io::Result<()> {
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: 0 is the calling thread, and `priority` lives until the call returns.
    let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority) };
    Errno::result(done).map(drop).map_err(io::Error::from)
}
