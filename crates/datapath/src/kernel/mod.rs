//! The data plane in the kernel: loads the programs, owns the maps, attaches to devices, and leaves
//! all of it running when its process ends.

mod abi;
mod connections;
mod dry_run;
mod groups;
mod knock;
mod load;
mod maps;
mod netlink;
mod observed;
mod options;
mod patrol;
mod pins;
mod policy;
mod punts;
mod sizes;
mod stays;
mod sys;
mod traces;
mod trie;
mod tunnel;
mod uninstall;
mod unsummed;
mod vaps;
mod vns;
mod vxlan;

use crate::{
    Config, Connection, Counter, Datapath, DatapathError, Direction, Heard, Idle, IfIndex, Levels, Location,
    Op, Path, RULE_COUNTERS, Reason, Seen, Tables, Tracked,
};
use abi::{ConfigValue, Ip, LocationValue, ScopedIp, VapValue, VnMac};
pub use connections::{ConnectionCounter, ConnectionReader};
use core::{fmt, net::IpAddr, time::Duration};
pub use dry_run::{Did, DryRun};
pub use knock::Progress;
use load::{check_host, load, load_failed};
use maps::Maps;
use netlink::Netlink;
pub use options::{Limits, OpenOptions};
use options::{bucket, nanoseconds, open_interval};
pub use patrol::{Part, Patrol};
use pins::{Pins, Role};
pub use punts::Punts;
pub use sizes::{TableSize, table_sizes};
use stays::Stays;
use std::{
    collections::{BTreeMap, BTreeSet},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::PathBuf,
    sync::Arc,
};
pub use traces::Steps;
use vns::Lists;
use weft_model::{MacAddr, Rloc, TenantIp, Vni};

/// What a thread runs for at a time that others wait for: as short as the kernel allows.
const PROMPT: Duration = Duration::from_micros(100);

/// Has the calling thread, and those that it starts from now on, run soon after they are woken: on a busy host a tenant
/// system that moves would else wait for its agent's turn, several times over. They get no more of a processor by it.
/// Linux 6.12 and newer.
///
/// # Errors
/// When the kernel refuses, as under a policy of real time.
pub fn run_promptly() -> std::io::Result<()> {
    sys::set_slice(PROMPT)
}

/// How long an IP address is believed to be behind an NVE that was heard, as translate.h has it.
const HEARD: Duration = Duration::from_secs(60);

/// The kernel's data plane of one network namespace.
///
/// Every call must come from a thread that is in the namespace [`Kernel::open`] was called in.
/// Dropping it leaves everything forwarding; the next open adopts it. [`Kernel::uninstall`] ends it.
pub struct Kernel {
    pins: Pins,
    maps: Maps,
    punts: Option<Punts>,
    steps: Option<Steps>,
    from_vap: Arc<OwnedFd>,
    from_underlay: Arc<OwnedFd>,
    from_overlay: Arc<OwnedFd>,
    again: Arc<OwnedFd>,
    carry_again: Arc<OwnedFd>,
    knock: Arc<OwnedFd>,
    netlink: Netlink,
    packet: OwnedFd,
    vxlan: IfIndex,
    vxlan_name: String,
    limits: Limits,
    bucket: (u64, u64),
    open_interval: u64,
    /// What the VAP maps hold: no other process writes them while we have the lock.
    vaps: BTreeMap<IfIndex, (Vni, BTreeSet<TenantIp>)>,
    /// Where the frequent counts of each VN are.
    slots: BTreeMap<Vni, u32>,
    lists: Lists,
    stays: Stays,
}

/// The part of adding a VAP that takes 8 to 24 ms: attaching the program to its device.
/// [`Kernel::attachment`] returns it; run it on any thread of the same network namespace, and set the VAP
/// once it has, or once [`Kernel::runs`] says so.
#[must_use = "frames from the tenant system are not taken until it is attached"]
#[derive(Debug)]
pub struct Attachment {
    program: Arc<OwnedFd>,
    device: IfIndex,
    path: PathBuf,
    /// Of a tenant system's device, with the program that knocks at it.
    progress: Option<(Progress, Arc<OwnedFd>)>,
}

