//! A minute without one of Weft's parts. Two labs at once, because a minute is long.

use anyhow::{Context as _, Result, ensure};
use std::{net::IpAddr, time::Duration};
use weft_e2e::{THREE_HOSTS, TestLab, ping};
use weft_lab::{DeviceKind, Links, Signal, TenantSpec, clock, probe::Stream};

/// Packets a second, and how many make a minute.
const RATE: u32 = 1_000;
const MINUTE: u64 = 60 * 1_000;

/// Both families, through the hosts that are to suffer.
fn streams(lab: &TestLab) -> Result<Vec<Stream>> {
    let there = Stream::start(&lab.node("red-a")?, &lab.node("red-b")?, "10.0.0.2".parse()?, RATE)?;
    let back = Stream::start(&lab.node("blue-b")?, &lab.node("blue-a")?, "fd00::1".parse()?, RATE)?;
    there.wait_first()?;
    back.wait_first()?;
    Ok(vec![there, back])
}

/// Waits until every stream has sent a minute's packets from now on.
fn for_a_minute(streams: &[&Stream]) -> Result<()> {
    let goals: Vec<u64> = streams.iter().map(|stream| stream.sent() + MINUTE).collect();
    let over = || streams.iter().zip(&goals).all(|(stream, goal)| stream.sent() >= *goal);
    ensure!(clock::until_true(Duration::from_secs(240), over), "a minute's packets take more than 4 minutes");
    Ok(())
}

fn nothing_lost(streams: Vec<Stream>) -> Result<()> {
    for stream in streams {
        let report = stream.stop();
        ensure!(report.sent > MINUTE, "{report:?}");
        ensure!(report.lost == 0 && report.duplicates == 0 && report.refused == 0, "{report:?}");
    }
    Ok(())
}

/// What the Oracle has, without what changes with time; and how often it withdrew something.
fn known(lab: &TestLab) -> Result<(Vec<String>, u64)> {
    let all = lab.json(&["get", "mappings"])?;
    let row =
        |row: &serde_json::Value| format!("{} {} {} {}", row["vn"], row["eid"], row["mac"], row["rlocs"]);
    let mut mappings: Vec<String> = all.as_array().context("a list")?.iter().map(row).collect();
    mappings.sort();
    let counters = lab.json(&["get", "counters"])?;
    let withdrawn = counters.as_array().context("a list")?.iter().filter(|counter| {
        counter["counter"].as_str().is_some_and(|name| {
            name.starts_with("withdrawals") || name == "removed_by_snapshot" || name == "expired"
        })
    });
    let withdrawn: Vec<u64> = withdrawn.filter_map(|counter| counter["count"].as_u64()).collect();
    ensure!(withdrawn.len() == 4, "counters have other names: {counters}");
    Ok((mappings, withdrawn.iter().sum()))
}

/// Whether the mappings of `host` are stale at the Oracle.
fn stale(lab: &TestLab, host: &str) -> Result<bool> {
    let all = lab.json(&["get", "mappings"])?;
    let mut of = all.as_array().context("a list")?.iter().filter(|row| row["nve"] == host).peekable();
    ensure!(of.peek().is_some(), "nothing of {host} is left: {all}");
    Ok(of.all(|row| row["stale"] == true))
}

/// Whether the process of `daemon` is stopped (proc(5)).
fn is_stopped(lab: &TestLab, daemon: &str) -> Result<bool> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", lab.daemon(daemon)?.id.pid))?;
    Ok(stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')))
}

/// How many NVEs have a session.
fn connected(lab: &TestLab) -> Result<usize> {
    let nves = lab.json(&["get", "nves"])?;
    Ok(nves.as_array().context("a list")?.iter().filter(|nve| nve["connected"] == true).count())
}

fn until(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let seen = clock::until(clock::CEILING, || condition().map(|now| now.then_some(())))?;
    seen.with_context(|| format!("after {:?} still not: {what}", clock::CEILING))
}

/// A tenant system that nobody knows is attached at `host` and reached from another host.
fn a_new_pair_resolves(lab: &mut TestLab, host: &str, from: &str) -> Result<()> {
    let ips: Vec<IpAddr> = vec!["10.0.0.9".parse()?, "fd00::9".parse()?];
    let device = DeviceKind::Veth;
    let what = TenantSpec { host: host.parse()?, vn: "red".to_owned(), ips: ips.clone(), mac: None, device };
    lab.attach("red-new", &what)?;
    lab.settle()?;
    for ip in ips {
        ensure!(ping(lab, from, &ip.to_string(), 2)?.complete(), "{from} to {ip}");
    }
    ensure!(ping(lab, "red-new", "10.0.0.3", 2)?.complete());
    Ok(())
}

/// The agent of a host is stopped, and the Oracle of another data centre is cut off: a minute each, at
/// the same time. No packet is lost, nothing is withdrawn, and afterwards all is as before.
#[test]
fn a_minute_without_an_agent_or_without_the_oracle() -> Result<()> {
    let (mut stopped, mut cut) = (TestLab::up(THREE_HOSTS)?, TestLab::up(THREE_HOSTS)?);
    let mut before = Vec::new();
    let mut flows = Vec::new();
    for lab in [&stopped, &cut] {
        lab.settle()?;
        flows.push(streams(lab)?);
        before.push(known(lab)?);
    }

    stopped.signal("h2", Signal::SIGSTOP)?;
    let oracle_port = Links::open(&cut.node("fabric")?)?;
    oracle_port.down("oracle")?;
    for_a_minute(&flows.iter().flatten().collect::<Vec<_>>())?;

    // Otherwise nothing would be proved. The kernel goes on acknowledging for the agent, so that its
    // session may last.
    ensure!(is_stopped(&stopped, "h2")?, "the agent is not stopped");
    until("the Oracle that is cut off has lost its sessions", || Ok(connected(&cut)? == 0))?;
    for (lab, before) in [&stopped, &cut].into_iter().zip(&before) {
        ensure!(known(lab)? == *before, "{:?} was {before:?}", known(lab)?);
    }

    stopped.signal("h2", Signal::SIGCONT)?;
    oracle_port.up("oracle")?;
    for (lab, before) in [&stopped, &cut].into_iter().zip(&before) {
        until("every NVE has a session again", || Ok(connected(lab)? == 3))?;
        until("nothing is stale any more", || Ok(!stale(lab, "h1")? && !stale(lab, "h2")?))?;
        ensure!(known(lab)? == *before, "{:?} was {before:?}", known(lab)?);
    }
    a_new_pair_resolves(&mut stopped, "h2", "red-d")?;
    a_new_pair_resolves(&mut cut, "h1", "red-b")?;
    for flow in flows {
        nothing_lost(flow)?;
    }
    stopped.down()?;
    cut.down()
}
