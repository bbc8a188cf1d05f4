//! Update: what an attached interface has is changed, and its state is not (requirement H4; RFC 8394 section 3.2).

use super::attach::Call;
use super::tsi::State;
use super::{ApiCall, CallId, Cause, Core, Device, Granted, Output, Refused, Timer};
use ::core::time::Duration;
use std::collections::BTreeSet;
use weft_model::{TenantIp, Time, TsiId, TsiName, VnName};

/// A change of an attached interface. What it does not name stays.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Update {
    /// The VN's name.
    pub vn: VnName,
    /// The interface's name in it.
    pub name: TsiName,
    /// It is at this device from now on.
    pub device: Option<Device>,
    /// It has these addresses as well,
    pub add: BTreeSet<TenantIp>,
    /// and these no more. Those that it has, or has not, already are no error.
    pub remove: BTreeSet<TenantIp>,
    /// How long it lasts unless it is renewed; zero: for ever. Without one its lease stays, and is renewed.
    pub lease: Option<Duration>,
}

/// Addresses to be taken, and to be given back.
type Addresses = (BTreeSet<TenantIp>, BTreeSet<TenantIp>);

impl Core {
    /// A local call to Update what is attached; answered by [`Output::Attached`]. A refusal changes nothing.
    pub fn handle_update(&mut self, now: Time, call: CallId, update: Update) {
        self.now = now;
        match self.check_update(&update) {
            Ok((_, Some((add, remove)))) => {
                let (vn, name) = (update.vn.clone(), update.name.clone());
                self.calls.insert(call, Call::Update { update });
                self.outputs.push_back(Output::Call(ApiCall::Addresses { call, vn, name, add, remove }));
            }
            Ok((id, None)) => self.finish_update(call, &id, update),
            Err(refused) => self.outputs.push_back(Output::Attached(call, Err(refused))),
        }
    }

    /// What is to be changed, and the addresses that the Oracle has to be asked for and told of.
    fn check_update(&self, update: &Update) -> Result<(TsiId, Option<Addresses>), Refused> {
        let Update { vn, name, device, add, remove, lease: _ } = update;
        let id = self.attached_here(vn.clone(), name.clone())?;
        if let Some(device) = device {
            self.check_device(device, vn, name)?;
        }
        if let Some(ip) = add.intersection(remove).next() {
            return Err(Refused::AddedAndRemoved { ip: *ip });
        }
        let tsi = self.granted_here(vn, name)?;
        let has = &tsi.grant.ips;
        let add: BTreeSet<TenantIp> = add.difference(has).copied().collect();
        let remove: BTreeSet<TenantIp> = remove.intersection(has).copied().collect();
        if add.is_empty() && remove.is_empty() {
            return Ok((id, None));
        }
        let limit = self.config.limits.calls;
        if self.calls.len() >= limit.max(1) {
            return Err(Refused::TooManyCalls { limit });
        }
        Ok((id, Some((add, remove))))
    }

    /// An Oracle's answer to [`ApiCall::Addresses`].
    pub fn handle_addresses(&mut self, now: Time, call: CallId, answer: Result<Granted, Refused>) {
        self.now = now;
        let Some(Call::Update { .. }) = self.calls.get(&call) else { return };
        let Some(Call::Update { update }) = self.calls.remove(&call) else { return };
        let done = answer.and_then(|Granted { grant, revision, .. }| {
            let Update { vn, name, device, .. } = &update;
            // Meanwhile its name may have become that of another's device.
            device.as_ref().map_or(Ok(()), |device| self.check_device(device, vn, name))?;
            let tsi = self.granted_here(vn, name)?;
            let (id, known) = (tsi.grant.tsi.clone(), tsi.revision);
            // A list may have said the same already, or something newer.
            if revision >= known {
                self.because(&id, Cause::Hypervisor);
                self.update_grant(&id, grant, revision);
            }
            Ok(id)
        });
        match done {
            Ok(id) => self.finish_update(call, &id, update),
            Err(refused) => {
                self.outputs.push_back(Output::Attached(call, Err(refused)));
                // What was found at that device may be it after all.
                self.adopt_orphans();
            }
        }
    }

    /// Does what needs no Oracle, and answers.
    fn finish_update(&mut self, call: CallId, id: &TsiId, update: Update) {
        if let Some(device) = update.device {
            self.change_device(id, device);
        }
        self.lease(self.now, id, update.lease);
        self.save();
        let answer = self.granted_here(&update.vn, &update.name).map(|tsi| self.attached(tsi, true));
        self.outputs.push_back(Output::Attached(call, answer));
    }

    /// An interface is at another device from now on; at the one before nothing passes. No Oracle need know.
    fn change_device(&mut self, id: &TsiId, device: Device) {
        let Some(tsi) = self.tsis.get(id).filter(|tsi| !(tsi.present && tsi.device == device)) else {
            return;
        };
        let before = tsi.clone();
        // One that is lost may still have the device.
        let others = [self.by_device.get(&device.name), self.vaps.get(&device.index)];
        let others: BTreeSet<TsiId> =
            others.into_iter().flatten().filter(|other| *other != id).cloned().collect();
        for other in others {
            self.part_with(&other);
            self.forget_tsi(&other);
        }
        self.because(id, Cause::Hypervisor);
        if before.state == State::Activated {
            self.take_out(id, true);
        }
        if before.present {
            self.vaps.remove(&before.device.index);
            if before.device.index != device.index {
                self.orphan(&before);
            }
        }
        self.leave_name(&before.device.name, id);
        self.by_device.insert(device.name.clone(), id.clone());
        self.vaps.insert(device.index, id.clone());
        self.timers.cancel(&Timer::Grace(id.clone()));
        if let Some(tsi) = self.tsis.get_mut(id) {
            (tsi.device, tsi.present) = (device, true);
        }
        self.put_in_place(id, None);
        let serves = self.tsis.get(id).is_some_and(|tsi| tsi.state == State::Activated);
        if before.state == State::Activated && !serves {
            // Policy keeps it out: it is not on its way anywhere.
            self.end_stop(id, true);
        }
        self.unsaved = true;
    }
}
