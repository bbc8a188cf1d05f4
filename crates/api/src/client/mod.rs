//! Clients of `/v1` and of the NVE's local API.

mod endpoint;
mod error;
mod local;
mod tls;
mod transport;
mod watch;

pub use endpoint::{Endpoint, Identity, Server, ServerError, Trust};
pub use error::{ApiError, ClientError};
pub use local::LocalClient;
pub use tls::{ORACLE_SERVER_NAME, TlsError, tls_config};
pub use watch::{Lines, Watch};

use crate::{
    ChangeAddresses, ConversationView, Counters, DuplicateView, GrantReply, GrantRequest, GrantView,
    GroupView, JoinReply, JoinRequest, List, MappingView, Message, NameNext, NewToken, NewVn, NewXtr,
    NveView, PolicyItem, PutGroup, RenewReply, RenewRequest, SetGroups, TakeAddress, TicketReply, TokenReply,
    TokenView, TraceAt, TraceTicketReply, TsiView, TunnelChange, Version, Vn, VnChange, VnConnection,
    XtrView,
    local::{Items, Shown},
};
use bytes::Bytes;
use core::time::Duration;
use http::Method;
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::BTreeSet, sync::Arc};
use transport::{Ask, Transport};
use weft_model::{Epoch, GroupName, Name, NveName, TenantIp, TsiName, VnName};

/// The header by which an NVE's agent says which start of it asks: of what an earlier one has asked for nothing counts
/// that comes later.
pub const AGENT_START: &str = "weft-agent-start";

/// A client of the Oracle's `/v1`. Cheap to clone; connections are shared and kept warm.
///
/// Needs a tokio runtime with I/O and time. Every method's errors: [`ClientError::Api`] when the
/// Oracle refuses, the others when it cannot be reached or understood.
#[derive(Clone)]
pub struct Client {
    transport: Arc<Transport>,
}

fn get(path: impl Into<String>) -> Ask {
    Ask { method: Method::GET, path: path.into(), body: None, repeatable: true }
}

fn delete(path: impl Into<String>) -> Ask {
    Ask { method: Method::DELETE, path: path.into(), body: None, repeatable: false }
}

/// # Errors
/// [`ClientError::Answer`] never happens for our types, which serialize always.
fn post(path: &str, body: &impl Serialize, repeatable: bool) -> Result<Ask, ClientError> {
    let body = serde_json::to_vec(body)
        .map_err(|e| ClientError::Answer { address: path.to_owned(), reason: e.to_string() })?;
    Ok(Ask { method: Method::POST, path: path.to_owned(), body: Some(Bytes::from(body)), repeatable })
}

/// # Errors
/// As [`post`].
fn put(path: &str, body: &impl Serialize) -> Result<Ask, ClientError> {
    Ok(Ask { method: Method::PUT, ..post(path, body, true)? })
}

impl Transport {
    async fn json<T: DeserializeOwned>(&self, ask: &Ask) -> Result<T, ClientError> {
        read(ask, &self.call(ask).await?)
    }
}

fn read<T: DeserializeOwned>(ask: &Ask, body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body)
        .map_err(|e| ClientError::Answer { address: ask.path.clone(), reason: e.to_string() })
}

fn vn_query(path: &str, vn: Option<&VnName>) -> Ask {
    get(vn.map_or_else(|| path.to_owned(), |vn| format!("{path}?vn={vn}")))
}

fn force(force: bool) -> &'static str {
    if force { "?force=true" } else { "" }
}

#[allow(clippy::missing_errors_doc, reason = "said once, at the type")]
impl Client {
    /// A client; connects when first used.
    pub fn new(endpoint: &Endpoint) -> Result<Self, ClientError> {
        Ok(Self { transport: Arc::new(Transport::new(endpoint)?) })
    }

    /// A client that waits at most `timeout` for each answer (10 s by default); watches are not limited.
    pub fn with_timeout(endpoint: &Endpoint, timeout: Duration) -> Result<Self, ClientError> {
        let mut transport = Transport::new(endpoint)?;
        transport.set_timeout(timeout);
        Ok(Self { transport: Arc::new(transport) })
    }

    /// A client of an NVE's agent, of which this is the `start`-th start; later ones have higher numbers.
    pub fn of_agent(endpoint: &Endpoint, start: u64) -> Result<Self, ClientError> {
        let mut transport = Transport::new(endpoint)?;
        transport.set_start(start);
        Ok(Self { transport: Arc::new(transport) })
    }

    async fn watch<T: DeserializeOwned>(&self, kind: &str, from: u64) -> Result<Watch<T>, ClientError> {
        let ask = get(format!("/v1/{kind}?watch=true&resource_version={from}"));
        Ok(Watch::new(self.transport.stream(&ask).await?))
    }

