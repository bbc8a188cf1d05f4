//! What a Map-Register says of tenant systems, whether it may, and what becomes of it.

use std::collections::{BTreeMap, BTreeSet};

use weft_lisp as lisp;
use weft_lisp::{Address, MapRegister, Record};
use weft_model::{Eid, Rloc, TenantIp, Time, Vni, XtrId};

use super::Shard;
use super::database::{Locator, MAX_LOCATORS, Registration, TsiIx, Via};
use super::digest::record_digest;
use super::error::Refusal;
use super::output::Event;
use super::route::iid;
use super::wire::{WireEid, from_lisp};

/// Whether a record is of an epoch, and of another than this one.
fn says_another(record: &Record<'_>, epoch: weft_model::Epoch) -> bool {
    let version = record.map_version.get();
    version != 0 && version != epoch.map_version()
}

/// What one Map-Register says about one TSI.
#[derive(Debug)]
pub(crate) struct Claim {
    tsi: TsiIx,
    epoch: weft_model::Epoch,
    /// None when no record names an RLOC.
    locators: Option<Vec<Locator>>,
    /// Digest of the MAC's record.
    mac: Option<u64>,
    /// IP addresses with the digests of their records.
    ips: BTreeMap<TenantIp, u64>,
    removed: BTreeSet<Eid>,
    /// The shortest TTL of its records, in minutes.
    ttl: u32,
    /// P bit of the message.
    proxy: bool,
}

impl Claim {
    fn new(tsi: TsiIx, epoch: weft_model::Epoch) -> Self {
        Self {
            tsi,
            epoch,
            locators: None,
            mac: None,
            ips: BTreeMap::new(),
            removed: BTreeSet::new(),
            ttl: u32::MAX,
            proxy: false,
        }
    }

    /// The shortest TTL of its records in minutes, if any says one.
    pub(crate) const fn ttl(&self) -> Option<u32> {
        if self.ttl == lisp::wire::TTL_RECEIVER_DECIDES { None } else { Some(self.ttl) }
    }
}

impl Shard {
    /// Checks every record of a Map-Register. All or nothing: one wrong record refuses the whole message.
    /// With `several`, records of several TSIs may stand in it, as plain xTRs send them.
    pub(crate) fn claims(
        &self,
        nve: XtrId,
        register: &MapRegister<'_>,
        several: bool,
    ) -> Result<Vec<Claim>, Refusal> {
        if !self.loaded {
            return Err(Refusal::NotReady);
        }
        let (count, max) = (register.records.len(), self.config.limits.records_per_register.max(1));
        if count == 0 || count > max {
            return Err(Refusal::Records { count, max });
        }
        let mut claims = BTreeMap::new();
        for record in register.records {
            // A plain xTR's message may be about other shards' VNs too: those look after their parts.
            let foreign = |vni| Vni::new(vni).is_ok_and(|vni| !self.owns(vni));
            if several && iid(record.eid).is_some_and(foreign) {
                continue;
            }
            self.claim(nve, &record, several, &mut claims)?;
        }
        let proxy = register.proxy_reply;
        let claims: Vec<Claim> = claims.into_values().map(|claim| Claim { proxy, ..claim }).collect();
        for claim in &claims {
            let known = several && self.db.get(claim.tsi).is_some_and(|t| t.registration(nve).is_some());
            if claim.locators.is_none()
                && !known
                && let Some((ip, _)) = claim.ips.first_key_value()
            {
                return Err(Refusal::NoRloc { eid: Eid::Ip(*ip) });
            }
        }
        Ok(claims)
    }

    fn claim(
        &self,
        nve: XtrId,
        record: &Record<'_>,
        several: bool,
        claims: &mut BTreeMap<TsiIx, Claim>,
    ) -> Result<(), Refusal> {
        let WireEid::Host(vni, eid) = from_lisp(record.eid, record.mask_len) else {
            return Err(Refusal::BadEid(format!("{:?}/{}", record.eid, record.mask_len)));
        };
        let withdrawal = record.ttl == lisp::wire::TTL_REMOVE;
        let Some((ix, tsi)) = self.db.lookup(vni, eid) else {
            // The grant went before the withdrawal arrived: what it asks for is done already.
            return if withdrawal { Ok(()) } else { Err(self.not_granted(nve, vni, eid)) };
        };
        if !self.vns.contains_key(&vni) {
            return Err(Refusal::UnknownVn(vni));
        }
        let epoch = match (tsi.grant.epoch_of(nve), tsi.claim) {
            (Ok(_), Some(claim)) if claim.nve != nve && !withdrawal => {
                let (owner, epoch) = (claim.nve, claim.epoch);
                return Err(Refusal::Superseded { vni, eid, owner, epoch, nve });
            }
            // Who is next holds it at no other epoch: this was sent when it was its own, or before the move was called
            // off and named anew.
            (Ok(epoch), _) if !withdrawal && tsi.grant.owner != nve && says_another(record, epoch) => {
                let (owner, epoch) = tsi.holder();
                return Err(Refusal::HeldBy { vni, eid, owner, epoch, nve });
            }
            // The move is being called off.
            (Ok(_), None) if !withdrawal && tsi.grant.owner != nve && tsi.ending > 0 => {
                let (owner, epoch) = tsi.holder();
                return Err(Refusal::HeldBy { vni, eid, owner, epoch, nve });
            }
            (Ok(epoch), _) => epoch,
            // Nothing of this NVE's can be registered: the withdrawal has no object.
            (Err(_), _) if withdrawal => return Ok(()),
            (Err(_), _) if !self.db.in_scope(nve, vni) => return Err(Refusal::VnOutOfScope { vni, nve }),
            (Err(_), _) => {
                let (owner, epoch) = tsi.holder();
                return Err(Refusal::HeldBy { vni, eid, owner, epoch, nve });
            }
        };
        if !several && !claims.is_empty() && !claims.contains_key(&ix) {
            return Err(Refusal::MixedTsis { eid });
        }
        let claim = claims.entry(ix).or_insert_with(|| Claim::new(ix, epoch));
        if withdrawal {
            claim.removed.insert(eid);
            return Ok(());
        }
        claim.ttl = claim.ttl.min(record.ttl);
        let max = self.config.limits.locators_per_record.clamp(1, MAX_LOCATORS);
        if record.locators.is_empty() || record.locators.len() > max {
            return Err(Refusal::Locators { eid, count: record.locators.len(), max });
        }
        let mac = tsi.grant.mac;
        match eid {
            Eid::Mac(_) => claim.mac = Some(record_digest(record)),
            Eid::Ip(ip) => drop(claim.ips.insert(ip, record_digest(record))),
        }
        let only = record.locators.first().filter(|_| record.locators.len() == 1);
        if let (Eid::Ip(_), Some(Address::Mac(octets))) = (eid, only.map(|locator| locator.rloc)) {
            if octets == mac.octets() {
                return Ok(());
            }
            let found = weft_model::MacAddr(octets).to_string();
            return Err(Refusal::WrongMac { eid, granted: mac, mac: found });
        }
        claim.locators = Some(self.own_locators(nve, eid, record)?);
        Ok(())
    }

