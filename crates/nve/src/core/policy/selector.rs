//! What rules tell remote addresses apart by.

use ::core::{fmt, net::IpAddr, str::FromStr};
use std::collections::{BTreeMap, BTreeSet};
use weft_datapath::Prefix;
use weft_model::{
    GroupName, IpNet, Rule,
    policy::{Family, Peer, PeerError},
};

/// A set of remote addresses that a rule names. Two addresses that the same selectors of a VN hold for are treated alike:
/// they are of one class.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selector {
    /// Those of a prefix.
    Prefix(IpNet),
    /// Those of a group's tenant systems, of one version of IP or both.
    Group(GroupName, Option<Family>),
}

impl Selector {
    /// What a rule is about; none when it is anybody.
    pub fn of(rule: &Rule) -> Option<Self> {
        match (rule.peer(), rule.family()) {
            (Peer::Prefix(net), _) => Some(Self::Prefix(*net)),
            (Peer::Group(name), family) => Some(Self::Group(name.clone(), family)),
            (Peer::Anybody, Some(Family::Ipv4)) => Some(Self::Prefix(IpNet::V4(Default::default()))),
            (Peer::Anybody, Some(Family::Ipv6)) => Some(Self::Prefix(IpNet::V6(Default::default()))),
            (Peer::Anybody, None) => None,
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(net) => fmt::Display::fmt(net, f),
            Self::Group(name, None) => write!(f, "group:{name}"),
            Self::Group(name, Some(family)) => write!(f, "group:{name} {family}"),
        }
    }
}

impl FromStr for Selector {
    type Err = PeerError;

    fn from_str(text: &str) -> Result<Self, PeerError> {
        let (peer, family) = match text.split_once(' ') {
            Some((peer, "ipv4")) => (peer, Some(Family::Ipv4)),
            Some((peer, _)) => (peer, Some(Family::Ipv6)),
            None => (text, None),
        };
        match peer.parse()? {
            Peer::Prefix(net) => Ok(Self::Prefix(net)),
            Peer::Group(name) => Ok(Self::Group(name, family)),
            Peer::Anybody => Err(PeerError::Unknown(text.to_owned())),
        }
    }
}

/// A class: the selectors that hold for its addresses.
pub type Class = BTreeSet<Selector>;

/// The selectors that the rules in use in one VN have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selectors {
    prefixes: BTreeSet<Prefix>,
    /// The lengths of `prefixes`, with whether they are of IPv4.
    lengths: BTreeSet<(bool, u8)>,
    groups: BTreeMap<GroupName, BTreeSet<Option<Family>>>,
}

impl Selectors {
    pub fn add(&mut self, selector: &Selector) {
        match selector {
            Selector::Prefix(net) => {
                if let Some(prefix) = prefix(net) {
                    self.prefixes.insert(prefix);
                    self.lengths.insert((prefix.addr().is_ipv4(), prefix.bits()));
                }
            }
            Selector::Group(name, family) => {
                self.groups.entry(name.clone()).or_default().insert(*family);
            }
        }
    }

    /// The prefixes among them.
    pub fn prefixes(&self) -> impl Iterator<Item = Prefix> + '_ {
        self.prefixes.iter().copied()
    }

    /// Whether one is this address alone.
    pub fn names(&self, ip: IpAddr) -> bool {
        self.prefixes.contains(&Prefix::from(ip))
    }

    /// The class of the addresses of `of` that nothing longer is said about: who is at it, if it is one address, is in
    /// these groups.
    pub fn class_of(&self, of: Prefix, groups: &BTreeSet<GroupName>) -> Class {
        let v4 = of.addr().is_ipv4();
        let lengths = self.lengths.range((v4, 0)..=(v4, of.bits()));
        let around = lengths.filter_map(|(_, bits)| Prefix::new(of.addr(), *bits).ok());
        let around = around.filter(|prefix| self.prefixes.contains(prefix));
        let mut class: Class = around.filter_map(net).map(Selector::Prefix).collect();
        for name in groups {
            for family in self.groups.get(name).into_iter().flatten() {
                if family.is_none_or(|family| family == Family::of(of.addr())) {
                    class.insert(Selector::Group(name.clone(), *family));
                }
            }
        }
        class
    }
}

/// As the data plane writes it. A rule's prefix has one.
pub fn prefix(net: &IpNet) -> Option<Prefix> {
    Prefix::new(net.addr(), net.prefix_len()).ok()
}

fn net(prefix: Prefix) -> Option<IpNet> {
    IpNet::new(prefix.addr(), prefix.bits()).ok()
}
