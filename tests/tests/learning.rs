//! The ways of learning where a MAC address is, each on the lab: who is asked, who answers, what crosses
//! the underlay, what stands in the tables.

use anyhow::{Context as _, Result, ensure};
use std::net::IpAddr;
use weft_e2e::{THREE_HOSTS, TestLab, ping};
use weft_lab::{
    Links, TenantSpec,
    capture::{Capture, Captured, Class, Kind},
    clock,
    probe::Stream,
};
use weft_model::MacAddr;

/// The underlays of the lab.
const UNDERLAYS: [&str; 2] = ["ipv4: 192.0.2.0/24", "ipv6: \"2001:db8::/64\""];

/// The example with a VN red of these settings.
fn three_hosts(underlay: &str, settings: &[(&str, &str)]) -> String {
    let lines: String = settings.iter().map(|(name, value)| format!("    {name}: {value}\n")).collect();
    let yaml = THREE_HOSTS.replace(UNDERLAYS[0], underlay);
    // Red comes first.
    yaml.replacen("    learning: oracle\n", &lines, 1)
}

/// Every pair of red over both families: all answered.
fn all_pairs(lab: &TestLab) -> Result<()> {
    let spec = &lab.record().spec;
    let red = || spec.tenants.iter().filter(|(_, what)| what.vn == "red").map(|(name, _)| name.as_str());
    for one in red() {
        for other in red().filter(|other| *other != one) {
            for ip in &lab.tenant(other)?.ips {
                let pinged = ping(lab, one, &ip.addr().to_string(), 2)?;
                ensure!(pinged.complete(), "{one} to {other} at {}: {pinged:?}", ip.addr());
            }
        }
    }
    Ok(())
}

/// The LISP datagrams on the underlay, each from and to whom.
fn lisp(captured: &Captured) -> Vec<(IpAddr, IpAddr)> {
    let lisp = captured.frames.iter().filter(|frame| frame.class == Class::LispUdp);
    lisp.filter_map(|frame| Some((frame.from?, frame.to?))).collect()
}

/// Requirements N5, Lc: the Oracle passes the question on to the destination's NVE, and that answers the one
/// that asked.
fn forward(underlay: &str) -> Result<()> {
    let lab = TestLab::up(&three_hosts(underlay, &[("learning", "oracle"), ("reply", "forward")]))?;
    lab.settle()?;
    let (h1, h2) = (lab.rloc("h1")?, lab.rloc("h2")?);
    for target in ["10.0.0.2", "fd00::2"] {
        let capture = Capture::underlay(&lab, "forward")?;
        ensure!(ping(&lab, "red-a", target, 2)?.complete(), "{target}");
        let captured = capture.stop()?;
        let seen = lisp(&captured);
        let oracle = seen.first().context("nobody was asked")?.1;
        ensure!(
            oracle != h2 && seen.starts_with(&[(h1, oracle), (oracle, h2), (h2, h1)]),
            "{target}: {seen:?}"
        );
        // The destination's NVE asks who it is that its tenant system is about to talk to (M5).
        let back = [(h2, oracle), (oracle, h1), (h1, h2)];
        ensure!(seen.len() == 6 && back.iter().all(|one| seen.contains(one)), "{target}: {seen:?}");
    }
    let capture = Capture::underlay(&lab, "pairs")?;
    all_pairs(&lab)?;
    ensure!(ping(&lab, "red-a", "10.0.0.99", 1)?.nothing() && ping(&lab, "red-a", "fd00::99", 1)?.nothing());
    let counts = capture.stop()?.counts();
    ensure!(counts.flooded() == 0, "{counts:?}");
    lab.down()
}

#[test]
fn n5_the_destinations_nve_answers_over_an_ipv4_underlay() -> Result<()> {
    forward(UNDERLAYS[0])
}

#[test]
fn n5_the_destinations_nve_answers_over_an_ipv6_underlay() -> Result<()> {
    forward(UNDERLAYS[1])
}

/// What each table of an NVE's data plane holds is to be seen.
#[test]
fn lc_tables_hold_what_is_talked_to_and_no_more() -> Result<()> {
    let lab = TestLab::up(THREE_HOSTS)?;
    lab.settle()?;
    ensure!(entries(&lab, "h1", "fdb")? == 3, "red-a, red-d and blue-a are attached there");
    ensure!(ping(&lab, "red-a", "10.0.0.2", 1)?.complete());
    ensure!((entries(&lab, "h1", "fdb")?, entries(&lab, "h2", "fdb")?) == (4, 3));
    // Each of the three here, and red-b by one of its addresses.
    ensure!(entries(&lab, "h1", "neighbours")? == entries(&lab, "h3", "neighbours")? * 3 + 1);
    lab.down()
}

