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

#[cfg(test)]
mod tests {
    use super::super::{Action, Address, Locator, MapVersion};
    use super::*;
    use crate::error::DecodeErrorKind;
    use crate::testing::{assert_error, assert_prefixes_fail, hex};
    use std::net::{Ipv4Addr, Ipv6Addr};

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xb];

    #[test]
    fn ip_to_mac_and_mac_to_rloc_in_one_reply() {
        let octets = hex("20000002 00000000000000aa
            00000f00 01 20 0000 0000 4003 0000 0200 000a 00001388 0001 0a000002
                ff 00 ff 00 0001 4005 02000000000b
            00000f00 01 30 0000 0fff 4003 0000 0200 000c 00001388 4005 02000000000b
                01 64 ff 00 0001 0001 c0000202");
        let mac = [Locator::mac(MAC)];
        let rloc = [Locator::new(Ipv4Addr::new(192, 0, 2, 2), 1)];
        let records = [
            Record {
                ttl: 0xf00,
                mask_len: 32,
                eid: Address::in_instance(5000, Ipv4Addr::new(10, 0, 0, 2)),
                locators: (&mac).into(),
                ..Record::default()
            },
            Record {
                ttl: 0xf00,
                mask_len: 48,
                map_version: MapVersion::MAX,
                eid: Address::in_instance(5000, MAC),
                locators: (&rloc).into(),
                ..Record::default()
            },
        ];
        let reply = MapReply { nonce: 0xaa, records: (&records).into(), ..MapReply::default() };
        let mut out = Vec::new();
        reply.encode(&mut out, EncodeOptions::default()).unwrap();
        assert_eq!(out, octets);
        assert_eq!(MapReply::decode(&octets), Ok(reply));
        assert_prefixes_fail(&octets, |cut| MapReply::decode(cut).err());
    }

    #[test]
    fn negative_reply() {
        let octets =
            hex("20000001 00000000000000aa 00000001 00 80 6000 0000 0002 fd000000000000000000000000000002");
        let reply = MapReply::decode(&octets).unwrap();
        let record = reply.records.first().unwrap();
        assert_eq!((record.action, record.ttl, record.mask_len), (Action::Drop, 1, 128));
        assert_eq!(record.eid, Address::Ipv6("fd00::2".parse::<Ipv6Addr>().unwrap()));
        assert!(record.locators.is_empty() && !record.authoritative);
    }

    #[test]
    fn flags_and_security_data() {
        // P, E and S; reserved bits are set and ignored; the security data are kept.
        let octets = hex("2fffff01 0000000000000001 00000001 01 20 1fff f001 0001 0a000002
            01 02 03 04 fff8 0001 c0000202 aabb");
        let reply = MapReply::decode(&octets).unwrap();
        assert!(reply.probe && reply.echo_nonce);
        assert_eq!(reply.security, Some(&[0xaa, 0xbb][..]));
        let record = reply.records.first().unwrap();
        assert_eq!((record.authoritative, record.map_version.get()), (true, 1));
        let l = record.locators.first().unwrap();
        assert_eq!((l.priority, l.weight, l.m_priority, l.m_weight), (1, 2, 3, 4));
        assert_eq!((l.local, l.probed, l.reachable), (false, false, false));
        let mut out = Vec::new();
        reply.encode(&mut out, EncodeOptions::default()).unwrap();
        assert_eq!(out[..4], hex("2e000001"));
        assert_eq!(out[out.len() - 2..], [0xaa, 0xbb]);
    }

    #[test]
    fn malformed() {
        use DecodeErrorKind::{Trailing, Truncated, UnknownAfi};
        let decode = |octets: &str| MapReply::decode(&hex(octets)).map(|_| ());
        let record = "00000001 01 20 0000 0000 0001 0a000002";
        assert_error(
            decode(&format!("20000001 0000000000000001 {record} 01640000 0000 0011 6162")),
            &[Part::MapReply, Part::Record(0), Part::Locator(0)],
            "AFI",
            34,
            UnknownAfi { afi: 17 },
        );
        assert_error(
            decode(&format!("200000ff 0000000000000001 {record}")),
            &[Part::MapReply],
            "records",
            12,
            Truncated { needed: 3060, available: 16 },
        );
        assert_error(
            decode("20000000 0000000000000001 0000"),
            &[Part::MapReply],
            "end of message",
            12,
            Trailing { extra: 2 },
        );
    }

    #[test]
    fn error_reads_as_a_path() {
        let octets = hex("20000001 0000000000000001 00000001 00 20 0000 0000 0009 0a000002");
        assert_eq!(
            MapReply::decode(&octets).unwrap_err().to_string(),
            "in Map-Reply: in record 0: in EID: AFI at octet 22: unknown address family 9; \
             known are 0, 1, 2, 6, 16387 and 16389"
        );
    }
}
