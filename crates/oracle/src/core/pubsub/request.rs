//! Map-Requests with the N bit: who may subscribe to what, and who leaves (RFC 9437 section 5).

use std::collections::BTreeSet;
use std::net::IpAddr;

use weft_lisp as lisp;
use weft_lisp::wire::TTL_REMOVE;
use weft_lisp::{Action, Address, Algorithm, EidRecord, MapRequest, Record};
use weft_model::{Eid, Reply, Time, Vni, XtrId};

use super::super::conversations::AskKey;
use super::super::database::{Answer, Source, Via};
use super::super::output::Event;
use super::super::publish::answer;
use super::super::resolver::Asked;
use super::super::subscribe::Stage;
use super::super::wire::{WireEid, from_lisp};
use super::super::{Shard, Timer};
use super::store::{Phase, Slot, Subscription};
use super::{Key, NotSubscribed};

/// The highest nonce that may be asked with: whoever acknowledges it has as many left as can be used.
const HIGHEST: u64 = u64::MAX - (1 << 32);

/// Whether a Map-Request asks for the end of subscriptions: its one ITR-RLOC is no address.
pub(crate) fn leaves(request: &MapRequest<'_>) -> bool {
    request.xtr.is_some()
        && request.itr_rlocs.len() == 1
        && request.itr_rlocs.first() == Some(Address::NoAddress)
        && request.records.iter().all(|record| record.notify)
}

impl Shard {
    /// Takes a record with the N bit. False when it is to be answered as if it had none: then there is no
    /// subscription, of which the Map-Reply is the sign.
    pub(crate) fn on_subscribe(&mut self, now: Time, asked: &Asked<'_>, wanted: &EidRecord<'_>) -> bool {
        let Some(xtr) = asked.request.xtr else { return false };
        let plain = self.nodes.get(asked.nve).and_then(|node| node.plain.as_ref());
        // Without a key there is no association that Map-Notifies could be told by (section 3).
        let Some(plain) = plain.filter(|plain| plain.algorithm != Algorithm::None) else { return false };
        let identity = xtr.xtr_id == asked.nve.0 && xtr.site_id == plain.site_id.0;
        let Ok(eid) = lisp::Eid::from_wire(wanted.eid, wanted.mask_len) else { return false };
        let Ok(vni) = Vni::new(eid.iid()) else { return false };
        if !self.loaded || asked.request.authoritative || !self.owns(vni) || !self.may_ask(asked.nve, vni) {
            return false;
        }
        let host = match from_lisp(wanted.eid, wanted.mask_len) {
            WireEid::Host(_, eid) => Some(eid),
            WireEid::Odd(..) => return false,
            WireEid::Unusable => None,
        };
        let key = (asked.nve, eid);
        if identity && self.is_waiting(key, asked.request.nonce) {
            self.counters.requests += 1;
            self.send_again(Slot::asked(key));
            return true;
        }
        let refused = if identity {
            self.may_be_published(key, vni, host, asked.request.nonce)
        } else {
            Err(NotSubscribed::Identity { named: XtrId(xtr.xtr_id), site_id: xtr.site_id })
        };
        let Err(reason) = refused else {
            self.counters.requests += 1;
            if leaves(asked.request) {
                self.leave(now, asked, key);
            } else {
                self.subscribe(now, asked, key, host);
            }
            return true;
        };
        let answer = match reason {
            // An old message is not answered at all.
            NotSubscribed::Replayed { .. } => {
                self.counters.pubsub_replayed += 1;
                None
            }
            NotSubscribed::Identity { .. } => Some(Action::DropAuthFailure),
            // Of an address there is an answer of the usual kind; of a prefix there is none.
            _ if host.is_some() && !leaves(asked.request) => {
                self.not_subscribed(key, reason);
                return false;
            }
            _ => Some(Action::DropPolicyDenied),
        };
        self.not_subscribed(key, reason);
        if let Some(action) = answer {
            self.reply_denied(asked, eid, action);
        }
        true
    }

