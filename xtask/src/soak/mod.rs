//! `cargo xtask soak`: a data centre that is kept busy and broken for a while.
//!
//! A simulated one first, over and over, with other losses each time. Then a real one: two streams of
//! 1,000 packets a second run all the time. Meanwhile, in turn, daemons are killed and started again
//! and a tenant system moves from host to host; after each of these every pair of tenants must reach
//! one another, and nothing may have been flooded. Afterwards millions of hostile datagrams are sent
//! to it.

mod datagrams;
mod hostile;
mod simulation;

use crate::{
    build, interrupt, machine,
    packages::{self, Use},
    say,
};
use anyhow::{Context as _, Result, bail, ensure};
use std::{process::ExitCode, time::Duration};
use weft_lab::{Lab, LabSpec, Options, Signal, capture::Capture, clock, ping::ping, probe::Stream};

const RATE: u32 = 1000;

/// Options of `soak`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many seeds are simulated first, in every way of learning; 0 for none. A thousand take some five minutes.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first of these seeds. The same seed is the same run.
    #[arg(long, default_value_t = 1_000)]
    first_seed: u64,
    /// How many steps of each kind are looked at of all orders of events of a move; 0 for none. A million take some minutes.
    #[arg(long, default_value_t = 1_000_000)]
    states: u64,
    /// How long daemons are killed and a tenant system moves; 0 for not at all.
    #[arg(long, default_value_t = 10)]
    minutes: u32,
    /// How many hostile datagrams are sent afterwards; 0 for none.
    #[arg(long, default_value_t = 10_000_000)]
    datagrams: u64,
    /// The same seed makes the same datagrams.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What happens, in turn.
#[derive(Clone, Copy, Debug)]
enum Event {
    Kill(&'static str),
    Move(&'static str),
}

const EVENTS: [Event; 7] = [
    Event::Kill("h1"),
    Event::Move("h2"),
    Event::Kill("oracle"),
    Event::Move("h1"),
    Event::Kill("h2"),
    Event::Move("h3"),
    Event::Kill("h3"),
];

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    machine::check()?;
    interrupt::watch();
    interrupt::sweep();
    packages::install(&[Use::Demo])?;
    if args.seeds > 0 {
        simulation::run(args.first_seed, args.seeds)?;
    }
    if args.states > 0 {
        simulation::check(args.states)?;
    }
    if args.minutes == 0 && args.datagrams == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    let weft = build::weft()?;
    let spec = LabSpec::read(&build::root()?.join("examples/three-hosts.yaml"))?;
    let name = format!("soak{}", std::process::id()).parse()?;
    let options = Options { name: Some(name), weft: Some(weft), bound: true, ..Options::default() };
    let mut lab = Lab::up(&spec, &options, &mut |_| {})?;
    let soaked = both(&mut lab, args);
    if soaked.is_err() {
        for daemon in lab.record().daemons.keys() {
            let log = std::fs::read_to_string(lab.files().log(daemon)).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(20).collect();
            say::heading(&format!("{daemon}, the end of its log"));
            last.iter().rev().for_each(|line| say::line(line));
        }
    }
    let down = lab.down();
    let lost = soaked?;
    down?;
    Ok(if lost == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Gives how many packets were lost.
fn both(lab: &mut Lab, args: &Args) -> Result<u64> {
    let time = Duration::from_secs(u64::from(args.minutes) * 60);
    let lost = if time.is_zero() { 0 } else { soak(lab, time)? };
    if args.datagrams > 0 {
        hostile::run(lab, args.datagrams, args.seed)?;
    }
    Ok(lost)
}

/// Likewise, of the time in which daemons are killed.
fn soak(lab: &mut Lab, time: Duration) -> Result<u64> {
    lab.settle()?;
    let end = clock::now() + time;
    let (from, to) = (lab.node("red-a")?, lab.node("red-b")?);
    let streams = [
        Stream::start(&from, &to, "10.0.0.2".parse()?, RATE)?,
        Stream::start(&lab.node("blue-b")?, &lab.node("blue-a")?, "fd00::1".parse()?, RATE)?,
    ];
    for stream in &streams {
        stream.wait_first()?;
    }
    let mut done = 0u32;
    let mut known = [0u64; 2];
    for event in EVENTS.iter().cycle() {
        if clock::now() >= end {
            break;
        }
        let capture = Capture::underlay(lab, "event")?;
        happen(lab, *event)?;
        check(lab).with_context(|| format!("after {event:?}, the {done}th event"))?;
        let counts = capture.stop()?.counts();
        ensure!(counts.flooded() == 0, "flooded during {event:?}: {counts:?}");
        done += 1;
        // What is still on its way is a packet or two.
        let missing = streams.each_ref().map(|stream| stream.sent().saturating_sub(stream.received()));
        if missing.iter().zip(&known).any(|(now, before)| *now > before + 5) {
            say::line(&format!(
                "event {done}, {event:?}: missing packets went from {known:?} to {missing:?}"
            ));
            known = missing;
        }
        say::step(&format!("{done} events; {} and {} packets", streams[0].sent(), streams[1].sent()));
    }
    say::heading(&format!("{done} events in {}", say::duration(time)));
    let mut rows = Vec::new();
    let mut lost = 0;
    for (name, stream) in ["red-a to red-b, IPv4", "blue-b to blue-a, IPv6"].into_iter().zip(streams) {
        let report = stream.stop();
        lost += report.lost + report.refused;
        let gap = format!("{:.1} ms", report.longest_gap.as_secs_f64() * 1000.0);
        let numbers = [report.sent, report.lost, report.duplicates, report.reordered].map(|n| n.to_string());
        rows.push([vec![name.to_owned()], numbers.to_vec(), vec![gap]].concat());
    }
    say::table(&["stream", "sent", "lost", "twice", "late", "longest gap"], &rows);
    let memory: Vec<Vec<String>> = lab
        .record()
        .daemons
        .iter()
        .map(|(name, daemon)| {
            let kib = resident(daemon.id.pid).map_or_else(String::new, |kib| kib.to_string());
            vec![name.clone(), kib]
        })
        .collect();
    say::table(&["daemon", "resident memory, KiB"], &memory);
    Ok(lost)
}

fn happen(lab: &mut Lab, event: Event) -> Result<()> {
    match event {
        Event::Kill(daemon) => {
            lab.signal(daemon, Signal::SIGKILL)?;
            lab.restart(daemon)?;
        }
        Event::Move(host) => {
            lab.move_cold("red-c", host)?;
        }
    }
    Ok(())
}

/// Every pair of one VN, over IPv4, within the usual patience.
fn check(lab: &Lab) -> Result<()> {
    let spec = &lab.record().spec.tenants;
    for (one, what) in spec {
        for (other, _) in spec.iter().filter(|(other, to)| *other != one && to.vn == what.vn) {
            let target = lab.tenant(other.as_str())?.ipv4().context("it has an IPv4 address")?.to_string();
            let reached = clock::until(clock::CEILING, || {
                ping(lab, one.as_str(), &target, 1).map(|ping| ping.complete().then_some(()))
            })?;
            if reached.is_none() {
                bail!("{one} does not reach {other} at {target}");
            }
        }
    }
    Ok(())
}

/// Memory that a process holds, KiB.
fn resident(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().trim_end_matches(" kB").parse().ok())
}
