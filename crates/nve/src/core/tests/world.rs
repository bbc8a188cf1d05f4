//! One NVE with its intended tables, and everything it says, in order.

use super::super::{
    ApiCall, Attach, Attached, Attachment, CallId, Config, Core, Device, Event, Fact, Fetch, Granted, Handed,
    Happened, Limits, Moved, Notice, OracleAddr, Output, Refused, RequestId, Session, Ticket, Timing,
    TransferId, TsiState, TsiView,
};
use super::oracle::{self, Asked, Heard, Rec};
use ::core::net::{IpAddr, SocketAddr};
use ::core::time::Duration;
use etherparse::{ArpEthIpv4Packet, ArpOperation, Icmpv6Type, PacketBuilder};
use std::collections::{BTreeMap, BTreeSet};
use weft_datapath::{IfIndex, Levels, Op, Path, Punt, PuntReason, Tables, VapKind};
use weft_lisp::tcp::FrameDecoder;
use weft_model::{
    BootId, Epoch, Grant, MacAddr, Rloc, Subnets, TenantIp, Time, TsMac, TsiId, TsiName, VnName, VnSpec, Vni,
    XtrId,
};

pub const VNI: u32 = 7;
pub const ME: XtrId = XtrId([1; 16]);
pub const OTHER: XtrId = XtrId([2; 16]);

/// Of tenants and underlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}
pub use Family::{V4, V6};
pub const BOTH: [Family; 2] = [V4, V6];

pub fn vni() -> Vni {
    Vni::new(VNI).unwrap()
}

pub fn red() -> VnName {
    VnName::new("red").unwrap()
}

pub fn name(text: &str) -> TsiName {
    TsiName::new(text).unwrap()
}

pub fn id(text: &str) -> TsiId {
    TsiId { vni: vni(), name: name(text) }
}

pub fn mac(n: u32) -> MacAddr {
    TsMac::local(n.into()).get()
}

/// The `n`-th tenant address.
pub fn ip(f: Family, n: u32) -> TenantIp {
    match f {
        V4 => TenantIp::new(IpAddr::from((0x0a00_0000 + n).to_be_bytes())).unwrap(),
        V6 => TenantIp::new(IpAddr::from(((0xfd00_u128 << 112) + u128::from(n)).to_be_bytes())).unwrap(),
    }
}

pub fn link_local(n: u8) -> TenantIp {
    format!("fe80::{n:x}").parse().unwrap()
}

/// The `n`-th node's underlay address; this NVE is the first.
pub fn rloc(f: Family, n: u8) -> Rloc {
    match f {
        V4 => format!("192.0.2.{n}").parse().unwrap(),
        V6 => format!("2001:db8::{n:x}").parse().unwrap(),
    }
}

pub fn resolver(f: Family, n: u8) -> SocketAddr {
    SocketAddr::new(rloc(f, 100 + n).get(), 4342)
}

pub fn spec() -> VnSpec {
    let nets = ["10.0.0.0/8", "fd00::/64"].iter().map(|n| n.parse().unwrap()).collect();
    VnSpec {
        name: red(),
        vni: vni(),
        subnets: Subnets::new(nets).unwrap(),
        learning: Default::default(),
        reply: Default::default(),
        bum: Default::default(),
        storm: Default::default(),
        miss: Default::default(),
        gateway: None,
        default_groups: BTreeSet::new(),
        log_refused: false,
        tunnel: Default::default(),
    }
}

pub fn grant(text: &str, n: u32) -> Grant {
    Grant {
        tsi: id(text),
        mac: TsMac::new(mac(n)).unwrap(),
        ips: BTreeSet::from([ip(V4, n), ip(V6, n)]),
        groups: BTreeSet::new(),
        tunnel: Default::default(),
        owner: ME,
        epoch: Epoch::new(5).unwrap(),
        next: None,
    }
}

pub fn device(n: u32) -> Device {
    Device { name: format!("tap{n}"), index: IfIndex(n), kind: VapKind::Tap }
}

pub fn attach(text: &str, n: u32) -> Attach {
    Attach {
        vn: red(),
        name: name(text),
        device: device(n),
        mac: None,
        ips: BTreeSet::new(),
        groups: BTreeSet::new(),
        state: TsiState::Activated,
        lease: None,
        explicit: false,
    }
}

