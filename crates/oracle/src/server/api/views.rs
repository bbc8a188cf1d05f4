//! What the Oracle sees right now.

use super::{Answer, Failure, input::Query, json_text, watch};
use crate::{
    registry::Kind,
    server::{
        App, backup as backups, blocking,
        duplicates::{Claim, What},
    },
};
use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use std::{collections::BTreeMap, sync::Arc};
use weft_api::{
    API_VERSION, Code, ConversationView, Counters, DuplicateView, ErrorBody, GrantView, MappingView,
    TsiState, TsiView, Version, local::Items,
};
use weft_model::{Eid, Origin, TsiId, Vni};

/// What answers.
#[utoipa::path(get, path = "/v1/version", tag = "oracle", responses((status = 200, body = Version)))]
pub(super) async fn version(State(app): State<Arc<App>>) -> Json<Version> {
    Json(Version {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api: API_VERSION,
        oracle: app.name.to_string(),
        ready: app.ready().await,
    })
}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "oracle", responses((status = 200, description = "OpenAPI 3.1")))]
pub(super) async fn openapi() -> Result<Response, Failure> {
    super::openapi().map(json_text).map_err(|e| Failure::new(Code::Internal, e.to_string()))
}

/// The VN a view is limited to.
fn vni(app: &App, query: &Query) -> Result<Option<Vni>, Failure> {
    query.only(&["vn"])?;
    let Some(name) = query.name("vn")? else { return Ok(None) };
    match app.directory.vni(&name) {
        Some(vni) => Ok(Some(vni)),
        None => Err(crate::registry::RegistryError::NoVn(name).into()),
    }
}

/// The tenant systems, and whether they are registered.
#[utoipa::path(
    get, path = "/v1/tsis", tag = "views", params(("vn" = Option<String>, Query)),
    responses((status = 200, body = Items<TsiView>), (status = 404, body = ErrorBody))
)]
pub(super) async fn tsis(State(app): State<Arc<App>>, query: Query) -> Answer<Items<TsiView>> {
    let vni = vni(&app, &query)?;
    let states = app
        .ask(move |shard, now| {
            let macs = shard.mappings(now, vni).filter(|m| matches!(m.eid, Eid::Mac(_)));
            let state = |m: &crate::core::MappingView| match (m.origin, m.stale) {
                (Origin::Registration, false) => TsiState::Registered,
                (Origin::Registration, true) => TsiState::Stale,
                _ => TsiState::Granted,
            };
            macs.map(|m| (TsiId { vni: m.vni, name: m.tsi.clone() }, state(&m))).collect::<Vec<_>>()
        })
        .await;
    let states: BTreeMap<TsiId, TsiState> = states.into_iter().flatten().collect();
    let inner = app.clone();
    let grants: Vec<GrantView> = blocking(move || {
        let tx = inner.registry.snapshot()?;
        watch::all(&*tx, Kind::Grant)
    })
    .await??;
    let items = grants.into_iter().filter(|g| vni.is_none_or(|vni| g.grant.tsi.vni == vni)).map(|view| {
        let rlocs = app.directory.holder(view.grant.owner).map(|(_, rlocs)| rlocs).unwrap_or_default();
        let state = states.get(&view.grant.tsi).copied().unwrap_or(TsiState::Granted);
        let next = view.grant.next.and_then(|next| app.directory.holder(next.nve)).map(|(name, _)| name);
        TsiView {
            next,
            vn: view.vn,
            vni: view.grant.tsi.vni,
            name: view.grant.tsi.name,
            mac: view.grant.mac,
            ips: view.grant.ips,
            groups: view.grant.groups,
            tunnel: view.grant.tunnel,
            owner: view.grant.owner,
            nve: view.nve,
            rlocs,
            epoch: view.grant.epoch,
            state,
        }
    });
    Ok(Json(Items { items: items.collect() }))
}

