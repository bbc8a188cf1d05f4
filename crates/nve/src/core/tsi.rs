//! Tenant system interfaces and their VAPs: the states of RFC 8394, and what the tables and the Oracle
//! are told when they change.

use super::messages::Registering;
use super::policy::Closed;
use super::went::{Lost, Went};
use super::{Attached, Attachment, CallId, Cause, Core, Device, Output, Ticket, Timer};
use ::core::{num::NonZeroU32, time::Duration};
use std::collections::{BTreeMap, BTreeSet};
use weft_datapath::{IfIndex, Location, Neighbour, Op, Vap, VapKind};
use weft_model::{Eid, Epoch, Grant, GroupName, TenantIp, Time, TsiId, TsiName, VnName, Vni, digest::Digest};

/// RFC 8394 section 4.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Granted; no traffic.
    Associated,
    /// Carries traffic.
    Activated,
}

/// One attached tenant system interface.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tsi {
    pub vn: VnName,
    pub grant: Grant,
    /// The store's revision the grant is known from.
    pub revision: u64,
    pub device: Device,
    /// Whether the device exists.
    pub present: bool,
    pub state: State,
    /// What the hypervisor wants it to be.
    pub wanted: State,
    /// Granted to somebody else or nobody: not to be Activated until that changes.
    pub lost: Option<Lost>,
    /// The NVE that it moved here from and that sends on what comes for it there.
    pub previous: Option<NonZeroU32>,
    /// An Oracle has said that it is this NVE's at this epoch, which the store may say a little later.
    pub came: Option<Epoch>,
    /// How long it lasts unless it is renewed.
    pub lease: Option<Duration>,
    /// Only its hypervisor puts it in service: a frame of its own does not (requirement V11).
    pub explicit: bool,
    /// It was in service when the last agent ended, which only the data plane said: it is again once it is this NVE's.
    pub resumes: bool,
    /// The attach that waits for this one to be ready.
    pub waiting: Option<Waiting>,
    /// Link-locals asked for at the Oracle and not answered yet, with the asker's frame.
    pub claims: BTreeMap<TenantIp, super::proxy::Query>,
    /// ID of the latest registration's frame, by Oracle: answers to earlier ones no longer count.
    pub sent: BTreeMap<usize, u32>,
    /// Digest of the records it is registered with.
    pub digest: Digest,
    /// The security groups its VAP was put in service under; none when it was not.
    pub governed: Option<BTreeSet<GroupName>>,
    /// Why access policy keeps it out of service.
    pub closed: Option<Closed>,
}

/// What an attach still waits for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Waiting {
    /// The call that waits; none where a frame of its own puts it in service.
    pub call: Option<CallId>,
    pub ticket: Ticket,
    pub applied: bool,
    pub acknowledged: bool,
    /// The call made the grant: if it fails nothing of it stays.
    pub created: bool,
    /// What it was before, at a device whose grace time was not over.
    pub before: Option<Before>,
    /// It was Associated before and is again if the call fails.
    pub associated: bool,
    /// The Oracles that refused the registration.
    pub rejected: BTreeSet<usize>,
}

/// What an interface is again if the call that takes it to another device fails.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Before {
    pub device: Device,
    pub wanted: State,
    pub came: Option<Epoch>,
    pub resumes: bool,
    pub lease: Option<Duration>,
    pub explicit: bool,
}

impl Before {
    fn of(tsi: Tsi) -> Self {
        let Tsi { device, wanted, came, resumes, lease, explicit, .. } = tsi;
        Self { device, wanted, came, resumes, lease, explicit }
    }

    /// The same under the grant as it is now; its device is still gone.
    pub fn again(self, vn: VnName, grant: Grant, revision: u64) -> Tsi {
        let Self { device, wanted, came, resumes, lease, explicit } = self;
        Tsi { wanted, came, resumes, lease, explicit, ..Tsi::new(vn, grant, revision, device, false) }
    }
}

impl Tsi {
    /// What it is, if its device is gone.
    pub fn waits_for_its_device(self) -> Option<Before> {
        (!self.present).then(|| Before::of(self))
    }

