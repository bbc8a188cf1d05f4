//! The YAML file that describes a lab.

use crate::error::LabError;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    path::Path,
};
use weft_model::MacAddr;

/// The name of a host, Oracle or tenant: also its device names, so 1 to 15 characters, and no dot,
/// because `.` separates lab and node and the BPF file system refuses it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

/// The name of a lab: 1 to 32 characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LabName(String);

fn legal(text: &str, longest: usize) -> Result<(), LabError> {
    let fits = (1..=longest).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && text.starts_with(|c: char| c.is_ascii_lowercase());
    if fits { Ok(()) } else { Err(LabError::Name(text.to_owned(), longest)) }
}

macro_rules! name {
    ($name:ident, $longest:literal) => {
        impl TryFrom<String> for $name {
            type Error = LabError;
            fn try_from(text: String) -> Result<Self, LabError> {
                legal(&text, $longest)?;
                Ok(Self(text))
            }
        }
        impl std::str::FromStr for $name {
            type Err = LabError;
            fn from_str(text: &str) -> Result<Self, LabError> {
                text.to_owned().try_into()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}
name!(NodeName, 15);
name!(LabName, 32);

/// A whole lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabSpec {
    /// The lab's name, unless the command line gives another.
    pub name: LabName,
    /// The network that the hosts share.
    #[serde(default)]
    pub underlay: UnderlaySpec,
    /// The Oracles. One at present.
    #[serde(default)]
    pub oracles: BTreeMap<NodeName, OracleSpec>,
    /// The hosts, each with an NVE unless it says otherwise.
    pub hosts: BTreeMap<NodeName, HostSpec>,
    /// The virtual networks.
    #[serde(default)]
    pub vns: BTreeMap<String, VnSpec>,
    /// The tenant systems.
    #[serde(default)]
    pub tenants: BTreeMap<NodeName, TenantSpec>,
}

/// The underlay's addresses and wiring. Both families may be given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UnderlaySpec {
    /// The IPv4 subnet; hosts take .1, .2 ... in the order of their names, Oracles from the top.
    pub ipv4: Option<Ipv4Net>,
    /// The IPv6 subnet, numbered the same way.
    pub ipv6: Option<Ipv6Net>,
    /// Which family RLOCs are of when both are given.
    pub rloc: Option<RlocFamily>,
    /// MTU of the underlay in octets.
    pub mtu: u32,
    /// How hosts are joined.
    pub wiring: Wiring,
}

impl Default for UnderlaySpec {
    fn default() -> Self {
        Self { ipv4: None, ipv6: None, rloc: None, mtu: 1500, wiring: Wiring::Bridge }
    }
}

/// The family of the hosts' RLOCs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RlocFamily {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// One of each.
    Both,
}

/// How hosts are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wiring {
    /// Every node is a port of one bridge in the `fabric` namespace.
    #[default]
    Bridge,
    /// Exactly two hosts, joined by one veth: nothing between them that a bench would measure too.
    Direct,
}

/// An Oracle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OracleSpec {
    /// Runs on this host instead of in a namespace of its own.
    pub on: Option<NodeName>,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostSpec {
    /// Whether `weft nve` runs on it.
    pub nve: bool,
}

impl Default for HostSpec {
    fn default() -> Self {
        Self { nve: true }
    }
}

/// A virtual network, as `weft vn create` takes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VnSpec {
    /// Its VNI; the Oracle chooses when absent.
    #[serde(default)]
    pub vni: Option<u32>,
    /// Its subnets.
    pub subnets: Vec<IpNet>,
    /// Its learning mode; the Oracle's default when absent.
    #[serde(default)]
    pub learning: Option<String>,
    /// Who answers Map-Requests, likewise.
    #[serde(default)]
    pub reply: Option<String>,
    /// What becomes of broadcast and multicast, likewise.
    #[serde(default)]
    pub bum: Option<String>,
}

/// A tenant system with one interface, `eth0`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantSpec {
    /// The host it runs on.
    pub host: NodeName,
    /// Its virtual network.
    pub vn: String,
    /// Its addresses; the Oracle assigns one per family of the VN when empty.
    #[serde(default)]
    pub ips: Vec<IpAddr>,
    /// Its MAC address; the Oracle assigns one when absent.
    #[serde(default)]
    pub mac: Option<MacAddr>,
    /// How it is connected to its host.
    #[serde(default)]
    pub device: DeviceKind,
}

/// How a tenant system is connected to its host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// A veth pair, like a container.
    #[default]
    Veth,
    /// A TAP, like a virtual machine: see [`crate::tap`].
    Tap,
    /// A virtual machine: QEMU, on a TAP.
    Vm,
}

