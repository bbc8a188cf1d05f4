//! The Map-Server: sessions of NVEs and what they register.

use std::time::Duration;

use weft_lisp as lisp;
use weft_lisp::MapRegister;
use weft_lisp::tcp::{Body, Frame, MIN_FRAME_LEN, RefreshScope, Signal};
use weft_model::digest::Digest;
use weft_model::{Eid, Time, Vni, XtrId};

use super::Shard;
use super::database::{TsiIx, Via};
use super::error::Refusal;
use super::liveness::Lost;
use super::nodes::{Control, Parked, Session};
use super::output::{Event, SessionId};
use super::wire::{WireEid, from_lisp};

/// What happens on the session of an NVE.
#[derive(Clone, Copy, Debug)]
pub enum SessionEvent<'a> {
    /// A session is up, its NVE known by its certificate. It takes the place of an older one, with a lower
    /// number; one that is older itself is passed over.
    Up {
        /// The session.
        session: SessionId,
        /// Whose.
        xtr_id: XtrId,
    },
    /// A frame came in.
    Frame {
        /// On this session.
        session: SessionId,
        /// The frame.
        frame: Frame<'a>,
    },
    /// The session is lost.
    Down {
        /// The session.
        session: SessionId,
        /// How long nothing had been heard on it: zero for one that ended in order.
        silent: Duration,
    },
    /// The session's transmit queue is long: changes of one EID are to become one until it is
    /// [`Writable`](SessionEvent::Writable).
    Congested {
        /// The session.
        session: SessionId,
    },
    /// The session takes transmissions again.
    Writable {
        /// The session.
        session: SessionId,
    },
}

/// The EID of the first record of a Map-Register.
fn first_eid(octets: &[u8]) -> Option<(Vni, Eid)> {
    let record = MapRegister::decode(octets).ok()?.records.first()?;
    match from_lisp(record.eid, record.mask_len) {
        WireEid::Host(vni, eid) => Some((vni, eid)),
        _ => None,
    }
}

impl Shard {
    pub(crate) fn on_session(&mut self, now: Time, event: SessionEvent<'_>) {
        match event {
            SessionEvent::Up { session, xtr_id } => self.session_up(now, session, xtr_id),
            SessionEvent::Frame { session, frame } => self.session_frame(now, session, &frame),
            SessionEvent::Down { session, silent } => self.session_down(now, session, silent),
            SessionEvent::Congested { session } => self.set_congested(now, session, true),
            SessionEvent::Writable { session } => self.set_congested(now, session, false),
        }
    }

    fn set_congested(&mut self, now: Time, session: SessionId, congested: bool) {
        let Some((nve, node, _)) = self.nodes.of_session(session) else { return };
        if let Some(session) = &mut node.session {
            session.congested = congested;
        }
        if !congested {
            self.release_pending(now, nve);
            self.push_ready(now, nve);
        }
    }

    fn session_up(&mut self, now: Time, id: SessionId, nve: XtrId) {
        let Some(node) = self.nodes.get_mut(nve).filter(|node| node.plain.is_none()) else {
            // Revoked, or not known yet: the I/O closes such sessions; nothing is remembered of them.
            self.counters.frames_without_session += 1;
            return;
        };
        // Two sessions of one NVE may be reported in either order: the older one is ending already.
        if node.latest.is_some_and(|latest| id < latest) {
            self.counters.frames_without_session += 1;
            return;
        }
        node.latest = Some(id);
        // What an earlier session registered stays, and goes at the end of registration of this one.
        let round = node.session.as_ref().map_or(0, |old| old.round);
        let old = node.session.replace(Session::new(id, round + 1));
        node.lost = None;
        node.lisp_port = lisp::wire::CONTROL_PORT;
        if let Some(old) = old {
            self.nodes.sessions.remove(&old.id);
            self.end_feeds(nve, &old.feeds);
        }
        self.nodes.sessions.insert(id, nve);
        self.nodes.lost.remove(&nve);
        if self.config.index == 0 {
            self.control(nve, Control::Hello);
        }
        self.arm(now + self.config.timing.digest_interval, super::Timer::Digest(nve, id));
        self.release_pending(now, nve);
        self.greet(nve);
        self.review_alarm(now);
    }

