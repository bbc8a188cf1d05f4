//! How each number is obtained.

use super::{
    What,
    peers::{Device, Pair, Peer},
    rr,
};
use anyhow::{Context as _, Result, bail, ensure};
use std::{
    process::{Command, Output, Stdio},
    time::Duration,
};
use weft_lab::{NetNs, clock};

/// One thing that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metric {
    /// Average round trip of `ping -A`, us: the far end's kernel answers.
    PingRtt(Device),
    /// `iperf3`, one stream, Gb/s.
    Tcp(Device),
    /// One-byte request and answer over TCP, per second.
    TcpRr(Device, rr::Pinning),
    /// One ping after everything was forgotten, us.
    FirstPingCold,
    /// One ping after the tenants forgot, while their network still knows, us.
    FirstPingWarm,
    /// From the attach call to the first frame from the other host, ms.
    Attach,
}

const DATAPATH: &[Metric] = &[
    Metric::PingRtt(Device::Veth),
    Metric::Tcp(Device::Veth),
    Metric::TcpRr(Device::Veth, rr::Pinning::OneCpu),
    Metric::TcpRr(Device::Veth, rr::Pinning::Free),
    Metric::TcpRr(Device::Veth, rr::Pinning::Split),
    Metric::PingRtt(Device::Tap),
    Metric::Tcp(Device::Tap),
    Metric::TcpRr(Device::Tap, rr::Pinning::Free),
];
const RESOLVE: &[Metric] = &[Metric::FirstPingCold, Metric::FirstPingWarm];
const ATTACH: &[Metric] = &[Metric::Attach];

/// Attachments per round: a 99th percentile needs many.
const ATTACHES: u32 = 15;
const PINGS: u32 = 20_000;
const TCP_SECONDS: u32 = 2;
const RR_SECONDS: u32 = 1;

impl Metric {
    pub(crate) fn of(what: What) -> &'static [Self] {
        match what {
            What::Datapath => DATAPATH,
            What::Resolve => RESOLVE,
            What::Attach => ATTACH,
            // It has metrics and a report of its own.
            What::Learning | What::Push | What::Move | What::Vm => &[],
        }
    }

    /// The name of its samples.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PingRtt(Device::Veth) => "ping_rtt_us",
            Self::PingRtt(Device::Tap) => "ping_rtt_us_tap",
            Self::Tcp(Device::Veth) => "tcp_gbps",
            Self::Tcp(Device::Tap) => "tcp_gbps_tap",
            Self::TcpRr(Device::Veth, rr::Pinning::OneCpu) => "tcp_rr_per_s",
            Self::TcpRr(Device::Veth, rr::Pinning::Free) => "tcp_rr_unpinned_per_s",
            Self::TcpRr(Device::Veth, rr::Pinning::Split) => "tcp_rr_split_per_s",
            Self::TcpRr(Device::Tap, rr::Pinning::OneCpu) => "tcp_rr_per_s_tap",
            Self::TcpRr(Device::Tap, rr::Pinning::Free) => "tcp_rr_unpinned_per_s_tap",
            Self::TcpRr(Device::Tap, rr::Pinning::Split) => "tcp_rr_split_per_s_tap",
            Self::FirstPingCold => "first_ping_cold_us",
            Self::FirstPingWarm => "first_ping_warm_us",
            Self::Attach => "attach_ms",
        }
    }

    /// The unit of its values.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::PingRtt(_) | Self::FirstPingCold | Self::FirstPingWarm => "us",
            Self::Tcp(_) => "Gb/s",
            Self::TcpRr(..) => "1/s",
            Self::Attach => "ms",
        }
    }

    /// The rows it gives in a report: a name and the quantile.
    pub(crate) fn rows(self) -> Vec<(String, f64)> {
        match self {
            Self::Attach => vec![("attach_ms_p50".to_owned(), 0.5), ("attach_ms_p99".to_owned(), 0.99)],
            other => vec![(other.name().to_owned(), 0.5)],
        }
    }

    /// Measures once; nothing where `peer` has no such thing.
    pub(crate) fn measure(self, peer: &mut dyn Peer) -> Result<Vec<f64>> {
        let name = peer.name();
        let one = |device, peer: &dyn Peer, how: &dyn Fn(&Pair) -> Result<f64>| -> Result<Vec<f64>> {
            peer.pair(device)?.map(|pair| how(&pair)).transpose().map(|value| value.into_iter().collect())
        };
        let values = match self {
            Self::PingRtt(device) => one(device, peer, &ping_flood),
            Self::Tcp(device) => one(device, peer, &iperf),
            Self::TcpRr(device, pinning) => one(device, peer, &|pair| rr::measure(pair, pinning, RR_SECONDS)),
            Self::FirstPingCold => peer.forget().and_then(|()| first_ping(peer)),
            Self::FirstPingWarm => peer.forget_tenants().and_then(|()| first_ping(peer)),
            Self::Attach => {
                let mut all = Vec::new();
                for _ in 0..ATTACHES {
                    match peer.attach()? {
                        Some(time) => all.push(time.as_secs_f64() * 1000.0),
                        None => break,
                    }
                }
                Ok(all)
            }
        };
        values.with_context(|| format!("{} of {name}", self.name()))
    }
}

