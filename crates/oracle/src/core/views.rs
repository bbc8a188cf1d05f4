//! What operators may look at.

use std::{collections::BTreeSet, time::Duration};

use weft_model::{Eid, Epoch, MacAddr, NveName, Origin, Rloc, Time, TsiName, Vni, XtrId};

use super::Shard;
use super::counters::Counters;
use super::database::{Answer, Locator, Source, Via};
use super::publish::answer;

/// One entry of the mapping database.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MappingView {
    /// The VN.
    pub vni: Vni,
    /// The key.
    pub eid: Eid,
    /// The TSI it belongs to.
    pub tsi: TsiName,
    /// Its MAC address.
    pub mac: MacAddr,
    /// Where it is. Empty when nobody knows: granted to an NVE that is no longer enrolled.
    pub locators: Vec<Locator>,
    /// Who holds it.
    pub owner: XtrId,
    /// At which epoch.
    pub epoch: Epoch,
    /// [`Origin::Registration`] or [`Origin::Grant`].
    pub origin: Origin,
    /// The owner's session is lost, or this entry was not registered on the present one.
    pub stale: bool,
    /// It was registered and is withdrawn.
    pub withdrawn: bool,
    /// Time since it was registered without a break.
    pub age: Option<Duration>,
}

/// One conversation: who asked for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConversationView {
    /// The VN.
    pub vni: Vni,
    /// The TS that wanted to send.
    pub source: Eid,
    /// Whom it asked for.
    pub destination: Eid,
    /// The NVE that asked.
    pub nve: XtrId,
    /// When it last did.
    pub last_seen: Time,
    /// What it was answered is that there is nothing.
    pub negative: bool,
}

/// An NVE that has an active TSI in a VN.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberView {
    /// The VN.
    pub vni: Vni,
    /// The NVE.
    pub nve: XtrId,
    /// Its RLOCs.
    pub rlocs: Vec<Rloc>,
    /// Its active TSIs in the VN.
    pub tsis: usize,
}

/// An NVE or plain xTR as this shard sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeView {
    /// Its xTR-ID.
    pub xtr_id: XtrId,
    /// Its name; plain xTRs have none.
    pub name: Option<NveName>,
    /// Its RLOCs.
    pub rlocs: Vec<Rloc>,
    /// It has a session.
    pub connected: bool,
    /// How long its session has been lost.
    pub lost_for: Option<Duration>,
    /// Notifications that wait for it.
    pub pending: usize,
    /// For a plain xTR: EID-Prefixes that it is subscribed to (RFC 9437).
    pub subscriptions: usize,
}

impl Shard {
    /// The mapping database, of one VN or of all.
    pub fn mappings(&self, now: Time, vni: Option<Vni>) -> impl Iterator<Item = MappingView> + '_ {
        self.db.entries(vni).map(move |(vni, eid, tsi)| {
            let (mut owner, mut epoch) = tsi.holder();
            let (mut origin, mut locators, mut stale, mut age) = (Origin::Grant, Vec::new(), false, None);
            if let Answer::At(found) = answer(&self.db, &self.nodes, vni, eid) {
                (owner, epoch) = (found.nve, found.epoch);
                match found.source {
                    Source::Registration(r) => {
                        origin = Origin::Registration;
                        locators = r.locators.clone();
                        age = Some(now.since(r.since));
                        stale = self.is_stale(r.nve, r.via);
                    }
                    Source::Grant(rlocs) => {
                        locators = Locator::stored(rlocs).collect();
                    }
                }
            }
            let (tsi_name, mac) = (tsi.grant.tsi.name.clone(), tsi.grant.mac.get());
            let withdrawn = tsi.withdrawn;
            MappingView {
                vni,
                eid,
                tsi: tsi_name,
                mac,
                locators,
                owner,
                epoch,
                origin,
                stale,
                withdrawn,
                age,
            }
        })
    }

    fn is_stale(&self, nve: XtrId, via: Via) -> bool {
        let current = self.nodes.get(nve).and_then(|node| node.session.as_ref()).map(|session| session.id);
        matches!(via, Via::Session { id, .. } if current != Some(id))
    }

    /// Who asked for whom, in one VN or in all.
    pub fn conversations(&self, vni: Option<Vni>) -> impl Iterator<Item = ConversationView> + '_ {
        self.asks.iter(vni).flat_map(|(key, ask)| {
            ask.sources.iter().map(|(source, last_seen)| ConversationView {
                vni: key.vni,
                source: *source,
                destination: key.eid,
                nve: key.asker,
                last_seen: *last_seen,
                negative: ask.negative,
            })
        })
    }

    /// The NVEs with active TSIs, VN by VN.
    pub fn members(&self, vni: Option<Vni>) -> Vec<MemberView> {
        let rlocs = |nve| self.nodes.get(nve).map(|node| node.rlocs.clone()).unwrap_or_default();
        let tsis = |count| usize::try_from(count).unwrap_or(usize::MAX);
        let members = self.db.members.iter(vni);
        members.map(|(vni, nve, n)| MemberView { vni, nve, rlocs: rlocs(nve), tsis: tsis(n) }).collect()
    }

    /// All NVEs and plain xTRs.
    pub fn nodes(&self, now: Time) -> impl Iterator<Item = NodeView> + '_ {
        self.nodes.iter().map(move |(xtr_id, node)| NodeView {
            xtr_id,
            name: node.name.clone(),
            rlocs: node.rlocs.clone(),
            connected: node.session.is_some(),
            lost_for: node.lost.as_ref().map(|lost| now.since(lost.since)),
            pending: node.pending.len(),
            subscriptions: self.subscriptions.listening(xtr_id),
        })
    }

    /// Counters since the start.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether questions are answered: all facts are loaded. Every VN is of granted addresses only, so
    /// a Negative is true from then on, registered or not.
    pub const fn ready(&self) -> bool {
        self.loaded
    }

    /// Those that hold something and have not said since the start what they have.
    pub const fn awaited(&self) -> &BTreeSet<XtrId> {
        &self.awaited
    }

    /// Too many NVEs are lost at once: nothing is withdrawn.
    pub const fn alarmed(&self) -> bool {
        self.alarmed.is_some()
    }

    /// How much is remembered: TSIs, askers.
    pub fn sizes(&self) -> (usize, usize) {
        (self.db.len(), self.asks.len())
    }
}
