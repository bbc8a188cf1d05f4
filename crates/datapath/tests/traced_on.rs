//! A traced packet that another NVE sends on, as its destination has moved or as its gateway, is traced there and further on.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

mod common;

use common::{How, Lab, frames::*, options, pair::datagram_of, rloc, ts_mac, vni, wait_for};
use std::time::Duration;
use weft_datapath::{
    Away, By, Ended, Location, Op, Path, Peer, Reason, Step, Steps, Trace, TraceId, VapKind, Vn, Way,
};
use weft_model::{Epoch, Miss, Rloc};

const SOON: Duration = Duration::from_secs(10);

/// Tenant system 1 at NVE 0 and 2 at NVE 2, for which NVE 0 sends to NVE 1.
struct Three {
    lab: Lab,
    steps: Vec<Steps>,
    wires: Vec<Wire>,
    v6: bool,
    next: u32,
}

impl Three {
    fn new(how: How) -> Self {
        let mut lab = Lab::of(3, &options);
        for (i, nve) in lab.nves.iter_mut().enumerate() {
            for (other, node) in [(0, 1), (1, 2), (2, 3)].into_iter().filter(|(other, _)| *other != i) {
                let peer = Peer { nve: true, oracle: false, node, other: None };
                nve.apply(&[false, true].map(|v6| Op::SetPeer(rloc(other, v6).get(), peer)));
            }
        }
        lab.attach(0, 1, how);
        lab.attach(2, 2, how);
        lab.tss.iter().for_each(common::Ts::silence);
        let wires = lab.tss.iter().map(|ts| Wire::new(&ts.ns, "eth0")).collect();
        let steps = lab.nves.iter_mut().map(|nve| nve.with(|k| k.steps().unwrap())).collect();
        let stale = Location::Remote { rloc: rloc(1, how.v6), epoch: Epoch::FIRST, other: 0 };
        lab.nves[0].apply(&[Op::SetLocation(vni(7001), ts_mac(2).get(), stale)]);
        Self { lab, steps, wires, v6: how.v6, next: 0 }
    }

    /// Sends a packet that all three know of; to the third one the second may send it on, if it is told `on`.
    fn send(&mut self, inner6: bool, on: Option<Rloc>, deliver: bool) -> TraceId {
        self.next += 0x1_0203;
        let (id, v6) = (TraceId::new(self.next).unwrap(), self.v6);
        let from = |n: usize, next| Way::From { rloc: rloc(n, v6), lasts: SOON, next };
        let ways = [Way::To(Some(rloc(1, v6))), from(0, on), from(1, None)];
        for (nve, way) in self.lab.nves.iter_mut().zip(ways) {
            let trace = Trace { vni: vni(7001), way, deliver };
            nve.with(|k| k.set_trace(id, &trace).unwrap());
        }
        let vap = self.lab.tss[0].device;
        let frame = datagram_of(0, inner6, 1000, 53);
        self.lab.nves[0].with(|k| k.send_traced(id, vap, &frame).unwrap());
        id
    }

    /// The steps at an NVE, to the end.
    fn seen(&mut self, nve: usize, id: TraceId) -> Vec<Step> {
        let mut all = Vec::new();
        wait_for("the end of a trace", || {
            all.extend(self.steps[nve].drain());
            let last = all.iter().any(|t| matches!(t.step, Step::End(ended, _) if ended.is_final()));
            last.then_some(())
        });
        assert!(all.iter().all(|t| t.id == id), "{all:?}");
        all.into_iter().map(|t| t.step).filter(|step| *step != Step::End(Ended::Passed, None)).collect()
    }

    /// All of it, by way of the second NVE, which sends it on for `reason` with this outer TTL.
    fn goes_on(&mut self, reason: Reason, by: By, ttl: u8) {
        let vap = self.lab.tss[1].device;
        let there = Step::Location { by, vap: None, rloc: Some(rloc(2, self.v6)) };
        let arrived = |nve: usize, ttl| Step::Arrived { from: Some(rloc(nve, self.v6)), vni: 7001, ttl };
        let (from_first, from_second) = (arrived(0, 64), arrived(1, ttl));
        for inner6 in [false, true] {
            for deliver in [false, true] {
                let id = self.send(inner6, Some(rloc(2, self.v6)), deliver);
                let left = Step::End(Ended::Left, Some(Reason::Encapsulated));
                assert_eq!(self.seen(0, id).last(), Some(&left));
                assert_eq!(self.seen(1, id), [from_first, there, Step::End(Ended::Left, Some(reason))]);
                let handed = Step::End(Ended::Delivered(vap), Some(Reason::Delivered));
                assert_eq!(self.seen(2, id), [from_second, handed]);
                if deliver {
                    let frame = datagram_of(0, inner6, 1000, 53);
                    let came = self.wires[1].until("the packet", |f| f == frame);
                    assert_eq!(came.len(), 1, "one of two was to be delivered: {came:?}");
                }
            }
            // Where nobody knows of it, or another one does, it ends, whatever it was to be.
            for on in [None, Some(rloc(7, self.v6))] {
                let id = self.send(inner6, on, true);
                self.seen(0, id);
                assert_eq!(self.seen(1, id), [from_first, there, Step::End(Ended::Stopped, Some(reason))]);
                assert_eq!(self.steps[2].drain(), []);
            }
        }
        assert_eq!(self.lab.nves[1].count(reason), 4, "{}", self.lab.dump());
        assert_eq!(self.lab.nves[2].count(Reason::Delivered), 4, "{}", self.lab.dump());
        let punts = self.lab.nves[1].punts.as_mut().unwrap().drain(10);
        assert!(punts.is_empty(), "a trace solicits nobody: {punts:?}");
    }
}

/// V6: it was at the second NVE and has moved.
fn redirected(how: How) {
    let mut three = Three::new(how);
    let gone = Away { rloc: rloc(2, how.v6), epoch: Epoch::new(2).unwrap() };
    let nothing = Op::RemoveLocation(vni(7001), ts_mac(2).get());
    three.lab.nves[1].apply(&[nothing, Op::SetAway(vni(7001), ts_mac(2).get(), gone)]);
    three.goes_on(Reason::Redirected, By::Learning, 63);
}

#[test]
fn redirected_direct_v4() {
    redirected(How { kind: VapKind::Veth, path: Path::Direct, v6: false });
}

#[test]
fn redirected_v6() {
    redirected(How { kind: VapKind::Veth, path: Path::Direct, v6: true });
}

/// The second NVE is the gateway of the VN.
#[test]
fn carried_on_by_the_gateway() {
    for v6 in [false, true] {
        let mut three = Three::new(How { kind: VapKind::Veth, path: Path::Direct, v6 });
        let vn = |carries| Vn { carries, ..Vn::default() };
        three.lab.nves[1].apply(&[Op::SetVn(vni(7001), vn(true))]);
        let gateway = Vn { miss: Miss::Gateway, gateway: Some(rloc(1, v6)), ..Vn::default() };
        three.lab.nves[2].apply(&[Op::SetVn(vni(7001), gateway)]);
        three.goes_on(Reason::ByGateway, By::Table, 32);
    }
}
