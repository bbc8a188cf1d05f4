//! Virtual networks as operators declare them.

use crate::{GroupName, Miss, NveName, Storm, TenantIp, TunnelPolicy, VnName, Vni};
use core::{fmt, net::IpAddr};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// How the NVEs of a VN learn where a MAC address is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Learning {
    /// Replicate to the members and learn from data.
    Flood,
    /// Each NVE rewrites MAC addresses to its own (RFC 7586).
    Translate,
    /// Ask the Oracle on a miss.
    #[default]
    Oracle,
    /// The Oracle pushes the table to all members.
    Distribute,
}

/// Who answers a Map-Request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Reply {
    /// The Oracle (RFC 9301 section 8.3, proxy Map-Reply): the centralized approach.
    #[default]
    Proxy,
    /// The destination NVE: the distributed approach.
    Forward,
}

/// What becomes of a tenant system's broadcast and multicast other than ARP, ND and DHCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Bum {
    /// Dropped and counted.
    #[default]
    Drop,
    /// Replicated by the sender's NVE to all NVEs of the VN (head-end replication).
    Replicate,
}

/// The subnets of one VN: any number of either family, none inside another.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<IpNet>", into = "Vec<IpNet>")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = Vec<String>))]
pub struct Subnets(Vec<IpNet>);

/// Why a list of subnets is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubnetsError {
    /// Host bits are set.
    #[error("{0} has host bits set; did you mean {net}?", net = .0.trunc())]
    HostBits(IpNet),
    /// Two of them share addresses.
    #[error("{0} and {1} overlap; addresses inside a VN must be unique")]
    Overlap(IpNet, IpNet),
    /// Not a place for unicast tenants, or too small for a host.
    #[error("{0} cannot hold tenant systems; choose a unicast subnet of at most /30 (IPv4) or /126 (IPv6)")]
    Unusable(IpNet),
}

/// A virtual network: its identity and how it behaves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VnSpec {
    /// Its name, unique.
    pub name: VnName,
    /// Its VNID, unique.
    pub vni: Vni,
    /// Where its tenant systems' addresses come from.
    #[serde(default)]
    pub subnets: Subnets,
    /// How its NVEs learn.
    #[serde(default)]
    pub learning: Learning,
    /// Who answers Map-Requests.
    #[serde(default)]
    pub reply: Reply,
    /// What becomes of broadcast and multicast.
    #[serde(default)]
    pub bum: Bum,
    /// How much of that one VAP may send.
    #[serde(default)]
    pub storm: Storm,
    /// What becomes of a frame whose destination is being asked for.
    #[serde(default)]
    pub miss: Miss,
    /// The NVE that carries such frames where they are not to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<NveName>,
    /// The security groups of tenant systems that name none. Who has none at all may do everything.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub default_groups: BTreeSet<GroupName>,
    /// Whether what access policy refuses is logged.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub log_refused: bool,
    /// How its tenant systems' frames cross the underlay, where they say nothing themselves.
    #[serde(default, skip_serializing_if = "TunnelPolicy::is_empty")]
    pub tunnel: TunnelPolicy,
}

impl VnSpec {
    /// The security groups of a tenant system that names these.
    #[must_use]
    pub fn groups_of<'a>(&'a self, named: &'a BTreeSet<GroupName>) -> &'a BTreeSet<GroupName> {
        if named.is_empty() { &self.default_groups } else { named }
    }
}

impl Subnets {
    /// Checks `nets`.
    ///
    /// # Errors
    /// One [`SubnetsError`] for each rule.
    pub fn new(mut nets: Vec<IpNet>) -> Result<Self, SubnetsError> {
        for net in &nets {
            if net.addr() != net.network() {
                return Err(SubnetsError::HostBits(*net));
            }
            let room = net.max_prefix_len() - net.prefix_len();
            if room < 2 || TenantIp::new(host(net, 1)).is_err() {
                return Err(SubnetsError::Unusable(*net));
            }
        }
        nets.sort();
        for pair in nets.windows(2) {
            if let [a, b] = pair
                && (a.contains(b) || b.contains(a))
            {
                return Err(SubnetsError::Overlap(*a, *b));
            }
        }
        Ok(Self(nets))
    }

