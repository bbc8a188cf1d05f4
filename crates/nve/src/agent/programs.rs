//! Programs before what they are for. A tenant system's device gets its program while the Oracle is asked for the
//! grant, and the core hears of a grant, or of a device that has come back, once that program runs: so nothing is
//! delivered to a tenant system, nor is it registered, before what it answers is taken.

use super::driver::Driver;
use crate::core::{Attached, CallId, Device, Granted, Refused, Update};
use std::{collections::BTreeMap, time::Duration};
use tokio::sync::oneshot;
use weft_datapath::{IfIndex, Op};
use weft_model::Time;

/// Between two looks whether a program runs that somebody waits for. The kernel says it in the end.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// An attach under way.
pub(super) struct Attaching {
    pub(super) device: IfIndex,
    pub(super) answer: oneshot::Sender<Result<Attached, Refused>>,
    /// The device is to have its program for this.
    pub(super) begun: bool,
}

/// What the core is told of devices once their programs run.
#[derive(Default)]
pub(super) struct Parked {
    of: BTreeMap<IfIndex, News>,
    look_at: Option<Time>,
}

/// Of one device.
#[derive(Default)]
struct News {
    back: Option<Device>,
    granted: Option<(CallId, Granted)>,
    update: Option<(CallId, Update)>,
}

impl Parked {
    /// When to look again.
    pub(super) const fn due(&self) -> Option<Time> {
        self.look_at
    }
}

impl Driver {
    /// The Oracle is about to be asked for a grant.
    pub(super) fn begin(&mut self, call: CallId) {
        let Some(attaching) = self.attaching.get_mut(&call) else { return };
        match self.plane.begin(attaching.device) {
            Ok(()) => attaching.begun = true,
            // It is tried again with the grant, and the caller told.
            Err(error) => tracing::debug!(%error, "cannot attach to a tenant's device yet"),
        }
    }

    /// The Oracle has answered.
    pub(super) fn granted(&mut self, call: CallId, answer: Result<Granted, Refused>) {
        let device = self.attaching.get(&call).map(|attaching| attaching.device);
        match (answer, device) {
            (Ok(granted), Some(device)) if !self.plane.runs(device) => {
                self.park(device).granted = Some((call, granted));
            }
            (answer, _) => self.core.handle_granted(self.clock.now(), call, answer),
        }
    }

    /// A device is there, maybe one that the core has waited for.
    pub(super) fn device(&mut self, device: Device) {
        let index = device.index;
        self.core.handle_name(&device);
        if self.core.waits_for(&device) && self.plane.begin(index).is_ok() && !self.plane.runs(index) {
            self.park(index).back = Some(device);
        } else {
            self.core.handle_device(&device);
        }
    }

    fn park(&mut self, device: IfIndex) -> &mut News {
        let now = self.clock.now();
        self.parked.look_at.get_or_insert(now + LOOK_AGAIN);
        self.parked.of.entry(device).or_default()
    }

    /// A device is gone: what was granted for it is the core's to take back.
    pub(super) fn device_gone(&mut self, device: IfIndex) {
        if let Some(News { granted, update, .. }) = self.parked.of.remove(&device) {
            self.tell(News { granted, ..News::default() });
            self.refuse_update(update, "the device went away");
        }
        self.core.handle_device_gone(self.clock.now(), device);
    }

    /// Tells the core of those whose programs run by now.
    pub(super) fn look_for_programs(&mut self) {
        let now = self.clock.now();
        if self.parked.look_at.is_none_or(|at| at > now) {
            return;
        }
        let waiting: Vec<IfIndex> = self.parked.of.keys().copied().collect();
        for device in waiting {
            if self.plane.runs(device)
                && let Some(news) = self.parked.of.remove(&device)
            {
                self.tell(news);
            }
        }
        self.parked.look_at = (!self.parked.of.is_empty()).then(|| now + LOOK_AGAIN);
    }

    fn tell(&mut self, News { back, granted, update }: News) {
        if let Some(device) = back {
            self.core.handle_device(&device);
        }
        if let Some((call, granted)) = granted {
            self.core.handle_granted(self.clock.now(), call, Ok(granted));
        }
        if let Some((call, update)) = update {
            self.core.handle_update(self.clock.now(), call, update);
        }
    }

    /// An interface is to be changed; one that is to be at another device, once that has its program.
    pub(super) fn update(&mut self, update: Update, answer: oneshot::Sender<Result<Attached, Refused>>) {
        let call = self.call_id();
        let Some(device) = update.device.as_ref().map(|device| device.index) else {
            self.activating.insert(call, answer);
            return self.core.handle_update(self.clock.now(), call, update);
        };
        let begun = self.plane.begin(device);
        self.attaching.insert(call, Attaching { device, answer, begun: begun.is_ok() });
        match begun {
            Err(error) => {
                let reason = error.to_string();
                self.answer_attach(call, Err(Refused::Datapath { reason }));
            }
            Ok(()) if !self.plane.runs(device) => {
                // Of two for one device the later one is refused.
                let parked = self.park(device);
                if parked.update.is_some() {
                    let busy = Refused::Busy { vn: update.vn, name: update.name };
                    return self.answer_attach(call, Err(busy));
                }
                parked.update = Some((call, update));
            }
            Ok(()) => self.core.handle_update(self.clock.now(), call, update),
        }
    }

    fn refuse_update(&mut self, update: Option<(CallId, Update)>, reason: &str) {
        if let Some((call, _)) = update {
            self.answer_attach(call, Err(Refused::Datapath { reason: reason.to_owned() }));
        }
    }

    /// A program was attached to a device, or could not be.
    pub(super) fn attached(&mut self, device: IfIndex, result: Result<(), String>) {
        let failed = result.as_ref().err().cloned();
        let done = self.plane.attached(device, result);
        if let Some(mut news) = self.parked.of.remove(&device) {
            if let Some(reason) = failed {
                self.refuse_update(news.update.take(), &reason);
            }
            self.tell(news);
        }
        for done in done {
            match done {
                (Some(ticket), result) => self.core.handle_applied(ticket, result),
                (None, Err(error)) => tracing::error!(%error, "cannot attach to a tenant's device"),
                (None, Ok(())) => {}
            }
        }
        self.let_go(device);
    }

    /// Answers an attach or an Activate.
    pub(super) fn answer_attach(&mut self, call: CallId, result: Result<Attached, Refused>) {
        let result = result.map_err(|refused| self.named(refused));
        if let Some(answer) = self.activating.remove(&call) {
            let _ = answer.send(result);
            return;
        }
        let Some(Attaching { device, answer, begun }) = self.attaching.remove(&call) else { return };
        let _ = answer.send(result);
        if begun {
            self.let_go(device);
        }
    }

    /// Takes the program from a device that is nobody's, if it is not on its way there: then it is taken once it
    /// has come.
    fn let_go(&mut self, device: IfIndex) {
        let attaching =
            self.attaching.values().any(|attaching| attaching.begun && attaching.device == device);
        let wanted = attaching
            || self.parked.of.contains_key(&device)
            || self.core.tables().vaps.contains_key(&device)
            || self.plane.is_attaching(device);
        if !wanted && let Err(error) = self.plane.apply(&Op::RemoveVap(device)) {
            tracing::error!(%error, device = device.0, "cannot let go of a device");
        }
    }
}
