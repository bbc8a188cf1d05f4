//! Subscriptions of NVEs on their sessions, and the pace of what they are sent: snapshots take turns, of so
//! many octets at a time, so that neither requests nor changes wait behind them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use weft_lisp::tcp::{Membership, MembershipEvent, SubscribeError};
use weft_model::{Eid, Rloc, Time, Vni, Wanted, XtrId};

use super::nodes::Control;
use super::output::Transmit;
use super::{Shard, Timer};

/// How far a snapshot has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stage<K> {
    /// It is to begin.
    Begin,
    /// Everything up to here is sent: the next is the first behind, as there is then.
    Behind(Option<K>),
    /// All is sent, but for the word that this was all.
    End,
    /// It is over; changes alone are sent.
    Idle,
}

impl<K: Ord> Stage<K> {
    /// Whether the snapshot will come to `key`, so that a change of it need not be noted.
    pub(crate) fn is_ahead(&self, key: &K) -> bool {
        match self {
            Self::Begin | Self::Behind(None) => true,
            Self::Behind(Some(last)) => key > last,
            Self::End | Self::Idle => false,
        }
    }
}

/// One subscription of a session: its cursor is all that is kept of it besides changes not sent yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Feed<K> {
    /// ID of the frame that asked for the latest snapshot.
    pub(crate) request: u32,
    /// AFI of the EIDs it was asked for by.
    pub(crate) afi: u16,
    pub(crate) stage: Stage<K>,
}

/// What a session is subscribed to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Feeds {
    /// The members of VNs.
    pub(crate) members: BTreeMap<Vni, Feed<XtrId>>,
    /// All mappings of VNs.
    pub(crate) mappings: BTreeMap<Vni, Feed<Eid>>,
    /// Members about which something is to be said, RLOC by RLOC.
    pub(crate) member_changes: BTreeSet<(Vni, XtrId, Rloc)>,
    /// Groups, or all, about whose receivers something is to be said.
    pub(crate) group_changes: BTreeSet<(Vni, XtrId, Wanted)>,
}

/// Of which snapshot a piece is due.
enum Next {
    Members(Vni),
    Mappings(Vni),
}

impl Feeds {
    /// What is noted of members of a VN is to be said no more.
    pub(crate) fn forget_changes(&mut self, vni: Vni) {
        self.member_changes.retain(|(other, ..)| *other != vni);
        self.group_changes.retain(|(other, ..)| *other != vni);
    }

    /// The first that is under way. Members are said to be complete when it is `settled` who they are.
    fn next(&self, settled: bool) -> Option<Next> {
        let due = |stage: &Stage<XtrId>| match stage {
            Stage::Idle => false,
            Stage::End => settled,
            Stage::Begin | Stage::Behind(_) => true,
        };
        let members = self.members.iter().find(|(_, feed)| due(&feed.stage));
        let mappings = || self.mappings.iter().find(|(_, feed)| feed.stage != Stage::Idle);
        members
            .map(|(vni, _)| Next::Members(*vni))
            .or_else(|| mappings().map(|(vni, _)| Next::Mappings(*vni)))
    }
}

/// Who is subscribed to what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Subscribers {
    members: BTreeSet<(Vni, XtrId)>,
    pub(super) mappings: BTreeSet<(Vni, XtrId)>,
}

impl Subscribers {
    pub(crate) fn members_of(&self, vni: Vni) -> impl Iterator<Item = XtrId> + '_ {
        within(&self.members, vni)
    }

    pub(crate) fn mappings_of(&self, vni: Vni) -> impl Iterator<Item = XtrId> + '_ {
        within(&self.mappings, vni)
    }

    /// Whether all mappings of `vni` are pushed to `nve`.
    pub(crate) fn is_pushed(&self, nve: XtrId, vni: Vni) -> bool {
        self.mappings.contains(&(vni, nve))
    }

    pub(crate) fn to_members(&self) -> BTreeSet<XtrId> {
        self.members.iter().map(|(_, nve)| *nve).collect()
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.mappings.is_empty()
    }
}

fn within(index: &BTreeSet<(Vni, XtrId)>, vni: Vni) -> impl Iterator<Item = XtrId> + '_ {
    index.range((vni, XtrId([0; 16]))..=(vni, XtrId([0xff; 16]))).map(|(_, nve)| *nve)
}

/// Whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Turns {
    /// Nodes whose snapshots are under way, each once.
    queue: VecDeque<XtrId>,
    /// Octets that may be sent before the next interval begins.
    budget: usize,
    /// The timer of that is set.
    armed: bool,
}

impl Turns {
    pub(crate) const fn new(budget: usize) -> Self {
        Self { queue: VecDeque::new(), budget, armed: false }
    }

    pub(crate) fn forget(&mut self, nve: XtrId) {
        self.queue.retain(|other| *other != nve);
    }
}

impl Shard {
    /// A membership frame of an NVE.
    pub(crate) fn membership(&mut self, now: Time, nve: XtrId, id: u32, frame: Membership) {
        let Membership { eid_afi, iid, event } = frame;
        let vni = Vni::new(iid).ok().filter(|vni| self.owns(*vni));
        match event {
            MembershipEvent::Subscribe | MembershipEvent::RefreshRequest => {
                let subscribed = |vni: &Vni| self.subscribers.members.contains(&(*vni, nve));
                let answer = match vni {
                    None => Err(SubscribeError::InstanceNotFound),
                    // Who is not subscribed has to begin with that.
                    Some(vni) if event == MembershipEvent::RefreshRequest && !subscribed(&vni) => {
                        Err(SubscribeError::Undefined)
                    }
                    Some(vni) => self.may_subscribe(nve, vni).map(|()| vni),
                };
                match answer {
                    Ok(vni) => {
                        if event == MembershipEvent::Subscribe {
                            self.control(nve, Control::Subscribed { id, afi: eid_afi, iid });
                        }
                        self.subscribe_members(
                            now,
                            nve,
                            vni,
                            Feed { request: id, afi: eid_afi, stage: Stage::Begin },
                        );
                    }
                    Err(error) => self.control(nve, Control::NotSubscribed { id, afi: eid_afi, iid, error }),
                }
            }
            MembershipEvent::Unsubscribe => {
                if let Some(vni) = vni {
                    self.unsubscribe_members(nve, vni);
                }
            }
            // Ours to say.
            _ => self.counters.unsupported += 1,
        }
    }

    /// Whether a node may be told all there is in a VN: it has, or is to get, a tenant system there.
    pub(crate) fn may_subscribe(&self, nve: XtrId, vni: Vni) -> Result<(), SubscribeError> {
        if !self.loaded {
            Err(SubscribeError::Undefined)
        } else if !self.vns.contains_key(&vni) {
            Err(SubscribeError::InstanceNotFound)
        } else if !self.db.in_scope(nve, vni) {
            Err(SubscribeError::NotAuthorized)
        } else {
            Ok(())
        }
    }

    fn subscribe_members(&mut self, now: Time, nve: XtrId, vni: Vni, feed: Feed<XtrId>) {
        let Some(session) = self.nodes.get_mut(nve).and_then(|node| node.session.as_mut()) else { return };
        session.feeds.members.insert(vni, feed);
        session.feeds.forget_changes(vni);
        self.subscribers.members.insert((vni, nve));
        self.counters.subscriptions += 1;
        self.push_ready(now, nve);
    }

    fn unsubscribe_members(&mut self, nve: XtrId, vni: Vni) {
        self.subscribers.members.remove(&(vni, nve));
        if let Some(session) = self.nodes.get_mut(nve).and_then(|node| node.session.as_mut()) {
            session.feeds.members.remove(&vni);
            session.feeds.forget_changes(vni);
        }
    }

    /// A session is over: nothing of what it was subscribed to is kept.
    pub(crate) fn end_feeds(&mut self, nve: XtrId, feeds: &Feeds) {
        for vni in feeds.members.keys() {
            self.subscribers.members.remove(&(*vni, nve));
        }
        for vni in feeds.mappings.keys() {
            self.subscribers.mappings.remove(&(*vni, nve));
            self.drop_changes(nve, *vni);
        }
    }

    /// Ends what nodes are subscribed to in a VN that they have no part in any more. They are told: nobody
    /// takes silence for news that there is none.
    pub(crate) fn review_scope(&mut self, now: Time, nves: &[XtrId], vni: Vni) {
        for nve in nves {
            if let Err(error) = self.may_subscribe(*nve, vni) {
                self.forget_groups(now, vni, *nve);
                self.end_subscriptions(*nve, vni, error);
            }
            self.review_subscriptions(Some(*nve), Some(vni));
        }
    }

