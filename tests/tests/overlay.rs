//! The overlay end to end: the real binary in three hosts' namespaces, seen from the tenants and
//! from the wire between the hosts.

use anyhow::{Context as _, Result, ensure};
use std::net::IpAddr;
use weft_e2e::{THREE_HOSTS, TestLab, ping, transfer};
use weft_lab::{
    Links, Signal, TenantSpec,
    capture::{Capture, Class, Kind},
    clock,
    probe::Stream,
};

/// Every pair of one VN, both ways, over both families; nothing flooded.
fn all_pairs(lab: &TestLab) -> Result<()> {
    let capture = Capture::underlay(lab, "pairs")?;
    let spec = &lab.record().spec;
    for (one, what) in &spec.tenants {
        for (other, _) in spec.tenants.iter().filter(|(other, to)| *other != one && to.vn == what.vn) {
            for ip in &lab.tenant(other.as_str())?.ips {
                let pinged = ping(lab, one.as_str(), &ip.addr().to_string(), 2)?;
                ensure!(pinged.complete(), "{one} to {other} at {}: {pinged:?}", ip.addr());
            }
        }
    }
    let captured = capture.stop()?;
    let counts = captured.counts();
    ensure!(counts.vxlan() > 0 && counts.lisp() > 0, "{counts:?}");
    ensure!(counts.flooded() == 0, "{counts:?}");
    Ok(())
}

/// Step by step in one lab, because a lab takes longer to come up than most steps. None needs what another left.
#[test]
fn three_hosts_over_an_ipv4_underlay() -> Result<()> {
    let lab = TestLab::up(THREE_HOSTS)?;
    lab.settle()?;
    for (what, step) in [
        // First: nobody has been asked for.
        (
            "tenants of one host",
            tenants_of_one_host_put_nothing_on_the_underlay as fn(&TestLab) -> Result<()>,
        ),
        // Next: nobody makes sure yet that another is still there.
        ("same addresses in two VNs", same_addresses_in_two_vns_stay_apart),
        ("every pair", all_pairs),
        ("duplicate addresses", duplicate_addresses_are_detected),
        ("unicast ARP", unicast_arp_crosses_as_unicast),
        ("TCP", tcp_carries_every_octet),
    ] {
        step(&lab).context(what)?;
    }
    lab.down()
}

/// Tenants that have the same addresses in different VNs never hear one another.
fn same_addresses_in_two_vns_stay_apart(lab: &TestLab) -> Result<()> {
    let received =
        |tenant: &str| -> Result<u64> { Ok(Links::open(&lab.node(tenant)?)?.stats("eth0")?.rx_packets) };
    for target in ["10.0.0.2", "fd00::2"] {
        let (red, blue) = (received("red-b")?, received("blue-b")?);
        ensure!(ping(lab, "blue-a", target, 10)?.complete(), "{target}");
        ensure!(received("red-b")? == red, "red-b heard blue-a at {target}");
        ensure!(received("blue-b")? >= blue + 10, "blue-b did not hear blue-a at {target}");
    }
    for target in ["10.0.0.3", "fd00::3"] {
        ensure!(ping(lab, "blue-a", target, 2)?.nothing(), "blue reached red-c at {target}");
    }
    Ok(())
}

/// An address that nobody has costs the Oracle a question and no other host anything; the moment
/// somebody has it, it answers.
#[test]
fn an_unknown_address_is_not_flooded_and_appears_at_once() -> Result<()> {
    let mut lab = TestLab::up(THREE_HOSTS)?;
    lab.settle()?;
    let capture = Capture::underlay(&lab, "unknown")?;
    ensure!(ping(&lab, "red-a", "10.0.0.9", 2)?.nothing());
    ensure!(ping(&lab, "red-a", "fd00::9", 2)?.nothing());
    let counts = capture.stop()?.counts();
    ensure!(counts.vxlan() == 0, "{counts:?}");
    ensure!(counts.lisp() >= 4, "two questions, two answers: {counts:?}");
    let what = TenantSpec {
        host: "h3".parse()?,
        vn: "red".to_owned(),
        ips: vec!["10.0.0.9".parse()?, "fd00::9".parse()?],
        mac: None,
        device: weft_lab::DeviceKind::Veth,
    };
    lab.attach("red-e", &what)?;
    lab.settle()?;
    ensure!(ping(&lab, "red-a", "10.0.0.9", 2)?.complete());
    ensure!(ping(&lab, "red-a", "fd00::9", 2)?.complete());
    lab.down()
}

