//! Addresses: an address family identifier (AFI) and what it says follows, LCAFs included
//! (RFC 9301 section 5.1, RFC 8060).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::EncodeOptions;
use super::list::{Item, List, sealed::Read};
use super::reader::Reader;
use crate::error::{DecodeError, DecodeErrorKind, EncodeError, Part};

/// No address follows (RFC 9301 section 5.2).
pub const AFI_NONE: u16 = 0;
/// IPv4, 4 octets.
pub const AFI_IPV4: u16 = 1;
/// IPv6, 16 octets.
pub const AFI_IPV6: u16 = 2;
/// "802", which RFC 8060 section 4.10.2 uses for 48-bit MAC addresses.
pub const AFI_802: u16 = 6;
/// LISP Canonical Address Format (RFC 8060 section 3).
pub const AFI_LCAF: u16 = 16387;
/// 48-bit MAC (IANA, RFC 9542 section 3.2).
pub const AFI_MAC48: u16 = 16389;

/// LCAF type of an AFI-List (RFC 8060 section 4.16.1).
pub const LCAF_AFI_LIST: u8 = 1;
/// LCAF type of an Instance ID (RFC 8060 section 4.1).
pub const LCAF_INSTANCE_ID: u8 = 2;

/// How deep LCAFs may lie in LCAFs. `LCAF2{IID, LCAF1{IP, MAC}}` is 2 deep.
pub const MAX_NESTING: u8 = 4;

/// Which AFI 48-bit MAC addresses are written with. Both are always read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MacAfi {
    /// 16389, the IANA code point for 48-bit MACs.
    #[default]
    Mac48,
    /// 6, which RFC 8060 section 4.10.2 and some deployed xTRs use.
    Ieee802,
}

impl MacAfi {
    const fn code(self) -> u16 {
        match self {
            Self::Mac48 => AFI_MAC48,
            Self::Ieee802 => AFI_802,
        }
    }
}

/// An EID or RLOC as it stands in a message, AFI included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Address<'a> {
    /// AFI 0: nothing.
    #[default]
    NoAddress,
    /// AFI 1.
    Ipv4(Ipv4Addr),
    /// AFI 2.
    Ipv6(Ipv6Addr),
    /// AFI 16389 or 6.
    Mac([u8; 6]),
    /// LCAF type 2: an address inside an instance (RFC 8060 section 4.1).
    InstanceId {
        /// The Instance ID; a VXLAN VNI is its low 24 bits, yet all 32 are legal.
        iid: u32,
        /// High-order bits of `iid` that count; meaningful only when `inner` is
        /// [`Inner::NoAddress`] and the whole is a range of instances.
        mask_len: u8,
        /// The address in that instance.
        inner: Inner<'a>,
    },
    /// LCAF type 1: several addresses as one (RFC 8060 section 4.16.1).
    AfiList(List<'a, Address<'a>>),
    /// Any other LCAF, kept as it came.
    Opaque(OpaqueLcaf<'a>),
}

/// What an Instance ID LCAF holds.
///
/// An Instance ID directly inside an Instance ID has no meaning; it is kept as [`Inner::Opaque`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Inner<'a> {
    /// AFI 0: the LCAF names a range of instances.
    #[default]
    NoAddress,
    /// AFI 1.
    Ipv4(Ipv4Addr),
    /// AFI 2.
    Ipv6(Ipv6Addr),
    /// AFI 16389 or 6.
    Mac([u8; 6]),
    /// LCAF type 1.
    AfiList(List<'a, Address<'a>>),
    /// Any other LCAF, kept as it came.
    Opaque(OpaqueLcaf<'a>),
}

/// An LCAF that this crate does not look into: re-emitted octet for octet (RFC 8060 section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OpaqueLcaf<'a> {
    /// Reserved octet behind the AFI.
    pub rsvd1: u8,
    /// Flags.
    pub flags: u8,
    /// LCAF type.
    pub lcaf_type: u8,
    /// Reserved octet behind the type; some types give it a meaning.
    pub rsvd2: u8,
    /// What the Length field measures.
    pub body: &'a [u8],
}

