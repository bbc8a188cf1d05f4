//! Two tenants joined by one veth: no network at all between them, the floor for every overlay.

use super::{Device, Pair, Peer};
use anyhow::Result;
use std::time::Duration;
use weft_lab::{AddressFlags, Lab, LabSpec, Links, Options};

pub(crate) struct BareVeth(Lab);

impl BareVeth {
    pub(crate) fn up() -> Result<Self> {
        // Two "hosts" joined directly are exactly that.
        let spec = LabSpec::parse(
            "{name: bench, underlay: {wiring: direct, mtu: 1450}, hosts: {a: {nve: false}, b: {nve: false}}}",
        )
        .map_err(anyhow::Error::msg)?;
        let options = Options {
            name: Some(format!("bench{}-bare", std::process::id()).parse()?),
            bound: true,
            ..Options::default()
        };
        let lab = Lab::up(&spec, &options, &mut |_| {})?;
        for (node, addr) in [("a", "10.0.0.1/24"), ("b", "10.0.0.2/24")] {
            Links::open(&lab.node(node)?)?.add_address("eth0", addr.parse()?, AddressFlags::Detect)?;
        }
        Ok(Self(lab))
    }
}

impl Peer for BareVeth {
    fn name(&self) -> &'static str {
        "bare-veth"
    }

    fn pair(&self, device: Device) -> Result<Option<Pair>> {
        Ok(match device {
            Device::Veth => {
                Some(Pair { a: self.0.node("a")?, b: self.0.node("b")?, b_addr: [10, 0, 0, 2].into() })
            }
            Device::Tap => None,
        })
    }

    fn forget(&mut self) -> Result<()> {
        self.forget_tenants()
    }

    fn forget_tenants(&mut self) -> Result<()> {
        for node in ["a", "b"] {
            Links::open(&self.0.node(node)?)?.flush_neighbours("eth0")?;
        }
        Ok(())
    }

    fn attach(&mut self) -> Result<Option<Duration>> {
        Ok(None)
    }

    fn down(self: Box<Self>) -> Result<()> {
        Ok(self.0.down()?)
    }
}
