//! `/v1/grants`.

use super::{
    Answer, Failure,
    access::Identity,
    input::{Body, Names, Query},
    watch,
};
use crate::{
    registry::{Granted, Kind, RegistryError, Released, Wish},
    server::{
        App, blocking,
        duplicates::{Claim, What},
    },
};
use axum::{
    Extension, Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use std::sync::Arc;
use weft_api::{
    ChangeAddresses, ErrorBody, Event, GrantReply, GrantRequest, GrantView, List, Message, NameNext,
    TakeAddress,
};
use weft_model::{Eid, TsiName, XtrId};

/// List the grants: an NVE sees its own.
#[utoipa::path(
    get, path = "/v1/grants", tag = "grants",
    params(("watch" = Option<bool>, Query), ("resource_version" = Option<u64>, Query)),
    responses((status = 200, body = List<GrantView>), (status = 200, body = Event<GrantView>, content_type = "application/x-ndjson"),
        (status = 410, body = ErrorBody))
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Identity>,
    query: Query,
) -> Result<Response, Failure> {
    if let Some(watch) = watch::wanted(&app, &identity, Kind::Grant, &query)? {
        return Ok(watch);
    }
    let list = blocking(move || {
        let tx = app.registry.snapshot()?;
        let items: Vec<GrantView> = match identity.nve() {
            Some(nve) => app.registry.held(&*tx, nve)?,
            None => watch::all(&*tx, Kind::Grant)?,
        };
        Ok::<_, Failure>(List { resource_version: tx.revision(), items })
    })
    .await??;
    Ok(Json(list).into_response())
}

/// Take a tenant system and its addresses. The same request again gets the same grant.
#[utoipa::path(
    post, path = "/v1/grants", tag = "grants", request_body = GrantRequest,
    responses((status = 201, body = GrantReply), (status = 200, body = GrantReply),
        (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody))
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Identity>,
    query: Query,
    Body(request): Body<GrantRequest>,
) -> Result<(StatusCode, Json<GrantReply>), Failure> {
    query.only(&[])?;
    let GrantRequest { vn, tsi, mac, ips, groups, nve, activate, request_id } = request;
    let owner = match (&identity, &nve) {
        (Identity::Nve { xtr_id, name, .. }, named) if named.as_ref().is_none_or(|named| named == name) => {
            *xtr_id
        }
        (Identity::Nve { name, .. }, _) => {
            return Err(Failure::new(
                weft_api::Code::Forbidden,
                format!("NVE '{name}' can take grants for itself only; leave 'nve' out"),
            ));
        }
        (_, Some(named)) => match app.directory.holder_named(named) {
            Some(xtr_id) => xtr_id,
            None => return Err(RegistryError::NoNve(named.clone()).into()),
        },
        (_, None) => return Err(Failure::bad("an operator must say whose grant it is to be; name 'nve'")),
    };
    let start = match &identity {
        Identity::Nve { start, .. } => *start,
        _ => None,
    };
    let wished = tsi.clone();
    if activate && identity.nve().is_none() {
        return Err(Failure::bad("'activate' is for the NVE itself to say; leave it out"));
    }
    let (granted, revision) = match app.registry.grant(Wish { vn, tsi, mac, ips, groups, owner, start }).await
    {
        Ok(granted) => granted,
        Err(refused) => {
            note_claim(&app, owner, &wished, &refused);
            return Err(refused.into());
        }
    };
    if activate {
        // The commit's fact is in the shard's inbox already.
        app.activating(owner, granted.view.grant.tsi.clone()).await;
    }
    let status = if granted.created { StatusCode::CREATED } else { StatusCode::OK };
    tracing::debug!(
        vn = %granted.view.vn, tsi = %granted.view.grant.tsi.name, nve = %granted.view.nve,
        created = granted.created, request_id, "granted"
    );
    Ok((status, Json(reply(granted, revision))))
}

