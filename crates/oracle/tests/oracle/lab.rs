//! One Oracle in a network namespace with underlay addresses to ask from.

use rcgen::{CertificateParams, KeyPair};
use std::{
    collections::BTreeSet,
    future::Future,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};
use weft_api::{
    Client, ClientError, Code, Context, Endpoint, GrantRequest, Identity, JoinReply, JoinRequest, JoinToken,
    NewToken, NewVn, Trust,
};
use weft_model::{Name, Rloc, Subnets, TenantIp, XtrId};
use weft_oracle::{Oracle, OracleError, OracleOptions};

/// Everything that is waited for happens within this.
pub const CEILING: Duration = Duration::from_secs(30);

/// Runs `test` in a network namespace with 192.0.2.1 to .9 and 2001:db8::1 to ::9 on its loopback.
pub fn in_namespace<F: Future>(test: impl FnOnce() -> F + Send + 'static) {
    let run = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("needs root");
        let mut commands = vec!["link set lo up".to_owned()];
        commands.extend((1..=9).map(|n| format!("addr add 192.0.2.{n}/32 dev lo")));
        commands.extend((1..=9).map(|n| format!("addr add 2001:db8::{n}/128 dev lo nodad")));
        for command in commands {
            let status = Command::new("ip").args(command.split(' ')).status().expect("needs iproute2");
            assert!(status.success(), "ip {command}");
        }
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async { timeout(CEILING * 4, test()).await.expect("the test takes too long") });
    };
    if let Err(panic) = std::thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub fn options(dir: &Path, shards: usize) -> OracleOptions {
    let mut options = OracleOptions::new(dir, name("oracle1"));
    options.metrics = Some("127.0.0.1:0".parse().unwrap());
    options.shards = NonZeroUsize::new(shards);
    options
}

type Running = (oneshot::Sender<()>, JoinHandle<Result<(), OracleError>>);

/// A running Oracle.
pub struct Fabric {
    pub dir: TempDir,
    pub operator: Client,
    pub metrics: std::net::SocketAddr,
    options: OracleOptions,
    running: Option<Running>,
}

impl Fabric {
    pub async fn start() -> Self {
        Self::with(1, |_| ()).await
    }

    pub async fn with(shards: usize, change: impl FnOnce(&mut OracleOptions)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = options(dir.path(), shards);
        change(&mut options);
        Self::open(dir, options).await
    }

    pub async fn open(dir: TempDir, options: OracleOptions) -> Self {
        let oracle = Oracle::start(options.clone()).await.unwrap();
        let metrics = oracle.metrics().unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(oracle.run(async { drop(stopped.await) }));
        let context = Context::load(&dir.path().join("operator.json")).unwrap();
        let operator = Client::new(&context.endpoint().unwrap()).unwrap();
        Self { dir, operator, metrics, options, running: Some((stop, task)) }
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    pub async fn stop(&mut self) {
        let (stop, task) = self.running.take().unwrap();
        drop(stop);
        timeout(CEILING, task).await.unwrap().unwrap().unwrap();
    }

    /// Stops it and starts it again on the same data.
    pub async fn restart(mut self) -> Self {
        self.stop().await;
        self.start_again().await
    }

    /// Starts it after a stop.
    pub async fn start_again(self) -> Self {
        let Self { dir, options, .. } = self;
        Self::open(dir, options).await
    }

    pub async fn vn(&self, vn: &str, subnets: &[&str]) -> weft_api::Vn {
        self.operator.create_vn(&new_vn(vn, None, subnets)).await.unwrap()
    }

    /// Joins NVE `n` with RLOCs 192.0.2.n and 2001:db8::n.
    pub async fn join(&self, n: u8) -> Nve {
        let token = self.operator.create_token(&NewToken::default()).await.unwrap();
        Nve::join(&token.token, n).await.unwrap()
    }
}

pub fn new_vn(vn: &str, vni: Option<u32>, subnets: &[&str]) -> NewVn {
    NewVn {
        name: name(vn),
        vni: vni.map(|v| v.try_into().unwrap()),
        subnets: Subnets::new(subnets.iter().map(|s| s.parse().unwrap()).collect()).unwrap(),
        learning: Default::default(),
        reply: Default::default(),
        bum: Default::default(),
        storm: Default::default(),
        miss: Default::default(),
        gateway: None,
    }
}

/// A key and a signing request for it.
pub fn request() -> (KeyPair, String) {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    (key, csr)
}

pub fn join_request(token: &str, n: u8, csr: &str) -> (Endpoint, JoinRequest) {
    let token: JoinToken = token.parse().unwrap();
    let join = JoinRequest {
        secret: token.secret.clone(),
        name: name(&format!("host{n}")),
        csr: csr.to_owned(),
        rlocs: rlocs(n),
        boot: Default::default(),
    };
    (Endpoint::from_token(&token).unwrap(), join)
}

pub fn rlocs(n: u8) -> BTreeSet<Rloc> {
    [format!("192.0.2.{n}"), format!("2001:db8::{n}")].iter().map(|r| r.parse().unwrap()).collect()
}

/// A joined NVE.
pub struct Nve {
    pub n: u8,
    pub id: XtrId,
    pub name: Name,
    pub reply: JoinReply,
    pub identity: Identity,
    pub client: Client,
}

impl Nve {
    pub async fn join(token: &str, n: u8) -> Result<Self, ClientError> {
        let (key, csr) = request();
        let (endpoint, join) = join_request(token, n, &csr);
        let reply = Client::new(&endpoint)?.join(&join).await?;
        let identity = Identity { certificate: reply.certificate.clone(), key: key.serialize_pem() };
        let client = Client::new(&Endpoint {
            servers: reply.api.iter().map(|a| a.parse().unwrap()).collect(),
            trust: Trust::Ca(reply.ca.clone()),
            identity: Some(identity.clone()),
        })?;
        Ok(Self { n, id: reply.xtr_id, name: join.name, reply, identity, client })
    }

    pub async fn grant(&self, vn: &str, tsi: &str) -> Result<weft_api::GrantReply, ClientError> {
        self.client.grant(&wish(vn, tsi, &[])).await
    }
}

pub fn wish(vn: &str, tsi: &str, ips: &[&str]) -> GrantRequest {
    GrantRequest {
        activate: false,
        vn: name(vn),
        tsi: name(tsi),
        mac: None,
        ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        groups: BTreeSet::new(),
        nve: None,
        request_id: None,
    }
}

pub fn texts(ips: &BTreeSet<TenantIp>) -> Vec<String> {
    ips.iter().map(ToString::to_string).collect()
}

/// The refusal's code and status; its message is one line.
pub fn refusal<T: std::fmt::Debug>(result: Result<T, ClientError>) -> (Code, u16, String) {
    match result {
        Err(ClientError::Api(e)) => {
            assert!(!e.message.is_empty() && !e.message.contains('\n'), "{}", e.message);
            assert_eq!(e.code.status(), e.status);
            (e.code, e.status, e.message)
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// Asks until the answer is the right one.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let asking = async {
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(CEILING, asking).await.unwrap_or_else(|_| panic!("never happened: {what}"))
}
