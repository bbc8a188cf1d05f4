//! Requirements M3 and N7 at size: a hundred thousand mappings of one NVE, which is scripted, pushed to another,
//! which is real, over sessions that lose, stall and end.

use crate::names::{rlocs, xtr_id};
use crate::{Plan, World};
use std::collections::BTreeSet;
use std::time::Duration;
use weft_datapath::Location;
use weft_lisp::tcp::{Body, FrameDecoder, Frames};
use weft_lisp::{EncodeOptions, Locator, MapRegister, MapVersion, Record, Xtr};
use weft_model::{Epoch, Grant, Learning, MacAddr, Name, Time, TsMac, TsiId, Vni};
use weft_nve::core::{Core, Output, Session};
use weft_oracle::core::{Fact, Limits, SessionEvent, SessionId, Shard, Transmit};

const MANY: usize = 100_000;
const VNI: u32 = 1;
/// The real one and the scripted one.
const REAL: usize = 0;
const SCRIPTED: usize = 1;

struct Bulk {
    oracle: Shard,
    core: Core,
    /// The sessions of both.
    real: u64,
    scripted: u64,
    now: Time,
    /// Of the frames to the real one, every so many is lost; 0: none is.
    lose: usize,
    frames: usize,
    /// Registrations acknowledged.
    acknowledged: usize,
}

fn mac(n: usize) -> MacAddr {
    // Beside those of the store.
    TsMac::local(0xb000_0000 + n as u64).get()
}

fn grant(n: usize) -> Fact {
    let (vni, name) = (Vni::new(VNI).unwrap(), Name::new(format!("m{n}")).unwrap());
    let (owner, epoch) = (xtr_id(SCRIPTED), Epoch::FIRST);
    let mac = TsMac::new(mac(n)).unwrap();
    Fact::Grant(Grant {
        tsi: TsiId { vni, name },
        mac,
        ips: BTreeSet::new(),
        groups: BTreeSet::new(),
        tunnel: Default::default(),
        owner,
        epoch,
        next: None,
    })
}

/// A Map-Register as the scripted NVE sends it, in its frame.
fn register(n: usize, ttl: u32) -> Vec<u8> {
    let at = [Locator::new(rlocs(SCRIPTED).0, 1)];
    let eid = weft_lisp::Eid::host(VNI, mac(n).octets());
    let records = [Record {
        ttl,
        mask_len: eid.mask_len(),
        authoritative: true,
        map_version: MapVersion::new(Epoch::FIRST.map_version()).unwrap(),
        eid: eid.address(),
        locators: (&at).into(),
        ..Record::default()
    }];
    let register = MapRegister {
        proxy_reply: true,
        want_notify: true,
        records: (&records).into(),
        xtr: Some(Xtr { xtr_id: xtr_id(SCRIPTED).0, site_id: 0 }),
        ..MapRegister::default()
    };
    let (mut octets, id) = (Vec::new(), u32::try_from(n).unwrap());
    Body::encode_registration(&register, id, &mut octets, EncodeOptions::default()).unwrap();
    octets
}

impl Bulk {
    /// All are granted to the scripted NVE; the real one has one tenant system and is subscribed.
    fn new(many: usize) -> Self {
        let learning = Learning::Distribute;
        let mut world =
            World::new(Plan { nves: 2, tsis: 1, vns: 1, oracles: 1, learning, ..Plan::default() });
        let tsi = world.tsi(REAL, 0);
        world.attach(REAL, &tsi, None);
        world.run(Duration::from_secs(5));
        let session = |n: usize| world.nves[n].sessions[0].unwrap();
        let (real, scripted) = (session(REAL), session(SCRIPTED));
        let now = world.now();
        let oracle = world.oracles[0].shard.take().unwrap();
        let core = world.nves.remove(REAL).core;
        let mut bulk = Self { oracle, core, real, scripted, now, lose: 0, frames: 0, acknowledged: 0 };
        bulk.lost();
        for n in 0..many {
            bulk.oracle.handle_fact(now, grant(n));
        }
        // A grant that nobody has registered yet is pushed like a registration: none is left of that kind.
        bulk.say(0..many, u32::MAX);
        bulk.say(0..many, 0);
        assert_eq!(std::mem::take(&mut bulk.acknowledged), 2 * many);
        bulk.connects();
        bulk.settle();
        assert_eq!(bulk.has(), BTreeSet::new());
        bulk
    }

    /// The session of the real one ends.
    fn lost(&mut self) {
        self.event(SessionEvent::Down { session: SessionId(self.real), silent: Duration::ZERO });
        self.core.handle_session(self.now, 0, Session::Down);
        self.exchange();
    }

    /// It has another.
    fn connects(&mut self) {
        self.real = self.real.max(self.scripted) + 1;
        self.event(SessionEvent::Up { session: SessionId(self.real), xtr_id: xtr_id(REAL) });
        self.core.handle_session(self.now, 0, Session::Up);
        self.exchange();
    }

    /// The scripted NVE registers, or with a TTL of 0 withdraws, these.
    fn say(&mut self, which: impl Iterator<Item = usize>, ttl: u32) {
        let mut decoder = FrameDecoder::default();
        let mut together = 0;
        for n in which {
            decoder.push(&register(n, ttl));
            while let Some(frame) = decoder.next_frame().unwrap() {
                let event = SessionEvent::Frame { session: SessionId(self.scripted), frame };
                self.oracle.handle_session(self.now, event);
            }
            together += 1;
            if together % 64 == 0 {
                self.exchange();
            }
        }
        self.exchange();
    }

