//! Tenant systems: a namespace with one interface, `eth0`, connected to its host.

use crate::{
    error::LabError,
    links::{AddressFlags, Links, VethEnd},
    netns::NetNs,
    record::TenantState,
    spec::DeviceKind,
    tap,
};

/// The one interface of every tenant system.
pub(crate) const DEVICE: &str = "eth0";

/// Connects `tenant` to `host`: the host's end, called `name`, is up, the tenant's end is down. A virtual machine's end
/// is its own affair.
pub(crate) fn plug(
    host: &NetNs,
    tenant: Option<&NetNs>,
    name: &str,
    kind: DeviceKind,
) -> Result<(), LabError> {
    let Some(tenant) = tenant.filter(|_| kind != DeviceKind::Vm) else {
        tap::create(host, name)?;
        return port(host, name);
    };
    match kind {
        DeviceKind::Veth => Links::add_veth(
            &VethEnd { namespace: host, name, mac: None, mtu: None },
            &VethEnd { namespace: tenant, name: DEVICE, mac: None, mtu: None },
        )?,
        DeviceKind::Tap => {
            tap::create(host, name)?;
            tap::create(tenant, DEVICE)?;
        }
        DeviceKind::Vm => {}
    }
    port(host, name)
}

fn port(host: &NetNs, name: &str) -> Result<(), LabError> {
    // The host's end is a port, not an interface of the host: it shall send nothing.
    host.sysctl(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1")?;
    Links::open(host)?.up(name)
}

/// Gives the tenant what it was granted and sets it up, as a guest that was told so would.
pub(crate) fn dress(tenant: &NetNs, state: &TenantState, flags: AddressFlags) -> Result<(), LabError> {
    let links = Links::open(tenant)?;
    links.up("lo")?;
    links.set_mac(DEVICE, state.mac)?;
    links.set_mtu(DEVICE, state.mtu)?;
    links.up(DEVICE)?;
    for address in &state.ips {
        links.add_address(DEVICE, *address, flags)?;
    }
    Ok(())
}

/// Takes the interface away at both ends.
pub(crate) fn unplug(
    host: &NetNs,
    tenant: Option<&NetNs>,
    name: &str,
    kind: DeviceKind,
) -> Result<(), LabError> {
    Links::open(host)?.delete(name)?;
    match (kind, tenant) {
        (DeviceKind::Tap, Some(tenant)) => Links::open(tenant)?.delete(DEVICE),
        _ => Ok(()),
    }
}
