//! What requests of the local API say, refused in our own words.

use super::local::Refusal;
use axum::{
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::request::Parts,
};
use serde::de::DeserializeOwned;
use weft_api::whole;
use weft_model::{Name, NameError};

/// Largest request body, octets.
const BODY: usize = 64 * 1024;

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Refusal> {
        let read = whole(request.into_body(), BODY).await;
        let octets = read.map_err(|e| Refusal::of(e.code(), e.to_string()))?;
        let bad = |e: serde_json::Error| Refusal::bad(format!("the body is not what is expected here: {e}"));
        serde_json::from_slice(&octets).map(Self).map_err(bad)
    }
}

/// The names in a path.
pub(super) struct Names<const N: usize>(pub(super) [Name; N]);

impl<S: Send + Sync, const N: usize> FromRequestParts<S> for Names<N> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Path(all): Path<Vec<(String, String)>> =
            Path::from_request_parts(parts, state).await.map_err(|e| Refusal::bad(e.body_text()))?;
        let names: Result<Vec<Name>, NameError> = all.into_iter().map(|(_, text)| Name::new(text)).collect();
        let names = names.map_err(|e| Refusal::bad(e.to_string()))?;
        names.try_into().map(Self).map_err(|_| Refusal::no_route())
    }
}

/// The query.
pub(super) struct Words<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Words<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let read = Query::from_request_parts(parts, state).await;
        read.map(|Query(words)| Self(words)).map_err(|e| Refusal::bad(e.body_text()))
    }
}
