//! Map-Notify and Map-Notify-Ack (RFC 9301 section 5.7).

use super::map_register::{AuthData, XTR_TRAILER_LEN, Xtr};
use super::record::read_records;
use super::{EncodeOptions, List, MessageType, Reader, Record, all_or_nothing, count, read_type};
use crate::error::{DecodeError, DecodeErrorKind, EncodeError, Part};

/// Which of the two messages of RFC 9301 section 5.7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum NotifyKind {
    /// Type 4.
    #[default]
    Notify,
    /// Type 5: acknowledges an unsolicited Map-Notify.
    Ack,
}

impl NotifyKind {
    const fn message_type(self) -> MessageType {
        match self {
            Self::Notify => MessageType::MapNotify,
            Self::Ack => MessageType::MapNotifyAck,
        }
    }
}

/// A Map-Notify or a Map-Notify-Ack: they differ in their type only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MapNotify<'a> {
    /// Which of the two.
    pub kind: NotifyKind,
    /// The nonce of the Map-Register or Map-Request it answers; in a publication, one more than in the
    /// one before (RFC 9437 section 6); in an Ack, that of the Map-Notify.
    pub nonce: u64,
    /// Authentication.
    pub auth: AuthData<'a>,
    /// The mappings, at most 255.
    pub records: List<'a, Record<'a>>,
    /// RFC 9301 has no I bit here, so leave it `None` when sending; some deployed Map-Servers append
    /// these 24 octets nevertheless, and then they are read.
    pub xtr: Option<Xtr>,
}

impl<'a> MapNotify<'a> {
    /// Decodes a message of either kind. Its authentication is not verified here.
    ///
    /// # Errors
    /// When `octets` are not one whole Map-Notify or Map-Notify-Ack.
    pub fn decode(octets: &'a [u8]) -> Result<Self, DecodeError> {
        let reader = &mut Reader::new(octets);
        let kind = match MessageType::of(octets) {
            Ok(MessageType::MapNotifyAck) => NotifyKind::Ack,
            _ => NotifyKind::Notify,
        };
        let part = match kind {
            NotifyKind::Notify => Part::MapNotify,
            NotifyKind::Ack => Part::MapNotifyAck,
        };
        Self::read(reader, kind).map_err(|e| e.within(part))
    }

    fn read(reader: &mut Reader<'a>, kind: NotifyKind) -> Result<Self, DecodeError> {
        read_type(reader, kind.message_type())?;
        let [_, _, record_count] = reader.array("flags")?;
        let nonce = reader.u64("Nonce")?;
        let auth = AuthData::read(reader)?;
        let records = read_records(reader, record_count)?;
        let xtr = match reader.remaining() {
            0 => None,
            XTR_TRAILER_LEN => Some(Xtr::read(reader)?),
            extra => {
                let kind = DecodeErrorKind::Trailing { extra };
                return Err(Reader::error(reader.offset(), "end of message", kind));
            }
        };
        Ok(Self { kind, nonce, auth, records, xtr })
    }

    /// Appends the message to `out`.
    ///
    /// # Errors
    /// With more than 255 records, or when a record cannot be encoded; `out` is then as before.
    pub fn encode(&self, out: &mut Vec<u8>, options: EncodeOptions) -> Result<(), EncodeError> {
        all_or_nothing(out, |out| {
            let record_count = count("records", self.records.len())?;
            out.extend_from_slice(&[(self.kind.message_type() as u8) << 4, 0, 0, record_count]);
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
    use super::*;
    use crate::testing::{assert_error, assert_prefixes_fail, hex};

    const BODY: &str = "0000000000000007 01 02 0002 abcd
        00000000 00 30 b000 0001 4003 0000 0200 000c 00001388 4005 02000000000b";

    #[test]
    fn notify_and_ack() {
        for (head, kind) in [("40000001", NotifyKind::Notify), ("50000001", NotifyKind::Ack)] {
            let octets = hex(&format!("{head}{BODY}"));
            let notify = MapNotify::decode(&octets).unwrap();
            assert_eq!((notify.kind, notify.nonce, notify.xtr), (kind, 7, None));
            assert_eq!(notify.auth, AuthData { key_id: 1, algorithm: 2, mac: &[0xab, 0xcd] });
            let record = notify.records.first().unwrap();
            assert_eq!(record.action, super::super::Action::DropAuthFailure);
            assert!(record.authoritative);
            let mut out = Vec::new();
            notify.encode(&mut out, EncodeOptions::default()).unwrap();
            assert_eq!(out, octets);
            assert_prefixes_fail(&octets, |cut| MapNotify::decode(cut).err());
        }
    }

    #[test]
    fn trailing_xtr_id_is_read() {
        let octets = hex(&format!("40000001{BODY} 000102030405060708090a0b0c0d0e0f 00000000000000aa"));
        let notify = MapNotify::decode(&octets).unwrap();
        assert_eq!(notify.xtr.map(|xtr| xtr.site_id), Some(0xaa));
        let mut out = Vec::new();
        notify.encode(&mut out, EncodeOptions::default()).unwrap();
        assert_eq!(out, octets);
    }

    #[test]
    fn malformed() {
        let octets = hex(&format!("50000001{BODY} 00"));
        let kind = DecodeErrorKind::Trailing { extra: 1 };
        assert_error(MapNotify::decode(&octets), &[Part::MapNotifyAck], "end of message", 48, kind);
        let octets = hex(&format!("40000002{BODY}"));
        assert_error(
            MapNotify::decode(&octets),
            &[Part::MapNotify, Part::Record(1)],
            "Record TTL",
            48,
            DecodeErrorKind::Truncated { needed: 4, available: 0 },
        );
    }
}
