//! The data plane outlives its agent, and its agent outlives its devices.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

mod common;

use common::{
    How, Lab, Ns, enter,
    frames::{Wire, eth},
    options, rloc, ts_mac, vni, wait_for,
};
use std::{
    io::{BufRead as _, BufReader},
    net::UdpSocket,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};
use weft_datapath::{
    Datapath as _, DatapathError, IfIndex, Kernel, Limits, Location, Neighbour, Op, OpenOptions, Path,
    Patrol, Reason, Tables, VapKind,
};
use weft_model::{MacAddr, TenantIp};

/// Run by [`agent_process`] as a process of its own: adopts the data plane, says so, waits for its end.
/// Without its environment it has nothing to do.
#[test]
fn agent() {
    let (Ok(ns), Ok(dir)) = (std::env::var("WEFT_TEST_NETNS"), std::env::var("WEFT_TEST_PINS")) else {
        return;
    };
    enter(&ns);
    let options = OpenOptions { pin_dir: PathBuf::from(dir), ..options() };
    let _kernel = Kernel::open(&options).unwrap();
    println!("\nadopted");
    loop {
        std::thread::park();
    }
}

fn agent_process(ns: &Ns, options: &OpenOptions) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "agent"])
        .env("WEFT_TEST_NETNS", &ns.0)
        .env("WEFT_TEST_PINS", &options.pin_dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|l| l == "adopted"), "the agent did not come up");
    child
}

/// Agents are killed and replaced under traffic; not one datagram is lost.
#[test]
fn kill_and_adopt_loses_nothing() {
    for path in [Path::Direct, Path::Device] {
        let how = How { kind: VapKind::Veth, path, v6: false };
        let mut lab = Lab::new();
        lab.attach(0, 1, how);
        lab.attach(1, 2, how);
        assert!(lab.tss[0].ping(lab.tss[1].ip(false)));
        let before = lab.nves[1].with(|k| k.observed().unwrap());
        // The process that set it up goes first.
        lab.nves[1].punts = None;
        lab.nves[1].kernel = None;

        let to = lab.tss[1].ns.run(|| UdpSocket::bind((lab.tss[1].ip(false), 0)).unwrap());
        to.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let from = lab.tss[0].ns.run(|| UdpSocket::bind((lab.tss[0].ip(false), 0)).unwrap());
        from.connect(to.local_addr().unwrap()).unwrap();
        let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
        let lost = std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let n = sent.fetch_add(1, Ordering::Relaxed);
                    from.send(&n.to_be_bytes()).unwrap();
                    pause(Duration::from_micros(200));
                }
                for _ in 0..20 {
                    from.send(&u64::MAX.to_be_bytes()).unwrap();
                }
            });
            let receiver = scope.spawn(|| {
                let (mut buffer, mut next, mut lost) = ([0; 8], 0, 0);
                loop {
                    assert_eq!(to.recv(&mut buffer).unwrap(), 8);
                    match u64::from_be_bytes(buffer) {
                        u64::MAX => break lost + sent.load(Ordering::Relaxed) - next,
                        n => {
                            lost += n - next;
                            next = n + 1;
                        }
                    }
                }
            });
            for _ in 0..6 {
                let mut agent = agent_process(&lab.nves[1].ns, &lab.nves[1].options);
                let mark = sent.load(Ordering::Relaxed) + 200;
                wait_for("traffic", || (sent.load(Ordering::Relaxed) > mark).then_some(()));
                agent.kill().unwrap(); // SIGKILL
                agent.wait().unwrap();
            }
            stop.store(true, Ordering::Relaxed);
            sender.join().unwrap();
            receiver.join().unwrap()
        });
        assert_eq!(lost, 0, "of {} over {path:?}", sent.load(Ordering::Relaxed));
        lab.nves[1].open();
        assert_eq!(lab.nves[1].with(|k| k.observed().unwrap()), before);
        assert!(lab.tss[0].ping(lab.tss[1].ip(true)));
    }
}

