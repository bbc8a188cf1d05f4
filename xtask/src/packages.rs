//! The one list of Debian packages that Weft needs on a machine, and why.

use crate::{machine, say};
use anyhow::{Context as _, Result, bail};
use std::{
    path::Path,
    process::{Command, Stdio},
};
use weft_lab::vm::image;

/// What a package is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Build,
    Demo,
    Test,
    Bench,
}

struct Package {
    name: &'static str,
    /// A file that is there when it is installed: for distributions without apt.
    gives: &'static str,
    why: &'static str,
    uses: &'static [Use],
    how: How,
}

/// How a package is had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Installed,
    /// Unpacked into a cache, where [`image::prepare`] makes of it what virtual machines boot.
    Unpacked,
}

const fn package(
    name: &'static str,
    gives: &'static str,
    why: &'static str,
    uses: &'static [Use],
) -> Package {
    Package { name, gives, why, uses, how: How::Installed }
}

const fn unpacked(name: &'static str, why: &'static str, uses: &'static [Use]) -> Package {
    Package { name, gives: "apt-get", why, uses, how: How::Unpacked }
}

const PACKAGES: &[Package] = &[
    package("gcc", "cc", "links, and builds the cryptography", &[Use::Build]),
    package("libc6-dev", "/usr/include/stdio.h", "headers for the linker's start files", &[Use::Build]),
    package("linux-libc-dev", "/usr/include/linux/bpf.h", "kernel headers for eBPF", &[Use::Build]),
    package("clang", "clang", "compiles eBPF", &[Use::Build]),
    package("libbpf-dev", "/usr/include/bpf/bpf_helpers.h", "headers for eBPF", &[Use::Build]),
    package(
        "iputils-ping",
        "ping",
        "asks whether tenants reach one another",
        &[Use::Demo, Use::Test, Use::Bench],
    ),
    package("iproute2", "ip", "shows the state of namespaces", &[Use::Demo, Use::Test]),
    package("arping", "arping", "sends RFC 5227 probes", &[Use::Demo, Use::Test]),
    package("iperf3", "iperf3", "sends TCP through the overlay", &[Use::Demo, Use::Test, Use::Bench]),
    package("python3", "python3", "is the LISP peer of the tests", &[Use::Test]),
    package(
        "python3-scapy",
        "/usr/lib/python3/dist-packages/scapy/__init__.py",
        "is the subscribing xTR of the tests",
        &[Use::Test],
    ),
    package("tshark", "tshark", "is the referee of wire formats", &[Use::Test]),
    package("qemu-system-x86", "qemu-system-x86_64", "runs virtual machines as tenants", &[Use::Test]),
    unpacked(image::KERNEL_PACKAGE, "is the kernel of these virtual machines", &[Use::Test]),
    unpacked(image::BUSYBOX_PACKAGE, "is what runs in them", &[Use::Test]),
    package("frr", "/usr/lib/frr/bgpd", "is the BGP EVPN peer of the benches", &[Use::Bench]),
];

/// Installs what is missing for `uses`; compiling is always among them.
pub(crate) fn install(uses: &[Use]) -> Result<()> {
    let wanted = || PACKAGES.iter().filter(|p| p.uses.iter().any(|u| *u == Use::Build || uses.contains(u)));
    install_missing(wanted().filter(|package| package.how == How::Installed))?;
    if wanted().any(|package| package.how == How::Unpacked) {
        image::prepare(&mut say::step)?;
    }
    Ok(())
}

fn install_missing(wanted: impl Iterator<Item = &'static Package>) -> Result<()> {
    if !machine::has_apt() {
        let missing: Vec<String> = wanted
            .filter(|package| !found(package.gives))
            .map(|package| format!("{} ({}, which {})", package.gives, package.name, package.why))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        bail!(
            "this is neither Debian nor Ubuntu, so xtask installs nothing: install these and run it again: {}",
            missing.join(", ")
        );
    }
    let missing: Vec<&Package> = wanted.filter(|package| !installed(package.name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for package in &missing {
        say::step(&format!("package {} is missing: it {}", package.name, package.why));
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    apt(&["update", "-q"])?;
    apt(&[&["install", "-q", "-y", "--no-install-recommends"][..], &names].concat())
}

fn apt(words: &[&str]) -> Result<()> {
    say::step(&format!("apt-get {}", words.join(" ")));
    let output = Command::new("apt-get")
        .args(words)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output()
        .context("cannot run apt-get")?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let reason = text.lines().rev().find(|line| line.starts_with("E:")).unwrap_or("no reason given");
    bail!("apt-get {} failed: {reason}", words.join(" "))
}

fn installed(name: &str) -> bool {
    let output = Command::new("dpkg-query").args(["-W", "-f=${db:Status-Status}", name]).output();
    output.is_ok_and(|output| output.status.success() && output.stdout.starts_with(b"installed"))
}

/// Whether `what`, a path or a program, is there.
fn found(what: &str) -> bool {
    if what.starts_with('/') {
        return Path::new(what).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(what).is_file())
}