    fn end_subscriptions(&mut self, nve: XtrId, vni: Vni, error: SubscribeError) {
        let session = self.nodes.get(nve).and_then(|node| node.session.as_ref());
        if let Some(feed) = session.and_then(|session| session.feeds.members.get(&vni)) {
            let (id, afi) = (feed.request, feed.afi);
            self.unsubscribe_members(nve, vni);
            self.control(nve, Control::NotSubscribed { id, afi, iid: vni.get(), error });
        }
        self.end_mappings(nve, vni, error);
    }

    /// A VN is gone.
    pub(crate) fn end_vn(&mut self, now: Time, vni: Vni) {
        while let Some(nve) = self.receivers.behind(vni, None) {
            self.forget_groups(now, vni, nve);
        }
        self.published.remove(&vni);
        let subscribers = &self.subscribers;
        let subscribed: BTreeSet<XtrId> =
            subscribers.members_of(vni).chain(subscribers.mappings_of(vni)).collect();
        for nve in subscribed {
            self.end_subscriptions(nve, vni, SubscribeError::InstanceNotFound);
        }
    }

    /// Gives a node its turn when a snapshot of it is under way.
    pub(crate) fn push_ready(&mut self, now: Time, nve: XtrId) {
        if !self.snapshot_due(nve) {
            return;
        }
        let Some(node) = self.nodes.get_mut(nve).filter(|node| !node.pushing) else { return };
        node.pushing = true;
        self.turns.queue.push_back(nve);
        if !std::mem::replace(&mut self.turns.armed, true) {
            self.arm(now + self.config.timing.push_interval, Timer::Push);
        }
    }

    /// The next interval begins.
    pub(crate) fn next_turns(&mut self, now: Time) {
        self.turns.budget = self.config.limits.push_octets.max(1);
        self.turns.armed = !self.turns.queue.is_empty();
        if self.turns.armed {
            // However short it is: a timer does not come again at the time it came.
            let wait = self.config.timing.push_interval.max(std::time::Duration::from_micros(1));
            self.arm(now + wait, Timer::Push);
        }
    }

    /// Whether a piece of a snapshot could be sent to a node now.
    fn snapshot_due(&self, nve: XtrId) -> bool {
        let session = self.nodes.get(nve).and_then(|node| node.session.as_ref());
        let Some(session) = session.filter(|session| !session.congested) else { return false };
        let settled = self.awaited.is_empty();
        session.feeds.next(settled).is_some()
    }

    /// Fills `out` with a piece of the next session's snapshots.
    pub(crate) fn poll_push(&mut self, out: &mut Vec<u8>) -> Option<Transmit> {
        while self.turns.budget > 0 {
            let nve = self.turns.queue.pop_front()?;
            let Some(node) = self.nodes.get_mut(nve) else { continue };
            node.pushing = false;
            let Some(session) = node.session.as_ref().filter(|session| !session.congested) else { continue };
            let id = session.id;
            let limit = self.config.limits.session_batch_octets.max(1).min(self.turns.budget);
            while out.len() < limit && self.write_piece(nve, out) {}
            if self.snapshot_due(nve)
                && let Some(node) = self.nodes.get_mut(nve)
            {
                node.pushing = true;
                self.turns.queue.push_back(nve);
            }
            self.turns.budget = self.turns.budget.saturating_sub(out.len());
            if !out.is_empty() {
                return Some(Transmit::Session { id });
            }
        }
        None
    }

    /// Appends the next piece of a node's snapshots, VN by VN.
    fn write_piece(&mut self, nve: XtrId, out: &mut Vec<u8>) -> bool {
        let session = self.nodes.get(nve).and_then(|node| node.session.as_ref());
        let Some(session) = session else { return false };
        let settled = self.awaited.is_empty();
        match session.feeds.next(settled) {
            Some(Next::Members(vni)) => self.write_members(nve, vni, out),
            Some(Next::Mappings(vni)) => self.write_mappings(nve, vni, out),
            None => false,
        }
    }
}
