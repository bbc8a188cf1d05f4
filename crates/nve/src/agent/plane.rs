//! The data plane as the driver holds it. Changes of tables are single system calls, made in line
//! and in order; attaching a program waits for the kernel (8 to 24 ms) and is done beside the driver. It is begun
//! before the core hears of what it is for, and a VAP is set once its program runs: what a tenant system says to a
//! frame it was handed before that would be lost.

use super::driver::Input;
use crate::core::Ticket;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
};
use weft_datapath::{
    Attachment, Connection, ConnectionCounter, ConnectionReader, Counter, Datapath, DatapathError, Heard,
    IfIndex, Kernel, Levels, Op, OpenOptions, Part, Patrol, Progress, Punt, Punts, Seen, Steps, Tables,
    Trace, TraceId, Vap,
};
use weft_model::{MacAddr, Rloc, TenantIp, Vni};

/// Punts taken at once: a flood must not starve everything else.
const BATCH: usize = 64;

/// The kernel's data plane.
pub(super) struct Plane {
    kernel: Kernel,
    /// How far the comparison is.
    patrol: Patrol,
    punts: Option<AsyncFd<Punts>>,
    /// Programs to be attached.
    attachments: Vec<(IfIndex, Attachment)>,
    /// Those that are being attached, by device.
    running: BTreeMap<IfIndex, Running>,
    /// Nothing is attached without a permit.
    #[cfg(test)]
    pub(super) gate: std::sync::Arc<tokio::sync::Semaphore>,
}

/// A program that is being attached.
#[derive(Default)]
struct Running {
    progress: Option<Progress>,
    /// It runs, and the kernel has yet to say so.
    runs: bool,
    /// The VAP to be set when it does.
    vap: Option<Vap>,
    /// What its buckets are to hold then.
    levels: Levels,
    /// Who waits for the VAP.
    tickets: Vec<Ticket>,
}

/// A VAP that was to be set is, or is not.
pub(super) type Done = (Option<Ticket>, Result<(), String>);

