//! The local API: what hypervisors, container runtimes and `weft` on this host ask of the NVE, as
//! HTTP/JSON on a unix socket of mode 0600 whose peers are root or the agent's own user.

use super::driver::{Input, LocalCall};
use super::{NveError, devices::Links, events};
use crate::core::{Attach, Attached, Device, Refused, TsiState, Update};
use axum::{
    Json, Router,
    extract::{
        DefaultBodyLimit, Path as Parts, Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get, put},
    serve::Listener,
};
use serde::Deserialize;
use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::UnixStream as StdStream,
    },
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    net::{UnixListener, UnixStream, unix::SocketAddr},
    sync::{mpsc, oneshot},
};
use weft_api::{Code, ErrorBody, Message, local, local::Shown};
use weft_datapath::{IfIndex, VapKind};
use weft_model::{TsiName, VnName};

/// Largest request body, octets.
const BODY: usize = 64 * 1024;

/// What handlers share.
#[derive(Clone)]
pub(super) struct Local {
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) links: Links,
    /// Devices that cannot be a tenant's: the agent's own.
    pub(super) reserved: Vec<String>,
    /// Where the data plane's maps are pinned.
    pub(super) pin_dir: PathBuf,
    /// Who follows what happens.
    pub(super) followers: events::Followers,
}

/// A refusal on its way to the caller.
pub(super) struct Refusal(Code, String);

impl Refusal {
    /// More is asked at once than the agent answers.
    pub(super) fn busy(at_once: usize) -> Self {
        let text = format!("the NVE shows {at_once} lists at a time; try again");
        Self(Code::TooManyRequests, text)
    }

    /// More follow than the agent tells.
    pub(super) fn followed(at_once: usize) -> Self {
        let text = format!("{at_once} clients follow this NVE's events already; end one of them");
        Self(Code::TooManyRequests, text)
    }

    /// Nothing of that name is shown.
    pub(super) fn unknown(what: &str) -> Self {
        Self(Code::NotSupported, format!("this NVE does not show '{what}'; it may be older than the Oracle"))
    }
}

impl From<Refusal> for ErrorBody {
    fn from(refusal: Refusal) -> Self {
        Self { error: refusal.0, message: refusal.1 }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(ErrorBody::from(self))).into_response()
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let code = match &refused {
            Refused::DeviceTaken { .. } => Code::DeviceTaken,
            Refused::AlreadyAttached { .. } => Code::AlreadyAttached,
            Refused::Busy { .. } | Refused::TooManyCalls { .. } => Code::TooManyRequests,
            Refused::NotAttached { .. } => Code::NotFound,
            Refused::AddedAndRemoved { .. } => Code::BadRequest,
            Refused::Oracle { code, .. } => {
                serde_json::from_value(serde_json::Value::String(code.clone())).unwrap_or(Code::Unknown)
            }
            Refused::Unanswered { .. } => Code::Unknown,
            Refused::Registration { .. } => Code::Forbidden,
            Refused::NotSaved { .. } => Code::StoreFailed,
            Refused::Policy { .. } => Code::NotReady,
            Refused::Datapath { .. } => Code::Internal,
        };
        Self(code, refused.to_string())
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        Self(Code::BadRequest, rejection.body_text().replace('\n', " "))
    }
}

impl From<JsonRejection> for Refusal {
    fn from(rejection: JsonRejection) -> Self {
        // axum's own text spans lines when serde's does.
        Self(Code::BadRequest, rejection.body_text().replace('\n', " "))
    }
}

