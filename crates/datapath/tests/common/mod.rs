//! A little data centre of network namespaces: two NVEs on a switched fabric, tenant systems behind
//! veth pairs or TAPs. Everything is named after this process and removed when dropped.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

pub mod frames;
pub mod pair;
pub mod tap;

use std::{
    fs::File,
    net::IpAddr,
    os::fd::AsRawFd as _,
    path::PathBuf,
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};
use weft_datapath::{
    Config, Counter, Datapath as _, IfIndex, Kernel, Limits, Location, Neighbour, Op, OpenOptions, Path,
    Peer, Punts, Reason, Vap, VapKind, Vn,
};
use weft_model::{Bum, Epoch, Learning, MacAddr, Rloc, TenantIp, TsMac, Vni};

/// Runs a program and returns what it wrote; panics if it fails.
pub fn run(command: &str) -> String {
    let output = try_run(command);
    assert!(
        output.status.success(),
        "{command}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a program.
pub fn try_run(command: &str) -> Output {
    let mut words = command.split_whitespace();
    Command::new(words.next().unwrap()).args(words).output().unwrap_or_else(|e| panic!("{command}: {e}"))
}

/// Waits for a condition, 30 s at most.
#[allow(clippy::disallowed_methods, reason = "a ceiling needs a clock, and polling a pause")]
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "still waiting for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A network namespace; deleted on drop.
pub struct Ns(pub String);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Unique in this machine.
pub fn unique(word: &str) -> String {
    format!("wd{}n{}{word}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Ns {
    pub fn new(word: &str) -> Self {
        let name = unique(word);
        run(&format!("ip netns add {name}"));
        run(&format!("ip -n {name} link set lo up"));
        Self(name)
    }

    /// `ip` in this namespace, one command for each line.
    pub fn ip(&self, script: &str) {
        for line in script.lines().map(str::trim).filter(|l| !l.is_empty()) {
            run(&format!("ip -n {} {line}", self.0));
        }
    }

    pub fn exec(&self, command: &str) -> Output {
        try_run(&format!("ip netns exec {} {command}", self.0))
    }

    /// Runs a closure on a thread inside.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let name = self.0.clone();
        std::thread::scope(|scope| {
            scope
                .spawn(move || {
                    enter(&name);
                    work()
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    pub fn index(&self, device: &str) -> IfIndex {
        let out = run(&format!("ip -n {} -o link show {device}", self.0));
        IfIndex(out.split(':').next().unwrap().trim().parse().unwrap())
    }
}

/// Moves the calling thread into a namespace.
pub fn enter(name: &str) {
    let file = File::open(format!("/run/netns/{name}")).unwrap();
    // SAFETY: a plain call on an open descriptor; it moves this thread only.
    let ret = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
    assert_eq!(ret, 0, "setns {name}; these tests need root");
}

impl Drop for Ns {
    fn drop(&mut self) {
        let _gone = try_run(&format!("ip netns del {}", self.0));
    }
}

pub fn vni(n: u32) -> Vni {
    Vni::new(n).unwrap()
}

/// The MAC of tenant system `n`.
pub fn ts_mac(n: u8) -> TsMac {
    TsMac::new(MacAddr([2, 0, 0, 0, 0, n])).unwrap()
}

/// Its addresses.
pub fn ts_ips(n: u8) -> [TenantIp; 2] {
    [format!("10.0.0.{n}").parse().unwrap(), format!("fd00::{n:x}").parse().unwrap()]
}

/// Underlay address of NVE `n`.
pub fn rloc(n: usize, v6: bool) -> Rloc {
    let text = if v6 { format!("2001:db8::{}", n + 1) } else { format!("192.0.2.{}", n + 1) };
    text.parse().unwrap()
}

/// An NVE: its namespace and data plane.
pub struct Nve {
    pub kernel: Option<Kernel>,
    pub punts: Option<Punts>,
    pub options: OpenOptions,
    pub ns: Ns,
}

impl Nve {
    pub fn new(n: usize, fabric: &Ns, options: OpenOptions) -> Self {
        let ns = Ns::new(&format!("nve{n}"));
        let port = format!("p{n}");
        fabric.ip(&format!(
            "link add {port} type veth peer name up0 netns {}
             link set {port} master br0 up",
            ns.0
        ));
        ns.ip(&format!(
            "addr add 192.0.2.{a}/24 dev up0
             addr add 2001:db8::{a}/64 dev up0 nodad
             link set up0 up",
            a = n + 1
        ));
        let mut nve = Self { kernel: None, punts: None, options, ns };
        nve.open();
        let config = Config {
            rlocs: [rloc(n, false), rloc(n, true)].into(),
            uplinks: [nve.ns.index("up0")].into(),
            node: u32::try_from(n).unwrap(),
        };
        nve.apply(&[Op::Config(config)]);
        nve
    }

    pub fn open(&mut self) {
        let options = self.options.clone();
        let mut kernel = self.ns.run(|| Kernel::open(&options)).unwrap();
        self.punts = kernel.punts();
        self.kernel = Some(kernel);
    }

    pub fn with<T: Send>(&mut self, work: impl FnOnce(&mut Kernel) -> T + Send) -> T {
        let kernel = self.kernel.as_mut().unwrap();
        self.ns.run(|| work(kernel))
    }

    pub fn apply(&mut self, ops: &[Op]) {
        self.with(|kernel| {
            for op in ops {
                kernel.apply(op).unwrap_or_else(|e| panic!("{op:?}: {e}"));
            }
        });
    }

    /// Without what tenant systems sent before they had a VAP: their programs run before that.
    pub fn counters(&mut self) -> Vec<Counter> {
        let all = self.with(|kernel| kernel.counters().unwrap());
        all.into_iter().filter(|c| c.reason != Reason::NoVap).collect()
    }

    /// Packets counted for a reason, whatever the VN, path and direction.
    pub fn count(&mut self, reason: Reason) -> u64 {
        self.counters().iter().filter(|c| c.reason == reason).map(|c| c.packets).sum()
    }

    /// A line for each counter: for the messages of failed assertions.
    pub fn dump(&mut self) -> String {
        let line = |c: Counter| {
            let vni = c.vni.map_or(0, Vni::get);
            format!(
                "{vni} {} {:?} {:?} {} packets {} octets\n",
                c.reason, c.path, c.direction, c.packets, c.bytes
            )
        };
        self.counters().into_iter().map(line).collect()
    }
}

impl Drop for Nve {
    fn drop(&mut self) {
        if let Some(kernel) = self.kernel.take() {
            self.ns.run(|| kernel.uninstall()).unwrap();
        }
    }
}

pub fn options() -> OpenOptions {
    let small = 1_024;
    OpenOptions {
        pin_dir: PathBuf::from("/sys/fs/bpf").join(unique("pins")),
        vxlan_device: "weft-vxlan".into(),
        limits: Limits {
            vaps: 64,
            vap_ips: small,
            locations: small,
            away: 256,
            learned: small,
            heard: small,
            neighbours: small,
            peers: small,
            members: small,
            members_per_vn: 8,
            groups: small,
            asked: small,
            counters: small,
            rules: 65_536,
            classes: small,
            connections: small,
            fragments: small,
            ring_bytes: 65_536,
        },
        ..OpenOptions::default()
    }
}

/// How a tenant system is attached and its frames travel.
#[derive(Clone, Copy, Debug)]
pub struct How {
    pub kind: VapKind,
    pub path: Path,
    /// Whether the underlay is IPv6.
    pub v6: bool,
}

impl How {
    pub fn mtu(self) -> u16 {
        if self.v6 { 1430 } else { 1450 }
    }
}

/// A tenant system: a namespace with `eth0`.
pub struct Ts {
    pub n: u8,
    pub ns: Ns,
    /// The device at the NVE.
    pub device: IfIndex,
    pub relay: Option<tap::Relay>,
}

impl Ts {
    pub fn ping(&self, to: impl std::fmt::Display) -> bool {
        self.ns.exec(&format!("ping -c 3 -i 0.05 -W 2 {to}")).status.success()
    }

    /// Ends what its own stack has to say: multicast memberships, answers.
    pub fn silence(&self) {
        self.ns.ip("addr flush dev eth0");
        let off = self.ns.exec("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
        assert!(off.status.success(), "{off:?}");
    }

    pub fn ip(&self, v6: bool) -> IpAddr {
        ts_ips(self.n)[usize::from(v6)].get()
    }
}

/// NVEs on one fabric, every one a peer of the others.
pub struct Lab {
    pub tss: Vec<Ts>,
    pub nves: Vec<Nve>,
    pub fabric: Ns,
}

impl Lab {
    pub fn new() -> Self {
        Self::of(2, &options)
    }

    /// As many NVEs, opened so.
    pub fn of(n: usize, options: &dyn Fn() -> OpenOptions) -> Self {
        let fabric = Ns::new("fab");
        fabric.ip("link add br0 type bridge
                   link set br0 up");
        let mut nves: Vec<Nve> = (0..n).map(|i| Nve::new(i, &fabric, options())).collect();
        for (i, nve) in nves.iter_mut().enumerate() {
            for other in (0..n).filter(|other| *other != i) {
                let node = u32::try_from(other).unwrap();
                let peer = |v6: bool| Peer { nve: true, oracle: false, node, other: Some(rloc(other, !v6)) };
                nve.apply(&[false, true].map(|v6| Op::SetPeer(rloc(other, v6).get(), peer(v6))));
            }
        }
        Self { tss: Vec::new(), nves, fabric }
    }

    /// Makes tenant system `n` and its device at an NVE, without telling the NVE. The device may be
    /// a replacement of one that is gone.
    pub fn plug(&self, nve: usize, n: u8, how: How) -> Ts {
        let ns = Ns::new(&format!("ts{n}"));
        let nve_ns = &self.nves[nve].ns;
        let name = format!("ts{n}");
        let relay = match how.kind {
            VapKind::Veth => {
                nve_ns.ip(&format!("link add {name} type veth peer name eth0 netns {}", ns.0));
                None
            }
            VapKind::Tap => Some(tap::Relay::new(nve_ns, &name, &ns, "eth0")),
        };
        nve_ns.ip(&format!(
            "link set {name} addrgenmode none
                            link set {name} up"
        ));
        let [v4, v6] = ts_ips(n);
        ns.ip(&format!(
            "link set eth0 addrgenmode none
             link set eth0 address {} mtu {}
             link set eth0 up
             addr add {v4}/24 dev eth0
             addr add {v6}/64 dev eth0 nodad",
            ts_mac(n),
            how.mtu(),
        ));
        Ts { n, device: nve_ns.index(&name), ns, relay }
    }

    pub fn vap(n: u8, how: How) -> Vap {
        Vap {
            vni: vni(7001),
            mac: ts_mac(n),
            ips: ts_ips(n).into(),
            kind: how.kind,
            path: how.path,
            mtu: how.mtu(),
            activated: true,
            waits: false,
            previous: None,
            policy: None,
            tunnel: Default::default(),
        }
    }

    /// Tells every NVE how VN 7001 is treated, the other NVEs its members.
    pub fn set_vn(&mut self, learning: Learning, bum: Bum, v6: bool) {
        let n = self.nves.len();
        for (i, nve) in self.nves.iter_mut().enumerate() {
            let members = (0..n).filter(|other| *other != i).map(|other| rloc(other, v6)).collect();
            nve.apply(&[Op::SetVn(vni(7001), Vn { learning, bum, members, ..Vn::default() })]);
        }
    }

    /// Attaches tenant system `n` at an NVE, which alone is told.
    pub fn attach_quietly(&mut self, nve: usize, n: u8, how: How) {
        let ts = self.plug(nve, n, how);
        let at = Op::SetLocation(vni(7001), ts_mac(n).get(), Location::Local(ts.device));
        let own = Neighbour::At(ts_mac(n).get());
        self.nves[nve].apply(&[Op::SetVap(ts.device, Self::vap(n, how)), at]);
        self.nves[nve].apply(&ts_ips(n).map(|ip| Op::SetNeighbour(vni(7001), ip, own)));
        self.tss.push(ts);
    }

    /// Attaches tenant system `n` at an NVE and tells both NVEs everything about it.
    pub fn attach(&mut self, nve: usize, n: u8, how: How) {
        let ts = self.plug(nve, n, how);
        self.tell(nve, &ts, how);
        self.tss.push(ts);
    }

    pub fn tell(&mut self, nve: usize, ts: &Ts, how: How) {
        let mac = ts_mac(ts.n).get();
        self.nves[nve].apply(&[Op::SetVap(ts.device, Self::vap(ts.n, how))]);
        for (i, one) in self.nves.iter_mut().enumerate() {
            let at = if i == nve {
                Location::Local(ts.device)
            } else {
                Location::Remote { rloc: rloc(nve, how.v6), epoch: Epoch::FIRST, other: 0 }
            };
            let mut ops = vec![Op::SetLocation(vni(7001), mac, at)];
            ops.extend(ts_ips(ts.n).map(|ip| Op::SetNeighbour(vni(7001), ip, Neighbour::At(mac))));
            one.apply(&ops);
        }
    }

    pub fn dump(&mut self) -> String {
        self.nves.iter_mut().enumerate().map(|(i, nve)| format!("NVE {i}:\n{}", nve.dump())).collect()
    }
}

/// Sends `octets` over TCP from one namespace to an address in another; seconds it took.
#[allow(clippy::disallowed_methods, reason = "a test that measures")]
pub fn tcp(from: &Ns, to: &Ns, address: IpAddr, octets: usize) -> f64 {
    tcp_with(from, to, address, octets, |_| {})
}

/// The same over a connection to which something is done first.
#[allow(clippy::disallowed_methods, reason = "a test that measures")]
pub fn tcp_with(
    from: &Ns,
    to: &Ns,
    address: IpAddr,
    octets: usize,
    first: impl FnOnce(&std::net::TcpStream) + Send,
) -> f64 {
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
    };
    let listener = to.run(|| TcpListener::bind((address, 0)).unwrap());
    let port = listener.local_addr().unwrap().port();
    std::thread::scope(|scope| {
        let receiver = scope.spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let (mut got, mut buffer) = (0, vec![0; 1 << 16]);
            loop {
                match stream.read(&mut buffer).unwrap() {
                    0 => break got,
                    n => {
                        assert!(buffer[..n].iter().enumerate().all(|(i, b)| *b == pattern(got + i)));
                        got += n;
                    }
                }
            }
        });
        let start = Instant::now();
        from.run(|| {
            let mut stream =
                TcpStream::connect_timeout(&(address, port).into(), Duration::from_secs(30)).unwrap();
            stream.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
            first(&stream);
            let data: Vec<u8> = (0..octets).map(pattern).collect();
            stream.write_all(&data).unwrap();
        });
        assert_eq!(receiver.join().unwrap(), octets);
        start.elapsed().as_secs_f64()
    })
}

#[allow(clippy::cast_possible_truncation, reason = "a pattern")]
fn pattern(i: usize) -> u8 {
    (i ^ i >> 8 ^ i >> 16) as u8
}
