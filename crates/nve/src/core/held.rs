//! Frames that wait for their destination to be known: sent to a VN's anycast MAC for an address that the tables
//! did not hold (requirement Ld). At most so many a destination, for at most a second; what waits longer is lost, as
//! on any network.

use super::{Core, Output, Timer};
use ::core::net::IpAddr;
use etherparse::{NetSlice, SlicedPacket};
use std::collections::{BTreeMap, VecDeque};
use weft_datapath::{IfIndex, Neighbour, Punt};
use weft_model::{Eid, TenantIp, Time, Vni};

/// Frames with the VAPs they came from, oldest first.
type Frames = VecDeque<(IfIndex, Vec<u8>)>;

/// Those that wait, by destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Held(BTreeMap<(Vni, TenantIp), Frames>);

#[cfg(test)]
impl Held {
    pub(super) fn has(&self, vni: Vni, ip: TenantIp) -> bool {
        self.0.contains_key(&(vni, ip))
    }
}

impl Core {
    /// A frame for routing inside the subnet whose destination the tables do not hold.
    pub(super) fn unrouted(&mut self, now: Time, punt: &Punt) {
        let Some(destination) = destination(&punt.frame) else {
            self.counters.malformed_punts += 1;
            return;
        };
        let key = (punt.vni, destination);
        match self.tables.neighbours.get(&key).copied() {
            // Whose it is is known, where that one is is not.
            Some(Neighbour::At(mac)) if !self.tables.fdb.contains_key(&(punt.vni, mac)) => {
                if !self.ask(now, punt.vni, Eid::Mac(mac), Some(punt.vap), None, None) {
                    return;
                }
            }
            // The table was filled while the frame was on its way up.
            Some(_) => {
                self.outputs.push_back(Output::Resend(punt.vap, punt.frame.clone()));
                return;
            }
            None => {
                if !self.ask_destination(now, punt.vap, punt.vni, destination) {
                    return;
                }
            }
        }
        let limits = &self.config.limits;
        if !self.held.0.contains_key(&key) {
            if self.held.0.len() >= limits.held_destinations.max(1) {
                self.counters.held_dropped += 1;
                return;
            }
            self.timers.set(Timer::Held(key.0, key.1), now + self.config.timing.held);
        }
        let frames = self.held.0.entry(key).or_default();
        if frames.len() >= limits.held_frames.max(1) {
            self.counters.held_dropped += 1;
            return;
        }
        frames.push_back((punt.vap, punt.frame.clone()));
    }

    /// An address is known: what waits for it goes on its way, when there is one.
    pub(super) fn release_held(&mut self, vni: Vni, eid: Eid) {
        let ready: Vec<TenantIp> = match eid {
            Eid::Ip(ip) => vec![ip],
            Eid::Mac(mac) => {
                let here = self.held.0.keys().filter(|(v, _)| *v == vni);
                let of = |ip: &TenantIp| self.tables.neighbours.get(&(vni, *ip)) == Some(&Neighbour::At(mac));
                here.map(|(_, ip)| *ip).filter(of).collect()
            }
        };
        for ip in ready {
            let Some(Neighbour::At(mac)) = self.tables.neighbours.get(&(vni, ip)).copied() else { continue };
            if !self.is_located(vni, mac) {
                continue;
            }
            self.timers.cancel(&Timer::Held(vni, ip));
            for (vap, frame) in self.held.0.remove(&(vni, ip)).unwrap_or_default() {
                self.counters.held_sent += 1;
                self.outputs.push_back(Output::Resend(vap, frame));
            }
        }
    }

    /// Nobody has the address, or it took too long.
    pub(super) fn drop_held(&mut self, vni: Vni, ip: TenantIp) {
        self.timers.cancel(&Timer::Held(vni, ip));
        let frames = self.held.0.remove(&(vni, ip)).map_or(0, |frames| frames.len());
        self.counters.held_dropped += u64::try_from(frames).unwrap_or(u64::MAX);
    }
}

fn destination(frame: &[u8]) -> Option<TenantIp> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let ip: IpAddr = match packet.net? {
        NetSlice::Ipv4(ip) => ip.header().destination_addr().into(),
        NetSlice::Ipv6(ip) => ip.header().destination_addr().into(),
        NetSlice::Arp(_) => return None,
    };
    TenantIp::new(ip).ok()
}
