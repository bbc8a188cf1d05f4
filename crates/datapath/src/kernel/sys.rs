//! The few system calls that neither the standard library nor aya offers: tcx links by ifindex,
//! test runs, mounts, packet sockets.

use crate::{DatapathError, IfIndex};
use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_LINK_DETACH: libc::c_long = 34;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_LINK_TYPE_TCX: u32 = 11;
const BPF_FS_MAGIC: libc::c_long = 0xcafe_4a11;

/// The errno of the last call as an error of ours.
pub(super) fn failed(doing: impl Into<String>) -> DatapathError {
    refused(doing, io::Error::last_os_error())
}

pub(super) fn refused(doing: impl Into<String>, source: io::Error) -> DatapathError {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => DatapathError::NotPermitted { doing: doing.into() },
        _ => DatapathError::System { doing: doing.into(), source },
    }
}

pub(super) fn c_path(path: &Path) -> Result<CString, DatapathError> {
    let nul = |_| DatapathError::PinName(path.to_owned());
    CString::new(path.as_os_str().as_bytes()).map_err(nul)
}

/// One bpf(2) call. `T` is the command's part of `union bpf_attr`; what is not given reads as zero.
fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<RawFd> {
    // SAFETY: the kernel reads, and for some commands writes, exactly size_of::<T>() octets at a
    // valid exclusive reference; pointers inside it are the callers' duty.
    let ret = unsafe { libc::syscall(libc::SYS_bpf, command, core::ptr::from_mut(attr), size_of::<T>()) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(RawFd::try_from(ret).unwrap_or(-1)) }
}

/// Takes a descriptor the kernel has just made.
fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: a fresh descriptor that nobody else holds.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    u32::try_from(fd.as_raw_fd()).unwrap_or(u32::MAX)
}

#[repr(C)]
#[derive(Default)]
struct Pin {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Pins an object. `EEXIST` if something is there.
pub(super) fn pin(fd: BorrowedFd<'_>, path: &Path) -> Result<(), DatapathError> {
    let text = c_path(path)?;
    let mut attr = Pin { path: text.as_ptr() as u64, fd: number(fd), flags: 0 };
    bpf(BPF_OBJ_PIN, &mut attr).map_err(|e| refused(format!("pin {}", path.display()), e))?;
    Ok(())
}

/// Opens a pin.
pub(super) fn open_pin(path: &Path) -> Result<OwnedFd, DatapathError> {
    let text = c_path(path)?;
    let mut attr = Pin { path: text.as_ptr() as u64, ..Pin::default() };
    bpf(BPF_OBJ_GET, &mut attr).map(own).map_err(|e| refused(format!("open {}", path.display()), e))
}

#[repr(C)]
#[derive(Default)]
struct Batch {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Where a walk over a map is.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Of a hash map a bucket, of another the last key.
    position: [u32; 16],
    begun: bool,
}

/// Reads the next entries of a map whose keys have 64 octets at most, or of any hash map; how many, and whether there are more behind. `keys` and `values` are of
/// the map's sizes times as many entries as may be read. `ENOSPC` when one bucket holds more than that.
pub(super) fn next_entries(
    map: BorrowedFd<'_>,
    walk: &mut Walk,
    keys: &mut [u8],
    values: &mut [u8],
    room: u32,
) -> io::Result<(u32, bool)> {
    let mut next = walk.position;
    let mut attr = Batch {
        from: if walk.begun { core::ptr::from_mut(&mut walk.position) as u64 } else { 0 },
        to: core::ptr::from_mut(&mut next) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: room,
        map: number(map),
        ..Batch::default()
    };
    let more = match bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) {
        Ok(_) => true,
        // The last of them.
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => false,
        Err(e) => return Err(e),
    };
    *walk = Walk { position: next, begun: true };
    Ok((attr.count, more))
}

#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    pad: u32,
    revision: u64,
}

