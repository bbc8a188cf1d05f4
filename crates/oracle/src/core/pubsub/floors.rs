//! The nonces below which a plain xTR's subscriptions do not count any more.

use std::collections::BTreeMap;

use weft_lisp as lisp;

/// For each EID-Prefix the last nonce that was acknowledged; kept beyond the subscription, so that an old
/// Map-Request stays old (RFC 9437 section 5).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Floors {
    nonces: BTreeMap<lisp::Eid, Floor>,
    /// Raised with each use.
    clock: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Floor {
    nonce: u64,
    used: u64,
}

impl Floors {
    /// What was saved.
    pub(crate) fn new(saved: &BTreeMap<lisp::Eid, u64>) -> Self {
        let floors = saved.iter().map(|(eid, nonce)| (*eid, Floor { nonce: *nonce, used: 0 }));
        Self { nonces: floors.collect(), clock: 0 }
    }

    /// The last nonce of a prefix; none when it has never had one.
    pub(crate) fn get(&self, eid: lisp::Eid) -> Option<u64> {
        self.nonces.get(&eid).map(|floor| floor.nonce)
    }

    /// A nonce was acknowledged.
    pub(crate) fn raise(&mut self, eid: lisp::Eid, nonce: u64) {
        self.clock += 1;
        let used = self.clock;
        let floor = self.nonces.entry(eid).or_insert(Floor { nonce, used });
        *floor = Floor { nonce: floor.nonce.max(nonce), used };
    }

    /// Takes over what is higher elsewhere.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (eid, floor) in &other.nonces {
            let mine = self.nonces.entry(*eid).or_insert(*floor);
            mine.nonce = mine.nonce.max(floor.nonce);
        }
    }

    /// Forgets the longest unused one that is not `kept`, when there are more than `limit`; gives its prefix.
    pub(crate) fn bound(&mut self, limit: usize, kept: impl Fn(lisp::Eid) -> bool) -> Option<lisp::Eid> {
        if self.nonces.len() <= limit {
            return None;
        }
        let unused = self.nonces.iter().filter(|(eid, _)| !kept(**eid));
        let (eid, _) = unused.min_by_key(|(_, floor)| floor.used)?;
        let eid = *eid;
        self.nonces.remove(&eid);
        Some(eid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n7_the_longest_unused_floor_makes_room() {
        let eid = |n: u8| lisp::Eid::host(1, [2, 0, 0, 0, 0, n]);
        let mut floors = Floors::new(&BTreeMap::from([(eid(1), 9)]));
        floors.raise(eid(2), 5);
        floors.raise(eid(1), 3);
        assert_eq!((floors.get(eid(1)), floors.get(eid(2))), (Some(9), Some(5)), "a floor never falls");
        floors.raise(eid(3), 1);
        assert_eq!(floors.bound(3, |_| false), None);
        assert_eq!(floors.bound(2, |other| other == eid(2)), Some(eid(1)));
        assert_eq!(floors.bound(1, |_| true), None);
        floors.merge(&Floors::new(&BTreeMap::from([(eid(2), 4), (eid(3), 8)])));
        assert_eq!((floors.get(eid(2)), floors.get(eid(3))), (Some(5), Some(8)));
    }
}
