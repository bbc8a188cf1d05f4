//! The cores without a lab: the simulated data centre by the thousand (fifty NVEs and two Oracles on a network that
//! loses, repeats and reorders, in every way of learning; moves that are broken off at each step), and all orders of
//! events of one move. A failure names its seed, or the steps that lead to it.

use crate::{build, interrupt, say, tools};
use anyhow::{Context as _, Result, ensure};
use std::process::{Command, Stdio};

/// Runs the seeds from `first` on, so many of each kind.
pub(super) fn run(first: u64, seeds: u64) -> Result<()> {
    say::step(&format!("simulation of {seeds} seeds from {first} on, in every way of learning and of moves"));
    let knobs = [("WEFT_SIM_FIRST_SEED", first), ("WEFT_SIM_SEEDS", seeds)];
    let hint = "--first-seed with the seed named above, --seeds 1 --states 0 --minutes 0 --datagrams 0 shows it again";
    test(&["--package", "weft-sim", "--test", "lossy", "--test", "moves"], &knobs, hint)
}

/// Looks at all orders of events of moves, up to so many steps of each kind of trouble.
pub(super) fn check(states: u64) -> Result<()> {
    say::step(&format!("up to {states} steps of moves in every order of events, with each kind of trouble"));
    let hint = "the steps above lead to it";
    test(&["--package", "weft-check", "--test", "moves"], &[("WEFT_CHECK_STEPS", states)], hint)
}

fn test(what: &[&str], knobs: &[(&str, u64)], hint: &str) -> Result<()> {
    let mut command = Command::new(tools::cargo());
    command
        .args(["test", "--locked", "--profile", "lab"])
        .args(what)
        .args(["--", "--nocapture"])
        .envs(knobs.iter().map(|(name, value)| (name, value.to_string())))
        .current_dir(build::root()?)
        .stdin(Stdio::null());
    let status =
        interrupt::spawn(&mut command).and_then(|mut cargo| cargo.wait()).context("cannot run cargo")?;
    ensure!(status.success(), "it failed: {hint}");
    Ok(())
}
