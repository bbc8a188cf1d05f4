//! Frames that wait for their destination to be known, where a VN has them wait (`miss: queue`): sent to a MAC that
//! the tables did not hold, or to a VN's anycast MAC for such an address (requirement Ld). At most so many a
//! destination, for so many destinations of a VAP and in all, for at most a second; what waits longer is lost, as on any network.
//! At a VN's gateway, whatever the VN's choice, so do those that other NVEs have handed to it and that it does not know
//! the way of either.

use super::{Core, Output, Timer, cache};
use ::core::net::IpAddr;
use etherparse::{NetSlice, SlicedPacket};
use std::collections::{BTreeMap, VecDeque};
use weft_datapath::{IfIndex, Neighbour, Punt, PuntReason};
use weft_model::{Eid, MacAddr, Rloc, TenantIp, Time, TsMac, Vni};

/// Who sent a frame that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Sender {
    /// A tenant system here.
    Vap(IfIndex),
    /// Another NVE, to its gateway.
    Nve(Rloc),
}

impl Sender {
    fn of(punt: &Punt) -> Self {
        punt.from.map_or(Self::Vap(punt.vap), Self::Nve)
    }

    /// A frame on its way.
    fn send(self, vni: Vni, frame: Vec<u8>) -> Output {
        match self {
            Self::Vap(vap) => Output::Resend(vap, frame),
            Self::Nve(rloc) => Output::Carry(vni, rloc, frame),
        }
    }
}

/// Frames with their senders, oldest first.
type Frames = VecDeque<(Sender, Vec<u8>)>;

/// Those that wait, by destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Held(BTreeMap<(Vni, Eid), Frames>);

#[cfg(test)]
impl Held {
    pub(super) fn has(&self, vni: Vni, eid: Eid) -> bool {
        self.0.contains_key(&(vni, eid))
    }
}

impl Core {
    /// A frame to a MAC that the tables do not hold.
    pub(super) fn unlocated(&mut self, now: Time, punt: &Punt) {
        if self.tables.fdb.contains_key(&(punt.vni, punt.dst)) {
            // The table was filled while the frame was on its way up.
            self.resend(punt);
        } else if self.ask_mac(now, punt) {
            self.hold(now, punt, Eid::Mac(punt.dst));
        }
    }

    /// A frame for routing inside the subnet whose destination the tables do not hold.
    pub(super) fn unrouted(&mut self, now: Time, punt: &Punt) {
        let Some(destination) = destination(&punt.frame) else {
            self.counters.malformed_punts += 1;
            return;
        };
        let key = (punt.vni, destination);
        let asked = match self.tables.neighbours.get(&key).copied() {
            // Whose it is is known, where that one is is not.
            Some(Neighbour::At(mac)) if !self.tables.fdb.contains_key(&(punt.vni, mac)) => {
                self.ask(now, punt.vni, Eid::Mac(mac), Some(punt.vap), None, None)
            }
            Some(_) => {
                self.resend(punt);
                return;
            }
            None => self.ask_destination(now, punt.vap, punt.vni, destination),
        };
        if asked && punt.reason == PuntReason::Route {
            self.hold(now, punt, Eid::Ip(destination));
        }
    }

    /// A frame that came to this NVE as a gateway and for whose destination the tables have no way. It waits here, and
    /// goes to the place that the tables name in the end: never to a gateway again. One that a gateway has sent
    /// ([`PuntReason::NoSuchTs`]) is asked about only.
    pub(super) fn carried(&mut self, now: Time, punt: &Punt) {
        let (vni, dst) = (punt.vni, punt.dst);
        let held = if dst == MacAddr::anycast(vni) {
            destination(&punt.frame).map(Eid::Ip)
        } else {
            TsMac::new(dst).is_ok().then_some(Eid::Mac(dst))
        };
        let Some(held) = held else {
            self.counters.malformed_punts += 1;
            return;
        };
        let wanted = match held {
            Eid::Mac(mac) if self.tables.fdb.contains_key(&(vni, mac)) => None,
            Eid::Mac(_) => Some(held),
            Eid::Ip(ip) => match self.tables.neighbours.get(&(vni, ip)).copied() {
                Some(Neighbour::At(mac)) if !self.tables.fdb.contains_key(&(vni, mac)) => Some(Eid::Mac(mac)),
                Some(_) => None,
                None if self.vns.get(&vni).is_some_and(|vn| !cache::in_scope(vn, ip)) => {
                    self.counters.off_subnet += 1;
                    return;
                }
                None => Some(held),
            },
        };
        match wanted {
            // The tables were filled while the frame was on its way up.
            None if punt.reason == PuntReason::Carried => self.resend(punt),
            None => {}
            Some(wanted) => {
                let asked = self.ask(now, vni, wanted, None, None, None);
                if asked && punt.reason == PuntReason::Carried {
                    self.hold(now, punt, held);
                }
            }
        }
    }

