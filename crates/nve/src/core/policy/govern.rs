//! Which policy a tenant system here is under, and whether it may carry traffic.

use super::{Compiled, Overflow};
use crate::core::tsi::{State, Tsi};
use crate::core::{Cause, Core, Notice, Refused, Ticket};
use ::core::fmt;
use std::collections::BTreeSet;
use weft_datapath::{IfIndex, Policy};
use weft_model::{GroupName, TsiId, TsiName, VnName, Vni};

/// Where a tenant system stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// In no group: everything passes.
    Open,
    /// What its groups allow passes.
    Under(Policy),
    /// Nothing may pass.
    Closed(Closed),
}

/// Why access policy keeps a tenant system out of service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Closed {
    /// No Oracle has said yet what these groups allow; none: not even which they are.
    Unknown(BTreeSet<GroupName>),
    /// Its rules do not fit into the data plane.
    TooMany {
        /// The groups it is in.
        groups: BTreeSet<GroupName>,
        /// Entries that there would be, of all that fit and these.
        entries: usize,
        /// For which there is room.
        room: usize,
    },
}

fn quoted(groups: &BTreeSet<GroupName>) -> String {
    groups.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(groups) if groups.is_empty() => {
                f.write_str("its VN's security groups are not known yet: no Oracle has told of them")
            }
            Self::Unknown(groups) => {
                let names = quoted(groups);
                write!(f, "security group {names} is not known yet: no Oracle has told of it")
            }
            Self::TooMany { groups, entries, room } => {
                let names = quoted(groups);
                write!(
                    f,
                    "with its security groups {names} this host would need {entries} entries and there is room for {room}; use fewer rules, port ranges or groups"
                )
            }
        }
    }
}

impl Core {
    /// The groups a tenant system is to be in; none while its VN Context is not known.
    fn groups_wanted<'a>(&'a self, tsi: &'a Tsi) -> Option<&'a BTreeSet<GroupName>> {
        if !tsi.grant.groups.is_empty() {
            return Some(&tsi.grant.groups);
        }
        self.vns.get(&tsi.grant.tsi.vni).map(|vn| &vn.default_groups)
    }

    /// Whether what is known of its VN's groups and members is of the moment at which those are the default ones: what is said
    /// of VN Contexts and of access policy comes by two ways.
    fn is_of_one_moment(&self, tsi: &Tsi, wanted: &BTreeSet<GroupName>) -> bool {
        let of = self.policies.vns.get(&tsi.grant.tsi.vni);
        !tsi.grant.groups.is_empty() || of.map_or(wanted.is_empty(), |vn| vn.defaults == *wanted)
    }

    /// Those of them that are not known.
    fn unknown_groups(&self, vni: Vni, groups: &BTreeSet<GroupName>) -> BTreeSet<GroupName> {
        let known = self.policies.vns.get(&vni).map(|vn| &vn.groups);
        groups.iter().filter(|name| known.is_none_or(|known| !known.contains_key(*name))).cloned().collect()
    }

    /// The groups a tenant system is governed by: those it is to be in if they are known. Until they are, one that carries
    /// traffic stays under those it had.
    fn governed_by(&self, tsi: &Tsi) -> Result<BTreeSet<GroupName>, Closed> {
        let wanted = self.groups_wanted(tsi);
        let unknown = wanted.map(|wanted| self.unknown_groups(tsi.grant.tsi.vni, wanted));
        match (wanted, unknown) {
            (Some(wanted), Some(unknown)) if unknown.is_empty() && self.is_of_one_moment(tsi, wanted) => {
                Ok(wanted.clone())
            }
            (_, unknown) => {
                let had = tsi.governed.clone().filter(|_| tsi.state == State::Activated);
                had.ok_or_else(|| Closed::Unknown(unknown.unwrap_or_default()))
            }
        }
    }

    fn tsis_in(&self, vni: Vni) -> impl Iterator<Item = (&TsiId, &Tsi)> {
        let all = self.members.get(&vni).into_iter().flatten();
        all.filter_map(|id| self.tsis.get_key_value(id)).filter(|(_, tsi)| !tsi.is_lost())
    }