#[allow(clippy::disallowed_methods, reason = "paces a sender")]
fn pause(span: Duration) {
    std::thread::sleep(span);
}

#[test]
fn a_device_that_is_made_again() {
    let how = How { kind: VapKind::Veth, path: Path::Direct, v6: true };
    let mut lab = Lab::new();
    lab.attach(0, 1, how);
    lab.attach(1, 2, how);
    assert!(lab.tss[0].ping(lab.tss[1].ip(false)));
    let gone = lab.tss.pop().unwrap();
    lab.nves[1].ns.ip("link del ts2");
    let observed = lab.nves[1].with(|k| k.observed().unwrap());
    assert_eq!(observed.vaps.len(), 0, "its program went with it");
    drop(gone);
    let ts = lab.plug(1, 2, how);
    lab.tell(1, &ts, how);
    lab.tss.push(ts);
    assert!(lab.tss[0].ping(lab.tss[1].ip(false)), "{}", lab.dump());

    // The same under the same index, as a fresh namespace may number it.
    let index = lab.tss[1].device;
    let gone = lab.tss.pop().unwrap();
    lab.nves[1].ns.ip("link del ts2");
    drop(gone);
    lab.nves[1].ns.ip(&format!("link add ts2 index {} type veth peer name other2", index.0));
    let vap = Lab::vap(2, how);
    lab.nves[1].apply(&[Op::SetVap(index, vap.clone())]);
    assert_eq!(lab.nves[1].with(|k| k.observed().unwrap()).vaps.get(&index), Some(&vap));

    // While the agent is away: what is left behind goes at the next open.
    lab.nves[1].punts = None;
    lab.nves[1].kernel = None;
    lab.nves[1].ns.ip("link del ts2
                       link del weft-vxlan");
    lab.nves[1].open();
    let observed = lab.nves[1].with(|k| k.observed().unwrap());
    assert_eq!(observed.vaps.len(), 0);
    assert_eq!(observed.config.rlocs, [rloc(1, false), rloc(1, true)].into());
    let ts = lab.plug(1, 2, How { path: Path::Device, ..how });
    lab.tell(1, &ts, How { path: Path::Device, ..how });
    lab.tss.push(ts);
    assert!(lab.tss[0].ping(lab.tss[1].ip(false)), "{}", lab.dump());
}

#[test]
fn what_is_observed_is_what_was_applied() {
    let how = How { kind: VapKind::Veth, path: Path::Direct, v6: false };
    let mut lab = Lab::new();
    lab.attach(0, 1, how);
    lab.attach(1, 2, how);
    let wanted = lab.nves[0].with(|k| k.observed().unwrap());
    assert_eq!(wanted.vaps[&lab.tss[0].device], Lab::vap(1, how));
    assert_eq!(wanted.neighbours.len(), 4);
    assert_eq!(wanted.fdb.len(), 2);
    assert_eq!(wanted.diff(&wanted), []);
    // An empty wish removes everything, once and twice.
    let nothing = weft_datapath::Tables::default();
    let ops = nothing.diff(&wanted);
    lab.nves[0].apply(&ops);
    lab.nves[0].apply(&ops);
    assert_eq!(lab.nves[0].with(|k| k.observed().unwrap()), nothing);
    lab.nves[0].apply(&wanted.diff(&nothing));
    assert_eq!(lab.nves[0].with(|k| k.observed().unwrap()), wanted);
    assert!(lab.tss[0].ping(lab.tss[1].ip(false)));
}

/// A device's program says itself that it runs, before there is a VAP.
#[test]
fn a_program_runs_before_there_is_a_vap() {
    for kind in [VapKind::Veth, VapKind::Tap] {
        let how = How { kind, path: Path::Direct, v6: false };
        let mut lab = Lab::new();
        lab.attach(0, 1, how);
        let ts = lab.plug(0, 2, how);
        let host = &mut lab.nves[0];
        let attachment = host.with(|k| k.attachment(ts.device)).unwrap().unwrap();
        let progress = attachment.progress().unwrap();
        assert!(!host.with(|k| k.runs(&progress)).unwrap(), "nothing is attached yet");
        host.ns.run(|| attachment.run()).unwrap();
        assert!(host.with(|k| k.runs(&progress)).unwrap());
        assert!(host.with(|k| k.attachment(ts.device)).unwrap().is_none(), "it is attached");
        assert_eq!(host.with(|k| k.observed()).unwrap().vaps.len(), 1);
        // The next agent finds it, and whatever was to become of it is forgotten.
        host.kernel = None;
        host.open();
        assert!(host.with(|k| k.attachment(ts.device)).unwrap().is_some(), "it was nobody's");
        lab.tell(0, &ts, how);
        assert!(lab.tss[0].ping(ts.ip(false)), "{}", lab.dump());
    }
}

/// A program that is let go of is still attached for a while: what it says counts for nothing.
#[test]
fn a_program_that_was_let_go_of_does_not_speak_for_the_next() {
    let how = How { kind: VapKind::Veth, path: Path::Direct, v6: false };
    let mut lab = Lab::new();
    let ts = lab.plug(0, 1, how);
    let host = &mut lab.nves[0];
    let attachment = host.with(|k| k.attachment(ts.device)).unwrap().unwrap();
    host.ns.run(|| attachment.run()).unwrap();
    // In the directory of whatever version the maps' layout has.
    let versions = std::fs::read_dir(&host.options.pin_dir).unwrap().flatten();
    let pin = format!("links/vap_{}", ts.device.0);
    let pin = versions.map(|version| version.path().join(&pin)).find(|pin| pin.exists()).unwrap();
    let held = aya::programs::links::PinnedLink::from_pin(pin).unwrap();
    host.apply(&[Op::RemoveVap(ts.device)]);
    let attachment = host.with(|k| k.attachment(ts.device)).unwrap().unwrap();
    let progress = attachment.progress().unwrap();
    let attaching = std::thread::scope(|scope| {
        let ns = &host.ns;
        let attaching = scope.spawn(move || ns.run(|| attachment.run()));
        // Until it has tried a few times, in vain.
        for _ in 0..20 {
            assert!(!ns.run(|| host.kernel.as_ref().unwrap().runs(&progress)).unwrap());
            std::thread::yield_now();
        }
        drop(held);
        attaching.join().unwrap()
    });
    attaching.unwrap();
    assert!(!host.with(|k| k.runs(&progress)).unwrap(), "it cannot be told apart");
    assert!(host.with(|k| k.attachment(ts.device)).unwrap().is_none());
}

#[test]
fn refusals_to_open() {
    let ns = Ns::new("open");
    let other = Ns::new("other");
    let options = options();
    let open = |ns: &Ns, options: &OpenOptions| ns.run(|| Kernel::open(options));
    let kernel = open(&ns, &options).unwrap();
    let error = open(&ns, &options).unwrap_err();
    assert!(matches!(error, DatapathError::InUse(_)), "{error}");

    let dotted = OpenOptions { pin_dir: "/sys/fs/bpf/a.b".into(), ..options.clone() };
    let error = open(&ns, &dotted).unwrap_err();
    assert!(matches!(error, DatapathError::PinName(_)), "{error}");

    // Somebody else has the port.
    let second =
        OpenOptions { pin_dir: common::options().pin_dir, vxlan_device: "second".into(), ..options.clone() };
    let error = open(&ns, &second).unwrap_err();
    assert!(matches!(error, DatapathError::PortTaken { port: 4789 }), "{error}");
    assert!(!common::try_run(&format!("ip -n {} link show second", ns.0)).status.success());

    // Or the name.
    other.ip("link add weft-vxlan type veth peer name x");
    let taken = OpenOptions { pin_dir: second.pin_dir.clone(), ..options.clone() };
    let error = open(&other, &taken).unwrap_err();
    assert!(matches!(&error, DatapathError::OtherDevice { found, .. } if found == "veth"), "{error}");
    other.ip("link del weft-vxlan");

    drop(kernel);
    // Pins of a namespace where they are alive are nobody else's.
    let error = open(&other, &options).unwrap_err();
    assert!(matches!(error, DatapathError::OtherNamespace { .. }), "{error}");

    let mut bigger = options.clone();
    bigger.limits.peers *= 2;
    let error = open(&ns, &bigger).unwrap_err();
    assert!(
        matches!(error, DatapathError::OtherMap { map: "peers", what: "size", found: 1_024, wanted: 2_048 }),
        "{error}"
    );

    let future = options.pin_dir.join("abi_99");
    std::fs::create_dir(&future).unwrap();
    let error = open(&ns, &options).unwrap_err();
    assert!(matches!(&error, DatapathError::OtherAbi { found, .. } if found == "99"), "{error}");
    std::fs::remove_dir(&future).unwrap();

    let mut kernel = open(&ns, &options).unwrap();
    let absent = IfIndex(60_000);
    let how = How { kind: VapKind::Veth, path: Path::Direct, v6: false };
    let error = ns.run(|| kernel.apply(&Op::SetVap(absent, Lab::vap(1, how)))).unwrap_err();
    assert!(matches!(error, DatapathError::NoDevice(device) if device == absent), "{error}");
    let error = ns.run(|| kernel.inject(absent, &[0; 60])).unwrap_err();
    assert!(matches!(error, DatapathError::NoDevice(_)), "{error}");
    assert_eq!(ns.run(|| kernel.observed()).unwrap(), weft_datapath::Tables::default());

    let two = ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse().unwrap());
    let config = weft_datapath::Config { rlocs: two.into(), ..Default::default() };
    let error = ns.run(|| kernel.apply(&Op::Config(config))).unwrap_err();
    assert!(matches!(error, DatapathError::TwoRlocs(a, b) if [a, b] == two), "{error}");

    // Full is said so.
    let error = ns.run(|| {
        (0..=u16::MAX).find_map(|n| {
            let ip = std::net::Ipv4Addr::new(198, 18, n.to_be_bytes()[0], n.to_be_bytes()[1]);
            kernel.apply(&Op::SetPeer(ip.into(), weft_datapath::Peer::default())).err()
        })
    });
    assert!(matches!(error, Some(DatapathError::Full { map: "peers", limit: 1_024 })), "{error:?}");

    // Nothing of a VAP that did not fit stays behind.
    let index = ns.index("lo");
    let mut vap = Lab::vap(1, how);
    vap.ips.extend((0..1_100_u16).map(|n| {
        let [a, b] = n.to_be_bytes();
        weft_model::TenantIp::new(std::net::Ipv4Addr::new(10, 1, a, b).into()).unwrap()
    }));
    let before = ns.run(|| kernel.observed()).unwrap();
    let error = ns.run(|| kernel.apply(&Op::SetVap(index, vap.clone()))).unwrap_err();
    assert!(matches!(error, DatapathError::Full { map: "vap_ips", limit: 1_024 }), "{error}");
    assert_eq!(ns.run(|| kernel.observed()).unwrap(), before);
    vap.ips = vap.ips.into_iter().take(1_000).collect();
    ns.run(|| kernel.apply(&Op::SetVap(index, vap.clone()))).unwrap();
    assert_eq!(ns.run(|| kernel.observed()).unwrap().vaps[&index], vap);

    // Uninstalled is as if it had never been.
    ns.run(|| kernel.uninstall()).unwrap();
    assert!(!options.pin_dir.exists());
    assert!(!common::try_run(&format!("ip -n {} link show weft-vxlan", ns.0)).status.success());
    // The refused ones left nothing in their directory that would be in the way.
    let kernel = open(&ns, &taken).unwrap();
    ns.run(|| kernel.uninstall()).unwrap();
}

