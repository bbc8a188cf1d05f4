//! The driver's part: what the core wants asked, and what others ask of it.

use super::{
    error::{FetchError, Refusal},
    fetch::Fetching,
    tls::Credentials,
};
use crate::agent::driver::{Driver, Input};
use crate::core::{
    Claim, Context, Delta, Fetch, Flows, Handed, Live, Moved, NotTaken, RequestId, Taken, Taking, TransferId,
    newest,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
};
use weft_datapath::{Connection, ConnectionReader, DatapathError, IfIndex, Levels};
use weft_model::{Grant, TenantIp, Time, Vni};

/// What one that asked may be behind.
const SAID: usize = 8;

/// What happens.
pub(in crate::agent) enum Event {
    /// Another NVE asks, with an Oracle's word.
    Asked(Claim, oneshot::Sender<Result<Answer, Refusal>>),
    /// It does not listen any more.
    Left(RequestId),
    /// Something of what this one has asked for.
    Came(TransferId, Came),
    /// The connections that a request waits for, or why they cannot be had.
    Read(RequestId, Result<Vec<Connection>, String>),
}

/// A request's number, the context, and what is said after it.
pub(in crate::agent) type Answer = (RequestId, Box<Context>, mpsc::Receiver<Said>);

/// What is said after a context.
pub(in crate::agent) enum Said {
    Stopping,
    Delta(Delta),
    Resumed,
    End,
}

/// What came, and in how many octets.
pub(in crate::agent) enum Came {
    Context(Box<Context>, usize),
    Stopping,
    Delta(Delta, usize),
    Resumed,
    /// All, or why not.
    End(Result<(), FetchError>),
}

/// What is under way, both ways.
pub(in crate::agent) struct Handovers {
    pub(in crate::agent) credentials: watch::Receiver<Arc<Credentials>>,
    /// At which other NVEs are asked.
    pub(in crate::agent) port: u16,
    /// Connections handed over of one tenant system.
    pub(in crate::agent) most: usize,
    asked: BTreeMap<TransferId, Asked>,
    told: BTreeMap<RequestId, Told>,
    next: u64,
}

struct Asked {
    fetch: Fetch,
    since: Time,
    task: AbortHandle,
}

struct Told {
    vni: Vni,
    ips: BTreeSet<TenantIp>,
    /// Its device, as long as that is a VAP.
    device: Option<IfIndex>,
    said: mpsc::Sender<Said>,
    /// As they were told last.
    flows: Flows,
    /// What is still to be said, in order.
    jobs: VecDeque<Job>,
    /// The first of them waits for connections, which are being read.
    reading: bool,
}

/// Something that is to be said.
enum Job {
    /// With the connections that these are.
    Context(ConnectionReader, Box<Asking>),
    Delta(ConnectionReader, Box<Live>),
    Stopping,
    Resumed,
    End,
}

/// Who waits for a context, which lacks connections.
struct Asking {
    context: Context,
    hears: mpsc::Receiver<Said>,
    answer: oneshot::Sender<Result<Answer, Refusal>>,
}

impl Handovers {
    /// None under way.
    pub(in crate::agent) fn new(
        credentials: watch::Receiver<Arc<Credentials>>,
        port: u16,
        most: usize,
    ) -> Self {
        Self { credentials, port, most, asked: BTreeMap::new(), told: BTreeMap::new(), next: 0 }
    }
}

impl Driver {
    /// Asks another NVE.
    pub(in crate::agent) fn fetch(&mut self, fetch: Fetch) {
        let since = self.clock.now();
        let fetching = Fetching {
            fetch: fetch.clone(),
            client: self.client.borrow().clone(),
            credentials: self.handovers.credentials.borrow().clone(),
            rlocs: self.rlocs.clone(),
            port: self.handovers.port,
            inputs: self.inputs.clone(),
        };
        let task = tokio::spawn(fetching.run()).abort_handle();
        self.handovers.asked.insert(fetch.transfer, Asked { fetch, since, task });
    }

    /// What comes is not waited for any more.
    pub(in crate::agent) fn end_fetch(&mut self, transfer: TransferId) {
        if let Some(asked) = self.handovers.asked.remove(&transfer) {
            asked.task.abort();
        }
    }

    pub(in crate::agent) fn handover(&mut self, event: Event) {
        match event {
            Event::Asked(claim, answer) => self.asked(&claim, answer),
            Event::Read(request, read) => self.read(request, read),
            Event::Left(request) => self.left(request),
            Event::Came(transfer, came) => self.came(transfer, came),
        }
    }

