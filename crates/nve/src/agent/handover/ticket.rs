//! Whether a ticket is an Oracle's word, for this NVE, in the hands of the one that it names, and for the first time.

use super::error::Refusal;
use rustls::{
    RootCertStore, SignatureScheme,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use weft_api::{ORACLE_SERVER_NAME, Role, SignedTicket, Ticket, TraceTicket};
use weft_model::XtrId;
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

/// How far an Oracle's clock and this host's may be apart, seconds.
const CLOCKS: u64 = 30;

/// Looks at tickets.
pub(super) struct Tickets {
    /// This NVE.
    here: XtrId,
    chain: Arc<WebPkiServerVerifier>,
    provider: Arc<CryptoProvider>,
    /// Those that were shown, until they expire: each counts once.
    used: Mutex<BTreeMap<[u64; 2], u64>>,
    /// How many are remembered.
    most: usize,
}

impl Tickets {
    pub(super) fn new(here: XtrId, roots: Arc<RootCertStore>, most: usize) -> Result<Self, String> {
        let provider = Arc::new(ring::default_provider());
        let chain = WebPkiServerVerifier::builder_with_provider(roots, provider.clone());
        let chain = chain.build().map_err(|e| e.to_string())?;
        Ok(Self { here, chain, provider, used: Mutex::default(), most })
    }

    /// What the ticket says that NVE `shown` shows at `now`, seconds since 1970. From now on it is used.
    pub(super) fn accept(&self, text: &str, shown: XtrId, now: u64) -> Result<Ticket, Refusal> {
        let signed: SignedTicket = text.parse()?;
        self.is_oracles(&signed, Ticket::DOMAIN, now)?;
        let ticket = signed.ticket()?;
        self.counts(ticket.from, ticket.to, ticket.expires_at, shown, now)?;
        self.use_up(ticket.id, ticket.expires_at, now)?;
        Ok(ticket)
    }

    /// The same of a ticket for a trace.
    pub(super) fn accept_trace(&self, text: &str, shown: XtrId, now: u64) -> Result<TraceTicket, Refusal> {
        let signed: SignedTicket = text.parse()?;
        self.is_oracles(&signed, TraceTicket::DOMAIN, now)?;
        let ticket = signed.trace()?;
        self.counts(ticket.told, ticket.asks, ticket.expires_at, shown, now)?;
        self.use_up(ticket.id, ticket.expires_at, now)?;
        Ok(ticket)
    }

    /// Whether it is for this NVE, in the hands of the one it is for, and neither too old nor too young.
    fn counts(&self, from: XtrId, to: XtrId, expires_at: u64, shown: XtrId, now: u64) -> Result<(), Refusal> {
        if now > expires_at.saturating_add(CLOCKS) {
            return Err(Refusal::Expired(now - expires_at));
        }
        if expires_at > now.saturating_add(Ticket::TTL_S + CLOCKS) {
            return Err(Refusal::Ahead(expires_at - now));
        }
        if from != self.here {
            return Err(Refusal::OtherFrom { from, here: self.here });
        }
        if to != shown {
            return Err(Refusal::OtherTo { to, shown });
        }
        Ok(())
    }

    /// Whether one that the CA calls an Oracle has signed it: whoever may answer for one may.
    fn is_oracles(&self, signed: &SignedTicket, domain: &[u8], now: u64) -> Result<(), Refusal> {
        let der = CertificateDer::from(signed.certificate.as_slice());
        let name = ServerName::try_from(ORACLE_SERVER_NAME).map_err(|e| Refusal::Signer(e.to_string()))?;
        let at = UnixTime::since_unix_epoch(Duration::from_secs(now));
        let verified = self.chain.verify_server_cert(&der, &[], &name, &[], at);
        verified.map_err(|e| Refusal::Signer(e.to_string()))?;
        match Role::of_certificate(&der).map_err(Refusal::Signer)? {
            Role::Oracle(_) => {}
            other => return Err(Refusal::Signer(format!("it is '{other}'"))),
        }
        let (_, certificate) = X509Certificate::from_der(&der).map_err(|e| Refusal::Signer(e.to_string()))?;
        let schemes = self.provider.signature_verification_algorithms.mapping;
        let ecdsa = schemes.iter().find(|(scheme, _)| *scheme == SignatureScheme::ECDSA_NISTP256_SHA256);
        let key = &certificate.public_key().subject_public_key.data;
        let message = SignedTicket::message(domain, &signed.payload);
        match ecdsa.and_then(|(_, algorithms)| algorithms.first()) {
            Some(ecdsa) => {
                ecdsa.verify_signature(key, &message, &signed.signature).map_err(|_| Refusal::Forged)
            }
            None => Err(Refusal::Forged),
        }
    }

    fn use_up(&self, id: [u64; 2], expires_at: u64, now: u64) -> Result<(), Refusal> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.retain(|_, expires_at| now <= expires_at.saturating_add(CLOCKS));
        if used.contains_key(&id) {
            return Err(Refusal::Used);
        }
        if used.len() >= self.most {
            return Err(Refusal::Tickets(self.most));
        }
        used.insert(id, expires_at);
        Ok(())
    }
}
