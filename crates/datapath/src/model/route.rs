//! Routing inside a subnet.

use super::bytes::{IPV4, IPV6, ethertype, ipv4, ipv6};
use super::vap::{Stop, neighbour};
use crate::{Neighbour, PuntReason, Reason, Tables, Vap};
use core::net::IpAddr;
use weft_model::MacAddr;

/// Whose a frame is that came to the MAC address of all NVEs, by its IP destination.
pub(super) fn inside(tables: &Tables, vap: &Vap, frame: &[u8]) -> Result<MacAddr, Stop> {
    let dst = match ethertype(frame) {
        Some(IPV4) => ipv4(frame, 30),
        Some(IPV6) => ipv6(frame, 38),
        _ => return Err(Stop::Drop(Reason::UnknownMac)),
    };
    let dst = dst.ok_or(Stop::Drop(Reason::Malformed))?;
    let group = match dst {
        IpAddr::V4(v4) => v4.octets()[0] >= 224,
        IpAddr::V6(v6) => v6.is_multicast(),
    };
    if group || dst.is_unspecified() {
        return Err(Stop::Drop(Reason::UnknownMac));
    }
    match neighbour(tables, vap, dst) {
        Some(Neighbour::Nobody) => Err(Stop::Drop(Reason::Nobody)),
        Some(Neighbour::At(mac)) if tables.fdb.contains_key(&(vap.vni, mac)) => Ok(mac),
        _ => Err(Stop::Punt(PuntReason::Route)),
    }
}
