//! Who has which underlay address, and the namespaces, devices and addresses that make it so.

use crate::{
    clock,
    error::LabError,
    links::{AddressFlags, BridgePort, Links, VethEnd},
    netns::NetNs,
    spec::{DeviceKind, LabSpec, NodeName, RlocFamily, Wiring},
};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The device of every node that leads to the underlay.
pub(crate) const UPLINK: &str = "eth0";
/// The bridge in the fabric's namespace.
pub(crate) const BRIDGE: &str = "br0";

/// The namespace of `node`.
pub(crate) fn namespace(lab: &str, node: &str) -> String {
    format!("{lab}.{node}")
}

/// The underlay families in use; IPv4 documentation addresses when the file names none.
fn subnets(spec: &LabSpec) -> Vec<IpNet> {
    let underlay = &spec.underlay;
    let named: Vec<IpNet> =
        underlay.ipv4.map(IpNet::V4).into_iter().chain(underlay.ipv6.map(IpNet::V6)).collect();
    if named.is_empty() {
        return ipnet::Ipv4Net::new(Ipv4Addr::new(192, 0, 2, 0), 24).map(IpNet::V4).into_iter().collect();
    }
    named
}

/// The addresses of `node` on the underlay, one per family. Hosts count up from 1, Oracles come
/// after a gap of 100 where the subnet has room, so that adding a host moves nobody. An Oracle on a
/// host has an address of its own there, because both it and the NVE serve LISP's port.
pub(crate) fn addresses(spec: &LabSpec, node: &NodeName) -> Vec<IpNet> {
    let position = match spec.hosts.keys().position(|host| host == node) {
        Some(at) => at + 1,
        None => match spec.oracles.keys().position(|oracle| oracle == node) {
            Some(at) => spec.hosts.len().max(100) + 1 + at,
            None => return Vec::new(),
        },
    };
    subnets(spec)
        .into_iter()
        .filter_map(|net| {
            let size = 32u32.min(u32::from(net.max_prefix_len() - net.prefix_len()));
            // A small subnet has no gap: the Oracle follows the hosts.
            let position = match position {
                far if size < 8 && far > 100 => far - spec.hosts.len().max(100) + spec.hosts.len(),
                near => near,
            };
            let position = u32::try_from(position).ok()?;
            let ip = match net.network() {
                IpAddr::V4(first) => IpAddr::V4(Ipv4Addr::from_bits(first.to_bits() + position)),
                IpAddr::V6(first) => IpAddr::V6(Ipv6Addr::from_bits(first.to_bits() + u128::from(position))),
            };
            IpNet::new(ip, net.prefix_len()).ok()
        })
        .collect()
}

/// The RLOC of `host`; the IPv4 one of two.
pub(crate) fn rloc(spec: &LabSpec, host: &NodeName) -> Option<IpAddr> {
    let all = addresses(spec, host);
    let wanted = spec.underlay.rloc.unwrap_or(if all.iter().any(|net| net.addr().is_ipv4()) {
        RlocFamily::Ipv4
    } else {
        RlocFamily::Ipv6
    });
    all.iter().map(IpNet::addr).find(|ip| ip.is_ipv4() == (wanted != RlocFamily::Ipv6))
}

/// Its other RLOC, where it has one of each family.
pub(crate) fn second_rloc(spec: &LabSpec, host: &NodeName) -> Option<IpAddr> {
    let both = spec.underlay.rloc == Some(RlocFamily::Both);
    addresses(spec, host).iter().map(IpNet::addr).find(|ip| both && ip.is_ipv6())
}

/// All namespaces of a lab, in the order they are made.
pub(crate) fn namespaces(lab: &str, spec: &LabSpec) -> Vec<String> {
    let fabric = (spec.underlay.wiring == Wiring::Bridge).then_some("fabric");
    let oracles = spec.oracles.iter().filter(|(_, oracle)| oracle.on.is_none()).map(|(name, _)| name);
    // A virtual machine has a network of its own.
    let tenants = spec.tenants.iter().filter(|(_, what)| what.device != DeviceKind::Vm).map(|(name, _)| name);
    fabric
        .into_iter()
        .chain(oracles.chain(spec.hosts.keys()).chain(tenants).map(NodeName::as_str))
        .map(|node| namespace(lab, node))
        .collect()
}

