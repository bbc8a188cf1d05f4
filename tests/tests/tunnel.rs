//! Tunnel policy end to end: what operators say of a VN and of a tenant system holds at its host within one push.

use anyhow::{Context as _, Result, ensure};
use std::{
    collections::BTreeSet,
    net::{IpAddr, UdpSocket},
};
use weft_e2e::{Ping, THREE_HOSTS, TestLab, frames, ping};
use weft_lab::{
    capture::{Capture, Class, Frame},
    clock,
};

const IPS: [&str; 2] = ["10.0.0.2", "fd00::2"];

/// Waits until the frames that red-a sends red-b, with this DS field, have these TTLs and DS fields outside.
fn looks(lab: &TestLab, underlay: &Capture, inner: &str, (ttl, ds): (u8, u8)) -> Result<()> {
    let (from, to) = (Some(lab.rloc("h1")?), Some(lab.rloc("h2")?));
    let last = || {
        for ip in IPS {
            lab.exec("red-a", &["ping", "-n", "-c", "1", "-W", "1", "-Q", inner, ip])?;
        }
        let of = |frame: &Frame| {
            matches!(frame.class, Class::Vxlan { .. }) && (frame.from, frame.to) == (from, to)
        };
        Ok::<_, anyhow::Error>(underlay.last(of).and_then(|frame| frame.ttl_and_ds))
    };
    let wanted = Some((ttl, ds));
    let done = clock::until(clock::CEILING, || Ok::<_, anyhow::Error>((last()? == wanted).then_some(())))?;
    ensure!(done.is_some(), "with {inner} inside {:?}, not {wanted:?}", last()?);
    Ok(())
}

fn policies(yaml: &str) -> Result<()> {
    let lab = TestLab::up(yaml)?;
    lab.settle()?;
    let underlay = Capture::underlay(&lab, "tunnel")?;
    looks(&lab, &underlay, "0x28", (64, 0))?;
    lab.weft(["vn", "set", "red", "--tunnel-ttl", "9", "--tunnel-dscp", "46"])?;
    looks(&lab, &underlay, "0x28", (9, 46 << 2))?;
    let own =
        |option, value| lab.weft(["tsi", "set", "--vn", "red", "--name", "red-a", option, value]).map(drop);
    own("--tunnel-dscp", "copy")?;
    looks(&lab, &underlay, "0x28", (9, 0x28))?;
    own("--tunnel-ttl", "200")?;
    own("--tunnel-dscp", "none")?;
    looks(&lab, &underlay, "0x28", (200, 46 << 2))?;
    let shown = |what: &str| -> Result<serde_json::Value> {
        let rows = lab.json(&["get", what])?;
        let names = |row: &&serde_json::Value| row["name"] == "red" || row["name"] == "red-a";
        Ok(rows.as_array().context("a list")?.iter().find(names).context("it")?["tunnel"].clone())
    };
    ensure!(shown("vns")? == serde_json::json!({ "ttl": 9, "dscp": "46" }), "{}", shown("vns")?);
    ensure!(shown("tsis")? == serde_json::json!({ "ttl": 200 }), "{}", shown("tsis")?);

    // What one may be sent, which the host it is at looks to.
    let limit = |name: &str, rate: &str| {
        let words = ["tsi", "set", "--vn", "red", "--name", name, "--tunnel-receive-rate", rate];
        lab.weft([&words[..], &["--tunnel-receive-burst", "100"]].concat()).map(drop)
    };
    limit("red-b", "1kbit")?;
    for ip in IPS {
        let lost = || !ping(&lab, "red-a", ip, 10).is_ok_and(Ping::complete);
        ensure!(clock::until_true(clock::CEILING, lost), "10 echo requests to {ip} are not too many");
    }
    ensure!(frames(&lab, "h2", "rate-limited")? > 0 && frames(&lab, "h1", "rate-limited")? == 0);
    // And all of the VN, of which one says otherwise.
    lab.weft(["vn", "set", "red", "--tunnel-receive-rate", "1kbit"])?;
    limit("red-b", "unlimited")?;
    limit("red-a", "unlimited")?;
    for ip in IPS {
        let all = || ping(&lab, "red-a", ip, 10).is_ok_and(Ping::complete);
        ensure!(clock::until_true(clock::CEILING, all), "{ip} is sent too much still");
    }
    drop(underlay.stop()?);
    lab.down()
}

#[test]
fn a_tunnel_policy_holds_within_one_push() -> Result<()> {
    policies(THREE_HOSTS)
}

#[test]
fn over_an_ipv6_underlay_too() -> Result<()> {
    policies(&THREE_HOSTS.replace("ipv4: 192.0.2.0/24", "ipv6: \"2001:db8::/64\""))
}

