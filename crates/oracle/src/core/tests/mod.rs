//! Behaviour of the core, by requirement id, on a small bench: a shard, honest messages, decoded outputs.

mod ending;
mod forward;
mod group_room;
mod groups;
mod liveness;
mod members;
mod notify;
mod properties;
mod pubsub;
mod pubsub_forged;
mod pubsub_loss;
mod pubsub_many;
mod push;
mod register;
mod resolve;
mod xtr;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use weft_lisp as lisp;
use weft_lisp::tcp::{
    Body, Frame, FrameDecoder, Group, GroupEvent, Membership, MembershipEvent, RejectReason, Signal,
};
use weft_lisp::{
    Action, Ecm, EcmHeader, EidRecord, EncodeOptions, MapRegister, MapReply, MapRequest, Message, Record,
};
use weft_model::{
    Eid, Epoch, Grant, MacAddr, Name, Rloc, Subnets, Successor, TenantIp, Time, TsMac, TsiId, VnSpec, Vni,
    XtrId,
};

use super::*;

/// A record of a Map-Reply: EID, TTL, ACT, locators.
pub(super) type Answered = (Eid, u32, Action, Vec<String>);

/// What the bench read from the shard's transmissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// On a session: a Mapping Notification.
    Notify {
        session: u64,
        eid: Eid,
        vni: u32,
        ttl: u32,
        rlocs: Vec<String>,
        version: u16,
    },
    Ack {
        session: u64,
        id: u32,
    },
    Reject {
        session: u64,
        id: u32,
        reason: RejectReason,
    },
    Refresh {
        session: u64,
    },
    Digest {
        session: u64,
        vni: u32,
        count: u32,
        digest: u64,
    },
    Hello {
        session: u64,
    },
    Complaint {
        session: u64,
    },
    /// A signal of a subscription to mappings, with its frame's ID.
    Mappings {
        session: u64,
        id: u32,
        signal: Signal,
    },
    Membership {
        session: u64,
        vni: u32,
        event: MembershipEvent,
    },
    Group {
        session: u64,
        vni: u32,
        event: GroupEvent,
    },
    /// A Map-Reply: its records as (EID, TTL, action, locators).
    Reply {
        to: SocketAddr,
        nonce: u64,
        records: Vec<Answered>,
    },
    /// An SMR: what changed, and what it is about there.
    Smr {
        to: SocketAddr,
        changed: Eid,
    },
    /// A Map-Notify over UDP, its octets.
    MapNotify {
        to: SocketAddr,
        nonce: u64,
        octets: Vec<u8>,
    },
    Echo {
        rloc: String,
        nonce: u64,
    },
}

pub(super) struct Bench {
    pub shard: Shard,
    pub now: Time,
    next_id: u32,
    nonce: u64,
    /// The NVEs whose echo the bench answers as time passes.
    pub answering: BTreeSet<u8>,
    /// What else was sent meanwhile.
    kept: Vec<Sent>,
}

pub(super) fn vni(n: u32) -> Vni {
    Vni::new(n).unwrap()
}

/// Its halves differ, as those of random ones do.
pub(super) fn nve(n: u8) -> XtrId {
    let mut id = [n; 16];
    id[15] = 0;
    XtrId(id)
}

pub(super) fn rloc(n: u8) -> Rloc {
    format!("192.0.2.{n}").parse().unwrap()
}

pub(super) fn rloc6(n: u8) -> Rloc {
    format!("2001:db8::{n}").parse().unwrap()
}

pub(super) fn mac(n: u8) -> Eid {
    Eid::Mac(MacAddr([2, 0, 0, 0, 0, n]))
}

pub(super) fn ip4(n: u8) -> Eid {
    Eid::Ip(format!("10.0.0.{n}").parse().unwrap())
}

pub(super) fn ip6(n: u8) -> Eid {
    Eid::Ip(format!("fd00::{n:x}").parse().unwrap())
}

pub(super) fn tsi(vn: u32, n: u8) -> TsiId {
    TsiId { vni: vni(vn), name: Name::new(format!("ts{n}")).unwrap() }
}

