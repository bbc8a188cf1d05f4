//! TLS between NVEs: version 1.3, each side shows the certificate that its Oracle gave it, and each looks who the other
//! is. NVEs have no names that TLS knows: who one is stands in its certificate's URI.

use super::error::FetchError;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use std::sync::Arc;
use weft_api::{Identity, Role};
use weft_model::XtrId;

/// What an NVE shows to others and believes of them, as of the last renewal of its certificate.
#[derive(Debug)]
pub(in crate::agent) struct Credentials {
    pub(super) roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    /// Whoever has a certificate as clients have them.
    clients: Arc<dyn ClientCertVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Credentials {
    /// From the CA's certificate (PEM) and what the NVE shows.
    pub(in crate::agent) fn new(ca: &str, own: &Identity) -> Result<Self, FetchError> {
        let bad = |e: &dyn std::fmt::Display| FetchError::Credentials(e.to_string());
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(ca.as_bytes()).map_err(|e| bad(&e))?)
            .map_err(|e| bad(&e))?;
        let roots = Arc::new(roots);
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
        let clients = clients.build().map_err(|e| bad(&e))?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(own.certificate.as_bytes()).collect();
        let chain = chain.map_err(|e| bad(&e))?;
        let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).map_err(|e| bad(&e))?;
        Ok(Self { roots, provider, clients, chain, key })
    }

    /// For the NVE that answers: whoever has a certificate of this fabric may ask.
    pub(super) fn server(&self) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(self.clients.clone())
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Each connection shows its certificate anew.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// For the NVE that asks: `nve` has to answer.
    pub(super) fn client(&self, nve: XtrId) -> Result<ClientConfig, rustls::Error> {
        let verifier = Arc::new(OneNve { nve, clients: self.clients.clone() });
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// Accepts a certificate of this fabric that is this NVE's. NVEs' certificates are those of clients, so they are
/// verified as such, whichever end shows them.
#[derive(Debug)]
struct OneNve {
    nve: XtrId,
    clients: Arc<dyn ClientCertVerifier>,
}

impl ServerCertVerifier for OneNve {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.clients.verify_client_cert(end_entity, intermediates, now)?;
        match Role::of_certificate(end_entity) {
            Ok(Role::Nve(nve)) if nve == self.nve => Ok(ServerCertVerified::assertion()),
            Ok(other) => Err(rustls::Error::General(format!("it is '{other}', not NVE {}", self.nve))),
            Err(why) => Err(rustls::Error::General(why)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.clients.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.clients.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.clients.supported_verify_schemes()
    }
}
