//! TLS for sessions and `/v1`: version 1.3, one server certificate that is renewed while running.

use super::{OracleError, clock};
use crate::pki::{Ca, PkiError, ServerIdentity, role_of};
use rustls::{
    KeyLog, RootCertStore, ServerConfig, ServerConnection, SignatureScheme,
    crypto::{CryptoProvider, ring},
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use std::{
    fmt, fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock},
};
use weft_api::{Role, SignedTicket, Ticket, TicketError, TraceTicket};

/// Whether clients must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clients {
    Must,
    May,
}

/// Hands out the present server certificate.
#[derive(Debug)]
pub(super) struct Certificate {
    current: RwLock<Arc<CertifiedKey>>,
    names: Vec<String>,
    oracle: String,
}

impl Certificate {
    pub(super) fn new(ca: &Ca, oracle: &str, names: Vec<String>) -> Result<Self, OracleError> {
        let current = RwLock::new(make(ca, oracle, &names)?);
        Ok(Self { current, names, oracle: oracle.to_owned() })
    }

    /// Makes a new one; connections that are up keep theirs.
    pub(super) fn renew(&self, ca: &Ca) -> Result<(), OracleError> {
        let fresh = make(ca, &self.oracle, &self.names)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }
}

fn make(ca: &Ca, oracle: &str, names: &[String]) -> Result<Arc<CertifiedKey>, OracleError> {
    let ServerIdentity { chain, key } =
        ca.server(oracle, names.iter().map(String::as_str), clock::unix_seconds())?;
    Ok(Arc::new(CertifiedKey::from_der(chain, key, &ring::default_provider())?))
}

/// Why a ticket cannot be signed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignError {
    #[error(transparent)]
    Ticket(#[from] TicketError),
    #[error("the Oracle's key cannot sign tickets: {0}")]
    Key(#[from] rustls::Error),
    #[error("the Oracle's key is no ECDSA P-256 key")]
    Scheme,
}

impl Certificate {
    /// Signs a ticket with the present key.
    pub(super) fn sign(&self, ticket: &Ticket) -> Result<SignedTicket, SignError> {
        self.sign_in(Ticket::DOMAIN, ticket.payload()?)
    }

    /// The same for a trace.
    pub(super) fn sign_trace(&self, ticket: &TraceTicket) -> Result<SignedTicket, SignError> {
        self.sign_in(TraceTicket::DOMAIN, ticket.payload()?)
    }

    fn sign_in(&self, domain: &[u8], payload: Vec<u8>) -> Result<SignedTicket, SignError> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        let signer = current.key.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]);
        let signer = signer.ok_or(SignError::Scheme)?;
        let signature = signer.sign(&SignedTicket::message(domain, &payload))?;
        let certificate = current.end_entity_cert()?.to_vec();
        Ok(SignedTicket { payload, certificate, signature })
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// A server's configuration. Sessions are never resumed: each one shows its certificate anew.
pub(super) fn config(
    ca: &Ca,
    certificate: Arc<Certificate>,
    clients: Clients,
    key_log: Option<Arc<dyn KeyLog>>,
) -> Result<ServerConfig, OracleError> {
    let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone())?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let verifier = match clients {
        Clients::Must => verifier.build(),
        Clients::May => verifier.allow_unauthenticated().build(),
    };
    let verifier = verifier.map_err(|e| rustls::Error::General(e.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    if let Some(key_log) = key_log {
        config.key_log = key_log;
    }
    Ok(config)
}

/// The role of the client at the other end; none when it showed no certificate.
pub(super) fn role(connection: &ServerConnection) -> Result<Option<Role>, String> {
    let Some(certificate) = connection.peer_certificates().and_then(<[_]>::first) else { return Ok(None) };
    role_of(certificate).map(Some).map_err(|e: PkiError| e.to_string())
}

/// Writes TLS secrets in the NSS key log format that protocol analysers read.
pub(super) struct KeyLogTo(Mutex<fs::File>);

impl KeyLogTo {
    pub(super) fn open(path: &Path) -> Result<Self, OracleError> {
        let file = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        let file = file.map_err(|source| OracleError::File { path: path.to_owned(), source })?;
        tracing::warn!(path = %path.display(), "TLS secrets are written down: whoever reads them reads all sessions");
        Ok(Self(Mutex::new(file)))
    }
}

impl fmt::Debug for KeyLogTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyLogTo")
    }
}

impl KeyLog for KeyLogTo {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let line = format!("{label} {} {}\n", hex::encode(client_random), hex::encode(secret));
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // An aid for debugging that fails must not end a session.
        drop(file.write_all(line.as_bytes()));
    }
}
