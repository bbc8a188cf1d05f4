//! Steps of a traced packet as people read them.

use super::run::provenance;
use crate::agent::driver::Driver;
use weft_api::{TraceStep, local::CacheEntry};
use weft_datapath::{By, ConnectionState, Ended, IfIndex, PuntReason, Reason, Step, Toward, TraceId, Traced};
use weft_model::{Eid, MacAddr, Rloc, Vni};

impl Driver {
    /// What was seen of a packet here, in words.
    pub(super) fn told(
        &self,
        id: TraceId,
        steps: &[Traced],
        deliver: bool,
        to: Option<(Vni, MacAddr)>,
    ) -> Vec<TraceStep> {
        let mut all = Vec::new();
        let mut known = None;
        for (n, Traced { step, device, .. }) in steps.iter().enumerate() {
            let last_asked = all.last().is_some_and(|step: &TraceStep| step.step == "connection");
            match step {
                Step::Checked => {
                    all.push(self.step("spoof-check", "passed: the source addresses are the VAP's own"));
                    if self.core.tables().vaps.get(device).is_some_and(|vap| vap.policy.is_none()) {
                        all.push(self.step("policy", "out: there is none for this VAP"));
                    }
                }
                Step::Known { state, .. } => {
                    known = Some(state);
                    let text = format!("known, {}", state.map_or("in a state unknown here", connection));
                    all.push(self.step("connection", text));
                }
                Step::Policy { vap, toward, rule } => {
                    if !last_asked && rule.is_some() {
                        all.push(self.step("connection", "new"));
                    }
                    all.push(self.policy(*vap, *toward, *rule, known.take().is_some()));
                }
                Step::Location { by, vap, rloc } => {
                    let more = &steps[n..];
                    let entry =
                        to.filter(|_| *by == By::Table).and_then(|(vni, mac)| self.entry_of(vni, mac));
                    let step = self.location(*by, *vap, *rloc, (to, more));
                    all.push(match entry.filter(|entry| entry.rloc == *rloc) {
                        Some(entry) if rloc.is_some() => {
                            let text = format!("{}: {}", step.text, provenance(&entry));
                            TraceStep { text, mapping: Some(entry), ..step }
                        }
                        _ => step,
                    });
                }
                Step::Arrived { from, vni, ttl } => {
                    let nve = from.map_or_else(String::new, |from| self.nve_of(from));
                    let text = format!("{nve}, VNI {vni}, outer TTL {ttl}, trace {id}");
                    all.push(TraceStep { rloc: *from, ..self.step("arrival", text) });
                    if passed_fence(&steps[n + 1..]) {
                        all.push(self.step("fence", "passed"));
                    }
                    let to = steps.iter().find_map(|s| match s.step {
                        Step::End(Ended::Delivered(vap), _) => Some(vap),
                        _ => None,
                    });
                    let open = to.and_then(|to| self.core.tables().vaps.get(&to));
                    if open.is_some_and(|vap| vap.policy.is_none()) {
                        all.push(self.step("policy", "in: there is none for this VAP"));
                    }
                }
                Step::End(ended, reason) => all.extend(self.end(id, *ended, *reason, steps, deliver)),
            }
        }
        all
    }

    pub(super) fn step(&self, step: &str, text: impl Into<String>) -> TraceStep {
        TraceStep {
            nve: Some(self.name.clone()),
            step: step.to_owned(),
            text: text.into(),
            ..TraceStep::default()
        }
    }

    fn policy(&self, vap: IfIndex, toward: Toward, rule: Option<u32>, known: bool) -> TraceStep {
        let toward = if toward == Toward::In { "in" } else { "out" };
        let device = self.device_name(vap);
        let Some(number) = rule else {
            let step = self.step("policy", format!("{toward}: no rule of {} allows it", self.groups_at(vap)));
            return TraceStep { device, ..step };
        };
        let allowed = if known { "its connection was allowed" } else { "allowed" };
        match self.core.rules().find(|(.., n)| *n == number) {
            Some((_, group, rule, _)) => {
                let step =
                    self.step("policy", format!("{toward}: {allowed} by group {group}, rule '{rule}'"));
                TraceStep { device, group: Some(group.clone()), rule: Some(rule.to_string()), ..step }
            }
            None => {
                let text = format!("{toward}: {allowed} by a rule that there is no more");
                TraceStep { device, ..self.step("policy", text) }
            }
        }
    }

