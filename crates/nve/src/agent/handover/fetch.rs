//! The NVE that a tenant system moves to: asks its Oracle for a ticket, the other NVE for the context, and reads what
//! comes until it ends.

use super::{
    driver::{Came, Event},
    error::FetchError,
    tls::Credentials,
    wire::{LINE, Line, Question, VERSION},
};
use crate::{agent::driver::Input, core::Fetch};
use axum::{
    body::Bytes,
    http::{Request, header},
};
use http_body_util::{BodyExt, Collected, Full, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use weft_api::{Client, ErrorBody, TicketReply};
use weft_model::{Rloc, Vni, XtrId};

/// How long a connection may take, its handshake included.
const CONNECT: Duration = Duration::from_secs(3);
/// How long the context may take after that, and how long there may be silence between lines.
const SILENCE: Duration = Duration::from_secs(15);
/// How often it may stop and go on there.
const DELTAS: usize = 64;
/// The longest refusal that is read.
const REFUSAL: usize = 16 << 10;

/// One try.
pub(super) struct Fetching {
    pub(super) fetch: Fetch,
    pub(super) client: Arc<Client>,
    pub(super) credentials: Arc<Credentials>,
    pub(super) rlocs: BTreeSet<Rloc>,
    pub(super) port: u16,
    pub(super) inputs: mpsc::Sender<Input>,
}

impl Fetching {
    /// Asks, and hands what comes to the driver. The last of it is the end.
    pub(super) async fn run(self) {
        let ended = self.read().await;
        self.tell(Came::End(ended)).await;
    }

    async fn tell(&self, came: Came) {
        // It fails when the agent ends.
        let _ = self.inputs.send(Input::Handover(Event::Came(self.fetch.transfer, came))).await;
    }

    async fn read(&self) -> Result<(), FetchError> {
        let reply = self.client.ticket(&self.fetch.vn, &self.fetch.name).await?;
        self.converse(reply).await
    }

    /// Shows a ticket, and reads what comes to its end.
    pub(super) async fn converse(&self, reply: TicketReply) -> Result<(), FetchError> {
        let nve = self.fetch.from;
        if reply.from != nve {
            return Err(FetchError::OtherOwner { ticket: reply.from, asked: nve });
        }
        let stream = connect(&self.credentials, &self.rlocs, nve, &reply.rlocs, self.port).await?;
        let question = serde_json::to_vec(&Question { version: VERSION, ticket: reply.ticket });
        let mut lines = ask(stream, nve, "/v1/context", question.unwrap_or_default()).await?;
        let mut vni: Option<Vni> = None;
        let mut deltas = 0;
        loop {
            let line = lines.next().await?;
            let (line, octets) = (Line::read(&line)?, line.len());
            let came = match (line, vni) {
                (Line::Context(context), None) => {
                    let context = context.read()?;
                    vni = Some(context.grant.tsi.vni);
                    Came::Context(Box::new(context), octets)
                }
                (Line::Stopping, Some(_)) => Came::Stopping,
                (Line::Resumed, Some(_)) => Came::Resumed,
                (Line::Delta(_), Some(_)) if deltas == DELTAS => {
                    return Err(FetchError::Malformed(format!("more than {DELTAS} deltas")));
                }
                (Line::Delta(delta), Some(vni)) => Came::Delta(delta.read(vni)?, octets),
                (Line::End, Some(_)) => return Ok(()),
                (Line::Alive, _) => continue,
                (line, _) => return Err(FetchError::Malformed(format!("{} out of turn", kind(&line)))),
            };
            deltas += usize::from(matches!(came, Came::Delta(..)));
            self.tell(came).await;
        }
    }
}

/// Connects to the first of an NVE's addresses that can be reached, from this one's of the same family.
pub(super) async fn connect(
    credentials: &Credentials,
    own: &BTreeSet<Rloc>,
    nve: XtrId,
    rlocs: &BTreeSet<Rloc>,
    port: u16,
) -> Result<Stream, FetchError> {
    let mut last = FetchError::NoWay(nve);
    let config = credentials.client(nve).map_err(|e| FetchError::Credentials(e.to_string()))?;
    let connector = TlsConnector::from(Arc::new(config));
    for to in rlocs {
        let same = |own: &&Rloc| own.get().is_ipv4() == to.get().is_ipv4();
        let Some(own) = own.iter().find(same) else { continue };
        let at = SocketAddr::new(to.get(), port);
        let connected = timeout(CONNECT, async {
            let socket = if at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            socket.bind(SocketAddr::new(own.get(), 0))?;
            let stream = socket.connect(at).await?;
            stream.set_nodelay(true)?;
            connector.connect(ServerName::IpAddress(to.get().into()), stream).await
        });
        let why = match connected.await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {CONNECT:?}"),
        };
        last = FetchError::Unreachable { nve, at: at.to_string(), why };
    }
    Err(last)
}

