//! One lab in which each way of learning has a VN, all of the same subnets and addresses; and what stands in the
//! tables of its hosts.

use anyhow::{Context as _, Result, bail, ensure};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::{IpAddr, Ipv6Addr},
};
use weft_e2e::TestLab;
use weft_lab::{
    capture::{Captured, Class, Frame, Kind},
    clock,
};
use weft_model::MacAddr;

/// The underlays of the lab.
pub const UNDERLAYS: [&str; 2] = ["ipv4: 192.0.2.0/24", "ipv6: \"2001:db8::/64\""];
pub const HOSTS: [&str; 3] = ["h1", "h2", "h3"];

/// A way of learning; [`Mode::vn`] is its VN's name too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Proxy,
    Forward,
    Push,
    Translate,
    Flood,
}

/// The tenant systems of each VN: the last octet of their addresses and their hosts.
pub const TENANTS: [(char, u8, &str); 4] = [('a', 1, "h1"), ('b', 2, "h2"), ('c', 3, "h3"), ('d', 4, "h1")];

impl Mode {
    pub const ALL: [Self; 5] = [Self::Proxy, Self::Forward, Self::Push, Self::Translate, Self::Flood];

    pub const fn vn(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Forward => "forward",
            Self::Push => "push",
            Self::Translate => "translate",
            Self::Flood => "flood",
        }
    }

    pub const fn vni(self) -> u32 {
        7001 + self as u32
    }

    const fn settings(self) -> &'static str {
        match self {
            Self::Proxy => "learning: oracle, reply: proxy",
            Self::Forward => "learning: oracle, reply: forward",
            Self::Push => "learning: distribute",
            Self::Translate => "learning: translate",
            Self::Flood => "learning: flood",
        }
    }

    /// Whether questions that nobody here can answer go to all members of the VN.
    pub const fn asks_members(self) -> bool {
        matches!(self, Self::Translate | Self::Flood)
    }

    pub fn tenant(self, letter: char) -> String {
        format!("{}-{letter}", self.vn())
    }

    /// The MAC address of its tenant system with this octet: another one in each VN.
    pub fn mac(self, octet: u8) -> MacAddr {
        MacAddr([2, 0, 0, 0, self as u8 + 1, octet])
    }

    /// The anycast MAC of its VN.
    pub fn anycast(self) -> Result<MacAddr> {
        Ok(MacAddr::anycast(self.vni().try_into()?))
    }
}

/// Both addresses that end with `octet`.
pub fn ips(octet: u8) -> [IpAddr; 2] {
    [IpAddr::from([10, 0, 0, octet]), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, octet.into()).into()]
}

/// The lab's description.
pub fn yaml(underlay: &str) -> String {
    let mut yaml = format!(
        "name: modes\nunderlay: {{ {underlay} }}\noracles: {{ oracle: {{}} }}\n\
         hosts: {{ h1: {{}}, h2: {{}}, h3: {{}} }}\n"
    );
    let (mut vns, mut tenants) = ("vns:\n".to_owned(), "tenants:\n".to_owned());
    for mode in Mode::ALL {
        let (vn, vni, how) = (mode.vn(), mode.vni(), mode.settings());
        let _ = writeln!(vns, "  {vn}: {{ vni: {vni}, {how}, subnets: [10.0.0.0/24, \"fd00::/64\"] }}");
        for (letter, octet, host) in TENANTS {
            let _ = writeln!(
                tenants,
                "  {vn}-{letter}: {{ host: {host}, vn: {vn}, mac: \"{}\", ips: [10.0.0.{octet}, \"fd00::{octet}\"] }}",
                mode.mac(octet)
            );
        }
    }
    yaml.push_str(&vns);
    yaml.push_str(&tenants);
    yaml
}

/// What an NVE knows of an address, and from whom: the address, the MAC address behind it, where that is, how
/// it was learned.
pub type Row = (String, Option<MacAddr>, Option<IpAddr>, String);

/// All that the NVE of `host` was told of others in `mode`'s VN, or asked for.
pub fn known(lab: &TestLab, host: &str, mode: Mode) -> Result<BTreeSet<Row>> {
    let mut all = all_known(lab, host, mode)?;
    all.retain(|(.., origin)| origin != "data");
    Ok(all)
}

/// All that its data plane has learned from frames.
pub fn learned(lab: &TestLab, host: &str, mode: Mode) -> Result<BTreeSet<Row>> {
    let mut all = all_known(lab, host, mode)?;
    all.retain(|(.., origin)| origin == "data");
    Ok(all)
}

fn all_known(lab: &TestLab, host: &str, mode: Mode) -> Result<BTreeSet<Row>> {
    let text = lab.weft(["get", "mappings", "--nve", host, "-o", "json"])?;
    let all: Vec<serde_json::Value> = serde_json::from_str(&text)?;
    all.iter()
        .filter(|row| row["vn"] == mode.vn())
        .map(|row| {
            let mac = row["mac"].as_str().map(str::parse).transpose()?;
            let rloc: Option<IpAddr> = row["rloc"].as_str().map(str::parse).transpose()?;
            let named = row["nve"].as_str().map(|nve| lab.rloc(nve)).transpose()?;
            ensure!(named == rloc, "whose RLOC it is: {row}");
            let eid = weft_e2e::eid(row).with_context(|| format!("{row}"))?.to_owned();
            // Asked for, or told of because somebody was asked for: which of the two is a race.
            let origin = match row["origin"].as_str() {
                Some("reply" | "notify") => "answer",
                Some(other) => other,
                None => bail!("{row}"),
            };
            Ok((eid, mac, rloc, origin.to_owned()))
        })
        .collect()
}

