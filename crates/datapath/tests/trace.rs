//! Traced packets: every step is told, at both ends, they end where they are to, and nobody else can have one.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

mod common;

use common::{
    How,
    frames::*,
    pair::{MACS, Pair, VETH, datagram_of, ip, let_names_through, policy},
    rloc, ts_mac, vni, wait_for,
};
use std::{net::UdpSocket, os::fd::AsRawFd as _, time::Duration};
use weft_datapath::{
    Away, By, ConnectionState, Ended, Location, Neighbour, Op, Path, Reason, Step, Steps, Toward, Trace,
    TraceId, Traced, Vap, VapKind, Vn, Way,
};
use weft_model::{Epoch, Learning, Rloc};

const SOON: Duration = Duration::from_secs(10);

struct Traces {
    pair: Pair,
    steps: Vec<Steps>,
    next: u32,
}

impl Traces {
    fn new(how: How) -> Self {
        let mut pair = Pair::new(how);
        let steps = pair.lab.nves.iter_mut().map(|nve| nve.with(|k| k.steps().unwrap())).collect();
        Self { pair, steps, next: 0 }
    }

    fn id(&mut self) -> TraceId {
        self.next += 0x1_0203;
        TraceId::new(self.next).unwrap()
    }

    fn know(&mut self, nve: usize, id: TraceId, way: Way, deliver: bool) {
        let trace = Trace { vni: vni(7001), way, deliver };
        self.pair.lab.nves[nve].with(|k| k.set_trace(id, &trace).unwrap());
    }

    /// Has both know of a packet from tenant system 1, and sends it.
    fn send(&mut self, frame: &[u8], deliver: bool) -> TraceId {
        let (id, v6) = (self.id(), self.pair.how.v6);
        self.know(0, id, Way::To(Some(rloc(1, v6))), deliver);
        self.know(1, id, from(rloc(0, v6), SOON), deliver);
        self.come_in(id, frame);
        id
    }

    fn come_in(&mut self, id: TraceId, frame: &[u8]) {
        let vap = self.pair.lab.tss[0].device;
        self.pair.lab.nves[0].with(|k| k.send_traced(id, vap, frame).unwrap());
    }

    /// The steps of a packet at an NVE, to its end.
    fn ended(&mut self, nve: usize, id: TraceId) -> Vec<Step> {
        let mut all: Vec<Traced> = Vec::new();
        let last = |t: &Traced| matches!(t.step, Step::End(ended, _) if ended.is_final());
        wait_for("the end of a trace", || {
            all.extend(self.steps[nve].drain());
            all.iter().any(last).then_some(())
        });
        assert!(all.iter().all(|t| t.id == id), "{all:?}");
        all.into_iter().map(|t| t.step).collect()
    }

    fn none(&mut self, nve: usize) {
        assert_eq!(self.steps[nve].drain(), []);
    }
}

fn from(rloc: Rloc, lasts: Duration) -> Way {
    Way::From { rloc, lasts, next: None }
}

fn end(ended: Ended, reason: Reason) -> Step {
    Step::End(ended, Some(reason))
}

