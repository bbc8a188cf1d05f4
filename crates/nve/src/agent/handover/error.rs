//! Why NVEs hand each other nothing.

use crate::core::NotHanded;
use std::time::Duration;
use weft_api::{ClientError, Code, ErrorBody, TicketError};
use weft_model::{Rloc, XtrId};

/// Why a request for a context is refused; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(in crate::agent) enum Refusal {
    #[error("the body is not what is expected here: {0}")]
    Body(String),
    #[error("the body is longer than {0} octets, or did not come in time")]
    TooLong(usize),
    #[error(
        "this NVE hands contexts of version {ours} over, {theirs} was asked for; update the older of the two"
    )]
    Version { theirs: u32, ours: u32 },
    #[error(transparent)]
    Ticket(#[from] TicketError),
    #[error("the ticket is signed by nobody that this fabric's CA calls an Oracle: {0}")]
    Signer(String),
    #[error("the ticket's signature is not its Oracle's; ask the Oracle for another")]
    Forged,
    #[error("the ticket expired {0} s ago; ask the Oracle for another, and look at both hosts' clocks")]
    Expired(u64),
    #[error("the ticket is good for {0} s more, which none is; look at both hosts' clocks")]
    Ahead(u64),
    #[error("the ticket is for NVE {from}; this is {here}")]
    OtherFrom { from: XtrId, here: XtrId },
    #[error("the ticket is NVE {to}'s, and NVE {shown} shows it")]
    OtherTo { to: XtrId, shown: XtrId },
    #[error("the ticket was used already; ask the Oracle for another")]
    Used,
    #[error("{0} tickets were shown within a minute; ask again later")]
    Tickets(usize),
    #[error(transparent)]
    NotHanded(#[from] NotHanded),
    #[error("this NVE is stopping; ask again later")]
    Stopping,
    #[error("there is nothing here but POST /v1/context and POST /v1/trace")]
    NoRoute,
    #[error(
        "this NVE knows traces of version {ours}, one of {theirs} was announced; update the older of the two"
    )]
    TraceVersion { theirs: u32, ours: u32 },
    #[error("{0} is no trace's id; it has 24 bits and is not 0")]
    NoTrace(u32),
    #[error("{0} traces are under way here already, or one of the same id; try again in a moment")]
    Traces(usize),
    #[error("{rloc} is no underlay address of NVE {nve}; its addresses may be news to this one: try again")]
    OtherRloc { rloc: Rloc, nve: XtrId },
    #[error("the data plane refuses: {0}")]
    Datapath(String),
}

impl Refusal {
    /// The code that goes with it.
    pub(in crate::agent) const fn code(&self) -> Code {
        match self {
            Self::Body(_) | Self::Ticket(_) | Self::NoTrace(_) => Code::BadRequest,
            Self::TooLong(_) => Code::TooLarge,
            Self::Version { .. } | Self::TraceVersion { .. } => Code::NotSupported,
            Self::Signer(_)
            | Self::Forged
            | Self::OtherFrom { .. }
            | Self::OtherTo { .. }
            | Self::OtherRloc { .. } => Code::Forbidden,
            Self::Expired(_) | Self::Ahead(_) => Code::TokenExpired,
            Self::Used => Code::TokenUsed,
            Self::Tickets(_) | Self::Traces(_) | Self::NotHanded(NotHanded::Busy { .. }) => {
                Code::TooManyRequests
            }
            Self::Datapath(_) => Code::Internal,
            Self::NotHanded(NotHanded::NotHere(_)) | Self::NoRoute => Code::NotFound,
            Self::NotHanded(NotHanded::Outdated { .. } | NotHanded::NotNext { .. }) => Code::GrantedElsewhere,
            Self::Stopping => Code::NotReady,
        }
    }
}

impl From<Refusal> for ErrorBody {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code(), &refusal.to_string())
    }
}

/// Why a context cannot be had.
#[derive(Debug, thiserror::Error)]
pub(in crate::agent) enum FetchError {
    #[error("the Oracle gives no ticket: {0}")]
    Ticket(#[from] ClientError),
    #[error("the ticket is for what NVE {ticket} has, and the grant names {asked}; it is asked for again")]
    OtherOwner { ticket: XtrId, asked: XtrId },
    #[error("NVE {0} has no underlay address of a family that this one has")]
    NoWay(XtrId),
    #[error("cannot reach NVE {nve} at {at}: {why}")]
    Unreachable { nve: XtrId, at: String, why: String },
    #[error("the NVE's credentials cannot be used: {0}")]
    Credentials(String),
    #[error("NVE {nve} refuses: {why}")]
    Refused { nve: XtrId, why: String },
    #[error("its context is of version {theirs}, this NVE reads {ours}; update the older of the two")]
    Version { theirs: u32, ours: u32 },
    #[error("what it says cannot be read: {0}")]
    Malformed(String),
    #[error("a line of it is longer than {0} octets")]
    TooLong(usize),
    #[error("nothing came for {0:?}")]
    Silent(Duration),
    #[error("the connection ended in the middle: {0}")]
    Broken(String),
}
