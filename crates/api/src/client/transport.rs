//! HTTP/1.1 connections to a few servers, kept warm.

use super::{ClientError, Endpoint, ORACLE_SERVER_NAME, Server, TlsError, Trust, tls_config};
use bytes::Bytes;
use core::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// Longest answer that is read, octets: a list of a million grants stays below.
const ANSWER_LIMIT: usize = 1 << 30;
/// Idle connections kept; each costs a socket at both ends.
const IDLE_LIMIT: usize = 8;

/// The longest that a connection may take to be there.
const CONNECTED: Duration = Duration::from_secs(8);
/// After this time another SYN is sent, and [`SYNS`] of them before it is twice as long.
const SYN_AGAIN: Duration = Duration::from_millis(500);
const SYNS: u32 = 4;

type Sender = SendRequest<Full<Bytes>>;

/// A request as methods describe it.
pub(super) struct Ask {
    pub(super) method: Method,
    /// Path and query; every part is made of characters that need no escaping.
    pub(super) path: String,
    pub(super) body: Option<Bytes>,
    /// Whether sending it twice does what sending it once does.
    pub(super) repeatable: bool,
}

/// An answer's head, with the connection that its body comes from.
pub(super) struct Answer {
    pub(super) address: String,
    pub(super) response: Response<Incoming>,
    server: usize,
    sender: Sender,
}

pub(super) struct Transport {
    servers: Vec<Server>,
    tls: Option<TlsConnector>,
    timeout: Duration,
    /// Which start of an agent asks.
    start: Option<u64>,
    /// The server that answered last.
    current: AtomicUsize,
    idle: Mutex<Vec<(usize, Sender)>>,
}

impl Transport {
    pub(super) fn new(endpoint: &Endpoint) -> Result<Self, ClientError> {
        let over_tcp = endpoint.servers.iter().find(|s| matches!(s, Server::Tls { .. }));
        let tls = match over_tcp {
            None => None,
            Some(server) if endpoint.trust == Trust::Nobody => {
                return Err(TlsError::NoTrust(server.to_string()).into());
            }
            Some(_) => {
                let mut config = tls_config(&endpoint.trust, endpoint.identity.as_ref())?;
                config.alpn_protocols = vec![b"http/1.1".to_vec()];
                Some(TlsConnector::from(Arc::new(config)))
            }
        };
        if endpoint.servers.is_empty() {
            return Err(super::ServerError(String::new()).into());
        }
        Ok(Self {
            servers: endpoint.servers.clone(),
            tls,
            timeout: Duration::from_secs(10),
            start: None,
            current: AtomicUsize::new(0),
            idle: Mutex::default(),
        })
    }

    pub(super) fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    pub(super) fn set_start(&mut self, start: u64) {
        self.start = Some(start);
    }

    /// Sends the request to the first server that takes it and reads the whole answer; an answer
    /// that is not a success is an error.
    pub(super) async fn call(&self, ask: &Ask) -> Result<Bytes, ClientError> {
        self.answer(ask).await.map(|(_, body)| body)
    }

