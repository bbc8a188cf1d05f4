//! Linux by itself: a bridge and a VXLAN device on each host.

use super::{
    Device, Pair, Peer,
    site::{HOSTS, Site, VNI},
};
use anyhow::Result;
use std::time::Duration;
use weft_lab::{BridgePort, Lab, Links, Vxlan};
use weft_model::MacAddr;

/// Where frames to unknown and group addresses go.
pub(crate) const EVERYBODY: MacAddr = MacAddr([0; 6]);

/// How a host knows where a MAC address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Learning {
    /// Every address is in the table, put there by hand.
    Static,
    /// Unknown ones are flooded, and learned from what comes back.
    Flood,
}

pub(crate) struct Kernel {
    site: Site,
    learning: Learning,
}

impl Kernel {
    pub(crate) fn up(learning: Learning) -> Result<Self> {
        let name = match learning {
            Learning::Static => "static",
            Learning::Flood => "flood",
        };
        let site = Site::up(name, None, &[])?;
        for ((host, tenants), (other, remote)) in HOSTS.iter().zip(HOSTS.iter().rev()) {
            let links = site.links(host)?;
            let learn = learning == Learning::Flood;
            bridge(
                &site.lab,
                host,
                tenants,
                learn,
                BridgePort { learning: Some(learn), ..BridgePort::default() },
            )?;
            links.add_remote("vx0", EVERYBODY, site.rloc(other)?)?;
            if learning == Learning::Static {
                // In both tables: a bridge that does not know a port floods to all of them.
                for tenant in remote {
                    links.add_remote("vx0", site.mac(tenant)?, site.rloc(other)?)?;
                    links.add_bridge_entry("vx0", site.mac(tenant)?)?;
                }
                for tenant in tenants {
                    links.add_bridge_entry(tenant, site.mac(tenant)?)?;
                }
            }
        }
        Ok(Self { site, learning })
    }
}

/// A bridge `br1` with a VXLAN device `vx0` and the tenants of `host`.
pub(crate) fn bridge(
    lab: &Lab,
    host: &str,
    tenants: &[&str],
    learning: bool,
    port: BridgePort,
) -> Result<()> {
    let namespace = lab.node(host)?;
    let links = Links::open(&namespace)?;
    // As on the host's end of every tenant: a bridge is no interface of the host.
    namespace.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
    links.add_bridge("br1")?;
    links.add_vxlan(&Vxlan { name: "vx0", vni: VNI, local: lab.rloc(host)?, dev: "eth0", learning })?;
    links.set_bridge("vx0", "br1", port)?;
    links.up("vx0")?;
    for tenant in tenants {
        links.set_bridge(tenant, "br1", BridgePort::default())?;
    }
    Ok(())
}

impl Peer for Kernel {
    fn name(&self) -> &'static str {
        match self.learning {
            Learning::Static => "kernel-bridge-vxlan",
            Learning::Flood => "kernel-flood-learn",
        }
    }

    fn pair(&self, device: Device) -> Result<Option<Pair>> {
        self.site.pair(device).map(Some)
    }

    fn forget(&mut self) -> Result<()> {
        self.site.forget_tenants()?;
        if self.learning == Learning::Flood {
            for (host, tenants) in &HOSTS {
                let links = self.site.links(host)?;
                for port in tenants.iter().chain(&["vx0"]) {
                    links.flush_port(port)?;
                }
                links.forget_remotes("vx0")?;
            }
        }
        Ok(())
    }

    fn forget_tenants(&mut self) -> Result<()> {
        self.site.forget_tenants()
    }

    fn attach(&mut self) -> Result<Option<Duration>> {
        Ok(None)
    }

    fn down(self: Box<Self>) -> Result<()> {
        Ok(self.site.lab.down()?)
    }
}
