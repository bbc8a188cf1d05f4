//! Connections of `/v1`.

use super::router;
use crate::server::{
    App,
    doors::{Bounds, Doors, Place},
    limit::LogLimit,
    session::accepted_or_wait,
    tls,
};
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use weft_api::Role;

/// Connections at a time.
pub(in crate::server) const CONNECTIONS: usize = 32_768;
/// How long a handshake may take, the wait for its turn included.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection may be idle, or take for the head of a request.
const IDLE: Duration = Duration::from_secs(300);
/// The same of one that showed no certificate: all it can do is join, or ask who answers.
const STRANGER_IDLE: Duration = Duration::from_secs(5);
/// How long such a connection may last in all, whatever it does.
const STRANGER: Duration = Duration::from_secs(60);

/// The other end of a connection.
#[derive(Clone, Debug)]
pub(in crate::server) struct Peer {
    /// From its certificate; none when it showed none.
    pub(super) role: Option<Role>,
    /// Our own address that it reached.
    pub(super) local: SocketAddr,
}

/// Serves `/v1` until `stop`.
pub(in crate::server) async fn serve(
    app: Arc<App>,
    listener: TcpListener,
    mut config: ServerConfig,
    stop: CancellationToken,
) {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let router = router(app.clone());
    let doors = Doors::new(Bounds::of(CONNECTIONS));
    let log = Arc::new(LogLimit::default());
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Some((stream, remote)) = accepted_or_wait(accepted).await else { continue };
        let Some(mut place) = doors.enter(remote.ip()) else { continue };
        let (acceptor, router, stop, log, clock) =
            (acceptor.clone(), router.clone(), stop.clone(), log.clone(), app.clock);
        app.tasks.spawn(async move {
            match open(&acceptor, &place, stream).await {
                Ok((peer, stream)) => {
                    if peer.role.is_some() {
                        place.known();
                    }
                    connection(router, peer, stream, stop).await;
                }
                Err(reason) => {
                    if let Some(held_back) = log.pass(clock) {
                        tracing::warn!(%remote, reason, held_back, "connection to /v1 refused");
                    }
                }
            }
            drop(place);
        });
    }
}

type Stream = tokio_rustls::server::TlsStream<TcpStream>;

async fn open(acceptor: &TlsAcceptor, place: &Place, stream: TcpStream) -> Result<(Peer, Stream), String> {
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    let local = stream.local_addr().map_err(|e| e.to_string())?;
    let shaken = async {
        let _turn = place.turn().await;
        acceptor.accept(stream).await
    };
    let stream = timeout(HANDSHAKE, shaken)
        .await
        .map_err(|_| "no TLS handshake in time".to_owned())?
        .map_err(|e| e.to_string())?;
    let role = tls::role(stream.get_ref().1)?;
    Ok((Peer { role, local }, stream))
}

async fn connection(router: Router, peer: Peer, stream: Stream, stop: CancellationToken) {
    let stranger = peer.role.is_none();
    let service = TowerToHyperService::new(router.layer(Extension(peer)));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(if stranger { STRANGER_IDLE } else { IDLE });
    let connection = http.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let overdue = async { if stranger { sleep(STRANGER).await } else { std::future::pending().await } };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = async { tokio::select! { () = stop.cancelled() => {}, () = overdue => {} } } => {
            connection.as_mut().graceful_shutdown();
            timeout(Duration::from_secs(2), connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(e) = ended {
        tracing::debug!(error = %e, "a connection to /v1 ended");
    }
}
