//! Requirements M3, N7, Ld: all mappings of a VN are pushed, and stay true.

use std::collections::BTreeMap;

use proptest::prelude::*;
use weft_lisp::tcp::SubscribeError;
use weft_model::Learning;
use weft_model::digest::Digest;

use super::*;
use crate::core::digest::record_digest;
use crate::core::publish::{Basis, Told};

/// Everything that is pushed of a VN now, as it is told.
fn truth(shard: &Shard, vn: u32) -> BTreeMap<Eid, Vec<String>> {
    let all = shard.db.entries(Some(vni(vn))).filter_map(|(vni, eid, _)| match shard.told(vni, eid) {
        Told::At { basis: Basis::Registered | Basis::Granted, mac, locators, .. } => {
            let text = |l: &Locator| format!("{}/{}", l.rloc, l.priority);
            let locators = match eid {
                Eid::Mac(_) => locators.iter().map(text).collect(),
                Eid::Ip(_) => vec![mac.to_string()],
            };
            Some((eid, locators))
        }
        _ => None,
    });
    all.collect()
}

/// What is kept of what is pushed is what would be told; and of subscribers no more is known than sessions say.
pub(super) fn check(shard: &Shard) {
    for spec in shard.vns.values() {
        let pushed = spec.learning == Learning::Distribute;
        assert_eq!(shard.published.contains_key(&spec.vni), pushed);
        let count = shard.published.get(&spec.vni).map_or(0, |all| all.digest.count);
        let truth = if pushed { truth(shard, spec.vni.get()).len() } else { 0 };
        assert_eq!(usize::try_from(count).unwrap(), truth);
    }
    let mut subscribed = subscribe::Subscribers::default();
    let session = |node: &Node| node.session.as_ref().map(|session| session.feeds.mappings.clone());
    for (nve, feeds) in shard.nodes.iter().filter_map(|(nve, node)| Some((nve, session(node)?))) {
        subscribed.mappings.extend(feeds.into_keys().map(|vni| (vni, nve)));
    }
    assert_eq!(shard.subscribers.mappings, subscribed.mappings);
}

/// What an NVE keeps of what it is pushed, as an honest one does.
#[derive(Default)]
struct Table {
    records: BTreeMap<Eid, (Vec<String>, u64)>,
    named: Option<BTreeSet<Eid>>,
    /// ID of the frame that asked.
    request: u32,
    marked: usize,
    begun: usize,
    notified: usize,
}

impl Table {
    fn digest(&self) -> Digest {
        let mut digest = Digest::default();
        self.records.values().for_each(|(_, sum)| digest.add(Digest { count: 1, sum: *sum }));
        digest
    }

    fn hear(&mut self, octets: &[u8], truth: &BTreeMap<Eid, Vec<String>>) {
        let mut decoder = FrameDecoder::default();
        decoder.push(octets);
        while let Some(frame) = decoder.next_frame().unwrap() {
            match frame.body().unwrap() {
                Body::MappingNotification { record, .. } if flat(record.eid, record.mask_len).0 == 1 => {
                    self.notified += 1;
                    let (_, eid) = flat(record.eid, record.mask_len);
                    if record.ttl == 0 {
                        self.records.remove(&eid);
                        if let Some(named) = &mut self.named {
                            named.remove(&eid);
                        }
                    } else {
                        assert_eq!(record.ttl, u32::MAX, "it lives with the subscription");
                        self.records.insert(eid, (locators(&record), record_digest(&record)));
                        if let Some(named) = &mut self.named {
                            named.insert(eid);
                        }
                    }
                }
                Body::Signal(Signal::MappingsBegin { vni: 1 }) => {
                    assert_eq!(frame.id, self.request);
                    self.named = Some(BTreeSet::new());
                    self.begun += 1;
                }
                Body::Signal(Signal::MappingsMarker { vni: 1, count, digest }) => {
                    assert_eq!(frame.id, self.request);
                    if let Some(named) = self.named.take() {
                        self.records.retain(|eid, _| named.contains(eid));
                    }
                    let held: BTreeMap<_, _> =
                        self.records.iter().map(|(e, (l, _))| (*e, l.clone())).collect();
                    assert_eq!(held, *truth, "at the marker the table is the Oracle's");
                    assert_eq!(self.digest(), Digest { count, sum: digest });
                    self.marked += 1;
                }
                _ => {}
            }
        }
    }
}

