//! Forms that own their memory, for tables and queues off the request path.

use std::fmt;

use super::list::sealed::Read;
use super::{Address, EncodeOptions, Reader, Record};
use crate::error::EncodeError;

/// An [`Address`] that owns its octets.
///
/// Kept in its canonical encoding: equal addresses are equal, ordered and hashed alike.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AddressBuf(Box<[u8]>);

impl AddressBuf {
    /// A copy of `address`.
    ///
    /// # Errors
    /// When the address has no encoding.
    pub fn new(address: &Address<'_>) -> Result<Self, EncodeError> {
        let mut octets = Vec::new();
        address.write(&mut octets, EncodeOptions::default(), 0)?;
        Ok(Self(octets.into()))
    }

    /// A view of it.
    pub fn get(&self) -> Address<'_> {
        // Encoded by `new`, hence decodable.
        Address::read(&mut Reader::new(&self.0)).unwrap_or_default()
    }
}

impl fmt::Debug for AddressBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// A [`Record`] that owns its octets.
///
/// Kept in its canonical encoding: equal records are equal, ordered and hashed alike.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordBuf(Box<[u8]>);

impl RecordBuf {
    /// A copy of `record`.
    ///
    /// # Errors
    /// When the record has no encoding.
    pub fn new(record: &Record<'_>) -> Result<Self, EncodeError> {
        let mut octets = Vec::new();
        record.write(&mut octets, EncodeOptions::default())?;
        Ok(Self(octets.into()))
    }

    /// Its canonical encoding.
    pub fn octets(&self) -> &[u8] {
        &self.0
    }

    /// A view of it.
    pub fn get(&self) -> Record<'_> {
        // Encoded by `new`, hence decodable.
        Record::read(&mut Reader::new(&self.0)).unwrap_or_default()
    }
}

impl fmt::Debug for RecordBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}
