//! `weft trace` end to end: the right mapping, the right rule and the right reason, from both NVEs.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::{
    net::{Ipv6Addr, UdpSocket},
    time::Duration,
};
use weft_e2e::{THREE_HOSTS, TestLab};
use weft_lab::clock;

/// A trace from red-a at h1.
fn trace(lab: &TestLab, to: &str, more: &[&str]) -> Result<Value> {
    let words = ["trace", "--vn", "red", "--from", "red-a", "--to", to, "-o", "json"];
    Ok(serde_json::from_str(&lab.weft_at("h1", [&words, more].concat())?)?)
}

/// How it ended: result, reason, NVE.
fn ending(view: &Value) -> (&str, &str, &str) {
    let word = |name: &str| view[name].as_str().unwrap_or_default();
    (word("result"), word("reason"), word("nve"))
}

fn step<'a>(view: &'a Value, nve: &str, name: &str) -> Result<&'a Value> {
    let steps = view["steps"].as_array().context("steps")?;
    let found = steps.iter().find(|step| step["nve"] == nve && step["step"] == name);
    found.with_context(|| format!("no {name} at {nve} in {view:#}"))
}

/// Where it went, by which entry, and that it ended before its destination.
fn the_way(lab: &TestLab) -> Result<()> {
    let (h1, h2) = (lab.rloc("h1")?.to_string(), lab.rloc("h2")?.to_string());
    for (to, own) in [("10.0.0.2", "10.0.0.1"), ("fd00::2", "fd00::1")] {
        let view = trace(lab, to, &[])?;
        ensure!(ending(&view) == ("arrived", "", "h2"), "{view:#}");
        ensure!(
            step(&view, "h1", "frame")?["text"].as_str().is_some_and(|text| text.contains(own)),
            "{view:#}"
        );
        for name in ["address", "mapping"] {
            let entry = &step(&view, "h1", name)?["mapping"];
            let origin = entry["origin"].as_str().unwrap_or_default();
            ensure!(["reply", "notify"].contains(&origin), "{view:#}");
            let at = (entry["rloc"].as_str(), entry["nve"].as_str(), entry["epoch"].as_u64());
            ensure!(at == (Some(h2.as_str()), Some("h2"), Some(1)), "{view:#}");
        }
        ensure!(step(&view, "h1", "tunnel")?["rloc"] == h2.as_str(), "{view:#}");
        ensure!(step(&view, "h2", "arrival")?["rloc"] == h1.as_str(), "{view:#}");
        for (nve, name) in
            [("h1", "vap"), ("h1", "spoof-check"), ("h1", "policy"), ("h2", "fence"), ("h2", "policy")]
        {
            step(&view, nve, name)?;
        }
        let delivery = step(&view, "h2", "delivery")?["text"].as_str().context("text")?;
        ensure!(delivery.contains("red/red-b"), "{view:#}");
    }
    // On one host, without an Oracle's word.
    ensure!(ending(&trace(lab, "10.0.0.4", &[])?) == ("arrived", "", "h1"));
    let table = lab.weft_at("h1", ["trace", "--vn", "red", "--from", "red-a", "--to", "10.0.0.2"])?;
    let rows: Vec<&str> = table.lines().collect();
    ensure!(rows.first().is_some_and(|row| row.starts_with("NVE")), "{table}");
    ensure!(rows.last().is_some_and(|row| row.starts_with("arrived at h2")), "{table}");
    Ok(())
}

/// What is to be delivered is, and nothing else.
fn delivered(lab: &TestLab) -> Result<()> {
    let socket = lab.node("red-b")?.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 5000)))??;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    for (n, to) in [(40, "10.0.0.2"), (60, "fd00::2")] {
        let (kept, handed) = (n.to_string(), (n + 1).to_string());
        ensure!(ending(&trace(lab, to, &["udp/5000", "--size", &kept])?) == ("arrived", "", "h2"));
        ensure!(
            ending(&trace(lab, to, &["udp/5000", "--size", &handed, "--deliver"])?)
                == ("delivered", "", "h2")
        );
        let mut buffer = [0; 64];
        let (octets, _) = socket.recv_from(&mut buffer)?;
        let header = if n == 40 { 28 } else { 48 };
        ensure!(octets + header == n + 1, "{octets} octets came");
    }
    Ok(())
}