/// VN 1 is pushed; NVEs 1 to 4 with a session and TSIs n and n + 10 in it each; the first `registered` of the
/// NVEs have registered them.
fn bench(limits: Limits, registered: u8) -> Bench {
    let mut bench = Bench::with(4, ShardConfig { limits, ..ShardConfig::default() });
    bench.fact(Fact::Vn(VnSpec { learning: Learning::Distribute, ..spec(1) }));
    for n in 1..=4 {
        bench.grant(1, n, n);
        bench.grant(1, n + 10, n);
        bench.up(n.into(), n);
    }
    for n in 1..=registered {
        bench.register(n.into(), n, 1, n, ACTIVE);
        bench.register(n.into(), n, 1, n + 10, ACTIVE);
    }
    bench.sent();
    bench
}

fn subscribe(bench: &mut Bench, session: u64, table: &mut Table) {
    let Digest { count, sum } = table.digest();
    table.request += 1;
    table.named = None;
    let frame = Body::Signal(Signal::SubscribeMappings { vni: 1, count, digest: sum });
    let mut octets = Vec::new();
    frame.encode(table.request, &mut octets, EncodeOptions::default()).unwrap();
    bench.octets(session, &octets);
}

/// Takes one transmission; what is for `session` goes to `table`.
fn step(bench: &mut Bench, session: u64, table: &mut Table) -> bool {
    let mut octets = Vec::new();
    let Some(transmit) = bench.shard.poll_transmit(&mut octets) else { return false };
    if transmit == (Transmit::Session { id: SessionId(session) }) {
        table.hear(&octets, &truth(&bench.shard, 1));
    }
    true
}

fn settle(bench: &mut Bench, session: u64, table: &mut Table) {
    for _ in 0..200 {
        while step(bench, session, table) {}
        bench.pass(Duration::from_millis(1));
    }
}

#[test]
fn m3_snapshot_marker_and_changes() {
    // Two have registered, two are answered from their grants; the subscriber's own are among them.
    let mut bench = bench(Limits::default(), 2);
    let mut table = Table::default();
    subscribe(&mut bench, 1, &mut table);
    settle(&mut bench, 1, &mut table);
    assert_eq!((table.marked, table.begun, table.notified), (1, 1, 24));
    assert_eq!(table.records.len(), 24);
    // A registration that says what the grant said is no news.
    bench.register(3, 3, 1, 3, ACTIVE);
    settle(&mut bench, 1, &mut table);
    assert_eq!(table.notified, 24);
    bench.withdraw(2, 2, 1, 2);
    settle(&mut bench, 1, &mut table);
    assert_eq!((table.notified, table.records.len()), (27, 21));
    // A marker every 30 s, and nothing with it.
    bench.pass(Duration::from_secs(30));
    settle(&mut bench, 1, &mut table);
    assert_eq!((table.marked, table.begun, table.notified), (2, 1, 27));
    // Nobody else's session was told anything, and nobody is remembered as having asked.
    assert_eq!(bench.shard.sizes().1, 0);
    bench.signal(1, Signal::UnsubscribeMappings { vni: 1 });
    bench.withdraw(2, 2, 1, 12);
    settle(&mut bench, 1, &mut table);
    assert_eq!(table.notified, 27);
    assert!(bench.shard.subscribers.is_empty());
}

#[test]
fn m3_an_unchanged_table_costs_one_frame() {
    let mut bench = bench(Limits::default(), 4);
    let mut table = Table::default();
    subscribe(&mut bench, 1, &mut table);
    settle(&mut bench, 1, &mut table);
    for session in [5, 6] {
        bench.down(session - 1);
        bench.down(1);
        bench.up(session, 1);
        let before = table.notified;
        if session == 6 {
            bench.withdraw(2, 2, 1, 2);
        }
        subscribe(&mut bench, session, &mut table);
        settle(&mut bench, session, &mut table);
        let snapshot = usize::from(session == 6);
        assert_eq!((table.begun, table.notified - before), (1 + snapshot, snapshot * 21));
    }
    assert_eq!(table.marked, 3);
}

