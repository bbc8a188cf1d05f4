//! Tenant system interfaces and their VAPs: the states of RFC 8394 and the calls that change them.

use super::messages::Registering;
use super::{
    ApiCall, Attach, Attached, Attachment, CallId, Core, Device, Granted, Notice, Output, Refused, Ticket,
    Timer,
};
use std::collections::BTreeMap;
use weft_datapath::{IfIndex, Location, Neighbour, Op, Vap, VapKind};
use weft_model::{Grant, TenantIp, Time, TsiId, TsiName, VnName, Vni};

/// RFC 8394 section 4.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Granted; no traffic.
    Associated,
    /// Carries traffic.
    Activated,
}

/// One attached tenant system interface.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tsi {
    pub vn: VnName,
    pub grant: Grant,
    /// The store's revision the grant is known from.
    pub revision: u64,
    pub device: Device,
    /// Whether the device exists.
    pub present: bool,
    pub state: State,
    /// The attach that waits for this one to be ready.
    pub waiting: Option<Waiting>,
    /// Link-locals asked for at the Oracle and not answered yet, with the asker's frame.
    pub claims: BTreeMap<TenantIp, super::proxy::Query>,
}

/// What an attach still waits for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Waiting {
    call: CallId,
    applied: bool,
    acknowledged: bool,
}

/// A local call under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    Attach(Attach),
    Detach { vn: VnName, name: TsiName },
}

impl Core {
    /// Takes over what an earlier run left: tenant systems whose devices are there are Activated
    /// again at once, without an Oracle (fail-static); the others wait out their grace time.
    pub fn restore(&mut self, now: Time, attachments: Vec<Attachment>, devices: &[Device]) {
        for attachment in attachments {
            let found = devices.iter().find(|d| d.name == attachment.device).cloned();
            let present = found.is_some();
            let kind = if attachment.tap { VapKind::Tap } else { VapKind::Veth };
            let device = found.unwrap_or(Device { name: attachment.device, index: IfIndex(0), kind });
            let id = attachment.grant.tsi.clone();
            let tsi = Tsi {
                vn: attachment.vn,
                grant: attachment.grant,
                revision: 0,
                device,
                present,
                state: State::Associated,
                waiting: None,
                claims: BTreeMap::new(),
            };
            self.index_addresses(&tsi.grant);
            self.tsis.insert(id.clone(), tsi);
            if present {
                self.activate(&id, None);
            } else {
                self.timers.set(Timer::Grace(id), now + self.config.timing.grace);
            }
        }
    }

    /// A local call to attach; answered by [`Output::Attached`].
    pub fn handle_attach(&mut self, call: CallId, attach: Attach) {
        if let Err(refused) = self.check_attach(&attach) {
            self.outputs.push_back(Output::Attached(call, Err(refused)));
            return;
        }
        if let Some(tsi) =
            self.find(&attach.vn, &attach.name).filter(|t| t.device == attach.device && t.present)
        {
            let same = attach.mac.is_none_or(|m| m == tsi.grant.mac) && attach.ips.is_subset(&tsi.grant.ips);
            let result = if same && tsi.state == State::Activated {
                Ok(self.attached(tsi, true))
            } else {
                Err(Refused::AlreadyAttached {
                    vn: attach.vn.clone(),
                    name: attach.name.clone(),
                    device: tsi.device.name.clone(),
                })
            };
            self.outputs.push_back(Output::Attached(call, result));
            return;
        }
        self.outputs.push_back(Output::Call(ApiCall::Grant {
            call,
            vn: attach.vn.clone(),
            name: attach.name.clone(),
            mac: attach.mac,
            ips: attach.ips.clone(),
        }));
        self.calls.insert(call, Call::Attach(attach));
    }

