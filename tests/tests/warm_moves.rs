//! Tenant systems that move as a hypervisor moves them: prepared where they go to before they stop where they are
//! (requirements V1 to V5, H2, H3, H5).

use anyhow::{Context as _, Result, ensure};
use weft_e2e::{GUEST_IPS, Guest, HOSTS, THREE_HOSTS, TestLab, ping};
use weft_lab::{
    Signal,
    capture::{Capture, Class, Discovery},
    clock,
    echo::Echoes,
};

/// Echo requests a second, and how many more are looked at after the first.
const RATE: u32 = 100;
const MORE: u64 = 20;

fn next(streams: &[Echoes]) -> Vec<u64> {
    streams.iter().map(Echoes::next).collect()
}

fn around(lab: &str) -> Result<()> {
    let mut lab = TestLab::up(lab)?;
    lab.settle()?;
    let asking = lab.node("red-a")?;
    let mut guest = Guest::boot(&mut lab, "h2")?;
    let capture = Capture::underlay(guest.lab, "warm")?;
    let streams = guest.asked_from(&asking, RATE)?;
    let answered_from = |numbers: &[u64], what: &str| -> Result<()> {
        for (stream, number) in streams.iter().zip(numbers) {
            let first = stream.first_answered(*number, MORE)?;
            ensure!(first == *number, "{what}: of requests from {number} on the first answered is {first}");
        }
        Ok(())
    };
    for (epoch, to) in (2..).zip(["h3", "h1", "h2"]) {
        let from = guest.at;
        guest.migrate(to, to != "h1")?;
        let numbers = next(&streams);
        answered_from(&numbers, &format!("{from} to {to}"))?;
        let owner = || {
            let tsis = guest.lab.json(&["get", "tsis"])?;
            let own = tsis
                .as_array()
                .into_iter()
                .flatten()
                .find(|tsi| tsi["name"] == "guest" || tsi["tsi"] == "guest");
            let own = own.with_context(|| format!("no guest in {tsis}"))?.clone();
            Ok::<_, anyhow::Error>((own["nve"] == to && own["epoch"] == epoch).then_some(own))
        };
        ensure!(clock::until(clock::CEILING, owner)?.is_some(), "{:?}", guest.lab.json(&["get", "tsis"])?);
        // Its new host has it, and nobody else.
        let wanted: Vec<Option<String>> =
            HOSTS.iter().map(|host| (*host == to).then(|| "activated".to_owned())).collect();
        guest.tsi(from, "de-associate", &[])?;
        ensure!(guest.states()? == wanted, "{:?}", guest.states()?);
    }
    let counts = capture.stop()?.counts();
    ensure!(counts.flooded() == 0, "{counts:?}");
    // Who is neither owner nor next is refused, with the owner named, and nothing changes.
    let refused = [
        ("associate", &["--device", "guest"][..], "granted to NVE 'h2'"),
        ("activate", &[], "not attached"),
        ("deactivate", &[], "not attached"),
    ];
    for (verb, more, why) in refused {
        let error = guest.tsi("h1", verb, more).err().with_context(|| format!("{verb} is not refused"))?;
        ensure!(format!("{error:#}").contains(why), "{error:#}");
    }
    said_and_changed(&guest)?;
    silently(&mut guest, "h1")?;
    let numbers = next(&streams);
    answered_from(&numbers, "silently to h1")?;
    announced(&mut guest, "flood", "h3")?;
    announced(&mut guest, "translate", "h2")?;
    lease_ends(&guest, guest.at)?;
    drop(guest);
    connected(&mut lab)?;
    lab.down()
}

/// What the hypervisors were told of these moves, and what one changes of a guest that is in service (requirements H4, H6
/// and H8).
fn said_and_changed(guest: &Guest<'_>) -> Result<()> {
    let is = |what: &'static str| move |event: &serde_json::Value| event["event"] == what;
    // It came to h3 and went on to h1, before it was stopped.
    let told = guest.told("h3", is("de_associated"))?;
    let last = told.last().context("an event")?;
    ensure!(last["cause"] == "moved" && last["moved_to_name"] == "h1", "{told:?}");
    let states: Vec<_> =
        told.iter().filter(|event| event["event"] != "updated").map(|e| &e["event"]).collect();
    ensure!(states == ["associated", "activated", "deactivated", "de_associated"], "{told:?}");
    // Others of its addresses, once however often it is asked for under the same id.
    let held = |ip: &str| -> Result<bool> {
        let tsis = guest.lab.json(&["get", "tsis"])?;
        let all = tsis.as_array().context("a list")?.iter().filter_map(|tsi| tsi["ips"].as_array());
        Ok(all.flatten().any(|held| held == ip))
    };
    for ip in ["10.0.0.78", "fd00::78"] {
        let (add, remove) = (["--add-ip", ip, "--request-id", ip], ["--remove-ip", ip]);
        let first = guest.tsi("h2", "update", &add)?;
        ensure!(first.contains(ip) && held(ip)?, "{first}");
        ensure!(!guest.tsi("h2", "update", &remove)?.contains(ip) && !held(ip)?, "{ip} is still its own");
        ensure!(guest.tsi("h2", "update", &add)? == first && !held(ip)?, "a second effect");
        let other = guest.tsi("h2", "deactivate", &["--request-id", ip]).err().context("is not refused")?;
        ensure!(format!("{other:#}").contains("is that of 'update red/guest'"), "{other:#}");
    }
    let taken = guest.tsi("h2", "update", &["--add-ip", "10.0.0.1"]).err().context("is not refused")?;
    ensure!(format!("{taken:#}").contains("10.0.0.1"), "{taken:#}");
    Ok(())
}

