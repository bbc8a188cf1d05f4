//! A shard's thread: its inbox, its UDP sockets, its timers.

use super::{
    clock::Clock,
    duplicates::{Claim, Duplicates, What},
    echo,
    limit::LogLimit,
    nonces::Nonces,
    session_out::SessionOut,
    udp::{DATAGRAM, Udp},
};
use crate::core::{
    Ending, Event, Fact, NotSubscribed, Owner, Refusal, SessionEvent, SessionId, Shard, ShardConfig,
    Transmit, owner,
};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::{EfdFlags, EventFd},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering, fence},
    },
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use weft_lisp::{MessageType, tcp::Frames};
use weft_model::{Epoch, Rloc, Successor, Time, TsiId, XtrId};

/// Inputs that wait for a shard at most; who has more waits in turn (datagrams are dropped).
const INBOX: usize = 4096;
/// Frames and other inputs, and datagrams of one socket, taken in one go.
pub(super) const ROUND: usize = 64;

/// Map-Registers about several shards' VNs that one shard has in hand; who sends more sends them again.
const SHARED: usize = 16;

/// A question about a shard.
pub(super) type Query = Box<dyn FnOnce(&Shard, Time) + Send>;

/// What comes to a shard from other threads.
pub(super) enum Input {
    Fact(Fact),
    Up {
        id: SessionId,
        xtr_id: XtrId,
        out: Arc<SessionOut>,
    },
    /// What came together on a session, [`ROUND`] of them at most: answered together, too.
    Frames(SessionId, Frames),
    Writable(SessionId),
    /// A session's end, and how long nothing had been heard on it.
    Down(SessionId, std::time::Duration),
    /// Received on another shard's socket.
    Datagram {
        from: SocketAddr,
        to: IpAddr,
        payload: Box<[u8]>,
    },
    NonceSaved {
        xtr: XtrId,
        nonce: u64,
    },
    Activating {
        nve: XtrId,
        tsi: TsiId,
    },
    /// A move is about to end otherwise than where it goes to.
    Ending {
        tsi: TsiId,
        answer: oneshot::Sender<Ending>,
    },
    /// It does not, after all.
    NotEnded {
        tsi: TsiId,
        next: Successor,
    },
    Query(Query),
    Stop,
}

/// What a shard asks of the rest of the daemon.
#[derive(Debug)]
pub(super) enum Order {
    /// Write down the new holder.
    Succeed { tsi: TsiId, nve: XtrId, epoch: Epoch },
    /// Write down a nonce, then tell the shard.
    SaveNonce { shard: usize, xtr: XtrId, nonce: u64 },
    /// Ask all these shards whether they accept their part of a Map-Register, then give it to them.
    Share(Shared),
}

/// A Map-Register about VNs of several shards.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) shards: BTreeSet<usize>,
    from: SocketAddr,
    to: IpAddr,
    payload: Arc<[u8]>,
    /// So that not more are under way than are kept.
    _place: OwnedSemaphorePermit,
}

impl Shared {
    /// Gives it to all shards concerned when all accept it, else to those that refuse it, which say so. What
    /// changes in between is found by the next refresh.
    pub(super) async fn carry_out(self, all: &[ShardHandle]) {
        let mut refusing = Vec::new();
        for shard in self.shards.iter().filter_map(|index| all.get(*index)) {
            let (from, payload) = (self.from, self.payload.clone());
            if shard.ask(move |shard, _| shard.would_register(from, &payload)).await == Some(false) {
                refusing.push(shard);
            }
        }
        if refusing.is_empty() {
            refusing.extend(self.shards.iter().filter_map(|index| all.get(*index)));
        }
        for shard in refusing {
            let payload = (*self.payload).into();
            shard.send(Input::Datagram { from: self.from, to: self.to, payload }).await;
        }
    }
}

/// A shard's inbox.
#[derive(Clone)]
pub(super) struct ShardHandle {
    inbox: mpsc::Sender<Input>,
    waker: Arc<Waker>,
}

