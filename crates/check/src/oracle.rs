//! The Oracle: its core, driven, and whom a transaction is told to.

use std::net::{IpAddr, SocketAddr};

use weft_lisp::tcp::FrameDecoder;
use weft_model::{BootId, Epoch, Successor, Time, TsiId, XtrId};
use weft_oracle::core::{Ending, Event, Fact, SessionEvent, SessionId, Shard, ShardConfig, Transmit};
use weft_sim::{Commit, Store};

use crate::act::{Datagram, Side};
use crate::host::{Down, Up};
use crate::names::{nve_of, web, xtr};
use crate::part::Part;
use crate::state::State;

/// A shard that has been told all that the store holds.
pub(crate) fn shard(store: &Store, boots: u64, now: Time) -> Shard {
    let config = ShardConfig { boot_id: BootId(boots), seed: 7, ..ShardConfig::default() };
    let mut shard = Shard::new(config, now);
    store.vns().for_each(|spec| shard.handle_fact(now, Fact::Vn(spec.clone())));
    store.nves().for_each(|nve| shard.handle_fact(now, Fact::Nve(nve.clone())));
    store.grants().for_each(|grant| shard.handle_fact(now, Fact::Grant(grant.clone())));
    shard.handle_fact(now, Fact::FactsLoaded);
    shard
}

/// What the Oracle's core is handed.
#[derive(Clone, Debug, Hash)]
pub(crate) enum Told {
    Fact(Fact),
    Session(u64, usize, Up),
    Datagram(SocketAddr, Vec<u8>),
    /// web's move is about to be called off.
    Ending,
    NotEnded(Successor),
    Timeout,
    /// It says what it has to say.
    Nothing,
}

/// What comes of that.
pub(crate) struct Said {
    shard: Part<Shard>,
    pub(crate) ending: Ending,
    orders: Vec<(TsiId, XtrId, Epoch)>,
    sent: Vec<(Transmit, Vec<u8>)>,
}

fn frames(shard: &mut Shard, now: Time, session: SessionId, octets: &[u8]) {
    let mut decoder = FrameDecoder::default();
    decoder.push(octets);
    while let Ok(Some(frame)) = decoder.next_frame() {
        shard.handle_session(now, SessionEvent::Frame { session, frame });
    }
}

impl Told {
    fn hand(&self, shard: &Part<Shard>, now: Time, to: IpAddr) -> Said {
        let mut shard = shard.clone();
        let (mut ending, mut orders, mut sent) = (Ending::Still, Vec::new(), Vec::new());
        shard.change(|shard| {
            self.say(shard, now, to, &mut ending);
            loop {
                orders.extend(std::iter::from_fn(|| shard.poll_event()).filter_map(|event| match event {
                    Event::SuccessorActive { tsi, nve, epoch } => Some((tsi, nve, epoch)),
                    _ => None,
                }));
                let mut octets = Vec::new();
                match shard.poll_transmit(&mut octets) {
                    None => break,
                    // Hosts do not die here.
                    Some(Transmit::Echo { rloc, nonce }) => shard.handle_echo_reply(now, rloc, nonce),
                    Some(transmit) => sent.push((transmit, octets)),
                }
            }
        });
        Said { shard: shard.hashed(), ending, orders, sent }
    }

    fn say(&self, shard: &mut Shard, now: Time, to: IpAddr, ending: &mut Ending) {
        match self {
            Self::Fact(fact) => shard.handle_fact(now, fact.clone()),
            Self::Session(id, nve, up) => {
                let session = SessionId(*id);
                match up {
                    Up::Begin(octets) => {
                        shard.handle_session(now, SessionEvent::Up { session, xtr_id: xtr(*nve) });
                        frames(shard, now, session, octets);
                    }
                    Up::End => {
                        let silent = std::time::Duration::ZERO;
                        shard.handle_session(now, SessionEvent::Down { session, silent });
                    }
                    Up::Frames(octets) => frames(shard, now, session, octets),
                }
            }
            Self::Datagram(from, octets) => shard.handle_datagram(now, *from, to, octets),
            Self::Ending => *ending = shard.handle_ending(&web()),
            Self::NotEnded(next) => shard.handle_not_ended(now, &web(), *next),
            Self::Timeout => shard.handle_timeout(now),
            Self::Nothing => {}
        }
    }
}