    /// What answers.
    pub async fn version(&self) -> Result<Version, ClientError> {
        self.transport.json(&get("/v1/version")).await
    }

    /// The VNs the caller may see.
    pub async fn vns(&self) -> Result<List<Vn>, ClientError> {
        self.transport.json(&get("/v1/vns")).await
    }

    /// Changes of VNs after `from`.
    pub async fn watch_vns(&self, from: u64) -> Result<Watch<Vn>, ClientError> {
        self.watch("vns", from).await
    }

    /// One VN.
    pub async fn vn(&self, name: &VnName) -> Result<Vn, ClientError> {
        self.transport.json(&get(format!("/v1/vns/{name}"))).await
    }

    /// Creates a VN.
    pub async fn create_vn(&self, vn: &NewVn) -> Result<Vn, ClientError> {
        self.transport.json(&post("/v1/vns", vn, false)?).await
    }

    /// Changes how a VN behaves.
    pub async fn change_vn(&self, name: &VnName, change: &VnChange) -> Result<Vn, ClientError> {
        let ask = Ask { method: Method::PATCH, ..post(&format!("/v1/vns/{name}"), change, true)? };
        self.transport.json(&ask).await
    }

    /// Deletes a VN without tenant systems.
    pub async fn delete_vn(&self, name: &VnName) -> Result<Message, ClientError> {
        self.transport.json(&delete(format!("/v1/vns/{name}"))).await
    }

    /// Which NVEs are connected to which VNs; of an NVE, to which it is.
    pub async fn connections(&self) -> Result<List<VnConnection>, ClientError> {
        self.transport.json(&get("/v1/connections")).await
    }

    /// Connects the calling NVE to a VN; repeating it gives the same answer.
    pub async fn connect_vn(&self, name: &VnName) -> Result<Vn, ClientError> {
        let path = format!("/v1/vns/{name}/connection");
        self.transport.json(&Ask { method: Method::PUT, path, body: None, repeatable: true }).await
    }

    /// Ends that; one that is not connected is no error.
    pub async fn disconnect_vn(&self, name: &VnName) -> Result<Message, ClientError> {
        self.transport.json(&delete(format!("/v1/vns/{name}/connection"))).await
    }

    /// The security groups of all VNs.
    pub async fn groups(&self) -> Result<List<GroupView>, ClientError> {
        self.transport.json(&get("/v1/groups")).await
    }

    /// Changes of security groups after `from`.
    pub async fn watch_groups(&self, from: u64) -> Result<Watch<GroupView>, ClientError> {
        self.watch("groups", from).await
    }

    /// One security group.
    pub async fn group(&self, vn: &VnName, name: &GroupName) -> Result<GroupView, ClientError> {
        self.transport.json(&get(format!("/v1/groups/{vn}/{name}"))).await
    }

    /// Makes a security group, or replaces its rules.
    pub async fn put_group(
        &self,
        vn: &VnName,
        name: &GroupName,
        put_group: &PutGroup,
    ) -> Result<GroupView, ClientError> {
        // Twice is an error where a revision is named.
        let once = put_group.revision.is_some();
        let ask = put(&format!("/v1/groups/{vn}/{name}"), put_group)?;
        self.transport.json(&Ask { repeatable: !once, ..ask }).await
    }

    /// Deletes a security group that nobody uses.
    pub async fn delete_group(&self, vn: &VnName, name: &GroupName) -> Result<Message, ClientError> {
        self.transport.json(&delete(format!("/v1/groups/{vn}/{name}"))).await
    }

    /// Says which security groups a tenant system is in.
    pub async fn set_groups(
        &self,
        vn: &VnName,
        tsi: &TsiName,
        groups: BTreeSet<GroupName>,
    ) -> Result<GrantView, ClientError> {
        self.transport.json(&put(&format!("/v1/grants/{vn}/{tsi}/groups"), &SetGroups { groups })?).await
    }

    /// Changes the tunnel policy of a tenant system, wherever it is.
    pub async fn change_tunnel(
        &self,
        vn: &VnName,
        tsi: &TsiName,
        change: &TunnelChange,
    ) -> Result<GrantView, ClientError> {
        let ask = post(&format!("/v1/grants/{vn}/{tsi}/tunnel"), change, true)?;
        self.transport.json(&Ask { method: Method::PATCH, ..ask }).await
    }

    /// What the calling NVE has to know of access policy.
    pub async fn policy(&self) -> Result<List<PolicyItem>, ClientError> {
        self.transport.json(&get("/v1/policy")).await
    }

