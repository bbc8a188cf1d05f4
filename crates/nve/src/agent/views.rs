//! What people and scrapes ask of the driver.

use super::driver::{Driver, Link};
use super::held_back::Held;
use super::metrics;
use crate::core::{TsiState, TsiView};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use weft_api::local as api;
use weft_datapath::{Direction, Path, Reason};
use weft_model::{Eid, Epoch, GroupName, MacAddr, Origin, Rloc, Rule, VnName};

impl Driver {
    pub(super) fn tsis(&self) -> Vec<api::Tsi> {
        self.core.tsis().map(|tsi| self.tsi(tsi)).collect()
    }

    /// One of them.
    pub(super) fn tsi(&self, t: TsiView) -> api::Tsi {
        let state = match t.state {
            _ if t.lost => api::Standing::Lost,
            TsiState::Associated => api::Standing::Associated,
            TsiState::Activated => api::Standing::Activated,
        };
        api::Tsi {
            epoch: Some(t.grant.epoch_of(self.xtr_id).unwrap_or(t.grant.epoch)),
            vn: t.vn,
            tsi: t.grant.tsi.name,
            device: t.device,
            mac: t.grant.mac,
            ips: t.grant.ips,
            groups: t.grant.groups,
            default_groups: t.default_groups,
            tunnel: t.grant.tunnel,
            vni: t.grant.tsi.vni,
            mtu: t.mtu,
            state,
            closed: t.closed,
            lease_s: t.lease.map(|lease| lease.as_secs()),
        }
    }

    pub(super) fn mappings(&self) -> Vec<api::CacheEntry> {
        let mut all: Vec<_> = self.core.cache().filter_map(|entry| self.entry(entry)).collect();
        all.extend(self.data_learned());
        all
    }

    /// One of them.
    pub(super) fn entry(&self, entry: crate::core::CacheEntry) -> Option<api::CacheEntry> {
        let used = entry.mac.and_then(|mac| self.plane.last_used(entry.vni, mac));
        Some(api::CacheEntry {
            vn: self.core.vn_name(entry.vni)?.clone(),
            eid: entry.eid,
            mac: entry.mac,
            rloc: entry.rloc,
            nve: None,
            origin: entry.origin,
            epoch: Epoch::new(entry.version.into()),
            age_s: entry.learned.map_or(0, |learned| self.clock.now().since(learned).as_secs()),
            last_used_s: used.map(|idle| idle.as_secs()),
        })
    }

    /// What the data plane learned from frames, in VNs that learn so.
    fn data_learned(&self) -> Vec<api::CacheEntry> {
        let entry = |vni, eid, mac, rloc, idle: Duration| {
            Some(api::CacheEntry {
                vn: self.core.vn_name(vni)?.clone(),
                eid,
                mac: Some(mac),
                rloc,
                nve: None,
                origin: Origin::Data,
                epoch: None,
                age_s: idle.as_secs(),
                last_used_s: None,
            })
        };
        let (macs, ips) = self.plane.data_learned();
        // Each NVE by its first RLOC.
        let peers = self.core.tables().peers.iter().rev().filter(|(_, peer)| peer.nve);
        let rlocs: BTreeMap<MacAddr, Rloc> = peers
            .filter_map(|(ip, peer)| Some((MacAddr::of_node(peer.node), Rloc::new(*ip).ok()?)))
            .collect();
        let macs = macs.into_iter().map(|s| entry(s.vni, Eid::Mac(s.mac), s.mac, Some(s.rloc), s.idle));
        let ips =
            ips.into_iter().map(|h| entry(h.vni, Eid::Ip(h.ip), h.mac, rlocs.get(&h.mac).copied(), h.idle));
        macs.chain(ips).flatten().collect()
    }

    pub(super) fn groups(&self) -> Vec<api::Group> {
        let view = |(vni, group, here, rlocs): (_, _, _, &BTreeSet<_>)| {
            let vn = self.core.vn_name(vni)?.clone();
            Some(api::Group { vn, group, here, rlocs: rlocs.clone() })
        };
        self.core.groups().filter_map(view).collect()
    }

    pub(super) fn rules(&self) -> Vec<api::RuleCount> {
        let counted = self.plane.rule_counters().unwrap_or_default().into_iter();
        let counted: BTreeMap<u32, (u64, u64)> =
            counted.map(|(rule, packets, bytes)| (rule, (packets, bytes))).collect();
        let view = |(vn, group, rule, number): (&VnName, &GroupName, &Rule, u32)| {
            let (packets, bytes) = counted.get(&number).copied().unwrap_or_default();
            let (vn, group, rule) = (vn.clone(), group.clone(), rule.to_string());
            api::RuleCount { vn, group, rule, packets, bytes }
        };
        self.core.rules().map(view).collect()
    }

    pub(super) fn drops(&self) -> Vec<api::Drop> {
        let counters = self.plane.counters().unwrap_or_default();
        let drop = |c: weft_datapath::Counter| api::Drop {
            vn: c.vni.and_then(|vni| self.core.vn_name(vni)).cloned(),
            reason: c.reason.as_str().to_owned(),
            path: path_name(c.path).to_owned(),
            direction: direction_name(c.direction).to_owned(),
            packets: c.packets,
            bytes: c.bytes,
        };
        counters.into_iter().map(drop).collect()
    }

    pub(super) fn status(&self) -> api::Status {
        let oracle = |(index, link): (usize, &Link)| api::OracleStatus {
            addr: link.addr.clone(),
            session: self.core.session_is_up(index),
            error: link.error.clone(),
        };
        api::Status {
            name: self.name.clone(),
            xtr_id: self.xtr_id,
            rlocs: self.rlocs.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            oracles: self.sessions.iter().enumerate().map(oracle).collect(),
            ready: self.ready(),
        }
    }

    pub(super) async fn publish(&mut self) {
        let packets = self.plane.counters().unwrap_or_default();
        let limited = packets.iter().filter(|c| c.reason == Reason::PuntLimited);
        let at_vaps = limited.map(|c| c.packets).sum();
        let held = Held { at_vaps, under_way: self.core.counters().requests_suppressed };
        if let Some(Held { at_vaps, under_way }) = self.held_back.news(self.clock.now(), held) {
            tracing::warn!(
                at_vaps,
                under_way,
                "questions of tenants were held back by limits; `weft get drops` says in which VNs"
            );
        }
        let packets = packets.into_iter();
        let vn = |vni: Option<_>| {
            vni.and_then(|v| self.core.vn_name(v)).map_or_else(String::new, ToString::to_string)
        };
        let snapshot = metrics::Snapshot {
            ready: self.ready(),
            connections: self.tracked,
            trouble: self.saver.failed().or_else(|| self.policies.failed()),
            counters: self.core.counters().named(),
            packets: packets
                .map(|c| {
                    let (path, direction) = (path_name(c.path), direction_name(c.direction));
                    let labels =
                        metrics::Packets { vn: vn(c.vni), reason: c.reason.as_str(), path, direction };
                    (labels, c.packets, c.bytes)
                })
                .collect(),
            tsis: self.core.tsis().count(),
            cache: self.core.cache().count(),
            sessions: (0..self.sessions.len()).filter(|o| self.core.session_is_up(*o)).count(),
        };
        *self.shared.write().await = snapshot;
    }
}

const fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Out => "out",
        Direction::In => "in",
    }
}

const fn path_name(path: Path) -> &'static str {
    match path {
        Path::Direct => "direct",
        Path::Device => "device",
    }
}
