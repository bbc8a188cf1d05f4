//! Reading and writing frames by offset.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use weft_model::MacAddr;

pub(super) const ETH: usize = 14;
pub(super) const ARP: [u8; 2] = [0x08, 0x06];
pub(super) const IPV4: [u8; 2] = [0x08, 0x00];
pub(super) const IPV6: [u8; 2] = [0x86, 0xdd];
pub(crate) const UDP: u8 = 17;
pub(super) const ICMP: u8 = 1;
pub(super) const IGMP: u8 = 2;
pub(crate) const ICMPV6: u8 = 58;

/// `N` octets at `at`, if the frame has them.
pub(super) fn take<const N: usize>(frame: &[u8], at: usize) -> Option<[u8; N]> {
    frame.get(at..)?.first_chunk().copied()
}

pub(super) fn mac(frame: &[u8], at: usize) -> Option<MacAddr> {
    take(frame, at).map(MacAddr)
}

pub(super) fn ipv4(frame: &[u8], at: usize) -> Option<IpAddr> {
    take::<4>(frame, at).map(|o| IpAddr::V4(Ipv4Addr::from(o)))
}

pub(super) fn ipv6(frame: &[u8], at: usize) -> Option<IpAddr> {
    take::<16>(frame, at).map(|o| IpAddr::V6(Ipv6Addr::from(o)))
}

pub(super) fn be16(frame: &[u8], at: usize) -> Option<u16> {
    take(frame, at).map(u16::from_be_bytes)
}

pub(super) fn ethertype(frame: &[u8]) -> Option<[u8; 2]> {
    take(frame, 12)
}

pub(super) fn is_vlan(ethertype: [u8; 2]) -> bool {
    // The last two are what stacked tags were before 802.1ad.
    matches!(ethertype, [0x81, 0x00] | [0x88, 0xa8] | [0x91 | 0x92, 0x00])
}

/// Sum of big-endian 16-bit words (RFC 1071), folded; an odd octet counts as a high one.
pub(crate) fn sum(parts: &[&[u8]]) -> u16 {
    let mut total = 0_u64;
    for part in parts {
        for word in part.chunks(2) {
            total += u64::from(word[0]) << 8 | word.get(1).map_or(0, |b| u64::from(*b));
        }
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    u16::try_from(total).unwrap_or(0)
}

/// The checksum over these parts.
pub(super) fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    (!sum(parts)).to_be_bytes()
}

/// The incremental update of RFC 1624: `check` after a word of its data changed.
pub(super) fn update(check: u16, was: u16, is: u16) -> u16 {
    let add = |a: u16, b: u16| {
        let (s, carry) = a.overflowing_add(b);
        s.wrapping_add(u16::from(carry))
    };
    !add(add(!check, !was), is)
}

/// The IPv6 pseudo header (RFC 8200 section 8.1) of an ICMPv6 message.
pub(super) fn pseudo(src: Ipv6Addr, dst: Ipv6Addr, len: usize) -> Vec<u8> {
    let mut p = Vec::with_capacity(40);
    p.extend(src.octets());
    p.extend(dst.octets());
    p.extend(u32::try_from(len).unwrap_or(0).to_be_bytes());
    p.extend([0, 0, 0, ICMPV6]);
    p
}
