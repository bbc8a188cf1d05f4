//! What goes into the core and what comes out: everything it receives or sends is a value.

use super::context::{Fetch, Handed, Moved, RequestId, TransferId};
use super::policy::{PolicyFact, SavedPolicies};
use super::told::Event;
use super::tsi::State;
use super::went::Went;
use ::core::{net::SocketAddr, time::Duration};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use weft_datapath::{IfIndex, Levels, Op, VapKind};
use weft_model::{
    Eid, Epoch, Grant, GroupName, MacAddr, NveName, Rloc, TenantIp, TsMac, TsiId, TsiName, VnName, VnSpec,
    Vni, XtrId,
};

/// A call of the local API, from request to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// A device as the agent found it in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: IfIndex,
    /// Its kind.
    pub kind: VapKind,
}

/// Attach a device to a VN: Associate it, and Activate it if so wanted (requirements H1 to H3, A1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attach {
    /// The VN's name.
    pub vn: VnName,
    /// The interface's name in it.
    pub name: TsiName,
    /// The device.
    pub device: Device,
    /// The MAC address; assigned when none.
    pub mac: Option<TsMac>,
    /// The addresses; one of each family assigned when none of it is named.
    pub ips: BTreeSet<TenantIp>,
    /// Its security groups; the VN's default ones when none is named.
    pub groups: BTreeSet<GroupName>,
    /// Whether it is to carry traffic, too.
    pub state: State,
    /// How long it lasts unless it is renewed; zero: for ever. Without one it lasts as it did, or for ever.
    pub lease: Option<Duration>,
    /// Only an Activate puts it in service where it moves to: a frame of its own does not.
    pub explicit: bool,
}

/// What is kept across restarts, one for each tenant system.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// The VN's name.
    pub vn: VnName,
    /// The device's name.
    pub device: String,
    /// Whether it is a TAP.
    pub tap: bool,
    /// The grant, as last heard.
    pub grant: Grant,
    /// Whether it is to carry traffic.
    #[serde(default = "carries", skip_serializing_if = "Clone::clone")]
    pub activated: bool,
    /// How many seconds it lasts unless it is renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_s: Option<u64>,
    /// Whether only an Activate puts it in service.
    #[serde(default, skip_serializing_if = "::core::ops::Not::not")]
    pub explicit: bool,
}

/// What an earlier version kept carried traffic.
const fn carries() -> bool {
    true
}

/// What the agent is told of the fabric by the Oracle's watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A VN exists, with this VN Context.
    Vn(VnSpec),
    /// It no longer does.
    VnGone(weft_model::Vni),
    /// These VNs, each of which was named, are all that an Oracle tells of.
    VnsListed(BTreeSet<Vni>),
    /// An NVE exists.
    Nve(XtrId, BTreeSet<Rloc>),
    /// It has this name, by which a VN may have it as its gateway. This NVE has one, too.
    NveName(XtrId, NveName),
    /// It no longer does.
    NveGone(XtrId),
    /// The list of NVEs is complete: those not named since the last time are gone.
    NvesListed(BTreeSet<XtrId>),
    /// A grant that was this NVE's, or was to be, is not any more: what comes before the list without it.
    GrantWent {
        /// The store's revision.
        revision: u64,
        /// It as it is now, or as it last was if nobody has it.
        grant: Grant,
        /// The name of its owner.
        holder: NveName,
    },
    /// All grants of this NVE, as the store had them at this revision.
    Grants(u64, Vec<Grant>),
    /// What applies to whom, of one moment of the store.
    Policy {
        /// It is all there is: of VNs that are not named nothing applies.
        listed: bool,
        /// In order.
        facts: Vec<PolicyFact>,
    },
}

/// A session's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Session<'a> {
    /// Connected and authenticated.
    Up,
    /// One frame of the reliable transport.
    Frame(weft_lisp::tcp::Frame<'a>),
    /// Lost.
    Down,
}

