//! `/v1/groups`: security groups; and the groups of one tenant system.

use super::{
    Answer, Failure, GROUP_BODY,
    access::Identity,
    input::{Body, Names, Query},
    watch,
};
use crate::{
    registry::{Kind, RegistryError, decode, keys},
    server::{App, blocking},
};
use axum::{
    Extension, Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use std::sync::Arc;
use weft_api::{ErrorBody, Event, GrantView, GroupView, List, Message, PutGroup, SetGroups};

/// List the security groups.
#[utoipa::path(
    get, path = "/v1/groups", tag = "groups",
    params(("watch" = Option<bool>, Query), ("resource_version" = Option<u64>, Query)),
    responses((status = 200, body = List<GroupView>), (status = 200, body = Event<GroupView>, content_type = "application/x-ndjson"),
        (status = 410, body = ErrorBody))
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Identity>,
    query: Query,
) -> Result<Response, Failure> {
    if let Some(watch) = watch::wanted(&app, &identity, Kind::Group, &query)? {
        return Ok(watch);
    }
    let list = blocking(move || {
        let tx = app.registry.snapshot()?;
        let items = watch::all::<GroupView>(&*tx, Kind::Group)?;
        Ok::<_, Failure>(List { resource_version: tx.revision(), items })
    })
    .await??;
    Ok(Json(list).into_response())
}

/// One security group.
#[utoipa::path(
    get, path = "/v1/groups/{vn}/{name}", tag = "groups", params(("vn" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = GroupView), (status = 404, body = ErrorBody))
)]
pub(super) async fn get(
    State(app): State<Arc<App>>,
    Names([vn, name]): Names<2>,
    query: Query,
) -> Answer<GroupView> {
    query.only(&[])?;
    let vni = app.directory.vni(&vn).ok_or_else(|| RegistryError::NoVn(vn.clone()))?;
    blocking(move || {
        let (tx, key) = (app.registry.snapshot()?, keys::group(vni, &name));
        match tx.get(&key)? {
            Some(value) => Ok(Json(decode(&key, &value)?)),
            None => Err(RegistryError::NoGroup { vn, group: name }.into()),
        }
    })
    .await?
}

/// Make a security group, or replace its rules.
#[utoipa::path(
    put, path = "/v1/groups/{vn}/{name}", tag = "groups", request_body = PutGroup,
    params(("vn" = String, Path), ("name" = String, Path)),
    responses((status = 201, body = GroupView), (status = 200, body = GroupView), (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody))
)]
pub(super) async fn put(
    State(app): State<Arc<App>>,
    Names([vn, name]): Names<2>,
    query: Query,
    Body(group): Body<PutGroup, GROUP_BODY>,
) -> Result<(StatusCode, Json<GroupView>), Failure> {
    query.only(&[])?;
    let ((group, created), _) = app.registry.put_group(vn, name, group).await?;
    let (rules, revision) = (group.rules.rules().len(), group.revision);
    tracing::info!(vn = %group.vn, group = %group.name, rules, revision, "security group written");
    Ok((if created { StatusCode::CREATED } else { StatusCode::OK }, Json(group)))
}

/// Delete a security group that nobody uses.
#[utoipa::path(
    delete, path = "/v1/groups/{vn}/{name}", tag = "groups", params(("vn" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = Message), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody))
)]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Names([vn, name]): Names<2>,
    query: Query,
) -> Answer<Message> {
    query.only(&[])?;
    let (group, _) = app.registry.delete_group(vn, name).await?;
    tracing::info!(vn = %group.vn, group = %group.name, "security group deleted");
    Ok(Json(Message { message: format!("security group '{}' of VN '{}' is deleted", group.name, group.vn) }))
}

/// Say which security groups a tenant system is in.
#[utoipa::path(
    put, path = "/v1/grants/{vn}/{tsi}/groups", tag = "grants", request_body = SetGroups,
    params(("vn" = String, Path), ("tsi" = String, Path)),
    responses((status = 200, body = GrantView), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody))
)]
pub(super) async fn set(
    State(app): State<Arc<App>>,
    Names([vn, tsi]): Names<2>,
    query: Query,
    Body(SetGroups { groups }): Body<SetGroups>,
) -> Answer<GrantView> {
    query.only(&[])?;
    let (view, _) = app.registry.set_groups(vn, tsi, groups).await?;
    tracing::info!(vn = %view.vn, tsi = %view.grant.tsi.name, groups = ?view.grant.groups, "groups set");
    Ok(Json(view))
}
