//! A part of a state, shared by all states in which it is the same: most steps change one of them.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};

/// A value with its hash, which is made once for each value, when it is first asked for.
pub struct Part<T> {
    value: Arc<T>,
    hash: OnceLock<u64>,
}

impl<T: Hash + Clone> Part<T> {
    /// A new value.
    pub fn new(value: T) -> Self {
        Self { value: Arc::new(value), hash: OnceLock::new() }
    }

    /// The value.
    pub fn get(&self) -> &T {
        &self.value
    }

    /// Changes it.
    pub fn change<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> R {
        self.hash = OnceLock::new();
        change(Arc::make_mut(&mut self.value))
    }
}

impl<T: Hash> Part<T> {
    /// With its hash: whoever is given one has it, too.
    pub fn hashed(self) -> Self {
        self.hash_of();
        self
    }

    fn hash_of(&self) -> u64 {
        *self.hash.get_or_init(|| {
            // With the same keys in each run.
            let mut hasher = DefaultHasher::new();
            self.value.hash(&mut hasher);
            hasher.finish()
        })
    }
}

impl<T> std::ops::Deref for Part<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// Whatever is changed by it gets another hash.
impl<T: Clone> std::ops::DerefMut for Part<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.hash = OnceLock::new();
        Arc::make_mut(&mut self.value)
    }
}

impl<T> Clone for Part<T> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), hash: self.hash.clone() }
    }
}

impl<T: Hash> Hash for Part<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash_of().hash(state);
    }
}

impl<T: PartialEq> PartialEq for Part<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.value, &other.value) || self.value == other.value
    }
}

impl<T: Eq> Eq for Part<T> {}

impl<T: Hash> fmt::Debug for Part<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.hash_of())
    }
}
