//! `weft tsi`: a thin client of this host's NVE.

mod events;

use super::client;
use crate::cli::{Change, Kind, Place, Socket, TsiCommand, Which, WhichVn};
use crate::error::CommandError;
use crate::output::{self, Column, Format};
use weft_api::{
    ClientError, LocalClient, Message,
    local::{Attach, ChangeState, DeviceKind, State, Update},
};

/// How attached interfaces are shown.
pub(super) const COLUMNS: &[Column] = &[
    ("vn", "/vn"),
    ("name", "/tsi"),
    ("device", "/device"),
    ("mac", "/mac"),
    ("ips", "/ips"),
    ("groups", "/groups"),
    ("by default", "/default_groups"),
    ("vni", "/vni"),
    ("mtu", "/mtu"),
    ("state", "/state"),
    ("epoch", "/epoch"),
    ("lease s", "/lease_s"),
    ("closed because", "/closed"),
];

/// How connections to VNs are shown.
const VN_COLUMNS: &[Column] = &[("vn", "/vn"), ("vni", "/vni"), ("interfaces", "/tsis")];

/// How a move is shown.
const MOVE_COLUMNS: &[Column] = &[("vn", "/vn"), ("name", "/grant/tsi/name"), ("nve", "/nve")];

/// How the groups of an interface are shown.
const GROUP_COLUMNS: &[Column] =
    &[("vn", "/vn"), ("name", "/grant/tsi/name"), ("nve", "/nve"), ("groups", "/grant/groups")];

/// How the tunnel policy of an interface is shown.
const TUNNEL_COLUMNS: &[Column] = &[
    ("vn", "/vn"),
    ("name", "/grant/tsi/name"),
    ("nve", "/nve"),
    ("ttl", "/grant/tunnel/ttl"),
    ("dscp", "/grant/tunnel/dscp"),
    ("ports", "/grant/tunnel/ports"),
    ("send", "/grant/tunnel/send_rate"),
    ("burst", "/grant/tunnel/send_burst"),
    ("receive", "/grant/tunnel/receive_rate"),
    ("burst", "/grant/tunnel/receive_burst"),
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
        TsiCommand::Attach(place) => place_at(place, State::Activated, false).await,
        TsiCommand::Associate { place, explicit } => place_at(place, State::Associated, explicit).await,
        TsiCommand::Update(change) => update(change).await,
        TsiCommand::Activate { which, lease } => change_state(which, State::Activated, lease).await,
        TsiCommand::Deactivate(which) => change_state(which, State::Associated, None).await,
        TsiCommand::Move { vn, name, to, take_over, force, cancel: _, access, output } => {
            let oracle = client(&access)?;
            let (view, message) = match to {
                Some(to) if take_over => {
                    let view = oracle.take_over(&vn, &name, to, force).await?;
                    let (nve, epoch) = (&view.nve, view.grant.epoch);
                    let message = format!(
                        "{vn}/{name} is held by '{nve}' from now on (epoch {epoch}); attach it there"
                    );
                    (view, message)
                }
                Some(to) => {
                    let message = format!(
                        "{vn}/{name} may be associated on '{to}' now, and is there once it is activated"
                    );
                    (oracle.name_next(&vn, &name, to).await?, message)
                }
                None => {
                    let view = oracle.call_off(&vn, &name).await?;
                    let message = format!("{vn}/{name} stays on '{}'", view.nve);
                    (view, message)
                }
            };
            match output.output {
                Format::Table => output::print(&output::done(output.output, &Message { message })?),
                _ => output::print(&output::one(output.output, &view, MOVE_COLUMNS)?),
            }
        }
        TsiCommand::Detach { vn, name, force, request, socket, output } => {
            let detached = nve(&socket)?.detach(&vn, &name, force, request.request_id.as_ref()).await;
            let message = detached.map_err(unreachable(&socket))?;
            output::print(&output::done(output.output, &message)?)
        }
        TsiCommand::Release { vn, name, force, access, output } => {
            let message = client(&access)?.release(&vn, &name, force).await?;
            output::print(&output::done(output.output, &message)?)
        }
        TsiCommand::SetGroups { vn, name, groups, access, output } => {
            let view = client(&access)?.set_groups(&vn, &name, groups.0).await?;
            output::print(&output::one(output.output, &view, GROUP_COLUMNS)?)
        }
        TsiCommand::Events { after, count, socket, output } => {
            events::follow(&socket, after, count, output.output).await
        }
        TsiCommand::Set { vn, name, settings, access, output } => {
            let change = settings.tunnel.into();
            let view = client(&access)?.change_tunnel(&vn, &name, &change).await?;
            output::print(&output::one(output.output, &view, TUNNEL_COLUMNS)?)
        }
        TsiCommand::VnConnect(WhichVn { vn, request, socket, output }) => {
            let connected = nve(&socket)?.connect(&vn, request.request_id.as_ref()).await;
            let connection = connected.map_err(unreachable(&socket))?;
            output::print(&output::one(output.output, &connection, VN_COLUMNS)?)
        }
        TsiCommand::VnDisconnect(WhichVn { vn, request, socket, output }) => {
            let ended = nve(&socket)?.disconnect(&vn, request.request_id.as_ref()).await;
            let message = ended.map_err(unreachable(&socket))?;
            output::print(&output::done(output.output, &message)?)
        }
        TsiCommand::VnList { socket, output } => {
            let vns = nve(&socket)?.connections().await.map_err(unreachable(&socket))?;
            output::print(&output::list(output.output, &vns.items, VN_COLUMNS)?)
        }
        TsiCommand::List { socket, output } => {
            let tsis = nve(&socket)?.tsis().await.map_err(unreachable(&socket))?;
            output::print(&output::list(output.output, &tsis.items, COLUMNS)?)
        }
    }
}

/// Attaches, in that state.
async fn place_at(place: Place, state: State, explicit: bool) -> Result<(), CommandError> {
    let Place { vn, name, device, kind, mac, ip, groups, lease, request, socket, output } = place;
    let (ips, groups) = (ip.into_iter().collect(), groups.map(|groups| groups.0).unwrap_or_default());
    let kind = kind.map(|kind| match kind {
        Kind::Veth => DeviceKind::Veth,
        Kind::Tap => DeviceKind::Tap,
    });
    let (lease_s, request_id) = (lease, request.request_id);
    let attach = Attach { vn, name, device, kind, mac, ips, groups, state, lease_s, explicit, request_id };
    let tsi = nve(&socket)?.attach(&attach).await.map_err(unreachable(&socket))?;
    output::print(&output::one(output.output, &tsi, COLUMNS)?)
}

/// Updates.
async fn update(change: Change) -> Result<(), CommandError> {
    let Change { which, device, add_ip, remove_ip, lease, renew: _ } = change;
    let Which { vn, name, request, socket, output } = which;
    let (add, remove) = (add_ip.into_iter().collect(), remove_ip.into_iter().collect());
    let update = Update { device, add, remove, lease_s: lease, request_id: request.request_id };
    let tsi = nve(&socket)?.update(&vn, &name, &update).await.map_err(unreachable(&socket))?;
    output::print(&output::one(output.output, &tsi, COLUMNS)?)
}

/// Activates or Deactivates.
async fn change_state(which: Which, state: State, lease_s: Option<u64>) -> Result<(), CommandError> {
    let Which { vn, name, request, socket, output } = which;
    let change = ChangeState { state, lease_s, request_id: request.request_id };
    let message = nve(&socket)?.change_state(&vn, &name, &change).await.map_err(unreachable(&socket))?;
    output::print(&output::done(output.output, &message)?)
}
