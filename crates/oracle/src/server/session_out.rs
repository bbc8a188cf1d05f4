//! What goes out on a session: written at once by the shard that has it to say, so that nobody else need
//! wake up first, and by the session's own task when the connection does not take it at once.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};
use tokio::{
    io::{AsyncWrite, WriteHalf},
    net::TcpStream,
    sync::Notify,
};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

/// Octets waiting for a session beyond which its shards are told to hold back.
const HIGH: usize = 256 << 10;
/// Octets waiting for a session beyond which it is closed: its end does not read.
const LIMIT: usize = 16 << 20;
/// The most octets that a shard encrypts itself: a few changes. Bulk is the session task's work.
const AT_ONCE: usize = 4 << 10;

/// The sending side of a session.
pub(super) struct SessionOut {
    state: Mutex<State>,
    /// Something is left for the session's task.
    left: Notify,
    /// Ends the session.
    end: CancellationToken,
}

struct State {
    stream: WriteHalf<TlsStream<TcpStream>>,
    /// Whole frames that wait, the first `written` octets of which TLS has taken.
    octets: Vec<u8>,
    written: usize,
    /// TLS has taken octets that the connection has not.
    unflushed: bool,
    /// Some shard was told to hold back.
    congested: bool,
}

impl State {
    fn waiting(&self) -> usize {
        self.octets.len() - self.written
    }

    /// Hands everything that waits to the connection.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.octets.len() {
            let rest = self.octets.get(self.written..).unwrap_or_default();
            let n = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += n;
            self.unflushed = true;
        }
        self.octets.clear();
        self.written = 0;
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl SessionOut {
    pub(super) fn new(stream: WriteHalf<TlsStream<TcpStream>>, end: CancellationToken) -> Self {
        let octets = Vec::new();
        let state = State { stream, octets, written: 0, unflushed: false, congested: false };
        Self { state: Mutex::new(state), left: Notify::new(), end }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds whole frames; whether the sender is to hold back until the session is writable.
    pub(super) fn push(&self, octets: &[u8]) -> bool {
        let mut state = self.state();
        if state.waiting() + octets.len() > LIMIT {
            self.end.cancel();
            return true;
        }
        let idle = state.octets.is_empty() && !state.unflushed;
        if state.written > HIGH {
            let written = std::mem::take(&mut state.written);
            state.octets.drain(..written);
        }
        state.octets.extend_from_slice(octets);
        if idle && octets.len() <= AT_ONCE {
            // Whatever is pending afterwards is the task's, which asks again with a waker of its own.
            match state.poll_drain(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Ok(())) => return false,
                Poll::Ready(Err(_)) => {
                    self.end.cancel();
                    return true;
                }
                Poll::Pending => {}
            }
        }
        let congested = state.waiting() > HIGH;
        state.congested |= congested;
        drop(state);
        self.left.notify_one();
        congested
    }

    /// Ends the session.
    pub(super) fn close(&self) {
        self.end.cancel();
    }

    /// Waits until something is left over and has gone out; whether some shard holds back.
    pub(super) async fn written(&self) -> io::Result<bool> {
        self.left.notified().await;
        poll_fn(|cx| self.state().poll_drain(cx)).await?;
        Ok(std::mem::take(&mut self.state().congested))
    }

    /// Tells the other side that nothing more comes.
    pub(super) async fn shutdown(&self) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut self.state().stream).poll_shutdown(cx)).await
    }
}
