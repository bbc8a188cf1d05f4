//! Traces: a packet that is sent as if a tenant system had sent it, of which every step is told.

use crate::{ConnectionState, IfIndex, PuntReason, Reason, Toward};
use core::{fmt, time::Duration};
use weft_model::{Rloc, Vni};

/// Which traced packet: what stands in VXLAN's reserved bits (RFC 7348 section 5) on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(u32);

impl TraceId {
    /// The largest: there are 24 bits for it.
    pub const MAX: u32 = 0xff_ffff;

    /// 0 says that a packet is not traced, and is none, nor is what has more bits.
    #[must_use]
    pub const fn new(id: u32) -> Option<Self> {
        if id == 0 || id > Self::MAX { None } else { Some(Self(id)) }
    }

    /// One of those bits.
    #[must_use]
    pub const fn of(random: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "less than MAX")]
        let id = (random % Self::MAX as u64) as u32;
        Self(id + 1)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06x}", self.0)
    }
}

/// What a data plane has to know of a traced packet before it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Trace {
    /// The virtual network that it is in.
    pub vni: Vni,
    /// From where it comes, or goes.
    pub way: Way,
    /// Whether the tenant system that it is for gets it: otherwise it ends before that.
    pub deliver: bool,
}

/// Where a traced packet crosses the underlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// It begins here, and may leave for this NVE, which was told of it; none: it stays.
    To(Option<Rloc>),
    /// It comes from another NVE. With the same bits from anybody else, or later, a packet is like any other.
    From {
        /// That one's.
        rloc: Rloc,
        /// Within this time.
        lasts: Duration,
        /// It may go on to this one, which was told of it: where its destination has moved to, or is, and this NVE a gateway.
        next: Option<Rloc>,
    },
}

/// A step of a traced packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Traced {
    /// Which packet.
    pub id: TraceId,
    /// At which device it was at that moment.
    pub device: IfIndex,
    /// What was done or found.
    pub step: Step,
}

/// What was done with a traced packet, or found. Which check stopped it the reason says: they are made in the order of
/// the crate's description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Its VAP is Activated, and no address in it is spoofed.
    Checked,
    /// The policy of a VAP was asked.
    Policy {
        /// The VAP.
        vap: IfIndex,
        /// Which way it goes there.
        toward: Toward,
        /// The rule ([`Allow::rule`](crate::Allow)) that lets it through; none does.
        rule: Option<u32>,
    },
    /// Before that: it belongs to a connection that was let through before.
    Known {
        /// The VAP.
        vap: IfIndex,
        /// Which way it goes there.
        toward: Toward,
        /// How far the connection was.
        state: Option<ConnectionState>,
    },
    /// Where its destination is: at a VAP here, else behind an RLOC.
    Location {
        /// How that is known.
        by: By,
        /// The VAP.
        vap: Option<IfIndex>,
        /// The RLOC.
        rloc: Option<Rloc>,
    },
    /// It came from another NVE.
    Arrived {
        /// Whose RLOC this is.
        from: Option<Rloc>,
        /// In which VN.
        vni: u32,
        /// With this TTL or hop limit outside.
        ttl: u8,
    },
    /// What became of it.
    End(Ended, Option<Reason>),
}

/// How the place of a destination is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum By {
    /// From frames, or because it went there from here.
    Learning,
    /// The table says so.
    Table,
    /// It is not, and the VN's gateway is to know.
    Gateway,
}

/// How a traced packet ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ended {
    /// Dropped.
    Dropped,
    /// Handed to the VXLAN device, which strips it: more follows.
    Passed,
    /// Handed to the VAP, or stopped before it.
    Delivered(IfIndex),
    /// Answered.
    Answered,
    /// Sent to another NVE.
    Left,
    /// The agent was told: more may follow.
    Punted(Option<PuntReason>),
    /// Copied to many.
    Replicated,
    /// It would leave, but is to be delivered to nobody, and where it would go nobody knows that.
    Stopped,
}

impl Ended {
    /// Whether nothing comes after it.
    #[must_use]
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Passed | Self::Punted(_))
    }
}
