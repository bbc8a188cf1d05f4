//! Tenant systems that move here: what only the NVE knows that they move from is asked for when they are Associated,
//! and installed before they are Activated (requirements V2 to V4).
//!
//! ```text
//! Asked --context--> Handed --stopping--> Stopping --delta--> Settled --end, Activated--> (nothing)
//!   |                  Handed <----------------resumed------------/
//!   \------------------- the stream breaks: Waiting, then Asked again -----------------/
//! ```
//!
//! Of what comes the Oracle's watch has the last word: a VN Context counts only while no Oracle is heard, and addresses
//! are asked for. Nothing of it keeps an Associate or an Activate: they wait a moment for what is on its way, and then do
//! without. So who was told that it is Associated finds what an Activate needs there already.

use super::context::{Context, Delta, Fetch, Live, Moved, NotTaken, Taken, Taking, TransferId};
use super::flows::{Ends, Flows};
use super::tsi::{State, Tsi};
use super::{Core, Output, Timer};
use ::core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use weft_datapath::{Connection, Levels};
use weft_model::{Eid, Epoch, Grant, Time, TsiId, VnSpec, Wanted};

/// The first wait before a context is asked for again; each later one is twice as long.
const RETRY: Duration = Duration::from_secs(1);
/// The longest.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// Its context is asked for.
    Asked,
    /// It came, and it is in service there.
    Handed,
    /// It stops there: what has changed is on its way.
    Stopping,
    /// It has stopped there, and how it was at the end is known.
    Settled,
    /// That could not be had: it is asked for again later.
    Waiting,
}

/// One that moves here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Arrival {
    transfer: TransferId,
    /// The epoch at which it is held here.
    epoch: Epoch,
    phase: Phase,
    /// Before the next try.
    wait: Duration,
    /// Nothing was handed over yet, and no try has failed.
    first: bool,
    /// A call waits.
    holds: bool,
    groups: BTreeSet<Wanted>,
    flows: Flows,
    /// Addresses to be asked for.
    addresses: VecDeque<Eid>,
    /// What was left in its buckets, and when, if anything was said of them.
    levels: Option<(Levels, Time)>,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Arrivals {
    by_tsi: BTreeMap<TsiId, Arrival>,
    by_transfer: BTreeMap<TransferId, TsiId>,
    made: u64,
}

impl Core {
    /// Asks for the context of `id` if it moves here from another NVE; ends that if it does not any more.
    pub(super) fn review_arrival(&mut self, id: &TsiId) {
        let me = self.config.xtr_id;
        let Some(tsi) = self.tsis.get(id) else { return self.end_arrival(id) };
        let comes = |grant: &Grant| grant.owner != me && grant.next.is_some_and(|next| next.nve == me);
        let epoch = self.epoch_of(tsi);
        match self.arrivals.by_tsi.get(id) {
            // Also when it is the owner by now: what it was at the end may be under way.
            Some(arrival) if !tsi.is_lost() && arrival.epoch == epoch => return,
            Some(arrival) => {
                let held = arrival.holds;
                self.end_arrival(id);
                if held {
                    self.put_held_in_place(id);
                }
            }
            None => {}
        }
        let wanted = |tsi: &Tsi| !tsi.is_lost() && tsi.state == State::Associated && comes(&tsi.grant);
        if self.tsis.get(id).is_some_and(wanted) {
            let arrival = Arrival {
                transfer: TransferId(0),
                epoch,
                phase: Phase::Waiting,
                wait: RETRY,
                first: true,
                holds: false,
                groups: BTreeSet::new(),
                flows: Flows::default(),
                addresses: VecDeque::new(),
                levels: None,
            };
            self.arrivals.by_tsi.insert(id.clone(), arrival);
            self.fetch(id);
        }
    }

