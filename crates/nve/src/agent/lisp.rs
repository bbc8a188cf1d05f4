//! LISP's UDP sockets: one bound to each RLOC, so that requests come from an address the Oracle
//! knows as this NVE's, whatever the route says.
//!
//! Answers come to the port that a question names as its source (RFC 9301 section 5.4), so an NVE beside an
//! Oracle, which has LISP's own port, takes any other.

use super::NveError;
use nix::sys::socket::{SockaddrStorage, recvfrom};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
};
use tokio::net::UdpSocket;
use weft_model::Rloc;

/// How often other ports are tried: one that is free at one RLOC may be taken at the other.
const TRIES: usize = 16;

/// The sockets, by RLOC.
#[derive(Debug)]
pub(super) struct LispSockets {
    sockets: Vec<(IpAddr, UdpSocket)>,
    port: u16,
}

impl LispSockets {
    /// Binds `port` on every RLOC, or where that is taken another one on all of them.
    pub(super) fn bind(rlocs: &BTreeSet<Rloc>, port: u16) -> Result<Self, NveError> {
        let mut bound = Self::bind_all(rlocs, port);
        for _ in 0..TRIES {
            match &bound {
                Err(NveError::Lisp { source, .. }) if source.kind() == io::ErrorKind::AddrInUse => {
                    bound = Self::bind_all(rlocs, 0);
                }
                _ => break,
            }
        }
        let bound = bound?;
        if port != 0 && bound.port != port {
            tracing::info!(port, instead = bound.port, "LISP's port is taken here; asking from another");
        }
        Ok(bound)
    }

    fn bind_all(rlocs: &BTreeSet<Rloc>, mut port: u16) -> Result<Self, NveError> {
        let mut sockets = Vec::new();
        for rloc in rlocs {
            let bound = bind(SocketAddr::new(rloc.get(), port)).and_then(|socket| {
                port = socket.local_addr()?.port();
                Ok(socket)
            });
            let socket = bound.map_err(|source| NveError::Lisp { rloc: *rloc, port, source })?;
            sockets.push((rloc.get(), socket));
        }
        Ok(Self { sockets, port })
    }

    /// The port of all of them.
    pub(super) const fn port(&self) -> u16 {
        self.port
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

    /// Waits until there may be a datagram on one of them.
    pub(super) async fn readable(&self) -> io::Result<()> {
        let waits = self.sockets.iter().map(|(_, socket)| Box::pin(socket.readable()));
        futures_util::future::select_all(waits).await.0
    }

    /// Hands over the datagrams that are there now, at most so many of each socket.
    pub(super) fn take(&self, most: usize, buffer: &mut [u8], mut each: impl FnMut(IpAddr, &[u8])) {
        for (_, socket) in &self.sockets {
            for _ in 0..most {
                match socket.try_recv_from(buffer) {
                    Ok((n, from)) => each(from.ip(), buffer.get(..n).unwrap_or_default()),
                    Err(error) => {
                        if error.kind() != io::ErrorKind::WouldBlock {
                            tracing::debug!(%error, "receiving LISP");
                        }
                        break;
                    }
                }
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

#[cfg(test)]
mod tests {
    use super::super::common::{host, in_namespace};
    use super::*;

    const RLOCS: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

    fn rlocs(all: &[&str]) -> BTreeSet<Rloc> {
        all.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// On a host that has [`RLOCS`].
    fn on_a_host(test: impl Future<Output = ()> + Send) {
        in_namespace(|| {
            host();
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
        });
    }

    #[test]
    fn takes_its_port_or_beside_an_oracle_another_one() {
        on_a_host(async {
            for own in RLOCS {
                let any: IpAddr = if own.contains(':') { [0; 16].into() } else { [0; 4].into() };
                // An Oracle on all addresses lets its own sockets share the port, nobody else's.
                let oracle = Socket::new(Domain::for_address((any, 0).into()), Type::DGRAM, None).unwrap();
                if any.is_ipv6() {
                    oracle.set_only_v6(true).unwrap();
                }
                oracle.set_reuse_port(true).unwrap();
                oracle.bind(&SocketAddr::new(any, 4342).into()).unwrap();
                let beside = LispSockets::bind(&rlocs(&[own]), 4342).unwrap();
                assert_ne!(beside.port(), 4342);
                let from = beside.sockets[0].1.local_addr().unwrap();
                assert_eq!(from.port(), beside.port(), "what questions name");
                drop(oracle);
                assert_eq!(LispSockets::bind(&rlocs(&[own]), 4342).unwrap().port(), 4342);
            }
        });
    }

    #[test]
    fn both_families_have_one_port() {
        on_a_host(async {
            let first = LispSockets::bind(&rlocs(&RLOCS), 4342).unwrap();
            let second = LispSockets::bind(&rlocs(&RLOCS), 4342).unwrap();
            assert_eq!(first.port(), 4342);
            assert_ne!(second.port(), 4342);
            for (_, socket) in &second.sockets {
                assert_eq!(socket.local_addr().unwrap().port(), second.port());
            }
        });
    }

    #[test]
    fn an_address_of_another_host_is_refused_by_its_name() {
        on_a_host(async {
            let refused = LispSockets::bind(&rlocs(&["192.0.2.77"]), 4342).unwrap_err().to_string();
            assert!(refused.contains("192.0.2.77") && refused.contains("--rloc"), "{refused}");
        });
    }
}
