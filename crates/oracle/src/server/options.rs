//! What the daemon is told at its start.

use crate::core::{Limits, RecordTtl, Timing};
use core::num::NonZeroUsize;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};
use weft_api::{API_PORT, LISP_PORT, METRICS_PORT, SESSION_PORT};
use weft_model::{GroupLimits, Name};

/// What the daemon is told at its start.
#[derive(Clone, Debug)]
pub struct OracleOptions {
    /// Where everything durable is; made when missing.
    pub data_dir: PathBuf,
    /// The Oracle's name, in its certificate.
    pub name: Name,
    /// Addresses for sessions, LISP and `/v1`. A wildcard of a family that the host does not have
    /// is passed over.
    pub listen: Vec<IpAddr>,
    /// TCP port of sessions; 0 takes any free one, here and below.
    pub session_port: u16,
    /// UDP port of LISP.
    pub lisp_port: u16,
    /// TCP port of `/v1`.
    pub api_port: u16,
    /// Plain HTTP for `/metrics`, `/healthz` and `/readyz`; none, no such server.
    pub metrics: Option<SocketAddr>,
    /// Names or addresses that NVEs are told to reach this Oracle by; those it listens on when empty.
    pub advertise: Vec<String>,
    /// Threads of the mapping database; when absent one for two cores, at most four.
    pub shards: Option<NonZeroUsize>,
    /// Where TLS secrets are written for a protocol analyser. Whoever reads this file reads all.
    pub tls_key_log: Option<PathBuf>,
    /// The operator's context file; `operator.json` in the data directory when absent.
    pub context: Option<PathBuf>,
    /// Bounds on what others can make the mapping database remember or do.
    pub limits: Limits,
    /// The mapping database's intervals.
    pub timing: Timing,
    /// Record TTLs of its answers.
    pub ttl: RecordTtl,
    /// Changes kept for watchers.
    pub history: usize,
    /// Bounds of access policy.
    pub policy: GroupLimits,
}

impl OracleOptions {
    /// The defaults, with everything durable in `data_dir`.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>, name: Name) -> Self {
        Self {
            data_dir: data_dir.into(),
            name,
            listen: vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
            session_port: SESSION_PORT,
            lisp_port: LISP_PORT,
            api_port: API_PORT,
            metrics: Some((Ipv4Addr::LOCALHOST, METRICS_PORT).into()),
            advertise: Vec::new(),
            shards: None,
            tls_key_log: None,
            context: None,
            limits: Limits::default(),
            timing: Timing::default(),
            ttl: RecordTtl::default(),
            history: 1 << 16,
            policy: GroupLimits::default(),
        }
    }

    pub(crate) fn shard_count(&self) -> usize {
        // A datagram that the kernel hands to the wrong shard's thread wakes a second one: on a small
        // machine one shard answers sooner than two.
        let cores = || std::thread::available_parallelism().map_or(1, |n| n.get().div_ceil(2).min(4));
        self.shards.map_or_else(cores, NonZeroUsize::get)
    }

    pub(crate) fn context_path(&self) -> PathBuf {
        self.context.clone().unwrap_or_else(|| self.data_dir.join("operator.json"))
    }
}