impl Attachment {
    /// How far it is, for [`Kernel::runs`]; none of what is no tenant system's.
    #[must_use]
    pub fn progress(&self) -> Option<Progress> {
        self.progress.as_ref().map(|(progress, _)| progress.clone())
    }

    /// Attaches. The program sees every frame that comes after.
    ///
    /// # Errors
    /// [`DatapathError::NoDevice`], or what the kernel says.
    pub fn run(self) -> Result<(), DatapathError> {
        if let Some((progress, knock)) = &self.progress {
            progress.begin(knock);
        }
        pins::attach(self.program.as_fd(), self.device, &self.path)
    }
}

impl Kernel {
    /// Creates the data plane, or adopts the one an earlier process left: maps and their contents,
    /// and every attached program, replaced by this version's between two frames. What belongs to
    /// devices that are gone is removed.
    ///
    /// # Errors
    /// [`DatapathError`]; nothing that forwards already is touched before the maps are checked.
    pub fn open(options: &OpenOptions) -> Result<Self, DatapathError> {
        check_host()?;
        let pins = Pins::open(&options.pin_dir)?;
        let netns = std::fs::metadata("/proc/thread-self/ns/net")
            .map_err(|e| sys::refused("look at the network namespace", e))?
            .ino();
        maps::check(&pins.maps(), &options.limits)?;
        let pinned = maps::pinned_config(&pins.maps())?.filter(|c| c.netns != 0);
        if let Some(other) = pinned.filter(|c| c.netns != netns) {
            if pins.list()?.iter().any(|link| link.alive.is_some()) {
                let path = pins.root().to_owned();
                return Err(DatapathError::OtherNamespace { path, netns: other.netns });
            }
            pins.clear()?;
        }
        let netlink = Netlink::open()?;
        let device = vxlan::ensure(&netlink, &options.vxlan_device)?;
        let opened = Self::open_at(options, pins, netlink, IfIndex(device.index), netns);
        if opened.is_err() && device.fresh {
            Netlink::open()?.delete(device.index)?;
        }
        opened
    }

    fn open_at(
        options: &OpenOptions,
        pins: Pins,
        netlink: Netlink,
        vxlan: IfIndex,
        netns: u64,
    ) -> Result<Self, DatapathError> {
        let limits = options.limits.clone();
        let mut ebpf = load(&pins, &limits)?;
        let mut program = |name: &str| -> Result<Arc<OwnedFd>, DatapathError> {
            let failed = |e: &dyn fmt::Display| DatapathError::Load(format!("{name}: {e}"));
            let program: &mut aya::programs::SchedClassifier = ebpf
                .program_mut(name)
                .ok_or_else(|| failed(&"not in the object"))?
                .try_into()
                .map_err(|e: aya::programs::ProgramError| failed(&e))?;
            program.load().map_err(|e| load_failed(name, &e))?;
            let fd = program.fd().map_err(|e| failed(&e))?;
            let fd = fd.as_fd().try_clone_to_owned().map_err(|e| sys::refused("keep a program", e))?;
            Ok(Arc::new(fd))
        };
        let (from_vap, from_underlay, from_overlay) =
            (program("from_vap")?, program("from_underlay")?, program("from_overlay")?);
        let (again, carry_again, knock) = (program("again")?, program("carry_again")?, program("knock")?);
        let (maps, ring, steps) = Maps::take(&mut ebpf, &limits)?;
        let packet = sys::socket(libc::AF_PACKET, libc::SOCK_RAW, 0)
            .map_err(|e| sys::refused("open a packet socket", e))?;
        let mut kernel = Self {
            punts: Some(Punts::new(ring)?),
            steps: Some(Steps::new(steps)?),
            bucket: bucket(options.punt_rate, options.punt_burst),
            open_interval: open_interval(options.unanswered),
            vaps: BTreeMap::new(),
            slots: BTreeMap::new(),
            lists: Lists::default(),
            stays: Stays::new(sys::monotonic_exact(), limits.vap_ips),
            pins,
            maps,
            from_vap,
            from_underlay,
            from_overlay,
            again,
            carry_again,
            knock,
            netlink,
            packet,
            vxlan,
            vxlan_name: options.vxlan_device.clone(),
            limits,
        };
        let config = kernel.maps.config()?;
        let ageing = nanoseconds(options.ageing);
        kernel.maps.set_config(ConfigValue { vxlan_ifindex: vxlan.0, netns, ageing, ..config })?;
        kernel.adopt()?;
        kernel.end_traces()?;
        vxlan::start(&kernel.netlink, &kernel.vxlan_name, vxlan.0)?;
        Ok(kernel)
    }

