//! Frames and questions for which no table has an answer: what becomes of them, and what they cost.

use anyhow::{Context as _, Result, ensure};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use weft_e2e::{THREE_HOSTS, TestLab, cut, frames, ping};
use weft_lab::{
    DeviceKind, Signal, TenantSpec,
    capture::{Capture, Captured, Class, Frame},
    clock, raw,
};

/// Questions, half of each family.
const QUESTIONS: u32 = 10_000;

/// Requirement N11: whoever asks ten thousand times for who is not there costs one question of each family, and is
/// answered at the first try once that one is.
fn unknown(lab: &mut TestLab) -> Result<()> {
    let h1 = lab.rloc("h1")?;
    let sender = raw::RawSender::open(&lab.node("red-a")?, "eth0")?;
    let mac = lab.tenant("red-a")?.mac;
    let (v4, v6) = (Ipv4Addr::new(10, 0, 0, 1), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));
    let (nobody4, nobody6) = (Ipv4Addr::new(10, 0, 0, 9), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9));
    let log = |lab: &TestLab| std::fs::read_to_string(lab.files().log("h1")).map(|log| log.lines().count());
    let (asked, before) = (frames(lab, "h1", "nobody")?, log(lab)?);
    let capture = Capture::underlay(lab, "unknown")?;
    for _ in 0..QUESTIONS / 2 {
        sender.send(&raw::arp_request(mac, v4, nobody4))?;
        sender.send(&raw::neighbour_solicitation(mac, v6, nobody6))?;
    }
    // Those while the Oracle was asked are not among them.
    let most = || frames(lab, "h1", "nobody").is_ok_and(|now| now - asked > u64::from(QUESTIONS) / 2);
    ensure!(
        clock::until_true(clock::CEILING, most),
        "{} answered here",
        frames(lab, "h1", "nobody")? - asked
    );
    let captured = capture.stop()?;
    let questions =
        captured.frames.iter().filter(|f| f.class == Class::LispUdp && f.from == Some(h1)).count();
    ensure!(questions == 2, "{questions} Map-Requests for two addresses");
    ensure!(captured.counts().flooded() == 0, "{:?}", captured.counts());
    ensure!(log(lab)? <= before + 1, "{} lines in the log", log(lab)? - before);
    let what = TenantSpec {
        host: "h2".parse()?,
        vn: "red".to_owned(),
        ips: vec![nobody4.into(), nobody6.into()],
        mac: None,
        device: DeviceKind::Veth,
    };
    lab.attach("red-e", &what)?;
    lab.settle()?;
    for target in [IpAddr::from(nobody4), nobody6.into()] {
        let pinged = ping(lab, "red-a", &target.to_string(), 1)?;
        ensure!(pinged.complete(), "{target}: {pinged:?}");
    }
    Ok(())
}

/// Whom a host's VXLAN with a tenant's unicast went to.
fn went_to(captured: &Captured, host: IpAddr, tenant: IpAddr) -> Vec<IpAddr> {
    let from = captured.frames.iter().filter(|f| f.from == Some(host));
    let to = from.filter(|f| f.inner_ips.is_some_and(|(_, to)| to == tenant));
    to.filter_map(|f| f.to).collect()
}