/// The rule that lets it through, at both ends, and that none does.
fn by_which_rule(lab: &TestLab) -> Result<()> {
    let set = |group: &str, rule: &str| lab.weft(["group", "set", group, "--vn", "red", "--rule", rule]);
    set("client", "out any to anybody")?;
    set("web", "in tcp/80 from group:client")?;
    for (tsi, group) in [("red-a", "client"), ("red-b", "web")] {
        lab.weft(["tsi", "set-groups", "--vn", "red", "--name", tsi, "--groups", group])?;
    }
    for to in ["10.0.0.2", "fd00::2"] {
        let known = || {
            let view = trace(lab, to, &["tcp/80"])?;
            let rule = |nve| step(&view, nve, "policy").map(|step| step["rule"].clone());
            let both = rule("h1")? == "out any to anybody" && rule("h2")? == "in tcp/80 from group:client";
            Ok::<_, anyhow::Error>(both.then_some(view))
        };
        let view = clock::until(clock::CEILING, known)?.with_context(|| format!("rules for {to}"))?;
        ensure!(ending(&view) == ("arrived", "", "h2"), "{view:#}");
        ensure!(step(&view, "h1", "policy")?["group"] == "client", "{view:#}");
        ensure!(step(&view, "h2", "policy")?["group"] == "web", "{view:#}");
        ensure!(step(&view, "h2", "connection")?["text"] == "new", "{view:#}");
        let view = trace(lab, to, &["tcp/81", "--deliver"])?;
        ensure!(ending(&view) == ("dropped", "denied", "h2"), "{view:#}");
        let refused = step(&view, "h2", "policy")?;
        ensure!(refused["rule"].is_null(), "{view:#}");
        ensure!(refused["text"].as_str().is_some_and(|text| text.contains("web")), "{view:#}");
    }
    Ok(())
}

/// Why it does not get there.
fn reasons(lab: &TestLab) -> Result<()> {
    let cases: [(&str, &[&str], &str); 8] = [
        ("10.0.0.99", &[], "nobody"),
        ("fd00::99", &[], "nobody"),
        ("10.0.0.2", &["--to-mac", "02:00:00:99:99:99"], "unknown-mac"),
        ("10.0.0.2", &["--source-ip", "10.0.0.9"], "spoofed-ip"),
        ("fd00::2", &["--source-ip", "fd00::9"], "spoofed-ip"),
        ("10.0.0.2", &["--source-mac", "02:00:00:00:00:99"], "spoofed-mac"),
        ("10.0.0.2", &["--size", "1600"], "too-big"),
        ("fd00::2", &["tcp/80", "--size", "1600"], "too-big"),
    ];
    for (to, more, reason) in cases {
        let view = trace(lab, to, more)?;
        ensure!(ending(&view) == ("dropped", reason, "h1"), "{to} {more:?}: {view:#}");
    }
    // Who sends is out of service, or who is sent to on the same host, of whom nobody is asked then.
    for (tsi, to) in [("red-a", ["10.0.0.2", "fd00::3"]), ("red-d", ["10.0.0.4", "fd00::4"])] {
        let state = |verb| lab.weft_at("h1", ["tsi", verb, "--vn", "red", "--name", tsi]);
        state("deactivate")?;
        for to in to {
            let view = trace(lab, to, &[])?;
            ensure!(ending(&view) == ("dropped", "not-activated", "h1"), "{view:#}");
        }
        state("activate")?;
    }
    let limit = |rate| {
        lab.weft(["tsi", "set", "--vn", "red", "--name", "red-a", "--tunnel-send-rate", rate])?;
        let wanted = if rate == "none" { ("arrived", "", "h2") } else { ("dropped", "rate-limited", "h1") };
        let ends_so =
            || Ok::<_, anyhow::Error>((ending(&trace(lab, "fd00::2", &[])?) == wanted).then_some(()));
        clock::until(clock::CEILING, ends_so)?.with_context(|| format!("a trace at {rate}"))
    };
    limit("1kbit")?;
    limit("none")?;
    // What there is nothing to trace of, in one line each.
    let refused = [
        (["red", "red-b", "10.0.0.1"], "not attached here"),
        (["red", "red-a", "10.9.0.1"], "in no subnet of 'red'"),
        (["red", "red-a", "10.0.0.1"], "itself"),
    ];
    for ([vn, from, to], why) in refused {
        let asked = lab.weft_at("h1", ["trace", "--vn", vn, "--from", from, "--to", to]);
        let text = asked.err().with_context(|| format!("{from} to {to} was traced"))?.to_string();
        ensure!(text.contains(why), "{text}");
    }
    Ok(())
}

