//! Digests of what an NVE has registered: equal at both ends when and only when (but for 64-bit chance)
//! both have the same records.

use weft_lisp::{EncodeOptions, Record};
use weft_model::digest;

/// The digest of one record: [`weft_model::digest::record`] of its encoding with default options (TTL,
/// ACT, Map-Version, EID and locators as on the wire). 0 for a record that cannot be encoded.
#[must_use]
pub fn record_digest(record: &Record<'_>) -> u64 {
    let mut octets = Vec::with_capacity(64);
    match record.encode(&mut octets, EncodeOptions::default()) {
        Ok(()) => digest::record(&octets),
        Err(_) => 0,
    }
}
