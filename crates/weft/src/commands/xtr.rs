//! `weft xtr`.

use super::client;
use crate::cli::{XtrAdd, XtrCommand};
use crate::error::CommandError;
use crate::output::{self, Column};
use std::path::Path;
use weft_api::NewXtr;
use weft_model::SiteId;

/// How plain xTRs are shown.
pub(super) const COLUMNS: &[Column] = &[
    ("name", "/name"),
    ("xtr-id", "/xtr_id"),
    ("rlocs", "/rlocs"),
    ("algorithm", "/algorithm"),
    ("vns", "/vns"),
    ("subscriptions", "/subscriptions"),
];

pub(super) async fn run(command: XtrCommand) -> Result<(), CommandError> {
    match command {
        XtrCommand::Add(add) => {
            let XtrAdd { name, rloc, xtr_id, site_id, key_id, algorithm, key_file, vn, .. } = add;
            let new = NewXtr {
                name,
                rlocs: rloc.into_iter().collect(),
                xtr_id,
                site_id: SiteId(site_id),
                key_id,
                algorithm,
                key: secret(&key_file)?,
                pubsub_key: add.pubsub_key_file.as_deref().map(secret).transpose()?,
                vns: vn.into_iter().collect(),
            };
            let xtr = client(&add.access)?.create_xtr(&new).await?;
            output::print(&output::one(add.output.output, &xtr, COLUMNS)?)
        }
        XtrCommand::Remove { name, force, access, output } => {
            let message = client(&access)?.remove_xtr(&name, force).await?;
            output::print(&output::done(output.output, &message)?)
        }
    }
}

/// The first line of a file.
fn secret(path: &Path) -> Result<String, CommandError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| CommandError::Read { path: path.to_owned(), source })?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
