//! Local calls: attach and detach, with the Oracle's and the data plane's part in them; and devices that
//! come and go.

use super::tsi::{State, Tsi, Waiting};
use super::{
    ApiCall, Attach, Attached, CallId, Cause, Core, Device, Granted, Held, Notice, Output, Refused, Ticket,
    Timer, Update,
};
use std::collections::BTreeSet;
use weft_datapath::IfIndex;
use weft_model::{Time, TsiId, TsiName, VnName};

/// A local call under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    Attach {
        attach: Attach,
        /// The grant was ours before.
        held: bool,
    },
    Detach {
        vn: VnName,
        tsi: TsiId,
        held: Held,
    },
    Update {
        update: Update,
    },
}

impl Core {
    /// A local call to attach; answered by [`Output::Attached`].
    pub fn handle_attach(&mut self, now: Time, call: CallId, attach: Attach) {
        self.now = now;
        match self.check_attach(&attach) {
            Ok(None) => {
                self.outputs.push_back(Output::Call(ApiCall::Grant {
                    call,
                    vn: attach.vn.clone(),
                    name: attach.name.clone(),
                    mac: attach.mac,
                    ips: attach.ips.clone(),
                    groups: attach.groups.clone(),
                    activate: attach.state == State::Activated,
                }));
                let held = self.may_hold(&attach.vn, &attach.name);
                self.calls.insert(call, Call::Attach { attach, held });
            }
            Ok(Some(mut attached)) => {
                self.set_explicit(&attached.grant.tsi, attach.explicit);
                self.lease(now, &attached.grant.tsi, attach.lease);
                attached.lease = self.tsis.get(&attached.grant.tsi).and_then(|tsi| tsi.lease);
                self.outputs.push_back(Output::Attached(call, Ok(attached)));
            }
            Err(refused) => self.outputs.push_back(Output::Attached(call, Err(refused))),
        }
    }

    /// What is attached already just as asked for, or nothing if it may be.
    fn check_attach(&self, attach: &Attach) -> Result<Option<Attached>, Refused> {
        let device = &attach.device;
        if self.is_busy(&attach.vn, &attach.name) {
            return Err(Refused::Busy { vn: attach.vn.clone(), name: attach.name.clone() });
        }
        self.check_device(device, &attach.vn, &attach.name)?;
        if let Some(tsi) = self.find(&attach.vn, &attach.name).filter(|t| t.present && !t.is_lost()) {
            let same = tsi.device == *device
                && attach.mac.is_none_or(|m| m == tsi.grant.mac)
                && attach.ips.is_subset(&tsi.grant.ips)
                && (attach.groups.is_empty() || attach.groups == tsi.grant.groups);
            match (same, tsi.state, attach.state) {
                (true, now, wanted) if now == wanted => return Ok(Some(self.attached(tsi, true))),
                // What is prepared is put in service.
                (true, State::Associated, State::Activated) => {}
                (false, now, wanted) if tsi.device == *device && now == wanted => {
                    let (vn, name) = (attach.vn.clone(), attach.name.clone());
                    return Err(Refused::AttachedOtherwise { vn, name, device: device.name.clone() });
                }
                _ => {
                    return Err(Refused::AlreadyAttached {
                        vn: attach.vn.clone(),
                        name: attach.name.clone(),
                        device: tsi.device.name.clone(),
                    });
                }
            }
        }
        let limit = self.config.limits.calls;
        if self.calls.len() >= limit.max(1) { Err(Refused::TooManyCalls { limit }) } else { Ok(None) }
    }

    /// Whether a device can be the VAP of this interface.
    pub(super) fn check_device(&self, device: &Device, vn: &VnName, name: &TsiName) -> Result<(), Refused> {
        let same = |other: &Device| other.index == device.index || other.name == device.name;
        let claimed = |call: &Call| match call {
            Call::Attach { attach, .. } => same(&attach.device),
            Call::Update { update } => update.device.as_ref().is_some_and(same),
            Call::Detach { .. } => false,
        };
        if self.calls.values().any(claimed) {
            return Err(Refused::Busy { vn: vn.clone(), name: name.clone() });
        }
        // Also while its device is gone: when it comes back under its name it is the VAP again.
        let holder = [self.by_device.get(&device.name), self.vaps.get(&device.index)];
        for id in holder.into_iter().flatten() {
            let other =
                self.tsis.get(id).is_some_and(|t| !t.is_lost() && (t.vn != *vn || t.grant.tsi.name != *name));
            if other {
                return Err(Refused::DeviceTaken { device: device.name.clone(), tsi: id.clone() });
            }
        }
        Ok(())
    }