impl<'a> Address<'a> {
    /// An address in an instance.
    pub fn in_instance(iid: u32, inner: impl Into<Inner<'a>>) -> Self {
        Self::InstanceId { iid, mask_len: 0, inner: inner.into() }
    }

    /// The IP address, when it is one without an LCAF around it: what an RLOC mostly is.
    pub const fn as_ip(&self) -> Option<IpAddr> {
        match *self {
            Self::Ipv4(a) => Some(IpAddr::V4(a)),
            Self::Ipv6(a) => Some(IpAddr::V6(a)),
            _ => None,
        }
    }

    /// The MAC address, when it is one without an LCAF around it: the locator of an IP-to-MAC record.
    pub const fn as_mac(&self) -> Option<[u8; 6]> {
        match *self {
            Self::Mac(mac) => Some(mac),
            _ => None,
        }
    }

    pub(crate) fn write(
        &self,
        out: &mut Vec<u8>,
        options: EncodeOptions,
        depth: u8,
    ) -> Result<(), EncodeError> {
        match *self {
            Self::NoAddress => out.extend_from_slice(&AFI_NONE.to_be_bytes()),
            Self::Ipv4(a) => {
                out.extend_from_slice(&AFI_IPV4.to_be_bytes());
                out.extend_from_slice(&a.octets());
            }
            Self::Ipv6(a) => {
                out.extend_from_slice(&AFI_IPV6.to_be_bytes());
                out.extend_from_slice(&a.octets());
            }
            Self::Mac(mac) => {
                out.extend_from_slice(&options.mac_afi.code().to_be_bytes());
                out.extend_from_slice(&mac);
            }
            Self::InstanceId { iid, mask_len, inner } => {
                let length = begin_lcaf(out, LCAF_INSTANCE_ID, mask_len, depth)?;
                out.extend_from_slice(&iid.to_be_bytes());
                Address::from(inner).write(out, options, depth + 1)?;
                end_lcaf(out, length)?;
            }
            Self::AfiList(list) => {
                let length = begin_lcaf(out, LCAF_AFI_LIST, 0, depth)?;
                for address in list {
                    address.write(out, options, depth + 1)?;
                }
                end_lcaf(out, length)?;
            }
            Self::Opaque(lcaf) => {
                let length = u16::try_from(lcaf.body.len()).map_err(|_| EncodeError::TooLong {
                    what: "LCAF",
                    length: lcaf.body.len(),
                    max: usize::from(u16::MAX),
                })?;
                out.extend_from_slice(&AFI_LCAF.to_be_bytes());
                out.extend_from_slice(&[lcaf.rsvd1, lcaf.flags, lcaf.lcaf_type, lcaf.rsvd2]);
                out.extend_from_slice(&length.to_be_bytes());
                out.extend_from_slice(lcaf.body);
            }
        }
        Ok(())
    }

    fn read_nested(reader: &mut Reader<'a>, depth: u8) -> Result<Self, DecodeError> {
        let start = reader.offset();
        Ok(match reader.u16("AFI")? {
            AFI_NONE => Self::NoAddress,
            AFI_IPV4 => Self::Ipv4(reader.array::<4>("IPv4 address")?.into()),
            AFI_IPV6 => Self::Ipv6(reader.array::<16>("IPv6 address")?.into()),
            AFI_MAC48 | AFI_802 => Self::Mac(reader.array("MAC address")?),
            AFI_LCAF => Self::read_lcaf(reader, depth)?,
            afi => return Err(Reader::error(start, "AFI", DecodeErrorKind::UnknownAfi { afi })),
        })
    }

