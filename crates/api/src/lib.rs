//! The HTTP interfaces of Weft: the Oracle's `/v1` (HTTPS, mutual TLS) and the NVE's local API
//! (unix socket), as types that both ends share, and the [`Client`]s that speak them.
//!
//! Reading is lenient (unknown fields are ignored, so that a daemon may be one version ahead of
//! its client) and writing is strict: every request type refuses fields it does not know.
#![forbid(unsafe_code)]

mod body;
mod client;
mod context;
pub mod local;
mod ticket;
mod token;
mod trace;
mod types;

pub use body::{BodyError, whole};
pub use client::{
    AGENT_START, ApiError, Client, ClientError, Endpoint, Identity, Lines, LocalClient, ORACLE_SERVER_NAME,
    Server, ServerError, TlsError, Trust, Watch, tls_config,
};
pub use context::{Context, ContextError};
pub use ticket::{SignedTicket, Ticket, TicketError, TraceTicket};
pub use token::{JoinToken, TokenError};
pub use trace::{NoProbe, Probe, TraceRequest, TraceResult, TraceStep, TraceView};
pub use types::*;

/// The version of `/v1`: N works with N-1.
pub const API_VERSION: u32 = 1;

/// Default port of the session, TCP and TLS; the LISP port of the reliable transport.
pub const SESSION_PORT: u16 = 4342;
/// Default port of LISP over UDP (RFC 9301 section 4).
pub const LISP_PORT: u16 = 4342;
/// Default port of `/v1`.
pub const API_PORT: u16 = 4343;
/// Default port of the plain-HTTP metrics and health endpoints.
pub const METRICS_PORT: u16 = 4344;
/// Default port at which NVEs ask each other: TCP, on each RLOC.
pub const PEER_PORT: u16 = 4346;
/// The NVE's local API.
pub const NVE_SOCKET: &str = "/run/weft/nve.sock";
