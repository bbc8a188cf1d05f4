//! RLOC membership of an instance: frame types 22 to 30.

use std::net::IpAddr;

use crate::error::{DecodeError, DecodeErrorKind, EncodeError};
use crate::wire::sealed::Read;
use crate::wire::{Address, EncodeOptions, Reader};

const SUBSCRIBE: u16 = 22;
const SUBSCRIBE_ACK: u16 = 23;
const SUBSCRIBE_NACK: u16 = 24;
const UNSUBSCRIBE: u16 = 25;
const ELEMENT_ADD: u16 = 26;
const ELEMENT_REMOVE: u16 = 27;
const REFRESH_REQUEST: u16 = 28;
const REFRESH_BEGIN: u16 = 29;
const REFRESH_END: u16 = 30;

/// Why a subscription is refused (type 24).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum SubscribeError {
    /// 0: any other reason.
    Undefined,
    /// 1: no such instance.
    InstanceNotFound,
    /// 2: membership of this instance is not distributed.
    NotEnabled,
    /// 3: not for this subscriber.
    NotAuthorized,
    /// A code without a meaning here.
    Other(u8),
}

impl SubscribeError {
    pub(super) const fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Undefined,
            1 => Self::InstanceNotFound,
            2 => Self::NotEnabled,
            3 => Self::NotAuthorized,
            other => Self::Other(other),
        }
    }

    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Undefined => 0,
            Self::InstanceNotFound => 1,
            Self::NotEnabled => 2,
            Self::NotAuthorized => 3,
            Self::Other(code) => code,
        }
    }
}

/// A membership frame: which instance, and what about the RLOCs of its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Membership {
    /// AFI of the EIDs whose membership this is about; 0 for the instance as a whole.
    pub eid_afi: u16,
    /// Instance ID.
    pub iid: u32,
    /// What is said.
    pub event: MembershipEvent,
}

/// What a membership frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MembershipEvent {
    /// Type 22: tell me the members, and changes from now on.
    Subscribe,
    /// Type 23: you will be told.
    SubscribeAck {
        /// ID of the Subscribe frame.
        subscribe_id: u32,
    },
    /// Type 24: you will not be told.
    SubscribeNack {
        /// ID of the Subscribe frame.
        subscribe_id: u32,
        /// Why.
        error: SubscribeError,
    },
    /// Type 25: tell me no more.
    Unsubscribe,
    /// Type 26: an RLOC became a member.
    Add {
        /// Site-ID of the member.
        site_id: u64,
        /// Its RLOC.
        rloc: IpAddr,
    },
    /// Type 27: an RLOC is no longer a member.
    Remove {
        /// Site-ID of the member.
        site_id: u64,
        /// Its RLOC.
        rloc: IpAddr,
    },
    /// Type 28: tell me all members again.
    RefreshRequest,
    /// Type 29: all members follow.
    RefreshBegin {
        /// ID of the Refresh Request frame.
        request_id: u32,
    },
    /// Type 30: those were all; forget any other.
    RefreshEnd {
        /// ID of the Refresh Request frame.
        request_id: u32,
    },
}

impl Membership {
    /// Reads a frame of a membership type; `None` for any other type.
    pub(super) fn read(frame_type: u16, reader: &mut Reader<'_>) -> Result<Option<Self>, DecodeError> {
        if !(SUBSCRIBE..=REFRESH_END).contains(&frame_type) {
            return Ok(None);
        }
        let eid_afi = reader.u16("EID AFI")?;
        let iid = reader.u32("Instance ID")?;
        let event = match frame_type {
            SUBSCRIBE => MembershipEvent::Subscribe,
            SUBSCRIBE_ACK => MembershipEvent::SubscribeAck { subscribe_id: reader.u32("Subscribe ID")? },
            SUBSCRIBE_NACK => MembershipEvent::SubscribeNack {
                subscribe_id: reader.u32("Subscribe ID")?,
                error: SubscribeError::from_code(reader.u8("Error Code")?),
            },
            UNSUBSCRIBE => MembershipEvent::Unsubscribe,
            ELEMENT_ADD => {
                let (site_id, rloc) = site_and_address(reader, "RLOC AFI", MEMBER)?;
                MembershipEvent::Add { site_id, rloc }
            }
            ELEMENT_REMOVE => {
                let (site_id, rloc) = site_and_address(reader, "RLOC AFI", MEMBER)?;
                MembershipEvent::Remove { site_id, rloc }
            }
            REFRESH_REQUEST => MembershipEvent::RefreshRequest,
            REFRESH_BEGIN => MembershipEvent::RefreshBegin { request_id: reader.u32("Request ID")? },
            _ => MembershipEvent::RefreshEnd { request_id: reader.u32("Request ID")? },
        };
        Ok(Some(Self { eid_afi, iid, event }))
    }

    /// The type of the frame that carries this.
    pub const fn frame_type(&self) -> u16 {
        match self.event {
            MembershipEvent::Subscribe => SUBSCRIBE,
            MembershipEvent::SubscribeAck { .. } => SUBSCRIBE_ACK,
            MembershipEvent::SubscribeNack { .. } => SUBSCRIBE_NACK,
            MembershipEvent::Unsubscribe => UNSUBSCRIBE,
            MembershipEvent::Add { .. } => ELEMENT_ADD,
            MembershipEvent::Remove { .. } => ELEMENT_REMOVE,
            MembershipEvent::RefreshRequest => REFRESH_REQUEST,
            MembershipEvent::RefreshBegin { .. } => REFRESH_BEGIN,
            MembershipEvent::RefreshEnd { .. } => REFRESH_END,
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(&self.eid_afi.to_be_bytes());
        out.extend_from_slice(&self.iid.to_be_bytes());
        match self.event {
            MembershipEvent::Subscribe | MembershipEvent::Unsubscribe | MembershipEvent::RefreshRequest => {}
            MembershipEvent::SubscribeAck { subscribe_id: id }
            | MembershipEvent::RefreshBegin { request_id: id }
            | MembershipEvent::RefreshEnd { request_id: id } => {
                out.extend_from_slice(&id.to_be_bytes());
            }
            MembershipEvent::SubscribeNack { subscribe_id, error } => {
                out.extend_from_slice(&subscribe_id.to_be_bytes());
                out.push(error.code());
            }
            MembershipEvent::Add { site_id, rloc } | MembershipEvent::Remove { site_id, rloc } => {
                out.extend_from_slice(&site_id.to_be_bytes());
                Address::from(rloc).write(out, EncodeOptions::default(), 0)?;
            }
        }
        Ok(())
    }
}

const MEMBER: &str = "a member's RLOC is IPv4 or IPv6";

/// A Site-ID and the address of it that a frame is about.
pub(super) fn site_and_address(
    reader: &mut Reader<'_>,
    field: &'static str,
    reason: &'static str,
) -> Result<(u64, IpAddr), DecodeError> {
    let site_id = reader.u64("Site-ID")?;
    let start = reader.offset();
    let address = Address::read(reader)?;
    let ip = address.as_ip();
    let kind = DecodeErrorKind::Value { value: 0, reason };
    ip.map(|ip| (site_id, ip)).ok_or_else(|| Reader::error(start, field, kind))
}
