//! Taking an NVE off its host: what outlives the agent on purpose.

use super::{NveError, devices::Links, host::privileged, state::DataDir};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use std::{fs, os::unix::net::UnixStream, path::PathBuf};
use weft_datapath::{Datapath, DatapathError, Kernel, OpenOptions};

/// What to take off.
#[derive(Clone, Debug)]
pub struct UninstallOptions {
    /// Where identity and attachments are kept.
    pub data_dir: PathBuf,
    /// The local API's unix socket: an agent that serves it is running.
    pub socket: PathBuf,
    /// Where the data plane is pinned.
    pub pin_dir: PathBuf,
    /// Name of the VXLAN device.
    pub vxlan_device: String,
    /// Identity and attachments too.
    pub purge: bool,
}

/// What was taken off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uninstalled {
    /// There was a data plane.
    pub data_plane: bool,
    /// There were files, and they were to be removed.
    pub files: bool,
}

/// Removes programs, maps and the VXLAN device, and with `purge` what the NVE kept on disk. The devices of
/// tenants are set down first: without a program they would reach the host.
///
/// # Errors
/// [`NveError::Running`] while an agent runs, and what the kernel says.
pub async fn uninstall(options: UninstallOptions) -> Result<Uninstalled, NveError> {
    if !privileged() {
        return Err(NveError::Privileges);
    }
    let data = if options.data_dir.is_dir() {
        match DataDir::open(&options.data_dir) {
            Err(NveError::DataDirInUse { path }) => return Err(NveError::Running { path }),
            data => Some(data?),
        }
    } else {
        None
    };
    if UnixStream::connect(&options.socket).is_ok() {
        return Err(NveError::Running { path: options.socket });
    }
    let mut done = Uninstalled::default();
    // Opening would mount a file system where there is none.
    if statfs(&options.pin_dir).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC) {
        let open = OpenOptions {
            pin_dir: options.pin_dir,
            vxlan_device: options.vxlan_device,
            ..OpenOptions::default()
        };
        remove(open).await?;
        done.data_plane = true;
    }
    if let Some(data) = data.filter(|_| options.purge) {
        done.files = data.purge()?;
    }
    Ok(done)
}

async fn remove(options: OpenOptions) -> Result<(), NveError> {
    match Kernel::open(&options) {
        Ok(kernel) => {
            let links = Links::asking()?;
            for device in kernel.observed()?.vaps.into_keys() {
                if let Err(error) = links.set(device, false).await {
                    tracing::warn!(%error, device = device.0, "cannot set down; what is behind it reaches this host");
                }
            }
            Ok(kernel.uninstall()?)
        }
        Err(DatapathError::InUse(path)) => Err(NveError::Running { path }),
        Err(DatapathError::OtherAbi { .. } | DatapathError::OtherMap { .. }) => {
            Ok(Kernel::uninstall_by_pins(&options)?)
        }
        Err(error) => Err(error.into()),
    }
}

impl DataDir {
    /// Removes what an agent wrote; whether there was anything. What else is there stays.
    fn purge(self) -> Result<bool, NveError> {
        let mut found = false;
        for name in ["identity.json", "identity.joining", "state.json", "policies.json", "start.json", "lock"]
        {
            let file = self.file(name);
            if file.exists() {
                fs::remove_file(&file).map_err(NveError::file("remove", &file))?;
                found |= name != "lock";
            }
        }
        let _not_empty_is_fine = fs::remove_dir(self.path());
        Ok(found)
    }
}
