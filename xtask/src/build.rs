//! The `weft` binary that labs run.

use crate::{interrupt, say, tools};
use anyhow::{Context as _, Result, ensure};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The repository's root.
pub(crate) fn root() -> Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map(Path::to_owned).context("xtask is not in a workspace")
}

/// `WEFT_BIN`, or `weft` built with `--profile lab`: its path.
pub(crate) fn weft() -> Result<PathBuf> {
    built("lab")
}

/// `WEFT_BIN`, or `weft` as tests are built, with all of them: its path. By itself it would be compiled, and much of what
/// it depends on, with other features once more.
pub(crate) fn tested() -> Result<PathBuf> {
    built("dev")
}

/// `WEFT_BIN`, or `weft` as it is shipped: its path. Some minutes longer to build.
pub(crate) fn shipped() -> Result<PathBuf> {
    built("release")
}

fn built(profile: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("WEFT_BIN").map(PathBuf::from) {
        ensure!(path.is_file(), "WEFT_BIN={} is no file", path.display());
        return Ok(path.canonicalize()?);
    }
    let words: &[&str] = match profile {
        "dev" => &["test", "--locked", "--workspace", "--no-run", "--quiet"],
        profile => &["build", "--locked", "--package", "weft", "--profile", profile],
    };
    say::step(&format!("cargo {}", words.join(" ")));
    let mut command = Command::new(tools::cargo());
    command.args(words).current_dir(root()?).stdin(Stdio::null());
    let status =
        interrupt::spawn(&mut command).and_then(|mut cargo| cargo.wait()).context("cannot run cargo")?;
    ensure!(status.success(), "building weft failed with {status}");
    let path = target()?.join(if profile == "dev" { "debug" } else { profile }).join("weft");
    ensure!(path.is_file(), "cargo built no {}", path.display());
    Ok(path)
}

fn target() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("CARGO_TARGET_DIR") {
        return Ok(std::env::current_dir()?.join(dir));
    }
    Ok(root()?.join("target"))
}
