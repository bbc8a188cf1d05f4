//! VN_Connect and VN_Disconnect as calls of their own (RFC 8394 section 3.1; requirements H1, H5, N6): a VN is known here,
//! with its policy, before any tenant system of it is.
//!
//! Who is a member of a VN is who has something in service, so nothing is joined by it: that comes with the first Activate.
//! An Oracle keeps the connection, and is asked for all that it has with each session, as it is the Oracle's to end.

use super::{ApiCall, CallId, Core, Output, Refused};
use std::collections::BTreeMap;
use weft_model::{Time, TsiName, VnName, VnSpec, Vni};

/// A question to an Oracle which connections it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Comparing {
    under_way: bool,
    /// Its answer will say nothing.
    again: bool,
}

/// What an Oracle says when there is no connection, nor may be.
const ENDS: [&str; 3] = ["not_found", "forbidden", "revoked"];

impl Core {
    /// A local call to connect to a VN; answered by [`Output::Connected`].
    pub fn handle_connect(&mut self, call: CallId, vn: VnName) {
        let known =
            self.connected.iter().find(|(_, name)| **name == vn).and_then(|(vni, _)| self.vns.get(vni));
        if let Some(spec) = known.cloned().filter(|_| !self.is_connecting(&vn)) {
            return self.outputs.push_back(Output::Connected(call, Ok(spec)));
        }
        match self.begin_connecting(call, &vn) {
            Ok(()) => self.outputs.push_back(Output::Call(ApiCall::Connect { call: Some(call), vn })),
            Err(refused) => self.outputs.push_back(Output::Connected(call, Err(refused))),
        }
    }

    /// A local call to end that; answered by [`Output::Disconnected`]. Not while tenant systems of the VN are here.
    pub fn handle_disconnect(&mut self, call: CallId, vn: VnName) {
        match self.may_disconnect(&vn).and_then(|()| self.begin_connecting(call, &vn)) {
            Ok(()) => self.outputs.push_back(Output::Call(ApiCall::Disconnect { call, vn })),
            Err(refused) => self.outputs.push_back(Output::Disconnected(call, Err(refused))),
        }
    }

    fn may_disconnect(&self, vn: &VnName) -> Result<(), Refused> {
        if !self.connected.values().any(|name| name == vn) {
            return Err(Refused::NotConnected { vn: vn.clone() });
        }
        let here = self.tsis.values().filter(|tsi| tsi.vn == *vn && !tsi.is_lost());
        let tsis: Vec<TsiName> = here.map(|tsi| tsi.grant.tsi.name.clone()).collect();
        if tsis.is_empty() { Ok(()) } else { Err(Refused::VnInUse { vn: vn.clone(), tsis }) }
    }

    fn begin_connecting(&mut self, call: CallId, vn: &VnName) -> Result<(), Refused> {
        let limit = self.config.limits.calls;
        if self.is_connecting(vn) {
            return Err(Refused::VnBusy { vn: vn.clone() });
        }
        if self.connecting.len() >= limit.max(1) {
            return Err(Refused::TooManyCalls { limit });
        }
        self.connecting.insert(call, vn.clone());
        self.comparing.again |= self.comparing.under_way;
        Ok(())
    }

    fn is_connecting(&self, vn: &VnName) -> bool {
        self.connecting.values().any(|under_way| under_way == vn)
    }

    /// An Oracle's answer to [`ApiCall::Connect`].
    pub fn handle_connected(
        &mut self,
        now: Time,
        call: Option<CallId>,
        vn: &VnName,
        answer: Result<VnSpec, Refused>,
    ) {
        self.now = now;
        let asked = call.is_none_or(|call| self.connecting.remove(&call).is_some());
        if !asked {
            return;
        }
        let known = self.connected.iter().find(|(_, name)| *name == vn).map(|(vni, _)| *vni);
        match (&answer, call) {
            (Ok(spec), call) if call.is_some() || known == Some(spec.vni) => {
                self.connected.insert(spec.vni, spec.name.clone());
                self.unsaved = true;
                self.hear_of_vn(spec.clone());
                self.adopt_orphans();
                // Who is told that it is has it after a restart.
                self.save();
            }
            // It was ended here in the meantime.
            (Ok(_), None) if known.is_none() && !self.is_connecting(vn) => {
                let call = CallId(u64::MAX);
                self.outputs.push_back(Output::Call(ApiCall::Disconnect { call, vn: vn.clone() }));
            }
            // One that cannot say now is asked again with its next session.
            (Err(Refused::Oracle { code, .. }), None) if !ENDS.contains(&code.as_str()) => {}
            // Another VN has that name by now, or none, or it is not for this NVE.
            (Ok(_) | Err(Refused::Oracle { .. }), None) => {
                if let Some(vni) = known {
                    self.end_connection(vni);
                    self.leave_vn(vni);
                }
            }
            _ => {}
        }
        if let Some(call) = call {
            self.outputs.push_back(Output::Connected(call, answer));
        }
    }

