//! Plain HTTP for machines that watch machines: `/metrics`, `/healthz`, `/readyz`.

use super::App;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::ConstCounter, family::Family, gauge::ConstGauge},
    registry::Registry,
};
use std::sync::{Arc, atomic::AtomicU64};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

type Refusals = Family<Reason, prometheus_client::metrics::counter::Counter<u64, AtomicU64>>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// Serves until `stop`.
pub(super) async fn serve(app: Arc<App>, listener: TcpListener, stop: CancellationToken) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(app);
    let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(e) = served {
        tracing::error!(error = %e, "metrics are no longer served");
    }
}

async fn ready(State(app): State<Arc<App>>) -> (StatusCode, &'static str) {
    if app.ready().await {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the mapping database is not complete yet\n")
    }
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let counters = app.counters().await;
    let sizes = app.ask(|shard, _| (shard.sizes(), shard.alarmed())).await;
    let mut registry = Registry::with_prefix("weft_oracle");
    for (name, help, value) in counters.iter() {
        registry.register(name, help.trim().trim_end_matches('.'), ConstCounter::new(value));
    }
    let refusals = Refusals::default();
    for (reason, value) in counters.refusals() {
        refusals.get_or_create(&Reason { reason }).inc_by(value);
    }
    registry.register("registrations_refused", "Registrations refused", refusals);
    let number = |n: usize| ConstGauge::new(i64::try_from(n).unwrap_or(i64::MAX));
    let (nves, vns) = app.directory.counts();
    registry.register("nves", "Enrolled NVEs", number(nves));
    registry.register("vns", "Virtual networks", number(vns));
    registry.register("sessions", "NVEs with a session", number(app.sessions.count()));
    let tsis = sizes.iter().map(|((tsis, _), _)| tsis).sum();
    registry.register("tsis", "Granted tenant systems", number(tsis));
    let asks = sizes.iter().map(|((_, asks), _)| asks).sum();
    registry.register("asks", "Questions whose askers are told of changes", number(asks));
    let alarmed = sizes.iter().any(|(_, alarmed)| *alarmed);
    registry.register("alarm", "Too many NVEs lost at once", number(usize::from(alarmed)));
    let revision = *app.registry.store().history().revisions().borrow();
    registry.register(
        "store_revision",
        "Transactions that changed the store",
        ConstGauge::new(i64::try_from(revision).unwrap_or(i64::MAX)),
    );
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}
