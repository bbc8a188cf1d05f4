//! From options to a running driver, and the tasks beside it.

use super::driver::{self, Driver};
use super::{
    NveError, NveOptions,
    clock::{self, Clock},
    devices::{Link, Links},
    identity::{self, Identity},
    lisp::LispSockets,
    local::{self, Local},
    look::Look,
    metrics,
    plane::Plane,
    session, state, watch as follow,
};
use crate::core::{Config, Core, Device, Limits, OracleAddr, Output, Timing};
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    path::PathBuf,
    sync::Arc,
};
use tokio::sync::{mpsc, watch};
use weft_api::{Client, JoinToken, Trust};
use weft_model::{BootId, NveName, Rloc};

/// Inputs that may wait for the driver; senders wait beyond.
const INPUTS: usize = 4_096;
/// Encapsulation takes this much of the underlay's MTU.
const OVERHEAD_V4: u16 = 50;
const OVERHEAD_V6: u16 = 70;
/// IPv6's least MTU (RFC 8200 section 5).
const LEAST_MTU: u16 = 1_280;

pub(super) async fn run(options: NveOptions, shutdown: impl Future<Output = ()>) -> Result<(), NveError> {
    let data = state::DataDir::open(&options.data_dir)?;
    let listener = local::listen(&options.socket)?;
    let scrapes = metrics::listen(options.http_listen).await?;
    let boot = BootId(getrandom::u64().map_err(NveError::Random)?);
    let identity_file = data.file("identity.json");
    let saved = state::load::<Identity>(&identity_file)?;
    let known = saved.is_some();
    let identity = match (saved, &options.join) {
        (Some(identity), _) => {
            if let Some(name) = options.name.filter(|name| *name != identity.name) {
                return Err(NveError::OtherName(name, identity.name));
            }
            if !options.rlocs.is_empty() && options.rlocs != identity.rlocs {
                return Err(NveError::OtherRlocs { given: options.rlocs, joined: identity.rlocs });
            }
            let path = identity_file.clone();
            tls_config(&identity, None).map_err(|e| NveError::Damaged { path, reason: e.to_string() })?;
            identity
        }
        (None, None) => return Err(NveError::NotJoined),
        (None, Some(token)) => {
            let token: JoinToken = token.parse()?;
            // A token is not used up for an agent that could do nothing afterwards.
            if !privileged() {
                return Err(NveError::Privileges);
            }
            let name = options.name.map_or_else(host_name, Ok)?;
            let rlocs =
                if options.rlocs.is_empty() { [towards(&token)?].into() } else { options.rlocs.clone() };
            identity::join(&identity_file, &token, name, rlocs, boot).await?
        }
    };
    if known && options.join.is_some() {
        tracing::info!(identity = %identity_file.display(), "joined before: the token is not used");
    }
    tracing::info!(nve = %identity.name, xtr_id = %identity.xtr_id, rlocs = ?identity.rlocs, "joined");

    let (inputs, queue) = mpsc::channel(INPUTS);
    let links = Links::open(inputs.clone())?;
    let all = links.all().await?;
    let uplinks = uplinks(&options.uplinks, &identity.rlocs, &all, &options.vxlan_device)?;
    let tenant_mtu = match options.tenant_mtu {
        None => tenant_mtu(&uplinks, &identity.rlocs)?,
        Some(mtu) => {
            let most = tenant_mtu(&uplinks, &identity.rlocs)?;
            if !(LEAST_MTU..=most).contains(&mtu) {
                return Err(NveError::TenantMtu { mtu, least: LEAST_MTU, most });
            }
            mtu
        }
    };
    let plane_options = (options.pin_dir.clone(), options.vxlan_device.clone());
    let mut plane = tokio::task::spawn_blocking(move || Plane::open(plane_options.0, plane_options.1))
        .await
        .map_err(|_| NveError::Ended("the data plane"))??;
    plane.listen().map_err(NveError::file("listen to", "the punt ring"))?;
    let observed = plane.observed()?;

    let sockets = LispSockets::bind(&identity.rlocs, options.lisp_port)?;
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
    let state_file = data.file("state.json");
    let saved = state::load::<state::Saved>(&state_file)?.unwrap_or_default();
    let devices: Vec<Device> = all.iter().map(Link::device).collect();
    core.restore(clock.now(), saved.attachments, &devices);
    core.adopt(clock.now(), saved.vns, &observed);
    // What the outputs so far would change is exactly this, less what is right already.
    while let Some(output) = core.poll_output() {
        if let Output::Notice(notice) = output {
            driver::log(&notice);
        }
    }
    for op in core.tables().diff(&observed) {
        plane.apply(&op)?;
    }

    let tls = tls_config(&identity, options.tls_key_log.as_deref())?;
    let (tls, tls_now) = watch::channel(tls);
    let (client, client_now) = watch::channel(Arc::new(Client::new(&identity.endpoint()?)?));
    let (saving, saves) = watch::channel(None);
    let shared = metrics::Shared::default();
    let mut tasks = tokio::task::JoinSet::new();
    for (index, addr) in identity.sessions.iter().enumerate() {
        let seed = boot.0 ^ (index as u64);
        tasks.spawn(session::keep(index, addr.clone(), tls_now.clone(), inputs.clone(), seed));
    }
    tasks.spawn(follow::vns(client_now.clone(), inputs.clone()));
    tasks.spawn(follow::nves(client_now.clone(), inputs.clone()));
    tasks.spawn(follow::grants(client_now.clone(), inputs.clone()));
    tasks.spawn(save(state_file.clone(), saves));
    tasks.spawn(renew(identity.clone(), identity_file, tls, client, options.tls_key_log.clone()));
    let reserved =
        uplinks.iter().map(|l| l.name.clone()).chain([options.vxlan_device, "lo".to_owned()]).collect();
    let router = local::router(Local { inputs: inputs.clone(), links, reserved });
    tasks.spawn(async move { ended("the local API", local::serve(listener, router).await) });
    let scraped = shared.clone();
    tasks.spawn(async move { ended("metrics", metrics::serve(scrapes, scraped).await) });

    let link = |addr: &String| driver::Link { addr: addr.clone(), frames: None, up: false, error: None };
    let driver = Driver {
        clock,
        core,
        plane,
        sockets,
        sessions: identity.sessions.iter().map(link).collect(),
        client: client_now,
        inputs,
        attaching: BTreeMap::new(),
        detaching: BTreeMap::new(),
        next_call: 0,
        state: state_file,
        saving,
        name: identity.name,
        xtr_id: identity.xtr_id,
        rlocs: identity.rlocs,
        shared,
        heard_facts: false,
        look: Look::new(),
    };
    driver.drive(queue, shutdown).await
}

