//! What holds whatever happens: random facts, sessions, messages and octets.

use std::collections::BTreeMap;

use super::publish::{Basis, Told, answer};
use super::*;
use crate::core::database::Answer;
use crate::core::members::site_id;
use crate::core::subscribe::Stage;
use proptest::prelude::*;
use weft_model::{GroupIp, Wanted};

/// NVEs, and TSIs per VN, of the random fabrics.
const NVES: u8 = 4;
const TSIS: u8 = 3;

#[derive(Clone, Debug)]
enum Step {
    /// Attach: a grant, unless there is one.
    Grant {
        vn: u32,
        n: u8,
        owner: u8,
    },
    /// Associate elsewhere: `next`.
    Next {
        vn: u32,
        n: u8,
        next: u8,
    },
    /// The move is called off.
    Cancel {
        vn: u32,
        n: u8,
    },
    /// Take-over.
    Take {
        vn: u32,
        n: u8,
        owner: u8,
    },
    Release {
        vn: u32,
        n: u8,
    },
    /// An address goes from one TSI of a VN to the next one.
    Address {
        vn: u32,
        n: u8,
    },
    Up {
        n: u8,
    },
    Down {
        n: u8,
    },
    End {
        n: u8,
    },
    Congested {
        n: u8,
        yes: bool,
    },
    Register {
        by: u8,
        vn: u32,
        n: u8,
        active: bool,
    },
    Withdraw {
        by: u8,
        vn: u32,
        n: u8,
    },
    Ask {
        by: u8,
        vn: u32,
        n: u8,
        kind: u8,
    },
    /// The store has written what the shard claimed.
    Written,
    /// Of one of few groups of a VN.
    Group {
        by: u8,
        vn: u32,
        n: u8,
        what: u8,
    },
    Subscribe {
        by: u8,
        vn: u32,
        yes: bool,
    },
    Rejoin {
        n: u8,
    },
    Removed {
        n: u8,
    },
    Pass {
        seconds: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (vn, n, by) = (1_u32..3, 1..=TSIS, 1..=NVES);
    let at = move || (vn.clone(), n.clone(), by.clone());
    prop_oneof![
        3 => at().prop_map(|(vn, n, owner)| Step::Grant { vn, n, owner }),
        2 => at().prop_map(|(vn, n, next)| Step::Next { vn, n, next }),
        1 => at().prop_map(|(vn, n, _)| Step::Cancel { vn, n }),
        1 => at().prop_map(|(vn, n, owner)| Step::Take { vn, n, owner }),
        1 => at().prop_map(|(vn, n, _)| Step::Release { vn, n }),
        1 => at().prop_map(|(vn, n, _)| Step::Address { vn, n }),
        2 => at().prop_map(|(_, _, n)| Step::Up { n }),
        1 => at().prop_map(|(_, _, n)| Step::Down { n }),
        1 => at().prop_map(|(_, _, n)| Step::End { n }),
        1 => (at(), any::<bool>()).prop_map(|((_, _, n), yes)| Step::Congested { n, yes }),
        6 => (at(), any::<bool>()).prop_map(|((vn, n, by), active)| Step::Register { by, vn, n, active }),
        2 => at().prop_map(|(vn, n, by)| Step::Withdraw { by, vn, n }),
        8 => (at(), 0_u8..4).prop_map(|((vn, n, by), kind)| Step::Ask { by, vn, n, kind }),
        2 => Just(Step::Written),
        2 => (at(), any::<bool>()).prop_map(|((vn, _, by), yes)| Step::Subscribe { by, vn, yes }),
        4 => (at(), 0_u8..8).prop_map(|((vn, n, by), what)| Step::Group { by, vn, n, what }),
        1 => at().prop_map(|(_, _, n)| Step::Rejoin { n }),
        1 => at().prop_map(|(_, _, n)| Step::Removed { n }),
        2 => (0_u64..400).prop_map(|seconds| Step::Pass { seconds }),
    ]
}

/// What an asker holds: locators, or that there is nothing; and until when.
type Cache = BTreeMap<(u8, u32, Eid), (Option<Vec<String>>, Time)>;

/// The bench, the store beside it, and the caches of honest askers.
struct World {
    bench: Bench,
    store: BTreeMap<TsiId, Grant>,
    floors: BTreeMap<TsiId, u32>,
    claims: Vec<(TsiId, XtrId, Epoch)>,
    sessions: BTreeMap<u8, u64>,
    enrolled: BTreeSet<u8>,
    last_session: u64,
    cache: Cache,
    /// NVEs whose session is to be closed, with that session.
    overran: Vec<(u8, u64)>,
    reconnecting: bool,
    /// What each was told of the receivers of a VN's groups; and inside a snapshot.
    groups: BTreeMap<(u8, u32), (GroupsOf, Option<GroupsOf>)>,
}

/// Site-IDs and groups.
type GroupsOf = BTreeSet<(u64, Wanted)>;

impl World {
    fn new(limits: Limits) -> Self {
        Self {
            bench: {
                let mut bench = Bench::with(NVES, ShardConfig { limits, ..ShardConfig::default() });
                let learning = weft_model::Learning::Distribute;
                bench.fact(Fact::Vn(VnSpec { learning, ..spec(2) }));
                bench
            },
            store: BTreeMap::new(),
            floors: BTreeMap::new(),
            claims: Vec::new(),
            sessions: BTreeMap::new(),
            enrolled: (1..=NVES).collect(),
            last_session: 0,
            cache: Cache::new(),
            overran: Vec::new(),
            reconnecting: false,
            groups: BTreeMap::new(),
        }
    }

