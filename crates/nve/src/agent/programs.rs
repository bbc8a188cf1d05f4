//! Programs before what they are for. A tenant system's device gets its program while the Oracle is asked for the
//! grant, and the core hears of a grant, or of a device that has come back, once that program runs: so nothing is
//! delivered to a tenant system, nor is it registered, before what it answers is taken.

use super::driver::Driver;
use crate::core::{CallId, Device, Granted, Refused};
use std::{collections::BTreeMap, time::Duration};
use tokio::sync::oneshot;
use weft_datapath::{IfIndex, Op};
use weft_model::Time;

/// Between two looks whether a program runs that somebody waits for. The kernel says it in the end.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// An attach under way.
pub(super) struct Attaching {
    pub(super) device: IfIndex,
    pub(super) answer: oneshot::Sender<Result<crate::core::Attached, Refused>>,
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
        if let Some(News { granted, .. }) = self.parked.of.remove(&device) {
            self.tell(News { back: None, granted });
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

    fn tell(&mut self, News { back, granted }: News) {
        if let Some(device) = back {
            self.core.handle_device(&device);
        }
        if let Some((call, granted)) = granted {
            self.core.handle_granted(self.clock.now(), call, Ok(granted));
        }
    }

    /// A program was attached to a device, or could not be.
    pub(super) fn attached(&mut self, device: IfIndex, result: Result<(), String>) {
        let done = self.plane.attached(device, result);
        if let Some(news) = self.parked.of.remove(&device) {
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
    pub(super) fn answer_attach(&mut self, call: CallId, result: Result<crate::core::Attached, Refused>) {
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
