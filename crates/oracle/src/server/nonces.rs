//! Nonces of subscriptions on their way to the store. Nothing waits for one, and of each EID-Prefix the latest is
//! enough: so an xTR that subscribes and leaves without end costs one commit at a time, and keeps nothing else back.

use super::App;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;
use weft_lisp::Eid;
use weft_model::XtrId;

/// EID-Prefixes whose nonces wait for the commit before theirs.
const WAITING: usize = 65_536;
/// Nonces of one commit.
const AT_ONCE: usize = 1_024;

/// What is to be saved of an xTR's EID-Prefix: its last nonce, or none to forget it.
pub(super) type Save = (XtrId, Eid, Option<u64>);

/// What the shards have to be saved.
#[derive(Debug, Default)]
pub(super) struct Nonces {
    waiting: Mutex<BTreeMap<(XtrId, Eid), Option<u64>>>,
    some: Notify,
}

impl Nonces {
    /// Takes what is to be saved; false when too much waits. A nonce that is not saved is forgotten by a restart,
    /// like those that are forgotten for others'.
    pub(super) fn put(&self, (xtr, eid, nonce): Save) -> bool {
        let mut waiting = self.lock();
        let room = waiting.len() < WAITING || waiting.contains_key(&(xtr, eid));
        if room {
            waiting.insert((xtr, eid), nonce);
        }
        drop(waiting);
        self.some.notify_one();
        room
    }

    fn take(&self) -> Vec<Save> {
        let mut waiting = self.lock();
        let mut taken = Vec::new();
        while taken.len() < AT_ONCE
            && let Some(((xtr, eid), nonce)) = waiting.pop_first()
        {
            taken.push((xtr, eid, nonce));
        }
        taken
    }

    /// What could not be saved waits again, unless there is a later one.
    fn put_back(&self, taken: Vec<Save>) {
        let mut waiting = self.lock();
        for (xtr, eid, nonce) in taken {
            waiting.entry((xtr, eid)).or_insert(nonce);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(XtrId, Eid), Option<u64>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Saves what comes, one commit after the other; at a stop what waits still.
pub(super) async fn save(app: Arc<App>, nonces: Arc<Nonces>) {
    let mut stopped = false;
    while !stopped {
        stopped = tokio::select! {
            () = nonces.some.notified() => false,
            () = app.stop.cancelled() => true,
        };
        loop {
            let taken = nonces.take();
            if taken.is_empty() {
                break;
            }
            if let Err(e) = app.registry.save_subscription_nonces(taken.clone()).await {
                tracing::error!(error = %e, count = taken.len(), "subscriptions' nonces cannot be saved; with the next ones again");
                nonces.put_back(taken);
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n7_of_each_prefix_the_latest_nonce_waits_and_no_more_prefixes_than_are_kept() {
        let nonces = Nonces::default();
        let eid = |n: usize| Eid::host(1, std::net::Ipv4Addr::from(u32::try_from(n).unwrap()));
        let xtr = XtrId([1; 16]);
        for nonce in 0..10_000 {
            assert!(nonces.put((xtr, eid(0), Some(nonce))));
        }
        assert!(nonces.put((xtr, eid(1), Some(1))) && nonces.put((xtr, eid(1), None)));
        let taken = nonces.take();
        assert_eq!(taken, [(xtr, eid(0), Some(9_999)), (xtr, eid(1), None)]);
        // Not saved: what came meanwhile is later.
        assert!(nonces.put((xtr, eid(0), Some(10_000))));
        nonces.put_back(taken);
        assert_eq!(nonces.take(), [(xtr, eid(0), Some(10_000)), (xtr, eid(1), None)]);
        let put = (0..WAITING + 5).filter(|n| nonces.put((xtr, eid(*n), Some(1)))).count();
        assert_eq!(put, WAITING);
        assert!(nonces.put((xtr, eid(7), Some(2))), "one that waits is renewed");
        let batches = std::iter::from_fn(|| Some(nonces.take()).filter(|taken| !taken.is_empty()));
        let sizes: Vec<usize> = batches.map(|taken| taken.len()).collect();
        assert_eq!(sizes, vec![AT_ONCE; WAITING / AT_ONCE]);
    }
}
