//! Where servers are and what is shown to them.

use core::{fmt, str::FromStr};
use std::path::PathBuf;

/// One address of a server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Server {
    /// HTTPS.
    Tls {
        /// A name or an IP address, IPv6 without brackets.
        host: String,
        /// TCP.
        port: u16,
    },
    /// Plain HTTP on a unix socket.
    Unix(PathBuf),
}

/// Why a text names no server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no server address; write https://HOST:PORT, HOST:PORT ([..] around IPv6) or unix:/PATH")]
pub struct ServerError(pub String);

/// Whom to believe to be an Oracle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Whoever shows a server certificate of this CA (PEM).
    Ca(String),
    /// Whoever shows a chain up to the CA with this SHA-256 (of its DER): for joining.
    Fingerprint([u8; 32]),
    /// Nobody: only unix sockets can be used.
    Nobody,
}

/// What the client shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, PEM (chain allowed).
    pub certificate: String,
    /// Its private key, PEM.
    pub key: String,
}

/// Servers that answer alike, and how to talk to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Tried in this order, beginning with the one that answered last.
    pub servers: Vec<Server>,
    /// Whom to believe.
    pub trust: Trust,
    /// What to show; nothing for joining.
    pub identity: Option<Identity>,
}

impl Endpoint {
    /// A unix socket.
    #[must_use]
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self { servers: vec![Server::Unix(path.into())], trust: Trust::Nobody, identity: None }
    }

    /// What a join token says: its Oracles, its CA pinned, no certificate yet.
    ///
    /// # Errors
    /// [`ServerError`] for an address in the token; a token that was parsed has a fingerprint.
    pub fn from_token(token: &crate::JoinToken) -> Result<Self, ServerError> {
        let fingerprint = token.fingerprint().map_err(|_| ServerError(token.ca.clone()))?;
        let servers = token.oracles.iter().map(|o| o.parse()).collect::<Result<_, _>>()?;
        Ok(Self { servers, trust: Trust::Fingerprint(fingerprint), identity: None })
    }
}

impl FromStr for Server {
    type Err = ServerError;
    fn from_str(text: &str) -> Result<Self, ServerError> {
        let bad = || ServerError(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(bad()) } else { Ok(Self::Unix(path.into())) };
        }
        let authority = text.strip_prefix("https://").unwrap_or(text);
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let (host, port) = authority.rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse().ok().filter(|p| *p != 0).ok_or_else(bad)?;
        let host = match host.strip_prefix('[') {
            Some(v6) => v6.strip_suffix(']').filter(|h| h.contains(':')).ok_or_else(bad)?,
            None => host,
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
        let bracketed = authority.starts_with('[');
        if host.is_empty() || !host.chars().all(legal) || (host.contains(':') && !bracketed) {
            return Err(bad());
        }
        Ok(Self::Tls { host: host.to_owned(), port })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls { host, port } if host.contains(':') => write!(f, "https://[{host}]:{port}"),
            Self::Tls { host, port } => write!(f, "https://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let tls = |host: &str, port| Server::Tls { host: host.into(), port };
        assert_eq!("https://o1:4343".parse(), Ok(tls("o1", 4343)));
        assert_eq!("192.0.2.1:1".parse(), Ok(tls("192.0.2.1", 1)));
        assert_eq!("https://[2001:db8::1]:4343/".parse(), Ok(tls("2001:db8::1", 4343)));
        assert_eq!("unix:/run/x".parse(), Ok(Server::Unix("/run/x".into())));
        for bad in [
            "",
            "o1",
            "o1:",
            "o1:0",
            "o1:65536",
            ":1",
            "http://o1:1",
            "::1:4343",
            "[o1]:1",
            "unix:",
            "a b:1",
            "o/1:2",
        ] {
            assert_eq!(bad.parse::<Server>(), Err(ServerError(bad.into())));
        }
        for text in ["https://o1:4343", "https://[2001:db8::1]:4343", "unix:/run/x"] {
            assert_eq!(text.parse::<Server>().unwrap().to_string(), text);
        }
    }
}
