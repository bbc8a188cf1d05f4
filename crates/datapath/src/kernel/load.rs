//! Before anything forwards: what the host has to have, and the object loaded into it.

use super::{Limits, maps, pins::Pins, sys};
use crate::DatapathError;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weft.o"));

pub(super) fn check_host() -> Result<(), DatapathError> {
    let found = sys::release();
    let mut numbers = found.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (6, 6) {
        return Err(DatapathError::OldKernel { found });
    }
    if !std::path::Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Err(DatapathError::NoBtf);
    }
    Ok(())
}

pub(super) fn load(pins: &Pins, limits: &Limits) -> Result<aya::Ebpf, DatapathError> {
    let mut loader = aya::EbpfLoader::new();
    loader.default_map_pin_directory(pins.maps());
    for (map, _, _, entries) in maps::shapes(limits) {
        loader.map_max_entries(map, entries);
    }
    loader.load(OBJECT).map_err(|e| load_failed("the object", &e))
}

/// aya nests its errors; the innermost one says what the kernel said.
pub(super) fn load_failed(what: &str, error: &dyn std::error::Error) -> DatapathError {
    let mut text = format!("{what}: {error}");
    let mut inner = error.source();
    while let Some(cause) = inner {
        if let Some(io) = cause.downcast_ref::<std::io::Error>()
            && matches!(io.raw_os_error(), Some(libc::EPERM | libc::EACCES))
            && text.split_once("Verifier output:").is_none_or(|(_, log)| log.trim().is_empty())
        {
            return DatapathError::NotPermitted { doing: format!("load {what}") };
        }
        text = format!("{text}: {cause}");
        inner = cause.source();
    }
    DatapathError::Load(text)
}
