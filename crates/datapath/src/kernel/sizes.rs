//! How much the tables hold and take up, read from the kernel by whoever may open the pins.

use super::{pins, sys};
use crate::DatapathError;
use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::Path,
};

/// One map of the data plane.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableSize {
    /// Its name, as it is pinned.
    pub name: String,
    /// How many entries there are; none where the kind of map has a fixed number.
    pub entries: Option<u32>,
    /// How many there is room for.
    pub room: u32,
    /// Kernel memory, octets.
    pub bytes: u64,
}

/// Map types that hold what was put in and no more: hash, per-CPU hash, LRU hash, per-CPU LRU hash, longest prefix.
const COUNTED: [u32; 5] = [1, 5, 9, 10, 11];
/// Of them those with a value for each processor.
const PER_CPU: [u32; 2] = [5, 10];

/// The maps of the data plane pinned in `pin_dir`, by name. Takes some 0.05 us an entry.
///
/// # Errors
/// When the directory or a pin in it cannot be read.
pub fn table_sizes(pin_dir: &Path) -> Result<Vec<TableSize>, DatapathError> {
    let dir = &pins::maps_in(pin_dir);
    let failed = |e| sys::refused(format!("read {}", dir.display()), e);
    let processors = possible_processors().map_err(failed)?;
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let fd = sys::open_pin(&entry.path())?;
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).map_err(failed)?;
        let field = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|value| value.trim().parse::<u64>().ok())
        };
        let small = |name| field(name).and_then(|value| u32::try_from(value).ok());
        let (Some(kind), Some(room), Some(bytes)) =
            (small("map_type"), small("max_entries"), field("memlock"))
        else {
            continue;
        };
        let size = |name| small(name).unwrap_or(0) as usize;
        let value_size = match PER_CPU.contains(&kind) {
            true => size("value_size").next_multiple_of(8) * processors,
            false => size("value_size"),
        };
        let entries = match COUNTED.contains(&kind) {
            true => Some(count(&fd, (size("key_size"), value_size)).map_err(failed)?),
            false => None,
        };
        all.push(TableSize { name: entry.file_name().to_string_lossy().into_owned(), entries, room, bytes });
    }
    all.sort();
    Ok(all)
}

/// Entries read at once: far more than one bucket of a hash map holds.
const AT_ONCE: u32 = 1_024;

/// Walks over the table, bucket by bucket. Others change it meanwhile: each bucket is counted as it is found.
fn count(fd: &OwnedFd, (key_size, value_size): (usize, usize)) -> io::Result<u32> {
    let room = AT_ONCE as usize;
    let (mut keys, mut values) = (vec![0; key_size * room], vec![0; value_size * room]);
    let (mut walk, mut entries) = (sys::Walk::default(), 0_u32);
    loop {
        let (read, more) = sys::next_entries(fd.as_fd(), &mut walk, &mut keys, &mut values, AT_ONCE)?;
        entries = entries.saturating_add(read);
        if !more {
            return Ok(entries);
        }
    }
}

/// Processors that there may be: a per-CPU map gives a value of each.
pub(super) fn possible_processors() -> io::Result<usize> {
    let text = fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let last = text.trim().rsplit([',', '-']).next().and_then(|last| last.parse::<usize>().ok());
    last.map(|last| last + 1).ok_or_else(|| io::Error::other(format!("possible processors: {}", text.trim())))
}
