//! The map cache: what the NVE knows of addresses that are not attached to it.

use ::core::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};
use std::collections::{BTreeMap, BTreeSet};
use weft_datapath::IfIndex;
use weft_model::{Eid, MacAddr, Origin, Rloc, TenantIp, Time, Vni};

/// Map-Versions wrap at 4095, 0 meaning "none" (RFC 9302 section 6).
const VERSIONS: u16 = 4095;

/// Where a remote MAC address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Located {
    /// Its NVE.
    pub rloc: Rloc,
    /// Map-Version of the record, 1 to 4095; 0 when the record had none.
    pub version: u16,
    /// How it was learned.
    pub origin: Origin,
    /// The Oracle that said so, by its index; none when it was the address's own NVE, or before a restart.
    pub by: Option<usize>,
    /// When.
    pub learned: Time,
    /// When the record's TTL ends.
    pub expires: Time,
}

/// Whose a remote IP address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bound {
    /// The owner's MAC address.
    pub mac: MacAddr,
    /// As in [`Located`].
    pub version: u16,
    /// How it was learned.
    pub origin: Origin,
    /// The Oracle that said so, by its index; none when it was the address's own NVE, or before a restart.
    pub by: Option<usize>,
    /// When.
    pub learned: Time,
    /// When the record's TTL ends.
    pub expires: Time,
}

/// An address known not to exist, until then; remembered on behalf of the VAP that asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Absent {
    /// When the record's TTL ends.
    pub expires: Time,
    /// Whose question it answered.
    pub asker: IfIndex,
}

/// Known or known to be absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entry<T> {
    /// There.
    Known(T),
    /// Not there.
    Absent(Absent),
}

/// The cache: `<VNID, *, MAC>` and `<VNID, IP, *>` apart, and who is bound to a MAC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MapCache {
    /// Locations of remote MAC addresses.
    pub macs: BTreeMap<(Vni, MacAddr), Entry<Located>>,
    /// Owners of remote IP addresses.
    pub ips: BTreeMap<(Vni, TenantIp), Entry<Bound>>,
    /// Negative entries by the VAP that asked, oldest end first: the bound of what one TS can make
    /// the NVE remember.
    pub(super) absent: BTreeMap<IfIndex, BTreeSet<(Time, AbsentKey)>>,
    /// All of them, oldest end first: what makes room for what exists.
    pub(super) by_end: BTreeSet<(Time, AbsentKey)>,
}

/// The key of a negative entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AbsentKey {
    /// An IP address.
    Ip(Vni, TenantIp),
    /// A MAC address.
    Mac(Vni, MacAddr),
}

impl AbsentKey {
    /// The VN.
    pub const fn vni(self) -> Vni {
        match self {
            Self::Ip(vni, _) | Self::Mac(vni, _) => vni,
        }
    }

    /// The address.
    pub const fn eid(self) -> Eid {
        match self {
            Self::Ip(_, ip) => Eid::Ip(ip),
            Self::Mac(_, mac) => Eid::Mac(mac),
        }
    }
}

impl MapCache {
    /// Remembers that `key` does not exist, at most `limit` such for one asker; gives the entries
    /// forgotten to keep that bound.
    pub fn set_absent(
        &mut self,
        key: AbsentKey,
        asker: IfIndex,
        expires: Time,
        limit: usize,
    ) -> Vec<AbsentKey> {
        self.forget(key);
        let mut evicted = Vec::new();
        while self.absent_of(asker) >= limit.max(1) {
            let Some(old) = self.oldest_of(asker) else { break };
            self.forget(old);
            evicted.push(old);
        }
        self.absent.entry(asker).or_default().insert((expires, key));
        self.by_end.insert((expires, key));
        let absent = Absent { expires, asker };
        match key {
            AbsentKey::Ip(vni, ip) => {
                self.ips.insert((vni, ip), Entry::Absent(absent));
            }
            AbsentKey::Mac(vni, mac) => {
                self.macs.insert((vni, mac), Entry::Absent(absent));
            }
        }
        evicted
    }

    /// The negative entry to give up for another one: the asker's own that ends first, or anybody's
    /// for what exists.
    pub fn to_evict(&self, asker: Option<IfIndex>) -> Option<AbsentKey> {
        match asker {
            Some(asker) => self.oldest_of(asker),
            None => self.by_end.first().map(|(_, key)| *key),
        }
    }

    fn oldest_of(&self, asker: IfIndex) -> Option<AbsentKey> {
        self.absent.get(&asker)?.first().map(|(_, key)| *key)
    }

    fn absent_of(&self, asker: IfIndex) -> usize {
        self.absent.get(&asker).map_or(0, BTreeSet::len)
    }

    /// Remembers where a MAC address is.
    pub fn set_located(&mut self, vni: Vni, mac: MacAddr, located: Located) {
        self.forget(AbsentKey::Mac(vni, mac));
        self.macs.insert((vni, mac), Entry::Known(located));
    }

    /// Remembers whose an IP address is; gives the MAC it was bound to before.
    pub fn set_bound(&mut self, vni: Vni, ip: TenantIp, bound: Bound) -> Option<MacAddr> {
        self.forget(AbsentKey::Ip(vni, ip));
        match self.ips.insert((vni, ip), Entry::Known(bound)) {
            Some(Entry::Known(old)) => Some(old.mac),
            _ => None,
        }
    }

