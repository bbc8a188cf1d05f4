//! From options to a running daemon and back.

use super::{
    Addresses, App, OracleError, OracleOptions, api,
    clock::{Clock, unix_seconds},
    descriptors,
    duplicates::Duplicates,
    hub::Hub,
    metrics,
    nonces::{self, Nonces},
    session::{self, Sessions},
    shard::{Input, Order, Out, ShardHandle, ShardThread},
    tls::{self, Certificate, Clients, KeyLogTo},
    udp::Udp,
};
use crate::{
    core::{Fact, ShardConfig, shard_of},
    pki::{Ca, PERSON_TTL_S, ca_exists},
    registry::{Directory, Kind, Registry, fact, saved_nonce, subscription_nonces},
    store::{Change, Observer, RedbStore, Snapshot, Store, StoreError},
};
use core::future::Future;
use rustls::{KeyLog, ServerConfig};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use weft_api::{Context, Role};
use weft_model::{BootId, Epoch, TsiId, XtrId};

/// Runs an Oracle until `shutdown` completes.
///
/// # Errors
/// [`OracleError`] when it cannot start, or when a thread it cannot do without has ended.
pub async fn run(
    options: OracleOptions,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), OracleError> {
    Oracle::start(options).await?.run(shutdown).await
}

/// Credentials for a person or program, made beside a running Oracle or a stopped one: the CA's key
/// in the data directory is all it takes. Good for a year unless `ttl_s` says otherwise.
///
/// # Errors
/// [`OracleError::Pki`] or [`OracleError::Context`] when the data directory is no Oracle's.
pub fn credentials(data_dir: &Path, role: &Role, ttl_s: Option<u64>) -> Result<Context, OracleError> {
    let operator = Context::load(&data_dir.join("operator.json"))?;
    let now = unix_seconds();
    let ca = Ca::open(data_dir, now)?;
    context(&ca, role, operator.oracles, now, ttl_s.unwrap_or(PERSON_TTL_S))
}

fn context(ca: &Ca, role: &Role, oracles: Vec<String>, now: u64, ttl: u64) -> Result<Context, OracleError> {
    let made = ca.credentials(role, now, ttl)?;
    Ok(Context { oracles, ca: ca.pem().to_owned(), certificate: made.certificate, key: made.key })
}

/// An Oracle whose ports are open.
pub struct Oracle {
    app: Arc<App>,
    threads: Vec<JoinHandle<()>>,
    /// Cancelled by a thread that ended though it must not.
    died: CancellationToken,
    metrics: Option<SocketAddr>,
}

/// One listener an address; all share one port, the first one's when any was asked for.
fn bind_all<L>(
    what: &'static str,
    options: &OracleOptions,
    port: u16,
    mut bind: impl FnMut(SocketAddr) -> io::Result<(L, u16)>,
) -> Result<(Vec<(IpAddr, L)>, u16), OracleError> {
    let mut bound = Vec::new();
    let mut port = port;
    for ip in &options.listen {
        let address = SocketAddr::new(*ip, port);
        match bind(address) {
            Ok((listener, got)) => {
                port = got;
                bound.push((*ip, listener));
            }
            // A wildcard of a family this host does not have.
            Err(e) if ip.is_unspecified() && no_family(&e) => {
                tracing::info!(%address, what, "passed over: this host does not have the family");
            }
            Err(source) => return Err(OracleError::Listen { what, address, source }),
        }
    }
    if bound.is_empty() { Err(OracleError::NoAddress) } else { Ok((bound, port)) }
}

fn no_family(e: &io::Error) -> bool {
    use nix::libc::{EADDRNOTAVAIL, EAFNOSUPPORT};
    matches!(e.raw_os_error(), Some(EAFNOSUPPORT | EADDRNOTAVAIL))
}

