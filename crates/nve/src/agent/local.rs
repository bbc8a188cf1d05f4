//! The local API: what hypervisors, container runtimes and `weft` on this host ask of the NVE, as
//! HTTP/JSON on a unix socket of mode 0600 whose peers are root or the agent's own user.

use super::driver::{Input, LocalCall};
use super::extract::Body;
use super::{NveError, devices::Links, events, handover::Refusal as NotTold, trace, tsi_calls, vn_calls};
use crate::core::{Device, Refused, Went};
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get, post, put},
    serve::Listener,
};
use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::UnixStream as StdStream,
    },
    path::{Path, PathBuf},
};
use tokio::{
    net::{UnixListener, UnixStream, unix::SocketAddr},
    sync::{mpsc, oneshot},
};
use weft_api::{Code, ErrorBody, TraceRequest, TraceView, local, local::Shown};
use weft_datapath::IfIndex;

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
#[derive(Debug)]
pub(super) struct Refusal(Code, String);

impl Refusal {
    /// Of this kind, in these words.
    pub(super) const fn of(code: Code, text: String) -> Self {
        Self(code, text)
    }

    /// In words.
    #[cfg(test)]
    pub(super) fn text(&self) -> &str {
        &self.1
    }

    /// A request that cannot be understood.
    pub(super) const fn bad(text: String) -> Self {
        Self(Code::BadRequest, text)
    }

    /// There is no such path.
    pub(super) fn no_route() -> Self {
        let text =
            "the NVE has no such path; its API begins with /v1/tsis, /v1/vns, /v1/events and /v1/status";
        Self(Code::NotFound, text.to_owned())
    }

    /// The path takes other methods.
    fn no_method() -> Self {
        Self(Code::MethodNotAllowed, "this path of the NVE does not take that method".to_owned())
    }

    /// A defect.
    pub(super) const fn internal(text: String) -> Self {
        Self(Code::Internal, text)
    }

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
        Self::new(refusal.0, &refusal.1)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(ErrorBody::from(self))).into_response()
    }
}

impl From<NotTold> for Refusal {
    fn from(refusal: NotTold) -> Self {
        Self(refusal.code(), refusal.to_string())
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let code = match &refused {
            Refused::DeviceTaken { .. } => Code::DeviceTaken,
            Refused::Lost { went: Went::To { .. } | Went::Unknown, .. } => Code::GrantedElsewhere,
            Refused::Lost { .. } => Code::NotFound,
            Refused::AlreadyAttached { .. } | Refused::AttachedOtherwise { .. } => Code::AlreadyAttached,
            Refused::Busy { .. } | Refused::VnBusy { .. } | Refused::TooManyCalls { .. } => {
                Code::TooManyRequests
            }
            Refused::NotAttached { .. } | Refused::NotConnected { .. } => Code::NotFound,
            Refused::VnInUse { .. } => Code::VnInUse,
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
        .route("/v1/tsis", get(tsis).post(tsi_calls::attach))
        .route("/v1/tsis/{vn}/{name}", delete(tsi_calls::detach).patch(tsi_calls::update))
        .route("/v1/tsis/{vn}/{name}/state", put(tsi_calls::change_state))
        .route("/v1/vns", get(vn_calls::list))
        .route("/v1/vns/{vn}", put(vn_calls::connect).delete(vn_calls::disconnect))
        .route("/v1/events", get(events::follow))
        .route("/v1/mappings", get(mappings))
        .route("/v1/groups", get(groups))
        .route("/v1/rules", get(rules))
        .route("/v1/drops", get(drops))
        .route("/v1/tables", get(tables))
        .route("/v1/counters", get(counters))
        .route("/v1/status", get(status))
        .route("/v1/traces", post(traced))
        .fallback(async || Refusal::no_route())
        .method_not_allowed_fallback(async || Refusal::no_method())
        .with_state(local)
}

impl Local {
    /// Tells the driver, if there still is one.
    pub(super) async fn tell(&self, call: LocalCall) {
        let _ = self.inputs.send(Input::Local(call)).await;
    }

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
    pub(super) async fn device(&self, name: &str) -> Result<(IfIndex, Device), Refusal> {
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
    pub(super) async fn set_up(&self, index: IfIndex, name: &str) {
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

async fn traced(
    State(local): State<Local>,
    Body(request): Body<TraceRequest>,
) -> Result<Json<TraceView>, Refusal> {
    let (vn, tsi, to, probe) = (request.vn.clone(), request.from.clone(), request.to, request.probe);
    let view = trace::run(&local.inputs, request).await?;
    tracing::info!(%vn, %tsi, %to, %probe, result = %view.result, reason = view.reason, "trace");
    Ok(Json(view))
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
