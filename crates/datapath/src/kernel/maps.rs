//! The maps, typed, and the check that pinned ones are what this program means.

use super::abi::{
    AwayValue, ConfigValue, CountKey, CountValue, GroupValue, HeardValue, HotValue, Indexed, Ip,
    LearnedValue, LocationValue, NeighbourValue, PeerValue, ScopedIp, SettingsValue, VapValue, VnMac,
    VnValue,
};
use super::{Limits, sys};
use crate::DatapathError;
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues};
use std::{collections::BTreeMap, io, path::Path};

/// An update that must not replace anything.
const BPF_NOEXIST: u64 = 1;

/// Name, key size, value size, entries.
type Shape = (&'static str, u32, u32, u32);

const fn size<T>() -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "a structure of some 3,000 octets at most")]
    let octets = size_of::<T>() as u32;
    octets
}

pub(super) fn shapes(limits: &Limits) -> [Shape; 18] {
    [
        ("config", 4, size::<ConfigValue>(), 1),
        ("vaps", 4, size::<VapValue>(), limits.vaps),
        ("vap_ips", size::<ScopedIp>(), 4, limits.vap_ips),
        ("vns", 4, size::<VnValue>(), limits.vaps),
        ("settings", 4, size::<SettingsValue>(), limits.vaps),
        ("members", size::<Indexed>(), 16, limits.members),
        ("groups", size::<ScopedIp>(), size::<GroupValue>(), limits.groups),
        ("vn_vaps", size::<Indexed>(), 4, limits.vaps),
        ("hot", 4, size::<HotValue>(), limits.vaps),
        ("fdb", size::<VnMac>(), size::<LocationValue>(), limits.locations),
        ("away", size::<VnMac>(), size::<AwayValue>(), limits.away),
        ("learned", size::<VnMac>(), size::<LearnedValue>(), limits.learned),
        ("heard", size::<ScopedIp>(), size::<HeardValue>(), limits.heard),
        ("neighbours", size::<ScopedIp>(), size::<NeighbourValue>(), limits.neighbours),
        ("peers", 16, size::<PeerValue>(), limits.peers),
        ("asked", size::<VnMac>(), 8, limits.asked),
        ("counters", size::<CountKey>(), size::<CountValue>(), limits.counters),
        ("punts", 0, 0, limits.ring_bytes),
    ]
}

/// An aya error about a map as ours.
pub(super) fn map_failed(map: &'static str, limit: u32, e: MapError) -> DatapathError {
    match e {
        MapError::SyscallError(e) => match e.io_error.raw_os_error() {
            Some(libc::E2BIG | libc::ENOMEM | libc::ENOSPC) => DatapathError::Full { map, limit },
            _ => sys::refused(format!("use map {map} ({})", e.call), e.io_error),
        },
        other => DatapathError::Load(format!("map {map}: {other}")),
    }
}

/// Compares every pinned map with what is meant, before a program could carry traffic on a wrong
/// layout: aya reuses a pin unseen.
pub(super) fn check(dir: &Path, limits: &Limits) -> Result<(), DatapathError> {
    for (map, key, value, entries) in shapes(limits) {
        let path = dir.join(map);
        if !path.exists() {
            continue;
        }
        let info =
            MapData::from_pin(&path).and_then(|m| m.info()).map_err(|e| map_failed(map, entries, e))?;
        let properties = [
            ("key size", info.key_size(), key),
            ("value size", info.value_size(), value),
            ("size", info.max_entries(), entries),
        ];
        if let Some((what, found, wanted)) = properties.into_iter().find(|(_, found, wanted)| found != wanted)
        {
            return Err(DatapathError::OtherMap { map, what, found, wanted });
        }
    }
    Ok(())
}

