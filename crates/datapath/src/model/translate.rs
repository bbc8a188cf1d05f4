//! VNs that translate (RFC 7586).

use super::bytes::{ARP, ETH, ICMPV6, IPV4, IPV6, be16, ethertype, ipv4, ipv6, mac, sum, take};
use super::{Lesson, members};
use crate::{IfIndex, Location, Neighbour, Reason, Tables, Vap};
use core::net::IpAddr;
use weft_model::{MacAddr, TenantIp, Vni};

/// Another NVE's MAC address, by its form.
pub(super) const fn is_node(mac: MacAddr) -> bool {
    matches!(mac.0, [0x0a, 0x57, ..])
}

/// What a frame from `frame`'s source says about an address.
fn heard(vni: Vni, ip: Option<IpAddr>, frame: &[u8]) -> Option<Lesson> {
    let mac = mac(frame, 6).filter(|mac| is_node(*mac))?;
    Some(Lesson::Ip { vni, ip: TenantIp::new(ip?).ok()?, mac })
}

/// The VAP here whose address this is.
fn owner(tables: &Tables, vni: Vni, ip: IpAddr) -> Option<(IfIndex, &Vap)> {
    let Neighbour::At(mac) = tables.neighbours.get(&(vni, TenantIp::new(ip).ok()?))? else { return None };
    let Location::Local(device) = tables.fdb.get(&(vni, *mac))? else { return None };
    let vap = tables.vaps.get(device).filter(|vap| vap.vni == vni)?;
    Some((*device, vap))
}

/// The sender becomes this NVE, wherever the frame names it.
pub(super) fn outbound(frame: &[u8], node: MacAddr) -> Result<Vec<u8>, Reason> {
    let mut f = frame.to_vec();
    f[6..12].copy_from_slice(&node.0);
    match ethertype(frame) {
        Some(ARP) => f[22..28].copy_from_slice(&node.0),
        Some(IPV6) if frame[20] == ICMPV6 => match frame.get(54) {
            Some(135) => options(&mut f, 1, node),
            Some(136) => options(&mut f, 2, node),
            _ => {}
        },
        Some(IPV4 | IPV6) => {}
        _ => return Err(Reason::Untranslatable),
    }
    Ok(f)
}

/// The link-layer address options of `kind`, and the checksum by how they change it.
fn options(f: &mut [u8], kind: u8, node: MacAddr) {
    let end = ETH + 40 + usize::from(be16(f, 18).unwrap_or(0));
    let mut off = ETH + 40 + 24;
    while off + 8 <= end {
        let Some(was) = take::<8>(f, off) else { return };
        let len = usize::from(was[1]) * 8;
        if was[0] == kind {
            f[off + 2..off + 8].copy_from_slice(&node.0);
            let inverse = was.map(|octet| !octet);
            let check = !be16(f, 56).unwrap_or(0);
            let check = !sum(&[&check.to_be_bytes(), &inverse, &f[off..off + 8]]);
            f[56..58].copy_from_slice(&check.to_be_bytes());
        }
        off += len.max(8);
    }
}

/// What a frame for this NVE's MAC address is.
pub(super) struct Restored {
    /// Whose it is, or why it is nobody's. None: that is seen when it is stripped.
    pub(super) to: Option<Result<(IfIndex, MacAddr), Reason>>,
    pub(super) lesson: Option<Lesson>,
}

pub(super) fn inbound(tables: &Tables, vni: Vni, frame: &[u8], stripped: bool) -> Restored {
    let failed = |reason| Restored { to: Some(Err(reason)), lesson: None };
    if !members::translates(tables, vni) {
        return failed(Reason::NoSuchTs);
    }
    let (ip, lesson) = match ethertype(frame) {
        Some(IPV4) => (ipv4(frame, 30), None),
        Some(IPV6) if frame.get(20..22) == Some(&[ICMPV6, 255]) => match frame.get(54) {
            Some(135) => (ipv6(frame, 38), heard(vni, ipv6(frame, 22), frame)),
            Some(136) => (ipv6(frame, 38), heard(vni, ipv6(frame, 62), frame)),
            _ => (ipv6(frame, 38), None),
        },
        Some(IPV6) => (ipv6(frame, 38), None),
        Some(ARP) if !stripped => return Restored { to: None, lesson: None },
        Some(ARP) => match take::<8>(frame, ETH) {
            Some([0, 1, 8, 0, 6, 4, 0, 1 | 2]) => (ipv4(frame, 38), heard(vni, ipv4(frame, 28), frame)),
            _ => (None, None),
        },
        _ => return failed(Reason::Untranslatable),
    };
    let to = match ip.map(|ip| owner(tables, vni, ip)) {
        None => Err(Reason::Malformed),
        Some(None) => Err(Reason::NoSuchTs),
        Some(Some((_, vap))) if !vap.activated => Err(Reason::NotActivated),
        Some(Some((device, vap))) => Ok((device, vap.mac.get())),
    };
    Restored { to: Some(to), lesson }
}

/// Gives a frame its owner's MAC address, ARP's target included.
pub(super) fn restored(frame: &[u8], owner: MacAddr) -> Vec<u8> {
    let mut f = frame.to_vec();
    f[..6].copy_from_slice(&owner.0);
    if ethertype(frame) == Some(ARP) {
        f[32..38].copy_from_slice(&owner.0);
    }
    f
}

/// Whom a member's question or announcement is for.
pub(super) enum For {
    Owner(IfIndex),
    All,
}

/// A member's question to all: for whoever can answer, if here. What it announces is for all, unless that is here.
pub(super) fn asked(tables: &Tables, vni: Vni, frame: &[u8]) -> (Result<For, Reason>, Option<Lesson>) {
    let advertises = ethertype(frame) == Some(IPV6) && frame.get(54) == Some(&136);
    let (sender, target) = if ethertype(frame) == Some(ARP) {
        if take::<8>(frame, ETH) != Some([0, 1, 8, 0, 6, 4, 0, 1]) {
            return (Err(Reason::InnerGroup), None);
        }
        (ipv4(frame, 28), ipv4(frame, 38))
    } else if frame.get(21) == Some(&255) {
        (ipv6(frame, 22), ipv6(frame, 62))
    } else {
        return (Err(Reason::InnerGroup), None);
    };
    let Some(target) = target else { return (Err(Reason::InnerGroup), None) };
    let sender = if advertises { Some(target) } else { sender };
    let gratuitous = ethertype(frame) == Some(ARP) && sender == Some(target) && !target.is_unspecified();
    let says = advertises || gratuitous;
    // Nobody is to take what it says for another's.
    let own = mac(frame, 6).filter(|own| is_node(*own));
    let link = match gratuitous {
        true => mac(frame, 22),
        false => mac(frame, 80).filter(|_| frame.get(78..80) == Some(&[2, 1])),
    };
    if says && (own.is_none() || own != link) {
        return (Err(Reason::InnerGroup), None);
    }
    let to = match owner(tables, vni, target) {
        Some((_, vap)) if says && vap.activated => return (Err(Reason::Fenced), None),
        _ if says => Ok(For::All),
        None => Err(Reason::NoSuchTs),
        Some((_, vap)) if !vap.activated => Err(Reason::NotActivated),
        Some((device, _)) => Ok(For::Owner(device)),
    };
    (to, heard(vni, sender, frame))
}
