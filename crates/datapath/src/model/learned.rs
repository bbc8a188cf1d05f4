//! What the data plane learns from frames.

use crate::{Location, Op, Seen};
use core::time::Duration;
use std::collections::BTreeMap;
use weft_model::{Epoch, MacAddr, Rloc, Time, Vni};

/// How long what was learned counts.
const AGEING: Duration = Duration::from_secs(300);

/// One thing that a frame taught.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lesson {
    /// Frames from this MAC address come from this NVE.
    Mac {
        /// The virtual network.
        vni: Vni,
        /// The frame's source.
        mac: MacAddr,
        /// The outer source.
        rloc: Rloc,
    },
}

/// Everything learned that counts still.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Learned {
    macs: BTreeMap<(Vni, MacAddr), (Rloc, Time)>,
}

impl Learned {
    /// Takes in what a frame taught at `now`; the latest word counts.
    pub fn note(&mut self, now: Time, lessons: &[Lesson]) {
        for lesson in lessons {
            match *lesson {
                Lesson::Mac { vni, mac, rloc } => {
                    self.macs.insert((vni, mac), (rloc, now));
                }
            }
        }
    }

    /// Drops what is too old at `now`.
    pub fn forget(&mut self, now: Time) {
        self.macs.retain(|_, (_, seen)| now.since(*seen) < AGEING);
    }

    /// What a change of the tables makes void: where a tenant system was that is here now.
    pub fn apply(&mut self, op: &Op) {
        if let Op::SetLocation(vni, mac, Location::Local(_)) = op {
            self.macs.remove(&(*vni, *mac));
        }
    }

    pub(super) fn location(&self, vni: Vni, mac: MacAddr) -> Option<Location> {
        let (rloc, _) = self.macs.get(&(vni, mac))?;
        Some(Location::Remote { rloc: *rloc, epoch: Epoch::FIRST })
    }

    pub(super) fn seen(&self, now: Time) -> Vec<Seen> {
        let seen = |((vni, mac), (rloc, at)): (&(Vni, MacAddr), &(Rloc, Time))| Seen {
            vni: *vni,
            mac: *mac,
            rloc: *rloc,
            idle: now.since(*at),
        };
        self.macs.iter().map(seen).collect()
    }
}
