//! N7, N8, N11: plain xTRs that subscribe over UDP (RFC 9437).

use super::*;
use crate::core::pubsub::Slot;
use weft_lisp::{Algorithm, EidAddr, MacLength, MapNotify, NotifyKind, auth};
use weft_model::SiteId;

const KEY: &[u8] = b"a pre-shared secret";

/// A record of a Map-Notify: EID, TTL, action, locators.
pub(super) type Told = (String, u32, Action, Vec<String>);

/// A Map-Notify: where to, nonce, records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Got {
    to: IpAddr,
    pub(super) nonce: u64,
    pub(super) records: Vec<Told>,
    octets: Vec<u8>,
}

pub(super) fn xtr_fact(saved: &[(lisp::Eid, u64)]) -> XtrFact {
    XtrFact {
        xtr_id: nve(5),
        site_id: SiteId(9),
        rlocs: vec![rloc(5), rloc6(5)],
        key_id: 1,
        algorithm: Algorithm::HmacSha256,
        key: b"another, for registrations".to_vec(),
        pubsub_key: Some(KEY.to_vec()),
        vnis: BTreeSet::from([vni(1)]),
        saved_nonce: 0,
        subscription_nonces: saved.iter().copied().collect(),
    }
}

pub(super) fn with(limits: Limits) -> Bench {
    let timing = Timing { patience: Duration::ZERO, ..Timing::default() };
    let mut bench = Bench::with(2, ShardConfig { timing, limits, ..ShardConfig::default() });
    bench.fact(Fact::Xtr(xtr_fact(&[])));
    bench.grant(1, 1, 1);
    for n in [1, 2] {
        bench.up(10 * u64::from(n), n);
    }
    bench.register(10, 1, 1, 1, ACTIVE);
    bench.sent();
    bench
}

/// xTR 5 may ask in VN 1, where NVE 1 has TSI 1.
pub(super) fn bench() -> Bench {
    with(Limits::default())
}

pub(super) fn host(eid: Eid) -> lisp::Eid {
    wire::to_lisp(vni(1), eid)
}

pub(super) fn all(addr: impl Into<EidAddr>) -> lisp::Eid {
    lisp::Eid::prefix(1, addr, 0).unwrap()
}

pub(super) fn all_v4() -> lisp::Eid {
    all(std::net::Ipv4Addr::UNSPECIFIED)
}

pub(super) struct Ask {
    eids: Vec<lisp::Eid>,
    nonce: u64,
    pub(super) itr_rlocs: Vec<IpAddr>,
    xtr: Option<lisp::Xtr>,
    from: IpAddr,
    notify: bool,
}

impl Ask {
    pub(super) fn new(eid: lisp::Eid, nonce: u64) -> Self {
        Self {
            eids: vec![eid],
            nonce,
            itr_rlocs: vec![rloc6(5).get(), rloc(5).get()],
            xtr: Some(lisp::Xtr { xtr_id: nve(5).0, site_id: 9 }),
            from: rloc(5).get(),
            notify: true,
        }
    }

    fn octets(&self) -> Vec<u8> {
        let record =
            |eid: &lisp::Eid| EidRecord { notify: self.notify, mask_len: eid.mask_len(), eid: eid.address() };
        let records: Vec<_> = self.eids.iter().map(record).collect();
        let itr: Vec<lisp::Address<'_>> = match self.itr_rlocs.as_slice() {
            [] => vec![lisp::Address::NoAddress],
            all => all.iter().map(|ip| (*ip).into()).collect(),
        };
        let request = MapRequest {
            nonce: self.nonce,
            itr_rlocs: (&itr).into(),
            records: (&records).into(),
            xtr: self.xtr,
            ..MapRequest::default()
        };
        let header = EcmHeader::Ip {
            source: SocketAddr::new(rloc(5).get(), 5555),
            destination: SocketAddr::new(oracle_ip(), 4342),
        };
        let mut octets = Vec::new();
        Ecm::encode_with(&mut octets, false, header, |out| request.encode(out, EncodeOptions::default()))
            .unwrap();
        octets
    }

    pub(super) fn send(&self, bench: &mut Bench) {
        let from = SocketAddr::new(self.from, 7777);
        bench.shard.handle_datagram(bench.now, from, oracle_ip(), &self.octets());
    }
}

