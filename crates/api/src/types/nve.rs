//! NVEs and how they become known: tokens, join, renewal, roles.

use core::{fmt, str::FromStr};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use weft_model::{BootId, NveName, Rloc, VnName, XtrId};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

/// An enrolled NVE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NveView {
    /// Its name.
    pub name: NveName,
    /// Its xTR-ID, given at join.
    pub xtr_id: XtrId,
    /// Its underlay addresses.
    #[schema(value_type = Vec<String>)]
    pub rlocs: BTreeSet<Rloc>,
    /// Whether it has a session to this Oracle. Lists for operators and viewers only: it is no
    /// durable fact, so a watch does not carry it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected: Option<bool>,
}

/// A request for a join token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewToken {
    /// How many NVEs may join with it.
    pub uses: u32,
    /// How long, seconds.
    pub ttl_s: u64,
    /// The VNs the NVE may hold tenant systems in; any when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vns: Option<Vec<VnName>>,
    /// The RLOCs the NVE may have; any when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub rlocs: Option<BTreeSet<Rloc>>,
    /// The name the NVE must have; any when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<NveName>,
}

impl Default for NewToken {
    fn default() -> Self {
        Self { uses: 1, ttl_s: 3600, vns: None, rlocs: None, name: None }
    }
}

/// A fresh join token; shown once, stored hashed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TokenReply {
    /// The text to give to `weft nve --join`; see [`crate::JoinToken`].
    pub token: String,
    /// Its identity in lists.
    pub id: String,
    /// Until when, seconds since 1970.
    pub expires_at: u64,
}

/// A join token without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TokenView {
    /// Its identity.
    pub id: String,
    /// How many joins are left.
    pub uses_left: u32,
    /// Until when, seconds since 1970.
    pub expires_at: u64,
    /// The VNs it is limited to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vns: Option<Vec<VnName>>,
    /// The RLOCs it is limited to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub rlocs: Option<BTreeSet<Rloc>>,
    /// The name it is limited to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<NveName>,
}

/// An NVE's request to be enrolled; the only request besides the version that needs no certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// From the token.
    pub secret: String,
    /// The NVE's name, unique at the Oracle.
    pub name: NveName,
    /// PKCS#10 certificate signing request, PEM, or DER in base64. Only its key counts.
    pub csr: String,
    /// Its underlay addresses, at least one.
    #[schema(value_type = Vec<String>)]
    pub rlocs: BTreeSet<Rloc>,
    /// Drawn at this start of the NVE.
    #[serde(default)]
    pub boot: BootId,
}

/// What a joined NVE keeps. Addresses are `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct JoinReply {
    /// Its identity for life.
    pub xtr_id: XtrId,
    /// Its certificate, PEM.
    pub certificate: String,
    /// Its underlay addresses as the Oracle knows them; empty from an Oracle that does not say.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub rlocs: BTreeSet<Rloc>,
    /// The CA's certificate, PEM.
    pub ca: String,
    /// Where `/v1` is.
    pub api: Vec<String>,
    /// Where sessions are (TCP, TLS 1.3).
    pub sessions: Vec<String>,
    /// Where Map-Requests go (UDP).
    pub lisp: Vec<String>,
}

/// A request for a new certificate in place of the one the caller showed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// As in [`JoinRequest::csr`].
    pub csr: String,
}

/// The new certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RenewReply {
    /// PEM.
    pub certificate: String,
    /// Until when, seconds since 1970.
    pub expires_at: u64,
}

/// Who a certificate says its holder is: the URI of its Subject Alternative Name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// May do everything.
    Operator(String),
    /// May see everything.
    Viewer(String),
    /// An NVE: sees and changes what is its own.
    Nve(XtrId),
    /// An Oracle.
    Oracle(String),
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator(name) => write!(f, "weft:operator/{name}"),
            Self::Viewer(name) => write!(f, "weft:viewer/{name}"),
            Self::Nve(id) => write!(f, "weft:nve/{id}"),
            Self::Oracle(name) => write!(f, "weft:oracle/{name}"),
        }
    }
}

impl Role {
    /// The role that a certificate (DER, verified by TLS already) gives its holder: that of its one URI.
    ///
    /// # Errors
    /// What is wrong with it: it is no certificate, or has no URI, several, or another one.
    pub fn of_certificate(certificate: &[u8]) -> Result<Self, String> {
        let (_, certificate) = X509Certificate::from_der(certificate).map_err(|e| e.to_string())?;
        let names = certificate.subject_alternative_name().map_err(|e| e.to_string())?;
        let names = names.iter().flat_map(|names| &names.value.general_names);
        let mut uris = names.filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        match (uris.next(), uris.next()) {
            (Some(uri), None) => uri.parse(),
            (None, _) => Err("it has no URI".to_owned()),
            (Some(_), Some(_)) => Err("it has several URIs".to_owned()),
        }
    }
}

impl FromStr for Role {
    type Err = String;
    fn from_str(uri: &str) -> Result<Self, String> {
        let bad = || format!("'{uri}' names no role; expected weft:operator|viewer|nve|oracle/NAME");
        let (kind, name) = uri.strip_prefix("weft:").and_then(|r| r.split_once('/')).ok_or_else(bad)?;
        if name.is_empty() {
            return Err(bad());
        }
        match kind {
            "operator" => Ok(Self::Operator(name.to_owned())),
            "viewer" => Ok(Self::Viewer(name.to_owned())),
            "nve" => name.parse().map(Self::Nve).map_err(|_| bad()),
            "oracle" => Ok(Self::Oracle(name.to_owned())),
            _ => Err(bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles() {
        for text in [
            "weft:operator/admin",
            "weft:viewer/page",
            "weft:nve/000102030405060708090a0b0c0d0e0f",
            "weft:oracle/o1",
        ] {
            assert_eq!(text.parse::<Role>().unwrap().to_string(), text);
        }
        for bad in ["", "weft:", "weft:nve/1", "weft:root/x", "weft:operator/", "spiffe://x"] {
            assert!(bad.parse::<Role>().is_err(), "{bad}");
        }
    }
}