/// red-b moves and h1 hears nothing of it: what the Oracle says on its session and by UDP does not come. The packet is
/// redirected where red-b was, and traced on.
fn moved_on(lab: &TestLab) -> Result<()> {
    let h1 = lab.rloc("h1")?;
    let family = if h1.is_ipv4() { "-4" } else { "-6" };
    for protocol in ["tcp", "udp"] {
        let silent = ["ip", family, "rule", "add", "to", &h1.to_string(), "ipproto", protocol];
        let done = lab.exec("oracle", &[&silent[..], &["sport", "4342", "prohibit"]].concat())?;
        ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    for words in ["tuntap add new-b mode tap", "link set new-b up"] {
        let done = lab.exec("h3", &[&["ip"][..], &words.split(' ').collect::<Vec<_>>()].concat())?;
        ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    let red_b = |host: &str, verb: &str, more: &[&str]| {
        lab.weft_at(host, [&["tsi", verb, "--vn", "red", "--name", "red-b"], more].concat())
    };
    lab.weft(["tsi", "move", "--vn", "red", "--name", "red-b", "--to", "h3"])?;
    red_b("h3", "associate", &["--device", "new-b"])?;
    red_b("h2", "deactivate", &[])?;
    red_b("h3", "activate", &[])?;
    let (h2, h3) = (lab.rloc("h2")?.to_string(), lab.rloc("h3")?.to_string());
    for to in ["10.0.0.2", "fd00::2"] {
        let view = trace(lab, to, &["tcp/80"])?;
        ensure!(ending(&view) == ("arrived", "", "h3"), "{view:#}");
        let mut nves: Vec<&str> = view["steps"]
            .as_array()
            .context("steps")?
            .iter()
            .filter_map(|step| step["nve"].as_str())
            .collect();
        nves.dedup();
        ensure!(nves == ["h1", "h2", "h3"], "{view:#}");
        ensure!(step(&view, "h1", "tunnel")?["rloc"] == h2.as_str(), "{view:#}");
        let text = step(&view, "h2", "mapping")?["text"].as_str().context("text")?;
        ensure!(text.contains("it moved from here to") && text.contains("h3"), "{view:#}");
        let on = step(&view, "h2", "tunnel")?;
        ensure!(on["rloc"] == h3.as_str() && on["reason"] == "redirected", "{view:#}");
        ensure!(step(&view, "h3", "arrival")?["rloc"] == h2.as_str(), "{view:#}");
        ensure!(step(&view, "h3", "policy")?["rule"] == "in tcp/80 from group:client", "{view:#}");
    }
    Ok(())
}

fn traces(yaml: &str) -> Result<()> {
    let lab = TestLab::up(yaml)?;
    lab.settle()?;
    the_way(&lab).context("the way")?;
    delivered(&lab).context("delivered")?;
    reasons(&lab).context("reasons")?;
    by_which_rule(&lab).context("rules")?;
    moved_on(&lab).context("moved on")?;
    lab.down()
}

#[test]
fn a_packet_step_by_step_over_an_ipv4_underlay() -> Result<()> {
    traces(THREE_HOSTS)
}

#[test]
fn a_packet_step_by_step_over_an_ipv6_underlay() -> Result<()> {
    traces(&THREE_HOSTS.replace("ipv4: 192.0.2.0/24", "ipv6: \"2001:db8::/64\""))
}
