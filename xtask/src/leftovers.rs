//! What tests of the data plane leave when they are killed: namespaces and pins, with the number of the process that made
//! them in their names.

use crate::say;
use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

const NAMESPACES: &str = "/run/netns";
const PINS: &str = "/sys/fs/bpf";

/// Removes those of processes that are no more; everybody else's stay.
pub(crate) fn sweep() {
    let alive = |pid: u32| Path::new("/proc").join(pid.to_string()).exists();
    let mut swept = Vec::new();
    // What is pinned is attached in a namespace: that goes last.
    for (dir, remove) in [(PINS, remove_pins as fn(&Path) -> io::Result<()>), (NAMESPACES, remove_namespace)]
    {
        for path in left(Path::new(dir), &alive) {
            match remove(&path) {
                Ok(()) => swept.push(path.display().to_string()),
                Err(error) => say::step(&format!("{} stays: {error}", path.display())),
            }
        }
    }
    if !swept.is_empty() {
        say::step(&format!("removed what killed tests left: {}", swept.join(", ")));
    }
}

/// What is in a directory, missing or not, and was made by a process that is not alive.
fn left(dir: &Path, alive: &dyn Fn(u32) -> bool) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let dead = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.and_then(maker).is_some_and(|pid| !alive(pid))
    };
    let mut all: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(dead).collect();
    all.sort();
    all
}

/// The process that made something of this name: `wd`, its number, `n`, another number, a word.
fn maker(name: &str) -> Option<u32> {
    let (pid, more) = name.strip_prefix("wd")?.split_once('n')?;
    let numbered = pid.bytes().all(|c| c.is_ascii_digit()) && more.starts_with(|c: char| c.is_ascii_digit());
    pid.parse().ok().filter(|pid| numbered && *pid != 0)
}

fn remove_pins(path: &Path) -> io::Result<()> {
    fs::remove_dir_all(path)
}

fn remove_namespace(path: &Path) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default();
    let output = Command::new("ip").args(["netns", "del"]).arg(name).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().replace('\n', " ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_dead_process_made() {
        let dir = std::env::temp_dir().join(format!("weft-left-{}", std::process::id()));
        let names =
            ["wd7n0fab", "wd7n12pins", "wd8n0fab", "wdxn0fab", "wd7", "wd7nfab", "wd+7n0", "wd0n0", "weft"];
        for name in names {
            fs::create_dir_all(dir.join(name).join("maps")).unwrap();
        }
        let found = left(&dir, &|pid| pid == 8);
        assert_eq!(found, ["wd7n0fab", "wd7n12pins"].map(|name| dir.join(name)));
        for path in &found {
            remove_pins(path).unwrap();
        }
        assert_eq!(left(&dir, &|pid| pid == 8), Vec::<PathBuf>::new());
        assert_eq!(fs::read_dir(&dir).unwrap().count(), names.len() - 2);
        assert_eq!(left(&dir, &|_| false), [dir.join("wd8n0fab")]);
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(left(&dir, &|_| false), Vec::<PathBuf>::new(), "nor of a directory that is not there");
    }
}
