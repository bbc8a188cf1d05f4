//! `/v1/vns`.

use super::{
    Answer, Failure,
    access::Identity,
    input::{Body, Names, Query},
    watch,
};
use crate::{
    registry::{Kind, decode},
    server::{App, blocking},
    store::Transaction,
};
use axum::{
    Extension, Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use std::sync::Arc;
use weft_api::{Code, ErrorBody, Event, List, Message, NewVn, Vn, VnChange, VnConnection};
use weft_model::{VnName, VnSpec, XtrId};

/// The VN called `name`.
fn read(tx: &dyn Transaction, name: &VnName) -> Result<Option<VnSpec>, Failure> {
    let mut key = Kind::Vn.prefix().to_vec();
    key.extend_from_slice(name.as_str().as_bytes());
    Ok(tx.get(&key)?.map(|value| decode(&key, &value)).transpose()?)
}

/// List the VNs: an NVE sees those in which it has a grant, or that it is connected to.
#[utoipa::path(
    get, path = "/v1/vns", tag = "vns",
    params(("watch" = Option<bool>, Query), ("resource_version" = Option<u64>, Query)),
    responses((status = 200, body = List<Vn>), (status = 200, body = Event<Vn>, content_type = "application/x-ndjson"),
        (status = 410, body = ErrorBody))
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Identity>,
    query: Query,
) -> Result<Response, Failure> {
    if let Some(watch) = watch::wanted(&app, &identity, Kind::Vn, &query)? {
        return Ok(watch);
    }
    let list = blocking(move || {
        let tx = app.registry.snapshot()?;
        let items = match identity.nve() {
            Some(nve) => {
                let mut items = Vec::new();
                for vni in app.registry.vnis_of(&*tx, nve)? {
                    let spec = app.directory.vn(vni).map(|name| read(&*tx, &name)).transpose()?.flatten();
                    items.extend(spec.map(Vn::from));
                }
                items
            }
            None => watch::all::<VnSpec>(&*tx, Kind::Vn)?.into_iter().map(Vn::from).collect(),
        };
        Ok::<_, Failure>(List { resource_version: tx.revision(), items })
    })
    .await??;
    Ok(Json(list).into_response())
}

/// Create a VN.
#[utoipa::path(
    post, path = "/v1/vns", tag = "vns", request_body = NewVn,
    responses((status = 201, body = Vn), (status = 400, body = ErrorBody), (status = 409, body = ErrorBody))
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    query: Query,
    Body(new): Body<NewVn>,
) -> Result<(StatusCode, Json<Vn>), Failure> {
    query.only(&[])?;
    let (spec, _) = app.registry.create_vn(new).await?;
    tracing::info!(vn = %spec.name, vni = %spec.vni, "VN created");
    Ok((StatusCode::CREATED, Json(spec.into())))
}

/// One VN.
#[utoipa::path(
    get, path = "/v1/vns/{name}", tag = "vns", params(("name" = String, Path)),
    responses((status = 200, body = Vn), (status = 404, body = ErrorBody))
)]
pub(super) async fn get(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Identity>,
    Names([name]): Names<1>,
    query: Query,
) -> Answer<Vn> {
    query.only(&[])?;
    blocking(move || {
        let tx = app.registry.snapshot()?;
        let spec = read(&*tx, &name)?;
        let seen = |nve: XtrId, spec: &VnSpec| app.registry.holds_in(&*tx, nve, spec.vni);
        let visible = match (identity.nve(), &spec) {
            (Some(nve), Some(spec)) => seen(nve, spec)?,
            (_, spec) => spec.is_some(),
        };
        match spec.filter(|_| visible) {
            Some(spec) => Ok(Json(spec.into())),
            None => Err(Failure::new(
                Code::NotFound,
                format!("there is no VN '{name}'; `weft get vns` lists them"),
            )),
        }
    })
    .await?
}

/// Change how a VN behaves, whoever is in it.
#[utoipa::path(
    patch, path = "/v1/vns/{name}", tag = "vns", params(("name" = String, Path)), request_body = VnChange,
    responses((status = 200, body = Vn), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody))
)]
pub(super) async fn change(
    State(app): State<Arc<App>>,
    Names([name]): Names<1>,
    query: Query,
    Body(change): Body<VnChange>,
) -> Answer<Vn> {
    query.only(&[])?;
    let (spec, _) = app.registry.change_vn(name, change).await?;
    tracing::info!(vn = %spec.name, learning = %spec.learning, reply = %spec.reply, bum = %spec.bum, storm = %spec.storm, miss = %spec.miss, default_groups = ?spec.default_groups, log_refused = spec.log_refused, tunnel = ?spec.tunnel, "VN changed");
    Ok(Json(spec.into()))
}

/// Delete a VN without tenant systems.
#[utoipa::path(
    delete, path = "/v1/vns/{name}", tag = "vns", params(("name" = String, Path)),
    responses((status = 200, body = Message), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody))
)]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Names([name]): Names<1>,
    query: Query,
) -> Answer<Message> {
    query.only(&[])?;
    let (spec, _) = app.registry.delete_vn(name).await?;
    tracing::info!(vn = %spec.name, vni = %spec.vni, "VN deleted");
    Ok(Json(Message { message: format!("VN '{}' (VNID {}) is deleted", spec.name, spec.vni) }))
}

/// Connect the calling NVE to a VN of its scope (RFC 8394's VN_Connect): it is told of it as if it had a grant there.
#[utoipa::path(
    put, path = "/v1/vns/{name}/connection", tag = "vns", params(("name" = String, Path)),
    responses((status = 200, body = Vn), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody))
)]
pub(super) async fn connect(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Identity>,
    Names([name]): Names<1>,
    query: Query,
) -> Answer<Vn> {
    query.only(&[])?;
    let (spec, _) = app.registry.connect(name, identity.caller()?).await?;
    tracing::debug!(vn = %spec.name, nve = ?identity.nve(), "connected");
    Ok(Json(spec.into()))
}

/// End that; one that is not connected is no error.
#[utoipa::path(
    delete, path = "/v1/vns/{name}/connection", tag = "vns", params(("name" = String, Path)),
    responses((status = 200, body = Message), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody))
)]
pub(super) async fn disconnect(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Identity>,
    Names([name]): Names<1>,
    query: Query,
) -> Answer<Message> {
    query.only(&[])?;
    let (spec, _) = app.registry.disconnect(name, identity.caller()?).await?;
    tracing::debug!(vn = %spec.name, nve = ?identity.nve(), "disconnected");
    Ok(Json(Message { message: format!("not connected to VN '{}'", spec.name) }))
}

/// List which NVEs are connected to which VNs by their own word; an NVE, to which it is.
#[utoipa::path(
    get, path = "/v1/connections", tag = "vns", responses((status = 200, body = List<VnConnection>))
)]
pub(super) async fn connections(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Identity>,
    query: Query,
) -> Answer<List<VnConnection>> {
    query.only(&[])?;
    blocking(move || {
        let tx = app.registry.snapshot()?;
        let items = match identity.nve() {
            Some(nve) => app.registry.connections_of(&*tx, nve)?,
            None => watch::all(&*tx, Kind::Connection)?,
        };
        Ok(Json(List { resource_version: tx.revision(), items }))
    })
    .await?
}
