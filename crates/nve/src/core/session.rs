//! The registrar: what is said on the session with each Oracle, and what is heard.

use super::messages::{self, Registering};
use super::tsi::State;
use super::{Core, Notice, Output, Refused, Session, Timer};
use std::collections::BTreeSet;
use weft_lisp::tcp::{Body, EidPrefix, Frame, RefreshScope, Registration, RejectReason, Signal};
use weft_lisp::{Address, Eid as WireEid, EncodeOptions};
use weft_model::{BootId, Reply, Time, TsiId, Vni, digest::Digest};

/// What this NVE speaks on a session. It understands one version more and one less.
pub const VERSION: u16 = 1;

/// One Oracle's session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct OracleState {
    pub up: bool,
    /// The VNs of which it has acknowledged something on this session.
    pub(super) scopes: BTreeSet<Vni>,
    /// The VNs of which it has been told on this session which groups are wanted here.
    pub(super) groups: BTreeSet<Vni>,
    next_id: u32,
    nonce: u64,
    /// Which start of the Oracle this or the last session is with.
    boot: Option<BootId>,
    /// Since when there is a session that the Oracle may not have heard of yet: what it has to say it may still say on the
    /// one before.
    unheard: Option<Time>,
}

impl Core {
    /// The session with the Oracle of index `oracle` in the configuration did something.
    pub fn handle_session(&mut self, now: Time, oracle: usize, event: Session<'_>) {
        self.now = now;
        let Some(state) = self.oracles.get_mut(oracle) else { return };
        match event {
            Session::Up => {
                state.up = true;
                state.unheard = Some(now);
                self.leave_oracle(oracle);
                let hello = Signal::Hello { version: VERSION, boot_id: self.config.boot.0 };
                self.send(oracle, &Body::Signal(hello));
                if self.config.lisp_port != weft_lisp::CONTROL_PORT {
                    self.send(oracle, &Body::Signal(Signal::LispPort { port: self.config.lisp_port }));
                }
                self.send(oracle, &Body::Signal(Signal::NamesGroups));
                self.register_all(oracle);
                self.compare_connections();
                self.refresh_all(now);
                self.timers.set(Timer::Digest(oracle), now + self.config.timing.digest);
            }
            Session::Down => {
                state.up = false;
                self.timers.cancel(&Timer::Digest(oracle));
                self.leave_oracle(oracle);
            }
            // What an agent still has in hand of a session that is over says nothing any more.
            Session::Frame(_) if !state.up => self.counters.unexpected_frames += 1,
            Session::Frame(frame) => self.frame(now, oracle, &frame),
        }
    }

    fn frame(&mut self, now: Time, oracle: usize, frame: &Frame<'_>) {
        match frame.body() {
            Ok(Body::RegistrationAck(prefix)) => {
                if let Some(id) = self.answered(oracle, frame.id, prefix) {
                    self.acknowledged(&id);
                    self.enter_scope(oracle, id.vni);
                }
            }
            Ok(Body::RegistrationReject { prefix, reason }) => {
                self.counters.rejects += 1;
                if let Some(id) = self.answered(oracle, frame.id, prefix) {
                    self.rejected(now, oracle, &id, reason);
                }
            }
            Ok(Body::RegistrationRefresh { scope, .. }) => self.refresh_registrations(oracle, &scope),
            Ok(Body::MappingNotification { record, .. }) => {
                self.notified(now, oracle, &record);
            }
            Ok(Body::Signal(
                signal @ (Signal::MappingsRefused { .. }
                | Signal::MappingsBegin { .. }
                | Signal::MappingsMarker { .. }),
            )) => self.mappings(now, oracle, frame.id, signal),
            Ok(Body::Membership(membership)) => self.membership(now, oracle, membership),
            Ok(Body::Group(group)) => self.group(now, oracle, group),
            Ok(Body::Signal(Signal::VnDigest { vni, count, digest })) => {
                self.compare(oracle, vni, Digest { count, sum: digest });
            }
            Ok(Body::Signal(Signal::Hello { version, boot_id })) => self.hello(now, oracle, version, boot_id),
            // The end of registration is ours to say.
            Ok(_) => self.counters.unexpected_frames += 1,
            Err(_) => self.counters.malformed_frames += 1,
        }
    }

