//! The data plane in software: what the eBPF programs decide, as a pure function of the tables.
//!
//! Not in it, because they are no function of tables and frame: rate limits (a punt is always
//! granted), when the fence closes, segmentation offload, and the fall back to the device path where the
//! kernel has no route.

mod admit;
mod answer;
pub(crate) mod bytes;
mod carry;
mod connections;
mod fabric;
mod learned;
mod members;
mod meter;
mod miss;
mod packet;
mod policy;
mod route;
mod translate;
mod tunnel;
mod vap;

use crate::{
    Connection, Counter, Datapath, DatapathError, Direction, Heard, Idle, IfIndex, Levels, Limits, Op, Path,
    PuntReason, RULE_COUNTERS, Reason, Seen, Tables, Toward, Tracked, Tunnel, Vap,
};
pub use connections::Packet;
use core::{net::IpAddr, time::Duration};
pub use learned::{Learned, Lesson};
use std::collections::{BTreeMap, BTreeSet};
use weft_model::{MacAddr, Rloc, TenantIp, Time, Vni};

/// Where a frame comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ingress {
    /// From a tenant system's device.
    Vap(IfIndex),
    /// From a device that leads to RLOCs; the frame has its outer headers.
    Underlay(IfIndex),
    /// From the VXLAN device, which has stripped and read the outer headers.
    Overlay {
        /// The VNI in the VXLAN header.
        vni: u32,
        /// The outer source.
        from: IpAddr,
    },
}

/// What is done with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Nothing more.
    Drop,
    /// It is the kernel's: not ours, or the VXLAN device's to strip.
    Pass,
    /// To the tenant system at this VAP.
    Deliver(IfIndex),
    /// An answer, back to where it came from.
    Reply,
    /// To another NVE.
    Tunnel {
        /// Which.
        rloc: Rloc,
        /// How.
        path: Path,
    },
    /// To the other VAPs of its VN here and, if a tenant system here sent it, to the VN's members.
    Replicate {
        /// How many copies that are.
        copies: u32,
    },
    /// To the agent.
    Punt(PuntReason),
}

/// A decision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// What is done.
    pub action: Action,
    /// What it is counted as; none for [`Action::Pass`].
    pub reason: Option<Reason>,
    /// The VN it is counted under.
    pub vni: Option<Vni>,
    /// The path it is counted under.
    pub path: Path,
    /// The sender is known behind another RLOC.
    pub moved: bool,
    /// The MAC address whose location in the tables says where it goes, if it goes by one.
    pub used: Option<MacAddr>,
    /// What is learned from the frame.
    pub lessons: Vec<Lesson>,
    /// It goes to its VN's gateway.
    pub carried: bool,
    /// Why the agent is handed a copy beside what is done.
    pub also: Option<PuntReason>,
    /// The rules of policies that let it through, with the octets that are counted for each.
    pub allowed: Vec<(u32, u64)>,
    /// What the agent is told of because of policies, in order.
    pub logged: Vec<PuntReason>,
    /// How many VAPs' policies did not let it in: the one it is for ([`Reason::Denied`]), or those that get no copy.
    pub kept_out: u32,
    /// Likewise how many VAPs are sent more than they may be ([`Reason::RateLimited`]).
    pub over_rate: u32,
    /// What leaves. Outer MAC addresses are zero and the outer UDP source port is 0: the kernel's
    /// neighbour table and flow hash say those. On the device path the frame without outer headers.
    pub frames: Vec<Vec<u8>>,
}

impl Verdict {
    /// With what a policy makes of it when it decides last; why that refuses it, if it does.
    fn checked(&mut self, checked: policy::Checked, octets: usize) -> Option<Reason> {
        let octets = u64::try_from(octets).unwrap_or(u64::MAX);
        self.allowed.extend(checked.rule.map(|rule| (rule, octets)));
        self.lessons.extend(checked.lessons);
        self.logged.extend(checked.logged);
        checked.refused
    }

    /// With what was decided before it.
    fn after(self, before: Self) -> Self {
        Self {
            lessons: before.lessons.into_iter().chain(self.lessons).collect(),
            allowed: before.allowed.into_iter().chain(self.allowed).collect(),
            logged: before.logged.into_iter().chain(self.logged).collect(),
            ..self
        }
    }

    /// A frame for one VAP here, unless that one's policy keeps it out.
    fn unless_kept_out(mut self, checked: policy::Checked, octets: usize) -> Self {
        if self.checked(checked, octets).is_none() {
            return self;
        }
        let (reason, frames) = (Some(Reason::Denied), Vec::new());
        Self { action: Action::Drop, reason, frames, kept_out: 1, ..self }
    }

