//! Frames on a byte stream.

use super::Body;
use crate::error::{DecodeError, EncodeError};
use crate::wire::all_or_nothing;

/// The last 4 octets of every frame.
pub const END_MARKER: u32 = 0x9fac_ade9;
/// Octets of a frame without data.
pub const MIN_FRAME_LEN: u16 = 12;
/// The longest frame that the 16-bit Length can say.
pub const MAX_FRAME_LEN: u16 = u16::MAX;

const HEADER_LEN: usize = 8;
const MARKER_LEN: usize = 4;

/// One frame, its data not yet looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Frame type.
    pub frame_type: u16,
    /// The sender's number for it; answers name it.
    pub id: u32,
    /// What stands between header and end marker.
    pub data: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Decodes the data according to the type.
    ///
    /// # Errors
    /// When the data are not those of that type, with offsets counted from the start of the data. The
    /// stream is still in step: an Error Notification can answer, and reading go on.
    pub fn body(&self) -> Result<Body<'a>, DecodeError> {
        Body::decode(self)
    }
}

/// Why a stream is no longer a sequence of frames. The session must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A Length that does not even measure header and end marker.
    #[error("frame length {length} at octet {offset} of the stream, at least {MIN_FRAME_LEN} are needed")]
    TooShort {
        /// Octets of the stream before the frame.
        offset: u64,
        /// The length found.
        length: u16,
    },
    /// A frame longer than this receiver takes.
    #[error("frame length {length} at octet {offset} of the stream, at most {max} are accepted")]
    TooLong {
        /// Octets of the stream before the frame.
        offset: u64,
        /// The length found.
        length: u16,
        /// The longest accepted.
        max: u16,
    },
    /// A frame that does not end as frames end.
    #[error("frame at octet {offset} of the stream ends with {found:#010x}, not the end marker")]
    EndMarker {
        /// Octets of the stream before the frame.
        offset: u64,
        /// What stood there.
        found: u32,
    },
}

/// Cuts a byte stream into frames.
///
/// Holds at most what was pushed and not yet taken out; a caller that takes all frames out after each
/// push has at most one incomplete frame in here.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FrameDecoder {
    buf: Vec<u8>,
    /// Octets at the start of `buf` that are done with.
    taken: usize,
    /// Octets of the stream before `buf`.
    before: u64,
    max: u16,
}

impl Default for FrameDecoder {
    fn default() -> Self {
        Self::new(MAX_FRAME_LEN)
    }
}

impl FrameDecoder {
    /// A decoder that refuses frames longer than `max` octets.
    pub const fn new(max: u16) -> Self {
        Self { buf: Vec::new(), taken: 0, before: 0, max }
    }

    /// Adds the next octets of the stream.
    pub fn push(&mut self, octets: &[u8]) {
        self.buf.drain(..self.taken);
        self.before += self.taken as u64;
        self.taken = 0;
        self.buf.extend_from_slice(octets);
    }

    /// Takes out the next frame; `None` when more octets are needed.
    ///
    /// # Errors
    /// [`FrameError`]: the stream is out of step. Every later call returns the same error.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        let offset = self.before + self.taken as u64;
        let rest = self.buf.get(self.taken..).unwrap_or_default();
        let &[t0, t1, l0, l1, ..] = rest else { return Ok(None) };
        let length = u16::from_be_bytes([l0, l1]);
        if length < MIN_FRAME_LEN {
            return Err(FrameError::TooShort { offset, length });
        }
        if length > self.max {
            return Err(FrameError::TooLong { offset, length, max: self.max });
        }
        let Some(frame) = rest.get(..usize::from(length)) else { return Ok(None) };
        let (head, marker) = frame.split_at(frame.len() - MARKER_LEN);
        let (head, data) = head.split_at(HEADER_LEN);
        let found = be32(marker);
        if found != END_MARKER {
            return Err(FrameError::EndMarker { offset, found });
        }
        self.taken += usize::from(length);
        let id = head.get(4..).map_or(0, be32);
        Ok(Some(Frame { frame_type: u16::from_be_bytes([t0, t1]), id, data }))
    }

    /// Octets held that no frame was made of yet.
    pub fn pending(&self) -> usize {
        self.buf.len() - self.taken
    }
}

fn be32(octets: &[u8]) -> u32 {
    octets.first_chunk().copied().map_or(0, u32::from_be_bytes)
}

/// Appends a frame around whatever `write` appends to `out`.
///
/// # Errors
/// Those of `write`, and when the frame gets longer than its Length can say; `out` is then as before.
pub fn encode_frame(
    out: &mut Vec<u8>,
    frame_type: u16,
    id: u32,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    all_or_nothing(out, |out| {
        let start = out.len();
        out.extend_from_slice(&frame_type.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&id.to_be_bytes());
        write(out)?;
        out.extend_from_slice(&END_MARKER.to_be_bytes());
        let length = out.len() - start;
        let max = usize::from(MAX_FRAME_LEN);
        let field = u16::try_from(length).map_err(|_| EncodeError::TooLong { what: "frame", length, max })?;
        if let Some(at) = out.get_mut(start + 2..start + 4) {
            at.copy_from_slice(&field.to_be_bytes());
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hex;

    const TWO: &str = "0014 000f 00000001 000000 9facade9  001f 000c 00000002 9facade9";

    fn drain(decoder: &mut FrameDecoder) -> Vec<(u16, u32, Vec<u8>)> {
        let mut frames = Vec::new();
        while let Some(frame) = decoder.next_frame().unwrap() {
            frames.push((frame.frame_type, frame.id, frame.data.to_vec()));
        }
        frames
    }

    #[test]
    fn however_the_stream_is_cut() {
        let stream = hex(TWO);
        let expected = vec![(20, 1, vec![0, 0, 0]), (31, 2, vec![])];
        for size in 1..=stream.len() {
            let mut decoder = FrameDecoder::default();
            let mut frames = Vec::new();
            for piece in stream.chunks(size) {
                decoder.push(piece);
                frames.extend(drain(&mut decoder));
                assert!(decoder.pending() < 15);
            }
            assert_eq!(frames, expected, "pieces of {size}");
            assert_eq!(decoder.pending(), 0);
        }
    }

    #[test]
    fn errors_close_the_stream() {
        let after = |bad: &str, max| {
            let mut decoder = FrameDecoder::new(max);
            decoder.push(&hex(TWO));
            assert_eq!(drain(&mut decoder).len(), 2);
            decoder.push(&hex(bad));
            let error = decoder.next_frame().unwrap_err();
            decoder.push(&hex(TWO));
            assert_eq!(decoder.next_frame(), Err(error), "the same error again");
            error
        };
        let offset = 27;
        assert_eq!(after("0014 000b", 100), FrameError::TooShort { offset, length: 11 });
        assert_eq!(after("0014 0065", 100), FrameError::TooLong { offset, length: 101, max: 100 });
        assert_eq!(
            after("0014 000c 00000001 9facade8", 100),
            FrameError::EndMarker { offset, found: 0x9fac_ade8 }
        );
    }

    #[test]
    fn longer_than_a_length_can_say() {
        let mut out = vec![1];
        let error = encode_frame(&mut out, 99, 0, |out| {
            out.resize(out.len() + 65_524, 0);
            Ok(())
        });
        assert_eq!(error, Err(EncodeError::TooLong { what: "frame", length: 65_536, max: 65_535 }));
        assert_eq!(out, [1]);
    }
}
