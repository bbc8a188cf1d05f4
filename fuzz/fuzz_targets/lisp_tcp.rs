//! Octets from anybody on a session.
#![no_main]

#[allow(dead_code, reason = "shared with the tests of weft-lisp")]
#[path = "../../crates/lisp/tests/harness/mod.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| harness::tcp(octets));
