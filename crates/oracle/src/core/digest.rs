//! Digests of what an NVE has registered: equal at both ends when and only when (but for 64-bit chance)
//! both have the same records.

use weft_lisp::{EncodeOptions, Record};

use super::limits::mix;

/// The digest of one record: FNV-1a over its encoding with default options (TTL, ACT, Map-Version, EID
/// and locators as on the wire), stirred. 0 for a record that cannot be encoded.
///
/// The digest of a set of records is the wrapping sum of theirs, so order does not matter, and a record
/// is added to or taken from it in one step.
#[must_use]
pub fn record_digest(record: &Record<'_>) -> u64 {
    let mut octets = Vec::with_capacity(64);
    if record.encode(&mut octets, EncodeOptions::default()).is_err() {
        return 0;
    }
    let fnv = |hash: u64, octet: &u8| (hash ^ u64::from(*octet)).wrapping_mul(0x0000_0100_0000_01b3);
    mix(octets.iter().fold(0xcbf2_9ce4_8422_2325, fnv))
}
