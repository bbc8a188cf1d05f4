//! FRR: BGP EVPN tells each host where the other's MAC addresses are; the kernel's bridge and VXLAN
//! device carry the frames. `peers/frr/README.md` says how it is set up.

use super::{
    Device, Pair, Peer, kernel,
    site::{HOSTS, NEW_ADDR, Site},
};
use anyhow::{Context as _, Result, ensure};
use nix::unistd::{Group, User, chown};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};
use weft_lab::{AddressFlags, BridgePort, Lab, Links, VethEnd, clock, probe};
use weft_model::MacAddr;

const DIR: &str = "/usr/lib/frr";
/// As FRR's own /etc/frr/daemons has it, so that the kernel's news of 100,000 MAC addresses finds room: what is
/// lost there is never announced.
const NETLINK_BUFFER: [&str; 2] = ["-s", "90000000"];

/// The VXLAN device's port: what is behind it FRR says, and nothing is flooded to find it.
pub(super) const PORT: BridgePort = BridgePort { learning: Some(false), unicast_flood: Some(false) };

/// Which timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tuning {
    /// As shipped.
    Default,
    /// Everything that delays an update at zero.
    Fast,
}

pub(crate) struct Frr {
    site: Site,
    tuning: Tuning,
}

impl Tuning {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Default => "frr-default",
            Self::Fast => "frr",
        }
    }
}

impl Frr {
    pub(super) const fn site(&self) -> &Site {
        &self.site
    }

    pub(super) const fn tuning(&self) -> Tuning {
        self.tuning
    }

    pub(crate) fn up(tuning: Tuning) -> Result<Self> {
        let mut frr = Self { site: Site::up(tuning.name(), None, &[])?, tuning };
        if let Err(error) = frr.start() {
            frr.site.lab.down()?;
            return Err(error);
        }
        Ok(frr)
    }

    fn start(&mut self) -> Result<()> {
        for ((host, tenants), (other, _)) in HOSTS.iter().zip(HOSTS.iter().rev()) {
            kernel::bridge(&self.site.lab, host, tenants, false, PORT)?;
            let links = self.site.links(host)?;
            for tenant in tenants {
                links.add_bridge_entry(tenant, self.site.mac(tenant)?)?;
            }
            start_daemons(&mut self.site.lab, host, &[*other], self.tuning)?;
        }
        // Each host knows the other's tenants, and where to flood ARP.
        for ((host, _), (_, remote)) in HOSTS.iter().zip(HOSTS.iter().rev()) {
            for tenant in remote {
                self.wait_remote(host, self.site.mac(tenant)?, true)?;
            }
            self.wait_remote(host, kernel::EVERYBODY, true)?;
        }
        Ok(())
    }

    /// Waits until `host` has, or has no longer, a remote entry for `mac`.
    pub(super) fn wait_remote(&self, host: &str, mac: MacAddr, there: bool) -> Result<()> {
        wait_remote(&self.site.lab, host, mac, there)
    }

    fn attach_once(&mut self, mac: MacAddr) -> Result<Duration> {
        let (host, tenant) = (self.site.lab.node("h1")?, self.site.new_tenant()?);
        Links::add_veth(
            &VethEnd { namespace: &host, name: "new", mac: None, mtu: None },
            &VethEnd { namespace: &tenant, name: "eth0", mac: Some(mac), mtu: Some(1450) },
        )?;
        let links = Links::open(&tenant)?;
        links.up("eth0")?;
        links.add_address("eth0", format!("{NEW_ADDR}/24").parse()?, AddressFlags::Detect)?;
        let addr = NEW_ADDR.parse()?;
        let from = self.site.lab.node("b")?;
        Links::open(&from)?.add_neighbour("eth0", addr, mac)?;
        let stream = probe::Stream::start(&from, &tenant, addr, 10_000)?;
        stream.wait_sent(100, clock::CEILING)?;
        ensure!(stream.first().is_none(), "a probe arrived before the tenant was attached");
        let links = self.site.links("h1")?;
        let start = clock::now();
        links.set_bridge("new", "br1", BridgePort::default())?;
        links.add_bridge_entry("new", mac)?;
        links.up("new")?;
        let first = stream.wait_first()?;
        stream.cancel();
        Ok(first - start)
    }
}

