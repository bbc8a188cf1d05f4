//! Load: an NVE that has no data plane and no tenant systems, joins as any other, and holds and registers as
//! many of them as it is told. What an Oracle and its other NVEs make of that is real.
//!
//! It lives on a thread in its host's network namespace and does one thing at a time; calls block.

mod crowd;
mod session;

pub use crowd::{Act, Contact, Crowd, Member, Played};

use anyhow::{Context as _, Result, anyhow};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use rcgen::{CertificateParams, KeyPair};
use session::Session;
use std::{net::IpAddr, ops::Range, sync::mpsc, thread::JoinHandle, time::Duration};
use weft_api::{Client, Endpoint, GrantRequest, Identity, JoinRequest, JoinToken, Trust};
use weft_lab::{Lab, NetNs};
use weft_model::{Grant, MacAddr, Name, NveName, Rloc, TsiName, VnName, XtrId};

/// Grants asked for at once: the Oracle writes those that are waiting together.
const AT_ONCE: usize = 128;
/// Between two tries to reach an Oracle that is starting.
const RETRY: Duration = Duration::from_millis(50);
/// How long one call may take.
const CEILING: Duration = Duration::from_secs(300);

/// What a registration is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registering {
    /// Activated here.
    Activated,
    /// Gone.
    Withdrawn,
}

enum Order {
    Grant(VnName, String, usize, mpsc::Sender<Result<Vec<MacAddr>>>),
    Register(Range<usize>, Registering, mpsc::Sender<Result<Duration>>),
    Reconnect(mpsc::Sender<Result<()>>),
}

/// A scripted NVE. Dropped, its session ends.
#[derive(Debug)]
pub struct Load {
    orders: Option<mpsc::Sender<Order>>,
    macs: Vec<MacAddr>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Joins the Oracle of `lab` as `host`, which must be a host without an NVE.
    ///
    /// # Errors
    /// When it cannot join or open its session.
    pub fn join(lab: &Lab, host: &str) -> Result<Self> {
        let (token, rloc, namespace) = (lab.token(1)?, lab.rloc(host)?, lab.node(host)?);
        let name = NveName::new(host).map_err(|e| anyhow!("{host}: {e}"))?;
        let (orders, inbox) = mpsc::channel();
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::spawn(move || live(&namespace, &token, name, rloc, &ready, &inbox));
        let load = Self { orders: Some(orders), macs: Vec::new(), thread: Some(thread) };
        is_ready.recv().context("the thread ended early")??;
        Ok(load)
    }

    /// Takes `count` grants more in `vn`, for interfaces called `prefix` and a number, with whatever
    /// addresses the Oracle assigns.
    ///
    /// # Errors
    /// When the Oracle refuses one.
    pub fn grant(&mut self, vn: &str, prefix: &str, count: usize) -> Result<()> {
        let vn = VnName::new(vn).map_err(|e| anyhow!("{vn}: {e}"))?;
        let macs = self.order(|done| Order::Grant(vn, prefix.to_owned(), count, done))?;
        self.macs.extend(macs);
        Ok(())
    }

    /// The MAC address of a grant.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn mac(&self, n: usize) -> Result<MacAddr> {
        self.macs.get(n).copied().with_context(|| format!("there are {} grants", self.macs.len()))
    }

    /// Registers, or withdraws, these of its grants, in the order they were taken, as fast as the Oracle
    /// accepts it; gives the time until the last was acknowledged.
    ///
    /// # Errors
    /// When the Oracle refuses one or ends the session.
    pub fn register(&self, which: Range<usize>, what: Registering) -> Result<Duration> {
        self.order(|done| Order::Register(which, what, done))
    }

    /// Opens a new session, as after a restart of the Oracle; it waits for one for a while.
    ///
    /// # Errors
    /// When the Oracle does not answer.
    pub fn reconnect(&self) -> Result<()> {
        self.order(Order::Reconnect)
    }

    fn order<T>(&self, make: impl FnOnce(mpsc::Sender<Result<T>>) -> Order) -> Result<T> {
        let (done, result) = mpsc::channel();
        let orders = self.orders.as_ref().context("the load has ended")?;
        orders.send(make(done)).map_err(|_| anyhow!("the load has ended"))?;
        result.recv_timeout(CEILING).context("the load does not answer")?
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            // Its panic was shown when it happened.
            drop(thread.join());
        }
    }
}