/// From its VAP through both policies to where it would be handed over, and then really.
fn both_halves(how: How) {
    let mut traces = Traces::new(how);
    let_names_through(&mut traces.pair);
    let vaps = [0, 1].map(|i| traces.pair.lab.tss[i].device);
    for v6 in [false, true] {
        for (times, deliver) in [(0, false), (1, true)] {
            let frame = datagram_of(0, v6, 1000, 53);
            let id = traces.send(&frame, deliver);
            let policy = |i: usize, toward, rule| Step::Policy { vap: vaps[i], toward, rule: Some(rule) };
            let known = |i: usize, toward| Step::Known {
                vap: vaps[i],
                toward,
                state: Some(ConnectionState::Opening),
            };
            let known = |i, toward| (times == 1).then(|| known(i, toward));
            let there = Step::Location { by: By::Table, vap: None, rloc: Some(rloc(1, how.v6)) };
            let mut out = vec![Step::Checked];
            out.extend(known(0, Toward::Out));
            out.extend([policy(0, Toward::Out, 10), there, end(Ended::Left, Reason::Encapsulated)]);
            assert_eq!(traces.ended(0, id), out);
            let from = Some(rloc(0, how.v6));
            let mut into = vec![Step::Arrived { from, vni: 7001, ttl: 64 }];
            into.extend((how.path == Path::Device).then_some(Step::End(Ended::Passed, None)));
            into.extend(known(1, Toward::In));
            into.extend([policy(1, Toward::In, 20), end(Ended::Delivered(vaps[1]), Reason::Delivered)]);
            assert_eq!(traces.ended(1, id), into);
            // What is sent after it is all that comes, if it was not to be delivered.
            let last = datagram_of(0, v6, 1001, 53);
            traces.pair.wires[0].send(&last);
            let came = traces.pair.wires[1].until("the last", |f| f == last);
            assert_eq!(came.iter().filter(|f| **f == frame).count(), usize::from(deliver), "{came:?}");
        }
        // Refused by the one's policy, and by the other's.
        let id = traces.send(&datagram_of(0, v6, 1000, 54), true);
        let refused = |i: usize, toward| Step::Policy { vap: vaps[i], toward, rule: None };
        assert_eq!(
            traces.ended(0, id),
            [Step::Checked, refused(0, Toward::Out), end(Ended::Dropped, Reason::Denied)]
        );
        traces.pair.set(0, None, &[]);
        let id = traces.send(&datagram_of(0, v6, 1000, 54), true);
        traces.ended(0, id);
        let steps = traces.ended(1, id);
        assert_eq!(steps[steps.len() - 2..], [refused(1, Toward::In), end(Ended::Dropped, Reason::Denied)]);
        traces.pair.set(0, policy(1, 1), &[]);
    }
}

#[test]
fn both_halves_direct() {
    both_halves(VETH);
}

#[test]
fn both_halves_device() {
    both_halves(How { path: Path::Device, ..VETH });
}

#[test]
fn both_halves_tap_v6() {
    both_halves(How { kind: VapKind::Tap, v6: true, ..VETH });
}

