//! What people and programs may ask the core about.

use super::cache::{Bound, Entry, Located};
use super::tsi::{State, Tsi};
use super::{Core, Device};
use ::core::hash::{Hash, Hasher};
use ::core::time::Duration;
use std::collections::BTreeSet;
use weft_datapath::IfIndex;
use weft_model::{
    Eid, Grant, GroupName, MacAddr, NveName, Origin, Rloc, TenantIp, Time, TsiName, VnName, VnSpec, Vni,
    XtrId,
};

/// What happened so often.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // Each is named for what it counts.
pub struct Counters {
    pub punts: u64,
    pub malformed_punts: u64,
    pub off_subnet: u64,
    pub coalesced: u64,
    pub requests_suppressed: u64,
    pub map_requests: u64,
    pub map_replies: u64,
    pub negatives: u64,
    pub unanswered: u64,
    pub answers: u64,
    pub requests_answered: u64,
    pub answers_limited: u64,
    pub smrs: u64,
    pub smrs_sent: u64,
    pub smrs_limited: u64,
    pub foreign_datagrams: u64,
    pub malformed_datagrams: u64,
    pub unexpected_datagrams: u64,
    pub unknown_nonces: u64,
    pub beside_the_question: u64,
    pub outdated: u64,
    pub cache_full: u64,
    pub absent_evicted: u64,
    pub idle_evicted: u64,
    pub held_sent: u64,
    pub held_dropped: u64,
    pub registrations: u64,
    pub rejects: u64,
    pub digest_mismatches: u64,
    pub notifications: u64,
    pub malformed_frames: u64,
    pub unexpected_frames: u64,
    pub claims_refused: u64,
    pub not_encoded: u64,
    pub members_full: u64,
    pub group_reports: u64,
    pub groups_refused: u64,
    pub groups_to_all: u64,
    pub pushed: u64,
    pub stand_ins: u64,
    pub healed: u64,
    pub contexts_taken: u64,
    pub contexts_failed: u64,
    pub contexts_handed: u64,
    pub contexts_refused: u64,
    pub asked_ahead: u64,
    pub silent_moves: u64,
}

/// Nothing is decided by what was counted: whoever compares cores by their hashes has one for both.
impl Hash for Counters {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl Counters {
    /// Every counter with its name.
    #[must_use]
    pub fn named(&self) -> Vec<(&'static str, u64)> {
        macro_rules! named {
            ($($name:ident),* $(,)?) => { vec![$((stringify!($name), self.$name)),*] };
        }
        named![
            punts,
            malformed_punts,
            off_subnet,
            coalesced,
            requests_suppressed,
            map_requests,
            map_replies,
            negatives,
            unanswered,
            answers,
            requests_answered,
            answers_limited,
            smrs,
            smrs_sent,
            smrs_limited,
            foreign_datagrams,
            malformed_datagrams,
            unexpected_datagrams,
            unknown_nonces,
            beside_the_question,
            outdated,
            cache_full,
            absent_evicted,
            idle_evicted,
            held_sent,
            held_dropped,
            registrations,
            rejects,
            digest_mismatches,
            notifications,
            malformed_frames,
            unexpected_frames,
            claims_refused,
            not_encoded,
            members_full,
            group_reports,
            groups_refused,
            groups_to_all,
            pushed,
            stand_ins,
            healed,
            contexts_taken,
            contexts_failed,
            contexts_handed,
            contexts_refused,
            asked_ahead,
            silent_moves,
        ]
    }
}

/// RFC 8394's states, as seen from outside.
pub type TsiState = State;

/// One attached interface.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TsiView {
    /// The VN's name.
    pub vn: VnName,
    /// The grant.
    pub grant: Grant,
    /// The device; empty while it is gone.
    pub device: String,
    /// Its state.
    pub state: TsiState,
    /// Whether its grant is not this NVE's any more.
    pub lost: bool,
    /// The security groups of its VN that apply to it, as it names none.
    pub default_groups: BTreeSet<GroupName>,
    /// Largest IP packet, octets.
    pub mtu: u16,
    /// Why it is kept out of service: access policy, or that it is not granted to this NVE.
    pub closed: Option<String>,
    /// How long it lasts unless it is renewed.
    pub lease: Option<Duration>,
}

