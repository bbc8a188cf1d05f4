//! Weft's own frames; the [module's page](super) says why they have types of their own.

use super::membership::SubscribeError;
use crate::error::DecodeError;
use crate::wire::Reader;

/// The first frame type of Weft's own.
pub const SIGNAL_BASE: u16 = 0xff00;

const HELLO: u16 = SIGNAL_BASE + 1;
const END_OF_REGISTRATION: u16 = SIGNAL_BASE + 2;
const VN_DIGEST: u16 = SIGNAL_BASE + 3;
const LISP_PORT: u16 = SIGNAL_BASE + 0x10;
const NAMES_GROUPS: u16 = SIGNAL_BASE + 0x11;
const SUBSCRIBE_MAPPINGS: u16 = SIGNAL_BASE + 4;
const UNSUBSCRIBE_MAPPINGS: u16 = SIGNAL_BASE + 5;
const MAPPINGS_REFUSED: u16 = SIGNAL_BASE + 6;
const MAPPINGS_BEGIN: u16 = SIGNAL_BASE + 7;
const MAPPINGS_MARKER: u16 = SIGNAL_BASE + 8;

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
    /// Type 0xff11, NVE to Oracle, behind its hello: of VNs whose multicast is replicated I say for which groups I
    /// have receivers ([`Group`](super::Group)). Who does not say this wants all of them.
    NamesGroups,
    /// Type 0xff03, either direction, every 30 s and behind a snapshot: what you should have of a VN.
    VnDigest {
        /// VNI.
        vni: u32,
        /// How many records.
        count: u32,
        /// Digest of them.
        digest: u64,
    },
    /// Type 0xff04, NVE to Oracle: tell me all mappings of a VN, and changes from now on. The Oracle's frames
    /// 0xff06 to 0xff08 about it carry the ID of this one.
    SubscribeMappings {
        /// VNI.
        vni: u32,
        /// How many records that were pushed before the sender still has.
        count: u32,
        /// Digest of them.
        digest: u64,
    },
    /// Type 0xff05, NVE to Oracle: tell me no more.
    UnsubscribeMappings {
        /// VNI.
        vni: u32,
    },
    /// Type 0xff06, Oracle to NVE: you are not told, or no longer.
    MappingsRefused {
        /// VNI.
        vni: u32,
        /// Why.
        error: SubscribeError,
    },
    /// Type 0xff07, Oracle to NVE: all mappings follow, as Mapping Notifications.
    MappingsBegin {
        /// VNI.
        vni: u32,
    },
    /// Type 0xff08, Oracle to NVE, behind a snapshot and every 30 s: what you should have been told of a VN
    /// by now. Behind a snapshot: forget what it did not name.
    MappingsMarker {
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
            NAMES_GROUPS => Self::NamesGroups,
            VN_DIGEST => Self::VnDigest {
                vni: reader.u32("VNI")?,
                count: reader.u32("Count")?,
                digest: reader.u64("Digest")?,
            },
            SUBSCRIBE_MAPPINGS => Self::SubscribeMappings {
                vni: reader.u32("VNI")?,
                count: reader.u32("Count")?,
                digest: reader.u64("Digest")?,
            },
            UNSUBSCRIBE_MAPPINGS => Self::UnsubscribeMappings { vni: reader.u32("VNI")? },
            MAPPINGS_REFUSED => Self::MappingsRefused {
                vni: reader.u32("VNI")?,
                error: SubscribeError::from_code(reader.u8("Error Code")?),
            },
            MAPPINGS_BEGIN => Self::MappingsBegin { vni: reader.u32("VNI")? },
            MAPPINGS_MARKER => Self::MappingsMarker {
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
            Self::NamesGroups => NAMES_GROUPS,
            Self::SubscribeMappings { .. } => SUBSCRIBE_MAPPINGS,
            Self::UnsubscribeMappings { .. } => UNSUBSCRIBE_MAPPINGS,
            Self::MappingsRefused { .. } => MAPPINGS_REFUSED,
            Self::MappingsBegin { .. } => MAPPINGS_BEGIN,
            Self::MappingsMarker { .. } => MAPPINGS_MARKER,
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
            Self::NamesGroups => {}
            Self::LispPort { port } => out.extend_from_slice(&port.to_be_bytes()),
            Self::VnDigest { vni, count, digest }
            | Self::SubscribeMappings { vni, count, digest }
            | Self::MappingsMarker { vni, count, digest } => {
                out.extend_from_slice(&vni.to_be_bytes());
                out.extend_from_slice(&count.to_be_bytes());
                out.extend_from_slice(&digest.to_be_bytes());
            }
            Self::UnsubscribeMappings { vni } | Self::MappingsBegin { vni } => {
                out.extend_from_slice(&vni.to_be_bytes());
            }
            Self::MappingsRefused { vni, error } => {
                out.extend_from_slice(&vni.to_be_bytes());
                out.push(error.code());
            }
        }
    }
}