    /// Puts right what somebody else has done to the VXLAN device: it is gone, down, without forwarding
    /// or without our program, and with it go the device path and the direct path's route lookups.
    /// Whether anything was amiss.
    ///
    /// # Errors
    /// What the kernel says, or [`DatapathError::OtherDevice`] if somebody took its name.
    pub fn mend(&mut self) -> Result<bool, DatapathError> {
        let attached = self.pins.is_attached(Role::Overlay, self.vxlan)?;
        if attached && vxlan::is_started(&self.netlink, &self.vxlan_name, self.vxlan.0)? {
            return Ok(false);
        }
        let device = IfIndex(vxlan::ensure(&self.netlink, &self.vxlan_name)?.index);
        if device != self.vxlan {
            self.pins.unlink(Role::Overlay, self.vxlan)?;
            self.vxlan = device;
        }
        if !self.pins.is_attached(Role::Overlay, device)? {
            self.attach(Role::Overlay, device)?;
        }
        vxlan::start(&self.netlink, &self.vxlan_name, device.0)?;
        let config = self.maps.config()?;
        self.maps.set_config(ConfigValue { vxlan_ifindex: device.0, ..config })?;
        Ok(true)
    }

    /// Takes over what is attached and forgets what cannot be any more.
    fn adopt(&mut self) -> Result<(), DatapathError> {
        let mut attached = BTreeSet::new();
        for link in self.pins.list()? {
            let wanted = link.role != Role::Overlay || link.device == self.vxlan;
            let Some(fd) = link.alive.filter(|_| wanted) else {
                self.pins.unlink(link.role, link.device)?;
                continue;
            };
            sys::replace(fd.as_fd(), self.program(link.role).as_fd())?;
            attached.insert((link.role, link.device));
        }
        if !attached.contains(&(Role::Overlay, self.vxlan)) {
            self.attach(Role::Overlay, self.vxlan)?;
        }
        for (vni, value) in self.maps.vns.all()? {
            self.slots.extend(Vni::new(vni).ok().map(|vni| (vni, value.slot)));
        }
        for (index, value) in self.maps.vaps.all()? {
            if let Ok(vni) = Vni::new(value.vni) {
                self.vaps.insert(IfIndex(index), (vni, BTreeSet::new()));
            }
        }
        for (key, _) in self.maps.vap_ips.all()? {
            match (self.vaps.get_mut(&IfIndex(key.scope)), TenantIp::new(key.ip.into())) {
                (Some((_, ips)), Ok(ip)) => {
                    ips.insert(ip);
                }
                _ => self.maps.vap_ips.remove(&key)?,
            }
        }
        let gone: Vec<IfIndex> =
            self.vaps.keys().copied().filter(|d| !attached.contains(&(Role::Vap, *d))).collect();
        for device in gone {
            self.remove_vap(device)?;
        }
        // Attached for a VAP that was never set.
        for (role, device) in attached {
            if role == Role::Vap && !self.vaps.contains_key(&device) {
                self.pins.unlink(role, device)?;
            }
        }
        self.adopt_vns()?;
        for vni in self.slots.keys().copied().collect::<Vec<_>>() {
            self.count_vn(vni)?;
        }
        Ok(())
    }

    fn program(&self, role: Role) -> &Arc<OwnedFd> {
        match role {
            Role::Vap => &self.from_vap,
            Role::Uplink => &self.from_underlay,
            Role::Overlay => &self.from_overlay,
        }
    }

    fn attachment_of(&self, role: Role, device: IfIndex) -> Attachment {
        let path = self.pins.link_path(role, device);
        Attachment { program: Arc::clone(self.program(role)), device, path, progress: None }
    }

