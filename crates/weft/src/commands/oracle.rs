//! `weft oracle`.

use super::{client, daemon, wait};
use crate::cli::{OracleArgs, OracleCommand, OracleRun};
use crate::error::CommandError;
use crate::output::{self, Format};
use std::{fs, io::Write, os::unix::fs::OpenOptionsExt};
use weft_api::NewToken;
use weft_oracle::OracleOptions;

pub(super) fn run(args: OracleArgs) -> Result<(), CommandError> {
    match args.command {
        None => serve(args.run),
        Some(OracleCommand::Token { access, uses, ttl, vn, rloc, name, output }) => wait(async {
            let some = |vns: Vec<_>| (!vns.is_empty()).then_some(vns);
            let rlocs = (!rloc.is_empty()).then(|| rloc.into_iter().collect());
            let token = NewToken { uses, ttl_s: ttl, vns: some(vn), rlocs, name };
            let reply = client(&access)?.create_token(&token).await?;
            // Alone on its line, so that it can be copied or read by a script.
            match output.output {
                Format::Table => output::print(&format!("{}\n", reply.token)),
                format => output::print(&output::one(format, &reply, &[])?),
            }
        }),
        Some(OracleCommand::Backup { file, access }) => wait(async {
            let backup = client(&access)?.backup().await?;
            let failed = |source| CommandError::Write { path: file.clone(), source };
            // It holds the CA's key.
            let mut out = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&file)
                .map_err(failed)?;
            out.write_all(&backup).and_then(|()| out.sync_all()).map_err(failed)?;
            output::print(&format!("{} octets written to {}\n", backup.len(), file.display()))
        }),
        Some(OracleCommand::Restore { file, data_dir }) => {
            weft_oracle::restore(&file, &data_dir)?;
            output::print(&format!("{} restored into {}\n", file.display(), data_dir.display()))
        }
    }
}

fn serve(run: OracleRun) -> Result<(), CommandError> {
    daemon::log(&run.log);
    let mut options = OracleOptions::new(run.data_dir, run.name);
    if !run.listen.is_empty() {
        options.listen = run.listen;
    }
    options.session_port = run.session_port;
    options.lisp_port = run.lisp_port;
    options.api_port = run.api_port;
    options.metrics = Some(run.http_listen);
    options.advertise = run.advertise;
    options.shards = run.shards;
    options.tls_key_log = run.tls_key_log;
    let runtime = tokio::runtime::Runtime::new().map_err(CommandError::Runtime)?;
    Ok(runtime.block_on(weft_oracle::run(options, daemon::stopped()))?)
}
