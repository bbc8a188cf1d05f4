//! Hostile datagrams: real messages after the usual accidents, and rubbish. The same seed makes the
//! same datagrams.

use crate::build;
use anyhow::{Context as _, Result, ensure};
use std::net::Ipv4Addr;
use weft_lab::echo::checksum;

/// Longest datagram, octets: what an Ethernet underlay carries in one piece.
const LONGEST: usize = 1_400;
/// First octets of messages: each type, with and without flags.
const FIRST: [u8; 10] = [0x10, 0x20, 0x30, 0x38, 0x40, 0x50, 0x60, 0x80, 0x88, 0xf0];

/// The seeds of the fuzzer: well-formed messages of every kind. What the fuzzer itself found is
/// named by its hash.
pub(super) fn samples() -> Result<Vec<Vec<u8>>> {
    let folder = build::root()?.join("fuzz/corpus/lisp_udp");
    let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.file_name().is_some_and(|name| name.len() != 40));
    paths.sort();
    ensure!(!paths.is_empty(), "there are no messages in {}", folder.display());
    paths
        .iter()
        .map(|path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display())))
        .collect()
}

/// A Map-Request (RFC 9301 section 5.2) of the NVE at `rloc` for `target` in `vni`, in an Encapsulated
/// Control Message (section 5.8) to the Oracle: what that looks at to the end.
pub(super) fn question(
    vni: u32,
    (rloc, oracle): (Ipv4Addr, Ipv4Addr),
    (source, target): (Ipv4Addr, Ipv4Addr),
) -> Vec<u8> {
    // RFC 8060 section 4.1: an Instance-ID, and the IPv4 address in it.
    let eid = |ip: Ipv4Addr| {
        [&[0x40, 3, 0, 0, 2, 0, 0, 10][..], &vni.to_be_bytes(), &[0, 1], &ip.octets()].concat()
    };
    let header = [0x10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    let request = [&header[..], &eid(source), &[0, 1], &rloc.octets(), &[0, 32], &eid(target)].concat();
    // UDP over IPv4, port 4342 to 4342, without a checksum.
    let [high, low] = length(8 + request.len());
    let udp = [0x10, 0xf6, 0x10, 0xf6, high, low, 0, 0];
    let [high, low] = length(28 + request.len());
    let mut ip = vec![0x45, 0, high, low, 0, 0, 0, 0, 64, 17, 0, 0];
    ip.extend(rloc.octets());
    ip.extend(oracle.octets());
    let sum = !checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    [&[0x80, 0, 0, 0][..], &ip, &udp, &request].concat()
}

fn length(octets: usize) -> [u8; 2] {
    u16::try_from(octets).unwrap_or(u16::MAX).to_be_bytes()
}

/// A deterministic generator (splitmix64).
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// The `stream`-th generator of `seed`.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        Self(seed ^ stream.wrapping_mul(0xd134_2543_de82_ef95))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        // Less than `end`, so it fits.
        usize::try_from(self.next() % end.max(1) as u64).unwrap_or_default()
    }

    fn octet(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn fill(&mut self, into: &mut Vec<u8>, count: usize) {
        for _ in 0..count {
            let octet = self.octet();
            into.push(octet);
        }
    }
}

/// Makes datagrams.
#[derive(Debug)]
pub(super) struct Datagrams<'a> {
    random: Random,
    samples: &'a [Vec<u8>],
}

impl<'a> Datagrams<'a> {
    pub(super) fn new(random: Random, samples: &'a [Vec<u8>]) -> Self {
        Self { random, samples }
    }

    /// Puts the next one in the place of what is in `into`.
    pub(super) fn next(&mut self, into: &mut Vec<u8>) {
        into.clear();
        let random = &mut self.random;
        match random.below(10) {
            0 => {
                let length = random.below(300);
                random.fill(into, length);
            }
            // Behind a right first octet, rubbish.
            1 => {
                into.push(random.pick(&FIRST));
                let length = random.below(200);
                random.fill(into, length);
            }
            // As it is, but for its nonce: what is asked is looked at to the end.
            2 => {
                into.extend_from_slice(&self.samples[random.below(self.samples.len())]);
                let nonce = random.next().to_be_bytes();
                let at = if into.first() == Some(&0x80) { 32 } else { 0 };
                if let Some(place) = into.get_mut(at + 4..at + 12) {
                    place.copy_from_slice(&nonce);
                }
            }
            _ => {
                into.extend_from_slice(&self.samples[random.below(self.samples.len())]);
                for _ in 0..=random.below(4) {
                    self.accident(into);
                }
            }
        }
        into.truncate(LONGEST);
    }

    fn accident(&mut self, octets: &mut Vec<u8>) {
        let random = &mut self.random;
        let at = random.below(octets.len());
        match random.below(8) {
            0 if !octets.is_empty() => octets[at] ^= 1 << random.below(8),
            1 if !octets.is_empty() => octets[at] = random.pick(&[0, 1, 0x7f, 0x80, 0xfe, 0xff]),
            2 => octets.truncate(at),
            3 => {
                let end = (at + 1 + random.below(8)).min(octets.len());
                octets.drain(at..end);
            }
            4 => {
                let mut more = Vec::new();
                let length = 1 + random.below(16);
                random.fill(&mut more, length);
                octets.splice(at..at, more);
            }
            5 => {
                let end = (at + 1 + random.below(64)).min(octets.len());
                let again = octets[at..end].to_vec();
                octets.splice(at..at, again);
            }
            6 => {
                let other = &self.samples[random.below(self.samples.len())];
                octets.truncate(at);
                octets.extend_from_slice(&other[random.below(other.len())..]);
            }
            _ => {
                let number = random.pick(&[0u32, 1, 0xffff, 1 << 24, 0x7fff_ffff, u32::MAX]);
                if let Some(place) = octets.get_mut(at..at + 4) {
                    place.copy_from_slice(&number.to_be_bytes());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_datagrams() {
        let mut samples = samples().unwrap();
        let (rloc, oracle) = (Ipv4Addr::new(192, 0, 2, 3), Ipv4Addr::new(192, 0, 2, 101));
        samples.push(question(7, (rloc, oracle), (rloc, oracle)));
        let make = |seed, stream| {
            let mut datagrams = Datagrams::new(Random::new(seed, stream), &samples);
            (0..2_000)
                .map(|_| {
                    let mut octets = Vec::new();
                    datagrams.next(&mut octets);
                    octets
                })
                .collect::<Vec<_>>()
        };
        let all = make(1, 0);
        assert_eq!(all, make(1, 0));
        assert_ne!(all, make(1, 1));
        assert_ne!(all, make(2, 0));
        assert!(all.iter().all(|octets| octets.len() <= LONGEST));
        let changed = all.iter().filter(|octets| !samples.contains(octets)).count();
        assert!(changed > 1_900, "{changed} of 2,000 are no samples");
    }
}
