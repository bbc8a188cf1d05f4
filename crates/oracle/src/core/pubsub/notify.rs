//! Map-Notifies to subscribers: sent until acknowledged, or given up (RFC 9301 section 5.7, RFC 9437 section 6).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use weft_lisp as lisp;
use weft_lisp::wire::TTL_REMOVE;
use weft_lisp::{Action, CONTROL_PORT, MapNotify, Policy, Record, auth};
use weft_model::{Rloc, Time, XtrId};

use super::super::output::Event;
use super::super::subscribe::Stage;
use super::super::{Shard, Timer};
use super::change::empty;
use super::store::{Change, Phase, Slot, Subscription, Unacked};
use super::{Key, NotSubscribed};

impl Shard {
    /// Writes a Map-Notify with the subscription's nonce and sends its first copy.
    pub(super) fn send_first(&mut self, now: Time, slot: Slot, records: &[Record<'_>], changes: Vec<Change>) {
        let Some(octets) = self.signed_notify(slot, records) else { return };
        let Some(subscription) = self.subscriptions.get_mut(slot) else { return };
        subscription.unacked = Some(Unacked { octets, changes, sent: 0, due: now });
        self.counters.pubsub_notifies += 1;
        self.send_copy(now, slot);
    }

    fn signed_notify(&self, slot: Slot, records: &[Record<'_>]) -> Option<Box<[u8]>> {
        let nonce = self.subscriptions.get(slot)?.nonce;
        let plain = self.nodes.get(slot.key.0)?.plain.as_ref()?;
        plain.publication(nonce, records).map(Into::into)
    }

    fn send_copy(&mut self, now: Time, slot: Slot) {
        let timing = &self.config.timing;
        let Some(subscription) = self.subscriptions.get_mut(slot) else { return };
        let here = subscription.asked_at;
        let Some(unacked) = &mut subscription.unacked else { return };
        // Whichever of its RLOCs works.
        let turn = unacked.sent as usize % subscription.itr_rlocs.len().max(1);
        let wait = wait(unacked.sent, timing.notify_retries, timing.notify_interval);
        unacked.sent += 1;
        unacked.due = now + wait;
        let due = unacked.due;
        if let Some(to) = subscription.itr_rlocs.get(turn) {
            let (to, octets) = (*to, unacked.octets.clone());
            self.send_notify(to, here, &octets);
        }
        self.arm(due, Timer::Unacked(slot));
    }

    /// No Ack has come in time.
    pub(crate) fn review_unacked(&mut self, now: Time, slot: Slot) {
        let timing = &self.config.timing;
        let most = 1 + timing.notify_retries + timing.notify_backoffs;
        let Some(subscription) = self.subscriptions.get(slot) else { return };
        let Some(unacked) = subscription.unacked.as_ref().filter(|unacked| unacked.due <= now) else {
            return;
        };
        let sent = unacked.sent;
        if sent < most {
            self.counters.pubsub_retransmitted += 1;
            self.send_copy(now, slot);
        } else {
            self.end_subscription(slot, NotSubscribed::Unacknowledged { sent });
        }
    }

    /// An address was nobody's for too long.
    pub(crate) fn review_temporary(&mut self, now: Time, slot: Slot) {
        let over = self.subscriptions.get(slot).and_then(|one| one.expires).is_some_and(|at| at <= now);
        if over {
            self.end_subscription(slot, NotSubscribed::Expired);
        }
    }

    /// Ends a subscription with a word to its xTR, which nobody has to acknowledge (RFC 9437 section 5). Of what was
    /// only asked for in the place of one that stands there is no word: it would be taken for that one's end.
    pub(super) fn end_subscription(&mut self, slot: Slot, reason: NotSubscribed) {
        let (xtr, eid) = slot.key;
        let last = [empty(eid, TTL_REMOVE, Action::DropAuthFailure)];
        let octets = self.signed_notify(slot, &last);
        let Some(ended) = self.drop_subscription(slot) else { return };
        if ended.listens() {
            self.event(Event::NotSubscribed { xtr, eid, reason });
            let stands = self.subscriptions.get(Slot::standing(slot.key)).is_some_and(Subscription::listens);
            if slot.asked && stands {
                return;
            }
            self.unmute(slot.key);
            self.counters.pubsub_ended += 1;
            if let (Some(octets), Some(to)) = (octets, ended.itr_rlocs.first()) {
                self.send_notify(*to, ended.asked_at, &octets);
            }
        }
    }

    /// Sends what is under way once more, out of turn: it is asked for again.
    pub(super) fn send_again(&mut self, slot: Slot) {
        let Some(subscription) = self.subscriptions.get(slot) else { return };
        let (Some(unacked), Some(to)) = (&subscription.unacked, subscription.itr_rlocs.first()) else {
            return;
        };
        let (to, here, octets) = (*to, subscription.asked_at, unacked.octets.clone());
        self.counters.pubsub_retransmitted += 1;
        self.send_notify(to, here, &octets);
    }

    fn send_notify(&mut self, to: IpAddr, here: IpAddr, octets: &[u8]) {
        let from = (to.is_ipv4() == here.is_ipv4()).then_some(here);
        let limit = self.config.limits.udp_queue_octets;
        let queued = self.out.udp(limit, SocketAddr::new(to, CONTROL_PORT), from, |out| {
            out.extend_from_slice(octets);
            Ok::<(), ()>(())
        });
        if !queued {
            self.counters.udp_dropped += 1;
        }
    }

    /// Takes a Map-Notify-Ack. It has the key, the nonce and the records of what it acknowledges, or it is
    /// none of that.
    pub(crate) fn on_notify_ack(&mut self, now: Time, src: SocketAddr, octets: &[u8]) {
        let Ok(ack) = MapNotify::decode(octets) else {
            self.counters.malformed += 1;
            return;
        };
        let Some(xtr) = self.ack_sender(src, &ack, octets) else {
            self.counters.pubsub_bad_auth += 1;
            return;
        };
        let matches = |unacked: &Unacked| {
            MapNotify::decode(&unacked.octets).is_ok_and(|sent| sent.records == ack.records)
        };
        let mut waiting = self.subscriptions.of(xtr).filter(|(_, one)| one.nonce == ack.nonce);
        let found = waiting.find(|(_, one)| one.unacked.as_ref().is_some_and(matches)).map(|(slot, _)| slot);
        drop(waiting);
        let Some(slot) = found else {
            // Of an earlier copy, or of one that is given up.
            self.counters.pubsub_acks_unmatched += 1;
            return;
        };
        self.counters.pubsub_acks += 1;
        self.acked(slot, ack.nonce);
        self.publish_queued(now);
    }

    /// Who sent an Ack: the plain xTR at its source whose key it has.
    fn ack_sender(&self, src: SocketAddr, ack: &MapNotify<'_>, octets: &[u8]) -> Option<XtrId> {
        let rloc = Rloc::new(src.ip()).ok()?;
        let authentic = |(id, node): (XtrId, &super::super::nodes::Node)| {
            let plain = node.plain.as_ref()?;
            let fits = plain.key_id == ack.auth.key_id && plain.algorithm as u8 == ack.auth.algorithm;
            let policy = Policy::strict().with_sha1();
            (fits && auth::verify(octets, plain.pubsub_key(), policy).is_ok()).then_some(id)
        };
        self.nodes.at(rloc).find_map(authentic)
    }

    fn acked(&mut self, slot: Slot, nonce: u64) {
        let key = slot.key;
        let Some(subscription) = self.subscriptions.get_mut(slot) else { return };
        if let Some(unacked) = subscription.unacked.take() {
            self.timers.remove(&(unacked.due, Timer::Unacked(slot)));
        }
        let phase = subscription.phase;
        self.raise_floor(key, nonce, slot.asked);
        match phase {
            Phase::Confirming => self.stand(key),
            Phase::Leaving => self.left(key),
            Phase::Active | Phase::Muted => {}
        }
        self.queue(key);
    }

    /// What was asked for takes the place of what stood. It has had noted all that changed since it was asked for.
    fn stand(&mut self, key: Key) {
        let old = self.drop_subscription(Slot::standing(key));
        let expires = self.subscriptions.get(Slot::asked(key)).and_then(|one| one.expires);
        let Some(mut new) = self.drop_subscription(Slot::asked(key)) else { return };
        new.phase = Phase::Active;
        // The old one may have been published beyond.
        new.nonce = old.map_or(new.nonce, |old| new.nonce.max(old.nonce));
        if new.snapshot == Stage::Begin {
            new.snapshot = Stage::Behind(None);
        }
        self.subscriptions.insert(Slot::standing(key), new);
        if let Some(at) = expires {
            self.arm(at, Timer::Temporary(Slot::standing(key)));
        }
    }

    /// A nonce counts from now on. What the xTR asked with is kept for good: publications have nonces of
    /// our own, which nobody can ask with before.
    fn raise_floor(&mut self, key: Key, nonce: u64, asked: bool) {
        let (xtr, eid) = key;
        let limit = self.config.limits.subscription_nonces_per_xtr.max(1);
        let subscriptions = &self.subscriptions;
        let Some(plain) = self.nodes.get_mut(xtr).and_then(|node| node.plain.as_mut()) else { return };
        plain.floors.raise(eid, nonce);
        let forgotten = plain.floors.bound(limit, |other| subscriptions.has((xtr, other)));
        if asked {
            self.event(Event::SaveSubscriptionNonce { xtr, eid, nonce: Some(nonce) });
        }
        if let Some(eid) = forgotten {
            self.event(Event::SaveSubscriptionNonce { xtr, eid, nonce: None });
        }
    }

    /// An xTR has left: it stays silent of this part when it is subscribed to more.
    fn left(&mut self, key: Key) {
        let (xtr, eid) = key;
        let old = self.drop_subscription(Slot::standing(key));
        let Some(mut end) = self.drop_subscription(Slot::asked(key)) else { return };
        self.unmute(key);
        if self.subscriptions.above(xtr, eid).is_some() {
            end.phase = Phase::Muted;
            end.nonce = old.map_or(end.nonce, |old| end.nonce.max(old.nonce));
            self.subscriptions.insert(Slot::standing(key), end);
        }
    }

    /// A subscription is no more: what was muted of it alone has nothing to be silent of.
    fn unmute(&mut self, key: Key) {
        let (xtr, eid) = key;
        let idle = |(slot, one): &(Slot, &Subscription)| {
            let (_, part) = slot.key;
            one.phase == Phase::Muted && eid.covers(&part) && self.subscriptions.above(xtr, part).is_none()
        };
        let muted: Vec<Slot> = self.subscriptions.of(xtr).filter(idle).map(|(slot, _)| slot).collect();
        for slot in muted {
            self.drop_subscription(slot);
        }
    }

    /// Whether an xTR hears of `eid` by a subscription.
    pub(crate) fn is_published(&self, xtr: XtrId, eid: lisp::Eid) -> bool {
        self.subscriptions.best(xtr, eid).is_some_and(|(_, one)| one.phase == Phase::Active)
    }
}

/// How long the Ack of copy number `copy`, counted from 0, is waited for: `retries` times as long as the
/// first, then twice as long each.
fn wait(copy: u32, retries: u32, interval: Duration) -> Duration {
    let doublings = (copy + 1).saturating_sub(retries).min(16);
    interval.saturating_mul(1 << doublings).max(Duration::from_micros(1))
}
