//! The Map-Resolver: Map-Requests and their answers. Nothing here allocates for an asker that is known
//! already, nor waits for anything.

use std::net::{IpAddr, SocketAddr};

use weft_lisp as lisp;
use weft_lisp::{Action, Ecm, EncodeOptions, MapReply, MapRequest, Record};
use weft_model::{Eid, Rloc, Time, Vni, XtrId};

use super::Shard;
use super::conversations::{AskKey, Class};
use super::counters::Counters;
use super::database::{Answer, Source};
use super::forward;
use super::nodes::Node;
use super::output::Outbox;
use super::publish::answer;
use super::pubsub::leaves;
use super::wire::{Locators, WireEid, from_lisp, from_lisp_host, record, to_lisp};

/// A Map-Request that may be answered.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) nve: XtrId,
    to: SocketAddr,
    /// Where the question came from.
    pub(crate) source_rloc: IpAddr,
    /// Which of our addresses was asked.
    pub(crate) here: IpAddr,
    /// The same, if the answer may come from there.
    pub(crate) from: Option<IpAddr>,
    source: Option<(Vni, Eid)>,
    /// D bit: the asker wants to be remembered, not answered.
    pub(crate) silent: bool,
    pub(crate) ecm: &'a Ecm<'a>,
    pub(crate) request: &'a MapRequest<'a>,
}

impl Shard {
    /// Takes a Map-Request in an ECM (RFC 9301 section 8.2).
    pub(crate) fn on_request(&mut self, now: Time, src: SocketAddr, dst: IpAddr, ecm: &Ecm<'_>) {
        let Ok(request) = MapRequest::decode(ecm.message) else {
            self.counters.malformed += 1;
            return;
        };
        if request.probe || request.smr {
            self.counters.unsupported += 1;
            return;
        }
        let Ok(rloc) = Rloc::new(src.ip()) else {
            self.counters.requests_from_strangers += 1;
            return;
        };
        let Some(nve) = self.asker(rloc, &request) else { return };
        // Who leaves names no ITR-RLOC: what there is to say goes to where it came from (RFC 9437 section 5).
        let itr_rloc = if leaves(&request) { Some(src.ip()) } else { itr_rloc(&request, dst) };
        let Some(itr_rloc) = itr_rloc else {
            self.counters.malformed += 1;
            return;
        };
        let port = ecm.header.source_port().unwrap_or(src.port());
        if port == 0 {
            self.counters.malformed += 1;
            return;
        }
        let limits = &self.config.limits;
        let (rate, burst) = (limits.requests_per_second, limits.request_burst);
        let records = limits.records_per_request.max(1);
        let Some(node) = self.nodes.get_mut(nve) else { return };
        node.asked_at = Some(dst);
        if !node.bucket.take(now, rate, burst) {
            self.counters.requests_rate_limited += 1;
            return;
        }
        let source = match from_lisp_host(request.source_eid) {
            WireEid::Host(vni, eid) => Some((vni, eid)),
            _ => None,
        };
        let from = (itr_rloc.is_ipv4() == dst.is_ipv4()).then_some(dst);
        let to = SocketAddr::new(itr_rloc, port);
        let silent = request.dont_map_reply;
        let (source_rloc, here) = (src.ip(), dst);
        let asked = Asked { nve, to, source_rloc, here, from, source, silent, ecm, request: &request };
        for wanted in request.records.iter().take(records) {
            if !(wanted.notify && self.on_subscribe(now, &asked, &wanted)) {
                self.on_wanted(now, &asked, wanted.eid, wanted.mask_len);
            }
        }
    }

    /// Who asks: the node at the address the message came from, every ITR-RLOC being its own.
    fn asker(&mut self, rloc: Rloc, request: &MapRequest<'_>) -> Option<XtrId> {
        let mut known = false;
        for (nve, node) in self.nodes.at(rloc) {
            known = true;
            if owns_itr_rlocs(node, request) || leaves(request) {
                return Some(nve);
            }
        }
        if known {
            self.counters.requests_foreign_itr_rloc += 1;
        } else {
            self.counters.requests_from_strangers += 1;
        }
        None
    }

