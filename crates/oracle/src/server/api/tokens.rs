//! `/v1/tokens`.

use super::{
    Answer, Failure,
    input::{Body, Query},
};
use crate::server::{App, blocking, clock::unix_seconds};
use axum::{Json, extract::State, http::StatusCode};
use std::sync::Arc;
use weft_api::{Code, ErrorBody, JoinToken, NewToken, TokenReply, TokenView, local::Items};

/// List the join tokens, without their secrets.
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens", responses((status = 200, body = Items<TokenView>)))]
pub(super) async fn list(State(app): State<Arc<App>>, query: Query) -> Answer<Items<TokenView>> {
    query.only(&[])?;
    let tokens = blocking(move || app.registry.tokens()).await??;
    let items = tokens.into_iter().map(|(id, token)| TokenView {
        id,
        uses_left: token.uses_left,
        expires_at: token.expires_at,
        vns: token.vns.map(|vns| vns.into_iter().collect()),
        rlocs: token.rlocs,
        name: token.name,
    });
    Ok(Json(Items { items: items.collect() }))
}

/// Make a join token. It is shown once.
#[utoipa::path(
    post, path = "/v1/tokens", tag = "tokens", request_body = NewToken,
    responses((status = 201, body = TokenReply), (status = 400, body = ErrorBody))
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    query: Query,
    Body(new): Body<NewToken>,
) -> Result<(StatusCode, Json<TokenReply>), Failure> {
    query.only(&[])?;
    let mut random = [0; 20];
    getrandom::fill(&mut random).map_err(|e| Failure::new(Code::Internal, format!("no randomness: {e}")))?;
    let secret = hex::encode(random);
    let (record, id) = app.registry.create_token(new, &secret, unix_seconds()).await?;
    let token = JoinToken { ca: app.ca.fingerprint(), oracles: app.addresses.api.clone(), secret };
    tracing::info!(token = id, uses = record.uses_left, "join token made");
    let reply = TokenReply { token: token.to_string(), id, expires_at: record.expires_at };
    Ok((StatusCode::CREATED, Json(reply)))
}
