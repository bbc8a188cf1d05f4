//! Connections of `/v1`.

use super::router;
use crate::server::{App, limit::LogLimit, session::accepted_or_wait, tls};
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
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use weft_api::Role;

/// Connections at a time.
const CONNECTIONS: usize = 32_768;
/// Handshakes at a time.
const HANDSHAKES: usize = 256;
/// How long a handshake, and the head of a request, may take.
const PATIENCE: Duration = Duration::from_secs(10);

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
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let log = Arc::new(LogLimit::default());
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Some((stream, remote)) = accepted_or_wait(accepted).await else { continue };
        let (Ok(place), Ok(turn)) =
            (places.clone().try_acquire_owned(), handshakes.clone().acquire_owned().await)
        else {
            continue;
        };
        let (acceptor, router, stop, log, clock) =
            (acceptor.clone(), router.clone(), stop.clone(), log.clone(), app.clock);
        app.tasks.spawn(async move {
            let opened = open(&acceptor, stream).await;
            drop(turn);
            match opened {
                Ok((peer, stream)) => connection(router, peer, stream, stop).await,
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

async fn open(acceptor: &TlsAcceptor, stream: TcpStream) -> Result<(Peer, Stream), String> {
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    let local = stream.local_addr().map_err(|e| e.to_string())?;
    let stream = timeout(PATIENCE, acceptor.accept(stream))
        .await
        .map_err(|_| "no TLS handshake in time".to_owned())?
        .map_err(|e| e.to_string())?;
    let role = tls::role(stream.get_ref().1)?;
    Ok((Peer { role, local }, stream))
}

async fn connection(router: Router, peer: Peer, stream: Stream, stop: CancellationToken) {
    let service = TowerToHyperService::new(router.layer(Extension(peer)));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE * 30);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(Duration::from_secs(2), connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(e) = ended {
        tracing::debug!(error = %e, "a connection to /v1 ended");
    }
}
