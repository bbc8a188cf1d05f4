//! One module a command.

mod daemon;
mod get;
mod group;
mod nve;
mod oracle;
mod trace;
mod tsi;
mod vn;
mod xtr;

use crate::cli::{Access, Cli, Command};
use crate::{error::CommandError, output};
use clap::CommandFactory;
use serde::Serialize;
use std::{env, future::Future, process::ExitCode};
use weft_api::{Client, Context};

/// Runs what was typed.
pub(crate) fn run(cli: Cli) -> Result<ExitCode, CommandError> {
    match cli.command {
        Command::Oracle(args) => oracle::run(args),
        Command::Nve(args) => nve::run(args),
        Command::Vn(command) => wait(vn::run(command)),
        Command::Group(command) => wait(group::run(command)),
        Command::Xtr(command) => wait(xtr::run(command)),
        Command::Tsi(command) => wait(tsi::run(command)),
        Command::Get(args) => wait(get::run(args)),
        Command::Trace(args) => wait(trace::run(args)),
        Command::Lab(command) => {
            let weft = env::current_exe().map_err(CommandError::Runtime)?;
            return Ok(command.run(weft)?);
        }
        Command::Version { access, output } => wait(version(access, output.output)),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "weft", &mut text);
            output::print(&String::from_utf8_lossy(&text))
        }
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Runs a command that waits for answers.
fn wait<T>(work: impl Future<Output = Result<T, CommandError>>) -> Result<T, CommandError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CommandError::Runtime)?
        .block_on(work)
}

/// A client of the Oracle.
fn client(access: &Access) -> Result<Client, CommandError> {
    Ok(Client::new(&Context::load(&access.context)?.endpoint()?)?)
}

#[derive(Serialize)]
struct Versions {
    weft: &'static str,
    api: u32,
    oracle: Option<String>,
    oracle_api: Option<u32>,
}

async fn version(access: Access, format: output::Format) -> Result<(), CommandError> {
    // Without an Oracle the program still has a version.
    let oracle = match client(&access) {
        Ok(client) => client.version().await.ok(),
        Err(_) => None,
    };
    let versions = Versions {
        weft: env!("CARGO_PKG_VERSION"),
        api: weft_api::API_VERSION,
        oracle: oracle.as_ref().map(|v| v.version.clone()),
        oracle_api: oracle.map(|v| v.api),
    };
    let columns = [("weft", "/weft"), ("api", "/api"), ("oracle", "/oracle"), ("oracle api", "/oracle_api")];
    output::print(&output::one(format, &versions, &columns)?)
}
