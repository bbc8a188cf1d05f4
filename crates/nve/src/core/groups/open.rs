//! VAPs that want every group: they asked for more than may be kept of them. Refusing the one group too many would be
//! silence where a switch would flood (RFC 4541 section 2.1.2).

use super::super::{Core, LEAST_WAIT, Timer};
use super::ROBUSTNESS;
use weft_datapath::IfIndex;
use weft_lisp::tcp::GroupEvent;
use weft_model::{Time, Vni};

impl Core {
    /// A group that is wanted at a VAP found no room: it gets all, for as long as one group would last without
    /// being asked for again.
    pub(super) fn open_vap(&mut self, now: Time, vni: Vni, vap: IfIndex) {
        self.timers.set(Timer::Open(vni, vap), now + self.config.timing.membership.max(LEAST_WAIT));
        let open = self.groups.open.entry(vni).or_default();
        let first = open.is_empty();
        if open.insert(vap) {
            if first {
                self.tell_group(vni, GroupEvent::AddAll { site_id: 0 });
            }
            self.set_groups(vni);
        }
    }

    /// For long, or since it was last asked, a VAP has wanted nothing that found no room.
    pub(in super::super) fn close_vap(&mut self, vni: Vni, vap: IfIndex) {
        self.timers.cancel(&Timer::Open(vni, vap));
        let Some(open) = self.groups.open.get_mut(&vni) else { return };
        if open.remove(&vap) {
            if open.is_empty() {
                self.groups.open.remove(&vni);
                self.tell_group(vni, GroupEvent::RemoveAll { site_id: 0 });
            }
            self.set_groups(vni);
        }
    }

    /// Somebody at an open VAP left a group that was not kept.
    pub(super) fn left_unkept(&mut self, now: Time, vni: Vni, vap: IfIndex) {
        if self.groups.open.get(&vni).is_some_and(|open| open.contains(&vap)) {
            self.ask_open(now, vni, vap);
        }
    }

    /// There is room for a group more: for one of those that were not kept.
    pub(super) fn review_open(&mut self, now: Time, vni: Vni) {
        for vap in self.groups.open.get(&vni).cloned().unwrap_or_default() {
            self.ask_open(now, vni, vap);
        }
    }

    /// Asks a VAP what it wants, as if it were new. If that finds room, or nothing more is wanted, it is open no more.
    pub(super) fn ask_open(&mut self, now: Time, vni: Vni, vap: IfIndex) {
        if let Some((_, left)) = self.groups.asked.get_mut(&vap)
            && *left == 0
        {
            *left = ROBUSTNESS;
            self.timers.advance(Timer::Query(vap), now + LEAST_WAIT);
        }
        // Time for as many questions, and for the answers to the last.
        let within = self.config.timing.last_member.max(LEAST_WAIT);
        self.timers.advance(Timer::Open(vni, vap), now + within * (ROBUSTNESS + 2));
    }
}