/// Joins hosts and Oracles. Their namespaces exist.
pub(crate) fn wire(lab: &str, spec: &LabSpec) -> Result<(), LabError> {
    let mtu = spec.underlay.mtu;
    let open = |node: &str| NetNs::open(&namespace(lab, node));
    let apart = spec.oracles.iter().filter(|(_, oracle)| oracle.on.is_none()).map(|(name, _)| name);
    let nodes: Vec<&NodeName> = spec.hosts.keys().chain(apart).collect();
    match spec.underlay.wiring {
        Wiring::Bridge => {
            let fabric = open("fabric")?;
            // The bridge only forwards: it shall send nothing of its own into captures.
            fabric.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
            fabric.sysctl("net/ipv6/conf/all/disable_ipv6", "1")?;
            let links = Links::open(&fabric)?;
            links.add_bridge(BRIDGE)?;
            links.set_mtu(BRIDGE, mtu)?;
            for node in &nodes {
                let namespace = open(node.as_str())?;
                let port = node.as_str();
                Links::add_veth(
                    &VethEnd { namespace: &fabric, name: port, mac: None, mtu: Some(mtu) },
                    &VethEnd { namespace: &namespace, name: UPLINK, mac: None, mtu: Some(mtu) },
                )?;
                links.set_bridge(port, BRIDGE, BridgePort::default())?;
                links.up(port)?;
            }
        }
        Wiring::Direct => {
            if let [one, other] = nodes.as_slice() {
                let (one, other) = (open(one.as_str())?, open(other.as_str())?);
                Links::add_veth(
                    &VethEnd { namespace: &one, name: UPLINK, mac: None, mtu: Some(mtu) },
                    &VethEnd { namespace: &other, name: UPLINK, mac: None, mtu: Some(mtu) },
                )?;
            }
        }
    }
    for node in &nodes {
        let namespace = open(node.as_str())?;
        let links = Links::open(&namespace)?;
        links.up("lo")?;
        links.up(UPLINK)?;
        let guests = spec.oracles.iter().filter(|(_, oracle)| oracle.on.as_ref() == Some(*node));
        for name in std::iter::once(*node).chain(guests.map(|(name, _)| name)) {
            for address in addresses(spec, name) {
                links.add_address(UPLINK, address, AddressFlags::NoDetection)?;
            }
        }
    }
    for node in nodes {
        let links = Links::open(&open(node.as_str())?)?;
        links.wait_running(UPLINK)?;
        for address in addresses(spec, node) {
            wait_usable(&links, UPLINK, address.addr())?;
        }
        if spec.underlay.wiring == Wiring::Bridge {
            Links::open(&open("fabric")?)?.wait_running(node.as_str())?;
        }
    }
    Ok(())
}

/// Waits until the kernel answers for `ip`: also without duplicate address detection an IPv6
/// address is tentative until a worker of the kernel has joined its solicited-node group.
pub(crate) fn wait_usable(links: &Links, device: &str, ip: IpAddr) -> Result<(), LabError> {
    let usable = clock::until(clock::CEILING, || {
        let found = links.addresses(device)?.into_iter().find(|state| state.address == ip);
        Ok::<_, LabError>(found.filter(|state| !state.tentative).map(|_| ()))
    })?;
    let ceiling = clock::CEILING;
    usable.ok_or_else(|| LabError::Timeout { what: format!("the use of address {ip}"), ceiling })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(underlay: &str) -> LabSpec {
        LabSpec::parse(&format!(
            "{{name: t, underlay: {underlay}, oracles: {{oracle: {{}}}}, hosts: {{h1: {{}}, h2: {{}}}}}}"
        ))
        .unwrap()
    }

    fn of(spec: &LabSpec, node: &str) -> Vec<String> {
        addresses(spec, &node.parse().unwrap()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn addresses_of_both_families() {
        let both = spec("{ipv4: 192.0.2.0/24, ipv6: '2001:db8::/64', rloc: ipv6}");
        assert_eq!(of(&both, "h2"), ["192.0.2.2/24", "2001:db8::2/64"]);
        assert_eq!(of(&both, "oracle"), ["192.0.2.101/24", "2001:db8::65/64"]);
        assert_eq!(rloc(&both, &"h1".parse().unwrap()), Some("2001:db8::1".parse().unwrap()));
        let v6 = spec("{ipv6: '2001:db8::/64'}");
        assert_eq!(rloc(&v6, &"h1".parse().unwrap()), Some("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn a_virtual_machine_has_no_namespace() {
        let text = "{name: t, hosts: {h1: {}}, vns: {red: {subnets: []}},
            tenants: {a: {host: h1, vn: red}, v: {host: h1, vn: red, device: vm}}}";
        let spec = LabSpec::parse(text).unwrap();
        assert_eq!(namespaces("t", &spec), ["t.fabric", "t.h1", "t.a"]);
    }

    #[test]
    fn small_subnets_have_no_gap() {
        let small = spec("{ipv4: 192.0.2.0/29}");
        assert_eq!(of(&small, "oracle"), ["192.0.2.3/29"]);
    }
}
