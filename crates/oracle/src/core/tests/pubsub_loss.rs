//! N8: whatever is lost, doubled and overtaken between Oracle and subscriber, in the end it knows what is true.

use std::collections::BTreeMap;

use super::*;
use crate::core::publish::{Basis, Told};
use proptest::prelude::*;
use weft_lisp::{Algorithm, MacLength, MapNotify, NotifyKind, auth};
use weft_model::SiteId;

const KEY: &[u8] = b"a pre-shared secret";
const TSIS: u8 = 4;

#[derive(Clone, Debug)]
enum Step {
    /// A grant, or one that takes the TSI over; its addresses may be the next TSI's.
    Grant {
        n: u8,
        owner: u8,
        shifted: bool,
    },
    Release {
        n: u8,
    },
    Register {
        n: u8,
    },
    Withdraw {
        n: u8,
    },
    Subscribe {
        which: usize,
    },
    /// One of the datagrams under way arrives, is lost, or arrives and stays under way.
    Arrive {
        which: usize,
        fate: u8,
    },
    Pass {
        seconds: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let n = || 1..=TSIS;
    prop_oneof![
        3 => (n(), 1_u8..3, any::<bool>()).prop_map(|(n, owner, shifted)| Step::Grant { n, owner, shifted }),
        1 => n().prop_map(|n| Step::Release { n }),
        4 => n().prop_map(|n| Step::Register { n }),
        3 => n().prop_map(|n| Step::Withdraw { n }),
        2 => (0_usize..6).prop_map(|which| Step::Subscribe { which }),
        16 => (any::<usize>(), 0_u8..6).prop_map(|(which, fate)| Step::Arrive { which, fate }),
        2 => (0_u64..8).prop_map(|seconds| Step::Pass { seconds }),
    ]
}

enum Datagram {
    ToXtr(Vec<u8>),
    ToOracle(Vec<u8>),
}

/// What is known of a MAC or IP address: its locators, by what the records say.
type Cache = BTreeMap<Eid, Vec<String>>;

/// An xTR by RFC 9437 section 6, and the network between.
struct World {
    bench: Bench,
    grants: BTreeMap<u8, Grant>,
    epochs: BTreeMap<u8, u32>,
    way: Vec<Datagram>,
    /// Of each prefix the last nonce taken in, what was last asked with, and what is known by it. Kept apart: what a
    /// subscription tells must be whole without another.
    heard: BTreeMap<lisp::Eid, (u64, u64, Cache)>,
}

fn prefixes() -> [lisp::Eid; 6] {
    let all = |addr: lisp::EidAddr| lisp::Eid::prefix(1, addr, 0).unwrap();
    [
        all([0; 6].into()),
        all(std::net::Ipv4Addr::UNSPECIFIED.into()),
        all(std::net::Ipv6Addr::UNSPECIFIED.into()),
        wire::to_lisp(vni(1), mac(1)),
        wire::to_lisp(vni(1), ip4(2)),
        wire::to_lisp(vni(1), ip6(3)),
    ]
}

impl World {
    fn new(limits: Limits) -> Self {
        let mut bench = Bench::with(2, ShardConfig { limits, ..ShardConfig::default() });
        bench.fact(Fact::Xtr(XtrFact {
            xtr_id: nve(5),
            site_id: SiteId(0),
            rlocs: vec![rloc(5)],
            key_id: 1,
            algorithm: Algorithm::HmacSha256,
            key: KEY.to_vec(),
            pubsub_key: None,
            vnis: BTreeSet::from([vni(1)]),
            saved_nonce: 0,
            subscription_nonces: BTreeMap::new(),
        }));
        bench.up(10, 1);
        bench.up(20, 2);
        let heard = BTreeMap::new();
        Self { bench, grants: BTreeMap::new(), epochs: BTreeMap::new(), way: Vec::new(), heard }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Grant { n, owner, shifted } => {
                let epoch = self.epochs.entry(n).or_default();
                *epoch += 1;
                let mut new = grant(1, n, owner);
                new.epoch = Epoch::new(*epoch).unwrap();
                if shifted {
                    new.ips = grant(1, n % TSIS + 1, owner).ips;
                }
                let others = self.grants.iter().filter(|(other, _)| **other != n);
                let taken: BTreeSet<TenantIp> = others.flat_map(|(_, grant)| grant.ips.clone()).collect();
                new.ips.retain(|ip| !taken.contains(ip));
                self.grants.insert(n, new.clone());
                self.bench.fact(Fact::Grant(new));
            }
            Step::Release { n } => {
                if self.grants.remove(&n).is_some() {
                    self.bench.fact(Fact::GrantGone(tsi(1, n)));
                }
            }
            Step::Register { n } => self.register(n, u32::MAX),
            Step::Withdraw { n } => self.register(n, 0),
            Step::Subscribe { which } => self.subscribe(which),
            Step::Arrive { which, fate } => {
                if !self.way.is_empty() {
                    let at = which % self.way.len();
                    match fate {
                        0 => drop(self.way.remove(at)),
                        1 => {
                            let again = match &self.way[at] {
                                Datagram::ToXtr(octets) => Datagram::ToXtr(octets.clone()),
                                Datagram::ToOracle(octets) => Datagram::ToOracle(octets.clone()),
                            };
                            self.deliver(again);
                        }
                        _ => {
                            let datagram = self.way.remove(at);
                            self.deliver(datagram);
                        }
                    }
                }
            }
            Step::Pass { seconds } => self.bench.pass(Duration::from_secs(seconds)),
        }
        self.listen();
    }

