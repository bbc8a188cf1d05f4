//! Devices, addresses and forwarding entries of one namespace, by netlink.

use crate::{clock, error::LabError, netns::NetNs};
use futures_util::TryStreamExt as _;
use netlink_packet_route::{
    address::{AddressAttribute, AddressFlags as KernelFlags},
    link::{
        BridgePortState, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoVeth, LinkAttribute, LinkInfo,
        LinkMessage, State, Stats64,
    },
};
use rtnetlink::{
    Error, Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVxlan,
};
use std::net::IpAddr;
use weft_model::MacAddr;

/// A netlink session to one namespace. The socket stays in that namespace whichever thread uses it.
#[derive(Debug)]
pub struct Links {
    namespace: NetNs,
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) handle: Handle,
}

/// One end of a veth pair.
#[derive(Clone, Debug)]
pub struct VethEnd<'a> {
    /// The namespace it appears in.
    pub namespace: &'a NetNs,
    /// The device's name there.
    pub name: &'a str,
    /// Its MAC address; the kernel chooses when absent.
    pub mac: Option<MacAddr>,
    /// Its MTU; 1500 when absent.
    pub mtu: Option<u32>,
}

/// How an address is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressFlags {
    /// As on any host: an IPv6 address goes through duplicate address detection first.
    Detect,
    /// Usable at once, without duplicate address detection: for the underlay.
    NoDetection,
}

/// Bridge port settings that differ from the kernel's defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BridgePort {
    /// Whether source addresses are learned from frames.
    pub learning: Option<bool>,
    /// Whether frames to unknown unicast addresses leave through it.
    pub unicast_flood: Option<bool>,
}

/// A VXLAN device for the kernel's own bridge, as peers of the benches use it.
#[derive(Clone, Copy, Debug)]
pub struct Vxlan<'a> {
    /// The device's name.
    pub name: &'a str,
    /// The VNI.
    pub vni: u32,
    /// The outer source address.
    pub local: IpAddr,
    /// The outer source's device.
    pub dev: &'a str,
    /// Whether remote addresses are learned from frames.
    pub learning: bool,
}

impl Links {
    /// Opens a session in `namespace`.
    ///
    /// # Errors
    /// When the namespace cannot be entered or the kernel refuses a netlink socket.
    pub fn open(namespace: &NetNs) -> Result<Self, LabError> {
        let refused = |source| LabError::Namespace {
            name: namespace.name().to_owned(),
            what: "open a netlink socket in it",
            source,
        };
        let (runtime, handle) = namespace
            .run(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
                let (connection, handle, _) = {
                    let _inside = runtime.enter();
                    rtnetlink::new_connection()?
                };
                runtime.spawn(connection);
                Ok((runtime, handle))
            })?
            .map_err(refused)?;
        Ok(Self { namespace: namespace.clone(), runtime, handle })
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &NetNs {
        &self.namespace
    }

    pub(crate) fn wait<T>(
        &self,
        what: impl FnOnce() -> String,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, LabError> {
        self.runtime.block_on(request).map_err(|error| LabError::Netlink {
            namespace: self.namespace.name().to_owned(),
            what: what(),
            reason: reason(&error),
        })
    }

    /// The description of device `name`; `None` when there is none.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn find(&self, name: &str) -> Result<Option<LinkMessage>, LabError> {
        let answer =
            self.runtime.block_on(self.handle.link().get().match_name(name.to_owned()).execute().try_next());
        match answer {
            Err(Error::NetlinkError(message)) if message.raw_code() == -libc::ENODEV => Ok(None),
            Err(error) => Err(LabError::Netlink {
                namespace: self.namespace.name().to_owned(),
                what: format!("look up device {name}"),
                reason: reason(&error),
            }),
            Ok(found) => Ok(found),
        }
    }