/// Of two RLOCs of a host others use that with the lower priority, for one tenant system or for all of a VN.
#[test]
fn rlocs_are_used_by_their_priority() -> Result<()> {
    let both = "ipv4: 192.0.2.0/24\n  ipv6: \"2001:db8::/64\"\n  rloc: both";
    let lab = TestLab::up(&THREE_HOSTS.replace("ipv4: 192.0.2.0/24", both))?;
    lab.settle()?;
    let underlay = Capture::underlay(&lab, "priorities")?;
    // Whether requests and answers cross an IPv4 underlay.
    let goes = |over: [bool; 2]| -> Result<()> {
        for (a, b) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let (a, b): (IpAddr, IpAddr) = (a.parse()?, b.parse()?);
            let last = |from, to| {
                let frame = underlay.last(|frame| frame.inner_ips == Some((from, to)));
                frame.and_then(|frame| frame.to).map(|to| to.is_ipv4())
            };
            let now = || {
                let all = ping(&lab, "red-a", &b.to_string(), 1).is_ok_and(Ping::complete);
                all && [last(a, b), last(b, a)] == over.map(Some)
            };
            ensure!(clock::until_true(clock::CEILING, now), "{:?}, not {over:?}", [last(a, b), last(b, a)]);
        }
        Ok(())
    };
    goes([true, true])?;
    lab.weft(["tsi", "set", "--vn", "red", "--name", "red-b", "--tunnel-ipv4-priority", "2"])?;
    goes([false, true])?;
    lab.weft(["vn", "set", "red", "--tunnel-ipv4-priority", "255"])?;
    goes([false, false])?;
    lab.weft(["vn", "set", "red", "--tunnel-ipv4-priority", "none"])?;
    goes([false, true])?;
    // By weight: both carry flows, and each flow goes by one.
    let own = ["tsi", "set", "--vn", "red", "--name", "red-b", "--tunnel-ipv4-priority", "none"];
    lab.weft([&own[..], &["--tunnel-ipv4-weight", "1", "--tunnel-ipv6-weight", "1"]].concat())?;
    for (a, b) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
        let (a, b): (IpAddr, IpAddr) = (a.parse()?, b.parse()?);
        let shared = || flows(&lab, &underlay, a, b).is_ok_and(|over| is_shared(&over));
        ensure!(clock::until_true(clock::CEILING, shared), "flows to {b} go by one RLOC");
        let over = flows(&lab, &underlay, a, b)?;
        ensure!(is_shared(&over) && over.iter().all(|by| by.len() == 1), "{over:?}");
    }
    // A trace goes as frames do: of 256 flows 255 by the RLOC that is not the mapping's first.
    lab.weft(["tsi", "set", "--vn", "red", "--name", "red-b", "--tunnel-ipv6-weight", "255"])?;
    let trace = || -> Result<bool> {
        let words = ["trace", "--vn", "red", "--from", "red-a", "--to", "10.0.0.2", "-o", "json"];
        let view: serde_json::Value = serde_json::from_str(&lab.weft_at("h1", words)?)?;
        let steps = view["steps"].as_array().context("steps")?;
        let over = steps.iter().find(|step| step["step"] == "tunnel").and_then(|step| step["rloc"].as_str());
        ensure!(view["result"] == "arrived", "{view:#}");
        Ok(over.is_some_and(|rloc| rloc.contains(':')))
    };
    let traced = clock::until(clock::CEILING, || Ok::<_, anyhow::Error>(trace()?.then_some(())))?;
    ensure!(traced.is_some(), "no trace goes by the other RLOC");
    lab.weft(["tsi", "set", "--vn", "red", "--name", "red-b", "--tunnel-ipv4-weight", "0"])?;
    goes([false, true])?;
    drop(underlay.stop()?);
    lab.down()
}

const FLOWS: usize = 24;

/// Whether both underlays carry some.
fn is_shared(over: &[BTreeSet<bool>]) -> bool {
    over.iter().flatten().collect::<BTreeSet<_>>().len() == 2
}

/// Three datagrams of each of some new flows, which are told apart by their length; over what underlays each went (IPv4:
/// true).
fn flows(lab: &TestLab, underlay: &Capture, a: IpAddr, b: IpAddr) -> Result<Vec<BTreeSet<bool>>> {
    let octets = |n: usize| 300 + 32 * n;
    let headers = if a.is_ipv4() { 42 } else { 62 };
    let seen = |n: usize, v4: bool| {
        let len = octets(n) + headers + if v4 { 50 } else { 70 };
        let over = |to: IpAddr| to.is_ipv4() == v4;
        underlay.count(|f| f.inner_ips == Some((a, b)) && f.len == len && f.to.is_some_and(over))
    };
    let all = || (0..FLOWS).map(|n| [seen(n, true), seen(n, false)]).collect::<Vec<_>>();
    let before = all();
    lab.node("red-a")?.run(|| -> Result<()> {
        for n in 0..FLOWS {
            let socket = UdpSocket::bind((a, 0))?;
            for _ in 0..3 {
                socket.send_to(&vec![0; octets(n)], (b, 9))?;
            }
        }
        Ok(())
    })??;
    let sum = |counts: &[[usize; 2]]| counts.iter().flatten().sum::<usize>();
    let arrived = clock::until_true(clock::CEILING, || sum(&all()) == sum(&before) + 3 * FLOWS);
    ensure!(arrived, "not all datagrams to {b} cross the underlay");
    let of = |(now, before): ([usize; 2], &[usize; 2])| {
        let by = [(true, now[0] > before[0]), (false, now[1] > before[1])];
        by.into_iter().filter(|(_, used)| *used).map(|(v4, _)| v4).collect()
    };
    Ok(all().into_iter().zip(&before).map(of).collect())
}
