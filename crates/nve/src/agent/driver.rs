//! The driver: owns the core and the data plane, feeds the one from everything and makes the other
//! follow.

use super::session::{Heard, OwnedFrame};
use super::{
    NveError, clock::Clock, lisp::LispSockets, look::Look, metrics, plane::Plane, state, watch as follow,
};
use crate::core::{
    ApiCall, Attach, Attached, CallId, Core, Device, Fact, Granted, Notice, Output, Refused, Session, Ticket,
    TsiState,
};
use std::{
    collections::BTreeMap, collections::BTreeSet, future::Future, path::PathBuf, pin::pin, time::Duration,
};
use tokio::sync::{mpsc, oneshot, watch};
use weft_api::{Client, ClientError, GrantRequest, local as api};
use weft_datapath::{IfIndex, Path, Tables};
use weft_lisp::tcp::Frame;
use weft_model::{Epoch, NveName, Rloc, TenantIp, TsiId, TsiName, VnName};

/// Between two comparisons of what the kernel holds with what it should.
const RECONCILE: Duration = Duration::from_secs(30);
/// Between two snapshots for scrapes.
const PUBLISH: Duration = Duration::from_millis(500);
/// How long the tables count as current after a look that found a session up.
const VOUCHED: Duration = Duration::from_secs(3);

/// Everything that happens to the driver, except what it reads itself (punts and datagrams).
pub(super) enum Input {
    Session(usize, Heard),
    Fact(Fact),
    Device(Device),
    DeviceGone(IfIndex),
    Local(LocalCall),
    Granted(CallId, Result<Granted, Refused>),
    Released(CallId, Result<(), Refused>),
    Taken(TsiId, TenantIp, Result<Granted, Refused>),
    Applied(Ticket, Result<(), String>),
    Observed(Tables),
}

/// A call of the local API.
pub(super) enum LocalCall {
    Attach(Attach, oneshot::Sender<Result<Attached, Refused>>),
    Detach(VnName, TsiName, bool, oneshot::Sender<Result<(), Refused>>),
    Tsis(oneshot::Sender<Vec<api::Tsi>>),
    Mappings(oneshot::Sender<Vec<api::CacheEntry>>),
    Drops(oneshot::Sender<Vec<api::Drop>>),
    Counters(oneshot::Sender<BTreeMap<String, u64>>),
    Status(oneshot::Sender<api::Status>),
}

