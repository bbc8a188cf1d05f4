//! TLS 1.3 with a pinned CA, for `/v1` and for sessions alike.

use super::endpoint::{Identity, Trust};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// The DNS name every Oracle's certificate carries beside its addresses. Clients ask for this one:
/// trust hangs on the pinned CA and its server certificates, not on the address that led there,
/// so that an Oracle may be reached by any address, name or forwarded port.
pub const ORACLE_SERVER_NAME: &str = "oracle.weft.internal";

/// Why certificates or keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM text holds no certificate or key.
    #[error("the {what} is no PEM text: {reason}")]
    Pem {
        /// Which text.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// TLS refuses them.
    #[error("the {what} cannot be used: {source}")]
    Refused {
        /// Which of them.
        what: &'static str,
        /// Why.
        source: rustls::Error,
    },
    /// TLS needs to know whom to believe.
    #[error("no CA is named for {0}; over TCP an Oracle must prove itself")]
    NoTrust(String),
}

fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| TlsError::Pem { what, reason: e.to_string() })?;
    if all.is_empty() {
        return Err(TlsError::Pem { what, reason: "it holds no certificate".to_owned() });
    }
    Ok(all)
}

/// A TLS configuration for connections to Oracles, without ALPN: connect with [`ORACLE_SERVER_NAME`].
///
/// # Errors
/// One [`TlsError`] for each thing that cannot be used.
pub fn tls_config(trust: &Trust, identity: Option<&Identity>) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| TlsError::Refused { what: "TLS version", source })?;
    let builder = match trust {
        Trust::Ca(pem) => {
            let mut roots = RootCertStore::empty();
            for ca in certificates("CA certificate", pem)? {
                roots.add(ca).map_err(|source| TlsError::Refused { what: "CA certificate", source })?;
            }
            builder.with_root_certificates(roots)
        }
        Trust::Fingerprint(sha256) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned { sha256: *sha256, provider })),
        Trust::Nobody => return Err(TlsError::NoTrust("this connection".to_owned())),
    };
    let Some(identity) = identity else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates("certificate", &identity.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())
        .map_err(|e| TlsError::Pem { what: "private key", reason: e.to_string() })?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|source| TlsError::Refused { what: "certificate with its private key", source })
}

/// Accepts a chain up to the one CA whose fingerprint is known before anything else is.
#[derive(Debug)]
struct Pinned {
    sha256: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let ca = intermediates
            .iter()
            .find(|c| <[u8; 32]>::from(Sha256::digest(c.as_ref())) == self.sha256)
            .ok_or(CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