    fn attach(&self, role: Role, device: IfIndex) -> Result<(), DatapathError> {
        self.attachment_of(role, device).run()
    }

    /// Takes the punt ring; none if it was taken already.
    pub fn punts(&mut self) -> Option<Punts> {
        self.punts.take()
    }

    /// Index of the VXLAN device.
    #[must_use]
    pub const fn vxlan_device(&self) -> IfIndex {
        self.vxlan
    }

    /// Detaches every program, removes every map and the VXLAN device. A mounted BPF file system stays.
    ///
    /// # Errors
    /// The first of what failed, after trying everything.
    pub fn uninstall(self) -> Result<(), DatapathError> {
        let mut first = Ok(());
        let mut note = |result: Result<(), DatapathError>| {
            if first.is_ok() {
                first = result;
            }
        };
        // First, so that it is never there without our program.
        note(self.netlink.delete(self.vxlan.0));
        match self.pins.list() {
            Ok(links) => {
                for link in links {
                    if let Some(fd) = link.alive {
                        note(sys::detach(fd.as_fd()));
                    }
                    note(self.pins.unlink(link.role, link.device));
                }
            }
            Err(e) => note(Err(e)),
        }
        note(self.pins.remove());
        first
    }

    fn set_config(&mut self, config: &Config) -> Result<(), DatapathError> {
        let of = |v4: bool| {
            let mut family = config.rlocs.iter().filter(|rloc| rloc.get().is_ipv4() == v4);
            match (family.next(), family.next()) {
                (Some(a), Some(b)) => Err(DatapathError::TwoRlocs(*a, *b)),
                (one, _) => Ok(one.map(|rloc| rloc.get())),
            }
        };
        let (v4, v6) = (of(true)?, of(false)?);
        let ip = |address: Option<IpAddr>| address.map_or_else(Ip::default, Ip::from);
        let value = ConfigValue {
            families: u32::from(v4.is_some()) | u32::from(v6.is_some()) << 1,
            rloc4: ip(v4),
            rloc6: ip(v6),
            node_mac: MacAddr::of_node(config.node).0,
            ..self.maps.config()?
        };
        self.maps.set_config(value)?;
        for link in self.pins.list()?.into_iter().filter(|link| link.role == Role::Uplink) {
            if link.alive.is_none() || !config.uplinks.contains(&link.device) {
                self.pins.unlink(Role::Uplink, link.device)?;
            }
        }
        for device in &config.uplinks {
            if !self.pins.is_attached(Role::Uplink, *device)? {
                self.attach(Role::Uplink, *device)?;
            }
        }
        Ok(())
    }
}

impl Datapath for Kernel {
    fn apply(&mut self, op: &Op) -> Result<(), DatapathError> {
        match op {
            Op::Config(config) => self.set_config(config),
            Op::SetVap(device, vap) => {
                if let Some(attachment) = self.attachment(*device)? {
                    attachment.run()?;
                }
                self.set_vap(*device, vap)
            }
            Op::RemoveVap(device) => self.remove_vap(*device),
            Op::SetLocation(vni, mac, location) => {
                let key = VnMac::new(*vni, *mac);
                // Most are new, and cost one call so.
                if !self.maps.fdb.add(&key, &LocationValue::new(*location, 0))? {
                    let used = self.maps.fdb.get(&key)?.map_or(0, |old| old.last_used);
                    self.maps.fdb.set(&key, &LocationValue::new(*location, used))?;
                }
                match location {
                    // Where it was is not where it will be when it leaves.
                    Location::Local(_) => self.maps.learned.remove(&key),
                    _ => Ok(()),
                }
            }
            Op::RemoveLocation(vni, mac) => self.maps.fdb.remove(&VnMac::new(*vni, *mac)),
            Op::SetAway(vni, mac, away) => self.maps.away.set(&VnMac::new(*vni, *mac), &(*away).into()),
            Op::RemoveAway(vni, mac) => self.maps.away.remove(&VnMac::new(*vni, *mac)),
            Op::SetNeighbour(vni, ip, neighbour) => {
                let key = ScopedIp { scope: vni.get(), ip: ip.get().into() };
                self.maps.neighbours.set(&key, &(*neighbour).into())
            }
            Op::RemoveNeighbour(vni, ip) => {
                self.maps.neighbours.remove(&ScopedIp { scope: vni.get(), ip: ip.get().into() })
            }
            Op::SetPeer(ip, peer) => self.maps.peers.set(&(*ip).into(), &(*peer).into()),
            Op::RemovePeer(ip) => self.maps.peers.remove(&(*ip).into()),
            Op::SetVn(vni, vn) => self.set_vn(*vni, vn),
            Op::RemoveVn(vni) => self.remove_vn(*vni),
            Op::SetGroup(vni, group, receivers) => self.set_group(*vni, *group, receivers),
            Op::RemoveGroup(vni, group) => self.maps.groups.remove(&groups::key(*vni, *group)),
            Op::SetRule(key, allow) => self.set_rule(key, *allow),
            Op::RemoveRule(key) => self.remove_rule(key),
            Op::SetClass(vni, prefix, class) => self.set_class(*vni, *prefix, *class),
            Op::RemoveClass(vni, prefix) => self.remove_class(*vni, *prefix),
        }
    }

