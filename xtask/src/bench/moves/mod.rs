//! `cargo xtask bench move`: a tenant system moves between three hosts while tenants on two others send it a thousand
//! echo requests a second each, over IPv4 and over IPv6, and hold TCP connections. Under Weft as a hypervisor moves
//! it (RFC 8394), and the same flip under FRR's BGP EVPN with MAC mobility, in turn.

mod guest;
mod held;
mod plot;
mod policy;
mod watch;
mod weft;

pub(super) use guest::{Flip, Guest, MAC, SPEC};
pub(super) use watch::{RATE, gap, milliseconds};

use super::{
    Args,
    peers::{Mobile, Tuning},
    report::Report,
    stats::Samples,
};
use crate::{build, interrupt, machine, packages, say};
use anyhow::{Context as _, Result};
use held::{By, Held};
use policy::Refused;
use std::{collections::BTreeMap, path::Path, process::ExitCode};
use watch::{Seen, Watch};
use weft::Weft;
use weft_lab::Lab;

/// The hosts it moves between, in this order.
pub(super) const HOSTS: [&str; 3] = ["h1", "h2", "h3"];
/// How many moves there are unless somebody says otherwise.
const MOVES: u32 = 1_000;
/// After how many moves people hear of it.
const TELL: u32 = 10;

/// What is measured: name, unit, samples, and which quantile.
const METRICS: [(&str, &str, &str, f64); 17] = [
    ("gap_ms_p50", "ms", "gap_ms", 0.5),
    ("gap_ms_p99", "ms", "gap_ms", 0.99),
    ("gap_ms_max", "ms", "gap_ms", 1.0),
    ("pause_ms_p50", "ms", "pause_ms", 0.5),
    ("pause_ms_p99", "ms", "pause_ms", 0.99),
    ("deactivate_ms_p50", "ms", "deactivate_ms", 0.5),
    ("deactivate_ms_p99", "ms", "deactivate_ms", 0.99),
    ("activate_ms_p50", "ms", "activate_ms", 0.5),
    ("activate_ms_p99", "ms", "activate_ms", 0.99),
    ("lost", "1", "lost", 0.5),
    ("lost_per_move_and_peer", "1", "lost_each", 0.5),
    ("lost_after_activate", "1", "lost_after", 0.5),
    ("duplicated", "1", "duplicated", 0.5),
    ("broken_tcp", "1", "broken", 0.5),
    ("broken_answers", "1", "broken_answers", 0.5),
    ("forbidden_sent", "1", "forbidden_sent", 0.5),
    ("forbidden_through", "1", "forbidden_through", 0.5),
];

/// One that carries a tenant system which moves.
pub(super) trait Moves {
    fn name(&self) -> &'static str;
    fn lab(&self) -> &Lab;
    /// Whether what may come to it is limited by policy.
    fn has_policy(&self) -> bool {
        false
    }
    /// Moves it to the next host.
    fn move_on(&mut self) -> Result<Flip>;
    /// What may take its time after that: where it was forgets it.
    fn clear(&mut self) -> Result<()>;
    fn down(self: Box<Self>) -> Result<()>;
}

/// One that is up, with its connections and what was seen of it.
struct Side {
    moves: Box<dyn Moves>,
    held: Option<Held>,
    /// Those that the one that moves has opened, where its policy lets only answers in.
    answers: Option<Held>,
    seen: Vec<Seen>,
    /// Of what policy refuses, how many were sent and how many came through.
    forbidden: Option<[u64; 2]>,
}

