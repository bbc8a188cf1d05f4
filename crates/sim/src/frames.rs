//! What tenants say when they look for an address: frames as the data plane punts them.

use std::net::{IpAddr, Ipv6Addr};

use weft_datapath::{IfIndex, Punt, PuntReason};
use weft_model::{Grant, MacAddr, TenantIp};

/// The question of the tenant system of `grant` for `target`, or none when it has no address of that
/// family to ask from.
pub fn question(grant: &Grant, vap: IfIndex, target: TenantIp) -> Option<Punt> {
    let same = |ip: &&TenantIp| ip.get().is_ipv4() == target.get().is_ipv4();
    let source = grant.ips.iter().find(same)?.get();
    let mac = grant.mac.octets();
    let (reason, dst, frame) = match (source, target.get()) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            let mut frame = MacAddr::BROADCAST.0.to_vec();
            frame.extend(mac);
            // ARP, Ethernet, IPv4, request (RFC 826).
            frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
            frame.extend(mac);
            frame.extend(source.octets());
            frame.extend([0; 6]);
            frame.extend(target.octets());
            (PuntReason::ArpMiss, MacAddr::BROADCAST, frame)
        }
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            let [.., a, b, c] = target.octets();
            let group = MacAddr([0x33, 0x33, 0xff, a, b, c]);
            (PuntReason::NdMiss, group, solicitation(mac, group, source, target))
        }
        _ => return None,
    };
    Some(Punt { vap, vni: grant.tsi.vni, reason, dst, from: None, frame })
}

/// A Neighbor Solicitation with the sender's link-layer address (RFC 4861 section 4.3).
fn solicitation(mac: [u8; 6], group: MacAddr, source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = target.octets();
    let destination =
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, u16::from_be_bytes([0xff, a]), u16::from_be_bytes([b, c]));
    let mut icmp = vec![135, 0, 0, 0, 0, 0, 0, 0];
    icmp.extend(target.octets());
    icmp.extend([1, 1]);
    icmp.extend(mac);
    let mut pseudo = source.octets().to_vec();
    pseudo.extend(destination.octets());
    pseudo.extend([0, 0, 0, 32, 0, 0, 0, 58]);
    pseudo.extend(&icmp);
    icmp[2..4].copy_from_slice(&checksum(&pseudo).to_be_bytes());
    let mut frame = group.0.to_vec();
    frame.extend(mac);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255]);
    frame.extend(source.octets());
    frame.extend(destination.octets());
    frame.extend(icmp);
    frame
}

/// An empty UDP datagram of the tenant system of `grant`, or none when it has no address of that family.
pub fn packet(grant: &Grant, mac: MacAddr, to: TenantIp) -> Option<Vec<u8>> {
    let same = |ip: &&TenantIp| ip.get().is_ipv4() == to.get().is_ipv4();
    let source = grant.ips.iter().find(same)?.get();
    let mut frame = mac.0.to_vec();
    frame.extend(grant.mac.octets());
    match (source, to.get()) {
        (IpAddr::V4(source), IpAddr::V4(to)) => {
            let mut header = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0];
            header.extend(source.octets());
            header.extend(to.octets());
            let checksum = checksum(&header);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            frame.extend([0x08, 0x00]);
            frame.extend(header);
        }
        (IpAddr::V6(source), IpAddr::V6(to)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 17, 64]);
            frame.extend(source.octets());
            frame.extend(to.octets());
        }
        _ => return None,
    }
    // Ports 9: discard.
    frame.extend([0, 9, 0, 9, 0, 8, 0, 0]);
    Some(frame)
}

/// The Internet checksum (RFC 1071).
fn checksum(octets: &[u8]) -> u16 {
    let sum: u32 = octets.chunks(2).map(|c| u32::from(u16::from_be_bytes([c[0], c[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).unwrap_or(u16::MAX)
}
