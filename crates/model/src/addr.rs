//! Underlay and tenant IP addresses.

use core::{fmt, net::IpAddr, str::FromStr};
use serde::{Deserialize, Serialize};

/// A Routing Locator: the underlay unicast address of an NVE (RFC 9300 section 3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "IpAddr", into = "IpAddr")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, example = "192.0.2.1"))]
pub struct Rloc(IpAddr);

/// An IP address a tenant system may own: unicast, specified, not loopback.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "IpAddr", into = "IpAddr")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, example = "10.0.0.1"))]
pub struct TenantIp(IpAddr);

/// A multicast group whose frames go to those that asked for it by IGMP or MLD. Groups of one link (224.0.0.0/24,
/// IPv6 scopes 0 to 2) are none: nobody has to ask for them, so their frames go to everybody (RFC 4541 section 2.1.2,
/// RFC 4291 section 2.7).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "IpAddr", into = "IpAddr")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, example = "239.1.2.3"))]
pub struct GroupIp(IpAddr);

/// Why an address cannot be used so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddrError {
    /// Not an IP address.
    #[error("'{0}' is no IP address")]
    Malformed(String),
    /// Unspecified, multicast, broadcast or IPv4-mapped.
    #[error("{0} is no unicast address")]
    NotUnicast(IpAddr),
    /// Loopback.
    #[error("{0} is a loopback address")]
    Loopback(IpAddr),
    /// A link-local underlay address needs a zone, which mappings do not carry.
    #[error("{0} is link-local; an RLOC must be reachable across the underlay")]
    LinkLocal(IpAddr),
    /// Not multicast.
    #[error("{0} is no multicast address")]
    NotGroup(IpAddr),
    /// A group of one link.
    #[error("{0} is a group of one link; its frames go to everybody")]
    LinkGroup(IpAddr),
}

fn unicast(ip: IpAddr) -> Result<IpAddr, AddrError> {
    let odd = match ip {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.octets()[0] == 0 || v4.octets()[0] >= 240,
        IpAddr::V6(v6) => v6.to_ipv4_mapped().is_some(),
    };
    if odd || ip.is_unspecified() || ip.is_multicast() {
        return Err(AddrError::NotUnicast(ip));
    }
    if ip.is_loopback() {
        return Err(AddrError::Loopback(ip));
    }
    Ok(ip)
}

impl Rloc {
    /// Checks `ip`.
    ///
    /// # Errors
    /// One [`AddrError`] for each rule.
    pub fn new(ip: IpAddr) -> Result<Self, AddrError> {
        match ip {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => Err(AddrError::LinkLocal(ip)),
            _ => unicast(ip).map(Self),
        }
    }

    /// The address.
    #[must_use]
    pub const fn get(self) -> IpAddr {
        self.0
    }
}

impl TenantIp {
    /// Checks `ip`. IPv6 link-local addresses are legal: they are scoped to the VN.
    ///
    /// # Errors
    /// One [`AddrError`] for each rule.
    pub fn new(ip: IpAddr) -> Result<Self, AddrError> {
        unicast(ip).map(Self)
    }

    /// The address.
    #[must_use]
    pub const fn get(self) -> IpAddr {
        self.0
    }

    /// Whether it is an IPv6 link-local address (fe80::/10).
    #[must_use]
    pub fn is_link_local(self) -> bool {
        matches!(self.0, IpAddr::V6(v6) if v6.is_unicast_link_local())
    }
}

impl GroupIp {
    /// Checks `ip`.
    ///
    /// # Errors
    /// [`AddrError::NotGroup`] or [`AddrError::LinkGroup`].
    pub fn new(ip: IpAddr) -> Result<Self, AddrError> {
        let of_link = match ip {
            IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
            IpAddr::V6(v6) => v6.octets()[1] & 15 <= 2,
        };
        match ip.is_multicast() {
            false => Err(AddrError::NotGroup(ip)),
            true if of_link => Err(AddrError::LinkGroup(ip)),
            true => Ok(Self(ip)),
        }
    }

    /// The address.
    #[must_use]
    pub const fn get(self) -> IpAddr {
        self.0
    }
}

macro_rules! address {
    ($type:ident) => {
        impl TryFrom<IpAddr> for $type {
            type Error = AddrError;
            fn try_from(ip: IpAddr) -> Result<Self, AddrError> {
                Self::new(ip)
            }
        }

        impl From<$type> for IpAddr {
            fn from(address: $type) -> Self {
                address.0
            }
        }

        impl FromStr for $type {
            type Err = AddrError;
            fn from_str(text: &str) -> Result<Self, AddrError> {
                let ip = text.parse().map_err(|_| AddrError::Malformed(text.to_owned()))?;
                Self::new(ip)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

address!(Rloc);
address!(TenantIp);
address!(GroupIp);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_are_asked_for() {
        for good in ["224.0.1.1", "239.255.255.250", "ff05::2", "ff0e::1", "ff15::abcd", "ff03::1"] {
            assert_eq!(good.parse::<GroupIp>().unwrap().to_string(), good);
        }
        for of_link in
            ["224.0.0.1", "224.0.0.251", "ff02::1", "ff01::1", "ff00::1", "ff32::1", "ff02::1:ff00:1"]
        {
            assert_eq!(of_link.parse::<GroupIp>(), Err(AddrError::LinkGroup(of_link.parse().unwrap())));
        }
        for none in ["223.255.255.255", "240.0.0.1", "255.255.255.255", "fe80::1", "::ffff:239.1.1.1"] {
            assert_eq!(none.parse::<GroupIp>(), Err(AddrError::NotGroup(none.parse().unwrap())));
        }
    }

    #[test]
    fn reasons() {
        for bad in [
            "0.0.0.0",
            "0.1.2.3",
            "255.255.255.255",
            "240.0.0.1",
            "224.0.0.1",
            "::",
            "ff02::1",
            "::ffff:10.0.0.1",
        ] {
            assert_eq!(bad.parse::<TenantIp>(), Err(AddrError::NotUnicast(bad.parse().unwrap())), "{bad}");
            assert_eq!(bad.parse::<Rloc>(), Err(AddrError::NotUnicast(bad.parse().unwrap())), "{bad}");
        }
        assert!(matches!("::1".parse::<TenantIp>(), Err(AddrError::Loopback(_))));
        assert!(matches!("127.0.0.1".parse::<Rloc>(), Err(AddrError::Loopback(_))));
        assert!("fe80::1".parse::<TenantIp>().unwrap().is_link_local());
        assert!(matches!("fe80::1".parse::<Rloc>(), Err(AddrError::LinkLocal(_))));
        assert!(matches!("x".parse::<Rloc>(), Err(AddrError::Malformed(_))));
    }
}