    /// Reads an LCAF from behind its AFI.
    fn read_lcaf(reader: &mut Reader<'a>, depth: u8) -> Result<Self, DecodeError> {
        let start = reader.offset();
        let [rsvd1, flags, lcaf_type, rsvd2] = reader.array("LCAF header")?;
        let length = reader.u16("LCAF Length")?;
        let mut body = reader.split(usize::from(length), "LCAF body")?;
        match lcaf_type {
            LCAF_INSTANCE_ID | LCAF_AFI_LIST if depth >= MAX_NESTING => {
                Err(Reader::error(start, "LCAF", DecodeErrorKind::Nesting { max: MAX_NESTING }))
            }
            LCAF_INSTANCE_ID => Self::read_instance(&mut body, rsvd2, depth),
            LCAF_AFI_LIST => {
                let list_start = body.offset();
                let mut len = 0;
                while body.remaining() > 0 {
                    Self::read_nested(&mut body, depth + 1).map_err(|e| e.within(Part::AfiList))?;
                    len += 1;
                }
                Ok(Self::AfiList(List::from_validated(body.since(list_start), len)))
            }
            _ => Ok(Self::Opaque(OpaqueLcaf { rsvd1, flags, lcaf_type, rsvd2, body: body.rest() })),
        }
    }

    fn read_instance(body: &mut Reader<'a>, mask_len: u8, depth: u8) -> Result<Self, DecodeError> {
        let within = |e: DecodeError| e.within(Part::InstanceId);
        let iid = body.u32("Instance ID").map_err(within)?;
        let start = body.offset();
        let mut ahead = *body;
        let inner = match Self::read_nested(body, depth + 1).map_err(within)? {
            Self::NoAddress => Inner::NoAddress,
            Self::Ipv4(a) => Inner::Ipv4(a),
            Self::Ipv6(a) => Inner::Ipv6(a),
            Self::Mac(a) => Inner::Mac(a),
            Self::AfiList(list) => Inner::AfiList(list),
            Self::Opaque(lcaf) => Inner::Opaque(lcaf),
            Self::InstanceId { .. } => {
                ahead.take(2, "AFI")?;
                let [rsvd1, flags, lcaf_type, rsvd2] = ahead.array("LCAF header")?;
                let length = usize::from(ahead.u16("LCAF Length")?);
                let body = ahead.take(length, "LCAF body")?;
                Inner::Opaque(OpaqueLcaf { rsvd1, flags, lcaf_type, rsvd2, body })
            }
        };
        if body.remaining() > 0 {
            let expected = 4 + body.offset() - start;
            let found = expected + body.remaining();
            // The Length field lies 6 octets before the address in the LCAF.
            let kind = DecodeErrorKind::Length { found, expected };
            return Err(within(Reader::error(start - 6, "LCAF Length", kind)));
        }
        Ok(Self::InstanceId { iid, mask_len, inner })
    }
}

/// Writes an LCAF header with a length to be filled in; returns where the length stands.
fn begin_lcaf(out: &mut Vec<u8>, lcaf_type: u8, rsvd2: u8, depth: u8) -> Result<usize, EncodeError> {
    if depth >= MAX_NESTING {
        return Err(EncodeError::Nesting { max: MAX_NESTING });
    }
    out.extend_from_slice(&AFI_LCAF.to_be_bytes());
    out.extend_from_slice(&[0, 0, lcaf_type, rsvd2, 0, 0]);
    Ok(out.len() - 2)
}

fn end_lcaf(out: &mut [u8], length_at: usize) -> Result<(), EncodeError> {
    let max = usize::from(u16::MAX);
    let length = out.len() - length_at - 2;
    let field = u16::try_from(length).map_err(|_| EncodeError::TooLong { what: "LCAF", length, max })?;
    if let Some(at) = out.get_mut(length_at..length_at + 2) {
        at.copy_from_slice(&field.to_be_bytes());
    }
    Ok(())
}

impl<'a> Read<'a> for Address<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Self::read_nested(reader, 0)
    }
}

impl<'a> Item<'a> for Address<'a> {}

impl From<Ipv4Addr> for Address<'_> {
    fn from(a: Ipv4Addr) -> Self {
        Self::Ipv4(a)
    }
}

