//! VXLAN (RFC 7348) as the direct path writes it.

use super::bytes::{ETH, IPV4, IPV6, UDP, checksum, ethertype, take};
use crate::Tunnel;
use core::net::IpAddr;
use weft_model::{Dscp, Vni};

/// The outer frame, with zero MAC addresses and UDP source port 0. None across families.
pub(super) fn encapsulate(inner: &[u8], vni: Vni, from: IpAddr, to: IpAddr, how: &Tunnel) -> Option<Vec<u8>> {
    let [a, b] = take(inner, ETH)?;
    let of_inner: u8 = if ethertype(inner)? == IPV4 { b } else { a << 4 | b >> 4 };
    // ECN goes along (RFC 6040 section 4.1).
    let tos = of_inner & 3
        | match how.dscp {
            Dscp::Copy => of_inner & !3,
            Dscp::Fixed(codepoint) => codepoint.get() << 2,
        };
    let ttl = how.ttl.get();
    let len = |extra: usize| u16::try_from(inner.len() + extra).unwrap_or(0).to_be_bytes();
    let mut f = vec![0; 12];
    match (from, to) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            f.extend(IPV4);
            let mut ip = vec![0x45, tos];
            ip.extend(len(36));
            ip.extend([0, 0, 0x40, 0, ttl, UDP, 0, 0]);
            ip.extend(src.octets());
            ip.extend(dst.octets());
            let check = checksum(&[&ip]);
            ip[10..12].copy_from_slice(&check);
            f.extend(ip);
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            f.extend(IPV6);
            f.extend([0x60 | tos >> 4, tos << 4, 0, 0]);
            f.extend(len(16));
            f.extend([UDP, ttl]);
            f.extend(src.octets());
            f.extend(dst.octets());
        }
        _ => return None,
    }
    f.extend([0, 0]);
    f.extend(crate::echo::PORT.to_be_bytes());
    f.extend(len(16));
    f.extend([0, 0, 8, 0, 0, 0]);
    f.extend((vni.get() << 8).to_be_bytes());
    f.extend(inner);
    Some(f)
}