    fn put(&mut self, grant: Grant) {
        self.floors.insert(grant.tsi.clone(), grant.epoch.get());
        self.store.insert(grant.tsi.clone(), grant.clone());
        self.bench.fact(Fact::Grant(grant));
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Grant { vn, n, owner } => self.attach(vn, n, owner),
            Step::Next { vn, n, next } => self.change(vn, n, |grant| {
                let epoch = grant.epoch.next();
                grant.next = (grant.owner != nve(next)).then_some(Successor { nve: nve(next), epoch });
            }),
            Step::Cancel { vn, n } => self.change(vn, n, |grant| grant.next = None),
            Step::Take { vn, n, owner } => self.change(vn, n, |grant| {
                let above = grant.next.map_or(grant.epoch, |next| next.epoch);
                (grant.owner, grant.epoch, grant.next) = (nve(owner), above.next(), None);
            }),
            Step::Release { vn, n } => {
                if let Some(old) = self.store.remove(&tsi(vn, n)) {
                    let above = old.next.map_or(old.epoch, |next| next.epoch);
                    self.floors.insert(tsi(vn, n), above.get());
                    self.bench.fact(Fact::GrantGone(tsi(vn, n)));
                }
            }
            Step::Address { vn, n } => self.move_address(vn, n),
            Step::Up { n } => self.up(n),
            Step::Down { n } => {
                if let Some(session) = self.sessions.remove(&n) {
                    self.bench.down(session);
                }
            }
            Step::End { n } => {
                if let Some(session) = self.sessions.get(&n) {
                    self.bench.signal(*session, Signal::EndOfRegistration { count: 0, digest: 0 });
                }
            }
            Step::Congested { n, yes } => {
                let Some(session) = self.sessions.get(&n).map(|s| SessionId(*s)) else { return };
                let event = if yes {
                    SessionEvent::Congested { session }
                } else {
                    SessionEvent::Writable { session }
                };
                self.bench.shard.handle_session(self.bench.now, event);
            }
            Step::Register { by, vn, n, active } => self.register(by, vn, n, active),
            Step::Withdraw { by, vn, n } => {
                if let Some(session) = self.sessions.get(&by) {
                    self.bench.withdraw(*session, by, vn, n);
                }
            }
            Step::Ask { by, vn, n, kind } => {
                let wanted = [mac(n), ip4(n), ip6(n), ip4(100 + n)][usize::from(kind)];
                self.bench.ask(by, vn, wanted, ip4(by));
            }
            Step::Written => self.write_claims(),
            Step::Subscribe { by, vn, yes } => self.subscribe(by, vn, yes),
            Step::Group { by, vn, n, what } => {
                let Some(session) = self.sessions.get(&by) else { return };
                let group = if n % 2 == 0 { format!("239.0.0.{n}") } else { format!("ff15::{n}") };
                let (site_id, group) = (0, group.parse().unwrap());
                let event = match what {
                    0 => GroupEvent::Begin,
                    1 => GroupEvent::End,
                    2 => GroupEvent::Remove { site_id, group },
                    6 => GroupEvent::AddAll { site_id },
                    7 => GroupEvent::RemoveAll { site_id },
                    _ => GroupEvent::Add { site_id, group },
                };
                self.bench.group(*session, vn, event);
            }
            Step::Rejoin { n } => {
                self.enrolled.insert(n);
                self.bench.enroll(n);
            }
            Step::Removed { n } => {
                self.enrolled.remove(&n);
                self.sessions.remove(&n);
                self.bench.fact(Fact::NveGone(nve(n)));
                self.cache.retain(|(by, ..), _| *by != n);
            }
            Step::Pass { seconds } => self.bench.pass(Duration::from_secs(seconds)),
        }
        self.listen();
    }

