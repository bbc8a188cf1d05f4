//! The file that lets a person or program reach an Oracle: where it is and who one is.

use crate::{Endpoint, Identity, ServerError, Trust};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Credentials for an Oracle: a JSON file of mode 0600, self-contained so that it can be copied.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// Where `/v1` is, `https://host:port`; the first that answers is used.
    pub oracles: Vec<String>,
    /// The CA's certificate, PEM.
    pub ca: String,
    /// The holder's certificate, PEM.
    pub certificate: String,
    /// Its private key, PEM.
    pub key: String,
}

/// Why a context cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The file cannot be read.
    #[error("cannot read the context {path}: {source}; name another with --context or WEFT_CONTEXT")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write the context {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not a context.
    #[error("{path} is no context file ({reason})")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// An address in it is malformed.
    #[error(transparent)]
    Server(#[from] ServerError),
}

impl Context {
    /// Reads `path`.
    ///
    /// # Errors
    /// [`ContextError::Read`] or [`ContextError::Malformed`].
    pub fn load(path: &Path) -> Result<Self, ContextError> {
        let text = fs::read(path).map_err(|source| ContextError::Read { path: path.to_owned(), source })?;
        serde_json::from_slice(&text)
            .map_err(|e| ContextError::Malformed { path: path.to_owned(), reason: e.to_string() })
    }

    /// Writes `path`, readable by its owner only, whole or not at all.
    ///
    /// # Errors
    /// [`ContextError::Write`].
    pub fn save(&self, path: &Path) -> Result<(), ContextError> {
        let failed = |source| ContextError::Write { path: path.to_owned(), source };
        let mut text = serde_json::to_vec_pretty(self).map_err(|e| failed(e.into()))?;
        text.push(b'\n');
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let new = path.with_file_name(name);
        let write = || {
            // A left-over of a killed run may have any mode: begin afresh.
            match fs::remove_file(&new) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&new, path)
        };
        write().map_err(failed)
    }

    /// What [`crate::Client::new`] takes.
    ///
    /// # Errors
    /// [`ContextError::Server`].
    pub fn endpoint(&self) -> Result<Endpoint, ContextError> {
        let servers = self.oracles.iter().map(|o| o.parse()).collect::<Result<_, _>>()?;
        Ok(Endpoint {
            servers,
            trust: Trust::Ca(self.ca.clone()),
            identity: Some(Identity { certificate: self.certificate.clone(), key: self.key.clone() }),
        })
    }
}

impl core::fmt::Debug for Context {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // The key stays out of logs.
        f.debug_struct("Context").field("oracles", &self.oracles).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn saved_private_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("operator.json");
        let context = Context {
            oracles: vec!["https://[::1]:4343".into()],
            ca: "ca".into(),
            certificate: "cert".into(),
            key: "key".into(),
        };
        context.save(&path).unwrap();
        context.save(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Context::load(&path).unwrap(), context);
        fs::write(&path, "{").unwrap();
        assert!(matches!(Context::load(&path), Err(ContextError::Malformed { .. })));
        assert!(matches!(Context::load(&dir.path().join("none")), Err(ContextError::Read { .. })));
        assert!(context.save(&dir.path().join("none/x")).is_err());
    }
}