/// Attaches a program to a device's tcx ingress, after those that are there. Blocks for an RCU
/// grace period, 8 to 24 ms; the program sees frames before this returns.
pub(super) fn attach(program: BorrowedFd<'_>, device: IfIndex) -> Result<OwnedFd, DatapathError> {
    let mut attr = LinkCreate {
        program: number(program),
        ifindex: device.0,
        attach_type: BPF_TCX_INGRESS,
        ..LinkCreate::default()
    };
    bpf(BPF_LINK_CREATE, &mut attr).map(own).map_err(|e| match e.raw_os_error() {
        Some(libc::ENODEV) => DatapathError::NoDevice(device),
        _ => refused(format!("attach to device {}", device.0), e),
    })
}

#[repr(C)]
struct LinkUpdate {
    link: u32,
    program: u32,
    flags: u32,
    old: u32,
}

/// Replaces a link's program between two frames.
pub(super) fn replace(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), DatapathError> {
    let mut attr = LinkUpdate { link: number(link), program: number(program), flags: 0, old: 0 };
    bpf(BPF_LINK_UPDATE, &mut attr).map_err(|e| refused("replace a program", e))?;
    Ok(())
}

/// Detaches a link now, and not when its last holder lets go.
pub(super) fn detach(link: BorrowedFd<'_>) -> Result<(), DatapathError> {
    let mut attr = number(link);
    bpf(BPF_LINK_DETACH, &mut attr).map_err(|e| refused("detach a program", e))?;
    Ok(())
}

#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    pad: u32,
    ifindex: u32,
    attach_type: u32,
}

#[repr(C)]
struct Info {
    fd: u32,
    len: u32,
    info: u64,
}

/// The device a tcx link is attached to; none when that is gone.
pub(super) fn attached_to(link: BorrowedFd<'_>) -> Result<Option<IfIndex>, DatapathError> {
    let mut info = LinkInfo::default();
    let len = u32::try_from(size_of::<LinkInfo>()).unwrap_or(0);
    let mut attr = Info { fd: number(link), len, info: core::ptr::from_mut(&mut info) as u64 };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr).map_err(|e| refused("query a link", e))?;
    Ok((info.kind == BPF_LINK_TYPE_TCX && info.ifindex != 0).then_some(IfIndex(info.ifindex)))
}

#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    ret: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch: u32,
    pad: u32,
}

/// `struct __sk_buff` as words.
pub(super) const CTX_WORDS: usize = 48;
/// The word of `mark`.
const CTX_MARK: usize = 2;
/// The word of `ifindex`.
pub(super) const CTX_IFINDEX: usize = 10;
/// The first word of `cb`.
pub(super) const CTX_CB: usize = 12;

/// Tells a program that it is run so: WEFT_DRY.
const DRY: u32 = 0x5745_5654;

/// Runs a program over a frame; what it returns is not carried out, nor if `dry` what it sends.
/// The frame and the context afterwards.
pub(super) fn test_run(
    program: BorrowedFd<'_>,
    device: IfIndex,
    frame: &[u8],
    dry: bool,
) -> Result<(Vec<u8>, [u32; CTX_WORDS]), DatapathError> {
    let mut ctx = [0_u32; CTX_WORDS];
    ctx[CTX_IFINDEX] = device.0;
    if dry {
        ctx[CTX_CB + 3] = DRY;
        ctx[CTX_CB + 4] = !DRY;
    }
    run(program, &ctx, frame)
}

/// Runs a program over a frame of a device, with something in `cb`.
pub(super) fn test_run_with(
    program: BorrowedFd<'_>,
    device: IfIndex,
    frame: &[u8],
    cb: [u32; 5],
) -> Result<(Vec<u8>, [u32; CTX_WORDS]), DatapathError> {
    let mut ctx = [0_u32; CTX_WORDS];
    ctx[CTX_IFINDEX] = device.0;
    ctx[CTX_CB..CTX_CB + 5].copy_from_slice(&cb);
    run(program, &ctx, frame)
}

