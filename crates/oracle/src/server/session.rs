//! Sessions of NVEs: TLS 1.3 over TCP with certificates on both sides, LISP frames inside.

use super::{
    App,
    clock::Clock,
    doors::{Bounds, Doors, Place},
    limit::LogLimit,
    session_out::SessionOut,
    shard::{Input, ROUND, ShardHandle},
    tls,
};
use crate::core::{SessionId, peek_frame_vni, shard_of};
use rustls::ServerConfig;
use socket2::{SockRef, TcpKeepalive};
use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, ReadHalf},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use weft_api::Role;
use weft_lisp::tcp::{FrameDecoder, Frames};
use weft_model::XtrId;

/// Sessions at a time, those in their handshake included.
pub(super) const SESSIONS: usize = 16_384;
/// How long a handshake may take, the wait for its turn included.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// A session that is up.
#[derive(Clone)]
struct Up {
    id: SessionId,
    end: CancellationToken,
    out: Arc<SessionOut>,
}

/// The sessions that are up: one per NVE.
#[derive(Default)]
pub(super) struct Sessions {
    up: Mutex<BTreeMap<XtrId, Up>>,
    last: AtomicU64,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<XtrId, Up>> {
        self.up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the place of the NVE's older session, which ends.
    fn up(&self, xtr_id: XtrId, end: CancellationToken, out: Arc<SessionOut>) -> SessionId {
        let id = SessionId(self.last.fetch_add(1, Ordering::Relaxed) + 1);
        if let Some(old) = self.lock().insert(xtr_id, Up { id, end, out }) {
            old.end.cancel();
        }
        id
    }

    fn down(&self, xtr_id: XtrId, id: SessionId) {
        let mut up = self.lock();
        if up.get(&xtr_id).is_some_and(|current| current.id == id) {
            up.remove(&xtr_id);
        }
    }

    /// Ends the NVE's session, if it has one.
    pub(super) fn end(&self, xtr_id: XtrId) {
        if let Some(up) = self.lock().get(&xtr_id) {
            up.end.cancel();
        }
    }

    pub(super) fn connected(&self, xtr_id: XtrId) -> bool {
        self.lock().contains_key(&xtr_id)
    }

    /// Where to write to the NVE, if its session is up.
    pub(super) fn out(&self, xtr_id: XtrId) -> Option<(SessionId, Arc<SessionOut>)> {
        self.lock().get(&xtr_id).map(|up| (up.id, up.out.clone()))
    }

    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }
}

/// Accepts sessions until `stop`.
pub(super) async fn serve(
    app: Arc<App>,
    listener: TcpListener,
    config: Arc<ServerConfig>,
    stop: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(config);
    let doors = Doors::new(Bounds::of(SESSIONS));
    let log = Arc::new(LogLimit::default());
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Some((stream, peer)) = accepted_or_wait(accepted).await else { continue };
        let Some(mut place) = doors.enter(peer.ip()) else { continue };
        let (app, acceptor, stop, log) = (app.clone(), acceptor.clone(), stop.child_token(), log.clone());
        let tasks = app.tasks.clone();
        tasks.spawn(async move {
            match open(&app, &acceptor, &place, stream).await {
                Ok((xtr_id, stream)) => {
                    place.known();
                    run(&app, xtr_id, peer, stream, stop).await;
                }
                Err(reason) => report(&log, app.clock, peer, &reason),
            }
            drop(place);
        });
    }
}

