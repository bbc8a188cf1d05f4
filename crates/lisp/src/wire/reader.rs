//! A bounded cursor that names the field and the offset in every error.

use crate::error::{DecodeError, DecodeErrorKind};

/// A cursor over one message; offsets count from the start of that message.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    /// The message up to the limit of what may be read.
    buf: &'a [u8],
    pos: usize,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(buf: &'a [u8]) -> Self {
        Self { buf, pos: 0 }
    }

    pub(crate) const fn offset(&self) -> usize {
        self.pos
    }

    pub(crate) const fn remaining(&self) -> usize {
        self.buf.len() - self.pos
    }

    /// An error about a field that starts at `offset`.
    pub(crate) const fn error(offset: usize, field: &'static str, kind: DecodeErrorKind) -> DecodeError {
        DecodeError::new(offset, field, kind)
    }

    pub(crate) fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let rest = self.buf.get(self.pos..).unwrap_or_default();
        match rest.get(..len) {
            Some(bytes) => {
                self.pos += len;
                Ok(bytes)
            }
            None => Err(Self::error(
                self.pos,
                field,
                DecodeErrorKind::Truncated { needed: len, available: rest.len() },
            )),
        }
    }

    pub(crate) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, field)?);
        Ok(out)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(field).map(|[b]| b)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(u64::from_be_bytes)
    }

    /// Everything that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        let rest = self.buf.get(self.pos..).unwrap_or_default();
        self.pos = self.buf.len();
        rest
    }

    /// The octets between `start` and the cursor.
    pub(crate) fn since(&self, start: usize) -> &'a [u8] {
        self.buf.get(start..self.pos).unwrap_or_default()
    }

    /// A reader of the next `len` octets only, keeping offsets; this one continues behind them.
    pub(crate) fn split(&mut self, len: usize, field: &'static str) -> Result<Self, DecodeError> {
        let start = self.pos;
        self.take(len, field)?;
        Ok(Self { buf: self.buf.get(..start + len).unwrap_or_default(), pos: start })
    }

    /// Fails unless everything was read.
    pub(crate) fn finish(&self, field: &'static str) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            extra => Err(Self::error(self.pos, field, DecodeErrorKind::Trailing { extra })),
        }
    }
}