/// Runs a program over a frame many times; the mean time of a run in ns. What one run makes of the frame the next one
/// sees.
pub(super) fn time_runs(
    program: BorrowedFd<'_>,
    device: IfIndex,
    frame: &[u8],
    repeat: u32,
) -> Result<u32, DatapathError> {
    let mut ctx = [0_u32; CTX_WORDS];
    (ctx[CTX_IFINDEX], ctx[CTX_CB + 3], ctx[CTX_CB + 4]) = (device.0, DRY, !DRY);
    run_often(program, &ctx, frame, repeat).map(|(_, _, duration)| duration)
}

/// Runs a program over a frame of a device, with a mark.
pub(super) fn come_in(
    program: BorrowedFd<'_>,
    device: IfIndex,
    frame: &[u8],
    mark: u32,
) -> Result<(), DatapathError> {
    let mut ctx = [0_u32; CTX_WORDS];
    (ctx[CTX_IFINDEX], ctx[CTX_MARK]) = (device.0, mark);
    run(program, &ctx, frame).map(drop)
}

fn run(
    program: BorrowedFd<'_>,
    ctx: &[u32; CTX_WORDS],
    frame: &[u8],
) -> Result<(Vec<u8>, [u32; CTX_WORDS]), DatapathError> {
    run_often(program, ctx, frame, 1).map(|(out, after, _)| (out, after))
}

fn run_often(
    program: BorrowedFd<'_>,
    ctx: &[u32; CTX_WORDS],
    frame: &[u8],
    repeat: u32,
) -> Result<(Vec<u8>, [u32; CTX_WORDS], u32), DatapathError> {
    let mut after = [0_u32; CTX_WORDS];
    let mut out = vec![0; frame.len() + 256];
    let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let mut attr = TestRun {
        program: number(program),
        size_in: size(frame.len()),
        size_out: size(out.len()),
        data_in: frame.as_ptr() as u64,
        data_out: out.as_mut_ptr() as u64,
        repeat,
        ctx_size_in: size(size_of_val(ctx)),
        ctx_size_out: size(size_of_val(&after)),
        ctx_in: ctx.as_ptr() as u64,
        ctx_out: after.as_mut_ptr() as u64,
        ..TestRun::default()
    };
    bpf(BPF_PROG_TEST_RUN, &mut attr).map_err(|e| refused("test-run a program", e))?;
    out.truncate(usize::try_from(attr.size_out).unwrap_or(0));
    Ok((out, after, attr.duration))
}

/// Whether a path is on a BPF file system.
pub(super) fn is_bpffs(path: &Path) -> Result<bool, DatapathError> {
    let text = c_path(path)?;
    // SAFETY: all zero is a legal statfs.
    let mut stat: libc::statfs = unsafe { core::mem::zeroed() };
    // SAFETY: a C string and an exclusive reference, both alive during the call.
    if unsafe { libc::statfs(text.as_ptr(), &raw mut stat) } != 0 {
        return Err(failed(format!("look at {}", path.display())));
    }
    Ok(stat.f_type == BPF_FS_MAGIC)
}

/// Mounts a BPF file system.
pub(super) fn mount_bpffs(path: &Path) -> Result<(), DatapathError> {
    let text = c_path(path)?;
    // SAFETY: C strings alive during the call; no data.
    let ret = unsafe {
        libc::mount(c"bpf".as_ptr(), text.as_ptr(), c"bpf".as_ptr(), libc::MS_NOSUID, core::ptr::null())
    };
    if ret == 0 {
        return Ok(());
    }
    let source = io::Error::last_os_error();
    match source.raw_os_error() {
        Some(libc::EPERM) => Err(DatapathError::NotPermitted { doing: "mount a BPF file system".into() }),
        _ => Err(DatapathError::NoBpffs { path: path.to_owned(), source }),
    }
}

/// Takes an exclusive lock that ends with the process. False if somebody has it.
pub(super) fn lock(fd: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: a plain call on a descriptor that is open.
    if unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::EWOULDBLOCK) { Ok(false) } else { Err(error) }
}

