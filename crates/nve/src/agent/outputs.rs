//! What the core wants done: in the data plane, by an Oracle, and for those who asked.

use super::driver::{Detaching, Driver, Link};
use super::{calls, events, state};
use crate::core::{ApiCall, Notice, Output, Refused};
use weft_model::TsiId;

impl Driver {
    /// Carries out everything the core wants done; whether an Oracle was asked something.
    pub(super) fn outputs(&mut self) -> bool {
        let mut asked = false;
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Apply(op, ticket) => {
                    let done = self.plane.apply_beside(&op, ticket);
                    if let Some(result) = done {
                        match (ticket, result) {
                            (Some(ticket), result) => {
                                self.core.handle_applied(ticket, result.map_err(|e| e.to_string()));
                            }
                            (None, Err(error)) => {
                                tracing::error!(%error, ?op, "the data plane refused a change");
                            }
                            (None, Ok(())) => {}
                        }
                    }
                }
                Output::Inject(vap, frame) => {
                    if let Err(error) = self.plane.inject(vap, &frame) {
                        tracing::debug!(%error, vap = vap.0, "cannot answer a tenant");
                    }
                }
                Output::Datagram { to, octets } => match self.sockets.send(to, &octets) {
                    Ok(()) => asked = true,
                    Err(error) => {
                        tracing::debug!(%error, %to, "cannot send a Map-Request; trying again");
                    }
                },
                Output::Resend(vap, frame) => {
                    if let Err(error) = self.plane.resend(vap, &frame) {
                        tracing::debug!(%error, vap = vap.0, "a frame that had to wait is lost");
                    }
                }
                Output::Carry(vni, from, frame) => {
                    if let Err(error) = self.plane.carry(vni, from, &frame) {
                        tracing::debug!(%error, %vni, %from, "a frame that had to wait here is lost");
                    }
                }
                Output::LastUse { vni, eid, mac } => {
                    let idle = self.plane.last_used(vni, mac);
                    self.core.handle_last_use(self.clock.now(), vni, eid, idle);
                }
                Output::Answer { to, octets } => {
                    if let Err(error) = self.sockets.send(to, &octets) {
                        tracing::debug!(%error, %to, "cannot send a Map-Reply");
                    }
                }
                Output::Frame { oracle, octets } => {
                    if let Some(Link { addr, frames, .. }) = self.sessions.get_mut(oracle)
                        && let Some(sender) = frames
                        && sender.try_send(octets).is_err()
                    {
                        tracing::warn!(oracle = %addr, "the session is stuck; cutting it");
                        *frames = None;
                    }
                }
                Output::Call(call) => self.call(call),
                Output::Attached(call, result) => self.answer_attach(call, result),
                Output::Detached(call, result) => {
                    if let Some(detaching) = self.detaching.remove(&call) {
                        self.detached(detaching, result);
                    }
                }
                Output::Deactivated(call, result) => {
                    if let Some(answer) = self.deactivating.remove(&call) {
                        let _ = answer.send(result.map_err(|refused| self.named(refused)));
                    }
                }
                Output::Connected(call, result) => self.connecting.connected(call, result),
                Output::Disconnected(call, result) => self.connecting.disconnected(call, result),
                Output::VnDisconnected(vn) => self.vn_disconnected(vn),
                Output::Fetch(fetch) => self.fetch(fetch),
                Output::EndFetch(transfer) => self.end_fetch(transfer),
                Output::Hand(request, handed) => self.hand(request, handed),
                Output::Connections(moved) => self.take_over_connections(&moved),
                Output::Lower(device, levels, ago) => {
                    if let Err(error) = self.plane.lower(device, levels, ago) {
                        tracing::error!(%error, vap = device.0, "who moved here may send more than its rate");
                    }
                }
                Output::Persist(attachments) => self.persist(Some(attachments)),
                Output::ForgetConnections(vni, ips) => {
                    if let Err(error) = self.plane.end_connections(vni, &ips) {
                        tracing::error!(%error, %vni, "connections of who is gone stay until they end");
                    }
                }
                Output::PersistPolicies(saved) => self.policies.save(saved),
                Output::ClearRule(rule) => {
                    if let Err(error) = self.plane.clear_rule(rule) {
                        tracing::warn!(%error, rule, "a rule counts what another one let through before");
                    }
                }
                // The Oracle's list may tell of a release before its answer does.
                Output::Notice(Notice::LostGrant(tsi, _)) if self.is_detaching(&tsi) => {}
                Output::Notice(notice) => log(&notice),
                Output::Event(event) => {
                    let now = event.now.clone().map(|now| self.tsi(now));
                    self.events.push(events::view(&self.core, event, now));
                }
            }
        }
        let unreleased = self.core.unreleased();
        if unreleased != self.unreleased {
            self.unreleased = unreleased;
            self.persist(None);
        }
        self.plane.attach(&self.inputs);
        asked
    }

    /// Hands the state to the saver; only a change reaches the disk.
    pub(super) fn persist(&self, attachments: Option<Vec<crate::core::Attachment>>) {
        let attachments = attachments.unwrap_or_else(|| self.core.attachments());
        let (vns, requests) = (self.core.vns().cloned().collect(), self.requests.saved());
        let connected = self.core.vn_connections().clone();
        let unreleased = self.core.unreleased();
        self.saver.save(state::Saved { attachments, vns, connected, unreleased, requests });
    }

    fn call(&mut self, call: ApiCall) {
        if let ApiCall::Grant { call, .. } = &call
            && let Some(reason) = self.saver.failed()
        {
            self.core.handle_granted(self.clock.now(), *call, Err(Refused::NotSaved { reason }));
            return;
        }
        if let ApiCall::Grant { call, .. } = &call {
            self.begin(*call);
        }
        let client = self.client.borrow().clone();
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let input = calls::make(&client, call).await;
            let _ = inputs.send(input).await;
        });
    }

    /// Answers a detach. The tenant system is nobody's now: its device goes down first, or it would be
    /// left to talk to the host itself.
    fn detached(&self, detaching: Detaching, result: Result<(), Refused>) {
        let Detaching { vn, name, device, answer } = detaching;
        if result.is_ok() {
            tracing::info!(%vn, tsi = %name, "detached");
        }
        let links = self.links.clone();
        tokio::spawn(async move {
            if result.is_ok()
                && let Some(device) = device
                && let Some(link) = links.by_name(&device).await
                && let Err(error) = links.set(link.index, false).await
            {
                tracing::warn!(%error, %device, "cannot set down; what is behind it reaches this host");
            }
            let _ = answer.send(result);
        });
    }

    fn is_detaching(&self, tsi: &TsiId) -> bool {
        let vn = self.core.vn_name(tsi.vni);
        self.detaching.values().any(|d| d.name == tsi.name && vn.is_none_or(|vn| d.vn == *vn))
    }
}