    fn attach(&mut self, vn: u32, n: u8, owner: u8) {
        if !self.store.contains_key(&tsi(vn, n)) {
            let floor = self.floors.get(&tsi(vn, n)).copied().unwrap_or(0);
            let taken: BTreeSet<TenantIp> =
                self.store.values().filter(|g| g.tsi.vni == vni(vn)).flat_map(|g| g.ips.clone()).collect();
            let mut new = grant(vn, n, owner);
            new.epoch = Epoch::new(floor + 1).unwrap();
            new.ips.retain(|ip| !taken.contains(ip));
            self.put(new);
        }
    }

    fn change(&mut self, vn: u32, n: u8, change: impl FnOnce(&mut Grant)) {
        if let Some(mut grant) = self.store.get(&tsi(vn, n)).cloned() {
            change(&mut grant);
            self.put(grant);
        }
    }

    fn move_address(&mut self, vn: u32, n: u8) {
        let (from, to) = (tsi(vn, n), tsi(vn, n % TSIS + 1));
        let Some(ip) = self.store.get(&from).and_then(|g| g.ips.first().copied()) else { return };
        if from != to && self.store.contains_key(&to) {
            self.change(vn, n, |grant| assert!(grant.ips.remove(&ip)));
            self.change(vn, n % TSIS + 1, |grant| assert!(grant.ips.insert(ip)));
        }
    }

    fn up(&mut self, n: u8) {
        if self.enrolled.contains(&n) {
            self.last_session += 1;
            let session = self.last_session;
            self.sessions.insert(n, session);
            let event = SessionEvent::Up { session: SessionId(session), xtr_id: nve(n) };
            self.bench.shard.handle_session(self.bench.now, event);
            // With room for one control frame the digests that follow would end every session.
            if self.bench.shard.config.limits.controls_per_session > 1 {
                self.bench.signal(session, Signal::Hello { version: 1, boot_id: 1 });
                // An older one does not, now and then.
                if !session.is_multiple_of(3) {
                    self.bench.signal(session, Signal::NamesGroups);
                }
            }
            // As an NVE does, it asks again for what it holds: it may have missed anything.
            let held: Vec<(u32, Eid)> =
                self.cache.keys().filter(|(by, ..)| *by == n).map(|(_, vn, eid)| (*vn, *eid)).collect();
            self.cache.retain(|(by, ..), _| *by != n);
            for (vn, eid) in held {
                self.bench.ask(n, vn, eid, ip4(n));
            }
        }
    }

    /// Anybody registers anything; what does not count must change nothing.
    fn register(&mut self, by: u8, vn: u32, n: u8, active: bool) {
        let Some(session) = self.sessions.get(&by).copied() else { return };
        let allowed = self.store.get(&tsi(vn, n)).is_some_and(|g| g.epoch_of(nve(by)).is_ok());
        let before: Vec<_> = self.bench.shard.mappings(self.bench.now, None).collect();
        let ips: Vec<Eid> = self
            .store
            .get(&tsi(vn, n))
            .map(|g| g.ips.iter().map(|ip| Eid::Ip(*ip)).collect())
            .unwrap_or_default();
        let (priority, ips) = if active { (ACTIVE, ips) } else { (ASSOCIATED, Vec::new()) };
        self.bench.register_eids(session, by, vn, n, priority, &ips, u32::MAX);
        if !allowed {
            let after: Vec<_> = self.bench.shard.mappings(self.bench.now, None).collect();
            assert_eq!(before, after, "an NVE without a grant changed the table");
        }
    }

