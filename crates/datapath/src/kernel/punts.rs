//! Frames the programs could not decide, as they come out of the ring buffer.

use super::abi::{Ip, PuntValue, punt_reason};
use super::sys;
use crate::{DatapathError, IfIndex, Punt};
use aya::maps::{Map, MapData, RingBuf};
use core::{fmt, mem::offset_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use weft_model::{MacAddr, Rloc, Vni};

/// The consuming end of the punt ring. There is one.
///
/// Its descriptor is readable while something is in it. Under tokio:
///
/// ```ignore
/// let mut ring = AsyncFd::with_interest(punts, Interest::READABLE)?;
/// loop {
///     let mut guard = ring.readable_mut().await?;
///     let batch = guard.get_inner_mut().drain(256);
///     if batch.is_empty() {
///         guard.clear_ready(); // only once it is empty: readiness is edge-triggered
///     }
///     for punt in batch { /* ... */ }
/// }
/// ```
pub struct Punts(RingBuf<MapData>);

impl Punts {
    pub(super) fn new(map: Map) -> Result<Self, DatapathError> {
        RingBuf::try_from(map).map(Self).map_err(|e| super::maps::map_failed("punts", 0, e))
    }

    /// Takes out at most `limit`, oldest first. Does not block.
    pub fn drain(&mut self, limit: usize) -> Vec<Punt> {
        let mut batch = Vec::new();
        while batch.len() < limit {
            let Some(item) = self.0.next() else { break };
            batch.extend(parse(&item));
        }
        batch
    }

    /// Blocks until something is in it; false after `millis`.
    ///
    /// # Errors
    /// What poll(2) says, interruption among it.
    pub fn wait(&self, millis: i32) -> Result<bool, DatapathError> {
        sys::readable(self.as_fd(), millis).map_err(|e| sys::refused("wait for punts", e))
    }
}

fn parse(record: &[u8]) -> Option<Punt> {
    let word = |at: usize| record.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes);
    let len = usize::try_from(word(offset_of!(PuntValue, len))?).ok()?;
    let frame = record.get(offset_of!(PuntValue, frame)..)?.get(..len)?;
    Some(Punt {
        vap: IfIndex(word(offset_of!(PuntValue, ifindex))?),
        vni: Vni::new(word(offset_of!(PuntValue, vni))?).ok()?,
        reason: punt_reason(
            word(offset_of!(PuntValue, reason))?,
            word(offset_of!(PuntValue, rule))?,
            *record.get(offset_of!(PuntValue, toward))?,
        )?,
        dst: MacAddr(record.get(offset_of!(PuntValue, dst)..)?.first_chunk().copied()?),
        from: record
            .get(offset_of!(PuntValue, from)..)
            .and_then(|at| at.first_chunk().copied())
            .and_then(|octets| Rloc::new(Ip(octets).into()).ok()),
        frame: frame.to_vec(),
    })
}

impl AsFd for Punts {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Punts {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl fmt::Debug for Punts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Punts").field(&self.as_raw_fd()).finish()
    }
}