    fn left(&mut self, request: RequestId) {
        self.handovers.told.remove(&request);
        self.core.handle_context_left(request);
    }

    fn asked(&mut self, claim: &Claim, answer: oneshot::Sender<Result<Answer, Refusal>>) {
        let now = self.clock.now();
        let request = RequestId(self.handovers.next);
        self.handovers.next += 1;
        let mut context = match self.core.handle_context_asked(now, request, claim) {
            Ok(context) => context,
            Err(why) => return drop(answer.send(Err(why.into()))),
        };
        let (vni, ips) = (context.grant.tsi.vni, context.grant.ips.clone());
        let device = self.device_of(&context.grant);
        context.live.levels = self.levels(device);
        let (said, hears) = mpsc::channel(SAID);
        let asking = Box::new(Asking { context, hears, answer });
        let Some(reader) = self.reader(vni, &ips) else { return self.left(request) };
        let jobs = VecDeque::from([Job::Context(reader, asking)]);
        let told = Told { vni, ips, device, said, flows: Flows::default(), jobs, reading: false };
        self.handovers.told.insert(request, told);
        self.go_on(request);
    }

    fn device_of(&self, grant: &Grant) -> Option<IfIndex> {
        let mut vaps = self.core.tables().vaps.iter();
        vaps.find(|(_, vap)| (vap.vni, vap.mac) == (grant.tsi.vni, grant.mac)).map(|(device, _)| *device)
    }

    /// What is left in the buckets of its VAP.
    fn levels(&self, device: Option<IfIndex>) -> Levels {
        let read = device.map_or(Ok(Levels::default()), |device| self.plane.levels(device));
        let log = |error: &_| tracing::error!(%error, "cannot read what is left of the rates of who moves");
        read.inspect_err(log).unwrap_or_default()
    }

    /// What reads the connections there are now.
    fn reader(&self, vni: Vni, ips: &BTreeSet<TenantIp>) -> Option<ConnectionReader> {
        let reader = self.plane.connection_reader(vni, ips);
        let log = |error: &_| tracing::error!(%error, "cannot read the connections of who moves");
        reader.inspect_err(log).ok()
    }

    /// Has read what the next thing to be said needs, if nothing is.
    fn go_on(&mut self, request: RequestId) {
        let Some(told) = self.handovers.told.get_mut(&request).filter(|told| !told.reading) else { return };
        loop {
            let word = match told.jobs.front() {
                Some(Job::Stopping) => Said::Stopping,
                Some(Job::Resumed) => Said::Resumed,
                _ => break,
            };
            told.jobs.pop_front();
            if told.said.try_send(word).is_err() {
                return self.left(request);
            }
        }
        let reader = match told.jobs.front() {
            None | Some(Job::Stopping | Job::Resumed) => return,
            Some(Job::End) => {
                let _ = told.said.try_send(Said::End);
                self.handovers.told.remove(&request);
                return;
            }
            Some(Job::Context(reader, _) | Job::Delta(reader, _)) => reader.clone(),
        };
        told.reading = true;
        let (inputs, most) = (self.inputs.clone(), self.handovers.most);
        tokio::spawn(async move {
            let read = move || reader.read().map(|all| newest(all, most)).map_err(|error| error.to_string());
            let read = tokio::task::spawn_blocking(read).await.unwrap_or_else(|ended| Err(ended.to_string()));
            let _ = inputs.send(Input::Handover(Event::Read(request, read))).await;
        });
    }

    /// The connections that the first thing to be said needs are there.
    fn read(&mut self, request: RequestId, read: Result<Vec<Connection>, String>) {
        // Of one that does not listen any more.
        let Some(mut told) = self.handovers.told.remove(&request) else { return };
        let connections = read.unwrap_or_else(|error| {
            tracing::error!(%error, "cannot read the connections of who moves; they stay behind");
            Vec::new()
        });
        told.reading = false;
        let heard = match told.jobs.pop_front() {
            Some(Job::Context(_, asking)) => self.answer(request, &mut told, *asking, connections),
            Some(Job::Delta(_, live)) => self.say(&mut told, *live, connections),
            Some(Job::Stopping | Job::Resumed | Job::End) | None => true,
        };
        // One that is too slow hears no more: its stream breaks off.
        if !heard {
            return self.left(request);
        }
        self.handovers.told.insert(request, told);
        self.go_on(request);
    }

