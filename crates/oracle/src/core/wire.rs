//! Between the vocabulary and the wire: EIDs and records.

use std::net::IpAddr;

use weft_lisp as lisp;
use weft_lisp::{EidAddr, MapVersion, Record};
use weft_model::{Eid, Epoch, MacAddr, TenantIp, Vni};

use super::database::{Found, Locator, MAX_LOCATORS, Source};

/// An EID of ours as LISP writes it.
pub(crate) fn to_lisp(vni: Vni, eid: Eid) -> lisp::Eid {
    match eid {
        Eid::Mac(mac) => lisp::Eid::host(vni.get(), mac.octets()),
        Eid::Ip(ip) => lisp::Eid::host(vni.get(), ip.get()),
    }
}

/// What an EID on the wire is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WireEid {
    /// A single address in a VN.
    Host(Vni, Eid),
    /// A single IP address in a VN that no tenant system can have.
    Odd(Vni, lisp::Eid),
    /// A prefix, an address outside of all VNs, or not an address.
    Unusable,
}

/// Reads an EID with its mask.
pub(crate) fn from_lisp(address: lisp::Address<'_>, mask_len: u8) -> WireEid {
    match lisp::Eid::from_wire(address, mask_len) {
        Ok(eid) if eid.is_host() => from_host(eid),
        _ => WireEid::Unusable,
    }
}

/// Reads an EID that stands without a mask.
pub(crate) fn from_lisp_host(address: lisp::Address<'_>) -> WireEid {
    lisp::Eid::host_from_wire(address).map_or(WireEid::Unusable, from_host)
}

fn from_host(eid: lisp::Eid) -> WireEid {
    let Ok(vni) = Vni::new(eid.iid()) else { return WireEid::Unusable };
    let ip = match eid.addr() {
        EidAddr::Mac(mac) => return WireEid::Host(vni, Eid::Mac(MacAddr(mac))),
        EidAddr::Ipv4(ip) => IpAddr::V4(ip),
        EidAddr::Ipv6(ip) => IpAddr::V6(ip),
    };
    TenantIp::new(ip).map_or(WireEid::Odd(vni, eid), |ip| WireEid::Host(vni, Eid::Ip(ip)))
}

/// Locators of a record, on the stack.
pub(crate) struct Locators {
    array: [lisp::Locator<'static>; MAX_LOCATORS],
    len: usize,
}

impl Locators {
    /// Those of a mapping found.
    pub(crate) fn of(found: &Found<'_>) -> Self {
        match found.source {
            Source::Registration(registration) => Self::collect(registration.locators.iter().copied()),
            Source::Grant(rlocs) => Self::collect(Locator::stored(rlocs)),
        }
    }

    pub(crate) fn collect(locators: impl Iterator<Item = Locator>) -> Self {
        let none = lisp::Locator::new(lisp::Address::NoAddress, Locator::UNUSABLE);
        let mut all = Self { array: [none; MAX_LOCATORS], len: 0 };
        for (slot, locator) in all.array.iter_mut().zip(locators) {
            *slot = lisp::Locator {
                weight: locator.weight,
                ..lisp::Locator::new(locator.rloc.get(), locator.priority)
            };
            all.len += 1;
        }
        all
    }

    /// For an IP-to-MAC record.
    pub(crate) fn mac(mac: MacAddr) -> Self {
        let locator = lisp::Locator::mac(mac.octets());
        Self { array: [locator; MAX_LOCATORS], len: 1 }
    }

    pub(crate) fn list(&self) -> lisp::List<'_, lisp::Locator<'_>> {
        lisp::List::new(self.array.get(..self.len).unwrap_or_default())
    }
}

/// A record that says where `eid` is, or with no locators and TTL 0 that it is nowhere.
pub(crate) fn record<'a>(
    vni: Vni,
    eid: Eid,
    ttl: u32,
    epoch: Option<Epoch>,
    locators: &'a Locators,
) -> Record<'a> {
    let eid = to_lisp(vni, eid);
    Record {
        ttl,
        mask_len: eid.mask_len(),
        map_version: epoch.and_then(|epoch| MapVersion::new(epoch.map_version())).unwrap_or_default(),
        eid: eid.address(),
        locators: locators.list(),
        ..Record::default()
    }
}
