//! FRR with a tenant system that moves: its MAC address is learned by the bridge of the host it moves to, which tells
//! the others with a higher sequence number (RFC 7432 section 15).

use super::{
    frr::{PORT, Tuning, start_daemons, wait_remote},
    kernel,
};
use crate::bench::moves::{Flip, Guest, HOSTS, MAC, Moves, SPEC};
use anyhow::Result;
use weft_lab::{BridgePort, Lab, LabSpec, Links, Options};

/// The hosts that it never is on, each with its tenant.
const OTHERS: [(&str, &str); 2] = [("h4", "p4"), ("h5", "p5")];

pub(crate) struct Mobile {
    lab: Lab,
    guest: Guest,
    tuning: Tuning,
}

impl Mobile {
    pub(crate) fn up(tuning: Tuning) -> Result<Self> {
        let spec = LabSpec::parse(SPEC).map_err(anyhow::Error::msg)?;
        let options = Options {
            name: Some(format!("bench{}-move-{}", std::process::id(), tuning.name()).parse()?),
            bound: true,
            ..Options::default()
        };
        let mut lab = Lab::up(&spec, &options, &mut |_| {})?;
        match start(&mut lab, tuning) {
            Ok(guest) => Ok(Self { lab, guest, tuning }),
            Err(error) => {
                lab.down()?;
                Err(error)
            }
        }
    }
}

fn start(lab: &mut Lab, tuning: Tuning) -> Result<Guest> {
    let hosts: Vec<&str> = HOSTS.into_iter().chain(OTHERS.map(|(host, _)| host)).collect();
    for host in &hosts {
        let tenants: Vec<&str> = OTHERS.iter().filter(|(at, _)| at == host).map(|(_, name)| *name).collect();
        kernel::bridge(lab, host, &tenants, false, PORT)?;
    }
    let guest = Guest::new(lab)?;
    for host in HOSTS {
        Links::open(&lab.node(host)?)?.set_bridge("guest", "br1", BridgePort::default())?;
    }
    for host in &hosts {
        let others: Vec<&str> = hosts.iter().copied().filter(|other| other != host).collect();
        start_daemons(lab, host, &others, tuning)?;
    }
    for (host, tenant) in OTHERS {
        Links::open(&lab.node(host)?)?.add_bridge_entry(tenant, lab.tenant(tenant)?.mac)?;
    }
    guest.announce()?;
    // Everybody knows everybody, and where to flood ARP.
    for host in &hosts {
        wait_remote(lab, host, kernel::EVERYBODY, true)?;
        for (_, tenant) in OTHERS.iter().filter(|(at, _)| at != host) {
            wait_remote(lab, host, lab.tenant(tenant)?.mac, true)?;
        }
        if *host != guest.host() {
            wait_remote(lab, host, MAC, true)?;
        }
    }
    lab.settle()?;
    Ok(guest)
}

impl Moves for Mobile {
    fn name(&self) -> &'static str {
        self.tuning.name()
    }

    fn lab(&self) -> &Lab {
        &self.lab
    }

    fn move_on(&mut self) -> Result<Flip> {
        let flip = self.guest.flip(|| Ok(()), || Ok(()))?;
        Ok(Flip { calls: None, ..flip })
    }

    fn clear(&mut self) -> Result<()> {
        Ok(())
    }

    fn down(self: Box<Self>) -> Result<()> {
        Ok(self.lab.down()?)
    }
}
