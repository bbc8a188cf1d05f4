//! The VXLAN device of the device path: made if missing, never taken from somebody else.

use super::{netlink::Netlink, sys};
use crate::{DatapathError, echo};
use std::{fs, path::PathBuf};

/// Makes sure that the device is there as the programs need it; its index.
pub(super) fn ensure(netlink: &Netlink, name: &str) -> Result<u32, DatapathError> {
    let other = |found: &str| DatapathError::OtherDevice { name: name.to_owned(), found: found.to_owned() };
    if name.is_empty() || name.len() > 15 || name.contains(['/', ' ']) || name.starts_with('.') {
        return Err(other("no name the kernel takes (1 to 15 octets)"));
    }
    let (index, fresh) = match netlink.by_name(name)? {
        Some(link) if link.kind != "vxlan" => {
            return Err(other(if link.kind.is_empty() { "no VXLAN device" } else { &link.kind }));
        }
        Some(link) if !link.collect_metadata || link.port != echo::PORT => {
            return Err(other("a VXLAN device that is not external on port 4789"));
        }
        Some(link) => (link.index, false),
        None => {
            netlink.create_vxlan(name, echo::PORT)?;
            let link = netlink.by_name(name)?.ok_or_else(|| other("gone as soon as it was made"))?;
            (link.index, true)
        }
    };
    let ready = netlink
        .no_addresses(index)
        .and_then(|()| netlink.up(index, echo::PORT))
        .and_then(|()| allow_lookups(name));
    if ready.is_err() && fresh {
        netlink.delete(index)?;
    }
    ready.map(|()| index)
}

/// Route lookups for the direct path enter at this device, and the kernel answers them only where
/// forwarding is on. Nothing is ever forwarded from here: our program drops what it does not deliver.
fn allow_lookups(name: &str) -> Result<(), DatapathError> {
    for family in ["ipv4", "ipv6"] {
        let path = PathBuf::from(format!("/proc/sys/net/{family}/conf/{name}/forwarding"));
        if path.exists() {
            fs::write(&path, "1").map_err(|e| sys::refused(format!("write {}", path.display()), e))?;
        }
    }
    Ok(())
}
