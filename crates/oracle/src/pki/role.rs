//! From a certificate to the role of its holder.

use super::PkiError;
use weft_api::Role;

/// The role that a certificate (DER, verified by TLS already) gives its holder.
///
/// # Errors
/// [`PkiError::Role`] when there is none, or more than one.
pub fn role_of(certificate: &[u8]) -> Result<Role, PkiError> {
    Role::of_certificate(certificate).map_err(PkiError::Role)
}
