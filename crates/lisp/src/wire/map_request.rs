//! Map-Request (RFC 9301 section 5.2; N and I bits, xTR-ID and Site-ID: RFC 9437 section 4).

use super::list::{Item, sealed::Read};
use super::map_register::Xtr;
use super::{
    Address, EncodeOptions, List, MessageType, Reader, Record, all_or_nothing, bit, count, read_type,
};
use crate::error::{DecodeError, DecodeErrorKind, EncodeError, Part};

/// Most ITR-RLOCs that the 5-bit IRC field can say.
const MAX_ITR_RLOCS: usize = 32;

/// What a Map-Request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EidRecord<'a> {
    /// N bit: notify the sender of changes from now on (RFC 9437 section 4).
    pub notify: bool,
    /// Mask length of `eid`.
    pub mask_len: u8,
    /// The EID-Prefix asked for.
    pub eid: Address<'a>,
}

impl EidRecord<'_> {
    fn write(&self, out: &mut Vec<u8>, options: EncodeOptions) -> Result<(), EncodeError> {
        out.extend_from_slice(&[bit(self.notify, 0x80), self.mask_len]);
        self.eid.write(out, options, 0)
    }
}

impl<'a> Read<'a> for EidRecord<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let flags = reader.u8("N")?;
        let mask_len = reader.u8("EID mask-len")?;
        let eid = Address::read(reader).map_err(|e| e.within(Part::Eid))?;
        Ok(Self { notify: flags & 0x80 != 0, mask_len, eid })
    }
}

impl<'a> Item<'a> for EidRecord<'a> {}

/// A Map-Request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MapRequest<'a> {
    /// A bit: the destination site, not the mapping system, shall answer.
    pub authoritative: bool,
    /// P bit: this is an RLOC probe.
    pub probe: bool,
    /// S bit: this is a Solicit-Map-Request (RFC 9301 section 6.1).
    pub smr: bool,
    /// p bit: the sender is a PITR.
    pub pitr: bool,
    /// s bit: sent because of an SMR.
    pub smr_invoked: bool,
    /// L bit: the sender tells xTRs of its site that it is one of their RLOC-set.
    pub local_xtr: bool,
    /// D bit: do not answer with a Map-Reply.
    pub dont_map_reply: bool,
    /// Random value that comes back in the answer.
    pub nonce: u64,
    /// EID of the host whose packet caused the request, or no address.
    pub source_eid: Address<'a>,
    /// Where the answer may be sent to: 1 to 32 addresses. RFC 9437 section 5: a single
    /// [`Address::NoAddress`] with N set unsubscribes.
    pub itr_rlocs: List<'a, Address<'a>>,
    /// The EIDs asked for. Receivers take 1 to 255, senders send one.
    pub records: List<'a, EidRecord<'a>>,
    /// M bit: the mapping of the source EID, not validated by anybody.
    pub piggyback: Option<Record<'a>>,
    /// I bit: who asks.
    pub xtr: Option<Xtr>,
}

impl<'a> MapRequest<'a> {
    /// Decodes a message.
    ///
    /// # Errors
    /// When `octets` are not one whole Map-Request, or ask for nothing.
    pub fn decode(octets: &'a [u8]) -> Result<Self, DecodeError> {
        Self::read(&mut Reader::new(octets)).map_err(|e| e.within(Part::MapRequest))
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let first = read_type(reader, MessageType::MapRequest)?;
        let [second, third, record_count] = reader.array("flags")?;
        let nonce = reader.u64("Nonce")?;
        let source_eid = Address::read(reader).map_err(|e| e.within(Part::SourceEid))?;
        let itr_rlocs = List::read(reader, usize::from(third & 0x1f) + 1, Part::ItrRloc)?;
        if record_count == 0 {
            let kind = DecodeErrorKind::Value { value: 0, reason: "a request asks for at least one EID" };
            return Err(Reader::error(3, "Record Count", kind));
        }
        let records = List::read(reader, usize::from(record_count), Part::Record)?;
        let piggyback = if first & 4 != 0 {
            Some(Record::read(reader).map_err(|e| e.within(Part::Piggyback))?)
        } else {
            None
        };
        let xtr = if second & 0x10 != 0 { Some(Xtr::read(reader)?) } else { None };
        reader.finish("end of message")?;
        Ok(Self {
            authoritative: first & 8 != 0,
            probe: first & 2 != 0,
            smr: first & 1 != 0,
            pitr: second & 0x80 != 0,
            smr_invoked: second & 0x40 != 0,
            local_xtr: third & 0x40 != 0,
            dont_map_reply: third & 0x20 != 0,
            nonce,
            source_eid,
            itr_rlocs,
            records,
            piggyback,
            xtr,
        })
    }

