//! The directory on a BPF file system that outlives the agent: maps and links, and who may touch it.
//!
//! `<pin_dir>/abi_<version>/maps/<map>` and `.../links/<role>_<ifindex>`. Names have no dots: a BPF
//! file system refuses them, so devices are named by index.

use super::{abi::ABI_VERSION, sys};
use crate::{DatapathError, IfIndex};
use std::{
    fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

/// How long a link that was let go of is waited for: it takes the kernel some 20 ms, more when it is busy.
const DETACH_WAIT: Duration = Duration::from_millis(5);
const DETACH_TRIES: u32 = 400;

/// What a link's program looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    Vap,
    Uplink,
    Overlay,
}

impl Role {
    const ALL: [Self; 3] = [Self::Vap, Self::Uplink, Self::Overlay];

    const fn word(self) -> &'static str {
        match self {
            Self::Vap => "vap",
            Self::Uplink => "uplink",
            Self::Overlay => "overlay",
        }
    }
}

/// A pinned link.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) role: Role,
    pub(super) device: IfIndex,
    /// Open; none when its device is gone.
    pub(super) alive: Option<OwnedFd>,
}

/// The directory, locked.
#[derive(Debug)]
pub(super) struct Pins {
    root: PathBuf,
    _lock: fs::File,
}

fn io_failed(doing: &str, path: &Path, e: io::Error) -> DatapathError {
    sys::refused(format!("{doing} {}", path.display()), e)
}

/// Where the maps of this layout are below `root`.
pub(super) fn maps_in(root: &Path) -> PathBuf {
    root.join(format!("abi_{ABI_VERSION}")).join("maps")
}

impl Pins {
    /// Opens or makes the directory, mounting a BPF file system where there is none.
    pub(super) fn open(root: &Path) -> Result<Self, DatapathError> {
        if root.to_string_lossy().contains('.') || !root.is_absolute() {
            return Err(DatapathError::PinName(root.to_owned()));
        }
        let standard = Path::new("/sys/fs/bpf");
        let existing = root.ancestors().find(|p| p.is_dir()).unwrap_or(Path::new("/"));
        if !sys::is_bpffs(existing)? {
            if root.starts_with(standard) {
                sys::mount_bpffs(standard)?;
            } else {
                fs::create_dir_all(root).map_err(|e| io_failed("create", root, e))?;
                sys::mount_bpffs(root)?;
            }
        }
        fs::create_dir_all(root).map_err(|e| io_failed("create", root, e))?;
        let lock = fs::File::open(root).map_err(|e| io_failed("open", root, e))?;
        if !sys::lock(lock.as_fd()).map_err(|e| io_failed("lock", root, e))? {
            return Err(DatapathError::InUse(root.to_owned()));
        }
        let pins = Self { root: root.to_owned(), _lock: lock };
        for entry in fs::read_dir(root).map_err(|e| io_failed("read", root, e))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(found) = name.strip_prefix("abi_").filter(|v| *v != ABI_VERSION.to_string()) {
                let (path, found) = (root.to_owned(), found.to_owned());
                return Err(DatapathError::OtherAbi { path, found, ours: ABI_VERSION });
            }
        }
        for dir in [pins.maps(), pins.links()] {
            fs::create_dir_all(&dir).map_err(|e| io_failed("create", &dir, e))?;
        }
        Ok(pins)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    fn version(&self) -> PathBuf {
        self.root.join(format!("abi_{ABI_VERSION}"))
    }

    pub(super) fn maps(&self) -> PathBuf {
        maps_in(&self.root)
    }

    fn links(&self) -> PathBuf {
        self.version().join("links")
    }

    pub(super) fn link_path(&self, role: Role, device: IfIndex) -> PathBuf {
        self.links().join(format!("{}_{}", role.word(), device.0))
    }

    /// Every pinned link.
    pub(super) fn list(&self) -> Result<Vec<Link>, DatapathError> {
        let dir = self.links();
        let mut found = Vec::new();
        for entry in fs::read_dir(&dir).map_err(|e| io_failed("read", &dir, e))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some((word, index)) = name.split_once('_') else { continue };
            let (Some(role), Ok(index)) =
                (Role::ALL.into_iter().find(|r| r.word() == word), index.parse::<u32>())
            else {
                continue;
            };
            found.push(self.link(role, IfIndex(index))?);
        }
        found.sort_by_key(|link| (link.role, link.device));
        Ok(found)
    }

    fn link(&self, role: Role, device: IfIndex) -> Result<Link, DatapathError> {
        let fd = sys::open_pin(&self.link_path(role, device))?;
        let alive = (sys::attached_to(fd.as_fd())? == Some(device)).then_some(fd);
        Ok(Link { role, device, alive })
    }

    /// Whether a live link is pinned for this device.
    pub(super) fn is_attached(&self, role: Role, device: IfIndex) -> Result<bool, DatapathError> {
        match self.link(role, device) {
            Ok(link) => Ok(link.alive.is_some()),
            Err(DatapathError::System { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(false)
            }
            Err(e) => Err(e),
        }
    }

    /// Lets go of a link; the kernel detaches it soon after. Absent is fine.
    pub(super) fn unlink(&self, role: Role, device: IfIndex) -> Result<(), DatapathError> {
        remove(&self.link_path(role, device))
    }

    /// Removes every map and the directories. For when no link is left.
    pub(super) fn clear(&self) -> Result<(), DatapathError> {
        for dir in [self.maps(), self.links()] {
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    /// [`Pins::clear`], and the directory itself unless it is a mount point or has other things in it.
    pub(super) fn remove(self) -> Result<(), DatapathError> {
        self.clear()?;
        for dir in [self.maps(), self.links(), self.version()] {
            fs::remove_dir(&dir).map_err(|e| io_failed("remove", &dir, e))?;
        }
        let _busy_is_fine = fs::remove_dir(&self.root);
        Ok(())
    }
}

fn remove(path: &Path) -> Result<(), DatapathError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_failed("remove", path, e)),
        _ => Ok(()),
    }
}

/// Attaches and pins; a dead pin in the way is replaced. A link that was let go of a moment ago is still
/// attached until the kernel gets to it, and a program is attached to a device once: that is waited for.
pub(super) fn attach(program: BorrowedFd<'_>, device: IfIndex, path: &Path) -> Result<(), DatapathError> {
    let mut tries = 0;
    let link = loop {
        match sys::attach(program, device) {
            Err(DatapathError::System { source, .. })
                if source.kind() == io::ErrorKind::AlreadyExists && tries < DETACH_TRIES =>
            {
                // Unless somebody was quicker and it is attached to stay.
                let pinned = sys::open_pin(path).and_then(|fd| sys::attached_to(fd.as_fd()));
                if pinned.is_ok_and(|to| to == Some(device)) {
                    return Ok(());
                }
                tries += 1;
                #[allow(clippy::disallowed_methods, reason = "waits for the kernel, with a ceiling")]
                std::thread::sleep(DETACH_WAIT);
            }
            other => break other?,
        }
    };
    match sys::pin(link.as_fd(), path) {
        Err(DatapathError::System { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
            remove(path)?;
            sys::pin(link.as_fd(), path)
        }
        other => other,
    }
}