    /// An Oracle's answer to [`ApiCall::Grant`].
    pub fn handle_granted(&mut self, now: Time, call: CallId, answer: Result<Granted, Refused>) {
        self.now = now;
        let Some(Call::Attach { .. }) = self.calls.get(&call) else { return };
        let Some(Call::Attach { attach, held }) = self.calls.remove(&call) else { return };
        let Granted { grant, vn, revision, created } = match answer {
            Ok(granted) => granted,
            Err(refused) => {
                if !held && matches!(refused, Refused::Unanswered { .. }) {
                    self.release_soon(attach.vn, attach.name);
                }
                self.outputs.push_back(Output::Attached(call, Err(refused)));
                // What was found at that device may be it after all.
                self.adopt_orphans();
                return;
            }
        };
        // Meanwhile its name may have become that of another's device.
        if let Err(refused) = self.check_device(&attach.device, &attach.vn, &attach.name) {
            if created {
                self.release(attach.vn, attach.name, Held::Granted);
            }
            self.outputs.push_back(Output::Attached(call, Err(refused)));
            self.adopt_orphans();
            return;
        }
        let id = grant.tsi.clone();
        // It may be there still, waiting out its grace time or lost and granted again; and what is lost
        // may still have the device.
        let name = (attach.vn.clone(), attach.name.clone());
        let replaced: BTreeSet<TsiId> = [
            self.tsis.contains_key(&id).then(|| id.clone()),
            self.by_name.get(&name).cloned(),
            self.by_device.get(&attach.device.name).cloned(),
            self.vaps.get(&attach.device.index).cloned(),
        ]
        .into_iter()
        .flatten()
        .collect();
        // What is replaced may be the last that the VN is known for.
        let known = self.vns.get(&id.vni).cloned();
        let (mut before, mut associated, mut lease) = (None, false, None);
        for old in replaced {
            if old != id {
                self.part_with(&old);
            }
            let Some(tsi) = self.forget_tsi(&old) else { continue };
            // The device's VAP is this one's from now on: not for a moment is there none.
            if tsi.present && tsi.device.index != attach.device.index {
                self.orphan(&tsi);
            }
            if old == id && !tsi.is_lost() {
                associated = tsi.present && tsi.wanted == State::Associated;
                lease = tsi.lease;
                before = tsi.waits_for_its_device();
            }
        }
        self.cancel_release(&attach.vn, &attach.name);
        self.revision = self.revision.max(revision);
        self.hear_of_vn(known.unwrap_or(vn));
        let (grant, revision, lost) = self.latest(grant, revision);
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.tickets.insert(ticket, id.clone());
        let mut tsi = Tsi::new(attach.vn, grant, revision, attach.device, true);
        tsi.wanted = attach.state;
        tsi.lease = lease;
        tsi.explicit = attach.explicit;
        tsi.waiting = Some(Waiting {
            call: Some(call),
            ticket,
            applied: false,
            acknowledged: attach.state == State::Associated,
            created,
            before,
            associated: associated && attach.state == State::Activated,
            rejected: BTreeSet::new(),
        });
        self.insert_tsi(tsi);
        self.lease(now, &id, attach.lease);
        self.timers.set(Timer::Acknowledge(id.clone()), now + self.config.timing.acknowledge);
        self.save();
        if lost {
            self.lose_grant(&id, self.went(&id));
            self.adopt_orphans();
            return;
        }
        self.review_arrival(&id);
        if self.wait_for_context(now, &id) {
            self.review_vn(id.vni);
            self.policies_stale.insert(id.vni);
            self.close(&id, None);
        } else {
            self.put_in_place(&id, Some(ticket));
        }
        self.adopt_orphans();
    }