fn tenants_of_one_host_put_nothing_on_the_underlay(lab: &TestLab) -> Result<()> {
    let capture = Capture::underlay(lab, "local")?;
    ensure!(ping(lab, "red-a", "10.0.0.4", 3)?.complete());
    ensure!(ping(lab, "red-d", "fd00::1", 3)?.complete());
    let captured = capture.stop()?;
    ensure!(captured.counts().vxlan() == 0, "{:?}", captured.counts());
    ensure!(captured.counts().lisp() == 0, "nobody needs to be asked: {:?}", captured.counts());
    Ok(())
}

/// RFC 4862 and RFC 5227: a used address is defended for its owner on another host, an unused one
/// is nobody's.
fn duplicate_addresses_are_detected(lab: &TestLab) -> Result<()> {
    let links = Links::open(&lab.node("red-b")?)?;
    for (address, used) in [("fd00::1", true), ("fd00::77", false)] {
        let ip: IpAddr = address.parse()?;
        links.add_address("eth0", format!("{address}/64").parse()?, weft_lab::AddressFlags::Detect)?;
        let state = clock::until(clock::CEILING, || {
            links.addresses("eth0").map(|all| all.into_iter().find(|a| a.address == ip && !a.tentative))
        })?;
        let state = state.with_context(|| format!("detection of {address} never ended"))?;
        ensure!(state.duplicate == used, "{state:?}");
        links.delete_address("eth0", ip)?;
    }
    // -0: the sender address of a probe is 0.0.0.0 (RFC 5227 section 2.1.1).
    for (address, used) in [("10.0.0.1", true), ("10.0.0.77", false)] {
        let probe = lab.exec("red-b", &["arping", "-0", "-c", "2", "-w", "1", "-i", "eth0", address])?;
        let said = String::from_utf8_lossy(&probe.stdout);
        ensure!(probe.status.success() == used, "{address}: {said}");
        let mac = lab.tenant("red-a")?.mac.to_string();
        ensure!(!used || said.contains(&mac), "red-a has {mac}: {said}");
    }
    Ok(())
}

/// A unicast ARP request goes to its target and is answered by it, as for neighbour
/// unreachability detection (RFC 9161 section 3.3 leaves these alone).
fn unicast_arp_crosses_as_unicast(lab: &TestLab) -> Result<()> {
    ensure!(ping(lab, "red-a", "10.0.0.2", 1)?.complete());
    let mac = lab.tenant("red-b")?.mac.to_string();
    let capture = Capture::underlay(lab, "unicast")?;
    let asked = lab.exec("red-a", &["arping", "-c", "2", "-w", "2", "-t", &mac, "-i", "eth0", "10.0.0.2"])?;
    ensure!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stdout));
    let counts = capture.stop()?.counts();
    let crossed = counts.sum(|class| matches!(class, Class::Vxlan { group: false, inner: Kind::Arp, .. }));
    ensure!(crossed >= 4, "two requests and two replies: {counts:?}");
    ensure!(counts.flooded() == 0, "{counts:?}");
    Ok(())
}

fn tcp_carries_every_octet(lab: &TestLab) -> Result<()> {
    for target in ["10.0.0.2", "fd00::2"] {
        transfer(lab, "red-a", "red-b", target.parse()?, 64 << 20)?;
    }
    transfer(lab, "red-a", "red-d", "10.0.0.4".parse()?, 64 << 20)?;
    Ok(())
}

/// A tenant behind a TAP, like a virtual machine, on either side.
#[test]
fn tap_tenants() -> Result<()> {
    let yaml = THREE_HOSTS
        .replace("host: h2, vn: red,", "host: h2, device: tap, vn: red,")
        .replace("host: h3, vn: red,", "host: h3, device: tap, vn: red,");
    let lab = TestLab::up(&yaml)?;
    lab.settle()?;
    let capture = Capture::underlay(&lab, "tap")?;
    for (from, to) in [("red-a", "2"), ("red-b", "1"), ("red-b", "3"), ("red-c", "4")] {
        for net in ["10.0.0.", "fd00::"] {
            let target = format!("{net}{to}");
            ensure!(ping(&lab, from, &target, 2)?.complete(), "{from} to {target}");
        }
    }
    ensure!(capture.stop()?.counts().flooded() == 0);
    for (from, to, target) in [("red-a", "red-b", "10.0.0.2"), ("red-b", "red-a", "fd00::1")] {
        transfer(&lab, from, to, target.parse()?, 16 << 20)?;
    }
    lab.down()
}