/// A detach under way.
pub(super) struct Detaching {
    vn: VnName,
    name: TsiName,
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
    pub(super) sockets: LispSockets,
    pub(super) sessions: Vec<Link>,
    pub(super) client: follow::Clients,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) attaching: BTreeMap<CallId, oneshot::Sender<Result<Attached, Refused>>>,
    pub(super) detaching: BTreeMap<CallId, Detaching>,
    pub(super) next_call: u64,
    pub(super) state: PathBuf,
    pub(super) saving: watch::Sender<Option<state::Saved>>,
    pub(super) name: NveName,
    pub(super) xtr_id: weft_model::XtrId,
    pub(super) rlocs: BTreeSet<Rloc>,
    pub(super) shared: metrics::Shared,
    pub(super) heard_facts: bool,
    pub(super) look: Look,
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
        let mut reconcile = tokio::time::interval(RECONCILE);
        let mut publish = tokio::time::interval(PUBLISH);
        reconcile.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        publish.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        reconcile.tick().await;
        loop {
            let due = self.core.poll_timeout().map(|at| self.clock.instant(at));
            let timeout = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                punts = self.plane.punts() => {
                    let now = self.clock.now();
                    for punt in punts.map_err(NveError::file("read", "the punt ring"))? {
                        self.core.handle_punt(now, &punt);
                    }
                }
                datagram = self.sockets.receive(&mut buffer) => match datagram {
                    Ok((n, from)) => {
                        let octets = buffer.get(..n).unwrap_or_default();
                        self.core.handle_datagram(self.clock.now(), from.ip(), octets);
                    }
                    Err(error) => tracing::debug!(%error, "receiving LISP"),
                },
                input = queue.recv() => match input {
                    Some(input) => self.input(input),
                    None => return Err(NveError::Ended("every task of the agent")),
                },
                () = timeout => self.core.handle_timeout(self.clock.now()),
                _ = publish.tick() => {
                    self.vouch();
                    self.publish().await;
                }
                _ = reconcile.tick() => self.reconcile(),
            }
            if self.outputs() {
                self.look(&mut buffer);
            }
        }
        tracing::info!("stopping; tenants keep their connectivity");
        let last = self.saving.borrow().clone();
        if let Some(saved) = last {
            state::save(&self.state, &saved)?;
        }
        Ok(())
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

    fn input(&mut self, input: Input) {
        let now = self.clock.now();
        match input {
            Input::Session(oracle, heard) => self.heard(oracle, heard),
            Input::Fact(fact) => {
                self.heard_facts = true;
                self.core.handle_fact(fact);
                self.persist(None);
            }
            Input::Device(device) => self.core.handle_device(&device),
            Input::DeviceGone(index) => self.core.handle_device_gone(now, index),
            Input::Local(call) => self.local(call),
            Input::Granted(call, answer) => self.core.handle_granted(now, call, answer),
            Input::Released(call, answer) => self.core.handle_released(call, answer),
            Input::Taken(tsi, ip, answer) => self.core.handle_taken(now, &tsi, ip, answer),
            Input::Applied(ticket, result) => self.core.handle_applied(ticket, result),
            Input::Observed(observed) => self.converge(&observed),
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
            Heard::Frame(OwnedFrame { frame_type, id, data }) => {
                // Only now: one that refuses us hangs up without a word.
                if !std::mem::replace(up, true) {
                    tracing::info!(oracle = %addr, "session up");
                    *error = None;
                }
                let frame = Frame { frame_type, id, data: &data };
                self.core.handle_session(now, oracle, Session::Frame(frame));
            }
        }
    }

    /// Carries out everything the core wants done; whether an Oracle was asked something.
    fn outputs(&mut self) -> bool {
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
                Output::Attached(call, result) => {
                    if let Some(answer) = self.attaching.remove(&call) {
                        let _ = answer.send(result.map_err(|refused| self.named(refused)));
                    }
                }
                Output::Detached(call, result) => {
                    if let Some(Detaching { vn, name, answer }) = self.detaching.remove(&call) {
                        if result.is_ok() {
                            tracing::info!(%vn, tsi = %name, "detached");
                        }
                        let _ = answer.send(result);
                    }
                }
                Output::Persist(attachments) => self.persist(Some(attachments)),
                // The Oracle's list may tell of a release before its answer does.
                Output::Notice(Notice::LostGrant(tsi)) if self.is_detaching(&tsi) => {}
                Output::Notice(notice) => log(&notice),
            }
        }
        self.plane.attach(&self.inputs);
        asked
    }

    /// Hands the state to the saver; only a change reaches the disk.
    fn persist(&self, attachments: Option<Vec<crate::core::Attachment>>) {
        let vns = self.core.vns().cloned().collect();
        self.saving.send_if_modified(|saved| {
            let old = saved.take().unwrap_or_default();
            let new =
                state::Saved { attachments: attachments.unwrap_or_else(|| self.core.attachments()), vns };
            let changed = new != old;
            *saved = Some(new);
            changed
        });
    }

    fn call(&self, call: ApiCall) {
        let client = self.client.borrow().clone();
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let input = match call {
                ApiCall::Grant { call, vn, name, mac, ips } => {
                    let (nve, request_id) = (None, None);
                    let request = GrantRequest { vn, tsi: name, mac, ips, nve, activate: true, request_id };
                    Input::Granted(
                        call,
                        client.grant(&request).await.map(granted).map_err(|e| refused(e, GRANTS)),
                    )
                }
                ApiCall::Release { call, vn, tsi } => {
                    Input::Released(call, release(&client, &vn, &tsi).await)
                }
                ApiCall::Take { vn, tsi, ip } => {
                    let taken = client.take_address(&vn, &tsi.name, ip).await;
                    Input::Taken(tsi, ip, taken.map(granted).map_err(|e| refused(e, GRANTS)))
                }
            };
            let _ = inputs.send(input).await;
        });
    }

    fn local(&mut self, call: LocalCall) {
        match call {
            LocalCall::Attach(attach, answer) => {
                let call = self.call_id();
                self.attaching.insert(call, answer);
                self.core.handle_attach(call, attach);
            }
            LocalCall::Detach(vn, name, force, answer) => {
                let call = self.call_id();
                self.detaching.insert(call, Detaching { vn: vn.clone(), name: name.clone(), answer });
                self.core.handle_detach(call, vn, name, force);
            }
            LocalCall::Tsis(answer) => drop(answer.send(self.tsis())),
            LocalCall::Mappings(answer) => drop(answer.send(self.mappings())),
            LocalCall::Drops(answer) => drop(answer.send(self.drops())),
            LocalCall::Counters(answer) => {
                let named = self.core.counters().named().into_iter();
                drop(answer.send(named.map(|(name, count)| (name.to_owned(), count)).collect()));
            }
            LocalCall::Status(answer) => drop(answer.send(self.status())),
        }
    }

    fn is_detaching(&self, tsi: &TsiId) -> bool {
        let vn = self.core.vn_name(tsi.vni);
        self.detaching.values().any(|d| d.name == tsi.name && vn.is_none_or(|vn| d.vn == *vn))
    }

    /// A refusal with the name of the VN, which users know, for its number.
    fn named(&self, refused: Refused) -> Refused {
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

    fn call_id(&mut self) -> CallId {
        self.next_call += 1;
        CallId(self.next_call)
    }

    fn tsis(&self) -> Vec<api::Tsi> {
        let state = |s| match s {
            TsiState::Associated => api::State::Associated,
            TsiState::Activated => api::State::Activated,
        };
        let view = |t: crate::core::TsiView| api::Tsi {
            vn: t.vn,
            tsi: t.grant.tsi.name,
            device: t.device,
            mac: t.grant.mac,
            ips: t.grant.ips,
            vni: t.grant.tsi.vni,
            mtu: t.mtu,
            state: state(t.state),
            epoch: Some(t.grant.epoch),
        };
        self.core.tsis().map(view).collect()
    }

    fn mappings(&self) -> Vec<api::CacheEntry> {
        let now = self.clock.now();
        let view = |entry: crate::core::CacheEntry| {
            let used = entry.mac.and_then(|mac| self.plane.last_used(entry.vni, mac));
            Some(api::CacheEntry {
                vn: self.core.vn_name(entry.vni)?.clone(),
                eid: entry.eid,
                mac: entry.mac,
                rloc: entry.rloc,
                origin: entry.origin,
                epoch: Epoch::new(entry.version.into()),
                age_s: entry.learned.map_or(0, |learned| now.since(learned).as_secs()),
                last_used_s: used.map(|idle| idle.as_secs()),
            })
        };
        self.core.cache().filter_map(view).collect()
    }

    fn drops(&self) -> Vec<api::Drop> {
        let counters = self.plane.counters().unwrap_or_default();
        let drop = |c: weft_datapath::Counter| api::Drop {
            vn: c.vni.and_then(|vni| self.core.vn_name(vni)).cloned(),
            reason: c.reason.as_str().to_owned(),
            path: path_name(c.path).to_owned(),
            packets: c.packets,
            bytes: c.bytes,
        };
        counters.into_iter().map(drop).collect()
    }

    fn status(&self) -> api::Status {
        let oracle = |(index, link): (usize, &Link)| api::OracleStatus {
            addr: link.addr.clone(),
            session: self.core.session_is_up(index),
            error: link.error.clone(),
        };
        api::Status {
            name: self.name.clone(),
            xtr_id: self.xtr_id,
            rlocs: self.rlocs.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            oracles: self.sessions.iter().enumerate().map(oracle).collect(),
            ready: self.ready(),
        }
    }

    fn ready(&self) -> bool {
        self.heard_facts && (0..self.sessions.len()).any(|oracle| self.core.session_is_up(oracle))
    }

    /// While a session is up, changes are heard within moments: what the tables say may be relied on.
    fn vouch(&mut self) {
        let lasts = if self.ready() { VOUCHED } else { Duration::ZERO };
        if let Err(error) = self.plane.vouch(lasts) {
            tracing::error!(%error, "cannot say how current the tables are");
        }
    }

    async fn publish(&self) {
        let packets = self.plane.counters().unwrap_or_default().into_iter();
        let vn = |vni: Option<_>| {
            vni.and_then(|v| self.core.vn_name(v)).map_or_else(String::new, ToString::to_string)
        };
        let snapshot = metrics::Snapshot {
            ready: self.ready(),
            counters: self.core.counters().named(),
            packets: packets
                .map(|c| (vn(c.vni), c.reason.as_str(), path_name(c.path), c.packets, c.bytes))
                .collect(),
            tsis: self.core.tsis().count(),
            cache: self.core.cache().count(),
            sessions: (0..self.sessions.len()).filter(|o| self.core.session_is_up(*o)).count(),
        };
        *self.shared.write().await = snapshot;
    }

    /// Reads what the kernel holds, beside the driver; the comparison comes back as an input.
    fn reconcile(&self) {
        match self.plane.observed() {
            Ok(observed) => drop(self.inputs.try_send(Input::Observed(observed))),
            Err(error) => tracing::warn!(%error, "cannot read the data plane"),
        }
    }

    /// Puts right what somebody else changed in the kernel.
    fn converge(&mut self, observed: &Tables) {
        for op in self.core.tables().diff(observed) {
            tracing::warn!(?op, "the kernel differed from what it should hold; mended");
            if let Err(error) = self.plane.apply(&op) {
                tracing::error!(%error, ?op, "the data plane refused a change");
            }
        }
    }
}

