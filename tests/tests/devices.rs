//! A tenant system's device, whatever becomes of its name (requirements H1, A1).

use anyhow::{Result, ensure};
use weft_e2e::{Ping, THREE_HOSTS, TestLab, ping};
use weft_lab::{Signal, clock};

/// The names of the devices that a host's NVE shows, by interface.
fn devices(lab: &TestLab, host: &str) -> Result<Vec<(String, String)>> {
    let rows: serde_json::Value = serde_json::from_str(&lab.weft_at(host, ["tsi", "list", "-o", "json"])?)?;
    let text = |row: &serde_json::Value, field| row[field].as_str().unwrap_or_default().to_owned();
    let rows = rows.as_array().into_iter().flatten();
    Ok(rows.map(|row| (text(row, "tsi"), text(row, "device"))).collect())
}

fn run(lab: &TestLab, host: &str, line: &str) -> Result<()> {
    let done = lab.exec(host, &line.split(' ').collect::<Vec<_>>())?;
    ensure!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

/// Who makes a device of the name that a tenant's had gets nothing of it, nor does the tenant lose anything.
#[test]
fn h1_a_device_that_is_renamed_stays_its_tenants() -> Result<()> {
    let mut lab = TestLab::up(THREE_HOSTS)?;
    lab.settle()?;
    for line in ["ip link set red-a down", "ip link set red-a name other", "ip link set other up"] {
        run(&lab, "h1", line)?;
    }
    run(&lab, "h1", "ip tuntap add red-a mode tap")?;
    let own = ("red-a".to_owned(), "other".to_owned());
    let shown = || devices(&lab, "h1").is_ok_and(|all| all.contains(&own));
    ensure!(clock::until_true(clock::CEILING, shown), "{:?}", devices(&lab, "h1")?);
    for target in ["10.0.0.2", "fd00::2"] {
        let reached = || ping(&lab, "red-a", target, 2).is_ok_and(Ping::complete);
        ensure!(clock::until_true(clock::CEILING, reached), "{target}");
    }
    // It is anybody's.
    let attach = ["tsi", "attach", "--vn", "blue", "--name", "new", "--device", "red-a"];
    lab.weft_at("h1", attach)?;
    run(&lab, "h1", "ip link delete red-a")?;
    let gone = ("new".to_owned(), String::new());
    let noticed = || devices(&lab, "h1").is_ok_and(|all| all.contains(&gone) && all.contains(&own));
    ensure!(clock::until_true(clock::CEILING, noticed), "{:?}", devices(&lab, "h1")?);
    // Nor while no agent runs: two change names, of two VNs.
    lab.signal("h1", Signal::SIGKILL)?;
    for line in ["ip link set red-d name tmp", "ip link set blue-a name red-d", "ip link set tmp name blue-a"]
    {
        run(&lab, "h1", line)?;
    }
    lab.restart("h1")?;
    let wanted = [("red-d", "blue-a"), ("blue-a", "red-d"), ("red-a", "other")];
    let shown = || {
        let all = devices(&lab, "h1").unwrap_or_default();
        wanted
            .iter()
            .all(|(tsi, device)| all.iter().any(|(t, d)| (t.as_str(), d.as_str()) == (*tsi, *device)))
    };
    ensure!(clock::until_true(clock::CEILING, shown), "{:?}", devices(&lab, "h1")?);
    for (from, to) in
        [("red-d", "10.0.0.2"), ("red-d", "fd00::3"), ("blue-a", "10.0.0.2"), ("red-a", "10.0.0.4")]
    {
        let reached = || ping(&lab, from, to, 2).is_ok_and(Ping::complete);
        ensure!(clock::until_true(clock::CEILING, reached), "{from} to {to}");
    }
    lab.down()
}
