//! `/v1/xtrs`: plain RFC 9301 xTRs.

use super::{
    Answer, Failure,
    input::{Body, Names, Query},
};
use crate::{registry::XtrRecord, server::App};
use axum::{Json, extract::State, http::StatusCode};
use std::{collections::BTreeMap, sync::Arc};
use weft_api::{Code, ErrorBody, Message, NewXtr, XtrView, local::Items};
use weft_model::XtrId;

fn view(record: XtrRecord, subscriptions: usize) -> XtrView {
    let XtrRecord { name, xtr_id, site_id, rlocs, key_id, algorithm, vns, .. } = record;
    XtrView {
        name,
        xtr_id,
        rlocs,
        site_id,
        key_id,
        algorithm,
        vns: vns.into_values().collect(),
        subscriptions,
    }
}

/// List the plain xTRs, without their secrets.
#[utoipa::path(get, path = "/v1/xtrs", tag = "xtrs", responses((status = 200, body = Items<XtrView>)))]
pub(super) async fn list(State(app): State<Arc<App>>, query: Query) -> Answer<Items<XtrView>> {
    query.only(&[])?;
    let counts =
        app.ask(|shard, now| shard.nodes(now).map(|n| (n.xtr_id, n.subscriptions)).collect::<Vec<_>>());
    let mut subscribed = BTreeMap::<XtrId, usize>::new();
    for (xtr, count) in counts.await.into_iter().flatten() {
        *subscribed.entry(xtr).or_default() += count;
    }
    let count = |xtr: &XtrRecord| subscribed.get(&xtr.xtr_id).copied().unwrap_or(0);
    let all = app.directory.xtrs().into_iter().map(|xtr| (count(&xtr), xtr));
    Ok(Json(Items { items: all.map(|(count, xtr)| view(xtr, count)).collect() }))
}

/// Make a plain RFC 9301 xTR known.
#[utoipa::path(
    post, path = "/v1/xtrs", tag = "xtrs", request_body = NewXtr,
    responses((status = 201, body = XtrView), (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody))
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    query: Query,
    Body(new): Body<NewXtr>,
) -> Result<(StatusCode, Json<XtrView>), Failure> {
    query.only(&[])?;
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|e| Failure::new(Code::Internal, format!("no randomness: {e}")))?;
    let (record, _) = app.registry.create_xtr(new, XtrId(id)).await?;
    tracing::info!(xtr = %record.xtr_id, name = %record.name, "xTR known");
    Ok((StatusCode::CREATED, Json(view(record, 0))))
}

/// Forget a plain xTR. With `force` its grants go too.
#[utoipa::path(
    delete, path = "/v1/xtrs/{name}", tag = "xtrs",
    params(("name" = String, Path), ("force" = Option<bool>, Query)),
    responses((status = 200, body = Message), (status = 404, body = ErrorBody))
)]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Names([name]): Names<1>,
    query: Query,
) -> Answer<Message> {
    query.only(&["force"])?;
    let force = query.flag("force")?;
    let ((record, grants), _) = app.registry.remove_xtr(name, force).await?;
    tracing::info!(xtr = %record.xtr_id, name = %record.name, grants, force, "xTR forgotten");
    let rest = match (grants, force) {
        (0, _) => "it held no tenant systems".to_owned(),
        (n, true) => format!("its {n} tenant systems are released"),
        (n, false) => {
            format!("its {n} tenant systems stay granted to it; free each over /v1 with ?force=true")
        }
    };
    Ok(Json(Message { message: format!("xTR '{}' is forgotten; {rest}", record.name) }))
}
