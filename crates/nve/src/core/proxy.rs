//! The ARP and ND agent: reads punted questions and writes the answers the NVE gives on behalf of
//! the owner of an address (RFC 9161 section 3.3, RFC 826, RFC 4861 section 7.2.4).
//!
//! Questions whose answer the tables hold never come here: the data plane answers those.

use ::core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use etherparse::{
    ArpEthIpv4Packet, ArpOperation, ArpPacketSlice, Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket,
    TransportSlice,
    icmpv6::{Icmpv6PayloadSlice, NeighborAdvertisementHeader},
};
use weft_datapath::{IfIndex, Punt};
use weft_model::{MacAddr, TenantIp, Vni};

/// Target Link-Layer Address option, one unit of eight octets (RFC 4861 section 4.6.1).
const TLLA: [u8; 2] = [2, 1];

/// A tenant system's question: who has `target`?
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Query {
    /// The VAP it came from.
    pub vap: IfIndex,
    /// The VAP's virtual network.
    pub vni: Vni,
    /// The address asked for.
    pub target: TenantIp,
    /// The asker's MAC address.
    pub asker_mac: MacAddr,
    /// The asker's address; none for an RFC 5227 probe or a DAD solicitation, which ask whether
    /// an address is free.
    pub asker_ip: Option<TenantIp>,
}

/// Why a punted frame is no question that could be asked of the Oracle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum NotAQuery {
    /// Not ARP over Ethernet and IPv4, not a Neighbor Solicitation, or cut short.
    #[error("no well-formed ARP request or Neighbor Solicitation")]
    Malformed,
    /// The target is no unicast address.
    #[error("the target is no unicast address")]
    Target,
}

impl Query {
    /// Reads the frame of `punt`.
    ///
    /// # Errors
    /// [`NotAQuery`] when it asks nothing.
    pub fn parse(punt: &Punt) -> Result<Self, NotAQuery> {
        let packet = SlicedPacket::from_ethernet(&punt.frame).map_err(|_| NotAQuery::Malformed)?;
        let asked = match (&packet.net, &packet.transport) {
            (Some(NetSlice::Arp(arp)), _) => arp_request(arp),
            (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) => {
                // RFC 4861 section 7.1.1: a hop limit below 255 means it crossed a router.
                let onlink = ip.header().hop_limit() == 255;
                let solicitation = match icmp.payload_slice() {
                    Ok(Icmpv6PayloadSlice::NeighborSolicitation(ns)) if onlink => Some(ns.target_address()),
                    _ => None,
                };
                let source = packet.link.as_ref().and_then(|link| match link {
                    etherparse::LinkSlice::Ethernet2(eth) => Some(MacAddr(eth.source())),
                    _ => None,
                });
                solicitation
                    .zip(source)
                    .map(|(target, mac)| (target.into(), mac, ip.header().source_addr().into()))
            }
            _ => None,
        };
        let (target, asker_mac, asker_ip): (IpAddr, _, IpAddr) = asked.ok_or(NotAQuery::Malformed)?;
        let target = TenantIp::new(target).map_err(|_| NotAQuery::Target)?;
        Ok(Self { vap: punt.vap, vni: punt.vni, target, asker_mac, asker_ip: TenantIp::new(asker_ip).ok() })
    }

    /// The frame that tells the asker that `mac` has the target: an ARP reply, or a Neighbor
    /// Advertisement with the flags of RFC 9161 section 3.3 (S when somebody asked by name, O because it is the
    /// owner's own MAC, R as for a static entry). A DAD solicitation is answered to all nodes.
    #[must_use]
    pub fn answer(&self, mac: MacAddr) -> Vec<u8> {
        match self.target.get() {
            IpAddr::V4(target) => self.arp_reply(target, mac),
            IpAddr::V6(target) => self.advertisement(target, mac, true),
        }
    }

    /// The frame that tells the asker that `mac`, which is not the owner's, takes what is for the target:
    /// an ARP reply, or an advertisement that overrides nothing and is of no router, so that the owner's own
    /// MAC takes its place (RFC 4861 section 7.2.8).
    #[must_use]
    pub fn stand_in(&self, mac: MacAddr) -> Vec<u8> {
        match self.target.get() {
            IpAddr::V4(target) => self.arp_reply(target, mac),
            IpAddr::V6(target) => self.advertisement(target, mac, false),
        }
    }

    fn arp_reply(&self, target: Ipv4Addr, mac: MacAddr) -> Vec<u8> {
        let asker_ip = match self.asker_ip.map(TenantIp::get) {
            Some(IpAddr::V4(ip)) => ip,
            _ => Ipv4Addr::UNSPECIFIED,
        };
        let arp = ArpEthIpv4Packet {
            operation: ArpOperation::REPLY,
            sender_mac: mac.octets(),
            sender_ipv4: target.octets(),
            target_mac: self.asker_mac.octets(),
            target_ipv4: asker_ip.octets(),
        };
        let builder = PacketBuilder::ethernet2(mac.octets(), self.asker_mac.octets()).arp(arp.into());
        let mut frame = Vec::with_capacity(builder.size());
        // Writing to a vector of the right size cannot fail; an empty frame would be refused by the device.
        let _ = builder.write_to_vec(&mut frame);
        frame
    }