    /// Whether the Map-Notify that answers this very Map-Request waits for its Ack.
    fn is_waiting(&self, key: Key, nonce: u64) -> bool {
        self.subscriptions.get(Slot::asked(key)).is_some_and(|one| one.nonce == nonce)
    }

    /// Whether there can be such a subscription, or an end of it.
    fn may_be_published(
        &self,
        key: Key,
        vni: Vni,
        host: Option<Eid>,
        nonce: u64,
    ) -> Result<(), NotSubscribed> {
        let (xtr, eid) = key;
        if !self.is_answered_for(vni, host) {
            return Err(NotSubscribed::Forwarded);
        }
        let plain = self.nodes.get(xtr).and_then(|node| node.plain.as_ref());
        let last = plain.and_then(|plain| plain.floors.get(eid));
        // An older Map-Request may come behind a newer one whose Ack is still to come. What is under way has its
        // nonce already: whoever asks with the same is told by that.
        let slots = [Slot::standing(key), Slot::asked(key)].into_iter();
        let last = last.max(slots.filter_map(|slot| self.subscriptions.get(slot)).map(|one| one.nonce).max());
        if let Some(last) = last.filter(|last| nonce <= *last) {
            return Err(NotSubscribed::Replayed { nonce, last });
        }
        if nonce > HIGHEST {
            return Err(NotSubscribed::NonceTooHigh { nonce, most: HIGHEST });
        }
        let limits = &self.config.limits;
        let (count, all) = (self.subscriptions.count(xtr), self.subscriptions.len());
        let full = count >= limits.subscriptions_per_xtr.max(1) || all >= limits.subscriptions.max(1);
        if full && !self.subscriptions.has(key) {
            return Err(NotSubscribed::Full { count });
        }
        Ok(())
    }

    /// Whether the Oracle replies itself: what others answer for is not published (section 3).
    fn is_answered_for(&self, vni: Vni, host: Option<Eid>) -> bool {
        let by_vn = self.vns.get(&vni).is_some_and(|vn| vn.reply == Reply::Proxy);
        let own = host.is_some_and(|eid| match answer(&self.db, &self.nodes, vni, eid) {
            Answer::At(found) => match found.source {
                Source::Registration(r) => matches!(r.via, Via::Udp { .. }) && !r.proxy,
                Source::Grant(_) => false,
            },
            _ => false,
        });
        by_vn && !own
    }

    /// Counts and reports that there is no subscription, or no longer.
    pub(super) fn not_subscribed(&mut self, key: Key, reason: NotSubscribed) {
        self.counters.pubsub_refused += 1;
        let (xtr, eid) = key;
        self.event(Event::NotSubscribed { xtr, eid, reason });
    }

    fn subscribe(&mut self, now: Time, asked: &Asked<'_>, key: Key, host: Option<Eid>) {
        let (_, eid) = key;
        // Deployed xTRs name an RLOC twice at times. The family that works is tried first.
        let mut itr_rlocs: Vec<IpAddr> = Vec::new();
        for ip in asked.request.itr_rlocs.iter().filter_map(|address| address.as_ip()) {
            if !itr_rlocs.contains(&ip) {
                itr_rlocs.push(ip);
            }
        }
        itr_rlocs.sort_by_key(|ip| ip.is_ipv4() != asked.here.is_ipv4());
        let unknown = |host| Vni::new(eid.iid()).is_ok_and(|vni| self.db.lookup(vni, host).is_none());
        let temporary = host.is_some_and(unknown);
        let expires = temporary.then(|| now + self.config.timing.temporary_subscription);
        // What was being told is told anew: of a prefix the confirmation says nothing.
        let mut pending = self.drop_subscription(Slot::asked(key)).map(|old| old.pending).unwrap_or_default();
        if let Some(old) = self.subscriptions.get(Slot::standing(key)) {
            pending.extend(old.pending.iter().copied());
            pending.extend(old.unacked.iter().flat_map(|unacked| unacked.changes.iter().copied()));
        }
        if host.is_some() && pending.iter().all(|(_, mac)| mac.is_none()) {
            // The confirmation says as much.
            pending.clear();
        }
        let subscription = Subscription {
            phase: Phase::Confirming,
            itr_rlocs,
            asked_at: asked.here,
            nonce: asked.request.nonce,
            unacked: None,
            pending,
            snapshot: if host.is_some() { Stage::Idle } else { Stage::Begin },
            expires,
            queued: false,
        };
        self.subscriptions.insert(Slot::asked(key), subscription);
        if let Some(at) = expires {
            self.arm(at, Timer::Temporary(Slot::asked(key)));
        }
        self.counters.pubsub_subscribed += 1;
        if let (Some(host), Ok(vni)) = (host, Vni::new(eid.iid())) {
            // From now on it is told, not had to ask.
            self.end_solicit(AskKey { vni, eid: host, asker: key.0 });
        }
        self.confirm(now, key, host);
    }