    /// A frame for the VAP at `at`, unless that is sent too much.
    fn unless_over_rate(mut self, learned: &Learned, at: IfIndex, to: &Vap, octets: usize) -> Self {
        match learned.meters.take(at, to, Toward::In, octets) {
            _ if self.action == Action::Drop => self,
            Some(lesson) => {
                self.lessons.extend(lesson);
                self
            }
            None => {
                let (reason, frames) = (Some(Reason::RateLimited), Vec::new());
                Self { action: Action::Drop, reason, frames, over_rate: 1, ..self }
            }
        }
    }

    /// An action that nothing is counted for and nothing leaves by.
    const fn new(action: Action) -> Self {
        Self {
            action,
            reason: None,
            vni: None,
            path: Path::Direct,
            moved: false,
            carried: false,
            used: None,
            lessons: Vec::new(),
            also: None,
            allowed: Vec::new(),
            logged: Vec::new(),
            kept_out: 0,
            over_rate: 0,
            frames: Vec::new(),
        }
    }
}

/// Decides about one frame by the tables and what was `learned` from earlier ones.
#[must_use]
pub fn decide(tables: &Tables, learned: &Learned, ingress: Ingress, frame: &[u8]) -> Verdict {
    match ingress {
        Ingress::Vap(device) => vap::decide(tables, learned, device, frame),
        Ingress::Underlay(_) => fabric::from_underlay(tables, learned, frame),
        Ingress::Overlay { vni, from } => fabric::from_overlay(tables, learned, vni, from, frame),
    }
}

/// What frames are counted by; the value is packets and octets.
type Counted = (Option<Vni>, Reason, Path, Direction);

/// A data plane of tables and counters only, for simulations and tests of whoever drives one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Model {
    tables: Tables,
    now: Time,
    counters: BTreeMap<Counted, (u64, u64)>,
    used: BTreeMap<(Vni, MacAddr), Time>,
    injected: Vec<(IfIndex, Vec<u8>)>,
    resent: Vec<(IfIndex, Vec<u8>)>,
    carried: Vec<(Vni, Rloc, Vec<u8>)>,
    learned: Learned,
    rules: BTreeMap<u32, (u64, u64)>,
}

impl Model {
    /// Empty tables at time zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The tables.
    #[must_use]
    pub const fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Decides about a frame at `now`, counts it, and notes the location it went to as used.
    pub fn receive(&mut self, now: Time, ingress: Ingress, frame: &[u8]) -> Verdict {
        self.now = self.now.max(now);
        self.learned.forget(self.now);
        let verdict = decide(&self.tables, &self.learned, ingress, frame);
        self.learned.note(self.now, &verdict.lessons);
        let direction = if matches!(ingress, Ingress::Vap(_)) { Direction::Out } else { Direction::In };
        for (rule, octets) in &verdict.allowed {
            let (packets, bytes) = self.rules.entry(*rule).or_default();
            *packets += 1;
            *bytes += octets;
        }
        let inward = [(Reason::Denied, verdict.kept_out), (Reason::RateLimited, verdict.over_rate)];
        for (reason, times) in inward {
            for _ in 0..times {
                let key = (verdict.vni, reason, verdict.path, Direction::In);
                let (packets, bytes) = self.counters.entry(key).or_default();
                *packets += 1;
                *bytes += u64::try_from(frame.len()).unwrap_or(u64::MAX);
            }
        }
        // Counted for each of them.
        let counted = verdict.reason.filter(|reason| !inward.iter().any(|(of, n)| of == reason && *n != 0));
        if let Some(reason) = counted {
            let moved = verdict.moved.then_some(Reason::SrcMoved);
            let also = verdict.also.map(|_| Reason::Punted);
            let carried = verdict.carried.then_some(Reason::ByGateway);
            for reason in moved.into_iter().chain(also).chain(carried).chain([reason]) {
                let key = (verdict.vni, reason, verdict.path, direction);
                let (packets, bytes) = self.counters.entry(key).or_default();
                *packets += 1;
                *bytes += u64::try_from(frame.len()).unwrap_or(u64::MAX);
            }
        }
        if let Some((vni, mac)) = verdict.vni.zip(verdict.used) {
            self.used.insert((vni, mac), self.now);
        }
        verdict
    }

    /// What was injected since the last call, in order.
    pub fn take_injected(&mut self) -> Vec<(IfIndex, Vec<u8>)> {
        core::mem::take(&mut self.injected)
    }

    /// What was carried on since the last call, in order.
    pub fn take_carried(&mut self) -> Vec<(Vni, Rloc, Vec<u8>)> {
        core::mem::take(&mut self.carried)
    }

    /// What was sent again since the last call, in order.
    pub fn take_resent(&mut self) -> Vec<(IfIndex, Vec<u8>)> {
        core::mem::take(&mut self.resent)
    }
}

