//! The NVE's local API on its unix socket (mode 0600): what hypervisors, container runtimes and
//! `weft` on the same host ask of the NVE.
//!
//! | Method, path | Body | Answer |
//! | --- | --- | --- |
//! | `POST /v1/tsis` | [`Attach`] | 201 or 200 [`Tsi`] |
//! | `DELETE /v1/tsis/{vn}/{name}?force=true&request_id=ID` | | 200 [`crate::Message`] |
//! | `PATCH /v1/tsis/{vn}/{name}` | [`Update`] | 200 [`Tsi`] |
//! | `PUT /v1/tsis/{vn}/{name}/state` | [`ChangeState`] | 200 [`crate::Message`] |
//! | `PUT /v1/vns/{vn}?request_id=ID` | | 200 [`Connection`] |
//! | `DELETE /v1/vns/{vn}?request_id=ID` | | 200 [`crate::Message`] |
//! | `GET /v1/vns` | | [`Items`]`<`[`Connection`]`>` |
//! | `GET /v1/events?after=N` | | [`Event`]s, one a line, for as long as the connection lasts |
//! | `GET /v1/tsis` | | [`Items`]`<`[`Tsi`]`>` |
//! | `GET /v1/mappings` | | [`Items`]`<`[`CacheEntry`]`>` |
//! | `GET /v1/groups` | | [`Items`]`<`[`Group`]`>` |
//! | `GET /v1/rules` | | [`Items`]`<`[`RuleCount`]`>` |
//! | `GET /v1/drops` | | [`Items`]`<`[`Drop`]`>` |
//! | `GET /v1/tables` | | [`Items`]`<`[`Table`]`>` |
//! | `GET /v1/counters` | | [`crate::Counters`] |
//! | `GET /v1/status` | | [`Status`] |
//! | `POST /v1/traces` | [`crate::TraceRequest`] | 200 [`crate::TraceView`] |

mod event;
mod request;

pub use event::{Event, Happened};
pub use request::{RequestId, RequestIdError};

use core::{fmt, str::FromStr};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use weft_model::{
    Eid, Epoch, GroupName, MacAddr, NveName, Origin, Rloc, TenantIp, TsMac, TsiName, TunnelPolicy, VnName,
    Vni, Wanted, XtrId,
};

/// The longest lease, seconds: a week.
pub const MAX_LEASE_S: u64 = 7 * 24 * 60 * 60;

/// What kind of device a tenant system is behind.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// The host's end of a veth pair.
    Veth,
    /// A TAP.
    Tap,
}

/// Attach a device to a VN: RFC 8394's Associate, and its Activate unless another state is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Attach {
    /// The virtual network.
    pub vn: VnName,
    /// The interface's name in it.
    pub name: TsiName,
    /// The device on the host.
    pub device: String,
    /// Its kind; looked up when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<DeviceKind>,
    /// The tenant's MAC address; assigned when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<TsMac>,
    /// The tenant's IP addresses; one per family is assigned when none is named of it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub ips: BTreeSet<TenantIp>,
    /// Its security groups; its VN's default ones when it names none.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub groups: BTreeSet<GroupName>,
    /// What it is to be.
    #[serde(default, skip_serializing_if = "State::is_default")]
    pub state: State,
    /// After so many seconds without another call that renews it, it is detached (this one again, an [`Update`], or an
    /// activation): see [`MAX_LEASE_S`]. Without one it lasts until it is detached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_s: Option<u64>,
    /// Where it moves to, only an activation puts it in service. Without this its own first frame does as well, once it
    /// is associated.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub explicit: bool,
    /// Once this has been done under this id, it is answered as it was and not done again: see [`RequestId`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
}

/// Activate or Deactivate an attached interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeState {
    /// What it is to be.
    pub state: State,
    /// Its lease from now on, as in [`Attach`]; an activation without one renews the one it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_s: Option<u64>,
    /// Once this has been done under this id, it is answered as it was and not done again: see [`RequestId`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
}

/// Change an attached interface, and not its state: RFC 8394's Update. All of it or nothing; what is not named stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Update {
    /// The device that it is at from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Addresses that it has as well; those that it has already are no error.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub add: BTreeSet<TenantIp>,
    /// Addresses that it has no more; those that it has not are no error.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub remove: BTreeSet<TenantIp>,
    /// Its lease from now on, as in [`Attach`]; 0: it has none any more. Without one the one it has is renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_s: Option<u64>,
    /// Once this has been done under this id, it is answered as it was and not done again: see [`RequestId`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
}

/// A VN that the NVE is connected to by a call of its own (RFC 8394's VN_Connect): its VN Context and its policy are
/// there before any tenant system is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Connection {
    /// The VN.
    pub vn: VnName,
    /// Its VNID, which is its tag here.
    pub vni: Vni,
    /// Interfaces of it that are attached here.
    pub tsis: usize,
}

/// RFC 8394's states of a tenant system interface.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Resources and addresses are held, no traffic.
    Associated,
    /// Carries traffic.
    #[default]
    Activated,
}

impl State {
    /// An agent of an earlier version knows no other.
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Associated => "associated",
            Self::Activated => "activated",
        })
    }
}

/// What an interface is, as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// Resources and addresses are held, no traffic.
    Associated,
    /// Carries traffic.
    Activated,
    /// De-associated: it is not granted to this NVE any more. Its device is kept closed until it is detached, gone or
    /// another's.
    Lost,
}

