//! A traced packet, told to the NVE that it goes to, and what that has seen of it: one question a connection, the answer
//! in two lines.

use super::{
    door::Door,
    error::{FetchError, Refusal},
    fetch::{Lines, ask, connect},
    serve,
    tls::Credentials,
};
use crate::agent::{
    clock,
    driver::Input,
    trace::{EXPECTED, Event, Expected, Seen},
};
use axum::{
    body::{Body, Bytes},
    http::Request,
};
use futures_util::{StreamExt, stream};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, io, sync::Arc};
use tokio::sync::{mpsc, oneshot};
use weft_datapath::TraceId;
use weft_model::{Rloc, XtrId};

/// The version of question and answer.
const VERSION: u32 = 1;

/// The question.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TraceQuestion {
    pub(super) version: u32,
    /// An Oracle's word that who asks has the tenant system.
    pub(super) ticket: String,
    /// The underlay address that the packet will come from.
    pub(super) from: Rloc,
    /// The NVE that has that address and sends the packet on; without, who asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) by: Option<XtrId>,
    /// The underlay address of an NVE that the packet may be sent on to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<Rloc>,
    /// Whether who it is for is to get it.
    pub(super) deliver: bool,
}

/// A line of the answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    /// It may come.
    Ready,
    /// This was seen of it.
    Seen(Seen),
}

impl Line {
    fn octets(&self) -> Bytes {
        let mut octets = serde_json::to_vec(self).unwrap_or_default();
        octets.push(b'\n');
        octets.into()
    }

    fn read(octets: &[u8]) -> Result<Self, FetchError> {
        serde_json::from_slice(octets).map_err(|e| FetchError::Malformed(e.to_string().replace('\n', " ")))
    }
}

/// Answers who announces a packet.
pub(super) async fn hand(door: &Arc<Door>, peer: XtrId, request: Request<Incoming>) -> Result<Body, Refusal> {
    let question = TraceQuestion::read(&serve::body(door, request).await?)?;
    let ticket = door.tickets.accept_trace(&question.ticket, peer, clock::date())?;
    let id = TraceId::new(ticket.trace).ok_or(Refusal::NoTrace(ticket.trace))?;
    let TraceQuestion { from, by, next, deliver, .. } = question;
    let expected = Expected { tsi: ticket.tsi, id, nve: by.unwrap_or(peer), from, next, deliver };
    let (answer, wait) = oneshot::channel();
    let told = door.inputs.send(Input::Trace(Event::Expect(expected, answer))).await;
    told.map_err(|_| Refusal::Stopping)?;
    let mut seen = wait.await.map_err(|_| Refusal::Stopping)??;
    let (lines, body) = mpsc::channel(2);
    let inputs = door.inputs.clone();
    tokio::spawn(async move {
        let _ = lines.send(Line::Ready.octets()).await;
        tokio::select! {
            // Who has asked is gone.
            () = lines.closed() => {}
            () = tokio::time::sleep(EXPECTED) => {}
            seen = &mut seen => {
                if let Ok(seen) = seen {
                    let _ = lines.send(Line::Seen(seen).octets()).await;
                }
                return;
            }
        }
        let _ = inputs.send(Input::Trace(Event::End(id))).await;
        if let Ok(seen) = seen.await {
            let _ = lines.send(Line::Seen(seen).octets()).await;
        }
    });
    let body = stream::unfold(body, |mut body| async { Some((body.recv().await?, body)) });
    Ok(Body::from_stream(body.map(Ok::<Bytes, io::Error>)))
}

impl TraceQuestion {
    pub(super) fn read(octets: &[u8]) -> Result<Self, Refusal> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        if let Ok(Version { version }) = serde_json::from_slice(octets)
            && version != VERSION
        {
            return Err(Refusal::TraceVersion { theirs: version, ours: VERSION });
        }
        serde_json::from_slice(octets).map_err(|e| Refusal::Body(e.to_string()))
    }
}

/// A packet to be announced.
pub(in crate::agent) struct Announce<'a> {
    pub(in crate::agent) credentials: &'a Credentials,
    /// This NVE's underlay addresses.
    pub(in crate::agent) own: &'a BTreeSet<Rloc>,
    /// The one that is told, and its addresses.
    pub(in crate::agent) nve: XtrId,
    pub(in crate::agent) rlocs: &'a BTreeSet<Rloc>,
    pub(in crate::agent) port: u16,
    pub(in crate::agent) ticket: String,
    /// The address that the packet will come from, whose that is unless this NVE's, and where it may go on to.
    pub(in crate::agent) from: Rloc,
    pub(in crate::agent) by: Option<XtrId>,
    pub(in crate::agent) next: Option<Rloc>,
    pub(in crate::agent) deliver: bool,
}

impl Announce<'_> {
    /// Tells it; once that knows, the packet may be sent.
    pub(in crate::agent) async fn tell(self) -> Result<Followed, FetchError> {
        let stream = connect(self.credentials, self.own, self.nve, self.rlocs, self.port).await?;
        let Self { nve, ticket, from, by, next, deliver, .. } = self;
        let question = TraceQuestion { version: VERSION, ticket, from, by, next, deliver };
        let question = serde_json::to_vec(&question).unwrap_or_default();
        let mut lines = ask(stream, nve, "/v1/trace", question).await?;
        match Line::read(&lines.next().await?)? {
            Line::Ready => Ok(Followed(lines)),
            Line::Seen(_) => Err(FetchError::Malformed("it has seen the packet before it came".to_owned())),
        }
    }
}

/// An NVE that a packet goes to.
pub(in crate::agent) struct Followed(Lines);

impl Followed {
    /// What it has seen.
    pub(in crate::agent) async fn seen(mut self) -> Result<Seen, FetchError> {
        match Line::read(&self.0.next().await?)? {
            Line::Seen(seen) => Ok(seen),
            Line::Ready => Err(FetchError::Malformed("it is ready twice".to_owned())),
        }
    }
}
