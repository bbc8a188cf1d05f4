//! `/v1/join` and `/v1/renew`.

use super::{Answer, Failure, Peer, access::Identity, input::Body};
use crate::{
    pki::{NVE_TTL_S, signing_request},
    registry::Enrolment,
    server::{App, blocking, clock::unix_seconds},
};
use axum::{Extension, Json, extract::State};
use std::sync::Arc;
use weft_api::{Code, ErrorBody, JoinReply, JoinRequest, RenewReply, RenewRequest, Role};
use weft_model::XtrId;

/// Enrol an NVE with a join token. The same request again gets the same answer.
#[utoipa::path(
    post, path = "/v1/join", tag = "nves", request_body = JoinRequest,
    responses((status = 200, body = JoinReply), (status = 400, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 409, body = ErrorBody))
)]
pub(super) async fn join(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    Body(join): Body<JoinRequest>,
) -> Answer<JoinReply> {
    let JoinRequest { secret, name, csr, rlocs, boot } = join;
    let now = unix_seconds();
    let (app, request, wish) = blocking(move || {
        // A stranger without a good token makes this host compute nothing but a hash.
        app.registry.know_token(&secret, now)?;
        let request = signing_request(&csr)?;
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|e| Failure::new(Code::Internal, format!("no randomness: {e}")))?;
        let xtr_id = XtrId(id);
        let csr = request.hash().to_owned();
        Ok::<_, Failure>((app, request, Enrolment { secret, csr, name, rlocs, xtr_id }))
    })
    .await??;
    let name = wish.name.clone();
    let signer = app.clone();
    let sign = move |id| signer.ca.sign(&request, &Role::Nve(id), now, NVE_TTL_S);
    let joined = app.registry.join(wish, now, sign).await?;
    tracing::info!(nve = %joined.xtr_id, %name, %boot, "NVE joined");
    let addresses = app.addresses.seen_from(peer.local);
    Ok(Json(JoinReply {
        xtr_id: joined.xtr_id,
        certificate: joined.certificate,
        rlocs: joined.rlocs,
        ca: app.ca.pem().to_owned(),
        api: addresses.api,
        sessions: addresses.sessions,
        lisp: addresses.lisp,
    }))
}

/// A new certificate for the calling NVE.
#[utoipa::path(
    post, path = "/v1/renew", tag = "nves", request_body = RenewRequest,
    responses((status = 200, body = RenewReply), (status = 400, body = ErrorBody))
)]
pub(super) async fn renew(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Identity>,
    Body(renew): Body<RenewRequest>,
) -> Answer<RenewReply> {
    let Some(xtr_id) = identity.nve() else { return Err(Failure::no_method()) };
    let signed = blocking(move || {
        let request = signing_request(&renew.csr)?;
        Ok::<_, Failure>(app.ca.sign(&request, &Role::Nve(xtr_id), unix_seconds(), NVE_TTL_S)?)
    })
    .await??;
    Ok(Json(RenewReply { certificate: signed.certificate, expires_at: signed.expires_at }))
}