impl Plane {
    /// Opens, or adopts what is pinned. Blocks; call [`Plane::listen`] on the runtime afterwards.
    pub(super) fn open(pin_dir: PathBuf, vxlan_device: String) -> Result<Self, DatapathError> {
        let kernel = Kernel::open(&OpenOptions { pin_dir, vxlan_device, ..OpenOptions::default() })?;
        Ok(Self {
            kernel,
            patrol: Patrol::default(),
            punts: None,
            attachments: Vec::new(),
            running: BTreeMap::new(),
            #[cfg(test)]
            gate: std::sync::Arc::new(tokio::sync::Semaphore::new(1_000)),
        })
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

    /// Makes a change. None: it waits for its device's program, and [`Plane::attached`] says how it went.
    pub(super) fn apply_beside(
        &mut self,
        op: &Op,
        ticket: Option<Ticket>,
    ) -> Option<Result<(), DatapathError>> {
        let Op::SetVap(device, vap) = op else {
            if let Op::RemoveVap(device) = op
                && let Some(running) = self.running.get_mut(device)
            {
                running.vap = None;
            }
            return Some(self.kernel.apply(op));
        };
        if let Err(error) = self.begin(*device) {
            return Some(Err(error));
        }
        let runs = self.runs(*device);
        match self.running.get_mut(device) {
            None => Some(self.kernel.set_vap(*device, vap)),
            Some(running) => {
                running.tickets.extend(ticket);
                if !runs {
                    running.vap = Some(vap.clone());
                    return None;
                }
                running.vap = None;
                match self.kernel.set_vap(*device, vap) {
                    // The answer waits until the program is pinned, too.
                    Ok(()) => None,
                    Err(error) => {
                        running.tickets.retain(|other| Some(*other) != ticket);
                        Some(Err(error))
                    }
                }
            }
        }
    }

    /// Has the program attached to a tenant system's device, if it is not yet; its VAP is nobody's until it is set.
    pub(super) fn begin(&mut self, device: IfIndex) -> Result<(), DatapathError> {
        if !self.running.contains_key(&device)
            && let Some(attachment) = self.kernel.attachment(device)?
        {
            self.running.insert(device, Running { progress: attachment.progress(), ..Running::default() });
            self.attachments.push((device, attachment));
        }
        Ok(())
    }

    /// Whether a device's program runs, or is not to be waited for.
    pub(super) fn runs(&mut self, device: IfIndex) -> bool {
        let Some(running) = self.running.get_mut(&device) else { return true };
        if !running.runs
            && let Some(progress) = &running.progress
        {
            running.runs = self.kernel.runs(progress).unwrap_or(false);
        }
        running.runs
    }

    /// Attaches what was begun, beside the driver and behind everything that is ready to run: a question to the
    /// Oracle is on its way before a thread is started for this.
    pub(super) fn attach(&mut self, inputs: &mpsc::Sender<Input>) {
        for (device, attachment) in self.attachments.drain(..) {
            let inputs = inputs.clone();
            #[cfg(test)]
            let gate = self.gate.clone();
            tokio::spawn(async move {
                #[cfg(test)]
                let _open = gate.acquire().await;
                // What writes the question is woken by what asks it.
                tokio::task::yield_now().await;
                let attached = tokio::task::spawn_blocking(move || attachment.run()).await;
                let result = match attached {
                    Ok(result) => result.map_err(|e| e.to_string()),
                    Err(ended) => Err(ended.to_string()),
                };
                let _ = inputs.send(Input::Attached(device, result)).await;
            });
        }
    }

    /// A program that was being attached is, or is not. How what waited for it went.
    pub(super) fn attached(&mut self, device: IfIndex, result: Result<(), String>) -> Vec<Done> {
        let Running { vap, levels, tickets, .. } = self.running.remove(&device).unwrap_or_default();
        let mut set = |vap| {
            self.kernel.set_vap(device, &vap)?;
            self.kernel.lower(device, levels, Duration::ZERO)
        };
        let result = match vap {
            Some(vap) => result.and_then(|()| set(vap).map_err(|e| e.to_string())),
            None => result,
        };
        if tickets.is_empty() {
            return vec![(None, result)];
        }
        tickets.into_iter().map(|ticket| (Some(ticket), result.clone())).collect()
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

    /// Whether the next part of a comparison is the first.
    pub(super) fn begins_to_compare(&self) -> bool {
        self.patrol.begins()
    }

    /// The next part of a comparison with what the kernel should hold.
    pub(super) fn compare(&mut self, wanted: &Tables) -> Result<Part, DatapathError> {
        self.patrol.step(&self.kernel, wanted)
    }

    /// What the kernel holds.
    pub(super) fn observed(&self) -> Result<Tables, DatapathError> {
        self.kernel.observed()
    }

    /// Every counter that is not zero.
    pub(super) fn counters(&self) -> Result<Vec<Counter>, DatapathError> {
        self.kernel.counters()
    }

    /// Begins to count a rule anew.
    pub(super) fn clear_rule(&mut self, rule: u32) -> Result<(), DatapathError> {
        self.kernel.clear_rule(rule)
    }

    /// Packets and octets by rule, of those that let any through.
    pub(super) fn rule_counters(&self) -> Result<Vec<(u32, u64, u64)>, DatapathError> {
        self.kernel.rule_counters()
    }

    /// Ends the connections of tenant systems with these addresses: their next packets do not find them.
    pub(super) fn end_connections(&mut self, vni: Vni, of: &BTreeSet<TenantIp>) -> Result<(), DatapathError> {
        self.kernel.end_connections(vni, of)
    }

    /// What counts the connections, off the runtime: it looks at each.
    pub(super) fn connection_counter(&self) -> Result<ConnectionCounter, DatapathError> {
        self.kernel.connection_counter()
    }

    /// How long no frame was sent there.
    pub(super) fn last_used(&self, vni: Vni, mac: MacAddr) -> Option<Duration> {
        self.kernel.last_used(vni, mac).ok().flatten()
    }

    /// What was learned from frames: where MAC addresses are, and which NVE has an IP address.
    pub(super) fn data_learned(&self) -> (Vec<Seen>, Vec<Heard>) {
        (self.kernel.learned().unwrap_or_default(), self.kernel.heard().unwrap_or_default())
    }

    /// What reads the connections that tenant systems with these addresses have now, off the runtime: it looks at all.
    pub(super) fn connection_reader(
        &self,
        vni: Vni,
        of: &BTreeSet<TenantIp>,
    ) -> Result<ConnectionReader, DatapathError> {
        self.kernel.connection_reader(vni, Some(of))
    }

    /// Takes over connections that another NVE let through.
    pub(super) fn set_connections(&mut self, connections: &[Connection]) -> Result<(), DatapathError> {
        self.kernel.set_connections(connections)
    }

    /// Takes over what has changed of those connections.
    pub(super) fn change_connections(
        &mut self,
        changed: &[Connection],
        ended: &[Connection],
    ) -> Result<(), DatapathError> {
        self.kernel.change_connections(changed, ended)
    }

    /// What is left in a VAP's buckets.
    pub(super) fn levels(&self, vap: IfIndex) -> Result<Levels, DatapathError> {
        self.kernel.levels(vap)
    }

    /// They hold no more than so much, so long ago; those of a VAP that waits for its program, once it is set.
    pub(super) fn lower(&mut self, vap: IfIndex, levels: Levels, ago: Duration) -> Result<(), DatapathError> {
        match self.running.get_mut(&vap).filter(|running| running.vap.is_some()) {
            Some(running) => {
                running.levels = levels;
                Ok(())
            }
            None => self.kernel.lower(vap, levels, ago),
        }
    }

    /// Says for how long the tables are an Oracle's latest word.
    pub(super) fn vouch(&mut self, lasts: Duration) -> Result<(), DatapathError> {
        self.kernel.vouch(lasts)
    }

    /// Where a MAC address was seen last.
    pub(super) fn seen_at(&self, vni: Vni, mac: MacAddr) -> Option<Rloc> {
        self.kernel.seen_at(vni, mac).ok().flatten()
    }

    /// The MAC address of the NVE that an IP address was heard to be behind.
    pub(super) fn heard_at(&self, vni: Vni, ip: TenantIp) -> Option<MacAddr> {
        self.kernel.heard_at(vni, ip).ok().flatten()
    }

    /// What the programs say of traced packets; none if it was taken already.
    pub(super) fn steps(&mut self) -> Option<Steps> {
        self.kernel.steps()
    }

    /// Has the programs know of a traced packet.
    pub(super) fn set_trace(&mut self, id: TraceId, trace: &Trace) -> Result<(), DatapathError> {
        self.kernel.set_trace(id, trace)
    }

    /// Forgets it.
    pub(super) fn end_trace(&mut self, id: TraceId) -> Result<(), DatapathError> {
        self.kernel.end_trace(id)
    }

    /// Has it come in at a VAP.
    pub(super) fn send_traced(
        &mut self,
        id: TraceId,
        vap: IfIndex,
        frame: &[u8],
    ) -> Result<(), DatapathError> {
        self.kernel.send_traced(id, vap, frame)
    }

    /// Hands a frame to a tenant system.
    pub(super) fn inject(&mut self, vap: IfIndex, frame: &[u8]) -> Result<(), DatapathError> {
        self.kernel.inject(vap, frame)
    }

    /// Sends a frame on its way as if its VAP had sent it now.
    pub(super) fn resend(&mut self, vap: IfIndex, frame: &[u8]) -> Result<(), DatapathError> {
        self.kernel.resend(vap, frame).map(drop)
    }

    /// Carries on a frame of another NVE's that came to this one as a gateway.
    pub(super) fn carry(&mut self, vni: Vni, from: Rloc, frame: &[u8]) -> Result<(), DatapathError> {
        self.kernel.carry(vni, from, frame).map(drop)
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