/// What was sent: Map-Notifies, all of them authentic, and how much else to the xTR.
pub(super) fn got(bench: &mut Bench) -> (Vec<Got>, Vec<Sent>) {
    let (mut notifies, mut others) = (Vec::new(), Vec::new());
    for sent in bench.sent() {
        match sent {
            Sent::MapNotify { to, nonce, octets } => {
                assert_eq!(to.port(), 4342);
                auth::verify(&octets, KEY, lisp::Policy::strict()).unwrap();
                let notify = MapNotify::decode(&octets).unwrap();
                assert_eq!((notify.auth.key_id, notify.xtr), (1, None));
                let told = |r: Record<'_>| {
                    let eid = lisp::Eid::from_wire(r.eid, r.mask_len).unwrap().to_string();
                    assert!(!r.authoritative);
                    (eid, r.ttl, r.action, locators(&r))
                };
                let records = notify.records.iter().map(told).collect();
                notifies.push(Got { to: to.ip(), nonce, records, octets });
            }
            Sent::Reply { .. } | Sent::Smr { .. } => others.push(sent),
            _ => {}
        }
    }
    (notifies, others)
}

/// The one Map-Notify that was sent, and nothing else.
pub(super) fn one(bench: &mut Bench) -> Got {
    let (mut notifies, others) = got(bench);
    assert_eq!((notifies.len(), &others[..]), (1, &[][..]), "{notifies:?}");
    notifies.remove(0)
}

pub(super) fn nothing(bench: &mut Bench) {
    assert_eq!(got(bench), (vec![], vec![]));
}

pub(super) fn ack_with(octets: &[u8], key: &[u8]) -> Vec<u8> {
    let notify = MapNotify::decode(octets).unwrap();
    let auth = Algorithm::HmacSha256.placeholder(1, MacLength::Truncated);
    let ack = MapNotify { kind: NotifyKind::Ack, auth, ..notify };
    let mut out = Vec::new();
    ack.encode(&mut out, EncodeOptions::default()).unwrap();
    auth::sign(&mut out, key, auth::Coverage::WholePayload).unwrap();
    out
}

pub(super) fn from_xtr(bench: &mut Bench, octets: &[u8]) {
    bench.shard.handle_datagram(bench.now, SocketAddr::new(rloc(5).get(), 4342), oracle_ip(), octets);
}

pub(super) fn ack(bench: &mut Bench, got: &Got) {
    from_xtr(bench, &ack_with(&got.octets, KEY));
}

/// Subscribes, is confirmed and acknowledges.
pub(super) fn subscribed(bench: &mut Bench, eid: lisp::Eid, nonce: u64) -> Got {
    Ask::new(eid, nonce).send(bench);
    let confirmation = one(bench);
    assert_eq!(confirmation.nonce, nonce);
    ack(bench, &confirmation);
    assert!(bench.shard.subscriptions.iter().any(|(slot, _)| slot == Slot::standing((nve(5), eid))));
    confirmation
}

pub(super) fn mac_record(n: u8, by: u8) -> Told {
    (host(mac(n)).to_string(), 15, Action::NoAction, at(by))
}

pub(super) fn ip_record(eid: Eid, n: u8) -> Told {
    (host(eid).to_string(), 15, Action::NoAction, at_mac(n))
}

pub(super) fn gone(eid: Eid) -> Told {
    (host(eid).to_string(), 0, Action::NoAction, vec![])
}

/// The Map-Reply about a prefix: its nonce, TTL and action.
pub(super) fn denied(bench: &mut Bench) -> (u64, u32, Action) {
    let mut octets = Vec::new();
    let transmit = bench.shard.poll_transmit(&mut octets).unwrap();
    assert!(matches!(transmit, Transmit::Udp { dst, .. } if dst == SocketAddr::new(rloc(5).get(), 5555)));
    let Ok(Message::MapReply(reply)) = Message::decode(&octets) else { panic!() };
    let record = reply.records.first().unwrap();
    assert!(record.locators.is_empty());
    (reply.nonce, record.ttl, record.action)
}

pub(super) fn refusals(bench: &mut Bench) -> Vec<NotSubscribed> {
    let events = bench.events().into_iter();
    events
        .filter_map(|event| match event {
            Event::NotSubscribed { reason, .. } => Some(reason),
            _ => None,
        })
        .collect()
}

