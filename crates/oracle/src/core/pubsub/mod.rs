//! Subscriptions of plain xTRs over UDP (RFC 9437; requirements N7, N8 and N11).
//!
//! A subscription is of one xTR to one EID-Prefix of a VN: an address or all of a VN. It is soft, bounded, and
//! told by authentic Map-Notifies, of which at most one is under way: what changes meanwhile is noted, EID by
//! EID, and told by the next, as it is then. So a loss or a change of order can hide nothing.
//!
//! ```text
//!   Map-Request I, N --> Confirming --Map-Notify-Ack--> Active --change--> Map-Notify, nonce + 1
//!                            |                            |                       ^ |
//!                            +--- no Ack after retries ---+--> ended              +-+ Ack
//!   the same, no ITR-RLOC ----------> Leaving --Ack--> gone, or Muted under a less specific one
//!                                        |
//!                                        +--- no Ack after retries --> nothing has happened
//! ```
//!
//! A Map-Request is not authenticated (LISP-SEC is not implemented); its xTR-ID, Site-ID, source and ITR-RLOCs
//! have to be those configured. So nothing durable comes of it alone: what is asked for is kept beside what stands,
//! which is published on, and takes its place once the Map-Notify with its nonce has been acknowledged by whoever
//! has the key. Only then does that nonce count, and is saved; until then it counts no longer than that Map-Notify
//! is sent. The last 2^32 nonces cannot be asked with: who acknowledges one that others made up would be left with
//! none to go on with.

mod change;
mod floors;
mod notify;
mod request;
mod store;

use weft_lisp as lisp;
use weft_model::XtrId;

pub(crate) use floors::Floors;
pub(crate) use request::leaves;
pub(crate) use store::{Slot, Subscriptions};

/// Who is subscribed to what.
pub(crate) type Key = (XtrId, lisp::Eid);

/// Why a plain xTR is not subscribed, or no longer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
#[non_exhaustive]
pub enum NotSubscribed {
    /// The Map-Request does not name the xTR that its source is.
    #[error("the Map-Request names xTR-ID {named} and Site-ID {site_id}; configure the xTR with its own")]
    Identity {
        /// The xTR-ID in it.
        named: XtrId,
        /// The Site-ID in it.
        site_id: u64,
    },
    /// A nonce that was used before.
    #[error(
        "nonce {nonce:016x} is not above {last:016x}: a replay, or the xTR has lost its nonces; have it go on above"
    )]
    Replayed {
        /// The nonce in it.
        nonce: u64,
        /// The last that was used.
        last: u64,
    },
    /// A nonce near the end of them all.
    #[error(
        "nonce {nonce:016x} is above {most:016x}, and few are left after it; have the xTR draw a lower one"
    )]
    NonceTooHigh {
        /// The nonce in it.
        nonce: u64,
        /// The highest that may be asked with.
        most: u64,
    },
    /// The VN's NVEs answer for themselves (RFC 9437 section 3).
    #[error(
        "the VN's reply is forward, and what is published is answered for by who publishes; set it to proxy"
    )]
    Forwarded,
    /// No more are kept.
    #[error("{count} subscriptions are kept already; subscribe to a whole VN in the place of many addresses")]
    Full {
        /// How many there are.
        count: usize,
    },
    /// The xTR has no part in the VN any more, or other RLOCs.
    #[error("the xTR has no part in the VN any more, or not the RLOCs it subscribed with")]
    NotAllowed,
    /// No Map-Notify-Ack has come.
    #[error("the Map-Notify was sent {sent} times and not acknowledged; look at the xTR and the way to it")]
    Unacknowledged {
        /// How often.
        sent: u32,
    },
    /// More is gone than is kept while a Map-Notify was under way: the snapshot tells of the rest.
    #[error(
        "{changes} withdrawals wait for Map-Notify-Acks, more than are kept; the xTR has to subscribe anew"
    )]
    Overrun {
        /// How many.
        changes: usize,
    },
    /// The address was nobody's for too long.
    #[error("the address was granted to nobody for as long as such a subscription lasts")]
    Expired,
    /// There is no next nonce.
    #[error("the nonces are at their end; configure the xTR with a new key")]
    NoncesUsedUp,
}
