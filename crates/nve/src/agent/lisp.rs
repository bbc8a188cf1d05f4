//! LISP's UDP sockets: one bound to each RLOC, so that requests come from an address the Oracle
//! knows as this NVE's, whatever the route says.

use super::NveError;
use nix::sys::socket::{SockaddrStorage, recvfrom};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
};
use tokio::net::UdpSocket;
use weft_model::Rloc;

/// The sockets, by RLOC.
#[derive(Debug)]
pub(super) struct LispSockets {
    sockets: Vec<(IpAddr, UdpSocket)>,
}

impl LispSockets {
    /// Binds `port` on every RLOC.
    pub(super) fn bind(rlocs: impl IntoIterator<Item = Rloc>, port: u16) -> Result<Self, NveError> {
        let mut sockets = Vec::new();
        for rloc in rlocs {
            let addr = SocketAddr::new(rloc.get(), port);
            let socket = bind(addr).map_err(|source| NveError::Listen { what: "LISP", addr, source })?;
            sockets.push((rloc.get(), socket));
        }
        Ok(Self { sockets })
    }

    /// Sends from the RLOC of the same family as `to`. A full buffer loses the datagram, as the network
    /// would; the resolver tries again.
    pub(super) fn send(&self, to: SocketAddr, octets: &[u8]) -> io::Result<()> {
        let same = |(ip, _): &&(IpAddr, UdpSocket)| ip.is_ipv4() == to.is_ipv4();
        match self.sockets.iter().find(same) {
            Some((_, socket)) => socket.try_send_to(octets, to).map(drop),
            None => Err(io::Error::from(io::ErrorKind::AddrNotAvailable)),
        }
    }

    /// A datagram that is there now.
    pub(super) fn poll(&self, buffer: &mut [u8]) -> Option<(usize, IpAddr)> {
        // By the descriptor: the runtime asks the kernel only after it was woken.
        self.sockets.iter().find_map(|(_, socket)| {
            let (n, from) = recvfrom::<SockaddrStorage>(socket.as_raw_fd(), buffer).ok()?;
            Some((n, ip(&from?)?))
        })
    }

    /// The next datagram on any of them.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        loop {
            let waits = self.sockets.iter().map(|(_, socket)| Box::pin(socket.readable()));
            let (ready, index, _) = futures_util::future::select_all(waits).await;
            ready?;
            let Some((_, socket)) = self.sockets.get(index) else { continue };
            match socket.try_recv_from(buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }
}

fn ip(from: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = from.as_sockaddr_in().map(|from| IpAddr::V4(from.ip()));
    v4.or_else(|| from.as_sockaddr_in6().map(|from| IpAddr::V6(from.ip())))
}

fn bind(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    UdpSocket::from_std(socket.into())
}
