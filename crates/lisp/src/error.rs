//! Why octets are not a LISP message, and why a message cannot become octets.
//!
//! A [`DecodeError`] is `Copy` and carries no heap memory: an attacker who sends garbage makes the
//! receiver compare a few octets and nothing else.

use std::fmt;

/// The part of a message that was being read when an error occurred.
///
/// Indexes count from 0 in wire order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Part {
    /// A Map-Request (RFC 9301 section 5.2).
    MapRequest,
    /// A Map-Reply (RFC 9301 section 5.4).
    MapReply,
    /// A Map-Register (RFC 9301 section 5.6).
    MapRegister,
    /// A Map-Notify (RFC 9301 section 5.7).
    MapNotify,
    /// A Map-Notify-Ack (RFC 9301 section 5.7).
    MapNotifyAck,
    /// An Encapsulated Control Message (RFC 9301 section 5.8).
    Ecm,
    /// The IPv4 header inside an ECM.
    InnerIpv4,
    /// The IPv6 header inside an ECM.
    InnerIpv6,
    /// The UDP header inside an ECM.
    InnerUdp,
    /// The Source-EID of a Map-Request.
    SourceEid,
    /// The n-th ITR-RLOC of a Map-Request.
    ItrRloc(u8),
    /// The n-th EID-Record.
    Record(u8),
    /// The mapping record that follows the records of a Map-Request whose M bit is set.
    Piggyback,
    /// The n-th locator of an EID-Record.
    Locator(u8),
    /// The EID of a record.
    Eid,
    /// An Instance ID LCAF (RFC 8060 section 4.1).
    InstanceId,
    /// An AFI-List LCAF (RFC 8060 section 4.16.1).
    AfiList,
    /// A frame of the reliable transport, by its type.
    Frame(u16),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MapRequest => f.write_str("Map-Request"),
            Self::MapReply => f.write_str("Map-Reply"),
            Self::MapRegister => f.write_str("Map-Register"),
            Self::MapNotify => f.write_str("Map-Notify"),
            Self::MapNotifyAck => f.write_str("Map-Notify-Ack"),
            Self::Ecm => f.write_str("ECM"),
            Self::InnerIpv4 => f.write_str("inner IPv4 header"),
            Self::InnerIpv6 => f.write_str("inner IPv6 header"),
            Self::InnerUdp => f.write_str("inner UDP header"),
            Self::SourceEid => f.write_str("Source-EID"),
            Self::ItrRloc(n) => write!(f, "ITR-RLOC {n}"),
            Self::Record(n) => write!(f, "record {n}"),
            Self::Piggyback => f.write_str("piggybacked record"),
            Self::Locator(n) => write!(f, "locator {n}"),
            Self::Eid => f.write_str("EID"),
            Self::InstanceId => f.write_str("Instance ID LCAF"),
            Self::AfiList => f.write_str("AFI-List LCAF"),
            Self::Frame(kind) => write!(f, "frame of type {kind}"),
        }
    }
}

/// Deepest path a [`DecodeError`] names; what lies further out is left off.
const MAX_PATH: usize = 8;

/// Octets that are not a legal message: where, which field, and what was wrong with it.
///
/// Displays as `in Map-Reply: in record 1: in EID: AFI at octet 26: ...`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}{field} at octet {offset}: {kind}", PathDisplay(self))]
pub struct DecodeError {
    /// Octets from the start of what was given to the decoder to the offending field.
    pub offset: usize,
    /// The offending field, named as in the RFC.
    pub field: &'static str,
    /// What is wrong with it, with the value found.
    pub kind: DecodeErrorKind,
    path: [Option<Part>; MAX_PATH],
}

impl DecodeError {
    pub(crate) const fn new(offset: usize, field: &'static str, kind: DecodeErrorKind) -> Self {
        Self { offset, field, kind, path: [None; MAX_PATH] }
    }

    /// Adds `part` outside of the parts named so far.
    pub(crate) fn within(mut self, part: Part) -> Self {
        self.path.copy_within(0..MAX_PATH - 1, 1);
        self.path[0] = Some(part);
        self
    }

    /// Moves the offset by `octets`: the inner message started there.
    pub(crate) const fn shifted(mut self, octets: usize) -> Self {
        self.offset += octets;
        self
    }

    /// The parts around the field, outermost first.
    pub fn path(&self) -> impl Iterator<Item = Part> + '_ {
        self.path.iter().flatten().copied()
    }
}

struct PathDisplay<'a>(&'a DecodeError);

impl fmt::Display for PathDisplay<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.path() {
            write!(f, "in {part}: ")?;
        }
        Ok(())
    }
}

/// What is wrong with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// The message ends before the field does.
    #[error("needs {needed} octets and {available} are left; the message is cut short")]
    Truncated {
        /// Octets the field takes.
        needed: usize,
        /// Octets that were left.
        available: usize,
    },
    /// An address family whose length nobody here knows. RFC 9301 section 5.1: drop and log.
    #[error("unknown address family {afi}; known are 0, 1, 2, 6, 16387 and 16389")]
    UnknownAfi {
        /// The AFI found.
        afi: u16,
    },
    /// Another message type than the one asked for.
    #[error("type {found} where {expected} was expected")]
    WrongType {
        /// The type that was wanted.
        expected: u8,
        /// The type found.
        found: u8,
    },
    /// A message type that this codec does not decode.
    #[error("message type {found} is not decoded here")]
    UnknownType {
        /// The type found.
        found: u8,
    },
    /// Octets after the end of the message.
    #[error("{extra} octets follow the end of the message")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// A length field that does not agree with what it measures.
    #[error("length {found} does not fit its content, {expected} would")]
    Length {
        /// The length found.
        found: usize,
        /// The length that would fit.
        expected: usize,
    },
    /// A checksum that does not match.
    #[error("checksum {found:#06x} does not match, {expected:#06x} would")]
    Checksum {
        /// The checksum found.
        found: u16,
        /// The checksum computed.
        expected: u16,
    },
    /// A value that the field must not have.
    #[error("value {value} is not allowed: {reason}")]
    Value {
        /// The value found.
        value: u64,
        /// Why it is not allowed.
        reason: &'static str,
    },
    /// LCAFs inside LCAFs, deeper than [`MAX_NESTING`](crate::wire::MAX_NESTING).
    #[error("addresses are nested deeper than {max}")]
    Nesting {
        /// The deepest nesting accepted.
        max: u8,
    },
}

/// A message that has no encoding.
///
/// Nothing was written: the output buffer is as long as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// More entries than the count field can say.
    #[error("{count} {what}, at most {max} fit one message: send several messages")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many were given.
        count: usize,
        /// How many fit.
        max: usize,
    },
    /// A Map-Request without an ITR-RLOC. RFC 9301 section 5.3 has receivers drop it.
    #[error("a Map-Request needs at least one ITR-RLOC")]
    NoItrRloc,
    /// A body longer than its 16-bit length field can say.
    #[error("{what} of {length} octets, at most {max} fit its length field")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// Its length in octets.
        length: usize,
        /// The longest that fits.
        max: usize,
    },
    /// LCAFs inside LCAFs, deeper than [`MAX_NESTING`](crate::wire::MAX_NESTING).
    #[error("addresses are nested deeper than {max}")]
    Nesting {
        /// The deepest nesting that decoders accept.
        max: u8,
    },
    /// Inner source and destination of an ECM are of different address families.
    #[error("inner source and destination must be of one address family")]
    MixedFamilies,
}