/// The reason of each way in which it does not get there.
#[test]
fn why_it_does_not_arrive() {
    for how in [VETH, How { path: Path::Device, v6: true, ..VETH }] {
        let mut traces = Traces::new(how);
        let ended = |traces: &mut Traces, frame: &[u8]| {
            let id = traces.send(frame, true);
            *traces.ended(0, id).last().unwrap()
        };
        for v6 in [false, true] {
            let frame = datagram_of(0, v6, 1000, 53);
            let mut other_mac = frame.clone();
            other_mac[11] = 9;
            assert_eq!(ended(&mut traces, &other_mac), end(Ended::Dropped, Reason::SpoofedMac));
            let other_ip = datagram(MACS[1], MACS[0], ip(1, v6), ip(0, v6), 0, &udp(1, 53, b"x"));
            assert_eq!(ended(&mut traces, &other_ip), end(Ended::Dropped, Reason::SpoofedIp));
            // Nobody is answered that it is too big: nobody sent it.
            let big = datagram(MACS[1], MACS[0], ip(0, v6), ip(1, v6), 0, &udp(1, 53, &[0; 1500]));
            assert_eq!(ended(&mut traces, &big), end(Ended::Dropped, Reason::TooBig));
            // The agent is told that its destination is not known, but holds nothing: that would be sent on.
            let mut to_nobody = frame.clone();
            to_nobody[5] = if v6 { 0x66 } else { 0x44 };
            assert_eq!(ended(&mut traces, &to_nobody), end(Ended::Dropped, Reason::UnknownMac));
            let punts = traces.pair.lab.nves[0].punts.as_mut().unwrap().drain(10);
            assert_eq!(punts.len(), 1, "{punts:?}");
            assert_eq!(punts[0].reason, weft_datapath::PuntReason::UnknownMac);
        }
        let frame = datagram_of(0, false, 1000, 53);
        // For another's address than the one's with the MAC address: no rule was asked.
        let_names_through(&mut traces.pair);
        let third = common::ts_ips(3)[0];
        let others = Op::SetNeighbour(vni(7001), third, Neighbour::At(ts_mac(3).get()));
        traces.pair.lab.nves[0].apply(&[others]);
        let wrong =
            datagram(MACS[1], MACS[0], ip(0, false), third.get(), 0, &udp(1, 53, b"as much as is needed"));
        let id = traces.send(&wrong, true);
        assert_eq!(traces.ended(0, id), [Step::Checked, end(Ended::Dropped, Reason::WrongMac)]);
        traces.pair.set(0, None, &[]);
        traces.pair.set(1, None, &[]);
        // For an NVE that was not told it does not leave.
        let id = traces.id();
        traces.know(0, id, Way::To(Some(rloc(7, how.v6))), true);
        traces.come_in(id, &frame);
        assert_eq!(*traces.ended(0, id).last().unwrap(), end(Ended::Stopped, Reason::Encapsulated));
        // Not Activated, there and here.
        let ts = traces.pair.lab.tss[1].device;
        let closed = |n: u8| Vap { activated: false, ..common::Lab::vap(n, how) };
        traces.pair.lab.nves[1].apply(&[Op::SetVap(ts, closed(2))]);
        let id = traces.send(&frame, true);
        traces.ended(0, id);
        assert_eq!(*traces.ended(1, id).last().unwrap(), end(Ended::Dropped, Reason::NotActivated));
        // It is not there any more; and where it is gone to another NVE the trace does not follow.
        let mac = ts_mac(2).get();
        traces.pair.lab.nves[1].apply(&[Op::RemoveLocation(vni(7001), mac)]);
        let id = traces.send(&frame, false);
        traces.ended(0, id);
        assert_eq!(*traces.ended(1, id).last().unwrap(), end(Ended::Dropped, Reason::NoSuchTs));
        let away = Away { rloc: rloc(7, how.v6), epoch: Epoch::FIRST };
        traces.pair.lab.nves[1].apply(&[Op::SetAway(vni(7001), mac, away)]);
        let id = traces.send(&frame, false);
        traces.ended(0, id);
        let steps = traces.ended(1, id);
        let there = Step::Location { by: By::Learning, vap: None, rloc: Some(rloc(7, how.v6)) };
        assert_eq!(steps[steps.len() - 2..], [there, end(Ended::Stopped, Reason::Redirected)]);
        let ts = traces.pair.lab.tss[0].device;
        traces.pair.lab.nves[0].apply(&[Op::SetVap(ts, closed(1))]);
        assert_eq!(ended(&mut traces, &frame), end(Ended::Dropped, Reason::NotActivated));
    }
}

/// Where frames for nobody known go to everybody, it ends before anybody has it.
#[test]
fn it_is_not_flooded() {
    let mut traces = Traces::new(VETH);
    let flooding = Vn { learning: Learning::Flood, members: [rloc(1, false)].into(), ..Vn::default() };
    traces.pair.lab.nves[0].apply(&[Op::SetVn(vni(7001), flooding)]);
    for v6 in [false, true] {
        let mut frame = datagram_of(0, v6, 1000, 53);
        frame[5] = 0x44;
        let before = traces.pair.lab.nves[0].count(Reason::Replicated);
        let id = traces.send(&frame, false);
        assert_eq!(*traces.ended(0, id).last().unwrap(), end(Ended::Stopped, Reason::Replicated));
        assert_eq!(traces.pair.lab.nves[0].count(Reason::Replicated), before);
        let id = traces.send(&frame, true);
        assert_eq!(*traces.ended(0, id).last().unwrap(), end(Ended::Replicated, Reason::Replicated));
        assert_eq!(traces.pair.lab.nves[0].count(Reason::Replicated), before + 1);
    }
}

