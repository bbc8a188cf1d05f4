//! Why a request did not succeed.

use super::{endpoint::ServerError, tls::TlsError};
use crate::{Code, ErrorBody};
use core::time::Duration;

/// The server refused the request: its own words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The HTTP status.
    pub status: u16,
    /// For programs.
    pub code: Code,
    /// For people, one line.
    pub message: String,
}

/// Why a request did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server answered with a refusal.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// An address is malformed.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// Certificates or keys cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No connection to any of the servers; the last one's reason.
    #[error("cannot reach {address}: {reason}")]
    Unreachable {
        /// The address tried last.
        address: String,
        /// Why.
        reason: String,
    },
    /// The connection broke while the answer was awaited: the request may have been carried out.
    #[error("lost the connection to {address}: {reason}")]
    Broken {
        /// The address.
        address: String,
        /// Why.
        reason: String,
    },
    /// No answer in time: the request may have been carried out.
    #[error("{address} did not answer within {after:?}")]
    Timeout {
        /// The address.
        address: String,
        /// How long was waited.
        after: Duration,
    },
    /// The answer is not what this version understands.
    #[error(
        "{address} sent an answer this version does not understand ({reason}); are the versions within one of each other?"
    )]
    Answer {
        /// The address.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl ClientError {
    /// The code of a refusal; none for transport errors.
    #[must_use]
    pub const fn code(&self) -> Option<Code> {
        match self {
            Self::Api(error) => Some(error.code),
            _ => None,
        }
    }

    /// Whether the server never answered, so that trying again later may help.
    #[must_use]
    pub const fn is_transport(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Broken { .. } | Self::Timeout { .. })
    }

    pub(super) fn refusal(address: &str, status: u16, body: &[u8]) -> Self {
        match serde_json::from_slice::<ErrorBody>(body) {
            Ok(ErrorBody { error, message }) => Self::Api(ApiError { status, code: error, message }),
            Err(e) => Self::Answer {
                address: address.to_owned(),
                reason: format!("status {status} with a body that is no error: {e}"),
            },
        }
    }
}
