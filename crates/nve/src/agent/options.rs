//! What an operator tells an NVE at its start.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf};
use weft_datapath::Path;
use weft_model::{NveName, Rloc};

/// Options of [`run`](super::run).
#[derive(Clone, Debug)]
pub struct NveOptions {
    /// The name to join under; the host's name when none. Only used when joining.
    pub name: Option<NveName>,
    /// Identity and attachments are kept here.
    pub data_dir: PathBuf,
    /// The local API's unix socket.
    pub socket: PathBuf,
    /// The join token; needed once.
    pub join: Option<String>,
    /// Underlay addresses; the source address towards the Oracle when none.
    pub rlocs: BTreeSet<Rloc>,
    /// Devices that lead to other RLOCs; those with an RLOC on them when none.
    pub uplinks: Vec<String>,
    /// Plain-HTTP metrics and health.
    pub http_listen: SocketAddr,
    /// Where the data plane is pinned.
    pub pin_dir: PathBuf,
    /// Name of the VXLAN device.
    pub vxlan_device: String,
    /// UDP port of LISP; where it is taken another one.
    pub lisp_port: u16,
    /// TCP port at which NVEs ask each other about tenant systems that move: the same at all.
    pub peer_port: u16,
    /// How veth tenants' frames leave.
    pub veth_path: Path,
    /// How TAP tenants' frames leave.
    pub tap_path: Path,
    /// Largest IP packet of tenants; from the uplinks' MTU when none.
    pub tenant_mtu: Option<u16>,
    /// Appends TLS secrets to this file, for decoding captures. Never in production.
    pub tls_key_log: Option<PathBuf>,
}