    /// Changes of that after `from`.
    pub async fn watch_policy(&self, from: u64) -> Result<Watch<PolicyItem>, ClientError> {
        self.watch("policy", from).await
    }

    /// All NVEs.
    pub async fn nves(&self) -> Result<List<NveView>, ClientError> {
        self.transport.json(&get("/v1/nves")).await
    }

    /// What an NVE shows of itself, asked through the Oracle; as [`LocalClient`] reads it.
    ///
    /// [`LocalClient`]: crate::LocalClient
    pub async fn shown<T: DeserializeOwned>(&self, nve: &NveName, what: Shown) -> Result<T, ClientError> {
        self.transport.json(&get(format!("/v1/nves/{nve}/{what}"))).await
    }

    /// Changes of NVEs after `from`.
    pub async fn watch_nves(&self, from: u64) -> Result<Watch<NveView>, ClientError> {
        self.watch("nves", from).await
    }

    /// Removes an NVE and revokes its certificate; with `release` its grants go too.
    pub async fn remove_nve(&self, name: &NveName, release: bool) -> Result<Message, ClientError> {
        self.transport.json(&delete(format!("/v1/nves/{name}{}", force(release)))).await
    }

    /// The plain xTRs, without their secrets.
    pub async fn xtrs(&self) -> Result<Items<XtrView>, ClientError> {
        self.transport.json(&get("/v1/xtrs")).await
    }

    /// Makes a plain RFC 9301 xTR known.
    pub async fn create_xtr(&self, xtr: &NewXtr) -> Result<XtrView, ClientError> {
        self.transport.json(&post("/v1/xtrs", xtr, false)?).await
    }

    /// Forgets a plain xTR; with `release` its grants go too.
    pub async fn remove_xtr(&self, name: &Name, release: bool) -> Result<Message, ClientError> {
        self.transport.json(&delete(format!("/v1/xtrs/{name}{}", force(release)))).await
    }

    /// Makes a join token.
    pub async fn create_token(&self, token: &NewToken) -> Result<TokenReply, ClientError> {
        self.transport.json(&post("/v1/tokens", token, false)?).await
    }

    /// The join tokens, without their secrets.
    pub async fn tokens(&self) -> Result<Items<TokenView>, ClientError> {
        self.transport.json(&get("/v1/tokens")).await
    }

    /// Enrols an NVE; repeating it with the same CSR gives the same answer.
    pub async fn join(&self, join: &JoinRequest) -> Result<JoinReply, ClientError> {
        self.transport.json(&post("/v1/join", join, true)?).await
    }

    /// A new certificate for the calling NVE.
    pub async fn renew(&self, renew: &RenewRequest) -> Result<RenewReply, ClientError> {
        self.transport.json(&post("/v1/renew", renew, true)?).await
    }

    /// Takes a tenant system and its addresses; repeating it gives the same answer.
    pub async fn grant(&self, grant: &GrantRequest) -> Result<GrantReply, ClientError> {
        self.grant_anew(grant).await.map(|(reply, _)| reply)
    }

    /// As [`Self::grant`], with whether the grant is new: false where an earlier call made it, or an
    /// earlier try of this one.
    pub async fn grant_anew(&self, grant: &GrantRequest) -> Result<(GrantReply, bool), ClientError> {
        let ask = post("/v1/grants", grant, true)?;
        let (status, body) = self.transport.answer(&ask).await?;
        Ok((read(&ask, &body)?, status == http::StatusCode::CREATED))
    }

    /// Takes one more address for a tenant system; repeating it gives the same answer.
    pub async fn take_address(
        &self,
        vn: &VnName,
        tsi: &TsiName,
        take: TenantIp,
    ) -> Result<GrantReply, ClientError> {
        let path = format!("/v1/grants/{vn}/{tsi}/addresses");
        self.transport.json(&post(&path, &TakeAddress { ip: take }, true)?).await
    }

    /// Takes addresses for a tenant system, and gives others of it back.
    pub async fn change_addresses(
        &self,
        vn: &VnName,
        tsi: &TsiName,
        change: &ChangeAddresses,
    ) -> Result<GrantReply, ClientError> {
        let path = format!("/v1/grants/{vn}/{tsi}/addresses");
        self.transport.json(&Ask { method: Method::PATCH, ..post(&path, change, true)? }).await
    }

    /// Names the NVE that a tenant system moves to; repeating it gives the same answer.
    pub async fn name_next(
        &self,
        vn: &VnName,
        tsi: &TsiName,
        nve: NveName,
    ) -> Result<GrantView, ClientError> {
        self.transport.json(&put(&format!("/v1/grants/{vn}/{tsi}/next"), &NameNext { nve })?).await
    }

