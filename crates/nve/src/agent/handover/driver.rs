//! The driver's part: what the core wants asked, and what others ask of it.

use super::{
    error::{FetchError, Refusal},
    fetch::Fetching,
    tls::Credentials,
};
use crate::agent::driver::Driver;
use crate::core::{
    Claim, Context, Delta, Fetch, Flows, Handed, Live, Moved, NotTaken, RequestId, Taken, TransferId, newest,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
};
use weft_datapath::{Connection, DatapathError};
use weft_model::{TenantIp, Time, Vni};

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
}

/// A request's number, the context, and what is said after it.
pub(in crate::agent) type Answer = (RequestId, Box<Context>, mpsc::Receiver<Said>);

/// What is said after a context.
pub(in crate::agent) enum Said {
    Stopping,
    Delta(Delta),
    End,
}

/// What came, and in how many octets.
pub(in crate::agent) enum Came {
    Context(Box<Context>, usize),
    Stopping,
    Delta(Delta, usize),
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
    said: mpsc::Sender<Said>,
    /// As they were told last.
    flows: Flows,
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
            Event::Asked(claim, answer) => {
                let answered = self.asked(&claim);
                let request = answered.as_ref().ok().map(|(request, ..)| *request);
                if let (Err(_), Some(request)) = (answer.send(answered), request) {
                    self.left(request);
                }
            }
            Event::Left(request) => self.left(request),
            Event::Came(transfer, came) => self.came(transfer, came),
        }
    }

    fn left(&mut self, request: RequestId) {
        self.handovers.told.remove(&request);
        self.core.handle_context_left(request);
    }

    fn asked(&mut self, claim: &Claim) -> Result<Answer, Refusal> {
        let now = self.clock.now();
        let request = RequestId(self.handovers.next);
        self.handovers.next += 1;
        let mut context = self.core.handle_context_asked(now, request, claim)?;
        let (vni, ips) = (context.grant.tsi.vni, context.grant.ips.clone());
        context.live.connections = self.connections(vni, &ips);
        let mut flows = Flows::default();
        flows.take(now, context.live.connections.iter().copied(), self.handovers.most);
        let (said, hears) = mpsc::channel(SAID);
        self.handovers.told.insert(request, Told { vni, ips, said, flows });
        let Live { connections, groups, addresses } = &context.live;
        tracing::info!(
            tsi = %claim.tsi, to = %claim.to, epoch = %claim.epoch, connections = connections.len(),
            groups = groups.len(), addresses = addresses.len(), "context handed over"
        );
        Ok((request, Box::new(context), hears))
    }

    fn connections(&self, vni: Vni, ips: &BTreeSet<TenantIp>) -> Vec<Connection> {
        match self.plane.connections(vni, ips) {
            Ok(all) => newest(all, self.handovers.most),
            Err(error) => {
                tracing::error!(%error, "cannot read the connections of who moves; they stay behind");
                Vec::new()
            }
        }
    }

    /// Tells another NVE what the core says, and of the connections what has changed.
    pub(in crate::agent) fn hand(&mut self, request: RequestId, handed: Handed) {
        let now = self.clock.now();
        let Some(mut told) = self.handovers.told.remove(&request) else { return };
        // One that is too slow hears no more: its stream breaks off.
        match handed {
            Handed::Delta(live) => {
                if told.said.try_send(Said::Stopping).is_err() {
                    return self.left(request);
                }
                let current = self.connections(told.vni, &told.ips);
                let (connections, ended) = told.flows.changes(now, &current);
                told.flows = Flows::default();
                told.flows.take(now, current, self.handovers.most);
                let delta = Delta { live: Live { connections, ..live }, ended };
                if told.said.try_send(Said::Delta(delta)).is_err() {
                    return self.left(request);
                }
                self.handovers.told.insert(request, told);
            }
            Handed::End => drop(told.said.try_send(Said::End)),
        }
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
        // What is still to be forgotten is not what comes now.
        if self.forgotten.contains_key(&moved.vni) {
            self.forget_connections();
        }
        let mut take = || {
            if moved.afresh {
                self.plane.remove_connections(moved.vni, &moved.of)?;
            }
            self.plane.set_connections(&moved.connections)
        };
        let taken: Result<(), DatapathError> = take();
        if let Err(error) = taken {
            tracing::error!(%error, "the data plane did not take over all connections of who moved here");
        }
    }
}