#[test]
fn n7_a_subscription_is_confirmed_with_the_record_and_every_change_is_published() {
    for eid in [ip4(1), ip6(1), mac(1)] {
        let mut bench = bench();
        let there = |by: u8| match eid {
            Eid::Mac(_) => vec![mac_record(1, by)],
            Eid::Ip(_) => vec![ip_record(eid, 1), mac_record(1, by)],
        };
        Ask::new(host(eid), 41).send(&mut bench);
        let confirmation = one(&mut bench);
        assert_eq!(
            (confirmation.nonce, confirmation.to),
            (41, rloc(5).get()),
            "the family that was asked by"
        );
        assert_eq!(confirmation.records, there(1));
        assert_eq!(bench.events(), [], "nothing is saved before the key's owner has said so");
        ack(&mut bench, &confirmation);
        let saved = Event::SaveSubscriptionNonce { xtr: nve(5), eid: host(eid), nonce: Some(41) };
        assert_eq!(bench.events(), [saved]);
        nothing(&mut bench);

        bench.withdraw(10, 1, 1, 1);
        let withdrawal = one(&mut bench);
        let mut records = vec![gone(eid)];
        if eid != mac(1) {
            // Where its MAC is was told with it.
            records.push(gone(mac(1)));
        }
        assert_eq!((withdrawal.nonce, &withdrawal.records), (42, &records));
        ack(&mut bench, &withdrawal);
        bench.register(10, 1, 1, 1, ACTIVE);
        let back = one(&mut bench);
        assert_eq!((back.nonce, &back.records), (43, &there(1)));
        ack(&mut bench, &back);
        let mut taken = grant(1, 1, 2);
        taken.epoch = Epoch::new(2).unwrap();
        bench.fact(Fact::Grant(taken));
        let moved = one(&mut bench);
        assert_eq!((moved.nonce, &moved.records), (44, &there(2)));
        ack(&mut bench, &moved);
        bench.register(20, 2, 1, 1, ACTIVE);
        nothing(&mut bench);
        let counters = bench.shard.counters();
        assert_eq!((counters.pubsub_subscribed, counters.pubsub_notifies, counters.pubsub_acks), (1, 4, 4));
        assert_eq!((counters.smrs, counters.pubsub_retransmitted), (0, 0));
    }
}

#[test]
fn n11_an_unknown_address_is_confirmed_empty_and_waited_for_15_minutes() {
    let mut bench = bench();
    let empty = vec![(host(ip4(7)).to_string(), 1, Action::Drop, vec![])];
    assert_eq!(subscribed(&mut bench, host(ip4(7)), 5).records, empty);
    bench.pass(Duration::from_secs(899));
    nothing(&mut bench);
    // It is granted and registered: the subscription stays for good.
    bench.grant(1, 7, 1);
    let first = one(&mut bench);
    assert_eq!((first.nonce, &first.records), (6, &vec![ip_record(ip4(7), 7), mac_record(7, 1)]));
    ack(&mut bench, &first);
    bench.register(10, 1, 1, 7, ACTIVE);
    nothing(&mut bench);
    bench.pass(Duration::from_secs(10_000));
    assert_eq!(bench.shard.subscriptions.len(), 1);
    // Another one is nobody's to the end, and the xTR is told.
    subscribed(&mut bench, host(ip4(8)), 1);
    bench.events();
    bench.pass(Duration::from_secs(900));
    let last = one(&mut bench);
    assert_eq!(last.nonce, 1);
    assert_eq!(last.records, [(host(ip4(8)).to_string(), 0, Action::DropAuthFailure, vec![])]);
    assert_eq!(refusals(&mut bench), [NotSubscribed::Expired]);
    assert_eq!(bench.shard.subscriptions.len(), 1);
    assert!(bench.shard.timers.iter().all(|(_, t)| !matches!(t, Timer::Temporary(..) | Timer::Unacked(..))));
    // Whoever can be nobody's is not waited for.
    Ask::new(lisp::Eid::host(1, std::net::Ipv4Addr::BROADCAST), 1).send(&mut bench);
    assert_eq!(denied(&mut bench), (1, 15, Action::Drop));
}