    /// Has a pushed entry end like one that was asked for.
    pub fn make_ordinary(&mut self, vni: Vni, eid: Eid, expires: Time) {
        let (origin, expires_at) = match eid {
            Eid::Mac(mac) => match self.macs.get_mut(&(vni, mac)) {
                Some(Entry::Known(known)) => (&mut known.origin, &mut known.expires),
                _ => return,
            },
            Eid::Ip(ip) => match self.ips.get_mut(&(vni, ip)) {
                Some(Entry::Known(known)) => (&mut known.origin, &mut known.expires),
                _ => return,
            },
        };
        (*origin, *expires_at) = (Origin::Notify, expires);
    }

    /// Forgets a negative entry; a positive one stays.
    pub fn forget(&mut self, key: AbsentKey) {
        let entry = match key {
            AbsentKey::Ip(vni, ip) => self.ips.get(&(vni, ip)).and_then(Entry::absent),
            AbsentKey::Mac(vni, mac) => self.macs.get(&(vni, mac)).and_then(Entry::absent),
        };
        let Some(absent) = entry else { return };
        self.by_end.remove(&(absent.expires, key));
        if let Some(mine) = self.absent.get_mut(&absent.asker) {
            mine.remove(&(absent.expires, key));
            if mine.is_empty() {
                self.absent.remove(&absent.asker);
            }
        }
        self.drop_entry(key);
    }

    fn drop_entry(&mut self, key: AbsentKey) {
        match key {
            AbsentKey::Ip(vni, ip) => drop(self.ips.remove(&(vni, ip))),
            AbsentKey::Mac(vni, mac) => drop(self.macs.remove(&(vni, mac))),
        }
    }

    /// Every address of a VN that anything is known of.
    pub fn eids_of(&self, vni: Vni) -> Vec<Eid> {
        // The ends of the order of legal addresses: IPv4 comes before IPv6.
        let (Ok(lowest), Ok(highest)) = (
            TenantIp::new(Ipv4Addr::new(1, 0, 0, 0).into()),
            TenantIp::new(Ipv6Addr::from_bits(!(1 << 120)).into()),
        ) else {
            return Vec::new();
        };
        let macs = self.macs.range((vni, MacAddr([0; 6]))..=(vni, MacAddr::BROADCAST));
        let ips = self.ips.range((vni, lowest)..=(vni, highest));
        macs.map(|((_, mac), _)| Eid::Mac(*mac)).chain(ips.map(|((_, ip), _)| Eid::Ip(*ip))).collect()
    }

    /// How many entries there are, both kinds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.macs.len() + self.ips.len()
    }
}

impl<T: Copy> Entry<T> {
    /// What is known, if it is there.
    #[must_use]
    pub fn known(&self) -> Option<T> {
        match self {
            Self::Known(known) => Some(*known),
            Self::Absent(_) => None,
        }
    }

    /// Until when it is absent, if it is.
    #[must_use]
    pub fn absent(&self) -> Option<Absent> {
        match self {
            Self::Known(_) => None,
            Self::Absent(absent) => Some(*absent),
        }
    }
}

/// Whether a record of Map-Version `new` may replace one of `old` (RFC 9302 section 6.1): versions
/// are compared on a circle, half of it ahead and half behind. No version is never older.
#[must_use]
pub fn not_older(new: u16, old: u16) -> bool {
    if new == 0 || old == 0 {
        return true;
    }
    (new + VERSIONS - old) % VERSIONS <= VERSIONS / 2
}

/// The end of a TTL given in minutes (RFC 9301 section 5.4); 0xffffffff leaves it to the receiver.
#[must_use]
pub fn ttl_end(now: Time, minutes: u32, if_unset: Duration) -> Time {
    match minutes {
        u32::MAX => now + if_unset,
        minutes => now + Duration::from_secs(60 * u64::from(minutes.min(60 * 24 * 365))),
    }
}

/// Whether `ip` can be asked of the Oracle at all: it lies in one of `vn`'s subnets or is
/// link-local, which is VN-scoped (off-subnet targets are never proxied).
#[must_use]
pub fn in_scope(vn: &weft_model::VnSpec, ip: TenantIp) -> bool {
    let addr: IpAddr = ip.get();
    ip.is_link_local() || vn.subnets.containing(addr).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vni() -> Vni {
        Vni::new(1).unwrap()
    }

    fn ip(n: u8) -> TenantIp {
        TenantIp::new([10, 0, 0, n].into()).unwrap()
    }

    #[test]
    fn one_asker_cannot_grow_the_negative_cache() {
        let mut cache = MapCache::default();
        for n in 1..=100 {
            let evicted = cache.set_absent(AbsentKey::Ip(vni(), ip(n)), IfIndex(1), Time(u64::from(n)), 4);
            assert_eq!(evicted.len(), usize::from(n > 4));
        }
        assert_eq!(cache.ips.len(), 4);
        cache.set_absent(AbsentKey::Ip(vni(), ip(200)), IfIndex(2), Time(1), 4);
        assert_eq!(cache.ips.len(), 5, "another asker has its own share");
        for n in 97..=100 {
            cache.forget(AbsentKey::Ip(vni(), ip(n)));
        }
        cache.forget(AbsentKey::Ip(vni(), ip(200)));
        assert_eq!(cache, MapCache::default());
    }

    #[test]
    fn versions_on_a_circle() {
        assert!(not_older(1, 4095), "wrapped");
        assert!(!not_older(4095, 1));
        assert!(not_older(7, 7));
        assert!(not_older(0, 7) && not_older(7, 0));
        assert!(!not_older(6, 7));
    }
}
