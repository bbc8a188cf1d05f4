//! Captures: every frame that crosses the underlay, counted by what it is and kept in a pcap file.
//!
//! On the fabric's bridge each forwarded frame is seen exactly once. A frame with segmentation
//! offload is one frame there, as it is for the kernel.

mod discovery;
mod filter;
mod frame;
mod pcap;

pub use discovery::Discovery;
pub use filter::Filter;
pub use frame::{Class, Frame, Kind, classify, kind};

use crate::{Lab, error::LabError, netns::NetNs, underlay::BRIDGE};
use pcap::{Pcap, SNAP};
use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

/// A capture that runs until it is stopped or dropped.
#[derive(Debug)]
pub struct Capture {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<io::Result<()>>>,
    file: PathBuf,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    seen: Mutex<Vec<Frame>>,
}

/// Frames counted by what they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// How many frames of each class.
    pub by_class: BTreeMap<Class, usize>,
}

impl Counts {
    /// Counts `frames`.
    #[must_use]
    pub fn of<'a>(frames: impl IntoIterator<Item = &'a Frame>) -> Self {
        let mut by_class = BTreeMap::new();
        for frame in frames {
            *by_class.entry(frame.class).or_default() += 1;
        }
        Self { by_class }
    }

    /// How many frames are of a class that `which` accepts.
    #[must_use]
    pub fn sum(&self, which: impl Fn(&Class) -> bool) -> usize {
        self.by_class.iter().filter(|(class, _)| which(class)).map(|(_, count)| count).sum()
    }

    /// ARP, NS, NA, RS and RA frames with a group destination MAC inside VXLAN: what "nothing is
    /// flooded" forbids.
    #[must_use]
    pub fn flooded(&self) -> usize {
        self.sum(|class| matches!(class, Class::Vxlan { group: true, inner, .. } if inner.is_discovery()))
    }

    /// ARP, NS and NA frames to one tenant system inside VXLAN: neighbour unreachability
    /// detection, which rightly crosses.
    #[must_use]
    pub fn unicast_discovery(&self) -> usize {
        self.sum(|class| matches!(class, Class::Vxlan { group: false, inner, .. } if inner.is_discovery()))
    }

    /// All VXLAN frames.
    #[must_use]
    pub fn vxlan(&self) -> usize {
        self.sum(|class| matches!(class, Class::Vxlan { .. }))
    }

    /// LISP datagrams.
    #[must_use]
    pub fn lisp(&self) -> usize {
        self.sum(|class| matches!(class, Class::LispUdp))
    }
}

/// What a capture saw.
#[derive(Clone, Debug)]
pub struct Captured {
    /// Every frame, in the order it passed.
    pub frames: Vec<Frame>,
    /// The pcap file, with the first 512 octets of each frame.
    pub file: PathBuf,
}

impl Captured {
    /// The counts.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts::of(&self.frames)
    }

    /// VXLAN frames between two tenant addresses, either way.
    #[must_use]
    pub fn between(&self, one: IpAddr, other: IpAddr) -> usize {
        self.frames
            .iter()
            .filter_map(|frame| frame.inner_ips)
            .filter(|ips| *ips == (one, other) || *ips == (other, one))
            .count()
    }
}

impl Capture {
    /// Captures everything that crosses `lab`'s underlay.
    ///
    /// # Errors
    /// When the lab has no fabric (wiring: direct) or the kernel refuses.
    pub fn underlay(lab: &Lab, name: &str) -> Result<Self, LabError> {
        let file = lab.files().run.join(format!("{name}.pcap"));
        Self::start(&lab.node("fabric")?, BRIDGE, &file)
    }

    /// As [`Capture::underlay`], of some frames only.
    ///
    /// # Errors
    /// As there.
    pub fn underlay_of(lab: &Lab, name: &str, filter: Filter) -> Result<Self, LabError> {
        let file = lab.files().run.join(format!("{name}.pcap"));
        Self::start_of(&lab.node("fabric")?, BRIDGE, &file, filter)
    }

    /// Captures `device` in `namespace` into `file`, both directions.
    ///
    /// # Errors
    /// When there is no such device or the kernel refuses.
    pub fn start(namespace: &NetNs, device: &str, file: &Path) -> Result<Self, LabError> {
        Self::start_of(namespace, device, file, Filter::Everything)
    }

    fn start_of(namespace: &NetNs, device: &str, file: &Path, filter: Filter) -> Result<Self, LabError> {
        let what = format!("capture on {device} in {}", namespace.name());
        let socket = namespace.run(|| open(device, filter))?.map_err(LabError::io(what))?;
        let mut pcap = Pcap::create(file).map_err(LabError::file("make the capture", file))?;
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let reader = std::thread::spawn(move || {
            read_all(&socket, &theirs, &mut pcap)?;
            let lost = lost(&socket)?;
            pcap.finish()?;
            if lost > 0 {
                return Err(io::Error::other(format!(
                    "the kernel dropped {lost} frames before they were read"
                )));
            }
            Ok(())
        });
        Ok(Self { shared, reader: Some(reader), file: file.to_owned() })
    }