    /// One that was just granted, or found on disk.
    pub fn new(vn: VnName, grant: Grant, revision: u64, device: Device, present: bool) -> Self {
        Self {
            vn,
            grant,
            revision,
            device,
            present,
            state: State::Associated,
            wanted: State::Activated,
            lost: None,
            previous: None,
            came: None,
            lease: None,
            explicit: false,
            resumes: false,
            waiting: None,
            claims: BTreeMap::new(),
            sent: BTreeMap::new(),
            digest: Digest::default(),
            governed: None,
            closed: None,
        }
    }

    /// Whether its grant is somebody else's, or nobody's.
    pub const fn is_lost(&self) -> bool {
        self.lost.is_some()
    }

    /// Its addresses, the MAC first.
    pub fn eids(&self) -> Vec<Eid> {
        eids(&self.grant)
    }
}

/// The addresses of a grant, the MAC first.
fn eids(grant: &Grant) -> Vec<Eid> {
    let mac = Eid::Mac(grant.mac.get());
    std::iter::once(mac).chain(grant.ips.iter().map(|ip| Eid::Ip(*ip))).collect()
}

impl Core {
    /// Takes over what an earlier run left: tenant systems whose devices are there are Activated
    /// again at once, without an Oracle (fail-static); the others wait out their grace time.
    ///
    /// Of two that name one interface or one device the first counts.
    pub fn restore(&mut self, now: Time, attachments: Vec<Attachment>, devices: &[Device]) {
        self.now = now;
        let devices: BTreeMap<&str, &Device> = devices.iter().map(|d| (d.name.as_str(), d)).collect();
        let mut found_ones = Vec::new();
        for attachment in attachments {
            let id = attachment.grant.tsi.clone();
            let name = (attachment.vn.clone(), id.name.clone());
            if self.tsis.contains_key(&id)
                || self.by_name.contains_key(&name)
                || self.by_device.contains_key(&attachment.device)
            {
                continue;
            }
            let found = devices.get(attachment.device.as_str()).map(|d| (*d).clone());
            let present = found.is_some();
            let kind = if attachment.tap { VapKind::Tap } else { VapKind::Veth };
            let device = found.unwrap_or(Device { name: attachment.device, index: IfIndex(0), kind });
            let mut tsi = Tsi::new(attachment.vn, attachment.grant, 0, device, present);
            tsi.lease = attachment.lease_s.map(Duration::from_secs);
            tsi.explicit = attachment.explicit;
            if attachment.activated {
                tsi.came = tsi.grant.epoch_of(self.config.xtr_id).ok();
            } else {
                tsi.wanted = State::Associated;
            }
            self.insert_tsi(tsi);
            self.run_lease(now, &id);
            if present {
                found_ones.push(id);
            } else {
                self.timers.set(Timer::Grace(id), now + self.config.timing.grace);
            }
        }
        // All are known before the first is in service: what policies are compiled for is for all.
        for id in found_ones {
            self.put_in_place(&id, None);
        }
    }

    /// Adds an interface and its names.
    pub(super) fn insert_tsi(&mut self, tsi: Tsi) {
        let id = tsi.grant.tsi.clone();
        self.by_name.insert((tsi.vn.clone(), id.name.clone()), id.clone());
        self.by_device.insert(tsi.device.name.clone(), id.clone());
        if tsi.present {
            self.vaps.insert(tsi.device.index, id.clone());
        }
        self.members.entry(id.vni).or_default().insert(id.clone());
        self.touch(&id);
        self.tsis.insert(id, tsi);
        self.unsaved = true;
    }

    /// Forgets an interface, its VAP included.
    pub(super) fn remove_tsi(&mut self, id: &TsiId) -> Option<Tsi> {
        self.part_with(id);
        let tsi = self.forget_tsi(id)?;
        if tsi.present {
            self.remove_vap(tsi.device.index);
        }
        self.end_connections(id, tsi.grant.ips.clone());
        Some(tsi)
    }

    /// An interface is about to be forgotten: who has asked for it is told, and nothing more of it is waited for.
    pub(super) fn part_with(&mut self, id: &TsiId) {
        self.withdraw(id);
        self.hand_last(id, true);
        self.end_arrival(id);
    }