    /// The sets of groups that tenant systems of a VN here are governed by, but for those in none.
    pub(super) fn sets_in_use(&self, vni: Vni) -> BTreeSet<BTreeSet<GroupName>> {
        let sets = self.tsis_in(vni).filter_map(|(_, tsi)| self.governed_by(tsi).ok());
        sets.filter(|set| !set.is_empty()).collect()
    }

    /// Where a tenant system stands.
    pub(in crate::core) fn standing(&self, tsi: &Tsi) -> Standing {
        let vni = tsi.grant.tsi.vni;
        let set = match self.governed_by(tsi) {
            Ok(set) if set.is_empty() => return Standing::Open,
            Ok(set) => set,
            Err(closed) => return Standing::Closed(closed),
        };
        let compiled = self.policies.vns.get(&vni).and_then(|vn| vn.compiled.get(&set));
        match (compiled, self.policy_id(vni, &set)) {
            (Some(Compiled { too_many: Some(Overflow { needed, room }), .. }), _) => {
                Standing::Closed(Closed::TooMany { groups: set, entries: *needed, room: *room })
            }
            (Some(compiled), Some(id)) => {
                let log_refused = self.vns.get(&vni).is_some_and(|vn| vn.log_refused);
                Standing::Under(Policy { id, generation: compiled.generation, log_refused })
            }
            _ => Standing::Closed(Closed::Unknown(set)),
        }
    }

    /// The policy that the VAP at a device is to have; none where that is not known, or it is nobody's.
    pub(super) fn policy_at(&self, device: IfIndex) -> Option<Option<Policy>> {
        let tsi = self.vaps.get(&device).and_then(|id| self.tsis.get(id))?;
        match self.standing(tsi) {
            Standing::Open => Some(None),
            Standing::Under(policy) => Some(Some(policy)),
            Standing::Closed(_) => None,
        }
    }

    /// The policy of a tenant system that carries traffic.
    pub(in crate::core) fn policy_of(&self, id: &TsiId) -> Option<Policy> {
        match self.tsis.get(id).map(|tsi| self.standing(tsi)) {
            Some(Standing::Under(policy)) => Some(policy),
            _ => None,
        }
    }

    /// Whether a tenant system may carry traffic; its policy is in place then. One that may not is closed, and Activated
    /// as soon as it may.
    pub(in crate::core) fn admit(&mut self, id: &TsiId) -> bool {
        let Some(tsi) = self.tsis.get(id).filter(|tsi| !tsi.is_lost()) else { return true };
        let governed = self.governed_by(tsi);
        if let Ok(set) = governed.clone()
            && !set.is_empty()
            && !self.policies.vns.get(&id.vni).is_some_and(|vn| vn.compiled.contains_key(&set))
        {
            self.review_policy(id.vni);
        }
        let Some(tsi) = self.tsis.get(id) else { return false };
        let standing = self.standing(tsi);
        // The other set, if there was one, is nobody's now perhaps.
        self.policies_stale.insert(id.vni);
        match standing {
            Standing::Closed(why) => {
                self.keep_out(id, why);
                false
            }
            Standing::Open | Standing::Under(_) => {
                if let Some(tsi) = self.tsis.get_mut(id) {
                    tsi.governed = governed.ok();
                    if tsi.closed.take().is_some() {
                        self.perhaps_because(id, Cause::PolicyApplied);
                    }
                }
                true
            }
        }
    }

    /// Nothing passes at a tenant system's VAP until its policy lets it be Activated.
    fn keep_out(&mut self, id: &TsiId, why: Closed) {
        let Some(tsi) = self.tsis.get_mut(id) else { return };
        let known = tsi.closed.replace(why.clone()).is_some_and(|old| old == why);
        let (activated, fits) = (tsi.state == State::Activated, !matches!(why, Closed::TooMany { .. }));
        tsi.governed = None;
        if !known {
            self.because(id, Cause::PolicyMissing);
        }
        if activated {
            self.deactivate(id);
        } else {
            self.shut(id);
        }
        // That will not change by waiting.
        if !fits && self.tsis.get(id).is_some_and(|tsi| tsi.waiting.is_some()) {
            self.fail_attach(id, Refused::Policy { tsi: id.clone(), why: why.to_string() });
        } else if !known {
            self.notice(Notice::Closed(id.clone(), why.to_string()));
        }
    }

