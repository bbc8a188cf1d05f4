//! The tables of the data plane, as their owner intends them and as the kernel is observed to
//! hold them: one type for both, so that a reconciler can subtract one from the other.

use crate::{Allow, ClassId, Policy, PolicyId, Prefix, RuleKey, Tunnel};
use core::{cmp::Reverse, net::IpAddr, num::NonZeroU32};
use std::collections::{BTreeMap, BTreeSet};
use weft_model::{Bum, Epoch, Learning, MacAddr, Miss, Rloc, Storm, TenantIp, TsMac, Vni, Wanted};

/// A network device's index in the NVE's namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfIndex(pub u32);

/// What a VAP's device is: decides how frames are handed to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VapKind {
    /// The host's end of a veth pair: delivery by `bpf_redirect_peer`.
    Veth,
    /// A TAP of a virtual machine: delivery by `bpf_redirect`.
    Tap,
}

/// How frames cross the underlay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Path {
    /// The programs write and strip the VXLAN header themselves.
    #[default]
    Direct,
    /// The kernel's VXLAN device does, told by a tunnel key.
    Device,
}

/// A Virtual Access Point (RFC 8014 section 3.2): one tenant system interface's device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vap {
    /// Its virtual network.
    pub vni: Vni,
    /// The only source MAC accepted from it.
    pub mac: TsMac,
    /// The only source IPs, sender protocol addresses and ND targets accepted from it.
    pub ips: BTreeSet<TenantIp>,
    /// The kind of device.
    pub kind: VapKind,
    /// The path its frames leave by.
    pub path: Path,
    /// Largest IP packet accepted from it, octets: the underlay's MTU less the encapsulation.
    pub mtu: u16,
    /// RFC 8394 Activated. When false every frame to and from it is dropped (`not-activated`).
    pub activated: bool,
    /// Not Activated, but to be by its first frame: one from its MAC is told of
    /// ([`PuntReason::FirstFrame`](crate::PuntReason::FirstFrame)), and dropped like any other.
    pub waits: bool,
    /// The NVE that it moved here from ([`Peer::node`]), which sends on what still comes for it there: what others
    /// sent is not fenced when it comes from that one.
    pub previous: Option<NonZeroU32>,
    /// What may go to and from it beside all that; none: everything.
    pub policy: Option<Policy>,
    /// How its frames cross the underlay, and how many may.
    pub tunnel: Tunnel,
}

/// Where a MAC address of a VN is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Location {
    /// At this VAP.
    Local(IfIndex),
    /// Behind this NVE.
    Remote {
        /// Its RLOC.
        rloc: Rloc,
        /// The epoch of the grant the mapping came from; orders it against later ones.
        epoch: Epoch,
        /// How many of 2^32 flows go to that NVE's RLOC of the other family ([`Peer::other`]), by their hash.
        other: u32,
    },
    /// Known not to exist: drop, do not punt.
    Nowhere,
}

/// Whereto a tenant system went that was here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Away {
    /// An RLOC of the NVE it moved to.
    pub rloc: Rloc,
    /// The epoch of the grant by which it is there.
    pub epoch: Epoch,
}

/// What is answered to an ARP request or Neighbor Solicitation for an IP address of a VN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Neighbour {
    /// Answer with this MAC.
    At(MacAddr),
    /// Known not to exist: no answer, no punt.
    Nobody,
}

/// What the whole NVE shares.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Config {
    /// Outer source addresses, at most one of each family; none of a family, no tunnels over it.
    pub rlocs: BTreeSet<Rloc>,
    /// The devices that lead to RLOCs: frames are decapsulated there.
    pub uplinks: BTreeSet<IfIndex>,
    /// This NVE's number, from which the MAC address is made that stands for it where it translates
    /// ([`MacAddr::of_node`]).
    pub node: u32,
}