/// Asks what is at `path`.
pub(super) async fn ask(
    stream: Stream,
    nve: XtrId,
    path: &str,
    question: Vec<u8>,
) -> Result<Lines, FetchError> {
    let broken = |e: hyper::Error| FetchError::Broken(e.to_string());
    let at = nve.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let connection = Connection(tokio::spawn(async move { drop(connection.await) }));
    let request = Request::post(path)
        .header(header::HOST, at)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::<Bytes>::from(question))
        .map_err(|e| FetchError::Malformed(e.to_string()))?;
    let response = timeout(SILENCE, sender.send_request(request)).await;
    let response = response.map_err(|_| FetchError::Silent(SILENCE))?.map_err(broken)?;
    if !response.status().is_success() {
        let status = response.status();
        let body = timeout(SILENCE, Limited::new(response.into_body(), REFUSAL).collect()).await;
        let body = body.ok().and_then(Result::ok).map(Collected::to_bytes).unwrap_or_default();
        let said = serde_json::from_slice::<ErrorBody>(&body).map(|body| body.message);
        let why = said.unwrap_or_else(|_| status.to_string()).replace('\n', " ");
        return Err(FetchError::Refused { nve, why });
    }
    Ok(Lines { body: response.into_body(), read: Vec::new(), searched: 0, _connection: connection })
}

pub(super) type Stream = tokio_rustls::client::TlsStream<TcpStream>;

/// The connection's task, which ends with who reads from it.
struct Connection(tokio::task::JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The lines of an answer.
pub(super) struct Lines {
    body: Incoming,
    read: Vec<u8>,
    /// How much of that is known to hold no line end.
    searched: usize,
    _connection: Connection,
}

impl Lines {
    /// The next line.
    pub(super) async fn next(&mut self) -> Result<Vec<u8>, FetchError> {
        loop {
            let fresh = self.read.get(self.searched..).unwrap_or_default();
            if let Some(at) = fresh.iter().position(|octet| *octet == b'\n') {
                let rest = self.read.split_off(self.searched + at + 1);
                let line = std::mem::replace(&mut self.read, rest);
                self.searched = 0;
                return Ok(line);
            }
            self.searched = self.read.len();
            if self.read.len() > LINE {
                return Err(FetchError::TooLong(LINE));
            }
            let frame = timeout(SILENCE, self.body.frame()).await;
            match frame.map_err(|_| FetchError::Silent(SILENCE))? {
                Some(Ok(frame)) => self.read.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Some(Err(error)) => return Err(FetchError::Broken(error.to_string())),
                None => return Err(FetchError::Broken("it said no more".to_owned())),
            }
        }
    }
}

const fn kind(line: &Line) -> &'static str {
    match line {
        Line::Context(_) => "a context",
        Line::Stopping => "'stopping'",
        Line::Delta(_) => "a delta",
        Line::Resumed => "'resumed'",
        Line::End => "the end",
        Line::Alive => "'alive'",
    }
}
