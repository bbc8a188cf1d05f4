//! The frames the data plane makes itself.

use super::bytes::{ETH, ICMPV6, IPV4, IPV6, checksum, ipv6, mac, pseudo, take};
use core::net::{IpAddr, Ipv6Addr};
use weft_model::MacAddr;

/// The ARP reply (RFC 826) to a request; padding stays.
pub(super) fn arp(request: &[u8], answer: MacAddr) -> Option<Vec<u8>> {
    let mut f = request.to_vec();
    let (asker, sha) = (mac(request, 6)?, mac(request, 22)?);
    let (spa, tpa) = (take::<4>(request, 28)?, take::<4>(request, 38)?);
    f[0..6].copy_from_slice(&asker.0);
    f[6..12].copy_from_slice(&answer.0);
    f[20..22].copy_from_slice(&[0, 2]);
    f[22..28].copy_from_slice(&answer.0);
    f[28..32].copy_from_slice(&tpa);
    f[32..38].copy_from_slice(&sha.0);
    f[38..42].copy_from_slice(&spa);
    Some(f)
}

/// The Neighbor Advertisement (RFC 4861 section 4.4) to a solicitation: to all nodes with S clear
/// if that was a DAD probe, with O clear if the answer is an NVE's MAC address.
pub(super) fn advertisement(solicitation: &[u8], answer: MacAddr) -> Option<Vec<u8>> {
    let asker = mac(solicitation, 6)?;
    let (IpAddr::V6(src), IpAddr::V6(target)) = (ipv6(solicitation, 22)?, ipv6(solicitation, 62)?) else {
        return None;
    };
    let dad = src.is_unspecified();
    let (to_mac, to) = if dad {
        ([0x33, 0x33, 0, 0, 0, 1], Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1))
    } else {
        (asker.0, src)
    };
    let solicited = if dad { 0 } else { 0x40 };
    let overrides = if super::translate::is_node(answer) { 0 } else { 0x20 };
    let mut message = vec![136, 0, 0, 0, 0x80 | solicited | overrides, 0, 0, 0];
    message.extend(target.octets());
    message.extend([2, 1]);
    message.extend(answer.0);
    let check = checksum(&[&pseudo(target, to, message.len()), &message]);
    message[2..4].copy_from_slice(&check);
    let mut f = Vec::with_capacity(86);
    f.extend(to_mac);
    f.extend(answer.0);
    f.extend(IPV6);
    f.extend([0x60, 0, 0, 0, 0, 32, ICMPV6, 255]);
    f.extend(target.octets());
    f.extend(to.octets());
    f.extend(message);
    Some(f)
}

/// Octets of the packet that an ICMPv4 error quotes: it is 576 octets then (RFC 1812 section 4.3.2.3).
const V4_QUOTE: usize = 548;
/// The same of ICMPv6; an even number below the minimum MTU.
const V6_QUOTE: usize = 512;

/// "Fragmentation needed" (RFC 1191), from the destination's address.
pub(super) fn frag_needed(frame: &[u8], mtu: u16) -> Option<Vec<u8>> {
    let quote = frame.get(ETH..ETH + V4_QUOTE)?;
    let mut message = vec![3, 4, 0, 0, 0, 0];
    message.extend(mtu.to_be_bytes());
    message.extend(quote);
    let check = checksum(&[&message]);
    message[2..4].copy_from_slice(&check);
    let mut ip = vec![0x45, 0xc0];
    ip.extend(u16::try_from(28 + V4_QUOTE).unwrap_or(0).to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, super::bytes::ICMP, 0, 0]);
    ip.extend(take::<4>(frame, 30)?);
    ip.extend(take::<4>(frame, 26)?);
    let check = checksum(&[&ip]);
    ip[10..12].copy_from_slice(&check);
    Some([&frame[6..12], &frame[0..6], &IPV4, &ip, &message].concat())
}

/// "Packet too big" (RFC 4443 section 3.2), from the destination's address.
pub(super) fn packet_too_big(frame: &[u8], mtu: u16) -> Option<Vec<u8>> {
    let quote = frame.get(ETH..ETH + V6_QUOTE)?;
    let (IpAddr::V6(src), IpAddr::V6(dst)) = (ipv6(frame, 38)?, ipv6(frame, 22)?) else {
        return None;
    };
    let mut message = vec![2, 0, 0, 0];
    message.extend(u32::from(mtu).to_be_bytes());
    message.extend(quote);
    let check = checksum(&[&pseudo(src, dst, message.len()), &message]);
    message[2..4].copy_from_slice(&check);
    let mut ip = vec![0x60, 0, 0, 0];
    ip.extend(u16::try_from(message.len()).unwrap_or(0).to_be_bytes());
    ip.extend([ICMPV6, 64]);
    ip.extend(src.octets());
    ip.extend(dst.octets());
    Some([&frame[6..12], &frame[0..6], &IPV6, &ip, &message].concat())
}
