//! The Oracle as certificate authority: its own CA, made at the first start, and what it signs.
//!
//! ECDSA P-256 throughout. Who a certificate's holder is stands in one URI Subject Alternative
//! Name, [`Role`]; what was asked for in a signing request is ignored but for its key, whose
//! possession the request proves.

mod error;
mod files;
mod request;
mod role;
#[cfg(test)]
mod tests;

pub use error::PkiError;
pub(crate) use files::any as ca_exists;
pub use files::{CA_CERTIFICATE, CA_KEY};
pub use request::{SigningRequest, signing_request};
pub use role::role_of;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType, string::Ia5String,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use sha2::{Digest, Sha256};
use std::{net::IpAddr, path::Path};
use time::OffsetDateTime;
use weft_api::{ORACLE_SERVER_NAME, Role};

/// Lifetime of an NVE's certificate, seconds: 7 days, renewed at half.
pub const NVE_TTL_S: u64 = 7 * 86_400;
/// Lifetime of operators' and viewers' certificates, seconds, unless asked otherwise: a year.
pub const PERSON_TTL_S: u64 = 365 * 86_400;
/// Lifetime of the Oracle's own certificate, seconds; it is made anew at each start and each day.
pub const SERVER_TTL_S: u64 = 30 * 86_400;
/// Lifetime of the CA, seconds: 20 years.
const CA_TTL_S: u64 = 20 * 365 * 86_400;
/// Certificates count from this long ago, seconds, for hosts whose clock is behind.
const BACKDATE_S: u64 = 3_600;

/// A certificate with its private key, PEM.
#[derive(Clone)]
pub struct Credentials {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// A certificate that was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// PEM.
    pub certificate: String,
    /// Until when, seconds since 1970.
    pub expires_at: u64,
}

/// What TLS servers show: the chain up to the CA's own certificate, and the key.
pub struct ServerIdentity {
    /// The Oracle's certificate and the CA's, which joining NVEs know by its fingerprint.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key.
    pub key: PrivateKeyDer<'static>,
}

/// The certificate authority.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

impl Ca {
    /// Opens the CA in `dir`, or makes it at the first start. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// [`PkiError`] when files cannot be used or only one of the two is there.
    pub fn open(dir: &Path, now: u64) -> Result<Self, PkiError> {
        let (pem, key) = match files::read(dir)? {
            Some(both) => both,
            None => {
                let made = make(now)?;
                files::write(dir, &made.0, &made.1)?;
                made
            }
        };
        Self::from_pem(pem, &key)
    }

    fn from_pem(pem: String, key: &str) -> Result<Self, PkiError> {
        let key = KeyPair::from_pem(key).map_err(|e| PkiError::unusable(CA_KEY, &e))?;
        let issuer =
            Issuer::from_ca_cert_pem(&pem, key).map_err(|e| PkiError::unusable(CA_CERTIFICATE, &e))?;
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|e| PkiError::unusable(CA_CERTIFICATE, &e))?;
        Ok(Self { issuer, pem, der })
    }

    /// The CA's certificate, PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The CA's certificate, DER.
    #[must_use]
    pub const fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// SHA-256 of the CA's certificate (DER), hexadecimal: what join tokens pin.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hex::encode(Sha256::digest(&self.der))
    }

    /// Signs a request: `role` for its key, for `ttl` seconds from `now`.
    ///
    /// # Errors
    /// [`PkiError::Sign`].
    pub fn sign(
        &self,
        request: &SigningRequest,
        role: &Role,
        now: u64,
        ttl: u64,
    ) -> Result<Signed, PkiError> {
        self.client(request.key(), role, now, ttl)
    }

    /// Makes a key and a certificate for a person or program.
    ///
    /// # Errors
    /// [`PkiError::Sign`].
    pub fn credentials(&self, role: &Role, now: u64, ttl: u64) -> Result<Credentials, PkiError> {
        let key = KeyPair::generate().map_err(PkiError::sign)?;
        let certificate = self.client(&key, role, now, ttl)?.certificate;
        Ok(Credentials { certificate, key: key.serialize_pem() })
    }

    fn client(&self, key: &impl PublicKeyData, role: &Role, now: u64, ttl: u64) -> Result<Signed, PkiError> {
        let mut params = params(&role.to_string(), now, ttl)?;
        params.subject_alt_names = vec![uri(role)?];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(key, &self.issuer).map_err(PkiError::sign)?;
        Ok(Signed { certificate: certificate.pem(), expires_at: now.saturating_add(ttl) })
    }

    /// Makes the Oracle's own certificate, good for `names` (IP addresses or DNS names) and for
    /// [`ORACLE_SERVER_NAME`].
    ///
    /// # Errors
    /// [`PkiError::Sign`].
    pub fn server<'a>(
        &self,
        oracle: &str,
        names: impl Iterator<Item = &'a str>,
        now: u64,
    ) -> Result<ServerIdentity, PkiError> {
        let role = Role::Oracle(oracle.to_owned());
        let mut params = params(&role.to_string(), now, SERVER_TTL_S)?;
        params.subject_alt_names = vec![dns(ORACLE_SERVER_NAME)?, uri(&role)?];
        for name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(ip) => SanType::IpAddress(ip),
                Err(_) => dns(name)?,
            });
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().map_err(PkiError::sign)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(PkiError::sign)?;
        Ok(ServerIdentity {
            chain: vec![certificate.der().clone(), self.der.clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        })
    }
}

fn make(now: u64) -> Result<(String, String), PkiError> {
    let key = KeyPair::generate().map_err(PkiError::sign)?;
    let mut params = params("Weft fabric CA", now, CA_TTL_S)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).map_err(PkiError::sign)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn params(name: &str, now: u64, ttl: u64) -> Result<CertificateParams, PkiError> {
    let date = |seconds: u64| {
        let seconds = i64::try_from(seconds).map_err(|_| PkiError::Date(seconds))?;
        OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| PkiError::Date(seconds.unsigned_abs()))
    };
    let mut params = CertificateParams::default();
    params.not_before = date(now.saturating_sub(BACKDATE_S))?;
    params.not_after = date(now.saturating_add(ttl))?;
    params.distinguished_name = DistinguishedName::new();
    // RFC 5280 allows a common name 64 characters.
    params.distinguished_name.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn uri(role: &Role) -> Result<SanType, PkiError> {
    Ok(SanType::URI(Ia5String::try_from(role.to_string()).map_err(PkiError::sign)?))
}

fn dns(name: &str) -> Result<SanType, PkiError> {
    Ok(SanType::DnsName(Ia5String::try_from(name).map_err(PkiError::sign)?))
}
