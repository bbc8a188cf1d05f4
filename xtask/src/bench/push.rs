//! `cargo xtask bench push`: a hundred thousand MAC addresses appear on one host, until all are in the tables of
//! another; and one that appears alone. Weft pushes them (`learning: distribute`), FRR announces them by BGP EVPN.

use super::{
    Args,
    peers::{Mass, Tuning},
    report::{self, WEFT},
    stats::Samples,
};
use crate::{build, interrupt, machine, packages, say};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::{path::Path, process::ExitCode, time::Duration};
use weft_lab::{Lab, LabSpec, Options, clock};
use weft_load::{Load, Registering};

/// How many appear at once.
pub(super) const MANY: usize = 100_000;
/// How many appear alone, each round.
const CHANGES: usize = 15;
/// How long all of them may take.
const CEILING: Duration = Duration::from_secs(60);

/// What is measured: name, unit, and which quantile.
const METRICS: [(&str, &str, &str, f64); 4] = [
    ("push_per_s", "1/s", "push_per_s", 0.5),
    ("push_came_least", "1", "push_came", 0.0),
    ("change_ms_p50", "ms", "change_ms", 0.5),
    ("change_ms_p99", "ms", "change_ms", 0.99),
];

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    machine::check()?;
    interrupt::watch();
    interrupt::sweep();
    packages::install(&[packages::Use::Bench])?;
    let weft = if args.peers_only { None } else { Some(build::shipped()?) };
    let mut sides: Vec<Box<dyn Pushes>> = Vec::new();
    if let Some(weft) = &weft {
        say::step(&format!("{MANY} grants"));
        sides.push(Box::new(Weft::up(weft)?));
    }
    for tuning in [Tuning::Fast, Tuning::Default] {
        sides.push(Box::new(Mass::up(tuning)?));
    }
    let measured = measure(args, &mut sides);
    let mut errors: Vec<anyhow::Error> = Vec::new();
    for side in sides {
        errors.extend(side.down().err());
    }
    let samples = measured?;
    let report = report::Report::of_rows("push", args.rounds, &METRICS, &samples);
    report.print();
    if let Some(path) = &args.json {
        report.write(path)?;
        say::step(&format!("numbers written to {}", path.display()));
    }
    errors.pop().map_or(Ok(ExitCode::SUCCESS), Err)
}

fn measure(args: &Args, sides: &mut Vec<Box<dyn Pushes>>) -> Result<Samples> {
    let mut samples = Samples::default();
    for round in 1..=args.rounds {
        say::step(&format!("round {round} of {}", args.rounds));
        for side in sides.iter_mut() {
            for _ in 0..CHANGES {
                samples.add("change_ms", side.name(), side.change()?.as_secs_f64() * 1e3);
            }
        }
        for at in 0..sides.len() {
            let side = &mut sides[at];
            let pushed = side.push()?;
            let came = match pushed {
                Pushed::All(took) => {
                    samples.add("push_per_s", side.name(), MANY as f64 / took.as_secs_f64());
                    MANY
                }
                Pushed::Part(came) => {
                    say::step(&format!("round {round}: {} missed, {came} of {MANY} came", side.name()));
                    came
                }
            };
            samples.add("push_came", side.name(), came as f64);
            if !(side.forget()? && came == MANY) {
                // The next round is not to suffer from what this one left.
                let fresh = sides.remove(at).renew()?;
                sides.insert(at, fresh);
            }
        }
    }
    Ok(samples)
}

/// What came of a push.
pub(super) enum Pushed {
    /// All of them, within this time.
    All(Duration),
    /// So many, and no more of them within the ceiling.
    Part(usize),
}

/// One that tells another host of MAC addresses.
pub(super) trait Pushes {
    fn name(&self) -> &'static str;
    /// From the first of [`MANY`] that appears here until all are in the other host's tables.
    fn push(&mut self) -> Result<Pushed>;
    /// All of them disappear; waits until the other host has none. False when it keeps some.
    fn forget(&mut self) -> Result<bool>;
    /// From one that appears here until it is in the other host's tables.
    fn change(&mut self) -> Result<Duration>;
    /// Takes it down and brings up another like it.
    fn renew(self: Box<Self>) -> Result<Box<dyn Pushes>>;
    fn down(self: Box<Self>) -> Result<()>;
}

