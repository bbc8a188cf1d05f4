//! Receivers of multicast groups: frames of Weft's own, beside those of membership. What they say is what a
//! registration of the group's EID would (RFC 8378 section 5, any source), for a session instead of a TTL.

use std::net::IpAddr;

use super::membership::site_and_address;
use super::signal::SIGNAL_BASE;
use crate::error::{DecodeError, EncodeError};
use crate::wire::{Address, EncodeOptions, Reader};

const BEGIN: u16 = SIGNAL_BASE + 0x20;
const END: u16 = SIGNAL_BASE + 0x21;
const ADD: u16 = SIGNAL_BASE + 0x22;
const REMOVE: u16 = SIGNAL_BASE + 0x23;
const ADD_ALL: u16 = SIGNAL_BASE + 0x24;
const REMOVE_ALL: u16 = SIGNAL_BASE + 0x25;

/// A frame about the groups that somebody in a VN receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Group {
    /// VNI.
    pub vni: u32,
    /// What about them.
    pub event: GroupEvent,
}

/// What a group frame says. To an Oracle the Site-ID is 0: the session says who has the receivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GroupEvent {
    /// Type 0xff20, NVE to Oracle: all groups that I have receivers of in the VN follow.
    Begin,
    /// Type 0xff21, NVE to Oracle: those were all; forget any other.
    End,
    /// Type 0xff22, either direction: there is a receiver. An Oracle says it to who is subscribed to the VN's
    /// members, inside their snapshot too.
    Add {
        /// Site-ID of the member that has it.
        site_id: u64,
        /// The group.
        group: IpAddr,
    },
    /// Type 0xff23, either direction: there is none any more.
    Remove {
        /// Site-ID of the member that had it.
        site_id: u64,
        /// The group.
        group: IpAddr,
    },
    /// Type 0xff24, either direction: there are receivers of more groups than are named, so every group is wanted.
    /// An Oracle says it too of a member that names none. Who does not know it answers with an Error Notification, or
    /// skips it, and sends on what is named.
    AddAll {
        /// Site-ID of the member that has them.
        site_id: u64,
    },
    /// Type 0xff25, either direction: those that are named are all again.
    RemoveAll {
        /// Site-ID of the member that had more.
        site_id: u64,
    },
}

impl Group {
    /// Reads a frame of one of these types; `None` for any other type.
    pub(super) fn read(frame_type: u16, reader: &mut Reader<'_>) -> Result<Option<Self>, DecodeError> {
        if !(BEGIN..=REMOVE_ALL).contains(&frame_type) {
            return Ok(None);
        }
        let vni = reader.u32("VNI")?;
        let reason = "a group is IPv4 or IPv6";
        let event = match frame_type {
            BEGIN => GroupEvent::Begin,
            END => GroupEvent::End,
            ADD => {
                let (site_id, group) = site_and_address(reader, "Group AFI", reason)?;
                GroupEvent::Add { site_id, group }
            }
            ADD_ALL => GroupEvent::AddAll { site_id: reader.u64("Site-ID")? },
            REMOVE_ALL => GroupEvent::RemoveAll { site_id: reader.u64("Site-ID")? },
            _ => {
                let (site_id, group) = site_and_address(reader, "Group AFI", reason)?;
                GroupEvent::Remove { site_id, group }
            }
        };
        Ok(Some(Self { vni, event }))
    }

    /// The type of the frame that carries this.
    pub const fn frame_type(&self) -> u16 {
        match self.event {
            GroupEvent::Begin => BEGIN,
            GroupEvent::End => END,
            GroupEvent::Add { .. } => ADD,
            GroupEvent::Remove { .. } => REMOVE,
            GroupEvent::AddAll { .. } => ADD_ALL,
            GroupEvent::RemoveAll { .. } => REMOVE_ALL,
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(&self.vni.to_be_bytes());
        match self.event {
            GroupEvent::Begin | GroupEvent::End => Ok(()),
            GroupEvent::AddAll { site_id } | GroupEvent::RemoveAll { site_id } => {
                out.extend_from_slice(&site_id.to_be_bytes());
                Ok(())
            }
            GroupEvent::Add { site_id, group } | GroupEvent::Remove { site_id, group } => {
                out.extend_from_slice(&site_id.to_be_bytes());
                Address::from(group).write(out, EncodeOptions::default(), 0)
            }
        }
    }
}