    /// An Oracle's answer to [`ApiCall::Disconnect`].
    pub fn handle_disconnected(&mut self, call: CallId, answer: Result<(), Refused>) {
        let Some(vn) = self.connecting.remove(&call) else { return };
        // What the Oracle does not know is what was asked for.
        let answer = match answer {
            Err(Refused::Oracle { code, .. }) if super::release::GONE.contains(&code.as_str()) => Ok(()),
            other => other,
        };
        let known = self.connected.iter().find(|(_, name)| **name == vn).map(|(vni, _)| *vni);
        if let Some(vni) = known.filter(|_| answer.is_ok()) {
            self.connected.remove(&vni);
            self.unsaved = true;
            self.leave_vn(vni);
            self.save();
        }
        self.outputs.push_back(Output::Disconnected(call, answer));
    }

    /// A VN is gone, or out of sight: hypervisors that have connected to it are told.
    pub(super) fn end_connection(&mut self, vni: Vni) {
        if let Some(vn) = self.connected.remove(&vni) {
            self.unsaved = true;
            // Who has asked for its end has the answer.
            if !self.is_connecting(&vn) {
                self.outputs.push_back(Output::VnDisconnected(vn));
            }
        }
    }

    fn leave_vn(&mut self, vni: Vni) {
        if !self.tsis.keys().any(|id| id.vni == vni) {
            self.vns.remove(&vni);
            self.forget_vn(vni);
        }
    }

    /// With a session an Oracle is asked which connections it has: some may have ended meanwhile, and an answer may have
    /// been lost.
    pub(super) fn compare_connections(&mut self) {
        if std::mem::replace(&mut self.comparing.under_way, true) {
            self.comparing.again = true;
        } else {
            self.outputs.push_back(Output::Call(ApiCall::Connections));
        }
    }

    /// An Oracle's answer to [`ApiCall::Connections`]. One that was on its way while something changed here says nothing,
    /// nor one that a session has come after: it is asked for again.
    pub fn handle_connections(&mut self, answer: Result<BTreeMap<Vni, VnName>, Refused>) {
        if std::mem::take(&mut self.comparing).again {
            return self.compare_connections();
        }
        match answer {
            Ok(theirs) => {
                self.confirm_connections(|vni| !theirs.contains_key(&vni));
                self.end_unknown(&theirs);
            }
            // Each is asked about, and ends.
            Err(Refused::Oracle { code, .. }) if ENDS.contains(&code.as_str()) => {
                self.confirm_connections(|_| true);
            }
            // With the next session.
            Err(_) => {}
        }
    }

    /// Of those nobody here knows: whoever asked for them was told that no Oracle has answered.
    fn end_unknown(&mut self, theirs: &BTreeMap<Vni, VnName>) {
        let unknown =
            theirs.iter().filter(|(vni, vn)| !self.connected.contains_key(vni) && !self.is_connecting(vn));
        let unknown: Vec<(Vni, VnName)> = unknown.map(|(vni, vn)| (*vni, vn.clone())).collect();
        for (vni, vn) in unknown {
            let call = CallId(u64::MAX - u64::from(vni.get()));
            if self.begin_connecting(call, &vn).is_ok() {
                self.outputs.push_back(Output::Call(ApiCall::Disconnect { call, vn }));
            }
        }
    }

    /// What was connected before may have ended since, where a list does not name it.
    pub(super) fn confirm_connections(&mut self, doubtful: impl Fn(Vni) -> bool) {
        let doubtful = |(vni, vn): &(&Vni, &VnName)| doubtful(**vni) && !self.is_connecting(vn);
        let confirmed: Vec<VnName> =
            self.connected.iter().filter(doubtful).map(|(_, vn)| vn.clone()).collect();
        for vn in confirmed {
            self.outputs.push_back(Output::Call(ApiCall::Connect { call: None, vn }));
        }
    }

    /// Takes over the connections that an earlier run kept. Call before [`Core::adopt`].
    pub fn reconnect(&mut self, connected: BTreeMap<Vni, VnName>) {
        self.connected = connected;
    }

    /// The VNs that hypervisors have connected this NVE to.
    #[must_use]
    pub const fn vn_connections(&self) -> &BTreeMap<Vni, VnName> {
        &self.connected
    }

    /// How many interfaces of a VN are attached here.
    #[must_use]
    pub fn attached_in(&self, vni: Vni) -> usize {
        self.tsis.values().filter(|tsi| tsi.grant.tsi.vni == vni && !tsi.is_lost()).count()
    }
}