/// A host knows a VN before anything of it is there, also after its agent has died, until the VN is gone (requirements H1,
/// H5 and H6).
fn connected(lab: &mut TestLab) -> Result<()> {
    lab.weft(["vn", "create", "green", "--vni", "7117", "--subnet", "10.7.0.0/24"])?;
    for _ in 0..2 {
        let connected = at_h3(lab, "vn-connect", &["--vn", "green", "--request-id", "green"])?;
        ensure!(connected.contains("7117"), "{connected}");
    }
    let refused = at_h3(lab, "vn-connect", &["--vn", "grey"]).err().context("a VN that is not there")?;
    ensure!(format!("{refused:#}").contains("no VN 'grey'"), "{refused:#}");
    let refused = at_h3(lab, "vn-disconnect", &["--vn", "red"]).err().context("is not refused")?;
    ensure!(format!("{refused:#}").contains("is not connected"), "{refused:#}");
    lab.signal("h3", Signal::SIGKILL)?;
    lab.restart("h3")?;
    ensure!(at_h3(lab, "vn-list", &[])?.contains("green"), "it is forgotten");
    lab.weft(["vn", "delete", "green"])?;
    let mut after = 0;
    let told = || {
        let text = at_h3(lab, "events", &["--after", &after.to_string(), "--count", "1"])?;
        let mut gone = None;
        for line in text.lines() {
            let event: serde_json::Value = serde_json::from_str(line)?;
            after = event["number"].as_u64().context("a number")?;
            gone = gone.or((event["event"] == "vn_disconnected" && event["vn"] == "green").then_some(()));
        }
        Ok::<_, anyhow::Error>(gone)
    };
    ensure!(clock::until(clock::CEILING, told)?.is_some(), "h3 is not told");
    ensure!(!at_h3(lab, "vn-list", &[])?.contains("green"), "it is still connected");
    Ok(())
}

/// `weft tsi VERB` there, as JSON.
fn at_h3(lab: &TestLab, verb: &str, more: &[&str]) -> Result<String> {
    let socket = lab.files().socket("h3");
    let socket = socket.to_str().context("a path that is text")?;
    Ok(lab.weft_at("h3", [&["tsi", verb, "--socket", socket, "-o", "json"][..], more].concat())?)
}

/// Nobody says that it goes on where it moved to but its own first frame (requirement V11).
fn silently(guest: &mut Guest<'_>, to: &'static str) -> Result<()> {
    let from = guest.at;
    guest.migrate_silently(to)?;
    // What says so is lost.
    ping(guest.lab, "guest", "10.0.0.1", 2)?;
    guest.told(to, |event| event["event"] == "activated" && event["cause"] == "silent")?;
    guest.tsi(from, "de-associate", &[])?;
    Ok(())
}

/// Where a VN floods or translates, who has moved is announced to the two other hosts, twice (requirement V7).
fn announced(guest: &mut Guest<'_>, learning: &str, to: &'static str) -> Result<()> {
    let from = guest.at;
    guest.lab.weft(["vn", "set", "red", "--learning", learning])?;
    let capture = Capture::underlay(guest.lab, learning)?;
    guest.migrate(to, true)?;
    guest.tsi(from, "de-associate", &[])?;
    let said = || {
        GUEST_IPS.map(|ip| {
            capture.count(|frame| {
                let group = matches!(frame.class, Class::Vxlan { group: true, .. });
                let own = |d: Discovery| d.about.to_string() == ip && (d.answer || d.from == d.about);
                group && frame.discovery.is_some_and(own)
            })
        })
    };
    let twice = clock::until_true(clock::CEILING, || said() == [4, 4]);
    ensure!(twice, "{learning}: announced so often: {:?}", said());
    capture.stop()?;
    Ok(())
}

/// Nobody renews its lease (requirement H8).
fn lease_ends(guest: &Guest<'_>, host: &str) -> Result<()> {
    guest.tsi(host, "update", &["--lease", "1"])?;
    let told =
        guest.told(host, |event| event["cause"] == "lease_expired" && event["event"] == "de_associated")?;
    let states: Vec<_> = told.iter().rev().take(2).map(|event| &event["event"]).collect();
    ensure!(states == ["de_associated", "deactivated"], "{told:?}");
    let free = || {
        let tsis = guest.lab.json(&["get", "tsis"])?.to_string();
        Ok::<_, anyhow::Error>((!tsis.contains(GUEST_IPS[0])).then_some(()))
    };
    ensure!(clock::until(clock::CEILING, free)?.is_some(), "its addresses are not free");
    ensure!(guest.states()? == [None, None, None], "{:?}", guest.states()?);
    Ok(())
}

#[test]
fn v5_a_guest_that_is_prepared_first_answers_the_first_request_after_its_activation() -> Result<()> {
    around(THREE_HOSTS)
}

#[test]
fn v5_over_an_ipv6_underlay_too() -> Result<()> {
    around(&THREE_HOSTS.replace("ipv4: 192.0.2.0/24", "ipv6: \"2001:db8::/64\""))
}