    /// What was seen so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts::of(self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).iter())
    }

    /// The frames seen so far that `which` accepts.
    #[must_use]
    pub fn count(&self, which: impl Fn(&Frame) -> bool) -> usize {
        let seen = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().filter(|frame| which(frame)).count()
    }

    /// The last of the frames seen so far that `which` accepts.
    #[must_use]
    pub fn last(&self, which: impl Fn(&Frame) -> bool) -> Option<Frame> {
        let seen = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().rev().find(|frame| which(frame)).copied()
    }

    /// Stops and gives everything that was seen: all that was sent before this call is in it.
    ///
    /// # Errors
    /// When frames were lost, so that a count of zero would prove nothing.
    pub fn stop(mut self) -> Result<Captured, LabError> {
        self.shared.stop.store(true, Ordering::Release);
        let what = || LabError::io(format!("capture into {}", self.file.display()));
        if let Some(reader) = self.reader.take() {
            reader
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the reader ended early")))
                .map_err(what())?;
        }
        let frames = std::mem::take(&mut *self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Captured { frames, file: self.file.clone() })
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
    }
}

/// A packet socket that sees every frame of `device` and wakes its reader every 20 ms.
fn open(device: &str, filter: Filter) -> io::Result<OwnedFd> {
    let index = nix::net::if_::if_nametoindex(device)?;
    let every = u16::try_from(libc::ETH_P_ALL).map_err(io::Error::other)?.to_be();
    // SAFETY: socket takes three integers. No protocol yet: nothing is received before bind.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let size: libc::c_int = 64 << 20;
    set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &size)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &libc::timeval { tv_sec: 0, tv_usec: 20_000 })?;
    let on: libc::c_int = 1;
    set(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &on)?;
    if filter == Filter::Control {
        let mut program = filter::CONTROL;
        let len = u16::try_from(program.len()).map_err(io::Error::other)?;
        // The kernel copies the program, which lives until then.
        let program = libc::sock_fprog { len, filter: program.as_mut_ptr() };
        set(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
    }
    let promiscuous = libc::packet_mreq {
        mr_ifindex: libc::c_int::try_from(index).map_err(io::Error::other)?,
        mr_type: u16::try_from(libc::PACKET_MR_PROMISC).map_err(io::Error::other)?,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set(&socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &promiscuous)?;
    // SAFETY: sockaddr_ll is a C structure of integers, for which all zero is valid.
    let mut addr: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    addr.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    addr.sll_protocol = every;
    addr.sll_ifindex = promiscuous.mr_ifindex;
    let length = libc::socklen_t::try_from(size_of_val(&addr)).map_err(io::Error::other)?;
    // SAFETY: bind reads `length` octets of a sockaddr_ll that lives on this stack frame.
    let done = unsafe { libc::bind(socket.as_raw_fd(), (&raw const addr).cast(), length) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}

fn set<T>(socket: &OwnedFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: setsockopt reads `length` octets of `value`, which is exactly that long.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), length)
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn read_all(socket: &OwnedFd, shared: &Shared, pcap: &mut Pcap) -> io::Result<()> {
    let mut bytes = [0u8; SNAP];
    loop {
        // Read before receiving: then everything sent before the stop is found in the queue.
        let stopping = shared.stop.load(Ordering::Acquire);
        match receive(socket, &mut bytes, stopping) {
            Ok((length, stamp)) => {
                let kept = &bytes[..length.min(SNAP)];
                pcap.write(stamp, kept, length)?;
                shared
                    .seen
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(Frame { len: length, ..classify(kept) });
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if stopping {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The next frame's first octets, its whole length, and when the kernel saw it.
fn receive(socket: &OwnedFd, bytes: &mut [u8], only_waiting: bool) -> io::Result<(usize, libc::timespec)> {
    let mut control = [0u64; 16];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: msghdr is a C structure of pointers and integers, for which all zero is valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    let flags = libc::MSG_TRUNC | if only_waiting { libc::MSG_DONTWAIT } else { 0 };
    // SAFETY: the message points to one buffer and one control buffer that outlive the call, each
    // with its own length.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let Ok(length) = usize::try_from(length) else { return Err(io::Error::last_os_error()) };
    let mut stamp = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel filled msg_control with msg_controllen octets of control messages; the
    // first header is checked for being there and of the kind that carries a timespec.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if !header.is_null() && (*header).cmsg_type == libc::SCM_TIMESTAMPNS {
            stamp = libc::CMSG_DATA(header).cast::<libc::timespec>().read_unaligned();
        }
    }
    Ok((length, stamp))
}

/// How many frames the kernel could not queue.
fn lost(socket: &OwnedFd) -> io::Result<u32> {
    let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut length = libc::socklen_t::try_from(size_of_val(&stats)).map_err(io::Error::other)?;
    // SAFETY: getsockopt writes at most `length` octets into `stats`, which is exactly that long.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut stats).cast(),
            &raw mut length,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(stats.tp_drops) }
}