    fn on_wanted(&mut self, now: Time, asked: &Asked<'_>, address: lisp::Address<'_>, mask_len: u8) {
        let wanted = from_lisp(address, mask_len);
        let vni = match wanted {
            WireEid::Host(vni, _) | WireEid::Odd(vni, _) => vni,
            WireEid::Unusable => {
                self.counters.unsupported += 1;
                return;
            }
        };
        if !self.owns(vni) {
            // Another shard answers this part.
            return;
        }
        if !self.may_ask(asked.nve, vni) {
            self.counters.requests_foreign_vn += 1;
            return;
        }
        self.counters.requests += 1;
        if !self.loaded {
            // Whether it is granted cannot be known yet: any answer might be a lie.
            self.counters.unanswered += 1;
            return;
        }
        match wanted {
            WireEid::Host(vni, eid) => self.on_host(now, asked, vni, eid),
            // Nobody can ever have it, so nobody need be remembered.
            WireEid::Odd(_, eid) => self.reply_negative(asked, eid, Class::NegativeOutside),
            WireEid::Unusable => {}
        }
    }

    fn on_host(&mut self, now: Time, asked: &Asked<'_>, vni: Vni, eid: Eid) {
        let key = AskKey { vni, eid, asker: asked.nve };
        let source = asked.source.and_then(|(v, eid)| (v == vni).then_some(eid));
        let limits = &self.config.limits;
        let (rate, burst, sources) = (limits.reply_rate, limits.reply_burst, limits.sources_per_ask);
        let known = self.asks.find(key);
        let mut r1_at = None;
        if let Some(ask) = known.and_then(|at| self.asks.at(at)) {
            if let Some(source) = source {
                ask.note_source(now, source, sources);
            }
            if !ask.replies.take(now, rate, burst) {
                self.counters.requests_repeated += 1;
                return;
            }
            r1_at = Some(ask.r1);
        }
        let Some((class, r1)) = self.reply(asked, vni, eid) else {
            self.counters.unanswered += 1;
            return;
        };
        let at = self.remember_at(now, key, class, known);
        if let Some(ask) = self.asks.at(at) {
            ask.note_answer(asked.request.nonce, class.negative());
            if known.is_none() {
                ask.replies.take(now, rate, burst);
                if let Some(source) = source {
                    ask.note_source(now, source, sources);
                }
            }
        }
        self.end_solicit(key);
        if let Some(r1) = r1 {
            let r1 = AskKey { eid: r1, ..key };
            let r1_known = match r1_at {
                Some(hint) => self.asks.find_near(r1, hint),
                None => self.asks.find(r1),
            };
            let r1_at = self.remember_at(now, r1, Class::Positive, r1_known);
            // To make room the first may have been forgotten for the second.
            if let Some(ask) = self.asks.find_near(key, at).and_then(|at| self.asks.at(at)) {
                ask.r1 = r1_at;
            }
            self.end_solicit(r1);
        }
        if known.is_none()
            && class == Class::Positive
            && let Some(source) = source
            && asked.request.piggyback.is_none()
        {
            self.introduce(now, asked.nve, vni, source, eid);
        }
    }

    /// Two tenant systems are about to talk for the first time: the destination's NVE is told where the
    /// asking one is before its own tenant asks (requirement M5: the mapping goes to the node of the one
    /// that is talked to, and to no other). It counts as having asked, so it is told of changes too.
    fn introduce(&mut self, now: Time, asker: XtrId, vni: Vni, source: Eid, destination: Eid) {
        let Answer::At(there) = answer(&self.db, &self.nodes, vni, destination) else { return };
        let Answer::At(here) = answer(&self.db, &self.nodes, vni, source) else { return };
        let (there, mac) = (there.nve, here.tsi.grant.mac.get());
        // A source that is not the asker's own is somebody's claim, not a conversation.
        let own = here.nve == asker && matches!(here.source, Source::Registration(_));
        let listens = self.nodes.get(there).is_some_and(|node| node.session.is_some());
        if !own || there == asker || !listens {
            return;
        }
        for eid in [Eid::Mac(mac), source] {
            let key = AskKey { vni, eid, asker: there };
            if self.asks.find(key).is_none() {
                self.remember(now, key, Class::Positive);
                self.tell(now, there, vni, eid);
            }
        }
    }

    /// Whether a node may ask about a VN: it has, or is to get, a tenant system there.
    pub(crate) fn may_ask(&self, nve: XtrId, vni: Vni) -> bool {
        let plain = || self.nodes.get(nve).and_then(|node| node.plain.as_ref());
        self.vns.contains_key(&vni)
            && (self.db.in_scope(nve, vni) || plain().is_some_and(|plain| plain.vnis.contains(&vni)))
    }