/// A pin directory whose devices and namespace are all gone belongs to whoever comes next.
#[test]
fn pins_of_a_dead_namespace_are_taken_over() {
    let options = options();
    let first = Ns::new("first");
    let mut kernel = first.run(|| Kernel::open(&options)).unwrap();
    kernel.apply(&Op::SetPeer("192.0.2.9".parse().unwrap(), weft_datapath::Peer::default())).unwrap();
    drop(kernel);
    drop(first);
    let second = Ns::new("second");
    let kernel = wait_for("the first to be gone", || match second.run(|| Kernel::open(&options)) {
        Ok(kernel) => Some(kernel),
        Err(DatapathError::OtherNamespace { .. }) => None,
        Err(e) => panic!("{e}"),
    });
    assert_eq!(second.run(|| kernel.observed()).unwrap(), weft_datapath::Tables::default());
    second.run(|| kernel.uninstall()).unwrap();
}

/// A pin directory off every BPF file system gets one of its own.
#[test]
fn a_private_file_system() {
    let ns = Ns::new("private");
    let dir = PathBuf::from("/run").join(common::unique("bpffs"));
    let options = OpenOptions { pin_dir: dir.clone(), ..options() };
    let kernel = ns.run(|| Kernel::open(&options)).unwrap();
    drop(kernel);
    let kernel = ns.run(|| Kernel::open(&options)).unwrap();
    ns.run(|| kernel.uninstall()).unwrap();
    common::run(&format!("umount {}", dir.display()));
    std::fs::remove_dir(&dir).unwrap();
}