/// What an NVE has of a grant that it gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    /// What the store says: what merely moves here is called off by it.
    Granted,
    /// An Oracle has said that it is this NVE's at this epoch, which the store may not say yet.
    Activated(Epoch),
    /// It may have been granted without this NVE's knowing: only if it is this NVE's is it given back.
    Unknown,
}

/// A grant that is still to be given back, as it is kept across restarts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unreleased {
    /// The VN's name.
    pub vn: VnName,
    /// The interface's.
    pub tsi: TsiName,
    /// What this NVE has of it.
    pub held: Held,
}

/// What the core asks of an Oracle's /v1.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ApiCall {
    /// Take the addresses and the grant.
    Grant {
        /// Whose call this is for.
        call: CallId,
        /// The VN.
        vn: VnName,
        /// The interface.
        name: TsiName,
        /// As asked for.
        mac: Option<TsMac>,
        /// As asked for.
        ips: BTreeSet<TenantIp>,
        /// As asked for.
        groups: BTreeSet<GroupName>,
        /// It is Activated with the grant, so whoever asked for it may be told at once.
        activate: bool,
    },
    /// Give the grant back.
    Release {
        /// Whose call this is for; the core numbers its own from `u64::MAX` downwards.
        call: CallId,
        /// The VN.
        vn: VnName,
        /// The interface.
        name: TsiName,
        /// What of it is here.
        held: Held,
    },
    /// Take addresses for an interface that is there, and give others of it back.
    Addresses {
        /// Whose call this is for.
        call: CallId,
        /// The VN.
        vn: VnName,
        /// The interface.
        name: TsiName,
        /// Those that it has not yet.
        add: BTreeSet<TenantIp>,
        /// Those that it is to have no more.
        remove: BTreeSet<TenantIp>,
    },
    /// Which VNs an Oracle has this NVE connected to.
    Connections,
    /// Be told of a VN without a grant in it.
    Connect {
        /// Whose call this is for; none where an earlier one is confirmed.
        call: Option<CallId>,
        /// The VN.
        vn: VnName,
    },
    /// Be told of it no more.
    Disconnect {
        /// Whose call this is for.
        call: CallId,
        /// The VN.
        vn: VnName,
    },
    /// Take one more address (a link-local).
    Take {
        /// The VN.
        vn: VnName,
        /// The interface.
        tsi: TsiId,
        /// The address.
        ip: TenantIp,
    },
}

/// A grant as an Oracle's /v1 answered it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Granted {
    /// The grant.
    pub grant: Grant,
    /// The VN Context.
    pub vn: VnSpec,
    /// The store's revision: lists of an earlier one do not know this grant yet.
    pub revision: u64,
    /// Whether it did not exist before.
    pub created: bool,
}