/// The pinned configuration, if there is one.
pub(super) fn pinned_config(dir: &Path) -> Result<Option<ConfigValue>, DatapathError> {
    let path = dir.join("config");
    if !path.exists() {
        return Ok(None);
    }
    let failed = |e| map_failed("config", 1, e);
    let data = MapData::from_pin(&path).map_err(failed)?;
    let map = Map::from_map_data(data).map_err(failed)?;
    let array = Array::<_, ConfigValue>::try_from(map).map_err(failed)?;
    array.get(&0, 0).map(Some).map_err(failed)
}

/// One hash map and what its errors say.
pub(super) struct Table<K: aya::Pod, V: aya::Pod> {
    name: &'static str,
    limit: u32,
    map: HashMap<MapData, K, V>,
}

impl<K: aya::Pod, V: aya::Pod> Table<K, V> {
    fn new(
        maps: &mut BTreeMap<String, Map>,
        shapes: &[Shape],
        name: &'static str,
    ) -> Result<Self, DatapathError> {
        let limit = shapes.iter().find(|s| s.0 == name).map_or(0, |s| s.3);
        let map = take(maps, name)?;
        let map = HashMap::try_from(map).map_err(|e| map_failed(name, limit, e))?;
        Ok(Self { name, limit, map })
    }

    pub(super) fn get(&self, key: &K) -> Result<Option<V>, DatapathError> {
        match self.map.get(key, 0) {
            Ok(value) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(e) => Err(map_failed(self.name, self.limit, e)),
        }
    }

    pub(super) fn set(&mut self, key: &K, value: &V) -> Result<(), DatapathError> {
        self.map.insert(key, value, 0).map_err(|e| map_failed(self.name, self.limit, e))
    }

    /// Adds an entry where there is none; whether there was none.
    pub(super) fn add(&mut self, key: &K, value: &V) -> Result<bool, DatapathError> {
        match self.map.insert(key, value, BPF_NOEXIST) {
            Ok(()) => Ok(true),
            Err(MapError::SyscallError(e)) if e.io_error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(e) => Err(map_failed(self.name, self.limit, e)),
        }
    }

    /// Absent is fine.
    pub(super) fn remove(&mut self, key: &K) -> Result<(), DatapathError> {
        match self.map.remove(key) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(e)) if e.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(map_failed(self.name, self.limit, e)),
        }
    }

    pub(super) fn all(&self) -> Result<Vec<(K, V)>, DatapathError> {
        self.map.iter().collect::<Result<_, _>>().map_err(|e| map_failed(self.name, self.limit, e))
    }
}

fn take(maps: &mut BTreeMap<String, Map>, name: &'static str) -> Result<Map, DatapathError> {
    maps.remove(name).ok_or_else(|| DatapathError::Load(format!("the object has no map {name}")))
}

/// Every map an agent reads or writes.
pub(super) struct Maps {
    config: Array<MapData, ConfigValue>,
    counters: PerCpuHashMap<MapData, CountKey, CountValue>,
    hot: PerCpuArray<MapData, HotValue>,
    pub(super) vaps: Table<u32, VapValue>,
    pub(super) vap_ips: Table<ScopedIp, u32>,
    pub(super) vns: Table<u32, VnValue>,
    pub(super) settings: Table<u32, SettingsValue>,
    pub(super) members: Table<Indexed, Ip>,
    pub(super) groups: Table<ScopedIp, GroupValue>,
    pub(super) vn_vaps: Table<Indexed, u32>,
    pub(super) fdb: Table<VnMac, LocationValue>,
    pub(super) away: Table<VnMac, AwayValue>,
    pub(super) learned: Table<VnMac, LearnedValue>,
    pub(super) heard: Table<ScopedIp, HeardValue>,
    pub(super) neighbours: Table<ScopedIp, NeighbourValue>,
    pub(super) peers: Table<Ip, PeerValue>,
    pub(super) asked: Table<VnMac, u64>,
}