/// A scripted NVE on h1 that registers, a real one on h2 that has the tables.
struct Weft {
    lab: Lab,
    load: Load,
    /// Which grant appears alone next.
    next: usize,
    /// What h2 has of its own.
    own: u64,
}

impl Weft {
    fn up(weft: &Path) -> Result<Self> {
        let spec = LabSpec::parse(
            "
name: bench
underlay: { ipv4: 192.0.2.0/24, mtu: 1500, wiring: direct }
oracles: { oracle: { on: h1 } }
hosts: { h1: { nve: false }, h2: {} }
vns: { red: { subnets: [], learning: distribute } }
tenants:
  b: { host: h2, vn: red, ips: [] }
",
        )
        .map_err(anyhow::Error::msg)?;
        let options = Options {
            name: Some(format!("bench{}-push", std::process::id()).parse()?),
            weft: Some(weft.to_owned()),
            bound: true,
            ..Options::default()
        };
        let lab = Lab::up(&spec, &options, &mut |_| {})?;
        let load = match Load::join(&lab, "h1") {
            Ok(load) => load,
            Err(error) => {
                lab.down()?;
                return Err(error);
            }
        };
        let mut weft = Self { lab, load, next: MANY, own: 0 };
        if let Err(error) = weft.prepare() {
            Box::new(weft).down()?;
            return Err(error);
        }
        Ok(weft)
    }

    fn prepare(&mut self) -> Result<()> {
        self.own = self.entries()?;
        // One more than are pushed: that appears alone. A grant that nobody has registered yet is pushed like a
        // registration, for its NVE may only have forgotten to say so: none is left of that kind.
        self.load.grant("red", "m", MANY + 1)?;
        self.load.register(0..MANY + 1, Registering::Activated)?;
        self.load.register(0..MANY + 1, Registering::Withdrawn)?;
        self.wait(self.own)
    }

    /// What h2's data plane holds.
    fn entries(&self) -> Result<u64> {
        let socket = self.lab.files().socket("h2");
        let socket = socket.to_str().context("a path that is text")?;
        let text = self.lab.weft_at("h2", ["get", "tables", "--socket", socket, "-o", "json"])?;
        let all: Vec<Value> = serde_json::from_str(&text)?;
        let fdb = all.iter().find(|table| table["table"] == "fdb").context("no fdb")?;
        fdb["entries"].as_u64().context("no count")
    }

    fn wait(&self, entries: u64) -> Result<()> {
        let seen =
            clock::until(CEILING, || Ok::<_, anyhow::Error>((self.entries()? == entries).then_some(())))?;
        ensure!(seen.is_some(), "h2 has {} entries and not {entries}", self.entries()?);
        Ok(())
    }
}

impl Pushes for Weft {
    fn name(&self) -> &'static str {
        WEFT
    }

    // What does not come is a bug, not a missed round.
    fn push(&mut self) -> Result<Pushed> {
        let begun = clock::now();
        self.load.register(0..MANY, Registering::Activated)?;
        self.wait(self.own + MANY as u64)?;
        Ok(Pushed::All(begun.elapsed()))
    }

    fn forget(&mut self) -> Result<bool> {
        self.load.register(0..MANY, Registering::Withdrawn)?;
        self.wait(self.own)?;
        Ok(true)
    }

    fn change(&mut self) -> Result<Duration> {
        let begun = clock::now();
        self.load.register(self.next..self.next + 1, Registering::Activated)?;
        let seen = self.lab.wait_mapping("h2", &self.load.mac(self.next)?.to_string(), CEILING)?;
        ensure!(seen, "h2 was never told");
        let took = begun.elapsed();
        self.load.register(self.next..self.next + 1, Registering::Withdrawn)?;
        self.wait(self.own)?;
        Ok(took)
    }

    fn renew(self: Box<Self>) -> Result<Box<dyn Pushes>> {
        Ok(self)
    }

    fn down(self: Box<Self>) -> Result<()> {
        let Self { lab, load, .. } = *self;
        drop(load);
        Ok(lab.down()?)
    }
}