    fn observed(&self) -> Result<Tables, DatapathError> {
        self.observe_all()
    }

    fn counters(&self) -> Result<Vec<Counter>, DatapathError> {
        let counter = |(key, value): (abi::CountKey, abi::CountValue)| {
            Some(Counter {
                vni: Vni::new(key.vni).ok(),
                reason: Reason::from_code(key.reason)?,
                path: abi::path_of(key.path).unwrap_or(Path::Direct),
                direction: if key.direction == 0 { Direction::Out } else { Direction::In },
                packets: value.packets,
                bytes: value.bytes,
            })
        };
        let mut counters: Vec<_> = self.maps.counts()?.into_iter().filter_map(counter).collect();
        for (vni, slot) in &self.slots {
            for ((reason, path, direction), value) in abi::HOT.into_iter().zip(self.maps.hot(*slot)?.of) {
                let (vni, packets, bytes) = (Some(*vni), value.packets, value.bytes);
                if packets != 0 {
                    counters.push(Counter { vni, reason, path, direction, packets, bytes });
                }
            }
        }
        counters.sort();
        Ok(counters)
    }

    fn learned(&self) -> Result<Vec<Seen>, DatapathError> {
        let (now, ageing) = (sys::monotonic(), self.maps.config()?.ageing);
        let seen = |(key, value): (VnMac, abi::LearnedValue)| {
            let idle = now.saturating_sub(value.seen);
            let (vni, rloc) = (Vni::new(key.vni).ok()?, Rloc::new(value.rloc.into()).ok()?);
            let one = Seen { vni, mac: MacAddr(key.mac), rloc, idle: Duration::from_nanos(idle) };
            (idle < ageing).then_some(one)
        };
        let mut all: Vec<Seen> = self.maps.learned.all()?.into_iter().filter_map(seen).collect();
        all.sort();
        Ok(all)
    }

    fn heard(&self) -> Result<Vec<Heard>, DatapathError> {
        let now = sys::monotonic();
        let heard = |(key, value): (abi::ScopedIp, abi::HeardValue)| {
            let idle = Duration::from_nanos(now.saturating_sub(value.seen));
            let (vni, ip) = (Vni::new(key.scope).ok()?, TenantIp::new(key.ip.into()).ok()?);
            let one = Heard { vni, ip, mac: MacAddr(value.mac), idle };
            (idle < HEARD).then_some(one)
        };
        let mut all: Vec<Heard> = self.maps.heard.all()?.into_iter().filter_map(heard).collect();
        all.sort();
        Ok(all)
    }

    fn last_used(&self, vni: Vni, mac: MacAddr) -> Result<Option<Idle>, DatapathError> {
        let at = self.maps.fdb.get(&VnMac::new(vni, mac))?.map(|value| value.last_used);
        let idle = |at| Duration::from_nanos(sys::monotonic().saturating_sub(at));
        Ok(at.filter(|at| *at != 0).map(idle))
    }

