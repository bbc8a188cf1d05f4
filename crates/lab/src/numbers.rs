//! A connection that is held open: numbers go to whoever echoes and come back, one by one.

use crate::{clock, error::LabError, netns::NetNs};
use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

/// See the module. Dropped, it ends.
#[derive(Debug)]
pub struct Numbers {
    to: SocketAddr,
    back: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Numbers {
    /// Connects from `from` to `to`, which echoes, and sends a number `pace` after the last one has come back.
    ///
    /// # Errors
    /// When nobody accepts.
    pub fn open(from: &NetNs, to: SocketAddr, pace: Duration) -> Result<Self, LabError> {
        let failed = || LabError::io(format!("connect to {to} from {}", from.name()));
        let mut stream = from.run(|| TcpStream::connect_timeout(&to, clock::CEILING))?.map_err(failed())?;
        stream
            .set_read_timeout(Some(clock::CEILING))
            .and_then(|()| stream.set_nodelay(true))
            .map_err(failed())?;
        let (back, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (ours, end) = (Arc::clone(&back), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut answer = [0; 8];
            for number in 1_u64.. {
                if end.load(Ordering::Acquire) {
                    break;
                }
                stream.write_all(&number.to_be_bytes())?;
                stream.read_exact(&mut answer)?;
                if answer != number.to_be_bytes() {
                    return Err(io::Error::other(format!("{answer:?} is not {number}")));
                }
                ours.store(number, Ordering::Release);
                clock::pace_until(clock::now() + pace);
            }
            Ok(())
        });
        Ok(Self { to, back, stop, thread: Some(thread) })
    }

    /// Waits until another number has come back: whether one does within 30 s.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        let ended = || self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        // The one under way may have been answered before.
        let before = self.back.load(Ordering::Acquire);
        clock::until_true(clock::CEILING, || ended() || self.back.load(Ordering::Acquire) > before + 1)
            && !ended()
    }

    /// Ends it, and gives how many came back.
    ///
    /// # Errors
    /// When it has broken.
    pub fn end(mut self) -> Result<u64, LabError> {
        self.stop.store(true, Ordering::Release);
        let ended = self.thread.take().map_or(Ok(Ok(())), JoinHandle::join);
        let ended = ended.unwrap_or_else(|_| Err(io::Error::other("its thread ended early")));
        let back = self.back.load(Ordering::Acquire);
        ended.map(|()| back).map_err(LabError::io(format!("hear from {} after number {back}", self.to)))
    }
}

impl Drop for Numbers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}
