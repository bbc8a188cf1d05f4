//! From a certificate to the role of its holder.

use super::PkiError;
use weft_api::Role;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

/// The role that a certificate (DER, verified by TLS already) gives its holder: that of its one URI.
///
/// # Errors
/// [`PkiError::Role`] when there is none, or more than one.
pub fn role_of(certificate: &[u8]) -> Result<Role, PkiError> {
    let bad = |reason: String| PkiError::Role(reason);
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|e| bad(e.to_string()))?;
    let names = certificate.subject_alternative_name().map_err(|e| bad(e.to_string()))?;
    let mut uris = names.iter().flat_map(|ext| &ext.value.general_names).filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => uri.parse().map_err(bad),
        (None, _) => Err(bad("it has no URI".to_owned())),
        (Some(_), Some(_)) => Err(bad("it has several URIs".to_owned())),
    }
}