/// Wakes a thread that waits in `poll`, at the price of nothing while it is awake.
struct Waker {
    event: EventFd,
    asleep: AtomicBool,
}

impl Waker {
    fn wake(&self) {
        // What was sent is seen by whoever is about to sleep, or that it sleeps is seen here.
        fence(Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::SeqCst) {
            // It cannot be full, and a thread that is gone need not be woken.
            let _: Result<usize, _> = self.event.write(1);
        }
    }
}

impl ShardHandle {
    /// Waits for room.
    pub(super) async fn send(&self, input: Input) {
        // A shard that is gone is on its way out with the whole daemon.
        drop(self.inbox.send(input).await);
        self.waker.wake();
    }

    /// Waits for room; not for use on an asynchronous thread.
    pub(super) fn send_blocking(&self, input: Input) {
        drop(self.inbox.blocking_send(input));
        self.waker.wake();
    }

    /// Drops the input when there is no room.
    fn offer(&self, input: Input) {
        drop(self.inbox.try_send(input));
        self.waker.wake();
    }

    /// Asks; none when the shard is gone.
    pub(super) async fn ask<R: Send + 'static>(
        &self,
        question: impl FnOnce(&Shard, Time) -> R + Send + 'static,
    ) -> Option<R> {
        let (sender, receiver) = oneshot::channel();
        let query: Query = Box::new(move |shard, now| drop(sender.send(question(shard, now))));
        self.send(Input::Query(query)).await;
        receiver.await.ok()
    }
}

/// Where a shard leaves what others do, or look at.
#[derive(Clone)]
pub(super) struct Out {
    pub(super) orders: mpsc::UnboundedSender<Order>,
    pub(super) nonces: Arc<Nonces>,
    pub(super) duplicates: Arc<Duplicates>,
}

/// A shard's thread before it runs.
pub(super) struct ShardThread {
    pub(super) config: ShardConfig,
    pub(super) sockets: Vec<Udp>,
    pub(super) facts: Vec<Fact>,
    pub(super) clock: Clock,
    out: Out,
    inbox: mpsc::Receiver<Input>,
    waker: Arc<Waker>,
}

impl ShardThread {
    pub(super) fn new(
        config: ShardConfig,
        sockets: Vec<Udp>,
        out: Out,
        clock: Clock,
    ) -> io::Result<(Self, ShardHandle)> {
        let (sender, inbox) = mpsc::channel(INBOX);
        let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        let waker = Arc::new(Waker { event, asleep: AtomicBool::new(false) });
        let handle = ShardHandle { inbox: sender, waker: waker.clone() };
        Ok((Self { config, sockets, facts: Vec::new(), out, clock, inbox, waker }, handle))
    }

    /// Runs until told to stop. `all` are the handles of all shards, in order.
    pub(super) fn run(self, all: Vec<ShardHandle>) -> io::Result<()> {
        let Self { config, sockets, facts, out, clock, inbox, waker } = self;
        let echoes = EchoSockets::open();
        let index = config.index;
        let mut shard = Shard::new(config, clock.now());
        for fact in facts {
            shard.handle_fact(clock.now(), fact);
        }
        let mut thread = Running {
            shard,
            index,
            all,
            out,
            clock,
            inbox,
            waker,
            sessions: BTreeMap::new(),
            octets: Vec::new(),
            refusals: LogLimit::default(),
            unsubscribed: LogLimit::default(),
            shared: Arc::new(Semaphore::new(SHARED)),
            stopped: false,
        };
        thread.run(sockets, echoes)
    }
}

/// One socket a family for echoes; a family the host does not have has none.
struct EchoSockets(Vec<Udp>);

impl EchoSockets {
    fn open() -> Self {
        let any = ["0.0.0.0:0", "[::]:0"];
        Self(any.into_iter().filter_map(|a| Udp::bind(a.parse().ok()?).ok()).collect())
    }