pub(super) fn log(notice: &Notice) {
    match notice {
        Notice::Associated(tsi) => tracing::info!(%tsi, "associated"),
        Notice::Woken(tsi) => tracing::info!(%tsi, "its first frame is here; activating it"),
        Notice::Deactivated(tsi) => tracing::info!(%tsi, "deactivated: the hypervisor said so"),
        Notice::Activated(tsi, epoch) => tracing::info!(%tsi, %epoch, "activated"),
        Notice::LostGrant(tsi, went) => tracing::warn!(%tsi, "{went}; deactivated"),
        Notice::DeviceRenamed(tsi, from, to) => tracing::info!(%tsi, from, to, "device renamed"),
        Notice::DeviceGone(tsi, device) => tracing::warn!(%tsi, %device, "device went away; deactivated"),
        Notice::Rejected(tsi) => tracing::warn!(%tsi, "an Oracle refused the registration"),
        Notice::LeaseExpired(tsi) => tracing::warn!(%tsi, "released: nobody renewed its lease"),
        Notice::Released(tsi) => tracing::info!(%tsi, "released: its device stayed away"),
        Notice::Closed(tsi, why) => tracing::warn!(%tsi, %why, "kept out of service"),
        Notice::ClaimRefused(tsi, ip, why) => tracing::warn!(%tsi, %ip, %why, "link-local claim refused"),
        Notice::Version { oracle, theirs, ours } => {
            tracing::error!(
                oracle,
                theirs,
                ours,
                "the Oracle's session version is too far from ours; update one of them"
            );
        }
        Notice::Datapath(reason) => tracing::error!(%reason, "the data plane refused a change"),
    }
}