    /// The groups whose rules a VAP has.
    fn groups_at(&self, vap: IfIndex) -> String {
        let Some((vn, name)) = self.core.tsi_at(vap) else { return "its VAP".to_owned() };
        let tsi = self.core.tsis().find(|tsi| tsi.vn == *vn && tsi.grant.tsi.name == *name);
        let groups = tsi.map(|tsi| tsi.grant.groups).filter(|groups| !groups.is_empty());
        match groups {
            Some(groups) => {
                let names: Vec<String> = groups.iter().map(ToString::to_string).collect();
                format!("{vn}/{name}'s groups {}", names.join(","))
            }
            None => format!("{vn}/{name}'s default groups"),
        }
    }

    fn location(
        &self,
        by: By,
        vap: Option<IfIndex>,
        rloc: Option<Rloc>,
        (to, more): (Option<(Vni, MacAddr)>, &[Traced]),
    ) -> TraceStep {
        if let Some(vap) = vap {
            let text = format!("at a VAP of this NVE: {}", self.tsi_text(vap));
            return TraceStep { device: self.device_name(vap), ..self.step("mapping", text) };
        }
        let Some(rloc) = rloc else {
            let everywhere = more.iter().any(|s| matches!(s.step, Step::End(_, Some(Reason::Replicated))));
            let text = if everywhere { "not known; the VN floods" } else { "known to be nowhere" };
            return self.step("mapping", text);
        };
        let sent_on = more.iter().any(|s| matches!(s.step, Step::End(_, Some(Reason::Redirected))));
        let away = to.and_then(|to| self.core.tables().away.get(&to));
        let moved = sent_on || (by == By::Learning && away.is_some_and(|away| away.rloc == rloc));
        let how = match by {
            _ if moved => "it moved from here to",
            By::Table => "behind",
            By::Learning => "by frames that came from there, behind",
            By::Gateway => "not known here; the VN's gateway is to know:",
        };
        let text = format!("{how} {}", self.nve_of(rloc));
        TraceStep { rloc: Some(rloc), ..self.step("mapping", text) }
    }

    fn end(
        &self,
        id: TraceId,
        ended: Ended,
        reason: Option<Reason>,
        steps: &[Traced],
        deliver: bool,
    ) -> Option<TraceStep> {
        let word = |reason: Option<Reason>| reason.map(|reason| reason.as_str().to_owned());
        let rloc = steps.iter().rev().find_map(|s| match s.step {
            Step::Location { rloc, .. } => rloc,
            _ => None,
        });
        let to = || rloc.map_or_else(String::new, |rloc| self.nve_of(rloc));
        let step = match ended {
            Ended::Dropped => {
                let (name, why) = reason.map_or(("unknown", ""), |r| (r.as_str(), why(r)));
                let text = if why.is_empty() { name.to_owned() } else { format!("{name}: {why}") };
                TraceStep { reason: word(reason), ..self.step("drop", text) }
            }
            Ended::Passed => self.step("path", "the VXLAN device strips it"),
            Ended::Delivered(vap) => {
                let what = if deliver { "handed to" } else { "would be handed to" };
                let text = format!("{what} {}", self.tsi_text(vap));
                TraceStep {
                    device: self.device_name(vap),
                    reason: word(reason),
                    ..self.step("delivery", text)
                }
            }
            Ended::Left => {
                let text = format!("VXLAN to {}, trace {id}", to());
                TraceStep { rloc, reason: word(reason), ..self.step("tunnel", text) }
            }
            Ended::Punted(reason) => {
                let text = match reason {
                    Some(PuntReason::NoSuchTs) => "the agent is told that the sender's tables are wrong",
                    _ => "not known here: an Oracle is asked",
                };
                self.step("agent", text)
            }
            Ended::Stopped if reason == Some(Reason::Encapsulated) => {
                let text = format!("would go to {}; it ends here, as nobody there was told of it", to());
                TraceStep { rloc, ..self.step("tunnel", text) }
            }
            Ended::Stopped if reason == Some(Reason::Replicated) => {
                let text = "would go to everybody in the VN; it ends here, as it is not to be handed over";
                TraceStep { reason: word(reason), ..self.step("tunnel", text) }
            }
            Ended::Stopped => {
                let text =
                    format!("would be sent on to {}; it ends here, as nobody there was told of it", to());
                TraceStep { rloc, reason: word(reason), ..self.step("tunnel", text) }
            }
            Ended::Answered => TraceStep { reason: word(reason), ..self.step("answer", "answered here") },
            Ended::Replicated => {
                TraceStep { reason: word(reason), ..self.step("tunnel", "to every NVE of the VN") }
            }
        };
        Some(step)
    }