/// Whatever the policy is, it stays.
const SCHED_FLAG_KEEP_POLICY: u64 = 8;

#[repr(C)]
#[derive(Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Has this thread, and those that it starts, run for at most `slice` at a time, and soon after it is woken in return
/// (EEVDF). Its share of a processor stays what it was. Kernels before 6.12 take no notice.
pub(super) fn set_slice(slice: core::time::Duration) -> io::Result<()> {
    // SAFETY: no arguments; it cannot fail for the calling thread.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    let attr = SchedAttr {
        size: 48,
        flags: SCHED_FLAG_KEEP_POLICY,
        nice,
        runtime: u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX),
        ..SchedAttr::default()
    };
    // SAFETY: a live structure of the size that it says, laid out as sched_setattr(2) has it; the calling thread.
    let ret = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, core::ptr::from_ref(&attr), 0) };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Version of the running kernel.
pub(super) fn release() -> String {
    // SAFETY: all zero is a legal utsname.
    let mut name: libc::utsname = unsafe { core::mem::zeroed() };
    // SAFETY: an exclusive reference, alive during the call.
    unsafe { libc::uname(&raw mut name) };
    name.release.iter().take_while(|c| **c != 0).map(|c| char::from(c.cast_unsigned())).collect()
}

/// CLOCK_MONOTONIC in ns, as bpf_ktime_get_coarse_ns reads it.
pub(super) fn monotonic() -> u64 {
    clock(libc::CLOCK_MONOTONIC_COARSE)
}

/// CLOCK_MONOTONIC in ns, as bpf_ktime_get_ns reads it.
pub(super) fn monotonic_exact() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}

fn clock(which: libc::clockid_t) -> u64 {
    let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: an exclusive reference, alive during the call; both clocks exist since Linux 2.6.32.
    unsafe { libc::clock_gettime(which, &raw mut at) };
    u64::try_from(at.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(at.tv_nsec).unwrap_or(0)
}

/// Whether there is a device of this index: one quick call on the way of every attach.
pub(super) fn device_exists(device: IfIndex) -> bool {
    let mut name = [0; libc::IF_NAMESIZE];
    // SAFETY: a live exclusive buffer of the size that the call is documented to fill at most.
    unsafe { !libc::if_indextoname(device.0, name.as_mut_ptr()).is_null() }
}

/// A socket of the calling thread's network namespace.
pub(super) fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: a plain call.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(own(fd)) }
}

/// Sends a frame out of a device by a packet socket.
pub(super) fn send_frame(socket: BorrowedFd<'_>, device: IfIndex, frame: &[u8]) -> io::Result<()> {
    // SAFETY: all zero is a legal sockaddr_ll.
    let mut to: libc::sockaddr_ll = unsafe { core::mem::zeroed() };
    to.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or(0);
    to.sll_ifindex = i32::try_from(device.0).unwrap_or(-1);
    to.sll_protocol = u16::from_be_bytes([frame[12], frame[13]]).to_be();
    let len = libc::socklen_t::try_from(size_of_val(&to)).unwrap_or(0);
    // SAFETY: pointer and length of a live slice, and of a live address of the family it names.
    let sent = unsafe {
        libc::sendto(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, (&raw const to).cast(), len)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends one message.
pub(super) fn send(socket: BorrowedFd<'_>, message: &[u8]) -> io::Result<()> {
    // SAFETY: pointer and length of a live slice.
    let sent = unsafe { libc::send(socket.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Receives one message.
pub(super) fn receive(socket: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length of a live exclusive slice.
    let got = unsafe { libc::recv(socket.as_raw_fd(), into.as_mut_ptr().cast(), into.len(), 0) };
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}

/// Waits until a descriptor is readable; false after `millis`.
pub(super) fn readable(fd: BorrowedFd<'_>, millis: i32) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one live pollfd.
    match unsafe { libc::poll(&raw mut poll, 1, millis) } {
        n if n < 0 => Err(io::Error::last_os_error()),
        n => Ok(n > 0),
    }
}
