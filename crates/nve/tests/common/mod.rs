//! A network namespace of a test's own, which ends with its thread.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests, and what they share")]
#![allow(dead_code, reason = "each test uses its own part of this")]

use std::{process::Command, sync::mpsc};

/// Runs `work` in a new network namespace with its loopback up.
pub fn in_namespace<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("tests of the agent need root");
            ip("link set lo up");
            work()
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Makes this namespace a host: up0 has 192.0.2.1 and 2001:db8::1.
pub fn host() {
    ip("link add up0 type veth peer name far0");
    ip("link set far0 up");
    ip("link set up0 up");
    ip("address add 192.0.2.1/24 dev up0");
    ip("address add 2001:db8::1/64 dev up0 nodad");
}

/// Runs `work` while this namespace has a veth `name` whose peer is in another.
pub fn with_veth(name: &str, work: impl FnOnce()) {
    let here = format!("/proc/{}/task/{}/ns/net", std::process::id(), nix::unistd::gettid());
    let (made, ready) = mpsc::channel::<()>();
    let (done, wait) = mpsc::channel::<()>();
    std::thread::scope(move |scope| {
        scope.spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            ip(&format!("link add {name} type veth peer name eth0"));
            ip(&format!("link set {name} netns {here}"));
            made.send(()).unwrap();
            // Ends, and takes the pair along, with the other end of the channel.
            let _ = wait.recv();
        });
        ready.recv().unwrap();
        work();
        drop(done);
    });
}

/// `ip` in the namespace of this thread; panics if it fails.
pub fn ip(words: &str) -> String {
    let output = Command::new("ip").args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
