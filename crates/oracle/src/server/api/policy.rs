//! `/v1/policy`: what NVEs have to know of access policy, listed and watched.
//!
//! An NVE is told of the VNs in which it has a grant, or that it is connected to, and that have security groups; of a VN without any it needs to know
//! nothing, however many tenant systems there are. Each round of a watch tells the state of one moment of the store, with
//! a bookmark behind it, so that nobody sees a group's new rules with its old members; what changes together is told
//! together, and one change costs one event.

use super::{Failure, access::Identity, access::identify, input::Query, watch};
use crate::{
    registry::{Kind, decode, keys},
    server::{App, blocking, hub::Topic},
    store::{Change, Revision, StoreError, Transaction},
};
use axum::{
    Extension, Json,
    body::{Body, Bytes},
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::{future::select_all, stream};
use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
};
use tokio::{sync::watch::Receiver, time::timeout};
use weft_api::{Code, ErrorBody, Event, GrantView, GroupView, List, PolicyItem, Role, VnConnection};
use weft_model::{GroupName, VnSpec, Vni, XtrId};

/// Changes looked at in one go.
const ROUND: usize = 1024;

/// What the calling NVE has to know of access policy.
#[utoipa::path(
    get, path = "/v1/policy", tag = "groups",
    params(("watch" = Option<bool>, Query), ("resource_version" = Option<u64>, Query)),
    responses((status = 200, body = List<PolicyItem>), (status = 200, body = Event<PolicyItem>, content_type = "application/x-ndjson"),
        (status = 403, body = ErrorBody), (status = 410, body = ErrorBody))
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Identity>,
    query: Query,
) -> Result<Response, Failure> {
    let Some(nve) = identity.nve() else {
        return Err(Failure::new(Code::Forbidden, "this is for NVEs; people read /v1/groups"));
    };
    if let Some(from) = watch::from(&query)? {
        app.registry.store().history().after(from, 1).map_err(|e| Failure::new(Code::Gone, e.to_string()))?;
        return Ok(Watch::new(app, nve, from).into_response());
    }
    let list = blocking(move || {
        let tx = app.registry.snapshot()?;
        let mut items = Vec::new();
        for vni in held_in(&*tx, nve)? {
            if governed(&*tx, vni)? {
                whole(&app, &*tx, vni, &mut |item| items.push(item))?;
            }
        }
        Ok::<_, Failure>(List { resource_version: tx.revision(), items })
    })
    .await??;
    Ok(Json(list).into_response())
}

/// The VNs in which a grant names the NVE, or that it is connected to.
fn held_in(tx: &dyn Transaction, nve: XtrId) -> Result<BTreeSet<Vni>, StoreError> {
    let prefix = keys::held(nve);
    let mut vnis = BTreeSet::new();
    tx.scan(&prefix, &mut |key, _| {
        let hex = key.get(prefix.len()..prefix.len() + 6).and_then(|hex| core::str::from_utf8(hex).ok());
        vnis.extend(hex.and_then(|hex| u32::from_str_radix(hex, 16).ok()).and_then(|vni| Vni::new(vni).ok()));
        true
    })?;
    Ok(vnis)
}

/// Whether a VN has security groups.
fn governed(tx: &dyn Transaction, vni: Vni) -> Result<bool, StoreError> {
    let mut any = false;
    tx.scan(&keys::groups(vni), &mut |_, _| {
        any = true;
        false
    })?;
    Ok(any)
}

/// The groups of tenant systems of a VN that name none.
fn defaults(app: &App, tx: &dyn Transaction, vni: Vni) -> Result<BTreeSet<GroupName>, StoreError> {
    let Some(name) = app.directory.vn(vni) else { return Ok(BTreeSet::new()) };
    let mut key = Kind::Vn.prefix().to_vec();
    key.extend_from_slice(name.as_str().as_bytes());
    let spec = tx.get(&key)?.map(|value| decode::<VnSpec>(&key, &value)).transpose()?;
    Ok(spec.map(|spec| spec.default_groups).unwrap_or_default())
}

/// All of a VN's policy.
fn whole(
    app: &App,
    tx: &dyn Transaction,
    vni: Vni,
    each: &mut dyn FnMut(PolicyItem),
) -> Result<(), StoreError> {
    let default_groups = defaults(app, tx, vni)?;
    let by_default = !default_groups.is_empty();
    let mut damaged = None;
    each(PolicyItem::Vn { vni, default_groups });
    for (prefix, is_group) in [(keys::groups(vni), true), (keys::grants(vni), false)] {
        tx.scan(&prefix, &mut |key, value| {
            match item(key, value, is_group, by_default) {
                Ok(item) => item.into_iter().for_each(&mut *each),
                Err(e) => damaged = Some(e),
            }
            damaged.is_none()
        })?;
    }
    damaged.map_or(Ok(()), Err)
}

