//! Sequences that are either octets of a decoded message or a slice to be encoded.

use std::fmt;

use super::reader::Reader;
use crate::error::{DecodeError, Part};

/// What a [`List`] can hold. Implemented by this crate's wire types only.
pub trait Item<'a>: sealed::Read<'a> {}

pub(crate) mod sealed {
    use super::{DecodeError, Reader};

    pub trait Read<'a>: Copy {
        fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError>;
    }
}

/// An immutable sequence without its own memory: a view into a received message whose every entry was
/// validated when the message was decoded, or a borrowed slice on the way into a message.
///
/// Two lists are equal when their entries are, wherever those are kept.
#[derive(Clone, Copy)]
pub struct List<'a, T>(Repr<'a, T>);

#[derive(Clone, Copy)]
enum Repr<'a, T> {
    Slice(&'a [T]),
    Wire { bytes: &'a [u8], len: usize },
}

impl<'a, T: Item<'a>> List<'a, T> {
    /// A list of the entries of `slice`.
    pub const fn new(slice: &'a [T]) -> Self {
        Self(Repr::Slice(slice))
    }

    /// Reads and validates `len` entries.
    pub(crate) fn read(
        reader: &mut Reader<'a>,
        len: usize,
        part: impl Fn(u8) -> Part,
    ) -> Result<Self, DecodeError> {
        let start = reader.offset();
        for index in 0..len {
            T::read(reader).map_err(|e| e.within(part(u8::try_from(index).unwrap_or(u8::MAX))))?;
        }
        Ok(Self(Repr::Wire { bytes: reader.since(start), len }))
    }

    /// A list of `len` entries that were read before from exactly these octets.
    pub(crate) const fn from_validated(bytes: &'a [u8], len: usize) -> Self {
        Self(Repr::Wire { bytes, len })
    }

    /// Number of entries.
    pub const fn len(&self) -> usize {
        match self.0 {
            Repr::Slice(slice) => slice.len(),
            Repr::Wire { len, .. } => len,
        }
    }

    /// Whether there are no entries.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first entry.
    pub fn first(&self) -> Option<T> {
        self.iter().next()
    }

    /// The entries in wire order.
    pub fn iter(&self) -> Iter<'a, T> {
        Iter(match self.0 {
            Repr::Slice(slice) => IterRepr::Slice(slice.iter()),
            Repr::Wire { bytes, len } => IterRepr::Wire { reader: Reader::new(bytes), left: len },
        })
    }
}

impl<'a, T: Item<'a>> Default for List<'a, T> {
    fn default() -> Self {
        Self::new(&[])
    }
}

impl<'a, T: Item<'a>> From<&'a [T]> for List<'a, T> {
    fn from(slice: &'a [T]) -> Self {
        Self::new(slice)
    }
}

impl<'a, T: Item<'a>, const N: usize> From<&'a [T; N]> for List<'a, T> {
    fn from(array: &'a [T; N]) -> Self {
        Self::new(array)
    }
}

impl<'a, T: Item<'a>> From<&'a Vec<T>> for List<'a, T> {
    fn from(vec: &'a Vec<T>) -> Self {
        Self::new(vec)
    }
}

impl<'a, T: Item<'a>> IntoIterator for List<'a, T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a, T: Item<'a>> IntoIterator for &List<'a, T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a, T: Item<'a> + PartialEq> PartialEq for List<'a, T> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl<'a, T: Item<'a> + Eq> Eq for List<'a, T> {}

impl<'a, T: Item<'a> + fmt::Debug> fmt::Debug for List<'a, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Iterates over the entries of a [`List`]; cannot fail.
#[derive(Clone)]
pub struct Iter<'a, T>(IterRepr<'a, T>);

#[derive(Clone)]
enum IterRepr<'a, T> {
    Slice(std::slice::Iter<'a, T>),
    Wire { reader: Reader<'a>, left: usize },
}

impl<'a, T: Item<'a>> Iterator for Iter<'a, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match &mut self.0 {
            IterRepr::Slice(iter) => iter.next().copied(),
            IterRepr::Wire { reader, left } => {
                *left = left.checked_sub(1)?;
                // The octets were read once already, so an error cannot come up here.
                T::read(reader).ok()
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = match &self.0 {
            IterRepr::Slice(iter) => iter.len(),
            IterRepr::Wire { left, .. } => *left,
        };
        (left, Some(left))
    }
}

impl<'a, T: Item<'a>> ExactSizeIterator for Iter<'a, T> {}