#[test]
fn n7_a_whole_vn_is_told_by_publications_of_bounded_size() {
    let mut bench = bench();
    bench.fact(Fact::Grant(grant(2, 9, 1)));
    for n in 2..=60 {
        bench.grant(1, n, 1);
        bench.register(10, 1, 1, n, ACTIVE);
    }
    bench.withdraw(10, 1, 1, 60);
    bench.sent();
    Ask::new(all_v4(), 100).send(&mut bench);
    let confirmation = one(&mut bench);
    let text = all_v4().to_string();
    assert_eq!(text, "[1] 0.0.0.0/0");
    assert_eq!(confirmation.records, [(text, 15, Action::SendMapRequest, vec![])]);
    // What comes before the Ack is the snapshot's.
    bench.register(10, 1, 1, 60, ACTIVE);
    nothing(&mut bench);
    ack(&mut bench, &confirmation);
    let (mut nonce, mut told) = (100, BTreeSet::new());
    loop {
        let (mut notifies, others) = got(&mut bench);
        assert_eq!(others, []);
        let Some(notify) = notifies.pop() else { break };
        assert!(notifies.is_empty(), "one at a time");
        nonce += 1;
        assert_eq!(notify.nonce, nonce);
        assert!(notify.octets.len() <= 1_400, "{}", notify.octets.len());
        for pair in notify.records.chunks(2) {
            assert_eq!((pair[0].2, pair[1].3.clone()), (Action::NoAction, at(1)), "R2 and R1");
            assert!(told.insert(pair[0].0.clone()));
        }
        ack(&mut bench, &notify);
    }
    let wanted: BTreeSet<String> = (1..=60).map(|n| host(ip4(n)).to_string()).collect();
    assert_eq!(told, wanted);
    assert!(nonce > 102, "more than one message");
    // From now on changes, of IPv4 addresses alone.
    bench.withdraw(10, 1, 1, 60);
    let change = one(&mut bench);
    assert_eq!(change.records, [gone(ip4(60)), gone(mac(60))]);
}

#[test]
fn n7_macs_and_ipv6_addresses_of_a_whole_vn() {
    for (prefix, eid) in [(all([0; 6]), mac(1)), (all(std::net::Ipv6Addr::UNSPECIFIED), ip6(1))] {
        let mut bench = bench();
        subscribed(&mut bench, prefix, 1);
        let snapshot = one(&mut bench);
        assert_eq!(snapshot.records[0].0, host(eid).to_string());
        ack(&mut bench, &snapshot);
        bench.grant(1, 2, 2);
        bench.register(20, 2, 1, 2, ACTIVE);
        assert_eq!(one(&mut bench).records.last(), Some(&mac_record(2, 2)));
    }
}

#[test]
fn n8_one_map_notify_is_under_way_and_what_changes_meanwhile_becomes_one() {
    let mut bench = bench();
    subscribed(&mut bench, host(mac(1)), 1);
    bench.withdraw(10, 1, 1, 1);
    let first = one(&mut bench);
    for _ in 0..5 {
        bench.register(10, 1, 1, 1, ACTIVE);
        bench.withdraw(10, 1, 1, 1);
    }
    bench.register(10, 1, 1, 1, ACTIVE);
    nothing(&mut bench);
    assert_eq!(bench.shard.counters().pubsub_coalesced, 10);
    ack(&mut bench, &first);
    let second = one(&mut bench);
    assert_eq!((second.nonce, &second.records), (3, &vec![mac_record(1, 1)]));
    // An old Ack, however often, changes nothing.
    let before = bench.shard.clone();
    for _ in 0..3 {
        ack(&mut bench, &first);
    }
    assert!(bench.shard == before);
    nothing(&mut bench);
    ack(&mut bench, &second);
    ack(&mut bench, &second);
    nothing(&mut bench);
    let counters = bench.shard.counters();
    assert_eq!((counters.pubsub_acks, counters.pubsub_acks_unmatched), (3, 4));
}

#[test]
fn n8_what_is_not_acknowledged_is_sent_again_then_given_up_with_a_word() {
    let mut bench = bench();
    subscribed(&mut bench, host(mac(1)), 1);
    bench.events();
    bench.withdraw(10, 1, 1, 1);
    let first = one(&mut bench);
    assert_eq!(first.to, rloc(5).get());
    // RFC 9301 section 5.7: three times after 3 s, then after 6, 12 and 24 s.
    for (turn, wait) in [3, 3, 3, 6, 12, 24].into_iter().enumerate() {
        bench.pass(Duration::from_secs(wait) - Duration::from_millis(1));
        nothing(&mut bench);
        bench.pass(Duration::from_millis(1));
        let again = one(&mut bench);
        assert_eq!(again.octets, first.octets);
        assert_eq!(again.to, [rloc6(5).get(), rloc(5).get()][turn % 2], "each of its RLOCs in turn");
    }
    bench.register(10, 1, 1, 1, ACTIVE);
    nothing(&mut bench);
    bench.pass(Duration::from_secs(48));
    let last = one(&mut bench);
    assert_eq!((last.nonce, last.to), (2, rloc(5).get()));
    assert_eq!(last.records, [(host(mac(1)).to_string(), 0, Action::DropAuthFailure, vec![])]);
    assert_eq!(refusals(&mut bench), [NotSubscribed::Unacknowledged { sent: 7 }]);
    bench.pass(Duration::from_secs(1_000));
    nothing(&mut bench);
    assert!(bench.shard.subscriptions.is_empty());
    // Nonce 2 was never acknowledged: the xTR may not have seen it, and goes on with it.
    assert_eq!(subscribed(&mut bench, host(mac(1)), 2).records, [mac_record(1, 1)]);
}