impl Maps {
    pub(super) fn take(ebpf: &mut aya::Ebpf, limits: &Limits) -> Result<(Self, Map), DatapathError> {
        let shapes = shapes(limits);
        let mut maps: BTreeMap<String, Map> =
            shapes.iter().filter_map(|s| Some((s.0.to_owned(), ebpf.take_map(s.0)?))).collect();
        let failed = |name| move |e| map_failed(name, 0, e);
        let all = Self {
            config: Array::try_from(take(&mut maps, "config")?).map_err(failed("config"))?,
            counters: PerCpuHashMap::try_from(take(&mut maps, "counters")?).map_err(failed("counters"))?,
            hot: PerCpuArray::try_from(take(&mut maps, "hot")?).map_err(failed("hot"))?,
            vaps: Table::new(&mut maps, &shapes, "vaps")?,
            vap_ips: Table::new(&mut maps, &shapes, "vap_ips")?,
            vns: Table::new(&mut maps, &shapes, "vns")?,
            settings: Table::new(&mut maps, &shapes, "settings")?,
            members: Table::new(&mut maps, &shapes, "members")?,
            groups: Table::new(&mut maps, &shapes, "groups")?,
            vn_vaps: Table::new(&mut maps, &shapes, "vn_vaps")?,
            fdb: Table::new(&mut maps, &shapes, "fdb")?,
            away: Table::new(&mut maps, &shapes, "away")?,
            learned: Table::new(&mut maps, &shapes, "learned")?,
            heard: Table::new(&mut maps, &shapes, "heard")?,
            neighbours: Table::new(&mut maps, &shapes, "neighbours")?,
            peers: Table::new(&mut maps, &shapes, "peers")?,
            asked: Table::new(&mut maps, &shapes, "asked")?,
        };
        Ok((all, take(&mut maps, "punts")?))
    }

    pub(super) fn config(&self) -> Result<ConfigValue, DatapathError> {
        self.config.get(&0, 0).map_err(|e| map_failed("config", 1, e))
    }

    pub(super) fn set_config(&mut self, value: ConfigValue) -> Result<(), DatapathError> {
        self.config.set(0, value, 0).map_err(|e| map_failed("config", 1, e))
    }

    /// Forgets what was counted for a VN.
    pub(super) fn forget_counts(&mut self, vni: u32) -> Result<(), DatapathError> {
        let keys: Vec<CountKey> = self.counters.keys().flatten().filter(|key| key.vni == vni).collect();
        for key in keys {
            match self.counters.remove(&key) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(MapError::SyscallError(e)) if e.io_error.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(map_failed("counters", 0, e)),
            }
        }
        Ok(())
    }

    /// One slot of the frequent counts, summed over the CPUs.
    pub(super) fn hot(&self, slot: u32) -> Result<HotValue, DatapathError> {
        let values = self.hot.get(&slot, 0).map_err(|e| map_failed("hot", 0, e))?;
        let mut sum = HotValue::default();
        for value in values.iter() {
            for (to, from) in sum.of.iter_mut().zip(value.of) {
                to.packets += from.packets;
                to.bytes += from.bytes;
            }
        }
        Ok(sum)
    }

    /// Zeroes a slot that another VN had.
    pub(super) fn reset_hot(&mut self, slot: u32) -> Result<(), DatapathError> {
        let cpus = self.hot.get(&slot, 0).map_err(|e| map_failed("hot", 0, e))?.len();
        let zeros = PerCpuValues::try_from(vec![HotValue::default(); cpus])
            .map_err(|e| sys::refused("count CPUs", e))?;
        self.hot.set(slot, zeros, 0).map_err(|e| map_failed("hot", 0, e))
    }

    /// Summed over the CPUs.
    pub(super) fn counts(&self) -> Result<Vec<(CountKey, CountValue)>, DatapathError> {
        let mut found = Vec::new();
        for entry in self.counters.iter() {
            let (key, values) = entry.map_err(|e| map_failed("counters", 0, e))?;
            let mut sum = CountValue::default();
            for value in values.iter() {
                sum.packets += value.packets;
                sum.bytes += value.bytes;
            }
            found.push((key, sum));
        }
        Ok(found)
    }
}
