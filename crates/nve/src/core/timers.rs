//! A set of named deadlines, ordered by time.

use std::collections::{BTreeMap, BTreeSet};
use weft_model::Time;

/// Deadlines by key; a key has at most one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Timers<K: Ord> {
    pub(super) by_time: BTreeSet<(Time, K)>,
    pub(super) by_key: BTreeMap<K, Time>,
}

impl<K: Ord> Default for Timers<K> {
    fn default() -> Self {
        Self { by_time: BTreeSet::new(), by_key: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Timers<K> {
    /// Sets the deadline of `key`, in place of an earlier one.
    pub fn set(&mut self, key: K, at: Time) {
        self.cancel(&key);
        self.by_time.insert((at, key.clone()));
        self.by_key.insert(key, at);
    }

    /// Sets the deadline of `key` unless there is an earlier one.
    pub fn advance(&mut self, key: K, at: Time) {
        if self.by_key.get(&key).is_none_or(|old| *old > at) {
            self.set(key, at);
        }
    }

    /// Forgets the deadline of `key`.
    pub fn cancel(&mut self, key: &K) {
        if let Some(at) = self.by_key.remove(key) {
            self.by_time.remove(&(at, key.clone()));
        }
    }

    /// Whether `key` has a deadline.
    #[must_use]
    pub fn is_set(&self, key: &K) -> bool {
        self.by_key.contains_key(key)
    }

    /// The earliest deadline.
    #[must_use]
    pub fn next(&self) -> Option<Time> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes one deadline that has come.
    pub fn pop_due(&mut self, now: Time) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        let (_, key) = self.by_time.pop_first()?;
        self.by_key.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_deadline_and_they_come_in_order() {
        let mut timers = Timers::default();
        timers.set('a', Time(5));
        timers.set('b', Time(3));
        timers.set('a', Time(1));
        assert_eq!(timers.pop_due(Time(0)), None);
        assert_eq!(timers.pop_due(Time(9)), Some('a'));
        assert_eq!(timers.next(), Some(Time(3)));
        timers.cancel(&'b');
        assert_eq!(timers.pop_due(Time(9)), None);
        assert_eq!(timers, Timers::default());
    }
}
