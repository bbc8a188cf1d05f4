//! The VXLAN device of the device path: made if missing, never taken from somebody else.

use super::{netlink::Netlink, sys};
use crate::{DatapathError, echo};
use std::{fs, path::PathBuf};

/// The device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Device {
    pub(super) index: u32,
    /// Made just now.
    pub(super) fresh: bool,
}

/// Makes sure that the device is there, maybe down: nothing may pass it before our program is attached.
pub(super) fn ensure(netlink: &Netlink, name: &str) -> Result<Device, DatapathError> {
    let other = |found: &str| DatapathError::OtherDevice { name: name.to_owned(), found: found.to_owned() };
    if name.is_empty() || name.len() > 15 || name.contains(['/', ' ']) || name.starts_with('.') {
        return Err(other("no name the kernel takes (1 to 15 octets)"));
    }
    match netlink.by_name(name)? {
        Some(link) if link.kind != "vxlan" => {
            Err(other(if link.kind.is_empty() { "no VXLAN device" } else { &link.kind }))
        }
        Some(link) if !link.collect_metadata || link.port != echo::PORT => {
            Err(other("a VXLAN device that is not external on port 4789"))
        }
        Some(link) => Ok(Device { index: link.index, fresh: false }),
        None => {
            netlink.create_vxlan(name, echo::PORT)?;
            let link = netlink.by_name(name)?.ok_or_else(|| other("gone as soon as it was made"))?;
            Ok(Device { index: link.index, fresh: true })
        }
    }
}

/// Brings the device up as the programs need it.
pub(super) fn start(netlink: &Netlink, name: &str, index: u32) -> Result<(), DatapathError> {
    netlink.no_addresses(index)?;
    netlink.up(index, echo::PORT)?;
    allow_lookups(name)
}

/// Whether the device is there, with this index, as [`start`] left it.
pub(super) fn is_started(netlink: &Netlink, name: &str, index: u32) -> Result<bool, DatapathError> {
    let link = netlink.by_name(name)?;
    let on = |path: &PathBuf| fs::read_to_string(path).is_ok_and(|text| text.trim() == "1");
    Ok(link.is_some_and(|link| link.index == index && link.up) && lookups(name).iter().all(on))
}

/// Route lookups for the direct path enter at this device, and the kernel answers them only where
/// forwarding is on. Nothing is ever forwarded from here: our program drops what it does not deliver.
fn allow_lookups(name: &str) -> Result<(), DatapathError> {
    for path in lookups(name) {
        fs::write(&path, "1").map_err(|e| sys::refused(format!("write {}", path.display()), e))?;
    }
    Ok(())
}

/// The settings, of the families that this host has.
fn lookups(name: &str) -> Vec<PathBuf> {
    let of = |family| PathBuf::from(format!("/proc/sys/net/{family}/conf/{name}/forwarding"));
    ["ipv4", "ipv6"].into_iter().map(of).filter(|path| path.exists()).collect()
}
