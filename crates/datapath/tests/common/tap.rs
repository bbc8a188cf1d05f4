//! A virtual machine without the machine: a TAP at the NVE and a TAP in the tenant's namespace, their
//! frames carried over with the virtio header, so that segmentation offload works as under QEMU.

use super::Ns;
use std::{
    fs::{File, OpenOptions},
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

const IFF_TAP: i16 = 0x0002;
const IFF_NO_PI: i16 = 0x1000;
const IFF_VNET_HDR: i16 = 0x4000;
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
/// Checksum, TSO over IPv4 and IPv6.
const OFFLOADS: libc::c_ulong = 1 | 2 | 4;

fn open(ns: &Ns, name: &str, offloads: libc::c_ulong) -> File {
    ns.run(|| {
        let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun").unwrap();
        // SAFETY: all zero is a legal ifreq.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
        // SAFETY: the requests take a pointer to an ifreq, and a number.
        let made = unsafe {
            libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) == 0
                && libc::ioctl(file.as_raw_fd(), TUNSETOFFLOAD, offloads) == 0
        };
        assert!(made, "TAP {name}: {}", std::io::Error::last_os_error());
        file
    })
}

/// A guest of which every octet is the test's.
pub struct Guest(File);

/// Octets of the virtio header.
const VNET: usize = 10;

impl Guest {
    /// The guest behind a new TAP; with `offload` it takes frames whose checksum is still to be made.
    pub fn new(host: &Ns, name: &str, offload: bool) -> Self {
        Self(open(host, name, if offload { OFFLOADS } else { 0 }))
    }

    /// Sends a frame whose checksum the host is to make from `start` on, at `offset` from there.
    pub fn send_unsummed(&mut self, frame: &[u8], start: u16, offset: u16) {
        use std::io::Write as _;
        let words = [0, 0, start, offset].map(u16::to_ne_bytes).concat();
        let sent = self.0.write(&[&[1, 0][..], &words, frame].concat()).unwrap();
        assert_eq!(sent, VNET + frame.len());
    }

    /// The next frame that is `wanted`, its checksum made if that was left to the guest.
    pub fn receive(&mut self, what: &str, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        use std::io::Read as _;
        super::wait_for(what, || {
            let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one live pollfd.
            if unsafe { libc::poll(&raw mut poll, 1, 0) } <= 0 {
                return None;
            }
            let mut frame = vec![0; 70_000];
            let n = self.0.read(&mut frame).unwrap();
            let (header, frame) = (frame[..VNET].to_vec(), &mut frame[VNET..n]);
            if header[0] & 1 != 0 {
                let word = |at: usize| usize::from(u16::from_ne_bytes([header[at], header[at + 1]]));
                let (start, field) = (word(6), word(6) + word(8));
                let made = match super::frames::sum(&[&frame[start..]]) {
                    0 => 0xffff,
                    made => made,
                };
                frame[field..field + 2].copy_from_slice(&made.to_be_bytes());
            }
            wanted(frame).then(|| frame.to_vec())
        })
    }
}

/// Two TAPs and the threads between them; ends on drop.
pub struct Relay {
    stop: Arc<AtomicBool>,
    /// Octets of the largest frame handed to the guest.
    pub largest: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Relay {
    pub fn new(host: &Ns, host_name: &str, guest: &Ns, guest_name: &str) -> Self {
        let (a, b) = (open(host, host_name, OFFLOADS), open(guest, guest_name, OFFLOADS));
        let stop = Arc::new(AtomicBool::new(false));
        let largest = Arc::new(AtomicU64::new(0));
        let (a2, b2) = (a.try_clone().unwrap(), b.try_clone().unwrap());
        let to_guest = carry(a, b2, Arc::clone(&stop), Arc::clone(&largest));
        let to_host = carry(b, a2, Arc::clone(&stop), Arc::default());
        Self { stop, largest, threads: vec![to_guest, to_host] }
    }
}

fn carry(from: File, to: File, stop: Arc<AtomicBool>, largest: Arc<AtomicU64>) -> JoinHandle<()> {
    use std::io::{Read as _, Write as _};
    std::thread::spawn(move || {
        let (mut from, mut to) = (from, to);
        let mut frame = vec![0; 70_000];
        while !stop.load(Ordering::Relaxed) {
            let mut poll = libc::pollfd { fd: from.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one live pollfd.
            if unsafe { libc::poll(&raw mut poll, 1, 50) } <= 0 {
                continue;
            }
            // Reading fails while the device is down.
            let Ok(n) = from.read(&mut frame) else { continue };
            largest.fetch_max(n as u64, Ordering::Relaxed);
            let _down_is_fine = to.write(&frame[..n]);
        }
    })
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ended = thread.join();
        }
    }
}
