//! What is written down of a lab, before it is made: so that `down` finds all of it even when the
//! process that made it was killed in the middle.

use crate::{
    error::LabError,
    process::{self, ProcessId},
    spec::{LabName, LabSpec, NodeName},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{File, Metadata},
    io,
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};
use weft_model::MacAddr;

/// The directory under which each lab has its run directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRoot(PathBuf);

impl Default for RunRoot {
    fn default() -> Self {
        Self("/run/weft-lab".into())
    }
}

impl From<PathBuf> for RunRoot {
    fn from(path: PathBuf) -> Self {
        Self(path)
    }
}

impl RunRoot {
    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The run directory of lab `name`.
    #[must_use]
    pub fn of(&self, name: &LabName) -> PathBuf {
        self.0.join(name.as_str())
    }

    pub(crate) fn record(&self, name: &LabName) -> PathBuf {
        self.of(name).join("lab.json")
    }

    /// Takes the lock of lab `name`, so that two commands do not make or remove it at once.
    pub(crate) fn lock(&self, name: &LabName) -> Result<Lock, LabError> {
        let path = self.0.join(format!(".{name}.lock"));
        std::fs::create_dir_all(&self.0).map_err(LabError::file("make the directory", &self.0))?;
        loop {
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .map_err(LabError::file("open the lock", &path))?;
            let file = process::lock(file).map_err(LabError::file("lock", &path))?;
            // Who held it before may have removed it with the lab.
            let inode = |found: io::Result<Metadata>| found.map(|found| found.ino()).ok();
            if inode(file.metadata()) == inode(std::fs::metadata(&path)) {
                return Ok(Lock { _file: file, path });
            }
        }
    }
}

/// Of one lab, held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
    path: PathBuf,
}

impl Lock {
    /// The lab is gone, and with it the lock's file.
    pub(crate) fn remove(self) {
        // What is left behind by a failure is an empty file.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// How far a lab is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Being made by `maker`.
    Building,
    /// Up.
    Up,
}

/// A process of the lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonRecord {
    /// Which process.
    pub id: ProcessId,
    /// The node whose namespace it runs in.
    pub node: NodeName,
    /// Its command line.
    pub command: Vec<String>,
}

/// What a tenant system was given when it was attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantState {
    /// Its MAC address.
    pub mac: MacAddr,
    /// Its addresses with the length of their subnet's prefix.
    pub ips: Vec<ipnet::IpNet>,
    /// The MTU it was told.
    pub mtu: u32,
}

impl TenantState {
    /// The first IPv4 address.
    #[must_use]
    pub fn ipv4(&self) -> Option<IpAddr> {
        self.ips.iter().map(ipnet::IpNet::addr).find(IpAddr::is_ipv4)
    }

    /// The first IPv6 address.
    #[must_use]
    pub fn ipv6(&self) -> Option<IpAddr> {
        self.ips.iter().map(ipnet::IpNet::addr).find(IpAddr::is_ipv6)
    }
}

/// Everything that exists because of one lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The lab's name.
    pub name: LabName,
    /// `/proc/sys/kernel/random/boot_id`: processes of another boot have ended.
    pub boot_id: String,
    /// How far it is.
    pub phase: Phase,
    /// The process that makes it.
    pub maker: ProcessId,
    /// Whether the lab lasts only as long as its maker: a lab of a test or a bench.
    pub bound: bool,
    /// The description.
    pub spec: LabSpec,
    /// The `weft` binary; `None` for a lab of namespaces only.
    pub weft: Option<PathBuf>,
    /// Names of namespaces.
    pub namespaces: Vec<String>,
    /// Processes by name: `oracle`, `h1`, `relay-red-a`.
    pub daemons: BTreeMap<String, DaemonRecord>,
    /// BPF pin directories.
    pub pins: Vec<PathBuf>,
    /// Tenant systems that are attached.
    pub tenants: BTreeMap<NodeName, TenantState>,
}

impl Record {
    /// Writes the record, whole or not at all.
    pub(crate) fn save(&self, root: &RunRoot) -> Result<(), LabError> {
        let path = root.record(&self.name);
        let new = path.with_extension("new");
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::other);
        text.and_then(|text| std::fs::write(&new, text))
            .and_then(|()| std::fs::rename(&new, &path))
            .map_err(LabError::file("write", path))
    }

    /// Reads the record of lab `name`; `None` when there is no run directory or nothing in it.
    pub(crate) fn load(root: &RunRoot, name: &LabName) -> Result<Option<Self>, LabError> {
        let path = root.record(name);
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(LabError::file("read", &path))?,
        };
        serde_json::from_slice(&text).map(Some).map_err(io::Error::from).map_err(LabError::file("read", path))
    }

    /// Whether this record's processes can still be there.
    #[must_use]
    pub fn this_boot(&self) -> bool {
        boot_id() == self.boot_id
    }

    /// Whether nobody will take the lab down: its maker ended while making it, or was to own it.
    #[must_use]
    pub fn orphaned(&self) -> bool {
        let maker_gone = !self.this_boot() || !self.maker.alive();
        maker_gone && (self.bound || self.phase == Phase::Building)
    }
}

pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// One line of `weft lab list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LabSummary {
    /// The lab.
    pub name: LabName,
    /// `up`, `building`, or `orphaned` when its maker was killed.
    pub state: &'static str,
    /// How many hosts.
    pub hosts: usize,
    /// How many tenant systems are attached.
    pub tenants: usize,
    /// How many of its processes run.
    pub running: usize,
    /// How many there should be.
    pub daemons: usize,
}

/// The labs that have a run directory under `root`, sorted by name.
///
/// # Errors
/// When a record cannot be read.
pub fn list(root: &RunRoot) -> Result<Vec<LabSummary>, LabError> {
    let mut all = Vec::new();
    for name in names(root)? {
        let Some(record) = Record::load(root, &name)? else { continue };
        all.push(LabSummary {
            name,
            state: match record.phase {
                _ if record.orphaned() => "orphaned",
                Phase::Building => "building",
                Phase::Up => "up",
            },
            hosts: record.spec.hosts.len(),
            tenants: record.tenants.len(),
            running: record.daemons.values().filter(|daemon| daemon.id.alive()).count(),
            daemons: record.daemons.len(),
        });
    }
    Ok(all)
}

/// The names of directories that may be labs'.
pub(crate) fn names(root: &RunRoot) -> Result<Vec<LabName>, LabError> {
    let entries = match std::fs::read_dir(root.path()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(LabError::file("read", root.path()))?,
    };
    let mut names: Vec<LabName> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok()?.parse().ok())
        .collect();
    names.sort();
    Ok(names)
}
