//! VNs that translate (requirement Lb, RFC 7586): the data plane learns of other NVEs from frames, and its tables
//! hold no other tenant systems. The Oracle is asked only whether an address that somebody tries out is free
//! (RFC 5227 section 2.1.1, RFC 4862 section 5.4): nobody could be answered by the one who has it.

use super::messages::Said;
use super::resolver::Pending;
use super::{Core, Output};
use weft_model::{Eid, Learning, MacAddr, Time, Vni};

impl Core {
    pub(super) fn translates(&self, vni: Vni) -> bool {
        self.vns.get(&vni).is_some_and(|vn| vn.learning == Learning::Translate)
    }

    /// Whether the tables have a place for what is said of an address elsewhere. Where addresses are translated
    /// that is what they held when the VN began to, as long as it is used.
    pub(super) fn takes_in(&self, vni: Vni, eid: Eid) -> bool {
        !self.translates(vni) || self.is_known(vni, eid)
    }

    /// Answers who waits for `asked`, in a VN that translates, with the MAC address of its owner's NVE; nothing
    /// of what is said is kept. Where that NVE is not said it is asked for.
    pub(super) fn defend(&mut self, now: Time, vni: Vni, asked: Eid, said: &[Said], pending: &mut Pending) {
        // What the tables hold answers as it does anybody.
        if !self.translates(vni) || self.is_known(vni, asked) || self.is_local(vni, asked) {
            return;
        }
        let owner = match asked {
            Eid::Mac(mac) => Some(mac),
            Eid::Ip(_) => said.iter().find_map(|said| match *said {
                Said::Bound { mac, .. } if said.about() == (vni, asked) => Some(mac),
                _ => None,
            }),
        };
        let Some(owner) = owner else { return };
        let at = said.iter().find_map(|said| match *said {
            Said::Located { rloc, .. } if said.about() == (vni, Eid::Mac(owner)) => Some(rloc),
            _ => None,
        });
        let node = at.and_then(|rloc| self.tables.peers.get(&rloc.get())).filter(|peer| peer.nve);
        let node = node.map(|peer| MacAddr::of_node(peer.node));
        for waiter in ::core::mem::take(&mut pending.waiters) {
            if let Some(mac) = node {
                self.counters.answers += 1;
                self.outputs.push_back(Output::Inject(waiter.vap, waiter.stand_in(mac)));
            } else if at.is_none() && matches!(asked, Eid::Ip(_)) {
                let (vap, source) = (waiter.vap, pending.source);
                self.ask(now, vni, Eid::Mac(owner), Some(vap), source, Some(waiter));
            }
        }
    }
}
