//! Encapsulated Control Messages (RFC 9301 section 5.8).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{CONTROL_PORT, MessageType, Reader, all_or_nothing, bit, read_type};
use crate::error::{DecodeError, DecodeErrorKind, EncodeError, Part};

const UDP: u8 = 17;
const UDP_LEN: usize = 8;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
/// TTL or hop limit of inner headers.
const HOPS: u8 = 64;

/// What stands between the ECM header and the message in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EcmHeader {
    /// An IP header and a UDP header, as RFC 9301 wants it. Both addresses are of one family; for a MAC
    /// EID they are the ITR-RLOC and the Map-Resolver.
    Ip {
        /// Inner source. A Map-Reply goes to this port.
        source: SocketAddr,
        /// Inner destination.
        destination: SocketAddr,
    },
    /// A UDP header alone: what some deployed ITRs send for MAC EIDs.
    Udp {
        /// Inner source port. The destination port is 4342, or the header could not be told apart.
        source_port: u16,
    },
    /// Neither.
    None,
}

impl EcmHeader {
    /// The inner source port, where a Map-Reply goes to (RFC 9301 section 5.8).
    pub const fn source_port(&self) -> Option<u16> {
        match self {
            Self::Ip { source, .. } => Some(source.port()),
            Self::Udp { source_port } => Some(*source_port),
            Self::None => None,
        }
    }
}

/// An Encapsulated Control Message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ecm<'a> {
    /// D bit: a Map-Referral is wanted (RFC 8111).
    pub ddt: bool,
    /// The inner headers.
    pub header: EcmHeader,
    /// The encapsulated message; decode it with [`Message::decode`](super::Message::decode). Never itself
    /// an ECM.
    pub message: &'a [u8],
}

impl<'a> Ecm<'a> {
    /// Decodes the outer header and the inner IP and UDP headers.
    ///
    /// A UDP checksum of 0 is accepted although senders must not send it; any other must be right.
    ///
    /// # Errors
    /// When the headers do not fit the octets or each other, a checksum is wrong, the inner packet is a
    /// fragment or not UDP, or the S bit announces LISP-SEC data, which is not implemented.
    pub fn decode(octets: &'a [u8]) -> Result<Self, DecodeError> {
        Self::read(octets).map_err(|e| e.within(Part::Ecm))
    }

    fn read(octets: &'a [u8]) -> Result<Self, DecodeError> {
        let reader = &mut Reader::new(octets);
        let first = read_type(reader, MessageType::Ecm)?;
        reader.take(3, "Reserved")?;
        if first & 8 != 0 {
            let kind =
                DecodeErrorKind::Value { value: 1, reason: "LISP-SEC (RFC 9303) is not implemented here" };
            return Err(Reader::error(0, "S", kind));
        }
        let inner = octets.get(4..).unwrap_or_default();
        let header = if is_bare_udp(inner) {
            let (source_port, _) = read_udp(reader, None).map_err(|e| e.within(Part::InnerUdp))?;
            EcmHeader::Udp { source_port }
        } else {
            match inner.first() {
                // An IPv4 header has at least 5 words, so 0x40 is a Map-Notify without headers.
                Some(&b) if b >> 4 == 4 && b != 0x40 => read_ipv4(reader)?,
                Some(&b) if b >> 4 == 6 => read_ipv6(reader)?,
                _ => EcmHeader::None,
            }
        };
        let at = reader.offset();
        let message = reader.rest();
        match MessageType::of(message).map_err(|e| e.shifted(at))? {
            MessageType::Ecm => {
                let kind = DecodeErrorKind::Value { value: 8, reason: "an ECM inside an ECM" };
                Err(Reader::error(at, "Type", kind))
            }
            _ => Ok(Self { ddt: first & 4 != 0, header, message }),
        }
    }

