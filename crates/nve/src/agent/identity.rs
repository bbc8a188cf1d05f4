//! Who this NVE is: its key, its certificate, and how it got and renews them (what it trusts:
//! the CA's fingerprint is pinned before the secret is sent, the key never leaves the host).

use super::{NveError, clock, state};
use rcgen::{CertificateParams, KeyPair};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, path::Path, time::Duration};
use weft_api::{Client, Endpoint, Identity as Shown, JoinRequest, JoinToken, RenewRequest, Trust};
use weft_model::{BootId, NveName, Rloc, XtrId};

/// Try a failed renewal again after this.
const RETRY: Duration = Duration::from_secs(60);

/// What an NVE keeps of its joining.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    pub(super) name: NveName,
    pub(super) xtr_id: XtrId,
    pub(super) rlocs: BTreeSet<Rloc>,
    /// PEM.
    pub(super) key: String,
    /// PEM.
    pub(super) certificate: String,
    /// PEM.
    pub(super) ca: String,
    /// `host:port` of /v1.
    pub(super) api: Vec<String>,
    /// `host:port` of sessions.
    pub(super) sessions: Vec<String>,
    /// `host:port` of the Map-Resolvers.
    pub(super) lisp: Vec<String>,
}

/// A key and the request for its certificate, kept until the answer is: a retry after a lost
/// answer must carry the same request.
#[derive(Serialize, Deserialize)]
struct Joining {
    key: String,
    csr: String,
}

impl Identity {
    /// What it shows to Oracles.
    pub(super) fn shown(&self) -> Shown {
        Shown { certificate: self.certificate.clone(), key: self.key.clone() }
    }

    /// How to reach /v1.
    pub(super) fn endpoint(&self) -> Result<Endpoint, NveError> {
        let servers = self.api.iter().map(|a| a.parse()).collect::<Result<_, _>>();
        Ok(Endpoint {
            servers: servers.map_err(weft_api::ClientError::from)?,
            trust: Trust::Ca(self.ca.clone()),
            identity: Some(self.shown()),
        })
    }

    /// Asks for a new certificate, with a new key.
    pub(super) async fn renew(&self, client: &Client) -> Result<Self, NveError> {
        let joining = request()?;
        let reply = client.renew(&RenewRequest { csr: joining.csr }).await?;
        Ok(Self { key: joining.key, certificate: reply.certificate, ..self.clone() })
    }

    /// How long until it should be renewed: half of the certificate's life.
    pub(super) fn renew_in(&self) -> Duration {
        let Some((from, to)) = validity(&self.certificate) else { return RETRY };
        let half = from + (to.saturating_sub(from)) / 2;
        Duration::from_secs(half.saturating_sub(clock::date())).max(RETRY)
    }
}

/// Not-before and not-after of the first certificate in a PEM, seconds since 1970.
fn validity(pem: &str) -> Option<(u64, u64)> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    let validity = pem.parse_x509().ok()?.validity().clone();
    let seconds = |t: x509_parser::time::ASN1Time| u64::try_from(t.timestamp()).ok();
    Some((seconds(validity.not_before)?, seconds(validity.not_after)?))
}

fn request() -> Result<Joining, NveError> {
    let key = KeyPair::generate()?;
    let csr = CertificateParams::default().serialize_request(&key)?.pem()?;
    Ok(Joining { key: key.serialize_pem(), csr })
}

/// Joins with `token` and keeps the identity at `path`.
pub(super) async fn join(
    path: &Path,
    token: &JoinToken,
    name: NveName,
    rlocs: BTreeSet<Rloc>,
    boot: BootId,
) -> Result<Identity, NveError> {
    let pending = path.with_extension("joining");
    let joining = match state::load::<Joining>(&pending)? {
        Some(joining) => joining,
        None => {
            let joining = request()?;
            state::save(&pending, &joining)?;
            joining
        }
    };
    let client = Client::new(&Endpoint::from_token(token).map_err(weft_api::ClientError::from)?)?;
    let request = JoinRequest {
        secret: token.secret.clone(),
        name: name.clone(),
        csr: joining.csr.clone(),
        rlocs: rlocs.clone(),
        boot,
    };
    let reply = client.join(&request).await.map_err(NveError::Join)?;
    let identity = Identity {
        name,
        xtr_id: reply.xtr_id,
        rlocs,
        key: joining.key,
        certificate: reply.certificate,
        ca: reply.ca,
        api: reply.api,
        sessions: reply.sessions,
        lisp: reply.lisp,
    };
    state::save(path, &identity)?;
    std::fs::remove_file(&pending).map_err(NveError::file("remove", &pending))?;
    Ok(identity)
}
