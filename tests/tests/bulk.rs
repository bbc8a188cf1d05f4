//! Many tenant systems at once, held by an NVE that has no data plane.

use anyhow::{Context as _, Result, ensure};
use weft_e2e::{TestLab, ping};
use weft_lab::clock;
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