    /// Appends the message with its inner headers and their checksums to `out`.
    ///
    /// # Errors
    /// When source and destination are of different families or the message is longer than an IP packet
    /// can carry; `out` is then as before.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let message = self.message;
        Self::encode_with(out, self.ddt, self.header, |out| {
            out.extend_from_slice(message);
            Ok(())
        })
    }

    /// Appends an ECM around whatever `write` appends: saves the copy of an already encoded message.
    ///
    /// # Errors
    /// As [`Ecm::encode`], and those of `write`; `out` is then as before.
    pub fn encode_with(
        out: &mut Vec<u8>,
        ddt: bool,
        header: EcmHeader,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        all_or_nothing(out, |out| {
            out.extend_from_slice(&[(MessageType::Ecm as u8) << 4 | bit(ddt, 4), 0, 0, 0]);
            let start = out.len();
            let headers = match header {
                EcmHeader::Ip { source: SocketAddr::V4(_), destination: SocketAddr::V4(_) } => {
                    IPV4_LEN + UDP_LEN
                }
                EcmHeader::Ip { source: SocketAddr::V6(_), destination: SocketAddr::V6(_) } => {
                    IPV6_LEN + UDP_LEN
                }
                EcmHeader::Ip { .. } => return Err(EncodeError::MixedFamilies),
                EcmHeader::Udp { .. } => UDP_LEN,
                EcmHeader::None => 0,
            };
            out.resize(start + headers, 0);
            write(out)?;
            let packet = out.get_mut(start..).unwrap_or_default();
            fill_headers(packet, header)
        })
    }
}

/// Whether `inner` starts with a UDP header to the control port that measures all of it. As an IPv4 header
/// this would be a packet of 4342 octets in fewer, as a Map-Request one with 246 records.
fn is_bare_udp(inner: &[u8]) -> bool {
    matches!(inner, [_, _, p0, p1, l0, l1, _, _, ..]
        if u16::from_be_bytes([*p0, *p1]) == CONTROL_PORT
            && usize::from(u16::from_be_bytes([*l0, *l1])) == inner.len())
}

fn read_ipv4(reader: &mut Reader<'_>) -> Result<EcmHeader, DecodeError> {
    let within = |e: DecodeError| e.within(Part::InnerIpv4);
    let start = reader.offset();
    let mut ahead = *reader;
    let version = ahead.u8("IHL").map_err(within)?;
    let header_len = usize::from(version & 0xf) * 4;
    if header_len < IPV4_LEN {
        let kind = DecodeErrorKind::Length { found: header_len, expected: IPV4_LEN };
        return Err(within(Reader::error(start, "IHL", kind)));
    }
    let available = reader.remaining();
    let header = reader.take(header_len, "header").map_err(within)?;
    let mut fields = Reader::new(header);
    let read = (|| {
        fields.take(2, "IHL")?;
        let total = usize::from(fields.u16("Total Length")?);
        fields.u16("Identification")?;
        let fragment = fields.u16("Fragment Offset")?;
        let [_, protocol] = fields.array("Protocol")?;
        let checksum = fields.u16("Header Checksum")?;
        let source = Ipv4Addr::from(fields.array::<4>("Source Address")?);
        let destination = Ipv4Addr::from(fields.array::<4>("Destination Address")?);
        if total != available {
            let kind = DecodeErrorKind::Length { found: total, expected: available };
            return Err(Reader::error(2, "Total Length", kind));
        }
        if fragment & 0x3fff != 0 {
            let kind = DecodeErrorKind::Value { value: fragment.into(), reason: "a fragment" };
            return Err(Reader::error(6, "Fragment Offset", kind));
        }
        if protocol != UDP {
            let kind = DecodeErrorKind::Value { value: protocol.into(), reason: "not UDP" };
            return Err(Reader::error(9, "Protocol", kind));
        }
        let sum = Checksum::default().add(header);
        if sum.value() != 0 {
            let expected = sum.without(checksum).value();
            let kind = DecodeErrorKind::Checksum { found: checksum, expected };
            return Err(Reader::error(10, "Header Checksum", kind));
        }
        Ok((source, destination))
    })();
    let (source, destination) = read.map_err(|e| within(e.shifted(start)))?;
    read_ip_udp(reader, source.into(), destination.into())
}

