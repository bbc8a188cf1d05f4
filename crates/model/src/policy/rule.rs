//! One rule, legal by construction.

use super::{Family, IcmpType, Peer, PortRange, Protocol};
use core::{fmt, net::IpAddr};
use serde::{Deserialize, Serialize};

/// Which way a connection is opened, seen from the tenant system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Toward {
    /// By somebody else, to it.
    In,
    /// By it, to somebody else.
    Out,
}

/// A remark of people for people: at most 128 characters of one line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
pub struct Description(String);

/// Why a text is no description.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescriptionError {
    /// Too long.
    #[error("a description of {0} characters is too long; use at most 128")]
    TooLong(usize),
    /// Nothing, more than one line, or begins or ends with a space.
    #[error("the description '{0}' must be one line of text without spaces around it; leave it out for none")]
    Line(String),
}

/// What a rule is made of, as it is written down. [`Rule::new`] checks it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RuleFields {
    /// Which way.
    pub toward: Toward,
    /// The protocol.
    #[serde(default)]
    pub protocol: Protocol,
    /// The ports at the end that is connected to, of TCP or UDP; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<PortRange>,
    /// The message, of ICMP or ICMPv6; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<IcmpType>,
    /// The other end.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "group:web"))]
    pub peer: Peer,
    /// The version of IP; both when neither this nor the other end says which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
    /// Whether the first packet of each connection that it allows is logged.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub log: bool,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Description>,
}

/// What is allowed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "RuleFields", into = "RuleFields")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rule {
    toward: Toward,
    protocol: Protocol,
    ports: Option<PortRange>,
    icmp: Option<IcmpType>,
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "group:web"))]
    peer: Peer,
    family: Option<Family>,
    log: bool,
    description: Option<Description>,
}

/// Why fields make no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Ports upside down.
    #[error("ports {first}-{last} are upside down; did you mean {last}-{first}?")]
    UpsideDown {
        /// Said to be the lowest.
        first: u16,
        /// Said to be the highest.
        last: u16,
    },
    /// Ports of a protocol that has none.
    #[error("{protocol} has no ports ({ports}); use tcp or udp, or leave them out")]
    NoPorts {
        /// The protocol.
        protocol: Protocol,
        /// The ports.
        ports: PortRange,
    },
    /// A message type of a protocol that has none.
    #[error("{protocol} has no message types ({icmp}); use icmp or icmpv6, or leave it out")]
    NoTypes {
        /// The protocol.
        protocol: Protocol,
        /// The type.
        icmp: IcmpType,
    },
    /// The protocol belongs to the other version of IP.
    #[error("{protocol} is no protocol of {said}; use {}", if *.protocol == Protocol::ICMP { "icmpv6" } else { "icmp" })]
    OtherProtocol {
        /// The protocol.
        protocol: Protocol,
        /// What says which version: the family or the prefix.
        said: String,
    },
    /// The prefix belongs to the other version of IP.
    #[error("{peer} is not of family {family}; leave the family out")]
    OtherFamily {
        /// The other end.
        peer: Peer,
        /// The family.
        family: Family,
    },
}

impl Rule {
    /// Checks `fields`. A family that the other end says already is forgotten.
    ///
    /// # Errors
    /// One [`RuleError`] for each thing that contradicts another.
    pub fn new(fields: RuleFields) -> Result<Self, RuleError> {
        let RuleFields { toward, protocol, ports, icmp, peer, family, log, description } = fields;
        if let Some(PortRange { first, last }) = ports.filter(|ports| ports.first > ports.last) {
            return Err(RuleError::UpsideDown { first, last });
        }
        if let Some(ports) = ports.filter(|_| !protocol.has_ports()) {
            return Err(RuleError::NoPorts { protocol, ports });
        }
        if let Some(icmp) = icmp.filter(|_| !protocol.has_types()) {
            return Err(RuleError::NoTypes { protocol, icmp });
        }
        if let (Some(of_peer), Some(family)) = (peer.family(), family)
            && of_peer != family
        {
            return Err(RuleError::OtherFamily { peer, family });
        }
        let other = match protocol {
            Protocol::ICMP => Some(Family::Ipv6),
            Protocol::ICMPV6 => Some(Family::Ipv4),
            _ => None,
        };
        if let Some(said) = family.or(peer.family()).filter(|said| Some(*said) == other) {
            let said = peer.family().map_or_else(|| said.to_string(), |_| peer.to_string());
            return Err(RuleError::OtherProtocol { protocol, said });
        }
        let family = family.filter(|_| peer.family().is_none());
        // All ports are no ports to look at.
        let ports = ports.filter(|ports| (ports.first, ports.last) != (0, u16::MAX));
        Ok(Self { toward, protocol, ports, icmp, peer, family, log, description })
    }

