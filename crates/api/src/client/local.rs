//! The client of the NVE's local API.

use super::{
    ClientError, Endpoint, Lines, delete, get, post, put,
    transport::{Ask, Transport},
};
use crate::{
    Counters, Message, TraceRequest, TraceView,
    local::{
        Attach, CacheEntry, ChangeState, Connection, Drop, Event, Group, Items, RequestId, Shown, Status,
        Table, Tsi, Update,
    },
};
use core::time::Duration;
use http::Method;
use serde::de::DeserializeOwned;
use std::{path::Path, sync::Arc};
use weft_model::{TsiName, VnName};

/// A client of the NVE on this host, see [`crate::local`]. Cheap to clone.
#[derive(Clone)]
pub struct LocalClient {
    transport: Arc<Transport>,
}

#[allow(clippy::missing_errors_doc, reason = "as for Client")]
impl LocalClient {
    /// A client of the NVE whose socket is `path`; connects when first used.
    pub fn new(path: &Path) -> Result<Self, ClientError> {
        let mut transport = Transport::new(&Endpoint::unix(path))?;
        // An attach may wait for an Oracle to come back.
        transport.set_timeout(Duration::from_secs(30));
        Ok(Self { transport: Arc::new(transport) })
    }

    /// Attaches a device; repeating it gives the same answer.
    pub async fn attach(&self, attach: &Attach) -> Result<Tsi, ClientError> {
        self.transport.json(&post("/v1/tsis", attach, true)?).await
    }

    /// Connects the NVE to a VN without a tenant system; repeating it gives the same answer.
    pub async fn connect(
        &self,
        vn: &VnName,
        request_id: Option<&RequestId>,
    ) -> Result<Connection, ClientError> {
        let id = request_id.map_or_else(String::new, |id| format!("?request_id={id}"));
        let path = format!("/v1/vns/{vn}{id}");
        self.transport.json(&Ask { method: Method::PUT, path, body: None, repeatable: true }).await
    }

    /// Ends that.
    pub async fn disconnect(
        &self,
        vn: &VnName,
        request_id: Option<&RequestId>,
    ) -> Result<Message, ClientError> {
        let id = request_id.map_or_else(String::new, |id| format!("?request_id={id}"));
        self.transport.json(&delete(format!("/v1/vns/{vn}{id}"))).await
    }

    /// The VNs that the NVE was connected to.
    pub async fn connections(&self) -> Result<Items<Connection>, ClientError> {
        self.transport.json(&get("/v1/vns")).await
    }

    /// Activates, or Deactivates, what is attached.
    pub async fn change_state(
        &self,
        vn: &VnName,
        tsi: &TsiName,
        change: &ChangeState,
    ) -> Result<Message, ClientError> {
        self.transport.json(&put(&format!("/v1/tsis/{vn}/{tsi}/state"), change)?).await
    }

    /// Changes what is attached, and not its state.
    pub async fn update(&self, vn: &VnName, tsi: &TsiName, update: &Update) -> Result<Tsi, ClientError> {
        let ask = post(&format!("/v1/tsis/{vn}/{tsi}"), update, true)?;
        self.transport.json(&Ask { method: Method::PATCH, ..ask }).await
    }

    /// Traces a packet.
    pub async fn trace(&self, trace: &TraceRequest) -> Result<TraceView, ClientError> {
        self.transport.json(&post("/v1/traces", trace, false)?).await
    }

    /// Detaches; `by_force` also without an Oracle to release the grant at.
    pub async fn detach(
        &self,
        vn: &VnName,
        tsi: &TsiName,
        by_force: bool,
        request_id: Option<&RequestId>,
    ) -> Result<Message, ClientError> {
        let id = request_id.map_or_else(String::new, |id| format!("&request_id={id}"));
        self.transport.json(&delete(format!("/v1/tsis/{vn}/{tsi}?force={by_force}{id}"))).await
    }

    /// What becomes of interfaces from now on, or from behind the event of that number: see [`Event`].
    pub async fn events(&self, after: Option<u64>) -> Result<Lines<Event>, ClientError> {
        let after = after.map_or_else(String::new, |after| format!("?after={after}"));
        Ok(Lines::new(self.transport.stream(&get(format!("/v1/events{after}"))).await?))
    }

    /// What the NVE shows, of any kind.
    pub async fn shown<T: DeserializeOwned>(&self, what: Shown) -> Result<T, ClientError> {
        self.transport.json(&get(format!("/v1/{what}"))).await
    }

    /// What is attached.
    pub async fn tsis(&self) -> Result<Items<Tsi>, ClientError> {
        self.transport.json(&get("/v1/tsis")).await
    }

    /// The map cache.
    pub async fn mappings(&self) -> Result<Items<CacheEntry>, ClientError> {
        self.transport.json(&get("/v1/mappings")).await
    }

    /// Multicast groups and who asked for them.
    pub async fn groups(&self) -> Result<Items<Group>, ClientError> {
        self.transport.json(&get("/v1/groups")).await
    }

    /// Drops by VN and reason.
    pub async fn drops(&self) -> Result<Items<Drop>, ClientError> {
        self.transport.json(&get("/v1/drops")).await
    }

    /// The data plane's tables.
    pub async fn tables(&self) -> Result<Items<Table>, ClientError> {
        self.transport.json(&get("/v1/tables")).await
    }

    /// The NVE's counters.
    pub async fn counters(&self) -> Result<Counters, ClientError> {
        self.transport.json(&get("/v1/counters")).await
    }

    /// The NVE itself.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.transport.json(&get("/v1/status")).await
    }
}