    /// Answers, if there is a true answer. Returns the TTL class of it and, for an IP address, the MAC
    /// whose record went with it.
    fn reply(&mut self, asked: &Asked<'_>, vni: Vni, eid: Eid) -> Option<(Class, Option<Eid>)> {
        let found = match answer(&self.db, &self.nodes, vni, eid) {
            Answer::Unlocated => return None,
            Answer::Nothing => {
                let class = self.negative_class(vni, eid);
                self.reply_negative(asked, to_lisp(vni, eid), class);
                return Some((class, None));
            }
            Answer::At(found) => found,
        };
        let mac = found.tsi.grant.mac.get();
        let limit = self.config.limits.udp_queue_octets;
        let ip = matches!(eid, Eid::Ip(_));
        let told = Some((Class::Positive, ip.then_some(Eid::Mac(mac))));
        if let Some(destination) = self.destination(asked, vni, &found) {
            match forward::send(&mut self.out, limit, asked, to_lisp(vni, eid), destination) {
                true => self.counters.requests_forwarded += 1,
                false => self.counters.udp_dropped += 1,
            }
            return told;
        }
        match found.source {
            Source::Registration(_) => self.counters.replies_registered += 1,
            Source::Grant(_) => self.counters.replies_granted += 1,
        }
        let (ttl, epoch) = (self.config.ttl.positive, Some(found.epoch));
        let (r1, r2) = (Locators::of(&found), Locators::mac(mac));
        let r1 = record(vni, Eid::Mac(mac), ttl, epoch, &r1);
        let r2 = record(vni, eid, ttl, epoch, &r2);
        let both = [r2, r1];
        let records = if ip { both.as_slice() } else { both.get(1..).unwrap_or_default() };
        send_reply(&mut self.out, &mut self.counters, limit, asked, records);
        told
    }

    /// RFC 9301 section 5.4 with ACT 3: the default, Natively-Forward, would let a tenant's packet out.
    fn reply_negative(&mut self, asked: &Asked<'_>, eid: lisp::Eid, class: Class) {
        self.counters.replies_negative += 1;
        let negative = Record {
            ttl: class.minutes(&self.config.ttl),
            mask_len: eid.mask_len(),
            action: Action::Drop,
            eid: eid.address(),
            ..Record::default()
        };
        let limit = self.config.limits.udp_queue_octets;
        send_reply(&mut self.out, &mut self.counters, limit, asked, &[negative]);
    }

    /// Says no to a subscription, for a minute (RFC 9437 section 5).
    pub(crate) fn reply_denied(&mut self, asked: &Asked<'_>, eid: lisp::Eid, action: Action) {
        self.counters.replies_negative += 1;
        let denied = Record {
            ttl: self.config.ttl.negative_inside,
            mask_len: eid.mask_len(),
            action,
            eid: eid.address(),
            ..Record::default()
        };
        let limit = self.config.limits.udp_queue_octets;
        send_reply(&mut self.out, &mut self.counters, limit, asked, &[denied]);
    }

    fn negative_class(&self, vni: Vni, eid: Eid) -> Class {
        match (eid, self.vns.get(&vni)) {
            (Eid::Ip(ip), Some(vn)) if vn.subnets.containing(ip.get()).is_some() => Class::NegativeInside,
            (Eid::Ip(_), _) => Class::NegativeOutside,
            (Eid::Mac(_), _) => Class::NegativeInside,
        }
    }
}

fn send_reply(
    out: &mut Outbox,
    counters: &mut Counters,
    limit: usize,
    asked: &Asked<'_>,
    records: &[Record<'_>],
) {
    if asked.silent {
        return;
    }
    let reply = MapReply { nonce: asked.request.nonce, records: records.into(), ..MapReply::default() };
    let queued =
        out.udp(limit, asked.to, asked.from, |octets| reply.encode(octets, EncodeOptions::default()));
    if !queued {
        counters.udp_dropped += 1;
    }
}

fn owns_itr_rlocs(node: &Node, request: &MapRequest<'_>) -> bool {
    let own = |ip: IpAddr| node.rlocs.iter().any(|rloc| rloc.get() == ip);
    request.itr_rlocs.iter().all(|address| address.as_ip().is_some_and(own))
}

/// Where the answer goes: the first ITR-RLOC of the family that the question came by, else the first.
fn itr_rloc(request: &MapRequest<'_>, dst: IpAddr) -> Option<IpAddr> {
    let mut rlocs = request.itr_rlocs.iter().filter_map(|address| address.as_ip());
    let first = rlocs.next()?;
    if first.is_ipv4() == dst.is_ipv4() {
        return Some(first);
    }
    rlocs.find(|ip| ip.is_ipv4() == dst.is_ipv4()).or(Some(first))
}
