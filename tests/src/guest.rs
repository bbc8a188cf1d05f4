//! A guest that moves as a hypervisor moves it: prepared where it goes to before it stops where it is (requirements
//! V1 to V5, H2, H3, H5).

use crate::TestLab;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::net::IpAddr;
use weft_lab::{AddressFlags, BridgePort, Links, NetNs, VethEnd, clock, echo::Echoes};
use weft_model::MacAddr;

/// Those of [`THREE_HOSTS`](crate::THREE_HOSTS).
pub const HOSTS: [&str; 3] = ["h1", "h2", "h3"];
/// The guest's addresses.
pub const GUEST_IPS: [&str; 2] = ["10.0.0.77", "fd00::77"];

/// A guest with a connection to each host, of which one at a time carries: what a hypervisor does when it stops a
/// guest here and goes on with it there.
#[derive(Debug)]
pub struct Guest<'a> {
    /// Where.
    pub lab: &'a TestLab,
    /// Its devices.
    pub links: Links,
    /// The host that it is at.
    pub at: &'static str,
}

impl<'a> Guest<'a> {
    /// Attached at `at`, one of [`HOSTS`], with an address of each family.
    ///
    /// # Errors
    /// When a part of it cannot be made.
    pub fn boot(lab: &'a mut TestLab, at: &'static str) -> Result<Self> {
        let inside = lab.add_namespace("guest")?;
        let links = Links::open(&inside)?;
        links.add_bridge("switch")?;
        inside.sysctl("net/ipv6/conf/switch/disable_ipv6", "1")?;
        let end = |name| VethEnd { namespace: &inside, name, mac: None, mtu: None };
        Links::add_veth(&end("eth0"), &end("port"))?;
        for host in HOSTS {
            let there = lab.node(host)?;
            Links::add_veth(
                &VethEnd { namespace: &there, name: "guest", mac: None, mtu: None },
                &VethEnd { namespace: &inside, name: host, mac: None, mtu: None },
            )?;
            there.sysctl("net/ipv6/conf/guest/disable_ipv6", "1")?;
            Links::open(&there)?.up("guest")?;
        }
        for port in HOSTS.into_iter().chain(["port"]) {
            inside.sysctl(&format!("net/ipv6/conf/{port}/disable_ipv6"), "1")?;
            links.set_bridge(port, "switch", BridgePort::default())?;
        }
        links.up("port")?;
        links.up("switch")?;
        let guest = Self { lab, links, at };
        let mut words = vec!["--device", "guest"];
        words.extend(GUEST_IPS.iter().flat_map(|ip| ["--ip", *ip]));
        let tsi: serde_json::Value = serde_json::from_str(&guest.tsi(at, "attach", &words)?)?;
        let mac: MacAddr = tsi["mac"].as_str().context("a MAC")?.parse()?;
        guest.links.set_mac("eth0", mac)?;
        guest.links.set_mtu("eth0", u32::try_from(tsi["mtu"].as_u64().context("an MTU")?)?)?;
        for (ip, length) in GUEST_IPS.iter().zip([24, 64]) {
            guest.links.add_address("eth0", format!("{ip}/{length}").parse()?, AddressFlags::NoDetection)?;
        }
        guest.links.up(at)?;
        // Its link-local address is its own once it has tried it out where its host hears it.
        guest.links.wait_running(at)?;
        guest.links.up("eth0")?;
        Ok(guest)
    }

    /// Echo requests to each of its addresses, `rate` a second, of which it has answered some.
    ///
    /// # Errors
    /// When it answers none.
    pub fn asked_from(&self, node: &NetNs, rate: u32) -> Result<Vec<Echoes>> {
        let stream = |ip: &&str| Ok(Echoes::start(node, ip.parse::<IpAddr>()?, rate)?);
        let streams: Vec<Echoes> = GUEST_IPS.iter().map(stream).collect::<Result<_>>()?;
        let answered = || streams.iter().all(|stream| stream.answers() > 0);
        ensure!(clock::until_true(clock::CEILING, answered), "the guest answers nobody");
        Ok(streams)
    }

    /// `weft tsi VERB` about it at a host, as JSON.
    ///
    /// # Errors
    /// When it fails.
    pub fn tsi(&self, host: &str, verb: &str, more: &[&str]) -> Result<String> {
        guest_tsi(self.lab, host, verb, more)
    }