    /// An interface's device has this name no more. It is that of another's that waits for one, or of which a new name is
    /// not heard of yet.
    pub(super) fn leave_name(&mut self, name: &str, id: &TsiId) {
        if remove_if(&mut self.by_device, &name.to_owned(), id)
            && let Some(other) = self.tsis.iter().find(|(other, tsi)| *other != id && tsi.device.name == name)
        {
            self.by_device.insert(name.to_owned(), other.0.clone());
        }
    }

    /// Forgets an interface but not its VAP: that is the caller's to remove or to give to another.
    pub(super) fn forget_tsi(&mut self, id: &TsiId) -> Option<Tsi> {
        self.withdraw(id);
        self.end_stop(id, true);
        // What moves on is redirected still, whoever is told of its end here first.
        let stays = |tsi: &Tsi| tsi.grant.next.is_none_or(|next| next.nve == self.config.xtr_id);
        if let Some(mac) =
            self.tsis.get(id).filter(|tsi| !tsi.is_lost() && stays(tsi)).map(|tsi| tsi.grant.mac.get())
        {
            self.end_redirect(id.vni, mac);
        }
        self.forget_left(id);
        let tsi = self.tsis.remove(id)?;
        self.touch(id);
        remove_if(&mut self.by_name, &(tsi.vn.clone(), id.name.clone()), id);
        self.leave_name(&tsi.device.name, id);
        remove_if(&mut self.vaps, &tsi.device.index, id);
        for timer in [
            Timer::Grace(id.clone()),
            Timer::Lease(id.clone()),
            Timer::Acknowledge(id.clone()),
            Timer::Register(id.clone()),
            Timer::Previous(id.clone()),
            Timer::Silent(id.clone()),
        ] {
            self.timers.cancel(&timer);
        }
        if let Some(waiting) = &tsi.waiting {
            self.tickets.remove(&waiting.ticket);
        }
        self.leave(id);
        self.policies_stale.insert(id.vni);
        // What is lost and may be granted again still needs the VN Context. Looked for only when nothing else does.
        if !self.members.contains_key(&id.vni)
            && !self.connected.contains_key(&id.vni)
            && !self.tsis.keys().any(|other| other.vni == id.vni)
        {
            self.vns.remove(&id.vni);
        }
        self.unsaved = true;
        Some(tsi)
    }

    /// An interface has no part in its VN any more. The last one takes all that is known of the VN along:
    /// no Oracle tells an NVE without a grant in it what changes there.
    pub(super) fn leave(&mut self, id: &TsiId) {
        let Some(members) = self.members.get_mut(&id.vni) else { return };
        members.remove(id);
        if members.is_empty() {
            self.members.remove(&id.vni);
            self.forget_vn(id.vni);
        }
    }

    /// Makes an interface that is granted and whose device is there what it is wanted to be.
    pub(super) fn put_in_place(&mut self, id: &TsiId, ticket: Option<Ticket>) {
        match self.tsis.get(id).map(|tsi| tsi.wanted) {
            Some(State::Activated) if ticket.is_some() || !self.is_held(id) => self.activate(id, ticket),
            // One that waits for what comes along is Activated when that has come.
            Some(State::Activated | State::Associated) => {
                // The grant may have brought another VN Context along; and its policy is there before it is Activated.
                self.review_vn(id.vni);
                self.policies_stale.insert(id.vni);
                self.close(id, ticket);
            }
            None => {}
        }
    }

