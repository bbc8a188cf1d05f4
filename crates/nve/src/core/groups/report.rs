//! What tenant systems say of multicast groups: IGMPv1 to v3 (RFC 1112, RFC 2236, RFC 3376) and MLDv1 and v2
//! (RFC 2710, RFC 3810). Sources are not told apart: who wants some of a group is given all of it and picks.

use ::core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use etherparse::checksum::Sum16BitWords;
use std::collections::BTreeMap;
use weft_model::GroupIp;

const ETH: usize = 14;
const IGMP: u8 = 2;
const ICMPV6: u8 = 58;

/// What a report says of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Somebody there wants it.
    Wanted(GroupIp),
    /// Somebody there wants it no more, or less of it; who else does answers when asked.
    Left(GroupIp),
}

/// Why a punted frame is no report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAReport {
    /// Cut short, a fragment, no IGMP or MLD, or headers that do not add up.
    #[error("no well-formed IGMP or MLD report")]
    Malformed,
    /// The checksum does not match (RFC 3376 section 4.1.2, RFC 4443 section 2.3).
    #[error("an IGMP or MLD report with a wrong checksum")]
    Checksum,
}

/// Reads a report: one word of each group, in order. Of groups that one has to ask for: those of one link are left out.
///
/// # Errors
/// [`NotAReport`].
pub fn parse(frame: &[u8]) -> Result<Vec<Said>, NotAReport> {
    let found = match frame.get(12..ETH) {
        Some([0x08, 0x00]) => igmp(frame)?,
        Some([0x86, 0xdd]) => mld(frame)?,
        _ => None,
    };
    found.ok_or(NotAReport::Malformed)
}

fn word(octets: &[u8], at: usize) -> Option<u16> {
    octets.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}

/// The sum of RFC 1071; a right checksum among the octets makes it 0.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let sum = parts.iter().fold(Sum16BitWords::new(), |sum, part| sum.add_slice(part));
    sum.ones_complement().to_be()
}

/// The IPv6 pseudo header of an ICMPv6 message (RFC 8200 section 8.1).
pub fn pseudo(from: Ipv6Addr, to: Ipv6Addr, length: usize) -> Vec<u8> {
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [&from.octets()[..], &to.octets(), &length, &[0, 0, 0, ICMPV6]].concat()
}

fn igmp(frame: &[u8]) -> Result<Option<Vec<Said>>, NotAReport> {
    let message = || {
        let [first, ..] = *frame.get(ETH..)?.first_chunk::<20>()?;
        let (header, length) = (usize::from(first & 15) * 4, usize::from(word(frame, ETH + 2)?));
        let whole = word(frame, ETH + 6)? & 0x3fff == 0 && frame.get(ETH + 9) == Some(&IGMP);
        let right = first >> 4 == 4 && header >= 20 && whole;
        frame.get(ETH + header..ETH + length).filter(|message| right && message.len() >= 8)
    };
    let Some(message) = message() else { return Ok(None) };
    if checksum(&[message]) != 0 {
        return Err(NotAReport::Checksum);
    }
    Ok(match message.first() {
        Some(0x12 | 0x16) => one::<4>(message, 4, Said::Wanted),
        Some(0x17) => one::<4>(message, 4, Said::Left),
        Some(0x22) => records::<4>(message),
        _ => None,
    })
}

fn mld(frame: &[u8]) -> Result<Option<Vec<Said>>, NotAReport> {
    let message = || {
        let header = frame.get(ETH..)?.first_chunk::<40>()?;
        let end = ETH + 40 + usize::from(word(frame, ETH + 4)?);
        let (mut next, mut at) = (header[6], ETH + 40);
        // Hop-by-hop, routing and destination options; as many as the data plane looks behind.
        for _ in 0..4 {
            if ![0, 43, 60].contains(&next) {
                break;
            }
            let extension = frame.get(at..)?.first_chunk::<2>()?;
            next = extension[0];
            at += (usize::from(extension[1]) + 1) * 8;
        }
        // From this link (RFC 3810 section 6.2).
        let right = header[0] >> 4 == 6 && header[7] == 1 && next == ICMPV6;
        let addresses = (octets::<16>(frame, ETH + 8)?, octets::<16>(frame, ETH + 24)?);
        frame.get(at..end).filter(|message| right && message.len() >= 8).map(|message| (message, addresses))
    };
    let Some((message, (from, to))) = message() else { return Ok(None) };
    if checksum(&[&pseudo(from.into(), to.into(), message.len()), message]) != 0 {
        return Err(NotAReport::Checksum);
    }
    Ok(match message.first() {
        Some(131) => one::<16>(message, 8, Said::Wanted),
        Some(132) => one::<16>(message, 8, Said::Left),
        Some(143) => records::<16>(message),
        _ => None,
    })
}