/// Where the kernel does not answer route lookups for us, the VXLAN device carries the frames.
#[test]
fn without_route_lookups() {
    let how = How { kind: VapKind::Veth, path: Path::Direct, v6: false };
    let mut lab = Lab::new();
    lab.attach(0, 1, how);
    lab.attach(1, 2, how);
    lab.nves[0].ns.run(|| std::fs::write("/proc/sys/net/ipv4/conf/weft-vxlan/forwarding", "0").unwrap());
    assert!(lab.tss[0].ping(lab.tss[1].ip(false)), "{}", lab.dump());
    let sent = |lab: &mut Lab, path| {
        let counters = lab.nves[0].counters();
        counters.iter().any(|c| c.reason == Reason::Encapsulated && c.path == path)
    };
    assert!(sent(&mut lab, Path::Device) && !sent(&mut lab, Path::Direct), "{}", lab.dump());
}

/// Two uplinks, two next hops: flows take both.
#[test]
fn equal_cost_paths() {
    let how = How { kind: VapKind::Veth, path: Path::Direct, v6: false };
    let mut lab = Lab::new();
    lab.attach(0, 1, how);
    lab.attach(1, 2, how);
    // A second fabric between the two, and RLOCs on loopbacks reached over both.
    for n in 0..2_usize {
        let other = if n == 0 { None } else { Some(lab.nves[0].ns.0.clone()) };
        if let Some(other) = other {
            lab.nves[1].ns.ip(&format!("link add up1 type veth peer name up1 netns {other}"));
        }
    }
    for n in 0..2_usize {
        let nve = &mut lab.nves[n];
        nve.ns.ip(&format!(
            "addr add 198.18.0.{}/24 dev up1
             link set up1 up
             addr add 198.51.100.{}/32 dev lo
             route add 198.51.100.{there}/32 nexthop via 192.0.2.{there} nexthop via 198.18.0.{there}",
            n + 1,
            n + 1,
            there = 2 - n
        ));
        nve.ns.run(|| std::fs::write("/proc/sys/net/ipv4/fib_multipath_hash_policy", "1").unwrap());
        let own = format!("198.51.100.{}", n + 1).parse().unwrap();
        let there: weft_model::Rloc = format!("198.51.100.{}", 2 - n).parse().unwrap();
        let uplinks = [nve.ns.index("up0"), nve.ns.index("up1")].into();
        let at = weft_datapath::Location::Remote { rloc: there, epoch: weft_model::Epoch::FIRST, other: 0 };
        let mac = ts_mac(if n == 0 { 2 } else { 1 }).get();
        nve.apply(&[
            Op::Config(weft_datapath::Config { rlocs: [own].into(), uplinks, node: 0 }),
            Op::SetPeer(there.get(), weft_datapath::Peer { nve: true, oracle: false, node: 0, other: None }),
            Op::SetLocation(vni(7001), mac, at),
        ]);
    }
    let to = lab.tss[1].ns.run(|| UdpSocket::bind((lab.tss[1].ip(false), 0)).unwrap());
    to.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut buffer = [0; 8];
    for _ in 0..64 {
        let from = lab.tss[0].ns.run(|| UdpSocket::bind((lab.tss[0].ip(false), 0)).unwrap());
        from.send_to(b"flow", to.local_addr().unwrap()).unwrap();
        assert_eq!(to.recv(&mut buffer).unwrap(), 4, "{}", lab.dump());
    }
    for device in ["up0", "up1"] {
        let path = format!("/sys/class/net/{device}/statistics/tx_packets");
        let sent = String::from_utf8(lab.nves[0].ns.exec(&format!("cat {path}")).stdout).unwrap();
        assert!(sent.trim().parse::<u32>().unwrap() > 8, "{device}: {sent}");
    }
}

