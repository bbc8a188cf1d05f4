//! What one frame on the underlay is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use weft_model::MacAddr;

use super::discovery::Discovery;
use crate::commands::{API_PORT, LISP_PORT, VXLAN_PORT};

/// What kind of frame an Ethernet frame is, underlay or tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An ARP request or reply.
    Arp,
    /// A Neighbour Solicitation.
    NeighbourSolicitation,
    /// A Neighbour Advertisement.
    NeighbourAdvertisement,
    /// A Router Solicitation.
    RouterSolicitation,
    /// A Router Advertisement.
    RouterAdvertisement,
    /// An MLD report or query.
    Mld,
    /// Anything else.
    Data,
}

impl Kind {
    /// Whether it is one that "nothing is flooded" speaks of: ARP, NS, NA, RS, RA.
    #[must_use]
    pub const fn is_discovery(self) -> bool {
        !matches!(self, Self::Mld | Self::Data)
    }

    /// A short name for tables.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Arp => "ARP",
            Self::NeighbourSolicitation => "NS",
            Self::NeighbourAdvertisement => "NA",
            Self::RouterSolicitation => "RS",
            Self::RouterAdvertisement => "RA",
            Self::Mld => "MLD",
            Self::Data => "data",
        }
    }
}

/// What one frame on the underlay carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// VXLAN with a tenant's frame inside.
    Vxlan {
        /// The VNI.
        vni: u32,
        /// Whether the tenant's frame has a group destination MAC.
        group: bool,
        /// What the tenant's frame is.
        inner: Kind,
    },
    /// LISP on UDP 4342.
    LispUdp,
    /// The session between NVE and Oracle, TCP 4342.
    Session,
    /// The /v1 API, TCP 4343.
    Api,
    /// The underlay's own ARP, ND or MLD.
    Underlay(Kind),
    /// Anything else.
    Other,
}

/// One frame on the underlay, with what a test may ask about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it carries.
    pub class: Class,
    /// Outer source, if it is IP.
    pub from: Option<IpAddr>,
    /// Outer destination, if it is IP.
    pub to: Option<IpAddr>,
    /// Outer TTL or hop limit, and the octet of DSCP and ECN, if it is IP.
    pub ttl_and_ds: Option<(u8, u8)>,
    /// How long it was, octets, from its Ethernet header on.
    pub len: usize,
    /// Source and destination MAC of the tenant's frame, for VXLAN.
    pub inner: Option<(MacAddr, MacAddr)>,
    /// Source and destination address of the tenant's frame, for VXLAN with IP inside.
    pub inner_ips: Option<(IpAddr, IpAddr)>,
    /// Its own source and destination MAC.
    pub macs: Option<(MacAddr, MacAddr)>,
    /// What ARP or Neighbor Discovery says in it: the tenant's, for VXLAN.
    pub discovery: Option<Discovery>,
}

pub(super) struct Ip {
    pub(super) from: IpAddr,
    pub(super) to: IpAddr,
    pub(super) protocol: u8,
    pub(super) ttl: u8,
    pub(super) ds: u8,
    /// Where the payload begins.
    pub(super) at: usize,
}

/// Reads the frame `bytes`; whatever is cut short counts as [`Class::Other`].
#[must_use]
pub fn classify(bytes: &[u8]) -> Frame {
    let len = bytes.len();
    let other = Frame {
        class: Class::Other,
        from: None,
        to: None,
        ttl_and_ds: None,
        len,
        inner: None,
        inner_ips: None,
        macs: mac_at(bytes, 6).zip(mac_at(bytes, 0)),
        discovery: Discovery::of(bytes),
    };
    let Some(ip) = ip(bytes) else {
        return Frame { class: underlay(kind(bytes)), ..other };
    };
    let ttl_and_ds = Some((ip.ttl, ip.ds));
    let frame = Frame { from: Some(ip.from), to: Some(ip.to), ttl_and_ds, ..other };
    let ports = (u16_at(bytes, ip.at), u16_at(bytes, ip.at + 2));
    let class = match (ip.protocol, ports) {
        (17, (_, Some(VXLAN_PORT))) => return vxlan(&frame, bytes.get(ip.at + 8..).unwrap_or(&[])),
        (17, (Some(LISP_PORT), _) | (_, Some(LISP_PORT))) => Class::LispUdp,
        (6, (Some(LISP_PORT), _) | (_, Some(LISP_PORT))) => Class::Session,
        (6, (Some(API_PORT), _) | (_, Some(API_PORT))) => Class::Api,
        _ => underlay(kind(bytes)),
    };
    Frame { class, ..frame }
}

