//! `cargo xtask test`: everything CI runs, in stages, each timed.

use crate::{
    build, interrupt, machine,
    packages::{self, Use},
    say, tools,
};
use anyhow::{Context as _, Result};
use std::{
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

/// Options of `test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only the stages with these names.
    #[arg(value_name = "STAGE")]
    only: Vec<String>,
    /// For cargo: the lock file is used as it is.
    #[arg(long)]
    locked: bool,
}

/// A cargo command that must succeed. `LOCKED` stands for `--locked` where that was asked for.
struct Stage {
    name: &'static str,
    words: &'static [&'static str],
}

const LOCKED: &str = "LOCKED";

const STAGES: &[Stage] = &[
    Stage { name: "fmt", words: &["fmt", "--all", "--check"] },
    Stage { name: "deny", words: &["deny", LOCKED, "check", "bans", "licenses", "sources"] },
    Stage {
        name: "clippy",
        words: &["clippy", LOCKED, "--workspace", "--all-targets", "--", "-D", "warnings"],
    },
    Stage { name: "build", words: &["test", LOCKED, "--workspace", "--no-run"] },
    Stage { name: "tests", words: &["nextest", "run", LOCKED, "--workspace", "--profile", "ci"] },
    Stage { name: "doc", words: &["test", LOCKED, "--workspace", "--doc", "--quiet"] },
];

#[derive(PartialEq)]
enum Outcome {
    Passed,
    Failed,
    NotRun,
}

#[allow(clippy::disallowed_methods, reason = "stages are timed")]
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let began = Instant::now();
    let mut results: Vec<(&str, Outcome, Duration)> = Vec::new();
    for wanted in &args.only {
        let names: Vec<&str> = STAGES.iter().map(|stage| stage.name).collect();
        anyhow::ensure!(
            names.contains(&wanted.as_str()),
            "no stage '{wanted}': there are {}",
            names.join(", ")
        );
    }
    // A machine on which something cannot run fails: nothing is left out silently.
    machine::check()?;
    interrupt::watch();
    interrupt::sweep();
    packages::install(&[Use::Test])?;
    tools::install()?;
    results.push(("prepare", Outcome::Passed, began.elapsed()));

    let mut failed = false;
    for stage in STAGES.iter().filter(|s| args.only.is_empty() || args.only.iter().any(|o| o == s.name)) {
        if interrupt::interrupted() {
            results.push((stage.name, Outcome::NotRun, Duration::ZERO));
            continue;
        }
        let start = Instant::now();
        let outcome = match interrupt::while_child(|| stage.run(args.locked)) {
            Ok(true) => Outcome::Passed,
            Ok(false) => Outcome::Failed,
            Err(error) => {
                say::error(&error);
                Outcome::Failed
            }
        };
        failed |= outcome == Outcome::Failed;
        results.push((stage.name, outcome, start.elapsed()));
    }
    interrupt::sweep();
    summary(&results, began.elapsed());
    if interrupt::interrupted() {
        return Ok(ExitCode::from(130));
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl Stage {
    fn run(&self, locked: bool) -> Result<bool> {
        let words = self.words.iter().filter(|word| locked || **word != LOCKED);
        let words: Vec<&str> = words.map(|word| if *word == LOCKED { "--locked" } else { word }).collect();
        say::heading(&format!("{}: cargo {}", self.name, words.join(" ")));
        let mut command = Command::new(tools::cargo());
        command.args(&words).current_dir(build::root()?).stdin(Stdio::null());
        if self.name == "tests" {
            command.env("WEFT_BIN", build::tested()?);
        }
        let status = interrupt::spawn(&mut command).and_then(|mut cargo| cargo.wait());
        Ok(status.context("cannot run cargo")?.success())
    }
}

fn summary(results: &[(&str, Outcome, Duration)], whole: Duration) {
    say::heading("summary");
    let rows: Vec<Vec<String>> = results
        .iter()
        .map(|(name, outcome, time)| {
            let result = match outcome {
                Outcome::Passed => "passed",
                Outcome::Failed => "FAILED",
                Outcome::NotRun => "not run",
            };
            vec![(*name).to_owned(), result.to_owned(), say::duration(*time)]
        })
        .collect();
    say::table(&["stage", "result", "time"], &rows);
    let count = |which: Outcome| results.iter().filter(|(_, outcome, _)| *outcome == which).count();
    say::line(&format!("\nall in {}", say::duration(whole)));
    say::line(&format!(
        "stages: {} passed, {} failed, {} skipped",
        count(Outcome::Passed),
        count(Outcome::Failed),
        count(Outcome::NotRun)
    ));
}