    /// By an operator's word, and each step at the NVE whose it is. It may not be stopped where it was: what is activated
    /// by who is next is no longer there (V10).
    ///
    /// # Errors
    /// When a step fails.
    pub fn migrate(&mut self, to: &'static str, stopped: bool) -> Result<()> {
        let from = std::mem::replace(&mut self.at, to);
        self.lab.json(&["tsi", "move", "--vn", "red", "--name", "guest", "--to", to])?;
        // Where it was not stopped it speaks there before its hypervisor says so.
        self.tsi(to, "associate", &["--device", "guest", "--explicit"])?;
        self.links.down(from)?;
        self.links.up(to)?;
        // The kernel may take a second to say so, and its bridge forwards nothing before.
        self.links.wait_running(to)?;
        if stopped {
            self.tsi(from, "deactivate", &[])?;
        }
        self.tsi(to, "activate", &[])?;
        Ok(())
    }

    /// The same, but that nobody activates it where it goes to: it is stopped where it was, and goes on there.
    ///
    /// # Errors
    /// When a step fails.
    pub fn migrate_silently(&mut self, to: &'static str) -> Result<()> {
        let from = std::mem::replace(&mut self.at, to);
        self.lab.json(&["tsi", "move", "--vn", "red", "--name", "guest", "--to", to])?;
        self.tsi(to, "associate", &["--device", "guest"])?;
        self.links.down(from)?;
        self.tsi(from, "deactivate", &[])?;
        self.links.up(to)?;
        Ok(self.links.wait_running(to)?)
    }

    /// The events of it at a host behind one of a number, until one that is wanted has come.
    ///
    /// # Errors
    /// When it does not come.
    pub fn told(&self, host: &str, wanted: impl Fn(&Value) -> bool) -> Result<Vec<Value>> {
        let socket = self.lab.files().socket(host);
        let socket = socket.to_str().context("a path that is text")?;
        let mut told: Vec<Value> = Vec::new();
        let came = clock::until(clock::CEILING, || {
            let after = told.last().map_or(0, |last| last["number"].as_u64().unwrap_or_default()).to_string();
            let words =
                ["tsi", "events", "--socket", socket, "-o", "json", "--after", &after, "--count", "1"];
            let text = self.lab.weft_at(host, words)?;
            for line in text.lines() {
                told.push(serde_json::from_str(line).with_context(|| format!("an event: {line}"))?);
            }
            Ok::<_, anyhow::Error>(told.last().is_some_and(&wanted).then_some(()))
        })?;
        ensure!(came.is_some(), "{host} has told only {told:?}");
        told.retain(|event| event["tsi"] == "guest");
        Ok(told)
    }

    /// In which state each host has it.
    ///
    /// # Errors
    /// When a host cannot be asked.
    pub fn states(&self) -> Result<Vec<Option<String>>> {
        guest_states(self.lab)
    }
}

/// `weft tsi VERB` about the guest at a host, as JSON.
///
/// # Errors
/// When it fails.
pub fn guest_tsi(lab: &TestLab, host: &str, verb: &str, more: &[&str]) -> Result<String> {
    let socket = lab.files().socket(host);
    let socket = socket.to_str().context("a path that is text")?;
    let words = ["tsi", verb, "--vn", "red", "--name", "guest", "--socket", socket, "-o", "json"];
    Ok(lab.weft_at(host, [&words[..], more].concat())?)
}

/// In which state each of [`HOSTS`] has the guest.
///
/// # Errors
/// When a host cannot be asked.
pub fn guest_states(lab: &TestLab) -> Result<Vec<Option<String>>> {
    let state = |host: &&str| {
        let socket = lab.files().socket(host);
        let socket = socket.to_str().context("a path that is text")?;
        let all = lab.weft_at(host, ["tsi", "list", "--socket", socket, "-o", "json"])?;
        let all: serde_json::Value = serde_json::from_str(&all)?;
        let own = all.as_array().context("a list")?.iter().find(|tsi| tsi["tsi"] == "guest");
        Ok(own.and_then(|tsi| tsi["state"].as_str()).map(str::to_owned))
    };
    HOSTS.iter().map(state).collect()
}
