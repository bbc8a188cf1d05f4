//! TAP tenants: a tenant system that looks to its NVE like a virtual machine, without one.
//!
//! A hypervisor opens a TAP in the host and carries frames between it and the guest's virtual
//! network card. Here a small process, `weft lab tap-relay`, opens the host's TAP the same way and
//! carries frames between it and a second TAP, `eth0`, in the tenant's namespace. Every frame is
//! read and written once in user space, as with a virtual machine whose card is not offloaded to
//! the kernel; so throughput through it says how the TAP path behaves, not how fast a guest would
//! be. Frames carry `struct virtio_net_hdr`, so segmentation and checksum offload pass through.

use crate::{error::LabError, netns::NetNs};
use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::AsRawFd as _,
};

/// Room for a GSO frame of 64 KiB with its Ethernet and virtio headers.
const BUFFER: usize = 65_536 + 256;

/// A TAP that is open: the device has carrier while this lives.
#[derive(Debug)]
pub struct Tap(File);

impl Tap {
    /// The open file: each frame behind a `struct virtio_net_hdr` of 10 octets.
    #[must_use]
    pub fn into_file(self) -> File {
        self.0
    }
}

/// Makes the TAP `name` in `namespace` so that it stays when nobody has it open.
///
/// # Errors
/// When the name is taken by another kind of device, or the kernel has no TAP.
pub fn create(namespace: &NetNs, name: &str) -> Result<(), LabError> {
    let tap = open(namespace, name)?;
    ioctl_value(&tap.0, libc::TUNSETPERSIST, 1).map_err(LabError::io(format!("keep TAP {name}")))
}

/// Opens the TAP `name` in `namespace`, with virtio headers and every offload Linux knows.
///
/// # Errors
/// When somebody else has it open or the kernel refuses.
pub fn open(namespace: &NetNs, name: &str) -> Result<Tap, LabError> {
    let what = format!("open TAP {name} in namespace {}", namespace.name());
    namespace.run(|| open_here(name))?.map(Tap).map_err(LabError::io(what))
}

fn open_here(name: &str) -> io::Result<File> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: ifreq is a C structure of integers and byte arrays, for which all zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::other(format!("'{name}' is too long for a device name")));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).map_err(io::Error::other)?;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which lives on this stack frame.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    let offloads = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    ioctl_value(&file, libc::TUNSETOFFLOAD, offloads.into())?;
    Ok(file)
}

fn ioctl_value(file: &File, request: libc::Ioctl, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the requests used here take their argument by value; no memory is touched.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), request, value) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Carries frames between two TAPs until one of them is removed.
///
/// # Errors
/// When reading or writing fails for another reason than a device being down.
pub fn relay(host: &Tap, tenant: &Tap) -> io::Result<()> {
    std::thread::scope(|scope| {
        let back = scope.spawn(|| carry(&tenant.0, &host.0));
        let forth = carry(&host.0, &tenant.0);
        let back = back.join().unwrap_or_else(|_| Err(io::Error::other("a relay thread ended early")));
        forth.and(back)
    })
}

fn carry(mut from: &File, mut to: &File) -> io::Result<()> {
    let mut frame = vec![0; BUFFER];
    loop {
        let length = match from.read(&mut frame) {
            Ok(length) => length,
            Err(error) if removed(&error) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        match to.write(&frame[..length]) {
            Ok(_) => {}
            Err(error) if removed(&error) => return Ok(()),
            // The device is down, or the kernel refuses this one frame: a card would drop it too.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::ENOBUFS)) => {}
            Err(error) => return Err(error),
        }
    }
}

fn removed(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBADFD | libc::ENODEV))
}