impl State {
    /// Hands something to the Oracle's core, if it runs, and does what that wants done.
    pub(crate) fn oracle(&mut self, told: &Told) -> Ending {
        let (now, to) = (self.now, crate::names::oracle(self.family).ip());
        let Some(oracle) = &self.oracle else { return Ending::Still };
        let said = self.known.oracle.get(&(oracle, now, told), || told.hand(oracle, now, to));
        self.oracle = Some(said.shard.clone());
        self.orders.extend(said.orders.iter().cloned());
        let before = self.hosts.each_ref().map(|host| host.to_nve.len());
        for (transmit, octets) in &said.sent {
            match transmit {
                Transmit::Session { id } => {
                    // What an NVE has hung up does not reach it.
                    if let Some(host) = self.hosts.iter_mut().find(|host| host.session == Some(id.0)) {
                        host.to_nve.push_back(Down::Frames(octets.clone()));
                    }
                }
                Transmit::Udp { dst, .. } => {
                    if let Some(nve) = crate::names::at(self.family, dst.ip()) {
                        let (to, octets) = (Side::Nve(nve), octets.clone());
                        self.send(Datagram { from: Side::Oracle, to, octets });
                    }
                }
                Transmit::Echo { .. } => {}
            }
        }
        if self.left.turns {
            for (host, before) in self.hosts.iter_mut().zip(before) {
                if host.to_nve.len() > before + 1 {
                    let frames = host.to_nve.split_off(before).into_iter().filter_map(|down| match down {
                        Down::Frames(octets) => Some(octets),
                        Down::End => None,
                    });
                    let all = frames.flatten().collect();
                    host.to_nve.push_back(Down::Frames(all));
                }
            }
        }
        said.ending
    }

    /// The Oracle reads what is next on an NVE's session.
    pub(crate) fn oracle_reads(&mut self, nve: usize) {
        if let Some((id, up)) = self.hosts.get_mut(nve).and_then(|host| host.to_oracle.pop_front()) {
            self.oracle(&Told::Session(id, nve, up));
        }
    }

    /// The Oracle's shards have a transaction's facts before its caller has the answer; NVEs hear of it on their
    /// watches.
    pub(crate) fn told(&mut self, commit: &Commit) {
        for fact in &commit.facts {
            if let Fact::Grant(grant) = fact
                && grant.tsi == web()
            {
                let next = grant.next.map(|next| (next.epoch, next.nve));
                for (epoch, nve) in [Some((grant.epoch, grant.owner)), next].into_iter().flatten() {
                    let before = *self.given.entry(epoch).or_insert(nve);
                    if before != nve {
                        self.broken = Some(format!("epoch {epoch:?} is {before}'s and {nve}'s"));
                    }
                }
            }
        }
        for fact in &commit.facts {
            self.oracle(&Told::Fact(fact.clone()));
        }
        for nve in commit.named.iter().copied().map(nve_of) {
            // Without an agent or a way to it there is no watch; it begins with a list.
            let list = self.grants.get().naming(xtr(nve));
            if let Some(host) = self.hosts.get_mut(nve).filter(|host| host.session.is_some()) {
                host.watch.push_back(list);
            }
        }
    }

    /// An Oracle's process begins.
    pub(crate) fn start_oracle(&mut self) {
        self.boots += 1;
        let (boots, now, store) = (self.boots, self.now, &self.store);
        let key = (store, boots, now);
        let begun =
            self.known.shards.get(&key, || Part::new(shard(&Store::of(store.get()), boots, now)).hashed());
        self.oracle = Some(Part::clone(&begun));
        // Whatever it has to say at once.
        self.oracle(&Told::Nothing);
    }
}
