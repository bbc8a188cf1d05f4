//! How a data plane is opened.

use core::time::Duration;
use std::path::PathBuf;

/// Sizes of the maps. Changing one needs an uninstall first: pinned maps keep theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// VAPs, and VNs, at this NVE.
    pub vaps: u32,
    /// IP addresses of all VAPs together.
    pub vap_ips: u32,
    /// MAC locations.
    pub locations: u32,
    /// Tenant systems that moved elsewhere, whose frames are sent on.
    pub away: u32,
    /// Locations learned from frames; the oldest is forgotten first.
    pub learned: u32,
    /// IP addresses that other NVEs were heard to have, where a VN translates; the oldest is forgotten first.
    pub heard: u32,
    /// ARP and ND answers.
    pub neighbours: u32,
    /// Underlay addresses that may send here.
    pub peers: u32,
    /// Members of all VNs together.
    pub members: u32,
    /// Members of one VN.
    pub members_per_vn: u32,
    /// Multicast groups that somebody asked for, of all VNs together.
    pub groups: u32,
    /// Unknown MACs remembered as asked for; the oldest is forgotten first.
    pub asked: u32,
    /// Counters: VNs here times what happens in them.
    pub counters: u32,
    /// What the policies here allow: ports of one protocol, from or to one class, each.
    pub rules: u32,
    /// Prefixes and addresses that the policies here tell apart.
    pub classes: u32,
    /// Connections that policies have let through; the one that was used longest ago is forgotten first.
    pub connections: u32,
    /// Packets of which fragments are to come; the oldest is forgotten first.
    pub fragments: u32,
    /// Octets of the punt ring, a power of two and at least a page.
    pub ring_bytes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            vaps: 4_096,
            vap_ips: 32_768,
            locations: 262_144,
            away: 16_384,
            learned: 65_536,
            heard: 65_536,
            neighbours: 262_144,
            peers: 65_536,
            members: 65_536,
            members_per_vn: 1_024,
            groups: 8_192,
            asked: 8_192,
            counters: 16_384,
            rules: 262_144,
            classes: 262_144,
            connections: 131_072,
            fragments: 8_192,
            ring_bytes: 262_144,
        }
    }
}

/// How to open a data plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// Where maps and links are pinned: an absolute path without dots. Where it is not on a BPF file
    /// system one is mounted: at /sys/fs/bpf for paths under it, else at the path itself.
    pub pin_dir: PathBuf,
    /// Name of the VXLAN device of the device path, at most 15 octets.
    pub vxlan_device: String,
    /// Frames per second that one VAP may hand to the agent.
    pub punt_rate: u32,
    /// And how many at once.
    pub punt_burst: u32,
    /// Connections of one VAP that nobody has answered that are followed, and as many more in each minute. One whose
    /// tenant system opens more is not to take the room of everybody else's.
    pub unanswered: u32,
    /// How long what was learned from frames counts after the last of them.
    pub ageing: Duration,
    /// Sizes of the maps.
    pub limits: Limits,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            pin_dir: PathBuf::from("/sys/fs/bpf/weft"),
            vxlan_device: "weft-vxlan".into(),
            punt_rate: 100,
            punt_burst: 200,
            unanswered: 16_384,
            ageing: Duration::from_secs(300),
            limits: Limits::default(),
        }
    }
}

/// What one connection takes of WEFT_OPEN_WINDOW where so many fit.
pub(super) fn open_interval(unanswered: u32) -> u64 {
    60_000_000_000 / u64::from(unanswered.max(1))
}

/// As the programs compare them: far beyond a life time is far enough.
pub(super) fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX).min(u64::MAX >> 2)
}

/// ns between two tokens, and how far a burst may run ahead.
pub(super) fn bucket(rate: u32, burst: u32) -> (u64, u64) {
    let interval = 1_000_000_000 / u64::from(rate.max(1));
    (interval, interval * u64::from(burst.max(1)))
}
