//! Which devices lead to other RLOCs: found by a rule, since a device that is made anew has another index.

use super::{NveError, NveOptions, devices::Link};
use netlink_packet_route::link::InfoKind;
use std::{collections::BTreeSet, net::IpAddr};
use weft_model::Rloc;

/// Those named, or those that have one of our RLOCs.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) named: Vec<String>,
    pub(super) rlocs: BTreeSet<Rloc>,
    pub(super) vxlan: String,
}

impl Rule {
    pub(super) fn new(options: &NveOptions, rlocs: &BTreeSet<Rloc>) -> Self {
        Self { named: options.uplinks.clone(), rlocs: rlocs.clone(), vxlan: options.vxlan_device.clone() }
    }

    /// The uplinks among `links`.
    ///
    /// # Errors
    /// [`NveError::UnknownUplink`], or [`NveError::NoUplink`] for an RLOC that no device has.
    pub(super) fn find(&self, links: &[Link]) -> Result<Vec<Link>, NveError> {
        let by_name = |name: &String| {
            links
                .iter()
                .find(|l| l.name == *name)
                .cloned()
                .ok_or_else(|| NveError::UnknownUplink(name.clone()))
        };
        if !self.named.is_empty() {
            return self.named.iter().map(by_name).collect();
        }
        let addresses: Vec<_> = nix::ifaddrs::getifaddrs().map(Iterator::collect).unwrap_or_default();
        let mut found: Vec<Link> = Vec::new();
        for rloc in &self.rlocs {
            let on = |a: &&nix::ifaddrs::InterfaceAddress| {
                let ip = a.address.as_ref().and_then(|s| {
                    let v4 = s.as_sockaddr_in().map(|s| IpAddr::V4(s.ip()));
                    v4.or_else(|| s.as_sockaddr_in6().map(|s| IpAddr::V6(s.ip())))
                });
                ip == Some(rloc.get())
            };
            let device = addresses.iter().find(on).ok_or(NveError::NoUplink { rloc: *rloc })?;
            let device = by_name(&device.interface_name)?;
            if leads_nowhere(&device) {
                // An address there is reached over any link.
                found.extend(links.iter().filter(|l| self.may_lead(l)).cloned());
            } else {
                found.push(device);
            }
        }
        found.sort_by_key(|l| l.index);
        found.dedup_by_key(|l| l.index);
        Ok(found)
    }

    /// Whether a device may lead to other hosts.
    fn may_lead(&self, link: &Link) -> bool {
        let carries = match &link.kind {
            None | Some(InfoKind::Vlan | InfoKind::Bond | InfoKind::MacVlan | InfoKind::IpVlan) => true,
            Some(InfoKind::Other(kind)) => kind == "team",
            Some(_) => false,
        };
        carries && link.name != self.vxlan && !leads_nowhere(link)
    }
}

fn leads_nowhere(link: &Link) -> bool {
    link.name == "lo" || matches!(link.kind, Some(InfoKind::Dummy))
}
