//! Whatever another NVE says in a line is read, or refused; what is read is written as the same again.

use super::super::wire::{Line, Question};
use super::fabric::*;
use super::stream::{delta, live};
use crate::core::Context;
use proptest::prelude::*;

/// Lines that are right, as they are sent.
fn lines() -> Vec<Vec<u8>> {
    let whole = Context { live: live(), ..context() };
    let all =
        [Line::context(whole), Line::delta(delta()), Line::Stopping, Line::Resumed, Line::End, Line::Alive];
    all.iter().map(Line::octets).collect()
}

/// Reads it to the end of what can be read.
fn read(octets: &[u8]) {
    let Ok(line) = Line::read(octets) else { return };
    assert_eq!(Line::read(&line.octets()).unwrap(), line);
    match line {
        Line::Context(line) => drop(line.read()),
        Line::Delta(line) => drop(line.read(tsi().vni)),
        Line::Stopping | Line::Resumed | Line::End | Line::Alive => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn v2_any_octets(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
        read(&octets);
        drop(Question::read(&octets));
    }

    /// A right one with octets put over it, cut out and cut off.
    #[test]
    fn v2_nearly_right(
        which in 0..5_usize,
        put in proptest::collection::vec((any::<prop::sample::Index>(), prop::sample::select(b"0123456789-\"{}[]:,.eaz\xff".as_slice())), 0..4),
        cut in any::<(prop::sample::Index, prop::sample::Index)>(),
        off in any::<bool>(),
    ) {
        let mut line = lines().swap_remove(which);
        for (at, octet) in put {
            let at = at.index(line.len());
            line[at] = octet;
        }
        if off {
            let (a, b) = (cut.0.index(line.len()), cut.1.index(line.len()));
            line.drain(a.min(b)..a.max(b));
        }
        read(&line);
    }
}
