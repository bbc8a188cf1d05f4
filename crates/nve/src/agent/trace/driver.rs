//! The driver's part: what is known of a packet's way, sending it, and taking in what the programs say of it.

use super::seen::{Seen, outcome};
use crate::agent::{
    driver::Driver,
    handover::{Credentials, Refusal as NotTold},
    local::Refusal,
};
use crate::core::TsiState;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::oneshot,
};
use weft_api::{Client, Code, TraceRequest, local::CacheEntry};
use weft_datapath::{IfIndex, Location, Neighbour, Step, Steps, Trace, TraceId, Traced, Way};
use weft_model::{Eid, Learning, MacAddr, NveName, Rloc, TenantIp, TsiId, Vni, XtrId};

/// Packets under way at a time: of those that begin here, and of those that come from elsewhere.
const AT_ONCE: usize = 16;
/// How long one may take from elsewhere.
pub(in crate::agent) const EXPECTED: Duration = Duration::from_secs(10);
/// Steps that are kept of one.
const STEPS: usize = 64;

/// What is asked of the driver.
pub(in crate::agent) enum Event {
    /// What is known of a packet's way; where it would leave for, if that is known better.
    Look(Box<TraceRequest>, Option<Rloc>, oneshot::Sender<Result<Box<Look>, Refusal>>),
    /// Send it. What was seen of it comes when it has ended.
    Send(Sending, oneshot::Sender<Result<oneshot::Receiver<Seen>, Refusal>>),
    /// One comes from another NVE.
    Expect(Expected, oneshot::Sender<Result<oneshot::Receiver<Seen>, NotTold>>),
    /// It is not waited for any longer.
    End(TraceId),
}

/// A packet to send.
pub(in crate::agent) struct Sending {
    pub(super) id: TraceId,
    pub(super) vni: Vni,
    pub(super) device: IfIndex,
    /// The NVE that was told.
    pub(super) to: Option<Rloc>,
    pub(super) deliver: bool,
    pub(super) frame: Vec<u8>,
}

/// A packet that another NVE sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::agent) struct Expected {
    pub(in crate::agent) tsi: TsiId,
    pub(in crate::agent) id: TraceId,
    pub(in crate::agent) nve: XtrId,
    /// From there.
    pub(in crate::agent) from: Rloc,
    /// Where it may be sent on to.
    pub(in crate::agent) next: Option<Rloc>,
    pub(in crate::agent) deliver: bool,
}

/// What is known of a packet's way before it is sent.
pub(in crate::agent) struct Look {
    pub(super) own: NveName,
    pub(super) vni: Vni,
    pub(super) device: IfIndex,
    pub(super) device_name: String,
    pub(super) activated: bool,
    pub(super) macs: (MacAddr, MacAddr),
    pub(super) ips: (IpAddr, IpAddr),
    pub(super) address: Address,
    /// How the address is known.
    pub(super) mapping: Option<CacheEntry>,
    pub(super) remote: Option<Remote>,
    pub(super) client: Arc<Client>,
    pub(super) credentials: Arc<Credentials>,
    pub(super) rlocs: BTreeSet<Rloc>,
    pub(super) port: u16,
}

/// What is known of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// Whose it is, and where that is.
    Known,
    /// It was given, or does not matter.
    Given,
    /// It is a tenant system's here.
    Here,
    /// It is a tenant system's here that is out of service.
    OutOfService,
    /// Nobody has it, an Oracle says.
    Nobody,
    /// An Oracle is asked.
    Asked,
}

/// Another NVE.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    pub(super) rloc: Rloc,
    pub(super) nve: XtrId,
    pub(super) name: NveName,
    pub(super) rlocs: BTreeSet<Rloc>,
}

struct Open {
    deliver: bool,
    /// Where it goes, of one that begins here.
    to: Option<(Vni, MacAddr)>,
    /// From elsewhere.
    comes: bool,
    steps: Vec<Traced>,
    seen: oneshot::Sender<Seen>,
}

/// Packets under way.
pub(in crate::agent) struct Traces {
    steps: Option<AsyncFd<Steps>>,
    open: BTreeMap<TraceId, Open>,
}

impl Traces {
    /// None under way; what the programs say comes by `steps`.
    pub(in crate::agent) fn new(steps: Option<Steps>) -> std::io::Result<Self> {
        // As with punts, whose descriptor the AsyncFd owns, too.
        #[allow(deprecated)]
        let steps = steps.map(|steps| AsyncFd::with_interest(steps, Interest::READABLE)).transpose()?;
        Ok(Self { steps, open: BTreeMap::new() })
    }

    /// Waits for what the programs say.
    pub(in crate::agent) async fn steps(&mut self) -> std::io::Result<Vec<Traced>> {
        let Some(steps) = &mut self.steps else { return std::future::pending().await };
        loop {
            let mut ready = steps.readable_mut().await?;
            let all = ready.get_inner_mut().drain();
            ready.clear_ready();
            if !all.is_empty() {
                return Ok(all);
            }
        }
    }
}