/// Starts FRR on `host`, with each of `others` as its neighbour.
pub(super) fn start_daemons(lab: &mut Lab, host: &str, others: &[&str], tuning: Tuning) -> Result<()> {
    let others: Vec<String> =
        others.iter().map(|other| Ok(lab.rloc(other)?.to_string())).collect::<Result<_>>()?;
    let text = configuration(tuning, &lab.rloc(host)?.to_string(), &others);
    let dir = lab.files().run.join(format!("frr-{host}"));
    std::fs::create_dir(&dir)?;
    std::fs::write(dir.join("bgpd.conf"), text)?;
    std::fs::write(dir.join("zebra.conf"), "")?;
    // FRR gives up root for this user, and writes its pid files and sockets as it.
    let user = User::from_name("frr")?.context("package frr has made no user frr")?;
    let group = Group::from_name("frr")?.map(|group| group.gid);
    for path in [dir.clone(), dir.join("bgpd.conf"), dir.join("zebra.conf")] {
        chown(&path, Some(user.uid), group)?;
    }
    for daemon in ["zebra", "bgpd"] {
        let mut words = line(&dir, daemon);
        if daemon == "zebra" {
            words.extend(NETLINK_BUFFER.map(OsString::from));
        }
        lab.start_daemon(&format!("{daemon}-{host}"), host, words)?;
        let socket = dir.join(format!("{daemon}.vty"));
        ensure!(
            clock::until_true(clock::CEILING, || socket.exists()),
            "{daemon} on {host} is not ready after {:?}: see {}",
            clock::CEILING,
            lab.files().log(&format!("{daemon}-{host}")).display()
        );
    }
    Ok(())
}

/// The file of `tuning` for a host: lines about a neighbour once for each.
fn configuration(tuning: Tuning, local: &str, others: &[String]) -> String {
    let text = match tuning {
        Tuning::Default => include_str!("../../../peers/frr/default.conf"),
        Tuning::Fast => include_str!("../../../peers/frr/tuned.conf"),
    };
    let mut all = String::new();
    for line in text.replace("LOCAL", local).lines() {
        let copies = if line.contains(" REMOTE") { others } else { &[String::new()][..] };
        for other in copies {
            all.push_str(&line.replace("REMOTE", other));
            all.push('\n');
        }
    }
    all
}

/// Waits until `host` has, or has no longer, a remote entry for `mac`.
pub(super) fn wait_remote(lab: &Lab, host: &str, mac: MacAddr, there: bool) -> Result<()> {
    let links = Links::open(&lab.node(host)?)?;
    let seen = clock::until(clock::CEILING, || -> Result<Option<()>> {
        let has = links.remotes("vx0")?.iter().any(|(known, remote)| *known == mac && remote.is_some());
        Ok((has == there).then_some(()))
    })?;
    let what = if there { "never learned" } else { "never forgot" };
    ensure!(seen.is_some(), "FRR on {host} {what} {mac} within {:?}", clock::CEILING);
    Ok(())
}

fn line(dir: &Path, daemon: &str) -> Vec<OsString> {
    let path = |name: &str| -> OsString { dir.join(name).into_os_string() };
    vec![
        PathBuf::from(DIR).join(daemon).into_os_string(),
        "-f".into(),
        path(&format!("{daemon}.conf")),
        "-i".into(),
        path(&format!("{daemon}.pid")),
        "-z".into(),
        path("zserv.api"),
        "--vty_socket".into(),
        dir.as_os_str().to_owned(),
        // No TCP terminal.
        "-P".into(),
        "0".into(),
    ]
}

impl Peer for Frr {
    fn name(&self) -> &'static str {
        self.tuning.name()
    }

    fn pair(&self, device: Device) -> Result<Option<Pair>> {
        self.site.pair(device).map(Some)
    }

    // Locations are pushed, so there is nothing about them to forget.
    fn forget(&mut self) -> Result<()> {
        self.site.forget_tenants()
    }

    fn forget_tenants(&mut self) -> Result<()> {
        self.site.forget_tenants()
    }

    fn attach(&mut self) -> Result<Option<Duration>> {
        let mac = self.site.new_mac();
        let time = self.attach_once(mac);
        self.site.links("h1")?.delete("new")?;
        self.wait_remote("h2", mac, false)?;
        time.map(Some)
    }

    fn down(self: Box<Self>) -> Result<()> {
        Ok(self.site.lab.down()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_neighbour_is_configured() {
        let others = ["192.0.2.2".to_owned(), "192.0.2.3".to_owned()];
        for tuning in [Tuning::Default, Tuning::Fast] {
            let text = configuration(tuning, "192.0.2.1", &others);
            for other in &others {
                assert!(text.contains(&format!(" neighbor {other} remote-as 65000\n")), "{text}");
                assert!(text.contains(&format!("  neighbor {other} activate\n")), "{text}");
            }
            assert_eq!(text.matches("router-id 192.0.2.1\n").count(), 1, "{text}");
            let left = text.lines().filter(|line| !line.starts_with('!') && line.contains("REMOTE"));
            assert_eq!(left.count(), 0, "{text}");
        }
    }
}
