//! Whoever asked is told: what changed, and to whom it goes.

use weft_lisp as lisp;
use weft_lisp::tcp::{Body, EidPrefix, ErrorNotification, Membership, MembershipEvent, RefreshScope, Signal};
use weft_lisp::{Address, EncodeOptions, Inner};
use weft_model::digest::Digest;
use weft_model::{Eid, Epoch, MacAddr, Time, Vni, XtrId};

use super::conversations::{AskAt, AskKey, Class, Doubt};
use super::database::{Answer, Database, Found, Locator, Source, Tsi, TsiIx};
use super::limits::TokenBucket;
use super::nodes::{Control, Nodes};
use super::output::{Event, Transmit};
use super::wire::{Locators, record};
use super::{Shard, push};

/// Version of what we speak on sessions.
pub(crate) const PROTOCOL_VERSION: u16 = 1;

/// What askers of an EID have been told, or would be: compared before and after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// That there is nothing.
    Nothing,
    /// A mapping, and why it is believed.
    At { basis: Basis, mac: MacAddr, nve: XtrId, epoch: Epoch, locators: Vec<Locator> },
}

/// Why a mapping is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Basis {
    /// It is registered, or about to be by an NVE that has said so.
    Registered,
    /// It is granted, and its NVE has said nothing about it yet.
    Granted,
    /// It is granted, and its NVE has taken it back: who asks is told where it would come back to, but
    /// who held it is told that it is gone.
    Expected,
}

impl Told {
    pub(crate) const fn basis(&self) -> Option<Basis> {
        match self {
            Self::Nothing => None,
            Self::At { basis, .. } => Some(*basis),
        }
    }

    /// Whether an asker who knows `self` already knows `other`.
    fn same_records(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Nothing, Self::Nothing) => true,
            (
                Self::At { mac: m1, nve: n1, epoch: e1, locators: l1, .. },
                Self::At { mac: m2, nve: n2, epoch: e2, locators: l2, .. },
            ) => (m1, n1, e1, l1) == (m2, n2, e2, l2),
            _ => false,
        }
    }
}

/// What was told about some EIDs of a VN.
pub(crate) struct Before {
    vni: Vni,
    eids: Vec<(Eid, Told)>,
}

/// Finds what an EID leads to. Allocates nothing.
pub(crate) fn answer<'a>(db: &'a Database, nodes: &'a Nodes, vni: Vni, eid: Eid) -> Answer<'a> {
    let Some((_, tsi)) = db.lookup(vni, eid) else { return Answer::Nothing };
    if let Some(registration) = tsi.published() {
        let (nve, epoch) = (registration.nve, registration.epoch);
        return Answer::At(Found { tsi, nve, epoch, source: Source::Registration(registration) });
    }
    let (nve, epoch) = tsi.holder();
    match nodes.get(nve) {
        Some(node) if !node.rlocs.is_empty() => {
            Answer::At(Found { tsi, nve, epoch, source: Source::Grant(&node.rlocs) })
        }
        _ => Answer::Unlocated,
    }
}

impl Shard {
    /// What there is to be told of an EID.
    pub(crate) fn told(&self, vni: Vni, eid: Eid) -> Told {
        let Answer::At(found) = answer(&self.db, &self.nodes, vni, eid) else { return Told::Nothing };
        let (basis, locators) = match found.source {
            Source::Registration(registration) => {
                let missing = matches!(eid, Eid::Ip(ip) if !registration.ips.contains_key(&ip));
                let basis = if missing { Basis::Expected } else { Basis::Registered };
                (basis, registration.locators.clone())
            }
            Source::Grant(rlocs) => {
                let basis = match found.tsi {
                    Tsi { activating: Some(_), .. } => Basis::Registered,
                    Tsi { withdrawn: true, .. } => Basis::Expected,
                    _ => Basis::Granted,
                };
                (basis, Locator::stored(rlocs).collect())
            }
        };
        let Found { tsi, nve, epoch, .. } = found;
        Told::At { basis, mac: tsi.grant.mac.get(), nve, epoch, locators }
    }

    /// Takes down what is told about all EIDs of a TSI, to be compared after a change.
    pub(crate) fn before(&self, ix: TsiIx) -> Option<Before> {
        let tsi = self.db.get(ix)?;
        let vni = tsi.grant.tsi.vni;
        Some(Before { vni, eids: tsi.eids().map(|eid| (eid, self.told(vni, eid))).collect() })
    }

    /// As [`Shard::before`], for EIDs of one VN.
    pub(crate) fn before_eids(&self, vni: Vni, eids: impl Iterator<Item = Eid>) -> Before {
        Before { vni, eids: eids.map(|eid| (eid, self.told(vni, eid))).collect() }
    }

