//! The tenant system that moves: a namespace with a connection to each host, of which one at a time carries. That is
//! what a hypervisor's guest is when it is stopped on one host and goes on on another, without its memory.

use super::HOSTS;
use anyhow::{Context as _, Result};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};
use weft_lab::{AddressFlags, BridgePort, Lab, Links, VethEnd, clock, raw};
use weft_model::MacAddr;

/// Five hosts: three that have it in turn, two with a tenant that talks to it.
pub(crate) const SPEC: &str = "
name: bench
underlay: { ipv4: 192.0.2.0/24, mtu: 1500 }
oracles: { oracle: {} }
hosts: { h1: {}, h2: {}, h3: {}, h4: {}, h5: {} }
vns: { red: { subnets: [10.0.0.0/24, \"fd00::/64\"] } }
tenants:
  p4: { host: h4, vn: red, ips: [10.0.0.4, \"fd00::4\"] }
  p5: { host: h5, vn: red, ips: [10.0.0.5, \"fd00::5\"] }
";
/// Those that talk to it.
pub(crate) const TENANTS: [&str; 2] = ["p4", "p5"];
/// Their addresses.
pub(crate) const PEERS: [(&str, IpAddr); 4] = [
    ("p4", IpAddr::V4(Ipv4Addr::new(10, 0, 0, 4))),
    ("p4", IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 4))),
    ("p5", IpAddr::V4(Ipv4Addr::new(10, 0, 0, 5))),
    ("p5", IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 5))),
];
/// Its addresses.
const V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 77);
const V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x77);
pub(crate) const ADDRESSES: [IpAddr; 2] = [IpAddr::V4(V4), IpAddr::V6(V6)];
/// Its MAC address.
pub(crate) const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x77]);
/// Its node, and its device on each host.
pub(crate) const NAME: &str = "guest";
/// The tenants' MTU over an IPv4 underlay.
const MTU: u32 = 1450;
/// `ENOBUFS`.
const NO_ROOM: i32 = nix::errno::Errno::ENOBUFS as i32;
/// Inside: the bridge that stands for the hypervisor, and the guest's own port of it.
const SWITCH: &str = "switch";
const OWN: &str = "port";

/// A move, as the hypervisor sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flip {
    /// When it was stopped.
    pub(crate) begun: Instant,
    /// How long stopping and going on took by themselves.
    pub(crate) pause: Duration,
    /// What the hypervisor told the network when it was stopped, and when it went on, took; nothing where a network is
    /// not told.
    pub(crate) calls: Option<[Duration; 2]>,
    /// When everything was done but the announcement: Activate had returned.
    pub(crate) done: Instant,
}

/// See the module.
pub(crate) struct Guest {
    links: Links,
    sender: raw::RawSender,
    /// Where it is, of [`HOSTS`].
    at: usize,
}

impl Guest {
    /// Makes it; on each host there is a device [`NAME`] that is up. It is at the first.
    pub(crate) fn new(lab: &mut Lab) -> Result<Self> {
        let inside = lab.add_namespace(NAME)?;
        let links = Links::open(&inside)?;
        links.up("lo")?;
        links.add_bridge(SWITCH)?;
        inside.sysctl(&format!("net/ipv6/conf/{SWITCH}/disable_ipv6"), "1")?;
        let end = |name, mac| VethEnd { namespace: &inside, name, mac, mtu: Some(MTU) };
        Links::add_veth(&end("eth0", Some(MAC)), &end(OWN, None))?;
        for host in HOSTS {
            let there = lab.node(host)?;
            Links::add_veth(
                &VethEnd { namespace: &there, name: NAME, mac: None, mtu: None },
                &VethEnd { namespace: &inside, name: host, mac: None, mtu: None },
            )?;
            there.sysctl(&format!("net/ipv6/conf/{NAME}/disable_ipv6"), "1")?;
            Links::open(&there)?.up(NAME)?;
        }
        // A hub: which way frames go in and out is the flip's business, not that of what was learned before it.
        let hub = BridgePort { learning: Some(false), unicast_flood: Some(true) };
        for port in HOSTS.into_iter().chain([OWN]) {
            inside.sysctl(&format!("net/ipv6/conf/{port}/disable_ipv6"), "1")?;
            links.set_bridge(port, SWITCH, hub)?;
            links.up(port)?;
        }
        links.up("eth0")?;
        for port in HOSTS.into_iter().chain([OWN]) {
            links.wait_running(port)?;
        }
        for host in &HOSTS[1..] {
            links.set_forwarding(host, false)?;
        }
        for net in [format!("{V4}/24"), format!("{V6}/64")] {
            links.add_address("eth0", net.parse()?, AddressFlags::NoDetection)?;
        }
        let sender = raw::RawSender::open(&inside, "eth0")?;
        Ok(Self { links, sender, at: 0 })
    }

    /// Where it is.
    pub(crate) fn host(&self) -> &'static str {
        HOSTS[self.at]
    }

    /// Where it moves to next.
    pub(crate) fn next(&self) -> &'static str {
        HOSTS[(self.at + 1) % HOSTS.len()]
    }

    /// Moves it. `stopped` and `running` are what the hypervisor does when the guest is stopped here, and when it goes
    /// on there; then the guest is announced, as QEMU and libvirt do.
    pub(crate) fn flip(
        &mut self,
        stopped: impl FnOnce() -> Result<()>,
        running: impl FnOnce() -> Result<()>,
    ) -> Result<Flip> {
        let (from, to) = (self.host(), self.next());
        let begun = clock::now();
        self.links.set_forwarding(from, false)?;
        let cut = clock::now();
        stopped()?;
        let joining = clock::now();
        self.links.set_forwarding(to, true)?;
        let joined = clock::now();
        running()?;
        let done = clock::now();
        self.at = (self.at + 1) % HOSTS.len();
        self.announce()?;
        let pause = (cut - begun) + (joined - joining);
        Ok(Flip { begun, pause, calls: Some([joining - cut, done - joined]), done })
    }

    /// A gratuitous ARP request and an unsolicited Neighbor Advertisement.
    pub(crate) fn announce(&self) -> Result<()> {
        for frame in [raw::arp_request(MAC, V4, V4), raw::unsolicited_advertisement(MAC, V6)] {
            // The machine's queue of received frames, which every namespace shares, may be full.
            let sent = clock::until(clock::CEILING, || match self.sender.send(&frame) {
                Err(error) if error.raw_os_error() == Some(NO_ROOM) => Ok(None),
                other => other.map(Some),
            });
            sent.context("cannot announce the guest")?.context("the guest was never announced")?;
        }
        Ok(())
    }
}
