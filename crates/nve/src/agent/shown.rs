//! What this host's NVE shows to people who ask its Oracle: the local API's lists, over the session.

use super::local::{Local, Refusal};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc::WeakSender};
use weft_api::{ErrorBody, local::Shown};
use weft_lisp::{
    EncodeOptions,
    tcp::{Body, Frame, View},
};

/// Questions answered at a time; more are refused.
const AT_ONCE: usize = 4;

/// Answers such questions on one session.
pub(super) struct Shows {
    local: Local,
    /// Does not keep the session's queue open: the driver lets go of it to cut a session that is stuck.
    frames: WeakSender<Vec<u8>>,
    turns: Arc<Semaphore>,
}

impl Shows {
    pub(super) fn new(local: Local, frames: WeakSender<Vec<u8>>) -> Self {
        Self { local, frames, turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Begins to answer, if `frame` is such a question; whether it is.
    pub(super) fn heard(&self, frame: &Frame<'_>) -> bool {
        if !View::is(frame.frame_type) {
            return false;
        }
        let Ok(Body::View(View::Request { what })) = frame.body() else { return true };
        let (id, local, frames) = (frame.id, self.local.clone(), self.frames.clone());
        let turn = self.turns.clone().try_acquire_owned();
        let what = String::from_utf8_lossy(what).into_owned();
        tokio::spawn(async move {
            let answer = match turn {
                Ok(turn) => answer(&local, &what, turn).await,
                Err(_) => Err(Refusal::busy(AT_ONCE)),
            };
            let (refused, octets) = match answer {
                Ok(octets) => (false, octets),
                Err(refusal) => (true, serde_json::to_vec(&ErrorBody::from(refusal)).unwrap_or_default()),
            };
            send(&frames, id, refused, &octets).await;
        });
        true
    }
}

async fn answer(local: &Local, what: &str, turn: OwnedSemaphorePermit) -> Result<Vec<u8>, Refusal> {
    let shown = what.parse::<Shown>().map_err(|_| Refusal::unknown(what))?;
    let octets = local.shown(shown).await;
    drop(turn);
    octets
}

/// Sends an answer in parts, each when the queue has room.
async fn send(frames: &WeakSender<Vec<u8>>, id: u32, refused: bool, octets: &[u8]) {
    let mut parts = octets.chunks(View::PART).peekable();
    loop {
        let octets = parts.next().unwrap_or_default();
        let part = View::Part { last: parts.peek().is_none(), refused, octets };
        let mut frame = Vec::new();
        if Body::View(part).encode(id, &mut frame, EncodeOptions::default()).is_err() {
            return;
        }
        // Down meanwhile: whoever asked is told by the Oracle.
        let Some(sender) = frames.upgrade() else { return };
        if sender.send(frame).await.is_err() || parts.peek().is_none() {
            return;
        }
    }
}
