//! Ctrl-C for commands that must not be ended in the middle: it is held, and looked for between steps.

use crate::error::LabError;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use std::io;

const HELD: [Signal; 2] = [Signal::SIGINT, Signal::SIGTERM];

/// Holds the signals that end a command, in this thread and those it starts from here on.
pub(crate) fn hold() -> Result<(), LabError> {
    let mut set = SigSet::empty();
    HELD.into_iter().for_each(|signal| set.add(signal));
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None)
        .map_err(io::Error::from)
        .map_err(LabError::io("hold signals"))
}

/// Whether one has come since.
pub(crate) fn pending() -> bool {
    // SAFETY: a set of signals is plain integers; sigpending fills it, sigismember reads it, both on this stack.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigpending(&raw mut set) == 0
            && HELD.iter().any(|signal| libc::sigismember(&raw const set, *signal as libc::c_int) == 1)
    }
}