/// Loopback RLOCs, reached by routes over the uplink.
#[test]
fn loopback_rlocs() {
    for v6 in [false, true] {
        let how = How { kind: VapKind::Veth, path: Path::Direct, v6 };
        let mut lab = Lab::new();
        lab.attach(0, 1, how);
        lab.attach(1, 2, how);
        let own = |n: usize| -> weft_model::Rloc {
            if v6 { format!("2001:db8:ff::{}", n + 1) } else { format!("198.51.100.{}", n + 1) }
                .parse()
                .unwrap()
        };
        for n in 0..2 {
            let (there, via) = (own(1 - n), rloc(1 - n, v6));
            let bits = if v6 { 128 } else { 32 };
            lab.nves[n].ns.ip(&format!(
                "addr add {}/{bits} dev lo
                 route add {there}/{bits} via {via}",
                own(n)
            ));
            let uplinks = [lab.nves[n].ns.index("up0")].into();
            let config = weft_datapath::Config { rlocs: [own(n)].into(), uplinks, node: 0 };
            let peer = weft_datapath::Peer { nve: true, oracle: false, node: 0, other: None };
            let at =
                weft_datapath::Location::Remote { rloc: there, epoch: weft_model::Epoch::FIRST, other: 0 };
            let mac = ts_mac(if n == 0 { 2 } else { 1 }).get();
            lab.nves[n].apply(&[
                Op::Config(config),
                Op::SetPeer(there.get(), peer),
                Op::SetLocation(vni(7001), mac, at),
            ]);
        }
        assert!(lab.tss[0].ping(lab.tss[1].ip(false)), "{}", lab.dump());
        assert!(lab.tss[1].ping(lab.tss[0].ip(true)), "{}", lab.dump());
        let counters = lab.nves[0].counters();
        let sent = counters.iter().filter(|c| c.reason == Reason::Encapsulated);
        assert!(sent.into_iter().all(|c| c.path == Path::Direct), "{}", lab.dump());
    }
}

