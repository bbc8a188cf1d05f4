//! Entries nobody uses: when one is due to be asked for again and no frame has gone there for long, it is
//! forgotten instead. A table is as large as what is talked to, not as what was ever asked for.

use super::cache::Entry;
use super::{Core, Output};
use ::core::time::Duration;
use weft_model::{Eid, MacAddr, Time, Vni};

impl Core {
    /// An entry is due to be asked for again: only what is in use is worth a question. An NVE without any
    /// Oracle keeps all it knows.
    pub(super) fn refresh_if_used(&mut self, now: Time, vni: Vni, eid: Eid) {
        if !self.is_known(vni, eid) {
            return;
        }
        match self.mac_of(vni, eid) {
            Some(mac) if self.oracles.iter().any(|oracle| oracle.up) => {
                self.outputs.push_back(Output::LastUse { vni, eid, mac });
            }
            _ => self.refresh(now, vni, eid),
        }
    }

    /// The answer to [`Output::LastUse`]: how long ago a frame went there, if ever one did.
    pub fn handle_last_use(&mut self, now: Time, vni: Vni, eid: Eid, idle: Option<Duration>) {
        self.now = now;
        let limit = self.config.timing.idle;
        let known_for = self.learned(vni, eid).map(|learned| now.since(learned));
        // What was learned a moment ago has had no time to be used.
        let unused = known_for.is_some_and(|age| idle.unwrap_or(age).min(age) >= limit);
        if unused {
            self.counters.idle_evicted += 1;
            self.forget_remote(vni, eid);
        } else {
            self.refresh(now, vni, eid);
        }
    }

    /// The MAC address whose frames show that an entry is in use.
    fn mac_of(&self, vni: Vni, eid: Eid) -> Option<MacAddr> {
        match eid {
            Eid::Mac(mac) => Some(mac),
            Eid::Ip(ip) => self.cache.ips.get(&(vni, ip)).and_then(Entry::known).map(|bound| bound.mac),
        }
    }

    fn learned(&self, vni: Vni, eid: Eid) -> Option<Time> {
        match eid {
            Eid::Mac(mac) => self.cache.macs.get(&(vni, mac)).and_then(Entry::known).map(|at| at.learned),
            Eid::Ip(ip) => self.cache.ips.get(&(vni, ip)).and_then(Entry::known).map(|at| at.learned),
        }
    }
}
