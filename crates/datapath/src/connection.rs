//! Connections that policies let through, as they are shown and as they move with their tenant system.

use crate::Toward;
use core::{net::IpAddr, time::Duration};
use weft_model::Vni;

/// How far a connection is. Of protocols other than TCP the first and [`ConnectionState::Established`] only: nobody, or
/// somebody, has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ConnectionState {
    /// Nobody has answered.
    Opening = 0,
    /// A SYN was answered by one.
    Answered = 1,
    /// Both sides have sent.
    Established = 2,
    /// The tenant system here has ended its half.
    EndedHere = 3,
    /// The other one has.
    EndedThere = 4,
    /// Both have, or one has reset it before it was established or after one had ended its half.
    Closing = 5,
    /// Somebody has reset it, or said so: if it goes on it was not (RFC 5961).
    Reset = 6,
}

impl ConnectionState {
    /// The state of this number, which is that of `bpf/abi.h`.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Opening),
            1 => Some(Self::Answered),
            2 => Some(Self::Established),
            3 => Some(Self::EndedHere),
            4 => Some(Self::EndedThere),
            5 => Some(Self::Closing),
            6 => Some(Self::Reset),
            _ => None,
        }
    }

    /// Its number.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// A connection of a tenant system that has a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection {
    /// Its virtual network.
    pub vni: Vni,
    /// The address of the tenant system that is here.
    pub local: IpAddr,
    /// The other one's.
    pub remote: IpAddr,
    /// IP protocol.
    pub protocol: u8,
    /// The port of the one that is here; of an ICMP question its identifier; 0 for protocols without ports.
    pub local_port: u16,
    /// The other one's; of an ICMP question `type << 8 | code`.
    pub remote_port: u16,
    /// Which way its first packet went.
    pub opened: Toward,
    /// How far it is.
    pub state: ConnectionState,
    /// The counter of the rule that let it through.
    pub rule: u32,
    /// How long ago its last packet was; accurate to about a second.
    pub idle: Duration,
}

/// How full the table of connections is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tracked {
    /// Connections in it, some of which may have ended.
    pub entries: u64,
    /// Connections that had to make room for others since the data plane was installed: their next packets were
    /// looked at as first ones.
    pub evicted: u64,
    /// First packets that were let through without being followed since then, as there were too many of the same tenant
    /// system that nobody had answered: what answers them is looked at as a first one.
    pub unfollowed: u64,
    /// How many there is room for.
    pub capacity: u64,
}
