//! Echo requests at a pace, each known by its number: which of them were answered. With it a test
//! can say that a request which was sent after something happened was answered.

use crate::{clock, error::LabError, netns::NetNs};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Octets of the ICMP header; the number follows it.
const HEADER: usize = 8;

/// Echo requests that go on until they are stopped or dropped.
#[derive(Debug)]
pub struct Echoes {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// The number of the next request.
    next: AtomicU64,
    /// When each request was sent, by number.
    sent: Mutex<Vec<Instant>>,
    answered: Mutex<BTreeMap<u64, Answered>>,
}

#[derive(Clone, Copy, Debug)]
struct Answered {
    first: Instant,
    times: u32,
}

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// When it was sent.
    pub sent: Instant,
    /// When its first answer came.
    pub answered: Option<Instant>,
    /// How many answers came.
    pub times: u32,
}

impl Echoes {
    /// Sends `rate` echo requests a second from `from` to `target`.
    ///
    /// # Errors
    /// When no raw socket can be made there.
    pub fn start(from: &NetNs, target: IpAddr, rate: u32) -> Result<Self, LabError> {
        let failed = || LabError::io(format!("ping {target} from {}", from.name()));
        let socket = from.run(|| open(target))?.map_err(failed())?;
        let receiving = socket.try_clone().map_err(failed())?;
        let shared = Arc::new(Shared::default());
        let (ours, theirs) = (Arc::clone(&shared), Arc::clone(&shared));
        // A late answer to an earlier stream of this process is none to this one.
        static COUNT: AtomicU16 = AtomicU16::new(0);
        let process = u16::try_from(std::process::id() & 0xffff).unwrap_or_default();
        let id = process.wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed));
        let threads = vec![
            std::thread::spawn(move || send(&socket, target, id, rate, &ours)),
            std::thread::spawn(move || receive(&receiving, target.is_ipv4(), id, &theirs)),
        ];
        Ok(Self { shared, threads })
    }

    /// The number of the request that is sent next: every request with this number or a higher one
    /// leaves after this call.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.shared.next.load(Ordering::SeqCst)
    }

    /// How many were answered.
    #[must_use]
    pub fn answers(&self) -> usize {
        self.answered().len()
    }

    /// Waits until request `number` and `more` after it have been sent and the last of these is
    /// answered, then gives the first number from `number` on that was answered.
    ///
    /// # Errors
    /// When that is not so within 30 s.
    pub fn first_answered(&self, number: u64, more: u64) -> Result<u64, LabError> {
        let all =
            clock::until_true(clock::CEILING, || self.answered().range(number + more..).next().is_some());
        let first = self.answered().range(number..).next().map(|(number, _)| *number);
        first.filter(|_| all).ok_or_else(|| LabError::Timeout {
            what: format!("an answer to echo request {number} or a later one"),
            ceiling: clock::CEILING,
        })
    }

    /// All requests sent so far, in order.
    #[must_use]
    pub fn all(&self) -> Vec<Echo> {
        let sent = self.shared.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let answered = self.answered();
        let echo = |(number, sent): (u64, &Instant)| {
            let answer = answered.get(&number);
            Echo {
                sent: *sent,
                answered: answer.map(|answer| answer.first),
                times: answer.map_or(0, |answer| answer.times),
            }
        };
        (0..).zip(sent.iter()).map(echo).collect()
    }

    /// Stops, and gives how many were sent and how many answered.
    #[must_use]
    pub fn stop(mut self) -> (u64, usize) {
        self.shared.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        (self.next(), self.answers())
    }

    fn answered(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Answered>> {
        self.shared.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Echoes {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
    }
}

/// A raw ICMP socket, which the standard library's calls for datagrams serve as well.
fn open(target: IpAddr) -> io::Result<UdpSocket> {
    let (family, protocol) = match target {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    let socket = UdpSocket::from(socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?);
    socket.set_read_timeout(Some(Duration::from_millis(10)))?;
    Ok(socket)
}

/// RFC 792 and RFC 4443 section 4.1. The kernel fills in the checksum of ICMPv6.
fn request(v4: bool, id: u16, number: u64) -> Vec<u8> {
    let kind = if v4 { 8 } else { 128 };
    let mut octets = vec![kind, 0, 0, 0];
    octets.extend(id.to_be_bytes());
    octets.extend_from_slice(&number.to_be_bytes()[6..]);
    octets.extend(number.to_be_bytes());
    if v4 {
        let sum = !checksum(&octets);
        octets[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    octets
}

/// The number of an answer to one of our requests.
fn answer(v4: bool, id: u16, octets: &[u8]) -> Option<u64> {
    // Raw IPv4 sockets give the IP header too.
    let at = if v4 { usize::from(octets.first()? & 0xf) * 4 } else { 0 };
    let icmp = octets.get(at..)?;
    let ours = *icmp.first()? == if v4 { 0 } else { 129 } && icmp.get(4..6)? == id.to_be_bytes();
    let number = icmp.get(HEADER..HEADER + 8)?.first_chunk().map(|first| u64::from_be_bytes(*first))?;
    ours.then_some(number)
}

/// The one's complement sum (RFC 1071) of `octets`.
#[must_use]
pub fn checksum(octets: &[u8]) -> u16 {
    let mut sum: u32 = octets
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

fn send(socket: &UdpSocket, target: IpAddr, id: u16, rate: u32, shared: &Shared) {
    let step = Duration::from_secs(1) / rate.max(1);
    let mut next = clock::now();
    while !shared.stop.load(Ordering::Acquire) {
        let number = shared.next.fetch_add(1, Ordering::SeqCst);
        shared.sent.lock().unwrap_or_else(PoisonError::into_inner).push(clock::now());
        // Not sent, for want of a route or a neighbour, is not answered.
        let _ = socket.send_to(&request(target.is_ipv4(), id, number), SocketAddr::new(target, 0));
        next += step;
        clock::pace_until(next);
    }
}

fn receive(socket: &UdpSocket, v4: bool, id: u16, shared: &Shared) {
    let mut octets = [0; 128];
    while !shared.stop.load(Ordering::Acquire) {
        // A timeout, or word that an earlier request could not be delivered.
        let Ok((length, _)) = socket.recv_from(&mut octets) else { continue };
        if let Some(number) = answer(v4, id, &octets[..length]) {
            let now = clock::now();
            let mut answered = shared.answered.lock().unwrap_or_else(PoisonError::into_inner);
            answered.entry(number).or_insert(Answered { first: now, times: 0 }).times += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_known_by_its_number() {
        let sent = request(true, 7, 70_000);
        assert_eq!(checksum(&sent), 0xffff, "the sum with its complement in place");
        let mut got = vec![0x45; 20];
        got.extend(&sent);
        assert_eq!(answer(true, 7, &got), None, "a request is no answer");
        got[20] = 0;
        assert_eq!(answer(true, 7, &got), Some(70_000));
        assert_eq!(answer(true, 8, &got), None, "somebody else's");
        let mut got = request(false, 7, 3);
        got[0] = 129;
        assert_eq!(answer(false, 7, &got), Some(3));
        for length in 0..got.len() {
            assert_eq!(answer(false, 7, &got[..length]), None);
        }
    }
}