    /// To members and mappings alike; VN 2 is one whose mappings are pushed.
    fn subscribe(&mut self, by: u8, vn: u32, yes: bool) {
        let Some(session) = self.sessions.get(&by).copied() else { return };
        let (members, mappings) = if yes {
            let (count, digest) = (0, 0);
            (MembershipEvent::Subscribe, Signal::SubscribeMappings { vni: vn, count, digest })
        } else {
            (MembershipEvent::Unsubscribe, Signal::UnsubscribeMappings { vni: vn })
        };
        self.bench.membership(session, vn, members);
        self.bench.signal(session, mappings);
        if !yes {
            self.forget_pushed(by, vn);
        }
    }

    /// Nobody tells it any more of what was pushed: an NVE asks for it again, as this one does for what it needs.
    fn forget_pushed(&mut self, by: u8, vn: u32) {
        // No answer lives that long.
        let pushed = self.bench.now + Duration::from_secs(60 * u64::from(super::super::push::TTL / 2));
        self.cache.retain(|(nve, v, _), (_, expires)| (*nve, *v) != (by, vn) || *expires < pushed);
    }

    /// What is counted and indexed is what is there.
    fn check_indexes(&self) {
        let shard = &self.bench.shard;
        let mut members: BTreeMap<(Vni, XtrId), u32> = BTreeMap::new();
        for (vni, eid, tsi) in shard.db.entries(None) {
            let active = tsi.registrations.iter().filter(|r| r.active() && matches!(eid, Eid::Mac(_)));
            active.for_each(|r| *members.entry((vni, r.nve)).or_default() += 1);
        }
        let counted: BTreeMap<_, _> = shard.db.members.iter(None).map(|(v, n, c)| ((v, n), c)).collect();
        assert_eq!(counted, members);
        assert!(shard.db.members.is_told());
        super::push::check(shard);
        let limit = shard.config.limits.groups_per_member.max(1);
        for (vni, nve, count) in shard.receivers.iter() {
            assert!(shard.db.in_scope(nve, vni) && shard.nodes.get(nve).is_some() && count <= limit * 2);
        }
        // Who is subscribed, and told all there is to say, has just what there is.
        for (by, session) in &self.sessions {
            let Some(node) = shard.nodes.get(nve(*by)) else { continue };
            let Some(session) = node.session.as_ref().filter(|s| s.id.0 == *session && !s.congested) else {
                continue;
            };
            for (vni, feed) in &session.feeds.members {
                if session.hello && feed.stage == Stage::Idle && session.feeds.group_changes.is_empty() {
                    let others = (1..=NVES).map(nve).filter(|other| *other != nve(*by));
                    let all: BTreeSet<_> = others
                        .flat_map(|other| {
                            let groups = shard.receivers.of(*vni, other).map(Wanted::Group);
                            let all = session.names_groups && shard.wants_all(*vni, other);
                            let all = all.then_some(Wanted::All);
                            all.into_iter().chain(groups).map(move |wanted| (site_id(other), wanted))
                        })
                        .collect();
                    let told = self.groups.get(&(*by, vni.get())).cloned().unwrap_or_default();
                    assert_eq!(told.0, all, "NVE {by} in {vni}");
                }
            }
        }
    }

    fn write_claims(&mut self) {
        for (tsi, by, epoch) in std::mem::take(&mut self.claims) {
            if let Some(mut grant) = self.store.get(&tsi).cloned()
                && grant.next == Some(Successor { nve: by, epoch })
            {
                (grant.owner, grant.epoch, grant.next) = (by, epoch, None);
                self.put(grant);
            }
        }
    }