/// TSI `n` of VN `vn`: MAC, IPv4 and IPv6 address all end in `n`.
pub(super) fn grant(vn: u32, n: u8, owner: u8) -> Grant {
    let ips = [ip4(n), ip6(n)].map(|eid| match eid {
        Eid::Ip(ip) => ip,
        Eid::Mac(_) => unreachable!(),
    });
    Grant {
        tsi: tsi(vn, n),
        mac: TsMac::new(MacAddr([2, 0, 0, 0, 0, n])).unwrap(),
        ips: BTreeSet::from(ips),
        groups: BTreeSet::new(),
        tunnel: Default::default(),
        owner: nve(owner),
        epoch: Epoch::FIRST,
        next: None,
    }
}

pub(super) fn spec(vn: u32) -> VnSpec {
    VnSpec {
        name: Name::new(format!("vn{vn}")).unwrap(),
        vni: vni(vn),
        subnets: Subnets::new(vec!["10.0.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()]).unwrap(),
        learning: weft_model::Learning::Oracle,
        reply: weft_model::Reply::Proxy,
        bum: weft_model::Bum::Drop,
        storm: Default::default(),
        miss: Default::default(),
        gateway: None,
        default_groups: BTreeSet::new(),
        log_refused: false,
        tunnel: Default::default(),
    }
}

pub(super) fn oracle_ip() -> IpAddr {
    "192.0.2.250".parse().unwrap()
}

/// Priority of a registration's MAC record.
pub(super) const ACTIVE: u8 = 1;
pub(super) const ASSOCIATED: u8 = 255;

impl Bench {
    /// VNs 1 and 2; NVEs 1 to `nves`, each with an IPv4 and an IPv6 RLOC; no grants; facts loaded; no
    /// patience.
    pub fn new(nves: u8) -> Self {
        let timing = Timing { patience: Duration::ZERO, ..Timing::default() };
        Self::with(nves, ShardConfig { timing, ..ShardConfig::default() })
    }

    pub fn of(shard: Shard) -> Self {
        let (answering, kept) = (BTreeSet::new(), Vec::new());
        Self { shard, now: Time::from_secs(1), next_id: 0, nonce: 0, answering, kept }
    }

    pub fn with(nves: u8, config: ShardConfig) -> Self {
        let mut bench = Self::of(Shard::new(config, Time::default()));
        bench.fact(Fact::Vn(spec(1)));
        bench.fact(Fact::Vn(spec(2)));
        for n in 1..=nves {
            bench.enroll(n);
        }
        bench.fact(Fact::FactsLoaded);
        bench.events();
        bench
    }

    pub fn enroll(&mut self, n: u8) {
        let name = Name::new(format!("host{n}")).unwrap();
        self.fact(Fact::Nve(NveFact { xtr_id: nve(n), name, rlocs: vec![rloc(n), rloc6(n)] }));
    }

    pub fn fact(&mut self, fact: Fact) {
        self.shard.handle_fact(self.now, fact);
    }

    pub fn grant(&mut self, vn: u32, n: u8, owner: u8) {
        self.fact(Fact::Grant(grant(vn, n, owner)));
    }

    /// Brings up session `session` of NVE `n`; takes the hello.
    pub fn up(&mut self, session: u64, n: u8) {
        let event = SessionEvent::Up { session: SessionId(session), xtr_id: nve(n) };
        self.shard.handle_session(self.now, event);
        let sent = self.sent();
        assert!(sent.contains(&Sent::Hello { session }), "{sent:?}");
        if !self.answering.is_empty() {
            self.answering.insert(n);
        }
        for sent in sent {
            if let Sent::Echo { rloc, nonce } = sent
                && self.answers(&rloc)
            {
                self.shard.handle_echo_reply(self.now, rloc.parse().unwrap(), nonce);
            }
        }
        self.signal(session, Signal::Hello { version: 1, boot_id: 1 });
    }

    /// A host that has answered so far dies, if its session has its number.
    pub fn down(&mut self, session: u64) {
        self.answering.retain(|n| u64::from(*n) != session);
        self.shard.handle_session(
            self.now,
            SessionEvent::Down { session: SessionId(session), silent: Duration::ZERO },
        );
    }

    pub fn signal(&mut self, session: u64, signal: Signal) {
        let mut octets = Vec::new();
        Body::Signal(signal).encode(1, &mut octets, EncodeOptions::default()).unwrap();
        self.octets(session, &octets);
    }

    /// A membership frame of an NVE, with ID 7.
    pub fn membership(&mut self, session: u64, vn: u32, event: MembershipEvent) {
        let mut octets = Vec::new();
        let frame = Body::Membership(Membership { eid_afi: 0, iid: vn, event });
        frame.encode(7, &mut octets, EncodeOptions::default()).unwrap();
        self.octets(session, &octets);
    }

    /// A group frame of an NVE.
    pub fn group(&mut self, session: u64, vn: u32, event: GroupEvent) {
        let mut octets = Vec::new();
        Body::Group(Group { vni: vn, event }).encode(1, &mut octets, EncodeOptions::default()).unwrap();
        self.octets(session, &octets);
    }

    /// Gives the shard the frames in `octets`.
    pub fn octets(&mut self, session: u64, octets: &[u8]) {
        let mut decoder = FrameDecoder::default();
        decoder.push(octets);
        while let Some(frame) = decoder.next_frame().unwrap() {
            self.frame(session, frame);
        }
    }

    pub fn frame(&mut self, session: u64, frame: Frame<'_>) {
        let event = SessionEvent::Frame { session: SessionId(session), frame };
        self.shard.handle_session(self.now, event);
    }

    /// Registers TSI `n` of VN `vn` as NVE `by` does; returns the frame's ID.
    pub fn register(&mut self, session: u64, by: u8, vn: u32, n: u8, priority: u8) -> u32 {
        let ips = if priority == ACTIVE { vec![ip4(n), ip6(n)] } else { Vec::new() };
        self.register_eids(session, by, vn, n, priority, &ips, 0xffff_ffff)
    }

    pub fn withdraw(&mut self, session: u64, by: u8, vn: u32, n: u8) -> u32 {
        self.register_eids(session, by, vn, n, ASSOCIATED, &[ip4(n), ip6(n)], 0)
    }

    #[allow(clippy::too_many_arguments)]
    pub fn register_eids(
        &mut self,
        session: u64,
        by: u8,
        vn: u32,
        n: u8,
        priority: u8,
        ips: &[Eid],
        ttl: u32,
    ) -> u32 {
        let six = lisp::Locator { weight: 0, ..lisp::Locator::new(rloc6(by).get(), priority) };
        let rlocs = [lisp::Locator::new(rloc(by).get(), priority), six];
        let Eid::Mac(octets) = mac(n) else { unreachable!() };
        let owner = [lisp::Locator::mac(octets.octets())];
        let mut records = vec![wire_record(vn, mac(n), ttl, &rlocs)];
        records.extend(ips.iter().map(|ip| wire_record(vn, *ip, ttl, &owner)));
        self.register_records(session, by, &records)
    }

    pub fn register_records(&mut self, session: u64, by: u8, records: &[Record<'_>]) -> u32 {
        self.next_id += 1;
        let xtr = Some(lisp::Xtr { xtr_id: nve(by).0, site_id: 0 });
        let register = MapRegister {
            proxy_reply: true,
            want_notify: true,
            records: records.into(),
            xtr,
            ..MapRegister::default()
        };
        let mut octets = Vec::new();
        Body::encode_registration(&register, self.next_id, &mut octets, EncodeOptions::default()).unwrap();
        self.octets(session, &octets);
        self.next_id
    }

    /// Asks as NVE `by`, for TSI `for_ts`; returns the nonce.
    pub fn ask(&mut self, by: u8, vn: u32, wanted: Eid, for_ts: Eid) -> u64 {
        self.nonce += 1;
        let octets = request(by, vn, wanted, Some(for_ts), self.nonce);
        let src = SocketAddr::new(rloc(by).get(), 4342);
        self.shard.handle_datagram(self.now, src, oracle_ip(), &octets);
        self.nonce
    }

    /// Asks and takes the answer.
    pub fn answer(&mut self, by: u8, vn: u32, wanted: Eid) -> Option<Vec<Answered>> {
        let nonce = self.ask(by, vn, wanted, ip4(99));
        self.sent().into_iter().find_map(|sent| match sent {
            Sent::Reply { nonce: n, records, .. } if n == nonce => Some(records),
            _ => None,
        })
    }

    pub fn pass(&mut self, span: Duration) {
        let until = self.now + span;
        while let Some(at) = self.shard.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.shard.handle_timeout(self.now);
            self.answer_echoes();
        }
        self.now = until;
        self.shard.handle_timeout(until);
        self.answer_echoes();
    }

    fn answers(&self, rloc: &str) -> bool {
        self.answering.iter().any(|n| at(*n).iter().any(|at| at.strip_suffix("/1") == Some(rloc)))
    }

    fn answer_echoes(&mut self) {
        if self.answering.is_empty() {
            return;
        }
        for sent in self.fresh() {
            match &sent {
                Sent::Echo { rloc: to, nonce } if self.answers(to) => {
                    self.shard.handle_echo_reply(self.now, to.parse().unwrap(), *nonce);
                }
                _ => self.kept.push(sent),
            }
        }
    }

    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.shard.poll_event()).collect()
    }

    pub fn sent(&mut self) -> Vec<Sent> {
        let mut sent = std::mem::take(&mut self.kept);
        sent.extend(self.fresh());
        sent
    }

    fn fresh(&mut self) -> Vec<Sent> {
        let mut sent = Vec::new();
        let mut octets = Vec::new();
        while let Some(transmit) = self.shard.poll_transmit(&mut octets) {
            match transmit {
                Transmit::Session { id } => read_frames(id.0, &octets, &mut sent),
                Transmit::Udp { dst, .. } => sent.push(read_datagram(dst, &octets)),
                Transmit::Echo { rloc, nonce } => sent.push(Sent::Echo { rloc: rloc.to_string(), nonce }),
            }
        }
        sent
    }

    /// Only the notifications.
    pub fn told(&mut self) -> Vec<(u64, Eid, u32, Vec<String>)> {
        let sent = self.sent().into_iter();
        sent.filter_map(|sent| match sent {
            Sent::Notify { session, eid, ttl, rlocs, .. } => Some((session, eid, ttl, rlocs)),
            _ => None,
        })
        .collect()
    }

    /// The mapping of an EID as operators see it.
    pub fn mapping(&self, vn: u32, eid: Eid) -> Option<MappingView> {
        self.shard.mappings(self.now, Some(vni(vn))).find(|mapping| mapping.eid == eid)
    }
}

