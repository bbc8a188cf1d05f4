//! Whether from_vap runs at a device that it is being attached to. The kernel says so 8 to 24 ms later, when
//! nobody can be running what was there before; the program itself answers at once (knock.h).

use super::{Attachment, Kernel, abi::VnMac, pins::Role, sys};
use crate::{DatapathError, IfIndex};
use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// WEFT_KNOCK, and how its answers are marked in `asked`.
const MARK: u32 = 0x5746_0000;
const ASKED: [u8; 2] = 4_u16.to_ne_bytes();
/// No protocol's (IEEE 802, local experimental ethertype 1), from and to nobody: where no program runs the
/// host has no use for it.
const FRAME: [u8; 60] = {
    let mut frame = [0; 60];
    frame[0] = 0x02;
    frame[6] = 0x02;
    (frame[12], frame[13]) = (0x88, 0xb5);
    frame
};

/// When a device was knocked at.
#[derive(Clone, Copy)]
enum When {
    /// Before the program is attached: who answers is one that was let go of and is still there.
    Before = 0,
    /// While it is.
    During = 1,
}

/// How far an [`Attachment`] is, for [`Kernel::runs`].
#[derive(Clone, Debug)]
pub struct Progress {
    device: IfIndex,
    /// What was answered earlier is not about this one.
    since: u64,
    begun: Arc<AtomicBool>,
}

impl Progress {
    fn of(device: IfIndex) -> Self {
        Self { device, since: sys::monotonic_exact(), begun: Arc::default() }
    }

    /// The attachment begins.
    pub(super) fn begin(&self, knock: &OwnedFd) {
        self.knock(knock, When::Before);
        self.begun.store(true, Ordering::Release);
    }

    /// Has a frame come in at the device. One that cannot tells nothing.
    fn knock(&self, program: &OwnedFd, when: When) {
        let _unheard = sys::come_in(program.as_fd(), self.device, &FRAME, MARK | when as u32);
    }

    fn answered(&self, kernel: &Kernel, when: When) -> Result<bool, DatapathError> {
        let mut mac = [0; 6];
        mac[..4].copy_from_slice(&(when as u32).to_ne_bytes());
        let key = VnMac { vni: self.device.0, mac, pad: ASKED };
        Ok(kernel.maps.asked.get(&key)?.is_some_and(|at| at >= self.since))
    }
}

impl Kernel {
    /// What attaches the program to a tenant system's device; none if it is attached already. Until the device's
    /// VAP is set the program drops every frame.
    ///
    /// # Errors
    /// [`DatapathError::NoDevice`], or what the kernel says.
    pub fn attachment(&self, device: IfIndex) -> Result<Option<Attachment>, DatapathError> {
        if self.pins.is_attached(Role::Vap, device)? {
            return Ok(None);
        }
        if !sys::device_exists(device) {
            return Err(DatapathError::NoDevice(device));
        }
        let progress = Some((Progress::of(device), Arc::clone(&self.knock)));
        Ok(Some(Attachment { progress, ..self.attachment_of(Role::Vap, device) }))
    }

    /// Whether the program runs at a device to which a thread is attaching it. No is no more than a guess: a
    /// device that is down, or one that the program was taken from a moment ago, does not tell.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn runs(&self, progress: &Progress) -> Result<bool, DatapathError> {
        if !progress.begun.load(Ordering::Acquire) || progress.answered(self, When::Before)? {
            return Ok(false);
        }
        progress.knock(&self.knock, When::During);
        progress.answered(self, When::During)
    }
}
