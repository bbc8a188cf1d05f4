//! The host's links as the kernel tells of them: which exist, of which kind and MTU, and when they come
//! and go. Over netlink, since /sys shows another namespace's.

use super::NveError;
use super::driver::Input;
use crate::core::Device;
use futures_util::{StreamExt, TryStreamExt};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{InfoData, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
};
use rtnetlink::{
    Handle, LinkUnspec, MulticastGroup,
    packet_core::{NetlinkPayload, Nla},
};
use tokio::sync::mpsc;
use weft_datapath::{IfIndex, VapKind};

/// `IFLA_TUN_TYPE` of if_link.h, and its value for a TAP (if_tun.h).
const TUN_TYPE: u16 = 3;
const TUN_IS_TAP: u8 = 2;

/// A link.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) name: String,
    pub(super) index: IfIndex,
    pub(super) mtu: u32,
    pub(super) kind: Option<InfoKind>,
    /// Administratively up.
    pub(super) up: bool,
    /// A port of a bridge, bond or the like.
    is_port: bool,
    /// What it is a pair with is in another namespace.
    leads_elsewhere: bool,
    /// A tun in layer 2 mode.
    is_tap: bool,
}

impl Link {
    /// A TAP that is not there.
    #[cfg(test)]
    pub(super) fn a_tap(name: &str, index: IfIndex) -> Self {
        Self {
            name: name.to_owned(),
            index,
            mtu: 1_500,
            kind: Some(InfoKind::Tun),
            up: true,
            is_port: false,
            leads_elsewhere: false,
            is_tap: true,
        }
    }

    fn of(message: &LinkMessage) -> Option<Self> {
        let mut link = Self {
            name: String::new(),
            index: IfIndex(message.header.index),
            mtu: 0,
            kind: None,
            up: message.header.flags.contains(LinkFlags::Up),
            is_port: false,
            leads_elsewhere: false,
            is_tap: false,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Controller(index) => link.is_port = *index != 0,
                LinkAttribute::LinkNetNsId(_) => link.leads_elsewhere = true,
                LinkAttribute::LinkInfo(infos) => infos.iter().for_each(|info| link.learn(info)),
                _ => {}
            }
        }
        (!link.name.is_empty()).then_some(link)
    }

    fn learn(&mut self, info: &LinkInfo) {
        match info {
            LinkInfo::Kind(kind) => self.kind = Some(kind.clone()),
            LinkInfo::Data(InfoData::Tun(of)) => {
                for nla in of.iter().filter(|nla| nla.kind() == TUN_TYPE && nla.value_len() == 1) {
                    let mut value = [0];
                    nla.emit_value(&mut value);
                    self.is_tap = value == [TUN_IS_TAP];
                }
            }
            _ => {}
        }
    }

    /// As a tenant system's device, if it is of a kind that may be one.
    pub(super) fn device(&self) -> Option<Device> {
        let kind = match self.kind {
            Some(InfoKind::Veth) => VapKind::Veth,
            Some(InfoKind::Tun) => VapKind::Tap,
            _ => return None,
        };
        Some(Device { name: self.name.clone(), index: self.index, kind })
    }

    /// As a device to attach now.
    ///
    /// # Errors
    /// Why it cannot be a VAP.
    pub(super) fn tenant(&self) -> Result<Device, String> {
        let is = match &self.kind {
            None => "no virtual device".to_owned(),
            Some(InfoKind::Veth) if !self.leads_elsewhere => {
                "a veth whose peer is in this network namespace".to_owned()
            }
            Some(InfoKind::Tun) if !self.is_tap => "a TUN device, without Ethernet".to_owned(),
            Some(InfoKind::Veth | InfoKind::Tun) if self.is_port => {
                "a port of another device, such as a bridge; take it out there".to_owned()
            }
            Some(kind) => match self.device() {
                Some(device) => return Ok(device),
                None => format!("a {kind}"),
            },
        };
        Err(format!(
            "{} cannot be a VAP: it is {is}; a VAP is a TAP, or a veth whose peer is in the tenant's namespace",
            self.name
        ))
    }
}

/// Reads the host's links, and follows them.
#[derive(Clone, Debug)]
pub(super) struct Links {
    handle: Handle,
}

impl Links {
    /// Opens the netlink sockets; changes go to `inputs`.
    pub(super) fn open(inputs: mpsc::Sender<Input>) -> Result<Self, NveError> {
        let failed = |e: std::io::Error| NveError::Netlink(e.to_string());
        // Answers come by a socket of their own: a burst of changes does not cost one.
        let links = Self::asking()?;
        let (changes, subscription, mut messages) =
            rtnetlink::new_multicast_connection(&[MulticastGroup::Link]).map_err(failed)?;
        tokio::spawn(changes);
        let all = links.clone();
        tokio::spawn(async move {
            while let Some((message, _)) = messages.next().await {
                let input = match message.payload {
                    NetlinkPayload::InnerMessage(message) => change(message),
                    // More happened than the socket holds: what was it?
                    NetlinkPayload::Overrun(_) => all.listed().await,
                    _ => None,
                };
                if let Some(input) = input
                    && inputs.send(input).await.is_err()
                {
                    return;
                }
            }
            drop(subscription);
            tracing::error!("the kernel tells of no more changes of links; they are listed now and then");
        });
        Ok(links)
    }

