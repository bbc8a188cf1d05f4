//! Certificate signing requests, PKCS#10 (RFC 2986).

use super::PkiError;
use base64::{Engine, prelude::BASE64_STANDARD};
use rcgen::SubjectPublicKeyInfo;
use sha2::{Digest, Sha256};
use x509_parser::{certification_request::X509CertificationRequest, pem::parse_x509_pem, prelude::FromDer};

/// A signing request whose sender has its key.
#[derive(Clone, Debug)]
pub struct SigningRequest {
    key: SubjectPublicKeyInfo,
    hash: String,
}

impl SigningRequest {
    pub(super) const fn key(&self) -> &SubjectPublicKeyInfo {
        &self.key
    }

    /// SHA-256 of the request (DER), hexadecimal.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }
}

/// Longest request that is read, characters.
const LIMIT: usize = 16 << 10;

/// Reads a request, PEM or base64 of DER, and checks that it is signed with the key it is about.
///
/// # Errors
/// [`PkiError::Request`], [`PkiError::Possession`] or [`PkiError::Key`].
pub fn signing_request(text: &str) -> Result<SigningRequest, PkiError> {
    let bad = |reason: &dyn std::fmt::Display| PkiError::Request(reason.to_string());
    if text.len() > LIMIT {
        return Err(bad(&format!("{} characters, at most {LIMIT} are read", text.len())));
    }
    let der = if text.trim_start().starts_with("-----BEGIN") {
        let (_, pem) = parse_x509_pem(text.as_bytes()).map_err(|e| bad(&e))?;
        if !pem.label.ends_with("CERTIFICATE REQUEST") {
            return Err(bad(&format!("PEM of a '{}'", pem.label)));
        }
        pem.contents
    } else {
        let text: String = text.split_whitespace().collect();
        BASE64_STANDARD.decode(text).map_err(|e| bad(&e))?
    };
    let (rest, request) = X509CertificationRequest::from_der(&der).map_err(|e| bad(&e))?;
    if !rest.is_empty() {
        return Err(bad(&format!("{} octets behind it", rest.len())));
    }
    request.verify_signature().map_err(|e| PkiError::Possession(e.to_string()))?;
    let key = SubjectPublicKeyInfo::from_der(request.certification_request_info.subject_pki.raw)
        .map_err(|e| PkiError::Key(e.to_string()))?;
    Ok(SigningRequest { key, hash: hex::encode(Sha256::digest(&der)) })
}
