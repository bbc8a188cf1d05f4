//! What a program would do with a frame: for traces, and for the test that compares it with the model.

use super::{Kernel, abi, sys};
use crate::{DatapathError, IfIndex, Ingress, Reason};
use core::time::Duration;
use std::os::fd::{AsFd as _, BorrowedFd};

/// What a program did with a frame in [`Kernel::dry_run`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DryRun {
    /// Its decision. Of [`crate::Action::Tunnel`] the RLOC is the one in the outer header, and on the
    /// device path, where that is not written yet, the one the tables name.
    pub did: Did,
    /// What it counted the frame as; none for [`Did::Pass`].
    pub reason: Option<Reason>,
    /// The frame as it would leave. MAC addresses and source port of the underlay included only
    /// as far as the programs write them.
    pub frame: Vec<u8>,
}

/// A program's decision, as it reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Did {
    /// [`crate::Action::Drop`].
    Drop,
    /// [`crate::Action::Pass`].
    Pass,
    /// [`crate::Action::Deliver`].
    Deliver(IfIndex),
    /// [`crate::Action::Reply`].
    Reply,
    /// [`crate::Action::Tunnel`], out of this device.
    Direct(IfIndex),
    /// [`crate::Action::Tunnel`] by the VXLAN device.
    Device,
    /// [`crate::Action::Replicate`], of which this many copies would leave.
    Replicate(u32),
    /// [`crate::Action::Punt`].
    Punt(crate::PuntReason),
}

impl Kernel {
    /// Runs a program over a frame and says what it did, without anything leaving. Counters, rate
    /// limits, the punt ring and what is learned see the frame as if it were real. Frames up to some 3,500 octets, IP ones
    /// with a whole IP header; no segmentation offload.
    ///
    /// # Errors
    /// [`DatapathError::FrameLength`], or what the kernel says; a device has to exist.
    pub fn dry_run(&self, ingress: Ingress, frame: &[u8]) -> Result<DryRun, DatapathError> {
        let (program, device) = match ingress {
            Ingress::Vap(device) => (&self.from_vap, device),
            Ingress::Underlay(device) => (&self.from_underlay, device),
            Ingress::Overlay { .. } => (&self.from_overlay, self.vxlan),
        };
        run(program.as_fd(), device, frame, true)
    }

    /// The mean time that the program at a VAP takes over a frame, of many runs one after the other: of a frame that it
    /// hands on as it is, for what it changes the next run sees changed.
    ///
    /// # Errors
    /// As [`Self::dry_run`].
    pub fn time_of(&self, vap: IfIndex, frame: &[u8], runs: u32) -> Result<Duration, DatapathError> {
        check_length(frame)?;
        let nanos = sys::time_runs(self.from_vap.as_fd(), vap, frame, runs)?;
        Ok(Duration::from_nanos(nanos.into()))
    }
}

/// A test run; unless `dry`, what the program sends itself leaves.
pub(super) fn run(
    program: BorrowedFd<'_>,
    device: IfIndex,
    frame: &[u8],
    dry: bool,
) -> Result<DryRun, DatapathError> {
    check_length(frame)?;
    read(sys::test_run(program, device, frame, dry)?)
}

/// A test run on a frame of an NVE's, whose address is in `cb` and the VN behind it.
pub(super) fn carry(
    program: BorrowedFd<'_>,
    device: IfIndex,
    frame: &[u8],
    cb: [u32; 5],
) -> Result<DryRun, DatapathError> {
    check_length(frame)?;
    read(sys::test_run_with(program, device, frame, cb)?)
}

pub(super) fn check_length(frame: &[u8]) -> Result<(), DatapathError> {
    // The kernel's own conditions.
    let shortest = match frame.get(12..14) {
        Some([0x08, 0x00]) => 34,
        Some([0x86, 0xdd]) => 54,
        _ => 15,
    };
    if frame.len() < shortest {
        return Err(DatapathError::FrameLength(frame.len()));
    }
    Ok(())
}

fn read((frame, ctx): (Vec<u8>, [u32; sys::CTX_WORDS])) -> Result<DryRun, DatapathError> {
    let [did, reason, target] = [ctx[sys::CTX_CB], ctx[sys::CTX_CB + 1], ctx[sys::CTX_CB + 2]];
    let unknown = || DatapathError::Load(format!("a program reports the unknown action {did}"));
    let did = match did {
        1 => Did::Drop,
        2 => Did::Pass,
        3 => Did::Deliver(IfIndex(target)),
        4 => Did::Reply,
        5 => Did::Direct(IfIndex(target)),
        6 => Did::Device,
        8 => Did::Replicate(target),
        7 => Did::Punt(abi::punt_reason(target, 0, 0).ok_or_else(unknown)?),
        _ => return Err(unknown()),
    };
    let reason = u16::try_from(reason).ok().and_then(Reason::from_code);
    Ok(DryRun { did, reason, frame })
}
