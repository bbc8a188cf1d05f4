//! Who asked for which multicast group, one entry of the map each, always written as a whole.

use super::{
    Kernel,
    abi::{GROUP_ALL, GROUP_SIZE, GroupValue, Ip, ScopedIp},
};
use crate::{DatapathError, IfIndex, Receivers, Tables};
use core::net::{IpAddr, Ipv6Addr};
use std::collections::{BTreeMap, BTreeSet};
use weft_model::{GroupIp, Rloc, Vni, Wanted};

/// Who wants all stands at the unspecified address, which is no group's.
const ALL: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

pub(super) fn key(vni: Vni, wanted: Wanted) -> ScopedIp {
    ScopedIp { scope: vni.get(), ip: wanted.group().map_or(ALL, GroupIp::get).into() }
}

fn wanted(ip: IpAddr) -> Option<Wanted> {
    if ip == ALL { Some(Wanted::All) } else { GroupIp::new(ip).ok().map(Wanted::Group) }
}

/// Puts `items` in their places; says how many there are, or that there are too many.
fn fill<T>(places: &mut [T], items: impl ExactSizeIterator<Item = T>) -> u32 {
    match u32::try_from(items.len()) {
        Ok(count) if items.len() <= places.len() => {
            places.iter_mut().zip(items).for_each(|(place, item)| *place = item);
            count
        }
        _ => GROUP_ALL,
    }
}

impl From<&Receivers> for GroupValue {
    fn from(receivers: &Receivers) -> Self {
        let (mut ifindex, mut rloc) = ([0; GROUP_SIZE], [Ip::default(); GROUP_SIZE]);
        let vaps = fill(&mut ifindex, receivers.vaps.iter().map(|vap| vap.0));
        let members = fill(&mut rloc, receivers.members.iter().map(|member| member.get().into()));
        Self { vaps, members, ifindex, rloc }
    }
}

/// Those named, or all that there are.
fn named<T, U: Ord>(
    count: u32,
    places: &[T],
    meaning: impl Fn(&T) -> Option<U>,
    all: impl FnOnce() -> BTreeSet<U>,
) -> BTreeSet<U> {
    match usize::try_from(count) {
        Ok(count) if count <= places.len() => places.iter().take(count).filter_map(meaning).collect(),
        _ => all(),
    }
}

impl Kernel {
    pub(super) fn set_group(
        &mut self,
        vni: Vni,
        wanted: Wanted,
        receivers: &Receivers,
    ) -> Result<(), DatapathError> {
        self.maps.groups.set(&key(vni, wanted), &receivers.into())
    }

    /// `tables` holds what else was observed.
    pub(super) fn observed_groups(
        &self,
        tables: &Tables,
    ) -> Result<BTreeMap<(Vni, Wanted), Receivers>, DatapathError> {
        let meaning = |(key, value): (ScopedIp, GroupValue)| {
            let (vni, group) = (Vni::new(key.scope).ok()?, wanted(key.ip.into())?);
            let here = || tables.vaps.iter().filter(|(_, vap)| vap.vni == vni).map(|(at, _)| *at).collect();
            let there = || tables.vns.get(&vni).map(|vn| vn.members.clone()).unwrap_or_default();
            let receivers = Receivers {
                vaps: named(value.vaps, &value.ifindex, |index| Some(IfIndex(*index)), here),
                members: named(value.members, &value.rloc, |ip| Rloc::new((*ip).into()).ok(), there),
            };
            Some(((vni, group), receivers))
        };
        Ok(self.maps.groups.all()?.into_iter().filter_map(meaning).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_there_are_places_for_are_all() {
        let of = |count: usize| {
            let members = (0..count).map(|n| {
                let [.., a, b] = n.to_be_bytes();
                Rloc::new([192, 0, 1 + a, b].into()).unwrap()
            });
            let vaps = (0..count).map(|n| IfIndex(u32::try_from(n).unwrap())).collect();
            GroupValue::from(&Receivers { vaps, members: members.collect() })
        };
        let (full, over) = (of(GROUP_SIZE), of(GROUP_SIZE + 1));
        assert_eq!((full.vaps, full.members), (128, 128));
        assert_eq!((over.vaps, over.members), (GROUP_ALL, GROUP_ALL));
        let indices =
            |value: &GroupValue| named(value.vaps, &value.ifindex, |index| Some(*index), || [7].into()).len();
        assert_eq!((indices(&full), indices(&of(0)), indices(&over)), (128, 0, 1));
    }
}
