//! A start that is refused has asked no Oracle for anything and leaves the host as it was.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests, and what they share")]

mod common;

use common::{host, in_namespace, ip};
use std::{
    fs,
    net::TcpListener,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};
use weft_api::JoinToken;
use weft_datapath::Path as Tunnel;
use weft_nve::{NveError, NveOptions};

/// What a start gets, and what it leaves.
struct Refused {
    error: NveError,
    /// Connections to the Oracle of the token.
    asked: usize,
}

fn options(dir: &Path, oracle: &TcpListener) -> NveOptions {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let (process, next) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let oracles = vec![oracle.local_addr().unwrap().to_string()];
    let token = JoinToken { ca: "00".repeat(32), oracles, secret: "s".to_owned() };
    NveOptions {
        name: Some("h1".parse().unwrap()),
        data_dir: dir.join("data"),
        socket: dir.join("nve.sock"),
        join: Some(token.to_string()),
        rlocs: ["192.0.2.1".parse().unwrap()].into(),
        uplinks: Vec::new(),
        http_listen: ([127, 0, 0, 1], 0).into(),
        pin_dir: format!("/sys/fs/bpf/weft-start-{process}-{next}").into(),
        vxlan_device: "weft0".to_owned(),
        lisp_port: 4342,
        peer_port: 4346,
        veth_path: Tunnel::Direct,
        tap_path: Tunnel::Direct,
        tenant_mtu: None,
        tls_key_log: None,
    }
}

/// Pinned objects; their directories are removed.
fn pins(dir: &Path) -> usize {
    let mut files = 0;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        files += if entry.path().is_dir() { pins(&entry.path()) } else { 1 };
    }
    let _ = fs::remove_dir(dir);
    files
}

/// Starts on a host whose underlay is up0.
fn start(dir: &Path, change: impl FnOnce(&mut NveOptions) + Send) -> Refused {
    in_namespace(|| {
        host();
        let oracle = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut options = options(dir, &oracle);
        change(&mut options);
        let pin_dir = options.pin_dir.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // Whoever asks is hung up on.
        oracle.set_nonblocking(true).unwrap();
        let (error, asked) = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(oracle.try_clone().unwrap()).unwrap();
            let mut asked = 0;
            let mut run = std::pin::pin!(weft_nve::run(options, std::future::pending()));
            let error = loop {
                tokio::select! {
                    ended = &mut run => break ended.expect_err("no Oracle, no start"),
                    accepted = listener.accept() => { drop(accepted); asked += 1; }
                }
            };
            (error, asked)
        });
        assert!(!ip("-o link").contains("weft0"), "the VXLAN device stays behind");
        assert_eq!(pins(&pin_dir), 0, "pins stay behind");
        Refused { error, asked }
    })
}

#[test]
fn the_host_is_checked_before_the_token_is_spent() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = start(dir.path(), |o| o.rlocs = ["192.0.2.77".parse().unwrap()].into());
    assert!(matches!(elsewhere.error, NveError::NoUplink { .. }), "{}", elsewhere.error);
    let named = start(dir.path(), |o| {
        o.rlocs = ["192.0.2.77".parse().unwrap()].into();
        o.uplinks = vec!["up0".to_owned()];
    });
    assert!(named.error.to_string().contains("--rloc"), "{}", named.error);
    let no_uplink = start(dir.path(), |o| o.uplinks = vec!["up9".to_owned()]);
    assert!(matches!(no_uplink.error, NveError::UnknownUplink(_)), "{}", no_uplink.error);
    let mtu = start(dir.path(), |o| o.tenant_mtu = Some(9_000));
    assert!(matches!(mtu.error, NveError::TenantMtu { .. }), "{}", mtu.error);
    let small = start(dir.path(), |_| drop(ip("link set up0 mtu 1300")));
    assert!(matches!(small.error, NveError::Mtu { .. }), "{}", small.error);
    let two = start(dir.path(), |o| {
        ip("address add 192.0.2.2/24 dev up0");
        o.rlocs.insert("192.0.2.2".parse().unwrap());
    });
    assert!(two.error.to_string().contains("one of each"), "{}", two.error);
    let device = start(dir.path(), |o| o.vxlan_device = "up0".to_owned());
    assert!(matches!(device.error, NveError::Datapath(_)), "{}", device.error);
    for refused in [elsewhere, named, no_uplink, mtu, small, two, device] {
        assert_eq!(refused.asked, 0, "{}", refused.error);
    }
    assert!(!dir.path().join("data/identity.joining").exists());
}

#[test]
fn a_file_in_the_sockets_place_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("shadow");
    fs::write(&file, "kept").unwrap();
    let named = file.clone();
    let refused = start(dir.path(), |o| o.socket = named);
    assert!(matches!(refused.error, NveError::NoSocket { .. }), "{}", refused.error);
    assert_eq!((refused.asked, fs::read_to_string(&file).unwrap().as_str()), (0, "kept"));
}

#[test]
fn a_join_that_is_refused_leaves_no_data_plane() {
    for rloc in ["192.0.2.1", "2001:db8::1"] {
        let dir = tempfile::tempdir().unwrap();
        let refused = start(dir.path(), |o| o.rlocs = [rloc.parse().unwrap()].into());
        assert!(matches!(refused.error, NveError::Join(_)), "{}", refused.error);
        assert!(refused.asked > 0);
        assert!(!dir.path().join("nve.sock").exists());
    }
}
