//! Two hosts that both have a tenant system, for a while: an operator says whose it is, and both are named
//! (requirement V10).

use anyhow::{Context as _, Result, ensure};
use weft_e2e::{Guest, HOSTS, THREE_HOSTS, TestLab, cut};
use weft_lab::clock;

/// Echo requests a second, and how many more are looked at after the first.
const RATE: u32 = 100;
const MORE: u64 = 20;

/// What the Oracle says of claims: of a tenant system or an address, by whom, and how often.
fn claims(lab: &TestLab) -> Result<Vec<(String, String, String)>> {
    let all = lab.json(&["get", "duplicates", "--vn", "red"])?;
    let text = |row: &serde_json::Value, field| row[field].as_str().unwrap_or("-").to_owned();
    let row = |row: &serde_json::Value| {
        let what = if row["address"].is_null() { text(row, "tsi") } else { row["address"].to_string() };
        (what, text(row, "holder_name"), text(row, "claimant_name"))
    };
    Ok(all.as_array().context("a list")?.iter().map(row).collect())
}

/// h2 is cut off from the Oracle with the guest Activated. It is taken over by h3, which Activates it; h2 goes on with
/// what it has until it hears of it. Whoever asks reaches the guest at h3, and in the end only h3 has it.
fn taken_over(yaml: &str) -> Result<()> {
    let mut lab = TestLab::up(yaml)?;
    lab.settle()?;
    let asking = lab.node("red-a")?;
    let guest = Guest::boot(&mut lab, "h2")?;
    let streams = guest.asked_from(&asking, RATE)?;
    // Another host may not simply take it, and both are named.
    let place = ["--device", "guest", "--ip", "10.0.0.77"];
    let refused = guest.tsi("h3", "attach", &place).err().context("h3 takes what is another's")?;
    ensure!(format!("{refused:#}").contains("granted to NVE 'h2'"), "{refused:#}");
    let named = ("guest".to_owned(), "h2".to_owned(), "h3".to_owned());
    ensure!(claims(guest.lab)? == [named.clone()], "{:?}", claims(guest.lab)?);

    let oracle = guest.lab.rloc("oracle")?;
    cut(guest.lab, ("h2", oracle), true)?;
    // That h2 is gone is not known yet.
    let move_it = ["tsi", "move", "--vn", "red", "--name", "guest", "--to", "h3", "--take-over"];
    let refused = guest.lab.weft(move_it).err().context("h2 is connected")?;
    ensure!(format!("{refused:#}").contains("granted to NVE 'h2', which is connected"), "{refused:#}");
    guest.lab.json(&[&move_it[..], &["--force"]].concat())?;
    guest.links.down("h2")?;
    guest.links.up("h3")?;
    guest.links.wait_running("h3")?;
    guest.tsi("h3", "attach", &place)?;
    for stream in &streams {
        let number = stream.next();
        let first = stream.first_answered(number, MORE)?;
        ensure!(first == number, "of requests from {number} on the first answered is {first}");
    }
    ensure!(guest.states()?[1].as_deref() == Some("activated"), "h2 has heard of it: {:?}", guest.states()?);
    cut(guest.lab, ("h2", oracle), false)?;
    let wanted: Vec<Option<String>> =
        HOSTS.iter().map(|host| (*host == "h3").then(|| "activated".to_owned())).collect();
    let one = clock::until(clock::CEILING, || {
        let states: Vec<Option<String>> =
            guest.states()?.into_iter().map(|state| state.filter(|state| state == "activated")).collect();
        Ok::<_, anyhow::Error>((states == wanted).then_some(()))
    })?;
    ensure!(one.is_some(), "{:?}", guest.states()?);
    ensure!(claims(guest.lab)?.contains(&named), "{:?}", claims(guest.lab)?);
    // Who tries it there is told where it is.
    let wanted = "red/guest is out of service here: granted to NVE 'h3' (epoch 2); use it there";
    for call in ["activate", "deactivate"] {
        let refused = guest.tsi("h2", call, &[]).err().context("h2 does without a grant")?;
        ensure!(format!("{refused:#}").contains(wanted), "{refused:#}");
    }
    let listed = guest.lab.weft_at("h2", ["tsi", "list"])?;
    ensure!(listed.contains("lost") && listed.contains("granted to NVE 'h3' (epoch 2)"), "{listed}");
    drop(guest);
    lab.down()
}

/// What a host that is connected has is not freed under it but by force. Then it says so, until it is attached anew.
#[test]
fn v10_what_is_in_service_is_released_by_force_only() -> Result<()> {
    let lab = TestLab::up(THREE_HOSTS)?;
    lab.settle()?;
    let release = ["tsi", "release", "--vn", "red", "--name", "red-a"];
    let refused = lab.weft(release).err().context("it is in service")?;
    ensure!(format!("{refused:#}").contains("granted to NVE 'h1', which is connected"), "{refused:#}");
    ensure!(lab.weft_at("h1", ["tsi", "list"])?.contains("activated"));
    lab.weft([&release[..], &["--force"]].concat())?;
    let which = ["--vn", "red", "--name", "red-a"];
    let told =
        || lab.weft_at("h1", ["tsi", "list"]).is_ok_and(|list| list.contains("released: nobody holds it"));
    ensure!(clock::until_true(clock::CEILING, told), "{}", lab.weft_at("h1", ["tsi", "list"])?);
    let refused =
        lab.weft_at("h1", [&["tsi", "activate"][..], &which].concat()).err().context("nobody holds it")?;
    let wanted =
        "red/red-a is out of service here: released: nobody holds it; attach it anew, or detach it here";
    ensure!(format!("{refused:#}").contains(wanted), "{refused:#}");
    lab.weft_at("h1", [&["tsi", "attach"][..], &which, &["--device", "red-a"]].concat())?;
    let list = lab.weft_at("h1", ["tsi", "list"])?;
    ensure!(list.contains("activated") && !list.contains("released"), "{list}");
    lab.down()
}

#[test]
fn v10_an_operator_says_whose_it_is() -> Result<()> {
    taken_over(THREE_HOSTS)
}

#[test]
fn v10_over_an_ipv6_underlay_too() -> Result<()> {
    taken_over(&THREE_HOSTS.replace("ipv4: 192.0.2.0/24", "ipv6: \"2001:db8::/64\""))
}
