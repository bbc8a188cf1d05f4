//! The maps, typed, and the check that pinned ones are what this program means.

use super::abi::{
    AwayValue, ConfigValue, ConnCounts, ConnKey, ConnValue, CountKey, CountValue, FRAGMENT_KEY,
    FRAGMENT_VALUE, GroupValue, HeardValue, HotValue, Indexed, Ip, LearnedValue, LocationValue, Match,
    NeighbourValue, OfClass, PeerValue, RuleValue, ScopedIp, SettingsValue, TraceValue, VapValue, VnMac,
    VnValue,
};
use super::{
    Limits, sizes, sys,
    traces::{STEPS, TRACES},
    trie::Trie,
};
use crate::{DatapathError, RULE_COUNTERS};
use aya::maps::{
    Array, HashMap, IterableMap as _, Map, MapData, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues,
};
use core::marker::PhantomData;
use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    sync::Arc,
};

/// An update that must not replace anything.
const BPF_NOEXIST: u64 = 1;

/// Whose counts of connections are where.
const BY_PROGRAMS: u32 = 0;
const BY_AGENT: u32 = 1;

/// Name, key size, value size, entries.
type Shape = (&'static str, u32, u32, u32);

const fn size<T>() -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "a structure of some 3,000 octets at most")]
    let octets = size_of::<T>() as u32;
    octets
}

pub(super) fn shapes(limits: &Limits) -> [Shape; 26] {
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
        ("rules", 4 + size::<Match>(), size::<RuleValue>(), limits.rules),
        ("classes", 4 + size::<OfClass>(), 4, limits.classes),
        ("conns", size::<ConnKey>(), size::<ConnValue>(), limits.connections),
        ("conn_counts", 4, size::<ConnCounts>(), 2),
        ("fragments", FRAGMENT_KEY, FRAGMENT_VALUE, limits.fragments),
        ("rule_hits", 4, size::<CountValue>(), RULE_COUNTERS),
        ("punts", 0, 0, limits.ring_bytes),
        ("traces", 4, size::<TraceValue>(), TRACES),
        ("steps", 0, 0, STEPS),
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
        self.take(key).map(drop)
    }

    /// Removes an entry; whether there was one.
    pub(super) fn take(&mut self, key: &K) -> Result<bool, DatapathError> {
        match self.map.remove(key) {
            Ok(()) => Ok(true),
            Err(MapError::KeyNotFound) => Ok(false),
            Err(MapError::SyscallError(e)) if e.io_error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(map_failed(self.name, self.limit, e)),
        }
    }

    pub(super) fn all(&self) -> Result<Vec<(K, V)>, DatapathError> {
        self.map.iter().collect::<Result<_, _>>().map_err(|e| map_failed(self.name, self.limit, e))
    }
}

/// Entries read at once: far more than one bucket of a hash map holds.
const AT_ONCE: u32 = 1_024;

impl<K: aya::Pod, V: aya::Pod> Table<K, V> {
    /// The same table for another thread, to walk.
    pub(super) fn walker(&self) -> Result<Walker<K, V>, DatapathError> {
        let fd = self.map.map().fd().as_fd().try_clone_to_owned();
        let fd = fd.map_err(|e| sys::refused(format!("share map {}", self.name), e))?;
        Ok(Walker { name: self.name, fd: Arc::new(fd), entry: PhantomData })
    }
}

/// A table that is walked.
#[derive(Clone, Debug)]
pub(super) struct Walker<K, V> {
    name: &'static str,
    fd: Arc<OwnedFd>,
    entry: PhantomData<fn() -> (K, V)>,
}

impl<K: aya::Pod, V: aya::Pod> Walker<K, V> {
    /// Every entry, read many at a call: for tables that are large and change all the time.
    pub(super) fn walk(&self, mut each: impl FnMut(K, V)) -> Result<(), DatapathError> {
        let mut walk = sys::Walk::default();
        while self.part(&mut walk, &mut each)? {}
        Ok(())
    }

