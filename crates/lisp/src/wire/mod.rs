//! The UDP messages of RFC 9301 section 5 with RFC 9437's additions.
//!
//! One set of types serves both directions. Decoding yields views into the received octets: nothing is
//! allocated, everything is validated once, and iterating over [`List`]s afterwards cannot fail. Encoding
//! appends to a `Vec<u8>` of the caller's and allocates nothing besides that vector's growth; lists are
//! then slices of the caller's.
//!
//! Reserved bits are ignored when read and written as 0. Octets behind the end of a message are an error.

mod address;
mod ecm;
mod eid;
mod list;
mod locator;
mod map_notify;
mod map_register;
mod map_reply;
mod map_request;
mod owned;
mod reader;
mod record;

pub use address::{
    AFI_802, AFI_IPV4, AFI_IPV6, AFI_LCAF, AFI_MAC48, AFI_NONE, Address, Inner, LCAF_AFI_LIST,
    LCAF_INSTANCE_ID, MAX_NESTING, MacAfi, OpaqueLcaf,
};
pub use ecm::{Ecm, EcmHeader};
pub use eid::{Eid, EidAddr, EidError};
pub use list::{Item, Iter, List};
pub use locator::Locator;
pub use map_notify::{MapNotify, NotifyKind};
pub use map_register::{AuthData, MapRegister, XTR_TRAILER_LEN, Xtr};
pub use map_reply::MapReply;
pub use map_request::{EidRecord, MapRequest};
pub use owned::{AddressBuf, RecordBuf};
pub use record::{Action, MapVersion, Record, TTL_RECEIVER_DECIDES, TTL_REMOVE};

pub(crate) use list::sealed;
pub(crate) use reader::Reader;

use crate::error::{DecodeError, DecodeErrorKind, EncodeError};

/// UDP and TCP port of the LISP control plane (RFC 9301 section 13).
pub const CONTROL_PORT: u16 = 4342;

/// Choices that receivers accept either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct EncodeOptions {
    /// The AFI that MAC addresses are written with.
    pub mac_afi: MacAfi,
}

impl EncodeOptions {
    /// These options with another AFI for MAC addresses.
    #[must_use]
    pub const fn with_mac_afi(mut self, mac_afi: MacAfi) -> Self {
        self.mac_afi = mac_afi;
        self
    }
}

/// Message types (RFC 9301 section 5.1), the high 4 bits of the first octet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum MessageType {
    /// Map-Request.
    MapRequest = 1,
    /// Map-Reply.
    MapReply = 2,
    /// Map-Register.
    MapRegister = 3,
    /// Map-Notify.
    MapNotify = 4,
    /// Map-Notify-Ack.
    MapNotifyAck = 5,
    /// Encapsulated Control Message.
    Ecm = 8,
}

impl MessageType {
    /// The type of the message that starts with `octets`.
    ///
    /// # Errors
    /// When there are no octets, or of a type that this crate does not decode (Map-Referral 6 and
    /// Shared Extension 15 among them).
    pub fn of(octets: &[u8]) -> Result<Self, DecodeError> {
        let found = Reader::new(octets).u8("Type")? >> 4;
        Ok(match found {
            1 => Self::MapRequest,
            2 => Self::MapReply,
            3 => Self::MapRegister,
            4 => Self::MapNotify,
            5 => Self::MapNotifyAck,
            8 => Self::Ecm,
            _ => return Err(Reader::error(0, "Type", DecodeErrorKind::UnknownType { found })),
        })
    }
}

/// Any message that comes in on UDP port 4342.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// RFC 9301 section 5.2.
    MapRequest(MapRequest<'a>),
    /// RFC 9301 section 5.4.
    MapReply(MapReply<'a>),
    /// RFC 9301 section 5.6.
    MapRegister(MapRegister<'a>),
    /// RFC 9301 section 5.7, types 4 and 5.
    MapNotify(MapNotify<'a>),
    /// RFC 9301 section 5.8. Decode [`Ecm::message`] in turn.
    Ecm(Ecm<'a>),
}

impl<'a> Message<'a> {
    /// Decodes a UDP payload.
    ///
    /// # Errors
    /// When it is not one whole message; the error names offset and field. Authentication is not looked
    /// at: call [`auth::verify`](crate::auth::verify) before believing a Map-Register or Map-Notify.
    pub fn decode(octets: &'a [u8]) -> Result<Self, DecodeError> {
        Ok(match MessageType::of(octets)? {
            MessageType::MapRequest => Self::MapRequest(MapRequest::decode(octets)?),
            MessageType::MapReply => Self::MapReply(MapReply::decode(octets)?),
            MessageType::MapRegister => Self::MapRegister(MapRegister::decode(octets)?),
            MessageType::MapNotify | MessageType::MapNotifyAck => Self::MapNotify(MapNotify::decode(octets)?),
            MessageType::Ecm => Self::Ecm(Ecm::decode(octets)?),
        })
    }

    /// Appends the message to `out`.
    ///
    /// # Errors
    /// As the messages' own `encode`; `out` is then as before.
    pub fn encode(&self, out: &mut Vec<u8>, options: EncodeOptions) -> Result<(), EncodeError> {
        match self {
            Self::MapRequest(m) => m.encode(out, options),
            Self::MapReply(m) => m.encode(out, options),
            Self::MapRegister(m) => m.encode(out, options),
            Self::MapNotify(m) => m.encode(out, options),
            Self::Ecm(m) => m.encode(out),
        }
    }
}

/// Runs `write`; when it fails, takes back what it wrote.
pub(crate) fn all_or_nothing(
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    write(out).inspect_err(|_| out.truncate(start))
}

/// A count field of one octet.
pub(crate) fn count(what: &'static str, count: usize) -> Result<u8, EncodeError> {
    u8::try_from(count).map_err(|_| EncodeError::TooMany { what, count, max: 255 })
}

/// Reads the first octet and fails unless its high 4 bits are `expected`.
pub(crate) fn read_type(reader: &mut Reader<'_>, expected: MessageType) -> Result<u8, DecodeError> {
    let first = reader.u8("Type")?;
    let (expected, found) = (expected as u8, first >> 4);
    if found != expected {
        return Err(Reader::error(0, "Type", DecodeErrorKind::WrongType { expected, found }));
    }
    Ok(first)
}

pub(crate) const fn bit(set: bool, mask: u8) -> u8 {
    if set { mask } else { 0 }
}
