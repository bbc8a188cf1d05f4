//! Replays what the fuzzers found worth keeping, crashes included.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "shared with the fuzz targets")]
mod harness;

use std::path::Path;

/// Inputs of one fuzz target, or none where the repository's `fuzz` folder is not there.
fn replay(target: &str, run: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let Ok(entries) = std::fs::read_dir(&folder) else { return };
    let mut count = 0;
    for entry in entries {
        run(&std::fs::read(entry.expect("a directory entry").path()).expect("a readable input"));
        count += 1;
    }
    assert!(count > 0, "{} is empty", folder.display());
}

#[test]
fn lisp_udp() {
    replay("lisp_udp", harness::udp);
}

#[test]
fn lisp_tcp() {
    replay("lisp_tcp", harness::tcp);
}