    /// Asks for a context, once more perhaps.
    pub(super) fn fetch(&mut self, id: &TsiId) {
        let (Some(tsi), Some(arrival)) = (self.tsis.get(id), self.arrivals.by_tsi.get_mut(id)) else {
            return;
        };
        let transfer = TransferId(self.arrivals.made);
        self.arrivals.made += 1;
        (arrival.transfer, arrival.phase) = (transfer, Phase::Asked);
        self.arrivals.by_transfer.insert(transfer, id.clone());
        let fetch = Fetch { transfer, vn: tsi.vn.clone(), name: id.name.clone(), from: tsi.grant.owner };
        self.outputs.push_back(Output::Fetch(fetch));
    }

    /// It does not move here any more, or is here no more. What came along goes, unless it is in service.
    pub(super) fn end_arrival(&mut self, id: &TsiId) {
        let Some(arrival) = self.arrivals.by_tsi.remove(id) else { return };
        for timer in [Timer::Await(id.clone()), Timer::Fetch(id.clone()), Timer::Prefetch(id.clone())] {
            self.timers.cancel(&timer);
        }
        if self.arrivals.by_transfer.remove(&arrival.transfer).is_some() {
            self.outputs.push_back(Output::EndFetch(arrival.transfer));
        }
        if let Some(tsi) = self.tsis.get(id).filter(|tsi| tsi.state == State::Associated)
            && !arrival.flows.is_empty()
        {
            self.outputs.push_back(Output::ForgetConnections(id.vni, tsi.grant.ips.clone()));
        }
    }

    /// A context has come.
    ///
    /// # Errors
    /// [`NotTaken`]: the stream it came by is of no use then.
    pub fn handle_context(
        &mut self,
        now: Time,
        transfer: TransferId,
        context: Context,
    ) -> Result<Taken, NotTaken> {
        self.now = now;
        let id = self.taking(transfer)?;
        let (ours, least) = self.check_context(&id, &context)?;
        if context.epoch >= ours || context.epoch < least {
            return Err(NotTaken::Epoch { tsi: id, theirs: context.epoch, least, ours });
        }
        self.counters.contexts_taken += 1;
        if let Some(arrival) = self.arrivals.by_tsi.get_mut(&id) {
            arrival.phase = if context.activated { Phase::Handed } else { Phase::Settled };
            (arrival.first, arrival.wait) = (false, RETRY);
            // One before it may have come from another run of that NVE.
            (arrival.flows, arrival.addresses) = (Flows::default(), VecDeque::new());
            arrival.levels = None;
        }
        self.take_intent(context.revision, context.vn);
        let taken = self.take_live(&id, context.live, None);
        self.go_on(&id);
        Ok(taken)
    }

    fn taking(&self, transfer: TransferId) -> Result<TsiId, NotTaken> {
        self.arrivals.by_transfer.get(&transfer).cloned().ok_or(NotTaken::Unasked(transfer))
    }

    /// This NVE's epoch and the least that the context may be of, if it is one that was asked for.
    fn check_context(&self, id: &TsiId, context: &Context) -> Result<(Epoch, Epoch), NotTaken> {
        let (Some(tsi), Some(arrival)) = (self.tsis.get(id), self.arrivals.by_tsi.get(id)) else {
            return Err(NotTaken::Another { asked: id.clone(), got: context.grant.tsi.clone() });
        };
        if context.grant.tsi != *id || context.vn.vni != id.vni {
            return Err(NotTaken::Another { asked: id.clone(), got: context.grant.tsi.clone() });
        }
        if arrival.phase != Phase::Asked {
            return Err(NotTaken::Twice(id.clone()));
        }
        // Once this NVE is the owner the one before it is not known here any more.
        let before = Some(tsi.grant.epoch).filter(|_| tsi.grant.owner != self.config.xtr_id);
        Ok((arrival.epoch, before.unwrap_or(Epoch::FIRST)))
    }

    /// A VN Context by another NVE's word: only while no Oracle is heard, and if it is not older than any seen.
    fn take_intent(&mut self, revision: u64, vn: VnSpec) {
        let heard = self.oracles.iter().any(|oracle| oracle.up);
        if heard || revision < self.revision || self.vns.get(&vn.vni) == Some(&vn) {
            return;
        }
        self.revision = revision;
        self.know_vn(vn);
        self.unsaved = true;
    }

