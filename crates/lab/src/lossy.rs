//! A wire that loses, repeats and reorders: between one node and the fabric, in user space, because not every
//! kernel has a queueing discipline that does.
//!
//! ```text
//!   [br0] lossy0 -- this process -- lossy1 [lossy] NODE -- veth -- eth0 of NODE
//! ```
//!
//! Frames are drawn from a seed, for each direction. How threads are scheduled is not: two runs with one seed treat
//! the n-th frame alike, but it may be another one.

use crate::{
    Lab,
    error::LabError,
    links::{BridgePort, Links},
    tap::{self, Tap},
    underlay::BRIDGE,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::AsFd as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

/// The bridge that the node is a port of instead.
const APART: &str = "lossy";
/// The devices that this process carries frames between.
const ENDS: [&str; 2] = ["lossy0", "lossy1"];
/// Room for a GSO frame of 64 KiB with its Ethernet and virtio headers.
const BUFFER: usize = 65_536 + 256;
/// The longest that a frame is held back so that others overtake it, while others come.
const HELD: usize = 3;

/// What becomes of frames, of a thousand each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Treatment {
    /// Lost.
    pub loss: u16,
    /// Carried twice.
    pub duplicate: u16,
    /// Held back until others have overtaken it, or for 20 ms.
    pub reorder: u16,
}

impl Treatment {
    /// Nothing happens to any frame.
    pub const NONE: Self = Self { loss: 0, duplicate: 0, reorder: 0 };
    /// Every frame is lost.
    pub const CUT: Self = Self { loss: 1000, duplicate: 0, reorder: 0 };
}

/// What became of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Treated {
    /// Carried as they were, or held back.
    pub carried: u64,
    /// Lost.
    pub lost: u64,
    /// Carried twice.
    pub duplicated: u64,
    /// Held back.
    pub reordered: u64,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    treatment: Mutex<Treatment>,
    carried: AtomicU64,
    lost: AtomicU64,
    duplicated: AtomicU64,
    reordered: AtomicU64,
}

/// A lossy wire. It carries frames until this is dropped, and none after that.
#[derive(Debug)]
pub struct Lossy {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Lossy {
    /// Puts one between `node` and the fabric of `lab`, where at first nothing is lost. A lab has room for one.
    ///
    /// # Errors
    /// When the lab has no fabric or another one already, or the kernel refuses.
    pub fn insert(lab: &Lab, node: &str, seed: u64) -> Result<Self, LabError> {
        let fabric = lab.node("fabric")?;
        let links = Links::open(&fabric)?;
        for end in ENDS {
            tap::create(&fabric, end)?;
        }
        let [near, far] = [tap::open(&fabric, ENDS[0])?, tap::open(&fabric, ENDS[1])?].map(Tap::into_file);
        let shared = Arc::new(Shared::default());
        let copied = |file: &File| file.try_clone().map_err(LabError::io("open a TAP again"));
        let ways = [(copied(&near)?, copied(&far)?, seed), (far, near, !seed)];
        let threads = ways.into_iter().map(|(from, to, seed)| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || carry(&from, &to, seed, &shared))
        });
        let wire = Self { threads: threads.collect(), shared };
        links.add_bridge(APART)?;
        for (port, bridge) in [(ENDS[0], BRIDGE), (ENDS[1], APART), (node, APART)] {
            links.set_bridge(port, bridge, BridgePort::default())?;
            links.up(port)?;
            links.wait_running(port)?;
        }
        // What the bridge has learned of the node's place is no longer so.
        links.flush_port(ENDS[0])?;
        Ok(wire)
    }

    /// What becomes of frames from now on.
    pub fn set(&self, treatment: Treatment) {
        *self.shared.treatment.lock().unwrap_or_else(PoisonError::into_inner) = treatment;
    }

    /// What became of frames so far.
    #[must_use]
    pub fn treated(&self) -> Treated {
        let of = |count: &AtomicU64| count.load(Ordering::Acquire);
        let Shared { carried, lost, duplicated, reordered, .. } = &*self.shared;
        Treated { carried: of(carried), lost: of(lost), duplicated: of(duplicated), reordered: of(reordered) }
    }
}

impl Drop for Lossy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Numbers from a seed (xorshift64*).
struct Chance(u64);

impl Chance {
    /// True `per_mille` times in a thousand.
    fn happens(&mut self, per_mille: u16) -> bool {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % 1000 < u64::from(per_mille)
    }
}

/// Carries frames one way. Ends when told so or when a device is gone: then there is nothing to carry.
fn carry(mut from: &File, mut to: &File, seed: u64, shared: &Shared) {
    let mut chance = Chance(seed | 1);
    let mut frame = vec![0; BUFFER];
    let mut held: Option<(Vec<u8>, usize)> = None;
    let count = |count: &AtomicU64| count.fetch_add(1, Ordering::AcqRel);
    while !shared.stop.load(Ordering::Acquire) {
        let patience = if held.is_some() { 20_u16 } else { 100 };
        let mut ready = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
        let came = poll(&mut ready, PollTimeout::from(patience)).is_ok_and(|count| count > 0);
        if came {
            let length = match from.read(&mut frame) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            let treatment = *shared.treatment.lock().unwrap_or_else(PoisonError::into_inner);
            if chance.happens(treatment.loss) {
                count(&shared.lost);
                continue;
            }
            count(&shared.carried);
            if held.is_none() && chance.happens(treatment.reorder) {
                count(&shared.reordered);
                held = Some((frame[..length].to_vec(), HELD));
                continue;
            }
            // What a device refuses, a wire loses.
            let _ = to.write(&frame[..length]);
            if chance.happens(treatment.duplicate) {
                count(&shared.duplicated);
                let _ = to.write(&frame[..length]);
            }
        }
        held = match held {
            Some((frame, left)) if came && left > 1 => Some((frame, left - 1)),
            Some((frame, _)) => {
                let _ = to.write(&frame);
                None
            }
            None => None,
        };
    }
}
