//! Virtual machines as tenant systems: QEMU, which translates the guest's code, so that it runs anywhere, on a TAP in
//! the host's namespace.

pub(crate) mod control;
mod cpio;
pub mod image;
pub(crate) mod qmp;

use crate::{commands::Files, record::TenantState, spec::NodeName};
use image::Image;
use std::{ffi::OsString, path::PathBuf, time::Duration};

/// The emulator.
pub(crate) const QEMU: &str = "qemu-system-x86_64";
/// How long a machine may take to boot where others build at the same time.
pub(crate) const BOOT: Duration = Duration::from_secs(120);
/// After how long the agent in a machine ends a command.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// The machine's memory, MiB.
const MEMORY: u32 = 96;

/// The sockets and the log of the QEMU that has `tenant` on `host`: while it moves there are two.
#[derive(Clone, Debug)]
pub(crate) struct VmFiles {
    /// Its daemon's name.
    pub(crate) daemon: String,
    /// QEMU's own protocol.
    pub(crate) qmp: PathBuf,
    /// The machine's agent.
    pub(crate) control: PathBuf,
    /// What the machine's kernel says.
    console: PathBuf,
}

impl VmFiles {
    pub(crate) fn of(files: &Files, tenant: &str, host: &str) -> Self {
        // Names have no dots, so this is no other daemon's.
        let daemon = format!("{tenant}.{host}");
        let path = |ending: &str| files.run.join(format!("{daemon}.{ending}"));
        Self { qmp: path("qmp"), control: path("serial"), console: path("console.log"), daemon }
    }
}

/// QEMU's command line. With `incoming` the machine comes from another host and does not boot.
pub(crate) fn line(
    image: &Image,
    files: &VmFiles,
    name: &NodeName,
    state: &TenantState,
    incoming: bool,
) -> Vec<OsString> {
    let addresses: Vec<String> = state.ips.iter().map(ToString::to_string).collect();
    // A machine that fails ends: then its QEMU does, and that is seen.
    let append = format!("console=ttyS0 quiet panic=-1 -- {name} {} {}", state.mtu, addresses.join(" "));
    let path = |before: &str, path: &PathBuf, after: &str| -> OsString {
        // A comma ends a value for QEMU; two are one.
        format!("{before}{}{after}", path.display().to_string().replace(',', ",,")).into()
    };
    let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    let mut line =
        words(&[QEMU, "-name", name.as_str(), "-nodefaults", "-no-user-config", "-display", "none"]);
    line.extend(words(&["-machine", "q35", "-accel", "tcg", "-m", &MEMORY.to_string(), "-no-reboot"]));
    line.extend([OsString::from("-kernel"), image.kernel.clone().into()]);
    line.extend([OsString::from("-initrd"), image.initramfs.clone().into()]);
    line.extend(words(&["-append", &append]));
    line.extend(["-chardev".into(), path("file,id=console,path=", &files.console, ",append=on")]);
    line.extend(words(&["-device", "isa-serial,chardev=console"]));
    line.extend(["-chardev".into(), path("socket,id=control,path=", &files.control, ",server=on,wait=off")]);
    line.extend(words(&["-device", "isa-serial,chardev=control"]));
    line.extend(["-qmp".into(), path("unix:", &files.qmp, ",server=on,wait=off")]);
    line.extend(words(&["-netdev", &format!("tap,id=net,ifname={name},script=no,downscript=no,vhost=off")]));
    line.extend(words(&["-device", &format!("virtio-net-pci,netdev=net,mac={},romfile=", state.mac)]));
    if incoming {
        line.extend(words(&["-incoming", "defer"]));
    }
    line
}
