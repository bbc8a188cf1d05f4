//! Two hosts joined by one veth, each with one tenant behind a veth and one behind a TAP: what
//! every implementation starts from.

use super::{Device, Pair};
use anyhow::{Context as _, Result};
use std::{net::IpAddr, path::PathBuf};
use weft_lab::{Lab, LabSpec, Links, NetNs, Options, TapRelay};
use weft_model::MacAddr;

/// Hosts with their tenants: veth and TAP.
pub(crate) const HOSTS: [(&str, [&str; 2]); 2] = [("h1", ["a", "ta"]), ("h2", ["b", "tb"])];

/// The address of the tenant that is attached and detached.
pub(crate) const NEW_ADDR: &str = "10.0.0.100";

/// The VNI of peers that need one.
pub(crate) const VNI: u32 = 7001;

/// A lab with the two hosts and four tenants.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) lab: Lab,
    attached: u64,
}

impl Site {
    /// Brings it up; with `weft`, Weft carries the tenants, else nothing does yet. `nve_words` are more
    /// words for its NVEs.
    pub(crate) fn up(name: &str, weft: Option<PathBuf>, nve_words: &[&str]) -> Result<Self> {
        let spec = LabSpec::parse(
            "
name: bench
underlay: { ipv4: 192.0.2.0/24, mtu: 1500, wiring: direct }
oracles: { oracle: { on: h1 } }
hosts: { h1: {}, h2: {} }
vns: { red: { subnets: [10.0.0.0/16] } }
tenants:
  a: { host: h1, vn: red, ips: [10.0.0.1] }
  b: { host: h2, vn: red, ips: [10.0.0.2] }
  ta: { host: h1, vn: red, ips: [10.0.0.3], device: tap }
  tb: { host: h2, vn: red, ips: [10.0.0.4], device: tap }
",
        )
        .map_err(anyhow::Error::msg)?;
        let options = Options {
            name: Some(format!("bench{}-{name}", std::process::id()).parse()?),
            weft,
            nve_words: nve_words.iter().map(ToString::to_string).collect(),
            relay: Some(TapRelay::of(std::env::current_exe()?)),
            bound: true,
            ..Options::default()
        };
        Ok(Self { lab: Lab::up(&spec, &options, &mut |_| {})?, attached: 0 })
    }

    /// The tenants behind `device`.
    pub(crate) fn pair(&self, device: Device) -> Result<Pair> {
        let (a, b) = match device {
            Device::Veth => ("a", "b"),
            Device::Tap => ("ta", "tb"),
        };
        let b_addr = self.lab.tenant(b)?.ipv4().context("every tenant here has an IPv4 address")?;
        Ok(Pair { a: self.lab.node(a)?, b: self.lab.node(b)?, b_addr })
    }

    /// The tenants forget each other's MAC addresses.
    pub(crate) fn forget_tenants(&self) -> Result<()> {
        for tenant in ["a", "b"] {
            Links::open(&self.lab.node(tenant)?)?.flush_neighbours("eth0")?;
        }
        Ok(())
    }

    pub(crate) fn links(&self, node: &str) -> Result<Links> {
        Ok(Links::open(&self.lab.node(node)?)?)
    }

    /// The MAC address of a tenant.
    pub(crate) fn mac(&self, tenant: &str) -> Result<MacAddr> {
        Ok(self.lab.tenant(tenant)?.mac)
    }

    /// The RLOC of a host.
    pub(crate) fn rloc(&self, host: &str) -> Result<IpAddr> {
        Ok(self.lab.rloc(host)?)
    }

    /// A MAC address that was never used here before.
    pub(crate) fn new_mac(&mut self) -> MacAddr {
        self.attached += 1;
        weft_model::TsMac::local(0xa000_0000 + self.attached).get()
    }

    /// The namespace of the tenant that is attached and detached; made at its first use.
    pub(crate) fn new_tenant(&mut self) -> Result<NetNs> {
        match self.lab.node("new") {
            Ok(namespace) => Ok(namespace),
            Err(_) => Ok(self.lab.add_namespace("new")?),
        }
    }
}