fn run(namespace: &NetNs, line: &[&str]) -> Result<Output> {
    let (program, words) = line.split_first().context("nothing to run")?;
    let mut command = Command::new(program);
    command.args(words).env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(namespace.spawn(&mut command)?.wait_with_output()?)
}

fn ping_flood(pair: &Pair) -> Result<f64> {
    let (count, target) = (PINGS.to_string(), pair.b_addr.to_string());
    // Adaptive: the next one as soon as one is answered, as -f, with each time told; ping's own average
    // is cut to a microsecond.
    let output = run(&pair.a, &["ping", "-A", "-n", "-c", &count, &target])?;
    let text = String::from_utf8_lossy(&output.stdout);
    let summary = text.lines().rev().take(4).collect::<Vec<_>>().join("; ");
    ensure!(text.contains(" 0% packet loss"), "ping -A lost packets: {summary}");
    let times = text.lines().filter_map(|line| line.split_once(" time=")?.1.split(' ').next()?.parse().ok());
    let times: Vec<f64> = times.collect();
    ensure!(!times.is_empty(), "ping said: {summary}");
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    Ok(times.iter().sum::<f64>() / times.len() as f64 * 1000.0)
}

fn first_ping(peer: &dyn Peer) -> Result<Vec<f64>> {
    let Some(pair) = peer.pair(Device::Veth)? else { return Ok(Vec::new()) };
    let output = run(&pair.a, &["ping", "-n", "-c", "1", "-W", "2", &pair.b_addr.to_string()])?;
    let text = String::from_utf8_lossy(&output.stdout);
    let time: f64 = text
        .split_once("time=")
        .and_then(|(_, rest)| rest.split(' ').next()?.parse().ok())
        .with_context(|| format!("the first ping was not answered: {}", text.trim()))?;
    Ok(vec![time * 1000.0])
}

fn iperf(pair: &Pair) -> Result<f64> {
    let mut server = Command::new("iperf3");
    server.args(["-s", "-1"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut server = pair.b.spawn(&mut server)?;
    let (seconds, target) = (TCP_SECONDS.to_string(), pair.b_addr.to_string());
    let result = clock::until(clock::CEILING, || -> Result<Option<f64>> {
        let output = run(&pair.a, &["iperf3", "-c", &target, "-t", &seconds, "--json"])?;
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        match answer["end"]["sum_received"]["bits_per_second"].as_f64() {
            Some(bits) => Ok(Some(bits / 1e9)),
            // The server has not bound its port yet.
            None if answer["error"].as_str().is_some_and(|error| error.contains("refused")) => Ok(None),
            None => bail!("iperf3: {}", answer["error"]),
        }
    });
    // Ended by itself after its one client, unless that failed.
    let ended = clock::until(Duration::from_secs(5), || server.try_wait())?;
    if ended.is_none() {
        server.kill()?;
        server.wait()?;
    }
    result?.context("iperf3's server never listened")
}
