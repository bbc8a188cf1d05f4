//! A paced stream of numbered datagrams from one tenant system to another: how many were lost,
//! how many came twice, how long the longest silence was, and when the first one arrived.

use crate::{clock, error::LabError, netns::NetNs};
use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// The UDP port of the receiver.
pub const PORT: u16 = 7007;

/// A stream that runs until it is stopped or dropped.
#[derive(Debug)]
pub struct Stream {
    shared: Arc<Shared>,
    sender: Option<JoinHandle<()>>,
    receiver: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// The sender shall stop.
    stop: AtomicBool,
    /// The receiver shall stop.
    end: AtomicBool,
    sent: AtomicU64,
    /// Datagrams the sender's own kernel refused, each of which would otherwise count as lost.
    refused: AtomicU64,
    got: Mutex<Got>,
}

#[derive(Debug, Default)]
struct Got {
    /// How often each number arrived.
    times: Vec<u8>,
    first: Option<Instant>,
    last: Option<Instant>,
    gap: Duration,
    received: u64,
    late: u64,
    highest: Option<u64>,
}

/// What became of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Datagrams that left the sender.
    pub sent: u64,
    /// Of those, how many arrived at least once.
    pub received: u64,
    /// How many never arrived.
    pub lost: u64,
    /// How many arrived more than once.
    pub duplicates: u64,
    /// How many arrived after a later one.
    pub reordered: u64,
    /// The longest time between two arrivals.
    pub longest_gap: Duration,
    /// How many the sender's own network stack refused.
    pub refused: u64,
}

impl Stream {
    /// Sends `rate` datagrams per second from `from` to `addr`, which is in `to`.
    ///
    /// # Errors
    /// When a socket cannot be made in one of the namespaces.
    pub fn start(from: &NetNs, to: &NetNs, addr: IpAddr, rate: u32) -> Result<Self, LabError> {
        Self::start_at(from, to, SocketAddr::new(addr, PORT), rate)
    }

    /// The same to another port than [`PORT`], of which each receiver needs one of its own.
    ///
    /// # Errors
    /// When a socket cannot be made in one of the namespaces.
    pub fn start_at(from: &NetNs, to: &NetNs, target: SocketAddr, rate: u32) -> Result<Self, LabError> {
        let (addr, port) = (target.ip(), target.port());
        let any = |addr: IpAddr, port| match addr {
            IpAddr::V4(_) => SocketAddr::from(([0; 4], port)),
            IpAddr::V6(_) => SocketAddr::from(([0u16; 8], port)),
        };
        let receiver = to
            .run(|| UdpSocket::bind(any(addr, port)))?
            .map_err(LabError::io(format!("receive probes on UDP port {port} in {}", to.name())))?;
        receiver
            .set_read_timeout(Some(Duration::from_millis(10)))
            .map_err(LabError::io("set up the probe receiver"))?;
        let sender = from
            .run(|| UdpSocket::bind(any(addr, 0)))?
            .map_err(LabError::io(format!("send probes from {}", from.name())))?;
        let shared = Arc::new(Shared::default());
        let (ours, theirs) = (Arc::clone(&shared), Arc::clone(&shared));
        let receiver = std::thread::spawn(move || receive(&receiver, &ours));
        let sender = std::thread::spawn(move || send(&sender, target, rate, &theirs));
        Ok(Self { shared, sender: Some(sender), receiver: Some(receiver) })
    }

    /// How many have been sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Acquire)
    }

    /// How many have arrived so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.got().received
    }

    /// When the first one arrived.
    #[must_use]
    pub fn first(&self) -> Option<Instant> {
        self.got().first
    }

    /// Waits until the first one has arrived.
    ///
    /// # Errors
    /// When none has within 30 s.
    pub fn wait_first(&self) -> Result<Instant, LabError> {
        clock::until(clock::CEILING, || Ok::<_, LabError>(self.first()))?.ok_or_else(|| LabError::Timeout {
            what: "the arrival of a first probe".to_owned(),
            ceiling: clock::CEILING,
        })
    }

    /// Waits until `count` more have been sent.
    ///
    /// # Errors
    /// When that takes more than `ceiling`.
    pub fn wait_sent(&self, count: u64, ceiling: Duration) -> Result<(), LabError> {
        let goal = self.sent() + count;
        if clock::until_true(ceiling, || self.sent() >= goal) {
            return Ok(());
        }
        Err(LabError::Timeout { what: format!("the sending of {count} probes"), ceiling })
    }

    /// Stops sending, waits up to a second for what is still on its way, and reports.
    #[must_use]
    pub fn stop(mut self) -> Report {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(sender) = self.sender.take() {
            let _ = sender.join();
        }
        let sent = self.sent();
        let _ = clock::until_true(Duration::from_secs(1), || self.received() >= sent);
        self.shared.end.store(true, Ordering::Release);
        if let Some(receiver) = self.receiver.take() {
            let _ = receiver.join();
        }
        let got = self.got();
        let arrived = got.times.iter().filter(|times| **times > 0).count() as u64;
        Report {
            sent,
            received: arrived,
            lost: sent.saturating_sub(arrived),
            duplicates: got.times.iter().filter(|times| **times > 1).count() as u64,
            reordered: got.late,
            longest_gap: got.gap,
            refused: self.shared.refused.load(Ordering::Acquire),
        }
    }

    /// Stops at once, without waiting for what is on its way.
    pub fn cancel(mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.end.store(true, Ordering::Release);
        for thread in [self.sender.take(), self.receiver.take()].into_iter().flatten() {
            let _ = thread.join();
        }
    }

    fn got(&self) -> std::sync::MutexGuard<'_, Got> {
        self.shared.got.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.end.store(true, Ordering::Release);
    }
}

fn send(socket: &UdpSocket, target: SocketAddr, rate: u32, shared: &Shared) {
    // The kernel rounds a sleep up by this much: 50 us by default, half the pace of 10,000 a second.
    let _ = nix::sys::prctl::set_timerslack(1);
    let step = Duration::from_secs(1) / rate.max(1);
    let mut next = clock::now();
    let mut number = 0u64;
    while !shared.stop.load(Ordering::Acquire) {
        match socket.send_to(&number.to_be_bytes(), target) {
            Ok(_) => {
                number += 1;
                shared.sent.store(number, Ordering::Release);
            }
            // No route or carrier yet, or ICMP from earlier: the pace goes on, with the same number.
            Err(_) => {
                shared.refused.fetch_add(1, Ordering::AcqRel);
            }
        }
        next += step;
        clock::pace_until(next);
    }
}

fn receive(socket: &UdpSocket, shared: &Shared) {
    let mut bytes = [0; 16];
    while !shared.end.load(Ordering::Acquire) {
        let length = match socket.recv(&mut bytes) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                continue;
            }
            Err(_) => return,
        };
        let now = clock::now();
        let Some(number) = bytes[..length].first_chunk::<8>().map(|first| u64::from_be_bytes(*first)) else {
            continue;
        };
        let Ok(at) = usize::try_from(number) else { continue };
        let mut got = shared.got.lock().unwrap_or_else(PoisonError::into_inner);
        if got.times.len() <= at {
            got.times.resize(at + 1, 0);
        }
        if got.times[at] == 0 {
            got.received += 1;
        }
        got.times[at] = got.times[at].saturating_add(1);
        if got.highest.is_some_and(|highest| number < highest) {
            got.late += 1;
        }
        got.highest = got.highest.max(Some(number));
        got.first.get_or_insert(now);
        if let Some(last) = got.last {
            got.gap = got.gap.max(now - last);
        }
        got.last = Some(now);
    }
}
