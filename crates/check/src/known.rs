//! What a core does with what it is handed is worked out once: the same core, handed the same thing at the same time, does
//! the same again. In all orders of events there are far fewer of its own states than of everything's.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use crate::host::{Start, Worked};
use crate::oracle::Said;
use crate::part::Part;
use crate::state::Ran;
use weft_oracle::core::Shard;

/// Answers kept of each kind; then all are forgotten.
const MOST: usize = 60_000;

/// Answers by the hash of what they depend on, as the checker knows states by theirs.
pub(crate) struct Memo<V>(Mutex<BTreeMap<u64, Arc<V>>>);

impl<V> Default for Memo<V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<V> Memo<V> {
    /// The answer to `key`, which is made if it is not known.
    pub(crate) fn get(&self, key: &impl Hash, make: impl FnOnce() -> V) -> Arc<V> {
        // With the same keys in each run.
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let key = hasher.finish();
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(&key) {
            return known.clone();
        }
        // Others go on meanwhile; two that make the same make the same.
        let made = Arc::new(make());
        let mut all = lock();
        if all.len() >= MOST {
            all.clear();
        }
        all.insert(key, made.clone());
        made
    }
}

/// All of them, of one model.
#[derive(Clone, Default)]
pub(crate) struct Known(Arc<All>);

#[derive(Default)]
pub(crate) struct All {
    pub(crate) hosts: Memo<Worked>,
    pub(crate) starts: Memo<Start>,
    pub(crate) oracle: Memo<Said>,
    pub(crate) shards: Memo<Part<Shard>>,
    pub(crate) store: Memo<Ran>,
    pub(crate) delivered: Memo<Result<(), String>>,
    pub(crate) rest: Memo<Result<(), String>>,
}

impl std::ops::Deref for Known {
    type Target = All;

    fn deref(&self) -> &All {
        &self.0
    }
}

/// What is known is no part of a state.
impl Hash for Known {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl PartialEq for Known {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Known {}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}
