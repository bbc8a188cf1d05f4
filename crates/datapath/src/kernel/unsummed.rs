//! Checksums that a tenant system leaves to whoever sends its frame on. A device makes them as the frame goes
//! out; of a frame that was read up here and is sent on from here nobody knows any more that one is missing.

use crate::model::bytes::{ICMPV6, UDP, sum};
use core::ops::Range;
use crc::{CRC_32_ISCSI, Crc};
use std::borrow::Cow;

const TCP: u8 = 6;
const SCTP: u8 = 132;

/// CRC32c (RFC 9260 appendix A).
const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// An IP packet's transport part, and where the addresses are that its checksum is over as well.
struct Segment {
    /// From the start of the frame.
    start: usize,
    end: usize,
    proto: u8,
    /// RFC 9293 section 3.1, RFC 8200 section 8.1.
    addresses: Range<usize>,
}

/// The frame with its TCP, UDP, ICMPv6 or SCTP checksum made, if that was left to be made: the field then holds the
/// folded sum over the pseudo header, of SCTP zero, which is how Linux and virtio devices leave it. Any other checksum is the
/// tenant's own, right or wrong, and stays for its receiver to look at. So do frames that are cut short,
/// fragments, and what is behind extension headers that change a destination or hide what follows.
pub(super) fn completed(frame: &[u8]) -> Cow<'_, [u8]> {
    let Some(segment) = segment(frame) else { return Cow::Borrowed(frame) };
    let made = if segment.proto == SCTP {
        missing_crc(frame, &segment).map(|(at, crc)| (at, crc.to_vec()))
    } else {
        missing(frame, &segment).map(|(at, check)| (at, check.to_be_bytes().to_vec()))
    };
    let Some((at, made)) = made else { return Cow::Borrowed(frame) };
    let mut frame = frame.to_vec();
    if let Some(field) = frame.get_mut(at..at + made.len()) {
        field.copy_from_slice(&made);
    }
    Cow::Owned(frame)
}

fn segment(frame: &[u8]) -> Option<Segment> {
    match frame.get(12..14)? {
        [0x08, 0x00] => segment4(frame),
        [0x86, 0xdd] => segment6(frame),
        _ => None,
    }
}

/// Where SCTP's checksum (RFC 9260 section 6.8) is missing, and which. Who may leave it zero for good (RFC 9653)
/// takes a right one, too.
fn missing_crc(frame: &[u8], segment: &Segment) -> Option<(usize, [u8; 4])> {
    let octets = frame.get(segment.start..segment.end)?;
    let left: [u8; 4] = octets.get(8..)?.first_chunk().copied()?;
    (left == [0; 4]).then(|| (segment.start + 8, CRC32C.checksum(octets).to_le_bytes()))
}

/// Where a checksum is missing, and which.
fn missing(frame: &[u8], segment: &Segment) -> Option<(usize, u16)> {
    let Segment { start, end, proto, addresses } = segment;
    let (start, end, proto) = (*start, *end, *proto);
    let field = start
        + match proto {
            TCP => 16,
            UDP => 6,
            ICMPV6 => 2,
            _ => return None,
        };
    let segment = frame.get(start..end)?;
    let left: [u8; 2] = frame.get(field..end)?.first_chunk().copied()?;
    let len = u32::try_from(segment.len()).ok()?.to_be_bytes();
    let pseudo = sum(&[frame.get(addresses.clone())?, &len, &[0, proto]]);
    // The field counts as what stands in it, which is the sum of the pseudo header.
    let all = sum(&[segment]);
    // All ones: the checksum is right as it is.
    if u16::from_be_bytes(left) != pseudo || sum(&[segment, &pseudo.to_be_bytes()]) == u16::MAX {
        return None;
    }
    Some((field, if proto == UDP && all == u16::MAX { u16::MAX } else { !all }))
}

fn segment4(frame: &[u8]) -> Option<Segment> {
    let header: [u8; 20] = frame.get(14..)?.first_chunk().copied()?;
    let [_, _, len_a, len_b, _, _, flags, offset, _, proto, ..] = header;
    let start = 14 + usize::from(header[0] & 15) * 4;
    let end = 14 + usize::from(u16::from_be_bytes([len_a, len_b]));
    let fragment = u16::from_be_bytes([flags, offset]) & 0x3fff != 0;
    let whole = header[0] >> 4 == 4 && !fragment && (34..=end).contains(&start) && end <= frame.len();
    whole.then_some(Segment { start, end, proto, addresses: 26..34 })
}