pub fn config(f: Family) -> Config {
    Config {
        xtr_id: ME,
        boot: BootId(77),
        rlocs: BTreeSet::from([rloc(f, 1)]),
        uplinks: BTreeSet::from([IfIndex(1000)]),
        oracles: vec![OracleAddr { resolver: resolver(f, 0) }, OracleAddr { resolver: resolver(f, 1) }],
        lisp_port: 4342,
        tenant_mtu: 1450,
        veth_path: Path::Direct,
        tap_path: Path::Device,
        seed: 42,
        limits: Limits::default(),
        timing: Timing::default(),
    }
}

/// What the core said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Op(Op),
    Inject(IfIndex, Vec<u8>),
    Resend(IfIndex, Vec<u8>),
    Carry(weft_model::Rloc, Vec<u8>),
    Asked(Asked),
    Answer(SocketAddr, Vec<u8>),
    Heard(usize, Heard),
    Call(ApiCall),
    Attached(CallId, Result<Attached, Refused>),
    Detached(CallId, Result<(), Refused>),
    Deactivated(CallId, Result<(), Refused>),
    Connected(CallId, Result<Vni, Refused>),
    Disconnected(CallId, Result<(), Refused>),
    VnDisconnected(VnName),
    Persist(Vec<Attachment>),
    ForgetConnections(BTreeSet<TenantIp>),
    Notice(Notice),
    Fetch(Fetch),
    EndFetch(TransferId),
    Hand(RequestId, Handed),
    Connections(Moved),
    Lower(IfIndex, Levels, Duration),
}

#[derive(Clone)]
pub struct World {
    pub family: Family,
    pub core: Core,
    pub now: Time,
    /// Rebuilt from what the core had applied.
    pub tables: Tables,
    /// What the data plane says to a VAP; none leaves it unsaid.
    pub verdict: Option<Result<(), String>>,
    pub tickets: Vec<Ticket>,
    /// How long ago a frame went to a MAC; just now where it is not said.
    pub idle: BTreeMap<MacAddr, Option<Duration>>,
    /// What the core had written of access policy.
    pub saved_policies: Option<super::super::SavedPolicies>,
    /// Whether other NVEs can be asked about who moves here. What cannot be had is not seen to be asked for.
    pub peers: bool,
    /// What hypervisors were told.
    pub events: Vec<Event>,
    /// What they know by that.
    pub known: BTreeMap<TsiId, TsiView>,
    next_call: u64,
}

impl World {
    pub fn new(family: Family) -> Self {
        Self::with(family, |_| {})
    }

    pub fn with(family: Family, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config(family);
        change(&mut config);
        Self::of(family, config)
    }

    pub fn of(family: Family, config: Config) -> Self {
        let mut world = Self {
            family,
            core: Core::new(config),
            now: Time::from_secs(100),
            tables: Tables::default(),
            verdict: Some(Ok(())),
            tickets: Vec::new(),
            idle: BTreeMap::new(),
            saved_policies: None,
            peers: false,
            events: Vec::new(),
            known: BTreeMap::new(),
            next_call: 0,
        };
        world.seen();
        world
    }

    /// With a session to the first Oracle and tenant systems a, b, c ... at devices 1, 2, 3 ... with the
    /// addresses of those numbers.
    pub fn started(family: Family, tsis: &[&str]) -> Self {
        let mut world = Self::new(family);
        world.session(0, Session::Up);
        world.attach_all(tsis);
        world
    }

    pub fn attach_all(&mut self, tsis: &[&str]) {
        for (n, tsi) in (1..).zip(tsis) {
            self.attached(tsi, n);
        }
    }

    /// Attaches, with the Oracle's consent.
    pub fn attached(&mut self, tsi: &str, n: u32) {
        let call = self.attach(attach(tsi, n));
        self.seen();
        let mut seen = self.granted(call, grant(tsi, n));
        for (oracle, heard) in registered(&seen) {
            seen.extend(self.ack(oracle, heard, mac(n)));
        }
        assert!(seen.iter().any(|s| matches!(s, Seen::Attached(_, Ok(_)))), "{seen:?}");
    }

    pub fn call(&mut self) -> CallId {
        self.next_call += 1;
        CallId(self.next_call)
    }

    pub fn attach(&mut self, attach: Attach) -> CallId {
        let call = self.call();
        self.core.handle_attach(self.now, call, attach);
        call
    }

    pub fn activate(&mut self, text: &str) -> CallId {
        let call = self.call();
        self.core.handle_activate(self.now, call, (red(), name(text)), None);
        call
    }

    pub fn deactivate(&mut self, text: &str) {
        let call = self.call();
        self.core.handle_deactivate(call, red(), name(text));
    }