    /// Takes what the shard sends into the askers' caches.
    fn listen(&mut self) {
        let now = self.bench.now;
        for event in self.bench.events() {
            match event {
                Event::SuccessorActive { tsi, nve, epoch } => self.claims.push((tsi, nve, epoch)),
                // As the I/O does: the session is closed, and its NVE connects again.
                Event::Overrun { session, nve } if self.sessions.get(&nve.0[0]) == Some(&session.0) => {
                    self.overran.push((nve.0[0], session.0));
                }
                _ => {}
            }
        }
        let until = |ttl: u32| now + Duration::from_secs(60 * u64::from(ttl));
        let mut octets = Vec::new();
        while let Some(transmit) = self.bench.shard.poll_transmit(&mut octets) {
            match transmit {
                Transmit::Session { id } => {
                    let by = self.sessions.iter().find(|(_, s)| **s == id.0).map(|(n, _)| *n);
                    let mut sent = Vec::new();
                    read_frames(id.0, &octets, &mut sent);
                    for sent in sent {
                        let Some(by) = by else { continue };
                        match sent {
                            Sent::Notify { eid, vni, ttl: 0, .. } => {
                                self.cache.remove(&(by, vni, eid));
                            }
                            Sent::Notify { eid, vni, ttl, rlocs, .. } => {
                                self.cache.insert((by, vni, eid), (Some(rlocs), until(ttl)));
                            }
                            Sent::Group { vni, event, .. } => self.hear_group(by, vni, event),
                            Sent::Membership { vni, event: MembershipEvent::RefreshBegin { .. }, .. } => {
                                self.groups.entry((by, vni)).or_default().1 = Some(BTreeSet::new());
                            }
                            Sent::Membership { vni, event: MembershipEvent::RefreshEnd { .. }, .. } => {
                                let held = self.groups.entry((by, vni)).or_default();
                                held.0 = held.1.take().unwrap_or_default();
                            }
                            Sent::Mappings { signal: Signal::MappingsRefused { vni, .. }, .. } => {
                                self.forget_pushed(by, vni);
                            }
                            _ => {}
                        }
                    }
                }
                Transmit::Udp { dst, .. } => self.hear_reply(dst, &octets, until),
                Transmit::Echo { .. } => {}
            }
        }
        self.cache.retain(|_, (_, expires)| *expires > now);
        self.check_indexes();
        // One after another: what comes back may overrun again.
        if !std::mem::replace(&mut self.reconnecting, true) {
            while let Some((n, session)) = self.overran.pop() {
                if self.sessions.get(&n) == Some(&session) {
                    self.step(Step::Down { n });
                    self.step(Step::Up { n });
                }
            }
            self.reconnecting = false;
        }
    }

    fn hear_group(&mut self, by: u8, vn: u32, event: GroupEvent) {
        let held = self.groups.entry((by, vn)).or_default();
        let named = |group| Wanted::Group(GroupIp::new(group).unwrap());
        for held in [Some(&mut held.0), held.1.as_mut()].into_iter().flatten() {
            match event {
                GroupEvent::Add { site_id, group } => held.insert((site_id, named(group))),
                GroupEvent::Remove { site_id, group } => held.remove(&(site_id, named(group))),
                GroupEvent::AddAll { site_id } => held.insert((site_id, Wanted::All)),
                GroupEvent::RemoveAll { site_id } => held.remove(&(site_id, Wanted::All)),
                other => panic!("{other:?}"),
            };
        }
    }

    fn hear_reply(&mut self, dst: SocketAddr, octets: &[u8], until: impl Fn(u32) -> Time) {
        let reply = MapReply::decode(octets).unwrap();
        let by = (1..=NVES).find(|n| rloc(*n).get() == dst.ip()).unwrap();
        let iids: BTreeSet<u32> = reply.records.iter().map(|r| flat(r.eid, r.mask_len).0).collect();
        assert_eq!(iids.len(), 1, "an answer crosses VNs");
        for record in reply.records {
            let (vn, eid) = flat(record.eid, record.mask_len);
            let known = (!record.locators.is_empty()).then(|| locators(&record));
            if known.is_none() {
                assert!(!self.is_granted(vn, eid), "a Negative for a granted address");
            }
            self.cache.insert((by, vn, eid), (known, until(record.ttl)));
        }
    }

    fn is_granted(&self, vn: u32, eid: Eid) -> bool {
        let holds = |g: &Grant| match eid {
            Eid::Mac(mac) => g.mac.get() == mac,
            Eid::Ip(ip) => g.ips.contains(&ip),
        };
        self.store.values().any(|g| g.tsi.vni == vni(vn) && holds(g))
    }