    fn not_granted(&self, nve: XtrId, vni: Vni, eid: Eid) -> Refusal {
        if !self.vns.contains_key(&vni) {
            Refusal::UnknownVn(vni)
        } else if self.db.in_scope(nve, vni) {
            Refusal::NotGranted { vni, eid }
        } else {
            Refusal::VnOutOfScope { vni, nve }
        }
    }

    /// The locators of a record, each of which must be enrolled for the NVE.
    fn own_locators(&self, nve: XtrId, eid: Eid, record: &Record<'_>) -> Result<Vec<Locator>, Refusal> {
        let enrolled = self.nodes.get(nve).map(|node| node.rlocs.as_slice()).unwrap_or_default();
        let mut locators = Vec::with_capacity(record.locators.len());
        for locator in record.locators {
            let rloc = locator.rloc.as_ip().and_then(|ip| Rloc::new(ip).ok());
            let Some(rloc) = rloc.filter(|rloc| enrolled.contains(rloc)) else {
                let rloc = match locator.rloc.as_ip() {
                    Some(ip) => ip.to_string(),
                    None => format!("{:?}", locator.rloc),
                };
                return Err(Refusal::ForeignRloc { eid, rloc, nve });
            };
            locators.push(Locator { rloc, priority: locator.priority, weight: locator.weight });
        }
        Ok(locators)
    }

    /// Does what a checked Map-Register says about one TSI. With `merge`, it adds to what is registered
    /// (RFC 9301); without, it replaces it, as on sessions.
    pub(crate) fn apply(&mut self, now: Time, nve: XtrId, claim: Claim, via: Via, merge: bool) {
        let Some(before) = self.before(claim.tsi) else { return };
        let Some(tsi) = self.db.get(claim.tsi) else { return };
        let old = tsi.registration(nve);
        let since = old.map_or(now, |old| old.since);
        let withdrawal = claim.locators.is_none() && claim.ips.is_empty();
        // Withdrawals alone, or a plain xTR's part: the rest stays as it was.
        let kept = old.filter(|_| merge || withdrawal);
        let mut ips = kept.map(|old| old.ips.clone()).unwrap_or_default();
        ips.extend(claim.ips);
        ips.retain(|ip, _| !claim.removed.contains(&Eid::Ip(*ip)));
        let mac_gone = claim.removed.contains(&Eid::Mac(tsi.grant.mac.get()));
        let mac = claim.mac.or(kept.and_then(|old| old.mac)).filter(|_| !mac_gone);
        let locators = claim.locators.or_else(|| kept.map(|old| old.locators.clone()));
        // On a session the MAC's record says where the TSI is; a plain xTR may say so of IP addresses alone.
        let left = if merge { mac.is_some() || !ips.is_empty() } else { mac.is_some() };
        let Some(locators) = locators.filter(|_| left) else {
            if self.db.withdraw(claim.tsi, nve) {
                self.counters.withdrawals += 1;
                self.publish(now, before);
            }
            return;
        };
        let proxy = claim.proxy;
        let registration = Registration { nve, epoch: claim.epoch, locators, mac, ips, since, via, proxy };
        let eids: Vec<Eid> = tsi.eids().collect();
        let vni = tsi.grant.tsi.vni;
        let id = tsi.grant.tsi.clone();
        let epoch = claim.epoch;
        let (displaced, succeeded) = self.db.register(claim.tsi, registration);
        self.counters.registrations += 1;
        if let Via::Udp { expires } = via {
            self.arm_expiry(expires, claim.tsi, nve);
        }
        self.publish(now, before);
        for previous in displaced {
            self.tell_previous(now, previous, vni, &eids);
        }
        if succeeded {
            self.event(Event::SuccessorActive { tsi: id, nve, epoch });
        }
    }
}