/// How frames of a VN are treated whose destination no table holds, and those for groups. A VN that is
/// not among the tables is treated as [`Vn::default`] says.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vn {
    /// How this NVE learns in it.
    pub learning: Learning,
    /// What becomes of broadcast and multicast other than ARP, ND and DHCP.
    pub bum: Bum,
    /// The other NVEs in it, by one RLOC each, of a family this NVE has: whereto frames are replicated.
    pub members: BTreeSet<Rloc>,
    /// How many frames one VAP may have replicated.
    pub storm: Storm,
    /// What becomes of a frame whose destination no table holds.
    pub miss: Miss,
    /// The NVE that carries such frames, another than this one. Without one they are held. Frames that it
    /// sends are not fenced.
    pub gateway: Option<Rloc>,
    /// Whether this NVE is it: what others send here for somebody who is not is sent on, once.
    pub carries: bool,
}

/// Who asked for a group's frames. A group without an entry of its own goes to those that want all; of a VN without
/// such, it goes to nobody (`no-receiver`). Who wants all has to stand in the entries of single groups too.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Receivers {
    /// VAPs here.
    pub vaps: BTreeSet<IfIndex>,
    /// Members of the VN, by the RLOCs that they are members by.
    pub members: BTreeSet<Rloc>,
}

/// What a node at an underlay address may send here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// It is an NVE: VXLAN from it is accepted.
    pub nve: bool,
    /// It is an Oracle: echo requests from it are answered.
    pub oracle: bool,
    /// Which NVE: a number that is the same for all of its RLOCs, and hardly ever for those of two.
    pub node: u32,
    /// The RLOC of the other family that it has beside this one.
    pub other: Option<Rloc>,
}

/// Every table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tables {
    /// What the NVE shares.
    pub config: Config,
    /// VAPs by device.
    pub vaps: BTreeMap<IfIndex, Vap>,
    /// Where MAC addresses are.
    pub fdb: BTreeMap<(Vni, MacAddr), Location>,
    /// Whereto MAC addresses went that were here: for what other NVEs send for them here, unless [`Self::fdb`] says
    /// that they are here, and for what tenant systems here send, unless that says anything.
    pub away: BTreeMap<(Vni, MacAddr), Away>,
    /// What ARP and ND are answered with.
    pub neighbours: BTreeMap<(Vni, TenantIp), Neighbour>,
    /// Who may send to this node's tunnels.
    pub peers: BTreeMap<IpAddr, Peer>,
    /// How VNs are treated.
    pub vns: BTreeMap<Vni, Vn>,
    /// Who asked for which group, in VNs that replicate, and who gets those that have no entry.
    pub groups: BTreeMap<(Vni, Wanted), Receivers>,
    /// What policies allow.
    pub rules: BTreeMap<RuleKey, Allow>,
    /// Which class an address is of: that of the longest prefix it has.
    pub classes: BTreeMap<(Vni, Prefix), ClassId>,
}

/// One change of one table. Idempotent: applying it twice is applying it once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// Replace the configuration; attach to new uplinks, leave old ones.
    Config(Config),
    /// Add or replace a VAP, with its program attached when this returns.
    SetVap(IfIndex, Vap),
    /// Remove a VAP; its device may be gone already.
    RemoveVap(IfIndex),
    /// Add or replace a location.
    SetLocation(Vni, MacAddr, Location),
    /// Forget a location.
    RemoveLocation(Vni, MacAddr),
    /// Frames for who was here are to be redirected.
    SetAway(Vni, MacAddr, Away),
    /// They are not any more.
    RemoveAway(Vni, MacAddr),
    /// Add or replace an answer.
    SetNeighbour(Vni, TenantIp, Neighbour),
    /// Forget an answer.
    RemoveNeighbour(Vni, TenantIp),
    /// Add or replace a peer.
    SetPeer(IpAddr, Peer),
    /// Forget a peer.
    RemovePeer(IpAddr),
    /// Add or replace how a VN is treated; a change of members alone costs what changed.
    SetVn(Vni, Vn),
    /// Treat a VN by default.
    RemoveVn(Vni),
    /// Add or replace the receivers of a group, or of those without an entry.
    SetGroup(Vni, Wanted, Receivers),
    /// Nobody asks for a group any more.
    RemoveGroup(Vni, Wanted),
    /// Add or replace a rule.
    SetRule(RuleKey, Allow),
    /// Forget a rule.
    RemoveRule(RuleKey),
    /// Add or replace the class of a prefix's addresses.
    SetClass(Vni, Prefix, ClassId),
    /// The addresses are of the class of the next shorter prefix.
    RemoveClass(Vni, Prefix),
}

