//! placeholder
use anyhow::Result;
use std::process::ExitCode;
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}
pub(crate) fn run(_: &Args) -> Result<ExitCode> {
    anyhow::bail!("not yet")
}
