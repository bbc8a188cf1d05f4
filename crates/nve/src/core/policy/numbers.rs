//! Numbers that the data plane knows things by, kept for as long as somebody uses them and then left alone for as long as
//! possible: what is reused soon could be taken for what it was before.

use std::collections::{BTreeMap, btree_map::Entry};

/// Numbers of things, each from 1 to `last`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Numbers<K: Ord> {
    by_key: BTreeMap<K, u32>,
    used: BTreeMap<u32, K>,
    /// The one given last.
    cursor: u32,
    last: u32,
}

impl<K: Ord + Clone> Numbers<K> {
    pub const fn up_to(last: u32) -> Self {
        Self { by_key: BTreeMap::new(), used: BTreeMap::new(), cursor: 0, last }
    }

    /// The number of `key`.
    pub fn get(&self, key: &K) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    /// The number of `key`, and whether it was given just now; none when there are no more.
    pub fn take(&mut self, key: &K) -> Option<(u32, bool)> {
        if let Some(number) = self.get(key) {
            return Some((number, false));
        }
        if self.used.len() >= usize::try_from(self.last).unwrap_or(usize::MAX) {
            return None;
        }
        let mut number = self.cursor;
        loop {
            number = if number >= self.last { 1 } else { number + 1 };
            if let Entry::Vacant(free) = self.used.entry(number) {
                free.insert(key.clone());
                break;
            }
        }
        self.cursor = number;
        self.by_key.insert(key.clone(), number);
        Some((number, true))
    }

    /// What has this number.
    pub fn key(&self, number: u32) -> Option<&K> {
        self.used.get(&number)
    }

    /// How many there are still.
    pub fn left(&self) -> usize {
        usize::try_from(self.last).unwrap_or(usize::MAX).saturating_sub(self.used.len())
    }

    /// `key` had this number before; whether it may have it still.
    pub fn restore(&mut self, key: K, number: u32) -> bool {
        if !(1..=self.last).contains(&number) || self.by_key.contains_key(&key) {
            return false;
        }
        let Entry::Vacant(free) = self.used.entry(number) else { return false };
        free.insert(key.clone());
        self.by_key.insert(key, number);
        true
    }

    /// Numbers up to this one were given before; new ones come after.
    pub fn begin_after(&mut self, number: u32) {
        self.cursor = self.cursor.max(number.min(self.last));
    }

    /// Forgets `key`.
    pub fn free(&mut self, key: &K) {
        if let Some(number) = self.by_key.remove(key) {
            self.used.remove(&number);
        }
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, u32)> {
        self.by_key.iter().map(|(key, number)| (key, *number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_left_alone_for_as_long_as_possible() {
        let mut numbers = Numbers::up_to(3);
        assert_eq!(
            [numbers.take(&"a"), numbers.take(&"b"), numbers.take(&"a")],
            [Some((1, true)), Some((2, true)), Some((1, false))]
        );
        assert_eq!((numbers.key(2), numbers.key(3)), (Some(&"b"), None));
        numbers.free(&"a");
        assert_eq!((numbers.key(1), numbers.left()), (None, 2));
        assert_eq!(numbers.take(&"c"), Some((3, true)));
        assert_eq!(numbers.take(&"d"), Some((1, true)));
        assert_eq!(numbers.take(&"e"), None);
        assert!(!numbers.restore("e", 2) && !numbers.restore("e", 4));
        numbers.free(&"b");
        assert!(numbers.restore("e", 2) && numbers.get(&"e") == Some(2));
    }
}
