//! The other NVEs of a VN (requirement N9): where its frames for everybody are replicated to, as an Oracle
//! says on the session, and how the data plane is to treat the VN.

use super::groups::Elsewhere;
use super::{Core, Timer};
use std::collections::BTreeSet;
use weft_datapath::{Op, Vn};
use weft_lisp::tcp::{Body, Membership as Frame, MembershipEvent};
use weft_model::{Bum, Learning, Rloc, Time, VnSpec, Vni};

/// What is known of a VN's members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Membership {
    /// The Oracle that tells of them.
    pub(super) oracle: Option<usize>,
    /// ID of the frame that asked for it.
    pub(super) request: u32,
    /// Their RLOCs, by Site-ID. What an Oracle said last stays until another one has said what there is.
    pub(super) rlocs: BTreeSet<(u64, Rloc)>,
    /// Those named by the snapshot that is under way.
    pub(super) named: Option<BTreeSet<(u64, Rloc)>>,
    /// Found in the kernel at the start: they count until the first snapshot is complete.
    pub(super) adopted: BTreeSet<Rloc>,
    /// A snapshot has been complete: who is not named is no member.
    pub(super) complete: bool,
    /// Which of its groups they receive.
    pub(super) groups: Elsewhere,
}

impl Membership {
    /// Whether the NVE at these RLOCs is known to be no member.
    pub(super) fn lacks(&self, rlocs: &BTreeSet<Rloc>) -> bool {
        self.complete && !self.rlocs.iter().any(|(_, rloc)| rlocs.contains(rloc))
    }

    /// The RLOC that a member is sent to at: the lowest of a family in `own`, IPv4 before IPv6.
    pub(super) fn rloc_of(&self, site: u64, own: &BTreeSet<Rloc>) -> Option<Rloc> {
        let lowest = Rloc::new([1, 0, 0, 0].into()).ok()?;
        let its = self.rlocs.range((site, lowest)..).take_while(|(of, _)| *of == site);
        its.map(|(_, rloc)| *rloc).find(usable(own))
    }

    /// One RLOC of each member, as [`Self::rloc_of`] says.
    pub(super) fn chosen(&self, own: &BTreeSet<Rloc>) -> BTreeSet<Rloc> {
        let usable = usable(own);
        let mut last = None;
        let usable = self.rlocs.iter().filter(|(_, rloc)| usable(rloc));
        let first = usable.filter(|(site, _)| last.replace(*site) != Some(*site)).map(|(_, rloc)| *rloc);
        first.chain(self.adopted.iter().copied()).collect()
    }
}

/// Whether frames of a VN are replicated.
fn replicates(vn: &VnSpec) -> bool {
    matches!(vn.learning, Learning::Flood | Learning::Translate) || vn.bum == Bum::Replicate
}

/// Whether an RLOC is of a family in `own`.
fn usable(own: &BTreeSet<Rloc>) -> impl Fn(&Rloc) -> bool {
    let has = |v4: bool| own.iter().any(|rloc| rloc.get().is_ipv4() == v4);
    let (v4, v6) = (has(true), has(false));
    move |rloc| if rloc.get().is_ipv4() { v4 } else { v6 }
}

impl Core {
    /// Whether a tenant system of the VN is in service here.
    pub(super) fn is_active(&self, vni: Vni) -> bool {
        use weft_model::MacAddr;
        self.local_macs.range((vni, MacAddr([0; 6]))..=(vni, MacAddr::BROADCAST)).next().is_some()
    }

    /// Whether the members of the VN have to be known: its frames are replicated, or a gateway has to be one.
    pub(super) fn wants_members(&self, vni: Vni) -> bool {
        let wants = |vn: &VnSpec| replicates(vn) || super::gateway::named(vn).is_some();
        self.is_active(vni) && self.vns.get(&vni).is_some_and(wants)
    }

    /// Subscribes to the members of a VN, or does so no more.
    pub(super) fn review_members(&mut self, vni: Vni) {
        if !self.wants_members(vni) {
            if let Some(old) = self.memberships.remove(&vni) {
                self.timers.cancel(&Timer::Members(vni));
                self.timers.cancel(&Timer::Hear(vni));
                if let Some(oracle) = old.oracle {
                    self.send_membership(oracle, vni, MembershipEvent::Unsubscribe);
                }
            }
            return;
        }
        let current = self.memberships.entry(vni).or_default().oracle;
        if current.is_none()
            && let Some(oracle) = self.provider(vni)
            && let Some(request) = self.send_membership(oracle, vni, MembershipEvent::Subscribe)
            && let Some(membership) = self.memberships.get_mut(&vni)
        {
            membership.oracle = Some(oracle);
            membership.request = request;
            membership.named = None;
        }
    }