    /// The data plane's answer to a change with a ticket.
    pub fn handle_applied(&mut self, ticket: Ticket, result: Result<(), String>) {
        let Some(id) = self.tickets.remove(&ticket) else { return };
        match result {
            Ok(()) => {
                if let Some(waiting) = self.tsis.get_mut(&id).and_then(|t| t.waiting.as_mut()) {
                    waiting.applied = true;
                }
                self.finish_attach(&id);
            }
            Err(reason) => self.fail_attach(&id, Refused::Datapath { reason }),
        }
    }

    /// Answers the attach that waits for `id` if nothing is missing any more.
    pub(super) fn finish_attach(&mut self, id: &TsiId) {
        let mine = self.tsis.get(id).is_some_and(|tsi| !self.is_anothers(tsi));
        let no_session = mine && !self.oracles.iter().any(|o| o.up);
        let Some(tsi) = self.tsis.get_mut(id) else { return };
        if !tsi.waiting.as_ref().is_some_and(|w| w.applied && (w.acknowledged || no_session)) {
            return;
        }
        let Some(waiting) = tsi.waiting.take() else { return };
        if tsi.state == State::Activated {
            tsi.came = tsi.grant.epoch_of(self.config.xtr_id).ok();
            self.unsaved = true;
        }
        self.timers.cancel(&Timer::Acknowledge(id.clone()));
        self.because(id, if waiting.call.is_some() { Cause::Hypervisor } else { Cause::Silent });
        if let Some(tsi) = self.tsis.get(id) {
            let attached = self.attached(tsi, false);
            let epoch = attached.epoch;
            let notice = match tsi.state {
                State::Associated => Notice::Associated(id.clone()),
                State::Activated => Notice::Activated(id.clone(), epoch),
            };
            self.save();
            self.notice(notice);
            if let Some(call) = waiting.call {
                self.outputs.push_back(Output::Attached(call, Ok(attached)));
            }
        }
        // Not before: what is not its own after all is not announced.
        if self.tsis.get(id).is_some_and(|tsi| tsi.state == State::Activated) {
            self.announce(id);
        }
    }

    /// An Oracle acknowledged the registration of `id`, or none did in time: the grant is durable and
    /// registered again with every session, so the attach need not wait any longer.
    pub(super) fn acknowledged(&mut self, id: &TsiId) {
        if let Some(waiting) = self.tsis.get_mut(id).and_then(|t| t.waiting.as_mut()) {
            waiting.acknowledged = true;
            self.finish_attach(id);
        }
    }

    /// Takes back an attach that cannot be finished, so that nothing is half done: a grant that it made is
    /// released, and what was here before waits out its grace time.
    pub(super) fn fail_attach(&mut self, id: &TsiId, refused: Refused) {
        if self.tsis.get(id).is_none_or(|t| t.waiting.is_none()) || self.fail_activate(id, &refused) {
            return;
        }
        let context = self.vns.get(&id.vni).cloned();
        let Some(tsi) = self.remove_tsi(id) else { return };
        self.because(id, Cause::Refused);
        let lost = tsi.is_lost();
        let Some(waiting) = tsi.waiting else { return };
        let before =
            waiting.before.filter(|before| !lost && !self.by_device.contains_key(&before.device.name));
        let released = before.is_none() && waiting.created && !lost;
        if let Some(before) = before {
            self.insert_tsi(before.again(tsi.vn.clone(), tsi.grant, tsi.revision));
            self.run_lease(self.now, id);
            self.vns.extend(context.map(|vn| (vn.vni, vn)));
            self.timers.set(Timer::Grace(id.clone()), self.now + self.config.timing.grace);
        }
        self.save();
        if let Some(call) = waiting.call {
            self.outputs.push_back(Output::Attached(call, Err(refused)));
        }
        if released {
            self.release(tsi.vn, id.name.clone(), Held::Granted);
        }
    }

