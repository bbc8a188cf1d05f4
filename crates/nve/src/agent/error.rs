//! Why an NVE cannot start or join.

use std::{collections::BTreeSet, io, net::SocketAddr, path::PathBuf};
use weft_api::{ClientError, TlsError, TokenError};
use weft_datapath::DatapathError;
use weft_model::{NameError, NveName, Rloc};

/// Why an NVE cannot start.
#[derive(Debug, thiserror::Error)]
pub enum NveError {
    /// Another agent runs with this data directory.
    #[error("{path} is in use by another weft nve; stop that one or choose another --data-dir")]
    DataDirInUse {
        /// The directory.
        path: PathBuf,
    },
    /// Another agent serves this socket.
    #[error("{path} is served by another weft nve; stop that one or choose another --socket")]
    SocketInUse {
        /// The socket.
        path: PathBuf,
    },
    /// What an agent uses cannot be taken away.
    #[error("{path} is in use by a running weft nve; stop that one first")]
    Running {
        /// What it uses.
        path: PathBuf,
    },
    /// The socket's path is something else's.
    #[error("{path} exists and is no socket; name another path with --socket")]
    NoSocket {
        /// What was named.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} {path}: {source}{hint}", hint = file_hint(.source))]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} is damaged ({reason}); move it away to start afresh")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {addr} for {what}: {source}; choose another with --http-listen")]
    Listen {
        /// What for.
        what: &'static str,
        /// The address.
        addr: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// An underlay address cannot be asked from.
    #[error(
        "cannot ask from {rloc}, UDP port {port}: {source}; is it an address of this host? --rloc names another"
    )]
    Lisp {
        /// The address.
        rloc: Rloc,
        /// The port.
        port: u16,
        /// Why not.
        source: io::Error,
    },
    /// Other NVEs cannot be listened to.
    #[error(
        "cannot listen on {rloc}, TCP port {port}, for other NVEs: {source}; choose another with --peer-port, the same on every host"
    )]
    Peers {
        /// The address.
        rloc: Rloc,
        /// The port.
        port: u16,
        /// Why not.
        source: io::Error,
    },
    /// What it shows to other NVEs cannot be used.
    #[error("{0}; move identity.json away and join again")]
    Credentials(String),
    /// No identity and no token.
    #[error(
        "this host has not joined yet: run `weft oracle token` at the Oracle and start `weft nve --join TOKEN` here"
    )]
    NotJoined,
    /// The data plane cannot be made by this process.
    #[error("an NVE needs CAP_NET_ADMIN and CAP_BPF for its data plane; run as root")]
    Privileges,
    /// The token is no token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The host's name cannot be an NVE's.
    #[error("the host's name cannot name this NVE ({0}); choose one with --name")]
    HostName(NameError),
    /// The Oracle did not enrol this NVE.
    #[error("cannot join: {0}{hint}", hint = join_hint(.0))]
    Join(ClientError),
    /// An answer to a join that cannot be used.
    #[error("the Oracle's answer names {what} '{value}', which is no address this host can use")]
    Address {
        /// What for.
        what: &'static str,
        /// The offending value.
        value: String,
    },
    /// A client for /v1 cannot be made.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A key or request for a certificate cannot be made.
    #[error("cannot make a key: {0}")]
    Key(#[from] rcgen::Error),
    /// The data plane cannot be used.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// The kernel's links cannot be read.
    #[error("cannot read the host's links: {0}")]
    Netlink(String),
    /// No RLOC could be found.
    #[error("no route to the Oracle at {oracle}: {source}; give the underlay address with --rloc")]
    NoRloc {
        /// The Oracle.
        oracle: String,
        /// Why.
        source: io::Error,
    },
    /// No device has the RLOC.
    #[error("no device has the address {rloc}; give the underlay device with --uplink")]
    NoUplink {
        /// The address.
        rloc: Rloc,
    },
    /// An uplink does not exist.
    #[error("there is no device '{0}'; --uplink takes the name of an existing one")]
    UnknownUplink(String),
    /// The underlay is too small for tunnels.
    #[error(
        "device {device} has MTU {mtu}: too small for VXLAN; tenants need at least {least} octets behind {overhead} of encapsulation"
    )]
    Mtu {
        /// The device.
        device: String,
        /// Its MTU.
        mtu: u32,
        /// The least a tenant needs.
        least: u16,
        /// What encapsulation takes.
        overhead: u16,
    },
    /// What was asked for tenants does not fit.
    #[error(
        "--tenant-mtu {mtu} cannot be: the underlay has room for {least} to {most}; leave it away for {most}"
    )]
    TenantMtu {
        /// What was asked for.
        mtu: u16,
        /// IPv6's least.
        least: u16,
        /// What the uplinks carry beside encapsulation.
        most: u16,
    },
    /// Underlay addresses are part of what was joined with.
    #[error(
        "--rloc {given} differs from what this host joined with ({joined}); leave it away, or `weft nve remove` this NVE and join anew",
        given = list(.given), joined = list(.joined)
    )]
    OtherRlocs {
        /// Those of the command line.
        given: BTreeSet<Rloc>,
        /// Those of the identity.
        joined: BTreeSet<Rloc>,
    },
    /// The operating system gave no random numbers.
    #[error("no random numbers from the operating system: {0}")]
    Random(getrandom::Error),
    /// A name that the join request needs is taken or refused.
    #[error("the name {0} was given on the command line but this host joined as {1}; leave --name away")]
    OtherName(NveName, NveName),
    /// A part of the agent ended.
    #[error("{0} ended unexpectedly; restart the agent, tenants keep their connectivity meanwhile")]
    Ended(&'static str),
}

impl NveError {
    /// For `map_err`: what was tried on which file.
    pub(super) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}

fn list(rlocs: &BTreeSet<Rloc>) -> String {
    rlocs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What to do about a file that cannot be used.
fn file_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; run as root",
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::StorageFull => {
            "; make room there, or choose another place with --data-dir or --socket"
        }
        _ => "",
    }
}

/// What to do about a join that failed before the Oracle could say it.
fn join_hint(error: &ClientError) -> &'static str {
    match error {
        ClientError::Unreachable { reason, .. } if reason.contains("certificate") => {
            "; the Oracle there is not the one the token was made by: make a token at that one"
        }
        ClientError::Unreachable { .. } | ClientError::Broken { .. } | ClientError::Timeout { .. } => {
            "; is the Oracle running, and does its address in the token lead there from this host?"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_join_that_failed_says_what_to_do() {
        let failed = |reason: &str| {
            let (address, reason) = ("https://192.0.2.1:4343".to_owned(), reason.to_owned());
            NveError::Join(ClientError::Unreachable { address, reason }).to_string()
        };
        let other = failed("invalid peer certificate: UnknownIssuer");
        assert!(other.contains("not the one the token was made by"), "{other}");
        let away = failed("Connection refused (os error 111)");
        assert!(away.contains("is the Oracle running"), "{away}");
    }
}