    /// The index of device `name`.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn index(&self, name: &str) -> Result<u32, LabError> {
        self.find(name)?.map(|link| link.header.index).ok_or_else(|| LabError::Netlink {
            namespace: self.namespace.name().to_owned(),
            what: format!("look up device {name}"),
            reason: "there is no such device".to_owned(),
        })
    }

    /// The MAC address of device `name`.
    ///
    /// # Errors
    /// When there is no such device or it has no Ethernet address.
    pub fn mac(&self, name: &str) -> Result<MacAddr, LabError> {
        let link = self.find(name)?;
        let address = link.iter().flat_map(|link| &link.attributes).find_map(|attribute| match attribute {
            LinkAttribute::Address(bytes) => <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            _ => None,
        });
        address.map(MacAddr).ok_or_else(|| LabError::Netlink {
            namespace: self.namespace.name().to_owned(),
            what: format!("read the MAC address of {name}"),
            reason: "there is no such Ethernet device".to_owned(),
        })
    }

    /// The 64-bit counters of device `name`.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn stats(&self, name: &str) -> Result<Stats64, LabError> {
        let link = self.find(name)?;
        link.iter()
            .flat_map(|link| &link.attributes)
            .find_map(|attribute| match attribute {
                LinkAttribute::Stats64(stats) => Some(*stats),
                _ => None,
            })
            .ok_or_else(|| LabError::Netlink {
                namespace: self.namespace.name().to_owned(),
                what: format!("read the counters of {name}"),
                reason: "there is no such device".to_owned(),
            })
    }

    /// Makes a veth pair, each end in its namespace, both down.
    ///
    /// # Errors
    /// When a name is taken or the kernel refuses.
    pub fn add_veth(near: &VethEnd<'_>, far: &VethEnd<'_>) -> Result<(), LabError> {
        let links = Self::open(near.namespace)?;
        let peer = end(LinkMessageBuilder::<LinkUnspec>::new(), far).setns_by_fd(far.namespace.fd()).build();
        let message = end(LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth), near)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        links.wait(
            || format!("make the veth pair {} and {}/{}", near.name, far.namespace.name(), far.name),
            links.handle.link().add(message).execute(),
        )
    }

    /// Makes a bridge that is up, without spanning tree or multicast snooping.
    ///
    /// # Errors
    /// When the name is taken or the kernel refuses.
    pub fn add_bridge(&self, name: &str) -> Result<(), LabError> {
        let message = LinkBridge::new(name).mcast_snooping(false).up().build();
        self.wait(|| format!("make the bridge {name}"), self.handle.link().add(message).execute())
    }

    /// Makes a VXLAN device (UDP port 4789), down. It sends no UDP checksums, as RFC 7348 section 5
    /// says and Weft does; the kernel's own default is to compute them.
    ///
    /// # Errors
    /// When the name is taken or the kernel refuses.
    pub fn add_vxlan(&self, spec: &Vxlan<'_>) -> Result<(), LabError> {
        let dev = self.index(spec.dev)?;
        let builder = LinkVxlan::new(spec.name, spec.vni).dev(dev).port(4789).learning(spec.learning);
        let builder = match spec.local {
            IpAddr::V4(local) => builder.local(local).udp_csum(false),
            IpAddr::V6(local) => builder.local6(local).udp_zero_csum6_tx(true).udp_zero_csum6_rx(true),
        };
        self.wait(
            || format!("make the VXLAN device {}", spec.name),
            self.handle.link().add(builder.build()).execute(),
        )
    }

    /// Removes device `name`; the other end of a veth goes with it.
    ///
    /// # Errors
    /// When there is no such device or the kernel refuses.
    pub fn delete(&self, name: &str) -> Result<(), LabError> {
        let index = self.index(name)?;
        self.wait(|| format!("remove {name}"), self.handle.link().del(index).execute())
    }

    /// Makes `name` a port of `bridge`.
    ///
    /// # Errors
    /// When either is missing or the kernel refuses.
    pub fn set_bridge(&self, name: &str, bridge: &str, port: BridgePort) -> Result<(), LabError> {
        let (index, controller) = (self.index(name)?, self.index(bridge)?);
        let message = LinkUnspec::new_with_index(index).controller(controller).build();
        self.wait(|| format!("put {name} on {bridge}"), self.handle.link().set(message).execute())?;
        if port == BridgePort::default() {
            return Ok(());
        }
        let mut builder = LinkBridgePort::new(index);
        if let Some(learning) = port.learning {
            builder = builder.append_info_data(InfoBridgePort::Learning(learning));
        }
        if let Some(flood) = port.unicast_flood {
            builder = builder.append_info_data(InfoBridgePort::UnicastFlood(flood));
        }
        self.wait(
            || format!("set up the bridge port {name}"),
            self.handle.link().set_port(builder.build()).execute(),
        )
    }

    /// Waits until frames pass `name`: it has carrier, and where it is a bridge port, forwards. The
    /// kernel sees to both some time after a device is set up, up to a second.
    ///
    /// # Errors
    /// When that does not happen within 30 s.
    pub fn wait_running(&self, name: &str) -> Result<(), LabError> {
        let seen = clock::until(clock::CEILING, || {
            let link = self.find(name)?;
            Ok::<_, LabError>(link.is_some_and(|link| running(&link)).then_some(()))
        })?;
        seen.ok_or_else(|| LabError::Timeout {
            what: format!("carrier of {name} in namespace {}", self.namespace.name()),
            ceiling: clock::CEILING,
        })
    }

    /// Has the bridge port `name` pass frames, or none: at once, its device stays up.
    ///
    /// # Errors
    /// When it is no bridge port, or has no carrier.
    pub fn set_forwarding(&self, name: &str, forwarding: bool) -> Result<(), LabError> {
        // A port that is "disabled" the kernel enables whenever its device changes; one that listens stays so.
        let state = if forwarding { BridgePortState::Forwarding } else { BridgePortState::Listening };
        let message = LinkBridgePort::new(self.index(name)?).state(state).build();
        self.wait(
            || format!("have the bridge port {name} forward: {forwarding}"),
            self.handle.link().set_port(message).execute(),
        )
    }

    /// Takes the addresses learned at the bridge port `name` out of its bridge's table.
    ///
    /// # Errors
    /// When it is no bridge port.
    pub fn flush_port(&self, name: &str) -> Result<(), LabError> {
        let message = LinkBridgePort::new(self.index(name)?).fdb_flush().build();
        self.wait(|| format!("flush the bridge port {name}"), self.handle.link().set_port(message).execute())
    }

    /// Sets `name` up.
    ///
    /// # Errors
    /// When there is no such device or the kernel refuses.
    pub fn up(&self, name: &str) -> Result<(), LabError> {
        let message = LinkUnspec::new_with_index(self.index(name)?).up().build();
        self.wait(|| format!("set {name} up"), self.handle.link().set(message).execute())
    }

    /// Sets `name` down.
    ///
    /// # Errors
    /// When there is no such device or the kernel refuses.
    pub fn down(&self, name: &str) -> Result<(), LabError> {
        let message = LinkUnspec::new_with_index(self.index(name)?).down().build();
        self.wait(|| format!("set {name} down"), self.handle.link().set(message).execute())
    }

    /// Sets the MTU of `name`, in octets of the IP packet.
    ///
    /// # Errors
    /// When there is no such device or the kernel refuses the value.
    pub fn set_mtu(&self, name: &str, mtu: u32) -> Result<(), LabError> {
        let message = LinkUnspec::new_with_index(self.index(name)?).mtu(mtu).build();
        self.wait(|| format!("set the MTU of {name} to {mtu}"), self.handle.link().set(message).execute())
    }

    /// Sets the MAC address of `name`.
    ///
    /// # Errors
    /// When there is no such device or the kernel refuses the address.
    pub fn set_mac(&self, name: &str, mac: MacAddr) -> Result<(), LabError> {
        let message = LinkUnspec::new_with_index(self.index(name)?).address(mac.octets().to_vec()).build();
        self.wait(|| format!("set the MAC of {name} to {mac}"), self.handle.link().set(message).execute())
    }

    /// Adds `address` to `name`.
    ///
    /// # Errors
    /// When it has the address already or the kernel refuses.
    pub fn add_address(
        &self,
        name: &str,
        address: ipnet::IpNet,
        flags: AddressFlags,
    ) -> Result<(), LabError> {
        let index = self.index(name)?;
        let mut request = self.handle.address().add(index, address.addr(), address.prefix_len());
        if flags == AddressFlags::NoDetection && address.addr().is_ipv6() {
            request.message_mut().attributes.push(AddressAttribute::Flags(KernelFlags::Nodad));
        }
        self.wait(|| format!("add {address} to {name}"), request.execute())
    }

    /// The addresses of `name` with whether each is still (or for good) unusable: tentative, or
    /// found to be a duplicate.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn addresses(&self, name: &str) -> Result<Vec<AddressState>, LabError> {
        let index = self.index(name)?;
        let messages: Vec<_> = self.wait(
            || format!("list the addresses of {name}"),
            self.handle.address().get().set_link_index_filter(index).execute().try_collect(),
        )?;
        Ok(messages
            .iter()
            .filter_map(|message| {
                let mut state = AddressState {
                    address: message.attributes.iter().find_map(|a| match a {
                        AddressAttribute::Address(ip) => Some(*ip),
                        _ => None,
                    })?,
                    tentative: false,
                    duplicate: false,
                };
                for attribute in &message.attributes {
                    if let AddressAttribute::Flags(flags) = attribute {
                        state.duplicate = flags.contains(KernelFlags::Dadfailed);
                        state.tentative = flags.contains(KernelFlags::Tentative) && !state.duplicate;
                    }
                }
                Some(state)
            })
            .collect())
    }

    /// Removes `address` from `name`.
    ///
    /// # Errors
    /// When it has no such address.
    pub fn delete_address(&self, name: &str, address: IpAddr) -> Result<(), LabError> {
        let index = self.index(name)?;
        let found: Option<_> = self.wait(
            || format!("list the addresses of {name}"),
            self.handle
                .address()
                .get()
                .set_link_index_filter(index)
                .set_address_filter(address)
                .execute()
                .try_next(),
        )?;
        let Some(message) = found else {
            return Err(LabError::Netlink {
                namespace: self.namespace.name().to_owned(),
                what: format!("remove {address} from {name}"),
                reason: "it has no such address".to_owned(),
            });
        };
        self.wait(|| format!("remove {address} from {name}"), self.handle.address().del(message).execute())
    }
}

