//! Who may do what: the one place that decides it.

use super::{Failure, Peer};
use crate::{registry::Caller, server::App};
use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, Method},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::sync::Arc;
use weft_api::{AGENT_START, Code, Role};
use weft_model::{NveName, XtrId};

/// Who asks, after their certificate and the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// No certificate.
    Nobody,
    Operator,
    Viewer,
    Nve {
        xtr_id: XtrId,
        name: NveName,
        /// Which start of its agent asks, if it says so.
        start: Option<u64>,
    },
}

impl Identity {
    /// The NVE, if it is one.
    pub(super) const fn nve(&self) -> Option<XtrId> {
        match self {
            Self::Nve { xtr_id, .. } => Some(*xtr_id),
            _ => None,
        }
    }

    /// On whose behalf the registry acts.
    pub(super) fn caller(&self) -> Result<Caller, Failure> {
        match self {
            Self::Operator => Ok(Caller::Operator),
            Self::Nve { xtr_id, name, start } => {
                Ok(Caller::Nve { xtr_id: *xtr_id, name: name.clone(), start: *start })
            }
            Self::Viewer | Self::Nobody => Err(refused(self, "operators and NVEs")),
        }
    }
}

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// Nothing, not even a certificate.
    Nothing,
    /// Any role; an NVE then sees what concerns it.
    AnyRole,
    /// An operator or viewer.
    Person,
    Operator,
    /// An operator or an NVE.
    Holder,
    Nve,
}

/// The whole policy. A route that is not here is for operators.
fn need(method: &Method, path: &str) -> Need {
    match (method, path) {
        (&Method::GET, "/v1/version") | (&Method::POST, "/v1/join") => Need::Nothing,
        (
            &Method::GET,
            "/v1/vns" | "/v1/vns/{name}" | "/v1/connections" | "/v1/nves" | "/v1/grants" | "/v1/openapi.json",
        ) => Need::AnyRole,
        (
            &Method::GET,
            "/v1/tokens"
            | "/v1/xtrs"
            | "/v1/tsis"
            | "/v1/mappings"
            | "/v1/conversations"
            | "/v1/duplicates"
            | "/v1/counters"
            | "/v1/nves/{name}/{what}"
            | "/v1/groups"
            | "/v1/groups/{vn}/{name}",
        ) => Need::Person,
        (&Method::POST, "/v1/grants" | "/v1/grants/{vn}/{tsi}/addresses")
        | (&Method::PATCH, "/v1/grants/{vn}/{tsi}/addresses")
        | (&Method::PUT, "/v1/grants/{vn}/{tsi}/next")
        | (&Method::DELETE, "/v1/grants/{vn}/{tsi}" | "/v1/grants/{vn}/{tsi}/next") => Need::Holder,
        (&Method::POST, "/v1/renew" | "/v1/grants/{vn}/{tsi}/ticket" | "/v1/grants/{vn}/{tsi}/trace")
        | (&Method::PUT | &Method::DELETE, "/v1/vns/{name}/connection")
        | (&Method::GET, "/v1/policy") => Need::Nve,
        _ => Need::Operator,
    }
}

fn refused(identity: &Identity, who: &str) -> Failure {
    let is = match identity {
        Identity::Nobody => {
            return Failure::new(
                Code::Unauthenticated,
                format!("this is for {who}: show a client certificate of this fabric"),
            );
        }
        Identity::Operator => "an operator's".to_owned(),
        Identity::Viewer => "a viewer's".to_owned(),
        Identity::Nve { name, .. } => format!("NVE '{name}'s"),
    };
    Failure::new(Code::Forbidden, format!("this is for {who}; the certificate shown is {is}"))
}

fn permit(need: Need, identity: &Identity) -> Result<(), Failure> {
    let (allowed, who) = match (need, identity) {
        (Need::Nothing, _) => (true, ""),
        (Need::AnyRole, who) => (*who != Identity::Nobody, "operators, viewers and NVEs"),
        (Need::Person, who) => {
            (matches!(who, Identity::Operator | Identity::Viewer), "operators and viewers")
        }
        (Need::Operator, who) => (*who == Identity::Operator, "operators"),
        (Need::Holder, who) => {
            (matches!(who, Identity::Operator | Identity::Nve { .. }), "operators and NVEs")
        }
        (Need::Nve, who) => (matches!(who, Identity::Nve { .. }), "NVEs"),
    };
    if allowed { Ok(()) } else { Err(refused(identity, who)) }
}

/// Looks the caller up anew for each request: a removed NVE is refused on connections that are up.
pub(super) fn identify(app: &App, role: Option<&Role>) -> Result<Identity, Failure> {
    match role {
        None => Ok(Identity::Nobody),
        Some(Role::Operator(_)) => Ok(Identity::Operator),
        Some(Role::Viewer(_)) => Ok(Identity::Viewer),
        Some(Role::Nve(id)) => match app.directory.nve(*id) {
            Some(nve) => Ok(Identity::Nve { xtr_id: *id, name: nve.name, start: None }),
            None => Err(Failure::new(
                Code::Revoked,
                format!(
                    "NVE {id} is not enrolled here or has been removed; to join again, move its identity.json away and start `weft nve --join TOKEN`"
                ),
            )),
        },
        Some(role @ Role::Oracle(_)) => {
            Err(Failure::new(Code::Forbidden, format!("'{role}' has no business at /v1")))
        }
    }
}

