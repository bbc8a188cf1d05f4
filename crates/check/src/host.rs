//! A host: an NVE's core, its disk, its kernel, and what is under way from and to it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use weft_datapath::Tables;
use weft_model::{Grant, VnSpec};
use weft_nve::core::{ApiCall, Attachment, CallId, Core, Granted, Output, Refused};

use crate::act::{Datagram, Side};
use crate::part::Part;
use crate::state::State;

/// What an NVE's session brings the Oracle.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Up {
    Begin,
    Frames(Vec<u8>),
    End,
}

/// What it brings the NVE.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Down {
    Frames(Vec<u8>),
    End,
}

/// The answer to a call of /v1.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    Granted(Box<Result<Granted, Refused>>),
    Released(Result<(), Refused>),
}

/// What outlives an agent: attachments and VN Contexts.
pub(crate) type Disk = (Vec<Attachment>, Vec<VnSpec>);

/// A host with its NVE.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Host {
    /// While its agent lives.
    pub(crate) core: Option<Part<Core>>,
    pub(crate) boots: u64,
    pub(crate) disk: Part<Disk>,
    /// What was on it before the last write, which is lost if the agent dies at once; while something may die.
    pub(crate) before: Part<Disk>,
    pub(crate) kernel: Part<Tables>,
    /// Its session, until it has noticed its end.
    pub(crate) session: Option<u64>,
    pub(crate) to_oracle: VecDeque<(u64, Up)>,
    pub(crate) to_nve: VecDeque<Down>,
    /// Lists of its grants under way.
    pub(crate) watch: VecDeque<(u64, Vec<Grant>)>,
    pub(crate) calls: BTreeMap<CallId, ApiCall>,
    pub(crate) answers: BTreeMap<CallId, Answer>,
    /// Grants that agents which are dead by now have given back, by their starts: that may arrive yet.
    pub(crate) late: VecDeque<(u64, ApiCall)>,
}

impl Host {
    pub(crate) fn is_quiet(&self) -> bool {
        self.to_oracle.is_empty()
            && self.to_nve.is_empty()
            && self.watch.is_empty()
            && self.calls.is_empty()
            && self.answers.is_empty()
            && self.late.is_empty()
    }

    /// Something else is to outlive the agent.
    fn write(&mut self, disk: Disk, may_die: bool) {
        let now = Part::new(disk);
        if now != self.disk || !may_die {
            let old = std::mem::replace(&mut self.disk, now);
            self.before = if may_die { old } else { self.disk.clone() };
        }
    }

    /// Nothing of what was under way to its agent arrives.
    pub(crate) fn hang_up(&mut self) {
        if let Some(session) = self.session.take() {
            self.to_oracle.push_back((session, Up::End));
        }
        self.to_nve.clear();
        self.watch.clear();
    }
}

impl State {
    /// Hands something to an NVE's core, if its agent lives, and does what that wants done.
    pub(crate) fn nve(&mut self, nve: usize, act: impl FnOnce(&mut Core)) {
        let Some(host) = self.hosts.get_mut(nve) else { return };
        let Some(core) = &mut host.core else { return };
        let now = self.now;
        let mut outputs = Vec::new();
        let kernel = &mut host.kernel;
        core.change(|core| {
            act(core);
            while let Some(output) = core.poll_output() {
                match output {
                    Output::Apply(op, ticket) => {
                        kernel.change(|tables| tables.apply(&op));
                        if let Some(ticket) = ticket {
                            core.handle_applied(ticket, Ok(()));
                        }
                    }
                    // The host that it comes from gives nothing along: what does is tested apart.
                    Output::Fetch(fetch) => core.handle_context_end(now, fetch.transfer, false),
                    // All that was learned is in use.
                    Output::LastUse { vni, eid, .. } => {
                        core.handle_last_use(now, vni, eid, Some(Duration::ZERO));
                    }
                    other => outputs.push(other),
                }
            }
        });
        outputs.into_iter().for_each(|output| self.output(nve, output));
    }

    fn output(&mut self, nve: usize, output: Output) {
        let (family, may_die) = (self.family, self.left.faults > 0);
        let Some(host) = self.hosts.get_mut(nve) else { return };
        match output {
            Output::Frame { octets, .. } => {
                if let Some(session) = host.session {
                    host.to_oracle.push_back((session, Up::Frames(octets)));
                }
            }
            Output::Datagram { to, octets } | Output::Answer { to, octets } => {
                let to = crate::names::at(family, to.ip()).map_or(Side::Oracle, Side::Nve);
                self.send(Datagram { from: Side::Nve(nve), to, octets });
            }
            Output::Call(call) => {
                let id = match &call {
                    ApiCall::Grant { call, .. } | ApiCall::Release { call, .. } => *call,
                    ApiCall::Take { .. } | ApiCall::Addresses { .. } => return,
                };
                host.calls.insert(id, call);
            }
            Output::Persist(attachments) => {
                let vns = host.core.iter().flat_map(|core| core.get().vns()).cloned().collect();
                host.write((attachments, vns), may_die);
            }
            Output::Attached(call, answer) => self.answered(nve, call, answer.map(drop)),
            Output::Detached(call, answer) | Output::Deactivated(call, answer) => {
                self.answered(nve, call, answer);
            }
            // Tenants get no answers here, and nobody reads the log.
            _ => {}
        }
    }

    /// A datagram goes out.
    pub(crate) fn send(&mut self, datagram: Datagram) {
        *self.net.entry(datagram).or_default() += 1;
    }

    /// As agents do with what they are told of: it outlives them.
    pub(crate) fn persist(&mut self, nve: usize) {
        let may_die = self.left.faults > 0;
        if let Some(host) = self.hosts.get_mut(nve)
            && let Some(core) = &host.core
        {
            let disk = (core.get().attachments(), core.get().vns().cloned().collect());
            host.write(disk, may_die);
        }
    }
}