impl Driver {
    pub(in crate::agent) fn trace(&mut self, event: Event) {
        match event {
            Event::Look(request, towards, answer) => {
                let look = self.look_at(&request, towards).map(Box::new);
                let _ = answer.send(look);
            }
            Event::Send(sending, answer) => {
                let id = sending.id;
                if answer.send(self.send_traced(&sending)).is_err() {
                    self.end_trace(id);
                }
            }
            Event::Expect(expected, answer) => {
                let id = expected.id;
                if answer.send(self.expect(&expected)).is_err() {
                    self.end_trace(id);
                }
            }
            Event::End(id) => self.end_trace(id),
        }
    }

    /// Takes in what the programs say.
    pub(in crate::agent) fn traced(&mut self, steps: Vec<Traced>) {
        for traced in steps {
            let Some(open) = self.traces.open.get_mut(&traced.id) else { continue };
            if open.steps.len() < STEPS {
                open.steps.push(traced);
            }
            if matches!(traced.step, Step::End(ended, _) if ended.is_final()) {
                self.end_trace(traced.id);
            }
        }
    }

    fn end_trace(&mut self, id: TraceId) {
        let Some(Open { deliver, to, steps, seen, .. }) = self.traces.open.remove(&id) else { return };
        if let Err(error) = self.plane.end_trace(id) {
            tracing::warn!(%error, trace = %id, "the data plane did not forget a trace");
        }
        let (result, reason, left, stopped_before) = outcome(&steps, deliver);
        let steps = self.told(id, &steps, deliver, to);
        let reason = reason.map(|reason| reason.as_str().to_owned());
        let _ = seen.send(Seen { steps, result, reason, left, stopped_before });
    }

    /// A place for one more; those that nobody waits for any more give theirs up.
    fn open_trace(
        &mut self,
        id: TraceId,
        trace: &Trace,
        to: Option<(Vni, MacAddr)>,
    ) -> Result<oneshot::Receiver<Seen>, NotTold> {
        let left: Vec<TraceId> =
            self.traces.open.iter().filter(|(_, open)| open.seen.is_closed()).map(|(id, _)| *id).collect();
        left.into_iter().for_each(|id| self.end_trace(id));
        let comes = matches!(trace.way, Way::From { .. });
        let open = self.traces.open.values().filter(|open| open.comes == comes).count();
        if open >= AT_ONCE || self.traces.open.contains_key(&id) {
            return Err(NotTold::Traces(AT_ONCE));
        }
        self.plane.set_trace(id, trace).map_err(|e| NotTold::Datapath(e.to_string()))?;
        let (seen, wait) = oneshot::channel();
        self.traces.open.insert(id, Open { deliver: trace.deliver, to, comes, steps: Vec::new(), seen });
        Ok(wait)
    }

    fn send_traced(&mut self, sending: &Sending) -> Result<oneshot::Receiver<Seen>, Refusal> {
        let Sending { id, vni, device, to, deliver, frame } = sending;
        let trace = Trace { vni: *vni, way: Way::To(*to), deliver: *deliver };
        let mac = frame.first_chunk().map(|mac| (*vni, MacAddr(*mac)));
        let seen = self.open_trace(*id, &trace, mac).map_err(Refusal::from)?;
        if let Err(error) = self.plane.send_traced(*id, *device, frame) {
            self.end_trace(*id);
            return Err(Refusal::of(Code::Internal, error.to_string()));
        }
        Ok(seen)
    }

    fn expect(&mut self, expected: &Expected) -> Result<oneshot::Receiver<Seen>, NotTold> {
        let Expected { tsi, id, nve, from, next, deliver } = expected;
        if !self.core.is_rloc_of(*nve, *from) {
            return Err(NotTold::OtherRloc { rloc: *from, nve: *nve });
        }
        let way = Way::From { rloc: *from, lasts: EXPECTED, next: *next };
        let trace = Trace { vni: tsi.vni, way, deliver: *deliver };
        tracing::info!(%tsi, %nve, trace = %id, deliver, "a traced packet is to come");
        self.open_trace(*id, &trace, None)
    }