/// What the value of a group's or grant's key means for policy.
fn item(
    key: &[u8],
    value: &[u8],
    is_group: bool,
    by_default: bool,
) -> Result<Option<PolicyItem>, StoreError> {
    if is_group {
        let GroupView { vni, name, rules, .. } = decode(key, value)?;
        return Ok(Some(PolicyItem::Group { vni, name, rules }));
    }
    let grant = decode::<GrantView>(key, value)?.grant;
    let concerned = by_default || !grant.groups.is_empty();
    let (tsi, ips, groups) = (grant.tsi, grant.ips, grant.groups);
    Ok(concerned.then_some(PolicyItem::Member { vni: tsi.vni, name: tsi.name, ips, groups }))
}

/// A watch's place in the store's history.
struct Place {
    nve: XtrId,
    /// Everything up to here was told.
    from: Revision,
    /// The VNs of which all was told.
    told: BTreeSet<Vni>,
    /// Nothing was told yet: what was known at `from` is what is there, but for what changed since.
    first: bool,
}

/// What changed since the last round.
#[derive(Default)]
struct Changed {
    /// Groups and grants, by VN.
    objects: BTreeMap<Vni, BTreeSet<Vec<u8>>>,
    /// VNs of which everything is to be told again, if anything.
    anew: BTreeSet<Vni>,
}

