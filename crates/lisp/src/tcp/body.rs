//! What frames carry: types 16 to 21, and the choice among all types.

use super::frame::{Frame, encode_frame};
use super::group::Group;
use super::membership::Membership;
use super::signal::Signal;
use super::view::View;
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
    /// Weft's own types, of receivers of groups.
    Group(Group),
    /// Weft's own types.
    Signal(Signal),
    /// Types 0xff30 and 0xff31.
    View(View<'a>),
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
                None => match Group::read(frame_type, reader)? {
                    Some(group) => Self::Group(group),
                    None => match Signal::read(frame_type, reader)? {
                        Some(signal) => Self::Signal(signal),
                        None => match View::read(frame_type, reader)? {
                            Some(view) => Self::View(view),
                            None => return Ok(Self::Unknown { frame_type, data }),
                        },
                    },
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
            Self::Group(g) => g.frame_type(),
            Self::Signal(s) => s.frame_type(),
            Self::View(v) => v.frame_type(),
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
            Self::Group(g) => g.write(out),
            Self::Signal(s) => {
                s.write(out);
                Ok(())
            }
            Self::View(v) => {
                v.write(out);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::{GroupEvent, MembershipEvent, SubscribeError};
    use crate::testing::{assert_error, hex};
    use std::net::Ipv4Addr;

    /// Asserts that `body` is encoded as this type and data, and decoded from them.
    #[track_caller]
    fn check(body: Body<'_>, frame_type: u16, data: &str) {
        let data = hex(data);
        let mut out = Vec::new();
        body.encode(0x0102_0304, &mut out, EncodeOptions::default()).unwrap();
        assert_eq!(out[..2], frame_type.to_be_bytes());
        assert_eq!(usize::from(u16::from_be_bytes([out[2], out[3]])), out.len());
        assert_eq!(out[4..8], [1, 2, 3, 4]);
        assert_eq!(out[8..out.len() - 4], data);
        assert_eq!(Frame { frame_type, id: 0x0102_0304, data: &data }.body(), Ok(body));
        for cut in 0..data.len() {
            if !matches!(body, Body::Unknown { .. } | Body::ErrorNotification(_)) {
                Frame { frame_type, id: 0, data: &data[..cut] }.body().unwrap_err();
            }
        }
    }

    #[test]
    fn transport_frames() {
        let eid = Eid::host(5000, [2, 0, 0, 0, 0, 0xb]);
        let prefix = EidPrefix::from(eid);
        assert_eq!(Eid::try_from(prefix), Ok(eid));
        let octets = "30 4003 0000 0200 000c 00001388 4005 02000000000b";
        check(
            Body::ErrorNotification(ErrorNotification {
                code: ErrorNotification::MALFORMED,
                frame_type: 17,
                length: 12,
                id: 9,
                data: &[0xab],
            }),
            16,
            "02 000000 0011 000c 00000009 ab",
        );
        check(Body::RegistrationAck(prefix), 18, octets);
        for (reason, code) in [
            (RejectReason::NotASitePrefix, 1),
            (RejectReason::AuthenticationFailure, 2),
            (RejectReason::LocatorSetNotAllowed, 3),
            (RejectReason::Undefined, 4),
            (RejectReason::Other(9), 9),
        ] {
            check(Body::RegistrationReject { reason, prefix }, 19, &format!("{code:02x} 0000 {octets}"));
        }
        for (code, scope) in [
            RefreshScope::Instance(prefix),
            RefreshScope::Family(prefix),
            RefreshScope::Covered(prefix),
            RefreshScope::Prefix(prefix),
        ]
        .into_iter()
        .enumerate()
        {
            let body = Body::RegistrationRefresh { scope, rejected_only: false };
            check(body, 20, &format!("{:02x} 0000 {octets}", code + 1));
        }
        check(Body::RegistrationRefresh { scope: RefreshScope::All, rejected_only: true }, 20, "00 8000");
        let record = Record { ttl: 1, mask_len: 48, eid: prefix.eid, ..Record::default() };
        check(
            Body::MappingNotification { xtr: Xtr { xtr_id: [1; 16], site_id: 2 }, record },
            21,
            "01010101010101010101010101010101 0000000000000002
             00000001 00 30 0000 0000 4003 0000 0200 000c 00001388 4005 02000000000b",
        );
        check(Body::Unknown { frame_type: 99, data: &[1, 2] }, 99, "0102");
    }

    #[test]
    fn registration_carries_a_map_register() {
        let octets = hex("30000100 0000000000000007 0000 0000");
        let registration = Registration::new(&octets).unwrap();
        assert!(registration.register().want_notify);
        check(Body::Registration(registration), 17, "30000100 0000000000000007 0000 0000");
        let mut out = Vec::new();
        Body::encode_registration(registration.register(), 3, &mut out, EncodeOptions::default()).unwrap();
        assert_eq!(out[8..24], octets);
    }

    #[test]
    fn membership_frames() {
        let (v4, v6) = (Ipv4Addr::new(192, 0, 2, 1).into(), "2001:db8::1".parse().unwrap());
        let check = |event, frame_type, rest: &str| {
            check(
                Body::Membership(Membership { eid_afi: 1, iid: 5000, event }),
                frame_type,
                &format!("0001 00001388 {rest}"),
            );
        };
        check(MembershipEvent::Subscribe, 22, "");
        check(MembershipEvent::SubscribeAck { subscribe_id: 7 }, 23, "00000007");
        for (error, code) in [
            (SubscribeError::Undefined, 0),
            (SubscribeError::InstanceNotFound, 1),
            (SubscribeError::NotEnabled, 2),
            (SubscribeError::NotAuthorized, 3),
            (SubscribeError::Other(77), 77),
        ] {
            let event = MembershipEvent::SubscribeNack { subscribe_id: 7, error };
            check(event, 24, &format!("00000007 {code:02x}"));
        }
        check(MembershipEvent::Unsubscribe, 25, "");
        check(MembershipEvent::Add { site_id: 3, rloc: v4 }, 26, "0000000000000003 0001 c0000201");
        check(
            MembershipEvent::Remove { site_id: 3, rloc: v6 },
            27,
            "0000000000000003 0002 20010db8000000000000000000000001",
        );
        check(MembershipEvent::RefreshRequest, 28, "");
        check(MembershipEvent::RefreshBegin { request_id: 8 }, 29, "00000008");
        check(MembershipEvent::RefreshEnd { request_id: 8 }, 30, "00000008");
    }

    #[test]
    fn own_frames() {
        check(Body::Signal(Signal::Hello { version: 1, boot_id: 2 }), 0xff01, "0001 0000000000000002");
        check(
            Body::Signal(Signal::EndOfRegistration { count: 1, digest: 2 }),
            0xff02,
            "00000001 0000000000000002",
        );
        check(
            Body::Signal(Signal::VnDigest { vni: 5000, count: 1, digest: 2 }),
            0xff03,
            "00001388 00000001 0000000000000002",
        );
        check(Body::Signal(Signal::LispPort { port: 4343 }), 0xff10, "10f7");
        check(Body::Signal(Signal::NamesGroups), 0xff11, "");
        let mappings = "00001388 00000001 0000000000000002";
        check(Body::Signal(Signal::SubscribeMappings { vni: 5000, count: 1, digest: 2 }), 0xff04, mappings);
        check(Body::Signal(Signal::UnsubscribeMappings { vni: 5000 }), 0xff05, "00001388");
        check(
            Body::Signal(Signal::MappingsRefused { vni: 5000, error: SubscribeError::NotEnabled }),
            0xff06,
            "00001388 02",
        );
        check(Body::Signal(Signal::MappingsBegin { vni: 5000 }), 0xff07, "00001388");
        check(Body::Signal(Signal::MappingsMarker { vni: 5000, count: 1, digest: 2 }), 0xff08, mappings);
        let group = |event| Body::Group(Group { vni: 5000, event });
        check(group(GroupEvent::Begin), 0xff20, "00001388");
        check(group(GroupEvent::End), 0xff21, "00001388");
        let (v4, v6) = ("239.1.2.3".parse().unwrap(), "ff15::1".parse().unwrap());
        check(
            group(GroupEvent::Add { site_id: 3, group: v4 }),
            0xff22,
            "00001388 0000000000000003 0001 ef010203",
        );
        check(
            group(GroupEvent::Remove { site_id: 3, group: v6 }),
            0xff23,
            "00001388 0000000000000003 0002 ff150000000000000000000000000001",
        );
        check(group(GroupEvent::AddAll { site_id: 3 }), 0xff24, "00001388 0000000000000003");
        check(group(GroupEvent::RemoveAll { site_id: 3 }), 0xff25, "00001388 0000000000000003");
        // A later version says more in its hello.
        let data = hex("0002 0000000000000002 aabbcc");
        let frame = Frame { frame_type: 0xff01, id: 0, data: &data };
        assert_eq!(frame.body(), Ok(Body::Signal(Signal::Hello { version: 2, boot_id: 2 })));
    }

    #[test]
    fn malformed() {
        let check = |frame_type, data: &str, path: &[Part], field: &str, offset, kind| {
            let path = [&[Part::Frame(frame_type)], path].concat();
            assert_error(Frame { frame_type, id: 0, data: &hex(data) }.body(), &path, field, offset, kind);
        };
        let unknown = DecodeErrorKind::UnknownAfi { afi: 9 };
        check(17, "30000001 0000000000000007 0000 0000", &[Part::MapRegister], "records", 16, {
            DecodeErrorKind::Truncated { needed: 12, available: 0 }
        });
        check(18, "20 0009 0a000001", &[Part::Eid], "AFI", 1, unknown);
        check(19, "01 0000 20 0009 0a000001", &[Part::Eid], "AFI", 4, unknown);
        let reason = "refresh scopes are 0 to 4";
        check(20, "05 0000", &[], "Scope", 0, DecodeErrorKind::Value { value: 5, reason });
        check(20, "00 0000 00", &[], "end of frame", 3, DecodeErrorKind::Trailing { extra: 1 });
        check(16, "02 000000 0011 00", &[], "Offending Message Length", 6, {
            DecodeErrorKind::Truncated { needed: 2, available: 1 }
        });
        let reason = "a member's RLOC is IPv4 or IPv6";
        check(26, "0001 00001388 0000000000000003 0000", &[], "RLOC AFI", 14, {
            DecodeErrorKind::Value { value: 0, reason }
        });
        let reason = "a group is IPv4 or IPv6";
        check(0xff22, "00001388 0000000000000003 4005 020000000001", &[], "Group AFI", 12, {
            DecodeErrorKind::Value { value: 0, reason }
        });
        check(0xff21, "00001388 00", &[], "end of frame", 4, DecodeErrorKind::Trailing { extra: 1 });
        check(0xff03, "00001388 00000001 00", &[], "Digest", 8, {
            DecodeErrorKind::Truncated { needed: 8, available: 1 }
        });
        check(21, &"00".repeat(26), &[], "Record TTL", 24, {
            DecodeErrorKind::Truncated { needed: 4, available: 2 }
        });
    }
}
