//! Digests of sets of records: what both ends of a session compare to find that they disagree.

/// Number of records of a set, and the wrapping sum of their digests: independent of order, and a record
/// is added or taken away in one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    /// How many records.
    pub count: u32,
    /// The sum of their digests.
    pub sum: u64,
}

impl Digest {
    /// Adds the record with this wire encoding.
    pub const fn add_record(&mut self, octets: &[u8]) {
        self.count = self.count.saturating_add(1);
        self.sum = self.sum.wrapping_add(record(octets));
    }

    /// Takes another set's records, all of them in this one, out of it.
    pub const fn remove(&mut self, other: Self) {
        self.count = self.count.saturating_sub(other.count);
        self.sum = self.sum.wrapping_sub(other.sum);
    }

    /// Adds another set's records.
    pub const fn add(&mut self, other: Self) {
        self.count = self.count.saturating_add(other.count);
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

/// The digest of one record: 64-bit FNV-1a over its wire encoding, stirred so that sums of digests do not
/// cancel out.
#[must_use]
pub const fn record(octets: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut rest = octets;
    while let [octet, behind @ ..] = rest {
        hash = (hash ^ *octet as u64).wrapping_mul(0x0000_0100_0000_01b3);
        rest = behind;
    }
    mix(hash)
}

/// The finalizer of splitmix64: every bit of the result depends on every bit of `x`.
const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_and_content_does() {
        let of = |records: &[&[u8]]| {
            let mut digest = Digest::default();
            records.iter().for_each(|r| digest.add_record(r));
            digest
        };
        assert_eq!(of(&[b"a", b"bc"]), of(&[b"bc", b"a"]));
        assert_ne!(of(&[b"a", b"bc"]), of(&[b"ab", b"c"]));
        assert_ne!(of(&[b"a", b"a"]).sum, of(&[b"b", b"b"]).sum);
        let mut sum = of(&[b"a"]);
        sum.add(of(&[b"bc"]));
        assert_eq!(sum, of(&[b"a", b"bc"]));
        sum.remove(of(&[b"a"]));
        assert_eq!(sum, of(&[b"bc"]));
    }

    #[test]
    fn known_answer() {
        // Both ends of a session may be of different versions: the function must not change.
        assert_eq!(mix(0xaf63_dc4c_8601_ec8c), record(b"a"), "FNV-1a of 'a' is in its reference tables");
    }
}
