//! Weft itself, brought up as a user would.

use super::{
    Device, Pair, Peer,
    site::{NEW_ADDR, Site},
};
use crate::bench::report::WEFT;
use anyhow::{Context as _, Result};
use std::{path::Path, time::Duration};
use weft_lab::{AddressFlags, DeviceKind, Links, TenantSpec, VethEnd, clock, probe};
use weft_model::MacAddr;

/// How frames of veth tenants leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tunnel {
    /// As shipped: eBPF writes the VXLAN header.
    Direct,
    /// The kernel's VXLAN device does, as it does for every peer.
    Device,
}

pub(crate) struct Weft {
    site: Site,
    tunnel: Tunnel,
    /// The tenant on h1 that asks and the one on h2 that answers, once they are not the first any more.
    newest: Option<[String; 2]>,
    /// How many pairs there were.
    count: u8,
}

impl Weft {
    pub(crate) fn up(weft: &Path, tunnel: Tunnel) -> Result<Self> {
        let (name, words): (_, &[&str]) = match tunnel {
            Tunnel::Direct => (WEFT, &[]),
            Tunnel::Device => ("device", &["--veth-tunnel", "device"]),
        };
        let site = Site::up(name, Some(weft.to_owned()), words)?;
        Ok(Self { site, tunnel, newest: None, count: 0 })
    }

    fn attach_once(&mut self, mac: MacAddr, what: &TenantSpec) -> Result<Duration> {
        let (host, tenant) = (self.site.lab.node("h1")?, self.site.new_tenant()?);
        Links::add_veth(
            &VethEnd { namespace: &host, name: "new", mac: None, mtu: None },
            &VethEnd { namespace: &tenant, name: "eth0", mac: Some(mac), mtu: Some(1450) },
        )?;
        let links = Links::open(&tenant)?;
        links.up("eth0")?;
        links.add_address("eth0", format!("{NEW_ADDR}/24").parse()?, AddressFlags::Detect)?;
        Links::open(&host)?.up("new")?;
        let addr = NEW_ADDR.parse()?;
        let from = self.site.lab.node("b")?;
        Links::open(&from)?.add_neighbour("eth0", addr, mac)?;
        let stream = probe::Stream::start(&from, &tenant, addr, 10_000)?;
        stream.wait_sent(100, clock::CEILING)?;
        anyhow::ensure!(stream.first().is_none(), "a probe arrived before the tenant was attached");
        let start = clock::now();
        self.site.lab.ask_attach_by_api("new", "new", what)?;
        let first = stream.wait_first()?;
        stream.cancel();
        Ok(first - start)
    }
}

impl Peer for Weft {
    fn name(&self) -> &'static str {
        match self.tunnel {
            Tunnel::Direct => WEFT,
            Tunnel::Device => "weft-device",
        }
    }

    fn pair(&self, device: Device) -> Result<Option<Pair>> {
        if self.tunnel == Tunnel::Device && device == Device::Tap {
            return Ok(None);
        }
        let mut pair = self.site.pair(device)?;
        if let Some([asks, answers]) = self.newest.as_ref().filter(|_| device == Device::Veth) {
            pair.a = self.site.lab.node(asks)?;
            pair.b = self.site.lab.node(answers)?;
            pair.b_addr = self.site.lab.tenant(answers)?.ipv4().context("it has an IPv4 address")?;
        }
        Ok(Some(pair))
    }

    /// An Oracle tells whoever asked of every change, so an address that was ever asked for is
    /// never unknown again: tenants that nobody knows are new ones, with addresses never used. Both, as
    /// a flooding bridge forgets both.
    fn forget(&mut self) -> Result<()> {
        self.count = self.count.checked_add(1).context("more rounds than there are addresses")?;
        for before in self.newest.take().iter().flatten() {
            self.site.lab.detach(before)?;
        }
        let ends = [("a", "h1", 1), ("b", "h2", 2)];
        let names = ends.map(|(end, _, _)| format!("{end}{}", self.count));
        for (name, (_, host, net)) in names.iter().zip(ends) {
            let what = TenantSpec {
                host: host.parse()?,
                vn: "red".to_owned(),
                ips: vec![[10, 0, net, self.count].into()],
                mac: None,
                device: DeviceKind::Veth,
            };
            self.site.lab.attach(name, &what)?;
            // A device that has just come up may drop its first frames.
            self.site.links(name)?.wait_running("eth0")?;
            self.site.links(host)?.wait_running(name)?;
        }
        self.newest = Some(names);
        self.forget_tenants()
    }

    fn forget_tenants(&mut self) -> Result<()> {
        self.site.forget_tenants()?;
        for name in self.newest.iter().flatten() {
            self.site.links(name)?.flush_neighbours("eth0")?;
        }
        Ok(())
    }

    fn attach(&mut self) -> Result<Option<Duration>> {
        let mac = self.site.new_mac();
        let what = TenantSpec {
            host: "h1".parse()?,
            vn: "red".to_owned(),
            ips: vec![NEW_ADDR.parse()?],
            mac: Some(mac),
            device: DeviceKind::Veth,
        };
        let time = self.attach_once(mac, &what);
        self.site.lab.ask_detach("new", &what)?;
        self.site.links("h1")?.delete("new")?;
        time.map(Some)
    }

    fn down(self: Box<Self>) -> Result<()> {
        Ok(self.site.lab.down()?)
    }
}