fn tcp(address: SocketAddr) -> io::Result<(TcpListener, u16)> {
    let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    let listener = TcpListener::from_std(socket.into())?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

fn random() -> Result<u64, OracleError> {
    getrandom::u64().map_err(|e| OracleError::System { what: "get random numbers", source: e.into() })
}

/// Everything the store holds that the mapping database must know.
fn facts(tx: &dyn Snapshot) -> Result<Vec<Fact>, StoreError> {
    let mut facts = Vec::new();
    // NVEs before the grants that name them: answers from grants then have their RLOCs at once.
    for kind in [Kind::Vn, Kind::Nve, Kind::Xtr, Kind::Grant] {
        let mut damaged = None;
        tx.scan(kind.prefix(), &mut |key, value| {
            let change = Change { revision: 0, key: key.to_vec(), before: None, after: Some(value.to_vec()) };
            match fact(&change) {
                Ok(found) => facts.extend(found),
                Err(e) => damaged = Some(e),
            }
            damaged.is_none()
        })?;
        if let Some(e) = damaged {
            return Err(e);
        }
    }
    for fact in &mut facts {
        if let Fact::Xtr(xtr) = fact {
            xtr.saved_nonce = saved_nonce(tx, xtr.xtr_id)?;
            xtr.subscription_nonces = subscription_nonces(tx, xtr.xtr_id)?;
        }
    }
    Ok(facts)
}

/// Which shard a fact is for; none, all.
fn owner(fact: &Fact, shards: usize) -> Option<usize> {
    let vni = match fact {
        Fact::Vn(spec) => spec.vni,
        Fact::VnGone(vni) => *vni,
        Fact::Grant(grant) => grant.tsi.vni,
        Fact::GrantGone(tsi) => tsi.vni,
        Fact::Nve(_) | Fact::NveGone(_) | Fact::Xtr(_) | Fact::FactsLoaded => return None,
    };
    Some(shard_of(vni.get(), shards))
}

impl Oracle {
    /// Opens the data directory and all ports.
    ///
    /// # Errors
    /// [`OracleError`], one line each.
    pub async fn start(options: OracleOptions) -> Result<Self, OracleError> {
        descriptors::raise(session::SESSIONS + api::CONNECTIONS);
        let clock = Clock::start();
        let opened = options.clone();
        let blocking = tokio::task::spawn_blocking(move || open(&opened));
        let Opened { store, directory, ca, facts } =
            blocking.await.map_err(|_| OracleError::Died("start"))??;

        let count = options.shard_count();
        let (sessions_tcp, session_port) = bind_all("sessions (TCP)", &options, options.session_port, tcp)?;
        let (api_tcp, api_port) = bind_all("/v1 (TCP)", &options, options.api_port, tcp)?;
        let (sockets, lisp_port) = bind_all("LISP (UDP)", &options, options.lisp_port, |address| {
            let first = Udp::bind(address)?;
            let port = first.port()?;
            let mut all = vec![first];
            for _ in 1..count {
                all.push(Udp::bind(SocketAddr::new(address.ip(), port))?);
            }
            Ok((all, port))
        })?;
        let metrics_tcp = match options.metrics {
            None => None,
            Some(address) => {
                let listen = |source| OracleError::Listen { what: "metrics (TCP)", address, source };
                Some(tcp(address).map_err(listen)?.0)
            }
        };
        let listening: Vec<IpAddr> = api_tcp.iter().map(|(ip, _)| *ip).collect();
        let addresses = Addresses::new(&options, &listening, (api_port, session_port, lisp_port));

        let died = CancellationToken::new();
        let (orders, queue) = mpsc::unbounded_channel();
        let nonces = Arc::new(Nonces::default());
        let duplicates = Arc::new(Duplicates::default());
        let out = Out { orders, nonces: nonces.clone(), duplicates: duplicates.clone() };
        let (shards, threads) = shards(&options, count, sockets, &facts, &out, clock, &died)?;
        let stop = CancellationToken::new();
        let certificate = Arc::new(Certificate::new(&ca, options.name.as_str(), addresses.names())?);
        let app = Arc::new(App {
            name: options.name.clone(),
            data_dir: options.data_dir.clone(),
            clock,
            registry: Registry::new(store).with_limits(options.policy),
            directory: Arc::new(directory),
            ca,
            certificate: certificate.clone(),
            shards,
            sessions: Arc::default(),
            desk: Default::default(),
            duplicates,
            hub: Arc::default(),
            tasks: TaskTracker::new(),
            addresses,
            stop: stop.clone(),
        });
        observe(&app);
        write_context(&app, &options)?;

        let key_log = options.tls_key_log.as_deref().map(KeyLogTo::open).transpose()?;
        let key_log = key_log.map(|log| Arc::new(log) as Arc<dyn KeyLog>);
        let config = |clients| tls::config(&app.ca, certificate.clone(), clients, key_log.clone());
        let session_config = Arc::new(config(Clients::Must)?);
        let api_config: ServerConfig = config(Clients::May)?;

        let metrics = metrics_tcp.as_ref().and_then(|l| l.local_addr().ok());
        let tracker = app.tasks.clone();
        for (_, listener) in sessions_tcp {
            tracker.spawn(session::serve(app.clone(), listener, session_config.clone(), stop.clone()));
        }
        for (_, listener) in api_tcp {
            tracker.spawn(api::serve(app.clone(), listener, api_config.clone(), stop.clone()));
        }
        if let Some(listener) = metrics_tcp {
            tracker.spawn(metrics::serve(app.clone(), listener, stop.clone()));
        }
        tracker.spawn(carry_out(app.clone(), queue));
        tracker.spawn(nonces::save(app.clone(), nonces));
        tracker.spawn(renew(app.clone()));
        tracing::info!(
            name = %app.name, api = ?app.addresses.api, sessions = ?app.addresses.sessions,
            lisp = ?app.addresses.lisp, ?metrics, shards = count, "Oracle is up"
        );
        Ok(Self { app, threads, died, metrics })
    }

    /// By which addresses it is to be reached.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.app.addresses
    }

    /// Where metrics are.
    #[must_use]
    pub const fn metrics(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// Serves until `shutdown` completes, then ends in order.
    ///
    /// # Errors
    /// [`OracleError::Died`] when a thread it cannot do without has ended.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), OracleError> {
        let died = tokio::select! {
            () = shutdown => false,
            () = self.died.cancelled() => true,
        };
        self.app.stop.cancel();
        self.app.tasks.close();
        // Tasks end by themselves; one that hangs must not keep the process.
        drop(tokio::time::timeout(Duration::from_secs(5), self.app.tasks.wait()).await);
        for shard in &self.app.shards {
            shard.send(Input::Stop).await;
        }
        let Self { app, threads, .. } = self;
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                // A panic in it has been reported by the panic hook.
                drop(thread.join());
            }
            // The last owner waits for the store's thread.
            drop(app);
        });
        drop(joined.await);
        tracing::info!("Oracle has ended");
        if died { Err(OracleError::Died("shard")) } else { Ok(()) }
    }
}