    fn tsi_text(&self, vap: IfIndex) -> String {
        let device = self.device_name(vap).unwrap_or_else(|| format!("device {}", vap.0));
        match self.core.tsi_at(vap) {
            Some((vn, tsi)) => format!("{vn}/{tsi} at {device}"),
            None => device,
        }
    }

    fn device_name(&self, vap: IfIndex) -> Option<String> {
        let (vn, tsi) = self.core.tsi_at(vap)?;
        self.core.device_of(vn, tsi).map(|device| device.name.clone())
    }

    /// An underlay address and whose it is.
    pub(super) fn nve_of(&self, rloc: Rloc) -> String {
        match self.core.nve_at(rloc) {
            Some((_, name, _)) => format!("{rloc} ({name})"),
            None => rloc.to_string(),
        }
    }

    /// The entry by which a MAC address is where it is, with its NVE's name.
    pub(super) fn entry_of(&self, vni: Vni, mac: MacAddr) -> Option<CacheEntry> {
        self.core.cached(vni, Eid::Mac(mac)).and_then(|entry| self.shown_entry(entry))
    }

    pub(super) fn shown_entry(&self, entry: crate::core::CacheEntry) -> Option<CacheEntry> {
        let mut shown = self.entry(entry)?;
        shown.nve = shown.rloc.and_then(|rloc| self.core.nve_at(rloc)).map(|(_, name, _)| name.clone());
        Some(shown)
    }
}

/// Whether the check of who sent it was passed: it is the first after the VXLAN header's.
fn passed_fence(after: &[Traced]) -> bool {
    !matches!(
        after.first().map(|traced| traced.step),
        None | Some(Step::End(
            Ended::Dropped,
            Some(
                Reason::Fenced
                    | Reason::VlanTagged
                    | Reason::InnerGroup
                    | Reason::Malformed
                    | Reason::SpoofedMac
            )
        ))
    )
}

/// How far a connection is.
const fn connection(state: ConnectionState) -> &'static str {
    match state {
        ConnectionState::Opening => "opening: nobody has answered",
        ConnectionState::Answered => "answered",
        ConnectionState::Established => "established",
        ConnectionState::EndedHere | ConnectionState::EndedThere => "ended by one side",
        ConnectionState::Closing => "closing",
        ConnectionState::Reset => "reset",
    }
}

/// What a reason means for who reads a trace.
const fn why(reason: Reason) -> &'static str {
    match reason {
        Reason::NotActivated => "the VAP is not Activated; `weft tsi activate` puts it in service",
        Reason::SpoofedMac => "the source MAC address is not the VAP's",
        Reason::SpoofedIp => "the source address is none of the VAP's",
        Reason::SpoofedArp | Reason::SpoofedNd => "it announces an address that is none of the VAP's",
        Reason::Denied => "no rule allows it",
        Reason::WrongMac => {
            "its IP address is another tenant system's than its MAC address; no rule was asked"
        }
        Reason::TooBig => "larger than the tenant MTU",
        Reason::NoSuchTs => "the tenant system is not at that NVE",
        Reason::Nobody => "no tenant system has the address",
        Reason::Nowhere => "no tenant system has the MAC address",
        Reason::UnknownMac => "nobody here knows where the MAC address is; an Oracle is asked",
        Reason::UnknownVni => "that NVE has no part in the VN",
        Reason::ForeignRloc => "the sender's underlay address is no NVE's there",
        Reason::NoRloc => "the other NVE has no underlay address of a family that this one has",
        Reason::Fenced => "the sender is somewhere else, by the latest word",
        Reason::RedirectLoop => "it moved on from there, to where the frame came from",
        Reason::RogueDhcp => "only DHCP servers send such",
        Reason::RogueRouter => "only routers send such",
        Reason::PuntLimited => "the agent is asked too often",
        Reason::Kernel => "a kernel helper refused it",
        _ => "",
    }
}
