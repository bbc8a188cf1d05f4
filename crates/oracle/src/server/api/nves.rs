//! `/v1/nves`.

use super::{
    Answer, Failure,
    access::Identity,
    input::{Names, Query},
    watch,
};
use crate::{
    registry::{Kind, NveRecord, RegistryError, XtrRecord},
    server::{App, blocking, shown::ShowError},
};
use axum::{
    Extension, Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use std::sync::Arc;
use weft_api::{
    Code, ErrorBody, Event, List, Message, NveView,
    local::{NotShown, Shown},
};

/// List the NVEs.
#[utoipa::path(
    get, path = "/v1/nves", tag = "nves",
    params(("watch" = Option<bool>, Query), ("resource_version" = Option<u64>, Query)),
    responses((status = 200, body = List<NveView>), (status = 200, body = Event<NveView>, content_type = "application/x-ndjson"),
        (status = 410, body = ErrorBody))
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Identity>,
    query: Query,
) -> Result<Response, Failure> {
    if let Some(watch) = watch::wanted(&app, &identity, Kind::Nve, &query)? {
        return Ok(watch);
    }
    let list = blocking(move || {
        let tx = app.registry.snapshot()?;
        let person = identity.nve().is_none();
        let records = watch::all::<NveRecord>(&*tx, Kind::Nve)?.into_iter();
        let items = records.map(|record| {
            let connected = person.then(|| app.sessions.connected(record.xtr_id));
            let NveRecord { name, xtr_id, rlocs, .. } = record;
            NveView { name, xtr_id, rlocs, connected }
        });
        let mut items: Vec<NveView> = items.collect();
        if !person {
            let xtrs = watch::all::<XtrRecord>(&*tx, Kind::Xtr)?;
            items.extend(xtrs.into_iter().map(watch::xtr_view));
        }
        Ok::<_, Failure>(List { resource_version: tx.revision(), items })
    })
    .await??;
    Ok(Json(list).into_response())
}

/// What an NVE knows, as it says itself over its session: its tsis, mappings, groups, drops, tables,
/// counters or status, each as its local API shows it.
#[utoipa::path(
    get, path = "/v1/nves/{name}/{what}", tag = "nves",
    params(("name" = String, Path), ("what" = Shown, Path)),
    responses((status = 200, description = "as the NVE's local API shows it"), (status = 404, body = ErrorBody),
        (status = 429, body = ErrorBody), (status = 503, body = ErrorBody))
)]
pub(super) async fn shown(
    State(app): State<Arc<App>>,
    Names([name, what]): Names<2>,
    query: Query,
) -> Result<Response, Failure> {
    query.only(&[])?;
    let what: Shown =
        what.as_str().parse().map_err(|e: NotShown| Failure::new(Code::NotFound, e.to_string()))?;
    let holder = app.directory.holder_named(&name).filter(|id| app.directory.nve(*id).is_some());
    let Some(xtr_id) = holder else { return Err(RegistryError::NoNve(name).into()) };
    let Some((session, out)) = app.sessions.out(xtr_id) else {
        let text =
            format!("NVE '{name}' has no session now, so it cannot be asked; ask on its host with --socket");
        return Err(Failure::new(Code::NotReady, text));
    };
    let failed = |e: ShowError| {
        let code = if e == ShowError::Busy { Code::TooManyRequests } else { Code::NotReady };
        Failure::new(code, format!("NVE '{name}' shows no {what}: {e}"))
    };
    let is_up = || app.sessions.out(xtr_id).is_some_and(|(now, _)| now == session);
    match app.desk.ask(session, &out, what, is_up).await.map_err(failed)? {
        Ok(list) => Ok(([(header::CONTENT_TYPE, "application/json")], list).into_response()),
        Err(refusal) => Err(match serde_json::from_slice::<ErrorBody>(&refusal) {
            Ok(refusal) => Failure::new(refusal.error, format!("NVE '{name}': {}", refusal.message)),
            Err(_) => Failure::new(Code::NotReady, format!("NVE '{name}' gives no reason")),
        }),
    }
}

/// Remove an NVE: its certificate counts no more, its session ends. With `force` its grants go too, and VNs whose
/// gateway it is have none any more; without, a gateway is not removed.
#[utoipa::path(
    delete, path = "/v1/nves/{name}", tag = "nves",
    params(("name" = String, Path), ("force" = Option<bool>, Query)),
    responses((status = 200, body = Message), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody))
)]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Names([name]): Names<1>,
    query: Query,
) -> Answer<Message> {
    query.only(&["force"])?;
    let force = query.flag("force")?;
    let ((record, grants), _) = app.registry.remove_nve(name, force).await?;
    app.sessions.end(record.xtr_id);
    let name = &record.name;
    tracing::info!(nve = %record.xtr_id, %name, grants, force, "NVE removed");
    let rest = match (grants, force) {
        (0, _) => "it held no tenant systems".to_owned(),
        (n, true) => format!("its {n} tenant systems are released"),
        (n, false) => format!("its {n} tenant systems stay granted to it; `weft tsi release` frees one"),
    };
    Ok(Json(Message { message: format!("NVE '{name}' is removed and its certificate revoked; {rest}") }))
}