    fn session_down(&mut self, now: Time, id: SessionId, silent: Duration) {
        let Some((nve, node, _)) = self.nodes.of_session(id) else { return };
        let old = node.session.take();
        node.lost = Some(Lost::new(now - silent));
        self.nodes.sessions.remove(&id);
        self.nodes.lost.insert(nve);
        if let Some(old) = old {
            self.end_feeds(nve, &old.feeds);
        }
        let tsis = self.db.registered_by(nve).count();
        self.arm(now, super::Timer::Liveness(nve));
        self.event(Event::Stale { nve, tsis });
    }

    fn session_frame(&mut self, now: Time, id: SessionId, frame: &Frame<'_>) {
        self.counters.frames += 1;
        let Some((nve, ..)) = self.nodes.of_session(id) else {
            self.counters.frames_without_session += 1;
            return;
        };
        let length = u16::try_from(frame.data.len() + usize::from(MIN_FRAME_LEN)).unwrap_or(u16::MAX);
        let Ok(body) = frame.body() else {
            self.counters.frames_malformed += 1;
            let (frame_type, id) = (frame.frame_type, frame.id);
            return self.control(nve, Control::Malformed { frame_type, length, id });
        };
        match body {
            Body::Registration(registration) => {
                self.end_parked(now, nve, registration.octets());
                self.session_register(now, nve, frame.id, registration.octets(), true);
            }
            Body::Signal(Signal::Hello { .. }) => {
                if let Some(session) = self.nodes.get_mut(nve).and_then(|node| node.session.as_mut()) {
                    session.hello = true;
                }
            }
            Body::Signal(Signal::LispPort { port }) => {
                if let Some(node) = self.nodes.get_mut(nve).filter(|_| port != 0) {
                    node.lisp_port = port;
                }
            }
            Body::Signal(Signal::NamesGroups) => {
                if let Some(session) = self.nodes.get_mut(nve).and_then(|node| node.session.as_mut()) {
                    session.names_groups = true;
                }
            }
            Body::Signal(Signal::EndOfRegistration { count, digest }) => {
                self.end_of_registration(now, nve, Digest { count, sum: digest });
            }
            Body::Signal(Signal::VnDigest { vni, count, digest }) => {
                self.digest_received(now, nve, vni, Digest { count, sum: digest });
            }
            Body::Signal(Signal::SubscribeMappings { vni, count, digest }) => {
                self.subscribe_mappings(now, nve, frame.id, vni, Digest { count, sum: digest });
            }
            Body::Signal(Signal::UnsubscribeMappings { vni }) => {
                if let Ok(vni) = Vni::new(vni) {
                    self.unsubscribe_mappings(nve, vni);
                }
            }
            Body::Membership(membership) => self.membership(now, nve, frame.id, membership),
            Body::Group(group) => self.group(now, nve, group),
            Body::RegistrationRefresh { scope, .. } => {
                // A server registers nothing.
                let _: RefreshScope<'_> = scope;
                self.counters.unsupported += 1;
            }
            // A complaint about one of our own frames.
            Body::ErrorNotification(_) => self.counters.unsupported += 1,
            _ => {
                self.counters.unsupported += 1;
                let (frame_type, id) = (frame.frame_type, frame.id);
                self.control(nve, Control::Unknown { frame_type, length, id });
            }
        }
    }

    /// Takes a Map-Register on a session. Without `patience` one that no grant allows is refused at once.
    fn session_register(&mut self, now: Time, nve: XtrId, id: u32, octets: &[u8], patience: bool) {
        let Ok(register) = MapRegister::decode(octets) else { return };
        let first = register.records.first();
        let eid = first.and_then(|record| lisp::Eid::from_wire(record.eid, record.mask_len).ok());
        let named = register.xtr.map_or(nve, |xtr| XtrId(xtr.xtr_id));
        let claims = if named == nve {
            self.claims(nve, &register, false)
        } else {
            Err(Refusal::WrongXtrId { named, nve })
        };
        match claims {
            Ok(claims) => {
                let session = self.nodes.get(nve).and_then(|node| node.session.as_ref());
                let Some(via) = session.map(|s| Via::Session { id: s.id, round: s.round }) else { return };
                for claim in claims {
                    self.apply(now, nve, claim, via, false);
                }
                self.control(nve, Control::Ack { id, eid });
            }
            Err(reason) if patience && reason.lacks_grant() && self.park(now, nve, id, octets) => {}
            Err(reason) => {
                let code = reason.reject_reason();
                // It held it at an earlier epoch, if at any.
                let held = reason.held_elsewhere().filter(|_| first.is_some_and(|r| r.map_version.get() > 0));
                self.refuse(Some(nve), reason);
                self.control(nve, Control::Reject { id, reason: code, eid });
                if let Some((vni, eid)) = held {
                    self.tell_holder(now, nve, vni, eid);
                }
            }
        }
    }

