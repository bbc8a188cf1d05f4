//! The simulated data centre by the thousand: fifty NVEs and two Oracles on a network that loses, repeats and
//! reorders, in every way of learning. A failure names its seed.

use crate::{build, interrupt, say, tools};
use anyhow::{Context as _, Result, ensure};
use std::process::{Command, Stdio};

/// Runs the seeds from `first` on, so many in each way of learning.
pub(super) fn run(first: u64, seeds: u64) -> Result<()> {
    say::step(&format!("simulation of {seeds} seeds from {first} on in every way of learning"));
    let mut command = Command::new(tools::cargo());
    command
        .args(["test", "--locked", "--package", "weft-sim", "--test", "lossy", "--profile", "lab"])
        .env("WEFT_SIM_FIRST_SEED", first.to_string())
        .env("WEFT_SIM_SEEDS", seeds.to_string())
        .current_dir(build::root()?)
        .stdin(Stdio::null());
    let status =
        interrupt::spawn(&mut command).and_then(|mut cargo| cargo.wait()).context("cannot run cargo")?;
    ensure!(
        status.success(),
        "the simulation failed: --first-seed with the seed named above, --seeds 1 --minutes 0 --datagrams 0 shows it again"
    );
    Ok(())
}
