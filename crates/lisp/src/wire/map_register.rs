//! Map-Register (RFC 9301 section 5.6), and the fields it shares with Map-Notify.

use super::record::read_records;
use super::{EncodeOptions, List, MessageType, Reader, Record, all_or_nothing, bit, count, read_type};
use crate::error::{DecodeError, EncodeError, Part};

/// Octets of xTR-ID and Site-ID together.
pub const XTR_TRAILER_LEN: usize = 24;

/// Who an xTR is: unique in a LISP domain (RFC 9301 section 5.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Xtr {
    /// 128-bit xTR-ID.
    pub xtr_id: [u8; 16],
    /// 64-bit Site-ID.
    pub site_id: u64,
}

impl Xtr {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { xtr_id: reader.array("xTR-ID")?, site_id: reader.u64("Site-ID")? })
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.xtr_id);
        out.extend_from_slice(&self.site_id.to_be_bytes());
    }
}

/// Key ID, Algorithm ID and Authentication Data (RFC 9301 section 5.6).
///
/// To send a message, encode it with [`Algorithm::placeholder`](crate::auth::Algorithm::placeholder) and
/// then call [`auth::sign`](crate::auth::sign) on the octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct AuthData<'a> {
    /// Which pre-shared secret.
    pub key_id: u8,
    /// Algorithm ID (RFC 9301 section 12.5).
    pub algorithm: u8,
    /// The MAC, or zeros to be filled in. Empty when the message is not authenticated.
    pub mac: &'a [u8],
}

impl<'a> AuthData<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let key_id = reader.u8("Key ID")?;
        let algorithm = reader.u8("Algorithm ID")?;
        let length = reader.u16("Authentication Data Length")?;
        Ok(Self { key_id, algorithm, mac: reader.take(usize::from(length), "Authentication Data")? })
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let length = u16::try_from(self.mac.len()).map_err(|_| EncodeError::TooLong {
            what: "Authentication Data",
            length: self.mac.len(),
            max: usize::from(u16::MAX),
        })?;
        out.extend_from_slice(&[self.key_id, self.algorithm]);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(self.mac);
        Ok(())
    }
}

/// A Map-Register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MapRegister<'a> {
    /// P bit: the Map-Server shall answer Map-Requests itself.
    pub proxy_reply: bool,
    /// S bit: the sender does LISP-SEC (RFC 9303).
    pub security: bool,
    /// E bit: sent by a first-hop router that discovered a dynamic EID.
    pub eid_notify: bool,
    /// T bit: registrations time out by their Record TTL.
    pub use_ttl: bool,
    /// a bit: merge with what other xTRs register for the same EID (RFC 8378).
    pub merge: bool,
    /// M bit: a Map-Notify is wanted.
    pub want_notify: bool,
    /// Higher in each message under one key.
    pub nonce: u64,
    /// Authentication.
    pub auth: AuthData<'a>,
    /// The mappings, at most 255.
    pub records: List<'a, Record<'a>>,
    /// I bit: who registers.
    pub xtr: Option<Xtr>,
}

impl<'a> MapRegister<'a> {
    /// Decodes a message. Its authentication is not verified here.
    ///
    /// # Errors
    /// When `octets` are not one whole Map-Register.
    pub fn decode(octets: &'a [u8]) -> Result<Self, DecodeError> {
        Self::read(&mut Reader::new(octets)).map_err(|e| e.within(Part::MapRegister))
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let first = read_type(reader, MessageType::MapRegister)?;
        let [_, third, record_count] = reader.array("flags")?;
        let nonce = reader.u64("Nonce")?;
        let auth = AuthData::read(reader)?;
        let records = read_records(reader, record_count)?;
        let xtr = if first & 2 != 0 { Some(Xtr::read(reader)?) } else { None };
        reader.finish("end of message")?;
        Ok(Self {
            proxy_reply: first & 8 != 0,
            security: first & 4 != 0,
            eid_notify: third & 0x10 != 0,
            use_ttl: third & 8 != 0,
            merge: third & 4 != 0,
            want_notify: third & 1 != 0,
            nonce,
            auth,
            records,
            xtr,
        })
    }

    /// Appends the message to `out`.
    ///
    /// # Errors
    /// With more than 255 records, or when a record cannot be encoded; `out` is then as before.
    pub fn encode(&self, out: &mut Vec<u8>, options: EncodeOptions) -> Result<(), EncodeError> {
        all_or_nothing(out, |out| {
            let record_count = count("records", self.records.len())?;
            let first = (MessageType::MapRegister as u8) << 4
                | bit(self.proxy_reply, 8)
                | bit(self.security, 4)
                | bit(self.xtr.is_some(), 2);
            let third = bit(self.eid_notify, 0x10)
                | bit(self.use_ttl, 8)
                | bit(self.merge, 4)
                | bit(self.want_notify, 1);
            out.extend_from_slice(&[first, 0, third, record_count]);
            out.extend_from_slice(&self.nonce.to_be_bytes());
            self.auth.write(out)?;
            self.records.iter().try_for_each(|record| record.write(out, options))?;
            if let Some(xtr) = &self.xtr {
                xtr.write(out);
            }
            Ok(())
        })
    }
}