    /// Opens a netlink socket for questions only.
    pub(super) fn asking() -> Result<Self, NveError> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|e| NveError::Netlink(e.to_string()))?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// All links.
    pub(super) async fn all(&self) -> Result<Vec<Link>, NveError> {
        let failed = |e: rtnetlink::Error| NveError::Netlink(e.to_string());
        let messages: Vec<LinkMessage> =
            self.handle.link().get().execute().try_collect().await.map_err(failed)?;
        Ok(messages.iter().filter_map(Link::of).collect())
    }

    /// All links, for the driver.
    pub(super) async fn listed(&self) -> Option<Input> {
        match self.all().await {
            Ok(all) => Some(Input::Links(all)),
            Err(error) => {
                tracing::warn!(%error, "what links there are is not known");
                None
            }
        }
    }

    /// The link of this name, if there is one.
    pub(super) async fn by_name(&self, name: &str) -> Option<Link> {
        let mut found = self.handle.link().get().match_name(name).execute();
        Link::of(&found.try_next().await.ok()??)
    }

    /// Whether the kernel says that there is no link of this index; indices are not used again.
    pub(super) async fn is_gone(&self, index: IfIndex) -> bool {
        let found = self.handle.link().get().match_index(index.0).execute().try_next().await;
        matches!(found, Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -(nix::Error::ENODEV as i32))
    }

    /// Sets a link up or down.
    pub(super) async fn set(&self, index: IfIndex, up: bool) -> Result<(), NveError> {
        let link = LinkUnspec::new_with_index(index.0);
        let message = if up { link.up() } else { link.down() }.build();
        self.handle.link().set(message).execute().await.map_err(|e| NveError::Netlink(e.to_string()))
    }
}

/// What a message of the kernel means. A bridge tells of its ports in messages of the same type, another
/// family and less content: none of them is about the device itself.
fn change(message: RouteNetlinkMessage) -> Option<Input> {
    let itself = |link: &LinkMessage| link.header.interface_family == AddressFamily::Unspec;
    match message {
        RouteNetlinkMessage::NewLink(link) if itself(&link) => {
            Some(Link::of(&link)?.device().map_or(Input::LinksChanged, Input::Device))
        }
        RouteNetlinkMessage::DelLink(link) if itself(&link) => {
            Some(Input::DeviceGone(IfIndex(link.header.index)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::common::{in_namespace, ip, with_veth};
    use super::*;
    use std::collections::BTreeSet;
    use std::future::Future;

    /// In a namespace with what hosts have, the tenant's veth v0 among it.
    fn on_a_host<F: Future<Output = ()>>(test: impl FnOnce(Links, mpsc::Receiver<Input>) -> F + Send) {
        in_namespace(|| {
            with_veth("v0", || {
                ip("link add br0 type bridge");
                ip("link add here0 type veth peer name here1");
                ip("tuntap add tap0 mode tap");
                ip("tuntap add tun0 mode tun");
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let (inputs, queue) = mpsc::channel(64);
                    test(Links::open(inputs).unwrap(), queue).await;
                });
            });
        });
    }

    #[test]
    fn only_what_leads_to_a_tenant_system_can_be_a_vap() {
        on_a_host(async |links, _| {
            let of = async |name: &str| links.by_name(name).await.unwrap().tenant();
            assert_eq!(of("v0").await.unwrap().kind, VapKind::Veth);
            assert_eq!(of("tap0").await.unwrap().kind, VapKind::Tap);
            ip("link set tap0 master br0");
            let refused = [
                ("lo", "no virtual device"),
                ("br0", "a bridge"),
                ("here0", "whose peer is in this network namespace"),
                ("tun0", "a TUN device"),
                ("tap0", "a port of another device"),
            ];
            for (name, why) in refused {
                let text = of(name).await.unwrap_err();
                assert!(text.starts_with(name) && text.contains(why) && !text.contains('\n'), "{text}");
            }
        });
    }

    #[test]
    fn leaving_a_bridge_is_not_the_end_of_a_device() {
        on_a_host(async |links, mut queue| {
            let index = async |name: &str| links.by_name(name).await.unwrap().index;
            let (port, other) = (index("v0").await, index("here0").await);
            ip("link set v0 master br0");
            ip("link set v0 nomaster");
            ip("link delete here0");
            loop {
                match queue.recv().await.unwrap() {
                    Input::DeviceGone(gone) if gone == other => break,
                    Input::DeviceGone(gone) => assert_ne!(gone, port, "it is still there"),
                    _ => {}
                }
            }
            assert!(links.is_gone(other).await && !links.is_gone(port).await);
        });
    }

    #[test]
    fn a_list_has_what_may_be_a_tenants_and_the_rest_by_index() {
        on_a_host(async |links, _| {
            let Some(Input::Links(all)) = links.listed().await else { panic!("no list") };
            let there: BTreeSet<IfIndex> = all.iter().map(|link| link.index).collect();
            let devices: Vec<Device> = all.iter().filter_map(Link::device).collect();
            let names: BTreeSet<_> = devices.iter().map(|d| d.name.as_str()).collect();
            assert_eq!(names, BTreeSet::from(["here0", "here1", "tap0", "tun0", "v0"]));
            assert!(there.contains(&links.by_name("br0").await.unwrap().index));
        });
    }

    #[test]
    fn up_and_down_as_often_as_one_likes() {
        on_a_host(async |links, _| {
            let index = links.by_name("v0").await.unwrap().index;
            for up in [true, true, false, false, true] {
                links.set(index, up).await.unwrap();
                assert_eq!(links.by_name("v0").await.unwrap().up, up);
            }
        });
    }
}