/// Somebody deletes the VXLAN device, takes it down, or turns its forwarding off.
#[test]
fn the_vxlan_device_is_mended() {
    let how = How { kind: VapKind::Veth, path: Path::Direct, v6: false };
    let mut lab = Lab::new();
    lab.attach(0, 1, how);
    lab.attach(1, 2, how);
    assert!(!lab.nves[0].with(|k| k.mend().unwrap()), "nothing is amiss");
    for harm in ["link del weft-vxlan", "link set weft-vxlan down"] {
        lab.nves[0].ns.ip(harm);
        assert!(lab.nves[0].with(|k| k.mend().unwrap()), "{harm}");
        assert!(!lab.nves[0].with(|k| k.mend().unwrap()), "{harm}");
        assert!(lab.tss[0].ping(lab.tss[1].ip(false)), "{harm}\n{}", lab.dump());
        assert!(lab.tss[0].ping(lab.tss[1].ip(true)), "{harm}\n{}", lab.dump());
    }
    lab.nves[0].ns.exec("sysctl -qw net.ipv4.conf.weft-vxlan.forwarding=0");
    assert!(lab.nves[0].with(|k| k.mend().unwrap()));
    // The device path works too: a frame that only it carries.
    let wire = Wire::new(&lab.tss[0].ns, "eth0");
    let (a, b) = (ts_mac(1).octets(), ts_mac(2).octets());
    let there = Wire::new(&lab.tss[1].ns, "eth0");
    wire.send(&eth(b, a, 0x88b5, &[7; 46]));
    there.receive("a frame that is no IP", |f| f[12..14] == [0x88, 0xb5]);
}