    /// What is known of a packet's way.
    fn look_at(&mut self, request: &TraceRequest, towards: Option<Rloc>) -> Result<Look, Refusal> {
        let TraceRequest { vn, from, to, .. } = request;
        let bad = |text: String| Refusal::of(Code::BadRequest, text);
        let tsi = self.core.tsis().find(|tsi| tsi.vn == *vn && tsi.grant.tsi.name == *from);
        let tsi = tsi.ok_or_else(|| {
            let text = format!(
                "'{from}' of '{vn}' is not attached here; trace where it is: `weft get tsis` says where"
            );
            Refusal::of(Code::NotFound, text)
        })?;
        let device = self.core.device_of(vn, from).filter(|device| device.name == tsi.device);
        let Some(device) = device.map(|device| device.index).filter(|_| !tsi.device.is_empty()) else {
            return Err(Refusal::of(Code::NotFound, format!("the device of '{from}' is gone")));
        };
        let vni = tsi.grant.tsi.vni;
        let same = |ip: &&TenantIp| {
            ip.get().is_ipv4() == to.get().is_ipv4() && ip.is_link_local() == to.is_link_local()
        };
        let near = tsi.grant.ips.iter().find(same);
        let source = request.source_ip.as_ref().or(near).ok_or_else(|| {
            bad(format!(
                "'{from}' has no address from which it could send to {to}; name one with --source-ip"
            ))
        })?;
        if tsi.grant.ips.contains(to) {
            return Err(bad(format!("{to} is '{from}' itself; trace to another address")));
        }
        if !self.core.in_scope(vni, *to) {
            return Err(bad(format!(
                "{to} is in no subnet of '{vn}'; a trace goes where the VN's own frames go"
            )));
        }
        let activated = tsi.state == TsiState::Activated;
        let (mac, address) = self.address_of(vni, device, *to, request.to_mac, activated)?;
        let mapping = self.core.cached(vni, Eid::Ip(*to)).and_then(|entry| self.shown_entry(entry));
        let rloc = towards.or_else(|| self.place_of(vni, mac?));
        let remote = rloc.and_then(|rloc| {
            let (nve, name, rlocs) = self.core.nve_at(rloc)?;
            Some(Remote { rloc, nve, name: name.clone(), rlocs: rlocs.clone() })
        });
        Ok(Look {
            own: self.name.clone(),
            vni,
            device,
            device_name: tsi.device,
            activated,
            macs: (request.source_mac.unwrap_or_else(|| tsi.grant.mac.get()), mac.unwrap_or(UNKNOWN)),
            ips: (source.get(), to.get()),
            address,
            mapping,
            remote,
            client: self.client.borrow().clone(),
            credentials: self.handovers.credentials.borrow().clone(),
            rlocs: self.rlocs.clone(),
            port: self.handovers.port,
        })
    }

    /// The MAC address that a tenant system would send to, as far as it is known.
    fn address_of(
        &mut self,
        vni: Vni,
        device: IfIndex,
        to: TenantIp,
        given: Option<MacAddr>,
        activated: bool,
    ) -> Result<(Option<MacAddr>, Address), Refusal> {
        let now = self.clock.now();
        if let Some(mac) = given {
            if mac.0[0] & 1 != 0 {
                return Err(Refusal::of(
                    Code::BadRequest,
                    format!("{mac} is a group's; a trace goes to one place"),
                ));
            }
            return Ok((Some(mac), Address::Given));
        }
        match self.core.tables().neighbours.get(&(vni, to)).copied() {
            Some(Neighbour::Nobody) => return Ok((None, Address::Nobody)),
            Some(Neighbour::At(mac)) => {
                let at = self.core.tables().fdb.get(&(vni, mac)).copied();
                let address = match at {
                    Some(Location::Local(_)) => Address::Here,
                    None if activated && self.asks_for_places(vni) && self.place_of(vni, mac).is_none() => {
                        self.core.look_up(now, device, Eid::Mac(mac));
                        self.outputs();
                        Address::Asked
                    }
                    _ => Address::Known,
                };
                return Ok((Some(mac), address));
            }
            None => {}
        }
        if let Some(mac) = self.plane.heard_at(vni, to) {
            return Ok((Some(mac), Address::Known));
        }
        if !activated {
            // Nothing passes its VAP, wherever it would go.
            return Ok((None, Address::Given));
        }
        if !self.asks_for_places(vni) {
            let text = format!(
                "nobody here knows which MAC address {to} has, and no Oracle is asked in this VN; name it with --to-mac"
            );
            return Err(Refusal::of(Code::NotFound, text));
        }
        if self.core.is_out_of_service(vni, to) {
            return Ok((None, Address::OutOfService));
        }
        self.core.look_up(now, device, Eid::Ip(to));
        self.outputs();
        Ok((None, Address::Asked))
    }

    /// Whether Oracles are asked in a VN where an address is.
    fn asks_for_places(&self, vni: Vni) -> bool {
        let learning =
            self.core.vns().find(|vn| vn.vni == vni).map_or_else(Learning::default, |vn| vn.learning);
        matches!(learning, Learning::Oracle | Learning::Distribute)
    }

    /// The RLOC behind which a MAC address is, as far as it is known.
    fn place_of(&self, vni: Vni, mac: MacAddr) -> Option<Rloc> {
        match self.core.tables().fdb.get(&(vni, mac)) {
            Some(Location::Remote { rloc, .. }) => Some(*rloc),
            Some(_) => None,
            None => {
                let learned = self.plane.seen_at(vni, mac);
                learned.or_else(|| self.core.tables().away.get(&(vni, mac)).map(|away| away.rloc))
            }
        }
    }
}

/// Nobody's: where it does not matter.
const UNKNOWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 0]);
