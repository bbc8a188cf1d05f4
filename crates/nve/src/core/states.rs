//! Activate and Deactivate as calls of their own: a hypervisor prepares an interface where a tenant system moves to,
//! and takes it out of service where it moves from (RFC 8394 section 4.2; requirements H3, H5, V3, V4).

use super::tsi::{State, Tsi, Waiting};
use super::{CallId, Cause, Core, Notice, Output, Refused, Ticket, Timer};
use ::core::time::Duration;
use std::collections::BTreeSet;
use weft_model::{Time, TsiId, TsiName, VnName};

impl Core {
    /// A local call to Activate what is Associated, and to renew its lease; answered by [`Output::Attached`]. If it
    /// fails, it is Associated as before.
    pub fn handle_activate(
        &mut self,
        now: Time,
        call: CallId,
        (vn, name): (VnName, TsiName),
        lease: Option<Duration>,
    ) {
        self.now = now;
        if self.join_silent(now, call, (&vn, &name), lease) {
            return;
        }
        let id = match self.attached_here(vn, name) {
            Ok(id) => id,
            Err(refused) => return self.outputs.push_back(Output::Attached(call, Err(refused))),
        };
        let Some(tsi) = self.tsis.get(&id) else { return };
        if self.is_anothers(tsi) && !self.oracles.iter().any(|o| o.up) {
            let refused = self.not_confirmed(tsi);
            self.outputs.push_back(Output::Attached(call, Err(refused)));
            return;
        }
        if !tsi.present {
            let reason = format!("device {} is gone", tsi.device.name);
            self.outputs.push_back(Output::Attached(call, Err(Refused::Datapath { reason })));
            return;
        }
        self.lease(now, &id, lease);
        let Some(tsi) = self.tsis.get(&id) else { return };
        if tsi.state == State::Activated {
            let attached = self.attached(tsi, true);
            self.outputs.push_back(Output::Attached(call, Ok(attached)));
            return;
        }
        self.begin_activate(now, &id, Some(call));
    }

    /// Puts what is Associated in service, for a call or because of a frame of its own.
    pub(super) fn begin_activate(&mut self, now: Time, id: &TsiId, call: Option<CallId>) {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.tickets.insert(ticket, id.clone());
        if let Some(tsi) = self.tsis.get_mut(id) {
            tsi.wanted = State::Activated;
            tsi.resumes = false;
            tsi.waiting = Some(Waiting {
                call,
                ticket,
                applied: false,
                acknowledged: false,
                created: false,
                before: None,
                associated: true,
                rejected: BTreeSet::new(),
            });
        }
        self.unsaved = true;
        self.timers.set(Timer::Acknowledge(id.clone()), now + self.config.timing.acknowledge);
        if !self.wait_for_context(now, id) {
            self.activate(id, Some(ticket));
        }
    }

    /// Whether it is another NVE's until an Oracle has taken the registration made here: fail-static is for owners.
    pub(super) fn is_anothers(&self, tsi: &Tsi) -> bool {
        tsi.grant.owner != self.config.xtr_id
    }

    fn not_confirmed(&self, tsi: &Tsi) -> Refused {
        let (vn, name, owner) = (&tsi.vn, &tsi.grant.tsi.name, tsi.grant.owner);
        let message = format!(
            "{vn}/{name} is NVE {owner}'s until an Oracle says otherwise, and none answers; try again"
        );
        Refused::Unanswered { message }
    }

    /// No Oracle has acknowledged the registration of `id` in time. An owner need not wait any longer.
    pub(super) fn unacknowledged(&mut self, id: &TsiId) {
        if let Some(why) = self.tsis.get(id).and_then(|tsi| tsi.closed.as_ref()) {
            let refused = Refused::Policy { tsi: id.clone(), why: why.to_string() };
            return self.fail_attach(id, refused);
        }
        match self.tsis.get(id).filter(|tsi| tsi.state == State::Activated && self.is_anothers(tsi)) {
            Some(tsi) => {
                let refused = self.not_confirmed(tsi);
                self.fail_attach(id, refused);
            }
            None => self.acknowledged(id),
        }
    }

    /// Whether what fails is an Activate: then the interface is Associated again.
    pub(super) fn fail_activate(&mut self, id: &TsiId, refused: &Refused) -> bool {
        let Some(tsi) = self.tsis.get_mut(id) else { return false };
        let Some(waiting) = tsi.waiting.take_if(|waiting| waiting.associated) else { return false };
        tsi.wanted = State::Associated;
        self.tickets.remove(&waiting.ticket);
        self.timers.cancel(&Timer::Acknowledge(id.clone()));
        self.end_hold_of(id);
        self.deactivate(id);
        self.because(id, Cause::Refused);
        // What came along may be in the past by the next try.
        self.review_arrival(id);
        self.unsaved = true;
        self.save();
        if let Some(call) = waiting.call {
            self.outputs.push_back(Output::Attached(call, Err(refused.clone())));
        }
        true
    }

    /// A local call to Deactivate what is Activated; answered by [`Output::Deactivated`]. Its grant and its device stay.
    ///
    /// Of one that moves the Oracle is not told: whoever sends to it goes on sending here until it is Activated where
    /// it moves to, instead of learning that it is nowhere.
    pub fn handle_deactivate(&mut self, call: CallId, vn: VnName, name: TsiName) {
        let answer = match self.attached_here(vn, name) {
            Ok(id) => {
                let moves = self
                    .tsis
                    .get(&id)
                    .is_some_and(|tsi| tsi.grant.next.is_some_and(|next| next.nve != self.config.xtr_id));
                self.take_out(&id, moves);
                if let Some(tsi) = self.tsis.get_mut(&id) {
                    tsi.resumes = false;
                }
                if self.stopped.contains(&id) {
                    self.redirect(&id);
                }
                self.deactivate(&id);
                self.hand_delta(&id);
                if let Some(tsi) = self.tsis.get_mut(&id).filter(|tsi| tsi.wanted == State::Activated) {
                    tsi.wanted = State::Associated;
                    self.unsaved = true;
                    self.because(&id, Cause::Hypervisor);
                    self.notice(Notice::Deactivated(id));
                }
                self.save();
                Ok(())
            }
            Err(refused) => Err(refused),
        };
        self.outputs.push_back(Output::Deactivated(call, answer));
    }

    pub(super) fn attached_here(&self, vn: VnName, name: TsiName) -> Result<TsiId, Refused> {
        if self.is_busy(&vn, &name) {
            return Err(Refused::Busy { vn, name });
        }
        self.granted_here(&vn, &name).map(|tsi| tsi.grant.tsi.clone())
    }

    /// The interface of this name, unless its grant is not this NVE's.
    pub(super) fn granted_here(&self, vn: &VnName, name: &TsiName) -> Result<&Tsi, Refused> {
        let tsi = self.find(vn, name);
        match tsi.map(|tsi| (tsi, &tsi.lost)) {
            Some((tsi, None)) => Ok(tsi),
            Some((_, Some(lost))) => {
                Err(Refused::Lost { vn: vn.clone(), name: name.clone(), went: lost.went.clone() })
            }
            None => Err(Refused::NotAttached { vn: vn.clone(), name: name.clone() }),
        }
    }
}
