//! Starts of agents: what one has asked for that has ended since may still be under way, and is not to undo what the next
//! one has asked for.

use super::{RegistryError, keys, read, write};
use crate::store::Transaction;
use weft_model::XtrId;

/// Notes that this start of `nve`'s agent asks, which ends all before it. One that does not say which it is passes.
pub(super) fn check(tx: &mut dyn Transaction, nve: XtrId, start: Option<u64>) -> Result<(), RegistryError> {
    let Some(start) = start else { return Ok(()) };
    let key = keys::start(nve);
    match read::<u64>(tx, &key)? {
        Some(latest) if latest > start => Err(RegistryError::Outlived { nve, start, latest }),
        Some(latest) if latest == start => Ok(()),
        _ => Ok(write(tx, key, &start)?),
    }
}
