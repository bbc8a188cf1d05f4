//! Solicit-Map-Requests between NVEs (RFC 9301 section 6.1): who sends frames for a tenant system that is not
//! here any more is told to ask again. It asks the Oracle, and believes nobody else.
//!
//! Either way at most once in some seconds for an NVE's RLOC and an address.

use super::messages;
use super::{Core, Output, Timer};
use ::core::net::{IpAddr, SocketAddr};
use std::collections::BTreeSet;
use weft_datapath::Punt;
use weft_lisp::{CONTROL_PORT, MapRequest};
use weft_model::{Eid, MacAddr, Time, TsMac, Vni};

/// Which way a solicitation went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Way {
    Out,
    In,
}

/// One of a moment ago: its way, the other's RLOC, and the address.
pub(super) type Solicited = (Way, IpAddr, Vni, Eid);

/// Those of a moment ago.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Solicits(BTreeSet<Solicited>);

impl Solicits {
    pub(super) fn end(&mut self, key: &Solicited) {
        self.0.remove(key);
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> &BTreeSet<Solicited> {
        &self.0
    }
}

impl Core {
    /// Whether there was none such a moment ago; from now on there was.
    fn first_solicit(&mut self, now: Time, key: Solicited) -> bool {
        let limit = self.config.limits.solicits.max(1);
        if self.solicits.0.contains(&key) || self.solicits.0.len() >= limit {
            self.counters.smrs_limited += 1;
            return false;
        }
        self.timers.set(Timer::Solicited(key), now + self.config.timing.solicit.max(super::LEAST_WAIT));
        self.solicits.0.insert(key)
    }

    /// A frame came in for who is not here.
    pub(super) fn not_here(&mut self, now: Time, punt: &Punt) {
        let (vni, mac) = (punt.vni, punt.dst);
        let Some(from) = punt.from.filter(|from| self.tables.peers.get(&from.get()).is_some_and(|p| p.nve))
        else {
            return;
        };
        let routed = mac == MacAddr::anycast(vni);
        if self.carries(vni) {
            // As the gateway. Without a part in the VN it would not be told.
            if self.is_active(vni) {
                self.carried(now, punt);
            }
            return;
        }
        let eid = Eid::Mac(mac);
        // It may have come while the frame was on its way up.
        let on_its_way = self.stopped_with(vni, eid).is_some();
        if routed || TsMac::new(mac).is_err() || self.is_local(vni, eid) || on_its_way {
            return;
        }
        let to = from.get();
        if !self.config.rlocs.iter().any(|own| own.get().is_ipv4() == to.is_ipv4())
            || !self.first_solicit(now, (Way::Out, to, vni, eid))
        {
            return;
        }
        let nonce = self.draw();
        let mut octets = Vec::with_capacity(96);
        match messages::solicitation((vni, eid), nonce, &self.config.rlocs, to, &mut octets) {
            Ok(()) => {
                self.counters.smrs_sent += 1;
                self.outputs.push_back(Output::Answer { to: SocketAddr::new(to, CONTROL_PORT), octets });
            }
            Err(_) => self.counters.not_encoded += 1,
        }
    }

    /// An enrolled node says that an address may be elsewhere. Nothing is asked about what nobody here uses.
    pub(super) fn solicited(&mut self, now: Time, from: IpAddr, request: &MapRequest<'_>) {
        let eids = messages::solicited(request);
        if eids.is_empty() {
            self.counters.unexpected_datagrams += 1;
            return;
        }
        self.counters.smrs += 1;
        for (vni, eid) in BTreeSet::from_iter(eids) {
            if self.is_known(vni, eid)
                && !self.is_pushed(vni, eid)
                && self.first_solicit(now, (Way::In, from, vni, eid))
            {
                self.resolver.invoked.insert((vni, eid));
                self.refresh(now, vni, eid);
                if !self.resolver.pending.contains_key(&(vni, eid)) {
                    self.resolver.invoked.remove(&(vni, eid));
                }
            }
        }
    }
}
