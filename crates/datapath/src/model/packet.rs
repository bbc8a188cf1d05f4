//! What policies look at in a frame without a tunnel header.

use super::bytes::{ARP, ETH, ICMP, ICMPV6, IGMP, IPV4, IPV6, UDP, be16, ethertype, ipv4, ipv6, mac, take};
use super::connections::{Ends, Packet};
use super::vap::skip_extensions;
use crate::Toward;
use core::net::IpAddr;
use weft_model::{MacAddr, Vni};

pub(super) const TCP: u8 = 6;
pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const ACK: u8 = 0x10;

/// DCCP, SCTP, UDP-Lite: protocols with ports beside TCP and UDP.
const WITH_PORTS: [u8; 3] = [33, 132, 136];

/// Up to its flags (RFC 1858).
const TCP_SEEN: usize = 14;

/// What a packet is beside its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    /// Of ICMP, with an identifier.
    Question,
    /// To one.
    Answer,
    /// Of ICMP, about another packet, which begins there.
    Error(usize),
    /// Of ICMP, that nothing belongs to.
    Alone,
    /// With checks of its own: Neighbor Discovery.
    Exempt,
    /// IGMP and MLD, likewise if it is for a group.
    Membership,
}

/// A packet's ports: an ICMP question goes from the port of its identifier to that of its type and code, its answer back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    src: u16,
    dst: u16,
    /// What rules call it.
    pub(super) number: u16,
    pub(super) flags: u8,
    pub(super) kind: Kind,
}

/// A packet that policies decide about.
pub(super) struct Read {
    pub(super) ends: Ends,
    pub(super) ports: Ports,
    v4: bool,
    /// Its identification if it is a fragment, and whether it is not the first one.
    fragment: Option<(u32, bool)>,
}

impl Read {
    /// Whether it is a fragment other than the first.
    pub(super) fn is_later(&self) -> bool {
        self.fragment.is_some_and(|(_, later)| later)
    }

    /// What it has in common with its other fragments, if it is one.
    pub(super) fn packet(&self, toward: Toward) -> Option<Packet> {
        let (id, _) = self.fragment?;
        let Ends { vni, local, remote, protocol, .. } = self.ends;
        let (src, dst) = if toward == Toward::Out { (local, remote) } else { (remote, local) };
        Some(Packet { vni, src, dst, id, protocol: if self.v4 { protocol } else { 0 }, toward, policy: None })
    }
}

/// The type of the question that a message answers, or that it is one.
fn question(kind: u8, v4: bool) -> Option<Result<u8, u8>> {
    match (v4, kind) {
        (true, 8 | 13 | 15 | 17) | (false, 128) => Some(Ok(kind)),
        (true, 0) => Some(Err(8)),
        (true, 14 | 16 | 18) | (false, 129) => Some(Err(kind - 1)),
        _ => None,
    }
}

/// Of what is at `off`; none if `packet` ends before it can be told.
fn ports(packet: &[u8], off: usize, protocol: u8, v4: bool) -> Option<Ports> {
    let none = Ports { src: 0, dst: 0, number: 0, flags: 0, kind: Kind::Plain };
    if protocol == if v4 { ICMP } else { ICMPV6 } {
        let [kind, code, _, _, a, b, _, _] = take(packet, off)?;
        let (number, id) = (u16::from_be_bytes([kind, code]), u16::from_be_bytes([a, b]));
        let none = Ports { number, ..none };
        return Some(match (v4, kind, question(kind, v4)) {
            (true, 3 | 4 | 11 | 12, _) | (false, 1..=4, _) => Ports { kind: Kind::Error(off + 8), ..none },
            (false, 130..=133 | 143, _) => Ports { kind: Kind::Membership, ..none },
            (false, 135 | 136, _) => Ports { kind: Kind::Exempt, ..none },
            (_, _, None) => Ports { kind: Kind::Alone, ..none },
            (_, _, Some(Ok(_))) => Ports { src: id, dst: number, kind: Kind::Question, ..none },
            (_, _, Some(Err(asked))) => {
                Ports { src: u16::from_be_bytes([asked, code]), dst: id, kind: Kind::Answer, ..none }
            }
        });
    }
    if v4 && protocol == IGMP {
        return Some(Ports { kind: Kind::Membership, ..none });
    }
    if protocol != TCP && protocol != UDP && !WITH_PORTS.contains(&protocol) {
        return Some(none);
    }
    let (src, dst) = (be16(packet, off)?, be16(packet, off + 2)?);
    let flags = if protocol == TCP { packet.get(off + 13).copied().unwrap_or(0) } else { 0 };
    Some(Ports { src, dst, number: dst, flags, kind: Kind::Plain })
}

fn is_dhcp_client(protocol: u8, ports: &Ports, v4: bool, toward: Toward) -> bool {
    let (client, server) = if v4 { (68, 67) } else { (546, 547) };
    let (src, dst) = if toward == Toward::Out { (client, server) } else { (server, client) };
    protocol == UDP && (ports.src, ports.dst) == (src, dst)
}

