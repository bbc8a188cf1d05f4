//! `cargo xtask bench`: Weft beside what people use today, on the same machine, in the same round.
//!
//! Every implementation is up at the same time; in each round each is measured once, in turn, so
//! that whatever else the machine does hits all of them alike. Results are medians over rounds.

mod learning;
mod measure;
mod moves;
mod peers;
mod push;
mod report;
pub(crate) mod rr;
mod stats;
mod vm;

use crate::{
    build, interrupt, machine,
    packages::{self, Use},
    say,
};
use anyhow::Result;
use measure::Metric;
use peers::Peer;
use std::{path::PathBuf, process::ExitCode};

/// Options of `bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to measure.
    what: What,
    /// Writes the numbers to this file as JSON too.
    #[arg(long)]
    json: Option<PathBuf>,
    /// `learning`, `move`: draws the numbers into this file as SVG.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Rounds; at least 7 for a result to be quoted.
    #[arg(long, default_value_t = 7)]
    rounds: u32,
    /// Only these metrics.
    #[arg(long, value_name = "METRIC")]
    only: Vec<String>,
    /// Only the peers, without Weft.
    #[arg(long)]
    peers_only: bool,
    /// `move`, `vm`: so many moves [default: 1000, of machines 30].
    #[arg(long)]
    moves: Option<u32>,
    /// `learning`: only these modes.
    #[arg(long = "mode", value_name = "MODE")]
    modes: Vec<String>,
    /// `learning`: so many tenant systems.
    #[arg(long, default_value_t = 1_000)]
    tenants: usize,
}

impl Args {
    /// How many moves there are.
    fn moves(&self, usual: u32) -> Result<u32> {
        let moves = self.moves.unwrap_or(usual);
        anyhow::ensure!(moves > 0, "--moves 0 measures nothing: give at least 1");
        Ok(moves)
    }
}

/// The benches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum What {
    /// Round trips, throughput and transactions between two tenants on two hosts.
    Datapath,
    /// The first ping, with nothing known and with the location known.
    Resolve,
    /// From the attach call to the first frame that arrives from another host.
    Attach,
    /// A thousand tenant systems that talk, under every way of learning.
    Learning,
    /// A hundred thousand MAC addresses of one host, until another host has them; and one alone.
    Push,
    /// A tenant system that moves between three hosts while tenants on two others talk to it.
    Move,
    /// A virtual machine that QEMU moves between three hosts while tenants on two others talk to it; Weft alone.
    Vm,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::Datapath => "datapath",
            Self::Resolve => "resolve",
            Self::Attach => "attach",
            Self::Learning => "learning",
            Self::Push => "push",
            Self::Move => "move",
            Self::Vm => "vm",
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.what == What::Learning {
        return learning::run(args);
    }
    if args.what == What::Push {
        return push::run(args);
    }
    if args.what == What::Move {
        return moves::run(args);
    }
    if args.what == What::Vm {
        return vm::run(args);
    }
    machine::check()?;
    interrupt::watch();
    interrupt::sweep();
    packages::install(&[Use::Bench])?;
    let weft = if args.peers_only { None } else { Some(build::shipped()?) };
    let mut all = peers::up(args.what, weft.as_deref())?;
    let measured = measure(args, &mut all);
    // Both: a leftover matters even where a measurement failed.
    let mut errors = Vec::new();
    for peer in all {
        if let Err(error) = peer.down() {
            errors.push(error);
        }
    }
    let report = measured?;
    report.print();
    if let Some(path) = &args.json {
        report.write(path)?;
        say::step(&format!("numbers written to {}", path.display()));
    }
    match errors.pop() {
        Some(error) => Err(error),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn measure(args: &Args, all: &mut [Box<dyn Peer>]) -> Result<report::Report> {
    let all_metrics = Metric::of(args.what);
    let wanted = |m: &&Metric| args.only.is_empty() || args.only.iter().any(|name| name == m.name());
    let metrics: Vec<Metric> = all_metrics.iter().filter(wanted).copied().collect();
    anyhow::ensure!(
        !metrics.is_empty(),
        "no metric {}: there are {}",
        args.only.join(", "),
        all_metrics.iter().map(|m| m.name()).collect::<Vec<_>>().join(", ")
    );
    let mut samples = stats::Samples::default();
    for round in 1..=args.rounds {
        say::step(&format!("round {round} of {}", args.rounds));
        for metric in &metrics {
            for peer in all.iter_mut() {
                for value in metric.measure(peer.as_mut())? {
                    samples.add(metric.name(), peer.name(), value);
                }
            }
        }
    }
    Ok(report::Report::of(args.what.name(), args.rounds, &metrics, &samples))
}
