//! The session with one Oracle: TLS 1.3 on TCP 4342, LISP's reliable transport inside. Connects, and
//! connects again, for as long as the agent lives.

use super::{driver::Input, local::Local, shown::Shows};
use rustls::{ClientConfig, pki_types::ServerName};
use socket2::{SockRef, TcpKeepalive};
use std::{io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    net::TcpStream,
    sync::{mpsc, watch},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use weft_lisp::tcp::{FrameDecoder, Frames};

/// First wait before connecting again; doubles up to [`BACKOFF_MAX`], each with jitter, so that a
/// thousand NVEs do not come back to a restarted Oracle in one instant.
const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A session that lasted this long was one: the next attempt comes soon again.
const LASTED: Duration = Duration::from_secs(2);
const CONNECT: Duration = Duration::from_secs(5);
/// Liveness is the kernel's: a silent peer is noticed within 3 s.
const ALIVE: Duration = Duration::from_secs(3);
/// Frames the driver may be ahead of the socket. More means a stuck Oracle: the session is then cut,
/// and registration begins afresh on the next.
pub(super) const QUEUE: usize = 65_536;

/// Frames handed to the driver together, at most: what it takes in one turn.
pub(super) const TOGETHER: usize = 64;

/// What the session tells the driver.
#[derive(Debug)]
pub(super) enum Heard {
    /// Up; frames go here.
    Up(mpsc::Sender<Vec<u8>>),
    /// Frames that came together.
    Frames(Frames),
    /// Down, and why.
    Down(String),
}

/// Keeps a session with `addr`, the Oracle of index `oracle`.
pub(super) async fn keep(
    oracle: usize,
    addr: String,
    tls: watch::Receiver<Arc<ClientConfig>>,
    inputs: mpsc::Sender<Input>,
    seed: u64,
    local: Local,
) {
    let mut backoff = BACKOFF;
    let mut jitter = seed;
    loop {
        let config = tls.borrow().clone();
        let why = match tokio::time::timeout(CONNECT, connect(&addr, config)).await {
            Ok(Ok(stream)) => {
                let up = tokio::time::Instant::now();
                let ended = serve(oracle, stream, &inputs, &local).await;
                // An Oracle that refuses us does so only after the handshake: that is no session.
                if up.elapsed() >= LASTED {
                    backoff = BACKOFF;
                }
                match ended {
                    Ok(()) => "closed by the Oracle".to_owned(),
                    Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => "closed by the Oracle".to_owned(),
                    Err(e) => e.to_string(),
                }
            }
            Ok(Err(e)) => e.to_string(),
            Err(_) => format!("no answer within {CONNECT:?}"),
        };
        if inputs.send(Input::Session(oracle, Heard::Down(why))).await.is_err() {
            return;
        }
        jitter = jitter.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let spread = u32::try_from(jitter >> 40).unwrap_or(0) % 1_000;
        tokio::time::sleep(backoff / 2 + backoff * spread / 1_000).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

async fn connect(addr: &str, config: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(addr).await?;
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(&tcp);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(1))
        .with_interval(Duration::from_secs(1))
        .with_retries(2);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(ALIVE))?;
    let name = ServerName::try_from(weft_api::ORACLE_SERVER_NAME).map_err(io::Error::other)?;
    TlsConnector::from(config).connect(name, tcp).await
}

async fn serve(
    oracle: usize,
    stream: TlsStream<TcpStream>,
    inputs: &mpsc::Sender<Input>,
    local: &Local,
) -> io::Result<()> {
    let (read, write) = tokio::io::split(stream);
    let (frames, queue) = mpsc::channel(QUEUE);
    let shows = Shows::new(local.clone(), frames.downgrade());
    let ended = || io::Error::other("the agent ends");
    inputs.send(Input::Session(oracle, Heard::Up(frames))).await.map_err(|_| ended())?;
    tokio::select! {
        result = receive(oracle, read, inputs, &shows) => result,
        result = transmit(write, queue) => result,
    }
}

async fn receive(
    oracle: usize,
    mut read: ReadHalf<TlsStream<TcpStream>>,
    inputs: &mpsc::Sender<Input>,
    shows: &Shows,
) -> io::Result<()> {
    let mut decoder = FrameDecoder::default();
    let mut chunk = vec![0; 16_384];
    loop {
        let n = read.read(&mut chunk).await?;
        if n == 0 {
            return Ok(());
        }
        decoder.push(chunk.get(..n).unwrap_or_default());
        let mut out_of_step = Ok(());
        while out_of_step.is_ok() {
            let mut frames = Frames::default();
            while frames.len() < TOGETHER {
                match decoder.next_frame() {
                    Ok(Some(frame)) if shows.heard(&frame) => {}
                    Ok(Some(frame)) => frames.push(&frame),
                    Ok(None) => break,
                    Err(e) => {
                        out_of_step = Err(io::Error::other(e));
                        break;
                    }
                }
            }
            if frames.is_empty() {
                break;
            }
            let sent = inputs.send(Input::Session(oracle, Heard::Frames(frames))).await;
            sent.map_err(|_| io::Error::other("the agent ends"))?;
        }
        out_of_step?;
    }
}

async fn transmit(
    mut write: WriteHalf<TlsStream<TcpStream>>,
    mut queue: mpsc::Receiver<Vec<u8>>,
) -> io::Result<()> {
    let mut batch = Vec::new();
    // Ends when the driver lets go of its end: the queue overflowed.
    while let Some(frame) = queue.recv().await {
        batch.clear();
        batch.extend_from_slice(&frame);
        while batch.len() < 65_536 {
            let Ok(more) = queue.try_recv() else { break };
            batch.extend_from_slice(&more);
        }
        write.write_all(&batch).await?;
        write.flush().await?;
    }
    Err(io::Error::other("the Oracle did not take its frames in time"))
}

/// Appends TLS secrets to a file in the format that protocol analysers read.
#[derive(Debug)]
pub(super) struct KeyLogTo(std::sync::Mutex<std::fs::File>);

impl KeyLogTo {
    /// Opens or creates `path`, 0600.
    pub(super) fn open(path: &std::path::Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        Ok(Self(std::sync::Mutex::new(file)))
    }
}

impl rustls::KeyLog for KeyLogTo {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        use std::io::Write;
        let hex = |octets: &[u8]| octets.iter().map(|o| format!("{o:02x}")).collect::<String>();
        if let Ok(mut file) = self.0.lock() {
            let _ = writeln!(file, "{label} {} {}", hex(client_random), hex(secret));
        }
    }
}