#[test]
fn n7_only_who_is_in_scope_and_where_it_is_enabled() {
    let mut bench = bench(Limits::default(), 4);
    bench.grant(2, 1, 1);
    bench.enroll(5);
    bench.up(5, 5);
    let mut refused = |session, vni| {
        bench.signal(session, Signal::SubscribeMappings { vni, count: 0, digest: 0 });
        match bench.sent()[..] {
            [Sent::Mappings { signal: Signal::MappingsRefused { vni: v, error }, id: 1, .. }] if v == vni => {
                error
            }
            ref other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(5, 1), SubscribeError::NotAuthorized);
    assert_eq!(refused(1, 2), SubscribeError::NotEnabled);
    assert_eq!(refused(1, 9), SubscribeError::InstanceNotFound);
    assert_eq!(refused(1, 0), SubscribeError::InstanceNotFound);
    // A grant that goes, and a VN that changes its mode, end it; not in silence.
    let mut tables = [Table::default(), Table::default()];
    for (n, table) in (1..).zip(&mut tables) {
        subscribe(&mut bench, n, table);
        settle(&mut bench, n, table);
    }
    bench.fact(Fact::GrantGone(tsi(1, 1)));
    bench.fact(Fact::GrantGone(tsi(1, 11)));
    let told = bench.sent();
    let end =
        |session, error| Sent::Mappings { session, id: 1, signal: Signal::MappingsRefused { vni: 1, error } };
    assert!(told.contains(&end(1, SubscribeError::NotAuthorized)), "{told:?}");
    bench.fact(Fact::Vn(spec(1)));
    assert_eq!(bench.sent(), [end(2, SubscribeError::NotEnabled)]);
    assert!(bench.shard.subscribers.is_empty());
    check(&bench.shard);
}

#[test]
fn nothing_remains_of_a_subscriber_that_has_gone() {
    let mut bench = bench(Limits::default(), 4);
    let mut table = Table::default();
    subscribe(&mut bench, 1, &mut table);
    bench.shard.handle_session(bench.now, SessionEvent::Congested { session: SessionId(1) });
    bench.withdraw(2, 2, 1, 2);
    bench.down(1);
    assert_eq!(bench.shard.nodes(bench.now).map(|node| node.pending).sum::<usize>(), 0);
    bench.fact(Fact::NveGone(nve(1)));
    settle(&mut bench, 1, &mut table);
    assert_eq!(table.notified, 0);
    check(&bench.shard);
}

#[test]
fn snapshots_take_turns_and_keep_no_change_waiting() {
    let limits = Limits { session_batch_octets: 64, push_octets: 64, ..Limits::default() };
    let mut bench = bench(limits, 4);
    let mut tables = [Table::default(), Table::default()];
    for (n, table) in (1..).zip(&mut tables) {
        subscribe(&mut bench, n, table);
    }
    let mut turns = Vec::new();
    for _ in 0..20 {
        let mut octets = Vec::new();
        while let Some(Transmit::Session { id }) = bench.shard.poll_transmit(&mut octets) {
            turns.push(id.0);
        }
        bench.pass(Duration::from_millis(1));
    }
    assert_eq!(turns.len(), 20, "so much in each interval");
    assert_eq!(turns.iter().filter(|id| **id == 1).count(), 10, "{turns:?}");
    // A change of what was told already overtakes the rest.
    bench.register_eids(4, 4, 1, 4, ACTIVE, &[], u32::MAX);
    bench.withdraw(1, 1, 1, 1);
    let told = bench.told();
    assert!(told.iter().any(|(session, eid, ttl, _)| (*session, *eid, *ttl) == (1, mac(1), 0)), "{told:?}");
}

#[derive(Clone, Debug)]
enum Change {
    Register(u8),
    Withdraw(u8),
    Activate(u8),
    Move(u8, u8),
    Release(u8),
    Grant(u8, u8),
    Congested(bool),
    Lost,
    Resubscribe,
    Steps(u8),
    Turn,
}

fn change() -> impl Strategy<Value = Change> {
    let n = || 1_u8..20;
    prop_oneof![
        4 => n().prop_map(Change::Register),
        3 => n().prop_map(Change::Withdraw),
        1 => n().prop_map(Change::Activate),
        2 => (n(), 1_u8..5).prop_map(|(n, to)| Change::Move(n, to)),
        1 => n().prop_map(Change::Release),
        2 => (n(), 1_u8..5).prop_map(|(n, to)| Change::Grant(n, to)),
        1 => any::<bool>().prop_map(Change::Congested),
        1 => Just(Change::Lost),
        1 => Just(Change::Resubscribe),
        6 => (1_u8..6).prop_map(Change::Steps),
        6 => Just(Change::Turn),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// However changes and the cursor interleave: at each marker the subscriber's table is the Oracle's.
    #[test]
    fn m3_whatever_happens_the_table_at_the_marker_is_true(
        changes in prop::collection::vec(change(), 1..120),
        batch in 1_usize..200,
        kept in 1_usize..12,
    ) {
        let limits = Limits {
            session_batch_octets: batch,
            push_octets: batch,
            changes_per_session: kept,
            ..Limits::default()
        };
        let mut bench = bench(limits, 3);
        let mut table = Table::default();
        // NVE 1 is always in scope.
        bench.grant(1, 99, 1);
        let mut owners: BTreeMap<u8, (u8, u32)> = (1..=4).flat_map(|n| [(n, (n, 1)), (n + 10, (n, 1))]).collect();
        let mut epochs: BTreeMap<u8, u32> = BTreeMap::new();
        let mut session = 1;
        subscribe(&mut bench, session, &mut table);
        for change in changes {
            let by = |n: u8, session: u64| owners.get(&n).map(|(owner, _)| (if *owner == 1 { session } else { (*owner).into() }, *owner));
            match change {
                Change::Register(n) => if let Some((s, owner)) = by(n, session) {
                    bench.register(s, owner, 1, n, ACTIVE);
                },
                Change::Withdraw(n) => if let Some((s, owner)) = by(n, session) {
                    bench.withdraw(s, owner, 1, n);
                },
                Change::Activate(n) => if let Some((_, owner)) = by(n, session) {
                    bench.shard.handle_activating(bench.now, nve(owner), &tsi(1, n));
                },
                Change::Move(n, to) | Change::Grant(n, to) => {
                    let epoch = epochs.entry(n).or_insert(1);
                    *epoch += 1;
                    owners.insert(n, (to, *epoch));
                    let mut moved = grant(1, n, to);
                    moved.epoch = Epoch::new(*epoch).unwrap();
                    bench.fact(Fact::Grant(moved));
                }
                Change::Release(n) => if owners.remove(&n).is_some() {
                    bench.fact(Fact::GrantGone(tsi(1, n)));
                },
                Change::Congested(yes) => {
                    let session = SessionId(session);
                    let event = if yes { SessionEvent::Congested { session } } else { SessionEvent::Writable { session } };
                    bench.shard.handle_session(bench.now, event);
                }
                Change::Lost => {
                    bench.down(session);
                    session += 10;
                    let event = SessionEvent::Up { session: SessionId(session), xtr_id: nve(1) };
                    bench.shard.handle_session(bench.now, event);
                    bench.signal(session, Signal::Hello { version: 1, boot_id: 1 });
                    subscribe(&mut bench, session, &mut table);
                }
                Change::Resubscribe => subscribe(&mut bench, session, &mut table),
                Change::Steps(n) => for _ in 0..n {
                    step(&mut bench, session, &mut table);
                },
                Change::Turn => bench.pass(Duration::from_millis(1)),
            }
            check(&bench.shard);
        }
        let event = SessionEvent::Writable { session: SessionId(session) };
        bench.shard.handle_session(bench.now, event);
        settle(&mut bench, session, &mut table);
        let marked = table.marked;
        prop_assert!(marked > 0);
        bench.pass(Duration::from_secs(31));
        settle(&mut bench, session, &mut table);
        prop_assert!(table.marked > marked);
    }
}
