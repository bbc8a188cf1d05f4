//! The structures of `bpf/abi.h`, octet for octet, and what they mean in the tables' terms.

use super::{
    policy::policy_of,
    tunnel::{dscp_code, dscp_of},
};
use crate::{
    Away, Direction, IfIndex, Location, Neighbour, Path, Peer, PuntReason, Reason, Toward, Tunnel, Vap,
    VapKind,
};
use core::{
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
};
use std::collections::BTreeSet;
use weft_model::{Bum, Epoch, Learning, MacAddr, Miss, Rloc, SourcePorts, TenantIp, TsMac, Ttl, Vni};

pub(crate) const ABI_VERSION: u32 = 12;

/// An address, IPv4 as IPv4-mapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(4))]
pub(crate) struct Ip(pub(crate) [u8; 16]);

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct ConfigValue {
    pub(crate) vxlan_ifindex: u32,
    pub(crate) families: u32,
    pub(crate) rloc4: Ip,
    pub(crate) rloc6: Ip,
    pub(crate) netns: u64,
    pub(crate) fence_until: u64,
    pub(crate) vouched: u64,
    pub(crate) node_mac: [u8; 6],
    pub(crate) pad: [u8; 2],
    pub(crate) ageing: u64,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct LearnedValue {
    pub(crate) rloc: Ip,
    pub(crate) seen: u64,
}

/// A token bucket and its state.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct MeterValue {
    pub(crate) rate: u64,
    pub(crate) tat: u64,
    pub(crate) burst: u32,
    pub(crate) shift: u32,
    pub(crate) octet: u64,
    pub(crate) window: u64,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct VapValue {
    pub(crate) vni: u32,
    pub(crate) mac: [u8; 6],
    pub(crate) mtu: u16,
    pub(crate) kind: u8,
    pub(crate) path: u8,
    pub(crate) flags: u8,
    pub(crate) mode: u8,
    pub(crate) slot: u32,
    pub(crate) ip4: [u8; 4],
    pub(crate) ip6: Ip,
    pub(crate) previous: u32,
    pub(crate) ifindex: u32,
    pub(crate) policy: u32,
    pub(crate) generation: u32,
    pub(crate) punt_interval: u64,
    pub(crate) punt_window: u64,
    pub(crate) punt_tat: u64,
    pub(crate) icmp_tat: u64,
    pub(crate) storm_tat: u64,
    pub(crate) open_interval: u64,
    pub(crate) open_tat: u64,
    pub(crate) opened_tat: u64,
    pub(crate) since: u64,
    pub(crate) send: MeterValue,
    pub(crate) receive: MeterValue,
    pub(crate) ttl: u8,
    pub(crate) dscp: u8,
    pub(crate) port: u16,
    pub(crate) more_ports: u16,
    pub(crate) pad2: u16,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct ScopedIp {
    pub(crate) scope: u32,
    pub(crate) ip: Ip,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct VnMac {
    pub(crate) vni: u32,
    pub(crate) mac: [u8; 6],
    pub(crate) pad: [u8; 2],
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct LocationValue {
    pub(crate) kind: u32,
    pub(crate) ifindex: u32,
    pub(crate) rloc: Ip,
    pub(crate) epoch: u32,
    pub(crate) other: u32,
    pub(crate) last_used: u64,
    pub(crate) contested: u64,
    pub(crate) contested_last: u64,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct AwayValue {
    pub(crate) rloc: Ip,
    pub(crate) epoch: u32,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct HeardValue {
    pub(crate) mac: [u8; 6],
    pub(crate) pad: [u8; 2],
    pub(crate) seen: u64,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct NeighbourValue {
    pub(crate) mac: [u8; 6],
    pub(crate) known: u8,
    pub(crate) pad: u8,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct PeerValue {
    pub(crate) may: u32,
    pub(crate) node: u32,
    pub(crate) other: Ip,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct CountKey {
    pub(crate) vni: u32,
    pub(crate) reason: u16,
    pub(crate) path: u8,
    pub(crate) direction: u8,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct CountValue {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

/// The fixed part of a punt record; the frame follows.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct PuntValue {
    pub(crate) ifindex: u32,
    pub(crate) vni: u32,
    pub(crate) reason: u32,
    pub(crate) len: u32,
    pub(crate) dst: [u8; 6],
    pub(crate) toward: u8,
    pub(crate) pad: u8,
    pub(crate) from: Ip,
    pub(crate) rule: u32,
    pub(crate) frame: [u8; 128],
}

/// The same of a whole frame.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct HeldValue {
    pub(crate) ifindex: u32,
    pub(crate) vni: u32,
    pub(crate) reason: u32,
    pub(crate) len: u32,
    pub(crate) dst: [u8; 6],
    pub(crate) toward: u8,
    pub(crate) pad: u8,
    pub(crate) from: Ip,
    pub(crate) rule: u32,
    pub(crate) frame: [u8; 1600],
}

/// A traced packet.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct TraceValue {
    pub(crate) rloc: Ip,
    pub(crate) until: u64,
    pub(crate) vni: u32,
    pub(crate) flags: u32,
    pub(crate) next: Ip,
}

/// A step of one.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct StepValue {
    pub(crate) id: u32,
    pub(crate) kind: u32,
    pub(crate) ifindex: u32,
    pub(crate) a: u32,
    pub(crate) b: u32,
    pub(crate) pad: u32,
    pub(crate) ip: Ip,
}

/// What a rule is found by, behind the length of the prefix.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Match {
    pub(crate) policy: u32,
    pub(crate) class: u32,
    pub(crate) toward: u16,
    pub(crate) protocol: u16,
    pub(crate) number: [u8; 2],
    pub(crate) pad: [u8; 2],
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct RuleValue {
    pub(crate) rule: u32,
    pub(crate) log: u32,
}

/// What a class is found by, likewise.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct OfClass {
    pub(crate) vni: u32,
    pub(crate) family: u32,
    pub(crate) ip: Ip,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct ConnKey {
    pub(crate) vni: u32,
    pub(crate) local: Ip,
    pub(crate) remote: Ip,
    pub(crate) local_port: [u8; 2],
    pub(crate) remote_port: [u8; 2],
    pub(crate) protocol: u8,
    pub(crate) pad: [u8; 3],
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct ConnValue {
    pub(crate) of: u32,
    pub(crate) policy: u32,
    pub(crate) seen: u64,
    pub(crate) born: u64,
    pub(crate) generation: u32,
    pub(crate) rule: u16,
    pub(crate) state: u8,
    pub(crate) opened: u8,
    pub(crate) to: u32,
    pub(crate) pad: u32,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct ConnCounts {
    pub(crate) inserted: u64,
    pub(crate) removed: u64,
    pub(crate) unfollowed: u64,
}

#[cfg(test)]
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct FragmentKey {
    pub(crate) vni: u32,
    pub(crate) src: Ip,
    pub(crate) dst: Ip,
    pub(crate) id: u32,
    pub(crate) policy: u32,
    pub(crate) protocol: u8,
    pub(crate) toward: u8,
    pub(crate) pad: [u8; 2],
}

#[cfg(test)]
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct FragmentValue {
    pub(crate) seen: u64,
    pub(crate) rule: u32,
    pub(crate) pad: u32,
}

/// Octets of a key and a value of the programs' own.
pub(crate) const FRAGMENT_KEY: u32 = 48;
pub(crate) const FRAGMENT_VALUE: u32 = 16;

macro_rules! pod {
    ($($type:ty),*) => {
        $(
            // SAFETY: repr(C) with every octet a field (the layout test compares sizes and offsets
            // with the C header, which pads by hand), and every bit pattern legal.
            unsafe impl aya::Pod for $type {}
        )*
    };
}

/// What is known of a VN here.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct VnValue {
    pub(crate) vaps: u32,
    pub(crate) slot: u32,
}

/// How a VN is treated.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct SettingsValue {
    pub(crate) members: u32,
    pub(crate) mode: u8,
    pub(crate) carries: u8,
    pub(crate) pad: [u8; 2],
    pub(crate) storm_rate: u32,
    pub(crate) storm_burst: u32,
    pub(crate) gateway: Ip,
}

/// A place in a list of a VN.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Indexed {
    pub(crate) vni: u32,
    pub(crate) index: u32,
}

/// The places in a [`GroupValue`], and how many there are when there are not enough.
pub(crate) const GROUP_SIZE: usize = 128;
pub(crate) const GROUP_ALL: u32 = u32::MAX;

/// Who asked for a group.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct GroupValue {
    pub(crate) vaps: u32,
    pub(crate) members: u32,
    pub(crate) ifindex: [u32; GROUP_SIZE],
    pub(crate) rloc: [Ip; GROUP_SIZE],
}

/// Indexed by [`HOT`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct HotValue {
    pub(crate) of: [CountValue; 6],
}

/// What each count of a [`HotValue`] is of.
pub(crate) const HOT: [(Reason, Path, Direction); 6] = [
    (Reason::Delivered, Path::Direct, Direction::In),
    (Reason::Delivered, Path::Device, Direction::In),
    (Reason::Encapsulated, Path::Direct, Direction::Out),
    (Reason::Encapsulated, Path::Device, Direction::Out),
    (Reason::Local, Path::Direct, Direction::Out),
    (Reason::Local, Path::Device, Direction::Out),
];

pod!(
    Ip,
    VnValue,
    SettingsValue,
    Indexed,
    HotValue,
    GroupValue,
    Match,
    RuleValue,
    OfClass,
    ConnKey,
    ConnValue,
    ConnCounts,
    ConfigValue,
    MeterValue,
    VapValue,
    ScopedIp,
    VnMac,
    LocationValue,
    AwayValue,
    LearnedValue,
    HeardValue,
    NeighbourValue,
    PeerValue,
    CountKey,
    CountValue,
    TraceValue
);

impl From<IpAddr> for Ip {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self(v4.to_ipv6_mapped().octets()),
            IpAddr::V6(v6) => Self(v6.octets()),
        }
    }
}

impl From<Ip> for IpAddr {
    fn from(ip: Ip) -> Self {
        Self::V6(Ipv6Addr::from(ip.0)).to_canonical()
    }
}

impl VnMac {
    pub(crate) const fn new(vni: Vni, mac: MacAddr) -> Self {
        Self { vni: vni.get(), mac: mac.0, pad: [0; 2] }
    }
}

impl VapValue {
    pub(crate) fn new(
        vap: &Vap,
        slot: u32,
        mode: u8,
        (punt_interval, punt_window): (u64, u64),
        old: Option<&Self>,
    ) -> Self {
        let first = |v4: bool| vap.ips.iter().map(|ip| ip.get()).find(|ip| ip.is_ipv4() == v4);
        Self {
            vni: vap.vni.get(),
            mac: vap.mac.octets(),
            mtu: vap.mtu,
            kind: match vap.kind {
                VapKind::Veth => 0,
                VapKind::Tap => 1,
            },
            path: path_code(vap.path),
            flags: u8::from(vap.activated)
                | u8::from(vap.policy.is_some_and(|p| p.log_refused)) << 1
                | u8::from(vap.waits) << 2,
            mode,
            slot,
            ip4: match first(true) {
                Some(IpAddr::V4(v4)) => v4.octets(),
                _ => [0; 4],
            },
            ip6: first(false).map_or_else(Ip::default, Ip::from),
            previous: vap.previous.map_or(0, NonZeroU32::get),
            ifindex: 0,
            policy: vap.policy.map_or(0, |policy| policy.id.get()),
            generation: vap.policy.map_or(0, |policy| policy.generation),
            punt_interval,
            punt_window,
            punt_tat: old.map_or(0, |old| old.punt_tat),
            icmp_tat: old.map_or(0, |old| old.icmp_tat),
            storm_tat: old.map_or(0, |old| old.storm_tat),
            open_interval: 0,
            open_tat: old.map_or(0, |old| old.open_tat),
            opened_tat: old.map_or(0, |old| old.opened_tat),
            since: old.map_or(0, |old| old.since),
            send: MeterValue::new(vap.tunnel.send, old.map(|old| &old.send)),
            receive: MeterValue::new(vap.tunnel.receive, old.map(|old| &old.receive)),
            ttl: vap.tunnel.ttl.get(),
            dscp: dscp_code(vap.tunnel.dscp),
            port: vap.tunnel.ports.first(),
            more_ports: vap.tunnel.ports.last() - vap.tunnel.ports.first(),
            pad2: 0,
        }
    }

    /// What it says; none for octets that [`VapValue::new`] never writes.
    pub(crate) fn meaning(&self, ips: BTreeSet<TenantIp>) -> Option<Vap> {
        Some(Vap {
            vni: Vni::new(self.vni).ok()?,
            mac: TsMac::new(MacAddr(self.mac)).ok()?,
            ips,
            kind: match self.kind {
                0 => VapKind::Veth,
                1 => VapKind::Tap,
                _ => return None,
            },
            path: path_of(self.path)?,
            mtu: self.mtu,
            activated: self.flags & 1 == 1,
            waits: self.flags & 4 != 0,
            previous: NonZeroU32::new(self.previous),
            policy: policy_of(self.policy, self.generation, self.flags & 2 != 0),
            tunnel: Tunnel {
                ttl: Ttl::new(self.ttl).ok()?,
                dscp: dscp_of(self.dscp)?,
                ports: SourcePorts::new(self.port, self.port.checked_add(self.more_ports)?)?,
                send: self.send.meaning(),
                receive: self.receive.meaning(),
            },
        })
    }
}

impl LocationValue {
    pub(crate) fn new(location: Location, last_used: u64) -> Self {
        let empty = Self { last_used, ..Self::default() };
        match location {
            Location::Nowhere => empty,
            Location::Local(IfIndex(ifindex)) => Self { kind: 1, ifindex, ..empty },
            Location::Remote { rloc, epoch, other } => {
                Self { kind: 2, rloc: rloc.get().into(), epoch: epoch.get(), other, ..empty }
            }
        }
    }

    pub(crate) fn meaning(&self) -> Option<Location> {
        match self.kind {
            0 => Some(Location::Nowhere),
            1 => Some(Location::Local(IfIndex(self.ifindex))),
            2 => Some(Location::Remote {
                rloc: Rloc::new(self.rloc.into()).ok()?,
                epoch: Epoch::new(self.epoch)?,
                other: self.other,
            }),
            _ => None,
        }
    }
}

impl From<Away> for AwayValue {
    fn from(away: Away) -> Self {
        Self { rloc: away.rloc.get().into(), epoch: away.epoch.get() }
    }
}

impl AwayValue {
    pub(crate) fn meaning(&self) -> Option<Away> {
        Some(Away { rloc: Rloc::new(self.rloc.into()).ok()?, epoch: Epoch::new(self.epoch)? })
    }
}

impl From<Neighbour> for NeighbourValue {
    fn from(neighbour: Neighbour) -> Self {
        match neighbour {
            Neighbour::Nobody => Self::default(),
            Neighbour::At(mac) => Self { mac: mac.0, known: 1, pad: 0 },
        }
    }
}

impl From<NeighbourValue> for Neighbour {
    fn from(value: NeighbourValue) -> Self {
        if value.known == 0 { Self::Nobody } else { Self::At(MacAddr(value.mac)) }
    }
}

impl From<Peer> for PeerValue {
    fn from(peer: Peer) -> Self {
        let other = peer.other.map_or_else(Ip::default, |rloc| rloc.get().into());
        Self { may: u32::from(peer.nve) | u32::from(peer.oracle) << 1, node: peer.node, other }
    }
}

impl From<PeerValue> for Peer {
    fn from(value: PeerValue) -> Self {
        let other = Rloc::new(value.other.into()).ok();
        Self { nve: value.may & 1 != 0, oracle: value.may & 2 != 0, node: value.node, other }
    }
}

/// The octet that programs know a VN's ways by.
pub(crate) const fn mode_code(learning: Learning, bum: Bum, miss: Miss) -> u8 {
    let learns = match learning {
        Learning::Oracle => 0,
        Learning::Flood => 1,
        Learning::Translate => 2,
        Learning::Distribute => 3,
    };
    let replicates = match bum {
        Bum::Drop => 0,
        Bum::Replicate => 4,
    };
    let missing = match miss {
        Miss::Queue => 0,
        Miss::Drop => 0x40,
        Miss::Gateway => 0x80,
    };
    learns | replicates | missing
}

pub(crate) const fn mode_of(code: u8) -> (Learning, Bum, Miss) {
    let learning = match code & 3 {
        0 => Learning::Oracle,
        1 => Learning::Flood,
        2 => Learning::Translate,
        _ => Learning::Distribute,
    };
    let miss = match code & 0xc0 {
        0x40 => Miss::Drop,
        0x80 => Miss::Gateway,
        _ => Miss::Queue,
    };
    (learning, if code & 4 == 0 { Bum::Drop } else { Bum::Replicate }, miss)
}

pub(crate) const fn path_code(path: Path) -> u8 {
    match path {
        Path::Direct => 0,
        Path::Device => 1,
    }
}

pub(crate) const fn path_of(code: u8) -> Option<Path> {
    match code {
        0 => Some(Path::Direct),
        1 => Some(Path::Device),
        _ => None,
    }
}

/// `rule` and `toward` are those of a record about a policy.
pub(crate) const fn punt_reason(code: u32, rule: u32, toward: u8) -> Option<PuntReason> {
    let toward = if toward == 0 { Toward::Out } else { Toward::In };
    match code {
        1 => Some(PuntReason::ArpMiss),
        2 => Some(PuntReason::NdMiss),
        3 => Some(PuntReason::LinkLocalClaim),
        4 => Some(PuntReason::UnknownMac),
        5 => Some(PuntReason::Route),
        6 => Some(PuntReason::UnknownMacHeld),
        7 => Some(PuntReason::RouteSeen),
        8 => Some(PuntReason::NoSuchTs),
        9 => Some(PuntReason::Report),
        10 => Some(PuntReason::Carried),
        11 => Some(PuntReason::Allowed(rule, toward)),
        12 => Some(PuntReason::Refused(toward)),
        13 => Some(PuntReason::FirstFrame),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::{offset_of, size_of};
    use std::{fmt::Write as _, process::Command};

    macro_rules! layout {
        ($($type:ident = $c:literal { $($field:ident),* })*) => {{
            let mut ours = String::new();
            let mut program = String::from("#include <stddef.h>\n#include <stdio.h>\n#include \"abi.h\"\nint main(void) {\n");
            $(
                writeln!(ours, "{} {}", $c, size_of::<$type>()).unwrap();
                writeln!(program, "printf(\"%s %zu\\n\", \"{0}\", sizeof(struct {0}));", $c).unwrap();
                $(
                    writeln!(ours, "{}.{} {}", $c, stringify!($field), offset_of!($type, $field)).unwrap();
                    writeln!(program, "printf(\"%s %zu\\n\", \"{0}.{1}\", offsetof(struct {0}, {1}));", $c, stringify!($field)).unwrap();
                )*
            )*
            program.push_str("return 0; }\n");
            (ours, program)
        }};
    }

    #[test]
    fn layouts_are_those_of_the_header() {
        let (ours, program) = layout! {
            Ip = "weft_ip" {}
            ConfigValue = "weft_config" { vxlan_ifindex, families, rloc4, rloc6, netns, fence_until, vouched, node_mac, pad, ageing }
            LearnedValue = "weft_learned" { rloc, seen }
            AwayValue = "weft_away" { rloc, epoch }
            HeardValue = "weft_heard" { mac, pad, seen }
            VapValue = "weft_vap" { vni, mac, mtu, kind, path, flags, mode, slot, ip4, ip6, previous, ifindex, policy, generation, punt_interval, punt_window, punt_tat, icmp_tat, storm_tat, open_interval, open_tat, opened_tat, since, send, receive, ttl, dscp, port, more_ports, pad2 }
            MeterValue = "weft_meter" { rate, tat, burst, shift, octet, window }
            ScopedIp = "weft_scoped_ip" { scope, ip }
            VnMac = "weft_vn_mac" { vni, mac, pad }
            LocationValue = "weft_location" { kind, ifindex, rloc, epoch, other, last_used, contested, contested_last }
            NeighbourValue = "weft_neighbour" { mac, known, pad }
            PeerValue = "weft_peer" { may, node, other }
            CountKey = "weft_count_key" { vni, reason, path, direction }
            CountValue = "weft_count" { packets, bytes }
            VnValue = "weft_vn" { vaps, slot }
            SettingsValue = "weft_settings" { members, mode, carries, pad, storm_rate, storm_burst, gateway }
            Indexed = "weft_indexed" { vni, index }
            HotValue = "weft_hot" { of }
            Match = "weft_match" { policy, class, toward, protocol, number, pad }
            RuleValue = "weft_rule" { rule, log }
            OfClass = "weft_of_class" { vni, family, ip }
            ConnKey = "weft_conn_key" { vni, local, remote, local_port, remote_port, protocol, pad }
            ConnValue = "weft_conn" { of, policy, seen, born, generation, rule, state, opened, to, pad }
            ConnCounts = "weft_conn_counts" { inserted, removed, unfollowed }
            FragmentKey = "weft_fragment_key" { vni, src, dst, id, policy, protocol, toward, pad }
            FragmentValue = "weft_fragment" { seen, rule, pad }
            TraceValue = "weft_trace" { rloc, until, vni, flags, next }
            StepValue = "weft_step" { id, kind, ifindex, a, b, pad, ip }
            GroupValue = "weft_group" { vaps, members, ifindex, rloc }
            PuntValue = "weft_punt" { ifindex, vni, reason, len, dst, toward, pad, from, rule, frame }
            HeldValue = "weft_held" { ifindex, vni, reason, len, dst, toward, pad, from, rule, frame }
        };
        let dir = std::env::temp_dir().join(format!("weft-abi-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (source, binary) = (dir.join("layout.c"), dir.join("layout"));
        std::fs::write(&source, program).unwrap();
        let bpf = concat!(env!("CARGO_MANIFEST_DIR"), "/bpf");
        let cc = Command::new("cc").args(["-I", bpf, "-o"]).args([&binary, &source]).output().unwrap();
        assert!(cc.status.success(), "{}", String::from_utf8_lossy(&cc.stderr));
        let theirs = Command::new(&binary).output().unwrap().stdout;
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(String::from_utf8(theirs).unwrap(), ours);
    }

    #[test]
    fn sizes_of_fragments_are_known() {
        assert_eq!((size_of::<FragmentKey>(), size_of::<FragmentValue>()), (48, 16));
        assert_eq!((FRAGMENT_KEY, FRAGMENT_VALUE), (48, 16));
    }

    #[test]
    fn version_is_that_of_the_header() {
        let line = format!("#define WEFT_ABI_VERSION {ABI_VERSION}\n");
        assert!(include_str!("../../bpf/abi.h").contains(&line));
    }
}