    fn send(&self, rloc: Rloc, nonce: u64) {
        let socket = self.0.iter().find(|s| s.is_v4() == rloc.get().is_ipv4());
        if let Some(socket) = socket {
            // An error is an echo without answer, which is what is to be found out.
            drop(socket.send(&echo::request(nonce), SocketAddr::new(rloc.get(), echo::PORT), None));
        }
    }
}

struct Running {
    shard: Shard,
    index: usize,
    all: Vec<ShardHandle>,
    out: Out,
    clock: Clock,
    inbox: mpsc::Receiver<Input>,
    waker: Arc<Waker>,
    sessions: BTreeMap<SessionId, Arc<SessionOut>>,
    octets: Vec<u8>,
    refusals: LogLimit,
    unsubscribed: LogLimit,
    shared: Arc<Semaphore>,
    stopped: bool,
}

impl Running {
    fn run(&mut self, mut sockets: Vec<Udp>, mut echoes: EchoSockets) -> io::Result<()> {
        let mut buffer = vec![0; DATAGRAM];
        self.flush(&sockets, &echoes);
        while !self.stopped {
            let mut busy = self.drain(&sockets, &echoes);
            for at in 0..sockets.len() {
                for _ in 0..ROUND {
                    let Some(got) = sockets.get_mut(at).and_then(|s| s.receive(&mut buffer)) else { break };
                    busy = true;
                    // A fact that was committed before the datagram was sent is in the inbox by
                    // now: it counts first.
                    if !self.inbox.is_empty() {
                        self.drain(&sockets, &echoes);
                    }
                    let payload = buffer.get(..got.len).unwrap_or_default();
                    self.datagram(got.from, got.to, payload);
                    self.flush(&sockets, &echoes);
                }
            }
            for at in 0..echoes.0.len() {
                // Anybody may send here: whoever does so without end is interrupted like on the others.
                for _ in 0..ROUND {
                    let Some(got) = echoes.0.get_mut(at).and_then(|s| s.receive(&mut buffer)) else { break };
                    busy = true;
                    let nonce = echo::parse_reply(buffer.get(..got.len).unwrap_or_default());
                    if let (Some(nonce), Ok(rloc)) = (nonce, Rloc::new(got.from.ip())) {
                        self.shard.handle_echo_reply(self.clock.now(), rloc, nonce);
                        self.flush(&sockets, &echoes);
                    }
                }
            }
            let now = self.clock.now();
            if self.shard.poll_timeout().is_some_and(|due| due <= now) {
                self.shard.handle_timeout(now);
                self.flush(&sockets, &echoes);
            } else if !busy {
                self.wait(&sockets, &echoes)?;
            }
        }
        Ok(())
    }

    /// Waits for an input, a datagram or the next timer.
    fn wait(&mut self, sockets: &[Udp], echoes: &EchoSockets) -> io::Result<()> {
        let mut woken = false;
        self.waker.asleep.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        // Whoever sent before reading `asleep` left something here; whoever reads it later wakes us.
        if self.inbox.is_empty() {
            let timeout = match self.shard.poll_timeout() {
                None => PollTimeout::NONE,
                Some(due) => {
                    let left = due.since(self.clock.now());
                    let millis = left.as_millis().saturating_add(1).min(60_000);
                    PollTimeout::try_from(u32::try_from(millis).unwrap_or(60_000))
                        .unwrap_or(PollTimeout::ZERO)
                }
            };
            let mut fds = vec![PollFd::new(self.waker.event.as_fd(), PollFlags::POLLIN)];
            let all = sockets.iter().chain(&echoes.0);
            fds.extend(all.map(|s| PollFd::new(s.fd(), PollFlags::POLLIN)));
            match poll(&mut fds, timeout) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
            woken = fds.first().and_then(PollFd::any).unwrap_or(false);
        }
        self.waker.asleep.store(false, Ordering::SeqCst);
        if woken {
            let _: Result<u64, _> = self.waker.event.read();
        }
        Ok(())
    }

