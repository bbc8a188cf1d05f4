//! Map-Reply (RFC 9301 section 5.4).

use super::record::read_records;
use super::{EncodeOptions, List, MessageType, Reader, Record, all_or_nothing, bit, count, read_type};
use crate::error::{DecodeError, EncodeError, Part};

/// A Map-Reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MapReply<'a> {
    /// P bit: the answer to an RLOC probe. Every record must then be authoritative.
    pub probe: bool,
    /// E bit: the site does Echo-Nonce.
    pub echo_nonce: bool,
    /// S bit: LISP-SEC authentication data (RFC 9303) behind the records, not looked into here.
    pub security: Option<&'a [u8]>,
    /// The nonce of the Map-Request.
    pub nonce: u64,
    /// The mappings, at most 255. May be more than were asked for.
    pub records: List<'a, Record<'a>>,
}

impl<'a> MapReply<'a> {
    /// Decodes a message.
    ///
    /// # Errors
    /// When `octets` are not one whole Map-Reply.
    pub fn decode(octets: &'a [u8]) -> Result<Self, DecodeError> {
        Self::read(&mut Reader::new(octets)).map_err(|e| e.within(Part::MapReply))
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let first = read_type(reader, MessageType::MapReply)?;
        let [_, _, record_count] = reader.array("flags")?;
        let nonce = reader.u64("Nonce")?;
        let records = read_records(reader, record_count)?;
        let security = if first & 2 != 0 { Some(reader.rest()) } else { None };
        reader.finish("end of message")?;
        Ok(Self { probe: first & 8 != 0, echo_nonce: first & 4 != 0, security, nonce, records })
    }

    /// Appends the message to `out`.
    ///
    /// # Errors
    /// With more than 255 records, or when a record cannot be encoded; `out` is then as before.
    pub fn encode(&self, out: &mut Vec<u8>, options: EncodeOptions) -> Result<(), EncodeError> {
        all_or_nothing(out, |out| {
            let record_count = count("records", self.records.len())?;
            let first = (MessageType::MapReply as u8) << 4
                | bit(self.probe, 8)
                | bit(self.echo_nonce, 4)
                | bit(self.security.is_some(), 2);
            out.extend_from_slice(&[first, 0, 0, record_count]);
            out.extend_from_slice(&self.nonce.to_be_bytes());
            self.records.iter().try_for_each(|record| record.write(out, options))?;
            out.extend_from_slice(self.security.unwrap_or_default());
            Ok(())
        })
    }
}
