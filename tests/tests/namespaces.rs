//! The lab by itself: what it makes is there, what it removes is gone, also after a crash.

use anyhow::{Context as _, Result, ensure};
use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};
use weft_e2e::{THREE_HOSTS, TestLab, ping};
use weft_lab::{
    DeviceKind, Lab, LabSpec, NetNs, Options, RunRoot, Signal,
    capture::{Capture, Class, Kind},
    clock, probe,
};

/// Everything of the lab `name` on this machine.
fn remains(name: &str) -> Result<Vec<String>> {
    let mut left = NetNs::names(&format!("{name}."))?;
    let root = RunRoot::default();
    for path in [root.of(&name.parse()?), root.path().join(format!(".{name}.lock"))] {
        if path.exists() {
            left.push(path.display().to_string());
        }
    }
    // Processes carry the lab's name in their environment.
    let mark = format!("WEFT_LAB={name}\0");
    for entry in std::fs::read_dir("/proc")?.filter_map(std::result::Result::ok) {
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment.windows(mark.len()).any(|part| part == mark.as_bytes()) {
            left.push(entry.path().display().to_string());
        }
    }
    Ok(left)
}

#[test]
fn comes_up_and_goes_down_leaving_nothing() -> Result<()> {
    let lab = TestLab::bare(THREE_HOSTS)?;
    let name = lab.name().to_owned();
    ensure!(remains(&name)?.len() == 13, "{:?}", remains(&name)?);
    ensure!(ping(&lab, "h1", "192.0.2.3", 2)?.complete(), "hosts reach one another");
    ensure!(ping(&lab, "h2", "192.0.2.101", 2)?.complete(), "hosts reach the Oracle");
    ensure!(ping(&lab, "red-a", "10.0.0.1", 1)?.complete(), "a tenant has its own address");
    ensure!(ping(&lab, "red-a", "10.0.0.2", 1)?.nothing(), "nobody carries frames between hosts");

    // Programs that somebody left running in a node go too.
    let mut sleeper = lab.command("red-b", "sleep");
    let mut sleeper = lab.node("red-b")?.spawn(sleeper.arg("600"))?;
    lab.down()?;
    ensure!(!sleeper.wait()?.success(), "it was ended");
    ensure!(remains(&name)?.is_empty(), "{:?}", remains(&name)?);
    Ok(())
}

#[test]
fn ipv6_and_both_families() -> Result<()> {
    for (underlay, rloc) in [
        ("{ipv6: '2001:db8::/64', mtu: 1600}", "2001:db8::2"),
        ("{ipv6: '2001:db8::/64', ipv4: 192.0.2.0/24, rloc: ipv6}", "2001:db8::2"),
        ("{}", "192.0.2.2"),
    ] {
        let lab =
            TestLab::bare(&format!("{{name: t, underlay: {underlay}, hosts: {{h1: {{}}, h2: {{}}}}}}"))?;
        ensure!(lab.rloc("h2")?.to_string() == rloc, "{underlay}: {}", lab.rloc("h2")?);
        ensure!(ping(&lab, "h1", rloc, 1)?.complete(), "{underlay}");
        lab.down()?;
    }
    Ok(())
}

/// Two tenants of one host, one behind a TAP, joined by a plain bridge instead of an NVE.
#[test]
fn a_tap_tenant_reaches_a_veth_tenant() -> Result<()> {
    let yaml = "
name: t
hosts: { h1: {} }
vns: { red: { subnets: [10.0.0.0/24, 'fd00::/64'] } }
tenants:
  red-a: { host: h1, vn: red, ips: [10.0.0.1, 'fd00::1'], device: tap }
  red-b: { host: h1, vn: red, ips: [10.0.0.2, 'fd00::2'] }
";
    let spec = LabSpec::parse(yaml).map_err(anyhow::Error::msg)?;
    ensure!(spec.tenants["red-a"].device == DeviceKind::Tap);
    let lab = TestLab::bare_with_relay(yaml)?;
    let links = weft_lab::Links::open(&lab.node("h1")?)?;
    links.add_bridge("br1")?;
    for port in ["red-a", "red-b"] {
        links.set_bridge(port, "br1", weft_lab::BridgePort::default())?;
    }
    for target in ["10.0.0.1", "fd00::1"] {
        let reached = clock::until(clock::CEILING, || {
            ping(&lab, "red-b", target, 2).map(|ping| ping.complete().then_some(()))
        })?;
        ensure!(reached.is_some(), "{target}");
    }
    let stream = probe::Stream::start(&lab.node("red-b")?, &lab.node("red-a")?, "10.0.0.1".parse()?, 1000)?;
    stream.wait_sent(500, clock::CEILING)?;
    let report = stream.stop();
    ensure!(report.lost == 0 && report.duplicates == 0, "{report:?}");
    lab.down()
}

