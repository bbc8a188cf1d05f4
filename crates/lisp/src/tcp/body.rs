//! What frames carry: types 16 to 21, and the choice among all types.

use super::frame::{Frame, encode_frame};
use super::membership::Membership;
use super::signal::Signal;
use crate::error::{DecodeError, DecodeErrorKind, EncodeError, Part};
use crate::wire::sealed::Read;
use crate::wire::{Address, Eid, EidError, EncodeOptions, MapRegister, Reader, Record, Xtr};

const ERROR_NOTIFICATION: u16 = 16;
const REGISTRATION: u16 = 17;
const REGISTRATION_ACK: u16 = 18;
const REGISTRATION_REJECT: u16 = 19;
const REGISTRATION_REFRESH: u16 = 20;
const MAPPING_NOTIFICATION: u16 = 21;

/// The decoded data of a [`Frame`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Body<'a> {
    /// Type 16: the other side could not use a frame.
    ErrorNotification(ErrorNotification<'a>),
    /// Type 17: a Map-Register.
    Registration(Registration<'a>),
    /// Type 18: the registration of this EID-Prefix is accepted.
    RegistrationAck(EidPrefix<'a>),
    /// Type 19: the registration of this EID-Prefix is refused.
    RegistrationReject {
        /// Why.
        reason: RejectReason,
        /// What was registered.
        prefix: EidPrefix<'a>,
    },
    /// Type 20: register again.
    RegistrationRefresh {
        /// What to register again.
        scope: RefreshScope<'a>,
        /// R bit: only what was rejected before.
        rejected_only: bool,
    },
    /// Type 21: a mapping has changed.
    MappingNotification {
        /// Who registered it.
        xtr: Xtr,
        /// The mapping as it is now.
        record: Record<'a>,
    },
    /// Types 22 to 30.
    Membership(Membership),
    /// Weft's own types.
    Signal(Signal),
    /// Any other type, kept as it came.
    Unknown {
        /// Frame type.
        frame_type: u16,
        /// Its data.
        data: &'a [u8],
    },
}

impl<'a> Body<'a> {
    /// Decodes the data of `frame`.
    ///
    /// # Errors
    /// When the data are not those of the frame's type.
    pub fn decode(frame: &Frame<'a>) -> Result<Self, DecodeError> {
        Self::read(frame).map_err(|e| e.within(Part::Frame(frame.frame_type)))
    }

    fn read(frame: &Frame<'a>) -> Result<Self, DecodeError> {
        let data = frame.data;
        let reader = &mut Reader::new(data);
        let body = match frame.frame_type {
            ERROR_NOTIFICATION => Self::ErrorNotification(ErrorNotification::read(reader)?),
            REGISTRATION => return Registration::new(data).map(Self::Registration),
            REGISTRATION_ACK => Self::RegistrationAck(EidPrefix::read(reader)?),
            REGISTRATION_REJECT => {
                let reason = RejectReason::from_code(reader.u8("Reason")?);
                reader.take(2, "Reserved")?;
                Self::RegistrationReject { reason, prefix: EidPrefix::read(reader)? }
            }
            REGISTRATION_REFRESH => {
                let scope = reader.u8("Scope")?;
                let rejected_only = reader.u16("R")? & 0x8000 != 0;
                Self::RegistrationRefresh { scope: RefreshScope::read(reader, scope)?, rejected_only }
            }
            MAPPING_NOTIFICATION => {
                Self::MappingNotification { xtr: Xtr::read(reader)?, record: Record::read(reader)? }
            }
            frame_type => match Membership::read(frame_type, reader)? {
                Some(membership) => Self::Membership(membership),
                None => match Signal::read(frame_type, reader)? {
                    Some(signal) => Self::Signal(signal),
                    None => return Ok(Self::Unknown { frame_type, data }),
                },
            },
        };
        reader.finish("end of frame")?;
        Ok(body)
    }

    /// The type of the frame that carries this.
    pub const fn frame_type(&self) -> u16 {
        match self {
            Self::ErrorNotification(_) => ERROR_NOTIFICATION,
            Self::Registration(_) => REGISTRATION,
            Self::RegistrationAck(_) => REGISTRATION_ACK,
            Self::RegistrationReject { .. } => REGISTRATION_REJECT,
            Self::RegistrationRefresh { .. } => REGISTRATION_REFRESH,
            Self::MappingNotification { .. } => MAPPING_NOTIFICATION,
            Self::Membership(m) => m.frame_type(),
            Self::Signal(s) => s.frame_type(),
            Self::Unknown { frame_type, .. } => *frame_type,
        }
    }

    /// Appends a frame that carries this to `out`.
    ///
    /// # Errors
    /// When it has no encoding or is longer than a frame; `out` is then as before.
    pub fn encode(&self, id: u32, out: &mut Vec<u8>, options: EncodeOptions) -> Result<(), EncodeError> {
        encode_frame(out, self.frame_type(), id, |out| match self {
            Self::ErrorNotification(e) => {
                e.write(out);
                Ok(())
            }
            Self::Registration(r) => {
                out.extend_from_slice(r.octets);
                Ok(())
            }
            Self::RegistrationAck(prefix) => prefix.write(out, options),
            Self::RegistrationReject { reason, prefix } => {
                out.extend_from_slice(&[reason.code(), 0, 0]);
                prefix.write(out, options)
            }
            Self::RegistrationRefresh { scope, rejected_only } => {
                let flags = if *rejected_only { 0x80 } else { 0 };
                out.extend_from_slice(&[scope.code(), flags, 0]);
                scope.prefix().map_or(Ok(()), |prefix| prefix.write(out, options))
            }
            Self::MappingNotification { xtr, record } => {
                xtr.write(out);
                record.write(out, options)
            }
            Self::Membership(m) => m.write(out),
            Self::Signal(s) => {
                s.write(out);
                Ok(())
            }
            Self::Unknown { data, .. } => {
                out.extend_from_slice(data);
                Ok(())
            }
        })
    }

    /// Appends a Registration frame around a Map-Register, without a copy of it in between.
    ///
    /// The Map-Register is not signed: on a session that authenticates both ends,
    /// [`AuthData::default`](crate::wire::AuthData) says so.
    ///
    /// # Errors
    /// As [`MapRegister::encode`], and when it is longer than a frame.
    pub fn encode_registration(
        register: &MapRegister<'_>,
        id: u32,
        out: &mut Vec<u8>,
        options: EncodeOptions,
    ) -> Result<(), EncodeError> {
        encode_frame(out, REGISTRATION, id, |out| register.encode(out, options))
    }
}

/// Type 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorNotification<'a> {
    /// What was wrong.
    pub code: u8,
    /// Type of the frame that was.
    pub frame_type: u16,
    /// Its Length.
    pub length: u16,
    /// Its ID.
    pub id: u32,
    /// As much of its data as the sender of the error gives back.
    pub data: &'a [u8],
}

impl<'a> ErrorNotification<'a> {
    /// Code 1: a frame type that the receiver does not know.
    pub const UNKNOWN_TYPE: u8 = 1;
    /// Code 2: a frame whose data make no sense.
    pub const MALFORMED: u8 = 2;

    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let code = reader.u8("Error Code")?;
        reader.take(3, "Reserved")?;
        Ok(Self {
            code,
            frame_type: reader.u16("Offending Message Type")?,
            length: reader.u16("Offending Message Length")?,
            id: reader.u32("Offending Message ID")?,
            data: reader.rest(),
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.code, 0, 0, 0]);
        out.extend_from_slice(&self.frame_type.to_be_bytes());
        out.extend_from_slice(&self.length.to_be_bytes());
        out.extend_from_slice(&self.id.to_be_bytes());
        out.extend_from_slice(self.data);
    }
}

