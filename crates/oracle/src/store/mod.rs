//! Durable keys and values with a history.
//!
//! The shape is etcd's: one revision for the whole store, raised by every transaction that changed
//! something; transactions that see a consistent state and commit as a whole; and the changes after
//! a revision, for watchers, as far back as they are kept. A transaction is a function that may be
//! run more than once: an embedded store runs it inside its own write transaction, a remote one
//! runs it on a snapshot and commits it on condition that nothing it read has changed.

mod embedded;
mod error;
mod history;
mod memory;
mod overlay;
#[cfg(test)]
mod suite;

pub use embedded::{FORMAT, RedbStore};
pub(crate) use embedded::{exists, import, sync_dir};
pub use error::StoreError;
pub use history::{Change, Compacted, History};
pub use memory::MemoryStore;

use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// How many transactions have changed the store so far.
pub type Revision = u64;

/// What a transaction may do. Reads see the transaction's own writes.
pub trait Transaction {
    /// The value of `key`.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Calls `each` with every key that begins with `prefix`, ascending, until it says false.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    fn scan(&self, prefix: &[u8], each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError>;

    /// Sets `key`; writing what it holds already is no change.
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>);

    /// Removes `key`; removing what is not there is no change.
    fn delete(&mut self, key: Vec<u8>);
}

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Make its writes durable.
    Commit,
    /// Forget its writes.
    Abort,
}

/// A transaction's function. It may be run again, and only the last run counts.
pub type Body = Box<dyn FnMut(&mut dyn Transaction) -> Result<Verdict, StoreError> + Send>;

/// Told once how a transaction ended: at which revision its writes are durable (if it changed
/// nothing, at which revision what it read held), or why they are not.
pub type Done = Box<dyn FnOnce(Result<Revision, StoreError>) + Send>;

/// Sees each commit, in order.
pub trait Observer: Send {
    /// The changes are durable; their transactions have not been told so yet.
    fn committed(&mut self, changes: &[Arc<Change>]);

    /// The transactions have been told.
    fn told(&mut self, _changes: &[Arc<Change>]) {}
}

/// A consistent state of the whole store.
pub trait Snapshot: Transaction + Send {
    /// Its revision.
    fn revision(&self) -> Revision;
}

/// Durable keys and values with a history.
pub trait Store: Send + Sync + 'static {
    /// Runs `body` and then `done`, possibly on another thread. Concurrent transactions share the
    /// cost of being made durable.
    fn submit(&self, body: Body, done: Done);

    /// The present state, for reading only: writes to it go nowhere.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError>;

    /// The changes as far back as they are kept.
    fn history(&self) -> &History;

    /// From now on calls `observer` with each commit. There is one; it must be set before the
    /// first transaction whose changes it must see.
    fn observe(&self, observer: Box<dyn Observer>);
}

/// Runs `body` as one transaction and hands back what it returned, with the revision at which it
/// holds. An `Err` of `body` aborts the transaction.
///
/// # Errors
/// [`StoreError`] when the store failed; then nothing was changed.
pub async fn transact<R, E, F>(store: &dyn Store, mut body: F) -> Result<Result<(R, Revision), E>, StoreError>
where
    R: Send + 'static,
    E: Send + 'static,
    F: FnMut(&mut dyn Transaction) -> Result<Result<R, E>, StoreError> + Send + 'static,
{
    let slot = Arc::new(Mutex::new(None));
    let (sender, receiver) = oneshot::channel();
    let inner = slot.clone();
    store.submit(
        Box::new(move |tx| {
            let result = body(tx)?;
            let verdict = if result.is_ok() { Verdict::Commit } else { Verdict::Abort };
            *inner.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
            Ok(verdict)
        }),
        // The receiver may have gone: a caller that hung up does not undo what it asked for.
        Box::new(move |end| drop(sender.send(end))),
    );
    let revision = receiver.await.map_err(|_| StoreError::Closed)??;
    let result = slot.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or(StoreError::Closed)?;
    Ok(result.map(|value| (value, revision)))
}
