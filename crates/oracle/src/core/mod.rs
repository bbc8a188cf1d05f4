//! The Oracle's sans-IO core: grants, mapping database, Map-Server, Map-Resolver, conversations, liveness.
//!
//! A [`Shard`] holds the mapping database of a subset of the VNs and is owned by one thread. It knows no
//! sockets, clocks or threads: time, datagrams, frames and durable facts are handed in, octets and events
//! are taken out. The same inputs give the same outputs, whoever drives it: the daemon, the simulator, a
//! model checker, a fuzzer.
//!
//! ```text
//!   store ------ Fact ------> +-------+ -- Event ------> store, log, alarms
//!   sessions --- frames ----> | Shard | -- Transmit ---> sessions, UDP 4342, echoes
//!   UDP 4342 --- datagrams -> +-------+ -- views ------> /v1
//! ```
//!
//! # Driving a shard
//!
//! After each `handle_*`, take everything from [`Shard::poll_event`], then from [`Shard::poll_transmit`],
//! and call [`Shard::handle_timeout`] when the time of [`Shard::poll_timeout`] has come.
//!
//! ```
//! use weft_oracle::core::{Fact, Owner, Shard, ShardConfig, owner};
//! use weft_model::Time;
//!
//! let mut shard = Shard::new(ShardConfig::default(), Time::default());
//! shard.handle_fact(Time::default(), Fact::FactsLoaded);
//! let datagram = [0_u8; 12]; // what recv_from gave
//! assert_eq!(owner(&datagram, 1), Owner::Any); // to whom it goes
//! let (from, at) = ("192.0.2.1:4342".parse()?, "192.0.2.9".parse()?);
//! shard.handle_datagram(Time::from_millis(5), from, at, &datagram);
//! let mut octets = Vec::new();
//! while let Some(transmit) = shard.poll_transmit(&mut octets) {
//!     println!("{transmit:?}: {} octets", octets.len());
//! }
//! # Ok::<(), std::net::AddrParseError>(())
//! ```

mod claims;
mod config;
mod conversations;
mod counters;
mod database;
mod digest;
mod ending;
mod error;
mod facts;
mod forward;
mod groups;
mod limits;
mod liveness;
mod members;
mod nodes;
mod output;
mod publish;
mod pubsub;
mod push;
mod resolver;
mod route;
mod server;
mod subscribe;
#[cfg(test)]
mod tests;
mod views;
mod wire;
mod witnesses;
mod xtr;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use weft_lisp::{Ecm, MessageType};
use weft_model::{Eid, Grant, Rloc, Time, TsiId, VnSpec, Vni, XtrId};

use conversations::{AskKey, Asks};
use database::{Database, TsiIx};
use groups::Receivers;
use limits::{Nonces, TokenBucket};
use nodes::{Node, Nodes};
use output::Outbox;
use pubsub::Subscriptions;
use push::Published;
use subscribe::{Subscribers, Turns};
use witnesses::Witnesses;
use xtr::{PlainXtr, Solicit};

pub use config::{Limits, RecordTtl, ShardConfig, Timing};
pub use counters::Counters;
pub use database::{Locator, MAX_LOCATORS};
pub use digest::record_digest;
pub use ending::Ending;
pub use error::Refusal;
pub use facts::{Fact, NveFact, XtrFact};
pub use output::{Event, SessionId, Transmit};
pub use pubsub::NotSubscribed;
pub use route::{Owner, owner, peek_frame_vni, shard_of};
pub use server::SessionEvent;
pub use views::{ConversationView, MappingView, MemberView, NodeView};

/// What is due at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Timer {
    Liveness(XtrId),
    Digest(XtrId, SessionId),
    Expiry(TsiIx, XtrId),
    Activation(TsiIx),
    Smr(AskKey),
    Parked(XtrId, SessionId, Vni, Eid),
    /// An NVE was asked for groups that had found no room.
    Lost(XtrId, SessionId, Vni),
    /// Snapshots go on.
    Push,
    /// A Map-Notify to a subscriber is not acknowledged.
    Unacked(pubsub::Slot),
    /// A subscription ends unless its address is somebody's.
    Temporary(pubsub::Slot),
    /// Publications go on.
    Publish,
    /// Whoever has not registered by now has nothing.
    Settled,
}