    /// A local call to detach; answered by [`Output::Detached`]. With `force` the NVE lets go though
    /// no Oracle can be reached, and goes on trying to give the grant back.
    pub fn handle_detach(&mut self, call: CallId, vn: VnName, name: TsiName, force: bool) {
        // A call to detach that hangs is overtaken by force.
        let detaching = self.is_detaching(&vn, &name);
        let busy = self.is_busy(&vn, &name) && !(force && detaching);
        let found = self.find(&vn, &name).map(|t| (t.grant.tsi.clone(), t.is_lost(), self.held(t)));
        let (id, lost, held) = match found {
            Some(found) if !busy => found,
            Some(_) => {
                self.outputs.push_back(Output::Detached(call, Err(Refused::Busy { vn, name })));
                return;
            }
            None => {
                let refused =
                    if busy { Refused::Busy { vn, name } } else { Refused::NotAttached { vn, name } };
                self.outputs.push_back(Output::Detached(call, Err(refused)));
                return;
            }
        };
        if force || lost {
            self.remove_tsi(&id);
            self.because(&id, Cause::Hypervisor);
            self.save();
            // What is somebody else's is not ours to give back.
            if !lost && !detaching {
                self.release(vn, name, held);
            }
            self.outputs.push_back(Output::Detached(call, Ok(())));
            return;
        }
        // Traffic stops only once the grant is given back: a refusal changes nothing.
        self.calls.insert(call, Call::Detach { vn: vn.clone(), tsi: id, held });
        self.outputs.push_back(Output::Call(ApiCall::Release { call, vn, name, held }));
    }

    /// An Oracle's answer to [`ApiCall::Release`].
    pub fn handle_released(&mut self, call: CallId, answer: Result<(), Refused>) {
        if self.own_release_answered(call, &answer) {
            return;
        }
        let Some(Call::Detach { .. }) = self.calls.get(&call) else { return };
        let Some(Call::Detach { vn, tsi, held }) = self.calls.remove(&call) else { return };
        // A grant that is gone already, or somebody else's, is what was asked for.
        let answer = match answer {
            Err(Refused::Oracle { code, .. }) if super::release::GONE.contains(&code.as_str()) => Ok(()),
            other => other,
        };
        if answer.is_ok() {
            self.remove_tsi(&tsi);
            self.because(&tsi, Cause::Hypervisor);
            self.save();
        } else if !self.tsis.contains_key(&tsi) {
            // Overtaken by force: what failed is tried again.
            self.release(vn, tsi.name, held);
        }
        self.outputs.push_back(Output::Detached(call, answer));
    }

    /// A device is gone: Deactivate at once, De-Associate after the grace time (requirement H8).
    pub fn handle_device_gone(&mut self, now: Time, index: IfIndex) {
        self.now = now;
        let id = self.vaps.get(&index).cloned();
        if id.is_none() && self.orphans.contains_key(&index) {
            self.remove_vap(index);
        }
        let Some(id) = id else { return };
        self.withdraw(&id);
        self.remove_vap(index);
        self.vaps.remove(&index);
        let Some(tsi) = self.tsis.get_mut(&id) else { return };
        tsi.present = false;
        let name = tsi.device.name.clone();
        if tsi.waiting.is_some() {
            self.fail_attach(&id, Refused::Datapath { reason: format!("device {name} went away") });
        }
        // What was Associated before the call that has failed still is.
        if self.tsis.contains_key(&id) {
            self.because(&id, Cause::DeviceGone);
            self.notice(Notice::DeviceGone(id.clone(), name));
            self.timers.set(Timer::Grace(id), now + self.config.timing.grace);
        }
    }

    /// Whether this device, which is there, is the VAP of an interface as soon as [`Core::handle_device`] says so.
    #[must_use]
    pub fn waits_for(&self, device: &Device) -> bool {
        let tsi = self.by_device.get(&device.name).and_then(|id| self.tsis.get(id));
        tsi.is_some_and(|tsi| tsi.waiting.is_none() && !(tsi.present && tsi.device == *device))
    }

