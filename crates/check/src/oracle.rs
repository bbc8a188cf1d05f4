//! The Oracle: its core, driven, and whom a transaction is told to.

use std::net::IpAddr;

use weft_lisp::tcp::FrameDecoder;
use weft_model::{BootId, Time};
use weft_oracle::core::{Event, Fact, SessionEvent, SessionId, Shard, ShardConfig, Transmit};
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

impl State {
    /// Hands something to the Oracle's core, if it runs, and does what that wants done.
    pub(crate) fn oracle(&mut self, act: impl FnOnce(&mut Shard, Time, IpAddr)) {
        let (now, to) = (self.now, crate::names::oracle(self.family).ip());
        let Some(oracle) = &mut self.oracle else { return };
        let (mut events, mut sent) = (Vec::new(), Vec::new());
        oracle.change(|shard| {
            act(shard, now, to);
            loop {
                events.extend(std::iter::from_fn(|| shard.poll_event()));
                let mut octets = Vec::new();
                match shard.poll_transmit(&mut octets) {
                    None => break,
                    // Hosts do not die here.
                    Some(Transmit::Echo { rloc, nonce }) => shard.handle_echo_reply(now, rloc, nonce),
                    Some(transmit) => sent.push((transmit, octets)),
                }
            }
        });
        for event in events {
            if let Event::SuccessorActive { tsi, nve, epoch } = event {
                self.orders.insert((tsi, nve, epoch));
            }
        }
        for (transmit, octets) in sent {
            match transmit {
                Transmit::Session { id } => {
                    // What an NVE has hung up does not reach it.
                    if let Some(host) = self.hosts.iter_mut().find(|host| host.session == Some(id.0)) {
                        host.to_nve.push_back(Down::Frames(octets));
                    }
                }
                Transmit::Udp { dst, .. } => {
                    if let Some(nve) = crate::names::at(self.family, dst.ip()) {
                        self.send(Datagram { from: Side::Oracle, to: Side::Nve(nve), octets });
                    }
                }
                Transmit::Echo { .. } => {}
            }
        }
    }

    /// The Oracle reads what is next on an NVE's session.
    pub(crate) fn oracle_reads(&mut self, nve: usize) {
        let Some((id, up)) = self.hosts.get_mut(nve).and_then(|host| host.to_oracle.pop_front()) else {
            return;
        };
        let session = SessionId(id);
        self.oracle(|shard, now, _| match up {
            Up::Begin => shard.handle_session(now, SessionEvent::Up { session, xtr_id: xtr(nve) }),
            Up::End => {
                let silent = std::time::Duration::ZERO;
                shard.handle_session(now, SessionEvent::Down { session, silent });
            }
            Up::Frames(octets) => {
                let mut decoder = FrameDecoder::default();
                decoder.push(&octets);
                while let Ok(Some(frame)) = decoder.next_frame() {
                    shard.handle_session(now, SessionEvent::Frame { session, frame });
                }
            }
        });
    }

    /// The Oracle's shards have a transaction's facts before its caller has the answer; NVEs hear of it on their
    /// watches.
    pub(crate) fn told(&mut self, commit: Commit) {
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
        for fact in commit.facts {
            self.oracle(|shard, now, _| shard.handle_fact(now, fact));
        }
        for nve in commit.named.into_iter().map(nve_of) {
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
        let store = Store::of(self.store.get());
        self.oracle = Some(Part::new(shard(&store, self.boots, self.now)));
        // Whatever it has to say at once.
        self.oracle(|_, _, _| {});
    }
}
