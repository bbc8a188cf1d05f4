//! The host's links as the kernel tells of them: which exist, of which kind and MTU, and when they come
//! and go. Over netlink, since /sys shows another namespace's.

use super::NveError;
use super::driver::Input;
use crate::core::Device;
use futures_util::{StreamExt, TryStreamExt};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage},
};
use rtnetlink::{Handle, MulticastGroup, packet_core::NetlinkPayload};
use tokio::sync::mpsc;
use weft_datapath::{IfIndex, VapKind};

/// A link.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) name: String,
    pub(super) index: IfIndex,
    pub(super) mtu: u32,
    pub(super) kind: Option<InfoKind>,
}

impl Link {
    fn of(message: &LinkMessage) -> Option<Self> {
        let mut link = Self { name: String::new(), index: IfIndex(message.header.index), mtu: 0, kind: None };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::LinkInfo(infos) => {
                    link.kind = infos.iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind.clone()),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        (!link.name.is_empty()).then_some(link)
    }

    /// As a tenant system's device: a TAP is one, everything else is handed frames as a veth is.
    pub(super) fn device(&self) -> Device {
        let kind = if self.kind == Some(InfoKind::Tun) { VapKind::Tap } else { VapKind::Veth };
        Device { name: self.name.clone(), index: self.index, kind }
    }
}

/// Reads the host's links, and follows them.
#[derive(Clone, Debug)]
pub(super) struct Links {
    handle: Handle,
}

impl Links {
    /// Opens the netlink socket; changes go to `inputs`.
    pub(super) fn open(inputs: mpsc::Sender<Input>) -> Result<Self, NveError> {
        let failed = |e: std::io::Error| NveError::Netlink(e.to_string());
        let (connection, handle, mut messages) =
            rtnetlink::new_multicast_connection(&[MulticastGroup::Link]).map_err(failed)?;
        tokio::spawn(connection);
        tokio::spawn(async move {
            while let Some((message, _)) = messages.next().await {
                let NetlinkPayload::InnerMessage(message) = message.payload else { continue };
                let input = match message {
                    RouteNetlinkMessage::NewLink(link) => Link::of(&link).map(|l| Input::Device(l.device())),
                    RouteNetlinkMessage::DelLink(link) => Some(Input::DeviceGone(IfIndex(link.header.index))),
                    _ => None,
                };
                if let Some(input) = input
                    && inputs.send(input).await.is_err()
                {
                    return;
                }
            }
        });
        Ok(Self { handle })
    }

    /// All links.
    pub(super) async fn all(&self) -> Result<Vec<Link>, NveError> {
        let failed = |e: rtnetlink::Error| NveError::Netlink(e.to_string());
        let messages: Vec<LinkMessage> =
            self.handle.link().get().execute().try_collect().await.map_err(failed)?;
        Ok(messages.iter().filter_map(Link::of).collect())
    }

    /// The link of this name, if there is one.
    pub(super) async fn by_name(&self, name: &str) -> Option<Link> {
        let mut found = self.handle.link().get().match_name(name).execute();
        Link::of(&found.try_next().await.ok()??)
    }
}
