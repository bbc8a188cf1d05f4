//! A trace from its beginning to its end: `POST /v1/traces`.

use super::{
    driver::{Address, Event, Look, Remote, Sending},
    frame::Packet,
    seen::Seen,
};
use crate::agent::{
    driver::Input,
    handover::{Announce, FetchError, Followed},
    local::Refusal,
};
use std::time::Duration;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, sleep_until, timeout},
};
use weft_api::{Code, TraceRequest, TraceResult, TraceStep, TraceView, local::CacheEntry};
use weft_datapath::TraceId;
use weft_model::Rloc;

/// How long an Oracle is waited for, and between two looks.
const RESOLVED: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long a packet may take here, and then until the other NVE has said what it has seen.
const HERE: Duration = Duration::from_secs(1);
const THERE: Duration = Duration::from_secs(2);
/// How often the packet is sent while it leaves for another NVE than the one that was told.
const TRIES: usize = 3;

/// Traces a packet.
pub(in crate::agent) async fn run(
    inputs: &mpsc::Sender<Input>,
    request: TraceRequest,
) -> Result<TraceView, Refusal> {
    let mut look = resolved(inputs, &request).await?;
    let steps = vec![frame_step(&request, &look), address_step(&request, &look)];
    if matches!(look.address, Address::Nobody | Address::Asked) && look.activated {
        let nobody = look.address == Address::Nobody;
        let result = if nobody { TraceResult::Dropped } else { TraceResult::Unknown };
        let reason = nobody.then(|| "nobody".to_owned());
        return Ok(TraceView { result, reason, nve: Some(look.own), steps });
    }
    let mut turn = 1;
    loop {
        let frame = framed(&request, &look)?;
        let announced = match &look.remote {
            Some(remote) => Some((remote.clone(), announce(&request, &look, remote).await)),
            None => None,
        };
        let (id, to, followed, failed) = match announced {
            Some((remote, Ok((id, followed)))) => (id, Some(remote.rloc), Some((remote, followed)), None),
            Some((remote, Err(why))) => (random()?, None, None, Some((remote, why))),
            None => (random()?, None, None, None),
        };
        let sending = Sending { id, vni: look.vni, device: look.device, to, deliver: request.deliver, frame };
        let seen = sent(inputs, sending).await?;
        // It leaves for another NVE than was thought: that one is told, and another packet sent.
        if let Some(rloc) = seen.stopped_before
            && to != Some(rloc)
            && turn < TRIES
            && failed.as_ref().is_none_or(|(remote, _)| remote.rloc != rloc)
        {
            look = look_at(inputs, &request, Some(rloc)).await?;
            turn += 1;
            if look.remote.is_some() {
                continue;
            }
        }
        return Ok(composed(look, steps, seen, followed, failed).await);
    }
}

/// The whole of it, with what the other NVE says.
async fn composed(
    look: Box<Look>,
    mut steps: Vec<TraceStep>,
    seen: Seen,
    followed: Option<(Remote, Followed)>,
    failed: Option<(Remote, String)>,
) -> TraceView {
    let own = look.own;
    let step = |step: &str, text: String| TraceStep {
        nve: Some(own.clone()),
        step: step.to_owned(),
        text,
        ..TraceStep::default()
    };
    steps.push(TraceStep {
        device: Some(look.device_name.clone()),
        ..step("vap", format!("{}, VNI {}", look.device_name, look.vni))
    });
    let Seen { steps: here, result, reason, left, .. } = seen;
    steps.extend(here);
    if let Some((remote, why)) = &failed {
        steps.push(step("announce", format!("{} cannot be told of it: {why}", remote.name)));
    }
    let mut end = (result, reason, own.clone());
    if let Some((remote, followed)) = followed.filter(|_| left) {
        match timeout(THERE, followed.seen()).await {
            Ok(Ok(seen)) => {
                let Seen { steps: there, result, reason, .. } = seen.of(&remote.name);
                if there.is_empty() {
                    steps.push(step("announce", format!("{} was told, and has not seen it", remote.name)));
                }
                steps.extend(there);
                end = (result, reason, remote.name);
            }
            Ok(Err(why)) => {
                steps.push(step("announce", format!("{} does not say what it has seen: {why}", remote.name)));
            }
            Err(_) => {
                let text = format!(
                    "{} was told, and has not seen it within {THERE:?}: it is lost between",
                    remote.name
                );
                steps.push(step("announce", text));
            }
        }
    }
    let (result, reason, nve) = end;
    TraceView { result, reason, nve: Some(nve), steps }
}

async fn ask<T>(
    inputs: &mpsc::Sender<Input>,
    event: impl FnOnce(oneshot::Sender<Result<T, Refusal>>) -> Event,
) -> Result<T, Refusal> {
    let gone = || Refusal::of(Code::NotReady, "the NVE is stopping; try again once it is back".to_owned());
    let (answer, wait) = oneshot::channel();
    inputs.send(Input::Trace(event(answer))).await.map_err(|_| gone())?;
    wait.await.map_err(|_| gone())?
}

async fn look_at(
    inputs: &mpsc::Sender<Input>,
    request: &TraceRequest,
    towards: Option<Rloc>,
) -> Result<Box<Look>, Refusal> {
    ask(inputs, |answer| Event::Look(Box::new(request.clone()), towards, answer)).await
}

