//! What the data plane reports: frames it could not decide, and what it counted.

use crate::{Idle, IfIndex, Toward};
use weft_model::{MacAddr, Rloc, TenantIp, Vni};

/// What was learned from frames: where a MAC address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seen {
    /// Its virtual network.
    pub vni: Vni,
    /// The source of the frames.
    pub mac: MacAddr,
    /// The NVE that sent them.
    pub rloc: Rloc,
    /// How long ago the last of them was.
    pub idle: Idle,
}

/// What was learned from frames in a VN that translates: which NVE an IP address is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Heard {
    /// Its virtual network.
    pub vni: Vni,
    /// The address.
    pub ip: TenantIp,
    /// That NVE's MAC address.
    pub mac: MacAddr,
    /// How long ago it was heard last.
    pub idle: Idle,
}

/// Why a frame was handed to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PuntReason {
    /// An ARP request whose target no table holds.
    ArpMiss,
    /// A Neighbor Solicitation whose target no table holds.
    NdMiss,
    /// A DAD Neighbor Solicitation from `::` for a link-local address the VAP does not own yet.
    LinkLocalClaim,
    /// A unicast frame to a MAC no table holds, which went elsewhere or was dropped. Once a second for one MAC.
    UnknownMac,
    /// The same in a VN whose frames wait ([`Miss::Queue`](weft_model::Miss)), as [`PuntReason::Route`].
    UnknownMacHeld,
    /// A frame to the VN's anycast MAC address ([`MacAddr::anycast`]), for an IP destination that no table holds
    /// or whose owner's location none does. At most 8 a second for one destination. The agent may hold it and
    /// send it on ([`crate::Datapath::resend`]).
    Route,
    /// The same of a frame that went elsewhere or was dropped. Once a second for one destination.
    RouteSeen,
    /// A frame that another NVE sent for a MAC that is not here, so that its tables are wrong. Once a second for one MAC and NVE. It has no VAP.
    NoSuchTs,
    /// A frame that another NVE sent for a MAC, or in distribution an IP address, that this NVE, a gateway, knows no
    /// way to, as [`PuntReason::Route`]. The agent may hold it and carry it on ([`crate::Datapath::carry`]). It has no
    /// VAP.
    Carried,
    /// An IGMP or MLD message that says which groups its sender wants, in a VN that replicates.
    Report,
    /// The first packet of a connection that this rule ([`Allow::rule`](crate::Allow)) let through and that is to be
    /// told of. It was not dropped. At most 100 a second of a VN, with [`PuntReason::Refused`].
    Allowed(u32, Toward),
    /// A frame from the MAC of a VAP that waits for one ([`Vap::waits`](crate::Vap::waits)). Once a second of a VAP.
    FirstFrame,
    /// A frame that no rule of its VAP's policy allows, where those are to be told of.
    Refused(Toward),
}

/// A frame the agent has to decide about, or is told of. But for [`PuntReason::Allowed`] the data plane has dropped it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Punt {
    /// The VAP it came from; 0 for [`PuntReason::NoSuchTs`] and [`PuntReason::Carried`].
    pub vap: IfIndex,
    /// The VAP's virtual network.
    pub vni: Vni,
    /// Why.
    pub reason: PuntReason,
    /// The destination MAC (for [`PuntReason::UnknownMac`] what is asked for).
    pub dst: MacAddr,
    /// The NVE that sent it, for those two.
    pub from: Option<Rloc>,
    /// The beginning of the frame, from the Ethernet header on, at most 128 octets. For [`PuntReason::Route`],
    /// [`PuntReason::UnknownMacHeld`], [`PuntReason::Carried`] and [`PuntReason::Report`] at most [`Punt::WHOLE`]: that is all of it, but for
    /// segmentation offload and an underlay of larger frames.
    pub frame: Vec<u8>,
}

impl Punt {
    /// Octets of a frame that is to be sent on; one of as many may be cut short.
    pub const WHOLE: usize = 1_600;
}
