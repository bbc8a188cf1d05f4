//! Processes that outlive the one that started them, told apart by pid and start time so that a
//! pid the kernel gave to somebody else is never killed.

use crate::{clock, error::LabError, netns::NetNs};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::{fs::MetadataExt as _, process::CommandExt as _},
    },
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

pub use nix::sys::signal::Signal;

/// One process of one boot: a pid alone may come back as another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// The pid.
    pub pid: i32,
    /// Clock ticks from boot to its start (`/proc/PID/stat`, field 22).
    pub start: u64,
}

impl ProcessId {
    /// The calling process.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn own() -> Result<Self, LabError> {
        let pid = nix::unistd::getpid().as_raw();
        Self::of(pid).ok_or_else(|| LabError::Io {
            what: format!("read /proc/{pid}/stat"),
            source: io::ErrorKind::NotFound.into(),
        })
    }

    /// The process that has `pid` now, unless it has ended.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command name, in parentheses, may hold spaces and parentheses itself.
        let rest = &stat[stat.rfind(')')? + 1..];
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?;
        // The state is field 3, the number of threads field 20, the start time field 22. A first thread that has ended
        // before others is a zombie, too.
        let threads: u32 = fields.nth(16)?.parse().ok()?;
        if state == "X" || (state == "Z" && threads <= 1) {
            return None;
        }
        let start = fields.nth(1)?.parse().ok()?;
        Some(Self { pid, start })
    }

    /// Whether it still runs (a zombie has ended).
    #[must_use]
    pub fn alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends `signal`; gives whether there still was such a process.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn signal(self, signal: Signal) -> Result<bool, LabError> {
        let what = || format!("send {signal} to process {}", self.pid);
        // The descriptor holds the process fixed: the check that follows cannot be outdated.
        let Some(fd) = pidfd_open(self.pid).map_err(LabError::io(what()))? else { return Ok(false) };
        if !self.alive() {
            return Ok(false);
        }
        // SAFETY: pidfd_send_signal takes a descriptor we own, a signal number, no siginfo and no flags.
        let sent = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                fd.as_raw_fd(),
                signal as libc::c_int,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        match sent {
            0 => Ok(true),
            _ => match io::Error::last_os_error() {
                gone if gone.raw_os_error() == Some(libc::ESRCH) => Ok(false),
                error => Err(LabError::Io { what: what(), source: error }),
            },
        }
    }

    /// Waits until it has ended; gives whether it did.
    #[must_use]
    pub fn wait_gone(self, ceiling: Duration) -> bool {
        clock::until_true(ceiling, || !self.alive())
    }
}

fn pidfd_open(pid: i32) -> io::Result<Option<OwnedFd>> {
    // SAFETY: pidfd_open takes a pid and flags and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ESRCH) { Ok(None) } else { Err(error) };
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Starts `command` in `namespace` as a daemon: a session of its own, no standard input, its
/// output appended to `log`.
pub(crate) fn spawn_daemon(namespace: &NetNs, command: &mut Command, log: &Path) -> Result<Child, LabError> {
    let file =
        File::options().create(true).append(true).open(log).map_err(LabError::file("open the log", log))?;
    let errors = file.try_clone().map_err(LabError::file("open the log", log))?;
    command.stdin(Stdio::null()).stdout(file).stderr(errors);
    // SAFETY: setsid and pthread_sigmask are async-signal-safe, allocate nothing and touch no memory of
    // the parent.
    unsafe {
        command.pre_exec(|| {
            nix::unistd::setsid()?;
            // A maker that waits for signals has them blocked; a daemon must be able to be ended.
            nix::sys::signal::SigSet::empty().thread_set_mask()?;
            Ok(())
        });
    }
    namespace.spawn(command)
}

/// All processes whose first thread is in one of the namespaces with these inodes, but not the
/// caller and what it runs under.
pub(crate) fn inside(inodes: &[u64]) -> Vec<ProcessId> {
    let own = ancestry();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| !own.contains(pid))
        .filter(|pid| {
            std::fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|ns| inodes.contains(&ns.ino()))
        })
        .filter_map(ProcessId::of)
        .collect()
}

fn ancestry() -> Vec<i32> {
    let mut pids = vec![];
    let mut pid = nix::unistd::getpid().as_raw();
    while pid > 1 && !pids.contains(&pid) {
        pids.push(pid);
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { break };
        let after = stat.rfind(')').map_or("", |at| &stat[at + 1..]);
        let Some(parent) = after.split_ascii_whitespace().nth(1).and_then(|field| field.parse().ok()) else {
            break;
        };
        pid = parent;
    }
    pids
}

/// Asks all of `processes` to end, kills those that do not within `grace`, and waits for them.
pub(crate) fn end_all(processes: &[ProcessId], grace: Duration) -> Vec<LabError> {
    let mut errors = Vec::new();
    for (signal, patience) in [(Signal::SIGTERM, grace), (Signal::SIGKILL, clock::CEILING)] {
        let mut any = false;
        for process in processes {
            match process.signal(signal) {
                Ok(sent) => any |= sent,
                Err(error) => errors.push(error),
            }
        }
        if any && clock::until_true(patience, || !processes.iter().any(|process| process.alive())) {
            break;
        }
    }
    for process in processes.iter().filter(|process| process.alive()) {
        errors.push(LabError::Timeout {
            what: format!("the end of process {} after SIGKILL", process.pid),
            ceiling: clock::CEILING,
        });
    }
    errors
}

/// Waits for `child` without blocking for good; `None` when it still runs after `ceiling`.
pub(crate) fn reap(child: &mut Child, ceiling: Duration) -> Option<std::process::ExitStatus> {
    clock::until(ceiling, || child.try_wait()).ok().flatten()
}

/// The last line of a log that is not empty, for an error message.
pub(crate) fn last_line(log: &Path) -> String {
    let text =
        std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    text.lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .map_or_else(|| "it has written nothing".to_owned(), |line| line.trim().to_owned())
}

/// Locks `file` until it is closed, so that two commands do not change one lab at once.
pub(crate) fn lock(file: File) -> io::Result<File> {
    // SAFETY: flock takes a descriptor that `file` owns and keeps open.
    let done = unsafe { libc::flock(file.as_fd().as_raw_fd(), libc::LOCK_EX) };
    if done == 0 { Ok(file) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recycled_pid_is_another_process() {
        let own = ProcessId::own().unwrap();
        assert!(own.alive());
        let other = ProcessId { start: own.start + 1, ..own };
        assert!(!other.alive());
        assert!(
            !other.signal(Signal::SIGKILL).unwrap(),
            "a process with another start time is not signalled"
        );
    }

    #[test]
    fn an_ended_process_is_gone() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let id = ProcessId::of(child.id().try_into().unwrap()).unwrap();
        assert!(id.signal(Signal::SIGKILL).unwrap());
        assert!(id.wait_gone(clock::CEILING), "a zombie counts as ended");
        child.wait().unwrap();
        assert_eq!(ProcessId::of(id.pid), None);
    }
}
