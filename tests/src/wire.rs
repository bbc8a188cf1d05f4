//! Hosts that do not reach their Oracle, or another host, while everybody else does.

use crate::TestLab;
use anyhow::{Result, ensure};
use std::net::IpAddr;

/// An address that nobody on the fabric has.
const NOBODY: &str = "02:00:00:00:ff:ff";

/// Has a host and its Oracle reach each other no more, or again; everybody else they do. What they send is on the
/// fabric, for nobody.
///
/// # Errors
/// When the host is unknown or `ip` refuses.
pub fn cut(lab: &TestLab, (host, oracle): (&str, IpAddr), cut: bool) -> Result<()> {
    between(lab, [(host, lab.rloc(host)?), ("oracle", oracle)], cut)
}

/// The same of two hosts.
///
/// # Errors
/// When one is unknown or `ip` refuses.
pub fn part(lab: &TestLab, [one, other]: [&str; 2], cut: bool) -> Result<()> {
    between(lab, [(one, lab.rloc(one)?), (other, lab.rloc(other)?)], cut)
}

fn between(lab: &TestLab, [(one, at), (another, there)]: [(&str, IpAddr); 2], cut: bool) -> Result<()> {
    let addresses = [at.to_string(), there.to_string()];
    for (node, other) in [(one, &addresses[1]), (another, &addresses[0])] {
        let replace = ["ip", "neigh", "replace", other, "lladdr", NOBODY, "dev", "eth0", "nud", "permanent"];
        let done = if cut {
            lab.exec(node, &replace)?
        } else {
            lab.exec(node, &["ip", "neigh", "del", other, "dev", "eth0"])?
        };
        ensure!(done.status.success(), "{node}: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(())
}