    /// Has an NVE hold a tenant system, whoever holds it (operators); `by_force` also when that one is connected.
    pub async fn take_over(
        &self,
        vn: &VnName,
        tsi: &TsiName,
        nve: NveName,
        by_force: bool,
    ) -> Result<GrantView, ClientError> {
        let path = format!("/v1/grants/{vn}/{tsi}/owner{}", force(by_force));
        self.transport.json(&put(&path, &NameNext { nve })?).await
    }

    /// Calls a move off.
    pub async fn call_off(&self, vn: &VnName, tsi: &TsiName) -> Result<GrantView, ClientError> {
        self.transport.json(&delete(format!("/v1/grants/{vn}/{tsi}/next"))).await
    }

    /// A ticket for what the NVE that a tenant system moves from knows of it, for the NVE that it moves to.
    pub async fn ticket(&self, vn: &VnName, tsi: &TsiName) -> Result<TicketReply, ClientError> {
        let path = format!("/v1/grants/{vn}/{tsi}/ticket");
        let ask = Ask { method: Method::POST, path, body: None, repeatable: true };
        self.transport.json(&ask).await
    }

    /// A ticket for a trace from a tenant system that the calling NVE has to another NVE, of a packet that is known by
    /// `trace` already if it goes by several.
    pub async fn trace_ticket(
        &self,
        vn: &VnName,
        tsi: &TsiName,
        nve: NveName,
        trace: Option<u32>,
    ) -> Result<TraceTicketReply, ClientError> {
        let path = format!("/v1/grants/{vn}/{tsi}/trace");
        self.transport.json(&post(&path, &TraceAt { nve, trace }, true)?).await
    }

    /// Gives a tenant system back; `by_force` (operators) also when the NVE that holds it is connected.
    pub async fn release(&self, vn: &VnName, tsi: &TsiName, by_force: bool) -> Result<Message, ClientError> {
        self.transport.json(&delete(format!("/v1/grants/{vn}/{tsi}{}", force(by_force)))).await
    }

    /// Gives a tenant system back if it is the calling NVE's own, and not if it merely moves there.
    pub async fn release_owned(&self, vn: &VnName, tsi: &TsiName) -> Result<Message, ClientError> {
        self.transport.json(&delete(format!("/v1/grants/{vn}/{tsi}?owned=true"))).await
    }

    /// Gives a tenant system back that the calling NVE has Activated at this epoch, whether or not it is written down
    /// as its own yet.
    pub async fn release_activated(
        &self,
        vn: &VnName,
        tsi: &TsiName,
        epoch: Epoch,
    ) -> Result<Message, ClientError> {
        self.transport.json(&delete(format!("/v1/grants/{vn}/{tsi}?activated={}", epoch.get()))).await
    }

    /// The grants the caller may see: an NVE its own.
    pub async fn grants(&self) -> Result<List<GrantView>, ClientError> {
        self.transport.json(&get("/v1/grants")).await
    }

    /// Changes of grants after `from`.
    pub async fn watch_grants(&self, from: u64) -> Result<Watch<GrantView>, ClientError> {
        self.watch("grants", from).await
    }

    /// The tenant systems and whether they are registered.
    pub async fn tsis(&self, vn: Option<&VnName>) -> Result<Items<TsiView>, ClientError> {
        self.transport.json(&vn_query("/v1/tsis", vn)).await
    }

    /// The mapping database.
    pub async fn mappings(&self, vn: Option<&VnName>) -> Result<Items<MappingView>, ClientError> {
        self.transport.json(&vn_query("/v1/mappings", vn)).await
    }

    /// Who claims what another holds.
    pub async fn duplicates(&self, vn: Option<&VnName>) -> Result<Items<DuplicateView>, ClientError> {
        self.transport.json(&vn_query("/v1/duplicates", vn)).await
    }

    /// Who talks to whom.
    pub async fn conversations(&self, vn: Option<&VnName>) -> Result<Items<ConversationView>, ClientError> {
        self.transport.json(&vn_query("/v1/conversations", vn)).await
    }

    /// The Oracle's counters.
    pub async fn counters(&self) -> Result<Counters, ClientError> {
        self.transport.json(&get("/v1/counters")).await
    }

    /// The OpenAPI document.
    pub async fn openapi(&self) -> Result<serde_json::Value, ClientError> {
        self.transport.json(&get("/v1/openapi.json")).await
    }

    /// A consistent copy of everything durable, as `weft oracle restore` reads it.
    pub async fn backup(&self) -> Result<Bytes, ClientError> {
        self.transport.call(&get("/v1/backup")).await
    }
}