/// Both are named to who looks for it, by `GET /v1/duplicates`.
fn note_claim(app: &App, claimant: XtrId, wished: &TsiName, refused: &RegistryError) {
    let (vn, what, holder) = match refused {
        RegistryError::GrantedElsewhere { vn, tsi, owner, .. } => (vn, What::Tsi(tsi.clone()), owner),
        RegistryError::AddressTaken { vn, ip, nve, .. } => {
            (vn, What::Address(Eid::Ip(*ip), Some(wished.clone())), nve)
        }
        RegistryError::MacTaken { vn, mac, nve, .. } => {
            (vn, What::Address(Eid::Mac(*mac), Some(wished.clone())), nve)
        }
        _ => return,
    };
    if let (Some(vni), Some(holder)) = (app.directory.vni(vn), app.directory.holder_named(holder)) {
        app.duplicates.note(app.clock.now(), Claim { vni, what, holder, claimant });
    }
}

fn reply(granted: Granted, resource_version: u64) -> GrantReply {
    GrantReply { grant: granted.view.grant, vn: granted.vn.into(), resource_version }
}

/// Take one more address for a tenant system.
#[utoipa::path(
    post, path = "/v1/grants/{vn}/{tsi}/addresses", tag = "grants", request_body = TakeAddress,
    params(("vn" = String, Path), ("tsi" = String, Path)),
    responses((status = 200, body = GrantReply), (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody))
)]
pub(super) async fn take_address(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Identity>,
    Names([vn, tsi]): Names<2>,
    query: Query,
    Body(take): Body<TakeAddress>,
) -> Answer<GrantReply> {
    query.only(&[])?;
    let (granted, revision) = app.registry.take_address(vn, tsi, take.ip, identity.caller()?).await?;
    Ok(Json(reply(granted, revision)))
}

/// Take addresses for a tenant system and give others of it back, all of it or nothing.
#[utoipa::path(
    patch, path = "/v1/grants/{vn}/{tsi}/addresses", tag = "grants", request_body = ChangeAddresses,
    params(("vn" = String, Path), ("tsi" = String, Path)),
    responses((status = 200, body = GrantReply), (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody))
)]
pub(super) async fn change_addresses(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Identity>,
    Names([vn, tsi]): Names<2>,
    query: Query,
    Body(change): Body<ChangeAddresses>,
) -> Answer<GrantReply> {
    query.only(&[])?;
    if let Some(ip) = change.add.intersection(&change.remove).next() {
        return Err(Failure::bad(format!("{ip} is to be added and removed; leave one of the two away")));
    }
    let (granted, revision) = app.registry.change_addresses(vn, tsi, change, identity.caller()?).await?;
    Ok(Json(reply(granted, revision)))
}

/// Say where a tenant system moves to: its owner, or an operator.
#[utoipa::path(
    put, path = "/v1/grants/{vn}/{tsi}/next", tag = "grants", request_body = NameNext,
    params(("vn" = String, Path), ("tsi" = String, Path)),
    responses((status = 200, body = GrantView), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody))
)]
pub(super) async fn name_next(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Identity>,
    Names([vn, tsi]): Names<2>,
    query: Query,
    Body(NameNext { nve }): Body<NameNext>,
) -> Answer<GrantView> {
    query.only(&[])?;
    let (registry, caller) = (app.registry.clone(), identity.caller()?);
    let (what, who, to) = ((vn.clone(), tsi.clone()), caller.clone(), nve.clone());
    let named = async move { registry.name_next(vn, tsi, to, who).await };
    let (view, _) = app.end_move(what, &caller, named).await?;
    tracing::info!(vn = %view.vn, tsi = %view.grant.tsi.name, from = %view.nve, to = %nve, "moves");
    Ok(Json(view))
}

