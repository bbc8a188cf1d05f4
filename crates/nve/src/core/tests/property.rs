//! Any sequence of inputs: nothing panics, and the invariants hold after each.

use super::super::{
    ApiCall, CallId, Claim, Context, Delta, Fact, Granted, Limits, Live, RequestId, Session, TransferId,
    TsiState, Update, ends,
};
use super::oracle::{self, Asked, Heard, Rec};
use super::world::*;
use ::core::net::IpAddr;
use ::core::time::Duration;
use proptest::prelude::*;
use std::collections::BTreeSet;
use weft_datapath::{IfIndex, PuntReason};
use weft_lisp::tcp::{
    Body, Group, GroupEvent, Membership, MembershipEvent, RejectReason, Signal, SubscribeError,
};
use weft_model::{
    Bum, Eid, Epoch, Grant, Learning, Miss, NveName, Successor, TenantIp, TsiId, VnSpec, Wanted,
    digest::Digest,
};

/// What may happen. Numbers choose among few names, devices and addresses, so that they meet.
#[derive(Clone, Copy, Debug)]
enum Input {
    Attach {
        tsi: u32,
        device: u32,
        only: bool,
    },
    Wanted {
        tsi: u32,
        active: bool,
    },
    Detach {
        tsi: u32,
        force: bool,
    },
    Update {
        tsi: u32,
        device: u32,
        add: u32,
        remove: u32,
    },
    /// The oldest call to /v1 is answered.
    Called {
        verdict: u8,
        addresses: u32,
    },
    Applied {
        ok: bool,
    },
    Gone {
        device: u32,
    },
    Device {
        device: u32,
        index: u32,
    },
    Asks {
        device: u32,
        v6: bool,
        target: u32,
        probe: bool,
    },
    Claims {
        device: u32,
        target: u8,
    },
    Sends {
        device: u32,
        to: u32,
    },
    /// Something comes of what another NVE was asked for.
    Came {
        which: prop::sample::Index,
        kind: u8,
        tsi: u32,
        epoch: u32,
    },
    /// Another NVE asks for a context, or listens no more.
    Wants {
        tsi: u32,
        epoch: u32,
        request: u64,
        left: bool,
    },
    /// One of the latest Map-Requests is answered.
    Answered {
        which: prop::sample::Index,
        verdict: u8,
        mac: u32,
        node: u8,
        version: u16,
    },
    Notified {
        oracle: usize,
        kind: u8,
        v6: bool,
        n: u32,
        mac: u32,
        node: u8,
        version: u16,
    },
    Registered {
        which: prop::sample::Index,
        verdict: u8,
    },
    Grants {
        revision: u64,
        tsis: u8,
        epoch: u32,
    },
    Went {
        revision: u64,
        which: u32,
        epoch: u32,
        elsewhere: bool,
    },
    Up {
        oracle: usize,
    },
    Down {
        oracle: usize,
    },
    Digest {
        vni: u32,
    },
    Vn {
        mode: u8,
    },
    /// About the latest subscriptions, or others.
    Member {
        which: prop::sample::Index,
        event: u8,
        n: u8,
    },
    /// What a tenant system says of a multicast group.
    Reports {
        device: u32,
        kind: u8,
        v6: bool,
        group: u8,
    },
    Pushed {
        which: prop::sample::Index,
        kind: u8,
        v6: bool,
        n: u32,
        node: u8,
    },
    Nve {
        nve: u8,
        rlocs: u8,
    },
    /// A frame that nobody knows the way of: held, told of, or from another NVE.
    Misses {
        device: u32,
        to: u32,
        how: u8,
    },
    Passes {
        millis: u64,
    },
}