/// Why an Oracle or the core refuses.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    /// The device is a VAP already.
    #[error("{device} is already the VAP of {tsi}; detach that first or name another device")]
    DeviceTaken {
        /// The device.
        device: String,
        /// Who has it.
        tsi: TsiId,
    },
    /// The interface is attached here with other addresses or groups.
    #[error(
        "{vn}/{name} is attached at {device} with other addresses or groups than these; leave them away, or change them by `weft tsi update` and `weft tsi set-groups`"
    )]
    AttachedOtherwise {
        /// The VN.
        vn: VnName,
        /// The interface.
        name: TsiName,
        /// Where.
        device: String,
    },
    /// The interface is attached here at another device.
    #[error(
        "{vn}/{name} is already attached at {device}; `weft tsi deactivate` takes it out of service there, detach it to use another device"
    )]
    AlreadyAttached {
        /// The VN.
        vn: VnName,
        /// The interface.
        name: TsiName,
        /// Where.
        device: String,
    },
    /// An Update contradicts itself.
    #[error("{ip} is to be added and removed; leave one of the two away")]
    AddedAndRemoved {
        /// The address.
        ip: TenantIp,
    },
    /// A call for the same interface is under way.
    #[error(
        "{vn}/{name} is being attached, updated or detached by another call; try again when that has ended"
    )]
    Busy {
        /// The VN.
        vn: VnName,
        /// The interface.
        name: TsiName,
    },
    /// Not connected to it.
    #[error(
        "this NVE is not connected to VN '{vn}' by a call of its own; `weft tsi vn-list` shows to which it is"
    )]
    NotConnected {
        /// The VN.
        vn: VnName,
    },
    /// It is being connected or disconnected.
    #[error("VN '{vn}' is being connected or disconnected; try again")]
    VnBusy {
        /// The VN.
        vn: VnName,
    },
    /// Tenant systems of the VN are attached here.
    #[error("VN '{vn}' has interfaces here: {}; detach them first", names(tsis))]
    VnInUse {
        /// The VN.
        vn: VnName,
        /// Which.
        tsis: Vec<TsiName>,
    },
    /// Not attached here.
    #[error("{vn}/{name} is not attached to this NVE; `weft tsi list` shows what is")]
    NotAttached {
        /// The VN.
        vn: VnName,
        /// The interface.
        name: TsiName,
    },
    /// Attached here, and not granted to this NVE any more.
    #[error("{vn}/{name} is out of service here: {went}; {}", went.remedy())]
    Lost {
        /// The VN.
        vn: VnName,
        /// The interface.
        name: TsiName,
        /// Where its grant went.
        went: Went,
    },
    /// Too many calls at once.
    #[error("{limit} attach and detach calls are under way; try again when some have ended")]
    TooManyCalls {
        /// The bound.
        limit: usize,
    },
    /// The Oracle said no; its own words.
    #[error("{message}")]
    Oracle {
        /// The error code of /v1.
        code: String,
        /// What, which value, what to do.
        message: String,
    },
    /// No Oracle answered; the call may have been carried out.
    #[error("{message}")]
    Unanswered {
        /// What happened, what to do.
        message: String,
    },
    /// The Oracle refused the registration of a grant it gave.
    #[error("the Oracle refused to register {tsi}; see its log")]
    Registration {
        /// The interface.
        tsi: TsiId,
    },
    /// An attachment would be forgotten by a restart.
    #[error("nothing more can be attached while that cannot be saved: {reason}")]
    NotSaved {
        /// Why it cannot.
        reason: String,
    },
    /// Access policy does not let it be put in service.
    #[error("{tsi} is not put in service: {why}")]
    Policy {
        /// The interface.
        tsi: TsiId,
        /// Why not.
        why: String,
    },
    /// The kernel refused.
    #[error("the data plane refused: {reason}")]
    Datapath {
        /// What it said.
        reason: String,
    },
}

/// Names with commas between, not all of very many.
fn names(all: &[TsiName]) -> String {
    let first: Vec<&str> = all.iter().take(5).map(TsiName::as_str).collect();
    let more = if all.len() > first.len() { ", ..." } else { "" };
    format!("{}{more}", first.join(", "))
}

/// The result of an attach.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attached {
    /// The VN's name.
    pub vn: VnName,
    /// The grant: interface, MAC, addresses.
    pub grant: Grant,
    /// The device.
    pub device: String,
    /// The security groups of its VN that apply to it, as it names none.
    pub default_groups: BTreeSet<GroupName>,
    /// Largest IP packet, octets.
    pub mtu: u16,
    /// How long it lasts unless it is renewed.
    pub lease: Option<Duration>,
    /// Its epoch here: the owner's, or that of who is next.
    pub epoch: Epoch,
    /// Associated, or Activated as well.
    pub state: State,
    /// Whether it was attached so before.
    pub already: bool,
}