/// While no Oracle answers, frames whose destination is not known go by the VN's gateway, there and back.
fn gateway(lab: &mut TestLab) -> Result<()> {
    let (h1, h2, h3) = (lab.rloc("h1")?, lab.rloc("h2")?, lab.rloc("h3")?);
    // Who talks to the gateway's own is known there; red-a and red-c do not know each other yet.
    for target in ["10.0.0.1", "fd00::1", "10.0.0.3", "fd00::3"] {
        ensure!(ping(lab, "red-b", target, 1)?.complete(), "{target}");
    }
    lab.weft(["vn", "set", "red", "--miss", "gateway", "--gateway", "h2"])?;
    let (a, c) = (lab.tenant("red-a")?.mac.to_string(), lab.tenant("red-c")?.mac.to_string());
    for (node, mac, ips) in [("red-a", &c, ["10.0.0.3", "fd00::3"]), ("red-c", &a, ["10.0.0.1", "fd00::1"])] {
        for ip in ips {
            let line = ["ip", "neigh", "replace", ip, "lladdr", mac, "dev", "eth0", "nud", "permanent"];
            ensure!(lab.exec(node, &line)?.status.success(), "{node}: {line:?}");
        }
    }
    lab.signal("oracle", Signal::SIGSTOP)?;
    // Each NVE hears of the change by itself.
    for (node, target) in [("red-a", "10.0.0.3"), ("red-c", "10.0.0.1")] {
        let carried = || ping(lab, node, target, 1).is_ok_and(weft_e2e::Ping::complete);
        ensure!(clock::until_true(clock::CEILING, carried), "{node} to {target}");
    }
    let capture = Capture::underlay(lab, "gateway")?;
    for (node, target) in
        [("red-a", "10.0.0.3"), ("red-c", "10.0.0.1"), ("red-a", "fd00::3"), ("red-c", "fd00::1")]
    {
        let pinged = ping(lab, node, target, 3)?;
        ensure!(pinged.complete(), "{node} to {target}: {pinged:?}");
    }
    let captured = capture.stop()?;
    for (host, tenant, at) in
        [(h1, "10.0.0.3", h3), (h1, "fd00::3", h3), (h3, "10.0.0.1", h1), (h3, "fd00::1", h1)]
    {
        let tenant = tenant.parse()?;
        // Requests and answers, each once by each way.
        ensure!(
            went_to(&captured, host, tenant) == [h2; 6],
            "{tenant}: {:?}",
            went_to(&captured, host, tenant)
        );
        ensure!(went_to(&captured, h2, tenant) == [at; 6], "{tenant}: {:?}", went_to(&captured, h2, tenant));
    }
    ensure!(captured.counts().flooded() == 0, "{:?}", captured.counts());
    ensure!(frames(lab, "h2", "by-gateway")? >= 24, "the gateway's own count");
    ensure!(frames(lab, "h1", "by-gateway")? >= 12 && frames(lab, "h3", "by-gateway")? >= 12);
    for host in ["h1", "h3"] {
        ensure!(frames(lab, host, "fenced")? == 0 && frames(lab, host, "src-moved")? == 0, "{host}");
    }
    lab.signal("oracle", Signal::SIGCONT)?;
    // It answers: the way is the short one.
    let direct = || -> Result<bool> {
        let capture = Capture::underlay(lab, "direct")?;
        let pinged = ping(lab, "red-a", "10.0.0.3", 1)?;
        let captured = capture.stop()?;
        let way = [went_to(&captured, h1, "10.0.0.3".parse()?), went_to(&captured, h3, "10.0.0.1".parse()?)];
        Ok(pinged.complete() && way == [vec![h3], vec![h1]])
    };
    ensure!(
        clock::until_true(clock::CEILING, || direct().is_ok_and(|direct| direct)),
        "still by the gateway"
    );
    Ok(())
}

/// What the gateway does not know either waits there until the Oracle has answered it: the first packet arrives,
/// though two hosts do not reach the Oracle.
fn gateway_asks(lab: &mut TestLab) -> Result<()> {
    let (h1, h2, h3, oracle) =
        (lab.rloc("h1")?, lab.rloc("h2")?, lab.rloc("h3")?, "192.0.2.101".parse::<IpAddr>()?);
    let asker = lab.tenant("red-d")?.clone();
    let (v4, v6) = (asker.ipv4().context("10.0.0.4")?, asker.ipv6().context("fd00::4")?);
    let new = [("red-f", "10.0.0.60", v4), ("red-g", "fd00::61", v6)];
    for (name, ip, back) in new {
        let device = DeviceKind::Veth;
        let ips = vec![ip.parse()?];
        lab.attach(name, &TenantSpec { host: "h3".parse()?, vn: "red".to_owned(), ips, mac: None, device })?;
        lab.settle()?;
        let (there, here) = (lab.tenant(name)?.mac.to_string(), asker.mac.to_string());
        for (node, ip, mac) in [("red-d", ip, &there), (name, back.to_string().as_str(), &here)] {
            let line = ["ip", "neigh", "replace", ip, "lladdr", mac, "dev", "eth0", "nud", "permanent"];
            ensure!(lab.exec(node, &line)?.status.success(), "{node}: {line:?}");
        }
    }
    for host in ["h1", "h3"] {
        cut(lab, (host, oracle), true)?;
    }
    for (name, ip, back) in new {
        let capture = Capture::underlay(lab, name)?;
        let pinged = ping(lab, "red-d", ip, 1)?;
        ensure!(pinged.complete(), "red-d to {name}: {pinged:?}");
        let captured = capture.stop()?;
        let there = ip.parse()?;
        ensure!(went_to(&captured, h1, there) == [h2] && went_to(&captured, h2, there) == [h3], "{name}");
        ensure!(went_to(&captured, h3, back) == [h2] && went_to(&captured, h2, back) == [h1], "{name}");
        let at = |which: &dyn Fn(&Frame) -> bool| captured.frames.iter().position(which);
        let to = |frame: &Frame| frame.inner_ips.is_some_and(|(_, to)| to == there);
        let handed = at(&|f| f.from == Some(h1) && to(f));
        let asked = at(&|f| f.class == Class::LispUdp && (f.from, f.to) == (Some(h2), Some(oracle)));
        let carried = at(&|f| f.from == Some(h2) && to(f));
        ensure!(handed < asked && asked < carried && handed.is_some(), "{handed:?}, {asked:?}, {carried:?}");
        ensure!(captured.counts().flooded() == 0, "{:?}", captured.counts());
    }
    for host in ["h1", "h3"] {
        cut(lab, (host, oracle), false)?;
    }
    Ok(())
}

#[test]
fn n11_misses_cost_little_and_the_gateway_carries_them() -> Result<()> {
    let mut lab = TestLab::up(THREE_HOSTS)?;
    lab.settle()?;
    unknown(&mut lab)?;
    gateway(&mut lab)?;
    gateway_asks(&mut lab)?;
    lab.down()
}
