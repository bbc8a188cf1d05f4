//! The steps of the demo, in the order they are told.

use super::story::Story;
use crate::say;
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::{net::IpAddr, time::Duration};
use weft_lab::{
    DeviceKind, Lab, Links, Signal, TenantSpec,
    capture::{Capture, Captured, Class, Counts, Frame},
    clock,
    ping::{Ping, ping},
    probe::Stream,
};

const RATE: u32 = 1000;

pub(super) fn tell(lab: &mut Lab, story: &mut Story) -> Result<()> {
    introduce(lab)?;
    lab.settle()?;
    first_packet(lab, story)?;
    same_host(lab, story)?;
    everybody(lab, story)?;
    isolation(lab, story)?;
    nobody_there(lab, story)?;
    throughput(lab, story)?;
    moving(lab, story)?;
    killing(lab, story)
}

fn heading(title: &str, words: &str) {
    say::heading(title);
    say::line(words);
}

/// `weft get WHAT -o json` at the Oracle: a list.
fn get(lab: &Lab, what: &str) -> Result<Vec<Value>> {
    let value: Value = serde_json::from_str(&lab.weft(["get", what, "-o", "json"])?)?;
    let list = value.get("items").unwrap_or(&value);
    list.as_array().cloned().with_context(|| format!("weft get {what} gives no list: {value}"))
}