    /// Takes in what only the other NVE knew: anew, or what has changed of it and which connections have ended.
    fn take_live(&mut self, id: &TsiId, live: Live, ended: Option<Vec<Ends>>) -> Taken {
        let most = self.config.limits.moved_connections.max(1);
        let Some(tsi) = self.tsis.get(id) else { return Taken::default() };
        // What is, or was, in service here makes connections of its own.
        let served = tsi.state == State::Activated || tsi.grant.owner == self.config.xtr_id;
        let (here, of) = (tsi.state == State::Activated, tsi.grant.ips.clone());
        let own = |c: &Connection| c.vni == id.vni && of.iter().any(|ip| ip.get() == c.local);
        let connections: Vec<Connection> = live.connections.into_iter().filter(own).take(most).collect();
        let mut addresses: VecDeque<Eid> =
            live.addresses.into_iter().take(self.config.limits.moved_addresses.max(1)).collect();
        addresses.retain(|eid| self.is_worth_asking(id, *eid));
        let taken =
            Taken { connections: connections.len(), groups: live.groups.len(), addresses: addresses.len() };
        let Some(arrival) = self.arrivals.by_tsi.get_mut(id) else { return Taken::default() };
        addresses.retain(|eid| !arrival.addresses.contains(eid));
        arrival.addresses.extend(addresses);
        // Of an older agent, or where there is no limit, nothing is said.
        if !live.levels.is_empty() {
            arrival.levels = Some((live.levels, self.now));
        }
        arrival.groups = live.groups.into_iter().take(self.config.limits.groups_per_vap.max(1)).collect();
        let mut gone = Vec::new();
        let how = match ended {
            _ if served => Taking::Missing,
            None => Taking::Afresh,
            Some(_) => Taking::Changed,
        };
        if !served {
            gone.extend(ended.iter().flatten().filter_map(|ends| arrival.flows.end(ends)));
            arrival.flows.take(self.now, connections.iter().copied(), most);
        }
        if !connections.is_empty() || !gone.is_empty() {
            let moved = Moved { vni: id.vni, of, connections, ended: gone, how };
            self.outputs.push_back(Output::Connections(moved));
        }
        if here {
            self.arrive(id);
        }
        self.timers.advance(Timer::Prefetch(id.clone()), self.now);
        // Its first answers are to be on their way before it is asked anything.
        for _ in 0..self.config.limits.moved_at_once.max(1) {
            self.prefetch(self.now, id);
        }
        taken
    }

    fn is_worth_asking(&self, id: &TsiId, eid: Eid) -> bool {
        let own = self.tsis.get(id).is_some_and(|tsi| tsi.eids().contains(&eid));
        let in_scope = match (eid, self.vns.get(&id.vni)) {
            (Eid::Ip(ip), Some(vn)) => super::cache::in_scope(vn, ip),
            _ => true,
        };
        !own && in_scope && !self.is_local(id.vni, eid) && !self.is_known(id.vni, eid)
    }

    /// Asks for the next address that is in use where it comes from: the first frames after Activate need no question.
    pub(super) fn prefetch(&mut self, now: Time, id: &TsiId) {
        self.timers.cancel(&Timer::Prefetch(id.clone()));
        while let Some(eid) = self.arrivals.by_tsi.get_mut(id).and_then(|a| a.addresses.pop_front()) {
            if !self.is_worth_asking(id, eid) {
                continue;
            }
            self.counters.asked_ahead += 1;
            // On nobody's account: its source is not here yet, and an Oracle takes no other's word for one.
            self.ask(now, id.vni, eid, None, None, None);
            if self.arrivals.by_tsi.get(id).is_some_and(|a| !a.addresses.is_empty()) {
                self.timers.set(Timer::Prefetch(id.clone()), now + self.config.timing.refresh_gap);
            }
            break;
        }
        self.settle_arrival(id);
    }

    /// It stops there, and what has changed of it follows.
    pub fn handle_stopping(&mut self, now: Time, transfer: TransferId) {
        self.now = now;
        let Ok(id) = self.taking(transfer) else { return };
        if let Some(arrival) = self.arrivals.by_tsi.get_mut(&id).filter(|a| a.phase == Phase::Handed) {
            arrival.phase = Phase::Stopping;
        }
    }

