//! Why the store failed.

use std::path::PathBuf;

/// Why the store failed. Nothing of the transaction was made durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The directory cannot be used.
    #[error("cannot use the data directory {dir}: {reason}; name another with --data-dir")]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// Why.
        reason: String,
    },
    /// Another process has it.
    #[error(
        "the data directory {0} is in use by another Oracle; stop that one or name another with --data-dir"
    )]
    InUse(PathBuf),
    /// It was written by a newer Weft.
    #[error(
        "the data directory {dir} has format {found}, this version reads up to {known}; run the newer weft"
    )]
    Newer {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// There is a CA and no store.
    #[error(
        "{0} is missing beside a CA; restore a backup into an empty directory, or move ca.pem and ca.key away to begin a new fabric"
    )]
    Missing(PathBuf),
    /// Reading or writing failed.
    #[error("the store failed: {0}; nothing was changed")]
    Failed(String),
    /// A value is not what its key promises.
    #[error("the store holds a damaged value at '{key}' ({reason}); restore a backup")]
    Damaged {
        /// The key.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// The daemon is stopping.
    #[error("the store is closed; the Oracle is stopping")]
    Closed,
}