    /// Appends the message to `out`.
    ///
    /// # Errors
    /// Without an ITR-RLOC or with more than 32, with more than 255 records, or when an address cannot be
    /// encoded; `out` is then as before.
    pub fn encode(&self, out: &mut Vec<u8>, options: EncodeOptions) -> Result<(), EncodeError> {
        all_or_nothing(out, |out| self.write(out, options))
    }

    fn write(&self, out: &mut Vec<u8>, options: EncodeOptions) -> Result<(), EncodeError> {
        let rlocs = self.itr_rlocs.len();
        let irc = rlocs.checked_sub(1).ok_or(EncodeError::NoItrRloc)?;
        let irc = u8::try_from(irc)
            .ok()
            .filter(|&irc| usize::from(irc) < MAX_ITR_RLOCS)
            .ok_or(EncodeError::TooMany { what: "ITR-RLOCs", count: rlocs, max: MAX_ITR_RLOCS })?;
        let record_count = count("records", self.records.len())?;
        out.extend_from_slice(&[
            (MessageType::MapRequest as u8) << 4
                | bit(self.authoritative, 8)
                | bit(self.piggyback.is_some(), 4)
                | bit(self.probe, 2)
                | bit(self.smr, 1),
            bit(self.pitr, 0x80) | bit(self.smr_invoked, 0x40) | bit(self.xtr.is_some(), 0x10),
            bit(self.local_xtr, 0x40) | bit(self.dont_map_reply, 0x20) | irc,
            record_count,
        ]);
        out.extend_from_slice(&self.nonce.to_be_bytes());
        self.source_eid.write(out, options, 0)?;
        self.itr_rlocs.iter().try_for_each(|rloc| rloc.write(out, options, 0))?;
        self.records.iter().try_for_each(|record| record.write(out, options))?;
        if let Some(record) = &self.piggyback {
            record.write(out, options)?;
        }
        if let Some(xtr) = &self.xtr {
            xtr.write(out);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Action, Locator, MapVersion};
    use super::*;
    use crate::testing::{assert_error, assert_prefixes_fail, hex};
    use std::net::{Ipv4Addr, Ipv6Addr};

    const EVERYTHING: &str = "1dd06101 0102030405060708
        4003 0000 0200 000a 00001388 0001 0a000001
        0001 c0000201
        0002 20010db8000000000000000000000001
        80 20 4003 0000 0200 000a 00001388 0001 0a000002
        00000005 01 20 1000 0007 4003 0000 0200 000a 00001388 0001 0a000001
            01 64 ff 00 0005 0001 c0000201
        000102030405060708090a0b0c0d0e0f 00000000000000aa";

    #[test]
    fn every_field_at_its_place() {
        let rloc = Ipv4Addr::new(192, 0, 2, 1);
        let rlocs = [rloc.into(), Address::Ipv6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];
        let source_eid = Address::in_instance(5000, Ipv4Addr::new(10, 0, 0, 1));
        let asked = [EidRecord {
            notify: true,
            mask_len: 32,
            eid: Address::in_instance(5000, Ipv4Addr::new(10, 0, 0, 2)),
        }];
        let locators = [Locator { local: true, ..Locator::new(rloc, 1) }];
        let request = MapRequest {
            authoritative: true,
            smr: true,
            pitr: true,
            smr_invoked: true,
            local_xtr: true,
            dont_map_reply: true,
            nonce: 0x0102_0304_0506_0708,
            source_eid,
            itr_rlocs: (&rlocs).into(),
            records: (&asked).into(),
            piggyback: Some(Record {
                ttl: 5,
                mask_len: 32,
                action: Action::NoAction,
                authoritative: true,
                map_version: MapVersion::new(7).unwrap(),
                eid: source_eid,
                locators: (&locators).into(),
            }),
            xtr: Some(Xtr { xtr_id: std::array::from_fn(|i| u8::try_from(i).unwrap()), site_id: 0xaa }),
            ..MapRequest::default()
        };
        let octets = hex(EVERYTHING);
        let mut out = vec![0xee];
        request.encode(&mut out, EncodeOptions::default()).unwrap();
        assert_eq!(out[1..], octets);
        assert_eq!(MapRequest::decode(&octets), Ok(request));
        assert_prefixes_fail(&octets, |cut| MapRequest::decode(cut).err());
    }

    #[test]
    fn probe_and_reserved_bits() {
        // P alone; every reserved bit is set and ignored.
        let octets = hex("12 2f 80 01 0000000000000001 0000 0001c0000201 7f 20 0001 0a000002");
        let request = MapRequest::decode(&octets).unwrap();
        assert!(request.probe && !request.authoritative && !request.smr && !request.pitr);
        assert!(!request.local_xtr && !request.dont_map_reply && !request.smr_invoked);
        assert!(request.xtr.is_none() && request.piggyback.is_none());
        assert!(!request.records.first().unwrap().notify);
        let mut out = Vec::new();
        request.encode(&mut out, EncodeOptions::default()).unwrap();
        assert_eq!(out[..4], hex("12000001"));
    }

    #[test]
    fn unsubscribe_has_no_itr_rloc_address() {
        let octets = hex("10100001 0000000000000001 0000 0000 80 20 0001 0a000002
            00000000000000000000000000000000 0000000000000000");
        let request = MapRequest::decode(&octets).unwrap();
        assert_eq!(request.itr_rlocs.iter().collect::<Vec<_>>(), [Address::NoAddress]);
        assert!(request.records.first().unwrap().notify);
    }

    #[test]
    fn malformed() {
        use DecodeErrorKind::{Trailing, Truncated, UnknownAfi, Value, WrongType};
        let at = |path: &[Part]| [&[Part::MapRequest], path].concat();
        let decode = |octets: &str| MapRequest::decode(&hex(octets)).map(|_| ());
        assert_error(decode("20"), &at(&[]), "Type", 0, WrongType { expected: 1, found: 2 });
        assert_error(
            decode("10000001 0000000000000001 0007"),
            &at(&[Part::SourceEid]),
            "AFI",
            12,
            UnknownAfi { afi: 7 },
        );
        // IRC says two, the second is of an unknown family.
        assert_error(
            decode("10000101 0000000000000001 0000 0001c0000201 0009"),
            &at(&[Part::ItrRloc(1)]),
            "AFI",
            20,
            UnknownAfi { afi: 9 },
        );
        assert_error(
            decode("10000002 0000000000000001 0000 0001c0000201 0020 00010a000002 0020 00020a000002"),
            &at(&[Part::Record(1), Part::Eid]),
            "IPv6 address",
            32,
            Truncated { needed: 16, available: 4 },
        );
        assert_error(
            decode("10000000 0000000000000001 0000 0001c0000201"),
            &at(&[]),
            "Record Count",
            3,
            Value { value: 0, reason: "a request asks for at least one EID" },
        );
        // RFC 9437 section 4: I is set and nothing is left for the xTR-ID.
        assert_error(
            decode("10100001 0000000000000001 0000 0001c0000201 0020 00010a000002"),
            &at(&[]),
            "xTR-ID",
            28,
            Truncated { needed: 16, available: 0 },
        );
        assert_error(
            decode("10000001 0000000000000001 0000 0001c0000201 0020 00010a000002 00"),
            &at(&[]),
            "end of message",
            28,
            Trailing { extra: 1 },
        );
    }

    #[test]
    fn counts_that_do_not_fit() {
        let mut out = vec![1];
        let asked = [EidRecord::default()];
        let request = MapRequest { records: (&asked).into(), ..MapRequest::default() };
        let error = request.encode(&mut out, EncodeOptions::default());
        assert_eq!(error, Err(EncodeError::NoItrRloc));
        let rlocs = [Address::Ipv4(Ipv4Addr::LOCALHOST); 33];
        let error =
            MapRequest { itr_rlocs: (&rlocs).into(), ..request }.encode(&mut out, EncodeOptions::default());
        assert_eq!(error, Err(EncodeError::TooMany { what: "ITR-RLOCs", count: 33, max: 32 }));
        let asked = [EidRecord::default(); 256];
        let error = MapRequest { itr_rlocs: List::new(&rlocs[..32]), records: (&asked).into(), ..request }
            .encode(&mut out, EncodeOptions::default());
        assert_eq!(error, Err(EncodeError::TooMany { what: "records", count: 256, max: 255 }));
        assert_eq!(out, [1], "nothing is left of a failure");
    }
}