fn input() -> impl Strategy<Value = Input> {
    use Input::*;
    let (n, v) = (0_u32..7, prop_oneof![0_u16..8, Just(4_095), Just(2_048)]);
    prop_oneof![
        6 => (1_u32..5, 1_u32..5, prop::bool::weighted(0.3))
            .prop_map(|(tsi, device, only)| Attach { tsi, device, only }),
        4 => (1_u32..5, any::<bool>()).prop_map(|(tsi, active)| Wanted { tsi, active }),
        2 => (1_u32..5, any::<bool>()).prop_map(|(tsi, force)| Detach { tsi, force }),
        3 => (1_u32..5, 0_u32..6, 1_u32..5, 0_u32..5)
            .prop_map(|(tsi, device, add, remove)| Update { tsi, device, add, remove }),
        8 => (0_u8..6, 1_u32..5).prop_map(|(verdict, addresses)| Called { verdict, addresses }),
        4 => prop::bool::weighted(0.8).prop_map(|ok| Applied { ok }),
        2 => (1_u32..5).prop_map(|device| Gone { device }),
        2 => (1_u32..5, 1_u32..8).prop_map(|(device, index)| Device { device, index }),
        8 => (1_u32..5, any::<bool>(), n.clone(), any::<bool>())
            .prop_map(|(device, v6, target, probe)| Asks { device, v6, target, probe }),
        2 => (1_u32..5, 1_u8..4).prop_map(|(device, target)| Claims { device, target }),
        3 => (1_u32..5, n.clone()).prop_map(|(device, to)| Sends { device, to }),
        4 => (1_u32..5, n.clone(), 0_u8..9).prop_map(|(device, to, how)| Misses { device, to, how }),
        8 => (any::<prop::sample::Index>(), 0_u8..6, n.clone(), 1_u8..4, v.clone())
            .prop_map(|(which, verdict, mac, node, version)| Answered { which, verdict, mac, node, version }),
        6 => (0_usize..2, 0_u8..5, any::<bool>(), n.clone(), n, 1_u8..4, v)
            .prop_map(|(oracle, kind, v6, n, mac, node, version)|
                Notified { oracle, kind, v6, n, mac, node, version }),
        5 => (any::<prop::sample::Index>(), 0_u8..4).prop_map(|(which, verdict)| Registered { which, verdict }),
        2 => (0_u64..40, any::<u8>(), 1_u32..9)
            .prop_map(|(revision, tsis, epoch)| Grants { revision, tsis, epoch }),
        1 => (0_u64..40, 1_u32..5, 1_u32..9, any::<bool>())
            .prop_map(|(revision, which, epoch, elsewhere)| Went { revision, which, epoch, elsewhere }),
        3 => (0_usize..2).prop_map(|oracle| Up { oracle }),
        1 => (0_usize..2).prop_map(|oracle| Down { oracle }),
        1 => (0_u32..9).prop_map(|vni| Digest { vni }),
        3 => (0_u8..9).prop_map(|mode| Vn { mode }),
        5 => (any::<prop::sample::Index>(), 0_u8..13, 1_u8..4)
            .prop_map(|(which, event, n)| Member { which, event, n }),
        5 => (1_u32..5, 0_u8..7, any::<bool>(), 1_u8..5)
            .prop_map(|(device, kind, v6, group)| Reports { device, kind, v6, group }),
        8 => (any::<prop::sample::Index>(), 0_u8..12, any::<bool>(), 0_u32..7, 1_u8..4)
            .prop_map(|(which, kind, v6, n, node)| Pushed { which, kind, v6, n, node }),
        1 => (1_u8..4, 0_u8..8).prop_map(|(nve, rlocs)| Nve { nve, rlocs }),
        8 => (any::<prop::sample::Index>(), 0_u8..7, 1_u32..5, 4_u32..7)
            .prop_map(|(which, kind, tsi, epoch)| Came { which, kind, tsi, epoch }),
        3 => (1_u32..5, 4_u32..8, 0_u64..4, prop::bool::weighted(0.3))
            .prop_map(|(tsi, epoch, request, left)| Wants { tsi, epoch, request, left }),
        6 => prop_oneof![0_u64..3_000, 0_u64..1_000_000].prop_map(|millis| Passes { millis }),
    ]
}