    fn check_attach(&self, attach: &Attach) -> Result<(), Refused> {
        let limit = self.config.limits.calls;
        if self.calls.len() >= limit.max(1) {
            return Err(Refused::TooManyCalls { limit });
        }
        if self.is_busy(&attach.vn, &attach.name) {
            return Err(Refused::Busy { vn: attach.vn.clone(), name: attach.name.clone() });
        }
        let taken = |tsi: TsiId| Refused::DeviceTaken { device: attach.device.name.clone(), tsi };
        if let Some(id) = self.vaps.get(&attach.device.index)
            && self.tsis.get(id).is_some_and(|t| t.vn != attach.vn || t.grant.tsi.name != attach.name)
        {
            return Err(taken(id.clone()));
        }
        let claimed = self
            .calls
            .values()
            .any(|c| matches!(c, Call::Attach(a) if a.device.index == attach.device.index));
        if claimed {
            return Err(Refused::Busy { vn: attach.vn.clone(), name: attach.name.clone() });
        }
        match self.find(&attach.vn, &attach.name) {
            Some(tsi) if tsi.present && tsi.device != attach.device => Err(Refused::AlreadyAttached {
                vn: attach.vn.clone(),
                name: attach.name.clone(),
                device: tsi.device.name.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// An Oracle's answer to [`ApiCall::Grant`].
    pub fn handle_granted(&mut self, now: Time, call: CallId, answer: Result<Granted, Refused>) {
        let Some(Call::Attach(attach)) = self.calls.remove(&call) else { return };
        let Granted { grant, vn, revision } = match answer {
            Ok(granted) => granted,
            Err(refused) => {
                self.outputs.push_back(Output::Attached(call, Err(refused)));
                return;
            }
        };
        self.vns.insert(vn.vni, vn);
        let id = grant.tsi.clone();
        // It may be there still, waiting out its grace time on a device that is gone.
        if let Some(old) = self.tsis.remove(&id) {
            self.unindex_addresses(&old.grant);
            self.timers.cancel(&Timer::Grace(id.clone()));
        }
        self.index_addresses(&grant);
        self.tsis.insert(
            id.clone(),
            Tsi {
                vn: attach.vn,
                grant,
                revision,
                device: attach.device,
                present: true,
                state: State::Associated,
                waiting: Some(Waiting { call, applied: false, acknowledged: false }),
                claims: BTreeMap::new(),
            },
        );
        self.timers.set(Timer::Acknowledge(id.clone()), now + self.config.timing.acknowledge);
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.tickets.insert(ticket, id.clone());
        self.activate(&id, Some(ticket));
        self.persist();
    }

    /// The data plane's answer to a change with a ticket.
    pub fn handle_applied(&mut self, ticket: Ticket, result: Result<(), String>) {
        let Some(id) = self.tickets.remove(&ticket) else { return };
        match result {
            Ok(()) => {
                if let Some(waiting) = self.tsis.get_mut(&id).and_then(|t| t.waiting.as_mut()) {
                    waiting.applied = true;
                }
                self.finish_attach(&id, false);
            }
            Err(reason) => self.fail_attach(&id, Refused::Datapath { reason }),
        }
    }

    /// Answers the attach that waits for `id` if nothing is missing any more, or if `anyway`: the
    /// grant is durable and the registration will be made when a session is up.
    pub(super) fn finish_attach(&mut self, id: &TsiId, anyway: bool) {
        let no_session = !self.oracles.iter().any(|o| o.up);
        let Some(tsi) = self.tsis.get_mut(id) else { return };
        let ready =
            tsi.waiting.as_ref().is_some_and(|w| w.applied && (w.acknowledged || no_session || anyway));
        if !ready {
            return;
        }
        let Some(waiting) = tsi.waiting.take() else { return };
        self.timers.cancel(&Timer::Acknowledge(id.clone()));
        if let Some(tsi) = self.tsis.get(id) {
            let attached = self.attached(tsi, false);
            self.outputs.push_back(Output::Notice(Notice::Activated(id.clone(), tsi.grant.epoch)));
            self.outputs.push_back(Output::Attached(waiting.call, Ok(attached)));
        }
    }

    /// An Oracle acknowledged the registration of `id`.
    pub(super) fn acknowledged(&mut self, id: &TsiId) {
        if let Some(waiting) = self.tsis.get_mut(id).and_then(|t| t.waiting.as_mut()) {
            waiting.acknowledged = true;
            self.finish_attach(id, false);
        }
    }

    /// Takes back an attach that cannot be finished; the grant is released, so nothing is half done.
    pub(super) fn fail_attach(&mut self, id: &TsiId, refused: Refused) {
        let Some(waiting) = self.tsis.get_mut(id).and_then(|t| t.waiting.take()) else { return };
        let vn = self.forget_tsi(id);
        self.outputs.push_back(Output::Attached(waiting.call, Err(refused)));
        if let Some(vn) = vn {
            self.outputs.push_back(Output::Call(ApiCall::Release { call: None, vn, tsi: id.clone() }));
        }
    }

    /// A local call to detach; answered by [`Output::Detached`]. With `force` the NVE lets go though
    /// no Oracle can be reached; the grant then stays until an operator releases it.
    pub fn handle_detach(&mut self, call: CallId, vn: VnName, name: TsiName, force: bool) {
        let refused = if self.is_busy(&vn, &name) {
            Some(Refused::Busy { vn: vn.clone(), name: name.clone() })
        } else if self.find(&vn, &name).is_none() {
            Some(Refused::NotAttached { vn: vn.clone(), name: name.clone() })
        } else {
            None
        };
        if let Some(refused) = refused {
            self.outputs.push_back(Output::Detached(call, Err(refused)));
            return;
        }
        let Some(id) = self.find(&vn, &name).map(|t| t.grant.tsi.clone()) else { return };
        if force {
            self.forget_tsi(&id);
            self.outputs.push_back(Output::Call(ApiCall::Release { call: None, vn, tsi: id }));
            self.outputs.push_back(Output::Detached(call, Ok(())));
            return;
        }
        // Traffic stops only once the grant is given back: a refusal changes nothing.
        self.calls.insert(call, Call::Detach { vn: vn.clone(), name });
        self.outputs.push_back(Output::Call(ApiCall::Release { call: Some(call), vn, tsi: id }));
    }

    /// An Oracle's answer to [`ApiCall::Release`] of a call.
    pub fn handle_released(&mut self, call: CallId, answer: Result<(), Refused>) {
        let Some(Call::Detach { vn, name }) = self.calls.remove(&call) else { return };
        if answer.is_ok()
            && let Some(id) = self.find(&vn, &name).map(|t| t.grant.tsi.clone())
        {
            self.forget_tsi(&id);
        }
        self.outputs.push_back(Output::Detached(call, answer));
    }

    /// A device is gone: Deactivate at once, De-Associate after the grace time (requirement H8).
    pub fn handle_device_gone(&mut self, now: Time, index: IfIndex) {
        let Some(id) = self.vaps.get(&index).cloned() else { return };
        self.deactivate(&id);
        let Some(tsi) = self.tsis.get_mut(&id) else { return };
        tsi.present = false;
        let name = tsi.device.name.clone();
        self.fail_attach(&id, Refused::Datapath { reason: format!("device {name} went away") });
        if self.tsis.contains_key(&id) {
            self.notice(Notice::DeviceGone(id.clone(), name));
            self.timers.set(Timer::Grace(id), now + self.config.timing.grace);
        }
    }

    /// A device is there (again).
    pub fn handle_device(&mut self, device: &Device) {
        let waiting = self.tsis.values_mut().find(|t| !t.present && t.device.name == device.name);
        let Some(tsi) = waiting else { return };
        tsi.device = device.clone();
        tsi.present = true;
        let id = tsi.grant.tsi.clone();
        self.timers.cancel(&Timer::Grace(id.clone()));
        self.activate(&id, None);
        self.persist();
    }

    pub(super) fn release_gone(&mut self, id: &TsiId) {
        if let Some(vn) = self.forget_tsi(id) {
            self.notice(Notice::Released(id.clone()));
            self.outputs.push_back(Output::Call(ApiCall::Release { call: None, vn, tsi: id.clone() }));
        }
    }

    /// Compares what is attached with what the store grants: what is granted elsewhere or to
    /// nobody is Deactivated, what gained addresses gets them.
    ///
    /// A list older than what is known of an interface says nothing about it: it may have been read
    /// before the grant was written.
    pub(super) fn reconcile_grants(&mut self, revision: u64, grants: Vec<Grant>) {
        let ours: BTreeMap<_, _> = grants.into_iter().map(|g| (g.tsi.clone(), g)).collect();
        let older = self.tsis.iter().filter(|(_, t)| t.revision <= revision);
        let mine: Vec<TsiId> = older.map(|(id, _)| id.clone()).collect();
        for id in mine {
            match ours.get(&id) {
                Some(grant) => self.update_grant(&id, grant.clone(), revision),
                None => self.lose_grant(&id),
            }
        }
    }

    /// The grant of `id` is somebody else's now.
    pub(super) fn lose_grant(&mut self, id: &TsiId) {
        if self.tsis.get(id).is_some_and(|t| t.state == State::Activated) {
            self.deactivate(id);
            self.notice(Notice::LostGrant(id.clone()));
        }
    }

    /// A newer version of a grant this NVE holds: other addresses.
    pub(super) fn update_grant(&mut self, id: &TsiId, grant: Grant, revision: u64) {
        let Some(tsi) = self.tsis.get_mut(id) else { return };
        tsi.revision = tsi.revision.max(revision);
        if tsi.grant == grant {
            return;
        }
        let (old, activated) = (tsi.grant.clone(), tsi.state == State::Activated);
        tsi.grant = grant.clone();
        self.unindex_addresses(&old);
        self.index_addresses(&grant);
        for gone in old.ips.difference(&grant.ips) {
            self.apply(Op::RemoveNeighbour(id.vni, *gone));
        }
        if activated {
            self.activate(id, None);
        }
        self.persist();
    }

    /// Puts an interface in service: tables first, so that frames for it arrive from the moment the
    /// registration is out; its own frames from the moment its program is attached.
    pub(super) fn activate(&mut self, id: &TsiId, ticket: Option<Ticket>) {
        let Some(tsi) = self.tsis.get_mut(id) else { return };
        tsi.state = State::Activated;
        let (grant, device) = (tsi.grant.clone(), tsi.device.clone());
        let path = match device.kind {
            VapKind::Veth => self.config.veth_path,
            VapKind::Tap => self.config.tap_path,
        };
        let vap = Vap {
            vni: id.vni,
            mac: grant.mac,
            ips: grant.ips.clone(),
            kind: device.kind,
            path,
            mtu: self.config.tenant_mtu,
            activated: true,
        };
        self.vaps.insert(device.index, id.clone());
        // What was known of its addresses as somebody else's no longer holds.
        self.forget_remote(id.vni, grant.mac.get().into());
        self.apply(Op::SetLocation(id.vni, grant.mac.get(), Location::Local(device.index)));
        for ip in &grant.ips {
            self.forget_remote(id.vni, (*ip).into());
            self.apply(Op::SetNeighbour(id.vni, *ip, Neighbour::At(grant.mac.get())));
        }
        let op = Op::SetVap(device.index, vap);
        self.tables.apply(&op);
        self.register(id, Registering::Activated);
        self.outputs.push_back(Output::Apply(op, ticket));
    }

    /// Takes an interface out of service; the grant stays.
    pub(super) fn deactivate(&mut self, id: &TsiId) {
        let Some(tsi) = self.tsis.get_mut(id) else { return };
        if tsi.state != State::Activated {
            return;
        }
        tsi.state = State::Associated;
        let (grant, device) = (tsi.grant.clone(), tsi.device.index);
        self.register(id, Registering::Withdrawn);
        self.vaps.remove(&device);
        self.apply(Op::RemoveLocation(id.vni, grant.mac.get()));
        for ip in &grant.ips {
            self.apply(Op::RemoveNeighbour(id.vni, *ip));
        }
        self.apply(Op::RemoveVap(device));
        self.forget_asker(device);
    }

    /// Deactivates and forgets; gives the VN's name.
    fn forget_tsi(&mut self, id: &TsiId) -> Option<VnName> {
        self.deactivate(id);
        let tsi = self.tsis.remove(id)?;
        self.unindex_addresses(&tsi.grant);
        self.timers.cancel(&Timer::Grace(id.clone()));
        self.timers.cancel(&Timer::Acknowledge(id.clone()));
        if !self.tsis.keys().any(|other| other.vni == id.vni) {
            self.leave(id.vni);
        }
        self.persist();
        Some(tsi.vn)
    }

    fn index_addresses(&mut self, grant: &Grant) {
        self.local_macs.insert((grant.tsi.vni, grant.mac.get()), grant.tsi.clone());
        for ip in &grant.ips {
            self.local_ips.insert((grant.tsi.vni, *ip), grant.tsi.clone());
        }
    }

    fn unindex_addresses(&mut self, grant: &Grant) {
        self.local_macs.remove(&(grant.tsi.vni, grant.mac.get()));
        for ip in &grant.ips {
            self.local_ips.remove(&(grant.tsi.vni, *ip));
        }
    }

    pub(super) fn find(&self, vn: &VnName, name: &TsiName) -> Option<&Tsi> {
        let vni = self.tsis.values().find(|t| t.vn == *vn).map(|t| t.grant.tsi.vni)?;
        self.tsis.get(&TsiId { vni, name: name.clone() })
    }

    fn is_busy(&self, vn: &VnName, name: &TsiName) -> bool {
        let called = self.calls.values().any(|call| match call {
            Call::Attach(a) => a.vn == *vn && a.name == *name,
            Call::Detach { vn: v, name: n } => v == vn && n == name,
        });
        called || self.find(vn, name).is_some_and(|t| t.waiting.is_some())
    }

    fn attached(&self, tsi: &Tsi, already: bool) -> Attached {
        Attached { vn: tsi.vn.clone(), grant: tsi.grant.clone(), mtu: self.config.tenant_mtu, already }
    }

    /// Hands everything that must outlive the agent to the disk.
    pub(super) fn persist(&mut self) {
        let attachments = self
            .tsis
            .values()
            .map(|t| Attachment {
                vn: t.vn.clone(),
                device: t.device.name.clone(),
                tap: t.device.kind == VapKind::Tap,
                grant: t.grant.clone(),
            })
            .collect();
        self.outputs.push_back(Output::Persist(attachments));
    }

    /// The last tenant system of a VN is gone: nothing of the VN remains.
    fn leave(&mut self, vni: Vni) {
        self.vns.remove(&vni);
        self.forget_vn(vni);
    }
}
