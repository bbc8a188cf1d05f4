//! `weft`: the Oracle, the NVE and the operator's commands in one binary.
#![forbid(unsafe_code)]

mod cli;
mod commands;
mod error;
mod output;

use std::process::ExitCode;

/// Exit status when the command line is wrong, as is custom.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = match cli::Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        // --help and --version come this way too.
        Err(shown) if !shown.use_stderr() => {
            return shown.print().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
        }
        Err(error) => {
            output::refuse(
                output::Format::wanted(std::env::args_os().map(|arg| arg.to_string_lossy().into_owned())),
                &cli::misuse(&error),
            );
            return ExitCode::from(USAGE);
        }
    };
    let format = cli.format();
    match commands::run(cli) {
        Ok(code) => code,
        Err(error) => {
            output::refuse(format, &error);
            ExitCode::FAILURE
        }
    }
}