impl Datapath for Model {
    fn apply(&mut self, op: &Op) -> Result<(), DatapathError> {
        if let Op::SetRule(_, allow) = op
            && allow.rule >= RULE_COUNTERS
        {
            return Err(DatapathError::NoRuleCounter(allow.rule));
        }
        self.tables.apply(op);
        self.learned.apply(op);
        if let Op::RemoveLocation(vni, mac) = op {
            self.used.remove(&(*vni, *mac));
        }
        let tables = &self.tables;
        self.counters.retain(|key, _| key.0.is_none_or(|vni| tables.vaps.values().any(|vap| vap.vni == vni)));
        Ok(())
    }

    fn observed(&self) -> Result<Tables, DatapathError> {
        Ok(self.tables.clone())
    }

    fn counters(&self) -> Result<Vec<Counter>, DatapathError> {
        let counter = |(key, value): (&Counted, &(u64, u64))| Counter {
            vni: key.0,
            reason: key.1,
            path: key.2,
            direction: key.3,
            packets: value.0,
            bytes: value.1,
        };
        Ok(self.counters.iter().map(counter).collect())
    }

    fn learned(&self) -> Result<Vec<Seen>, DatapathError> {
        Ok(self.learned.seen(self.now))
    }

    fn heard(&self) -> Result<Vec<Heard>, DatapathError> {
        Ok(self.learned.heard(self.now))
    }

    fn last_used(&self, vni: Vni, mac: MacAddr) -> Result<Option<Idle>, DatapathError> {
        Ok(self.used.get(&(vni, mac)).map(|at| self.now.since(*at)))
    }

    fn vouch(&mut self, _lasts: Duration) -> Result<(), DatapathError> {
        Ok(())
    }

    fn resend(&mut self, vap: IfIndex, frame: &[u8]) -> Result<Reason, DatapathError> {
        let verdict = self.receive(self.now, Ingress::Vap(vap), frame);
        self.resent.push((vap, frame.to_vec()));
        Ok(verdict.reason.unwrap_or(Reason::NoVap))
    }

    fn carry(&mut self, vni: Vni, from: Rloc, frame: &[u8]) -> Result<Reason, DatapathError> {
        let ingress = Ingress::Overlay { vni: vni.get(), from: from.get() };
        let verdict = self.receive(self.now, ingress, frame);
        self.carried.push((vni, from, frame.to_vec()));
        Ok(verdict.reason.filter(|reason| *reason != Reason::Punted).unwrap_or(Reason::NoSuchTs))
    }

    fn inject(&mut self, vap: IfIndex, frame: &[u8]) -> Result<(), DatapathError> {
        if !self.tables.vaps.contains_key(&vap) {
            return Err(DatapathError::NoDevice(vap));
        }
        if !(14..=65_535).contains(&frame.len()) {
            return Err(DatapathError::FrameLength(frame.len()));
        }
        self.injected.push((vap, frame.to_vec()));
        Ok(())
    }

    fn rule_counters(&self) -> Result<Vec<(u32, u64, u64)>, DatapathError> {
        Ok(self.rules.iter().map(|(rule, (packets, bytes))| (*rule, *packets, *bytes)).collect())
    }

    fn clear_rule(&mut self, rule: u32) -> Result<(), DatapathError> {
        if rule >= RULE_COUNTERS {
            return Err(DatapathError::NoRuleCounter(rule));
        }
        self.rules.remove(&rule);
        Ok(())
    }

    fn tracked(&self) -> Result<Tracked, DatapathError> {
        let entries = u64::try_from(self.learned.connections.len()).unwrap_or(u64::MAX);
        Ok(Tracked { entries, evicted: 0, unfollowed: 0, capacity: Limits::default().connections.into() })
    }

    fn connections(
        &self,
        vni: Vni,
        of: Option<&BTreeSet<TenantIp>>,
    ) -> Result<Vec<Connection>, DatapathError> {
        Ok(self.learned.connections.of(self.now, vni, of))
    }

    fn set_connections(&mut self, connections: &[Connection]) -> Result<(), DatapathError> {
        self.learned.connections.take_over(self.now, connections);
        Ok(())
    }

    fn remove_connections(&mut self, vni: Vni, of: &BTreeSet<TenantIp>) -> Result<(), DatapathError> {
        self.learned.connections.remove(vni, of);
        Ok(())
    }

    fn levels(&self, vap: IfIndex) -> Result<Levels, DatapathError> {
        let of = |tunnel: &Tunnel| self.learned.levels(vap, tunnel);
        Ok(self.tables.vaps.get(&vap).map_or_else(Levels::default, |vap| of(&vap.tunnel)))
    }

    fn lower(&mut self, vap: IfIndex, levels: Levels, ago: Duration) -> Result<(), DatapathError> {
        if let Some(Vap { tunnel, .. }) = self.tables.vaps.get(&vap) {
            self.learned.lower(vap, tunnel, levels, ago);
        }
        Ok(())
    }
}
