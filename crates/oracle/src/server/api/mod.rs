//! `/v1`: HTTPS, JSON, roles from client certificates.

mod access;
mod failure;
mod grants;
mod groups;
mod input;
mod join;
mod nves;
mod policy;
mod serve;
mod tickets;
mod tokens;
mod tunnels;
mod views;
mod vns;
mod watch;
mod xtrs;

pub(super) use serve::{CONNECTIONS, Peer, serve};

use super::App;
use axum::{
    Json, Router,
    http::{StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
};
use failure::Failure;
use std::sync::Arc;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Longest request body, octets,
const BODY: usize = 64 << 10;
/// and of a security group: with what is written around it a line of a watch still holds it.
const GROUP_BODY: usize = 3 << 20;

#[derive(OpenApi)]
#[openapi(info(
    title = "Weft Oracle",
    version = "1",
    description = "Who may hold which tenant system, and where each one is. HTTPS with mutual TLS; the \
                   client certificate's URI names the role: weft:operator/NAME, weft:viewer/NAME or \
                   weft:nve/XTR-ID. Lists of vns, nves, grants, groups and policy take `?watch=true&resource_version=N` \
                   and then stream one event a line (application/x-ndjson)."
))]
struct Doc;

/// Every route; nothing is served that the document does not name.
fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(Doc::openapi())
        .routes(routes!(views::version))
        .routes(routes!(views::openapi))
        .routes(routes!(vns::list, vns::create))
        .routes(routes!(vns::get, vns::change, vns::remove))
        .routes(routes!(vns::connect, vns::disconnect))
        .routes(routes!(vns::connections))
        .routes(routes!(nves::list))
        .routes(routes!(nves::remove))
        .routes(routes!(nves::shown))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(join::join))
        .routes(routes!(join::renew))
        .routes(routes!(grants::list, grants::create))
        .routes(routes!(grants::release))
        .routes(routes!(grants::take_address, grants::change_addresses))
        .routes(routes!(grants::name_next, grants::call_off))
        .routes(routes!(grants::take_over))
        .routes(routes!(groups::set))
        .routes(routes!(groups::list))
        .routes(routes!(groups::get, groups::put, groups::remove))
        .routes(routes!(policy::list))
        .routes(routes!(tickets::create))
        .routes(routes!(tickets::trace))
        .routes(routes!(tunnels::change))
        .routes(routes!(xtrs::list, xtrs::create))
        .routes(routes!(xtrs::remove))
        .routes(routes!(views::tsis))
        .routes(routes!(views::mappings))
        .routes(routes!(views::conversations))
        .routes(routes!(views::duplicates))
        .routes(routes!(views::counters))
        .routes(routes!(views::backup))
}

/// The OpenAPI document of `/v1`, pretty JSON with a line end.
///
/// # Errors
/// Never in practice: a document always serializes.
pub fn openapi() -> Result<String, serde_json::Error> {
    let (_, document) = routes().split_for_parts();
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

pub(super) fn router(app: Arc<App>) -> Router {
    let (router, _) = routes().split_for_parts();
    router
        .route_layer(middleware::from_fn_with_state(app.clone(), access::admit))
        .fallback(async || Failure::no_route())
        .method_not_allowed_fallback(async || Failure::no_method())
        .with_state(app)
}

/// An answer with a body.
type Answer<T> = Result<Json<T>, Failure>;

fn json_text(text: String) -> Response {
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}