/// Takes the socket's place, unless another agent serves it.
pub(super) fn listen(path: &Path) -> Result<PeerChecked, NveError> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(NveError::file("create", dir))?;
    }
    match StdStream::connect(path) {
        Ok(_) => return Err(NveError::SocketInUse { path: path.to_owned() }),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            // What is no socket refuses connections too, and is not ours to remove.
            let found = fs::symlink_metadata(path).map_err(NveError::file("look at", path))?;
            if !found.file_type().is_socket() {
                return Err(NveError::NoSocket { path: path.to_owned() });
            }
            fs::remove_file(path).map_err(NveError::file("remove", path))?;
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(NveError::File { action: "connect to", path: path.to_owned(), source }),
    }
    let listener = UnixListener::bind(path).map_err(NveError::file("listen on", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(NveError::file("protect", path))?;
    Ok(PeerChecked { listener, path: path.to_owned() })
}

/// A unix listener that hangs up on other users' processes.
pub(super) struct PeerChecked {
    listener: UnixListener,
    path: PathBuf,
}

// An agent that ends, or that cannot start after all, leaves no dead socket.
impl Drop for PeerChecked {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Listener for PeerChecked {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (UnixStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, addr)) => {
                    let uid = stream.peer_cred().map(|cred| cred.uid());
                    match uid {
                        Ok(uid) if uid == 0 || uid == nix::unistd::geteuid().as_raw() => {
                            return (stream, addr);
                        }
                        other => tracing::warn!(?other, "refused a caller of the local API: not root"),
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, path = %self.path.display(), "cannot accept on the local API");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// The API's routes.
pub(super) fn router(local: Local) -> Router {
    Router::new()
        .route("/v1/tsis", get(tsis).post(attach))
        .route("/v1/tsis/{vn}/{name}", delete(detach).patch(update))
        .route("/v1/tsis/{vn}/{name}/state", put(change_state))
        .route("/v1/events", get(events::follow))
        .route("/v1/mappings", get(mappings))
        .route("/v1/groups", get(groups))
        .route("/v1/rules", get(rules))
        .route("/v1/drops", get(drops))
        .route("/v1/tables", get(tables))
        .route("/v1/counters", get(counters))
        .route("/v1/status", get(status))
        .layer(DefaultBodyLimit::max(BODY))
        .with_state(local)
}

impl Local {
    /// Asks the driver and waits for its answer.
    pub(super) async fn ask<T>(
        &self,
        call: impl FnOnce(oneshot::Sender<T>) -> LocalCall,
    ) -> Result<T, Refusal> {
        let gone = || Refusal(Code::NotReady, "the NVE is stopping; try again once it is back".to_owned());
        let (answer, wait) = oneshot::channel();
        self.inputs.send(Input::Local(call(answer))).await.map_err(|_| gone())?;
        wait.await.map_err(|_| gone())
    }
}

impl Local {
    /// The device of this name, if it can be a tenant's.
    async fn device(&self, name: &str) -> Result<(IfIndex, Device), Refusal> {
        if self.reserved.iter().any(|reserved| reserved == name) {
            let text = format!("{name} is the NVE's own device; a tenant system needs one of its own");
            return Err(Refusal(Code::BadRequest, text));
        }
        let text = || format!("there is no device '{name}'; `ip link` shows what there is");
        let link = self.links.by_name(name).await.ok_or_else(|| Refusal(Code::NotFound, text()))?;
        let device = link.tenant().map_err(|why| Refusal(Code::BadRequest, why))?;
        Ok((link.index, device))
    }

    /// Sets a device up that has its program.
    async fn set_up(&self, index: IfIndex, name: &str) {
        if let Err(error) = self.links.set(index, true).await {
            tracing::warn!(%error, device = %name, "cannot set up; set it up by hand");
        }
    }
}

impl Local {
    /// A list as the local API answers with it.
    pub(super) async fn shown(&self, what: Shown) -> Result<Vec<u8>, Refusal> {
        let local = State(self.clone());
        match what {
            Shown::Tsis => text(tsis(local).await?),
            Shown::Mappings => text(mappings(local).await?),
            Shown::Drops => text(drops(local).await?),
            Shown::Tables => text(tables(local).await?),
            Shown::Counters => text(counters(local).await?),
            Shown::Status => text(status(local).await?),
            Shown::Groups => text(groups(local).await?),
            Shown::Rules => text(rules(local).await?),
        }
    }
}

fn text<T: serde::Serialize>(Json(list): Json<T>) -> Result<Vec<u8>, Refusal> {
    serde_json::to_vec(&list).map_err(|e| Refusal(Code::Internal, e.to_string()))
}

async fn attach(
    State(local): State<Local>,
    body: Result<Json<local::Attach>, JsonRejection>,
) -> Result<Response, Refusal> {
    let Json(body) = body?;
    let (index, device) = local.device(&body.device).await?;
    if let Some(kind) = body.kind {
        let kind = match kind {
            local::DeviceKind::Veth => VapKind::Veth,
            local::DeviceKind::Tap => VapKind::Tap,
        };
        if kind != device.kind {
            let is = if device.kind == VapKind::Tap { "a TAP" } else { "no TAP" };
            let text = format!("{} is {is}, the kernel says; leave the kind away", body.device);
            return Err(Refusal(Code::BadRequest, text));
        }
    }
    let state = match body.state {
        local::State::Associated => TsiState::Associated,
        local::State::Activated => TsiState::Activated,
    };
    let (vn, name) = (body.vn.clone(), body.name.clone());
    let (mac, ips, groups, lease) = (body.mac, body.ips, body.groups, lease(body.lease_s, 1)?);
    let attach = Attach { vn, name, device, mac, ips, groups, state, lease };
    let answer = local.ask(|answer| LocalCall::Attach(attach, answer)).await?;
    // Only now: a line of the log takes as long as a system call, and somebody's first packet waits.
    let refused = answer.as_ref().err().map(ToString::to_string);
    tracing::info!(vn = %body.vn, tsi = %body.name, device = %body.device, request = ?body.request_id, refused, "attach");
    let attached = answer?;
    // Only now: until its program is there frames would reach this host. A detach set it down.
    local.set_up(index, &body.device).await;
    let status = if attached.already { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(view(attached))).into_response())
}

fn view(attached: Attached) -> local::Tsi {
    local::Tsi {
        vn: attached.vn,
        tsi: attached.grant.tsi.name,
        device: attached.device,
        mac: attached.grant.mac,
        ips: attached.grant.ips,
        groups: attached.grant.groups,
        vni: attached.grant.tsi.vni,
        mtu: attached.mtu,
        state: match attached.state {
            TsiState::Associated => local::State::Associated,
            TsiState::Activated => local::State::Activated,
        },
        epoch: Some(attached.epoch),
        lease_s: attached.lease.map(|lease| lease.as_secs()),
        closed: None,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Force {
    #[serde(default)]
    force: bool,
}

async fn detach(
    State(local): State<Local>,
    Parts((vn, name)): Parts<(String, String)>,
    Query(force): Query<Force>,
) -> Result<Json<Message>, Refusal> {
    let bad = |e: weft_model::NameError| Refusal(Code::BadRequest, e.to_string());
    let (vn, name) = (VnName::new(vn).map_err(bad)?, TsiName::new(name).map_err(bad)?);
    tracing::info!(%vn, tsi = %name, force = force.force, "detach");
    let message = format!("{vn}/{name} detached");
    local.ask(|answer| LocalCall::Detach(vn, name, force.force, answer)).await??;
    Ok(Json(Message { message }))
}

/// A lease as asked for.
fn lease(lease_s: Option<u64>, least: u64) -> Result<Option<Duration>, Refusal> {
    match lease_s {
        Some(lease) if !(least..=local::MAX_LEASE_S).contains(&lease) => {
            let most = local::MAX_LEASE_S;
            let text = format!("a lease of {lease} s cannot be; it is {least} to {most} s, or left away");
            Err(Refusal(Code::BadRequest, text))
        }
        lease => Ok(lease.map(Duration::from_secs)),
    }
}

/// Update (RFC 8394 section 3.2).
async fn update(
    State(local): State<Local>,
    Parts((vn, name)): Parts<(String, String)>,
    body: Result<Json<local::Update>, JsonRejection>,
) -> Result<Json<local::Tsi>, Refusal> {
    let Json(local::Update { device, add, remove, lease_s, request_id }) = body?;
    let lease = lease(lease_s, 0)?;
    let bad = |e: weft_model::NameError| Refusal(Code::BadRequest, e.to_string());
    let (vn, name) = (VnName::new(vn).map_err(bad)?, TsiName::new(name).map_err(bad)?);
    // A renewal of a lease is no news.
    if device.is_some() || !add.is_empty() || !remove.is_empty() {
        tracing::info!(%vn, tsi = %name, ?device, ?add, ?remove, request = ?request_id, "update");
    }
    let found = match &device {
        Some(device) => Some(local.device(device).await?),
        None => None,
    };
    let up = found.as_ref().map(|(index, device)| (*index, device.name.clone()));
    let update = Update { vn, name, device: found.map(|(_, device)| device), add, remove, lease };
    let attached = local.ask(|answer| LocalCall::Update(update, answer)).await??;
    if let Some((index, device)) = up {
        local.set_up(index, &device).await;
    }
    Ok(Json(view(attached)))
}

/// Activate and Deactivate (RFC 8394 section 4.2).
async fn change_state(
    State(local): State<Local>,
    Parts((vn, name)): Parts<(String, String)>,
    body: Result<Json<local::ChangeState>, JsonRejection>,
) -> Result<Json<Message>, Refusal> {
    let Json(local::ChangeState { state, lease_s, request_id }) = body?;
    let lease = lease(lease_s, 1)?;
    let bad = |e: weft_model::NameError| Refusal(Code::BadRequest, e.to_string());
    let (vn, name) = (VnName::new(vn).map_err(bad)?, TsiName::new(name).map_err(bad)?);
    tracing::info!(%vn, tsi = %name, ?state, request = ?request_id, "state");
    let message = format!("{vn}/{name} is {state}");
    match state {
        local::State::Activated => {
            local.ask(|answer| LocalCall::Activate((vn, name), lease, answer)).await??;
        }
        local::State::Associated if lease.is_some() => {
            let text = "a deactivation renews no lease; leave 'lease_s' away, or update it";
            return Err(Refusal(Code::BadRequest, text.to_owned()));
        }
        local::State::Associated => {
            local.ask(|answer| LocalCall::Deactivate(vn, name, answer)).await??;
        }
    }
    Ok(Json(Message { message }))
}

async fn tsis(State(local): State<Local>) -> Result<Json<local::Items<local::Tsi>>, Refusal> {
    local.ask(LocalCall::Tsis).await.map(|items| Json(local::Items { items }))
}

async fn mappings(State(local): State<Local>) -> Result<Json<local::Items<local::CacheEntry>>, Refusal> {
    local.ask(LocalCall::Mappings).await.map(|items| Json(local::Items { items }))
}

async fn groups(State(local): State<Local>) -> Result<Json<local::Items<local::Group>>, Refusal> {
    local.ask(LocalCall::Groups).await.map(|items| Json(local::Items { items }))
}

async fn rules(State(local): State<Local>) -> Result<Json<local::Items<local::RuleCount>>, Refusal> {
    local.ask(LocalCall::Rules).await.map(|items| Json(local::Items { items }))
}

async fn drops(State(local): State<Local>) -> Result<Json<local::Items<local::Drop>>, Refusal> {
    local.ask(LocalCall::Drops).await.map(|items| Json(local::Items { items }))
}

/// Read beside the driver: a large table takes a while to count.
async fn tables(State(local): State<Local>) -> Result<Json<local::Items<local::Table>>, Refusal> {
    let unread = |why: String| Refusal(Code::Internal, why);
    let read = tokio::task::spawn_blocking(move || weft_datapath::table_sizes(&local.pin_dir)).await;
    let sizes = read.map_err(|e| unread(e.to_string()))?.map_err(|e| unread(e.to_string()))?;
    let items = sizes.into_iter().map(|size| local::Table {
        table: size.name,
        entries: size.entries,
        room: size.room,
        bytes: size.bytes,
    });
    Ok(Json(local::Items { items: items.collect() }))
}

async fn counters(State(local): State<Local>) -> Result<Json<weft_api::Counters>, Refusal> {
    local.ask(LocalCall::Counters).await.map(|counters| Json(weft_api::Counters { counters }))
}

async fn status(State(local): State<Local>) -> Result<Json<local::Status>, Refusal> {
    local.ask(LocalCall::Status).await.map(Json)
}

/// Serves the API until the agent ends; removes the socket then.
pub(super) async fn serve(listener: PeerChecked, router: Router) -> io::Result<()> {
    axum::serve(listener, router).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn takes_the_place_of_a_dead_socket_and_of_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nve.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let listener = listen(&path).unwrap();
        assert!(matches!(listen(&path), Err(NveError::SocketInUse { .. })));
        drop(listener);
        assert!(!path.exists());

        let file = dir.path().join("shadow");
        fs::write(&file, "kept").unwrap();
        let refused = listen(&file).err().unwrap();
        assert!(matches!(refused, NveError::NoSocket { .. }), "{refused}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(matches!(listen(&link), Err(NveError::NoSocket { .. })));
        assert!(link.exists());
    }
}
