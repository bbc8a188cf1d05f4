//! Traced packets: told of before they come, sent as tenant systems send theirs, and what the programs say of them.

use super::{Kernel, Role, abi, abi::VnMac, sys};
use crate::{
    By, ConnectionState, DatapathError, Ended, IfIndex, Reason, Step, Toward, Trace, TraceId, Traced, Way,
};
use aya::maps::{Map, MapData, RingBuf};
use core::{fmt, mem::offset_of, time::Duration};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use weft_model::{MacAddr, Rloc, TenantIp, Vni};

/// How many may be under way.
pub(super) const TRACES: u32 = 64;
/// Octets of the ring that their steps come by.
pub(super) const STEPS: u32 = 16_384;

const DELIVERS: u32 = 1;
const ARRIVES: u32 = 2;
/// WEFT_TRACE.
const MARK: u32 = 0x5800_0000;
const STEP_IN: u32 = 1 << 31;

impl Kernel {
    /// Has the programs know of a traced packet.
    ///
    /// # Errors
    /// [`DatapathError::Full`], or when the map cannot be written.
    pub fn set_trace(&mut self, id: TraceId, trace: &Trace) -> Result<(), DatapathError> {
        let (rloc, flags, lasts, next) = match trace.way {
            Way::To(rloc) => (rloc, 0, Duration::ZERO, None),
            Way::From { rloc, lasts, next } => (Some(rloc), ARRIVES, lasts, next),
        };
        let ip = |rloc: Option<Rloc>| rloc.map_or_else(abi::Ip::default, |rloc| rloc.get().into());
        let lasts = u64::try_from(lasts.as_nanos()).unwrap_or(u64::MAX);
        let value = abi::TraceValue {
            rloc: ip(rloc),
            until: sys::monotonic().saturating_add(lasts),
            vni: trace.vni.get(),
            flags: flags | if trace.deliver { DELIVERS } else { 0 },
            next: ip(next),
        };
        self.maps.traces.set(&id.get(), &value)
    }

    /// Forgets a traced packet: should it come, it is like any other.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn end_trace(&mut self, id: TraceId) -> Result<(), DatapathError> {
        self.maps.traces.remove(&id.get())
    }

    /// Forgets every traced packet: of an agent before, nobody waits for any.
    pub(super) fn end_traces(&mut self) -> Result<(), DatapathError> {
        for (id, _) in self.maps.traces.all()? {
            self.maps.traces.remove(&id)?;
        }
        Ok(())
    }

    /// Has a frame come in at a VAP as if its tenant system had sent it, traced. The program there sees it at once, or a
    /// moment later on another processor; what it does with it, it does.
    ///
    /// # Errors
    /// [`DatapathError::NoDevice`], [`DatapathError::FrameLength`] (some 3,500 octets at most), or what the kernel says.
    pub fn send_traced(&mut self, id: TraceId, vap: IfIndex, frame: &[u8]) -> Result<(), DatapathError> {
        // Where no program runs it would be the host's.
        if !sys::device_exists(vap) || !self.pins.is_attached(Role::Vap, vap)? {
            return Err(DatapathError::NoDevice(vap));
        }
        super::dry_run::check_length(frame)?;
        sys::come_in(self.knock.as_fd(), vap, frame, MARK | id.get())
    }

    /// Where a MAC address was seen last, as far as that counts still.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn seen_at(&self, vni: Vni, mac: MacAddr) -> Result<Option<Rloc>, DatapathError> {
        let (now, ageing) = (sys::monotonic(), self.maps.config()?.ageing);
        let seen = self.maps.learned.get(&VnMac::new(vni, mac))?;
        let seen = seen.filter(|seen| now.saturating_sub(seen.seen) < ageing);
        Ok(seen.and_then(|seen| Rloc::new(seen.rloc.into()).ok()))
    }

    /// The MAC address of the NVE that an IP address was heard to be behind, as far as that counts still.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn heard_at(&self, vni: Vni, ip: TenantIp) -> Result<Option<MacAddr>, DatapathError> {
        let heard = self.maps.heard.get(&abi::ScopedIp { scope: vni.get(), ip: ip.get().into() })?;
        let idle =
            |heard: &abi::HeardValue| Duration::from_nanos(sys::monotonic().saturating_sub(heard.seen));
        Ok(heard.filter(|heard| idle(heard) < super::HEARD).map(|heard| MacAddr(heard.mac)))
    }

    /// Takes the ring of steps; none if it was taken already.
    pub fn steps(&mut self) -> Option<Steps> {
        self.steps.take()
    }
}

/// The consuming end of the ring of traced packets' steps. There is one; it is read as [`Punts`](super::Punts).
pub struct Steps(RingBuf<MapData>);

impl Steps {
    pub(super) fn new(map: Map) -> Result<Self, DatapathError> {
        RingBuf::try_from(map).map(Self).map_err(|e| super::maps::map_failed("steps", 0, e))
    }

    /// Takes out what is there, oldest first. Does not block.
    pub fn drain(&mut self) -> Vec<Traced> {
        let mut all = Vec::new();
        while let Some(item) = self.0.next() {
            all.extend(parse(&item));
        }
        all
    }
}

fn parse(record: &[u8]) -> Option<Traced> {
    let word = |at: usize| record.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes);
    let (a, b) = (word(offset_of!(abi::StepValue, a))?, word(offset_of!(abi::StepValue, b))?);
    let ip = record.get(offset_of!(abi::StepValue, ip)..)?.first_chunk().copied()?;
    let rloc = Rloc::new(abi::Ip(ip).into()).ok();
    let (vap, toward) = (IfIndex(a & !STEP_IN), if a & STEP_IN == 0 { Toward::Out } else { Toward::In });
    let step = match word(offset_of!(abi::StepValue, kind))? {
        1 => Step::Checked,
        2 => Step::Policy { vap, toward, rule: b.checked_sub(1) },
        3 => {
            let state = u8::try_from(b).ok().and_then(ConnectionState::from_code);
            Step::Known { vap, toward, state }
        }
        4 => {
            let by = match a {
                0 => By::Learning,
                1 => By::Table,
                2 => By::Gateway,
                _ => return None,
            };
            Step::Location { by, vap: (b != 0).then_some(IfIndex(b)), rloc }
        }
        5 => Step::Arrived { from: rloc, vni: b, ttl: u8::try_from(a).ok()? },
        6 => {
            let reason = u16::try_from(a & 0xffff).ok().and_then(Reason::from_code);
            Step::End(ended(a >> 16, b)?, reason)
        }
        _ => return None,
    };
    let id = TraceId::new(word(offset_of!(abi::StepValue, id))?)?;
    Some(Traced { id, device: IfIndex(word(offset_of!(abi::StepValue, ifindex))?), step })
}

const fn ended(did: u32, target: u32) -> Option<Ended> {
    Some(match did {
        1 => Ended::Dropped,
        2 => Ended::Passed,
        3 => Ended::Delivered(IfIndex(target)),
        4 => Ended::Answered,
        5 | 6 => Ended::Left,
        7 => Ended::Punted(abi::punt_reason(target, 0, 0)),
        8 => Ended::Replicated,
        9 => Ended::Stopped,
        _ => return None,
    })
}

impl AsFd for Steps {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Steps {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Steps").field(&self.as_raw_fd()).finish()
    }
}
