//! `/v1/grants/{vn}/{tsi}/tunnel`.

use super::{
    Answer,
    input::{Body, Names, Query},
};
use crate::server::App;
use axum::{Json, extract::State};
use std::sync::Arc;
use weft_api::{ErrorBody, GrantView, TunnelChange};

/// Change the tunnel policy of a tenant system.
#[utoipa::path(
    patch, path = "/v1/grants/{vn}/{tsi}/tunnel", tag = "grants", request_body = TunnelChange,
    params(("vn" = String, Path), ("tsi" = String, Path)),
    responses((status = 200, body = GrantView), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody))
)]
pub(super) async fn change(
    State(app): State<Arc<App>>,
    Names([vn, tsi]): Names<2>,
    query: Query,
    Body(change): Body<TunnelChange>,
) -> Answer<GrantView> {
    query.only(&[])?;
    let (view, _) = app.registry.change_tunnel(vn, tsi, change).await?;
    tracing::info!(vn = %view.vn, tsi = %view.grant.tsi.name, tunnel = ?view.grant.tunnel, "tunnel policy changed");
    Ok(Json(view))
}
