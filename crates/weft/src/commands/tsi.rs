//! `weft tsi`: a thin client of this host's NVE.

use super::client;
use crate::cli::{Kind, Socket, TsiCommand};
use crate::error::CommandError;
use crate::output::{self, Column};
use weft_api::{
    ClientError, LocalClient,
    local::{Attach, DeviceKind},
};

/// How attached interfaces are shown.
pub(super) const COLUMNS: &[Column] = &[
    ("vn", "/vn"),
    ("name", "/tsi"),
    ("device", "/device"),
    ("mac", "/mac"),
    ("ips", "/ips"),
    ("vni", "/vni"),
    ("mtu", "/mtu"),
    ("state", "/state"),
    ("epoch", "/epoch"),
];

/// A client of the NVE; an unreachable one is told with what to do.
pub(super) fn nve(socket: &Socket) -> Result<LocalClient, CommandError> {
    Ok(LocalClient::new(&socket.socket)?)
}

pub(super) fn unreachable<'a>(socket: &'a Socket) -> impl Fn(ClientError) -> CommandError + use<'a> {
    |error| match error {
        ClientError::Unreachable { reason, .. } if reason.contains("Permission denied") => {
            CommandError::NotRoot { path: socket.socket.clone() }
        }
        ClientError::Unreachable { reason, .. } => {
            CommandError::NoNve { path: socket.socket.clone(), reason }
        }
        other => other.into(),
    }
}

pub(super) async fn run(command: TsiCommand) -> Result<(), CommandError> {
    match command {
        TsiCommand::Attach { vn, name, device, kind, mac, ip, socket, output } => {
            let kind = kind.map(|kind| match kind {
                Kind::Veth => DeviceKind::Veth,
                Kind::Tap => DeviceKind::Tap,
            });
            let ips = ip.into_iter().collect();
            let attach = Attach { vn, name, device, kind, mac, ips, request_id: None };
            let tsi = nve(&socket)?.attach(&attach).await.map_err(unreachable(&socket))?;
            output::print(&output::one(output.output, &tsi, COLUMNS)?)
        }
        TsiCommand::Detach { vn, name, force, socket, output } => {
            let message = nve(&socket)?.detach(&vn, &name, force).await.map_err(unreachable(&socket))?;
            output::print(&output::done(output.output, &message)?)
        }
        TsiCommand::Release { vn, name, access, output } => {
            let message = client(&access)?.release(&vn, &name, true).await?;
            output::print(&output::done(output.output, &message)?)
        }
        TsiCommand::List { socket, output } => {
            let tsis = nve(&socket)?.tsis().await.map_err(unreachable(&socket))?;
            output::print(&output::list(output.output, &tsis.items, COLUMNS)?)
        }
    }
}