    /// As [`Self::call`], with the status.
    pub(super) async fn answer(&self, ask: &Ask) -> Result<(StatusCode, Bytes), ClientError> {
        let after = self.timeout;
        let whole = async {
            let answer = self.send(ask).await?;
            let Answer { address, response, server, sender } = answer;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_LIMIT)
                .collect()
                .await
                .map_err(|e| ClientError::Broken { address: address.clone(), reason: e.to_string() })?;
            let body = body.to_bytes();
            self.put_back(server, sender);
            if status.is_success() {
                Ok((status, body))
            } else {
                Err(ClientError::refusal(&address, status.as_u16(), &body))
            }
        };
        match timeout(after, whole).await {
            Ok(result) => result,
            Err(_) => Err(ClientError::Timeout { address: self.address(), after }),
        }
    }

    /// As [`Self::call`], but hands out a successful answer's body as it comes.
    pub(super) async fn stream(&self, ask: &Ask) -> Result<Answer, ClientError> {
        let after = self.timeout;
        let head = async {
            let answer = self.send(ask).await?;
            let status = answer.response.status();
            if status.is_success() {
                return Ok(answer);
            }
            let body =
                Limited::new(answer.response.into_body(), ANSWER_LIMIT).collect().await.map_err(|e| {
                    ClientError::Broken { address: answer.address.clone(), reason: e.to_string() }
                })?;
            Err(ClientError::refusal(&answer.address, status.as_u16(), &body.to_bytes()))
        };
        match timeout(after, head).await {
            Ok(result) => result,
            Err(_) => Err(ClientError::Timeout { address: self.address(), after }),
        }
    }

    fn address(&self) -> String {
        let index = self.current.load(Ordering::Relaxed);
        self.servers.get(index).map_or_else(String::new, ToString::to_string)
    }

    fn take_idle(&self, server: usize) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(_, sender)| !sender.is_closed());
        let at = idle.iter().rposition(|(s, _)| *s == server)?;
        Some(idle.swap_remove(at).1)
    }

    fn put_back(&self, server: usize, sender: Sender) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !sender.is_closed() && idle.len() < IDLE_LIMIT {
            idle.push((server, sender));
        }
    }

    async fn send(&self, ask: &Ask) -> Result<Answer, ClientError> {
        let first = self.current.load(Ordering::Relaxed);
        let mut last = None;
        for step in 0..self.servers.len() {
            let index = (first + step) % self.servers.len();
            let Some(server) = self.servers.get(index) else { continue };
            match self.send_to(index, server, ask).await {
                Ok(answer) => {
                    self.current.store(index, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(e @ ClientError::Unreachable { .. }) => last = Some(e),
                Err(e @ ClientError::Broken { .. }) if ask.repeatable => last = Some(e),
                Err(e) => return Err(e),
            }
        }
        Err(last.unwrap_or_else(|| ClientError::Unreachable {
            address: self.address(),
            reason: "no server is named".to_owned(),
        }))
    }

    async fn send_to(&self, index: usize, server: &Server, ask: &Ask) -> Result<Answer, ClientError> {
        let address = server.to_string();
        // A kept connection may have been closed by the other end just now: then once more afresh.
        if let Some(mut sender) = self.take_idle(index) {
            match exchange(&mut sender, request(server, ask, self.start)).await {
                Ok(response) => return Ok(Answer { address, response, server: index, sender }),
                Err((_, unsent)) if unsent || ask.repeatable => {}
                Err((reason, _)) => return Err(ClientError::Broken { address, reason }),
            }
        }
        // Some time is left for another server, or for the answer.
        let share = if self.servers.len() > 1 { self.timeout / 2 } else { self.timeout / 5 * 4 };
        let patience = share.min(CONNECTED);
        let connected = timeout(patience, self.connect(server)).await;
        let mut sender = match connected {
            Ok(Ok(sender)) => sender,
            Ok(Err(reason)) => return Err(ClientError::Unreachable { address, reason }),
            Err(_) => {
                return Err(ClientError::Unreachable { address, reason: "no answer to connect".into() });
            }
        };
        match exchange(&mut sender, request(server, ask, self.start)).await {
            Ok(response) => Ok(Answer { address, response, server: index, sender }),
            Err((reason, true)) => Err(ClientError::Unreachable { address, reason }),
            Err((reason, false)) => Err(ClientError::Broken { address, reason }),
        }
    }

    async fn connect(&self, server: &Server) -> Result<Sender, String> {
        match (server, &self.tls) {
            (Server::Unix(path), _) => {
                let stream = UnixStream::connect(path).await.map_err(|e| e.to_string())?;
                handshake(stream).await
            }
            (Server::Tls { host, port }, Some(tls)) => {
                let stream = connect(host, *port).await.map_err(|e| e.to_string())?;
                stream.set_nodelay(true).map_err(|e| e.to_string())?;
                let name = ServerName::try_from(ORACLE_SERVER_NAME).map_err(|e| e.to_string())?;
                let stream = tls.connect(name, stream).await.map_err(|e| e.to_string())?;
                handshake(stream).await
            }
            (Server::Tls { .. }, None) => Err("no CA is named".to_owned()),
        }
    }
}

impl Answer {
    /// The body, and the connection to hold while it comes.
    pub(super) fn into_parts(self) -> (String, Incoming, Sender) {
        (self.address, self.response.into_body(), self.sender)
    }
}

/// Connects to the first address that takes it, trying again for as long as it is let: TCP repeats a SYN that is lost
/// after 1, 3 and 7 s only (RFC 6298 section 2), which is most of a call's time. Earlier tries go on beside the latest:
/// their way may be long.
async fn connect(host: &str, port: u16) -> std::io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = lookup_host((host, port)).await?.collect();
    let mut refused = std::io::Error::new(std::io::ErrorKind::NotFound, format!("{host} has no address"));
    let (mut tries, mut failed) = (FuturesUnordered::new(), 0);
    for (turn, address) in (0_u32..).zip(addresses.iter().cycle()) {
        tries.push(TcpStream::connect(*address));
        let patience = SYN_AGAIN.saturating_mul(1 << (turn / SYNS).min(8));
        let mut over = core::pin::pin!(tokio::time::sleep(patience));
        loop {
            tokio::select! {
                done = tries.next() => match done {
                    Some(Ok(stream)) => return Ok(stream),
                    Some(Err(error)) => {
                        refused = error;
                        failed += 1;
                    }
                    // None is left: another address is tried at once, if there is one.
                    None if failed >= addresses.len() => return Err(refused),
                    None => break,
                },
                () = &mut over => break,
            }
        }
    }
    Err(refused)
}

async fn handshake<S>(stream: S) -> Result<Sender, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    // It ends when the sender is dropped or the other end closes; errors reach the request in flight.
    tokio::spawn(connection);
    Ok(sender)
}

/// One request on one connection; the error tells whether the request certainly was not sent.
async fn exchange(
    sender: &mut Sender,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, (String, bool)> {
    if let Err(e) = sender.ready().await {
        return Err((reason(&e), true));
    }
    sender.try_send_request(request).await.map_err(|mut e| (reason(e.error()), e.take_message().is_some()))
}

/// An error with what it was caused by, which hyper leaves to its reader.
fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

fn request(server: &Server, ask: &Ask, start: Option<u64>) -> Request<Full<Bytes>> {
    let host = match server {
        Server::Tls { host, port } if host.contains(':') => format!("[{host}]:{port}"),
        Server::Tls { host, port } => format!("{host}:{port}"),
        Server::Unix(_) => "localhost".to_owned(),
    };
    let mut request = Request::new(Full::new(ask.body.clone().unwrap_or_default()));
    *request.method_mut() = ask.method.clone();
    // Paths are made of checked names: one that cannot be parsed would be a defect, answered with 404.
    *request.uri_mut() = ask.path.parse().unwrap_or_else(|_| http::Uri::from_static("/"));
    if let Ok(host) = host.parse() {
        request.headers_mut().insert(header::HOST, host);
    }
    if ask.body.is_some() {
        let json = header::HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json);
    }
    if let Some(start) = start {
        request.headers_mut().insert(super::AGENT_START, start.into());
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_refuses_is_not_waited_for() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let stream = connect("127.0.0.1", port).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap().port(), port);
        drop((stream, listener));
        let refused = connect("127.0.0.1", port).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
}
