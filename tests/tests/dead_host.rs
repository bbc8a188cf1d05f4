//! A host that dies is withdrawn; an agent that dies is not (requirement N10).

use anyhow::{Context as _, Result, ensure};
use weft_e2e::{THREE_HOSTS, TestLab, ping};
use weft_lab::{Links, Signal, clock};

/// What the Oracle has registered of `host`, without what it only expects from grants.
fn registered(lab: &TestLab, host: &str) -> Result<usize> {
    let all = lab.json(&["get", "mappings"])?;
    let of = all.as_array().context("a list")?.iter();
    Ok(of.filter(|row| row["nve"] == host && row["origin"] == "registration").count())
}

/// MAC addresses that `host`'s data plane knows.
fn known(lab: &TestLab, host: &str) -> Result<u64> {
    let socket = lab.files().socket(host);
    let socket = socket.to_str().context("a path that is text")?;
    let text = lab.weft_at(host, ["get", "tables", "--socket", socket, "-o", "json"])?;
    let all: Vec<serde_json::Value> = serde_json::from_str(&text)?;
    let fdb = all.iter().find(|one| one["table"] == "fdb").context("no fdb")?;
    fdb["entries"].as_u64().context("a count")
}

#[test]
fn n10_a_dead_host_is_withdrawn_and_told_of_a_dead_agent_is_not() -> Result<()> {
    let mut lab = TestLab::up(THREE_HOSTS)?;
    lab.settle()?;
    for target in ["10.0.0.2", "fd00::2", "10.0.0.3", "fd00::3"] {
        ensure!(ping(&lab, "red-a", target, 1)?.complete(), "{target}");
    }
    let before = known(&lab, "h1")?;
    let (h2, h3) = (registered(&lab, "h2")?, registered(&lab, "h3")?);
    ensure!(h2 > 0 && h3 > 0);
    lab.signal("h3", Signal::SIGKILL)?;
    Links::open(&lab.node("h2")?)?.down("eth0")?;
    let died = clock::now();
    let mut last = Ok(before);
    let told = clock::until_true(clock::CEILING, || {
        last = known(&lab, "h1");
        last.as_ref().is_ok_and(|now| *now == before - 1)
    });
    ensure!(told, "h1 still knows red-b: {last:?} of {before}");
    eprintln!("withdrawn and told of after {:?}", died.elapsed());
    ensure!(registered(&lab, "h2")? == 0, "{}", registered(&lab, "h2")?);
    ensure!(registered(&lab, "h3")? == h3, "its data path lives");
    ensure!(ping(&lab, "red-a", "10.0.0.3", 2)?.complete() && ping(&lab, "red-a", "fd00::3", 2)?.complete());
    // It comes back by itself.
    Links::open(&lab.node("h2")?)?.up("eth0")?;
    let back = clock::until_true(clock::CEILING, || registered(&lab, "h2").is_ok_and(|now| now == h2));
    ensure!(back, "h2 has not come back");
    ensure!(ping(&lab, "red-a", "10.0.0.2", 2)?.complete() && ping(&lab, "red-a", "fd00::2", 2)?.complete());
    lab.down()
}