struct Opened {
    store: Arc<dyn Store>,
    directory: Directory,
    ca: Ca,
    facts: Vec<Fact>,
}

fn open(options: &OracleOptions) -> Result<Opened, OracleError> {
    // A first start makes the store before the CA. A CA without a store has lost it: to begin anew would
    // hand out again what is granted.
    let (dir, history) = (&options.data_dir, options.history);
    let store =
        if ca_exists(dir) { RedbStore::open_existing(dir, history) } else { RedbStore::open(dir, history) };
    let store: Arc<dyn Store> = Arc::new(store?);
    let ca = Ca::open(&options.data_dir, unix_seconds())?;
    let tx = store.snapshot()?;
    let (directory, facts) = (Directory::load(&*tx)?, facts(&*tx)?);
    drop(tx);
    Ok(Opened { store, directory, ca, facts })
}

/// Where to reach them, and what is to be joined.
type Shards = (Vec<ShardHandle>, Vec<JoinHandle<()>>);

fn shards(
    options: &OracleOptions,
    count: usize,
    sockets: Vec<(IpAddr, Vec<Udp>)>,
    facts: &[Fact],
    out: &Out,
    clock: Clock,
    died: &CancellationToken,
) -> Result<Shards, OracleError> {
    let boot_id = BootId(random()?);
    let mut sockets: Vec<_> = sockets.into_iter().map(|(_, all)| all.into_iter()).collect();
    let mut made = Vec::new();
    for index in 0..count {
        let config = ShardConfig {
            index,
            shards: count,
            boot_id,
            seed: random()?,
            limits: options.limits.clone(),
            timing: options.timing.clone(),
            ttl: options.ttl.clone(),
        };
        let mine = sockets.iter_mut().filter_map(Iterator::next).collect();
        let (mut thread, handle) = ShardThread::new(config, mine, out.clone(), clock)
            .map_err(OracleError::system("make an event descriptor"))?;
        thread.facts = facts.iter().filter(|f| owner(f, count).is_none_or(|o| o == index)).cloned().collect();
        thread.facts.push(Fact::FactsLoaded);
        made.push((thread, handle));
    }
    let handles: Vec<_> = made.iter().map(|(_, handle)| handle.clone()).collect();
    let mut threads = Vec::new();
    for (index, (thread, _)) in made.into_iter().enumerate() {
        let (all, died) = (handles.clone(), died.clone());
        let spawned = std::thread::Builder::new().name(format!("shard {index}")).spawn(move || {
            // Also when it panics: an Oracle that has lost a shard must not look alive.
            let _guard = died.drop_guard();
            if let Err(e) = thread.run(all) {
                tracing::error!(error = %e, index, "a shard cannot go on");
            }
        });
        threads.push(spawned.map_err(OracleError::system("start a thread"))?);
    }
    Ok((handles, threads))
}