const fn path_name(path: Path) -> &'static str {
    match path {
        Path::Direct => "direct",
        Path::Device => "device",
    }
}

pub(super) fn log(notice: &Notice) {
    match notice {
        Notice::Activated(tsi, epoch) => tracing::info!(%tsi, %epoch, "activated"),
        Notice::LostGrant(tsi) => tracing::warn!(%tsi, "granted elsewhere; deactivated"),
        Notice::DeviceGone(tsi, device) => tracing::warn!(%tsi, %device, "device went away; deactivated"),
        Notice::Rejected(tsi) => tracing::warn!(%tsi, "an Oracle refused the registration"),
        Notice::Released(tsi) => tracing::info!(%tsi, "released: its device stayed away"),
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

const UNREACHABLE: &str = "unreachable";
/// What to know while no Oracle answers.
const GRANTS: &str = "new grants need an Oracle, everything attached goes on";

async fn release(client: &Client, vn: &VnName, tsi: &TsiId) -> Result<(), Refused> {
    match client.release(vn, &tsi.name, false).await {
        Ok(_) => Ok(()),
        // It is gone already: what was wanted.
        Err(ClientError::Api(error)) if error.status == 404 => Ok(()),
        Err(error) => Err(refused(error, "--force lets go at once, and the grant is given back later")),
    }
}

fn granted(reply: weft_api::GrantReply) -> Granted {
    Granted { grant: reply.grant, vn: reply.vn.into(), revision: reply.resource_version }
}

fn refused(error: ClientError, hint: &str) -> Refused {
    match error {
        ClientError::Api(error) => {
            let code = serde_json::to_value(error.code).ok().and_then(|v| v.as_str().map(str::to_owned));
            Refused::Oracle { code: code.unwrap_or_default(), message: error.message }
        }
        other => Refused::Oracle { code: UNREACHABLE.to_owned(), message: format!("{other}; {hint}") },
    }
}