    /// Carries what both have to say, until they have nothing more to say at this time. Whether that was anything.
    fn exchange(&mut self) -> bool {
        let (mut any, mut octets) = (false, Vec::new());
        loop {
            let mut more = false;
            while let Some(transmit) = self.oracle.poll_transmit(&mut octets) {
                more = true;
                match transmit {
                    Transmit::Session { id: SessionId(id) } if id == self.real => self.hand_over(&octets),
                    Transmit::Session { id: SessionId(id) } if id == self.scripted => {
                        let acks = frames(&octets);
                        let acks = acks.iter().filter(|f| matches!(f.body(), Ok(Body::RegistrationAck(_))));
                        self.acknowledged += acks.count();
                    }
                    _ => {}
                }
            }
            while self.oracle.poll_event().is_some() {}
            while let Some(output) = self.core.poll_output() {
                match output {
                    Output::Frame { octets, .. } => {
                        more = true;
                        for frame in frames(&octets).iter() {
                            let event = SessionEvent::Frame { session: SessionId(self.real), frame };
                            self.oracle.handle_session(self.now, event);
                        }
                    }
                    Output::Apply(_, Some(ticket)) => self.core.handle_applied(ticket, Ok(())),
                    _ => {}
                }
            }
            any |= more;
            if !more {
                return any;
            }
        }
    }

    fn hand_over(&mut self, octets: &[u8]) {
        for frame in frames(octets).iter() {
            self.frames += 1;
            if self.lose == 0 || !self.frames.is_multiple_of(self.lose) {
                self.core.handle_session(self.now, 0, Session::Frame(frame));
            }
        }
    }

    /// Lets time pass until a minute has been silent but for what is said every half of one.
    fn settle(&mut self) {
        let until = self.now + Duration::from_secs(65);
        self.exchange();
        loop {
            let next = [self.oracle.poll_timeout(), self.core.poll_timeout()].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            self.now = next.max(self.now);
            self.oracle.handle_timeout(self.now);
            self.core.handle_timeout(self.now);
            self.exchange();
        }
        self.now = until;
    }

    /// What the real one's tables say is behind the scripted one.
    fn has(&self) -> BTreeSet<MacAddr> {
        let remote = |at: &Location| matches!(at, Location::Remote { .. });
        let fdb = &self.core.tables().fdb;
        fdb.iter().filter(|(_, at)| remote(at)).map(|((_, mac), _)| *mac).collect()
    }

    fn event(&mut self, event: SessionEvent<'_>) {
        self.oracle.handle_session(self.now, event);
        self.exchange();
    }

    /// What waits for the real one at the Oracle.
    fn waiting(&self) -> usize {
        let nodes = self.oracle.nodes(self.now);
        nodes.filter(|node| node.xtr_id == xtr_id(REAL)).map(|node| node.pending).sum()
    }
}

fn frames(octets: &[u8]) -> Frames {
    let (mut decoder, mut all) = (FrameDecoder::default(), Frames::default());
    decoder.push(octets);
    while let Some(frame) = decoder.next_frame().unwrap() {
        all.push(&frame);
    }
    all
}

#[track_caller]
fn same(bulk: &Bulk, wanted: impl Iterator<Item = usize>) {
    let (has, wanted) = (bulk.has(), wanted.map(mac).collect::<BTreeSet<_>>());
    assert!(has == wanted, "{} are there, {} wanted", has.len(), wanted.len());
}

#[test]
fn m3_a_hundred_thousand_mappings_are_pushed_withdrawn_and_repaired() {
    let mut bulk = Bulk::new(MANY);
    // At once, each told once.
    let before = bulk.core.counters().pushed;
    bulk.say(0..MANY, u32::MAX);
    same(&bulk, 0..MANY);
    assert_eq!(bulk.core.counters().pushed - before, MANY as u64);
    // Every seventh frame is lost: the next marker shows it, and a snapshot mends it.
    bulk.lose = 7;
    bulk.say(MANY / 2..MANY, 0);
    bulk.lose = 0;
    assert!(bulk.has().len() > MANY / 2, "some withdrawals were lost");
    let mismatches = bulk.core.counters().digest_mismatches;
    bulk.settle();
    assert!(bulk.core.counters().digest_mismatches > mismatches);
    same(&bulk, 0..MANY / 2);
    // A session that ends in the middle.
    bulk.say(MANY / 2..MANY * 3 / 4, u32::MAX);
    bulk.lost();
    bulk.say(MANY * 3 / 4..MANY, u32::MAX);
    bulk.connects();
    bulk.settle();
    same(&bulk, 0..MANY);
}

#[test]
fn m3_who_reads_slowly_costs_the_oracle_no_more_than_it_is_allowed() {
    let limit = Limits::default().changes_per_session;
    let many = limit + 4_000;
    let mut bulk = Bulk::new(many);
    bulk.event(SessionEvent::Congested { session: SessionId(bulk.real) });
    let frames = bulk.frames;
    let mut most = 0;
    for first in (0..many).step_by(1_000) {
        bulk.say(first..many.min(first + 1_000), u32::MAX);
        most = most.max(bulk.waiting());
    }
    assert!(most > 0 && most <= limit, "{most} of {limit}");
    assert_eq!(bulk.frames, frames, "nothing is sent to who takes nothing");
    assert_eq!(bulk.acknowledged, many, "and nobody else waits for it");
    assert_eq!(bulk.oracle.counters().snapshots_restarted, 1, "it is told all of them anew instead");
    bulk.event(SessionEvent::Writable { session: SessionId(bulk.real) });
    bulk.settle();
    same(&bulk, 0..many);
}
