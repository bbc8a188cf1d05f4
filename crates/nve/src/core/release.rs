//! Grants: giving back those that are no longer wanted until an Oracle has taken them, and following what
//! the store says of those that are.

use super::tsi::{State, Tsi};
use super::went::{Lost, Went};
use super::{ApiCall, CallId, Cause, Core, Held, Notice, Output, Refused, Timer, Unreleased};
use ::core::time::Duration;
use std::collections::BTreeMap;
use weft_model::{Grant, Time, TsiId, TsiName, VnName};

/// The first wait before a grant is given back again; each later one is twice as long.
const RETRY: Duration = Duration::from_millis(500);
/// The longest.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Codes of /v1 that say that there is nothing, or nothing of ours, to give back.
pub(super) const GONE: [&str; 2] = ["not_found", "granted_elsewhere"];
const FINAL: [&str; 3] = ["forbidden", "revoked", "bad_request"];
/// Calls of the core's own are numbered downwards from here, those of the agent upwards from 0.
const OWN_CALLS: u64 = u64::MAX;

/// A grant nobody here wants any more.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Release {
    /// The call under way; none while waiting for the next try.
    pub(super) call: Option<CallId>,
    held: Held,
    wait: Duration,
}

/// All of them, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Releases {
    pub(super) by_name: BTreeMap<(VnName, TsiName), Release>,
    pub(super) by_call: BTreeMap<CallId, (VnName, TsiName)>,
    made: u64,
}

/// All grants of this NVE, as the store had them at a revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Listed {
    revision: u64,
    grants: BTreeMap<TsiId, Grant>,
}

impl Core {
    /// Gives a grant back, now and again until an Oracle has it or says that it is not ours.
    pub(super) fn release(&mut self, vn: VnName, name: TsiName, held: Held) {
        self.timers.cancel(&Timer::Release(vn.clone(), name.clone()));
        let name = (vn, name);
        self.releases.by_name.insert(name.clone(), Release { call: None, held, wait: RETRY });
        self.call_release(name);
    }

    /// Those that no Oracle has taken yet: they must outlive the agent.
    #[must_use]
    pub fn unreleased(&self) -> Vec<Unreleased> {
        let all = self.releases.by_name.iter();
        all.map(|((vn, tsi), release)| Unreleased { vn: vn.clone(), tsi: tsi.clone(), held: release.held })
            .collect()
    }

    /// Goes on giving back what an earlier run was to. Call after [`Core::restore`].
    pub fn give_back(&mut self, now: Time, unreleased: Vec<Unreleased>) {
        self.now = now;
        for Unreleased { vn, tsi, held } in unreleased {
            if self.find(&vn, &tsi).is_none() {
                self.releases
                    .by_name
                    .insert((vn.clone(), tsi.clone()), Release { call: None, held, wait: RETRY });
                self.timers.set(Timer::Release(vn, tsi), now + RETRY);
            }
        }
    }

    /// Gives a grant back that may have been made by a call nobody answered, unless it is asked for again
    /// before.
    pub(super) fn release_soon(&mut self, vn: VnName, name: TsiName) {
        let key = (vn.clone(), name.clone());
        // It may have been granted again by a list that came before the answer.
        let here = self.find(&vn, &name).is_some_and(|tsi| !tsi.is_lost());
        if here || self.releases.by_name.contains_key(&key) {
            return;
        }
        self.releases.by_name.insert(key, Release { call: None, held: Held::Unknown, wait: RETRY });
        self.timers.set(Timer::Release(vn, name), self.now + RETRY);
    }

    fn call_release(&mut self, name: (VnName, TsiName)) {
        let releases = &mut self.releases;
        let Some(release) = releases.by_name.get_mut(&name) else { return };
        let call = CallId(OWN_CALLS - releases.made);
        releases.made += 1;
        release.call = Some(call);
        let held = release.held;
        let (vn, tsi) = name.clone();
        releases.by_call.insert(call, name);
        self.outputs.push_back(Output::Call(ApiCall::Release { call, vn, name: tsi, held }));
    }

    /// Whether `call` was one of the core's own; then its answer is dealt with.
    pub(super) fn own_release_answered(&mut self, call: CallId, answer: &Result<(), Refused>) -> bool {
        let Some(name) = self.releases.by_call.remove(&call) else { return false };
        let Some(release) = self.releases.by_name.get_mut(&name).filter(|r| r.call == Some(call)) else {
            return true;
        };
        release.call = None;
        let again = match answer {
            Err(Refused::Oracle { code, .. }) => !GONE.iter().chain(&FINAL).any(|end| code == end),
            Err(Refused::Unanswered { .. }) => true,
            _ => false,
        };
        if again {
            let wait = release.wait;
            release.wait = (wait * 2).min(RETRY_MAX);
            self.timers.set(Timer::Release(name.0, name.1), self.now + wait);
        } else {
            self.releases.by_name.remove(&name);
        }
        true
    }

    pub(super) fn retry_release(&mut self, now: Time, vn: VnName, name: TsiName) {
        if self.find(&vn, &name).is_some_and(|tsi| !tsi.is_lost()) {
            // A list has granted it again, and it is here.
            self.releases.by_name.remove(&(vn, name));
        } else if self.is_busy(&vn, &name) {
            // Being attached again: if that succeeds the grant is wanted after all.
            self.timers.set(Timer::Release(vn, name), now + RETRY_MAX);
        } else {
            self.call_release((vn, name));
        }
    }