    fn register(&mut self, n: u8, ttl: u32) {
        let Some(grant) = self.grants.get(&n).cloned() else { return };
        let by = if grant.owner == nve(1) { 1 } else { 2 };
        let ips: Vec<Eid> = grant.ips.iter().map(|ip| Eid::Ip(*ip)).collect();
        self.bench.register_eids(10 * u64::from(by), by, 1, n, ACTIVE, &ips, ttl);
    }

    /// The nonces of two prefixes are far apart, as random ones are: so each message is known by its nonce, though
    /// one prefix lies in another.
    fn subscribe(&mut self, which: usize) {
        let (eid, start) = (prefixes()[which], (which as u64 + 1) << 32);
        let (saved, asked, _) = self.heard.entry(eid).or_default();
        *asked = start.max(*saved).max(*asked) + 1;
        let octets = subscribe(eid, *asked);
        self.way.push(Datagram::ToOracle(octets));
    }

    /// What the shard sends is under way.
    fn listen(&mut self) {
        for sent in self.bench.sent() {
            if let Sent::MapNotify { octets, .. } = sent {
                self.way.push(Datagram::ToXtr(octets));
            }
        }
        // A way holds so much.
        let excess = self.way.len().saturating_sub(64);
        self.way.drain(..excess);
    }

    fn deliver(&mut self, datagram: Datagram) {
        match datagram {
            Datagram::ToOracle(octets) => {
                let from = SocketAddr::new(rloc(5).get(), 4342);
                self.bench.shard.handle_datagram(self.bench.now, from, oracle_ip(), &octets);
            }
            Datagram::ToXtr(octets) => self.receive(&octets),
        }
    }

    fn receive(&mut self, octets: &[u8]) {
        auth::verify(octets, KEY, lisp::Policy::strict()).unwrap();
        let notify = MapNotify::decode(octets).unwrap();
        let first = notify.records.first().unwrap();
        // What it is about is said first.
        let about = lisp::Eid::from_wire(first.eid, first.mask_len).unwrap();
        let prefix = prefixes()[(notify.nonce >> 32) as usize - 1];
        assert!(prefix.covers(&about), "{about} by the subscription to {prefix}");
        if first.action == Action::DropAuthFailure {
            // Over: whoever wants to know more asks again.
            return;
        }
        let Some((saved, _, cache)) = self.heard.get_mut(&prefix) else { return };
        if notify.nonce > *saved {
            *saved = notify.nonce;
            for record in notify.records {
                if let wire::WireEid::Host(_, eid) = wire::from_lisp(record.eid, record.mask_len) {
                    match locators(&record) {
                        none if none.is_empty() => drop(cache.remove(&eid)),
                        some => drop(cache.insert(eid, some)),
                    }
                }
            }
        }
        let auth = Algorithm::HmacSha256.placeholder(1, MacLength::Truncated);
        let mut ack = Vec::new();
        let message = MapNotify { kind: NotifyKind::Ack, auth, ..notify };
        message.encode(&mut ack, EncodeOptions::default()).unwrap();
        auth::sign(&mut ack, KEY, auth::Coverage::WholePayload).unwrap();
        self.way.push(Datagram::ToOracle(ack));
    }

