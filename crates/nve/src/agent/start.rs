//! From options to a running driver, and the tasks beside it.

use super::driver::{self, Driver};
use super::{
    NveError, NveOptions,
    clock::{self, Clock},
    devices::Link,
    events,
    handover::{self, Bounds, Credentials, Door, Handovers},
    host::Host,
    identity::{self, Identity},
    local::{self, Local},
    look::Look,
    metrics, outputs,
    requests::Requests,
    saver::Saver,
    session, state,
    trace::Traces,
    watch as follow,
};
use crate::core::{Attachment, Config, Core, Device, Limits, OracleAddr, Output, SavedPolicies, Timing};
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::{mpsc, watch};
use weft_api::{Client, JoinToken, Trust};
use weft_datapath::IfIndex;
use weft_model::{BootId, NveName, Rloc, TsMac, Vni};

/// Inputs that may wait for the driver; senders wait beyond.
const INPUTS: usize = 4_096;
pub(super) async fn run(options: NveOptions, shutdown: impl Future<Output = ()>) -> Result<(), NveError> {
    let data = state::DataDir::open(&options.data_dir)?;
    if let Err(error) = weft_datapath::run_promptly() {
        tracing::debug!(%error, "takes its turns as everybody does");
    }
    let boot = BootId(getrandom::u64().map_err(NveError::Random)?);
    let start_number = state::next_start(&data.file("start.json"), clock::date_ms());
    let identity_file = data.file("identity.json");
    let state_file = data.file("state.json");
    let saved = state::load::<state::Saved>(&state_file)?.unwrap_or_default();
    let policies_file = data.file("policies.json");
    let policies = state::load::<SavedPolicies>(&policies_file)?.unwrap_or_default();
    let start = match (state::load::<Identity>(&identity_file)?, &options.join) {
        (Some(identity), join) => {
            joined_so(&identity, &options, &identity_file)?;
            if join.is_some() {
                tracing::info!(identity = %identity_file.display(), "joined before: the token is not used");
            }
            Start::Again(identity)
        }
        (None, None) => return Err(NveError::NotJoined),
        (None, Some(token)) => {
            let token: JoinToken = token.parse()?;
            let name = options.name.clone().map_or_else(host_name, Ok)?;
            let rlocs =
                if options.rlocs.is_empty() { [towards(&token)?].into() } else { options.rlocs.clone() };
            Start::First { token, name, rlocs }
        }
    };
    let (inputs, queue) = mpsc::channel(INPUTS);
    // An Oracle is asked only once nothing here stands in the way: a token is used up by joining, and
    // the underlay addresses are this NVE's from then on.
    let host = Host::take(&options, start.rlocs(), &inputs).await?;
    let identity = match start {
        Start::Again(identity) => identity,
        Start::First { token, name, rlocs } => {
            match identity::join(&identity_file, &token, name, rlocs, boot).await {
                Ok(identity) => identity,
                Err(error) => {
                    host.give_back().await;
                    return Err(error);
                }
            }
        }
    };
    tracing::info!(nve = %identity.name, xtr_id = %identity.xtr_id, rlocs = ?identity.rlocs, "joined");
    let Host {
        links, all, rule, uplinks, tenant_mtu, sockets, peers, scrapes, listener, plane: opened, ..
    } = host;
    let (mut plane, observed) = (opened.plane, opened.observed);
    let traces = Traces::new(plane.steps()).map_err(NveError::file("listen to", "the ring of traces"))?;

    let config = Config {
        xtr_id: identity.xtr_id,
        boot,
        rlocs: identity.rlocs.clone(),
        uplinks: uplinks.iter().map(|l| l.index).collect(),
        oracles: resolvers(&identity)?,
        lisp_port: sockets.port(),
        tenant_mtu,
        veth_path: options.veth_path,
        tap_path: options.tap_path,
        seed: getrandom::u64().map_err(NveError::Random)?,
        limits: Limits::default(),
        timing: Timing::default(),
    };
    let clock = Clock::start();
    let mut core = Core::new(config);
    let devices: Vec<Device> = all.iter().filter_map(Link::device).collect();
    let saver = Saver::start(state_file, saved.clone());
    let policy_saver = Saver::start(policies_file, policies.clone());
    core.remember(saved.vns.clone(), policies, &observed);
    let programs = observed.vaps.iter().map(|(index, vap)| (*index, (vap.vni, vap.mac)));
    core.restore(clock.now(), where_they_are(saved.attachments, &devices, programs), &devices);
    core.give_back(clock.now(), saved.unreleased.clone());
    core.reconnect(saved.connected);
    core.adopt(clock.now(), saved.vns, &observed);
    core.keep_orphans(&devices, &observed);
    // What the outputs so far would change is exactly this, less what is right already.
    while let Some(output) = core.poll_output() {
        match output {
            Output::Notice(notice) => outputs::log(&notice),
            Output::PersistPolicies(saved) => policy_saver.save(saved),
            Output::ClearRule(rule) => drop(plane.clear_rule(rule)),
            _ => {}
        }
    }
    plane.take_over(core.tables().diff(&observed))?;
    // In between, connections may have been found to be allowed by what was to go.
    core.look_again_at_all();
    // An uninstall before has set them down.
    for link in all.iter().filter(|link| !link.up && core.vap_devices().any(|index| index == link.index)) {
        if let Err(error) = links.set(link.index, true).await {
            tracing::warn!(%error, device = %link.name, "cannot set up; set it up by hand");
        }
    }

    let tls = tls_config(&identity, options.tls_key_log.as_deref())?;
    let (tls, tls_now) = watch::channel(tls);
    let (shows, shows_now) = watch::channel(credentials(&identity)?);
    let (client, client_now) =
        watch::channel(Arc::new(Client::of_agent(&identity.endpoint()?, start_number)?));
    let shared = metrics::Shared::default();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(follow::vns(client_now.clone(), inputs.clone()));
    tasks.spawn(follow::nves(client_now.clone(), inputs.clone()));
    tasks.spawn(follow::grants(client_now.clone(), inputs.clone()));
    tasks.spawn(follow::policy(client_now.clone(), inputs.clone()));
    let renewed = Renewed { tls, shows, client, start_number };
    tasks.spawn(renew(identity.clone(), identity_file, renewed, options.tls_key_log.clone()));
    let door = Door::new(identity.xtr_id, shows_now.clone(), inputs.clone(), Bounds::default());
    tasks.spawn(handover::serve(peers, door.map_err(NveError::Credentials)?));
    let reserved =
        uplinks.iter().map(|l| l.name.clone()).chain([options.vxlan_device, "lo".to_owned()]).collect();
    let events = events::Ring::start();
    let followers = events::Followers::new(events.latest());
    let local =
        Local { inputs: inputs.clone(), links: links.clone(), reserved, pin_dir: options.pin_dir, followers };
    for (index, addr) in identity.sessions.iter().enumerate() {
        let seed = boot.0 ^ (index as u64);
        tasks.spawn(session::keep(index, addr.clone(), tls_now.clone(), inputs.clone(), seed, local.clone()));
    }
    let router = local::router(local);
    tasks.spawn(async move { ended("the local API", local::serve(listener, router).await) });
    let scraped = shared.clone();
    tasks.spawn(async move { ended("metrics", metrics::serve(scrapes, scraped).await) });

    let link = |addr: &String| driver::Link { addr: addr.clone(), frames: None, up: false, error: None };
    let driver = Driver {
        clock,
        core,
        plane,
        links,
        sockets,
        sessions: identity.sessions.iter().map(link).collect(),
        client: client_now,
        inputs,
        attaching: BTreeMap::new(),
        parked: Default::default(),
        detaching: BTreeMap::new(),
        activating: BTreeMap::new(),
        deactivating: BTreeMap::new(),
        connecting: Default::default(),
        next_call: 0,
        saver,
        policies: policy_saver,
        tracked: Default::default(),
        name: identity.name,
        xtr_id: identity.xtr_id,
        rlocs: identity.rlocs,
        shared,
        heard_facts: false,
        publish_at: clock.now(),
        unreleased: saved.unreleased,
        reconcile_at: clock.now() + driver::RECONCILE,
        list_at: clock.now() + driver::RECONCILE,
        uplinks: rule,
        look: Look::new(),
        held_back: Default::default(),
        handovers: Handovers::new(shows_now, options.peer_port, Limits::default().moved_connections),
        events,
        requests: Requests::restore(saved.requests),
        traces,
    };
    driver.drive(queue, shutdown).await
}

