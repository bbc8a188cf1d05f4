//! Plain-HTTP metrics, health and readiness on loopback.

use super::NveError;
use axum::{Router, http::StatusCode, routing::get};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::ConstCounter, family::Family, gauge::Gauge},
    registry::Registry,
};
use std::{net::SocketAddr, sync::Arc};
use tokio::{net::TcpListener, sync::RwLock};
use weft_datapath::Tracked;

/// What the driver publishes for scrapes, replaced as a whole.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    pub(super) ready: bool,
    /// What keeps it from being ready, other than that no Oracle was heard.
    pub(super) trouble: Option<String>,
    pub(super) counters: Vec<(&'static str, u64)>,
    /// With packets and octets.
    pub(super) packets: Vec<(Packets, u64, u64)>,
    pub(super) tsis: usize,
    pub(super) cache: usize,
    pub(super) sessions: usize,
    pub(super) connections: Tracked,
}

/// The snapshot of the moment.
pub(super) type Shared = Arc<RwLock<Snapshot>>;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Event {
    event: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Packets {
    pub(super) vn: String,
    pub(super) reason: &'static str,
    pub(super) path: &'static str,
    pub(super) direction: &'static str,
}

/// The text a scrape gets.
fn render(snapshot: &Snapshot) -> String {
    let mut registry = Registry::with_prefix("weft_nve");
    let gauge = |value: usize| {
        let gauge: Gauge = Gauge::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        gauge
    };
    registry.register("tsis", "Tenant system interfaces attached", gauge(snapshot.tsis));
    registry.register("mappings", "Map cache entries, negative ones included", gauge(snapshot.cache));
    registry.register("sessions", "Sessions with Oracles", gauge(snapshot.sessions));
    let Tracked { entries, evicted, unfollowed, capacity } = snapshot.connections;
    let size = |count: u64| gauge(usize::try_from(count).unwrap_or(usize::MAX));
    registry.register("connections", "Connections that access policy tracks", size(entries));
    registry.register("connections_room", "Connections that there is room for", size(capacity));
    registry.register(
        "connections_evicted",
        "Connections that had to make room for others",
        ConstCounter::new(evicted),
    );
    registry.register(
        "connections_unfollowed",
        "First packets let through without being tracked: too many of one tenant system that nobody had answered",
        ConstCounter::new(unfollowed),
    );
    let events = Family::<Event, prometheus_client::metrics::counter::Counter>::default();
    for (event, count) in &snapshot.counters {
        events.get_or_create(&Event { event }).inc_by(*count);
    }
    registry.register("events", "What the control plane did", events);
    let packets = Family::<Packets, prometheus_client::metrics::counter::Counter>::default();
    let octets = Family::<Packets, prometheus_client::metrics::counter::Counter>::default();
    for (labels, count, bytes) in &snapshot.packets {
        packets.get_or_create(labels).inc_by(*count);
        octets.get_or_create(labels).inc_by(*bytes);
    }
    registry.register("packets", "Packets by what became of them", packets);
    registry.register("octets", "Octets by what became of them", octets);
    registry.register("info", "Always 1", ConstCounter::new(1_u64));
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => text,
        Err(_) => String::new(),
    }
}

fn readiness(snapshot: &Snapshot) -> (StatusCode, &str) {
    match &snapshot.trouble {
        Some(trouble) => (StatusCode::SERVICE_UNAVAILABLE, trouble),
        None if snapshot.ready => (StatusCode::OK, "ready"),
        None => (StatusCode::SERVICE_UNAVAILABLE, "no session with an Oracle yet"),
    }
}

/// Serves `/metrics`, `/healthz` and `/readyz` until the agent ends.
pub(super) async fn serve(listener: TcpListener, shared: Shared) -> std::io::Result<()> {
    let metrics = shared.clone();
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route(
            "/readyz",
            get(async move || {
                let snapshot = shared.read().await;
                let (status, text) = readiness(&snapshot);
                (status, format!("{text}\n"))
            }),
        )
        .route("/metrics", get(async move || render(&*metrics.read().await)));
    axum::serve(listener, router).await
}

/// Listens on `addr`.
pub(super) async fn listen(addr: SocketAddr) -> Result<TcpListener, NveError> {
    TcpListener::bind(addr).await.map_err(|source| NveError::Listen { what: "metrics", addr, source })
}
