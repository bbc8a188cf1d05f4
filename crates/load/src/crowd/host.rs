//! The part of a crowd that one host has: its TAPs, and the thread that plays behind them.

use super::{Act, Member, Played, stack::Stack};
use anyhow::{Context as _, Result};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use std::{
    fs::File,
    io::{ErrorKind, Read as _, Write as _},
    os::fd::AsFd as _,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};
use weft_lab::{DeviceKind, Lab, Links, TenantSpec, clock, tap};

/// `struct virtio_net_hdr`, which stands before each frame of a TAP: all zero says nothing special.
const HEADER: usize = 10;
/// Frames taken from one TAP before the next has its turn.
const BATCH: usize = 16;

/// When to stop.
pub(super) struct Clock {
    begun: Instant,
    end: Duration,
    unanswered: AtomicUsize,
}

impl Clock {
    pub(super) fn start(contacts: usize, end: Duration) -> Self {
        Self { begun: clock::now(), end, unanswered: AtomicUsize::new(contacts) }
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    fn is_over(&self, now: Duration) -> bool {
        now >= self.end || self.unanswered.load(Ordering::Relaxed) == 0
    }
}

#[derive(Debug)]
struct Ts {
    tap: File,
    member: Member,
}

#[derive(Debug)]
pub(super) struct HostCrowd {
    host: String,
    all: Vec<Ts>,
}

impl HostCrowd {
    pub(super) fn attach(lab: &Lab, vn: &str, host: &str, count: usize) -> Result<Self> {
        let mut crowd = Self { host: host.to_owned(), all: Vec::new() };
        for n in 0..count {
            let attached = crowd.attach_one(lab, vn);
            attached.with_context(|| format!("attaching tenant system {n} of {host}"))?;
        }
        Ok(crowd)
    }

    pub(super) fn attach_one(&mut self, lab: &Lab, vn: &str) -> Result<Member> {
        let host = self.host.as_str();
        let namespace = lab.node(host)?;
        let what = TenantSpec {
            host: host.parse()?,
            vn: vn.to_owned(),
            ips: Vec::new(),
            mac: None,
            device: DeviceKind::Tap,
        };
        let device = format!("crowd{}", self.all.len());
        tap::create(&namespace, &device)?;
        let tap = tap::open(&namespace, &device)?.into_file();
        fcntl(&tap, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Links::open(&namespace)?.up(&device)?;
        let state = lab.ask_attach_by_api(&format!("{device}-{host}"), &device, &what)?;
        let ips = state.ips.iter().map(ipnet::IpNet::addr).collect();
        let member = Member { host: host.to_owned(), mac: state.mac, ips };
        self.all.push(Ts { tap, member: member.clone() });
        Ok(member)
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn member(&self, n: usize) -> Option<Member> {
        self.all.get(n).map(|ts| ts.member.clone())
    }

    pub(super) fn play(&mut self, acts: &[Act], clock: &Clock) -> Result<Played> {
        let stack = |(ts, id): (&Ts, u16)| Stack::new(ts.member.mac, ts.member.ips.clone(), id);
        let mut stacks: Vec<Stack> = self.all.iter().zip(1..).map(stack).collect();
        let mut acts = acts.iter().peekable();
        let mut buffer = vec![0; 65_536];
        loop {
            let now = clock.now();
            if clock.is_over(now) {
                break;
            }
            while let Some(act) = acts.next_if(|act| act.at <= now) {
                let stack = stacks.get_mut(act.who).with_context(|| format!("no member {}", act.who))?;
                stack.contact(now, act.to);
            }
            let mut next = acts.peek().map_or(clock.end, |act| act.at);
            for (stack, ts) in stacks.iter_mut().zip(&self.all) {
                next = stack.due(now).map_or(next, |due| due.min(next));
                send(&ts.tap, &mut stack.out)?;
            }
            // Woken now and then to see whether everybody is done.
            let wait = next.saturating_sub(clock.now()).min(Duration::from_millis(50));
            let mut polled: Vec<PollFd<'_>> =
                self.all.iter().map(|ts| PollFd::new(ts.tap.as_fd(), PollFlags::POLLIN)).collect();
            let wait = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
            poll(&mut polled, wait)?;
            let ready: Vec<bool> = polled.iter().map(|fd| fd.any().unwrap_or(false)).collect();
            for ((stack, ts), _) in stacks.iter_mut().zip(&self.all).zip(ready).filter(|(_, ready)| *ready) {
                let answered = receive(&ts.tap, stack, &mut buffer, clock)?;
                clock.unanswered.fetch_sub(answered, Ordering::Relaxed);
                send(&ts.tap, &mut stack.out)?;
            }
        }
        let mut played = Played::default();
        for stack in stacks {
            played.contacts.extend(stack.contacts);
            played.questions += stack.questions;
        }
        Ok(played)
    }
}

/// Takes frames; how many contacts they answered.
fn receive(mut tap: &File, stack: &mut Stack, buffer: &mut [u8], clock: &Clock) -> Result<usize> {
    let before = stack.answers;
    for _ in 0..BATCH {
        match tap.read(buffer) {
            Ok(n) => stack.receive(clock.now(), buffer.get(HEADER..n).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(stack.answers - before)
}

/// Sends what a stack wants sent. What the device has no room for is lost, as on a card.
fn send(mut tap: &File, out: &mut Vec<Vec<u8>>) -> Result<()> {
    for frame in out.drain(..) {
        let octets = [&[0; HEADER], frame.as_slice()].concat();
        match tap.write(&octets) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
