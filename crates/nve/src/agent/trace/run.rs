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
/// How often the packet is sent while it goes to another NVE than those that were told.
const TRIES: usize = 4;

/// Traces a packet.
pub(in crate::agent) async fn run(
    inputs: &mpsc::Sender<Input>,
    request: TraceRequest,
) -> Result<TraceView, Refusal> {
    let mut look = resolved(inputs, &request).await?;
    let steps = vec![frame_step(&request, &look), address_step(&request, &look)];
    let end = match look.address {
        Address::Nobody => Some((TraceResult::Dropped, Some("nobody"))),
        Address::OutOfService => Some((TraceResult::Dropped, Some("not-activated"))),
        Address::Asked => Some((TraceResult::Unknown, None)),
        Address::Known | Address::Given | Address::Here => None,
    };
    if let Some((result, reason)) = end.filter(|_| look.activated) {
        let reason = reason.map(str::to_owned);
        return Ok(TraceView { result, reason, nve: Some(look.own), steps });
    }
    let mut way: Vec<Remote> = look.remote.iter().cloned().collect();
    let mut turn = 1;
    loop {
        let frame = framed(&request, &look)?;
        let Told { id, followed, failed } = tell(&request, &look, &way).await;
        let id = id.map_or_else(random, Ok)?;
        let to = followed.first().map(|(remote, _)| remote.rloc);
        let sending = Sending { id, vni: look.vni, device: look.device, to, deliver: request.deliver, frame };
        let here = sent(inputs, sending).await?;
        let there = if here.left { seen_by(followed).await } else { Vec::new() };
        // It goes to another NVE than was thought: that one is told, too, and another packet sent.
        let last = there.last().map_or(Some(&here), |(_, seen)| seen.as_ref().ok());
        if let Some(rloc) = last.and_then(|seen| seen.stopped_before)
            && turn < TRIES
            && way.get(there.len()).is_none_or(|told| told.rloc != rloc)
        {
            let next = look_at(inputs, &request, Some(rloc)).await?;
            turn += 1;
            if let Some(remote) = next.remote.clone() {
                way.truncate(there.len());
                way.push(remote);
                if there.is_empty() {
                    look = next;
                }
                continue;
            }
        }
        return Ok(composed(&look, steps, here, there, failed));
    }
}

/// NVEs that know of a packet, in the order of its way, and one that could not be told.
#[derive(Default)]
struct Told {
    id: Option<TraceId>,
    followed: Vec<(Remote, Followed)>,
    failed: Option<(Remote, String)>,
}

/// Has the NVEs of its way know of a packet: the last one first, as none is to send it on to one that does not.
async fn tell(request: &TraceRequest, look: &Look, way: &[Remote]) -> Told {
    let mut told = Told::default();
    for (n, remote) in way.iter().enumerate().rev() {
        let before = n.checked_sub(1).and_then(|n| way.get(n));
        let next = told.followed.first().map(|(next, _)| next.rloc);
        match announce(request, look, (before, remote, next), told.id).await {
            Ok((id, followed)) => {
                told.id = Some(id);
                told.followed.insert(0, (remote.clone(), followed));
            }
            Err(why) => {
                told.followed.clear();
                told.failed = Some((remote.clone(), why));
            }
        }
    }
    told
}

/// What the NVEs of its way have seen, as far as it came.
async fn seen_by(told: Vec<(Remote, Followed)>) -> Vec<(Remote, Result<Seen, String>)> {
    let mut all = Vec::new();
    for (remote, followed) in told {
        let name = &remote.name;
        let seen = match timeout(THERE, followed.seen()).await {
            Ok(Ok(seen)) => Ok(seen.of(name)),
            Ok(Err(why)) => Err(format!("{name} does not say what it has seen: {why}")),
            Err(_) => {
                Err(format!("{name} was told, and has not seen it within {THERE:?}: it is lost between"))
            }
        };
        let goes_on = |seen: &Seen| seen.result == TraceResult::Unknown && seen.stopped_before.is_none();
        let on = seen.as_ref().is_ok_and(goes_on);
        all.push((remote, seen));
        if !on {
            break;
        }
    }
    all
}

/// The whole of it, with what the other NVEs say.
fn composed(
    look: &Look,
    mut steps: Vec<TraceStep>,
    here: Seen,
    there: Vec<(Remote, Result<Seen, String>)>,
    failed: Option<(Remote, String)>,
) -> TraceView {
    let own = &look.own;
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
    let mut end = (here.result, here.reason, own.clone());
    steps.extend(here.steps);
    for (remote, seen) in there {
        match seen {
            Ok(Seen { steps: there, result, reason, .. }) => {
                if there.is_empty() {
                    steps.push(step("announce", format!("{} was told, and has not seen it", remote.name)));
                }
                steps.extend(there);
                end = (result, reason, remote.name);
            }
            Err(why) => steps.push(step("announce", why)),
        }
    }
    if let Some((remote, why)) = &failed {
        steps.push(step("announce", format!("{} cannot be told of it: {why}", remote.name)));
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

/// Has another NVE know of a packet that comes from here, or by the NVE before it on its way, and may go on to the next.
async fn announce(
    request: &TraceRequest,
    look: &Look,
    (before, remote, next): (Option<&Remote>, &Remote, Option<Rloc>),
    id: Option<TraceId>,
) -> Result<(TraceId, Followed), String> {
    let (vn, tsi, known) = (&request.vn, &request.from, id.map(TraceId::get));
    let reply = look.client.trace_ticket(vn, tsi, remote.name.clone(), known).await;
    let reply = reply.map_err(|e| format!("no Oracle gives its word for it: {e}"))?;
    let id = TraceId::new(reply.trace).ok_or_else(|| format!("{} is no trace's id", reply.trace))?;
    let same = |rloc: &&Rloc| rloc.get().is_ipv4() == remote.rloc.get().is_ipv4();
    let mut from = before.map_or(&look.rlocs, |before| &before.rlocs).iter();
    let from = from.find(same).ok_or_else(|| FetchError::NoWay(remote.nve).to_string())?;
    let announce = Announce {
        credentials: &look.credentials,
        own: &look.rlocs,
        nve: remote.nve,
        rlocs: &remote.rlocs,
        port: look.port,
        ticket: reply.ticket,
        from: *from,
        by: before.map(|before| before.nve),
        next,
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
        Address::OutOfService => {
            format!(
                "{to} is a tenant system's that is attached here and out of service; `weft tsi list` says why"
            )
        }
        Address::Nobody => format!("nobody in '{}' has {to}, an Oracle says", request.vn),
        Address::Asked => format!("no Oracle has said within {RESOLVED:?} where {to} is"),
    };
    let step =
        TraceStep { nve: Some(look.own.clone()), step: "address".to_owned(), text, ..TraceStep::default() };
    TraceStep {
        mapping: look.mapping.clone().filter(|_| look.address == Address::Known),
        reason: match look.address {
            Address::Nobody => Some("nobody".to_owned()),
            Address::OutOfService => Some("not-activated".to_owned()),
            _ => None,
        },
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