/// An NVE's agent says which start of it asks.
fn with_start(identity: Identity, headers: &HeaderMap) -> Result<Identity, Failure> {
    match (identity, headers.get(AGENT_START)) {
        (Identity::Nve { xtr_id, name, .. }, Some(value)) => {
            let start = value.to_str().ok().and_then(|text| text.parse().ok());
            let bad = || Failure::bad(format!("'{AGENT_START}: {value:?}': write a number"));
            Ok(Identity::Nve { xtr_id, name, start: Some(start.ok_or_else(bad)?) })
        }
        (identity, _) => Ok(identity),
    }
}

/// Lets a request through to its handler, with its caller's [`Identity`], or not.
pub(super) async fn admit(
    State(app): State<Arc<App>>,
    path: MatchedPath,
    mut request: Request,
    next: Next,
) -> Response {
    let need = need(request.method(), path.as_str());
    let role = request.extensions().get::<Peer>().and_then(|peer| peer.role.clone());
    let identity = match need {
        // A removed NVE may join again and ask who answers.
        Need::Nothing => Ok(Identity::Nobody),
        _ => identify(&app, role.as_ref()).and_then(|identity| with_start(identity, request.headers())),
    };
    match identity.and_then(|identity| permit(need, &identity).map(|()| identity)) {
        Ok(identity) => {
            request.extensions_mut().insert(identity);
            next.run(request).await
        }
        Err(failure) => failure.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h8_an_agent_says_which_start_of_it_asks() {
        let nve = |start| Identity::Nve { xtr_id: XtrId([1; 16]), name: NveName::new("n").unwrap(), start };
        let with = |text: &str| HeaderMap::from_iter([(AGENT_START.parse().unwrap(), text.parse().unwrap())]);
        assert_eq!(with_start(nve(None), &HeaderMap::new()).unwrap(), nve(None));
        assert_eq!(with_start(nve(None), &with("18446744073709551615")).unwrap(), nve(Some(u64::MAX)));
        assert_eq!(with_start(Identity::Operator, &with("x")).unwrap(), Identity::Operator);
        for bad in ["", "x", "-1", "18446744073709551616"] {
            assert!(with_start(nve(None), &with(bad)).is_err(), "{bad}");
        }
    }

    /// Every route of the document against every role.
    #[test]
    fn the_whole_table() {
        let nve = Identity::Nve { xtr_id: XtrId([1; 16]), name: NveName::new("n").unwrap(), start: None };
        let roles = [Identity::Nobody, Identity::Viewer, nve, Identity::Operator];
        let document: serde_json::Value = serde_json::from_str(&super::super::openapi().unwrap()).unwrap();
        let mut table = String::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys() {
                let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
                let need = need(&method, path);
                let may: String = roles
                    .iter()
                    .zip("-vno".chars())
                    .filter(|(role, _)| permit(need, role).is_ok())
                    .map(|(_, c)| c)
                    .collect();
                table += &format!("{method} {path} {may}\n");
            }
        }
        let mut lines: Vec<&str> = table.lines().collect();
        lines.sort_unstable();
        assert_eq!(
            lines,
            [
                "DELETE /v1/grants/{vn}/{tsi} no",
                "DELETE /v1/grants/{vn}/{tsi}/next no",
                "DELETE /v1/groups/{vn}/{name} o",
                "DELETE /v1/nves/{name} o",
                "DELETE /v1/vns/{name} o",
                "DELETE /v1/vns/{name}/connection n",
                "DELETE /v1/xtrs/{name} o",
                "GET /v1/backup o",
                "GET /v1/connections vno",
                "GET /v1/conversations vo",
                "GET /v1/counters vo",
                "GET /v1/duplicates vo",
                "GET /v1/grants vno",
                "GET /v1/groups vo",
                "GET /v1/groups/{vn}/{name} vo",
                "GET /v1/mappings vo",
                "GET /v1/nves vno",
                "GET /v1/nves/{name}/{what} vo",
                "GET /v1/openapi.json vno",
                "GET /v1/policy n",
                "GET /v1/tokens vo",
                "GET /v1/tsis vo",
                "GET /v1/version -vno",
                "GET /v1/vns vno",
                "GET /v1/vns/{name} vno",
                "GET /v1/xtrs vo",
                "PATCH /v1/grants/{vn}/{tsi}/addresses no",
                "PATCH /v1/grants/{vn}/{tsi}/tunnel o",
                "PATCH /v1/vns/{name} o",
                "POST /v1/grants no",
                "POST /v1/grants/{vn}/{tsi}/addresses no",
                "POST /v1/grants/{vn}/{tsi}/ticket n",
                "POST /v1/grants/{vn}/{tsi}/trace n",
                "POST /v1/join -vno",
                "POST /v1/renew n",
                "POST /v1/tokens o",
                "POST /v1/vns o",
                "POST /v1/xtrs o",
                "PUT /v1/grants/{vn}/{tsi}/groups o",
                "PUT /v1/grants/{vn}/{tsi}/next no",
                "PUT /v1/grants/{vn}/{tsi}/owner o",
                "PUT /v1/groups/{vn}/{name} o",
                "PUT /v1/vns/{name}/connection n",
            ]
        );
    }
}