    /// A device has this name by now. An interface stays at its device, whatever that is called; one that waits for a
    /// device of that name does not get this one, which is another's.
    pub fn handle_name(&mut self, device: &Device) {
        if let Some(orphan) = self.orphans.get_mut(&device.index) {
            orphan.device.name.clone_from(&device.name);
        }
        for call in self.calls.values_mut() {
            let of = match call {
                Call::Attach { attach, .. } => Some(&mut attach.device),
                Call::Update { update } => update.device.as_mut(),
                Call::Detach { .. } => None,
            };
            if let Some(of) = of.filter(|of| of.index == device.index) {
                of.name.clone_from(&device.name);
            }
        }
        let Some(id) = self.vaps.get(&device.index).cloned() else { return };
        let Some(tsi) = self.tsis.get_mut(&id).filter(|tsi| tsi.device.name != device.name) else { return };
        let old = std::mem::replace(&mut tsi.device.name, device.name.clone());
        self.leave_name(&old, &id);
        self.by_device.insert(device.name.clone(), id.clone());
        self.because(&id, Cause::DeviceRenamed);
        self.notice(Notice::DeviceRenamed(id, old, device.name.clone()));
        self.unsaved = true;
    }

    /// A device is there (again), maybe with another index.
    pub fn handle_device(&mut self, device: &Device) {
        self.handle_name(device);
        let Some(id) = self.by_device.get(&device.name).cloned() else { return };
        let Some(tsi) = self.tsis.get(&id) else { return };
        if tsi.present && tsi.device == *device {
            return;
        }
        let (waiting, old) = (tsi.waiting.is_some(), tsi.device.index);
        if waiting {
            let reason = format!("device {} was replaced by another of its name", device.name);
            self.fail_attach(&id, Refused::Datapath { reason });
            // What is left of it may wait for another device.
            if self.by_device.get(&device.name) != Some(&id) {
                return;
            }
        }
        self.withdraw(&id);
        if self.vaps.get(&old) == Some(&id) {
            self.remove_vap(old);
            self.vaps.remove(&old);
        }
        let Some(tsi) = self.tsis.get_mut(&id) else { return };
        tsi.device = device.clone();
        tsi.present = true;
        let lost = tsi.is_lost();
        self.because(&id, Cause::DeviceBack);
        self.vaps.insert(device.index, id.clone());
        self.timers.cancel(&Timer::Grace(id.clone()));
        if lost {
            self.deactivate(&id);
        } else {
            self.put_in_place(&id, None);
        }
        self.unsaved = true;
    }

    /// The grace time of a device that is gone is over.
    pub(super) fn end_grace(&mut self, now: Time, id: &TsiId) {
        let Some(tsi) = self.tsis.get(id).filter(|t| !t.present) else { return };
        if self.is_busy(&tsi.vn, &tsi.grant.tsi.name) {
            // An attach at another device, or a detach: its end decides.
            let again = self.config.timing.grace.max(super::LEAST_WAIT);
            self.timers.set(Timer::Grace(id.clone()), now + again);
            return;
        }
        let held = self.held(tsi);
        let Some(tsi) = self.remove_tsi(id) else { return };
        self.because(id, Cause::DeviceStayedAway);
        self.notice(Notice::Released(id.clone()));
        if !tsi.is_lost() {
            self.release(tsi.vn, id.name.clone(), held);
        }
    }

    pub(super) fn is_busy(&self, vn: &VnName, name: &TsiName) -> bool {
        let called = self.calls.values().any(|call| match call {
            Call::Attach { attach, .. } => attach.vn == *vn && attach.name == *name,
            Call::Detach { vn: v, tsi, .. } => v == vn && tsi.name == *name,
            Call::Update { update } => update.vn == *vn && update.name == *name,
        });
        called || self.is_releasing(vn, name) || self.find(vn, name).is_some_and(|t| t.waiting.is_some())
    }

    /// Whether a hypervisor has asked for what may become of an interface now.
    pub(super) fn is_asked_for(&self, id: &TsiId) -> bool {
        self.calls.values().any(|call| match call {
            Call::Attach { .. } => false,
            Call::Detach { tsi, .. } => tsi == id,
            Call::Update { update } => {
                self.find(&update.vn, &update.name).is_some_and(|tsi| tsi.grant.tsi == *id)
            }
        })
    }

    fn is_detaching(&self, vn: &VnName, name: &TsiName) -> bool {
        let detach =
            |call: &Call| matches!(call, Call::Detach { vn: v, tsi, .. } if v == vn && tsi.name == *name);
        self.calls.values().any(detach)
    }
}
