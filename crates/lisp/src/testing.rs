//! What the tests of several modules share.

use crate::error::{DecodeError, DecodeErrorKind, Part};

/// Octets from hexadecimal digits; whitespace is for the reader.
pub(crate) fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u32> =
        digits.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16).unwrap()).collect();
    assert!(digits.len().is_multiple_of(2), "half an octet");
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
}

/// Asserts where, in what and why decoding failed.
#[track_caller]
pub(crate) fn assert_error<T: std::fmt::Debug>(
    result: Result<T, DecodeError>,
    path: &[Part],
    field: &str,
    offset: usize,
    kind: DecodeErrorKind,
) {
    let error = result.expect_err("must not decode");
    let found = (error.path().collect::<Vec<_>>(), error.field, error.offset, error.kind);
    assert_eq!(found, (path.to_vec(), field, offset, kind), "{error}");
}

/// Every strict prefix of a message fails without a panic, and the error lies inside of it.
#[track_caller]
pub(crate) fn assert_prefixes_fail(octets: &[u8], error: impl Fn(&[u8]) -> Option<DecodeError>) {
    for len in 0..octets.len() {
        let error = error(&octets[..len]).expect("a cut message must not decode");
        assert!(error.offset <= len, "{error} in {len} octets");
    }
}
