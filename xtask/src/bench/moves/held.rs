//! TCP connections that tenants on other hosts hold with the one that moves: a number goes there and comes back, and
//! so on. One that ends, or on which nothing has come back for half a minute, is broken.

use super::guest::{ADDRESSES, NAME, TENANTS};
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

const PORT: u16 = 7009;
/// From one number to the next.
const PACE: Duration = Duration::from_millis(2);

/// See the module.
pub(super) struct Held {
    shared: Arc<Shared>,
    open: Vec<Open>,
    broken: usize,
}

#[derive(Default)]
struct Shared {
    /// Numbers go out; else all wait.
    go: AtomicBool,
    end: AtomicBool,
}

struct Open {
    from: &'static str,
    to: IpAddr,
    back: Arc<AtomicU64>,
    thread: JoinHandle<io::Result<()>>,
}

impl Held {
    pub(super) fn start(lab: &Lab) -> Result<Self> {
        serve(&lab.node(NAME)?)?;
        let mut held = Self { shared: Arc::default(), open: Vec::new(), broken: 0 };
        for from in TENANTS {
            for to in ADDRESSES {
                held.open.push(open(lab, from, to, &held.shared)?);
            }
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
            say::step(&format!("broken: TCP from {} to {}", held.from, held.to));
            *held = open(lab, held.from, held.to, &self.shared)?;
        }
        Ok(())
    }

    /// Ends all; gives how many were broken.
    pub(super) fn end(self) -> usize {
        self.shared.end.store(true, Ordering::Release);
        self.broken
    }
}

fn open(lab: &Lab, from: &'static str, to: IpAddr, shared: &Arc<Shared>) -> Result<Open> {
    let target = SocketAddr::new(to, PORT);
    let stream = lab.node(from)?.run(|| TcpStream::connect_timeout(&target, clock::CEILING))?;
    let stream = stream.with_context(|| format!("TCP from {from} of lab {} to {to}", lab.name()))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(clock::CEILING))?;
    let back = Arc::new(AtomicU64::new(0));
    let (ours, shared) = (Arc::clone(&back), Arc::clone(shared));
    let thread = std::thread::spawn(move || exchange(stream, &ours, &shared));
    Ok(Open { from, to, back, thread })
}

fn exchange(mut stream: TcpStream, back: &AtomicU64, shared: &Shared) -> io::Result<()> {
    let mut number = 0u64;
    while !shared.end.load(Ordering::Acquire) {
        clock::pace_until(clock::now() + PACE);
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
