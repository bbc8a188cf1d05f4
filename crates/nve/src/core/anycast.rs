//! What is answered in a VN whose mappings are pushed when they do not hold the address (requirement Ld): a MAC
//! that stands for every NVE of the VN. Frames to it are routed by their destination; whoever was answered so is
//! told the owner's own MAC when that is known.

use super::proxy::Query;
use super::{Core, Output, cache};
use ::core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};
use weft_datapath::{IfIndex, Neighbour};
use weft_model::{Eid, Learning, MacAddr, TenantIp, Time, VnSpec, Vni};

/// Who was answered with a VN's anycast MAC, by what for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct StandIns {
    by_ip: BTreeMap<(Vni, TenantIp), BTreeMap<IfIndex, Query>>,
    per_vap: BTreeMap<IfIndex, BTreeSet<(Vni, TenantIp)>>,
}

impl StandIns {
    /// Remembers an answer, at most `limit` of one VAP: beyond, one is forgotten, whose tenant then goes on
    /// being routed.
    fn insert(&mut self, query: Query, limit: usize) {
        let (key, vap) = ((query.vni, query.target), query.vap);
        let mine = self.per_vap.entry(vap).or_default();
        if mine.len() >= limit.max(1)
            && !mine.contains(&key)
            && let Some(other) = mine.pop_first()
        {
            forget(&mut self.by_ip, other, vap);
        }
        self.per_vap.entry(vap).or_default().insert(key);
        self.by_ip.entry(key).or_default().insert(vap, query);
    }

    /// Takes out everybody who was answered so for an address.
    fn take(&mut self, key: (Vni, TenantIp)) -> Vec<Query> {
        let all = self.by_ip.remove(&key).unwrap_or_default();
        for vap in all.keys() {
            if let Some(mine) = self.per_vap.get_mut(vap) {
                mine.remove(&key);
                if mine.is_empty() {
                    self.per_vap.remove(vap);
                }
            }
        }
        all.into_values().collect()
    }

    /// Nobody at `vap` is there to be told any more.
    pub(super) fn forget_vap(&mut self, vap: IfIndex) {
        for key in self.per_vap.remove(&vap).unwrap_or_default() {
            forget(&mut self.by_ip, key, vap);
        }
    }

    #[cfg(test)]
    pub(super) fn check(&self, limit: usize) {
        let by_ip = self.by_ip.iter().flat_map(|(key, all)| all.keys().map(move |vap| (*vap, *key)));
        let per_vap = self.per_vap.iter().flat_map(|(vap, all)| all.iter().map(move |key| (*vap, *key)));
        assert_eq!(by_ip.collect::<BTreeSet<_>>(), per_vap.collect());
        assert!(self.per_vap.values().all(|mine| !mine.is_empty() && mine.len() <= limit));
        assert!(self.by_ip.values().all(|all| !all.is_empty()));
    }
}

fn forget(
    by_ip: &mut BTreeMap<(Vni, TenantIp), BTreeMap<IfIndex, Query>>,
    key: (Vni, TenantIp),
    vap: IfIndex,
) {
    if let Some(all) = by_ip.get_mut(&key) {
        all.remove(&vap);
        if all.is_empty() {
            by_ip.remove(&key);
        }
    }
}

/// Whether `ip` could be a host's in one of `vn`'s subnets.
fn is_host(vn: &VnSpec, ip: TenantIp) -> bool {
    let ip = ip.get();
    let Some(net) = vn.subnets.containing(ip) else { return false };
    let free = net.max_prefix_len() - net.prefix_len();
    match ip {
        _ if free < 2 => true,
        IpAddr::V4(_) => ip != net.network() && ip != net.broadcast(),
        // The first is every router's of the subnet (RFC 4291 section 2.6.1).
        IpAddr::V6(_) => ip != net.network(),
    }
}

impl Core {
    /// Whether a question that the tables do not answer is answered with the VN's anycast MAC: not one whether
    /// an address is free, nor for one that no host can have.
    pub(super) fn stands_in(&self, query: &Query) -> bool {
        let vn = self.vns.get(&query.vni).filter(|vn| vn.learning == Learning::Distribute);
        query.asker_ip.is_some() && vn.is_some_and(|vn| is_host(vn, query.target))
    }

    /// Answers so, while the Oracle is asked. When it is not, for it left the address unanswered a moment
    /// ago or too much is under way, nothing is said.
    pub(super) fn stand_in(&mut self, now: Time, query: Query, source: Option<Eid>) {
        let (vap, vni) = (query.vap, query.vni);
        if self.ask(now, vni, Eid::Ip(query.target), Some(vap), source, None) {
            self.counters.stand_ins += 1;
            self.outputs.push_back(Output::Inject(vap, query.stand_in(MacAddr::anycast(vni))));
            self.stand_ins.insert(query, self.config.limits.stand_ins_per_vap);
        }
    }

    /// An address is known: those who were answered for it with the VN's anycast MAC are told its owner's, by
    /// an ARP reply or an unsolicited advertisement (RFC 4861 section 7.2.6).
    pub(super) fn heal_stand_ins(&mut self, now: Time, vni: Vni, eid: Eid) {
        let Eid::Ip(ip) = eid else { return };
        let Some(Neighbour::At(mac)) = self.tables.neighbours.get(&(vni, ip)).copied() else { return };
        let located = self.is_located(vni, mac);
        for query in self.stand_ins.take((vni, ip)) {
            if !located {
                // It is told by the answer to this.
                let source = query.asker_ip.map(Eid::Ip);
                self.ask(now, vni, Eid::Mac(mac), Some(query.vap), source, Some(query));
                continue;
            }
            self.counters.healed += 1;
            let vap = query.vap;
            let unasked = Query { asker_ip: query.asker_ip.filter(|ip| ip.get().is_ipv4()), ..query };
            self.outputs.push_back(Output::Inject(vap, unasked.answer(mac)));
        }
    }

    /// Asks for the destination of a frame that a tenant system Activated at `vap` sent to its VN's anycast MAC,
    /// and that the tables do not hold; says whether anybody asks now.
    pub(super) fn ask_destination(
        &mut self,
        now: Time,
        vap: IfIndex,
        vni: Vni,
        destination: TenantIp,
    ) -> bool {
        let Some(tsi) = self.vaps.get(&vap).and_then(|id| self.tsis.get(id)) else { return false };
        if self.vns.get(&vni).is_some_and(|vn| !cache::in_scope(vn, destination)) {
            self.counters.off_subnet += 1;
            return false;
        }
        let same = |ip: &&TenantIp| ip.get().is_ipv4() == destination.get().is_ipv4();
        let source = tsi.grant.ips.iter().find(same).map(|ip| Eid::Ip(*ip));
        let source = source.unwrap_or(Eid::Mac(tsi.grant.mac.get()));
        self.ask(now, vni, Eid::Ip(destination), Some(vap), Some(source), None)
    }
}
