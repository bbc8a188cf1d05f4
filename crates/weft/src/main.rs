//! `weft`: the Oracle, the NVE and the operator's commands in one binary.
#![forbid(unsafe_code)]

mod cli;
mod commands;
mod error;
mod output;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let format = cli.format();
    match commands::run(cli) {
        Ok(code) => code,
        Err(error) => {
            output::refuse(format, &error);
            ExitCode::FAILURE
        }
    }
}