/// Type 17: the octets of a whole Map-Register, as [`auth::verify`](crate::auth::verify) wants them, known
/// to decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registration<'a> {
    octets: &'a [u8],
    register: MapRegister<'a>,
}

impl<'a> Registration<'a> {
    /// Takes the octets of one whole Map-Register, encoded and if need be signed.
    ///
    /// # Errors
    /// When they are not that.
    pub fn new(octets: &'a [u8]) -> Result<Self, DecodeError> {
        Ok(Self { octets, register: MapRegister::decode(octets)? })
    }

    /// The Map-Register's octets.
    pub const fn octets(&self) -> &'a [u8] {
        self.octets
    }

    /// The Map-Register.
    pub const fn register(&self) -> &MapRegister<'a> {
        &self.register
    }
}

/// An EID-Prefix as frames name it: mask length, then the address with its AFI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EidPrefix<'a> {
    /// Mask length.
    pub mask_len: u8,
    /// The address.
    pub eid: Address<'a>,
}

impl<'a> EidPrefix<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mask_len = reader.u8("EID mask-len")?;
        let eid = Address::read(reader).map_err(|e| e.within(Part::Eid))?;
        Ok(Self { mask_len, eid })
    }

    fn write(&self, out: &mut Vec<u8>, options: EncodeOptions) -> Result<(), EncodeError> {
        out.push(self.mask_len);
        self.eid.write(out, options, 0)
    }
}