    /// What is here of a grant.
    pub(super) fn held(&self, tsi: &Tsi) -> Held {
        let epoch = self.epoch_of(tsi);
        if self.is_anothers(tsi) && tsi.came == Some(epoch) { Held::Activated(epoch) } else { Held::Granted }
    }

    /// Whether a grant is being given back at this moment.
    pub(super) fn is_releasing(&self, vn: &VnName, name: &TsiName) -> bool {
        let key = (vn.clone(), name.clone());
        self.releases.by_name.get(&key).is_some_and(|r| r.call.is_some())
    }

    /// Whether a grant of this name may have been this NVE's before anybody asks for it now: without a list
    /// of grants it may.
    pub(super) fn may_hold(&self, vn: &VnName, name: &TsiName) -> bool {
        let named =
            |id: &TsiId| id.name == *name && self.vns.get(&id.vni).is_none_or(|known| known.name == *vn);
        self.find(vn, name).is_some_and(|tsi| !tsi.is_lost())
            || self.listed.as_ref().is_none_or(|listed| listed.grants.keys().any(named))
    }

    /// The grant is wanted again.
    pub(super) fn cancel_release(&mut self, vn: &VnName, name: &TsiName) {
        if self.releases.by_name.remove(&(vn.clone(), name.clone())).is_some() {
            self.timers.cancel(&Timer::Release(vn.clone(), name.clone()));
        }
    }

    /// Compares what is attached with what the store grants: what is granted elsewhere or to
    /// nobody is Deactivated, what gained addresses gets them, what is granted again is Activated again.
    ///
    /// A list older than what is known of an interface says nothing about it: it may have been read
    /// before the grant was written.
    pub(super) fn reconcile_grants(&mut self, revision: u64, grants: Vec<Grant>) {
        let ours: BTreeMap<_, _> = grants.into_iter().map(|g| (g.tsi.clone(), g)).collect();
        self.revision = self.revision.max(revision);
        let older = self.tsis.iter().filter(|(_, t)| t.revision <= revision);
        let mine: Vec<TsiId> = older.map(|(id, _)| id.clone()).collect();
        for id in mine {
            match ours.get(&id) {
                Some(grant) => {
                    self.update_grant(&id, grant.clone(), revision);
                    self.review_arrival(&id);
                }
                None => self.lose_grant(&id, self.went(&id)),
            }
        }
        self.claim_orphans(revision, &ours);
        if self.listed.as_ref().is_none_or(|listed| listed.revision <= revision) {
            self.listed = Some(Listed { revision, grants: ours });
        }
    }

    /// A grant as an answer has it, or as a list of grants has it that is not older: that may have come while the answer
    /// waited, and comes once. Whether it is this NVE's no more is said beside.
    pub(super) fn latest(&self, grant: Grant, revision: u64) -> (Grant, u64, bool) {
        match self.listed.as_ref().filter(|listed| listed.revision > revision) {
            Some(listed) => match listed.grants.get(&grant.tsi) {
                Some(newer) => (newer.clone(), listed.revision, false),
                None => (grant, revision, true),
            },
            None => (grant, revision, false),
        }
    }

    /// The grant of `id` is somebody else's now, or nobody's.
    pub(super) fn lose_grant(&mut self, id: &TsiId, went: Went) {
        let me = self.config.xtr_id;
        let cause = self.cause_of_loss(id, &went);
        let Some(tsi) = self.tsis.get_mut(id).filter(|t| !t.is_lost()) else { return };
        let with = tsi.grant.epoch_of(me).unwrap_or(tsi.grant.epoch);
        tsi.lost = Some(Lost { with, went: went.clone() });
        tsi.claims.clear();
        tsi.resumes = false;
        let activated = tsi.state == State::Activated;
        let was_here = activated || self.stopped.contains(id);
        self.unsaved = true;
        self.end_stop(id, false);
        let Some(tsi) = self.tsis.get(id) else { return };
        if tsi.waiting.is_some() {
            self.fail_attach(id, Refused::Registration { tsi: id.clone() });
            // What was Associated before the call that has failed is still here, and lost.
            if !self.tsis.contains_key(id) {
                return;
            }
        }
        self.deactivate(id);
        self.because(id, cause);
        self.hand_last(id, was_here);
        self.leave_connections(id);
        self.end_arrival(id);
        if was_here {
            self.redirect(id);
        }
        self.leave(id);
        self.policies_stale.insert(id.vni);
        if activated {
            self.notice(Notice::LostGrant(id.clone(), went));
        }
    }

    /// Where a grant went that a list does not have.
    pub(super) fn went(&self, id: &TsiId) -> Went {
        let me = self.config.xtr_id;
        let next = self.tsis.get(id).and_then(|tsi| tsi.grant.next).filter(|next| next.nve != me);
        match next {
            Some(next) => self.went_to(next.nve, Some(next.epoch)),
            None if !self.vns.contains_key(&id.vni) => Went::VnDeleted,
            None => Went::Unknown,
        }
    }

    fn cause_of_loss(&self, id: &TsiId, went: &Went) -> Cause {
        if self.is_asked_for(id) {
            // The list tells of a release before its answer does.
            return Cause::Hypervisor;
        }
        match (self.tsis.get(id), went) {
            // It was to come from there, and stays.
            (Some(tsi), Went::To { nve, .. }) if tsi.grant.owner != *nve => Cause::Moved(*nve),
            (_, Went::VnDeleted) => Cause::VnDeleted,
            (_, Went::Released) if !self.vns.contains_key(&id.vni) => Cause::VnDeleted,
            _ => Cause::GrantLost,
        }
    }
}