pub(super) fn wire_record<'a>(vn: u32, eid: Eid, ttl: u32, locators: &'a [lisp::Locator<'a>]) -> Record<'a> {
    let eid = wire::to_lisp(vni(vn), eid);
    Record {
        ttl,
        mask_len: eid.mask_len(),
        authoritative: true,
        eid: eid.address(),
        locators: locators.into(),
        ..Record::default()
    }
}

/// A Map-Request in an ECM, as NVE `by` sends it from its IPv4 RLOC.
pub(super) fn request(by: u8, vn: u32, wanted: Eid, source: Option<Eid>, nonce: u64) -> Vec<u8> {
    let itr = [lisp::Address::from(rloc(by).get()), lisp::Address::from(rloc6(by).get())];
    request_from(&itr, vn, wanted, source, nonce)
}

pub(super) fn request_from(
    itr_rlocs: &[lisp::Address<'_>],
    vn: u32,
    wanted: Eid,
    source: Option<Eid>,
    nonce: u64,
) -> Vec<u8> {
    let wanted = wire::to_lisp(vni(vn), wanted);
    let records = [EidRecord { notify: false, mask_len: wanted.mask_len(), eid: wanted.address() }];
    let request = MapRequest {
        nonce,
        source_eid: source.map_or(lisp::Address::NoAddress, |s| wire::to_lisp(vni(vn), s).address()),
        itr_rlocs: itr_rlocs.into(),
        records: (&records).into(),
        ..MapRequest::default()
    };
    let header = EcmHeader::Ip {
        source: "192.0.2.1:5555".parse().unwrap(),
        destination: SocketAddr::new(oracle_ip(), 4342),
    };
    let mut octets = Vec::new();
    Ecm::encode_with(&mut octets, false, header, |out| request.encode(out, EncodeOptions::default()))
        .unwrap();
    octets
}

fn flat(eid: lisp::Address<'_>, mask_len: u8) -> (u32, Eid) {
    match wire::from_lisp(eid, mask_len) {
        wire::WireEid::Host(vni, eid) => (vni.get(), eid),
        other => panic!("{other:?}"),
    }
}

fn locators(record: &Record<'_>) -> Vec<String> {
    let text = |l: lisp::Locator<'_>| match l.rloc {
        lisp::Address::Mac(mac) => format!("{}", MacAddr(mac)),
        rloc => format!("{}/{}", rloc.as_ip().unwrap(), l.priority),
    };
    record.locators.iter().map(text).collect()
}

fn read_frames(session: u64, octets: &[u8], sent: &mut Vec<Sent>) {
    let mut decoder = FrameDecoder::default();
    decoder.push(octets);
    while let Some(frame) = decoder.next_frame().unwrap() {
        let id = frame.id;
        sent.push(match frame.body().unwrap() {
            Body::MappingNotification { record, .. } => {
                let (vni, eid) = flat(record.eid, record.mask_len);
                let version = record.map_version.get();
                Sent::Notify { session, eid, vni, ttl: record.ttl, rlocs: locators(&record), version }
            }
            Body::RegistrationAck(_) => Sent::Ack { session, id },
            Body::RegistrationReject { reason, .. } => Sent::Reject { session, id, reason },
            Body::RegistrationRefresh { .. } => Sent::Refresh { session },
            Body::Signal(Signal::Hello { .. }) => Sent::Hello { session },
            Body::Signal(Signal::VnDigest { vni, count, digest }) => {
                Sent::Digest { session, vni, count, digest }
            }
            Body::ErrorNotification(_) => Sent::Complaint { session },
            Body::Signal(signal) => Sent::Mappings { session, id, signal },
            Body::Membership(m) => Sent::Membership { session, vni: m.iid, event: m.event },
            Body::Group(g) => Sent::Group { session, vni: g.vni, event: g.event },
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(decoder.pending(), 0);
}

fn read_datagram(to: SocketAddr, octets: &[u8]) -> Sent {
    match Message::decode(octets).unwrap() {
        Message::MapReply(MapReply { nonce, records, .. }) => {
            let read = |r: Record<'_>| (flat(r.eid, r.mask_len).1, r.ttl, r.action, locators(&r));
            Sent::Reply { to, nonce, records: records.iter().map(read).collect() }
        }
        Message::MapRequest(request) => {
            assert!(request.smr);
            let changed = lisp::Eid::host_from_wire(request.source_eid).unwrap();
            Sent::Smr { to, changed: flat(changed.address(), changed.mask_len()).1 }
        }
        Message::MapNotify(notify) => Sent::MapNotify { to, nonce: notify.nonce, octets: octets.to_vec() },
        other => panic!("{other:?}"),
    }
}

/// Where NVE `n` is, as locators read.
pub(super) fn at(n: u8) -> Vec<String> {
    vec![format!("192.0.2.{n}/1"), format!("2001:db8::{n}/1")]
}

/// R2's locator for TSI `n`.
pub(super) fn at_mac(n: u8) -> Vec<String> {
    vec![format!("02:00:00:00:00:{n:02x}")]
}

pub(super) fn successor(n: u8, epoch: u32) -> Option<Successor> {
    Some(Successor { nve: nve(n), epoch: Epoch::new(epoch).unwrap() })
}

pub(super) fn tenant_ip(eid: Eid) -> TenantIp {
    match eid {
        Eid::Ip(ip) => ip,
        Eid::Mac(_) => unreachable!(),
    }
}
