//! The registrar: what is said on the session with each Oracle, and what is heard.

use super::messages::{self, Registering};
use super::{Core, Notice, Output, Refused, Session};
use weft_lisp::tcp::{Body, Frame, Registration, Signal};
use weft_lisp::{Eid as WireEid, EidAddr, EncodeOptions};
use weft_model::{MacAddr, Origin, Time, TsiId, Vni};

/// What this NVE speaks on a session.
pub const VERSION: u16 = 1;

/// One Oracle's session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct OracleState {
    pub up: bool,
    next_id: u32,
    nonce: u64,
}

impl Core {
    /// The session with the Oracle of index `oracle` in the configuration did something.
    pub fn handle_session(&mut self, now: Time, oracle: usize, event: Session<'_>) {
        let Some(state) = self.oracles.get_mut(oracle) else { return };
        match event {
            Session::Up => {
                state.up = true;
                self.send(
                    oracle,
                    &Body::Signal(Signal::Hello { version: VERSION, boot_id: self.config.boot.0 }),
                );
                self.register_all(oracle);
                self.refresh_all(now);
            }
            Session::Down => state.up = false,
            Session::Frame(frame) => self.frame(now, oracle, &frame),
        }
    }

    fn frame(&mut self, now: Time, oracle: usize, frame: &Frame<'_>) {
        match frame.body() {
            Ok(Body::RegistrationAck(prefix)) => {
                if let Some(id) = self.registered_as(prefix.eid, prefix.mask_len) {
                    self.acknowledged(&id);
                }
            }
            Ok(Body::RegistrationReject { prefix, .. }) => {
                self.counters.rejects += 1;
                if let Some(id) = self.registered_as(prefix.eid, prefix.mask_len) {
                    self.fail_attach(&id, Refused::Registration { tsi: id.clone() });
                    if self.tsis.contains_key(&id) {
                        self.notice(Notice::Rejected(id));
                    }
                }
            }
            Ok(Body::RegistrationRefresh { .. }) => self.register_all(oracle),
            Ok(Body::MappingNotification { record, .. }) => match messages::said(&record) {
                Some(said) => {
                    self.counters.notifications += 1;
                    self.learn(now, said, Origin::Notify, None);
                }
                None => self.counters.unexpected_frames += 1,
            },
            Ok(Body::Signal(Signal::VnDigest { vni, count, digest })) => {
                self.compare(oracle, vni, count, digest);
            }
            Ok(Body::Signal(_)) => {}
            Ok(_) => self.counters.unexpected_frames += 1,
            Err(_) => self.counters.malformed_frames += 1,
        }
    }

    /// The attached interface that has the address of an acknowledgement.
    fn registered_as(&self, eid: weft_lisp::Address<'_>, mask_len: u8) -> Option<TsiId> {
        let eid = WireEid::from_wire(eid, mask_len).ok()?;
        let vni = Vni::new(eid.iid()).ok()?;
        match eid.addr() {
            EidAddr::Mac(mac) => self.local_macs.get(&(vni, MacAddr(mac))).cloned(),
            EidAddr::Ipv4(ip) => {
                self.local_ips.get(&(vni, weft_model::TenantIp::new(ip.into()).ok()?)).cloned()
            }
            EidAddr::Ipv6(ip) => {
                self.local_ips.get(&(vni, weft_model::TenantIp::new(ip.into()).ok()?)).cloned()
            }
        }
    }

    /// Registers `id` at every Oracle there is a session with.
    pub(super) fn register(&mut self, id: &TsiId, what: Registering) {
        for oracle in 0..self.oracles.len() {
            if self.oracles.get(oracle).is_some_and(|o| o.up) {
                self.register_at(oracle, id, what);
            }
        }
    }

    fn register_at(&mut self, oracle: usize, id: &TsiId, what: Registering) {
        let (Some(tsi), Some(state)) = (self.tsis.get(id), self.oracles.get_mut(oracle)) else { return };
        state.nonce += 1;
        let mut register = Vec::with_capacity(256);
        let config = &self.config;
        let made = messages::map_register(
            &tsi.grant,
            config.xtr_id,
            &config.rlocs,
            state.nonce,
            what,
            &mut register,
        );
        match made.ok().and_then(|()| Registration::new(&register).ok()) {
            Some(registration) => {
                self.counters.registrations += 1;
                self.send(oracle, &Body::Registration(registration));
            }
            None => self.counters.not_encoded += 1,
        }
    }

    /// Registers everything Activated, then says that this was all.
    fn register_all(&mut self, oracle: usize) {
        let activated = |t: &&super::Tsi| t.state == super::tsi::State::Activated;
        let ids: Vec<TsiId> = self.tsis.values().filter(activated).map(|t| t.grant.tsi.clone()).collect();
        for id in &ids {
            self.register_at(oracle, id, Registering::Activated);
        }
        let count = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        self.send(oracle, &Body::Signal(Signal::EndOfRegistration { count, digest: 0 }));
    }

    fn compare(&mut self, _oracle: usize, _vni: u32, _count: u32, _digest: u64) {}

    fn send(&mut self, oracle: usize, body: &Body<'_>) {
        let Some(state) = self.oracles.get_mut(oracle) else { return };
        state.next_id = state.next_id.wrapping_add(1);
        let mut octets = Vec::with_capacity(256);
        match body.encode(state.next_id, &mut octets, EncodeOptions::default()) {
            Ok(()) => self.outputs.push_back(Output::Frame { oracle, octets }),
            Err(_) => self.counters.not_encoded += 1,
        }
    }
}