/// One attached tenant system interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Tsi {
    /// The VN.
    pub vn: VnName,
    /// Its name in it.
    pub tsi: TsiName,
    /// The device on the host; empty while it is gone.
    #[serde(default)]
    pub device: String,
    /// Its MAC address.
    pub mac: TsMac,
    /// Its IP addresses.
    #[schema(value_type = Vec<String>)]
    pub ips: BTreeSet<TenantIp>,
    /// The security groups it names.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub groups: BTreeSet<GroupName>,
    /// Those of its VN that apply to it because it names none.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub default_groups: BTreeSet<GroupName>,
    /// Its tunnel policy; where it says nothing, as its VN's.
    #[serde(default, skip_serializing_if = "TunnelPolicy::is_empty")]
    pub tunnel: TunnelPolicy,
    /// The VN's VNID.
    pub vni: Vni,
    /// Largest IP packet, octets.
    pub mtu: u16,
    /// Associated, Activated or lost.
    pub state: Standing,
    /// The grant's epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// How many seconds it lasts unless it is renewed; none: until it is detached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_s: Option<u64>,
    /// Why it is kept from carrying traffic, in words: access policy, or that it is not granted to this NVE; none when it
    /// is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<String>,
}

/// A rule of a security group, and what it let through here. Of several rules that allow a packet one
/// counts it: those that name a peer first, then those for its protocol, then the one for the fewest ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RuleCount {
    /// The VN.
    pub vn: VnName,
    /// The group.
    pub group: GroupName,
    /// The rule, as text.
    pub rule: String,
    /// Packets, those of the connections that it let be opened included.
    pub packets: u64,
    /// Octets of them.
    pub bytes: u64,
}

/// One entry of the NVE's map cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CacheEntry {
    /// The VN.
    pub vn: VnName,
    /// What was asked for.
    pub eid: Eid,
    /// The MAC address behind an IP; none in a negative entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// Where it is; none in a negative entry and for a local one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rloc: Option<Rloc>,
    /// The name of the NVE there, where the Oracle was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nve: Option<NveName>,
    /// How the NVE learned it.
    pub origin: Origin,
    /// The grant's epoch, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// How long it has been so, seconds.
    pub age_s: u64,
    /// How long ago a packet used it, seconds; none if never or not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_s: Option<u64>,
}

/// A multicast group that somebody asked for, in a VN that replicates; or those that are not listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Group {
    /// The VN.
    pub vn: VnName,
    /// The group. `all`: those that are not listed go to who wants more than can be kept, or to everybody while
    /// more are wanted than there is room for.
    #[schema(value_type = String, example = "239.1.2.3")]
    pub group: Wanted,
    /// How many tenant systems here asked for it.
    pub here: usize,
    /// The other hosts where somebody did.
    pub rlocs: BTreeSet<Rloc>,
}

/// Packets dropped for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Drop {
    /// The VN; none where the packet could not be told to belong to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vn: Option<VnName>,
    /// The reason's name.
    pub reason: String,
    /// The path the packet was on.
    pub path: String,
    /// `out`: it came from a tenant system here; `in`: from the underlay.
    #[serde(default)]
    pub direction: String,
    /// How many.
    pub packets: u64,
    /// How many octets.
    pub bytes: u64,
}

/// One table of the data plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Table {
    /// Its name.
    pub table: String,
    /// How many entries it has; none where their number is fixed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<u32>,
    /// How many there is room for.
    pub room: u32,
    /// Kernel memory, octets.
    pub bytes: u64,
}

/// An NVE's session to one Oracle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OracleStatus {
    /// `host:port`.
    pub addr: String,
    /// Whether the session is up.
    pub session: bool,
    /// Why it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The NVE itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Status {
    /// Its name.
    pub name: NveName,
    /// Its xTR-ID.
    pub xtr_id: XtrId,
    /// Its underlay addresses.
    #[schema(value_type = Vec<String>)]
    pub rlocs: BTreeSet<Rloc>,
    /// Weft's version.
    pub version: String,
    /// The Oracles it knows.
    pub oracles: Vec<OracleStatus>,
    /// Whether tables are in place and an Oracle has been heard.
    pub ready: bool,
}

/// What an NVE shows of itself: the lists of its local API, also through the Oracle
/// (`GET /v1/nves/{name}/{what}`).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // Each is the path of the local API that it names.
pub enum Shown {
    Tsis,
    Mappings,
    Drops,
    Tables,
    Counters,
    Status,
    Groups,
    Rules,
}

impl Shown {
    const ALL: [Self; 8] = [
        Self::Tsis,
        Self::Mappings,
        Self::Drops,
        Self::Tables,
        Self::Counters,
        Self::Status,
        Self::Groups,
        Self::Rules,
    ];

    /// As it stands in a path.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tsis => "tsis",
            Self::Mappings => "mappings",
            Self::Drops => "drops",
            Self::Tables => "tables",
            Self::Counters => "counters",
            Self::Status => "status",
            Self::Groups => "groups",
            Self::Rules => "rules",
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Nothing of that name is shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an NVE shows no '{0}'; it shows tsis, mappings, groups, rules, drops, tables, counters and status")]
pub struct NotShown(pub String);

impl FromStr for Shown {
    type Err = NotShown;

    fn from_str(text: &str) -> Result<Self, NotShown> {
        Self::ALL.into_iter().find(|shown| shown.as_str() == text).ok_or_else(|| NotShown(text.to_owned()))
    }
}

/// A plain list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Items<T> {
    /// The objects.
    pub items: Vec<T>,
}
