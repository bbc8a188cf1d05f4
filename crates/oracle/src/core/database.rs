//! The mapping database: grants, and what their holders have registered.
//!
//! Every key leads to a TSI through an index of its own, so that no operation looks at more TSIs than it
//! changes, however many there are.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use weft_model::digest::Digest;
use weft_model::{
    Eid, Epoch, Grant, MacAddr, Rloc, Successor, TenantIp, Time, TsiId, TunnelPolicy, Vni, XtrId,
};

use super::members::Members;
use super::output::SessionId;

/// The most locators a record may have here.
pub const MAX_LOCATORS: usize = 8;

/// Where a registered mapping points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locator {
    /// The RLOC.
    pub rloc: Rloc,
    /// Unicast priority, lower is better; 255: not to be used.
    pub priority: u8,
    /// Share of traffic among locators of one priority.
    pub weight: u8,
}

impl Locator {
    /// Priority of a locator that must not be used: the TSI is Associated, not Activated.
    pub const UNUSABLE: u8 = 255;

    /// What an answer from a grant says of an NVE's RLOCs: what that one registers when no tunnel policy says otherwise.
    pub fn stored(rlocs: &[Rloc]) -> impl Iterator<Item = Self> + '_ {
        let usual = TunnelPolicy::default();
        let beside = rlocs.iter().any(|rloc| rloc.get().is_ipv4());
        let weight = move |rloc: Rloc| usual.weight(rloc.get().is_ipv4(), beside);
        rlocs.iter().map(move |rloc| Self { rloc: *rloc, priority: 1, weight: weight(*rloc) })
    }
}

/// A TSI's number in this shard: short, and free to copy on the request path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TsiIx(u32);

impl TsiIx {
    pub(crate) const MIN: Self = Self(0);
    pub(crate) const MAX: Self = Self(u32::MAX);
}

/// How a registration came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Via {
    /// On a session; `round` says after which request to register everything.
    Session { id: SessionId, round: u64 },
    /// By UDP from a plain xTR; it must be refreshed before `expires`.
    Udp { expires: Time },
}

/// What one NVE has registered for one TSI.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Registration {
    pub(crate) nve: XtrId,
    pub(crate) epoch: Epoch,
    pub(crate) locators: Vec<Locator>,
    /// Digest of the MAC's record, if it was registered.
    pub(crate) mac: Option<u64>,
    /// The IP addresses, with the digests of their records.
    pub(crate) ips: BTreeMap<TenantIp, u64>,
    pub(crate) since: Time,
    pub(crate) via: Via,
    /// P bit: the Oracle shall answer for it.
    pub(crate) proxy: bool,
}

impl Registration {
    /// Whether the TSI is Activated: some locator may be used.
    pub(crate) fn active(&self) -> bool {
        self.locators.iter().any(|l| l.priority != Locator::UNUSABLE)
    }

    /// Number and digest of its records.
    pub(crate) fn digest(&self) -> Digest {
        let mut digest = Digest::default();
        for sum in self.mac.iter().chain(self.ips.values()) {
            digest.add(Digest { count: 1, sum: *sum });
        }
        digest
    }
}

/// A granted TSI.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tsi {
    pub(crate) grant: Grant,
    /// The grant's `next` has registered: it counts as the owner although the store does not say so yet.
    pub(crate) claim: Option<Successor>,
    /// Those of the owner and of its successor, at most one each.
    pub(crate) registrations: Vec<Registration>,
    /// It was registered, or about to be, and is no longer: askers were told so.
    pub(crate) withdrawn: bool,
    /// Its holder has said that it Activates it, and has not registered it yet; how long that is believed.
    pub(crate) activating: Option<Time>,
    /// How many are about to call its move off, or to send it elsewhere: meanwhile who is next does not come to hold it.
    pub(crate) ending: u32,
}

impl Tsi {
    /// Who holds the TSI as far as is known here.
    pub(crate) fn holder(&self) -> (XtrId, Epoch) {
        self.claim.map_or((self.grant.owner, self.grant.epoch), |claim| (claim.nve, claim.epoch))
    }

    /// The registration that answers are made from: an active one before an inactive one (a successor
    /// that is only Associated displaces nobody), then the higher epoch.
    pub(crate) fn published(&self) -> Option<&Registration> {
        self.registrations.iter().max_by_key(|r| (r.active(), r.epoch))
    }