    /// The Oracle introduces itself. Another boot id asks for nothing: with every session
    /// everything is registered anew. What it has answered before, and was changed since, it may have told on a session
    /// that is no more.
    fn hello(&mut self, now: Time, oracle: usize, version: u16, boot: u64) {
        if let Some(state) = self.oracles.get_mut(oracle) {
            state.boot = Some(BootId(boot));
            if let Some(since) = state.unheard.take() {
                self.refresh_since(now, since);
            }
        }
        if version.abs_diff(VERSION) > 1 {
            self.notice(Notice::Version { oracle, theirs: version, ours: VERSION });
        }
    }

    /// The interface whose latest registration at `oracle` went out in the frame of this id. Answers to
    /// earlier ones are about what was, not about what is.
    fn answered(&self, oracle: usize, frame: u32, prefix: EidPrefix<'_>) -> Option<TsiId> {
        let (vni, eid) = messages::model_eid(WireEid::from_wire(prefix.eid, prefix.mask_len).ok()?)?;
        let id = match eid {
            weft_model::Eid::Mac(mac) => self.local_macs.get(&(vni, mac)),
            weft_model::Eid::Ip(ip) => self.local_ips.get(&(vni, ip)),
        };
        id.filter(|id| self.tsis.get(*id).is_some_and(|t| t.sent.get(&oracle) == Some(&frame))).cloned()
    }

    fn rejected(&mut self, now: Time, oracle: usize, id: &TsiId, reason: RejectReason) {
        if matches!(reason, RejectReason::Undefined | RejectReason::Other(_)) {
            // Nothing against this registration: an Oracle that is not ready yet, for one.
            self.timers.set(Timer::Register(id.clone()), now + self.config.timing.acknowledge);
        } else if let Some(waiting) = self.tsis.get_mut(id).and_then(|t| t.waiting.as_mut()) {
            // Another Oracle may know of the grant already.
            waiting.rejected.insert(oracle);
            let all = (0..self.oracles.len()).filter(|o| self.oracles.get(*o).is_some_and(|o| o.up));
            if all.into_iter().all(|o| waiting.rejected.contains(&o)) {
                self.fail_attach(id, Refused::Registration { tsi: id.clone() });
                return;
            }
        }
        self.notice(Notice::Rejected(id.clone()));
    }

    /// Registers `id` at every Oracle there is a session with.
    pub(super) fn register(&mut self, id: &TsiId, what: Registering) {
        for oracle in 0..self.oracles.len() {
            if self.oracles.get(oracle).is_some_and(|o| o.up) {
                self.register_at(oracle, id, what);
            }
        }
    }

    /// Registers `id` once more, if it is still to be.
    pub(super) fn register_again(&mut self, id: &TsiId) {
        if self.is_registered(id) {
            self.register(id, Registering::Activated);
        }
    }

    fn register_at(&mut self, oracle: usize, id: &TsiId, what: Registering) {
        let (Some(tsi), Some(state)) = (self.tsis.get_mut(id), self.oracles.get_mut(oracle)) else { return };
        state.nonce += 1;
        let mut register = Vec::with_capacity(256);
        let (config, nonce) = (&self.config, state.nonce);
        let vn = self.vns.get(&id.vni).map(|vn| vn.tunnel).unwrap_or_default();
        let locators = messages::locators(&config.rlocs, &tsi.grant.tunnel.over(&vn));
        let proxy = self.vns.get(&id.vni).is_none_or(|vn| vn.reply == Reply::Proxy);
        let made =
            messages::map_register(&tsi.grant, proxy, (config.xtr_id, &locators), nonce, what, &mut register);
        let Ok(digest) = made else {
            self.counters.not_encoded += 1;
            return;
        };
        let Ok(registration) = Registration::new(&register) else {
            self.counters.not_encoded += 1;
            return;
        };
        self.counters.registrations += 1;
        tsi.digest = digest;
        if let Some(frame) = self.send(oracle, &Body::Registration(registration))
            && let Some(tsi) = self.tsis.get_mut(id)
        {
            tsi.sent.insert(oracle, frame);
        }
    }

