//! What NVEs show of themselves to people who ask the Oracle: a question on the NVE's session, its answer
//! put together from parts.

use super::session_out::SessionOut;
use crate::core::SessionId;
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::oneshot, time::timeout};
use weft_api::local::Shown;
use weft_lisp::{
    EncodeOptions,
    tcp::{Body, Frame, View},
};

/// Questions under way at a time.
const AT_ONCE: usize = 16;
/// The longest answer, octets: some 400,000 entries of a table.
const LONGEST: usize = 64 << 20;
/// How long an NVE may take.
const PATIENCE: Duration = Duration::from_secs(8);

/// Why an NVE shows nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ShowError {
    #[error("{AT_ONCE} lists of NVEs are being read already; try again")]
    Busy,
    #[error("its session ended before it had answered; try again")]
    SessionEnded,
    #[error("it did not answer within {} s; an NVE older than this Oracle does not", PATIENCE.as_secs())]
    Silent,
    #[error("its answer is longer than {LONGEST} octets; ask on its host with --socket")]
    TooLong,
}

/// What an NVE answered: its list, or why it shows none (an `ErrorBody`), both JSON.
pub(super) type Answer = Result<Vec<u8>, Vec<u8>>;

struct Waiting {
    octets: Vec<u8>,
    answer: oneshot::Sender<Result<Answer, ShowError>>,
}

/// The questions under way.
#[derive(Default)]
pub(super) struct Desk {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: u32,
    waiting: BTreeMap<(SessionId, u32), Waiting>,
}

/// Takes the question off the desk however the wait for its answer ends.
struct Turn<'a>(&'a Desk, (SessionId, u32));

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.state().waiting.remove(&self.1);
    }
}

impl Desk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the NVE of `session` and waits for the answer; `is_up` says whether that is its session still.
    pub(super) async fn ask(
        &self,
        session: SessionId,
        out: &SessionOut,
        what: Shown,
        is_up: impl FnOnce() -> bool,
    ) -> Result<Answer, ShowError> {
        let (answer, wait) = oneshot::channel();
        let turn = {
            let mut state = self.state();
            if state.waiting.len() >= AT_ONCE {
                return Err(ShowError::Busy);
            }
            state.last = state.last.wrapping_add(1);
            let key = (session, state.last);
            state.waiting.insert(key, Waiting { octets: Vec::new(), answer });
            Turn(self, key)
        };
        // It may have ended before the question was on the desk, where its end was to find it.
        if !is_up() {
            return Err(ShowError::SessionEnded);
        }
        let mut frame = Vec::new();
        let request = Body::View(View::Request { what: what.as_str().as_bytes() });
        if request.encode(turn.1.1, &mut frame, EncodeOptions::default()).is_ok() {
            out.push(&frame);
        }
        match timeout(PATIENCE, wait).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(ShowError::SessionEnded),
            Err(_) => Err(ShowError::Silent),
        }
    }

    /// Takes a part of an answer, if `frame` is one; whether it is. One that nobody asked for is dropped.
    pub(super) fn heard(&self, session: SessionId, frame: &Frame<'_>) -> bool {
        if !View::is(frame.frame_type) {
            return false;
        }
        let Ok(Body::View(View::Part { last, refused, octets })) = frame.body() else { return true };
        let mut state = self.state();
        let key = (session, frame.id);
        let Some(waiting) = state.waiting.get_mut(&key) else { return true };
        waiting.octets.extend_from_slice(octets);
        let too_long = waiting.octets.len() > LONGEST;
        if (last || too_long)
            && let Some(Waiting { octets, answer }) = state.waiting.remove(&key)
        {
            let _ = answer.send(match (too_long, refused) {
                (true, _) => Err(ShowError::TooLong),
                (false, true) => Ok(Err(octets)),
                (false, false) => Ok(Ok(octets)),
            });
        }
        true
    }

    /// The session has ended: nothing more comes.
    pub(super) fn ended(&self, session: SessionId) {
        self.state().waiting.retain(|(of, _), _| *of != session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(desk: &Desk, id: u32) -> oneshot::Receiver<Result<Answer, ShowError>> {
        let (answer, wait) = oneshot::channel();
        desk.state().waiting.insert((SessionId(1), id), Waiting { octets: Vec::new(), answer });
        wait
    }

    fn part(desk: &Desk, session: u64, id: u32, last: bool, refused: bool, octets: &[u8]) {
        let mut data = vec![u8::from(last) | u8::from(refused) << 1];
        data.extend_from_slice(octets);
        assert!(desk.heard(SessionId(session), &Frame { frame_type: 0xff31, id, data: &data }));
    }

    #[test]
    fn answers_come_in_parts_and_only_to_who_asked() {
        let desk = Desk::default();
        let (mut one, mut two) = (waiting(&desk, 1), waiting(&desk, 2));
        part(&desk, 1, 1, false, false, b"ab");
        part(&desk, 2, 1, true, false, b"another session's");
        part(&desk, 1, 9, true, false, b"nobody's");
        part(&desk, 1, 2, true, true, b"no");
        part(&desk, 1, 1, true, false, b"c");
        part(&desk, 1, 1, true, false, b"late");
        assert_eq!(one.try_recv().unwrap(), Ok(Ok(b"abc".to_vec())));
        assert_eq!(two.try_recv().unwrap(), Ok(Err(b"no".to_vec())));
        assert!(desk.state().waiting.is_empty());
    }

    #[test]
    fn an_endless_answer_is_cut_and_a_lost_session_ends_the_wait() {
        let desk = Desk::default();
        let (mut one, mut two) = (waiting(&desk, 1), waiting(&desk, 2));
        let piece = vec![b'x'; View::PART];
        for _ in 0..=LONGEST / View::PART {
            part(&desk, 1, 1, false, false, &piece);
        }
        assert_eq!(one.try_recv().unwrap(), Err(ShowError::TooLong));
        desk.ended(SessionId(1));
        assert!(two.try_recv().is_err());
        assert!(desk.state().waiting.is_empty());
        assert!(!desk.heard(SessionId(1), &Frame { frame_type: 0xff01, id: 1, data: &[] }));
    }
}