/// The mapping database of a subset of the VNs, with everything that protocol needs around it.
///
/// Equal shards behave alike; their [`Counters`] may differ.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shard {
    config: ShardConfig,
    nonces: Nonces,
    /// All facts have been named once.
    loaded: bool,
    vns: BTreeMap<Vni, VnSpec>,
    db: Database,
    nodes: Nodes,
    asks: Asks,
    /// Asks that had to make room, until who asked is told.
    evicted: Vec<AskKey>,
    smrs: BTreeMap<AskKey, Solicit>,
    timers: BTreeSet<(Time, Timer)>,
    /// When the one expiry timer of a plain xTR's registration is due: not after the registration ends.
    expiries: BTreeMap<(TsiIx, XtrId), Time>,
    /// What is pushed of the VNs whose mappings are.
    published: BTreeMap<Vni, Published>,
    subscribers: Subscribers,
    /// Who has receivers of which groups.
    receivers: Receivers,
    turns: Turns,
    /// Of plain xTRs, over UDP.
    subscriptions: Subscriptions,
    /// NVEs that hold grants and have not said since the start what they have.
    awaited: BTreeSet<XtrId>,
    /// Too many NVEs are lost at once; since when.
    alarmed: Option<Time>,
    witnesses: Witnesses,
    frame_id: u32,
    out: Outbox,
    counters: Counters,
}

impl Shard {
    /// An empty shard. It answers nothing until [`Fact::FactsLoaded`].
    #[must_use]
    pub fn new(config: ShardConfig, _now: Time) -> Self {
        Self {
            nonces: Nonces::new(config.seed),
            turns: Turns::new(config.limits.push_octets.max(1)),
            subscriptions: Subscriptions::new(config.limits.notifies_per_turn.max(1)),
            config,
            loaded: false,
            vns: BTreeMap::new(),
            db: Database::default(),
            nodes: Nodes::default(),
            asks: Asks::default(),
            evicted: Vec::new(),
            smrs: BTreeMap::new(),
            timers: BTreeSet::new(),
            expiries: BTreeMap::new(),
            published: BTreeMap::new(),
            subscribers: Subscribers::default(),
            receivers: Receivers::default(),
            awaited: BTreeSet::new(),
            alarmed: None,
            witnesses: Witnesses::default(),
            frame_id: 0,
            out: Outbox::default(),
            counters: Counters::default(),
        }
    }

    /// Takes a durable fact. Facts come in the order of the store.
    pub fn handle_fact(&mut self, now: Time, fact: Fact) {
        match fact {
            Fact::Vn(spec) if self.owns(spec.vni) => {
                let vni = spec.vni;
                self.put_vn(spec);
                self.review_subscriptions(None, Some(vni));
            }
            Fact::VnGone(vni) => {
                self.vns.remove(&vni);
                self.asks.remove_vn(vni);
                self.end_vn(now, vni);
                self.review_subscriptions(None, Some(vni));
            }
            Fact::Grant(grant) if self.owns(grant.tsi.vni) => self.put_grant(now, grant),
            Fact::GrantGone(tsi) => {
                if let Some(ix) = self.db.by_name(&tsi) {
                    self.remove_grant(now, ix);
                }
            }
            Fact::Nve(nve) => self.put_nve(now, nve),
            Fact::NveGone(nve) => self.remove_node(now, nve),
            Fact::Xtr(fact) => self.put_xtr(now, fact),
            Fact::FactsLoaded => {
                if !std::mem::replace(&mut self.loaded, true) {
                    self.await_registrations(now);
                    self.event(Event::Ready);
                }
            }
            // Another shard's.
            Fact::Vn(_) | Fact::Grant(_) => {}
        }
    }