/// How this start goes.
enum Start {
    /// With what an earlier one got from an Oracle.
    Again(Identity),
    /// By joining.
    First { token: JoinToken, name: NveName, rlocs: BTreeSet<Rloc> },
}

impl Start {
    const fn rlocs(&self) -> &BTreeSet<Rloc> {
        match self {
            Self::Again(identity) => &identity.rlocs,
            Self::First { rlocs, .. } => rlocs,
        }
    }
}

/// Whether the options agree with what this host joined as.
fn joined_so(identity: &Identity, options: &NveOptions, file: &Path) -> Result<(), NveError> {
    if let Some(name) = options.name.clone().filter(|name| *name != identity.name) {
        return Err(NveError::OtherName(name, identity.name.clone()));
    }
    if !options.rlocs.is_empty() && options.rlocs != identity.rlocs {
        return Err(NveError::OtherRlocs { given: options.rlocs.clone(), joined: identity.rlocs.clone() });
    }
    let damaged = |e: NveError| NveError::Damaged { path: file.to_owned(), reason: e.to_string() };
    tls_config(identity, None).map(drop).map_err(damaged)
}

fn ended(what: &'static str, result: std::io::Result<()>) {
    if let Err(error) = result {
        tracing::error!(%error, what, "ended");
    }
}

