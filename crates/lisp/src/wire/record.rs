//! EID-Records (RFC 9301 section 5.4), as in Map-Reply, Map-Register, Map-Notify and behind a Map-Request.

use super::list::{Item, sealed::Read};
use super::{Address, EncodeOptions, List, Locator, Reader, all_or_nothing, bit, count};
use crate::error::{DecodeError, DecodeErrorKind, EncodeError, Part};

/// Record TTL that has the receiver remove the mapping at once.
pub const TTL_REMOVE: u32 = 0;
/// Record TTL that leaves the time to the receiver.
pub const TTL_RECEIVER_DECIDES: u32 = u32::MAX;

/// What to do with packets for an EID without locators (RFC 9301 section 5.4, ACT).
///
/// Counts only in a record without locators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum Action {
    /// 0: keep the entry, encapsulate nothing.
    #[default]
    NoAction = 0,
    /// 1: forward without encapsulation.
    NativelyForward = 1,
    /// 2: every packet causes a Map-Request.
    SendMapRequest = 2,
    /// 3: drop.
    Drop = 3,
    /// 4: drop, by policy.
    DropPolicyDenied = 4,
    /// 5: drop, the request failed authentication.
    DropAuthFailure = 5,
    /// 6: not assigned.
    Unassigned6 = 6,
    /// 7: not assigned.
    Unassigned7 = 7,
}

impl Action {
    const fn from_bits(bits: u8) -> Self {
        match bits & 7 {
            0 => Self::NoAction,
            1 => Self::NativelyForward,
            2 => Self::SendMapRequest,
            3 => Self::Drop,
            4 => Self::DropPolicyDenied,
            5 => Self::DropAuthFailure,
            6 => Self::Unassigned6,
            _ => Self::Unassigned7,
        }
    }
}

/// A Map-Version number of 12 bits (RFC 9302); 0 says that there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct MapVersion(u16);

impl MapVersion {
    /// No version.
    pub const NONE: Self = Self(0);
    /// The highest version.
    pub const MAX: Self = Self(0x0fff);

    /// A version, when it fits 12 bits.
    pub const fn new(version: u16) -> Option<Self> {
        if version <= Self::MAX.0 { Some(Self(version)) } else { None }
    }

    /// The version as a number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// An EID-Record: an EID-Prefix and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Record<'a> {
    /// Minutes that the mapping may be kept; see [`TTL_REMOVE`] and [`TTL_RECEIVER_DECIDES`].
    pub ttl: u32,
    /// Mask length of `eid`; inside an Instance ID LCAF, of the address in it. 48 for a MAC.
    pub mask_len: u8,
    /// Why there are no locators.
    pub action: Action,
    /// A bit: the sender is of the site that owns the EID. Never set by a proxy.
    pub authoritative: bool,
    /// Version of the mapping.
    pub map_version: MapVersion,
    /// The EID-Prefix.
    pub eid: Address<'a>,
    /// The locator-set, at most 255; empty in a Negative Map-Reply.
    pub locators: List<'a, Locator<'a>>,
}

impl Record<'_> {
    /// Appends the record to `out`.
    ///
    /// # Errors
    /// [`EncodeError`] when it has more than 255 locators or an address cannot be encoded.
    pub fn encode(&self, out: &mut Vec<u8>, options: EncodeOptions) -> Result<(), EncodeError> {
        all_or_nothing(out, |out| self.write(out, options))
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>, options: EncodeOptions) -> Result<(), EncodeError> {
        let locator_count = count("locators", self.locators.len())?;
        out.extend_from_slice(&self.ttl.to_be_bytes());
        let act = (self.action as u8) << 5 | bit(self.authoritative, 0x10);
        out.extend_from_slice(&[locator_count, self.mask_len, act, 0]);
        out.extend_from_slice(&self.map_version.0.to_be_bytes());
        self.eid.write(out, options, 0)?;
        self.locators.iter().try_for_each(|locator| locator.write(out, options))
    }
}

impl<'a> Record<'a> {
    /// Decodes one record that fills `octets`.
    ///
    /// # Errors
    /// When `octets` are not exactly one record.
    pub fn decode(octets: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(octets);
        let record = Self::read(&mut reader)?;
        reader.finish("end of record")?;
        Ok(record)
    }
}

impl<'a> Read<'a> for Record<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let ttl = reader.u32("Record TTL")?;
        let locator_count = reader.u8("Locator Count")?;
        let mask_len = reader.u8("EID mask-len")?;
        let [act, _] = reader.array("ACT")?;
        let map_version = MapVersion(reader.u16("Map-Version")? & MapVersion::MAX.0);
        let eid = Address::read(reader).map_err(|e| e.within(Part::Eid))?;
        let locators = List::read(reader, usize::from(locator_count), Part::Locator)?;
        Ok(Self {
            ttl,
            mask_len,
            action: Action::from_bits(act >> 5),
            authoritative: act & 0x10 != 0,
            map_version,
            eid,
            locators,
        })
    }
}

impl<'a> Item<'a> for Record<'a> {}

/// Reads a Record Count that `reader` has just passed as the low octet of the first word.
pub(crate) fn read_records<'a>(
    reader: &mut Reader<'a>,
    record_count: u8,
) -> Result<List<'a, Record<'a>>, DecodeError> {
    // The smallest record has 12 octets: refuse impossible counts before looking at any of them.
    let needed = 12 * usize::from(record_count);
    let available = reader.remaining();
    if needed > available {
        let kind = DecodeErrorKind::Truncated { needed, available };
        return Err(Reader::error(reader.offset(), "records", kind));
    }
    List::read(reader, usize::from(record_count), Part::Record)
}