/// How many entries a table of `host`'s data plane has.
fn entries(lab: &TestLab, host: &str, table: &str) -> Result<u64> {
    let socket = lab.files().socket(host);
    let socket = socket.to_str().context("a path that is text")?;
    let text = lab.weft_at(host, ["get", "tables", "--socket", socket, "-o", "json"])?;
    let all: Vec<serde_json::Value> = serde_json::from_str(&text)?;
    let found =
        all.iter().find(|one| one["table"] == table).with_context(|| format!("no {table}: {text}"))?;
    ensure!(found["bytes"].as_u64() > Some(0) && found["room"].as_u64() > Some(0), "{found}");
    found["entries"].as_u64().with_context(|| format!("{found}"))
}

/// Group frames of ARP and Neighbor Solicitations inside VXLAN.
fn asked_of_everybody(captured: &Captured) -> usize {
    captured.counts().sum(|class| {
        matches!(class, Class::Vxlan { group: true, inner: Kind::Arp | Kind::NeighbourSolicitation, .. })
    })
}

/// Requirement La: who is asked for is asked of every member, and what answers is learned.
fn flood(underlay: &str) -> Result<()> {
    let lab = TestLab::up(&three_hosts(underlay, &[("learning", "flood")]))?;
    lab.settle()?;
    for target in ["10.0.0.2", "fd00::2"] {
        let capture = Capture::underlay(&lab, "flood")?;
        ensure!(ping(&lab, "red-a", target, 2)?.complete(), "{target}");
        let captured = capture.stop()?;
        // As many as there are other members: h2 and h3.
        ensure!(asked_of_everybody(&captured) == 2, "{target}: {:?}", captured.counts());
        ensure!(lisp(&captured).is_empty(), "nobody asks the Oracle: {:?}", captured.counts());
        let again = Capture::underlay(&lab, "again")?;
        ensure!(ping(&lab, "red-a", target, 2)?.complete(), "{target}");
        ensure!(asked_of_everybody(&again.stop()?) == 0);
    }
    all_pairs(&lab)?;
    // Isolation: the other VN has the same addresses and another mode.
    ensure!(ping(&lab, "blue-a", "10.0.0.3", 1)?.nothing() && ping(&lab, "blue-a", "fd00::3", 1)?.nothing());
    ensure!(entries(&lab, "h3", "learned")? >= 3, "red-a, red-b and red-d talked to red-c");
    lab.down()
}

#[test]
fn la_flood_and_learn_over_an_ipv4_underlay() -> Result<()> {
    flood(UNDERLAYS[0])
}

#[test]
fn la_flood_and_learn_over_an_ipv6_underlay() -> Result<()> {
    flood(UNDERLAYS[1])
}

/// A VN's mode changes under traffic, and back: nothing is lost.
fn switched(modes: &[&str]) -> Result<()> {
    let lab = TestLab::up(THREE_HOSTS)?;
    lab.settle()?;
    // Over both families, one each way.
    let stream = |from: &str, to: &str, target: &str| -> Result<Stream> {
        let stream = Stream::start(&lab.node(from)?, &lab.node(to)?, target.parse()?, 1_000)?;
        stream.wait_first()?;
        Ok(stream)
    };
    let streams = [stream("red-a", "red-b", "10.0.0.2")?, stream("red-b", "red-a", "fd00::1")?];
    for mode in modes {
        lab.weft(["vn", "set", "red", "--learning", mode])?;
        for stream in &streams {
            stream.wait_sent(stream.sent() + 2_000, clock::CEILING)?;
        }
        // New pairs too, by the new way.
        lab.exec("red-c", &["ip", "neigh", "flush", "all"])?;
        ensure!(
            ping(&lab, "red-c", "10.0.0.1", 2)?.complete() && ping(&lab, "red-c", "fd00::1", 2)?.complete(),
            "{mode}"
        );
    }
    for stream in streams {
        let report = stream.stop();
        ensure!(report.lost == 0 && report.duplicates == 0, "{report:?}");
    }
    lab.down()
}

#[test]
fn l_a_live_vn_changes_to_flood_and_back_without_loss() -> Result<()> {
    switched(&["flood", "oracle"])
}

/// Waits until a table of a host has so many entries.
fn until_entries(lab: &TestLab, host: &str, table: &str, wanted: u64) -> Result<()> {
    let has = || entries(lab, host, table).is_ok_and(|now| now == wanted);
    ensure!(clock::until_true(clock::CEILING, has), "{host} has {} in {table}", entries(lab, host, table)?);
    Ok(())
}