    /// It goes on there, after all.
    pub fn handle_resumed(&mut self, now: Time, transfer: TransferId) {
        self.now = now;
        let Ok(id) = self.taking(transfer) else { return };
        let stopped = |arrival: &&mut Arrival| matches!(arrival.phase, Phase::Stopping | Phase::Settled);
        if let Some(arrival) = self.arrivals.by_tsi.get_mut(&id).filter(stopped) {
            arrival.phase = Phase::Handed;
        }
    }

    /// It has stopped there: this is how it was at the end.
    ///
    /// # Errors
    /// [`NotTaken`]: the stream it came by is of no use then.
    pub fn handle_delta(&mut self, now: Time, transfer: TransferId, delta: Delta) -> Result<Taken, NotTaken> {
        self.now = now;
        let id = self.taking(transfer)?;
        match self.arrivals.by_tsi.get_mut(&id) {
            Some(arrival) if arrival.phase != Phase::Asked => arrival.phase = Phase::Settled,
            _ => return Err(NotTaken::Unasked(transfer)),
        }
        let taken = self.take_live(&id, delta.live, Some(delta.ended));
        self.go_on(&id);
        Ok(taken)
    }

    /// Nothing more comes: it is gone from there (`whole`), or the stream has broken, or there was none.
    pub fn handle_context_end(&mut self, now: Time, transfer: TransferId, whole: bool) {
        self.now = now;
        let Some(id) = self.arrivals.by_transfer.remove(&transfer) else { return };
        let here = self.tsis.get(&id).is_some_and(|tsi| tsi.state == State::Activated);
        let Some(arrival) = self.arrivals.by_tsi.get_mut(&id) else { return };
        arrival.first = false;
        if !whole {
            self.counters.contexts_failed += 1;
        }
        if arrival.phase != Phase::Settled {
            arrival.phase = Phase::Waiting;
            if !here {
                self.timers.set(Timer::Fetch(id.clone()), now + arrival.wait);
                arrival.wait = (arrival.wait * 2).min(RETRY_MAX);
            }
        }
        self.go_on(&id);
        self.settle_arrival(&id);
    }

    /// Time to ask again, if there is still anything to be had.
    pub(super) fn fetch_again(&mut self, id: &TsiId) {
        if self.tsis.get(id).is_some_and(|tsi| tsi.state == State::Associated && !tsi.is_lost()) {
            self.fetch(id);
        }
    }

    /// Whether an Associate or an Activate has to wait for what is under way: for a moment it does.
    pub(super) fn wait_for_context(&mut self, now: Time, id: &TsiId) -> bool {
        let Some(arrival) = self.arrivals.by_tsi.get_mut(id) else { return false };
        let comes = match arrival.phase {
            Phase::Asked => arrival.first,
            phase => phase == Phase::Stopping,
        };
        arrival.holds = comes;
        if comes {
            let timing = &self.config.timing;
            // It must not be taken for one that no Oracle acknowledged.
            let wait = timing.context.min(timing.acknowledge / 2);
            self.timers.set(Timer::Await(id.clone()), now + wait);
        }
        comes
    }

    /// A call has waited long enough, or for what has come.
    pub(super) fn go_on(&mut self, id: &TsiId) {
        if let Some(arrival) = self.arrivals.by_tsi.get_mut(id)
            && arrival.phase == Phase::Stopping
            && self.timers.is_set(&Timer::Await(id.clone()))
        {
            return;
        }
        self.timers.cancel(&Timer::Await(id.clone()));
        if let Some(arrival) = self.arrivals.by_tsi.get_mut(id)
            && !std::mem::take(&mut arrival.holds)
        {
            return;
        }
        self.put_held_in_place(id);
    }