    fn advertisement(&self, target: Ipv6Addr, mac: MacAddr, owner: bool) -> Vec<u8> {
        let (to, to_mac, solicited) = match self.asker_ip.map(TenantIp::get) {
            Some(IpAddr::V6(asker)) => (asker, self.asker_mac, true),
            _ => (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), MacAddr([0x33, 0x33, 0, 0, 0, 1]), false),
        };
        let flags = NeighborAdvertisementHeader { router: owner, solicited, r#override: owner };
        let builder = PacketBuilder::ethernet2(mac.octets(), to_mac.octets())
            .ipv6(target.octets(), to.octets(), 255)
            .icmpv6(Icmpv6Type::NeighborAdvertisement(flags));
        let mut rest = Vec::with_capacity(24);
        rest.extend_from_slice(&target.octets());
        rest.extend_from_slice(&TLLA);
        rest.extend_from_slice(&mac.octets());
        let mut frame = Vec::with_capacity(builder.size(rest.len()));
        let _ = builder.write_to_vec(&mut frame, &rest);
        frame
    }
}

/// Target, asker's MAC and asker's IP of an ARP request over Ethernet and IPv4.
fn arp_request(arp: &ArpPacketSlice<'_>) -> Option<(IpAddr, MacAddr, IpAddr)> {
    let arp = ArpEthIpv4Packet::try_from(arp.to_packet()).ok()?;
    (arp.operation == ArpOperation::REQUEST)
        .then(|| (arp.target_ipv4_addr().into(), MacAddr(arp.sender_mac), arp.sender_ipv4_addr().into()))
}

/// The source MAC of a frame, or none when it is shorter than an Ethernet header.
#[must_use]
pub fn source_mac(frame: &[u8]) -> Option<MacAddr> {
    frame.get(6..12)?.try_into().ok().map(MacAddr)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use weft_datapath::PuntReason;

    const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    fn punt(frame: Vec<u8>) -> Punt {
        Punt {
            vap: IfIndex(7),
            vni: Vni::new(1).unwrap(),
            reason: PuntReason::ArpMiss,
            dst: MacAddr::BROADCAST,
            from: None,
            frame,
        }
    }

    fn arp(op: ArpOperation, spa: [u8; 4], tpa: [u8; 4]) -> Vec<u8> {
        let arp = ArpEthIpv4Packet {
            operation: op,
            sender_mac: A.0,
            sender_ipv4: spa,
            target_mac: [0; 6],
            target_ipv4: tpa,
        };
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(A.0, [0xff; 6]).arp(arp.into()).write_to_vec(&mut frame).unwrap();
        frame
    }

    fn ns(source: &str, target: &str, hops: u8) -> Vec<u8> {
        let target: Ipv6Addr = target.parse().unwrap();
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(A.0, [0x33, 0x33, 0xff, 0, 0, 2])
            .ipv6(source.parse::<Ipv6Addr>().unwrap().octets(), [0xff; 16], hops)
            .icmpv6(Icmpv6Type::NeighborSolicitation)
            .write_to_vec(&mut frame, &target.octets())
            .unwrap();
        frame
    }

    #[test]
    fn lc_arp_request_and_reply() {
        let query = Query::parse(&punt(arp(ArpOperation::REQUEST, [10, 0, 0, 1], [10, 0, 0, 2]))).unwrap();
        assert_eq!((query.target.to_string(), query.asker_mac), ("10.0.0.2".into(), A));
        #[rustfmt::skip]
        let expected = [
            2, 0, 0, 0, 0, 1,  2, 0, 0, 0, 0, 2,  0x08, 0x06,
            0, 1, 8, 0, 6, 4, 0, 2,
            2, 0, 0, 0, 0, 2,  10, 0, 0, 2,
            2, 0, 0, 0, 0, 1,  10, 0, 0, 1,
        ];
        assert_eq!(query.answer(B), expected);
    }

    #[test]
    fn rfc5227_probe_is_answered_with_a_zero_target() {
        let query = Query::parse(&punt(arp(ArpOperation::REQUEST, [0; 4], [10, 0, 0, 2]))).unwrap();
        assert_eq!(query.asker_ip, None);
        assert_eq!(query.answer(B)[38..42], [0, 0, 0, 0]);
    }

    #[test]
    fn solicitation_and_dad() {
        let query = Query::parse(&punt(ns("fd00::1", "fd00::2", 255))).unwrap();
        let frame = query.answer(B);
        assert_eq!(frame.len(), 86);
        assert_eq!(frame[0..6], A.0);
        assert_eq!(frame[54..59], [136, 0, frame[56], frame[57], 0xe0]);
        assert_eq!(frame[78..86], [2, 1, 2, 0, 0, 0, 0, 2]);

        let dad = Query::parse(&punt(ns("::", "fd00::2", 255))).unwrap().answer(B);
        assert_eq!(dad[0..6], [0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!(dad[58], 0xa0, "not solicited");
    }

    #[test]
    fn refused() {
        assert_eq!(
            Query::parse(&punt(ns("fd00::1", "fd00::2", 64))),
            Err(NotAQuery::Malformed),
            "crossed a router"
        );
        assert_eq!(Query::parse(&punt(ns("fd00::1", "ff02::1", 255))), Err(NotAQuery::Target));
        assert_eq!(
            Query::parse(&punt(arp(ArpOperation::REPLY, [10, 0, 0, 1], [10, 0, 0, 2]))),
            Err(NotAQuery::Malformed)
        );
        assert_eq!(Query::parse(&punt(vec![0; 13])), Err(NotAQuery::Malformed));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(frame in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Query::parse(&punt(frame));
        }
    }
}
