//! What a lab's virtual machines boot: Debian's kernel for clouds and a file system of busybox and one script. Both
//! packages are unpacked and not installed: nothing of this machine changes. What is made of them is kept.

use super::{ANSWER_WITHIN, cpio::Archive};
use crate::{error::LabError, process};
use std::{
    fs::File,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The package that depends on the newest kernel without drivers of real machines.
pub const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";
/// Every program of the machine in one file that needs no library.
pub const BUSYBOX_PACKAGE: &str = "busybox-static";

/// Drivers of the network card, each after those that it needs.
const MODULES: [&str; 8] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
];
const INIT: &str = include_str!("init.sh");

/// A kernel and its first file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The kernel.
    pub kernel: PathBuf,
    /// The file system, as a cpio archive.
    pub initramfs: PathBuf,
}

/// The image, made at the first call on a machine: some seconds, and 27 MB from the distribution's mirror.
/// `progress` hears a line when it is made.
///
/// # Errors
/// When a package cannot be had or the cache not be written.
pub fn prepare(progress: &mut dyn FnMut(&str)) -> Result<Image, LabError> {
    let cache = cache();
    std::fs::create_dir_all(&cache).map_err(LabError::file("make the directory", &cache))?;
    let dir = cache.join(format!("guest-{:016x}", key()));
    let image = Image { kernel: dir.join("kernel"), initramfs: dir.join("initramfs") };
    if dir.is_dir() {
        return Ok(image);
    }
    // Tests that run at once make one.
    let lock = cache.join("guest.lock");
    let file = File::create(&lock).map_err(LabError::file("open the lock", &lock))?;
    let _lock = process::lock(file).map_err(LabError::file("lock", &lock))?;
    if dir.is_dir() {
        return Ok(image);
    }
    progress(&format!("unpacking {KERNEL_PACKAGE} and {BUSYBOX_PACKAGE} for virtual machines, once"));
    let work = cache.join("guest.new");
    match std::fs::remove_dir_all(&work) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(LabError::file("remove", work)(error));
        }
        _ => {}
    }
    let made = work.join("made");
    std::fs::create_dir_all(&made).map_err(LabError::file("make the directory", &made))?;
    build(&work, &made)?;
    // Whole or not at all.
    std::fs::rename(&made, &dir).map_err(LabError::file("make", &dir))?;
    std::fs::remove_dir_all(&work).map_err(LabError::file("remove", work))?;
    Ok(image)
}

/// `~/.cache/weft`, or what `XDG_CACHE_HOME` says.
fn cache() -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    set("XDG_CACHE_HOME")
        .or_else(|| Some(set("HOME")?.join(".cache")))
        .unwrap_or_else(|| "/var/cache".into())
        .join("weft")
}

/// Another script or list of modules is another image.
fn key() -> u64 {
    let mut hasher = DefaultHasher::new();
    (init(), MODULES, KERNEL_PACKAGE, BUSYBOX_PACKAGE).hash(&mut hasher);
    hasher.finish()
}

fn init() -> String {
    INIT.replace("MODULES", &MODULES.join(" ")).replace("SECONDS", &ANSWER_WITHIN.as_secs().to_string())
}

fn build(work: &Path, to: &Path) -> Result<(), LabError> {
    let kernel = kernel_package()?;
    let sandbox = "APT::Sandbox::User=root";
    run(Command::new("apt-get").args(["-q", "-o", sandbox, "download", &kernel, BUSYBOX_PACKAGE]), work)?;
    let root = work.join("root");
    let listed = std::fs::read_dir(work).map_err(LabError::file("read", work))?;
    for path in listed.filter_map(Result::ok).map(|entry| entry.path()) {
        if path.extension().is_some_and(|ending| ending == "deb") {
            run(Command::new("dpkg-deb").arg("-x").args([&path, &root]), work)?;
        }
    }
    // `linux-image-VERSION` brings /boot/vmlinuz-VERSION.
    let version = kernel.trim_start_matches("linux-image-");
    let from = root.join("boot").join(format!("vmlinuz-{version}"));
    std::fs::copy(&from, to.join("kernel")).map_err(LabError::file("copy", &from))?;
    let drivers = root.join("lib/modules").join(version).join("kernel");
    let path = to.join("initramfs");
    let mut archive = Archive::new(Vec::new());
    let written = || LabError::file("write", &path);
    for name in ["bin", "modules"] {
        archive.directory(name).map_err(written())?;
    }
    archive.program("init", init().as_bytes()).map_err(written())?;
    let busybox = root.join("bin/busybox");
    archive.program("bin/busybox", &read(&busybox)?).map_err(written())?;
    for module in MODULES {
        let file = format!("{module}.ko");
        let found = find(&drivers, &file)
            .ok_or_else(|| LabError::Guest(format!("{kernel} has no {file}: it may be built in now")))?;
        archive.program(&format!("modules/{file}"), &read(&found)?).map_err(written())?;
    }
    let octets = archive.finish().map_err(written())?;
    std::fs::write(&path, octets).map_err(written())
}

/// The package with the kernel itself, which [`KERNEL_PACKAGE`] depends on.
fn kernel_package() -> Result<String, LabError> {
    let text = run(Command::new("apt-cache").args(["depends", KERNEL_PACKAGE]), Path::new("/"))?;
    let name = text.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    name.filter(|name| name.starts_with("linux-image-")).map(str::to_owned).ok_or_else(|| {
        LabError::Guest(format!(
            "apt-cache names no kernel that {KERNEL_PACKAGE} depends on: run apt-get update"
        ))
    })
}

fn run(command: &mut Command, dir: &Path) -> Result<String, LabError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .current_dir(dir)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|source| LabError::Start { program: program.clone(), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let reason = errors.lines().last().unwrap_or("no reason given").trim();
    Err(LabError::Guest(format!("{program} failed: {reason} (apt-get update may help)")))
}

fn read(path: &Path) -> Result<Vec<u8>, LabError> {
    std::fs::read(path).map_err(LabError::file("read", path))
}

/// The file `name` below `dir`.
fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).ok()?.filter_map(Result::ok) {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else if entry.file_name() == name {
                return Some(path);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_has_no_gaps_left() {
        let script = init();
        assert!(script.contains("for module in virtio_ring virtio "), "{script}");
        assert!(script.contains("timeout 60 sh"), "{script}");
    }
}