    /// Takes that `nve`, which has just been granted a TSI, Activates it: whoever asked for it is told where
    /// it is now rather than when its registration, which follows, has come. Only a holder that has
    /// registered nothing yet can say so; when no registration follows, who was told is told otherwise.
    pub fn handle_activating(&mut self, now: Time, nve: XtrId, tsi: &TsiId) {
        let Some(ix) = self.db.by_name(tsi) else { return };
        // Without a session here no registration follows soon.
        if self.nodes.get(nve).is_none_or(|node| node.session.is_none()) {
            return;
        }
        let Some(before) = self.before(ix) else { return };
        let until = now + self.config.timing.activation;
        if self.db.set_activating(ix, nve, until) {
            self.arm(until, Timer::Activation(ix));
            self.publish(now, before);
        }
    }

    /// A TSI that was about to be registered is so by now, or its holder did not live to do it.
    fn review_activation(&mut self, now: Time, ix: TsiIx) {
        match self.db.get(ix).and_then(|tsi| tsi.activating) {
            // Said again, or of another TSI that has the number now.
            Some(until) if until > now => self.arm(until, Timer::Activation(ix)),
            Some(_) => {
                let Some(before) = self.before(ix) else { return };
                self.db.end_activating(ix);
                self.counters.activations_without_registration += 1;
                self.publish(now, before);
            }
            None => {}
        }
    }

    /// Takes what happened on a session.
    pub fn handle_session(&mut self, now: Time, event: SessionEvent<'_>) {
        self.on_session(now, event);
    }

    /// Takes a datagram that came from `src` to `dst`, port 4342: an ECM with a Map-Request, a Map-Register,
    /// a Map-Notify-Ack, or a Solicit-Map-Request for the NVE beside. For a Map-Request of an asker that is known, nothing is allocated. Of a message that is
    /// about several shards' VNs, each does its own part: see [`Owner::Several`].
    pub fn handle_datagram(&mut self, now: Time, src: SocketAddr, dst: IpAddr, payload: &[u8]) {
        self.counters.datagrams += 1;
        match MessageType::of(payload) {
            Ok(MessageType::Ecm) => match Ecm::decode(payload) {
                Ok(ecm) if matches!(MessageType::of(ecm.message), Ok(MessageType::MapRequest)) => {
                    self.on_request(now, src, dst, &ecm);
                }
                Ok(_) => self.counters.unsupported += 1,
                Err(_) => self.counters.malformed += 1,
            },
            Ok(MessageType::MapRequest) => self.on_solicited(now, src, dst, payload),
            Ok(MessageType::MapRegister) => self.on_register(now, src, payload),
            Ok(MessageType::MapNotifyAck) => self.on_notify_ack(now, src, payload),
            Ok(_) => self.counters.unsupported += 1,
            Err(_) => self.counters.malformed += 1,
        }
    }

    /// Whether a Map-Register comes from an xTR that is known, with its key and a nonce that may be used.
    /// Every shard can say so; what it is about is not looked at.
    #[must_use]
    pub fn authentic_register(&self, src: SocketAddr, payload: &[u8]) -> bool {
        self.is_authentic(src, payload)
    }

    /// Whether a Map-Register would be accepted, as far as it is about this shard's VNs.
    #[must_use]
    pub fn would_register(&self, src: SocketAddr, payload: &[u8]) -> bool {
        self.allows_register(src, payload)
    }

    /// Takes the answer to a [`Transmit::Echo`].
    pub fn handle_echo_reply(&mut self, now: Time, rloc: Rloc, nonce: u64) {
        self.echo_replied(now, rloc, nonce);
    }