    /// Keeps a registration until its grant's fact comes. False when there is no room.
    fn park(&mut self, now: Time, nve: XtrId, id: u32, octets: &[u8]) -> bool {
        let Some(key) = first_eid(octets) else { return false };
        let until = now + self.config.timing.patience;
        let limit = self.config.limits.parked_per_nve;
        let Some(session) = self.nodes.get_mut(nve).and_then(|node| node.session.as_mut()) else {
            return false;
        };
        if until <= now || session.parked.len() >= limit {
            return false;
        }
        let (session_id, parked) = (session.id, Parked { id, octets: octets.to_vec(), until });
        session.parked.insert(key, parked);
        self.counters.parked += 1;
        self.arm(until, super::Timer::Parked(nve, session_id, key.0, key.1));
        true
    }

    /// Another message about the same TSI says what its NVE wants now: what waited is answered, not applied
    /// later.
    fn end_parked(&mut self, now: Time, nve: XtrId, octets: &[u8]) {
        let Some(session) = self.nodes.get_mut(nve).and_then(|node| node.session.as_mut()) else { return };
        if session.parked.is_empty() {
            return;
        }
        if let Some(older) = first_eid(octets).and_then(|key| session.parked.remove(&key)) {
            self.session_register(now, nve, older.id, &older.octets, false);
        }
    }

    /// A grant has come or changed: what waited for it is looked at again, and goes on waiting if need be.
    pub(crate) fn register_parked(&mut self, now: Time, nve: XtrId, vni: Vni, eids: &[Eid]) {
        for eid in eids {
            let Some(session) = self.nodes.get_mut(nve).and_then(|node| node.session.as_mut()) else {
                return;
            };
            let Some(parked) = session.parked.remove(&(vni, *eid)) else { continue };
            let claims =
                MapRegister::decode(&parked.octets).map(|register| self.claims(nve, &register, false));
            if matches!(&claims, Ok(Err(reason)) if reason.lacks_grant()) {
                if let Some(session) = self.nodes.get_mut(nve).and_then(|node| node.session.as_mut()) {
                    session.parked.insert((vni, *eid), parked);
                }
            } else {
                self.session_register(now, nve, parked.id, &parked.octets, false);
            }
        }
    }

    /// No grant has come in time.
    pub(crate) fn unpark(&mut self, now: Time, nve: XtrId, id: SessionId, key: (Vni, Eid)) {
        let Some(session) = self.nodes.get_mut(nve).and_then(|node| node.session.as_mut()) else { return };
        if session.id != id || session.parked.get(&key).is_none_or(|parked| parked.until > now) {
            return;
        }
        if let Some(parked) = session.parked.remove(&key) {
            self.session_register(now, nve, parked.id, &parked.octets, false);
        }
    }

    /// Counts and reports a refused registration.
    pub(crate) fn refuse(&mut self, nve: Option<XtrId>, reason: Refusal) {
        self.counters.refuse(&reason);
        self.event(Event::Refused { nve, reason });
    }