impl Changed {
    fn add(&mut self, change: &Change, place: &Place) -> Result<(), StoreError> {
        let key = &change.key;
        match Kind::of(key) {
            Some(kind @ (Kind::Group | Kind::Grant)) => {
                let Some((vni, _)) = keys::in_vn(key) else { return Ok(()) };
                let flips = match kind {
                    Kind::Group => change.before.is_none() || change.after.is_none(),
                    _ => watch::mentions(change, place.nve),
                };
                // Told before, or not? That cannot be seen any more.
                if place.first && flips {
                    self.anew.insert(vni);
                }
                self.objects.entry(vni).or_default().insert(key.clone());
            }
            Some(Kind::Connection) if place.first => {
                let value = change.after.as_ref().or(change.before.as_ref());
                let one = value.map(|value| decode::<VnConnection>(key, value)).transpose()?;
                self.anew.extend(one.filter(|one| one.xtr_id == place.nve).map(|one| one.vni));
            }
            Some(Kind::Vn) => {
                let read = |value: &Option<Vec<u8>>| {
                    value.as_ref().map(|value| decode::<VnSpec>(key, value)).transpose()
                };
                let (before, after) = (read(&change.before)?, read(&change.after)?);
                let defaults = |vn: &Option<VnSpec>| vn.as_ref().map(|vn| vn.default_groups.clone());
                if defaults(&before) != defaults(&after) {
                    self.anew.extend(before.or(after).map(|vn| vn.vni));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Place {
    /// Tells what changed up to now; none when the changes are no longer kept: too slow a reader lists again.
    fn round(&mut self, app: &App) -> Result<Option<Vec<u8>>, StoreError> {
        let store = app.registry.store();
        let tx = store.snapshot()?;
        let now = tx.revision();
        let mut changed = Changed::default();
        // The history may be a moment behind what can be read, or ahead of it.
        let mut seen = self.from;
        while seen < now {
            let Ok((changes, complete)) = store.history().after(seen, ROUND) else { return Ok(None) };
            for change in changes.iter().filter(|change| change.revision <= now) {
                changed.add(change, self)?;
            }
            if complete == seen {
                break;
            }
            seen = complete;
        }
        let now = now.min(seen);
        let held = held_in(&*tx, self.nve)?;
        if self.first {
            for vni in held.iter().filter(|vni| !changed.anew.contains(vni)) {
                if governed(&*tx, *vni)? {
                    self.told.insert(*vni);
                }
            }
        }
        let mut lines = Vec::new();
        // Whoever loses the connection within a round hears all of it again.
        let at = self.from;
        let all: BTreeSet<Vni> = self.told.iter().chain(&held).chain(&changed.anew).copied().collect();
        for vni in all {
            let tell = held.contains(&vni) && governed(&*tx, vni)?;
            let known = self.told.contains(&vni);
            let anew = changed.anew.contains(&vni);
            if tell && (!known || anew) {
                whole(app, &*tx, vni, &mut |object| added(&mut lines, at, object))?;
                self.told.insert(vni);
            } else if tell {
                let by_default = !defaults(app, &*tx, vni)?.is_empty();
                for key in changed.objects.get(&vni).into_iter().flatten() {
                    tell_one(&*tx, key, by_default, at, &mut lines)?;
                }
            } else if known || (self.first && anew) {
                self.told.remove(&vni);
                deleted(&mut lines, at, PolicyItem::Vn { vni, default_groups: BTreeSet::new() });
            }
        }
        if self.first || !lines.is_empty() {
            watch::line(&mut lines, &Event::<()>::Bookmark { resource_version: now });
        }
        (self.from, self.first) = (now, false);
        Ok(Some(lines))
    }
}

/// Tells how one object is now.
fn tell_one(
    tx: &dyn Transaction,
    key: &[u8],
    by_default: bool,
    at: Revision,
    lines: &mut Vec<u8>,
) -> Result<(), StoreError> {
    let is_group = Kind::of(key) == Some(Kind::Group);
    let found = tx.get(key)?.map(|value| item(key, &value, is_group, by_default)).transpose()?.flatten();
    let (ips, groups) = (BTreeSet::new(), BTreeSet::new());
    match (found, keys::in_vn(key)) {
        (Some(object), _) => added(lines, at, object),
        (None, Some((vni, name))) if is_group => {
            deleted(lines, at, PolicyItem::Group { vni, name, rules: Default::default() });
        }
        (None, Some((vni, name))) => {
            deleted(lines, at, PolicyItem::Member { vni, name, ips, groups });
        }
        (None, None) => {}
    }
    Ok(())
}

fn added(lines: &mut Vec<u8>, resource_version: Revision, object: PolicyItem) {
    watch::line(lines, &Event::Added { resource_version, object });
}

fn deleted(lines: &mut Vec<u8>, resource_version: Revision, object: PolicyItem) {
    watch::line(lines, &Event::Deleted { resource_version, object });
}

struct Watch {
    app: Arc<App>,
    nve: XtrId,
    place: Option<Place>,
    /// What may be news.
    topics: BTreeMap<Topic, Receiver<Revision>>,
}

impl Watch {
    fn new(app: Arc<App>, nve: XtrId, from: Revision) -> Self {
        // Subscribed first: what is committed from here on is announced.
        let topics = [Topic::Vns, Topic::Groups, Topic::Nves, Topic::GrantsOf(nve)];
        let topics = topics.into_iter().map(|topic| (topic, app.hub.subscribe(topic))).collect();
        let place = Some(Place { nve, from, told: BTreeSet::new(), first: true });
        Self { app, nve, place, topics }
    }

    /// The next lines; none when the watch is over.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let revoked = identify(&self.app, Some(&Role::Nve(self.nve))).is_err();
            if revoked || self.app.stop.is_cancelled() {
                return None;
            }
            self.topics.values_mut().for_each(Receiver::mark_unchanged);
            let (app, mut place) = (self.app.clone(), self.place.take()?);
            // A VN may have very many tenant systems.
            let done = blocking(move || (place.round(&app), place)).await.ok()?;
            let lines = match done {
                (Ok(Some(lines)), place) => {
                    self.follow(&place.told);
                    self.place = Some(place);
                    lines
                }
                (Ok(None), _) => return None,
                (Err(e), _) => {
                    tracing::error!(error = %e, "a watch ends");
                    return None;
                }
            };
            if !lines.is_empty() {
                return Some(lines.into());
            }
            if let Some(bookmark) = self.wait().await? {
                return Some(bookmark);
            }
        }
    }

    /// Hears of the grants of these VNs from now on. What was committed before it did is looked at at once.
    fn follow(&mut self, told: &BTreeSet<Vni>) {
        self.topics.retain(|topic, _| !matches!(topic, Topic::GrantsIn(vni) if !told.contains(vni)));
        for vni in told {
            let topic = Topic::GrantsIn(*vni);
            self.topics.entry(topic).or_insert_with(|| {
                let mut news = self.app.hub.subscribe(topic);
                news.mark_changed();
                news
            });
        }
    }

    /// Waits for news, or for the time of a heartbeat: then its line.
    async fn wait(&mut self) -> Option<Option<Bytes>> {
        let place = self.place.as_mut()?;
        let present = *self.app.registry.store().history().revisions().borrow();
        let news = async {
            let changed = self.topics.values_mut().map(|topic| Box::pin(topic.changed()));
            select_all(changed).await.0.is_ok()
        };
        let woken = tokio::select! {
            news = timeout(watch::HEARTBEAT, news) => news,
            () = self.app.stop.cancelled() => return None,
        };
        match woken {
            Ok(true) => {
                tokio::time::sleep(watch::TOGETHER).await;
                Some(None)
            }
            Ok(false) => None,
            Err(_) => {
                // Of other changes than those announced none concerns it.
                place.from = place.from.max(present);
                let mut lines = Vec::new();
                watch::line(&mut lines, &Event::<()>::Bookmark { resource_version: place.from });
                Some(Some(lines.into()))
            }
        }
    }
}

impl IntoResponse for Watch {
    fn into_response(self) -> Response {
        let body = Body::from_stream(stream::unfold(self, |mut watch| async move {
            let octets = watch.next().await?;
            Some((Ok::<_, Infallible>(octets), watch))
        }));
        ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
    }
}
