//! Frames as they are, out of a device: what no network stack would send.

use crate::{error::LabError, netns::NetNs};
use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};
use weft_model::MacAddr;

/// A packet socket bound to one device, only for sending.
#[derive(Debug)]
pub struct RawSender(OwnedFd);

impl RawSender {
    /// Opens one for `device` in `namespace`.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn open(namespace: &NetNs, device: &str) -> Result<Self, LabError> {
        let what = format!("send frames out of {device} in {}", namespace.name());
        namespace.run(|| open(device))?.map(Self).map_err(LabError::io(what))
    }

    /// Sends one Ethernet frame.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: send reads `frame.len()` octets of `frame`.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// A packet socket that receives nothing (protocol 0) and sends out of `device`.
fn open(device: &str) -> io::Result<OwnedFd> {
    let index = nix::net::if_::if_nametoindex(device)?;
    // SAFETY: socket takes three integers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: sockaddr_ll is a C structure of integers, for which all zero is valid.
    let mut addr: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    addr.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    addr.sll_ifindex = libc::c_int::try_from(index).map_err(io::Error::other)?;
    let length = libc::socklen_t::try_from(size_of_val(&addr)).map_err(io::Error::other)?;
    // SAFETY: bind reads `length` octets of a sockaddr_ll that lives on this stack frame.
    let done = unsafe { libc::bind(socket.as_raw_fd(), (&raw const addr).cast(), length) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}

/// An ARP request (RFC 826) to everybody: a probe when `ip` is unspecified, an announcement when it is `target`
/// (RFC 5227).
#[must_use]
pub fn arp_request(mac: MacAddr, ip: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    arp_request_to(MacAddr::BROADCAST, mac, ip, target)
}

/// The same to one MAC address, as who makes sure that a neighbour is still there sends it (RFC 1122 section
/// 2.3.2.1).
#[must_use]
pub fn arp_request_to(to: MacAddr, mac: MacAddr, ip: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mac = mac.octets();
    let mut frame = [&to.octets()[..], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &mac].concat();
    frame.extend(ip.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

/// A Neighbor Solicitation (RFC 4861 section 4.3) to the target's solicited-node group; that of duplicate address
/// detection (RFC 4862 section 5.4.2) when `ip` is unspecified.
#[must_use]
pub fn neighbour_solicitation(mac: MacAddr, ip: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = target.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let option = (!ip.is_unspecified()).then_some(mac);
    discovery(135, [0; 4], (mac, ip), (MacAddr([0x33, 0x33, 0xff, a, b, c]), group), target, option)
}

/// The same to the target itself, which has `to` (RFC 4861 section 7.3.3).
#[must_use]
pub fn neighbour_solicitation_to(to: MacAddr, mac: MacAddr, ip: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    discovery(135, [0; 4], (mac, ip), (to, target), target, Some(mac))
}

/// An unsolicited Neighbor Advertisement to all nodes that overrides (RFC 4861 section 7.2.6).
#[must_use]
pub fn unsolicited_advertisement(mac: MacAddr, ip: Ipv6Addr) -> Vec<u8> {
    let all = (MacAddr([0x33, 0x33, 0, 0, 0, 1]), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
    discovery(136, [0x20, 0, 0, 0], (mac, ip), all, ip, Some(mac))
}

fn discovery(
    kind: u8,
    flags: [u8; 4],
    from: (MacAddr, Ipv6Addr),
    to: (MacAddr, Ipv6Addr),
    target: Ipv6Addr,
    option: Option<MacAddr>,
) -> Vec<u8> {
    let mut icmp = [&[kind, 0, 0, 0][..], &flags, &target.octets()].concat();
    if let Some(mac) = option {
        icmp.extend([kind - 134, 1]);
        icmp.extend(mac.octets());
    }
    let length = u8::try_from(icmp.len()).unwrap_or_default();
    let pseudo = [&from.1.octets()[..], &to.1.octets(), &[0, 0, 0, length, 0, 0, 0, 58], &icmp].concat();
    let sum = !crate::echo::checksum(&pseudo);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = [&to.0.octets()[..], &from.0.octets(), &[0x86, 0xdd]].concat();
    frame.extend([0x60, 0, 0, 0, 0, length, 58, 255]);
    frame.extend(from.1.octets());
    frame.extend(to.1.octets());
    frame.extend(icmp);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{Kind, kind};

    #[test]
    fn questions_are_what_captures_take_them_for() {
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        let arp = arp_request(mac, Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        assert_eq!((arp.len(), kind(&arp)), (42, Kind::Arp));
        let ns = neighbour_solicitation(mac, "fd00::1".parse().unwrap(), "fd00::12:3456".parse().unwrap());
        assert_eq!((ns.len(), kind(&ns)), (86, Kind::NeighbourSolicitation));
        assert_eq!(ns[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
        // Over the pseudo-header (RFC 8200 section 8.1) too the sum comes out right.
        let pseudo = [&ns[22..54], &[0, 0, 0, 32, 0, 0, 0, 58], &ns[54..]].concat();
        assert_eq!(crate::echo::checksum(&pseudo), 0xffff);
    }
}
