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

pub(crate) struct Weft {
    site: Site,
    /// The tenant on h2 that answers, once it is not the first any more, and how many there were.
    answering: Option<String>,
    count: u8,
}

impl Weft {
    pub(crate) fn up(weft: &Path) -> Result<Self> {
        Ok(Self { site: Site::up("weft", Some(weft.to_owned()))?, answering: None, count: 0 })
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
        WEFT
    }

    fn pair(&self, device: Device) -> Result<Option<Pair>> {
        let mut pair = self.site.pair(device)?;
        if let Some(name) = self.answering.as_ref().filter(|_| device == Device::Veth) {
            pair.b = self.site.lab.node(name)?;
            pair.b_addr = self.site.lab.tenant(name)?.ipv4().context("it has an IPv4 address")?;
        }
        Ok(Some(pair))
    }

    /// An Oracle tells whoever asked of every change, so an address that was ever asked for is
    /// never unknown again: a tenant that nobody knows is a new one, with an address never used.
    fn forget(&mut self) -> Result<()> {
        self.count += 1;
        let name = format!("b{}", self.count);
        let what = TenantSpec {
            host: "h2".parse()?,
            vn: "red".to_owned(),
            ips: vec![[10, 0, 0, 100 + self.count].into()],
            mac: None,
            device: DeviceKind::Veth,
        };
        self.site.lab.attach(&name, &what)?;
        if let Some(before) = self.answering.replace(name) {
            self.site.lab.detach(&before)?;
        }
        self.forget_tenants()
    }

    fn forget_tenants(&mut self) -> Result<()> {
        self.site.forget_tenants()?;
        match &self.answering {
            Some(name) => Ok(self.site.links(name)?.flush_neighbours("eth0")?),
            None => Ok(()),
        }
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