    /// Tenant systems in service whose rules do not fit any more are closed, before the rules go.
    pub(super) fn close_what_does_not_fit(&mut self, vni: Vni) {
        let active = self.tsis_in(vni).filter(|(_, tsi)| tsi.state == State::Activated);
        let full = active.filter_map(|(id, tsi)| match self.standing(tsi) {
            Standing::Closed(why @ Closed::TooMany { .. }) => Some((id.clone(), why)),
            _ => None,
        });
        for (id, why) in full.collect::<Vec<_>>() {
            self.keep_out(&id, why);
        }
    }

    /// Tenant systems that access policy has kept out are looked at again.
    pub(super) fn settle_waiting(&mut self, vni: Vni) {
        let out = self.tsis_in(vni).filter(|(_, tsi)| {
            tsi.closed.is_some()
                && tsi.present
                && tsi.wanted == State::Activated
                && tsi.state == State::Associated
        });
        for id in out.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            let Some(tsi) = self.tsis.get(&id) else { continue };
            // Another reason, or the same: it is still out.
            if let Standing::Closed(why) = self.standing(tsi) {
                self.keep_out(&id, why);
                continue;
            }
            let ticket: Option<Ticket> = tsi.waiting.as_ref().filter(|w| !w.applied).map(|w| w.ticket);
            let waits = tsi.waiting.is_some();
            self.activate(&id, ticket);
            if let Some(tsi) = self.tsis.get(&id).filter(|tsi| tsi.state == State::Activated && !waits) {
                let epoch = self.epoch_of(tsi);
                self.notice(Notice::Activated(id, epoch));
            }
        }
        // Who carries traffic is governed by what its VAP has now.
        let active = self.tsis_in(vni).filter(|(_, tsi)| tsi.state == State::Activated);
        let sets: Vec<_> =
            active.filter_map(|(id, tsi)| Some((id.clone(), self.governed_by(tsi).ok()?))).collect();
        for (id, set) in sets {
            if let Some(tsi) = self.tsis.get_mut(&id) {
                tsi.governed = Some(set);
            }
        }
    }

    /// What was compiled for sets of groups that nobody here is in any more goes, and what had no room gets it.
    pub(in crate::core) fn tidy_policies(&mut self) {
        while let Some(vni) = self.policies_stale.pop_first() {
            let compiled: BTreeSet<_> = match self.policies.vns.get(&vni) {
                Some(vn) => vn.compiled.keys().cloned().collect(),
                None => BTreeSet::new(),
            };
            if compiled != self.sets_in_use(vni) {
                self.review_policy(vni);
            }
        }
        if std::mem::take(&mut self.policies.room_made) {
            let vns = self.policies.vns.iter();
            let full = vns.filter(|(_, vn)| vn.compiled.values().any(|compiled| compiled.too_many.is_some()));
            for vni in full.map(|(vni, _)| *vni).collect::<Vec<_>>() {
                self.review_policy(vni);
            }
        }
    }

    /// Every rule that is compiled, with the number of its counter in the data plane.
    pub fn rules(&self) -> impl Iterator<Item = (&VnName, &GroupName, &weft_model::Rule, u32)> {
        self.policies
            .rules
            .iter()
            .filter_map(|((vni, group, rule), number)| Some((self.vn_name(*vni)?, group, rule, number - 1)))
    }

    /// The rule that is counted by this number in the data plane, and its group: for the log.
    #[must_use]
    pub fn rule(&self, number: u32) -> Option<(&GroupName, &weft_model::Rule)> {
        let (_, group, rule) = self.policies.rules.key(number.checked_add(1)?)?;
        Some((group, rule))
    }

    /// The tenant system at a device, with its VN's name: for the log.
    #[must_use]
    pub fn tsi_at(&self, device: IfIndex) -> Option<(&VnName, &TsiName)> {
        let tsi = self.vaps.get(&device).and_then(|id| self.tsis.get(id))?;
        Some((&tsi.vn, &tsi.grant.tsi.name))
    }
}
