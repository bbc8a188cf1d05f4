//! How many forwarding entries point to other hosts: counted as the kernel lists them, for looking often
//! at large tables without taking the processor from who fills them.

use crate::{LabError, Links};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use std::{io, os::fd::AsRawFd as _};

/// Message types (rtnetlink(7), netlink(7)) and the attribute of an entry's remote address.
const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NDA_DST: u16 = 1;
const REQUEST_DUMP: u16 = 0x301;
const AF_BRIDGE: u8 = 7;
/// Octets of `struct nlmsghdr`, `struct ndmsg` and `struct rtattr`.
const HEADER: usize = 16;
const ENTRY: usize = 12;
const ATTRIBUTE: usize = 4;

impl Links {
    /// Number of forwarding entries of VXLAN device `name` that have a remote address, without making anything
    /// of each.
    ///
    /// # Errors
    /// When there is no such device or the kernel refuses.
    pub fn count_remotes(&self, name: &str) -> Result<usize, LabError> {
        let index = self.index(name)?;
        self.namespace().run(|| count(index))?.map_err(|error| LabError::Netlink {
            namespace: self.namespace().name().to_owned(),
            what: format!("count the forwarding entries of {name}"),
            reason: error.to_string(),
        })
    }
}

fn count(index: u32) -> io::Result<usize> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    let mut request = Vec::with_capacity(HEADER + ENTRY);
    request.extend_from_slice(&28_u32.to_ne_bytes());
    request.extend_from_slice(&RTM_GETNEIGH.to_ne_bytes());
    request.extend_from_slice(&REQUEST_DUMP.to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    request.push(AF_BRIDGE);
    request.resize(HEADER + ENTRY, 0);
    send(socket.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut buffer = vec![0; 1 << 18];
    let mut found = 0;
    loop {
        let got = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let Some(more) = tally(buffer.get(..got).unwrap_or_default(), index, &mut found) else {
            return Err(io::Error::other("the kernel answered with an error"));
        };
        if !more {
            return Ok(found);
        }
    }
}

/// Adds what is in one datagram of a dump to `found`; whether more follows, none after an error.
fn tally(mut octets: &[u8], index: u32, found: &mut usize) -> Option<bool> {
    while let Some(head) = octets.get(..HEADER) {
        let length = usize::try_from(word(head, 0)).ok()?;
        let message = octets.get(HEADER..length)?;
        match half(head, 4) {
            NLMSG_DONE => return Some(false),
            NLMSG_ERROR => return None,
            RTM_NEWNEIGH if message.len() >= ENTRY && word(message, 4) == index && has_remote(message) => {
                *found += 1;
            }
            _ => {}
        }
        octets = octets.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(true)
}

fn has_remote(message: &[u8]) -> bool {
    let mut rest = message.get(ENTRY..).unwrap_or_default();
    while rest.len() >= ATTRIBUTE {
        if half(rest, 2) == NDA_DST {
            return true;
        }
        let length = usize::from(half(rest, 0)).max(ATTRIBUTE);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

fn word(octets: &[u8], at: usize) -> u32 {
    octets.get(at..at + 4).and_then(|o| o.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

fn half(octets: &[u8], at: usize) -> u16 {
    octets.get(at..at + 2).and_then(|o| o.try_into().ok()).map_or(0, u16::from_ne_bytes)
}
