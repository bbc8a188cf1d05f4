//! What the machine must be, checked before anything else happens.

use anyhow::{Result, bail};
use nix::{sys::utsname::uname, unistd::geteuid};

/// Weft attaches its programs with tcx, which came with Linux 6.6.
const OLDEST: (u32, u32) = (6, 6);

/// The kernel is new enough and the caller is root.
pub(crate) fn check() -> Result<()> {
    let name = uname()?;
    let release = name.release().to_string_lossy();
    if version(&release).is_some_and(|version| version < OLDEST) {
        bail!(
            "Weft needs Linux {}.{} or newer (tcx), this is {release}: boot a newer kernel",
            OLDEST.0,
            OLDEST.1
        );
    }
    if !geteuid().is_root() {
        bail!(
            "this makes network namespaces, loads eBPF and installs missing packages, and needs root: run it with sudo -E"
        );
    }
    Ok(())
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Whether packages come from apt: Debian, Ubuntu and what is derived from them.
pub(crate) fn has_apt() -> bool {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    text.lines()
        .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")))
        .any(|ids| ids.trim_matches('"').split(' ').any(|id| id == "debian" || id == "ubuntu"))
}

/// One line about this machine, for reports of measurements.
pub(crate) fn describe() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| {
            line.strip_prefix("model name")?.split_once(':').map(|(_, model)| model.trim().to_owned())
        })
        .unwrap_or_else(|| "unknown CPU".to_owned());
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let kernel = uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default();
    format!("{cores} x {model}, Linux {kernel}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        for (release, want) in [
            ("6.18.44-fc", Some((6, 18))),
            ("5.15.0-91-generic", Some((5, 15))),
            ("6.6", Some((6, 6))),
            ("what", None),
        ] {
            assert_eq!(version(release), want, "{release}");
        }
    }
}