    /// Everything the NVE has is registered: what it did not name in this round is gone.
    fn end_of_registration(&mut self, now: Time, nve: XtrId, claimed: Digest) {
        // Not the present round: a VN that is asked for again meanwhile says nothing about the others, nor
        // about what of it was registered before.
        let Some(snapshot) = self.nodes.get(nve).and_then(|n| n.session.as_ref()).map(|s| s.snapshot) else {
            return;
        };
        let all: Vec<(Vni, TsiIx)> = self.db.registered_by(nve).collect();
        let (named, rest): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(_, ix)| self.is_named(nve, *ix, snapshot));
        let mut have = Digest::default();
        for (_, ix) in &named {
            if let Some(r) = self.db.get(*ix).and_then(|tsi| tsi.registration(nve)) {
                have.add(r.digest());
            }
        }
        // With several shards each sees a part of what the count is about; a digest of 0 says that the
        // sender computes none. What a session carries comes in order and whole, so what was not named on it
        // before this is not there in either case; each VN's digest is compared later on.
        if self.config.shards <= 1 && claimed.sum != 0 && have != claimed {
            self.counters.digest_mismatches += 1;
            self.ask_refresh(now, nve, None);
            return;
        }
        let removed = rest.len();
        for (_, ix) in rest {
            self.drop_registration(now, ix, nve);
            self.counters.removed_by_snapshot += 1;
        }
        self.end_of_groups(now, nve);
        self.event(Event::EndOfRegistration { nve, registered: named.len(), removed });
        self.end_wait(now, nve);
    }

    fn is_named(&self, nve: XtrId, ix: TsiIx, round: u64) -> bool {
        let session = self.nodes.get(nve).and_then(|node| node.session.as_ref()).map(|s| s.id);
        let registration = self.db.get(ix).and_then(|tsi| tsi.registration(nve));
        registration.is_some_and(
            |r| matches!(r.via, Via::Session { id, round: r } if Some(id) == session && r >= round),
        )
    }

    /// Removes a registration and tells who asked.
    pub(crate) fn drop_registration(&mut self, now: Time, ix: TsiIx, nve: XtrId) {
        let Some(before) = self.before(ix) else { return };
        if self.db.withdraw(ix, nve) {
            self.publish(now, before);
        }
    }

    /// Number and digest of the records that `nve` has registered in a VN.
    pub(crate) fn vn_digest(&self, nve: XtrId, vni: Vni) -> Digest {
        let mut digest = Digest::default();
        let registrations = self.db.registered_in(nve, vni);
        registrations
            .filter_map(|ix| self.db.get(ix)?.registration(nve))
            .for_each(|registration| digest.add(registration.digest()));
        digest
    }

    /// The NVE says what it has registered in a VN: every 30 s, and when it has registered a VN again.
    fn digest_received(&mut self, now: Time, nve: XtrId, vni: u32, claimed: Digest) {
        let Ok(vni) = Vni::new(vni) else { return };
        if !self.owns(vni) || self.vn_digest(nve, vni) == claimed {
            return;
        }
        self.counters.digest_mismatches += 1;
        let refreshing = self.nodes.get(nve).and_then(|n| n.session.as_ref()?.refreshing.get(&vni).copied());
        if let Some((round, _)) = refreshing {
            let named = |ix: &TsiIx| self.is_named(nve, *ix, round);
            let rest: Vec<TsiIx> = self.db.registered_in(nve, vni).filter(|ix| !named(ix)).collect();
            for ix in rest {
                self.drop_registration(now, ix, nve);
                self.counters.removed_by_snapshot += 1;
            }
            if self.vn_digest(nve, vni) == claimed {
                if let Some(session) = self.nodes.get_mut(nve).and_then(|node| node.session.as_mut()) {
                    session.refreshing.remove(&vni);
                }
                return;
            }
        }
        self.ask_refresh(now, nve, Some(vni));
    }

    /// Asks an NVE to register a VN, or everything, again; not more often than the interval says.
    pub(crate) fn ask_refresh(&mut self, now: Time, nve: XtrId, vni: Option<Vni>) {
        let interval = self.config.timing.refresh_interval;
        let known = vni.is_none_or(|vni| self.vns.contains_key(&vni));
        let Some(session) = self.nodes.get_mut(nve).and_then(|node| node.session.as_mut()) else { return };
        if let Some(vni) = vni {
            let recent = session.refreshing.get(&vni).is_some_and(|(_, at)| now.since(*at) < interval);
            // An unknown VN has nothing that could be registered in it.
            if recent || !known {
                return;
            }
            session.round += 1;
            session.refreshing.insert(vni, (session.round, now));
        } else {
            if session.refreshed.is_some_and(|at| now.since(at) < interval) {
                return;
            }
            session.refreshed = Some(now);
            session.round += 1;
            session.snapshot = session.round;
        }
        self.counters.refreshes += 1;
        self.control(nve, Control::Refresh { vni });
    }

    /// Sends the digest of each VN in which the NVE has registered something.
    pub(crate) fn send_digests(&mut self, now: Time, nve: XtrId, id: SessionId) {
        let Some(session) = self.nodes.get(nve).and_then(|n| n.session.as_ref()).filter(|s| s.id == id)
        else {
            return;
        };
        if session.hello {
            let mut vnis: Vec<Vni> = self.db.registered_by(nve).map(|(vni, _)| vni).collect();
            vnis.dedup();
            for vni in vnis {
                self.control(nve, Control::Digest { vni });
            }
        }
        self.mark_mappings(now, nve);
        self.arm(now + self.config.timing.digest_interval, super::Timer::Digest(nve, id));
    }
}
