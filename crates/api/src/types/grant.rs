//! Grants: who may hold which tenant system.

use crate::Vn;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use weft_model::{Epoch, Grant, GroupName, NveName, Rloc, TenantIp, TsMac, TsiName, VnName, XtrId};

/// A request to hold a tenant system interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantRequest {
    /// The virtual network.
    pub vn: VnName,
    /// The interface's name in it.
    pub tsi: TsiName,
    /// Its MAC address; assigned when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<TsMac>,
    /// Its IP addresses. Of a family the VN has subnets of and none is named of, one is assigned.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub ips: BTreeSet<TenantIp>,
    /// Its security groups; its VN's default ones when it names none.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub groups: BTreeSet<GroupName>,
    /// The owner, for operators; an NVE is its own owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nve: Option<NveName>,
    /// The NVE Activates it as soon as it has the grant (RFC 8394), so whoever asked for it is told where
    /// it is without waiting for its registration, which follows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub activate: bool,
    /// Shown in the logs; repeating a request is harmless with or without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// The answer to a request for a grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct GrantReply {
    /// The grant.
    pub grant: Grant,
    /// Its VN.
    pub vn: Vn,
    /// The moment of the store at which it held.
    pub resource_version: u64,
}

/// A grant with the names behind its numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct GrantView {
    /// The VN's name.
    pub vn: VnName,
    /// The owner's name.
    pub nve: NveName,
    /// The grant.
    pub grant: Grant,
}

/// Where a tenant system moves to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NameNext {
    /// The NVE that may Associate it from now on and holds it once it has Activated it.
    pub nve: NveName,
}

/// A request for one more address of an existing tenant system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TakeAddress {
    /// A host address of the VN's subnets, or an IPv6 link-local one (two at most).
    pub ip: TenantIp,
}

/// A change of the addresses of an existing tenant system, all of it or nothing. Those that it has, or has not, already
/// are no error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeAddresses {
    /// Host addresses of the VN's subnets, or IPv6 link-local ones (two at most).
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub add: BTreeSet<TenantIp>,
    /// Addresses that are free again.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub remove: BTreeSet<TenantIp>,
}

/// Which NVE is to say what becomes of a traced packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TraceAt {
    /// The NVE that the packet goes to.
    pub nve: NveName,
    /// What the packet is known by, where another NVE on its way is told, too; else the Oracle names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<u32>,
}

/// An Oracle's word for the NVE that has a tenant system, to show to another one that a traced packet goes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TraceTicketReply {
    /// See [`crate::SignedTicket`].
    pub ticket: String,
    /// What the packet is known by on its way.
    pub trace: u32,
}

/// An Oracle's word for the NVE that a tenant system moves to, to show to the one that it moves from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TicketReply {
    /// See [`crate::SignedTicket`].
    pub ticket: String,
    /// The NVE that it moves from.
    pub from: XtrId,
    /// Where that is.
    #[schema(value_type = Vec<String>)]
    pub rlocs: BTreeSet<Rloc>,
    /// The epoch at which it is the caller's.
    pub epoch: Epoch,
}
