//! The packet itself.

use etherparse::{IcmpEchoHeader, Icmpv4Type, Icmpv6Type, PacketBuilder};
use std::net::IpAddr;
use weft_api::Probe;
use weft_model::MacAddr;

/// Octets of the largest IP packet: more the kernel does not let into a test run.
pub(super) const LARGEST: u16 = 3_000;

/// What it is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    pub(super) macs: (MacAddr, MacAddr),
    pub(super) ips: (IpAddr, IpAddr),
    pub(super) probe: Probe,
    /// Its source port, or the identifier of an echo request: another one each time, so that it is a connection of its own.
    pub(super) number: u16,
    /// Octets of the IP packet.
    pub(super) size: Option<u16>,
}

/// Why there is no such packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoPacket {
    #[error("{0} and {1} are not of one family; name a source of the other one's")]
    Families(IpAddr, IpAddr),
    #[error(
        "a packet of {probe} has {least} octets at least and a traced one {LARGEST} at most; {size} is not between"
    )]
    Size { probe: Probe, size: u16, least: u16 },
}

impl Packet {
    /// Its frame, with every checksum.
    pub(super) fn frame(&self) -> Result<Vec<u8>, NoPacket> {
        let (MacAddr(from), MacAddr(to)) = self.macs;
        let ethernet = PacketBuilder::ethernet2(from, to);
        let (builder, v4) = match self.ips {
            (IpAddr::V4(from), IpAddr::V4(to)) => (ethernet.ipv4(from.octets(), to.octets(), 64), true),
            (IpAddr::V6(from), IpAddr::V6(to)) => (ethernet.ipv6(from.octets(), to.octets(), 64), false),
            (from, to) => return Err(NoPacket::Families(from, to)),
        };
        let least = if v4 { 20 } else { 40 } + if matches!(self.probe, Probe::Tcp(_)) { 20 } else { 8 };
        let size = self.size.unwrap_or(least);
        if !(least..=LARGEST).contains(&size) {
            return Err(NoPacket::Size { probe: self.probe, size, least });
        }
        let payload = vec![0; usize::from(size - least)];
        let mut frame = Vec::with_capacity(usize::from(size) + 14);
        // Writing to memory cannot fail.
        let _ = match self.probe {
            Probe::Tcp(port) => builder.tcp(self.number, port, 1, 64_240).syn().write(&mut frame, &payload),
            Probe::Udp(port) => builder.udp(self.number, port).write(&mut frame, &payload),
            Probe::Icmp => {
                let echo = IcmpEchoHeader { id: self.number, seq: 1 };
                if v4 {
                    builder.icmpv4(Icmpv4Type::EchoRequest(echo)).write(&mut frame, &payload)
                } else {
                    builder.icmpv6(Icmpv6Type::EchoRequest(echo)).write(&mut frame, &payload)
                }
            }
        };
        Ok(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    fn packet(v6: bool, probe: Probe, size: Option<u16>) -> Packet {
        let ip = |n: u8| {
            if v6 { IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n.into()]) } else { [10, 0, 0, n].into() }
        };
        let mac = |n| MacAddr([2, 0, 0, 0, 0, n]);
        Packet { macs: (mac(1), mac(2)), ips: (ip(1), ip(2)), probe, number: 50_000, size }
    }

    #[test]
    fn whole_packets_of_the_size_that_is_asked_for() {
        for v6 in [false, true] {
            for probe in [Probe::Icmp, Probe::Tcp(80), Probe::Udp(53)] {
                for size in [None, Some(61), Some(1_600), Some(LARGEST)] {
                    let frame = packet(v6, probe, size).frame().unwrap();
                    let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
                    assert!(size.is_none_or(|size| frame.len() == usize::from(size) + 14));
                    let sums = match (&sliced.net, &sliced.transport) {
                        (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) => {
                            let header = tcp.to_header();
                            assert!(header.syn && !header.ack && header.destination_port == 80);
                            header.calc_checksum_ipv4(&ip.header().to_header(), tcp.payload()).unwrap()
                                == header.checksum
                        }
                        (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Tcp(tcp))) => {
                            let header = tcp.to_header();
                            header.calc_checksum_ipv6(&ip.header().to_header(), tcp.payload()).unwrap()
                                == header.checksum
                        }
                        (Some(_), Some(TransportSlice::Udp(udp))) => {
                            udp.destination_port() == 53 && udp.checksum() != 0
                        }
                        (Some(NetSlice::Ipv4(_)), Some(TransportSlice::Icmpv4(icmp))) => {
                            icmp.icmp_type() == Icmpv4Type::EchoRequest(IcmpEchoHeader { id: 50_000, seq: 1 })
                        }
                        (Some(NetSlice::Ipv6(_)), Some(TransportSlice::Icmpv6(icmp))) => {
                            icmp.icmp_type() == Icmpv6Type::EchoRequest(IcmpEchoHeader { id: 50_000, seq: 1 })
                        }
                        other => panic!("{other:?}"),
                    };
                    assert!(sums, "{v6} {probe}");
                }
            }
        }
    }

    #[test]
    fn what_cannot_be() {
        for (size, probe) in
            [(39, Probe::Tcp(1)), (27, Probe::Udp(1)), (0, Probe::Icmp), (LARGEST + 1, Probe::Icmp)]
        {
            let error = packet(false, probe, Some(size)).frame().unwrap_err();
            assert!(error.to_string().contains(&size.to_string()), "{error}");
        }
        let mixed = Packet {
            ips: ([10, 0, 0, 1].into(), [0xfd00, 0, 0, 0, 0, 0, 0, 1].into()),
            ..packet(false, Probe::Icmp, None)
        };
        assert!(matches!(mixed.frame(), Err(NoPacket::Families(..))));
    }
}
