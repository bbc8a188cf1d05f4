//! Why a command failed: one line each.

use std::{io, path::PathBuf};
use weft_api::{ClientError, ContextError};
use weft_model::{GroupName, VnName};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// An Oracle or the NVE refused, or cannot be reached.
    #[error("{0}{hint}", hint = client_hint(.0))]
    Client(#[from] ClientError),
    /// The NVE's socket does not answer.
    #[error(
        "no NVE answers at {path}: {reason}; is `weft nve` running? another socket is named with --socket"
    )]
    NoNve {
        /// The socket.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The NVE's socket is another user's.
    #[error("the NVE at {path} serves root only; run as root")]
    NotRoot {
        /// The socket.
        path: PathBuf,
    },
    /// Credentials cannot be read.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// The Oracle cannot run.
    #[error(transparent)]
    Oracle(#[from] weft_oracle::OracleError),
    /// The NVE cannot run.
    #[error(transparent)]
    Nve(#[from] weft_nve::NveError),
    /// The lab.
    #[error(transparent)]
    Lab(#[from] weft_lab::LabError),
    /// The runtime cannot start.
    #[error("cannot start: {0}")]
    Runtime(io::Error),
    /// A file cannot be read.
    #[error("cannot read {path}: {source}; name a file with the secret in its first line")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of rules cannot be read.
    #[error("cannot read {file}: {source}; name a file with a rule a line, or - for standard input")]
    ReadRules {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The NVE follows no more.
    #[error("the NVE has ended the stream; go on with --after {0} when it is back")]
    StreamEnded(u64),
    /// No such VN.
    #[error("there is no VN '{0}'; `weft get vns` lists them")]
    NoVn(VnName),
    /// No such security group.
    #[error(
        "there is no security group '{group}'{}; `weft get groups` lists them",
        vn.as_ref().map(|vn| format!(" in VN '{vn}'")).unwrap_or_default()
    )]
    NoGroup {
        /// The group.
        group: GroupName,
        /// The VN in which it was looked for; none: all.
        vn: Option<VnName>,
    },
    /// More rules than a group may have.
    #[error("{rules} rules; a security group has {most} at most, and a tenant system may be in several")]
    TooManyRules {
        /// How many there are,
        rules: usize,
        /// and may be.
        most: usize,
    },
    /// What was to be shown cannot be.
    #[error("cannot show the answer: {0}")]
    Show(String),
    /// A value that cannot be.
    #[error("{0}")]
    Refused(String),
    /// A command line that is not understood.
    #[error("{0}")]
    Misuse(String),
    /// Options that exclude each other in a way the parser cannot tell.
    #[error("{0}")]
    Usage(&'static str),
}

/// What to do when no answer came.
const fn client_hint(error: &ClientError) -> &'static str {
    match error {
        ClientError::Unreachable { .. } => "; is the Oracle running, and does this host have a way to it?",
        ClientError::Broken { .. } | ClientError::Timeout { .. } => {
            "; look whether it was done before trying again"
        }
        _ => "",
    }
}

impl CommandError {
    /// For programs.
    pub(crate) fn code(&self) -> String {
        match self {
            Self::Client(ClientError::Api(api)) => serde_json::to_value(api.code)
                .ok()
                .and_then(|value| value.as_str().map(str::to_owned))
                .unwrap_or_else(|| "unknown".to_owned()),
            Self::Client(_) | Self::NoNve { .. } => "unreachable".to_owned(),
            Self::NotRoot { .. } => "forbidden".to_owned(),
            Self::Context(_) => "context".to_owned(),
            Self::NoVn(_) | Self::NoGroup { .. } => "not_found".to_owned(),
            Self::TooManyRules { .. } | Self::Usage(_) | Self::Refused(_) | Self::Misuse(_) => {
                "usage".to_owned()
            }
            _ => "failed".to_owned(),
        }
    }
}