/// Accepting fails when descriptors run out: then a moment's rest instead of a busy loop.
pub(super) async fn accepted_or_wait(
    accepted: io::Result<(TcpStream, SocketAddr)>,
) -> Option<(TcpStream, SocketAddr)> {
    match accepted {
        Ok(both) => Some(both),
        Err(e) => {
            tracing::warn!(error = %e, "cannot accept a connection");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

fn report(log: &LogLimit, clock: Clock, peer: SocketAddr, reason: &str) {
    if let Some(held_back) = log.pass(clock) {
        tracing::warn!(%peer, reason, held_back, "session refused");
    }
}

/// When the session's TCP notices a dead peer.
const ALIVE: Duration = Duration::from_secs(3);

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let second = Duration::from_secs(1);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(second).with_interval(second).with_retries(2))?;
    socket.set_tcp_user_timeout(Some(ALIVE))
}

async fn open(
    app: &App,
    acceptor: &TlsAcceptor,
    place: &Place,
    stream: TcpStream,
) -> Result<(XtrId, TlsStream<TcpStream>), String> {
    tune(&stream).map_err(|e| e.to_string())?;
    let shaken = async {
        let _turn = place.turn().await;
        acceptor.accept(stream).await
    };
    let stream = timeout(HANDSHAKE, shaken)
        .await
        .map_err(|_| "no TLS handshake within 5 s".to_owned())?
        .map_err(|e| e.to_string())?;
    match tls::role(stream.get_ref().1)? {
        Some(Role::Nve(id)) if app.directory.nve(id).is_some() => Ok((id, stream)),
        Some(Role::Nve(id)) => Err(format!("NVE {id} is not enrolled here or has been removed")),
        Some(role) => Err(format!("{role} is no NVE; sessions are for NVEs")),
        None => Err("no certificate".to_owned()),
    }
}

async fn run(
    app: &App,
    xtr_id: XtrId,
    peer: SocketAddr,
    stream: TlsStream<TcpStream>,
    end: CancellationToken,
) {
    let (mut read, write) = tokio::io::split(stream);
    let out = Arc::new(SessionOut::new(write, end.clone()));
    let id = app.sessions.up(xtr_id, end.clone(), out.clone());
    // Removed between its handshake and now: who removed it has not seen the session.
    if app.directory.nve(xtr_id).is_none() {
        app.sessions.down(xtr_id, id);
        return;
    }
    tracing::info!(nve = %xtr_id, %peer, session = id.0, "session up");
    for shard in &app.shards {
        shard.send(Input::Up { id, xtr_id, out: out.clone() }).await;
    }
    let writer = tokio::spawn(write_all(out, app.shards.clone(), id, end.clone()));
    let (reason, silent) = tokio::select! {
        () = end.cancelled() => ("ended by this side".to_owned(), Duration::ZERO),
        reason = read_all(&mut read, app, id) => reason,
    };
    end.cancel();
    drop(writer.await);
    app.sessions.down(xtr_id, id);
    app.desk.ended(id);
    for shard in &app.shards {
        shard.send(Input::Down(id, silent)).await;
    }
    tracing::info!(nve = %xtr_id, %peer, session = id.0, reason, "session down");
}

/// Hands frames to the shards until the stream ends; why it did, and how long nothing had come by then.
async fn read_all(read: &mut ReadHalf<TlsStream<TcpStream>>, app: &App, id: SessionId) -> (String, Duration) {
    let shards = &app.shards;
    let mut decoder = FrameDecoder::default();
    let mut buffer = vec![0; 16 << 10];
    let mut waiting = vec![Frames::default(); shards.len()];
    loop {
        match read.read(&mut buffer).await {
            Ok(0) => return ("closed by the NVE".to_owned(), Duration::ZERO),
            Ok(n) => decoder.push(buffer.get(..n).unwrap_or_default()),
            Err(e) if e.kind() == io::ErrorKind::TimedOut => return (e.to_string(), ALIVE),
            Err(e) => return (e.to_string(), Duration::ZERO),
        }
        // What came together is handed on together: a hundred thousand registrations wake a shard some
        // thousand times.
        let out_of_step = loop {
            let frame = match decoder.next_frame() {
                Ok(Some(frame)) if app.desk.heard(id, &frame) => continue,
                Ok(Some(frame)) => frame,
                Ok(None) => break None,
                Err(e) => break Some(e),
            };
            let vni = if shards.len() > 1 { peek_frame_vni(&frame) } else { Some(0) };
            let owner = vni.map(|vni| shard_of(vni, shards.len()));
            for (index, (shard, frames)) in shards.iter().zip(&mut waiting).enumerate() {
                if owner.is_none_or(|owner| owner == index) {
                    frames.push(&frame);
                    if frames.len() >= ROUND {
                        shard.send(Input::Frames(id, std::mem::take(frames))).await;
                    }
                }
            }
        };
        for (shard, frames) in shards.iter().zip(&mut waiting).filter(|(_, frames)| !frames.is_empty()) {
            shard.send(Input::Frames(id, std::mem::take(frames))).await;
        }
        if let Some(e) = out_of_step {
            return (e.to_string(), Duration::ZERO);
        }
    }
}

/// Writes what waits until the session ends.
async fn write_all(out: Arc<SessionOut>, shards: Vec<ShardHandle>, id: SessionId, end: CancellationToken) {
    loop {
        let written = tokio::select! {
            written = out.written() => written,
            () = end.cancelled() => break,
        };
        match written {
            Ok(false) => {}
            Ok(true) => {
                for shard in &shards {
                    shard.send(Input::Writable(id)).await;
                }
            }
            Err(_) => {
                end.cancel();
                return;
            }
        }
    }
    // A polite end, if the other side takes it.
    drop(timeout(Duration::from_secs(1), out.shutdown()).await);
}
