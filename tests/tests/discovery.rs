//! What hosts do with their neighbours beside asking for them: making sure that they are still
//! there, and that nobody has the same address, between real kernels on different hosts.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::net::IpAddr;
use weft_e2e::{THREE_HOSTS, TestLab, ping};
use weft_lab::{
    AddressFlags, Links,
    capture::{Capture, Class, Kind},
    clock,
};

/// The state of `tenant`'s neighbour entry for `ip`: `STALE`, `PROBE`, `REACHABLE`.
fn neighbour_state(lab: &TestLab, tenant: &str, ip: &str) -> Result<String> {
    let shown = lab.exec(tenant, &["ip", "-j", "neigh", "show", "to", ip, "dev", "eth0"])?;
    let entries: Value = serde_json::from_slice(&shown.stdout)?;
    Ok(entries[0]["state"][0].as_str().unwrap_or("none").to_owned())
}

/// A neighbour entry ages and is used: the kernel asks its owner, by unicast, whether it is still
/// there (RFC 1122 section 2.3.2.1, RFC 4861 section 7.3). That question and its answer cross the overlay.
fn aged_entry_is_confirmed_by_its_owner(lab: &TestLab, ip: &str, question: Kind, answer: Kind) -> Result<()> {
    let asking = lab.node("red-a")?;
    for family in ["ipv4", "ipv6"] {
        // From the first use of a stale entry to the probe: 5 s by default.
        asking.sysctl(&format!("net/{family}/neigh/eth0/delay_first_probe_time"), "1")?;
    }
    ensure!(ping(lab, "red-a", ip, 2)?.complete());
    let (asker, owner) = (lab.tenant("red-a")?.mac, lab.tenant("red-b")?.mac);
    let capture = Capture::underlay(lab, "aged")?;
    let at_owner = Capture::start(&lab.node("red-b")?, "eth0", &lab.files().run.join(format!("{ip}.pcap")))?;
    let mac = owner.to_string();
    let aged =
        lab.exec("red-a", &["ip", "neigh", "change", ip, "lladdr", &mac, "dev", "eth0", "nud", "stale"])?;
    ensure!(aged.status.success(), "{}", String::from_utf8_lossy(&aged.stderr));
    ensure!(neighbour_state(lab, "red-a", ip)? == "STALE");
    // One request a run: later ones of the same run would tell the kernel that the neighbour is there.
    let confirmed = clock::until(clock::CEILING, || -> Result<Option<()>> {
        ensure!(ping(lab, "red-a", ip, 1)?.complete());
        Ok((neighbour_state(lab, "red-a", ip)? == "REACHABLE").then_some(()))
    })?;
    ensure!(confirmed.is_some(), "it stayed {}", neighbour_state(lab, "red-a", ip)?);

    let captured = capture.stop()?;
    let crossed = |what: Kind, inner, from: IpAddr, to: IpAddr| {
        let is = |frame: &&weft_lab::capture::Frame| {
            matches!(frame.class, Class::Vxlan { group: false, inner, .. } if inner == what)
                && frame.inner == Some(inner)
                && (frame.from, frame.to) == (Some(from), Some(to))
        };
        captured.frames.iter().filter(is).count()
    };
    let (h1, h2) = (lab.rloc("h1")?, lab.rloc("h2")?);
    let counts = captured.counts();
    ensure!(crossed(question, (asker, owner), h1, h2) >= 1, "the question did not cross: {counts:?}");
    ensure!(crossed(answer, (owner, asker), h2, h1) >= 1, "the answer did not cross: {counts:?}");
    ensure!(counts.unicast_discovery() >= 2 && counts.flooded() == 0, "{counts:?}");
    let seen = at_owner.stop()?.counts();
    for what in [question, answer] {
        ensure!(seen.sum(|class| *class == Class::Underlay(what)) >= 1, "{what:?} at the owner: {seen:?}");
    }
    Ok(())
}

#[test]
fn an_aged_neighbour_is_asked_by_unicast() -> Result<()> {
    let lab = TestLab::up(THREE_HOSTS)?;
    lab.settle()?;
    aged_entry_is_confirmed_by_its_owner(&lab, "10.0.0.2", Kind::Arp, Kind::Arp)?;
    let (question, answer) = (Kind::NeighbourSolicitation, Kind::NeighbourAdvertisement);
    aged_entry_is_confirmed_by_its_owner(&lab, "fd00::2", question, answer)?;
    lab.down()
}

/// Gives `tenant` the address `ip` and says whether its detection (RFC 4862 section 5.4) found it taken.
fn detects_duplicate(lab: &TestLab, tenant: &str, ip: &str) -> Result<bool> {
    let links = Links::open(&lab.node(tenant)?)?;
    let address: IpAddr = ip.parse()?;
    links.add_address("eth0", format!("{ip}/64").parse()?, AddressFlags::Detect)?;
    let state = clock::until(clock::CEILING, || {
        links.addresses("eth0").map(|all| all.into_iter().find(|a| a.address == address && !a.tentative))
    })?;
    Ok(state.with_context(|| format!("detection of {ip} at {tenant} never ended"))?.duplicate)
}

/// Two tenant systems on different hosts choose the same link-local address: the second fails its
/// DAD, and so does a third on the first one's host. In another VN the address is free.
#[test]
fn the_second_with_a_link_local_address_fails_its_dad() -> Result<()> {
    let lab = TestLab::up(THREE_HOSTS)?;
    lab.settle()?;
    let capture = Capture::underlay(&lab, "link-local")?;
    ensure!(!detects_duplicate(&lab, "red-a", "fe80::77")?, "the first may have it");
    ensure!(detects_duplicate(&lab, "red-b", "fe80::77")?, "the second, on another host");
    ensure!(detects_duplicate(&lab, "red-d", "fe80::77")?, "the third, on the first one's host");
    ensure!(!detects_duplicate(&lab, "blue-b", "fe80::77")?, "another VN has nothing to do with it");
    // The first keeps it: it is reached there.
    ensure!(ping(&lab, "red-c", "fe80::77%eth0", 2)?.complete());
    let counts = capture.stop()?.counts();
    ensure!(counts.flooded() == 0, "{counts:?}");
    lab.down()
}