/// An address of a device and what duplicate address detection says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressState {
    /// The address.
    pub address: IpAddr,
    /// Detection still runs.
    pub tentative: bool,
    /// Detection found another holder (RFC 4862 section 5.4.5).
    pub duplicate: bool,
}

fn end<T>(builder: LinkMessageBuilder<T>, end: &VethEnd<'_>) -> LinkMessageBuilder<T> {
    let mut builder = builder.name(end.name);
    if let Some(mac) = end.mac {
        builder = builder.address(mac.octets().to_vec());
    }
    if let Some(mtu) = end.mtu {
        builder = builder.mtu(mtu);
    }
    builder
}

fn running(link: &LinkMessage) -> bool {
    link.attributes.iter().all(|attribute| match attribute {
        LinkAttribute::OperState(state) => *state == State::Up,
        LinkAttribute::LinkInfo(infos) => infos.iter().all(|info| match info {
            LinkInfo::PortData(InfoPortData::BridgePort(port)) => {
                port.contains(&InfoBridgePort::State(BridgePortState::Forwarding))
            }
            _ => true,
        }),
        _ => true,
    })
}

fn reason(error: &Error) -> String {
    match error {
        Error::NetlinkError(message) => std::io::Error::from_raw_os_error(-message.raw_code()).to_string(),
        other => other.to_string(),
    }
}