impl From<Ipv6Addr> for Address<'_> {
    fn from(a: Ipv6Addr) -> Self {
        Self::Ipv6(a)
    }
}

impl From<IpAddr> for Address<'_> {
    fn from(a: IpAddr) -> Self {
        match a {
            IpAddr::V4(a) => Self::Ipv4(a),
            IpAddr::V6(a) => Self::Ipv6(a),
        }
    }
}

impl<'a> From<Inner<'a>> for Address<'a> {
    fn from(inner: Inner<'a>) -> Self {
        match inner {
            Inner::NoAddress => Self::NoAddress,
            Inner::Ipv4(a) => Self::Ipv4(a),
            Inner::Ipv6(a) => Self::Ipv6(a),
            Inner::Mac(a) => Self::Mac(a),
            Inner::AfiList(list) => Self::AfiList(list),
            Inner::Opaque(lcaf) => Self::Opaque(lcaf),
        }
    }
}

impl From<IpAddr> for Inner<'_> {
    fn from(a: IpAddr) -> Self {
        match a {
            IpAddr::V4(a) => Self::Ipv4(a),
            IpAddr::V6(a) => Self::Ipv6(a),
        }
    }
}

impl From<Ipv4Addr> for Inner<'_> {
    fn from(a: Ipv4Addr) -> Self {
        Self::Ipv4(a)
    }
}

impl From<Ipv6Addr> for Inner<'_> {
    fn from(a: Ipv6Addr) -> Self {
        Self::Ipv6(a)
    }
}

