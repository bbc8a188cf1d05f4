//! Whole numbers on the command line: what is none of a range is refused with the range.

use core::{num::NonZeroUsize, ops::RangeInclusive, str::FromStr};

/// A text that is no number of a range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write a whole number {}", words(.0))]
pub(crate) struct NoNumber(RangeInclusive<u64>);

fn words(range: &RangeInclusive<u64>) -> String {
    match (range.start(), range.end()) {
        (least, &u64::MAX) => format!("from {least} on"),
        (least, most) => format!("from {least} to {most}"),
    }
}

/// Reads a number of a range.
pub(crate) fn number<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<T, NoNumber> + Clone {
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| NoNumber(range.clone()))
    }
}

/// A port, which has to be named.
pub(crate) fn port(text: &str) -> Result<u16, NoNumber> {
    number(1..=u16::MAX.into())(text)
}

/// How many there are to be of something, at least one.
pub(crate) fn count(text: &str) -> Result<NonZeroUsize, NoNumber> {
    let none = || NoNumber(1..=u64::MAX);
    number::<usize>(1..=u64::MAX)(text).and_then(|count| NonZeroUsize::new(count).ok_or_else(none))
}

/// A priority or a weight of an RLOC (RFC 9301 section 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Octet(pub(crate) u8);

impl FromStr for Octet {
    type Err = NoNumber;

    fn from_str(text: &str) -> Result<Self, NoNumber> {
        number(0..=u8::MAX.into())(text).map(Self)
    }
}
