//! The implementations that are measured, each with the same two hosts and tenants.

mod bare;
mod frr;
mod kernel;
mod mass;
mod mobile;
mod site;
mod weft;

pub(crate) use frr::Tuning;
pub(crate) use mass::Mass;
pub(crate) use mobile::Mobile;

use super::What;
use crate::say;
use anyhow::Result;
use std::{net::IpAddr, path::Path, time::Duration};
use weft_lab::NetNs;

/// How the measured tenants are connected to their hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    /// veth pairs, as containers have.
    Veth,
    /// TAPs, as virtual machines have.
    Tap,
}

/// Two tenants of one virtual network on two hosts.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    /// The one that asks, on h1.
    pub(crate) a: NetNs,
    /// The one that answers, on h2.
    pub(crate) b: NetNs,
    /// Its address.
    pub(crate) b_addr: IpAddr,
}

/// One implementation that is up.
pub(crate) trait Peer {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// Two tenants behind `device`; none where it has no such thing.
    fn pair(&self, device: Device) -> Result<Option<Pair>>;

    /// Makes everybody forget: the tenants each other's MAC address, the network where they are,
    /// as far as it learns that on demand.
    fn forget(&mut self) -> Result<()>;

    /// Makes the tenants forget each other's MAC address, nobody else.
    fn forget_tenants(&mut self) -> Result<()>;

    /// Attaches a new tenant on h1, under a stream of probes from h2 to its address every 100 us,
    /// and detaches it. The time from the attach call to the first probe that arrived; none where
    /// attaching is nothing that propagates.
    fn attach(&mut self) -> Result<Option<Duration>>;

    /// Takes it down.
    fn down(self: Box<Self>) -> Result<()>;
}

/// Brings up what `what` compares.
pub(crate) fn up(what: What, weft: Option<&Path>) -> Result<Vec<Box<dyn Peer>>> {
    let mut all: Vec<Box<dyn Peer>> = Vec::new();
    let built = build(what, weft, &mut all);
    if let Err(error) = built {
        for peer in all {
            if let Err(error) = peer.down() {
                say::error(&error);
            }
        }
        return Err(error);
    }
    Ok(all)
}

fn build(what: What, weft: Option<&Path>, all: &mut Vec<Box<dyn Peer>>) -> Result<()> {
    if let Some(weft) = weft {
        say::step("bringing up weft");
        all.push(Box::new(weft::Weft::up(weft, weft::Tunnel::Direct)?));
        if what == What::Datapath {
            say::step("bringing up weft-device");
            all.push(Box::new(weft::Weft::up(weft, weft::Tunnel::Device)?));
        }
    }
    if what != What::Attach {
        say::step("bringing up kernel-bridge-vxlan and kernel-flood-learn");
        all.push(Box::new(kernel::Kernel::up(kernel::Learning::Static)?));
        all.push(Box::new(kernel::Kernel::up(kernel::Learning::Flood)?));
        all.push(Box::new(bare::BareVeth::up()?));
    }
    if what != What::Datapath {
        say::step("bringing up frr and frr-default");
        all.push(Box::new(frr::Frr::up(frr::Tuning::Fast)?));
        all.push(Box::new(frr::Frr::up(frr::Tuning::Default)?));
    }
    Ok(())
}
