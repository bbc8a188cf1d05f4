//! `weft vn`.

use super::client;
use crate::cli::VnCommand;
use crate::error::CommandError;
use crate::output::{self, Column};
use weft_api::{NewVn, VnChange};
use weft_model::{Subnets, SubnetsError};

/// How VNs are shown.
pub(super) const COLUMNS: &[Column] = &[
    ("name", "/name"),
    ("vni", "/vni"),
    ("subnets", "/subnets"),
    ("learning", "/learning"),
    ("reply", "/reply"),
    ("bum", "/bum"),
];

pub(super) async fn run(command: VnCommand) -> Result<(), CommandError> {
    match command {
        VnCommand::Create { name, subnet, vni, learning, reply, bum, access, output } => {
            let subnets =
                Subnets::new(subnet).map_err(|e: SubnetsError| CommandError::Refused(e.to_string()))?;
            let vn = client(&access)?.create_vn(&NewVn { name, vni, subnets, learning, reply, bum }).await?;
            output::print(&output::one(output.output, &vn, COLUMNS)?)
        }
        VnCommand::Set { name, change, access, output } => {
            let crate::cli::VnChange { learning, reply, bum } = change;
            let vn = client(&access)?.change_vn(&name, &VnChange { learning, reply, bum }).await?;
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