    pub fn granted(&mut self, call: CallId, grant: Grant) -> Vec<Seen> {
        // As late as what was heard last.
        let revision = self.core.revision.max(10);
        self.granted_at(revision, call, grant)
    }

    /// The same by an answer of that revision.
    pub fn granted_at(&mut self, revision: u64, call: CallId, grant: Grant) -> Vec<Seen> {
        let answer = Granted { grant, vn: spec(), revision, created: true };
        self.core.handle_granted(self.now, call, Ok(answer));
        self.seen()
    }

    pub fn grants(&mut self, revision: u64, grants: Vec<Grant>) -> Vec<Seen> {
        self.core.handle_fact(Fact::Grants(revision, grants));
        self.seen()
    }

    pub fn session(&mut self, oracle: usize, event: Session<'_>) -> Vec<Seen> {
        self.core.handle_session(self.now, oracle, event);
        self.seen()
    }

    /// Octets on a session; whole frames.
    pub fn hears(&mut self, oracle: usize, octets: &[u8]) -> Vec<Seen> {
        let mut decoder = FrameDecoder::default();
        decoder.push(octets);
        while let Some(frame) = decoder.next_frame().unwrap() {
            self.core.handle_session(self.now, oracle, Session::Frame(frame));
        }
        self.seen()
    }

    pub fn ack(&mut self, oracle: usize, id: u32, mac: MacAddr) -> Vec<Seen> {
        self.hears(oracle, &oracle::ack(id, mac))
    }

    pub fn notify(&mut self, rec: Rec) -> Vec<Seen> {
        self.hears(0, &oracle::notification(rec))
    }

    pub fn reply(&mut self, to: &Asked, recs: &[Rec]) -> Vec<Seen> {
        self.core.handle_datagram(self.now, to.to.ip(), &oracle::reply(to.nonce, recs));
        self.seen()
    }

    /// TSI `n` asks who has `target`, or with `probe` whether nobody has.
    pub fn asks(&mut self, n: u32, target: TenantIp, probe: bool) -> Vec<Seen> {
        let frame = question(n, target, probe);
        let reason = if target.get().is_ipv4() { PuntReason::ArpMiss } else { PuntReason::NdMiss };
        self.punt(n, reason, frame)
    }

    pub fn punt(&mut self, n: u32, reason: PuntReason, frame: Vec<u8>) -> Vec<Seen> {
        let dst = MacAddr(frame[0..6].try_into().unwrap());
        let from = None;
        self.core.handle_punt(self.now, &Punt { vap: IfIndex(n), vni: vni(), reason, dst, from, frame });
        self.seen()
    }

    /// NVE `n` sent a frame for who is not here.
    pub fn astray(&mut self, n: u8, frame: Vec<u8>) -> Vec<Seen> {
        let (dst, from) = (MacAddr(frame[0..6].try_into().unwrap()), Some(rloc(self.family, n)));
        let reason = PuntReason::NoSuchTs;
        self.core.handle_punt(self.now, &Punt { vap: IfIndex(0), vni: vni(), reason, dst, from, frame });
        self.seen()
    }

    /// NVE `n` handed a frame to this one, its VN's gateway.
    pub fn carried(&mut self, n: u8, frame: Vec<u8>) -> Vec<Seen> {
        let (dst, from) = (MacAddr(frame[0..6].try_into().unwrap()), Some(rloc(self.family, n)));
        let reason = PuntReason::Carried;
        self.core.handle_punt(self.now, &Punt { vap: IfIndex(0), vni: vni(), reason, dst, from, frame });
        self.seen()
    }

    /// TSI `n` sends to `to`.
    pub fn sends(&mut self, n: u32, to: MacAddr) -> Vec<Seen> {
        let mut frame = [to.octets(), mac(n).octets()].concat();
        frame.extend([0x08, 0x00, 0x45]);
        self.punt(n, PuntReason::UnknownMac, frame)
    }

    /// Lets TSI 1 learn where `n` is: at `at` with `version`.
    pub fn knows(&mut self, n: u32, at: u8, version: u16) {
        let target = ip(self.family, n);
        let asked = one_asked(&self.asks(1, target, false));
        let (mac, rloc) = (mac(n), rloc(self.family, at));
        let seen = self.reply(&asked, &[Rec::Owner(target, mac, version), Rec::At(mac, rloc, version)]);
        assert!(seen.iter().any(|s| matches!(s, Seen::Inject(..))), "{seen:?}");
    }

