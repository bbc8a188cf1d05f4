//! A transaction's writes, kept apart until it commits.

use super::{Change, Revision, StoreError, Transaction};
use std::{collections::BTreeMap, sync::Arc};

/// What an overlay reads through to.
pub(super) trait Base {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    fn scan(&self, prefix: &[u8], each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError>;
}

pub(super) struct Overlay<'a> {
    base: &'a dyn Base,
    writes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl<'a> Overlay<'a> {
    pub(super) fn new(base: &'a dyn Base) -> Self {
        Self { base, writes: BTreeMap::new() }
    }

    /// The writes that change something.
    pub(super) fn changes(self, revision: Revision) -> Result<Vec<Arc<Change>>, StoreError> {
        let mut changes = Vec::new();
        for (key, after) in self.writes {
            let before = self.base.get(&key)?;
            if before != after {
                changes.push(Arc::new(Change { revision, key, before, after }));
            }
        }
        Ok(changes)
    }
}

impl Transaction for Overlay<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.writes.get(key) {
            Some(write) => Ok(write.clone()),
            None => self.base.get(key),
        }
    }

    fn scan(&self, prefix: &[u8], each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError> {
        let mut ours =
            self.writes.range(prefix.to_vec()..).take_while(|(k, _)| k.starts_with(prefix)).peekable();
        let mut go_on = true;
        self.base.scan(prefix, &mut |key, value| {
            while let Some((k, v)) = ours.next_if(|(k, _)| k.as_slice() < key) {
                if let Some(v) = v {
                    go_on = each(k, v);
                    if !go_on {
                        return false;
                    }
                }
            }
            go_on = match ours.next_if(|(k, _)| k.as_slice() == key) {
                Some((k, Some(v))) => each(k, v),
                Some((_, None)) => true,
                None => each(key, value),
            };
            go_on
        })?;
        for (k, v) in ours {
            if !go_on {
                break;
            }
            if let Some(v) = v {
                go_on = each(k, v);
            }
        }
        Ok(())
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.writes.insert(key, Some(value));
    }

    fn delete(&mut self, key: Vec<u8>) {
        self.writes.insert(key, None);
    }
}