struct Run {
    w: World,
    calls: Vec<ApiCall>,
    asked: Vec<Asked>,
    registered: Vec<(usize, u32)>,
    subscribed: Vec<(usize, u32)>,
    fetched: Vec<TransferId>,
    requests: u64,
    vn: VnSpec,
    revision: u64,
    answered: BTreeSet<CallId>,
    called: BTreeSet<CallId>,
}

fn tsi_name(n: u32) -> String {
    format!("t{n}")
}

fn some_grant(n: u32, addresses: u32, epoch: u32) -> Grant {
    let mut grant = grant(&tsi_name(n), n);
    grant.epoch = Epoch::new(epoch).unwrap();
    // Some are on the move, here or away.
    let moves = Successor { nve: OTHER, epoch: grant.epoch.next() };
    match (n + addresses + epoch) % 7 {
        0 => grant.next = Some(moves),
        1 => (grant.owner, grant.next) = (OTHER, Some(Successor { nve: ME, ..moves })),
        _ => {}
    }
    // Now and then one of somebody else's: lists and answers cross.
    grant.ips = BTreeSet::from([ip(V4, addresses), ip(V6, n)]);
    grant
}

fn some_group(v6: bool, n: u8) -> IpAddr {
    if v6 { format!("ff15::{n}") } else { format!("239.0.0.{n}") }.parse().unwrap()
}

impl Run {
    fn notice(&mut self, seen: Vec<Seen>) {
        for s in seen {
            match s {
                Seen::Call(call) => self.calls.push(call),
                Seen::Fetch(fetch) => self.fetched.push(fetch.transfer),
                Seen::Asked(asked) => self.asked.push(asked),
                Seen::Heard(oracle, Heard::Registered { id, .. }) => self.registered.push((oracle, id)),
                Seen::Heard(oracle, Heard::Membership(id, ..) | Heard::Mappings(id, _)) => {
                    self.subscribed.push((oracle, id));
                }
                Seen::Attached(call, _) | Seen::Detached(call, _) | Seen::Deactivated(call, _) => {
                    assert!(self.answered.insert(call), "{call:?} is answered twice");
                }
                _ => {}
            }
        }
    }