    /// Whether one that moves here has stopped where it was, as far as that can be known.
    pub(super) fn has_stopped_there(&self, id: &TsiId) -> bool {
        self.arrivals.by_tsi.get(id).is_some_and(|arrival| match arrival.phase {
            Phase::Stopping | Phase::Settled | Phase::Waiting => true,
            // It could not be had before.
            Phase::Asked => !arrival.first,
            Phase::Handed => false,
        })
    }

    /// A call that waits has failed.
    pub(super) fn end_hold_of(&mut self, id: &TsiId) {
        self.timers.cancel(&Timer::Await(id.clone()));
        if let Some(arrival) = self.arrivals.by_tsi.get_mut(id) {
            arrival.holds = false;
        }
    }

    fn put_held_in_place(&mut self, id: &TsiId) {
        let waits = self.tsis.get(id).filter(|tsi| tsi.present && !tsi.is_lost());
        let ticket = waits.and_then(|tsi| tsi.waiting.as_ref()).map(|waiting| waiting.ticket);
        if let Some(ticket) = ticket {
            self.put_in_place(id, Some(ticket));
        }
    }

    /// It is in service here: it gets the groups that it wanted where it was, and no fuller buckets than it had there.
    pub(super) fn arrive(&mut self, id: &TsiId) {
        let Some(device) = self.tsis.get(id).map(|tsi| tsi.device.index) else { return };
        let Some(arrival) = self.arrivals.by_tsi.get_mut(id) else { return };
        let flows = std::mem::take(&mut arrival.flows);
        let groups = std::mem::take(&mut arrival.groups);
        if let Some((levels, at)) = arrival.levels.take() {
            self.outputs.push_back(Output::Lower(device, levels, self.now.since(at)));
        }
        // What others here have opened since they came may have taken their places. It carries traffic by now.
        if !flows.is_empty()
            && let Some(of) = self.tsis.get(id).map(|tsi| tsi.grant.ips.clone())
        {
            let (connections, how) = (flows.at(self.now), Taking::Missing);
            let moved = Moved { vni: id.vni, of, connections, ended: Vec::new(), how };
            self.outputs.push_back(Output::Connections(moved));
        }
        self.join_moved(id.vni, device, &groups);
        self.settle_arrival(id);
    }

    /// All that comes has come, and it is here.
    fn settle_arrival(&mut self, id: &TsiId) {
        let here = self.tsis.get(id).is_some_and(|tsi| tsi.state == State::Activated);
        let Some(arrival) = self.arrivals.by_tsi.get(id) else { return };
        let comes = self.arrivals.by_transfer.contains_key(&arrival.transfer);
        if here && !comes && arrival.addresses.is_empty() {
            self.end_arrival(id);
        }
    }

    /// Whether a call for it waits.
    pub(super) fn is_held(&self, id: &TsiId) -> bool {
        self.arrivals.by_tsi.get(id).is_some_and(|arrival| arrival.holds)
    }

    #[cfg(test)]
    pub(super) fn check_arrivals(&self) {
        for (id, arrival) in &self.arrivals.by_tsi {
            let tsi = &self.tsis[id];
            assert!(!tsi.is_lost());
            assert!(arrival.flows.len() <= self.config.limits.moved_connections.max(1));
            assert!(arrival.flows.is_empty() || tsi.state == State::Associated);
            assert_eq!(arrival.holds, self.timers.is_set(&Timer::Await(id.clone())));
            assert!(!arrival.holds || tsi.waiting.is_some());
            let tried = self.arrivals.by_transfer.get(&arrival.transfer) == Some(id);
            let later = self.timers.is_set(&Timer::Fetch(id.clone()));
            assert!(!(tried && later) && (tried || later || arrival.phase != Phase::Asked));
            assert_eq!(!arrival.addresses.is_empty(), self.timers.is_set(&Timer::Prefetch(id.clone())));
        }
        assert!(self.arrivals.by_transfer.len() <= self.arrivals.by_tsi.len());
        for timer in self.timers.by_key.keys() {
            if let Timer::Fetch(id) | Timer::Await(id) | Timer::Prefetch(id) = timer {
                assert!(self.arrivals.by_tsi.contains_key(id), "{timer:?}");
            }
        }
    }
}