    /// Takes that the nonce of an [`Event::SaveNonce`] is durable. A [`Fact::Xtr`] with that nonce says
    /// the same.
    pub fn handle_nonce_saved(&mut self, _now: Time, xtr: XtrId, nonce: u64) {
        self.nonce_saved(xtr, nonce);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some((_, timer)) = self.timers.pop_first_if_due(now) {
            match timer {
                Timer::Liveness(nve) => self.review_lost(now, nve),
                Timer::Digest(nve, session) => self.send_digests(now, nve, session),
                Timer::Expiry(ix, nve) => self.review_expiry(now, ix, nve),
                Timer::Activation(ix) => self.review_activation(now, ix),
                Timer::Smr(key) => self.review_smr(now, key),
                Timer::Parked(nve, session, vni, eid) => self.unpark(now, nve, session, (vni, eid)),
                Timer::Lost(nve, session, vni) => self.review_lost_groups(now, nve, session, vni),
                Timer::Push => self.next_turns(now),
                Timer::Unacked(slot) => self.review_unacked(now, slot),
                Timer::Temporary(slot) => self.review_temporary(now, slot),
                Timer::Publish => self.next_publications(now),
                Timer::Settled => self.settled(now),
            }
        }
        if self.asks.next_expiry().is_some_and(|at| at <= now) {
            self.counters.asks_expired += self.asks.expire(now);
        }
    }

