//! The NVE that a tenant system moves from: one question a connection, and an answer that lasts until it is gone.

use super::{
    door::{Door, Place},
    driver::{Answer, Event, Said},
    error::Refusal,
    listen::Listeners,
    wire::{Line, QUESTION, Question},
};
use crate::{
    agent::clock,
    core::{Claim, RequestId},
};
use axum::{
    body::{Body, Bytes},
    http::{Method, Request, Response, StatusCode, header},
};
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use std::{convert::Infallible, io, sync::Arc};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use weft_api::{ErrorBody, Role};
use weft_model::XtrId;

/// Lines under way to a connection.
const LINES: usize = 2;

/// Answers other NVEs for as long as the agent lives.
pub(in crate::agent) async fn serve(listeners: Listeners, door: Arc<Door>) {
    let mut all: JoinSet<()> =
        listeners.0.into_iter().map(|listener| accept(listener, door.clone())).collect();
    while all.join_next().await.is_some() {}
}

async fn accept(listener: TcpListener, door: Arc<Door>) {
    // Those that are under way end with the agent.
    let mut all = JoinSet::new();
    loop {
        let (stream, remote) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection of another NVE");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            },
            Some(_) = all.join_next() => continue,
        };
        let Some(place) = door.enter(remote.ip().to_canonical()) else { continue };
        let door = door.clone();
        all.spawn(async move {
            if let Err(why) = connection(&door, place, stream).await {
                tracing::debug!(%remote, why, "a connection of another NVE ended");
            }
        });
    }
}

async fn connection(door: &Arc<Door>, mut place: Place, stream: TcpStream) -> Result<(), String> {
    let bounds = door.bounds;
    // An Activate waits for what is said last: it must not wait for an acknowledgement of what was said before.
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    // A host that is gone holds no place for long.
    let socket = SockRef::from(&stream);
    socket.set_tcp_user_timeout(Some(bounds.line)).map_err(|e| e.to_string())?;
    let acceptor = TlsAcceptor::from(door.server().map_err(|e| e.to_string())?);
    let shaken = timeout(bounds.question, acceptor.accept(stream)).await;
    let stream = shaken.map_err(|_| "no handshake in time".to_owned())?.map_err(|e| e.to_string())?;
    let peer = peer(&stream)?;
    if !place.known(peer) {
        return Err(format!("NVE {peer} has {} connections here already", bounds.of_nve));
    }
    // Who does not take what it has asked for is left.
    let stuck = Arc::new(Notify::new());
    let answer = service_fn(|request| {
        let (door, stuck) = (door.clone(), stuck.clone());
        async move { Ok::<_, Infallible>(answer(&door, peer, request, stuck).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(bounds.question).keep_alive(false);
    tokio::select! {
        ended = http.serve_connection(TokioIo::new(stream), answer) => ended.map_err(|e| e.to_string()),
        () = stuck.notified() => Err(format!("NVE {peer} does not take its answer")),
    }
}

fn peer(stream: &TlsStream<TcpStream>) -> Result<XtrId, String> {
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    match Role::of_certificate(shown.ok_or("it shows no certificate")?)? {
        Role::Nve(nve) => Ok(nve),
        other => Err(format!("'{other}' is no NVE")),
    }
}

async fn answer(
    door: &Arc<Door>,
    peer: XtrId,
    request: Request<Incoming>,
    stuck: Arc<Notify>,
) -> Response<Body> {
    match hand(door, peer, request, stuck).await {
        Ok(body) => {
            let mut response = Response::new(body);
            let lines = header::HeaderValue::from_static("application/x-ndjson");
            response.headers_mut().insert(header::CONTENT_TYPE, lines);
            response
        }
        Err(refusal) => {
            tracing::warn!(nve = %peer, why = %refusal, "handed nothing over");
            let status = StatusCode::from_u16(refusal.code().status());
            let body = serde_json::to_vec(&ErrorBody::from(refusal)).unwrap_or_default();
            let mut response = Response::new(Body::from(body));
            *response.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            response
        }
    }
}

/// What is asked, in time and no longer than a question is.
pub(super) async fn body(door: &Door, request: Request<Incoming>) -> Result<Bytes, Refusal> {
    let read = Limited::new(request.into_body(), QUESTION).collect();
    let body = timeout(door.bounds.question, read).await.ok().and_then(Result::ok);
    Ok(body.ok_or(Refusal::TooLong(QUESTION))?.to_bytes())
}

async fn hand(
    door: &Arc<Door>,
    peer: XtrId,
    request: Request<Incoming>,
    stuck: Arc<Notify>,
) -> Result<Body, Refusal> {
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/v1/context") => {}
        (&Method::POST, "/v1/trace") => return super::trace::hand(door, peer, request).await,
        _ => return Err(Refusal::NoRoute),
    }
    let question = Question::read(&body(door, request).await?)?;
    let ticket = door.tickets.accept(&question.ticket, peer, clock::date())?;
    let claim = Claim { tsi: ticket.tsi, to: ticket.to, epoch: ticket.epoch };
    let (lines, body) = mpsc::channel(LINES);
    let (begun, begins) = oneshot::channel();
    let door = door.clone();
    // Apart from the connection: whoever has gone, at whatever moment, is said to have left.
    tokio::spawn(async move {
        let (request, context, said) = match ask(&door, claim).await {
            Ok(answer) => answer,
            Err(refusal) => return drop(begun.send(Err(refusal))),
        };
        let told = Told { door, request, lines };
        if begun.send(Ok(())).is_ok() && told.tell(Line::context(*context).octets(), said).await.is_err() {
            stuck.notify_one();
        }
        told.door.tell(Event::Left(told.request)).await;
    });
    begins.await.map_err(|_| Refusal::Stopping)??;
    let body = stream::unfold(body, |mut body| async { Some((body.recv().await?, body)) });
    Ok(Body::from_stream(body.map(Ok::<Bytes, io::Error>)))
}

async fn ask(door: &Door, claim: Claim) -> Result<Answer, Refusal> {
    let (answer, wait) = oneshot::channel();
    if !door.tell(Event::Asked(claim, answer)).await {
        return Err(Refusal::Stopping);
    }
    wait.await.map_err(|_| Refusal::Stopping)?
}

/// Who asked, and is told.
struct Told {
    door: Arc<Door>,
    request: RequestId,
    lines: mpsc::Sender<Bytes>,
}

/// It does not listen any more, or too slowly.
struct Deaf;

impl Told {
    async fn tell(&self, context: Vec<u8>, mut said: mpsc::Receiver<Said>) -> Result<(), Deaf> {
        self.line(context).await?;
        loop {
            let line = match timeout(self.door.bounds.alive, said.recv()).await {
                Err(_) => Line::Alive,
                Ok(Some(Said::Stopping)) => Line::Stopping,
                Ok(Some(Said::Delta(delta))) => Line::delta(delta),
                Ok(Some(Said::Resumed)) => Line::Resumed,
                Ok(Some(Said::End)) => {
                    self.line(Line::End.octets()).await?;
                    return Ok(());
                }
                // The agent ends, or has no time for this: the stream breaks off.
                Ok(None) => return Ok(()),
            };
            self.line(line.octets()).await?;
        }
    }

    async fn line(&self, octets: Vec<u8>) -> Result<(), Deaf> {
        match timeout(self.door.bounds.line, self.lines.send(octets.into())).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Deaf),
        }
    }
}
