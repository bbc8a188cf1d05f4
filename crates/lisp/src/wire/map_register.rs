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

#[cfg(test)]
mod tests {
    use super::super::{Address, Locator};
    use super::*;
    use crate::error::DecodeErrorKind;
    use crate::testing::{assert_error, assert_prefixes_fail, hex};
    use std::net::Ipv4Addr;

    const EVERYTHING: &str = "3e001d01 0000000000000007 03 02 0010 000102030405060708090a0b0c0d0e0f
        00000005 01 20 1000 0001 0001 0a000001 01 64 ff 00 0005 0001 c0000201
        000102030405060708090a0b0c0d0e0f 00000000000000aa";

    #[test]
    fn every_field_at_its_place() {
        let id: [u8; 16] = std::array::from_fn(|i| u8::try_from(i).unwrap());
        let locators = [Locator { local: true, ..Locator::new(Ipv4Addr::new(192, 0, 2, 1), 1) }];
        let records = [Record {
            ttl: 5,
            mask_len: 32,
            authoritative: true,
            map_version: super::super::MapVersion::new(1).unwrap(),
            eid: Address::Ipv4([10, 0, 0, 1].into()),
            locators: (&locators).into(),
            ..Record::default()
        }];
        let register = MapRegister {
            proxy_reply: true,
            security: true,
            eid_notify: true,
            use_ttl: true,
            merge: true,
            want_notify: true,
            nonce: 7,
            auth: AuthData { key_id: 3, algorithm: 2, mac: &id },
            records: (&records).into(),
            xtr: Some(Xtr { xtr_id: id, site_id: 0xaa }),
        };
        let octets = hex(EVERYTHING);
        let mut out = Vec::new();
        register.encode(&mut out, EncodeOptions::default()).unwrap();
        assert_eq!(out, octets);
        assert_eq!(MapRegister::decode(&octets), Ok(register));
        assert_prefixes_fail(&octets, |cut| MapRegister::decode(cut).err());
    }

    #[test]
    fn bits_one_by_one() {
        fn bits(head: &str) -> [bool; 6] {
            let trailer = "00".repeat(if head == "32000000" { 24 } else { 0 });
            let octets = hex(&format!("{head} 0000000000000007 0000 0000 {trailer}"));
            let m = MapRegister::decode(&octets).unwrap();
            assert_eq!(m.xtr.is_some(), head == "32000000");
            let mut out = Vec::new();
            m.encode(&mut out, EncodeOptions::default()).unwrap();
            assert_eq!(out, octets);
            [m.proxy_reply, m.security, m.eid_notify, m.use_ttl, m.merge, m.want_notify]
        }
        let only = |i: usize| std::array::from_fn(|n| n == i);
        assert_eq!(bits("38000000"), only(0));
        assert_eq!(bits("34000000"), only(1));
        assert_eq!(bits("30001000"), only(2));
        assert_eq!(bits("30000800"), only(3));
        assert_eq!(bits("30000400"), only(4));
        assert_eq!(bits("30000100"), only(5));
        assert_eq!(bits("32000000"), only(9));
    }

    #[test]
    fn malformed() {
        use DecodeErrorKind::{Trailing, Truncated};
        let decode = |octets: &str| MapRegister::decode(&hex(octets)).map(|_| ());
        assert_error(
            decode("30000000 0000000000000007 0302 0010 0001"),
            &[Part::MapRegister],
            "Authentication Data",
            16,
            Truncated { needed: 16, available: 2 },
        );
        assert_error(
            decode("32000000 0000000000000007 0000 0000 000102030405060708090a0b0c0d0e0f 00"),
            &[Part::MapRegister],
            "Site-ID",
            32,
            Truncated { needed: 8, available: 1 },
        );
        // An xTR-ID that no I bit announces.
        assert_error(
            decode("30000000 0000000000000007 0000 0000 000102030405060708090a0b0c0d0e0f 0000000000000000"),
            &[Part::MapRegister],
            "end of message",
            16,
            Trailing { extra: 24 },
        );
    }
}
