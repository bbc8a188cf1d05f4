//! Removing what another version left, whose maps this one cannot read: by its pins alone.

use super::{Kernel, OpenOptions, netlink::Netlink, sys};
use crate::DatapathError;
use std::{fs, io, os::fd::AsFd as _, path::Path};

impl Kernel {
    /// Removes the pins of every version under the pin directory, and the VXLAN device; the kernel detaches
    /// the programs soon after. For what [`Kernel::open`] refuses to adopt; else open, and
    /// [`Kernel::uninstall`], which knows whose namespace it is in.
    ///
    /// # Errors
    /// [`DatapathError::InUse`], or what the kernel says.
    pub fn uninstall_by_pins(options: &OpenOptions) -> Result<(), DatapathError> {
        let root = &options.pin_dir;
        let lock = fs::File::open(root).map_err(|e| failed("open", root, e))?;
        if !sys::lock(lock.as_fd()).map_err(|e| failed("lock", root, e))? {
            return Err(DatapathError::InUse(root.clone()));
        }
        // First, so that it is never there without our program.
        let netlink = Netlink::open()?;
        match netlink.by_name(&options.vxlan_device)? {
            Some(link) if link.kind == "vxlan" && link.collect_metadata => netlink.delete(link.index)?,
            _ => {}
        }
        for entry in fs::read_dir(root).map_err(|e| failed("read", root, e))?.flatten() {
            let version = entry.path();
            if !entry.file_name().to_string_lossy().starts_with("abi_") || !sys::is_bpffs(&version)? {
                continue;
            }
            // Links first: no program is left without its maps.
            for dir in [version.join("links"), version.join("maps")] {
                for pin in fs::read_dir(&dir).into_iter().flatten().flatten() {
                    // What is behind a tenant's device would reach the host without a program.
                    let name = pin.file_name().to_string_lossy().into_owned();
                    if let Some(index) = name.strip_prefix("vap_").and_then(|index| index.parse().ok()) {
                        netlink.down(index)?;
                    }
                    fs::remove_file(pin.path()).map_err(|e| failed("remove", &pin.path(), e))?;
                }
                if dir.exists() {
                    fs::remove_dir(&dir).map_err(|e| failed("remove", &dir, e))?;
                }
            }
            fs::remove_dir(&version).map_err(|e| failed("remove", &version, e))?;
        }
        let _busy_is_fine = fs::remove_dir(root);
        Ok(())
    }
}

fn failed(doing: &str, path: &Path, e: io::Error) -> DatapathError {
    sys::refused(format!("{doing} {}", path.display()), e)
}