    fn act(&mut self, input: Input) {
        let w = &mut self.w;
        match input {
            Input::Attach { tsi, device: n, only } => {
                let mut wanted = attach(&tsi_name(tsi), n);
                if only {
                    wanted.state = TsiState::Associated;
                }
                wanted.lease = (n == 3).then_some(Duration::from_secs(9));
                let call = w.attach(wanted);
                self.called.insert(call);
            }
            Input::Wanted { tsi, active } => {
                let call = w.call();
                self.called.insert(call);
                if active {
                    w.core.handle_activate(w.now, call, (red(), name(&tsi_name(tsi))), None);
                } else {
                    w.core.handle_deactivate(call, red(), name(&tsi_name(tsi)));
                }
            }
            Input::Detach { tsi, force } => {
                let call = w.call();
                self.called.insert(call);
                w.core.handle_detach(call, red(), name(&tsi_name(tsi)), force);
            }
            Input::Update { tsi, device: n, add, remove } => {
                let update = Update {
                    vn: red(),
                    name: name(&tsi_name(tsi)),
                    device: (1..5).contains(&n).then(|| device(n)),
                    add: BTreeSet::from([ip(V4, add)]),
                    remove: BTreeSet::from([ip(V4, remove), ip(V6, remove)]),
                    lease: (n < 2).then(|| Duration::from_secs(7 * u64::from(n))),
                };
                let call = w.call();
                self.called.insert(call);
                w.core.handle_update(w.now, call, update);
            }
            Input::Called { verdict, addresses } => self.call_answered(verdict, addresses),
            Input::Applied { ok } => {
                if let Some(ticket) = w.tickets.pop() {
                    w.core.handle_applied(ticket, if ok { Ok(()) } else { Err("no".to_owned()) });
                }
            }
            Input::Gone { device } => w.core.handle_device_gone(w.now, IfIndex(device)),
            Input::Device { device: n, index } => {
                // Of an index that is known another name, or a device of its own.
                let mut device = device(n);
                device.index = IfIndex(index);
                w.core.handle_device(&device);
            }
            Input::Asks { device, v6, target, probe } => {
                let target = ip(if v6 { V6 } else { V4 }, target + 1);
                let seen = w.asks(device, target, probe);
                self.notice(seen);
            }
            Input::Claims { device, target } => {
                let frame = question(device, link_local(target), true);
                let seen = w.punt(device, PuntReason::LinkLocalClaim, frame);
                self.notice(seen);
            }
            Input::Sends { device, to } => {
                let seen = w.sends(device, mac(to));
                self.notice(seen);
            }
            Input::Misses { device, to, how } => {
                let mut frame = [mac(to).octets(), mac(device).octets()].concat();
                frame.extend([0x88, 0xb5]);
                let routed = super::anycast::routed_frame(w.family, device, ip(w.family, to + 1));
                let seen = match how {
                    0..=2 => w.punt(device, PuntReason::UnknownMacHeld, frame),
                    3 | 4 => w.punt(device, PuntReason::Route, routed),
                    5 => w.punt(device, PuntReason::RouteSeen, routed),
                    6 => w.astray(2, routed),
                    7 => w.punt(device, PuntReason::FirstFrame, frame),
                    _ => w.astray(2, frame),
                };
                self.notice(seen);
            }
            Input::Answered { which, verdict, mac: m, node, version } => {
                let Some(at) = self.asked.len().checked_sub(1) else { return };
                // Those that wait, mostly.
                let asked = self.asked[at - which.index(at.min(5) + 1)].clone();
                let at = Rec::At(mac(m), rloc(w.family, node), version);
                let recs = match (asked.eid, verdict) {
                    (eid, 0) => vec![Rec::No(eid, 1)],
                    (eid, 1) => vec![Rec::Gone(eid)],
                    (Eid::Ip(ip), 2) => vec![Rec::Owner(ip, mac(m), version)],
                    (Eid::Ip(ip), 3) => vec![Rec::Whole(ip, mac(m), rloc(w.family, node), version)],
                    (Eid::Ip(ip), _) => vec![Rec::Owner(ip, mac(m), version), at],
                    (Eid::Mac(mac), _) => vec![Rec::At(mac, rloc(w.family, node), version)],
                };
                let seen = w.reply(&asked, &recs);
                self.notice(seen);
            }
            Input::Notified { oracle, kind, v6, n, mac: m, node, version } => {
                let target = ip(if v6 { V6 } else { V4 }, n + 1);
                let rec = match kind {
                    0 => Rec::At(mac(m), rloc(w.family, node), version),
                    1 => Rec::Owner(target, mac(m), version),
                    2 => Rec::Gone(mac(m).into()),
                    3 => Rec::Gone(target.into()),
                    _ => Rec::No(target.into(), 1),
                };
                let seen = w.hears(oracle, &oracle::notification(rec));
                self.notice(seen);
            }
            Input::Registered { which, verdict } => {
                let Some(at) = self.registered.len().checked_sub(1) else { return };
                let (oracle, id) = self.registered[at - which.index(at.min(3) + 1)];
                for n in 1..5 {
                    let octets = match verdict {
                        0 => oracle::reject(id, mac(n), RejectReason::NotASitePrefix),
                        1 => oracle::reject(id, mac(n), RejectReason::Undefined),
                        _ => oracle::ack(id, mac(n)),
                    };
                    let seen = self.w.hears(oracle, &octets);
                    self.notice(seen);
                }
            }
            Input::Grants { revision, tsis, epoch } => {
                self.revision = self.revision.max(revision);
                let granted = (1..5).filter(|n| tsis & (1 << n) != 0);
                let grants = granted
                    .map(|n| {
                        let mut grant = some_grant(n, n, epoch);
                        if tsis & 0x80 != 0 && n == 1 {
                            grant.owner = OTHER;
                        }
                        grant
                    })
                    .collect();
                let seen = w.grants(revision, grants);
                self.notice(seen);
            }
            Input::Went { revision, which, epoch, elsewhere } => {
                self.revision = self.revision.max(revision);
                let mut grant = some_grant(which, which, epoch);
                if elsewhere {
                    grant.owner = OTHER;
                }
                let holder = NveName::new("h2").unwrap();
                w.core.handle_fact(Fact::GrantWent { revision, grant, holder });
                let seen = w.seen();
                self.notice(seen);
            }
            Input::Up { oracle } => {
                let seen = w.session(oracle, Session::Up);
                self.notice(seen);
            }
            Input::Down { oracle } => {
                let seen = w.session(oracle, Session::Down);
                self.notice(seen);
            }
            Input::Digest { vni } => {
                let digest = Signal::VnDigest { vni, count: 3, digest: 4 };
                let seen = w.hears(0, &oracle::frame(&Body::Signal(digest), 1));
                self.notice(seen);
            }
            Input::Vn { mode } => {
                let learning = match mode {
                    0 => return w.core.handle_fact(Fact::VnGone(vni())),
                    1 | 2 => Learning::Oracle,
                    3 => Learning::Flood,
                    _ => Learning::Distribute,
                };
                let bum = if mode % 2 == 0 { Bum::Replicate } else { Bum::Drop };
                let miss = [Miss::Queue, Miss::Gateway, Miss::Drop][usize::from(mode % 3)];
                let gateway = Some(if mode < 6 { "host1" } else { "host2" }.parse().unwrap());
                self.vn = VnSpec { learning, bum, miss, gateway, ..spec() };
                w.core.handle_fact(Fact::Vn(self.vn.clone()));
            }
            Input::Member { which, event, n } => {
                let Some(at) = self.subscribed.len().checked_sub(1) else { return };
                let (at, id) = self.subscribed[at - which.index(at.min(3) + 1)];
                let (site_id, rloc) = (n.into(), rloc(w.family, n).get());
                if event > 7 {
                    let group = some_group(n % 2 == 0, n);
                    let event = match event {
                        8 => GroupEvent::Remove { site_id, group },
                        11 => GroupEvent::AddAll { site_id },
                        12 => GroupEvent::RemoveAll { site_id },
                        _ => GroupEvent::Add { site_id, group },
                    };
                    let seen = w.hears(at, &oracle::frame(&Body::Group(Group { vni: VNI, event }), 1));
                    return self.notice(seen);
                }
                let event = match event {
                    0 => {
                        MembershipEvent::SubscribeNack { subscribe_id: id, error: SubscribeError::Undefined }
                    }
                    1 => MembershipEvent::RefreshBegin { request_id: id },
                    2 => MembershipEvent::RefreshEnd { request_id: id },
                    3 => MembershipEvent::Remove { site_id, rloc },
                    4 => MembershipEvent::Unsubscribe,
                    _ => MembershipEvent::Add { site_id, rloc },
                };
                let frame = Body::Membership(Membership { eid_afi: 0, iid: VNI, event });
                let seen = w.hears(at, &oracle::frame(&frame, 1));
                self.notice(seen);
            }
            Input::Reports { device, kind, v6, group } => {
                let group = some_group(v6, group).to_string();
                let frame = match kind {
                    0 => super::super::groups::reports::single(&group, true),
                    kind => super::super::groups::reports::report(&[(kind, &group, u16::from(kind % 2))]),
                };
                let seen = w.punt(device, PuntReason::Report, frame);
                self.notice(seen);
            }
            Input::Pushed { which, kind, v6, n, node } => {
                let Some(at) = self.subscribed.len().checked_sub(1) else { return };
                let (at, id) = self.subscribed[at - which.index(at.min(3) + 1)];
                let target = ip(if v6 { V6 } else { V4 }, n + 1);
                let signal = |signal| oracle::frame(&Body::Signal(signal), id);
                let octets = match kind {
                    0 => signal(Signal::MappingsBegin { vni: VNI }),
                    1 => signal(Signal::MappingsMarker { vni: VNI, count: 0, digest: 0 }),
                    2 => signal(Signal::MappingsRefused { vni: VNI, error: SubscribeError::Undefined }),
                    3 => {
                        let Digest { count, sum } = w.core.pushed_digest(vni());
                        signal(Signal::MappingsMarker { vni: VNI, count, digest: sum })
                    }
                    4 => oracle::pushed(Rec::Gone(mac(n).into())),
                    5 => oracle::pushed(Rec::Gone(target.into())),
                    6..9 => oracle::pushed(Rec::At(mac(n), rloc(w.family, node), 5)),
                    _ => oracle::pushed(Rec::Owner(target, mac(n), 5)),
                };
                let seen = w.hears(at, &octets);
                self.notice(seen);
            }
            Input::Came { which, kind, tsi, epoch } => {
                let Some(at) = self.fetched.len().checked_sub(1) else { return };
                let transfer = self.fetched[at - which.index(at.min(3) + 1)];
                let f = w.family;
                let live = Live {
                    connections: vec![super::context::flow(f, tsi, 9, 1, u64::from(epoch))],
                    groups: BTreeSet::from([
                        Wanted::All,
                        some_group(kind == 1, 1).to_string().parse().unwrap(),
                    ]),
                    addresses: vec![Eid::Ip(ip(f, epoch)), Eid::Mac(mac(tsi)), Eid::Mac(mac(6))],
                    levels: weft_datapath::Levels { send: Some(epoch), receive: None },
                };
                let epoch = Epoch::new(epoch).unwrap();
                let (grant, vn) = (Grant { epoch, ..some_grant(tsi, 2, 5) }, self.vn.clone());
                match kind {
                    0..3 => {
                        let activated = kind != 2;
                        let context =
                            Context { revision: 9 + u64::from(tsi), grant, epoch, vn, activated, live };
                        let _ = w.core.handle_context(w.now, transfer, context);
                    }
                    3 => w.core.handle_stopping(w.now, transfer),
                    4 => {
                        let ended = live.connections.iter().map(ends).collect();
                        let _ = w.core.handle_delta(w.now, transfer, Delta { live, ended });
                    }
                    _ => w.core.handle_context_end(w.now, transfer, kind == 5),
                }
            }
            Input::Wants { tsi, epoch, request, left } => {
                let claim = Claim { tsi: id(&tsi_name(tsi)), to: OTHER, epoch: Epoch::new(epoch).unwrap() };
                if left {
                    w.core.handle_context_left(RequestId(self.requests.saturating_sub(request)));
                } else {
                    self.requests += 1;
                    let _ = w.core.handle_context_asked(w.now, RequestId(self.requests), &claim);
                }
            }
            Input::Nve { nve, rlocs } => {
                let rlocs = (1..4_u8).filter(|n| rlocs & (1 << (n - 1)) != 0).map(|n| rloc(w.family, n + 1));
                let xtr = weft_model::XtrId([nve; 16]);
                w.core.handle_fact(Fact::Nve(xtr, rlocs.collect()));
                w.core.handle_fact(Fact::NveName(xtr, format!("host{nve}").parse().unwrap()));
            }
            Input::Passes { millis } => {
                let seen = w.passes(Duration::from_millis(millis));
                let seen = seen.into_iter().map(|(_, s)| s).collect();
                self.notice(seen);
            }
        }
        let seen = self.w.seen();
        self.notice(seen);
    }

