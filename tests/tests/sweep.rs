//! A tenant system that asks for a million addresses as fast as it can.

use anyhow::{Context as _, Result, ensure};
use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};
use weft_e2e::{TestLab, frames, ping};
use weft_lab::{
    capture::{Capture, Class},
    clock, raw,
};

/// Addresses asked for, half of each family.
const ADDRESSES: u32 = 1_000_000;
/// The token bucket of every tenant system: questions a second, and at once after silence.
const RATE: usize = 100;
const BURST: usize = 200;
/// What one tenant system may make its NVE remember as nobody's.
const ABSENT: usize = 1_024;

/// `red-a` sweeps, `red-d` on the same host wants to talk.
const LAB: &str = "
name: sweep
oracles: { oracle: {} }
hosts: { h1: {}, h2: {} }
vns: { red: { subnets: [10.0.0.0/11, 'fd00::/64'] } }
tenants:
  red-a: { host: h1, vn: red, ips: [10.0.0.1, 'fd00::1'] }
  red-b: { host: h2, vn: red, ips: [10.0.0.2, 'fd00::2'] }
  red-c: { host: h2, vn: red, ips: [10.0.0.3, 'fd00::3'] }
  red-d: { host: h1, vn: red, ips: [10.0.0.4, 'fd00::4'] }
";

/// Asks for the addresses one after the other, so slowly that it takes longer than the bucket would need
/// to fill the table of absent addresses.
fn sweep(lab: &TestLab) -> Result<()> {
    let sender = raw::RawSender::open(&lab.node("red-a")?, "eth0")?;
    let mac = lab.tenant("red-a")?.mac;
    let (v4, v6) = (Ipv4Addr::new(10, 0, 0, 1), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));
    let start = clock::now();
    for number in 0..ADDRESSES / 2 {
        let arp =
            raw::arp_request(mac, v4, Ipv4Addr::from_bits(Ipv4Addr::new(10, 1, 0, 0).to_bits() + number));
        let target = Ipv6Addr::from_bits(v6.to_bits() + (1 << 32) + u128::from(number));
        for frame in [arp, raw::neighbour_solicitation(mac, v6, target)] {
            sender.send(&frame).with_context(|| format!("question {number}"))?;
        }
        if number % 50 == 0 {
            clock::pace_until(start + Duration::from_millis(u64::from(number / 40)));
        }
    }
    Ok(())
}

#[test]
fn a_sweep_of_a_million_addresses_harms_nobody_else() -> Result<()> {
    let lab = TestLab::up(LAB)?;
    lab.settle()?;
    let h1 = lab.rloc("h1")?;
    let limited = frames(&lab, "h1", "punt-limited")?;
    let capture = Capture::underlay(&lab, "sweep")?;
    let start = clock::now();
    let took = std::thread::scope(|scope| -> Result<Duration> {
        let sweeping = scope.spawn(|| sweep(&lab));
        // Under way: the bucket is empty.
        let under_way = clock::until(clock::CEILING, || -> Result<Option<()>> {
            Ok((frames(&lab, "h1", "punt-limited")? > limited).then_some(()))
        })?;
        ensure!(under_way.is_some(), "the sweep was never limited");
        // The neighbour resolves, at the first attempt, peers it never asked for; and is resolved.
        for (from, target) in
            [("red-d", "10.0.0.2"), ("red-d", "fd00::2"), ("red-c", "10.0.0.4"), ("red-c", "fd00::4")]
        {
            let pinged = ping(&lab, from, target, 1)?;
            ensure!(pinged.complete(), "{from} to {target} during the sweep: {pinged:?}");
        }
        ensure!(!sweeping.is_finished(), "the sweep was over before the neighbour was");
        sweeping.join().unwrap_or_else(|_| anyhow::bail!("the sweep ended early"))?;
        Ok(start.elapsed())
    })?;
    let captured = capture.stop()?;

    // Nothing of it crossed, and questions only as many as the bucket lets through.
    ensure!(captured.counts().flooded() == 0, "{:?}", captured.counts());
    let asked = captured.frames.iter().filter(|f| f.class == Class::LispUdp && f.from == Some(h1)).count();
    let seconds = usize::try_from(took.as_secs())? + 1;
    // Beside the sweep: the neighbour's questions, and some of everybody's that were on their way.
    let allowed = BURST + RATE * seconds + 20;
    ensure!(asked <= allowed, "{asked} Map-Requests in {took:?}, {allowed} at most");
    ensure!(
        asked > ABSENT,
        "{asked} Map-Requests in {took:?}: too few for the bounds below to mean anything"
    );

    // The rest is dropped and counted, each frame once.
    let dropped = usize::try_from(frames(&lab, "h1", "punt-limited")? - limited)?;
    let counted = dropped + asked;
    let all = usize::try_from(ADDRESSES)?;
    ensure!(dropped > all - allowed && counted + 100 >= all && counted <= all + 100, "{dropped} + {asked}");

    // What is remembered of it is bounded: the table, and what is under way.
    let shown = lab.weft_at("h1", ["get", "mappings", "--socket", &socket(&lab), "-o", "json"])?;
    let cache: serde_json::Value = serde_json::from_str(&shown)?;
    let entries = cache.as_array().context("a list")?.len();
    ensure!(entries <= ABSENT + 10, "{entries} entries in h1's map cache");
    // And the sweeper itself may go on, once its bucket has filled again.
    let again = clock::until(clock::CEILING, || {
        ping(&lab, "red-a", "10.0.0.3", 1).map(|ping| ping.complete().then_some(()))
    })?;
    ensure!(again.is_some(), "the sweeper is shut out for good");
    lab.down()
}

fn socket(lab: &TestLab) -> String {
    lab.files().socket("h1").display().to_string()
}
