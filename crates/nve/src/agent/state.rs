//! Files that outlive the agent: written whole or not at all.

use super::{NveError, requests::Kept};
use crate::core::{Attachment, Unreleased};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};
use weft_model::{VnName, VnSpec, Vni};

/// How the names of files that are being written end, with a number behind.
const NEW: &str = "new-";

/// The data directory, locked for as long as this lives.
#[derive(Debug)]
pub(super) struct DataDir {
    path: PathBuf,
    _lock: Flock<File>,
}

/// What an NVE remembers of its tenant systems, to serve them before any Oracle answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Saved {
    pub(super) attachments: Vec<Attachment>,
    pub(super) vns: Vec<VnSpec>,
    /// The VNs that it was connected to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) connected: BTreeMap<Vni, VnName>,
    /// Grants that are to be given back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) unreleased: Vec<Unreleased>,
    /// Requests that were carried out.
    #[serde(default, skip_serializing_if = "Kept::is_empty")]
    pub(super) requests: Kept,
}

impl DataDir {
    /// Makes the directory if need be and takes its lock.
    pub(super) fn open(path: &Path) -> Result<Self, NveError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(NveError::file("create", path))?;
        let lock = path.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock)
            .map_err(NveError::file("open", &lock))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => {
                forget_unfinished(path);
                Ok(Self { path: path.to_owned(), _lock: lock })
            }
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(NveError::DataDirInUse { path: path.to_owned() }),
            Err((_, e)) => Err(NveError::File { action: "lock", path: lock, source: e.into() }),
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// Removes what a crash left of writes that did not end.
fn forget_unfinished(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|e| e.to_string_lossy().starts_with(NEW)) {
            let _ = fs::remove_file(path);
        }
    }
}

/// Reads a JSON file; none when it does not exist.
pub(super) fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, NveError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(NveError::File { action: "read", path: path.to_owned(), source }),
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|e| NveError::Damaged { path: path.to_owned(), reason: e.to_string() })
}

/// The number of this start of the agent: higher than any before. Counted on by the calendar, so that one that could
/// not be written down is not given again.
pub(super) fn next_start(path: &Path, now_ms: u64) -> u64 {
    let before = load::<u64>(path).unwrap_or_else(|error| {
        tracing::warn!(%error, "the number of the last start cannot be read; the clock has to do");
        None
    });
    let start = before.unwrap_or(0).saturating_add(1).max(now_ms);
    if let Err(error) = save(path, &start) {
        tracing::warn!(%error, "the number of this start cannot be saved; the clock has to do");
    }
    start
}

/// Writes a JSON file, 0600, by way of a new file and a rename, so that a crash leaves the old or the new.
pub(super) fn save<T: Serialize>(path: &Path, value: &T) -> Result<(), NveError> {
    let text = serde_json::to_vec_pretty(value)
        .map_err(|e| NveError::Damaged { path: path.to_owned(), reason: e.to_string() })?;
    // No two writers share one, whatever they are up to.
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let new = path.with_extension(format!("{NEW}{}", WRITES.fetch_add(1, Ordering::Relaxed)));
    let write = || {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        // The rename itself is durable once the directory is.
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&new);
        NveError::file("write", path)(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h8_each_start_has_a_higher_number() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("start.json");
        assert_eq!(next_start(&file, 1_000), 1_000);
        // The clock was set back, or stands still.
        assert_eq!(next_start(&file, 7), 1_001);
        assert_eq!(next_start(&file, 1_001), 1_002);
        fs::write(&file, "{").unwrap();
        assert_eq!(next_start(&file, 2_000), 2_000);
        assert_eq!(next_start(&dir.path().join("none/start.json"), 3_000), 3_000, "no agent is kept by that");
    }

    #[test]
    fn second_lock_is_refused_and_files_round_trip() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nve");
        let first = DataDir::open(&path).unwrap();
        assert!(matches!(DataDir::open(&path), Err(NveError::DataDirInUse { .. })));
        let file = first.file("state.json");
        assert_eq!(load::<Saved>(&file).unwrap(), None);
        save(&file, &Saved::default()).unwrap();
        assert_eq!(load::<Saved>(&file).unwrap(), Some(Saved::default()));
        fs::write(&file, "{").unwrap();
        assert!(matches!(load::<Saved>(&file), Err(NveError::Damaged { .. })));
        drop(first);
        fs::write(path.join("state.new-7"), "torn").unwrap();
        DataDir::open(&path).unwrap();
        assert!(!path.join("state.new-7").exists() && file.exists());
    }
}
