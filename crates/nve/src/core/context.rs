//! What one NVE hands another of a tenant system that moves there (requirements V2, V3; RFC 8014 section 4.3): values.

use super::flows::Ends;
use std::collections::BTreeSet;
use weft_datapath::{Connection, Levels};
use weft_model::{Eid, Epoch, Grant, TenantIp, TsiId, TsiName, VnName, VnSpec, Vni, Wanted, XtrId};

/// One try to be handed a tenant system's context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransferId(pub u64);

/// One request of another NVE to be handed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Ask the NVE that a tenant system moves from for its context.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fetch {
    /// This try.
    pub transfer: TransferId,
    /// The VN's name.
    pub vn: VnName,
    /// The interface's name in it.
    pub name: TsiName,
    /// Who has it.
    pub from: XtrId,
}

/// What another NVE shows an Oracle's word for: that a tenant system moves there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    /// The interface.
    pub tsi: TsiId,
    /// The NVE.
    pub to: XtrId,
    /// The epoch at which it is to be held there.
    pub epoch: Epoch,
}

/// A tenant system's context.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Context {
    /// The store's revision up to which its NVE has heard.
    pub revision: u64,
    /// The grant as that one knows it.
    pub grant: Grant,
    /// The epoch at which that one holds it.
    pub epoch: Epoch,
    /// The VN Context as that one knows it.
    pub vn: VnSpec,
    /// Whether it is in service there still.
    pub activated: bool,
    /// What only that one knows.
    pub live: Live,
}

/// What only the NVE knows that has a tenant system in service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Live {
    /// Its connections that policies have let through, the latest used first.
    pub connections: Vec<Connection>,
    /// The multicast groups that it wants.
    pub groups: BTreeSet<Wanted>,
    /// Addresses elsewhere that are in use in its VN there, the latest learned first.
    pub addresses: Vec<Eid>,
    /// What was left of what it may send and be sent.
    pub levels: Levels,
}

/// What has changed of it when it stops there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Delta {
    /// The connections that are others or new; everything else as it is then.
    pub live: Live,
    /// The connections that are gone.
    pub ended: Vec<Ends>,
}

/// Connections that came with a tenant system.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Moved {
    /// The VN.
    pub vni: Vni,
    /// Its addresses.
    pub of: BTreeSet<TenantIp>,
    /// Its connections, all or those that have changed.
    pub connections: Vec<Connection>,
    /// Those that have ended.
    pub ended: Vec<Connection>,
    /// What they do to those that there are.
    pub how: Taking,
}

/// How connections that came are put to those that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Taking {
    /// They take the place of all.
    Afresh,
    /// Each takes the place of the same one, and the others stay.
    Changed,
    /// They are put where there is none: what is in service here makes its own.
    Missing,
}

/// What was taken in, for the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Taken {
    /// Connections.
    pub connections: usize,
    /// Groups.
    pub groups: usize,
    /// Addresses that are asked for.
    pub addresses: usize,
}

/// Why a context is not taken. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NotTaken {
    /// Nobody asked for it, or does any more.
    #[error("nobody here waits for a context {}; it is dropped", .0.0)]
    Unasked(TransferId),
    /// It came already.
    #[error("the context of {0} came already; what comes after it is a delta")]
    Twice(TsiId),
    /// It is about something else.
    #[error("the context of {asked} was asked for and that of {got} came; it is dropped")]
    Another {
        /// What was asked for.
        asked: TsiId,
        /// What came.
        got: TsiId,
    },
    /// It is not that of the owner before.
    #[error(
        "the context of {tsi} is of epoch {theirs}, and the owner's is {least} or later, before {ours}; it is dropped"
    )]
    Epoch {
        /// The interface.
        tsi: TsiId,
        /// The context's.
        theirs: Epoch,
        /// The owner's, as far as it is known here.
        least: Epoch,
        /// This NVE's.
        ours: Epoch,
    },
}

/// Why a context is not handed over. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NotHanded {
    /// It is not in service here, nor was a moment ago.
    #[error("{0} is not in service at this NVE; ask the one that the grant names as owner")]
    NotHere(TsiId),
    /// What is shown is older than what is here.
    #[error("{tsi} is here at epoch {ours}, which is not before {theirs}; ask the Oracle for another ticket")]
    Outdated {
        /// The interface.
        tsi: TsiId,
        /// This NVE's.
        ours: Epoch,
        /// The one shown.
        theirs: Epoch,
    },
    /// At that epoch it is another's.
    #[error("{tsi} moves to NVE {next} at epoch {epoch}, not to {to}")]
    NotNext {
        /// The interface.
        tsi: TsiId,
        /// Who asks.
        to: XtrId,
        /// Whom the grant names.
        next: XtrId,
        /// At which epoch.
        epoch: Epoch,
    },
    /// Too many at once.
    #[error("{limit} tenant systems are being handed over; ask again when some have moved")]
    Busy {
        /// The bound.
        limit: usize,
    },
}

/// What an NVE that asked is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Handed {
    /// It has stopped here: groups and addresses; the connections are the data plane's.
    Delta(Live),
    /// It goes on here after it had stopped: how it was then is not how it ends.
    Resumed,
    /// It is gone from here: nothing more comes.
    End,
}