    fn call_answered(&mut self, verdict: u8, addresses: u32) {
        if self.calls.is_empty() {
            return;
        }
        let w = &mut self.w;
        self.revision += 1;
        let number = |id: &TsiId| id.name.as_str()[1..].parse::<u32>().unwrap();
        let error = || match verdict % 2 {
            0 => unanswered(),
            _ => oracle_says("not_found"),
        };
        let vn = &self.vn;
        let granted = |mut grant: Grant, more: Option<TenantIp>| {
            grant.ips.extend(more);
            Granted { grant, vn: vn.clone(), revision: self.revision, created: addresses.is_multiple_of(2) }
        };
        match self.calls.remove(0) {
            ApiCall::Grant { call, name, .. } => {
                let n = number(&TsiId { vni: vni(), name });
                // The store gives an address to one only; now and then the last holder does not know yet.
                let answer = granted(some_grant(n, if verdict == 2 { addresses } else { n }, 5), None);
                w.core.handle_granted(w.now, call, if verdict < 2 { Err(error()) } else { Ok(answer) });
            }
            ApiCall::Release { call, .. } => {
                w.core.handle_released(call, if verdict < 2 { Err(error()) } else { Ok(()) });
            }
            ApiCall::Addresses { call, name, add, .. } => {
                let n = number(&TsiId { vni: vni(), name });
                let answer = granted(some_grant(n, n, 5), add.first().copied());
                w.core.handle_addresses(w.now, call, if verdict < 2 { Err(error()) } else { Ok(answer) });
            }
            ApiCall::Connections | ApiCall::Connect { .. } | ApiCall::Disconnect { .. } => {}
            ApiCall::Take { tsi, ip, .. } => {
                let n = number(&tsi);
                let answer = granted(some_grant(n, n, 5), Some(ip));
                w.core.handle_taken(w.now, &tsi, ip, if verdict < 2 { Err(error()) } else { Ok(answer) });
            }
        }
    }
}