    /// What an asker would be told or answered now.
    fn truths(&self, vn: u32, eid: Eid) -> (Told, Vec<Option<Vec<String>>>) {
        let shard = &self.bench.shard;
        let text = |eid: Eid, mac: MacAddr, rlocs: &[Locator]| match eid {
            Eid::Mac(_) => rlocs.iter().map(|l| format!("{}/{}", l.rloc, l.priority)).collect(),
            Eid::Ip(_) => vec![mac.to_string()],
        };
        let told = shard.told(vni(vn), eid);
        let mut truths = vec![match &told {
            Told::Nothing | Told::At { basis: Basis::Expected, .. } => None,
            Told::At { mac, locators, .. } => Some(text(eid, *mac, locators)),
        }];
        if let Answer::At(found) = answer(&shard.db, &shard.nodes, vni(vn), eid) {
            let locators: Vec<Locator> = match found.source {
                database::Source::Registration(r) => r.locators.clone(),
                database::Source::Grant(rlocs) => Locator::stored(rlocs).collect(),
            };
            truths.push(Some(text(eid, found.tsi.grant.mac.get(), &locators)));
        }
        (told, truths)
    }

    /// Once every message has arrived, nobody holds what is not true.
    fn check_caches(&mut self) {
        for n in 1..=NVES {
            self.step(Step::Congested { n, yes: false });
        }
        let connected = |by: &u8| self.sessions.contains_key(by);
        for ((by, vn, eid), (held, _)) in self.cache.iter().filter(|((by, ..), _)| connected(by)) {
            let (told, truths) = self.truths(*vn, *eid);
            match held {
                Some(_) => assert!(
                    truths.contains(held),
                    "NVE {by} holds {held:?} for {eid} in {vn}, true is {truths:?}"
                ),
                None => assert!(
                    told.basis() != Some(Basis::Registered),
                    "NVE {by} holds a Negative for {eid} in {vn} that is registered"
                ),
            }
        }
    }

    /// Every owner registers: every answer is then the owner's.
    fn settle(&mut self) {
        self.write_claims();
        for n in 1..=NVES {
            self.step(Step::Rejoin { n });
            self.step(Step::Up { n });
        }
        let grants: Vec<Grant> = self.store.values().cloned().collect();
        for grant in &grants {
            let n = grant.mac.octets()[5];
            self.step(Step::Register { by: grant.owner.0[0], vn: grant.tsi.vni.get(), n, active: true });
        }
        self.bench.pass(Duration::from_secs(3));
        self.listen();
        self.check_caches();
        for grant in &grants {
            let owner = grant.owner.0[0];
            let vn = grant.tsi.vni.get();
            for ip in &grant.ips {
                let told = self.bench.answer(owner, vn, Eid::Ip(*ip)).expect("an answer");
                assert_eq!(told[0].3, [grant.mac.to_string()]);
                assert_eq!(told[1].3, at(owner), "{grant:?}");
            }
        }
        let views = self.bench.shard.mappings(self.bench.now, None);
        let registered = views.filter(|m| m.origin == weft_model::Origin::Registration).count();
        let eids: usize = grants.iter().map(|g| 1 + g.ips.len()).sum();
        assert_eq!(registered, eids);
    }
}

fn small(limit: usize) -> Limits {
    Limits {
        asks_per_vn: limit,
        asks_per_nve: limit,
        sources_per_ask: 1,
        parked_per_nve: limit,
        controls_per_session: limit,
        events: limit,
        udp_queue_octets: 4096,
        session_batch_octets: 1,
        ..Limits::default()
    }
}