    /// The next of them, some 1,024; whether there are more.
    pub(super) fn part(
        &self,
        walk: &mut sys::Walk,
        mut each: impl FnMut(K, V),
    ) -> Result<bool, DatapathError> {
        let room = AT_ONCE as usize;
        let (mut keys, mut values) = (vec![0; size_of::<K>() * room], vec![0; size_of::<V>() * room]);
        let (read, more) = sys::next_entries(self.fd.as_fd(), walk, &mut keys, &mut values, AT_ONCE)
            .map_err(|e| sys::refused(format!("read map {}", self.name), e))?;
        let read = usize::try_from(read).unwrap_or(0);
        let entries = keys.chunks_exact(size_of::<K>()).zip(values.chunks_exact(size_of::<V>()));
        for (key, value) in entries.take(read) {
            let (key, value) = (key.as_ptr().cast::<K>(), value.as_ptr().cast::<V>());
            // SAFETY: as many octets as the types have, and Pod: every bit pattern is legal.
            let (key, value) = unsafe { (key.read_unaligned(), value.read_unaligned()) };
            each(key, value);
        }
        Ok(more)
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
    rule_hits: PerCpuArray<MapData, CountValue>,
    conn_counts: PerCpuArray<MapData, ConnCounts>,
    pub(super) rules: Trie<Match, RuleValue>,
    pub(super) classes: Trie<OfClass, u32>,
    pub(super) conns: Table<ConnKey, ConnValue>,
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
    pub(super) traces: Table<u32, TraceValue>,
}

impl Maps {
    pub(super) fn take(ebpf: &mut aya::Ebpf, limits: &Limits) -> Result<(Self, Map, Map), DatapathError> {
        let shapes = shapes(limits);
        let mut maps: BTreeMap<String, Map> =
            shapes.iter().filter_map(|s| Some((s.0.to_owned(), ebpf.take_map(s.0)?))).collect();
        let failed = |name| move |e| map_failed(name, 0, e);
        let all = Self {
            config: Array::try_from(take(&mut maps, "config")?).map_err(failed("config"))?,
            counters: PerCpuHashMap::try_from(take(&mut maps, "counters")?).map_err(failed("counters"))?,
            hot: PerCpuArray::try_from(take(&mut maps, "hot")?).map_err(failed("hot"))?,
            rule_hits: PerCpuArray::try_from(take(&mut maps, "rule_hits")?).map_err(failed("rule_hits"))?,
            conn_counts: PerCpuArray::try_from(take(&mut maps, "conn_counts")?)
                .map_err(failed("conn_counts"))?,
            rules: Trie::new(take(&mut maps, "rules")?, "rules", limits.rules)?,
            classes: Trie::new(take(&mut maps, "classes")?, "classes", limits.classes)?,
            conns: Table::new(&mut maps, &shapes, "conns")?,
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
            traces: Table::new(&mut maps, &shapes, "traces")?,
        };
        Ok((all, take(&mut maps, "punts")?, take(&mut maps, "steps")?))
    }

    pub(super) fn config(&self) -> Result<ConfigValue, DatapathError> {
        self.config.get(&0, 0).map_err(|e| map_failed("config", 1, e))
    }

    pub(super) fn set_config(&mut self, value: ConfigValue) -> Result<(), DatapathError> {
        self.config.set(0, value, 0).map_err(|e| map_failed("config", 1, e))
    }

    /// What each rule's counter says, of those that are not zero.
    pub(super) fn rule_hits(&self) -> Result<Vec<(u32, CountValue)>, DatapathError> {
        let failed = |e| sys::refused("read map rule_hits", e);
        let processors = sizes::possible_processors().map_err(failed)?;
        let (entry, room) = (size_of::<CountValue>() * processors, AT_ONCE as usize);
        let (mut keys, mut values) = (vec![0; 4 * room], vec![0; entry * room]);
        let (mut walk, mut found, mut rule) = (sys::Walk::default(), Vec::new(), 0);
        loop {
            let fd = self.rule_hits.map().fd();
            let (read, more) =
                sys::next_entries(fd.as_fd(), &mut walk, &mut keys, &mut values, AT_ONCE).map_err(failed)?;
            for values in values.chunks_exact(entry).take(usize::try_from(read).unwrap_or(0)) {
                let mut sum = CountValue::default();
                for value in values.as_chunks::<{ size_of::<CountValue>() }>().0 {
                    let [packets, bytes] =
                        [0, 8].map(|at| value[at..].first_chunk().copied().map_or(0, u64::from_ne_bytes));
                    sum.packets += packets;
                    sum.bytes += bytes;
                }
                if sum.packets != 0 {
                    found.push((rule, sum));
                }
                rule += 1;
            }
            if !more {
                return Ok(found);
            }
        }
    }

    /// Zeroes a rule's counter.
    pub(super) fn clear_rule(&mut self, rule: u32) -> Result<(), DatapathError> {
        let failed = |e| map_failed("rule_hits", RULE_COUNTERS, e);
        let cpus = self.rule_hits.get(&rule, 0).map_err(failed)?.len();
        let zeros = PerCpuValues::try_from(vec![CountValue::default(); cpus])
            .map_err(|e| sys::refused("count CPUs", e))?;
        self.rule_hits.set(rule, zeros, 0).map_err(failed)
    }

    /// Connections ever inserted less those removed, by the programs and the agent; and how many were not followed.
    pub(super) fn conns_held(&self) -> Result<(u64, u64), DatapathError> {
        let (mut held, mut unfollowed) = (0_u64, 0);
        for who in [BY_PROGRAMS, BY_AGENT] {
            let values = self.conn_counts.get(&who, 0).map_err(|e| map_failed("conn_counts", 2, e))?;
            for value in values.iter() {
                held = held.wrapping_add(value.inserted).wrapping_sub(value.removed);
                unfollowed += value.unfollowed;
            }
        }
        Ok((held, unfollowed))
    }

    /// Counts what the agent has inserted and removed.
    pub(super) fn count_conns(&mut self, inserted: u64, removed: u64) -> Result<(), DatapathError> {
        let failed = |e| map_failed("conn_counts", 2, e);
        let mut values: Vec<ConnCounts> =
            self.conn_counts.get(&BY_AGENT, 0).map_err(failed)?.iter().copied().collect();
        if let Some(first) = values.first_mut() {
            first.inserted += inserted;
            first.removed += removed;
        }
        let values = PerCpuValues::try_from(values).map_err(|e| sys::refused("count CPUs", e))?;
        self.conn_counts.set(BY_AGENT, values, 0).map_err(failed)
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