fn read_ipv6(reader: &mut Reader<'_>) -> Result<EcmHeader, DecodeError> {
    let within = |e: DecodeError| e.within(Part::InnerIpv6);
    let read = (|| {
        reader.u32("Version")?;
        let at = reader.offset();
        let length = usize::from(reader.u16("Payload Length")?);
        let [next_header, _] = reader.array("Next Header")?;
        let source = Ipv6Addr::from(reader.array::<16>("Source Address")?);
        let destination = Ipv6Addr::from(reader.array::<16>("Destination Address")?);
        let expected = reader.remaining();
        if length != expected {
            let kind = DecodeErrorKind::Length { found: length, expected };
            return Err(Reader::error(at, "Payload Length", kind));
        }
        if next_header != UDP {
            let kind = DecodeErrorKind::Value { value: next_header.into(), reason: "not UDP" };
            return Err(Reader::error(at + 2, "Next Header", kind));
        }
        Ok((source, destination))
    })();
    let (source, destination) = read.map_err(within)?;
    read_ip_udp(reader, source.into(), destination.into())
}

fn read_ip_udp(
    reader: &mut Reader<'_>,
    source: IpAddr,
    destination: IpAddr,
) -> Result<EcmHeader, DecodeError> {
    let pseudo = Checksum::default().pseudo(source, destination);
    let (source_port, destination_port) = read_udp(reader, pseudo).map_err(|e| e.within(Part::InnerUdp))?;
    Ok(EcmHeader::Ip {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    })
}

/// Reads a UDP header that measures everything left; checks its checksum when the pseudo header is known.
fn read_udp(reader: &mut Reader<'_>, pseudo: Option<Checksum>) -> Result<(u16, u16), DecodeError> {
    let start = reader.offset();
    let mut all = *reader;
    let datagram = all.rest();
    let source_port = reader.u16("Source Port")?;
    let destination_port = reader.u16("Destination Port")?;
    let length = usize::from(reader.u16("UDP Length")?);
    let checksum = reader.u16("UDP Checksum")?;
    if length != datagram.len() {
        let kind = DecodeErrorKind::Length { found: length, expected: datagram.len() };
        return Err(Reader::error(start + 4, "UDP Length", kind));
    }
    if let (Some(pseudo), true) = (pseudo, checksum != 0) {
        let sum = pseudo.length(length).add(datagram);
        if sum.value() != 0 {
            let expected = sum.without(checksum).udp_value();
            let kind = DecodeErrorKind::Checksum { found: checksum, expected };
            return Err(Reader::error(start + 6, "UDP Checksum", kind));
        }
    }
    Ok((source_port, destination_port))
}

/// Fills in the headers in front of the message in `packet`.
fn fill_headers(packet: &mut [u8], header: EcmHeader) -> Result<(), EncodeError> {
    let packet_len = packet.len();
    let length = |length: usize| {
        let max = usize::from(u16::MAX);
        u16::try_from(length).map_err(|_| EncodeError::TooLong { what: "inner packet", length, max })
    };
    match header {
        EcmHeader::None => Ok(()),
        EcmHeader::Udp { source_port } => {
            fill_udp(packet, source_port, CONTROL_PORT, length(packet_len)?, None);
            Ok(())
        }
        EcmHeader::Ip { source, destination } => {
            let udp_at = match (source.ip(), destination.ip()) {
                (IpAddr::V4(from), IpAddr::V4(to)) => {
                    let mut ip = [0; IPV4_LEN];
                    ip[0] = 0x45;
                    ip[2..4].copy_from_slice(&length(packet_len)?.to_be_bytes());
                    ip[8] = HOPS;
                    ip[9] = UDP;
                    ip[12..16].copy_from_slice(&from.octets());
                    ip[16..20].copy_from_slice(&to.octets());
                    let checksum = Checksum::default().add(&ip).value();
                    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
                    packet[..IPV4_LEN].copy_from_slice(&ip);
                    IPV4_LEN
                }
                (IpAddr::V6(from), IpAddr::V6(to)) => {
                    let mut ip = [0; IPV6_LEN];
                    ip[0] = 0x60;
                    ip[4..6].copy_from_slice(&length(packet_len - IPV6_LEN)?.to_be_bytes());
                    ip[6] = UDP;
                    ip[7] = HOPS;
                    ip[8..24].copy_from_slice(&from.octets());
                    ip[24..40].copy_from_slice(&to.octets());
                    packet[..IPV6_LEN].copy_from_slice(&ip);
                    IPV6_LEN
                }
                _ => return Err(EncodeError::MixedFamilies),
            };
            let udp_len = length(packet_len - udp_at)?;
            let pseudo = Checksum::default().pseudo(source.ip(), destination.ip());
            fill_udp(&mut packet[udp_at..], source.port(), destination.port(), udp_len, pseudo);
            Ok(())
        }
    }
}

