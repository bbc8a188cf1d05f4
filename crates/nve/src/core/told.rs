//! What a hypervisor is told of its interfaces without having asked (requirement H6; RFC 8394 section 4, Req-6 and
//! Req-9): each change of what it would be shown, once, with the reason.
//!
//! Not every step on the way: what is compared, when the core has nothing more to say, is what was last told and what
//! is so now. Whoever knows how it was and hears all that follows knows how it is.

use super::tsi::State;
use super::{Core, Output, TsiView};
use ::core::fmt;
use std::collections::BTreeMap;
use weft_model::{TenantIp, TsiId, VnName, XtrId};

/// Why an interface is what it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Cause {
    /// What an Oracle says of its grant.
    #[default]
    Grant,
    /// A call of the hypervisor's.
    Hypervisor,
    /// A frame of its own, where it moves to.
    Silent,
    /// It is this NVE's now.
    Moved(XtrId),
    /// Its grant is nobody's, or another's without its having moved there.
    GrantLost,
    /// Its VN is deleted.
    VnDeleted,
    /// Its lease was not renewed.
    LeaseExpired,
    /// Its device went away,
    DeviceGone,
    /// or is back,
    DeviceBack,
    /// or has another name,
    DeviceRenamed,
    /// or stayed away for too long.
    DeviceStayedAway,
    /// Access policy keeps it out of service.
    PolicyMissing,
    /// Access policy lets it into service.
    PolicyApplied,
    /// An Oracle did not take its registration, or the data plane not its VAP.
    Refused,
}

impl Cause {
    /// As a program reads it.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Grant => "grant",
            Self::Hypervisor => "hypervisor",
            Self::Silent => "silent",
            Self::Moved(_) => "moved",
            Self::GrantLost => "grant_lost",
            Self::VnDeleted => "vn_deleted",
            Self::LeaseExpired => "lease_expired",
            Self::DeviceGone => "device_gone",
            Self::DeviceBack => "device_back",
            Self::DeviceRenamed => "device_renamed",
            Self::DeviceStayedAway => "device_stayed_away",
            Self::PolicyMissing => "policy_missing",
            Self::PolicyApplied => "policy_applied",
            Self::Refused => "refused",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What became of an interface (RFC 8394 section 3).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Happened {
    /// It is held here, and nothing passes.
    Associated,
    /// It is in service.
    Activated,
    /// It is out of service.
    Deactivated,
    /// It is not held here any more.
    DeAssociated,
    /// It is what it was, with another grant, at another device or kept out of service for another reason.
    Updated,
    /// It uses an address that somebody else has.
    Conflict(TenantIp, String),
}

/// Something that a hypervisor is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Event {
    /// The interface.
    pub tsi: TsiId,
    /// The name of its VN.
    pub vn: VnName,
    /// What happened.
    pub happened: Happened,
    /// Why.
    pub cause: Cause,
    /// How it is after that; none when it is gone.
    pub now: Option<TsiView>,
}

/// What hypervisors know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Told {
    known: BTreeMap<TsiId, TsiView>,
    /// What may have changed since, and why, as far as that was said.
    touched: BTreeMap<TsiId, Option<Cause>>,
}

impl Core {
    /// Something of an interface may be another now.
    pub(super) fn touch(&mut self, id: &TsiId) {
        if !self.told.touched.contains_key(id) {
            self.told.touched.insert(id.clone(), None);
        }
    }

    /// The same, because of this. What is said last counts.
    pub(super) fn because(&mut self, id: &TsiId, cause: Cause) {
        self.told.touched.insert(id.clone(), Some(cause));
    }

    /// The same, unless something else was said.
    pub(super) fn perhaps_because(&mut self, id: &TsiId, cause: Cause) {
        self.told.touched.entry(id.clone()).or_default().get_or_insert(cause);
    }

    /// A tenant system uses an address that is another's.
    pub(super) fn tell_conflict(&mut self, id: &TsiId, ip: TenantIp, why: String) {
        let Some(now) = self.tsis.get(id).map(|tsi| self.view(tsi)) else { return };
        self.outputs.push_back(Output::Event(Event {
            tsi: id.clone(),
            vn: now.vn.clone(),
            happened: Happened::Conflict(ip, why),
            cause: Cause::Grant,
            now: Some(now),
        }));
    }

    /// Says what has changed. What somebody waits for is said when the call has ended.
    pub(super) fn tell(&mut self) {
        for (id, cause) in std::mem::take(&mut self.told.touched) {
            let tsi = self.tsis.get(&id);
            if tsi.is_some_and(|tsi| tsi.waiting.is_some()) {
                self.told.touched.insert(id, cause);
                continue;
            }
            let now = tsi.filter(|tsi| !tsi.is_lost()).map(|tsi| self.view(tsi));
            let was = match &now {
                Some(now) => self.told.known.insert(id.clone(), now.clone()),
                None => self.told.known.remove(&id),
            };
            let Some(vn) = now.as_ref().or(was.as_ref()).map(|view| view.vn.clone()) else { continue };
            let cause = cause.unwrap_or_default();
            for happened in steps(was.as_ref(), now.as_ref()) {
                let now = match happened {
                    Happened::DeAssociated => None,
                    // How it was on its way out.
                    _ if now.is_none() => was.clone().map(|was| TsiView { state: State::Associated, ..was }),
                    _ => now.clone(),
                };
                let event = Event { tsi: id.clone(), vn: vn.clone(), happened, cause: cause.clone(), now };
                self.outputs.push_back(Output::Event(event));
            }
        }
    }

    /// What is held here and no call is under way for.
    #[cfg(test)]
    pub(super) fn settled(&self) -> Vec<TsiView> {
        let settled = self.tsis.values().filter(|tsi| tsi.waiting.is_none() && !tsi.is_lost());
        settled.map(|tsi| self.view(tsi)).collect()
    }

    #[cfg(test)]
    pub(super) fn check_told(&self) {
        assert!(self.told.touched.keys().all(|id| self.tsis[id].waiting.is_some()));
        for (id, tsi) in self.tsis.iter().filter(|(_, tsi)| tsi.waiting.is_none()) {
            let is = (!tsi.is_lost()).then(|| self.view(tsi));
            assert_eq!(self.told.known.get(id), is.as_ref(), "{id}");
        }
        assert!(self.told.known.keys().all(|id| self.tsis.contains_key(id)));
    }
}

/// What happened between the two, in order: no state is passed over.
fn steps(was: Option<&TsiView>, now: Option<&TsiView>) -> Vec<Happened> {
    let activated = |view: &TsiView| view.state == State::Activated;
    let mut steps = Vec::new();
    match (was, now) {
        (None, None) => {}
        (None, Some(now)) => {
            steps.push(Happened::Associated);
            steps.extend(activated(now).then_some(Happened::Activated));
        }
        (Some(was), None) => {
            steps.extend(activated(was).then_some(Happened::Deactivated));
            steps.push(Happened::DeAssociated);
        }
        (Some(was), Some(now)) => match (activated(was), activated(now)) {
            (false, true) => steps.push(Happened::Activated),
            (true, false) => steps.push(Happened::Deactivated),
            _ if was == now => {}
            _ => steps.push(Happened::Updated),
        },
    }
    steps
}
