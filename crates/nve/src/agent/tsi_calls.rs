//! What hypervisors ask for of interfaces (RFC 8394 section 3): each once for a request id, if it has one.

use super::driver::LocalCall;
use super::extract::{Body, Names, Words};
use super::local::{Local, Refusal};
use super::requests::{Asked, once};
use crate::core::{Attach, Attached, TsiState, Update};
use axum::{extract::State, http::StatusCode, response::Response};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use weft_api::{Code, Message, local, local::RequestId};
use weft_datapath::VapKind;
use weft_model::{TsiName, VnName};

/// What is asked for, in words and as a whole.
fn asked(verb: &str, (vn, name): (&VnName, &TsiName), rest: &impl Serialize) -> Result<Asked, Refusal> {
    let what = format!("{verb} {vn}/{name}");
    let rest = serde_json::to_string(rest).map_err(|e| Refusal::internal(e.to_string()))?;
    Ok(Asked { content: format!("{what} {rest}"), what })
}

/// A lease as asked for.
fn lease(lease_s: Option<u64>, least: u64) -> Result<Option<Duration>, Refusal> {
    match lease_s {
        Some(lease) if !(least..=local::MAX_LEASE_S).contains(&lease) => {
            let most = local::MAX_LEASE_S;
            let text = format!("a lease of {lease} s cannot be; it is {least} to {most} s, or left away");
            Err(Refusal::of(Code::BadRequest, text))
        }
        lease => Ok(lease.map(Duration::from_secs)),
    }
}

/// Associate, and Activate (section 3.2).
pub(super) async fn attach(
    State(local): State<Local>,
    Body(mut body): Body<local::Attach>,
) -> Result<Response, Refusal> {
    let id = body.request_id.take();
    let verb = match body.state {
        local::State::Associated => "associate",
        local::State::Activated => "attach",
    };
    let asked = asked(verb, (&body.vn, &body.name), &body)?;
    let request = id.clone();
    let to = local.clone();
    once(&local, id, asked, async move { carry_out_attach(&to, body, request).await }).await
}

async fn carry_out_attach(
    local: &Local,
    body: local::Attach,
    request: Option<RequestId>,
) -> Result<(StatusCode, local::Tsi), Refusal> {
    let lease = lease(body.lease_s, 1)?;
    let (index, device) = local.device(&body.device).await?;
    if let Some(kind) = body.kind {
        let kind = match kind {
            local::DeviceKind::Veth => VapKind::Veth,
            local::DeviceKind::Tap => VapKind::Tap,
        };
        if kind != device.kind {
            let is = if device.kind == VapKind::Tap { "a TAP" } else { "no TAP" };
            let text = format!("{} is {is}, the kernel says; leave the kind away", body.device);
            return Err(Refusal::of(Code::BadRequest, text));
        }
    }
    let state = match body.state {
        local::State::Associated => TsiState::Associated,
        local::State::Activated => TsiState::Activated,
    };
    let (vn, name) = (body.vn.clone(), body.name.clone());
    let (mac, ips, groups) = (body.mac, body.ips, body.groups);
    let attach = Attach { vn, name, device, mac, ips, groups, state, lease, explicit: body.explicit };
    let answer = local.ask(|answer| LocalCall::Attach(attach, answer)).await?;
    // Only now: a line of the log takes as long as a system call, and somebody's first packet waits.
    let refused = answer.as_ref().err().map(ToString::to_string);
    let verb = if state == TsiState::Activated { "attach" } else { "associate" };
    tracing::info!(vn = %body.vn, tsi = %body.name, device = %body.device, ?request, refused, "{verb}");
    let attached = answer?;
    // Only now: until its program is there frames would reach this host. A detach set it down.
    local.set_up(index, &body.device).await;
    let status = if attached.already { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, view(attached)))
}

