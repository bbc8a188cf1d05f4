//! The driver: owns the core and the data plane, feeds the one from everything and makes the other
//! follow.

use super::session::Heard;
use super::{
    NveError,
    clock::Clock,
    devices::{self, Links},
    events,
    handover::{self, Handovers},
    held_back::HeldBack,
    lisp::LispSockets,
    look::Look,
    metrics,
    plane::Plane,
    policy_log,
    programs::{Attaching, Parked},
    requests::{Answer, Asked, Begun, Requests},
    saver::Saver,
    trace::{self, Traces},
    uplinks::Rule,
    vn_calls, watch as follow,
};
use crate::core::{
    Attach, Attached, CallId, Core, Device, Fact, Granted, Refused, SavedPolicies, Unreleased, Update,
};
use std::{collections::BTreeMap, collections::BTreeSet, future::Future, pin::pin, time::Duration};
use tokio::sync::{mpsc, oneshot};
use weft_api::local as api;
use weft_datapath::{IfIndex, Op, Tracked};
use weft_model::{NveName, Rloc, TenantIp, Time, TsiId, TsiName, VnName, VnSpec, Vni};

/// Between two comparisons of what the kernel holds with what it should, and between two parts of one.
pub(super) const RECONCILE: Duration = Duration::from_secs(30);
const NEXT_PART: Duration = Duration::from_millis(5);
/// Datagrams taken from one socket at once.
const DATAGRAMS: usize = 64;
/// Inputs, frames counted one by one, taken between two looks at punts and datagrams.
const INPUTS: usize = 64;
/// Between two snapshots for scrapes.
const PUBLISH: Duration = Duration::from_millis(500);
/// From a change of links until they are listed, and from a list without an uplink until the next.
pub(super) const LIST_SOON: Duration = Duration::from_millis(100);
pub(super) const LIST_AGAIN: Duration = Duration::from_secs(1);
/// How long the tables count as current after a look that found a session up.
const VOUCHED: Duration = Duration::from_secs(3);

/// Everything that happens to the driver, except what it reads itself (punts and datagrams).
pub(super) enum Input {
    Session(usize, Heard),
    Fact(Fact),
    Device(Device),
    DeviceGone(IfIndex),
    /// All devices that may be tenants', and which links there are at all.
    /// Every link there is.
    Links(Vec<devices::Link>),
    /// Some link that is no tenant's.
    LinksChanged,
    Local(LocalCall),
    Granted(CallId, Result<Granted, Refused>),
    Released(CallId, Result<(), Refused>),
    Taken(TsiId, TenantIp, Result<Granted, Refused>),
    /// An Oracle's word on a connection to a VN.
    Connected(Option<CallId>, VnName, Result<VnSpec, Refused>),
    Disconnected(CallId, Result<(), Refused>),
    /// All that an Oracle knows of.
    Connections(Result<BTreeMap<Vni, VnName>, Refused>),
    Addresses(CallId, Result<Granted, Refused>),
    /// A program was attached to a device, or could not be.
    Attached(IfIndex, Result<(), String>),
    /// How full the table of connections is.
    Counted(Tracked),
    /// What other NVEs ask for and say of tenant systems that move.
    Handover(handover::Event),
    /// What is asked of a packet that is traced.
    Trace(trace::Event),
}

impl Input {
    /// How many things it is that happened.
    fn weight(&self) -> usize {
        match self {
            Self::Session(_, Heard::Frames(frames)) => frames.len(),
            _ => 1,
        }
    }
}

/// A call of the local API.
pub(super) enum LocalCall {
    Attach(Attach, oneshot::Sender<Result<Attached, Refused>>),
    Detach(VnName, TsiName, bool, oneshot::Sender<Result<(), Refused>>),
    Activate((VnName, TsiName), Option<Duration>, oneshot::Sender<Result<Attached, Refused>>),
    Deactivate(VnName, TsiName, oneshot::Sender<Result<(), Refused>>),
    Update(Update, oneshot::Sender<Result<Attached, Refused>>),
    Connect(VnName, oneshot::Sender<Result<VnSpec, Refused>>),
    Disconnect(VnName, oneshot::Sender<Result<(), Refused>>),
    Connections(oneshot::Sender<Vec<api::Connection>>),
    /// What happened behind the event of this number.
    Events(Option<u64>, oneshot::Sender<events::Page>),
    /// A request with an id has come,
    Begin(api::RequestId, Asked, oneshot::Sender<Begun>),
    /// and has ended: with what is to be answered again, if it was carried out.
    End(api::RequestId, Option<Answer>),
    Tsis(oneshot::Sender<Vec<api::Tsi>>),
    Mappings(oneshot::Sender<Vec<api::CacheEntry>>),
    Drops(oneshot::Sender<Vec<api::Drop>>),
    /// Multicast groups and who asked for them.
    Groups(oneshot::Sender<Vec<api::Group>>),
    /// Rules of security groups and what each let through.
    Rules(oneshot::Sender<Vec<api::RuleCount>>),
    Counters(oneshot::Sender<BTreeMap<String, u64>>),
    Status(oneshot::Sender<api::Status>),
}