/// The mapping database.
#[utoipa::path(
    get, path = "/v1/mappings", tag = "views", params(("vn" = Option<String>, Query)),
    responses((status = 200, body = Items<MappingView>), (status = 404, body = ErrorBody))
)]
pub(super) async fn mappings(State(app): State<Arc<App>>, query: Query) -> Answer<Items<MappingView>> {
    let vni = vni(&app, &query)?;
    let found = app.ask(move |shard, now| shard.mappings(now, vni).collect::<Vec<_>>()).await;
    let items = found.into_iter().flatten().filter_map(|m| {
        Some(MappingView {
            vn: app.directory.vn(m.vni)?,
            vni: m.vni,
            eid: m.eid,
            mac: matches!(m.eid, Eid::Ip(_)).then_some(m.mac),
            rlocs: m.locators.iter().map(|l| l.rloc).collect(),
            owner: m.owner,
            nve: app.directory.holder(m.owner).map(|(name, _)| name),
            epoch: m.epoch,
            origin: m.origin,
            stale: m.stale,
            age_s: m.age.map_or(0, |age| age.as_secs()),
        })
    });
    Ok(Json(Items { items: items.collect() }))
}

/// Who talks to whom.
#[utoipa::path(
    get, path = "/v1/conversations", tag = "views", params(("vn" = Option<String>, Query)),
    responses((status = 200, body = Items<ConversationView>), (status = 404, body = ErrorBody))
)]
pub(super) async fn conversations(
    State(app): State<Arc<App>>,
    query: Query,
) -> Answer<Items<ConversationView>> {
    let vni = vni(&app, &query)?;
    let found = app
        .ask(move |shard, now| {
            shard.conversations(vni).map(|c| (c, now.since(c.last_seen).as_secs())).collect::<Vec<_>>()
        })
        .await;
    let items = found.into_iter().flatten().filter_map(|(c, last_seen_s)| {
        Some(ConversationView {
            vn: app.directory.vn(c.vni)?,
            source: Some(c.source),
            destination: c.destination,
            nve: c.nve,
            nve_name: app.directory.holder(c.nve).map(|(name, _)| name),
            last_seen_s,
        })
    });
    Ok(Json(Items { items: items.collect() }))
}

/// Who claims what another holds, of late.
#[utoipa::path(
    get, path = "/v1/duplicates", tag = "views", params(("vn" = Option<String>, Query)),
    responses((status = 200, body = Items<DuplicateView>), (status = 404, body = ErrorBody))
)]
pub(super) async fn duplicates(State(app): State<Arc<App>>, query: Query) -> Answer<Items<DuplicateView>> {
    let vni = vni(&app, &query)?;
    let now = app.clock.now();
    let named = |nve| app.directory.holder(nve).map(|(name, _)| name);
    let claims =
        app.duplicates.all(now).into_iter().filter(|(claim, _)| vni.is_none_or(|vni| claim.vni == vni));
    let items = claims.filter_map(|(Claim { vni, what, holder, claimant }, heard)| {
        let (tsi, address) = match what {
            What::Tsi(tsi) => (Some(tsi), None),
            What::Address(eid, tsi) => (tsi, Some(eid)),
        };
        Some(DuplicateView {
            vn: app.directory.vn(vni)?,
            vni,
            tsi,
            address,
            holder,
            holder_name: named(holder),
            claimant,
            claimant_name: named(claimant),
            times: heard.times,
            first_s: now.since(heard.first).as_secs(),
            last_s: now.since(heard.last).as_secs(),
        })
    });
    Ok(Json(Items { items: items.collect() }))
}

/// Counters since the start.
#[utoipa::path(get, path = "/v1/counters", tag = "views", responses((status = 200, body = Counters)))]
pub(super) async fn counters(State(app): State<Arc<App>>, query: Query) -> Answer<Counters> {
    query.only(&[])?;
    let sum = app.counters().await;
    let mut counters: BTreeMap<String, u64> =
        sum.iter().map(|(name, _, value)| (name.to_owned(), value)).collect();
    counters.extend(
        sum.refusals().map(|(reason, value)| (format!("refused_{}", reason.replace('-', "_")), value)),
    );
    Ok(Json(Counters { counters }))
}

/// A consistent copy of everything durable, the CA's key included.
#[utoipa::path(get, path = "/v1/backup", tag = "oracle",
    responses((status = 200, description = "what `weft oracle restore` reads", content_type = "application/x-ndjson")))]
pub(super) async fn backup(State(app): State<Arc<App>>, query: Query) -> Result<Response, Failure> {
    query.only(&[])?;
    tracing::info!("backup made");
    let octets = blocking(move || {
        let tx = app.registry.snapshot()?;
        backups::write(&*tx, &app.data_dir).map_err(|e| Failure::new(Code::Internal, e.to_string()))
    })
    .await??;
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], octets).into_response())
}