#[test]
fn n8_an_xtr_that_is_subscribed_is_not_solicited_and_one_that_asked_is() {
    let mut bench = bench();
    subscribed(&mut bench, host(ip4(1)), 1);
    let mut ask = Ask::new(host(ip6(1)), 9);
    ask.notify = false;
    ask.send(&mut bench);
    assert!(matches!(got(&mut bench).1[..], [Sent::Reply { .. }]), "without the N bit: a Map-Reply");
    ask.eids = vec![host(ip4(1))];
    ask.send(&mut bench);
    got(&mut bench);
    bench.withdraw(10, 1, 1, 1);
    bench.pass(Duration::ZERO);
    let (notifies, smrs) = got(&mut bench);
    assert_eq!(notifies.len(), 1);
    let to = SocketAddr::new(rloc(5).get(), 4342);
    let smr = |changed| Sent::Smr { to, changed };
    assert_eq!(smrs, [smr(mac(1)), smr(ip6(1))]);
}

#[test]
fn n7_who_leaves_is_told_so_and_then_no_more() {
    let mut bench = bench();
    subscribed(&mut bench, host(ip4(1)), 1);
    let leave = |eid, nonce| Ask { itr_rlocs: Vec::new(), ..Ask::new(eid, nonce) };
    leave(host(ip4(1)), 2).send(&mut bench);
    let over = one(&mut bench);
    assert_eq!((over.nonce, over.to), (2, rloc(5).get()), "to where it came from");
    assert_eq!(over.records, [gone(ip4(1))]);
    ack(&mut bench, &over);
    assert!(bench.shard.subscriptions.is_empty());
    bench.withdraw(10, 1, 1, 1);
    bench.register(10, 1, 1, 1, ACTIVE);
    nothing(&mut bench);
    // The old Map-Requests do not count any more; without the N bit it is no such request at all.
    for nonce in [1, 2] {
        Ask::new(host(ip4(1)), nonce).send(&mut bench);
    }
    let mut bare = leave(host(ip4(1)), 3);
    bare.notify = false;
    bare.send(&mut bench);
    nothing(&mut bench);
    let counters = bench.shard.counters();
    assert_eq!((counters.pubsub_replayed, counters.requests_foreign_itr_rloc), (2, 1));
    subscribed(&mut bench, host(ip4(1)), 3);
}

#[test]
fn n7_a_part_of_a_whole_vn_is_left_until_it_is_subscribed_to() {
    let mut bench = bench();
    bench.grant(1, 2, 1);
    subscribed(&mut bench, all([0; 6]), 1);
    let snapshot = one(&mut bench);
    ack(&mut bench, &snapshot);
    Ask { itr_rlocs: Vec::new(), ..Ask::new(host(mac(1)), 7) }.send(&mut bench);
    let over = one(&mut bench);
    ack(&mut bench, &over);
    bench.withdraw(10, 1, 1, 1);
    nothing(&mut bench);
    bench.register(10, 1, 1, 2, ASSOCIATED);
    assert_eq!(one(&mut bench).records.len(), 1);
    subscribed(&mut bench, host(mac(1)), 8);
    bench.register(10, 1, 1, 1, ACTIVE);
    let change = one(&mut bench);
    assert_eq!(
        (change.nonce, &change.records),
        (9, &vec![mac_record(1, 1)]),
        "by its own subscription alone"
    );
    Ask { itr_rlocs: Vec::new(), ..Ask::new(all([0; 6]), 70) }.send(&mut bench);
    let over = one(&mut bench);
    ack(&mut bench, &over);
    assert_eq!(bench.shard.subscriptions.len(), 1);
}

