//! VN_Connect and VN_Disconnect of the local API (RFC 8394 section 3.1).

use super::driver::{Driver, LocalCall};
use super::extract::{Names, Words};
use super::local::{Local, Refusal};
use super::requests::{Asked, once};
use crate::core::{CallId, Refused};
use axum::{Json, extract::State, http::StatusCode, response::Response};
use serde::Deserialize;
use std::collections::BTreeMap;
use tokio::sync::oneshot;
use weft_api::{Message, local};
use weft_model::{VnName, VnSpec};

/// Who waits.
#[derive(Default)]
pub(super) struct Connecting {
    begun: BTreeMap<CallId, oneshot::Sender<Result<VnSpec, Refused>>>,
    ended: BTreeMap<CallId, oneshot::Sender<Result<(), Refused>>>,
}

impl Connecting {
    pub(super) fn connected(&mut self, call: CallId, result: Result<VnSpec, Refused>) {
        if let Some(answer) = self.begun.remove(&call) {
            let _ = answer.send(result);
        }
    }

    pub(super) fn disconnected(&mut self, call: CallId, result: Result<(), Refused>) {
        if let Some(answer) = self.ended.remove(&call) {
            let _ = answer.send(result);
        }
    }
}

impl Driver {
    pub(super) fn connect(&mut self, vn: VnName, answer: oneshot::Sender<Result<VnSpec, Refused>>) {
        if let Some(reason) = self.saver.failed() {
            let _ = answer.send(Err(Refused::NotSaved { reason }));
            return;
        }
        let call = self.call_id();
        self.connecting.begun.insert(call, answer);
        self.core.handle_connect(call, vn);
    }

    pub(super) fn disconnect(&mut self, vn: VnName, answer: oneshot::Sender<Result<(), Refused>>) {
        let call = self.call_id();
        self.connecting.ended.insert(call, answer);
        self.core.handle_disconnect(call, vn);
    }

    pub(super) fn connected_vns(&self) -> Vec<local::Connection> {
        let view = |(vni, vn): (&weft_model::Vni, &VnName)| local::Connection {
            vn: vn.clone(),
            vni: *vni,
            tsis: self.core.attached_in(*vni),
        };
        self.core.vn_connections().iter().map(view).collect()
    }

    pub(super) fn vn_disconnected(&mut self, vn: VnName) {
        tracing::warn!(%vn, "disconnected from a VN that is gone");
        self.events.push(local::Event {
            vn: Some(vn),
            cause: Some("vn_deleted".to_owned()),
            ..local::Event::plain(0, local::Happened::VnDisconnected)
        });
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Options {
    request_id: Option<local::RequestId>,
}

fn asked(verb: &str, vn: &VnName) -> Asked {
    let what = format!("{verb} {vn}");
    Asked { content: what.clone(), what }
}

/// VN_Connect.
pub(super) async fn connect(
    State(local): State<Local>,
    Names([vn]): Names<1>,
    Words(Options { request_id }): Words<Options>,
) -> Result<Response, Refusal> {
    let (asked, to) = (asked("vn-connect", &vn), local.clone());
    let act = async move {
        tracing::info!(%vn, "connect");
        let spec = to.ask(|answer| LocalCall::Connect(vn, answer)).await??;
        let all = to.ask(LocalCall::Connections).await?;
        let tsis = all.iter().find(|one| one.vni == spec.vni).map_or(0, |one| one.tsis);
        Ok((StatusCode::OK, local::Connection { vn: spec.name, vni: spec.vni, tsis }))
    };
    once(&local, request_id, asked, act).await
}

/// VN_Disconnect.
pub(super) async fn disconnect(
    State(local): State<Local>,
    Names([vn]): Names<1>,
    Words(Options { request_id }): Words<Options>,
) -> Result<Response, Refusal> {
    let (asked, to) = (asked("vn-disconnect", &vn), local.clone());
    let act = async move {
        tracing::info!(%vn, "disconnect");
        let message = format!("not connected to VN '{vn}' any more");
        to.ask(|answer| LocalCall::Disconnect(vn, answer)).await??;
        Ok((StatusCode::OK, Message { message }))
    };
    once(&local, request_id, asked, act).await
}

/// The VNs that were connected to.
pub(super) async fn list(
    State(local): State<Local>,
) -> Result<Json<local::Items<local::Connection>>, Refusal> {
    local.ask(LocalCall::Connections).await.map(|items| Json(local::Items { items }))
}
