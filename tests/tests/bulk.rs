//! Many tenant systems at once, held by an NVE that has no data plane.

use anyhow::{Context as _, Result, anyhow, ensure};
use std::collections::BTreeSet;
use weft_e2e::{TestLab, ping};
use weft_lab::{Signal, clock};
use weft_load::{Load, Registering};

/// Two hosts with NVEs and one that registers what it is told.
const LAB: &str = r#"
name: bulk
underlay:
  ipv4: 192.0.2.0/24
oracles:
  oracle: {}
hosts:
  h1: {}
  h2: {}
  h3: { nve: false }
vns:
  red:
    subnets: [10.0.0.0/16, "fd00::/64"]
tenants:
  red-a: { host: h1, vn: red }
  red-b: { host: h2, vn: red }
"#;

const MANY: usize = 2_000;

/// Mappings of the Oracle that a registration stands behind.
fn registered(lab: &TestLab) -> Result<usize> {
    let all = lab.json(&["get", "mappings"])?;
    let all = all.as_array().context("a list")?;
    Ok(all.iter().filter(|mapping| mapping["origin"] == "registration").count())
}

#[test]
fn m1_thousands_are_registered_withdrawn_and_harm_nobody() -> Result<()> {
    let lab = TestLab::up(LAB)?;
    lab.settle()?;
    let before = registered(&lab)?;
    let mut load = Load::join(&lab, "h3")?;
    let begun = clock::now();
    load.grant("red", "load", MANY)?;
    eprintln!("granted in {:?}", begun.elapsed());
    let took = load.register(0..MANY, Registering::Activated)?;
    eprintln!("registered in {took:?}");
    // A MAC and one address of each family.
    ensure!(registered(&lab)? == before + 3 * MANY, "{before} and {}", registered(&lab)?);
    let red_b = lab.tenant("red-b")?.ips.clone();
    for ip in &red_b {
        ensure!(ping(&lab, "red-a", &ip.addr().to_string(), 2)?.complete(), "{ip}");
    }
    load.register(MANY / 2..MANY, Registering::Withdrawn)?;
    ensure!(registered(&lab)? == before + 3 * MANY / 2);
    lab.down()
}

/// A host whose tables have all of the VN, and one that registers.
const PUSHED: &str = r#"
name: pushed
underlay: { ipv4: 192.0.2.0/24 }
oracles: { oracle: {} }
hosts: { h2: {}, h3: { nve: false } }
vns: { red: { subnets: [], learning: distribute } }
tenants: { red-b: { host: h2, vn: red, ips: [] } }
"#;

const PUSHED_MANY: usize = 20_000;
const FEW: usize = 20;

/// How many MAC locations h2's data plane holds.
fn locations(lab: &TestLab) -> Result<usize> {
    let socket = lab.files().socket("h2");
    let socket = socket.to_str().context("a path that is text")?;
    let text = lab.weft_at("h2", ["get", "tables", "--socket", socket, "-o", "json"])?;
    let all: serde_json::Value = serde_json::from_str(&text)?;
    let fdb = all.as_array().into_iter().flatten().find(|table| table["table"] == "fdb");
    let entries = fdb.and_then(|fdb| fdb["entries"].as_u64()).context("no fdb")?;
    Ok(usize::try_from(entries)?)
}

fn until_locations(lab: &TestLab, wanted: usize) -> Result<()> {
    let seen = clock::until(clock::CEILING, || {
        // An agent that is just starting does not answer yet.
        Ok::<_, anyhow::Error>(locations(lab).is_ok_and(|there| there == wanted).then_some(()))
    })?;
    ensure!(seen.is_some(), "{} locations, not {wanted}", locations(lab)?);
    Ok(())
}

/// Requirements M3, N7.
#[test]
fn m3_thousands_are_pushed_and_what_an_agent_missed_is_mended() -> Result<()> {
    let mut lab = TestLab::up(PUSHED)?;
    let own = locations(&lab)?;
    let mut load = Load::join(&lab, "h3")?;
    load.grant("red", "m", PUSHED_MANY)?;
    load.register(0..PUSHED_MANY, Registering::Activated)?;
    until_locations(&lab, own + PUSHED_MANY)?;
    // All tables stay when the agent dies; what it misses meanwhile it hears of when it is back.
    lab.signal("h2", Signal::SIGKILL)?;
    load.register(0..PUSHED_MANY / 2, Registering::Withdrawn)?;
    lab.restart("h2")?;
    until_locations(&lab, own + PUSHED_MANY / 2)?;
    // And in the middle of it.
    load.register(0..PUSHED_MANY / 4, Registering::Activated)?;
    lab.signal("h2", Signal::SIGKILL)?;
    load.register(PUSHED_MANY / 4..PUSHED_MANY / 2, Registering::Activated)?;
    lab.restart("h2")?;
    until_locations(&lab, own + PUSHED_MANY)?;
    lab.down()
}

/// The MAC addresses that one side knows to be at h3.
fn at_h3(lab: &TestLab, side: &[&str]) -> Result<BTreeSet<String>> {
    let all = lab.json(&[&["get", "mappings"], side].concat())?;
    let h3 = all.as_array().context("a list")?.iter().filter(|row| row["nve"] == "h3");
    Ok(h3.filter_map(|row| row["eid"]["mac"].as_str()).map(str::to_owned).collect())
}

/// Requirements M3, N7.
#[test]
fn m3_an_oracle_that_dies_in_the_middle_of_a_push_pushes_all_of_it_in_the_end() -> Result<()> {
    let mut lab = TestLab::up(PUSHED)?;
    let own = locations(&lab)?;
    let mut load = Load::join(&lab, "h3")?;
    load.grant("red", "m", PUSHED_MANY)?;
    load.register(0..PUSHED_MANY, Registering::Activated)?;
    until_locations(&lab, own + PUSHED_MANY)?;
    let half_way = std::thread::scope(|scope| {
        let load = &load;
        // Few at a time: all of it is to last for longer than it takes to look.
        let few = (0..PUSHED_MANY).step_by(FEW).map(|first| first..first + FEW);
        let withdrawing = scope.spawn(move || {
            few.map(|few| load.register(few, Registering::Withdrawn)).take_while(Result::is_ok).count()
        });
        let begun = clock::until(clock::CEILING, || {
            Ok::<_, anyhow::Error>(Some(locations(&lab)?).filter(|there| *there < own + PUSHED_MANY))
        });
        lab.signal("oracle", Signal::SIGKILL)?;
        begun?.context("nothing is withdrawn")?;
        let calls = withdrawing.join().map_err(|_| anyhow!("the load panicked"))?;
        ensure!(calls < PUSHED_MANY / FEW, "all was withdrawn before the Oracle died");
        locations(&lab)
    })?;
    ensure!(half_way > own && half_way < own + PUSHED_MANY, "{half_way} locations, {own} of its own");
    lab.restart("oracle")?;
    load.reconnect()?;
    load.register(0..PUSHED_MANY, Registering::Activated)?;
    load.register(PUSHED_MANY / 2..PUSHED_MANY, Registering::Withdrawn)?;
    until_locations(&lab, own + PUSHED_MANY / 2)?;
    let (here, there) = (at_h3(&lab, &["--nve", "h2"])?, at_h3(&lab, &[])?);
    let registered: BTreeSet<String> =
        (0..PUSHED_MANY / 2).map(|n| Ok(load.mac(n)?.to_string())).collect::<Result<_>>()?;
    ensure!(here == registered, "{} at h2, {} registered", here.len(), registered.len());
    ensure!(there.is_superset(&registered), "{} at the Oracle", there.len());
    lab.down()
}