impl From<Eid> for EidPrefix<'_> {
    fn from(eid: Eid) -> Self {
        Self { mask_len: eid.mask_len(), eid: eid.address() }
    }
}

impl TryFrom<EidPrefix<'_>> for Eid {
    type Error = EidError;

    fn try_from(prefix: EidPrefix<'_>) -> Result<Self, EidError> {
        Self::from_wire(prefix.eid, prefix.mask_len)
    }
}

/// Why a registration is refused (type 19).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum RejectReason {
    /// 1: this EID-Prefix is not the site's.
    NotASitePrefix,
    /// 2: wrong authentication.
    AuthenticationFailure,
    /// 3: these locators are not the site's.
    LocatorSetNotAllowed,
    /// 4: any other reason.
    Undefined,
    /// A code without a meaning here.
    Other(u8),
}

impl RejectReason {
    const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::NotASitePrefix,
            2 => Self::AuthenticationFailure,
            3 => Self::LocatorSetNotAllowed,
            4 => Self::Undefined,
            other => Self::Other(other),
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::NotASitePrefix => 1,
            Self::AuthenticationFailure => 2,
            Self::LocatorSetNotAllowed => 3,
            Self::Undefined => 4,
            Self::Other(code) => code,
        }
    }
}

/// What is to be registered again (type 20).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshScope<'a> {
    /// 0: everything.
    All,
    /// 1: every prefix of an instance.
    Instance(EidPrefix<'a>),
    /// 2: every prefix of one address family in an instance.
    Family(EidPrefix<'a>),
    /// 3: every prefix that this one covers.
    Covered(EidPrefix<'a>),
    /// 4: this prefix.
    Prefix(EidPrefix<'a>),
}

impl<'a> RefreshScope<'a> {
    fn read(reader: &mut Reader<'a>, scope: u8) -> Result<Self, DecodeError> {
        let with_prefix: fn(EidPrefix<'a>) -> Self = match scope {
            0 => return Ok(Self::All),
            1 => Self::Instance,
            2 => Self::Family,
            3 => Self::Covered,
            4 => Self::Prefix,
            value => {
                let kind =
                    DecodeErrorKind::Value { value: value.into(), reason: "refresh scopes are 0 to 4" };
                return Err(Reader::error(0, "Scope", kind));
            }
        };
        EidPrefix::read(reader).map(with_prefix)
    }

    const fn code(&self) -> u8 {
        match self {
            Self::All => 0,
            Self::Instance(_) => 1,
            Self::Family(_) => 2,
            Self::Covered(_) => 3,
            Self::Prefix(_) => 4,
        }
    }

    /// The prefix that narrows the scope.
    pub const fn prefix(&self) -> Option<&EidPrefix<'a>> {
        match self {
            Self::All => None,
            Self::Instance(p) | Self::Family(p) | Self::Covered(p) | Self::Prefix(p) => Some(p),
        }
    }
}
