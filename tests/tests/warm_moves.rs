//! Tenant systems that move as a hypervisor moves them: prepared where they go to before they stop where they are
//! (requirements V1 to V5, H2, H3, H5).

use anyhow::{Context as _, Result, ensure};
use std::net::IpAddr;
use weft_e2e::{THREE_HOSTS, TestLab};
use weft_lab::{BridgePort, Links, VethEnd, capture::Capture, clock, echo::Echoes};
use weft_model::MacAddr;

const HOSTS: [&str; 3] = ["h1", "h2", "h3"];
/// Echo requests a second, and how many more are looked at after the first.
const RATE: u32 = 100;
const MORE: u64 = 20;

/// A guest with a connection to each host, of which one at a time carries: what a hypervisor does when it stops a
/// guest here and goes on with it there.
struct Guest<'a> {
    lab: &'a TestLab,
    links: Links,
    at: &'static str,
}

impl<'a> Guest<'a> {
    /// Attached at `at`.
    fn boot(lab: &'a mut TestLab, at: &'static str, ips: &[&str]) -> Result<Self> {
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
        words.extend(ips.iter().flat_map(|ip| ["--ip", *ip]));
        let tsi: serde_json::Value = serde_json::from_str(&guest.tsi(at, "attach", &words)?)?;
        let mac: MacAddr = tsi["mac"].as_str().context("a MAC")?.parse()?;
        guest.links.set_mac("eth0", mac)?;
        guest.links.set_mtu("eth0", u32::try_from(tsi["mtu"].as_u64().context("an MTU")?)?)?;
        guest.links.up(at)?;
        Ok(guest)
    }

    fn tsi(&self, host: &str, verb: &str, more: &[&str]) -> Result<String> {
        let socket = self.lab.files().socket(host);
        let socket = socket.to_str().context("a path that is text")?;
        let words = ["tsi", verb, "--vn", "red", "--name", "guest", "--socket", socket, "-o", "json"];
        Ok(self.lab.weft_at(host, [&words[..], more].concat())?)
    }

    /// By an operator's word, and each step at the NVE whose it is. It may not be stopped where it was: what is activated
    /// by who is next is no longer there (V10).
    fn migrate(&mut self, to: &'static str, stopped: bool) -> Result<()> {
        let from = std::mem::replace(&mut self.at, to);
        self.lab.json(&["tsi", "move", "--vn", "red", "--name", "guest", "--to", to])?;
        self.tsi(to, "associate", &["--device", "guest"])?;
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

    /// In which state each host has it.
    fn states(&self) -> Result<Vec<Option<String>>> {
        let state = |host: &&str| {
            let socket = self.lab.files().socket(host);
            let socket = socket.to_str().context("a path that is text")?;
            let all = self.lab.weft_at(host, ["tsi", "list", "--socket", socket, "-o", "json"])?;
            let all: serde_json::Value = serde_json::from_str(&all)?;
            let own = all.as_array().context("a list")?.iter().find(|tsi| tsi["tsi"] == "guest");
            Ok(own.and_then(|tsi| tsi["state"].as_str()).map(str::to_owned))
        };
        HOSTS.iter().map(state).collect()
    }
}

fn next(streams: &[Echoes]) -> Vec<u64> {
    streams.iter().map(Echoes::next).collect()
}

fn around(lab: &str) -> Result<()> {
    let mut lab = TestLab::up(lab)?;
    lab.settle()?;
    let targets: [IpAddr; 2] = ["10.0.0.77".parse()?, "fd00::77".parse()?];
    let asking = lab.node("red-a")?;
    let mut guest = Guest::boot(&mut lab, "h2", &["10.0.0.77", "fd00::77"])?;
    for net in ["10.0.0.77/24", "fd00::77/64"] {
        guest.links.add_address("eth0", net.parse()?, weft_lab::AddressFlags::NoDetection)?;
    }
    guest.links.up("eth0")?;
    let capture = Capture::underlay(guest.lab, "warm")?;
    let streams: Vec<Echoes> =
        targets.iter().map(|target| Ok(Echoes::start(&asking, *target, RATE)?)).collect::<Result<_>>()?;
    let answered_from = |numbers: &[u64], what: &str| -> Result<()> {
        for (stream, number) in streams.iter().zip(numbers) {
            let first = stream.first_answered(*number, MORE)?;
            ensure!(first == *number, "{what}: of requests from {number} on the first answered is {first}");
        }
        Ok(())
    };
    ensure!(clock::until_true(clock::CEILING, || streams.iter().all(|stream| stream.answers() > 0)));
    for (epoch, to) in (2..).zip(["h3", "h1", "h2"]) {
        let from = guest.at;
        guest.migrate(to, to != "h1")?;
        let numbers = next(&streams);
        answered_from(&numbers, &format!("{from} to {to}"))?;
        let owner = || {
            let tsis = guest.lab.json(&["get", "tsis"])?;
            let own = tsis
                .as_array()
                .into_iter()
                .flatten()
                .find(|tsi| tsi["name"] == "guest" || tsi["tsi"] == "guest");
            let own = own.with_context(|| format!("no guest in {tsis}"))?.clone();
            Ok::<_, anyhow::Error>((own["nve"] == to && own["epoch"] == epoch).then_some(own))
        };
        ensure!(clock::until(clock::CEILING, owner)?.is_some(), "{:?}", guest.lab.json(&["get", "tsis"])?);
        // Its new host has it, and nobody else.
        let wanted: Vec<Option<String>> =
            HOSTS.iter().map(|host| (*host == to).then(|| "activated".to_owned())).collect();
        guest.tsi(from, "de-associate", &[])?;
        ensure!(guest.states()? == wanted, "{:?}", guest.states()?);
    }
    let counts = capture.stop()?.counts();
    ensure!(counts.flooded() == 0, "{counts:?}");
    // Who is neither owner nor next is refused, with the owner named, and nothing changes.
    let refused = [
        ("associate", &["--device", "guest"][..], "granted to NVE 'h2'"),
        ("activate", &[], "not attached"),
        ("deactivate", &[], "not attached"),
    ];
    for (verb, more, why) in refused {
        let error = guest.tsi("h1", verb, more).err().with_context(|| format!("{verb} is not refused"))?;
        ensure!(format!("{error:#}").contains(why), "{error:#}");
    }
    drop(guest);
    lab.down()
}

#[test]
fn v5_a_guest_that_is_prepared_first_answers_the_first_request_after_its_activation() -> Result<()> {
    around(THREE_HOSTS)
}

#[test]
fn v5_over_an_ipv6_underlay_too() -> Result<()> {
    around(&THREE_HOSTS.replace("ipv4: 192.0.2.0/24", "ipv6: \"2001:db8::/64\""))
}