fn ended(what: &'static str, result: std::io::Result<()>) {
    if let Err(error) = result {
        tracing::error!(%error, what, "ended");
    }
}

/// Writes the state whenever it changed, off the runtime; a burst of changes is one write.
async fn save(path: PathBuf, mut saves: watch::Receiver<Option<state::Saved>>) {
    while saves.changed().await.is_ok() {
        let Some(saved) = saves.borrow_and_update().clone() else { continue };
        let file = path.clone();
        match tokio::task::spawn_blocking(move || state::save(&file, &saved)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(%error, "cannot save; a restart would need an Oracle to recover");
            }
            Err(error) => tracing::error!(%error, "saving ended"),
        }
    }
}

/// Renews the certificate at half of its life.
async fn renew(
    mut identity: Identity,
    file: PathBuf,
    tls: watch::Sender<Arc<rustls::ClientConfig>>,
    client: watch::Sender<Arc<Client>>,
    key_log: Option<PathBuf>,
) {
    loop {
        tokio::time::sleep(identity.renew_in()).await;
        let now = client.borrow().clone();
        let renewed = async {
            let new = identity.renew(&now).await?;
            state::save(&file, &new)?;
            tls.send_replace(tls_config(&new, key_log.as_deref())?);
            client.send_replace(Arc::new(Client::new(&new.endpoint()?)?));
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

fn tls_config(
    identity: &Identity,
    key_log: Option<&std::path::Path>,
) -> Result<Arc<rustls::ClientConfig>, NveError> {
    let mut config = weft_api::tls_config(&Trust::Ca(identity.ca.clone()), Some(&identity.shown()))?;
    if let Some(path) = key_log {
        config.key_log = Arc::new(session::KeyLogTo::open(path).map_err(NveError::file("open", path))?);
    }
    Ok(Arc::new(config))
}

/// Whether this process may make a data plane (capabilities(7)); where that cannot be told, it may try.
fn privileged() -> bool {
    const NET_ADMIN: u64 = 1 << 12;
    const SYS_ADMIN: u64 = 1 << 21;
    const BPF: u64 = 1 << 39;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(held) = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()) else { return true };
    held & NET_ADMIN != 0 && held & (BPF | SYS_ADMIN) != 0
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

/// The devices that lead to other RLOCs: those named, or those that have one of ours.
fn uplinks(
    named: &[String],
    rlocs: &BTreeSet<Rloc>,
    links: &[Link],
    vxlan: &str,
) -> Result<Vec<Link>, NveError> {
    let by_name = |name: &String| {
        links.iter().find(|l| l.name == *name).cloned().ok_or_else(|| NveError::UnknownUplink(name.clone()))
    };
    if !named.is_empty() {
        return named.iter().map(by_name).collect();
    }
    let addresses: Vec<_> = nix::ifaddrs::getifaddrs().map(Iterator::collect).unwrap_or_default();
    let mut found: Vec<Link> = Vec::new();
    for rloc in rlocs {
        let on = |a: &&nix::ifaddrs::InterfaceAddress| {
            let ip = a.address.as_ref().and_then(|s| {
                let v4 = s.as_sockaddr_in().map(|s| IpAddr::V4(s.ip()));
                v4.or_else(|| s.as_sockaddr_in6().map(|s| IpAddr::V6(s.ip())))
            });
            ip == Some(rloc.get())
        };
        let device = addresses.iter().find(on).ok_or(NveError::NoUplink { rloc: *rloc })?;
        if device.interface_name == "lo" {
            // An address on loopback is reached over any link.
            found.extend(
                links.iter().filter(|l| l.name != "lo" && l.name != vxlan && l.kind.is_none()).cloned(),
            );
        } else {
            found.push(by_name(&device.interface_name)?);
        }
    }
    found.sort_by_key(|l| l.index);
    found.dedup_by_key(|l| l.index);
    Ok(found)
}

fn tenant_mtu(uplinks: &[Link], rlocs: &BTreeSet<Rloc>) -> Result<u16, NveError> {
    let overhead = if rlocs.iter().any(|r| r.get().is_ipv6()) { OVERHEAD_V6 } else { OVERHEAD_V4 };
    let Some(smallest) = uplinks.iter().min_by_key(|l| l.mtu) else { return Ok(1_500 - overhead) };
    let mtu = u16::try_from(smallest.mtu.saturating_sub(overhead.into())).unwrap_or(u16::MAX - overhead);
    if mtu < LEAST_MTU {
        let (device, mtu) = (smallest.name.clone(), smallest.mtu);
        return Err(NveError::Mtu { device, mtu, least: LEAST_MTU, overhead });
    }
    Ok(mtu)
}
