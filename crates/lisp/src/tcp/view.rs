//! What an NVE knows, shown to whoever asks its Oracle: Weft's own frames 0xff30 and 0xff31.

use super::signal::SIGNAL_BASE;
use crate::error::DecodeError;
use crate::wire::Reader;

const VIEW_REQUEST: u16 = SIGNAL_BASE + 0x30;
const VIEW_PART: u16 = SIGNAL_BASE + 0x31;

const LAST: u8 = 0x01;
const REFUSED: u8 = 0x02;

/// A question for people, and its answer in parts. Frames of one question have its ID.
///
/// Beside the protocol proper: nothing in a mapping table depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View<'a> {
    /// Type 0xff30, Oracle to NVE: show me this.
    Request {
        /// A word that both ends know, `mappings` for one. Octets that are no such word are refused.
        what: &'a [u8],
    },
    /// Type 0xff31, NVE to Oracle: a piece of the answer.
    Part {
        /// Nothing follows.
        last: bool,
        /// The octets say why there is no answer.
        refused: bool,
        /// The piece.
        octets: &'a [u8],
    },
}

impl<'a> View<'a> {
    /// Octets of the answer in one part: what fits a frame with room to spare.
    pub const PART: usize = 32 << 10;

    /// Reads a frame of one of these types; `None` for any other type.
    pub(super) fn read(frame_type: u16, reader: &mut Reader<'a>) -> Result<Option<Self>, DecodeError> {
        Ok(Some(match frame_type {
            VIEW_REQUEST => Self::Request { what: reader.rest() },
            VIEW_PART => {
                let flags = reader.u8("Flags")?;
                Self::Part { last: flags & LAST != 0, refused: flags & REFUSED != 0, octets: reader.rest() }
            }
            _ => return Ok(None),
        }))
    }

    /// The type of the frame that carries this.
    pub const fn frame_type(&self) -> u16 {
        match self {
            Self::Request { .. } => VIEW_REQUEST,
            Self::Part { .. } => VIEW_PART,
        }
    }

    /// Whether a frame of this type is one of these.
    pub const fn is(frame_type: u16) -> bool {
        matches!(frame_type, VIEW_REQUEST | VIEW_PART)
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Request { what } => out.extend_from_slice(what),
            Self::Part { last, refused, octets } => {
                out.push(if last { LAST } else { 0 } | if refused { REFUSED } else { 0 });
                out.extend_from_slice(octets);
            }
        }
    }
}
