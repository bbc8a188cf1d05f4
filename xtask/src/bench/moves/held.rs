//! TCP connections that tenants on other hosts hold with the one that moves: a number goes there and comes back, and
//! so on. One that ends, or on which nothing has come back for half a minute, is broken.

use super::guest::{ADDRESSES, NAME, PEERS, TENANTS};
use crate::say;
use anyhow::{Context as _, Result};
use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};
use weft_lab::{Lab, NetNs, clock};

/// What others connect to, and what the one that moves does.
pub(super) const PORT: u16 = 7009;
const PEERS_PORT: u16 = 7010;
/// From one number to the next.
const PACE: Duration = Duration::from_millis(2);
const PEERS_PACE: Duration = Duration::from_millis(10);

/// Who has opened a connection. Numbers always begin at the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The others.
    Others,
    /// The one that moves: all that comes to it is an answer.
    Guest,
}

/// See the module.
pub(super) struct Held {
    shared: Arc<Shared>,
    open: Vec<Open>,
    broken: usize,
    by: By,
}

#[derive(Default)]
struct Shared {
    /// Numbers go out; else all wait.
    go: AtomicBool,
    end: AtomicBool,
}

struct Open {
    /// The other's node, and the address that was connected to.
    other: &'static str,
    to: IpAddr,
    back: Arc<AtomicU64>,
    thread: JoinHandle<io::Result<()>>,
}

impl Held {
    pub(super) fn start(lab: &Lab, by: By) -> Result<Self> {
        let mut held = Self { shared: Arc::default(), open: Vec::new(), broken: 0, by };
        let all: Vec<(&'static str, IpAddr)> = match by {
            By::Others => TENANTS.iter().flat_map(|other| ADDRESSES.map(|to| (*other, to))).collect(),
            By::Guest => PEERS.to_vec(),
        };
        if by == By::Others {
            serve(&lab.node(NAME)?)?;
        }
        for (other, to) in all {
            held.open.push(open(lab, by, (other, to), &held.shared)?);
        }
        Ok(held)
    }

    /// Has numbers go out, or wait: only one data centre at a time is busy.
    pub(super) fn go(&self, go: bool) {
        self.shared.go.store(go, Ordering::Release);
    }

    /// Waits until a number has come back on each; opens anew what is broken, and counts it.
    pub(super) fn check(&mut self, lab: &Lab) -> Result<()> {
        for held in &mut self.open {
            let before = held.back.load(Ordering::Acquire);
            let goes_on = clock::until_true(clock::CEILING, || {
                held.thread.is_finished() || held.back.load(Ordering::Acquire) > before + 1
            });
            if goes_on && !held.thread.is_finished() {
                continue;
            }
            self.broken += 1;
            say::step(&format!("broken: TCP of {} opened to {}", held.other, held.to));
            *held = open(lab, self.by, (held.other, held.to), &self.shared)?;
        }
        Ok(())
    }

    /// Ends all; gives how many were broken.
    pub(super) fn end(self) -> usize {
        self.shared.end.store(true, Ordering::Release);
        self.broken
    }
}

fn open(lab: &Lab, by: By, (other, to): (&'static str, IpAddr), shared: &Arc<Shared>) -> Result<Open> {
    let (stream, pace) = match by {
        By::Others => (connect(lab, other, SocketAddr::new(to, PORT))?, PACE),
        By::Guest => {
            let at = SocketAddr::new(to, PEERS_PORT);
            let listener = lab.node(other)?.run(|| TcpListener::bind(at))??;
            let guests = connect(lab, NAME, at)?;
            std::thread::spawn(move || echo(guests));
            (listener.accept()?.0, PEERS_PACE)
        }
    };
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(clock::CEILING))?;
    let back = Arc::new(AtomicU64::new(0));
    let (ours, shared) = (Arc::clone(&back), Arc::clone(shared));
    let thread = std::thread::spawn(move || exchange(stream, pace, &ours, &shared));
    Ok(Open { other, to, back, thread })
}

fn connect(lab: &Lab, from: &str, target: SocketAddr) -> Result<TcpStream> {
    let stream = lab.node(from)?.run(|| TcpStream::connect_timeout(&target, clock::CEILING))?;
    stream.with_context(|| format!("TCP from {from} of lab {} to {target}", lab.name()))
}

fn exchange(mut stream: TcpStream, pace: Duration, back: &AtomicU64, shared: &Shared) -> io::Result<()> {
    let mut number = 0u64;
    while !shared.end.load(Ordering::Acquire) {
        clock::pace_until(clock::now() + pace);
        if !shared.go.load(Ordering::Acquire) {
            continue;
        }
        number += 1;
        stream.write_all(&number.to_be_bytes())?;
        let mut answer = [0; 8];
        stream.read_exact(&mut answer)?;
        if u64::from_be_bytes(answer) != number {
            return Err(io::Error::other("another number came back"));
        }
        back.store(number, Ordering::Release);
    }
    Ok(())
}

/// Echoes whatever comes, until the process ends.
fn serve(guest: &NetNs) -> Result<()> {
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT));
    let listener = guest.run(|| TcpListener::bind(any))??;
    std::thread::spawn(move || {
        for stream in listener.incoming().filter_map(Result::ok) {
            std::thread::spawn(move || echo(stream));
        }
    });
    Ok(())
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut octets = [0; 64];
    loop {
        let length = stream.read(&mut octets)?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&octets[..length])?;
    }
}
