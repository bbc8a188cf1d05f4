//! The daemon: threads, sockets, sessions, `/v1`, around the cores.
//!
//! ```text
//!            +-- UDP 4342 ------ shard thread 0..n   one core::Shard each; reads and answers itself
//!            |                     ^  inbox (bounded)    |
//!  network --+-- TLS TCP 4342 -- session tasks <---------+ frames; back-pressure both ways
//!            +-- HTTPS 4343 ---- /v1 tasks --> store thread --commit--> facts to the shards, then
//!            +-- HTTP 4344 ----- metrics                                 the answer to the caller
//! ```

mod addresses;
mod api;
mod backup;
mod clock;
mod descriptors;
mod doors;
mod duplicates;
mod echo;
mod error;
mod hub;
mod limit;
mod metrics;
mod moving;
mod nonces;
mod options;
mod session;
mod session_out;
mod shard;
mod shown;
mod start;
mod tls;
mod udp;

pub use addresses::Addresses;
pub use api::openapi;
pub use backup::{backup, restore};
pub use error::OracleError;
pub use options::OracleOptions;
pub use start::{Oracle, credentials, run};

use crate::{
    core::{Counters, Shard, shard_of},
    pki::Ca,
    registry::{Directory, Presence, Registry},
    store::StoreError,
};
use clock::Clock;
use hub::Hub;
use session::Sessions;
use shard::{Input, ShardHandle};
use std::{path::PathBuf, sync::Arc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use weft_model::{Name, Time, TsiId, XtrId};

/// What every part of the daemon shares.
pub(crate) struct App {
    name: Name,
    data_dir: PathBuf,
    clock: Clock,
    registry: Registry,
    directory: Arc<Directory>,
    ca: Ca,
    /// Shown by servers; its key signs tickets.
    certificate: Arc<tls::Certificate>,
    shards: Vec<ShardHandle>,
    sessions: Arc<Sessions>,
    /// What people ask of NVEs.
    desk: shown::Desk,
    /// Who claims what another holds.
    duplicates: Arc<duplicates::Duplicates>,
    hub: Arc<Hub>,
    /// Everything that must have ended before the store is closed.
    tasks: TaskTracker,
    addresses: Addresses,
    /// The daemon is stopping.
    stop: CancellationToken,
}

impl App {
    /// Asks every shard; those that are gone do not answer.
    async fn ask<R: Send + 'static>(
        &self,
        question: impl FnOnce(&Shard, Time) -> R + Clone + Send + 'static,
    ) -> Vec<R> {
        let asked = self.shards.iter().map(|shard| shard.ask(question.clone()));
        futures_util::future::join_all(asked).await.into_iter().flatten().collect()
    }

    /// Tells the shard concerned that `nve` is Activating a tenant system it holds.
    async fn activating(&self, nve: XtrId, tsi: TsiId) {
        if let Some(shard) = self.shards.get(shard_of(tsi.vni.get(), self.shards.len())) {
            shard.send(Input::Activating { nve, tsi }).await;
        }
    }

    /// Whether an NVE is there, for who takes from it what it holds; by force none is.
    async fn presence(&self, force: bool) -> impl Fn(XtrId) -> Presence + Send + use<> {
        let awaited = if force { Vec::new() } else { self.ask(|shard, _| shard.awaited().clone()).await };
        let sessions = self.sessions.clone();
        move |nve| match force {
            false if sessions.connected(nve) => Presence::Connected,
            false if awaited.iter().any(|awaited| awaited.contains(&nve)) => Presence::Unheard,
            _ => Presence::Gone,
        }
    }

    /// Whether every shard answers questions.
    async fn ready(&self) -> bool {
        let ready = self.ask(|shard, _| shard.ready()).await;
        ready.len() == self.shards.len() && ready.iter().all(|r| *r)
    }

    /// The counters of all shards together.
    async fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        for counters in self.ask(|shard, _| shard.counters().clone()).await {
            sum.add(&counters);
        }
        sum
    }
}

/// Runs `f`, which may wait for the disk or compute for long, off the asynchronous threads.
pub(crate) async fn blocking<R: Send + 'static>(
    f: impl FnOnce() -> R + Send + 'static,
) -> Result<R, StoreError> {
    tokio::task::spawn_blocking(f).await.map_err(|_| StoreError::Closed)
}