#[test]
fn n7_strangers_and_wrong_keys_change_nothing() {
    let mut bench = bench();
    let confirmation = subscribed(&mut bench, host(mac(1)), 9);
    let nonces =
        |bench: &Bench| bench.shard.subscriptions.get(Slot::standing((nve(5), host(mac(1))))).cloned();
    let before = nonces(&bench);
    let ask = |change: &dyn Fn(&mut Ask)| {
        let mut ask = Ask::new(host(mac(1)), 10);
        change(&mut ask);
        ask
    };
    // A stranger; RLOCs that are not its own; a nonce used before; a VN that is not its own.
    ask(&|ask| ask.from = "198.51.100.1".parse().unwrap()).send(&mut bench);
    ask(&|ask| ask.itr_rlocs.push(rloc(1).get())).send(&mut bench);
    ask(&|ask| ask.nonce = 9).send(&mut bench);
    ask(&|ask| ask.eids = vec![lisp::Eid::host(2, [2, 0, 0, 0, 0, 1])]).send(&mut bench);
    nothing(&mut bench);
    let counters = bench.shard.counters();
    assert_eq!(
        (counters.requests_from_strangers, counters.requests_foreign_itr_rloc, counters.requests_foreign_vn),
        (1, 1, 1)
    );
    assert_eq!(counters.pubsub_replayed, 1);
    assert_eq!(refusals(&mut bench), [NotSubscribed::Replayed { nonce: 9, last: 9 }]);
    // Another's name: RFC 9437 has a word for that.
    ask(&|ask| ask.xtr = Some(lisp::Xtr { xtr_id: nve(6).0, site_id: 9 })).send(&mut bench);
    ask(&|ask| ask.xtr = Some(lisp::Xtr { xtr_id: nve(5).0, site_id: 8 })).send(&mut bench);
    let (notifies, replies) = got(&mut bench);
    assert_eq!(notifies, []);
    for reply in replies {
        let Sent::Reply { records, .. } = reply else { panic!("{reply:?}") };
        assert_eq!(records, [(mac(1), 1, Action::DropAuthFailure, vec![])]);
    }
    // Without the I bit there is a Map-Reply, and so there is for NVEs, which have no key.
    ask(&|ask| ask.xtr = None).send(&mut bench);
    ask(&|ask| {
        ask.from = rloc(2).get();
        ask.itr_rlocs = vec![rloc(2).get()];
        ask.xtr = Some(lisp::Xtr { xtr_id: nve(2).0, site_id: 0 });
        ask.eids = vec![host(ip4(1))];
    })
    .send(&mut bench);
    assert!(matches!(got(&mut bench), (none, replies) if none.is_empty() && replies.len() == 1));
    assert_eq!(nonces(&bench), before);
    // Acks: by another key, from elsewhere, tampered with; then the right one.
    bench.withdraw(10, 1, 1, 1);
    let change = one(&mut bench);
    let before = bench.shard.clone();
    from_xtr(&mut bench, &ack_with(&change.octets, b"another, for registrations"));
    let good = ack_with(&change.octets, KEY);
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    from_xtr(&mut bench, &bad);
    bench.shard.handle_datagram(bench.now, "198.51.100.1:4342".parse().unwrap(), oracle_ip(), &good);
    from_xtr(&mut bench, &good[..good.len() - 1]);
    ack(&mut bench, &confirmation);
    assert!(bench.shard == before);
    let counters = bench.shard.counters();
    assert_eq!((counters.pubsub_bad_auth, counters.pubsub_acks_unmatched), (3, 1));
    from_xtr(&mut bench, &good);
    assert_eq!(bench.shard.counters().pubsub_acks, 2);
}

#[test]
fn n7_replies_of_others_are_not_published() {
    let mut bench = bench();
    let forward = || VnSpec { reply: weft_model::Reply::Forward, ..spec(1) };
    subscribed(&mut bench, host(mac(1)), 1);
    bench.events();
    bench.fact(Fact::Vn(forward()));
    let last = one(&mut bench);
    assert_eq!(last.records[0].2, Action::DropAuthFailure);
    assert_eq!(refusals(&mut bench), [NotSubscribed::Forwarded]);
    assert!(bench.shard.subscriptions.is_empty());
    // An address is asked for as ever (RFC 9301 section 8.3): its NVE answers. A prefix is denied.
    Ask::new(host(mac(1)), 2).send(&mut bench);
    let mut octets = Vec::new();
    let transmit = bench.shard.poll_transmit(&mut octets).unwrap();
    assert!(matches!(transmit, Transmit::Udp { dst, .. } if dst.ip() == rloc(1).get()));
    assert!(matches!(Message::decode(&octets), Ok(Message::Ecm(_))));
    Ask::new(all([0; 6]), 3).send(&mut bench);
    assert_eq!(denied(&mut bench), (3, 1, Action::DropPolicyDenied));
    assert_eq!(refusals(&mut bench), [NotSubscribed::Forwarded, NotSubscribed::Forwarded]);
    bench.fact(Fact::Vn(spec(1)));
    subscribed(&mut bench, host(mac(1)), 4);
}