    /// When [`Shard::handle_timeout`] has something to do. Changes with every other call.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let timer = self.timers.first().map(|(at, _)| *at);
        [timer, self.asks.next_expiry()].into_iter().flatten().min()
    }

    /// Clears `octets`, fills it with what is to be sent next, and says where to. Call until `None`.
    ///
    /// Notifications are written when they are taken: a session from which nothing is taken has each EID
    /// at most once waiting, with what is true then.
    pub fn poll_transmit(&mut self, octets: &mut Vec<u8>) -> Option<Transmit> {
        octets.clear();
        if let Some(transmit) = self.out.pop_udp(octets) {
            return Some(transmit);
        }
        if let Some((rloc, nonce)) = self.out.echoes.pop_front() {
            return Some(Transmit::Echo { rloc, nonce });
        }
        self.poll_session(octets).or_else(|| self.poll_push(octets))
    }

    /// What happened. Call until `None`.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.out.pop_event()
    }

    /// Whether a VN is this shard's.
    #[must_use]
    pub fn owns(&self, vni: Vni) -> bool {
        shard_of(vni.get(), self.config.shards) == self.config.index
    }

    fn event(&mut self, event: Event) {
        if !self.out.event(self.config.limits.events.max(1), event) {
            self.counters.events_dropped += 1;
        }
    }

    fn arm(&mut self, at: Time, timer: Timer) {
        self.timers.insert((at, timer));
    }

    fn put_grant(&mut self, now: Time, grant: Grant) {
        let vni = grant.tsi.vni;
        let mut eids: BTreeSet<Eid> = [Eid::Mac(grant.mac.get())].into();
        eids.extend(grant.ips.iter().map(|ip| Eid::Ip(*ip)));
        let old = self.db.by_name(&grant.tsi).and_then(|ix| self.db.get(ix));
        let held = old.map(|tsi| tsi.holder().0);
        let mut parties = Vec::new();
        if let Some(old) = old {
            eids.extend(old.eids());
            parties.extend(database::named(&old.grant));
        }
        let before = self.before_eids(vni, eids.iter().copied());
        let (ix, mut dropped) = self.db.put(grant);
        self.publish(now, before);
        let holder = self.db.get(ix).map(|tsi| tsi.holder().0);
        dropped.extend(held.filter(|held| Some(*held) != holder && !dropped.contains(held)));
        let eids: Vec<Eid> = eids.into_iter().collect();
        for previous in dropped {
            self.tell_previous(now, previous, vni, &eids);
        }
        let named = self.db.get(ix).map(|tsi| (tsi.grant.owner, tsi.grant.next.map(|next| next.nve)));
        for nve in named.into_iter().flat_map(|(owner, next)| [Some(owner), next]).flatten() {
            self.register_parked(now, nve, vni, &eids);
        }
        self.review_scope(now, &parties, vni);
    }

    fn remove_grant(&mut self, now: Time, ix: TsiIx) {
        let Some(before) = self.before(ix) else { return };
        let removed = self.db.remove(ix);
        self.publish(now, before);
        if let Some(tsi) = removed {
            let parties: Vec<XtrId> = database::named(&tsi.grant).collect();
            self.review_scope(now, &parties, tsi.grant.tsi.vni);
        }
    }

    fn put_nve(&mut self, now: Time, nve: NveFact) {
        let id = nve.xtr_id;
        let bucket = TokenBucket::full(now, self.config.limits.request_burst);
        self.change_rlocs(now, id, nve.rlocs, || Node::new(bucket));
        if let Some(node) = self.nodes.get_mut(id) {
            node.name = Some(nve.name);
            node.plain = None;
        }
    }

    fn put_xtr(&mut self, now: Time, mut fact: XtrFact) {
        // Those of other shards' VNs are theirs to count, and to forget when they become too many.
        fact.subscription_nonces.retain(|eid, _| Vni::new(eid.iid()).is_ok_and(|vni| self.owns(vni)));
        let (fact, id) = (&fact, fact.xtr_id);
        let bucket = TokenBucket::full(now, self.config.limits.request_burst);
        self.change_rlocs(now, id, fact.rlocs.clone(), || Node::new(bucket));
        let other_key = match self.nodes.get_mut(id).map(|node| &mut node.plain) {
            Some(Some(plain)) => plain.update(fact),
            Some(none) => none.replace(PlainXtr::new(fact)).is_some(),
            None => false,
        };
        if other_key {
            self.forget_subscriptions(id);
        }
        self.review_subscriptions(Some(id), None);
        self.notify_saved(id);
    }

    /// Sets a node's RLOCs. What it registered with one that is gone no longer counts, and answers from
    /// its grants change.
    fn change_rlocs(&mut self, now: Time, id: XtrId, rlocs: Vec<Rloc>, new: impl FnOnce() -> Node) {
        if self.nodes.get(id).is_some_and(|node| node.rlocs == rlocs) {
            return;
        }
        let tsis: Vec<TsiIx> = self.db.granted_to(id).collect();
        let before: Vec<_> = tsis.iter().filter_map(|ix| self.before(*ix)).collect();
        let enrolled: BTreeSet<Rloc> = rlocs.iter().copied().collect();
        let old: BTreeSet<Rloc> =
            self.nodes.get(id).into_iter().flat_map(|node| node.rlocs.iter().copied()).collect();
        let changed: Vec<Rloc> = old.symmetric_difference(&enrolled).copied().collect();
        self.nodes.put(id, rlocs, new);
        self.members_at(now, id, &changed);
        for ix in tsis {
            let registration = self.db.get(ix).and_then(|tsi| tsi.registration(id));
            if registration.is_some_and(|r| r.locators.iter().any(|l| !enrolled.contains(&l.rloc))) {
                self.db.withdraw(ix, id);
            }
        }
        for before in before {
            self.publish(now, before);
        }
    }

    fn remove_node(&mut self, now: Time, id: XtrId) {
        // Its RLOCs go with it, and so do answers that name them.
        let tsis: BTreeSet<TsiIx> =
            self.db.granted_to(id).chain(self.db.registered_by(id).map(|(_, ix)| ix)).collect();
        let before: Vec<_> = tsis.iter().filter_map(|ix| self.before(*ix)).collect();
        for ix in tsis {
            self.db.withdraw(ix, id);
        }
        // While its RLOCs are known.
        self.publish_members(now);
        self.forget_all_groups(now, id);
        self.end_wait(now, id);
        if let Some(session) = self.nodes.get_mut(id).and_then(|node| node.session.take()) {
            self.end_feeds(id, &session.feeds);
            self.nodes.sessions.remove(&session.id);
        }
        self.turns.forget(id);
        self.forget_subscriptions(id);
        self.nodes.remove(id);
        self.asks.remove_asker(id);
        for before in before {
            self.publish(now, before);
        }
        self.review_alarm(now);
    }
}

/// Takes the first timer when it is due.
trait PopDue {
    fn pop_first_if_due(&mut self, now: Time) -> Option<(Time, Timer)>;
}

impl PopDue for BTreeSet<(Time, Timer)> {
    fn pop_first_if_due(&mut self, now: Time) -> Option<(Time, Timer)> {
        if self.first()?.0 > now {
            return None;
        }
        self.pop_first()
    }
}
