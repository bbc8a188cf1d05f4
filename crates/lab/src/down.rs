//! Taking a lab away: its processes, namespaces, BPF pins and run directory.

use crate::{
    error::{CleanupError, LabError},
    netns::NetNs,
    process::{self, ProcessId},
    record::{self, Record, RunRoot},
    spec::LabName,
    underlay,
};
use std::{collections::BTreeSet, io, time::Duration};

/// How long daemons may take to end by themselves.
const GRACE: Duration = Duration::from_secs(3);

/// What [`down`] took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleanup {
    /// Processes that were ended.
    pub processes: usize,
    /// Namespaces that were removed.
    pub namespaces: usize,
}

/// Takes lab `name` down. What cannot be taken away does not keep the rest from going.
///
/// # Errors
/// When there is no such lab, or everything that was left behind.
pub fn down(root: &RunRoot, name: &LabName) -> Result<Cleanup, LabError> {
    let lock = root.lock(name)?;
    if !remains(root, name)? {
        lock.remove();
        return Err(LabError::NotUp { name: name.to_string(), root: root.path().to_owned() });
    }
    let gone = locked(root, name)?;
    lock.remove();
    Ok(gone)
}

/// Takes down every lab whose maker was killed while making it, or was to own it. Gives their
/// names.
///
/// # Errors
/// Everything that was left behind, of all of them.
pub fn sweep(root: &RunRoot) -> Result<Vec<String>, LabError> {
    let mut swept = Vec::new();
    let mut errors = Vec::new();
    for name in record::names(root)? {
        // Others' directories, as that of kept logs, are no labs.
        if !root.record(&name).exists() {
            continue;
        }
        let lock = root.lock(&name)?;
        match Record::load(root, &name) {
            Ok(Some(record)) if record.orphaned() => {}
            _ => continue,
        }
        match locked(root, &name) {
            Ok(_) => {
                lock.remove();
                swept.push(name.to_string());
            }
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(swept) } else { Err(CleanupError { lab: "(all)".to_owned(), errors }.into()) }
}

/// Whether anything of lab `name` is there. A directory without a record is no lab's.
pub(crate) fn remains(root: &RunRoot, name: &LabName) -> Result<bool, LabError> {
    Ok(root.record(name).exists() || !NetNs::names(&underlay::namespace(name.as_str(), ""))?.is_empty())
}

/// [`down`] for a caller that holds the lab's lock.
pub(crate) fn locked(root: &RunRoot, name: &LabName) -> Result<Cleanup, LabError> {
    let mut errors = Vec::new();
    let mut cleanup = Cleanup::default();
    // A record that cannot be read must not keep the namespaces: their names tell whose they are.
    let record = Record::load(root, name).unwrap_or_else(|error| {
        errors.push(error);
        None
    });
    let mut namespaces: BTreeSet<String> = NetNs::names(&underlay::namespace(name.as_str(), ""))
        .unwrap_or_else(|error| {
            errors.push(error);
            Vec::new()
        })
        .into_iter()
        .collect();
    if let Some(record) = &record {
        namespaces.extend(record.namespaces.iter().cloned());
    }

    // First those on record, then whatever else runs in the namespaces: daemons whose start was
    // not written down any more, and programs that people left running there.
    let known: Vec<ProcessId> = record
        .iter()
        .filter(|record| record.this_boot())
        .flat_map(|record| record.daemons.values().map(|daemon| daemon.id))
        .filter(|id| id.alive())
        .collect();
    cleanup.processes += known.len();
    errors.extend(process::end_all(&known, GRACE));
    let inodes: Vec<u64> =
        namespaces.iter().filter_map(|name| NetNs::open(name).ok()?.inode().ok()).collect();
    let others = process::inside(&inodes);
    cleanup.processes += others.len();
    errors.extend(process::end_all(&others, GRACE));

    for namespace in &namespaces {
        match NetNs::remove(namespace) {
            Ok(()) => cleanup.namespaces += 1,
            Err(error) => errors.push(error),
        }
    }
    for pins in record.iter().flat_map(|record| &record.pins) {
        remove_dir(pins, &mut errors);
    }
    // The run directory goes last: as long as anything is left it says what.
    if errors.is_empty() && record.is_some() {
        remove_dir(&root.of(name), &mut errors);
    }
    if errors.is_empty() { Ok(cleanup) } else { Err(CleanupError { lab: name.to_string(), errors }.into()) }
}

fn remove_dir(path: &std::path::Path, errors: &mut Vec<LabError>) {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            errors.push(LabError::file("remove", path)(error));
        }
        _ => {}
    }
}
