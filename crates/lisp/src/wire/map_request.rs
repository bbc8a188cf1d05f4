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