    /// Takes a round of inputs; whether there were any.
    fn drain(&mut self, sockets: &[Udp], echoes: &EchoSockets) -> bool {
        let mut taken = 0;
        while taken < ROUND && !self.stopped {
            match self.inbox.try_recv() {
                Ok(input) => taken += self.input(input),
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => self.stopped = true,
            }
            self.flush(sockets, echoes);
        }
        taken > 0
    }

    /// Takes an input; how many it counts for.
    fn input(&mut self, input: Input) -> usize {
        let now = self.clock.now();
        match input {
            Input::Fact(fact) => self.shard.handle_fact(now, fact),
            Input::Up { id, xtr_id, out } => {
                self.sessions.insert(id, out);
                self.shard.handle_session(now, SessionEvent::Up { session: id, xtr_id });
            }
            Input::Frames(session, frames) => {
                for frame in frames.iter() {
                    self.shard.handle_session(now, SessionEvent::Frame { session, frame });
                }
                return frames.len();
            }
            Input::Writable(id) => self.shard.handle_session(now, SessionEvent::Writable { session: id }),
            Input::Down(id, silent) => {
                self.sessions.remove(&id);
                self.shard.handle_session(now, SessionEvent::Down { session: id, silent });
            }
            Input::Datagram { from, to, payload } => self.shard.handle_datagram(now, from, to, &payload),
            Input::NonceSaved { xtr, nonce } => self.shard.handle_nonce_saved(now, xtr, nonce),
            Input::Activating { nve, tsi } => self.shard.handle_activating(now, nve, &tsi),
            Input::Ending { tsi, answer } => drop(answer.send(self.shard.handle_ending(&tsi))),
            Input::NotEnded { tsi, next } => self.shard.handle_not_ended(now, &tsi, next),
            Input::Query(query) => query(&self.shard, now),
            Input::Stop => self.stopped = true,
        }
        1
    }

    fn datagram(&mut self, from: SocketAddr, to: IpAddr, payload: &[u8]) {
        let owner = match self.all.len() {
            1 => Owner::Any,
            shards => owner(payload, shards),
        };
        match owner {
            Owner::Any => self.hand(self.index, from, to, payload),
            Owner::One(owner) => self.hand(owner, from, to, payload),
            Owner::Several(shards) if MessageType::of(payload) == Ok(MessageType::MapRegister) => {
                self.share(shards, from, to, payload);
            }
            // Each answers its part.
            Owner::Several(shards) => {
                shards.into_iter().for_each(|owner| self.hand(owner, from, to, payload));
            }
        }
    }

    fn hand(&mut self, owner: usize, from: SocketAddr, to: IpAddr, payload: &[u8]) {
        match self.all.get(owner).filter(|_| owner != self.index) {
            Some(other) => other.offer(Input::Datagram { from, to, payload: payload.into() }),
            None => self.shard.handle_datagram(self.clock.now(), from, to, payload),
        }
    }

    /// A Map-Register about several shards' VNs.
    fn share(&mut self, shards: BTreeSet<usize>, from: SocketAddr, to: IpAddr, payload: &[u8]) {
        // A stranger's, which any shard knows it for, troubles nobody else.
        if !self.shard.authentic_register(from, payload) {
            return self.shard.handle_datagram(self.clock.now(), from, to, payload);
        }
        if let Ok(place) = self.shared.clone().try_acquire_owned() {
            let shared = Shared { shards, from, to, payload: payload.into(), _place: place };
            drop(self.out.orders.send(Order::Share(shared)));
        }
    }