#[test]
fn captures_see_each_frame_once() -> Result<()> {
    let lab = TestLab::bare("{name: t, oracles: {}, hosts: {h1: {}, h2: {}, h3: {}}}")?;
    let capture = Capture::underlay(&lab, "underlay")?;
    let stream = probe::Stream::start(&lab.node("h1")?, &lab.node("h2")?, "192.0.2.2".parse()?, 1000)?;
    stream.wait_sent(300, clock::CEILING)?;
    let report = stream.stop();
    ensure!(report.lost == 0, "{report:?}");
    let captured = capture.stop()?;
    let to = Some("192.0.2.2".parse()?);
    let datagrams = captured.frames.iter().filter(|f| f.class == Class::Other && f.to == to).count();
    ensure!(datagrams as u64 == report.sent, "{datagrams} of {} captured", report.sent);
    let arp = captured.counts().sum(|class| *class == Class::Underlay(Kind::Arp));
    ensure!(arp >= 2, "one request and one reply at least: {arp}");
    let size = std::fs::metadata(&captured.file)?.len();
    ensure!(size > 24 + report.sent * 16, "{size} octets of pcap");
    lab.down()
}

#[test]
fn a_name_is_used_once() -> Result<()> {
    let lab = TestLab::bare("{name: t, hosts: {h1: {}}}")?;
    let options = Options { name: Some(lab.name().parse()?), bound: true, ..Options::default() };
    let again = Lab::up(&lab.record().spec, &options, &mut |_| {}).err().context("it came up twice")?;
    ensure!(again.to_string().contains("is already up"), "{again}");
    let unknown = lab.node("h9").err().context("there is no h9")?;
    ensure!(unknown.to_string().contains("it has fabric, h1"), "{unknown}");
    lab.down()
}

/// Who types `weft` in a node gets the lab's own, wherever it was built.
#[test]
fn weft_is_found_in_every_node() -> Result<()> {
    let lab = TestLab::up("{name: t, hosts: {h1: {}}}")?;
    let shown = lab.exec("h1", &["weft", "--version"])?;
    ensure!(shown.status.success() && shown.stdout.starts_with(b"weft "), "{shown:?}");
    lab.down()
}

/// A process that brings up a lab and is killed: first while building, then while it holds it.
#[test]
fn a_killed_maker_leaves_nothing_that_a_sweep_does_not_find() -> Result<()> {
    const NAME: &str = "WEFT_E2E_MAKER";
    if let Ok(name) = std::env::var(NAME) {
        let spec = LabSpec::parse(THREE_HOSTS).map_err(anyhow::Error::msg)?;
        let options = Options { name: Some(name.parse()?), bound: true, ..Options::default() };
        let _lab = Lab::up(&spec, &options, &mut |line| eprintln!("made {line}"))?;
        eprintln!("made everything");
        // Held until the parent kills us or goes away.
        std::io::stdin().lock().read_line(&mut String::new())?;
        return Ok(());
    }
    for (round, until) in ["made 11 namespaces", "made red-b", "made everything"].into_iter().enumerate() {
        let name = format!("killed{}-{round}", std::process::id());
        let mut maker = Command::new(std::env::current_exe()?)
            .args(["--exact", "a_killed_maker_leaves_nothing_that_a_sweep_does_not_find", "--nocapture"])
            .env(NAME, &name)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = maker.stderr.take().context("it has standard error")?;
        // Kept open: a maker that cannot write any more ends by itself.
        let mut lines = BufReader::new(stderr).lines().map_while(std::result::Result::ok);
        let seen = lines.find(|line| line.contains(until));
        ensure!(seen.is_some(), "the maker never said '{until}'");
        let id = weft_lab::ProcessId::of(i32::try_from(maker.id())?).context("it runs")?;
        ensure!(
            !weft_lab::sweep(&RunRoot::default())?.contains(&name),
            "it is not swept while its maker lives"
        );
        id.signal(Signal::SIGKILL)?;
        maker.wait()?;
        ensure!(!remains(&name)?.is_empty(), "it was killed after it had made something");
        // Another test's sweep may have come first: what counts is that nothing is left.
        weft_lab::sweep(&RunRoot::default())?;
        ensure!(remains(&name)?.is_empty(), "{:?}", remains(&name)?);
    }
    Ok(())
}
