//! FRR with many MAC addresses: as on a switch, they are learned by the bridge of one host.

use super::{frr::Frr, frr::Tuning, site::Site};
use crate::bench::push::{MANY, Pushes};
use anyhow::{Context as _, Result, ensure};
use std::{fmt::Write as _, path::PathBuf, time::Duration};
use weft_lab::{Links, clock};
use weft_model::{MacAddr, TsMac};

const CEILING: Duration = Duration::from_secs(240);

pub(crate) struct Mass {
    frr: Frr,
    add: PathBuf,
    delete: PathBuf,
    links: Links,
}

impl Mass {
    pub(crate) fn up(tuning: Tuning) -> Result<Self> {
        let frr = Frr::up(tuning)?;
        let links = frr.site().links("h2")?;
        let run = frr.site().lab.files().run.clone();
        let mass = Self { add: run.join("add"), delete: run.join("delete"), links, frr };
        let lines = |verb: &str, more: &str| {
            let line = |mut all: String, n: usize| {
                let _ = writeln!(all, "fdb {verb} {} dev a{more}", mac(n));
                all
            };
            (0..MANY).fold(String::new(), line)
        };
        std::fs::write(&mass.add, lines("add", " master static"))?;
        std::fs::write(&mass.delete, lines("del", " master"))?;
        Ok(mass)
    }

    fn site(&self) -> &Site {
        self.frr.site()
    }

    /// `bridge -batch`, as fast as its host takes it.
    fn batch(&self, file: &std::path::Path) -> Result<()> {
        let file = file.to_str().context("a path that is text")?;
        let done = self.site().lab.exec("h1", &["bridge", "-batch", file])?;
        ensure!(done.status.success(), "bridge -batch: {}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    }

    /// Waits until h2's number of MAC addresses behind h1 is as wanted.
    fn wait(&self, wanted: impl Fn(usize) -> bool) -> Result<()> {
        let seen = clock::until(CEILING, || {
            let count = self.links.remotes("vx0")?.iter().filter(|(_, remote)| remote.is_some()).count();
            Ok::<_, weft_lab::LabError>(wanted(count).then_some(()))
        })?;
        ensure!(seen.is_some(), "FRR has not told h2 of everything within {CEILING:?}");
        Ok(())
    }
}

fn mac(n: usize) -> MacAddr {
    TsMac::local(0xb000_0000 + n as u64).get()
}

impl Pushes for Mass {
    fn name(&self) -> &'static str {
        self.frr.tuning().name()
    }

    fn push(&mut self) -> Result<Duration> {
        let begun = clock::now();
        self.batch(&self.add)?;
        self.wait(|count| count >= MANY)?;
        Ok(begun.elapsed())
    }

    fn forget(&mut self) -> Result<()> {
        self.batch(&self.delete)?;
        // What is left are the tenants and the entry for everybody.
        self.wait(|count| count < 100)
    }

    fn change(&mut self) -> Result<Duration> {
        let new = mac(MANY);
        let here = self.site().links("h1")?;
        let begun = clock::now();
        here.add_bridge_entry("a", new)?;
        self.frr.wait_remote("h2", new, true)?;
        let took = begun.elapsed();
        here.delete_bridge_entry("a", new)?;
        self.frr.wait_remote("h2", new, false)?;
        Ok(took)
    }

    fn down(self: Box<Self>) -> Result<()> {
        let Self { frr, links, .. } = *self;
        drop(links);
        super::Peer::down(Box::new(frr))
    }
}