    /// Sends a frame that is whole on its way.
    fn resend(&mut self, punt: &Punt) {
        if punt.reason == PuntReason::RouteSeen {
            return;
        }
        if punt.frame.len() >= Punt::WHOLE {
            self.counters.held_dropped += 1;
            return;
        }
        self.outputs.push_back(Sender::of(punt).send(punt.vni, punt.frame.clone()));
    }

    /// Keeps a frame until `eid` is known.
    fn hold(&mut self, now: Time, punt: &Punt, eid: Eid) {
        let (limits, key) = (&self.config.limits, (punt.vni, eid));
        let waiting = self.held.0.get(&key).map_or(0, Frames::len);
        // A destination is on the account of the VAP, or the NVE, whose frame was the first.
        let sender = Sender::of(punt);
        let of_it = || self.held.0.values().filter(|f| f.front().is_some_and(|(first, _)| *first == sender));
        let in_all = self.held.0.values().map(Frames::len).sum::<usize>();
        let full = waiting >= limits.held_frames.max(1)
            || in_all >= limits.held_in_all.max(1)
            || (waiting == 0
                && (self.held.0.len() >= limits.held_destinations.max(1)
                    || of_it().count() >= limits.held_per_vap.max(1)));
        // One as long as that may be cut short.
        if full || punt.frame.len() >= Punt::WHOLE {
            self.counters.held_dropped += 1;
            return;
        }
        if waiting == 0 {
            self.timers.set(Timer::Held(key.0, key.1), now + self.config.timing.held);
        }
        self.held.0.entry(key).or_default().push_back((sender, punt.frame.clone()));
    }

    /// An address is known: what waits for it goes on its way, when there is one.
    pub(super) fn release_held(&mut self, vni: Vni, eid: Eid) {
        let mac = match eid {
            Eid::Ip(ip) => match self.tables.neighbours.get(&(vni, ip)).copied() {
                Some(Neighbour::At(mac)) => mac,
                _ => return,
            },
            Eid::Mac(mac) => mac,
        };
        if !self.is_located(vni, mac) {
            return;
        }
        let owned = |ip: TenantIp| self.tables.neighbours.get(&(vni, ip)) == Some(&Neighbour::At(mac));
        let of = |held: &Eid| match *held {
            Eid::Mac(held) => held == mac,
            Eid::Ip(ip) => owned(ip),
        };
        let here = self.held.0.keys().filter(|(v, held)| *v == vni && of(held));
        let ready: Vec<Eid> = here.map(|(_, held)| *held).collect();
        for held in ready {
            self.timers.cancel(&Timer::Held(vni, held));
            for (sender, frame) in self.held.0.remove(&(vni, held)).unwrap_or_default() {
                self.counters.held_sent += 1;
                self.outputs.push_back(sender.send(vni, frame));
            }
        }
    }

    /// Nobody has the address, or it took too long.
    pub(super) fn drop_held(&mut self, vni: Vni, eid: Eid) {
        self.timers.cancel(&Timer::Held(vni, eid));
        let frames = self.held.0.remove(&(vni, eid)).map_or(0, |frames| frames.len());
        self.counters.held_dropped += u64::try_from(frames).unwrap_or(u64::MAX);
    }
}

pub(super) fn destination(frame: &[u8]) -> Option<TenantIp> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let ip: IpAddr = match packet.net? {
        NetSlice::Ipv4(ip) => ip.header().destination_addr().into(),
        NetSlice::Ipv6(ip) => ip.header().destination_addr().into(),
        NetSlice::Arp(_) => return None,
    };
    TenantIp::new(ip).ok()
}