    /// Registers everything Activated, then says that this was all.
    fn register_all(&mut self, oracle: usize) {
        let vnis: Vec<Vni> = self.members.keys().copied().collect();
        let mut all = Digest::default();
        for vni in vnis {
            all.add(self.register_members(oracle, vni));
            // Before the word that this was all, so that an Oracle that begins waits for it.
            if self.narrows(vni) {
                self.tell_groups(oracle, vni);
            }
        }
        self.send(oracle, &Body::Signal(Signal::EndOfRegistration { count: all.count, digest: all.sum }));
    }

    /// Whether an Oracle is to know that it is here: it is Activated, or on its way elsewhere and not there yet.
    fn is_registered(&self, id: &TsiId) -> bool {
        self.tsis.get(id).is_some_and(|t| t.state == State::Activated) || self.stopped.contains(id)
    }

    /// Registers everything Activated in a VN.
    fn register_members(&mut self, oracle: usize, vni: Vni) -> Digest {
        let mut digest = Digest::default();
        for id in self.registered_ids(vni) {
            self.register_at(oracle, &id, Registering::Activated);
            digest.add(self.tsis.get(&id).map_or_else(Digest::default, |t| t.digest));
        }
        digest
    }

    pub(super) fn registered_ids(&self, vni: Vni) -> Vec<TsiId> {
        let members = self.members.get(&vni).into_iter().flatten();
        members.filter(|id| self.is_registered(id)).cloned().collect()
    }

    fn refresh_registrations(&mut self, oracle: usize, scope: &RefreshScope<'_>) {
        let vni = scope.prefix().and_then(|prefix| match prefix.eid {
            Address::InstanceId { iid, .. } => Vni::new(iid).ok(),
            _ => None,
        });
        match vni {
            // Whatever part of the VN is meant, all of it answers that.
            Some(vni) => self.register_vn(oracle, vni),
            None => self.register_all(oracle),
        }
    }

    /// Registers a VN anew, with a digest behind that says what else is gone.
    fn register_vn(&mut self, oracle: usize, vni: Vni) {
        let digest = self.register_members(oracle, vni);
        // It may be these that the Oracle has not.
        if self.narrows(vni) {
            self.tell_groups(oracle, vni);
        }
        self.send_digest(oracle, vni, digest);
    }

    fn send_digest(&mut self, oracle: usize, vni: Vni, digest: Digest) {
        let (vni, count, digest) = (vni.get(), digest.count, digest.sum);
        self.send(oracle, &Body::Signal(Signal::VnDigest { vni, count, digest }));
    }

    /// What this NVE has registered in a VN.
    fn registered_in(&self, vni: Vni) -> Digest {
        let members = self.members.get(&vni).into_iter().flatten().filter(|id| self.is_registered(id));
        members.filter_map(|id| self.tsis.get(id)).fold(Digest::default(), |mut sum, tsi| {
            sum.add(tsi.digest);
            sum
        })
    }

    /// Says of every VN what is registered in it, so that an Oracle that has something else notices.
    pub(super) fn send_digests(&mut self, now: Time, oracle: usize) {
        let vnis: Vec<Vni> = self.members.keys().copied().collect();
        for vni in vnis {
            self.send_digest(oracle, vni, self.registered_in(vni));
        }
        let wait = self.config.timing.digest.max(super::LEAST_WAIT);
        self.timers.set(Timer::Digest(oracle), now + wait);
    }

    /// An Oracle says what it has from this NVE in a VN. If that is something else the VN is
    /// registered anew.
    fn compare(&mut self, oracle: usize, vni: u32, theirs: Digest) {
        let Ok(vni) = Vni::new(vni) else {
            self.counters.unexpected_frames += 1;
            return;
        };
        if self.registered_in(vni) != theirs {
            self.counters.digest_mismatches += 1;
            self.register_vn(oracle, vni);
        }
    }

    /// Sends a frame; gives its ID.
    pub(super) fn send(&mut self, oracle: usize, body: &Body<'_>) -> Option<u32> {
        let state = self.oracles.get_mut(oracle)?;
        state.next_id = state.next_id.wrapping_add(1);
        let id = state.next_id;
        let mut octets = Vec::with_capacity(256);
        if body.encode(id, &mut octets, EncodeOptions::default()).is_err() {
            self.counters.not_encoded += 1;
            return None;
        }
        self.outputs.push_back(Output::Frame { oracle, octets });
        Some(id)
    }
}
