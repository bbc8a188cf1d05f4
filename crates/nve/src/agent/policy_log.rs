//! What access policy let through or refused, one line each, for those rules and VNs that are to be logged. The data plane
//! holds back what is more than 100 a second of a VN.

use crate::core::Core;
use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use std::net::IpAddr;
use weft_datapath::{Punt, PuntReason, Toward};

/// Logs a frame, if it was handed up to be logged; whether it was.
pub(super) fn tell(core: &Core, punt: &Punt) -> bool {
    let (verdict, rule, toward) = match punt.reason {
        PuntReason::Allowed(rule, toward) => ("allowed", Some(rule), toward),
        PuntReason::Refused(toward) => ("refused", None, toward),
        _ => return false,
    };
    let rule = rule.and_then(|number| core.rule(number));
    let rule = rule.map(|(group, rule)| format!("{group}: {rule}"));
    let (vn, tsi) = match core.tsi_at(punt.vap) {
        Some((vn, tsi)) => (vn.to_string(), tsi.to_string()),
        None => (punt.vni.to_string(), format!("device {}", punt.vap.0)),
    };
    let toward = match toward {
        Toward::In => "in",
        Toward::Out => "out",
    };
    let Packet { source, destination, protocol, ports } = Packet::of(&punt.frame);
    let (source_port, destination_port) = ports.unzip();
    tracing::info!(
        target: "weft::policy",
        %vn, %tsi, toward, rule, source = source.map(tracing::field::display),
        destination = destination.map(tracing::field::display), protocol, source_port, destination_port,
        "{verdict}"
    );
    true
}

/// What of a frame is worth a line.
#[derive(Debug, Default, PartialEq, Eq)]
struct Packet {
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    protocol: Option<u8>,
    /// Of ICMP and ICMPv6 the second is the type.
    ports: Option<(u16, u16)>,
}

impl Packet {
    /// What the beginning of a frame says.
    fn of(frame: &[u8]) -> Self {
        let sliced = LaxSlicedPacket::from_ethernet(frame);
        let Ok(sliced) = sliced else { return Self::default() };
        let (source, destination, protocol): (IpAddr, IpAddr, _) = match &sliced.net {
            Some(LaxNetSlice::Ipv4(ip)) => (
                ip.header().source_addr().into(),
                ip.header().destination_addr().into(),
                ip.payload().ip_number.0,
            ),
            Some(LaxNetSlice::Ipv6(ip)) => (
                ip.header().source_addr().into(),
                ip.header().destination_addr().into(),
                ip.payload().ip_number.0,
            ),
            _ => return Self::default(),
        };
        let ports = match &sliced.transport {
            Some(TransportSlice::Tcp(tcp)) => Some((tcp.source_port(), tcp.destination_port())),
            Some(TransportSlice::Udp(udp)) => Some((udp.source_port(), udp.destination_port())),
            Some(TransportSlice::Icmpv4(icmp)) => Some((0, icmp.type_u8().into())),
            Some(TransportSlice::Icmpv6(icmp)) => Some((0, icmp.type_u8().into())),
            _ => None,
        };
        Self { source: Some(source), destination: Some(destination), protocol: Some(protocol), ports }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;

    #[test]
    fn the_beginning_of_a_frame_is_enough() {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv6([0xfd; 16], [0xfe; 16], 64)
            .tcp(1000, 80, 1, 100)
            .write(&mut frame, &[0; 1000])
            .unwrap();
        let packet = Packet::of(&frame[..128]);
        assert_eq!((packet.protocol, packet.ports), (Some(6), Some((1000, 80))));
        assert_eq!(packet.source, Some(IpAddr::from([0xfd; 16])));
        for cut in [0, 14, 20, 54, 60] {
            let _ = Packet::of(&frame[..cut]);
        }
    }
}