    /// Puts an interface in service: its tables first, then its VAP, then its registration, so that
    /// whoever is told of it finds it.
    ///
    /// One whose access policy is not known, or does not fit, stays closed until that changes (requirement V9).
    pub(super) fn activate(&mut self, id: &TsiId, ticket: Option<Ticket>) {
        self.take_over(id);
        if !self.admit(id) {
            return;
        }
        self.came_from(id);
        let Some(tsi) = self.tsis.get_mut(id).filter(|t| !t.is_lost()) else { return };
        tsi.state = State::Activated;
        self.stopped.remove(id);
        self.touch(id);
        self.hand_resumed(id);
        self.forget_left(id);
        let Some(tsi) = self.tsis.get(id) else { return };
        let (grant, device, eids) = (tsi.grant.clone(), tsi.device.clone(), tsi.eids());
        let mac = grant.mac.get();
        self.end_redirect(id.vni, mac);
        self.local_macs.insert((id.vni, mac), id.clone());
        for ip in &grant.ips {
            self.local_ips.insert((id.vni, *ip), id.clone());
        }
        // What was known of its addresses as somebody else's no longer holds.
        for eid in &eids {
            self.forget_cached(id.vni, *eid);
        }
        self.end_orphan(device.index);
        self.review_vn(id.vni);
        self.change(Op::SetLocation(id.vni, mac, Location::Local(device.index)));
        for ip in &grant.ips {
            self.change(Op::SetNeighbour(id.vni, *ip, Neighbour::At(mac)));
        }
        let vap = self.vap(id, &grant, device.kind, true);
        if ticket.is_some() || self.tables.vaps.get(&device.index) != Some(&vap) {
            let op = Op::SetVap(device.index, vap);
            self.tables.apply(&op);
            self.outputs.push_back(Output::Apply(op, ticket));
        }
        self.register(id, Registering::Activated);
        // Whoever here asked for it before need not wait for the Oracle.
        for eid in eids {
            self.settle(id.vni, eid);
            self.heal_stand_ins(self.now, id.vni, eid);
        }
        self.arrive(id);
    }

    /// The store gives an address to one interface only. Where two here claim one, what is known of the
    /// one from the earlier revision is outdated: it may no longer send from that address.
    fn take_over(&mut self, id: &TsiId) {
        let Some(mine) = self.tsis.get(id) else { return };
        let revision = mine.revision;
        for eid in mine.eids() {
            let holder = match eid {
                Eid::Mac(mac) => self.local_macs.get(&(id.vni, mac)),
                Eid::Ip(ip) => self.local_ips.get(&(id.vni, ip)),
            };
            let Some(other) = holder.filter(|other| *other != id).cloned() else { continue };
            let newer = self.tsis.get(&other).is_some_and(|t| t.revision > revision);
            let outdated = if newer { id.clone() } else { other.clone() };
            match eid {
                Eid::Mac(_) => self.lose_grant(&outdated, Went::Unknown),
                Eid::Ip(ip) => {
                    if let Some(tsi) = self.tsis.get_mut(&outdated) {
                        tsi.grant.ips.remove(&ip);
                    }
                    self.touch(&outdated);
                    if !newer {
                        self.remove_local(&other, &[eid]);
                        self.activate(&other, None);
                    }
                }
            }
        }
    }

    fn vap(&self, id: &TsiId, grant: &Grant, kind: VapKind, activated: bool) -> Vap {
        Vap {
            vni: grant.tsi.vni,
            mac: grant.mac,
            ips: grant.ips.clone(),
            kind,
            path: match kind {
                VapKind::Veth => self.config.veth_path,
                VapKind::Tap => self.config.tap_path,
            },
            mtu: self.config.tenant_mtu,
            activated,
            waits: !activated && self.tsis.get(id).is_some_and(|tsi| self.may_come(tsi)),
            previous: self.tsis.get(id).and_then(|tsi| tsi.previous).filter(|_| activated),
            policy: if activated { self.policy_of(&grant.tsi) } else { None },
            tunnel: self.tunnel_of(grant),
        }
    }

    /// Takes an interface out of service and closes its VAP: the program stays at the device and drops
    /// every frame, or the tenant system would talk to the host itself.
    pub(super) fn deactivate(&mut self, id: &TsiId) {
        self.withdraw(id);
        self.close(id, None);
    }

    /// A VAP at its device lets nothing through, until something else is said of it.
    pub(super) fn shut(&mut self, id: &TsiId) {
        self.close(id, None);
    }

    /// A VAP at its device lets nothing through.
    pub(super) fn close(&mut self, id: &TsiId, ticket: Option<Ticket>) {
        let Some(tsi) = self.tsis.get(id).filter(|t| t.present) else { return };
        let (device, closed) = (tsi.device.index, self.vap(id, &tsi.grant, tsi.device.kind, false));
        self.end_orphan(device);
        if ticket.is_some() || self.tables.vaps.get(&device) != Some(&closed) {
            let op = Op::SetVap(device, closed);
            self.tables.apply(&op);
            self.outputs.push_back(Output::Apply(op, ticket));
        }
    }

