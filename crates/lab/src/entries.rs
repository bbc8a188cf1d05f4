//! Neighbour and forwarding entries of one namespace, by netlink.

use crate::{error::LabError, links::Links};
use futures_util::TryStreamExt as _;
use netlink_packet_route::{
    AddressFamily,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
};
use rtnetlink::Error;
use std::net::IpAddr;
use weft_model::MacAddr;

impl Links {
    /// Adds a permanent neighbour entry.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add_neighbour(&self, name: &str, ip: IpAddr, mac: MacAddr) -> Result<(), LabError> {
        let index = self.index(name)?;
        let request = self
            .handle
            .neighbours()
            .add(index, ip)
            .link_layer_address(&mac.octets())
            .state(NeighbourState::Permanent)
            .replace();
        self.wait(|| format!("add the neighbour {ip} at {mac} to {name}"), request.execute())
    }

    /// The MAC address that `name`'s neighbour table has for `ip`, in a usable state.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn neighbour(&self, name: &str, ip: IpAddr) -> Result<Option<MacAddr>, LabError> {
        let index = self.index(name)?;
        let all: Vec<_> = self.wait(
            || format!("list the neighbours of {name}"),
            self.handle.neighbours().get().execute().try_collect(),
        )?;
        let mut mac = None;
        for entry in all.iter().filter(|entry| entry.header.ifindex == index) {
            if !entry.attributes.iter().any(|a| neighbour_is(a, ip)) {
                continue;
            }
            mac = entry.attributes.iter().find_map(|attribute| match attribute {
                NeighbourAttribute::LinkLayerAddress(bytes) => {
                    <[u8; 6]>::try_from(bytes.as_slice()).ok().map(MacAddr)
                }
                _ => None,
            });
        }
        Ok(mac)
    }

    /// Removes every neighbour entry of `name` that is no permanent one.
    ///
    /// # Errors
    /// When there is no such device or the kernel refuses.
    pub fn flush_neighbours(&self, name: &str) -> Result<(), LabError> {
        let index = self.index(name)?;
        let what = || format!("flush the neighbours of {name}");
        let all: Vec<_> = self.wait(what, self.handle.neighbours().get().execute().try_collect())?;
        for entry in all {
            let fixed = matches!(entry.header.state, NeighbourState::Permanent | NeighbourState::Noarp);
            if entry.header.ifindex == index && !fixed {
                match self.runtime.block_on(self.handle.neighbours().del(entry).execute()) {
                    // The kernel may have dropped it between the list and now.
                    Err(Error::NetlinkError(message)) if message.raw_code() == -libc::ENOENT => {}
                    other => self.wait(what, std::future::ready(other))?,
                }
            }
        }
        Ok(())
    }

    /// Adds a forwarding entry for `mac` at the VXLAN device `name`: frames go to `remote`. All
    /// zero is the entry for unknown and group addresses; one may be added per remote.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add_remote(&self, name: &str, mac: MacAddr, remote: IpAddr) -> Result<(), LabError> {
        let index = self.index(name)?;
        let mut request = self
            .handle
            .neighbours()
            .add_bridge(index, &mac.octets())
            .destination(remote)
            .flags(NeighbourFlags::Own)
            .state(NeighbourState::Permanent);
        // The kernel wants each further remote of the all-zero entry appended.
        request.message_mut().header.family = AddressFamily::Bridge;
        let request = if mac == MacAddr([0; 6]) { request } else { request.replace() };
        self.wait(|| format!("forward {mac} at {name} to {remote}"), request.execute())
    }

    /// The forwarding entries of device `name`: MAC addresses, and the remote where there is one.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn remotes(&self, name: &str) -> Result<Vec<(MacAddr, Option<IpAddr>)>, LabError> {
        Ok(self.entries(name)?.iter().filter_map(forwarding).collect())
    }

    /// Removes the entries that VXLAN device `name` learned from frames.
    ///
    /// # Errors
    /// When there is no such device or the kernel refuses.
    pub fn forget_remotes(&self, name: &str) -> Result<(), LabError> {
        let what = || format!("forget what {name} learned");
        for entry in self.entries(name)? {
            let learned = entry.header.flags.contains(NeighbourFlags::Own)
                && forwarding(&entry).is_some_and(|(_, remote)| remote.is_some())
                && entry.header.state != NeighbourState::Permanent;
            if learned {
                self.wait(what, self.handle.neighbours().del(entry).execute())?;
            }
        }
        Ok(())
    }

    fn entries(&self, name: &str) -> Result<Vec<NeighbourMessage>, LabError> {
        let index = self.index(name)?;
        let request = self.handle.neighbours().get().set_address_family(AddressFamily::Bridge);
        let mut all: Vec<_> =
            self.wait(|| format!("list the forwarding entries of {name}"), request.execute().try_collect())?;
        all.retain(|entry| entry.header.ifindex == index);
        Ok(all)
    }

    /// Adds `mac` to the table of the bridge that `name` is a port of, as a static local entry.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add_bridge_entry(&self, name: &str, mac: MacAddr) -> Result<(), LabError> {
        let index = self.index(name)?;
        let request = self
            .handle
            .neighbours()
            .add_bridge(index, &mac.octets())
            .flags(NeighbourFlags::Controller)
            .state(NeighbourState::Noarp)
            .replace();
        self.wait(|| format!("add {mac} at the bridge port {name}"), request.execute())
    }

    /// Removes `mac` from the table of the bridge that `name` is a port of.
    ///
    /// # Errors
    /// When it is not there or the kernel refuses.
    pub fn delete_bridge_entry(&self, name: &str, mac: MacAddr) -> Result<(), LabError> {
        let index = self.index(name)?;
        let mut entry = self.handle.neighbours().add_bridge(index, &mac.octets());
        let mut message = entry.message_mut().clone();
        message.header.flags = NeighbourFlags::Controller;
        self.wait(|| format!("remove {mac} from {name}"), self.handle.neighbours().del(message).execute())
    }
}

fn forwarding(entry: &NeighbourMessage) -> Option<(MacAddr, Option<IpAddr>)> {
    let mac = entry.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => <[u8; 6]>::try_from(bytes.as_slice()).ok(),
        _ => None,
    })?;
    // In the bridge family the address has no family of its own: its length tells.
    let remote = entry.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
            let v4 = <[u8; 4]>::try_from(bytes.as_slice()).map(IpAddr::from);
            v4.or_else(|_| <[u8; 16]>::try_from(bytes.as_slice()).map(IpAddr::from)).ok()
        }
        _ => None,
    });
    Some((MacAddr(mac), remote))
}

fn neighbour_is(attribute: &NeighbourAttribute, ip: IpAddr) -> bool {
    match (attribute, ip) {
        (NeighbourAttribute::Destination(NeighbourAddress::Inet(a)), IpAddr::V4(b)) => *a == b,
        (NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)), IpAddr::V6(b)) => *a == b,
        _ => false,
    }
}