impl LabSpec {
    /// Reads and checks the file `path`.
    ///
    /// # Errors
    /// When it cannot be read, is no YAML, or describes no lab; the message says where.
    pub fn read(path: &Path) -> Result<Self, LabError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| LabError::ReadSpec { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|reason| LabError::Spec { path: path.to_owned(), reason })
    }

    /// Reads and checks `text`.
    ///
    /// # Errors
    /// What is wrong with it, in one line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let options = serde_saphyr::options! { with_snippet: false };
        let spec: Self = serde_saphyr::from_str_with_options(text, options)
            .map_err(|error| error.to_string().replace('\n', " "))?;
        spec.check()?;
        Ok(spec)
    }

    /// Whether every name that is referred to exists and everything fits into the underlay.
    ///
    /// # Errors
    /// The first thing that does not, and what to do.
    pub fn check(&self) -> Result<(), String> {
        if self.hosts.is_empty() {
            return Err("there is no host: name at least one under 'hosts'".to_owned());
        }
        let mut names: BTreeSet<&str> = BTreeSet::from(["fabric"]);
        for name in self.hosts.keys().chain(self.oracles.keys()).chain(self.tenants.keys()) {
            if !names.insert(name.as_str()) {
                return Err(format!(
                    "'{name}' is used twice (and 'fabric' is the lab's own): hosts, oracles and tenants share one set of names"
                ));
            }
        }
        self.check_underlay()?;
        if self.oracles.len() > 1 {
            return Err(format!("{} oracles: Weft runs one at present", self.oracles.len()));
        }
        for (name, oracle) in &self.oracles {
            if let Some(host) = oracle.on.as_ref().filter(|host| !self.hosts.contains_key(*host)) {
                return Err(format!("oracle {name} runs on '{host}', which is no host"));
            }
        }
        for (name, tenant) in &self.tenants {
            let Some(host) = self.hosts.get(&tenant.host) else {
                return Err(format!("tenant {name} runs on '{}', which is no host", tenant.host));
            };
            if !host.nve {
                return Err(format!("tenant {name} runs on '{}', which has 'nve: false'", tenant.host));
            }
            let Some(vn) = self.vns.get(&tenant.vn) else {
                return Err(format!("tenant {name} is in VN '{}', which is not under 'vns'", tenant.vn));
            };
            if let Some(ip) = tenant.ips.iter().find(|ip| !vn.subnets.iter().any(|net| net.contains(*ip))) {
                return Err(format!("tenant {name} has {ip}, which is in no subnet of VN {}", tenant.vn));
            }
        }
        Ok(())
    }

    fn check_underlay(&self) -> Result<(), String> {
        let underlay = &self.underlay;
        let (v4, v6) = (underlay.ipv4.is_some(), underlay.ipv6.is_some());
        match underlay.rloc {
            Some(RlocFamily::Ipv4) if !v4 && v6 => return Err("rloc: ipv4 needs an ipv4 underlay".to_owned()),
            Some(RlocFamily::Both) if !v4 || !v6 => {
                return Err("rloc: both needs an ipv4 and an ipv6 underlay".to_owned());
            }
            Some(RlocFamily::Ipv6) if !v6 => return Err("rloc: ipv6 needs an ipv6 underlay".to_owned()),
            _ => {}
        }
        let nodes = self.hosts.len() + self.oracles.len();
        if let Some(net) = underlay.ipv4.filter(|net| nodes + 2 > 1 << (32 - net.prefix_len())) {
            return Err(format!("underlay {net} has no room for {nodes} nodes"));
        }
        if let Some(net) = underlay.ipv6.filter(|net| net.prefix_len() > 112) {
            return Err(format!("underlay {net} is too small: use a /112 or shorter"));
        }
        if underlay.wiring == Wiring::Direct
            && (self.hosts.len() != 2 || self.oracles.values().any(|oracle| oracle.on.is_none()))
        {
            return Err("wiring: direct needs exactly two hosts, and each oracle 'on' one of them".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
name: t
underlay: { ipv4: 192.0.2.0/24 }
oracles: { oracle: {} }
hosts: { h1: {}, h2: { nve: false } }
vns: { red: { subnets: [10.0.0.0/24, 'fd00::/64'] } }
tenants: { red-a: { host: h1, vn: red, ips: [10.0.0.1] } }
";

    #[test]
    fn reads_and_checks() {
        let spec = LabSpec::parse(GOOD).unwrap();
        assert_eq!(spec.hosts.len(), 2);
        assert_eq!(spec.tenants["red-a"].device, DeviceKind::Veth);
    }

    #[test]
    fn says_what_is_wrong() {
        for (from, to, want) in [
            ("h1: {}, h2", "h2", "runs on 'h1', which is no host"),
            ("host: h1, vn", "host: h2, vn", "has 'nve: false'"),
            ("vn: red", "vn: blue", "VN 'blue', which is not under 'vns'"),
            ("10.0.0.1]", "10.0.1.1]", "in no subnet of VN red"),
            ("red-a:", "oracle:", "'oracle' is used twice"),
            ("h1: {}", "H1: {}", "'H1' is no name"),
            ("ipv4: 192.0.2.0/24", "ipv4: 192.0.2.0/30", "has no room for 3 nodes"),
            ("ipv4:", "rloc: ipv6, ipv4:", "needs an ipv6 underlay"),
            ("ipv4:", "rloc: both, ipv4:", "needs an ipv4 and an ipv6 underlay"),
            ("ipv4:", "wiring: direct, ipv4:", "wiring: direct needs"),
            ("oracle: {}", "o1: {}, o2: {}", "2 oracles"),
            ("name: t", "name: t\nhots: {}", "hots"),
        ] {
            let text = GOOD.replace(from, to);
            assert_ne!(text, GOOD, "{from}");
            let error = LabSpec::parse(&text).unwrap_err();
            assert!(error.contains(want), "{from} -> {to}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn names_fit_devices_and_pins() {
        for bad in ["", "a.b", "a234567890123456", "1a", "A", "a_b", "é"] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad}");
        }
        assert!("a23456789012345".parse::<NodeName>().is_ok());
    }
}
