//! UDP sockets that know which of the host's addresses was asked, and answer from it.

use nix::{
    cmsg_space,
    errno::Errno,
    libc,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, recvmsg,
        sendmsg, setsockopt, sockopt,
    },
};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

/// Longest datagram that is read, octets.
pub(super) const DATAGRAM: usize = 65_535;

/// A UDP socket of one family.
pub(super) struct Udp {
    socket: Socket,
    v4: bool,
    control: Vec<u8>,
}

/// A datagram's ends.
pub(super) struct Received {
    pub(super) len: usize,
    pub(super) from: SocketAddr,
    /// Which of our addresses it was sent to.
    pub(super) to: IpAddr,
}

impl Udp {
    /// A socket that shares `address` with the other shards' sockets.
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let v4 = address.is_ipv4();
        let domain = if v4 { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        if !v4 {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        // A burst waits here while the thread is busy; the kernel may cut it to its own limit.
        drop(socket.set_recv_buffer_size(4 << 20));
        if v4 {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
        socket.bind(&address.into())?;
        Ok(Self { socket, v4, control: cmsg_space!(libc::in6_pktinfo, libc::in_pktinfo) })
    }

    /// The port it got.
    pub(super) fn port(&self) -> io::Result<u16> {
        Ok(self.socket.local_addr()?.as_socket().map_or(0, |a| a.port()))
    }

    pub(super) const fn is_v4(&self) -> bool {
        self.v4
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The next datagram; none when there is none now. An error of an earlier send that the kernel
    /// reports here concerns nobody any more and is passed over.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Option<Received> {
        for _ in 0..16 {
            let mut slices = [IoSliceMut::new(buffer)];
            let got = recvmsg::<SockaddrStorage>(
                self.socket.as_raw_fd(),
                &mut slices,
                Some(&mut self.control),
                MsgFlags::MSG_DONTWAIT,
            );
            let got = match got {
                Ok(got) => got,
                Err(Errno::EAGAIN) => return None,
                Err(_) => continue,
            };
            let len = got.bytes;
            let Some(from) = got.address.as_ref().and_then(address) else { continue };
            let to = got.cmsgs().ok().and_then(|mut all| {
                all.find_map(|message| match message {
                    ControlMessageOwned::Ipv4PacketInfo(info) => {
                        Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr))))
                    }
                    ControlMessageOwned::Ipv6PacketInfo(info) => {
                        Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)))
                    }
                    _ => None,
                })
            });
            let any = if self.v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            return Some(Received { len, from, to: to.unwrap_or(any) });
        }
        None
    }

    /// Sends from `source`, or from the address the kernel chooses.
    pub(super) fn send(&self, payload: &[u8], to: SocketAddr, source: Option<IpAddr>) -> io::Result<()> {
        let slices = [IoSlice::new(payload)];
        let fd = self.socket.as_raw_fd();
        let flags = MsgFlags::MSG_DONTWAIT;
        match to {
            SocketAddr::V4(to) => {
                let info = source.and_then(|source| match source {
                    IpAddr::V4(v4) if !v4.is_unspecified() => Some(libc::in_pktinfo {
                        ipi_ifindex: 0,
                        ipi_spec_dst: libc::in_addr { s_addr: u32::from(v4).to_be() },
                        ipi_addr: libc::in_addr { s_addr: 0 },
                    }),
                    _ => None,
                });
                let control = info.as_ref().map(ControlMessage::Ipv4PacketInfo);
                sendmsg(fd, &slices, control.as_slice(), flags, Some(&SockaddrIn::from(to)))?;
            }
            SocketAddr::V6(to) => {
                let info = source.and_then(|source| match source {
                    IpAddr::V6(v6) if !v6.is_unspecified() => Some(libc::in6_pktinfo {
                        ipi6_addr: libc::in6_addr { s6_addr: v6.octets() },
                        ipi6_ifindex: 0,
                    }),
                    _ => None,
                });
                let control = info.as_ref().map(ControlMessage::Ipv6PacketInfo);
                sendmsg(fd, &slices, control.as_slice(), flags, Some(&SockaddrIn6::from(to)))?;
            }
        }
        Ok(())
    }
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = storage.as_sockaddr_in() {
        return Some(SocketAddr::from((v4.ip(), v4.port())));
    }
    storage.as_sockaddr_in6().map(|v6| SocketAddr::from((v6.ip(), v6.port())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    #[test]
    fn answers_leave_from_the_address_that_was_asked() {
        for (any, asked, loopback) in [("0.0.0.0", "127.0.0.9", "127.0.0.1"), ("::", "::1", "::1")] {
            let mut server = Udp::bind(SocketAddr::new(any.parse().unwrap(), 0)).unwrap();
            let mut client = Udp::bind(SocketAddr::new(loopback.parse().unwrap(), 0)).unwrap();
            let wait = |udp: &Udp| {
                let mut fds = [PollFd::new(udp.fd(), PollFlags::POLLIN)];
                assert_eq!(poll(&mut fds, PollTimeout::from(30_000u16)).unwrap(), 1);
            };
            let asked: IpAddr = asked.parse().unwrap();
            client.send(b"q", SocketAddr::new(asked, server.port().unwrap()), None).unwrap();
            wait(&server);
            let mut buffer = [0; 16];
            let got = server.receive(&mut buffer).unwrap();
            assert_eq!((got.len, got.to), (1, asked));
            server.send(b"a", got.from, Some(got.to)).unwrap();
            wait(&client);
            let got = client.receive(&mut buffer).unwrap();
            assert_eq!(got.from.ip(), asked);
            assert!(client.receive(&mut buffer).is_none());
        }
    }
}