/// Carries each commit to the directory and the shards before its caller is answered, and to who
/// watches after that.
struct Publisher {
    directory: Arc<Directory>,
    shards: Vec<ShardHandle>,
    sessions: Arc<Sessions>,
    hub: Arc<Hub>,
}

impl Observer for Publisher {
    fn committed(&mut self, changes: &[Arc<Change>]) {
        for change in changes {
            if let Err(e) = publish(change, &self.directory, &self.shards, &self.sessions) {
                tracing::error!(error = %e, "a committed change cannot be read back");
            }
        }
    }

    fn told(&mut self, changes: &[Arc<Change>]) {
        for change in changes {
            if let Err(e) = self.hub.announce(change) {
                tracing::error!(error = %e, "a committed change cannot be announced");
            }
        }
    }
}

fn observe(app: &App) {
    let (directory, shards) = (app.directory.clone(), app.shards.clone());
    let (sessions, hub) = (app.sessions.clone(), app.hub.clone());
    app.registry.store().observe(Box::new(Publisher { directory, shards, sessions, hub }));
}

fn publish(
    change: &Change,
    directory: &Directory,
    shards: &[ShardHandle],
    sessions: &Sessions,
) -> Result<(), StoreError> {
    directory.apply(change)?;
    let Some(fact) = fact(change)? else { return Ok(()) };
    if let Fact::NveGone(id) = &fact {
        sessions.end(*id);
    }
    let owner = owner(&fact, shards.len());
    for (index, shard) in shards.iter().enumerate() {
        if owner.is_none_or(|owner| owner == index) {
            shard.send_blocking(Input::Fact(fact.clone()));
        }
    }
    Ok(())
}

/// The operator's context is made anew at each start: addresses may have changed, certificates age.
fn write_context(app: &App, options: &OracleOptions) -> Result<(), OracleError> {
    let oracles = app.addresses.api.iter().map(|api| format!("https://{api}")).collect();
    let role = Role::Operator("admin".to_owned());
    let made = context(&app.ca, &role, oracles, unix_seconds(), PERSON_TTL_S)?;
    made.save(&options.context_path())?;
    Ok(())
}

/// The first wait before a new holder is written down again, and the longest.
const RETRY: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Writes a new holder down that the store has refused.
async fn succeed_at_last(app: &App, tsi: TsiId, nve: XtrId, epoch: Epoch) {
    let mut wait = RETRY;
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = app.stop.cancelled() => return,
        }
        if app.registry.succeed(tsi.clone(), nve, epoch).await.is_ok() {
            tracing::info!(%tsi, %nve, "the new holder is written down");
            return;
        }
        wait = (wait * 2).min(RETRY_MAX);
    }
}

/// Writes down what the shards have found out.
async fn carry_out(app: Arc<App>, mut queue: mpsc::UnboundedReceiver<Order>) {
    loop {
        let order = tokio::select! {
            order = queue.recv() => order,
            () = app.stop.cancelled() => return,
        };
        match order {
            Some(Order::Succeed { tsi, nve, epoch }) => {
                if let Err(e) = app.registry.succeed(tsi.clone(), nve, epoch).await {
                    tracing::error!(error = %e, %tsi, %nve, "the new holder cannot be written down; trying again");
                    // Until it is, the former one could hold it again. What has changed meanwhile ends it.
                    let again = app.clone();
                    app.tasks.spawn(async move { succeed_at_last(&again, tsi, nve, epoch).await });
                }
            }
            Some(Order::SaveNonce { shard, xtr, nonce }) => {
                // Not acknowledged unless saved: the xTR sends it again.
                match app.registry.save_nonce(xtr, nonce).await {
                    Ok(()) => {
                        if let Some(shard) = app.shards.get(shard) {
                            shard.send(Input::NonceSaved { xtr, nonce }).await;
                        }
                    }
                    Err(e) => tracing::error!(error = %e, %xtr, "a nonce cannot be saved"),
                }
            }
            // On its own: it waits for shards, and what waits behind it need not.
            Some(Order::Share(shared)) => {
                let asked = app.clone();
                app.tasks.spawn(async move { shared.carry_out(&asked.shards).await });
            }
            None => return,
        }
    }
}

/// A fresh server certificate each day.
async fn renew(app: Arc<App>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(86_400)) => {}
            () = app.stop.cancelled() => return,
        }
        if let Err(e) = app.certificate.renew(&app.ca) {
            tracing::error!(error = %e, "the server certificate cannot be renewed; the old one stays");
        }
    }
}