    fn vouch(&mut self, lasts: Duration) -> Result<(), DatapathError> {
        let lasts = u64::try_from(lasts.as_nanos()).unwrap_or(u64::MAX);
        let now = sys::monotonic();
        let (fence_until, vouched) = if lasts == 0 { (0, 0) } else { (now.saturating_add(lasts), now) };
        self.maps.set_config(ConfigValue { fence_until, vouched, ..self.maps.config()? })
    }

    fn resend(&mut self, vap: IfIndex, frame: &[u8]) -> Result<Reason, DatapathError> {
        if !sys::device_exists(vap) {
            return Err(DatapathError::NoDevice(vap));
        }
        let run = dry_run::run(self.again.as_fd(), vap, &unsummed::completed(frame), false)?;
        run.reason.ok_or_else(|| DatapathError::Load("a program does not say what it did".into()))
    }

    fn carry(&mut self, vni: Vni, from: Rloc, frame: &[u8]) -> Result<Reason, DatapathError> {
        let mut cb = [0, 0, 0, 0, vni.get()];
        for (word, octets) in cb.iter_mut().zip(Ip::from(from.get()).0.as_chunks::<4>().0) {
            *word = u32::from_ne_bytes(*octets);
        }
        let frame = unsummed::completed(frame);
        let run = dry_run::carry(self.carry_again.as_fd(), self.vxlan, &frame, cb)?;
        run.reason.ok_or_else(|| DatapathError::Load("a program does not say what it did".into()))
    }

    fn inject(&mut self, vap: IfIndex, frame: &[u8]) -> Result<(), DatapathError> {
        if !(14..=65_535).contains(&frame.len()) {
            return Err(DatapathError::FrameLength(frame.len()));
        }
        sys::send_frame(self.packet.as_fd(), vap, frame).map_err(|e| match e.raw_os_error() {
            Some(libc::ENODEV | libc::ENXIO) => DatapathError::NoDevice(vap),
            _ => sys::refused(format!("send a frame to device {}", vap.0), e),
        })
    }

    fn rule_counters(&self) -> Result<Vec<(u32, u64, u64)>, DatapathError> {
        let hits = self.maps.rule_hits()?;
        Ok(hits.into_iter().map(|(rule, count)| (rule, count.packets, count.bytes)).collect())
    }

    fn clear_rule(&mut self, rule: u32) -> Result<(), DatapathError> {
        if rule >= RULE_COUNTERS {
            return Err(DatapathError::NoRuleCounter(rule));
        }
        self.maps.clear_rule(rule)
    }

    fn tracked(&self) -> Result<Tracked, DatapathError> {
        self.connection_counter()?.count()
    }

    fn connections(
        &self,
        vni: Vni,
        of: Option<&BTreeSet<TenantIp>>,
    ) -> Result<Vec<Connection>, DatapathError> {
        self.connection_reader(vni, of)?.read()
    }

    fn set_connections(&mut self, connections: &[Connection]) -> Result<(), DatapathError> {
        self.take_over_connections(connections)
    }

    fn remove_connections(&mut self, vni: Vni, of: &BTreeSet<TenantIp>) -> Result<(), DatapathError> {
        self.forget_connections(vni, of)
    }

    fn levels(&self, vap: IfIndex) -> Result<Levels, DatapathError> {
        let now = sys::monotonic_exact();
        let of = |value: VapValue| Levels { send: value.send.level(now), receive: value.receive.level(now) };
        Ok(self.maps.vaps.get(&vap.0)?.map_or_else(Levels::default, of))
    }

    fn lower(&mut self, vap: IfIndex, levels: Levels, ago: Duration) -> Result<(), DatapathError> {
        let Some(mut value) = self.maps.vaps.get(&vap.0)? else { return Ok(()) };
        let then = sys::monotonic_exact().saturating_sub(nanoseconds(ago));
        value.send.lower(levels.send, then);
        value.receive.lower(levels.receive, then);
        self.maps.vaps.set(&vap.0, &value)
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel")
            .field("pins", &self.pins.root())
            .field("vxlan", &self.vxlan)
            .field("limits", &self.limits)
            .field("vaps", &self.vaps)
            .finish_non_exhaustive()
    }
}
