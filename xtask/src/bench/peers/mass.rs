//! FRR with many MAC addresses: as on a switch, they are learned by the bridge of one host.

use super::{frr::Frr, frr::Tuning, site::Site};
use crate::bench::push::{MANY, Pushed, Pushes};
use anyhow::{Context as _, Result, ensure};
use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};
use weft_lab::{Links, clock};
use weft_model::{MacAddr, TsMac};

/// How long all of them may take to appear, or to disappear.
const CEILING: Duration = Duration::from_secs(60);
/// What h2 has of others when nothing is pushed: the tenants of h1 and the entry for everybody.
const FEW: usize = 100;

pub(crate) struct Mass {
    frr: Frr,
    add: PathBuf,
    delete: PathBuf,
    links: Links,
    /// How many MAC addresses have appeared so far: each is new, as if it had never been anywhere.
    used: usize,
}

impl Mass {
    pub(crate) fn up(tuning: Tuning) -> Result<Self> {
        let frr = Frr::up(tuning)?;
        let links = frr.site().links("h2")?;
        let run = frr.site().lab.files().run.clone();
        Ok(Self { add: run.join("add"), delete: run.join("delete"), links, frr, used: 0 })
    }

    fn site(&self) -> &Site {
        self.frr.site()
    }

    /// The next so many MAC addresses that were nowhere yet.
    fn take(&mut self, count: usize) -> impl Iterator<Item = MacAddr> + Clone + use<> {
        let first = self.used;
        self.used += count;
        (first..first + count).map(|n| TsMac::local(0xb000_0000 + n as u64).get())
    }

    /// `bridge -batch`, as fast as its host takes it.
    fn batch(&self, file: &Path) -> Result<()> {
        let file = file.to_str().context("a path that is text")?;
        let done = self.site().lab.exec("h1", &["bridge", "-batch", file])?;
        ensure!(done.status.success(), "bridge -batch: {}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    }

    /// Waits until h2's number of MAC addresses behind h1 is as wanted; else what it was at the end.
    fn wait(&self, wanted: impl Fn(usize) -> bool) -> Result<Result<(), usize>> {
        let mut count = 0;
        let seen = clock::until(CEILING, || {
            count = self.links.count_remotes("vx0")?;
            Ok::<_, weft_lab::LabError>(wanted(count).then_some(()))
        })?;
        Ok(seen.ok_or(count))
    }
}

/// Writes a file for `bridge -batch`.
fn write(path: &Path, verb: &str, more: &str, macs: impl Iterator<Item = MacAddr>) -> Result<()> {
    let mut text = String::new();
    for mac in macs {
        writeln!(text, "fdb {verb} {mac} dev a{more}")?;
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

impl Pushes for Mass {
    fn name(&self) -> &'static str {
        self.frr.tuning().name()
    }

    fn push(&mut self) -> Result<Pushed> {
        let macs = self.take(MANY);
        write(&self.add, "add", " master static", macs.clone())?;
        write(&self.delete, "del", " master", macs)?;
        let before = self.links.count_remotes("vx0")?;
        let begun = clock::now();
        self.batch(&self.add)?;
        Ok(match self.wait(|count| count >= before + MANY)? {
            Ok(()) => Pushed::All(begun.elapsed()),
            Err(count) => Pushed::Part(count.saturating_sub(before)),
        })
    }

    fn forget(&mut self) -> Result<bool> {
        self.batch(&self.delete)?;
        Ok(self.wait(|count| count < FEW)?.is_ok())
    }

    fn change(&mut self) -> Result<Duration> {
        let new = self.take(1).next().context("no MAC address")?;
        let here = self.site().links("h1")?;
        let begun = clock::now();
        here.add_bridge_entry("a", new)?;
        self.frr.wait_remote("h2", new, true)?;
        let took = begun.elapsed();
        here.delete_bridge_entry("a", new)?;
        self.frr.wait_remote("h2", new, false)?;
        Ok(took)
    }

    fn renew(self: Box<Self>) -> Result<Box<dyn Pushes>> {
        let tuning = self.frr.tuning();
        self.down()?;
        Ok(Box::new(Self::up(tuning)?))
    }

    fn down(self: Box<Self>) -> Result<()> {
        let Self { frr, links, .. } = *self;
        drop(links);
        super::Peer::down(Box::new(frr))
    }
}
