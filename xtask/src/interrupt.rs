//! Ctrl-C: whatever runs is ended and every lab of this process is taken down.

use crate::{leftovers, say};
use nix::sys::signal::{SigSet, Signal};
use std::{
    io,
    process::{Child, Command},
    sync::atomic::{AtomicBool, Ordering},
};
use weft_lab::RunRoot;

/// A child that gets the terminal's Ctrl-C itself is being waited for.
static WAITING: AtomicBool = AtomicBool::new(false);
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn signals() -> SigSet {
    SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP])
}

/// Keeps the signals from ending any thread. Children inherit that: start them with [`spawn`].
pub(crate) fn block() -> nix::Result<()> {
    signals().thread_block()
}

/// Watches for the signals from now on.
pub(crate) fn watch() {
    std::thread::spawn(|| {
        while signals().wait().is_ok() {
            INTERRUPTED.store(true, Ordering::SeqCst);
            if WAITING.load(Ordering::SeqCst) {
                continue;
            }
            say::step("interrupted: taking down what was made");
            clean_up();
            std::process::exit(130);
        }
    });
}

/// Starts a child that the signals end. One that comes in this instant ends this process at once; the
/// next run takes down what that left.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    signals().thread_unblock()?;
    let child = command.spawn();
    signals().thread_block()?;
    child
}

/// Runs `wait`, during which a child handles the signals and this process goes on after its end.
pub(crate) fn while_child<T>(wait: impl FnOnce() -> T) -> T {
    WAITING.store(true, Ordering::SeqCst);
    let result = wait();
    WAITING.store(false, Ordering::SeqCst);
    result
}

/// Whether somebody has asked to stop.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Takes down the labs of this process.
fn clean_up() {
    let root = RunRoot::default();
    let own = weft_lab::ProcessId::own().ok();
    for name in weft_lab::list(&root).unwrap_or_default().into_iter().map(|lab| lab.name) {
        let ours = weft_lab::Lab::open(&root, &name)
            .is_ok_and(|lab| lab.record().bound && Some(lab.record().maker) == own);
        if ours && let Err(error) = weft_lab::down(&root, &name) {
            say::error(&error.into());
        }
    }
}

/// Takes down labs, and what tests of the data plane made, whose maker was killed: of earlier runs, and of tests that have just ended.
pub(crate) fn sweep() {
    leftovers::sweep();
    match weft_lab::sweep(&RunRoot::default()) {
        Ok(swept) if swept.is_empty() => {}
        Ok(swept) => say::step(&format!("removed what crashed runs left: {}", swept.join(", "))),
        Err(error) => say::error(&error.into()),
    }
}