    /// Carries out what the shard wants.
    fn flush(&mut self, sockets: &[Udp], echoes: &EchoSockets) {
        while let Some(event) = self.shard.poll_event() {
            self.event(event);
        }
        let mut octets = std::mem::take(&mut self.octets);
        while let Some(transmit) = self.shard.poll_transmit(&mut octets) {
            match transmit {
                Transmit::Session { id } => {
                    let congested = self.sessions.get(&id).is_some_and(|out| out.push(&octets));
                    if congested {
                        let now = self.clock.now();
                        self.shard.handle_session(now, SessionEvent::Congested { session: id });
                    }
                }
                Transmit::Udp { dst, src } => {
                    let v4 = dst.is_ipv4();
                    if let Some(socket) = sockets.iter().find(|s| s.is_v4() == v4) {
                        // Lost like any datagram; whoever wants the answer asks again.
                        if let Err(e) = socket.send(&octets, dst, src) {
                            tracing::debug!(%dst, error = %e, "cannot send");
                        }
                    }
                }
                Transmit::Echo { rloc, nonce } => echoes.send(rloc, nonce),
            }
        }
        self.octets = octets;
    }

    fn event(&self, event: Event) {
        match event {
            Event::SuccessorActive { tsi, nve, epoch } => {
                drop(self.out.orders.send(Order::Succeed { tsi, nve, epoch }));
            }
            Event::SaveNonce { xtr, nonce } => {
                drop(self.out.orders.send(Order::SaveNonce { shard: self.index, xtr, nonce }));
            }
            Event::SaveSubscriptionNonce { xtr, eid, nonce } => {
                if !self.out.nonces.put((xtr, eid, nonce)) {
                    tracing::warn!(%xtr, %eid, "a subscription's nonce is not saved: the store is too slow");
                }
            }
            Event::NotSubscribed { xtr, eid, reason } => self.not_subscribed(xtr, eid, &reason),
            Event::Overrun { session, nve } => {
                tracing::warn!(%nve, session = session.0, "session closed: it does not read what it is sent");
                if let Some(out) = self.sessions.get(&session) {
                    out.close();
                }
            }
            Event::Refused { nve, reason } => self.refused(nve, &reason),
            Event::EndOfRegistration { nve, registered, removed } => {
                tracing::info!(%nve, registered, removed, shard = self.index, "registration complete");
            }
            Event::Stale { nve, tsis } => tracing::warn!(%nve, tsis, "session lost, mappings kept"),
            Event::Withdrawn { nve, tsis, after } => {
                tracing::warn!(%nve, tsis, ?after, "host is gone, mappings withdrawn");
            }
            Event::ManyNvesLost { lost, of } => {
                tracing::error!(
                    lost,
                    of,
                    "too many NVEs are lost, or silent to the echo, at once: nothing is withdrawn, look at this host"
                );
            }
            Event::NvesBack => tracing::info!("NVEs are back"),
            Event::Ready => tracing::debug!(shard = self.index, "facts loaded"),
        }
    }

    fn not_subscribed(&self, xtr: XtrId, eid: weft_lisp::Eid, reason: &NotSubscribed) {
        if let Some(held_back) = self.unsubscribed.pass(self.clock) {
            tracing::warn!(%xtr, %eid, held_back, "not subscribed: {reason}");
        }
    }

    fn refused(&self, nve: Option<XtrId>, reason: &Refusal) {
        let held = match *reason {
            Refusal::HeldBy { vni, eid, owner, nve, .. }
            | Refusal::Superseded { vni, eid, owner, nve, .. } => Some((vni, eid, owner, nve)),
            _ => None,
        };
        // Of a datagram it is not sure who sent it.
        if let Some((vni, eid, holder, claimant)) = held.filter(|(.., claimant)| nve == Some(*claimant)) {
            let claim = Claim { vni, what: What::Address(eid, None), holder, claimant };
            self.out.duplicates.try_note(self.clock.now(), claim);
        }
        if let Some(held_back) = self.refusals.pass(self.clock) {
            let nve = nve.map_or_else(|| "unknown".to_owned(), |id| id.to_string());
            tracing::warn!(nve, reason = reason.name(), held_back, "registration refused: {reason}");
        }
    }
}
