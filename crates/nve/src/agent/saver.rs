//! The one writer of the state file: off the runtime, a burst of changes in one write, and again and again
//! while writing fails.

use super::{NveError, state};
use serde::Serialize;
use std::{path::PathBuf, time::Duration};
use tokio::{sync::watch, task::JoinHandle};

/// What could not be written is tried again after this, or with the next change.
const AGAIN: Duration = Duration::from_secs(1);

/// Hands states to the writer.
pub(super) struct Saver<T = state::Saved> {
    states: watch::Sender<T>,
    failed: watch::Receiver<Option<String>>,
    task: JoinHandle<Result<(), NveError>>,
}

impl<T: Clone + PartialEq + Serialize + Send + Sync + 'static> Saver<T> {
    /// Begins to write to `path`, which holds `now`.
    pub(super) fn start(path: PathBuf, now: T) -> Self {
        let (states, wanted) = watch::channel(now);
        let (failing, failed) = watch::channel(None);
        Self { states, failed, task: tokio::spawn(keep(path, wanted, failing)) }
    }

    /// Has `new` written, if it is news.
    pub(super) fn save(&self, new: T) {
        self.states.send_if_modified(|last| {
            let changed = *last != new;
            *last = new;
            changed
        });
    }

    /// Why the latest state is not on disk, if that was tried.
    pub(super) fn failed(&self) -> Option<String> {
        self.failed.borrow().clone()
    }

    /// Waits until everything handed over is on disk.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) async fn finish(self) -> Result<(), NveError> {
        drop(self.states);
        self.task.await.map_err(|_| NveError::Ended("saving"))?
    }
}

async fn keep<T: Clone + Serialize + Send + Sync + 'static>(
    path: PathBuf,
    mut states: watch::Receiver<T>,
    failing: watch::Sender<Option<String>>,
) -> Result<(), NveError> {
    let mut last = Ok(());
    loop {
        let more = tokio::select! {
            more = states.changed() => more.is_ok(),
            () = tokio::time::sleep(AGAIN), if last.is_err() => true,
        };
        if !more {
            return last;
        }
        let (file, state) = (path.clone(), states.borrow_and_update().clone());
        last = tokio::task::spawn_blocking(move || state::save(&file, &state))
            .await
            .unwrap_or(Err(NveError::Ended("saving")));
        let reason = last.as_ref().err().map(ToString::to_string);
        if let Some(error) = &reason
            && *failing.borrow() != reason
        {
            tracing::error!(%error, "cannot save; nothing more is attached until that works");
        }
        failing.send_replace(reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::tests::{away, until};

    fn one() -> state::Saved {
        state::Saved { attachments: vec![away()], ..state::Saved::default() }
    }

    #[tokio::test]
    async fn what_was_handed_over_last_is_on_disk_in_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("state.json");
        let saver = Saver::start(file.clone(), state::Saved::default());
        for _ in 0..10 {
            saver.save(one());
            tokio::task::yield_now().await;
            saver.save(state::Saved::default());
            tokio::task::yield_now().await;
        }
        saver.save(one());
        saver.finish().await.unwrap();
        assert_eq!(state::load(&file).unwrap(), Some(one()));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "and nothing else");
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_said_and_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("later");
        let file = place.join("state.json");
        let saver = Saver::start(file.clone(), state::Saved::default());
        saver.save(one());
        until(|| saver.failed()).await;
        std::fs::create_dir(&place).unwrap();
        until(|| saver.failed().is_none().then_some(())).await;
        assert_eq!(state::load(&file).unwrap(), Some(one()));
        std::fs::remove_dir_all(&place).unwrap();
        saver.save(state::Saved::default());
        assert!(saver.finish().await.is_err());
    }
}