impl Tables {
    /// Makes the change `op` says, as a data plane that never fails would.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Config(config) => self.config = config.clone(),
            Op::SetVap(device, vap) => {
                self.vaps.insert(*device, vap.clone());
            }
            Op::RemoveVap(device) => {
                self.vaps.remove(device);
            }
            Op::SetLocation(vni, mac, location) => {
                self.fdb.insert((*vni, *mac), *location);
            }
            Op::RemoveLocation(vni, mac) => {
                self.fdb.remove(&(*vni, *mac));
            }
            Op::SetAway(vni, mac, away) => {
                self.away.insert((*vni, *mac), *away);
            }
            Op::RemoveAway(vni, mac) => {
                self.away.remove(&(*vni, *mac));
            }
            Op::SetNeighbour(vni, ip, neighbour) => {
                self.neighbours.insert((*vni, *ip), *neighbour);
            }
            Op::RemoveNeighbour(vni, ip) => {
                self.neighbours.remove(&(*vni, *ip));
            }
            Op::SetPeer(ip, peer) => {
                self.peers.insert(*ip, *peer);
            }
            Op::RemovePeer(ip) => {
                self.peers.remove(ip);
            }
            Op::SetVn(vni, vn) => {
                self.vns.insert(*vni, vn.clone());
            }
            Op::RemoveVn(vni) => {
                self.vns.remove(vni);
            }
            Op::SetGroup(vni, group, receivers) => {
                self.groups.insert((*vni, *group), receivers.clone());
            }
            Op::RemoveGroup(vni, group) => {
                self.groups.remove(&(*vni, *group));
            }
            Op::SetRule(key, allow) => {
                self.rules.insert(*key, *allow);
            }
            Op::RemoveRule(key) => {
                self.rules.remove(key);
            }
            Op::SetClass(vni, prefix, class) => {
                self.classes.insert((*vni, *prefix), *class);
            }
            Op::RemoveClass(vni, prefix) => {
                self.classes.remove(&(*vni, *prefix));
            }
        }
    }

    /// The changes that turn `observed` into `self`, removals first, so that a device or address
    /// that changed hands is never in two places. Nothing that is right already is touched. What a policy allows is
    /// there before a VAP has it, and goes after the last has it no more; but what a policy that is kept allows no more
    /// goes before its VAPs' generation changes, or connections would be found allowed under that once and for all.
    #[must_use]
    pub fn diff(&self, observed: &Self) -> Vec<Op> {
        self.changes(observed, true)
    }

    /// The same of all but [`Self::fdb`] and [`Self::neighbours`].
    pub(crate) fn diff_few(&self, observed: &Self) -> Vec<Op> {
        self.changes(observed, false)
    }

    fn changes(&self, observed: &Self, everything: bool) -> Vec<Op> {
        let mut ops = Vec::new();
        if self.config != observed.config {
            ops.push(Op::Config(self.config.clone()));
        }
        let gone = |key: &_| !self.vaps.contains_key(key);
        ops.extend(observed.vaps.keys().filter(|k| gone(k)).map(|k| Op::RemoveVap(*k)));
        let gone = |key: &_| !self.fdb.contains_key(key);
        ops.extend(observed.fdb.keys().filter(|k| gone(k)).map(|(v, m)| Op::RemoveLocation(*v, *m)));
        let gone = |key: &_| !self.away.contains_key(key);
        ops.extend(observed.away.keys().filter(|k| gone(k)).map(|(v, m)| Op::RemoveAway(*v, *m)));
        let gone = |key: &_| !self.neighbours.contains_key(key);
        ops.extend(observed.neighbours.keys().filter(|k| gone(k)).map(|(v, i)| Op::RemoveNeighbour(*v, *i)));
        let gone = |key: &_| !self.peers.contains_key(key);
        ops.extend(observed.peers.keys().filter(|k| gone(k)).map(|k| Op::RemovePeer(*k)));
        let gone = |key: &_| !self.vns.contains_key(key);
        ops.extend(observed.vns.keys().filter(|k| gone(k)).map(|k| Op::RemoveVn(*k)));
        // Who is to get what has no entry is known before an entry goes, and until all are there: nobody is to be
        // without in between.
        let gone = |key: &&_| !self.groups.contains_key(*key);
        let (gone_all, gone): (Vec<&_>, Vec<&_>) =
            observed.groups.keys().filter(gone).partition(|(_, g)| *g == Wanted::All);
        let changed = self.groups.iter().filter(|(k, v)| observed.groups.get(*k) != Some(*v));
        let (all, groups): (Vec<_>, Vec<_>) = changed.partition(|((_, g), _)| *g == Wanted::All);
        let set = |((v, g), r): (&(Vni, Wanted), &Receivers)| Op::SetGroup(*v, *g, r.clone());
        ops.extend(all.into_iter().map(set));
        ops.extend(gone.into_iter().map(|(v, g)| Op::RemoveGroup(*v, *g)));

        let changed = self.vns.iter().filter(|(k, v)| observed.vns.get(*k) != Some(*v));
        ops.extend(changed.map(|(k, v)| Op::SetVn(*k, v.clone())));
        ops.extend(groups.into_iter().map(set));
        ops.extend(gone_all.into_iter().map(|(v, g)| Op::RemoveGroup(*v, *g)));
        let changed = self.peers.iter().filter(|(k, v)| observed.peers.get(*k) != Some(*v));
        ops.extend(changed.map(|(k, v)| Op::SetPeer(*k, *v)));
        // Nobody is of a class before its rules are there. Longer prefixes come first and go last: an address goes from
        // one class to another by no third.
        let changed = self.rules.iter().filter(|(k, v)| observed.rules.get(*k) != Some(*v));
        ops.extend(changed.map(|(k, a)| Op::SetRule(*k, *a)));
        let changed = self.classes.iter().filter(|(k, v)| observed.classes.get(*k) != Some(*v));
        let mut changed: Vec<_> = changed.collect();
        changed.sort_by_key(|((_, prefix), _)| Reverse(prefix.bits()));
        ops.extend(changed.into_iter().map(|((v, p), c)| Op::SetClass(*v, *p, *c)));
        let gone = |key: &&_| !self.classes.contains_key(*key);
        let mut gone: Vec<_> = observed.classes.keys().filter(gone).collect();
        gone.sort_by_key(|(_, prefix)| prefix.bits());
        ops.extend(gone.into_iter().map(|(v, p)| Op::RemoveClass(*v, *p)));
        let kept: BTreeSet<PolicyId> = self.vaps.values().filter_map(|vap| Some(vap.policy?.id)).collect();
        let gone = observed.rules.keys().filter(|key| !self.rules.contains_key(*key));
        let (of_kept, of_others): (Vec<&RuleKey>, Vec<_>) = gone.partition(|key| kept.contains(&key.policy));
        ops.extend(of_kept.into_iter().map(|key| Op::RemoveRule(*key)));
        let changed = self.vaps.iter().filter(|(k, v)| observed.vaps.get(*k) != Some(*v));
        ops.extend(changed.map(|(k, v)| Op::SetVap(*k, v.clone())));
        if everything {
            let changed = self.fdb.iter().filter(|(k, v)| observed.fdb.get(*k) != Some(*v));
            ops.extend(changed.map(|((v, m), l)| Op::SetLocation(*v, *m, *l)));
        }
        let changed = self.away.iter().filter(|(k, v)| observed.away.get(*k) != Some(*v));
        ops.extend(changed.map(|((v, m), a)| Op::SetAway(*v, *m, *a)));
        if everything {
            let changed = self.neighbours.iter().filter(|(k, v)| observed.neighbours.get(*k) != Some(*v));
            ops.extend(changed.map(|((v, i), n)| Op::SetNeighbour(*v, *i, *n)));
        }
        ops.extend(of_others.into_iter().map(|key| Op::RemoveRule(*key)));
        ops
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ports, Toward};

    #[test]
    fn nobody_is_without_his_group_in_between() {
        let vni = Vni::new(7).unwrap();
        let group = Wanted::Group("239.1.2.3".parse().unwrap());
        let receivers = Receivers { vaps: [IfIndex(1)].into(), ..Receivers::default() };
        let of = |groups: &[Wanted]| Tables {
            groups: groups.iter().map(|wanted| ((vni, *wanted), receivers.clone())).collect(),
            ..Tables::default()
        };
        let set = |wanted| Op::SetGroup(vni, wanted, receivers.clone());
        let (named, all) = (of(&[group]), of(&[Wanted::All]));
        assert_eq!(all.diff(&named), [set(Wanted::All), Op::RemoveGroup(vni, group)]);
        assert_eq!(named.diff(&all), [set(group), Op::RemoveGroup(vni, Wanted::All)]);
        assert_eq!(all.diff(&all), []);
    }

    #[test]
    fn rules_are_there_before_the_vaps_that_have_them_and_go_after() {
        let vni = Vni::new(7).unwrap();
        let of = |number, class: &str| {
            let policy = PolicyId::new(number).unwrap();
            let id = ClassId(number);
            let key =
                RuleKey { policy, toward: Toward::In, class: id, protocol: Some(6), ports: Ports::one(80) };
            let policy = Some(Policy { id: policy, generation: number, log_refused: false });
            let vap = Vap {
                vni,
                mac: TsMac::new(MacAddr([2, 0, 0, 0, 0, 1])).unwrap(),
                ips: BTreeSet::new(),
                kind: VapKind::Veth,
                path: Path::Direct,
                mtu: 1450,
                activated: true,
                waits: false,
                previous: None,
                policy,
                tunnel: Tunnel::default(),
            };
            Tables {
                vaps: [(IfIndex(1), vap)].into(),
                rules: [(key, Allow { rule: number, log: false })].into(),
                classes: [((vni, Prefix::from(class.parse::<IpAddr>().unwrap())), id)].into(),
                ..Tables::default()
            }
        };
        let kind = |op: &Op| match op {
            Op::SetClass(..) => "class",
            Op::SetRule(..) => "rule",
            Op::SetVap(..) => "VAP",
            Op::RemoveRule(..) => "no rule",
            Op::RemoveClass(..) => "no class",
            other => panic!("{other:?}"),
        };
        let kinds = |from: &Tables, to: &Tables| {
            let (mut tables, ops) = (from.clone(), to.diff(from));
            ops.iter().for_each(|op| tables.apply(op));
            assert_eq!(&tables, to);
            ops.iter().map(kind).collect::<Vec<_>>()
        };
        let (old, new) = (of(1, "10.0.0.1"), of(2, "10.0.0.2"));
        assert_eq!(kinds(&old, &new), ["rule", "class", "no class", "VAP", "no rule"]);
        // Of prefixes one in another the longer one has its class first and loses it last.
        let (mut two, net) = (old.clone(), |bits| Prefix::new([10, 0, 0, 1].into(), bits).unwrap());
        two.classes = [8, 16, 24].map(|bits| ((vni, net(bits)), ClassId(1))).into();
        let bits = |op: &Op| match op {
            Op::SetClass(_, prefix, _) => Some(prefix.bits()),
            Op::RemoveClass(_, prefix) => Some(prefix.bits()),
            _ => None,
        };
        let order = |to: &Tables, from: &Tables| to.diff(from).iter().filter_map(bits).collect::<Vec<_>>();
        assert_eq!(order(&two, &old), [24, 16, 8, 32]);
        assert_eq!(order(&old, &two), [32, 8, 16, 24]);
        // The same policy, of which a rule has gone.
        let mut less = old.clone();
        less.rules.clear();
        for vap in less.vaps.values_mut() {
            vap.policy = vap.policy.map(|policy| Policy { generation: 9, ..policy });
        }
        assert_eq!(kinds(&old, &less), ["no rule", "VAP"]);
        assert_eq!(kinds(&less, &old), ["rule", "VAP"]);
    }
}
