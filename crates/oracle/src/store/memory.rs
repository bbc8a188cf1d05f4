//! A store without a disk: for tests and simulation, and as the reference for the others.

use super::{
    Body, Done, History, Observer, Revision, Snapshot, Store, StoreError, Transaction, Verdict,
    overlay::{Base, Overlay},
};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

struct State {
    map: Map,
    revision: Revision,
    observer: Option<Box<dyn Observer>>,
}

/// A store without a disk.
pub struct MemoryStore {
    state: Mutex<State>,
    history: History,
}

impl MemoryStore {
    /// An empty store that keeps `history` changes for watchers.
    #[must_use]
    pub fn new(history: usize) -> Self {
        Self::of(Map::new(), 0, history)
    }

    /// A store that holds `entries` since `revision`.
    #[must_use]
    pub fn of(entries: BTreeMap<Vec<u8>, Vec<u8>>, revision: Revision, history: usize) -> Self {
        let state = State { map: entries, revision, observer: None };
        Self { state: Mutex::new(state), history: History::new(revision, history) }
    }

    /// All that it holds, and at which revision.
    #[must_use]
    pub fn entries(&self) -> (BTreeMap<Vec<u8>, Vec<u8>>, Revision) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.map.clone(), state.revision)
    }
}

impl Base for Map {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(BTreeMap::get(self, key).cloned())
    }

    fn scan(&self, prefix: &[u8], each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError> {
        for (key, value) in self.range(prefix.to_vec()..).take_while(|(k, _)| k.starts_with(prefix)) {
            if !each(key, value) {
                break;
            }
        }
        Ok(())
    }
}

impl Store for MemoryStore {
    fn submit(&self, mut body: Body, done: Done) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        let mut overlay = Overlay::new(&state.map);
        let changes = match body(&mut overlay) {
            Ok(Verdict::Commit) => overlay.changes(state.revision + 1),
            Ok(Verdict::Abort) => Ok(Vec::new()),
            Err(e) => Err(e),
        };
        let changes = match changes {
            Ok(changes) => changes,
            Err(e) => return done(Err(e)),
        };
        if !changes.is_empty() {
            state.revision += 1;
            for change in &changes {
                match &change.after {
                    Some(value) => drop(state.map.insert(change.key.clone(), value.clone())),
                    None => drop(state.map.remove(&change.key)),
                }
            }
            self.history.push(&changes, state.revision);
            if let Some(observer) = &mut state.observer {
                observer.committed(&changes);
            }
        }
        done(Ok(state.revision));
        if let Some(observer) = state.observer.as_mut().filter(|_| !changes.is_empty()) {
            observer.told(&changes);
        }
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Box::new(Still { map: state.map.clone(), revision: state.revision }))
    }

    fn history(&self) -> &History {
        &self.history
    }

    fn observe(&self, observer: Box<dyn Observer>) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).observer = Some(observer);
    }
}

struct Still {
    map: Map,
    revision: Revision,
}

impl Transaction for Still {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Base::get(&self.map, key)
    }

    fn scan(&self, prefix: &[u8], each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError> {
        Base::scan(&self.map, prefix, each)
    }

    fn put(&mut self, _key: Vec<u8>, _value: Vec<u8>) {}

    fn delete(&mut self, _key: Vec<u8>) {}
}

impl Snapshot for Still {
    fn revision(&self) -> Revision {
        self.revision
    }
}
