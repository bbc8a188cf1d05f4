//! What must hold in a simulated data centre.

use std::collections::{BTreeMap, BTreeSet};

use weft_datapath::{IfIndex, Location, Op, Tables};
use weft_model::{Bum, Eid, Learning, MacAddr, Origin, Rloc, TsiId, Vni};

use crate::names::{nve_of, rlocs, xtr_id};
use crate::world::World;

/// What a change has made wrong: an address that leads to a VAP of another VN, or of another tenant system.
pub(crate) fn misdelivers(tables: &Tables, op: &Op) -> Option<String> {
    let of = |index: IfIndex| {
        let vap = tables.vaps.get(&index)?;
        let leads = tables.fdb.iter().filter(|(_, location)| **location == Location::Local(index));
        let wrong = |(vni, mac): &(Vni, MacAddr)| *vni != vap.vni || *mac != vap.mac.get();
        let (vni, mac) = leads.map(|(key, _)| *key).find(wrong)?;
        Some(format!("{mac} of {vni} leads to the device of {} of {}", vap.mac.get(), vap.vni))
    };
    match op {
        Op::SetVap(index, _) | Op::SetLocation(_, _, Location::Local(index)) => of(*index),
        _ => None,
    }
}

impl World {
    /// What is wrong now, were all messages to have arrived: a living tenant system that an Oracle does
    /// not have registered, or at another owner than the store; an address that a tenant wants and its NVE
    /// knows no or a wrong way to; and every lie told so far.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = self.violations.clone();
        let mut owners: BTreeMap<(Vni, Eid), (usize, MacAddr)> = BTreeMap::new();
        for grant in self.store.grants() {
            let owner = nve_of(grant.owner);
            owners.insert((grant.tsi.vni, Eid::Mac(grant.mac.get())), (owner, grant.mac.get()));
            for ip in &grant.ips {
                owners.insert((grant.tsi.vni, Eid::Ip(*ip)), (owner, grant.mac.get()));
            }
        }
        self.check_oracles(&owners, &mut problems);
        for (n, site) in self.nves.iter().enumerate().filter(|(_, site)| site.agent) {
            for entry in site.core.cache() {
                let owner = owners.get(&(entry.vni, entry.eid));
                let living = owner.filter(|(owner, _)| self.lives(*owner));
                let rloc = owner.and_then(|(owner, _)| Rloc::new(rlocs(*owner).0.into()).ok());
                match (entry.mac, living) {
                    (None, Some(_)) => problems.push(format!("NVE {n} holds a Negative for {}", entry.eid)),
                    (Some(_), _) if entry.rloc.is_some() && entry.rloc != rloc => {
                        problems.push(format!(
                            "NVE {n} holds {:?} for {}, true is {rloc:?}",
                            entry.rloc, entry.eid
                        ));
                    }
                    _ => {}
                }
            }
        }
        for (nve, from, ip) in &self.wanted {
            let asks = self.lives(*nve) && self.store.grant(from).is_some_and(|g| g.owner == xtr_id(*nve));
            let owner = owners.get(&(from.vni, Eid::Ip(*ip))).filter(|(owner, _)| self.lives(*owner));
            if let (Some((owner, _)), true) = (owner, asks)
                && self.way(*nve, from.vni, *ip) != Rloc::new(rlocs(*owner).0.into()).ok()
            {
                problems.push(format!("NVE {nve} has no way to {ip} in {}", from.vni));
            }
        }
        self.check_vns(&owners, &mut problems);
        self.check_runs(&mut problems);
        problems
    }

    /// What moves is in service where its hypervisor runs it, and nowhere else.
    fn check_runs(&self, problems: &mut Vec<String>) {
        for (tsi, at) in &self.runs {
            let (there, wanted) = (self.in_service(tsi), at.iter().copied().collect::<BTreeSet<_>>());
            if there != wanted {
                problems.push(format!("{tsi} is in service at {there:?}, runs at {wanted:?}"));
            }
        }
    }

    /// Whether a tenant system is registered where it is granted: what moves is while it is in service.
    fn serves(&self, tsi: &TsiId, owner: usize) -> bool {
        !self.runs.contains_key(tsi) || self.in_service(tsi).contains(&owner)
    }

    /// Where all mappings are pushed every NVE has them; where frames are replicated, all the others.
    fn check_vns(&self, owners: &BTreeMap<(Vni, Eid), (usize, MacAddr)>, problems: &mut Vec<String>) {
        for spec in self.store.vns() {
            let vni = spec.vni;
            let all: Vec<_> = owners.iter().filter(|((v, _), _)| *v == vni).collect();
            let holders: BTreeSet<usize> = all.iter().map(|(_, (owner, _))| *owner).collect();
            let connected = |n: &usize| self.lives(*n) && self.nves[*n].sessions.iter().any(Option::is_some);
            for n in holders.iter().copied().filter(connected) {
                if spec.learning == Learning::Distribute {
                    for ((_, eid), (owner, _)) in all.iter().filter(|(_, (owner, _))| self.lives(*owner)) {
                        let Eid::Ip(ip) = eid else { continue };
                        let true_way = Rloc::new(rlocs(*owner).0.into()).ok();
                        let way = self.way(n, vni, *ip);
                        if way != true_way {
                            problems.push(format!(
                                "NVE {n} was not pushed {ip} in {vni}: {way:?}, not {true_way:?}"
                            ));
                        }
                    }
                }
                let replicates = matches!(spec.learning, Learning::Flood | Learning::Translate);
                if replicates || spec.bum == Bum::Replicate {
                    let told = self.nves[n].core.tables().vns.get(&vni).map(|vn| &vn.members);
                    let others = holders.iter().filter(|other| **other != n);
                    let rloc = |n: usize| Rloc::new(rlocs(n).0.into()).ok();
                    // Whose agent is dead may still be one.
                    let may: BTreeSet<Rloc> = others.clone().filter_map(|other| rloc(*other)).collect();
                    let must: BTreeSet<Rloc> =
                        others.filter(|n| self.lives(**n)).filter_map(|other| rloc(*other)).collect();
                    if !told.is_some_and(|told| told.is_subset(&may) && told.is_superset(&must)) {
                        problems.push(format!("NVE {n} has as members of {vni} {told:?}, true are {must:?}"));
                    }
                }
            }
        }
    }

    pub(crate) fn lives(&self, nve: usize) -> bool {
        self.nves.get(nve).is_some_and(|site| site.agent)
    }

    fn check_oracles(&self, owners: &BTreeMap<(Vni, Eid), (usize, MacAddr)>, problems: &mut Vec<String>) {
        for (o, site) in self.oracles.iter().enumerate() {
            let Some(shard) = &site.shard else { continue };
            let mut found = 0;
            for mapping in shard.mappings(self.now, None) {
                let Some((owner, _)) = owners.get(&(mapping.vni, mapping.eid)) else {
                    problems.push(format!("Oracle {o} has {} that nobody is granted", mapping.eid));
                    continue;
                };
                found += 1;
                let connected = self.nves.get(*owner).is_some_and(|n| n.agent && n.sessions[o].is_some());
                let registered = mapping.origin == Origin::Registration && !mapping.stale;
                if mapping.owner != xtr_id(*owner) {
                    problems.push(format!("Oracle {o} has {} at {}", mapping.eid, mapping.owner));
                } else if connected && registered != self.serves(&tsi_of(mapping.vni, &mapping.tsi), *owner) {
                    problems.push(format!("Oracle {o} has {} registered: {registered}", mapping.eid));
                }
            }
            if found != owners.len() {
                problems.push(format!("Oracle {o} has {found} of {} mappings", owners.len()));
            }
        }
    }
}

fn tsi_of(vni: Vni, name: &weft_model::TsiName) -> TsiId {
    TsiId { vni, name: name.clone() }
}
