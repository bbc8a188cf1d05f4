//! Named network namespaces under `/run/netns`, as `ip netns` shows them.
//!
//! A network namespace belongs to a thread, so everything that has to happen inside one runs on a
//! fresh thread that enters it and ends there. Only the network namespace is entered: `/sys`, and
//! with it `/sys/fs/bpf`, stays the machine's.

use crate::error::LabError;
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};
use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd as _, RawFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::Arc,
};

/// Where named namespaces are bound.
pub const NETNS_DIR: &str = "/run/netns";

/// A named network namespace that exists.
#[derive(Clone, Debug)]
pub struct NetNs {
    name: String,
    file: Arc<File>,
}

impl NetNs {
    /// Makes a namespace, with its loopback up, and binds it to `name`.
    ///
    /// # Errors
    /// When `name` exists or the kernel refuses.
    pub fn create(name: &str) -> Result<Self, LabError> {
        let fail = |what| {
            let name = name.to_owned();
            move |source: io::Error| LabError::Namespace { name, what, source }
        };
        prepare_dir().map_err(fail("prepare the directory of names"))?;
        let path = path_of(name);
        File::options().write(true).create_new(true).open(&path).map_err(fail("make its name"))?;
        let made = std::thread::scope(|scope| {
            scope
                .spawn(|| -> io::Result<()> {
                    unshare(CloneFlags::CLONE_NEWNET)?;
                    mount(
                        Some("/proc/thread-self/ns/net"),
                        &path,
                        None::<&str>,
                        MsFlags::MS_BIND,
                        None::<&str>,
                    )?;
                    Ok(())
                })
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the thread ended early")))
        });
        if let Err(error) = made {
            std::fs::remove_file(&path).map_err(fail("take back its name"))?;
            return Err(fail("make it")(error));
        }
        Self::open(name)
    }

    /// Opens the namespace `name`.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(name: &str) -> Result<Self, LabError> {
        let fail = |source: io::Error| LabError::Namespace { name: name.to_owned(), what: "open it", source };
        let file = File::open(path_of(name)).map_err(fail)?;
        Ok(Self { name: name.to_owned(), file: Arc::new(file) })
    }

    /// Unbinds `name`; the kernel removes the namespace and its devices once no process is in it.
    /// No such name is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(name: &str) -> Result<(), LabError> {
        let path = path_of(name);
        let fail =
            |source: io::Error| LabError::Namespace { name: name.to_owned(), what: "remove it", source };
        match umount2(&path, MntFlags::MNT_DETACH) {
            // A maker that was killed between naming and binding leaves a plain file.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(errno) => return Err(fail(errno.into())),
        }
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fail(error)),
            _ => Ok(()),
        }
    }

    /// The names of all namespaces that begin with `prefix`, sorted.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn names(prefix: &str) -> Result<Vec<String>, LabError> {
        let entries = match std::fs::read_dir(NETNS_DIR) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(LabError::file("read", NETNS_DIR))?,
        };
        let mut names: Vec<String> = entries
            .filter_map(Result::ok)
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.starts_with(prefix))
            .collect();
        names.sort();
        Ok(names)
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        path_of(&self.name)
    }

    /// The descriptor, for netlink requests that name a namespace. Valid while `self` lives.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// The inode that tells it from every other namespace, as in `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn inode(&self) -> Result<u64, LabError> {
        Ok(self.file.metadata().map_err(LabError::file("read", self.path()))?.ino())
    }

    /// Moves the calling thread into the namespace, for good.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn enter(&self) -> Result<(), LabError> {
        setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(|errno| LabError::Namespace {
            name: self.name.clone(),
            what: "enter it",
            source: errno.into(),
        })
    }

    /// Runs `work` on a fresh thread inside the namespace and gives its result.
    ///
    /// # Errors
    /// When the namespace cannot be entered or `work` ends its thread.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        std::thread::scope(|scope| {
            scope.spawn(|| self.enter().map(|()| work())).join().unwrap_or_else(|_| {
                Err(LabError::Namespace {
                    name: self.name.clone(),
                    what: "finish the work in it",
                    source: io::Error::other("its thread ended early"),
                })
            })
        })
    }

    /// Starts `command` inside the namespace; it inherits the namespace of the thread that forks it.
    ///
    /// # Errors
    /// When the namespace cannot be entered or the program not be started.
    pub fn spawn(&self, command: &mut Command) -> Result<Child, LabError> {
        let program = command.get_program().to_string_lossy().into_owned();
        self.run(|| command.spawn())?.map_err(|source| LabError::Start { program, source })
    }

    /// Sets a network sysctl of this namespace, for example `net/ipv6/conf/all/disable_ipv6`.
    ///
    /// # Errors
    /// When there is no such sysctl or the value is refused.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<(), LabError> {
        let path = Path::new("/proc/sys").join(key);
        self.run(|| std::fs::write(&path, value))?.map_err(LabError::file("write", path))
    }
}

fn path_of(name: &str) -> PathBuf {
    Path::new(NETNS_DIR).join(name)
}

/// Makes [`NETNS_DIR`] a shared mount, as `ip netns add` does, so that a namespace removed here is
/// gone in every mount namespace.
fn prepare_dir() -> io::Result<()> {
    std::fs::create_dir_all(NETNS_DIR)?;
    let share =
        || mount(None::<&str>, NETNS_DIR, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>);
    match share() {
        Err(Errno::EINVAL) => {
            mount(
                Some(NETNS_DIR),
                NETNS_DIR,
                None::<&str>,
                MsFlags::MS_BIND | MsFlags::MS_REC,
                None::<&str>,
            )?;
            Ok(share()?)
        }
        other => Ok(other?),
    }
}