/// Requirements M3, Ld: the whole VN is on every host before anybody asks.
fn distribute(underlay: &str) -> Result<()> {
    let mut lab = TestLab::up(&three_hosts(underlay, &[("learning", "distribute")]))?;
    lab.settle()?;
    // Red's four on each of its hosts; blue's where they are.
    for (host, wanted) in [("h1", 5), ("h2", 5), ("h3", 4)] {
        until_entries(&lab, host, "fdb", wanted)?;
    }
    let capture = Capture::underlay(&lab, "distribute")?;
    all_pairs(&lab)?;
    let captured = capture.stop()?;
    ensure!(captured.counts().flooded() == 0, "{:?}", captured.counts());
    ensure!(lisp(&captured).is_empty(), "nobody has to ask: {:?}", lisp(&captured));
    // An address that nobody has: the VN's anycast MAC, and silence behind it.
    let links = Links::open(&lab.node("red-a")?)?;
    let vni = lab
        .json(&["get", "vns"])?
        .as_array()
        .context("a list")?
        .iter()
        .find(|vn| vn["name"] == "red")
        .cloned();
    let vni = vni.and_then(|vn| u32::try_from(vn["vni"].as_u64()?).ok()).context("red has a VNI")?;
    let anycast = MacAddr::anycast(vni.try_into()?);
    let what = TenantSpec {
        host: "h3".parse()?,
        vn: "red".to_owned(),
        ips: vec!["10.0.0.9".parse()?, "fd00::9".parse()?],
        mac: None,
        device: weft_lab::DeviceKind::Veth,
    };
    for target in ["10.0.0.9", "fd00::9"] {
        ensure!(ping(&lab, "red-a", target, 1)?.nothing());
        ensure!(links.neighbour("eth0", target.parse()?)? == Some(anycast), "{target}");
    }
    // Somebody has it: who was told the stand-in is told the owner.
    let owner = lab.attach("red-e", &what)?.mac;
    for target in ["10.0.0.9", "fd00::9"] {
        let target: IpAddr = target.parse()?;
        let healed = || links.neighbour("eth0", target).is_ok_and(|mac| mac == Some(owner));
        ensure!(
            clock::until_true(clock::CEILING, healed),
            "{target}: {:?}",
            links.neighbour("eth0", target)?
        );
    }
    lab.settle()?;
    ensure!(ping(&lab, "red-a", "10.0.0.9", 2)?.complete() && ping(&lab, "red-a", "fd00::9", 2)?.complete());
    // The last of red leaves h3: nothing of it stays there.
    lab.detach("red-e")?;
    lab.detach("red-c")?;
    until_entries(&lab, "h3", "fdb", 0)?;
    until_entries(&lab, "h1", "fdb", 4)?;
    lab.down()
}

#[test]
fn ld_the_table_is_pushed_over_an_ipv4_underlay() -> Result<()> {
    distribute(UNDERLAYS[0])
}

#[test]
fn ld_the_table_is_pushed_over_an_ipv6_underlay() -> Result<()> {
    distribute(UNDERLAYS[1])
}

/// Requirement Lb: each NVE puts its own MAC in the place of its tenants'.
fn translate(underlay: &str) -> Result<()> {
    let lab = TestLab::up(&three_hosts(underlay, &[("learning", "translate")]))?;
    lab.settle()?;
    let links = Links::open(&lab.node("red-a")?)?;
    for target in ["10.0.0.2", "fd00::2"] {
        let capture = Capture::underlay(&lab, "translate")?;
        ensure!(ping(&lab, "red-a", target, 2)?.complete(), "{target}");
        let captured = capture.stop()?;
        ensure!(asked_of_everybody(&captured) == 2, "{target}: {:?}", captured.counts());
        let mac = links.neighbour("eth0", target.parse()?)?.context("known")?;
        ensure!(mac.is_reserved() && mac != lab.tenant("red-b")?.mac, "the NVE's, not red-b's: {mac}");
        // No tenant's own MAC crosses the underlay.
        let own: Vec<MacAddr> = ["red-a", "red-b", "red-c", "red-d"]
            .iter()
            .map(|ts| lab.tenant(ts).map(|ts| ts.mac))
            .collect::<Result<_, _>>()?;
        let crossed =
            captured.frames.iter().filter_map(|frame| frame.inner).find(|(from, _)| own.contains(from));
        ensure!(crossed.is_none(), "{crossed:?}");
    }
    all_pairs(&lab)?;
    // MAC tables: the tenants here, and NVEs.
    for (host, here) in [("h1", 3), ("h2", 2), ("h3", 1)] {
        ensure!(entries(&lab, host, "fdb")? == here, "{host}: {}", entries(&lab, host, "fdb")?);
        ensure!(entries(&lab, host, "learned")? == 2, "{host}: {}", entries(&lab, host, "learned")?);
    }
    lab.down()
}

#[test]
fn lb_addresses_are_translated_over_an_ipv4_underlay() -> Result<()> {
    translate(UNDERLAYS[0])
}

#[test]
fn lb_addresses_are_translated_over_an_ipv6_underlay() -> Result<()> {
    translate(UNDERLAYS[1])
}

#[test]
fn l_a_live_vn_changes_to_pushing_and_back_without_loss() -> Result<()> {
    switched(&["distribute", "oracle"])
}
