//! `weft vn`.

use super::client;
use crate::cli::{GatewayName, GroupNames, VnCommand};
use crate::error::CommandError;
use crate::output::{self, Column};
use weft_api::{NewVn, TunnelChange, Vn, VnChange};
use weft_model::{Miss, Storm, StormError, Subnets, SubnetsError};

/// How VNs are shown.
pub(super) const COLUMNS: &[Column] = &[
    ("name", "/name"),
    ("vni", "/vni"),
    ("subnets", "/subnets"),
    ("learning", "/learning"),
    ("reply", "/reply"),
    ("bum", "/bum"),
    ("miss", "/miss"),
    ("gateway", "/gateway"),
    ("groups", "/default_groups"),
    ("storm", "/storm/rate"),
    ("burst", "/storm/burst"),
    ("ttl", "/tunnel/ttl"),
    ("dscp", "/tunnel/dscp"),
    ("send", "/tunnel/send_rate"),
    ("receive", "/tunnel/receive_rate"),
];

pub(super) async fn run(command: VnCommand) -> Result<(), CommandError> {
    match command {
        VnCommand::Create {
            name,
            subnet,
            vni,
            learning,
            reply,
            bum,
            miss,
            gateway,
            storm_rate,
            storm_burst,
            access,
            output,
        } => {
            let subnets =
                Subnets::new(subnet).map_err(|e: SubnetsError| CommandError::Refused(e.to_string()))?;
            let usual = Storm::default();
            let storm = Storm::new(storm_rate.unwrap_or(usual.rate()), storm_burst.unwrap_or(usual.burst()))
                .map_err(|e: StormError| CommandError::Refused(e.to_string()))?;
            let new = NewVn { name, vni, subnets, learning, reply, bum, storm, miss, gateway };
            let vn = client(&access)?.create_vn(&new).await?;
            note_idle(output.output, &vn);
            output::print(&output::one(output.output, &vn, COLUMNS)?)
        }
        VnCommand::Set { name, change, access, output } => {
            let crate::cli::VnChange {
                learning,
                reply,
                bum,
                miss,
                gateway,
                storm_rate,
                storm_burst,
                default_groups,
                log_refused,
                tunnel,
            } = change;
            let named = gateway.is_some();
            let gateway = gateway.map(|GatewayName(name)| name);
            let default_groups = default_groups.map(|GroupNames(names)| names);
            let change = VnChange {
                learning,
                reply,
                bum,
                storm_rate,
                storm_burst,
                miss,
                gateway,
                default_groups,
                log_refused,
                tunnel: Some(tunnel.into()).filter(|change| *change != TunnelChange::default()),
            };
            let vn = client(&access)?.change_vn(&name, &change).await?;
            if named {
                note_idle(output.output, &vn);
            }
            output::print(&output::one(output.output, &vn, COLUMNS)?)
        }
        VnCommand::Delete { name, access, output } => {
            let message = client(&access)?.delete_vn(&name).await?;
            output::print(&output::done(output.output, &message)?)
        }
        VnCommand::List { access, output } => {
            let vns = client(&access)?.vns().await?;
            output::print(&output::list(output.output, &vns.items, COLUMNS)?)
        }
    }
}

/// Tells of a gateway that nothing goes to.
fn note_idle(format: output::Format, vn: &Vn) {
    if let Some(gateway) = vn.gateway.as_ref().filter(|_| vn.miss != Miss::Gateway) {
        let name = &vn.name;
        let text =
            format!("'{gateway}' carries nothing in VN '{name}' until `weft vn set {name} --miss gateway`");
        output::note(format, &text);
    }
}
