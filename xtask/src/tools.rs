//! Cargo subcommands of fixed versions, installed from source when missing.

use crate::{interrupt, say};
use anyhow::{Context as _, Result, ensure};
use std::process::{Command, Stdio};

struct Tool {
    name: &'static str,
    version: &'static str,
    /// An unoptimised build is compiled in a third of the time and fast enough for what it does.
    debug: bool,
}

pub(crate) const NEXTEST: &str = "cargo-nextest";
pub(crate) const DENY: &str = "cargo-deny";

const TOOLS: &[Tool] = &[
    Tool { name: NEXTEST, version: "0.9.143", debug: false },
    Tool { name: DENY, version: "0.20.2", debug: true },
];

/// Installs the tools that are missing or of another version.
pub(crate) fn install() -> Result<()> {
    for tool in TOOLS {
        if version(tool.name).as_deref() == Some(tool.version) {
            continue;
        }
        let spec = format!("{}@{}", tool.name, tool.version);
        say::step(&format!("cargo install --locked {spec}: from source, some minutes"));
        let mut command = Command::new(cargo());
        command.args(["install", "--locked", "--quiet", &spec]).stdin(Stdio::null());
        if tool.debug {
            command.arg("--debug");
        }
        let status =
            interrupt::spawn(&mut command).and_then(|mut cargo| cargo.wait()).context("cannot run cargo")?;
        ensure!(status.success(), "cargo install --locked {spec} failed with {status}");
    }
    Ok(())
}

/// The cargo that runs this.
pub(crate) fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn version(name: &str) -> Option<String> {
    // `cargo-deny --version` and `cargo-nextest nextest --version` both end their first line's
    // second word with the version.
    let words: &[&str] = if name == NEXTEST { &["nextest", "--version"] } else { &["--version"] };
    let output = Command::new(name).args(words).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_ascii_whitespace().nth(1).map(str::to_owned)
}
