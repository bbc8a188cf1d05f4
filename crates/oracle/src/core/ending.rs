//! Moves that are called off, or sent elsewhere, while who is next may be about to hold the tenant system: it holds it
//! as soon as this shard has taken its registration, which the store is told a little later. So the shard is asked first,
//! and from then on until the store has decided takes no such registration.

use super::Shard;
use weft_model::{Eid, Successor, Time, TsiId};

/// How a move stands that is to end otherwise than where it goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It does not move.
    Still,
    /// Who is next has not Activated it, and does not until the grant names it no more, or until
    /// [`Shard::handle_not_ended`].
    Kept(Successor),
    /// Who is next holds it: it has moved.
    Moved(Successor),
    /// Who is next has not said since the start what it has: an Oracle before this one may have told it that it holds it,
    /// and have died before the store knew. For a while only: who is gone is not waited for longer than
    /// [`Timing::settle`](super::Timing::settle).
    Unheard(Successor),
}

impl Shard {
    /// Takes that the move of a tenant system is about to be called off, or to go elsewhere.
    pub fn handle_ending(&mut self, tsi: &TsiId) -> Ending {
        let Some(ix) = self.db.by_name(tsi) else { return Ending::Still };
        let Some(known) = self.db.get(ix) else { return Ending::Still };
        match (known.claim, known.grant.next) {
            (Some(claim), _) => Ending::Moved(claim),
            (None, None) => Ending::Still,
            (None, Some(next)) if self.awaited.contains(&next.nve) => Ending::Unheard(next),
            (None, Some(next)) => {
                self.db.set_ending(ix, next, true);
                Ending::Kept(next)
            }
        }
    }

    /// Takes that it goes on to who is `next`: the store has changed nothing.
    pub fn handle_not_ended(&mut self, now: Time, tsi: &TsiId, next: Successor) {
        let Some(ix) = self.db.by_name(tsi) else { return };
        self.db.set_ending(ix, next, false);
        let eids: Vec<Eid> = self.db.get(ix).map(|tsi| tsi.eids().collect()).unwrap_or_default();
        self.register_parked(now, next.nve, tsi.vni, &eids);
    }
}