fn underlay(kind: Kind) -> Class {
    if kind == Kind::Data { Class::Other } else { Class::Underlay(kind) }
}

/// RFC 7348 section 5: eight octets, the VNI in the fifth to seventh, then the tenant's frame.
fn vxlan(frame: &Frame, payload: &[u8]) -> Frame {
    let (Some(vni), Some(inner)) = (payload.get(4..7), payload.get(8..)) else { return *frame };
    let (Some(to), Some(from)) = (mac_at(inner, 0), mac_at(inner, 6)) else { return *frame };
    Frame {
        class: Class::Vxlan {
            vni: u32::from_be_bytes([0, vni[0], vni[1], vni[2]]),
            group: to.is_group(),
            inner: kind(inner),
        },
        inner: Some((from, to)),
        inner_ips: ip(inner).map(|ip| (ip.from, ip.to)),
        discovery: Discovery::of(inner),
        ..*frame
    }
}

/// What kind of Ethernet frame `bytes` is.
#[must_use]
pub fn kind(bytes: &[u8]) -> Kind {
    if u16_at(bytes, 12) == Some(0x0806) {
        return Kind::Arp;
    }
    match ip(bytes) {
        Some(ip) if ip.protocol == 58 => match bytes.get(ip.at) {
            Some(130..=132 | 143) => Kind::Mld,
            Some(133) => Kind::RouterSolicitation,
            Some(134) => Kind::RouterAdvertisement,
            Some(135) => Kind::NeighbourSolicitation,
            Some(136) => Kind::NeighbourAdvertisement,
            _ => Kind::Data,
        },
        _ => Kind::Data,
    }
}

