//! Sessions: what each carries comes in order and whole, until one end or both notice that it is over.

use std::time::Duration;

use weft_lisp::tcp::FrameDecoder;
use weft_model::{Time, VnSpec};
use weft_nve::core as nve;
use weft_oracle::core::{SessionEvent, SessionId, Shard};

use crate::net::{ALIVE, Host};
use crate::world::{Ev, World};

/// A session, until both ends have noticed that it is over.
pub(crate) struct Session {
    pub(crate) nve: usize,
    pub(crate) oracle: usize,
    /// Each end, until it has noticed.
    at_nve: bool,
    at_oracle: bool,
    /// When the last segment in each direction arrives: the next one does not overtake it. None when that is never.
    to_oracle: Option<Time>,
    to_nve: Option<Time>,
}

impl World {
    pub(crate) fn connect(&mut self, nve: usize, oracle: usize) {
        let Some(site) = self.nves.get(nve).filter(|site| site.agent) else { return };
        let up = self.oracles.get(oracle).is_some_and(|o| o.shard.as_ref().is_some_and(Shard::ready));
        if site.sessions.get(oracle).copied().flatten().is_some() {
            return;
        }
        let xtr_id = site.xtr;
        let reaches = up && self.net.reaches(Host::Nve(nve), Host::Oracle(oracle));
        // A handshake that is lost comes to nothing.
        if !reaches || self.net.segment().is_none() {
            let again = Duration::from_millis(500) + self.jitter(500);
            return self.at(again, Ev::Connect { nve, oracle });
        }
        self.next_session += 1;
        let (id, now) = (self.next_session, Some(self.now));
        let session = Session { nve, oracle, at_nve: true, at_oracle: true, to_oracle: now, to_nve: now };
        self.sessions.insert(id, session);
        if let Some(slot) = self.nves.get_mut(nve).and_then(|site| site.sessions.get_mut(oracle)) {
            *slot = Some(id);
        }
        let boot = self.oracles.get(oracle).map_or(0, |o| o.boot);
        let event = SessionEvent::Up { session: SessionId(id), xtr_id };
        self.with_shard(oracle, boot, |shard, now, _| shard.handle_session(now, event));
        // As the agent does: the grants are read before anything is registered.
        let (revision, grants) = self.store.grants_of(xtr_id);
        let held = |spec: &&VnSpec| grants.iter().any(|grant| grant.tsi.vni == spec.vni);
        let vns: Vec<VnSpec> = self.store.vns().filter(held).cloned().collect();
        self.with_core(nve, |core, now| {
            vns.into_iter().for_each(|vn| core.handle_fact(nve::Fact::Vn(vn)));
            core.handle_fact(nve::Fact::Grants(revision, grants));
            core.handle_session(now, oracle, nve::Session::Up);
        });
        self.persist(nve);
    }

    /// A session is over, and both ends notice; the Oracle had not heard its NVE for so long.
    pub(crate) fn lost(&mut self, id: u64, silent: Duration) {
        self.end_at_oracle(id, silent);
        self.end_at_nve(id);
    }

    pub(crate) fn end_at_oracle(&mut self, id: u64, silent: Duration) {
        let Some(session) = self.sessions.get_mut(&id).filter(|session| session.at_oracle) else { return };
        session.at_oracle = false;
        let (oracle, over) = (session.oracle, !session.at_nve);
        if over {
            self.sessions.remove(&id);
        }
        let boot = self.oracles.get(oracle).map_or(0, |o| o.boot);
        let event = SessionEvent::Down { session: SessionId(id), silent };
        self.with_shard(oracle, boot, |shard, now, _| shard.handle_session(now, event));
    }

    /// Its NVE connects again.
    pub(crate) fn end_at_nve(&mut self, id: u64) {
        let Some(session) = self.sessions.get_mut(&id).filter(|session| session.at_nve) else { return };
        session.at_nve = false;
        let (nve, oracle, over) = (session.nve, session.oracle, !session.at_oracle);
        if over {
            self.sessions.remove(&id);
        }
        if let Some(slot) = self.nves.get_mut(nve).and_then(|site| site.sessions.get_mut(oracle)) {
            *slot = None;
        }
        self.with_core(nve, |core, now| core.handle_session(now, oracle, nve::Session::Down));
        let again = Duration::from_millis(100) + self.jitter(900);
        self.at(again, Ev::Connect { nve, oracle });
    }

    /// Its NVE's process is no more: the Oracle has yet to notice.
    pub(crate) fn end_unheard(&mut self, id: u64) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.at_nve = false;
        }
    }

    /// Sends on a session: from its NVE `up` to its Oracle, or down.
    pub(crate) fn segment(&mut self, id: Option<u64>, up: bool, octets: Vec<u8>) {
        let delay = self.net.segment();
        let Some((id, session)) = id.and_then(|id| self.sessions.get_mut(&id).map(|s| (id, s))) else {
            return;
        };
        if !self.net.reaches(Host::Nve(session.nve), Host::Oracle(session.oracle)) {
            return;
        }
        let last = if up { &mut session.to_oracle } else { &mut session.to_nve };
        // Behind what never arrives nothing does.
        let Some(before) = *last else { return };
        *last = delay.map(|delay| (self.now + delay).max(before));
        let Some(at) = *last else { return self.give_up(id) };
        let event = if up {
            Ev::SegmentToOracle { session: id, octets }
        } else {
            Ev::SegmentToNve { session: id, octets }
        };
        self.at(at.since(self.now), event);
    }

    /// What one end has sent does not arrive: one of the two notices, the other by silence, up to as long after that.
    fn give_up(&mut self, session: u64) {
        let later = ALIVE + self.jitter(3_000);
        let nve_first = self.net.rng().chance(500);
        let (nve, oracle) = if nve_first { (ALIVE, later) } else { (later, ALIVE) };
        self.at(nve, Ev::EndAtNve { session });
        self.at(oracle, Ev::EndAtOracle { session, silent: ALIVE });
    }

    pub(crate) fn segment_to_oracle(&mut self, id: u64, octets: &[u8]) {
        let Some(session) = self.sessions.get(&id).filter(|session| session.at_oracle) else { return };
        let oracle = session.oracle;
        let boot = self.oracles.get(oracle).map_or(0, |o| o.boot);
        let mut decoder = FrameDecoder::default();
        decoder.push(octets);
        while let Ok(Some(frame)) = decoder.next_frame() {
            let event = SessionEvent::Frame { session: SessionId(id), frame };
            self.with_shard(oracle, boot, |shard, now, _| shard.handle_session(now, event));
        }
    }

    pub(crate) fn segment_to_nve(&mut self, id: u64, octets: &[u8]) {
        let Some(session) = self.sessions.get(&id).filter(|session| session.at_nve) else { return };
        let (nve, oracle) = (session.nve, session.oracle);
        let mut decoder = FrameDecoder::default();
        decoder.push(octets);
        while let Ok(Some(frame)) = decoder.next_frame() {
            self.with_core(nve, |core, now| core.handle_session(now, oracle, nve::Session::Frame(frame)));
        }
    }
}