/// The life of one.
struct Nve {
    client: Client,
    id: XtrId,
    rloc: Rloc,
    to: String,
    trust: Trust,
    identity: Identity,
    session: Session,
    grants: Vec<Grant>,
}

fn live(
    namespace: &NetNs,
    token: &str,
    name: NveName,
    rloc: IpAddr,
    ready: &mpsc::Sender<Result<()>>,
    inbox: &mpsc::Receiver<Order>,
) {
    let started = namespace.enter().map_err(anyhow::Error::from).and_then(|()| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let nve = runtime.block_on(Nve::join(token, name, rloc))?;
        Ok((runtime, nve))
    });
    let (runtime, mut nve) = match started {
        Ok(started) => started,
        Err(error) => return drop(ready.send(Err(error))),
    };
    drop(ready.send(Ok(())));
    while let Ok(order) = inbox.recv() {
        // Nobody waits any more for what a call that timed out brings.
        match order {
            Order::Grant(vn, prefix, count, done) => {
                drop(done.send(runtime.block_on(nve.grant(&vn, &prefix, count))));
            }
            Order::Register(which, what, done) => {
                drop(done.send(runtime.block_on(nve.register(which, what))));
            }
            Order::Reconnect(done) => drop(done.send(runtime.block_on(nve.reconnect()))),
        }
    }
}

impl Nve {
    async fn join(token: &str, name: NveName, rloc: IpAddr) -> Result<Self> {
        let token: JoinToken = token.parse()?;
        let key = KeyPair::generate()?;
        let csr = CertificateParams::default().serialize_request(&key)?.pem()?;
        let rloc = Rloc::new(rloc)?;
        let join = JoinRequest {
            secret: token.secret.clone(),
            name,
            csr,
            rlocs: [rloc].into(),
            boot: Default::default(),
        };
        let reply = Client::new(&Endpoint::from_token(&token)?)?.join(&join).await?;
        let trust = Trust::Ca(reply.ca.clone());
        let identity = Identity { certificate: reply.certificate.clone(), key: key.serialize_pem() };
        let servers = reply.api.iter().map(|a| a.parse()).collect::<Result<_, _>>()?;
        let client =
            Client::new(&Endpoint { servers, trust: trust.clone(), identity: Some(identity.clone()) })?;
        let to = reply.sessions.first().context("the Oracle names no address for sessions")?.clone();
        let session = Session::open(&to, &trust, &identity).await?;
        Ok(Self { client, id: reply.xtr_id, rloc, to, trust, identity, session, grants: Vec::new() })
    }

    async fn reconnect(&mut self) -> Result<()> {
        let begun = weft_lab::clock::now();
        loop {
            match Session::open(&self.to, &self.trust, &self.identity).await {
                Ok(session) => {
                    self.session = session;
                    return Ok(());
                }
                Err(error) if begun.elapsed() > weft_lab::clock::CEILING => return Err(error),
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    async fn grant(&mut self, vn: &VnName, prefix: &str, count: usize) -> Result<Vec<MacAddr>> {
        let first = self.grants.len();
        let wishes = (first..first + count).map(|n| {
            let tsi: TsiName = Name::new(format!("{prefix}{n}")).map_err(|e| anyhow!("{prefix}{n}: {e}"))?;
            Ok::<_, anyhow::Error>(GrantRequest {
                activate: false,
                vn: vn.clone(),
                tsi,
                mac: None,
                ips: Default::default(),
                groups: Default::default(),
                nve: None,
                request_id: None,
            })
        });
        let client = &self.client;
        let asked = stream::iter(wishes)
            .map(|wish| async move { Ok::<_, anyhow::Error>(client.grant(&wish?).await?.grant) });
        let granted: Vec<Grant> = asked.buffered(AT_ONCE).try_collect().await?;
        let macs = granted.iter().map(|grant| grant.mac.get()).collect();
        self.grants.extend(granted);
        Ok(macs)
    }

    async fn register(&mut self, which: Range<usize>, what: Registering) -> Result<Duration> {
        let grants = self.grants.get(which.clone());
        let grants =
            grants.with_context(|| format!("there are {} grants, not {which:?}", self.grants.len()))?;
        let begun = weft_lab::clock::now();
        self.session.register(grants, self.id, self.rloc, what).await?;
        Ok(begun.elapsed())
    }
}
