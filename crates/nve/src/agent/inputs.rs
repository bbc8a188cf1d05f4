//! What becomes of everything that happens to the driver.

use super::devices;
use super::driver::{Detaching, Driver, Input, LIST_AGAIN, LIST_SOON, Link, LocalCall};
use super::programs::Attaching;
use super::session::Heard;
use crate::core::Session;
use std::collections::BTreeSet;
use weft_datapath::IfIndex;

impl Driver {
    pub(super) fn input(&mut self, input: Input) {
        let now = self.clock.now();
        match input {
            Input::Session(oracle, heard) => self.heard(oracle, heard),
            Input::Fact(fact) => {
                self.heard_facts = true;
                self.core.handle_fact(fact);
                self.persist(None);
            }
            Input::Device(device) => self.device(device),
            Input::Links(all) => self.links(&all),
            Input::LinksChanged => self.list_soon(),
            Input::DeviceGone(index) if self.plane.is_vxlan(index) => self.mend(),
            Input::DeviceGone(index) if self.core.uplinks().contains(&index) => self.list_soon(),
            Input::DeviceGone(index) => self.device_gone(index),
            Input::Local(call) => self.local(call),
            Input::Counted(tracked) => self.tracked = tracked,
            Input::Granted(call, answer) => self.granted(call, answer),
            Input::Released(call, answer) => self.core.handle_released(call, answer),
            Input::Connected(call, vn, answer) => self.core.handle_connected(now, call, &vn, answer),
            Input::Disconnected(call, answer) => self.core.handle_disconnected(call, answer),
            Input::Connections(answer) => self.core.handle_connections(answer),
            Input::Taken(tsi, ip, answer) => self.core.handle_taken(now, &tsi, ip, answer),
            Input::Addresses(call, answer) => self.core.handle_addresses(now, call, answer),
            Input::Attached(device, result) => self.attached(device, result),
            Input::Handover(event) => self.handover(event),
            Input::Trace(event) => self.trace(event),
        }
    }

    /// Without the VXLAN device there is no device path and the direct one finds no routes.
    pub(super) fn mend(&mut self) {
        match self.plane.mend() {
            Ok(false) => {}
            Ok(true) => tracing::warn!("the VXLAN device was not as it should be; mended"),
            Err(error) => tracing::error!(%error, "cannot mend the VXLAN device"),
        }
    }

    /// Has the links listed, once for changes that come together.
    pub(super) fn list_soon(&mut self) {
        self.list_at = self.list_at.min(self.clock.now() + LIST_SOON);
    }

    /// Makes good for changes of links that were not heard of, and follows uplinks that are made anew.
    fn links(&mut self, all: &[devices::Link]) {
        match self.uplinks.find(all) {
            Ok(found) => self.core.handle_uplinks(found.iter().map(|link| link.index).collect()),
            Err(error) => {
                tracing::warn!(%error, "an uplink is missing: nothing arrives over it");
                self.list_at = self.list_at.min(self.clock.now() + LIST_AGAIN);
            }
        }
        let there: BTreeSet<IfIndex> = all.iter().map(|link| link.index).collect();
        // Who has which name, before a name is looked for.
        for device in all.iter().filter_map(devices::Link::device) {
            self.core.handle_name(&device);
        }
        for device in all.iter().filter_map(devices::Link::device) {
            self.device(device);
        }
        for index in self.core.vap_devices().filter(|index| !there.contains(index)) {
            // It may be younger than the list.
            let (links, inputs) = (self.links.clone(), self.inputs.clone());
            tokio::spawn(async move {
                if links.is_gone(index).await {
                    let _ = inputs.send(Input::DeviceGone(index)).await;
                }
            });
        }
    }

    fn heard(&mut self, oracle: usize, heard: Heard) {
        let now = self.clock.now();
        let Some(Link { addr, frames, up, error }) = self.sessions.get_mut(oracle) else { return };
        match heard {
            Heard::Up(sender) => {
                *frames = Some(sender);
                self.core.handle_session(now, oracle, Session::Up);
            }
            Heard::Down(why) => {
                *frames = None;
                // Each reason once, not once an attempt.
                if std::mem::take(up) || error.as_ref() != Some(&why) {
                    tracing::warn!(oracle = %addr, %why, "session down; known destinations keep working");
                }
                *error = Some(why);
                self.core.handle_session(now, oracle, Session::Down);
            }
            Heard::Frames(frames) => {
                // Only now: one that refuses us hangs up without a word.
                if !std::mem::replace(up, true) {
                    tracing::info!(oracle = %addr, "session up");
                    *error = None;
                }
                for frame in frames.iter() {
                    self.core.handle_session(now, oracle, Session::Frame(frame));
                }
            }
        }
    }

    fn local(&mut self, call: LocalCall) {
        match call {
            LocalCall::Attach(attach, answer) => {
                let call = self.call_id();
                let device = attach.device.index;
                self.attaching.insert(call, Attaching { device, answer, begun: false });
                self.core.handle_attach(self.clock.now(), call, attach);
            }
            LocalCall::Detach(vn, name, force, answer) => {
                let call = self.call_id();
                let device = self.core.device_of(&vn, &name).map(|device| device.name.clone());
                let detaching = Detaching { vn: vn.clone(), name: name.clone(), device, answer };
                self.detaching.insert(call, detaching);
                self.core.handle_detach(call, vn, name, force);
            }
            LocalCall::Activate(which, lease, answer) => {
                let call = self.call_id();
                self.activating.insert(call, answer);
                self.core.handle_activate(self.clock.now(), call, which, lease);
            }
            LocalCall::Deactivate(vn, name, answer) => {
                let call = self.call_id();
                self.deactivating.insert(call, answer);
                self.core.handle_deactivate(call, vn, name);
            }
            LocalCall::Connect(vn, answer) => self.connect(vn, answer),
            LocalCall::Disconnect(vn, answer) => self.disconnect(vn, answer),
            LocalCall::Connections(answer) => drop(answer.send(self.connected_vns())),
            LocalCall::Update(update, answer) => self.update(update, answer),
            LocalCall::Events(after, answer) => drop(answer.send(self.events.page(after))),
            LocalCall::Begin(id, asked, answer) => drop(answer.send(self.requests.begin(id, asked))),
            LocalCall::End(id, answer) => {
                if self.requests.end(id, answer) {
                    self.persist(None);
                }
            }
            LocalCall::Tsis(answer) => drop(answer.send(self.tsis())),
            LocalCall::Mappings(answer) => drop(answer.send(self.mappings())),
            LocalCall::Drops(answer) => drop(answer.send(self.drops())),
            LocalCall::Rules(answer) => drop(answer.send(self.rules())),
            LocalCall::Groups(answer) => drop(answer.send(self.groups())),
            LocalCall::Counters(answer) => {
                let named = self.core.counters().named().into_iter();
                drop(answer.send(named.map(|(name, count)| (name.to_owned(), count)).collect()));
            }
            LocalCall::Status(answer) => drop(answer.send(self.status())),
        }
    }
}
