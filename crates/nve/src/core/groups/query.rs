//! The questions this NVE asks its VAPs as their querier: which groups do you want (RFC 3376 section 4.1, RFC 3810
//! section 5.1)? Hosts of every version understand them. None leaves its VAP.

use super::report::{checksum, pseudo};
use ::core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use ::core::time::Duration;
use weft_model::{GroupIp, MacAddr, Vni};

/// Querier's Robustness Variable.
const ROBUSTNESS: u8 = 2;
/// The longest time that a code says as it is: 12.7 s in IGMP, 32.767 s in MLD.
const PLAIN: u8 = 127;

/// A question to the tenant systems at one VAP.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// Of this VN.
    pub vni: Vni,
    /// Answers come within this time, at random.
    pub within: Duration,
    /// Every so often it is asked.
    pub interval: Duration,
}

impl Query {
    /// All groups: for IPv4 and for IPv6.
    pub fn general(self) -> [Vec<u8>; 2] {
        [self.igmp(None), self.mld(None)]
    }

    /// One group.
    pub fn specific(self, group: GroupIp) -> Vec<u8> {
        match group.get() {
            IpAddr::V4(group) => self.igmp(Some(group)),
            IpAddr::V6(group) => self.mld(Some(group)),
        }
    }

    fn interval_code(self) -> u8 {
        u8::try_from(self.interval.as_secs()).unwrap_or(PLAIN).min(PLAIN)
    }

    /// From 0.0.0.0, as a switch that has no address asks (RFC 4541 section 2.1.1).
    fn igmp(self, group: Option<Ipv4Addr>) -> Vec<u8> {
        let within = u8::try_from(self.within.as_millis() / 100).unwrap_or(PLAIN).clamp(1, PLAIN);
        let to = group.unwrap_or(Ipv4Addr::new(224, 0, 0, 1));
        let asked = group.unwrap_or(Ipv4Addr::UNSPECIFIED).octets();
        let message = |sum: [u8; 2]| {
            [&[0x11, within][..], &sum, &asked, &[ROBUSTNESS, self.interval_code(), 0, 0]].concat()
        };
        let message = message(checksum(&[&message([0; 2])]).to_be_bytes());
        let [_, a, b, c] = to.octets();
        let header = |sum: [u8; 2]| {
            // TTL 1, a router alert behind the addresses (RFC 2113).
            [&[0x46, 0xc0, 0, 36, 0, 0, 0, 0, 1, 2][..], &sum, &[0; 4], &to.octets(), &[0x94, 4, 0, 0]]
                .concat()
        };
        let header = header(checksum(&[&header([0; 2])]).to_be_bytes());
        let eth = self.ethernet([1, 0, 0x5e, a & 0x7f, b, c], [8, 0]);
        [eth, header, message].concat()
    }

    fn mld(self, group: Option<Ipv6Addr>) -> Vec<u8> {
        let within =
            u16::try_from(self.within.as_millis()).unwrap_or(u16::MAX).clamp(1, 0x7fff).to_be_bytes();
        let (from, to) = (self.source(), group.unwrap_or(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)));
        let asked = group.unwrap_or(Ipv6Addr::UNSPECIFIED).octets();
        let message = |sum: [u8; 2]| {
            let tail = [ROBUSTNESS, self.interval_code(), 0, 0];
            [&[130, 0][..], &sum, &within, &[0, 0], &asked, &tail].concat()
        };
        let sum = checksum(&[&pseudo(from, to, 28), &message([0; 2])]).to_be_bytes();
        let [.., a, b, c, d] = to.octets();
        let eth = self.ethernet([0x33, 0x33, a, b, c, d], [0x86, 0xdd]);
        // Hop limit 1, a router alert in front of the message (RFC 2711).
        let header = [&[0x60, 0, 0, 0, 0, 36, 0, 1][..], &from.octets(), &to.octets()].concat();
        [eth, header, vec![58, 0, 5, 2, 0, 0, 1, 0], message(sum)].concat()
    }

    fn ethernet(self, to: [u8; 6], ethertype: [u8; 2]) -> Vec<u8> {
        [&to[..], &MacAddr::anycast(self.vni).0, &ethertype].concat()
    }

    /// The link-local address made of the VN's anycast MAC address (RFC 4291 appendix A): hosts take queries from
    /// none else (RFC 3810 section 5.1.14).
    fn source(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = MacAddr::anycast(self.vni).0;
        Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{NetSlice, SlicedPacket};

    fn query() -> Query {
        let (within, interval) = (Duration::from_secs(10), Duration::from_secs(125));
        Query { vni: Vni::new(0x1_0203).unwrap(), within, interval }
    }

    #[test]
    fn igmp_is_well_formed() {
        for (group, to, mac) in [
            (None, "224.0.0.1", [1, 0, 0x5e, 0, 0, 1]),
            (Some("239.129.2.3"), "239.129.2.3", [1, 0, 0x5e, 1, 2, 3]),
        ] {
            let frame = match group {
                None => query().general()[0].clone(),
                Some(group) => query().specific(group.parse().unwrap()),
            };
            assert_eq!(frame[..6], mac);
            let packet = SlicedPacket::from_ethernet(&frame).unwrap();
            let Some(NetSlice::Ipv4(ip)) = packet.net else { panic!("{frame:02x?}") };
            let header = ip.header();
            assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
            assert_eq!((header.ttl(), header.destination_addr()), (1, to.parse().unwrap()));
            let message = ip.payload().payload;
            assert_eq!((checksum(&[message]), message.len()), (0, 12));
            assert_eq!((message[0], message[1], message[9]), (0x11, 100, 125));
            assert_eq!(message[4..8], group.map_or([0; 4], |g| g.parse::<Ipv4Addr>().unwrap().octets()));
        }
    }

    #[test]
    fn mld_is_well_formed() {
        for (group, to, mac) in [
            (None, "ff02::1", [0x33, 0x33, 0, 0, 0, 1]),
            (Some("ff15::a:b"), "ff15::a:b", [0x33, 0x33, 0, 10, 0, 11]),
        ] {
            let frame = match group {
                None => query().general()[1].clone(),
                Some(group) => query().specific(group.parse().unwrap()),
            };
            assert_eq!(frame[..6], mac);
            let packet = SlicedPacket::from_ethernet(&frame).unwrap();
            let Some(NetSlice::Ipv6(ip)) = packet.net else { panic!("{frame:02x?}") };
            let (from, dst) = (ip.header().source_addr(), ip.header().destination_addr());
            assert_eq!((from, dst), ("fe80::457:ff:fe01:203".parse().unwrap(), to.parse().unwrap()));
            assert_eq!(ip.header().hop_limit(), 1);
            let message = ip.payload().payload;
            assert_eq!(checksum(&[&pseudo(from, dst, message.len()), message]), 0);
            assert_eq!(
                (message.len(), message[0], message[4..6].to_vec(), message[25]),
                (28, 130, vec![0x27, 0x10], 125)
            );
            assert_eq!(message[8..24], group.map_or([0; 16], |g| g.parse::<Ipv6Addr>().unwrap().octets()));
        }
    }
}
