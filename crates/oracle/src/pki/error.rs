//! Why certificates cannot be made or read.

use std::path::PathBuf;

/// Why certificates cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file cannot be read or written.
    #[error("cannot use {path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// One of the CA's two files is missing.
    #[error("{missing} is missing beside its other half; put it back or restore a backup")]
    Half {
        /// The one that is missing.
        missing: PathBuf,
    },
    /// A file holds something else.
    #[error("{file} in the data directory cannot be used ({reason}); restore a backup")]
    Unusable {
        /// Its name.
        file: &'static str,
        /// Why.
        reason: String,
    },
    /// Signing failed.
    #[error("cannot make a certificate: {0}")]
    Sign(String),
    /// A date that certificates cannot carry.
    #[error("{0} s since 1970 is no date a certificate can carry; check the clock")]
    Date(u64),
    /// Not a certificate signing request.
    #[error("the certificate signing request cannot be read ({0}); send PKCS#10 as PEM, or DER in base64")]
    Request(String),
    /// The request's signature is not that of its key.
    #[error("the certificate signing request is not signed with its own key ({0})")]
    Possession(String),
    /// A kind of key that is not taken.
    #[error("the certificate signing request's key cannot be used ({0}); use ECDSA P-256")]
    Key(String),
    /// A certificate without exactly one role.
    #[error("the certificate names no role in its Subject Alternative Name: {0}")]
    Role(String),
}

impl PkiError {
    pub(super) fn sign(e: rcgen::Error) -> Self {
        Self::Sign(e.to_string())
    }

    pub(super) fn unusable(file: &'static str, e: &dyn std::fmt::Display) -> Self {
        Self::Unusable { file, reason: e.to_string() }
    }
}