    /// Tells whoever asked what has changed since `before`.
    pub(crate) fn publish(&mut self, now: Time, before: Before) {
        for (eid, before_told) in before.eids {
            let after = self.told(before.vni, eid);
            if after != before_told {
                self.publish_eid(now, before.vni, eid, &before_told, &after);
                self.push_change(now, before.vni, eid, &after);
                self.note_change(before.vni, eid, &before_told, &after);
            }
        }
        self.publish_members(now);
        self.publish_queued(now);
    }

    fn publish_eid(&mut self, now: Time, vni: Vni, eid: Eid, before: &Told, after: &Told) {
        let changed = !before.same_records(after);
        let askers: Vec<XtrId> = self.asks.askers(vni, eid).collect();
        for asker in askers {
            let key = AskKey { vni, eid, asker };
            let Some(ask) = self.asks.get_mut(key) else { continue };
            // Whoever asks now gets an answer at once.
            ask.replies = TokenBucket::full(now, self.config.limits.reply_burst);
            let tell = match after.basis() {
                // A Negative is cleared by a registration only: before that the TSI is not there.
                Some(Basis::Registered) => ask.negative || ask.doubt == Doubt::Either || changed,
                Some(Basis::Granted) => !ask.negative && changed,
                Some(Basis::Expected) => !ask.negative && (changed || before.basis() != after.basis()),
                None => !ask.negative,
            };
            if !tell {
                continue;
            }
            let doubt = std::mem::replace(&mut ask.doubt, Doubt::None);
            match after {
                Told::At { basis: Basis::Registered | Basis::Granted, mac, .. } => {
                    self.tell_mapping(now, key, *mac, doubt);
                }
                _ => ask.negative = true,
            }
            self.tell(now, asker, vni, eid);
        }
    }

    /// An asker is about to be told a mapping: it holds one from now on.
    fn tell_mapping(&mut self, now: Time, key: AskKey, mac: MacAddr, doubt: Doubt) {
        self.remember(now, key, Class::Positive);
        if matches!(key.eid, Eid::Ip(_)) {
            // It gets R2 and needs R1 with it, and is then told when R1 changes.
            let r1 = AskKey { eid: Eid::Mac(mac), ..key };
            let knows = self.asks.get_mut(r1).is_some_and(|ask| !ask.negative) && doubt != Doubt::Either;
            self.remember(now, r1, Class::Positive);
            if !knows {
                self.tell(now, key.asker, key.vni, r1.eid);
            }
        }
    }

    /// Remembers an ask; whoever is forgotten for it is told to ask again.
    pub(crate) fn remember(&mut self, now: Time, key: AskKey, class: Class) -> AskAt {
        self.remember_at(now, key, class, self.asks.find(key))
    }

    /// As [`Shard::remember`], when it is known where the ask is or that there is none.
    pub(crate) fn remember_at(&mut self, now: Time, key: AskKey, class: Class, at: Option<AskAt>) -> AskAt {
        if let Some(at) = at {
            self.asks.renew(now, at, class, &self.config.ttl);
            return at;
        }
        let bounds = (&self.config.limits, &self.config.ttl);
        let evicted = &mut self.evicted;
        let at = self.asks.remember_new(now, key, class, bounds, |key| evicted.push(key));
        self.forget_evicted(now);
        at
    }

    fn forget_evicted(&mut self, now: Time) {
        while let Some(key) = self.evicted.pop() {
            self.counters.asks_evicted += 1;
            // Also a Negative: nobody would clear it.
            self.tell(now, key.asker, key.vni, key.eid);
        }
    }

    /// Puts a message about an EID on a node's list, in the place of an older one about the same.
    pub(crate) fn tell(&mut self, now: Time, nve: XtrId, vni: Vni, eid: Eid) {
        let Some(node) = self.nodes.get_mut(nve) else { return };
        if node.plain.is_some() {
            self.solicit(now, nve, vni, eid);
            return;
        }
        if !node.pending.insert((vni, eid)) {
            self.counters.notifications_coalesced += 1;
        }
        if node.pending.len() > 2 * self.config.limits.asks_per_nve.max(1) {
            self.overrun(nve);
        }
        self.wake(nve);
    }

    /// What waited for a node goes out now: the TTL of each mapping starts now, not when it changed.
    pub(crate) fn release_pending(&mut self, now: Time, nve: XtrId) {
        let Some(node) = self.nodes.get(nve) else { return };
        let waited: Vec<(Vni, Eid)> = node.pending.iter().copied().collect();
        for (vni, eid) in waited {
            let key = AskKey { vni, eid, asker: nve };
            if self.asks.get_mut(key).is_some_and(|ask| !ask.negative) {
                self.remember(now, key, Class::Positive);
            }
        }
        self.wake(nve);
    }

