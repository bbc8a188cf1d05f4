//! Full-VN push (requirements M3, N7): who is subscribed to a VN's mappings is told all of them, then every
//! change, like somebody who has asked for everything; but nothing is kept of it for each EID.
//!
//! What is pushed of a VN is the same for all its subscribers, their own tenant systems included: every record
//! that is registered, or granted to an NVE that has said nothing of it yet, as askers are told, with a TTL that
//! leaves its life to the receiver. The digest of the VN is over just these records, encoded by default.

use std::collections::BTreeMap;
use std::ops::Bound;

use weft_lisp as lisp;
use weft_lisp::EncodeOptions;
use weft_lisp::tcp::{Body, Signal, SubscribeError};
use weft_model::digest::Digest;
use weft_model::{Eid, Learning, Time, VnSpec, Vni, XtrId};

use super::Shard;
use super::conversations::AskKey;
use super::digest::record_digest;
use super::nodes::Control;
use super::publish::{Basis, Told};
use super::subscribe::{Feed, Stage};
use super::wire::{Locators, record};

/// What pushed records carry: they live with the subscription.
pub(crate) const TTL: u32 = lisp::wire::TTL_RECEIVER_DECIDES;

/// The records pushed of a VN, by the digest of each, and the digest of all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Published {
    records: BTreeMap<Eid, u64>,
    pub(crate) digest: Digest,
}

impl Published {
    /// Notes what there is of an EID now; false when that is no news.
    fn set(&mut self, eid: Eid, now: Option<u64>) -> bool {
        let before = match now {
            Some(sum) => self.records.insert(eid, sum),
            None => self.records.remove(&eid),
        };
        if before != now {
            let one = |sum| Digest { count: 1, sum };
            before.into_iter().for_each(|sum| self.digest.remove(one(sum)));
            now.into_iter().for_each(|sum| self.digest.add(one(sum)));
        }
        before != now
    }

    /// The first EID behind `last`, or the first of all.
    fn behind(&self, last: Option<Eid>) -> Option<Eid> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        self.records.range((from, Bound::Unbounded)).next().map(|(eid, _)| *eid)
    }
}

/// The digest of the record that is pushed of an EID, if there is one.
fn pushed(vni: Vni, eid: Eid, told: &Told) -> Option<u64> {
    let Told::At { basis: Basis::Registered | Basis::Granted, mac, epoch, locators, .. } = told else {
        return None;
    };
    let locators = match eid {
        Eid::Mac(_) => Locators::collect(locators.iter().copied()),
        Eid::Ip(_) => Locators::mac(*mac),
    };
    Some(record_digest(&record(vni, eid, TTL, Some(*epoch), &locators)))
}

impl Shard {
    /// A VN is new or has changed.
    pub(crate) fn put_vn(&mut self, spec: VnSpec) {
        let (vni, learning) = (spec.vni, spec.learning);
        self.vns.insert(vni, spec);
        match (learning == Learning::Distribute, self.published.contains_key(&vni)) {
            (true, false) => {
                let mut all = Published::default();
                for (_, eid, _) in self.db.entries(Some(vni)) {
                    all.set(eid, pushed(vni, eid, &self.told(vni, eid)));
                }
                self.published.insert(vni, all);
            }
            (false, true) => {
                self.published.remove(&vni);
                let subscribed: Vec<XtrId> = self.subscribers.mappings_of(vni).collect();
                for nve in subscribed {
                    self.end_mappings(nve, vni, SubscribeError::NotEnabled);
                }
            }
            _ => {}
        }
    }

    pub(crate) fn subscribe_mappings(&mut self, now: Time, nve: XtrId, id: u32, vni: u32, held: Digest) {
        let known = Vni::new(vni).ok().filter(|vni| self.owns(*vni));
        let allowed = known.ok_or(SubscribeError::InstanceNotFound).and_then(|vni| {
            self.may_subscribe(nve, vni)?;
            let published = self.published.get(&vni).ok_or(SubscribeError::NotEnabled)?;
            Ok((vni, published.digest))
        });
        let (vni, digest) = match allowed {
            Ok(allowed) => allowed,
            Err(error) => return self.control(nve, Control::MappingsRefused { id, vni, error }),
        };
        let Some(session) = self.nodes.get_mut(nve).and_then(|node| node.session.as_mut()) else { return };
        // Who has everything already is told just that.
        let stage = if held == digest { Stage::End } else { Stage::Begin };
        session.feeds.mappings.insert(vni, Feed { request: id, afi: 0, stage });
        self.subscribers.mappings.insert((vni, nve));
        self.counters.subscriptions += 1;
        self.push_ready(now, nve);
    }

