//! How VNs are treated: their settings, and the lists of a VN that programs walk.

use super::{
    Kernel,
    abi::{Indexed, Ip, SettingsValue, mode_code, mode_of},
    maps::Table,
};
use crate::{DatapathError, Vn};
use std::collections::{BTreeMap, BTreeSet};
use weft_model::{Rloc, Storm, Vni};

/// A list of each VN, in a map: entries numbered from 0. A change of one entry costs at most a write and
/// a removal. How many there are is written afterwards and elsewhere: meanwhile an entry may be there
/// twice, or the last not at all.
pub(super) struct List<T>(BTreeMap<Vni, Vec<T>>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

fn key(vni: Vni, index: usize) -> Indexed {
    Indexed { vni: vni.get(), index: u32::try_from(index).unwrap_or(u32::MAX) }
}

impl<T: aya::Pod + PartialEq> List<T> {
    pub(super) fn of(&self, vni: Vni) -> &[T] {
        self.0.get(&vni).map_or(&[], Vec::as_slice)
    }

    pub(super) fn len(&self, vni: Vni) -> u32 {
        u32::try_from(self.of(vni).len()).unwrap_or(u32::MAX)
    }

    pub(super) fn insert(
        &mut self,
        map: &mut Table<Indexed, T>,
        vni: Vni,
        item: T,
    ) -> Result<(), DatapathError> {
        let list = self.0.entry(vni).or_default();
        if !list.contains(&item) {
            map.set(&key(vni, list.len()), &item)?;
            list.push(item);
        }
        Ok(())
    }

    pub(super) fn remove(
        &mut self,
        map: &mut Table<Indexed, T>,
        vni: Vni,
        item: T,
    ) -> Result<(), DatapathError> {
        let Some(list) = self.0.get_mut(&vni) else { return Ok(()) };
        let (Some(at), Some(last)) = (list.iter().position(|one| *one == item), list.last().copied()) else {
            return Ok(());
        };
        if at + 1 < list.len() {
            map.set(&key(vni, at), &last)?;
        }
        map.remove(&key(vni, list.len() - 1))?;
        list.swap_remove(at);
        if list.is_empty() {
            self.0.remove(&vni);
        }
        Ok(())
    }

    /// Takes over what an earlier process wrote, which may have ended in the middle of a change: whatever
    /// is `wanted` is then in the map once, without gaps, and nothing else is.
    fn adopt(
        &mut self,
        map: &mut Table<Indexed, T>,
        mut wanted: impl FnMut(Vni, u32, &T) -> bool,
    ) -> Result<(), DatapathError> {
        let mut found: Vec<(u32, u32, T)> =
            map.all()?.into_iter().map(|(key, item)| (key.vni, key.index, item)).collect();
        found.sort_unstable_by_key(|(vni, index, _)| (*vni, *index));
        for (number, index, item) in &found {
            let Ok(vni) = Vni::new(*number) else { continue };
            let list = self.0.entry(vni).or_default();
            if wanted(vni, *index, item) && !list.contains(item) {
                if *index != key(vni, list.len()).index {
                    map.set(&key(vni, list.len()), item)?;
                }
                list.push(*item);
            }
        }
        for (number, index, _) in found {
            if Vni::new(number).map_or(0, |vni| self.len(vni)) <= index {
                map.remove(&Indexed { vni: number, index })?;
            }
        }
        self.0.retain(|_, list| !list.is_empty());
        Ok(())
    }
}

/// What the kernel's data plane remembers of VNs.
#[derive(Default)]
pub(super) struct Lists {
    pub(super) vaps: List<u32>,
    members: List<Ip>,
    modes: BTreeMap<Vni, u8>,
}

impl Lists {
    pub(super) fn mode(&self, vni: Vni) -> u8 {
        self.modes.get(&vni).copied().unwrap_or(0)
    }
}

impl Kernel {
    pub(super) fn set_vn(&mut self, vni: Vni, vn: &Vn) -> Result<(), DatapathError> {
        let limit = self.limits.members_per_vn;
        if u32::try_from(vn.members.len()).map_or(true, |n| n > limit) {
            return Err(DatapathError::Full { map: "members of one VN", limit });
        }
        let wanted: Vec<Ip> = vn.members.iter().map(|rloc| rloc.get().into()).collect();
        let gone: Vec<Ip> =
            self.lists.members.of(vni).iter().filter(|m| !wanted.contains(m)).copied().collect();
        // Removals first: they make room. Their count is written with that of what is new.
        let mut changed = Ok(());
        for member in gone {
            changed = changed.and(self.lists.members.remove(&mut self.maps.members, vni, member));
        }
        for member in wanted {
            changed = changed.and_then(|()| self.lists.members.insert(&mut self.maps.members, vni, member));
        }
        let value = SettingsValue {
            mode: mode_code(vn.learning, vn.bum, vn.miss),
            carries: u8::from(vn.carries),
            storm_rate: vn.storm.rate(),
            storm_burst: vn.storm.burst(),
            gateway: vn.gateway.map_or_else(Ip::default, |rloc| rloc.get().into()),
            ..SettingsValue::default()
        };
        self.write_settings(vni, value)?;
        changed
    }

    pub(super) fn remove_vn(&mut self, vni: Vni) -> Result<(), DatapathError> {
        self.copy_mode(vni, 0)?;
        self.maps.settings.remove(&vni.get())?;
        self.lists.modes.remove(&vni);
        for member in self.lists.members.of(vni).to_vec() {
            self.lists.members.remove(&mut self.maps.members, vni, member)?;
        }
        Ok(())
    }

    /// `value` with the number of members that there are.
    fn write_settings(&mut self, vni: Vni, value: SettingsValue) -> Result<(), DatapathError> {
        let mode = value.mode;
        let value = SettingsValue { members: self.lists.members.len(vni), ..value };
        self.maps.settings.set(&vni.get(), &value)?;
        self.lists.modes.insert(vni, mode);
        self.copy_mode(vni, mode)
    }

    /// Into the VN's VAPs, where every frame finds it without another lookup.
    fn copy_mode(&mut self, vni: Vni, mode: u8) -> Result<(), DatapathError> {
        for device in self.lists.vaps.of(vni) {
            if let Some(value) = self.maps.vaps.get(device)?.filter(|value| value.mode != mode) {
                self.maps.vaps.set(device, &super::VapValue { mode, ..value })?;
            }
        }
        Ok(())
    }

    /// Takes over settings and lists; `self.vaps` is known.
    pub(super) fn adopt_vns(&mut self) -> Result<(), DatapathError> {
        let settings: BTreeMap<u32, SettingsValue> = self.maps.settings.all()?.into_iter().collect();
        self.lists.members.adopt(&mut self.maps.members, |vni, index, _| {
            settings.get(&vni.get()).is_some_and(|value| index < value.members)
        })?;
        let vaps = &self.vaps;
        self.lists.vaps.adopt(&mut self.maps.vn_vaps, |vni, _, device| {
            vaps.get(&crate::IfIndex(*device)).is_some_and(|(of, _)| *of == vni)
        })?;
        for (device, (vni, _)) in &self.vaps {
            self.lists.vaps.insert(&mut self.maps.vn_vaps, *vni, device.0)?;
        }
        for (number, value) in settings {
            if let Ok(vni) = Vni::new(number) {
                self.write_settings(vni, value)?;
            }
        }
        Ok(())
    }

    pub(super) fn observed_vns(&self) -> Result<BTreeMap<Vni, Vn>, DatapathError> {
        let settings: BTreeMap<u32, SettingsValue> = self.maps.settings.all()?.into_iter().collect();
        let mut members = BTreeMap::<u32, BTreeSet<Rloc>>::new();
        for (key, ip) in self.maps.members.all()? {
            if settings.get(&key.vni).is_some_and(|value| key.index < value.members) {
                members.entry(key.vni).or_default().extend(Rloc::new(ip.into()).ok());
            }
        }
        let vn = |(number, value): (u32, SettingsValue)| {
            let (learning, bum, miss) = mode_of(value.mode);
            let members = members.remove(&number).unwrap_or_default();
            let storm = Storm::new(value.storm_rate, value.storm_burst).unwrap_or_default();
            let (gateway, carries) = (Rloc::new(value.gateway.into()).ok(), value.carries != 0);
            Some((Vni::new(number).ok()?, Vn { learning, bum, members, storm, miss, gateway, carries }))
        };
        Ok(settings.clone().into_iter().filter_map(vn).collect())
    }
}