    /// From now on nothing is lost: in the end everything is told.
    fn settle(&mut self) {
        for _ in 0..200 {
            while !self.way.is_empty() {
                let datagram = self.way.remove(0);
                self.deliver(datagram);
                self.listen();
            }
            self.bench.pass(Duration::from_secs(1));
            self.listen();
        }
        for (which, eid) in prefixes().into_iter().enumerate() {
            if let Some((_, _, cache)) = self.heard.get_mut(&eid)
                && !self.bench.shard.subscriptions.has((nve(5), eid))
            {
                // It has been given up; who asks again begins anew.
                cache.clear();
                self.subscribe(which);
            }
        }
        for _ in 0..200 {
            while !self.way.is_empty() {
                let datagram = self.way.remove(0);
                self.deliver(datagram);
                self.listen();
            }
            self.bench.pass(Duration::from_millis(10));
            self.listen();
        }
    }

    fn check(&self) {
        for (prefix, (_, _, cache)) in &self.heard {
            let best = |eid: &Eid| {
                let host = wire::to_lisp(vni(1), *eid);
                let covering = self.heard.keys().filter(|other| other.covers(&host));
                covering.max_by_key(|other| other.mask_len()) == Some(prefix)
            };
            let mut wanted = Cache::new();
            for (_, eid, _) in self.bench.shard.db.entries(Some(vni(1))) {
                let told = self.bench.shard.told(vni(1), eid);
                let Told::At { basis: Basis::Registered | Basis::Granted, mac, locators, .. } = told else {
                    continue;
                };
                if best(&eid) {
                    let at: Vec<String> =
                        locators.iter().map(|l| format!("{}/{}", l.rloc.get(), l.priority)).collect();
                    if matches!(eid, Eid::Ip(_)) {
                        wanted.insert(eid, vec![mac.to_string()]);
                    }
                    wanted.insert(Eid::Mac(mac), at);
                }
            }
            // Of an address that another subscription took over nothing more is said by this one.
            let mut known = cache.clone();
            known.retain(|eid, _| matches!(eid, Eid::Mac(_)) && wanted.contains_key(eid) || best(eid));
            assert_eq!(known, wanted, "by the subscription to {prefix}");
        }
        let shard = &self.bench.shard;
        assert!(shard.subscriptions.iter().all(|(_, one)| one.unacked.is_none() && one.pending.is_empty()));
        let timers = shard.timers.iter().filter(|(_, timer)| matches!(timer, Timer::Unacked(..)));
        assert_eq!(timers.count(), 0);
    }
}

fn subscribe(eid: lisp::Eid, nonce: u64) -> Vec<u8> {
    let records = [EidRecord { notify: true, mask_len: eid.mask_len(), eid: eid.address() }];
    let itr = [lisp::Address::from(rloc(5).get())];
    let request = MapRequest {
        nonce,
        itr_rlocs: (&itr).into(),
        records: (&records).into(),
        xtr: Some(lisp::Xtr { xtr_id: nve(5).0, site_id: 0 }),
        ..MapRequest::default()
    };
    let header = EcmHeader::Ip {
        source: SocketAddr::new(rloc(5).get(), 4342),
        destination: SocketAddr::new(oracle_ip(), 4342),
    };
    let mut octets = Vec::new();
    Ecm::encode_with(&mut octets, false, header, |out| request.encode(out, EncodeOptions::default()))
        .unwrap();
    octets
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn n8_a_subscriber_knows_in_the_end_what_is_true(
        steps in prop::collection::vec(step(), 1..120),
        small in any::<bool>(),
    ) {
        let small_ones = Limits { notify_octets: 1, notifies_per_turn: 1, ..Limits::default() };
        let mut world = World::new(if small { small_ones } else { Limits::default() });
        for step in steps {
            world.step(step);
        }
        world.settle();
        world.check();
    }
}