fn ends(vni: Vni, (src, dst): (IpAddr, IpAddr), protocol: u8, ports: &Ports, toward: Toward) -> Ends {
    let (src, dst) = (src.to_canonical(), dst.to_canonical());
    let (local, remote, local_port, remote_port) = match toward {
        Toward::Out => (src, dst, ports.src, ports.dst),
        Toward::In => (dst, src, ports.dst, ports.src),
    };
    Ends { vni, local, remote, protocol, local_port, remote_port }
}

/// Reads a frame; `Err(true)`: policies do not decide about it, `Err(false)`: they refuse it.
pub(super) fn read(vni: Vni, frame: &[u8], toward: Toward) -> Result<Read, bool> {
    let refused = || false;
    let header: [u8; 20] = take(frame, ETH).ok_or_else(refused)?;
    let (v4, off, protocol, end, fragment) = match ethertype(frame) {
        Some(ARP) => return Err(true),
        Some(IPV4) => {
            if header[0] >> 4 != 4 || header[0] & 15 < 5 {
                return Err(false);
            }
            let off = ETH + usize::from(header[0] & 15) * 4;
            let word = u16::from_be_bytes([header[6], header[7]]);
            let id = u32::from(u16::from_be_bytes([header[4], header[5]]));
            let fragment = (word & 0x3fff != 0).then_some((id, word & 0x1fff != 0));
            let end = ETH + usize::from(u16::from_be_bytes([header[2], header[3]]));
            (true, off, header[9], end, fragment)
        }
        Some(IPV6) => {
            let header: [u8; 40] = take(frame, ETH).ok_or_else(refused)?;
            if header[0] >> 4 != 6 {
                return Err(false);
            }
            let end = ETH + 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
            let packet = frame.get(..end).ok_or_else(refused)?;
            let l4 = skip_extensions(packet, header[6]).ok_or_else(refused)?;
            (false, l4.off, l4.proto, end, l4.fragment.map(|id| (id, l4.later)))
        }
        _ => return Err(false),
    };
    let packet = frame.get(..end).filter(|_| off <= end).ok_or_else(refused)?;
    let addresses = if v4 { (ipv4(frame, 26), ipv4(frame, 30)) } else { (ipv6(frame, 22), ipv6(frame, 38)) };
    let (Some(src), Some(dst)) = addresses else { return Err(false) };
    // Nobody talks to himself by way of an NVE, and both ends of that would be one connection.
    if src.to_canonical() == dst.to_canonical() {
        return Err(false);
    }
    let none = Ports { src: 0, dst: 0, number: 0, flags: 0, kind: Kind::Plain };
    if fragment.is_some_and(|(_, later)| later) {
        let ends = ends(vni, (src, dst), protocol, &none, toward);
        return Ok(Read { ends, ports: none, v4, fragment });
    }
    let ports = ports(packet, off, protocol, v4).ok_or_else(refused)?;
    // To all that listen, and not to one of them in that dress.
    let to_all = mac(frame, 0).is_some_and(MacAddr::is_group) && dst.is_multicast();
    let membership = ports.kind == Kind::Membership && to_all;
    if ports.kind == Kind::Exempt || membership || is_dhcp_client(protocol, &ports, v4, toward) {
        return Err(true);
    }
    if protocol == TCP && end - off < TCP_SEEN {
        return Err(false);
    }
    Ok(Read { ends: ends(vni, (src, dst), protocol, &ports, toward), ports, v4, fragment })
}

/// The ends of the packet that an ICMP error quotes, if that is of the same tenant system.
pub(super) fn quoted(read: &Read, frame: &[u8], at: usize, toward: Toward) -> Option<Ends> {
    // It went the other way.
    let out = toward == Toward::Out;
    let toward = if toward == Toward::Out { Toward::In } else { Toward::Out };
    let (addresses, protocol, off) = if read.v4 {
        let header: [u8; 20] = take(frame, at)?;
        if header[0] >> 4 != 4
            || header[0] & 15 < 5
            || u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0
        {
            return None;
        }
        ((ipv4(frame, at + 12)?, ipv4(frame, at + 16)?), header[9], at + usize::from(header[0] & 15) * 4)
    } else {
        let header: [u8; 40] = take(frame, at)?;
        if header[0] >> 4 != 6 {
            return None;
        }
        // As behind an Ethernet header.
        let l4 = skip_extensions(frame.get(at - ETH..)?, header[6]).filter(|l4| !l4.later)?;
        ((ipv6(frame, at + 8)?, ipv6(frame, at + 24)?), l4.proto, at - ETH + l4.off)
    };
    // Of TCP its ports alone; of no other more than eight octets.
    let ports = ports(frame.get(..frame.len().min(off + 8))?, off, protocol, read.v4)?;
    if !matches!(ports.kind, Kind::Plain | Kind::Question | Kind::Answer) {
        return None;
    }
    let ends = ends(read.ends.vni, addresses, protocol, &ports, toward);
    // What a tenant system sends goes to the other end; to it any router may send.
    let between = ends.local == read.ends.local && (!out || ends.remote == read.ends.remote);
    between.then_some(ends)
}
