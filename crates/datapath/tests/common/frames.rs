//! Frames for tests: built field by field, sent and received by packet sockets.

use super::Ns;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};
use weft_datapath::IfIndex;

pub type Mac = [u8; 6];

pub const BROADCAST: Mac = [0xff; 6];

pub fn eth(dst: Mac, src: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&dst[..], &src, &ethertype.to_be_bytes(), payload].concat()
}

pub fn arp(dst: Mac, src: Mac, op: u16, sha: Mac, spa: Ipv4Addr, tpa: Ipv4Addr) -> Vec<u8> {
    let fixed = [0, 1, 8, 0, 6, 4];
    let payload = [&fixed[..], &op.to_be_bytes(), &sha, &spa.octets(), &[0; 6], &tpa.octets()].concat();
    eth(dst, src, 0x0806, &payload)
}

pub fn sum(parts: &[&[u8]]) -> u16 {
    let mut total = 0_u32;
    for part in parts {
        for word in part.chunks(2) {
            total += u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0));
        }
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    !u16::try_from(total).unwrap()
}

/// An IPv4 packet; `frag` is the flags and offset word.
pub fn ipv4(src: Ipv4Addr, dst: Ipv4Addr, proto: u8, tos: u8, frag: u16, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(20 + payload.len()).unwrap();
    let mut h = vec![0x45, tos];
    h.extend(len.to_be_bytes());
    h.extend([0, 7]);
    h.extend(frag.to_be_bytes());
    h.extend([64, proto, 0, 0]);
    h.extend(src.octets());
    h.extend(dst.octets());
    let check = sum(&[&h]).to_be_bytes();
    h[10..12].copy_from_slice(&check);
    h.extend(payload);
    h
}

pub fn ipv6(src: Ipv6Addr, dst: Ipv6Addr, next: u8, hops: u8, class: u8, payload: &[u8]) -> Vec<u8> {
    let mut h = vec![0x60 | class >> 4, class << 4, 0, 0];
    h.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    h.extend([next, hops]);
    h.extend(src.octets());
    h.extend(dst.octets());
    h.extend(payload);
    h
}

/// Checksum 0.
pub fn udp(src: u16, dst: u16, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + payload.len()).unwrap();
    [&src.to_be_bytes()[..], &dst.to_be_bytes(), &len.to_be_bytes(), &[0, 0], payload].concat()
}

/// An ICMPv6 message with its checksum, in IPv6 with hop limit 255.
pub fn icmpv6(src: Ipv6Addr, dst: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let mut m = message.to_vec();
    let pseudo =
        [&src.octets()[..], &dst.octets(), &u32::try_from(m.len()).unwrap().to_be_bytes(), &[0, 0, 0, 58]]
            .concat();
    let check = sum(&[&pseudo, &m]).to_be_bytes();
    m[2..4].copy_from_slice(&check);
    ipv6(src, dst, 58, 255, 0, &m)
}

/// Neighbor Solicitation (135) or Advertisement (136) with options as given.
pub fn nd(kind: u8, src: Ipv6Addr, dst: Ipv6Addr, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    let message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), options].concat();
    icmpv6(src, dst, &message)
}

/// A link-layer address option.
pub fn lla(kind: u8, mac: Mac) -> Vec<u8> {
    [&[kind, 1][..], &mac].concat()
}

pub fn solicited_node(target: Ipv6Addr) -> (Mac, Ipv6Addr) {
    let [.., a, b, c] = target.octets();
    let word = |x: u8, y: u8| u16::from(x) << 8 | u16::from(y);
    ([0x33, 0x33, 0xff, a, b, c], Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, word(0xff, a), word(b, c)))
}

pub fn vxlan(flags: u8, vni: u32, inner: &[u8]) -> Vec<u8> {
    [&[flags, 0, 0, 0][..], &(vni << 8).to_be_bytes(), inner].concat()
}

/// UDP from one address to another, in an Ethernet frame.
pub fn datagram(dst: Mac, src: Mac, from: IpAddr, to: IpAddr, tos: u8, udp: &[u8]) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => eth(dst, src, 0x0800, &ipv4(from, to, 17, tos, 0, udp)),
        (IpAddr::V6(from), IpAddr::V6(to)) => eth(dst, src, 0x86dd, &ipv6(from, to, 17, 64, tos, udp)),
        _ => panic!("{from} and {to}"),
    }
}

/// A packet socket on one device of a namespace.
pub struct Wire {
    socket: OwnedFd,
    device: IfIndex,
}

impl Wire {
    pub fn new(ns: &Ns, device: &str) -> Self {
        let device = ns.index(device);
        let socket = ns.run(|| {
            let all = u16::try_from(libc::ETH_P_ALL).unwrap().to_be();
            // SAFETY: plain calls; the descriptor is fresh.
            let socket = unsafe {
                let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(all));
                assert!(fd >= 0, "{}", io::Error::last_os_error());
                OwnedFd::from_raw_fd(fd)
            };
            let to = address(device);
            let len = u32::try_from(size_of_val(&to)).unwrap();
            // SAFETY: a live sockaddr_ll and its length.
            let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const to).cast(), len) };
            assert_eq!(bound, 0, "{}", io::Error::last_os_error());
            socket
        });
        Self { socket, device }
    }

    pub fn send(&self, frame: &[u8]) {
        let to = address(self.device);
        let len = u32::try_from(size_of_val(&to)).unwrap();
        // SAFETY: a live slice and a live sockaddr_ll.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const to).cast(),
                len,
            )
        };
        assert_eq!(usize::try_from(sent).ok(), Some(frame.len()), "{}", io::Error::last_os_error());
    }

    /// The next frame that came in (not one that went out), within 30 s.
    pub fn receive(&self, what: &str, mut wanted: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
        super::wait_for(what, || {
            loop {
                let mut buffer = vec![0; 70_000];
                // SAFETY: all zero is a legal sockaddr_ll.
                let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
                let mut len = u32::try_from(size_of_val(&from)).unwrap();
                // SAFETY: a live exclusive slice, address and length.
                let got = unsafe {
                    libc::recvfrom(
                        self.socket.as_raw_fd(),
                        buffer.as_mut_ptr().cast(),
                        buffer.len(),
                        libc::MSG_DONTWAIT,
                        (&raw mut from).cast(),
                        &raw mut len,
                    )
                };
                let Ok(got) = usize::try_from(got) else { return None };
                buffer.truncate(got);
                if from.sll_pkttype != 4 && wanted(&buffer) {
                    return Some(buffer);
                }
            }
        })
    }

    /// Everything that came in, up to and with the first frame that is `last`.
    pub fn until(&self, what: &str, last: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        self.receive(what, |frame| {
            all.push(frame.to_vec());
            last(frame)
        });
        all
    }
}

fn address(device: IfIndex) -> libc::sockaddr_ll {
    // SAFETY: all zero is a legal sockaddr_ll.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = u16::try_from(libc::AF_PACKET).unwrap();
    to.sll_protocol = u16::try_from(libc::ETH_P_ALL).unwrap().to_be();
    to.sll_ifindex = i32::try_from(device.0).unwrap();
    to
}
