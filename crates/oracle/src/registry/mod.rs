//! What the Oracle knows for good: VNs, grants, addresses, NVEs, join tokens.
//!
//! Every operation is one transaction of the [`Store`]: it either happened, with all its index
//! keys, or it did not.

mod access;
mod addresses;
mod connections;
mod directory;
mod error;
mod facts;
mod grants;
mod groups;
mod joins;
pub(crate) mod keys;
mod moves;
mod moving;
mod nves;
mod pool;
mod records;
mod starts;
mod subscriptions;
#[cfg(test)]
mod tests;
mod tunnels;
mod vns;
mod xtrs;

pub use access::Caller;
pub use directory::Directory;
pub use error::RegistryError;
pub use facts::fact;
pub use grants::{Granted, MAX_IPS, MAX_LINK_LOCALS, Presence, Released, Wish};
pub use joins::{Enrolment, Joined};
pub use records::{NveRecord, TokenRecord, XtrRecord};

pub(crate) use grants::raise_floors;
pub(crate) use keys::Kind;
pub(crate) use records::decode;
pub(crate) use subscriptions::subscription_nonces;
pub(crate) use xtrs::saved_nonce;

use crate::store::{Revision, Snapshot, Store, StoreError, Transaction, transact};
use pool::Pools;
use std::sync::{Arc, Mutex};
use weft_model::GroupLimits;

/// What the Oracle knows for good.
#[derive(Clone)]
pub struct Registry {
    store: Arc<dyn Store>,
    /// Where free addresses are to be found; the store has the last word.
    pools: Arc<Mutex<Pools>>,
    /// Bounds of access policy.
    limits: GroupLimits,
}

impl Registry {
    /// The registry kept in `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, pools: Arc::default(), limits: GroupLimits::default() }
    }

    /// The same with other bounds of access policy.
    #[must_use]
    pub fn with_limits(self, limits: GroupLimits) -> Self {
        Self { limits, ..self }
    }

    /// The store below.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The present state.
    ///
    /// # Errors
    /// [`RegistryError::Store`].
    pub fn snapshot(&self) -> Result<Box<dyn Snapshot>, RegistryError> {
        Ok(self.store.snapshot()?)
    }

    async fn run<R, F>(&self, mut body: F) -> Result<(R, Revision), RegistryError>
    where
        R: Send + 'static,
        F: FnMut(&mut dyn Transaction) -> Result<R, RegistryError> + Send + 'static,
    {
        let done = transact(&*self.store, move |tx| match body(tx) {
            Err(RegistryError::Store(e)) => Err(e),
            other => Ok(other),
        })
        .await;
        match done {
            Ok(result) => result,
            Err(e) => {
                // Addresses noted as taken were not: look at the store afresh.
                pool::lock(&self.pools).clear();
                Err(e.into())
            }
        }
    }
}

/// Reads and decodes `key`.
fn read<T: serde::de::DeserializeOwned>(tx: &dyn Transaction, key: &[u8]) -> Result<Option<T>, StoreError> {
    tx.get(key)?.map(|value| decode(key, &value)).transpose()
}

/// Encodes and writes `key`.
fn write<T: serde::Serialize>(tx: &mut dyn Transaction, key: Vec<u8>, value: &T) -> Result<(), StoreError> {
    let value = serde_json::to_vec(value).map_err(|e| StoreError::Failed(e.to_string()))?;
    tx.put(key, value);
    Ok(())
}