/// Looks until it is known where the address is, or that it is nowhere, or no answer has come.
async fn resolved(inputs: &mpsc::Sender<Input>, request: &TraceRequest) -> Result<Box<Look>, Refusal> {
    let until = Instant::now() + RESOLVED;
    loop {
        let look = look_at(inputs, request, None).await?;
        // What cannot be sent is refused before anybody is waited for.
        let _ = framed(request, &look)?;
        if look.address != Address::Asked || Instant::now() >= until {
            return Ok(look);
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Has another NVE know of a packet.
async fn announce(
    request: &TraceRequest,
    look: &Look,
    remote: &Remote,
) -> Result<(TraceId, Followed), String> {
    let reply = look.client.trace_ticket(&request.vn, &request.from, remote.name.clone()).await;
    let reply = reply.map_err(|e| format!("no Oracle gives its word for it: {e}"))?;
    let id = TraceId::new(reply.trace).ok_or_else(|| format!("{} is no trace's id", reply.trace))?;
    let same = |rloc: &&Rloc| rloc.get().is_ipv4() == remote.rloc.get().is_ipv4();
    let from = look.rlocs.iter().find(same).ok_or_else(|| FetchError::NoWay(remote.nve).to_string())?;
    let announce = Announce {
        credentials: &look.credentials,
        own: &look.rlocs,
        nve: remote.nve,
        rlocs: &remote.rlocs,
        port: look.port,
        ticket: reply.ticket,
        from: *from,
        deliver: request.deliver,
    };
    announce.tell().await.map(|followed| (id, followed)).map_err(|e| e.to_string())
}

/// Sends it, and waits for what is seen of it here.
async fn sent(inputs: &mpsc::Sender<Input>, sending: Sending) -> Result<Seen, Refusal> {
    let id = sending.id;
    let mut seen = ask(inputs, |answer| Event::Send(sending, answer)).await?;
    let until = Instant::now() + HERE;
    let gone = |_| Refusal::of(Code::NotReady, "the NVE is stopping; try again once it is back".to_owned());
    tokio::select! {
        seen = &mut seen => return seen.map_err(gone),
        () = sleep_until(until) => {}
    }
    let _ = inputs.send(Input::Trace(Event::End(id))).await;
    seen.await.map_err(gone)
}

fn random() -> Result<TraceId, Refusal> {
    let random = getrandom::u64().map_err(|e| Refusal::of(Code::Internal, format!("no randomness: {e}")));
    random.map(TraceId::of)
}

/// A packet of its own connection.
fn framed(request: &TraceRequest, look: &Look) -> Result<Vec<u8>, Refusal> {
    // Of the ephemeral ones.
    let number = u16::try_from(random()?.get() % 16_384).unwrap_or(0) | 0xc000;
    let (macs, ips) = (look.macs, look.ips);
    let packet = Packet { macs, ips, probe: request.probe, number, size: request.size };
    packet.frame().map_err(|e| Refusal::of(Code::BadRequest, e.to_string()))
}

fn frame_step(request: &TraceRequest, look: &Look) -> TraceStep {
    let (from, to) = look.ips;
    let size = request.size.map_or_else(String::new, |size| format!(", {size} octets"));
    let deliver = if request.deliver { "to be delivered" } else { "not to be delivered" };
    let text = format!("{} from {from} to {to}{size}, {deliver}", request.probe);
    TraceStep { nve: Some(look.own.clone()), step: "frame".to_owned(), text, ..TraceStep::default() }
}

/// How it is known whose the address is.
fn address_step(request: &TraceRequest, look: &Look) -> TraceStep {
    let (to, (_, mac)) = (request.to, look.macs);
    let text = match look.address {
        Address::Known => {
            let how = look.mapping.as_ref().map_or_else(|| "heard from frames".to_owned(), provenance);
            format!("{to} has {mac}: {how}")
        }
        Address::Here => format!("{to} has {mac}: it is attached here"),
        Address::Given if request.to_mac.is_some() => format!("to {mac}, as given"),
        Address::Given => "not looked for: the VAP is not Activated".to_owned(),
        Address::Nobody => format!("nobody in '{}' has {to}, an Oracle says", request.vn),
        Address::Asked => format!("no Oracle has said within {RESOLVED:?} where {to} is"),
    };
    let step =
        TraceStep { nve: Some(look.own.clone()), step: "address".to_owned(), text, ..TraceStep::default() };
    TraceStep {
        mapping: look.mapping.clone().filter(|_| look.address == Address::Known),
        reason: (look.address == Address::Nobody).then(|| "nobody".to_owned()),
        ..step
    }
}

/// Where an entry comes from.
pub(super) fn provenance(entry: &CacheEntry) -> String {
    let origin = serde_json::to_value(entry.origin).ok();
    let origin = origin.as_ref().and_then(|origin| origin.as_str()).unwrap_or("unknown");
    let owner = entry.nve.as_ref().map_or_else(String::new, |nve| format!(", NVE {nve}"));
    let sequence = entry.epoch.map_or_else(String::new, |epoch| format!(", epoch {epoch}"));
    format!("origin {origin}{owner}{sequence}, {} s old", entry.age_s)
}
