//! Tenant systems that come and go: an address that nobody has, that somebody has, that nobody has any more.

use crate::{
    lab::{HOSTS, Mode, ips, rows, until_located},
    probes,
};
use anyhow::{Result, ensure};
use std::collections::BTreeSet;
use weft_e2e::{TestLab, ping};
use weft_lab::{DeviceKind, Links, TenantSpec, clock};

/// The last octet of the newcomer's addresses.
const NEW: u8 = 9;

fn attach(lab: &mut TestLab, mode: Mode) -> Result<()> {
    let (host, vn, mac) = ("h3".parse()?, mode.vn().to_owned(), Some(mode.mac(NEW)));
    let what = TenantSpec { host, vn, ips: ips(NEW).to_vec(), mac, device: DeviceKind::Veth };
    lab.attach(&mode.tenant('e'), &what)?;
    Ok(())
}

/// Requirement Ld: who asks for what nobody has is told the VN's anycast MAC, and the owner's as soon as there is
/// one. The last of a VN leaves nothing behind on its host.
pub fn pushed(lab: &mut TestLab) -> Result<()> {
    let (mode, asker) = (Mode::Push, Mode::Push.tenant('a'));
    let links = Links::open(&lab.node(&asker)?)?;
    for target in ips(NEW) {
        ensure!(ping(lab, &asker, &target.to_string(), 1)?.nothing());
        ensure!(links.neighbour("eth0", target)? == Some(mode.anycast()?), "{target}");
    }
    attach(lab, mode)?;
    for target in ips(NEW) {
        let healed = || links.neighbour("eth0", target).is_ok_and(|mac| mac == Some(mode.mac(NEW)));
        let now = || links.neighbour("eth0", target);
        ensure!(clock::until_true(clock::CEILING, healed), "{target}: {:?}", now()?);
    }
    lab.settle()?;
    for target in ips(NEW) {
        ensure!(ping(lab, &asker, &target.to_string(), 2)?.complete(), "{target}");
    }
    lab.detach(&mode.tenant('e'))?;
    lab.detach(&mode.tenant('c'))?;
    until_located(lab, "h3", mode, &BTreeSet::new())?;
    until_located(lab, "h1", mode, &rows(lab, mode, 2, "push", true)?)
}

/// Requirement Lb, RFC 5227 and RFC 4862 section 5.4.3: also where addresses are translated one that nobody has
/// talked to is defended at the first probe, and no tenant's own MAC address is learned for that.
pub fn translated(lab: &mut TestLab) -> Result<()> {
    let mode = Mode::Translate;
    attach(lab, mode)?;
    lab.settle()?;
    probes::cold(lab, mode, NEW)?;
    for host in HOSTS {
        until_located(lab, host, mode, &BTreeSet::new())?;
    }
    Ok(())
}
