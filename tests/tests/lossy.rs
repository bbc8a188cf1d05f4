//! The way between NVEs and the Oracle loses, repeats and reorders 30 % of all frames, and is cut twice: no tenant
//! loses what it has, and when it is over every NVE's table is the Oracle's.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use weft_e2e::{TestLab, eid, ping};
use weft_lab::{
    clock,
    lossy::{Lossy, Treatment},
    probe::Stream,
};

/// One VN whose mappings are asked for and one whose mappings are pushed, with the same addresses.
const LAB: &str = r#"
name: lossy
underlay: { ipv4: 192.0.2.0/24 }
oracles: { oracle: {} }
hosts: { h1: {}, h2: {}, h3: {} }
vns:
  red: { learning: oracle, subnets: [10.0.0.0/24, "fd00::/64"] }
  blue: { learning: distribute, subnets: [10.0.0.0/24, "fd00::/64"] }
tenants:
  red-a: { host: h1, vn: red, ips: [10.0.0.1, "fd00::1"] }
  red-b: { host: h2, vn: red, ips: [10.0.0.2, "fd00::2"] }
  red-c: { host: h3, vn: red, ips: [10.0.0.3, "fd00::3"] }
  blue-a: { host: h1, vn: blue, ips: [10.0.0.1, "fd00::1"] }
  blue-b: { host: h2, vn: blue, ips: [10.0.0.2, "fd00::2"] }
  blue-c: { host: h3, vn: blue, ips: [10.0.0.3, "fd00::3"] }
"#;
const HOSTS: [&str; 3] = ["h1", "h2", "h3"];
const BAD: Treatment = Treatment { loss: 300, duplicate: 300, reorder: 300 };

/// VN, address, MAC address and RLOC.
type Row = (String, String, String, String);

fn row(of: &Value, rloc: &Value) -> Row {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&of["vn"]), eid(of).unwrap_or_default().to_owned(), text(&of["mac"]), text(rloc))
}

/// What the Oracle has registered, without what is stale; the NVE of each row beside it.
fn at_oracle(lab: &TestLab) -> Result<Vec<(Row, String)>> {
    let all = lab.json(&["get", "mappings"])?;
    let all = all.as_array().context("a list")?;
    let sound = all.iter().all(|one| one["origin"] == "registration" && one["stale"] == false);
    ensure!(sound, "not all is registered: {all:?}");
    Ok(all
        .iter()
        .map(|one| (row(one, &one["rlocs"][0]), one["nve"].as_str().unwrap_or("").to_owned()))
        .collect())
}

fn at_nve(lab: &TestLab, host: &str) -> Result<BTreeSet<Row>> {
    let socket = lab.files().socket(host);
    let socket = socket.to_str().context("a path that is text")?;
    let all: Value =
        serde_json::from_str(&lab.weft_at(host, ["get", "mappings", "--socket", socket, "-o", "json"])?)?;
    let rows = all.as_array().context("a list")?.iter().filter(|one| !one["mac"].is_null());
    Ok(rows.map(|one| row(one, &one["rloc"])).collect())
}

/// What is wrong with the tables now. Where all is pushed an NVE has all that others hold; elsewhere what it has is
/// true. A MAC address's row at the Oracle names no MAC address behind it.
fn differences(lab: &TestLab) -> Result<Vec<String>> {
    let oracle = at_oracle(lab)?;
    let mut wrong = Vec::new();
    for host in HOSTS {
        let others = oracle.iter().filter(|(_, nve)| nve != host).map(|((vn, of, mac, rloc), _)| {
            let mac = if mac.is_empty() { of } else { mac };
            (vn.clone(), of.clone(), mac.clone(), rloc.clone())
        });
        let others: BTreeSet<Row> = others.collect();
        let nve = at_nve(lab, host)?;
        wrong.extend(nve.difference(&others).map(|row| format!("{host} has {row:?}")));
        let pushed = others.difference(&nve).filter(|(vn, ..)| vn == "blue");
        wrong.extend(pushed.map(|row| format!("{host} lacks {row:?}")));
    }
    Ok(wrong)
}

/// How many NVEs have a session.
fn connected(lab: &TestLab) -> Result<usize> {
    let nves = lab.json(&["get", "nves"])?;
    Ok(nves.as_array().context("a list")?.iter().filter(|nve| nve["connected"] == true).count())
}

fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let seen =
        clock::until(clock::CEILING, || Ok::<_, anyhow::Error>(holds().unwrap_or(false).then_some(())))?;
    seen.with_context(|| format!("after {:?} still not: {what}", clock::CEILING))
}

#[test]
fn n_tables_become_the_oracles_after_30_percent_loss() -> Result<()> {
    let mut lab = TestLab::up(LAB)?;
    lab.settle()?;
    let wire = Lossy::insert(&lab, "oracle", 20)?;
    // Those that nothing happens to.
    let streams = [("red-a", "red-b", "10.0.0.2"), ("blue-b", "blue-a", "fd00::1")];
    let streams = streams.map(|(from, to, target)| -> Result<Stream> {
        let stream = Stream::start(&lab.node(from)?, &lab.node(to)?, target.parse()?, 200)?;
        stream.wait_first()?;
        Ok(stream)
    });
    wire.set(BAD);
    let mut tries = 0;
    for host in ["h1", "h3"] {
        for tenant in ["red-c", "blue-c"] {
            lab.move_cold(tenant, host).with_context(|| format!("{tenant} to {host}"))?;
            // Questions amid it: answered or not.
            for (from, target) in [("red-b", "10.0.0.3"), ("red-a", "fd00::3"), ("blue-b", "fd00::3")] {
                ping(&lab, from, target, 1)?;
                tries += 1;
            }
        }
        wire.set(Treatment::CUT);
        until("the Oracle has lost its sessions", || Ok(connected(&lab)? == 0))?;
        wire.set(BAD);
        until("they are back", || Ok(connected(&lab)? == 3))?;
    }
    wire.set(Treatment::NONE);
    let mut last = Vec::new();
    let same = clock::until(clock::CEILING, || {
        last = differences(&lab).unwrap_or_else(|error| vec![error.to_string()]);
        anyhow::Ok(last.is_empty().then_some(()))
    })?;
    ensure!(same.is_some(), "after {:?}: {last:#?}", clock::CEILING);
    let treated = wire.treated();
    let enough = treated.lost > 50 && treated.duplicated > 50 && treated.reordered > 50;
    ensure!(enough && tries == 12, "too little happened for this to mean anything: {treated:?}");
    for vn in ["red", "blue"] {
        for (from, to) in [("a", 2), ("a", 3), ("b", 1), ("b", 3), ("c", 1), ("c", 2)] {
            for target in [format!("10.0.0.{to}"), format!("fd00::{to}")] {
                ensure!(
                    ping(&lab, &format!("{vn}-{from}"), &target, 2)?.complete(),
                    "{vn}-{from} to {target}"
                );
            }
        }
    }
    ensure!(differences(&lab)?.is_empty(), "{:?}", differences(&lab)?);
    for stream in streams {
        let report = stream?.stop();
        ensure!(report.lost == 0 && report.duplicates == 0 && report.refused == 0, "{report:?}");
    }
    drop(wire);
    lab.down()
}
