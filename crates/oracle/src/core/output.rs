//! What a shard gives back: transmissions and events.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use weft_model::{Epoch, Rloc, TsiId, XtrId};

use super::error::Refusal;
use super::pubsub::NotSubscribed;

/// A session as the I/O numbers them: a later one of the same NVE has a higher number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// Where the octets of a [`poll_transmit`](super::Shard::poll_transmit) go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transmit {
    /// One or more complete frames, to be written to this session in this order.
    Session {
        /// The session.
        id: SessionId,
    },
    /// One datagram, from port 4342.
    Udp {
        /// To whom.
        dst: SocketAddr,
        /// From which of the Oracle's addresses; `None` leaves that to the kernel.
        src: Option<IpAddr>,
    },
    /// No octets: an echo is to be sent to this RLOC's data path; the answer comes back through
    /// [`handle_echo_reply`](super::Shard::handle_echo_reply).
    Echo {
        /// To whom.
        rloc: Rloc,
        /// What the answer must carry.
        nonce: u64,
    },
}

/// What happened, for the I/O to act on or to log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Event {
    /// The grant's `next` is active and already published: write it to the store as owner. When that
    /// fails because the grant changed, the changed grant's fact settles it.
    SuccessorActive {
        /// The TSI.
        tsi: TsiId,
        /// Its new holder.
        nve: XtrId,
        /// At this epoch.
        epoch: Epoch,
    },
    /// Save this nonce of a plain xTR, then call
    /// [`handle_nonce_saved`](super::Shard::handle_nonce_saved): the Map-Notify waits for that.
    SaveNonce {
        /// The xTR.
        xtr: XtrId,
        /// Its highest nonce.
        nonce: u64,
    },
    /// Save this nonce of a plain xTR's subscription, or forget the one saved. Nothing waits for it.
    SaveSubscriptionNonce {
        /// The xTR.
        xtr: XtrId,
        /// The EID-Prefix subscribed to.
        eid: weft_lisp::Eid,
        /// The last nonce that it has acknowledged.
        nonce: Option<u64>,
    },
    /// A plain xTR is not subscribed, or no longer.
    NotSubscribed {
        /// The xTR.
        xtr: XtrId,
        /// To this EID-Prefix.
        eid: weft_lisp::Eid,
        /// Why.
        reason: NotSubscribed,
    },
    /// A session does not read what it is sent and more waits for it than is kept: close it. Its NVE comes
    /// back and asks again for all it holds.
    Overrun {
        /// The session.
        session: SessionId,
        /// Its NVE.
        nve: XtrId,
    },
    /// A registration was refused.
    Refused {
        /// Who registered; `None` when a UDP message did not say in a way to be believed.
        nve: Option<XtrId>,
        /// Why.
        reason: Refusal,
    },
    /// An NVE has registered all it has; what it did not name again is removed.
    EndOfRegistration {
        /// The NVE.
        nve: XtrId,
        /// TSIs it has registered.
        registered: usize,
        /// TSIs removed.
        removed: usize,
    },
    /// An NVE's session is lost; what it registered is stale and still answered.
    Stale {
        /// The NVE.
        nve: XtrId,
        /// Its TSIs.
        tsis: usize,
    },
    /// An NVE is gone; what it registered is withdrawn.
    Withdrawn {
        /// The NVE.
        nve: XtrId,
        /// Its TSIs.
        tsis: usize,
        /// Since when its session had been lost.
        after: Duration,
    },
    /// Too many NVEs are lost at once: the fault is on this side, nothing is withdrawn.
    ManyNvesLost {
        /// How many are lost.
        lost: usize,
        /// Of how many.
        of: usize,
    },
    /// The alarm above is over.
    NvesBack,
    /// All facts are loaded; questions are answered.
    Ready,
}

/// Octets and orders that wait to be taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Outbox {
    udp: VecDeque<Udp>,
    octets: Vec<u8>,
    pub(crate) echoes: VecDeque<(Rloc, u64)>,
    /// Nodes with something to send on their session, each once.
    pub(crate) ready: VecDeque<XtrId>,
    /// Must not be lost; the latest per TSI, xTR and session is enough.
    successors: BTreeMap<TsiId, (XtrId, Epoch)>,
    nonces: BTreeMap<XtrId, u64>,
    overruns: BTreeMap<SessionId, XtrId>,
    subscription_nonces: BTreeMap<(XtrId, weft_lisp::Eid), Option<u64>>,
    events: VecDeque<Event>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Udp {
    dst: SocketAddr,
    src: Option<IpAddr>,
    start: usize,
    end: usize,
}

impl Outbox {
    /// Queues a datagram that `write` appends. False when the queue is full or `write` fails.
    pub(crate) fn udp<E>(
        &mut self,
        limit: usize,
        dst: SocketAddr,
        src: Option<IpAddr>,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> bool {
        let start = self.octets.len();
        if start >= limit || write(&mut self.octets).is_err() {
            self.octets.truncate(start);
            return false;
        }
        self.udp.push_back(Udp { dst, src, start, end: self.octets.len() });
        true
    }

    pub(crate) fn pop_udp(&mut self, out: &mut Vec<u8>) -> Option<Transmit> {
        let next = self.udp.pop_front()?;
        out.extend_from_slice(self.octets.get(next.start..next.end).unwrap_or_default());
        if self.udp.is_empty() {
            self.octets.clear();
        }
        Some(Transmit::Udp { dst: next.dst, src: next.src })
    }

    /// Queues an event; false when it was lost.
    pub(crate) fn event(&mut self, limit: usize, event: Event) -> bool {
        match event {
            Event::SuccessorActive { tsi, nve, epoch } => {
                self.successors.insert(tsi, (nve, epoch));
            }
            Event::SaveNonce { xtr, nonce } => {
                self.nonces.insert(xtr, nonce);
            }
            Event::SaveSubscriptionNonce { xtr, eid, nonce } => {
                self.subscription_nonces.insert((xtr, eid), nonce);
            }
            Event::Overrun { session, nve } => {
                self.overruns.insert(session, nve);
            }
            event if self.events.len() < limit => self.events.push_back(event),
            _ => return false,
        }
        true
    }

    pub(crate) fn pop_event(&mut self) -> Option<Event> {
        if let Some((tsi, (nve, epoch))) = self.successors.pop_first() {
            return Some(Event::SuccessorActive { tsi, nve, epoch });
        }
        if let Some((xtr, nonce)) = self.nonces.pop_first() {
            return Some(Event::SaveNonce { xtr, nonce });
        }
        if let Some(((xtr, eid), nonce)) = self.subscription_nonces.pop_first() {
            return Some(Event::SaveSubscriptionNonce { xtr, eid, nonce });
        }
        if let Some((session, nve)) = self.overruns.pop_first() {
            return Some(Event::Overrun { session, nve });
        }
        self.events.pop_front()
    }
}
