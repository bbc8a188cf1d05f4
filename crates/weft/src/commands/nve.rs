//! `weft nve`.

use super::{client, daemon, wait};
use crate::cli::{NveArgs, NveCommand, NveRun, Tunnel};
use crate::{error::CommandError, output};
use weft_datapath::Path;
use weft_nve::NveOptions;

pub(super) fn run(args: NveArgs) -> Result<(), CommandError> {
    match args.command {
        None => serve(args.run),
        Some(NveCommand::Remove { name, force, access, output }) => wait(async {
            let message = client(&access)?.remove_nve(&name, force).await?;
            output::print(&output::done(output.output, &message)?)
        }),
    }
}

fn serve(run: NveRun) -> Result<(), CommandError> {
    daemon::log(&run.log);
    let path = |tunnel| match tunnel {
        Tunnel::Direct => Path::Direct,
        Tunnel::Device => Path::Device,
    };
    let options = NveOptions {
        name: run.name,
        data_dir: run.data_dir,
        socket: run.socket,
        join: run.join,
        rlocs: run.rloc.into_iter().collect(),
        uplinks: run.uplink,
        http_listen: run.http_listen,
        pin_dir: run.pin_dir,
        vxlan_device: run.vxlan_device,
        lisp_port: weft_api::LISP_PORT,
        veth_path: path(run.veth_tunnel),
        tap_path: path(run.tap_tunnel),
        tenant_mtu: run.tenant_mtu,
        tls_key_log: run.tls_key_log,
    };
    wait(async { Ok(weft_nve::run(options, daemon::stopped()).await?) })
}