fn view(attached: Attached) -> local::Tsi {
    local::Tsi {
        vn: attached.vn,
        tsi: attached.grant.tsi.name,
        device: attached.device,
        mac: attached.grant.mac,
        ips: attached.grant.ips,
        groups: attached.grant.groups,
        default_groups: attached.default_groups,
        tunnel: attached.grant.tunnel,
        vni: attached.grant.tsi.vni,
        mtu: attached.mtu,
        state: match attached.state {
            TsiState::Associated => local::Standing::Associated,
            TsiState::Activated => local::Standing::Activated,
        },
        epoch: Some(attached.epoch),
        lease_s: attached.lease.map(|lease| lease.as_secs()),
        closed: None,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Options {
    #[serde(default)]
    force: bool,
    request_id: Option<RequestId>,
}

/// De-Associate (section 3.3).
pub(super) async fn detach(
    State(local): State<Local>,
    Names([vn, name]): Names<2>,
    Words(Options { force, request_id }): Words<Options>,
) -> Result<Response, Refusal> {
    let asked = asked("detach", (&vn, &name), &serde_json::json!({ "force": force }))?;
    let (to, request) = (local.clone(), request_id.clone());
    let act = async move {
        let message = format!("{vn}/{name} detached");
        let (of, its) = (vn.clone(), name.clone());
        let answer = to.ask(|answer| LocalCall::Detach(vn, name, force, answer)).await?;
        let refused = answer.as_ref().err().map(ToString::to_string);
        tracing::info!(vn = %of, tsi = %its, force, ?request, refused, "detach");
        answer?;
        Ok((StatusCode::OK, Message { message }))
    };
    once(&local, request_id, asked, act).await
}

/// Update (section 3.2).
pub(super) async fn update(
    State(local): State<Local>,
    Names([vn, name]): Names<2>,
    Body(mut body): Body<local::Update>,
) -> Result<Response, Refusal> {
    let id = body.request_id.take();
    let asked = asked("update", (&vn, &name), &body)?;
    let (to, request) = (local.clone(), id.clone());
    let act = async move {
        let local::Update { device, add, remove, lease_s, request_id: _ } = body;
        let lease = lease(lease_s, 0)?;
        let found = match &device {
            Some(device) => Some(to.device(device).await?),
            None => None,
        };
        let up = found.as_ref().map(|(index, device)| (*index, device.name.clone()));
        let update = Update { vn, name, device: found.map(|(_, device)| device), add, remove, lease };
        let answer = to.ask(|answer| LocalCall::Update(update.clone(), answer)).await?;
        // That a lease is renewed is no news.
        let Update { vn, name, device, add, remove, lease: _ } = &update;
        if device.is_some() || !add.is_empty() || !remove.is_empty() {
            let device = device.as_ref().map(|device| &device.name);
            let refused = answer.as_ref().err().map(ToString::to_string);
            tracing::info!(%vn, tsi = %name, ?device, ?add, ?remove, ?request, refused, "update");
        }
        let attached = answer?;
        if let Some((index, device)) = up {
            to.set_up(index, &device).await;
        }
        Ok((StatusCode::OK, view(attached)))
    };
    once(&local, id, asked, act).await
}

/// Activate (section 3.2) and Deactivate (section 3.3).
pub(super) async fn change_state(
    State(local): State<Local>,
    Names([vn, name]): Names<2>,
    Body(mut body): Body<local::ChangeState>,
) -> Result<Response, Refusal> {
    let id = body.request_id.take();
    let verb = match body.state {
        local::State::Activated => "activate",
        local::State::Associated => "deactivate",
    };
    let asked = asked(verb, (&vn, &name), &body)?;
    let (to, request) = (local.clone(), id.clone());
    let act = async move {
        let lease = lease(body.lease_s, 1)?;
        let message = format!("{vn}/{name} is {}", body.state);
        let (of, its) = (vn.clone(), name.clone());
        let answer = match body.state {
            local::State::Activated => {
                to.ask(|answer| LocalCall::Activate((vn, name), lease, answer)).await?.map(drop)
            }
            local::State::Associated if lease.is_some() => {
                let text = "a deactivation begins no lease; leave 'lease_s' away, or update it";
                return Err(Refusal::of(Code::BadRequest, text.to_owned()));
            }
            local::State::Associated => to.ask(|answer| LocalCall::Deactivate(vn, name, answer)).await?,
        };
        let refused = answer.as_ref().err().map(ToString::to_string);
        tracing::info!(vn = %of, tsi = %its, ?request, refused, "{verb}");
        answer?;
        Ok((StatusCode::OK, Message { message }))
    };
    once(&local, id, asked, act).await
}