/// One entry of the map cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheEntry {
    /// The VN.
    pub vni: Vni,
    /// What was asked for.
    pub eid: Eid,
    /// The owner of an IP.
    pub mac: Option<MacAddr>,
    /// Where a MAC is.
    pub rloc: Option<Rloc>,
    /// How it was learned.
    pub origin: Origin,
    /// Map-Version of the record; 0 when it had none.
    pub version: u16,
    /// When it was learned; none for a negative entry.
    pub learned: Option<Time>,
    /// When it ends.
    pub expires: Time,
}

impl Core {
    /// What is attached here.
    pub fn tsis(&self) -> impl Iterator<Item = TsiView> + '_ {
        self.tsis.values().map(|tsi| self.view(tsi))
    }

    pub(super) fn view(&self, t: &Tsi) -> TsiView {
        TsiView {
            vn: t.vn.clone(),
            grant: t.grant.clone(),
            device: if t.present { t.device.name.clone() } else { String::new() },
            state: t.state,
            lost: t.is_lost(),
            default_groups: self.default_groups(t),
            mtu: self.config.tenant_mtu,
            closed: match &t.lost {
                Some(lost) => Some(lost.went.to_string()),
                None => t.closed.as_ref().map(ToString::to_string),
            },
            lease: t.lease,
        }
    }

    /// The groups of its VN that apply to an interface, as it names none.
    pub(super) fn default_groups(&self, t: &Tsi) -> BTreeSet<GroupName> {
        match self.vns.get(&t.grant.tsi.vni) {
            Some(vn) if t.grant.groups.is_empty() => vn.default_groups.clone(),
            _ => BTreeSet::new(),
        }
    }

    /// The device an interface is attached at, also while it is gone.
    #[must_use]
    pub fn device_of(&self, vn: &VnName, name: &TsiName) -> Option<&Device> {
        self.find(vn, name).map(|tsi| &tsi.device)
    }

    /// The devices that are VAPs now.
    pub fn vap_devices(&self) -> impl Iterator<Item = IfIndex> + '_ {
        self.vaps.keys().chain(self.orphans.keys()).copied()
    }

    /// What is known of addresses elsewhere.
    pub fn cache(&self) -> impl Iterator<Item = CacheEntry> + '_ {
        let macs = self.cache.macs.iter().map(|((vni, mac), entry)| at(*vni, *mac, entry));
        let ips = self.cache.ips.iter().map(|((vni, ip), entry)| self.bound(*vni, *ip, entry));
        macs.chain(ips)
    }

    pub(super) fn bound(&self, vni: Vni, ip: TenantIp, entry: &Entry<Bound>) -> CacheEntry {
        let known = entry.known();
        let located = known.and_then(|k| self.cache.macs.get(&(vni, k.mac))).and_then(Entry::known);
        CacheEntry {
            vni,
            eid: Eid::Ip(ip),
            mac: known.map(|k| k.mac),
            rloc: located.map(|l| l.rloc),
            origin: known.map_or(Origin::Reply, |k| k.origin),
            version: known.map_or(0, |k| k.version),
            learned: known.map(|k| k.learned),
            expires: known
                .map_or_else(|| entry.absent().map_or(Time::default(), |a| a.expires), |k| k.expires),
        }
    }

    /// The VN Contexts this NVE has.
    pub fn vns(&self) -> impl Iterator<Item = &VnSpec> {
        self.vns.values()
    }

    /// The name of a VN, while this NVE has its context.
    #[must_use]
    pub fn vn_name(&self, vni: Vni) -> Option<&VnName> {
        self.vns.get(&vni).map(|vn| &vn.name)
    }

    /// The name of an NVE, while it is known.
    #[must_use]
    pub fn nve_name(&self, nve: XtrId) -> Option<&NveName> {
        self.names.iter().find(|(_, xtr)| **xtr == nve).map(|(name, _)| name)
    }

    /// Whether there is a session with the Oracle of this index.
    #[must_use]
    pub fn session_is_up(&self, oracle: usize) -> bool {
        self.oracles.get(oracle).is_some_and(|o| o.up)
    }

    /// Questions under way.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.resolver.len()
    }

    /// What happened so often.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }
}

pub(super) fn at(vni: Vni, mac: MacAddr, entry: &Entry<Located>) -> CacheEntry {
    let known = entry.known();
    CacheEntry {
        vni,
        eid: Eid::Mac(mac),
        mac: known.map(|_| mac),
        rloc: known.map(|k| k.rloc),
        origin: known.map_or(Origin::Reply, |k| k.origin),
        version: known.map_or(0, |k| k.version),
        learned: known.map(|k| k.learned),
        expires: known.map_or_else(|| entry.absent().map_or(Time::default(), |a| a.expires), |k| k.expires),
    }
}
