//! rtnetlink, as much as one VXLAN device needs: blocking, one socket, one request at a time.

use super::sys;
use crate::DatapathError;
use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const NLMSG_ERROR: u16 = 2;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;
const EXCL: u16 = 0x200;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VXLAN_LEARNING: u16 = 7;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_VXLAN_UDP_ZERO_CSUM6_TX: u16 = 19;
const IFLA_VXLAN_UDP_ZERO_CSUM6_RX: u16 = 20;
const IFLA_VXLAN_COLLECT_METADATA: u16 = 25;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_NONE: u8 = 1;
const NESTED: u16 = 0x8000;
const IFF_UP: u32 = 1;

/// Room for the largest tenant frames; what the underlay carries is the VAPs' business.
const VXLAN_MTU: u32 = 65_000;

/// A device as the kernel describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) kind: String,
    pub(super) collect_metadata: bool,
    pub(super) port: u16,
    pub(super) up: bool,
}

/// An rtnetlink socket of the network namespace it was opened in.
#[derive(Debug)]
pub(super) struct Netlink(OwnedFd);

fn attribute(message: &mut Vec<u8>, kind: u16, payload: &[u8]) {
    let len = u16::try_from(payload.len() + 4).unwrap_or(u16::MAX);
    message.extend(len.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(payload);
    message.resize(message.len().next_multiple_of(4), 0);
}

/// The attributes in a message's tail; stops at nonsense.
fn attributes(mut octets: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while let [l0, l1, k0, k1, rest @ ..] = octets {
        let len = usize::from(u16::from_ne_bytes([*l0, *l1]));
        let kind = u16::from_ne_bytes([*k0, *k1]) & !NESTED;
        let Some(payload) = len.checked_sub(4).and_then(|n| rest.get(..n)) else { break };
        found.push((kind, payload));
        octets = octets.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// ifinfomsg.
fn header(index: u32, flags: u32) -> Vec<u8> {
    let mut message = vec![0; 4];
    message.extend(index.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message
}

impl Netlink {
    pub(super) fn open() -> Result<Self, DatapathError> {
        let socket = sys::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)
            .map_err(|e| sys::refused("open a netlink socket", e))?;
        Ok(Self(socket))
    }

    /// Sends a request; the first message of the answer without its header, empty for a plain
    /// acknowledgement.
    fn call(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<u8>> {
        let len = u32::try_from(body.len() + 16).unwrap_or(u32::MAX);
        let mut message = Vec::with_capacity(body.len() + 16);
        message.extend(len.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((flags | REQUEST).to_ne_bytes());
        message.extend([0; 8]);
        message.extend(body);
        sys::send(self.0.as_fd(), &message)?;
        let mut answer = vec![0; 32_768];
        let got = sys::receive(self.0.as_fd(), &mut answer)?;
        answer.truncate(got);
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "short netlink answer");
        let kind =
            answer.get(4..6).and_then(|k| k.try_into().ok()).map(u16::from_ne_bytes).ok_or_else(bad)?;
        let body = answer.get(16..).ok_or_else(bad)?;
        if kind != NLMSG_ERROR {
            return Ok(body.to_vec());
        }
        match body.first_chunk().copied().map(i32::from_ne_bytes).ok_or_else(bad)? {
            0 => Ok(Vec::new()),
            errno => Err(io::Error::from_raw_os_error(-errno)),
        }
    }

    fn find(&self, request: &[u8]) -> Result<Option<Link>, DatapathError> {
        let body = match self.call(RTM_GETLINK, 0, request) {
            Ok(body) => body,
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => return Ok(None),
            Err(e) => return Err(sys::refused("query a device", e)),
        };
        let index = body.get(4..8).and_then(|i| i.try_into().ok()).map_or(0, u32::from_ne_bytes);
        let flags = body.get(8..12).and_then(|f| f.try_into().ok()).map_or(0, u32::from_ne_bytes);
        let mut link = Link { index, up: flags & IFF_UP != 0, ..Link::default() };
        let info = attributes(body.get(16..).unwrap_or_default());
        for (kind, payload) in info.iter().filter(|a| a.0 == IFLA_LINKINFO).flat_map(|a| attributes(a.1)) {
            match kind {
                IFLA_INFO_KIND => {
                    link.kind = String::from_utf8_lossy(payload).trim_end_matches('\0').to_owned();
                }
                IFLA_INFO_DATA => {
                    for (kind, payload) in attributes(payload) {
                        match (kind, payload) {
                            (IFLA_VXLAN_COLLECT_METADATA, [on]) => link.collect_metadata = *on == 1,
                            (IFLA_VXLAN_PORT, [a, b]) => link.port = u16::from_be_bytes([*a, *b]),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(Some(link))
    }

    pub(super) fn by_name(&self, name: &str) -> Result<Option<Link>, DatapathError> {
        let mut request = header(0, 0);
        attribute(&mut request, IFLA_IFNAME, &[name.as_bytes(), &[0]].concat());
        self.find(&request)
    }

    /// Creates a VXLAN device that takes VNI and remote from each frame's tunnel key, learns
    /// nothing, has no addresses, and accepts and sends UDP checksum 0 over IPv6 (RFC 6935).
    pub(super) fn create_vxlan(&self, name: &str, port: u16) -> Result<(), DatapathError> {
        let mut data = Vec::new();
        attribute(&mut data, IFLA_VXLAN_COLLECT_METADATA, &[1]);
        attribute(&mut data, IFLA_VXLAN_LEARNING, &[0]);
        attribute(&mut data, IFLA_VXLAN_PORT, &port.to_be_bytes());
        attribute(&mut data, IFLA_VXLAN_UDP_ZERO_CSUM6_TX, &[1]);
        attribute(&mut data, IFLA_VXLAN_UDP_ZERO_CSUM6_RX, &[1]);
        let mut info = Vec::new();
        attribute(&mut info, IFLA_INFO_KIND, b"vxlan");
        attribute(&mut info, IFLA_INFO_DATA | NESTED, &data);
        let mut request = header(0, 0);
        attribute(&mut request, IFLA_IFNAME, &[name.as_bytes(), &[0]].concat());
        attribute(&mut request, IFLA_MTU, &VXLAN_MTU.to_ne_bytes());
        attribute(&mut request, IFLA_LINKINFO | NESTED, &info);
        match self.call(RTM_NEWLINK, ACK | CREATE | EXCL, &request) {
            Ok(_) => Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Err(DatapathError::PortTaken { port }),
            Err(e) => Err(sys::refused(format!("create VXLAN device {name}"), e)),
        }
    }

    /// No link-local address of its own; nothing to do on hosts without IPv6.
    pub(super) fn no_addresses(&self, index: u32) -> Result<(), DatapathError> {
        let mut inet6 = Vec::new();
        attribute(&mut inet6, IFLA_INET6_ADDR_GEN_MODE, &[ADDR_GEN_NONE]);
        let mut spec = Vec::new();
        attribute(&mut spec, u16::try_from(libc::AF_INET6).unwrap_or(0) | NESTED, &inet6);
        let mut request = header(index, 0);
        attribute(&mut request, IFLA_AF_SPEC | NESTED, &spec);
        match self.call(RTM_NEWLINK, ACK, &request) {
            Ok(_) => Ok(()),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP)) => Ok(()),
            Err(e) => Err(sys::refused("configure the VXLAN device", e)),
        }
    }

    pub(super) fn up(&self, index: u32, port: u16) -> Result<(), DatapathError> {
        match self.call(RTM_NEWLINK, ACK, &header(index, IFF_UP)) {
            Ok(_) => Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::EADDRINUSE) => Err(DatapathError::PortTaken { port }),
            Err(e) => Err(sys::refused("bring the VXLAN device up", e)),
        }
    }

    /// Sets a device down; absent is fine.
    pub(super) fn down(&self, index: u32) -> Result<(), DatapathError> {
        let mut request = header(index, 0);
        // Of the flags only this one changes.
        request.splice(12..16, IFF_UP.to_ne_bytes());
        match self.call(RTM_NEWLINK, ACK, &request) {
            Ok(_) => Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            Err(e) => Err(sys::refused("set a device down", e)),
        }
    }

    pub(super) fn delete(&self, index: u32) -> Result<(), DatapathError> {
        match self.call(RTM_DELLINK, ACK, &header(index, 0)) {
            Ok(_) => Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            Err(e) => Err(sys::refused("delete the VXLAN device", e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_round_trip_and_stop_at_nonsense() {
        let mut octets = Vec::new();
        attribute(&mut octets, 3, b"abc");
        attribute(&mut octets, 4 | NESTED, &[1, 2, 3, 4]);
        assert_eq!(attributes(&octets), [(3, &b"abc"[..]), (4, &[1, 2, 3, 4])]);
        octets.extend([3, 0, 0, 0]);
        assert_eq!(attributes(&octets).len(), 2);
    }
}