/// What is to be known of a tenant system: its MAC address and IP addresses; with `link_local` the one it made of
/// its MAC address too.
pub fn rows(lab: &TestLab, mode: Mode, octet: u8, origin: &str, link_local: bool) -> Result<BTreeSet<Row>> {
    let (_, _, host) = TENANTS.into_iter().find(|(_, one, _)| *one == octet).context("a tenant")?;
    let (mac, rloc) = (mode.mac(octet), lab.rloc(host)?);
    let [a, b, c, d, e, f] = mac.octets().map(u16::from);
    let made = Ipv6Addr::new(0xfe80, 0, 0, 0, (a ^ 2) << 8 | b, c << 8 | 0xff, 0xfe00 | d, e << 8 | f);
    let eids = ips(octet).map(|ip| ip.to_string()).into_iter().chain(link_local.then(|| made.to_string()));
    let eids = eids.chain([mac.to_string()]);
    Ok(eids.map(|eid| (eid, Some(mac), Some(rloc), origin.to_owned())).collect())
}

/// Waits until the NVE of `host` knows exactly this in `mode`'s VN.
pub fn until_known(lab: &TestLab, host: &str, mode: Mode, wanted: &BTreeSet<Row>) -> Result<()> {
    until_holds(lab, host, mode, wanted, |_| true)
}

/// The same beside addresses that it knows to be nobody's.
pub fn until_located(lab: &TestLab, host: &str, mode: Mode, wanted: &BTreeSet<Row>) -> Result<()> {
    until_holds(lab, host, mode, wanted, |(_, mac, ..)| mac.is_some())
}

fn until_holds(
    lab: &TestLab,
    host: &str,
    mode: Mode,
    wanted: &BTreeSet<Row>,
    of: impl Fn(&Row) -> bool,
) -> Result<()> {
    let mut now = BTreeSet::new();
    let seen = clock::until(clock::CEILING, || {
        now = known(lab, host, mode)?;
        now.retain(&of);
        anyhow::Ok((now == *wanted).then_some(()))
    })?;
    let (more, less): (Vec<_>, Vec<_>) =
        (now.difference(wanted).collect(), wanted.difference(&now).collect());
    ensure!(seen.is_some(), "{host}, {mode:?}: knows beside what it should {more:?}, does not know {less:?}");
    Ok(())
}

/// How many entries each table of `host`'s data plane has.
pub fn tables(lab: &TestLab, host: &str) -> Result<BTreeMap<String, u64>> {
    let socket = lab.files().socket(host);
    let socket = socket.to_str().context("a path that is text")?;
    let text = lab.weft_at(host, ["get", "tables", "--socket", socket, "-o", "json"])?;
    let all: Vec<serde_json::Value> = serde_json::from_str(&text)?;
    // One of fixed size says no number.
    all.iter()
        .filter(|one| one["entries"].is_u64())
        .map(|one| {
            let name = one["table"].as_str().with_context(|| format!("{one}"))?;
            // A trie without entries takes none.
            let bytes = one["bytes"].as_u64() > Some(0) || one["entries"] == 0;
            ensure!(bytes && one["room"].as_u64() > Some(0), "{one}");
            Ok((name.to_owned(), one["entries"].as_u64().unwrap_or_default()))
        })
        .collect()
}

/// The frames of `mode`'s VN on the underlay.
pub fn of_vn(captured: &Captured, mode: Mode) -> impl Iterator<Item = &Frame> {
    captured
        .frames
        .iter()
        .filter(move |frame| matches!(frame.class, Class::Vxlan { vni, .. } if vni == mode.vni()))
}

/// Group frames of ARP and Neighbor Discovery of `mode`'s VN on the underlay: Router Solicitations too, except where
/// everything is flooded. Not announcements, of which the second may come at any time.
pub fn asked_of_everybody(captured: &Captured, mode: Mode) -> usize {
    let announced =
        |frame: &Frame| frame.discovery.is_some_and(|said| said.answer || said.from == said.about);
    of_vn(captured, mode)
        .filter(|frame| !announced(frame))
        .filter(|frame| match frame.class {
            Class::Vxlan { group: true, inner: Kind::Arp | Kind::NeighbourSolicitation, .. } => true,
            Class::Vxlan { group: true, inner, .. } => mode != Mode::Flood && inner.is_discovery(),
            _ => false,
        })
        .count()
}

/// The LISP datagrams on the underlay, each from and to whom.
pub fn lisp(captured: &Captured) -> Vec<(IpAddr, IpAddr)> {
    let lisp = captured.frames.iter().filter(|frame| frame.class == Class::LispUdp);
    lisp.filter_map(|frame| Some((frame.from?, frame.to?))).collect()
}