impl Side {
    /// One move.
    fn once(&mut self) -> Result<()> {
        let held = self.held.as_mut().context("it holds no connections")?;
        let held = std::iter::once(held).chain(&mut self.answers);
        let mut held: Vec<&mut Held> = held.collect();
        held.iter().for_each(|held| held.go(true));
        let refused = self.moves.has_policy().then(|| Refused::start(self.moves.lab())).transpose()?;
        let watch = Watch::start(self.moves.lab())?;
        let flip = self.moves.move_on()?;
        let seen = watch.after(&flip)?;
        for held in &mut held {
            held.check(self.moves.lab())?;
            held.go(false);
        }
        if let Some([sent, through]) = refused.map(Refused::end) {
            let [all_sent, all_through] = self.forbidden.unwrap_or_default();
            self.forbidden = Some([all_sent + sent, all_through + through]);
        }
        self.seen.push(seen);
        self.moves.clear()
    }
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    machine::check()?;
    let moves = args.moves(MOVES)?;
    interrupt::watch();
    interrupt::sweep();
    packages::install(&[packages::Use::Bench])?;
    let weft = if args.peers_only { None } else { Some(build::shipped()?) };
    let mut sides = Vec::new();
    let measured = up(weft.as_deref(), &mut sides).and_then(|()| measure(moves, &mut sides));
    let mut errors = Vec::new();
    let mut seen = BTreeMap::new();
    let mut counts = BTreeMap::new();
    for side in sides {
        let name = side.moves.name();
        seen.insert(name, side.seen);
        let broken = side.held.map(Held::end).unwrap_or_default();
        let broken_answers = side.answers.map(Held::end);
        counts.insert(name, Counts { broken, broken_answers, forbidden: side.forbidden });
        errors.extend(side.moves.down().err());
    }
    measured?;
    let report = Report::of_rows("move", moves, &METRICS, &samples(&seen, &counts));
    report.print();
    let gaps: BTreeMap<&str, Vec<f64>> = seen
        .iter()
        .map(|(name, all)| (*name, all.iter().flat_map(|seen| seen.gaps.clone()).collect()))
        .collect();
    plot::print(&gaps);
    if let Some(path) = &args.json {
        report.write(path)?;
        say::step(&format!("numbers written to {}", path.display()));
    }
    if let Some(path) = &args.plot {
        plot::write(&gaps, path)?;
        say::step(&format!("picture written to {}", path.display()));
    }
    errors.pop().map_or(Ok(ExitCode::SUCCESS), Err)
}

/// Brings all up that are compared; what is up when that fails is in `sides`, too.
fn up(weft: Option<&Path>, sides: &mut Vec<Side>) -> Result<()> {
    let mut add = |moves: Box<dyn Moves>| {
        sides.push(Side { moves, held: None, answers: None, seen: Vec::new(), forbidden: None });
    };
    if let Some(weft) = weft {
        say::step("bringing up weft");
        add(Box::new(Weft::up(weft)?));
    }
    for tuning in [Tuning::Fast, Tuning::Default] {
        say::step(&format!("bringing up {}", tuning.name()));
        add(Box::new(Mobile::up(tuning)?));
    }
    for side in sides {
        side.held = Some(Held::start(side.moves.lab(), By::Others)?);
        if side.moves.has_policy() {
            side.answers = Some(Held::start(side.moves.lab(), By::Guest)?);
        }
    }
    Ok(())
}

fn measure(moves: u32, sides: &mut [Side]) -> Result<()> {
    for number in 1..=moves {
        if number % TELL == 1 {
            say::step(&format!("move {number} of {moves}"));
        }
        for side in sides.iter_mut() {
            let name = side.moves.name();
            side.once().with_context(|| format!("move {number} of {name}"))?;
        }
    }
    Ok(())
}

/// What is counted over a whole run.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    broken: usize,
    broken_answers: Option<usize>,
    forbidden: Option<[u64; 2]>,
}

fn samples(seen: &BTreeMap<&'static str, Vec<Seen>>, counts: &BTreeMap<&'static str, Counts>) -> Samples {
    let mut samples = Samples::default();
    for (name, all) in seen {
        for one in all {
            one.gaps.iter().for_each(|gap| samples.add("gap_ms", name, *gap));
            samples.add("pause_ms", name, one.pause);
            if let Some([deactivate, activate]) = one.calls {
                samples.add("deactivate_ms", name, deactivate);
                samples.add("activate_ms", name, activate);
            }
            samples.add("lost_each", name, one.lost as f64 / one.gaps.len().max(1) as f64);
        }
        let sum = |of: fn(&Seen) -> usize| all.iter().map(of).sum::<usize>() as f64;
        samples.add("lost", name, sum(|seen| seen.lost));
        samples.add("lost_after", name, sum(|seen| seen.lost_after));
        samples.add("duplicated", name, sum(|seen| seen.duplicated));
        let Counts { broken, broken_answers, forbidden } = counts.get(name).copied().unwrap_or_default();
        samples.add("broken", name, broken as f64);
        if let Some(broken) = broken_answers {
            samples.add("broken_answers", name, broken as f64);
        }
        if let Some([sent, through]) = forbidden {
            samples.add("forbidden_sent", name, sent as f64);
            samples.add("forbidden_through", name, through as f64);
        }
    }
    samples
}