    /// All EIDs of the grant, the MAC first.
    pub(crate) fn eids(&self) -> impl Iterator<Item = Eid> + '_ {
        std::iter::once(Eid::Mac(self.grant.mac.get())).chain(self.grant.ips.iter().map(|ip| Eid::Ip(*ip)))
    }

    pub(crate) fn registration(&self, nve: XtrId) -> Option<&Registration> {
        self.registrations.iter().find(|r| r.nve == nve)
    }
}

/// The TSIs of a shard with their indexes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Database {
    /// By number; a number is used again.
    tsis: Vec<Option<Tsi>>,
    free: Vec<TsiIx>,
    by_name: BTreeMap<TsiId, TsiIx>,
    by_eid: BTreeMap<(Vni, Eid), TsiIx>,
    /// Whom grants name, as owner or successor.
    by_nve: NodeIndex,
    /// How many grants name a node in a VN, as owner or successor: never 0.
    scope: BTreeMap<(XtrId, Vni), u32>,
    /// Who has registered.
    registered: NodeIndex,
    /// Who has active registrations.
    pub(crate) members: Members,
}

/// TSIs by node and VN. The VN is always there; `None` is what lies before the first.
type NodeIndex = BTreeSet<(XtrId, Option<Vni>, TsiIx)>;

impl Database {
    pub(crate) fn get(&self, ix: TsiIx) -> Option<&Tsi> {
        self.tsis.get(ix.0 as usize)?.as_ref()
    }

    pub(crate) fn lookup(&self, vni: Vni, eid: Eid) -> Option<(TsiIx, &Tsi)> {
        let ix = *self.by_eid.get(&(vni, eid))?;
        self.get(ix).map(|tsi| (ix, tsi))
    }

    pub(crate) fn by_name(&self, id: &TsiId) -> Option<TsiIx> {
        self.by_name.get(id).copied()
    }

    /// Whether a grant in `vni` names `nve`.
    pub(crate) fn in_scope(&self, nve: XtrId, vni: Vni) -> bool {
        self.scope.contains_key(&(nve, vni))
    }

