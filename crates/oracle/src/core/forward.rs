//! `reply: forward`, the distributed approach (requirement N5): the Oracle passes a Map-Request on to the NVE
//! that holds what is asked for, and that answers the asker itself (RFC 9301 section 8.3). Solicitations go on
//! to an NVE on the Oracle's own host, whose port they cannot know.

use std::net::{IpAddr, SocketAddr};

use weft_lisp as lisp;
use weft_lisp::{Ecm, EidRecord, EncodeOptions, MapRequest};
use weft_model::{Reply, Rloc, Time, Vni};

use super::Shard;
use super::database::{Found, Locator, Source, Via};
use super::output::Outbox;
use super::resolver::Asked;

/// Where a Map-Request is passed on to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Destination {
    to: SocketAddr,
    from: Option<IpAddr>,
}

impl Shard {
    /// Who is to answer instead of the Oracle; nobody, when that is the Oracle's to do.
    pub(crate) fn destination(&self, asked: &Asked<'_>, vni: Vni, found: &Found<'_>) -> Option<Destination> {
        // What it holds itself, or whoever does not want an answer, needs no third.
        if asked.silent || found.nve == asked.nve || !self.is_forwarded(asked, vni, found) {
            return None;
        }
        let node = self.nodes.get(found.nve)?;
        // The Oracle's address that the NVE itself asks, so that it knows the sender.
        let known = node.asked_at.or(asked.from);
        let rlocs = || match found.source {
            Source::Registration(r) => Rlocs::Registered(r.locators.iter()),
            Source::Grant(rlocs) => Rlocs::Granted(rlocs.iter()),
        };
        let fits = |ip: &IpAddr| known.is_none_or(|known| known.is_ipv4() == ip.is_ipv4());
        let rloc = rlocs().find(fits).or_else(|| rlocs().next())?;
        let from = known.filter(|known| known.is_ipv4() == rloc.is_ipv4());
        Some(Destination { to: SocketAddr::new(rloc, node.lisp_port), from })
    }

    /// Takes a Solicit-Map-Request (RFC 9301 section 6.1) that came to an RLOC of ours: it is meant for the NVE
    /// beside this Oracle, which listens at another port. Only NVEs may send one; it counts as a question of theirs.
    pub(crate) fn on_solicited(&mut self, now: Time, src: SocketAddr, dst: IpAddr, octets: &[u8]) {
        let Ok(request) = MapRequest::decode(octets) else {
            self.counters.malformed += 1;
            return;
        };
        if !request.smr || request.probe {
            self.counters.unsupported += 1;
            return;
        }
        let nve_at = |ip: IpAddr| {
            let mut nodes = self.nodes.at(Rloc::new(ip).ok()?);
            nodes.find(|(_, node)| node.plain.is_none()).map(|(nve, node)| (nve, node.lisp_port))
        };
        let (sender, beside) = (nve_at(src.ip()), nve_at(dst));
        let Some((sender, _)) = sender else {
            self.counters.requests_from_strangers += 1;
            return;
        };
        // At port 4342 of this host there is nobody but ourselves.
        let Some((nve, port)) = beside.filter(|(_, port)| *port != lisp::wire::CONTROL_PORT) else {
            self.counters.unsupported += 1;
            return;
        };
        let (rate, burst) = (self.config.limits.requests_per_second, self.config.limits.request_burst);
        if !self.nodes.get_mut(sender).is_some_and(|node| node.bucket.take(now, rate, burst)) {
            self.counters.requests_rate_limited += 1;
            return;
        }
        let Some(node) = self.nodes.get(nve) else { return };
        // From the address by which that NVE knows us, at an RLOC of the same family.
        let from = node.asked_at.unwrap_or(dst);
        let its = node.rlocs.iter().map(|rloc| rloc.get());
        let Some(to) = [dst].into_iter().chain(its).find(|ip| ip.is_ipv4() == from.is_ipv4()) else { return };
        let limit = self.config.limits.udp_queue_octets;
        let sent = self.out.udp(limit, SocketAddr::new(to, port), Some(from), |out| {
            out.extend_from_slice(octets);
            Ok::<(), std::convert::Infallible>(())
        });
        if sent {
            self.counters.requests_forwarded += 1;
        } else {
            self.counters.udp_dropped += 1;
        }
    }

    /// By the asker's A bit, because a plain xTR has registered without the P bit, or by the VN. The last only
    /// while the NVE's agent is there to answer (its data path lives without it, and is still to be found) and once
    /// it has registered: before that it may not know its own grant yet, and would say that nobody has the address.
    fn is_forwarded(&self, asked: &Asked<'_>, vni: Vni, found: &Found<'_>) -> bool {
        let (registered, own) = match found.source {
            Source::Registration(r) => (true, matches!(r.via, Via::Udp { .. }) && !r.proxy),
            Source::Grant(_) => (false, false),
        };
        let answers = || self.nodes.get(found.nve).is_some_and(|node| node.session.is_some());
        let by_vn = || self.vns.get(&vni).is_some_and(|vn| vn.reply == Reply::Forward);
        own || asked.request.authoritative || (registered && by_vn() && answers())
    }
}

/// The RLOCs of a mapping in order, also those of a tenant system that is only Associated: its NVE says so.
enum Rlocs<'a> {
    Registered(std::slice::Iter<'a, Locator>),
    Granted(std::slice::Iter<'a, weft_model::Rloc>),
}

impl Iterator for Rlocs<'_> {
    type Item = IpAddr;

    fn next(&mut self) -> Option<IpAddr> {
        match self {
            Self::Registered(all) => all.next().map(|locator| locator.rloc.get()),
            Self::Granted(all) => all.next().map(|rloc| rloc.get()),
        }
    }
}

/// Passes a question about `wanted` on; false when there is no room for it. A message with one record, which
/// is what senders send, goes on as it came. Others are split: each NVE is asked about its own.
pub(crate) fn send(
    out: &mut Outbox,
    limit: usize,
    asked: &Asked<'_>,
    wanted: lisp::Eid,
    destination: Destination,
) -> bool {
    let Destination { to, from } = destination;
    let Asked { ecm, request, .. } = *asked;
    if request.records.len() == 1 {
        return out.udp(limit, to, from, |octets| ecm.encode(octets));
    }
    let record = [EidRecord { notify: false, mask_len: wanted.mask_len(), eid: wanted.address() }];
    // What goes along does so once: nobody is to make eight copies of it with one datagram.
    let request = MapRequest { records: (&record).into(), piggyback: None, ..*request };
    out.udp(limit, to, from, |octets| {
        Ecm::encode_with(octets, ecm.ddt, ecm.header, |octets| {
            request.encode(octets, EncodeOptions::default())
        })
    })
}