    pub(crate) fn unsubscribe_mappings(&mut self, nve: XtrId, vni: Vni) {
        let session = self.nodes.get_mut(nve).and_then(|node| node.session.as_mut());
        if session.is_some_and(|session| session.feeds.mappings.remove(&vni).is_some()) {
            // What waits for it is told still: that of an ask that was forgotten would be missed, and what it does not
            // hold it is told to forget, which changes nothing.
            self.subscribers.mappings.remove(&(vni, nve));
        }
    }

    /// Ends a subscription that has lost its ground, with a word to the NVE.
    pub(crate) fn end_mappings(&mut self, nve: XtrId, vni: Vni, error: SubscribeError) {
        let session = self.nodes.get(nve).and_then(|node| node.session.as_ref());
        if let Some(id) = session.and_then(|s| s.feeds.mappings.get(&vni)).map(|feed| feed.request) {
            self.unsubscribe_mappings(nve, vni);
            self.control(nve, Control::MappingsRefused { id, vni: vni.get(), error });
        }
    }

    /// What waits for a node whose session is over: it is told on of what it asked for itself, and asks anew when it is
    /// back.
    pub(crate) fn drop_changes(&mut self, nve: XtrId, vni: Vni) {
        let asks = &self.asks;
        if let Some(node) = self.nodes.get_mut(nve) {
            let asked = |eid| asks.find(AskKey { vni, eid, asker: nve }).is_some();
            node.pending.retain(|(other, eid)| *other != vni || asked(*eid));
        }
    }

    /// What is told of an EID has changed: subscribers are told, unless their snapshot has yet to come to it.
    pub(crate) fn push_change(&mut self, now: Time, vni: Vni, eid: Eid, after: &Told) {
        let Some(published) = self.published.get_mut(&vni) else { return };
        if !published.set(eid, pushed(vni, eid, after)) {
            return;
        }
        let limit = self.config.limits.changes_per_session.max(1);
        let subscribers: Vec<XtrId> = self.subscribers.mappings_of(vni).collect();
        for to in subscribers {
            let Some(node) = self.nodes.get_mut(to) else { continue };
            let Some(session) = node.session.as_mut() else { continue };
            let Some(feed) = session.feeds.mappings.get_mut(&vni) else { continue };
            if feed.stage.is_ahead(&eid) {
                continue;
            }
            if node.pending.len() >= limit && !node.pending.contains(&(vni, eid)) {
                // All of them anew is less than all that has changed. Who also asked is told by that, too.
                feed.stage = Stage::Begin;
                node.pending.retain(|(other, _)| *other != vni);
                self.counters.snapshots_restarted += 1;
                self.push_ready(now, to);
            } else {
                self.tell(now, to, vni, eid);
            }
        }
    }

    /// Says of every VN pushed to a node what it should have by now, so that it notices a gap.
    pub(crate) fn mark_mappings(&mut self, now: Time, nve: XtrId) {
        let session = self.nodes.get_mut(nve).and_then(|node| node.session.as_mut());
        let feeds = session.into_iter().flat_map(|session| session.feeds.mappings.values_mut());
        for feed in feeds.filter(|feed| feed.stage == Stage::Idle) {
            feed.stage = Stage::End;
        }
        self.push_ready(now, nve);
    }

    /// Appends the next piece of the snapshot of a VN's mappings; false when nothing of it is due.
    pub(crate) fn write_mappings(&mut self, to: XtrId, vni: Vni, out: &mut Vec<u8>) -> bool {
        let Some(node) = self.nodes.get(to) else { return false };
        let feed = node.session.as_ref().and_then(|session| session.feeds.mappings.get(&vni));
        let (Some(feed), Some(published)) = (feed, self.published.get(&vni)) else { return false };
        let (request, digest) = (feed.request, published.digest);
        let signal = |signal: Signal, out: &mut Vec<u8>| {
            // These have an encoding.
            let _ = Body::Signal(signal).encode(request, out, EncodeOptions::default());
        };
        let stage = match feed.stage {
            Stage::Idle => return false,
            // The digest is of what was said: changes that wait are said first.
            Stage::End if !node.pending.is_empty() => return self.write_next(to, out),
            Stage::End => {
                let (vni, count, digest) = (vni.get(), digest.count, digest.sum);
                signal(Signal::MappingsMarker { vni, count, digest }, out);
                Stage::Idle
            }
            Stage::Begin => {
                signal(Signal::MappingsBegin { vni: vni.get() }, out);
                Stage::Behind(None)
            }
            Stage::Behind(last) => match published.behind(last) {
                None => Stage::End,
                Some(eid) => {
                    self.write_notification(AskKey { vni, eid, asker: to }, out);
                    Stage::Behind(Some(eid))
                }
            },
        };
        let session = self.nodes.get_mut(to).and_then(|node| node.session.as_mut());
        if let Some(feed) = session.and_then(|session| session.feeds.mappings.get_mut(&vni)) {
            feed.stage = stage;
        }
        true
    }
}