    /// Which way.
    #[must_use]
    pub const fn toward(&self) -> Toward {
        self.toward
    }

    /// The protocol.
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The numbers that it allows where a packet has a destination port, both ends included; of ICMP and ICMPv6 they
    /// are type times 256 plus code. None: all.
    #[must_use]
    pub fn numbers(&self) -> Option<(u16, u16)> {
        let icmp = self.icmp.map(|IcmpType { r#type, code }| {
            let at = |code| u16::from_be_bytes([r#type, code]);
            (at(code.unwrap_or(0)), at(code.unwrap_or(u8::MAX)))
        });
        self.ports.map(|ports| (ports.first, ports.last)).or(icmp)
    }

    /// The ports, as written; none for all.
    #[must_use]
    pub const fn ports(&self) -> Option<PortRange> {
        self.ports
    }

    /// The message type, as written; none for all.
    #[must_use]
    pub const fn icmp(&self) -> Option<IcmpType> {
        self.icmp
    }

    /// The other end.
    #[must_use]
    pub const fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The version of IP, where only this says which.
    #[must_use]
    pub const fn family(&self) -> Option<Family> {
        self.family
    }

    /// Whether what it allows is logged.
    #[must_use]
    pub const fn log(&self) -> bool {
        self.log
    }

    /// The remark.
    #[must_use]
    pub const fn description(&self) -> Option<&Description> {
        self.description.as_ref()
    }

    /// What it allows and nothing else of it: two rules with the same of this are one.
    #[must_use]
    pub fn bare(&self) -> Self {
        Self { log: false, description: None, ..self.clone() }
    }

    /// Whether it allows the first packet of a connection: `number` is the destination port, or of ICMP and ICMPv6 type
    /// times 256 plus code, and `is_in` says whether the other end is in a group.
    pub fn allows(
        &self,
        toward: Toward,
        protocol: u8,
        number: u16,
        remote: IpAddr,
        is_in: impl FnOnce(&super::GroupName) -> bool,
    ) -> bool {
        self.toward == toward
            && self.protocol.number().is_none_or(|own| own == protocol)
            && self.numbers().is_none_or(|(first, last)| (first..=last).contains(&number))
            && self.family.is_none_or(|family| family == Family::of(remote))
            && match &self.peer {
                Peer::Anybody => true,
                Peer::Prefix(net) => net.contains(&remote),
                Peer::Group(name) => is_in(name),
            }
    }
}

impl Description {
    /// The most characters.
    pub const MAX: usize = 128;

    /// Checks `text`.
    ///
    /// # Errors
    /// [`DescriptionError`].
    pub fn new(text: impl Into<String>) -> Result<Self, DescriptionError> {
        let text = text.into();
        let length = text.chars().count();
        if length > Self::MAX {
            return Err(DescriptionError::TooLong(length));
        }
        if text.is_empty() || text.trim() != text || text.chars().any(char::is_control) {
            return Err(DescriptionError::Line(text.chars().filter(|c| !c.is_control()).collect()));
        }
        Ok(Self(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Description {
    type Error = DescriptionError;
    fn try_from(text: String) -> Result<Self, DescriptionError> {
        Self::new(text)
    }
}

impl From<Description> for String {
    fn from(description: Description) -> Self {
        description.0
    }
}

impl TryFrom<RuleFields> for Rule {
    type Error = RuleError;
    fn try_from(fields: RuleFields) -> Result<Self, RuleError> {
        Self::new(fields)
    }
}

impl From<Rule> for RuleFields {
    fn from(rule: Rule) -> Self {
        let Rule { toward, protocol, ports, icmp, peer, family, log, description } = rule;
        Self { toward, protocol, ports, icmp, peer, family, log, description }
    }
}

impl fmt::Display for Toward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::In => "in",
            Self::Out => "out",
        })
    }
}
