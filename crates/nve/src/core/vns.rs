//! VN Contexts: the Oracle's watch says what they are, and what an answer says of one is news only while the watch has not
//! told of it. An answer may be older: it waits until a program runs, and no watch tells the same again.

use super::{Core, Timer};
use weft_model::{VnSpec, Vni};

impl Core {
    /// A VN Context as it is now, with all that follows from it.
    pub(super) fn know_vn(&mut self, vn: VnSpec) {
        self.take_vn(vn, true);
    }

    fn take_vn(&mut self, vn: VnSpec, adopts: bool) {
        let vni = vn.vni;
        let old = self.vns.insert(vni, vn);
        // After a restart without an Oracle it is treated as it last was.
        let kept = self.members.contains_key(&vni) || self.connected.contains_key(&vni);
        self.unsaved |= kept && old.as_ref() != self.vns.get(&vni);
        // What an Oracle refused for its mode of before it may be asked for anew.
        let mode = |vn: &VnSpec| vn.learning;
        if old.as_ref().map(mode) != self.vns.get(&vni).map(mode) {
            self.timers.cancel(&Timer::Subscribe(vni));
        }
        let governs = |vn: &VnSpec| (vn.default_groups.clone(), vn.log_refused);
        let governed = old.as_ref().map(governs) == self.vns.get(&vni).map(governs);
        if adopts {
            self.adopt_orphans();
        }
        self.review_vn(vni);
        self.review_tunnels(vni);
        self.review_locators(vni, old.map(|old| old.tunnel));
        if !governed {
            self.touch_all_in(vni);
            self.review_policy(vni);
        }
    }

    /// Something that is shown of each interface in a VN may be another now.
    pub(super) fn touch_all_in(&mut self, vni: Vni) {
        let of = self.tsis.keys().filter(|id| id.vni == vni).cloned();
        for id in of.collect::<Vec<_>>() {
            self.touch(&id);
        }
    }

    /// A VN Context that an answer came with. What was found at devices is looked at once the answer has been dealt with.
    pub(super) fn hear_of_vn(&mut self, vn: VnSpec) {
        if !self.vns.contains_key(&vn.vni) {
            self.take_vn(vn, false);
        }
    }
}
