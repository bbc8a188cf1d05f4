//! What an Oracle sees right now: views, not facts.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use weft_model::{
    Eid, Epoch, GroupName, MacAddr, NveName, Origin, Rloc, TenantIp, TsMac, TsiName, TunnelPolicy, VnName,
    Vni, XtrId,
};

/// One entry of the mapping database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MappingView {
    /// The VN.
    pub vn: VnName,
    /// Its VNID.
    pub vni: Vni,
    /// What is asked for: an IP or a MAC address.
    pub eid: Eid,
    /// The MAC address behind an IP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// Where it is.
    #[schema(value_type = Vec<String>)]
    pub rlocs: Vec<Rloc>,
    /// Who registered it, or whom its grant names.
    pub owner: XtrId,
    /// That NVE's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nve: Option<NveName>,
    /// The grant's epoch.
    pub epoch: Epoch,
    /// Registered, or answered from the grant.
    pub origin: Origin,
    /// Whether the owner's session is lost and the entry only kept.
    pub stale: bool,
    /// How long it has been so, seconds.
    pub age_s: u64,
}

/// Who talks to whom, as seen from Map-Requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ConversationView {
    /// The VN.
    pub vn: VnName,
    /// The asking tenant system, where the Map-Request named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Eid>,
    /// What was asked for.
    pub destination: Eid,
    /// The asking NVE.
    pub nve: XtrId,
    /// That NVE's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nve_name: Option<NveName>,
    /// How long ago, seconds.
    pub last_seen_s: u64,
}

/// Somebody claims what another holds: two hypervisors the same tenant system, two tenant systems the same address,
/// an NVE what has moved on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DuplicateView {
    /// The VN.
    pub vn: VnName,
    /// Its VNID.
    pub vni: Vni,
    /// The tenant system that is claimed, or that claims the address, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tsi: Option<TsiName>,
    /// The address that is claimed; none when it is the tenant system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Eid>,
    /// Who holds it.
    pub holder: XtrId,
    /// That NVE's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder_name: Option<NveName>,
    /// Who claims it.
    pub claimant: XtrId,
    /// That NVE's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimant_name: Option<NveName>,
    /// How often.
    pub times: u64,
    /// When first, seconds ago.
    pub first_s: u64,
    /// When last, seconds ago.
    pub last_s: u64,
}

/// Where a tenant system's registration stands.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum TsiState {
    /// Granted, not registered since this Oracle started or since its NVE withdrew it.
    Granted,
    /// Registered by its owner.
    Registered,
    /// Registered, but the owner's session is lost.
    Stale,
}

/// One tenant system interface of the fabric.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TsiView {
    /// The VN.
    pub vn: VnName,
    /// Its VNID.
    pub vni: Vni,
    /// The interface's name.
    pub name: TsiName,
    /// Its MAC address.
    pub mac: TsMac,
    /// Its IP addresses.
    #[schema(value_type = Vec<String>)]
    pub ips: BTreeSet<TenantIp>,
    /// The security groups it names.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub groups: BTreeSet<GroupName>,
    /// Its tunnel policy; where it says nothing, as its VN's.
    #[serde(default, skip_serializing_if = "TunnelPolicy::is_empty")]
    pub tunnel: TunnelPolicy,
    /// The NVE that holds it.
    pub owner: XtrId,
    /// That NVE's name.
    pub nve: NveName,
    /// Where that is.
    #[schema(value_type = Vec<String>)]
    pub rlocs: BTreeSet<Rloc>,
    /// The grant's epoch.
    pub epoch: Epoch,
    /// The name of the NVE it moves to, if it moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<NveName>,
    /// Whether it is registered.
    pub state: TsiState,
}

/// Counters by name, monotonic since the daemon's start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Counters {
    /// The counters.
    pub counters: BTreeMap<String, u64>,
}

/// What answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Version {
    /// Weft's version.
    pub version: String,
    /// The version of `/v1`, [`crate::API_VERSION`].
    pub api: u32,
    /// The Oracle's name.
    pub oracle: String,
    /// Whether its mapping database is complete (see `/readyz`).
    pub ready: bool,
}

/// An answer that is only a remark, such as what a deletion left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Message {
    /// One line for people.
    pub message: String,
}
