//! `cargo xtask bench vm`: a virtual machine that QEMU moves between three hosts while it runs, as `weft lab migrate`
//! does, while a tenant on another host sends it a thousand echo requests a second over IPv4, one on a fifth host as many
//! over IPv6, and both hold TCP connections with it. What the network adds is how much longer nothing came
//! back than QEMU had the machine stopped.

use super::{
    Args,
    moves::{RATE, gap, milliseconds},
    report::{Report, WEFT},
    stats::Samples,
};
use crate::{build, interrupt, machine, packages, say};
use anyhow::{Context as _, Result, ensure};
use std::{net::SocketAddr, path::Path, process::ExitCode, time::Duration};
use weft_lab::{Lab, LabSpec, MigrationLimits, Options, clock, echo::Echoes, numbers::Numbers};

/// How many moves there are unless somebody says otherwise.
const MOVES: u32 = 30;
/// Requests that are answered before, and after, a move.
const AROUND: u64 = 100;
const HOSTS: [&str; 3] = ["h1", "h2", "h3"];
const NAME: &str = "red-vm";
/// Who talks to which of its addresses.
const TALK: [(&str, &str); 2] = [("p4", "10.0.0.9"), ("p5", "fd00::9")];
/// Where it echoes what comes by TCP.
const ECHO: u16 = 7;
/// From one number on a connection to the next.
const PACE: Duration = Duration::from_millis(5);
const SPEC: &str = "
name: bench
underlay: { ipv4: 192.0.2.0/24 }
oracles: { oracle: {} }
hosts: { h1: {}, h2: {}, h3: {}, h4: {}, h5: {} }
vns: { red: { subnets: [10.0.0.0/24, 'fd00::/64'] } }
tenants:
  p4: { host: h4, vn: red, ips: [10.0.0.4, 'fd00::4'] }
  p5: { host: h5, vn: red, ips: [10.0.0.5, 'fd00::5'] }
  red-vm: { host: h1, vn: red, ips: [10.0.0.9, 'fd00::9'], device: vm }
";
/// Name, unit, samples and quantile.
const METRICS: [(&str, &str, &str, f64); 11] = [
    ("beyond_ms_p50", "ms", "beyond_ms", 0.5),
    ("beyond_ms_p99", "ms", "beyond_ms", 0.99),
    ("beyond_ms_max", "ms", "beyond_ms", 1.0),
    ("gap_ms_p50", "ms", "gap_ms", 0.5),
    ("gap_ms_max", "ms", "gap_ms", 1.0),
    ("stopped_ms_p50", "ms", "stopped_ms", 0.5),
    ("stopped_ms_max", "ms", "stopped_ms", 1.0),
    ("closed_ms_p50", "ms", "closed_ms", 0.5),
    ("total_s_p50", "s", "total_s", 0.5),
    ("unanswered_before", "1", "unanswered", 0.5),
    ("broken_tcp", "1", "broken", 0.5),
];

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    machine::check()?;
    let moves = args.moves(MOVES)?;
    ensure!(!args.peers_only, "there is nobody beside Weft in this one: leave --peers-only away");
    interrupt::watch();
    interrupt::sweep();
    packages::install(&[packages::Use::Bench, packages::Use::Test])?;
    let weft = build::shipped()?;
    say::step("bringing up five hosts and a virtual machine");
    let mut lab = up(&weft)?;
    let samples = measure(&mut lab, moves);
    let down = lab.down();
    let report = Report::of_rows("vm", moves, &METRICS, &samples?);
    report.print();
    if let Some(path) = &args.json {
        report.write(path)?;
        say::step(&format!("numbers written to {}", path.display()));
    }
    down?;
    Ok(ExitCode::SUCCESS)
}

fn up(weft: &Path) -> Result<Lab> {
    let spec = LabSpec::parse(SPEC).map_err(anyhow::Error::msg)?;
    let options = Options {
        name: Some(format!("bench{}-vm", std::process::id()).parse()?),
        weft: Some(weft.to_owned()),
        bound: true,
        ..Options::default()
    };
    Ok(Lab::up(&spec, &options, &mut |_| {})?)
}

fn measure(lab: &mut Lab, moves: u32) -> Result<Samples> {
    lab.settle()?;
    let mut samples = Samples::default();
    let mut held: Vec<Option<Numbers>> = TALK.iter().map(|_| None).collect();
    let mut broken = 0;
    for (number, to) in (1..=moves).zip(HOSTS.into_iter().cycle().skip(1)) {
        say::step(&format!("move {number} of {moves}"));
        for (held, (from, to)) in held.iter_mut().zip(TALK) {
            if held.is_none() {
                *held = Some(Numbers::open(&lab.node(from)?, SocketAddr::new(to.parse()?, ECHO), PACE)?);
            }
        }
        once(lab, to, &mut samples).with_context(|| format!("move {number}"))?;
        for held in &mut held {
            if !held.as_ref().is_some_and(Numbers::goes_on) {
                broken += 1;
                *held = None;
            }
        }
    }
    samples.add("broken", WEFT, f64::from(broken));
    Ok(samples)
}

/// One move.
fn once(lab: &mut Lab, to: &str, samples: &mut Samples) -> Result<()> {
    let start = |(from, to): (&str, &str)| -> Result<Echoes> {
        Ok(Echoes::start(&lab.node(from)?, to.parse()?, RATE)?)
    };
    let streams: Vec<Echoes> = TALK.into_iter().map(start).collect::<Result<_>>()?;
    for stream in &streams {
        stream.first_answered(0, AROUND).context("before the move")?;
    }
    let begun = clock::now();
    let moved = lab.migrate(NAME, to, MigrationLimits::default(), &mut |_| {})?;
    ensure!(moved.left.is_empty(), "{moved:?}");
    for stream in &streams {
        stream.first_answered(stream.next(), AROUND).context("after the move")?;
    }
    for stream in streams {
        let all = stream.all();
        let gap = milliseconds(gap(&all, begun));
        samples.add("gap_ms", WEFT, gap);
        samples.add("beyond_ms", WEFT, (gap - moved.stopped_ms).max(0.0));
        let before = all.iter().filter(|echo| echo.sent < begun && echo.answered.is_none());
        samples.add("unanswered", WEFT, before.count() as f64);
    }
    samples.add("stopped_ms", WEFT, moved.stopped_ms);
    samples.add("closed_ms", WEFT, moved.closed_ms);
    samples.add("total_s", WEFT, moved.total_ms / 1e3);
    Ok(())
}