/// Have an NVE hold a tenant system from now on, whoever holds it: an operator's word, when a host is gone. With `force`
/// also while the NVE that holds it, or is to be next, is connected.
#[utoipa::path(
    put, path = "/v1/grants/{vn}/{tsi}/owner", tag = "grants", request_body = NameNext,
    params(("vn" = String, Path), ("tsi" = String, Path), ("force" = Option<bool>, Query)),
    responses((status = 200, body = GrantView), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody))
)]
pub(super) async fn take_over(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Identity>,
    Names([vn, tsi]): Names<2>,
    query: Query,
    Body(NameNext { nve }): Body<NameNext>,
) -> Answer<GrantView> {
    query.only(&["force"])?;
    let presence = app.presence(query.flag("force")?).await;
    let (view, _) = app.registry.take_over(vn, tsi, nve, identity.caller()?, presence).await?;
    tracing::warn!(vn = %view.vn, tsi = %view.grant.tsi.name, by = %view.nve, "taken over");
    Ok(Json(view))
}

/// Call a move off: the owner, who was to be next, or an operator.
#[utoipa::path(
    delete, path = "/v1/grants/{vn}/{tsi}/next", tag = "grants",
    params(("vn" = String, Path), ("tsi" = String, Path)),
    responses((status = 200, body = GrantView), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody))
)]
pub(super) async fn call_off(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Identity>,
    Names([vn, tsi]): Names<2>,
    query: Query,
) -> Answer<GrantView> {
    query.only(&[])?;
    let (registry, caller) = (app.registry.clone(), identity.caller()?);
    let (what, who) = ((vn.clone(), tsi.clone()), caller.clone());
    let called_off = async move { registry.call_off(vn, tsi, who).await };
    let (view, _) = app.end_move(what, &caller, called_off).await?;
    tracing::info!(vn = %view.vn, tsi = %view.grant.tsi.name, at = %view.nve, "stays");
    Ok(Json(view))
}

/// Give a tenant system back. An operator says `force` when the NVE that holds it is connected. An NVE to which it merely moves calls that off by it, unless it
/// says `owned`, or by `activated` at which epoch it has Activated it already: one of the two.
#[utoipa::path(
    delete, path = "/v1/grants/{vn}/{tsi}", tag = "grants",
    params(("vn" = String, Path), ("tsi" = String, Path), ("force" = Option<bool>, Query), ("owned" = Option<bool>, Query),
        ("activated" = Option<u32>, Query)),
    responses((status = 200, body = Message), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody))
)]
pub(super) async fn release(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Identity>,
    Names([vn, tsi]): Names<2>,
    query: Query,
) -> Answer<Message> {
    query.only(&["force", "owned", "activated"])?;
    let (force, caller) = (query.flag("force")?, identity.caller()?);
    let of_nve = (query.flag("owned")?, query.epoch("activated")?);
    if identity.nve().is_none() && of_nve != (false, None) {
        return Err(Failure::bad("'owned' and 'activated' are for an NVE to say; leave them out"));
    }
    let (released, _) = match of_nve {
        (true, Some(_)) => {
            return Err(Failure::bad(
                "'owned' is for what may be another's, 'activated' for what was Activated here; leave one out",
            ));
        }
        (true, None) => app.registry.release_owned(vn, tsi, caller).await?,
        (false, Some(epoch)) => app.registry.release_activated(vn, tsi, caller, epoch).await?,
        (false, None) => {
            let presence = app.presence(force).await;
            app.registry.release(vn, tsi, caller, presence).await?
        }
    };
    let (GrantView { vn, nve, grant }, what) = match released {
        Released::Freed(view) => (view, "is free again; it was held by"),
        Released::HandedOver(view) => (view, "was on its way and is held from now on by"),
        Released::CalledOff(view) => (view, "does not move and stays with"),
    };
    tracing::debug!(%vn, tsi = %grant.tsi.name, %nve, force, what, "released");
    Ok(Json(Message { message: format!("'{}' in VN '{vn}' {what} NVE '{nve}'", grant.tsi.name) }))
}
