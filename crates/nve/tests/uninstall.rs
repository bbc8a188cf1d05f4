//! Taking an NVE off its host.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests, and what they share")]

mod common;

use common::{in_namespace, ip};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
};
use weft_datapath::{Datapath, IfIndex, Kernel, Op, OpenOptions, Path as Tunnel, Vap, VapKind};
use weft_model::{TsMac, Vni};
use weft_nve::{NveError, UninstallOptions, Uninstalled, uninstall};

fn pin_dir(word: &str) -> PathBuf {
    format!("/sys/fs/bpf/weft-uninstall-{}-{word}", std::process::id()).into()
}

fn options(dir: &Path, pins: &Path) -> UninstallOptions {
    UninstallOptions {
        data_dir: dir.join("data"),
        socket: dir.join("nve.sock"),
        pin_dir: pins.to_owned(),
        vxlan_device: "weft0".to_owned(),
        purge: false,
    }
}

/// The data plane an agent left, with a VAP at tap1, which is up.
fn installed(pins: &Path) -> Kernel {
    let options =
        OpenOptions { pin_dir: pins.to_owned(), vxlan_device: "weft0".to_owned(), ..OpenOptions::default() };
    let mut kernel = Kernel::open(&options).unwrap();
    ip("tuntap add tap1 mode tap");
    ip("link set tap1 up");
    let index = ip("-o link show tap1").split(':').next().unwrap().parse().unwrap();
    let vap = Vap {
        vni: Vni::new(7).unwrap(),
        mac: TsMac::local(1),
        ips: BTreeSet::new(),
        kind: VapKind::Tap,
        path: Tunnel::Direct,
        mtu: 1_450,
        activated: true,
        waits: false,
        previous: None,
        policy: None,
        tunnel: Default::default(),
    };
    kernel.apply(&Op::SetVap(IfIndex(index), vap)).unwrap();
    kernel
}

fn run(options: UninstallOptions) -> Result<Uninstalled, NveError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(uninstall(options))
}

fn nothing_left(pins: &Path) {
    assert!(!pins.exists() && !ip("-o link").contains("weft0"));
}

#[test]
fn everything_but_the_identity_goes_unless_that_is_to_go_too() {
    in_namespace(|| {
        let (dir, pins) = (tempfile::tempdir().unwrap(), pin_dir("all"));
        let data = dir.path().join("data");
        fs::create_dir(&data).unwrap();
        for name in ["identity.json", "state.json", "notes"] {
            fs::write(data.join(name), "{}").unwrap();
        }
        drop(installed(&pins));
        let done = run(options(dir.path(), &pins)).unwrap();
        assert_eq!(done, Uninstalled { data_plane: true, files: false });
        nothing_left(&pins);
        assert!(!ip("-o link show tap1").contains(",UP"), "its tenant would reach the host");
        assert!(data.join("identity.json").exists());

        let done = run(UninstallOptions { purge: true, ..options(dir.path(), &pins) }).unwrap();
        assert_eq!(done, Uninstalled { data_plane: false, files: true });
        let left: Vec<_> = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["notes"], "what is not ours");
        assert_eq!(run(options(dir.path(), &pins)).unwrap(), Uninstalled::default());
        nothing_left(&pins);
    });
}

#[test]
fn not_while_an_agent_runs() {
    in_namespace(|| {
        let (dir, pins) = (tempfile::tempdir().unwrap(), pin_dir("running"));
        let kernel = installed(&pins);
        assert!(matches!(run(options(dir.path(), &pins)), Err(NveError::Running { path }) if path == pins));
        drop(kernel);
        let socket = UnixListener::bind(dir.path().join("nve.sock")).unwrap();
        let refused = run(options(dir.path(), &pins)).unwrap_err();
        assert!(matches!(refused, NveError::Running { .. }), "{refused}");
        assert!(pins.exists());
        drop(socket);
        run(options(dir.path(), &pins)).unwrap();
        nothing_left(&pins);
    });
}

#[test]
fn another_version_goes_by_its_pins() {
    in_namespace(|| {
        let (dir, pins) = (tempfile::tempdir().unwrap(), pin_dir("other"));
        drop(installed(&pins));
        let ours = fs::read_dir(&pins).unwrap().next().unwrap().unwrap().path();
        fs::rename(ours, pins.join("abi_999")).unwrap();
        run(options(dir.path(), &pins)).unwrap();
        nothing_left(&pins);
    });
}