    /// More waits for a node than is kept. Nothing may be lost in silence: with a session it has to start
    /// over, without one it starts over when it comes back, and asks again for all it holds.
    fn overrun(&mut self, nve: XtrId) {
        let Some(node) = self.nodes.get_mut(nve) else { return };
        self.counters.overruns += 1;
        node.pending.clear();
        if let Some(session) = &mut node.session {
            session.controls.clear();
            session.feeds.member_changes.clear();
            session.feeds.group_changes.clear();
            let session = session.id;
            self.event(Event::Overrun { session, nve });
        }
    }

    /// Tells a node that has lost a TSI who has it now; having been told, it is told of changes like who
    /// asked. Without a session it learns that when it registers.
    pub(crate) fn tell_previous(&mut self, now: Time, nve: XtrId, vni: Vni, eids: &[Eid]) {
        if self.nodes.get(nve).is_some_and(|node| node.session.is_some()) {
            for eid in eids {
                if matches!(self.told(vni, *eid).basis(), Some(Basis::Registered | Basis::Granted)) {
                    self.remember(now, AskKey { vni, eid: *eid, asker: nve }, Class::Positive);
                }
                self.tell(now, nve, vni, *eid);
            }
        }
    }

    /// A node that registers what another one holds is told who: by the epoch it knows that it is to take it out of
    /// service, registered there or not.
    pub(crate) fn tell_holder(&mut self, now: Time, nve: XtrId, vni: Vni, eid: Eid) {
        let Some((_, tsi)) = self.db.lookup(vni, eid) else { return };
        let (mac, eids) = (Eid::Mac(tsi.grant.mac.get()), tsi.eids().collect::<Vec<_>>());
        // Who asks would be told that it is gone.
        if self.told(vni, mac).basis() == Some(Basis::Expected) {
            self.control(nve, Control::Holder { vni, eid: mac });
        }
        self.tell_previous(now, nve, vni, &eids);
    }

    /// Has a node's session looked at by `poll_transmit`.
    pub(crate) fn wake(&mut self, nve: XtrId) {
        let Some(node) = self.nodes.get_mut(nve) else { return };
        let Some(session) = &node.session else { return };
        let feeds = &session.feeds;
        let idle = session.controls.is_empty()
            && node.pending.is_empty()
            && feeds.member_changes.is_empty()
            && feeds.group_changes.is_empty();
        if !node.queued && !session.congested && !idle {
            node.queued = true;
            self.out.ready.push_back(nve);
        }
    }

    /// Queues a frame that is not a notification.
    pub(crate) fn control(&mut self, nve: XtrId, control: Control) {
        let limit = self.config.limits.controls_per_session.max(1);
        let Some(session) = self.nodes.get_mut(nve).and_then(|node| node.session.as_mut()) else { return };
        if session.controls.len() >= limit {
            return self.overrun(nve);
        }
        session.controls.push_back(control);
        self.wake(nve);
    }

    /// Fills `out` with the next session's frames.
    pub(crate) fn poll_session(&mut self, out: &mut Vec<u8>) -> Option<Transmit> {
        while let Some(nve) = self.out.ready.pop_front() {
            let Some(node) = self.nodes.get_mut(nve) else { continue };
            node.queued = false;
            let Some(session) = node.session.as_ref().filter(|session| !session.congested) else { continue };
            let id = session.id;
            while out.len() < self.config.limits.session_batch_octets.max(1) && self.write_next(nve, out) {}
            self.wake(nve);
            if !out.is_empty() {
                return Some(Transmit::Session { id });
            }
        }
        None
    }

    /// Appends the next frame to a node; false when there is none.
    pub(crate) fn write_next(&mut self, nve: XtrId, out: &mut Vec<u8>) -> bool {
        let Some(node) = self.nodes.get_mut(nve) else { return false };
        let Some(session) = node.session.as_mut() else { return false };
        if let Some(control) = session.controls.pop_front() {
            self.write_control(nve, control, out);
            return true;
        }
        let Some((vni, eid)) = node.pending.pop_first() else { return self.write_member_change(nve, out) };
        self.write_notification(AskKey { vni, eid, asker: nve }, out);
        true
    }