fn segment6(frame: &[u8]) -> Option<Segment> {
    let header: [u8; 40] = frame.get(14..)?.first_chunk().copied()?;
    let end = 54 + usize::from(u16::from_be_bytes([header[4], header[5]]));
    if header[0] >> 4 != 6 || end > frame.len() {
        return None;
    }
    let (mut start, mut proto) = (54, header[6]);
    // Hop-by-Hop and Destination Options: anything else before the transport header is left alone.
    for _ in 0..4 {
        if proto != 0 && proto != 60 {
            break;
        }
        let [next, len]: [u8; 2] = frame.get(start..end)?.first_chunk().copied()?;
        (start, proto) = (start + (usize::from(len) + 1) * 8, next);
    }
    (start <= end).then_some(Segment { start, end, proto, addresses: 22..54 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame with a transport part that leaves its checksum out, the place of that and what it is to be.
    struct Left {
        frame: Vec<u8>,
        field: usize,
        right: Vec<u8>,
    }

    fn left(v6: bool, proto: u8, options: &[u8], payload: &[u8]) -> Left {
        let (header, at) = match proto {
            TCP => (20, 16),
            UDP => (8, 6),
            _ => (8, 2),
        };
        let mut segment = [vec![7; header], payload.to_vec()].concat();
        segment[at..at + 2].fill(0);
        let len = u16::try_from(segment.len()).unwrap();
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        if v6 {
            let whole = u16::try_from(options.len()).unwrap() + len;
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(whole.to_be_bytes());
            frame.extend([if options.is_empty() { proto } else { 0 }, 64]);
            frame.extend((0_u8..32).map(|n| 0xf0 | n));
            frame.extend(options);
        } else {
            frame.extend([0x08, 0, 0x45, 0]);
            frame.extend((20 + len).to_be_bytes());
            frame.extend([0, 7, 0x40, 0, 64, proto, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        }
        let addresses = if v6 { &frame[22..54] } else { &frame[26..34] };
        let pseudo = [addresses, &len.to_be_bytes(), &[0, proto]].concat();
        let check = match !sum(&[&pseudo, &segment]) {
            0 if proto == UDP => u16::MAX,
            check => check,
        };
        let field = frame.len() + at;
        frame.extend(segment);
        let mut right = frame.clone();
        right[field..field + 2].copy_from_slice(&check.to_be_bytes());
        frame[field..field + 2].copy_from_slice(&sum(&[&pseudo]).to_be_bytes());
        Left { frame, field, right }
    }

    const CASES: [(bool, u8); 5] = [(false, TCP), (false, UDP), (true, TCP), (true, UDP), (true, ICMPV6)];

    #[test]
    fn ld_a_checksum_that_was_left_to_be_made_is() {
        for (v6, proto) in CASES {
            for payload in [&b""[..], b"odd", b"even"] {
                let mut it = left(v6, proto, &[], payload);
                assert_eq!(completed(&it.frame), it.right, "IPv6: {v6}, protocol {proto}");
                assert_eq!(completed(&it.right), it.right, "once");
                // What is behind the packet is none of it.
                it.frame.extend([9; 18]);
                it.right.extend([9; 18]);
                assert_eq!(completed(&it.frame), it.right);
            }
        }
        let behind = left(true, TCP, &[TCP, 0, 1, 4, 0, 0, 0, 0], b"options");
        assert_eq!(completed(&behind.frame), behind.right);
    }

    #[test]
    fn ld_a_zero_checksum_of_udp_is_written_as_ones() {
        // The sum of everything is made all ones by its last word.
        let mut it = left(false, UDP, &[], &[0, 0]);
        let check = u16::from_be_bytes([it.right[it.field], it.right[it.field + 1]]);
        let end = it.frame.len();
        it.frame[end - 2..].copy_from_slice(&check.to_be_bytes());
        assert_eq!(completed(&it.frame)[it.field..it.field + 2], [0xff, 0xff]);
    }

    #[test]
    fn ld_other_checksums_are_the_tenants_own() {
        for (v6, proto) in CASES {
            let it = left(v6, proto, &[], b"payload");
            for other in [[0, 0], [0x12, 0x34]] {
                let mut frame = it.frame.clone();
                frame[it.field..it.field + 2].copy_from_slice(&other);
                assert_eq!(completed(&frame), frame);
            }
            for len in 0..it.frame.len() {
                let cut = &it.frame[..len];
                assert_eq!(completed(cut), cut, "cut short");
            }
        }
        let mut first = left(false, UDP, &[], b"fragment").frame;
        first[20] = 0x20;
        assert_eq!(completed(&first), first);
        let later = left(true, UDP, &[UDP, 0, 0, 1, 0, 0, 0, 9], b"fragment");
        for hides in [44, 43, 51] {
            let mut frame = later.frame.clone();
            frame[20] = hides;
            assert_eq!(completed(&frame), frame, "extension header {hides}");
        }
        let mut short = left(false, TCP, &[], b"").frame;
        short[14] = 0x4f;
        assert_eq!(completed(&short), short);
    }

    #[test]
    fn sctp_has_another_sum() {
        assert_eq!(CRC32C.checksum(b"123456789"), 0xe306_9283, "the check value of CRC-32C");
        for v6 in [false, true] {
            let Left { mut frame, .. } = left(v6, SCTP, &[], b"a chunk, and more");
            let start = if v6 { 54 } else { 34 };
            frame[start + 8..start + 12].fill(0);
            let made = completed(&frame).into_owned();
            let crc = CRC32C.checksum(&frame[start..]).to_le_bytes();
            assert_eq!(made[start + 8..start + 12], crc);
            assert_eq!(
                (&made[..start + 8], &made[start + 12..]),
                (&frame[..start + 8], &frame[start + 12..])
            );
            assert!(matches!(completed(&made), Cow::Borrowed(_)), "what is there stays");
            frame.truncate(frame.len() - 1);
            assert!(matches!(completed(&frame), Cow::Borrowed(_)), "cut short");
        }
    }
}