    /// Time passes, timer by timer.
    pub fn passes(&mut self, span: Duration) -> Vec<(Time, Seen)> {
        let end = self.now + span;
        let mut all = Vec::new();
        while let Some(due) = self.core.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(due);
            self.core.handle_timeout(self.now);
            let now = self.now;
            all.extend(self.seen().into_iter().map(|s| (now, s)));
        }
        self.now = end;
        all
    }

    /// Everything said since; the data plane does and says as it is told meanwhile.
    pub fn seen(&mut self) -> Vec<Seen> {
        let mut all = Vec::new();
        while let Some(output) = self.core.poll_output() {
            all.push(match output {
                Output::Apply(op, ticket) => {
                    self.tables.apply(&op);
                    match (ticket, self.verdict.clone()) {
                        (Some(ticket), Some(verdict)) => self.core.handle_applied(ticket, verdict),
                        (Some(ticket), None) => self.tickets.push(ticket),
                        (None, _) => {}
                    }
                    Seen::Op(op)
                }
                Output::Inject(vap, frame) => Seen::Inject(vap, frame),
                Output::Resend(vap, frame) => Seen::Resend(vap, frame),
                Output::Carry(_, from, frame) => Seen::Carry(from, frame),
                Output::Datagram { to, octets } => Seen::Asked(oracle::asked(to, &octets)),
                Output::Answer { to, octets } => Seen::Answer(to, octets),
                Output::LastUse { vni, eid, mac } => {
                    let idle = self.idle.get(&mac).copied().unwrap_or(Some(Duration::ZERO));
                    self.core.handle_last_use(self.now, vni, eid, idle);
                    continue;
                }
                Output::Frame { oracle, octets } => Seen::Heard(oracle, oracle::heard(&octets)),
                Output::Call(call) => Seen::Call(call),
                Output::Attached(call, result) => Seen::Attached(call, result),
                Output::Detached(call, result) => Seen::Detached(call, result),
                Output::Deactivated(call, result) => Seen::Deactivated(call, result),
                Output::Persist(attachments) => Seen::Persist(attachments),
                Output::PersistPolicies(saved) => {
                    self.saved_policies = Some(saved);
                    continue;
                }
                Output::ForgetConnections(_, ips) => Seen::ForgetConnections(ips),
                Output::ClearRule(_) => continue,
                Output::Event(event) => {
                    self.follow(&event);
                    self.events.push(event);
                    continue;
                }
                Output::Connected(call, result) => Seen::Connected(call, result.map(|vn| vn.vni)),
                Output::Disconnected(call, result) => Seen::Disconnected(call, result),
                Output::VnDisconnected(vn) => Seen::VnDisconnected(vn),
                Output::Notice(notice) => Seen::Notice(notice),
                Output::Fetch(Fetch { transfer, .. }) if !self.peers => {
                    self.core.handle_context_end(self.now, transfer, false);
                    continue;
                }
                Output::Fetch(fetch) => Seen::Fetch(fetch),
                Output::EndFetch(transfer) => Seen::EndFetch(transfer),
                Output::Hand(request, handed) => Seen::Hand(request, handed),
                Output::Connections(moved) => Seen::Connections(moved),
                Output::Lower(device, levels, ago) => Seen::Lower(device, levels, ago),
            });
        }
        assert_eq!(self.tables, *self.core.tables(), "tables rebuilt from the changes");
        for view in self.core.settled() {
            let known = self.known.get(&view.grant.tsi);
            assert_eq!(known, Some(&view), "what is attached is known by following");
        }
        super::invariants::hold(&self.core);
        all
    }

    /// As a hypervisor does that knows what there is by following.
    fn follow(&mut self, event: &Event) {
        let known = self.known.get(&event.tsi).map(|view| view.state);
        let (at, after) = match event.happened {
            Happened::Associated => (None, Some(TsiState::Associated)),
            Happened::Activated => (Some(TsiState::Associated), Some(TsiState::Activated)),
            Happened::Deactivated => (Some(TsiState::Activated), Some(TsiState::Associated)),
            Happened::DeAssociated => (Some(TsiState::Associated), None),
            Happened::Updated => (known, known),
            Happened::Conflict(..) => return,
        };
        assert_eq!(known, at, "no state is passed over: {event:?}");
        match &event.now {
            Some(now) => {
                self.known.insert(event.tsi.clone(), TsiView { state: after.unwrap(), ..now.clone() })
            }
            None => self.known.remove(&event.tsi),
        };
        assert_eq!(event.now.is_some(), after.is_some());
    }

    /// What was told since, in words.
    pub fn told(&mut self) -> Vec<String> {
        let text = |e: Event| {
            let what = match e.happened {
                Happened::Associated => "associated".to_owned(),
                Happened::Activated => "activated".to_owned(),
                Happened::Deactivated => "deactivated".to_owned(),
                Happened::DeAssociated => "de-associated".to_owned(),
                Happened::Updated => "updated".to_owned(),
                Happened::Conflict(ip, _) => format!("conflict {ip}"),
            };
            format!("{} {what}: {}", e.tsi.name, e.cause)
        };
        std::mem::take(&mut self.events).into_iter().map(text).collect()
    }
}