/// What a new certificate goes into.
struct Renewed {
    tls: watch::Sender<Arc<rustls::ClientConfig>>,
    shows: watch::Sender<Arc<Credentials>>,
    client: watch::Sender<Arc<Client>>,
    start_number: u64,
}

/// Renews the certificate at half of its life.
async fn renew(
    mut identity: Identity,
    file: PathBuf,
    Renewed { tls, shows, client, start_number }: Renewed,
    key_log: Option<PathBuf>,
) {
    loop {
        tokio::time::sleep(identity.renew_in()).await;
        let now = client.borrow().clone();
        let renewed = async {
            let new = identity.renew(&now).await?;
            state::save(&file, &new)?;
            tls.send_replace(tls_config(&new, key_log.as_deref())?);
            client.send_replace(Arc::new(Client::of_agent(&new.endpoint()?, start_number)?));
            shows.send_replace(credentials(&new)?);
            Ok::<_, NveError>(new)
        };
        match renewed.await {
            Ok(new) => {
                identity = new;
                tracing::info!(date = clock::date(), "certificate renewed");
            }
            Err(error) => tracing::warn!(%error, "cannot renew the certificate; trying again"),
        }
    }
}

fn tls_config(identity: &Identity, key_log: Option<&Path>) -> Result<Arc<rustls::ClientConfig>, NveError> {
    let mut config = weft_api::tls_config(&Trust::Ca(identity.ca.clone()), Some(&identity.shown()))?;
    if let Some(path) = key_log {
        config.key_log = Arc::new(session::KeyLogTo::open(path).map_err(NveError::file("open", path))?);
    }
    Ok(Arc::new(config))
}

fn credentials(identity: &Identity) -> Result<Arc<Credentials>, NveError> {
    let made = Credentials::new(&identity.ca, &identity.shown());
    made.map(Arc::new).map_err(|e| NveError::Credentials(e.to_string()))
}

