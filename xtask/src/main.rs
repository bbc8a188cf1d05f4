//! `cargo xtask`: what a developer types. `cargo xtask --help` lists it.
#![forbid(unsafe_code)]

mod bench;
mod build;
mod demo;
mod interrupt;
mod leftovers;
mod machine;
mod packages;
mod say;
mod soak;
mod test;
mod tools;

use clap::{Parser, Subcommand};
use std::{path::PathBuf, process::ExitCode};
use weft_lab::LabCommand;

/// Build, test and measure Weft on one machine.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", disable_version_flag = true)]
struct Args {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what is missing, build, run a three-host data centre and show what happens in it.
    Demo(demo::Args),
    /// Everything CI runs: format, lints, licences, unit, property and end-to-end tests.
    Test(test::Args),
    /// Measure Weft beside its peers, interleaved, and print medians and ratios.
    Bench(bench::Args),
    /// Simulate a thousand lossy networks; then keep a data centre busy and broken for a while, and count what is lost.
    Soak(soak::Args),
    /// The lab, as `weft lab` (the benches start relays with it).
    #[command(subcommand, hide = true)]
    Lab(LabCommand),
    /// The two ends of the request/response measurement, in their own processes.
    #[command(subcommand, hide = true)]
    Rr(bench::rr::Command),
}

fn main() -> ExitCode {
    // Blocked in every thread from here on: one thread waits for them and cleans up.
    if let Err(error) = interrupt::block() {
        say::error(&error.into());
        return ExitCode::FAILURE;
    }
    let done = match Args::parse().command {
        Task::Demo(args) => demo::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Soak(args) => soak::run(&args),
        Task::Lab(command) => lab(command),
        Task::Rr(command) => bench::rr::run(&command).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        say::error(&error);
        ExitCode::FAILURE
    })
}

fn lab(command: LabCommand) -> anyhow::Result<ExitCode> {
    let weft = std::env::var_os("WEFT_BIN").map_or_else(|| PathBuf::from("weft"), PathBuf::from);
    Ok(command.run(weft)?)
}