fn text(value: &Value, key: &str) -> String {
    match &value[key] {
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// An EID is an object with one member: `{"ip": "10.0.0.1"}`.
fn eid(value: &Value, key: &str) -> String {
    let only = value[key].as_object().and_then(|object| object.values().next());
    only.and_then(Value::as_str).unwrap_or("?").to_owned()
}

fn introduce(lab: &Lab) -> Result<()> {
    heading(
        "1. Who is there",
        "The Oracle has given every tenant system its address, MAC address and VNID, and knows on which host it is.\n\
         Red and blue use the same addresses; their VNIDs keep them apart.\n",
    );
    let mut rows: Vec<Vec<String>> = get(lab, "tsis")?
        .iter()
        .map(|tsi| ["name", "vn", "vni", "nve", "mac", "ips"].map(|key| text(tsi, key)).to_vec())
        .collect();
    rows.sort();
    say::table(&["tenant system", "VN", "VNID", "host", "MAC", "addresses"], &rows);
    Ok(())
}

/// Runs `act` under a capture of the underlay.
fn captured<T>(lab: &Lab, name: &str, act: impl FnOnce() -> Result<T>) -> Result<(T, Captured)> {
    let capture = Capture::underlay(lab, name)?;
    let result = act()?;
    Ok((result, capture.stop()?))
}

fn named(lab: &Lab, ip: Option<IpAddr>) -> String {
    let Some(ip) = ip else { return "?".to_owned() };
    let hosts = lab.record().spec.hosts.keys();
    hosts
        .map(weft_lab::NodeName::as_str)
        .find(|host| lab.rloc(host).is_ok_and(|rloc| rloc == ip))
        .map_or_else(|| "oracle".to_owned(), str::to_owned)
}

/// What crossed the underlay, in order, runs of the same thing as one line.
fn show(lab: &Lab, captured: &Captured) {
    let mut lines: Vec<(String, usize)> = Vec::new();
    for frame in &captured.frames {
        let what = match frame.class {
            Class::LispUdp => "LISP on UDP 4342".to_owned(),
            Class::Session => "LISP session, TLS on TCP 4342".to_owned(),
            Class::Vxlan { vni, group, inner } => {
                let to = if group { "to a group" } else { "to one" };
                format!("VXLAN, VNID {vni}: {} {to}", inner.label())
            }
            Class::Api | Class::Underlay(_) | Class::Other => continue,
        };
        let line = format!("{} -> {}  {what}", named(lab, frame.from), named(lab, frame.to));
        match lines.last_mut() {
            Some((last, count)) if *last == line => *count += 1,
            _ => lines.push((line, 1)),
        }
    }
    for (line, count) in lines.iter().take(12) {
        say::line(&format!(
            "    {line}{}",
            if *count > 1 { format!("  ({count} frames)") } else { String::new() }
        ));
    }
    if lines.len() > 12 {
        say::line(&format!("    ... and {} more", lines.len() - 12));
    }
}

fn flooded(story: &mut Story, during: &str, counts: &Counts) {
    let count = counts.flooded();
    story.check(
        &format!("nothing flooded ({during})"),
        count == 0,
        format!("{count} group ARP/ND frames in VXLAN"),
    );
}

fn first_packet(lab: &Lab, story: &mut Story) -> Result<()> {
    heading(
        "2. The first packet",
        "red-a on h1 pings red-b on h2 and knows only its address. Its ARP request never leaves h1: the NVE there\n\
         asks the Oracle, which answers with MAC address and host in one message, and the NVE answers the ARP.\n",
    );
    let (first, seen) = captured(lab, "first", || Ok(ping(lab, "red-a", "10.0.0.2", 1)?))?;
    show(lab, &seen);
    story.first("red-a", "red-b", "10.0.0.2".parse()?, first);
    let counts = seen.counts();
    let took = first.first_ms.map_or_else(|| "no answer".to_owned(), |ms| format!("answered in {ms} ms"));
    story.check("the first ping is answered", first.complete(), took);
    let between = |from: &str, to: &str| {
        let is = |frame: &&Frame| {
            frame.class == Class::LispUdp && named(lab, frame.from) == from && named(lab, frame.to) == to
        };
        seen.frames.iter().filter(is).count()
    };
    let (asked, answered) = (between("h1", "oracle"), between("oracle", "h1"));
    story.check(
        "one question, one answer between h1 and the Oracle",
        asked == 1 && answered == 1,
        format!("{asked} Map-Request, {answered} Map-Reply"),
    );
    flooded(story, "first ping", &counts);
    let learned = Links::open(&lab.node("red-a")?)?.neighbour("eth0", "10.0.0.2".parse()?)?;
    let real = lab.tenant("red-b")?.mac;
    let shown = learned.map_or_else(|| "none".to_owned(), |mac| mac.to_string());
    story.check("red-a was told red-b's own MAC address", learned == Some(real), shown);
    let asked = get(lab, "conversations")?;
    let about = asked.iter().find(|c| text(c, "nve_name") == "h1" && eid(c, "destination") == "10.0.0.2");
    let shown = about.map_or_else(
        || "no such conversation".to_owned(),
        |c| format!("{} for {}, NVE {}", eid(c, "source"), eid(c, "destination"), text(c, "nve_name")),
    );
    story.check("the Oracle remembers who asked", about.is_some(), shown);
    Ok(())
}

fn same_host(lab: &Lab, story: &mut Story) -> Result<()> {
    heading(
        "3. Two tenants of one host",
        "red-a and red-d are both on h1: what they say need not leave it.\n",
    );
    let (pinged, seen) = captured(lab, "local", || Ok(ping(lab, "red-a", "10.0.0.4", 3)?))?;
    story.first("red-a", "red-d", "10.0.0.4".parse()?, pinged);
    story.check("red-a reaches red-d", pinged.complete(), of(pinged));
    let crossed = seen.counts().vxlan();
    story.check("nothing of it crossed the underlay", crossed == 0, format!("{crossed} VXLAN frames"));
    Ok(())
}

fn of(ping: Ping) -> String {
    let rtt = ping.average_ms.map_or_else(String::new, |ms| format!(", {ms} ms on average"));
    format!("{} of {} answered{rtt}", ping.received, ping.sent)
}

fn everybody(lab: &Lab, story: &mut Story) -> Result<()> {
    heading(
        "4. Everybody, over IPv4 and IPv6",
        "Every pair of tenants of one VN, both directions, both families.\n",
    );
    let tenants = &lab.record().tenants;
    let vn = |name: &weft_lab::NodeName| lab.record().spec.tenants.get(name).map(|tenant| tenant.vn.clone());
    let (results, seen) = captured(lab, "everybody", || {
        let mut results = Vec::new();
        for one in tenants.keys() {
            for (other, state) in tenants.iter().filter(|(other, _)| *other != one && vn(other) == vn(one)) {
                for ip in &state.ips {
                    let ip = ip.addr();
                    let first = ping(lab, one.as_str(), &ip.to_string(), 1)?;
                    let warm = ping(lab, one.as_str(), &ip.to_string(), 3)?;
                    story.first(one.as_str(), other.as_str(), ip, first);
                    story.warm(one.as_str(), ip, warm);
                    results.push((format!("{one} to {other} at {ip}"), first.complete() && warm.complete()));
                }
            }
        }
        Ok(results)
    })?;
    let bad: Vec<&str> = results.iter().filter(|(_, ok)| !ok).map(|(what, _)| what.as_str()).collect();
    let shown = format!("{} of {}{}", results.len() - bad.len(), results.len(), list(&bad));
    story.check("every pair reaches one another", bad.is_empty(), shown);
    flooded(story, "all pairs, ARP and ND", &seen.counts());
    Ok(())
}

fn list(bad: &[&str]) -> String {
    if bad.is_empty() { String::new() } else { format!("; not: {}", bad.join(", ")) }
}

fn isolation(lab: &Lab, story: &mut Story) -> Result<()> {
    heading(
        "5. Red and blue",
        "blue-a pings 10.0.0.2. Both red-b and blue-b have that address, on the same host; only blue-b gets it.\n",
    );
    let received =
        |tenant: &str| -> Result<u64> { Ok(Links::open(&lab.node(tenant)?)?.stats("eth0")?.rx_packets) };
    let (red, blue) = (received("red-b")?, received("blue-b")?);
    let (pinged, seen) = captured(lab, "isolation", || Ok(ping(lab, "blue-a", "10.0.0.2", 5)?))?;
    let (red, blue) = (received("red-b")? - red, received("blue-b")? - blue);
    story.check("blue-a reaches blue-b", pinged.complete(), of(pinged));
    let shown = format!("{red} frames at red-b, {blue} at blue-b");
    story.check("red-b, with the same address, sees nothing", red == 0 && blue >= 5, shown);
    let vnis: std::collections::BTreeSet<u32> = seen
        .frames
        .iter()
        .filter_map(|frame| match frame.class {
            Class::Vxlan { vni, .. } => Some(vni),
            _ => None,
        })
        .collect();
    story.check("one VNID on the wire", vnis.len() == 1, format!("VNIDs {vnis:?}"));
    let other = ping(lab, "blue-a", "10.0.0.3", 2)?;
    story.check("red-c's address leads nowhere for blue", other.nothing(), of(other));
    Ok(())
}

fn nobody_there(lab: &Lab, story: &mut Story) -> Result<()> {
    heading(
        "6. An address nobody has",
        "red-a asks for 10.0.0.77. Anywhere else that ARP request would go to every host, once a second.\n",
    );
    let (pinged, seen) = captured(lab, "nobody", || Ok(ping(lab, "red-a", "10.0.0.77", 2)?))?;
    show(lab, &seen);
    let counts = seen.counts();
    story.check("nobody answers", pinged.nothing(), of(pinged));
    let shown = format!("{} VXLAN frames, {} LISP datagrams", counts.vxlan(), counts.lisp());
    story.check(
        "the Oracle was asked, no other host heard of it",
        counts.vxlan() == 0 && counts.lisp() >= 2,
        shown,
    );
    Ok(())
}

fn throughput(lab: &Lab, story: &mut Story) -> Result<()> {
    heading("7. TCP", "Two seconds of one TCP stream from red-a to red-b, with iperf3.\n");
    let mut server = lab.command("red-b", "iperf3");
    server.args(["-s", "-1"]).stdout(std::process::Stdio::null());
    let mut server = lab.node("red-b")?.spawn(&mut server)?;
    let line = ["iperf3", "-c", "10.0.0.2", "-t", "2", "--json"];
    let bits = clock::until(clock::CEILING, || -> Result<Option<f64>> {
        let answer: Value = serde_json::from_slice(&lab.exec("red-a", &line)?.stdout)?;
        Ok(answer["end"]["sum_received"]["bits_per_second"].as_f64())
    })?;
    if clock::until(Duration::from_secs(5), || server.try_wait())?.is_none() {
        server.kill()?;
        server.wait()?;
    }
    let shown = bits.map_or_else(|| "nothing arrived".to_owned(), |bits| format!("{:.1} Gb/s", bits / 1e9));
    story.check("TCP runs", bits.is_some_and(|bits| bits > 0.0), shown);
    Ok(())
}

fn moving(lab: &mut Lab, story: &mut Story) -> Result<()> {
    heading(
        "8. A tenant system moves",
        "red-c is taken from h3 and plugged in at h2, with its addresses. Nobody asks again: the Oracle tells\n\
         h1, because h1 has asked for red-c before.\n",
    );
    let before = ping(lab, "red-a", "10.0.0.3", 2)?;
    let capture = Capture::underlay(lab, "move")?;
    let start = clock::now();
    lab.move_cold("red-c", "h2")?;
    let moved = start.elapsed();
    let after = clock::until(clock::CEILING, || {
        ping(lab, "red-a", "10.0.0.3", 1).map(|ping| ping.complete().then_some(ping))
    })?;
    let seen = capture.stop()?;
    story.check("red-a reaches red-c before the move", before.complete(), of(before));
    let shown = format!(
        "moved in {:.0} ms; {}",
        moved.as_secs_f64() * 1000.0,
        after.map_or_else(|| "never answered".to_owned(), of)
    );
    story.check("and after it", after.is_some(), shown);
    let told = |frame: &&Frame| {
        frame.class == Class::Session && named(lab, frame.from) == "oracle" && named(lab, frame.to) == "h1"
    };
    let told = seen.frames.iter().filter(told).count();
    story.check("the Oracle told h1", told > 0, format!("{told} frames on h1's session"));
    flooded(story, "move", &seen.counts());
    Ok(())
}

fn killing(lab: &mut Lab, story: &mut Story) -> Result<()> {
    heading(
        "9. kill -9",
        "1,000 packets a second go from red-a to red-b while the NVE of h1 is killed and started again, and then\n\
         the Oracle. The kernel carries the packets; nobody else is needed for those that are known.\n",
    );
    for (daemon, what) in [("h1", "the NVE of h1"), ("oracle", "the Oracle")] {
        let stream = Stream::start(&lab.node("red-a")?, &lab.node("red-b")?, "10.0.0.2".parse()?, RATE)?;
        stream.wait_first()?;
        stream.wait_sent(500, clock::CEILING)?;
        lab.signal(daemon, Signal::SIGKILL)?;
        stream.wait_sent(1000, clock::CEILING)?;
        lab.restart(daemon)?;
        stream.wait_sent(1000, clock::CEILING)?;
        let report = stream.stop();
        let shown = format!(
            "{} sent, {} lost, longest gap {:.1} ms",
            report.sent,
            report.lost,
            report.longest_gap.as_secs_f64() * 1000.0
        );
        story.check(&format!("no packet lost when {what} is killed"), report.lost == 0, shown);
    }
    let what = TenantSpec {
        host: "h3".parse()?,
        vn: "red".to_owned(),
        ips: vec!["10.0.0.5".parse()?],
        mac: None,
        device: DeviceKind::Veth,
    };
    lab.attach("red-e", &what)?;
    let after = ping(lab, "red-d", "10.0.0.5", 2)?;
    story.check("a tenant system attached afterwards is reached", after.complete(), of(after));
    Ok(())
}
