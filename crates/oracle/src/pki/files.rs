//! The CA's two files in the data directory.

use super::PkiError;
use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// The CA's certificate.
pub const CA_CERTIFICATE: &str = "ca.pem";
/// The CA's private key, mode 0600.
pub const CA_KEY: &str = "ca.key";

fn failed(path: &Path, e: &io::Error) -> PkiError {
    PkiError::File { path: path.to_owned(), reason: e.to_string() }
}

fn read_one(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed(path, &e)),
    }
}

/// Whether `dir` holds a CA, or a part of one.
pub(crate) fn any(dir: &Path) -> bool {
    [CA_CERTIFICATE, CA_KEY].iter().any(|name| dir.join(name).exists())
}

/// Certificate and key, if there is a CA.
pub(super) fn read(dir: &Path) -> Result<Option<(String, String)>, PkiError> {
    let (certificate, key) = (dir.join(CA_CERTIFICATE), dir.join(CA_KEY));
    match (read_one(&certificate)?, read_one(&key)?) {
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        (None, None) => Ok(None),
        // The key is written first: a start that was cut short between the two leaves it alone.
        (None, Some(_)) => {
            let unused = fs::remove_file(&key);
            unused.map(|()| None).map_err(|e| failed(&key, &e))
        }
        (Some(_), None) => Err(PkiError::Half { missing: key }),
    }
}

/// Writes both, the key first, each whole or not at all.
pub(super) fn write(dir: &Path, certificate: &str, key: &str) -> Result<(), PkiError> {
    write_private(&dir.join(CA_KEY), key.as_bytes())?;
    write_private(&dir.join(CA_CERTIFICATE), certificate.as_bytes())
}

fn write_private(path: &Path, octets: &[u8]) -> Result<(), PkiError> {
    let new = path.with_extension("new");
    let write = || {
        match fs::remove_file(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(octets)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        path.parent().map_or(Ok(()), crate::store::sync_dir)
    };
    write().map_err(|e| failed(path, &e))
}