    /// Removes the VAP at a device, if there is one.
    pub(super) fn remove_vap(&mut self, device: IfIndex) {
        self.end_orphan(device);
        if self.tables.vaps.contains_key(&device) {
            self.apply(Op::RemoveVap(device));
        }
    }

    /// Takes an interface out of service but for its VAP; the grant stays.
    pub(super) fn withdraw(&mut self, id: &TsiId) {
        self.take_out(id, false);
    }

    /// The same. Of one that moves elsewhere no Oracle is told: it stays registered until it is there.
    pub(super) fn take_out(&mut self, id: &TsiId, moves: bool) {
        self.keep_left(id);
        let Some(tsi) = self.tsis.get_mut(id).filter(|t| t.state == State::Activated) else { return };
        tsi.state = State::Associated;
        self.announcing.remove(id);
        self.timers.cancel(&Timer::Announce(id.clone()));
        let (grant, device) = (tsi.grant.clone(), tsi.device.index);
        self.touch(id);
        if moves {
            self.stopped.insert(id.clone());
        } else {
            self.unregister(id);
        }
        self.remove_local(id, &eids(&grant));
        self.forget_asker(id.vni, device);
        self.stand_ins.forget_vap(device);
        self.review_vn(id.vni);
    }

    fn unregister(&mut self, id: &TsiId) {
        self.register(id, Registering::Withdrawn);
        if let Some(tsi) = self.tsis.get_mut(id) {
            tsi.sent.clear();
            tsi.digest = Digest::default();
        }
    }

    /// It moves no more, or is where it moved to, which Oracles know by themselves: `told` if not.
    pub(super) fn end_stop(&mut self, id: &TsiId, told: bool) {
        if !self.stopped.remove(id) {
            return;
        }
        if told {
            self.unregister(id);
        } else if let Some(tsi) = self.tsis.get_mut(id) {
            tsi.sent.clear();
            tsi.digest = Digest::default();
        }
    }

    /// The one with this address that is on its way elsewhere.
    pub(super) fn stopped_with(&self, vni: Vni, eid: Eid) -> Option<&TsiId> {
        let has = |tsi: &Tsi| match eid {
            Eid::Mac(mac) => tsi.grant.mac.get() == mac,
            Eid::Ip(ip) => tsi.grant.ips.contains(&ip),
        };
        // Few are at a time.
        self.stopped.iter().find(|id| id.vni == vni && self.tsis.get(*id).is_some_and(has))
    }

    /// Takes addresses of `id` out of the tables, unless somebody else here has them by now.
    pub(super) fn remove_local(&mut self, id: &TsiId, eids: &[Eid]) {
        for eid in eids {
            let mine = match *eid {
                Eid::Mac(mac) => remove_if(&mut self.local_macs, &(id.vni, mac), id),
                Eid::Ip(ip) => remove_if(&mut self.local_ips, &(id.vni, ip), id),
            };
            if mine {
                self.unset(id.vni, *eid);
            }
        }
    }