/// A device that is let go of and taken again at once.
#[test]
fn a_device_taken_again_at_once() {
    let how = How { kind: VapKind::Veth, path: Path::Direct, v6: false };
    let mut lab = Lab::new();
    lab.attach(0, 1, how);
    let (device, vap) = (lab.tss[0].device, Lab::vap(1, how));
    for _ in 0..20 {
        lab.nves[0].apply(&[Op::RemoveVap(device), Op::SetVap(device, vap.clone())]);
    }
    assert_eq!(lab.nves[0].with(|k| k.observed().unwrap()).vaps.len(), 1);
}

/// In parts, and as much as there is: what is not there, what says something else, and what should not be there.
#[test]
fn what_differs_is_found_in_parts() {
    let mut lab = Lab::of(1, &|| {
        let limits = Limits { locations: 4_096, neighbours: 4_096, ..options().limits };
        OpenOptions { limits, ..options() }
    });
    let mac = |n: u16| {
        let [a, b] = n.to_be_bytes();
        MacAddr([2, 0, 0, 9, a, b])
    };
    let ip = |n: u16| TenantIp::new(std::net::Ipv4Addr::from(0x0a09_0000 | u32::from(n)).into()).unwrap();
    let entry = |n| {
        [
            Op::SetLocation(vni(7001), mac(n), Location::Nowhere),
            Op::SetNeighbour(vni(7001), ip(n), Neighbour::Nobody),
        ]
    };
    let mut wanted: Tables = lab.nves[0].with(|k| k.observed().unwrap());
    for op in (0..1_500).flat_map(entry) {
        wanted.apply(&op);
        lab.nves[0].apply(&[op]);
    }
    let at = Neighbour::At(mac(7));
    let damage = [
        Op::RemoveLocation(vni(7001), mac(1_400)),
        Op::RemoveNeighbour(vni(7001), ip(1_400)),
        Op::SetNeighbour(vni(7001), ip(3), at),
        Op::SetLocation(vni(7001), mac(2_000), Location::Nowhere),
        Op::SetNeighbour(vni(7001), ip(2_000), at),
    ];
    lab.nves[0].apply(&damage);
    let mut patrol = Patrol::default();
    let mut compare = |lab: &mut Lab| {
        let (mut found, mut parts) = (Vec::new(), 0);
        loop {
            let part = lab.nves[0].with(|k| patrol.step(k, &wanted).unwrap());
            lab.nves[0].apply(&part.ops);
            found.extend(part.ops);
            parts += 1;
            if part.last {
                found.sort();
                return (found, parts);
            }
        }
    };
    let [location, neighbour] = entry(1_400);
    let mut mends = vec![
        location,
        neighbour,
        Op::SetNeighbour(vni(7001), ip(3), Neighbour::Nobody),
        Op::RemoveLocation(vni(7001), mac(2_000)),
        Op::RemoveNeighbour(vni(7001), ip(2_000)),
    ];
    mends.sort();
    let (found, parts) = compare(&mut lab);
    assert_eq!(found, mends);
    assert!(parts > 10, "{parts}");
    assert_eq!(compare(&mut lab).0, []);
}
