//! Refusals as `/v1` sends them.

use crate::{pki::PkiError, registry::RegistryError, store::StoreError};
use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use weft_api::{Code, ErrorBody};

/// A refusal.
#[derive(Debug)]
pub(super) struct Failure {
    code: Code,
    message: String,
}

impl Failure {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(Code::BadRequest, message)
    }

    pub(super) fn no_route() -> Self {
        Self::new(Code::NotFound, "there is no such path; see /v1/openapi.json")
    }

    pub(super) fn no_method() -> Self {
        Self::new(Code::MethodNotAllowed, "this path does not take that method; see /v1/openapi.json")
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(ErrorBody::new(self.code, &self.message))).into_response()
    }
}

impl From<RegistryError> for Failure {
    fn from(e: RegistryError) -> Self {
        Self::new(e.code(), e.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(e: StoreError) -> Self {
        Self::new(Code::StoreFailed, e.to_string())
    }
}

impl From<PkiError> for Failure {
    fn from(e: PkiError) -> Self {
        let code = match e {
            PkiError::Request(_) | PkiError::Possession(_) | PkiError::Key(_) => Code::BadRequest,
            _ => Code::Internal,
        };
        Self::new(code, e.to_string())
    }
}