/// The IP header of an Ethernet frame, past IPv6 hop-by-hop options (MLD has them).
pub(super) fn ip(bytes: &[u8]) -> Option<Ip> {
    match u16_at(bytes, 12)? {
        0x0800 => {
            let header = bytes.get(14..34)?;
            Some(Ip {
                from: Ipv4Addr::new(header[12], header[13], header[14], header[15]).into(),
                to: Ipv4Addr::new(header[16], header[17], header[18], header[19]).into(),
                protocol: header[9],
                ttl: header[8],
                ds: header[1],
                at: 14 + usize::from(header[0] & 0xf) * 4,
            })
        }
        0x86dd => {
            let header = bytes.get(14..54)?;
            let address = |at: usize| -> Option<IpAddr> {
                let octets: [u8; 16] = header.get(at..at + 16)?.try_into().ok()?;
                Some(Ipv6Addr::from(octets).into())
            };
            let (mut protocol, mut at) = (header[6], 54);
            if protocol == 0 {
                let options = bytes.get(at..at + 2)?;
                protocol = options[0];
                at += 8 + usize::from(options[1]) * 8;
            }
            let (ttl, ds) = (header[7], header[0] << 4 | header[1] >> 4);
            Some(Ip { from: address(8)?, to: address(24)?, protocol, ttl, ds, at })
        }
        _ => None,
    }
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn mac_at(bytes: &[u8], at: usize) -> Option<MacAddr> {
    Some(MacAddr(bytes.get(at..at + 6)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ethernet(to: [u8; 6], kind: u16, rest: &[u8]) -> Vec<u8> {
        [&to[..], &[2, 0, 0, 0, 0, 9], &kind.to_be_bytes(), rest].concat()
    }

    fn ipv4_udp(port: u16, payload: &[u8]) -> Vec<u8> {
        let mut header = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
        header.extend([0xc0, 0]);
        header.extend(port.to_be_bytes());
        header.extend([0; 4]);
        ethernet([2, 0, 0, 0, 0, 1], 0x0800, &[&header[..], payload].concat())
    }

    fn vxlan(inner: &[u8]) -> Frame {
        classify(&ipv4_udp(4789, &[&[8, 0, 0, 0, 0, 0x1b, 0x59, 0][..], inner].concat()))
    }

    #[test]
    fn group_arp_inside_vxlan() {
        let frame = vxlan(&ethernet([0xff; 6], 0x0806, &[0; 28]));
        assert_eq!(frame.class, Class::Vxlan { vni: 7001, group: true, inner: Kind::Arp });
        assert_eq!(frame.from, Some("192.0.2.1".parse().unwrap()));
        assert_eq!(frame.ttl_and_ds, Some((64, 0)));
    }

    #[test]
    fn what_discovery_says() {
        let arp = |op: u8, spa: [u8; 4]| {
            let head = [0, 1, 8, 0, 6, 4, 0, op, 2, 0, 0, 0, 0, 9];
            [&head[..], &spa, &[0; 6], &[10, 0, 0, 2]].concat()
        };
        let probe = vxlan(&ethernet([0xff; 6], 0x0806, &arp(1, [0; 4]))).discovery.unwrap();
        assert!(probe.is_probe() && probe.about == IpAddr::from([10, 0, 0, 2]), "{probe:?}");
        let reply =
            classify(&ethernet([2, 0, 0, 0, 0, 1], 0x0806, &arp(2, [10, 0, 0, 1]))).discovery.unwrap();
        assert!(reply.answer && reply.about == IpAddr::from([10, 0, 0, 1]), "{reply:?}");
        assert_eq!(reply.mac, Some(MacAddr([2, 0, 0, 0, 0, 9])));
        let ns = crate::raw::neighbour_solicitation(
            MacAddr([2, 0, 0, 0, 0, 1]),
            "fd00::1".parse().unwrap(),
            "fd00::2".parse().unwrap(),
        );
        let asks = classify(&ns).discovery.unwrap();
        assert_eq!((asks.answer, asks.about), (false, "fd00::2".parse().unwrap()));
        assert_eq!(asks.mac, Some(MacAddr([2, 0, 0, 0, 0, 1])));
        assert_eq!(classify(&ipv4_udp(53, &[])).discovery, None);
    }

    #[test]
    fn icmpv6_kinds() {
        for (number, want) in [
            (133, Kind::RouterSolicitation),
            (134, Kind::RouterAdvertisement),
            (135, Kind::NeighbourSolicitation),
            (136, Kind::NeighbourAdvertisement),
            (128, Kind::Data),
        ] {
            let mut header = vec![0x60, 0, 0, 0, 0, 8, 58, 255];
            header.extend([0; 32]);
            header.push(number);
            assert_eq!(kind(&ethernet([0x33, 0x33, 0, 0, 0, 1], 0x86dd, &header)), want);
        }
        // MLD reports carry a hop-by-hop header with the router alert.
        let mut header = vec![0x60, 0, 0, 0, 0, 8, 0, 1];
        header.extend([0; 32]);
        header.extend([58, 0, 5, 2, 0, 0, 1, 0, 143]);
        assert_eq!(kind(&ethernet([0x33, 0x33, 0, 0, 0, 0x16], 0x86dd, &header)), Kind::Mld);
    }

    #[test]
    fn control_and_underlay() {
        assert_eq!(classify(&ipv4_udp(4342, &[])).class, Class::LispUdp);
        assert_eq!(classify(&ethernet([0xff; 6], 0x0806, &[0; 28])).class, Class::Underlay(Kind::Arp));
        assert_eq!(classify(&ipv4_udp(53, &[])).class, Class::Other);
    }

    #[test]
    fn any_prefix_is_survived() {
        let whole =
            ipv4_udp(4789, &[&[8, 0, 0, 0, 0, 0, 1, 0][..], &ethernet([1; 6], 0x86dd, &[0; 60])].concat());
        for length in 0..whole.len() {
            let _ = classify(&whole[..length]);
        }
    }
}
