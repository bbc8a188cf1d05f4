//! `weft nve`.

use super::{client, daemon, wait};
use crate::cli::{Installed, NveArgs, NveCommand, NveRun, Tunnel};
use crate::{error::CommandError, output};
use weft_api::Message;
use weft_datapath::Path;
use weft_nve::{NveOptions, UninstallOptions};

pub(super) fn run(args: NveArgs) -> Result<(), CommandError> {
    match args.command {
        None => serve(args.run),
        Some(NveCommand::Remove { name, force, access, output }) => wait(async {
            let message = client(&access)?.remove_nve(&name, force).await?;
            output::print(&output::done(output.output, &message)?)
        }),
        Some(NveCommand::Uninstall { purge, installed, output }) => wait(async {
            let done = weft_nve::uninstall(options(installed, purge)).await?;
            let message = match (done.data_plane, done.files) {
                (true, true) => "the data plane, the identity and the attachments are removed",
                (true, false) => "the data plane is removed",
                (false, true) => "the identity and the attachments are removed; there was no data plane",
                (false, false) => "there was nothing to remove",
            };
            output::print(&output::done(output.output, &Message { message: message.to_owned() })?)
        }),
    }
}

fn options(installed: Installed, purge: bool) -> UninstallOptions {
    let Installed { data_dir, socket, pin_dir, vxlan_device } = installed;
    UninstallOptions { data_dir, socket, pin_dir, vxlan_device, purge }
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
        peer_port: run.peer_port,
        veth_path: path(run.veth_tunnel),
        tap_path: path(run.tap_tunnel),
        tenant_mtu: run.tenant_mtu,
        tls_key_log: run.tls_key_log,
    };
    wait(async { Ok(weft_nve::run(options, daemon::stopped()).await?) })
}
