//! Lists and watches of the store's objects.

use super::{
    Failure,
    access::{Identity, identify},
    input::Query,
};
use crate::{
    registry::{Kind, NveRecord, XtrRecord, decode},
    server::{App, hub::Topic},
    store::{Change, Revision, StoreError, Transaction},
};
use axum::{
    body::{Body, Bytes},
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::{future::select_all, stream};
use serde::{Serialize, de::DeserializeOwned};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::{sync::watch::Receiver, time::timeout};
use weft_api::{Code, Event, GrantView, GroupView, NveView, Role, Vn, VnConnection};
use weft_model::{VnName, VnSpec, Vni, XtrId};

/// A bookmark is sent after this long without anything else.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(10);
/// Changes within this time are told together; whoever made one, who often watches too, has its answer first.
pub(super) const TOGETHER: Duration = Duration::from_millis(2);
/// Changes looked at in one go.
const ROUND: usize = 1024;
/// Octets after which lines are sent before more are made.
const FULL: usize = 64 << 10;

/// All objects of one kind.
pub(super) fn all<T: DeserializeOwned>(tx: &dyn Transaction, kind: Kind) -> Result<Vec<T>, Failure> {
    let mut items = Vec::new();
    let mut damaged = None;
    tx.scan(kind.prefix(), &mut |key, value| {
        match decode(key, value) {
            Ok(item) => items.push(item),
            Err(e) => damaged = Some(e),
        }
        damaged.is_none()
    })?;
    damaged.map_or(Ok(items), |e: StoreError| Err(e.into()))
}

/// Where a watch begins, if the query asks for one.
pub(super) fn from(query: &Query) -> Result<Option<Revision>, Failure> {
    query.only(&["watch", "resource_version"])?;
    let from = query.number("resource_version")?;
    if !query.flag("watch")? {
        return match from {
            None => Ok(None),
            Some(_) => Err(Failure::bad("'resource_version' is for a watch; add watch=true")),
        };
    }
    let none = "a watch needs resource_version=N: list first and take the list's resource_version";
    from.ok_or_else(|| Failure::bad(none)).map(Some)
}

/// The watch, if the query asks for one.
pub(super) fn wanted(
    app: &Arc<App>,
    identity: &Identity,
    kind: Kind,
    query: &Query,
) -> Result<Option<Response>, Failure> {
    let Some(from) = from(query)? else { return Ok(None) };
    // Subscribed first: what is committed from here on is announced.
    let nve = identity.nve();
    let topics: Vec<Receiver<Revision>> =
        topics(kind, nve).into_iter().map(|topic| app.hub.subscribe(topic)).collect();
    let history = app.registry.store().history();
    // Says at once when the history is no longer kept.
    history.after(from, 1).map_err(|e| Failure::new(Code::Gone, e.to_string()))?;
    let watch = Watch { app: app.clone(), nve, kind, from, topics, greeted: false, over: false };
    let body = Body::from_stream(stream::unfold(watch, |mut watch| async move {
        let octets = watch.next().await?;
        Some((Ok::<_, Infallible>(octets), watch))
    }));
    Ok(Some(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()))
}

/// What a watch must hear of.
fn topics(kind: Kind, nve: Option<XtrId>) -> Vec<Topic> {
    match (kind, nve) {
        (Kind::Nve | Kind::Xtr, _) => vec![Topic::Nves],
        (Kind::Vn, None) => vec![Topic::Vns],
        (Kind::Group, _) => vec![Topic::Groups],
        // Nobody watches these by themselves.
        (Kind::Connection, _) => Vec::new(),
        (Kind::Grant, None) => vec![Topic::Grants],
        (Kind::Vn, Some(nve)) => vec![Topic::Vns, Topic::GrantsOf(nve), Topic::Nves],
        (Kind::Grant, Some(nve)) => vec![Topic::GrantsOf(nve), Topic::Nves],
    }
}

struct Watch {
    app: Arc<App>,
    /// The NVE that watches, which sees only what concerns it.
    nve: Option<XtrId>,
    kind: Kind,
    /// Everything up to here was sent.
    from: Revision,
    topics: Vec<Receiver<Revision>>,
    /// The first bookmark, which says that history is replayed, has been sent.
    greeted: bool,
    over: bool,
}

/// Why a watch goes on.
enum Wake {
    News,
    Nothing,
    Stop,
}

impl Watch {
    /// The next lines; none when the watch is over.
    async fn next(&mut self) -> Option<Bytes> {
        let mut wake = Wake::News;
        loop {
            let revoked = self.nve.is_some_and(|id| identify(&self.app, Some(&Role::Nve(id))).is_err());
            if self.over || revoked || self.app.stop.is_cancelled() {
                return None;
            }
            let mut lines = Vec::new();
            match wake {
                Wake::Stop => return None,
                Wake::News => self.replay(&mut lines)?,
                Wake::Nothing => {
                    let resource_version = self.from;
                    line(&mut lines, &Event::<()>::Bookmark { resource_version });
                }
            }
            if !lines.is_empty() {
                return Some(lines.into());
            }
            wake = self.wait().await;
        }
    }

    /// Turns the changes since `from` into lines; none when they are no longer kept: too slow a
    /// reader lists again.
    fn replay(&mut self, lines: &mut Vec<u8>) -> Option<()> {
        let store = self.app.registry.store().clone();
        for topic in &mut self.topics {
            topic.mark_unchanged();
        }
        loop {
            let (changes, complete) = store.history().after(self.from, ROUND).ok()?;
            let all = changes.len() < ROUND;
            for change in changes {
                if let Err(e) = self.lines(&change, lines) {
                    tracing::error!(error = %e, "a watch ends");
                    self.over = true;
                    return Some(());
                }
            }
            self.from = complete;
            if all && !self.greeted {
                self.greeted = true;
                line(lines, &Event::<()>::Bookmark { resource_version: complete });
            }
            if all || lines.len() > FULL {
                // What is left is news of its own.
                if !all {
                    self.topics.iter_mut().for_each(Receiver::mark_changed);
                }
                return Some(());
            }
        }
    }

    /// Waits for news or for the time of a heartbeat. Of other changes than those announced none is
    /// this watch's, so that a heartbeat may tell of the present.
    async fn wait(&mut self) -> Wake {
        let present = *self.app.registry.store().history().revisions().borrow();
        let news = async {
            let changed = self.topics.iter_mut().map(|topic| Box::pin(topic.changed()));
            select_all(changed).await.0.is_ok()
        };
        let woken = tokio::select! {
            news = timeout(HEARTBEAT, news) => news,
            () = self.app.stop.cancelled() => return Wake::Stop,
        };
        match woken {
            Ok(true) => {
                tokio::time::sleep(TOGETHER).await;
                Wake::News
            }
            Ok(false) => Wake::Stop,
            Err(_) => {
                self.from = self.from.max(present);
                Wake::Nothing
            }
        }
    }

    fn lines(&self, change: &Change, out: &mut Vec<u8>) -> Result<(), StoreError> {
        if let (Some(Kind::Grant), Some(nve)) = (Kind::of(&change.key), self.nve)
            && !mentions(change, nve)
        {
            return Ok(());
        }
        match (self.kind, Kind::of(&change.key), self.nve) {
            (Kind::Nve, Some(Kind::Nve), _) => plain(change, out, nve_view),
            // To an NVE a plain xTR is a node like any other: it sends VXLAN.
            (Kind::Nve, Some(Kind::Xtr), Some(_)) => plain(change, out, xtr_view),
            (Kind::Group, Some(Kind::Group), _) => plain(change, out, |group: GroupView| group),
            (Kind::Vn, Some(Kind::Vn), None) => plain(change, out, vn_view),
            (Kind::Grant, Some(Kind::Grant), None) => plain(change, out, grant_view),
            (Kind::Grant, Some(Kind::Grant), Some(nve)) => filtered(change, out, nve),
            // A VN that changed is told to an NVE that holds something in it; and a grant gained or
            // lost may bring a VN into sight or out of it.
            (Kind::Vn, Some(Kind::Vn), Some(nve)) => {
                let Some(value) = change.after.as_ref().or(change.before.as_ref()) else { return Ok(()) };
                let spec: VnSpec = decode(&change.key, value)?;
                let tx = self.app.registry.store().snapshot()?;
                if self.app.registry.holds_in(&*tx, nve, spec.vni)? {
                    plain(change, out, vn_view)?;
                }
                Ok(())
            }
            (Kind::Vn, Some(Kind::Grant), Some(nve)) => self.vn_of_grant(change, out, nve),
            (Kind::Vn, Some(Kind::Connection), Some(nve)) => {
                let Some(value) = change.after.as_ref().or(change.before.as_ref()) else { return Ok(()) };
                let one: VnConnection = decode(&change.key, value)?;
                match one.xtr_id == nve {
                    true => self.sight(change, out, nve, (&one.vn, one.vni, change.after.is_some())),
                    false => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn vn_of_grant(&self, change: &Change, out: &mut Vec<u8>, nve: XtrId) -> Result<(), StoreError> {
        let (before, after) = grants(change)?;
        let concerns = |view: &Option<GrantView>| view.as_ref().is_some_and(|v| names(v, nve));
        if concerns(&before) == concerns(&after) {
            return Ok(());
        }
        let Some(view) = before.as_ref().or(after.as_ref()) else { return Ok(()) };
        self.sight(change, out, nve, (&view.vn, view.grant.tsi.vni, concerns(&after)))
    }

    /// A VN comes into the NVE's sight, or goes out of it, unless it is there by something else.
    fn sight(
        &self,
        change: &Change,
        out: &mut Vec<u8>,
        nve: XtrId,
        (name, vni, comes): (&VnName, Vni, bool),
    ) -> Result<(), StoreError> {
        let tx = self.app.registry.store().snapshot()?;
        let holds = self.app.registry.holds_in(&*tx, nve, vni)?;
        let mut key = Kind::Vn.prefix().to_vec();
        key.extend_from_slice(name.as_str().as_bytes());
        let spec = tx.get(&key)?.map(|value| decode::<VnSpec>(&key, &value)).transpose()?;
        let resource_version = change.revision;
        match (spec, holds) {
            (Some(spec), true) if comes => {
                line(out, &Event::Added { resource_version, object: Vn::from(spec) });
            }
            (Some(spec), false) => line(out, &Event::Deleted { resource_version, object: Vn::from(spec) }),
            // It holds other tenant systems there; or the VN is gone since, and so is every watcher's
            // interest in it but the name.
            (Some(_), true) => {}
            (None, _) => {
                let spec = VnSpec {
                    name: name.clone(),
                    vni,
                    subnets: Default::default(),
                    learning: Default::default(),
                    reply: Default::default(),
                    bum: Default::default(),
                    storm: Default::default(),
                    miss: Default::default(),
                    gateway: None,
                    default_groups: Default::default(),
                    log_refused: false,
                    tunnel: Default::default(),
                };
                line(out, &Event::Deleted { resource_version, object: Vn::from(spec) });
            }
        }
        Ok(())
    }
}

fn nve_view(record: NveRecord) -> NveView {
    let NveRecord { name, xtr_id, rlocs, .. } = record;
    NveView { name, xtr_id, rlocs, connected: None }
}

/// A plain xTR as NVEs see it.
pub(super) fn xtr_view(record: XtrRecord) -> NveView {
    let XtrRecord { name, xtr_id, rlocs, .. } = record;
    NveView { name, xtr_id, rlocs, connected: None }
}

fn vn_view(spec: VnSpec) -> Vn {
    spec.into()
}

fn grant_view(view: GrantView) -> GrantView {
    view
}

/// Whether the change's text has the NVE's xTR-ID in it: far cheaper than reading it, and most
/// changes are somebody else's.
pub(super) fn mentions(change: &Change, nve: XtrId) -> bool {
    let id = nve.to_string();
    let within = |value: &Vec<u8>| value.windows(id.len()).any(|w| w == id.as_bytes());
    [&change.before, &change.after].into_iter().flatten().any(within)
}

fn names(view: &GrantView, nve: XtrId) -> bool {
    view.grant.owner == nve || view.grant.next.is_some_and(|next| next.nve == nve)
}

fn grants(change: &Change) -> Result<(Option<GrantView>, Option<GrantView>), StoreError> {
    let read = |value: &Option<Vec<u8>>| value.as_ref().map(|v| decode(&change.key, v)).transpose();
    Ok((read(&change.before)?, read(&change.after)?))
}

/// A change as everybody sees it.
fn plain<T: DeserializeOwned, V: Serialize>(
    change: &Change,
    out: &mut Vec<u8>,
    view: impl Fn(T) -> V,
) -> Result<(), StoreError> {
    let resource_version = change.revision;
    let object = |value: &[u8]| decode(&change.key, value).map(&view);
    match (&change.before, &change.after) {
        (None, Some(now)) => line(out, &Event::Added { resource_version, object: object(now)? }),
        (Some(_), Some(now)) => line(out, &Event::Modified { resource_version, object: object(now)? }),
        (Some(was), None) => line(out, &Event::Deleted { resource_version, object: object(was)? }),
        (None, None) => {}
    }
    Ok(())
}

/// A grant's change as an NVE sees it.
fn filtered(change: &Change, out: &mut Vec<u8>, nve: XtrId) -> Result<(), StoreError> {
    let (before, after) = grants(change)?;
    let before = before.filter(|view| names(view, nve));
    let resource_version = change.revision;
    match (before, after) {
        (None, Some(object)) if names(&object, nve) => line(out, &Event::Added { resource_version, object }),
        (Some(_), Some(object)) if names(&object, nve) => {
            line(out, &Event::Modified { resource_version, object });
        }
        // Who holds it now is in it.
        (Some(_), Some(object)) | (Some(object), None) => {
            line(out, &Event::Deleted { resource_version, object });
        }
        (None, _) => {}
    }
    Ok(())
}

pub(super) fn line<T: Serialize>(out: &mut Vec<u8>, event: &Event<T>) {
    let start = out.len();
    if serde_json::to_writer(&mut *out, event).is_ok() {
        out.push(b'\n');
    } else {
        out.truncate(start);
    }
}
