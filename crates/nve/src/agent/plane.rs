//! The data plane as the driver holds it. Changes of tables are single system calls, made in line
//! and in order; attaching a program waits for the kernel (8 to 24 ms) and is done beside the driver.

use super::driver::Input;
use crate::core::Ticket;
use std::{collections::BTreeMap, path::PathBuf, time::Duration};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
};
use weft_datapath::{
    Attachment, Counter, Datapath, DatapathError, Heard, IfIndex, Kernel, Op, OpenOptions, Punt, Punts, Seen,
    Tables,
};
use weft_model::{MacAddr, Vni};

/// Punts taken at once: a flood must not starve everything else.
const BATCH: usize = 64;

/// The kernel's data plane.
pub(super) struct Plane {
    kernel: Kernel,
    punts: Option<AsyncFd<Punts>>,
    /// Devices prepared whose programs are to be attached.
    attachments: Vec<(IfIndex, Attachment, Option<Ticket>)>,
    /// How many programs are being attached, by device.
    running: BTreeMap<IfIndex, usize>,
}

impl Plane {
    /// Opens, or adopts what is pinned. Blocks; call [`Plane::listen`] on the runtime afterwards.
    pub(super) fn open(pin_dir: PathBuf, vxlan_device: String) -> Result<Self, DatapathError> {
        let kernel = Kernel::open(&OpenOptions { pin_dir, vxlan_device, ..OpenOptions::default() })?;
        Ok(Self { kernel, punts: None, attachments: Vec::new(), running: BTreeMap::new() })
    }

    /// Ends the data plane: programs, tables and the VXLAN device. Blocks.
    pub(super) fn uninstall(self) -> Result<(), DatapathError> {
        self.kernel.uninstall()
    }

    /// Begins to hear punts.
    pub(super) fn listen(&mut self) -> std::io::Result<()> {
        if let Some(punts) = self.kernel.punts() {
            // Deprecated for types whose descriptor may change or close under it; the ring's lives as
            // long as `Punts`, which the AsyncFd owns.
            #[allow(deprecated)]
            let punts = AsyncFd::with_interest(punts, Interest::READABLE)?;
            self.punts = Some(punts);
        }
        Ok(())
    }

    /// Makes a change now, to its end.
    pub(super) fn apply(&mut self, op: &Op) -> Result<(), DatapathError> {
        self.kernel.apply(op)
    }

    /// Makes the changes of a start. One that the kernel refuses, for a device that is just gone for one, is
    /// left to the next comparison.
    ///
    /// # Errors
    /// When it concerns the whole data plane.
    pub(super) fn take_over(&mut self, ops: Vec<Op>) -> Result<(), DatapathError> {
        for op in ops {
            match self.apply(&op) {
                Err(error @ DatapathError::NotPermitted { .. }) => return Err(error),
                Err(error) if matches!(op, Op::Config(_)) => return Err(error),
                Err(error) => tracing::error!(%error, ?op, "the data plane refused a change; tried again"),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Makes a change. None: the rest of it waits for [`Plane::attach`], and whoever has the ticket hears of
    /// it as an input.
    pub(super) fn apply_beside(
        &mut self,
        op: &Op,
        ticket: Option<Ticket>,
    ) -> Option<Result<(), DatapathError>> {
        let Op::SetVap(device, vap) = op else { return Some(self.kernel.apply(op)) };
        let attachment = match self.kernel.prepare(*device, vap) {
            Ok(Some(attachment)) => attachment,
            Ok(None) => return Some(Ok(())),
            Err(error) => return Some(Err(error)),
        };
        self.attachments.push((*device, attachment, ticket));
        *self.running.entry(*device).or_default() += 1;
        None
    }

    /// Attaches what was prepared, beside the driver and behind everything that is ready to run: the
    /// registration is on its way before a thread is started for this.
    pub(super) fn attach(&mut self, inputs: &mpsc::Sender<Input>) {
        for (device, attachment, ticket) in self.attachments.drain(..) {
            let inputs = inputs.clone();
            tokio::spawn(async move {
                let attached = tokio::task::spawn_blocking(move || attachment.run()).await;
                let result = match attached {
                    Ok(result) => result.map_err(|e| e.to_string()),
                    Err(ended) => Err(ended.to_string()),
                };
                let _ = inputs.send(Input::Attached(device, ticket, result)).await;
            });
        }
    }

    /// A program that was being attached is, or is not.
    pub(super) fn attached(&mut self, device: IfIndex) {
        if let Some(left) = self.running.get_mut(&device) {
            *left -= 1;
            if *left == 0 {
                self.running.remove(&device);
            }
        }
    }

    /// Whether a program is being attached to a device at this moment.
    pub(super) fn is_attaching(&self, device: IfIndex) -> bool {
        self.running.contains_key(&device)
    }

    /// Puts the VXLAN device right; whether anything was amiss.
    pub(super) fn mend(&mut self) -> Result<bool, DatapathError> {
        self.kernel.mend()
    }

    /// Whether a device is the VXLAN device.
    pub(super) fn is_vxlan(&self, index: IfIndex) -> bool {
        self.kernel.vxlan_device() == index
    }

    /// What the kernel holds.
    pub(super) fn observed(&self) -> Result<Tables, DatapathError> {
        self.kernel.observed()
    }

    /// Every counter that is not zero.
    pub(super) fn counters(&self) -> Result<Vec<Counter>, DatapathError> {
        self.kernel.counters()
    }

    /// How long no frame was sent there.
    pub(super) fn last_used(&self, vni: Vni, mac: MacAddr) -> Option<Duration> {
        self.kernel.last_used(vni, mac).ok().flatten()
    }

    /// What was learned from frames: where MAC addresses are, and which NVE has an IP address.
    pub(super) fn data_learned(&self) -> (Vec<Seen>, Vec<Heard>) {
        (self.kernel.learned().unwrap_or_default(), self.kernel.heard().unwrap_or_default())
    }

    /// Says for how long the tables are an Oracle's latest word.
    pub(super) fn vouch(&mut self, lasts: Duration) -> Result<(), DatapathError> {
        self.kernel.vouch(lasts)
    }

    /// Hands a frame to a tenant system.
    pub(super) fn inject(&mut self, vap: IfIndex, frame: &[u8]) -> Result<(), DatapathError> {
        self.kernel.inject(vap, frame)
    }

    /// Sends a frame on its way as if its VAP had sent it now.
    pub(super) fn resend(&mut self, vap: IfIndex, frame: &[u8]) -> Result<(), DatapathError> {
        self.kernel.resend(vap, frame).map(drop)
    }

    /// Waits for frames the data plane could not decide about.
    pub(super) async fn punts(&mut self) -> std::io::Result<Vec<Punt>> {
        let Some(punts) = &mut self.punts else { return std::future::pending().await };
        loop {
            let mut ready = punts.readable_mut().await?;
            let batch = ready.get_inner_mut().drain(BATCH);
            if batch.len() < BATCH {
                ready.clear_ready();
            }
            if !batch.is_empty() {
                return Ok(batch);
            }
        }
    }
}
