//! Moves that are called off, or sent elsewhere. Who is next holds a tenant system from its acknowledgement on, which the
//! store is told a little later: in between the shard knows better and is asked first.

use super::{App, shard::Input};
use crate::{
    core::{Ending, shard_of},
    registry::{Caller, RegistryError},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::oneshot;
use weft_model::{Successor, TsiId, TsiName, VnName, XtrId};

/// How often, and after what time each, a shard is asked again that has not heard of who is next since it started: NVEs
/// come back within a second or two.
const AGAIN: (u32, Duration) = (50, Duration::from_millis(100));

impl App {
    /// Runs `change`, by which a move ends otherwise than where it goes to. One that is there already has ended: the
    /// store is told of it before.
    pub(super) async fn end_move<T: Send + 'static>(
        self: &Arc<Self>,
        (vn, tsi): (VnName, TsiName),
        caller: &Caller,
        change: impl Future<Output = Result<T, RegistryError>> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let Some(vni) = self.directory.vni(&vn) else { return change.await };
        // Who may not end it does not hold it up either.
        let (registry, name, who) = (self.registry.clone(), tsi.clone(), caller.clone());
        let named = vn.clone();
        super::blocking(move || registry.may_end_move(&named, &name, &who)).await??;
        let (app, id, by) = (self.clone(), TsiId { vni, name: tsi }, caller.nve());
        let ended = self.tasks.spawn(async move {
            match app.heard(&id, by).await {
                Some(Ending::Moved(next)) => {
                    app.registry.succeed(id, next.nve, next.epoch).await?;
                    change.await
                }
                Some(Ending::Kept(next)) => {
                    let done = change.await;
                    // What the store has changed the shard knows by now.
                    app.not_ended(id, next).await;
                    done
                }
                // Who is next knows best itself.
                Some(Ending::Unheard(next)) if by != Some(next.nve) => {
                    Err(RegistryError::Unheard { vn, tsi: id.name, nve: next.nve })
                }
                Some(Ending::Still | Ending::Unheard(_)) | None => change.await,
            }
        });
        // On its own: who asked may hang up, and what has begun comes to its end.
        ended.await.map_err(|_| crate::store::StoreError::Closed)?
    }

    /// What the shard says, once it has heard of who is next, if that does not take long.
    async fn heard(&self, tsi: &TsiId, by: Option<XtrId>) -> Option<Ending> {
        for _ in 0..AGAIN.0 {
            match self.ending(tsi).await {
                Some(Ending::Unheard(next)) if by != Some(next.nve) => tokio::time::sleep(AGAIN.1).await,
                said => return said,
            }
        }
        self.ending(tsi).await
    }

    async fn ending(&self, tsi: &TsiId) -> Option<Ending> {
        let (answer, answered) = oneshot::channel();
        let shard = self.shards.get(shard_of(tsi.vni.get(), self.shards.len()))?;
        shard.send(Input::Ending { tsi: tsi.clone(), answer }).await;
        answered.await.ok()
    }

    async fn not_ended(&self, tsi: TsiId, next: Successor) {
        if let Some(shard) = self.shards.get(shard_of(tsi.vni.get(), self.shards.len())) {
            shard.send(Input::NotEnded { tsi, next }).await;
        }
    }
}