    fn leave(&mut self, now: Time, asked: &Asked<'_>, key: Key) {
        let (slot, eid) = (Slot::asked(key), key.1);
        self.drop_subscription(slot);
        let subscription = Subscription {
            phase: Phase::Leaving,
            itr_rlocs: vec![asked.source_rloc],
            asked_at: asked.here,
            nonce: asked.request.nonce,
            unacked: None,
            pending: BTreeSet::new(),
            snapshot: Stage::Idle,
            expires: None,
            queued: false,
        };
        self.subscriptions.insert(slot, subscription);
        self.counters.pubsub_unsubscribed += 1;
        let record =
            Record { ttl: TTL_REMOVE, mask_len: eid.mask_len(), eid: eid.address(), ..Record::default() };
        self.send_first(now, slot, &[record], Vec::new());
    }

    /// Takes a subscription out, with its timers.
    pub(super) fn drop_subscription(&mut self, slot: Slot) -> Option<Subscription> {
        let removed = self.subscriptions.remove(slot)?;
        if let Some(unacked) = &removed.unacked {
            self.timers.remove(&(unacked.due, Timer::Unacked(slot)));
        }
        if let Some(at) = removed.expires {
            self.timers.remove(&(at, Timer::Temporary(slot)));
        }
        Some(removed)
    }

    /// An xTR is gone, or has another key: nothing can be told to it.
    pub(crate) fn forget_subscriptions(&mut self, xtr: XtrId) {
        let slots: Vec<Slot> = self.subscriptions.of(xtr).map(|(slot, _)| slot).collect();
        for slot in slots {
            self.drop_subscription(slot);
        }
    }

    /// Ends the subscriptions of `xtr`, or of all, that would not be accepted any more; limited to a VN.
    pub(crate) fn review_subscriptions(&mut self, xtr: Option<XtrId>, vni: Option<Vni>) {
        if self.subscriptions.is_empty() {
            return;
        }
        let lost = |(slot, one): (Slot, &Subscription)| {
            let (xtr, eid) = slot.key;
            let vni = Vni::new(eid.iid()).ok().filter(|vni| self.may_ask(xtr, *vni));
            let own = self.nodes.get(xtr).is_some_and(|node| {
                one.itr_rlocs.iter().all(|ip| node.rlocs.iter().any(|rloc| rloc.get() == *ip))
            });
            match vni {
                Some(vni) if own && self.is_answered_for(vni, None) => None,
                Some(_) if own => Some((slot, NotSubscribed::Forwarded)),
                _ => Some((slot, NotSubscribed::NotAllowed)),
            }
        };
        let concerned =
            |(slot, _): &(Slot, &Subscription)| vni.is_none_or(|vni| vni.get() == slot.key.1.iid());
        let lost: Vec<(Slot, NotSubscribed)> = match xtr {
            Some(xtr) => self.subscriptions.of(xtr).filter(concerned).filter_map(lost).collect(),
            None => self.subscriptions.iter().filter(concerned).filter_map(lost).collect(),
        };
        for (slot, reason) in lost {
            self.end_subscription(slot, reason);
        }
    }
}