/// As many as asked for by `PROPTEST_CASES`; else as many as take a few seconds.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]
    #[test]
    fn any_sequence(
        v6 in any::<bool>(),
        tight in any::<bool>(),
        inputs in proptest::collection::vec(input(), 1..120),
    ) {
        let w = World::with(if v6 { V6 } else { V4 }, |c| {
            if tight {
                c.limits = Limits {
                    cache: 3,
                    absent_per_vap: 2,
                    pending_per_vn: 3,
                    pending_per_vap: 2,
                    waiters: 2,
                    calls: 2,
                    link_locals: 1,
 held_destinations: 1,
 held_per_vap: 1,
 held_frames: 1,
 held_in_all: 1,
 answers_per_second: 1,
 answer_burst: 1,
                    members: 1,
                    stand_ins_per_vap: 1,
                    groups_per_vap: 2,
                    groups_per_vn: 3,
                    member_groups: 1,
                    group_entries_per_vn: 2,
                    group_entries: 2,
                    away: 2,
                    moved_connections: 1,
                    moved_addresses: 1,
                    moved_at_once: 1,
                    handovers: 1,
                    solicits: 1,
                    policy_rules: 1,
                    policy_classes: 1,
                };
            }
        });
        let mut run = Run {
            w,
            calls: Vec::new(),
            asked: Vec::new(),
            registered: Vec::new(),
            subscribed: Vec::new(),
            fetched: Vec::new(),
            requests: 0,
            vn: spec(),
            revision: 10,
            answered: BTreeSet::new(),
            called: BTreeSet::new(),
        };
        run.w.verdict = None;
        run.w.peers = true;
        for input in inputs {
            run.act(input);
        }
        // Everything comes to an end: /v1 and the data plane answer, and time passes.
        for _ in 0..200 {
            // What waits for another NVE does so for a moment.
            run.act(Input::Passes { millis: 200 });
            while let Some(ticket) = run.w.tickets.pop() {
                run.w.core.handle_applied(ticket, Ok(()));
                let seen = run.w.seen();
                run.notice(seen);
            }
            if run.calls.is_empty() {
                break;
            }
            run.call_answered(5, 1);
            let seen = run.w.seen();
            run.notice(seen);
        }
        run.act(Input::Passes { millis: 20_000 });
        prop_assert_eq!(&run.answered, &run.called, "every call is answered, once");
    }
}
