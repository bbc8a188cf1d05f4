//! `cargo xtask bench learning`: the same traffic of a thousand tenant systems under every way of learning, each
//! in a data centre of its own, one after the other.

mod plot;
mod report;
mod site;
mod traffic;

use super::Args;
use crate::{build, interrupt, machine, packages, say};
use anyhow::Result;
use site::Site;
use std::process::ExitCode;

/// A way of learning: the VN's mode, and who replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) mode: &'static str,
    pub(super) reply: &'static str,
}

/// Every way there is.
const WAYS: [Way; 5] = [
    Way { mode: "oracle", reply: "proxy" },
    Way { mode: "oracle", reply: "forward" },
    Way { mode: "distribute", reply: "proxy" },
    Way { mode: "translate", reply: "proxy" },
    Way { mode: "flood", reply: "proxy" },
];

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    machine::check()?;
    interrupt::watch();
    interrupt::sweep();
    packages::install(&[packages::Use::Bench])?;
    let weft = build::shipped()?;
    let mut report = report::Report::new();
    for way in WAYS {
        if !args.modes.is_empty() && !args.modes.iter().any(|mode| mode == way.mode) {
            continue;
        }
        say::heading(&format!("learning {}, reply {}", way.mode, way.reply));
        let mut site = Site::up(&weft, way)?;
        let measured = site.measure(&mut report, args.tenants);
        let down = site.down();
        measured?;
        down?;
    }
    report.print();
    if let Some(path) = &args.json {
        report.write(path)?;
        say::step(&format!("numbers written to {}", path.display()));
    }
    if let Some(path) = &args.plot {
        plot::write(&report, path)?;
        say::step(&format!("picture written to {}", path.display()));
    }
    Ok(ExitCode::SUCCESS)
}