#[test]
fn n7_limits_down_to_one() {
    let one_each = Limits {
        subscriptions_per_xtr: 1,
        subscription_nonces_per_xtr: 1,
        changes_per_subscription: 1,
        notify_octets: 1,
        notifies_per_turn: 1,
        ..Limits::default()
    };
    let mut bench = with(one_each);
    bench.grant(1, 2, 1);
    bench.register(10, 1, 1, 2, ACTIVE);
    bench.sent();
    subscribed(&mut bench, all([0; 6]), 1);
    bench.events();
    // The snapshot: one address a message, one message a turn.
    let piece = one(&mut bench);
    assert_eq!(piece.records, [mac_record(1, 1)]);
    ack(&mut bench, &piece);
    nothing(&mut bench);
    Ask::new(host(mac(2)), 1).send(&mut bench);
    assert!(matches!(&got(&mut bench).1[..], [Sent::Reply { .. }]), "as if it had no N bit");
    Ask::new(all_v4(), 1).send(&mut bench);
    assert_eq!(denied(&mut bench), (1, 1, Action::DropPolicyDenied));
    assert_eq!(refusals(&mut bench), [NotSubscribed::Full { count: 1 }, NotSubscribed::Full { count: 1 }]);
    bench.pass(Duration::from_millis(1));
    let piece = one(&mut bench);
    assert_eq!(piece.records, [mac_record(2, 1)]);
    ack(&mut bench, &piece);
    bench.pass(Duration::from_millis(1));
    nothing(&mut bench);
    // One change under way, two wait, as an address may take. A third is left to the snapshot, which begins anew; a
    // third withdrawal is more than is kept, and nothing is lost in silence.
    for n in [1, 2] {
        bench.withdraw(10, 1, 1, n);
    }
    bench.pass(Duration::from_millis(1));
    assert_eq!(one(&mut bench).records, [gone(mac(1))]);
    bench.register(10, 1, 1, 1, ACTIVE);
    nothing(&mut bench);
    bench.grant(1, 3, 1);
    nothing(&mut bench);
    assert_eq!(refusals(&mut bench), []);
    bench.fact(Fact::GrantGone(tsi(1, 3)));
    nothing(&mut bench);
    bench.withdraw(10, 1, 1, 1);
    assert_eq!(one(&mut bench).records[0].2, Action::DropAuthFailure);
    assert_eq!(refusals(&mut bench), [NotSubscribed::Overrun { changes: 3 }]);
    assert!(bench.shard.subscriptions.is_empty());
    // Of the nonces kept one makes room for another.
    subscribed(&mut bench, host(mac(2)), 1);
    let saved = |eid, nonce| Event::SaveSubscriptionNonce { xtr: nve(5), eid, nonce };
    let events = bench.events();
    assert!(events.contains(&saved(host(mac(2)), Some(1))) && events.contains(&saved(all([0; 6]), None)));
}

#[test]
fn n7_nonces_count_beyond_a_restart_and_the_last_nonce_ends_a_subscription() {
    let mut bench = Bench::new(1);
    bench.fact(Fact::Xtr(xtr_fact(&[(host(mac(1)), 50), (host(mac(2)), 60)])));
    bench.grant(1, 1, 1);
    Ask::new(host(mac(1)), 50).send(&mut bench);
    nothing(&mut bench);
    subscribed(&mut bench, host(mac(1)), 51);
    let last = u64::MAX - (1 << 32);
    subscribed(&mut bench, host(mac(2)), last);
    bench.events();
    // As after as many publications.
    let slot = Slot::standing((nve(5), host(mac(2))));
    bench.shard.subscriptions.get_mut(slot).unwrap().nonce = u64::MAX;
    bench.grant(1, 2, 1);
    assert_eq!(one(&mut bench).records[0].2, Action::DropAuthFailure);
    assert_eq!(refusals(&mut bench), [NotSubscribed::NoncesUsedUp]);
}

#[test]
fn n7_a_subscription_ends_with_its_xtr_its_vn_its_rlocs_or_its_key() {
    let changed = |change: &dyn Fn(&mut XtrFact)| {
        let mut fact = xtr_fact(&[]);
        change(&mut fact);
        Fact::Xtr(fact)
    };
    for (fact, told) in [
        (Fact::NveGone(nve(5)), 0),
        (Fact::VnGone(vni(1)), 1),
        (changed(&|fact| fact.vnis.clear()), 1),
        (changed(&|fact| fact.rlocs.truncate(1)), 1),
        (changed(&|fact| fact.pubsub_key = None), 0),
        (changed(&|_| ()), 2),
    ] {
        let mut bench = bench();
        subscribed(&mut bench, host(mac(1)), 1);
        let text = format!("{fact:?}");
        bench.fact(fact);
        let (notifies, _) = got(&mut bench);
        assert_eq!(notifies.len(), told % 2, "{text}");
        assert_eq!(bench.shard.subscriptions.is_empty(), told < 2, "{text}");
        bench.pass(Duration::from_secs(1_000));
        assert_eq!(got(&mut bench).0, []);
    }
}

