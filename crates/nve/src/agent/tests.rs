//! The driver with a real data plane, in a namespace of its own.

mod handover;
mod local_api;
mod programs;
mod trace;

use super::common::{host, in_namespace, ip};
use super::driver::{Driver, Input, LocalCall, RECONCILE};
use super::{
    clock::Clock,
    devices::{Link, Links},
    lisp::LispSockets,
    look::Look,
    metrics,
    plane::Plane,
    saver::Saver,
    state::Saved,
    trace::Traces,
    uplinks::Rule,
};
use crate::core::{Attach, Attachment, CallId, Config, Core, Device, Limits, Output, Refused, Timing};
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    net::UdpSocket,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::sync::{mpsc, oneshot, watch};
use weft_api::{Client, Endpoint};
use weft_datapath::{IfIndex, Location, Neighbour, Op, Path as Tunnel, Peer, Vap, VapKind};
use weft_model::{BootId, Epoch, Grant, Rloc, TsMac, TsiId, Vni, XtrId};

const ME: XtrId = XtrId([1; 16]);

fn rlocs() -> BTreeSet<Rloc> {
    ["192.0.2.1", "2001:db8::1"].iter().map(|text| text.parse().unwrap()).collect()
}

/// Pins of a test's own.
fn pin_dir() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("/sys/fs/bpf/weft-driver-{}-{next}", std::process::id()).into()
}