    fn send_membership(&mut self, oracle: usize, vni: Vni, event: MembershipEvent) -> Option<u32> {
        self.send(oracle, &Body::Membership(Frame { eid_afi: 0, iid: vni.get(), event }))
    }

    /// What an Oracle says of the members of a VN.
    pub(super) fn membership(&mut self, now: Time, oracle: usize, frame: Frame) {
        let limit = self.config.limits.members.max(1);
        let vni = Vni::new(frame.iid).ok();
        let known = vni.and_then(|vni| Some((vni, self.memberships.get_mut(&vni)?)));
        let Some((vni, members)) = known.filter(|(_, members)| members.oracle == Some(oracle)) else {
            // Sent before it heard that nobody here wants to know any more.
            self.counters.unexpected_frames += 1;
            return;
        };
        match frame.event {
            MembershipEvent::SubscribeAck { .. } => {}
            MembershipEvent::SubscribeNack { subscribe_id, .. } if subscribe_id == members.request => {
                members.oracle = None;
                members.named = None;
                self.subscribe_later(now, vni);
            }
            MembershipEvent::RefreshBegin { request_id } if request_id == members.request => {
                members.named = Some(BTreeSet::new());
                members.groups.begin();
            }
            MembershipEvent::RefreshEnd { request_id } if request_id == members.request => {
                if let Some(named) = members.named.take() {
                    members.rlocs = named;
                    members.complete = true;
                    members.adopted.clear();
                    members.groups.end();
                    if members.groups.lacks() {
                        self.hear_later(now, vni);
                    }
                }
            }
            MembershipEvent::Add { site_id, rloc } => match Rloc::new(rloc) {
                Ok(rloc) if self.config.rlocs.contains(&rloc) => {}
                Ok(rloc) => {
                    let member = (site_id, rloc);
                    if members.rlocs.len() < limit || members.rlocs.contains(&member) {
                        members.rlocs.insert(member);
                        if let Some(named) = &mut members.named {
                            named.insert(member);
                        }
                    } else {
                        self.counters.members_full += 1;
                    }
                }
                Err(_) => self.counters.unexpected_frames += 1,
            },
            MembershipEvent::Remove { site_id, rloc } => {
                if let Ok(rloc) = Rloc::new(rloc) {
                    members.rlocs.remove(&(site_id, rloc));
                    if let Some(named) = &mut members.named {
                        named.remove(&(site_id, rloc));
                    }
                }
            }
            _ => self.counters.unexpected_frames += 1,
        }
        self.members_changed(now, vni);
        self.announce_all(vni);
    }

    /// Members follow at once, but those of a snapshot together: each change costs as much as there are.
    pub(super) fn members_changed(&mut self, now: Time, vni: Vni) {
        if self.memberships.get(&vni).is_some_and(|members| members.named.is_some()) {
            self.timers.advance(Timer::Members(vni), now + super::LEAST_WAIT);
        } else {
            self.timers.cancel(&Timer::Members(vni));
            self.set_vn(vni);
        }
    }

    /// Has the data plane treat a VN as its context and its members say; by default when nobody is in service.
    pub(super) fn set_vn(&mut self, vni: Vni) {
        let spec = self.vns.get(&vni).filter(|_| self.is_active(vni));
        let wanted = spec.map(|spec| {
            let members = self.memberships.get(&vni).filter(|_| replicates(spec));
            let members = members.map(|members| members.chosen(&self.config.rlocs));
            let super::gateway::OnMiss { miss, gateway, carries } = self.on_miss(spec);
            Vn {
                learning: spec.learning,
                bum: spec.bum,
                members: members.unwrap_or_default(),
                storm: spec.storm,
                miss,
                gateway,
                carries,
            }
        });
        match (wanted, self.tables.vns.get(&vni)) {
            (Some(vn), held) if held != Some(&vn) => self.apply(Op::SetVn(vni, vn)),
            (None, Some(_)) => self.apply(Op::RemoveVn(vni)),
            _ => {}
        }
        self.set_groups(vni);
    }
}
