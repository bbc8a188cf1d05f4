//! Backups: one text file with everything durable, made while running, restored into an empty
//! directory.
//!
//! One JSON object a line: a head, the CA's two files, each key with its value, and an end with
//! the number of lines and the SHA-256 of all octets before it, so that a cut-off copy is known.

use super::OracleError;
use crate::{
    pki::{CA_CERTIFICATE, CA_KEY},
    registry::raise_floors,
    store::{FORMAT, RedbStore, Snapshot, Store, StoreError, import},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

/// The version of this file's own shape.
const VERSION: u32 = 1;
/// Added to the revision at a restore: who watched the lost history must list again.
const REVISION_GAP: u64 = 1 << 32;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Line {
    Head { weft_backup: u32, format: u32, revision: u64 },
    File { name: String, text: String },
    Key { key: String, value: String },
    End { lines: u64, sha256: String },
}

fn failed(e: impl std::fmt::Display) -> StoreError {
    StoreError::Failed(format!("backup: {e}"))
}

/// A backup of `tx` and of the files in `dir`.
pub(super) fn write(tx: &dyn Snapshot, dir: &Path) -> Result<Vec<u8>, StoreError> {
    let mut out = Vec::new();
    let mut lines = 0;
    let mut add = |out: &mut Vec<u8>, line: &Line| {
        serde_json::to_writer(&mut *out, line).map_err(failed)?;
        out.push(b'\n');
        lines += 1;
        Ok::<_, StoreError>(())
    };
    add(&mut out, &Line::Head { weft_backup: VERSION, format: FORMAT, revision: tx.revision() })?;
    for name in [CA_CERTIFICATE, CA_KEY] {
        let text = fs::read_to_string(dir.join(name)).map_err(failed)?;
        add(&mut out, &Line::File { name: name.to_owned(), text })?;
    }
    let mut result = Ok(());
    tx.scan(b"", &mut |key, value| {
        let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).map_err(failed);
        result = text(key).and_then(|key| add(&mut out, &Line::Key { key, value: text(value)? }));
        result.is_ok()
    })?;
    result?;
    let end = Line::End { lines, sha256: hex::encode(Sha256::digest(&out)) };
    serde_json::to_writer(&mut out, &end).map_err(failed)?;
    out.push(b'\n');
    Ok(out)
}

/// Backs up a stopped Oracle's `data_dir` to `file` (mode 0600: it holds the CA's key). A running
/// one is backed up through [`weft_api::Client::backup`].
///
/// # Errors
/// [`OracleError::Store`] with [`StoreError::InUse`] while an Oracle runs there, or
/// [`OracleError::File`].
pub fn backup(data_dir: &Path, file: &Path) -> Result<(), OracleError> {
    if !crate::store::exists(data_dir) {
        let reason = "there is no Oracle's data in it".to_owned();
        return Err(StoreError::Directory { dir: data_dir.to_owned(), reason }.into());
    }
    let store = RedbStore::open_existing(data_dir, 1)?;
    let octets = write(&*store.snapshot()?, data_dir)?;
    let save = || {
        let new = file.with_extension("new");
        match fs::remove_file(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        out.write_all(&octets)?;
        out.sync_all()?;
        fs::rename(&new, file)
    };
    save().map_err(|source| OracleError::File { path: file.to_owned(), source })
}

struct Parsed {
    revision: u64,
    files: Vec<(String, String)>,
    keys: Vec<(String, String)>,
}

fn parse(text: &[u8]) -> Result<Parsed, String> {
    let mut parsed = None;
    let mut at = 0;
    for (lines, raw) in (0..).zip(text.split_inclusive(|b| *b == b'\n')) {
        let line: Line = serde_json::from_slice(raw).map_err(|e| format!("line {}: {e}", lines + 1))?;
        match (line, &mut parsed) {
            (Line::Head { weft_backup, format, revision }, None) => {
                if weft_backup > VERSION || format > FORMAT {
                    return Err(format!(
                        "it has version {weft_backup}, format {format}; this program reads up to {VERSION}, {FORMAT}"
                    ));
                }
                parsed = Some(Parsed { revision, files: Vec::new(), keys: Vec::new() });
            }
            (Line::File { name, text }, Some(p)) if [CA_CERTIFICATE, CA_KEY].contains(&name.as_str()) => {
                p.files.push((name, text));
            }
            (Line::Key { key, value }, Some(p)) => p.keys.push((key, value)),
            (Line::End { lines: said, sha256 }, Some(_)) => {
                let before = text.get(..at).unwrap_or_default();
                if said != lines || sha256 != hex::encode(Sha256::digest(before)) {
                    return Err("its checksum does not match: it has been changed or damaged".to_owned());
                }
                return parsed.ok_or_else(|| "it has no head".to_owned());
            }
            _ => return Err(format!("line {} does not belong there", lines + 1)),
        }
        at += raw.len();
    }
    Err("it is cut off: its end is missing".to_owned())
}

/// Restores the backup in `file` into `data_dir`, which must be empty or missing.
///
/// Whatever was granted after the backup is lost, but its epochs are not used again: every VN's
/// epoch floor is raised far above.
///
/// # Errors
/// [`OracleError::NotEmpty`], [`OracleError::Backup`], [`OracleError::File`] or
/// [`OracleError::Store`].
pub fn restore(file: &Path, data_dir: &Path) -> Result<(), OracleError> {
    let unreadable =
        |e: &dyn std::fmt::Display| OracleError::Backup { path: file.to_owned(), reason: e.to_string() };
    let text = fs::read(file).map_err(|e| unreadable(&e))?;
    let Parsed { revision, files, keys } = parse(&text).map_err(|e| unreadable(&e))?;
    match fs::read_dir(data_dir) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(OracleError::NotEmpty(data_dir.to_owned()));
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => {
            return Err(StoreError::Directory { dir: data_dir.to_owned(), reason: e.to_string() }.into());
        }
    }
    let keys = keys.into_iter().map(|(key, value)| (key.into_bytes(), value.into_bytes()));
    let keys = raise_floors(keys.collect())?;
    // The store last: without it the directory is no Oracle's, and a restore cut short shows.
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .map_err(|e| StoreError::Directory { dir: data_dir.to_owned(), reason: e.to_string() })?;
    for (name, text) in files {
        let path = data_dir.join(name);
        let write = || {
            let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            out.write_all(text.as_bytes())?;
            out.sync_all()
        };
        write().map_err(|source| OracleError::File { path: path.clone(), source })?;
    }
    import(data_dir, revision.saturating_add(REVISION_GAP), keys)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_known() {
        let store = crate::store::MemoryStore::new(1);
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(CA_CERTIFICATE), "c").unwrap();
        fs::write(dir.path().join(CA_KEY), "k").unwrap();
        let good = write(&*store.snapshot().unwrap(), dir.path()).unwrap();
        assert_eq!(parse(&good).unwrap().files.len(), 2);
        for cut in 0..good.len() - 1 {
            assert!(parse(&good[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..good.len() - 1 {
            let mut bad = good.clone();
            bad[at] ^= 0x01;
            assert!(parse(&bad).is_err(), "octet {at}");
        }
    }
}