    /// A newer version of a grant this NVE holds, or held: other addresses, another epoch.
    pub(super) fn update_grant(&mut self, id: &TsiId, grant: Grant, revision: u64) {
        if grant.epoch_of(self.config.xtr_id).is_err() {
            self.lose_grant(id, self.went_with(&grant));
            return;
        }
        let me = self.config.xtr_id;
        let elsewhere = |tsi: &Tsi| grant.owner != me && grant.epoch > self.epoch_of(tsi);
        if self.tsis.get(id).is_some_and(elsewhere) {
            // It has moved away and is to come back: the lists between were not read.
            self.lose_grant(id, self.went_with(&grant));
        }
        let Some(tsi) = self.tsis.get_mut(id) else { return };
        tsi.revision = tsi.revision.max(revision);
        // Only by a later epoch than it was lost with: what was written before that may be read after it.
        let later = |lost: &Lost| grant.epoch_of(me).is_ok_and(|epoch| epoch > lost.with);
        let regained = tsi.lost.take_if(|lost| later(lost)).is_some();
        if tsi.grant == grant && !regained {
            return;
        }
        if regained && grant.owner != me {
            // To be the one it moves to next is no reason to Activate it.
            tsi.wanted = State::Associated;
        }
        if regained {
            self.members.entry(id.vni).or_default().insert(id.clone());
        }
        let old = std::mem::replace(&mut tsi.grant, grant);
        let kept = tsi.eids();
        let stays = tsi.grant.next.is_none_or(|next| next.nve == me);
        let (activated, present) = (tsi.state == State::Activated, tsi.present);
        self.touch(id);
        if self.is_asked_for(id) {
            // The list tells of it before the answer does.
            self.perhaps_because(id, Cause::Hypervisor);
        }
        let gone: Vec<Eid> = eids(&old).into_iter().filter(|eid| !kept.contains(eid)).collect();
        if activated {
            self.remove_local(id, &gone);
        }
        let ips: BTreeSet<TenantIp> =
            gone.iter().filter_map(|eid| if let Eid::Ip(ip) = eid { Some(*ip) } else { None }).collect();
        // Also where it is out of service.
        self.end_connections(id, ips);
        if stays {
            if self.stopped.contains(id) {
                self.end_redirect(id.vni, old.mac.get());
            }
            self.end_stop(id, true);
        } else if self.stopped.contains(id) {
            self.redirect(id);
        }
        if present && self.tsis.get(id).is_some_and(|tsi| !tsi.is_lost()) {
            self.resumes_as_owner(id);
            self.put_in_place(id, None);
        }
        self.unsaved = true;
    }

    /// The attached interface of this name.
    pub(super) fn find(&self, vn: &VnName, name: &TsiName) -> Option<&Tsi> {
        // Names are short; a borrowed pair as key would need a type of its own.
        self.by_name.get(&(vn.clone(), name.clone())).and_then(|id| self.tsis.get(id))
    }

    /// Whether an address belongs to a tenant system that is Activated here.
    pub(super) fn is_local(&self, vni: Vni, eid: Eid) -> bool {
        match eid {
            Eid::Mac(mac) => self.local_macs.contains_key(&(vni, mac)),
            Eid::Ip(ip) => self.local_ips.contains_key(&(vni, ip)),
        }
    }

    /// The epoch of an interface at this NVE.
    pub(super) fn epoch_of(&self, tsi: &Tsi) -> Epoch {
        tsi.grant.epoch_of(self.config.xtr_id).unwrap_or(tsi.grant.epoch)
    }

    pub(super) fn attached(&self, tsi: &Tsi, already: bool) -> Attached {
        let (mtu, state, epoch) = (self.config.tenant_mtu, tsi.state, self.epoch_of(tsi));
        let (vn, grant, device) = (tsi.vn.clone(), tsi.grant.clone(), tsi.device.name.clone());
        let default_groups = self.default_groups(tsi);
        Attached { vn, grant, device, default_groups, mtu, lease: tsi.lease, epoch, state, already }
    }

    /// What must outlive the agent: everything attached and not lost.
    #[must_use]
    pub fn attachments(&self) -> Vec<Attachment> {
        let kept = self.tsis.values().filter(|t| !t.is_lost());
        kept.map(|t| Attachment {
            vn: t.vn.clone(),
            device: t.device.name.clone(),
            tap: t.device.kind == VapKind::Tap,
            grant: t.grant.clone(),
            // What is another's until an Oracle has taken its registration is not put in service without one.
            activated: t.wanted == State::Activated && !(self.is_anothers(t) && t.waiting.is_some()),
            lease_s: t.lease.map(|lease| lease.as_secs()),
            explicit: t.explicit,
        })
        .collect()
    }

    /// Hands everything that must outlive the agent to the disk, if it changed since it last was.
    pub(super) fn save(&mut self) {
        if std::mem::take(&mut self.unsaved) {
            let attachments = self.attachments();
            self.outputs.push_back(Output::Persist(attachments));
        }
    }
}

/// Removes `key` if it leads to `id`; says whether it did.
fn remove_if<K: Ord>(map: &mut BTreeMap<K, TsiId>, key: &K, id: &TsiId) -> bool {
    let mine = map.get(key) == Some(id);
    if mine {
        map.remove(key);
    }
    mine
}