#[test]
fn n7_a_subscription_that_is_asked_for_again_forgets_no_withdrawal() {
    let mut bench = bench();
    subscribed(&mut bench, all([0; 6]), 1);
    let snapshot = one(&mut bench);
    ack(&mut bench, &snapshot);
    bench.withdraw(10, 1, 1, 1);
    let lost = one(&mut bench);
    assert_eq!(lost.nonce, 3);
    // What is under way answers a Map-Request with its nonce, and an Ack of it is not one of the next.
    Ask::new(all([0; 6]), 3).send(&mut bench);
    nothing(&mut bench);
    Ask::new(all([0; 6]), 4).send(&mut bench);
    let confirmation = one(&mut bench);
    ack(&mut bench, &lost);
    nothing(&mut bench);
    ack(&mut bench, &confirmation);
    let change = one(&mut bench);
    assert_eq!((change.nonce, &change.records), (5, &vec![gone(mac(1))]));
}

#[test]
fn n7_a_map_request_that_is_overtaken_does_not_count() {
    let mut bench = bench();
    Ask::new(host(mac(1)), 8).send(&mut bench);
    let newer = one(&mut bench);
    Ask::new(host(mac(1)), 7).send(&mut bench);
    nothing(&mut bench);
    assert_eq!(refusals(&mut bench), [NotSubscribed::Replayed { nonce: 7, last: 8 }]);
    // The same once more is confirmed again, at once.
    Ask::new(host(mac(1)), 8).send(&mut bench);
    assert_eq!(one(&mut bench).octets, newer.octets);
    // Nobody acknowledges it: then somebody else may have sent it, and it does not count either.
    bench.pass(Duration::from_secs(100));
    got(&mut bench);
    subscribed(&mut bench, host(mac(1)), 7);
}

#[test]
fn n8_an_address_that_wanders_from_mac_to_mac_is_told_in_messages_that_fit() {
    let mut bench = bench();
    subscribed(&mut bench, host(ip4(1)), 1);
    let give = |bench: &mut Bench, n: u8| {
        let mut new = grant(1, n, 1);
        new.ips = BTreeSet::from([tenant_ip(ip4(1))]);
        bench.fact(Fact::Grant(new));
        bench.fact(Fact::GrantGone(tsi(1, n)));
    };
    bench.fact(Fact::GrantGone(tsi(1, 1)));
    let mut notify = one(&mut bench);
    for n in 2..200 {
        give(&mut bench, n);
    }
    let mut told = BTreeSet::new();
    loop {
        assert_eq!(notify.records[0], gone(ip4(1)), "what it is about comes first");
        assert!(notify.octets.len() <= 1_400 && notify.records.len() > 1, "{}", notify.octets.len());
        told.extend(notify.records.iter().skip(1).map(|record| record.0.clone()));
        ack(&mut bench, &notify);
        let (mut more, _) = got(&mut bench);
        let Some(next) = more.pop() else { break };
        notify = next;
    }
    assert_eq!(told, (1..200).map(|n| host(mac(n)).to_string()).collect());
}

#[test]
fn n7_several_prefixes_of_one_map_request_and_two_shards() {
    let mut bench = bench();
    let mut ask = Ask::new(host(ip4(1)), 7);
    ask.eids.extend([host(mac(1)), all_v4()]);
    ask.send(&mut bench);
    let (notifies, others) = got(&mut bench);
    assert_eq!((notifies.len(), others), (3, vec![]));
    assert!(notifies.iter().all(|notify| notify.nonce == 7));
    // Of two with the same nonce each Ack is known by what it is about.
    for notify in notifies.iter().rev() {
        ack(&mut bench, notify);
    }
    let active = bench.shard.nodes(bench.now).find(|node| node.xtr_id == nve(5)).unwrap().subscriptions;
    assert_eq!((bench.shard.counters().pubsub_acks, active), (3, 3));
    assert_eq!(owner(&ack_with(&notifies[0].octets, KEY), 7), Owner::One(shard_of(1, 7)));
}
