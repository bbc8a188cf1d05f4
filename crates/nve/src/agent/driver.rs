//! The driver: owns the core and the data plane, feeds the one from everything and makes the other
//! follow.

use super::session::Heard;
use super::{
    NveError, calls,
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
    state,
    trace::{self, Traces},
    uplinks::Rule,
    vn_calls, watch as follow,
};
use crate::core::{
    ApiCall, Attach, Attached, CallId, Core, Device, Fact, Granted, Notice, Output, Refused, SavedPolicies,
    Session, Update,
};
use std::{collections::BTreeMap, collections::BTreeSet, future::Future, pin::pin, time::Duration};
use tokio::sync::{mpsc, oneshot};
use weft_api::local as api;
use weft_datapath::{IfIndex, Op, Tracked};
use weft_model::{NveName, Rloc, TenantIp, Time, TsiId, TsiName, VnName, VnSpec};

/// Between two comparisons of what the kernel holds with what it should.
pub(super) const RECONCILE: Duration = Duration::from_secs(30);
/// Datagrams taken from one socket at once.
const DATAGRAMS: usize = 64;
/// Inputs, frames counted one by one, taken between two looks at punts and datagrams.
const INPUTS: usize = 64;
/// Between two snapshots for scrapes.
const PUBLISH: Duration = Duration::from_millis(500);
/// From a change of links until they are listed, and from a list without an uplink until the next.
const LIST_SOON: Duration = Duration::from_millis(100);
const LIST_AGAIN: Duration = Duration::from_secs(1);
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
    vn: VnName,
    name: TsiName,
    device: Option<String>,
    answer: oneshot::Sender<Result<(), Refused>>,
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
            self.reconcile_at = now + RECONCILE;
            self.reconcile();
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

    pub(super) fn input(&mut self, input: Input) {
        let now = self.clock.now();
        match input {
            Input::Session(oracle, heard) => self.heard(oracle, heard),
            Input::Fact(fact) => {
                self.heard_facts = true;
                self.core.handle_fact(fact);
                self.persist(None);
            }
            Input::Device(device) => self.device(device),
            Input::Links(all) => self.links(&all),
            Input::LinksChanged => self.list_soon(),
            Input::DeviceGone(index) if self.plane.is_vxlan(index) => self.mend(),
            Input::DeviceGone(index) if self.core.uplinks().contains(&index) => self.list_soon(),
            Input::DeviceGone(index) => self.device_gone(index),
            Input::Local(call) => self.local(call),
            Input::Counted(tracked) => self.tracked = tracked,
            Input::Granted(call, answer) => self.granted(call, answer),
            Input::Released(call, answer) => self.core.handle_released(call, answer),
            Input::Connected(call, vn, answer) => self.core.handle_connected(now, call, &vn, answer),
            Input::Disconnected(call, answer) => self.core.handle_disconnected(call, answer),
            Input::Taken(tsi, ip, answer) => self.core.handle_taken(now, &tsi, ip, answer),
            Input::Addresses(call, answer) => self.core.handle_addresses(now, call, answer),
            Input::Attached(device, result) => self.attached(device, result),
            Input::Handover(event) => self.handover(event),
            Input::Trace(event) => self.trace(event),
        }
    }

    /// Without the VXLAN device there is no device path and the direct one finds no routes.
    fn mend(&mut self) {
        match self.plane.mend() {
            Ok(false) => {}
            Ok(true) => tracing::warn!("the VXLAN device was not as it should be; mended"),
            Err(error) => tracing::error!(%error, "cannot mend the VXLAN device"),
        }
    }

    /// Has the links listed, once for changes that come together.
    fn list_soon(&mut self) {
        self.list_at = self.list_at.min(self.clock.now() + LIST_SOON);
    }

    /// Makes good for changes of links that were not heard of, and follows uplinks that are made anew.
    fn links(&mut self, all: &[devices::Link]) {
        match self.uplinks.find(all) {
            Ok(found) => self.core.handle_uplinks(found.iter().map(|link| link.index).collect()),
            Err(error) => {
                tracing::warn!(%error, "an uplink is missing: nothing arrives over it");
                self.list_at = self.list_at.min(self.clock.now() + LIST_AGAIN);
            }
        }
        let there: BTreeSet<IfIndex> = all.iter().map(|link| link.index).collect();
        for device in all.iter().filter_map(devices::Link::device) {
            self.device(device);
        }
        for index in self.core.vap_devices().filter(|index| !there.contains(index)) {
            // It may be younger than the list.
            let (links, inputs) = (self.links.clone(), self.inputs.clone());
            tokio::spawn(async move {
                if links.is_gone(index).await {
                    let _ = inputs.send(Input::DeviceGone(index)).await;
                }
            });
        }
    }

    fn heard(&mut self, oracle: usize, heard: Heard) {
        let now = self.clock.now();
        let Some(Link { addr, frames, up, error }) = self.sessions.get_mut(oracle) else { return };
        match heard {
            Heard::Up(sender) => {
                *frames = Some(sender);
                self.core.handle_session(now, oracle, Session::Up);
            }
            Heard::Down(why) => {
                *frames = None;
                // Each reason once, not once an attempt.
                if std::mem::take(up) || error.as_ref() != Some(&why) {
                    tracing::warn!(oracle = %addr, %why, "session down; known destinations keep working");
                }
                *error = Some(why);
                self.core.handle_session(now, oracle, Session::Down);
            }
            Heard::Frames(frames) => {
                // Only now: one that refuses us hangs up without a word.
                if !std::mem::replace(up, true) {
                    tracing::info!(oracle = %addr, "session up");
                    *error = None;
                }
                for frame in frames.iter() {
                    self.core.handle_session(now, oracle, Session::Frame(frame));
                }
            }
        }
    }

    /// Carries out everything the core wants done; whether an Oracle was asked something.
    pub(super) fn outputs(&mut self) -> bool {
        let mut asked = false;
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Apply(op, ticket) => {
                    let done = self.plane.apply_beside(&op, ticket);
                    if let Some(result) = done {
                        match (ticket, result) {
                            (Some(ticket), result) => {
                                self.core.handle_applied(ticket, result.map_err(|e| e.to_string()));
                            }
                            (None, Err(error)) => {
                                tracing::error!(%error, ?op, "the data plane refused a change");
                            }
                            (None, Ok(())) => {}
                        }
                    }
                }
                Output::Inject(vap, frame) => {
                    if let Err(error) = self.plane.inject(vap, &frame) {
                        tracing::debug!(%error, vap = vap.0, "cannot answer a tenant");
                    }
                }
                Output::Datagram { to, octets } => match self.sockets.send(to, &octets) {
                    Ok(()) => asked = true,
                    Err(error) => {
                        tracing::debug!(%error, %to, "cannot send a Map-Request; trying again");
                    }
                },
                Output::Resend(vap, frame) => {
                    if let Err(error) = self.plane.resend(vap, &frame) {
                        tracing::debug!(%error, vap = vap.0, "a frame that had to wait is lost");
                    }
                }
                Output::Carry(vni, from, frame) => {
                    if let Err(error) = self.plane.carry(vni, from, &frame) {
                        tracing::debug!(%error, %vni, %from, "a frame that had to wait here is lost");
                    }
                }
                Output::LastUse { vni, eid, mac } => {
                    let idle = self.plane.last_used(vni, mac);
                    self.core.handle_last_use(self.clock.now(), vni, eid, idle);
                }
                Output::Answer { to, octets } => {
                    if let Err(error) = self.sockets.send(to, &octets) {
                        tracing::debug!(%error, %to, "cannot send a Map-Reply");
                    }
                }
                Output::Frame { oracle, octets } => {
                    if let Some(Link { addr, frames, .. }) = self.sessions.get_mut(oracle)
                        && let Some(sender) = frames
                        && sender.try_send(octets).is_err()
                    {
                        tracing::warn!(oracle = %addr, "the session is stuck; cutting it");
                        *frames = None;
                    }
                }
                Output::Call(call) => self.call(call),
                Output::Attached(call, result) => self.answer_attach(call, result),
                Output::Detached(call, result) => {
                    if let Some(detaching) = self.detaching.remove(&call) {
                        self.detached(detaching, result);
                    }
                }
                Output::Deactivated(call, result) => {
                    if let Some(answer) = self.deactivating.remove(&call) {
                        let _ = answer.send(result.map_err(|refused| self.named(refused)));
                    }
                }
                Output::Connected(call, result) => self.connecting.connected(call, result),
                Output::Disconnected(call, result) => self.connecting.disconnected(call, result),
                Output::VnDisconnected(vn) => self.vn_disconnected(vn),
                Output::Fetch(fetch) => self.fetch(fetch),
                Output::EndFetch(transfer) => self.end_fetch(transfer),
                Output::Hand(request, handed) => self.hand(request, handed),
                Output::Connections(moved) => self.take_over_connections(&moved),
                Output::Lower(device, levels, ago) => {
                    if let Err(error) = self.plane.lower(device, levels, ago) {
                        tracing::error!(%error, vap = device.0, "who moved here may send more than its rate");
                    }
                }
                Output::Persist(attachments) => self.persist(Some(attachments)),
                Output::ForgetConnections(vni, ips) => {
                    if let Err(error) = self.plane.end_connections(vni, &ips) {
                        tracing::error!(%error, %vni, "connections of who is gone stay until they end");
                    }
                }
                Output::PersistPolicies(saved) => self.policies.save(saved),
                Output::ClearRule(rule) => {
                    if let Err(error) = self.plane.clear_rule(rule) {
                        tracing::warn!(%error, rule, "a rule counts what another one let through before");
                    }
                }
                // The Oracle's list may tell of a release before its answer does.
                Output::Notice(Notice::LostGrant(tsi)) if self.is_detaching(&tsi) => {}
                Output::Notice(notice) => log(&notice),
                Output::Event(event) => {
                    let now = event.now.clone().map(|now| self.tsi(now));
                    self.events.push(events::view(&self.core, event, now));
                }
            }
        }
        self.plane.attach(&self.inputs);
        asked
    }

    /// Hands the state to the saver; only a change reaches the disk.
    fn persist(&self, attachments: Option<Vec<crate::core::Attachment>>) {
        let attachments = attachments.unwrap_or_else(|| self.core.attachments());
        let (vns, requests) = (self.core.vns().cloned().collect(), self.requests.saved());
        let connected = self.core.vn_connections().clone();
        self.saver.save(state::Saved { attachments, vns, connected, requests });
    }

    fn call(&mut self, call: ApiCall) {
        if let ApiCall::Grant { call, .. } = &call
            && let Some(reason) = self.saver.failed()
        {
            self.core.handle_granted(self.clock.now(), *call, Err(Refused::NotSaved { reason }));
            return;
        }
        if let ApiCall::Grant { call, .. } = &call {
            self.begin(*call);
        }
        let client = self.client.borrow().clone();
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let input = calls::make(&client, call).await;
            let _ = inputs.send(input).await;
        });
    }

    fn local(&mut self, call: LocalCall) {
        match call {
            LocalCall::Attach(attach, answer) => {
                let call = self.call_id();
                let device = attach.device.index;
                self.attaching.insert(call, Attaching { device, answer, begun: false });
                self.core.handle_attach(self.clock.now(), call, attach);
            }
            LocalCall::Detach(vn, name, force, answer) => {
                let call = self.call_id();
                let device = self.core.device_of(&vn, &name).map(|device| device.name.clone());
                let detaching = Detaching { vn: vn.clone(), name: name.clone(), device, answer };
                self.detaching.insert(call, detaching);
                self.core.handle_detach(call, vn, name, force);
            }
            LocalCall::Activate(which, lease, answer) => {
                let call = self.call_id();
                self.activating.insert(call, answer);
                self.core.handle_activate(self.clock.now(), call, which, lease);
            }
            LocalCall::Deactivate(vn, name, answer) => {
                let call = self.call_id();
                self.deactivating.insert(call, answer);
                self.core.handle_deactivate(call, vn, name);
            }
            LocalCall::Connect(vn, answer) => self.connect(vn, answer),
            LocalCall::Disconnect(vn, answer) => self.disconnect(vn, answer),
            LocalCall::Connections(answer) => drop(answer.send(self.connected_vns())),
            LocalCall::Update(update, answer) => self.update(update, answer),
            LocalCall::Events(after, answer) => drop(answer.send(self.events.page(after))),
            LocalCall::Begin(id, asked, answer) => drop(answer.send(self.requests.begin(id, asked))),
            LocalCall::End(id, answer) => {
                if self.requests.end(id, answer) {
                    self.persist(None);
                }
            }
            LocalCall::Tsis(answer) => drop(answer.send(self.tsis())),
            LocalCall::Mappings(answer) => drop(answer.send(self.mappings())),
            LocalCall::Drops(answer) => drop(answer.send(self.drops())),
            LocalCall::Rules(answer) => drop(answer.send(self.rules())),
            LocalCall::Groups(answer) => drop(answer.send(self.groups())),
            LocalCall::Counters(answer) => {
                let named = self.core.counters().named().into_iter();
                drop(answer.send(named.map(|(name, count)| (name.to_owned(), count)).collect()));
            }
            LocalCall::Status(answer) => drop(answer.send(self.status())),
        }
    }

    /// Answers a detach. The tenant system is nobody's now: its device goes down first, or it would be
    /// left to talk to the host itself.
    fn detached(&self, detaching: Detaching, result: Result<(), Refused>) {
        let Detaching { vn, name, device, answer } = detaching;
        if result.is_ok() {
            tracing::info!(%vn, tsi = %name, "detached");
        }
        let links = self.links.clone();
        tokio::spawn(async move {
            if result.is_ok()
                && let Some(device) = device
                && let Some(link) = links.by_name(&device).await
                && let Err(error) = links.set(link.index, false).await
            {
                tracing::warn!(%error, %device, "cannot set down; what is behind it reaches this host");
            }
            let _ = answer.send(result);
        });
    }

    fn is_detaching(&self, tsi: &TsiId) -> bool {
        let vn = self.core.vn_name(tsi.vni);
        self.detaching.values().any(|d| d.name == tsi.name && vn.is_none_or(|vn| d.vn == *vn))
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

    /// Puts right what somebody else changed in the kernel; gives how much. Read and compared at once: a
    /// change of ours in between would look like somebody else's.
    pub(super) fn reconcile(&mut self) -> usize {
        self.mend();
        self.count_connections();
        let observed = match self.plane.observed() {
            Ok(observed) => observed,
            Err(error) => {
                tracing::warn!(%error, "cannot read the data plane");
                return 0;
            }
        };
        let mut mended = 0;
        for op in self.core.tables().diff(&observed) {
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
        mended
    }
}

pub(super) fn log(notice: &Notice) {
    match notice {
        Notice::Associated(tsi) => tracing::info!(%tsi, "associated"),
        Notice::Woken(tsi) => tracing::info!(%tsi, "its first frame is here; activating it"),
        Notice::Deactivated(tsi) => tracing::info!(%tsi, "deactivated: the hypervisor said so"),
        Notice::Activated(tsi, epoch) => tracing::info!(%tsi, %epoch, "activated"),
        Notice::LostGrant(tsi) => tracing::warn!(%tsi, "granted elsewhere; deactivated"),
        Notice::DeviceGone(tsi, device) => tracing::warn!(%tsi, %device, "device went away; deactivated"),
        Notice::Rejected(tsi) => tracing::warn!(%tsi, "an Oracle refused the registration"),
        Notice::LeaseExpired(tsi) => tracing::warn!(%tsi, "released: nobody renewed its lease"),
        Notice::Released(tsi) => tracing::info!(%tsi, "released: its device stayed away"),
        Notice::Closed(tsi, why) => tracing::warn!(%tsi, %why, "kept out of service"),
        Notice::ClaimRefused(tsi, ip, why) => tracing::warn!(%tsi, %ip, %why, "link-local claim refused"),
        Notice::Version { oracle, theirs, ours } => {
            tracing::error!(
                oracle,
                theirs,
                ours,
                "the Oracle's session version is too far from ours; update one of them"
            );
        }
        Notice::Datapath(reason) => tracing::error!(%reason, "the data plane refused a change"),
    }
}