proptest! {
    #[test]
    fn n4_n8_caches_are_true_and_answers_the_owners(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new(Limits::default());
        for step in steps {
            world.step(step);
        }
        world.check_caches();
        world.settle();
    }

    #[test]
    fn n8_caches_are_true_also_when_askers_are_forgotten(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new(small(3));
        for step in steps {
            let down = matches!(step, Step::Down { .. });
            world.step(step);
            prop_assert!(world.bench.shard.sizes().1 <= 6);
            // A node that is away may miss more than is kept for it; it asks again when it is back.
            if down { world.cache.retain(|(by, ..), _| world.sessions.contains_key(by)); }
        }
        world.check_caches();
    }

    #[test]
    fn limits_of_one_hold(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new(small(1));
        for step in steps {
            world.step(step);
            prop_assert!(world.bench.shard.sizes().1 <= 2);
        }
        let shard = &world.bench.shard;
        prop_assert!(shard.nodes.iter().all(|(_, node)| node.pending.len() <= 2));
    }

    /// The same inputs give the same state: nothing depends on anything else.
    #[test]
    fn the_core_is_deterministic(steps in prop::collection::vec(step(), 1..60)) {
        let (mut a, mut b) = (World::new(Limits::default()), World::new(Limits::default()));
        for step in steps {
            a.step(step.clone());
            b.step(step);
        }
        prop_assert_eq!(&a.bench.shard, &b.bench.shard);
        prop_assert_eq!(a.cache, b.cache);
    }

    #[test]
    fn arbitrary_datagrams_change_nothing(octets in prop::collection::vec(any::<u8>(), 0..200), first in 0_u8..9) {
        let mut bench = Bench::new(2);
        bench.grant(1, 7, 1);
        let before = bench.shard.clone();
        let mut octets = octets;
        if let Some(octet) = octets.first_mut() {
            *octet = (first << 4) | (*octet & 0xf);
        }
        let src = SocketAddr::new(rloc(1).get(), 4342);
        bench.shard.handle_datagram(bench.now, src, oracle_ip(), &octets);
        let _ = owner(&octets, 3);
        prop_assert_eq!(bench.sent(), vec![]);
        prop_assert_eq!(bench.shard, before);
    }

    #[test]
    fn mutated_messages_never_panic_nor_grow_the_state(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        kind in 0_u8..3,
        repeat in 1_usize..20,
    ) {
        let mut bench = Bench::with(2, ShardConfig { limits: small(2), ..ShardConfig::default() });
        bench.grant(1, 7, 1);
        bench.grant(1, 8, 2);
        bench.up(10, 1);
        for n in 0..repeat {
            let n = u8::try_from(n).unwrap();
            let mut octets = match kind {
                0 => request(1, 1, ip4(n), Some(ip4(7)), 1),
                1 => request(1, 1, mac(n), None, 1),
                _ => register_octets(),
            };
            for (at, with) in &flips {
                let at = at.index(octets.len());
                octets[at] ^= with;
            }
            if flips.len() == 1 {
                octets.truncate(cut.index(octets.len()));
            }
            let src = SocketAddr::new(rloc(1).get(), 4342);
            bench.shard.handle_datagram(bench.now, src, oracle_ip(), &octets);
            let _ = owner(&octets, 3);
            bench.frame(10, Frame { frame_type: 17, id: 1, data: octets.as_slice() });
            let frame = Frame { frame_type: u16::from(n), id: 1, data: octets.as_slice() };
            let _ = peek_frame_vni(&frame);
            bench.frame(10, frame);
            prop_assert!(bench.shard.sizes().1 <= 4);
            let mut out = Vec::new();
            while bench.shard.poll_transmit(&mut out).is_some() {}
        }
        prop_assert_eq!(bench.shard.sizes().0, 2);
    }
}

/// A valid Map-Register of TSI 7 without a frame.
fn register_octets() -> Vec<u8> {
    let own = [lisp::Locator::new(rloc(1).get(), 1)];
    let owner = [lisp::Locator::mac([2, 0, 0, 0, 0, 7])];
    let records = [wire_record(1, mac(7), 9, &own), wire_record(1, ip4(7), 9, &owner)];
    let register = MapRegister { records: (&records).into(), ..MapRegister::default() };
    let mut octets = Vec::new();
    register.encode(&mut octets, EncodeOptions::default()).unwrap();
    octets
}

#[test]
fn shards_share_the_vns_and_each_knows_only_its_own() {
    let all: Vec<Shard> = (0..3)
        .map(|index| Shard::new(ShardConfig { index, shards: 3, ..ShardConfig::default() }, Time::default()))
        .collect();
    for n in 1..500 {
        assert_eq!(all.iter().filter(|shard| shard.owns(vni(n))).count(), 1);
    }
    let mut shares = [0; 3];
    (1..3000).for_each(|n| shares[shard_of(n, 3)] += 1);
    assert!(shares.iter().all(|share| (900..1100).contains(share)), "{shares:?}");
    assert_eq!(owner(&request(1, 5, mac(1), None, 1), 7), Owner::One(shard_of(5, 7)));
    assert_eq!(owner(&register_octets(), 7), Owner::One(shard_of(1, 7)));
    assert_eq!(owner(&[0; 40], 7), Owner::Any);
}