/// An ARP request or Neighbor Solicitation of TSI `n`.
pub fn question(n: u32, target: TenantIp, probe: bool) -> Vec<u8> {
    let source = mac(n).octets();
    let mut frame = Vec::new();
    match (target.get(), ip(V4, n).get(), ip(V6, n).get()) {
        (IpAddr::V4(target), IpAddr::V4(own), _) => {
            let arp = ArpEthIpv4Packet {
                operation: ArpOperation::REQUEST,
                sender_mac: source,
                sender_ipv4: if probe { [0; 4] } else { own.octets() },
                target_mac: [0; 6],
                target_ipv4: target.octets(),
            };
            PacketBuilder::ethernet2(source, [0xff; 6]).arp(arp.into()).write_to_vec(&mut frame).unwrap();
        }
        (IpAddr::V6(target), _, IpAddr::V6(own)) => {
            let own = if probe { [0; 16] } else { own.octets() };
            let group = [0x33, 0x33, 0xff, target.octets()[13], target.octets()[14], target.octets()[15]];
            PacketBuilder::ethernet2(source, group)
                .ipv6(own, [0xff; 16], 255)
                .icmpv6(Icmpv6Type::NeighborSolicitation)
                .write_to_vec(&mut frame, &target.octets())
                .unwrap();
        }
        _ => unreachable!(),
    }
    frame
}

/// The MAC a reply or advertisement tells, and where it goes.
pub fn told(frame: &[u8]) -> (MacAddr, MacAddr) {
    let at = |n: usize| MacAddr(frame[n..n + 6].try_into().unwrap());
    match frame[12..14] {
        [0x08, 0x06] => (at(22), at(0)),
        _ => (at(80), at(0)),
    }
}

pub fn asked(seen: &[Seen]) -> Vec<Asked> {
    seen.iter().filter_map(|s| if let Seen::Asked(a) = s { Some(a.clone()) } else { None }).collect()
}

#[track_caller]
pub fn one_asked(seen: &[Seen]) -> Asked {
    let all = asked(seen);
    assert_eq!(all.len(), 1, "{seen:?}");
    all[0].clone()
}

pub fn injects(seen: &[Seen]) -> Vec<(u32, MacAddr)> {
    let told = |s: &Seen| if let Seen::Inject(vap, f) = s { Some((vap.0, told(f).0)) } else { None };
    seen.iter().filter_map(told).collect()
}

/// Registrations that are no withdrawals: Oracle and frame id.
pub fn registered(seen: &[Seen]) -> Vec<(usize, u32)> {
    let f = |s: &Seen| match s {
        Seen::Heard(oracle, Heard::Registered { id, ttl, .. }) if *ttl != 0 => Some((*oracle, *id)),
        _ => None,
    };
    seen.iter().filter_map(f).collect()
}

pub fn withdrawn(seen: &[Seen]) -> usize {
    seen.iter().filter(|s| matches!(s, Seen::Heard(_, Heard::Registered { ttl: 0, .. }))).count()
}

pub fn position(seen: &[Seen], wanted: impl Fn(&Seen) -> bool) -> usize {
    seen.iter().position(wanted).unwrap_or_else(|| panic!("not in {seen:?}"))
}

/// The release the core made on its own or for a call.
pub fn releases(seen: &[Seen]) -> Vec<(CallId, TsiName)> {
    let f = |s: &Seen| match s {
        Seen::Call(ApiCall::Release { call, name, .. }) => Some((*call, name.clone())),
        _ => None,
    };
    seen.iter().filter_map(f).collect()
}

/// No answer; who knows what became of the call.
pub fn unanswered() -> Refused {
    Refused::Unanswered { message: "lost the connection".to_owned() }
}

pub fn oracle_says(code: &str) -> Refused {
    Refused::Oracle { code: code.to_owned(), message: format!("{code}: in its own words") }
}
