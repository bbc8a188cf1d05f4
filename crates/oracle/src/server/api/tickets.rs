//! `/v1/grants/{vn}/{tsi}/ticket` and `/trace`.

use super::{
    Answer, Failure,
    access::Identity,
    input::{Body, Names, Query},
};
use crate::server::{App, blocking, clock::unix_seconds};
use axum::{Extension, Json, extract::State};
use std::sync::Arc;
use weft_api::{Code, ErrorBody, Ticket, TicketReply, TraceAt, TraceTicket, TraceTicketReply};

/// Give the NVE that a tenant system moves to the Oracle's word for it, to show to the one that it moves from. Good
/// once and for a minute.
#[utoipa::path(
    post, path = "/v1/grants/{vn}/{tsi}/ticket", tag = "grants",
    params(("vn" = String, Path), ("tsi" = String, Path)),
    responses((status = 200, body = TicketReply), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody))
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Identity>,
    Names([vn, tsi]): Names<2>,
    query: Query,
) -> Answer<TicketReply> {
    query.only(&[])?;
    let Identity::Nve { xtr_id, name, .. } = identity else {
        return Err(Failure::new(
            Code::Forbidden,
            "only the NVE that a tenant system moves to is given a ticket",
        ));
    };
    let reply = blocking(move || {
        let grant = app.registry.moving_to(&vn, &tsi, xtr_id, &name)?;
        let epoch = grant.epoch_of(xtr_id).unwrap_or(grant.epoch);
        let Some(owner) = app.directory.nve(grant.owner) else {
            let text = format!(
                "'{tsi}' in VN '{vn}' moves from {}, which is no NVE and hands nothing over",
                grant.owner
            );
            return Err(Failure::new(Code::NotFound, text));
        };
        let ticket = Ticket {
            tsi: grant.tsi,
            from: grant.owner,
            to: xtr_id,
            epoch,
            expires_at: unix_seconds().saturating_add(Ticket::TTL_S),
            id: [random()?, random()?],
        };
        let signed = app.certificate.sign(&ticket);
        let signed = signed.map_err(|e| Failure::new(Code::Internal, e.to_string()))?;
        tracing::debug!(%vn, %tsi, from = %owner.name, to = %name, "ticket");
        Ok(TicketReply { ticket: signed.to_string(), from: ticket.from, rlocs: owner.rlocs, epoch })
    })
    .await??;
    Ok(Json(reply))
}

fn random() -> Result<u64, Failure> {
    getrandom::u64().map_err(|e| Failure::new(Code::Internal, format!("no randomness: {e}")))
}

/// The largest id of a trace: VXLAN has 24 bits for it.
const TRACES: u32 = 0xff_ffff;

/// Give the NVE that has a tenant system the Oracle's word that a traced packet of it goes to another NVE, to show to that
/// one. Good once and for a minute.
#[utoipa::path(
    post, path = "/v1/grants/{vn}/{tsi}/trace", tag = "grants", request_body = TraceAt,
    params(("vn" = String, Path), ("tsi" = String, Path)),
    responses((status = 200, body = TraceTicketReply), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody))
)]
pub(super) async fn trace(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Identity>,
    Names([vn, tsi]): Names<2>,
    query: Query,
    Body(TraceAt { nve, trace }): Body<TraceAt>,
) -> Answer<TraceTicketReply> {
    query.only(&[])?;
    let Identity::Nve { xtr_id, name, .. } = identity else {
        return Err(Failure::new(Code::Forbidden, "only the NVE that has a tenant system is given a ticket"));
    };
    if let Some(trace) = trace.filter(|trace| !(1..=TRACES).contains(trace)) {
        let text = format!("{trace} is no trace's id; it has 24 bits and is not 0");
        return Err(Failure::new(Code::BadRequest, text));
    }
    let reply = blocking(move || {
        let grant = app.registry.held_by(&vn, &tsi, xtr_id)?;
        let told = app.directory.holder_named(&nve).filter(|told| app.directory.nve(*told).is_some());
        let Some(told) = told else {
            let text = format!("there is no NVE '{nve}' that could say what becomes of a packet");
            return Err(Failure::new(Code::NotFound, text));
        };
        let ticket = TraceTicket {
            tsi: grant.tsi,
            asks: xtr_id,
            told,
            trace: match trace {
                Some(trace) => trace,
                None => u32::try_from(random()? % u64::from(TRACES)).unwrap_or(0) + 1,
            },
            expires_at: unix_seconds().saturating_add(Ticket::TTL_S),
            id: [random()?, random()?],
        };
        let signed = app.certificate.sign_trace(&ticket);
        let signed = signed.map_err(|e| Failure::new(Code::Internal, e.to_string()))?;
        tracing::debug!(%vn, %tsi, from = %name, to = %nve, trace = ticket.trace, "ticket for a trace");
        Ok(TraceTicketReply { ticket: signed.to_string(), trace: ticket.trace })
    })
    .await??;
    Ok(Json(reply))
}
