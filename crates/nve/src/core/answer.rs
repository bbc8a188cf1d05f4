//! Answering for the tenant systems attached here: Map-Requests that an Oracle passes on
//! (`reply: forward`, requirement N5; RFC 9301 section 8.3).

use super::messages::{self, Answer};
use super::{Core, Output};
use ::core::net::{IpAddr, SocketAddr};
use ::core::time::Duration;
use weft_lisp::{Ecm, MapRequest, MessageType};
use weft_model::{Eid, Grant, Time, Vni};

/// Records of one question that are answered.
const RECORDS: usize = 8;

impl Core {
    /// A question an Oracle passed on. The answer goes straight to who asked.
    pub(super) fn forwarded(&mut self, now: Time, octets: &[u8]) {
        let Ok(ecm) = Ecm::decode(octets) else {
            self.counters.malformed_datagrams += 1;
            return;
        };
        if MessageType::of(ecm.message) != Ok(MessageType::MapRequest) {
            self.counters.unexpected_datagrams += 1;
            return;
        }
        let Ok(request) = MapRequest::decode(ecm.message) else {
            self.counters.malformed_datagrams += 1;
            return;
        };
        // An RLOC probe and an SMR are no questions about an EID; D asks for no answer.
        if request.probe || request.smr || request.dont_map_reply {
            self.counters.unexpected_datagrams += 1;
            return;
        }
        let port = ecm.header.source_port().filter(|port| *port != 0);
        let (Some(port), Some(to)) = (port, self.itr_rloc(&request)) else {
            self.counters.unexpected_datagrams += 1;
            return;
        };
        if !self.may_answer(now) {
            self.counters.answers_limited += 1;
            return;
        }
        let wanted: Vec<_> =
            request.records.iter().take(RECORDS).filter_map(|r| messages::wanted(&r)).collect();
        let answers: Vec<Answer<'_>> = wanted.iter().map(|(vni, eid)| self.own(*vni, *eid)).collect();
        if answers.is_empty() {
            self.counters.unexpected_datagrams += 1;
            return;
        }
        let mut reply = Vec::with_capacity(192);
        let minutes = u32::try_from(self.config.timing.ttl.as_secs() / 60).unwrap_or(u32::MAX).max(1);
        let me = self.config.xtr_id;
        if messages::own_reply(request.nonce, &answers, me, minutes, &mut reply).is_err() {
            self.counters.not_encoded += 1;
            return;
        }
        let introduced = messages::introduced(&request)
            .filter(|(vni, _)| wanted.iter().any(|(v, eid)| v == vni && self.is_local(*v, *eid)));
        self.counters.requests_answered += 1;
        self.outputs.push_back(Output::Answer { to: SocketAddr::new(to, port), octets: reply });
        // Whoever asks is about to talk to one of this NVE's. What it says of itself is not believed (RFC 9301
        // section 5.3: unvalidated), it is asked for.
        if let Some((vni, eid)) =
            introduced.filter(|(vni, eid)| !self.is_known(*vni, *eid) && !self.is_local(*vni, *eid))
        {
            self.ask(now, vni, eid, None, None, None);
        }
    }

    /// Where the answer goes: the first ITR-RLOC of a family that this NVE has an RLOC of.
    fn itr_rloc(&self, request: &MapRequest<'_>) -> Option<IpAddr> {
        let mine = |ip: &IpAddr| self.config.rlocs.iter().any(|r| r.get().is_ipv4() == ip.is_ipv4());
        // Others than enrolled nodes are sent nothing, whoever passes their questions on.
        let peer = |ip: &IpAddr| self.tables.peers.get(ip).is_some_and(|peer| peer.nve);
        request.itr_rlocs.iter().filter_map(|address| address.as_ip()).find(|ip| mine(ip) && peer(ip))
    }

    /// What there is to say of an address: its grant, if its tenant system is registered here.
    fn own(&self, vni: Vni, eid: Eid) -> Answer<'_> {
        let id = match eid {
            Eid::Mac(mac) => self.local_macs.get(&(vni, mac)),
            Eid::Ip(ip) => self.local_ips.get(&(vni, ip)),
        };
        // Of what is on its way elsewhere it is not for this NVE to say that it is nowhere.
        let id = id.or_else(|| self.stopped_with(vni, eid));
        let grant: Option<&Grant> = id.and_then(|id| self.tsis.get(id)).map(|tsi| &tsi.grant);
        let locators = |grant: &Grant| messages::locators(&self.config.rlocs, &self.tunnel_policy(grant));
        let grant = grant.map(|grant| (grant, locators(grant)));
        Answer { vni, eid, grant }
    }

    /// The generic cell rate algorithm over all answers: a forged Oracle must not make of this NVE a source of
    /// more than that.
    fn may_answer(&mut self, now: Time) -> bool {
        let limits = &self.config.limits;
        let each = Duration::from_secs(1) / limits.answers_per_second.max(1);
        let next = self.answered_until.max(now) + each;
        if next.since(now) > each * limits.answer_burst.max(1) {
            return false;
        }
        self.answered_until = next;
        true
    }
}