    /// The TSIs whose grants name `nve`.
    pub(crate) fn granted_to(&self, nve: XtrId) -> impl Iterator<Item = TsiIx> + '_ {
        range_of(&self.by_nve, nve).map(|(_, ix)| ix)
    }

    /// What `nve` has registered, VN by VN.
    pub(crate) fn registered_by(&self, nve: XtrId) -> impl Iterator<Item = (Vni, TsiIx)> + '_ {
        range_of(&self.registered, nve)
    }

    /// What `nve` has registered in `vni`.
    pub(crate) fn registered_in(&self, nve: XtrId, vni: Vni) -> impl Iterator<Item = TsiIx> + '_ {
        within(&self.registered, nve, vni)
    }

    /// All TSIs of a VN, by EID order of the MAC first; all VNs without `vni`.
    pub(crate) fn entries(&self, vni: Option<Vni>) -> impl Iterator<Item = (Vni, Eid, &Tsi)> + '_ {
        let lowest = vni.map(|vni| (vni, Eid::Mac(MacAddr([0; 6]))));
        self.by_eid
            .range((lowest.map_or(Bound::Unbounded, Bound::Included), Bound::Unbounded))
            .take_while(move |((v, _), _)| vni.is_none_or(|vni| vni == *v))
            .filter_map(|((v, eid), ix)| self.get(*ix).map(|tsi| (*v, *eid, tsi)))
    }

    /// The first EID of a VN behind `last`, or the first of all.
    pub(crate) fn behind(&self, vni: Vni, last: Option<Eid>) -> Option<Eid> {
        let first = || Bound::Included((vni, Eid::Mac(MacAddr([0; 6]))));
        let from = last.map_or_else(first, |last| Bound::Excluded((vni, last)));
        let ((found, eid), _) = self.by_eid.range((from, Bound::Unbounded)).next()?;
        (*found == vni).then_some(*eid)
    }

    /// Whom grants name, each once.
    pub(crate) fn holders(&self) -> impl Iterator<Item = XtrId> + '_ {
        let mut last = None;
        self.scope.keys().map(|(nve, _)| *nve).filter(move |nve| last.replace(*nve) != Some(*nve))
    }

    /// Counts the active registrations of a TSI, or takes them out of the count before they change.
    fn count(&mut self, ix: TsiIx, add: bool) {
        let Some(tsi) = self.tsis.get(ix.0 as usize).and_then(Option::as_ref) else { return };
        let vni = tsi.grant.tsi.vni;
        for r in tsi.registrations.iter().filter(|r| r.active()) {
            if add {
                self.members.add(vni, r.nve);
            } else {
                self.members.remove(vni, r.nve);
            }
        }
    }

    /// Number of TSIs.
    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Adds a grant or replaces it, keeping the registrations that the new one still allows.
    ///
    /// Returns the TSI and the NVEs whose registrations were dropped.
    pub(crate) fn put(&mut self, grant: Grant) -> (TsiIx, Vec<XtrId>) {
        let ix = match self.by_name.get(&grant.tsi) {
            Some(ix) => *ix,
            None => {
                let ix = self.free.pop().unwrap_or_else(|| {
                    self.tsis.push(None);
                    // A shard has fewer than 2^32 TSIs: each takes more than an octet.
                    TsiIx(u32::try_from(self.tsis.len() - 1).unwrap_or(u32::MAX))
                });
                self.by_name.insert(grant.tsi.clone(), ix);
                ix
            }
        };
        self.count(ix, false);
        let (mut claim, mut registrations) = (None, Vec::new());
        let (mut withdrawn, mut activating, mut ending) = (false, None, 0);
        if let Some(old) = self.tsis.get_mut(ix.0 as usize).and_then(Option::take) {
            self.unindex(ix, &old);
            // A claim outlives changes of the grant for as long as that still names the claimant.
            claim = old.claim.filter(|claim| grant.next == Some(*claim));
            registrations = old.registrations;
            let same_holder = (old.grant.owner, old.grant.epoch) == (grant.owner, grant.epoch);
            withdrawn = old.withdrawn && same_holder;
            activating = old.activating.filter(|_| same_holder);
            ending = if old.grant.next == grant.next { old.ending } else { 0 };
        }
        let vni = grant.tsi.vni;
        let mut dropped = Vec::new();
        registrations.retain_mut(|r| {
            // Of who was the owner, and is to be once more.
            let outdated = grant.owner != r.nve && grant.epoch > r.epoch;
            let allowed = |epoch: &Epoch| !outdated && claim.is_none_or(|claim| *epoch >= claim.epoch);
            let epoch = grant.epoch_of(r.nve).ok().filter(allowed);
            let Some(epoch) = epoch else {
                dropped.push(r.nve);
                return false;
            };
            r.epoch = epoch;
            r.ips.retain(|ip, _| grant.ips.contains(ip));
            true
        });
        for nve in &dropped {
            self.registered.remove(&(*nve, Some(vni), ix));
        }
        let tsi = Tsi { grant, claim, registrations, withdrawn, activating, ending };
        for eid in tsi.eids() {
            self.by_eid.insert((vni, eid), ix);
        }
        for nve in named(&tsi.grant) {
            if self.by_nve.insert((nve, Some(vni), ix)) {
                *self.scope.entry((nve, vni)).or_default() += 1;
            }
        }
        if let Some(slot) = self.tsis.get_mut(ix.0 as usize) {
            *slot = Some(tsi);
        }
        self.count(ix, true);
        (ix, dropped)
    }

    /// Removes a TSI.
    pub(crate) fn remove(&mut self, ix: TsiIx) -> Option<Tsi> {
        self.count(ix, false);
        let tsi = self.tsis.get_mut(ix.0 as usize)?.take()?;
        self.free.push(ix);
        self.unindex(ix, &tsi);
        self.by_name.remove(&tsi.grant.tsi);
        for r in &tsi.registrations {
            self.registered.remove(&(r.nve, Some(tsi.grant.tsi.vni), ix));
        }
        Some(tsi)
    }

    fn unindex(&mut self, ix: TsiIx, tsi: &Tsi) {
        let vni = tsi.grant.tsi.vni;
        for eid in tsi.eids() {
            // An address may have been granted to another TSI before this one's change arrived.
            if self.by_eid.get(&(vni, eid)) == Some(&ix) {
                self.by_eid.remove(&(vni, eid));
            }
        }
        for nve in named(&tsi.grant) {
            if self.by_nve.remove(&(nve, Some(vni), ix))
                && let Entry::Occupied(mut count) = self.scope.entry((nve, vni))
            {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
    }

    /// Notes a registration that was found to be allowed. Those of lower epochs go when it is active.
    ///
    /// Returns the NVEs displaced, and whether the grant's successor has hereby become the holder.
    pub(crate) fn register(&mut self, ix: TsiIx, registration: Registration) -> (Vec<XtrId>, bool) {
        self.count(ix, false);
        let Some(tsi) = self.tsis.get_mut(ix.0 as usize).and_then(Option::as_mut) else {
            return (Vec::new(), false);
        };
        let vni = tsi.grant.tsi.vni;
        let (nve, epoch, active) = (registration.nve, registration.epoch, registration.active());
        let mut displaced = Vec::new();
        tsi.registrations.retain(|r| {
            if r.nve == nve {
                return false;
            }
            if active && r.epoch < epoch {
                displaced.push(r.nve);
            }
            !(active && r.epoch < epoch)
        });
        for other in &displaced {
            self.registered.remove(&(*other, Some(vni), ix));
        }
        let next = tsi.grant.next.filter(|next| active && next.nve == nve && tsi.claim != Some(*next));
        if next.is_some() {
            // Whoever held it is told, registered or not.
            if tsi.grant.owner != nve && !displaced.contains(&tsi.grant.owner) {
                displaced.push(tsi.grant.owner);
            }
            tsi.claim = next;
        }
        tsi.withdrawn = false;
        tsi.activating = None;
        tsi.registrations.push(registration);
        self.registered.insert((nve, Some(vni), ix));
        self.count(ix, true);
        (displaced, next.is_some())
    }

    /// Notes that `nve` Activates a TSI, which is believed `until` then. False when that is no news, it is
    /// not the holder, or somebody has registered it.
    pub(crate) fn set_activating(&mut self, ix: TsiIx, nve: XtrId, until: Time) -> bool {
        let tsi = self.tsis.get_mut(ix.0 as usize).and_then(Option::as_mut);
        match tsi.filter(|tsi| tsi.holder().0 == nve && tsi.registrations.is_empty()) {
            Some(tsi) => tsi.activating.replace(until).is_none(),
            None => false,
        }
    }

    /// Notes that a move to who is `next` is about to end otherwise, or does not after all.
    pub(crate) fn set_ending(&mut self, ix: TsiIx, next: Successor, ending: bool) {
        let tsi = self.tsis.get_mut(ix.0 as usize).and_then(Option::as_mut);
        if let Some(tsi) = tsi.filter(|tsi| tsi.grant.next == Some(next)) {
            tsi.ending = if ending { tsi.ending.saturating_add(1) } else { tsi.ending.saturating_sub(1) };
        }
    }

    /// Notes that a TSI was not registered though its holder had said that it Activates it.
    pub(crate) fn end_activating(&mut self, ix: TsiIx) {
        if let Some(tsi) = self.tsis.get_mut(ix.0 as usize).and_then(Option::as_mut) {
            tsi.withdrawn |= tsi.activating.take().is_some();
        }
    }

    /// Removes what `nve` has registered for a TSI. False when it had not.
    pub(crate) fn withdraw(&mut self, ix: TsiIx, nve: XtrId) -> bool {
        let Some(tsi) = self.tsis.get_mut(ix.0 as usize).and_then(Option::as_mut) else { return false };
        let Some(at) = tsi.registrations.iter().position(|r| r.nve == nve) else { return false };
        if tsi.registrations.remove(at).active() {
            self.members.remove(tsi.grant.tsi.vni, nve);
        }
        // Who is left is an active one's inactive counterpart at most.
        tsi.withdrawn = tsi.registrations.is_empty();
        self.registered.remove(&(nve, Some(tsi.grant.tsi.vni), ix));
        true
    }
}

/// Whom a grant names.
pub(crate) fn named(grant: &Grant) -> impl Iterator<Item = XtrId> + use<> {
    std::iter::once(grant.owner).chain(grant.next.map(|next| next.nve))
}

fn range_of(index: &NodeIndex, nve: XtrId) -> impl Iterator<Item = (Vni, TsiIx)> + '_ {
    index
        .range((nve, None, TsiIx::MIN)..)
        .take_while(move |(n, _, _)| *n == nve)
        .filter_map(|(_, vni, ix)| vni.map(|vni| (vni, *ix)))
}

fn within(index: &NodeIndex, nve: XtrId, vni: Vni) -> impl Iterator<Item = TsiIx> + '_ {
    index.range((nve, Some(vni), TsiIx::MIN)..=(nve, Some(vni), TsiIx::MAX)).map(|(_, _, ix)| *ix)
}

/// What an EID leads to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer<'a> {
    /// No grant: Negative.
    Nothing,
    /// A grant of an NVE whose RLOC nobody knows any more: no answer is true.
    Unlocated,
    /// A mapping.
    At(Found<'a>),
}

/// A mapping found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'a> {
    pub(crate) tsi: &'a Tsi,
    pub(crate) nve: XtrId,
    pub(crate) epoch: Epoch,
    pub(crate) source: Source<'a>,
}

/// Where a mapping's locators come from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'a> {
    Registration(&'a Registration),
    Grant(&'a [Rloc]),
}