/// Fills in a UDP header; its checksum stays 0 when the addresses it covers are not there.
fn fill_udp(datagram: &mut [u8], from: u16, to: u16, length: u16, pseudo: Option<Checksum>) {
    datagram[0..2].copy_from_slice(&from.to_be_bytes());
    datagram[2..4].copy_from_slice(&to.to_be_bytes());
    datagram[4..6].copy_from_slice(&length.to_be_bytes());
    if let Some(pseudo) = pseudo {
        let checksum = pseudo.length(datagram.len()).add(datagram).udp_value();
        datagram[6..8].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// The Internet checksum (RFC 1071): a sum of 16-bit words, folded at the end. 32 bits hold the sum of any
/// datagram with its pseudo header, and nothing longer gets here.
#[derive(Debug, Clone, Copy, Default)]
struct Checksum(u32);

impl Checksum {
    fn add(self, octets: &[u8]) -> Self {
        let (words, last) = octets.as_chunks::<2>();
        let sum: u32 = words.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum();
        let sum = Self(self.0 + sum);
        last.first().map_or(sum, |last| sum.word(u16::from_be_bytes([*last, 0])))
    }

    const fn word(self, word: u16) -> Self {
        Self(self.0 + word as u32)
    }

    /// Source, destination and protocol of the pseudo header; `None` for mixed families.
    fn pseudo(self, source: IpAddr, destination: IpAddr) -> Option<Self> {
        Some(match (source, destination) {
            (IpAddr::V4(a), IpAddr::V4(b)) => self.add(&a.octets()).add(&b.octets()).word(UDP.into()),
            (IpAddr::V6(a), IpAddr::V6(b)) => self.add(&a.octets()).add(&b.octets()).word(UDP.into()),
            _ => return None,
        })
    }

    /// Length in the pseudo header.
    fn length(self, length: usize) -> Self {
        u16::try_from(length).map_or(self, |length| self.word(length))
    }

    /// Takes a word out of the sum again.
    const fn without(self, word: u16) -> Self {
        self.word(!word)
    }

    const fn value(self) -> u16 {
        let once = (self.0 & 0xffff) + (self.0 >> 16);
        #[allow(clippy::cast_possible_truncation, reason = "the second fold leaves 16 bits")]
        let folded = ((once & 0xffff) + (once >> 16)) as u16;
        !folded
    }

    /// In UDP, 0 says that there is no checksum; its other form is sent instead (RFC 768).
    const fn udp_value(self) -> u16 {
        match self.value() {
            0 => 0xffff,
            value => value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_error, assert_prefixes_fail, hex};

    const REQUEST: &str = "10000001 0102030405060708 0000 0001c0000201 0020 00010a000002";

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn check(octets: &str, header: EcmHeader) {
        let (octets, message) = (hex(octets), hex(REQUEST));
        let ecm = Ecm { ddt: false, header, message: &message };
        let mut out = vec![9];
        ecm.encode(&mut out).unwrap();
        assert_eq!(out[1..], octets);
        assert_eq!(Ecm::decode(&octets), Ok(ecm));
        if header != EcmHeader::None {
            assert_prefixes_fail(&octets, |cut| Ecm::decode(cut).err());
        }
    }

    #[test]
    fn in_ipv4() {
        check(
            &format!("80000000 45000038 00000000 40118e7f c0000201 c6336401 1234 10f6 0024 040b {REQUEST}"),
            EcmHeader::Ip { source: addr("192.0.2.1:4660"), destination: addr("198.51.100.1:4342") },
        );
    }

    #[test]
    fn in_ipv6() {
        check(
            &format!(
                "80000000 60000000 0024 11 40 20010db8000000000000000000000001
                 20010db8000000000000000000000002 1234 10f6 0024 94cc {REQUEST}"
            ),
            EcmHeader::Ip { source: addr("[2001:db8::1]:4660"), destination: addr("[2001:db8::2]:4342") },
        );
    }

    #[test]
    fn without_an_ip_header() {
        // The source port looks like the first octet of an IPv4 header.
        let header = EcmHeader::Udp { source_port: 0x4512 };
        check(&format!("80000000 4512 10f6 0024 0000 {REQUEST}"), header);
        assert_eq!(header.source_port(), Some(0x4512));
    }

    #[test]
    fn without_any_inner_header() {
        check(&format!("80000000 {REQUEST}"), EcmHeader::None);
        let notify = hex("84000000 40000000 0000000000000001 0000 0000");
        let ecm = Ecm::decode(&notify).unwrap();
        assert_eq!((ecm.header, ecm.ddt, ecm.message.len()), (EcmHeader::None, true, 16));
    }

    #[test]
    fn tolerates_no_udp_checksum_and_ipv4_options() {
        let octets = hex(&format!(
            "80000000 4600003c 00000000 40118b79 c0000201 c6336401 01010101 1234 10f6 0024 0000 {REQUEST}"
        ));
        assert_eq!(Ecm::decode(&octets).unwrap().header.source_port(), Some(0x1234));
    }

    #[test]
    fn malformed() {
        use DecodeErrorKind::{Checksum, Length, UnknownType, Value};
        let ip = "c0000201 c6336401";
        let error = |octets: String, path: &[Part], field: &str, offset, kind| {
            let path = [&[Part::Ecm], path].concat();
            assert_error(Ecm::decode(&hex(&octets)), &path, field, offset, kind);
        };
        error(
            format!("80000000 45000038 00000000 40118e7e {ip} 1234 10f6 0024 040b {REQUEST}"),
            &[Part::InnerIpv4],
            "Header Checksum",
            14,
            Checksum { found: 0x8e7e, expected: 0x8e7f },
        );
        error(
            format!("80000000 45000038 00000000 40118e7f {ip} 1234 10f6 0024 040c {REQUEST}"),
            &[Part::InnerUdp],
            "UDP Checksum",
            30,
            Checksum { found: 0x040c, expected: 0x040b },
        );
        error(
            format!("80000000 45000039 00000000 40118e7e {ip} 1234 10f6 0024 040b {REQUEST}"),
            &[Part::InnerIpv4],
            "Total Length",
            6,
            Length { found: 57, expected: 56 },
        );
        error(
            format!("80000000 45000038 00002000 40116e7f {ip} 1234 10f6 0024 040b {REQUEST}"),
            &[Part::InnerIpv4],
            "Fragment Offset",
            10,
            Value { value: 0x2000, reason: "a fragment" },
        );
        error(
            format!("80000000 45000038 00000000 40068e8a {ip} 1234 10f6 0024 040b {REQUEST}"),
            &[Part::InnerIpv4],
            "Protocol",
            13,
            Value { value: 6, reason: "not UDP" },
        );
        error(
            format!("80000000 45000038 00000000 40118e7f {ip} 1234 10f6 0023 040b {REQUEST}"),
            &[Part::InnerUdp],
            "UDP Length",
            28,
            Length { found: 35, expected: 36 },
        );
        error("80000000 f0000000".to_owned(), &[], "Type", 4, UnknownType { found: 15 });
        error(
            "80000000 80000000".to_owned(),
            &[],
            "Type",
            4,
            Value { value: 8, reason: "an ECM inside an ECM" },
        );
        let reason = "LISP-SEC (RFC 9303) is not implemented here";
        error("88000000 01000000".to_owned(), &[], "S", 0, Value { value: 1, reason });
    }

    #[test]
    fn addresses_of_one_family() {
        let header = EcmHeader::Ip { source: addr("192.0.2.1:1"), destination: addr("[::1]:4342") };
        let mut out = vec![5];
        let error = Ecm { ddt: false, header, message: &hex(REQUEST) }.encode(&mut out);
        assert_eq!((error, out), (Err(EncodeError::MixedFamilies), vec![5]));
    }

    #[test]
    fn longer_than_an_ip_packet() {
        let message = vec![0x10; 65_535 - 27];
        let header = EcmHeader::Ip { source: addr("192.0.2.1:1"), destination: addr("192.0.2.2:4342") };
        let error = Ecm { ddt: false, header, message: &message }.encode(&mut Vec::new());
        let length = 65_536;
        assert_eq!(error, Err(EncodeError::TooLong { what: "inner packet", length, max: 65_535 }));
    }
}