/// A change of the data plane somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What the agent has to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Change the data plane; say how it went when there is a ticket. In order.
    Apply(Op, Option<Ticket>),
    /// Hand a frame to the tenant system at a device, after all changes before it. In order.
    Inject(IfIndex, Vec<u8>),
    /// Send a datagram from the RLOC of the same family.
    Datagram {
        /// To.
        to: SocketAddr,
        /// The LISP message.
        octets: Vec<u8>,
    },
    /// Send a frame on its way as if its VAP had sent it now, after all changes before this. In order.
    Resend(IfIndex, Vec<u8>),
    /// Carry a frame on that the NVE at an RLOC has handed to this one, a VN's gateway, likewise. In order.
    Carry(Vni, Rloc, Vec<u8>),
    /// Send a datagram that no answer is expected to, likewise.
    Answer {
        /// To.
        to: SocketAddr,
        /// The LISP message.
        octets: Vec<u8>,
    },
    /// Say how long ago a frame went to this MAC, by [`Core::handle_last_use`](super::Core::handle_last_use).
    LastUse {
        /// The VN.
        vni: Vni,
        /// The entry it is asked for.
        eid: Eid,
        /// The MAC.
        mac: MacAddr,
    },
    /// Write a frame to the session with the Oracle of this index.
    Frame {
        /// Which Oracle.
        oracle: usize,
        /// The frame.
        octets: Vec<u8>,
    },
    /// Call an Oracle's /v1.
    Call(ApiCall),
    /// Ask another NVE for a tenant system's context.
    Fetch(Fetch),
    /// What comes of that is not waited for any more.
    EndFetch(TransferId),
    /// Tell another NVE that asked what has become of a tenant system here.
    Hand(RequestId, Handed),
    /// Take over connections in the data plane, after all changes before this. In order.
    Connections(Moved),
    /// The buckets of a VAP hold no more than was left in them so long ago where its tenant system comes from.
    Lower(IfIndex, Levels, Duration),
    /// Answer a local attach, Activate or Update.
    Attached(CallId, Result<Attached, Refused>),
    /// Answer a local detach.
    Detached(CallId, Result<(), Refused>),
    /// Answer a local Deactivate.
    Deactivated(CallId, Result<(), Refused>),
    /// Answer a local VN_Connect.
    Connected(CallId, Result<VnSpec, Refused>),
    /// Answer a local VN_Disconnect.
    Disconnected(CallId, Result<(), Refused>),
    /// Tell hypervisors that a VN that they have connected to is gone.
    VnDisconnected(VnName),
    /// Write these to disk in place of what was there.
    Persist(Vec<Attachment>),
    /// The same of access policy.
    PersistPolicies(SavedPolicies),
    /// Have the data plane forget the connections of a tenant system that is gone: whoever has an address next is not it.
    ForgetConnections(Vni, BTreeSet<TenantIp>),
    /// Have the data plane count a rule anew, before all changes after this. In order.
    ClearRule(u32),
    /// Tell the operator.
    Notice(Notice),
    /// Tell hypervisors.
    Event(Event),
}

/// What an operator would want to read in the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// An interface was Associated.
    Associated(TsiId),
    /// An interface was Activated.
    Activated(TsiId, Epoch),
    /// A frame of its own came from an interface that moves here, which is Activated for that.
    Woken(TsiId),
    /// An interface was Deactivated because the hypervisor said so.
    Deactivated(TsiId),
    /// An interface lost its grant, to another NVE or to nobody, and was Deactivated.
    LostGrant(TsiId, Went),
    /// An interface's device went away.
    DeviceGone(TsiId, String),
    /// An interface's device has another name.
    DeviceRenamed(TsiId, String, String),
    /// An Oracle refused a registration.
    Rejected(TsiId),
    /// An interface whose lease nobody renewed was released.
    LeaseExpired(TsiId),
    /// An interface was released after its device stayed away.
    Released(TsiId),
    /// A tenant claimed a link-local address that somebody else has.
    ClaimRefused(TsiId, TenantIp, String),
    /// Access policy keeps an interface out of service.
    Closed(TsiId, String),
    /// The data plane refused a change that nobody waits for.
    Datapath(String),
    /// An Oracle speaks a version too far from ours.
    Version {
        /// Which Oracle.
        oracle: usize,
        /// Its version.
        theirs: u16,
        /// This NVE's.
        ours: u16,
    },
}