/// A detach under way.
pub(super) struct Detaching {
    pub(super) vn: VnName,
    pub(super) name: TsiName,
    pub(super) device: Option<String>,
    pub(super) answer: oneshot::Sender<Result<(), Refused>>,
}

/// The session with one Oracle, as the driver sees it.
pub(super) struct Link {
    pub(super) addr: String,
    /// Where frames go while it is up.
    pub(super) frames: Option<mpsc::Sender<Vec<u8>>>,
    /// The Oracle has spoken on it.
    pub(super) up: bool,
    /// Why it is down.
    pub(super) error: Option<String>,
}

pub(super) struct Driver {
    pub(super) clock: Clock,
    pub(super) core: Core,
    pub(super) plane: Plane,
    pub(super) links: Links,
    pub(super) sockets: LispSockets,
    pub(super) sessions: Vec<Link>,
    pub(super) client: follow::Clients,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) attaching: BTreeMap<CallId, Attaching>,
    pub(super) parked: Parked,
    pub(super) detaching: BTreeMap<CallId, Detaching>,
    pub(super) activating: BTreeMap<CallId, oneshot::Sender<Result<Attached, Refused>>>,
    pub(super) deactivating: BTreeMap<CallId, oneshot::Sender<Result<(), Refused>>>,
    pub(super) connecting: vn_calls::Connecting,
    pub(super) next_call: u64,
    pub(super) saver: Saver,
    pub(super) policies: Saver<SavedPolicies>,
    /// How full the table of connections was when it was last looked through.
    pub(super) tracked: Tracked,
    pub(super) name: NveName,
    pub(super) xtr_id: weft_model::XtrId,
    pub(super) rlocs: BTreeSet<Rloc>,
    pub(super) shared: metrics::Shared,
    pub(super) heard_facts: bool,
    pub(super) publish_at: Time,
    /// The grants to be given back that were last handed to the disk.
    pub(super) unreleased: Vec<Unreleased>,
    pub(super) reconcile_at: Time,
    pub(super) list_at: Time,
    pub(super) uplinks: Rule,
    pub(super) look: Look,
    pub(super) held_back: HeldBack,
    pub(super) handovers: Handovers,
    /// What hypervisors that follow are told.
    pub(super) events: events::Ring,
    /// What was done for requests with an id.
    pub(super) requests: Requests,
    pub(super) traces: Traces,
}