/// The bits of anybody who was not announced, of another VN, or that come too late, say nothing, and the frame is like
/// any other; a stranger's is refused as always; a tenant system's mark is taken away.
#[test]
fn nobody_else_can_trace() {
    for how in [How { v6: true, ..VETH }, How { path: Path::Device, ..VETH }] {
        let mut traces = Traces::new(how);
        let id = traces.id();
        let frame = |n: u16| datagram_of(0, false, n, 53);
        let with_bits = |id: TraceId, vni: u32, frame: &[u8]| {
            let mut octets = vxlan(8, vni, frame);
            octets[1..4].copy_from_slice(&id.get().to_be_bytes()[1..]);
            octets
        };
        let peer = traces.pair.lab.nves[0].ns.run(|| UdpSocket::bind((rloc(0, how.v6).get(), 0)).unwrap());
        let to = (rloc(1, how.v6).get(), 4789);
        let send = |id, n| {
            peer.send_to(&with_bits(id, 7001, &frame(n)), to).unwrap();
        };
        let arrives = |traces: &mut Traces, n| {
            traces.pair.wires[1].receive("an ordinary frame", |f| f == frame(n));
            traces.none(1);
        };
        send(id, 1);
        arrives(&mut traces, 1);
        traces.know(1, id, from(rloc(7, how.v6), SOON), false);
        send(id, 2);
        arrives(&mut traces, 2);
        traces.know(1, id, from(rloc(0, how.v6), Duration::ZERO), false);
        send(id, 3);
        arrives(&mut traces, 3);
        traces.know(1, id, Way::To(Some(rloc(0, how.v6))), false);
        send(id, 4);
        arrives(&mut traces, 4);
        let other = Trace { vni: vni(7002), way: from(rloc(0, how.v6), SOON), deliver: false };
        traces.pair.lab.nves[1].with(|k| k.set_trace(id, &other).unwrap());
        send(id, 5);
        arrives(&mut traces, 5);
        // A host of the underlay that is no NVE.
        traces.know(1, id, from(rloc(7, how.v6), SOON), false);
        let stranger = &traces.pair.lab.fabric;
        let address = rloc(7, how.v6);
        stranger.ip(&format!(
            "addr add {address}/{} dev br0 {}",
            if how.v6 { 64 } else { 24 },
            if how.v6 { "nodad" } else { "" }
        ));
        let socket = stranger.run(|| UdpSocket::bind((address.get(), 0)).unwrap());
        socket.send_to(&with_bits(id, 7001, &frame(6)), to).unwrap();
        wait_for("its end", || (traces.pair.lab.nves[1].count(Reason::ForeignRloc) == 1).then_some(()));
        traces.none(1);
        // A tenant system that sets the mark, and one that sends the bits inside.
        traces.know(0, id, Way::To(None), false);
        let mark = 0x5800_0000 | id.get();
        let socket = traces.pair.lab.tss[0].ns.run(|| marked(mark));
        traces.pair.lab.tss[0].ns.ip("addr add 10.0.0.1/24 dev eth0
             neigh add 10.0.0.2 lladdr 02:00:00:00:00:02 dev eth0");
        socket.send_to(&with_bits(id, 7001, b"inside"), ("10.0.0.2", 4789)).unwrap();
        traces.pair.wires[1].receive("it", |f| f.ends_with(b"inside"));
        traces.none(0);
        traces.none(1);
        // Nor an ended one.
        traces.pair.lab.nves[0].with(|k| k.end_trace(id).unwrap());
        traces.come_in(id, &frame(8));
        arrives(&mut traces, 8);
        traces.none(0);
    }
}

/// A UDP socket whose datagrams have a mark.
fn marked(mark: u32) -> UdpSocket {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
    let len = u32::try_from(size_of_val(&mark)).unwrap();
    // SAFETY: an open socket, a live option and its length.
    let set = unsafe {
        let at = (&raw const mark).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MARK, at, len)
    };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    socket
}

/// To a VAP beside.
#[test]
fn on_one_host() {
    let mut traces = Traces::new(VETH);
    let ts = traces.pair.lab.plug(0, 3, VETH);
    let at = Op::SetLocation(vni(7001), ts_mac(3).get(), Location::Local(ts.device));
    traces.pair.lab.nves[0].apply(&[Op::SetVap(ts.device, common::Lab::vap(3, VETH)), at]);
    let mut frame = datagram_of(0, false, 1, 53);
    frame[5] = 3;
    let id = traces.id();
    traces.know(0, id, Way::To(None), false);
    traces.come_in(id, &frame);
    let there = Step::Location { by: By::Table, vap: Some(ts.device), rloc: None };
    let handed = end(Ended::Delivered(ts.device), Reason::Local);
    assert_eq!(traces.ended(0, id), [Step::Checked, there, handed]);
}