fn octets<const N: usize>(message: &[u8], at: usize) -> Option<[u8; N]> {
    message.get(at..)?.first_chunk().copied()
}

/// The address of `N` octets at `at`: none inside for a group of one link.
fn group<const N: usize>(message: &[u8], at: usize) -> Option<Option<GroupIp>> {
    let address = message.get(at..at + N)?;
    let ip: IpAddr = match N {
        4 => Ipv4Addr::from(octets::<4>(address, 0)?).into(),
        _ => Ipv6Addr::from(octets::<16>(address, 0)?).into(),
    };
    Some(GroupIp::new(ip).ok())
}

fn one<const N: usize>(message: &[u8], at: usize, said: fn(GroupIp) -> Said) -> Option<Vec<Said>> {
    group::<N>(message, at).map(|group| group.map(said).into_iter().collect())
}

/// Group records (RFC 3376 section 4.2.4, RFC 3810 section 5.2.4). Many may be of one group: who wants some of its
/// sources wants it, whatever else is left.
fn records<const N: usize>(message: &[u8]) -> Option<Vec<Said>> {
    let mut said = BTreeMap::new();
    let mut at = 8;
    for _ in 0..word(message, 6)? {
        let [kind, auxiliary, ..] = octets::<4>(message, at)?;
        let (sources, group) = (usize::from(word(message, at + 2)?), group::<N>(message, at + 4)?);
        at += 4 + N + sources * N + usize::from(auxiliary) * 4;
        if at > message.len() {
            return None;
        }
        let Some(group) = group else { continue };
        match (kind, sources) {
            // Is, or becomes, "all but these"; or is, or becomes, "these" or "these too".
            (2 | 4, _) | (1 | 3 | 5, 1..) => {
                said.insert(group, Said::Wanted(group));
            }
            // Becomes "none"; or not these any more.
            (3, 0) | (6, _) => {
                said.entry(group).or_insert(Said::Left(group));
            }
            _ => {}
        }
    }
    Some(said.into_values().collect())
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An IGMP message in a frame, its checksum made.
    pub fn igmp(message: &[u8]) -> Vec<u8> {
        let mut message = message.to_vec();
        message[2..4].fill(0);
        let sum = checksum(&[&message]).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
        let length = u16::try_from(24 + message.len()).unwrap().to_be_bytes();
        let ip = [0x46, 0xc0, length[0], length[1], 0, 0, 0, 0, 1, IGMP, 0, 0, 10, 0, 0, 1, 224, 0, 0, 22];
        [&[1, 0, 0x5e, 0, 0, 22, 2, 0, 0, 0, 0, 1, 8, 0][..], &ip, &[0x94, 4, 0, 0], &message].concat()
    }

    /// An MLD message behind its router alert, its checksum made.
    pub fn mld(message: &[u8]) -> Vec<u8> {
        let (from, to): (Ipv6Addr, Ipv6Addr) = ("fe80::1".parse().unwrap(), "ff02::16".parse().unwrap());
        let mut message = message.to_vec();
        message[2..4].fill(0);
        let sum = checksum(&[&pseudo(from, to, message.len()), &message]).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
        let length = u16::try_from(8 + message.len()).unwrap().to_be_bytes();
        let ip = [&[0x60, 0, 0, 0, length[0], length[1], 0, 1][..], &from.octets(), &to.octets()].concat();
        let alert = [ICMPV6, 0, 5, 2, 0, 0, 1, 0];
        [&[0x33, 0x33, 0, 0, 0, 22, 2, 0, 0, 0, 0, 1, 0x86, 0xdd][..], &ip, &alert, &message].concat()
    }

    fn octets_of(group: &str) -> Vec<u8> {
        match group.parse().unwrap() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        }
    }

    /// A report of the older kinds: IGMPv2 or MLDv1.
    pub fn single(group: &str, left: bool) -> Vec<u8> {
        match group.contains(':') {
            false => igmp(&[&[if left { 0x17 } else { 0x16 }, 0, 0, 0][..], &octets_of(group)].concat()),
            true => {
                let head = [if left { 132 } else { 131 }, 0, 0, 0, 0, 0, 0, 0];
                mld(&[&head[..], &octets_of(group)].concat())
            }
        }
    }

    /// A report of the newer kinds: records of type and group, with as many sources.
    pub fn report(records: &[(u8, &str, u16)]) -> Vec<u8> {
        let v6 = records.iter().any(|(_, group, _)| group.contains(':'));
        let count = u16::try_from(records.len()).unwrap().to_be_bytes();
        let mut message = vec![if v6 { 143 } else { 0x22 }, 0, 0, 0, 0, 0, count[0], count[1]];
        for (kind, group, sources) in records {
            message.extend([*kind, 0]);
            message.extend(sources.to_be_bytes());
            message.extend(octets_of(group));
            message.extend(vec![9; usize::from(*sources) * if v6 { 16 } else { 4 }]);
        }
        if v6 { mld(&message) } else { igmp(&message) }
    }

    fn wanted(group: &str) -> Said {
        Said::Wanted(group.parse().unwrap())
    }

    fn left(group: &str) -> Said {
        Said::Left(group.parse().unwrap())
    }

    #[test]
    fn what_is_wanted_and_what_is_left() {
        for (group, other, of_link) in
            [("239.1.2.3", "232.0.0.9", "224.0.0.251"), ("ff15::1", "ff3e::2", "ff02::fb")]
        {
            assert_eq!(parse(&single(group, false)), Ok(vec![wanted(group)]));
            assert_eq!(parse(&single(group, true)), Ok(vec![left(group)]));
            assert_eq!(parse(&single(of_link, false)), Ok(vec![]));
            let all = report(&[
                (2, of_link, 0),
                (4, group, 0),
                (2, group, 3),
                (1, other, 2),
                (5, other, 1),
                (3, other, 1),
                (3, group, 0),
                (6, other, 1),
                (1, group, 0),
                (9, group, 1),
            ]);
            let mut expected = [group, other];
            expected.sort_unstable();
            assert_eq!(parse(&all), Ok(expected.map(wanted).to_vec()), "wanted as well as left is wanted");
            let gone = report(&[(3, other, 0), (6, group, 1), (3, other, 0)]);
            assert_eq!(parse(&gone), Ok(expected.map(left).to_vec()));
        }
        assert_eq!(parse(&igmp(&[0x12, 0, 0, 0, 239, 1, 2, 3])), Ok(vec![wanted("239.1.2.3")]));
    }

    #[test]
    fn what_is_no_report() {
        for good in [report(&[(4, "239.1.2.3", 1)]), report(&[(4, "ff15::1", 1)]), single("ff15::1", false)] {
            for cut in 0..good.len() {
                assert!(parse(&good[..cut]).is_err(), "{cut} of {good:02x?}");
            }
            let mut spoilt = good.clone();
            *spoilt.last_mut().unwrap() ^= 1;
            assert_eq!(parse(&spoilt), Err(NotAReport::Checksum));
            // Padding is none of it.
            assert!(parse(&[&good[..], &[7; 9]].concat()).is_ok());
        }
        let mut routed = single("ff15::1", false);
        routed[ETH + 7] = 64;
        assert_eq!(parse(&routed), Err(NotAReport::Malformed), "it crossed a router");
        // More records, or more sources, than there are octets.
        assert_eq!(parse(&igmp(&[0x22, 0, 0, 0, 0, 0, 0xff, 0xff])), Err(NotAReport::Malformed));
        let long = igmp(&[0x22, 0, 0, 0, 0, 0, 0, 1, 4, 255, 0xff, 0xff, 239, 1, 2, 3]);
        assert_eq!(parse(&long), Err(NotAReport::Malformed));
        assert_eq!(parse(&igmp(&[0x11, 0, 0, 0, 239, 1, 2, 3])), Err(NotAReport::Malformed));
    }

    proptest! {
        #[test]
        fn any_octets(octets in proptest::collection::vec(any::<u8>(), 0..200), v6: bool, whole: bool) {
            let message = [&octets[..], &[0; 8]].concat();
            let frame = match (whole, v6) {
                (true, true) => mld(&message),
                (true, false) => igmp(&message),
                _ => octets,
            };
            // A record takes at least eight octets.
            prop_assert!(parse(&frame).map_or(0, |said| said.len()) <= frame.len() / 8);
        }

        #[test]
        fn spoilt_reports(at in 0_usize..90, with: u8, v6: bool) {
            let group = if v6 { "ff15::1" } else { "239.1.2.3" };
            let mut frame = report(&[(4, group, 1), (3, group, 0)]);
            let at = at % frame.len();
            frame[at] = with;
            let _ = parse(&frame);
        }
    }
}