/// A tenant system is detached on one host and attached on another: those who talked to it are
/// told, and reach it there with the neighbour entry they have.
#[test]
fn a_cold_move_is_followed() -> Result<()> {
    let mut lab = TestLab::up(THREE_HOSTS)?;
    lab.settle()?;
    ensure!(ping(&lab, "red-a", "10.0.0.3", 2)?.complete());
    ensure!(ping(&lab, "red-b", "fd00::3", 2)?.complete());
    let was = lab.tenant("red-c")?.clone();
    let capture = Capture::underlay(&lab, "move")?;
    for host in ["h2", "h1", "h3"] {
        let now = lab.move_cold("red-c", host)?;
        ensure!(now == was, "it keeps its addresses: {was:?}, {now:?}");
        lab.settle()?;
        for (from, target) in [("red-a", "10.0.0.3"), ("red-b", "fd00::3"), ("red-d", "10.0.0.3")] {
            ensure!(ping(&lab, from, target, 2)?.complete(), "{from} after the move to {host}");
        }
        ensure!(ping(&lab, "red-c", "10.0.0.1", 2)?.complete(), "from {host}");
    }
    let counts = capture.stop()?.counts();
    ensure!(counts.flooded() == 0, "{counts:?}");
    lab.down()
}

/// After a detach the address is nobody's, for those who were talking to it too.
#[test]
fn a_detached_tenant_is_forgotten() -> Result<()> {
    let mut lab = TestLab::up(THREE_HOSTS)?;
    lab.settle()?;
    ensure!(ping(&lab, "red-a", "10.0.0.2", 2)?.complete());
    lab.detach("red-b")?;
    let gone = clock::until(clock::CEILING, || -> Result<Option<()>> {
        let capture = Capture::underlay(&lab, "detached")?;
        ensure!(ping(&lab, "red-a", "10.0.0.2", 1)?.nothing());
        Ok((capture.stop()?.counts().vxlan() == 0).then_some(()))
    })?;
    ensure!(gone.is_some(), "h1 still sends frames for red-b to h2");
    lab.down()
}

/// Packets of an established flow need no process of Weft: neither the sender's NVE nor the receiver's (each
/// host is both) nor the Oracle.
#[test]
fn nothing_is_lost_when_an_nve_or_the_oracle_is_killed() -> Result<()> {
    let mut lab = TestLab::up(THREE_HOSTS)?;
    lab.settle()?;
    let start = |from: &str, to: &str, target: &str| -> Result<Stream> {
        let stream = Stream::start(&lab.node(from)?, &lab.node(to)?, target.parse()?, 1000)?;
        stream.wait_first()?;
        Ok(stream)
    };
    let streams = [start("red-a", "red-b", "10.0.0.2")?, start("red-b", "red-a", "fd00::1")?];
    let more = |count: u64| -> Result<()> {
        let goals = streams.each_ref().map(|stream| stream.sent() + count);
        let over = || streams.iter().zip(goals).all(|(stream, goal)| stream.sent() >= goal);
        ensure!(clock::until_true(clock::CEILING, over), "{count} packets take too long");
        Ok(())
    };
    // Of each round what was never asked for before, here and there.
    for (daemon, pairs) in [
        ("h1", [("red-d", "10.0.0.3"), ("red-c", "fd00::4")]),
        ("h2", [("red-d", "10.0.0.2"), ("red-b", "fd00::4")]),
        ("oracle", [("red-b", "10.0.0.3"), ("red-a", "fd00::3")]),
    ] {
        more(300)?;
        lab.signal(daemon, Signal::SIGKILL)?;
        more(1000)?;
        lab.restart(daemon)?;
        more(1000)?;
        for (from, target) in pairs {
            ensure!(ping(&lab, from, target, 2)?.complete(), "{daemon}: {from} to {target}");
        }
    }
    for stream in streams {
        let report = stream.stop();
        ensure!(report.lost == 0 && report.duplicates == 0 && report.refused == 0, "{report:?}");
    }
    lab.down()
}