impl From<[u8; 6]> for Inner<'_> {
    fn from(mac: [u8; 6]) -> Self {
        Self::Mac(mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_error, hex};

    fn decode(octets: &[u8]) -> Result<Address<'_>, DecodeError> {
        let mut reader = Reader::new(octets);
        let address = Address::read(&mut reader)?;
        reader.finish("end of address")?;
        Ok(address)
    }

    fn encode(address: &Address<'_>, options: EncodeOptions) -> Vec<u8> {
        let mut out = Vec::new();
        address.write(&mut out, options, 0).unwrap();
        out
    }

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xb];

    #[test]
    fn plain_addresses() {
        for (octets, address) in [
            ("0000", Address::NoAddress),
            ("0001 0a000001", Address::Ipv4([10, 0, 0, 1].into())),
            ("0002 20010db8000000000000000000000001", Address::Ipv6("2001:db8::1".parse().unwrap())),
            ("4005 02000000000b", Address::Mac(MAC)),
        ] {
            let octets = hex(octets);
            assert_eq!(decode(&octets), Ok(address));
            assert_eq!(encode(&address, EncodeOptions::default()), octets);
        }
    }

    #[test]
    fn mac_has_two_families() {
        let old = hex("0006 02000000000b");
        assert_eq!(decode(&old), Ok(Address::Mac(MAC)));
        let options = EncodeOptions::default().with_mac_afi(MacAfi::Ieee802);
        assert_eq!(encode(&Address::Mac(MAC), options), old);
        assert_eq!(
            encode(&Address::in_instance(7, MAC), options),
            hex("4003 0000 0200 000c 00000007 0006 02000000000b")
        );
    }

    #[test]
    fn instance_id() {
        let octets = hex("4003 0000 0200 000a ff001388 0001 0a000001");
        let address = Address::in_instance(0xff00_1388, Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(decode(&octets), Ok(address));
        assert_eq!(encode(&address, EncodeOptions::default()), octets);
        // A range of instances.
        let octets = hex("4003 0000 0218 0006 00001300 0000");
        let range = Address::InstanceId { iid: 0x1300, mask_len: 24, inner: Inner::NoAddress };
        assert_eq!(decode(&octets), Ok(range));
        assert_eq!(encode(&range, EncodeOptions::default()), octets);
    }

    #[test]
    fn ip_and_mac_in_one_eid() {
        let octets = hex("4003 0000 0200 001a 00001388 4003 0000 0100 000e 0001 0a000001 4005 02000000000b");
        let list = [Address::Ipv4([10, 0, 0, 1].into()), Address::Mac(MAC)];
        let address = Address::InstanceId { iid: 5000, mask_len: 0, inner: Inner::AfiList((&list).into()) };
        assert_eq!(decode(&octets), Ok(address));
        assert_eq!(encode(&address, EncodeOptions::default()), octets);
    }

    #[test]
    fn other_lcafs_are_kept_octet_for_octet() {
        let octets = hex("4003 1122 0c33 0003 aabbcc");
        let lcaf =
            OpaqueLcaf { rsvd1: 0x11, flags: 0x22, lcaf_type: 12, rsvd2: 0x33, body: &[0xaa, 0xbb, 0xcc] };
        assert_eq!(decode(&octets), Ok(Address::Opaque(lcaf)));
        assert_eq!(encode(&Address::Opaque(lcaf), EncodeOptions::default()), octets);
    }

    #[test]
    fn instance_in_instance_is_opaque() {
        let octets = hex("4003 0000 0200 0012 00000001 4003 0000 0200 0006 00000002 0000");
        let Ok(Address::InstanceId { iid: 1, inner: Inner::Opaque(lcaf), .. }) = decode(&octets) else {
            panic!("{:?}", decode(&octets));
        };
        assert_eq!((lcaf.lcaf_type, lcaf.body), (2, &hex("00000002 0000")[..]));
        assert_eq!(encode(&decode(&octets).unwrap(), EncodeOptions::default()), octets);
    }

    #[test]
    fn malformed() {
        let kind = DecodeErrorKind::UnknownAfi { afi: 17 };
        assert_error(decode(&hex("0011 6162")), &[], "AFI", 0, kind);
        assert_error(
            decode(&hex("4003 0000 0200 000a 00001388 0011 61620000")),
            &[Part::InstanceId],
            "AFI",
            12,
            kind,
        );
        let kind = DecodeErrorKind::Truncated { needed: 4, available: 3 };
        assert_error(decode(&hex("0001 0a0000")), &[], "IPv4 address", 2, kind);
        // The LCAF ends before the address in it does, although the message goes on.
        assert_error(
            decode(&hex("4003 0000 0200 0009 00001388 0001 0a000001 00")),
            &[Part::InstanceId],
            "IPv4 address",
            14,
            kind,
        );
        let kind = DecodeErrorKind::Length { found: 11, expected: 10 };
        assert_error(
            decode(&hex("4003 0000 0200 000b 00001388 0001 0a000001 00")),
            &[Part::InstanceId],
            "LCAF Length",
            6,
            kind,
        );
        let kind = DecodeErrorKind::Truncated { needed: 5, available: 4 };
        assert_error(decode(&hex("4003 0000 0700 0005 00000000")), &[], "LCAF body", 8, kind);
    }

    #[test]
    fn nesting_is_bounded() {
        let mut octets = hex("0000");
        for _ in 0..MAX_NESTING {
            let mut outer = hex("4003 0000 0100");
            outer.extend_from_slice(&u16::try_from(octets.len()).unwrap().to_be_bytes());
            outer.extend_from_slice(&octets);
            octets = outer;
        }
        let deepest = decode(&octets).unwrap();
        assert_eq!(encode(&deepest, EncodeOptions::default()), octets);
        let mut outer = hex("4003 0000 0100 0022");
        outer.extend_from_slice(&octets);
        let kind = DecodeErrorKind::Nesting { max: MAX_NESTING };
        assert_error(decode(&outer), &[Part::AfiList; 4], "LCAF", 34, kind);
        let list = [deepest];
        let error = Address::AfiList((&list).into()).write(&mut Vec::new(), EncodeOptions::default(), 0);
        assert_eq!(error, Err(EncodeError::Nesting { max: MAX_NESTING }));
    }
}
