//! What a restarted agent finds in the kernel and keeps: traffic goes on while it learns again.

use super::cache::{Bound, Located};
use super::{Core, Timer};
use ::core::net::IpAddr;
use weft_datapath::{Location, Neighbour, Op, Peer, Tables};
use weft_model::{Eid, Origin, Rloc, Time, VnSpec, Vni};

impl Core {
    /// Takes over VN Contexts saved by an earlier run and the remote entries and peers that the
    /// data plane was observed to hold. They count as learned now and are asked for anew as soon
    /// as there is a session; negative entries are not taken over. Call after [`Core::restore`].
    pub fn adopt(&mut self, now: Time, vns: Vec<VnSpec>, observed: &Tables) {
        self.now = now;
        for vn in vns {
            self.vns.insert(vn.vni, vn);
        }
        let (members, connected) = (&self.members, &self.connected);
        self.vns.retain(|vni, _| members.contains_key(vni) || connected.contains_key(vni));
        for (vni, vn) in &observed.vns {
            if self.wants_members(*vni) {
                self.memberships.entry(*vni).or_default().adopted.clone_from(&vn.members);
            }
        }
        for ((vni, wanted), receivers) in &observed.groups {
            self.adopt_group(now, *vni, *wanted, receivers);
        }
        self.resume(observed);
        self.adopt_redirects(observed);
        let here: Vec<Vni> = self.members.keys().copied().collect();
        for vni in here {
            self.review_vn(vni);
            self.review_tunnels(vni);
        }
        let ttl = now + self.config.timing.ttl;
        for ((vni, mac), location) in &observed.fdb {
            if let Location::Remote { rloc, epoch, .. } = location
                && self.members.contains_key(vni)
                && !self.is_local(*vni, Eid::Mac(*mac))
                && !self.config.rlocs.contains(rloc)
                && self.cache.len() < self.config.limits.cache.max(1)
            {
                let version = epoch.map_version();
                let (origin, expires) = self.adopted(*vni, ttl);
                let located = Located { rloc: *rloc, version, origin, by: None, learned: now, expires };
                self.cache.set_located(*vni, *mac, located);
                self.apply(Op::SetLocation(*vni, *mac, *location));
                self.refresh_at(*vni, Eid::Mac(*mac), expires);
            }
        }
        for ((vni, ip), neighbour) in &observed.neighbours {
            if let Neighbour::At(mac) = neighbour
                && self.cache.macs.contains_key(&(*vni, *mac))
                && !self.is_local(*vni, Eid::Ip(*ip))
                && self.cache.len() < self.config.limits.cache.max(1)
            {
                // The table has no version of a binding; any record may replace it.
                let (origin, expires) = self.adopted(*vni, ttl);
                let bound = Bound { mac: *mac, version: 0, origin, by: None, learned: now, expires };
                self.cache.set_bound(*vni, *ip, bound);
                self.apply(Op::SetNeighbour(*vni, *ip, *neighbour));
                self.refresh_at(*vni, Eid::Ip(*ip), expires);
            }
        }
        for (ip, peer) in &observed.peers {
            if peer.nve {
                self.adopted_peers.insert(*ip);
                self.set_peer(*ip, |found: &mut Peer| *found = Peer { oracle: found.oracle, ..*peer });
            }
        }
    }

    /// How an entry is taken over: where all mappings are pushed it lives until they are.
    fn adopted(&self, vni: Vni, ttl: Time) -> (Origin, Time) {
        if self.wants_mappings(vni) { (Origin::Push, Time::NEVER) } else { (Origin::Reply, ttl) }
    }

    fn refresh_at(&mut self, vni: Vni, eid: Eid, at: Time) {
        if at != Time::NEVER {
            self.timers.set(Timer::Refresh(vni, eid), at);
        }
    }

    /// The list of NVEs is complete: peers taken over that nobody has any more are dropped.
    pub(super) fn drop_adopted_peers(&mut self) {
        let gone: Vec<IpAddr> = std::mem::take(&mut self.adopted_peers)
            .into_iter()
            .filter(|ip| !Rloc::new(*ip).is_ok_and(|rloc| self.rlocs.contains_key(&rloc)))
            .collect();
        for ip in gone {
            self.set_peer(ip, |peer| *peer = Peer { oracle: peer.oracle, ..Peer::default() });
        }
    }
}
