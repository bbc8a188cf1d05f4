//! Where other NVEs ask: one TCP port, on each RLOC.

use crate::agent::NveError;
use std::{collections::BTreeSet, net::SocketAddr};
use tokio::net::{TcpListener, TcpSocket};
use weft_model::Rloc;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 128;

/// One listener an RLOC.
#[derive(Debug)]
pub(in crate::agent) struct Listeners(pub(super) Vec<TcpListener>);

/// Listens on every RLOC.
pub(in crate::agent) fn bind(rlocs: &BTreeSet<Rloc>, port: u16) -> Result<Listeners, NveError> {
    let listen = |rloc: &Rloc| {
        let at = SocketAddr::new(rloc.get(), port);
        let socket = if at.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let listener = socket.and_then(|socket| {
            // What an agent before has left waits in the kernel for a minute.
            socket.set_reuseaddr(true)?;
            socket.bind(at)?;
            socket.listen(BACKLOG)
        });
        listener.map_err(|source| NveError::Peers { rloc: *rloc, port, source })
    };
    Ok(Listeners(rlocs.iter().map(listen).collect::<Result<_, _>>()?))
}