    /// Whether it was heard.
    fn answer(
        &self,
        request: RequestId,
        told: &mut Told,
        asking: Asking,
        connections: Vec<Connection>,
    ) -> bool {
        let Asking { mut context, hears, answer } = asking;
        told.flows.take(self.clock.now(), connections.iter().copied(), self.handovers.most);
        context.live.connections = connections;
        let Live { connections, groups, addresses, .. } = &context.live;
        tracing::info!(
            tsi = %context.grant.tsi, epoch = %context.epoch, connections = connections.len(),
            groups = groups.len(), addresses = addresses.len(), "context handed over"
        );
        answer.send(Ok((request, Box::new(context), hears))).is_ok()
    }

    /// Likewise.
    fn say(&self, told: &mut Told, live: Live, current: Vec<Connection>) -> bool {
        let now = self.clock.now();
        let (connections, ended) = told.flows.changes(now, &current);
        told.flows = Flows::default();
        told.flows.take(now, current, self.handovers.most);
        let delta = Delta { live: Live { connections, ..live }, ended };
        told.said.try_send(Said::Delta(delta)).is_ok()
    }

    /// Tells another NVE what the core says, and of the connections what has changed.
    pub(in crate::agent) fn hand(&mut self, request: RequestId, handed: Handed) {
        let Some(told) = self.handovers.told.get(&request) else { return };
        let job = match handed {
            Handed::Delta(mut live) => {
                live.levels = self.levels(told.device);
                // As they are now, whatever becomes of who has its addresses next.
                let reader = self.reader(told.vni, &told.ips);
                // At once, but for a word before it that has to wait.
                let waits = told.jobs.iter().any(|job| matches!(job, Job::Resumed));
                let stopping = waits || told.said.try_send(Said::Stopping).is_ok();
                let Some(reader) = reader.filter(|_| stopping) else { return self.left(request) };
                if waits && let Some(told) = self.handovers.told.get_mut(&request) {
                    told.jobs.push_back(Job::Stopping);
                }
                Job::Delta(reader, Box::new(live))
            }
            Handed::Resumed => Job::Resumed,
            Handed::End => Job::End,
        };
        if let Some(told) = self.handovers.told.get_mut(&request) {
            told.jobs.push_back(job);
        }
        self.go_on(request);
    }

    fn came(&mut self, transfer: TransferId, came: Came) {
        let now = self.clock.now();
        // Of one that is not waited for any more.
        let Some(asked) = self.handovers.asked.get(&transfer) else { return };
        let (fetch, ms) = (asked.fetch.clone(), now.since(asked.since).as_millis());
        let (taken, octets, what) = match came {
            Came::Context(context, octets) => {
                (self.core.handle_context(now, transfer, *context), octets, "context taken over")
            }
            Came::Stopping => return self.core.handle_stopping(now, transfer),
            Came::Resumed => return self.core.handle_resumed(now, transfer),
            Came::Delta(delta, octets) => {
                (self.core.handle_delta(now, transfer, delta), octets, "and how it ended")
            }
            Came::End(ended) => {
                if let Err(why) = &ended {
                    let (vn, tsi, from) = (&fetch.vn, &fetch.name, fetch.from);
                    tracing::warn!(%vn, %tsi, %from, %why, "what only the NVE knows that it moves from is not to be had");
                }
                self.handovers.asked.remove(&transfer);
                return self.core.handle_context_end(now, transfer, ended.is_ok());
            }
        };
        match taken {
            Ok(Taken { connections, groups, addresses }) => tracing::info!(
                vn = %fetch.vn, tsi = %fetch.name, from = %fetch.from, connections, groups, addresses, octets, ms,
                "{what}"
            ),
            Err(why) => self.refuse(transfer, &fetch, &why),
        }
    }

    /// What came is of no use, and so is what would come after it.
    fn refuse(&mut self, transfer: TransferId, fetch: &Fetch, why: &NotTaken) {
        tracing::warn!(vn = %fetch.vn, tsi = %fetch.name, from = %fetch.from, %why, "context refused");
        self.end_fetch(transfer);
        self.core.handle_context_end(self.clock.now(), transfer, false);
    }

    /// Takes connections over in the data plane.
    pub(in crate::agent) fn take_over_connections(&mut self, moved: &Moved) {
        let taken: Result<(), DatapathError> = match moved.how {
            Taking::Afresh => self
                .plane
                .end_connections(moved.vni, &moved.of)
                .and_then(|()| self.plane.set_connections(&moved.connections)),
            Taking::Changed => self.plane.change_connections(&moved.connections, &moved.ended),
            Taking::Missing => self.plane.set_connections(&moved.connections),
        };
        if let Err(error) = taken {
            tracing::error!(%error, "the data plane did not take over all connections of who moved here");
        }
    }
}
