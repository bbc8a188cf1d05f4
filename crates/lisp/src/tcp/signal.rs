//! Weft's own frames; the [module's page](super) says why they have types of their own.

use crate::error::DecodeError;
use crate::wire::Reader;

/// The first frame type of Weft's own.
pub const SIGNAL_BASE: u16 = 0xff00;

const HELLO: u16 = SIGNAL_BASE + 1;
const END_OF_REGISTRATION: u16 = SIGNAL_BASE + 2;
const VN_DIGEST: u16 = SIGNAL_BASE + 3;
const LISP_PORT: u16 = SIGNAL_BASE + 0x10;

/// A frame of Weft's own. All numbers are big-endian, in the order of the fields.
///
/// A digest is whatever both ends compute alike from the records they mean, independent of their order;
/// this crate only carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Type 0xff01, the first frame in either direction. Octets behind these are for later versions and
    /// ignored.
    Hello {
        /// Version of what the sender speaks.
        version: u16,
        /// Another one each time the sender starts.
        boot_id: u64,
    },
    /// Type 0xff02, NVE to Oracle: everything I have is registered; what I did not name is gone.
    EndOfRegistration {
        /// How many records.
        count: u32,
        /// Digest of them.
        digest: u64,
    },
    /// Type 0xff10, NVE to Oracle, behind its hello: my LISP messages do not go to port 4342 but to this one.
    LispPort {
        /// The UDP port.
        port: u16,
    },
    /// Type 0xff03, either direction, every 30 s and behind a snapshot: what you should have of a VN.
    VnDigest {
        /// VNI.
        vni: u32,
        /// How many records.
        count: u32,
        /// Digest of them.
        digest: u64,
    },
}

impl Signal {
    /// Reads a frame of one of Weft's types; `None` for any other type.
    pub(super) fn read(frame_type: u16, reader: &mut Reader<'_>) -> Result<Option<Self>, DecodeError> {
        Ok(Some(match frame_type {
            HELLO => {
                let hello = Self::Hello { version: reader.u16("Version")?, boot_id: reader.u64("Boot ID")? };
                reader.rest();
                hello
            }
            END_OF_REGISTRATION => {
                Self::EndOfRegistration { count: reader.u32("Count")?, digest: reader.u64("Digest")? }
            }
            LISP_PORT => Self::LispPort { port: reader.u16("Port")? },
            VN_DIGEST => Self::VnDigest {
                vni: reader.u32("VNI")?,
                count: reader.u32("Count")?,
                digest: reader.u64("Digest")?,
            },
            _ => return Ok(None),
        }))
    }

    /// The type of the frame that carries this.
    pub const fn frame_type(&self) -> u16 {
        match self {
            Self::Hello { .. } => HELLO,
            Self::EndOfRegistration { .. } => END_OF_REGISTRATION,
            Self::VnDigest { .. } => VN_DIGEST,
            Self::LispPort { .. } => LISP_PORT,
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Hello { version, boot_id } => {
                out.extend_from_slice(&version.to_be_bytes());
                out.extend_from_slice(&boot_id.to_be_bytes());
            }
            Self::EndOfRegistration { count, digest } => {
                out.extend_from_slice(&count.to_be_bytes());
                out.extend_from_slice(&digest.to_be_bytes());
            }
            Self::LispPort { port } => out.extend_from_slice(&port.to_be_bytes()),
            Self::VnDigest { vni, count, digest } => {
                out.extend_from_slice(&vni.to_be_bytes());
                out.extend_from_slice(&count.to_be_bytes());
                out.extend_from_slice(&digest.to_be_bytes());
            }
        }
    }
}