fn host_name() -> Result<NveName, NveError> {
    let name = nix::unistd::gethostname().map_err(|e| NveError::File {
        action: "read",
        path: "the host's name".into(),
        source: e.into(),
    })?;
    NveName::new(name.to_string_lossy().to_lowercase()).map_err(NveError::HostName)
}

fn resolve(what: &'static str, value: &str) -> Result<SocketAddr, NveError> {
    let bad = || NveError::Address { what, value: value.to_owned() };
    value.to_socket_addrs().map_err(|_| bad())?.next().ok_or_else(bad)
}

fn resolvers(identity: &Identity) -> Result<Vec<OracleAddr>, NveError> {
    identity.lisp.iter().map(|a| Ok(OracleAddr { resolver: resolve("Map-Resolver", a)? })).collect()
}

/// The source address towards the Oracle of a token: what a connected UDP socket gets.
fn towards(token: &JoinToken) -> Result<Rloc, NveError> {
    let oracle = token.oracles.first().cloned().unwrap_or_default();
    let addr = resolve("/v1", oracle.trim_start_matches("https://"))?;
    let local = || {
        let any: IpAddr = if addr.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let socket = std::net::UdpSocket::bind((any, 0))?;
        socket.connect(addr)?;
        socket.local_addr()
    };
    let local = local().map_err(|source| NveError::NoRloc { oracle: oracle.clone(), source })?;
    let unusable = |e| NveError::NoRloc { oracle, source: std::io::Error::other(e) };
    Rloc::new(local.ip()).map_err(unusable)
}

/// What was attached, at the devices that have its programs: one that was renamed meanwhile is its still, and a
/// stranger's that has its name by now is not.
fn where_they_are(
    mut attachments: Vec<Attachment>,
    devices: &[Device],
    programs: impl Iterator<Item = (IfIndex, (Vni, TsMac))>,
) -> Vec<Attachment> {
    let names: BTreeMap<IfIndex, &str> = devices.iter().map(|d| (d.index, d.name.as_str())).collect();
    let at: BTreeMap<_, &str> =
        programs.filter_map(|(index, whose)| Some((whose, *names.get(&index)?))).collect();
    for Attachment { device, grant, .. } in &mut attachments {
        if let Some(name) = at.get(&(grant.tsi.vni, grant.mac)).filter(|name| **name != device.as_str()) {
            tracing::info!(tsi = %grant.tsi, from = %device, to = %name, "device renamed");
            (*name).clone_into(device);
        }
    }
    attachments
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_datapath::VapKind;

    /// Names changed while no agent ran: two are swapped, one has another's name now, one is gone.
    #[test]
    fn h1_what_has_its_program_is_its_device_whatever_its_name() {
        let attachment = |n: u8, device: &str| -> Attachment {
            let text = format!(
                r#"{{"vn":"red","device":"{device}","tap":true,"grant":{{"tsi":{{"vni":7,"name":"t{n}"}},
                "mac":"02:00:00:00:00:0{n}","ips":["10.0.0.{n}"],"owner":"{:032x}","epoch":1}}}}"#,
                1
            );
            serde_json::from_str(&text).unwrap()
        };
        let all = vec![attachment(1, "a"), attachment(2, "b"), attachment(3, "c"), attachment(4, "d")];
        let device = |(index, name): (u32, &str)| Device {
            name: name.to_owned(),
            index: IfIndex(index),
            kind: VapKind::Tap,
        };
        // 4's device is gone, and there is a new one of its name.
        let devices = [(1, "b"), (2, "a"), (3, "renamed"), (8, "c"), (9, "d")].map(device);
        let whose = all.iter().map(|attachment| (attachment.grant.tsi.vni, attachment.grant.mac));
        let programs: Vec<_> = (1..).map(IfIndex).zip(whose).collect();
        let names: Vec<String> =
            where_they_are(all, &devices, programs.into_iter()).into_iter().map(|a| a.device).collect();
        assert_eq!(names, ["b", "a", "renamed", "d"]);
    }
}
