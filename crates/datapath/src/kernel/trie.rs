//! Maps that are looked up by longest prefix.

use super::maps::map_failed;
use crate::DatapathError;
use aya::maps::{
    Map, MapData, MapError,
    lpm_trie::{Key, LpmTrie},
};
use std::io;

/// One such map and what its errors say.
pub(super) struct Trie<K: aya::Pod, V: aya::Pod> {
    name: &'static str,
    limit: u32,
    map: LpmTrie<MapData, K, V>,
}

impl<K: aya::Pod, V: aya::Pod> Trie<K, V> {
    pub(super) fn new(map: Map, name: &'static str, limit: u32) -> Result<Self, DatapathError> {
        let map = LpmTrie::try_from(map).map_err(|e| map_failed(name, limit, e))?;
        Ok(Self { name, limit, map })
    }

    pub(super) fn set(&mut self, bits: u32, key: K, value: V) -> Result<(), DatapathError> {
        self.map.insert(&Key::new(bits, key), value, 0).map_err(|e| map_failed(self.name, self.limit, e))
    }

    /// Absent is fine.
    pub(super) fn remove(&mut self, bits: u32, key: K) -> Result<(), DatapathError> {
        match self.map.remove(&Key::new(bits, key)) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(e)) if e.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(map_failed(self.name, self.limit, e)),
        }
    }

    /// Every entry, with how many bits of its key count.
    pub(super) fn all(&self) -> Result<Vec<(u32, K, V)>, DatapathError> {
        let entry = |entry: Result<(Key<K>, V), MapError>| {
            let (key, value) = entry.map_err(|e| map_failed(self.name, self.limit, e))?;
            Ok((key.prefix_len(), key.data(), value))
        };
        self.map.iter().map(entry).collect()
    }
}