    /// A mapping is told to those only who are remembered as holding one or are subscribed to all of its VN,
    /// since only they hear of its changes; anybody else is told to forget, and asks again when in need.
    pub(crate) fn write_notification(&mut self, key: AskKey, out: &mut Vec<u8>) {
        let AskKey { vni, eid, .. } = key;
        let subscribed = self.subscribers.is_pushed(key.asker, vni);
        let holds = subscribed || self.asks.get_mut(key).is_some_and(|ask| !ask.negative);
        let told = if holds { self.told(vni, eid) } else { Told::Nothing };
        let (registrant, ttl, epoch, locators) = match told {
            Told::Nothing | Told::At { basis: Basis::Expected, .. } => {
                let holder = self.db.lookup(vni, eid).map(|(_, tsi)| tsi.holder().0);
                (
                    holder.unwrap_or(XtrId([0; 16])),
                    lisp::wire::TTL_REMOVE,
                    None,
                    Locators::collect([].into_iter()),
                )
            }
            Told::At { mac, nve, epoch, locators, .. } => {
                let locators = match eid {
                    Eid::Mac(_) => Locators::collect(locators.into_iter()),
                    Eid::Ip(_) => Locators::mac(mac),
                };
                let ttl = if subscribed { push::TTL } else { self.config.ttl.positive };
                (nve, ttl, Some(epoch), locators)
            }
        };
        self.write_mapping(registrant, record(vni, eid, ttl, epoch, &locators), out);
    }

    fn write_mapping(&mut self, registrant: XtrId, record: lisp::Record<'_>, out: &mut Vec<u8>) {
        let xtr = lisp::Xtr { xtr_id: registrant.0, site_id: 0 };
        let id = self.next_frame_id();
        // Such a record always has an encoding and fits a frame.
        let body = Body::MappingNotification { xtr, record };
        if body.encode(id, out, EncodeOptions::default()).is_ok() {
            self.counters.notifications += 1;
        }
    }

    fn write_holder(&mut self, vni: Vni, eid: Eid, out: &mut Vec<u8>) {
        let Told::At { nve, epoch, locators, .. } = self.told(vni, eid) else { return };
        let locators = Locators::collect(locators.into_iter());
        self.write_mapping(nve, record(vni, eid, self.config.ttl.positive, Some(epoch), &locators), out);
    }

    fn write_control(&mut self, nve: XtrId, control: Control, out: &mut Vec<u8>) {
        let prefix = |eid: Option<lisp::Eid>| {
            eid.map_or(EidPrefix { mask_len: 0, eid: Address::NoAddress }, EidPrefix::from)
        };
        let (id, body) = match control {
            Control::Holder { vni, eid } => return self.write_holder(vni, eid, out),
            Control::Hello => {
                let boot_id = self.config.boot_id.0;
                (self.next_frame_id(), Body::Signal(Signal::Hello { version: PROTOCOL_VERSION, boot_id }))
            }
            Control::Ack { id, eid } => (id, Body::RegistrationAck(prefix(eid))),
            Control::Reject { id, reason, eid } => {
                (id, Body::RegistrationReject { reason, prefix: prefix(eid) })
            }
            Control::Refresh { vni } => {
                let scope = vni.map_or(RefreshScope::All, |vni| {
                    let eid = Address::InstanceId { iid: vni.get(), mask_len: 32, inner: Inner::NoAddress };
                    RefreshScope::Instance(EidPrefix { mask_len: 0, eid })
                });
                (self.next_frame_id(), Body::RegistrationRefresh { scope, rejected_only: false })
            }
            Control::Malformed { frame_type, length, id } => {
                let code = ErrorNotification::MALFORMED;
                let error = ErrorNotification { code, frame_type, length, id, data: &[] };
                (self.next_frame_id(), Body::ErrorNotification(error))
            }
            Control::Unknown { frame_type, length, id } => {
                let code = ErrorNotification::UNKNOWN_TYPE;
                let error = ErrorNotification { code, frame_type, length, id, data: &[] };
                (self.next_frame_id(), Body::ErrorNotification(error))
            }
            Control::Subscribed { id, afi, iid } => {
                let event = MembershipEvent::SubscribeAck { subscribe_id: id };
                (self.next_frame_id(), Body::Membership(Membership { eid_afi: afi, iid, event }))
            }
            Control::NotSubscribed { id, afi, iid, error } => {
                let event = MembershipEvent::SubscribeNack { subscribe_id: id, error };
                (self.next_frame_id(), Body::Membership(Membership { eid_afi: afi, iid, event }))
            }
            Control::MappingsRefused { id, vni, error } => {
                (id, Body::Signal(Signal::MappingsRefused { vni, error }))
            }
            Control::Digest { vni } => {
                let Digest { count, sum } = self.vn_digest(nve, vni);
                let signal = Signal::VnDigest { vni: vni.get(), count, digest: sum };
                (self.next_frame_id(), Body::Signal(signal))
            }
        };
        // None of these can fail to be encoded.
        let _ = body.encode(id, out, EncodeOptions::default());
    }

    pub(crate) fn next_frame_id(&mut self) -> u32 {
        self.frame_id = self.frame_id.wrapping_add(1);
        self.frame_id
    }
}
