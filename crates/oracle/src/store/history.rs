//! The last changes, kept for watchers.

use super::Revision;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::watch;

/// One key's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The revision of its transaction; changes of one transaction share it.
    pub revision: Revision,
    /// The key.
    pub key: Vec<u8>,
    /// What it was before.
    pub before: Option<Vec<u8>>,
    /// What it is now.
    pub after: Option<Vec<u8>>,
}

/// The history asked for is no longer kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "resource_version {asked} is too old or from another store, history begins at {oldest}; list again and watch from the list's"
)]
pub struct Compacted {
    /// What was asked for.
    pub asked: Revision,
    /// The oldest revision one may ask for.
    pub oldest: Revision,
}

struct Log {
    /// Changes after this revision are complete.
    since: Revision,
    last: Revision,
    changes: VecDeque<Arc<Change>>,
    limit: usize,
}

/// The last changes. It lives in memory: after a restart watchers that missed something list again.
pub struct History {
    log: Mutex<Log>,
    last: watch::Sender<Revision>,
}

impl History {
    /// A history that begins at `revision` and keeps `limit` changes.
    #[must_use]
    pub fn new(revision: Revision, limit: usize) -> Self {
        let log = Log { since: revision, last: revision, changes: VecDeque::new(), limit };
        Self { log: Mutex::new(log), last: watch::Sender::new(revision) }
    }

    /// The last revision, and news of later ones.
    #[must_use]
    pub fn revisions(&self) -> watch::Receiver<Revision> {
        self.last.subscribe()
    }

    /// Up to `limit` changes after `from`, and the revision up to which that is complete. A
    /// transaction's changes are never torn apart, so a few more may come.
    ///
    /// # Errors
    /// [`Compacted`] when changes after `from` were dropped, or `from` lies ahead.
    pub fn after(&self, from: Revision, limit: usize) -> Result<(Vec<Arc<Change>>, Revision), Compacted> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if from < log.since || from > log.last {
            return Err(Compacted { asked: from, oldest: log.since });
        }
        let start = log.changes.partition_point(|c| c.revision <= from);
        let mut taken: Vec<Arc<Change>> = Vec::new();
        for change in log.changes.range(start..) {
            if taken.len() >= limit && taken.last().is_some_and(|t| t.revision != change.revision) {
                let complete = taken.last().map_or(from, |t| t.revision);
                return Ok((taken, complete));
            }
            taken.push(change.clone());
        }
        Ok((taken, log.last))
    }

    /// Adds the changes of commits up to `revision`.
    pub(super) fn push(&self, changes: &[Arc<Change>], revision: Revision) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.changes.extend(changes.iter().cloned());
        while log.changes.len() > log.limit {
            let Some(dropped) = log.changes.pop_front() else { break };
            log.since = dropped.revision;
        }
        log.last = revision;
        drop(log);
        self.last.send_replace(revision);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(revision: Revision, key: u8) -> Arc<Change> {
        Arc::new(Change { revision, key: vec![key], before: None, after: Some(vec![]) })
    }

    #[test]
    fn bounded_and_never_torn() {
        let h = History::new(10, 4);
        h.push(&[change(11, 1), change(11, 2), change(11, 3)], 11);
        assert_eq!(h.after(10, 1).unwrap().0.len(), 3, "one transaction comes whole");
        assert_eq!(h.after(11, 1).unwrap(), (vec![], 11));
        assert!(h.after(12, 1).is_err());
        h.push(&[change(12, 1), change(13, 2)], 13);
        assert_eq!(h.after(10, 9), Err(Compacted { asked: 10, oldest: 11 }));
        let (some, complete) = h.after(11, 1).unwrap();
        assert_eq!((some.len(), complete), (1, 12));
    }
}
