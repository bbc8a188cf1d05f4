//! A host: an NVE's core, its disk, its kernel, and what is under way from and to it.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use weft_datapath::{Punt, Tables};
use weft_lisp::tcp::FrameDecoder;
use weft_model::{Grant, Time, VnSpec};
use weft_nve::core::{ApiCall, Attach, Attachment, CallId, Core, Fact, Granted, Output, Refused, Session};

use crate::act::{Datagram, Side};
use crate::names::{red, web};
use crate::part::Part;
use crate::state::State;

/// What an NVE's session brings the Oracle.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Up {
    /// With what the NVE says first, where turns are whole.
    Begin(Vec<u8>),
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

/// What an NVE's core is handed.
#[derive(Clone, Debug, Hash)]
pub(crate) enum Input {
    Attach(CallId, Attach),
    Activate(CallId),
    Deactivate(CallId),
    Detach(CallId),
    /// With the VN Contexts that go with them.
    Grants(u64, Vec<Grant>, Vec<VnSpec>),
    Up,
    Down,
    Frames(Vec<u8>),
    Answer(CallId, Answer),
    Datagram(IpAddr, Vec<u8>),
    Punt(Punt),
    Timeout,
}

/// What comes of that.
pub(crate) struct Worked {
    core: Part<Core>,
    kernel: Part<Tables>,
    /// What is to outlive the agent.
    disk: Part<Disk>,
    outputs: Vec<Output>,
}

/// What an agent that starts makes of its disk and its kernel.
pub(crate) struct Start {
    pub(crate) core: Part<Core>,
    pub(crate) kernel: Part<Tables>,
}

impl Input {
    fn hand(&self, core: &mut Part<Core>, kernel: &mut Part<Tables>, now: Time) -> Vec<Output> {
        let mut outputs = Vec::new();
        core.change(|core| {
            self.say(core, now);
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
        outputs
    }

    fn say(&self, core: &mut Core, now: Time) {
        let web = || (red(), web().name);
        match self.clone() {
            Self::Attach(call, attach) => core.handle_attach(now, call, attach),
            Self::Activate(call) => core.handle_activate(now, call, web(), None),
            Self::Deactivate(call) => core.handle_deactivate(call, web().0, web().1),
            Self::Detach(call) => core.handle_detach(call, web().0, web().1, false),
            Self::Grants(revision, grants, vns) => {
                let unknown = |spec: &VnSpec| core.vns().all(|known| known.vni != spec.vni);
                let unknown: Vec<VnSpec> = vns.into_iter().filter(unknown).collect();
                unknown.into_iter().for_each(|spec| core.handle_fact(Fact::Vn(spec)));
                core.handle_fact(Fact::Grants(revision, grants));
            }
            Self::Up => core.handle_session(now, 0, Session::Up),
            Self::Down => core.handle_session(now, 0, Session::Down),
            Self::Frames(octets) => {
                let mut decoder = FrameDecoder::default();
                decoder.push(&octets);
                while let Ok(Some(frame)) = decoder.next_frame() {
                    core.handle_session(now, 0, Session::Frame(frame));
                }
            }
            Self::Answer(call, Answer::Granted(answer)) => core.handle_granted(now, call, *answer),
            Self::Answer(call, Answer::Released(answer)) => core.handle_released(call, answer),
            Self::Datagram(from, octets) => core.handle_datagram(now, from, &octets),
            Self::Punt(punt) => core.handle_punt(now, &punt),
            Self::Timeout => core.handle_timeout(now),
        }
    }
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
    fn write(&mut self, disk: &Part<Disk>, may_die: bool) {
        if *disk != self.disk || !may_die {
            let old = std::mem::replace(&mut self.disk, disk.clone());
            self.before = if may_die { old } else { disk.clone() };
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
    pub(crate) fn nve(&mut self, nve: usize, input: &Input) {
        let before = self.hosts.get(nve).map_or(0, |host| host.to_oracle.len());
        self.hand(nve, input);
        self.end_turn(nve, before);
    }

    fn hand(&mut self, nve: usize, input: &Input) {
        let (now, known) = (self.now, self.known.clone());
        let Some(host) = self.hosts.get_mut(nve) else { return };
        let Some(core) = &host.core else { return };
        let worked = known.hosts.get(&(core, &host.kernel, now, input), || {
            let (mut core, mut kernel) = (core.clone(), host.kernel.clone());
            let outputs = input.hand(&mut core, &mut kernel, now);
            // What it says last of it; and as agents do with a list of grants, it outlives them in any case.
            let said = outputs.iter().rev().find_map(|output| match output {
                Output::Persist(attachments) => Some(attachments.clone()),
                _ => None,
            });
            let told = matches!(input, Input::Grants(..));
            let attachments = said.filter(|_| !told).unwrap_or_else(|| core.attachments());
            let disk = Part::new((attachments, core.vns().cloned().collect()));
            Worked { core: core.hashed(), kernel: kernel.hashed(), disk: disk.hashed(), outputs }
        });
        host.core = Some(worked.core.clone());
        host.kernel = worked.kernel.clone();
        let disk = &worked.disk;
        worked.outputs.iter().cloned().for_each(|output| self.output(nve, output, disk));
        if matches!(input, Input::Grants(..)) {
            self.persist(nve, disk);
        }
    }

    /// What stands behind the first `before` was said in one turn.
    pub(crate) fn end_turn(&mut self, nve: usize, before: usize) {
        if self.left.turns
            && let Some(host) = self.hosts.get_mut(nve).filter(|host| host.to_oracle.len() > before + 1)
        {
            let said = host.to_oracle.split_off(before);
            let session = said.front().map_or(0, |(session, _)| *session);
            let begins = matches!(said.front(), Some((_, Up::Begin(_))));
            let frames = said.into_iter().filter_map(|(_, up)| match up {
                Up::Begin(octets) | Up::Frames(octets) => Some(octets),
                Up::End => None,
            });
            let all = frames.flatten().collect();
            host.to_oracle.push_back((session, if begins { Up::Begin(all) } else { Up::Frames(all) }));
        }
    }

    fn output(&mut self, nve: usize, output: Output, disk: &Part<Disk>) {
        let (family, may_die) = (self.family, self.left.unsaved > 0);
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
                    ApiCall::Take { .. }
                    | ApiCall::Addresses { .. }
                    | ApiCall::Connections
                    | ApiCall::Connect { .. }
                    | ApiCall::Disconnect { .. } => return,
                };
                host.calls.insert(id, call);
            }
            Output::Persist(_) => host.write(disk, may_die),
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

    /// It outlives the agent.
    fn persist(&mut self, nve: usize, disk: &Part<Disk>) {
        let may_die = self.left.unsaved > 0;
        if let Some(host) = self.hosts.get_mut(nve) {
            host.write(disk, may_die);
        }
    }
}
