//! Why the store failed.

use std::path::{Path, PathBuf};

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
    /// A file that is there cannot be read.
    #[error(
        "the store {path} cannot be read ({reason}); move the data directory away and restore a backup with `weft oracle restore`"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// No space is left.
    #[error(
        "the disk that holds the Oracle's data directory is full; nothing was changed; free some space and ask again"
    )]
    Full,
    /// An earlier write failed and the file is opened anew.
    #[error("the store is opened anew after a failure; nothing was changed; ask again")]
    Interrupted,
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

impl StoreError {
    /// The same of reading `path`.
    pub(super) fn reading(self, path: &Path) -> Self {
        match self {
            Self::Failed(reason) => Self::Unreadable { path: path.to_owned(), reason },
            other => other,
        }
    }
}