    /// In ascending order, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.0.iter().copied()
    }

    /// The subnet `ip` lies in, if it is a host address there: not the network address of either
    /// family (for IPv6 the subnet-router anycast address) nor IPv4's broadcast address.
    #[must_use]
    pub fn host_subnet(&self, ip: IpAddr) -> Option<IpNet> {
        self.containing(ip)
            .filter(|net| ip != net.network() && !(matches!(net, IpNet::V4(_)) && ip == net.broadcast()))
    }

    /// The subnet `ip` lies in.
    #[must_use]
    pub fn containing(&self, ip: IpAddr) -> Option<IpNet> {
        self.0.iter().copied().find(|net| net.contains(&ip))
    }
}

/// The `index`-th address of `net`, counted from its network address; wraps at the family's end.
#[must_use]
fn host(net: &IpNet, index: u32) -> IpAddr {
    match net.network() {
        IpAddr::V4(v4) => IpAddr::V4((u32::from(v4).wrapping_add(index)).into()),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6).wrapping_add(index.into())).into()),
    }
}

impl TryFrom<Vec<IpNet>> for Subnets {
    type Error = SubnetsError;
    fn try_from(nets: Vec<IpNet>) -> Result<Self, SubnetsError> {
        Self::new(nets)
    }
}

impl From<Subnets> for Vec<IpNet> {
    fn from(subnets: Subnets) -> Self {
        subnets.0
    }
}

macro_rules! words {
    ($type:ident { $($variant:ident = $word:literal),* }) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $(Self::$variant => $word),* })
            }
        }
    };
}

words!(Learning { Flood = "flood", Translate = "translate", Oracle = "oracle", Distribute = "distribute" });
words!(Bum { Drop = "drop", Replicate = "replicate" });
words!(Reply { Proxy = "proxy", Forward = "forward" });

#[cfg(test)]
mod tests {
    use super::*;

    fn subnets(texts: &[&str]) -> Result<Subnets, SubnetsError> {
        Subnets::new(texts.iter().map(|t| t.parse().unwrap()).collect())
    }

    #[test]
    fn refusals() {
        let net = |t: &str| t.parse::<IpNet>().unwrap();
        assert_eq!(subnets(&["10.0.0.1/24"]), Err(SubnetsError::HostBits(net("10.0.0.1/24"))));
        assert_eq!(
            subnets(&["10.0.0.0/24", "fd00::/64", "10.0.0.128/25"]),
            Err(SubnetsError::Overlap(net("10.0.0.0/24"), net("10.0.0.128/25")))
        );
        for bad in [
            "10.0.0.0/31",
            "10.0.0.0/32",
            "fd00::/127",
            "224.0.0.0/8",
            "127.0.0.0/8",
            "ff00::/8",
            "0.0.0.0/0",
        ] {
            assert_eq!(subnets(&[bad]), Err(SubnetsError::Unusable(net(bad))), "{bad}");
        }
    }

    #[test]
    fn host_addresses() {
        let s = subnets(&["10.0.0.0/24", "fd00::/64"]).unwrap();
        for good in ["10.0.0.1", "10.0.0.254", "fd00::1", "fd00::ffff:ffff:ffff:ffff"] {
            assert!(s.host_subnet(good.parse().unwrap()).is_some(), "{good}");
        }
        for bad in ["10.0.0.0", "10.0.0.255", "10.0.1.1", "fd00::", "fd01::1"] {
            assert!(s.host_subnet(bad.parse().unwrap()).is_none(), "{bad}");
        }
        assert!(s.containing("10.0.0.255".parse().unwrap()).is_some());
    }

    #[test]
    fn spec_defaults_and_unknown_fields() {
        let spec: VnSpec =
            serde_json::from_str(r#"{"name":"red","vni":7,"subnets":["10.0.0.0/24"]}"#).unwrap();
        assert_eq!((spec.learning, spec.reply), (Learning::Oracle, Reply::Proxy));
        assert_eq!((spec.miss, spec.gateway), (Miss::Queue, None));
        assert_eq!((spec.storm.rate(), spec.storm.burst()), (1_000, 200));
        assert!(serde_json::from_str::<VnSpec>(r#"{"name":"red","vni":7,"color":1}"#).is_err());
        assert!(serde_json::from_str::<VnSpec>(r#"{"name":"red","vni":0}"#).is_err());
    }
}