impl Driver {
    /// Runs until `shutdown` ends.
    pub(super) async fn drive(
        mut self,
        mut queue: mpsc::Receiver<Input>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), NveError> {
        let mut shutdown = pin!(shutdown);
        let mut buffer = vec![0; 65_536];
        loop {
            let due = self.due();
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                punts = self.plane.punts() => {
                    // What an Oracle has said already may be the answer.
                    self.inputs(&mut queue);
                    let now = self.clock.now();
                    for punt in punts.map_err(NveError::file("read", "the punt ring"))? {
                        if !policy_log::tell(&self.core, &punt) {
                            self.core.handle_punt(now, &punt);
                        }
                    }
                }
                steps = self.traces.steps() => {
                    self.traced(steps.map_err(NveError::file("read", "the ring of traces"))?);
                }
                readable = self.sockets.readable() => if let Err(error) = readable {
                    tracing::debug!(%error, "receiving LISP");
                },
                input = queue.recv() => match input {
                    Some(input) => self.input(input),
                    None => return Err(NveError::Ended("every task of the agent")),
                },
                () = tokio::time::sleep_until(self.clock.instant(due)) => {}
            }
            self.datagrams(&mut buffer);
            self.finish(&mut buffer);
            // Whoever floods with punts or datagrams does not keep the rest from its turn.
            self.timers().await;
            self.inputs(&mut queue);
            self.finish(&mut buffer);
        }
        tracing::info!("stopping; tenants keep their connectivity");
        // What was done under an id is known by it when this agent starts again.
        while let Ok(input) = queue.try_recv() {
            if let Input::Local(end @ LocalCall::End(..)) = input {
                self.input(Input::Local(end));
            }
        }
        self.core.policies_changed();
        self.outputs();
        let (attachments, policies) = (self.saver.finish().await, self.policies.finish().await);
        attachments.and(policies)
    }

    /// Takes a turn's inputs.
    fn inputs(&mut self, queue: &mut mpsc::Receiver<Input>) {
        let mut taken = 0;
        while taken < INPUTS {
            let Ok(input) = queue.try_recv() else { break };
            taken += input.weight();
            self.input(input);
        }
    }

    /// Carries out what the core wants done.
    fn finish(&mut self, buffer: &mut [u8]) {
        if self.outputs() {
            self.look(buffer);
        }
    }

    /// When the next timer goes off.
    fn due(&self) -> Time {
        let own = self.publish_at.min(self.reconcile_at).min(self.list_at);
        let own = self.parked.due().map_or(own, |at| at.min(own));
        self.core.poll_timeout().map_or(own, |at| at.min(own))
    }

    /// Does what is due.
    async fn timers(&mut self) {
        let now = self.clock.now();
        // First, while everything the core wants is carried out.
        if self.reconcile_at <= now {
            let (_, last) = self.compare();
            self.reconcile_at = now + if last { RECONCILE } else { NEXT_PART };
        }
        if self.list_at <= now {
            self.list_at = now + RECONCILE;
            let (links, inputs) = (self.links.clone(), self.inputs.clone());
            tokio::spawn(async move {
                if let Some(input) = links.listed().await {
                    let _ = inputs.send(input).await;
                }
            });
        }
        if self.core.poll_timeout().is_some_and(|at| at <= now) {
            self.core.handle_timeout(now);
        }
        self.look_for_programs();
        if self.publish_at <= now {
            self.publish_at = now + PUBLISH;
            self.vouch();
            self.publish().await;
        }
    }

    /// Has the connections counted, off the runtime.
    fn count_connections(&self) {
        let counter = match self.plane.connection_counter() {
            Ok(counter) => counter,
            Err(error) => return tracing::warn!(%error, "cannot count connections"),
        };
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            if let Ok(Ok(tracked)) = tokio::task::spawn_blocking(move || counter.count()).await {
                let _ = inputs.send(Input::Counted(tracked)).await;
            }
        });
    }

    /// Takes the datagrams that are there, some of each socket.
    fn datagrams(&mut self, buffer: &mut [u8]) {
        let Self { sockets, core, clock, .. } = self;
        sockets.take(DATAGRAMS, buffer, |from, octets| core.handle_datagram(clock.now(), from, octets));
    }

    /// After a question to an Oracle.
    fn look(&mut self, buffer: &mut [u8]) {
        let (clock, sockets) = (self.clock, &self.sockets);
        if let Some((n, from)) = self.look.for_answer(|| clock.now(), || sockets.poll(buffer)) {
            let octets = buffer.get(..n).unwrap_or_default();
            self.core.handle_datagram(clock.now(), from, octets);
            self.outputs();
        }
    }

    /// A refusal with the name of the VN, which users know, for its number.
    pub(super) fn named(&self, refused: Refused) -> Refused {
        match &refused {
            Refused::DeviceTaken { device, tsi } => match self.core.vn_name(tsi.vni) {
                Some(vn) => Refused::Oracle {
                    code: "device_taken".to_owned(),
                    message: format!(
                        "{device} is already the VAP of {vn}/{}; detach that first or name another device",
                        tsi.name
                    ),
                },
                None => refused,
            },
            _ => refused,
        }
    }

    pub(super) fn call_id(&mut self) -> CallId {
        self.next_call += 1;
        CallId(self.next_call)
    }

    pub(super) fn ready(&self) -> bool {
        self.current() && self.saver.failed().is_none()
    }

    /// Whether the tables are an Oracle's latest word.
    fn current(&self) -> bool {
        // An Oracle that has spoken: one that refuses us hangs up without a word.
        let spoken = |oracle: &usize| self.sessions.get(*oracle).is_some_and(|link| link.up);
        self.heard_facts
            && (0..self.sessions.len()).filter(spoken).any(|oracle| self.core.session_is_up(oracle))
    }

    /// While a session is up, changes are heard within moments: what the tables say may be relied on.
    fn vouch(&mut self) {
        let lasts = if self.current() { VOUCHED } else { Duration::ZERO };
        if let Err(error) = self.plane.vouch(lasts) {
            tracing::error!(%error, "cannot say how current the tables are");
        }
    }

    /// Puts right what somebody else changed in the kernel, a part at a time, so that what tenant systems wait for does
    /// not wait for that; how much, and whether it was the last part. Read and compared at once: a change of ours in
    /// between would look like somebody else's.
    pub(super) fn compare(&mut self) -> (usize, bool) {
        if self.plane.begins_to_compare() {
            self.mend();
            self.count_connections();
        }
        let part = match self.plane.compare(self.core.tables()) {
            Ok(part) => part,
            Err(error) => {
                tracing::warn!(%error, "cannot read the data plane");
                return (0, true);
            }
        };
        let mut mended = 0;
        for op in part.ops {
            if matches!(&op, Op::SetVap(device, _) if self.plane.is_attaching(*device)) {
                continue;
            }
            tracing::warn!(?op, "the kernel differed from what it should hold; mended");
            mended += 1;
            if let Some(Err(error)) = self.plane.apply_beside(&op, None) {
                tracing::error!(%error, ?op, "the data plane refused a change");
            }
        }
        self.plane.attach(&self.inputs);
        (mended, part.last)
    }
}
