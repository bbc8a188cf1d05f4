//! Why the Oracle cannot start or go on.

use crate::{pki::PkiError, registry::RegistryError, store::StoreError};
use std::{io, net::SocketAddr, path::PathBuf};
use weft_api::ContextError;

/// Why the Oracle cannot start or go on: one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OracleError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The operator's context file.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// TLS.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// A port is taken or an address is not this host's.
    #[error("cannot listen on {what} {address}: {source}; name another address or port")]
    Listen {
        /// For what.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// No address to listen on is left.
    #[error("no address to listen on is named, or this host has none of their families")]
    NoAddress,
    /// The kernel refuses something else.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A file given by an option.
    #[error("cannot write {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A backup that cannot be made or read.
    #[error("{path} is no backup of an Oracle ({reason})")]
    Backup {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A data directory with something in it.
    #[error("{0} holds an Oracle's data already; restore into an empty directory")]
    NotEmpty(PathBuf),
    /// A thread ended that must not.
    #[error("the {0} thread has ended; see the log before this line")]
    Died(&'static str),
}

impl OracleError {
    pub(crate) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}