/// Removes pins however the test ends.
struct Pinned(PathBuf);

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A driver of a host without an Oracle, and what feeds it.
fn driver(dir: &Path, pins: &Path, grace: Duration) -> (Driver, mpsc::Receiver<Input>) {
    let (inputs, queue) = mpsc::channel(64);
    let mut plane = Plane::open(pins.to_owned(), "weft0".to_owned()).unwrap();
    plane.listen().unwrap();
    let traces = Traces::new(plane.steps()).unwrap();
    let mut core = Core::new(Config {
        xtr_id: ME,
        boot: BootId(1),
        rlocs: rlocs(),
        uplinks: BTreeSet::new(),
        oracles: Vec::new(),
        lisp_port: 4342,
        tenant_mtu: 1_430,
        veth_path: Tunnel::Direct,
        tap_path: Tunnel::Direct,
        seed: 1,
        limits: Limits::default(),
        timing: Timing { grace, ..Timing::default() },
    });
    let red = serde_json::from_str(r#"{"name":"red","vni":7}"#).unwrap();
    core.remember(vec![red], Default::default(), &Default::default());
    let client = Client::new(&Endpoint::unix(dir.join("no-oracle"))).unwrap();
    let clock = Clock::start();
    let links = Links::open(inputs.clone()).unwrap();
    let driver = Driver {
        clock,
        core,
        plane,
        links,
        sockets: LispSockets::bind(&rlocs(), 4342).unwrap(),
        sessions: Vec::new(),
        client: watch::channel(Arc::new(client)).1,
        inputs,
        attaching: BTreeMap::new(),
        parked: Default::default(),
        detaching: BTreeMap::new(),
        activating: BTreeMap::new(),
        deactivating: BTreeMap::new(),
        connecting: Default::default(),
        next_call: 0,
        saver: Saver::start(dir.join("state.json"), Saved::default()),
        tracked: Default::default(),
        policies: Saver::start(dir.join("policies.json"), Default::default()),
        name: "h1".parse().unwrap(),
        xtr_id: ME,
        rlocs: rlocs(),
        shared: metrics::Shared::default(),
        heard_facts: false,
        publish_at: clock.now(),
        unreleased: Vec::new(),
        reconcile_at: clock.now() + RECONCILE,
        list_at: clock.now() + RECONCILE,
        uplinks: Rule { named: Vec::new(), rlocs: rlocs(), vxlan: "weft0".to_owned() },
        look: Look::new(),
        held_back: Default::default(),
        handovers: super::handover::tests::none(),
        events: super::events::Ring::start(),
        requests: super::requests::Requests::restore(Default::default()),
        traces,
    };
    (driver, queue)
}

/// Runs a test on a host of its own.
fn on_a_host<F: Future<Output = ()>>(test: impl FnOnce(PathBuf, PathBuf) -> F + Send) {
    let dir = tempfile::tempdir().unwrap();
    let pins = Pinned(pin_dir());
    in_namespace(|| {
        host();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let test = async {
            tokio::time::timeout(Duration::from_secs(30), test(dir.path().into(), pins.0.clone())).await
        };
        runtime.block_on(test).expect("within the ceiling");
    });
}

impl Driver {
    /// With web attached at tap1, which is up, as after a restart.
    async fn with_tap1(mut self) -> Self {
        ip("tuntap add tap1 mode tap");
        ip("link set tap1 up");
        let device = self.links.by_name("tap1").await.unwrap().device().unwrap();
        self.core.restore(self.clock.now(), vec![away()], &[device]);
        self
    }
}

/// Asks the driver behind `inputs`.
async fn ask<T>(inputs: &mpsc::Sender<Input>, call: impl FnOnce(oneshot::Sender<T>) -> LocalCall) -> T {
    let (answer, answered) = oneshot::channel();
    inputs.send(Input::Local(call(answer))).await.ok().unwrap();
    answered.await.unwrap()
}

/// Waits for a condition, 30 s at most.
pub(super) async fn until<T>(mut condition: impl FnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(value) = condition() {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.expect("within the ceiling")
}

/// Web, whose device is gone.
pub(super) fn away() -> Attachment {
    let tsi = TsiId { vni: Vni::new(7).unwrap(), name: "web".parse().unwrap() };
    let (mac, epoch) = (TsMac::local(1), Epoch::new(5).unwrap());
    let grant = Grant {
        tsi,
        mac,
        ips: BTreeSet::new(),
        groups: BTreeSet::new(),
        tunnel: Default::default(),
        owner: ME,
        epoch,
        next: None,
    };
    let (vn, device) = ("red".parse().unwrap(), "tap1".to_owned());
    Attachment { vn, device, tap: true, grant, activated: true, lease_s: None, explicit: false }
}

#[test]
fn a_flood_of_datagrams_keeps_neither_callers_nor_timers_waiting() {
    for target in ["192.0.2.1:4342", "[2001:db8::1]:4342"] {
        on_a_host(async move |dir, pins| {
            let (mut driver, queue) = driver(&dir, &pins, Duration::ZERO);
            driver.core.restore(driver.clock.now(), vec![away()], &[]);
            while let Some(Output::Persist(_)) | Some(Output::Apply(..)) = driver.core.poll_output() {}
            // More than one turn takes are there before the driver begins.
            let sender =
                UdpSocket::bind(if target.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" }).unwrap();
            for _ in 0..200 {
                sender.send_to(&[0], target).unwrap();
            }
            let (counters, counted) = oneshot::channel();
            let (tsis, listed) = oneshot::channel();
            for call in [LocalCall::Counters(counters), LocalCall::Tsis(tsis)] {
                driver.inputs.try_send(Input::Local(call)).ok().unwrap();
            }
            driver.sockets.readable().await.unwrap();
            let asked = async {
                let counters = counted.await.unwrap();
                let before = counters["foreign_datagrams"];
                assert!((1..=64).contains(&before), "served after {before} of the flood");
                assert_eq!(listed.await.unwrap(), [], "a timer that was due went off first");
            };
            driver.drive(queue, asked).await.unwrap();
        });
    }
}

/// A tenant system of red, with whatever addresses it is given.
fn wanted(name: &str, device: Device, state: crate::core::TsiState) -> Attach {
    Attach {
        vn: "red".parse().unwrap(),
        name: name.parse().unwrap(),
        device,
        mac: None,
        ips: BTreeSet::new(),
        groups: BTreeSet::new(),
        state,
        lease: None,
        explicit: false,
    }
}

#[test]
fn nothing_is_attached_that_cannot_be_saved() {
    on_a_host(async |dir, pins| {
        let (mut driver, queue) = driver(&dir, &pins, Duration::ZERO);
        driver.saver = Saver::start(dir.join("nowhere/state.json"), Saved::default());
        driver.saver.save(Saved { attachments: vec![away()], ..Saved::default() });
        until(|| driver.saver.failed()).await;
        let shared = driver.shared.clone();
        let device = Device { name: "tap2".to_owned(), index: IfIndex(9), kind: VapKind::Tap };
        let attach = wanted("db", device, crate::core::TsiState::Activated);
        let (attached, answer) = oneshot::channel();
        driver.inputs.try_send(Input::Local(LocalCall::Attach(attach, attached))).ok().unwrap();
        let asked = async {
            let Err(Refused::NotSaved { reason }) = answer.await.unwrap() else { panic!("attached") };
            assert!(reason.contains("nowhere"), "{reason}");
            let trouble = || shared.try_read().ok().and_then(|snapshot| snapshot.trouble.clone());
            assert_eq!(until(trouble).await, reason, "and readiness says so");
        };
        assert!(driver.drive(queue, asked).await.is_err(), "nor is that hidden in the end");
    });
}

#[test]
fn a_device_that_is_let_go_is_set_down() {
    on_a_host(async |dir, pins| {
        let (driver, queue) = driver(&dir, &pins, Duration::from_secs(60));
        let driver = driver.with_tap1().await;
        let inputs = driver.inputs.clone();
        let links = driver.links.clone();
        let asked = async {
            let (vn, name) = (away().vn, away().grant.tsi.name);
            ask(&inputs, |answer| LocalCall::Detach(vn, name, true, answer)).await.unwrap();
            assert!(!links.by_name("tap1").await.unwrap().up, "nobody's, and it would reach the host");
        };
        driver.drive(queue, asked).await.unwrap();
    });
}

/// The next program that is attached, or not.
async fn attached(queue: &mut mpsc::Receiver<Input>) -> Input {
    loop {
        let input = queue.recv().await.unwrap();
        if matches!(input, Input::Attached(..)) {
            return input;
        }
    }
}

/// The programs pinned at tenants' devices.
fn programs(pins: &Path) -> usize {
    let versions = std::fs::read_dir(pins).unwrap().flatten();
    let links = versions.flat_map(|version| std::fs::read_dir(version.path().join("links")).unwrap());
    links.flatten().filter(|link| link.file_name().to_string_lossy().starts_with("vap_")).count()
}

#[test]
fn a_program_that_comes_too_late_is_taken_away_again() {
    on_a_host(async |dir, pins| {
        let (driver, mut queue) = driver(&dir, &pins, Duration::from_secs(60));
        let mut driver = driver.with_tap1().await;
        driver.outputs();
        let call = CallId(1);
        driver.core.handle_detach(call, away().vn, away().grant.tsi.name, true);
        driver.outputs();
        let late = attached(&mut queue).await;
        assert_eq!(programs(&pins), 1, "attached after it was let go");
        driver.input(late);
        assert_eq!(programs(&pins), 0);
    });
}

/// How much one comparison of everything mends.
fn compared(driver: &mut Driver) -> usize {
    let mut mended = 0;
    loop {
        let (part, last) = driver.compare();
        mended += part;
        if last {
            return mended;
        }
    }
}

#[test]
fn only_what_somebody_else_changed_is_mended() {
    on_a_host(async |dir, pins| {
        let (driver, mut queue) = driver(&dir, &pins, Duration::from_secs(60));
        let mut driver = driver.with_tap1().await;
        driver.outputs();
        assert_eq!(compared(&mut driver), 0, "its program is on the way");
        let done = attached(&mut queue).await;
        driver.input(done);
        assert_eq!((compared(&mut driver), programs(&pins)), (0, 1));
        let other =
            Op::SetPeer([192, 0, 2, 9].into(), Peer { nve: true, oracle: false, node: 9, other: None });
        driver.plane.apply(&other).unwrap();
        assert_eq!((compared(&mut driver), compared(&mut driver)), (1, 0));
        // Of each table that is compared in parts: what should not be there, and what should and is not.
        let (mac, vni) = (weft_model::MacAddr([2, 0, 0, 0, 0, 77]), Vni::new(77).unwrap());
        let wanted = driver.core.tables();
        let fdb = *wanted.fdb.keys().next().unwrap();
        let ops = [
            Op::SetLocation(vni, mac, Location::Nowhere),
            Op::RemoveLocation(fdb.0, fdb.1),
            Op::SetNeighbour(vni, "10.9.9.9".parse().unwrap(), Neighbour::At(mac)),
        ];
        ops.iter().for_each(|op| driver.plane.apply(op).unwrap());
        assert_eq!((compared(&mut driver), compared(&mut driver)), (3, 0));
    });
}

#[test]
fn a_device_just_gone_does_not_keep_the_agent_from_starting() {
    on_a_host(async |dir, pins| {
        let (mut driver, _queue) = driver(&dir, &pins, Duration::ZERO);
        let gone = Vap {
            vni: Vni::new(7).unwrap(),
            mac: away().grant.mac,
            ips: BTreeSet::new(),
            kind: VapKind::Tap,
            path: Tunnel::Direct,
            mtu: 1_430,
            activated: true,
            waits: false,
            previous: None,
            policy: None,
            tunnel: Default::default(),
        };
        let peer = ([192, 0, 2, 9].into(), Peer { nve: true, oracle: false, node: 9, other: None });
        let ops = vec![Op::SetVap(IfIndex(999), gone), Op::SetPeer(peer.0, peer.1)];
        driver.plane.take_over(ops).unwrap();
        assert_eq!(
            driver.plane.observed().unwrap().peers.get(&peer.0),
            Some(&peer.1),
            "what follows is done"
        );
        let uplinks = BTreeSet::from([IfIndex(999)]);
        let all = Op::Config(weft_datapath::Config { rlocs: rlocs(), uplinks, node: 0 });
        assert!(driver.plane.take_over(vec![all]).is_err(), "without uplinks there is nothing");
    });
}

#[test]
fn a_list_of_links_makes_good_for_a_change_not_heard_of() {
    on_a_host(async |dir, pins| {
        let (driver, queue) = driver(&dir, &pins, Duration::from_secs(60));
        let driver = driver.with_tap1().await;
        let inputs = driver.inputs.clone();
        let asked = async {
            let at = async || ask(&inputs, LocalCall::Tsis).await[0].device.clone();
            // Older than the device: it is asked for before it counts as gone.
            inputs.send(Input::Links(Vec::new())).await.ok().unwrap();
            assert_eq!(at().await, "tap1");
            let stale = Link::a_tap("tap1", IfIndex(999));
            inputs.send(Input::Links(vec![stale])).await.ok().unwrap();
            inputs.send(Input::Links(Vec::new())).await.ok().unwrap();
            while !at().await.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        driver.drive(queue, asked).await.unwrap();
    });
}

/// An uplink that is deleted and made again has another index: its program is attached anew.
#[test]
fn an_uplink_made_anew_is_followed() {
    on_a_host(async |dir, pins| {
        let (mut driver, queue) = driver(&dir, &pins, Duration::from_secs(60));
        driver.list_at = driver.clock.now();
        let attached = async || {
            let index = nix::net::if_::if_nametoindex("up0").unwrap();
            let pin = format!("links/uplink_{index}");
            // In the directory of whatever version the maps' layout has.
            let versions = || std::fs::read_dir(&pins).unwrap().flatten();
            while !versions().any(|version| version.path().join(&pin).exists()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            index
        };
        let asked = async {
            let first = attached().await;
            ip("link del up0");
            host();
            assert_ne!(attached().await, first);
        };
        driver.drive(queue, asked).await.unwrap();
    });
}

#[test]
fn n9_the_data_plane_has_room_for_all_entries_of_groups() {
    let room = weft_datapath::Limits::default();
    // Those of single groups, and one of each VN.
    let entries = Limits::default().group_entries + usize::try_from(room.vaps).unwrap();
    assert!(entries <= usize::try_from(room.groups).unwrap(), "{entries}");
}
